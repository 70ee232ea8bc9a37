//! `$lookup`: documents of another collection, put into those that refer to them.
//!
//! Rows are gathered, then the other collection is read through once for all of them, and only what one of them refers
//! to is held. So a pipeline costs one reading for every few thousand rows, whatever the size of the other collection.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use super::super::shape::{Leaf, Shape};
use super::super::{Budget, fault, row};
use super::{Flow, Process, Sink, Sources};
use crate::Result;
use crate::filter::expression::whole;
use crate::limits::{DOCUMENT_VIEW_BYTES_MAX, LOOKUP_BYTES, LOOKUP_ROWS_MAX};
use crate::value::{Direction, Json, Kind, Leaf as PathLeaf, Path, Row, encode};

#[derive(Debug, Clone)]
pub(super) struct Lookup {
    from: String,
    local: Path,
    foreign: Path,
    /// Sets the array of what was found.
    shape: Shape,
    height: usize,
}

impl Lookup {
    /// # Errors
    /// None in practice: the shape has one path.
    pub(super) fn new(from: String, local: Path, foreign: Path, found: &Path, at: &str) -> Result<Self> {
        let mut shape = Shape::over_arrays();
        shape.insert(found, Leaf::Set(0), at)?;
        Ok(Self { from, local, foreign, shape, height: found.parts().len() + 1 })
    }

    pub(super) fn from(&self) -> &str {
        &self.from
    }

    pub(super) fn height(&self) -> usize {
        self.height
    }
}

pub(super) struct Joining<'q> {
    lookup: &'q Lookup,
    sources: &'q dyn Sources,
    budget: &'q Budget,
    at: &'q str,
    waiting: Vec<Waiting>,
    /// Bytes of what waits.
    bytes: usize,
}

/// A row, and the keys of what it refers to.
struct Waiting {
    text: Box<[u8]>,
    keys: Vec<Box<[u8]>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + self.keys.iter().map(|key| key.len() + KEY_BYTES).sum::<usize>()
    }
}

/// Bytes that a key takes besides its own, here and in the map of what was found.
const KEY_BYTES: usize = 80;

/// Documents that were found, and which of them have a key.
#[derive(Default)]
struct Found {
    texts: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, Vec<usize>>,
    bytes: usize,
}

impl<'q> Joining<'q> {
    pub(super) fn new(lookup: &'q Lookup, sources: &'q dyn Sources, budget: &'q Budget, at: &'q str) -> Self {
        Self { lookup, sources, budget, at, waiting: Vec::new(), bytes: 0 }
    }

    /// Finds what the rows that wait refer to, and lets them go on.
    fn flush(&mut self, out: Sink<'_>) -> Flow {
        let waiting = std::mem::take(&mut self.waiting);
        let bytes = std::mem::take(&mut self.bytes);
        if waiting.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let found = self.find(&waiting)?;
        let mut flow = ControlFlow::Continue(());
        for waits in &waiting {
            let array = self.array(waits, &found)?;
            let text = self.lookup.shape.apply(row(&waits.text), &[Some(Cow::Owned(array))], self.at)?;
            self.budget.work(text.len())?;
            flow = out(row(&text))?;
            if flow.is_break() {
                break;
            }
        }
        self.budget.give_back(bytes + found.bytes);
        Ok(flow)
    }

    /// Reads through the other collection.
    fn find(&self, waiting: &[Waiting]) -> Result<Found> {
        let keys = waiting.iter().flat_map(|waits| waits.keys.iter().cloned());
        let mut found = Found { numbers: keys.map(|key| (key, Vec::new())).collect(), ..Found::default() };
        let mut key = Vec::new();
        self.sources.scan(&self.lookup.from, &mut |row| {
            self.budget.work(row.body.text().len())?;
            let number = found.texts.len();
            let (mut is_wanted, mut places) = (false, 0);
            let _: ControlFlow<()> = self.lookup.foreign.visit_row(row, PathLeaf::Items, &mut |value| {
                key.clear();
                // What is missing is null.
                encode(value.unwrap_or(Json::NULL), Direction::Ascending, &mut key);
                if let Some(numbers) = found.numbers.get_mut(key.as_slice())
                    && numbers.last() != Some(&number)
                {
                    numbers.push(number);
                    places += size_of::<usize>();
                    is_wanted = true;
                }
                ControlFlow::Continue(())
            });
            if is_wanted {
                let text = whole(row);
                let bytes = text.len() + KEY_BYTES + places;
                self.budget.take(bytes, self.at)?;
                found.bytes += bytes;
                found.texts.push(text.into());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// The array of the documents that a row refers to, in the order of the other collection.
    fn array(&self, waits: &Waiting, found: &Found) -> Result<Vec<u8>> {
        let numbers = waits.keys.iter().filter_map(|key| found.numbers.get(key)).flatten();
        let mut out = vec![b'['];
        for number in numbers.collect::<BTreeSet<_>>() {
            let text = &found.texts[*number];
            if out.len() + text.len() > DOCUMENT_VIEW_BYTES_MAX {
                let message = format!("a document refers to more than {DOCUMENT_VIEW_BYTES_MAX} bytes of others");
                return Err(fault(self.at, message));
            }
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(text);
        }
        out.push(b']');
        Ok(out)
    }

    /// The keys of what a row refers to: the items of an array one by one, and null when there is nothing.
    fn keys(&self, row: Row<'_>) -> Result<Vec<Box<[u8]>>> {
        let mut keys = Vec::new();
        let mut add = |value: Json<'_>| {
            let mut key = Vec::new();
            encode(value, Direction::Ascending, &mut key);
            if let Err(error) = self.budget.take(key.len() + KEY_BYTES, self.at) {
                return ControlFlow::Break(error);
            }
            keys.push(key.into_boxed_slice());
            ControlFlow::Continue(())
        };
        let flow = self.lookup.local.visit_row(row, PathLeaf::Whole, &mut |value| match value {
            Some(array) if array.kind() == Kind::Array => array.items().try_for_each(&mut add),
            Some(value) => add(value),
            None => ControlFlow::Continue(()),
        });
        if let ControlFlow::Break(error) = flow {
            return Err(error);
        }
        if keys.is_empty() {
            let mut key = Vec::new();
            encode(Json::NULL, Direction::Ascending, &mut key);
            self.budget.take(key.len() + KEY_BYTES, self.at)?;
            keys.push(key.into_boxed_slice());
        }
        Ok(keys)
    }
}

impl Process for Joining<'_> {
    fn push(&mut self, row: Row<'_>, out: Sink<'_>) -> Flow {
        self.budget.check()?;
        let waits = Waiting { keys: self.keys(row)?, text: whole(row).into() };
        self.budget.take(size_of::<Waiting>() + waits.text.len(), self.at)?;
        self.bytes += waits.bytes();
        self.waiting.push(waits);
        if self.waiting.len() < LOOKUP_ROWS_MAX && self.bytes < LOOKUP_BYTES {
            return Ok(ControlFlow::Continue(()));
        }
        self.flush(out)
    }

    fn finish(&mut self, out: Sink<'_>) -> Flow {
        self.flush(out)
    }
}
