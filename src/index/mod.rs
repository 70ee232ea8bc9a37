//! Indexes: what is declared, and which keys a document has in one.
//!
//! - [`Definition`] what an index is: its fields, and which documents it takes
//! - [`Keys`] the keys of one document
//! - `geo` points as keys; `text` words as keys, and [`Corpus`] how well documents fit them
//! - `expiry` which documents have expired
//!
//! An index is this peer's own: each peer indexes what its programs ask for. Keeping the entries, in the batch of the
//! change that they follow from, is the store's work; choosing among indexes is that of `query`.

mod definition;
mod expiry;
mod geo;
mod keys;
mod rank;
mod text;

pub use definition::{Definition, IndexName, Shape};
pub use geo::geo_spans;
pub use keys::Keys;
pub use rank::Corpus;
pub use text::{Posting, Words, text_key};

/// Keys from the first up to the second, which is not among them.
pub type Span = (Vec<u8>, Vec<u8>);
