//! Indexes on the disk: their entries, in the batch of the change that they follow from, and what is known of them.
//!
//! - [`Index`] an index as queries see it; [`Catalog`] those of all collections
//! - `entry` keys and values of entries
//! - `keep` entries that follow a document's change
//! - `build` filling a new index, measuring it, clearing a dropped one: a step at a time, between inputs
//! - `read` entries for queries, `conflict` documents with the same key of a unique index
//! - `histogram` how the keys are spread; `audit` all of it against the documents
//!
//! The entries of an index stand under its number, which is never used again: an index that is built anew gets another
//! one, and a query that still reads the old entries keeps them from being cleared. What is damaged is built anew from
//! the documents. Which index a query takes is not decided here.

mod audit;
mod build;
mod conflict;
mod entry;
mod histogram;
mod keep;
mod read;

pub use build::Progress;
pub use conflict::{Conflict, Conflicts};
pub use histogram::Histogram;
pub use read::{Entries, Postings};

pub(super) use build::Work;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::Store;
use super::key::{self, Space, Tag};
use super::record::{seal, unseal};
use crate::base::{CollectionName, Decode, DecodeError, DocumentId, Encode, Reader as Decoder, Writer};
use crate::index::{Corpus, Definition, IndexName};
use crate::kv::{Batch, Kv};
use crate::limits::{INDEX_DEFINITION_BYTES_MAX, INDEXES_MAX};
use crate::{Error, Result};

/// An index as queries see it. Whoever holds one keeps its entries from being cleared.
#[derive(Debug)]
pub struct Index {
    name: IndexName,
    definition: Definition,
    space: Space,
    number: u32,
    state: RwLock<State>,
}

/// What changes of an index.
#[derive(Debug, Clone, PartialEq, Default)]
struct State {
    stage: Stage,
    /// Whether a document has, or had, more than one key.
    multiple: bool,
    /// Entries, about: a crash forgets those since the last measuring.
    keys: u64,
    /// Entries that came or went since the last measuring.
    moved: u64,
    histogram: Arc<Histogram>,
    /// Of an index of text, about, as the number of entries is.
    corpus: Corpus,
}

/// How far an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Documents up to and with this id have their entries.
    Filling { after: Option<DocumentId>, documents: u64 },
    /// All have; the entries are being counted.
    Measuring,
    /// Queries use it.
    Ready,
}

impl Default for Stage {
    fn default() -> Self {
        Self::Filling { after: None, documents: 0 }
    }
}

impl Index {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &IndexName {
        &self.name
    }

    /// What it is.
    #[must_use]
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Whether queries may use it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state.read().stage == Stage::Ready
    }

    /// Whether a document may have more than one key in it.
    #[must_use]
    pub fn is_multiple(&self) -> bool {
        self.state.read().multiple
    }

    /// How its keys were spread when they were counted last.
    #[must_use]
    pub fn histogram(&self) -> Arc<Histogram> {
        self.state.read().histogram.clone()
    }

    /// Entries, about.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.state.read().keys
    }

    /// What ranking must know of all documents of an index of text, about.
    #[must_use]
    pub fn corpus(&self) -> Corpus {
        self.state.read().corpus
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let state = self.state.read();
        match &state.stage {
            Stage::Filling { documents, .. } => Progress::Filling { documents: *documents },
            Stage::Measuring => Progress::Measuring,
            Stage::Ready => Progress::Ready,
        }
    }

    fn stored(&self) -> Stored {
        Stored { number: self.number, definition: self.definition.clone(), state: self.state.read().clone() }
    }
}

/// The indexes of every collection.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    indexes: BTreeMap<CollectionName, Vec<Arc<Index>>>,
}

/// The catalog, as the writer and its readers share it.
pub(super) type SharedCatalog = Arc<RwLock<Arc<Catalog>>>;

impl Catalog {
    /// The indexes of a collection, in the order of their names.
    #[must_use]
    pub fn of(&self, collection: &CollectionName) -> &[Arc<Index>] {
        self.indexes.get(collection).map(Vec::as_slice).unwrap_or_default()
    }

    /// The indexes that have documents deleted, and that queries may use.
    #[must_use]
    pub fn expiring(&self) -> Vec<(CollectionName, IndexName)> {
        let expiring = self.all().filter(|(_, index)| index.definition.expire_after_s.is_some() && index.is_ready());
        expiring.map(|(collection, index)| (collection.clone(), index.name.clone())).collect()
    }

    /// An index by its name.
    #[must_use]
    pub fn get(&self, collection: &CollectionName, name: &IndexName) -> Option<&Arc<Index>> {
        self.of(collection).iter().find(|index| index.name == *name)
    }

    fn all(&self) -> impl Iterator<Item = (&CollectionName, &Arc<Index>)> {
        self.indexes.iter().flat_map(|(collection, indexes)| indexes.iter().map(move |index| (collection, index)))
    }

    fn put(&mut self, collection: &CollectionName, index: Arc<Index>) {
        let indexes = self.indexes.entry(collection.clone()).or_default();
        match indexes.binary_search_by(|other| other.name.cmp(&index.name)) {
            Ok(at) => indexes[at] = index,
            Err(at) => indexes.insert(at, index),
        }
    }

    fn take(&mut self, collection: &CollectionName, name: &IndexName) -> Option<Arc<Index>> {
        let indexes = self.indexes.get_mut(collection)?;
        let at = indexes.iter().position(|index| index.name == *name)?;
        let index = indexes.remove(at);
        if indexes.is_empty() {
            self.indexes.remove(collection);
        }
        Some(index)
    }
}

/// An index as it is stored.
#[derive(Debug, Clone, PartialEq)]
struct Stored {
    number: u32,
    definition: Definition,
    state: State,
}

impl Encode for Stored {
    fn encode(&self, writer: &mut Writer) {
        let State { stage, multiple, keys, moved: _, histogram, corpus } = &self.state;
        writer.varint(self.number.into()).string(&self.definition.to_json().to_string());
        match stage {
            Stage::Filling { after, documents } => writer.u8(0).value(after).varint(*documents),
            Stage::Measuring => writer.u8(1),
            Stage::Ready => writer.u8(2),
        };
        writer.u8(u8::from(*multiple)).varint(*keys).value(&**histogram);
        writer.varint(corpus.documents).varint(corpus.tokens);
    }
}

impl Decode for Stored {
    fn decode(reader: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let number = reader.int()?;
        let text = reader.string("definition", INDEX_DEFINITION_BYTES_MAX)?;
        let value = serde_json::from_str(text).map_err(|error| DecodeError::Rule(error.to_string()))?;
        let definition = Definition::parse(&value).map_err(|error| DecodeError::Rule(error.to_string()))?;
        let stage = match reader.u8()? {
            0 => Stage::Filling { after: reader.value()?, documents: reader.varint()? },
            1 => Stage::Measuring,
            2 => Stage::Ready,
            other => return Err(DecodeError::Unknown { what: "stage of an index", value: other.into() }),
        };
        let (multiple, keys) = (reader.u8()? != 0, reader.varint()?);
        let histogram = Arc::new(reader.value()?);
        let corpus = Corpus { documents: reader.varint()?, tokens: reader.varint()? };
        let state = State { stage, multiple, keys, moved: 0, histogram, corpus };
        Ok(Self { number, definition, state })
    }
}

impl Store {
    /// Declares an index; it is filled by [`Store::tend_indexes`]. Nothing happens when there is the same under that
    /// name; another one is replaced. False when nothing happened.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are as many as there may be, and when the disk refuses.
    pub fn put_index(&mut self, collection: &CollectionName, name: IndexName, definition: Definition) -> Result<bool> {
        let catalog = self.catalog();
        let indexes = catalog.of(collection);
        match indexes.iter().find(|index| index.name == name) {
            Some(index) if index.definition == definition => return Ok(false),
            Some(_) => {}
            None if indexes.len() >= INDEXES_MAX => {
                return Err(Error::invalid(format!(
                    "collection {collection} has {INDEXES_MAX} indexes, as many as it may; drop one first"
                )));
            }
            None => {}
        }
        self.start_index(collection, name, definition)?;
        Ok(true)
    }

    /// Drops an index; its entries are cleared by [`Store::tend_indexes`]. False when there is none of that name.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn drop_index(&mut self, collection: &CollectionName, name: &IndexName) -> Result<bool> {
        let catalog = self.catalog();
        let Some(index) = catalog.of(collection).iter().find(|index| index.name == *name) else { return Ok(false) };
        let mut batch = Batch::new();
        batch.delete(key::index(self.space(), collection, name));
        batch.put(key::index_dropped(self.space(), index.number), bytes::Bytes::new());
        self.apply_twice(batch)?;
        drop(catalog);
        self.forget_index(collection, name);
        Ok(true)
    }

    /// The indexes as they are now.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.reader.catalog()
    }

    /// Puts a new, empty index in the place of what has its name.
    fn start_index(&mut self, collection: &CollectionName, name: IndexName, definition: Definition) -> Result<()> {
        let number = self.index_work.next_number;
        let index =
            Index { name: name.clone(), definition, space: self.space(), number, state: RwLock::new(State::default()) };
        let mut batch = Batch::new();
        batch.put(key::index(self.space(), collection, &name), seal(&index.stored()));
        if let Some(old) = self.catalog().of(collection).iter().find(|index| index.name == name) {
            batch.put(key::index_dropped(self.space(), old.number), bytes::Bytes::new());
        }
        self.apply_twice(batch)?;
        self.index_work.next_number += 1;
        self.forget_index(collection, &name);
        self.change_catalog(|catalog| catalog.put(collection, Arc::new(index)));
        Ok(())
    }

    fn forget_index(&mut self, collection: &CollectionName, name: &IndexName) {
        let mut dropped = None;
        self.change_catalog(|catalog| dropped = catalog.take(collection, name));
        self.index_work.dropped.extend(dropped.map(|index| (index.number, Some(index))));
    }

    fn change_catalog(&self, change: impl FnOnce(&mut Catalog)) {
        change(Arc::make_mut(&mut self.reader.catalog.write()));
    }

    /// Begins all indexes of a collection anew: what they hold of a document is not known any more.
    pub(super) fn renew_indexes(&mut self, collection: &CollectionName) -> Result<()> {
        for index in self.catalog().of(collection) {
            self.start_index(collection, index.name.clone(), index.definition.clone())?;
        }
        Ok(())
    }

    /// As [`Store::renew_indexes`], for all collections.
    pub(super) fn renew_all_indexes(&mut self) -> Result<()> {
        let catalog = self.catalog();
        catalog.indexes.keys().try_for_each(|collection| self.renew_indexes(collection))
    }

    /// Declares the indexes of another space in this one.
    pub(super) fn copy_indexes(&mut self, from: &Catalog) -> Result<()> {
        for (collection, index) in from.all() {
            self.start_index(collection, index.name.clone(), index.definition.clone())?;
        }
        Ok(())
    }

    /// Reads what the current space has of indexes.
    pub(super) fn load_indexes(&mut self) -> Result<()> {
        let space = self.space();
        let mut catalog = Catalog::default();
        let mut work = Work::default();
        let mut broken = Vec::new();
        let (from, to) = key::all(space, Tag::Index);
        self.kv.scan(&from, &to, &mut |key, value| {
            let Some((collection, name)) = key::index_parts(key) else { return std::ops::ControlFlow::Continue(()) };
            match unseal::<Stored>(value) {
                Ok(Stored { number, definition, state }) => {
                    work.next_number = work.next_number.max(number + 1);
                    let index = Index { name, definition, space, number, state: RwLock::new(state) };
                    catalog.put(&collection, Arc::new(index));
                }
                Err(error) => {
                    tracing::warn!(%collection, index = %name, %error, "the declaration of an index is damaged on the disk");
                    broken.push(key.to_vec());
                }
            }
            std::ops::ControlFlow::Continue(())
        })?;
        let (from, to) = key::all(space, Tag::IndexDropped);
        self.kv.scan(&from, &to, &mut |key, _| {
            let number = key.get(2..).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
            work.next_number = work.next_number.max(number.map_or(0, |number| number + 1));
            work.dropped.extend(number.map(|number| (number, None)));
            std::ops::ControlFlow::Continue(())
        })?;
        // Of an index whose declaration was lost there may be entries under a number that nothing names.
        let (from, to) = key::all(space, Tag::IndexEntry);
        if let Some(last) = last_number(&*self.kv, &from, &to)? {
            work.next_number = work.next_number.max(last + 1);
        }
        if !broken.is_empty() {
            let mut batch = Batch::new();
            broken.into_iter().for_each(|key| batch.delete(key));
            self.apply(batch)?;
        }
        *self.reader.catalog.write() = Arc::new(catalog);
        self.index_work = work;
        Ok(())
    }
}

/// The greatest number of an index under which there are entries: found by leaping from one to the next.
fn last_number(kv: &dyn Kv, from: &[u8], to: &[u8]) -> Result<Option<u32>> {
    let (mut last, mut from) = (None, from.to_vec());
    loop {
        let mut found = None;
        kv.scan(&from, to, &mut |key, _| {
            found = key.get(2..6).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
            std::ops::ControlFlow::Break(())
        })?;
        let Some(number) = found else { return Ok(last) };
        last = Some(number);
        let Some(next) = number.checked_add(1) else { return Ok(last) };
        from.truncate(2);
        from.extend_from_slice(&next.to_be_bytes());
    }
}
