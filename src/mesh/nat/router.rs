//! What the driver makes of the ports that the router forwards: candidates, which count once somebody has dialed them.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::Multiaddr;
use libp2p::core::multiaddr::Protocol;
use tokio::sync::watch;

use super::mapping::{Forwarded, Mapper, Mapping, Port, RouterFault, SSDP};
use super::report::RouterReport;
use super::tally::Tally;
use crate::mesh::address::{Scope, endpoint, is_direct, scope};
use crate::mesh::driver::Driver;

/// The router, as far as it is asked.
#[derive(Debug, Default)]
pub(in crate::mesh) struct Router {
    mapper: Option<Mapper>,
    state: Option<watch::Receiver<Mapping>>,
}

impl Router {
    /// Returns when the router does something else than before.
    pub(in crate::mesh) async fn changed(&mut self) {
        if let Some(state) = &mut self.state
            && state.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    fn mapping(&mut self) -> Mapping {
        self.state.as_mut().map_or(Mapping::Off, |state| state.borrow_and_update().clone())
    }

    /// What the router does; `is_dead` says of which addresses it is known that nobody is reached there.
    pub(super) fn report(&self, is_dead: impl Fn(&Multiaddr) -> bool) -> RouterReport {
        match self.state.as_ref().map(|state| state.borrow()).as_deref() {
            None | Some(Mapping::Off) => RouterReport::NotAsked,
            Some(Mapping::Searching) => RouterReport::Searching,
            Some(Mapping::Nothing(refusal)) => RouterReport::Nothing(refusal.clone()),
            Some(Mapping::Forwarded(ports)) => RouterReport::Forwarding {
                ports: ports.iter().map(forwarded).collect(),
                dead: ports.iter().map(address).filter(is_dead).map(|address| address.to_string()).collect(),
            },
        }
    }

    /// How often it did not do as asked, by reason.
    pub(super) fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.mapper
            .as_ref()
            .map_or_else(|| Tally::<RouterFault>::default().counts(), |mapper| mapper.refusals().counts())
    }

    /// Gives all ports back.
    pub(in crate::mesh) async fn shutdown(&mut self) {
        if let Some(mapper) = self.mapper.take() {
            mapper.shutdown().await;
        }
    }
}

fn forwarded(Forwarded { port, external }: &Forwarded) -> String {
    format!("{external}/{} to port {}", if port.udp { "udp" } else { "tcp" }, port.number)
}

/// The address at which others may reach a forwarded port.
fn address(Forwarded { port, external }: &Forwarded) -> Multiaddr {
    let ip = Multiaddr::from(external.ip());
    if port.udp {
        ip.with(Protocol::Udp(external.port())).with(Protocol::QuicV1)
    } else {
        ip.with(Protocol::Tcp(external.port()))
    }
}

impl Driver {
    /// Has the router forward the ports on which this peer listens, unless it is reached at an address of its own.
    pub(super) fn ask_router(&mut self) {
        if !self.nat.settings.upnp || self.closing {
            return;
        }
        let behind = |at: &&Multiaddr| is_direct(at) && scope(at) == Some(Scope::Network);
        let listening = self.swarm.listeners().filter(behind).filter_map(endpoint);
        let ports: BTreeSet<Port> =
            listening.filter(|(at, _)| at.is_ipv4()).map(|(at, udp)| Port { udp, number: at.port() }).collect();
        let wanted = if self.nat.evidence.is_public_in(false) { BTreeSet::new() } else { ports };
        if self.nat.router.mapper.is_none() && !wanted.is_empty() {
            let mapper = Mapper::start(SSDP);
            self.nat.router.state = Some(mapper.state());
            self.nat.router.mapper = Some(mapper);
        }
        if let Some(mapper) = &self.nat.router.mapper {
            mapper.want(wanted);
        }
    }

    /// The router does something else than before.
    pub(in crate::mesh) fn router_changed(&mut self) {
        let mapping = self.nat.router.mapping();
        let addresses: BTreeSet<Multiaddr> = match &mapping {
            Mapping::Forwarded(ports) => ports.iter().map(address).collect(),
            Mapping::Off | Mapping::Searching | Mapping::Nothing(_) => BTreeSet::new(),
        };
        tracing::debug!(router = ?mapping, "the router has changed");
        for again in self.nat.evidence.mapped(addresses.clone()) {
            // Somebody has dialed it before, and AutoNAT asks about no good address twice.
            self.swarm.add_external_address(again);
        }
        for candidate in addresses {
            self.swarm.behaviour_mut().link.candidate(candidate);
        }
        self.reach_changed();
    }
}
