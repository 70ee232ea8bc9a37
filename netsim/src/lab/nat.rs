//! What the routers of the lab do: each kind of NAT as rules for nftables, and what RFC 4787 calls it.
//!
//! The kernel's masquerading keeps the source port where it can, which makes it a port-restricted NAT; `fully-random`
//! makes it symmetric. The cones are made of a map from the ports of the router to the hosts behind it, filled by what
//! goes out. Every router drops what arrives unasked without a word: a packet that comes before the hole is punched
//! would otherwise be the router's own, and take the hole's place in its tables.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::namespace::{Namespace, Process};
use super::{Result, failed};
use crate::Error;

/// What is between a host and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing: the host has a public address.
    Public,
    /// The home router of today: one port for one socket, open to whom the socket has sent something.
    PortRestricted,
    /// Another port for each destination.
    Symmetric,
    /// One port for one socket, open to everybody.
    FullCone,
    /// One port for one socket, open to hosts to which the socket has sent something.
    AddressRestricted,
    /// A home router behind the NAT of a carrier.
    Cgnat,
    /// As port-restricted, but no UDP passes.
    UdpBlocked,
    /// As port-restricted, with a router that forwards ports when asked by UPnP or NAT-PMP.
    Upnp,
    /// The same, but the router tells a wrong public address.
    UpnpLying,
    /// No IPv4 at all; the IPv6 addresses are public, behind a firewall that lets in what answers.
    Ipv6,
    /// Port-restricted for IPv4, and such a firewall for IPv6.
    DualStack,
    /// Public addresses of both protocols behind such a firewall, as in a cloud: nothing is translated.
    Firewall,
}

/// A version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whom the mapping or the filter of a NAT tells apart, in the terms of RFC 4787.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependence {
    /// Nobody.
    EndpointIndependent,
    /// Hosts.
    AddressDependent,
    /// Sockets.
    AddressAndPortDependent,
}

/// How a NAT behaves for UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Nothing is translated, and everything arrives.
    Open,
    /// Nothing arrives.
    Blocked,
    /// Nothing is translated, and not everything arrives.
    Firewall {
        /// Who may answer.
        filtering: Dependence,
    },
    /// Addresses are translated.
    Nat {
        /// Which sockets outside see the same port.
        mapping: Dependence,
        /// Who may answer at it.
        filtering: Dependence,
    },
}

/// The address that a lying router tells: one of the lab's internet that nobody has.
pub const LIE: Ipv4Addr = Ipv4Addr::new(44, 128, 0, 250);

/// Drops what arrives unasked.
const GUARD: &str = "
    chain input {
        type filter hook input priority filter
        iifname \"wan\" ct state established,related accept
        iifname \"wan\" drop
    }
    chain forward {
        type filter hook forward priority filter
        ct state established,related accept
        ct status dnat accept
        iifname \"wan\" drop
    }";

const MASQUERADE: &str = "
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname \"wan\" masquerade
    }";

const RANDOM_PORTS: &str = "
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname \"wan\" masquerade fully-random
    }";

/// What goes out from a port opens it to everybody.
const CONE: &str = "
    map udp_ports { type inet_service : ipv4_addr . inet_service; flags dynamic; size 65535; }
    map tcp_ports { type inet_service : ipv4_addr . inet_service; flags dynamic; size 65535; }
    chain prerouting {
        type nat hook prerouting priority dstnat
        iifname \"wan\" dnat ip to udp dport map @udp_ports
        iifname \"wan\" dnat ip to tcp dport map @tcp_ports
    }
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname \"wan\" update @udp_ports { udp sport : ip saddr . udp sport }
        oifname \"wan\" update @tcp_ports { tcp sport : ip saddr . tcp sport }
        oifname \"wan\" masquerade
    }";

/// Of what comes in through an open port, only that of hosts to which it has sent something passes.
const CONTACTS: &str = "
    set udp_contacts { typeof ip saddr . udp sport . ip daddr; flags dynamic; size 65535; }
    set tcp_contacts { typeof ip saddr . tcp sport . ip daddr; flags dynamic; size 65535; }
    chain contacts {
        type filter hook forward priority -5
        oifname \"wan\" update @udp_contacts { ip saddr . udp sport . ip daddr }
        oifname \"wan\" update @tcp_contacts { ip saddr . tcp sport . ip daddr }
        iifname \"wan\" ct status dnat meta l4proto udp ip daddr . udp dport . ip saddr != @udp_contacts drop
        iifname \"wan\" ct status dnat meta l4proto tcp ip daddr . tcp dport . ip saddr != @tcp_contacts drop
    }";

const NO_UDP: &str = "
    chain blocked {
        type filter hook forward priority -5
        meta l4proto udp drop
    }";

/// What answers comes in, and what the neighbours need to find each other.
const FIREWALL: &str = "
table FAMILY firewall {
    chain input {
        type filter hook input priority filter
        iifname \"wan\" meta l4proto ipv6-icmp accept
        iifname \"wan\" ct state established,related accept
        iifname \"wan\" drop
    }
    chain forward {
        type filter hook forward priority filter
        ct state established,related accept
        iifname \"wan\" drop
    }
}
";

/// Chains that miniupnpd fills, called from base chains.
const UPNP_TABLE: &str = "
table inet upnp {
    chain miniupnpd {}
    chain prerouting_miniupnpd {}
    chain postrouting_miniupnpd {}
    chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
    chain forward { type filter hook forward priority filter; jump miniupnpd; }
}
";

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Public,
        Self::PortRestricted,
        Self::Symmetric,
        Self::FullCone,
        Self::AddressRestricted,
        Self::Cgnat,
        Self::UdpBlocked,
        Self::Upnp,
        Self::UpnpLying,
        Self::Ipv6,
        Self::DualStack,
        Self::Firewall,
    ];

    /// Its name in topologies and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::PortRestricted => "port_restricted",
            Self::Symmetric => "symmetric",
            Self::FullCone => "full_cone",
            Self::AddressRestricted => "address_restricted",
            Self::Cgnat => "cgnat",
            Self::UdpBlocked => "udp_blocked",
            Self::Upnp => "upnp",
            Self::UpnpLying => "upnp_lying",
            Self::Ipv6 => "ipv6",
            Self::DualStack => "dual_stack",
            Self::Firewall => "firewall",
        }
    }

    /// Whether there is a way to the internet of a protocol, where both are spoken.
    #[must_use]
    pub const fn speaks(self, family: Family) -> bool {
        match family {
            Family::V4 => !matches!(self, Self::Ipv6),
            Family::V6 => matches!(self, Self::Public | Self::Ipv6 | Self::DualStack | Self::Firewall),
        }
    }

    /// How it must behave for UDP, when the router is not asked to forward anything.
    #[must_use]
    pub const fn declared(self, family: Family) -> Behaviour {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        if !self.speaks(family) {
            return Behaviour::Blocked;
        }
        let (mapping, filtering) = match self {
            Self::Public => return Behaviour::Open,
            Self::UdpBlocked => return Behaviour::Blocked,
            Self::Symmetric => (AddressAndPortDependent, AddressAndPortDependent),
            Self::FullCone => (EndpointIndependent, EndpointIndependent),
            Self::AddressRestricted => (EndpointIndependent, AddressDependent),
            Self::PortRestricted
            | Self::Cgnat
            | Self::Upnp
            | Self::UpnpLying
            | Self::Ipv6
            | Self::DualStack
            | Self::Firewall => (EndpointIndependent, AddressAndPortDependent),
        };
        match family {
            Family::V4 if matches!(self, Self::Firewall) => Behaviour::Firewall { filtering },
            Family::V4 => Behaviour::Nat { mapping, filtering },
            Family::V6 => Behaviour::Firewall { filtering },
        }
    }

    /// The rules of its router, for one with interfaces `wan` and `lan`.
    #[must_use]
    pub fn rules(self) -> String {
        let parts: &[&str] = match self {
            Self::Public => return String::new(),
            Self::Ipv6 => return FIREWALL.replace("FAMILY", "ip6"),
            Self::Firewall => return FIREWALL.replace("FAMILY", "inet"),
            Self::PortRestricted | Self::Cgnat | Self::Upnp | Self::UpnpLying | Self::DualStack => &[MASQUERADE],
            Self::Symmetric => &[RANDOM_PORTS],
            Self::FullCone => &[CONE],
            Self::AddressRestricted => &[CONE, CONTACTS],
            Self::UdpBlocked => &[MASQUERADE, NO_UDP],
        };
        let upnp = if self.forwards_ports() { UPNP_TABLE } else { "" };
        let firewall = if self.speaks(Family::V6) { FIREWALL.replace("FAMILY", "ip6") } else { String::new() };
        format!("table ip nat {{{GUARD}{}\n}}\n{upnp}{firewall}", parts.concat())
    }

    /// Whether its router forwards ports when asked.
    #[must_use]
    pub const fn forwards_ports(self) -> bool {
        matches!(self, Self::Upnp | Self::UpnpLying)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Makes a router of a namespace with interfaces `wan` and `lan`.
///
/// # Errors
/// When the kernel refuses.
pub fn install(router: &Namespace, kind: Kind) -> Result<()> {
    router.sysctl("net/ipv4/ip_forward", "1")?;
    if kind == Kind::Firewall {
        // Its hosts are on the wire of the internet, as far as others can tell.
        router.sysctl("net/ipv4/conf/all/proxy_arp", "1")?;
    }
    if kind.speaks(Family::V6) {
        router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    router.nft(&format!("flush ruleset\n{}", kind.rules()))
}

/// From now on a router loses TCP packets that are larger than this, without a word to anybody: what a tunnel on the way
/// does when somebody has forbidden ICMP.
///
/// # Errors
/// When the kernel refuses.
pub fn swallow_large(router: &Namespace, bytes: u32) -> Result<()> {
    router.nft(&format!(
        "table inet tunnel {{
            chain forward {{
                type filter hook forward priority -10
                meta l4proto tcp meta length > {bytes} drop
            }}
        }}"
    ))
}

/// From now on no TCP passes a router.
///
/// # Errors
/// When the kernel refuses.
pub fn block_tcp(router: &Namespace) -> Result<()> {
    router.nft(
        "table inet udp_only {
            chain forward {
                type filter hook forward priority -10
                meta l4proto tcp drop
            }
        }",
    )
}

/// Forgets the flows between a host behind a router and another one, as when its table is full: their packets are lost
/// without a word from now on, and new flows pass, from other ports. Says how many those were.
///
/// # Errors
/// When the kernel refuses, or no such flow is known.
pub fn evict(router: &Namespace, host: IpAddr, other: IpAddr) -> Result<usize> {
    let known = router.tool("conntrack", &["-L", "-s", &host.to_string(), "-d", &other.to_string()], "")?;
    let flows: Vec<String> = known.lines().filter_map(|line| flow_rules(line, host, other)).collect();
    if flows.is_empty() {
        return Err(Error::Lab(format!("the router knows of no flow from {host} to {other}:\n{known}")));
    }
    let rules = flows.concat();
    let chain = format!("type filter hook forward priority -10\n{rules}");
    router.nft(&format!("table inet evicted {{\nchain forward {{\n{chain}}}\n}}"))?;
    Ok(flows.len())
}

/// What drops a flow, in both directions, by its line in the output of conntrack.
fn flow_rules(line: &str, host: IpAddr, other: IpAddr) -> Option<String> {
    let protocol = line.split_whitespace().next().filter(|word| ["tcp", "udp"].contains(word))?;
    // What the host sends comes first, then what it gets.
    let port = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key))?.parse::<u16>().ok();
    let (ours, theirs) = (port("sport=")?, port("dport=")?);
    let family = if host.is_ipv4() { "ip" } else { "ip6" };
    let drop = |from: IpAddr, from_port: u16, to: IpAddr, to_port: u16| {
        format!(
            "{family} saddr {from} {family} daddr {to} {protocol} sport {from_port} {protocol} dport {to_port} drop\n"
        )
    };
    Some(drop(host, ours, other, theirs) + &drop(other, theirs, host, ours))
}

/// Forgets all that the router knows of who talks to whom, as when it is switched off and on.
///
/// # Errors
/// As [`install`].
pub fn forget(router: &Namespace, kind: Kind) -> Result<()> {
    install(router, kind)?;
    router.tool("conntrack", &["-F"], "").map(drop)
}

/// Starts what forwards ports on request; its files are in a folder.
///
/// # Errors
/// When it cannot be started, or a file cannot be written.
pub fn start_upnp(router: &Namespace, kind: Kind, folder: &Path) -> Result<Process> {
    let lie = if kind == Kind::UpnpLying { format!("ext_ip={LIE}\n") } else { String::new() };
    let leases = folder.join(format!("{}.leases", router.name()));
    let text = format!(
        "ext_ifname=wan\nlistening_ip=lan\nhttp_port=0\nenable_upnp=yes\nenable_natpmp=yes\nsecure_mode=yes\n\
         uuid=5f2a0000-0000-4000-8000-0000000000aa\nupnp_table_name=upnp\nupnp_nat_table_name=upnp\n\
         upnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\n\
         upnp_nat_postrouting_chain=postrouting_miniupnpd\nlease_file={}\n{lie}\
         allow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n",
        leases.display()
    );
    let file = folder.join(format!("{}.conf", router.name()));
    std::fs::write(&file, text).map_err(failed(file.display()))?;
    let mut command = Command::new("miniupnpd");
    command.args(["-4", "-d", "-f"]).arg(&file).arg("-P").arg(file.with_extension("pid"));
    let log = File::create(file.with_extension("log")).map_err(failed(file.display()))?;
    router.start(&command, Stdio::null(), log.into())
}
