//! From whom a load comes. A peer that lacks much finds the same missing at each of its neighbours, and would be sent it
//! by all of them; so it draws from one, and those that are ahead as well wait until that one is done.

use std::collections::BTreeMap;

use crate::base::{PeerId, Timestamp};

use super::Node;
use super::neighbour::{ANSWER_MS, Neighbour};

/// Documents that a neighbour must have more for what it sends to be a load.
const LOAD_DOCUMENTS: u64 = 256;

/// Milliseconds that a turn lasts at most: whoever only says that it has much, or sends it slowly, holds up others no
/// longer than that.
const TURN_MS: u64 = 120_000;

/// Milliseconds from one turn of a peer to its next.
const AGAIN_MS: u64 = 600_000;

/// When the last turn of each peer began, as long as it matters.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<PeerId, Timestamp>);

impl Turns {
    fn begin(&mut self, now: Timestamp, peer: PeerId) {
        self.0.retain(|_, since| now.since_ms(*since) < AGAIN_MS);
        self.0.entry(peer).or_insert(now);
    }

    /// Whether a load comes from a neighbour in its turn, as far as one knows.
    fn is_source(&self, now: Timestamp, peer: &PeerId, neighbour: &Neighbour) -> bool {
        let Some(since) = self.0.get(peer) else { return false };
        let heard = neighbour.heard_at().map_or(*since, |at| at.max(*since));
        neighbour.ahead > 0 && now.since_ms(*since) < TURN_MS && now.since_ms(heard) < ANSWER_MS
    }
}

impl Node {
    /// Whether a neighbour is to wait with what it has more, since a load comes from another.
    pub(super) fn waits_for_another(&self, now: Timestamp, peer: PeerId) -> bool {
        let is_ahead = self.neighbours.get(&peer).is_some_and(|neighbour| neighbour.ahead > 0);
        let mut others = self.neighbours.iter().filter(|(other, _)| **other != peer);
        is_ahead && others.any(|(other, neighbour)| self.turns.is_source(now, other, neighbour))
    }

    /// A comparison with a neighbour goes on, which brings a load when it is far ahead.
    pub(super) fn draw_from(&mut self, now: Timestamp, peer: PeerId) {
        if self.neighbours.get(&peer).is_some_and(|neighbour| neighbour.ahead >= LOAD_DOCUMENTS) {
            self.turns.begin(now, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Link;

    #[test]
    fn a_turn_is_not_had_again_at_once_however_it_ended() {
        let (peer, start) = (PeerId([1; 32]), Timestamp(1_700_000_000_000));
        let mut turns = Turns::default();
        let mut is_source = |after_ms, ahead| {
            let now = start.plus_ms(after_ms);
            // A link of its own each time, on which it has just said so.
            let link = Link { address: String::new(), dialed: false, direct: true };
            let mut neighbour = Neighbour::new(now, link);
            (neighbour.ahead, neighbour.talked_at) = (ahead, Some(now));
            turns.begin(now, peer);
            turns.is_source(now, &peer, &neighbour)
        };
        assert!(is_source(0, 1_000) && is_source(TURN_MS - 1, 1_000));
        assert!(!is_source(TURN_MS / 2, 0), "it is done");
        assert!(!is_source(TURN_MS, 1_000) && !is_source(AGAIN_MS - 1, 1_000));
        assert!(is_source(AGAIN_MS, 1_000));
    }

    #[test]
    fn a_silent_neighbour_loses_its_turn() {
        let (peer, start) = (PeerId([1; 32]), Timestamp(1_700_000_000_000));
        let link = Link { address: String::new(), dialed: false, direct: true };
        let mut neighbour = Neighbour::new(start, link);
        neighbour.ahead = 1_000;
        let mut turns = Turns::default();
        turns.begin(start, peer);
        assert!(turns.is_source(start.plus_ms(ANSWER_MS - 1), &peer, &neighbour));
        assert!(!turns.is_source(start.plus_ms(ANSWER_MS), &peer, &neighbour));
        neighbour.received_at = Some(start.plus_ms(ANSWER_MS));
        assert!(turns.is_source(start.plus_ms(ANSWER_MS), &peer, &neighbour));
    }
}
