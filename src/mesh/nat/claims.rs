//! What the driver does about the addresses of this machine: it has others try them out, and announces those at which
//! somebody has arrived.

use std::collections::BTreeSet;
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId as Libp2pId, autonat};
use tokio::time::Instant;

use super::evidence::Lane;
use crate::mesh::address::{Scope, is_direct, scope};
use crate::mesh::driver::Driver;

/// How long it counts that nobody could dial an address, until that is tried again.
const RETRY: Duration = Duration::from_secs(600);

impl Driver {
    /// A connection is open. Whoever comes by itself shows that it can.
    pub(in crate::mesh) fn reach_established(&mut self, peer: Libp2pId, on: ConnectionId, endpoint: &ConnectedPoint) {
        let remote = endpoint.get_remote_address();
        self.note_path(on, remote);
        let is_invited = self.connections.values().any(|known| known.peer == peer && known.link.dialed)
            || self.swarm.behaviour().autonat.lets_in(remote);
        if endpoint.is_dialer() || is_invited {
            return;
        }
        let before = self.nat.evidence.open();
        self.nat.evidence.arrived(remote);
        if self.nat.evidence.open() != before {
            self.reach_changed();
        }
    }

    /// Has a peer outside tell how it sees us in each protocol over UDP and over TCP, and try out our addresses, by dialing
    /// it over all of them: two peers punch holes only where both know their own address over the same one.
    pub(super) fn look_from_outside(&mut self, peer: Libp2pId, addresses: &[Multiaddr]) {
        if !self.nat.settings.relay_client || !self.nat.settings.hole_punching {
            return;
        }
        for lane in Lane::ALL {
            if !self.nat.evidence.is_unseen_over(lane) {
                continue;
            }
            let is_unseen = |address: &&Multiaddr| {
                scope(address) == Some(Scope::Public) && is_direct(address) && Lane::of(address) == Some(lane)
            };
            if let Some(address) = addresses.iter().find(is_unseen) {
                self.dial_besides(peer, vec![address.clone()]);
            }
        }
    }

    /// Announces the addresses of this machine itself at which it is reached, and has others try out the rest. Those are
    /// where holes are punched meanwhile: behind a firewall nobody sees us at another address.
    pub(super) fn announce_own(&mut self) {
        let own: BTreeSet<Multiaddr> = self.nat.evidence.open();
        for address in own.difference(&self.nat.announced) {
            self.swarm.add_external_address(address.clone());
        }
        for address in self.nat.announced.difference(&own) {
            self.swarm.remove_external_address(address);
        }
        self.nat.announced = own;
        let claimed: BTreeSet<Multiaddr> = self.nat.evidence.claimed().cloned().collect();
        for address in claimed.difference(&self.nat.proposed) {
            self.swarm.behaviour_mut().link.candidate(address.clone());
        }
        self.nat.proposed = claimed;
    }

    /// An AutoNAT server tried one of our addresses.
    pub(in crate::mesh) fn tried(&mut self, event: autonat::v2::client::Event) {
        let autonat::v2::client::Event { tested_addr, result, server, .. } = event;
        tracing::debug!(address = %tested_addr, %server, ?result, "an address was tried from outside");
        if result.is_err() {
            self.nat.retry.get_or_insert_with(|| Instant::now() + RETRY);
        }
        self.nat.evidence.tried(&tested_addr, result.map_err(|error| error.to_string()));
        self.reach_changed();
    }

    /// Has addresses tried again at which nobody was reached: that may have been bad luck, or a server that lies. Until
    /// there is another verdict the former one counts.
    pub(super) fn try_again(&mut self, now: Instant) {
        if self.nat.retry.is_none_or(|at| at > now) {
            return;
        }
        let again = self.nat.evidence.worth_another_try();
        self.nat.retry = (!again.is_empty()).then(|| now + RETRY);
        if !again.is_empty() {
            self.swarm.behaviour_mut().autonat.ask_again(again);
        }
    }

    /// This machine is on another network: what was found out on the one before says nothing here.
    pub(in crate::mesh) fn forget_verdicts(&mut self) {
        self.nat.evidence.forget_refuted();
        self.nat.retry = None;
        let mut again = self.nat.evidence.mapped_addresses();
        again.extend(self.nat.evidence.claimed().cloned());
        self.swarm.behaviour_mut().autonat.ask_again(again);
    }
}
