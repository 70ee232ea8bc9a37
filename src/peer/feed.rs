//! The feed of a collection as a program uses it: what changed since, and what changes from now on.

use tokio::sync::watch;

use super::{Collection, Document};
use crate::Result;
use crate::limits::FEED_DOCUMENTS_MAX;
use crate::store::FeedCursor;

/// A part of a feed.
#[derive(Debug)]
pub struct Changes {
    /// Documents as they are after their last change, in the order of these changes, each with the cursor behind
    /// it. Deleted ones are among them, see [`Document::is_deleted`].
    pub documents: Vec<(Document, FeedCursor)>,
    /// Where to go on.
    pub next: FeedCursor,
    /// Whether nothing is left for now.
    pub complete: bool,
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
        Ok(Changes {
            documents: page.entries.into_iter().map(document).collect(),
            next: page.next,
            complete: page.complete,
        })
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
        Feed { collection: self.clone(), cursor: since, prefix: prefix.to_owned(), durable }
    }
}

impl Feed {
    /// Waits until something has changed, and says what. Cancelling it loses nothing.
    ///
    /// # Errors
    /// As [`Collection::changes`], and [`Error::Unavailable`](crate::Error::Unavailable) when the peer shuts down.
    pub async fn next(&mut self) -> Result<Changes> {
        loop {
            let until = *self.durable.borrow_and_update();
            let changes = self.collection.changes_until(until, Some(self.cursor), &self.prefix, FEED_DOCUMENTS_MAX)?;
            self.cursor = changes.next;
            if !changes.documents.is_empty() {
                return Ok(changes);
            }
            if changes.complete {
                self.collection.peer().shared.runner.check_running()?;
                // Its sender lives as long as the peer, which is kept by the collection.
                let _: std::result::Result<(), _> = self.durable.changed().await;
            } else {
                // A long feed of which nothing is wanted holds up nobody.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn cursor(&self) -> FeedCursor {
        self.cursor
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Peer, PeerConfig};

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
