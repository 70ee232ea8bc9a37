//! The stages that work on a row at a time, and `$sort` and `$count`.

use std::ops::ControlFlow;

use super::super::{Budget, Projection, Sorter, fault, row};
use super::{Flow, Process, Sink};
use crate::filter::{Expression, Filter};
use crate::value::{Json, Kind, Row};

pub(super) struct Match<'q> {
    pub(super) filter: &'q Filter,
    pub(super) budget: &'q Budget,
}

impl Process for Match<'_> {
    fn push(&mut self, row: Row<'_>, out: Sink<'_>) -> Flow {
        self.budget.check()?;
        if self.filter.matches(row) { out(row) } else { Ok(ControlFlow::Continue(())) }
    }
}

pub(super) struct Reshape<'q> {
    pub(super) projection: &'q Projection,
    pub(super) budget: &'q Budget,
}

impl Process for Reshape<'_> {
    fn push(&mut self, before: Row<'_>, out: Sink<'_>) -> Flow {
        let text = self.projection.apply(before)?;
        self.budget.work(text.len())?;
        out(row(&text))
    }
}

pub(super) struct ReplaceRoot<'q> {
    pub(super) root: &'q Expression,
    pub(super) budget: &'q Budget,
    pub(super) at: &'q str,
}

impl Process for ReplaceRoot<'_> {
    fn push(&mut self, before: Row<'_>, out: Sink<'_>) -> Flow {
        let text = self.root.evaluate(before)?.filter(|text| Json::new(text).kind() == Kind::Object);
        let wanted = || {
            fault(self.at, "the new document is not an object for every document; a $match before it can see to that")
        };
        let text = text.ok_or_else(wanted)?;
        self.budget.work(text.len())?;
        out(row(&text))
    }
}

pub(super) struct Limit {
    pub(super) left: u64,
}

impl Process for Limit {
    fn push(&mut self, row: Row<'_>, out: Sink<'_>) -> Flow {
        if self.left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        self.left -= 1;
        let flow = out(row)?;
        Ok(if self.left == 0 { ControlFlow::Break(()) } else { flow })
    }
}

pub(super) struct Skip<'q> {
    pub(super) left: u64,
    pub(super) budget: &'q Budget,
}

impl Process for Skip<'_> {
    fn push(&mut self, row: Row<'_>, out: Sink<'_>) -> Flow {
        if self.left == 0 {
            return out(row);
        }
        self.budget.check()?;
        self.left -= 1;
        Ok(ControlFlow::Continue(()))
    }
}

pub(super) struct Sorting<'q>(pub(super) Sorter<'q>);

impl Process for Sorting<'_> {
    fn push(&mut self, row: Row<'_>, _out: Sink<'_>) -> Flow {
        self.0.push(row)?;
        Ok(ControlFlow::Continue(()))
    }

    fn finish(&mut self, out: Sink<'_>) -> Flow {
        self.0.finish(out)
    }
}

pub(super) struct Count<'q> {
    /// The text of the field's key.
    pub(super) key: &'q str,
    pub(super) count: u64,
    pub(super) budget: &'q Budget,
}

impl Process for Count<'_> {
    fn push(&mut self, _row: Row<'_>, _out: Sink<'_>) -> Flow {
        self.budget.check()?;
        self.count += 1;
        Ok(ControlFlow::Continue(()))
    }

    /// As in MongoDB there is no document when there was no row.
    fn finish(&mut self, out: Sink<'_>) -> Flow {
        if self.count == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        out(row(format!("{{{}:{}}}", self.key, self.count).as_bytes()))
    }
}
