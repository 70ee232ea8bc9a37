//! A STUN server (RFC 5780) for others, on peers that can be dialed from anywhere.
//!
//! It answers well-formed Binding requests only, in a datagram of a few dozen bytes, and so many each second, so that it
//! is of no use to flood somebody else.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::message::{DATAGRAM_BYTES_MAX, Said, answer, read};
use crate::limits::{STUN_ADDRESSES_MAX, STUN_ANSWERS_MAX, STUN_ANSWERS_PER_ADDRESS_MAX};

/// The time to which the limits apply.
const WINDOW: Duration = Duration::from_secs(1);

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Responder {
    primary: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Responder {
    /// Where it listens first of all.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.primary
    }
}

/// The sockets: by address, and by port.
#[derive(Debug)]
struct Sockets {
    /// The first address with the first and the second port, then the second address, when there is one.
    grid: Vec<[(SocketAddr, UdpSocket); 2]>,
    limit: Mutex<Limit>,
}

/// Answers in the current window.
#[derive(Debug)]
struct Limit {
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
    let limit = Limit { since: Instant::now(), all: 0, by_address: HashMap::new() };
    let sockets = Arc::new(Sockets { grid, limit: Mutex::new(limit) });
    let mut tasks = JoinSet::new();
    for at in 0..sockets.grid.len() {
        for port in 0..2 {
            tasks.spawn(sockets.clone().answer_all(at, port));
        }
    }
    Ok(Responder { primary, _tasks: tasks })
}

impl Sockets {
    async fn answer_all(self: Arc<Self>, at: usize, port: usize) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        let (_, socket) = &self.grid[at][port];
        loop {
            // An error is what the network said to an answer of ours.
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            if let Some((transaction, Said::Request { change })) = read(&buffer[..length])
                && self.may_answer(from.ip())
            {
                let (from_at, from_port) = (at ^ usize::from(change.ip), port ^ usize::from(change.port));
                let Some(row) = self.grid.get(from_at) else { continue };
                let (origin, socket) = &row[from_port];
                let other = self.grid.get(at ^ 1).map(|row| row[port ^ 1].0);
                // Whoever does not get it asks again.
                _ = socket.send_to(&answer(transaction, from, *origin, other), from).await;
            }
        }
    }

    fn may_answer(&self, to: IpAddr) -> bool {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.since.elapsed() >= WINDOW {
            *limit = Limit { since: Instant::now(), all: 0, by_address: HashMap::new() };
        }
        if limit.all >= STUN_ANSWERS_MAX || limit.by_address.len() >= STUN_ADDRESSES_MAX {
            return false;
        }
        let answers = limit.by_address.entry(to).or_default();
        if *answers >= STUN_ANSWERS_PER_ADDRESS_MAX {
            return false;
        }
        *answers += 1;
        limit.all += 1;
        true
    }
}
