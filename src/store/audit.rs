//! Checking a store against itself: what a simulation does at its end, and whoever doubts a disk.

use super::reader::damaged;
use super::record::{Collection, Record};
use super::summary::{Sum, Total};
use super::{Store, key};
use crate::base::{CollectionName, DocumentKey, MeshId};
use crate::document::Envelope;
use crate::{Error, Result};

/// Bytes of changes that are held at a time.
const CHANGES_BYTES: usize = 1 << 20;
/// Documents that are looked up at a time.
const DOCUMENTS: usize = 64;

/// How much was checked and found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audit {
    /// Documents, deleted ones included.
    pub documents: u64,
    /// Changes.
    pub changes: u64,
}

impl Store {
    /// Checks every document of every collection as [`Store::audit_document`] does, and that counts, range
    /// summaries and indexes are what the documents give.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the first thing that does not match, [`Error::Io`] when the disk cannot be read.
    pub fn audit(&mut self, mesh: MeshId) -> Result<Audit> {
        let mut audit = Audit::default();
        let names: Vec<CollectionName> = self.totals().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.audit_collection(mesh, &name, &mut audit)?;
        }
        Ok(audit)
    }

    fn audit_collection(&mut self, mesh: MeshId, name: &CollectionName, audit: &mut Audit) -> Result<()> {
        let mut counted = Collection::default();
        let mut from = Some(Vec::new());
        while let Some(start) = from {
            let (items, next) = self.items(name, &start, None, DOCUMENTS)?;
            let mut of_step = Total::default();
            for (id, record) in items {
                of_step = of_step.plus(Total::of_item(Sum::of_item(id.as_str(), &record.heads)));
                let document = DocumentKey::new(name.clone(), id);
                // With its view, which the list of items leaves out.
                let record = self.record(&document)?.unwrap_or(record);
                counted.documents += u64::from(!record.deleted);
                counted.bytes += record.view.len() as u64;
                audit.documents += 1;
                audit.changes += self.audit_record(mesh, &document, &record)?;
            }
            if self.range(name, &start, next.as_deref())? != of_step {
                return Err(wrong(name, "the summary of a range is not that of its documents"));
            }
            counted.total = counted.total.plus(of_step);
            from = next;
        }
        let holding = self.holdings.get(name).map(|holding| holding.counts).unwrap_or_default();
        let stored = self.reader.collection(name)?.unwrap_or_default();
        if holding != counted || stored != counted {
            return Err(wrong(name, &format!("its counts are {holding:?}, stored {stored:?}, counted {counted:?}")));
        }
        self.audit_indexes(name)
    }

    /// Checks every change of a document against its signature, and its record against what its log gives. Says how
    /// many changes it has.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when something does not match, [`Error::Io`] when the disk cannot be read.
    pub fn audit_document(&mut self, mesh: MeshId, document: &DocumentKey) -> Result<u64> {
        match self.record(document)? {
            Some(record) => self.audit_record(mesh, document, &record),
            None => Ok(0),
        }
    }

    fn audit_record(&mut self, mesh: MeshId, document: &DocumentKey, record: &Record) -> Result<u64> {
        let mut checked = 0;
        if let Some(mut cursor) = self.missing(document, record, &[]) {
            while cursor.changes() > 0 {
                for change in self.stream(&mut cursor, CHANGES_BYTES)? {
                    let envelope = Envelope::check(mesh, change).map_err(|why| damaged(document, &why))?;
                    checked += envelope.changes().len() as u64;
                }
            }
        }
        if checked != record.changes() {
            return Err(damaged(document, &format!("its log has {checked} changes, its record {}", record.changes())));
        }
        // Without its snapshot, which could hide what the log lost.
        let mut fresh = self.replay(document, record)?;
        let opened = self.load_document(document, record)?;
        if fresh.heads() != record.heads || opened.heads() != record.heads {
            return Err(damaged(document, &"its heads are not those that its log gives"));
        }
        if !record.deleted && (fresh.view() != record.view || opened.view() != record.view) {
            return Err(damaged(document, &"its view is not what its log gives"));
        }
        let conflicts = if record.deleted { 0 } else { fresh.conflict_count() };
        if record.conflicts.is_some_and(|counted| counted != conflicts) {
            return Err(damaged(document, &format!("it has {conflicts} conflicts, its record {:?}", record.conflicts)));
        }
        let marked = self.kv.get(&key::conflict(self.space(), document))?.is_some();
        if record.conflicts.is_some() && marked != (conflicts > 0) {
            return Err(damaged(document, &"the mark of its conflicts does not fit its record"));
        }
        let fed = self.kv.get(&key::feed(self.space(), &document.collection, record.position))?;
        if fed.as_deref() != Some(document.id.as_str().as_bytes()) {
            return Err(damaged(document, &"the feed does not have its last change"));
        }
        Ok(checked)
    }
}

fn wrong(name: &CollectionName, why: &str) -> Error {
    Error::Corrupt(format!("collection {name}: {why}"))
}
