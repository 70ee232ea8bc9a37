//! Comparing with neighbours and sending them what they lack, see [`crate::sync`].

use crate::base::{PeerId, Timestamp};
use crate::sync::reconcile::{self, Answer};
use crate::sync::{Items, Message, Ranges, Roots};

use super::Node;
use super::effect::{DropReason, Event};
use super::neighbour::{ANSWER_MS, INTERVAL_MS, RETRY_MS, SETTLE_MS, Stage};

/// Comparisons in a row that led to nothing, after which vectors are not believed to tell the difference.
const FRUITLESS_MIN: u32 = 2;

impl Node {
    /// Something changed here: compare with everybody once gossip has had its time.
    pub(super) fn compare_soon(&mut self, now: Timestamp) {
        self.compare_by(now.plus_ms(SETTLE_MS));
    }

    /// Something changed here: compare with everybody at that time.
    pub(super) fn compare_by(&mut self, at: Timestamp) {
        for neighbour in self.neighbours.values_mut() {
            neighbour.compare_by(at);
            neighbour.fruitless = 0;
        }
    }

    /// Asks the neighbours with whom a comparison is due, and drops those that never greeted.
    pub(super) fn compare(&mut self, now: Timestamp) {
        let mut due = Vec::new();
        let mut silent = Vec::new();
        for (peer, neighbour) in &mut self.neighbours {
            match neighbour.stage {
                Stage::Greeting { until } if until <= now => silent.push(*peer),
                Stage::Greeting { .. } => {}
                Stage::Admitted => {
                    if neighbour.asked.is_some_and(|(_, at)| now.since_ms(at) >= ANSWER_MS) {
                        neighbour.asked = None;
                        neighbour.compare_at = now.plus_ms(RETRY_MS);
                    }
                    if neighbour.may_compare(now) {
                        due.push(*peer);
                    }
                }
            }
        }
        for peer in silent {
            self.part(peer, DropReason::Silent);
        }
        for peer in due {
            if self.waits_for_another(now, peer) {
                if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                    neighbour.compare_at = now.plus_ms(RETRY_MS);
                }
                continue;
            }
            let salt = self.random_u64();
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.asked = Some((salt, now));
            }
            self.send(peer, Message::Roots(reconcile::roots(&self.store, salt, true)));
        }
    }

    /// Fingerprints of a neighbour: a question, or the answer to ours.
    pub(super) fn roots(&mut self, now: Timestamp, peer: PeerId, theirs: &Roots) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let answered = neighbour.asked.is_some_and(|(salt, _)| salt == theirs.salt);
        if theirs.ask && !neighbour.take_ask(now) || !theirs.ask && !answered {
            return;
        }
        // What is being sent already would only be found again, and when both have asked one comparison is enough. Which
        // one is up to chance, as the sides of a comparison differ in what they find, see `answer_items`.
        let stands = neighbour.asked.is_none_or(|(salt, _)| theirs.salt < salt);
        let is_free = stands && neighbour.outbox.is_empty();
        let differing = reconcile::differing(&self.store, theirs);
        if !differing.is_empty() {
            neighbour.talked_at = Some(now);
        }
        let our_count: u64 = self.store.totals().map(|(_, total)| total.count).sum();
        neighbour.ahead = count(theirs).saturating_sub(our_count);
        let opens = is_free && !self.waits_for_another(now, peer);
        self.note_comparison(now, peer, theirs, &differing);
        if opens || !theirs.ask {
            self.note_progress(peer, theirs, differing.is_empty());
        }
        if theirs.ask {
            self.send(peer, Message::Roots(reconcile::roots(&self.store, theirs.salt, false)));
            if opens {
                self.draw_from(now, peer);
                for collection in differing {
                    match reconcile::open(&self.store, theirs.salt, &collection) {
                        Ok(ranges) => self.send(peer, Message::Ranges(ranges)),
                        Err(error) => return self.storage_failed("comparing", &error),
                    }
                }
            }
        } else {
            self.schedule(now, peer, differing.is_empty());
        }
    }

    fn note_comparison(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        theirs: &Roots,
        differing: &[crate::base::CollectionName],
    ) {
        let was_equal = self.ledger.in_sync(&peer, self.store.totals());
        let mut names: Vec<_> = self.store.totals().map(|(name, _)| name.clone()).collect();
        names.extend(theirs.roots.iter().map(|root| root.collection.clone()));
        names.sort();
        names.dedup();
        for name in names {
            let their = theirs.roots.binary_search_by(|root| root.collection.cmp(&name));
            let count = their.map_or(0, |index| theirs.roots[index].count);
            let equal = differing.binary_search(&name).is_err();
            self.ledger.compared(now, peer, &name, equal, count, self.store.total(&name));
        }
        self.ledger.met(peer);
        if differing.is_empty() && !was_equal {
            self.emit(Event::InSync(peer));
        }
    }

    /// Whether comparing leads to something: then something has changed here or there since the last one.
    fn note_progress(&mut self, peer: PeerId, theirs: &Roots, equal: bool) {
        let progress = (self.store.next_position(), count(theirs));
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if equal || progress != neighbour.progress {
            neighbour.fruitless = 0;
        } else {
            neighbour.fruitless = (neighbour.fruitless + 1).min(6);
        }
        neighbour.progress = progress;
    }

    /// When to compare with a neighbour next: rarely when equal, soon when a difference is being worked
    /// off, ever more rarely when differences remain and nothing moves.
    fn schedule(&mut self, now: Timestamp, peer: PeerId, equal: bool) {
        let jitter = self.random_u64() % (INTERVAL_MS / 3);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if let Some((_, at)) = neighbour.asked.take() {
            neighbour.answer_ms = now.since_ms(at);
        }
        let wait = if equal { INTERVAL_MS + jitter } else { RETRY_MS << neighbour.fruitless };
        neighbour.compare_at = now.plus_ms(wait);
    }

    /// Ranges of a neighbour.
    pub(super) fn ranges(&mut self, now: Timestamp, peer: PeerId, theirs: &Ranges) {
        if self.waits_for_another(now, peer) {
            return;
        }
        self.draw_from(now, peer);
        match reconcile::answer_ranges(&self.store, theirs) {
            Ok(answer) => self.answer(now, peer, &theirs.collection, answer),
            Err(error) => self.storage_failed("comparing", &error),
        }
    }

    /// Vectors of a neighbour.
    pub(super) fn items(&mut self, now: Timestamp, peer: PeerId, theirs: &Items) {
        let fruitless = self.neighbours.get(&peer).is_some_and(|neighbour| neighbour.fruitless >= FRUITLESS_MIN);
        match reconcile::answer_items(&mut self.store, theirs, fruitless) {
            Ok(answer) => self.answer(now, peer, &theirs.collection, answer),
            Err(error) => self.storage_failed("comparing", &error),
        }
    }

    fn answer(&mut self, now: Timestamp, peer: PeerId, collection: &crate::base::CollectionName, answer: Answer) {
        self.ledger.expects(peer, collection, answer.to_receive);
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.talked_at = Some(now);
        }
        for ranges in answer.ranges {
            self.send(peer, Message::Ranges(ranges));
        }
        for items in answer.items {
            self.send(peer, Message::Items(items));
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer)
            && !answer.jobs.is_empty()
        {
            neighbour.outbox.push(answer.jobs);
        }
    }

    /// A neighbour has frames of ours on its disk. When that was the last one, compare at once.
    pub(super) fn acknowledged(&mut self, now: Timestamp, peer: PeerId, number: u64) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.outbox.acknowledge(number);
            if neighbour.outbox.is_empty() && neighbour.fruitless == 0 {
                neighbour.compare_by(now);
            }
        }
    }

    /// Sends what there is credit for.
    pub(super) fn pump(&mut self) {
        let peers: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for peer in peers {
            while let Some(neighbour) = self.neighbours.get_mut(&peer) {
                match neighbour.outbox.next_frame(&mut self.store) {
                    Ok(Some((number, changes))) => self.send(peer, Message::Changes { number, changes }),
                    Ok(None) => break,
                    Err(error) => return self.storage_failed("sending changes", &error),
                }
            }
        }
    }
}

/// Documents that a neighbour has.
fn count(theirs: &Roots) -> u64 {
    theirs.roots.iter().fold(0, |sum: u64, root| sum.saturating_add(root.count))
}
