//! Asking AutoNAT servers, again and again. libp2p's client keeps what it found out about an address until its end: one
//! that could not be dialed once, by bad luck or by a server that says so, would be dead until the restart. Here the
//! client is replaced by a new one when verdicts have had their time, which learns of all connections anew.
//!
//! A server tells something only of addresses that it could reach if nothing were in the way: one without IPv6, or without
//! UDP, would call all such addresses dead. So there is a client for each protocol and transport, which knows of the
//! connections over these alone. And a server in this machine's own network reaches it past the firewall, so it is not
//! asked at all.

use std::collections::HashMap;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, ListenAddresses, NetworkBehaviour, NewExternalAddrCandidate,
    NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, autonat::v2::client};
use tokio::time::Instant;

use super::contacts::Contacts;
use super::evidence::{Lane, is_neighbour};
use super::is_seen_over_relay;
use crate::mesh::address::{Scope, is_direct, scope};

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

impl Known {
    fn lane(&self) -> Option<Lane> {
        Lane::of(self.endpoint.get_remote_address()).filter(|_| !self.endpoint.is_relayed())
    }
}

/// The clients, whoever they are now.
pub(in crate::mesh) struct Asking {
    /// One for each of [`Lane::ALL`].
    clients: [client::Behaviour; 4],
    interval: Duration,
    /// Whether servers near by are asked, too.
    asks_near: bool,
    listening: ListenAddresses,
    contacts: Contacts,
    connections: HashMap<ConnectionId, Known>,
    /// Addresses to ask about with new clients, once nothing is under way with these: an answer that came to another
    /// one would count as a failure.
    again: Option<Vec<Multiaddr>>,
}

impl Asking {
    /// Addresses that were not tried yet are asked about at this interval.
    pub(in crate::mesh) fn new(interval: Duration) -> Self {
        Self {
            clients: clients(interval),
            interval,
            asks_near: false,
            listening: ListenAddresses::default(),
            contacts: Contacts::default(),
            connections: HashMap::new(),
            again: None,
        }
    }

    /// Whether a firewall may let somebody in because this peer has sent something there.
    pub(in crate::mesh) fn lets_in(&self, remote: &Multiaddr) -> bool {
        self.contacts.lets_in(remote, Instant::now())
    }

    /// Notes to whom something is sent.
    fn note(&mut self, event: &FromSwarm<'_>) {
        let now = Instant::now();
        if let FromSwarm::ConnectionEstablished(ConnectionEstablished { endpoint, .. })
        | FromSwarm::ConnectionClosed(ConnectionClosed { endpoint, .. }) = event
            && endpoint.is_dialer()
        {
            self.contacts.sent(endpoint.get_remote_address(), now);
        } else if let FromSwarm::DialFailure(DialFailure { error: DialError::Transport(tried), .. }) = event {
            tried.iter().for_each(|(address, _)| self.contacts.sent(address, now));
        }
    }

    /// Forgets what was found out about all addresses, and asks about these once more.
    pub(in crate::mesh) fn ask_again(&mut self, addresses: Vec<Multiaddr>) {
        self.again = Some(addresses);
    }

    /// New clients in the place of the former ones.
    fn replace(&mut self, again: &[Multiaddr]) {
        self.clients = clients(self.interval);
        for (connection, known) in &self.connections {
            let Some(client) = known.lane().map(|lane| &mut self.clients[place(lane)]) else { continue };
            client.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: known.peer,
                connection_id: *connection,
                endpoint: &known.endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
            if known.serves {
                let told = Either::Left(Told::PeerHasServerSupport);
                client.on_connection_handler_event(known.peer, *connection, told);
            }
        }
        for addr in again {
            if let Some(lane) = Lane::of(addr) {
                let candidate = FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr });
                self.clients[place(lane)].on_swarm_event(candidate);
            }
        }
    }

    /// Hears what a handler says; whether its client is to hear it as well.
    fn hears(&mut self, connection: ConnectionId, told: &Told) -> bool {
        let Some(known) = self.connections.get_mut(&connection) else { return false };
        match told {
            Told::PeerHasServerSupport => {
                let remote = known.endpoint.get_remote_address();
                let is_far = scope(remote) == Some(Scope::Public) && !is_neighbour(self.listening.iter(), remote);
                known.serves = is_far || self.asks_near;
                known.serves
            }
            Told::TestOutcome { .. } => {
                known.asked = known.asked.saturating_sub(1);
                true
            }
        }
    }

    /// The client for an address; any for those over a relay, which are of no use to it.
    fn of(&mut self, address: &Multiaddr) -> &mut client::Behaviour {
        let lane = Lane::of(address).filter(|_| is_direct(address));
        &mut self.clients[lane.map_or(0, place)]
    }
}

/// Where the client is.
fn place(lane: Lane) -> usize {
    Lane::ALL.iter().position(|other| *other == lane).expect("all are listed")
}

fn clients(interval: Duration) -> [client::Behaviour; 4] {
    Lane::ALL.map(|_| {
        let config = client::Config::default().with_probe_interval(interval);
        client::Behaviour::new(rand::make_rng::<rand::rngs::StdRng>(), config)
    })
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
        self.of(remote).handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        addresses.iter().for_each(|address| self.contacts.sent(address, Instant::now()));
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.of(address).handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.listening.on_swarm_event(&event);
        self.note(&event);
        if let FromSwarm::ConnectionEstablished(new) = &event {
            let known = Known { peer: new.peer_id, endpoint: new.endpoint.clone(), serves: false, asked: 0 };
            let lane = known.lane();
            self.connections.insert(new.connection_id, known);
            if let Some(lane) = lane {
                self.clients[place(lane)].on_swarm_event(event);
            }
        } else if let FromSwarm::ConnectionClosed(closed) = &event {
            if let Some(lane) = self.connections.remove(&closed.connection_id).and_then(|known| known.lane()) {
                self.clients[place(lane)].on_swarm_event(event);
            }
        } else if let FromSwarm::NewExternalAddrCandidate(candidate) = &event
            && !is_seen_over_relay(&event)
            && let Some(lane) = Lane::of(candidate.addr)
        {
            self.clients[place(lane)].on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        let Some(lane) = self.connections.get(&connection).and_then(Known::lane) else { return };
        if let Either::Left(told) = &event
            && !self.hears(connection, told)
        {
            return;
        }
        self.clients[place(lane)].on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<client::Event, THandlerInEvent<Self>>> {
        loop {
            for client in &mut self.clients {
                let Poll::Ready(action) = client.poll(cx) else { continue };
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
    use libp2p::core::transport::ListenerId;
    use libp2p::swarm::{NewListenAddr, SwarmEvent};
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

    /// One that asks servers on this machine as well.
    fn asking(interval: Duration) -> Asking {
        Asking { asks_near: true, ..Asking::new(interval) }
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
            swarm(|identify| Asker { asking: asking(interval), link: link::Behaviour::default(), identify });
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
    #[tokio::test]
    async fn those_are_asked_that_can_tell() {
        let address = |text: &str| -> Multiaddr { text.parse().unwrap() };
        let connect = |asking: &mut Asking, number, remote: &str| {
            let (peer, connection, remote) = (PeerId::random(), ConnectionId::new_unchecked(number), address(remote));
            let (role_override, port_use) = (Endpoint::Dialer, PortUse::Reuse);
            asking.handle_established_outbound_connection(connection, peer, &remote, role_override, port_use).unwrap();
            asking.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id: connection,
                endpoint: &ConnectedPoint::Dialer { address: remote, role_override, port_use },
                failed_addresses: &[],
                other_established: 0,
            }));
            asking.on_connection_handler_event(peer, connection, Either::Left(Told::PeerHasServerSupport));
            connection
        };
        let mut asking = Asking::new(Duration::from_millis(10));
        let own = address("/ip6/2a00::8/tcp/4001");
        let listener = ListenerId::next();
        asking.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id: listener, addr: &own }));
        // Of another protocol, over another transport, in the same network, on a LAN, through a relay.
        let relayed = format!("/ip6/2a00:1::1/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        let others = [
            "/ip4/8.8.8.8/tcp/1",
            "/ip6/2a00:1::1/udp/1/quic-v1",
            "/ip6/2a00::9/tcp/1",
            "/ip6/fd00::1/tcp/1",
            &relayed,
        ];
        for (number, remote) in others.iter().enumerate() {
            connect(&mut asking, number, remote);
        }
        asking.on_swarm_event(FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr: &own }));
        let asked = std::future::poll_fn(|cx| asking.poll(cx));
        assert!(timeout(Duration::from_millis(200), asked).await.is_err(), "none of these can tell");
        let good = connect(&mut asking, 9, "/ip6/2a00:1::1/tcp/1");
        let asked = timeout(Duration::from_secs(30), std::future::poll_fn(|cx| asking.poll(cx))).await.unwrap();
        assert!(matches!(asked, ToSwarm::NotifyHandler { handler: NotifyHandler::One(to), .. } if to == good));
    }
}
