//! Ordered keys and values on a disk: the one seam between the database and its storage.
//!
//! The trait is synchronous and small on purpose. Everything above it (documents, logs, summaries) is
//! made of batches that are applied as a whole and become durable with the next flush.

mod error;

pub use error::Error;

use std::ops::ControlFlow;

use bytes::Bytes;

/// Writes that are applied as a whole or not at all, in order: of two writes to one key the later one stands.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    writes: Vec<(Bytes, Option<Bytes>)>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.push((key.into(), Some(value.into())));
    }

    /// Removes a key; nothing happens when it is not there.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.writes.push((key.into(), None));
    }

    /// The writes in order; `None` removes.
    #[must_use]
    pub fn writes(&self) -> &[(Bytes, Option<Bytes>)] {
        &self.writes
    }

    /// Whether there is nothing to apply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// An ordered map from byte strings to byte strings.
///
/// - `apply` makes a batch visible to every reader, atomically.
/// - `flush` makes everything that was applied before it durable, in the order of application: after a
///   crash a prefix of the applied batches is there, and it holds at least everything flushed.
/// - After an error of `apply` or `flush` the store is poisoned: both fail until it is opened again.
///   Reads go on.
pub trait Kv: Send + Sync {
    /// The value under a key.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Visits the pairs with `from <= key < to` in ascending order of their keys, until `visit` breaks.
    /// It sees each batch as a whole or not at all only within one key; writers may interleave.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>)
    -> Result<(), Error>;

    /// Applies a batch.
    ///
    /// # Errors
    /// When the store is poisoned or the medium refuses; nothing of the batch is then visible.
    fn apply(&self, batch: Batch) -> Result<(), Error>;

    /// Makes what was applied durable.
    ///
    /// # Errors
    /// When the store is poisoned or the medium refuses; what was applied since the last flush may be lost.
    fn flush(&self) -> Result<(), Error>;

    /// Bytes taken on the medium, about.
    fn size_bytes(&self) -> u64;
}
