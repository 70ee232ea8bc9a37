//! What is known about who is in sync, kept to tell the truth: "in sync" is said only of a comparison
//! that was made, with its time, and with what has changed here since.

use std::collections::BTreeMap;

use crate::base::{CollectionName, PeerId, Timestamp};
use crate::store::Total;

/// How a peer and this one stand in one collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// When both were last found equal.
    pub equal_at: Option<Timestamp>,
    /// When they were last compared at all.
    pub compared_at: Option<Timestamp>,
    /// Whether the last comparison found them equal.
    pub equal: bool,
    /// What was here at the last comparison.
    pub total: Total,
    /// Documents in the collection over there, deleted ones included, at the last comparison.
    pub their_count: u64,
    /// Documents of which the peer was found to have something that is not here, less what has arrived.
    pub to_receive: u64,
}

/// The standings of all peers that were ever compared since the start.
#[derive(Debug, Default)]
pub struct Ledger {
    standings: BTreeMap<PeerId, BTreeMap<CollectionName, Standing>>,
}

impl Ledger {
    /// Takes note of a comparison.
    pub fn compared(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        collection: &CollectionName,
        equal: bool,
        their_count: u64,
        total: Total,
    ) {
        let standing = self.standings.entry(peer).or_default().entry(collection.clone()).or_default();
        standing.compared_at = Some(now);
        standing.equal = equal;
        standing.their_count = their_count;
        standing.total = total;
        standing.to_receive = 0;
        if equal {
            standing.equal_at = Some(now);
        }
    }

    /// Takes note of a comparison with a peer, also when there was nothing to compare.
    pub fn met(&mut self, peer: PeerId) {
        self.standings.entry(peer).or_default();
    }

    /// Takes note of documents that a comparison found to be missing or behind here.
    pub fn expects(&mut self, peer: PeerId, collection: &CollectionName, documents: u64) {
        if let Some(standing) = self.standings.entry(peer).or_default().get_mut(collection) {
            standing.to_receive += documents;
        }
    }

    /// Takes note of a document that arrived from a peer.
    pub fn arrived(&mut self, peer: PeerId, collection: &CollectionName) {
        if let Some(standing) = self.standings.get_mut(&peer).and_then(|standings| standings.get_mut(collection)) {
            standing.to_receive = standing.to_receive.saturating_sub(1);
        }
    }

    /// Every standing of a peer.
    #[must_use]
    pub fn of(&self, peer: &PeerId) -> Option<&BTreeMap<CollectionName, Standing>> {
        self.standings.get(peer)
    }

    /// Every peer with its standings.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &BTreeMap<CollectionName, Standing>)> {
        self.standings.iter()
    }

    /// Whether the last comparison with a peer found every collection equal, and none of those that are here, with
    /// these totals, has changed since.
    #[must_use]
    pub fn in_sync<'a>(&self, peer: &PeerId, mut totals: impl Iterator<Item = (&'a CollectionName, Total)>) -> bool {
        let Some(standings) = self.standings.get(peer) else { return false };
        let unchanged = |(name, total): (&CollectionName, Total)| match standings.get(name) {
            Some(standing) => standing.total == total,
            None => total == Total::default(),
        };
        standings.values().all(|standing| standing.equal) && totals.all(unchanged)
    }
}
