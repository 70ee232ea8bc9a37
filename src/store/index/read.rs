//! Reading indexes: entries for queries, and the conflicts of unique indexes.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::Reader;
use super::super::key;
use super::{Catalog, Index, entry};
use crate::base::{CollectionName, DocumentId, DocumentKey, Hlc};
use crate::{Error, Result};

/// What a scan of an index calls with each key and id, until it breaks.
pub type Entries<'a> = dyn FnMut(&[u8], &str) -> ControlFlow<()> + 'a;

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

impl Reader {
    /// The indexes as they are now.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Visits the entries of an index with `from <= key < to` (`None`: no end), in the order of keys and then of ids.
    /// A document with several keys comes several times; those whose keys are too many or too long do not come, see
    /// [`Reader::overflow`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an entry is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn entries(&self, index: &Index, from: &[u8], to: Option<&[u8]>, visit: &mut Entries<'_>) -> Result<()> {
        let (all, end) = (entry::prefix(index.space, index.number), entry::overflow(index.space, index.number).0);
        let from = [all.as_slice(), from].concat();
        let to = to.map_or(end, |to| [all.as_slice(), to].concat());
        self.scan_entries(index, &(from, to), visit)
    }

    /// Visits the ids of documents whose keys in an index are too many or too long.
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn overflow(&self, index: &Index, visit: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<()> {
        self.scan_entries(index, &entry::overflow(index.space, index.number), &mut |_, id| visit(id))
    }

    fn scan_entries(&self, index: &Index, (from, to): &key::KeyRange, visit: &mut Entries<'_>) -> Result<()> {
        let mut is_damaged = false;
        self.kv.scan(from, to, &mut |key, value| match entry::parts(key, value) {
            Some((key, id)) => visit(key, id),
            None => {
                is_damaged = true;
                ControlFlow::Break(())
            }
        })?;
        if is_damaged {
            let name = &index.name;
            return Err(Error::Corrupt(format!(
                "an entry of the index {name} is damaged on this peer's disk; drop it and create it again"
            )));
        }
        Ok(())
    }

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

    /// The conflicts that a document is in, with the names of the unique indexes.
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn conflicts_of(&self, document: &DocumentKey, view: &[u8]) -> Result<Vec<(Arc<Index>, Conflict)>> {
        let catalog = self.catalog();
        let mut found = Vec::new();
        for index in catalog.of(&document.collection).iter().filter(|index| index.definition.unique) {
            for key in index.keys_of_view(document.id.as_str(), view).keys {
                if self.kv.get(&key::index_conflict(index.space, index.number, &key))?.is_some()
                    && let Some(conflict) = self.conflict(&document.collection, index, &key)?
                {
                    found.push((index.clone(), conflict));
                }
            }
        }
        Ok(found)
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
