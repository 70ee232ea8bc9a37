//! Addresses: between text, libp2p and our ids, and which of them are worth passing on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use libp2p::core::multiaddr::Protocol;
use libp2p::core::transport::TransportError;
use libp2p::identity::{PublicKey, ed25519};
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId as Libp2pId};

use crate::base::PeerId;
use crate::limits::ADDRESS_BYTES_MAX;
use crate::{Error, Result};

/// Our id of a libp2p peer; `None` when its key is of another kind than Ed25519.
pub(super) fn ours(peer: &Libp2pId) -> Option<PeerId> {
    // The id of an Ed25519 key is an identity hash: its digest is the encoded key.
    let key = PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    Some(PeerId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The libp2p id of a peer; `None` when its bytes are no Ed25519 key.
pub(super) fn theirs(peer: &PeerId) -> Option<Libp2pId> {
    Some(PublicKey::from(ed25519::PublicKey::try_from_bytes(&peer.0).ok()?).to_peer_id())
}

/// Reads a multiaddr from the configuration.
pub(super) fn parse(text: &str) -> Result<Multiaddr> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Err(Error::invalid(format!("an address is longer than {ADDRESS_BYTES_MAX} bytes")));
    }
    text.parse().map_err(|error| {
        Error::invalid(format!(
            "{text:?} is not a multiaddr ({error}); one looks like /ip4/0.0.0.0/udp/4001/quic-v1 or /ip4/0.0.0.0/tcp/4001"
        ))
    })
}

/// Reads an address of this peer from the configuration; its id may be at the end.
pub(super) fn parse_own(text: &str, peer: &Libp2pId) -> Result<Multiaddr> {
    let (address, id) = split(parse(text)?);
    match id {
        Some(id) if id != *peer => Err(Error::invalid(format!("{text:?} is an address of another peer than {peer}"))),
        Some(_) | None => Ok(address),
    }
}

/// Takes the peer id off the end of an address.
pub(super) fn split(mut address: Multiaddr) -> (Multiaddr, Option<Libp2pId>) {
    match address.pop() {
        Some(Protocol::P2p(peer)) => (address, Some(peer)),
        Some(last) => (address.with(last), None),
        None => (address, None),
    }
}

/// An address as text that ends in the peer's id.
pub(super) fn full(address: &Multiaddr, peer: &Libp2pId) -> String {
    let (bare, _) = split(address.clone());
    bare.with(Protocol::P2p(*peer)).to_string()
}

/// Whether no relay is in between.
pub(super) fn is_direct(address: &Multiaddr) -> bool {
    !address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The relay of a relayed address.
pub(super) fn relay_of(address: &Multiaddr) -> Option<Libp2pId> {
    let mut last = None;
    for part in address {
        if part == Protocol::P2pCircuit {
            return last;
        }
        if let Protocol::P2p(peer) = part {
            last = Some(peer);
        }
    }
    None
}

/// The IP address and port of an address, and whether the port is one of UDP.
pub(super) fn endpoint(address: &Multiaddr) -> Option<(SocketAddr, bool)> {
    let mut parts = address.iter();
    let ip = ip(&parts.next()?)?;
    let port = parts.next()?;
    if let Protocol::Udp(port) = port {
        return Some((SocketAddr::new(ip, port), true));
    }
    if let Protocol::Tcp(port) = port {
        return Some((SocketAddr::new(ip, port), false));
    }
    None
}

fn ip(part: &Protocol<'_>) -> Option<IpAddr> {
    if let Protocol::Ip4(ip) = part {
        return Some(IpAddr::V4(*ip));
    }
    if let Protocol::Ip6(ip) = part {
        return Some(IpAddr::V6(*ip));
    }
    None
}

/// From how far away an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// From this machine.
    Machine,
    /// From the same network.
    Network,
    /// From anywhere.
    Public,
}

/// From how far away an address can be reached; `None` when from nowhere.
pub(super) fn scope(address: &Multiaddr) -> Option<Scope> {
    let first = address.iter().next()?;
    if let Protocol::Ip4(ip) = first {
        return ip_scope(ip.into());
    }
    if let Protocol::Ip6(ip) = first {
        return ip_scope(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4));
    }
    let named = matches!(first, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_));
    named.then_some(Scope::Public)
}

/// Whether a listening address is one over which other machines are reached; those of IPv6 that every link has come and
/// go by themselves.
pub(super) fn matters(address: &Multiaddr) -> bool {
    let of_link = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    scope(address).is_some_and(|scope| scope > Scope::Machine)
        && endpoint(address).is_some_and(|(at, _)| !of_link(at.ip()))
}

/// Whether an IP address is one that is reached from anywhere.
pub(super) fn is_public(ip: IpAddr) -> bool {
    ip_scope(ip) == Some(Scope::Public)
}

fn ip_scope(ip: IpAddr) -> Option<Scope> {
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    if ip.is_loopback() {
        return Some(Scope::Machine);
    }
    let near = match ip {
        // "This network", and what is reserved since long ago and was never given to anybody.
        IpAddr::V4(ip) if ip.octets()[0] == 0 || ip.octets()[0] >= 240 => return None,
        // 100.64.0.0/10 is shared by the customers of one provider.
        IpAddr::V4(ip) => {
            let is_shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            // Documentation and benchmarks: they go nowhere on the Internet, and are used in closed networks.
            let is_closed = ip.is_documentation() || ip.octets()[0] == 198 && ip.octets()[1] & 0xfe == 18;
            ip.is_private() || ip.is_link_local() || is_shared || is_closed
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    Some(if near { Scope::Network } else { Scope::Public })
}

/// The addresses of a peer that somebody at this distance may reach, as text, at most `max`, best first.
pub(super) fn reachable(
    addresses: impl IntoIterator<Item = Multiaddr>,
    at: Scope,
    peer: &Libp2pId,
    max: usize,
) -> Vec<String> {
    let is_near = |address: &Multiaddr| scope(address).is_some_and(|scope| scope >= at);
    let is_short = |address: &Multiaddr| full(address, peer).len() <= ADDRESS_BYTES_MAX;
    let near = addresses.into_iter().map(|address| split(address).0).filter(is_near).filter(is_short);
    best_first(near, max).iter().map(|address| full(address, peer)).collect()
}

/// A kind of way to a peer: the more of them somebody knows, the likelier one works.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    near: Nearness,
    is_relayed: bool,
    is_v6: bool,
    is_tcp: bool,
    relay: Option<Libp2pId>,
}

/// How near one must be to reach an address.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    Anywhere,
    Network,
    Link,
    Machine,
}

impl Way {
    fn of(address: &Multiaddr) -> Option<Self> {
        let ip = endpoint(address).map(|(at, _)| at.ip());
        let is_of_link = ip.is_some_and(|ip| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        let near = match scope(address)? {
            Scope::Public => Nearness::Anywhere,
            Scope::Network if is_of_link => Nearness::Link,
            Scope::Network => Nearness::Network,
            Scope::Machine => Nearness::Machine,
        };
        Some(Self {
            near,
            is_relayed: !is_direct(address),
            is_v6: ip.is_some_and(|ip| ip.is_ipv6()),
            is_tcp: endpoint(address).is_some_and(|(_, udp)| !udp),
            relay: relay_of(address),
        })
    }
}

/// The best of some addresses of one peer, best first: of each kind of way one before the second of another, so that a bound
/// leaves out no relay, protocol or transport; those that reach further before the others, direct ones before relayed ones,
/// and those of the link and of the machine last of all.
pub(super) fn best_first(addresses: impl IntoIterator<Item = Multiaddr>, max: usize) -> Vec<Multiaddr> {
    let all: BTreeSet<Multiaddr> = addresses.into_iter().collect();
    let mut ways: BTreeMap<Way, usize> = BTreeMap::new();
    let mut ranked = Vec::new();
    for address in all {
        let (Some(way), Some(counted)) = (Way::of(&address), Way::of(&address)) else { continue };
        let before = ways.entry(counted).or_default();
        ranked.push(((way.near >= Nearness::Link, *before, way), address));
        *before += 1;
    }
    ranked.sort();
    ranked.into_iter().take(max).map(|(_, address)| address).collect()
}

/// The address at which a peer is reached through a relay.
pub(super) fn circuit(relay_at: &Multiaddr, relay: Libp2pId, peer: Libp2pId) -> Multiaddr {
    relay_at.clone().with(Protocol::P2p(relay)).with(Protocol::P2pCircuit).with(Protocol::P2p(peer))
}

/// Whether two addresses, as text that ends in the peer's id, lead to one peer through one relay.
pub(super) fn is_same_way(one: &str, other: &str) -> bool {
    let relay = |text: &str| text.parse().ok().and_then(|address| relay_of(&address));
    one.rsplit('/').next() == other.rsplit('/').next() && relay(one).is_some_and(|one| relay(other) == Some(one))
}

/// Why a dial failed, in plain words.
pub(super) fn dial_error(error: &DialError) -> String {
    match error {
        // One address is given with each dial; the swarm leaves out those it listens on.
        DialError::LocalPeerId { .. } | DialError::NoAddresses => "this is our own address".into(),
        DialError::DialPeerConditionFalse(_) => "the peer is connected or being dialed already".into(),
        DialError::Aborted => "the dial was given up".into(),
        DialError::WrongPeerId { obtained, .. } => format!("another peer answers there: {obtained}"),
        DialError::Denied { cause } => format!("the connection is not allowed here: {}", root(cause)),
        DialError::Transport(errors) => errors.first().map_or("nobody answers".into(), |(_, error)| match error {
            TransportError::MultiaddrNotSupported(_) => "this kind of address is not supported".into(),
            TransportError::Other(error) => transport_error(error),
        }),
    }
}

fn transport_error(error: &io::Error) -> String {
    let text = root(error);
    // QUIC's errors arrive without a kind.
    let said = text.to_lowercase();
    if error.kind() == io::ErrorKind::ConnectionRefused || said.contains("refused") {
        return "nobody listens there (connection refused)".into();
    }
    if error.kind() == io::ErrorKind::TimedOut || said.contains("timeout") || said.contains("timed out") {
        return "nobody answered in time".into();
    }
    if said.contains("resource limit exceeded") {
        return "the relay on the way there is full".into();
    }
    text
}

/// The innermost cause, which says most.
pub(super) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multiaddr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn ids_are_the_same_here_and_in_libp2p() {
        let key = crate::identity::Keypair::from_seed([3; 32]);
        let libp2p = libp2p::identity::Keypair::ed25519_from_bytes(*key.seed()).unwrap().public().to_peer_id();
        assert_eq!((ours(&libp2p), theirs(&key.peer_id())), (Some(key.peer_id()), Some(libp2p)));
        assert_eq!(libp2p.to_string(), key.peer_id().to_string());
    }

    #[test]
    fn addresses_are_passed_on_only_as_far_as_they_reach() {
        let peer = theirs(&crate::identity::Keypair::from_seed([3; 32]).peer_id()).unwrap();
        let texts = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/udp/1/quic-v1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip4/8.8.8.8/tcp/1",
            "/dns4/example.org/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/0.1.2.3/tcp/1",
            "/ip4/240.0.0.1/tcp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip4/8.8.8.8/tcp/1/p2p-circuit",
        ];
        for (at, expected) in [(Scope::Machine, 7), (Scope::Network, 6), (Scope::Public, 3)] {
            let found = reachable(texts.iter().map(|text| multiaddr(text)), at, &peer, 16);
            assert_eq!(found.len(), expected, "{found:?}");
            assert!(found.iter().all(|address| address.ends_with(&format!("/p2p/{peer}"))));
        }
        let twice = full(&multiaddr(&full(&multiaddr(texts[0]), &peer)), &peer);
        assert_eq!(twice, format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}"));
    }

    #[test]
    fn a_bound_leaves_out_no_relay_protocol_or_transport() {
        let (own, peer) = (Libp2pId::random(), Libp2pId::random());
        let relays = [Libp2pId::random(), Libp2pId::random()];
        let at = |ip: &str, n: u8| {
            [format!("/{ip}{n}/udp/1/quic-v1"), format!("/{ip}{n}/tcp/1")].map(|text| multiaddr(&text))
        };
        let dual = |n| [at("ip4/8.8.8.", n), at("ip6/2a00::", n)].concat();
        let through = |relay| (1..4).flat_map(dual).map(move |at| circuit(&at, relay, peer));
        let near = ["ip4/192.168.1.", "ip6/fd00::", "ip4/127.0.0.", "ip6/fe80::"].map(|ip| at(ip, 1)).concat();
        let all: Vec<Multiaddr> = relays.into_iter().flat_map(through).chain(near.clone()).collect();
        let best = best_first(all.iter().rev().cloned(), 16);
        assert_eq!(best, best_first(all.iter().cloned(), 16), "the order of arrival makes no difference");
        for relay in relays {
            for kind in ["/ip4/8.8.8.1/udp", "/ip4/8.8.8.1/tcp", "/ip6/2a00::1/udp", "/ip6/2a00::1/tcp"] {
                let named = |way: &&Multiaddr| relay_of(way) == Some(relay) && way.to_string().starts_with(kind);
                assert_eq!(best.iter().position(|way| named(&way)).map(|at| at < 8), Some(true), "{kind}: {best:#?}");
            }
        }
        assert_eq!(best[8..12], near[..4], "then one of each near way, before the seconds of the relays");
        assert!(best.iter().all(|way| !way.to_string().contains("127.0.0") && !way.to_string().contains("fe80")));
        let direct = multiaddr("/ip4/8.8.4.4/tcp/1");
        assert_eq!(best_first(all.into_iter().chain([direct.clone()]), 1), [direct]);
        assert_eq!(reachable(best, Scope::Machine, &own, 3).len(), 3);
    }
}
