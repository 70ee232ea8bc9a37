//! Whom to dial, and when. Every address is a hint: a dead one costs a dial now and then, ever more
//! rarely, and blocks nothing. Addresses that worked are kept in the store for the next start.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::base::{PeerId, Timestamp};
use crate::limits::{KNOWN_PEERS_MAX, NEIGHBOURS_TARGET, TICKET_ADDRESSES_MAX};
use crate::store::Addresses;

use super::Node;
use super::effect::{DropReason, Link};
use super::membership::is_of;

/// Milliseconds before dialing again after the first failure; doubled with each further one.
const BACKOFF_MIN_MS: u64 = 1_000;
/// Milliseconds before dialing again at most.
const BACKOFF_MAX_MS: u64 = 120_000;
/// Milliseconds for which a peer of another mesh is left alone.
const FOREIGN_MS: u64 = 600_000;
/// Addresses dialed at a time.
const DIALS_MAX: usize = 8;

/// One address and how it went.
#[derive(Debug, Clone)]
struct Address {
    failures: u32,
    next: Timestamp,
}

impl Address {
    fn fresh(now: Timestamp) -> Self {
        Self { failures: 0, next: now }
    }

    /// Half to all of the backoff, so that peers that lost each other do not dial in step.
    fn failed(&mut self, now: Timestamp, random: u64) {
        let full = (BACKOFF_MIN_MS << self.failures.min(10)).min(BACKOFF_MAX_MS);
        self.failures += 1;
        self.next = now.plus_ms(full / 2 + random % (full / 2 + 1));
    }
}

/// Peers and the addresses at which they may be.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    peers: BTreeMap<PeerId, BTreeMap<String, Address>>,
    /// Configured addresses; those without a peer id are known only by their text.
    seeds: BTreeMap<String, Address>,
    /// Which peer answered at a seed.
    answered: BTreeMap<String, PeerId>,
    connected: BTreeMap<PeerId, String>,
    /// Peers that are left alone until then.
    foreign: BTreeMap<PeerId, Timestamp>,
}

impl AddressBook {
    pub(super) fn new(seeds: Vec<String>, stored: BTreeMap<PeerId, Addresses>, now: Timestamp) -> Self {
        let fresh = |address: String| (address, Address::fresh(now));
        let peers = stored.into_iter().map(|(peer, list)| (peer, list.0.into_iter().map(fresh).collect()));
        Self { peers: peers.collect(), seeds: seeds.into_iter().map(fresh).collect(), ..Self::default() }
    }

    /// Takes note of addresses at which a peer is said to be.
    fn learned(&mut self, now: Timestamp, peer: PeerId, addresses: Vec<String>) {
        if self.foreign.get(&peer).is_some_and(|until| *until > now) {
            return;
        }
        if self.peers.len() >= KNOWN_PEERS_MAX && !self.peers.contains_key(&peer) {
            return;
        }
        let known = self.peers.entry(peer).or_default();
        for address in addresses {
            let address = if is_of(&address, &peer) { address } else { format!("{address}/p2p/{peer}") };
            if let Some(known) = known.get_mut(&address) {
                known.next = known.next.min(now);
                continue;
            }
            if known.len() >= TICKET_ADDRESSES_MAX && !make_room(known) {
                break;
            }
            known.insert(address, Address::fresh(now));
        }
    }

    /// Addresses that failed are worth another try at once.
    pub(super) fn retry(&mut self, now: Timestamp) {
        for address in self.peers.values_mut().flat_map(BTreeMap::values_mut).chain(self.seeds.values_mut()) {
            *address = Address { failures: 0, next: address.next.min(now) };
        }
    }

    pub(super) fn connected(&mut self, peer: PeerId, link: &Link) {
        self.connected.insert(peer, link.address.clone());
        let bare = link.address.rsplit_once("/p2p/").map_or(link.address.as_str(), |(bare, _)| bare);
        for seed in self.seeds.keys() {
            if seed == bare || seed == &link.address || is_of(seed, &peer) {
                self.answered.insert(seed.clone(), peer);
            }
        }
    }

    pub(super) fn disconnected(&mut self, now: Timestamp, peer: PeerId) {
        self.connected.remove(&peer);
        for address in self.peers.get_mut(&peer).into_iter().flat_map(BTreeMap::values_mut) {
            address.next = address.next.min(now.plus_ms(BACKOFF_MIN_MS / 2));
        }
    }

    /// A connected peer turned out to be a member: an address that was dialed is good. Returns all of its
    /// addresses to be kept, when there is something new.
    pub(super) fn confirmed(&mut self, peer: PeerId, link: &Link) -> Option<Addresses> {
        let known = self.peers.entry(peer).or_default();
        if link.dialed && link.direct {
            let address =
                if is_of(&link.address, &peer) { link.address.clone() } else { format!("{}/p2p/{peer}", link.address) };
            known.insert(address.clone(), Address::fresh(Timestamp::default()));
            while known.len() > TICKET_ADDRESSES_MAX {
                let others = known.iter().filter(|(other, _)| **other != address);
                let Some(worst) = others.max_by_key(|(_, known)| known.failures).map(|(worst, _)| worst.clone()) else {
                    break;
                };
                known.remove(&worst);
            }
        }
        known.values_mut().for_each(|address| address.failures = 0);
        (!known.is_empty()).then(|| Addresses(known.keys().cloned().collect()))
    }

    pub(super) fn parted(&mut self, peer: PeerId, reason: DropReason) {
        self.connected.remove(&peer);
        if matches!(
            reason,
            DropReason::ForeignMesh | DropReason::NotAMember | DropReason::Fallen | DropReason::Misbehaved
        ) {
            self.peers.remove(&peer);
        }
    }

    /// Leaves a peer alone that is in another mesh.
    pub(super) fn foreign(&mut self, now: Timestamp, peer: PeerId) {
        self.foreign.retain(|_, until| *until > now);
        if self.foreign.len() < KNOWN_PEERS_MAX {
            self.foreign.insert(peer, now.plus_ms(FOREIGN_MS));
        }
        self.peers.remove(&peer);
    }

    /// After joining another mesh nobody is foreign for what they were before, and old friends are strangers.
    pub(super) fn forget_foreign(&mut self) {
        self.foreign.clear();
        self.peers.clear();
    }

    fn failed(&mut self, now: Timestamp, address: &str, random: u64) {
        let of_peers = self.peers.values_mut().filter_map(|known| known.get_mut(address));
        for known in of_peers.chain(self.seeds.get_mut(address)) {
            known.failed(now, random);
        }
    }

    /// Addresses to dial now. Each counts as failed until the driver says that it is connected, so that an
    /// answer that never comes is a failure too.
    pub(super) fn due(&mut self, now: Timestamp, connected: usize, rng: &mut StdRng) -> Vec<String> {
        let mut due: Vec<String> = Vec::new();
        for (address, known) in self.candidates(connected) {
            if known.next <= now && due.len() < DIALS_MAX && !due.contains(address) {
                due.push(address.clone());
            }
        }
        for address in &due {
            self.failed(now, address, rng.random());
        }
        due
    }

    pub(super) fn next_due(&self, connected: usize) -> Option<Timestamp> {
        self.candidates(connected).map(|(_, known)| known.next).min()
    }

    /// Addresses of whoever is not connected, seeds first.
    fn candidates(&self, connected: usize) -> impl Iterator<Item = (&String, &Address)> {
        let seeds = self
            .seeds
            .iter()
            .filter(|(seed, _)| !self.answered.get(*seed).is_some_and(|peer| self.connected.contains_key(peer)));
        let room = connected < NEIGHBOURS_TARGET;
        let peers = self.peers.iter().filter(move |(peer, _)| room && !self.connected.contains_key(peer));
        seeds.chain(peers.flat_map(|(_, known)| known))
    }
}

/// Forgets the address that failed most often; says whether any has failed.
fn make_room(known: &mut BTreeMap<String, Address>) -> bool {
    let worst = known.iter().filter(|(_, address)| address.failures > 0).max_by_key(|(_, address)| address.failures);
    worst.map(|(worst, _)| worst.clone()).is_some_and(|worst| known.remove(&worst).is_some())
}

impl Node {
    pub(super) fn discovered(&mut self, now: Timestamp, peer: PeerId, addresses: Vec<String>) {
        if peer != self.peer_id() {
            self.addresses.learned(now, peer, addresses);
        }
    }

    pub(super) fn dial_failed(&mut self, now: Timestamp, address: &str, why: &str) {
        tracing::debug!(address, why, "dial failed");
        self.join_dial_failed(now, address, why);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn addresses_that_failed_are_tried_at_once_on_another_network() {
        let (mut rng, peer) = (StdRng::seed_from_u64(1), PeerId([1; 32]));
        let mut book = AddressBook::new(vec!["/ip4/8.8.8.8/tcp/1".into()], BTreeMap::new(), Timestamp(0));
        book.learned(Timestamp(0), peer, vec!["/ip4/8.8.4.4/tcp/1".into()]);
        let mut now = Timestamp(0);
        for _ in 0..6 {
            assert_eq!(book.due(now, 0, &mut rng).len(), 2);
            assert!(book.due(now, 0, &mut rng).is_empty());
            now = now.plus_ms(BACKOFF_MAX_MS);
        }
        assert_eq!(book.due(now, 0, &mut rng).len(), 2);
        // Half a second later they would wait for many seconds more.
        now = now.plus_ms(500);
        assert!(book.due(now, 0, &mut rng).is_empty());
        book.retry(now);
        assert_eq!(book.due(now, 0, &mut rng).len(), 2);
        // And the pauses are short again.
        assert!(book.next_due(0).is_some_and(|next| next.since_ms(now) <= BACKOFF_MIN_MS));
    }

    #[test]
    fn a_new_address_takes_the_place_of_one_that_failed() {
        let (mut rng, peer) = (StdRng::seed_from_u64(1), PeerId([1; 32]));
        let mut book = AddressBook::new(Vec::new(), BTreeMap::new(), Timestamp(0));
        let at = |n: usize| format!("/ip4/8.8.8.8/tcp/{n}/p2p/{peer}");
        let knows = |book: &AddressBook, n: usize| book.peers[&peer].contains_key(&at(n));
        book.learned(Timestamp(0), peer, (0..TICKET_ADDRESSES_MAX).map(at).collect());
        book.learned(Timestamp(0), peer, vec![at(100)]);
        assert!(!knows(&book, 100), "those that are there may be as good");
        let dialed = book.due(Timestamp(0), 0, &mut rng);
        book.learned(Timestamp(0), peer, vec![at(100)]);
        assert!(knows(&book, 100) && book.peers[&peer].len() == TICKET_ADDRESSES_MAX);
        assert_eq!(dialed.iter().filter(|address| !book.peers[&peer].contains_key(*address)).count(), 1);
    }
}
