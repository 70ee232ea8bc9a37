//! Filling, measuring and clearing indexes: a step at a time, so that the peer goes on with its work in between.
//!
//! Filling follows the ids of the documents, and notes how far it came in the batch of each step, so that a start in
//! the middle goes on from there. What is written meanwhile keeps its entries by itself. Then the entries are counted
//! once for the histogram, and keys of a unique index that several documents have are marked. The count is repeated
//! when many entries have come and gone.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::super::Store;
use super::super::key::{self, KeyRange};
use super::super::record::seal;
use super::histogram::Counting;
use super::{Index, Stage, State, entry};
use crate::Result;
use crate::base::{CollectionName, DocumentId};
use crate::index::{Corpus, Keys};
use crate::kv::Batch;
use crate::limits::{INDEX_STEP_BYTES, INDEX_STEP_DOCUMENTS, INDEX_STEP_ENTRIES};

/// Entries that come or go before an index is measured again, besides a fifth of all.
const MOVED_MIN: u64 = 1_000;

/// How far an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many documents have their entries.
    Filling {
        /// Documents.
        documents: u64,
    },
    /// All have; the entries are being counted.
    Measuring,
    /// Queries use it.
    Ready,
}

/// What is to be done for indexes.
#[derive(Debug, Default)]
pub(in super::super) struct Work {
    /// The number that the next index gets.
    pub(super) next_number: u32,
    /// Indexes whose entries are to be cleared, with what queries may still hold.
    pub(super) dropped: Vec<(u32, Option<Arc<Index>>)>,
    measure: Option<Measure>,
}

/// A count under way.
#[derive(Debug)]
struct Measure {
    collection: CollectionName,
    index: Arc<Index>,
    /// The entry from which it goes on.
    from: Vec<u8>,
    counting: Counting,
    /// Documents of an index of text: each of its words adds its share of the words.
    documents: f64,
    /// Words of an index of text.
    tokens: u64,
}

impl Store {
    /// Does a step of what is to be done for indexes. Whether there is more to do.
    ///
    /// # Errors
    /// When the disk cannot be read or refuses.
    pub fn tend_indexes(&mut self) -> Result<bool> {
        if let Some(place) = self.index_work.dropped.iter().position(|(_, index)| is_free(index.as_ref())) {
            self.clear_step(place)?;
            return Ok(true);
        }
        let catalog = self.catalog();
        if let Some((collection, index)) = catalog.all().find(|(_, index)| index.is_filling()) {
            self.fill_step(collection, index)?;
            return Ok(true);
        }
        if self.index_work.measure.as_ref().is_some_and(|measure| !catalog.has(&measure.index)) {
            self.index_work.measure = None;
        }
        if self.index_work.measure.is_none() {
            let due = catalog.all().find(|(_, index)| index.is_to_be_measured());
            self.index_work.measure = due.map(|(collection, index)| Measure {
                collection: collection.clone(),
                index: index.clone(),
                from: entry::prefix(index.space, index.number),
                counting: Counting::new(index.keys()),
                documents: 0.0,
                tokens: 0,
            });
        }
        drop(catalog);
        match self.index_work.measure.take() {
            Some(measure) => self.measure_step(measure).map(|()| true),
            None => Ok(false),
        }
    }

    /// Gives the next documents their entries.
    fn fill_step(&mut self, collection: &CollectionName, index: &Arc<Index>) -> Result<()> {
        let Stage::Filling { after, mut documents } = index.state.read().stage.clone() else { return Ok(()) };
        let mut batch = Batch::new();
        let (mut rows, mut bytes, mut keys, mut multiple, mut corpus) = (0, 0, 0, false, index.corpus());
        let mut last: Option<String> = None;
        let mut is_done = true;
        self.reader.views(collection, after.as_ref().map(DocumentId::as_str), &mut |id, view| {
            if rows == INDEX_STEP_DOCUMENTS || bytes >= INDEX_STEP_BYTES || keys >= INDEX_STEP_ENTRIES {
                is_done = false;
                return ControlFlow::Break(());
            }
            rows += 1;
            last = Some(id.to_owned());
            // One that is damaged gets its entries when it is repaired.
            let Some(view) = view else { return ControlFlow::Continue(()) };
            bytes += view.json.len();
            documents += 1;
            let new = index.keys_of_view(id, view.json);
            corpus = corpus.after(&Keys::default(), &new);
            let entries = entry::entries(index.space, index.number, &new, id);
            multiple |= entries.len() > 1;
            keys += entries.len();
            for (entry, value) in entries {
                batch.put(entry, value);
            }
            ControlFlow::Continue(())
        })?;
        let after = last.and_then(|id| id.parse().ok()).or(after);
        let state = State {
            stage: if is_done { Stage::Measuring } else { Stage::Filling { after, documents } },
            multiple: multiple || index.is_multiple(),
            keys: index.keys() + keys as u64,
            corpus,
            ..index.state.read().clone()
        };
        self.write_state(collection, index, state, batch)
    }

    /// Counts the next entries.
    fn measure_step(&mut self, mut measure: Measure) -> Result<()> {
        let index = measure.index.clone();
        let (space, number) = (index.space, index.number);
        let (_, to) = entry::all(space, number);
        let mut batch = Batch::new();
        let (mut rows, mut is_done) = (0, true);
        let from = std::mem::take(&mut measure.from);
        self.kv.scan(&from, &to, &mut |key, value| {
            if rows == INDEX_STEP_ENTRIES {
                measure.from = key.to_vec();
                is_done = false;
                return ControlFlow::Break(());
            }
            rows += 1;
            let Some((key, _)) = entry::parts(key, value) else { return ControlFlow::Continue(()) };
            if let Some(posting) = entry::posting(value) {
                measure.documents += f64::from(posting.occurrences) / f64::from(posting.tokens);
                measure.tokens += u64::from(posting.occurrences);
            }
            if measure.counting.add(key) && index.definition.unique && !entry::is_overflow(key) {
                batch.put(key::index_conflict(space, number, key), Bytes::new());
            }
            ControlFlow::Continue(())
        })?;
        if !is_done {
            self.apply(batch)?;
            self.index_work.measure = Some(measure);
            return Ok(());
        }
        let keys = measure.counting.entries();
        let histogram = Arc::new(measure.counting.finish());
        let corpus = Corpus { documents: measure.documents.round() as u64, tokens: measure.tokens };
        let state = State { stage: Stage::Ready, keys, moved: 0, histogram, multiple: index.is_multiple(), corpus };
        self.write_state(&measure.collection, &index, state, batch)
    }

    fn write_state(
        &mut self,
        collection: &CollectionName,
        index: &Index,
        state: State,
        mut batch: Batch,
    ) -> Result<()> {
        let stored = super::Stored { state: state.clone(), ..index.stored() };
        batch.put(key::index(index.space, collection, &index.name), seal(&stored));
        self.apply(batch)?;
        *index.state.write() = state;
        Ok(())
    }

    /// Clears the next entries of a dropped index.
    fn clear_step(&mut self, place: usize) -> Result<()> {
        let number = self.index_work.dropped[place].0;
        let space = self.space();
        let mut batch = Batch::new();
        for (from, to) in [entry::all(space, number), key::index_conflicts(space, number)] {
            self.collect(&(from, to), &mut batch)?;
        }
        let is_done = batch.writes().len() < INDEX_STEP_ENTRIES;
        if is_done {
            batch.delete(key::index_dropped(space, number));
        }
        self.apply(batch)?;
        if is_done {
            self.index_work.dropped.swap_remove(place);
        }
        Ok(())
    }

    /// Adds deletes of the keys of a range to a batch, up to what one step takes.
    fn collect(&self, (from, to): &KeyRange, batch: &mut Batch) -> Result<()> {
        self.kv.scan(from, to, &mut |key, _| {
            if batch.writes().len() >= INDEX_STEP_ENTRIES {
                return ControlFlow::Break(());
            }
            batch.delete(key.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}

/// Whether no query reads a dropped index any more.
fn is_free(index: Option<&Arc<Index>>) -> bool {
    index.is_none_or(|index| Arc::strong_count(index) == 1)
}

impl super::Catalog {
    fn has(&self, index: &Arc<Index>) -> bool {
        self.all().any(|(_, other)| Arc::ptr_eq(other, index))
    }
}

impl Index {
    fn is_filling(&self) -> bool {
        matches!(self.state.read().stage, Stage::Filling { .. })
    }

    fn is_to_be_measured(&self) -> bool {
        let state = self.state.read();
        match state.stage {
            Stage::Filling { .. } => false,
            Stage::Measuring => true,
            Stage::Ready => state.moved > MOVED_MIN + state.keys / 5,
        }
    }
}
