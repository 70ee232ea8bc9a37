//! The past of documents as a program uses it: history, old versions, what differs between them, concurrent values.
//!
//! All of these open a document with its whole history, on a thread where that holds nobody up, beside the node and
//! without it. A few may do so at a time; others wait a moment, and are then told to come back. To restore an old
//! version is to read it here and to put it like any other write.

use std::time::Duration;

use super::{Collection, Document};
use crate::base::{ChangeHash, DocumentKey};
use crate::document::{At, Bounds, Conflicts, Differences, HistoryPage, Version, bounded, differences};
use crate::limits::{DIFFERENCE_BYTES_MAX, DIFFERENCES_MAX, HISTORY_PAGE_MAX, HISTORY_READS_MAX};
use crate::node::{Command, Condition, Write};
use crate::store::Opened;
use crate::{Error, Result};

/// How long a reading waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);

const DIFF_BOUNDS: Bounds =
    Bounds { places: DIFFERENCES_MAX, bytes: DIFFERENCE_BYTES_MAX, value_bytes: DIFFERENCE_BYTES_MAX };

/// What differs between two versions of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// The heads of the first version; none when nothing was there yet.
    pub from: Vec<ChangeHash>,
    /// The heads of the second version.
    pub to: Vec<ChangeHash>,
    /// What turns the first into the second. A version in which the document is deleted or not there yet is one
    /// without any value.
    pub differences: Differences,
}

impl Collection {
    /// A page of at most `limit` changes of a document, deleted or not, the newest first; `after` is the `next` of
    /// the page before. Long histories come in smaller pages.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the document never existed or has no change `after`, [`Error::Corrupt`] when it is
    /// damaged on the disk, [`Error::Unavailable`] when too many histories are being read.
    pub async fn history(&self, id: &str, after: Option<ChangeHash>, limit: usize) -> Result<HistoryPage> {
        let limit = limit.clamp(1, HISTORY_PAGE_MAX);
        self.opened(id, move |_, opened| opened.document.history(&opened.authors, after.as_ref(), limit)).await
    }

    /// The document as it was; `None` when it was deleted or not there yet.
    ///
    /// # Errors
    /// As [`Collection::history`]; [`Error::NotFound`] when a head is not known.
    pub async fn get_at(&self, id: &str, at: At) -> Result<Option<Document>> {
        self.opened(id, move |key, opened| {
            let version = opened.document.version(&at)?.filter(|version| !version.is_deleted);
            Ok(version.map(|version| {
                let json = bounded(opened.document.view_at(&version).into());
                // Of the present version they are counted.
                let conflicts = (version.heads == opened.record.heads).then(|| opened.record.conflict_count());
                Document::of_version(key.clone(), version, json, conflicts)
            }))
        })
        .await
    }

    /// What differs between two versions of a document; `to` is the present one when it is left out.
    ///
    /// # Errors
    /// As [`Collection::get_at`].
    pub async fn diff(&self, id: &str, from: At, to: Option<At>) -> Result<Diff> {
        self.opened(id, move |_, opened| {
            let document = &opened.document;
            let to = to.unwrap_or_else(|| At::Heads(document.heads()));
            let (from, to) = (document.version(&from)?, document.version(&to)?);
            let fields = |version: &Option<Version>| version.as_ref().and_then(|version| document.fields_at(version));
            let differences = differences(fields(&from).as_ref(), fields(&to).as_ref(), DIFF_BOUNDS);
            let heads = |version: Option<Version>| version.map(|version| version.heads).unwrap_or_default();
            Ok(Diff { from: heads(from), to: heads(to), differences })
        })
        .await
    }

    /// The places of a document where edits that did not know of each other left several values.
    ///
    /// # Errors
    /// As [`Collection::history`]; [`Error::NotFound`] when the document is deleted.
    pub async fn conflicts(&self, id: &str) -> Result<Conflicts> {
        self.opened(id, |_, opened| match opened.record.deleted {
            true => Err(Error::NotFound("it is deleted".into())),
            false => opened.document.conflicts(&opened.authors),
        })
        .await
    }

    /// Writes an old version as a new edit, the smallest from the present one; a deleted document is revived.
    /// `condition` is about the present document, as in [`Collection::put_if`].
    ///
    /// # Errors
    /// As [`Collection::get_at`] and [`Collection::put_if`]; [`Error::NotFound`] when the document was deleted or
    /// not there yet in that version.
    pub async fn restore(&self, id: &str, at: At, condition: Condition) -> Result<(Write, Document)> {
        let (key, fields) = self
            .opened(id, move |key, opened| {
                let version = opened.document.version(&at)?;
                let fields = version.and_then(|version| opened.document.fields_at(&version));
                let absent = "it was deleted or not there in that version; choose another";
                Ok((key.clone(), fields.ok_or_else(|| Error::NotFound(absent.into()))?))
            })
            .await?;
        self.write(key.id, fields, condition).await
    }

    /// Reads a document with its whole history, when it is this reading's turn.
    async fn opened<T: Send + 'static>(
        &self,
        id: &str,
        read: impl FnOnce(&DocumentKey, Opened) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let key = self.key(id.parse()?);
        let shared = &self.peer().shared;
        let Ok(turn) = tokio::time::timeout(TURN_TIMEOUT, shared.histories.clone().acquire_owned()).await else {
            return Err(Error::Unavailable(format!(
                "{HISTORY_READS_MAX} histories are being read already, as many as may be at a time; try again"
            )));
        };
        let turn = turn.expect("the semaphore is never closed");
        let reader = shared.reader.clone();
        let document = key.clone();
        let reading = tokio::task::spawn_blocking(move || {
            // The turn ends with the reading, not with the call, which may be given up before.
            let _turn = turn;
            match reader.open_document(&document)? {
                Some(opened) => read(&document, opened).map_err(|error| about(&document, error)),
                None => Err(Error::NotFound(format!("document {document} does not exist"))),
            }
        });
        let result = match reading.await {
            Ok(result) => result,
            Err(_) => Err(Error::Corrupt(format!("reading the history of document {key} failed; the log says more"))),
        };
        if matches!(result, Err(Error::Corrupt(_))) {
            shared.runner.notify(Command::Damaged(key));
        }
        result
    }
}

/// Names the document in an error about what it lacks.
fn about(key: &DocumentKey, error: Error) -> Error {
    let Error::NotFound(why) = error else { return error };
    Error::NotFound(format!("document {key}: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::limits::{HISTORY_PAGE_MAX, HISTORY_READS_MAX};
    use crate::{Error, Peer, PeerConfig};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_history_is_read_while_the_document_is_written() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let notes = peer.collection("notes").unwrap();
        notes.put("a", json!({"n": 0})).await.unwrap();
        let writer = tokio::spawn({
            let notes = notes.clone();
            async move {
                for n in 1..200 {
                    notes.put("a", json!({ "n": n })).await.unwrap();
                }
            }
        });
        while !writer.is_finished() {
            let page = notes.history("a", None, 5).await.unwrap();
            assert!(page.entries.windows(2).all(|pair| pair[0].deps == [pair[1].change]));
        }
        writer.await.unwrap();
        let (mut listed, mut after) = (0, None);
        loop {
            let page = notes.history("a", after, HISTORY_PAGE_MAX).await.unwrap();
            listed += page.entries.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed, 200);
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn readings_beyond_the_bound_are_told_to_come_back() {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let notes = peer.collection("notes").unwrap();
        notes.put("a", json!({})).await.unwrap();
        let all = peer.shared.histories.clone().acquire_many_owned(HISTORY_READS_MAX as u32).await.unwrap();
        assert!(matches!(notes.conflicts("a").await, Err(Error::Unavailable(_))));
        assert!(notes.get("a").unwrap().is_some());
        drop(all);
        assert!(notes.conflicts("a").await.is_ok());
        peer.shutdown().await;
    }
}
