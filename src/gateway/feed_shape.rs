//! The wire shapes of a feed: pages, and server-sent events.
//!
//! As documents are, they are written by hand: what a document holds is JSON text already.

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::rfc3339::Rfc3339;
use super::shape::{write, write_heads, write_text};
use crate::FeedCursor;
use crate::peer::{Changes, Document, KeyConflict};

/// A page of a feed, as the description shows it.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "feeds are written by hand; this describes what is written")]
pub(super) struct FeedPage {
    changes: Vec<Change>,
    /// Where the next page starts.
    next_cursor: String,
    /// Whether there is more for now.
    more: bool,
    /// `false` when there is no such collection; otherwise absent.
    #[schema(required = false)]
    collection_exists: Option<bool>,
}

/// An event of a stream, as a client reads it.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "streams are written by hand; this describes what is written")]
pub(super) struct StreamEvent {
    /// What it tells of.
    #[schema(required = false)]
    event: Option<String>,
    /// JSON text.
    #[schema(required = false)]
    data: Option<String>,
    /// The cursor behind it, to go on with.
    #[schema(required = false)]
    id: Option<String>,
    /// Milliseconds after which to connect again.
    #[schema(required = false)]
    retry: Option<u64>,
}

/// A document at its last change.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "feeds are written by hand; this describes what is written")]
pub(super) struct Change {
    id: String,
    deleted: bool,
    updated_at: Rfc3339,
    /// The cursor behind this change.
    cursor: String,
    heads: Vec<String>,
    /// Places at which edits that did not know of each other left several values, of which one is shown.
    conflict_count: u64,
    /// What it holds, unless it is deleted or that was not wanted.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
    /// The unique indexes of this peer in which it has the same key as other documents, because peers wrote them while
    /// they were apart. Left out when there are none. Change all of them but one.
    conflicts: Option<Vec<UniqueConflict>>,
}

/// Documents with the same key in a unique index.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UniqueConflict {
    /// The name of the index.
    index: String,
    /// The one that was created first; the same on every peer that has these documents.
    winner: String,
    /// The others, in the order of their creation, at most 20.
    losers: Vec<String>,
}

impl UniqueConflict {
    fn new(conflict: &KeyConflict) -> Self {
        Self {
            index: conflict.index.to_string(),
            winner: conflict.winner.to_string(),
            losers: conflict.losers.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A page of a feed: `{changes, next_cursor, more}`.
pub(super) fn page(changes: &Changes, data: bool, missing: bool) -> Bytes {
    let mut out = b"{\"changes\":[".to_vec();
    for (index, (document, cursor)) in changes.documents.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_change(&mut out, changes, document, cursor, data);
    }
    out.extend_from_slice(format!("],\"next_cursor\":\"{}\",\"more\":{}", changes.next, !changes.complete).as_bytes());
    if missing {
        out.extend_from_slice(b",\"collection_exists\":false");
    }
    out.push(b'}');
    out.into()
}

/// Changes as server-sent events (HTML, section 9.2). JSON on one line needs no further care.
pub(super) fn events(changes: &Changes, data: bool) -> Bytes {
    let mut out = Vec::new();
    for (document, cursor) in &changes.documents {
        out.extend_from_slice(format!("id: {cursor}\nevent: change\ndata: ").as_bytes());
        write_change(&mut out, changes, document, cursor, data);
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}

fn write_change(out: &mut Vec<u8>, changes: &Changes, document: &Document, cursor: &FeedCursor, data: bool) {
    out.extend_from_slice(b"{\"id\":");
    write_text(out, document.id());
    let (deleted, updated) = (document.is_deleted(), document.updated_at());
    let text = format!(",\"deleted\":{deleted},\"updated_at\":\"{updated}\",\"cursor\":\"{cursor}\",\"heads\":");
    out.extend_from_slice(text.as_bytes());
    write_heads(out, document);
    out.extend_from_slice(format!(",\"conflict_count\":{}", document.conflict_count().unwrap_or(0)).as_bytes());
    if data && !deleted {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(document.json());
    }
    if let Some(conflicts) = changes.conflicts.get(document.id()) {
        out.extend_from_slice(b",\"conflicts\":");
        write(out, &conflicts.iter().map(UniqueConflict::new).collect::<Vec<_>>());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::base::DocumentId;
    use crate::{Peer, PeerConfig};

    #[tokio::test]
    async fn conflicts_stand_beside_the_documents_that_are_in_them() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let notes = peer.collection("notes").unwrap();
        for id in ["a", "b"] {
            notes.put(id, json!({"n": 1})).await.unwrap();
        }
        let mut changes = notes.changes(None, "", 10).unwrap();
        let id = |id: &str| id.parse::<DocumentId>().unwrap();
        let conflict = KeyConflict { index: "by-n".parse().unwrap(), winner: id("b"), losers: vec![id("a"), id("c")] };
        changes.conflicts.insert("a".into(), vec![conflict]);
        let page: Value = serde_json::from_slice(&page(&changes, false, false)).unwrap();
        let shown = json!([{"index": "by-n", "winner": "b", "losers": ["a", "c"]}]);
        assert_eq!((&page["changes"][0]["conflicts"], page["changes"][1].get("conflicts")), (&shown, None));
        let events = events(&changes, true);
        let data = std::str::from_utf8(&events).unwrap().lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&event["conflicts"], &event["data"]), (&shown, &json!({"n": 1})));
        peer.shutdown().await;
    }
}
