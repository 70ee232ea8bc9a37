//! The wire shapes of sync status: who is in sync, as of when, and what is in the way, readable by a person.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::rfc3339::Rfc3339;
use super::shape;
use crate::base::{DocumentKey, Timestamp};
use crate::node::{CollectionReport, HolderReport, LeaveReport, StandingReport, SummaryReport, SyncReport, WhyReport};

/// How everything stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SyncStatus)]
pub(super) struct Sync {
    /// Documents here, without those that are deleted.
    documents: u64,
    /// Documents here, deleted ones included: this is what peers compare.
    count: u64,
    /// Every other member, with how it stands in all collections together.
    peers: Vec<Summary>,
    /// Of more than 1,000 those that differ come before others.
    collections: Vec<Collection>,
    collections_total: usize,
    /// Changes that are not applied, by reason: those that wait, and those that are kept as proof.
    dead_letters: BTreeMap<&'static str, u64>,
    /// The same for each collection.
    dead_letters_of: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// By the peer that sent them: those that sent most.
    dead_letters_from: BTreeMap<String, u64>,
    dead_letters_evicted: u64,
    /// Peers that are proven to have used a sequence number twice (a restored backup, or malice), with the number of
    /// documents.
    forks: BTreeMap<String, u64>,
    damaged: Vec<Name>,
    /// While a damaged table is built anew: nothing is compared then.
    #[serde(skip_serializing_if = "Option::is_none")]
    repairing: Option<Repairing>,
    dropped: BTreeMap<&'static str, u64>,
}

/// How far building a damaged table anew is.
#[derive(Debug, Serialize, ToSchema)]
struct Repairing {
    pages_done: u64,
    pages: u64,
}

/// How one collection stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CollectionStanding)]
struct Collection {
    name: String,
    /// Documents here, without those that are deleted.
    documents: u64,
    /// Documents here, deleted ones included: this is what peers compare.
    count: u64,
    /// Of more than 100 those that were compared come before others.
    peers: Vec<Peer>,
}

/// How one peer stands in all collections together.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PeerSummary)]
struct Summary {
    peer_id: String,
    connected: bool,
    /// Since when nothing has come over its connection, though something must have: it may be gone, and is given up
    /// soon.
    no_answer_since: Option<Rfc3339>,
    /// `in_sync`; `unconfirmed` when the last comparison found both equal and something changed here since;
    /// `differs`; or `unknown` when it was not compared since the start.
    state: &'static str,
    /// When that was.
    as_of: Option<Rfc3339>,
    /// When both were last found equal.
    equal_at: Option<Rfc3339>,
    /// Whether anything changed on this peer since.
    changed_here_since: bool,
    /// Collections that differ, as far as they are known.
    collections_differing: usize,
    /// Whether there may be more of them.
    more_differ: bool,
    /// Documents that are still to come from it, at least; `null` when that is not known.
    to_receive: Option<u64>,
    /// Documents that it lacks, at least; `null` when that is not known.
    to_send: Option<u64>,
    /// Documents over there, deleted ones included, as it last said.
    their_count: Option<u64>,
}

impl Summary {
    fn new(report: &SummaryReport) -> Self {
        Self {
            peer_id: report.peer.to_string(),
            connected: report.connected,
            no_answer_since: shape::time(report.no_answer_since),
            state: state(report.compared_at, report.equal, report.changed_here_since),
            as_of: shape::time(report.compared_at),
            equal_at: shape::time(report.equal_at),
            changed_here_since: report.changed_here_since,
            collections_differing: report.differing,
            more_differ: report.more_differ,
            to_receive: report.to_receive,
            to_send: report.to_send,
            their_count: report.their_documents,
        }
    }
}

/// What is said of the last comparison, in a word.
fn state(compared_at: Option<Timestamp>, equal: bool, changed_here_since: bool) -> &'static str {
    match (compared_at, equal) {
        (None, _) => "unknown",
        (Some(_), true) if changed_here_since => "unconfirmed",
        (Some(_), true) => "in_sync",
        (Some(_), false) => "differs",
    }
}

/// How one peer stands in one collection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PeerStanding)]
struct Peer {
    peer_id: String,
    connected: bool,
    /// Since when nothing has come over its connection, though something must have: it may be gone, and is given up
    /// soon.
    no_answer_since: Option<Rfc3339>,
    /// `in_sync`; `unconfirmed` when the last comparison found both equal and something changed here since;
    /// `differs`; or `unknown`.
    state: &'static str,
    /// When that was.
    as_of: Option<Rfc3339>,
    /// When both were last found equal.
    equal_at: Option<Rfc3339>,
    /// Whether the collection changed on this peer since.
    changed_here_since: bool,
    /// Documents of which the peer has something that is not here yet, at least: until it is found which ones, as many
    /// as it has more. `null` when that is not known.
    to_receive: Option<u64>,
    /// Documents that it has less, at least; `null` when that is not known.
    to_send: Option<u64>,
    /// Documents over there at that time; `null` when that is not remembered.
    their_count: Option<u64>,
}

impl Peer {
    fn new(report: &StandingReport) -> Self {
        let StandingReport { peer, connected, no_answer_since, standing, to_receive, to_send, changed_here_since } =
            *report;
        Self {
            peer_id: peer.to_string(),
            connected,
            no_answer_since: shape::time(no_answer_since),
            state: state(standing.compared_at, standing.equal, changed_here_since),
            as_of: shape::time(standing.compared_at),
            equal_at: shape::time(standing.equal_at),
            changed_here_since,
            to_receive,
            to_send,
            their_count: standing.their_count,
        }
    }
}

/// The name of a document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DocumentName)]
struct Name {
    collection: String,
    id: String,
}

impl From<&DocumentKey> for Name {
    fn from(key: &DocumentKey) -> Self {
        Self { collection: key.collection.as_str().into(), id: key.id.as_str().into() }
    }
}

impl Sync {
    /// The shape of a report.
    pub(super) fn new(report: SyncReport) -> Self {
        let mut dead_letters = BTreeMap::new();
        let mut dead_letters_of: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
        for letter in report.letters {
            *dead_letters.entry(letter.reason.as_str()).or_default() += letter.count;
            dead_letters_of.entry(letter.collection).or_default().insert(letter.reason.as_str(), letter.count);
        }
        let collection = |collection: &CollectionReport| Collection {
            name: collection.collection.as_str().into(),
            documents: collection.documents,
            count: collection.count,
            peers: collection.peers.iter().map(Peer::new).collect(),
        };
        Self {
            documents: report.documents,
            count: report.items,
            peers: report.peers.iter().map(Summary::new).collect(),
            collections: report.collections.iter().map(collection).collect(),
            collections_total: report.collections_total,
            dead_letters,
            dead_letters_of,
            dead_letters_from: report.letters_from.iter().map(|(peer, count)| (peer.to_string(), *count)).collect(),
            dead_letters_evicted: report.letters_evicted,
            forks: report.forks.iter().map(|(peer, documents)| (peer.to_string(), *documents)).collect(),
            damaged: report.damaged.iter().map(Name::from).collect(),
            repairing: report.mending.map(|(pages_done, pages)| Repairing { pages_done, pages }),
            dropped: report.dropped,
        }
    }
}

/// How one document stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DocumentStanding)]
pub(super) struct Why {
    #[serde(flatten)]
    name: Name,
    /// `None` when it is not here.
    heads: Option<Vec<String>>,
    deleted: bool,
    changes: u64,
    damaged: bool,
    /// Changes of it that wait, by reason.
    waiting: BTreeMap<&'static str, u64>,
    /// Whether each connected member has it as it is here.
    holders: Vec<Holder>,
    /// How the document's collection stands with each peer.
    peers: Vec<Peer>,
}

/// Whether a peer has a document as it is here.
#[derive(Debug, Serialize, ToSchema)]
struct Holder {
    peer_id: String,
    /// What it said when it was asked just now; `null` when it did not answer in time.
    has_it: Option<bool>,
}

/// Whether it is safe to leave.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Leave {
    /// Whether as many other peers as asked for have everything that is here.
    safe: bool,
    wanted: usize,
    peers: Vec<Holding>,
}

/// Whether a peer has everything that is here.
#[derive(Debug, Serialize, ToSchema)]
struct Holding {
    peer_id: String,
    connected: bool,
    /// Since when nothing has come over its connection, though something must have: it may be gone, and is given up
    /// soon.
    no_answer_since: Option<Rfc3339>,
    /// Whether the last comparison found everything equal, and nothing changed here since.
    has_all: bool,
    compared_at: Option<Rfc3339>,
}

impl Leave {
    /// The shape of a report.
    pub(super) fn new(wanted: usize, safe: bool, peers: &[LeaveReport]) -> Self {
        let holding = |report: &LeaveReport| Holding {
            peer_id: report.peer.to_string(),
            connected: report.connected,
            no_answer_since: shape::time(report.no_answer_since),
            has_all: report.has_all,
            compared_at: shape::time(report.compared_at),
        };
        Self { safe, wanted, peers: peers.iter().map(holding).collect() }
    }
}

fn holder(report: &HolderReport) -> Holder {
    Holder { peer_id: report.peer.to_string(), has_it: report.holds }
}

impl Why {
    /// The shape of a report.
    pub(super) fn new(report: &WhyReport) -> Self {
        let heads = report.heads.as_ref().map(|heads| heads.iter().map(ToString::to_string).collect());
        Self {
            name: (&report.document).into(),
            heads,
            deleted: report.deleted,
            changes: report.changes,
            damaged: report.damaged,
            waiting: report.waiting.iter().map(|(reason, count)| (reason.as_str(), *count)).collect(),
            holders: report.holders.iter().map(holder).collect(),
            peers: report.peers.iter().map(Peer::new).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PeerId;
    use crate::node::LetterReport;
    use crate::store::Reason;
    use crate::sync::Standing;

    #[test]
    fn a_standing_says_no_more_than_what_was_compared() {
        let standing = Standing { compared_at: Some(Timestamp(1_000)), equal: true, ..Standing::default() };
        let state = |standing, changed_here_since| {
            let (peer, connected, no_answer_since) = (PeerId([1; 32]), true, None);
            let (to_receive, to_send) = (None, None);
            let report =
                StandingReport { peer, connected, no_answer_since, standing, to_receive, to_send, changed_here_since };
            Peer::new(&report).state
        };
        assert_eq!(state(standing, false), "in_sync");
        assert_eq!(state(standing, true), "unconfirmed");
        assert_eq!(state(Standing { equal: false, ..standing }, false), "differs");
        assert_eq!(state(Standing::default(), false), "unknown");
    }

    #[test]
    fn dead_letters_add_up_over_collections() {
        let letter = |collection: &str, count| LetterReport {
            collection: collection.into(),
            reason: Reason::Dependencies,
            count,
        };
        let report = SyncReport {
            documents: 0,
            items: 0,
            peers: Vec::new(),
            collections: Vec::new(),
            collections_total: 0,
            letters: vec![letter("a", 1), letter("b", 2)],
            letters_from: BTreeMap::new(),
            letters_evicted: 0,
            forks: BTreeMap::new(),
            damaged: vec!["a".parse().map(|c| DocumentKey::new(c, "x".parse().unwrap())).unwrap()],
            mending: Some((3, 7)),
            dropped: BTreeMap::new(),
        };
        let shape = serde_json::to_value(Sync::new(report)).unwrap();
        assert_eq!(shape["dead_letters"]["waiting_for_dependencies"], 3);
        assert_eq!(shape["dead_letters_of"]["b"]["waiting_for_dependencies"], 2);
        assert_eq!(shape["repairing"], serde_json::json!({"pages_done": 3, "pages": 7}));
        assert_eq!(shape["damaged"][0], serde_json::json!({"collection": "a", "id": "x"}));
    }
}
