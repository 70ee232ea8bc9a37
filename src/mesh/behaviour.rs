//! What the swarm is made of: the transports and the protocols, with their settings.
//!
//! QUIC comes with TLS 1.3; TCP offers TLS 1.3 first and Noise second, and yamux on top. Through a relay there is Noise
//! alone, because a choice costs a round trip, which is long there. Limits stand in front of everything else, so that a
//! denied connection reaches no protocol.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::core::{Transport, upgrade};
use libp2p::gossipsub::{self, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, allow_block_list, autonat, connection_limits, identify, kad, mdns,
    memory_connection_limits, noise, quic, relay, tcp, yamux,
};

use super::Config;
use super::handshake::{Stalls, Timely};
use super::life::Lives;
use super::link;
use super::nat;
use super::of_link::OfLink;
use super::one_of::OneOf;
use super::pulse;
use super::security::Tls;
use super::traffic::{Counting, Meter};
use crate::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PENDING_MAX, CONNECTIONS_PER_PEER_MAX, DHT_KEYS_MAX, RELAY_CIRCUITS_PER_PEER_MAX,
};
use crate::{Error, Result};

/// The DHT's protocol. Its name is our own: this DHT and that of IPFS must not mix.
pub(super) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/aerolithsdb/kad/1");
/// What identify calls the network.
const IDENTIFY_PROTOCOL: &str = "/aerolithsdb/1";
/// Who we say we are.
const AGENT: &str = concat!("aerolithsdb/", env!("CARGO_PKG_VERSION"));
/// Connections without a stream are kept for this long: members stay connected while nothing happens.
const IDLE: Duration = Duration::from_secs(600);
/// A QUIC connection on which nothing arrives, not even what keeps it alive, is dead.
const QUIC_IDLE_MS: u32 = 30_000;
/// What keeps QUIC connections, and the NAT mappings below them, alive.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Gossipsub's housekeeping.
const HEARTBEAT: Duration = Duration::from_millis(700);
/// The first heartbeat comes soon, so that a new peer is woven in at once.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(100);
/// How long a gossip message waits in front of a slow line. What was to come over gossip is compared 750 ms after it was
/// written: a message that is sent later than that brings what is on its way already.
const GOSSIP_WAIT: Duration = Duration::from_millis(500);
/// Bytes of a gossip message with everything.
const GOSSIP_MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Topics that one neighbour may subscribe to: those of several meshes, as it may change from one to another.
const SUBSCRIPTIONS_MAX: usize = 100;
/// How often AutoNAT servers are asked to dial addresses that were not tried yet.
const AUTONAT: Duration = Duration::from_secs(2);
/// How long a relayed connection lasts at most.
const RELAY_CIRCUIT: Duration = Duration::from_secs(4 * 60 * 60);
/// Slots and circuits that a peer may ask for at once, and how soon it may ask for one more.
const RELAY_ASKS: u32 = 64;
const RELAY_ASK: Duration = Duration::from_secs(10);
/// The share of the machine's memory above which no more connections are let in.
const MEMORY_SHARE_MAX: f64 = 0.9;

type Subscriptions = gossipsub::MaxCountSubscriptionFilter<gossipsub::AllowAllSubscriptionFilter>;
/// Gossipsub with a bound on subscriptions.
pub(super) type Gossipsub = gossipsub::Behaviour<gossipsub::IdentityTransform, Subscriptions>;

/// All protocols.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    pub(super) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) link: link::Behaviour,
    pub(super) gossipsub: Gossipsub,
    pub(super) identify: identify::Behaviour,
    pulse: pulse::Behaviour,
    pub(super) kad: Toggle<kad::Behaviour<MemoryStore>>,
    mdns: Toggle<mdns::tokio::Behaviour>,
    mdns_v6: Toggle<mdns::tokio::Behaviour>,
    pub(super) relay: Toggle<nat::Service>,
    relay_client: relay::client::Behaviour,
    dcutr: Toggle<nat::Punching>,
    pub(super) autonat: nat::Asking,
    autonat_server: autonat::v2::server::Behaviour,
}

/// Builds the swarm; it does not listen yet.
pub(super) fn swarm(
    keypair: Keypair,
    config: &Config,
    lives: &Lives,
    meter: &Meter,
    relayed: &Meter,
    stalls: &Stalls,
) -> Result<Swarm<Behaviour>> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Error::Io(format!("cannot set up {what}: {error}"));
    let (tcp_meter, quic_meter, relay_meter) = (meter.clone(), meter.clone(), relayed.clone());
    let (tcp_lives, quic_lives) = (lives.clone(), lives.clone());
    let noise = |keypair: &Keypair| noise::Config::new(keypair).map(|upgrade| lives.watch(upgrade));
    let (tls_stalls, noise_stalls) = (stalls.clone(), stalls.clone());
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_other_transport(move |keypair| {
            let transport = OfLink::tcp(tcp::Config::default().nodelay(true)).upgrade(upgrade::Version::V1Lazy);
            let security = OneOf(
                Timely::new(tcp_lives.watch(Tls::new(keypair)?), tls_stalls),
                Timely::new(tcp_lives.watch(noise::Config::new(keypair)?), noise_stalls),
            );
            let multiplexer = Counting { upgrade: yamux::Config::default(), meter: tcp_meter };
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(transport.authenticate(security).multiplex(multiplexer))
        })
        .map_err(|error| failed("TCP", &error))?
        .with_other_transport(move |keypair| {
            let mut config = quic::Config::new(keypair);
            config.max_idle_timeout = QUIC_IDLE_MS;
            config.keep_alive_interval = QUIC_KEEP_ALIVE;
            OfLink::without(quic::tokio::Transport::new(config))
                .map(move |(peer, connection), _| (peer, quic_meter.count(connection).living(&quic_lives, peer)))
        })
        .map_err(|error| failed("QUIC", &error))?
        .with_dns()
        .map_err(|error| failed("name resolution", &error))?
        // The connection to the relay counts what goes through it as well.
        .with_relay_client(noise, move || Counting { upgrade: yamux::Config::default(), meter: relay_meter })
        .map_err(|error| failed("relays", &error))?
        .with_behaviour(|keypair, relay_client| Ok(Behaviour::new(keypair, config, relay_client)?))
        .map_err(|error| failed("the protocols", &error))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
        .build();
    Ok(swarm)
}

impl Behaviour {
    fn new(keypair: &Keypair, config: &Config, relay_client: relay::client::Behaviour) -> Result<Self> {
        let peer = keypair.public().to_peer_id();
        let identify = identify::Config::new(IDENTIFY_PROTOCOL.into(), keypair.public())
            .with_agent_version(nat::agent(AGENT, config.nat.stun_port))
            .with_push_listen_addr_updates(true);
        let mdns = |enable_ipv6| {
            let settings = mdns::Config { enable_ipv6, ..mdns::Config::default() };
            let mdns = config.mdns.then(|| mdns::tokio::Behaviour::new(settings, peer)).transpose();
            mdns.map_err(|error| Error::Io(format!("cannot start mDNS: {error}; try without mDNS")))
        };
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits()),
            memory: memory_connection_limits::Behaviour::with_max_percentage(MEMORY_SHARE_MAX),
            blocked: allow_block_list::Behaviour::default(),
            link: link::Behaviour::default(),
            gossipsub: gossipsub(),
            identify: identify::Behaviour::new(identify),
            pulse: pulse::Behaviour,
            kad: config.kademlia.then(|| kademlia(peer)).into(),
            mdns: mdns(false)?.into(),
            mdns_v6: mdns(true)?.into(),
            relay: config.nat.relay_server.then(|| nat::Service::new(peer, relaying(&config.nat))).into(),
            relay_client,
            dcutr: (config.nat.relay_client && config.nat.hole_punching).then(|| nat::Punching::new(peer)).into(),
            autonat: nat::Asking::new(AUTONAT),
            autonat_server: autonat::v2::server::Behaviour::default(),
        })
    }
}

fn limits() -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
        .with_max_pending_incoming(Some(CONNECTIONS_PENDING_MAX))
        .with_max_pending_outgoing(Some(CONNECTIONS_PENDING_MAX))
}

/// Many peers may be behind one address, so only peers are limited in what they ask for, not addresses.
fn relaying(settings: &nat::Settings) -> relay::Config {
    let asks = std::num::NonZeroU32::new(RELAY_ASKS).expect("it is more than 0");
    let mut config = relay::Config {
        max_reservations: settings.relay_slots,
        max_circuits: settings.relay_circuits,
        max_circuits_per_peer: RELAY_CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: RELAY_CIRCUIT,
        max_circuit_bytes: settings.relay_circuit_bytes,
        ..relay::Config::default()
    };
    config.reservation_rate_limiters.clear();
    config.circuit_src_rate_limiters.clear();
    config.reservation_rate_per_peer(asks, RELAY_ASK).circuit_src_per_peer(asks, RELAY_ASK)
}

fn kademlia(peer: libp2p::PeerId) -> kad::Behaviour<MemoryStore> {
    // Values are not used: none is taken in.
    let store = MemoryStoreConfig { max_records: 0, max_provided_keys: DHT_KEYS_MAX, ..MemoryStoreConfig::default() };
    let config = kad::Config::new(KAD_PROTOCOL);
    let mut kad = kad::Behaviour::with_config(peer, MemoryStore::with_config(peer, store), config);
    // Without this a peer that knows no external address of its own, as on a LAN, would not serve others.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

/// Messages carry no source, number or signature: what they hold is signed by its authors, and the
/// source would tell strangers who writes. An equal message is the same message, whoever sent it.
fn gossipsub() -> Gossipsub {
    let config = gossipsub::ConfigBuilder::default()
        .heartbeat_interval(HEARTBEAT)
        .heartbeat_initial_delay(FIRST_HEARTBEAT)
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| MessageId::from(blake3::hash(&message.data).as_bytes().to_vec()))
        .max_transmit_size(GOSSIP_MESSAGE_BYTES_MAX)
        .flood_publish(true)
        .publish_queue_duration(GOSSIP_WAIT)
        .forward_queue_duration(GOSSIP_WAIT)
        .build()
        .expect("the settings above are consistent");
    let subscriptions = gossipsub::MaxCountSubscriptionFilter {
        filter: gossipsub::AllowAllSubscriptionFilter {},
        max_subscribed_topics: SUBSCRIPTIONS_MAX,
        max_subscriptions_per_request: SUBSCRIPTIONS_MAX,
    };
    let mut gossipsub = Gossipsub::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, subscriptions)
        .expect("anonymous messages go with anonymous validation");
    gossipsub.with_peer_score(scores(), gossipsub::PeerScoreThresholds::default()).expect("the scores are valid");
    gossipsub
}

/// Peers behind one address are common (an office, a lab), meshes are often quiet, and lines are slow: none of it costs
/// score.
fn scores() -> gossipsub::PeerScoreParams {
    gossipsub::PeerScoreParams {
        topics: HashMap::new(),
        ip_colocation_factor_weight: 0.0,
        slow_peer_weight: 0.0,
        behaviour_penalty_threshold: 6.0,
        ..gossipsub::PeerScoreParams::default()
    }
}

/// How peers gain and lose score on a topic: a little for being there and for being first, and four
/// invalid messages within a minute are as bad as can be.
pub(super) fn topic_scores() -> gossipsub::TopicScoreParams {
    gossipsub::TopicScoreParams {
        topic_weight: 0.5,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 1_000.0,
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_cap: 20.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: 0.95,
        ..gossipsub::TopicScoreParams::default()
    }
}
