//! What is known of how this peer can be reached, and what follows from it.
//!
//! Evidence comes from all sides: the addresses of this machine, what connected peers see (identify), what AutoNAT
//! servers could dial, what STUN servers see, and what the router says. No single one is believed alone: peers may be
//! wrong, routers lie, and NATs differ by destination.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use crate::limits::{OBSERVED_ADDRESSES_MAX, REFUTED_ADDRESSES_MAX};
use crate::mesh::address::{Scope, endpoint, is_direct, scope};

/// How others can reach this peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// Nothing has been found out yet.
    Unknown,
    /// It has no network but that of its own machine.
    Offline,
    /// At an address of its own.
    Public,
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
    /// Addresses of this machine that are reached from anywhere, as far as one can tell from here.
    own: BTreeSet<IpAddr>,
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
        let public = direct.iter().filter(|address| scope(address) == Some(Scope::Public));
        self.own = public.filter_map(|address| endpoint(address)).map(|(at, _)| at.ip()).collect();
        self.online = direct.iter().any(|address| scope(address).is_some_and(|scope| scope > Scope::Machine));
    }

    /// Those of the addresses at which this peer listens that are reached from anywhere, as far as is known.
    pub(in crate::mesh) fn own<'a>(&self, listening: impl Iterator<Item = &'a Multiaddr>) -> BTreeSet<Multiaddr> {
        let is_dead = |address: &Multiaddr| self.refuted.contains_key(address) && !self.is_reached();
        let good = |address: &&Multiaddr| is_direct(address) && self.is_own(address) && !is_dead(address);
        listening.filter(good).cloned().collect()
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
                || self.own.contains(&at.ip())
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

    /// Whether somebody has connected to an address of this machine who was not dialed from here. One AutoNAT server that
    /// could not, or says so, does not outweigh that: it is asked about each address only rarely, and may be hostile.
    fn is_reached(&self) -> bool {
        self.observed.values().any(|observed| !observed.dialed && self.own.contains(&observed.at.ip()))
    }

    /// Whether addresses of this peer itself can be dialed from outside, as far as is known: not refuted counts, when
    /// the address is the machine's own.
    pub(in crate::mesh) fn is_public(&self) -> bool {
        let refuted = self.refuted.keys().any(|address| self.is_own(address));
        self.is_proven_public() || !self.own.is_empty() && (!refuted || self.is_reached())
    }

    /// Whether an address is one of this machine itself.
    fn is_own(&self, address: &Multiaddr) -> bool {
        endpoint(address).is_some_and(|(at, _)| self.own.contains(&at.ip()))
    }

    /// Addresses of this machine that are reached from anywhere, as far as one can tell from here.
    pub(in crate::mesh) fn own_ips(&self) -> BTreeSet<IpAddr> {
        self.own.clone()
    }

    /// Whether somebody has shown that this peer can be dialed at an address of its own, or it was told so.
    pub(in crate::mesh) fn is_proven_public(&self) -> bool {
        !self.configured.is_empty() || self.confirmed.iter().any(|address| self.is_own(address))
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

    /// Whether somebody whom we dialed over UDP, or over TCP, sees us.
    pub(in crate::mesh) fn is_seen_over(&self, udp: bool) -> bool {
        self.observed.values().any(|observed| observed.udp == udp && observed.dialed)
    }

    /// What STUN servers said about UDP: `Some(false)` when nothing came back.
    pub(in crate::mesh) fn udp(&self) -> Option<bool> {
        self.udp
    }

    /// Addresses that were tried in vain and are still ours, as far as is known. The others are forgotten.
    pub(in crate::mesh) fn worth_another_try(&mut self) -> Vec<Multiaddr> {
        let seen: BTreeSet<IpAddr> = self.observed.values().map(|observed| observed.at.ip()).collect();
        let is_ours = |address: &Multiaddr| {
            self.mapped.contains(address)
                || self.configured.contains(address)
                || endpoint(address).is_some_and(|(at, _)| self.own.contains(&at.ip()) || seen.contains(&at.ip()))
        };
        self.refuted.retain(|address, _| is_ours(address));
        self.refuted.keys().cloned().collect()
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
        assert!(!behind().is_public() && !behind().is_proven_public() && behind().is_stable().is_none());
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

    #[test]
    fn an_address_of_its_own_counts_until_somebody_tries_in_vain() {
        let own = at("/ip4/8.8.8.8/udp/4001/quic-v1");
        let mut evidence = Evidence::default();
        evidence.listening([own.clone()].iter());
        assert!(evidence.is_public() && !evidence.is_proven_public());
        assert_eq!(evidence.own([own.clone()].iter()).len(), 1);
        evidence.tried(&own, Err("a firewall".into()));
        assert!(!evidence.is_public() && evidence.own([own.clone()].iter()).is_empty());
        // Whoever got through knows better than one that did not.
        let (connection, remote) = (ConnectionId::new_unchecked(1), at("/ip4/9.9.9.9/udp/5/quic-v1"));
        evidence.observed(connection, PeerId::random(), &remote, false, &own);
        assert!(evidence.is_public() && !evidence.is_proven_public());
        assert_eq!(evidence.own([own.clone()].iter()).len(), 1);
        evidence.tried(&own, Ok(()));
        assert!(evidence.is_proven_public() && evidence.reachability() == Reachability::Public);
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
