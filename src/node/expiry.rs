//! Deleting documents that have expired.
//!
//! A wrong clock must not destroy what is fresh, so a document is deleted only by a peer whose clock the connected
//! members do not contradict ([`Clock::distrust`](super::clock::Clock::distrust)). What it signs says no more than that
//! the document had expired by its clock ([`Incarnation::of_expiry`](crate::base::Incarnation::of_expiry)): peers show
//! it as deleted, as they must that have the same changes; but to one whose clock such a delete is ahead of, it is wrong,
//! and it brings the document back by an edit of its own. Who has seen that and deletes it again insists, and is left to
//! it, so that two peers that cannot agree come to an end.
//!
//! Several peers may have the same index. They take turns, by the time that they share, so that each document is deleted
//! once; of those that would bring one back, the one with the smallest id does. Peers that are apart may do it twice,
//! which does no harm. A peer that may not write leaves it to others.

use crate::access::Ability;
use crate::base::{ActorId, ChangeHash, CollectionName, DocumentKey, Timestamp};
use crate::document::Change;
use crate::index::IndexName;
use crate::limits::{INDEX_EXPIRE_EVERY_MS, INDEX_EXPIRE_PAUSE_MS, INDEX_EXPIRE_STEP_DOCUMENTS, INDEX_EXPIRE_TURN_MS};
use crate::store::{Granted, Index, Record};
use crate::{Error, Result};

use super::Node;

/// How far deleting documents that have expired is.
#[derive(Debug)]
pub(super) struct Expiry {
    /// When it goes on; `None` while no index asks for it.
    pub(super) at: Option<Timestamp>,
    /// When this peer started: others have a while to connect before it deletes anything.
    started: Timestamp,
    /// Indexes whose documents are still to be looked at, the next one last.
    round: Vec<(CollectionName, IndexName)>,
    /// The entry of the next one behind which it goes on.
    after: Option<Vec<u8>>,
}

/// What a change of some peer's expiry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// It deleted the document.
    Deleted,
    /// It brought the document back.
    Kept,
}

impl Expiry {
    pub(super) fn start(now: Timestamp) -> Self {
        Self { at: None, started: now, round: Vec::new(), after: None }
    }
}

impl Node {
    /// Does a step of deleting documents that have expired.
    pub(super) fn tend_expiry(&mut self, now: Timestamp) {
        if self.expiry.at.is_some_and(|at| at > now) {
            return;
        }
        if self.expiry.round.is_empty() {
            self.expiry.round = self.store.catalog().expiring();
            self.expiry.round.reverse();
        }
        if self.expiry.round.is_empty() {
            self.expiry.at = None;
            return;
        }
        let mut wait_ms = self.until_our_turn(now);
        if self.clock.distrust(now).is_some() {
            self.expiry.round.clear();
            self.expiry.after = None;
            wait_ms = INDEX_EXPIRE_EVERY_MS;
        }
        if wait_ms > 0 {
            self.expiry.at = Some(now.plus_ms(wait_ms));
            return;
        }
        if let Err(error) = self.expire_some(now) {
            if !matches!(error, Error::Denied(_)) {
                self.storage_failed("deleting documents that have expired", &error);
            }
            self.expiry.round.clear();
            self.expiry.after = None;
        }
        let wait_ms = if self.expiry.round.is_empty() { INDEX_EXPIRE_EVERY_MS } else { 0 };
        self.expiry.at = Some(now.plus_ms(wait_ms));
    }

    /// Writers that are connected and whose clocks agree with this one: how many of them have a smaller id than this
    /// peer, and how many there are with it.
    fn place_among_writers(&self) -> (u64, u64) {
        let us = self.peer_id();
        let is_writer = |peer| self.members.check(peer, Ability::Write).is_ok() && self.clock.agrees_with(peer);
        let writers = self.neighbours.iter().filter(|(peer, neighbour)| neighbour.is_admitted() && is_writer(peer));
        let (before, behind): (Vec<_>, Vec<_>) = writers.partition(|(peer, _)| **peer < us);
        (before.len() as u64, (before.len() + behind.len()) as u64 + 1)
    }

    /// Milliseconds until it is this peer's turn to delete; 0 when it is.
    fn until_our_turn(&self, now: Timestamp) -> u64 {
        let (place, peers) = self.place_among_writers();
        if peers == 1 {
            let since = now.since_ms(self.expiry.started);
            return if self.members.len() == 1 { 0 } else { INDEX_EXPIRE_EVERY_MS.saturating_sub(since) };
        }
        let into = self.clock.shared(now).0 % (peers * INDEX_EXPIRE_TURN_MS);
        let (starts, ends) = (place * INDEX_EXPIRE_TURN_MS + INDEX_EXPIRE_PAUSE_MS, (place + 1) * INDEX_EXPIRE_TURN_MS);
        match into {
            _ if into < starts => starts - into,
            _ if into < ends => 0,
            _ => peers * INDEX_EXPIRE_TURN_MS - into + starts,
        }
    }

    /// Looks at the next documents of the round.
    fn expire_some(&mut self, now: Timestamp) -> Result<()> {
        self.members.check(&self.peer_id(), Ability::Write)?;
        self.store.check_writable()?;
        let catalog = self.store.catalog();
        let Some((collection, name)) = self.expiry.round.last().cloned() else { return Ok(()) };
        let (mut after, wall) = (None, self.clock.wall(now));
        if let Some(index) = catalog.get(&collection, &name) {
            let limit = INDEX_EXPIRE_STEP_DOCUMENTS;
            let ids;
            (ids, after) = self.reader().expiring(index, wall, self.expiry.after.as_deref(), limit)?;
            for id in ids {
                self.expire(now, index, DocumentKey::new(collection.clone(), id))?;
            }
        }
        if after.is_none() {
            self.expiry.round.pop();
        }
        self.expiry.after = after;
        Ok(())
    }

    /// Deletes a document if it has expired.
    fn expire(&mut self, now: Timestamp, index: &Index, document: DocumentKey) -> Result<()> {
        // One that is damaged expires once it is repaired.
        let Some(record) = self.store.record(&document).ok().flatten().filter(|record| !record.deleted) else {
            return Ok(());
        };
        if !index.has_expired(document.id.as_str(), &record.view, self.clock.wall(now)) {
            return Ok(());
        }
        match self.delete_expired(now, document, &record) {
            Err(error @ (Error::Denied(_) | Error::Unavailable(_) | Error::Io(_))) => Err(error),
            // What cannot be deleted now may be another time.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn delete_expired(&mut self, now: Timestamp, document: DocumentKey, record: &Record) -> Result<()> {
        let (incarnation, stamp) = (self.store.incarnation().of_expiry(), self.clock.tick(now));
        // What somebody kept, this clock must not delete on its own account.
        let made = self.made_by_expiry(&document, record, &record.heads)?;
        if !self.clock.is_confirmed() && made.contains(&Some(Made::Kept)) {
            return Ok(());
        }
        let actor = ActorId::derive(&self.peer_id(), &incarnation);
        let deleted = self.store.open_document(&document, record)?.delete(actor, stamp);
        if let Some(change) = self.edited(&document, record, deleted)? {
            self.append(document, incarnation, change, record)?;
        }
        Ok(())
    }

    /// Which of some changes of a document some peer's expiry made.
    fn made_by_expiry(
        &mut self,
        document: &DocumentKey,
        record: &Record,
        changes: &[ChangeHash],
    ) -> Result<Vec<Option<Made>>> {
        let open = self.store.open_document(document, record)?;
        let makers: Vec<_> = changes.iter().map(|change| open.maker(change)).collect();
        let made = |(actor, is_delete)| {
            let made = if is_delete { Made::Deleted } else { Made::Kept };
            self.store.is_of_expiry(&actor).then_some(made)
        };
        Ok(makers.into_iter().map(|maker| maker.and_then(made)).collect())
    }

    /// Whether a change deletes a document as expired by a clock that this one contradicts, and nobody else is to say so.
    pub(super) fn is_to_be_kept(&self, now: Timestamp, granted: &Granted) -> bool {
        let envelope = granted.envelope();
        let is_expiry =
            envelope.author().incarnation.is_of_expiry() && envelope.changes().last().is_some_and(Change::is_delete);
        is_expiry
            && self.clock.is_future(now, envelope.header().time)
            && self.clock.can_judge(now)
            && self.members.check(&self.peer_id(), Ability::Write).is_ok()
            && self.place_among_writers().0 == 0
    }

    /// Brings a document back that another peer deleted as expired, by a clock that was ahead of this one. Unless it is
    /// deleted besides, by a program or in its time, or that peer had seen somebody bring it back.
    pub(super) fn keep_unexpired(
        &mut self,
        now: Timestamp,
        document: &DocumentKey,
        deleted: &Granted,
        record: &Record,
    ) -> Result<()> {
        let envelope = deleted.envelope();
        let deps = envelope.changes().last().map(Change::deps).unwrap_or_default();
        let seen = self.made_by_expiry(document, record, deps)?;
        let heads = self.made_by_expiry(document, record, &record.heads)?;
        let open = self.store.open_document(document, record)?;
        let times: Vec<_> = record.heads.iter().filter_map(|head| open.made_at(head)).collect();
        let is_contested = heads.iter().all(Option::is_some) && times.iter().all(|at| self.clock.is_future(now, *at));
        if seen.contains(&Some(Made::Kept)) || !is_contested {
            return Ok(());
        }
        match self.bring_back(now, document, record) {
            Ok(()) => self.clock.note_kept(now, &envelope.author().peer, envelope.header().time),
            Err(error @ (Error::Unavailable(_) | Error::Io(_))) => return Err(error),
            Err(error) => tracing::warn!(%document, %error, "a document could not be kept from a clock that is ahead"),
        }
        Ok(())
    }

    fn bring_back(&mut self, now: Timestamp, document: &DocumentKey, record: &Record) -> Result<()> {
        let (incarnation, stamp) = (self.store.incarnation().of_expiry(), self.clock.tick(now));
        let actor = ActorId::derive(&self.peer_id(), &incarnation);
        if let Some(change) = self.store.open_document(document, record)?.keep(actor, stamp)? {
            self.append(document.clone(), incarnation, change, record)?;
        }
        Ok(())
    }
}
