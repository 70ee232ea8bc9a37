//! The gateway: programs beside the peer talk to it over HTTP.
//!
//! It is thin. Each call is turned into one call of [`Peer`], and its answer into JSON; whatever decides anything
//! is in the layers below. What the gateway adds is what HTTP needs: shapes of the wire, entity tags, problem
//! documents, and a guard that turns away what a program beside the peer would not send.
//!
//! - `rest` one file per resource
//! - `guard` what every request passes: where it comes from, how many at a time, what becomes of a panic
//! - `server` connections: bounds, timeouts, and a shutdown that lets requests finish
//! - `problem`, `etag`, `body`, `shape`, `feed_shape`, `sync_shape`, `version_shape`, `rfc3339` the pieces of a request
//!   and an answer
//!
//! Not here: tokens and TLS. Until they are built, the gateway listens on loopback, and elsewhere only when
//! [`Config::allow_insecure`] says so.

mod body;
mod etag;
mod feed_shape;
mod guard;
mod problem;
mod rest;
mod rfc3339;
mod server;
mod shape;
mod sync_shape;
#[cfg(test)]
mod tests;
mod version_shape;

pub use server::{Gateway, serve};

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::{Semaphore, watch};

use crate::limits::{GATEWAY_FEEDS_MAX, GATEWAY_REQUESTS_MAX};
use crate::peer::Peer;

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
    /// Whether listening elsewhere than on loopback is meant, although there is no token and no TLS yet.
    pub allow_insecure: bool,
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
            allow_insecure: false,
            allowed_hosts: Vec::new(),
            cors_enabled: false,
            cors_origins: Vec::new(),
        }
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
    stopping: watch::Sender<bool>,
    permits: Semaphore,
    /// Room for live feeds.
    feeds: Arc<Semaphore>,
    /// Random, so that the ids of two runs differ.
    run: u32,
    requests: AtomicU64,
}

impl App {
    fn new(peer: Peer, config: Config, run: u32) -> Self {
        let shared = Shared {
            config,
            stopping: watch::Sender::new(false),
            permits: Semaphore::new(GATEWAY_REQUESTS_MAX),
            feeds: Arc::new(Semaphore::new(GATEWAY_FEEDS_MAX)),
            run,
            requests: AtomicU64::new(0),
        };
        Self { peer, shared: Arc::new(shared) }
    }

    fn is_stopping(&self) -> bool {
        *self.shared.stopping.borrow()
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
