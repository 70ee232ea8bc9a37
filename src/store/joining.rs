//! Keeping the log small: entries of one actor are joined into runs, of which one signature is kept.
//!
//! It happens as changes are written, a step at a time: whenever an actor's changes reach a multiple of
//! [`STEP`], the entries of the block of [`RUN_CHANGES_MAX`] that they are in are joined where they follow each other.
//! So a change is joined at most a few times, and at most [`STEP`] changes of an actor that edits alone lie apart.

use std::collections::BTreeMap;

use super::key;
use super::opened::{Logged, Source};
use super::record::LoggedRun;
use crate::base::DocumentKey;
use crate::kv::Batch;
use crate::limits::RUN_CHANGES_MAX;
use crate::{Error, Result};

/// Changes of an actor after which its entries are joined.
const STEP: u64 = RUN_CHANGES_MAX as u64 / 4;

/// Entries of the log that a batch writes, by actor number and sequence number of their last change.
pub(super) type Fresh = BTreeMap<(u32, u64), LoggedRun>;

/// The changes of one actor that a batch adds to a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Added {
    pub(super) actor: u32,
    /// The last sequence number that was in the log.
    pub(super) before: u64,
    /// The last one that will be.
    pub(super) after: u64,
}

impl Added {
    /// Where blocks end that these changes fill, or fill further by a step.
    fn ends(self) -> impl Iterator<Item = u64> {
        let block = RUN_CHANGES_MAX as u64;
        let full = (self.before / block + 1..=self.after / block).map(move |n| n * block);
        let step = self.after / STEP * STEP;
        full.chain(Some(step).filter(move |step| *step > self.before && step % block != 0))
    }
}

impl Source<'_> {
    /// Joins what can be joined of the blocks that `added` is in: entries are replaced in `fresh`, and those on the
    /// disk that are part of a new one are deleted in `batch`. Damaged ones are left as they are, for readers to find.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub(super) fn join(
        self,
        document: &DocumentKey,
        number: u64,
        added: Added,
        fresh: &mut Fresh,
        batch: &mut Batch,
    ) -> Result<()> {
        for end in added.ends() {
            let entries = match self.block(document, number, added, end, fresh) {
                Ok(entries) => entries,
                Err(Error::Corrupt(_)) => continue,
                Err(error) => return Err(error),
            };
            let mut joined: Vec<Joined> = Vec::new();
            for entry in entries {
                let rest = match joined.last_mut() {
                    Some(last) => last.append(entry),
                    None => Some(entry),
                };
                joined.extend(rest.map(|whole| Joined { whole, parts: Vec::new() }));
            }
            for Joined { whole, parts } in joined.into_iter().filter(|joined| !joined.parts.is_empty()) {
                for part in parts {
                    if part > added.before {
                        fresh.remove(&(added.actor, part));
                    } else {
                        batch.delete(key::log(self.space, number, added.actor, part));
                    }
                }
                fresh.insert((added.actor, whole.last), whole.entry);
            }
        }
        Ok(())
    }

    /// The entries of the block that ends at `end`, or is filled up to there.
    fn block(self, document: &DocumentKey, number: u64, added: Added, end: u64, fresh: &Fresh) -> Result<Vec<Logged>> {
        let (mut next, mut entries) = ((end - 1) / RUN_CHANGES_MAX as u64 * RUN_CHANGES_MAX as u64 + 1, Vec::new());
        while next <= end {
            let new = fresh.range((added.actor, next)..=(added.actor, u64::MAX)).next();
            let entry = match new.filter(|_| next > added.before) {
                Some((&(_, last), entry)) => Logged { last, entry: entry.clone() },
                None => self.logged(document, number, added.actor, next)?,
            };
            next = entry.last + 1;
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// An entry, and under which sequence numbers its parts but the last one were kept.
struct Joined {
    whole: Logged,
    parts: Vec<u64>,
}

impl Joined {
    /// Appends an entry; gives it back when it does not follow.
    fn append(&mut self, next: Logged) -> Option<Logged> {
        let Logged { last, entry } = next;
        if self.whole.entry.grant != entry.grant {
            return Some(Logged { last, entry });
        }
        if let Err(run) = self.whole.entry.run.join(entry.run) {
            return Some(Logged { last, entry: LoggedRun { run, ..entry } });
        }
        self.whole.entry.signature = entry.signature;
        self.parts.push(std::mem::replace(&mut self.whole.last, last));
        None
    }
}
