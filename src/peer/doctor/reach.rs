//! What is wrong with reaching others and being reached.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Finding, note, ok, problem};
use crate::base::Timestamp;
use crate::mesh::nat::{ReachReport, Reachability, Refusal, RouterFault, RouterReport};
use crate::node::PeerReport;

/// A direct connection is there within this time, in milliseconds, or not at all.
const PUNCHING_MS: u64 = 15_000;

pub(super) fn findings(peer: &PeerReport, reach: &ReachReport, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![reachability(reach)];
    findings.extend(packets(peer, reach));
    findings.extend(link_only(reach));
    findings.extend(router(reach));
    findings.extend(relays(reach));
    findings.extend(refused_circuits(reach));
    findings.extend(service(reach));
    findings.extend(relayed(peer, reach, now));
    findings.extend(refuted(reach));
    findings.extend(stun_server(reach));
    findings
}

fn reachability(reach: &ReachReport) -> Finding {
    match reach.reachability {
        Reachability::Unknown if has_claims(reach) => note(
            "reachability",
            "this machine has a public address, and it is not known yet whether this peer can be dialed there: nobody \
             outside has tried",
            "It shows once a member elsewhere is connected. If you know that no firewall is in front of this machine, name \
             the address in network.external_addresses.",
        ),
        Reachability::Firewalled => note(
            "reachability",
            "this machine has a public address, and a firewall lets nobody in unasked: direct connections are made by \
             punching holes",
            format!(
                "Let {} in on the firewall (the one of the cloud, of the router for IPv6, or of this machine).",
                ports(reach).unwrap_or_else(|| "the ports of network.listen".into())
            ),
        ),
        Reachability::Unknown => note(
            "reachability",
            "nobody has told yet how this peer is seen from outside",
            "It shows once a member outside this network is connected.",
        ),
        Reachability::Offline => problem(
            "reachability",
            "this machine has no network address but its own loopback",
            "Connect it to a network, or let network.listen name an address that others can reach.",
        ),
        Reachability::Public => ok("reachability", "this peer has an address that can be dialed from anywhere"),
        Reachability::Mapped => ok("reachability", "the router forwards a port to this peer"),
        Reachability::Punchable if reach.is_mapping_known => ok(
            "reachability",
            "behind a NAT that uses one port towards everybody: direct connections are made by punching holes",
        ),
        Reachability::Punchable => note(
            "reachability",
            "behind a NAT; only one place outside has told so far at which port it sees this peer, so that it may be one \
             that uses another port towards each destination (symmetric)",
            "It shows once a second member that can be dialed is connected, or with a server in network.stun_servers.",
        ),
        Reachability::Symmetric => note(
            "reachability",
            "behind a NAT that uses another port towards each destination (symmetric): peers behind such a NAT, or \
             behind one that filters by port, are reached through a relay only",
            "For direct connections switch on UPnP on the router, forward a port and name it in \
             network.external_addresses, or use IPv6.",
        ),
        Reachability::UdpBlocked => udp_blocked(reach),
    }
}

/// Packets that are lost because they are large.
fn packets(peer: &PeerReport, reach: &ReachReport) -> Option<Finding> {
    const ADVICE: &str = "Find the link with the small MTU (a VPN, PPPoE, a tunnel of the cloud): let ICMP \"too big\" \
                          messages through there, or clamp the MSS of TCP, or lower the MTU of this machine's interface to \
                          1280; or let UDP out, over which packets are small.";
    let stalled = Some(reach.handshakes_stalled).filter(|stalled| *stalled > 0)?;
    let what = format!(
        "the last {stalled} handshakes over TCP came to a standstill after the first small packets: larger packets seem to \
         be lost on the way (path MTU)"
    );
    Some(if peer.neighbours.is_empty() { problem("packets", what, ADVICE) } else { note("packets", what, ADVICE) })
}

/// Whether this machine has public addresses of which nobody has said yet whether they can be dialed.
fn has_claims(reach: &ReachReport) -> bool {
    reach.addresses.iter().any(|address| address.source == "listening" && address.state == "unconfirmed")
}

/// A machine whose network gives it no addresses.
fn link_only(reach: &ReachReport) -> Option<Finding> {
    let listening = reach.addresses.iter().filter(|address| address.source == "listening");
    let ips = listening.filter_map(|address| address.address.split('/').nth(2)?.parse::<IpAddr>().ok());
    let far: Vec<IpAddr> = ips.filter(|ip| !ip.is_loopback()).collect();
    let is_of_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    (!far.is_empty() && far.iter().all(is_of_link)).then(|| {
        note(
            "addresses",
            "this machine has no address but those of its link (fe80::): peers on the same link are reached over TCP, not \
             over QUIC, and nobody else is",
            "A router or DHCP gives it others, and so does a prefix of your own (fd00::/8).",
        )
    })
}

fn udp_blocked(reach: &ReachReport) -> Finding {
    const ADVICE: &str = "Ask whoever runs this network to let UDP out; QUIC is faster, and punches more holes.";
    if reach.udp == Some(false) {
        let what = "UDP is blocked: STUN servers were asked over it, and nothing came back; TCP is used";
        return problem("reachability", what, ADVICE);
    }
    note("reachability", "all connections are over TCP: this network seems to block UDP, or nobody uses it", ADVICE)
}

/// Whether a NAT is in the way of those who begin a connection.
fn is_behind(reach: &ReachReport) -> bool {
    match reach.reachability {
        Reachability::Public | Reachability::Offline | Reachability::Unknown | Reachability::Mapped => false,
        Reachability::Firewalled | Reachability::Punchable | Reachability::Symmetric | Reachability::UdpBlocked => true,
    }
}

fn router(reach: &ReachReport) -> Option<Finding> {
    match &reach.router {
        RouterReport::Forwarding { ports, dead } if !dead.is_empty() => Some(problem(
            "upnp",
            format!(
                "the router says that it forwards {}, and nobody outside reaches this peer at {}: it names an address \
                 that is not its own, or does not forward",
                ports.join(", "),
                dead.join(", ")
            ),
            format!(
                "Compare that address with the one that the router shows as its own: when they differ it is behind \
                 another NAT. Restart it or bring its software up to date; or set network.upnp to false, and {}.",
                forward_by_hand(reach)
            ),
        )),
        RouterReport::Forwarding { ports, .. } => Some(ok("upnp", format!("the router forwards {}", ports.join(", ")))),
        RouterReport::NotAsked | RouterReport::Searching => None,
        // No router translates what a firewall lets through.
        RouterReport::Off | RouterReport::Nothing(_)
            if !is_behind(reach) || reach.reachability == Reachability::Firewalled =>
        {
            None
        }
        RouterReport::Off => Some(note(
            "upnp",
            "the router is not asked to forward ports: network.upnp is false",
            format!("Set it to true, or {}.", forward_by_hand(reach)),
        )),
        RouterReport::Nothing(refusal) => Some(unwilling(refusal, reach)),
    }
}

/// A router that forwards nothing.
fn unwilling(refusal: &Refusal, reach: &ReachReport) -> Finding {
    let by_hand = forward_by_hand(reach);
    match refusal.fault {
        RouterFault::Absent => note(
            "upnp",
            "no router answers to UPnP: it is switched off there, or the router has none",
            format!("Switch UPnP on on the router, or {by_hand}."),
        ),
        RouterFault::NotPublic => note(
            "upnp",
            refusal.why.clone(),
            format!(
                "Behind two NATs no port can be forwarded from here: use the router as a bridge, ask the provider for \
                 a public address, or use IPv6. If the router is wrong, {by_hand}."
            ),
        ),
        RouterFault::Refused => problem(
            "upnp",
            format!("the router refuses: {}", refusal.why),
            format!("Let it allow UPnP for this machine (its settings may have a list of who may), or {by_hand}."),
        ),
        RouterFault::Silent | RouterFault::Unreachable | RouterFault::Nonsense | RouterFault::TooMuch => problem(
            "upnp",
            format!("the router's UPnP does not work: {}", refusal.why),
            format!("Restart the router or bring its software up to date, or {by_hand}."),
        ),
    }
}

/// What to do on a router that does not do it by itself.
fn forward_by_hand(reach: &ReachReport) -> String {
    format!(
        "forward {} to this machine on the router and name the outer address in network.external_addresses",
        ports(reach).unwrap_or_else(|| "a port".into())
    )
}

/// The ports on which this peer listens, in words.
fn ports(reach: &ReachReport) -> Option<String> {
    let listening = reach.addresses.iter().filter(|address| address.source == "listening");
    let port = |address: &str| {
        let mut parts = address.split('/').skip(2);
        let (ip, kind, number) = (parts.next()?, parts.next()?, parts.next()?);
        let is_far = ip.parse().is_ok_and(|ip: IpAddr| !ip.is_loopback());
        is_far.then(|| format!("{} port {number}", kind.to_uppercase()))
    };
    let mut ports: Vec<String> = listening.filter_map(|listening| port(&listening.address)).collect();
    ports.sort_unstable();
    ports.dedup();
    (!ports.is_empty()).then(|| ports.join(" and "))
}

fn relays(reach: &ReachReport) -> Option<Finding> {
    if !is_behind(reach) && reach.reachability != Reachability::Mapped {
        return None;
    }
    let full = reach.relays_full;
    Some(match (reach.relays.len(), reach.relays_known) {
        (0, 0) => problem(
            "relays",
            "no member relays for this peer, so that nobody outside this network can begin a connection to it",
            "Run one member where it can be dialed from anywhere (a small server, or behind a forwarded port named in \
             network.external_addresses); it relays for the others by itself.",
        ),
        (0, known) if full == known => problem(
            "relays",
            format!("all {known} connected members that relay are full: none has a slot left for this peer"),
            "Run another member that can be dialed from anywhere, or raise network.relay.slots on those.",
        ),
        (0, known) => problem(
            "relays",
            format!(
                "{known} connected members relay, and none has given this peer a slot ({})",
                reasons(&reach.relay_slots_refused).unwrap_or_else(|| "none has answered yet".into())
            ),
            "See relay_service in their `node status` and their logs, or run another member that can be dialed from \
             anywhere.",
        ),
        (1, _) => note(
            "relays",
            format!(
                "one member holds a slot for this peer; when it goes, others cannot reach this peer{}",
                if full > 0 { format!(" ({full} others are full)") } else { String::new() }
            ),
            "Run a second member that can be dialed from anywhere.",
        ),
        (held, _) => ok("relays", format!("{held} members hold a slot for this peer")),
    })
}

/// What was counted, in words; `None` when nothing was.
fn reasons(counts: &BTreeMap<&'static str, u64>) -> Option<String> {
    let counted: Vec<String> =
        counts.iter().filter(|(_, count)| **count > 0).map(|(reason, count)| format!("{reason}: {count}")).collect();
    (!counted.is_empty()).then(|| counted.join(", "))
}

fn refused_circuits(reach: &ReachReport) -> Option<Finding> {
    let full = reach.relay_circuits_refused.get("full").copied().filter(|count| *count > 0)?;
    Some(note(
        "relays",
        format!("relays have refused {full} connections through them since the start: they were full"),
        "Raise network.relay.circuits on the members that relay, or run another one that can be dialed from anywhere.",
    ))
}

/// What this peer does as a relay.
fn service(reach: &ReachReport) -> Option<Finding> {
    const ADVICE: &str = "Run another member that can be dialed from anywhere, or raise network.relay.slots and network.relay.circuits here.";
    let service = &reach.service;
    if !service.enabled {
        return None;
    }
    let used = format!(
        "{} of {} slots and {} of {} relayed connections are taken",
        service.slots, service.slots_max, service.circuits, service.circuits_max
    );
    let denied = service.slots_denied + service.circuits_denied;
    Some(if service.slots >= service.slots_max || service.circuits >= service.circuits_max {
        problem("relay service", format!("this relay is full: {used}; others are turned away"), ADVICE)
    } else if denied > 0 {
        let what = format!("others were turned away {denied} times because there was no room for them; now {used}");
        note("relay service", what, ADVICE)
    } else {
        ok("relay service", format!("this peer relays for others: {used}"))
    })
}

/// Neighbours that stay behind a relay, by whose NAT is the reason.
fn relayed(peer: &PeerReport, reach: &ReachReport, now: Timestamp) -> Vec<Finding> {
    let is_stuck = |since: Timestamp| now.since_ms(since) >= PUNCHING_MS;
    let stuck = peer.neighbours.iter().filter(|neighbour| !neighbour.direct && is_stuck(neighbour.since));
    let (there, elsewhere): (Vec<_>, Vec<_>) = stuck.partition(|neighbour| reach.symmetric.contains(&neighbour.peer));
    let is_here = reach.reachability == Reachability::Symmetric;
    let said = |count: usize, why: &str| {
        format!("{count} members are connected through a relay only, and slower for it: {why}")
    };
    let mut findings = Vec::new();
    if !there.is_empty() && is_here {
        findings.push(problem(
            "relayed",
            said(there.len(), "the NATs at both ends are symmetric, and no hole can be punched between such"),
            "Switch on UPnP on the router at one of the two ends, forward a port there, or use IPv6.",
        ));
    } else if !there.is_empty() {
        findings.push(note(
            "relayed",
            said(there.len(), "the NAT at their end is symmetric, and the one here lets nobody in from another port"),
            "It works as it is. A forwarded port or UPnP at one of the two ends makes it direct.",
        ));
    }
    if !elsewhere.is_empty() {
        let why = match (is_here, &reach.punches.last_failure) {
            (true, _) => {
                "the NAT here is symmetric, and the one at their end lets nobody in from another port".to_owned()
            }
            (false, Some(why)) => format!("the last attempt to punch a hole failed ({why})"),
            (false, None) => {
                "no hole could be punched: a NAT or firewall in between lets none through, or the other peer tries none"
                    .to_owned()
            }
        };
        findings.push(note(
            "relayed",
            said(elsewhere.len(), &why),
            "It works as it is. A forwarded port or UPnP at one of the two ends makes it direct.",
        ));
    }
    findings
}

/// Addresses that were announced as good, and are not.
fn refuted(reach: &ReachReport) -> Option<Finding> {
    let named = |source: &'static str| reach.addresses.iter().filter(move |address| address.source == source);
    let own: Vec<&str> = named("refuted").map(|address| address.address.as_str()).collect();
    let configured = |address: &&str| named("configured").any(|other| other.address.starts_with(*address));
    let wrong: Vec<&str> = own.into_iter().filter(configured).collect();
    let listening = |address: &&str| named("listening").any(|other| other.address == **address);
    let shut: Vec<&str> = named("refuted").map(|address| address.address.as_str()).filter(listening).collect();
    if wrong.is_empty() && reach.reachability == Reachability::Public && !shut.is_empty() {
        return Some(note(
            "firewall",
            format!("nobody outside reaches this peer at {}: a firewall seems to be in front of it", shut.join(", ")),
            "Let that port in on the firewall, for those who have no other way; until then they come through a relay.",
        ));
    }
    (!wrong.is_empty()).then(|| {
        problem(
            "external addresses",
            format!("nobody reaches this peer at {}", wrong.join(", ")),
            "See whether the router forwards that port to this machine, and no firewall is in the way; or take the \
             address out of network.external_addresses.",
        )
    })
}

/// A STUN server for others that could not be started.
fn stun_server(reach: &ReachReport) -> Option<Finding> {
    let why = reach.stun_server_fault.as_ref()?;
    Some(problem(
        "stun server",
        format!("this peer cannot tell others how they are seen from outside: {why}"),
        "Stop what uses it, or give network.stun_port another port of which the next one is free, too (0 for no such \
         server); then start this peer again.",
    ))
}
