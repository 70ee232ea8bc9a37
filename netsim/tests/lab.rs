//! The lab, tested: whether its NATs are what they say, and what real peers make of them.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use netsim::Span;
use netsim::lab::matrix::{self, Outcome, Pair, Plan};
use netsim::lab::peers::{Options, Peer, wait};
use netsim::lab::reflector::Reflector;
use netsim::lab::topology::Site;
use netsim::lab::wire::Line;
use netsim::lab::{self, Kind, Lab, Topology, nat, reflector, scenes};
use serde_json::json;

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

#[test]
fn what_is_expected_of_a_pair_is_what_its_nats_allow() {
    if !supported() {
        return;
    }
    let kinds = [
        Kind::PortRestricted,
        Kind::Symmetric,
        Kind::FullCone,
        Kind::AddressRestricted,
        Kind::Cgnat,
        Kind::DualStack,
        Kind::Firewall,
    ];
    let site = |kind: Kind, end: &str| Site::new(&format!("{}-{end}", kind.name().replace('_', "-")), kind);
    let sites: Vec<_> = kinds.into_iter().flat_map(|kind| [site(kind, "one"), site(kind, "other")]).collect();
    let lab = Lab::build(&Topology::new("pairs", sites)).unwrap();
    let _reflector = Reflector::start(&lab).unwrap();
    let host = |kind, end| lab.host(&site(kind, end).name).unwrap();
    let pairs = kinds.into_iter().flat_map(|listener| kinds.map(|dialer| Pair::new(listener, dialer)));
    let punch = &|pair: Pair| reflector::punch(host(pair.listener, "one"), host(pair.dialer, "other")).unwrap();
    std::thread::scope(|scope| {
        let punches: Vec<_> = pairs.map(|pair| (pair, scope.spawn(move || punch(pair)))).collect();
        for (pair, punch) in punches {
            assert_eq!(punch.join().unwrap(), pair.expected() == Outcome::Direct, "{pair}");
        }
    });
}

/// Sends a datagram, and says from where it came when it arrives; late ones that were sent before do not count.
fn arrives(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> Option<SocketAddr> {
    let (sent, mut got) = (rand::random::<[u8; 8]>(), [0; 8]);
    from.send_to(&sent, to).ok()?;
    loop {
        let (_, seen) = at.recv_from(&mut got).ok()?;
        if got == sent {
            return Some(seen);
        }
    }
}

fn socket(lab: &Lab, host: &str) -> UdpSocket {
    let bind = || UdpSocket::bind("0.0.0.0:4001");
    let socket = lab.host(host).expect("it is there").namespace.run(bind).expect("the port is free");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time");
    socket
}

/// Three sites, on cables or on lines.
fn sites(line: Line) -> Topology {
    let home = |name| Site::new(name, Kind::FullCone);
    Topology::new("sites", vec![Site::new("server", Kind::Public), home("home"), home("cafe")]).over(line)
}

#[test]
fn a_router_forgets_when_it_is_switched_off_and_on() {
    if !supported() {
        return;
    }
    let mut lab = Lab::build(&sites(Line::default())).unwrap();
    let (server, home) = (socket(&lab, "server"), socket(&lab, "home"));
    let to = SocketAddr::from((lab.host("server").unwrap().v4.unwrap(), 4001));
    let seen = arrives(&home, to, &server).unwrap();
    assert!(arrives(&server, seen, &home).is_some());
    lab.reboot(lab.host("home").unwrap().site).unwrap();
    assert!(arrives(&server, seen, &home).is_none(), "the router still knows");
    let seen = arrives(&home, to, &server).unwrap();
    assert!(arrives(&server, seen, &home).is_some());
}

#[test]
fn a_site_can_be_cut_off_and_a_host_can_move() {
    if !supported() {
        return;
    }
    for line in [Line::default(), Line { delay: Span::ms(5), ..Line::default() }] {
        let mut lab = Lab::build(&sites(line)).unwrap();
        let (server, home) = (socket(&lab, "server"), socket(&lab, "home"));
        let to = SocketAddr::from((lab.host("server").unwrap().v4.unwrap(), 4001));
        let before = arrives(&home, to, &server).unwrap();
        lab.cut(1, true).unwrap();
        assert!(arrives(&home, to, &server).is_none());
        lab.cut(1, false).unwrap();
        // The first ones may be lost: neighbours have forgotten each other's hardware address meanwhile.
        let mended = (0..20).find_map(|_| arrives(&home, to, &server));
        assert_eq!(mended, Some(before));
        lab.move_host("home", 2).unwrap();
        let after = (0..20).find_map(|_| arrives(&home, to, &server)).unwrap();
        assert_ne!(before.ip(), after.ip());
        assert!(lab.move_host("server", 2).is_err());
    }
}

/// A plan for some pairs, all side by side; nothing when there is no program for the peers.
fn plan(pairs: &[&str], line: Line) -> Option<Plan> {
    let options = Options::new(None).map_err(|error| println!("unsupported: {error}")).ok()?;
    let pairs: Vec<_> = pairs.iter().map(|pair| pair.parse().expect("a pair")).collect();
    Some(Plan { jobs: pairs.len().min(4), pairs, repeat: 1, patience: Duration::from_secs(60), line, seed: 1, options })
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

/// The short matrix: peers behind NATs reach each other directly where that is possible, and through a relay elsewhere.
#[test]
fn peers_behind_nats_reach_each_other_as_well_as_the_nats_allow() {
    let pairs = [
        "port_restricted:port_restricted",
        "full_cone:symmetric",
        "address_restricted:cgnat",
        "udp_blocked:port_restricted",
        "upnp:symmetric",
        "symmetric:port_restricted",
        "symmetric:symmetric",
        "firewall:port_restricted",
        "firewall:firewall",
        "firewall:ipv6",
    ];
    let Some(plan) = supported().then(|| plan(&pairs, Line::default())).flatten() else { return };
    let results = matrix::measure_all(&plan, |measured| println!("{measured:?}"));
    matrix::judge(&results, matrix::Limits::default()).unwrap();
    let relayed: Vec<_> = results.iter().filter(|result| result.outcome == Outcome::Relayed).collect();
    assert!(relayed.iter().all(|result| result.relay_bytes.is_some_and(|bytes| bytes > 0.0)), "{relayed:#?}");
}

/// A ticket names a relay as others need it, who have another protocol than the listener, or no UDP.
#[test]
fn the_ticket_of_a_peer_behind_a_nat_is_good_for_whoever_has_it() {
    let pairs = [
        "ticket:port_restricted:udp_blocked",
        "ticket:ipv6:port_restricted",
        "ticket:port_restricted:ipv6",
        "ticket:dual_stack:ipv6",
    ];
    let Some(plan) = supported().then(|| plan(&pairs, Line::default())).flatten() else { return };
    let results = matrix::measure_all(&plan, |measured| println!("{measured:?}"));
    matrix::judge(&results, matrix::Limits::default()).unwrap();
}

#[test]
fn scenes_of_the_field_end_as_they_should() {
    let Some(plan) = supported().then(|| plan(&["public:public"], Line::default())).flatten() else { return };
    let names = [
        "two-homes",
        "handed-on",
        "relay-dies",
        "dead-ticket",
        "lying-router",
        "firewalls",
        "unplugged",
        "new-route",
        "black-hole",
        "lost-flow-quic",
        "relay-silent",
    ];
    for name in names {
        scenes::find(name).unwrap().play(&plan.options, |line| println!("{name}: {line}")).unwrap();
    }
}

/// Two hosts on one LAN, of which each gets the addresses that commands for `ip` give it, `N` being 1 and 2, in the place of
/// those that the lab gave it.
fn lan(commands: &str) -> lab::Result<Lab> {
    let site = Site::new("lan", Kind::PortRestricted).with(&["one", "other"]);
    let lab = Lab::build(&Topology::new("lan", vec![site]))?;
    for (name, number) in [("one", "1"), ("other", "2")] {
        let namespace = &lab.host(name)?.namespace;
        namespace.ip(&format!("addr flush dev eth0 scope global\n{}", commands.replace('N', number)))?;
    }
    Ok(lab)
}

/// Peers with the settings by default, but for some, on a LAN: one joins with the ticket of the other. They are started again
/// at another port then, so that the addresses that they know are wrong, and find each other.
fn share(lab: &Lab, settings: &[(&str, &str)], listens_nowhere: &str) -> lab::Result<()> {
    let Ok(mut options) = Options::new(None).map_err(|error| println!("unsupported: {error}")) else { return Ok(()) };
    options.private = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let start = |name, options: &Options| Peer::start(lab, name, options);
    let patience = Duration::from_secs(20);
    let together = |one: &Peer, other: &Peer| Ok(matrix::best(one, other)?.is_some_and(|found| found.direct));
    let (one, other) = (start("one", &options)?, start("other", &options)?);
    one.let_in(&other)?;
    wait("they are connected", patience, || together(&one, &other))?;
    one.put("lab", "first", &json!({}))?;
    wait("the document is there", patience, || Ok(other.count("lab")? == 1))?;
    for peer in [&one, &other] {
        let status = peer.get("/nodes/status")?;
        assert_ne!(status["reachability"], "offline", "{status}");
        let listens = status["listen"].to_string();
        assert!(listens_nowhere.is_empty() || !listens.contains(listens_nowhere), "{listens}");
        let left_out = status["reach"]["addresses"].to_string().contains("left_out");
        assert_eq!(left_out, !listens_nowhere.is_empty(), "{status}");
    }
    drop((one, other));
    options.private.push(("network.listen".to_owned(), "4002".to_owned()));
    let (one, other) = (start("one", &options)?, start("other", &options)?);
    wait("they find each other", patience, || together(&one, &other)).map(drop)
}

#[test]
fn peers_on_a_lan_with_addresses_of_one_kind_only_find_each_other() {
    if !supported() {
        return;
    }
    share(&lan("addr add 192.168.77.N/24 dev eth0\n").unwrap(), &[], "").unwrap();
    share(&lan("addr add fd00:6c61::N/64 dev eth0 nodad\n").unwrap(), &[], "").unwrap();
    // Only the address that each interface gives itself.
    share(&lan("").unwrap(), &[], "").unwrap();
    // Not even 127.0.0.1.
    let v6 = lan("addr add fd00:6c61::N/64 dev eth0 nodad\naddr del 127.0.0.1/8 dev lo\n").unwrap();
    share(&v6, &[("api.rest_api.bind", "::1")], "/ip4/").unwrap();
    let v4 = lan("addr add 192.168.77.N/24 dev eth0\n").unwrap();
    for name in ["one", "other"] {
        v4.host(name).unwrap().namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    }
    share(&v4, &[], "/ip6/").unwrap();
}

#[test]
fn what_a_machine_lacks_is_named_at_once_when_it_was_asked_for() {
    if !supported() {
        return;
    }
    let Ok(mut options) = Options::new(None).map_err(|error| println!("unsupported: {error}")) else { return };
    let lab = lan("addr add 192.168.77.N/24 dev eth0\n").unwrap();
    lab.host("one").unwrap().namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    options.private = vec![("network.listen".to_owned(), "/ip6/::/tcp/4001".to_owned())];
    let start = Instant::now();
    let error = Peer::start(&lab, "one", &options).unwrap_err().to_string();
    assert!(error.contains("/ip6/::/tcp/4001") && error.contains("no IPv6 address"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_slow_line_shows_in_what_is_measured() {
    let line = Line { delay: Span::ms(100), jitter: Span::ms(5), loss: 0.01, ..Line::default() };
    let Some(plan) = supported().then(|| plan(&["public:port_restricted"], line)).flatten() else { return };
    let results = matrix::measure_all(&plan, |_| ());
    assert_eq!(results[0].outcome, Outcome::Direct, "{:#?}", results[0]);
    // One way, over two lines: nothing is faster than that.
    assert!(results[0].document_ms.unwrap() >= 200, "{:#?}", results[0]);
}
