//! Writing: one change, or several changes of one document, become one atomic batch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Store;
use super::joining::{Added, Fresh};
use super::key::{self, Tag};
use super::record::{LoggedRun, Record, seal};
use super::summary::Sum;
use crate::access::{Ability, Grant};
use crate::base::{ChangeHash, DocumentKey, Hlc};
use crate::document::{Change, Document, Envelope, Refusal, bounded};
use crate::kv::Batch;
use crate::{Error, Result};

/// Changes after which a document gets a snapshot, at the earliest; later ones wait for a sixteenth of
/// the history, so that the cost of snapshots stays a constant share of the cost of changes.
const SNAPSHOT_CHANGES_MIN: u64 = 64;

/// Changes under one signature whose author was found to have the right to write: what may be stored.
#[derive(Debug, Clone)]
pub struct Granted {
    envelope: Envelope,
}

impl Granted {
    /// Joins changes with the grant of their author; `None` when the grant is another's or for something else.
    #[must_use]
    pub fn new(grant: &Grant, envelope: Envelope) -> Option<Self> {
        let needed = Ability::to_write(&envelope.document().collection);
        let fits = grant.peer() == envelope.author().peer && grant.ability() == needed;
        fits.then_some(Self { envelope })
    }

    /// The changes with their header and signature.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    pub(super) fn changes(&self) -> &[Change] {
        self.envelope.changes()
    }
}

/// What became of changes that were to be merged. Those under one signature share their fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// They are in the document now; so many of them were not before.
    Applied(u64),
    /// They were there already.
    Known,
    /// They build on changes that are not here.
    Waiting,
    /// Their author signed a different change under the same sequence number before. When `stands` is set theirs is
    /// the one that stands, see [`Document::stands_before`], and the document is to be [rebuilt](Store::rebuild).
    Forked {
        /// Whether they stand in the place of what is here.
        stands: bool,
    },
    /// They break a rule that every honest peer keeps.
    Invalid(String),
}

/// The part of changes under one signature that is new in a document: those at the end.
pub(super) struct New<'a> {
    pub(super) granted: &'a Granted,
    pub(super) changes: &'a [Change],
}

impl<'a> New<'a> {
    pub(super) fn all(granted: &'a Granted) -> Self {
        Self { granted, changes: granted.changes() }
    }
}

/// What became of a merge.
#[derive(Debug)]
pub struct Merge {
    /// One outcome for each change, in the order in which they were given.
    pub outcomes: Vec<Outcome>,
    /// The document's record after the merge, when anything was applied.
    pub record: Option<Record>,
}

/// What a batch builds on.
#[derive(Clone, Copy)]
pub(super) enum Base<'a> {
    /// Nothing: the document is new here.
    Nothing,
    /// The log of this record.
    Log(&'a Record),
    /// Nothing: what it writes takes the place of this record and of its log.
    Instead(&'a Record),
}

/// The state of a document that a batch writes.
pub(super) struct State {
    heads: Vec<ChangeHash>,
    deleted: bool,
    created: Hlc,
    updated: Hlc,
    view: Bytes,
    conflicts: u64,
}

impl State {
    pub(super) fn of(document: &mut Document) -> Self {
        let deleted = document.is_deleted();
        Self {
            heads: document.heads(),
            deleted,
            created: document.created().unwrap_or_default(),
            updated: document.updated().unwrap_or_default(),
            view: if deleted { Bytes::new() } else { bounded(document.view().into()) },
            conflicts: if deleted { 0 } else { document.conflict_count() },
        }
    }

    /// That of a document after a delete that builds on all of it.
    pub(super) fn deleted(before: &Record, delete: ChangeHash, time: Hlc) -> Self {
        let (created, updated) = (before.created.min(time), before.updated.max(time));
        Self { heads: vec![delete], deleted: true, created, updated, view: Bytes::new(), conflicts: 0 }
    }

    fn of_first(change: &Granted, view: Bytes) -> Self {
        let change = change.envelope.header();
        let (created, updated) = (change.time, change.time);
        Self { heads: vec![change.change], deleted: false, created, updated, view: bounded(view), conflicts: 0 }
    }
}

impl Store {
    /// Stores the first change of a new document of our own. `view` is the document's JSON.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the document exists, and when the disk refuses.
    pub fn create(&mut self, change: &Granted, view: Bytes) -> Result<Record> {
        let document = change.envelope.document();
        if self.record(document)?.is_some() {
            return Err(Error::Conflict(format!("document {document} exists")));
        }
        let state = State::of_first(change, view);
        self.write(document, Base::Nothing, &[New::all(change)], state, None)
    }

    /// Stores a change of our own that the open document holds already.
    ///
    /// # Errors
    /// When the disk refuses; the open document is then dropped.
    pub fn append(&mut self, change: &Granted, record: &Record) -> Result<Record> {
        let key = change.envelope.document().clone();
        let opened = self.open_document(&key, record)?;
        let state = State::of(opened);
        self.write_open(&key, Some(record), &[New::all(change)], state)
    }

    /// Merges changes of one document that arrived, in whatever order. Those that were known or must wait
    /// are left out and reported; the others become one batch.
    ///
    /// # Errors
    /// When the disk cannot be read or refuses.
    pub fn merge(&mut self, document: &DocumentKey, arrived: &[Granted]) -> Result<Merge> {
        let mut before = match self.record(document) {
            Ok(record) => record,
            // A damaged document is built anew from what peers send.
            Err(Error::Corrupt(_)) => None,
            Err(error) => return Err(error),
        };
        if let (Some(record), [delete]) = (&before, arrived)
            && self.is_ended_by(document, record, arrived)?
        {
            let record = self.delete(delete, record)?;
            return Ok(Merge { outcomes: vec![Outcome::Applied(1)], record: Some(record) });
        }
        if let Some(record) = &before
            && let Err(Error::Corrupt(_)) = self.open_document(document, record)
        {
            // The log is damaged under an intact record, which is marked by now: the same.
            before = None;
        }
        if let (None, [only]) = (&before, arrived)
            && let Some(view) = only.envelope.root_view()
        {
            let state = State::of_first(only, view.clone());
            let record = self.write(document, Base::Nothing, &[New::all(only)], state, None)?;
            return Ok(Merge { outcomes: vec![Outcome::Applied(1)], record: Some(record) });
        }
        self.merge_open(document, before.as_ref(), arrived)
    }

    fn merge_open(&mut self, key: &DocumentKey, before: Option<&Record>, arrived: &[Granted]) -> Result<Merge> {
        let opened = match before {
            Some(record) => self.open_document(key, record)?,
            None => self.open.get_or_insert_mut(key.clone(), Document::new),
        };
        let every = arrived.iter().flat_map(Granted::changes);
        let Ok(applied) = opened.apply(every.cloned()) else {
            self.open.pop(key);
            return self.isolate(key, arrived);
        };
        let mut fresh: BTreeSet<ChangeHash> = applied.applied.iter().copied().collect();
        let refused: BTreeMap<ChangeHash, Refusal> = applied.refused.into_iter().collect();
        let mut outcomes = vec![Outcome::Known; arrived.len()];
        let mut order: Vec<usize> = (0..arrived.len()).collect();
        // In this order what is new of a run is its end: whatever else holds its changes starts before it.
        order.sort_by_key(|&index| arrived[index].changes().first().map(|change| (change.position(), change.actor())));
        let mut changes = Vec::new();
        for index in order {
            let run = arrived[index].changes();
            let known = run.iter().take_while(|change| !fresh.contains(&change.hash())).count();
            let new = run.iter().filter(|change| fresh.remove(&change.hash())).count();
            let refusal = run.iter().find_map(|change| refused.get(&change.hash()).map(|refusal| (change, refusal)));
            outcomes[index] = match refusal {
                None if new == 0 => Outcome::Known,
                None => {
                    changes.push(New { granted: &arrived[index], changes: &run[known..] });
                    Outcome::Applied(new as u64)
                }
                Some(_) if new > 0 => {
                    // Its beginning is in the open document, and has no signature without its end.
                    self.open.pop(key);
                    return self.isolate(key, arrived);
                }
                Some((_, Refusal::Missing(_))) => Outcome::Waiting,
                Some((change, Refusal::Fork { with })) => {
                    let opened = self.open.get(key).expect("the document was opened above");
                    Outcome::Forked { stands: opened.stands_before(change, with) }
                }
                Some((_, refusal)) => Outcome::Invalid(refusal.to_string()),
            };
        }
        if changes.is_empty() {
            if before.is_none() {
                self.open.pop(key);
            }
            return Ok(Merge { outcomes, record: None });
        }
        let state = State::of(self.open.get_mut(key).expect("the document was opened above"));
        let record = self.write_open(key, before, &changes, state)?;
        Ok(Merge { outcomes, record: Some(record) })
    }

    /// Automerge failed on one of several changes, or only the beginning of a run fits the document: merge them one at
    /// a time to find out on which.
    fn isolate(&mut self, key: &DocumentKey, arrived: &[Granted]) -> Result<Merge> {
        if arrived.len() == 1 {
            let outcome = Outcome::Invalid("Automerge failed on it, or a part of it".to_owned());
            return Ok(Merge { outcomes: vec![outcome], record: None });
        }
        let (mut outcomes, mut record) = (Vec::with_capacity(arrived.len()), None);
        for change in arrived {
            let mut single = self.merge(key, std::slice::from_ref(change))?;
            outcomes.append(&mut single.outcomes);
            record = single.record.or(record);
        }
        Ok(Merge { outcomes, record })
    }

    /// Writes a document that is open, with a snapshot when one is due. On failure the open document, which
    /// is ahead of the store then, is dropped.
    fn write_open(
        &mut self,
        key: &DocumentKey,
        before: Option<&Record>,
        changes: &[New<'_>],
        state: State,
    ) -> Result<Record> {
        let count: u64 = changes.iter().map(|new| new.changes.len() as u64).sum();
        let (total, loose) = before.map_or((count, count), |r| (r.changes() + count, r.loose_changes + count));
        let due = loose >= SNAPSHOT_CHANGES_MIN.max(total / 16);
        let base = before.map_or(Base::Nothing, Base::Log);
        let written = match (due, self.open.pop(key)) {
            (true, Some(opened)) => {
                let result = self.write(key, base, changes, state, Some(&opened));
                self.open.put(key.clone(), opened);
                result
            }
            (_, opened) => {
                opened.map(|opened| self.open.put(key.clone(), opened));
                self.write(key, base, changes, state, None)
            }
        };
        if written.is_err() {
            self.open.pop(key);
        }
        written
    }

    /// The one batch. `snapshot` is the open document when a snapshot is due.
    pub(super) fn write(
        &mut self,
        key: &DocumentKey,
        base: Base<'_>,
        changes: &[New<'_>],
        state: State,
        snapshot: Option<&Document>,
    ) -> Result<Record> {
        let space = self.space();
        let count: u64 = changes.iter().map(|new| new.changes.len() as u64).sum();
        let (before, log) = match base {
            Base::Nothing => (None, None),
            Base::Log(record) => (Some(record), Some(record)),
            Base::Instead(record) => (Some(record), None),
        };
        let mut batch = Batch::new();
        let mut record = Record {
            number: log.map_or(self.next_position, |record| record.number),
            position: self.next_position,
            deleted: state.deleted,
            created: state.created,
            updated: state.updated,
            heads: state.heads,
            vector: log.map(|record| record.vector.clone()).unwrap_or_default(),
            loose_changes: log.map_or(0, |record| record.loose_changes) + count,
            view: state.view,
            conflicts: Some(state.conflicts),
        };
        let mut fresh = Fresh::new();
        let mut added: BTreeMap<u32, Added> = BTreeMap::new();
        for New { granted, changes } in changes {
            let author = granted.envelope.author();
            let actor = self.number_actor(author.peer, author.incarnation)?;
            let (Some(first), Some(last)) = (changes.first(), changes.last()) else { continue };
            let (before, after) = (first.seq() - 1, last.seq());
            match record.vector.binary_search_by_key(&actor, |entry| entry.0) {
                Ok(index) => record.vector[index].1 = after,
                Err(index) => record.vector.insert(index, (actor, after)),
            }
            added.entry(actor).or_insert(Added { actor, before, after }).after = after;
            let run = granted.envelope.run().last(changes.len());
            let entry = LoggedRun {
                grant: author.grant,
                signature: granted.envelope.signature(),
                position: first.position(),
                run,
            };
            fresh.insert((actor, after), entry);
        }
        for added in added.into_values() {
            self.source().join(key, record.number, added, &mut fresh, &mut batch)?;
        }
        for ((actor, last), entry) in &fresh {
            batch.put(key::log(space, record.number, *actor, *last), seal(entry));
        }
        if let Base::Instead(record) = base {
            self.delete_log(record.number, &mut batch)?;
        }
        if let Some(opened) = snapshot {
            let sealed = Self::take_snapshot(opened, &record.vector);
            batch.put(key::numbered(space, Tag::Snapshot, record.number), sealed);
            record.loose_changes = 0;
        }
        batch.put(key::document(space, key), seal(&record));
        if let Some(before) = before {
            batch.delete(key::feed(space, &key.collection, before.position));
        }
        batch.put(key::feed(space, &key.collection, record.position), key.id.as_str().as_bytes().to_vec());
        if self.damaged.contains(key) {
            batch.delete(key::damaged(space, key));
        }
        self.write_conflict(key, before, &record, &mut batch);
        if self.stale.contains(&key.collection) {
            // The power may go before they are counted again, when nothing else tells that they are wrong.
            batch.put(key::named(space, Tag::Uncounted, key.collection.as_str().as_bytes()), Bytes::new());
        }
        let written = self
            .write_indexes(key, before, &record, &mut batch)
            .and_then(|()| self.write_summary(key, before, &record, &mut batch))
            .and_then(|()| self.apply(batch));
        if let Err(error) = written {
            // The counts in memory are ahead of the disk now.
            self.stale.insert(key.collection.clone());
            return Err(error);
        }
        self.next_position += 1;
        self.damaged.remove(key);
        Ok(record)
    }

    fn write_summary(
        &mut self,
        key: &DocumentKey,
        before: Option<&Record>,
        after: &Record,
        batch: &mut Batch,
    ) -> Result<()> {
        let (space, id) = (self.space(), key.id.as_str());
        let old = before.map(|record| Sum::of_item(id, &record.heads));
        // Taken out while the store is read; put back below whatever happens.
        let mut holding = self.holdings.take(&key.collection);
        let new = Sum::of_item(id, &after.heads);
        let touched =
            holding.summary.update(id.as_bytes(), old, new, |from, to| self.recount(&key.collection, from, to));
        let counts = &mut holding.counts;
        counts.total = holding.summary.total();
        let alive = |record: &Record| u64::from(!record.deleted);
        let bytes = |record: &Record| record.view.len() as u64;
        counts.documents = (counts.documents + alive(after)).saturating_sub(before.map_or(0, alive));
        counts.bytes = (counts.bytes + bytes(after)).saturating_sub(before.map_or(0, bytes));
        batch.put(key::named(space, Tag::Collection, key.collection.as_str().as_bytes()), seal(counts));
        self.holdings.put(&key.collection, holding);
        for node in touched? {
            batch.put(key::summary(space, &key.collection, node.level, &node.boundary), seal(&node.total));
        }
        Ok(())
    }
}
