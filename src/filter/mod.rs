//! Filters: which documents a query is about, in MongoDB's language.
//!
//! A filter is read once, into a tree of conditions, and tried on rows whose JSON stays where it lies. MongoDB's manual
//! ("Query and Projection Operators") is the reference for every meaning; what differs on purpose:
//!
//! - Objects are equal when they have the same fields, in whatever order those were written.
//! - Kinds of numbers for `$type`: `int` was written without fraction and exponent and fits 32 bits, `long` is any
//!   other such number up to 64 bits, signed or not, `double` is the rest. JSON has no dates, object ids, binaries and
//!   decimals: filters with `{"$date": ..}` and the like are refused, and say how such values are stored.
//! - `$regex` is the language of the crate `regex`: linear in time, without references back and looking around; `$` is
//!   the end of the text, not the place before a last line break.
//! - `$elemMatch` with conditions on fields looks at the objects in an array, not at arrays in it.
//! - An `$expr` that cannot be computed for a document counts as false there, where MongoDB fails the query: one odd
//!   document, which any peer may have written, must not make all others unreadable.
//! - `$near`, `$within` and `$text` are this project's own; `$near` and `$text` stand at the top level or in a top-level
//!   `$and`, once each.
//!
//! Files:
//!
//! - `condition` the tree, which the planner reads too
//! - `parse`, `operator` from JSON, with bounds and with errors that say where
//! - `matching` trying it on a row: plain comparisons allocate nothing
//! - `canonical` back to JSON: one form for filters that were written alike
//! - `pull` the same engine on the elements of a list
//! - `regex`, `text`, [`geo`] what the larger operators need
//! - [`expression`] values computed from a document: `$expr`, and pipelines
//!
//! Which documents are tried, in which order and with which index is decided elsewhere.

mod canonical;
mod condition;
pub mod expression;
mod fault;
pub mod geo;
mod matching;
mod operator;
mod parse;
mod pull;
mod regex;
mod text;

#[cfg(test)]
mod tests;

pub use condition::{Comparison, Condition, Element, Operand, Test, Type};
pub use expression::Expression;
pub use pull::Pull;
pub use regex::Regex;
pub use text::{TextSearch, tokens};

use crate::Result;
use crate::value::{Path, Row};
use geo::Near;

/// Which rows a query is about.
#[derive(Debug, Clone)]
pub struct Filter {
    /// What must hold. Conditions that must hold together are in the order in which they are best tried.
    pub condition: Condition,
}

impl Filter {
    /// Reads a filter such as `{"age": {"$gte": 18}, "city": "Rome"}`; `{}` is about everything.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) with the place in the filter as its field: an unknown operator, an operand of
    /// the wrong kind, a filter beyond the limits.
    pub fn parse(filter: &serde_json::Value) -> Result<Self> {
        Ok(Self { condition: parse::filter(filter)? })
    }

    /// Whether a row is among those that the filter is about.
    #[must_use]
    pub fn matches(&self, row: Row<'_>) -> bool {
        matching::row(&self.condition, row)
    }

    /// Whether it is about every row.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(&self.condition, Condition::All(all) if all.is_empty())
    }

    /// The paths that it reads, sorted, each once; `None` when it may look at a whole document, for words or an
    /// expression.
    #[must_use]
    pub fn paths(&self) -> Option<Vec<&Path>> {
        let mut paths = Vec::new();
        let known = self.condition.collect_paths(&mut paths);
        paths.sort_unstable();
        paths.dedup();
        known.then_some(paths)
    }

    /// The point that the rows are near to, and the path of what is: the order that they have when none is asked for.
    #[must_use]
    pub fn near(&self) -> Option<(&Path, &Near)> {
        self.condition.together().iter().find_map(|condition| {
            if let Condition::Field { path, test: Test::Near(near) } = condition { Some((path, near)) } else { None }
        })
    }

    /// The words that the rows are searched for.
    #[must_use]
    pub fn text(&self) -> Option<&TextSearch> {
        self.condition
            .together()
            .iter()
            .find_map(|condition| if let Condition::Text(search) = condition { Some(search) } else { None })
    }

    /// Has words searched for in these fields only: those that a text index names. The canonical form stays.
    #[must_use]
    pub fn with_text_fields(mut self, fields: &[Path]) -> Self {
        self.condition.set_text_fields(fields);
        self
    }

    /// The canonical form: implicit equality and nesting that means nothing are gone. Reads as the same filter.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        canonical::condition(&self.condition)
    }
}

impl Default for Filter {
    /// The filter about everything.
    fn default() -> Self {
        Self { condition: Condition::All(Vec::new()) }
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_json().fmt(f)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

impl Eq for Filter {}

impl std::hash::Hash for Filter {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.to_string().hash(state);
    }
}
