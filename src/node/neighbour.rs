//! One connected peer, as the node sees it.

use crate::base::Timestamp;
use crate::sync::Outbox;

use super::effect::Link;

/// Milliseconds in which a connected peer must greet.
pub(super) const GREETING_MS: u64 = 10_000;

/// Milliseconds after which an unanswered question is given up.
pub(super) const ANSWER_MS: u64 = 10_000;

/// Milliseconds between comparisons with a peer that nothing has changed at.
pub(super) const INTERVAL_MS: u64 = 30_000;

/// Milliseconds after a change in which gossip has the time to bring it over before a comparison.
pub(super) const SETTLE_MS: u64 = 750;

/// Milliseconds before comparing again when a comparison led to nothing; doubled each time.
pub(super) const RETRY_MS: u64 = 1_000;

/// Milliseconds between two looks at a disk that was full.
pub(super) const NO_ROOM_MS: u64 = 10_000;

/// Questions that a peer may ask at once, and how fast they come back.
const ASKS_MAX: u64 = 32;
const ASK_REFILL_MS: u64 = 100;

/// Where a neighbour stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has until then to greet.
    Greeting {
        /// The time.
        until: Timestamp,
    },
    /// It is a member and has shown it.
    Admitted,
}

/// A question about everything, see [`crate::sync::directory`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) salt: u64,
    pub(super) at: Timestamp,
    /// The version of the store that it is about.
    pub(super) version: u64,
    /// Whether the peer asked at the same time, and its question is the one that is followed up.
    pub(super) yields: bool,
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) link: Link,
    pub(super) since: Timestamp,
    pub(super) stage: Stage,
    pub(super) outbox: Outbox,
    /// When the next comparison is due.
    pub(super) compare_at: Timestamp,
    /// A question that is not answered yet.
    pub(super) asked: Option<Question>,
    /// How long our last question waited for its answer, in milliseconds.
    pub(super) answer_ms: u64,
    /// Whether it was found equal since the link is up.
    pub(super) was_equal: bool,
    /// Documents that it had more than this peer at the last comparison.
    pub(super) ahead: u64,
    /// When something of a comparison that found differences last arrived.
    pub(super) talked_at: Option<Timestamp>,
    /// When the last changes arrived from it outside gossip.
    pub(super) received_at: Option<Timestamp>,
    /// When to see again whether the disk has room for its changes, of which some were not taken.
    pub(super) no_room_until: Option<Timestamp>,
    /// Comparisons in a row that found differences and led to nothing.
    pub(super) fruitless: u32,
    /// Feed position here and documents there at the last comparison, to see whether it led to something.
    pub(super) progress: (u64, u64),
    /// Since when nothing has come from it, though something must have.
    pub(super) no_answer_since: Option<Timestamp>,
    asks: u64,
    asks_at: Timestamp,
}

impl Neighbour {
    pub(super) fn new(now: Timestamp, link: Link) -> Self {
        Self {
            link,
            since: now,
            stage: Stage::Greeting { until: now.plus_ms(GREETING_MS) },
            outbox: Outbox::default(),
            compare_at: now.plus_ms(INTERVAL_MS),
            asked: None,
            answer_ms: SETTLE_MS,
            was_equal: false,
            ahead: 0,
            talked_at: None,
            received_at: None,
            no_room_until: None,
            fruitless: 0,
            progress: (0, 0),
            no_answer_since: None,
            asks: ASKS_MAX,
            asks_at: now,
        }
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.stage == Stage::Admitted
    }

    /// Brings the next comparison forward.
    pub(super) fn compare_by(&mut self, at: Timestamp) {
        self.compare_at = self.compare_at.min(at);
    }

    /// Whether a comparison may start: one is due, and nothing is under way in either direction.
    pub(super) fn may_compare(&self, now: Timestamp) -> bool {
        self.is_admitted() && self.asked.is_none() && self.outbox.is_empty() && self.compare_when_quiet() <= now
    }

    /// When the next comparison is due and nothing of the one before will come any more: what is on its way would be
    /// found again. There is no last message of a comparison, so it is over when nobody has said anything for twice the
    /// time that an answer takes.
    fn compare_when_quiet(&self) -> Timestamp {
        let over = self.talked_at.map(|at| at.plus_ms(2 * self.answer_ms));
        let received = self.received_at.map(|at| at.plus_ms(SETTLE_MS));
        [over, received].into_iter().flatten().fold(self.compare_at, Timestamp::max)
    }

    /// When something of a comparison, or what came of it, last arrived.
    pub(super) fn heard_at(&self) -> Option<Timestamp> {
        self.talked_at.max(self.received_at)
    }

    /// When something must be done about this neighbour.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        [self.next_question(), self.no_room_until].into_iter().flatten().min()
    }

    fn next_question(&self) -> Option<Timestamp> {
        match (self.stage, self.asked) {
            (Stage::Greeting { until }, _) => Some(until),
            (Stage::Admitted, Some(asked)) => Some(asked.at.plus_ms(ANSWER_MS)),
            (Stage::Admitted, None) if !self.outbox.is_empty() => None,
            (Stage::Admitted, None) => Some(self.compare_when_quiet()),
        }
    }

    /// Whether a question of this peer is to be answered; a peer that asks all the time is not served.
    pub(super) fn take_ask(&mut self, now: Timestamp) -> bool {
        let refill = now.since_ms(self.asks_at) / ASK_REFILL_MS;
        if refill > 0 {
            self.asks = (self.asks + refill).min(ASKS_MAX);
            self.asks_at = now;
        }
        match self.asks.checked_sub(1) {
            Some(left) => {
                self.asks = left;
                true
            }
            None => false,
        }
    }
}
