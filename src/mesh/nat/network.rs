//! Whether the network is still the one over which connections were made. An address that vanishes shows by itself; here
//! is what leaves all addresses where they are: a cable that is pulled, and a route that leads over another interface from
//! now on. The system is asked over which interface it would send to each peer, and whether anything is at the other end
//! of that; nothing is sent for it, and it is the same on all systems.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use crate::mesh::address::{Scope, endpoint, scope};
use crate::mesh::driver::Driver;
use crate::node::Input;

/// How often the system is asked, and how long it must say the same until that counts: cables have bad contacts.
const WATCH: Duration = Duration::from_secs(1);
/// Somewhere outside, of each protocol: addresses for documentation, to which no route of its own leads.
const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
/// The port of the service that discards everything.
const DISCARD: u16 = 9;

/// Addresses of the interfaces that have something at the other end, and the names of those.
struct Interfaces(HashMap<IpAddr, String>);

impl Interfaces {
    fn list() -> io::Result<Self> {
        let up = if_addrs::get_if_addrs()?.into_iter().filter(if_addrs::Interface::is_oper_up);
        Ok(Self(up.map(|interface| (interface.ip(), interface.name)).collect()))
    }

    /// The interface over which the system sends to an address; `None` when it does not, or nothing is at the other end.
    fn towards(&self, destination: IpAddr) -> Option<String> {
        let any = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
        // A datagram socket has no connection: it only learns its own address by this.
        socket.connect(SocketAddr::new(destination, DISCARD)).ok()?;
        self.0.get(&socket.local_addr().ok()?.ip()).cloned()
    }
}

/// Over which interface something went at first.
#[derive(Debug)]
struct Path {
    interface: Option<String>,
    /// Since when it is another one, as far as is known.
    doubted: Option<Instant>,
}

impl Path {
    fn new(interface: Option<String>) -> Self {
        Self { interface, doubted: None }
    }

    /// Whether it leads over another interface for good.
    fn has_moved(&mut self, interface: Option<String>, now: Instant) -> bool {
        if self.interface == interface {
            self.doubted = None;
        } else if now >= *self.doubted.get_or_insert(now) + WATCH {
            *self = Self::new(interface);
            return true;
        }
        false
    }
}

/// What the system said before.
#[derive(Debug, Default)]
pub(in crate::mesh) struct Watch {
    due: Option<Instant>,
    connections: HashMap<ConnectionId, Path>,
    outside: HashMap<IpAddr, Path>,
}

/// What is different now.
#[derive(Debug, PartialEq, Eq)]
struct Moved {
    /// Connections over an interface over which nothing goes to the peer any more.
    connections: Vec<ConnectionId>,
    /// Whether there is another way to the outside.
    outside: bool,
}

impl Watch {
    pub(super) fn due(&self) -> Instant {
        self.due.unwrap_or_else(Instant::now)
    }

    /// Compares with what was said before; `towards` says it of an address.
    fn compare(
        &mut self,
        connections: &HashMap<ConnectionId, IpAddr>,
        towards: impl Fn(IpAddr) -> Option<String>,
        now: Instant,
    ) -> Moved {
        let has_moved = |path: Option<&mut Path>, to| path.is_some_and(|path| path.has_moved(to, now));
        self.connections.retain(|id, _| connections.contains_key(id));
        let mut moved = Moved { connections: Vec::new(), outside: false };
        for (id, peer) in connections {
            let interface = towards(*peer);
            if has_moved(self.connections.get_mut(id), interface.clone()) {
                moved.connections.push(*id);
            }
            self.connections.entry(*id).or_insert(Path::new(interface));
        }
        for outside in OUTSIDE {
            let interface = towards(outside);
            moved.outside |= has_moved(self.outside.get_mut(&outside), interface.clone());
            self.outside.entry(outside).or_insert(Path::new(interface));
        }
        moved
    }
}

impl Driver {
    /// A connection is open: it goes over the interface that the system names now.
    pub(super) fn note_path(&mut self, connection: ConnectionId, remote: &Multiaddr) {
        if scope(remote) > Some(Scope::Machine)
            && let (Some((at, _)), Ok(interfaces)) = (endpoint(remote), Interfaces::list())
        {
            self.nat.watch.connections.insert(connection, Path::new(interfaces.towards(at.ip())));
        }
    }

    /// Looks whether connections still go where they went. Those that do not are dead, and would only be noticed when
    /// nothing arrives for long.
    pub(super) fn watch_network(&mut self, now: Instant) {
        if self.nat.watch.due.is_some_and(|due| due > now) {
            return;
        }
        self.nat.watch.due = Some(now + WATCH);
        // Where the system does not tell there is nothing to go by.
        let Ok(interfaces) = Interfaces::list() else { return };
        let far = self.connections.iter().filter(|(_, known)| scope(&known.remote) > Some(Scope::Machine));
        let far = far.filter(|(_, known)| known.link.direct);
        let far = far.filter_map(|(id, known)| Some((*id, endpoint(&known.remote)?.0.ip()))).collect();
        let moved = self.nat.watch.compare(&far, |peer| interfaces.towards(peer), now);
        if !moved.connections.is_empty() {
            tracing::info!(
                connections = moved.connections.len(),
                "connections went over an interface that has no cable, or is not the way any more; they are made anew"
            );
        }
        for dead in &moved.connections {
            self.swarm.close_connection(*dead);
        }
        if moved.outside {
            self.forget_verdicts();
            self.nat.probes.soon();
        }
        if moved.outside || !moved.connections.is_empty() {
            self.shared.notices.push(Input::NetworkChanged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(peers: &[(usize, &str)]) -> HashMap<ConnectionId, IpAddr> {
        peers.iter().map(|(id, peer)| (ConnectionId::new_unchecked(*id), peer.parse().unwrap())).collect()
    }

    #[test]
    fn what_goes_over_another_interface_for_good_has_moved() {
        let mut watch = Watch::default();
        let all = connections(&[(1, "192.168.1.7"), (2, "8.8.8.8"), (3, "2a00::1")]);
        let over = |lan: &'static str, v4: Option<&'static str>| {
            move |peer: IpAddr| match peer {
                IpAddr::V4(peer) if peer.is_private() => Some(lan.to_owned()),
                IpAddr::V4(_) => v4.map(str::to_owned),
                IpAddr::V6(_) => None,
            }
        };
        let nothing = || Moved { connections: Vec::new(), outside: false };
        let second = || Moved { connections: vec![ConnectionId::new_unchecked(2)], outside: true };
        let mut time = Instant::now();
        let mut compare = |all: &HashMap<_, _>, v4| {
            time += WATCH;
            watch.compare(all, over("wlan0", v4), time)
        };
        assert_eq!(compare(&all, Some("wlan0")), nothing());
        // A cable for the way out: once may be bad luck.
        for v4 in ["eth0", "wlan0", "eth0"] {
            assert_eq!(compare(&all, Some(v4)), nothing());
        }
        assert_eq!(compare(&all, Some("eth0")), second());
        // It is pulled.
        let all = connections(&[(1, "192.168.1.7"), (4, "8.8.8.8")]);
        assert_eq!(compare(&all, Some("eth0")), nothing());
        assert_eq!(compare(&all, None), nothing());
        let fourth = Moved { connections: vec![ConnectionId::new_unchecked(4)], outside: true };
        assert_eq!(compare(&all, None), fourth);
        assert_eq!(compare(&connections(&[]), None), nothing());
        assert!(watch.connections.is_empty());
    }

    #[test]
    fn the_system_says_over_which_interface_it_sends() {
        let interfaces = Interfaces::list().unwrap();
        let loopback = interfaces.towards(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert_eq!(interfaces.0[&IpAddr::V4(Ipv4Addr::LOCALHOST)], loopback);
    }
}
