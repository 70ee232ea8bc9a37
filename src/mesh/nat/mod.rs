//! Reaching peers behind NATs.
//!
//! - `evidence` what is known of how this peer can be reached, and what follows from it
//! - `relays` slots on relays, at which a peer is reached that cannot be dialed; `service` relaying for others
//! - `mapping` ports that the router forwards; `router` what the driver makes of them
//! - `stun` what the NAT in front of this machine does, and the same for others
//! - `probe` when that is found out, and when this peer tells others
//! - `punching` opens the NATs for direct connections
//! - `network` whether connections still go over the interface that they went over
//! - `asking` has others dial this peer's addresses, again when what they found is old
//! - `contacts` to whom something was sent of late; `claims` what the driver makes of its own addresses
//! - `drive` what the driver does about all of it
//! - `report` what status calls show; `tally` how often something failed, by reason
//!
//! A peer that cannot be dialed keeps slots on relays among the members, and is dialed through them. A connection
//! through a relay serves until there is a direct one: both sides try to punch holes (DCUtR), and dial the addresses
//! that the other names. Then the session moves over.

mod asking;
mod claims;
mod contacts;
mod drive;
mod evidence;
mod mapping;
mod network;
mod probe;
mod punching;
mod relays;
mod report;
mod router;
mod service;
pub mod stun;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use libp2p::swarm::{ConnectionId, FromSwarm};
use libp2p::{Multiaddr, PeerId as Libp2pId};
use tokio::time::Instant;

pub(super) use self::asking::Asking;
pub(super) use self::evidence::Evidence;
pub use self::evidence::Reachability;
pub use self::mapping::{Refusal, RouterFault};
pub(super) use self::network::Watch;
pub(super) use self::probe::{Probes, agent};
pub(super) use self::punching::Punching;
pub use self::relays::RelayFault;
pub(super) use self::relays::Relays;
pub use self::report::{AddressReport, Punches, ReachReport, RelayService, RouterReport};
pub(super) use self::router::Router;
pub(super) use self::service::Service;
pub use self::tally::{Reason, Tally};
use super::address::{endpoint, is_direct};
use super::handshake::Stalls;

/// Peers behind NATs that one relay takes connections for, unless it is told otherwise.
const RELAY_SLOTS: usize = 256;

/// What this peer may do to reach others and to be reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether slots on other peers' relays are taken, and peers are dialed through relays.
    pub relay_client: bool,
    /// Whether this peer relays for others, while it can be dialed itself.
    pub relay_server: bool,
    /// Peers behind NATs that are reached through this one.
    pub relay_slots: usize,
    /// Relayed connections at a time.
    pub relay_circuits: usize,
    /// Bytes that one relayed connection carries before it is closed, and has to be made anew.
    pub relay_circuit_bytes: u64,
    /// Whether direct connections through NATs are tried.
    pub hole_punching: bool,
    /// Whether the router is asked to forward ports.
    pub upnp: bool,
    /// STUN servers, as host:port, beside the members that can be dialed from anywhere.
    pub stun_servers: Vec<String>,
    /// The UDP port at which this peer answers as a STUN server, while it can be dialed from anywhere; 0 for none.
    pub stun_port: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            relay_client: true,
            relay_server: true,
            relay_slots: RELAY_SLOTS,
            relay_circuits: 128,
            relay_circuit_bytes: 1 << 30,
            hole_punching: true,
            upnp: true,
            stun_servers: Vec::new(),
            stun_port: 3478,
        }
    }
}

/// What the driver knows about reaching and being reached.
#[derive(Debug)]
pub(super) struct Nat {
    pub(super) settings: Settings,
    pub(super) evidence: Evidence,
    pub(super) relays: Relays,
    /// Connected peers that have told who they are: only then do we know our own address as they see it.
    pub(super) identified: HashSet<Libp2pId>,
    /// When which addresses were dialed that a peer named over a relay.
    pub(super) named: HashMap<Libp2pId, Vec<(Instant, Vec<Multiaddr>)>>,
    /// Relayed addresses to dial, once their relay is connected, each with the dial of the relay at the address that it
    /// names.
    pub(super) waiting: HashMap<Libp2pId, Vec<(String, Option<ConnectionId>)>>,
    /// Relayed addresses that were not dialed because another one that leads the same way was, oldest first.
    pub(super) besides: VecDeque<String>,
    /// Relayed connections that go through this peer, by those who take part.
    pub(super) circuits: HashMap<Libp2pId, usize>,
    /// Who has a slot here.
    pub(super) slots: HashSet<Libp2pId>,
    /// Slots and relayed connections that others were denied because there was no room.
    pub(super) denied: (u64, u64),
    /// Connected peers that say that they are behind a symmetric NAT.
    pub(super) symmetric: HashSet<Libp2pId>,
    pub(super) punches: Punches,
    pub(super) router: Router,
    pub(super) probes: Probes,
    pub(super) watch: Watch,
    /// Handshakes that came to a standstill.
    pub(super) stalls: Stalls,
    /// Peers that are dialed through their relay once more, which tries to punch holes again: how often already, and
    /// when.
    pub(super) again: HashMap<Libp2pId, (u32, Instant)>,
    /// When addresses at which nobody was reached are tried again.
    pub(super) retry: Option<Instant>,
    /// When what status calls show was put together last; counters go on meanwhile.
    pub(super) reported: Instant,
    /// What is not listened on because this machine lacks its protocol, and which.
    pub(super) left_out: Vec<(Multiaddr, &'static str)>,
    /// Addresses of this machine that are announced.
    pub(super) announced: BTreeSet<Multiaddr>,
    /// Addresses through relays that are.
    pub(super) circuits_announced: BTreeSet<Multiaddr>,
    /// Those that others were asked to try out.
    pub(super) proposed: BTreeSet<Multiaddr>,
    /// Peers without a session whose connections are closed then, unless something goes through them.
    pub(super) lingering: VecDeque<(Instant, Libp2pId)>,
}

impl Nat {
    pub(super) fn new(settings: Settings, configured: impl IntoIterator<Item = Multiaddr>) -> Self {
        Self {
            settings,
            evidence: Evidence::new(configured),
            relays: Relays::default(),
            identified: HashSet::new(),
            named: HashMap::new(),
            waiting: HashMap::new(),
            besides: VecDeque::new(),
            circuits: HashMap::new(),
            slots: HashSet::new(),
            denied: (0, 0),
            symmetric: HashSet::new(),
            punches: Punches::default(),
            router: Router::default(),
            probes: Probes::default(),
            watch: Watch::default(),
            stalls: Stalls::default(),
            again: HashMap::new(),
            retry: None,
            reported: Instant::now(),
            left_out: Vec::new(),
            announced: BTreeSet::new(),
            circuits_announced: BTreeSet::new(),
            proposed: BTreeSet::new(),
            lingering: VecDeque::new(),
        }
    }
}

/// Whether this is what a peer sees of us over a relay. Identify takes it for an address of ours.
fn is_seen_over_relay(event: &FromSwarm<'_>) -> bool {
    if let FromSwarm::NewExternalAddrCandidate(seen) = event {
        !is_direct(seen.addr) || endpoint(seen.addr).is_none()
    } else {
        false
    }
}
