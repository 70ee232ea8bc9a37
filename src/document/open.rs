//! An open document.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{Automerge, AutomergeError, LoadOptions, ReadDoc, hydrate};

use crate::base::{ActorId, ChangeHash, Hlc};
use crate::error::{Error, Invalid, InvalidKind};
use crate::limits::{CHANGE_DEPS_MAX, CHANGE_OPS_MAX};

use super::change::{Change, check_depth, position};
use super::counter::Increments;
use super::error::{Broken, Refusal, ScreenError};
use super::history::{Clock, History, Link};
use super::json::Object;
use super::operation::{DELETE_MARK, OpRef, Parsed};
use super::patch::Patch;
use super::place::{Place, Places, Resolved, places};
use super::present::{self, ENCODING, Reader};
use super::{apply, edit, view};

/// Bytes of memory of an open document before its first operation, as measured.
const OPEN_BYTES: usize = 31 << 10;
/// Bytes of memory per operation within Automerge, about.
const OPERATION_BYTES: usize = 40;

/// A document in memory, with its whole history.
///
/// Documents with the same changes have the same heads and the same view, in whatever order and in whatever
/// batches the changes came. Nothing of this is durable: the caller stores the changes that it gets.
#[derive(Debug)]
pub struct Document {
    pub(super) doc: Doc,
    pub(super) history: History,
    /// Where each operation acts; kept once a change of somebody else had to be judged.
    places: Option<Places>,
    /// What counters count together; kept once several of them were found at one place.
    increments: OnceLock<Increments>,
    /// Places with several values; `None` when they are to be counted.
    pub(super) conflict_count: Option<u64>,
    /// Whether some place may have several values, be they the same.
    pub(super) has_rivals: bool,
}

impl Default for Document {
    fn default() -> Self {
        let (doc, history, places, increments) = Default::default();
        Self { doc, history, places, increments, conflict_count: Some(0), has_rivals: false }
    }
}

pub(super) struct Doc(pub(super) Automerge);

impl Default for Doc {
    fn default() -> Self {
        Self(Automerge::new_with_encoding(ENCODING))
    }
}

impl fmt::Debug for Doc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Automerge")
    }
}

/// What became of the changes given to [`Document::apply`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Those that are new in the document, after their dependencies.
    pub applied: Vec<ChangeHash>,
    /// Those that were refused; the document is as if they had not been given.
    pub refused: Vec<(ChangeHash, Refusal)>,
}

impl Document {
    /// A document without any change, to apply those of others to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new document with the given fields, and its first change.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the fields are nested too deeply, or (`TooLarge`) the change would exceed its limits.
    pub fn create(actor: ActorId, now: Hlc, fields: &Object) -> Result<(Self, Change), Error> {
        let change = Change::create(actor, now, fields)?;
        let mut document = Self::new();
        let Applied { refused, .. } = document.apply([change.clone()])?;
        match refused.into_iter().next() {
            None => Ok((document, change)),
            Some((_, refusal)) => Err(Broken(format!("its own change was refused: {refusal}")).into()),
        }
    }

    /// Reads what [`Document::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes are anything else.
    pub fn load(snapshot: &[u8]) -> Result<Self, Error> {
        let load = || Automerge::load_with_options(snapshot, LoadOptions::new().text_encoding(ENCODING));
        let doc =
            guarded("loading", load).map_err(|Broken(why)| Error::Corrupt(format!("document snapshot: {why}")))?;
        let mut history = History::default();
        for meta in doc.get_changes_meta(&[]) {
            let damaged = || Error::Corrupt(format!("document snapshot: change {} is not one of ours", meta.hash));
            let is_delete = meta.message.as_deref() == Some(DELETE_MARK);
            let deps: Vec<ChangeHash> = meta.deps.iter().map(|dep| ChangeHash(dep.0)).collect();
            history.push(&Link {
                hash: ChangeHash(meta.hash.0),
                actor: ActorId(meta.actor.to_bytes().try_into().map_err(|_| damaged())?),
                seq: meta.seq,
                position: position(meta.start_op, is_delete),
                max_op: meta.max_op,
                time: Hlc::from_packed(meta.timestamp).ok_or_else(damaged)?,
                is_delete,
                deps: &deps,
            });
        }
        if history.len() == 0 {
            return Err(Error::Corrupt("document snapshot: no changes in it".to_owned()));
        }
        Ok(Self { doc: Doc(doc), history, conflict_count: None, ..Self::default() })
    }

    /// The whole document with its history, compacted.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.doc.0.save()
    }

    /// Turns the fields into the given ones by the smallest edit; `None` when they are the same. A deleted
    /// document is revived: the given fields are written anew, and nothing of the old ones stays.
    ///
    /// # Errors
    /// [`Error::Invalid`] as for [`Document::create`]; the document stays as it was.
    /// [`Error::Corrupt`] when the document must be loaded again.
    pub fn replace(&mut self, actor: ActorId, now: Hlc, fields: &Object) -> Result<Option<Change>, Error> {
        check_depth(fields)?;
        if self.history.is_deleted() {
            return self.edit(actor, now, |tx, _| edit::rewrite(tx, fields));
        }
        self.edit(actor, now, |tx, reader| {
            let present = reader.fields(tx)?;
            edit::replace(tx, &present, fields)
        })
    }

    /// Applies a patch, all of it or nothing; `None` when it changes nothing. `$currentDate` writes the physical
    /// part of `now`. A document without changes, or one that is deleted, is made: the patch starts from no fields.
    ///
    /// `shown_bytes` is the size of the present view: a patch may not make a document larger than one request may
    /// hold, unless it is so already and does not grow.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the patch does not fit what the document holds, with the path as its field (`Test` when
    /// a test in it failed), and as for [`Document::create`]; the document stays as it was.
    /// [`Error::Corrupt`] when the document must be loaded again.
    pub fn patch(
        &mut self,
        actor: ActorId,
        now: Hlc,
        patch: &Patch,
        shown_bytes: usize,
    ) -> Result<Option<Change>, Error> {
        let is_new = self.history.len() == 0 || self.history.is_deleted();
        self.edit(actor, now, |tx, reader| {
            if is_new {
                edit::clear(tx)?;
            }
            apply::patch(tx, reader, now.physical(), patch, shown_bytes)?;
            if is_new { edit::touch(tx) } else { Ok(()) }
        })
    }

    /// Deletes the document; `None` when it is deleted already, or has no changes.
    ///
    /// # Errors
    /// As [`Document::replace`].
    pub fn delete(&mut self, actor: ActorId, now: Hlc) -> Result<Option<Change>, Error> {
        let mut deps: Vec<ChangeHash> = self.history.edit_heads().copied().collect();
        if deps.is_empty() {
            return Ok(None);
        }
        // An actor's changes form a chain: its last one must be in the past of this one.
        let mut seq = 1;
        if let Some((last_seq, last)) = self.history.last(&actor) {
            seq = last_seq + 1;
            let past = self.history.clock(&deps);
            if self.history.lane(&actor).is_some_and(|lane| past.get(lane) < last_seq) {
                deps.push(last);
                deps.sort_unstable();
            }
        }
        too_large(deps.len() > CHANGE_DEPS_MAX, "the document has too many branches to depend on")?;
        let start_op = self.history.max_op(&deps) + 1;
        let change = Change::delete(actor, seq, start_op, now, &deps).map_err(own_fault)?;
        let Applied { refused, .. } = self.apply([change.clone()])?;
        match refused.into_iter().next() {
            None => Ok(Some(change)),
            Some((_, refusal)) => Err(Broken(format!("its own delete was refused: {refusal}")).into()),
        }
    }

    /// Brings a deleted document back as it was before; `None` when it is not deleted.
    ///
    /// # Errors
    /// As [`Document::replace`].
    pub fn keep(&mut self, actor: ActorId, now: Hlc) -> Result<Option<Change>, Error> {
        if !self.history.is_deleted() {
            return Ok(None);
        }
        self.edit(actor, now, |tx, _| edit::touch(tx))
    }

    /// Who made a change of this document, and whether it is a delete.
    #[must_use]
    pub fn maker(&self, change: &ChangeHash) -> Option<(ActorId, bool)> {
        self.history.maker(change)
    }

    /// When a change of this document was made, by its author's clock.
    #[must_use]
    pub fn made_at(&self, change: &ChangeHash) -> Option<Hlc> {
        self.history.time_of(change)
    }

    /// Takes changes, in any order. Known ones are passed over, and each of the others is taken or refused by
    /// itself: a change is only taken after all of its dependencies.
    ///
    /// # Errors
    /// [`Broken`] when Automerge failed on what the checks let through: discard the document and load it again.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<Applied, Broken> {
        let changes: Vec<Change> = changes.into_iter().filter(|change| !self.has(&change.hash())).collect();
        if self.places.is_none() && changes.iter().any(|change| !change.is_delete() && !change.deps().is_empty()) {
            self.places = Some(self.build_places()?);
        }
        self.take(changes)
    }

    /// As [`Document::apply`], for changes that were judged before they were stored: their references are not looked
    /// up again, which spares reading the whole history for them.
    ///
    /// # Errors
    /// As [`Document::apply`].
    pub fn apply_stored(&mut self, changes: Vec<Change>) -> Result<Applied, Broken> {
        self.places = None;
        self.take(changes)
    }

    fn take(&mut self, mut changes: Vec<Change>) -> Result<Applied, Broken> {
        changes.sort_by_cached_key(|change| (change.position(), change.actor(), change.seq()));
        let mut outcome = Applied::default();
        let mut batch = Vec::with_capacity(changes.len());
        for change in changes {
            if self.has(&change.hash()) {
                continue;
            }
            match self.admit(&change) {
                Ok(()) => {
                    outcome.applied.push(change.hash());
                    batch.push(change.into_inner());
                }
                Err(refusal) => outcome.refused.push((change.hash(), refusal)),
            }
        }
        let doc = &mut self.doc.0;
        guarded("applying changes", || doc.apply_changes(batch))?;
        Ok(outcome)
    }

    /// The bytes of all changes, as Automerge writes them anew from its operations.
    #[cfg(test)]
    pub(super) fn doc_changes(&self) -> Vec<Vec<u8>> {
        self.doc.0.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect()
    }

    fn admit(&mut self, change: &Change) -> Result<(), Refusal> {
        let past = self.history.admit(change)?;
        self.note_conflicts(change);
        if let Some(known) = &mut self.places {
            let parsed = change.parsed().map_err(unscreened)?;
            let places = judge(&parsed, &self.history, &past, known).map_err(unscreened)?;
            known.push(self.history.lane_or_next(&change.actor()), change.start_op() as u32, places);
        }
        if let Some(known) = self.increments.get_mut() {
            change.parsed().and_then(|parsed| known.push(&parsed)).map_err(unscreened)?;
        }
        self.history.push(&change.link());
        Ok(())
    }

    /// The places of all operations so far, whose changes were judged before or are our own.
    fn build_places(&self) -> Result<Places, Broken> {
        let mut known = Places::default();
        let past = self.history.clock(&self.heads());
        for change in guarded("reading changes", || Ok(self.doc.0.get_changes(&[])))? {
            let damaged = |error: ScreenError| Broken(format!("change {}: {error}", change.hash()));
            let parsed = Parsed::read(change.raw_bytes()).map_err(damaged)?;
            let places = judge(&parsed, &self.history, &past, &mut known).map_err(damaged)?;
            known.push(self.history.lane_or_next(&parsed.actors[0]), parsed.start_op, places);
        }
        Ok(known)
    }

    /// The increments of all changes so far.
    fn increments(&self) -> Result<&Increments, Broken> {
        if let Some(known) = self.increments.get() {
            return Ok(known);
        }
        let known = increments(&self.doc.0)?;
        Ok(self.increments.get_or_init(|| known))
    }

    /// Makes a change. What `make` did is taken back when it fails, and when it had to read what needs the
    /// increments, which a transaction cannot reach: then they are fetched, and it starts over.
    fn edit(
        &mut self,
        actor: ActorId,
        now: Hlc,
        make: impl Fn(&mut Transaction<'_>, &Reader<'_>) -> Result<(), Error>,
    ) -> Result<Option<Change>, Error> {
        // One more dependency may come in: the actor's own last change.
        too_large(self.history.heads().count() >= CHANGE_DEPS_MAX, "the document has too many branches to depend on")?;
        self.doc.0.set_actor(actor.0.into());
        let reader = Reader::new(self.increments.get());
        let mut tx = self.doc.0.transaction();
        // A transaction that is dropped rolls back.
        let mut made = make(&mut tx, &reader);
        if reader.missed() {
            tx.rollback();
            self.increments()?;
            tx = self.doc.0.transaction();
            made = make(&mut tx, &Reader::new(self.increments.get()));
        }
        made?;
        if tx.pending_ops() == 0 {
            return Ok(None);
        }
        too_large(tx.pending_ops() as u64 > CHANGE_OPS_MAX, "the edit has too many operations")?;
        tx.commit_with(CommitOptions::default().with_time(now.packed()));
        let made = self.doc.0.get_last_local_change();
        let made = made.ok_or_else(|| Error::from(Broken("Automerge kept no change of a commit".to_owned())))?;
        let hash = made.hash();
        match Change::own(made) {
            Ok(change) => {
                self.adopt(&change)?;
                Ok(Some(change))
            }
            Err(refused) => {
                self.undo(hash)?;
                Err(refused.into())
            }
        }
    }

    /// Notes a change that Automerge made itself.
    fn adopt(&mut self, change: &Change) -> Result<(), Error> {
        self.note_conflicts(change);
        if let Some(known) = &mut self.places {
            let past = self.history.clock(change.deps());
            let places = judge(&change.parsed().map_err(own_fault)?, &self.history, &past, known).map_err(own_fault)?;
            known.push(self.history.lane_or_next(&change.actor()), change.start_op() as u32, places);
        }
        if let Some(known) = self.increments.get_mut() {
            change.parsed().and_then(|parsed| known.push(&parsed)).map_err(own_fault)?;
        }
        self.history.push(&change.link());
        Ok(())
    }

    /// Takes back the last change, by building the document again without it.
    fn undo(&mut self, last: automerge::ChangeHash) -> Result<(), Broken> {
        let rest: Vec<_> = self.doc.0.get_changes(&[]).into_iter().filter(|change| change.hash() != last).collect();
        let mut doc = Doc::default();
        guarded("applying changes", || doc.0.apply_changes(rest))?;
        self.doc = doc;
        Ok(())
    }

    /// Whether a change is part of the document.
    #[must_use]
    pub fn has(&self, hash: &ChangeHash) -> bool {
        self.history.has(hash)
    }

    /// The last sequence number of an actor; 0 when it made no change here.
    #[must_use]
    pub fn sequence(&self, actor: &ActorId) -> u64 {
        self.history.last(actor).map_or(0, |(sequence, _)| sequence)
    }

    /// Whether a change would stand in the place of `with`, a change of this document that its actor made under the
    /// same number: of two such changes the one that was made earlier by its author's clock stands, and of two that
    /// were made at the same time the one with the smaller hash. So all peers choose alike, whatever came first.
    #[must_use]
    pub fn stands_before(&self, change: &Change, with: &ChangeHash) -> bool {
        let known = self.history.time_of(with).map(|time| (time, *with));
        known.is_none_or(|known| (change.time(), change.hash()) < known)
    }

    /// The dependencies of a change that are not part of the document.
    #[must_use]
    pub fn missing_deps(&self, change: &Change) -> Vec<ChangeHash> {
        self.history.missing(change)
    }

    /// The changes that no other depends on, sorted: the version of the document.
    #[must_use]
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.history.heads().copied().collect()
    }

    /// Whether all heads are deletes. An edit made concurrently with a delete keeps the document alive.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.history.is_deleted()
    }

    /// The smallest time of a change; `None` without changes.
    #[must_use]
    pub fn created(&self) -> Option<Hlc> {
        self.history.times().map(|(created, _)| created)
    }

    /// The largest time of a change; `None` without changes.
    #[must_use]
    pub fn updated(&self) -> Option<Hlc> {
        self.history.times().map(|(_, updated)| updated)
    }

    /// The number of changes.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.history.len()
    }

    /// The fields as JSON text, with sorted keys and without spaces. Those of a deleted document are the last ones.
    #[must_use]
    pub fn view(&self) -> Vec<u8> {
        let value = self.doc.0.hydrate(None);
        match self.merged(&value) {
            Some(fields) => serde_json::to_vec(&fields).expect("fields are JSON"),
            None => view::text(&value),
        }
    }

    /// The fields as a value.
    #[must_use]
    pub fn fields(&self) -> Object {
        let value = self.doc.0.hydrate(None);
        if let Some(fields) = self.merged(&value) {
            return fields;
        }
        match value {
            hydrate::Value::Map(root) => view::object(root),
            hydrate::Value::Scalar(_) | hydrate::Value::List(_) | hydrate::Value::Text(_) => Object::new(),
        }
    }

    /// The fields, read place by place when there are counters that only together show what was counted.
    fn merged(&self, value: &hydrate::Value) -> Option<Object> {
        if !present::has_contested_counter(value) {
            return None;
        }
        // Changes that were applied can be read; should they not, Automerge's own value is better than none.
        let reader = Reader::new(self.increments().ok());
        Some(present::to_object(&reader.fields(&self.doc.0).ok()?))
    }

    /// Bytes in memory, estimated.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let operations = usize::try_from(self.doc.0.stats().num_ops).unwrap_or(usize::MAX / OPERATION_BYTES);
        let places = self.places.as_ref().map_or(0, Places::memory_bytes);
        let increments = self.increments.get().map_or(0, Increments::memory_bytes);
        OPEN_BYTES + operations.saturating_mul(OPERATION_BYTES) + self.history.memory_bytes() + places + increments
    }
}

/// Checks the references of a change against its past.
fn judge(parsed: &Parsed<'_>, history: &History, past: &Clock, known: &mut Places) -> Result<Vec<Place>, ScreenError> {
    let mut lanes = vec![history.lane_or_next(&parsed.actors[0])];
    for actor in &parsed.actors[1..] {
        lanes.push(history.lane(actor).ok_or(ScreenError::Rule("an actor is named that made no change before"))?);
    }
    let mut names = std::mem::take(&mut known.names);
    let resolve = |op: OpRef| known.get(op, past.get(op.actor)).map_or(Resolved::Nothing, Resolved::Place);
    let places = places(parsed, &lanes, &mut names, resolve);
    known.names = names;
    places
}

/// Runs Automerge on data that others made. What the checks let through should not fail; a panic must still not
/// end the process.
pub(super) fn guarded<T>(what: &str, run: impl FnOnce() -> Result<T, AutomergeError>) -> Result<T, Broken> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| Broken(format!("{what}: {error}"))),
        Err(_) => Err(Broken(format!("{what}: Automerge panicked"))),
    }
}

/// The increments of all changes of a document.
pub(super) fn increments(doc: &Automerge) -> Result<Increments, Broken> {
    let mut known = Increments::default();
    for change in guarded("reading changes", || Ok(doc.get_changes(&[])))? {
        let damaged = |error: ScreenError| Broken(format!("change {}: {error}", change.hash()));
        let parsed = Parsed::read(change.raw_bytes()).map_err(damaged)?;
        known.push(&parsed).map_err(damaged)?;
    }
    Ok(known)
}

/// A change holds only bytes that passed the screen, so of its faults only broken rules are left.
fn unscreened(error: ScreenError) -> Refusal {
    match error {
        ScreenError::Rule(rule) => Refusal::Rule(rule),
        ScreenError::TooLarge(_) | ScreenError::Malformed(_) | ScreenError::Automerge(_) => {
            Refusal::Rule("the change was not screened")
        }
    }
}

fn own_fault(error: ScreenError) -> Error {
    Broken(format!("its own change was refused: {error}")).into()
}

fn too_large(condition: bool, message: &str) -> Result<(), Error> {
    if !condition {
        return Ok(());
    }
    let message = message.to_owned();
    Err(Error::Invalid(Invalid { message, field: None, position: None, kind: InvalidKind::TooLarge }))
}
