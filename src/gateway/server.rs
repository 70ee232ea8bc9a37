//! Connections of the gateway: accepting them within bounds, cutting slow ones, and letting requests finish.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use super::{App, Config, rest, socket_address};
use crate::limits::{GATEWAY_CONNECTIONS_MAX, GATEWAY_HEAD_BYTES_MAX, GATEWAY_HEADERS_MAX};
use crate::peer::Peer;
use crate::{Error, Result};

/// How long a connection may take to send a request's head, idle time between requests included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a shutdown waits for requests.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running gateway. Dropping it leaves it running until the process ends.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    app: App,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// Starts a gateway for a peer. It answers once this returns.
///
/// # Errors
/// [`Error::Denied`] for an address beyond loopback that the configuration does not allow, [`Error::Io`] when it
/// cannot be listened on.
pub async fn serve(peer: Peer, config: Config) -> Result<Gateway> {
    check_exposure(&config)?;
    let wanted = socket_address(&config);
    let listener = TcpListener::bind(wanted).await.map_err(|error| refused(wanted, &error))?;
    let address = listener.local_addr().map_err(|error| Error::Io(format!("listening on {wanted}: {error}")))?;
    let run = getrandom::u32().map_err(|error| Error::Io(format!("the system gives no randomness: {error}")))?;
    let app = App::new(peer, config, run);
    let (stop, stopped) = watch::channel(false);
    let accepting = tokio::spawn(accept(listener, rest::router(app.clone()), stopped));
    Ok(Gateway { address, app, stop, accepting })
}

impl Gateway {
    /// The address on which it listens, with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets the requests that are under way finish, and cuts those that take too long.
    pub async fn shutdown(self) {
        self.app.shared.stopping.send_replace(true);
        // An error means that accepting has ended, which is what is asked for.
        let _: std::result::Result<(), _> = self.stop.send(true);
        if self.accepting.await.is_err() {
            tracing::error!("the gateway did not end well");
        }
    }
}

/// Refuses to listen where others could call without a token.
fn check_exposure(config: &Config) -> Result<()> {
    if config.bind.is_loopback() || config.allow_insecure {
        return Ok(());
    }
    Err(Error::Denied(format!(
        "the gateway is not opened on {}: whoever reaches it could read and write everything, because this version has \
         no tokens and no TLS yet. Listen on 127.0.0.1, or, where the network in front is trusted (a container, a \
         tunnel), set api.rest_api.allow_insecure = true (AEROLITHSDB_API_REST_ALLOW_INSECURE=true)",
        config.bind
    )))
}

fn refused(address: SocketAddr, error: &std::io::Error) -> Error {
    let advice = [
        (ErrorKind::AddrInUse, "; choose another port with --rest-port, 0 takes a free one"),
        (ErrorKind::PermissionDenied, "; choose a port above 1023 with --rest-port"),
        (ErrorKind::AddrNotAvailable, "; this machine does not have the address given with --bind"),
    ];
    let advice = advice.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, advice)| advice);
    Error::Io(format!("the gateway cannot listen on {address}: {error}{advice}"))
}

async fn accept(listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(GATEWAY_CONNECTIONS_MAX));
    loop {
        let next = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            next = next_connection(&listener, room.clone()) => next,
        };
        if let Some((stream, permit)) = next {
            tokio::spawn(connection(stream, permit, router.clone(), graceful.watcher()));
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut that took more than {} s to finish", DRAIN_TIMEOUT.as_secs());
    }
}

/// The next connection, once there is room for it; `None` when it failed before it was accepted.
async fn next_connection(listener: &TcpListener, room: Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = room.acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!("the gateway cannot accept a connection: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, permit: OwnedSemaphorePermit, router: Router, watcher: Watcher) {
    // Answers are small and written at once; waiting to fill a segment would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("no TCP_NODELAY: {error}");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(GATEWAY_HEAD_BYTES_MAX)
        .max_headers(GATEWAY_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!("a connection to the gateway ended: {error}");
    }
    drop(permit);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn beyond_loopback_only_when_it_is_meant() {
        let open = Config { bind: "0.0.0.0".parse().unwrap(), ..Config::default() };
        assert!(check_exposure(&Config::default()).is_ok());
        let Err(Error::Denied(why)) = check_exposure(&open) else { panic!("it would be open") };
        assert!(why.contains("allow_insecure"));
        assert!(check_exposure(&Config { allow_insecure: true, ..open }).is_ok());
    }

    async fn exchange(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_shutdown_ends_idle_connections_and_accepts_no_more() {
        let peer = Peer::start(crate::PeerConfig::local()).await.unwrap();
        let gateway = serve(peer.clone(), Config { port: 0, ..Config::default() }).await.unwrap();
        let address = gateway.address();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let health = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(exchange(&mut stream, health).await.starts_with("HTTP/1.1 200"));
        let stranger = "GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        assert!(exchange(&mut stream, stranger).await.starts_with("HTTP/1.1 421"));
        tokio::time::timeout(DRAIN_TIMEOUT / 2, gateway.shutdown()).await.expect("nothing is under way");
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(TcpStream::connect(address).await.is_err());
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn a_port_in_use_says_which_flag_changes_it() {
        let peer = Peer::start(crate::PeerConfig::local()).await.unwrap();
        let first = serve(peer.clone(), Config { port: 0, ..Config::default() }).await.unwrap();
        let taken = Config { port: first.address().port(), ..Config::default() };
        let Err(Error::Io(why)) = serve(peer.clone(), taken).await else { panic!("the port is taken") };
        assert!(why.contains("--rest-port"), "{why}");
        first.shutdown().await;
        peer.shutdown().await;
    }
}
