//! Listening addresses: which there are, and what is wrong with one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::core::multiaddr::Protocol;
use libp2p::core::transport::TransportError;
use tokio::time::{Instant, sleep};

use super::address::{endpoint, root};
use crate::{Error, Result};

/// How long QUIC may keep its socket after everything is closed.
const FREE: Duration = Duration::from_secs(10);
/// How often it is looked whether it does.
const FREE_CHECK: Duration = Duration::from_millis(10);

/// Addresses at which this peer is, as text that ends in its id.
#[derive(Debug, Clone, Default)]
pub(super) struct Listening {
    /// Where it listens.
    pub(super) addresses: Vec<String>,
    /// Where it is reached from outside, best first.
    pub(super) external: Vec<String>,
    /// The best of all of them: what a ticket names.
    pub(super) best: Vec<String>,
}

/// Notices a TCP port that another peer of this user listens on: libp2p shares ports, so that it would
/// succeed to listen there too, and each would get some of the other's connections.
///
/// # Errors
/// When the port is taken.
pub(super) fn probe(address: &Multiaddr) -> Result<()> {
    let Some((at, false)) = endpoint(address) else { return Ok(()) };
    if at.port() == 0 {
        return Ok(());
    }
    if at.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) {
        // The system would take all of IPv4 for this as well, which libp2p does not: another one may be on that port.
        return match TcpListener::bind((Ipv6Addr::LOCALHOST, at.port())) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(in_words(address, &error)),
            Ok(_) | Err(_) => Ok(()),
        };
    }
    TcpListener::bind(at).map(drop).map_err(|error| in_words(address, &error))
}

/// Waits until the UDP ports of these addresses are free again, for a bounded time. QUIC keeps its socket
/// for a moment after everything is closed, to answer late packets; without this wait a peer that is
/// started again at once would find its own port in use.
pub(super) async fn until_free(addresses: &[Multiaddr]) {
    let deadline = Instant::now() + FREE;
    for (address, _) in addresses.iter().filter_map(endpoint).filter(|(_, udp)| *udp) {
        // An address that is gone, or one of the link, cannot be bound at all.
        let is_busy = || UdpSocket::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
        while is_busy() && Instant::now() < deadline {
            sleep(FREE_CHECK).await;
        }
    }
}

/// The addresses that stand for all of this machine, over QUIC and TCP.
pub(super) fn everywhere(port: u16) -> [Multiaddr; 4] {
    let quic = |ip: IpAddr| Multiaddr::from(ip).with(Protocol::Udp(port)).with(Protocol::QuicV1);
    let tcp = |ip: IpAddr| Multiaddr::from(ip).with(Protocol::Tcp(port));
    let (v4, v6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    [quic(v4), tcp(v4), quic(v6), tcp(v6)]
}

/// The protocols of which a machine has addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Protocols {
    v4: bool,
    v6: bool,
    /// Whether there is an IPv6 address beside those of the link, which QUIC does not tell (see `of_link`).
    v6_quic: bool,
}

impl Protocols {
    /// Those of this machine; both when it cannot be asked.
    pub(super) fn of_machine() -> Self {
        let Ok(all) = if_addrs::get_if_addrs() else { return Self { v4: true, v6: true, v6_quic: true } };
        let ips: Vec<IpAddr> = all.iter().map(if_addrs::Interface::ip).collect();
        let is_beyond_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if !ip.is_unicast_link_local());
        Self {
            v4: ips.iter().any(IpAddr::is_ipv4),
            v6: ips.iter().any(IpAddr::is_ipv6),
            v6_quic: ips.iter().any(is_beyond_link),
        }
    }

    /// Why an address that stands for all of its protocol stands for none.
    pub(super) fn lacks(self, address: &Multiaddr) -> Option<&'static str> {
        let (at, is_udp) = endpoint(address)?;
        match at.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() && !self.v4 => Some("this machine has no IPv4 address"),
            IpAddr::V6(ip) if ip.is_unspecified() && !self.v6 => Some("this machine has no IPv6 address"),
            IpAddr::V6(ip) if ip.is_unspecified() && is_udp && !self.v6_quic => {
                Some("this machine has no IPv6 address but those of its link")
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

/// Why an address cannot be listened on, and what to do.
pub(super) fn listen_error(address: &Multiaddr, error: &TransportError<io::Error>) -> Error {
    match error {
        TransportError::MultiaddrNotSupported(_) => Error::invalid(format!(
            "cannot listen on {address}: only addresses like /ip4/0.0.0.0/udp/4001/quic-v1 and \
             /ip4/0.0.0.0/tcp/4001 are supported"
        )),
        TransportError::Other(error) => in_words(address, error),
    }
}

/// Why the system lets nobody listen on an address, and what to do.
pub(super) fn in_words(address: &Multiaddr, error: &io::Error) -> Error {
    let text = root(error);
    let advice = if error.kind() == io::ErrorKind::AddrInUse || text.contains("in use") {
        "the port is in use by another program or another peer; stop that one, or choose another port (0 for any free one)"
    } else if error.kind() == io::ErrorKind::PermissionDenied || text.contains("ermission denied") {
        "this user may not use that port; choose one above 1023"
    } else if error.kind() == io::ErrorKind::AddrNotAvailable || text.contains("assign requested") {
        "this machine has no such address; use 0.0.0.0 or :: for all it has"
    } else {
        text.as_str()
    };
    Error::Io(format!("cannot listen on {address}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_lacks_is_said_of_wildcards_of_that_protocol_only() {
        let lacking =
            |v4, v6, v6_quic| everywhere(4001).map(|address| Protocols { v4, v6, v6_quic }.lacks(&address).is_some());
        assert_eq!(lacking(true, false, false), [false, false, true, true]);
        assert_eq!(lacking(false, true, true), [true, true, false, false]);
        assert_eq!(lacking(true, true, false), [false, false, true, false]);
        assert_eq!(everywhere(7).map(|address| address.to_string())[2..], ["/ip6/::/udp/7/quic-v1", "/ip6/::/tcp/7"]);
        // One that the machine does not have the system itself complains of.
        assert_eq!(
            Protocols { v4: false, v6: false, v6_quic: false }.lacks(&"/ip4/192.168.1.5/tcp/1".parse().unwrap()),
            None
        );
    }
}
