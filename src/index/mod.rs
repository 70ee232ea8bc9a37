//! Indexes: what is declared, and which keys a document has in one.
//!
//! - [`Definition`] what an index is: its fields, and which documents it takes
//! - [`Keys`] the keys of one document
//!
//! An index is this peer's own: each peer indexes what its programs ask for. Keeping the entries, in the batch of the
//! change that they follow from, is the store's work; choosing among indexes is that of `query`.

mod definition;
mod keys;

pub use definition::{Definition, IndexName, Shape};
pub use keys::Keys;
