//! What status calls show: plain values, which the interfaces give their own shape.

use std::collections::{BTreeMap, BTreeSet};

use crate::Result;
use crate::access::{Fall, Member, Overuse, Role};
use crate::base::{ChangeHash, CollectionName, DocumentKey, Hlc, MeshId, PeerId, Timestamp};
use crate::kv::{CacheUse, Condition};
use crate::limits::{SYNC_COLLECTIONS_MAX, SYNC_PEERS_MAX};
use crate::store::{Reason, Rebuilding};
use crate::sync::{Comparison, Standing};

use super::clock::ClockReport;
use super::neighbour::Neighbour;
use super::{Counters, Node, RestlessReport, TwiceReport};

/// Who is in sync, as of when, behind by how much, and what is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncReport {
    /// Documents here that are not deleted.
    pub documents: u64,
    /// Documents here, deleted ones included: what peers compare.
    pub items: u64,
    /// Every other member, and whoever was compared since the start, with how it stands in all collections together.
    pub peers: Vec<SummaryReport>,
    /// The collections, in the order of names. Of very many those that differ come before others.
    pub collections: Vec<CollectionReport>,
    /// How many there are.
    pub collections_total: usize,
    /// Dead letters by collection and reason.
    pub letters: Vec<LetterReport>,
    /// Dead letters by the neighbour that sent them, those with most of them.
    pub letters_from: BTreeMap<PeerId, u64>,
    /// Dead letters that gave way to others since the start.
    pub letters_evicted: u64,
    /// Who is proven to have used a sequence number twice, and in how many documents.
    pub forks: BTreeMap<PeerId, u64>,
    /// Documents found damaged on the disk and not fetched again yet.
    pub damaged: Vec<DocumentKey>,
    /// How a damaged table is being built anew; nothing when none is.
    pub mending: Option<(u64, u64)>,
    /// Changes dropped since the start, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// One collection and how every known peer stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionReport {
    /// The collection.
    pub collection: CollectionName,
    /// Documents here that are not deleted.
    pub documents: u64,
    /// Documents here, deleted ones included.
    pub count: u64,
    /// Every other member, and whoever was compared since the start; not all of very many.
    pub peers: Vec<StandingReport>,
}

/// How a peer stands in all collections together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SummaryReport {
    /// The peer.
    pub peer: PeerId,
    /// Whether it is connected now.
    pub connected: bool,
    /// Since when nothing has come over its connection, though something must have: it may be gone.
    pub no_answer_since: Option<Timestamp>,
    /// When it was last compared; `None` when it was not since the start.
    pub compared_at: Option<Timestamp>,
    /// When everything was last found equal.
    pub equal_at: Option<Timestamp>,
    /// Whether the last comparison found everything equal.
    pub equal: bool,
    /// Whether anything has changed here since.
    pub changed_here_since: bool,
    /// Collections that differed, as far as they are known.
    pub differing: usize,
    /// Whether there may be more of them.
    pub more_differ: bool,
    /// Documents that are still to come from it, at least; `None` when it was not compared.
    pub to_receive: Option<u64>,
    /// Documents that it lacks, at least; `None` when it was not compared.
    pub to_send: Option<u64>,
    /// Documents over there, deleted ones included.
    pub their_documents: Option<u64>,
}

/// How a peer stands in one collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingReport {
    /// The peer.
    pub peer: PeerId,
    /// Whether it is connected now.
    pub connected: bool,
    /// Since when nothing has come over its connection, though something must have: it may be gone.
    pub no_answer_since: Option<Timestamp>,
    /// What the last comparison found.
    pub standing: Standing,
    /// Documents that are still to come from it, at least: until it is found which ones, as many as it has more. `None`
    /// when it is not known.
    pub to_receive: Option<u64>,
    /// Documents that it has less, at least; `None` when it is not known.
    pub to_send: Option<u64>,
    /// Whether the collection has changed here since.
    pub changed_here_since: bool,
}

/// Dead letters of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterReport {
    /// The collection.
    pub collection: String,
    /// Why they wait.
    pub reason: Reason,
    /// How many.
    pub count: u64,
}

/// How one document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyReport {
    /// The document.
    pub document: DocumentKey,
    /// Its heads here; `None` when it is not here.
    pub heads: Option<Vec<ChangeHash>>,
    /// Whether it is deleted.
    pub deleted: bool,
    /// Changes in its log.
    pub changes: u64,
    /// Whether it was found damaged on the disk.
    pub damaged: bool,
    /// Changes of it that wait, by reason.
    pub waiting: BTreeMap<Reason, u64>,
    /// How each peer stands in its collection.
    pub peers: Vec<StandingReport>,
    /// Every connected member, with whether it has the document as it is here.
    pub holders: Vec<HolderReport>,
}

/// Whether a peer has a document as it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderReport {
    /// The peer.
    pub peer: PeerId,
    /// What it said when it was asked; `None` when it did not answer in time.
    pub holds: Option<bool>,
}

/// Whether a peer has everything that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveReport {
    /// The peer.
    pub peer: PeerId,
    /// Whether it is connected.
    pub connected: bool,
    /// Since when nothing has come over its connection, though something must have.
    pub no_answer_since: Option<Timestamp>,
    /// Whether the last comparison found everything equal, and nothing changed here since.
    pub has_all: bool,
    /// When it was last compared.
    pub compared_at: Option<Timestamp>,
}

/// A member of the mesh, or one that was let in and does not stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReport {
    /// The peer.
    pub peer: PeerId,
    /// Its role.
    pub role: Role,
    /// When it joined.
    pub since: Hlc,
    /// Who let it in; `None` for the founder.
    pub admitted_by: Option<PeerId>,
    /// Whether it is connected to this peer now, or is this peer.
    pub connected: bool,
    /// Since when nothing has come over its connection, though something must have.
    pub no_answer_since: Option<Timestamp>,
    /// Why it is no member; `None` for members.
    pub fall: Option<Fall>,
}

/// This peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// Its id.
    pub peer: PeerId,
    /// Its mesh.
    pub mesh: MeshId,
    /// The mesh's name.
    pub mesh_name: String,
    /// Its own role.
    pub role: Option<Role>,
    /// Members of the mesh.
    pub members: usize,
    /// Invitations by which more joined than they let in.
    pub overused: Vec<Overuse>,
    /// Members that are connected.
    pub neighbours: Vec<NeighbourReport>,
    /// Members whose links start anew again and again.
    pub restless: Vec<RestlessReport>,
    /// Collections, those without documents included.
    pub collections: usize,
    /// Documents in all of them that are not deleted.
    pub documents: u64,
    /// Bytes of those documents as JSON.
    pub documents_bytes: u64,
    /// A member's word that this very peer runs in two places.
    pub twice: Option<TwiceReport>,
    /// Counters since the start.
    pub counters: Counters,
    /// How often a document that was needed was open already.
    pub open_documents: CacheUse,
    /// Dead letters.
    pub letters: u64,
    /// Dead letters that gave way to others since the start.
    pub letters_evicted: u64,
    /// Batches of changes ever stored here.
    pub stored: u64,
    /// What is known of the time.
    pub clock: ClockReport,
    /// How the disk is.
    pub disk: DiskReport,
}

/// What of this peer's disk was found damaged, and what became of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DiskReport {
    /// How a damaged table is being built anew, and where it was put before.
    pub condition: Condition,
    /// What the last damaged table was without; nothing when none ever was.
    pub rebuilding: Option<Rebuilding>,
    /// Documents found damaged and not fetched again yet.
    pub damaged: u64,
    /// Whether connected members may have what was lost here: nobody of them has been found to have the same since.
    pub fetching: bool,
}

/// A connected member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourReport {
    /// Its id.
    pub peer: PeerId,
    /// Its address.
    pub address: String,
    /// Whether no relay is in between.
    pub direct: bool,
    /// Since when it is connected.
    pub since: Timestamp,
    /// Since when nothing has come over its connection, though something must have: it may be gone, and is given up
    /// soon.
    pub no_answer_since: Option<Timestamp>,
    /// Whether the last comparison found everything equal, and nothing changed here since.
    pub in_sync: bool,
    /// Ranges and documents queued for it, and frames under way.
    pub to_send: usize,
    /// By how much its clock is ahead of ours, in milliseconds, the time on the way not counted; `None` until it has told
    /// since ours was set.
    pub clock_ahead_ms: Option<i64>,
}

/// How many documents are to come from a peer and to go to it, at least, in a collection of which `count` are here;
/// `None` when that is not known. Which ones is found range by range: until then, as many as one side has more.
fn between(standing: &Standing, count: u64) -> Option<(u64, u64)> {
    standing.compared_at?;
    let theirs = standing.their_count.unwrap_or(count);
    Some((standing.to_receive.max(theirs.saturating_sub(count)), count.saturating_sub(theirs)))
}

impl Node {
    /// Whether nothing of what is here is known to be damaged.
    pub(super) fn is_whole(&self) -> bool {
        self.store.damaged().is_empty() && self.store.condition().mending.is_none()
    }

    pub(super) fn sync_report(&self) -> SyncReport {
        let collection = |name: &CollectionName| CollectionReport {
            collection: name.clone(),
            documents: self.store.alive(name),
            count: self.store.total(name).count,
            peers: self.standings(name),
        };
        let letter = |((collection, reason), count): ((&str, Reason), u64)| LetterReport {
            collection: collection.to_owned(),
            reason,
            count,
        };
        SyncReport {
            documents: self.store.all_alive(),
            items: self.store.documents(),
            peers: self.known_peers().into_iter().map(|peer| self.summary(&peer)).collect(),
            collections: self.shown_collections().into_iter().map(collection).collect(),
            collections_total: self.store.collections(),
            letters: self.store.letters().counts().into_iter().map(letter).collect(),
            letters_from: self.store.letters().senders(),
            letters_evicted: self.store.letters().evicted(),
            forks: self.store.letters().forks(),
            damaged: self.store.damaged().iter().take(1_000).cloned().collect(),
            mending: self.store.condition().mending,
            dropped: self.counters.dropped.clone(),
        }
    }

    /// The collections that a report shows.
    fn shown_collections(&self) -> BTreeSet<&CollectionName> {
        let mut shown = BTreeSet::new();
        let differing = self.ledger.iter().flat_map(|(_, comparison)| comparison.differing());
        for name in differing.chain(self.store.totals().map(|(name, _)| name)) {
            if shown.len() == SYNC_COLLECTIONS_MAX {
                break;
            }
            shown.insert(name);
        }
        shown
    }

    /// Every other member, and whoever was compared.
    fn known_peers(&self) -> BTreeSet<PeerId> {
        let members = self.members.iter().map(Member::peer).filter(|peer| *peer != self.peer_id());
        members.chain(self.ledger.iter().map(|(peer, _)| *peer)).collect()
    }

    fn summary(&self, peer: &PeerId) -> SummaryReport {
        let none = Comparison::default();
        let found = self.ledger.get(peer).unwrap_or(&none);
        // The counts are what the peer claims.
        let (mut to_receive, mut to_send) = (0_u64, 0_u64);
        for name in found.differing() {
            let (receive, send) = between(&found.standing(name), self.store.total(name).count).unwrap_or_default();
            (to_receive, to_send) = (to_receive.saturating_add(receive), to_send.saturating_add(send));
        }
        if let Some(theirs) = found.their_documents().filter(|_| !found.is_resolved()) {
            let ours = self.store.documents();
            (to_receive, to_send) =
                (to_receive.max(theirs.saturating_sub(ours)), to_send.max(ours.saturating_sub(theirs)));
        }
        let changed_here_since = self.store.version() > found.version();
        let is_equal = found.at().is_some() && found.is_equal();
        let same = (is_equal && !changed_here_since).then(|| self.store.documents());
        SummaryReport {
            peer: *peer,
            connected: self.is_connected(peer),
            no_answer_since: self.no_answer_since(peer),
            compared_at: found.at().map(|at| self.clock.shows(at)),
            equal_at: found.equal_at().map(|at| self.clock.shows(at)),
            equal: is_equal,
            changed_here_since: found.at().is_some() && changed_here_since,
            differing: found.differing().count(),
            more_differ: !found.is_resolved(),
            to_receive: found.at().map(|_| to_receive),
            to_send: found.at().map(|_| to_send),
            their_documents: same.or(found.their_documents()),
        }
    }

    fn standings(&self, collection: &CollectionName) -> Vec<StandingReport> {
        let (count, version) = (self.store.total(collection).count, self.store.version_of(collection));
        let none = Comparison::default();
        let of = |peer: PeerId| {
            let comparison = self.ledger.get(&peer).unwrap_or(&none);
            let changed_here_since = comparison.at().is_some() && version > comparison.version();
            let mut standing = comparison.standing(collection);
            let (to_receive, to_send) = between(&standing, count).unzip();
            if standing.equal && !changed_here_since {
                standing.their_count = Some(count);
            }
            let shown = |at: Option<Timestamp>| at.map(|at| self.clock.shows(at));
            let (equal_at, compared_at) = (shown(standing.equal_at), shown(standing.compared_at));
            let standing = Standing { equal_at, compared_at, ..standing };
            let (connected, no_answer_since) = (self.is_connected(&peer), self.no_answer_since(&peer));
            StandingReport { peer, connected, no_answer_since, standing, to_receive, to_send, changed_here_since }
        };
        let compared: BTreeSet<PeerId> = self.ledger.iter().map(|(peer, _)| *peer).collect();
        let others = self.known_peers().into_iter().filter(|peer| !compared.contains(peer));
        let shown: BTreeSet<PeerId> = compared.iter().copied().chain(others).take(SYNC_PEERS_MAX).collect();
        shown.into_iter().map(of).collect()
    }

    fn is_connected(&self, peer: &PeerId) -> bool {
        self.neighbours.get(peer).is_some_and(Neighbour::is_admitted)
    }

    /// Since when a connected peer does not answer.
    pub(super) fn no_answer_since(&self, peer: &PeerId) -> Option<Timestamp> {
        self.neighbours.get(peer)?.no_answer_since.map(|at| self.clock.shows(at))
    }

    pub(super) fn why(&mut self, document: &DocumentKey) -> Result<WhyReport> {
        let (record, damaged) = match self.store.record(document) {
            Ok(record) => (record, false),
            Err(crate::Error::Corrupt(_)) => (None, true),
            Err(error) => return Err(error),
        };
        let waiting = self.store.letters().of_document(document);
        if record.is_none() && !damaged && waiting.is_empty() {
            return Err(crate::Error::NotFound(format!("document {document} is not known here")));
        }
        Ok(WhyReport {
            document: document.clone(),
            deleted: record.as_ref().is_some_and(|record| record.deleted),
            changes: record.as_ref().map_or(0, crate::store::Record::changes),
            heads: record.map(|record| record.heads),
            damaged,
            waiting,
            peers: self.standings(&document.collection),
            holders: Vec::new(),
        })
    }

    pub(super) fn member_report(&self) -> Vec<MemberReport> {
        let report = |(member, fall): (&Member, Option<Fall>)| MemberReport {
            peer: member.peer(),
            role: member.role(),
            since: member.since(),
            admitted_by: member.record().joined().map(|joined| joined.admission.body.admitted_by),
            connected: member.peer() == self.peer_id() || self.is_connected(&member.peer()),
            no_answer_since: self.no_answer_since(&member.peer()),
            fall,
        };
        let members = self.members.iter().map(|member| (member, None));
        let fallen = self.members.fallen().map(|(member, fall)| (member, Some(fall)));
        members.chain(fallen).map(report).collect()
    }

    pub(super) fn peer_report(&self, now: Timestamp) -> PeerReport {
        let admitted = self.neighbours.iter().filter(|(_, neighbour)| neighbour.is_admitted());
        let report = |(peer, neighbour): (&PeerId, &Neighbour)| NeighbourReport {
            peer: *peer,
            address: neighbour.link.address.clone(),
            direct: neighbour.link.direct,
            since: self.clock.shows(neighbour.since),
            no_answer_since: self.no_answer_since(peer),
            in_sync: self.ledger.in_sync(peer, self.store.version()) && self.is_whole(),
            to_send: neighbour.outbox.len(),
            clock_ahead_ms: self.clock.ahead_of_ours(peer),
        };
        PeerReport {
            peer: self.peer_id(),
            mesh: self.mesh(),
            mesh_name: self.members.genesis().name.clone(),
            role: self.members.get(&self.peer_id()).map(Member::role),
            members: self.members.len(),
            overused: self.members.overused(),
            neighbours: admitted.map(report).collect(),
            restless: self.restless.report(now, |peer| self.members.get(peer).is_some()),
            collections: self.store.collections(),
            documents: self.store.all_alive(),
            documents_bytes: self.store.all_bytes(),
            twice: self.twice_report(now),
            counters: self.counters.clone(),
            open_documents: self.store.open_use(),
            letters: self.store.letters().len() as u64,
            letters_evicted: self.store.letters().evicted(),
            stored: self.store.next_position() - 1,
            clock: self.clock.report(now, !self.store.catalog().expiring().is_empty()),
            disk: DiskReport {
                condition: self.store.condition(),
                rebuilding: self.store.rebuilding().cloned(),
                damaged: self.store.damaged().len() as u64,
                fetching: self.healing && self.neighbours.values().any(Neighbour::is_admitted),
            },
        }
    }
}
