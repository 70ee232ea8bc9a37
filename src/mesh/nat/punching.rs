//! Punching holes (DCUtR), one attempt at a time. By the protocol whoever was dialed through the relay starts. Two peers
//! that look for each other dial each other at once, and both would start: over TCP the two attempts meet on the same
//! ports, both sides take themselves for the one that is dialed, and wait for the other to speak until the handshake's
//! time is over. So here the peer with the smaller id starts, whoever dialed.
//!
//! <https://github.com/libp2p/specs/blob/master/relay/DCUtR.md>

use std::collections::HashMap;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, dcutr};
use tokio::time::Instant;

use super::is_seen_over_relay;
use crate::mesh::address::is_direct;

/// How long an attempt has the ports for itself: several relayed connections to one peer come up together.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Punches holes.
pub(in crate::mesh) struct Punching {
    inner: dcutr::Behaviour,
    own: PeerId,
    /// When an attempt with a peer was started last, as long as that matters.
    started: HashMap<PeerId, Instant>,
}

impl Punching {
    pub(in crate::mesh) fn new(own: PeerId) -> Self {
        Self { inner: dcutr::Behaviour::new(own), own, started: HashMap::new() }
    }

    /// Whether an attempt starts here and now.
    fn starts(&mut self, peer: PeerId, now: Instant) -> bool {
        self.started.retain(|_, at| now < *at + ATTEMPT);
        if self.own > peer || self.started.contains_key(&peer) {
            return false;
        }
        self.started.insert(peer, now);
        true
    }

    /// The handler of a connection through a relay: the library's one for dialed connections waits for the other side to
    /// start, its other one starts.
    fn relayed(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        relay: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.starts(peer, Instant::now()) {
            self.inner.handle_established_inbound_connection(connection, peer, relay, relay)
        } else {
            let (role, port) = (Endpoint::Dialer, PortUse::Reuse);
            self.inner.handle_established_outbound_connection(connection, peer, relay, role, port)
        }
    }
}

impl NetworkBehaviour for Punching {
    type ConnectionHandler = THandler<dcutr::Behaviour>;
    type ToSwarm = dcutr::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_direct(local) {
            return self.inner.handle_established_inbound_connection(connection, peer, local, remote);
        }
        self.relayed(connection, peer, local)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_direct(address) {
            return self.inner.handle_established_outbound_connection(connection, peer, address, role, port);
        }
        self.relayed(connection, peer, address)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if !is_seen_over_relay(&event) {
            self.inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, NewExternalAddrCandidate};

    use super::*;

    /// Two peers, the one with the smaller id first.
    fn pair() -> [Punching; 2] {
        let mut ids = [PeerId::random(), PeerId::random()];
        ids.sort_unstable();
        ids.map(Punching::new)
    }

    /// Connects one to the other through a relay, and says whether it starts an attempt.
    fn connect(one: &mut Punching, other: PeerId, dialed: bool) -> bool {
        let relay: Multiaddr = format!("/ip4/8.8.8.8/tcp/1/p2p/{}/p2p-circuit", PeerId::random()).parse().unwrap();
        let connection = ConnectionId::new_unchecked(1);
        let mut handler = if dialed {
            let address = relay.with_p2p(other).unwrap();
            one.handle_established_outbound_connection(connection, other, &address, Endpoint::Dialer, PortUse::New)
        } else {
            let remote = Multiaddr::empty().with_p2p(other).unwrap();
            one.handle_established_inbound_connection(connection, other, &relay, &remote)
        }
        .unwrap();
        let polled = handler.poll(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { .. }))
    }

    #[test]
    fn one_of_two_peers_starts_whoever_dialed() {
        for dialed in [true, false] {
            let [mut small, mut large] = pair();
            let (smaller, larger) = (small.own, large.own);
            assert!(connect(&mut small, larger, dialed));
            assert!(!connect(&mut large, smaller, !dialed) && !connect(&mut large, smaller, dialed));
        }
    }

    #[test]
    fn one_attempt_with_a_peer_starts_at_a_time() {
        let [mut small, large] = pair();
        let (now, third) = (Instant::now(), PeerId::from_bytes(&[&[0, 33][..], &[255; 33]].concat()).unwrap());
        assert!(small.own < third && small.starts(large.own, now));
        assert!(!small.starts(large.own, now + ATTEMPT / 2) && small.starts(third, now + ATTEMPT / 2));
        assert!(small.starts(large.own, now + ATTEMPT));
        assert!(small.starts(large.own, now + 2 * ATTEMPT));
        assert_eq!(small.started.len(), 1);
    }

    #[test]
    fn what_is_seen_of_a_peer_over_a_relay_is_no_address_of_it() {
        let seen = |text: &str| {
            let addr = text.parse().unwrap();
            is_seen_over_relay(&FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr: &addr }))
        };
        let relay = PeerId::random();
        assert!(seen(&format!("/p2p/{relay}")) && seen(&format!("/ip4/8.8.8.8/tcp/1/p2p/{relay}/p2p-circuit")));
        assert!(!seen("/ip4/8.8.8.8/tcp/1") && !seen("/ip6/2001:4860:4860::8888/udp/1/quic-v1"));
    }
}
