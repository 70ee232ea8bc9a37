//! What is said of the time: which clock is off, this machine's or a member's, and what that has led to.

use super::{Finding, note, ok, problem};
use crate::base::Timestamp;
use crate::node::{Agreement, PeerReport};

/// Milliseconds by which clocks may differ: people would notice in the times of their documents.
const OFF_MS: u64 = 30_000;
/// Milliseconds for which a jump is told.
const SET_TOLD_MS: u64 = 24 * 60 * 60 * 1_000;
/// Members that are named.
const NAMED_MAX: usize = 3;

pub(super) fn findings(peer: &PeerReport, now: Timestamp) -> Vec<Finding> {
    let clock = &peer.clock;
    let mut findings: Vec<Finding> = agreement(peer).into_iter().collect();
    if let Some((at, by_ms)) = clock.set.filter(|(at, _)| now.since_ms(*at) < SET_TOLD_MS) {
        findings.push(note(
            "clock",
            format!(
                "this machine's clock went {} at {at}: it was set, or the machine slept",
                way(by_ms, "forward", "back")
            ),
            "If it did not sleep, see what sets the clock: two time services work against each other, a virtual \
             machine's host has another time.",
        ));
    }
    if let Some(until) = clock.stamped_until {
        findings.push(note(
            "stamps",
            format!(
                "changes here carry times up to {until}, in the future of this machine's clock, which shows {}",
                clock.shows
            ),
            "A clock was ahead when they were made, or this one is behind. They keep their times and their order; what is \
             written now carries the present.",
        ));
    }
    if clock.kept > 0 {
        findings.push(note(
            "expiry",
            format!("{} documents were kept that a member whose clock is ahead had deleted as expired", clock.kept),
            "The log names the member: set its clock.",
        ));
    }
    if let Some(why) = clock.expiry_waits {
        findings.push(note(
            "expiry",
            format!("no documents expire by this peer now: {why}"),
            "Set the clock that is off.",
        ));
    }
    findings
}

/// This machine's clock among those of the connected members: whether it is the odd one, or who is.
fn agreement(peer: &PeerReport) -> Option<Finding> {
    let clock = &peer.clock;
    if clock.shows < Timestamp::EARLIEST {
        return Some(problem(
            "clock",
            format!("this machine's clock shows {}, which cannot be", clock.shows),
            "Set it, best by NTP. Until then the certificates of others are not valid yet, so that connections over QUIC \
             fail; no tickets are made, and nothing expires.",
        ));
    }
    let ahead = || peer.neighbours.iter().filter_map(|neighbour| neighbour.clock_ahead_ms);
    let (agreement, middle_ms) = Agreement::of(ahead(), OFF_MS);
    let set = "Set it, best by NTP: changes are stamped with it, and while it is off by minutes nothing expires by it.";
    match agreement {
        Agreement::Alone => None,
        Agreement::Contradicted => {
            let how = way(-middle_ms, "ahead of", "behind");
            Some(problem("clock", format!("this machine's clock is {how} those of the connected members"), set))
        }
        Agreement::Divided => Some(problem(
            "clock",
            format!(
                "this machine's clock and those of members differ, and no more of them show one time than another: {}",
                odd(peer, 0)
            ),
            "See which is right, and set the others, best by NTP.",
        )),
        Agreement::Agrees => {
            let odd = odd(peer, middle_ms);
            if odd.is_empty() {
                return Some(ok("clock", "this machine's clock agrees with those of the connected members"));
            }
            let what = format!("this machine's clock agrees with those of most connected members; not so {odd}");
            Some(note("clock", what, "Set the clocks of those, best by NTP."))
        }
    }
}

/// The members whose clocks are off from one that is so far ahead of this machine's.
fn odd(peer: &PeerReport, middle_ms: i64) -> String {
    let off = |ahead_ms: &i64| ahead_ms.abs_diff(middle_ms) > OFF_MS;
    let of = |neighbour: &crate::node::NeighbourReport| {
        let ahead_ms = neighbour.clock_ahead_ms.filter(off)?;
        Some(format!("the one of {}, which is {} it", neighbour.peer, way(ahead_ms, "ahead of", "behind")))
    };
    let mut odd: Vec<String> = peer.neighbours.iter().filter_map(of).collect();
    if odd.len() > NAMED_MAX {
        let more = odd.len() - NAMED_MAX;
        odd.truncate(NAMED_MAX);
        odd.push(format!("{more} more"));
    }
    odd.join(", ")
}

/// So many seconds one way or the other.
fn way(ms: i64, ahead: &str, behind: &str) -> String {
    format!("{} s {}", ms.unsigned_abs() / 1_000, if ms > 0 { ahead } else { behind })
}
