//! Queries over the stored views of a collection.
//!
//! - [`aggregate`] pipelines of stages
//! - `budget` what one query may take
//! - `sort`, `project` the order of rows, and what is shown of them
//! - `shape` writing a document anew with other fields

pub mod aggregate;
mod budget;
mod project;
mod shape;
mod sort;

pub use budget::Budget;
pub use project::Projection;
pub use sort::{Sort, Sorter};

use crate::value::{ID_FIELD, Json, Row};
use crate::{Error, Invalid, InvalidKind};

/// The document of a text that has its `_id` in it.
#[must_use]
pub fn row(text: &[u8]) -> Row<'_> {
    let body = Json::new(text);
    Row { id: body.get(ID_FIELD), body }
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
