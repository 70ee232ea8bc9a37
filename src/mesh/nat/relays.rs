//! Reservations on relays (circuit relay v2): which relays there are, which hold a slot for us, and when to ask again.
//!
//! A peer that cannot be dialed keeps slots on several relays, so that the end of one is not noticed by others. Nothing
//! here does anything: the driver asks what is due and reports what came of it.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::time::Duration;

use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::relay::outbound::hop::{ConnectError, ReserveError};
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::tally::{Reason, Tally};
use crate::limits::RELAYS_WANTED;
use crate::mesh::address::circuit;

/// How long to leave a relay alone after it refused, or broke off; doubled each time.
const BACKOFF: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// How long a relay may take to answer: longer than libp2p-relay 0.22 waits itself, which panics when the answer comes after
/// the slot was given up.
const ANSWER: Duration = Duration::from_secs(70);

/// Why a relay did not do what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelayFault {
    /// It has given away all that it has, or all that one peer may have.
    Full,
    /// It says no.
    Refused,
    /// It does not relay, or not to that peer.
    Unable,
    /// It cannot be asked.
    Unreachable,
    /// It has said nothing in time.
    Silent,
    /// The exchange with it, or what came of it, broke off.
    Broken,
}

impl Reason for RelayFault {
    const ALL: &'static [Self] =
        &[Self::Full, Self::Refused, Self::Unable, Self::Unreachable, Self::Silent, Self::Broken];

    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Unable => "unable",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Broken => "broken",
        }
    }
}

impl RelayFault {
    /// Finds what a relay said below an error of the swarm; `None` when no relay has said anything.
    pub(in crate::mesh) fn below(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<ReserveError>() {
                return Some(Self::of_slot(error));
            }
            if let Some(error) = error.downcast_ref::<ConnectError>() {
                return Some(Self::of_circuit(error));
            }
            next = error.source();
        }
        None
    }

    /// What a relay said to a dial through it.
    pub(in crate::mesh) fn of_dial(error: &DialError) -> Option<Self> {
        let DialError::Transport(errors) = error else { return None };
        errors.iter().find_map(|(_, error)| match error {
            TransportError::Other(error) => Self::below(error),
            TransportError::MultiaddrNotSupported(_) => None,
        })
    }

    fn of_slot(error: &ReserveError) -> Self {
        match error {
            ReserveError::ResourceLimitExceeded => Self::Full,
            ReserveError::Refused => Self::Refused,
            ReserveError::Unsupported => Self::Unable,
            ReserveError::Io(_) | ReserveError::Protocol(_) => Self::Broken,
        }
    }

    fn of_circuit(error: &ConnectError) -> Self {
        match error {
            ConnectError::ResourceLimitExceeded => Self::Full,
            ConnectError::PermissionDenied => Self::Refused,
            ConnectError::NoReservation | ConnectError::Unsupported => Self::Unable,
            ConnectError::ConnectionFailed | ConnectError::Io(_) | ConnectError::Protocol(_) => Self::Broken,
        }
    }
}

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
    /// `None` when we gave its slot up ourselves.
    fault: Option<RelayFault>,
}

/// Relays, and our slots on them.
#[derive(Debug, Default)]
pub(in crate::mesh) struct Relays {
    /// Peers with a direct connection that relay for others, and their addresses, best first; never none.
    able: HashMap<PeerId, Vec<Multiaddr>>,
    slots: HashMap<ListenerId, Slot>,
    failures: HashMap<PeerId, Failure>,
    /// Slots that were refused.
    refused: Tally<RelayFault>,
    /// Connections through relays that were.
    refused_circuits: Tally<RelayFault>,
}

impl Relays {
    /// A connected peer relays for others, and can be dialed at these addresses now.
    pub(in crate::mesh) fn offered(&mut self, relay: PeerId, addresses: Vec<Multiaddr>) {
        if !addresses.is_empty() {
            self.able.insert(relay, addresses);
        }
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
        let (relay, addresses) = able.min_by_key(|(relay, _)| (failures(relay), relay.to_bytes()))?;
        Some((*relay, addresses.first()?.clone()))
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

    /// A relay cannot even be asked now, did not do as asked, or is asked no more.
    pub(in crate::mesh) fn failed(&mut self, relay: PeerId, fault: Option<RelayFault>, now: Instant) {
        if let Some(fault) = fault {
            self.refused.count(fault);
        }
        let failure = self.failures.entry(relay).or_insert(Failure { times: 0, until: now, fault });
        failure.fault = fault;
        failure.until = now + BACKOFF.saturating_mul(1 << failure.times.min(8)).min(BACKOFF_MAX);
        failure.times += 1;
    }

    /// A slot is no more, and why, unless we gave it up. Says whose it was.
    pub(in crate::mesh) fn closed(
        &mut self,
        listener: ListenerId,
        fault: Option<RelayFault>,
        now: Instant,
    ) -> Option<PeerId> {
        let slot = self.slots.remove(&listener)?;
        self.failed(slot.relay, fault, now);
        Some(slot.relay)
    }

    /// A connection through a relay was refused.
    pub(in crate::mesh) fn circuit_refused(&self, fault: RelayFault) {
        self.refused_circuits.count(fault);
    }

    /// Slots that a relay promised too long ago and never gave.
    pub(in crate::mesh) fn overdue(&self, now: Instant) -> Vec<ListenerId> {
        let late = self.slots.iter().filter(|(_, slot)| !slot.accepted && slot.asked + ANSWER <= now);
        late.map(|(listener, _)| *listener).collect()
    }

    /// The slots that can be given up: those that relays gave. What is asked for is waited for, as above.
    pub(in crate::mesh) fn given(&self) -> Vec<ListenerId> {
        self.slots.iter().filter(|(_, slot)| slot.accepted).map(|(listener, _)| *listener).collect()
    }

    /// The relays that hold a slot for us.
    pub(in crate::mesh) fn held(&self) -> impl Iterator<Item = &PeerId> {
        self.slots.values().filter(|slot| slot.accepted).map(|slot| &slot.relay)
    }

    /// Where a peer is reached through the relays that hold a slot for it.
    pub(in crate::mesh) fn circuits(&self, peer: PeerId) -> BTreeSet<Multiaddr> {
        let held = self.held().filter_map(|relay| Some((*relay, self.able.get(relay)?)));
        held.flat_map(|(relay, addresses)| addresses.iter().map(move |at| circuit(at, relay, peer))).collect()
    }

    /// How many relays there are to ask.
    pub(in crate::mesh) fn known(&self) -> usize {
        self.able.len()
    }

    /// How many of those have refused a slot because they are full.
    pub(in crate::mesh) fn full(&self) -> usize {
        let is_full =
            |relay: &&PeerId| self.failures.get(relay).is_some_and(|failure| failure.fault == Some(RelayFault::Full));
        self.able.keys().filter(is_full).count()
    }

    /// What was refused, by reason: slots, and connections.
    pub(in crate::mesh) fn refused(&self) -> (&Tally<RelayFault>, &Tally<RelayFault>) {
        (&self.refused, &self.refused_circuits)
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

    fn address() -> Vec<Multiaddr> {
        vec!["/ip4/8.8.8.8/udp/1/quic-v1".parse().unwrap(), "/ip6/2a00::8/tcp/1".parse().unwrap()]
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
        // Who is told of them learns all their addresses.
        let own = PeerId::random();
        assert_eq!(relays.circuits(own).len(), 2 * RELAYS_WANTED);
        // One dies: another takes over at once, and the dead one comes last.
        let (listener, dead) = listeners[0];
        assert_eq!(relays.closed(listener, Some(RelayFault::Broken), now), Some(dead));
        assert_eq!(relays.circuits(own).len(), 2 * (RELAYS_WANTED - 1));
        let (next, _) = relays.next(now).unwrap();
        assert!(listeners.iter().all(|(_, relay)| *relay != next));
    }

    #[test]
    fn a_relay_that_refuses_is_asked_ever_more_rarely() {
        let (mut relays, mut now) = (Relays::default(), Instant::now());
        let relay = PeerId::random();
        relays.offered(relay, address());
        let mut last = Duration::ZERO;
        for times in 0..12 {
            let (asked, _) = relays.next(now).unwrap();
            let listener = ListenerId::next();
            relays.asked(listener, asked, now);
            relays.closed(listener, Some(RelayFault::Full), now);
            assert!(relays.next(now).is_none());
            assert_eq!((relays.full(), relays.refused().0.counts()["full"]), (1, times + 1));
            let pause = relays.due().unwrap() - now;
            assert!(pause >= last && pause <= BACKOFF_MAX);
            last = pause;
            now += pause;
        }
        assert_eq!(last, BACKOFF_MAX);
        // It has room again.
        relays.asked(ListenerId::next(), relay, now);
        relays.accepted(&relay);
        assert_eq!(relays.full(), 0);
    }

    #[test]
    fn a_promise_that_is_not_kept_is_noticed() {
        let (mut relays, now) = (Relays::default(), Instant::now());
        relays.offered(PeerId::random(), address());
        let (relay, _) = relays.next(now).unwrap();
        let listener = ListenerId::next();
        relays.asked(listener, relay, now);
        assert!(relays.overdue(now).is_empty() && relays.given().is_empty());
        let due = relays.due().unwrap();
        assert_eq!(relays.overdue(due), [listener]);
        relays.accepted(&relay);
        assert!(relays.overdue(due).is_empty());
        assert_eq!(relays.given(), [listener]);
    }
}
