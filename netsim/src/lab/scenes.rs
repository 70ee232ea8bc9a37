//! Scenes: what happens to real peers behind real NATs, and what must come of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aerolithsdb::limits::CREDIT_BYTES;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::matrix::{self, Outcome, Pair};
use super::nat::LIE;
use super::peers::{Options, Peer, wait};
use super::topology::Site;
use super::wire::Line;
use super::{Kind, Lab, Result, Topology, loss, reflector, trouble};
use crate::Error;
use crate::data;
use crate::scenario::Data;
use crate::time::Span;

/// How long peers may take until they have the same.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long peers may take to notice that their network is another one, and be in sync again.
pub(super) const CHANGE: Duration = Duration::from_secs(90);
/// Bytes that came through a relay.
const RELAYED_IN: &str = "aerolithsdb_relayed_bytes_total{direction=\"received\"}";
/// What is written.
pub(super) const COLLECTION: &str = "countries";

/// One scene.
#[derive(Debug)]
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub about: &'static str,
    act: fn(&mut Stage<'_>) -> Result<()>,
    sites: fn() -> Vec<Site>,
}

/// All of them.
pub const ALL: &[Scene] = &[
    Scene {
        name: "two-homes",
        about: "two laptops behind home routers share the countries of the world",
        act: two_homes,
        sites: homes,
    },
    Scene {
        name: "handed-on",
        about: "each of four behind NATs lets the next one in, whose network lacks what the one before used",
        act: handed_on,
        sites: lacking,
    },
    Scene {
        name: "field-team",
        about: "a team of five behind carriers' NATs writes apart and has everything together, with one relay",
        act: field_team,
        sites: carriers,
    },
    Scene {
        name: "router-reboot",
        about: "a router is switched off and on during a sync",
        act: router_reboot,
        sites: slow_homes,
    },
    Scene {
        name: "roaming",
        about: "a laptop moves from one network to another during a sync",
        act: roaming,
        sites: slow_homes,
    },
    Scene {
        name: "relay-dies",
        about: "the relay of two peers that need one is gone, and another takes over",
        act: relay_dies,
        sites: symmetric,
    },
    Scene {
        name: "dead-ticket",
        about: "a ticket that names a relay which is gone is told from a good one",
        act: dead_ticket,
        sites: homes,
    },
    Scene {
        name: "bootstrap-gone",
        about: "the only public peer is gone for good, and those that it introduced go on",
        act: bootstrap_gone,
        sites: homes,
    },
    Scene {
        name: "relayed-sync",
        about: "how much of a line a sync fills that goes through a relay, which keeps nothing of it",
        act: relayed_sync,
        sites: narrow,
    },
    Scene {
        name: "moving-sync",
        about: "a sync begins through a relay and moves to a direct connection, with nothing sent twice but what was under way",
        act: relayed_sync,
        sites: narrow_homes,
    },
    Scene {
        name: "lying-router",
        about: "a router that tells a wrong public address when it forwards a port is not believed",
        act: lying_router,
        sites: liars,
    },
    Scene {
        name: "firewalls",
        about: "public addresses behind a firewall are not taken for ones that can be dialed, and holes are punched",
        act: trouble::firewalls,
        sites: trouble::firewalled,
    },
    Scene {
        name: "unplugged",
        about: "a cable is pulled, and put back; the addresses stay",
        act: trouble::unplugged,
        sites: homes,
    },
    Scene {
        name: "new-route",
        about: "a laptop has a second way to the internet, and the first stays",
        act: trouble::new_route,
        sites: trouble::two_ways,
    },
    Scene {
        name: "black-hole",
        about: "UDP is blocked, large TCP packets are lost without a word, and the peer says so",
        act: trouble::black_hole,
        sites: trouble::tunnel,
    },
    Scene {
        name: "lost-flow-tcp",
        about: "a router forgets a TCP connection without a word, and new ones pass",
        act: loss::lost_flow,
        sites: loss::over_tcp,
    },
    Scene {
        name: "lost-flow-quic",
        about: "a router forgets a QUIC connection without a word, and new ones pass",
        act: loss::lost_flow_quic,
        sites: loss::over_quic,
    },
    Scene {
        name: "lost-flow-relayed",
        about: "a router forgets the connection to the relay through which two peers are connected, and new ones pass",
        act: loss::lost_flow_relayed,
        sites: symmetric,
    },
    Scene {
        name: "relay-silent",
        about: "the relay of two peers that need one is cut off without a word, and another takes over within seconds",
        act: loss::relay_silent,
        sites: symmetric,
    },
    Scene {
        name: "quick-end",
        about: "a peer that dials somebody who does not answer ends within a second when it is told to",
        act: loss::quick_end,
        sites: homes,
    },
    Scene {
        name: "slow-transfer",
        about: "transfers fill slow lines with deep buffers both ways, over QUIC and TCP, which is no death",
        act: loss::slow_transfer,
        sites: loss::slow,
    },
];

/// A scene by its name.
///
/// # Errors
/// When there is none, with those that there are.
pub fn find(name: &str) -> Result<&'static Scene> {
    let names = || ALL.iter().map(|scene| scene.name).collect::<Vec<_>>().join(", ");
    ALL.iter()
        .find(|scene| scene.name == name)
        .ok_or_else(|| Error::Lab(format!("there is no scene {name}; there are {}", names())))
}

impl Scene {
    /// Plays it, and says what happens meanwhile.
    ///
    /// # Errors
    /// What did not come as it must.
    pub fn play(&self, options: &Options, say: impl Fn(&str)) -> Result<()> {
        let lab = Lab::build(&Topology::new(self.name, (self.sites)()))?;
        reflector::check(&lab)?;
        let mut options = options.clone();
        options.logs = options.logs.map(|folder| folder.join(self.name));
        let start = Instant::now();
        let say = |line: &str| say(&format!("{:6.1} s  {line}", start.elapsed().as_secs_f64()));
        let mut stage = Stage { peers: BTreeMap::new(), lab, options, say: &say };
        let played = (self.act)(&mut stage);
        played.and_then(|()| stage.options.check_logs(&stage.lab)).inspect_err(|_| stage.testify())
    }
}

/// A lab with the peers in it.
pub(super) struct Stage<'a> {
    /// They end before the lab does.
    pub(super) peers: BTreeMap<&'static str, Peer>,
    pub(super) lab: Lab,
    pub(super) options: Options,
    say: &'a dyn Fn(&str),
}

impl Stage<'_> {
    pub(super) fn say(&self, line: &str) {
        (self.say)(line);
    }

    /// Starts peers, and lets all but the first one into its mesh.
    pub(super) fn gather(&mut self, names: &[&'static str]) -> Result<()> {
        for name in names {
            let peer = Peer::start(&self.lab, name, &self.options)?;
            if let Some(first) = self.peers.get(names[0]) {
                first.let_in(&peer)?;
            }
            self.peers.insert(name, peer);
        }
        self.say(&format!("{} are one mesh", names.join(", ")));
        Ok(())
    }

    pub(super) fn peer(&self, name: &str) -> Result<&Peer> {
        self.peers.get(name).ok_or_else(|| Error::Lab(format!("{name} does not run")))
    }

    /// Ends a peer without a word to anybody.
    fn kill(&mut self, name: &str) {
        self.peers.remove(name);
        self.say(&format!("{name} is gone"));
    }

    /// Writes the countries on a peer.
    pub(super) fn write_countries(&self, name: &str) -> Result<u64> {
        let lines = data::documents(Data::Countries);
        self.peer(name)?.load(COLLECTION, &lines.join("\n"))?;
        self.say(&format!("{name} wrote {} countries", lines.len()));
        Ok(lines.len() as u64)
    }

    /// Waits until a peer has so many documents.
    pub(super) fn has(&self, name: &str, count: u64, patience: Duration) -> Result<()> {
        let peer = self.peer(name)?;
        let took = wait(&format!("{name} has {count} documents"), patience, || Ok(peer.count(COLLECTION)? >= count))?;
        self.say(&format!("{name} has {count} documents, {} ms later", took.as_millis()));
        Ok(())
    }

    /// Waits until the doctor of a peer names a problem with something, in these words.
    pub(super) fn doctor_says(&self, name: &str, subject: &str, words: &str) -> Result<()> {
        let peer = self.peer(name)?;
        let is_said = || {
            let diagnosis = peer.get("/nodes/doctor")?;
            let is_it = |finding: &serde_json::Value| {
                finding["severity"] == "problem"
                    && finding["subject"] == subject
                    && finding["what"].as_str().is_some_and(|what| what.contains(words))
            };
            Ok(diagnosis["healthy"] == false
                && diagnosis["findings"].as_array().is_some_and(|all| all.iter().any(is_it)))
        };
        let took = wait(&format!("the doctor of {name} says {words:?} of {subject}"), CHANGE, is_said)?;
        self.say(&format!("the doctor of {name} says {words:?} of {subject}, {} ms later", took.as_millis()));
        Ok(())
    }

    /// Waits until a peer shows something in its status.
    pub(super) fn shows(&self, name: &str, what: &str, patience: Duration, so: impl Fn(&Value) -> bool) -> Result<()> {
        let peer = self.peer(name)?;
        let took = wait(&format!("{name} {what}"), patience, || Ok(so(&peer.get("/nodes/status")?)))?;
        self.say(&format!("{name} {what}, {} ms later", took.as_millis()));
        Ok(())
    }

    /// All peers come to have the same, to the letter.
    pub(super) fn all_equal(&self) -> Result<()> {
        let is_equal = || {
            let mut all = Vec::new();
            for peer in self.peers.values() {
                let mut lines: Vec<String> = peer.all(COLLECTION)?.lines().map(str::to_owned).collect();
                lines.sort_unstable();
                all.push(lines);
            }
            Ok(all.windows(2).all(|two| two[0] == two[1]))
        };
        wait("all peers have the same", PATIENCE, is_equal).map(drop)
    }

    /// Waits until two peers are connected as well as their NATs allow.
    pub(super) fn connected(&self, one: &str, other: &str, patience: Duration) -> Result<()> {
        let (host, its) = (self.lab.host(one)?, self.lab.host(other)?);
        let pair = Pair { same_nat: host.site == its.site, ..Pair::new(self.lab.kind(host), self.lab.kind(its)) };
        let (expected, peer, its) = (pair.expected(), self.peer(one)?, self.peer(other)?);
        let mut found = None;
        let what = format!("{one} and {other} are {}", expected.word());
        let took = wait(&what, patience, || {
            found = matrix::best(peer, its)?;
            Ok(Outcome::of(found.as_ref()) >= expected)
        })?;
        let over = found.map_or("nothing", |way| way.transport());
        self.say(&format!("{one} and {other} are {} over {over}, {} ms later", expected.word(), took.as_millis()));
        Ok(())
    }

    /// Says how each peer sees itself and the others.
    fn testify(&self) {
        for (name, peer) in &self.peers {
            let said = peer.get("/nodes/status").map(|status| {
                let external = &status["external"];
                let others: Vec<&str> = status["peers"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|other| other["address"].as_str())
                    .collect();
                format!(
                    "{name} is {}, can be reached at {external}, and is connected to {others:?}",
                    status["reachability"]
                )
            });
            self.say(&said.unwrap_or_else(|error| error.to_string()));
        }
    }
}

pub(super) fn homes() -> Vec<Site> {
    vec![
        Site::new("relay", Kind::Public),
        Site::new("ada", Kind::PortRestricted),
        Site::new("bo", Kind::PortRestricted),
    ]
}

/// A line so slow that the countries take seconds.
fn slow_homes() -> Vec<Site> {
    let line = Line { delay: Span::ms(10), rate_kbit: 128, ..Line::default() };
    let mut sites = homes();
    sites.push(Site::new("cafe", Kind::Symmetric));
    sites.iter_mut().filter(|site| site.nat != Kind::Public).for_each(|site| site.line = line);
    sites
}

/// No two neighbours have the same way to the relay.
fn lacking() -> Vec<Site> {
    vec![
        Site::new("relay", Kind::Public),
        Site::new("ada", Kind::PortRestricted),
        Site::new("bo", Kind::UdpBlocked),
        Site::new("cy", Kind::Ipv6),
        Site::new("di", Kind::Symmetric),
    ]
}

fn carriers() -> Vec<Site> {
    let member = |name: &&str| Site::new(name, Kind::Cgnat);
    let mut sites: Vec<Site> = TEAM.iter().map(member).collect();
    sites.push(Site::new("relay", Kind::Public));
    sites
}

fn symmetric() -> Vec<Site> {
    vec![
        Site::new("relay", Kind::Public),
        Site::new("second-relay", Kind::Public),
        Site::new("ada", Kind::Symmetric),
        Site::new("bo", Kind::Symmetric),
    ]
}

/// What the line of each peer carries, but for the relay's.
const NARROW_KBIT: u64 = 20_000;

fn narrow() -> Vec<Site> {
    narrowed(Kind::Symmetric)
}

fn narrow_homes() -> Vec<Site> {
    narrowed(Kind::PortRestricted)
}

fn narrowed(nat: Kind) -> Vec<Site> {
    let line = Line { delay: Span::ms(10), rate_kbit: NARROW_KBIT, ..Line::default() };
    let mut sites = vec![Site::new("relay", Kind::Public), Site::new("ada", nat), Site::new("bo", nat)];
    sites.iter_mut().filter(|site| site.nat != Kind::Public).for_each(|site| site.line = line);
    sites
}

fn liars() -> Vec<Site> {
    vec![
        Site::new("relay", Kind::Public),
        Site::new("second-relay", Kind::Public),
        Site::new("ada", Kind::UpnpLying),
        Site::new("bo", Kind::PortRestricted),
    ]
}

const TEAM: [&str; 5] = ["ada", "bo", "cy", "di", "ed"];

fn two_homes(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "ada", "bo"])?;
    let count = stage.write_countries("ada")?;
    stage.has("bo", count, PATIENCE)?;
    stage.connected("ada", "bo", CHANGE)?;
    stage.all_equal()
}

fn handed_on(stage: &mut Stage<'_>) -> Result<()> {
    const CHAIN: [&str; 5] = ["relay", "ada", "bo", "cy", "di"];
    stage.gather(&CHAIN[..1])?;
    for (one, next) in CHAIN.iter().zip(&CHAIN[1..]) {
        let newcomer = Peer::start(&stage.lab, next, &stage.options)?;
        if *one != CHAIN[0] {
            let peer = stage.peer(one)?;
            wait(&format!("{one} has a slot on the relay"), PATIENCE, || {
                Ok(peer.get("/nodes/status")?["external"].to_string().contains("/p2p-circuit"))
            })?;
        }
        stage.peer(one)?.let_in(&newcomer)?;
        stage.peers.insert(next, newcomer);
        stage.say(&format!("{one} let {next} in"));
    }
    let count = stage.write_countries("ada")?;
    for name in &CHAIN[2..] {
        stage.has(name, count, PATIENCE)?;
    }
    stage.all_equal()
}

fn field_team(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", TEAM[0], TEAM[1], TEAM[2], TEAM[3], TEAM[4]])?;
    for name in TEAM {
        let lines: Vec<String> =
            (0..20).map(|n| json!({ "_id": format!("{name}-{n}"), "by": name }).to_string()).collect();
        stage.peer(name)?.load(COLLECTION, &lines.join("\n"))?;
    }
    stage.say("each of the team wrote 20 documents");
    for name in TEAM {
        stage.has(name, 100, PATIENCE)?;
    }
    for (position, one) in TEAM.iter().enumerate() {
        for other in &TEAM[position + 1..] {
            stage.connected(one, other, PATIENCE)?;
        }
    }
    stage.all_equal()
}

/// Waits until a sync is under way: some documents are there, and not all.
fn under_way(stage: &Stage<'_>, name: &str, count: u64) -> Result<()> {
    let peer = stage.peer(name)?;
    wait("a sync is under way", PATIENCE, || Ok(peer.count(COLLECTION)? > 0))?;
    let there = peer.count(COLLECTION)?;
    stage.say(&format!("{name} has {there} of {count} documents"));
    if there < count { Ok(()) } else { Err(Error::Lab("the sync was over before anything happened".to_owned())) }
}

fn router_reboot(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "ada", "bo"])?;
    let count = stage.write_countries("ada")?;
    under_way(stage, "bo", count)?;
    let site = stage.lab.host("bo")?.site;
    stage.lab.reboot(site)?;
    stage.say("the router of bo was switched off and on");
    stage.has("bo", count, CHANGE)?;
    stage.connected("ada", "bo", CHANGE)?;
    stage.all_equal()
}

fn roaming(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "ada", "bo"])?;
    let count = stage.write_countries("ada")?;
    under_way(stage, "bo", count)?;
    let cafe = stage.lab.host("cafe")?.site;
    stage.lab.move_host("bo", cafe)?;
    stage.say("bo is in the cafe now");
    stage.has("bo", count, CHANGE)?;
    stage.connected("ada", "bo", CHANGE)?;
    stage.all_equal()
}

fn relay_dies(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "second-relay", "ada", "bo"])?;
    stage.peer("ada")?.put(COLLECTION, "before", &json!({ "relay": 1 }))?;
    stage.has("bo", 1, PATIENCE)?;
    stage.connected("ada", "bo", PATIENCE)?;
    stage.doctor_says("ada", "relayed", "the NATs at both ends are symmetric")?;
    stage.kill("relay");
    stage.peer("ada")?.put(COLLECTION, "after", &json!({ "relay": 2 }))?;
    stage.has("bo", 2, CHANGE)?;
    stage.connected("ada", "bo", CHANGE)?;
    stage.all_equal()
}

fn dead_ticket(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "ada"])?;
    let ada = stage.peer("ada")?;
    wait("ada can be reached through the relay", PATIENCE, || {
        Ok(ada.post("/mesh/invites", &json!({}))?["reach"]["outside"] == "reached")
    })?;
    ada.client(&stage.options, &["mesh", "invite", "--check"])?;
    stage.say("ada makes a ticket that others can use");
    stage.kill("relay");
    let (ada, start) = (stage.peer("ada")?, Instant::now());
    let reach = &ada.post("/mesh/invites", &json!({}))?["reach"];
    let took = start.elapsed();
    stage.say(&format!("{} ms later ada knows that nobody can use its ticket: {reach}", took.as_millis()));
    if reach["outside"] != "unreached" || took > Duration::from_secs(6) {
        return Err(Error::Lab("ada does not notice in time that its ticket is of no use".to_owned()));
    }
    match ada.client(&stage.options, &["mesh", "invite", "--check"]) {
        Err(said) if said.to_string().contains("nobody outside") => Ok(()),
        other => Err(Error::Lab(format!("the client does not warn: {other:?}"))),
    }
}

/// Documents that may be under way between two peers: what may be unacknowledged, in documents of this scene.
const UNDER_WAY: f64 = CREDIT_BYTES as f64 / 4_096.0;

/// The relay is a member, and would pass the documents on by itself: so its disk is full.
fn relayed_sync(stage: &mut Stage<'_>) -> Result<()> {
    const DOCUMENTS: u64 = 3_000;
    stage.options = stage.options.unkillable(&stage.lab)?;
    stage.gather(&["relay", "ada", "bo"])?;
    stage.connected("ada", "bo", PATIENCE)?;
    stage.peer("relay")?.fill_disk()?;
    stage.say("the disk of the relay is full");
    let mut rng = StdRng::seed_from_u64(1);
    // What cannot be packed: letters at random, 4 KB a document.
    let letter = |rng: &mut StdRng| char::from(rng.random_range(b'!'..=b'[')).to_string().replace(['"', '\\'], "~");
    let lines: Vec<String> = (0..DOCUMENTS)
        .map(|n| {
            json!({ "_id": n.to_string(), "text": (0..4_096).map(|_| letter(&mut rng)).collect::<String>() })
                .to_string()
        })
        .collect();
    // What is written while bo is away it gets when it is back, on a line that carries nothing else by then.
    stage.kill("bo");
    lines.chunks(500).try_for_each(|some| stage.peer("ada")?.load(COLLECTION, &some.join("\n")))?;
    stage.say(&format!("ada wrote {DOCUMENTS} documents"));
    let bo = Peer::start(&stage.lab, "bo", &stage.options)?;
    stage.peers.insert("bo", bo);
    let bo = stage.peer("bo")?;
    wait("bo gets documents", PATIENCE, || Ok(bo.count(COLLECTION)? > 0))?;
    let moved = || Ok::<_, Error>(bo.metric(RELAYED_IN)?.unwrap_or_default());
    let (before, start) = (moved()?, Instant::now());
    wait("bo has all documents", PATIENCE, || Ok(bo.count(COLLECTION)? >= DOCUMENTS))?;
    let (took, bytes) = (start.elapsed().as_secs_f64(), moved()? - before);
    let mbit = bytes * 8.0 / 1e6 / took;
    let share = 100.0 * mbit * 1e3 / NARROW_KBIT as f64;
    let twice = bo.metric("aerolithsdb_changes_known_total")?.unwrap_or_default();
    stage.say(&format!(
        "bo got them in {took:.1} s, {:.1} MB through the relay: {mbit:.1} Mbit/s, {share:.0} % of its line; {twice} came twice",
        bytes / 1e6
    ));
    stage.connected("ada", "bo", CHANGE)?;
    if twice <= UNDER_WAY { Ok(()) } else { Err(Error::Lab(format!("more came twice than was under way: {twice}"))) }
}

fn bootstrap_gone(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "ada", "bo"])?;
    stage.peer("ada")?.put(COLLECTION, "before", &json!({}))?;
    stage.has("bo", 1, PATIENCE)?;
    stage.connected("ada", "bo", PATIENCE)?;
    stage.kill("relay");
    let count = stage.write_countries("ada")?;
    stage.has("bo", count + 1, PATIENCE)?;
    stage.all_equal()
}

fn lying_router(stage: &mut Stage<'_>) -> Result<()> {
    stage.gather(&["relay", "second-relay", "ada", "bo"])?;
    let count = stage.write_countries("ada")?;
    stage.has("bo", count, PATIENCE)?;
    stage.connected("ada", "bo", CHANGE)?;
    let shown = stage.peer("ada")?.get("/nodes/status")?["external"].to_string();
    if shown.contains(&LIE.to_string()) {
        return Err(Error::Lab(format!("ada believes its router: {shown}")));
    }
    stage.say(&format!("ada can be reached at {shown}"));
    stage.doctor_says("ada", "upnp", &LIE.to_string())?;
    stage.all_equal()
}
