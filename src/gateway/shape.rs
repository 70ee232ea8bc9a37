//! What goes over the wire: shapes of the gateway's own, so that the core's types stay free to change.
//!
//! A document is written by hand: its data is JSON text already, and is copied as it is, never parsed.

use std::str::FromStr;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::memory_shape::InMemory;
use super::reach_shape::{Reach, RunsTwice};
use super::rfc3339::Rfc3339;
use crate::access::{Fall, Overuse, Role};
use crate::base::{CollectionName, DocumentId, Encode, PeerId, Timestamp};
use crate::identity::Signed;
use crate::kv::CacheUse;
use crate::node::{ClockReport, MemberReport, NeighbourReport};
use crate::peer::{self, Confirmation, Latency, Listing};
use crate::{store, sync};

/// Bytes that a document takes beside its id and data, about.
const FRAME_BYTES: usize = 320;

/// A document: `{id, collection, data, created_at, updated_at, heads, conflict_count}`.
pub(super) fn document(document: &peer::Document) -> Bytes {
    let mut out = Vec::with_capacity(document.json().len() + FRAME_BYTES);
    write_document(&mut out, document);
    out.into()
}

fn write_document(out: &mut Vec<u8>, document: &peer::Document) {
    out.extend_from_slice(b"{\"id\":");
    write_text(out, document.id());
    out.extend_from_slice(b",\"collection\":");
    write_text(out, document.collection().as_str());
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(document.json());
    let (created, updated) = (document.created_at(), document.updated_at());
    out.extend_from_slice(format!(",\"created_at\":\"{created}\",\"updated_at\":\"{updated}\",\"heads\":").as_bytes());
    write_heads(out, document);
    if let Some(count) = document.conflict_count() {
        out.extend_from_slice(format!(",\"conflict_count\":{count}").as_bytes());
    }
    if let Some(confirmation) = document.confirmation() {
        out.extend_from_slice(b",\"write_concern\":");
        write(out, &WriteConcern::new(confirmation));
    }
    out.push(b'}');
}

/// A page: `{documents, next_cursor, damaged}`; the last one only when there are some.
pub(super) fn listing(listing: &Listing) -> Bytes {
    let data: usize = listing.documents.iter().map(|document| document.json().len() + FRAME_BYTES).sum();
    let mut out = Vec::with_capacity(data + FRAME_BYTES);
    out.extend_from_slice(b"{\"documents\":[");
    for (index, document) in listing.documents.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_document(&mut out, document);
    }
    out.extend_from_slice(b"],\"next_cursor\":");
    write(&mut out, &listing.next.as_ref().map(|next| cursor(next.as_str())));
    if !listing.damaged.is_empty() {
        out.extend_from_slice(b",\"damaged\":");
        write(&mut out, &listing.damaged.iter().map(DocumentId::as_str).collect::<Vec<_>>());
    }
    out.push(b'}');
    out.into()
}

/// The heads of a document as a list.
pub(super) fn write_heads(out: &mut Vec<u8>, document: &peer::Document) {
    out.push(b'[');
    for (index, head) in document.heads().iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(HEXLOWER.encode(head.as_bytes()).as_bytes());
        out.push(b'"');
    }
    out.push(b']');
}

/// A document as a line of an export: its data with its id first, as a bulk write takes it.
pub(super) fn write_line(out: &mut Vec<u8>, document: &peer::Document) {
    out.extend_from_slice(b"{\"_id\":");
    write_text(out, document.id());
    let fields = document.json().strip_prefix(b"{").expect("a document is an object");
    if fields != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(fields);
    out.push(b'\n');
}

/// Where the next page starts, in a form that nobody is tempted to build by hand.
pub(super) fn cursor(last: &str) -> String {
    data_encoding::BASE64URL_NOPAD.encode(last.as_bytes())
}

/// Reads a cursor: the id of a document, or the name of a collection.
///
/// # Errors
/// For a text that is none.
pub(super) fn parse_cursor<T: FromStr>(text: &str) -> crate::Result<T> {
    let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| invalid_cursor())?;
    std::str::from_utf8(&bytes).ok().and_then(|id| id.parse().ok()).ok_or_else(invalid_cursor)
}

pub(super) fn invalid_cursor() -> crate::Error {
    crate::Error::Invalid(crate::Invalid {
        message: "the cursor is none that this gateway gave; leave it out to start from the first page".into(),
        field: Some("cursor".into()),
        position: None,
        kind: crate::InvalidKind::Syntax,
    })
}

pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    write(out, &text);
}

/// Appends a value as JSON.
pub(super) fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("texts are JSON, and memory takes what is written");
}

/// A document as [`document`] writes it.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "documents are written by hand; this describes what is written")]
pub(super) struct Document {
    id: String,
    collection: String,
    /// What was written, a JSON object.
    #[schema(value_type = Object)]
    data: serde_json::Value,
    created_at: Rfc3339,
    updated_at: Rfc3339,
    /// The changes that no other change depends on, as hexadecimal hashes: the version.
    heads: Vec<String>,
    /// Places at which edits that did not know of each other left several values, of which one is shown: see
    /// `/conflicts`. Left out of versions of the past, of which they are not counted.
    #[schema(required = false)]
    conflict_count: u64,
    /// In answers to writes with `w`.
    write_concern: Option<WriteConcern>,
}

/// What is left to say of a document that was deleted with `w`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    write_concern: WriteConcern,
}

impl Deleted {
    pub(super) fn new(confirmation: &Confirmation) -> Self {
        Self { write_concern: WriteConcern::new(confirmation) }
    }
}

/// Which other peers have a write on their disks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WriteConcern {
    /// Whether they are as many as were asked for.
    complete: bool,
    receipts: Vec<Receipt>,
}

/// A peer's word that it has a write on its disk.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Receipt {
    peer_id: String,
    /// When, by its clock.
    at: Rfc3339,
    /// The whole receipt with its signature, in base64: it can be checked by anybody.
    signed: String,
}

impl WriteConcern {
    fn new(confirmation: &Confirmation) -> Self {
        let receipt = |receipt: &Signed<sync::receipt::Receipt>| Receipt {
            peer_id: receipt.body.holder.to_string(),
            at: Rfc3339(receipt.body.at),
            signed: data_encoding::BASE64.encode(&receipt.to_bytes()),
        };
        Self { complete: confirmation.complete, receipts: confirmation.receipts.iter().map(receipt).collect() }
    }
}

/// A page as [`listing`] writes it.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "pages are written by hand; this describes what is written")]
pub(super) struct Page {
    documents: Vec<Document>,
    /// Where the next page starts; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Ids of documents that cannot be read here until another peer sent them again.
    #[schema(required = false)]
    damaged: Vec<String>,
}

/// How the peer is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` for a process that answers, `ready` for a peer that takes reads and writes.
    pub(super) status: &'static str,
}

/// A page of collections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Collections {
    pub(super) collections: Vec<Collection>,
    /// Where the next page starts; null in the last one.
    pub(super) next_cursor: Option<String>,
}

/// A collection with its counts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Collection {
    name: String,
    documents: u64,
    bytes: u64,
}

impl Collection {
    pub(super) fn new((name, counts): &(CollectionName, store::Collection)) -> Self {
        Self { name: name.as_str().into(), documents: counts.documents, bytes: counts.bytes }
    }
}

/// The policies of a collection; there are none yet.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "bodies are read as any object, so that a policy is refused by its name")]
pub(super) struct Policies {}

/// What became of the documents of a collection that was dropped.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Dropped {
    pub(super) deleted: u64,
    /// Documents that are damaged on this peer's disk: they stay until another peer has sent them again.
    pub(super) damaged: u64,
}

/// What an invitation gives.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InviteBody {
    /// `admin`, `writer` or `reader`.
    #[schema(pattern = "^(admin|writer|reader)$")]
    pub(super) role: String,
    #[schema(format = "uint64")]
    pub(super) expires_in_s: u64,
    #[schema(minimum = 1, maximum = 1_000)]
    pub(super) uses: u32,
}

impl Default for InviteBody {
    fn default() -> Self {
        let invite = crate::peer::Invite::default();
        Self { role: invite.role.to_string(), expires_in_s: invite.expires_in.as_secs(), uses: invite.uses }
    }
}

/// A ticket and what it gives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Invited {
    pub(super) ticket: String,
    pub(super) role: String,
    pub(super) uses: u32,
    pub(super) expires_at: Rfc3339,
    pub(super) reach: super::reach_shape::TicketReach,
}

/// A member of the mesh, or one that was let in and is none.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Member {
    peer_id: String,
    role: String,
    since: Rfc3339,
    admitted_by: Option<String>,
    connected: bool,
    /// Since when nothing has come over its connection, though something must have: it may be gone, and is given up
    /// soon.
    no_answer_since: Option<Rfc3339>,
    /// `member`, or why it is none: `ticket_used_up`, `mesh_full`, `admitter_fell`. An admin can admit it by a new
    /// ticket.
    standing: &'static str,
}

impl From<MemberReport> for Member {
    fn from(member: MemberReport) -> Self {
        Self {
            peer_id: member.peer.to_string(),
            role: member.role.to_string(),
            since: Rfc3339(member.since.physical()),
            admitted_by: member.admitted_by.map(|peer| peer.to_string()),
            connected: member.connected,
            no_answer_since: time(member.no_answer_since),
            standing: member.fall.map_or("member", Fall::as_str),
        }
    }
}

/// The members of the mesh.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Members {
    pub(super) peers: Vec<Member>,
}

/// An invitation by which more joined than it lets in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Overused {
    invitation: String,
    issuer: String,
    uses: u32,
    /// Who joined by it and is a member.
    members: Vec<String>,
    /// Who joined by it and is none.
    fallen: Vec<String>,
}

impl From<Overuse> for Overused {
    fn from(overuse: Overuse) -> Self {
        let texts = |peers: Vec<PeerId>| peers.iter().map(ToString::to_string).collect();
        Self {
            invitation: overuse.invitation.to_string(),
            issuer: overuse.issuer.to_string(),
            uses: overuse.uses,
            members: texts(overuse.members),
            fallen: texts(overuse.fallen),
        }
    }
}

/// This peer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeStatus {
    pub(super) peer_id: String,
    pub(super) node_id: String,
    pub(super) mesh: String,
    pub(super) mesh_name: String,
    pub(super) role: Option<String>,
    pub(super) members: usize,
    /// Invitations by which more joined than they let in.
    pub(super) overused: Vec<Overused>,
    /// Peers that run in two places at once, this one among them when a member says so: data folders were copied.
    pub(super) runs_twice: Vec<RunsTwice>,
    pub(super) version: &'static str,
    pub(super) uptime_s: u64,
    pub(super) listen: Vec<String>,
    pub(super) external: Vec<String>,
    /// `public`, `firewalled`, `mapped`, `punchable`, `symmetric`, `udp_blocked`, `offline`, or `unknown` as long as it is.
    pub(super) reachability: &'static str,
    pub(super) reach: Reach,
    pub(super) peers: Vec<Neighbour>,
    pub(super) clock: Clock,
}

/// What is known of the time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Clock {
    /// What this machine's clock shows.
    shows: Rfc3339,
    /// How it stands among those of the connected members, itself counted: `agrees`, `contradicted` (most show another
    /// time), `divided` (as many do as do not), or `alone`.
    agreement: &'static str,
    /// By how much the clock in the middle is ahead of it.
    middle_ahead_ms: i64,
    /// When it last jumped since the start: it was set, or the machine slept.
    set_at: Option<Rfc3339>,
    /// By how much it jumped then.
    set_by_ms: Option<i64>,
    /// The latest time that a change here carries, when that is in the future by more than clocks may be off.
    stamped_until: Option<Rfc3339>,
    /// Documents kept since the start that members had deleted as expired by clocks that were ahead.
    kept: u64,
    /// Why documents do not expire by this peer now, though it has an index by which they would.
    expiry_waits: Option<&'static str>,
}

impl From<ClockReport> for Clock {
    fn from(clock: ClockReport) -> Self {
        Self {
            shows: Rfc3339(clock.shows),
            agreement: clock.agreement.as_str(),
            middle_ahead_ms: clock.middle_ahead_ms,
            set_at: time(clock.set.map(|(at, _)| at)),
            set_by_ms: clock.set.map(|(_, by_ms)| by_ms),
            stamped_until: time(clock.stamped_until),
            kept: clock.kept,
            expiry_waits: clock.expiry_waits,
        }
    }
}

/// The role as text; `None` for a peer that lost it.
pub(super) fn role(role: Option<Role>) -> Option<String> {
    role.map(|role| role.to_string())
}

/// A connected member.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Neighbour {
    peer_id: String,
    address: String,
    direct: bool,
    since: Rfc3339,
    /// Since when nothing has come over its connection, though something must have: it may be gone, and is given up
    /// soon.
    no_answer_since: Option<Rfc3339>,
    in_sync: bool,
    to_send: usize,
    /// By how much its clock is ahead of this peer's, once it has told.
    clock_ahead_ms: Option<i64>,
}

impl From<NeighbourReport> for Neighbour {
    fn from(neighbour: NeighbourReport) -> Self {
        Self {
            peer_id: neighbour.peer.to_string(),
            address: neighbour.address,
            direct: neighbour.direct,
            since: Rfc3339(neighbour.since),
            no_answer_since: time(neighbour.no_answer_since),
            in_sync: neighbour.in_sync,
            to_send: neighbour.to_send,
            clock_ahead_ms: neighbour.clock_ahead_ms,
        }
    }
}

/// Counters of the peer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    pub(super) documents: u64,
    pub(super) collections: usize,
    pub(super) changes: Changes,
    pub(super) disk_bytes: u64,
    pub(super) memory: InMemory,
    pub(super) caches: Caches,
    pub(super) operations: Operations,
    pub(super) peers: Peers,
    pub(super) traffic: Traffic,
    pub(super) dead_letters: u64,
    pub(super) uptime_s: u64,
}

/// Changes, stored in all and handled since the start.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changes {
    pub(super) stored: u64,
    pub(super) written: u64,
    pub(super) received: u64,
    pub(super) known_already: u64,
    pub(super) dropped: u64,
}

/// How the caches do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Caches {
    /// Leaves of the table on the disk.
    pub(super) table: Cache,
    /// Documents that are open for editing and merging.
    pub(super) open_documents: Cache,
}

/// How one cache does.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Cache {
    hits: u64,
    misses: u64,
    /// From 0 to 1; `null` before the first look.
    hit_rate: Option<f64>,
}

impl From<CacheUse> for Cache {
    fn from(CacheUse { hits, misses }: CacheUse) -> Self {
        let looks = hits + misses;
        Self { hits, misses, hit_rate: (looks > 0).then(|| hits as f64 / looks as f64) }
    }
}

/// Counts and latencies of calls.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Operations {
    pub(super) reads: Operation,
    pub(super) writes: Operation,
    pub(super) queries: Operation,
}

/// Count and latencies of one kind of call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Operation {
    count: u64,
    failures: u64,
    mean_us: u64,
    p50_us: u64,
    p99_us: u64,
}

impl From<Latency> for Operation {
    fn from(latency: Latency) -> Self {
        let Latency { count, failures, mean_us, p50_us, p99_us, .. } = latency;
        Self { count, failures, mean_us, p50_us, p99_us }
    }
}

/// Numbers of peers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Peers {
    pub(super) members: usize,
    pub(super) connected: usize,
}

/// Bytes to and from other peers since the start.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Traffic {
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
}

/// The time of something that may not have happened.
pub(super) fn time(at: Option<Timestamp>) -> Option<Rfc3339> {
    at.map(Rfc3339)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_lead_back_to_ids() {
        for id in ["a", "Zürich", "a b"] {
            let id: DocumentId = id.parse().unwrap();
            assert_eq!(parse_cursor(&cursor(id.as_str())), Ok(id));
        }
        for bad in ["", "!", "YS8", "_w"] {
            assert!(parse_cursor::<DocumentId>(bad).is_err(), "{bad}");
        }
    }
}
