//! The task that owns the swarm.
//!
//! It never waits for the node: effects reach it over bounded channels, notices for the node wait in
//! [`Notices`], and everything that may take long (reading, writing, checking) is done by other tasks,
//! which tell it of the outcome in [`Note`]s. Those may wait for the node.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use libp2p::core::ConnectedPoint;
use libp2p::core::multiaddr::Protocol;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId as Libp2pId, Swarm, gossipsub, identify};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::{Scope, best_first, dial_error, full, is_direct, matters, reachable, scope, split};
use super::behaviour::{Behaviour, BehaviourEvent};
use super::gossip::{Gossip, publish};
use super::life::{Lives, Silent};
use super::links::Linked;
use super::listen::{Listening, Protocols, everywhere, in_words, listen_error, probe};
use super::nat::stun::{Findings, StunError};
use super::nat::{Nat, ReachReport, RelayFault};
use super::notice::Notices;
use super::outbox::Outboxes;
use super::session::Ended;
use super::worker::Workers;
use crate::limits::{BLOCKED_PEERS_MAX, TICKET_ADDRESSES_MAX};
use crate::node::{GossipId, Input, Link, MeshContext, Verdict};
use crate::{Error, Result};

/// How long a peer that misbehaved is kept out.
const BLOCK: Duration = Duration::from_secs(600);
/// How long an address may take until something listens on it.
const LISTEN: Duration = Duration::from_secs(10);
/// How long each of the two steps of closing may take: sending what is queued, and closing connections.
const CLOSE: Duration = Duration::from_millis(700);

/// For how long a peer is dialed from other ports than before, after a connection of it fell silent: a few attempts.
const OTHER_PORTS: Duration = Duration::from_secs(5);

/// What the node asks of the driver itself.
#[derive(Debug)]
pub(super) enum Command {
    Dial(String),
    Verdict(GossipId, Verdict),
    Close,
}

/// What the tasks tell the driver.
#[derive(Debug)]
pub(super) enum Note {
    Ended(Ended),
    Sealed { topic: String, bytes: Vec<u8> },
    PublishFailed,
    Rejected(GossipId),
    Probed(std::result::Result<Findings, StunError>),
}

impl From<Ended> for Note {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// An established connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Libp2pId,
    pub(super) remote: Multiaddr,
    pub(super) link: Link,
    pub(super) since: Instant,
    /// Whether we dialed from a port at which we listen.
    pub(super) from_listening_port: bool,
    /// Whether it is being closed, which may take a moment.
    pub(super) closing: bool,
}

/// What the driver shares with its handle.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) outboxes: Outboxes,
    pub(super) context: Arc<watch::Sender<MeshContext>>,
    pub(super) listening: Arc<watch::Sender<Listening>>,
    pub(super) notices: Notices,
    pub(super) reach: Arc<watch::Sender<ReachReport>>,
}

/// The task that owns the swarm.
pub(super) struct Driver {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) shared: Shared,
    pub(super) context: watch::Receiver<MeshContext>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) notes: (mpsc::Sender<Note>, mpsc::Receiver<Note>),
    pub(super) gossip: Gossip,
    pub(super) lives: Lives,
    pub(super) workers: Workers,
    /// The sessions' tasks; they are aborted with the driver.
    pub(super) tasks: JoinSet<()>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) links: HashMap<Libp2pId, Linked>,
    /// Sessions that are over and have not told the node yet.
    pub(super) leaving: HashMap<Libp2pId, oneshot::Receiver<()>>,
    /// Dials of the node under way, with the address as it gave it.
    pub(super) dials: HashMap<ConnectionId, String>,
    /// Peers that are kept out, and until when, oldest first.
    pub(super) blocked: VecDeque<(Instant, Libp2pId)>,
    /// Peers of which a connection fell silent, and until when they are dialed from other ports than before.
    pub(super) silent: HashMap<Libp2pId, Instant>,
    pub(super) nat: Nat,
    pub(super) sessions: u64,
    pub(super) search_at: Instant,
    pub(super) search_pause: Duration,
    pub(super) closing: bool,
}

impl Driver {
    /// Runs until it is told to close or the handle is gone, then closes everything and says where it listened.
    pub(super) async fn run(mut self) -> Vec<Multiaddr> {
        while !self.closing {
            let blocked = self.blocked.front().map(|(until, _)| *until);
            let soonest = blocked.into_iter().chain(self.reach_due()).fold(self.search_at, Instant::min);
            tokio::select! {
                event = self.swarm.select_next_some() => self.event(event),
                Some(note) = self.notes.1.recv() => self.note(note),
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Ok(()) = self.context.changed() => self.enter_mesh(),
                () = self.nat.router.changed() => self.router_changed(),
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(soonest) => self.due(),
            }
        }
        self.close().await
    }

    /// Listens on these addresses, and on these ports at all addresses of this machine: of both protocols, unless the machine
    /// lacks one.
    ///
    /// # Errors
    /// When one of them cannot be listened on.
    pub(super) async fn listen(&mut self, named: &[Multiaddr], ports: &[u16]) -> Result<()> {
        let (mut waiting, machine) = (HashMap::new(), Protocols::of_machine());
        for address in named {
            if let Some(why) = machine.lacks(address) {
                return Err(Error::Io(format!("cannot listen on {address}: {why}")));
            }
            waiting.insert(self.listen_on(address)?, address.clone());
        }
        for address in ports.iter().flat_map(|port| everywhere(*port)) {
            match machine.lacks(&address) {
                None => _ = waiting.insert(self.listen_on(&address)?, address),
                Some(why) => {
                    tracing::info!(%address, why, "not listened on until this machine gets such an address");
                    // Without any support for the protocol it fails, and there is nothing to get.
                    _ = self.swarm.listen_on(address.clone());
                    self.nat.left_out.push((address, why));
                }
            }
        }
        let deadline = Instant::now() + LISTEN;
        while let Some(address) = waiting.values().next() {
            let late = || Error::Io(format!("cannot listen on {address}: nothing happened for {} s", LISTEN.as_secs()));
            let event = timeout_at(deadline, self.swarm.select_next_some()).await.map_err(|_| late())?;
            if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                waiting.remove(listener_id);
            }
            if let SwarmEvent::ListenerError { listener_id, error }
            | SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } = &event
                && let Some(address) = waiting.get(listener_id)
            {
                return Err(in_words(address, error));
            }
            self.event(event);
        }
        // The other network interfaces of the same sockets are known by now.
        while let Some(event) = self.swarm.select_next_some().now_or_never() {
            self.event(event);
        }
        Ok(())
    }

    fn listen_on(&mut self, address: &Multiaddr) -> Result<ListenerId> {
        probe(address)?;
        self.swarm.listen_on(address.clone()).map_err(|error| listen_error(address, &error))
    }

    /// Enters the mesh of the context.
    pub(super) fn enter_mesh(&mut self) {
        let context = self.context.borrow_and_update().clone();
        if let Some(left) = self.gossip.enter(&mut self.swarm.behaviour_mut().gossipsub, context) {
            self.search_anew(left);
        }
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.reach_established(peer_id, connection_id, &endpoint);
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let words = cause.as_ref().map_or_else(|| "closed from here".into(), ToString::to_string);
                tracing::debug!(peer = %peer_id, %connection_id, cause = words, "connection is closed");
                if cause.as_ref().is_some_and(|cause| Silent::is_below(cause)) {
                    self.fell_silent(peer_id);
                }
                self.closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.dial_error(connection_id, peer_id, &error);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.listener_closed(listener_id, reason);
                self.addresses_changed();
            }
            SwarmEvent::ExternalAddrConfirmed { address } => {
                self.tell_relayed(&address);
                self.addresses_changed();
            }
            SwarmEvent::NewListenAddr { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ExternalAddrExpired { .. } => self.addresses_changed(),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a listening socket has trouble"),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "an incoming connection failed");
            }
            SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::Dialing { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. }
            | _ => {}
        }
    }

    fn behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Link((peer, connection, event)) => self.stream_event(peer, connection, event),
            BehaviourEvent::Gossipsub(event) => self.gossip_event(event),
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.identified(connection_id, peer_id, info);
            }
            BehaviourEvent::Kad(event) => self.kad(event),
            BehaviourEvent::Mdns(event) | BehaviourEvent::MdnsV6(event) => self.mdns(event),
            BehaviourEvent::Relay(event) => self.relay_event(&event),
            BehaviourEvent::RelayClient(event) => self.relay_client_event(event),
            BehaviourEvent::Dcutr(event) => self.punched(event),
            BehaviourEvent::Autonat(event) => self.tried(event),
            BehaviourEvent::AutonatServer(event) => {
                tracing::debug!(address = %event.tested_addr, client = %event.client, "an address was tried for a peer");
            }
            BehaviourEvent::Identify(_) => {}
            BehaviourEvent::Limits(never)
            | BehaviourEvent::Memory(never)
            | BehaviourEvent::Blocked(never)
            | BehaviourEvent::Pulse(never) => match never {},
        }
    }

    fn gossip_event(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
                self.gossip.arrived(gossipsub, propagation_source, message_id, message);
            }
            gossipsub::Event::SlowPeer { .. } => self.shared.notices.push(Input::PublishFailed),
            gossipsub::Event::Subscribed { .. }
            | gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    fn note(&mut self, note: Note) {
        let gossipsub = &mut self.swarm.behaviour_mut().gossipsub;
        match note {
            Note::Ended(ended) => self.ended(&ended),
            Note::Sealed { topic, bytes } => {
                if !publish(gossipsub, &topic, bytes) {
                    self.shared.notices.push(Input::PublishFailed);
                }
            }
            Note::PublishFailed => self.shared.notices.push(Input::PublishFailed),
            Note::Rejected(id) => self.gossip.judge(gossipsub, id, Verdict::Reject),
            Note::Probed(found) => self.probed(found),
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Dial(address) => self.dial(address),
            Command::Close => self.closing = true,
            Command::Verdict(id, verdict) => {
                self.gossip.judge(&mut self.swarm.behaviour_mut().gossipsub, id, verdict);
            }
        }
    }

    pub(super) fn dial(&mut self, text: String) {
        if self.dials.values().any(|under_way| *under_way == text) {
            return;
        }
        let address = match text.parse::<Multiaddr>() {
            Ok(address) => address,
            Err(error) => return self.dial_failed(text, format!("this is not a multiaddr ({error})")),
        };
        if let (_, Some(peer)) = split(address.clone())
            && self.link_again(peer, &text)
        {
            return;
        }
        if self.dial_relay_first(&text, &address) {
            return;
        }
        let options = match split(address.clone()) {
            (_, Some(peer)) if peer == *self.swarm.local_peer_id() => {
                return self.dial_failed(text, "this is our own address".into());
            }
            // Several addresses of one peer are tried side by side: a dead one must not hold up the others.
            (bare, Some(peer)) => {
                let of_peer = || self.connections.values().filter(|known| known.peer == peer);
                let parts = of_peer().next().is_some() && of_peer().all(|known| known.closing);
                let condition = if parts { PeerCondition::Always } else { PeerCondition::Disconnected };
                self.dial_options(peer, bare, condition)
            }
            (bare, None) => DialOpts::unknown_peer_id().address(bare).build(),
        };
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                tracing::debug!(%connection, address = text, "dialing");
                self.dials.insert(connection, text);
            }
            // It is connected, which is what was wanted.
            Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(
                error @ (DialError::LocalPeerId { .. }
                | DialError::NoAddresses
                | DialError::Aborted
                | DialError::WrongPeerId { .. }
                | DialError::Denied { .. }
                | DialError::Transport(_)),
            ) => self.dial_failed(text, dial_error(&error)),
        }
    }

    /// How to dial an address of a peer: from a port at which we listen, so that NATs keep to one mapping. When a
    /// connection fell silent it was perhaps what went between the two ports that somebody on the way has lost, so then
    /// it is from another one.
    pub(super) fn dial_options(&self, peer: Libp2pId, address: Multiaddr, condition: PeerCondition) -> DialOpts {
        let options = DialOpts::peer_id(peer).condition(condition).addresses(vec![address]);
        let is_silent = self.silent.get(&peer).is_some_and(|until| *until > Instant::now());
        if is_silent { options.allocate_new_port().build() } else { options.build() }
    }

    fn fell_silent(&mut self, peer: Libp2pId) {
        tracing::info!(%peer, "a connection fell silent and is given up");
        let now = Instant::now();
        self.silent.retain(|_, until| *until > now);
        self.silent.insert(peer, now + OTHER_PORTS);
    }

    fn dial_error(&mut self, connection: ConnectionId, peer: Option<Libp2pId>, error: &DialError) {
        if let Some(relay) = peer {
            self.relay_unreachable(&relay, Some(connection), &dial_error(error));
        }
        let Some(address) = self.dials.remove(&connection) else { return };
        if let Some(fault) = RelayFault::of_dial(error) {
            self.nat.relays.circuit_refused(fault);
        }
        if !peer.is_some_and(|peer| self.links.contains_key(&peer)) {
            self.dial_failed(address, dial_error(error));
        }
    }

    pub(super) fn dial_failed(&mut self, address: String, why: String) {
        for other in self.left_aside(&address) {
            self.shared.notices.push(Input::DialFailed(other, why.clone()));
        }
        self.shared.notices.push(Input::DialFailed(address, why));
    }

    /// Keeps a peer out for a while.
    pub(super) fn block(&mut self, peer: Libp2pId) {
        if self.blocked.len() >= BLOCKED_PEERS_MAX
            && let Some((_, oldest)) = self.blocked.pop_front()
        {
            self.swarm.behaviour_mut().blocked.unblock_peer(oldest);
        }
        self.swarm.behaviour_mut().blocked.block_peer(peer);
        self.blocked.push_back((Instant::now() + BLOCK, peer));
    }

    fn due(&mut self) {
        let now = Instant::now();
        while let Some((_, peer)) = self.blocked.pop_front_if(|(until, _)| *until <= now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        if self.search_at <= now {
            self.search();
        }
        self.reach_tend();
    }

    fn addresses_changed(&mut self) {
        let peer = *self.swarm.local_peer_id();
        let now: Vec<String> = self.swarm.listeners().filter(|at| is_direct(at)).map(|at| full(at, &peer)).collect();
        let mut before = now.clone();
        self.shared.listening.send_modify(|shown| std::mem::swap(&mut shown.addresses, &mut before));
        if before != now {
            // Another network may have another NAT.
            self.nat.probes.soon();
            self.shared.notices.push(Input::NetworkChanged);
        }
        let is_lost = |text: &&String| !now.contains(text) && text.parse().is_ok_and(|at| matters(&at));
        if before.iter().any(|text| is_lost(&text)) {
            self.network_changed();
        }
        self.reach_changed();
    }

    /// Shows at which addresses others reach this peer.
    pub(super) fn publish_addresses(&self) {
        let peer = *self.swarm.local_peer_id();
        let external: Vec<Multiaddr> = self.swarm.external_addresses().map(|at| split(at.clone()).0).collect();
        let all = self.swarm.listeners().filter(|at| is_direct(at)).chain(&external).cloned();
        let best = reachable(all, Scope::Machine, &peer, TICKET_ADDRESSES_MAX);
        let external = best_first(external, usize::MAX).iter().map(|at| full(at, &peer)).collect();
        self.shared.listening.send_modify(|shown| (shown.external, shown.best) = (external, best));
    }

    /// This machine has lost an address: what was connected over it is dead, and would only be noticed when nothing
    /// arrives for long. All connections to other machines are made anew.
    fn network_changed(&mut self) {
        tracing::info!("this machine has lost an address; connections are made anew");
        self.forget_verdicts();
        let far = self.connections.values().filter(|known| scope(&known.remote) > Some(Scope::Machine));
        let peers: HashSet<Libp2pId> = far.map(|known| known.peer).collect();
        peers.into_iter().for_each(|peer| self.shut_all(peer));
    }

    /// Lets sessions send what is queued, then closes all connections, each within a bound of time.
    /// Returns where it listened.
    async fn close(mut self) -> Vec<Multiaddr> {
        self.closing = true;
        self.tend_slots();
        self.shared.outboxes.finish_all();
        let mut router = std::mem::take(&mut self.nat.router);
        let (_, ()) = tokio::join!(self.linger(|driver| driver.links.is_empty()), router.shutdown());
        self.swarm.connected_peers().copied().collect::<Vec<_>>().into_iter().for_each(|peer| self.shut_all(peer));
        self.linger(|driver| driver.connections.is_empty()).await;
        self.swarm.listeners().filter(|address| is_direct(address)).cloned().collect()
    }

    async fn linger(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + CLOSE;
        while !done(self) {
            tokio::select! {
                event = self.swarm.select_next_some() => self.event(event),
                Some(note) = self.notes.1.recv() => self.note(note),
                () = sleep_until(deadline) => return,
            }
        }
    }
}

/// Where the other side is: for one that came through a relay that is the relay, as it is here for one that we dialed.
pub(super) fn remote(endpoint: &ConnectedPoint, peer: Libp2pId) -> Multiaddr {
    match endpoint {
        ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => {
            let mut relay: Multiaddr = local_addr.iter().take_while(|part| *part != Protocol::P2pCircuit).collect();
            relay.push(Protocol::P2pCircuit);
            relay.with(Protocol::P2p(peer))
        }
        ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr.clone(),
        ConnectedPoint::Dialer { address, .. } => address.clone(),
    }
}
