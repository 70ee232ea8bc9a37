//! A STUN server (RFC 5780) for others, on peers that can be dialed from anywhere.
//!
//! It answers well-formed Binding requests only, in a datagram of a few dozen bytes, and so many each second, so that it
//! is of no use to flood somebody else.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::message::{DATAGRAM_BYTES_MAX, Said, answer, read, refusal};
use crate::limits::{STUN_ADDRESSES_MAX, STUN_ANSWERS_MAX, STUN_ANSWERS_PER_ADDRESS_MAX};

/// The time to which the limits apply.
const WINDOW: Duration = Duration::from_secs(1);

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Responder {
    primary: SocketAddr,
    sockets: Arc<Sockets>,
    _tasks: JoinSet<()>,
}

/// How many datagrams came in, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Answered, or refused with an error that says why.
    pub answered: u64,
    /// Not answered: no Binding request, one too many, or one for an address that is not here.
    pub ignored: u64,
}

impl Responder {
    /// Where it listens first of all.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.primary
    }

    /// What became of all datagrams since the start.
    #[must_use]
    pub fn served(&self) -> Served {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Served { answered: read(&self.sockets.answered), ignored: read(&self.sockets.ignored) }
    }
}

/// The sockets: by address, and by port.
#[derive(Debug)]
struct Sockets {
    /// The first address with the first and the second port, then the second address, when there is one.
    grid: Vec<[(SocketAddr, UdpSocket); 2]>,
    limit: Mutex<Limit>,
    answered: AtomicU64,
    ignored: AtomicU64,
}

/// Answers in the current window.
#[derive(Debug)]
pub(super) struct Limit {
    since: Instant,
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// Starts a server on an address and, where there is one, on a second address of this machine; on both with two ports.
/// Must be called on a tokio runtime.
///
/// # Errors
/// When a port cannot be had.
pub async fn serve(primary: SocketAddr, second: Option<IpAddr>) -> io::Result<Responder> {
    let bind = async |ip: IpAddr, ports: [u16; 2]| {
        let one = UdpSocket::bind((ip, ports[0])).await?;
        let two = UdpSocket::bind((ip, ports[1])).await?;
        Ok::<_, io::Error>([(one.local_addr()?, one), (two.local_addr()?, two)])
    };
    let wanted = [primary.port(), if primary.port() == 0 { 0 } else { primary.port().wrapping_add(1) }];
    let first = bind(primary.ip(), wanted).await?;
    let (primary, ports) = (first[0].0, [first[0].0.port(), first[1].0.port()]);
    let mut grid = vec![first];
    if let Some(second) = second {
        grid.push(bind(second, ports).await?);
    }
    let (answered, ignored) = (AtomicU64::new(0), AtomicU64::new(0));
    let sockets = Arc::new(Sockets { grid, limit: Mutex::new(Limit::new(Instant::now())), answered, ignored });
    let mut tasks = JoinSet::new();
    for at in 0..sockets.grid.len() {
        for port in 0..2 {
            tasks.spawn(sockets.clone().answer_all(at, port));
        }
    }
    Ok(Responder { primary, sockets, _tasks: tasks })
}

impl Sockets {
    async fn answer_all(self: Arc<Self>, at: usize, port: usize) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        let (_, socket) = &self.grid[at][port];
        loop {
            // An error is what the network said to an answer of ours.
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            let reply = self.reply(at, port, from, &buffer[..length]);
            let counter = if reply.is_some() { &self.answered } else { &self.ignored };
            counter.fetch_add(1, Ordering::Relaxed);
            if let Some((socket, bytes)) = reply {
                // Whoever does not get it asks again.
                _ = socket.send_to(&bytes, from).await;
            }
        }
    }

    /// What is answered to a datagram that came to a socket, and from which one.
    fn reply(&self, at: usize, port: usize, from: SocketAddr, bytes: &[u8]) -> Option<(&UdpSocket, Vec<u8>)> {
        let (transaction, said) = read(bytes)?;
        match said {
            Said::Request { change } => {
                let (origin, socket) = &self.grid.get(at ^ usize::from(change.ip))?[port ^ usize::from(change.port)];
                let other = self.grid.get(at ^ 1).map(|row| row[port ^ 1].0);
                self.may_answer(from.ip()).then(|| (socket, answer(transaction, from, *origin, other)))
            }
            Said::Demand { unknown } => {
                let (_, socket) = &self.grid[at][port];
                self.may_answer(from.ip()).then(|| (socket, refusal(transaction, unknown)))
            }
            Said::Answer { .. } | Said::Refusal => None,
        }
    }

    fn may_answer(&self, to: IpAddr) -> bool {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner).admit(to, Instant::now())
    }
}

impl Limit {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, all: 0, by_address: HashMap::new() }
    }

    /// Whether one more answer may go there, which then counts.
    pub(super) fn admit(&mut self, to: IpAddr, now: Instant) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        if self.all >= STUN_ANSWERS_MAX || self.by_address.len() >= STUN_ADDRESSES_MAX {
            return false;
        }
        let answers = self.by_address.entry(site(to)).or_default();
        if *answers >= STUN_ANSWERS_PER_ADDRESS_MAX {
            return false;
        }
        *answers += 1;
        self.all += 1;
        true
    }
}

/// What one asker has for itself: of IPv6 a whole network.
fn site(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}
