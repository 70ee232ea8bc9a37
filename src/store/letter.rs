//! Dead letters: changes that cannot be applied now but may become valid later, kept with their reason.
//!
//! Nothing disappears silently: a change that waits for its dependencies or for its author's admission
//! is kept, counted and shown, and tried again when what it waits for arrives. The list is bounded, and its
//! room is shared: when it is full the oldest letter gives way of the author that has most in it among those that came
//! from the neighbour that has most in it. So who sends many, under however many names, pushes out its own. What gave
//! way is counted (reconciliation brings the change again).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::key::{self, Space, Tag};
use super::record::{seal, unseal};
use crate::base::{ChangeHash, Decode, DecodeError, DocumentKey, Encode, PeerId, Reader, Timestamp, Writer};
use crate::document::Unchecked;
use crate::kv::{Batch, Kv};
use crate::limits::{DEAD_LETTER_BYTES_MAX, DEAD_LETTERS_MAX};
use crate::{Error, Result};

/// Neighbours that a report names, those with most letters.
const SENDERS_SHOWN: usize = 20;

/// Why a change is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Changes that it builds on are not here yet.
    Dependencies,
    /// Its author is not known as a member yet.
    AuthorUnknown,
    /// Its author is a member without the right to write.
    AuthorDenied,
    /// Its author signed another change under the same sequence number, which stands. Kept as proof.
    Forked,
    /// It builds on one of which that is true; its own author did no wrong.
    Fallen,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::Dependencies, Self::AuthorUnknown, Self::AuthorDenied, Self::Forked, Self::Fallen];

    /// The word by which interfaces show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dependencies => "waiting_for_dependencies",
            Self::AuthorUnknown => "author_not_a_member",
            Self::AuthorDenied => "author_may_not_write",
            Self::Forked => "sequence_number_used_twice",
            Self::Fallen => "builds_on_a_change_that_fell",
        }
    }
}

/// A change that could not be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Why.
    pub reason: Reason,
    /// The peer that sent it.
    pub from: PeerId,
    /// When it arrived.
    pub arrived: Timestamp,
    /// The change, to be checked again when it is tried again.
    pub change: Unchecked,
}

impl Encode for Letter {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.reason as u8).value(&self.from).varint(self.arrived.0).value(&self.change);
    }
}

impl Decode for Letter {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let reason = usize::from(reader.u8()?);
        let reason = *Reason::ALL.get(reason).ok_or(DecodeError::Unknown { what: "reason", value: reason as u64 })?;
        Ok(Self { reason, from: reader.value()?, arrived: Timestamp(reader.varint()?), change: reader.value()? })
    }
}

/// What is known of a letter without reading it.
#[derive(Debug, Clone)]
struct Slip {
    document: DocumentKey,
    from: PeerId,
    author: PeerId,
    reason: Reason,
    arrived: Timestamp,
    bytes: usize,
}

impl Slip {
    /// How much of the room it takes: bytes and a place, each as its share of what there is.
    fn weight(&self) -> usize {
        self.bytes + DEAD_LETTER_BYTES_MAX / DEAD_LETTERS_MAX
    }
}

/// Who has how much of the room. Weights are of neighbours, and of authors among what a neighbour sent.
#[derive(Debug, Default)]
struct Shares {
    weights: BTreeMap<PeerId, usize>,
    by_weight: BTreeSet<(usize, PeerId)>,
}

impl Shares {
    fn change(&mut self, peer: PeerId, by: impl FnOnce(usize) -> usize) {
        let before = self.weights.remove(&peer).unwrap_or(0);
        self.by_weight.remove(&(before, peer));
        let after = by(before);
        if after > 0 {
            self.weights.insert(peer, after);
            self.by_weight.insert((after, peer));
        }
    }

    fn largest(&self) -> Option<PeerId> {
        self.by_weight.last().map(|(_, peer)| *peer)
    }
}

/// The letters that one neighbour sent.
#[derive(Debug, Default)]
struct Sent {
    authors: Shares,
    by_age: BTreeSet<(PeerId, Timestamp, ChangeHash)>,
}

/// The index of the dead letters; the letters themselves are on the disk.
#[derive(Debug, Default)]
pub struct Letters {
    slips: BTreeMap<ChangeHash, Slip>,
    neighbours: Shares,
    sent: BTreeMap<PeerId, Sent>,
    by_document: BTreeMap<DocumentKey, BTreeSet<ChangeHash>>,
    bytes: usize,
    evicted: u64,
}

impl Letters {
    pub(super) fn load(kv: &dyn Kv, space: Space) -> Result<Self> {
        let mut letters = Self::default();
        let (from, to) = key::all(space, Tag::Letter);
        kv.scan(&from, &to, &mut |key, value| {
            let hash = key.get(2..).and_then(|bytes| bytes.try_into().ok()).map(ChangeHash);
            // A damaged letter is left where it is; reconciliation brings the change again.
            if let (Some(hash), Ok(letter)) = (hash, unseal::<Letter>(value)) {
                letters.insert(hash, &letter);
            }
            ControlFlow::Continue(())
        })?;
        Ok(letters)
    }

    /// Number of letters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slips.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slips.is_empty()
    }

    /// Letters that gave way to newer ones since the start.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Number of letters by the neighbour that sent them, of those that have most in the list.
    #[must_use]
    pub fn senders(&self) -> BTreeMap<PeerId, u64> {
        let largest = self.neighbours.by_weight.iter().rev().take(SENDERS_SHOWN);
        largest.map(|(_, peer)| (*peer, self.sent.get(peer).map_or(0, |sent| sent.by_age.len() as u64))).collect()
    }

    /// Number of letters by collection and reason.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(&str, Reason), u64> {
        let mut counts = BTreeMap::new();
        for slip in self.slips.values() {
            *counts.entry((slip.document.collection.as_str(), slip.reason)).or_default() += 1;
        }
        counts
    }

    /// Whether a change is kept as one that lost a fork, or builds on one that did.
    #[must_use]
    pub fn is_out(&self, hash: &ChangeHash) -> bool {
        self.slips.get(hash).is_some_and(|slip| matches!(slip.reason, Reason::Forked | Reason::Fallen))
    }

    /// Who is proven to have used a sequence number twice, and in how many documents.
    #[must_use]
    pub fn forks(&self) -> BTreeMap<PeerId, u64> {
        let forked = self.slips.values().filter(|slip| slip.reason == Reason::Forked);
        let documents: BTreeSet<(PeerId, &DocumentKey)> = forked.map(|slip| (slip.author, &slip.document)).collect();
        let mut forks = BTreeMap::new();
        for (author, _) in documents {
            *forks.entry(author).or_default() += 1;
        }
        forks
    }

    /// The reasons for which changes of a document wait, with their number.
    #[must_use]
    pub fn of_document(&self, document: &DocumentKey) -> BTreeMap<Reason, u64> {
        let mut counts = BTreeMap::new();
        for hash in self.by_document.get(document).into_iter().flatten() {
            *counts.entry(self.slips[hash].reason).or_default() += 1;
        }
        counts
    }

    /// Documents with letters by one of these authors.
    #[must_use]
    pub fn documents_by(&self, authors: &BTreeSet<PeerId>) -> Vec<DocumentKey> {
        let by_one =
            |hashes: &BTreeSet<ChangeHash>| hashes.iter().any(|hash| authors.contains(&self.slips[hash].author));
        self.by_document.iter().filter(|(_, hashes)| by_one(hashes)).map(|(key, _)| key.clone()).collect()
    }

    fn insert(&mut self, hash: ChangeHash, letter: &Letter) {
        let bytes = letter.change.run.bytes() + 256;
        let Letter { reason, arrived, change, .. } = letter;
        let (document, author) = (change.document.clone(), change.author.peer);
        let slip = Slip { document, from: letter.from, author, reason: *reason, arrived: *arrived, bytes };
        let weight = slip.weight();
        self.neighbours.change(slip.from, |before| before + weight);
        let sent = self.sent.entry(slip.from).or_default();
        sent.authors.change(author, |before| before + weight);
        sent.by_age.insert((author, slip.arrived, hash));
        self.by_document.entry(slip.document.clone()).or_default().insert(hash);
        self.bytes += bytes;
        self.slips.insert(hash, slip);
    }

    fn remove(&mut self, hash: &ChangeHash) -> Option<Slip> {
        let slip = self.slips.remove(hash)?;
        let weight = slip.weight();
        self.neighbours.change(slip.from, |before| before - weight);
        if let Some(sent) = self.sent.get_mut(&slip.from) {
            sent.authors.change(slip.author, |before| before - weight);
            sent.by_age.remove(&(slip.author, slip.arrived, *hash));
            if sent.by_age.is_empty() {
                self.sent.remove(&slip.from);
            }
        }
        if let Some(hashes) = self.by_document.get_mut(&slip.document) {
            hashes.remove(hash);
            if hashes.is_empty() {
                self.by_document.remove(&slip.document);
            }
        }
        self.bytes -= slip.bytes;
        Some(slip)
    }

    /// The letter that gives way.
    fn next_out(&self) -> Option<ChangeHash> {
        let sent = self.sent.get(&self.neighbours.largest()?)?;
        let author = sent.authors.largest()?;
        let (of, _, hash) = sent.by_age.range((author, Timestamp(0), ChangeHash([0; 32]))..).next()?;
        (*of == author).then_some(*hash)
    }
}

impl super::Store {
    /// Keeps a letter. One that is there already under this change hash stays as it is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_letter(&mut self, hash: ChangeHash, letter: &Letter) -> Result<()> {
        if self.letters.slips.contains_key(&hash) {
            return Ok(());
        }
        let mut batch = Batch::new();
        while self.letters.len() >= DEAD_LETTERS_MAX || self.letters.bytes >= DEAD_LETTER_BYTES_MAX {
            let Some(out) = self.letters.next_out() else { break };
            self.letters.remove(&out);
            self.letters.evicted += 1;
            batch.delete(key::named(self.space(), Tag::Letter, out.as_bytes()));
        }
        batch.put(key::named(self.space(), Tag::Letter, hash.as_bytes()), seal(letter));
        self.letters.insert(hash, letter);
        self.apply(batch)
    }

    /// Whether one of these changes lost a fork of the document, or builds on one that did.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn is_out(&self, document: &DocumentKey, changes: &[ChangeHash]) -> Result<bool> {
        for hash in self.letters.by_document.get(document).into_iter().flatten() {
            if !self.letters.is_out(hash) {
                continue;
            }
            let sealed = self.kv.get(&key::named(self.space(), Tag::Letter, hash.as_bytes()))?;
            let letter = sealed.and_then(|sealed| unseal::<Letter>(&sealed).ok());
            if letter.is_some_and(|letter| letter.change.run.hashes().any(|hash| changes.contains(&hash))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the letters of a document that wait for one of `reasons` out of the list.
    ///
    /// # Errors
    /// When the disk cannot be read or refuses.
    pub fn take_letters(&mut self, document: &DocumentKey, reasons: &[Reason]) -> Result<Vec<Letter>> {
        let Some(hashes) = self.letters.by_document.get(document) else { return Ok(Vec::new()) };
        let due: Vec<ChangeHash> =
            hashes.iter().filter(|hash| reasons.contains(&self.letters.slips[*hash].reason)).copied().collect();
        let (mut letters, mut batch) = (Vec::new(), Batch::new());
        for hash in due {
            let key = key::named(self.space(), Tag::Letter, hash.as_bytes());
            let sealed = self.kv.get(&key).map_err(Error::from)?;
            letters.extend(sealed.and_then(|sealed| unseal(&sealed).ok()));
            self.letters.remove(&hash);
            batch.delete(key);
        }
        if !batch.is_empty() {
            self.apply(batch)?;
        }
        Ok(letters)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{GrantId, Incarnation};
    use crate::document::{Author, Run};
    use crate::kv::MemoryKv;
    use crate::store::{Loss, Store};

    fn open(kv: &Arc<MemoryKv>) -> Store {
        Store::open(kv.clone(), Incarnation([1; 8]), Loss::Nothing).unwrap()
    }

    /// Keeps a letter about a document of its own.
    fn keep(store: &mut Store, from: u8, author: u8, n: u32) {
        let document =
            DocumentKey::new(format!("from-{from}").parse().unwrap(), format!("{author}-{n}").parse().unwrap());
        let hash = ChangeHash(*blake3::hash(document.to_string().as_bytes()).as_bytes());
        let author = Author { peer: PeerId([author; 32]), incarnation: Incarnation([1; 8]), grant: GrantId([0; 32]) };
        let run = Run::of(vec![0; 10].into());
        let change = Unchecked { document, author, signature: [0; 64], run };
        let (reason, from, arrived) = (Reason::Dependencies, PeerId([from; 32]), Timestamp(u64::from(n)));
        store.keep_letter(hash, &Letter { reason, from, arrived, change }).unwrap();
    }

    fn count(store: &Store, from: u8) -> u64 {
        store.letters().counts().get(&(format!("from-{from}").as_str(), Reason::Dependencies)).copied().unwrap_or(0)
    }

    #[test]
    fn who_sends_many_letters_pushes_out_its_own() {
        let kv = Arc::new(MemoryKv::new());
        let mut store = open(&kv);
        (0..100).for_each(|n| keep(&mut store, 1, 1, n));
        (0..3_000).for_each(|n| keep(&mut store, 2, 2, n));
        // One neighbour under many names, and one author among those that another neighbour sends.
        (0..12_000).for_each(|n| keep(&mut store, 3, (n % 200) as u8, 1_000 + n));
        (0..4_000).for_each(|n| keep(&mut store, 2, 9, 20_000 + n));
        assert_eq!((count(&store, 1), store.letters().len()), (100, DEAD_LETTERS_MAX));
        assert!(count(&store, 2) > 4_500 && count(&store, 3) > 4_500);
        let by_two = BTreeSet::from([PeerId([2; 32])]);
        let kept =
            store.letters().documents_by(&by_two).iter().filter(|key| key.collection.as_str() == "from-2").count();
        assert!(kept > 2_000, "{kept} of 3,000");
        // A start finds the same, and goes on in the same way.
        let mut again = open(&kv);
        for store in [&mut store, &mut again] {
            (0..500).for_each(|n| keep(store, 4, 4, 30_000 + n));
        }
        assert_eq!(store.letters().counts(), again.letters().counts());
        assert_eq!(count(&store, 4), 500);
    }
}
