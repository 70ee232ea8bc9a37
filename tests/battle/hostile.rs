//! A member that does what no honest peer does, over real connections: the node and the network that ship, and between
//! them what the simulator's hostile members do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aerolithsdb::PeerId;
use aerolithsdb::access::Ticket;
use aerolithsdb::base::{Decode, Timestamp};
use aerolithsdb::identity::Keypair;
use aerolithsdb::kv::MemoryKv;
use aerolithsdb::mesh::{self, Handle};
use aerolithsdb::node::{Command, Config, Effect, Input, LocalDocuments, Node, Reply};
use aerolithsdb::store::Loss;
use aerolithsdb::sync::Message;
use netsim::hostile::Villain;
use netsim::scenario::Deed;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How often it strikes.
const STRIKE: Duration = Duration::from_millis(100);
/// What honest peers cannot prove to be bad faith at once.
const SLY: [Deed; 4] = [Deed::Equivocate, Deed::Lie, Deed::Withhold, Deed::Replay];

/// What it and the test tell each other.
#[derive(Debug, Default)]
struct Shared {
    joined: AtomicBool,
    is_open: AtomicBool,
    ends: AtomicBool,
    neighbours: AtomicU64,
    strikes: AtomicU64,
}

/// A running hostile member.
pub(crate) struct Hostile {
    pub(crate) id: PeerId,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Hostile {
    /// Has it join with a ticket. It begins with what looks like bad luck.
    pub(crate) fn start(ticket: &str, seed: u8) -> Self {
        let keypair = Keypair::from_seed([seed; 32]);
        let shared = Arc::new(Shared::default());
        let (id, ticket) = (keypair.peer_id(), ticket.to_owned());
        let told = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Life::start(&keypair, u64::from(seed), told).live(&ticket, &keypair));
        });
        Self { id, shared, thread: Some(thread) }
    }

    pub(crate) fn has_joined(&self) -> bool {
        self.shared.joined.load(Ordering::Acquire)
    }

    /// From now on it does everything that it can.
    pub(crate) fn open_fire(&self) {
        self.shared.is_open.store(true, Ordering::Release);
    }

    /// How many peers put up with it.
    pub(crate) fn neighbours(&self) -> u64 {
        self.shared.neighbours.load(Ordering::Acquire)
    }

    pub(crate) fn strikes(&self) -> u64 {
        self.shared.strikes.load(Ordering::Acquire)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the hostile member failed");
    }
}

struct Life {
    node: Node,
    villain: Villain,
    rng: StdRng,
    neighbours: Vec<PeerId>,
    shared: Arc<Shared>,
    wake_at: Timestamp,
}

fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
}

impl Life {
    fn start(keypair: &Keypair, seed: u64, shared: Arc<Shared>) -> Self {
        let config = Config {
            keypair: keypair.clone(),
            seed: [7; 32],
            mesh_name: "hostile".into(),
            synced: true,
            loss: Loss::Nothing,
            fresh: true,
            seeds: Vec::new(),
        };
        let node = Node::open(config, Arc::new(MemoryKv::new()), now()).unwrap();
        let (rng, villain) = (StdRng::seed_from_u64(seed), Villain::new(SLY.to_vec()));
        Self { node, villain, rng, neighbours: Vec::new(), shared, wake_at: now() }
    }

    async fn live(mut self, ticket: &str, keypair: &Keypair) {
        let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()];
        let (keypair, external_addresses) = (keypair.clone(), Vec::new());
        let nat = mesh::nat::Settings::default();
        let config = mesh::Config {
            keypair: keypair.clone(),
            listen,
            listen_ports: Vec::new(),
            external_addresses,
            mdns: false,
            kademlia: true,
            nat,
        };
        let (sender, mut arriving) = mpsc::channel(1_000);
        let network = mesh::start(config, self.node.context(), sender).await.unwrap();
        let join = Command::Join { ticket: Box::new(Ticket::parse(ticket).unwrap()), local: LocalDocuments::Leave };
        self.handle(&network, Input::Command(1, join));
        let mut strikes = interval(STRIKE);
        strikes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.shared.ends.load(Ordering::Acquire) {
            let due = Duration::from_millis(self.wake_at.since_ms(now()));
            tokio::select! {
                Some(input) = arriving.recv() => self.handle(&network, input),
                () = sleep(due) => self.handle(&network, Input::Wake),
                _ = strikes.tick() => self.strike(&network, &keypair),
            }
        }
        network.shutdown().await;
    }

    fn handle(&mut self, network: &Handle, input: Input) {
        if let Input::Connected(peer, _) = &input {
            self.neighbours.push(*peer);
        } else if let Input::Disconnected(peer) = &input {
            self.neighbours.retain(|known| known != peer);
        }
        self.shared.neighbours.store(self.neighbours.len() as u64, Ordering::Release);
        self.wake_at = now().plus_ms(1_000);
        for effect in self.node.handle(now(), [input]).0 {
            match effect {
                Effect::Send(peer, message) => {
                    for message in self.villain.tamper(&mut self.rng, message) {
                        network.carry_out(Effect::Send(peer, message));
                    }
                }
                Effect::WakeAt(at) => self.wake_at = at,
                Effect::Reply(_, reply) => {
                    assert!(matches!(reply, Ok(Reply::Entered { .. })), "it could not join: {reply:?}");
                    self.shared.joined.store(true, Ordering::Release);
                }
                outward @ (Effect::Publish(..)
                | Effect::Verdict(..)
                | Effect::Dial(_)
                | Effect::Drop(..)
                | Effect::Context(_)) => network.carry_out(outward),
                Effect::Emit(_) => {}
            }
        }
    }

    fn strike(&mut self, network: &Handle, keypair: &Keypair) {
        if self.shared.is_open.swap(false, Ordering::AcqRel) {
            self.villain = Villain::new(Vec::new());
        }
        let count = self.neighbours.len();
        for (at, frame) in self.villain.strike(&mut self.rng, &self.node, keypair, count, now()) {
            // What is no message cannot be put on a real stream from here; decoders have tests of their own for that.
            if let Ok(message) = Message::from_bytes(&frame) {
                network.carry_out(Effect::Send(self.neighbours[at], message));
                self.shared.strikes.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}
