//! Reading the change log as the writer: opening documents, and streaming the changes that somebody else lacks.
//!
//! Within a document an actor's changes are numbered from 1 without gaps, each building on the one
//! before, and the log is closed under dependencies. So the last sequence number of each actor, the
//! *vector*, says exactly which changes a log holds. Every change has a position that is
//! greater than those of the changes it builds on, so merging the actors' changes by position gives an
//! order in which every change comes after its dependencies.
//!
//! An entry of the log holds one change, or a run of them under the signature of the last one. A run depends on
//! nothing but what its first change depends on, so it goes into that order where its first change stands.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Store;
use super::opened::{Logged, Source, complete};
use super::reader::damaged;
use super::record::{Record, Snapshot};
use crate::base::{ActorId, DocumentKey};
use crate::document::{Author, Document, Unchecked};
use crate::{Error, Result};

/// For each actor the last sequence number that a log holds, sorted by actor.
pub type Vector = Vec<(ActorId, u64)>;

/// A position in the stream of the changes that somebody lacks of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCursor {
    document: DocumentKey,
    number: u64,
    /// For each actor number the next sequence number to send, and the last one.
    next: Vec<(u32, u64, u64)>,
}

impl LogCursor {
    /// The document.
    #[must_use]
    pub fn document(&self) -> &DocumentKey {
        &self.document
    }

    /// Changes left to stream.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.next.iter().map(|(_, next, last)| last + 1 - next).sum()
    }
}

impl Store {
    /// The vector of a document in terms that other peers understand.
    #[must_use]
    pub fn vector(&self, record: &Record) -> Vector {
        let known = |&(number, sequence): &(u32, u64)| Some((self.actors.get(number)?.actor, sequence));
        let mut vector: Vector = record.vector.iter().filter_map(known).collect();
        vector.sort_unstable();
        vector
    }

    /// The changes of a document that somebody with `theirs`, which is sorted, lacks; `None` when there are none.
    #[must_use]
    pub fn missing(&self, document: &DocumentKey, record: &Record, theirs: &[(ActorId, u64)]) -> Option<LogCursor> {
        let mut next = Vec::new();
        for &(number, last) in &record.vector {
            let actor = self.actors.get(number)?.actor;
            let held = theirs.binary_search_by_key(&actor, |(their, _)| *their).map_or(0, |index| theirs[index].1);
            if held < last {
                next.push((number, held + 1, last));
            }
        }
        (!next.is_empty()).then(|| LogCursor { document: document.clone(), number: record.number, next })
    }

    /// Whether somebody with `theirs` has changes of the document that are not here.
    #[must_use]
    pub fn lacks(&self, record: Option<&Record>, theirs: &[(ActorId, u64)]) -> bool {
        theirs.iter().any(|(actor, sequence)| {
            let number = self.actors.number(actor);
            let held = number.and_then(|number| record.map(|record| record.sequence(number))).unwrap_or(0);
            held < *sequence
        })
    }

    /// Streams changes in an order in which dependencies come first, until `bytes` are reached or the
    /// cursor is at its end. Always makes progress.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a change in the log is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn stream(&mut self, cursor: &mut LogCursor, bytes: usize) -> Result<Vec<Unchecked>> {
        let mut heads: Vec<Option<Logged>> = vec![None; cursor.next.len()];
        let (mut changes, mut size) = (Vec::new(), 0);
        while size < bytes && !cursor.next.is_empty() {
            for (head, &(actor, sequence, _)) in heads.iter_mut().zip(&cursor.next) {
                if head.is_none() {
                    *head = Some(self.logged(&cursor.document, cursor.number, actor, sequence)?);
                }
            }
            let first = |head: &Option<Logged>| head.as_ref().map_or(u64::MAX, |logged| logged.entry.position);
            let Some(index) = (0..heads.len()).min_by_key(|&index| (first(&heads[index]), index)) else { break };
            let Some(logged) = heads[index].take() else { break };
            let (actor, sequence, last) = &mut cursor.next[index];
            let Some(writer) = self.actors.get(*actor) else { break };
            let author = Author { peer: writer.author, incarnation: writer.incarnation, grant: logged.entry.grant };
            let wanted = logged.last + 1 - *sequence;
            *sequence = logged.last + 1;
            if *sequence > *last {
                cursor.next.remove(index);
                heads.remove(index);
            }
            let run = logged.entry.run.last(usize::try_from(wanted).unwrap_or(usize::MAX));
            size += run.bytes() + 128;
            changes.push(Unchecked {
                document: cursor.document.clone(),
                author,
                signature: logged.entry.signature,
                run,
            });
        }
        Ok(changes)
    }

    /// The entry of the log that holds a change.
    fn logged(&mut self, document: &DocumentKey, number: u64, actor: u32, sequence: u64) -> Result<Logged> {
        let logged = self.source().logged(document, number, actor, sequence);
        if matches!(logged, Err(Error::Corrupt(_))) {
            self.mark_damaged(document);
        }
        logged
    }

    pub(super) fn source(&self) -> Source<'_> {
        Source { kv: &*self.kv, space: self.space() }
    }

    /// The open document of a record, from the cache or from its snapshot and log. Finding them damaged is
    /// remembered for the document's repair.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its snapshot and its log are damaged, [`Error::Io`] when the disk cannot be read.
    pub fn open_document(&mut self, document: &DocumentKey, record: &Record) -> Result<&mut Document> {
        if self.open.get(document).is_some() {
            self.open_use.hits += 1;
        } else {
            self.open_use.misses += 1;
            match self.load_document(document, record) {
                Ok(loaded) => _ = self.open.put(document.clone(), loaded),
                Err(error) => {
                    if matches!(error, Error::Corrupt(_)) {
                        self.mark_damaged(document);
                    }
                    return Err(error);
                }
            }
        }
        Ok(self.open.get_mut(document).expect("the document was put there above"))
    }

    pub(super) fn load_document(&self, document: &DocumentKey, record: &Record) -> Result<Document> {
        let (mut opened, changes) = self.source().read(document, record)?;
        let applied = opened.apply(changes).map_err(|error| damaged(document, &error))?;
        let mut opened = complete(document, opened, &applied)?;
        if let Some(count) = record.conflicts.filter(|_| !record.deleted) {
            opened.remember_conflict_count(count);
        }
        Ok(opened)
    }

    /// The document as its log alone gives it.
    pub(super) fn replay(&self, document: &DocumentKey, record: &Record) -> Result<Document> {
        let changes = self.source().beyond(document, record, &BTreeMap::new())?;
        let mut replayed = Document::new();
        let applied = replayed.apply(changes).map_err(|error| damaged(document, &error))?;
        complete(document, replayed, &applied)
    }

    /// What must be stored for a snapshot of an open document.
    pub(super) fn take_snapshot(document: &Document, vector: &[(u32, u64)]) -> Bytes {
        super::record::seal(&Snapshot { vector: vector.to_vec(), bytes: document.save().into() })
    }
}
