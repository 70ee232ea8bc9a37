//! How a journal works: when a flush returns, who moves what is in it, and how much of it there is.

use crate::limits;

/// When a flush returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the writes are on the disk: they survive a power loss.
    Durable,
    /// When the system has the writes: they survive the end of the process, and a power loss takes those of the last
    /// [`limits::BUFFERED_SYNC_MS`] at most. (Without a thread, those since the last checkpoint.)
    Buffered,
}

/// Who moves full memtables into the inner store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoints {
    /// A thread of the store's own.
    Background,
    /// Whoever calls `apply` at that moment: no threads, so that a run depends on its inputs alone.
    Inline,
}

/// How a journal works.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// When a flush returns.
    pub durability: Durability,
    /// Who moves full memtables.
    pub checkpoints: Checkpoints,
    /// Bytes of one segment with its memtable, about; at most two such amounts are held in memory.
    pub segment_bytes: usize,
    /// Starts the checksums of records. Unpredictable in production, so that no value can pass for a record.
    pub salt: u32,
}

impl JournalConfig {
    /// Durable, in the background, with segments of [`limits::JOURNAL_SEGMENT_BYTES`].
    #[must_use]
    pub fn new(salt: u32) -> Self {
        Self {
            durability: Durability::Durable,
            checkpoints: Checkpoints::Background,
            segment_bytes: limits::JOURNAL_SEGMENT_BYTES,
            salt,
        }
    }
}
