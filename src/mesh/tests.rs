//! Drivers over real libp2p on loopback.

mod silence;

use std::time::Duration;

use futures::{AsyncWriteExt, StreamExt};
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, QueryResult};
use libp2p::swarm::{ConnectionId, NetworkBehaviour, Stream, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, ping, tcp, yamux};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::behaviour::{Behaviour, BehaviourEvent, KAD_PROTOCOL, swarm};
use super::handshake::Stalls;
use super::life::Lives;
use super::link::StreamEvent;
use super::traffic::Meter;
use super::{Config, Handle, start};
use crate::base::{DocumentKey, GrantId, Hash, Hlc, Incarnation, MeshId, PeerId};
use crate::document::{Author, Document, Envelope, Unchecked, json};
use crate::identity::Keypair;
use crate::limits::{FRAME_BYTES_MAX, LINGERING_MAX};
use crate::node::{DropReason, Effect, GossipId, Input, Link, MeshContext, Verdict};
use crate::sync::gossip::Secret;
use crate::sync::{Hello, Message, Topic};
use crate::{Error, InvalidKind};

/// How long anything may take; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

pub(super) fn mesh(byte: u8) -> MeshContext {
    MeshContext { mesh: MeshId([byte; 32]), name: "test".into(), secret: Secret::new([byte; 32]) }
}

pub(super) fn config(seed: u8, listen: &[&str]) -> Config {
    Config {
        keypair: Keypair::from_seed([seed; 32]),
        listen: listen.iter().map(|&address| address.into()).collect(),
        listen_ports: Vec::new(),
        external_addresses: Vec::new(),
        mdns: false,
        kademlia: false,
        nat: super::nat::Settings::default(),
    }
}

/// A driver, and the inputs that its node would get.
struct Peer {
    id: PeerId,
    handle: Handle,
    inputs: mpsc::Receiver<Input>,
}

impl Peer {
    async fn with(config: Config, context: MeshContext) -> Self {
        let id = config.keypair.peer_id();
        let (sender, inputs) = mpsc::channel(16);
        Self { id, handle: start(config, context, sender).await.unwrap(), inputs }
    }

    async fn new(seed: u8, listen: &str) -> Self {
        Self::with(config(seed, &[listen]), mesh(1)).await
    }

    fn address(&self) -> String {
        self.handle.listen_addresses().remove(0)
    }

    /// The next input that is about a peer.
    async fn next(&mut self) -> Input {
        loop {
            let input = timeout(PATIENCE, self.inputs.recv()).await.expect("an input in time").expect("a driver");
            if !matches!(input, Input::Discovered(..) | Input::NetworkChanged) {
                return input;
            }
        }
    }

    async fn connected(&mut self, to: PeerId) -> Link {
        let input = self.next().await;
        let Input::Connected(peer, link) = input else { panic!("expected a link, got {input:?}") };
        assert_eq!(peer, to);
        link
    }

    async fn disconnected(&mut self, from: PeerId) {
        let input = self.next().await;
        assert!(matches!(input, Input::Disconnected(peer) if peer == from), "{input:?}");
    }

    async fn received(&mut self, from: PeerId) -> Message {
        let input = self.next().await;
        let Input::Received(peer, message) = input else { panic!("expected a message, got {input:?}") };
        assert_eq!(peer, from);
        *message
    }

    async fn published(&mut self) -> (PeerId, GossipId, usize) {
        let input = self.next().await;
        let Input::Published { from, id, changes } = input else { panic!("expected a publication, got {input:?}") };
        (from, id, changes.into_iter().filter(Result::is_ok).count())
    }

    fn send(&self, to: PeerId, message: Message) {
        self.handle.carry_out(Effect::Send(to, message));
    }

    fn dial(&self, address: &str) {
        self.handle.carry_out(Effect::Dial(address.into()));
    }
}

fn hello(byte: u8) -> Message {
    Message::Hello(Box::new(Hello {
        mesh: MeshId([byte; 32]),
        chain: Vec::new(),
        members: Hash([byte; 32]),
        at: crate::base::Timestamp(1),
    }))
}

/// Two peers that are linked; the first one dialed.
async fn linked(listen: &str) -> (Peer, Peer) {
    let (mut a, mut b) = (Peer::new(1, listen).await, Peer::new(2, listen).await);
    a.dial(&b.address());
    let (there, here) = (a.connected(b.id).await, b.connected(a.id).await);
    assert!(there.dialed && there.direct && !here.dialed);
    (a, b)
}

fn change(seed: u8, mesh: MeshId, id: &str) -> Unchecked {
    let keypair = Keypair::from_seed([seed; 32]);
    let author = Author { peer: keypair.peer_id(), incarnation: Incarnation([seed; 8]), grant: GrantId([0; 32]) };
    let body = json::parse_document(br#"{"name":"Ada"}"#).unwrap();
    let (_, change) = Document::create(author.actor(), Hlc::default(), &body).unwrap();
    let document = DocumentKey::new("users".parse().unwrap(), id.parse().unwrap());
    Envelope::sign(&keypair, mesh, document, author.incarnation, author.grant, change).to_unchecked()
}

fn topic() -> Topic {
    Topic::of(&"users".parse().unwrap())
}

#[tokio::test]
async fn messages_arrive_in_order_both_ways_over_every_transport() {
    for listen in [QUIC, TCP] {
        let (mut a, mut b) = linked(listen).await;
        a.send(b.id, Message::Acknowledged(0));
        a.send(b.id, hello(1));
        b.send(a.id, hello(2));
        let changes: Vec<Unchecked> = (0..100).map(|n| change(1, MeshId([1; 32]), &format!("d{n}"))).collect();
        a.send(b.id, Message::Changes { number: 1, changes: changes.clone() });
        for number in 0..200 {
            a.send(b.id, Message::Acknowledged(number));
            b.send(a.id, Message::Acknowledged(number));
        }
        assert_eq!((b.received(a.id).await, a.received(b.id).await), (hello(1), hello(2)));
        let input = b.next().await;
        let Input::Changes { from, number: 1, changes: checked } = input else { panic!("{input:?}") };
        let documents: Vec<_> = checked.into_iter().map(|change| change.unwrap().document().clone()).collect();
        assert_eq!(from, a.id);
        assert!(documents.iter().eq(changes.iter().map(|change| &change.document)), "in order");
        for number in 0..200 {
            assert_eq!(b.received(a.id).await, Message::Acknowledged(number));
            assert_eq!(a.received(b.id).await, Message::Acknowledged(number));
        }
        assert!(a.handle.traffic().sent_bytes > 5_000 && b.handle.traffic().received_bytes > 5_000);
        a.handle.shutdown().await;
        b.disconnected(a.id).await;
    }
}

/// A peer without a driver: it sends whatever bytes it likes.
struct Raw {
    swarm: Swarm<Behaviour>,
    id: PeerId,
}

impl Raw {
    fn new(seed: u8) -> Self {
        let config = config(seed, &[]);
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes(*config.keypair.seed()).unwrap();
        Self {
            swarm: swarm(keypair, &config, &Lives::new(), &Meter::default(), &Meter::default(), &Stalls::default())
                .unwrap(),
            id: config.keypair.peer_id(),
        }
    }

    /// Connects and opens a stream.
    async fn connect(&mut self, address: &str) -> (ConnectionId, Stream) {
        self.swarm.dial(address.parse::<libp2p::Multiaddr>().unwrap()).unwrap();
        loop {
            let event = timeout(PATIENCE, self.swarm.select_next_some()).await.unwrap();
            if let SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } = event {
                self.swarm.behaviour_mut().link.open(peer_id, connection_id);
            } else if let SwarmEvent::Behaviour(BehaviourEvent::Link((_, on, StreamEvent::Opened(stream)))) = event {
                return (on, stream);
            }
        }
    }

    /// Lets the other side go on until all connections are closed.
    async fn until_closed(&mut self) {
        while self.swarm.connected_peers().next().is_some() {
            timeout(PATIENCE, self.swarm.select_next_some()).await.unwrap();
        }
    }

    /// Goes on while something else happens.
    async fn during<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_or_garbage_closes_the_session() {
    let mut peer = Peer::new(1, QUIC).await;
    let too_large = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes().to_vec();
    let garbage = [&5u32.to_be_bytes()[..], b"hello"].concat();
    for (seed, bytes) in [(2, too_large), (3, garbage)] {
        let mut raw = Raw::new(seed);
        let (_, mut stream) = raw.connect(&peer.address()).await;
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        raw.until_closed().await;
        peer.connected(raw.id).await;
        peer.disconnected(raw.id).await;
    }
}

#[tokio::test]
async fn the_newest_streams_of_a_peer_count() {
    let mut peer = Peer::new(1, QUIC).await;
    let (mut stale, mut raw) = (Raw::new(2), Raw::new(2));
    let (_, _old) = stale.connect(&peer.address()).await;
    stale.during(peer.connected(raw.id)).await;
    // The same peer comes back without having said goodbye, and the first connection still stands.
    let (_, mut stream) = raw.connect(&peer.address()).await;
    stream.write_all(&super::frame::write(&hello(9)).unwrap()).await.unwrap();
    stream.flush().await.unwrap();
    raw.during(async {
        peer.disconnected(stale.id).await;
        peer.connected(stale.id).await;
        assert_eq!(peer.received(stale.id).await, hello(9));
    })
    .await;
    stale.until_closed().await;
}

/// Publishes until `to` gets it: subscriptions take a moment to be known.
async fn publish(from: &Peer, to: &mut Peer, changes: &[Unchecked]) -> (PeerId, GossipId, usize) {
    loop {
        from.handle.carry_out(Effect::Publish(topic(), changes.to_vec()));
        if let Ok(published) = timeout(Duration::from_millis(500), to.published()).await {
            return published;
        }
    }
}

#[tokio::test]
async fn gossip_is_passed_on_after_the_verdict_only_and_within_the_mesh_only() {
    let (a, mut b) = linked(QUIC).await;
    let mut c = Peer::new(3, QUIC).await;
    let mut foreign = Peer::with(config(4, &[QUIC]), mesh(2)).await;
    c.dial(&b.address());
    foreign.dial(&b.address());
    c.connected(b.id).await;
    foreign.connected(b.id).await;
    let ids = [b.next().await, b.next().await].map(|input| {
        let Input::Connected(peer, _) = input else { panic!("{input:?}") };
        peer
    });
    assert!(ids.contains(&c.id) && ids.contains(&foreign.id));
    let one = [change(1, MeshId([1; 32]), "a")];
    let two = [change(2, MeshId([1; 32]), "b"), change(2, MeshId([1; 32]), "c")];
    // What b itself publishes reaches c; what a publishes does not, until b accepts it.
    let (from, rejected, valid) = publish(&a, &mut b, &one).await;
    assert_eq!((from, valid), (a.id, 1));
    assert_eq!(publish(&b, &mut c, &two).await.2, 2);
    b.handle.carry_out(Effect::Verdict(rejected, Verdict::Ignore));
    let passed_on = async {
        loop {
            let (_, id, _) = publish(&a, &mut b, &one).await;
            b.handle.carry_out(Effect::Verdict(id, Verdict::Accept));
            while let Ok((from, _, changes)) = timeout(Duration::from_millis(500), c.published()).await {
                if changes == 1 {
                    return from;
                }
            }
        }
    };
    assert_eq!(timeout(PATIENCE, passed_on).await.expect("the message is passed on"), b.id);
    b.send(foreign.id, hello(1));
    assert_eq!(foreign.received(b.id).await, hello(1), "and nothing before it");
    // After joining the other mesh its gossip is heard.
    foreign.handle.carry_out(Effect::Context(mesh(1)));
    assert_eq!(timeout(PATIENCE, publish(&b, &mut foreign, &two)).await.unwrap().2, 2);
}

#[tokio::test]
async fn a_port_in_use_and_bad_addresses_are_told_clearly() {
    for listen in [QUIC, TCP] {
        let first = Peer::new(1, listen).await;
        let taken = first.address().rsplit_once("/p2p/").unwrap().0.to_owned();
        let error = start(config(2, &[&taken]), mesh(1), mpsc::channel(1).0).await.unwrap_err();
        assert!(matches!(error, Error::Io(_)), "{error:?}");
        assert!(error.to_string().contains(&taken) && error.to_string().contains("in use"), "{error}");
    }
    for bad in ["localhost:4001", "/ip4/127.0.0.1/udp/4001", "/ip4/300.0.0.1/tcp/1"] {
        let error = start(config(2, &[bad]), mesh(1), mpsc::channel(1).0).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(why) if why.kind == InvalidKind::Meaning), "{error:?}");
    }
}

#[tokio::test]
async fn failed_dials_are_reported_with_the_address_as_given() {
    let mut a = Peer::new(1, QUIC).await;
    let b = Peer::new(2, QUIC).await;
    let other_id = b.address().replace(&b.id.to_string(), &Keypair::from_seed([9; 32]).peer_id().to_string());
    let own = a.address();
    for (address, word) in [
        ("/ip4/127.0.0.1/tcp/1", "refused"),
        (&format!("/ip4/127.0.0.1/tcp/1/p2p/{}", b.id), "refused"),
        ("nonsense", "not a multiaddr"),
        (own.as_str(), "our own"),
        (own.rsplit_once("/p2p/").unwrap().0, "our own"),
        (other_id.as_str(), "another peer"),
    ] {
        a.dial(address);
        let input = a.next().await;
        let Input::DialFailed(given, why) = input else { panic!("{input:?}") };
        assert!(given == address && why.contains(word), "{given}: {why}");
    }
}

#[tokio::test]
async fn an_address_is_dialed_once_at_a_time() {
    let peer = Peer::new(1, TCP).await;
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let last = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    mute.set_nonblocking(true).unwrap();
    let nobody = Keypair::from_seed([9; 32]).peer_id();
    let at = |port| format!("/ip4/127.0.0.1/tcp/{port}/p2p/{nobody}");
    for port in [mute.local_addr(), mute.local_addr(), last.local_addr()].map(|at| at.unwrap().port()) {
        peer.dial(&at(port));
    }
    timeout(PATIENCE, last.accept()).await.expect("the last dial").unwrap();
    mute.accept().unwrap();
    assert_eq!(mute.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn dialing_a_connected_peer_is_no_failure() {
    let (mut a, mut b) = linked(QUIC).await;
    a.dial(&b.address());
    a.dial(b.address().rsplit_once("/p2p/").unwrap().0);
    b.dial(&a.address());
    a.send(b.id, hello(1));
    b.send(a.id, hello(2));
    assert_eq!((b.received(a.id).await, a.received(b.id).await), (hello(1), hello(2)));
    a.dial("nonsense");
    assert!(matches!(a.next().await, Input::DialFailed(address, _) if address == "nonsense"));
}

#[tokio::test]
async fn both_may_dial_at_once() {
    let (mut a, mut b) = (Peer::new(1, QUIC).await, Peer::new(2, QUIC).await);
    a.dial(&b.address());
    b.dial(&a.address());
    a.connected(b.id).await;
    b.connected(a.id).await;
    a.send(b.id, hello(1));
    b.send(a.id, hello(2));
    assert_eq!((b.received(a.id).await, a.received(b.id).await), (hello(1), hello(2)));
}

#[tokio::test]
async fn a_drop_delivers_the_refusal_first_and_misbehaviour_locks_out() {
    for (listen, reason) in
        [(QUIC, DropReason::ForeignMesh), (TCP, DropReason::ForeignMesh), (QUIC, DropReason::Misbehaved)]
    {
        let (mut a, mut b) = linked(listen).await;
        a.send(b.id, hello(1));
        a.send(b.id, Message::Refused("no".into()));
        a.handle.carry_out(Effect::Drop(b.id, reason));
        assert_eq!(b.received(a.id).await, hello(1));
        assert_eq!(b.received(a.id).await, Message::Refused("no".into()));
        b.disconnected(a.id).await;
        a.disconnected(b.id).await;
        b.dial(&a.address());
        if reason == DropReason::Misbehaved {
            let input = b.next().await;
            assert!(matches!(&input, Input::DialFailed(address, _) if *address == a.address()), "{input:?}");
            assert!(a.inputs.try_recv().is_err());
        } else {
            a.connected(b.id).await;
            b.connected(a.id).await;
        }
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_nobody_else_and_is_closed() {
    let (mut a, b) = linked(QUIC).await;
    let mut c = Peer::new(3, QUIC).await;
    c.dial(&a.address());
    c.connected(a.id).await;
    a.connected(c.id).await;
    a.send(b.id, hello(1));
    a.send(c.id, hello(1));
    assert_eq!(c.received(a.id).await, hello(1));
    for number in 0..20_000 {
        a.send(b.id, Message::Refused("x".repeat(1_000)));
        if number % 1_000 == 0 {
            a.send(c.id, Message::Acknowledged(number));
        }
    }
    for number in (0..20).map(|n| n * 1_000) {
        assert_eq!(c.received(a.id).await, Message::Acknowledged(number));
    }
    a.disconnected(b.id).await;
}

#[tokio::test]
async fn peers_link_again_after_one_was_gone() {
    let (mut a, b) = linked(QUIC).await;
    let address = b.address();
    b.handle.shutdown().await;
    a.disconnected(b.id).await;
    let listen = address.rsplit_once("/p2p/").unwrap().0;
    let mut b = Peer::with(config(2, &[listen]), mesh(1)).await;
    a.dial(&address);
    a.connected(b.id).await;
    b.connected(a.id).await;
    a.send(b.id, hello(3));
    assert_eq!(b.received(a.id).await, hello(3));
}

#[tokio::test]
async fn peers_of_a_mesh_find_each_other_in_the_dht() {
    let with_kad = |seed| Config { kademlia: true, ..config(seed, &[QUIC]) };
    let b = Peer::with(with_kad(2), mesh(2)).await;
    let (a, mut c) = (Peer::with(with_kad(1), mesh(1)).await, Peer::with(with_kad(3), mesh(1)).await);
    a.dial(&b.address());
    c.dial(&b.address());
    loop {
        let input = timeout(PATIENCE, c.inputs.recv()).await.expect("found in time").unwrap();
        if let Input::Discovered(peer, addresses) = input
            && peer == a.id
        {
            assert!(addresses.contains(&a.address()), "{addresses:?}");
            return;
        }
    }
}

/// What speaks the DHT's protocol, and nothing else of ours.
/// What a stranger speaks: whoever says nothing at all is cut off sooner.
#[derive(NetworkBehaviour)]
struct Strange {
    kad: kad::Behaviour<MemoryStore>,
    ping: ping::Behaviour,
}

type Stranger = Swarm<Strange>;

async fn stranger() -> (Stranger, Multiaddr) {
    let strange = |keypair: &libp2p::identity::Keypair| {
        let peer = keypair.public().to_peer_id();
        let kad = kad::Behaviour::with_config(peer, MemoryStore::new(peer), kad::Config::new(KAD_PROTOCOL));
        Strange { kad, ping: ping::Behaviour::default() }
    };
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let builder = builder.with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default).unwrap();
    let builder = builder.with_behaviour(strange).unwrap();
    let mut swarm = builder.with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE)).build();
    swarm.listen_on(TCP.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return (swarm, address);
        }
    }
}

/// Runs a stranger until its connection is closed, or a question of it has an answer; says which.
async fn is_answered(stranger: &mut Stranger) -> bool {
    loop {
        let event = stranger.select_next_some().await;
        if let SwarmEvent::ConnectionClosed { .. } = event {
            return false;
        }
        // It asks questions of its own, too.
        if let SwarmEvent::Behaviour(StrangeEvent::Kad(kad::Event::OutboundQueryProgressed {
            result: QueryResult::GetClosestPeers(answer),
            ..
        })) = event
        {
            return !answer.unwrap().peers.is_empty();
        }
    }
}

/// Has a peer dial a stranger, until it knows that there is no session to be had.
async fn dial_in_vain(peer: &mut Peer, at: &Multiaddr, stranger: &mut Stranger) {
    peer.dial(&at.to_string());
    tokio::select! {
        input = peer.next() => {
            assert!(matches!(&input, Input::DialFailed(_, why) if why.contains("does not speak")), "{input:?}");
        }
        _ = is_answered(stranger) => panic!("the stranger asked nothing, and lost its connection"),
    }
}

#[tokio::test]
async fn strangers_may_ask_the_dht_and_make_room_for_the_next() {
    let mut peer = Peer::with(Config { kademlia: true, ..config(1, &[TCP]) }, mesh(1)).await;
    let (address, id) = super::address::split(peer.address().parse().unwrap());
    let id = id.unwrap();
    let (mut first, at) = stranger().await;
    let at = at.with_p2p(*first.local_peer_id()).unwrap();
    first.behaviour_mut().kad.add_address(&id, address);
    dial_in_vain(&mut peer, &at, &mut first).await;
    first.behaviour_mut().kad.get_closest_peers(id);
    assert!(timeout(PATIENCE, is_answered(&mut first)).await.unwrap(), "the DHT is not for strangers");

    let mut others = tokio::task::JoinSet::new();
    for number in 1..=LINGERING_MAX {
        if number == LINGERING_MAX {
            // All places are taken. The first gets a new one, and makes room for nobody.
            dial_in_vain(&mut peer, &at, &mut first).await;
            assert!(others.try_join_next().is_none(), "nobody had to go");
        }
        let (mut other, at) = stranger().await;
        tokio::select! {
            () = dial_in_vain(&mut peer, &at, &mut other) => {}
            _ = is_answered(&mut first) => panic!("the first lost its connection"),
        }
        others.spawn(async move { (number, is_answered(&mut other).await) });
    }
    let gone = timeout(PATIENCE, others.join_next()).await.unwrap().unwrap();
    assert_eq!(gone.unwrap(), (1, false), "the oldest makes room");
    first.behaviour_mut().kad.get_closest_peers(id);
    assert!(timeout(PATIENCE, is_answered(&mut first)).await.unwrap(), "the first had to go");
}

#[tokio::test]
async fn addresses_are_shown_with_the_peers_id() {
    let external = "/dns4/example.org/udp/4001/quic-v1";
    let config = Config { external_addresses: vec![external.into()], ..config(1, &["/ip4/0.0.0.0/tcp/0", QUIC]) };
    let peer = Peer::with(config, mesh(1)).await;
    let suffix = format!("/p2p/{}", peer.id);
    let listening = peer.handle.listen_addresses();
    assert!(listening.len() >= 2 && listening.iter().all(|address| address.ends_with(&suffix)), "{listening:?}");
    assert!(!listening.iter().any(|address| address.contains("/0/") || address.contains("0.0.0.0")), "{listening:?}");
    assert_eq!(peer.handle.external_addresses(), [format!("{external}{suffix}")]);
}

#[tokio::test]
async fn both_ip_versions_may_use_one_port() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("unsupported: this machine has no IPv6");
        return;
    }
    let (four, six) = (format!("/ip4/0.0.0.0/tcp/{port}"), format!("/ip6/::/tcp/{port}"));
    let peer = Peer::with(config(1, &[&four, &six]), mesh(1)).await;
    let listening = peer.handle.listen_addresses();
    assert!(["/ip4/127.0.0.1/", "/ip6/::1/"].iter().all(|start| listening.iter().any(|at| at.starts_with(start))));
    // Another peer is told that the port is taken.
    let (sender, _inputs) = mpsc::channel(16);
    let error = start(config(2, &[&six]), mesh(1), sender).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
}

#[tokio::test]
async fn a_port_alone_is_listened_on_over_all_protocols_of_the_machine() {
    let peer = Peer::with(Config { listen_ports: vec![0], ..config(1, &[]) }, mesh(1)).await;
    let (listening, started) = (peer.handle.listen_addresses(), Instant::now());
    let reach = peer.handle.reach();
    for ip in ["/ip4/127.0.0.1/", "/ip6/::1/"] {
        let is_there = std::net::UdpSocket::bind((ip.split('/').nth(2).unwrap(), 0)).is_ok();
        let over = ["udp", "tcp"].map(|kind| listening.iter().any(|at| at.starts_with(&format!("{ip}{kind}/"))));
        assert_eq!(over, [is_there; 2], "{listening:?}");
        let left_out = reach.addresses.iter().any(|at| at.source == "left_out" && at.address.starts_with(&ip[..5]));
        assert_eq!(left_out, !is_there);
    }
    peer.handle.shutdown().await;
    assert!(started.elapsed() < PATIENCE / 4, "an address of the link held up the end");
}
