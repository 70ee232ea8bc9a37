//! Ports that the router forwards (UPnP IGD): asked for, renewed, and given back.
//!
//! A forwarded port is a candidate only: it counts once somebody has dialed it from outside, for routers lie, and many
//! are behind another one. Routers forget when they restart, so that ports are asked for again and again; that is also
//! how a change of the outer address is noticed.

mod refusal;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

pub use self::refusal::{Refusal, RouterFault};
use super::tally::Tally;
use crate::limits::MAPPED_PORTS_MAX;
use crate::mesh::address::is_public;

/// How long a router may take to be found, and to answer one request.
const SEARCH: Duration = Duration::from_secs(4);
const REQUEST: Duration = Duration::from_secs(3);
/// For how long a port is asked for, in seconds, and how often it is asked for anew: a router that restarted is noticed
/// within this time.
const LEASE_S: u32 = 180;
const RENEW: Duration = Duration::from_secs(25);
/// When a router is looked for again that is not there.
const SEARCH_AGAIN: Duration = Duration::from_secs(120);
/// How long giving ports back may take.
const GIVE_BACK: Duration = Duration::from_secs(2);
/// Where routers are searched for (SSDP).
pub(in crate::mesh) const SSDP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);
/// What routers show beside the port.
const DESCRIPTION: &str = "aerolithsDB";

/// A port of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::mesh) struct Port {
    pub(in crate::mesh) udp: bool,
    pub(in crate::mesh) number: u16,
}

impl Port {
    fn protocol(self) -> PortMappingProtocol {
        if self.udp { PortMappingProtocol::UDP } else { PortMappingProtocol::TCP }
    }
}

/// A port that the router forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mesh) struct Forwarded {
    pub(in crate::mesh) port: Port,
    pub(in crate::mesh) external: SocketAddr,
}

/// What the router does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::mesh) enum Mapping {
    /// It is not asked.
    #[default]
    Off,
    /// It is being looked for.
    Searching,
    /// It does nothing for us, and why.
    Nothing(Refusal),
    /// It forwards these.
    Forwarded(Vec<Forwarded>),
}

/// Asks the router for ports, in a task of its own.
#[derive(Debug)]
pub(in crate::mesh) struct Mapper {
    /// Ports to forward; closed when they are to be given back.
    wanted: watch::Sender<Option<BTreeSet<Port>>>,
    state: watch::Receiver<Mapping>,
    refusals: Arc<Tally<RouterFault>>,
    task: JoinHandle<()>,
}

impl Mapper {
    /// Starts the task; the router is searched for at this address.
    pub(in crate::mesh) fn start(search_at: SocketAddr) -> Self {
        let wanted = watch::Sender::new(Some(BTreeSet::new()));
        let (sender, state) = watch::channel(Mapping::Searching);
        let refusals = Arc::new(Tally::default());
        let task = tokio::spawn(run(wanted.subscribe(), sender, search_at, refusals.clone()));
        Self { wanted, state, refusals, task }
    }

    /// Which ports are to be forwarded from now on.
    pub(in crate::mesh) fn want(&self, ports: BTreeSet<Port>) {
        self.wanted.send_if_modified(|wanted| {
            let ports = Some(ports.into_iter().take(MAPPED_PORTS_MAX).collect());
            let is_new = wanted.is_some() && *wanted != ports;
            if is_new {
                *wanted = ports;
            }
            is_new
        });
    }

    /// What the router does, and whenever that changes.
    pub(in crate::mesh) fn state(&self) -> watch::Receiver<Mapping> {
        self.state.clone()
    }

    /// How often the router did not do as asked, by reason.
    pub(in crate::mesh) fn refusals(&self) -> &Tally<RouterFault> {
        &self.refusals
    }

    /// Gives all ports back.
    pub(in crate::mesh) async fn shutdown(self) {
        self.wanted.send_replace(None);
        // A router that does not answer forgets them by itself.
        if timeout(GIVE_BACK, self.task).await.is_err() {
            tracing::debug!("the router did not take the ports back in time");
        }
    }
}

async fn run(
    mut wanted: watch::Receiver<Option<BTreeSet<Port>>>,
    state: watch::Sender<Mapping>,
    search_at: SocketAddr,
    refusals: Arc<Tally<RouterFault>>,
) {
    let mut asked = Asked { search_at, gateway: None, lost: true, held: Vec::new(), refusals };
    loop {
        let Some(ports) = wanted.borrow_and_update().clone() else { break };
        let known = !asked.lost;
        if !ports.is_empty() {
            state.send_if_modified(|state| {
                let was_off = *state == Mapping::Off;
                if was_off {
                    *state = Mapping::Searching;
                }
                was_off
            });
        }
        // A receiver of its own, so that a change that comes meanwhile is still one afterwards.
        let mut closing = wanted.clone();
        let outcome = tokio::select! {
            outcome = asked.have_forwarded(&ports) => outcome,
            // An error means that the mapper was dropped.
            _ = closing.wait_for(Option::is_none) => break,
        };
        let now = match outcome {
            Ok(_) if ports.is_empty() => Mapping::Off,
            Ok(forwarded) => Mapping::Forwarded(forwarded),
            Err(why) => Mapping::Nothing(why),
        };
        let pause = if known || !asked.lost { RENEW } else { SEARCH_AGAIN };
        state.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        tokio::select! {
            () = sleep(pause) => {}
            changed = wanted.changed() => if changed.is_err() { break },
        }
    }
    asked.give_back(&BTreeSet::new()).await;
}

/// A router, and what was had from it.
#[derive(Debug)]
struct Asked {
    /// Where routers are searched for.
    search_at: SocketAddr,
    gateway: Option<Gateway<Tokio>>,
    /// Whether it has to be searched for: it is not known, or the last time something went wrong with it.
    lost: bool,
    /// What it was made to forward and was not given back, also while it does not answer.
    held: Vec<Forwarded>,
    /// What it did not do.
    refusals: Arc<Tally<RouterFault>>,
}

impl Asked {
    /// Has the router forward these ports and no others, those that it forwards already with the outer ports that they
    /// have. A port that is refused costs no other one.
    async fn have_forwarded(&mut self, ports: &BTreeSet<Port>) -> Result<Vec<Forwarded>, Refusal> {
        self.give_back(ports).await;
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        if std::mem::replace(&mut self.lost, true) {
            self.search().await.inspect_err(|refusal| self.refusals.count(refusal.fault))?;
        }
        let (external, local) = self.outside().await.inspect_err(|refusal| self.refusals.count(refusal.fault))?;
        let forwarded = self.forward(ports, external, local).await?;
        self.lost = false;
        Ok(forwarded)
    }

    async fn search(&mut self) -> Result<(), Refusal> {
        let mut options = SearchOptions::default();
        options.broadcast_address = self.search_at;
        if !self.search_at.ip().is_multicast() {
            // It was named, so it may be where no router that was found would be believed.
            options.allowed_gateway_ips.push(self.search_at.ip());
        }
        let found = timeout(SEARCH, search_gateway(options)).await.map_err(|_| Refusal::absent())??;
        if self.gateway.as_ref().is_some_and(|before| before.addr.ip() != found.addr.ip()) {
            // Another network: nobody is there any more to take them back.
            self.held.clear();
        }
        self.gateway = Some(found);
        Ok(())
    }

    /// The router's outer address, and ours towards it.
    async fn outside(&self) -> Result<(IpAddr, IpAddr), Refusal> {
        let gateway = self.gateway.as_ref().ok_or_else(Refusal::absent)?;
        let external = timeout(REQUEST, gateway.get_external_ip()).await.map_err(|_| Refusal::silent())??;
        if !is_public(external) {
            return Err(Refusal::new(
                RouterFault::NotPublic,
                format!(
                    "the router's own address, {external}, is not a public one: it is behind another NAT, or says \
                     something wrong"
                ),
            ));
        }
        let no_way =
            |error| Refusal::new(RouterFault::Unreachable, format!("this machine has no way to the router: {error}"));
        Ok((external, local_ip(gateway.addr).map_err(no_way)?))
    }

    /// Counts what is refused.
    async fn forward(
        &mut self,
        ports: &BTreeSet<Port>,
        external: IpAddr,
        local: IpAddr,
    ) -> Result<Vec<Forwarded>, Refusal> {
        let gateway = self.gateway.as_ref().ok_or_else(Refusal::absent)?;
        let (mut forwarded, mut first) = (Vec::new(), None);
        for port in ports {
            let before = self.held.iter().find(|before| before.port == *port).map(|before| before.external.port());
            match add(gateway, *port, local, before.unwrap_or(port.number)).await {
                Ok(number) => {
                    let new = Forwarded { port: *port, external: SocketAddr::new(external, number) };
                    self.held.retain(|before| before.port != *port);
                    self.held.push(new);
                    forwarded.push(new);
                }
                Err(refusal) => {
                    self.refusals.count(refusal.fault);
                    // Nothing came back: nor will it for the next port.
                    if refusal.fault == RouterFault::Silent {
                        return Err(refusal);
                    }
                    tracing::debug!(port = port.number, udp = port.udp, why = refusal.why, "the router refuses a port");
                    first.get_or_insert(refusal);
                }
            }
        }
        match first {
            Some(refusal) if forwarded.is_empty() => Err(refusal),
            Some(_) | None => Ok(forwarded),
        }
    }

    /// Gives back what is held beside these ports.
    async fn give_back(&mut self, beside: &BTreeSet<Port>) {
        let Some(gateway) = &self.gateway else { return };
        while let Some(at) = self.held.iter().position(|held| !beside.contains(&held.port)) {
            let Forwarded { port, external } = self.held[at];
            // What it keeps ends with the lease.
            _ = timeout(REQUEST, gateway.remove_port(port.protocol(), external.port())).await;
            self.held.remove(at);
        }
    }
}

/// Asks for one port, with the outer number that is wanted, or another one when that is taken.
async fn add(gateway: &Gateway<Tokio>, port: Port, local: IpAddr, wanted: u16) -> Result<u16, Refusal> {
    let (protocol, local) = (port.protocol(), SocketAddr::new(local, port.number));
    let ask = |number, lease| timeout(REQUEST, gateway.add_port(protocol, number, local, lease, DESCRIPTION));
    let mut answer = ask(wanted, LEASE_S).await;
    if let Ok(Err(AddPortError::OnlyPermanentLeasesSupported)) = answer {
        // It knows no leases: the port is given back at the end, or stays.
        answer = ask(wanted, 0).await;
    }
    match answer {
        Ok(Ok(())) => Ok(wanted),
        Ok(Err(AddPortError::PortInUse)) => {
            let any = timeout(REQUEST, gateway.add_any_port(protocol, local, LEASE_S, DESCRIPTION)).await;
            match any.map_err(|_| Refusal::silent())?? {
                0 => Err(Refusal::said(RouterFault::Nonsense, &"it names port 0")),
                number => Ok(number),
            }
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Refusal::silent()),
    }
}

/// Our address towards the router.
fn local_ip(gateway: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if gateway.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Sends nothing; the system only chooses the way.
    socket.connect(gateway)?;
    Ok(socket.local_addr()?.ip())
}
