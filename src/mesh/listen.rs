//! Listening addresses: which there are, and what is wrong with one.

use std::io;
use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::time::Duration;

use libp2p::Multiaddr;
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
    /// Where it is reached from outside.
    pub(super) external: Vec<String>,
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
        while UdpSocket::bind(address).is_err() && Instant::now() < deadline {
            sleep(FREE_CHECK).await;
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
