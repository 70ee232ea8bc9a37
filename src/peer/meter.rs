//! Counts and latencies of operations, cheap enough to be always on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Buckets, one for each power of two of microseconds, starting below 1 us.
const BUCKETS: usize = 32;

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Meter {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
    failures: AtomicU64,
}

/// What a meter has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// Operations, failed ones included.
    pub count: u64,
    /// Operations that failed.
    pub failures: u64,
    /// All of them together, in microseconds.
    pub total_us: u64,
    /// The mean, in microseconds.
    pub mean_us: u64,
    /// Half of the operations took at most this long, to the next power of two, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 operations took at most this long, to the next power of two, in microseconds.
    pub p99_us: u64,
}

impl Meter {
    /// Takes note of an operation that began at `start`.
    pub fn record(&self, start: Instant, succeeded: bool) {
        self.record_duration(start.elapsed(), succeeded);
    }

    fn record_duration(&self, duration: Duration, succeeded: bool) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        if !succeeded {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it has seen.
    #[must_use]
    pub fn read(&self) -> Latency {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count: u64 = buckets.iter().sum();
        let quantile = |percent: u64| {
            let mut left = (count * percent).div_ceil(100);
            let bucket = buckets.iter().position(|&n| {
                let reached = n >= left && n > 0;
                left = left.saturating_sub(n);
                reached
            });
            bucket.map_or(0, |bucket| 1 << bucket)
        };
        let total_us = self.micros.load(Ordering::Relaxed);
        Latency {
            count,
            failures: self.failures.load(Ordering::Relaxed),
            total_us,
            mean_us: total_us.checked_div(count).unwrap_or(0),
            p50_us: quantile(50),
            p99_us: quantile(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_bound_what_was_recorded() {
        let meter = Meter::default();
        assert_eq!(meter.read(), Latency::default());
        for micros in 1..=100 {
            meter.record_duration(Duration::from_micros(micros), micros != 7);
        }
        let latency = meter.read();
        assert_eq!((latency.count, latency.failures), (100, 1));
        assert_eq!((latency.total_us, latency.mean_us), (5_050, 50));
        assert_eq!((latency.p50_us, latency.p99_us), (64, 128));
    }
}
