//! Logs without a record, after a damaged table was built anew: finding out whose they are.
//!
//! A log is kept under its document's number, and only the record says which document that is. When the record was on a
//! lost page the log may be there all the same, and with it everything that the document was. Whose it is is told by its
//! signatures, which are over the name of the document: a log is tried with the documents that the feed names and that
//! have no record. Their numbers are never greater than their places in the feed, and the same when they were written
//! once, so the first try is right for most.
//!
//! A log that may lack a change is left alone: the document would come back older than it was, and unnoticed. It stays
//! marked as damaged until another peer brings it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::Store;
use super::feed::first_key;
use super::key::{self, Tag};
use super::record::{LoggedRun, unseal};
use crate::Result;
use crate::base::{DocumentKey, MeshId};
use crate::document::{Author, Envelope, Unchecked};
use crate::kv::{Batch, Lost};
use crate::limits::{ORPHAN_CHECKS_MAX, ORPHAN_CHECKS_STEP};

/// What is still to be tried.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Numbers of logs that are whole and that no record names.
    logs: BTreeSet<u64>,
    /// Documents that have no record, with their places in the feed; the next one last.
    documents: Vec<(u64, DocumentKey)>,
    /// The last log that was tried for the next one.
    tried: Option<u64>,
    checks_left: usize,
}

/// A log, and the document that it is of.
#[derive(Debug)]
pub struct Orphan {
    /// The document.
    pub document: DocumentKey,
    /// The log's number.
    number: u64,
    /// Everything that is in it, in the order of its actors.
    pub changes: Vec<Unchecked>,
}

impl Store {
    /// Looks for logs that no record names, for documents that have none; `used` are the numbers in records, ascending.
    pub(super) fn find_orphans(&mut self, lost: &Lost, used: &[u64], documents: Vec<(u64, DocumentKey)>) -> Result<()> {
        let mut found = Orphans { documents, checks_left: ORPHAN_CHECKS_MAX, ..Orphans::default() };
        let (mut from, to) = key::all(self.space(), Tag::Log);
        while !found.documents.is_empty()
            && let Some(number) = first_key(&*self.kv, &from, &to)?.as_deref().and_then(key::number)
        {
            let (start, end) = key::log_of(self.space(), number);
            if used.binary_search(&number).is_err() && !lost.touches(&start, &end) {
                found.logs.insert(number);
            }
            from = end;
        }
        self.orphans = found;
        Ok(())
    }

    /// Does a step of finding out whose logs without a record are. Whether there is more to do, and what was found.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn tend_orphans(&mut self, mesh: MeshId) -> Result<(bool, Option<Orphan>)> {
        for _ in 0..ORPHAN_CHECKS_STEP {
            let Some((position, document)) = self.orphans.documents.last().cloned() else { return Ok((false, None)) };
            let below = self.orphans.tried.unwrap_or(position.saturating_add(1));
            let next = self.orphans.logs.range(..below).next_back().copied();
            let Some(number) = next.filter(|_| self.damaged.contains(&document)) else {
                self.orphans.documents.pop();
                self.orphans.tried = None;
                continue;
            };
            let Some(left) = self.orphans.checks_left.checked_sub(1) else {
                tracing::warn!(
                    documents = self.orphans.documents.len(),
                    "logs without a record are too many to find out whose they are"
                );
                self.orphans = Orphans::default();
                return Ok((false, None));
            };
            (self.orphans.checks_left, self.orphans.tried) = (left, Some(number));
            let changes = self.whole_log(&document, number)?;
            let Some(first) = changes.first() else {
                self.orphans.logs.remove(&number);
                continue;
            };
            if Envelope::check(mesh, first.clone()).is_ok() {
                self.orphans.logs.remove(&number);
                self.orphans.documents.pop();
                self.orphans.tried = None;
                return Ok((true, Some(Orphan { document, number, changes })));
            }
        }
        Ok((true, None))
    }

    /// Everything in a log, as though it were of a document; nothing when any of it cannot be read.
    fn whole_log(&self, document: &DocumentKey, number: u64) -> Result<Vec<Unchecked>> {
        let (mut changes, mut next, mut is_whole) = (Vec::new(), (None, 1), true);
        let (from, to) = key::log_of(self.space(), number);
        self.kv.scan(&from, &to, &mut |key, sealed| {
            let actor = key::log_actor(key).and_then(|number| Some((number, self.actors.get(number)?)));
            let (Some((number, actor)), Some(last), Ok(logged)) =
                (actor, key::log_sequence(key), unseal::<LoggedRun>(sealed))
            else {
                is_whole = false;
                return ControlFlow::Break(());
            };
            if next.0 != Some(number) {
                next = (Some(number), 1);
            }
            // Each actor's changes follow each other from the first one on.
            is_whole &= last + 1 == next.1 + logged.run.payloads().len() as u64;
            next.1 = last + 1;
            let author = Author { peer: actor.author, incarnation: actor.incarnation, grant: logged.grant };
            let (signature, run) = (logged.signature, logged.run);
            changes.push(Unchecked { document: document.clone(), author, signature, run });
            if is_whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(if is_whole { changes } else { Vec::new() })
    }

    /// Takes the records of documents out, as though a damaged table had been built anew without them.
    #[cfg(test)]
    pub(crate) fn lose_records_for_test(&mut self, documents: &[DocumentKey]) {
        let mut batch = Batch::new();
        documents.iter().for_each(|document| batch.delete(key::document(self.space(), document)));
        self.apply(batch).unwrap();
        let (from, to) = key::all(self.space(), Tag::Document);
        self.apply(Lost::between(from, to).batch()).unwrap();
    }

    /// Logs on the disk.
    #[cfg(test)]
    pub(crate) fn logs_for_test(&self) -> usize {
        let mut numbers = BTreeSet::new();
        let (from, to) = key::all(self.space(), Tag::Log);
        let each = &mut |key: &[u8], _: &[u8]| {
            numbers.extend(key::number(key));
            ControlFlow::Continue(())
        };
        self.kv.scan(&from, &to, each).unwrap();
        numbers.len()
    }

    /// Deletes a log that was written anew under the record of its document.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn drop_orphan(&mut self, orphan: &Orphan) -> Result<()> {
        let mut batch = Batch::new();
        self.delete_log(orphan.number, &mut batch)?;
        self.apply(batch)
    }
}
