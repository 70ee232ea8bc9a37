//! What the parts of a peer may hold in memory: one number, `storage.cache_size_bytes`, from which every share follows.
//!
//! Caches, the journal's tables, open documents and queries grow and shrink together with it, so that a small machine is
//! kept within by one setting. The shares are what the parts may take at most, about, not what they take. Not here: what
//! a network connection and a small request hold, which their own bounds in [`crate::limits`] keep, and the index of the table,
//! some 40 bytes a document, which grows with the data.

use crate::limits::{
    AGGREGATE_BYTES_MAX, DOCUMENT_BYTES_MAX, GATEWAY_ANSWERS_BYTES_MAX, GATEWAY_BODIES_BYTES_MAX,
    JOURNAL_SEGMENT_BYTES, LIVE_BYTES_MAX, LIVE_WAITING_BYTES_MAX, OPEN_DOCUMENTS_MAX, QUERIES_MAX,
};

/// Bytes of the table's cache unless another number is set.
pub const CACHE_BYTES_DEFAULT: usize = 32 << 20;
/// Bytes of a journal segment at least: below that the table would be flushed all the time.
const SEGMENT_BYTES_MIN: usize = 1 << 20;
/// Bytes that a document takes which is kept open, about.
const OPEN_DOCUMENT_BYTES: usize = 32 << 10;
/// Bytes on the way in or out at least: two of the largest documents.
const ON_THE_WAY_BYTES_MIN: usize = 2 * DOCUMENT_BYTES_MAX;
/// Bytes of cache for each query that may run at a time.
const CACHE_BYTES_PER_QUERY: usize = 4 << 20;

/// The shares of a peer's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    cache_bytes: usize,
}

impl Default for Memory {
    /// That of [`CACHE_BYTES_DEFAULT`].
    fn default() -> Self {
        Self::new(CACHE_BYTES_DEFAULT)
    }
}

impl Memory {
    /// The shares that go with a cache of so many bytes.
    #[must_use]
    pub const fn new(cache_bytes: usize) -> Self {
        Self { cache_bytes }
    }

    /// Bytes of leaves of the table that were read, and are kept for the next reading.
    #[must_use]
    pub fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Bytes of leaves of the table that were written and cannot be let go of before the table is opened anew.
    #[must_use]
    pub fn written_bytes(&self) -> usize {
        self.cache_bytes.saturating_mul(2)
    }

    /// Bytes of a segment of the journal with its table in memory; there are two at most.
    #[must_use]
    pub fn segment_bytes(&self) -> usize {
        (self.cache_bytes / 2).clamp(SEGMENT_BYTES_MIN, JOURNAL_SEGMENT_BYTES)
    }

    /// Documents that are kept open for editing and merging.
    #[must_use]
    pub fn open_documents(&self) -> usize {
        (self.cache_bytes / 4 / OPEN_DOCUMENT_BYTES).clamp(1, OPEN_DOCUMENTS_MAX)
    }

    /// Bytes of rows that one query holds.
    #[must_use]
    pub fn query_bytes(&self) -> usize {
        self.cache_bytes.saturating_mul(2).min(AGGREGATE_BYTES_MAX)
    }

    /// Queries that run at a time.
    #[must_use]
    pub fn queries(&self) -> usize {
        (self.cache_bytes / CACHE_BYTES_PER_QUERY).clamp(1, QUERIES_MAX)
    }

    /// Bytes of the results that live queries keep.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        self.cache_bytes.saturating_mul(2).min(LIVE_BYTES_MAX)
    }

    /// Bytes of changes that wait for the readers of live queries.
    #[must_use]
    pub fn live_waiting_bytes(&self) -> usize {
        (self.cache_bytes / 4).min(LIVE_WAITING_BYTES_MAX)
    }

    /// Bytes of answers that are on their way to clients of the gateway.
    #[must_use]
    pub fn answers_bytes(&self) -> usize {
        self.cache_bytes.clamp(ON_THE_WAY_BYTES_MIN, GATEWAY_ANSWERS_BYTES_MAX)
    }

    /// Bytes of bodies that are on their way from clients of the gateway.
    #[must_use]
    pub fn bodies_bytes(&self) -> usize {
        (self.cache_bytes / 4).clamp(ON_THE_WAY_BYTES_MIN, GATEWAY_BODIES_BYTES_MAX)
    }

    /// Bytes of all shares together.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        let shares = [
            self.cache_bytes(),
            self.written_bytes(),
            2 * self.segment_bytes(),
            self.open_documents() * OPEN_DOCUMENT_BYTES,
            self.queries() * self.query_bytes(),
            self.live_bytes(),
            self.live_waiting_bytes(),
            self.answers_bytes(),
            self.bodies_bytes(),
        ];
        shares.into_iter().fold(0, usize::saturating_add)
    }
}

/// Bytes of this process that are in memory now, the program itself included; `None` where the system does not say.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_cache_up_to_their_bounds() {
        let usual = Memory::default();
        assert_eq!(usual.segment_bytes(), JOURNAL_SEGMENT_BYTES);
        assert_eq!((usual.open_documents(), usual.queries()), (OPEN_DOCUMENTS_MAX, QUERIES_MAX));
        assert_eq!(usual.query_bytes(), AGGREGATE_BYTES_MAX);
        let large = Memory::new(1 << 40);
        assert_eq!((large.segment_bytes(), large.query_bytes()), (usual.segment_bytes(), usual.query_bytes()));
        let small = Memory::new(8 << 20);
        assert_eq!((small.segment_bytes(), small.open_documents(), small.queries()), (4 << 20, 64, 2));
        assert!(small.total_bytes() <= 94 << 20, "{}", small.total_bytes());
        let none = Memory::new(0);
        assert_eq!((none.segment_bytes(), none.open_documents(), none.queries()), (SEGMENT_BYTES_MIN, 1, 1));
    }
}
