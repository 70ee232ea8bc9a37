//! What the hosts were told: every write that was acknowledged, and what follows from them all.
//!
//! Kept apart from the hosts, so that the checkers at the end of a run compare what the database promised with what it
//! shows, and not the database with itself.

use std::collections::{BTreeMap, BTreeSet};

use aerolithsdb::base::{ChangeHash, DocumentKey};

/// What kind of write was made, and what it adds to its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A document or a field of it.
    Edit,
    /// A delete.
    Delete,
    /// A counter was counted up by so much.
    Count(u64),
    /// So many characters were typed into a text.
    Type(u64),
    /// This was appended to a list.
    Push(u64),
    /// A keystroke of the paper, by its number.
    Key(usize),
}

/// A write that was acknowledged.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// The host that did it.
    pub host: usize,
    /// What it was.
    pub deed: Deed,
    /// Whether a disk lost it before anybody else had it, through no fault of the database.
    pub excused: bool,
}

/// What one document must hold.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// The acknowledged writes, by the heads that they were acknowledged with.
    pub acknowledged: BTreeMap<ChangeHash, Acknowledged>,
    /// Writes that failed, or of which nobody knows: their host died before it could tell.
    pub unknown: Vec<Deed>,
}

/// What all documents must hold.
#[derive(Debug, Default)]
pub struct Expected {
    documents: BTreeMap<DocumentKey, Expectation>,
    /// Acknowledged writes.
    pub writes: u64,
    /// Writes that were refused, or of which nobody knows.
    pub failures: u64,
    /// How often a disk lost something. What builds on that may wait for ever.
    pub losses: u64,
}

impl Expected {
    /// A write was acknowledged.
    pub fn acknowledged(&mut self, document: DocumentKey, heads: &[ChangeHash], host: usize, deed: &Deed) {
        self.writes += 1;
        let expectation = self.documents.entry(document).or_default();
        for head in heads {
            let new = || Acknowledged { host, deed: deed.clone(), excused: false };
            expectation.acknowledged.entry(*head).or_insert_with(new);
        }
    }

    /// A write failed, or its host died before it answered.
    pub fn unknown(&mut self, document: DocumentKey, deed: Deed) {
        self.failures += 1;
        self.documents.entry(document).or_default().unknown.push(deed);
    }

    /// What the documents must hold.
    pub fn documents(&self) -> impl Iterator<Item = (&DocumentKey, &Expectation)> {
        self.documents.iter()
    }

    /// A disk lost something: writes that are nowhere else are excused, whoever acknowledged them. `elsewhere` says
    /// whether another host has a change.
    pub fn excuse(&mut self, mut elsewhere: impl FnMut(&DocumentKey, &ChangeHash) -> bool) {
        self.losses += 1;
        for (document, expectation) in &mut self.documents {
            for (hash, acknowledged) in &mut expectation.acknowledged {
                acknowledged.excused |= !elsewhere(document, hash);
            }
        }
    }
}

/// What a document of one kind adds up to: what was acknowledged for sure, and what may be there as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of what was acknowledged: counted, typed, appended.
    pub sure: (u64, u64, BTreeSet<u64>),
    /// Of that which may be there as well.
    pub maybe: (u64, u64, BTreeSet<u64>),
}

impl Expectation {
    /// How many keystrokes of the paper were typed into it; `None` when some of them may be missing.
    #[must_use]
    pub fn keys(&self) -> Option<usize> {
        let mut typed = BTreeSet::new();
        for write in self.acknowledged.values() {
            if let (Deed::Key(at), false) = (&write.deed, write.excused) {
                typed.insert(*at);
            }
        }
        let is_whole = self.unknown.is_empty() && typed.last().is_none_or(|last| last + 1 == typed.len());
        is_whole.then_some(typed.len())
    }

    /// What the writes add up to.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for acknowledged in self.acknowledged.values() {
            let part = if acknowledged.excused { &mut sums.maybe } else { &mut sums.sure };
            add(part, &acknowledged.deed);
        }
        for deed in &self.unknown {
            add(&mut sums.maybe, deed);
        }
        sums
    }
}

fn add(sums: &mut (u64, u64, BTreeSet<u64>), deed: &Deed) {
    match deed {
        Deed::Edit | Deed::Delete | Deed::Key(_) => {}
        Deed::Count(by) => sums.0 += by,
        Deed::Type(characters) => sums.1 += characters,
        Deed::Push(what) => _ = sums.2.insert(*what),
    }
}
