//! How this peer is reached, as status calls show it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Reachability;
use super::mapping::Refusal;
use super::stun::Served;
use crate::base::PeerId;

/// How this peer is reached, and how it reaches others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachReport {
    /// What follows from the evidence.
    pub reachability: Reachability,
    /// Its addresses, with where they come from.
    pub addresses: Vec<AddressReport>,
    /// Whether it is known that the NAT uses one port towards everybody, or that it does not: one witness alone cannot
    /// tell.
    pub is_mapping_known: bool,
    /// Whether UDP comes back from STUN servers; `None` when none was asked yet.
    pub udp: Option<bool>,
    /// Handshakes over TCP that came to a standstill after the first small packets, since the last that did not.
    pub handshakes_stalled: u64,
    /// Members that could relay for this peer.
    pub relays_known: usize,
    /// Those of them that have refused a slot because they are full.
    pub relays_full: usize,
    /// Relays that hold a slot for this peer.
    pub relays: Vec<PeerId>,
    /// Slots that relays refused this peer, by reason.
    pub relay_slots_refused: BTreeMap<&'static str, u64>,
    /// Connections through them that they refused, by reason.
    pub relay_circuits_refused: BTreeMap<&'static str, u64>,
    /// Connected peers that say that they are behind a symmetric NAT.
    pub symmetric: Vec<PeerId>,
    /// What this peer does for others.
    pub service: RelayService,
    /// How punching holes went.
    pub punches: Punches,
    /// What the router does about forwarding ports.
    pub router: RouterReport,
    /// How often it did not do as asked, by reason.
    pub router_refused: BTreeMap<&'static str, u64>,
    /// What STUN servers told, in words; `None` when none was asked yet.
    pub stun: Option<String>,
    /// Where this peer answers as a STUN server.
    pub stun_server: Option<SocketAddr>,
    /// Why it answers nowhere though it should, with what to do; `None` when nothing is in the way.
    pub stun_server_fault: Option<String>,
    /// What became of the requests of others since it answers.
    pub stun_served: Served,
    /// Answers of STUN servers that were not believed, by reason.
    pub stun_rejected: BTreeMap<&'static str, u64>,
}

impl Default for ReachReport {
    fn default() -> Self {
        Self {
            reachability: Reachability::Unknown,
            addresses: Vec::new(),
            is_mapping_known: false,
            udp: None,
            handshakes_stalled: 0,
            relays_known: 0,
            relays_full: 0,
            relays: Vec::new(),
            relay_slots_refused: BTreeMap::new(),
            relay_circuits_refused: BTreeMap::new(),
            symmetric: Vec::new(),
            service: RelayService::default(),
            punches: Punches::default(),
            router: RouterReport::NotAsked,
            router_refused: BTreeMap::new(),
            stun: None,
            stun_server: None,
            stun_server_fault: None,
            stun_served: Served::default(),
            stun_rejected: BTreeMap::new(),
        }
    }
}

/// What the router does about forwarding ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouterReport {
    /// It must not be asked (`network.upnp`).
    Off,
    /// There is nothing to ask it for.
    NotAsked,
    /// It is being looked for.
    Searching,
    /// It does nothing for us, and why.
    Nothing(Refusal),
    /// It forwards ports.
    Forwarding {
        /// Which, in words.
        ports: Vec<String>,
        /// The addresses of those at which somebody outside has tried in vain to reach this peer.
        dead: Vec<String>,
    },
}

impl std::fmt::Display for RouterReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("not asked (network.upnp is false)"),
            Self::NotAsked => f.write_str("not asked"),
            Self::Searching => f.write_str("being looked for"),
            Self::Nothing(refusal) => f.write_str(&refusal.why),
            Self::Forwarding { ports, .. } => write!(f, "forwards {}", ports.join(", ")),
        }
    }
}

/// One address of this peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressReport {
    /// A multiaddr, or an IP address with a port as others see it.
    pub address: String,
    /// Where it comes from: `listening`, `left_out` (this machine lacks its protocol), `own`, `configured`, `confirmed`,
    /// `observed`, `mapped`, `relay` or `refuted`.
    pub source: &'static str,
    /// How far it can be relied on: `unconfirmed` (a public address of this machine that nobody has tried), `confirmed`, `refuted`, or how many peers see it.
    pub state: String,
}

/// What this peer does for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayService {
    /// Whether it relays.
    pub enabled: bool,
    /// Peers that have a slot here.
    pub slots: usize,
    /// How many may.
    pub slots_max: usize,
    /// Relayed connections that go through it.
    pub circuits: usize,
    /// How many may.
    pub circuits_max: usize,
    /// Requests for a slot that were turned down because there was no room.
    pub slots_denied: u64,
    /// Relayed connections that were.
    pub circuits_denied: u64,
}

/// How punching holes went since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Punches {
    /// Attempts that ended with a direct connection.
    pub succeeded: u64,
    /// Attempts that did not.
    pub failed: u64,
    /// Why the last one did not.
    pub last_failure: Option<String>,
}
