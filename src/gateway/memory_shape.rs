//! What is in memory, and what may be, as `GET /stats` shows it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::memory::Memory;
use crate::peer::Stats;

/// What is in memory, and what may be.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InMemory {
    /// Bytes of the process that are in memory, the program itself included; `null` where the system does not say.
    resident_bytes: Option<u64>,
    shares: Shares,
}

/// What the parts of the peer may take at most, about. It follows from `storage.cache_size_bytes`.
#[derive(Debug, Serialize, ToSchema)]
struct Shares {
    /// Leaves of the table that were read.
    cache_bytes: usize,
    /// Leaves of the table that were written.
    written_bytes: usize,
    /// Both segments of the journal.
    journal_bytes: usize,
    /// Documents that are kept open.
    open_documents: usize,
    /// Queries that run at a time.
    queries: usize,
    /// What each of them may hold.
    query_bytes: usize,
    /// Results that live queries keep.
    live_bytes: usize,
    /// Changes that wait for the readers of live queries.
    live_waiting_bytes: usize,
    /// Answers on their way to clients.
    answers_bytes: usize,
    /// Bodies on their way from clients.
    bodies_bytes: usize,
    /// All of it.
    total_bytes: usize,
}

impl InMemory {
    pub(super) fn new(stats: &Stats) -> Self {
        Self { resident_bytes: stats.resident_bytes, shares: stats.memory.into() }
    }
}

impl From<Memory> for Shares {
    fn from(memory: Memory) -> Self {
        Self {
            cache_bytes: memory.cache_bytes(),
            written_bytes: memory.written_bytes(),
            journal_bytes: 2 * memory.segment_bytes(),
            open_documents: memory.open_documents(),
            queries: memory.queries(),
            query_bytes: memory.query_bytes(),
            live_bytes: memory.live_bytes(),
            live_waiting_bytes: memory.live_waiting_bytes(),
            answers_bytes: memory.answers_bytes(),
            bodies_bytes: memory.bodies_bytes(),
            total_bytes: memory.total_bytes(),
        }
    }
}
