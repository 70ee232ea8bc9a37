//! The lab, tested: whether its NATs are what they say, and what real peers make of them.
#![cfg(target_os = "linux")]

use netsim::lab::topology::Site;
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
