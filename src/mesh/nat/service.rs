//! The relay service, without what libp2p-relay 0.22 gets wrong: when it is switched on or off it tells every
//! connection so, also those that go through a relay, whose handlers take no such word and panic. So it is not told of
//! those; it does nothing for them in any case.

use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, relay};

/// Relays for others, while it is switched on.
pub(in crate::mesh) struct Service {
    inner: relay::Behaviour,
}

impl Service {
    pub(in crate::mesh) fn new(peer: PeerId, config: relay::Config) -> Self {
        Self { inner: relay::Behaviour::new(peer, config) }
    }

    /// Switches it on or off.
    pub(in crate::mesh) fn switch(&mut self, on: bool) {
        self.inner.set_status(Some(if on { relay::Status::Enable } else { relay::Status::Disable }));
    }
}

impl NetworkBehaviour for Service {
    type ConnectionHandler = THandler<relay::Behaviour>;
    type ToSwarm = relay::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let mut relayed = false;
        if let FromSwarm::ConnectionEstablished(ConnectionEstablished { endpoint, .. })
        | FromSwarm::ConnectionClosed(ConnectionClosed { endpoint, .. }) = &event
        {
            relayed = endpoint.is_relayed();
        }
        if !relayed {
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

    use libp2p::core::ConnectedPoint;

    use super::*;

    /// What the service tells the handler of a new connection when it is switched on.
    fn told(remote: &str) -> bool {
        let mut service = Service::new(PeerId::random(), relay::Config::default());
        let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
        let address: Multiaddr = remote.parse().unwrap();
        let (role_override, port_use) = (Endpoint::Dialer, PortUse::Reuse);
        let endpoint = ConnectedPoint::Dialer { address: address.clone(), role_override, port_use };
        service.handle_established_outbound_connection(connection, peer, &address, role_override, port_use).unwrap();
        service.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        service.switch(true);
        let mut cx = Context::from_waker(Waker::noop());
        matches!(service.poll(&mut cx), Poll::Ready(ToSwarm::NotifyHandler { .. }))
    }

    #[test]
    fn connections_through_a_relay_hear_nothing_of_it() {
        assert!(told("/ip4/8.8.8.8/tcp/1"));
        let relay = PeerId::random();
        assert!(!told(&format!("/ip4/8.8.8.8/tcp/1/p2p/{relay}/p2p-circuit")));
    }
}
