//! Forks: one actor, one sequence number, two changes. Which one stands is settled in [`crate::store`]; here the proof is
//! kept, others are told, and what this peer had written on the side that lost is written again.

use crate::access::Ability;
use crate::base::{ChangeHash, DocumentKey, PeerId, Timestamp};
use crate::document::{Document, Envelope, Remaking, Unchecked};
use crate::store::{Granted, Outcome, Reason, Rebuilt};
use crate::sync::outbox::Job;
use crate::{Error, Result};

use super::Node;

impl Node {
    /// Whether a change builds on one that lost a fork.
    pub(super) fn builds_on_a_fork(&self, granted: &Granted) -> Result<bool> {
        let envelope = granted.envelope();
        match envelope.changes().first() {
            Some(change) => self.store.is_out(envelope.document(), change.deps()),
            None => Ok(false),
        }
    }

    /// A change of our own actor that is not in our log was made here and forgotten: the disk went back to an earlier
    /// state. From here on sequence numbers start anew, so that none is used twice.
    pub(super) fn look_for_a_past_life(&mut self, granted: &Granted, outcome: &Outcome) -> Result<()> {
        let author = granted.envelope().author();
        let ours = author.peer == self.peer_id()
            && [self.store.incarnation(), self.store.incarnation().of_expiry()].contains(&author.incarnation);
        if !ours || matches!(outcome, Outcome::Known | Outcome::Invalid(_)) {
            return Ok(());
        }
        tracing::warn!(
            "other peers have changes of this peer that its disk has forgotten; it was restored from a backup"
        );
        self.store.renew_incarnation()
    }

    /// Sends a neighbour that has the losing side of a fork all of the document.
    pub(super) fn send_what_stands(&mut self, to: PeerId, document: &DocumentKey) {
        if let Some(neighbour) = self.neighbours.get_mut(&to).filter(|neighbour| neighbour.is_admitted()) {
            neighbour.outbox.push(vec![Job::document(document.clone(), Vec::new())]);
        }
    }

    /// Builds a document anew after a change arrived that stands in the place of another. True when that was possible:
    /// else all of the document is asked for.
    pub(super) fn settle_forks(
        &mut self,
        now: Timestamp,
        from: PeerId,
        document: &DocumentKey,
        arrived: &[Granted],
    ) -> Result<bool> {
        let stored = self.store.stored(document)?;
        let mut runs = self.granted(stored);
        runs.extend(arrived.iter().cloned());
        match self.store.rebuild(document, &runs) {
            Ok(Rebuilt::Done { record, out, before }) => {
                let why = || "an actor used a sequence number twice; the document was rebuilt".to_owned();
                self.complain(now, from, "forked", Some(document), why);
                self.changed(document.clone(), &record, false);
                self.take_out(now, from, document, out, &before)?;
                Ok(true)
            }
            Ok(Rebuilt::Uncovered) => {
                let all = vec![(document.id.clone(), Vec::new())];
                if self.neighbours.get(&from).is_some_and(|neighbour| neighbour.is_admitted()) {
                    self.ask_for(from, &document.collection, all);
                }
                Ok(false)
            }
            Err(Error::Invalid(why)) => {
                self.drop_change(now, from, "too_many_forks", document, || why.to_string());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The changes with the rights of their authors, as far as they have any.
    pub(super) fn granted(&self, changes: Vec<Unchecked>) -> Vec<Granted> {
        let mesh = self.mesh();
        let envelopes = changes.into_iter().filter_map(|change| Envelope::check(mesh, change).ok());
        let granted = |envelope: Envelope| {
            let needed = Ability::to_write(&envelope.document().collection);
            let grant = self.members.check_author(&envelope.author().peer, needed).ok()?;
            Granted::new(&grant, envelope)
        };
        envelopes.filter_map(granted).collect()
    }

    /// Keeps what was taken out as proof, and makes again what of it was written here.
    fn take_out(
        &mut self,
        now: Timestamp,
        from: PeerId,
        document: &DocumentKey,
        out: Vec<(Granted, Reason)>,
        before: &Document,
    ) -> Result<()> {
        let mut lost: Vec<(u64, ChangeHash)> = Vec::new();
        for (granted, reason) in out {
            let envelope = granted.envelope();
            // What has expired is found again.
            let is_a_write = !envelope.author().incarnation.is_of_expiry();
            if envelope.author().peer == self.peer_id() && is_a_write {
                lost.extend(envelope.changes().iter().map(|change| (change.position(), change.hash())));
            }
            self.keep(self.clock.wall(now), from, reason, envelope.header().change, envelope.to_unchecked())?;
        }
        if lost.is_empty() {
            return Ok(());
        }
        // Their sequence numbers are used, also where they do not count any more.
        self.store.renew_incarnation()?;
        lost.sort_unstable();
        let mut remaking = Remaking::of(before);
        for (_, change) in lost {
            if let Err(error) = self.make_again(now, document, &mut remaking, &change) {
                self.complain(now, from, "edit_not_made_again", Some(document), || error.to_string());
            }
        }
        Ok(())
    }

    fn make_again(
        &mut self,
        now: Timestamp,
        document: &DocumentKey,
        remaking: &mut Remaking<'_>,
        change: &ChangeHash,
    ) -> Result<()> {
        let Some(record) = self.store.record(document)? else { return Ok(()) };
        let (actor, time) = (self.actor(), self.clock.tick(now));
        let present = self.store.open_document(document, &record)?;
        if present.has(change) {
            return Ok(());
        }
        let Some(again) = remaking.again(present, change, actor, time)? else { return Ok(()) };
        let granted = self.grant(document.clone(), self.store.incarnation(), again)?;
        if let Some(record) = self.store.merge(document, std::slice::from_ref(&granted))?.record {
            self.wrote(&granted, &record);
        }
        Ok(())
    }
}
