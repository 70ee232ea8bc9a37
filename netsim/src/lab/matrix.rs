//! Who reaches whom, and how: for each pair of NATs two real peers, the listener and the dialer, which know of each other
//! through two public peers only.
//!
//! The clock starts when the dialer asks to join the mesh. What counts is whether a live connection is there, as either of
//! the two shows it, and whether anybody is in between; not what an attempt was said to have come to.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::nat::Family;
use super::peers::{Neighbour, Options, Peer};
use super::topology::Site;
use super::wire::Line;
use super::{Kind, Lab, Result, Topology, reflector};
use crate::Error;

/// The public peers: each is everything to the others that a public peer can be.
const PUBLIC: [&str; 2] = ["relay-a", "relay-b"];
/// The counter of bytes that a peer relays.
const RELAYED: &str = "aerolithsdb_relayed_bytes_total{direction=\"sent\"}";
/// How long a listener behind a NAT may take to find out how it can be reached, before the dialer comes.
const SETTLE: Duration = Duration::from_secs(3);
/// How long a pair that is expected to need a relay is watched for a direct connection.
const LINGER: Duration = Duration::from_secs(3);
/// How often both peers are looked at.
const LOOK: Duration = Duration::from_millis(25);

/// Who shall reach whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// What is in front of the listener.
    pub listener: Kind,
    /// What is in front of the dialer.
    pub dialer: Kind,
    /// Whether it is one and the same router.
    pub same_nat: bool,
    /// Whose ticket the dialer has.
    pub ticket: Inviter,
}

/// Whose ticket a dialer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inviter {
    /// That of a public peer, from which it learns of the listener.
    Public,
    /// That of the listener itself, which names the ways to it through the public peers.
    Listener,
}

/// How two peers are connected, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not measured: something broke before.
    Broken,
    /// They are not.
    Apart,
    /// Somebody is in between.
    Relayed,
    /// Nobody is in between.
    Direct,
}

/// What is measured, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The pairs.
    pub pairs: Vec<Pair>,
    /// How often each.
    pub repeat: usize,
    /// How many side by side.
    pub jobs: usize,
    /// How long one waits for a connection.
    pub patience: Duration,
    /// The line of every site.
    pub line: Line,
    /// What the lines draw their losses from.
    pub seed: u64,
    /// The peers.
    pub options: Options,
}

/// How long pairs may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Milliseconds until they are connected at all.
    pub connected_ms: Option<u64>,
    /// Milliseconds from then on until nobody is in between, where the NATs allow it.
    pub direct_ms: Option<u64>,
}

/// What was measured of a pair. Times are in milliseconds, from the moment the dialer asks to join.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// The pair.
    #[serde(flatten)]
    pub pair: Pair,
    /// Which of the repetitions.
    pub run: usize,
    /// What must be possible.
    pub expected: Outcome,
    /// What was.
    pub outcome: Outcome,
    /// When they were connected at all.
    pub connected_ms: Option<u64>,
    /// When nobody was in between.
    pub direct_ms: Option<u64>,
    /// What carries the best connection.
    pub transport: Option<&'static str>,
    /// How long a document took from the listener to the dialer, by whatever way, from the write.
    pub document_ms: Option<u64>,
    /// What the public peers relayed; nothing when they do not count it.
    pub relay_bytes: Option<f64>,
    /// What broke.
    pub error: Option<String>,
}

impl Measured {
    /// Whether it fell short of what must be possible.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.outcome < self.expected
    }

    /// How long after the connection nobody was in between, in milliseconds, where that is expected.
    #[must_use]
    pub fn until_direct_ms(&self) -> Option<u64> {
        let direct = self.direct_ms.filter(|_| self.expected == Outcome::Direct)?;
        Some(direct.saturating_sub(self.connected_ms?))
    }

    /// What is wrong with it, if anything is.
    fn fault(&self, limits: Limits) -> Option<String> {
        let over = |ms: Option<u64>, limit: Option<u64>| ms.filter(|ms| limit.is_some_and(|limit| *ms > limit));
        if self.is_worse() {
            return Some(format!("{} is {}", self.pair, self.outcome.word()));
        }
        if let Some(ms) = over(self.connected_ms, limits.connected_ms) {
            return Some(format!("{} is connected after {ms} ms", self.pair));
        }
        over(self.until_direct_ms(), limits.direct_ms).map(|ms| format!("{} is direct {ms} ms later", self.pair))
    }
}

impl Pair {
    /// A listener and a dialer with the ticket of a public peer.
    #[must_use]
    pub const fn new(listener: Kind, dialer: Kind) -> Self {
        Self { listener, dialer, same_nat: false, ticket: Inviter::Public }
    }

    /// Each kind with each, and two hosts behind one router; and with tickets of the listeners those that differ in what
    /// such a ticket must name: the protocols and transports at both ends.
    #[must_use]
    pub fn all() -> Vec<Self> {
        use Kind::{DualStack, Ipv6, PortRestricted, Public, Symmetric, UdpBlocked, Upnp};
        let each = |listener| Kind::ALL.map(|dialer| Self::new(listener, dialer));
        let mut pairs: Vec<Self> = Kind::ALL.into_iter().flat_map(each).collect();
        pairs.push(Self { same_nat: true, ..Self::new(PortRestricted, PortRestricted) });
        for listener in [PortRestricted, Symmetric, UdpBlocked, Upnp, Ipv6, DualStack] {
            let with_ticket = |dialer| Self { ticket: Inviter::Listener, ..Self::new(listener, dialer) };
            pairs.extend([Public, PortRestricted, UdpBlocked, Ipv6, DualStack].map(with_ticket));
        }
        pairs
    }

    /// What the NATs allow, over QUIC or TCP, whichever allows more.
    #[must_use]
    pub fn expected(self) -> Outcome {
        use Kind::{AddressRestricted, FullCone, Ipv6, Public, Symmetric, Upnp};
        match (self.listener, self.dialer) {
            _ if self.same_nat => Outcome::Direct,
            // Only who speaks both protocols can be in between.
            (Ipv6, other) | (other, Ipv6) if !other.speaks(Family::V6) => Outcome::Relayed,
            // A dial is enough.
            (Public | Upnp, _) | (_, Public | Upnp) => Outcome::Direct,
            // The port that a symmetric NAT will use is not known, and matters only to those that look at ports.
            (Symmetric, FullCone | AddressRestricted) | (FullCone | AddressRestricted, Symmetric) => Outcome::Direct,
            (Symmetric, _) | (_, Symmetric) => Outcome::Relayed,
            _ => Outcome::Direct,
        }
    }

    fn topology(self, line: Line, seed: u64) -> Topology {
        let mut sites = PUBLIC.map(|name| Site::new(name, Kind::Public)).to_vec();
        if self.same_nat {
            sites.push(Site::new("home", self.listener).with(&["listener", "dialer"]));
        } else {
            sites.push(Site::new("listener", self.listener));
            sites.push(Site::new("dialer", self.dialer));
        }
        Topology { seed, ..Topology::new("pair", sites).over(line) }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listener, dialer, .. } = self;
        match (self.same_nat, self.ticket) {
            (true, _) => f.pad(&format!("same:{listener}")),
            (false, Inviter::Public) => f.pad(&format!("{listener}:{dialer}")),
            (false, Inviter::Listener) => f.pad(&format!("ticket:{listener}:{dialer}")),
        }
    }
}

impl FromStr for Pair {
    type Err = String;

    /// Reads `symmetric:full_cone`, the listener first; `ticket:symmetric:full_cone` when the dialer has the ticket of the
    /// listener; or `same:symmetric` for two hosts behind one router.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let names = Kind::ALL.map(Kind::name).join(", ");
        let wrong =
            |_| format!("{text:?} is no pair; write LISTENER:DIALER, ticket:LISTENER:DIALER or same:NAT, of {names}");
        let kind = |name: &str| Kind::from_str(name, false).map_err(wrong);
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["same", "public"] => Err("two public hosts have no router in common".to_owned()),
            ["same", both] => Ok(Self { same_nat: true, ..Self::new(kind(both)?, kind(both)?) }),
            ["ticket", one, other] => Ok(Self { ticket: Inviter::Listener, ..Self::new(kind(one)?, kind(other)?) }),
            [one, other] => Ok(Self::new(kind(one)?, kind(other)?)),
            _ => Err(wrong(String::new())),
        }
    }
}

impl Outcome {
    /// What a connection is.
    #[must_use]
    pub fn of(connection: Option<&Neighbour>) -> Self {
        match connection {
            None => Self::Apart,
            Some(connection) if connection.direct => Self::Direct,
            Some(_) => Self::Relayed,
        }
    }

    /// A word for tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Apart => "apart",
            Self::Relayed => "relayed",
            Self::Direct => "direct",
        }
    }
}

/// Measures all pairs of a plan, and says of each as soon as it is done.
pub fn measure_all(plan: &Plan, done: impl Fn(&Measured) + Sync) -> Vec<Measured> {
    let tasks: Vec<(Pair, usize)> =
        (0..plan.repeat).flat_map(|run| plan.pairs.iter().map(move |pair| (*pair, run))).collect();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.min(tasks.len()) {
            scope.spawn(|| {
                while let Some(&(pair, run)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let measured = measure(plan, pair, run);
                    done(&measured);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(measured);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|result| (plan.pairs.iter().position(|pair| *pair == result.pair), result.run));
    results
}

/// Measures one pair, in a lab of its own.
#[must_use]
pub fn measure(plan: &Plan, pair: Pair, run: usize) -> Measured {
    let mut measured = Measured {
        pair,
        run,
        expected: pair.expected(),
        outcome: Outcome::Apart,
        connected_ms: None,
        direct_ms: None,
        transport: None,
        document_ms: None,
        relay_bytes: None,
        error: None,
    };
    if let Err(error) = try_measure(plan, &mut measured) {
        measured.outcome = Outcome::Broken;
        measured.error = Some(error.to_string());
    }
    measured
}

fn try_measure(plan: &Plan, measured: &mut Measured) -> Result<()> {
    let (pair, run) = (measured.pair, measured.run);
    let lab = Lab::build(&pair.topology(plan.line, plan.seed.wrapping_add(run as u64)))?;
    let mut options = plan.options.clone();
    options.logs = options.logs.map(|folder| folder.join(format!("{pair}-{run}").replace(':', "-")));
    let names = [PUBLIC[0], PUBLIC[1], "listener", "dialer"];
    let (checked, started) = std::thread::scope(|scope| {
        let start = |name| {
            scope.spawn({
                let (lab, options) = (&lab, &options);
                move || Peer::start(lab, name, options)
            })
        };
        let starts = names.map(start);
        let checked = reflector::check(&lab);
        (checked, starts.map(|start| start.join().expect("a start does not panic")))
    });
    checked?;
    let [first, second, listener, dialer] = started;
    let (first, second, listener, dialer) = (first?, second?, listener?, dialer?);
    first.let_in(&second)?;
    first.let_in(&listener)?;
    settle(pair, &listener)?;
    let start = Instant::now();
    match pair.ticket {
        Inviter::Public => second.let_in(&dialer)?,
        Inviter::Listener => listener.let_in(&dialer)?,
    }
    listener.put("lab", "first", &json!({ "written_by": "the listener" }))?;
    let written = Instant::now();
    let milliseconds = |since: Instant| u64::try_from(since.elapsed().as_millis()).ok();
    while start.elapsed() < plan.patience && !is_done(measured, start) {
        if measured.document_ms.is_none() && dialer.count("lab")? > 0 {
            measured.document_ms = milliseconds(written);
        }
        if let Some(found) = best(&listener, &dialer)? {
            measured.connected_ms = measured.connected_ms.or_else(|| milliseconds(start));
            measured.transport = Some(found.transport());
            measured.outcome = Outcome::of(Some(&found));
            if found.direct {
                measured.direct_ms = measured.direct_ms.or_else(|| milliseconds(start));
            }
        }
        std::thread::sleep(LOOK);
    }
    let relayed = [listener.metric(RELAYED)?, dialer.metric(RELAYED)?];
    measured.relay_bytes = relayed.into_iter().flatten().reduce(|sum, bytes| sum + bytes);
    options.check_logs(&lab)
}

/// Lets a listener behind a NAT find out how it can be reached.
fn settle(pair: Pair, listener: &Peer) -> Result<()> {
    let start = Instant::now();
    let is_good = |address: &Value| match pair.ticket {
        Inviter::Public => true,
        // What it takes for its own address may be behind a firewall.
        Inviter::Listener => pair.listener == Kind::Upnp || address.to_string().contains("/p2p-circuit"),
    };
    let reachable = |status: &Value| status["external"].as_array().is_some_and(|all| all.iter().any(is_good));
    while pair.listener != Kind::Public && start.elapsed() < SETTLE && !reachable(&listener.get("/nodes/status")?) {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether nothing more is to be seen.
fn is_done(measured: &Measured, start: Instant) -> bool {
    let watched = measured.connected_ms.map(Duration::from_millis).is_some_and(|at| start.elapsed() > at + LINGER);
    let settled = measured.outcome == Outcome::Direct || (measured.expected == Outcome::Relayed && watched);
    settled && measured.document_ms.is_some()
}

/// The best connection that either of two peers shows.
///
/// # Errors
/// When one of them does not answer.
pub fn best(one: &Peer, other: &Peer) -> Result<Option<Neighbour>> {
    let shown = [one.neighbour(other)?, other.neighbour(one)?];
    Ok(shown.into_iter().flatten().max_by_key(|connection| connection.direct))
}

/// Whether all is as good and as soon as it must be.
///
/// # Errors
/// [`Error::Lab`] that names the pairs that are not.
pub fn judge(results: &[Measured], limits: Limits) -> Result<()> {
    let faults: Vec<String> = results.iter().filter_map(|result| result.fault(limits)).collect();
    if faults.is_empty() {
        return Ok(());
    }
    let (bad, all) = (faults.len(), results.len());
    Err(Error::Lab(format!("{bad} of {all} are worse or later than they must be: {}", faults.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_they_are_written() {
        for pair in Pair::all() {
            assert_eq!(pair.to_string().parse(), Ok(pair));
        }
        let error = "symmetric:cone".parse::<Pair>().unwrap_err();
        assert!(error.contains("full_cone") && error.contains("same:NAT"), "{error}");
        assert_eq!("ticket:cgnat:ipv6".parse::<Pair>().unwrap().ticket, Inviter::Listener);
        assert!("symmetric".parse::<Pair>().is_err());
    }

    #[test]
    fn who_is_worse_or_later_than_it_must_be_is_named() {
        let result = |text: &str, outcome, connected_ms, direct_ms| {
            let pair: Pair = text.parse().unwrap();
            let (expected, relay_bytes, error) = (pair.expected(), None, None);
            let (transport, document_ms) = (None, None);
            Measured {
                pair,
                run: 0,
                expected,
                outcome,
                connected_ms,
                direct_ms,
                transport,
                document_ms,
                relay_bytes,
                error,
            }
        };
        let limits = Limits { connected_ms: Some(3000), direct_ms: Some(2000) };
        let good = [
            result("cgnat:cgnat", Outcome::Direct, Some(3000), Some(5000)),
            result("cgnat:symmetric", Outcome::Relayed, Some(10), None),
            // More than it must.
            result("symmetric:symmetric", Outcome::Direct, Some(10), Some(9000)),
        ];
        judge(&good, limits).unwrap();
        let bad = [
            result("cgnat:cgnat", Outcome::Direct, Some(3001), Some(3001)),
            result("upnp:cgnat", Outcome::Direct, Some(10), Some(2011)),
            result("public:cgnat", Outcome::Relayed, Some(10), None),
        ];
        let said = judge(&bad, limits).unwrap_err().to_string();
        for part in
            ["3 of 3", "cgnat:cgnat is connected after 3001 ms", "direct 2001 ms later", "public:cgnat is relayed"]
        {
            assert!(said.contains(part), "{said}");
        }
        assert!(judge(&bad, Limits::default()).unwrap_err().to_string().contains("1 of 3"));
    }

    #[test]
    fn what_two_nats_allow_does_not_depend_on_who_dials() {
        for pair in Pair::all() {
            let back = Pair { listener: pair.dialer, dialer: pair.listener, ..pair };
            assert_eq!(pair.expected(), back.expected(), "{pair}");
        }
        let expected = |text: &str| text.parse::<Pair>().unwrap().expected();
        assert_eq!(expected("symmetric:port_restricted"), Outcome::Relayed);
        assert_eq!(expected("symmetric:full_cone"), Outcome::Direct);
        assert_eq!(expected("symmetric:upnp_lying"), Outcome::Relayed);
        assert_eq!(expected("udp_blocked:cgnat"), Outcome::Direct);
        assert_eq!(expected("ipv6:upnp"), Outcome::Relayed);
        assert_eq!(expected("ipv6:dual_stack"), Outcome::Direct);
        assert_eq!(expected("same:symmetric"), Outcome::Direct);
        assert_eq!(expected("firewall:port_restricted"), Outcome::Direct);
        assert_eq!(expected("firewall:ipv6"), Outcome::Direct);
        assert_eq!(expected("firewall:symmetric"), Outcome::Relayed);
    }
}
