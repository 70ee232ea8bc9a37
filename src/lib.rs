//! aerolithsDB: a peer-to-peer mesh database of JSON documents.

pub mod base;
mod error;
pub mod kv;
pub mod limits;

pub use error::{Error, Invalid, InvalidKind, Result};
