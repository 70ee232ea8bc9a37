//! What this peer knows of the time: what its machine's clock shows, what those of the connected members show, and
//! whether they agree.
//!
//! The time that the node is told never jumps, whatever is done to the machine's clock: it says what is due. Everything
//! that has a date (stamps of changes, expiry, tickets, receipts) goes by [`Clock::wall`].
//!
//! A member tells its time in its greeting, which it repeats now and then, and when its clock was set. No clock is right
//! because it is one's own: what counts is what the one in the middle shows, this one counted as the others are. Nothing
//! follows the members' clocks but stamps of a machine that shows a time before this program existed; whoever is
//! contradicted says so, and destroys nothing by its clock.

use std::collections::BTreeMap;

use crate::base::{Clock as Stamps, Hlc, PeerId, Timestamp};
use crate::limits::{CLOCK_DOUBT_MS, CLOCK_DRIFT_MAX_MS, CLOCK_GAP_MAX_MS, CLOCK_SET_MS, CLOCK_TELL_EVERY_MS};
use crate::sync::{Hello, Message};

use super::Node;
use super::neighbour::Neighbour;

/// How a clock stands among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Nobody is connected who could tell.
    Alone,
    /// More than half of all clocks, this one counted, show about what it shows.
    Agrees,
    /// As many show about what it shows as do not: which are right cannot be told.
    Divided,
    /// More than half of all clocks show something else.
    Contradicted,
}

impl Agreement {
    /// Judges a clock by how much others are ahead of it, in milliseconds. Also says by how much the one in the middle
    /// is: of two in the middle the earlier one, or the one that is off when the other is not.
    #[must_use]
    pub fn of(others: impl IntoIterator<Item = i64>, bound_ms: u64) -> (Self, i64) {
        let mut ahead: Vec<i64> = others.into_iter().chain([0]).collect();
        ahead.sort_unstable();
        let (low, high) = (ahead[(ahead.len() - 1) / 2], ahead[ahead.len() / 2]);
        let is_off = |ahead: i64| ahead.unsigned_abs() > bound_ms;
        match (is_off(low), is_off(high)) {
            (false, false) if ahead.len() == 1 => (Self::Alone, 0),
            (false, false) => (Self::Agrees, low),
            (true, false) => (Self::Divided, low),
            (false, true) => (Self::Divided, high),
            (true, true) => (Self::Contradicted, low),
        }
    }

    /// The word by which it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Agrees => "agrees",
            Self::Divided => "divided",
            Self::Contradicted => "contradicted",
        }
    }
}

/// What this peer knows of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReport {
    /// What the machine's clock shows.
    pub shows: Timestamp,
    /// How it stands among those of the connected members, who may be off by
    /// [`CLOCK_DRIFT_MAX_MS`](crate::limits::CLOCK_DRIFT_MAX_MS).
    pub agreement: Agreement,
    /// By how much the clock in the middle is ahead of it, in milliseconds.
    pub middle_ahead_ms: i64,
    /// When it last jumped while this peer ran, and by how many milliseconds.
    pub set: Option<(Timestamp, i64)>,
    /// The latest stamp of a change here, when that is further in the future than clocks may be off.
    pub stamped_until: Option<Timestamp>,
    /// Documents kept since the start that others had deleted as expired, by clocks that were ahead.
    pub kept: u64,
    /// Why documents do not expire now, when this peer has an index by which they would.
    pub expiry_waits: Option<&'static str>,
}

/// The clock of this peer, and those of the members.
#[derive(Debug)]
pub(super) struct Clock {
    stamps: Stamps,
    /// Milliseconds by which the machine's clock is ahead of the time that the node is told.
    ahead_ms: i64,
    /// The same of the connected members' clocks.
    members: BTreeMap<PeerId, i64>,
    agreement: Agreement,
    middle_ahead_ms: i64,
    /// Whether what the two are computed from has changed.
    is_news: bool,
    /// When there last was a reason to doubt this clock, until a member agrees with it.
    doubted_at: Option<Timestamp>,
    set: Option<(Timestamp, i64)>,
    /// The latest stamp that was too far ahead to be followed.
    future: Hlc,
    kept: u64,
    kept_said_at: Option<Timestamp>,
    tell_at: Timestamp,
}

/// By how much a time is ahead of another, in milliseconds.
pub(super) fn ahead_ms(at: Timestamp, of: Timestamp) -> i64 {
    // No stamp is later than the largest one, whatever others claim.
    let ms = |at: Timestamp| Hlc::from_physical(at).physical().0.cast_signed();
    ms(at) - ms(of)
}

impl Clock {
    /// The clock of a peer whose store has stamps up to `latest`.
    pub(super) fn start(now: Timestamp, latest: Hlc) -> Self {
        let gap_ms = ahead_ms(now, latest.physical());
        let is_leap = gap_ms > CLOCK_GAP_MAX_MS.cast_signed() || gap_ms < -CLOCK_DRIFT_MAX_MS.cast_signed();
        let is_future = gap_ms < -CLOCK_DRIFT_MAX_MS.cast_signed();
        Self {
            stamps: Stamps::new(latest, CLOCK_DRIFT_MAX_MS),
            ahead_ms: 0,
            members: BTreeMap::new(),
            agreement: Agreement::Alone,
            middle_ahead_ms: 0,
            is_news: false,
            doubted_at: (is_leap && latest != Hlc::default()).then_some(now),
            set: None,
            future: if is_future { latest } else { Hlc::default() },
            kept: 0,
            kept_said_at: None,
            tell_at: now,
        }
    }

    /// What the machine's clock shows, at a time as the node is told it.
    pub(super) fn shows(&self, at: Timestamp) -> Timestamp {
        Timestamp(at.0.saturating_add_signed(self.ahead_ms))
    }

    /// The time by which things are dated: what the machine's clock shows or, when that cannot be, what the clock in the
    /// middle of the members' does.
    pub(super) fn wall(&self, now: Timestamp) -> Timestamp {
        let shows = self.shows(now);
        if shows >= Timestamp::EARLIEST {
            return shows;
        }
        let mut members: Vec<i64> = self.members.values().copied().collect();
        members.sort_unstable();
        let middle = members.get(members.len().saturating_sub(1) / 2);
        shows.max(middle.map_or(shows, |ahead_ms| Timestamp(now.0.saturating_add_signed(*ahead_ms))))
    }

    /// The time that all who are connected to each other take for the same: that of the clock in the middle.
    pub(super) fn shared(&self, now: Timestamp) -> Timestamp {
        Timestamp(self.shows(now).0.saturating_add_signed(self.middle_ahead_ms))
    }

    /// The stamp of a change that is made now.
    pub(super) fn tick(&mut self, now: Timestamp) -> Hlc {
        self.stamps.tick(self.wall(now))
    }

    /// Takes note of the stamp of a change that was made elsewhere.
    pub(super) fn observe(&mut self, now: Timestamp, stamp: Hlc) {
        let wall = self.wall(now);
        self.stamps.observe(wall, stamp);
        if self.is_future(now, stamp) {
            self.future = self.future.max(stamp);
        }
    }

    /// Whether a stamp is further in the future than clocks may be off.
    pub(super) fn is_future(&self, now: Timestamp, stamp: Hlc) -> bool {
        stamp.physical() > self.wall(now).plus_ms(CLOCK_DRIFT_MAX_MS)
    }

    /// Whether the machine's clock shows a time that cannot be.
    pub(super) fn is_impossible(&self, now: Timestamp) -> bool {
        self.shows(now) < Timestamp::EARLIEST
    }

    /// Whether this peer can tell what is over by now: its clock may be right.
    pub(super) fn can_judge(&self, now: Timestamp) -> bool {
        self.agreement != Agreement::Contradicted && !self.is_impossible(now)
    }

    /// Whether somebody is connected, and more than half of all clocks show about the same.
    pub(super) fn is_confirmed(&self) -> bool {
        self.agreement == Agreement::Agrees
    }

    /// By how much a member's clock is ahead of this machine's, once it has told.
    pub(super) fn ahead_of_ours(&self, member: &PeerId) -> Option<i64> {
        Some(self.members.get(member)? - self.ahead_ms)
    }

    /// Whether a member's clock shows about what this one does.
    pub(super) fn agrees_with(&self, member: &PeerId) -> bool {
        self.ahead_of_ours(member).is_some_and(|ahead| ahead.unsigned_abs() <= CLOCK_DRIFT_MAX_MS)
    }

    /// Why nothing may be destroyed by this clock, if so: only one that the members do not contradict does that, or,
    /// where nobody is connected, one that has given no reason to doubt it for an hour.
    pub(super) fn distrust(&self, now: Timestamp) -> Option<&'static str> {
        let is_doubted = self.doubted_at.is_some_and(|at| now.since_ms(at) < CLOCK_DOUBT_MS);
        match self.agreement {
            _ if self.is_impossible(now) => Some("this machine's clock shows a time that cannot be"),
            Agreement::Contradicted => Some("the clocks of the connected members contradict this machine's"),
            Agreement::Divided => Some("the clocks of this machine and of the connected members differ"),
            Agreement::Alone if is_doubted => Some(
                "this machine's clock has jumped, and no member is connected to confirm it; it is trusted in an hour",
            ),
            Agreement::Alone | Agreement::Agrees => None,
        }
    }

    /// Takes note of what a member's clock shows. True when it told something else before: one of both was set.
    fn heard(&mut self, now: Timestamp, member: PeerId, at: Timestamp) -> bool {
        let ahead = ahead_ms(at, now);
        self.is_news = true;
        self.members.insert(member, ahead).is_some_and(|before| before.abs_diff(ahead) > CLOCK_SET_MS)
    }

    pub(super) fn forget(&mut self, member: &PeerId) {
        self.is_news |= self.members.remove(member).is_some();
    }

    /// The machine's clock is that much ahead of the time that the node is told, from now on.
    fn set(&mut self, now: Timestamp, ahead_ms: i64) {
        let by_ms = ahead_ms - std::mem::replace(&mut self.ahead_ms, ahead_ms);
        self.is_news = true;
        if by_ms.unsigned_abs() <= CLOCK_DRIFT_MAX_MS {
            return;
        }
        // A machine that was asleep looks the same, and has not heard the members' clocks go on.
        self.members.clear();
        self.doubted_at = Some(now);
        self.set = Some((now, by_ms));
        let (seconds, shows) = (by_ms / 1_000, self.shows(now));
        tracing::warn!(by_s = seconds, %shows, "the clock of this machine was set, or it was asleep");
    }

    /// Judges this clock anew when there is news of it or of the members'.
    fn judge(&mut self, now: Timestamp) {
        if !std::mem::take(&mut self.is_news) {
            return;
        }
        let others = self.members.values().map(|ahead| ahead - self.ahead_ms);
        let (agreement, middle_ahead_ms) = Agreement::of(others, CLOCK_DRIFT_MAX_MS);
        self.middle_ahead_ms = middle_ahead_ms;
        let before = std::mem::replace(&mut self.agreement, agreement);
        if agreement == Agreement::Agrees {
            self.doubted_at = None;
        } else if matches!(before, Agreement::Divided | Agreement::Contradicted) {
            self.doubted_at = Some(now);
        }
        if before == agreement {
            return;
        }
        let (behind_s, shows) = (middle_ahead_ms / 1_000, self.shows(now));
        match agreement {
            Agreement::Contradicted => tracing::warn!(
                behind_s, %shows,
                "the clocks of most connected members contradict this machine's; changes made here carry its time all the same"
            ),
            Agreement::Divided => {
                tracing::warn!(behind_s, %shows, "the clocks of the connected members differ from this machine's")
            }
            Agreement::Agrees if before != Agreement::Alone => {
                tracing::info!("the clocks of the connected members agree with this machine's again")
            }
            Agreement::Agrees | Agreement::Alone => {}
        }
    }

    /// Counts a document that was kept, and tells of it now and then.
    pub(super) fn note_kept(&mut self, now: Timestamp, by: &PeerId, stamp: Hlc) {
        self.kept += 1;
        if self.kept_said_at.is_none_or(|at| now.since_ms(at) >= CLOCK_TELL_EVERY_MS) {
            self.kept_said_at = Some(now);
            let (stamp, shows, documents) = (stamp.physical(), self.shows(now), self.kept);
            tracing::warn!(%by, %stamp, %shows, documents, "kept documents that a clock ahead of this one had expire");
        }
    }

    pub(super) fn report(&self, now: Timestamp, expires: bool) -> ClockReport {
        ClockReport {
            shows: self.shows(now),
            agreement: self.agreement,
            middle_ahead_ms: self.middle_ahead_ms,
            set: self.set.map(|(at, by_ms)| (self.shows(at), by_ms)),
            stamped_until: self.is_future(now, self.future).then(|| self.future.physical()),
            kept: self.kept,
            expiry_waits: self.distrust(now).filter(|_| expires),
        }
    }
}

impl Node {
    /// The greeting of a member, first or repeated, tells its time. One that told something else before gets ours, for
    /// its own clock may be the one that stayed.
    pub(super) fn hear_time(&mut self, now: Timestamp, peer: PeerId, at: Timestamp) {
        let is_set = self.clock.heard(now, peer, at);
        if is_set && self.neighbours.get_mut(&peer).is_some_and(|neighbour| neighbour.take_ask(now)) {
            self.tell_time(now, peer);
        }
    }

    fn tell_time(&mut self, now: Timestamp, peer: PeerId) {
        let (mesh, members, at) = (self.mesh(), self.members.fingerprint(), self.clock.shows(now));
        self.send(peer, Message::Hello(Box::new(Hello { mesh, chain: Vec::new(), members, at })));
    }

    fn tell_everybody_the_time(&mut self, now: Timestamp) {
        self.clock.tell_at = now.plus_ms(CLOCK_TELL_EVERY_MS);
        let admitted = self.neighbours.iter().filter(|(_, neighbour)| neighbour.is_admitted());
        let admitted: Vec<PeerId> = admitted.map(|(peer, _)| *peer).collect();
        admitted.into_iter().for_each(|peer| self.tell_time(now, peer));
    }

    pub(super) fn clock_set(&mut self, now: Timestamp, ahead_ms: i64) {
        self.clock.set(now, ahead_ms);
        self.tell_everybody_the_time(now);
        // After a sleep the network is another one.
        self.addresses.retry(now);
    }

    pub(super) fn tend_clock(&mut self, now: Timestamp) {
        if self.clock.tell_at <= now {
            self.tell_everybody_the_time(now);
        }
        self.clock.judge(now);
    }

    /// When the members are to be told the time again.
    pub(super) fn next_telling(&self) -> Option<Timestamp> {
        self.neighbours.values().any(Neighbour::is_admitted).then_some(self.clock.tell_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_the_one_in_the_middle_itself_counted() {
        let hour = 3_600_000;
        let check = |others: &[i64], expected| assert_eq!(Agreement::of(others.iter().copied(), 60_000), expected);
        check(&[], (Agreement::Alone, 0));
        check(&[500], (Agreement::Agrees, 0));
        check(&[-500], (Agreement::Agrees, -500));
        check(&[hour], (Agreement::Divided, hour));
        check(&[-hour], (Agreement::Divided, -hour));
        check(&[0, hour], (Agreement::Agrees, 0));
        check(&[hour, hour + 5], (Agreement::Contradicted, hour));
        check(&[-hour, hour], (Agreement::Agrees, 0));
        check(&[0, hour, hour], (Agreement::Divided, hour));
        check(&[-hour, -hour, 0, hour, hour, hour], (Agreement::Agrees, 0));
        check(&[i64::MAX, i64::MIN + 1, i64::MAX], (Agreement::Divided, i64::MAX));
    }

    #[test]
    fn what_others_claim_of_the_time_overflows_nothing() {
        let mut clock = Clock::start(Timestamp(1_700_000_000_000), Hlc::MAX);
        for at in [0, 1, u64::MAX / 2, u64::MAX] {
            clock.heard(Timestamp(1_700_000_000_000), PeerId([1; 32]), Timestamp(at));
            clock.set(Timestamp(1_700_000_000_000), i64::MIN / 4);
            clock.judge(Timestamp(1_700_000_000_000));
            clock.heard(Timestamp(0), PeerId([1; 32]), Timestamp(at));
            assert!(clock.wall(Timestamp(0)) <= Hlc::MAX.physical());
        }
    }
}
