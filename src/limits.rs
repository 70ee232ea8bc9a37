//! Every bound of the system, with its unit and its reason.
//!
//! Nothing a client or a peer sends may grow beyond one of these. A limit that two peers must agree on
//! (what a valid change is) is part of the protocol: changing it needs a new protocol version.

// Documents.

/// Bytes of a collection's name: fits a file name and a topic anywhere.
pub const COLLECTION_NAME_BYTES_MAX: usize = 64;
/// Bytes of a document's id: room for a URL or a path, still cheap as a key.
pub const DOCUMENT_ID_BYTES_MAX: usize = 512;
/// Bytes of one document as JSON, in a request: a document is read, shown and merged as a whole.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Levels of nesting in a document.
pub const DOCUMENT_DEPTH_MAX: usize = 128;
/// Bytes of one change's payload: what the largest document needs as one change, with room to spare.
pub const CHANGE_BYTES_MAX: usize = 2 << 20;
/// Operations in one change: above what the largest document needs, below what a run-length bomb wants.
pub const CHANGE_OPS_MAX: u64 = 1 << 19;
/// Dependencies of one change: as many branches of one document as can meet in one edit.
pub const CHANGE_DEPS_MAX: usize = 1 << 10;
/// Actors that one change may name.
pub const CHANGE_ACTORS_MAX: usize = 1 << 12;
/// Milliseconds that a remote timestamp may be ahead of ours and still move our clock.
pub const CLOCK_DRIFT_MAX_MS: u64 = 5 * 60 * 1_000;

// Storage.

/// Collections of one mesh: their fingerprints travel in one frame.
pub const COLLECTIONS_MAX: usize = 1_024;
/// Documents kept open in memory as Automerge documents (about 31 KiB each when small).
pub const OPEN_DOCUMENTS_MAX: usize = 256;
/// Dead letters kept; the oldest give way, and their number is counted.
pub const DEAD_LETTERS_MAX: usize = 10_000;
/// Bytes of dead letters kept in all.
pub const DEAD_LETTER_BYTES_MAX: usize = 64 << 20;

// Membership.

/// Delegations in one chain.
pub const CHAIN_LENGTH_MAX: usize = 8;
/// Members of one mesh.
pub const MEMBERS_MAX: usize = 4_096;
/// Addresses that a ticket carries.
pub const TICKET_ADDRESSES_MAX: usize = 16;
/// Bytes of one multiaddr in text.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Bytes of a ticket in text.
pub const TICKET_BYTES_MAX: usize = 16 << 10;
