//! Ordered keys and values on a disk: the one seam between the database and its storage.
//!
//! The trait is synchronous and small on purpose. Everything above it (documents, logs, summaries) is
//! made of batches that are applied as a whole and become durable with the next flush.
//!
//! What a peer runs on is [`Disk`], made by [`open`]: a commit journal ([`Journaled`] over
//! [`FolderMedium`]) in front of sled ([`SledKv`]). Tests and simulations use [`MemoryKv`] and
//! [`faulty`]. To read the code, go from `memory` to `sled`, `table`, `medium`, `journal`, `memtable`, `journaled`,
//! `disk`; what is done about a damaged table is in `mend`, `leaves` and `keepsake`. Keys and values are opaque here: no layout, no encryption, no compression beyond sled's own.

mod config;
mod disk;
mod entry;
mod error;
pub mod faulty;
mod journal;
mod journaled;
mod keepsake;
mod leaves;
mod medium;
mod memory;
mod memtable;
mod mend;
mod recovery;
mod sled;
mod table;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod rot;
#[cfg(test)]
mod survival;

pub use config::{Checkpoints, Durability, JournalConfig};
pub use disk::{Disk, StorageConfig, open};
pub use error::Error;
pub use journal::Damage;
pub use journaled::Journaled;
pub use keepsake::Precious;
pub use medium::{FolderMedium, Medium};
pub use memory::MemoryKv;
pub use mend::Lost;
pub use table::{SledConfig, SledKv};

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

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

    /// The writes in order, taken out of the batch.
    #[must_use]
    pub fn into_writes(self) -> Vec<(Bytes, Option<Bytes>)> {
        self.writes
    }

    /// Whether there is nothing to apply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

/// Whether a store can be read as a whole.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Condition {
    /// How many pages of a damaged table are through, and how many there are, while it is built anew. Then nothing is
    /// written, and reads of what is damaged fail with [`Error::Unreadable`].
    pub mending: Option<(u64, u64)>,
    /// How often a table was built anew since the store was opened: after each time [`Lost`] says what is missing.
    pub mended: u64,
    /// Where the damaged table was put.
    pub aside: Option<PathBuf>,
}

/// How often something was found in a cache since the start, and how often not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CacheUse {
    /// Times that it was there.
    pub hits: u64,
    /// Times that it had to be read.
    pub misses: u64,
}

impl CacheUse {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { hits: self.hits + other.hits, misses: self.misses + other.misses }
    }
}

/// What a scan calls with each pair, key first, until it breaks.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered map from byte strings to byte strings.
///
/// - `apply` makes a batch visible to every reader, atomically.
/// - `flush` makes everything that was applied before it durable, in the order of application: after a
///   crash a prefix of the applied batches is there, and it holds at least everything flushed.
/// - After an error of `apply` or `flush` the store is poisoned: both fail until it is opened again.
///   Reads go on. The one exception is [`Error::TooLarge`], which refuses a batch and changes nothing.
pub trait Kv: Send + Sync {
    /// The value under a key.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Visits the pairs with `from <= key < to` in ascending order of their keys, until `visit` breaks.
    /// It sees each batch as a whole or not at all only within one key; writers may interleave. `visit`
    /// runs outside every lock of the store, and may use the store. A value that is damaged, which [`Kv::get`]
    /// refuses, is visited as an empty one: it must not hide those behind it.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error>;

    /// Applies a batch.
    ///
    /// # Errors
    /// When the store is poisoned or the medium refuses; nothing of the batch is then visible.
    fn apply(&self, batch: Batch) -> Result<(), Error>;

    /// Whether a batch would be accepted now: the store is not poisoned, and its disk not full.
    ///
    /// # Errors
    /// Why not.
    fn check(&self) -> Result<(), Error>;

    /// Makes what was applied durable.
    ///
    /// # Errors
    /// When the store is poisoned or the medium refuses; what was applied since the last flush may be lost.
    fn flush(&self) -> Result<(), Error>;

    /// Bytes taken on the medium, about.
    fn size_bytes(&self) -> u64;

    /// How its cache does; nothing when it has none.
    fn cache(&self) -> CacheUse;

    /// Whether it can be read as a whole. One that is never damaged can.
    fn condition(&self) -> Condition {
        Condition::default()
    }

    /// Builds anew what was found damaged, for as long as `go_on` holds; does nothing when all is well.
    ///
    /// # Errors
    /// When that does not succeed: the store is poisoned.
    fn mend(&self, go_on: &(dyn Fn() -> bool + Sync)) -> Result<(), Error> {
        let _ = go_on;
        Ok(())
    }
}

impl<K: Kv + ?Sized> Kv for Arc<K> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        (**self).get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        (**self).scan(from, to, visit)
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        (**self).apply(batch)
    }

    fn check(&self) -> Result<(), Error> {
        (**self).check()
    }

    fn flush(&self) -> Result<(), Error> {
        (**self).flush()
    }

    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn cache(&self) -> CacheUse {
        (**self).cache()
    }

    fn condition(&self) -> Condition {
        (**self).condition()
    }

    fn mend(&self, go_on: &(dyn Fn() -> bool + Sync)) -> Result<(), Error> {
        (**self).mend(go_on)
    }
}
