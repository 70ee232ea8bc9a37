//! Making a failing scenario smaller: fewer peers, fewer kinds of trouble, less time, as long as it still fails.
//!
//! Greedy, as delta debugging (Zeller and Hildebrandt, IEEE TSE 28(2), 2002) with the parts that a scenario has. A run
//! with less in it is another run, so each candidate is tried with several seeds, and the first that fails is kept.

use crate::run::{Outcome, run};
use crate::scenario::{Act, Count, Scenario};
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
    // Until nothing was left out since the same cut was tried last.
    let (mut at, mut in_vain) = (0, 0);
    loop {
        let cuts = cuts(&best.scenario, best.outcome.peers);
        if in_vain >= cuts.len() {
            return Some(best);
        }
        let (name, cut) = &cuts[at % cuts.len()];
        let mut candidate = best.scenario.clone();
        cut(&mut candidate);
        let failing = candidate.check().ok().and_then(|()| failing(&candidate, best.outcome.seed, tries));
        match failing {
            Some(outcome) => {
                tell(&format!("{name}: still fails, seed {}: {}", outcome.seed, outcome.wrong[0]));
                best.left_out.push(name.clone());
                (best.scenario, best.outcome, in_vain) = (candidate, outcome, 0);
            }
            None => (at, in_vain) = (at + 1, in_vain + 1),
        }
    }
}

/// The first failing run among some seeds.
fn failing(scenario: &Scenario, first: u64, tries: u64) -> Option<Outcome> {
    (0..tries).map(|n| run(scenario, first.wrapping_add(n))).find(|run| !run.wrong.is_empty())
}

/// Leaves only the first peers, and of the steps what is about them.
fn keep_peers(scenario: &mut Scenario, peers: usize) {
    scenario.peers = Count::Exactly(peers);
    for step in &mut scenario.steps {
        if let Act::Partition(groups) = &mut step.act {
            groups.iter_mut().for_each(|group| group.retain(|peer| *peer < peers));
        }
    }
    scenario.steps.retain(|step| step.act.peers().iter().all(|peer| *peer < peers));
}

/// What could be left out.
fn cuts(scenario: &Scenario, peers: usize) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = Vec::new();
    let mut cut = |name: &str, cut: Box<dyn Fn(&mut Scenario)>| cuts.push((name.to_owned(), cut));
    for fewer in [peers / 2, peers - 1] {
        if fewer >= 2 && fewer < peers {
            cut(&format!("{fewer} peers"), Box::new(move |s| keep_peers(s, fewer)));
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
    if scenario.clocks.skew > Span(0) || scenario.clocks.drift_ppm > 0 || scenario.clocks.wrong > 0 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Step;

    #[test]
    fn what_a_failure_does_not_need_is_left_out() {
        let mut scenario = Scenario::quiet("apart", 6, Span::seconds(4));
        scenario.converge = Span(1);
        scenario.clocks.skew = Span::seconds(5);
        scenario.steps = vec![
            Step { at: Span(0), act: Act::Partition(vec![vec![0], vec![1, 2, 3, 4, 5]]) },
            Step { at: Span::seconds(1), act: Act::Backup(2) },
            Step { at: Span::seconds(1), act: Act::Write { peer: 0, documents: 5 } },
        ];
        let found = minimize(&scenario, 1, 1, |_| {}).expect("it fails");
        assert_eq!(found.scenario.peers, Count::Exactly(2));
        assert_eq!(found.scenario.steps.len(), 2, "{:?}", found.left_out);
        assert_eq!(found.scenario.clocks.skew, Span(0));
        assert!(minimize(&Scenario::quiet("quiet", 2, Span::seconds(1)), 1, 1, |_| {}).is_none());
    }
}
