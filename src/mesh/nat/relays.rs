//! Reservations on relays (circuit relay v2): which relays there are, which hold a slot for us, and when to ask again.
//!
//! A peer that cannot be dialed keeps slots on several relays, so that the end of one is not noticed by others. Nothing
//! here does anything: the driver asks what is due and reports what came of it.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::limits::RELAYS_WANTED;

/// How long to leave a relay alone after it refused, or broke off; doubled each time.
const BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// How long a relay may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// A slot that was asked for.
#[derive(Debug)]
struct Slot {
    relay: PeerId,
    asked: Instant,
    accepted: bool,
}

#[derive(Debug)]
struct Failure {
    times: u32,
    until: Instant,
}

/// Relays, and our slots on them.
#[derive(Debug, Default)]
pub(in crate::mesh) struct Relays {
    /// Peers with a direct connection that relay for others, and their addresses.
    able: HashMap<PeerId, Multiaddr>,
    slots: HashMap<ListenerId, Slot>,
    failures: HashMap<PeerId, Failure>,
}

impl Relays {
    /// A connected peer relays for others.
    pub(in crate::mesh) fn offered(&mut self, relay: PeerId, address: Multiaddr) {
        self.able.entry(relay).or_insert(address);
    }

    /// A peer relays no more, or is no longer connected.
    pub(in crate::mesh) fn gone(&mut self, relay: &PeerId) {
        self.able.remove(relay);
    }

    /// The relay to ask next; `None` when there are slots enough, or nobody to ask now.
    pub(in crate::mesh) fn next(&self, now: Instant) -> Option<(PeerId, Multiaddr)> {
        if self.slots.len() >= RELAYS_WANTED {
            return None;
        }
        let idle = |relay: &PeerId| !self.slots.values().any(|slot| slot.relay == *relay);
        let failures = |relay: &PeerId| self.failures.get(relay).map_or(0, |failure| failure.times);
        let ready = |relay: &PeerId| self.failures.get(relay).is_none_or(|failure| failure.until <= now);
        let able = self.able.iter().filter(|(relay, _)| idle(relay) && ready(relay));
        able.min_by_key(|(relay, _)| (failures(relay), relay.to_bytes()))
            .map(|(relay, address)| (*relay, address.clone()))
    }

    /// A relay was asked for a slot, which is a listener of the swarm.
    pub(in crate::mesh) fn asked(&mut self, listener: ListenerId, relay: PeerId, now: Instant) {
        self.slots.insert(listener, Slot { relay, asked: now, accepted: false });
    }

    /// A relay gave us a slot, or renewed it.
    pub(in crate::mesh) fn accepted(&mut self, relay: &PeerId) {
        self.failures.remove(relay);
        self.slots.values_mut().filter(|slot| slot.relay == *relay).for_each(|slot| slot.accepted = true);
    }

    /// A relay cannot even be asked now.
    pub(in crate::mesh) fn failed(&mut self, relay: PeerId, now: Instant) {
        let failure = self.failures.entry(relay).or_insert(Failure { times: 0, until: now });
        failure.until = now + BACKOFF.saturating_mul(1 << failure.times.min(8)).min(BACKOFF_MAX);
        failure.times += 1;
    }

    /// A slot is no more. Says whose it was.
    pub(in crate::mesh) fn closed(&mut self, listener: ListenerId, now: Instant) -> Option<PeerId> {
        let slot = self.slots.remove(&listener)?;
        self.failed(slot.relay, now);
        Some(slot.relay)
    }

    /// Slots that a relay promised too long ago and never gave.
    pub(in crate::mesh) fn overdue(&self, now: Instant) -> Vec<ListenerId> {
        let late = self.slots.iter().filter(|(_, slot)| !slot.accepted && slot.asked + ANSWER <= now);
        late.map(|(listener, _)| *listener).collect()
    }

    /// All slots.
    pub(in crate::mesh) fn listeners(&self) -> Vec<ListenerId> {
        self.slots.keys().copied().collect()
    }

    /// The relays that hold a slot for us.
    pub(in crate::mesh) fn held(&self) -> impl Iterator<Item = &PeerId> {
        self.slots.values().filter(|slot| slot.accepted).map(|slot| &slot.relay)
    }

    /// How many relays there are to ask.
    pub(in crate::mesh) fn known(&self) -> usize {
        self.able.len()
    }

    /// When to look again.
    pub(in crate::mesh) fn due(&self) -> Option<Instant> {
        let waiting = self.able.keys().filter(|_| self.slots.len() < RELAYS_WANTED);
        let again = waiting.filter_map(|relay| self.failures.get(relay)).map(|failure| failure.until);
        let late = self.slots.values().filter(|slot| !slot.accepted).map(|slot| slot.asked + ANSWER);
        again.chain(late).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Multiaddr {
        "/ip4/8.8.8.8/udp/1/quic-v1".parse().unwrap()
    }

    #[test]
    fn slots_are_kept_on_as_many_relays_as_wanted() {
        let (mut relays, now) = (Relays::default(), Instant::now());
        assert!(relays.next(now).is_none());
        let peers: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        peers.iter().for_each(|peer| relays.offered(*peer, address()));
        let mut listeners = Vec::new();
        while let Some((relay, _)) = relays.next(now) {
            let listener = ListenerId::next();
            relays.asked(listener, relay, now);
            relays.accepted(&relay);
            listeners.push((listener, relay));
        }
        assert_eq!((listeners.len(), relays.held().count()), (RELAYS_WANTED, RELAYS_WANTED));
        // One dies: another takes over at once, and the dead one comes last.
        let (listener, dead) = listeners[0];
        assert_eq!(relays.closed(listener, now), Some(dead));
        let (next, _) = relays.next(now).unwrap();
        assert!(listeners.iter().all(|(_, relay)| *relay != next));
    }

    #[test]
    fn a_relay_that_refuses_is_asked_ever_more_rarely() {
        let (mut relays, mut now) = (Relays::default(), Instant::now());
        let relay = PeerId::random();
        relays.offered(relay, address());
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            let (asked, _) = relays.next(now).unwrap();
            let listener = ListenerId::next();
            relays.asked(listener, asked, now);
            relays.closed(listener, now);
            assert!(relays.next(now).is_none());
            let pause = relays.due().unwrap() - now;
            assert!(pause >= last && pause <= BACKOFF_MAX);
            last = pause;
            now += pause;
        }
        assert_eq!(last, BACKOFF_MAX);
    }

    #[test]
    fn a_promise_that_is_not_kept_is_noticed() {
        let (mut relays, now) = (Relays::default(), Instant::now());
        relays.offered(PeerId::random(), address());
        let (relay, _) = relays.next(now).unwrap();
        let listener = ListenerId::next();
        relays.asked(listener, relay, now);
        assert!(relays.overdue(now).is_empty());
        let due = relays.due().unwrap();
        assert_eq!(relays.overdue(due), [listener]);
        relays.accepted(&relay);
        assert!(relays.overdue(due).is_empty());
    }
}
