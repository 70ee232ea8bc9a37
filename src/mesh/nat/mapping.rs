//! Ports that the router forwards (UPnP IGD): asked for, renewed, and given back.
//!
//! A forwarded port is a candidate only: it counts once somebody has dialed it from outside, for routers lie, and many
//! are behind another one. Routers forget when they restart, so that ports are asked for again and again; that is also
//! how a change of the outer address is noticed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

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
    Nothing(String),
    /// It forwards these.
    Forwarded(Vec<Forwarded>),
}

/// Asks the router for ports, in a task of its own.
#[derive(Debug)]
pub(in crate::mesh) struct Mapper {
    /// Ports to forward; closed when they are to be given back.
    wanted: watch::Sender<Option<BTreeSet<Port>>>,
    state: watch::Receiver<Mapping>,
    task: JoinHandle<()>,
}

impl Mapper {
    /// Starts the task; the router is searched for at this address.
    pub(in crate::mesh) fn start(search_at: SocketAddr) -> Self {
        let wanted = watch::Sender::new(Some(BTreeSet::new()));
        let (sender, state) = watch::channel(Mapping::Searching);
        let task = tokio::spawn(run(wanted.subscribe(), sender, search_at));
        Self { wanted, state, task }
    }

    /// Which ports are to be forwarded from now on.
    pub(in crate::mesh) fn want(&self, ports: BTreeSet<Port>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.as_ref() != Some(&ports);
            if is_new && wanted.is_some() {
                *wanted = Some(ports.into_iter().take(MAPPED_PORTS_MAX).collect());
            }
            is_new
        });
    }

    /// What the router does, and whenever that changes.
    pub(in crate::mesh) fn state(&self) -> watch::Receiver<Mapping> {
        self.state.clone()
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
) {
    let mut forwarded = Vec::new();
    let mut gateway = None;
    loop {
        let Some(ports) = wanted.borrow_and_update().clone() else { break };
        let (now, pause) = if ports.is_empty() {
            (Mapping::Searching, RENEW)
        } else {
            match forward(&mut gateway, search_at, &ports, &forwarded).await {
                Ok(held) => {
                    forwarded = held;
                    (Mapping::Forwarded(forwarded.clone()), RENEW)
                }
                Err(why) => {
                    forwarded.clear();
                    let pause = if gateway.take().is_some() { RENEW } else { SEARCH_AGAIN };
                    (Mapping::Nothing(why), pause)
                }
            }
        };
        state.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        tokio::select! {
            () = sleep(pause) => {}
            changed = wanted.changed() => if changed.is_err() { break },
        }
    }
    if let Some(gateway) = gateway {
        for Forwarded { port, external } in forwarded {
            // What it keeps ends with the lease.
            _ = timeout(REQUEST, gateway.remove_port(port.protocol(), external.port())).await;
        }
    }
}

/// Has the router forward these ports, those that it forwards already with the outer ports that they have.
async fn forward(
    known: &mut Option<Gateway<Tokio>>,
    search_at: SocketAddr,
    ports: &BTreeSet<Port>,
    held: &[Forwarded],
) -> Result<Vec<Forwarded>, String> {
    if known.is_none() {
        let mut options = SearchOptions::default();
        options.broadcast_address = search_at;
        let found = timeout(SEARCH, search_gateway(options)).await;
        let found = found.map_err(|_| "no UPnP router answers".to_owned())?;
        *known = Some(found.map_err(|error| format!("no UPnP router answers ({error})"))?);
    }
    let Some(gateway) = known else { return Err("no UPnP router answers".into()) };
    let external = in_time(gateway.get_external_ip()).await?;
    if !is_public(external) {
        return Err(format!(
            "the router's own address, {external}, is not a public one: it is behind another NAT, or says something wrong"
        ));
    }
    let local = local_ip(gateway.addr).map_err(|error| format!("this machine has no way to the router: {error}"))?;
    let mut forwarded = Vec::new();
    for port in ports {
        let before = held.iter().find(|before| before.port == *port).map(|before| before.external.port());
        let number = add(gateway, *port, local, before.unwrap_or(port.number)).await?;
        forwarded.push(Forwarded { port: *port, external: SocketAddr::new(external, number) });
    }
    Ok(forwarded)
}

/// Asks for one port, with the outer number that is wanted, or another one when that is taken.
async fn add(gateway: &Gateway<Tokio>, port: Port, local: IpAddr, wanted: u16) -> Result<u16, String> {
    let (protocol, local) = (port.protocol(), SocketAddr::new(local, port.number));
    let ask = |number, lease| timeout(REQUEST, gateway.add_port(protocol, number, local, lease, DESCRIPTION));
    match ask(wanted, LEASE_S).await {
        Ok(Ok(())) => Ok(wanted),
        // It knows no leases: the port is given back at the end, or stays.
        Ok(Err(AddPortError::OnlyPermanentLeasesSupported)) => match ask(wanted, 0).await {
            Ok(Ok(())) => Ok(wanted),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => Err(silent()),
        },
        Ok(Err(AddPortError::PortInUse)) => in_time(gateway.add_any_port(protocol, local, LEASE_S, DESCRIPTION)).await,
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(silent()),
    }
}

async fn in_time<T, E: std::fmt::Display>(request: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    timeout(REQUEST, request).await.map_err(|_| silent())?.map_err(|error| refused(&error))
}

fn refused(error: &dyn std::fmt::Display) -> String {
    format!("the router does not forward ports: {error}")
}

fn silent() -> String {
    "the router does not answer in time".into()
}

/// Our address towards the router.
fn local_ip(gateway: SocketAddr) -> std::io::Result<IpAddr> {
    let any: IpAddr = if gateway.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Sends nothing; the system only chooses the way.
    socket.connect(gateway)?;
    Ok(socket.local_addr()?.ip())
}
