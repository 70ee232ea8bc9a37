//! Whether others reach this peer at the addresses that a ticket names.
//!
//! A way through a relay is tried as a newcomer would: by a stranger with a key of its own, which dials the relay at each of
//! its addresses, and this peer through it. An address of this peer itself cannot be tried from here, where it is always
//! near: of that is said what others have found (AutoNAT), or that nobody has tried.

use std::collections::{HashMap, HashSet};
use std::error::Error as StdError;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId as Libp2pId, Swarm, SwarmBuilder, noise, relay, tcp, yamux};
use tokio::time::{Instant, timeout_at};

use super::address::{Scope, dial_error, is_direct, relay_of, scope, split};
use super::nat::ReachReport;

/// How long relays may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How much longer the others may take once this peer was reached through each relay.
const REST: Duration = Duration::from_secs(1);

/// What is known of an address of this peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// Somebody has reached this peer at it.
    Reached,
    /// It is of use on this network, or on this machine, only.
    Near,
    /// It could not be tried, and why.
    Untried(String),
    /// Nobody reaches this peer at it, and why.
    Unreached(String),
}

impl Tried {
    /// The word by which it is shown.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Near => "near",
            Self::Untried(_) => "untried",
            Self::Unreached(_) => "unreached",
        }
    }

    /// Why it is no better.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Reached | Self::Near => None,
            Self::Untried(why) | Self::Unreached(why) => Some(why),
        }
    }
}

/// How dials of a stranger went.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Of relays, at each of their addresses.
    relays: HashMap<Multiaddr, Result<(), String>>,
    /// Of this peer, through each relay.
    circuits: HashMap<Libp2pId, Result<(), String>>,
}

/// What a stranger dials.
#[derive(Debug)]
enum Dial {
    Relay(Multiaddr, Libp2pId),
    /// This peer, through a relay that was reached at the address.
    Circuit(Multiaddr, Libp2pId),
}

/// The address at which a relay is dialed, and its id.
fn relay_at(way: &Multiaddr) -> Option<(Multiaddr, Libp2pId)> {
    Some((way.iter().take_while(|part| !matches!(part, Protocol::P2p(_))).collect(), relay_of(way)?))
}

impl Trial {
    /// Tries all ways through relays.
    ///
    /// # Errors
    /// When there can be no stranger.
    pub(super) async fn run(peer: Libp2pId, ways: &[Multiaddr]) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        let relays: HashMap<Multiaddr, Libp2pId> = ways.iter().filter_map(relay_at).collect();
        if relays.is_empty() {
            return Ok(Self::default());
        }
        let mut stranger = Stranger { swarm: stranger()?, peer, dials: HashMap::new(), trial: Self::default() };
        let wanted: HashSet<Libp2pId> = relays.values().copied().collect();
        for (at, relay) in relays {
            stranger.dial(Dial::Relay(at, relay));
        }
        let mut deadline = Instant::now() + PATIENCE;
        while !stranger.dials.is_empty() {
            let Ok(event) = timeout_at(deadline, stranger.swarm.select_next_some()).await else { break };
            stranger.event(event);
            let is_through = |relay: &Libp2pId| matches!(stranger.trial.circuits.get(relay), Some(Ok(())));
            if wanted.iter().all(is_through) {
                deadline = deadline.min(Instant::now() + REST);
            }
        }
        stranger.give_up();
        Ok(stranger.trial)
    }

    /// What follows for one way through a relay.
    fn found(&self, way: &Multiaddr) -> Tried {
        let late = || Err("it was not tried".to_owned());
        let Some((at, relay)) = relay_at(way) else { return Tried::Untried("it names no relay".into()) };
        let dialed = self.relays.get(&at).cloned().unwrap_or_else(late);
        match (dialed, self.circuits.get(&relay)) {
            (Ok(()), Some(Ok(()))) if scope(way) < Some(Scope::Public) => Tried::Near,
            (Ok(()), Some(Ok(()))) => Tried::Reached,
            // Others may have what this machine lacks, such as the other protocol.
            (Err(why), Some(Ok(()))) => {
                Tried::Untried(format!("its relay is not reached from here at this address: {why}"))
            }
            (_, Some(Err(why))) => Tried::Unreached(format!("its relay does not let anybody through: {why}")),
            (Err(why), None) => Tried::Unreached(format!("its relay cannot be reached: {why}")),
            (Ok(()), None) => Tried::Untried("its relay answered too late".into()),
        }
    }
}

/// What is known of an address, by what was tried and by what others have told.
pub(super) fn found(address: &Multiaddr, trial: Result<&Trial, &str>, reach: &ReachReport) -> Tried {
    if !is_direct(address) {
        return trial.map_or_else(|why| Tried::Untried(why.into()), |trial| trial.found(address));
    }
    if scope(address) < Some(Scope::Public) {
        return Tried::Near;
    }
    let bare = split(address.clone()).0;
    let is_it = |text: &str| text.parse().is_ok_and(|other| split(other).0 == bare);
    let told: Vec<_> = reach.addresses.iter().filter(|known| is_it(&known.address)).collect();
    if let Some(refuted) = told.iter().find(|known| known.source == "refuted") {
        return Tried::Unreached(format!("a peer outside has tried in vain: {}", refuted.state));
    }
    if told.iter().any(|known| matches!(known.source, "confirmed" | "mapped")) {
        return Tried::Reached;
    }
    Tried::Untried("no peer outside has tried it yet".into())
}

/// Somebody whom nobody knows.
struct Stranger {
    swarm: Swarm<relay::client::Behaviour>,
    /// Whom it tries to reach.
    peer: Libp2pId,
    dials: HashMap<ConnectionId, Dial>,
    trial: Trial,
}

fn stranger() -> Result<Swarm<relay::client::Behaviour>, Box<dyn StdError + Send + Sync>> {
    Ok(SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_dns()?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_, relay| relay)?
        .build())
}

impl Stranger {
    fn dial(&mut self, dial: Dial) {
        let (to, address) = match &dial {
            Dial::Relay(at, relay) => (*relay, at.clone()),
            Dial::Circuit(at, relay) => (self.peer, at.clone().with(Protocol::P2p(*relay)).with(Protocol::P2pCircuit)),
        };
        let options = DialOpts::peer_id(to).condition(PeerCondition::Always).addresses(vec![address]).build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => _ = self.dials.insert(connection, dial),
            Err(error) => self.over(dial, Err(dial_error(&error))),
        }
    }

    fn event(&mut self, event: SwarmEvent<relay::client::Event>) {
        if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event
            && let Some(dial) = self.dials.remove(&connection_id)
        {
            self.over(dial, Ok(()));
        } else if let SwarmEvent::OutgoingConnectionError { connection_id, error, .. } = event
            && let Some(dial) = self.dials.remove(&connection_id)
        {
            self.over(dial, Err(dial_error(&error)));
        }
    }

    /// A dial has ended. A relay that was reached is used to reach the peer, once.
    fn over(&mut self, dial: Dial, outcome: Result<(), String>) {
        match dial {
            Dial::Relay(at, relay) => {
                let is_first = outcome.is_ok() && !self.is_tried(&relay);
                self.trial.relays.insert(at.clone(), outcome);
                if is_first {
                    self.dial(Dial::Circuit(at, relay));
                }
            }
            Dial::Circuit(_, relay) => _ = self.trial.circuits.insert(relay, outcome),
        }
    }

    fn is_tried(&self, relay: &Libp2pId) -> bool {
        let is_it = |dial: &Dial| matches!(dial, Dial::Circuit(_, other) if other == relay);
        self.trial.circuits.contains_key(relay) || self.dials.values().any(is_it)
    }

    /// Whatever is under way has taken too long.
    fn give_up(&mut self) {
        for (_, dial) in std::mem::take(&mut self.dials) {
            let late = Err("nobody answered in time".to_owned());
            match dial {
                Dial::Relay(at, _) => _ = self.trial.relays.insert(at, late),
                Dial::Circuit(_, relay) => _ = self.trial.circuits.insert(relay, late),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::address::circuit;
    use crate::mesh::nat::AddressReport;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_way_through_a_relay_is_as_good_as_the_dials_say() {
        let (relay, dead, peer) = (Libp2pId::random(), Libp2pId::random(), Libp2pId::random());
        let (v4, v6, lan) = (at("/ip4/8.8.8.8/tcp/1"), at("/ip6/2a00::1/tcp/1"), at("/ip4/10.0.0.1/tcp/1"));
        let no = || Err("no".to_owned());
        let mut trial = Trial {
            relays: HashMap::from([(v4.clone(), Ok(())), (v6.clone(), no()), (lan.clone(), Ok(()))]),
            circuits: HashMap::from([(relay, Ok(()))]),
        };
        let word = |trial: &Trial, at, relay| trial.found(&circuit(at, relay, peer)).as_str();
        assert_eq!((word(&trial, &v4, relay), word(&trial, &lan, relay)), ("reached", "near"));
        // The machine may lack IPv6, which says nothing of others.
        assert_eq!((word(&trial, &v6, relay), word(&trial, &v6, dead)), ("untried", "unreached"));
        trial.circuits.insert(relay, no());
        assert_eq!(word(&trial, &v4, relay), "unreached");
        let way = circuit(&v4, relay, peer);
        assert_eq!(found(&way, Err("busy"), &ReachReport::default()), Tried::Untried("busy".into()));
    }

    #[test]
    fn of_an_own_address_is_said_what_others_found() {
        let peer = Libp2pId::random();
        let known = |address: &str, source| AddressReport { address: address.into(), source, state: "no".into() };
        let addresses = vec![
            known("/ip4/8.8.8.1/tcp/1", "confirmed"),
            known("/ip4/8.8.8.2/tcp/1", "own"),
            known("/ip4/8.8.8.2/tcp/1", "refuted"),
        ];
        let reach = ReachReport { addresses, ..ReachReport::default() };
        let word = |text: &str| found(&at(text).with(Protocol::P2p(peer)), Ok(&Trial::default()), &reach).as_str();
        let words =
            ["8.8.8.1", "8.8.8.2", "8.8.8.3", "192.168.1.5", "127.0.0.1"].map(|ip| word(&format!("/ip4/{ip}/tcp/1")));
        assert_eq!(words, ["reached", "unreached", "untried", "near", "near"]);
    }
}
