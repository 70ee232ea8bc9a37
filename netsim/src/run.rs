//! One run: the mesh is founded, there is work and trouble, everything is mended, and everybody must come to the same.

use std::collections::BTreeMap;
use std::ops::Add;
use std::time::Instant;

use aerolithsdb::access::Role;
use aerolithsdb::base::DocumentKey;
use aerolithsdb::kv::faulty::Faults;
use aerolithsdb::store::{Opened, Reader};
use rand::RngExt;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::check;
use crate::data;
use crate::host::{Came, Host};
use crate::hostile::Villain;
use crate::network::Network;
use crate::scenario::{Act, Recurring, Scenario};
use crate::time::Span;
use crate::workload;
use crate::world::{Purpose, World};

/// How often it is looked whether everybody is equal.
const POLL: Span = Span::ms(100);
/// How long the mesh may take until it is founded and prepared.
const PREPARATION: Span = Span::seconds(300);
/// How long everybody goes on after that: until all have compared once more.
const QUIET: Span = Span::seconds(50);
/// When a start is tried again that failed because of the disk.
const RETRY: Span = Span::seconds(2);
/// Edits of one step are spread over this time.
const STEP: Span = Span::seconds(2);

/// What became of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Peers.
    pub peers: usize,
    /// What is wrong; nothing, when all is well.
    pub wrong: Vec<String>,
    /// Virtual milliseconds from the end of work until all were equal.
    pub converged_ms: Option<u64>,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Writes that failed, or of which nobody knows.
    pub failures: u64,
    /// What went wrong on purpose, by kind.
    pub injected: BTreeMap<&'static str, u64>,
    /// Documents at the end.
    pub documents: u64,
    /// Messages between peers.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Changes that came to honest peers.
    pub came: Came,
    /// Events of the simulation.
    pub events: u64,
    /// The most inputs that waited at one peer.
    pub inbox_max: usize,
    /// The most bytes of memory that one honest peer held, beside what is on its disk; 0 when nobody counts.
    pub memory_max: i64,
    /// Virtual milliseconds of the whole run.
    pub virtual_ms: u64,
    /// Real milliseconds.
    pub real_ms: u64,
    /// The hash of everything that happened.
    pub trace: String,
}

/// What is done when an alarm rings.
#[derive(Debug, Clone)]
enum Plan {
    Write,
    Index,
    WriteAt(usize, bool),
    Step(Act),
    Search,
    Strike(usize),
    Fault(Kind, Recurring),
    Open(Vec<(usize, usize)>),
    Flap(Vec<(usize, usize)>, u32),
    Start(usize),
    Mend(usize),
    Restart(usize, Span),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Partition,
    Crash,
    Absence,
    FullDisk,
    FailingDisk,
    Rot,
    Cut,
}

struct Director<'a> {
    scenario: &'a Scenario,
    world: World,
    plans: BTreeMap<u64, Plan>,
    next_plan: u64,
    injected: BTreeMap<&'static str, u64>,
    /// Peers that a step has taken away.
    away: Vec<bool>,
    partition: Vec<(usize, usize)>,
    /// Whose disk has something to go wrong.
    armed: Vec<bool>,
}

/// Runs a scenario with a seed.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64) -> Outcome {
    let started = Instant::now();
    let world = World::new(scenario, seed);
    let peers = world.hosts.len();
    let mut director = Director {
        scenario,
        world,
        plans: BTreeMap::new(),
        next_plan: 0,
        injected: BTreeMap::new(),
        away: vec![false; peers],
        partition: Vec::new(),
        armed: vec![false; peers],
    };
    let (mut wrong, mut converged) = (Vec::new(), None);
    match data::check(&scenario.workload).map_err(|error| error.to_string()).and_then(|()| director.prepare()) {
        Err(why) => wrong.push(format!("the mesh could not be prepared: {why}")),
        Ok(()) => {
            director.work();
            director.mend();
            converged = director.converge();
            if converged.is_none() {
                let limit = scenario.converge;
                wrong.push(format!("the peers are not equal {limit} after everything was mended"));
            }
            let until = director.world.now + QUIET;
            director.let_pass(until);
            wrong.append(&mut director.world.faults);
            wrong.append(&mut check::all(&mut director.world));
        }
    }
    let world = &director.world;
    let documents = world.honest().filter_map(|host| host.node.as_ref()).map(|node| documents(&node.reader())).max();
    Outcome {
        scenario: scenario.name.clone(),
        seed,
        peers,
        wrong,
        converged_ms: converged.map(Span::as_ms),
        writes: world.expected.writes,
        failures: world.expected.failures,
        injected: director.injected.clone(),
        documents: documents.unwrap_or(0),
        messages: world.network.messages,
        bytes: world.network.bytes,
        came: world.honest().map(Host::came).fold(Came::default(), Add::add),
        events: world.events,
        inbox_max: world.hosts.iter().map(|host| host.inbox_max).max().unwrap_or(0),
        memory_max: world.honest().map(|host| host.memory_max).max().unwrap_or(0),
        virtual_ms: world.now.as_ms(),
        real_ms: started.elapsed().as_millis() as u64,
        trace: world.trace(),
    }
}

fn documents(reader: &Reader) -> u64 {
    reader.collections().unwrap_or_default().iter().map(|(_, counts)| counts.documents).sum()
}

impl Director<'_> {
    fn plan(&mut self, after: Span, plan: Plan) {
        self.next_plan += 1;
        self.plans.insert(self.next_plan, plan);
        self.world.alarm(self.world.now + after, self.next_plan);
    }

    fn rng(&mut self) -> &mut StdRng {
        &mut self.world.rng
    }

    /// Founds the mesh, writes what must be there before, and waits until everybody has it.
    fn prepare(&mut self) -> Result<(), String> {
        self.world.found()?;
        for write in self.world.writer.prepare() {
            self.world.write(0, write);
        }
        let until = self.world.now + PREPARATION;
        // The first writes may not be answered yet.
        let soon = self.world.now + Span::seconds(1);
        self.let_pass(soon);
        while !check::equal(&self.world) {
            if self.world.now >= until {
                return Err("the peers do not become equal before anything went wrong".into());
            }
            let next = self.world.now + POLL;
            self.let_pass(next);
        }
        let hostile = &self.scenario.hostile;
        let last: Vec<usize> = (1..self.world.hosts.len()).rev().take(hostile.peers).collect();
        for host in last {
            self.world.corrupt(host, Villain::new(hostile.deeds.clone()));
        }
        Ok(())
    }

    /// The time of work and trouble.
    fn work(&mut self) {
        let end = self.world.now + self.scenario.work;
        if self.scenario.workload.writes_per_second > 0.0 {
            self.plan(Span(0), Plan::Write);
        }
        if self.scenario.workload.index_changes_per_minute > 0.0 {
            self.plan(Span(0), Plan::Index);
        }
        for step in self.scenario.steps.clone() {
            self.plan(step.at, Plan::Step(step.act));
        }
        self.world.plan_dated(self.scenario.work);
        self.plan(World::search_interval(), Plan::Search);
        let faults = &self.scenario.faults;
        let kinds = [
            (Kind::Partition, faults.partitions),
            (Kind::Crash, faults.crashes),
            (Kind::Absence, faults.absences),
            (Kind::FullDisk, faults.full_disks),
            (Kind::FailingDisk, faults.failing_disks),
            (Kind::Rot, faults.rot),
            (Kind::Cut, faults.cuts),
        ];
        for (kind, recurring) in kinds {
            if let Some(recurring) = recurring {
                let after = self.interval(recurring.every);
                self.plan(after, Plan::Fault(kind, recurring));
            }
        }
        let hostile: Vec<usize> =
            self.world.hosts.iter().filter(|host| host.is_hostile).map(|host| host.number).collect();
        for host in hostile {
            self.plan(Span::seconds(1), Plan::Strike(host));
        }
        self.let_pass(end);
    }

    /// Lets time pass and does what is planned.
    fn let_pass(&mut self, end: Span) {
        while let Some(alarm) = self.world.run_until(end) {
            if let Some(plan) = self.plans.remove(&alarm) {
                self.follow(plan);
            }
        }
    }

    /// Ends all trouble: whoever is not away for good is started, every line and every disk works.
    fn mend(&mut self) {
        self.plans.retain(|_, plan| matches!(plan, Plan::Search));
        self.world.unblock_all();
        for host in 0..self.world.hosts.len() {
            if !self.away[host] {
                let of = &self.world.hosts[host];
                // A disk that failed a write has to be opened anew.
                let poisoned = of.node.as_ref().is_some_and(|node| node.reader().check_writable().is_err());
                self.mend_disk(host);
                if poisoned {
                    self.world.stop(host, false);
                }
                self.start(host);
            }
        }
        self.world.search();
    }

    /// Waits until everybody is equal.
    fn converge(&mut self) -> Option<Span> {
        let start = self.world.now;
        while self.world.now - start <= self.scenario.converge {
            if check::equal(&self.world) {
                return Some(self.world.now - start);
            }
            let next = self.world.now + POLL;
            self.let_pass(next);
        }
        None
    }

    fn arm(&mut self, host: usize, faults: Faults) {
        self.armed[host] = true;
        self.world.hosts[host].disk.set_faults(faults);
    }

    fn mend_disk(&mut self, host: usize) {
        self.armed[host] = false;
        self.world.hosts[host].disk.set_faults(Faults::default());
    }

    fn count(&mut self, what: &'static str) {
        *self.injected.entry(what).or_default() += 1;
    }

    /// A time that is exponentially distributed.
    fn interval(&mut self, mean: Span) -> Span {
        let uniform: f64 = self.rng().random_range(f64::MIN_POSITIVE..1.0);
        Span((-uniform.ln() * mean.0 as f64).min(1e15) as u64)
    }

    /// A time up to a limit.
    fn up_to(&mut self, most: Span) -> Span {
        Span(self.rng().random_range(0..=most.0))
    }

    /// A host that runs, if there is one.
    fn any_up(&mut self) -> Option<usize> {
        let up: Vec<usize> = self.world.hosts.iter().filter(|host| host.is_up()).map(|host| host.number).collect();
        if up.is_empty() {
            return None;
        }
        let at = self.rng().random_range(0..up.len());
        Some(up[at])
    }

    fn start(&mut self, host: usize) {
        if self.away[host] {
            return;
        }
        let Err(error) = self.world.start(host) else { return };
        if self.armed[host] {
            // Its disk is full, or fails, or the power goes again as it starts: it is tried once more.
            self.plan(RETRY, Plan::Start(host));
        } else {
            let text = format!("{}: peer {host} does not start: {error}", self.world.now);
            self.world.faults.push(text);
        }
    }

    fn follow(&mut self, plan: Plan) {
        match plan {
            Plan::Write => {
                self.write();
                let mean = Span((1e6 / self.scenario.workload.writes_per_second) as u64);
                let after = self.interval(mean);
                self.plan(after, Plan::Write);
            }
            Plan::Index => {
                if let Some(host) = self.any_up() {
                    let command = workload::index(self.rng());
                    self.world.command(host, command, Purpose::Tend);
                    self.count("changed indexes");
                }
                let after = self.interval(Span((6e7 / self.scenario.workload.index_changes_per_minute) as u64));
                self.plan(after, Plan::Index);
            }
            Plan::WriteAt(host, is_new) => self.write_at(host, is_new),
            Plan::Step(act) => self.act(act),
            Plan::Search => {
                self.world.search();
                self.plan(World::search_interval(), Plan::Search);
            }
            Plan::Strike(host) => {
                self.world.strike(host);
                self.count("hostile deeds");
                let every = self.scenario.hostile.every.unwrap_or(Span::seconds(2));
                let after = self.interval(every);
                self.plan(after, Plan::Strike(host));
            }
            Plan::Fault(kind, recurring) => {
                self.fault(kind, recurring);
                let after = self.interval(recurring.every);
                self.plan(after, Plan::Fault(kind, recurring));
            }
            Plan::Open(directions) => self.world.unblock(&directions),
            Plan::Flap(directions, left) => {
                // Shut on even numbers, open on odd ones; the last is odd.
                if left % 2 == 0 {
                    self.world.block(&directions);
                } else {
                    self.world.unblock(&directions);
                }
                if left > 1 {
                    let after = self.up_to(Span::seconds(4));
                    self.plan(after, Plan::Flap(directions, left - 1));
                }
            }
            Plan::Start(host) => self.start(host),
            Plan::Mend(host) => self.mend_disk(host),
            Plan::Restart(host, down) => {
                self.mend_disk(host);
                self.world.stop(host, false);
                self.plan(down, Plan::Start(host));
            }
        }
    }

    fn write(&mut self) {
        let uneven = self.scenario.workload.uneven;
        let host = if uneven > 0.0 {
            let hosts = self.world.hosts.len();
            Some(workload::uneven(self.rng(), hosts, uneven))
        } else {
            self.any_up()
        };
        let Some(host) = host else { return };
        if self.world.hosts[host].role == Role::Reader || self.world.hosts[host].is_hostile {
            return;
        }
        let Some(node) = &self.world.hosts[host].node else { return };
        let reader = node.reader();
        for write in self.world.writer.draw(&mut self.world.rng, host, &reader) {
            self.world.write(host, write);
        }
    }

    fn write_at(&mut self, host: usize, is_new: bool) {
        if self.world.hosts[host].is_up() {
            let (writer, rng) = (&mut self.world.writer, &mut self.world.rng);
            let write = if is_new { writer.create(rng) } else { writer.set(rng) };
            self.world.write(host, write);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write { peer, documents } => {
                for n in 0..documents as u64 {
                    self.plan(Span(STEP.0 * n / documents as u64), Plan::WriteAt(peer, true));
                }
            }
            Act::Edit { peer, times } => {
                for n in 0..times as u64 {
                    self.plan(Span(STEP.0 * n / times as u64), Plan::WriteAt(peer, false));
                }
            }
            Act::Leave(peer) => {
                self.away[peer] = true;
                self.world.stop(peer, false);
            }
            Act::PowerCut(peer) => {
                self.away[peer] = true;
                self.world.stop(peer, true);
            }
            Act::Start(peer) => {
                self.away[peer] = false;
                self.start(peer);
            }
            Act::Partition(groups) => {
                self.world.unblock(&std::mem::take(&mut self.partition));
                let group = |host: &usize| groups.iter().position(|group| group.contains(host));
                let hosts = 0..self.world.hosts.len();
                let pairs = hosts.clone().flat_map(|from| hosts.clone().map(move |to| (from, to)));
                let cut =
                    |(from, to): &(usize, usize)| from != to && (group(from).is_none() || group(from) != group(to));
                self.partition = pairs.filter(cut).collect();
                self.world.block(&self.partition.clone());
            }
            Act::Heal => self.world.unblock(&std::mem::take(&mut self.partition)),
            Act::RestartAll => {
                for host in 0..self.world.hosts.len() {
                    self.world.stop(host, false);
                }
                for host in 0..self.world.hosts.len() {
                    self.start(host);
                }
            }
            Act::Backup(peer) => {
                let seed = self.rng().random();
                let host = &mut self.world.hosts[peer];
                host.backup = Some(host.disk.backup(seed));
            }
            Act::Restore(peer) => {
                self.world.stop(peer, false);
                if let Some(backup) = self.world.hosts[peer].backup.take() {
                    self.world.hosts[peer].disk = backup;
                    self.world.hosts[peer].was_restored = true;
                    self.excuse(peer);
                }
                self.away[peer] = false;
                self.start(peer);
            }
        }
    }

    /// A disk lost something: what nobody else has on a disk is gone for good.
    fn excuse(&mut self, host: usize) {
        let World { expected, hosts, .. } = &mut self.world;
        // A host that is down may have it too; its disk is not looked at, so that nothing that it has is expected.
        let others = hosts.iter().filter(|other| other.number != host && !other.is_hostile);
        let readers: Vec<Reader> = others.filter_map(|other| other.node.as_ref()).map(|node| node.reader()).collect();
        let mut opened: BTreeMap<DocumentKey, Vec<Opened>> = BTreeMap::new();
        expected.excuse(|document, hash| {
            let open = || readers.iter().filter_map(|reader| reader.open_document(document).ok().flatten()).collect();
            let copies = opened.entry(document.clone()).or_insert_with(open);
            copies.iter().any(|copy| copy.document.has(hash))
        });
    }

    fn fault(&mut self, kind: Kind, recurring: Recurring) {
        let Some(host) = self.any_up() else { return };
        let lasts = self.up_to(recurring.lasts);
        match kind {
            Kind::Partition => self.partition_somehow(host, lasts),
            Kind::Crash => self.crash_somehow(host, lasts),
            Kind::Absence => {
                self.count("absences");
                self.world.stop(host, false);
                self.plan(lasts, Plan::Start(host));
            }
            Kind::FullDisk => {
                self.count("full disks");
                let faults = Faults { capacity_bytes: Some(0), ..Faults::default() };
                self.arm(host, faults);
                self.plan(lasts, Plan::Mend(host));
            }
            Kind::FailingDisk => {
                self.count("failing disks");
                let at = Some(self.rng().random_range(1..6));
                let faults = if self.rng().random_bool(0.5) {
                    Faults { fail_write: at, ..Faults::default() }
                } else {
                    Faults { fail_sync: at, ..Faults::default() }
                };
                self.arm(host, faults);
                self.plan(lasts, Plan::Restart(host, Span::seconds(1)));
            }
            Kind::Rot => {
                self.count("rotten bits");
                self.world.stop(host, false);
                self.world.hosts[host].disk.rot_any_record();
                self.excuse(host);
                self.plan(lasts, Plan::Start(host));
            }
            Kind::Cut => {
                let neighbours: Vec<usize> = self.world.network.neighbours(host).iter().copied().collect();
                if !neighbours.is_empty() {
                    self.count("cut links");
                    let at = self.rng().random_range(0..neighbours.len());
                    self.world.break_session(host, neighbours[at]);
                }
            }
        }
    }

    fn partition_somehow(&mut self, host: usize, lasts: Span) {
        let hosts = self.world.hosts.len();
        let half = Network::halves(self.rng(), hosts);
        let between = |a: &dyn Fn(usize) -> bool| {
            let pairs = (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to)));
            pairs.filter(|&(from, to)| from != to && a(from) && !a(to)).collect::<Vec<_>>()
        };
        let both = |one_way: Vec<(usize, usize)>| {
            let back: Vec<(usize, usize)> = one_way.iter().map(|&(from, to)| (to, from)).collect();
            [one_way, back].concat()
        };
        let halves = between(&|host| half.contains(&host));
        let alone = between(&|other| other == host);
        let (name, directions, flaps) = match self.rng().random_range(0..4) {
            0 => ("partitions", both(halves), 0),
            1 => ("isolated peers", both(alone), 0),
            2 => ("one-way partitions", halves, 0),
            _ => ("flapping partitions", both(halves), 6),
        };
        self.count(name);
        if flaps > 0 {
            self.plan(Span(0), Plan::Flap(directions, flaps));
        } else {
            self.world.block(&directions);
            self.plan(lasts, Plan::Open(directions));
        }
    }

    fn crash_somehow(&mut self, host: usize, lasts: Span) {
        match self.rng().random_range(0..3) {
            0 => {
                self.count("killed processes");
                self.world.stop(host, false);
                self.plan(lasts, Plan::Start(host));
            }
            1 => {
                self.count("power cuts");
                self.world.stop(host, true);
                self.plan(lasts, Plan::Start(host));
            }
            _ => {
                self.count("power cuts in a write");
                let cut = self.rng().random_range(1..20);
                self.arm(host, Faults { cut_power: Some(cut), ..Faults::default() });
                self.plan(lasts + Span::seconds(5), Plan::Start(host));
            }
        }
    }
}
