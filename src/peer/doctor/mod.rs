//! What is wrong with this peer's network, in plain words, and what to do about it.
//!
//! [`diagnose`] holds what is known against what a healthy peer shows. It tries nothing out: all of it is evidence that
//! the peer has gathered anyway. A problem is what somebody should see to; a note is how the network is, with which the
//! peer gets along.
//!
//! - `reach` what is said of reaching others and being reached

mod reach;
#[cfg(test)]
mod tests;

use crate::base::Timestamp;
use crate::mesh::nat::ReachReport;
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
    findings.extend(reach::findings(peer, reach, now));
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
