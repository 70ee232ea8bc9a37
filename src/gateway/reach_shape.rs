//! How a peer is reached, and what is wrong with that, as the gateway shows it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use crate::base::PeerId;
use crate::mesh::Tried;
use crate::mesh::nat::{AddressReport, ReachReport};
use crate::node::{RestlessReport, TwiceReport};
use crate::peer::doctor::{Finding, Severity};

/// How this peer is reached, and how it reaches others.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reach {
    /// Its addresses, with where they come from.
    addresses: Vec<Address>,
    relays: Relays,
    relay_service: Service,
    punches: Punches,
    /// Connected peers that are behind a symmetric NAT, as they say.
    symmetric: Vec<String>,
    /// What the router does about forwarding ports, in words.
    router: String,
    /// How often it did not do as asked, by reason.
    router_refused: BTreeMap<&'static str, u64>,
    stun: Stun,
}

/// What STUN told, and what this peer does as a STUN server.
#[derive(Debug, Serialize, ToSchema)]
struct Stun {
    /// What servers told of the NAT in front of this peer, in words.
    found: Option<String>,
    /// Where this peer answers others.
    server: Option<String>,
    /// Why it answers nobody though it should.
    server_fault: Option<String>,
    /// Requests of others that were answered since the start.
    answered: u64,
    /// Datagrams of others that were not answered.
    ignored: u64,
    /// Answers that were not believed, by reason.
    rejected: BTreeMap<&'static str, u64>,
}

/// One address of this peer.
#[derive(Debug, Serialize, ToSchema)]
struct Address {
    address: String,
    /// `listening`, `left_out` (not listened on because this machine lacks its protocol), `own`, `configured`, `confirmed`, `mapped`, `relay`, `observed` or `refuted`.
    source: &'static str,
    /// What is known of it.
    state: String,
}

/// Relays for this peer.
#[derive(Debug, Serialize, ToSchema)]
struct Relays {
    /// Connected members that relay.
    known: usize,
    /// Those that hold a slot for this peer.
    held: Vec<String>,
    /// Those of the known that have refused a slot because they are full.
    full: usize,
    /// Slots that were refused since the start, by reason.
    slots_refused: BTreeMap<&'static str, u64>,
    /// Connections through relays that were refused since the start, by reason.
    circuits_refused: BTreeMap<&'static str, u64>,
}

/// What this peer does for others.
#[derive(Debug, Serialize, ToSchema)]
struct Service {
    enabled: bool,
    /// Peers that are reached through this one.
    slots: usize,
    slots_max: usize,
    /// Slots that were denied since the start because there was no room.
    slots_denied: u64,
    /// Relayed connections now.
    circuits: usize,
    circuits_max: usize,
    /// Relayed connections that were denied since the start because there was no room.
    circuits_denied: u64,
}

/// How punching holes went since the start.
#[derive(Debug, Serialize, ToSchema)]
struct Punches {
    succeeded: u64,
    failed: u64,
    last_failure: Option<String>,
}

impl From<ReachReport> for Reach {
    fn from(report: ReachReport) -> Self {
        let listed = |AddressReport { address, source, state }| Address { address, source, state };
        Self {
            addresses: report.addresses.into_iter().map(listed).collect(),
            relays: Relays {
                known: report.relays_known,
                held: report.relays.iter().map(ToString::to_string).collect(),
                full: report.relays_full,
                slots_refused: report.relay_slots_refused,
                circuits_refused: report.relay_circuits_refused,
            },
            relay_service: Service {
                enabled: report.service.enabled,
                slots: report.service.slots,
                slots_max: report.service.slots_max,
                slots_denied: report.service.slots_denied,
                circuits: report.service.circuits,
                circuits_max: report.service.circuits_max,
                circuits_denied: report.service.circuits_denied,
            },
            punches: Punches {
                succeeded: report.punches.succeeded,
                failed: report.punches.failed,
                last_failure: report.punches.last_failure,
            },
            symmetric: report.symmetric.iter().map(ToString::to_string).collect(),
            router: report.router.to_string(),
            router_refused: report.router_refused,
            stun: Stun {
                found: report.stun,
                server: report.stun_server.map(|at| at.to_string()),
                server_fault: report.stun_server_fault,
                answered: report.stun_served.answered,
                ignored: report.stun_served.ignored,
                rejected: report.stun_rejected,
            },
        }
    }
}

/// A peer that runs in two places at once, because its data folder was copied: each takes the links of the other.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunsTwice {
    peer_id: String,
    /// From where it was linked in turns.
    places: Vec<String>,
    /// The member who says so; `null` when this peer saw it itself.
    told_by: Option<String>,
}

impl RunsTwice {
    /// What this peer (`us`) is told of itself, and what it saw of others.
    pub(super) fn all(us: PeerId, told: Option<TwiceReport>, seen: Vec<RestlessReport>) -> Vec<Self> {
        let places = |places: BTreeSet<String>| places.into_iter().collect();
        let own = told.map(|told| Self {
            peer_id: us.to_string(),
            places: places(told.places),
            told_by: Some(told.by.to_string()),
        });
        let seen = seen.into_iter().filter(|seen| seen.is_twice);
        let others =
            seen.map(|seen| Self { peer_id: seen.peer.to_string(), places: places(seen.places), told_by: None });
        own.into_iter().chain(others).collect()
    }
}

/// Whether others reach this peer at what a ticket names.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TicketReach {
    /// Whether somebody outside this network can use the ticket: `reached` when one of the addresses is, `untried` when
    /// nobody could try those that may be, `unreached` when nobody can.
    outside: &'static str,
    /// What the ticket names, best first.
    addresses: Vec<TicketAddress>,
}

/// One address that a ticket names.
#[derive(Debug, Serialize, ToSchema)]
struct TicketAddress {
    address: String,
    /// `reached` by somebody outside this network, `near` (of use on this network or machine only), `untried` or
    /// `unreached`.
    state: &'static str,
    /// Why it is untried or unreached.
    why: Option<String>,
}

impl From<Vec<(String, Tried)>> for TicketReach {
    fn from(found: Vec<(String, Tried)>) -> Self {
        let is_any = |word: &str| found.iter().any(|(_, found)| found.as_str() == word);
        let outside = ["reached", "untried"].into_iter().find(|word| is_any(word)).unwrap_or("unreached");
        let listed = |(address, found): (String, Tried)| TicketAddress {
            address,
            state: found.as_str(),
            why: found.why().map(str::to_owned),
        };
        Self { outside, addresses: found.into_iter().map(listed).collect() }
    }
}

/// What was looked at, and what is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Diagnosis {
    /// Whether nothing is wrong.
    healthy: bool,
    findings: Vec<Found>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, ToSchema)]
struct Found {
    /// `ok`, `note` or `problem`.
    severity: &'static str,
    /// What was looked at, in a word.
    subject: &'static str,
    /// How it is.
    what: String,
    /// What to do about it.
    advice: Option<String>,
}

impl From<Vec<Finding>> for Diagnosis {
    fn from(findings: Vec<Finding>) -> Self {
        let healthy = findings.iter().all(|finding| finding.severity != Severity::Problem);
        let found = |finding: Finding| Found {
            severity: finding.severity.as_str(),
            subject: finding.subject,
            what: finding.what,
            advice: finding.advice,
        };
        Self { healthy, findings: findings.into_iter().map(found).collect() }
    }
}
