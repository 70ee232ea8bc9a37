//! When the NAT in front of this machine is looked at with STUN, and when this peer is a STUN server for others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use libp2p::{Multiaddr, PeerId as Libp2pId, identify};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::stun::{Behavior, Findings, Rejected, Responder, StunError, discover, serve};
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
    answering: Option<(BTreeSet<IpAddr>, Option<Responder>)>,
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
        self.answering.as_ref().and_then(|(_, responder)| responder.as_ref()).map(Responder::address)
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
        if self.nat.evidence.is_proven_public() || known.is_empty() && named.is_empty() {
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
        self.nat.probes.answering = None;
        let mut ips = own.iter().copied().filter(IpAddr::is_ipv4).chain(own.iter().copied().filter(IpAddr::is_ipv6));
        let Some(first) = ips.next() else { return };
        let second = ips.next().filter(|second| second.is_ipv4() == first.is_ipv4());
        // Binding waits for nothing.
        let served = serve(SocketAddr::new(first, port), second).now_or_never();
        let responder = match served {
            Some(Ok(responder)) => Some(responder),
            Some(Err(error)) => {
                tracing::info!(%error, port, "this peer answers no STUN requests (network.stun_port)");
                None
            }
            None => None,
        };
        self.nat.probes.answering = Some((own, responder));
    }
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
