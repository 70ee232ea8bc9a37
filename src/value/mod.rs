//! JSON values where they lie: read in place, put in order, made into keys, found by their paths.
//!
//! Views are JSON text that this peer wrote, with sorted keys and without spaces. Queries and indexes look at a few
//! fields of each, so nothing is parsed as a whole: a [`Json`] is a slice of the text, and reading a field skips what
//! is before it.
//!
//! - `json` the slice: kinds, fields, items, numbers, strings
//! - `order` MongoDB's comparison order over all kinds
//! - `key` byte strings in that order, for indexes
//! - `path` dotted paths, which look into arrays as MongoDB's do
//! - `pattern` several paths with directions: an order
//! - `sort_key` where a document stands in such an order
//!
//! What a filter or an index makes of them is not decided here.

mod json;
mod key;
mod order;
mod path;
mod pattern;
mod sort_key;

pub use json::{Fields, Items, Json, Kind, Number};
pub use key::{Direction, encode, encode_missing, encode_undefined, kind_keys, string_prefix, successor, turned};
pub use order::compare;
pub use path::{CONFLICTS_FIELD, ID_FIELD, Leaf, Path, Row};
pub use pattern::Pattern;
pub use sort_key::sort_key;
