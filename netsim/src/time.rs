//! Virtual time: microseconds since the start of a run, and what the hosts' own clocks make of it.

use std::fmt;
use std::ops::{Add, Sub};

use aerolithsdb::base::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What the hosts' clocks show at the start, without skew: a moment in November 2023.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A length of virtual time, or a point in it, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub u64);

impl Span {
    /// A length in milliseconds.
    #[must_use]
    pub const fn ms(ms: u64) -> Self {
        Self(ms * 1_000)
    }

    /// A length in seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// In milliseconds, rounded down.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000
    }

    /// Reads `250us`, `20ms`, `1.5s`, `10m`, `2h`, `30d`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a length of time; write it as \"20ms\", \"1.5s\", \"10m\", \"2h\" or \"30d\"");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit_us = match text[digits..].trim() {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            "m" => 60e6,
            "h" => 3_600e6,
            "d" => 86_400e6,
            _ => return Err(wrong()),
        };
        Ok(Self((number * unit_us).round() as u64))
    }
}

impl Add for Span {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Span {
    type Output = Self;

    /// Zero at least.
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1_000) {
            serializer.collect_str(&format_args!("{}ms", self.0 / 1_000))
        } else {
            serializer.collect_str(&format_args!("{}us", self.0))
        }
    }
}

/// The clock of one host: off by a constant, and fast or slow.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostClock {
    /// Milliseconds by which it is ahead at the start.
    pub skew_ms: i64,
    /// Millionths by which it is fast.
    pub drift_ppm: i64,
}

impl HostClock {
    /// What it shows.
    #[must_use]
    pub fn shows(self, now: Span) -> Timestamp {
        let ms = now.as_ms() as i64;
        let shown = EPOCH_MS as i64 + self.skew_ms + ms + ms * self.drift_ppm / 1_000_000;
        Timestamp(shown.max(0) as u64)
    }

    /// When it will show that, at the earliest; never before the next millisecond.
    #[must_use]
    pub fn when(self, now: Span, shown: Timestamp) -> Span {
        let ahead = shown.since_ms(self.shows(now));
        let real = (ahead as i64) * 1_000_000 / (1_000_000 + self.drift_ppm);
        let at = Span((now.0 / 1_000 + real.max(0) as u64 + u64::from(self.drift_ppm != 0)) * 1_000);
        at.max(Span(now.0.div_ceil(1_000) * 1_000)).max(now + Span(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_others_refused() {
        assert_eq!(Span::parse("1.5s"), Ok(Span::ms(1_500)));
        assert_eq!(Span::parse("30d"), Ok(Span::seconds(30 * 86_400)));
        for wrong in ["", "5", "s", "5 parsecs", "-1s"] {
            assert!(Span::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_clock_that_is_off_still_wakes_when_it_shows_the_time() {
        for (skew_ms, drift_ppm) in [(0, 0), (90_000, 0), (-90_000, 300), (5, -300)] {
            let clock = HostClock { skew_ms, drift_ppm };
            let now = Span::seconds(100_000);
            let shown = clock.shows(now).plus_ms(12_345);
            let at = clock.when(now, shown);
            assert!(clock.shows(at) >= shown, "{clock:?}");
            assert!(at - now < Span::ms(12_360), "{clock:?}");
        }
    }
}
