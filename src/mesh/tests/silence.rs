//! Connections that are lost without a word, and lines so slow that one might take them for lost: two drivers over real
//! TCP and QUIC, and a wire between them that can stop to carry what it carries, while what is new passes.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::*;
use crate::mesh::address::endpoint;
use crate::mesh::life::SILENCE;

/// In what time data written at either side must be at the other, whatever was lost.
const RECOVERY: Duration = Duration::from_secs(15);

/// A wire to a peer. It ends when this is dropped.
struct Wire {
    /// Where to dial the peer.
    address: String,
    /// How often everything was lost.
    losses: watch::Sender<u64>,
    task: JoinSet<()>,
}

impl Wire {
    /// A wire to a peer; over TCP one way carries so many bytes in a tenth of a second, or what it can.
    async fn to(peer: &Peer, bytes: Option<usize>) -> Self {
        let (target, udp) = endpoint(&peer.address().parse().unwrap()).unwrap();
        let (losses, task) = (watch::Sender::new(0), JoinSet::new());
        let mut wire = Self { address: String::new(), losses, task };
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let port = if udp {
            let socket = UdpSocket::bind(here).await.unwrap();
            let port = socket.local_addr().unwrap().port();
            wire.task.spawn(carry_datagrams(socket, target, wire.losses.clone()));
            format!("udp/{port}/quic-v1")
        } else {
            let socket = TcpSocket::new_v4().unwrap();
            // What waits here is not what waits at the sender.
            socket.set_recv_buffer_size(8 << 10).unwrap();
            socket.bind(here).unwrap();
            let listener = socket.listen(8).unwrap();
            let port = listener.local_addr().unwrap().port();
            let losses = wire.losses.clone();
            wire.task.spawn(async move {
                let mut streams = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    streams.spawn(carry_stream(stream, target, losses.subscribe(), bytes));
                }
            });
            format!("tcp/{port}")
        };
        wire.address = format!("/ip4/127.0.0.1/{port}/p2p/{}", peer.id);
        wire
    }

    /// From now on nothing passes of all connections there are. They stay open.
    fn lose(&self) {
        self.losses.send_modify(|losses| *losses += 1);
    }
}

async fn carry_stream(mut from: TcpStream, to: SocketAddr, mut losses: watch::Receiver<u64>, bytes: Option<usize>) {
    let mut to = TcpStream::connect(to).await.unwrap();
    tokio::select! {
        _ = losses.changed() => std::future::pending().await,
        () = async {
            let Some(bytes) = bytes else {
                _ = copy_bidirectional(&mut from, &mut to).await;
                return;
            };
            let ((mut there, mut answers), (mut arrives, mut back)) = (from.split(), to.split());
            let slow = async {
                let mut buffer = vec![0; bytes];
                while let Ok(read @ 1..) = there.read(&mut buffer).await {
                    sleep(Duration::from_millis(100)).await;
                    back.write_all(&buffer[..read]).await.unwrap();
                }
            };
            tokio::join!(slow, async { _ = tokio::io::copy(&mut arrives, &mut answers).await });
        } => {}
    }
}

async fn carry_datagrams(from: UdpSocket, to: SocketAddr, losses: watch::Sender<u64>) {
    let from = Arc::new(from);
    let mut flows: HashMap<SocketAddr, (Arc<UdpSocket>, u64)> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; 2_048];
    while let Ok((bytes, client)) = from.recv_from(&mut buffer).await {
        let now = *losses.borrow();
        let known = flows.get(&client).cloned();
        let (flow, begun) = match known {
            Some(known) => known,
            None => {
                let flow = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                flow.connect(to).await.unwrap();
                answers.spawn(carry_answers(Arc::clone(&flow), Arc::clone(&from), client, losses.subscribe()));
                flows.insert(client, (Arc::clone(&flow), now));
                (flow, now)
            }
        };
        if begun == now {
            _ = flow.send(&buffer[..bytes]).await;
        }
    }
}

async fn carry_answers(flow: Arc<UdpSocket>, to: Arc<UdpSocket>, client: SocketAddr, losses: watch::Receiver<u64>) {
    let (begun, mut buffer) = (*losses.borrow(), vec![0; 2_048]);
    while let Ok(bytes) = flow.recv(&mut buffer).await {
        if *losses.borrow() == begun {
            _ = to.send_to(&buffer[..bytes], client).await;
        }
    }
}

/// Two peers, linked over a wire.
async fn wired(listen: &str, bytes: Option<usize>) -> (Peer, Peer, Wire) {
    let (mut a, mut b) = (Peer::new(1, listen).await, Peer::new(2, listen).await);
    let wire = Wire::to(&b, bytes).await;
    a.dial(&wire.address);
    a.connected(b.id).await;
    b.connected(a.id).await;
    (a, b, wire)
}

/// Waits until a peer has lost the other one; says whether it saw before that nothing comes from it.
async fn lost(peer: &mut Peer, other: PeerId) -> bool {
    let mut input = peer.next().await;
    let unanswered = matches!(input, Input::Unanswered(from, silence_ms) if from == other && silence_ms > 4_000);
    if unanswered {
        input = peer.next().await;
    }
    assert!(matches!(input, Input::Disconnected(from) if from == other), "{input:?}");
    unanswered
}

/// A wire is lost between two peers; they give it up, and what is sent then arrives both ways, in time.
async fn recovers(mut a: Peer, mut b: Peer, wire: &Wire) -> (bool, bool) {
    let (start, ids) = (Instant::now(), (a.id, b.id));
    wire.lose();
    a.send(b.id, Message::Acknowledged(1));
    let dials = async {
        let unanswered = lost(&mut a, ids.1).await;
        // As the node does when a link is gone.
        a.dial(&wire.address);
        a.connected(ids.1).await;
        unanswered
    };
    let answers = async {
        let unanswered = lost(&mut b, ids.0).await;
        b.connected(ids.0).await;
        unanswered
    };
    let unanswered = tokio::join!(dials, answers);
    a.send(b.id, hello(1));
    b.send(a.id, hello(2));
    assert_eq!((b.received(a.id).await, a.received(b.id).await), (hello(1), hello(2)));
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
    unanswered
}

#[tokio::test]
async fn a_connection_that_is_lost_without_a_word_is_given_up_and_made_anew() {
    let one = async |listen| {
        let (a, b, wire) = wired(listen, None).await;
        // Both sides notice, and say so before they give it up.
        assert_eq!(recovers(a, b, &wire).await, (true, true), "{listen}");
    };
    tokio::join!(one(TCP), one(QUIC));
}

#[tokio::test]
async fn a_dead_connection_is_given_up_beside_a_live_one_of_the_same_peer() {
    let (mut a, b, wire) = wired(TCP, None).await;
    // Without an id nobody can know that this peer is connected. It tells where it is over each connection.
    a.dial(b.address().rsplit_once("/p2p/").unwrap().0);
    while let Ok(input) = timeout(Duration::from_millis(500), a.inputs.recv()).await {
        assert!(matches!(input, Some(Input::Discovered(..) | Input::NetworkChanged)), "{input:?}");
    }
    recovers(a, b, &wire).await;
}

#[tokio::test]
async fn a_slow_line_that_a_transfer_fills_is_not_lost() {
    const MESSAGES: usize = 320;
    let (mut a, mut b, _wire) = wired(TCP, Some(1_600)).await;
    a.send(b.id, hello(1));
    assert_eq!(b.received(a.id).await, hello(1));
    let start = Instant::now();
    for _ in 0..MESSAGES {
        a.send(b.id, Message::Refused("x".repeat(1_000)));
    }
    for number in 0..MESSAGES {
        assert!(matches!(b.received(a.id).await, Message::Refused(_)), "message {number}");
    }
    assert!(start.elapsed() > 2 * SILENCE, "the line is not slow: {:?}", start.elapsed());
    // Nor was it thought to be.
    while let Ok(input) = a.inputs.try_recv() {
        assert!(matches!(input, Input::Discovered(..) | Input::NetworkChanged), "{input:?}");
    }
    b.send(a.id, hello(2));
    assert_eq!(a.received(b.id).await, hello(2));
}
