//! What is wrong with this peer's network and its disk, in plain words, and what to do about it.
//!
//! [`diagnose`] holds what is known against what a healthy peer shows. It tries nothing out: all of it is evidence that
//! the peer has gathered anyway. A problem is what somebody should see to; a note is how the network is, with which the
//! peer gets along.
//!
//! - `clock` what is said of the time
//! - `reach` what is said of reaching others and being reached
//! - `disk` what is said of damage to the disk

mod clock;
mod disk;
mod reach;
#[cfg(test)]
mod tests;

use crate::access::Overuse;
use crate::base::Timestamp;
use crate::mesh::nat::ReachReport;
use crate::node::{PeerReport, RestlessReport, TwiceReport};

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

fn note(subject: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { severity: Severity::Note, subject, what: what.into(), advice: Some(advice.into()) }
}

fn problem(subject: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { severity: Severity::Problem, subject, what: what.into(), advice: Some(advice.into()) }
}

/// What is wrong, and what is not.
#[must_use]
pub fn diagnose(peer: &PeerReport, reach: &ReachReport, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![members(peer)];
    findings.extend(peer.overused.iter().map(overused));
    findings.extend(reach::findings(peer, reach, now));
    findings.extend(clock::findings(peer, now));
    findings.extend(disk::finding(&peer.disk));
    findings.extend(peer.twice.iter().map(twice));
    findings.extend(peer.restless.iter().map(links));
    findings
}

/// An invitation by which more joined than it lets in.
fn overused(overuse: &Overuse) -> Finding {
    let fallen: Vec<String> = overuse.fallen.iter().map(ToString::to_string).collect();
    problem(
        "tickets",
        format!(
            "{} joined by a ticket of {} for {} and are no members: others came before them, or whoever let them in \
             fell: {}",
            fallen.len(),
            overuse.issuer,
            overuse.uses,
            fallen.join(", ")
        ),
        "An admin can admit them by a new ticket. If nobody knows them, the ticket got into the wrong hands.",
    )
}

fn members(peer: &PeerReport) -> Finding {
    if peer.role.is_none() {
        return problem(
            "peers",
            "this peer is no member of its mesh any more: others had used its ticket up when it joined, or whoever let \
             it in is no member either",
            "What is here stays and can be read. Ask an admin for a new ticket, and join again with it.",
        );
    }
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
    let told = format!("{connected} of {others} other members are connected");
    let silent: Vec<_> =
        peer.neighbours.iter().filter_map(|other| Some((other.peer, other.no_answer_since?))).collect();
    let Some((first, since)) = silent.first() else { return ok("peers", told) };
    let told = format!("{told}; of {}, as {first}, there is no answer since {since} or later", silent.len());
    let advice = "What nothing comes from is given up within seconds, and dialed anew. When that does not end, something \
                  between the two networks loses what goes there.";
    if silent.len() == connected { problem("peers", told, advice) } else { note("peers", told, advice) }
}

/// What to do about a peer that runs twice.
const COPIED: &str = "Its data folder was copied. Stop one of the two, or make the copy a peer of its own: start it once \
                      with --new-identity, and let it join again.";

/// This peer runs in two places, as a member says.
fn twice(TwiceReport { by, places }: &TwiceReport) -> Finding {
    let places = places.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
    let told =
        format!("this peer runs twice, says peer {by}, which sees it at {places} in turns: each takes the links");
    problem("identity", told, COPIED)
}

/// A member whose links start anew again and again.
fn links(restless: &RestlessReport) -> Finding {
    let RestlessReport { peer, places, starts, is_twice } = restless;
    let places = places.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
    if *is_twice {
        return problem(
            "links",
            format!("peer {peer} is connected from {places} in turns: it seems to run twice, and each takes the link"),
            COPIED,
        );
    }
    note(
        "links",
        format!("the link to peer {peer} started {starts} times within two minutes, over {places}"),
        "If this peer's data folder or that one's was copied, the two with one identity take each other's links away: \
         start the copy once with --new-identity. Otherwise the network between breaks connections.",
    )
}
