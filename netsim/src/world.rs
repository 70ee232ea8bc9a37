//! The world: hosts, the network between them, and one queue of events in virtual time.
//!
//! Everything that happens follows from the scenario and the seed. Each event is taken into a hash as it happens, so
//! that two runs can be told to be the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use aerolithsdb::PeerId;
use aerolithsdb::access::{Role, Terms, Ticket};
use aerolithsdb::base::{DocumentKey, Encode};
use aerolithsdb::document::Unchecked;
use aerolithsdb::node::{
    Command, CommandId, DropReason, Effect, Event as NodeEvent, Input, Link, LocalDocuments, Reply, Verdict,
};
use aerolithsdb::sync::{self, Checked, Message, Topic};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::check;
use crate::expected::{Deed, Expected};
use crate::host::{Host, Reach};
use crate::hostile::Villain;
use crate::network::{DIAL, IDLE, Network, Path};
use crate::scenario::{Count, Scenario};
use crate::time::{HostClock, Span};
use crate::workload::{Write, Writer};

/// To how many neighbours a gossip message is passed on when the scenario does not say.
const FANOUT: usize = 6;
/// How long a peer that misbehaved is kept out.
const BLOCKED: Span = Span::seconds(600);
/// How often hosts hear of others.
const DISCOVERY: Span = Span::seconds(60);
/// Checked changes that are remembered, so that each is checked once in a run and not once a host.
const CHECKED_MAX: usize = 100_000;

/// What happens at a time.
#[derive(Debug)]
enum Event {
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
enum Arrival {
    Message { from: usize, session: u64, bytes: Bytes },
    Gossip { from: usize, session: u64, id: u64 },
    Closed { from: usize, session: u64 },
    Input(Box<Input>),
}

/// A gossip message under way.
#[derive(Debug)]
struct Gossip {
    secret: [u8; 32],
    bytes: u64,
    changes: Vec<Checked>,
}

/// What a command was for.
#[derive(Debug)]
pub enum Purpose {
    /// A program's write.
    Write(DocumentKey, Deed),
    /// A step of the set-up, or a question of a checker: its reply is kept.
    Ask,
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
    scenario: Scenario,
    by_id: BTreeMap<PeerId, usize>,
    queue: BinaryHeap<Reverse<(Span, u64)>>,
    waiting: BTreeMap<u64, Event>,
    next_event: u64,
    commands: BTreeMap<(usize, CommandId), (u64, Purpose)>,
    next_command: CommandId,
    replies: BTreeMap<(usize, CommandId), aerolithsdb::Result<Reply>>,
    gossip: BTreeMap<u64, Gossip>,
    next_gossip: u64,
    checked: BTreeMap<[u8; 32], Checked>,
    /// What waits for a blocked direction to open again.
    held: BTreeMap<(usize, usize), Vec<Event>>,
    /// Who will hear that the connection to whom is gone, and has not yet.
    leaving: BTreeSet<(usize, usize)>,
    villains: BTreeMap<usize, Villain>,
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
            held: BTreeMap::new(),
            leaving: BTreeSet::new(),
            villains: BTreeMap::new(),
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

    // Time.

    fn at(&mut self, at: Span, event: Event) {
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

    fn note(&mut self, what: &str, host: usize, detail: &[u8]) {
        self.trace.update(what.as_bytes());
        self.trace.update(&self.now.0.to_be_bytes());
        self.trace.update(&(host as u64).to_be_bytes());
        self.trace.update(detail);
    }

    // Hosts.

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
        self.truth.moved(self.now, &self.hosts[host], true);
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
        let hurried = self.hosts[host].handled > 1;
        self.truth.moved(self.now, &self.hosts[host], hurried);
        for effect in effects {
            self.carry_out(host, effect);
        }
        self.work(host);
    }

    // Effects.

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
            | NodeEvent::StorageFailed(_) => {}
        }
    }

    fn replied(&mut self, host: usize, id: CommandId, reply: aerolithsdb::Result<Reply>) {
        let Some((_, purpose)) = self.commands.remove(&(host, id)) else { return };
        let Purpose::Write(document, deed) = purpose else {
            self.replies.insert((host, id), reply);
            return;
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

    // The network.

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        self.send_bytes(from, to, message.to_bytes().into());
    }

    /// Sends bytes on the connection, if there is one.
    pub fn send_bytes(&mut self, from: usize, to: usize, bytes: Bytes) {
        let Some(session) = self.network.session(from, to).map(|session| session.number) else { return };
        match self.network.send(&mut self.rng, self.now, from, to, bytes.len() as u64) {
            Some(at) => {
                let what = Arrival::Message { from, session, bytes };
                let boot = self.hosts[to].boot;
                self.at(at, Event::Arrive { to, boot, what });
            }
            None => self.break_session(from, to),
        }
    }

    fn arrive(&mut self, to: usize, boot: u64, what: Arrival) {
        if self.hosts[to].boot != boot {
            return;
        }
        let (from, session) = match &what {
            Arrival::Message { from, session, .. }
            | Arrival::Gossip { from, session, .. }
            | Arrival::Closed { from, session } => (*from, *session),
            Arrival::Input(_) => {
                if let Arrival::Input(input) = what {
                    self.input(to, *input);
                }
                return;
            }
        };
        if let Arrival::Closed { .. } = what {
            return self.hear_of_the_end(to, from);
        }
        if self.network.session(from, to).is_none_or(|current| current.number != session) {
            return;
        }
        if !self.network.passes(from, to) {
            if let Arrival::Message { .. } = what {
                self.held.entry((from, to)).or_default().push(Event::Arrive { to, boot, what });
            }
            return;
        }
        match what {
            Arrival::Message { bytes, .. } => self.message(from, to, &bytes),
            Arrival::Gossip { id, .. } => self.gossip_arrived(from, to, id),
            Arrival::Closed { .. } | Arrival::Input(_) => {}
        }
    }

    fn message(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.note("message", to, bytes);
        let id = self.hosts[from].id;
        match sync::message::decode(bytes) {
            Ok(Message::Changes { number, changes }) => {
                let changes = self.check(to, changes);
                self.input(to, Input::Changes { from: id, number, changes });
            }
            Ok(message) => self.input(to, Input::Received(id, Box::new(message))),
            // What cannot be read ends the session, as it does in the driver.
            Err(_) => self.break_session(from, to),
        }
    }

    /// Checks changes as a host's workers do. The outcome depends on nothing but the bytes and the mesh, so it is
    /// remembered.
    fn check(&mut self, host: usize, changes: Vec<Unchecked>) -> Vec<Checked> {
        let Some(node) = &self.hosts[host].node else { return Vec::new() };
        let mesh = node.mesh();
        if self.checked.len() > CHECKED_MAX {
            self.checked.clear();
        }
        let mut check = |change: Unchecked| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&mesh.0).update(&change.to_bytes());
            let name = *hasher.finalize().as_bytes();
            if let Some(known) = self.checked.get(&name) {
                return known.clone();
            }
            let checked = sync::check(mesh, vec![change]).remove(0);
            self.checked.insert(name, checked.clone());
            checked
        };
        changes.into_iter().map(&mut check).collect()
    }

    fn dial(&mut self, from: usize, address: String) {
        let to = address.strip_prefix("/sim/").and_then(|rest| rest.split('/').next()).and_then(|n| n.parse().ok());
        let boot = self.hosts[from].boot;
        let Some(to) = to.filter(|to: &usize| *to < self.hosts.len()) else {
            let input = Input::DialFailed(address, "there is no such host".into());
            let what = Arrival::Input(Box::new(input));
            return self.at(self.now + Span::ms(1), Event::Arrive { to: from, boot, what });
        };
        let reachable = self.network.path(&self.hosts, from, to).is_some();
        let after = if reachable { Span(2 * self.network.round_trip().0) } else { DIAL };
        self.at(self.now + after, Event::Dialed { from, boot, to, address });
    }

    fn dialed(&mut self, from: usize, to: usize, address: String) {
        let path = self.network.path(&self.hosts, from, to);
        let kept_out =
            |host: &Host, other: PeerId, now: Span| host.blocked.get(&other).is_some_and(|until| *until > now);
        let refused = kept_out(&self.hosts[to], self.hosts[from].id, self.now)
            || kept_out(&self.hosts[from], self.hosts[to].id, self.now);
        match path {
            Some(path) if self.hosts[to].is_up() && from != to && !refused => {
                if self.network.session(from, to).is_some() {
                    // It is connected, which is what was wanted, unless only the other side thinks so.
                    return;
                }
                self.note("connect", from, &(to as u64).to_be_bytes());
                self.hear_of_the_end(from, to);
                self.hear_of_the_end(to, from);
                self.network.connect(from, to, path);
                for (at, other, dialed) in [(from, to, true), (to, from, false)] {
                    let address = if dialed { address.clone() } else { format!("/sim/{other}/inbound") };
                    let link = Link { address, dialed, direct: path == Path::Direct };
                    self.input(at, Input::Connected(self.hosts[other].id, link));
                }
            }
            Some(_) | None => self.input(from, Input::DialFailed(address, "no answer".into())),
        }
    }

    fn drop_peer(&mut self, host: usize, peer: PeerId, reason: DropReason) {
        let Some(&other) = self.by_id.get(&peer) else { return };
        if reason == DropReason::Misbehaved {
            if !self.hosts[host].is_hostile && !self.hosts[other].is_hostile {
                self.faults.push(format!("{}: peer {host} dropped honest peer {other} for misbehaviour", self.now));
            }
            self.hosts[host].blocked.insert(peer, self.now + BLOCKED);
        }
        // What was sent before still arrives.
        let after = self.network.round_trip();
        self.end_session(host, other, after, &[other]);
    }

    /// Both ends find a connection broken.
    pub fn break_session(&mut self, a: usize, b: usize) {
        self.end_session(a, b, Span(1), &[a, b]);
    }

    /// Ends a connection; those hosts hear of it after a while.
    fn end_session(&mut self, a: usize, b: usize, after: Span, told: &[usize]) {
        let Some(session) = self.network.disconnect(a, b) else { return };
        self.note("disconnect", a, &(b as u64).to_be_bytes());
        self.held.remove(&(a, b));
        self.held.remove(&(b, a));
        for &to in told {
            let from = if to == a { b } else { a };
            let (boot, what) = (self.hosts[to].boot, Arrival::Closed { from, session: session.number });
            self.leaving.insert((to, from));
            self.at(self.now + after, Event::Arrive { to, boot, what });
        }
    }

    /// A host hears that a connection is gone: after a while, or at the latest when there is a new one.
    fn hear_of_the_end(&mut self, to: usize, from: usize) {
        if self.leaving.remove(&(to, from)) {
            self.input(to, Input::Disconnected(self.hosts[from].id));
        }
    }

    /// Blocks directions.
    pub fn block(&mut self, directions: &[(usize, usize)]) {
        for &(from, to) in directions {
            self.network.block(from, to);
            if let Some(session) = self.network.session(from, to).map(|session| session.number) {
                self.at(self.now + IDLE, Event::Idle { a: from, b: to, session });
            }
        }
    }

    /// Opens directions that were blocked; what waited goes on.
    pub fn unblock(&mut self, directions: &[(usize, usize)]) {
        for &(from, to) in directions {
            self.network.unblock(from, to);
            self.release(from, to);
        }
    }

    /// Opens all directions.
    pub fn unblock_all(&mut self) {
        self.network.unblock_all();
        let held: Vec<(usize, usize)> = self.held.keys().copied().collect();
        for (from, to) in held {
            self.release(from, to);
        }
    }

    fn release(&mut self, from: usize, to: usize) {
        if !self.network.passes(from, to) {
            return;
        }
        let at = self.now + self.network.round_trip();
        for event in self.held.remove(&(from, to)).unwrap_or_default() {
            self.at(at, event);
        }
    }

    // Gossip.

    fn publish(&mut self, host: usize, topic: Topic, changes: &[Unchecked]) {
        let Some(node) = &self.hosts[host].node else { return };
        let context = node.context();
        let mut nonce = [0; 24];
        self.rng.fill(&mut nonce[..]);
        let sealed = context.secret.seal(topic, nonce, changes);
        self.note("publish", host, &sealed);
        // Through the wire form, as between real peers; whoever has the secret gets the same.
        let Ok(opened) = context.secret.open(topic, &sealed) else { return };
        let changes = self.check(host, opened);
        self.next_gossip += 1;
        let id = self.next_gossip;
        let message = Gossip { secret: context.secret.to_bytes(), bytes: sealed.len() as u64, changes };
        self.gossip.insert(id, message);
        self.hosts[host].seen.insert(id);
        self.pass_on(host, id, None);
    }

    /// Passes a gossip message on to some neighbours.
    fn pass_on(&mut self, host: usize, id: u64, except: Option<usize>) {
        let Some(bytes) = self.gossip.get(&id).map(|message| message.bytes) else { return };
        let mut others: Vec<usize> = self.network.neighbours(host).iter().copied().collect();
        others.retain(|other| Some(*other) != except);
        let fanout = self.scenario.network.fanout.unwrap_or(FANOUT);
        for _ in 0..fanout.min(others.len()) {
            let to = others.swap_remove(self.rng.random_range(0..others.len()));
            let Some(session) = self.network.session(host, to).map(|session| session.number) else { continue };
            for at in self.network.spread(&mut self.rng, self.now, host, to, bytes) {
                let boot = self.hosts[to].boot;
                self.at(at, Event::Arrive { to, boot, what: Arrival::Gossip { from: host, session, id } });
            }
        }
    }

    fn gossip_arrived(&mut self, from: usize, to: usize, id: u64) {
        if !self.hosts[to].seen.insert(id) {
            return;
        }
        let Some(message) = self.gossip.get(&id) else { return };
        let Some(node) = &self.hosts[to].node else { return };
        if node.context().secret.to_bytes() != message.secret {
            return;
        }
        let input = Input::Published { from: self.hosts[from].id, id, changes: message.changes.clone() };
        self.note("gossip", to, &id.to_be_bytes());
        self.input(to, input);
    }

    // Meeting.

    fn hear_of_others(&mut self, host: usize) {
        let mut others: Vec<usize> = (0..self.hosts.len()).filter(|other| *other != host).collect();
        if let Some(known) = self.scenario.network.known {
            while others.len() > known {
                others.swap_remove(self.rng.random_range(0..others.len()));
            }
        }
        let boot = self.hosts[host].boot;
        for other in others {
            let input = Input::Discovered(self.hosts[other].id, vec![self.hosts[other].address()]);
            let at = self.now + Span::ms(self.rng.random_range(100..1_000));
            self.at(at, Event::Arrive { to: host, boot, what: Arrival::Input(Box::new(input)) });
        }
    }

    /// Has every host hear of others again, as from a search in the network.
    pub fn search(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_up() {
                self.hear_of_others(host);
            }
        }
    }

    /// How often [`World::search`] is due.
    #[must_use]
    pub fn search_interval() -> Span {
        DISCOVERY
    }

    /// Starts everybody and has them join the founder's mesh.
    ///
    /// # Errors
    /// What did not work.
    pub fn found(&mut self) -> Result<(), String> {
        let start = |world: &mut Self, host| world.start(host).map_err(|error| format!("peer {host}: {error}"));
        start(self, 0)?;
        self.run_until(self.now + Span::ms(100));
        let mut tickets = Vec::new();
        for role in [Role::Writer, Role::Reader] {
            let expires = self.hosts[0].clock.shows(self.now).plus_ms(24 * 60 * 60 * 1_000);
            let terms = Terms { role, expires, uses: 1_000 };
            let addresses = vec![self.hosts[0].address()];
            let id = self.command(0, Command::Invite { terms, addresses }, Purpose::Ask);
            self.run_until(self.now + Span::seconds(1));
            match self.reply(0, id) {
                Some(Ok(Reply::Ticket(ticket))) => tickets.push(*ticket),
                other => return Err(format!("the founder gave no ticket: {other:?}")),
            }
        }
        for host in 1..self.hosts.len() {
            start(self, host)?;
        }
        let waiting: Vec<usize> = (1..self.hosts.len()).collect();
        self.join(&tickets, waiting)?;
        self.search();
        Ok(())
    }

    /// Has hosts join, again when it does not work at once.
    fn join(&mut self, tickets: &[Ticket], mut waiting: Vec<usize>) -> Result<(), String> {
        let mut why = String::new();
        for _ in 0..20 {
            let mut asked = Vec::new();
            for host in std::mem::take(&mut waiting) {
                let ticket = &tickets[usize::from(self.hosts[host].role == Role::Reader)];
                let join = Command::Join { ticket: Box::new(ticket.clone()), local: LocalDocuments::Leave };
                asked.push((host, self.command(host, join, Purpose::Ask)));
            }
            self.run_until(self.now + Span::seconds(25));
            for (host, id) in asked {
                match self.reply(host, id) {
                    Some(Ok(_)) => {}
                    other => {
                        why = format!("{other:?}");
                        waiting.push(host);
                    }
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
        }
        Err(format!("peers {waiting:?} could not join: {why}"))
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
        if self.hosts[host].is_up() {
            for (to, bytes) in villain.strike(&mut self.rng, &mut self.hosts[host], &neighbours, self.now) {
                self.send_bytes(host, to, bytes);
            }
        }
        self.villains.insert(host, villain);
    }
}
