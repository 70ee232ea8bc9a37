//! Making a failing scenario smaller: fewer peers, fewer kinds of trouble, less time, as long as it still fails.
//!
//! Greedy, as delta debugging (Zeller and Hildebrandt, IEEE TSE 28(2), 2002) with the parts that a scenario has. A run
//! with less in it is another run, so each candidate is tried with several seeds, and the first that fails is kept.

use crate::run::{Outcome, run};
use crate::scenario::{Count, Scenario};
use crate::time::Span;

/// What was found.
#[derive(Debug)]
pub struct Minimized {
    /// The scenario, with what it does not need left out.
    pub scenario: Scenario,
    /// A failing run of it.
    pub outcome: Outcome,
    /// What was left out, in order.
    pub left_out: Vec<String>,
}

type Cut = (String, Box<dyn Fn(&mut Scenario)>);

/// Makes the scenario smaller that fails with `seed`; `None` when it does not fail. Each candidate is tried with
/// `tries` seeds; `tell` hears of each success.
pub fn minimize(scenario: &Scenario, seed: u64, tries: u64, mut tell: impl FnMut(&str)) -> Option<Minimized> {
    let outcome = run(scenario, seed);
    if outcome.wrong.is_empty() {
        return None;
    }
    let mut best = Minimized { scenario: scenario.clone(), outcome, left_out: Vec::new() };
    loop {
        let mut smaller = false;
        for (name, cut) in cuts(&best.scenario, best.outcome.peers) {
            let mut candidate = best.scenario.clone();
            cut(&mut candidate);
            if candidate.check().is_err() {
                continue;
            }
            let first = best.outcome.seed;
            let failing = (0..tries).map(|n| run(&candidate, first.wrapping_add(n))).find(|run| !run.wrong.is_empty());
            if let Some(outcome) = failing {
                tell(&format!("{name}: still fails, seed {}: {}", outcome.seed, outcome.wrong[0]));
                best.left_out.push(name);
                (best.scenario, best.outcome, smaller) = (candidate, outcome, true);
            }
        }
        if !smaller {
            return Some(best);
        }
    }
}

/// What could be left out.
fn cuts(scenario: &Scenario, peers: usize) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = Vec::new();
    let mut cut = |name: &str, cut: Box<dyn Fn(&mut Scenario)>| cuts.push((name.to_owned(), cut));
    for fewer in [peers / 2, peers - 1] {
        if fewer >= 2 && fewer < peers {
            cut(&format!("{fewer} peers"), Box::new(move |s| s.peers = Count::Exactly(fewer)));
        }
    }
    let faults = &scenario.faults;
    type Clear = fn(&mut Scenario);
    let kinds: [(&str, bool, Clear); 7] = [
        ("partitions", faults.partitions.is_some(), |s| s.faults.partitions = None),
        ("crashes", faults.crashes.is_some(), |s| s.faults.crashes = None),
        ("absences", faults.absences.is_some(), |s| s.faults.absences = None),
        ("full disks", faults.full_disks.is_some(), |s| s.faults.full_disks = None),
        ("failing disks", faults.failing_disks.is_some(), |s| s.faults.failing_disks = None),
        ("rot", faults.rot.is_some(), |s| s.faults.rot = None),
        ("cuts", faults.cuts.is_some(), |s| s.faults.cuts = None),
    ];
    for (name, there, clear) in kinds {
        if there {
            cut(&format!("no {name}"), Box::new(clear));
        }
    }
    for index in (0..scenario.steps.len()).rev() {
        cut(&format!("without step {index}"), Box::new(move |s| _ = s.steps.remove(index)));
    }
    if scenario.hostile.peers > 0 {
        cut("one hostile peer less", Box::new(|s| s.hostile.peers -= 1));
    }
    if scenario.clocks.skew > Span(0) || scenario.clocks.drift_ppm > 0 {
        cut("right clocks", Box::new(|s| s.clocks = crate::scenario::Clocks::default()));
    }
    let mix = &scenario.workload.mix;
    let kinds: [(&str, f64, Clear); 7] = [
        ("puts", mix.put, |s| s.workload.mix.put = 0.0),
        ("sets", mix.set, |s| s.workload.mix.set = 0.0),
        ("deletes", mix.delete, |s| s.workload.mix.delete = 0.0),
        ("counters", mix.count, |s| s.workload.mix.count = 0.0),
        ("texts", mix.text, |s| s.workload.mix.text = 0.0),
        ("lists", mix.push, |s| s.workload.mix.push = 0.0),
        ("bulk loads", mix.bulk, |s| s.workload.mix.bulk = 0.0),
    ];
    for (name, weight, clear) in kinds {
        if weight > 0.0 {
            cut(&format!("no {name}"), Box::new(clear));
        }
    }
    if scenario.workload.documents > 1 {
        cut("half the documents", Box::new(|s| s.workload.documents /= 2));
    }
    if scenario.work > Span::seconds(2) && scenario.steps.is_empty() {
        cut("half the time", Box::new(|s| s.work = Span(s.work.0 / 2)));
    }
    cuts
}
