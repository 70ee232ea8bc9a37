//! Asking AutoNAT servers, again and again. libp2p's client keeps what it found out about an address until its end: one
//! that could not be dialed once, by bad luck or by a server that says so, would be dead until the restart. Here the
//! client is replaced by a new one when verdicts have had their time, which learns of all connections anew.

use std::collections::HashMap;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, autonat::v2::client};

use super::is_seen_over_relay;

/// What the client's handler for outgoing connections tells it; its type has no public name.
type Told = <THandlerOutEvent<client::Behaviour> as Sides>::Left;

trait Sides {
    type Left;
}

impl<L, R> Sides for Either<L, R> {
    type Left = L;
}

/// An open connection, as far as a new client has to know it.
#[derive(Debug)]
struct Known {
    peer: PeerId,
    endpoint: ConnectedPoint,
    /// Whether the other side is an AutoNAT server.
    serves: bool,
    /// Questions that it has not answered yet.
    asked: usize,
}

/// The client, whoever is it now.
pub(in crate::mesh) struct Asking {
    client: client::Behaviour,
    interval: Duration,
    connections: HashMap<ConnectionId, Known>,
    /// Addresses to ask about with a new client, once nothing is under way with this one: an answer that came to another
    /// one would count as a failure.
    again: Option<Vec<Multiaddr>>,
}

impl Asking {
    /// Addresses that were not tried yet are asked about at this interval.
    pub(in crate::mesh) fn new(interval: Duration) -> Self {
        Self { client: client(interval), interval, connections: HashMap::new(), again: None }
    }

    /// Forgets what was found out about all addresses, and asks about these once more.
    pub(in crate::mesh) fn ask_again(&mut self, addresses: Vec<Multiaddr>) {
        self.again = Some(addresses);
    }

    /// A new client in the place of the former one.
    fn replace(&mut self, again: &[Multiaddr]) {
        self.client = client(self.interval);
        for (connection, known) in &self.connections {
            self.client.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: known.peer,
                connection_id: *connection,
                endpoint: &known.endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
            if known.serves {
                let told = Either::Left(Told::PeerHasServerSupport);
                self.client.on_connection_handler_event(known.peer, *connection, told);
            }
        }
        for addr in again {
            self.client.on_swarm_event(FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }));
        }
    }

    fn heard(&mut self, connection: ConnectionId, told: &Told) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        match told {
            Told::PeerHasServerSupport => known.serves = true,
            Told::TestOutcome { .. } => known.asked = known.asked.saturating_sub(1),
        }
    }
}

fn client(interval: Duration) -> client::Behaviour {
    let config = client::Config::default().with_probe_interval(interval);
    client::Behaviour::new(rand::make_rng::<rand::rngs::StdRng>(), config)
}

impl NetworkBehaviour for Asking {
    type ConnectionHandler = THandler<client::Behaviour>;
    type ToSwarm = client::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.client.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.client.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if is_seen_over_relay(&event) {
            return;
        }
        if let FromSwarm::ConnectionEstablished(new) = &event {
            let known = Known { peer: new.peer_id, endpoint: new.endpoint.clone(), serves: false, asked: 0 };
            self.connections.insert(new.connection_id, known);
        } else if let FromSwarm::ConnectionClosed(closed) = &event {
            self.connections.remove(&closed.connection_id);
        }
        self.client.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        if let Either::Left(told) = &event {
            self.heard(connection, told);
        }
        self.client.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<client::Event, THandlerInEvent<Self>>> {
        loop {
            if let Poll::Ready(action) = self.client.poll(cx) {
                if let ToSwarm::NotifyHandler { handler: NotifyHandler::One(connection), .. } = &action
                    && let Some(known) = self.connections.get_mut(connection)
                {
                    known.asked += 1;
                }
                return Poll::Ready(action);
            }
            if self.connections.values().any(|known| known.asked > 0) {
                return Poll::Pending;
            }
            let Some(again) = self.again.take() else { return Poll::Pending };
            self.replace(&again);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use libp2p::swarm::SwarmEvent;
    use libp2p::{Swarm, SwarmBuilder, autonat, identify, noise, tcp, yamux};
    use tokio::time::timeout;

    use super::*;
    use crate::mesh::link;

    #[derive(NetworkBehaviour)]
    struct Asker {
        asking: Asking,
        link: link::Behaviour,
        identify: identify::Behaviour,
    }

    #[derive(NetworkBehaviour)]
    struct Server {
        server: autonat::v2::server::Behaviour,
        identify: identify::Behaviour,
    }

    fn swarm<B: NetworkBehaviour>(behaviour: impl Fn(identify::Behaviour) -> B) -> Swarm<B> {
        let builder = SwarmBuilder::with_new_identity().with_tokio();
        let builder = builder.with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default).unwrap();
        let config = |key: &libp2p::identity::Keypair| identify::Config::new("/test".into(), key.public());
        builder
            .with_behaviour(|key| behaviour(identify::Behaviour::new(config(key))))
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
            .build()
    }

    /// Waits for the next verdict on an address.
    async fn verdict(asker: &mut Swarm<Asker>, on: &Multiaddr) -> bool {
        let waiting = async {
            loop {
                if let SwarmEvent::Behaviour(AskerEvent::Asking(event)) = asker.select_next_some().await
                    && event.tested_addr == *on
                {
                    return event.result.is_ok();
                }
            }
        };
        timeout(Duration::from_secs(60), waiting).await.expect("a verdict in time")
    }

    #[tokio::test]
    async fn an_address_that_was_dead_is_asked_about_once_more_when_its_verdict_is_forgotten() {
        let mut server = swarm(|identify| Server { server: autonat::v2::server::Behaviour::default(), identify });
        server.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let SwarmEvent::NewListenAddr { address, .. } = server.select_next_some().await else { panic!("no listener") };
        tokio::spawn(async move {
            loop {
                server.select_next_some().await;
            }
        });
        let interval = Duration::from_millis(100);
        let mut asker =
            swarm(|identify| Asker { asking: Asking::new(interval), link: link::Behaviour::default(), identify });
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let candidate: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", free.local_addr().unwrap().port()).parse().unwrap();
        drop(free);
        asker.dial(address).unwrap();
        asker.behaviour_mut().link.candidate(candidate.clone());
        assert!(!verdict(&mut asker, &candidate).await);
        asker.listen_on(candidate.clone()).unwrap();
        // The same client asks no more.
        asker.behaviour_mut().link.candidate(candidate.clone());
        assert!(timeout(interval * 10, verdict(&mut asker, &candidate)).await.is_err());
        asker.behaviour_mut().asking.ask_again(vec![candidate.clone()]);
        assert!(verdict(&mut asker, &candidate).await);
    }
}
