//! The wire shapes of a feed: pages, and server-sent events.
//!
//! As documents are, they are written by hand: what a document holds is JSON text already.

use bytes::Bytes;
use utoipa::ToSchema;

use super::rfc3339::Rfc3339;
use super::shape::{write_heads, write_text};
use crate::FeedCursor;
use crate::peer::{Changes, Document};

/// A page of a feed, as the description shows it.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "feeds are written by hand; this describes what is written")]
pub(super) struct FeedPage {
    changes: Vec<Change>,
    /// Where the next page starts.
    next_cursor: String,
    /// Whether there is more for now.
    more: bool,
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
    /// What it holds, unless it is deleted or that was not wanted.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
}

/// A page of a feed: `{changes, next_cursor, more}`.
pub(super) fn page(changes: &Changes, data: bool) -> Bytes {
    let mut out = b"{\"changes\":[".to_vec();
    for (index, (document, cursor)) in changes.documents.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_change(&mut out, document, cursor, data);
    }
    out.extend_from_slice(
        format!("],\"next_cursor\":\"{}\",\"more\":{}}}", changes.next, !changes.complete).as_bytes(),
    );
    out.into()
}

/// Changes as server-sent events (HTML, section 9.2). JSON on one line needs no further care.
pub(super) fn events(changes: &Changes, data: bool) -> Bytes {
    let mut out = Vec::new();
    for (document, cursor) in &changes.documents {
        out.extend_from_slice(format!("id: {cursor}\nevent: change\ndata: ").as_bytes());
        write_change(&mut out, document, cursor, data);
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}

fn write_change(out: &mut Vec<u8>, document: &Document, cursor: &FeedCursor, data: bool) {
    out.extend_from_slice(b"{\"id\":");
    write_text(out, document.id());
    let (deleted, updated) = (document.is_deleted(), document.updated_at());
    let text = format!(",\"deleted\":{deleted},\"updated_at\":\"{updated}\",\"cursor\":\"{cursor}\",\"heads\":");
    out.extend_from_slice(text.as_bytes());
    write_heads(out, document);
    if data && !deleted {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(document.json());
    }
    out.push(b'}');
}
