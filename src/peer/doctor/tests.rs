//! What is said of healthy peers, and of each trouble.

use std::collections::BTreeMap;

use super::*;
use crate::access::Role;
use crate::base::{MeshId, PeerId};
use crate::kv::CacheUse;
use crate::kv::Condition;
use crate::mesh::nat::{AddressReport, Punches, Reachability, Refusal, RelayService, RouterFault, RouterReport};
use crate::node::{Agreement, ClockReport, Counters, DiskReport, NeighbourReport, RestlessReport, TwiceReport};
use crate::store::Rebuilding;

fn peer(neighbours: Vec<NeighbourReport>) -> PeerReport {
    PeerReport {
        peer: PeerId([1; 32]),
        mesh: MeshId([1; 32]),
        mesh_name: "mesh".into(),
        role: Some(Role::Writer),
        members: 3,
        overused: Vec::new(),
        neighbours,
        restless: Vec::new(),
        collections: 0,
        documents: 0,
        documents_bytes: 0,
        twice: None,
        counters: Counters::default(),
        open_documents: CacheUse::default(),
        letters: 0,
        letters_evicted: 0,
        stored: 0,
        clock: ClockReport {
            shows: Timestamp(1_700_000_000_000),
            agreement: Agreement::Agrees,
            middle_ahead_ms: 0,
            set: None,
            stamped_until: None,
            kept: 0,
            expiry_waits: None,
        },
        disk: DiskReport::default(),
    }
}

fn neighbour(direct: bool, clock_ahead_ms: i64) -> NeighbourReport {
    let (address, since, clock_ahead_ms) = ("/ip4/8.8.8.8/tcp/1".into(), Timestamp(0), Some(clock_ahead_ms));
    NeighbourReport {
        peer: PeerId([2; 32]),
        address,
        direct,
        since,
        no_answer_since: None,
        in_sync: true,
        to_send: 0,
        clock_ahead_ms,
    }
}

fn reached(reachability: Reachability) -> ReachReport {
    ReachReport { reachability, ..ReachReport::default() }
}

fn severity(findings: &[Finding], subject: &str) -> Option<Severity> {
    findings.iter().find(|finding| finding.subject == subject).map(|finding| finding.severity)
}

#[test]
fn a_healthy_peer_has_no_problems() {
    let relays = vec![PeerId([3; 32]); 2];
    let reach = ReachReport { relays, is_mapping_known: true, ..reached(Reachability::Punchable) };
    let findings = diagnose(&peer(vec![neighbour(true, 200)]), &reach, Timestamp(60_000));
    assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:?}");
}

#[test]
fn members_that_do_not_answer_are_not_simply_connected() {
    let since = Timestamp(50_000);
    let silent = NeighbourReport { no_answer_since: Some(since), ..neighbour(true, 0) };
    for (neighbours, expected) in
        [(vec![silent.clone(), neighbour(true, 0)], Severity::Note), (vec![silent.clone(), silent], Severity::Problem)]
    {
        let findings = diagnose(&peer(neighbours), &reached(Reachability::Public), Timestamp(60_000));
        let finding = findings.into_iter().find(|finding| finding.subject == "peers").unwrap();
        assert_eq!(finding.severity, expected);
        assert!(finding.what.contains(&format!("no answer since {since}")), "{}", finding.what);
    }
}

#[test]
fn each_trouble_is_named_with_what_to_do() {
    let now = Timestamp(60_000);
    let alone = diagnose(&peer(Vec::new()), &reached(Reachability::Offline), now);
    assert_eq!(severity(&alone, "peers"), Some(Severity::Problem));
    assert_eq!(severity(&alone, "reachability"), Some(Severity::Problem));
    let behind = diagnose(&peer(vec![neighbour(false, 90_000)]), &reached(Reachability::Symmetric), now);
    assert_eq!(severity(&behind, "relays"), Some(Severity::Problem));
    assert_eq!(severity(&behind, "relayed"), Some(Severity::Note));
    assert_eq!(severity(&behind, "clock"), Some(Severity::Problem));
    let troubles = behind.iter().chain(&alone).filter(|finding| finding.severity != Severity::Ok);
    assert!(troubles.into_iter().all(|finding| finding.advice.is_some()));
    // A connection that has only just been made may still become direct.
    let young = diagnose(&peer(vec![neighbour(false, 0)]), &reached(Reachability::Symmetric), Timestamp(1_000));
    assert_eq!(severity(&young, "relayed"), None);
}

/// What is said of the clock beside members whose clocks are so far ahead.
fn clock(ahead_ms: &[i64]) -> (Severity, String) {
    let neighbours = ahead_ms.iter().map(|ahead_ms| neighbour(true, *ahead_ms)).collect();
    let found = said(&diagnose(&peer(neighbours), &reached(Reachability::Public), Timestamp(0)), "clock");
    let [found] = found.as_slice() else { panic!("{found:?}") };
    found.clone()
}

#[test]
fn the_odd_clock_is_named_and_the_others_are_well() {
    let hour = 3_600_000;
    let check = |ahead_ms: &[i64], severity, words: &[&str]| {
        let (how_bad, text) = clock(ahead_ms);
        assert_eq!(how_bad, severity, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text:?}"));
    };
    let member = PeerId([2; 32]).to_string();
    check(&[0, hour], Severity::Note, &["agrees with those of most", &member, "3600 s ahead"]);
    check(&[-hour, 10, 20], Severity::Note, &[&member, "3600 s behind"]);
    check(&[hour, hour], Severity::Problem, &["this machine's clock is 3600 s behind those"]);
    check(&[-hour, -hour, 0], Severity::Problem, &["no more of them", "3600 s behind"]);
    check(&[hour], Severity::Problem, &[&member, "3600 s ahead of it"]);
    check(&[5, -700], Severity::Ok, &["agrees"]);
    check(&[hour; 9][..4], Severity::Problem, &["3600 s behind those"]);
}

#[test]
fn a_machine_that_booted_in_1970_is_told_to_set_its_clock() {
    let mut peer = peer(Vec::new());
    peer.clock.shows = Timestamp(60_000);
    let found = said(&diagnose(&peer, &reached(Reachability::Public), Timestamp(60_000)), "clock");
    assert!(
        matches!(&found[..], [(Severity::Problem, text)] if text.contains("shows 1970-01-01T00:01:00")),
        "{found:?}"
    );
}

#[test]
fn what_wrong_clocks_led_to_is_told() {
    let mut peer = peer(vec![neighbour(true, 0)]);
    let now = peer.clock.shows;
    peer.clock.set = Some((now, -86_400_000));
    peer.clock.stamped_until = Some(now.plus_ms(315_360_000_000));
    peer.clock.kept = 7;
    peer.clock.expiry_waits = Some("somebody differs");
    let found = diagnose(&peer, &reached(Reachability::Public), now);
    assert!(said(&found, "clock")[1].1.contains("86400 s back"), "{found:?}");
    assert!(said(&found, "stamps")[0].1.contains("up to 2033-11"), "{found:?}");
    assert!(said(&found, "expiry")[0].1.contains("7 documents were kept"), "{found:?}");
    assert!(said(&found, "expiry")[1].1.contains("somebody differs"), "{found:?}");
    assert!(found.iter().all(|finding| finding.severity != Severity::Problem), "{found:?}");
}

#[test]
fn a_peer_that_runs_twice_is_named_and_links_that_break_are_noted() {
    let restless = |is_twice| RestlessReport {
        peer: PeerId([7; 32]),
        places: ["/ip4/8.8.8.8/tcp/1", "/ip4/9.9.9.9/tcp/1"].map(str::to_owned).into(),
        starts: 4,
        is_twice,
    };
    for (is_twice, severity_then, word) in
        [(true, Severity::Problem, "--new-identity"), (false, Severity::Note, "copied")]
    {
        let report = PeerReport { restless: vec![restless(is_twice)], ..peer(vec![neighbour(true, 0)]) };
        let findings = diagnose(&report, &reached(Reachability::Public), Timestamp(0));
        let found = findings.iter().find(|finding| finding.subject == "links").unwrap();
        assert_eq!(found.severity, severity_then);
        assert!(found.what.contains(&PeerId([7; 32]).to_string()), "{}", found.what);
        assert!(found.advice.as_ref().unwrap().contains(word), "{found:?}");
    }
}

#[test]
fn a_peer_that_runs_twice_is_told_by_whom() {
    let places = ["8.8.8.8 port 1", "9.9.9.9 port 1"].map(str::to_owned).into();
    let twice = Some(TwiceReport { by: PeerId([7; 32]), places });
    let report = PeerReport { twice, ..peer(vec![neighbour(true, 0)]) };
    let findings = diagnose(&report, &reached(Reachability::Public), Timestamp(0));
    let found = findings.iter().find(|finding| finding.subject == "identity").unwrap();
    assert_eq!(found.severity, Severity::Problem);
    assert!(found.what.contains(&PeerId([7; 32]).to_string()) && found.what.contains("9.9.9.9 port 1"), "{found:?}");
    assert!(found.advice.as_ref().unwrap().contains("--new-identity"), "{found:?}");
}

#[test]
fn an_address_that_is_configured_and_dead_is_a_problem() {
    let address = |source, text: &str| AddressReport { address: text.into(), source, state: String::new() };
    let addresses = vec![address("configured", "/ip4/8.8.8.8/tcp/1/p2p/x"), address("refuted", "/ip4/8.8.8.8/tcp/1")];
    let reach = ReachReport { addresses, punches: Punches::default(), ..reached(Reachability::Public) };
    let findings = diagnose(&peer(vec![neighbour(true, 0)]), &reach, Timestamp(0));
    assert_eq!(severity(&findings, "external addresses"), Some(Severity::Problem));
}

#[test]
fn a_public_address_is_said_to_be_good_only_when_somebody_has_shown_it() {
    let own = "/ip4/8.8.8.8/tcp/4001";
    let listed = |source, state: &str| AddressReport { address: own.into(), source, state: state.into() };
    let diagnosed = |reachability, addresses| {
        diagnose(&peer(Vec::new()), &ReachReport { addresses, ..reached(reachability) }, Timestamp(0))
    };
    let check = |findings: &[Finding], about: &str, words: &[&str]| {
        let said = said(findings, about);
        assert!(said.iter().all(|(severity, _)| *severity == Severity::Note), "{said:?}");
        assert!(said.len() == 1 && words.iter().all(|word| said[0].1.contains(word)), "{said:?}");
    };
    let claim = vec![listed("listening", "unconfirmed")];
    check(&diagnosed(Reachability::Unknown, claim), "reachability", &["not known yet", "network.external_addresses"]);
    let shut = || vec![listed("listening", ""), listed("refuted", "a firewall")];
    check(&diagnosed(Reachability::Firewalled, shut()), "reachability", &["punching holes", "TCP port 4001"]);
    // A way that is open, and one that is not.
    check(&diagnosed(Reachability::Public, shut()), "firewall", &[own, "relay"]);
}

#[test]
fn large_packets_that_are_lost_are_a_problem_to_whom_nobody_is_connected() {
    let reach = ReachReport { handshakes_stalled: 2, ..reached(Reachability::UdpBlocked) };
    for (neighbours, severity) in [(Vec::new(), Severity::Problem), (vec![neighbour(true, 0)], Severity::Note)] {
        let said = said(&diagnose(&peer(neighbours), &reach, Timestamp(0)), "packets");
        assert!(said.len() == 1 && said[0].0 == severity && said[0].1.contains("larger packets"), "{said:?}");
    }
    assert!(said(&diagnose(&peer(Vec::new()), &reached(Reachability::Public), Timestamp(0)), "packets").is_empty());
}

#[test]
fn a_machine_with_addresses_of_its_link_only_is_told() {
    let listening = |text: &&str| AddressReport { address: (*text).into(), source: "listening", state: String::new() };
    let found = |texts: &[&str]| {
        let addresses = texts.iter().map(listening).collect();
        let reach = ReachReport { addresses, ..reached(Reachability::Unknown) };
        severity(&diagnose(&peer(Vec::new()), &reach, Timestamp(0)), "addresses")
    };
    assert_eq!(found(&["/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1"]), Some(Severity::Note));
    assert_eq!(found(&["/ip6/fe80::1/tcp/1", "/ip6/fd00::1/tcp/1"]), None);
    assert_eq!(found(&["/ip4/127.0.0.1/tcp/1"]), None);
}

/// What is said about something: how bad it is, what, and the advice, in one text for each.
fn said(findings: &[Finding], about: &str) -> Vec<(Severity, String)> {
    let found = findings.iter().filter(|finding| finding.subject == about);
    found.map(|found| (found.severity, format!("{} {}", found.what, found.advice.as_deref().unwrap_or("")))).collect()
}

/// Holds that exactly one thing is said about something, with these words in it.
fn holds(reach: &ReachReport, about: &str, severity: Severity, words: &[&str]) {
    let neighbours = vec![neighbour(false, 0)];
    let found = said(&diagnose(&peer(neighbours), reach, Timestamp(60_000)), about);
    let [(how_bad, text)] = found.as_slice() else { panic!("{about}: {found:?}") };
    assert_eq!(*how_bad, severity, "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {text:?}"));
}

#[test]
fn a_router_without_upnp_is_named_with_the_ports_to_forward() {
    let listening = |text: &str| AddressReport { address: text.into(), source: "listening", state: String::new() };
    let addresses = vec![
        listening("/ip4/127.0.0.1/udp/4001/quic-v1"),
        listening("/ip4/192.168.1.5/udp/4002/quic-v1"),
        listening("/ip4/192.168.1.5/tcp/4003"),
    ];
    let reach = |router| ReachReport { router, addresses: addresses.clone(), ..reached(Reachability::Symmetric) };
    let refusal = |fault, why: &str| RouterReport::Nothing(Refusal { fault, why: why.into() });
    let ports = "forward TCP port 4003 and UDP port 4002";
    for (router, severity, words) in [
        (RouterReport::Off, Severity::Note, "network.upnp is false"),
        (refusal(RouterFault::Absent, "nobody"), Severity::Note, "Switch UPnP on on the router"),
        (refusal(RouterFault::NotPublic, "its own address, 10.0.0.1"), Severity::Note, "10.0.0.1"),
        (refusal(RouterFault::Refused, "not authorized"), Severity::Problem, "refuses: not authorized"),
        (refusal(RouterFault::Silent, "silence"), Severity::Problem, "silence"),
        (refusal(RouterFault::Nonsense, "no XML"), Severity::Problem, "no XML"),
        (refusal(RouterFault::TooMuch, "a book"), Severity::Problem, "a book"),
        (refusal(RouterFault::Unreachable, "no way"), Severity::Problem, "no way"),
    ] {
        holds(&reach(router), "upnp", severity, &[words, ports, "network.external_addresses"]);
    }
    // Who can be dialed needs no router.
    let public = ReachReport { router: refusal(RouterFault::Absent, "nobody"), ..reached(Reachability::Public) };
    assert!(said(&diagnose(&peer(Vec::new()), &public, Timestamp(0)), "upnp").is_empty());
}

#[test]
fn a_router_that_lies_is_a_problem() {
    let router = |dead: &[&str]| RouterReport::Forwarding {
        ports: vec!["9.9.9.9:4001/udp to port 4001".into()],
        dead: dead.iter().map(|dead| (*dead).to_owned()).collect(),
    };
    let lies = ReachReport { router: router(&["/ip4/9.9.9.9/udp/4001/quic-v1"]), ..reached(Reachability::Punchable) };
    holds(&lies, "upnp", Severity::Problem, &["says that it forwards", "nobody outside", "/ip4/9.9.9.9/udp/4001"]);
    let good = ReachReport { router: router(&[]), ..reached(Reachability::Mapped) };
    holds(&good, "upnp", Severity::Ok, &["forwards 9.9.9.9:4001/udp"]);
}

#[test]
fn blocked_udp_is_a_problem_once_stun_servers_are_silent() {
    let reach = |udp| ReachReport { udp, ..reached(Reachability::UdpBlocked) };
    holds(&reach(Some(false)), "reachability", Severity::Problem, &["UDP is blocked", "let UDP out"]);
    // Others may just not offer QUIC.
    holds(&reach(None), "reachability", Severity::Note, &["over TCP"]);
}

#[test]
fn one_witness_does_not_tell_a_symmetric_nat() {
    holds(&reached(Reachability::Punchable), "reachability", Severity::Note, &["only one place", "symmetric"]);
    let known = ReachReport { is_mapping_known: true, ..reached(Reachability::Punchable) };
    holds(&known, "reachability", Severity::Ok, &["one port towards everybody"]);
}

#[test]
fn full_relays_are_told_from_such_as_refuse() {
    let reach = |known, full, reasons: &[(&'static str, u64)]| ReachReport {
        relays_known: known,
        relays_full: full,
        relay_slots_refused: reasons.iter().copied().collect::<BTreeMap<_, _>>(),
        ..reached(Reachability::Punchable)
    };
    holds(&reach(0, 0, &[]), "relays", Severity::Problem, &["no member relays"]);
    holds(&reach(2, 2, &[("full", 5)]), "relays", Severity::Problem, &["all 2", "are full", "network.relay.slots"]);
    let mixed = reach(2, 1, &[("full", 5), ("refused", 0), ("silent", 3)]);
    holds(&mixed, "relays", Severity::Problem, &["full: 5, silent: 3", "another member"]);
    let held = ReachReport { relays: vec![PeerId([3; 32])], ..reach(2, 1, &[("full", 1)]) };
    holds(&held, "relays", Severity::Note, &["one member holds a slot", "1 others are full"]);
    let public = ReachReport { relay_circuits_refused: BTreeMap::from([("full", 2)]), ..reached(Reachability::Public) };
    holds(&public, "relays", Severity::Note, &["refused 2 connections", "network.relay.circuits"]);
}

#[test]
fn a_relay_knows_that_it_is_full() {
    let reach = |slots, circuits, circuits_denied| ReachReport {
        service: RelayService {
            enabled: true,
            slots,
            slots_max: 4,
            circuits,
            circuits_max: 2,
            slots_denied: 0,
            circuits_denied,
        },
        ..reached(Reachability::Public)
    };
    holds(&reach(3, 1, 0), "relay service", Severity::Ok, &["3 of 4 slots", "1 of 2"]);
    holds(&reach(4, 1, 0), "relay service", Severity::Problem, &["is full", "network.relay.slots"]);
    holds(&reach(3, 2, 9), "relay service", Severity::Problem, &["is full", "network.relay.circuits"]);
    holds(&reach(3, 1, 9), "relay service", Severity::Note, &["turned away 9 times"]);
    assert!(
        said(&diagnose(&peer(Vec::new()), &reached(Reachability::Public), Timestamp(0)), "relay service").is_empty()
    );
}

#[test]
fn whose_nat_keeps_a_connection_on_its_relay_is_said() {
    let there = vec![PeerId([2; 32])];
    let both = ReachReport { symmetric: there.clone(), ..reached(Reachability::Symmetric) };
    holds(&both, "relayed", Severity::Problem, &["both ends are symmetric", "UPnP"]);
    let theirs = ReachReport { symmetric: there, ..reached(Reachability::Punchable) };
    holds(&theirs, "relayed", Severity::Note, &["NAT at their end is symmetric"]);
    holds(&reached(Reachability::Symmetric), "relayed", Severity::Note, &["NAT here is symmetric"]);
    let punches = Punches { last_failure: Some("no luck".into()), ..Punches::default() };
    let neither = ReachReport { punches, ..reached(Reachability::Punchable) };
    holds(&neither, "relayed", Severity::Note, &["no luck"]);
    // Somebody else's NAT has nothing to do with it.
    let others = ReachReport { symmetric: vec![PeerId([9; 32])], ..reached(Reachability::Punchable) };
    holds(&others, "relayed", Severity::Note, &["no hole could be punched"]);
}

#[test]
fn a_busy_stun_port_is_a_problem() {
    let stun_server_fault = Some("UDP port 3478 or 3479 on 8.8.8.8 is in use by another program".into());
    let reach = ReachReport { stun_server_fault, ..reached(Reachability::Public) };
    holds(&reach, "stun server", Severity::Problem, &["UDP port 3478", "network.stun_port"]);
}

#[test]
fn damage_is_told_from_its_beginning_to_its_end() {
    let said = |disk: DiskReport| {
        let mut report = peer(Vec::new());
        report.disk = disk;
        let findings = diagnose(&report, &ReachReport::default(), Timestamp(0));
        findings.into_iter().find(|finding| finding.subject == "disk").map(|finding| (finding.severity, finding.what))
    };
    assert_eq!(said(DiskReport::default()), None);
    let mending = Condition { mending: Some((3, 7)), ..Condition::default() };
    let (severity, what) = said(DiskReport { condition: mending, ..DiskReport::default() }).unwrap();
    assert!(severity == Severity::Problem && what.contains("3 of 7 pages"), "{what}");
    let lost = Rebuilding { pages: 7, pages_lost: 1, documents: 2, ranges: vec!["from notes/a to notes/c".into()] };
    let condition = Condition { aside: Some("/data/table.damaged".into()), mended: 1, mending: None };
    let missing = DiskReport { condition, rebuilding: Some(lost), damaged: 2, fetching: true };
    let (severity, what) = said(missing.clone()).unwrap();
    assert!(
        severity == Severity::Problem && what.contains("notes/a to notes/c") && what.contains("2 documents are still")
    );
    let (severity, what) = said(DiskReport { damaged: 0, fetching: false, ..missing }).unwrap();
    assert!(severity == Severity::Note && what.contains("/data/table.damaged"), "{what}");
}
