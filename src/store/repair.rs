//! Damaged documents: marking them, and counting a collection again without them.
//!
//! A damaged document is taken out of its collection's summary, so that to other peers it is one that is
//! missing here: reconciliation brings it back, and nothing else is needed for its repair. The mark is kept
//! on the disk until a write heals the document.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::key::{self, Tag};
use super::record::seal;
use super::summary::{Sum, Total};
use super::{Holding, Store};
use crate::base::{CollectionName, DocumentKey};
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
        let mut batch = Batch::new();
        batch.put(key::damaged(self.space(), document), Bytes::new());
        if let Err(error) = self.recount_holding(&document.collection, batch) {
            tracing::error!(collection = %document.collection, %error, "the range summary could not be counted again");
        }
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

    /// Counts a collection and its summary again from its readable documents, and writes both with `batch`.
    pub(super) fn recount_holding(&mut self, name: &CollectionName, batch: Batch) -> Result<()> {
        let mut holding = Holding::default();
        let mut counted: BTreeMap<Vec<u8>, Sum> = BTreeMap::new();
        let mut after = Vec::new();
        loop {
            let (items, stopped) = self.items(name, &after, None, 1_000)?;
            for (id, record) in items {
                let sum = Sum::of_item(id.as_str(), &record.heads);
                holding.counts.documents += u64::from(!record.deleted);
                holding.counts.bytes += record.view.len() as u64;
                holding.summary.update(id.as_str().as_bytes(), None, sum, |from, to| {
                    let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
                    let range = counted.range::<[u8], _>((Bound::Included(from), upper));
                    let total = range.fold(Total::default(), |total, (_, sum)| total.plus(Total::of_item(*sum)));
                    Ok::<_, Error>(total)
                })?;
                counted.insert(id.as_str().into(), sum);
            }
            match stopped {
                Some(next) => after = next,
                None => break,
            }
        }
        holding.counts.total = holding.summary.total();
        self.replace_holding(name, holding, batch)
    }

    fn replace_holding(&mut self, name: &CollectionName, holding: Holding, mut batch: Batch) -> Result<()> {
        let (from, to) = key::summaries(self.space(), name);
        self.kv.scan(&from, &to, &mut |key, _| {
            batch.delete(key.to_vec());
            ControlFlow::Continue(())
        })?;
        for (level, boundary, node) in holding.summary.nodes() {
            batch.put(key::summary(self.space(), name, level, boundary), seal(&node));
        }
        batch.put(key::named(self.space(), Tag::Collection, name.as_str().as_bytes()), seal(&holding.counts));
        self.holdings.insert(name.clone(), holding);
        self.apply(batch)
    }
}
