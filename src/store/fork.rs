//! Forks: an actor signed two different changes under one sequence number, by malice or because its disk went back to
//! an earlier state.
//!
//! Automerge can hold one of them only, and with it only what builds on it. So of the two one stands, by a rule that
//! depends on nothing but the two ([`Document::stands_before`]); the other, with everything that builds on it, is taken
//! out of the document wherever it was applied. Every peer that knows both comes to the same, in whatever order they
//! came. What is taken out is kept as proof. Its other authors did no wrong: each of them makes again what it wrote.
//!
//! The clock of the author decides first because that is what a restored backup needs: what was written before the
//! backup was restored, and what others built on it, is older, and stands. A hostile author can set its clock back, as it
//! could try one change after the other until one has a smaller hash; what it can take out of a document that way are
//! its own changes, and those of others for as long as they are not made again.

use std::collections::{BTreeMap, BTreeSet};

use super::Store;
use super::commit::{Base, Granted, New, State};
use super::letter::Reason;
use super::record::Record;
use crate::base::{ActorId, ChangeHash, DocumentKey};
use crate::document::{Change, Document, Refusal, Unchecked};
use crate::{Error, Result};

/// Forks of one document that are settled at a time.
const FORKS_MAX: usize = 64;

/// What came of settling forks.
#[derive(Debug)]
pub enum Rebuilt {
    /// The document holds what stands.
    Done {
        /// Its record.
        record: Box<Record>,
        /// What was taken out, or never let in: the runs that hold it, and whether their author used a sequence number
        /// twice, or only builds on who did.
        out: Vec<(Granted, Reason)>,
        /// The document as it was before.
        before: Box<Document>,
    },
    /// Some changes that stand came under signatures of changes that do not; whoever sent the fork has others.
    Uncovered,
}

impl Store {
    /// Everything in the log of a document, as it is sent; nothing when there is no such document.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its record is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn stored(&mut self, document: &DocumentKey) -> Result<Vec<Unchecked>> {
        match self.record(document)? {
            Some(record) => self.entries(document, record.number),
            None => Ok(Vec::new()),
        }
    }

    /// Builds a document anew of what stands among `runs`: all that is in its log, and what arrived.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the document is damaged, [`Error::Invalid`] when there are too many forks, and when the
    /// disk refuses. The document is as it was then.
    pub fn rebuild(&mut self, key: &DocumentKey, runs: &[Granted]) -> Result<Rebuilt> {
        let Some(record) = self.record(key)? else { return Ok(Rebuilt::Uncovered) };
        self.open_document(key, &record)?;
        let changes: Vec<&Change> = runs.iter().flat_map(Granted::changes).collect();
        let mut document = settle(&changes)?;
        let Some(new) = cover(&document, runs) else { return Ok(Rebuilt::Uncovered) };
        let Some(before) = self.open.pop(key) else { return Ok(Rebuilt::Uncovered) };
        let state = State::of(&mut document);
        let record = self.write(key, Base::Instead(&record), &new, state, Some(&document))?;
        let out = runs.iter().filter_map(|granted| Some((granted.clone(), fate(&document, granted)?)));
        let out = out.collect();
        self.open.put(key.clone(), document);
        Ok(Rebuilt::Done { record: Box::new(record), out, before: Box::new(before) })
    }
}

/// Why a run, or its end, is not in a document; `None` when all of it is.
fn fate(document: &Document, granted: &Granted) -> Option<Reason> {
    let mut out = granted.changes().iter().filter(|change| !document.has(&change.hash())).peekable();
    out.peek()?;
    let replaced = out.any(|change| change.seq() <= document.sequence(&change.actor()));
    Some(if replaced { Reason::Forked } else { Reason::Fallen })
}

/// The document of all changes but those that lose a fork and what builds on them.
fn settle(changes: &[&Change]) -> Result<Document> {
    let by_hash: BTreeMap<ChangeHash, &Change> = changes.iter().map(|change| (change.hash(), *change)).collect();
    let mut losers = BTreeSet::new();
    while losers.len() <= FORKS_MAX {
        let mut document = Document::new();
        let standing = by_hash.iter().filter(|(hash, _)| !losers.contains(*hash));
        let applied = document.apply(standing.map(|(_, change)| (*change).clone()))?;
        // One fork at a time, the first by its position: what it takes out may settle others.
        let forks = applied.refused.iter().filter_map(|(hash, refusal)| match refusal {
            Refusal::Fork { with } => by_hash.get(hash).map(|change| (change.position(), *hash, *change, *with)),
            Refusal::Missing(_) | Refusal::Sequence { .. } | Refusal::StartOp { .. } | Refusal::Rule(_) => None,
        });
        match forks.min_by_key(|(position, hash, ..)| (*position, *hash)) {
            None => return Ok(document),
            Some((_, hash, change, with)) => {
                losers.insert(if document.stands_before(change, &with) { with } else { hash });
            }
        }
    }
    Err(Error::invalid(format!("a document has more than {FORKS_MAX} forks")))
}

/// The runs, and of each the end, that hold every change of the document once; `None` when some change is in none of
/// them without others after it that are not in the document.
fn cover<'a>(document: &Document, runs: &'a [Granted]) -> Option<Vec<New<'a>>> {
    let mut of_actors: BTreeMap<ActorId, Vec<New<'a>>> = BTreeMap::new();
    let mut wanted: BTreeMap<ActorId, u64> = BTreeMap::new();
    for granted in runs {
        let changes = granted.changes();
        for change in changes.iter().filter(|change| document.has(&change.hash())) {
            let last = wanted.entry(change.actor()).or_default();
            *last = (*last).max(change.seq());
        }
        let kept = changes.iter().rev().take_while(|change| document.has(&change.hash())).count();
        let changes = &changes[changes.len() - kept..];
        if let Some(first) = changes.first() {
            of_actors.entry(first.actor()).or_default().push(New { granted, changes });
        }
    }
    let mut cover = Vec::new();
    for (actor, last) in wanted {
        let mut runs = of_actors.remove(&actor)?;
        runs.sort_by_key(|new| new.changes.first().map(Change::seq));
        let mut next = 1;
        for New { granted, changes } in runs {
            let (first, end) = (changes.first()?.seq(), changes.last()?.seq());
            if first > next {
                return None;
            }
            if end >= next {
                cover.push(New { granted, changes: &changes[usize::try_from(next - first).ok()?..] });
                next = end + 1;
            }
        }
        if next != last + 1 {
            return None;
        }
    }
    cover.sort_by_key(|new| new.changes.first().map(|change| (change.position(), change.actor())));
    Some(cover)
}
