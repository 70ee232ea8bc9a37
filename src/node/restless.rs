//! Peers whose links start anew again and again.
//!
//! One that does so from two places in turns runs twice: somebody has copied its data folder. Each of the two takes the
//! link from the other, everywhere, and neither sees more of it than that its links break. So a member that sees it tells
//! them: whoever of the two is linked to it hears that it runs twice, and where.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::{PeerId, Timestamp};
use crate::limits::KNOWN_PEERS_MAX;
use crate::sync::Message;

use super::Node;

/// Starts of links that are remembered of a peer; so many within the window are too many.
const STARTS: usize = 4;
/// Milliseconds in which they are.
const WINDOW_MS: u64 = 2 * 60 * 1_000;

/// When the links of peers started, and from where.
#[derive(Debug, Default)]
pub(super) struct Restless(BTreeMap<PeerId, VecDeque<(Timestamp, String)>>);

/// A peer whose links start anew again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestlessReport {
    /// The peer.
    pub peer: PeerId,
    /// From where it was linked lately; two places when it was in turns.
    pub places: BTreeSet<String>,
    /// How often its links started within the last two minutes, at least.
    pub starts: usize,
    /// Whether it seems to run in two places at once.
    pub is_twice: bool,
}

/// What a member said of this peer.
#[derive(Debug)]
pub(super) struct Twice {
    by: PeerId,
    at: Timestamp,
    places: BTreeSet<String>,
}

/// A member's word that this very peer runs in two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwiceReport {
    /// Who says so.
    pub by: PeerId,
    /// From where it was linked to that member in turns.
    pub places: BTreeSet<String>,
}

impl Restless {
    /// From where a peer is linked in turns, so that it seems to run twice.
    pub(super) fn twice(&self, now: Timestamp, peer: &PeerId) -> Option<BTreeSet<String>> {
        let starts = self.0.get(peer).filter(|starts| of_late(starts, now) && is_in_turns(starts))?;
        Some(starts.iter().map(|(_, place)| place.clone()).collect())
    }

    /// A link starts.
    pub(super) fn started(&mut self, now: Timestamp, peer: PeerId, address: &str) {
        let is_over =
            |starts: &VecDeque<(Timestamp, String)>| starts.back().is_none_or(|(at, _)| at.plus_ms(WINDOW_MS) <= now);
        if self.0.len() >= KNOWN_PEERS_MAX {
            self.0.retain(|_, starts| !is_over(starts));
        }
        if self.0.len() >= KNOWN_PEERS_MAX && !self.0.contains_key(&peer) {
            return;
        }
        let starts = self.0.entry(peer).or_default();
        starts.push_back((now, place(address)));
        if starts.len() > STARTS {
            starts.pop_front();
        }
    }

    /// The members whose links started too often of late.
    pub(super) fn report(&self, now: Timestamp, is_member: impl Fn(&PeerId) -> bool) -> Vec<RestlessReport> {
        let report = |(peer, starts): (&PeerId, &VecDeque<(Timestamp, String)>)| RestlessReport {
            peer: *peer,
            places: starts.iter().map(|(_, address)| address.clone()).collect(),
            starts: starts.len(),
            is_twice: is_in_turns(starts),
        };
        self.0.iter().filter(|(peer, starts)| is_member(peer) && of_late(starts, now)).map(report).collect()
    }
}

impl Node {
    /// A member is linked again: when it runs twice, it is told so, and the log as well.
    pub(super) fn tell_twice(&mut self, now: Timestamp, peer: PeerId) {
        let Some(places) = self.restless.twice(now, &peer) else { return };
        if self.notes.may(now, peer, "runs twice") {
            let places = in_words(&places);
            tracing::warn!(%peer, places, "a member runs twice: its data folder was copied (node doctor says what to do)");
        }
        self.send(peer, Message::RunsTwice(places));
    }

    /// A member says that this peer runs twice. It is only shown: the member may be wrong, or lie.
    pub(super) fn runs_twice(&mut self, now: Timestamp, by: PeerId, places: BTreeSet<String>) {
        // It is shown as it is, to people.
        let places: BTreeSet<String> = places.into_iter().map(|place| place.replace(char::is_control, " ")).collect();
        if self.notes.may(now, by, "we run twice") {
            let places = in_words(&places);
            tracing::warn!(%by, places, "this peer runs twice: its data folder was copied (node doctor says what to do)");
        }
        self.twice = Some(Twice { by, at: now, places });
    }

    /// What a member said within the last minutes of this peer running twice.
    pub(super) fn twice_report(&self, now: Timestamp) -> Option<TwiceReport> {
        let said = self.twice.as_ref().filter(|said| said.at.plus_ms(WINDOW_MS) > now)?;
        Some(TwiceReport { by: said.by, places: said.places.clone() })
    }
}

fn in_words(places: &BTreeSet<String>) -> String {
    places.iter().map(String::as_str).collect::<Vec<_>>().join(" and ")
}

/// Whether so many links started within the window.
fn of_late(starts: &VecDeque<(Timestamp, String)>, now: Timestamp) -> bool {
    starts.len() == STARTS && starts.front().is_some_and(|(at, _)| at.plus_ms(WINDOW_MS) > now)
}

/// The place of an address, whatever the transport: a peer has the same ports on all of them.
fn place(address: &str) -> String {
    match address.split('/').collect::<Vec<_>>()[..] {
        ["", "ip4" | "ip6", host, "tcp" | "udp", port, ..] => format!("{host} port {port}"),
        _ => address.to_owned(),
    }
}

/// Whether links started from two places in turns. One that moves to another network does not come back at once.
fn is_in_turns(starts: &VecDeque<(Timestamp, String)>) -> bool {
    let at = |index: usize| starts.get(index).map(|(_, address)| address);
    (0..STARTS - 2).all(|index| at(index) == at(index + 2)) && at(0) != at(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(starts: &[(u64, &str)], now: u64) -> Vec<RestlessReport> {
        let mut restless = Restless::default();
        for (at, address) in starts {
            restless.started(Timestamp(*at), PeerId([1; 32]), address);
        }
        restless.report(Timestamp(now), |_| true)
    }

    #[test]
    fn a_peer_that_is_linked_from_two_places_in_turns_runs_twice() {
        let turns = [(0, "a"), (5_000, "b"), (9_000, "a"), (12_000, "b")];
        let found = after(&turns, 13_000);
        assert!(found[0].is_twice && found[0].places.len() == 2);
        assert!(after(&turns, 120_000).is_empty(), "it has been quiet since");
        assert!(after(&turns[..3], 13_000).is_empty());
        for once in [["a", "a", "a", "a"], ["a", "b", "c", "d"], ["a", "a", "b", "b"]] {
            let starts: Vec<(u64, &str)> = once.iter().enumerate().map(|(n, at)| (n as u64, *at)).collect();
            let found = after(&starts, 10);
            assert!(!found[0].is_twice && found[0].starts == 4, "{once:?}");
        }
    }

    #[test]
    fn a_peer_that_runs_twice_is_said_to_be_at_both_places() {
        let mut restless = Restless::default();
        let (peer, turns) = (PeerId([1; 32]), ["a", "b", "a", "b"]);
        for (at, address) in turns.iter().enumerate() {
            assert_eq!(restless.twice(Timestamp(at as u64), &peer), None);
            restless.started(Timestamp(at as u64), peer, address);
        }
        assert_eq!(restless.twice(Timestamp(5), &peer), Some(["a", "b"].map(str::to_owned).into()));
        assert_eq!(restless.twice(Timestamp(WINDOW_MS), &peer), None);
        assert_eq!(restless.twice(Timestamp(5), &PeerId([2; 32])), None);
    }

    #[test]
    fn a_place_is_the_same_over_all_transports() {
        let addresses =
            ["/ip4/8.8.8.8/tcp/1/p2p/x", "/ip6/::1/udp/2/quic-v1", "/ip4/8.8.8.8/udp/1/quic-v1", "/ip6/::1/tcp/2"];
        let starts: Vec<(u64, &str)> = addresses.iter().enumerate().map(|(n, at)| (n as u64, *at)).collect();
        let found = after(&starts, 10);
        let places = ["8.8.8.8 port 1", "::1 port 2"].map(str::to_owned).into();
        assert!(found[0].is_twice && found[0].places == places, "{found:?}");
        assert_eq!(place("/dns4/a/tcp/1"), "/dns4/a/tcp/1");
    }

    #[test]
    fn no_more_peers_are_remembered_than_known() {
        let mut restless = Restless::default();
        for n in 0..2 * KNOWN_PEERS_MAX {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_le_bytes());
            restless.started(Timestamp(n as u64), PeerId(id), "a");
        }
        assert_eq!(restless.0.len(), KNOWN_PEERS_MAX);
    }
}
