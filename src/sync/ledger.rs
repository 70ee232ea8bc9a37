//! What is known about who is in sync, kept to tell the truth: "in sync" is said only of a comparison
//! that was made, with its time, and with what has changed here since.
//!
//! Of a comparison only what differs is kept, so that it takes no more memory with many collections.

use std::collections::BTreeMap;

use super::directory::{Answer, Range};
use crate::base::{CollectionName, PeerId, Timestamp};

/// How a peer and this one stand in one collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// When both were last found equal, as far as it is remembered.
    pub equal_at: Option<Timestamp>,
    /// When they were last compared; `None` also while it is not known which collections differ.
    pub compared_at: Option<Timestamp>,
    /// Whether the last comparison found them equal.
    pub equal: bool,
    /// Documents in the collection over there, deleted ones included, at the last comparison, when they differed.
    pub their_count: Option<u64>,
    /// Documents of which the peer was found to have something that is not here, less what has arrived.
    pub to_receive: u64,
}

/// The last comparison with a peer.
#[derive(Debug, Default)]
pub struct Comparison {
    at: Option<Timestamp>,
    /// The version of the store, see [`Store::version`](crate::store::Store::version).
    version: u64,
    /// When everything was last equal.
    equal_at: Option<Timestamp>,
    differing: BTreeMap<CollectionName, Standing>,
    /// Ranges of names in which some collection differs, and it is not known yet which.
    unresolved: Vec<Range>,
    /// Documents in all collections over there, deleted ones included, as it said last.
    their_documents: Option<u64>,
}

impl Comparison {
    /// When it was made.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.at
    }

    /// The version of the store with which it was made.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The collections that differed, as far as they are known.
    pub fn differing(&self) -> impl Iterator<Item = &CollectionName> {
        self.differing.keys()
    }

    /// When everything was last found equal.
    #[must_use]
    pub fn equal_at(&self) -> Option<Timestamp> {
        self.equal_at
    }

    /// Whether all collections that differ are known.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.unresolved.is_empty()
    }

    /// Documents in all collections over there, deleted ones included.
    #[must_use]
    pub fn their_documents(&self) -> Option<u64> {
        self.their_documents
    }

    /// How a collection stood.
    #[must_use]
    pub fn standing(&self, collection: &CollectionName) -> Standing {
        if let Some(standing) = self.differing.get(collection) {
            return *standing;
        }
        let is_within = |(from, to): &Range| {
            from.as_ref().is_none_or(|from| from <= collection) && to.as_ref().is_none_or(|to| collection < to)
        };
        if self.unresolved.iter().any(is_within) {
            return Standing { equal_at: self.equal_at, ..Standing::default() };
        }
        Standing { equal_at: self.at, compared_at: self.at, equal: self.at.is_some(), ..Standing::default() }
    }

    /// Whether nothing differed.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differing.is_empty() && self.unresolved.is_empty()
    }

    /// Takes note of what a message led to. Each is about all names, and whatever it skips is equal, or was told before.
    fn note(&mut self, now: Timestamp, found: &Answer) {
        let standing = |(name, count): &(CollectionName, u64)| {
            let equal_at = self.standing(name).equal_at;
            let (compared_at, their_count) = (Some(now), Some(*count));
            (name.clone(), Standing { equal_at, compared_at, equal: false, their_count, to_receive: 0 })
        };
        let differing: Vec<_> = found.differing.iter().map(standing).collect();
        self.differing.extend(differing);
        self.unresolved.clone_from(&found.unresolved);
    }
}

/// The last comparisons with all peers that were ever compared since the start.
#[derive(Debug, Default)]
pub struct Ledger {
    comparisons: BTreeMap<PeerId, Comparison>,
}

impl Ledger {
    /// Takes note of a question or its answer, which begin a comparison of what was here at that time and version.
    pub fn compared(&mut self, at: Timestamp, version: u64, peer: PeerId, found: &Answer) {
        let comparison = self.comparisons.entry(peer).or_default();
        comparison.note(at, found);
        let differs = |name: &CollectionName| found.differing.binary_search_by(|(other, _)| other.cmp(name)).is_ok();
        comparison.differing.retain(|name, _| differs(name));
        (comparison.at, comparison.version) = (Some(at), version);
        if comparison.is_equal() {
            comparison.equal_at = Some(at);
        }
    }

    /// Takes note of what came out later in the same comparison.
    pub fn resolved(&mut self, now: Timestamp, peer: PeerId, found: &Answer) {
        if let Some(comparison) = self.comparisons.get_mut(&peer) {
            comparison.note(now, found);
        }
    }

    /// Takes note of how many documents a peer that was compared has in all collections.
    pub fn told(&mut self, peer: PeerId, documents: u64) {
        if let Some(comparison) = self.comparisons.get_mut(&peer) {
            comparison.their_documents = Some(documents);
        }
    }

    /// The last comparison with a peer.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Comparison> {
        self.comparisons.get(peer)
    }

    /// Takes note of documents that a comparison found to be missing or behind here.
    pub fn expects(&mut self, peer: PeerId, collection: &CollectionName, documents: u64) {
        if let Some(standing) = self.differing(peer, collection) {
            standing.to_receive += documents;
        }
    }

    /// Takes note of a document that arrived from a peer.
    pub fn arrived(&mut self, peer: PeerId, collection: &CollectionName) {
        if let Some(standing) = self.differing(peer, collection) {
            standing.to_receive = standing.to_receive.saturating_sub(1);
        }
    }

    fn differing(&mut self, peer: PeerId, collection: &CollectionName) -> Option<&mut Standing> {
        self.comparisons.get_mut(&peer)?.differing.get_mut(collection)
    }

    /// Every peer with the last comparison.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Comparison)> {
        self.comparisons.iter()
    }

    /// Whether the last comparison with a peer found everything equal, and nothing has changed in a store of this version
    /// since.
    #[must_use]
    pub fn in_sync(&self, peer: &PeerId, version: u64) -> bool {
        self.comparisons.get(peer).is_some_and(|found| found.is_equal() && found.version == version)
    }
}
