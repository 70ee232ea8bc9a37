//! The gateway: programs beside the peer talk to it over HTTP.
//!
//! It is thin. Each call is turned into one call of [`Peer`], and its answer into JSON; whatever decides anything
//! is in the layers below. What the gateway adds is what HTTP needs: shapes of the wire, entity tags, problem
//! documents, and a guard that turns away what a program beside the peer would not send.
//!
//! - `rest` one file per resource
//! - `guard` what every request passes: where it comes from, its token, how many, what becomes of a panic
//! - `clients` how often each client may call; `token` what it has to show
//! - `server` connections: bounds, timeouts, and a shutdown that lets requests finish; `seat` which of them gives way;
//!   `tls` their certificate
//! - `lines`, `patience` streams: cutting them into lines, and not waiting forever for who reads them
//! - `leftover` what of a body nobody read
//! - `budget`, `leaving` bytes on their way in and out, within one bound for all connections
//! - `metrics` counters as Prometheus reads them
//! - `problem`, `etag`, `body`, `shape`, `feed_shape`, `mesh_shape`, `sync_shape`,
//!   `version_shape`, `rfc3339` the pieces of a request
//!   and an answer
//!
//! The gateway listens on loopback. Elsewhere it needs a token and TLS, unless [`Config::allow_insecure`] says that
//! the network in front is trusted.

mod body;
mod budget;
mod clients;
mod etag;
mod feed_shape;
mod guard;
mod leaving;
mod leftover;
mod lines;
mod memory_shape;
mod mesh_shape;
mod metrics;
mod patience;
mod problem;
mod query_shape;
mod reach_shape;
mod rest;
mod rfc3339;
mod scheme;
mod seat;
mod server;
mod shape;
mod sync_shape;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod version_shape;

pub(crate) use lines::{Line, Lines};
pub use server::{Gateway, serve};
pub use tls::Tls;
pub(crate) use tls::fingerprint;
pub use token::read as read_token;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::{Semaphore, watch};

use self::budget::Budget;
use self::clients::Clients;
use self::seat::Seats;
use self::token::Token;
use crate::limits::{GATEWAY_FEEDS_MAX, GATEWAY_LIVE_MAX, GATEWAY_REQUESTS_MAX, GATEWAY_STREAMS_MAX};
use crate::peer::Peer;
use crate::{Error, Result};

/// The port of the REST gateway.
pub const PORT: u16 = 8080;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How the gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on.
    pub bind: IpAddr,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The file with the token that every call needs, made when it is not there; `None` for no token.
    pub token_file: Option<PathBuf>,
    /// The certificate; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// Whether listening elsewhere than on loopback is meant although a token or TLS is missing.
    pub allow_insecure: bool,
    /// Requests a second that one client may make, and as many at once; 0 for any number.
    pub rate_limit_per_s: u32,
    /// Names beside `localhost` and plain addresses that a `Host` header may give.
    pub allowed_hosts: Vec<String>,
    /// Whether pages of other origins may call.
    pub cors_enabled: bool,
    /// Which origins, such as `https://app.example`, or `*` for all; when empty, those on this machine.
    pub cors_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: PORT,
            token_file: None,
            tls: None,
            allow_insecure: false,
            rate_limit_per_s: 0,
            allowed_hosts: Vec::new(),
            cors_enabled: false,
            cors_origins: Vec::new(),
        }
    }
}

impl Config {
    /// Refuses to listen where others could call without a token, or read along.
    ///
    /// # Errors
    /// [`Error::Denied`] with what to set.
    pub fn check(&self) -> Result<()> {
        let missing = match (&self.token_file, &self.tls) {
            (Some(_), Some(_)) => return Ok(()),
            _ if self.bind.is_loopback() || self.allow_insecure => return Ok(()),
            (None, None) => {
                "a token and TLS, because whoever reaches it could read and write everything: set security.token_file \
                 (--token-file FILE) and security.tls (--tls generated)"
            }
            (None, Some(_)) => {
                "a token, because whoever reaches it could read and write everything: set security.token_file \
                 (--token-file FILE)"
            }
            (Some(_), None) => "TLS, because the token could be read on the way: set security.tls (--tls generated)",
        };
        Err(Error::Denied(format!(
            "the gateway is not opened on {} without {missing}. Or listen on 127.0.0.1; or, where the network in front \
             is trusted (a container, a tunnel), set api.rest_api.allow_insecure = true \
             (AEROLITHSDB_API_REST_API_ALLOW_INSECURE=true)",
            self.bind
        )))
    }
}

/// What all requests share.
#[derive(Debug, Clone)]
struct App {
    peer: Peer,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    token: Option<Token>,
    clients: Clients,
    started: Instant,
    stopping: watch::Sender<bool>,
    permits: Semaphore,
    /// For bodies that are on their way here.
    bodies: Budget,
    /// For answers that are on their way to clients.
    answers: Budget,
    seats: Seats,
    /// Room for live feeds.
    feeds: Arc<Semaphore>,
    /// Room for live queries.
    live: Arc<Semaphore>,
    /// Of requests whose bodies are streams, which go on when they have left the guard.
    streams: Arc<Semaphore>,
    /// Random, so that the ids of two runs differ.
    run: u32,
    requests: AtomicU64,
}

impl App {
    fn new(peer: Peer, config: Config, run: u32, token: Option<Token>) -> Self {
        let memory = peer.memory();
        let shared = Shared {
            clients: Clients::new(config.rate_limit_per_s),
            config,
            token,
            started: Instant::now(),
            stopping: watch::Sender::new(false),
            permits: Semaphore::new(GATEWAY_REQUESTS_MAX),
            bodies: Budget::new(memory.bodies_bytes()),
            answers: Budget::new(memory.answers_bytes()),
            seats: Seats::default(),
            feeds: Arc::new(Semaphore::new(GATEWAY_FEEDS_MAX)),
            live: Arc::new(Semaphore::new(GATEWAY_LIVE_MAX)),
            streams: Arc::new(Semaphore::new(GATEWAY_STREAMS_MAX)),
            run,
            requests: AtomicU64::new(0),
        };
        Self { peer, shared: Arc::new(shared) }
    }

    fn is_stopping(&self) -> bool {
        *self.shared.stopping.borrow()
    }

    /// Microseconds since the start.
    fn now_us(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Waits until the gateway stops: what lasts for long ends then.
    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.shared.stopping.subscribe();
        // An error means that all is gone, which is the same.
        async move { _ = stopping.wait_for(|stopping| *stopping).await }
    }
}

/// A text as one segment of a path: all but the unreserved characters of RFC 3986 are percent-encoded.
#[must_use]
pub fn path_segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The address to listen on.
fn socket_address(config: &Config) -> SocketAddr {
    SocketAddr::new(config.bind, config.port)
}
