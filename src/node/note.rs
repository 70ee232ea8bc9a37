//! What happens with other peers, as lines of the log for people: one for each peer and matter in a minute, and no more of
//! them in all than are remembered. What peers did that is wrong is in `complaint`.

use std::collections::BTreeMap;

use crate::base::{PeerId, Timestamp};
use crate::limits::NOTES_MAX;

use super::Node;
use super::neighbour::Neighbour;

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

/// Milliseconds before a link that ended is said to be lost: one that moves from a relay to a direct connection starts anew.
const SETTLE_MS: u64 = 3_000;
/// Milliseconds between two lines about the link to a peer. The last one is always true.
const LINK_AGAIN_MS: u64 = 20_000;

/// What was said of the links to members.
#[derive(Debug, Default)]
pub(super) struct LinkNotes(BTreeMap<PeerId, Told>);

/// What was said last of one, and when the next line may be written.
#[derive(Debug)]
struct Told {
    connected: bool,
    next: Timestamp,
}

impl LinkNotes {
    /// The link to a peer has started or ended.
    pub(super) fn changed(&mut self, now: Timestamp, peer: PeerId, connected: bool) {
        if self.0.len() >= NOTES_MAX && !self.0.contains_key(&peer) {
            return;
        }
        let told = self.0.entry(peer).or_insert(Told { connected: false, next: now });
        if !connected {
            told.next = told.next.max(now.plus_ms(SETTLE_MS));
        }
    }

    /// Those of which something else is so by now than was said: what is so.
    fn due(&mut self, now: Timestamp, is_connected: impl Fn(&PeerId) -> bool) -> Vec<(PeerId, bool)> {
        let mut due = Vec::new();
        self.0.retain(|peer, told| {
            let connected = is_connected(peer);
            if told.next > now || told.connected == connected {
                return told.next > now || connected;
            }
            due.push((*peer, connected));
            *told = Told { connected, next: now.plus_ms(LINK_AGAIN_MS) };
            true
        });
        due
    }

    /// When the next line is to be written.
    fn next(&self, is_connected: impl Fn(&PeerId) -> bool) -> Option<Timestamp> {
        self.0.iter().filter(|(peer, told)| told.connected != is_connected(peer)).map(|(_, told)| told.next).min()
    }
}

impl Node {
    /// Writes the lines about links that are due.
    pub(super) fn tend_link_notes(&mut self, now: Timestamp) {
        let neighbours = &self.neighbours;
        for (peer, connected) in self.link_notes.due(now, |peer| is_admitted(neighbours.get(peer))) {
            match neighbours.get(&peer).filter(|_| connected) {
                Some(neighbour) => {
                    let link = &neighbour.link;
                    tracing::info!(%peer, address = link.address, direct = link.direct, "connected");
                }
                None => tracing::info!(%peer, "connection lost"),
            }
        }
    }

    /// When a line about a link is due.
    pub(super) fn next_link_note(&self) -> Option<Timestamp> {
        self.link_notes.next(|peer| is_admitted(self.neighbours.get(peer)))
    }
}

fn is_admitted(neighbour: Option<&Neighbour>) -> bool {
    neighbour.is_some_and(Neighbour::is_admitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_starts_anew_is_not_lost_and_one_that_flaps_is_told_rarely_and_truly() {
        let (mut notes, peer) = (LinkNotes::default(), PeerId([1; 32]));
        let changed = |notes: &mut LinkNotes, at, connected| {
            notes.changed(Timestamp(at), peer, connected);
            notes.due(Timestamp(at), |_| connected)
        };
        assert_eq!(changed(&mut notes, 0, true), [(peer, true)]);
        assert!(changed(&mut notes, 30_000, false).is_empty() && changed(&mut notes, 31_000, true).is_empty());
        assert!(notes.due(Timestamp(40_000), |_| true).is_empty() && notes.next(|_| true).is_none());
        let mut lines = 0;
        for at in (40_000..100_000).step_by(500) {
            lines += changed(&mut notes, at, at % 1_000 == 0).len();
        }
        assert!(lines <= 3, "{lines}");
        changed(&mut notes, 100_000, false);
        let at = notes.next(|_| false).map_or(Timestamp(103_000), |next| next.max(Timestamp(103_000)));
        notes.due(at, |_| false);
        assert!(notes.next(|_| false).is_none(), "the last word is true");
        notes.due(Timestamp(200_000), |_| false);
        assert!(notes.0.is_empty());
    }

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
