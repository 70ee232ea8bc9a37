//! What happens with other peers, as lines of the log for people: one for each peer and matter in a minute, and no more of
//! them in all than are remembered. What peers did that is wrong is in `complaint`.

use std::collections::BTreeMap;

use crate::base::{PeerId, Timestamp};
use crate::limits::NOTES_MAX;

/// Milliseconds between two lines about the same peer and matter.
const AGAIN_MS: u64 = 60_000;

/// What was said within the last minute.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<(PeerId, &'static str), Timestamp>);

impl Notes {
    /// Whether a line about a peer and a matter may be written now.
    pub(super) fn may(&mut self, now: Timestamp, peer: PeerId, matter: &'static str) -> bool {
        if self.0.len() >= NOTES_MAX {
            self.0.retain(|_, until| *until > now);
        }
        if self.0.get(&(peer, matter)).is_some_and(|until| *until > now) || self.0.len() >= NOTES_MAX {
            return false;
        }
        self.0.insert((peer, matter), now.plus_ms(AGAIN_MS));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matter_is_told_once_a_minute_for_each_peer_and_of_bounded_many() {
        let mut notes = Notes::default();
        let peer = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_le_bytes());
            PeerId(id)
        };
        let mut may = |at, n, matter| notes.may(Timestamp(at), peer(n), matter);
        assert!(may(0, 1, "connected") && may(1, 1, "lost") && may(2, 2, "connected"));
        assert!(!may(59_999, 1, "connected") && may(60_000, 1, "connected"));
        let told = (0..2 * NOTES_MAX).filter(|n| may(70_000, *n, "flood")).count();
        assert!((1..=NOTES_MAX).contains(&told), "{told}");
        assert!(may(200_000, 3, "flood"), "later there is room again");
    }
}
