//! The world: hosts, the network between them, and one queue of events in virtual time.
//!
//! Everything that happens follows from the scenario and the seed. Each event is taken into a hash as it happens, so
//! that two runs can be told to be the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use aerolithsdb::PeerId;
use aerolithsdb::access::{Member, Rejected, Role};
use aerolithsdb::base::{DocumentKey, GrantId, Timestamp};
use aerolithsdb::node::{Command, CommandId, Effect, Event as NodeEvent, Input, Reply, Verdict};
use aerolithsdb::sync::Checked;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::check;
use crate::expected::{Deed, Expected};
use crate::gossip::Gossip;
use crate::host::{Host, Reach};
use crate::hostile::Villain;
use crate::network::{IDLE, Network};
use crate::scenario::{Count, Scenario};
use crate::time::{HostClock, Span};
use crate::workload::{Write, Writer};

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something reaches a host.
    Arrive { to: usize, boot: u64, what: Arrival },
    /// A host wants to be called.
    Wake { host: usize, boot: u64 },
    /// A host's disk is done.
    Ready { host: usize, boot: u64 },
    /// A dial has got through, or not.
    Dialed { from: usize, boot: u64, to: usize, address: String },
    /// A direction has been blocked for long.
    Idle { a: usize, b: usize, session: u64 },
    /// Somebody set an alarm.
    Alarm(u64),
}

/// Something that reaches a host.
#[derive(Debug)]
pub(crate) enum Arrival {
    Message { from: usize, session: u64, bytes: Bytes },
    Gossip { from: usize, session: u64, id: u64 },
    Closed { from: usize, session: u64 },
    Input(Box<Input>),
}

/// What a command was for.
#[derive(Debug)]
pub enum Purpose {
    /// A program's write.
    Write(DocumentKey, Deed),
    /// A step of the set-up, or a question of a checker: its reply is kept.
    Ask,
    /// Something that may fail, and of which nothing is expected but what the checks find at the end.
    Tend,
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// The time.
    pub now: Span,
    /// The machines.
    pub hosts: Vec<Host>,
    /// What is between them.
    pub network: Network,
    /// Where everything random comes from.
    pub rng: StdRng,
    /// What the hosts were told.
    pub expected: Expected,
    /// What was found wrong while it ran.
    pub faults: Vec<String>,
    /// Makes writes.
    pub writer: Writer,
    /// Events handled.
    pub events: u64,
    pub(crate) scenario: Scenario,
    pub(crate) by_id: BTreeMap<PeerId, usize>,
    queue: BinaryHeap<Reverse<(Span, u64)>>,
    waiting: BTreeMap<u64, Event>,
    next_event: u64,
    commands: BTreeMap<(usize, CommandId), (u64, Purpose)>,
    next_command: CommandId,
    pub(crate) replies: BTreeMap<(usize, CommandId), aerolithsdb::Result<Reply>>,
    pub(crate) gossip: BTreeMap<u64, Gossip>,
    pub(crate) next_gossip: u64,
    pub(crate) checked: BTreeMap<[u8; 32], Checked>,
    pub(crate) introduced: BTreeMap<GrantId, Result<Member, Rejected>>,
    /// What waits for a blocked direction to open again.
    pub(crate) held: BTreeMap<(usize, usize), Vec<Event>>,
    /// Who will hear that the connection to whom is gone, and has not yet.
    pub(crate) leaving: BTreeSet<(usize, usize)>,
    pub(crate) villains: BTreeMap<usize, Villain>,
    /// Documents that expire, and the times that they carry.
    pub(crate) dated: Vec<(DocumentKey, Timestamp)>,
    truth: check::Truth,
    trace: blake3::Hasher,
    alarms: Vec<u64>,
}

impl World {
    /// A world with its hosts, none of them started.
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = match scenario.peers {
            Count::Exactly(peers) => peers,
            Count::Between(least, most) => rng.random_range(least..=most),
        };
        let mut hosts: Vec<Host> = (0..count).map(|number| Host::new(number, &mut rng)).collect();
        let (skew, drift) = (scenario.clocks.skew.as_ms() as i64, i64::from(scenario.clocks.drift_ppm));
        for host in &mut hosts {
            host.clock =
                HostClock { skew_ms: rng.random_range(-skew..=skew), drift_ppm: rng.random_range(-drift..=drift) };
            host.flush = scenario.disk.flush;
        }
        for host in hosts.iter_mut().rev().take(scenario.clocks.wrong) {
            host.clock.skew_ms += scenario.clocks.wrong_by.as_ms() as i64;
        }
        for host in hosts.iter_mut().rev().take(scenario.disk.slow) {
            host.flush = scenario.disk.slow_flush;
        }
        for host in hosts.iter_mut().rev().take(scenario.readers) {
            host.role = Role::Reader;
        }
        let nat = scenario.nat;
        let kinds = [(nat.cone, Reach::Cone), (nat.symmetric, Reach::Symmetric), (nat.relay_only, Reach::RelayOnly)];
        let kinds = kinds.into_iter().flat_map(|(many, kind)| std::iter::repeat_n(kind, many));
        hosts.iter_mut().skip(1).zip(kinds).for_each(|(host, kind)| host.reach = kind);
        Self {
            now: Span::default(),
            network: Network::new(scenario.network.line(), count),
            by_id: hosts.iter().map(|host| (host.id, host.number)).collect(),
            hosts,
            rng,
            expected: Expected::default(),
            faults: Vec::new(),
            writer: Writer::new(&scenario.workload),
            events: 0,
            scenario: scenario.clone(),
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            next_event: 0,
            commands: BTreeMap::new(),
            next_command: 0,
            replies: BTreeMap::new(),
            gossip: BTreeMap::new(),
            next_gossip: 0,
            checked: BTreeMap::new(),
            introduced: BTreeMap::new(),
            held: BTreeMap::new(),
            leaving: BTreeSet::new(),
            villains: BTreeMap::new(),
            dated: Vec::new(),
            truth: check::Truth::default(),
            trace: blake3::Hasher::new(),
            alarms: Vec::new(),
        }
    }

    /// The hash of everything that has happened.
    #[must_use]
    pub fn trace(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.trace.finalize().as_bytes()[..16])
    }

    /// The hosts that do what honest peers do.
    pub fn honest(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| !host.is_hostile)
    }

    pub(crate) fn at(&mut self, at: Span, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse((at.max(self.now), self.next_event)));
        self.waiting.insert(self.next_event, event);
    }

    /// Has [`World::run_until`] return at a time, with this number.
    pub fn alarm(&mut self, at: Span, number: u64) {
        self.at(at, Event::Alarm(number));
    }

    /// Lets time pass until an alarm, which it returns, or until a time.
    pub fn run_until(&mut self, end: Span) -> Option<u64> {
        while let Some(&Reverse((at, number))) = self.queue.peek() {
            if at > end {
                break;
            }
            self.queue.pop();
            let Some(event) = self.waiting.remove(&number) else { continue };
            self.now = self.now.max(at);
            self.events += 1;
            self.happen(event);
            if let Some(alarm) = self.alarms.pop() {
                return Some(alarm);
            }
        }
        self.now = self.now.max(end);
        None
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { to, boot, what } => self.arrive(to, boot, what),
            Event::Wake { host, boot } => {
                let of = &mut self.hosts[host];
                if of.boot == boot && of.wake_at.is_some_and(|at| at <= self.now) {
                    of.wake_at = None;
                    of.arrive(Input::Wake);
                    self.work(host);
                }
            }
            Event::Ready { host, boot } => {
                if self.hosts[host].boot == boot {
                    self.ready(host);
                }
            }
            Event::Dialed { from, boot, to, address } => {
                if self.hosts[from].boot == boot {
                    self.dialed(from, to, address);
                }
            }
            Event::Idle { a, b, session } => {
                let blocked = !self.network.passes(a, b) || !self.network.passes(b, a);
                if blocked && self.network.session(a, b).is_some_and(|held| held.number == session) {
                    self.break_session(a, b);
                }
            }
            Event::Alarm(number) => self.alarms.push(number),
        }
    }

    pub(crate) fn note(&mut self, what: &str, host: usize, detail: &[u8]) {
        self.trace.update(what.as_bytes());
        self.trace.update(&self.now.0.to_be_bytes());
        self.trace.update(&(host as u64).to_be_bytes());
        self.trace.update(detail);
    }

    /// Starts a host.
    ///
    /// # Errors
    /// When its node does not open on what is on its disk.
    pub fn start(&mut self, host: usize) -> aerolithsdb::Result<()> {
        if self.hosts[host].is_up() {
            return Ok(());
        }
        let started = self.hosts[host].start(self.now, &mut self.rng);
        self.note("start", host, &[u8::from(started.is_ok())]);
        started?;
        self.truth.moved(self.now, &self.hosts[host]);
        self.hear_of_others(host);
        self.input(host, Input::Wake);
        Ok(())
    }

    /// Ends a host's process. Its connections break: at once when the machine goes on, after a while when it is gone.
    pub fn stop(&mut self, host: usize, gone: bool) {
        if !self.hosts[host].is_up() {
            return;
        }
        self.note("stop", host, &[u8::from(gone)]);
        if gone {
            self.hosts[host].disk.cut_power();
        }
        self.hosts[host].stop();
        self.leaving.retain(|(to, _)| *to != host);
        self.forget_commands(host);
        let after = if gone { IDLE } else { self.network.round_trip() };
        let neighbours: Vec<usize> = self.network.neighbours(host).iter().copied().collect();
        for other in neighbours {
            self.end_session(host, other, after, &[other]);
        }
        for (a, b) in self.network.through(host) {
            self.end_session(a, b, after, &[a, b]);
        }
    }

    /// What was asked of a host before it died: nobody knows.
    fn forget_commands(&mut self, host: usize) {
        let lost: Vec<(usize, CommandId)> =
            self.commands.range((host, 0)..(host + 1, 0)).map(|(key, _)| *key).collect();
        for key in lost {
            if let Some((_, Purpose::Write(document, deed))) = self.commands.remove(&key) {
                self.expected.unknown(document, deed);
            }
        }
    }

    /// Gives a host something to do at once.
    pub fn input(&mut self, host: usize, input: Input) {
        self.hosts[host].arrive(input);
        self.work(host);
    }

    /// Has a host do a command.
    pub fn command(&mut self, host: usize, command: Command, purpose: Purpose) -> CommandId {
        self.next_command += 1;
        let id = self.next_command;
        self.commands.insert((host, id), (self.hosts[host].boot, purpose));
        self.input(host, Input::Command(id, command));
        id
    }

    /// Has a program at a host write.
    pub fn write(&mut self, host: usize, write: Write) {
        self.command(host, write.command, Purpose::Write(write.document, write.deed));
    }

    /// Takes the reply to a command that was asked.
    pub fn reply(&mut self, host: usize, id: CommandId) -> Option<aerolithsdb::Result<Reply>> {
        self.replies.remove(&(host, id))
    }

    fn work(&mut self, host: usize) {
        let of = &mut self.hosts[host];
        if of.busy || !of.is_up() || !of.has_work() {
            return;
        }
        if let Some(takes) = of.handle(self.now, &mut self.rng) {
            of.busy = true;
            let boot = of.boot;
            self.at(self.now + takes, Event::Ready { host, boot });
        }
    }

    fn ready(&mut self, host: usize) {
        let of = &mut self.hosts[host];
        of.busy = false;
        let effects = std::mem::take(&mut of.pending);
        if !of.disk.is_powered() {
            // The power went in the middle of it: nobody hears of what was done.
            return self.stop(host, true);
        }
        self.truth.moved(self.now, &self.hosts[host]);
        for effect in effects {
            self.carry_out(host, effect);
        }
        self.work(host);
    }

    fn carry_out(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Send(peer, message) => {
                if let Some(&to) = self.by_id.get(&peer) {
                    let messages = match self.villains.get_mut(&host) {
                        Some(villain) => villain.tamper(&mut self.rng, message),
                        None => vec![message],
                    };
                    for message in messages {
                        self.send(host, to, &message);
                    }
                }
            }
            Effect::Publish(topic, changes) => self.publish(host, topic, &changes),
            Effect::Verdict(id, Verdict::Accept) => self.pass_on(host, id, None),
            Effect::Verdict(_, Verdict::Ignore | Verdict::Reject) => {}
            Effect::Dial(address) => self.dial(host, address),
            Effect::Drop(peer, reason) => self.drop_peer(host, peer, reason),
            Effect::WakeAt(at) => {
                let of = &mut self.hosts[host];
                let (at, boot) = (of.clock.when(self.now, at), of.boot);
                of.wake_at = Some(at);
                self.at(at, Event::Wake { host, boot });
            }
            Effect::Emit(event) => self.emitted(host, &event),
            Effect::Reply(id, reply) => self.replied(host, id, reply),
            Effect::Context(_) => {}
        }
    }

    fn emitted(&mut self, host: usize, event: &NodeEvent) {
        match event {
            NodeEvent::InSync(peer) => {
                let Some(&other) = self.by_id.get(peer) else { return };
                if !self.hosts[host].is_hostile && !self.hosts[other].is_hostile && !self.truth.were_equal(host, other)
                {
                    let text =
                        format!("{}: peer {host} said that it was in sync with {other}, and never was", self.now);
                    self.faults.push(text);
                }
            }
            NodeEvent::Changed { .. }
            | NodeEvent::PeerUp(_)
            | NodeEvent::PeerDown(_)
            | NodeEvent::PeerDropped(..)
            | NodeEvent::MemberJoined(_)
            | NodeEvent::MemberFell(_)
            | NodeEvent::StorageFailed(_) => {}
        }
    }

    fn replied(&mut self, host: usize, id: CommandId, reply: aerolithsdb::Result<Reply>) {
        let Some((_, purpose)) = self.commands.remove(&(host, id)) else { return };
        let (document, deed) = match purpose {
            Purpose::Write(document, deed) => (document, deed),
            Purpose::Ask => {
                self.replies.insert((host, id), reply);
                return;
            }
            Purpose::Tend => return,
        };
        match reply {
            Ok(Reply::Written(_, record)) => {
                let heads: Vec<u8> = record.heads.iter().flat_map(|head| head.0).collect();
                self.note("written", host, &heads);
                if self.hosts[host].role == Role::Reader {
                    self.faults.push(format!("{}: peer {host} may only read, and wrote {document}", self.now));
                }
                self.expected.acknowledged(document, &record.heads, host, &deed);
            }
            // Refused before anything was done.
            Err(
                aerolithsdb::Error::NotFound(_)
                | aerolithsdb::Error::Denied(_)
                | aerolithsdb::Error::Invalid(_)
                | aerolithsdb::Error::Conflict(_),
            ) => {}
            Ok(_) | Err(_) => self.expected.unknown(document, deed),
        }
    }

    /// Makes a host hostile.
    pub fn corrupt(&mut self, host: usize, villain: Villain) {
        self.hosts[host].is_hostile = true;
        self.villains.insert(host, villain);
    }

    /// Has a hostile host do something.
    pub fn strike(&mut self, host: usize) {
        let Some(mut villain) = self.villains.remove(&host) else { return };
        let neighbours: Vec<usize> = self.network.neighbours(host).iter().copied().collect();
        let of = &self.hosts[host];
        if let Some(node) = &of.node {
            let (keypair, at) = (of.keypair(), of.clock.shows(self.now));
            for (to, bytes) in villain.strike(&mut self.rng, node, &keypair, neighbours.len(), at) {
                self.send_bytes(host, neighbours[to], bytes);
            }
        }
        self.villains.insert(host, villain);
    }
}
