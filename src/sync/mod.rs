//! How two peers find out what differs between them, and bring it over.
//!
//! 1. **Roots.** One peer asks with fingerprints of its collections: of each one when they are few, of ranges of their
//!    names otherwise. When all are equal both are in sync: one round trip, a kilobyte or two, whatever the number of
//!    documents and collections. Ranges that differ are cut until it is known which collections do.
//! 2. **Ranges.** For a collection that differs, ranges of ids are compared by fingerprint and cut where
//!    they differ, until a range is small enough to list the digests of its documents (range-based set
//!    reconciliation: Meyer, arXiv 2212.13567).
//! 3. **Items.** For documents that differ the peers exchange vectors: for each actor the last sequence
//!    number. As each actor's changes are numbered without gaps and each builds on the one before, the
//!    vectors say exactly which changes the other side lacks, in one message, however long the history.
//! 4. **Changes** are streamed in an order in which dependencies come first, in bounded frames, with
//!    credit: so many bytes may be under way without an acknowledgement, and a frame is acknowledged when
//!    it is on the receiver's disk. After a cut the next comparison starts from what has arrived.
//!
//! Nothing of this needs a session on the answering side: each message is answered from the store as it
//! is. Live changes take the fast path over gossip ([`gossip`]); reconciliation is what guarantees.
//!
//! What is on its way is not here yet, so a comparison finds it missing. That nothing is sent twice for that reason is
//! the node's care: it asks nobody while changes are on their way or a comparison is not over, opens one comparison when
//! both sides ask at once, draws a load from one neighbour at a time, and publishes only as much as gossip brings over
//! before it compares ([`gossip::Pace`]).
//!
//! - [`message`] the messages and their encoding
//! - [`frame`] changes packed for the wire
//! - [`directory`] which collections differ; [`reconcile`] what differs in one; both as functions of a store
//! - [`outbox`] what is to be sent to one peer, under credit
//! - [`ledger`] what is known about who is in sync
//! - [`receipt`] a peer's signed word that it has something on its disk
//! - [`gossip`] topics and the sealing of live changes

pub mod directory;
pub mod frame;
pub mod gossip;
pub mod ledger;
pub mod message;
pub mod outbox;
pub mod receipt;
pub mod reconcile;

pub use gossip::Topic;
pub use ledger::{Comparison, Ledger, Standing};
pub use message::{Digest, Hello, Items, Message, Names, Part, Ranges, Root, Roots, Step, Unknown, Welcome};
pub use outbox::Outbox;

use crate::access::{Member, MemberRecord, ProvenRequest, Rejected};
use crate::base::{DocumentKey, MeshId};
use crate::document::{Envelope, Refused, Unchecked};

/// A change that arrived, checked on a worker: what is inside `Ok` carries a right signature.
pub type Checked = Result<Envelope, (DocumentKey, Refused)>;

/// Checks changes that arrived. A pure function, so that it can run on any thread.
#[must_use]
pub fn check(mesh: MeshId, changes: Vec<Unchecked>) -> Vec<Checked> {
    let check = |change: Unchecked| {
        let document = change.document.clone();
        Envelope::check(mesh, change).map_err(|why| (document, why))
    };
    changes.into_iter().map(check).collect()
}

/// A message whose member records were taken out of it; their signatures, and those of a join request, were checked on a
/// worker.
#[derive(Debug)]
pub struct Introduced {
    /// The message, without the records.
    pub message: Message,
    /// The join request in it, if its signatures are right.
    pub request: Option<ProvenRequest>,
    /// The records that carry right signatures, each of the mesh that it claims to be of.
    pub members: Vec<Member>,
    /// How many others there were.
    pub bad: u64,
}

/// Checks what a message says of members: its records by `verify`, which is [`verify_member`] or remembers what that said.
#[must_use]
pub fn introduce(mut message: Message, verify: impl FnMut(MemberRecord) -> Result<Member, Rejected>) -> Introduced {
    let records = message.take_records();
    let count = records.len() as u64;
    let members: Vec<Member> = records.into_iter().map(verify).filter_map(Result::ok).collect();
    let bad = count - members.len() as u64;
    let request = if let Message::Redeem(request) = &message { request.as_ref().clone().prove().ok() } else { None };
    Introduced { message, request, members, bad }
}

/// Checks a member record. A pure function, so that it can run on any thread.
///
/// # Errors
/// As [`MemberRecord::verify`].
pub fn verify_member(record: MemberRecord) -> Result<Member, Rejected> {
    let mesh = record.mesh();
    record.verify(&mesh)
}
