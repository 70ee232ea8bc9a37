//! Relays, and the move to a direct connection, with real connections on loopback.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Settings;
use crate::base::{Hash, MeshId, PeerId, Timestamp};
use crate::identity::Keypair;
use crate::mesh::{Config, Handle, start};
use crate::node::{DropReason, Effect, Input, MeshContext};
use crate::sync::gossip::Secret;
use crate::sync::{Hello, Message};

/// How long anything may take; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

struct Peer {
    id: PeerId,
    handle: Handle,
    inputs: mpsc::Receiver<Input>,
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Peer {
    async fn start(seed: u8, listen: Vec<String>, external_addresses: Vec<String>, nat: Settings) -> Self {
        let keypair = Keypair::from_seed([seed; 32]);
        let id = keypair.peer_id();
        let context = MeshContext { mesh: MeshId([1; 32]), name: "test".into(), secret: Secret::new([1; 32]) };
        let (sender, inputs) = mpsc::channel(64);
        let listen_ports = Vec::new();
        let config = Config { keypair, listen, listen_ports, external_addresses, mdns: false, kademlia: false, nat };
        Self { id, handle: start(config, context, sender).await.unwrap(), inputs }
    }

    /// One that can be dialed, and relays.
    async fn relay(seed: u8, settings: Settings) -> Self {
        let address = format!("/ip4/127.0.0.1/udp/{}/quic-v1", free_port());
        Self::start(seed, vec![address.clone()], vec![address], settings).await
    }

    /// One that nobody can dial, with a slot on the relays.
    async fn behind(seed: u8, relays: &[&Self]) -> Self {
        let mut peer = Self::start(seed, Vec::new(), Vec::new(), Settings::default()).await;
        for relay in relays {
            peer.dial(&relay.handle.external_addresses()[0]);
            assert!(peer.linked(relay.id).await);
        }
        peer.until("a slot on each relay", |peer| peer.circuits().len() == relays.len()).await;
        peer
    }

    /// The addresses at which it is reached through relays.
    fn circuits(&self) -> Vec<String> {
        let mut addresses = self.handle.external_addresses();
        addresses.retain(|address| address.contains("p2p-circuit"));
        addresses
    }

    fn dial(&self, address: &str) {
        self.handle.carry_out(Effect::Dial(address.into()));
    }

    async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !so(self) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
    }

    async fn next(&mut self) -> Input {
        timeout(PATIENCE, self.inputs.recv()).await.expect("an input in time").expect("a driver")
    }

    /// Waits until a peer is linked, and says whether directly.
    async fn linked(&mut self, to: PeerId) -> bool {
        loop {
            if let Input::Connected(peer, link) = self.next().await
                && peer == to
            {
                return link.direct;
            }
        }
    }

    async fn receives(&mut self, from: PeerId) -> Message {
        loop {
            if let Input::Received(peer, message) = self.next().await
                && peer == from
            {
                return *message;
            }
        }
    }

    async fn dial_fails(&mut self) -> String {
        loop {
            if let Input::DialFailed(_, why) = self.next().await {
                return why;
            }
        }
    }
}

fn hello() -> Message {
    let (mesh, members) = (MeshId([1; 32]), Hash([2; 32]));
    Message::Hello(Box::new(Hello { mesh, chain: Vec::new(), members, at: Timestamp(3) }))
}

#[tokio::test]
async fn a_peer_is_told_to_be_at_all_addresses_of_its_relay() {
    let addresses =
        [format!("/ip4/127.0.0.1/udp/{}/quic-v1", free_port()), format!("/ip4/127.0.0.1/tcp/{}", free_port())];
    let relay = Peer::start(1, addresses.to_vec(), addresses.to_vec(), Settings::default()).await;
    let mut hidden = Peer::start(2, Vec::new(), Vec::new(), Settings::default()).await;
    hidden.dial(&format!("{}/p2p/{}", addresses[0], relay.id));
    hidden.linked(relay.id).await;
    hidden.until("both ways", |hidden| hidden.circuits().len() == 2).await;
    let through = addresses.map(|at| format!("{at}/p2p/{}/p2p-circuit/p2p/{}", relay.id, hidden.id));
    assert_eq!((hidden.circuits(), hidden.handle.best_addresses()), (through.to_vec(), through.to_vec()));
    // A slot that is gone takes all of them along.
    relay.handle.shutdown().await;
    hidden.until("no way", |hidden| hidden.circuits().is_empty() && hidden.handle.best_addresses().is_empty()).await;
}

#[tokio::test]
async fn one_address_of_a_relay_that_is_good_is_enough() {
    let relay = Peer::relay(1, Settings::default()).await;
    let hidden = Peer::behind(2, &[&relay]).await;
    let mut other = Peer::start(3, Vec::new(), Vec::new(), Settings::default()).await;
    // Nobody answers at the first, which is known at once; and the third is of a protocol that is not spoken here.
    let bad = |start: &str| format!("{start}/p2p/{}/p2p-circuit/p2p/{}", relay.id, hidden.id);
    let (refused, unspoken) = (bad(&format!("/ip4/127.0.0.1/tcp/{}", free_port())), bad("/ip6/2001:db8::1/tcp/1"));
    for address in [&refused, &hidden.circuits()[0], &unspoken] {
        other.dial(address);
    }
    other.linked(hidden.id).await;
}

#[tokio::test]
async fn what_becomes_of_one_way_through_a_relay_is_said_of_those_left_aside() {
    let relay = Peer::relay(1, Settings::default()).await;
    let mut peer = Peer::start(2, Vec::new(), Vec::new(), Settings::default()).await;
    peer.dial(&relay.handle.external_addresses()[0]);
    peer.linked(relay.id).await;
    peer.until("a slot", |peer| !peer.circuits().is_empty()).await;
    let nobody = Keypair::from_seed([9; 32]).peer_id();
    for start in [relay.handle.external_addresses()[0].clone(), format!("/ip4/127.0.0.1/tcp/1/p2p/{}", relay.id)] {
        peer.dial(&format!("{start}/p2p-circuit/p2p/{nobody}"));
    }
    assert_eq!(peer.dial_fails().await, peer.dial_fails().await);
}

#[tokio::test]
async fn a_peer_that_listens_nowhere_is_reached_through_a_relay() {
    let relay = Peer::relay(1, Settings::default()).await;
    let mut hidden = Peer::behind(2, &[&relay]).await;
    let mut other = Peer::start(3, Vec::new(), Vec::new(), Settings::default()).await;
    other.dial(&hidden.circuits()[0]);
    assert!(!other.linked(hidden.id).await && !hidden.linked(other.id).await);
    other.handle.carry_out(Effect::Send(hidden.id, hello()));
    assert_eq!(hidden.receives(other.id).await, hello());
    hidden.handle.carry_out(Effect::Send(other.id, hello()));
    assert_eq!(other.receives(hidden.id).await, hello());
    // Both have a slot: neither can be dialed.
    relay.until("two slots", |relay| relay.handle.reach().service.slots == 2).await;
    let service = relay.handle.reach().service;
    assert_eq!((service.enabled, service.circuits), (true, 1));
}

#[tokio::test]
async fn a_session_moves_from_a_relay_to_a_direct_connection() {
    let relay = Peer::relay(1, Settings::default()).await;
    let listen = || vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()];
    let mut one = Peer::start(2, listen(), Vec::new(), Settings::default()).await;
    one.dial(&relay.handle.external_addresses()[0]);
    one.until("a slot", |peer| !peer.circuits().is_empty()).await;
    let mut other = Peer::start(3, listen(), Vec::new(), Settings::default()).await;
    other.dial(&one.circuits()[0]);
    // It may have moved before anybody looked.
    while !other.linked(one.id).await {}
    while !one.linked(other.id).await {}
    one.handle.carry_out(Effect::Send(other.id, hello()));
    assert_eq!(other.receives(one.id).await, hello());
    // Nothing goes through the relay any more.
    relay.until("the end of the circuit", |relay| relay.handle.reach().service.circuits == 0).await;
}

#[tokio::test]
async fn a_stranger_goes_through_a_relay_that_does_not_know_it() {
    let mut relay = Peer::relay(1, Settings::default()).await;
    let mut hidden = Peer::behind(2, &[&relay]).await;
    let mut stranger = Peer::start(3, Vec::new(), Vec::new(), Settings::default()).await;
    stranger.dial(&hidden.circuits()[0]);
    relay.linked(stranger.id).await;
    // As the relay's node does with who is no member.
    relay.handle.carry_out(Effect::Drop(stranger.id, DropReason::NotAMember));
    assert!(!stranger.linked(hidden.id).await);
    stranger.handle.carry_out(Effect::Send(hidden.id, hello()));
    assert_eq!(hidden.receives(stranger.id).await, hello());
    // Once it is let in, relay and former stranger have a session over the connection that they have.
    stranger.dial(&relay.handle.external_addresses()[0]);
    relay.linked(stranger.id).await;
}

#[tokio::test]
async fn another_relay_takes_over_when_one_dies() {
    let relays = [
        Peer::relay(1, Settings::default()).await,
        Peer::relay(4, Settings::default()).await,
        Peer::relay(5, Settings::default()).await,
    ];
    let mut hidden = Peer::start(2, Vec::new(), Vec::new(), Settings::default()).await;
    for relay in &relays {
        hidden.dial(&relay.handle.external_addresses()[0]);
        hidden.linked(relay.id).await;
    }
    hidden.until("two slots", |peer| peer.circuits().len() == 2).await;
    let held = hidden.handle.reach().relays;
    let (dead, alive): (Vec<Peer>, Vec<Peer>) = relays.into_iter().partition(|relay| relay.id == held[0]);
    dead[0].handle.shutdown().await;
    let without = |peer: &Peer| !peer.handle.reach().relays.contains(&held[0]) && peer.circuits().len() == 2;
    hidden.until("a slot elsewhere", without).await;
    assert!(alive.iter().all(|relay| hidden.handle.reach().relays.contains(&relay.id)));
}

#[tokio::test]
async fn a_relay_without_slots_is_known_to_be_full_by_both() {
    let full = Peer::relay(1, Settings { relay_slots: 1, ..Settings::default() }).await;
    let _first = Peer::behind(2, &[&full]).await;
    let mut second = Peer::start(3, Vec::new(), Vec::new(), Settings::default()).await;
    second.dial(&full.handle.external_addresses()[0]);
    second.linked(full.id).await;
    let is_told = |peer: &Peer| {
        let reach = peer.handle.reach();
        reach.relays_full == 1 && reach.relay_slots_refused["full"] > 0 && reach.relays.is_empty()
    };
    second.until("the relay is known to be full", is_told).await;
    full.until("the denial is counted", |full| full.handle.reach().service.slots_denied > 0).await;
    let service = full.handle.reach().service;
    assert_eq!((service.slots, service.slots_max), (1, 1));
}

#[tokio::test]
async fn a_relay_that_carries_all_it_may_is_known_to_be_full_by_both() {
    let full = Peer::relay(1, Settings { relay_circuits: 1, ..Settings::default() }).await;
    let mut hidden = Peer::behind(2, &[&full]).await;
    let mut first = Peer::start(3, Vec::new(), Vec::new(), Settings::default()).await;
    first.dial(&hidden.circuits()[0]);
    assert!(!first.linked(hidden.id).await && !hidden.linked(first.id).await);
    let mut second = Peer::start(4, Vec::new(), Vec::new(), Settings::default()).await;
    second.dial(&hidden.circuits()[0]);
    let why = second.dial_fails().await;
    assert!(why.contains("full"), "{why}");
    second.until("the refusal is counted", |peer| peer.handle.reach().relay_circuits_refused["full"] == 1).await;
    // Meanwhile the first may have tried to punch holes once more, through the relay.
    full.until("the denial is counted", |full| full.handle.reach().service.circuits_denied >= 1).await;
}

#[tokio::test]
async fn relays_that_are_switched_off_are_not_used() {
    let off = Settings { relay_server: false, relay_client: false, ..Settings::default() };
    let relay = Peer::relay(1, off.clone()).await;
    let mut peer = Peer::start(2, Vec::new(), Vec::new(), off).await;
    peer.dial(&relay.handle.external_addresses()[0]);
    peer.linked(relay.id).await;
    let through =
        format!("{}/p2p-circuit/p2p/{}", relay.handle.external_addresses()[0], Keypair::from_seed([9; 32]).peer_id());
    peer.dial(&through);
    assert!(peer.dial_fails().await.contains("switched off"));
    assert_eq!((relay.handle.reach().service.enabled, peer.circuits().len()), (false, 0));
}

#[tokio::test]
async fn what_cannot_be_reached_through_a_relay_is_said() {
    let relay = Peer::relay(1, Settings::default()).await;
    let mut peer = Peer::start(2, Vec::new(), Vec::new(), Settings::default()).await;
    let nobody = Keypair::from_seed([9; 32]).peer_id();
    peer.dial(&format!("{}/p2p-circuit/p2p/{nobody}", relay.handle.external_addresses()[0]));
    let why = peer.dial_fails().await;
    assert!(!why.is_empty(), "{why}");
    // A relay that is not there.
    let dead = Keypair::from_seed([8; 32]).peer_id();
    peer.dial(&format!("/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{dead}/p2p-circuit/p2p/{nobody}", free_port()));
    assert!(peer.dial_fails().await.contains("relay cannot be reached"));
}
