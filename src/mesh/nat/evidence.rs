//! What is known of how this peer can be reached, and what follows from it.
//!
//! Evidence comes from all sides: the addresses of this machine, what connected peers see (identify), what AutoNAT
//! servers could dial, what STUN servers see, and what the router says. No single one is believed alone: peers may be
//! wrong, routers lie, and NATs differ by destination. A public address of the machine itself is a claim like any other:
//! a firewall may be in front of it, which may let in one protocol and not another. So each address counts once somebody
//! from elsewhere has dialed it, until somebody else has done so in vain.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use crate::limits::{OBSERVED_ADDRESSES_MAX, REFUTED_ADDRESSES_MAX};
use crate::mesh::address::{Scope, endpoint, is_direct, scope};

/// A protocol and a transport: firewalls let in one and not another, and not everybody has all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mesh) struct Lane {
    pub(in crate::mesh) v6: bool,
    pub(in crate::mesh) udp: bool,
}

impl Lane {
    /// All of them.
    pub(in crate::mesh) const ALL: [Self; 4] = [
        Self { v6: false, udp: true },
        Self { v6: false, udp: false },
        Self { v6: true, udp: true },
        Self { v6: true, udp: false },
    ];

    /// That of an address.
    pub(in crate::mesh) fn of(address: &Multiaddr) -> Option<Self> {
        endpoint(address).map(|(at, udp)| Self { v6: at.is_ipv6(), udp })
    }
}

/// How others can reach this peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// Nothing has been found out yet.
    Unknown,
    /// It has no network but that of its own machine.
    Offline,
    /// At an address of its own, as somebody from elsewhere has shown.
    Public,
    /// It has an address of its own, and a firewall lets nobody in unasked: holes can be punched.
    Firewalled,
    /// At a port that the router forwards.
    Mapped,
    /// Behind a NAT that uses one port towards everybody: holes can be punched.
    Punchable,
    /// Behind a NAT that uses another port towards each destination: holes can be punched towards some peers only.
    Symmetric,
    /// Only over TCP: nothing comes back over UDP.
    UdpBlocked,
}

impl Reachability {
    /// The word by which status calls show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Offline => "offline",
            Self::Public => "public",
            Self::Firewalled => "firewalled",
            Self::Mapped => "mapped",
            Self::Punchable => "punchable",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp_blocked",
        }
    }
}

/// How a connected peer sees us.
#[derive(Debug, Clone)]
struct Observed {
    peer: PeerId,
    /// Where that peer is.
    remote: IpAddr,
    /// Our address, as it sees it.
    at: SocketAddr,
    udp: bool,
    /// Whether we dialed: then our listening port was reused, and the address is a mapping of it.
    dialed: bool,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(in crate::mesh) struct Evidence {
    observed: HashMap<ConnectionId, Observed>,
    /// Addresses that an AutoNAT server could dial.
    confirmed: BTreeSet<Multiaddr>,
    /// Addresses that it could not, and why.
    refuted: BTreeMap<Multiaddr, String>,
    /// Ports that the router forwards.
    mapped: BTreeSet<Multiaddr>,
    /// Those that were confirmed, and are no longer forwarded.
    formerly: BTreeSet<Multiaddr>,
    /// Set in the configuration.
    configured: BTreeSet<Multiaddr>,
    /// Addresses of this machine at which it listens that would be reached from anywhere, if nothing is in front of them.
    own: BTreeSet<Multiaddr>,
    /// Those at which somebody from elsewhere has arrived who was not dialed from here.
    reached: BTreeSet<Multiaddr>,
    /// Whether it listens to IPv4 for other machines at all.
    v4: bool,
    /// Whether there is any network at all.
    online: bool,
    /// What STUN servers said about UDP: `Some(false)` when nothing came back.
    udp: Option<bool>,
    /// Whether STUN servers see one port towards everybody.
    stable: Option<bool>,
}

impl Evidence {
    pub(in crate::mesh) fn new(configured: impl IntoIterator<Item = Multiaddr>) -> Self {
        Self { configured: configured.into_iter().collect(), ..Self::default() }
    }

    /// The addresses at which this peer listens.
    pub(in crate::mesh) fn listening<'a>(&mut self, addresses: impl Iterator<Item = &'a Multiaddr>) {
        let direct: Vec<&Multiaddr> = addresses.filter(|address| is_direct(address)).collect();
        let is_public = |address: &Multiaddr| scope(address) == Some(Scope::Public) && endpoint(address).is_some();
        self.own = direct.iter().filter(|address| is_public(address)).map(|address| (*address).clone()).collect();
        self.reached.retain(|address| self.own.contains(address));
        let far = || direct.iter().filter(|address| scope(address).is_some_and(|scope| scope > Scope::Machine));
        self.online = far().next().is_some();
        self.v4 = far().filter_map(|address| Lane::of(address)).any(|lane| !lane.v6);
    }

    /// Where the connected peers are: whoever is connected to another machine has a network, wherever it listens.
    pub(in crate::mesh) fn connected<'a>(&mut self, mut remotes: impl Iterator<Item = &'a Multiaddr>) {
        self.online |= remotes.any(|remote| scope(remote).is_some_and(|scope| scope > Scope::Machine));
    }

    /// Addresses of this machine itself at which somebody from elsewhere has reached it.
    pub(in crate::mesh) fn open(&self) -> BTreeSet<Multiaddr> {
        self.own.iter().filter(|address| self.is_open(address)).cloned().collect()
    }

    fn is_open(&self, own: &Multiaddr) -> bool {
        self.confirmed.contains(own) || self.reached.contains(own)
    }

    /// Addresses of this machine itself of which that is not known: others are to try them out.
    pub(in crate::mesh) fn claimed(&self) -> impl Iterator<Item = &Multiaddr> {
        self.own.iter().filter(|address| !self.is_open(address))
    }

    /// Somebody to whom nothing was sent from here has connected to this peer. When it comes from another network there is
    /// no firewall in front of the addresses of that protocol and transport: this outweighs an AutoNAT server that has said
    /// so before, as that may have had bad luck, or be hostile.
    pub(in crate::mesh) fn arrived(&mut self, remote: &Multiaddr) {
        if !is_direct(remote) || !self.is_elsewhere(remote) {
            return;
        }
        let lane = Lane::of(remote);
        for address in self.own.iter().filter(|address| Lane::of(address) == lane) {
            self.refuted.remove(address);
            self.reached.insert(address.clone());
        }
    }

    /// Whether an address is one of the internet, and not of the network in which this machine is.
    fn is_elsewhere(&self, remote: &Multiaddr) -> bool {
        scope(remote) == Some(Scope::Public) && !is_neighbour(&self.own, remote)
    }

    /// A peer said at which address it sees us.
    pub(in crate::mesh) fn observed(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        dialed: bool,
        seen: &Multiaddr,
    ) {
        let (Some((remote, _)), Some((at, udp))) = (endpoint(remote), endpoint(seen)) else { return };
        // What somebody on the LAN sees says nothing about the router.
        let is_far = |address: &Multiaddr| scope(address) == Some(Scope::Public) && is_direct(address);
        if is_far(seen) && self.observed.len() < OBSERVED_ADDRESSES_MAX {
            self.observed.insert(connection, Observed { peer, remote: remote.ip(), at, udp, dialed });
        }
    }

    pub(in crate::mesh) fn closed(&mut self, connection: ConnectionId) {
        self.observed.remove(&connection);
    }

    /// An AutoNAT server tried an address.
    pub(in crate::mesh) fn tried(&mut self, address: &Multiaddr, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.refuted.remove(address);
                self.confirmed.insert(address.clone());
            }
            Err(why) => {
                self.confirmed.remove(address);
                self.reached.remove(address);
                if self.refuted.len() < REFUTED_ADDRESSES_MAX {
                    self.refuted.insert(address.clone(), why);
                }
            }
        }
    }

    /// What the router forwards now. Gives those of them that were confirmed before, and are again.
    pub(in crate::mesh) fn mapped(&mut self, addresses: BTreeSet<Multiaddr>) -> Vec<Multiaddr> {
        let again: Vec<Multiaddr> = addresses.intersection(&self.formerly).cloned().collect();
        for address in &again {
            self.formerly.remove(address);
            self.confirmed.insert(address.clone());
        }
        self.mapped = addresses;
        again
    }

    /// What STUN servers said: whether UDP comes back at all, and whether they see one port.
    pub(in crate::mesh) fn stun(&mut self, udp: bool, stable: Option<bool>) {
        self.udp = Some(udp);
        self.stable = stable;
    }

    /// Confirmed addresses that nobody sees us at any more, and that the router does not forward: the network or the
    /// router has changed. They are forgotten here. While nobody is connected nothing is known, and all are kept.
    pub(in crate::mesh) fn expire(&mut self) -> Vec<Multiaddr> {
        if self.observed.is_empty() {
            return Vec::new();
        }
        let seen: BTreeSet<(SocketAddr, bool)> = self.observed.values().map(|seen| (seen.at, seen.udp)).collect();
        let is_current = |address: &Multiaddr| {
            let Some((at, udp)) = endpoint(address) else { return true };
            // Who does not see us over the same transport cannot tell the port.
            let nobody_tells = !seen.iter().any(|(_, other)| *other == udp);
            let same_ip = seen.iter().any(|(seen, _)| seen.ip() == at.ip());
            self.mapped.contains(address)
                || self.is_own_ip(at.ip())
                || seen.contains(&(at, udp))
                || nobody_tells && same_ip
        };
        let stale: Vec<Multiaddr> = self.confirmed.iter().filter(|address| !is_current(address)).cloned().collect();
        stale.iter().for_each(|address| _ = self.confirmed.remove(address));
        if self.formerly.len() < REFUTED_ADDRESSES_MAX {
            self.formerly.extend(stale.iter().cloned());
        }
        stale
    }

    /// Whether an address is one of this machine itself.
    fn is_own_ip(&self, ip: IpAddr) -> bool {
        self.own.iter().filter_map(endpoint).any(|(at, _)| at.ip() == ip)
    }

    /// Whether somebody has shown that this peer can be dialed at an address of its own, or it was told so.
    pub(in crate::mesh) fn is_public(&self) -> bool {
        !self.configured.is_empty() || self.own.iter().any(|address| self.is_open(address))
    }

    /// The same of one protocol.
    pub(in crate::mesh) fn is_public_in(&self, v6: bool) -> bool {
        let is_it = |address: &&Multiaddr| Lane::of(address).is_some_and(|lane| lane.v6 == v6);
        !self.configured.is_empty() || self.own.iter().filter(is_it).any(|address| self.is_open(address))
    }

    /// Whether it can be dialed in each protocol that it speaks, and nobody has tried in vain: who can speak only one, or
    /// only TCP, needs nobody else to reach it.
    pub(in crate::mesh) fn is_public_to_all(&self) -> bool {
        let v6 = self.own.iter().filter_map(Lane::of).any(|lane| lane.v6);
        let is_shut = self.own.iter().any(|address| self.refuted.contains_key(address));
        !self.configured.is_empty()
            || self.is_public()
                && !is_shut
                && (!self.v4 || self.is_public_in(false))
                && (!v6 || self.is_public_in(true))
    }

    /// The IP addresses at which this peer is reached, of those of the machine itself.
    pub(in crate::mesh) fn own_ips(&self) -> BTreeSet<IpAddr> {
        let counts = |address: &&Multiaddr| !self.configured.is_empty() || self.is_open(address);
        self.own.iter().filter(counts).filter_map(endpoint).map(|(at, _)| at.ip()).collect()
    }

    /// Whether the addresses under which others see us are not all of this machine itself.
    fn is_translated(&self) -> bool {
        self.own.is_empty() || self.observed.values().any(|seen| seen.dialed && !self.is_own_ip(seen.at.ip()))
    }

    /// Whether the router forwards a port to us, and somebody has dialed it.
    pub(in crate::mesh) fn is_mapped(&self) -> bool {
        self.mapped.iter().any(|address| self.confirmed.contains(address))
    }

    /// Whether different peers see us at one port; `None` when fewer than two can tell.
    pub(in crate::mesh) fn is_stable(&self) -> Option<bool> {
        if self.stable.is_some() {
            return self.stable;
        }
        let over_udp = || self.observed.values().filter(|observed| observed.udp && observed.dialed);
        let witnesses: BTreeSet<IpAddr> = over_udp().map(|observed| observed.remote).collect();
        let ports: BTreeSet<SocketAddr> = over_udp().map(|observed| observed.at).collect();
        (witnesses.len() >= 2).then_some(ports.len() == 1)
    }

    /// What follows from all of it.
    pub(in crate::mesh) fn reachability(&self) -> Reachability {
        let tcp_only = !self.observed.is_empty() && self.observed.values().all(|observed| !observed.udp);
        if !self.online {
            Reachability::Offline
        } else if self.is_public() {
            Reachability::Public
        } else if self.is_mapped() {
            Reachability::Mapped
        } else if self.udp == Some(false) && self.observed.values().all(|observed| !observed.udp) || tcp_only {
            Reachability::UdpBlocked
        } else if !self.is_translated() {
            let is_shut = self.own.iter().any(|address| self.refuted.contains_key(address));
            if is_shut { Reachability::Firewalled } else { Reachability::Unknown }
        } else if self.is_stable() == Some(false) {
            Reachability::Symmetric
        } else if self.is_stable() == Some(true) || self.observed.values().any(|observed| observed.udp) {
            Reachability::Punchable
        } else {
            Reachability::Unknown
        }
    }

    /// Our addresses as others see them, each with how many peers see it.
    pub(in crate::mesh) fn seen(&self) -> BTreeMap<(SocketAddr, &'static str), usize> {
        let mut peers: BTreeMap<(SocketAddr, &'static str), BTreeSet<PeerId>> = BTreeMap::new();
        for observed in self.observed.values().filter(|observed| observed.dialed) {
            let transport = if observed.udp { "udp" } else { "tcp" };
            peers.entry((observed.at, transport)).or_default().insert(observed.peer);
        }
        peers.into_iter().map(|(at, peers)| (at, peers.len())).collect()
    }

    /// Whether it is to be found out how others see us in a protocol over a transport: nobody does whom we dialed, and it
    /// is not known that all can dial us.
    pub(in crate::mesh) fn is_unseen_over(&self, lane: Lane) -> bool {
        let speaks = !lane.v6 || self.own.iter().any(|address| Lane::of(address) == Some(lane));
        let is_seen = |seen: &Observed| seen.dialed && Lane { v6: seen.at.is_ipv6(), udp: seen.udp } == lane;
        let mut own = self.own.iter().filter(|address| Lane::of(address) == Some(lane));
        let is_open = !self.configured.is_empty() || own.any(|address| self.is_open(address));
        speaks && !is_open && !self.observed.values().any(is_seen)
    }

    /// What STUN servers said about UDP: `Some(false)` when nothing came back.
    pub(in crate::mesh) fn udp(&self) -> Option<bool> {
        self.udp
    }

    /// Addresses that were tried in vain, or not yet, and are still ours, as far as is known. The others are forgotten.
    pub(in crate::mesh) fn worth_another_try(&mut self) -> Vec<Multiaddr> {
        let seen: BTreeSet<IpAddr> = self.observed.values().map(|observed| observed.at.ip()).collect();
        let is_ours = |address: &Multiaddr| {
            self.mapped.contains(address)
                || self.configured.contains(address)
                || self.own.contains(address)
                || endpoint(address).is_some_and(|(at, _)| seen.contains(&at.ip()))
        };
        self.refuted.retain(|address, _| is_ours(address));
        let all: BTreeSet<&Multiaddr> = self.refuted.keys().chain(self.claimed()).collect();
        all.into_iter().cloned().collect()
    }

    /// Forgets which addresses were tried in vain.
    pub(in crate::mesh) fn forget_refuted(&mut self) {
        self.refuted.clear();
    }

    /// Addresses of the ports that the router forwards, as it says.
    pub(in crate::mesh) fn mapped_addresses(&self) -> Vec<Multiaddr> {
        self.mapped.iter().cloned().collect()
    }

    /// Whether an address was tried and found dead.
    pub(in crate::mesh) fn is_refuted(&self, address: &Multiaddr) -> bool {
        self.refuted.contains_key(address)
    }

    /// Addresses that were tried and found dead, and why.
    pub(in crate::mesh) fn refuted(&self) -> impl Iterator<Item = (&Multiaddr, &String)> {
        self.refuted.iter()
    }

    /// Whether the router says that it forwards to us from an address.
    pub(in crate::mesh) fn is_mapped_at(&self, address: &Multiaddr) -> bool {
        self.mapped.contains(address)
    }

    /// Addresses that somebody could dial.
    pub(in crate::mesh) fn confirmed(&self) -> impl Iterator<Item = &Multiaddr> {
        self.confirmed.iter()
    }
}

/// Whether an address is in the network of one of these, likely: in the same /24, or /64 of IPv6. No firewall of that
/// network is between the two.
pub(in crate::mesh) fn is_neighbour<'a>(own: impl IntoIterator<Item = &'a Multiaddr>, other: &Multiaddr) -> bool {
    let Some((other, _)) = endpoint(other) else { return false };
    own.into_iter().filter_map(endpoint).any(|(own, _)| same_network(own.ip(), other.ip()))
}

/// Whether two addresses are likely in one network.
pub(in crate::mesh) fn same_network(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..3] == b.octets()[..3],
        (IpAddr::V6(a), IpAddr::V6(b)) => a.octets()[..8] == b.octets()[..8],
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// Behind a NAT, with a listener on the LAN.
    fn behind() -> Evidence {
        let mut evidence = Evidence::default();
        evidence.listening([at("/ip4/127.0.0.1/udp/1/quic-v1"), at("/ip4/192.168.1.5/udp/1/quic-v1")].iter());
        evidence
    }

    fn seen(evidence: &mut Evidence, connection: usize, remote: &str, us: &str) {
        let connection = ConnectionId::new_unchecked(connection);
        evidence.observed(connection, PeerId::random(), &at(remote), true, &at(us));
    }

    #[test]
    fn what_is_not_known_is_not_claimed() {
        assert_eq!(Evidence::default().reachability(), Reachability::Offline);
        assert_eq!(behind().reachability(), Reachability::Unknown);
        assert!(!behind().is_public() && behind().is_stable().is_none());
        // Listening on loopback only, and yet connected to somebody elsewhere.
        for (remote, expected) in
            [("/ip4/127.0.0.1/tcp/1", Reachability::Offline), ("/ip6/2a00::1/tcp/1", Reachability::Unknown)]
        {
            let mut evidence = Evidence::default();
            evidence.listening([at("/ip4/127.0.0.1/udp/1/quic-v1")].iter());
            evidence.connected([at(remote)].iter());
            assert_eq!(evidence.reachability(), expected);
        }
    }

    #[test]
    fn peers_at_two_places_tell_a_symmetric_nat() {
        let mut evidence = behind();
        seen(&mut evidence, 1, "/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/700/quic-v1");
        // Two peers at one place are one witness.
        seen(&mut evidence, 2, "/ip4/8.8.8.8/udp/4002/quic-v1", "/ip4/9.9.9.9/udp/701/quic-v1");
        assert_eq!((evidence.is_stable(), evidence.reachability()), (None, Reachability::Punchable));
        seen(&mut evidence, 3, "/ip4/8.8.4.4/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/700/quic-v1");
        assert_eq!(evidence.reachability(), Reachability::Symmetric);
        evidence.closed(ConnectionId::new_unchecked(2));
        assert_eq!(evidence.reachability(), Reachability::Punchable);
        // What neighbours on the LAN see says nothing.
        seen(&mut evidence, 4, "/ip4/192.168.1.9/udp/4001/quic-v1", "/ip4/192.168.1.5/udp/1/quic-v1");
        assert_eq!(evidence.is_stable(), Some(true));
        // STUN servers know better.
        evidence.stun(true, Some(false));
        assert_eq!(evidence.reachability(), Reachability::Symmetric);
    }

    #[test]
    fn udp_is_blocked_when_only_tcp_comes_through() {
        let mut evidence = behind();
        seen(&mut evidence, 1, "/ip4/8.8.8.8/tcp/4001", "/ip4/9.9.9.9/tcp/700");
        assert_eq!(evidence.reachability(), Reachability::UdpBlocked);
        seen(&mut evidence, 2, "/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/700/quic-v1");
        assert_eq!(evidence.reachability(), Reachability::Punchable);
    }

    /// With public addresses of both protocols, over QUIC and TCP.
    fn hosted() -> Evidence {
        let own = ["/ip4/8.8.8.8", "/ip6/2a00::8"];
        let own = own.iter().flat_map(|ip| [at(&format!("{ip}/udp/4001/quic-v1")), at(&format!("{ip}/tcp/4001"))]);
        let mut evidence = Evidence::default();
        evidence.listening(own.collect::<Vec<_>>().iter());
        evidence
    }

    #[test]
    fn an_address_of_its_own_counts_once_somebody_has_dialed_it() {
        let own = at("/ip4/8.8.8.8/udp/4001/quic-v1");
        let mut evidence = hosted();
        assert_eq!((evidence.reachability(), evidence.claimed().count()), (Reachability::Unknown, 4));
        assert!(!evidence.is_public() && evidence.open().is_empty() && evidence.own_ips().is_empty());
        seen(&mut evidence, 1, "/ip4/9.9.9.9/udp/5/quic-v1", "/ip4/8.8.8.8/udp/4001/quic-v1");
        assert_eq!(evidence.reachability(), Reachability::Unknown, "who was dialed shows nothing");
        evidence.tried(&own, Err("a firewall".into()));
        assert_eq!(evidence.reachability(), Reachability::Firewalled);
        evidence.tried(&own, Ok(()));
        assert_eq!((evidence.reachability(), evidence.open()), (Reachability::Public, BTreeSet::from([own])));
        // Nothing is known of the other protocol, so those that speak only that one need a relay.
        assert!(evidence.is_public_in(false) && !evidence.is_public_in(true) && !evidence.is_public_to_all());
        evidence.tried(&at("/ip6/2a00::8/tcp/4001"), Ok(()));
        assert!(evidence.is_public_to_all());
        evidence.tried(&at("/ip4/8.8.8.8/tcp/4001"), Err("a firewall".into()));
        assert!(evidence.is_public() && !evidence.is_public_to_all(), "those without UDP need one as well");
        assert!(Evidence::new([at("/dns4/example.org/tcp/1")]).is_public_to_all());
    }

    #[test]
    fn whoever_comes_from_elsewhere_uninvited_shows_that_the_way_is_open() {
        let remote = at("/ip4/9.9.9.9/udp/5/quic-v1");
        let own = at("/ip4/8.8.8.8/udp/4001/quic-v1");
        let mut evidence = hosted();
        // The way is open for neighbours, and over a relay.
        for other in ["/ip4/8.8.8.9/udp/5/quic-v1", "/ip6/2a00::9/tcp/5", "/ip4/10.0.0.1/tcp/5"] {
            evidence.arrived(&at(other));
        }
        evidence.arrived(&at(&format!("{remote}/p2p/{}/p2p-circuit", PeerId::random())));
        assert!(!evidence.is_public());
        evidence.arrived(&remote);
        assert_eq!(evidence.open(), BTreeSet::from([own.clone()]), "of one protocol and transport");
        // What is said last counts.
        evidence.tried(&own, Err("a firewall".into()));
        assert!(!evidence.is_public());
        evidence.arrived(&remote);
        assert!(evidence.is_public() && evidence.refuted().next().is_none());
        // It is the address that is open, not the machine.
        evidence.listening([at("/ip4/7.7.7.7/udp/4001/quic-v1")].iter());
        assert!(!evidence.is_public());
    }

    #[test]
    fn what_others_must_try_again_is_what_is_not_known_to_be_open() {
        let mut evidence = hosted();
        let (dead, open) = (at("/ip4/8.8.8.8/tcp/4001"), at("/ip6/2a00::8/tcp/4001"));
        evidence.tried(&dead, Err("a firewall".into()));
        evidence.tried(&open, Ok(()));
        let again = evidence.worth_another_try();
        assert!(again.len() == 3 && again.contains(&dead) && !again.contains(&open), "{again:?}");
    }

    #[test]
    fn a_forwarded_port_counts_once_it_was_dialed_and_is_remembered() {
        let mapped = at("/ip4/9.9.9.9/udp/4001/quic-v1");
        let mut evidence = behind();
        assert!(evidence.mapped(BTreeSet::from([mapped.clone()])).is_empty());
        assert!(!evidence.is_mapped());
        evidence.tried(&mapped, Ok(()));
        assert_eq!(evidence.reachability(), Reachability::Mapped);
        // The router forgets, and is told again.
        evidence.mapped(BTreeSet::new());
        seen(&mut evidence, 1, "/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/700/quic-v1");
        assert_eq!(evidence.expire(), std::slice::from_ref(&mapped));
        assert_eq!(evidence.mapped(BTreeSet::from([mapped.clone()])), [mapped]);
        assert!(evidence.is_mapped());
    }

    #[test]
    fn what_was_tried_in_vain_is_worth_another_try_while_it_may_be_ours() {
        let (mapped, seen_at, gone) =
            (at("/ip4/9.9.9.9/udp/4001/quic-v1"), at("/ip4/7.7.7.7/tcp/4001"), at("/ip4/6.6.6.6/tcp/4001"));
        let mut evidence = behind();
        evidence.mapped(BTreeSet::from([mapped.clone()]));
        seen(&mut evidence, 1, "/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/7.7.7.7/udp/900/quic-v1");
        for address in [&mapped, &seen_at, &gone] {
            evidence.tried(address, Err("bad luck".into()));
        }
        assert_eq!(evidence.worth_another_try(), [seen_at.clone(), mapped.clone()]);
        assert!(evidence.is_refuted(&mapped) && !evidence.is_refuted(&gone), "the verdict counts until the next one");
        evidence.tried(&mapped, Ok(()));
        assert!(evidence.is_mapped() && evidence.worth_another_try() == [seen_at]);
        evidence.forget_refuted();
        assert!(evidence.worth_another_try().is_empty());
    }

    #[test]
    fn addresses_of_the_network_before_are_forgotten() {
        let (before, tcp) = (at("/ip4/9.9.9.9/udp/700/quic-v1"), at("/ip4/9.9.9.9/tcp/700"));
        let mut evidence = behind();
        seen(&mut evidence, 1, "/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/9.9.9.9/udp/700/quic-v1");
        evidence.tried(&before, Ok(()));
        evidence.tried(&tcp, Ok(()));
        // Nobody sees us over TCP, so nobody says that its port is another one.
        assert!(evidence.expire().is_empty());
        evidence.closed(ConnectionId::new_unchecked(1));
        assert!(evidence.expire().is_empty(), "while nobody is connected nothing is known");
        seen(&mut evidence, 2, "/ip4/8.8.8.8/udp/4001/quic-v1", "/ip4/7.7.7.7/udp/900/quic-v1");
        assert_eq!(evidence.expire(), [tcp, before]);
    }
}
