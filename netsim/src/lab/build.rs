//! The lab itself: a bridge that is the internet, 44.128.0.0/16, and at its ports the sites of a topology.
//!
//! A site has one address there, 44.128.N.1, so that no two of them seem to be neighbours. Behind its router is a network
//! of its own, 192.168.N.0/24 with the router at .1, or the rest of 44.128.N.0/24 where nothing is translated; between the
//! two routers of a site behind a carrier's NAT it is 100.64.N.0/24. Where IPv6 is spoken, a router has one address in the
//! first network of a prefix and each site a network of its own in it, and the internet routes between them. Nothing leads
//! out of the lab.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use tempfile::TempDir;

use super::namespace::Process;
use super::nat::Family;
use super::topology::{Site, Topology};
use super::wire::{Line, Wire};
use super::{Kind, Namespace, Result, failed, nat};
use crate::Error;

/// The first site has this number in the internet, and the others follow.
const FIRST: u8 = 10;
/// The first host of a site has this number in its network.
const FIRST_HOST: usize = 10;

/// What all IPv6 addresses of a lab begin with. The numbers of sites and hosts follow as they are written.
pub(super) const PREFIX: &str = "2a00:6c61:6200";

/// A running lab. Everything in it ends when this is dropped.
#[derive(Debug)]
pub struct Lab {
    // Processes and lines end before the namespaces that they are in.
    places: Vec<Place>,
    hosts: BTreeMap<String, Host>,
    internet: Namespace,
    ipv6: bool,
    folder: TempDir,
}

/// One machine on which peers may run.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its own IPv4 address, public or not.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// The number of its site.
    pub site: usize,
    /// The other end of its cable; none at a public site.
    pub port: Option<String>,
}

impl Host {
    /// All addresses that it has.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from)).collect()
    }
}

/// What became of a site.
#[derive(Debug)]
struct Place {
    kind: Kind,
    number: u8,
    upnp: Option<Process>,
    wire: Option<Wire>,
    /// From the outside in; none at a public site.
    routers: Vec<Namespace>,
}

impl Lab {
    /// Builds what a topology describes.
    ///
    /// # Errors
    /// What the kernel refuses; see [`super::missing`].
    pub fn build(topology: &Topology) -> Result<Self> {
        let internet = Namespace::new("internet")?;
        internet.ip("link add net type bridge\nlink set net up\n")?;
        let folder = tempfile::tempdir().map_err(failed("a folder for the lab"))?;
        let ipv6 = topology.has_ipv6();
        if ipv6 {
            internet.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            internet.ip(&format!("addr add {PREFIX}::1/64 dev net nodad\n"))?;
        }
        let mut lab = Self { places: Vec::new(), hosts: BTreeMap::new(), internet, ipv6, folder };
        for (index, site) in topology.sites.iter().enumerate() {
            lab.add(site, topology.seed.wrapping_add(index as u64))?;
        }
        Ok(lab)
    }

    /// A host by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.get(name).ok_or_else(|| Error::Lab(format!("there is no host {name} in the lab")))
    }

    /// Whether IPv6 is spoken in its internet.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.ipv6
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &Host)> {
        self.hosts.iter().map(|(name, host)| (name.as_str(), host))
    }

    /// What is between a host and the internet.
    #[must_use]
    pub fn kind(&self, host: &Host) -> Kind {
        self.places[host.site].kind
    }

    /// The address under which the internet sees a host.
    #[must_use]
    pub fn public_address(&self, host: &Host) -> Ipv4Addr {
        let outside = Ipv4Addr::new(44, 128, self.places[host.site].number, 1);
        if self.kind(host) == Kind::Firewall { host.v4.unwrap_or(outside) } else { outside }
    }

    /// The nearest router of a host.
    #[must_use]
    pub fn gateway(&self, host: &Host) -> Ipv4Addr {
        self.places[host.site].gateway()
    }

    /// The namespace that all sites are connected to.
    #[must_use]
    pub fn internet(&self) -> &Namespace {
        &self.internet
    }

    /// The routers of a site, from the outside in.
    #[must_use]
    pub fn routers(&self, site: usize) -> &[Namespace] {
        &self.places[site].routers
    }

    /// A folder that is there as long as the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Switches the routers of a site off and on: they forget who talks to whom, and which ports they forward.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn reboot(&mut self, site: usize) -> Result<()> {
        self.cut(site, true)?;
        let place = &mut self.places[site];
        place.upnp = None;
        for router in &place.routers {
            nat::forget(router, place.kind)?;
        }
        start_upnp(place, self.folder.path())?;
        self.cut(site, false)
    }

    /// Cuts a site off from the internet, or connects it again.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn cut(&self, site: usize, cut: bool) -> Result<()> {
        let place = &self.places[site];
        match &place.wire {
            Some(wire) => wire.cut(cut),
            // The internet's end of the cable: the routes of the site stay.
            None => {
                self.internet.ip(&format!("link set port{} {}\n", place.number, if cut { "down" } else { "up" }))?
            }
        }
        Ok(())
    }

    /// From now on the line of a site is another one; only a site that has a line, not a plain cable, can change it.
    pub fn change_line(&self, site: usize, line: Line) {
        if let Some(wire) = &self.places[site].wire {
            wire.change(line);
        }
    }

    /// Takes a host from its network to that of another site, where it gets another address.
    ///
    /// # Errors
    /// When there is no such host, or a site is public.
    pub fn move_host(&mut self, name: &str, site: usize) -> Result<()> {
        let host = self.host(name)?.clone();
        if self.kind(&host) == Kind::Public || self.places[site].kind == Kind::Public {
            return Err(Error::Lab(format!("{name} can move from behind a router to behind another one only")));
        }
        host.namespace.ip("link del eth0\n")?;
        let taken = self.hosts.values().filter(|other| other.site == site).count();
        let moved = self.plug_in(host.namespace, site, FIRST_HOST + 100 + taken)?;
        self.hosts.insert(name.to_owned(), moved);
        Ok(())
    }

    /// Pulls the cable of a host, or puts it back: the host keeps its addresses and routes.
    ///
    /// # Errors
    /// When there is no such host, or its site is public.
    pub fn unplug(&self, name: &str, unplugged: bool) -> Result<()> {
        let host = self.host(name)?;
        let port =
            host.port.as_ref().ok_or_else(|| Error::Lab(format!("{name} has no router to be unplugged from")))?;
        let state = if unplugged { "down" } else { "up" };
        self.places[host.site].inner().ip(&format!("link set {port} {state}\n"))
    }

    /// Connects a host to the network of another site besides, which is where it sends everything from now on. It keeps
    /// what it had.
    ///
    /// # Errors
    /// When there is no such host, or the kernel refuses.
    pub fn connect_besides(&self, name: &str, site: usize) -> Result<()> {
        let (host, place) = (self.host(name)?, &self.places[site]);
        let (inner, gateway) = (place.inner(), place.gateway());
        let [one, two, three, _] = gateway.octets();
        host.namespace.cable("eth1", inner, "besides")?;
        inner.ip("link set besides master lan\nlink set besides up\n")?;
        host.namespace.ip(&format!(
            "link set eth1 up\naddr add {one}.{two}.{three}.200/24 dev eth1\nroute replace default via {gateway}\n"
        ))
    }

    fn add(&mut self, site: &Site, seed: u64) -> Result<()> {
        let number = FIRST + u8::try_from(self.places.len()).map_err(|_| Error::Lab("too many sites".to_owned()))?;
        let mut place = Place { kind: site.nat, number, upnp: None, wire: None, routers: Vec::new() };
        if site.nat == Kind::Public {
            let namespace = Namespace::new(&site.hosts[0])?;
            place.wire = self.connect(&namespace, "eth0", &place, site.line, seed)?;
            let v6 = self.ipv6.then(|| v6(&format!("{PREFIX}:{number}::1"))).transpose()?;
            let host = Host {
                namespace,
                v4: Some(Ipv4Addr::new(44, 128, number, 1)),
                v6,
                site: self.places.len(),
                port: None,
            };
            self.hosts.insert(site.hosts[0].clone(), host);
            self.places.push(place);
            return Ok(());
        }
        let outer = router(&site.name, site.nat)?;
        place.wire = self.connect(&outer, "wan", &place, site.line, seed)?;
        place.routers.push(outer);
        if site.nat == Kind::Cgnat {
            place.routers.push(behind_carrier(&site.name, &place.routers[0], number)?);
        }
        self.finish(place, &site.hosts)
    }

    /// Gives a site its network, and connects its hosts.
    fn finish(&mut self, mut place: Place, hosts: &[String]) -> Result<()> {
        let (inner, number) = (place.inner(), place.number);
        if place.kind.speaks(Family::V4) {
            inner.ip(&format!("addr add {}/24 dev lan\n", place.gateway()))?;
        }
        if self.ipv6 && place.kind.speaks(Family::V6) {
            inner.ip(&format!("addr add {PREFIX}:{number}::1/64 dev lan nodad\n"))?;
            self.internet.ip(&format!("route add {PREFIX}:{number}::/64 via {PREFIX}::{number}\n"))?;
        }
        start_upnp(&mut place, self.folder.path())?;
        self.places.push(place);
        for (position, name) in hosts.iter().enumerate() {
            let host = self.plug_in(Namespace::new(name)?, self.places.len() - 1, FIRST_HOST + position)?;
            self.hosts.insert(name.clone(), host);
        }
        Ok(())
    }

    /// Connects an interface to the internet, by a cable or a line, and gives it its addresses.
    fn connect(&self, site: &Namespace, name: &str, place: &Place, line: Line, seed: u64) -> Result<Option<Wire>> {
        let (number, port) = (place.number, format!("port{}", place.number));
        let wire = if line.is_plain() {
            site.cable(name, &self.internet, &port)?;
            None
        } else {
            Some(Wire::new([(site, name), (&self.internet, &port)], line, seed)?)
        };
        self.internet.ip(&format!("link set {port} master net\nlink set {port} up\n"))?;
        site.ip(&format!("link set {name} up\n"))?;
        if place.kind.speaks(Family::V4) {
            site.ip(&format!("addr add 44.128.{number}.1/16 dev {name}\n"))?;
        }
        if self.ipv6 && place.kind == Kind::Public {
            site.ip(&format!(
                "addr add {PREFIX}:{number}::1/128 dev {name} nodad\nroute add {PREFIX}::1 dev {name}\n"
            ))?;
            self.internet.ip(&format!("route add {PREFIX}:{number}::/64 dev net\n"))?;
        } else if self.ipv6 && place.kind.speaks(Family::V6) {
            site.ip(&format!("addr add {PREFIX}::{number}/64 dev {name} nodad\n"))?;
        }
        if self.ipv6 && place.kind.speaks(Family::V6) {
            site.ip(&format!("route add ::/0 via {PREFIX}::1 dev {name}\n"))?;
        }
        Ok(wire)
    }

    /// Connects a host to the network of a site.
    fn plug_in(&self, namespace: Namespace, site: usize, position: usize) -> Result<Host> {
        let place = &self.places[site];
        let (inner, number) = (place.inner(), place.number);
        let port = format!("host{position}");
        namespace.cable("eth0", inner, &port)?;
        inner.ip(&format!("link set {port} master lan\nlink set {port} up\n"))?;
        namespace.ip("link set eth0 up\n")?;
        let mut host = Host { namespace, v4: None, v6: None, site, port: Some(port) };
        if place.kind.speaks(Family::V4) {
            let last = u8::try_from(position).map_err(|_| Error::Lab("too many hosts".to_owned()))?;
            let gateway = place.gateway();
            let [one, two, three, _] = gateway.octets();
            let address = Ipv4Addr::new(one, two, three, last);
            let route = format!("route add default via {gateway}\n");
            host.namespace.ip(&format!("addr add {address}/24 dev eth0\n{route}"))?;
            host.v4 = Some(address);
        }
        if self.ipv6 && place.kind.speaks(Family::V6) {
            let address = format!("{PREFIX}:{number}::{position}");
            let route = format!("route add ::/0 via {PREFIX}:{number}::1 dev eth0\n");
            host.namespace.ip(&format!("addr add {address}/64 dev eth0 nodad\n{route}"))?;
            host.v6 = Some(v6(&address)?);
        }
        Ok(host)
    }
}

impl Place {
    /// The address of the router that is next to the hosts, in their network.
    fn gateway(&self) -> Ipv4Addr {
        if self.kind == Kind::Firewall {
            Ipv4Addr::new(44, 128, self.number, 2)
        } else {
            Ipv4Addr::new(192, 168, self.number, 1)
        }
    }

    /// The router that is next to the hosts.
    fn inner(&self) -> &Namespace {
        &self.routers[self.routers.len() - 1]
    }
}

fn v6(text: &str) -> Result<Ipv6Addr> {
    text.parse().map_err(|error| Error::Lab(format!("{text}: {error}")))
}

/// A router with a bridge for its network.
fn router(name: &str, kind: Kind) -> Result<Namespace> {
    let router = Namespace::new(name)?;
    router.ip("link add lan type bridge\nlink set lan up\n")?;
    nat::install(&router, kind)?;
    Ok(router)
}

/// The router of a home behind that of a carrier.
fn behind_carrier(name: &str, carrier: &Namespace, number: u8) -> Result<Namespace> {
    let home = router(&format!("{name}-home"), Kind::Cgnat)?;
    carrier.ip(&format!("addr add 100.64.{number}.1/24 dev lan\n"))?;
    home.cable("wan", carrier, "home")?;
    carrier.ip("link set home master lan\nlink set home up\n")?;
    home.ip(&format!(
        "addr add 100.64.{number}.2/24 dev wan\nlink set wan up\nroute add default via 100.64.{number}.1\n"
    ))?;
    Ok(home)
}

fn start_upnp(place: &mut Place, folder: &Path) -> Result<()> {
    if place.kind.forwards_ports() {
        place.upnp = Some(nat::start_upnp(&place.routers[0], place.kind, folder)?);
    }
    Ok(())
}
