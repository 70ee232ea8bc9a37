//! Scenarios: what happens in a run, as TOML. `netsim/scenarios/` has the ones that the project keeps.
//!
//! A scenario says how many peers there are, what the lines between them are like, what is written, what goes wrong,
//! and how soon afterwards everybody must have everything. Everything that it leaves open is drawn from the seed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
pub use crate::step::{Act, Step};
use crate::time::Span;

/// The scenarios that come with the program.
const SHIPPED: &[(&str, &str)] = &[
    ("mixed", include_str!("../scenarios/mixed.toml")),
    ("indexes", include_str!("../scenarios/indexes.toml")),
    ("calm", include_str!("../scenarios/calm.toml")),
    ("quiet-19", include_str!("../scenarios/quiet-19.toml")),
    ("backfill", include_str!("../scenarios/backfill.toml")),
    ("author-leaves", include_str!("../scenarios/author-leaves.toml")),
    ("month-away", include_str!("../scenarios/month-away.toml")),
    ("day-apart", include_str!("../scenarios/day-apart.toml")),
    ("restart-all", include_str!("../scenarios/restart-all.toml")),
    ("backup-online", include_str!("../scenarios/backup-online.toml")),
    ("old-backup", include_str!("../scenarios/old-backup.toml")),
    ("relay-only", include_str!("../scenarios/relay-only.toml")),
    ("slow-disk", include_str!("../scenarios/slow-disk.toml")),
    ("hostile", include_str!("../scenarios/hostile.toml")),
    ("equivocation", include_str!("../scenarios/equivocation.toml")),
    ("rot", include_str!("../scenarios/rot.toml")),
    ("satellite", include_str!("../scenarios/satellite.toml")),
    ("hour", include_str!("../scenarios/hour.toml")),
    ("cities", include_str!("../scenarios/cities.toml")),
    ("paper", include_str!("../scenarios/paper.toml")),
    ("wrong-clocks", include_str!("../scenarios/wrong-clocks.toml")),
];

/// Peers of one run.
const PEERS_MAX: usize = 2_000;

/// A scenario.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is for, in a sentence.
    pub about: String,
    /// Peers, the founder among them: a number, or the least and the most of them.
    pub peers: Count,
    /// How many of them may only read.
    #[serde(default)]
    pub readers: usize,
    /// How long work and faults go on.
    pub work: Span,
    /// How soon after that, when everything is mended, all peers must be equal.
    pub converge: Span,
    /// Memory that a peer may hold at most, in MiB, beside what is on its disk.
    #[serde(default = "memory_mib")]
    pub memory_mib: u64,
    /// The lines.
    #[serde(default)]
    pub network: Network,
    /// What is written.
    #[serde(default)]
    pub workload: Workload,
    /// What goes wrong at random.
    #[serde(default)]
    pub faults: Faults,
    /// The disks.
    #[serde(default)]
    pub disk: Disk,
    /// The clocks.
    #[serde(default)]
    pub clocks: Clocks,
    /// Peers that cannot be dialed by everybody.
    #[serde(default)]
    pub nat: Nat,
    /// Members that do what no honest peer does.
    #[serde(default)]
    pub hostile: Hostile,
    /// What happens at set times, beside what is drawn.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
}

fn memory_mib() -> u64 {
    32
}

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "a number, or two: [least, most]")]
pub enum Count {
    /// So many.
    Exactly(usize),
    /// The least and the most; the seed decides.
    Between(usize, usize),
}

/// What kind of line connects the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// One local network.
    #[default]
    Lan,
    /// Homes of one region, by cable.
    Home,
    /// Mobile phones.
    Mobile,
    /// A geostationary satellite.
    Satellite,
    /// Data centres on two continents.
    Intercontinental,
}

impl Preset {
    /// What it stands for.
    #[must_use]
    pub fn line(self) -> Line {
        let line = |latency_us, jitter_us, loss, burst, rate_kbit| Line {
            latency: Span(latency_us),
            jitter: Span(jitter_us),
            loss,
            burst,
            duplicate: loss / 10.0,
            reorder: loss / 2.0,
            rate_kbit,
            buffer_kib: 512,
        };
        match self {
            Self::Lan => line(200, 100, 0.0, 1.0, 1_000_000),
            Self::Home => line(12_000, 4_000, 0.001, 2.0, 40_000),
            Self::Mobile => line(40_000, 30_000, 0.01, 5.0, 8_000),
            Self::Satellite => line(290_000, 15_000, 0.005, 10.0, 4_000),
            Self::Intercontinental => line(110_000, 8_000, 0.002, 3.0, 200_000),
        }
    }
}

/// The lines between the peers; what is not given is the preset's.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// What kind of line.
    pub preset: Preset,
    /// Time that a packet takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Span>,
    /// Time by which that varies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// Share of packets that are lost, from 0 to 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Packets lost in a row, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<f64>,
    /// Share of gossip messages that arrive twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<f64>,
    /// Share of gossip messages that are overtaken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<f64>,
    /// What a peer can send, in kbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_kbit: Option<u64>,
    /// What waits to be sent at most, in KiB, before gossip is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_kib: Option<u64>,
    /// How many other peers each one hears of; all of them when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<usize>,
    /// To how many neighbours a gossip message is passed on; 0 for no gossip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fanout: Option<usize>,
}

/// What a line is like.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Time that a packet takes.
    pub latency: Span,
    /// Time by which that varies.
    pub jitter: Span,
    /// Share of packets that are lost.
    pub loss: f64,
    /// Packets lost in a row, on average.
    pub burst: f64,
    /// Share of gossip messages that arrive twice.
    pub duplicate: f64,
    /// Share of gossip messages that are overtaken.
    pub reorder: f64,
    /// What a peer can send, in kbit/s.
    pub rate_kbit: u64,
    /// What waits to be sent at most, in KiB, before gossip is dropped.
    pub buffer_kib: u64,
}

impl Network {
    /// The line that this describes.
    #[must_use]
    pub fn line(&self) -> Line {
        let preset = self.preset.line();
        Line {
            latency: self.latency.unwrap_or(preset.latency),
            jitter: self.jitter.unwrap_or(preset.jitter),
            loss: self.loss.unwrap_or(preset.loss),
            burst: self.burst.unwrap_or(preset.burst),
            duplicate: self.duplicate.unwrap_or(preset.duplicate),
            reorder: self.reorder.unwrap_or(preset.reorder),
            rate_kbit: self.rate_kbit.unwrap_or(preset.rate_kbit),
            buffer_kib: self.buffer_kib.unwrap_or(preset.buffer_kib),
        }
    }
}

/// What is written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// Writes a second, of all peers together.
    pub writes_per_second: f64,
    /// Documents of each kind.
    pub documents: usize,
    /// How much more often the first documents are written than the others: Zipf's exponent, 0 for all alike.
    pub hot: f64,
    /// How much more often the first peers write than the others: Zipf's exponent, 0 for all alike.
    pub uneven: f64,
    /// Where the bodies of documents come from.
    pub data: Data,
    /// How often a peer declares an index, declares it anew, or drops it, all peers together.
    pub index_changes_per_minute: f64,
    /// Besides, documents that carry their time, and expire so long after it by an index of every peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_after: Option<Span>,
    /// How often each kind of write is made.
    pub mix: Mix,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            writes_per_second: 2.0,
            documents: 20,
            hot: 0.8,
            uneven: 0.0,
            data: Data::Generated,
            index_changes_per_minute: 0.0,
            expire_after: None,
            mix: Mix::default(),
        }
    }
}

/// Where the bodies of documents come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// They are made up.
    Generated,
    /// The countries of the world, `examples/data`.
    Countries,
    /// Places of the world, from the folder of `AEROLITHSDB_DATA`.
    Cities,
}

/// How often each kind of write is made, as weights.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// A document as a whole.
    #[serde(default)]
    pub put: f64,
    /// One field of a document.
    #[serde(default)]
    pub set: f64,
    /// A document is deleted.
    #[serde(default)]
    pub delete: f64,
    /// A counter is counted up.
    #[serde(default)]
    pub count: f64,
    /// Words are typed into a text.
    #[serde(default)]
    pub text: f64,
    /// Something is appended to a list.
    #[serde(default)]
    pub push: f64,
    /// Dozens of new documents at once.
    #[serde(default)]
    pub bulk: f64,
    /// Each peer types a paper of its own, key by key, as a real one was typed; from the folder of `AEROLITHSDB_DATA`.
    #[serde(default)]
    pub key: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { put: 3.0, set: 4.0, delete: 0.5, count: 2.0, text: 1.0, push: 1.0, bulk: 0.05, key: 0.0 }
    }
}

impl Mix {
    pub(crate) fn weights(&self) -> [f64; 8] {
        [self.put, self.set, self.delete, self.count, self.text, self.push, self.bulk, self.key]
    }
}

/// Something that happens again and again: on average so often, each time so long.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recurring {
    /// Mean time between two.
    pub every: Span,
    /// How long it lasts at most.
    pub lasts: Span,
}

/// What goes wrong at random while there is work.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Peers cannot reach each other: two halves, one peer alone, in one direction only, or on and off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Recurring>,
    /// A process is killed, or the power goes between two writes or in the middle of one, and comes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crashes: Option<Recurring>,
    /// A peer is shut down and started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absences: Option<Recurring>,
    /// A disk takes nothing more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_disks: Option<Recurring>,
    /// A write or a flush of a disk fails; its peer is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_disks: Option<Recurring>,
    /// A bit of a journal flips while its peer is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rot: Option<Recurring>,
    /// A link breaks and can be made again at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuts: Option<Recurring>,
}

/// The disks.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// How long a flush takes at most.
    pub flush: Span,
    /// How many of the peers have a slow disk.
    pub slow: usize,
    /// How long a flush takes there.
    pub slow_flush: Span,
}

impl Default for Disk {
    fn default() -> Self {
        Self { flush: Span::ms(1), slow: 0, slow_flush: Span::ms(80) }
    }
}

/// The clocks.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clocks {
    /// By how much they are off at most.
    pub skew: Span,
    /// By how many millionths they are fast or slow at most.
    pub drift_ppm: u32,
    /// How many of the peers have one that is ahead besides; fewer than half.
    pub wrong: usize,
    /// By how much.
    pub wrong_by: Span,
}

/// How many peers are behind a NAT of which kind; the others are public.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nat {
    /// Holes can be punched into it.
    pub cone: usize,
    /// Each destination gets a port of its own: holes can be punched towards public peers and cones only.
    pub symmetric: usize,
    /// No UDP, no holes: such a peer dials public peers, and reaches others through one.
    pub relay_only: usize,
}

/// Members that do what no honest peer does.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hostile {
    /// How many of the peers; at most a third.
    pub peers: usize,
    /// What they do; all of it when nothing is given.
    pub deeds: Vec<Deed>,
    /// Mean time between two deeds of one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
}

/// What hostile members do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// Changes with signatures of others.
    Forge,
    /// Changes that everybody has, again and again.
    Replay,
    /// Changes that are no changes, or far too large ones.
    Bomb,
    /// Summaries of what they do not have.
    Lie,
    /// They keep changes to themselves.
    Withhold,
    /// More questions than anybody needs.
    Flood,
    /// Another mesh, or another's membership, in the greeting.
    Pose,
    /// Two changes under one sequence number, one to some and the other to others.
    Equivocate,
}

impl Deed {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Forge, Self::Replay, Self::Bomb, Self::Lie, Self::Withhold, Self::Flood, Self::Pose, Self::Equivocate];
}

impl Scenario {
    /// Reads a scenario: one of those that come with the program by its name, or a file.
    ///
    /// # Errors
    /// When there is none of that name, and as [`Scenario::parse`].
    pub fn load(name: &str) -> Result<Self, Error> {
        if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Self::parse(name, text);
        }
        let text = std::fs::read_to_string(Path::new(name)).map_err(|error| {
            let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            Error::Scenario(format!(
                "{name}: neither a file ({error}) nor one of the scenarios that come with the program: {}",
                names.join(", ")
            ))
        })?;
        Self::parse(name, &text)
    }

    /// The names of those that come with the program.
    pub fn shipped() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// Reads a scenario from TOML; `source` names it in errors.
    ///
    /// # Errors
    /// [`Error::Scenario`] with the line, and with what would be allowed.
    pub fn parse(source: &str, text: &str) -> Result<Self, Error> {
        let scenario: Self = toml::from_str(text).map_err(|error| Error::Scenario(format!("{source}: {error}")))?;
        match scenario.check() {
            Ok(()) => Ok(scenario),
            Err((key, why)) => {
                let line = text.lines().position(|line| line.trim_start().starts_with(key)).map_or(0, |line| line + 1);
                Err(Error::Scenario(format!("{source}, line {line}: {key}: {why}")))
            }
        }
    }

    /// A scenario of so many peers on a LAN in which nothing is written and nothing goes wrong.
    #[must_use]
    pub fn quiet(name: &str, peers: usize, work: Span) -> Self {
        Self {
            name: name.to_owned(),
            about: String::new(),
            peers: Count::Exactly(peers),
            readers: 0,
            work,
            converge: Span::seconds(120),
            memory_mib: memory_mib(),
            network: Network::default(),
            workload: Workload { writes_per_second: 0.0, documents: 1, ..Workload::default() },
            faults: Faults::default(),
            disk: Disk::default(),
            clocks: Clocks::default(),
            nat: Nat::default(),
            hostile: Hostile::default(),
            steps: Vec::new(),
        }
    }

    /// The scenario as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# this scenario cannot be written: {error}"))
    }

    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let check = |holds: bool, key, why: String| if holds { Ok(()) } else { Err((key, why)) };
        let (min, max) = match self.peers {
            Count::Exactly(peers) => (peers, peers),
            Count::Between(min, max) => (min, max),
        };
        check(
            (1..=max).contains(&min) && max <= PEERS_MAX,
            "peers",
            format!("from 1 to {PEERS_MAX}, the least first"),
        )?;
        check(self.readers < min, "readers", format!("fewer than the {min} peers: somebody must write"))?;
        let share = |share: f64| (0.0..=0.5).contains(&share);
        let line = self.network.line();
        check(share(line.loss), "loss", "a share from 0 to 0.5".into())?;
        check(share(line.duplicate), "duplicate", "a share from 0 to 0.5".into())?;
        check(share(line.reorder), "reorder", "a share from 0 to 0.5".into())?;
        check(line.burst >= 1.0, "burst", "1 packet or more".into())?;
        check(line.rate_kbit >= 8, "rate_kbit", "8 kbit/s or more".into())?;
        let rate = self.workload.writes_per_second;
        check((0.0..=100_000.0).contains(&rate), "writes_per_second", "from 0 to 100000".into())?;
        check((1..=1_000_000).contains(&self.workload.documents), "documents", "from 1 to 1000000".into())?;
        check((0.0..=4.0).contains(&self.workload.hot), "hot", "from 0 to 4".into())?;
        check((0.0..=4.0).contains(&self.workload.uneven), "uneven", "from 0 to 4".into())?;
        let changes = self.workload.index_changes_per_minute;
        check((0.0..=6_000.0).contains(&changes), "index_changes_per_minute", "from 0 to 6000".into())?;
        let weights = self.workload.mix.weights();
        let positive = weights.iter().all(|weight| *weight >= 0.0) && weights.iter().sum::<f64>() > 0.0;
        check(positive, "mix", "weights of 0 or more, not all of them 0".into())?;
        check(self.clocks.drift_ppm <= 100_000, "drift_ppm", "at most 100000, a tenth".into())?;
        check(
            self.clocks.wrong * 2 < min,
            "wrong",
            format!("fewer than half of the {min} peers may have wrong clocks"),
        )?;
        let expires = self.workload.expire_after.is_none_or(|after| after >= Span::seconds(3_600));
        check(expires, "expire_after", "an hour or more".into())?;
        check(self.hostile.peers * 3 <= min, "peers", format!("at most a third of the {min} peers may be hostile"))?;
        let behind = self.nat.cone + self.nat.symmetric + self.nat.relay_only;
        check(behind < min, "nat", format!("fewer than the {min} peers may be behind a NAT: the founder is public"))?;
        for step in &self.steps {
            let unknown = step.act.peers().into_iter().find(|peer| *peer >= min);
            if let Some(peer) = unknown {
                return Err(("[[step]]", format!("there is no peer {peer}; they are numbered from 0 to {}", min - 1)));
            }
            check(step.at <= self.work, "at", format!("{} is after the work ends, {}", step.at, self.work))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_scenario_is_one() {
        for name in Scenario::shipped() {
            let scenario = Scenario::load(name).unwrap();
            assert_eq!(scenario.name, name);
            let again = Scenario::parse("written", &scenario.to_toml()).unwrap();
            assert_eq!(again.to_toml(), scenario.to_toml());
        }
    }

    #[test]
    fn what_is_wrong_with_a_scenario_is_said_with_its_line() {
        let good = "name = \"x\"\nabout = \"y\"\npeers = 3\nwork = \"10s\"\nconverge = \"30s\"\n";
        assert!(Scenario::parse("t", good).is_ok());
        let check = |bad: &str, line: &str, says: &str| {
            let error = Scenario::parse("t", &format!("{good}{bad}")).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(says), "{bad}: {error}");
        };
        check("\n[network]\npreset = \"carrier pigeon\"\n", "line 8", "satellite");
        check("\n[network]\nlatencyy = \"1ms\"\n", "line 8", "latency");
        check("\n[network]\nlatency = \"soon\"\n", "line 8", "20ms");
        check("\n[network]\nloss = 0.9\n", "line 8", "0.5");
        check("\n[hostile]\npeers = 2\n", "", "third");
        check("\n[[step]]\nat = \"1s\"\ndo = \"leave\"\npeer = 3\n", "line 7", "from 0 to 2");
        check("\n[[step]]\nat = \"1s\"\ndo = \"dance\"\n", "line 9", "restart-all");
        check("\n[[step]]\nat = \"11s\"\ndo = \"heal\"\n", "line 8", "after the work");
    }
}
