//! One simulated machine: the node that ships, a simulated disk under it, a clock of its own, and the queue in front
//! of it.
//!
//! A host works as the peer's own loop does: what arrives waits while the node is busy, and is then handled in one go,
//! sharing one flush. How long that takes is what the disk takes. When a host dies in between, what the node did is on
//! its disk as far as it was synced, and nobody hears of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Add;
use std::sync::Arc;

use aerolithsdb::PeerId;
use aerolithsdb::access::Role;
use aerolithsdb::identity::Keypair;
use aerolithsdb::kv::faulty::FaultyDisk;
use aerolithsdb::kv::{Checkpoints, Durability, JournalConfig, Journaled, Kv as _};
use aerolithsdb::limits::BATCH_INPUTS_MAX;
use aerolithsdb::node::{Config, Counters, Effect, Input, Node};
use aerolithsdb::store::Loss;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use serde::Serialize;

use crate::check;
use crate::memory::Account;
use crate::time::{HostClock, Span};

/// Bytes of a segment of the journal: small, so that tables are moved often.
const SEGMENT_BYTES: usize = 128 << 10;
/// What handling inputs takes when nothing is flushed.
const HANDLING: Span = Span(40);

/// How a host can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By everybody.
    Public,
    /// Through a hole, unless the other side is symmetric as well.
    Cone,
    /// Through a hole by those who are not symmetric.
    Symmetric,
    /// Through a public peer only.
    RelayOnly,
}

/// One simulated machine.
#[derive(Debug)]
pub struct Host {
    /// Its number, from 0.
    pub number: usize,
    /// Its identity.
    pub id: PeerId,
    keypair_seed: [u8; 32],
    /// What it may do.
    pub role: Role,
    /// How it can be reached.
    pub reach: Reach,
    /// Its clock.
    pub clock: HostClock,
    /// Its disk.
    pub disk: FaultyDisk,
    /// How long a flush takes at most.
    pub flush: Span,
    /// The node, while the process runs.
    pub node: Option<Node>,
    /// How often it was started: what was meant for an earlier life does not arrive in a later one.
    pub boot: u64,
    /// Effects that leave when the disk is done.
    pub pending: Vec<Effect>,
    /// Whether the disk is at it.
    pub busy: bool,
    inbox: VecDeque<Input>,
    /// The most inputs that ever waited.
    pub inbox_max: usize,
    /// What it had after each input but the last that it handled in one go, see [`check::fingerprint`].
    pub passed: Vec<u64>,
    /// The most bytes of memory that its node ever held.
    pub memory_max: i64,
    /// Changes that came to its earlier lives, and those of them that were there already.
    came_before: Came,
    account: Account,
    /// When the node wants to be called again.
    pub wake_at: Option<Span>,
    /// Gossip messages that it has seen.
    pub seen: BTreeSet<u64>,
    /// Peers that it keeps out, and until when.
    pub blocked: BTreeMap<PeerId, Span>,
    /// Whether it does what no honest peer does.
    pub is_hostile: bool,
    /// Whether its disk went back to an earlier state.
    pub was_restored: bool,
    /// A copy of its disk.
    pub backup: Option<FaultyDisk>,
}

/// Changes that came from others.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Came {
    /// All of them that were looked at.
    pub all: u64,
    /// Those of them that were there already, and came again over gossip.
    pub twice_by_gossip: u64,
    /// Likewise, over a connection on which both sides had been found equal before.
    pub twice_by_comparing: u64,
    /// Likewise, over a new connection, before both sides were found equal on it.
    pub twice_by_reconnecting: u64,
    /// Besides, copies of gossip messages that had come before: gossip drops them without a look.
    pub copies: u64,
}

impl Came {
    /// Those that were there already.
    #[must_use]
    pub fn twice(&self) -> u64 {
        self.twice_by_gossip + self.twice_by_comparing + self.twice_by_reconnecting
    }
}

impl Add for Came {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            twice_by_gossip: self.twice_by_gossip + other.twice_by_gossip,
            twice_by_comparing: self.twice_by_comparing + other.twice_by_comparing,
            twice_by_reconnecting: self.twice_by_reconnecting + other.twice_by_reconnecting,
            copies: self.copies + other.copies,
        }
    }
}

impl Host {
    /// A machine that was never started.
    #[must_use]
    pub fn new(number: usize, rng: &mut StdRng) -> Self {
        let mut keypair_seed = [0; 32];
        rng.fill_bytes(&mut keypair_seed);
        Self {
            number,
            id: Keypair::from_seed(keypair_seed).peer_id(),
            keypair_seed,
            role: Role::Writer,
            reach: Reach::Public,
            clock: HostClock::default(),
            disk: FaultyDisk::new(rng.random()),
            flush: Span::ms(1),
            node: None,
            boot: 0,
            pending: Vec::new(),
            busy: false,
            inbox: VecDeque::new(),
            inbox_max: 0,
            passed: Vec::new(),
            memory_max: 0,
            came_before: Came::default(),
            account: Account::open(),
            wake_at: None,
            seen: BTreeSet::new(),
            blocked: BTreeMap::new(),
            is_hostile: false,
            was_restored: false,
            backup: None,
        }
    }

    /// What came from others, in this life and before.
    #[must_use]
    pub fn came(&self) -> Came {
        let now = self.node.as_ref().map_or_else(Came::default, |node| {
            let Counters { applied, known, .. } = node.counters();
            Came {
                all: applied + known.all(),
                twice_by_gossip: known.gossip,
                twice_by_comparing: known.comparing,
                twice_by_reconnecting: known.reconnecting,
                copies: 0,
            }
        });
        self.came_before + now
    }

    /// Takes note of a copy of a gossip message with so many changes, which gossip drops.
    pub fn copied(&mut self, changes: usize) {
        self.came_before.copies += changes as u64;
    }

    /// Its identity.
    #[must_use]
    pub fn keypair(&self) -> Keypair {
        Keypair::from_seed(self.keypair_seed)
    }

    /// Whether its process runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("/sim/{}/p2p/{}", self.number, self.id)
    }

    /// Starts its process.
    ///
    /// # Errors
    /// When the node does not open on what is on the disk.
    pub fn start(&mut self, now: Span, rng: &mut StdRng) -> Result<(), aerolithsdb::Error> {
        if !self.disk.is_powered() {
            self.disk.restart();
        }
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let journal = JournalConfig {
            durability: Durability::Durable,
            checkpoints: Checkpoints::Inline,
            segment_bytes: SEGMENT_BYTES,
            salt: rng.random(),
        };
        let opened = self.account.charge(|| Journaled::open(self.disk.table(), self.disk.medium(), journal));
        let (kv, damages) = opened?;
        let config = Config {
            keypair: self.keypair(),
            seed,
            mesh_name: "simulated".into(),
            synced: true,
            loss: Loss::of(Durability::Durable, &damages),
            fresh: self.boot == 0,
            seeds: Vec::new(),
        };
        self.boot += 1;
        let at = self.clock.shows(now);
        self.passed.clear();
        self.node = Some(self.account.charge(|| Node::open(config, Arc::new(kv), at))?);
        Ok(())
    }

    /// Ends its process, whatever it was at. What is on its disk stays.
    pub fn stop(&mut self) {
        self.came_before = self.came();
        self.node = None;
        self.boot += 1;
        self.inbox.clear();
        self.pending.clear();
        self.busy = false;
        self.wake_at = None;
        self.seen.clear();
        self.disk.kill();
    }

    /// Has something wait for the node.
    pub fn arrive(&mut self, input: Input) {
        if self.is_up() {
            self.inbox.push_back(input);
            self.inbox_max = self.inbox_max.max(self.inbox.len());
        }
    }

    /// Whether something waits.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Has the node handle what waits. Says how long that takes; the effects are in `pending` then.
    pub fn handle(&mut self, now: Span, rng: &mut StdRng) -> Option<Span> {
        let node = self.node.as_mut()?;
        let count = self.inbox.len().min(BATCH_INPUTS_MAX);
        let operations = self.disk.operations();
        let (reader, passed, at) = (node.reader(), &mut self.passed, self.clock.shows(now));
        passed.clear();
        let inputs = self.inbox.drain(..count).inspect(|_| passed.push(check::fingerprint(&reader)));
        self.pending = self.account.charge(|| node.handle(at, inputs)).0;
        let disk = self.disk.medium().size_bytes() + self.disk.table().size_bytes();
        self.memory_max = self.memory_max.max(self.account.held() - disk as i64);
        let wrote = self.disk.operations() != operations;
        Some(if wrote { Span(rng.random_range(self.flush.0 / 4..=self.flush.0.max(4))) } else { HANDLING })
    }
}
