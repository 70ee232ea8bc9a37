//! Many seeds of one scenario, side by side, with their outcomes in the order of the seeds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::run::{Outcome, run};
use crate::scenario::Scenario;

/// Seeds: one, as `7`, or several, as `0..1000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither a seed such as 7 nor a range such as 0..1000");
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        let range = match text.split_once("..") {
            Some((from, to)) => number(from)?..number(to)?,
            None => number(text)?..number(text)?.saturating_add(1),
        };
        if range.is_empty() { Err(wrong()) } else { Ok(Self(range)) }
    }
}

/// Runs all seeds in `jobs` threads and tells of each outcome, in order, as soon as it is there. When `twice` is set
/// each seed is run once more, and an outcome is wrong whose second run was another one.
pub fn run_all(scenario: &Scenario, seeds: &Seeds, jobs: usize, twice: bool, mut tell: impl FnMut(Outcome) + Send) {
    let Range { start, end } = seeds.0;
    let next = AtomicU64::new(start);
    let done = Mutex::new((start, BTreeMap::new()));
    let tell = Mutex::new(&mut tell);
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = run_one(scenario, seed, twice);
                    let Ok(mut done) = done.lock() else { return };
                    done.1.insert(seed, outcome);
                    let Ok(mut tell) = tell.lock() else { return };
                    let (expected, waiting) = &mut *done;
                    while let Some(outcome) = waiting.remove(expected) {
                        tell(outcome);
                        *expected += 1;
                    }
                }
            });
        }
    });
}

fn run_one(scenario: &Scenario, seed: u64, twice: bool) -> Outcome {
    let mut outcome = run(scenario, seed);
    if twice {
        let again = run(scenario, seed);
        if again.trace != outcome.trace {
            outcome.wrong.push(format!("two runs differ: their traces are {} and {}", outcome.trace, again.trace));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        assert_eq!("7".parse(), Ok(Seeds(7..8)));
        assert_eq!("0..10".parse(), Ok(Seeds(0..10)));
        for wrong in ["", "a", "5..5", "9..3", "-1"] {
            assert!(wrong.parse::<Seeds>().is_err(), "{wrong}");
        }
    }
}
