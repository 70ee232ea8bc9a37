//! Finding peers: mDNS on the LAN, provider records under the mesh's id in the DHT, and what peers say of
//! themselves. Everything found is a hint to dial, nothing more: who a peer is and what it may do shows
//! when it is connected.
//!
//! mDNS asks over IPv4 and IPv6, each by a behaviour of its own. Over IPv6 libp2p asks on one network interface only, the one
//! that the system prefers.

use std::collections::HashMap;

use libp2p::core::Endpoint;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, GetProvidersOk, QueryResult, RecordKey};
use libp2p::swarm::{ConnectionId, NetworkBehaviour};
use libp2p::{Multiaddr, PeerId as Libp2pId, identify, mdns};
use tokio::time::{Duration, Instant};

use super::address::{Scope, ours, reachable, scope};
use super::driver::Driver;
use super::link;
use crate::limits::TICKET_ADDRESSES_MAX;
use crate::node::Input;

/// How often the DHT is asked for peers of the mesh.
const SEARCH: Duration = Duration::from_secs(60);
/// How soon it is asked again when there is a new neighbour in the DHT. Peers that start together may ask before the
/// others are announced, so the first pauses after a start or in a new mesh are short as well: each is three times the one
/// before.
pub(super) const SEARCH_SOON: Duration = Duration::from_millis(200);

impl Driver {
    /// A peer said at which addresses it listens.
    pub(super) fn identified(&mut self, connection: ConnectionId, peer: Libp2pId, info: identify::Info) {
        // An address is of use to us only if it reaches as far as the connection over which it was told.
        let at = self.connections.get(&connection).and_then(|known| scope(&known.remote)).unwrap_or(Scope::Public);
        self.reach_identified(connection, peer, &info);
        // Who speaks the DHT's protocol and not ours is of use there only.
        let is_ours = info.protocols.contains(&link::PROTOCOL);
        let hints = if is_ours { info.listen_addrs.clone() } else { Vec::new() };
        let found = reachable(hints, at, &peer, TICKET_ADDRESSES_MAX);
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
            && kad.protocol_names().iter().any(|protocol| info.protocols.contains(protocol))
        {
            for address in info.listen_addrs.into_iter().filter(|address| scope(address).is_some_and(|s| s >= at)) {
                kad.add_address(&peer, address);
            }
        }
        self.found(peer, found);
    }

    pub(super) fn mdns(&self, event: mdns::Event) {
        // Records that expire need nothing: addresses that fail are forgotten by themselves.
        let mdns::Event::Discovered(found) = event else { return };
        let mut by_peer: HashMap<Libp2pId, Vec<Multiaddr>> = HashMap::new();
        for (peer, address) in found {
            by_peer.entry(peer).or_default().push(address);
        }
        let at = self.distance();
        for (peer, addresses) in by_peer {
            let addresses = reachable(addresses, at, &peer, TICKET_ADDRESSES_MAX);
            self.found(peer, addresses);
        }
    }

    pub(super) fn kad(&mut self, event: kad::Event) {
        if let kad::Event::RoutingUpdated { is_new_peer: true, .. } = event {
            return self.search_soon();
        }
        let kad::Event::OutboundQueryProgressed { result, .. } = event else { return };
        if let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { key, providers })) = result {
            for peer in providers {
                self.provider(&key, peer);
            }
        }
    }

    /// A peer has our mesh in the DHT: its addresses are in the query that found it, or in our own store.
    fn provider(&mut self, key: &RecordKey, peer: Libp2pId) {
        if peer == *self.swarm.local_peer_id() {
            return;
        }
        let at = self.distance();
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else { return };
        let nothing = ConnectionId::new_unchecked(usize::MAX);
        // Asks what kad would dial; no connection follows from it.
        let known = kad.handle_pending_outbound_connection(nothing, Some(peer), &[], Endpoint::Dialer);
        let mut addresses = known.unwrap_or_default();
        let stored = kad.store_mut().providers(key).into_iter().filter(|record| record.provider == peer);
        addresses.extend(stored.flat_map(|record| record.addresses));
        let addresses = reachable(addresses, at, &peer, TICKET_ADDRESSES_MAX);
        self.found(peer, addresses);
    }

    /// Announces this peer under the mesh's id, and asks who else is there.
    pub(super) fn search(&mut self) {
        self.search_at = Instant::now() + self.search_pause;
        self.search_pause = (self.search_pause * 3).min(SEARCH);
        let key = RecordKey::new(self.context.borrow().mesh.as_bytes());
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else { return };
        if let Err(error) = kad.start_providing(key.clone()) {
            tracing::warn!(%error, "this peer cannot be announced in the DHT");
        }
        kad.get_providers(key);
    }

    /// Has this peer be announced anew, and others be searched for, soon.
    pub(super) fn search_soon(&mut self) {
        self.search_at = self.search_at.min(Instant::now() + SEARCH_SOON);
    }

    /// Stops announcing the mesh that was left, and searches in the new one.
    pub(super) fn search_anew(&mut self, left: crate::base::MeshId) {
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            kad.stop_providing(&RecordKey::new(left.as_bytes()));
        }
        self.search_at = Instant::now();
        self.search_pause = SEARCH_SOON;
    }

    fn found(&self, peer: Libp2pId, addresses: Vec<String>) {
        if let Some(peer) = ours(&peer)
            && !addresses.is_empty()
        {
            self.shared.notices.push(Input::Discovered(peer, addresses));
        }
    }

    /// The nearest addresses that are of use: a peer that listens on loopback only is alone on its machine.
    fn distance(&self) -> Scope {
        let alone = self.swarm.listeners().all(|address| scope(address) == Some(Scope::Machine));
        if alone { Scope::Machine } else { Scope::Network }
    }
}
