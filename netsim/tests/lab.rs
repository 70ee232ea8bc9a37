//! The lab, tested: whether its NATs are what they say, and what real peers make of them.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use netsim::Span;
use netsim::lab::matrix::{self, Outcome, Plan};
use netsim::lab::peers::Options;
use netsim::lab::topology::Site;
use netsim::lab::wire::Line;
use netsim::lab::{self, Kind, Lab, Topology, nat, reflector};

/// Whether a lab can be run here; says what is missing otherwise.
fn supported() -> bool {
    let missing = lab::missing();
    missing.iter().for_each(|what| println!("unsupported: {what}"));
    missing.is_empty()
}

#[test]
fn every_nat_behaves_as_declared() {
    if !supported() {
        return;
    }
    std::thread::scope(|scope| {
        let checks = Kind::ALL.map(|kind| scope.spawn(move || reflector::check_kind(kind)));
        let wrong: Vec<_> = checks.into_iter().filter_map(|check| check.join().unwrap().err()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn a_nat_that_is_not_what_it_is_declared_to_be_is_found_out() {
    if !supported() {
        return;
    }
    let lab = Lab::build(&Topology::new("wrong", vec![Site::new("home", Kind::PortRestricted)])).unwrap();
    for wrong in [Kind::Symmetric, Kind::FullCone, Kind::AddressRestricted, Kind::UdpBlocked] {
        nat::install(&lab.routers(0)[0], wrong).unwrap();
        let error = reflector::check(&lab).unwrap_err().to_string();
        assert!(error.contains("home") && error.contains("port_restricted"), "{error}");
    }
    nat::install(&lab.routers(0)[0], Kind::PortRestricted).unwrap();
    reflector::check(&lab).unwrap();
}

/// A plan for some pairs, all side by side; nothing when there is no program for the peers.
fn plan(pairs: &[&str], line: Line) -> Option<Plan> {
    let options = Options::new(None).map_err(|error| println!("unsupported: {error}")).ok()?;
    let pairs: Vec<_> = pairs.iter().map(|pair| pair.parse().expect("a pair")).collect();
    Some(Plan { jobs: pairs.len(), pairs, repeat: 1, patience: Duration::from_secs(60), line, seed: 1, options })
}

#[test]
fn four_labs_side_by_side_do_not_see_each_other() {
    let pairs = ["public:public", "public:symmetric", "cgnat:public", "same:port_restricted"];
    let Some(plan) = supported().then(|| plan(&pairs, Line::default())).flatten() else { return };
    let start = Instant::now();
    let results = matrix::measure_all(&plan, |_| ());
    assert_eq!(results.len(), 4);
    for result in &results {
        assert!(result.outcome == Outcome::Direct && result.document_ms.is_some(), "{result:#?}");
    }
    println!("four labs took {:?}", start.elapsed());
}

#[test]
fn a_slow_line_shows_in_what_is_measured() {
    let line = Line { delay: Span::ms(100), jitter: Span::ms(5), loss: 0.01, rate_kbit: 0 };
    let Some(plan) = supported().then(|| plan(&["public:port_restricted"], line)).flatten() else { return };
    let results = matrix::measure_all(&plan, |_| ());
    assert_eq!(results[0].outcome, Outcome::Direct, "{:#?}", results[0]);
    // One way, over two lines: nothing is faster than that.
    assert!(results[0].document_ms.unwrap() >= 200, "{:#?}", results[0]);
}
