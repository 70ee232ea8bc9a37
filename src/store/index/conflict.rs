//! Conflicts of unique indexes: documents that have the same key because peers wrote them while they were apart.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::Reader;
use super::super::key;
use super::{Index, entry};
use crate::Result;
use crate::base::{CollectionName, DocumentId, DocumentKey, Hlc};

/// Documents that have the same key of a unique index, because peers wrote them while they were apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The one that was created first, by the clocks of the authors; of those at the same time the one with the
    /// smallest id. The same on every peer that has the same documents.
    pub winner: DocumentId,
    /// The others, in that order.
    pub losers: Vec<DocumentId>,
}

/// Documents of one conflict that are looked at.
const CONFLICT_DOCUMENTS_MAX: usize = 1_000;

/// The conflicts that a document is in, with the unique indexes.
pub type Conflicts = Vec<(Arc<Index>, Arc<Conflict>)>;

impl Reader {
    /// The conflicts of a unique index, in the order of its keys, at most `limit`.
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn conflicts(&self, collection: &CollectionName, index: &Index, limit: usize) -> Result<Vec<Conflict>> {
        let mut marked = Vec::new();
        let (from, to) = key::index_conflicts(index.space, index.number);
        self.kv.scan(&from, &to, &mut |key, _| {
            marked.push(key[entry::PREFIX..].to_vec());
            if marked.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let conflicts = marked.iter().map(|key| self.conflict(collection, index, key));
        conflicts.filter_map(Result::transpose).collect()
    }

    /// The conflicts that a document is in, with the unique indexes.
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn conflicts_of(&self, document: &DocumentKey, view: &[u8]) -> Result<Conflicts> {
        self.conflicts_among(&document.collection, [(document.id.as_str(), view)]).map(|mut all| all.remove(0))
    }

    /// As [`Reader::conflicts_of`], of several documents, in their order. A conflict that several of them are in is
    /// read once.
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn conflicts_among<'a>(
        &self,
        collection: &CollectionName,
        documents: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Vec<Conflicts>> {
        let catalog = self.catalog();
        let unique: Vec<&Arc<Index>> = catalog.of(collection).iter().filter(|index| index.definition.unique).collect();
        let mut known: BTreeMap<(u32, Vec<u8>), Option<Arc<Conflict>>> = BTreeMap::new();
        let mut all = Vec::new();
        for (id, view) in documents {
            let mut found = Vec::new();
            for index in &unique {
                for key in index.keys_of_view(id, view).keys {
                    if self.kv.get(&key::index_conflict(index.space, index.number, &key))?.is_none() {
                        continue;
                    }
                    let conflict = match known.entry((index.number, key)) {
                        Entry::Occupied(known) => known.get().clone(),
                        Entry::Vacant(free) => {
                            let conflict = self.conflict(collection, index, &free.key().1)?.map(Arc::new);
                            free.insert(conflict).clone()
                        }
                    };
                    found.extend(conflict.map(|conflict| ((*index).clone(), conflict)));
                }
            }
            all.push(found);
        }
        Ok(all)
    }

    fn conflict(&self, collection: &CollectionName, index: &Index, key: &[u8]) -> Result<Option<Conflict>> {
        let mut ids: Vec<DocumentId> = Vec::new();
        self.scan_entries(index, &entry::under(index.space, index.number, key), &mut |_, id| {
            ids.extend(id.parse::<DocumentId>());
            if ids.len() < CONFLICT_DOCUMENTS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let created = |id: &DocumentId| -> Result<Hlc> {
            let record = self.record(&DocumentKey::new(collection.clone(), id.clone()))?;
            Ok(record.map(|record| record.created).unwrap_or_default())
        };
        let mut order = ids.into_iter().map(|id| Ok((created(&id)?, id))).collect::<Result<Vec<_>>>()?;
        order.sort();
        let mut order = order.into_iter().map(|(_, id)| id);
        let (Some(winner), losers) = (order.next(), order.collect::<Vec<_>>()) else { return Ok(None) };
        Ok((!losers.is_empty()).then_some(Conflict { winner, losers }))
    }
}
