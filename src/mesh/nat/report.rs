//! How this peer is reached, as status calls show it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Reachability;
use crate::base::PeerId;

/// How this peer is reached, and how it reaches others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachReport {
    /// What follows from the evidence.
    pub reachability: Reachability,
    /// Its addresses, with where they come from.
    pub addresses: Vec<AddressReport>,
    /// Members that could relay for this peer.
    pub relays_known: usize,
    /// Relays that hold a slot for this peer.
    pub relays: Vec<PeerId>,
    /// What this peer does for others.
    pub service: RelayService,
    /// How punching holes went.
    pub punches: Punches,
    /// What the router does, in words.
    pub router: String,
    /// What STUN servers told, in words; `None` when none was asked yet.
    pub stun: Option<String>,
    /// Where this peer answers as a STUN server.
    pub stun_server: Option<SocketAddr>,
    /// Answers of STUN servers that were not believed, by reason.
    pub stun_rejected: BTreeMap<&'static str, u64>,
}

impl Default for ReachReport {
    fn default() -> Self {
        Self {
            reachability: Reachability::Unknown,
            addresses: Vec::new(),
            relays_known: 0,
            relays: Vec::new(),
            service: RelayService::default(),
            punches: Punches::default(),
            router: "not asked".into(),
            stun: None,
            stun_server: None,
            stun_rejected: BTreeMap::new(),
        }
    }
}

/// One address of this peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressReport {
    /// A multiaddr, or an IP address with a port as others see it.
    pub address: String,
    /// Where it comes from: `listening`, `configured`, `observed`, `mapped` or `relay`.
    pub source: &'static str,
    /// How far it can be relied on: `unconfirmed`, `confirmed`, `refuted`, or how many peers see it.
    pub state: String,
}

/// What this peer does for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayService {
    /// Whether it relays.
    pub enabled: bool,
    /// Peers that have a slot here.
    pub slots: usize,
    /// Relayed connections that go through it.
    pub circuits: usize,
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
