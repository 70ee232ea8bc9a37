//! Queries over the stored views of a collection.
//!
//! - [`Find`] filter, order, limit, projection: a page of documents, and where to go on (`cursor`)
//! - [`count`], [`estimate`], [`distinct`]
//! - [`Live`] a result that is kept up to date
//! - [`aggregate`] pipelines of stages
//! - `plan` choosing among indexes, of which `bounds` says what they have for a filter; `execute` walking the plan;
//!   `explain` telling of it
//! - `budget` what one query may take
//! - `sort`, `rank`, `project` the order of rows, and what is shown of them
//! - `shape` writing a document anew with other fields
//!
//! Queries read beside the writer, as everything that reads does: no node, no network, no Automerge. An answer is
//! the same whatever the plan; where no order is asked for it is that of the ids.

pub mod aggregate;
mod bounds;
mod budget;
mod count;
mod cursor;
mod execute;
mod explain;
mod find;
mod live;
mod plan;
mod project;
mod rank;
mod shape;
mod sort;

pub use budget::Budget;
pub use count::{count, distinct, estimate};
pub use explain::Explained;
pub use find::{Find, Found};
pub use live::{Live, LiveEvent, Texts, required};
pub use project::Projection;
pub use sort::{Sort, Sorter};

use crate::base::CollectionName;
use crate::filter::Filter;
pub use crate::filter::expression::{whole, with_conflicts};
use crate::store::Reader;
use crate::value::{ID_FIELD, Json, Row};
use crate::{Error, Invalid, InvalidKind, Result};

/// The document of a text that has its `_id` in it.
#[must_use]
pub fn row(text: &[u8]) -> Row<'_> {
    let body = Json::new(text);
    Row { id: body.get(ID_FIELD), body, conflicts: 0 }
}

/// Whether more rows are wanted.
pub type Flow = Result<std::ops::ControlFlow<()>>;

/// Hands over the documents of a collection that match a filter (`None`: all), found the cheapest way, in the order of
/// their ids, until `sink` breaks.
///
/// # Errors
/// When the time of the query is over, the disk cannot be read, and as `sink`.
pub fn each(
    reader: &Reader,
    collection: &CollectionName,
    filter: Option<&Filter>,
    budget: &Budget,
    sink: &mut dyn FnMut(Row<'_>) -> Flow,
) -> Result<()> {
    let filter = &filter.map(|filter| rank::in_fields_of_index(reader, collection, filter)).unwrap_or_default();
    let planner = plan::Planner::new(reader, collection)?;
    let plans = planner.plans(filter, plan::Wanted { order: &[], first: None })?;
    let (counters, mut damaged) = (execute::Counters::default(), Vec::new());
    let mut walk = execute::Walk::new(reader, collection, filter, budget, &counters, &mut damaged);
    walk.run(&plans[0].access, false, execute::Start::default(), sink)
}

/// What is wrong at a place of the request, such as `2.$group.total`.
fn fault(at: &str, message: impl std::fmt::Display) -> Error {
    refusal(at, message, InvalidKind::Meaning)
}

/// What is beyond a limit at a place of the request.
fn too_large(at: &str, message: impl std::fmt::Display) -> Error {
    refusal(at, message, InvalidKind::TooLarge)
}

fn refusal(at: &str, message: impl std::fmt::Display, kind: InvalidKind) -> Error {
    let brief = at.chars().take(80).collect::<String>();
    let message = if at.is_empty() { message.to_string() } else { format!("{brief}: {message}") };
    let field = (!at.is_empty()).then(|| at.to_owned());
    Error::Invalid(Invalid { message, field, position: None, kind })
}

/// The place of a name or a position at another place.
fn within(at: &str, part: impl std::fmt::Display) -> String {
    if at.is_empty() { part.to_string() } else { format!("{at}.{part}") }
}

#[cfg(test)]
pub(crate) mod tests;
