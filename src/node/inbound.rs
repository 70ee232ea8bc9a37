//! Changes from other peers: their author's right is checked, then they are merged, kept for later, or
//! dropped with a counted reason. A signature was checked before they came here.

use std::collections::{BTreeMap, BTreeSet};

use crate::Result;
use crate::access::{Ability, Denial};
use crate::base::{ActorId, ChangeHash, CollectionName, DocumentId, DocumentKey, PeerId, Timestamp};
use crate::document::{Envelope, Unchecked};
use crate::limits::GOSSIP_BYTES_MAX;
use crate::store::{Granted, Letter, Outcome, Reason, Vector};
use crate::sync::{Checked, Message, Topic, reconcile};

use super::effect::{DropReason, Effect, GossipId, Verdict};
use super::neighbour::{NO_ROOM_MS, Neighbour};
use super::{Known, Node};

/// What became of a batch of changes.
#[derive(Debug, Default)]
struct Reception {
    applied: u64,
    /// Changes that were here already.
    known: u64,
    /// Those that were not.
    news: Vec<(DocumentKey, ActorId, u64)>,
    invalid: u64,
    /// Documents whose changes wait for others.
    wanted: Vec<DocumentKey>,
    /// Who sent the letters that are tried again, and when.
    letters: BTreeMap<ChangeHash, (PeerId, Timestamp)>,
}

impl Node {
    /// A frame of changes from a neighbour.
    pub(super) fn changes(&mut self, now: Timestamp, from: PeerId, number: u64, changes: Vec<Checked>) {
        let Some(neighbour) = self.neighbours.get_mut(&from).filter(|neighbour| neighbour.is_admitted()) else {
            return;
        };
        neighbour.received_at = Some(now);
        let is_new = !neighbour.was_equal;
        if neighbour.no_room_until.is_some() {
            return;
        }
        let written = self.store.check_writable().and_then(|()| self.receive(now, from, changes));
        let reception = match written {
            Ok(reception) => reception,
            Err(error) => {
                self.storage_failed("storing changes", &error);
                return self.no_room(now, from);
            }
        };
        let Known { comparing, reconnecting, .. } = &mut self.counters.known;
        *(if is_new { reconnecting } else { comparing }) += reception.known;
        if reception.invalid > 0 {
            return self.part(from, DropReason::Misbehaved);
        }
        self.send(from, Message::Acknowledged(number));
        if reception.applied > 0 {
            // Only then: what waits for a change that never fits would be asked for without end.
            self.want(from, reception.wanted);
            self.compare_soon(now);
        }
    }

    /// The disk takes no changes. What a neighbour sends is left unacknowledged, so that it stops, until there is
    /// room again.
    fn no_room(&mut self, now: Timestamp, from: PeerId) {
        if let Some(neighbour) = self.neighbours.get_mut(&from) {
            neighbour.no_room_until = Some(now.plus_ms(NO_ROOM_MS));
        }
    }

    /// Starts anew with the neighbours that were held up by a full disk, once it takes changes again.
    pub(super) fn look_for_room(&mut self, now: Timestamp) {
        let due = |neighbour: &Neighbour| neighbour.no_room_until.is_some_and(|until| until <= now);
        let held: Vec<PeerId> = self.neighbours.iter().filter(|(_, n)| due(n)).map(|(peer, _)| *peer).collect();
        for peer in held {
            if self.store.check_writable().is_ok() {
                self.part(peer, DropReason::NoRoom);
            } else {
                self.no_room(now, peer);
            }
        }
    }

    /// Changes over gossip. Anybody who was a member can publish them, so those of an author that fell are taken only
    /// over the link of a member.
    pub(super) fn published(&mut self, now: Timestamp, from: PeerId, id: GossipId, mut changes: Vec<Checked>) {
        let has_fallen =
            |change: &Checked| change.as_ref().is_ok_and(|e| self.members.fall(&e.author().peer).is_some());
        for _ in changes.extract_if(.., |change| has_fallen(change)) {
            *self.counters.dropped.entry("published_by_a_member_that_fell").or_default() += 1;
        }
        if self.store.check_writable().is_err() {
            return self.effects.push(Effect::Verdict(id, Verdict::Ignore));
        }
        let verdict = match self.receive(now, from, changes) {
            Ok(reception) => {
                self.counters.known.gossip += reception.known;
                for (document, actor, number) in reception.news {
                    self.spreading.note(now, document, actor, number);
                }
                self.want(from, reception.wanted);
                if reception.applied > 0 {
                    self.compare_soon(now);
                }
                match (reception.invalid, reception.applied) {
                    (0, 0) => Verdict::Ignore,
                    (0, _) => Verdict::Accept,
                    (_, _) => Verdict::Reject,
                }
            }
            Err(error) => {
                self.storage_failed("storing changes", &error);
                Verdict::Ignore
            }
        };
        self.effects.push(Effect::Verdict(id, verdict));
    }

    fn receive(&mut self, now: Timestamp, from: PeerId, changes: Vec<Checked>) -> Result<Reception> {
        let mut reception = Reception::default();
        let mut by_document: BTreeMap<DocumentKey, Vec<Envelope>> = BTreeMap::new();
        for change in changes {
            match change {
                Ok(envelope) => by_document.entry(envelope.document().clone()).or_default().push(envelope),
                Err((document, why)) => {
                    self.drop_change(now, from, why.reason(), &document, || why.to_string());
                    reception.invalid += 1;
                }
            }
        }
        for (document, envelopes) in by_document {
            self.receive_document(now, from, &document, envelopes, &mut reception)?;
        }
        Ok(reception)
    }

    fn receive_document(
        &mut self,
        now: Timestamp,
        from: PeerId,
        document: &DocumentKey,
        envelopes: Vec<Envelope>,
        reception: &mut Reception,
    ) -> Result<()> {
        let mut arrived = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            match self.members.check_author(&envelope.author().peer, Ability::to_write(&document.collection)) {
                Ok(grant) => arrived.extend(Granted::new(&grant, envelope)),
                Err(denial) => {
                    let (hash, at) = (envelope.header().change, self.clock.wall(now));
                    self.keep(at, from, reason_of(denial), hash, envelope.to_unchecked())?;
                }
            }
        }
        if arrived.is_empty() {
            return Ok(());
        }
        arrived.extend(self.salvaged(document, &arrived)?);
        if self.merge(now, from, document, &arrived, reception)? {
            self.ledger.arrived(from, &document.collection);
            self.retry(now, from, document, &[Reason::Dependencies], reception)?;
        }
        Ok(())
    }

    /// What is intact of a damaged document, to be merged together with what heals it.
    fn salvaged(&mut self, document: &DocumentKey, arrived: &[Granted]) -> Result<Vec<Granted>> {
        let intact = self.store.salvage(document, arrived)?;
        Ok(self.granted(intact))
    }

    /// Does a step of building documents anew whose records were lost and whose logs are there. Whether there is more.
    pub(super) fn tend_orphans(&mut self, now: Timestamp) -> Result<bool> {
        let (more, found) = self.store.tend_orphans(self.mesh())?;
        if let Some(mut orphan) = found {
            let changes = std::mem::take(&mut orphan.changes);
            let (count, granted) = (changes.len(), self.granted(changes));
            let (own, mut reception) = (self.peer_id(), Reception::default());
            // Without some of them the document would be older than it was.
            if granted.len() == count && self.merge(now, own, &orphan.document, &granted, &mut reception)? {
                tracing::info!(document = %orphan.document, "its record was lost; it is built anew from its log");
                self.store.drop_orphan(&orphan)?;
            }
        }
        Ok(more)
    }

    /// Merges and says whether anything came of it that others may have waited for: something was applied, or lost a
    /// fork.
    fn merge(
        &mut self,
        now: Timestamp,
        from: PeerId,
        document: &DocumentKey,
        arrived: &[Granted],
        reception: &mut Reception,
    ) -> Result<bool> {
        if arrived.is_empty() {
            return Ok(false);
        }
        let merge = self.store.merge(document, arrived)?;
        let (mut forked, mut settled, mut contested) = (false, false, None);
        for (granted, outcome) in arrived.iter().zip(&merge.outcomes) {
            self.look_for_a_past_life(granted, outcome)?;
            let sender = reception.letters.get(&granted.envelope().header().change);
            let (by, at) = sender.copied().unwrap_or((from, self.clock.wall(now)));
            let (hash, change) = (granted.envelope().header().change, granted.envelope().to_unchecked());
            match outcome {
                Outcome::Applied(changes) => {
                    self.counters.applied += changes;
                    reception.applied += changes;
                    let run = granted.envelope().changes();
                    let known = run.len().saturating_sub(usize::try_from(*changes).unwrap_or(usize::MAX));
                    reception.known += known as u64;
                    let news = run.iter().skip(known).map(|new| (document.clone(), new.actor(), new.seq()));
                    reception.news.extend(news);
                    self.clock.observe(now, granted.envelope().header().time);
                    contested = contested.or_else(|| Some(granted).filter(|granted| self.is_to_be_kept(now, granted)));
                }
                Outcome::Known => reception.known += granted.envelope().changes().len() as u64,
                // What it builds on lost a fork, and will not come.
                Outcome::Waiting if self.builds_on_a_fork(granted)? => {
                    settled = true;
                    self.keep(at, by, Reason::Fallen, hash, change)?;
                }
                Outcome::Waiting => {
                    self.keep(at, by, Reason::Dependencies, hash, change)?;
                    if reception.wanted.last() != Some(document) {
                        reception.wanted.push(document.clone());
                    }
                }
                Outcome::Forked { stands } => {
                    forked |= stands;
                    if !stands && !self.store.letters().is_out(&hash) {
                        settled = true;
                        self.keep(at, by, Reason::Forked, hash, change)?;
                        self.send_what_stands(from, document);
                    }
                }
                Outcome::Invalid(why) => {
                    self.drop_change(now, from, "refused_by_automerge", document, || why.clone());
                    reception.invalid += 1;
                }
            }
        }
        if let Some(record) = &merge.record {
            self.changed(document.clone(), record, false);
            if let Some(deleted) = contested.filter(|_| record.deleted) {
                self.keep_unexpired(now, document, deleted, record)?;
            }
        }
        settled |= forked && self.settle_forks(now, from, document, arrived)?;
        Ok(merge.record.is_some() || settled)
    }

    /// Tries letters of a document again, until none of them can be applied.
    fn retry(
        &mut self,
        now: Timestamp,
        from: PeerId,
        document: &DocumentKey,
        reasons: &[Reason],
        reception: &mut Reception,
    ) -> Result<()> {
        loop {
            let letters = self.store.take_letters(document, reasons)?;
            let needed = Ability::to_write(&document.collection);
            let mut again = Vec::new();
            for letter in letters {
                let (by, at) = (letter.from, letter.arrived);
                match Envelope::check(self.mesh(), letter.change) {
                    Ok(envelope) => match self.members.check_author(&envelope.author().peer, needed) {
                        Ok(grant) => {
                            reception.letters.insert(envelope.header().change, (by, at));
                            again.extend(Granted::new(&grant, envelope));
                        }
                        Err(denial) => {
                            let hash = envelope.header().change;
                            self.keep(at, by, reason_of(denial), hash, envelope.to_unchecked())?;
                        }
                    },
                    Err(why) => self.drop_change(now, from, why.reason(), document, || why.to_string()),
                }
            }
            if !self.merge(now, from, document, &again, reception)? {
                return Ok(());
            }
        }
    }

    /// Tries the letters of authors again who were not known as writers when their changes arrived, and are now.
    pub(super) fn retry_authors(&mut self, now: Timestamp, from: PeerId, new: &BTreeSet<PeerId>) -> Result<()> {
        let mut reception = Reception::default();
        for document in self.store.letters().documents_by(new) {
            // What waits for these changes is tried with them.
            let reasons = [Reason::AuthorUnknown, Reason::AuthorDenied, Reason::Dependencies];
            self.retry(now, from, &document, &reasons, &mut reception)?;
        }
        self.want(from, reception.wanted);
        Ok(())
    }

    pub(super) fn keep(
        &mut self,
        arrived: Timestamp,
        from: PeerId,
        reason: Reason,
        hash: ChangeHash,
        change: Unchecked,
    ) -> Result<()> {
        self.store.keep_letter(hash, &Letter { reason, from, arrived, change })
    }

    pub(super) fn drop_change(
        &mut self,
        now: Timestamp,
        from: PeerId,
        reason: &'static str,
        document: &DocumentKey,
        why: impl FnOnce() -> String,
    ) {
        *self.counters.dropped.entry(reason).or_default() += 1;
        self.complain(now, from, reason, Some(document), why);
    }

    /// Asks a neighbour for what documents wait for.
    fn want(&mut self, from: PeerId, documents: Vec<DocumentKey>) {
        if !self.neighbours.get(&from).is_some_and(|neighbour| neighbour.is_admitted()) {
            return;
        }
        for key in documents {
            let vector = match self.store.record(&key) {
                Ok(record) => record.map(|record| self.store.vector(&record)).unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            self.ask_for(from, &key.collection, vec![(key.id, vector)]);
        }
    }

    /// Asks a neighbour for what it has of documents beyond these vectors.
    pub(super) fn ask_for(&mut self, from: PeerId, collection: &CollectionName, items: Vec<(DocumentId, Vector)>) {
        for items in reconcile::want(reconcile::UNASKED, collection, items) {
            self.send(from, Message::Items(items));
        }
    }

    /// Publishes what was written in this call, in messages that gossip can carry. What is too large for one, or part of
    /// a load, goes by reconciliation alone.
    pub(super) fn publish_fresh(&mut self, now: Timestamp) {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.is_empty() {
            return;
        }
        if !self.neighbours.values().any(Neighbour::is_admitted) {
            return self.compare_soon(now);
        }
        let mut by_topic: BTreeMap<Topic, (Vec<Unchecked>, usize)> = BTreeMap::new();
        let mut unpublished = false;
        for (number, change) in fresh {
            let bytes = change.run.bytes() + change.document.id.as_str().len() + 256;
            if !self.pace.allows(now, bytes) || bytes > GOSSIP_BYTES_MAX {
                unpublished = true;
                continue;
            }
            self.spreading.note(now, change.document.clone(), change.author.actor(), number);
            let topic = Topic::of(&change.document.collection);
            let (batch, size) = by_topic.entry(topic).or_default();
            if *size + bytes > GOSSIP_BYTES_MAX {
                self.effects.push(Effect::Publish(topic, std::mem::take(batch)));
                *size = 0;
            }
            *size += bytes;
            batch.push(change);
        }
        for (topic, (batch, _)) in by_topic {
            self.effects.push(Effect::Publish(topic, batch));
        }
        // Gossip is given its time, unless there is something that it does not bring.
        if unpublished { self.compare_by(now) } else { self.compare_soon(now) }
    }
}

/// Under which reason a change is kept whose author may not make it.
fn reason_of(denial: Denial) -> Reason {
    match denial {
        Denial::NotAMember { .. } | Denial::Fallen { .. } => Reason::AuthorUnknown,
        Denial::RoleTooLow { .. } => Reason::AuthorDenied,
    }
}
