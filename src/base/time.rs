//! Time as a value: milliseconds since the Unix epoch, and hybrid logical clocks.
//!
//! Nothing here reads a clock; the driver passes the time in. A hybrid logical clock (Kulkarni et al.,
//! "Logical Physical Clocks", OPODIS 2014) gives timestamps that respect causality and stay close to
//! physical time. Remote timestamps can push ours forward by at most a bound, so that one peer with a
//! wrong clock cannot drag the mesh into the future.

use super::{Decode, DecodeError, Encode, Reader, Writer};

/// Milliseconds since the Unix epoch, as the driver's clock reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The first moment of 2020. This program is younger: a machine that shows an earlier time has a wrong clock, as
    /// those have that boot in 1970.
    pub const EARLIEST: Self = Self(1_577_836_800_000);

    /// This time plus a number of milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time, 0 when it is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A hybrid logical timestamp: 47 bits of milliseconds, 16 bits of counter, so that it fits a positive `i64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

impl Hlc {
    /// The largest value.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The timestamp of a physical time with counter 0.
    #[must_use]
    pub fn from_physical(at: Timestamp) -> Self {
        Self(at.0.min(Self::MAX.0 >> 16) << 16)
    }

    /// Reads the packed form back; `None` for what no clock could have made.
    #[must_use]
    pub fn from_packed(packed: i64) -> Option<Self> {
        u64::try_from(packed).ok().map(Self)
    }

    /// The packed form.
    #[must_use]
    pub fn packed(self) -> i64 {
        self.0 as i64
    }

    /// The physical part.
    #[must_use]
    pub fn physical(self) -> Timestamp {
        Timestamp(self.0 >> 16)
    }

    fn next(self) -> Self {
        Self((self.0 + 1).min(Self::MAX.0))
    }
}

impl Encode for Hlc {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.0);
    }
}

impl Decode for Hlc {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let packed = reader.int::<i64>()?;
        Self::from_packed(packed).ok_or(DecodeError::Integer)
    }
}

/// The clock that stamps local changes.
#[derive(Debug, Clone)]
pub struct Clock {
    last: Hlc,
    drift_max_ms: u64,
}

impl Clock {
    /// A clock that continues after `last` and follows others at most `drift_max_ms` ahead of physical time.
    #[must_use]
    pub fn new(last: Hlc, drift_max_ms: u64) -> Self {
        Self { last, drift_max_ms }
    }

    /// The stamp of a local event at physical time `now`: later than everything stamped or observed before. Only what
    /// lies further ahead than the drift bound is left there: it was stamped by a clock that was ahead and has been set
    /// since. A physical time that cannot be is none to go back to.
    pub fn tick(&mut self, now: Timestamp) -> Hlc {
        if now >= Timestamp::EARLIEST && self.last.physical() > now.plus_ms(self.drift_max_ms) {
            self.last = Hlc::default();
        }
        self.last = self.last.next().max(Hlc::from_physical(now));
        self.last
    }

    /// Takes note of a remote stamp. Stamps further ahead than the drift bound are not followed.
    pub fn observe(&mut self, now: Timestamp, remote: Hlc) {
        if remote.physical() <= now.plus_ms(self.drift_max_ms) {
            self.last = self.last.max(remote);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_even_when_the_clock_goes_back() {
        let mut clock = Clock::new(Hlc::default(), 1_000);
        let first = clock.tick(Timestamp(5_000));
        let second = clock.tick(Timestamp(4_000));
        assert!(second > first);
        assert_eq!(second.physical(), Timestamp(5_000));
    }

    #[test]
    fn a_clock_that_was_set_right_stamps_the_present_again() {
        let (then, now) = (Timestamp(2_085_000_000_000), Timestamp(1_770_000_000_000));
        let mut clock = Clock::new(Hlc::from_physical(then), 1_000);
        assert_eq!(clock.tick(now), Hlc::from_physical(now));
        // A time before there was such a program is no present.
        assert_eq!(clock.tick(Timestamp(7)).physical(), now);
    }

    #[test]
    fn a_remote_stamp_is_followed_only_within_the_drift_bound() {
        let mut clock = Clock::new(Hlc::default(), 1_000);
        clock.observe(Timestamp(5_000), Hlc::from_physical(Timestamp(5_900)));
        assert_eq!(clock.tick(Timestamp(5_000)).physical(), Timestamp(5_900));
        clock.observe(Timestamp(5_000), Hlc::from_physical(Timestamp(50_000)));
        assert_eq!(clock.tick(Timestamp(5_000)).physical(), Timestamp(5_900));
    }
}
