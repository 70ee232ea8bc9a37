//! Comparing with neighbours and sending them what they lack, see [`crate::sync`].

use crate::base::{PeerId, Timestamp};
use crate::sync::outbox::Job;
use crate::sync::reconcile::{self, Answer};
use crate::sync::{Items, Message, Ranges, Roots, Step, directory};

use super::Node;
use super::effect::{DropReason, Event};
use super::neighbour::{ANSWER_MS, INTERVAL_MS, Question, RETRY_MS, SETTLE_MS, Stage};

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
                    if neighbour.asked.is_some_and(|asked| now.since_ms(asked.at) >= ANSWER_MS) {
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
            let (salt, version) = (self.random_u64(), self.store.version());
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.asked = Some(Question { salt, at: now, version, yields: false });
            }
            self.send(peer, Message::Roots(directory::question(&self.store, salt)));
        }
    }

    /// What a neighbour says of its collections: a question, the answer to ours, or what follows.
    pub(super) fn roots(&mut self, now: Timestamp, peer: PeerId, theirs: &Roots) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let asked = neighbour.asked;
        let stands = match theirs.step {
            Step::Question if !neighbour.take_ask(now) => return,
            // When both have asked one comparison is enough. Which one is up to chance, as the sides of a comparison
            // differ in what they find, see `answer_items`.
            Step::Question => asked.is_none_or(|asked| theirs.salt < asked.salt),
            Step::Answer => match asked.filter(|asked| asked.salt == theirs.salt) {
                Some(asked) => !asked.yields,
                None => return,
            },
            Step::Closer => true,
        };
        if let Some(asked) = neighbour.asked.as_mut().filter(|_| stands && theirs.step == Step::Question) {
            asked.yields = true;
        }
        neighbour.ahead = theirs.documents.saturating_sub(self.store.documents());
        // What is being sent already would only be found again.
        let is_free = stands && neighbour.outbox.is_empty();
        let resolves = is_free && !self.waits_for_another(now, peer);
        let answer = directory::answer(&self.store, theirs, resolves);
        self.note_comparison(now, peer, theirs.step, asked, &answer);
        self.ledger.told(peer, theirs.documents);
        if resolves && theirs.step == Step::Question || theirs.step == Step::Answer {
            self.note_progress(peer, theirs.documents, answer.is_equal());
        }
        if theirs.step == Step::Answer {
            self.schedule(now, peer, answer.is_equal());
        }
        self.follow_up(now, peer, theirs, answer, resolves);
    }

    fn note_comparison(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        step: Step,
        asked: Option<Question>,
        found: &directory::Answer,
    ) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            if found.is_equal() {
                neighbour.was_equal = true;
            } else {
                neighbour.talked_at = Some(now);
            }
        }
        let was_equal = self.ledger.in_sync(&peer, self.store.version());
        match (step, asked) {
            (Step::Question, _) => self.ledger.compared(now, self.store.version(), peer, found),
            // What was written since the question is not what was compared.
            (Step::Answer, Some(asked)) => self.ledger.compared(asked.at, asked.version, peer, found),
            (Step::Answer, None) => {}
            (Step::Closer, _) => self.ledger.resolved(now, peer, found),
        }
        self.healing &= !self.ledger.in_sync(&peer, self.store.version());
        if !was_equal && self.ledger.in_sync(&peer, self.store.version()) {
            self.emit(Event::InSync(peer));
        }
    }

    /// Says what there is to say, and opens the comparisons of collections that differ.
    fn follow_up(&mut self, now: Timestamp, peer: PeerId, theirs: &Roots, answer: directory::Answer, resolves: bool) {
        let step = if theirs.step == Step::Question { Step::Answer } else { Step::Closer };
        if step == Step::Answer || resolves && answer.says_something() {
            let (salt, documents) = (theirs.salt, self.store.documents());
            self.send(peer, Message::Roots(Roots { salt, step, documents, parts: answer.parts }));
        }
        if !answer.open.is_empty() {
            self.draw_from(now, peer);
        }
        for collection in answer.open {
            match reconcile::open(&self.store, theirs.salt, &collection) {
                Ok(ranges) => self.send(peer, Message::Ranges(ranges)),
                Err(error) => return self.storage_failed("comparing", &error),
            }
        }
    }

    /// Whether comparing leads to something: then something has changed here or there since the last one.
    fn note_progress(&mut self, peer: PeerId, their_documents: u64, equal: bool) {
        let progress = (self.store.next_position(), their_documents);
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
        if let Some(asked) = neighbour.asked.take() {
            neighbour.answer_ms = now.since_ms(asked.at);
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
            Ok(mut answer) => {
                self.leave_to_gossip(now, peer, &mut answer.jobs);
                self.answer(now, peer, &theirs.collection, answer);
            }
            Err(error) => self.storage_failed("comparing", &error),
        }
    }

    /// Vectors of a neighbour.
    pub(super) fn items(&mut self, now: Timestamp, peer: PeerId, theirs: &Items) {
        let fruitless = self.neighbours.get(&peer).is_some_and(|neighbour| neighbour.fruitless >= FRUITLESS_MIN);
        match reconcile::answer_items(&mut self.store, theirs, fruitless) {
            Ok(mut answer) => {
                // Who asks because gossip brought a change without what it builds on may have to wait for long.
                if theirs.salt != reconcile::UNASKED {
                    self.leave_to_gossip(now, peer, &mut answer.jobs);
                }
                self.answer(now, peer, &theirs.collection, answer);
            }
            Err(error) => self.storage_failed("comparing", &error),
        }
    }

    /// Leaves out of what a neighbour lacks what gossip brings it. Should it not, the next comparison will.
    fn leave_to_gossip(&mut self, now: Timestamp, peer: PeerId, jobs: &mut Vec<Job>) {
        let Self { neighbours, spreading, store, .. } = self;
        let Some(since) = neighbours.get(&peer).map(|neighbour| neighbour.since) else { return };
        jobs.retain(|job| {
            let Some((document, theirs)) = job.of_document() else { return true };
            if !spreading.has_some() {
                return true;
            }
            let Ok(Some(record)) = store.record(document) else { return true };
            !spreading.brings(now, since, document, &store.vector(&record), theirs)
        });
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
