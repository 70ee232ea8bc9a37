//! Entries that follow a document's change, in its batch.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::super::Store;
use super::super::key;
use super::super::record::{Record, seal};
use super::{Index, Stage, entry};
use crate::base::{CollectionName, DocumentId, DocumentKey, Timestamp};
use crate::index::Keys;
use crate::kv::{Batch, Kv};
use crate::value::{Json, Row};
use crate::{Error, Invalid, InvalidKind, Result};

/// The id of a document as JSON text.
pub(super) fn id_text(id: &str) -> Vec<u8> {
    serde_json::to_vec(id).expect("a string is JSON")
}

impl Store {
    /// Adds to a batch what becomes of the entries of a document when its record changes from `before` to `after`.
    pub(in super::super) fn write_indexes(
        &self,
        document: &DocumentKey,
        before: Option<&Record>,
        after: &Record,
        batch: &mut Batch,
    ) -> Result<()> {
        let catalog = self.catalog();
        let indexes = catalog.of(&document.collection);
        if indexes.is_empty() {
            return Ok(());
        }
        // What is built anew after damage may have a record that can still be read, and entries made from it.
        let damaged = if self.damaged.contains(document) { self.reader.record(document).ok().flatten() } else { None };
        let before = before.or(damaged.as_ref());
        for index in indexes {
            self.write_entries(index, document, before, after, batch)?;
        }
        Ok(())
    }

    fn write_entries(
        &self,
        index: &Index,
        document: &DocumentKey,
        before: Option<&Record>,
        after: &Record,
        batch: &mut Batch,
    ) -> Result<()> {
        let (id, number) = (document.id.as_str(), index.number);
        let old = before.map(|record| index.keys_of(id, record)).unwrap_or_default();
        let new = index.keys_of(id, after);
        if old == new {
            return Ok(());
        }
        if index.definition.unique {
            for key in new.keys.iter().filter(|key| !old.keys.contains(key)) {
                if index.others(&*self.kv, key, id)? > 0 {
                    batch.put(key::index_conflict(index.space, number, key), Bytes::new());
                }
            }
            for key in old.keys.iter().filter(|key| !new.keys.contains(key)) {
                if index.others(&*self.kv, key, id)? < 2 {
                    batch.delete(key::index_conflict(index.space, number, key));
                }
            }
        }
        let entries = |keys| entry::entries(index.space, number, keys, id).into_iter().collect::<BTreeMap<_, _>>();
        let (gone, fresh) = (entries(&old), entries(&new));
        let mut moved = 0;
        for entry in gone.keys().filter(|entry| !fresh.contains_key(*entry)) {
            batch.delete(entry.clone());
            moved += 1;
        }
        for (entry, value) in fresh.iter().filter(|(entry, value)| gone.get(*entry) != Some(*value)) {
            batch.put(entry.clone(), value.clone());
            moved += 1;
        }
        let mut state = index.state.write();
        let is_filled = match &state.stage {
            Stage::Filling { after, .. } => after.as_ref().is_some_and(|after| document.id <= *after),
            Stage::Measuring | Stage::Ready => true,
        };
        if is_filled {
            state.keys = (state.keys + fresh.len() as u64).saturating_sub(gone.len() as u64);
            state.corpus = state.corpus.after(&old, &new);
            state.moved += moved;
        }
        if fresh.len() > 1 && !state.multiple {
            state.multiple = true;
            drop(state);
            batch.put(key::index(index.space, &document.collection, &index.name), seal(&index.stored()));
        }
        Ok(())
    }

    /// Checks that a write of this peer gives no document a key of a unique index that another one has. What is there
    /// already stays free to be written: only keys that it did not have before count.
    ///
    /// # Errors
    /// [`Error::Invalid`] of the kind [`InvalidKind::Taken`] that names the index and the other document, [`Error::Io`]
    /// when the disk cannot be read.
    pub fn check_unique(&self, document: &DocumentKey, before: Option<&Record>, view: &[u8]) -> Result<()> {
        let catalog = self.catalog();
        for index in catalog.of(&document.collection).iter().filter(|index| index.definition.unique) {
            let id = document.id.as_str();
            let old = before.map(|record| index.keys_of(id, record)).unwrap_or_default();
            let new = index.keys_of_view(id, view);
            for key in new.keys.iter().filter(|key| !old.keys.contains(key)) {
                if let Some(other) = index.other(&*self.kv, key, id)? {
                    let message = format!(
                        "document {document} would have the same key in the unique index {} as document {other}; \
                         change one of the two, or drop the index",
                        index.name
                    );
                    // No conflict of a condition: to read the document again and retry would never end.
                    let kind = InvalidKind::Taken;
                    return Err(Error::Invalid(Invalid { message, field: None, position: None, kind }));
                }
            }
        }
        Ok(())
    }

    /// Whether writes to a collection must be checked by [`Store::check_unique`].
    #[must_use]
    pub fn has_unique(&self, collection: &CollectionName) -> bool {
        self.catalog().of(collection).iter().any(|index| index.definition.unique)
    }
}

impl Index {
    /// The keys of a document.
    pub(super) fn keys_of(&self, id: &str, record: &Record) -> Keys {
        if record.deleted { Keys::default() } else { self.keys_of_view(id, &record.view) }
    }

    pub(super) fn keys_of_view(&self, id: &str, view: &[u8]) -> Keys {
        let id = id_text(id);
        Keys::of(&self.definition, Row { id: Some(Json::new(&id)), body: Json::new(view), conflicts: 0 })
    }

    /// Whether a document is old enough to be deleted.
    #[must_use]
    pub fn has_expired(&self, id: &str, view: &[u8], now: Timestamp) -> bool {
        let id = id_text(id);
        self.definition.has_expired(Row { id: Some(Json::new(&id)), body: Json::new(view), conflicts: 0 }, now)
    }

    /// How many other documents have a key, up to two.
    fn others(&self, kv: &dyn Kv, key: &[u8], id: &str) -> Result<usize> {
        let mut others = 0;
        self.each_other(kv, key, id, &mut |_| {
            others += 1;
            if others == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(others)
    }

    fn other(&self, kv: &dyn Kv, key: &[u8], id: &str) -> Result<Option<DocumentId>> {
        let mut other = None;
        self.each_other(kv, key, id, &mut |id| {
            other = id.parse().ok();
            ControlFlow::Break(())
        })?;
        Ok(other)
    }

    fn each_other(
        &self,
        kv: &dyn Kv,
        key: &[u8],
        id: &str,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<()> {
        let (from, to) = entry::under(self.space, self.number, key);
        kv.scan(&from, &to, &mut |entry, value| match entry::parts(entry, value) {
            Some((_, other)) if other != id => visit(other),
            Some(_) | None => ControlFlow::Continue(()),
        })?;
        Ok(())
    }
}
