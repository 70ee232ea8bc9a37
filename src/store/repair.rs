//! Damaged documents: marking them, and counting a collection again without them.
//!
//! A damaged document is taken out of its collection's summary, so that to other peers it is one that is
//! missing here: reconciliation brings it back, and nothing else is needed for its repair. The mark is kept
//! on the disk until a write heals the document. What peers have may be less than was written here, so own
//! changes are made in a new incarnation from then on: no sequence number is used twice. The count waits for
//! the next flush, so that many damaged documents cost one.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::key::{self, Tag};
use super::record::{Collection, LoggedRun, Record, seal, unseal};
use super::summary::{Sum, Summary, Total};
use super::{Granted, Store};
use crate::base::{CollectionName, DocumentKey};
use crate::document::{Author, Unchecked};
use crate::kv::Batch;
use crate::{Error, Result};

impl Store {
    /// Takes note that a document is damaged, and takes it out of the collection's summary: to other peers
    /// it is then a document that is missing here, and reconciliation brings it back. The mark outlasts a
    /// restart; a view that is intact can be read meanwhile.
    pub fn mark_damaged(&mut self, document: &DocumentKey) {
        if !self.damaged.insert(document.clone()) {
            return;
        }
        tracing::warn!(%document, "damaged on the disk; it will be fetched again from peers that have it");
        self.open.pop(document);
        self.stale.insert(document.collection.clone());
        let mut batch = Batch::new();
        batch.put(key::damaged(self.space(), document), Bytes::new());
        // Of a record that can be read, its entries in the indexes are known.
        let unknown = self.reader.record(document).is_err();
        let renewed = if unknown { self.renew_indexes(&document.collection) } else { Ok(()) };
        let written = renewed.and_then(|()| self.renew_incarnation()).and_then(|()| self.apply(batch));
        if let Err(error) = written {
            tracing::error!(%document, %error, "the mark of a damaged document could not be written");
        }
    }

    /// Whether the log of a document holds every change of its record.
    pub(super) fn has_all(&self, document: &DocumentKey, record: &Record) -> bool {
        record.vector.iter().all(|&(actor, last)| {
            let mut next = 1;
            while next <= last && self.actors.get(actor).is_some() {
                match self.source().logged(document, record.number, actor, next) {
                    Ok(logged) => next = logged.last + 1,
                    Err(_) => return false,
                }
            }
            next > last
        })
    }

    /// The changes that are intact in the log of a damaged document of which changes have arrived, in the order of their
    /// actors; nothing for one that is well, or that need not be opened for what arrived.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn salvage(&mut self, document: &DocumentKey, arrived: &[Granted]) -> Result<Vec<Unchecked>> {
        let whole = match self.record(document) {
            Ok(None) => true,
            Ok(Some(record)) if self.is_ended_by(document, &record, arrived)? => true,
            Ok(Some(record)) => !matches!(self.open_document(document, &record), Err(Error::Corrupt(_))),
            Err(Error::Corrupt(_)) => false,
            Err(error) => return Err(error),
        };
        if whole {
            return Ok(Vec::new());
        }
        match self.reader.record(document) {
            Ok(Some(record)) => self.entries(document, record.number),
            // Without its number the log cannot be found.
            Ok(None) | Err(_) => Ok(Vec::new()),
        }
    }

    /// What is readable in a log, in the order of its actors.
    pub(super) fn entries(&self, document: &DocumentKey, number: u64) -> Result<Vec<Unchecked>> {
        let mut changes = Vec::new();
        let (from, to) = key::log_of(self.space(), number);
        self.kv.scan(&from, &to, &mut |key, sealed| {
            let actor = key::log_actor(key).and_then(|number| self.actors.get(number));
            if let (Some(actor), Ok(LoggedRun { grant, signature, run, .. })) = (actor, unseal(sealed)) {
                let author = Author { peer: actor.author, incarnation: actor.incarnation, grant };
                changes.push(Unchecked { document: document.clone(), author, signature, run });
            }
            ControlFlow::Continue(())
        })?;
        Ok(changes)
    }

    /// Deletes a log and its snapshot.
    pub(super) fn delete_log(&self, number: u64, batch: &mut Batch) -> Result<()> {
        let (from, to) = key::log_of(self.space(), number);
        self.kv.scan(&from, &to, &mut |key, _| {
            batch.delete(key.to_vec());
            ControlFlow::Continue(())
        })?;
        batch.delete(key::numbered(self.space(), Tag::Snapshot, number));
        Ok(())
    }

    /// Documents that were found damaged and are not repaired yet.
    #[must_use]
    pub fn damaged(&self) -> &BTreeSet<DocumentKey> {
        &self.damaged
    }

    pub(super) fn load_damaged(&self) -> Result<BTreeSet<DocumentKey>> {
        let (from, to) = key::all(self.space(), Tag::Broken);
        let mut damaged = BTreeSet::new();
        self.kv.scan(&from, &to, &mut |key, _| {
            damaged.extend(key::document_key(key));
            ControlFlow::Continue(())
        })?;
        Ok(damaged)
    }

    /// Counts the collections again whose counts are not to be trusted, once for all that was found in them.
    pub(super) fn recount_stale(&mut self) {
        for name in std::mem::take(&mut self.stale) {
            if let Err(error) = self.recount_holding(&name) {
                tracing::error!(collection = %name, %error, "the range summary could not be counted again");
                self.stale.insert(name);
            }
        }
    }

    /// Counts a collection and its summary again from its readable documents, and writes both.
    fn recount_holding(&mut self, name: &CollectionName) -> Result<()> {
        let (mut counts, mut summary) = (Collection::default(), Summary::default());
        self.visit(name, b"", None, &mut |id, record, view_bytes| {
            let sum = Sum::of_item(id.as_str(), &record.heads);
            counts.documents += u64::from(!record.deleted);
            counts.bytes += view_bytes as u64;
            // Ids ascend, so nothing that was counted lies behind one that is new.
            let behind = |_: &[u8], _: Option<&[u8]>| Ok::<_, Infallible>(Total::default());
            let Ok(_) = summary.update(id.as_str().as_bytes(), None, sum, behind);
            ControlFlow::Continue(())
        })?;
        counts.total = summary.total();
        self.replace_holding(name, counts, summary)
    }

    /// Writes what differs from what is stored.
    fn replace_holding(&mut self, name: &CollectionName, counts: Collection, summary: Summary) -> Result<()> {
        let mut batch = Batch::new();
        let sealed = |(level, boundary, node)| (key::summary(self.space(), name, level, boundary), seal(&node));
        let mut nodes: BTreeMap<Vec<u8>, Bytes> = summary.nodes().map(sealed).collect();
        let (from, to) = key::summaries(self.space(), name);
        self.kv.scan(&from, &to, &mut |key, value| {
            match nodes.get(key) {
                Some(node) if node == value => _ = nodes.remove(key),
                Some(_) => {}
                None => batch.delete(key.to_vec()),
            }
            ControlFlow::Continue(())
        })?;
        nodes.into_iter().for_each(|(key, node)| batch.put(key, node));
        batch.put(key::named(self.space(), Tag::Collection, name.as_str().as_bytes()), seal(&counts));
        self.holdings.replace(name, counts, summary);
        self.apply(batch)
    }
}
