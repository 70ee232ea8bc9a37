//! `$group`, and `$bucket`, which is a `$group` by ranges.
//!
//! Rows are grouped by the canonical bytes of their key, so that 1 and 1.0 are one, and nothing of a row is parsed but
//! the fields that are asked for.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::super::{Budget, fault, row, shape::put_key};
use super::accumulator::{Accumulator, State};
use super::{Flow, Process, Sink};
use crate::Result;
use crate::filter::Expression;
use crate::limits::DOCUMENT_VIEW_BYTES_MAX;
use crate::value::{Direction, ID_FIELD, Json, Row, encode};

/// Which groups are made, and what is added up in each.
#[derive(Debug, Clone)]
pub(super) struct Grouping {
    pub(super) by: Expression,
    pub(super) buckets: Option<Buckets>,
    /// Sorted by their names; not `_id`.
    pub(super) fields: Vec<(String, Accumulator, Expression)>,
}

/// Ranges of values that are one group each.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    /// The text and the key of where each begins; the last one is where the last range ends.
    pub(super) boundaries: Vec<(Vec<u8>, Vec<u8>)>,
    /// The text of the group of what is in no range.
    pub(super) rest: Option<Vec<u8>>,
}

impl Grouping {
    pub(super) fn height(&self) -> usize {
        let fields = self.fields.iter().map(|(_, _, expression)| expression.height() + 2).max().unwrap_or(0);
        fields.max(self.by.height() + 1)
    }
}

impl Buckets {
    /// The text of the group of a value.
    fn find(&self, key: &[u8], at: &str) -> Result<&[u8]> {
        let behind = self.boundaries.partition_point(|(_, boundary)| boundary.as_slice() <= key);
        if behind > 0 && behind < self.boundaries.len() {
            return Ok(&self.boundaries[behind - 1].0);
        }
        let message = "a document is in no bucket; name a \"default\" for such";
        self.rest.as_deref().ok_or_else(|| fault(at, message))
    }
}

/// Bytes that a group takes besides its key and what it holds.
const GROUP_BYTES: usize = 160;

pub(super) struct Groups<'q> {
    grouping: &'q Grouping,
    budget: &'q Budget,
    at: &'q str,
    /// The number of the group of a key.
    numbers: HashMap<Box<[u8]>, usize>,
    groups: Vec<Group>,
    key: Vec<u8>,
    scratch: Vec<u8>,
}

struct Group {
    /// The text of `_id`.
    id: Box<[u8]>,
    states: Vec<State>,
}

impl<'q> Groups<'q> {
    pub(super) fn new(grouping: &'q Grouping, budget: &'q Budget, at: &'q str) -> Self {
        let (numbers, groups) = (HashMap::new(), Vec::new());
        Self { grouping, budget, at, numbers, groups, key: Vec::new(), scratch: Vec::new() }
    }

    /// The number of the group of a row.
    fn find(&mut self, row: Row<'_>) -> Result<usize> {
        let by = self.grouping.by.evaluate(row)?;
        // What is missing is null.
        let mut id = by.as_deref().unwrap_or(b"null");
        self.key.clear();
        encode(Json::new(id), Direction::Ascending, &mut self.key);
        if let Some(buckets) = &self.grouping.buckets {
            id = buckets.find(&self.key, self.at)?;
            self.key.clear();
            encode(Json::new(id), Direction::Ascending, &mut self.key);
        }
        if let Some(number) = self.numbers.get(self.key.as_slice()) {
            return Ok(*number);
        }
        let states = self.grouping.fields.iter().map(|(_, accumulator, _)| State::new(*accumulator));
        let states = states.collect::<Vec<_>>();
        let bytes = id.len() + self.key.len() + GROUP_BYTES + states.len() * size_of::<State>();
        self.budget.take(bytes, self.at)?;
        self.numbers.insert(self.key.as_slice().into(), self.groups.len());
        self.groups.push(Group { id: id.into(), states });
        Ok(self.groups.len() - 1)
    }

    fn text(&self, group: &Group) -> Result<Vec<u8>> {
        let mut out = vec![b'{'];
        let mut field = |key: &str, text: &[u8]| {
            if out.len() > 1 {
                out.push(b',');
            }
            put_key(key, &mut out);
            out.extend_from_slice(text);
            if out.len() > DOCUMENT_VIEW_BYTES_MAX {
                let message =
                    format!("the document of a group has more than {DOCUMENT_VIEW_BYTES_MAX} bytes; add up less in it");
                return Err(fault(self.at, message));
            }
            Ok(())
        };
        let mut id = Some(&group.id);
        for ((name, _, _), state) in self.grouping.fields.iter().zip(&group.states) {
            if name.as_str() > ID_FIELD
                && let Some(id) = id.take()
            {
                field(ID_FIELD, id)?;
            }
            field(name, &state.text())?;
        }
        if let Some(id) = id {
            field(ID_FIELD, id)?;
        }
        out.push(b'}');
        Ok(out)
    }
}

impl Process for Groups<'_> {
    fn push(&mut self, row: Row<'_>, _out: Sink<'_>) -> Flow {
        self.budget.check()?;
        let number = self.find(row)?;
        for (state, (_, _, expression)) in self.groups[number].states.iter_mut().zip(&self.grouping.fields) {
            state.add(expression.evaluate(row)?, &mut self.scratch, self.budget, self.at)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn finish(&mut self, out: Sink<'_>) -> Flow {
        let mut numbers = (0..self.groups.len()).collect::<Vec<_>>();
        if self.grouping.buckets.is_some() {
            let mut keys = std::mem::take(&mut self.numbers).into_iter().collect::<Vec<_>>();
            keys.sort_unstable();
            numbers = keys.into_iter().map(|(_, number)| number).collect();
        }
        for number in numbers {
            let text = self.text(&self.groups[number])?;
            self.budget.work(text.len())?;
            if out(row(&text))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
