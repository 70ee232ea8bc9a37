//! Evidence that a NAT of the lab behaves as declared, independent of the peers' own STUN: a reflector at two public
//! addresses with two ports each tells a host from where its datagrams came, and answers on request from elsewhere. From
//! that follow mapping and filtering as RFC 4787 names them, found as RFC 5780 does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::build::Host;
use super::nat::{Behaviour, Dependence, Family, LIE};
use super::{Kind, Lab, Result, Topology, failed, topology};
use crate::Error;

/// The addresses of the reflector in the lab's internet: two of IPv4, two of IPv6.
const ADDRESSES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(44, 128, 0, 2)),
    IpAddr::V4(Ipv4Addr::new(44, 128, 0, 3)),
    IpAddr::V6(Ipv6Addr::new(0x2a00, 0x6c61, 0x6200, 0, 0, 0, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2a00, 0x6c61, 0x6200, 0, 0, 0, 0, 3)),
];
const PORTS: [u16; 2] = [3478, 3479];
/// How long an answer may take, over the slowest line of a lab.
const PATIENCE: Duration = Duration::from_millis(700);
/// A question is repeated so often, because lines lose packets.
const TRIES: usize = 3;
/// How long two hosts call at each other.
const PUNCHING: Duration = Duration::from_secs(2);
/// Where routers listen for requests by NAT-PMP.
const NAT_PMP_PORT: u16 = 5351;

/// Where to ask, and from where the answer shall come: the number of an address, and that of a port.
type Place = (usize, usize);

/// A running reflector.
#[derive(Debug)]
pub struct Reflector {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    sockets: Arc<Vec<UdpSocket>>,
}

impl Reflector {
    /// Starts one in the internet of a lab, at addresses that no site has.
    ///
    /// # Errors
    /// When there is one already.
    pub fn start(lab: &Lab) -> Result<Self> {
        let (internet, addresses) = (lab.internet(), if lab.has_ipv6() { &ADDRESSES[..] } else { &ADDRESSES[..2] });
        for address in addresses {
            let network = if address.is_ipv4() { "16 dev net" } else { "64 dev net nodad" };
            internet.ip(&format!("addr replace {address}/{network}\n"))?;
        }
        let bind = |place: (IpAddr, u16)| {
            let socket = UdpSocket::bind(place)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(socket)
        };
        let places = || addresses.iter().flat_map(|address| PORTS.map(|port| (*address, port)));
        let all = || places().map(bind).collect::<std::io::Result<Vec<UdpSocket>>>();
        let sockets = internet.run(all).map_err(failed("the reflector"))?;
        let (sockets, stop) = (Arc::new(sockets), Arc::new(AtomicBool::new(false)));
        let reflect = |index: usize| {
            let (sockets, stop) = (Arc::clone(&sockets), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    reflect(&sockets, index);
                }
            })
        };
        Ok(Self { threads: (0..sockets.len()).map(reflect).collect(), stop, sockets })
    }

    /// Sends something to an address unasked.
    ///
    /// # Errors
    /// When there is no way.
    pub fn send(&self, to: SocketAddr) -> Result<()> {
        self.sockets[0].send_to(b"unasked", to).map(drop).map_err(failed("a datagram"))
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Answers one question: a number to repeat, and the number of the socket that shall answer.
fn reflect(sockets: &[UdpSocket], index: usize) {
    let mut question = [0; 64];
    let Ok((9, from)) = sockets[index].recv_from(&mut question) else { return };
    let Some(answering) = sockets.get(usize::from(question[8])) else { return };
    // It may be lost on the way just as well.
    _ = answering.send_to(&[&question[..8], from.to_string().as_bytes()].concat(), from);
}

/// Asks from a socket: from where does the question come? Nothing when no answer arrives.
fn ask(socket: &UdpSocket, at: Place, from: Place) -> Option<SocketAddr> {
    let number = |(address, port): Place| u8::try_from(address * PORTS.len() + port).unwrap_or_default();
    for _ in 0..TRIES {
        let token: [u8; 8] = rand::random();
        socket.send_to(&[&token[..], &[number(from)]].concat(), (ADDRESSES[at.0], PORTS[at.1])).ok()?;
        let deadline = Instant::now() + PATIENCE;
        let mut answer = [0; 64];
        while Instant::now() < deadline {
            let Ok((length, _)) = socket.recv_from(&mut answer) else { continue };
            if let Some(seen) = answer[..length].strip_prefix(&token[..]) {
                return std::str::from_utf8(seen).ok()?.parse().ok();
            }
        }
    }
    None
}

/// How the NATs between a host and the internet behave.
///
/// # Errors
/// When the host has no sockets.
pub fn classify(host: &Host, family: Family) -> Result<Behaviour> {
    let (any, base): (IpAddr, usize) = match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => (Ipv6Addr::UNSPECIFIED.into(), 2),
    };
    let (one, two) = (socket(host, any)?, socket(host, any)?);
    let ask = |socket, at: Place, from: Place| ask(socket, (base + at.0, at.1), (base + from.0, from.1));
    // Two sockets: what the first one says to the second address must not open the way for the second one's test.
    let Some(first) = ask(&one, (0, 0), (0, 0)) else { return Ok(Behaviour::Blocked) };
    let (second, third) = (ask(&one, (1, 0), (1, 0)), ask(&one, (1, 1), (1, 1)));
    let mapping = match (second == Some(first), second == third) {
        (true, true) => Dependence::EndpointIndependent,
        (_, true) => Dependence::AddressDependent,
        (_, false) => Dependence::AddressAndPortDependent,
    };
    ask(&two, (0, 0), (0, 0));
    let filtering = if ask(&two, (0, 0), (1, 1)).is_some() {
        Dependence::EndpointIndependent
    } else if ask(&two, (0, 0), (0, 1)).is_some() {
        Dependence::AddressDependent
    } else {
        Dependence::AddressAndPortDependent
    };
    Ok(match (host.addresses().contains(&first.ip()), filtering) {
        (true, Dependence::EndpointIndependent) => Behaviour::Open,
        (true, _) => Behaviour::Firewall { filtering },
        (false, _) => Behaviour::Nat { mapping, filtering },
    })
}

/// What a router answered to a request for a port: the public address that it tells, and the port there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// The public address, by what the router says.
    pub address: Ipv4Addr,
    /// The port of it.
    pub port: u16,
    /// Whether something that was sent to the site's real address and that port arrived.
    pub arrives: bool,
}

/// Asks the router of a host by NAT-PMP (RFC 6886) to forward a port, and tries it.
///
/// # Errors
/// When the host has no sockets; a router that does not answer gives `None`.
pub fn forward(lab: &Lab, reflector: &Reflector, host: &Host) -> Result<Option<Forwarded>> {
    let any = Ipv4Addr::UNSPECIFIED.into();
    let (asking, waiting) = (socket(host, any)?, socket(host, any)?);
    let port = waiting.local_addr().map_err(failed("a socket"))?.port();
    let router = (lab.gateway(host), NAT_PMP_PORT);
    let call = |question: &[u8], length: usize| {
        let mut answer = [0; 16];
        (0..TRIES).find_map(|_| {
            asking.send_to(question, router).ok()?;
            let (got, _) = asking.recv_from(&mut answer).ok()?;
            // The third and fourth byte are the result.
            (got == length && answer[2..4] == [0, 0]).then_some(answer)
        })
    };
    let Some(told) = call(&[0, 0], 12) else { return Ok(None) };
    let mut request = vec![0, 1, 0, 0];
    request.extend([port.to_be_bytes(), port.to_be_bytes()].concat());
    request.extend(600_u32.to_be_bytes());
    let Some(mapped) = call(&request, 16) else { return Ok(None) };
    let external = u16::from_be_bytes([mapped[10], mapped[11]]);
    let to = SocketAddr::from((lab.public_address(host), external));
    let arrives = (0..TRIES).any(|_| reflector.send(to).is_ok() && waiting.recv_from(&mut [0; 16]).is_ok());
    let address = Ipv4Addr::new(told[8], told[9], told[10], told[11]);
    Ok(Some(Forwarded { address, port: external, arrives }))
}

/// Whether two hosts hear each other over UDP when both send to the address that the reflector saw of the other, and answer
/// to wherever something came from: what the two NATs allow at all, without a peer.
///
/// # Errors
/// When a host has no sockets.
pub fn punch(one: &Host, other: &Host) -> Result<bool> {
    let sockets = [socket(one, Ipv4Addr::UNSPECIFIED.into())?, socket(other, Ipv4Addr::UNSPECIFIED.into())?];
    let [Some(first), Some(second)] = [&sockets[0], &sockets[1]].map(|socket| ask(socket, (0, 0), (0, 0))) else {
        return Ok(false);
    };
    let heard = std::thread::scope(|scope| {
        let one = scope.spawn(|| hears(&sockets[0], second));
        hears(&sockets[1], first) && one.join().unwrap_or(false)
    });
    Ok(heard)
}

/// Calls at an address, and wherever an answer comes from, for a while.
fn hears(socket: &UdpSocket, at: SocketAddr) -> bool {
    let (mut known, mut heard, deadline) = (vec![at], false, Instant::now() + PUNCHING);
    // Who cannot wait for less waits for longer.
    _ = socket.set_read_timeout(Some(PUNCHING / 20));
    while Instant::now() < deadline {
        // Some of them are closed.
        known.iter().for_each(|to| drop(socket.send_to(b"punch", to)));
        let mut got = [0; 16];
        if let Ok((5, from)) = socket.recv_from(&mut got) {
            heard |= got[..5] == *b"punch";
            if !known.contains(&from) {
                known.push(from);
            }
        }
    }
    heard
}

/// Whether each NAT of a lab behaves as its topology declares.
///
/// # Errors
/// [`Error::Lab`] that names the host, what was declared, and what was seen.
pub fn check(lab: &Lab) -> Result<()> {
    let reflector = Reflector::start(lab)?;
    let check = |name: &str, host: &Host| {
        let kind = lab.kind(host);
        for family in if lab.has_ipv6() { &[Family::V4, Family::V6][..] } else { &[Family::V4] } {
            let seen = classify(host, *family)?;
            if seen != kind.declared(*family) {
                let what = format!("the NAT of {name} is declared as {kind}, but behaves as {seen:?} for IP{family:?}");
                return Err(Error::Lab(what));
            }
        }
        if !kind.forwards_ports() {
            return Ok(());
        }
        let told = if kind == Kind::UpnpLying { LIE } else { lab.public_address(host) };
        match forward(lab, &reflector, host)? {
            Some(forwarded) if forwarded.arrives && forwarded.address == told => Ok(()),
            other => Err(Error::Lab(format!("the router of {name} does not forward as {kind} does: {other:?}"))),
        }
    };
    // Side by side, because most of it is waiting for what must not come.
    std::thread::scope(|scope| {
        let checks: Vec<_> = lab.hosts().map(|(name, host)| scope.spawn(move || check(name, host))).collect();
        checks.into_iter().try_for_each(|check| check.join().expect("a check does not panic"))
    })
}

/// Builds a lab with one site of a kind, and checks it.
///
/// # Errors
/// As [`check`].
pub fn check_kind(kind: Kind) -> Result<()> {
    check(&Lab::build(&Topology::new(kind.name(), vec![topology::Site::new("host", kind)]))?)
}

fn socket(host: &Host, address: IpAddr) -> Result<UdpSocket> {
    let bind = || {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    host.namespace.run(bind).map_err(failed(format!("a socket in {}", host.namespace.name())))
}
