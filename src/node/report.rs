//! What status calls show: plain values, which the interfaces give their own shape.

use std::collections::BTreeMap;

use crate::Result;
use crate::access::Role;
use crate::base::{ChangeHash, CollectionName, DocumentKey, Hlc, MeshId, PeerId, Timestamp};
use crate::kv::CacheUse;
use crate::store::Reason;
use crate::sync::Standing;

use super::neighbour::Neighbour;
use super::{Counters, Node};

/// Who is in sync, as of when, behind by how much, and what is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncReport {
    /// Every collection.
    pub collections: Vec<CollectionReport>,
    /// Dead letters by collection and reason.
    pub letters: Vec<LetterReport>,
    /// Dead letters that gave way to newer ones since the start.
    pub letters_evicted: u64,
    /// Who is proven to have used a sequence number twice, and in how many documents.
    pub forks: BTreeMap<PeerId, u64>,
    /// Documents found damaged on the disk and not fetched again yet.
    pub damaged: Vec<DocumentKey>,
    /// Changes dropped since the start, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// One collection and how every known peer stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionReport {
    /// The collection.
    pub collection: CollectionName,
    /// Documents here, deleted ones included.
    pub count: u64,
    /// Every peer that was ever compared since the start.
    pub peers: Vec<StandingReport>,
}

/// How a peer stands in one collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingReport {
    /// The peer.
    pub peer: PeerId,
    /// Whether it is connected now.
    pub connected: bool,
    /// What the last comparison found.
    pub standing: Standing,
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
    /// Whether the last comparison found everything equal, and nothing changed here since.
    pub has_all: bool,
    /// When it was last compared.
    pub compared_at: Option<Timestamp>,
}

/// A member of the mesh.
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
    /// Members that are connected.
    pub neighbours: Vec<NeighbourReport>,
    /// Counters since the start.
    pub counters: Counters,
    /// How often a document that was needed was open already.
    pub open_documents: CacheUse,
    /// Dead letters.
    pub letters: u64,
    /// Batches of changes ever stored here.
    pub stored: u64,
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
    /// Whether the last comparison found everything equal, and nothing changed here since.
    pub in_sync: bool,
    /// Ranges and documents queued for it, and frames under way.
    pub to_send: usize,
    /// By how much its clock is ahead of ours, in milliseconds, as far as its greeting told.
    pub clock_ahead_ms: i64,
}

impl Node {
    pub(super) fn sync_report(&self) -> SyncReport {
        let collection = |(name, total): (&CollectionName, crate::store::Total)| CollectionReport {
            collection: name.clone(),
            count: total.count,
            peers: self.standings(name),
        };
        let letter = |((collection, reason), count): ((&str, Reason), u64)| LetterReport {
            collection: collection.to_owned(),
            reason,
            count,
        };
        SyncReport {
            collections: self.store.totals().map(collection).collect(),
            letters: self.store.letters().counts().into_iter().map(letter).collect(),
            letters_evicted: self.store.letters().evicted(),
            forks: self.store.letters().forks(),
            damaged: self.store.damaged().iter().take(1_000).cloned().collect(),
            dropped: self.counters.dropped.clone(),
        }
    }

    fn standings(&self, collection: &CollectionName) -> Vec<StandingReport> {
        let total = self.store.total(collection);
        let of = |(peer, standings): (&PeerId, &BTreeMap<CollectionName, Standing>)| {
            let connected = self.neighbours.get(peer).is_some_and(Neighbour::is_admitted);
            let report = |&standing: &Standing| {
                let changed_here_since = standing.total != total;
                StandingReport { peer: *peer, connected, standing, changed_here_since }
            };
            standings.get(collection).map(report)
        };
        self.ledger.iter().filter_map(of).collect()
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
        let report = |member: &crate::access::Member| MemberReport {
            peer: member.peer(),
            role: member.role(),
            since: member.since(),
            admitted_by: member.record().joined().map(|joined| joined.admission.body.admitted_by),
            connected: member.peer() == self.peer_id()
                || self.neighbours.get(&member.peer()).is_some_and(Neighbour::is_admitted),
        };
        self.members.iter().map(report).collect()
    }

    pub(super) fn peer_report(&self) -> PeerReport {
        let admitted = self.neighbours.iter().filter(|(_, neighbour)| neighbour.is_admitted());
        let report = |(peer, neighbour): (&PeerId, &Neighbour)| NeighbourReport {
            peer: *peer,
            address: neighbour.link.address.clone(),
            direct: neighbour.link.direct,
            since: neighbour.since,
            in_sync: self.ledger.in_sync(peer, self.store.totals()) && self.store.damaged().is_empty(),
            to_send: neighbour.outbox.len(),
            clock_ahead_ms: neighbour.clock_ahead_ms,
        };
        PeerReport {
            peer: self.peer_id(),
            mesh: self.mesh(),
            mesh_name: self.members.genesis().name.clone(),
            role: self.members.get(&self.peer_id()).map(crate::access::Member::role),
            members: self.members.len(),
            neighbours: admitted.map(report).collect(),
            counters: self.counters.clone(),
            open_documents: self.store.open_use(),
            letters: self.store.letters().len() as u64,
            stored: self.store.next_position() - 1,
        }
    }
}
