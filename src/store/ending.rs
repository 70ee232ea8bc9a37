//! Deletes of documents that need not be opened for it: of those that one change comes after all others of, see [`Tip`].

use super::Store;
use super::commit::{Base, Granted, New, State};
use super::record::Record;
use crate::Result;
use crate::base::{ActorId, DocumentKey};
use crate::document::{Change, Tip};

/// Actors of a document up to which its head is looked for: it is the last change of one of them.
const ACTORS_MAX: usize = 4;

impl Store {
    /// The change that comes after all others of a document; `None` when it must be opened to be deleted: it has
    /// several heads, many actors, is deleted, open already, or damaged.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the disk cannot be read.
    pub fn tip(&self, document: &DocumentKey, record: &Record) -> Result<Option<Tip>> {
        let [head] = record.heads.as_slice() else { return Ok(None) };
        let must_open = record.deleted || self.damaged.contains(document) || self.open.contains(document);
        if must_open || record.vector.len() > ACTORS_MAX {
            return Ok(None);
        }
        for &(actor, last) in &record.vector {
            let logged = match self.source().logged(document, record.number, actor, last) {
                Ok(logged) => logged,
                // Opening it will find the same, and say so.
                Err(crate::Error::Corrupt(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            let newest = logged.entry.run.payloads().last();
            let newest = newest.and_then(|payload| Change::screen(payload.clone()).ok());
            if let Some(newest) = newest.filter(|newest| newest.hash() == *head) {
                return Ok(Tip::of(&newest));
            }
        }
        Ok(None)
    }

    /// The number that the next change of an actor has in a document.
    #[must_use]
    pub fn next_sequence(&self, record: &Record, actor: &ActorId) -> u64 {
        self.actors.number(actor).map_or(0, |number| record.sequence(number)) + 1
    }

    /// Stores a delete that the tip of a document takes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn delete(&mut self, change: &Granted, record: &Record) -> Result<Record> {
        let header = change.envelope().header();
        let state = State::deleted(record, header.change, header.time);
        self.write(change.envelope().document(), Base::Log(record), &[New::all(change)], state, None)
    }

    /// Whether what arrived of a document is a delete that its tip takes, so that nothing of it need be opened.
    ///
    /// # Errors
    /// As [`Store::tip`].
    pub fn is_ended_by(&self, document: &DocumentKey, before: &Record, arrived: &[Granted]) -> Result<bool> {
        let [granted] = arrived else { return Ok(false) };
        let [change] = granted.changes() else { return Ok(false) };
        if !change.is_delete() {
            return Ok(false);
        }
        let seq = self.next_sequence(before, &change.actor());
        Ok(self.tip(document, before)?.is_some_and(|tip| tip.takes(change, seq)))
    }
}
