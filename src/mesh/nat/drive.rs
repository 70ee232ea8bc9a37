//! What the driver does to reach peers and to be reached.

use std::io;
use std::time::Duration;

use libp2p::core::multiaddr::Protocol;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId as Libp2pId, dcutr, identify, relay};
use tokio::time::Instant;

use super::evidence::same_network;
use super::report::{AddressReport, ReachReport, RelayService, RouterReport};
use super::{Reachability, RelayFault};
use crate::limits::{LINGERING_MAX, RELAY_ADDRESSES_MAX, RELAY_DIALS_MAX, TICKET_ADDRESSES_MAX};
use crate::mesh::address::{
    Scope, best_first, endpoint, is_direct, is_same_way, matters, ours, relay_of, scope, split,
};
use crate::mesh::driver::{Connection, Driver};
use crate::mesh::link::SYMMETRIC;
use crate::node::Input;

/// How long a hole may take until the next attempt, doubled with each, and how many there are.
const PUNCH: Duration = Duration::from_secs(2);
const PUNCHES: u32 = 7;
/// How often the addresses are dialed that a peer names over a relay: it could name other people's, again and again.
const NAMED_MAX: usize = 5;
/// How soon those are dialed again that it named before: over each relayed connection it names the same.
const NAMED_AGAIN: Duration = Duration::from_secs(1);
/// How old what status calls show may be.
const REPORT: Duration = Duration::from_secs(5);
/// How long strangers stay connected who may want to go through us to somebody else, or to ask us something: time for
/// identify, a few pings and a few questions to the DHT.
const LINGER: Duration = Duration::from_secs(15);

impl Driver {
    /// A connected peer told who it is: what it offers, and how it sees us.
    pub(in crate::mesh) fn reach_identified(&mut self, on: ConnectionId, peer: Libp2pId, info: &identify::Info) {
        let Some(known) = self.connections.get(&on) else { return };
        let (remote, direct) = (known.remote.clone(), known.link.direct);
        if direct {
            self.nat.evidence.observed(on, peer, &remote, known.from_listening_port, &info.observed_addr);
            if info.protocols.contains(&relay::HOP_PROTOCOL_NAME) {
                self.nat.relays.offered(peer, self.relay_addresses(peer, &remote, info));
                self.learn_stun_server(peer, &remote, info);
            } else {
                self.nat.relays.gone(&peer);
            }
            self.look_from_outside(peer, &info.listen_addrs);
        } else {
            self.dial_directly(peer, &info.listen_addrs);
        }
        if info.protocols.contains(&SYMMETRIC) {
            self.nat.symmetric.insert(peer);
        } else {
            self.nat.symmetric.remove(&peer);
        }
        self.nat.identified.insert(peer);
        for (address, _) in self.nat.waiting.remove(&peer).unwrap_or_default() {
            self.dial(address);
        }
        self.reach_changed();
    }

    /// The addresses at which others can dial a relay, as far as is known: those at which it was dialed from here, and those
    /// that it names, unless they reach less far than the connection to it.
    fn relay_addresses(&self, relay: Libp2pId, remote: &Multiaddr, info: &identify::Info) -> Vec<Multiaddr> {
        let of_relay = self.connections.values().filter(|known| known.peer == relay && known.link.direct);
        let dialed = of_relay.filter(|known| known.link.dialed).map(|known| &known.remote);
        let named = info.listen_addrs.iter().filter(|address| is_direct(address) && scope(address) >= scope(remote));
        best_first(dialed.chain(named).map(|address| split(address.clone()).0), RELAY_ADDRESSES_MAX)
    }

    /// Dials a peer that is connected already. Whether that can even be tried makes no difference to what there is.
    pub(super) fn dial_besides(&mut self, peer: Libp2pId, addresses: Vec<Multiaddr>) {
        tracing::debug!(%peer, ?addresses, "dialing a connected peer");
        _ = self.swarm.dial(DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(addresses).build());
    }

    /// A peer is connected through a relay: the addresses that it names may be good without one.
    fn dial_directly(&mut self, peer: Libp2pId, addresses: &[Multiaddr]) {
        if self.is_direct_to(&peer) {
            return;
        }
        // All addresses of the link look as if they were on one; who is on it is found there.
        let near = self.swarm.listeners().filter(|address| matters(address)).filter_map(endpoint);
        let near: Vec<_> = near.map(|(at, _)| at.ip()).collect();
        let is_near = |address: &Multiaddr| {
            endpoint(address).is_some_and(|(at, _)| near.iter().any(|own| same_network(*own, at.ip())))
        };
        let is_worth = |address: &&Multiaddr| match scope(address) {
            Some(Scope::Public) => is_direct(address),
            Some(Scope::Network) => is_direct(address) && is_near(address),
            // Everybody has the addresses of the machine itself.
            Some(Scope::Machine) | None => false,
        };
        let addresses: Vec<Multiaddr> = addresses.iter().filter(is_worth).take(TICKET_ADDRESSES_MAX).cloned().collect();
        let (named, now) = (self.nat.named.entry(peer).or_default(), Instant::now());
        let is_news = |(at, before): &(Instant, Vec<Multiaddr>)| {
            *at + NAMED_AGAIN <= now || addresses.iter().any(|address| !before.contains(address))
        };
        if !addresses.is_empty() && named.len() < NAMED_MAX && named.last().is_none_or(is_news) {
            named.push((now, addresses.clone()));
            let is_udp = |address: &Multiaddr| endpoint(address).is_some_and(|(_, udp)| udp);
            let (udp, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_udp);
            if !udp.is_empty() {
                self.dial_besides(peer, udp);
            }
            if !others.is_empty() {
                // From another TCP port than the one we listen at: there is one connection between two ports at a time, and
                // punching holes needs that one. Where this address is good any port gets through.
                tracing::debug!(%peer, addresses = ?others, "dialing a connected peer from another port");
                let options = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(others);
                // As in dialing besides, there is what there is.
                _ = self.swarm.dial(options.allocate_new_port().build());
            }
        }
    }

    /// Somebody outside has reached this peer at an address: those that are connected through a relay can do so as well.
    pub(in crate::mesh) fn tell_relayed(&mut self, address: &Multiaddr) {
        if !is_direct(address) {
            return;
        }
        let relayed: Vec<Libp2pId> = self.links.keys().filter(|peer| !self.is_direct_to(peer)).copied().collect();
        self.swarm.behaviour_mut().identify.push(relayed);
    }

    fn is_direct_to(&self, peer: &Libp2pId) -> bool {
        self.connections.values().any(|known| known.peer == *peer && known.link.direct && !known.closing)
    }

    /// Dials an address through a relay, which is connected first. Says whether the address is dealt with.
    pub(in crate::mesh) fn dial_relay_first(&mut self, text: &str, address: &Multiaddr) -> bool {
        let Some(relay) = relay_of(address) else { return false };
        if !self.nat.settings.relay_client {
            self.dial_failed(text.into(), "relays are switched off here (network.relay.client)".into());
            return true;
        }
        if relay == *self.swarm.local_peer_id() {
            self.dial_failed(text.into(), "we are the relay: the peer has no direct connection to us".into());
            return true;
        }
        // A relay has several addresses, and one way through it to a peer is enough.
        if self.dials.values().any(|other| is_same_way(other, text)) {
            if self.nat.besides.len() >= RELAY_DIALS_MAX {
                self.nat.besides.pop_front();
            }
            self.nat.besides.push_back(text.into());
            return true;
        }
        // Only who knows its own address, as the relay sees it, can punch holes.
        if self.nat.identified.contains(&relay) {
            return false;
        }
        let bare: Multiaddr = address.iter().take_while(|part| !matches!(part, Protocol::P2p(_))).collect();
        let options = self.dial_options(relay, bare, PeerCondition::Always);
        let waiting = self.nat.waiting.entry(relay).or_default();
        if waiting.iter().any(|(other, _)| other == text) {
            return true;
        }
        if waiting.len() >= RELAY_DIALS_MAX {
            self.dial_failed(text.into(), "too many addresses wait for this relay".into());
            return true;
        }
        let is_connected = self.swarm.is_connected(&relay);
        let dial = (!is_connected).then_some(options.connection_id());
        waiting.push((text.into(), dial));
        if !is_connected && let Err(error) = self.swarm.dial(options) {
            self.relay_unreachable(&relay, dial, &crate::mesh::address::dial_error(&error));
        }
        true
    }

    /// A relay cannot be dialed: the addresses that wait for this dial of it are of no use, or all that wait for the relay
    /// when none is given.
    pub(in crate::mesh) fn relay_unreachable(&mut self, relay: &Libp2pId, dial: Option<ConnectionId>, why: &str) {
        if self.swarm.is_connected(relay) {
            return;
        }
        let Some(waiting) = self.nat.waiting.remove(relay) else { return };
        let is_over = |(_, other): &(String, Option<ConnectionId>)| dial.is_none() || *other == dial;
        let (over, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_over);
        if !others.is_empty() {
            self.nat.waiting.insert(*relay, others);
        }
        for (address, _) in over {
            self.dial_failed(address, format!("its relay cannot be reached: {why}"));
        }
    }

    /// Addresses that were left aside because this one leads the same way: what becomes of it becomes of them.
    pub(in crate::mesh) fn left_aside(&mut self, address: &str) -> Vec<String> {
        let (same, others) =
            std::mem::take(&mut self.nat.besides).into_iter().partition(|other| is_same_way(other, address));
        self.nat.besides = others;
        same.into()
    }

    /// A connection is gone.
    pub(in crate::mesh) fn reach_closed(&mut self, peer: Libp2pId, connection: ConnectionId) {
        self.nat.evidence.closed(connection);
        if !self.swarm.is_connected(&peer) {
            // Strangers that have left make room, too.
            self.nat.lingering.retain(|(_, other)| *other != peer);
            self.nat.identified.remove(&peer);
            self.nat.symmetric.remove(&peer);
            self.nat.named.remove(&peer);
            self.nat.relays.gone(&peer);
            self.nat.probes.gone(&peer);
            self.relay_unreachable(&peer, None, "it closed the connection");
        }
        self.reach_changed();
    }

    /// Whether something goes through the connections of a peer, or is about to.
    pub(in crate::mesh) fn carries(&self, peer: &Libp2pId) -> bool {
        let through = |address: &Multiaddr| relay_of(address) == Some(*peer);
        let circuits = self.nat.circuits.get(peer).is_some_and(|circuits| *circuits > 0);
        let dials = || self.dials.values().filter_map(|text| text.parse().ok()).any(|address| through(&address));
        circuits
            || self.nat.waiting.contains_key(peer)
            || self.connections.values().any(|known| through(&known.remote))
            || dials()
    }

    /// Has a peer without a session stay connected for a while: it may be on its way through us, or we through it, or it
    /// may speak no more than the DHT's protocol. Once for each peer, so that those through whom something goes cannot
    /// pile up, and that nobody makes room for itself.
    pub(in crate::mesh) fn keep_for_now(&mut self, peer: Libp2pId) {
        self.nat.lingering.retain(|(_, other)| *other != peer);
        if self.nat.lingering.len() >= LINGERING_MAX
            && let Some((_, oldest)) = self.nat.lingering.pop_front()
        {
            self.part_from_stranger(oldest);
        }
        self.stay(peer);
    }

    fn stay(&mut self, peer: Libp2pId) {
        self.nat.lingering.push_back((Instant::now() + LINGER, peer));
    }

    fn part_from_stranger(&mut self, peer: Libp2pId) {
        if self.links.contains_key(&peer) {
            return;
        }
        if self.carries(&peer) {
            self.stay(peer);
        } else {
            self.shut_all(peer);
        }
    }

    /// Something about relaying for others. What fails is in libp2p's log.
    pub(in crate::mesh) fn relay_event(&mut self, event: &relay::Event) {
        if let relay::Event::ReservationReqAccepted { src_peer_id, .. } = event {
            self.nat.slots.insert(*src_peer_id);
        } else if let relay::Event::ReservationClosed { src_peer_id }
        | relay::Event::ReservationTimedOut { src_peer_id } = event
        {
            self.nat.slots.remove(src_peer_id);
        } else if let relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } = event {
            [src_peer_id, dst_peer_id].into_iter().for_each(|peer| *self.nat.circuits.entry(*peer).or_default() += 1);
        } else if let relay::Event::CircuitClosed { src_peer_id, dst_peer_id, .. } = event {
            for peer in [src_peer_id, dst_peer_id] {
                if let Some(circuits) = self.nat.circuits.get_mut(peer) {
                    *circuits = circuits.saturating_sub(1);
                }
            }
            self.nat.circuits.retain(|_, circuits| *circuits > 0);
        } else if let relay::Event::ReservationReqDenied { status: relay::StatusCode::ResourceLimitExceeded, .. } =
            event
        {
            self.nat.denied.0 += 1;
        } else if let relay::Event::CircuitReqDenied { status: relay::StatusCode::ResourceLimitExceeded, .. } = event {
            self.nat.denied.1 += 1;
        }
        self.reach_changed();
    }

    pub(in crate::mesh) fn relay_client_event(&mut self, event: relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. } = event {
            self.nat.relays.accepted(&relay_peer_id);
            if !renewal {
                // Others may be reached through it who were not before.
                self.shared.notices.push(Input::NetworkChanged);
            }
            // Others learn of the new address when they are told, or find it in the DHT.
            self.search_soon();
        }
        self.reach_changed();
    }

    /// A listener ended; when it was a slot on a relay, another relay is asked.
    pub(in crate::mesh) fn listener_closed(&mut self, listener: ListenerId, reason: Result<(), io::Error>) {
        let fault = reason.err().and_then(|error| RelayFault::below(&error)).unwrap_or(RelayFault::Broken);
        if let Some(relay) = self.nat.relays.closed(listener, Some(fault), Instant::now()) {
            tracing::debug!(%relay, ?fault, "the slot on a relay is gone");
        }
        self.reach_changed();
    }

    pub(in crate::mesh) fn punched(&mut self, event: dcutr::Event) {
        let peer = event.remote_peer_id;
        tracing::debug!(%peer, result = ?event.result, "punching holes");
        match event.result {
            Ok(_) => self.nat.punches.succeeded += 1,
            // A side may fail while the other has got through.
            Err(_) if self.is_direct_to(&peer) => self.nat.punches.succeeded += 1,
            Err(error) => {
                self.nat.punches.failed += 1;
                self.nat.punches.last_failure = Some(format!("{peer}: {}", crate::mesh::address::root(&error)));
            }
        }
        self.reach_changed();
    }

    /// Does what follows from new evidence.
    pub(in crate::mesh) fn reach_changed(&mut self) {
        self.nat.evidence.listening(self.swarm.listeners());
        self.nat.evidence.connected(self.connections.values().map(|known| &known.remote));
        for stale in self.nat.evidence.expire() {
            tracing::debug!(address = %stale, "an address is no longer ours");
            self.swarm.remove_external_address(&stale);
        }
        self.announce_own();
        self.answer_stun();
        self.ask_router();
        let serves = self.serves();
        if let Some(service) = self.swarm.behaviour_mut().relay.as_mut() {
            service.switch(serves);
        }
        self.tend_slots();
        self.announce_circuits();
        self.publish_addresses();
        let is_symmetric = self.nat.evidence.reachability() == Reachability::Symmetric;
        self.swarm.behaviour_mut().link.say_symmetric(is_symmetric);
        self.report_reach();
    }

    fn report_reach(&mut self) {
        self.nat.reported = Instant::now();
        self.shared.reach.send_replace(self.reach_report());
    }

    /// Announces all addresses of the relays that hold a slot for this peer: some of them are of no use to others, who have
    /// another protocol, or no UDP. The swarm itself names the one at which a relay was asked.
    fn announce_circuits(&mut self) {
        let circuits = self.nat.relays.circuits(*self.swarm.local_peer_id());
        for address in circuits.difference(&self.nat.circuits_announced) {
            self.swarm.add_external_address(address.clone());
        }
        for address in self.nat.circuits_announced.difference(&circuits) {
            self.swarm.remove_external_address(address);
        }
        self.nat.circuits_announced = circuits;
    }

    /// Whether this peer relays for others now.
    fn serves(&self) -> bool {
        self.nat.settings.relay_server && (self.nat.evidence.is_public() || self.nat.evidence.is_mapped())
    }

    /// Takes slots on relays, or gives them up.
    pub(in crate::mesh) fn tend_slots(&mut self) {
        let now = Instant::now();
        let wanted = self.nat.settings.relay_client && !self.nat.evidence.is_public_to_all() && !self.closing;
        let over = if wanted { self.nat.relays.overdue(now) } else { self.nat.relays.given() };
        for listener in over {
            self.swarm.remove_listener(listener);
            self.nat.relays.closed(listener, wanted.then_some(RelayFault::Silent), now);
        }
        while wanted && let Some((relay, address)) = self.nat.relays.next(now) {
            let slot = address.with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(slot) {
                Ok(listener) => self.nat.relays.asked(listener, relay, now),
                Err(error) => {
                    tracing::debug!(%relay, %error, "a relay cannot be asked");
                    self.nat.relays.failed(relay, Some(RelayFault::Unreachable), now);
                }
            }
        }
    }

    /// When something about reaching is due.
    pub(in crate::mesh) fn reach_due(&self) -> Option<Instant> {
        let lingering = self.nat.lingering.front().map(|(until, _)| *until);
        let again = self.nat.again.values().map(|(_, at)| *at);
        let others = self
            .nat
            .probes
            .due()
            .into_iter()
            .chain(self.nat.retry)
            .chain([self.nat.watch.due(), self.nat.reported + REPORT]);
        self.nat.relays.due().into_iter().chain(lingering).chain(again).chain(others).min()
    }

    /// A session goes through a relay: holes are being punched, and will be once more when nothing comes of it.
    pub(in crate::mesh) fn punch_later(&mut self, peer: Libp2pId) {
        if self.nat.settings.hole_punching {
            self.nat.again.insert(peer, (0, Instant::now() + PUNCH));
        }
    }

    /// Dials peers through their relays once more whose sessions go through one: both sides then punch anew.
    fn punch_again(&mut self, now: Instant) {
        let due: Vec<(Libp2pId, u32)> =
            self.nat.again.iter().filter(|(_, (_, at))| *at <= now).map(|(peer, (times, _))| (*peer, *times)).collect();
        for (peer, times) in due {
            self.nat.again.remove(&peer);
            let Some(linked) = self.links.get(&peer) else { continue };
            let Some(known) = self.connections.get(&linked.connection).filter(|known| !known.link.direct) else {
                continue;
            };
            let (address, dialed) = (split(known.remote.clone()).0, known.link.dialed);
            let next = (times + 1 < PUNCHES).then(|| (peer, (times + 1, now + PUNCH * (2 << times))));
            // Those of the attempts before serve nothing.
            let spare = |(id, other): &(&ConnectionId, &Connection)| {
                other.peer == peer && !linked.uses(**id) && !other.link.direct
            };
            let spare: Vec<_> = self.connections.iter().filter(spare).map(|(id, _)| *id).collect();
            spare.into_iter().for_each(|id| self.shut(id));
            if self.move_elsewhere(peer) {
                self.nat.again.extend(next);
            } else if dialed {
                self.dial_besides(peer, vec![address]);
                self.nat.again.extend(next);
            }
        }
    }

    pub(in crate::mesh) fn reach_tend(&mut self) {
        let now = Instant::now();
        while let Some((_, peer)) = self.nat.lingering.pop_front_if(|(until, _)| *until <= now) {
            self.part_from_stranger(peer);
        }
        if self.nat.relays.due().is_some_and(|due| due <= now) {
            self.tend_slots();
        }
        self.watch_network(now);
        self.punch_again(now);
        self.probe(now);
        self.try_again(now);
        if self.nat.reported + REPORT <= now {
            self.report_reach();
        }
    }

    fn reach_report(&self) -> ReachReport {
        let evidence = &self.nat.evidence;
        let listed = |address: String, source, state: String| AddressReport { address, source, state };
        let mut addresses = Vec::new();
        for address in self.swarm.listeners().filter(|address| is_direct(address)) {
            let is_claim = evidence.claimed().any(|claimed| claimed == address) && !evidence.is_refuted(address);
            addresses.push(listed(address.to_string(), "listening", if is_claim { "unconfirmed" } else { "" }.into()));
        }
        let has_come = |address: &Multiaddr| {
            let is_v6 = |address: &Multiaddr| endpoint(address).map(|(at, _)| at.is_ipv6());
            self.swarm.listeners().any(|other| is_v6(other) == is_v6(address))
        };
        for (address, why) in self.nat.left_out.iter().filter(|(address, _)| !has_come(address)) {
            addresses.push(listed(address.to_string(), "left_out", (*why).to_owned()));
        }
        for address in self.swarm.external_addresses() {
            let source = if !is_direct(address) {
                "relay"
            } else if evidence.is_mapped_at(address) {
                "mapped"
            } else if evidence.confirmed().any(|confirmed| confirmed == address) {
                "confirmed"
            } else if self.nat.announced.contains(address) {
                "own"
            } else {
                "configured"
            };
            addresses.push(listed(address.to_string(), source, "announced".into()));
        }
        for (address, why) in evidence.refuted() {
            addresses.push(listed(address.to_string(), "refuted", why.clone()));
        }
        for ((at, transport), peers) in evidence.seen() {
            addresses.push(listed(format!("{at}/{transport}"), "observed", format!("seen by {peers}")));
        }
        let (slots_refused, circuits_refused) = self.nat.relays.refused();
        let mut symmetric: Vec<_> = self.nat.symmetric.iter().filter_map(ours).collect();
        symmetric.sort_unstable();
        ReachReport {
            reachability: evidence.reachability(),
            addresses,
            is_mapping_known: evidence.is_stable().is_some(),
            udp: evidence.udp(),
            handshakes_stalled: self.nat.stalls.count(),
            relays_known: self.nat.relays.known(),
            relays_full: self.nat.relays.full(),
            relays: self.nat.relays.held().filter_map(ours).collect(),
            relay_slots_refused: slots_refused.counts(),
            relay_circuits_refused: circuits_refused.counts(),
            symmetric,
            service: self.service_report(),
            punches: self.nat.punches.clone(),
            router: if self.nat.settings.upnp {
                self.nat.router.report(|address| evidence.is_refuted(address))
            } else {
                RouterReport::Off
            },
            router_refused: self.nat.router.refused(),
            stun: self.nat.probes.said(),
            stun_server: self.nat.probes.answering(),
            stun_server_fault: self.nat.probes.answering_fault(),
            stun_served: self.nat.probes.served(),
            stun_rejected: self.nat.probes.rejected(),
        }
    }

    fn service_report(&self) -> RelayService {
        let (slots_denied, circuits_denied) = self.nat.denied;
        RelayService {
            enabled: self.serves(),
            slots: self.nat.slots.len(),
            slots_max: self.nat.settings.relay_slots,
            circuits: self.nat.circuits.values().sum::<usize>() / 2,
            circuits_max: self.nat.settings.relay_circuits,
            slots_denied,
            circuits_denied,
        }
    }
}
