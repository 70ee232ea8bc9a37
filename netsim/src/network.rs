//! The network between the hosts: who reaches whom, connections, and when what is sent arrives.
//!
//! A connection is what libp2p makes of QUIC or TCP: two streams that keep their order and lose nothing, until it
//! breaks. When packets stop getting through, what was sent waits; when that lasts, both ends give up.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::host::{Host, Reach};
use crate::link::Pipe;
use crate::scenario::Line;
use crate::time::Span;

/// How long a connection lives without a packet.
pub const IDLE: Span = Span::seconds(12);
/// How long a dial waits for an answer.
pub const DIAL: Span = Span::seconds(10);
/// Bytes that wait on one connection at most; beyond that it breaks.
const WAITING_BYTES_MAX: u64 = 16 << 20;

/// How two hosts are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Without anybody in between.
    Direct,
    /// Through a public host.
    Relayed(usize),
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    /// Its number: what was sent on an earlier one does not arrive on a later one.
    pub number: u64,
    /// How it is made.
    pub path: Path,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    line: Line,
    pipes: BTreeMap<(usize, usize), Pipe>,
    /// When a host has sent what it has to send.
    uplink: Vec<Span>,
    sessions: BTreeMap<(usize, usize), Session>,
    adjacent: Vec<BTreeSet<usize>>,
    next_session: u64,
    /// Directions in which nothing gets through, and for how many reasons.
    blocked: BTreeMap<(usize, usize), u32>,
    /// Bytes sent.
    pub bytes: u64,
    /// Messages sent.
    pub messages: u64,
    /// The longest that anything waited to be sent.
    pub backlog_max: Span,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    /// A network of so many hosts, without connections.
    #[must_use]
    pub fn new(line: Line, hosts: usize) -> Self {
        Self {
            line,
            pipes: BTreeMap::new(),
            uplink: vec![Span::default(); hosts],
            sessions: BTreeMap::new(),
            adjacent: vec![BTreeSet::new(); hosts],
            next_session: 0,
            blocked: BTreeMap::new(),
            bytes: 0,
            messages: 0,
            backlog_max: Span::default(),
        }
    }

    /// The time of a round trip.
    #[must_use]
    pub fn round_trip(&self) -> Span {
        self.line.latency + self.line.latency + self.line.jitter
    }

    /// How the first host can reach the second one now, by the rules of their NATs.
    #[must_use]
    pub fn path(&self, hosts: &[Host], from: usize, to: usize) -> Option<Path> {
        let direct = match (hosts[from].reach, hosts[to].reach) {
            (_, Reach::Public) => true,
            (Reach::Public | Reach::Cone, Reach::Cone | Reach::Symmetric) | (Reach::Symmetric, Reach::Cone) => {
                self.relay(hosts, from, to).is_some()
            }
            (Reach::Symmetric, Reach::Symmetric) | (Reach::RelayOnly, _) | (_, Reach::RelayOnly) => false,
        };
        if direct && self.passes(from, to) && self.passes(to, from) {
            return Some(Path::Direct);
        }
        if direct { None } else { self.relay(hosts, from, to).map(Path::Relayed) }
    }

    /// A public host that both are connected to.
    fn relay(&self, hosts: &[Host], a: usize, b: usize) -> Option<usize> {
        let usable = |relay: &usize| {
            let host = &hosts[*relay];
            let near = |end| {
                self.sessions.contains_key(&pair(*relay, end)) && self.passes(*relay, end) && self.passes(end, *relay)
            };
            *relay != a && *relay != b && host.is_up() && host.reach == Reach::Public && near(a) && near(b)
        };
        (0..hosts.len()).find(usable)
    }

    /// Whether packets get through in a direction.
    #[must_use]
    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains_key(&(from, to))
    }

    /// Blocks a direction, once more.
    pub fn block(&mut self, from: usize, to: usize) {
        *self.blocked.entry((from, to)).or_default() += 1;
    }

    /// Takes one reason back for which a direction is blocked.
    pub fn unblock(&mut self, from: usize, to: usize) {
        if let Some(reasons) = self.blocked.get_mut(&(from, to)) {
            *reasons -= 1;
            if *reasons == 0 {
                self.blocked.remove(&(from, to));
            }
        }
    }

    /// Unblocks everything.
    pub fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    /// The connection of two hosts.
    #[must_use]
    pub fn session(&self, a: usize, b: usize) -> Option<&Session> {
        self.sessions.get(&pair(a, b))
    }

    /// All pairs of connected hosts.
    #[must_use]
    pub fn pairs(&self) -> Vec<(usize, usize)> {
        self.sessions.keys().copied().collect()
    }

    /// Whom a host is connected to.
    #[must_use]
    pub fn neighbours(&self, of: usize) -> &BTreeSet<usize> {
        &self.adjacent[of]
    }

    /// Connects two hosts; an earlier connection of theirs is gone.
    pub fn connect(&mut self, a: usize, b: usize, path: Path) -> u64 {
        self.next_session += 1;
        for direction in [(a, b), (b, a)] {
            self.pipes.entry(direction).or_default().begin();
        }
        self.adjacent[a].insert(b);
        self.adjacent[b].insert(a);
        self.sessions.insert(pair(a, b), Session { number: self.next_session, path });
        self.next_session
    }

    /// Ends the connection of two hosts.
    pub fn disconnect(&mut self, a: usize, b: usize) -> Option<Session> {
        self.adjacent[a].remove(&b);
        self.adjacent[b].remove(&a);
        self.sessions.remove(&pair(a, b))
    }

    /// The connections that go through a host.
    #[must_use]
    pub fn through(&self, relay: usize) -> Vec<(usize, usize)> {
        let goes = |(_, session): &(&(usize, usize), &Session)| session.path == Path::Relayed(relay);
        self.sessions.iter().filter(goes).map(|(pair, _)| *pair).collect()
    }

    /// When a message arrives on the connection; `None` when too much waits to be sent, and it breaks.
    pub fn send(&mut self, rng: &mut StdRng, now: Span, from: usize, to: usize, bytes: u64) -> Option<Span> {
        let line = self.line_of(from, to);
        let leaves = self.leave(now, from, bytes);
        if (leaves - now).0 / 8 * self.line.rate_kbit / 1_000 > WAITING_BYTES_MAX {
            return None;
        }
        Some(self.pipes.entry((from, to)).or_default().stream(&line, rng, leaves, bytes))
    }

    /// When a gossip message arrives: not at all, once or twice.
    pub fn spread(&mut self, rng: &mut StdRng, now: Span, from: usize, to: usize, bytes: u64) -> Vec<Span> {
        let waits = (self.uplink[from] - now).0 / 8 * self.line.rate_kbit / 1_000;
        if waits > self.line.buffer_kib << 10 {
            return Vec::new();
        }
        let line = self.line_of(from, to);
        let leaves = self.leave(now, from, bytes);
        self.pipes.entry((from, to)).or_default().datagram(&line, rng, leaves, bytes)
    }

    fn line_of(&self, a: usize, b: usize) -> Line {
        let relayed = self.session(a, b).is_some_and(|session| session.path != Path::Direct);
        let latency = if relayed { self.line.latency + self.line.latency } else { self.line.latency };
        Line { latency, ..self.line }
    }

    fn leave(&mut self, now: Span, from: usize, bytes: u64) -> Span {
        self.bytes += bytes;
        self.messages += 1;
        let starts = self.uplink[from].max(now);
        self.uplink[from] = starts + Span(bytes * 8_000 / self.line.rate_kbit);
        self.backlog_max = self.backlog_max.max(starts - now);
        self.uplink[from]
    }

    /// Splits hosts in two at random, neither part empty.
    pub fn halves(rng: &mut StdRng, hosts: usize) -> BTreeSet<usize> {
        let mut half: BTreeSet<usize> = (0..hosts).filter(|_| rng.random_bool(0.5)).collect();
        if half.is_empty() || half.len() == hosts {
            half = BTreeSet::from([rng.random_range(0..hosts)]);
        }
        half
    }
}
