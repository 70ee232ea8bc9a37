//! What is wrong with this peer's network, in plain words, and what to do about it.
//!
//! [`diagnose`] holds what is known against what a healthy peer shows. It tries nothing out: all of it is evidence that
//! the peer has gathered anyway.

use crate::base::Timestamp;
use crate::mesh::nat::{ReachReport, Reachability};
use crate::node::PeerReport;

/// Milliseconds by which clocks may differ: people would notice in the times of their documents, and beyond five minutes
/// changes are no longer ordered by them.
const CLOCK_OFF_MS: i64 = 30_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Something is wrong.
    Problem,
}

impl Severity {
    /// The word by which it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at, in a word.
    pub subject: &'static str,
    /// How it is.
    pub what: String,
    /// What to do about it.
    pub advice: Option<String>,
}

fn ok(subject: &'static str, what: impl Into<String>) -> Finding {
    Finding { severity: Severity::Ok, subject, what: what.into(), advice: None }
}

fn note(subject: &'static str, what: impl Into<String>, advice: &str) -> Finding {
    Finding { severity: Severity::Note, subject, what: what.into(), advice: Some(advice.into()) }
}

fn problem(subject: &'static str, what: impl Into<String>, advice: &str) -> Finding {
    Finding { severity: Severity::Problem, subject, what: what.into(), advice: Some(advice.into()) }
}

/// What is wrong, and what is not.
#[must_use]
pub fn diagnose(peer: &PeerReport, reach: &ReachReport, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![members(peer), reachability(reach)];
    findings.extend(relays(reach));
    findings.extend(relayed(peer, reach, now));
    findings.extend(refuted(reach));
    findings.extend(clock(peer));
    findings
}

fn members(peer: &PeerReport) -> Finding {
    let (others, connected) = (peer.members.saturating_sub(1), peer.neighbours.len());
    if others == 0 {
        return ok("peers", "this peer is the only member of its mesh; `mesh invite` makes a ticket for another");
    }
    if connected == 0 {
        return problem(
            "peers",
            format!("none of the {others} other members is connected"),
            "Is one of them running, and this machine online? Peers on another network are found through an address \
             that works from here: put one into node.seed_nodes.",
        );
    }
    ok("peers", format!("{connected} of {others} other members are connected"))
}

fn reachability(reach: &ReachReport) -> Finding {
    match reach.reachability {
        Reachability::Unknown => note(
            "reachability",
            "nobody has told yet how this peer is seen from outside",
            "It shows once a member outside this network is connected.",
        ),
        Reachability::Offline => problem(
            "reachability",
            "this machine has no network address but its own loopback",
            "Connect it to a network, or let network.listen name an address that others can reach.",
        ),
        Reachability::Public => ok("reachability", "this peer has an address that can be dialed from anywhere"),
        Reachability::Mapped => ok("reachability", "the router forwards a port to this peer"),
        Reachability::Punchable => ok(
            "reachability",
            "behind a NAT that uses one port towards everybody: direct connections are made by punching holes",
        ),
        Reachability::Symmetric => note(
            "reachability",
            "behind a NAT that uses another port towards each destination (symmetric): peers behind such a NAT, or \
             behind one that filters by port, are reached through a relay only",
            "For direct connections switch on UPnP on the router, forward a port and name it in \
             network.external_addresses, or use IPv6.",
        ),
        Reachability::UdpBlocked => note(
            "reachability",
            "nothing comes back over UDP: this network seems to block it; TCP is used",
            "Ask whoever runs this network to let UDP out; QUIC is faster, and punches more holes.",
        ),
    }
}

fn relays(reach: &ReachReport) -> Option<Finding> {
    match reach.reachability {
        Reachability::Public | Reachability::Offline | Reachability::Unknown => return None,
        Reachability::Mapped | Reachability::Punchable | Reachability::Symmetric | Reachability::UdpBlocked => {}
    }
    Some(match (reach.relays.len(), reach.relays_known) {
        (0, 0) => problem(
            "relays",
            "no member relays for this peer, so that nobody outside this network can begin a connection to it",
            "Run one member where it can be dialed from anywhere (a small server, or behind a forwarded port named in \
             network.external_addresses); it relays for the others by itself.",
        ),
        (0, known) => problem(
            "relays",
            format!("{known} connected members relay, and none has given this peer a slot"),
            "They may be full: see relay_service in their `node status`, raise network.relay.circuits, or add one.",
        ),
        (1, _) => note(
            "relays",
            "one member holds a slot for this peer; when it goes, others cannot reach this peer",
            "Run a second member that can be dialed from anywhere.",
        ),
        (held, _) => ok("relays", format!("{held} members hold a slot for this peer")),
    })
}

/// Neighbours that stay behind a relay.
fn relayed(peer: &PeerReport, reach: &ReachReport, now: Timestamp) -> Option<Finding> {
    /// A direct connection is there within this time, or not at all.
    const PUNCHING_MS: u64 = 15_000;
    let is_stuck = |since: Timestamp| now.since_ms(since) >= PUNCHING_MS;
    let stuck = peer.neighbours.iter().filter(|neighbour| !neighbour.direct && is_stuck(neighbour.since)).count();
    if stuck == 0 {
        return None;
    }
    let why = match (&reach.punches.last_failure, reach.reachability) {
        (_, Reachability::Symmetric) => "the NAT here is symmetric".to_owned(),
        (Some(why), _) => format!("the last attempt to punch a hole failed ({why})"),
        (None, _) => {
            "no hole could be punched: the NAT at the other end is symmetric, or the other peer tries none".into()
        }
    };
    Some(note(
        "relayed",
        format!("{stuck} members are connected through a relay only, and slower for it: {why}"),
        "It works as it is. A forwarded port or UPnP at one of the two ends makes it direct.",
    ))
}

/// Addresses that were announced as good, and are not.
fn refuted(reach: &ReachReport) -> Option<Finding> {
    let named = |source: &'static str| reach.addresses.iter().filter(move |address| address.source == source);
    let own: Vec<&str> = named("refuted").map(|address| address.address.as_str()).collect();
    let configured = |address: &&str| named("configured").any(|other| other.address.starts_with(*address));
    let wrong: Vec<&str> = own.into_iter().filter(configured).collect();
    (!wrong.is_empty()).then(|| {
        problem(
            "external addresses",
            format!("nobody reaches this peer at {}", wrong.join(", ")),
            "See whether the router forwards that port to this machine, and no firewall is in the way; or take the \
             address out of network.external_addresses.",
        )
    })
}

/// This machine's clock against the others', by the one in the middle.
fn clock(peer: &PeerReport) -> Option<Finding> {
    let mut ahead: Vec<i64> = peer.neighbours.iter().map(|neighbour| neighbour.clock_ahead_ms).collect();
    ahead.sort_unstable();
    let middle = *ahead.get(ahead.len() / 2)?;
    if middle.abs() < CLOCK_OFF_MS {
        return Some(ok("clock", "this machine's clock agrees with those of the connected members"));
    }
    let (seconds, way) = (middle.abs() / 1_000, if middle > 0 { "behind" } else { "ahead of" });
    Some(problem(
        "clock",
        format!("this machine's clock is {seconds} s {way} those of the connected members"),
        "Set it, best by NTP: of two edits of the same field the later one wins, and which one that is depends on it.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use crate::base::{MeshId, PeerId};
    use crate::kv::CacheUse;
    use crate::mesh::nat::{AddressReport, Punches};
    use crate::node::{Counters, NeighbourReport};

    fn peer(neighbours: Vec<NeighbourReport>) -> PeerReport {
        PeerReport {
            peer: PeerId([1; 32]),
            mesh: MeshId([1; 32]),
            mesh_name: "mesh".into(),
            role: Some(Role::Writer),
            members: 3,
            neighbours,
            counters: Counters::default(),
            open_documents: CacheUse::default(),
            letters: 0,
            stored: 0,
        }
    }

    fn neighbour(direct: bool, clock_ahead_ms: i64) -> NeighbourReport {
        let (address, since) = ("/ip4/8.8.8.8/tcp/1".into(), Timestamp(0));
        NeighbourReport { peer: PeerId([2; 32]), address, direct, since, in_sync: true, to_send: 0, clock_ahead_ms }
    }

    fn reached(reachability: Reachability) -> ReachReport {
        ReachReport { reachability, ..ReachReport::default() }
    }

    fn severity(findings: &[Finding], subject: &str) -> Option<Severity> {
        findings.iter().find(|finding| finding.subject == subject).map(|finding| finding.severity)
    }

    #[test]
    fn a_healthy_peer_has_no_problems() {
        let reach = ReachReport { relays: vec![PeerId([3; 32]); 2], ..reached(Reachability::Punchable) };
        let findings = diagnose(&peer(vec![neighbour(true, 200)]), &reach, Timestamp(60_000));
        assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:?}");
    }

    #[test]
    fn each_trouble_is_named_with_what_to_do() {
        let now = Timestamp(60_000);
        let alone = diagnose(&peer(Vec::new()), &reached(Reachability::Offline), now);
        assert_eq!(severity(&alone, "peers"), Some(Severity::Problem));
        assert_eq!(severity(&alone, "reachability"), Some(Severity::Problem));
        let behind = diagnose(&peer(vec![neighbour(false, 90_000)]), &reached(Reachability::Symmetric), now);
        assert_eq!(severity(&behind, "relays"), Some(Severity::Problem));
        assert_eq!(severity(&behind, "relayed"), Some(Severity::Note));
        assert_eq!(severity(&behind, "clock"), Some(Severity::Problem));
        let troubles = behind.iter().chain(&alone).filter(|finding| finding.severity != Severity::Ok);
        assert!(troubles.into_iter().all(|finding| finding.advice.is_some()));
        // A connection that has only just been made may still become direct.
        let young = diagnose(&peer(vec![neighbour(false, 0)]), &reached(Reachability::Symmetric), Timestamp(1_000));
        assert_eq!(severity(&young, "relayed"), None);
    }

    #[test]
    fn an_address_that_is_configured_and_dead_is_a_problem() {
        let address = |source, text: &str| AddressReport { address: text.into(), source, state: String::new() };
        let addresses =
            vec![address("configured", "/ip4/8.8.8.8/tcp/1/p2p/x"), address("refuted", "/ip4/8.8.8.8/tcp/1")];
        let reach = ReachReport { addresses, punches: Punches::default(), ..reached(Reachability::Public) };
        let findings = diagnose(&peer(vec![neighbour(true, 0)]), &reach, Timestamp(0));
        assert_eq!(severity(&findings, "external addresses"), Some(Severity::Problem));
    }
}
