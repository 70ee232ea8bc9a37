//! The order of rows.
//!
//! A row has one key of bytes for the whole order, so that rows are compared without a look at them. Where a row stands
//! on account of its arrays is said where keys are made ([`sort_key`]).
//!
//! JSON objects are read here with their keys sorted, so the order in which several keys were written is not known: an
//! object has one key, and several are a list of such objects, or a text such as `"city,-age"`.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use serde_json::Value;

use super::{Budget, fault, row};
use crate::Result;
use crate::filter::expression::whole;
use crate::value::{Direction, Path, Pattern, Row, sort_key};

/// By which fields rows are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sort {
    keys: Vec<(Path, Direction)>,
}

impl Sort {
    /// Reads `{"age": -1}`, `[{"city": 1}, {"age": -1}]`, or `"city,-age"`; `at` is its place in the request.
    ///
    /// # Errors
    /// As [`Pattern::parse`].
    pub fn parse(value: &Value, at: &str) -> Result<Self> {
        let pattern = Pattern::parse(value).map_err(|error| fault(at, error))?;
        Ok(Self { keys: pattern.fields().to_vec() })
    }

    /// The order by one field.
    #[must_use]
    pub fn by(path: Path, direction: Direction) -> Self {
        Self { keys: vec![(path, direction)] }
    }

    /// This order, and where rows are the same in it, another one; nothing changes when its path is in this one.
    #[must_use]
    pub fn then(mut self, path: Path, direction: Direction) -> Self {
        if !self.keys.iter().any(|(own, _)| *own == path) {
            self.keys.push((path, direction));
        }
        self
    }

    /// Its fields, the one that decides first.
    #[must_use]
    pub fn keys(&self) -> &[(Path, Direction)] {
        &self.keys
    }

    /// Appends the key of a row: keys compare as their rows are sorted.
    pub fn key(&self, row: Row<'_>, key: &mut Vec<u8>) {
        sort_key(&self.keys, row, key);
    }
}

impl std::fmt::Display for Sort {
    /// As the text that [`Sort::parse`] reads.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (path, direction)) in self.keys.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let sign = if *direction == Direction::Descending { "-" } else { "" };
            write!(f, "{comma}{sign}{path}")?;
        }
        Ok(())
    }
}

/// Rows that are being sorted: all of them, or the first few only. Rows with one key stay in the order they came in.
#[derive(Debug)]
pub struct Sorter<'q> {
    sort: &'q Sort,
    /// How many rows are wanted.
    first: Option<usize>,
    budget: &'q Budget,
    stage: &'q str,
    rows: Rows,
    count: u64,
    key: Vec<u8>,
}

#[derive(Debug)]
enum Rows {
    All(Vec<Held>),
    /// The last of them on top.
    First(BinaryHeap<Held>),
}

/// A row that is held, ordered by its key and when it came.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    key: Box<[u8]>,
    number: u64,
    text: Box<[u8]>,
}

impl Held {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.text.len()
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'q> Sorter<'q> {
    /// Of all rows, or of the first few; `stage` is the place in the request, for errors.
    #[must_use]
    pub fn new(sort: &'q Sort, first: Option<usize>, budget: &'q Budget, stage: &'q str) -> Self {
        let rows = if first.is_some() { Rows::First(BinaryHeap::new()) } else { Rows::All(Vec::new()) };
        Self { sort, first, budget, stage, rows, count: 0, key: Vec::new() }
    }

    /// Takes a row in.
    ///
    /// # Errors
    /// When the budget does not allow it.
    pub fn push(&mut self, row: Row<'_>) -> Result<()> {
        self.budget.check()?;
        self.key.clear();
        self.sort.key(row, &mut self.key);
        if let (Rows::First(heap), Some(first)) = (&mut self.rows, self.first)
            && heap.len() >= first
        {
            // What comes later goes behind those with the same key.
            if heap.peek().is_none_or(|last| self.key.as_slice() >= &*last.key) {
                return Ok(());
            }
            if let Some(last) = heap.pop() {
                self.budget.give_back(last.bytes());
            }
        }
        let held = Held { key: self.key.as_slice().into(), number: self.count, text: whole(row).into() };
        self.count += 1;
        self.budget.take(held.bytes(), self.stage)?;
        match &mut self.rows {
            Rows::All(rows) => rows.push(held),
            Rows::First(heap) => heap.push(held),
        }
        Ok(())
    }

    /// Hands the rows over in their order, until it breaks.
    ///
    /// # Errors
    /// As `out`, and when the budget does not allow it.
    pub fn finish(&mut self, out: &mut dyn FnMut(Row<'_>) -> Result<ControlFlow<()>>) -> Result<ControlFlow<()>> {
        let rows = match std::mem::replace(&mut self.rows, Rows::All(Vec::new())) {
            Rows::All(mut rows) => {
                rows.sort_unstable();
                rows
            }
            Rows::First(heap) => heap.into_sorted_vec(),
        };
        let mut flow = ControlFlow::Continue(());
        for held in rows {
            self.budget.check()?;
            self.budget.give_back(held.bytes());
            if flow.is_continue() {
                flow = out(row(&held.text))?;
            }
        }
        Ok(flow)
    }
}

#[cfg(test)]
pub(super) mod tests;
