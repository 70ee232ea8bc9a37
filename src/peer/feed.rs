//! The feed of a collection as a program uses it: what changed since, and what changes from now on.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::{Collection, Document};
use crate::Result;
use crate::base::DocumentId;
use crate::index::IndexName;
use crate::limits::{FEED_CONFLICT_LOSERS_MAX, FEED_DOCUMENTS_MAX};
use crate::store::{Conflicts, FeedCursor};

/// A part of a feed.
#[derive(Debug)]
pub struct Changes {
    /// Documents as they are after their last change, in the order of these changes, each with the cursor behind
    /// it. Deleted ones are among them, see [`Document::is_deleted`].
    pub documents: Vec<(Document, FeedCursor)>,
    /// The conflicts in unique indexes that these documents are in now, by their ids: so whoever wrote a document
    /// learns that another one, which another peer wrote at the same time, has its key.
    pub conflicts: BTreeMap<String, Vec<KeyConflict>>,
    /// Where to go on.
    pub next: FeedCursor,
    /// Whether nothing is left for now.
    pub complete: bool,
}

/// Documents with the same key in a unique index, because peers wrote them while they were apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConflict {
    /// The index.
    pub index: IndexName,
    /// The one that was created first; the same on every peer that has these documents.
    pub winner: DocumentId,
    /// The others, in the order of their creation, at most 20.
    pub losers: Vec<DocumentId>,
}

/// A live feed. It cannot lag: when its reader is slow, documents that change again meanwhile are read once.
///
/// ```no_run
/// # async fn example(peer: aerolithsdb::Peer) -> aerolithsdb::Result<()> {
/// let mut feed = peer.collection("notes")?.watch();
/// loop {
///     for (document, _) in feed.next().await?.documents {
///         println!("{}: {}", document.id(), document.data());
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Feed {
    collection: Collection,
    cursor: FeedCursor,
    prefix: String,
    /// Whether nothing was left when it was read last.
    complete: bool,
    durable: watch::Receiver<FeedCursor>,
}

impl Collection {
    /// Documents that changed after the cursor (`None`: ever), at most `limit`, with ids that start with `prefix`.
    /// Each is told once, with its last change; only what is durable is told.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound) when the cursor is from before this peer lost writes or joined
    /// another mesh, [`Error::Io`](crate::Error::Io) when the disk cannot be read.
    pub fn changes(&self, since: Option<FeedCursor>, prefix: &str, limit: usize) -> Result<Changes> {
        let until = *self.peer().shared.runner.durable().borrow();
        self.changes_until(until, since, prefix, limit)
    }

    fn changes_until(
        &self,
        until: FeedCursor,
        since: Option<FeedCursor>,
        prefix: &str,
        limit: usize,
    ) -> Result<Changes> {
        let page = self.peer().shared.reader.feed(self.name(), since, until, prefix, limit)?;
        let document = |(id, record, cursor)| (Document::new(self.key(id), record), cursor);
        let documents: Vec<_> = page.entries.into_iter().map(document).collect();
        Ok(Changes { conflicts: self.conflicts_among(&documents), documents, next: page.next, complete: page.complete })
    }

    /// The conflicts that documents of a feed are in. A feed goes on without them when an index is damaged.
    fn conflicts_among(&self, documents: &[(Document, FeedCursor)]) -> BTreeMap<String, Vec<KeyConflict>> {
        let alive = || documents.iter().map(|(document, _)| document).filter(|document| !document.is_deleted());
        let views = alive().map(|document| (document.id(), &**document.json()));
        let found = self.peer().shared.reader.conflicts_among(self.name(), views).unwrap_or_else(|error| {
            tracing::warn!(collection = %self.name(), %error, "a feed does not tell of conflicts in unique indexes");
            Vec::new()
        });
        let pairs = alive().zip(found).filter(|(_, conflicts)| !conflicts.is_empty());
        pairs.map(|(document, conflicts)| (document.id().to_owned(), shown(&conflicts))).collect()
    }

    /// The cursor behind everything that is durable now.
    #[must_use]
    pub fn now(&self) -> FeedCursor {
        *self.peer().shared.runner.durable().borrow()
    }

    /// The cursor before the first change.
    #[must_use]
    pub fn start(&self) -> FeedCursor {
        self.now().at(0)
    }

    /// What changes from now on.
    #[must_use]
    pub fn watch(&self) -> Feed {
        self.watch_from(self.now(), "")
    }

    /// What changed after a cursor, and then what changes, of the documents whose ids start with `prefix`.
    #[must_use]
    pub fn watch_from(&self, since: FeedCursor, prefix: &str) -> Feed {
        let durable = self.peer().shared.runner.durable();
        Feed { collection: self.clone(), cursor: since, prefix: prefix.to_owned(), complete: false, durable }
    }
}

impl Feed {
    /// Waits until something has changed, and says what. Cancelling it loses nothing.
    ///
    /// # Errors
    /// As [`Collection::changes`], and [`Error::Unavailable`](crate::Error::Unavailable) when the peer shuts down.
    pub async fn next(&mut self) -> Result<Changes> {
        loop {
            if let Some(changes) = self.take()? {
                return Ok(changes);
            }
            self.ready().await?;
        }
    }

    /// What has changed, if it is known already that something has.
    ///
    /// # Errors
    /// As [`Collection::changes`].
    pub(crate) fn take(&mut self) -> Result<Option<Changes>> {
        let until = *self.durable.borrow_and_update();
        let changes = self.collection.changes_until(until, Some(self.cursor), &self.prefix, FEED_DOCUMENTS_MAX)?;
        self.cursor = changes.next;
        self.complete = changes.complete;
        Ok(Some(changes).filter(|changes| !changes.documents.is_empty()))
    }

    /// Waits until there may be something to [`take`](Self::take) again. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) when the peer shuts down.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        if self.complete {
            self.collection.peer().shared.runner.check_running()?;
            // Its sender lives as long as the peer, which is kept by the collection.
            let _: std::result::Result<(), _> = self.durable.changed().await;
        } else {
            // A long feed of which nothing is wanted holds up nobody.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn cursor(&self) -> FeedCursor {
        self.cursor
    }
}

/// The conflicts of a document as a feed tells them.
fn shown(conflicts: &Conflicts) -> Vec<KeyConflict> {
    let shown = conflicts.iter().map(|(index, conflict)| KeyConflict {
        index: index.name().clone(),
        winner: conflict.winner.clone(),
        losers: conflict.losers.iter().take(FEED_CONFLICT_LOSERS_MAX).cloned().collect(),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::index::Definition;
    use crate::node::Command;
    use crate::{Peer, PeerConfig};

    #[tokio::test]
    async fn a_feed_tells_of_the_conflicts_that_its_documents_are_in() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let notes = peer.collection("notes").unwrap();
        for id in ["b", "a", "c"] {
            notes.put(id, json!({"email": if id == "c" { "y" } else { "x" }})).await.unwrap();
        }
        let definition = Definition::parse(&json!({"fields": "email", "unique": true})).unwrap();
        let name: IndexName = "email".parse().unwrap();
        peer.command(Command::PutIndex(notes.name().clone(), name.clone(), definition)).await.unwrap();
        while !peer.shared.reader.catalog().get(notes.name(), &name).unwrap().is_ready() {
            // Filling goes on with each command.
            peer.command(Command::Status).await.unwrap();
        }
        let changes = notes.changes(None, "", 100).unwrap();
        let conflict = KeyConflict { index: name, winner: "b".parse().unwrap(), losers: vec!["a".parse().unwrap()] };
        let expected = ["a", "b"].map(|id| (id.to_owned(), vec![conflict.clone()]));
        assert_eq!(changes.conflicts, BTreeMap::from(expected));
        assert_eq!(notes.changes(None, "c", 100).unwrap().conflicts, BTreeMap::new());
        notes.delete("b").await.unwrap();
        assert_eq!(notes.changes(None, "", 100).unwrap().conflicts, BTreeMap::new());
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn a_feed_tells_of_each_document_once_and_then_of_what_changes() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let notes = peer.collection("notes").unwrap();
        let other = peer.collection("other").unwrap();
        let start = notes.now();
        for n in 0..10 {
            notes.put(&format!("n{}", n % 3), json!({ "n": n })).await.unwrap();
            other.put("x", json!({ "n": n })).await.unwrap();
        }
        notes.delete("n1").await.unwrap();
        let told = |changes: &Changes| -> Vec<(String, bool)> {
            changes.documents.iter().map(|(document, _)| (document.id().to_owned(), document.is_deleted())).collect()
        };
        let all = notes.changes(None, "", 100).unwrap();
        assert_eq!(told(&all), [("n2".into(), false), ("n0".into(), false), ("n1".into(), true)]);
        assert!(all.complete && told(&notes.changes(Some(all.next), "", 100).unwrap()).is_empty());
        assert_eq!(told(&notes.changes(Some(start), "n2", 100).unwrap()), [("n2".into(), false)]);
        let first = notes.changes(None, "", 1).unwrap();
        assert!(!first.complete);
        let rest = notes.changes(Some(first.documents[0].1), "", 100).unwrap();
        assert_eq!(told(&rest), [("n0".into(), false), ("n1".into(), true)]);

        let mut feed = notes.watch();
        let writing = tokio::spawn(async move { notes.put("later", json!({})).await.map(|_| notes) });
        assert_eq!(told(&feed.next().await.unwrap()), [("later".into(), false)]);
        let notes = writing.await.unwrap().unwrap();
        let text = feed.cursor().to_string();
        assert_eq!(text.parse(), Ok(feed.cursor()));
        let waiting = tokio::spawn(async move { feed.next().await.map(drop) });
        peer.shutdown().await;
        assert!(matches!(waiting.await.unwrap(), Err(crate::Error::Unavailable(_))));

        let stranger = Peer::start(PeerConfig::local()).await.unwrap();
        let foreign = stranger.collection("notes").unwrap().changes(Some(notes.now()), "", 1);
        assert!(matches!(foreign, Err(crate::Error::NotFound(_))));
        for wrong in ["", "AAAA", "not a cursor", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(wrong.parse::<FeedCursor>().is_err(), "{wrong}");
        }
    }
}
