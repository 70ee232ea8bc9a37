//! Aggregation: documents run through a pipeline of stages, after MongoDB's.
//!
//! A pipeline is a list of stages, each an object with one key: `$match`, `$project`, `$addFields` (also `$set`),
//! `$unset`, `$replaceRoot` (also `$replaceWith`), `$limit`, `$skip`, `$sort`, `$count`, `$group`, `$bucket`,
//! `$sortByCount`, `$unwind`, `$lookup`, `$facet`.
//!
//! Rows are pushed through the stages one by one: what can work on a row at a time holds nothing, `$limit` ends the walk
//! through the collection, `$sort` before a `$limit` holds no more than will be let through. What stages hold is
//! counted in bytes against the budget of the query, and so is time; levels of nesting that stages can add are counted
//! when the pipeline is read.
//!
//! Where we differ from MongoDB:
//!
//! - The order of several `$sort` keys is a list or a text ([`Sort`]).
//! - Groups come in the order in which their first documents came.
//! - `$lookup` has the form with `localField` and `foreignField` only, and reads collections of this peer.
//! - There are no variables, and none of `$sample`, `$out`, `$merge`, `$graphLookup`, `$setWindowFields`.
//! - Integers add up exactly; a sum that 64 bits do not hold becomes a double, as does an average with a rest.
//!
//! Files: `parse` the stages as they are written; `stream` those that work on a row at a time; `group`, `accumulator`,
//! `unwind`, `lookup`, `facet` the larger ones.
//!
//! Source: MongoDB manual, "Aggregation Stages".

mod accumulator;
mod facet;
mod group;
mod lookup;
mod parse;
mod stream;
#[cfg(test)]
mod tests;
mod unwind;

use std::ops::ControlFlow;

use serde_json::Value;

use super::{Budget, Flow, Projection, Sort};
use crate::Result;
use crate::filter::{Expression, Filter};
use crate::value::{Path, Row};
use group::Grouping;
use lookup::Lookup;
use unwind::Unwind;

/// Takes rows one by one, and says whether more are wanted.
pub type Sink<'s> = &'s mut dyn FnMut(Row<'_>) -> Flow;

/// The other collections that a pipeline reads.
pub trait Sources {
    /// Hands over the documents of a collection, sorted by their ids, until `sink` breaks.
    ///
    /// # Errors
    /// When there is no such collection, when it may not be read, and as `sink`.
    fn scan(&self, collection: &str, sink: Sink<'_>) -> Result<()>;
}

/// A pipeline as it was asked for.
#[derive(Debug, Clone)]
pub struct Pipeline {
    stages: Vec<Step>,
}

/// A stage, and its place in the request.
#[derive(Debug, Clone)]
struct Step {
    stage: Stage,
    at: String,
}

#[derive(Debug, Clone)]
enum Stage {
    Match(Filter),
    /// `$project`, `$addFields`, `$unset`.
    Reshape(Projection),
    ReplaceRoot(Expression),
    Limit(u64),
    Skip(u64),
    Sort {
        sort: Sort,
        /// Rows that are let through by the stages right behind it.
        first: Option<usize>,
    },
    /// The number of rows, as the field whose key this is.
    Count(String),
    Group(Grouping),
    Unwind(Unwind),
    Lookup(Lookup),
    /// Pipelines by the keys of their fields, sorted.
    Facet(Vec<(String, Pipeline)>),
}

/// A stage that rows are running through.
trait Process {
    /// Takes a row. Once it breaks it takes no more.
    fn push(&mut self, row: Row<'_>, out: Sink<'_>) -> Flow;

    /// Hands over what it holds when no more rows come.
    fn finish(&mut self, _out: Sink<'_>) -> Flow {
        Ok(ControlFlow::Continue(()))
    }
}

/// A pipeline that rows are running through.
#[expect(missing_debug_implementations, reason = "its stages are known by what they do only")]
pub struct Run<'q> {
    stages: Vec<Box<dyn Process + 'q>>,
    budget: &'q Budget,
    has_ended: bool,
}

impl Pipeline {
    /// Reads a pipeline: a list of stages.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) with the place as its field, such as `1.$group.total.$sum`.
    pub fn parse(value: &Value) -> Result<Self> {
        parse::pipeline(value)
    }

    /// The filter of a leading `$match`: no more than the documents that it is about need to be pushed.
    #[must_use]
    pub fn filter(&self) -> Option<&Filter> {
        match &self.stages.first()?.stage {
            Stage::Match(filter) => Some(filter),
            Stage::Reshape(_)
            | Stage::ReplaceRoot(_)
            | Stage::Limit(_)
            | Stage::Skip(_)
            | Stage::Sort { .. }
            | Stage::Count(_)
            | Stage::Group(_)
            | Stage::Unwind(_)
            | Stage::Lookup(_)
            | Stage::Facet(_) => None,
        }
    }

    /// The other collections that it reads, each perhaps several times.
    #[must_use]
    pub fn collections(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for step in &self.stages {
            if let Stage::Lookup(lookup) = &step.stage {
                names.push(lookup.from());
            }
            if let Stage::Facet(facets) = &step.stage {
                names.extend(facets.iter().flat_map(|(_, pipeline)| pipeline.collections()));
            }
        }
        names
    }

    /// Makes it ready for rows.
    #[must_use]
    pub fn start<'q>(&'q self, sources: &'q dyn Sources, budget: &'q Budget) -> Run<'q> {
        let stages = self.stages.iter().map(|step| step.start(sources, budget)).collect();
        Run { stages, budget, has_ended: false }
    }

    /// Levels of nesting that it may put around values of a document.
    fn height(&self) -> usize {
        self.stages.iter().map(|step| step.stage.height()).sum()
    }
}

impl Run<'_> {
    /// Pushes a row; the rows that come out of it go to `out`. Breaks when no more rows are wanted; then there is
    /// [`Run::finish`] to call.
    ///
    /// # Errors
    /// When a stage cannot work on the row, the budget is used up, and as `out`.
    pub fn push(&mut self, row: Row<'_>, out: Sink<'_>) -> Flow {
        if self.has_ended {
            return Ok(ControlFlow::Break(()));
        }
        // Stages may read all of it; what they make of it they tell by themselves.
        self.budget.work(row.body.text().len())?;
        let has_ended = &mut self.has_ended;
        push(&mut self.stages, row, &mut |row| watched(row, has_ended, out))
    }

    /// Says that no more rows come; what stages held goes to `out`.
    ///
    /// # Errors
    /// As [`Run::push`].
    pub fn finish(mut self, out: Sink<'_>) -> Result<()> {
        for index in 0..self.stages.len() {
            let has_ended = &mut self.has_ended;
            if *has_ended {
                break;
            }
            // What is behind it goes on when a stage in between wants no more.
            if let [stage, behind @ ..] = &mut self.stages[index..] {
                let _ = stage.finish(&mut |row| push(behind, row, &mut |row| watched(row, has_ended, out)))?;
            }
        }
        Ok(())
    }
}

/// Gives a row to the caller, and remembers when that wants no more.
fn watched(row: Row<'_>, has_ended: &mut bool, out: Sink<'_>) -> Flow {
    if *has_ended {
        return Ok(ControlFlow::Break(()));
    }
    let flow = out(row)?;
    *has_ended = flow.is_break();
    Ok(flow)
}

fn push(stages: &mut [Box<dyn Process + '_>], row: Row<'_>, out: Sink<'_>) -> Flow {
    match stages {
        [] => out(row),
        [stage, behind @ ..] => stage.push(row, &mut |row| push(behind, row, out)),
    }
}

impl Step {
    fn start<'q>(&'q self, sources: &'q dyn Sources, budget: &'q Budget) -> Box<dyn Process + 'q> {
        let at = self.at.as_str();
        match &self.stage {
            Stage::Match(filter) => Box::new(stream::Match { filter, budget }),
            Stage::Reshape(projection) => Box::new(stream::Reshape { projection, budget }),
            Stage::ReplaceRoot(root) => Box::new(stream::ReplaceRoot { root, budget, at }),
            Stage::Limit(limit) => Box::new(stream::Limit { left: *limit }),
            Stage::Skip(skip) => Box::new(stream::Skip { left: *skip, budget }),
            Stage::Sort { sort, first } => Box::new(stream::Sorting(super::Sorter::new(sort, *first, budget, at))),
            Stage::Count(key) => Box::new(stream::Count { key, count: 0, budget }),
            Stage::Group(grouping) => Box::new(group::Groups::new(grouping, budget, at)),
            Stage::Unwind(unwind) => Box::new(unwind::Unwinding { unwind, budget, at }),
            Stage::Lookup(lookup) => Box::new(lookup::Joining::new(lookup, sources, budget, at)),
            Stage::Facet(facets) => Box::new(facet::Facets::new(facets, sources, budget, at)),
        }
    }
}

impl Stage {
    fn height(&self) -> usize {
        match self {
            Self::Match(_) | Self::Limit(_) | Self::Skip(_) | Self::Sort { .. } | Self::Count(_) => 0,
            Self::Reshape(projection) => projection.height(),
            Self::ReplaceRoot(root) => root.height(),
            Self::Group(grouping) => grouping.height(),
            Self::Unwind(unwind) => unwind.height(),
            Self::Lookup(lookup) => lookup.height(),
            Self::Facet(facets) => 2 + facets.iter().map(|(_, pipeline)| pipeline.height()).max().unwrap_or(0),
        }
    }
}

/// A path as it is named in messages and read from a request.
fn path(text: &str, at: &str) -> Result<Path> {
    text.parse().map_err(|error: crate::Error| super::fault(at, error))
}
