//! The network: a libp2p driver between the node's effects and other peers.
//!
//! [`start`] spawns the tasks; [`Handle::carry_out`] takes the node's effects and never waits; what
//! happens comes back as inputs over one bounded channel, for which the tasks wait when the node is slow.
//! Nothing is decided here about membership or data: a peer is whoever proved its key to the transport.
//!
//! - `driver` the task that owns the swarm, and dials
//! - `links` connections and streams made into sessions
//! - `session` one peer's task: reading, checking, writing
//! - `outbox` what waits to be sent; `frame` its form on the wire
//! - `gossip` live changes over gossipsub
//! - `discovery` mDNS, DHT, identify; `address` what is worth dialing
//! - `security` which of TLS and Noise is offered; `one_of` how TCP chooses
//! - `behaviour` protocols, transports and their settings; `link` the protocol of the sessions' streams
//! - `handshake` handshakes over TCP that come to a standstill
//! - `life` whether the other side of a connection is still there; `pulse` what each says so that the other knows
//! - `trial` whether others reach this peer at the addresses that a ticket names
//! - `of_link` addresses of a network without router
//!
//! - `nat` reaching peers behind NATs, and being reached behind one: relays, hole punching

mod address;
mod behaviour;
mod discovery;
mod driver;
mod frame;
mod gossip;
mod handshake;
mod life;
mod link;
mod links;
mod listen;
pub mod nat;
mod notice;
mod of_link;
mod one_of;
mod outbox;
mod pulse;
mod security;
mod session;
#[cfg(test)]
mod tests;
mod traffic;
mod trial;
mod worker;

pub use traffic::Traffic;
pub use trial::Tried;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use libp2p::Multiaddr;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use self::driver::{Command, Driver, Shared};
use self::gossip::{Gossip, Unsealed};
use self::life::Lives;
use self::listen::Listening;
use self::nat::{Nat, ReachReport};
use self::notice::Notices;
use self::outbox::Outboxes;
use self::traffic::Meter;
use self::trial::Trial;
use self::worker::Workers;
use crate::identity::Keypair;
use crate::limits::{DRIVER_QUEUE_MAX, GOSSIP_QUEUE_MAX, PUBLISH_QUEUE_MAX};
use crate::node::{Effect, Input, MeshContext};
use crate::{Error, Result};

/// Outcomes of tasks that wait for the driver, which always takes them.
const NOTES: usize = 64;

/// How this peer is on the network.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its identity; the libp2p peer id is made from the same key.
    pub keypair: Keypair,
    /// Multiaddrs to listen on, such as `/ip4/0.0.0.0/udp/4001/quic-v1` and `/ip4/0.0.0.0/tcp/4001`;
    /// port 0 means any free one.
    pub listen: Vec<String>,
    /// Ports on which to listen besides at all addresses of this machine, over QUIC and TCP: of IPv4 and IPv6, unless the
    /// machine lacks one; 0 means any free one.
    pub listen_ports: Vec<u16>,
    /// Multiaddrs at which this peer is reached from outside, announced as they are.
    pub external_addresses: Vec<String>,
    /// Whether to look for peers on the LAN.
    pub mdns: bool,
    /// Whether to look for peers of the mesh in the DHT.
    pub kademlia: bool,
    /// What it may do to reach others and to be reached.
    pub nat: nat::Settings,
}

/// Listens, and starts to drive the network. Inputs for the node go to `inputs`.
///
/// Returns when every configured address is listened on, but for those of a protocol that this machine lacks and that none
/// of [`Config::listen`] names. Must be called on a tokio runtime.
///
/// # Errors
/// [`Error::Invalid`] for an address that is malformed or of a kind that is not supported, and
/// [`Error::Io`] when the system refuses to listen on one: the port is in use, for instance.
pub async fn start(config: Config, context: MeshContext, inputs: mpsc::Sender<Input>) -> Result<Handle> {
    let listen = config.listen.iter().map(|text| address::parse(text)).collect::<Result<Vec<_>>>()?;
    let ports = config.listen_ports.clone();
    let (mut driver, mut handle) = prepare(config, context, inputs)?;
    driver.enter_mesh();
    driver.listen(&listen, &ports).await?;
    handle.task = Mutex::new(Some(tokio::spawn(driver.run())));
    Ok(handle)
}

/// A driver that does not listen or run yet, and its handle.
fn prepare(config: Config, context: MeshContext, inputs: mpsc::Sender<Input>) -> Result<(Driver, Handle)> {
    // QUIC and TLS use the process's default; when there is one already, it is as good.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let keypair = libp2p::identity::Keypair::ed25519_from_bytes(*config.keypair.seed())
        .map_err(|error| Error::invalid(format!("the identity is no key for libp2p: {error}")))?;
    let peer = keypair.public().to_peer_id();
    let external = config.external_addresses.iter().map(|text| address::parse_own(text, &peer));
    let external = external.collect::<Result<Vec<_>>>()?;

    let meter = Meter::default();
    let relayed = Meter::default();
    let lives = Lives::new();
    let nat = Nat::new(config.nat.clone(), external.iter().cloned());
    let mut swarm = behaviour::swarm(keypair, &config, &lives, &meter, &relayed, &nat.stalls)?;
    external.into_iter().for_each(|address| swarm.add_external_address(address));
    let workers = Workers::new();
    let shared = Shared {
        outboxes: Outboxes::default(),
        context: Arc::new(watch::Sender::new(context.clone())),
        listening: Arc::new(watch::Sender::new(Listening::default())),
        notices: Notices::default(),
        reach: Arc::new(watch::Sender::new(ReachReport::default())),
    };
    let notes = mpsc::channel(NOTES);
    let (commands, to_driver) = mpsc::channel(DRIVER_QUEUE_MAX);
    let (publish, to_seal) = mpsc::channel(PUBLISH_QUEUE_MAX);
    let (unopened, to_open) = mpsc::channel(GOSSIP_QUEUE_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(gossip::seal_all(to_seal, workers.clone(), notes.0.clone()));
    tasks.spawn(gossip::open_all(to_open, workers.clone(), inputs.clone(), notes.0.clone()));
    tasks.spawn(shared.notices.clone().hand_over(inputs.clone()));
    let driver = Driver {
        swarm,
        context: shared.context.subscribe(),
        shared: shared.clone(),
        inputs,
        commands: to_driver,
        notes,
        gossip: Gossip::new(context, unopened),
        lives,
        workers,
        tasks,
        connections: HashMap::new(),
        links: HashMap::new(),
        leaving: HashMap::new(),
        dials: HashMap::new(),
        blocked: VecDeque::new(),
        silent: HashMap::new(),
        nat,
        sessions: 0,
        search_at: Instant::now(),
        search_pause: discovery::SEARCH_SOON,
        closing: false,
    };
    let trying = tokio::sync::Mutex::new(());
    Ok((driver, Handle { peer, shared, commands, publish, meter, relayed, trying, task: Mutex::new(None) }))
}

/// The network, as the node's thread and the peer see it. Dropping it closes the network without waiting.
#[derive(Debug)]
pub struct Handle {
    peer: libp2p::PeerId,
    shared: Shared,
    commands: mpsc::Sender<Command>,
    publish: mpsc::Sender<Unsealed>,
    meter: Meter,
    relayed: Meter,
    /// Held while addresses are tried, which costs a few connections: one at a time.
    trying: tokio::sync::Mutex<()>,
    task: Mutex<Option<JoinHandle<Vec<Multiaddr>>>>,
}

impl Handle {
    /// Carries out an effect of the node. Never waits: what finds a full queue is dropped and logged, and
    /// a peer that does not read what is sent to it is disconnected. Effects that are not about the
    /// network, and those about peers that are not connected, do nothing.
    pub fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Send(peer, message) => self.shared.outboxes.send(&peer, message),
            Effect::Drop(peer, reason) => self.shared.outboxes.finish(&peer, reason),
            Effect::Context(context) => _ = self.shared.context.send_replace(context),
            Effect::Publish(topic, changes) => {
                let secret = self.shared.context.borrow().secret.clone();
                if self.publish.try_send(Unsealed { topic, secret, changes }).is_err() {
                    tracing::debug!("live changes come faster than they can be published; a batch is dropped");
                    self.shared.notices.push(Input::PublishFailed);
                }
            }
            Effect::Dial(address) => self.command(Command::Dial(address)),
            Effect::Verdict(id, verdict) => self.command(Command::Verdict(id, verdict)),
            Effect::WakeAt(_) | Effect::Emit(_) | Effect::Reply(..) => {}
        }
    }

    fn command(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            // The node dials again by itself, and a message without a verdict is not passed on.
            tracing::warn!(%error, "the network driver is busy or gone; an effect is dropped");
        }
    }

    /// The multiaddrs at which this peer listens, with the ports that were chosen, each ending in its id.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        self.shared.listening.borrow().addresses.clone()
    }

    /// The multiaddrs at which this peer is reached from outside, each ending in its id.
    #[must_use]
    pub fn external_addresses(&self) -> Vec<String> {
        self.shared.listening.borrow().external.clone()
    }

    /// The multiaddrs at which others are most likely to reach this peer, from near or far, best first, each ending in its
    /// id; as many as a ticket carries at most.
    #[must_use]
    pub fn best_addresses(&self) -> Vec<String> {
        self.shared.listening.borrow().best.clone()
    }

    /// What is known of addresses of this peer, in their order: whether somebody reaches it there. Ways through relays are
    /// tried, which takes a few seconds at most.
    pub async fn try_addresses(&self, addresses: &[String]) -> Vec<Tried> {
        let parsed: Vec<Option<Multiaddr>> = addresses.iter().map(|text| text.parse().ok()).collect();
        let ways: Vec<Multiaddr> = parsed.iter().flatten().filter(|way| !address::is_direct(way)).cloned().collect();
        let trial = match self.trying.try_lock() {
            Ok(_trying) => Trial::run(self.peer, &ways).await.map_err(|error| error.to_string()),
            Err(_) => Err("others are being tried at this moment; ask again".to_owned()),
        };
        let trial = trial.as_ref().map_err(String::as_str);
        let (reach, malformed) = (self.reach(), || Tried::Untried("this is no multiaddr".into()));
        let found = |address: &Option<Multiaddr>| {
            address.as_ref().map_or_else(malformed, |address| trial::found(address, trial, &reach))
        };
        parsed.iter().map(found).collect()
    }

    /// How this peer is reached, and how it reaches others.
    #[must_use]
    pub fn reach(&self) -> ReachReport {
        self.shared.reach.borrow().clone()
    }

    /// Bytes sent and received since the start, on all streams.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.meter.read()
    }

    /// Bytes of those that went through other peers as relays.
    #[must_use]
    pub fn relayed(&self) -> Traffic {
        self.relayed.read()
    }

    /// Sends what is queued, closes all connections, ends the tasks, and waits until the ports can be listened on again. A
    /// QUIC connection that was being tried to somebody who does not answer keeps its port for three seconds.
    pub async fn shutdown(&self) {
        let listened = self.end().await;
        listen::until_free(&listened).await;
    }

    /// As [`Handle::shutdown`], for a process that ends and frees its ports by that; takes a second or two at most. Returns
    /// where it listened.
    pub(crate) async fn end(&self) -> Vec<Multiaddr> {
        // An error means that the driver has stopped already.
        let _: std::result::Result<(), _> = self.commands.send(Command::Close).await;
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        let Some(task) = task else { return Vec::new() };
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the network driver failed");
            Vec::new()
        })
    }
}
