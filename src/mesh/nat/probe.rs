//! When the NAT in front of this machine is looked at with STUN, and when this peer is a STUN server for others.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use libp2p::{Multiaddr, PeerId as Libp2pId, identify};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::stun::{Behavior, Findings, Rejected, Responder, Served, StunError, discover, serve};
use crate::mesh::address::endpoint;
use crate::mesh::driver::{Driver, Note};

/// How often the NAT is looked at.
const PROBE: Duration = Duration::from_secs(300);
/// How soon it is looked at when something changed: other things change with it.
const PROBE_SOON: Duration = Duration::from_secs(1);
/// How long the name of a server may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(3);
/// What an agent version has before the port of the STUN server.
const STUN_MARK: &str = " stun=";

/// What is known by STUN, and about STUN.
#[derive(Debug, Default)]
pub(in crate::mesh) struct Probes {
    /// Members that answer as STUN servers.
    servers: BTreeMap<Libp2pId, SocketAddr>,
    due: Option<Instant>,
    under_way: bool,
    last: Option<Result<Findings, StunError>>,
    rejected: Arc<Rejected>,
    /// Addresses of this machine on which others were to be answered, and what came of it.
    answering: Option<(BTreeSet<IpAddr>, Result<Responder, String>)>,
    /// What became of the requests to sockets that are closed.
    served_before: Served,
}

impl Probes {
    /// Has the NAT be looked at soon.
    pub(in crate::mesh) fn soon(&mut self) {
        let soon = Instant::now() + PROBE_SOON;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.under_way)
    }

    pub(super) fn gone(&mut self, peer: &Libp2pId) {
        self.servers.remove(peer);
    }

    /// What was found out last, in words.
    pub(super) fn said(&self) -> Option<String> {
        Some(match self.last.as_ref()? {
            Ok(found) => {
                let word = |behavior: Option<Behavior>| behavior.map_or("unknown", Behavior::as_str);
                let (mapping, filtering) = (word(found.mapping), word(found.filtering));
                format!("seen at {} by {}; mapping {mapping}, filtering {filtering}", found.mapped, found.server)
            }
            Err(error) => error.to_string(),
        })
    }

    /// Where this peer answers as a STUN server.
    pub(super) fn answering(&self) -> Option<SocketAddr> {
        self.answering.as_ref().and_then(|(_, responder)| responder.as_ref().ok()).map(Responder::address)
    }

    /// Why it answers nowhere though it should.
    pub(super) fn answering_fault(&self) -> Option<String> {
        self.answering.as_ref().and_then(|(_, responder)| responder.as_ref().err()).cloned()
    }

    /// What became of the requests of others.
    pub(super) fn served(&self) -> Served {
        let now = self.answering.as_ref().and_then(|(_, responder)| responder.as_ref().ok()).map(Responder::served);
        let (now, before) = (now.unwrap_or_default(), self.served_before);
        Served { answered: before.answered + now.answered, ignored: before.ignored + now.ignored }
    }

    /// Closes the sockets on which others were answered.
    fn stop_answering(&mut self) {
        self.served_before = self.served();
        self.answering = None;
    }

    /// Answers that were not believed, by reason.
    pub(super) fn rejected(&self) -> BTreeMap<&'static str, u64> {
        self.rejected.counts()
    }
}

/// How a peer calls itself, with the port of its STUN server.
pub(in crate::mesh) fn agent(name: &str, stun_port: u16) -> String {
    if stun_port == 0 { name.to_owned() } else { format!("{name}{STUN_MARK}{stun_port}") }
}

impl Driver {
    /// A connected peer that can be dialed from anywhere told who it is.
    pub(super) fn learn_stun_server(&mut self, peer: Libp2pId, remote: &Multiaddr, info: &identify::Info) {
        let port = info.agent_version.rsplit_once(STUN_MARK).and_then(|(_, port)| port.parse().ok());
        if let (Some(port), Some((at, _))) = (port, endpoint(remote))
            && self.nat.probes.servers.insert(peer, SocketAddr::new(at.ip(), port)).is_none()
        {
            self.nat.probes.soon();
        }
    }

    /// Looks at the NAT, when that is due.
    pub(super) fn probe(&mut self, now: Instant) {
        if self.nat.probes.due().is_none_or(|due| due > now) {
            return;
        }
        self.nat.probes.due = Some(now + PROBE);
        let known: Vec<SocketAddr> = self.nat.probes.servers.values().copied().collect();
        let named = self.nat.settings.stun_servers.clone();
        if self.nat.evidence.is_public_in(false) || known.is_empty() && named.is_empty() {
            return;
        }
        self.nat.probes.under_way = true;
        let (rejected, notes) = (self.nat.probes.rejected.clone(), self.notes.0.clone());
        self.tasks.spawn(async move {
            let found = look(&named, known, &rejected).await;
            // An error means that the driver is gone.
            _ = notes.send(Note::Probed(found)).await;
        });
    }

    pub(in crate::mesh) fn probed(&mut self, found: Result<Findings, StunError>) {
        self.nat.probes.under_way = false;
        match &found {
            Ok(Findings { mapping, .. }) => {
                self.nat.evidence.stun(true, mapping.map(|mapping| mapping == Behavior::EndpointIndependent));
            }
            Err(StunError::Silence(_)) => self.nat.evidence.stun(false, None),
            Err(StunError::NoServers | StunError::Io(_)) => {}
        }
        self.nat.probes.last = Some(found);
        self.reach_changed();
    }

    /// Answers others as a STUN server on the machine's own public addresses, while it has any.
    pub(super) fn answer_stun(&mut self) {
        let port = self.nat.settings.stun_port;
        let public = port != 0 && self.nat.evidence.is_public();
        let own: BTreeSet<IpAddr> = if public { self.nat.evidence.own_ips() } else { BTreeSet::new() };
        if self.nat.probes.answering.as_ref().map(|(on, _)| on).unwrap_or(&BTreeSet::new()) == &own {
            return;
        }
        // The former sockets are closed first.
        self.nat.probes.stop_answering();
        let mut ips = own.iter().copied().filter(IpAddr::is_ipv4).chain(own.iter().copied().filter(IpAddr::is_ipv6));
        let Some(first) = ips.next() else { return };
        let second = ips.next().filter(|second| second.is_ipv4() == first.is_ipv4());
        self.nat.probes.answering = Some((own, answer_at(SocketAddr::new(first, port), second)));
    }
}

/// Starts a STUN server; says what is in the way, and what to do.
fn answer_at(first: SocketAddr, second: Option<IpAddr>) -> Result<Responder, String> {
    let port = first.port();
    // Binding waits for nothing.
    let served = serve(first, second).now_or_never().unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()));
    served.map_err(|error| {
        let next = port.wrapping_add(1);
        let why = if error.kind() == io::ErrorKind::AddrInUse {
            format!("UDP port {port} or {next} on {} is in use by another program", first.ip())
        } else {
            format!("UDP ports {port} and {next} on {} cannot be had: {error}", first.ip())
        };
        tracing::info!(why, "this peer answers no STUN requests (network.stun_port)");
        why
    })
}

/// Resolves names, and asks.
async fn look(named: &[String], mut servers: Vec<SocketAddr>, rejected: &Rejected) -> Result<Findings, StunError> {
    for name in named {
        match timeout(RESOLVE, tokio::net::lookup_host(name)).await {
            Ok(Ok(found)) => servers.extend(found.filter(SocketAddr::is_ipv4).take(1)),
            Ok(Err(error)) => tracing::warn!(server = name, %error, "a STUN server has no address"),
            Err(_) => tracing::warn!(server = name, "the address of a STUN server is not found in time"),
        }
    }
    let socket = UdpSocket::bind("0.0.0.0:0").await.map_err(|error| StunError::Io(error.to_string()))?;
    discover(&socket, &servers, rejected).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_is_named() {
        let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = other.local_addr().unwrap();
        let why = answer_at(at, None).unwrap_err();
        assert!(why.contains(&format!("UDP port {}", at.port())) && why.contains("in use"), "{why}");
        let probes = Probes { answering: Some((BTreeSet::from([at.ip()]), Err(why.clone()))), ..Probes::default() };
        assert_eq!((probes.answering(), probes.answering_fault()), (None, Some(why)));
    }

    #[tokio::test]
    async fn what_was_served_is_counted_on_when_the_address_changes() {
        let responder = answer_at("127.0.0.1:0".parse().unwrap(), None);
        let mut probes = Probes { answering: Some((BTreeSet::new(), responder)), ..Probes::default() };
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(b"nonsense", probes.answering().unwrap()).await.unwrap();
        let counted = async {
            while probes.served().ignored == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), counted).await.unwrap();
        probes.stop_answering();
        assert_eq!((probes.answering(), probes.served()), (None, Served { answered: 0, ignored: 1 }));
    }
}
