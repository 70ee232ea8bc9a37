//! Forks: one actor, one sequence number, two changes. Which one stands is settled in [`crate::store`]; here the proof is
//! kept, others are told, and what this peer had written on the side that lost is written again.

use crate::access::Ability;
use crate::base::{ChangeHash, DocumentKey, PeerId, Timestamp};
use crate::document::{Document, Envelope, Made, Patch, Unchecked};
use crate::store::{Granted, Outcome, Reason, Rebuilt};
use crate::sync::outbox::Job;
use crate::sync::{Message, reconcile};
use crate::{Error, Result};

use super::Node;
use super::effect::{Absent, Condition};

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
        let ours = author.peer == self.peer_id() && author.incarnation == self.store.incarnation();
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
                self.changed(document.clone(), &record, false);
                self.take_out(now, from, document, out, &before)?;
                Ok(true)
            }
            Ok(Rebuilt::Uncovered) => {
                let all = vec![(document.id.clone(), Vec::new())];
                if self.neighbours.get(&from).is_some_and(|neighbour| neighbour.is_admitted()) {
                    self.send(from, Message::Items(reconcile::want(document.collection.clone(), all)));
                }
                Ok(false)
            }
            Err(Error::Invalid(why)) => {
                tracing::warn!(%from, %document, %why, "dropped changes");
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
            let grant = self.members.check(&envelope.author().peer, Ability::Write).ok()?;
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
            if envelope.author().peer == self.peer_id() {
                lost.extend(envelope.changes().iter().map(|change| (change.position(), change.hash())));
            }
            self.keep(now, from, reason, envelope.header().change, envelope.to_unchecked())?;
        }
        if lost.is_empty() {
            return Ok(());
        }
        // Their sequence numbers are used, also where they do not count any more.
        self.store.renew_incarnation()?;
        lost.sort_unstable();
        for (_, change) in lost {
            let stays = match self.store.record(document)? {
                Some(record) => self.store.open_document(document, &record)?.has(&change),
                None => false,
            };
            if !stays && let Some(made) = before.made(&change) {
                self.make_again(now, document, made);
            }
        }
        Ok(())
    }

    fn make_again(&mut self, now: Timestamp, document: &DocumentKey, made: Made) {
        let again = match made {
            Made::Delete => self.delete(now, document.clone(), &Condition::Any),
            Made::Edit(operators) => Patch::operators(operators)
                .and_then(|patch| self.patch(now, document.clone(), &patch, &Condition::Any, Absent::Create)),
        };
        match again {
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(error) => tracing::warn!(%document, %error, "an edit that lost a fork could not be made again"),
        }
    }
}
