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
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId as Libp2pId, Swarm, gossipsub, identify};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::{Scope, dial_error, full, is_direct, matters, scope, split};
use super::behaviour::{Behaviour, BehaviourEvent};
use super::gossip::{Gossip, publish};
use super::links::Linked;
use super::listen::{Listening, in_words, listen_error, probe, until_free};
use super::nat::stun::{Findings, StunError};
use super::nat::{Nat, ReachReport, RelayFault};
use super::notice::Notices;
use super::outbox::Outboxes;
use super::session::Ended;
use super::worker::Workers;
use crate::limits::BLOCKED_PEERS_MAX;
use crate::node::{GossipId, Input, Link, MeshContext, Verdict};
use crate::{Error, Result};

/// How long a peer that misbehaved is kept out.
const BLOCK: Duration = Duration::from_secs(600);
/// How long an address may take until something listens on it.
const LISTEN: Duration = Duration::from_secs(10);
/// How long each of the two steps of closing may take: sending what is queued, and closing connections.
const CLOSE: Duration = Duration::from_millis(700);

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
    pub(super) nat: Nat,
    pub(super) sessions: u64,
    pub(super) search_at: Instant,
    pub(super) search_pause: Duration,
    pub(super) closing: bool,
}

impl Driver {
    /// Runs until it is told to close or the handle is gone, then closes everything.
    pub(super) async fn run(mut self) {
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
        self.close().await;
    }

    /// Listens on these addresses.
    ///
    /// # Errors
    /// When one of them cannot be listened on.
    pub(super) async fn listen(&mut self, addresses: &[Multiaddr]) -> Result<()> {
        let mut waiting = HashMap::new();
        for address in addresses {
            probe(address)?;
            let id = self.swarm.listen_on(address.clone()).map_err(|error| listen_error(address, &error))?;
            waiting.insert(id, address);
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
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                let cause = cause.as_ref().map_or_else(|| "closed from here".into(), ToString::to_string);
                tracing::debug!(peer = %peer_id, %connection_id, cause, "connection is closed");
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
            BehaviourEvent::Mdns(event) => self.mdns(event),
            BehaviourEvent::Relay(event) => self.relay_event(&event),
            BehaviourEvent::RelayClient(event) => self.relay_client_event(event),
            BehaviourEvent::Dcutr(event) => self.punched(event),
            BehaviourEvent::Autonat(event) => self.tried(event),
            BehaviourEvent::AutonatServer(event) => {
                tracing::debug!(address = %event.tested_addr, client = %event.client, "an address was tried for a peer");
            }
            // A connection that answers no ping is closed by its transport.
            BehaviourEvent::Identify(_) | BehaviourEvent::Ping(_) => {}
            BehaviourEvent::Limits(never) | BehaviourEvent::Memory(never) | BehaviourEvent::Blocked(never) => {
                match never {}
            }
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
                DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).addresses(vec![bare]).build()
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

    fn dial_error(&mut self, connection: ConnectionId, peer: Option<Libp2pId>, error: &DialError) {
        if let Some(relay) = peer {
            self.relay_unreachable(&relay, &dial_error(error));
        }
        let Some(address) = self.dials.remove(&connection) else { return };
        if let Some(fault) = RelayFault::of_dial(error) {
            self.nat.relays.circuit_refused(fault);
        }
        if !peer.is_some_and(|peer| self.links.contains_key(&peer)) {
            self.dial_failed(address, dial_error(error));
        }
    }

    pub(super) fn dial_failed(&self, address: String, why: String) {
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
        let listening = Listening {
            addresses: self.swarm.listeners().filter(|at| is_direct(at)).map(|at| full(at, &peer)).collect(),
            external: self.swarm.external_addresses().map(|at| full(at, &peer)).collect(),
        };
        let before = self.shared.listening.send_replace(listening).addresses;
        let now = self.shared.listening.borrow().addresses.clone();
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

    /// This machine has lost an address: what was connected over it is dead, and would only be noticed when nothing
    /// arrives for long. All connections to other machines are made anew.
    fn network_changed(&mut self) {
        tracing::info!("this machine has lost an address; connections are made anew");
        self.forget_verdicts();
        let far = self.connections.values().filter(|known| scope(&known.remote) > Some(Scope::Machine));
        let peers: HashSet<Libp2pId> = far.map(|known| known.peer).collect();
        for peer in peers {
            // Whether it was still connected makes no difference.
            _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Lets sessions send what is queued, then closes all connections, each within a bound of time.
    async fn close(mut self) {
        self.closing = true;
        self.tend_slots();
        self.shared.outboxes.finish_all();
        let mut router = std::mem::take(&mut self.nat.router);
        let (_, ()) = tokio::join!(self.linger(|driver| driver.links.is_empty()), router.shutdown());
        for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
            // Whether it was still connected makes no difference.
            _ = self.swarm.disconnect_peer_id(peer);
        }
        self.linger(|driver| driver.connections.is_empty()).await;
        let listened: Vec<_> = self.swarm.listeners().filter(|address| is_direct(address)).cloned().collect();
        drop(self);
        until_free(&listened).await;
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
