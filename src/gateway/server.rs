//! Connections of the gateway: accepting them within bounds, TLS, cutting slow ones, and letting requests finish.
//!
//! Whoever connects is accepted. When there is no room, or the system has no file descriptor left, the connection that
//! has been idle for the longest gives way (`seat`); a newcomer waits only while all others are being served.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::clients::Connections;
use super::guard::ClientAddress;
use super::patience::Patience;
use super::seat::{Seat, Seats};
use super::token::Token;
use super::{App, Config, rest, scheme, socket_address, tls};
use crate::limits::{
    GATEWAY_CONNECTIONS_MAX, GATEWAY_CONNECTIONS_PER_CLIENT_MAX, GATEWAY_HANDSHAKES_MAX, GATEWAY_HEAD_BYTES_MAX,
    GATEWAY_HEADERS_MAX,
};
use crate::peer::Peer;
use crate::{Error, Result};

/// How long a client may read nothing of what it asked for.
const READ_NOTHING_TIMEOUT: Duration = Duration::from_secs(30);
/// How long accepting rests when the system has no file descriptor left, while a connection gives way.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// How often the log says that connections give way.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// How many connections there may be, and how long they may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Connections at a time; for one more an idle one gives way.
    connections: usize,
    /// Those of one client; more are closed. What calls from this machine shares one address, and is not bounded.
    connections_per_client: usize,
    /// Handshakes that are computed at a time.
    handshakes: usize,
    /// For a TLS handshake.
    handshake: Duration,
    /// For a request's head, idle time between requests included.
    head: Duration,
    /// For the requests that are under way at a shutdown.
    drain: Duration,
}

const BOUNDS: Bounds = Bounds {
    connections: GATEWAY_CONNECTIONS_MAX,
    connections_per_client: GATEWAY_CONNECTIONS_PER_CLIENT_MAX,
    handshakes: GATEWAY_HANDSHAKES_MAX,
    handshake: Duration::from_secs(10),
    head: Duration::from_secs(30),
    drain: Duration::from_secs(10),
};

/// A running gateway. Dropping it leaves it running until the process ends.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    fingerprint: Option<String>,
    app: App,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// Starts a gateway for a peer. It answers once this returns.
///
/// # Errors
/// [`Error::Denied`] for an address beyond loopback that the configuration does not allow, [`Error::Io`] when it
/// cannot be listened on, or the token or the certificate cannot be read or made; [`Error::Invalid`] when they are
/// unusable.
pub async fn serve(peer: Peer, config: Config) -> Result<Gateway> {
    // The other half is for the store, and for other peers.
    let connections = open_files_max().map_or(BOUNDS.connections, |max| BOUNDS.connections.min(max / 2));
    serve_within(peer, config, Bounds { connections, ..BOUNDS }).await
}

/// How many files and connections this process may have open; `None` for any number.
#[cfg(unix)]
fn open_files_max() -> Option<usize> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.map(|max| usize::try_from(max).unwrap_or(usize::MAX))
}

#[cfg(not(unix))]
fn open_files_max() -> Option<usize> {
    None
}

async fn serve_within(peer: Peer, config: Config, bounds: Bounds) -> Result<Gateway> {
    config.check()?;
    let token = config.token_file.as_deref().map(Token::load_or_create).transpose()?;
    let tls = config.tls.as_ref().map(|tls| tls::load(tls, &config)).transpose()?;
    let (tls, fingerprint) = tls.unzip();
    let wanted = socket_address(&config);
    let listener = TcpListener::bind(wanted).await.map_err(|error| refused(wanted, &error))?;
    let address = listener.local_addr().map_err(|error| Error::Io(format!("listening on {wanted}: {error}")))?;
    let run = getrandom::u32().map_err(|error| Error::Io(format!("the system gives no randomness: {error}")))?;
    let app = App::new(peer, config, run, token);
    let (stop, stopped) = watch::channel(false);
    let server = Server {
        seats: app.shared.seats.clone(),
        router: rest::router(app.clone()),
        tls,
        handshakes: Arc::new(Semaphore::new(bounds.handshakes)),
        hint: Arc::default(),
        bounds,
    };
    let accepting = tokio::spawn(accept(listener, server, stopped));
    Ok(Gateway { address, fingerprint, app, stop, accepting })
}

impl Gateway {
    /// The address on which it listens, with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The SHA-256 fingerprint of its certificate in hexadecimal; `None` without TLS.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// Stops accepting, ends what is endless, lets the requests that are under way finish, and cuts those that take
    /// too long.
    pub async fn shutdown(self) {
        self.app.shared.stopping.send_replace(true);
        // An error means that accepting has ended, which is what is asked for.
        let _: std::result::Result<(), _> = self.stop.send(true);
        if self.accepting.await.is_err() {
            tracing::error!("the gateway did not end well");
        }
    }
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

/// What all connections share.
#[derive(Debug, Clone)]
struct Server {
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    handshakes: Arc<Semaphore>,
    seats: Seats,
    hint: Arc<scheme::Hint>,
    bounds: Bounds,
}

async fn accept(listener: TcpListener, server: Server, mut stopped: watch::Receiver<bool>) {
    let mut door = Door {
        listener,
        room: Arc::new(Semaphore::new(server.bounds.connections)),
        seats: server.seats.clone(),
        said_at: None,
    };
    let connections = Connections::default();
    // Nothing is ever sent: all are gone when nobody could any more.
    let (open, mut all_gone) = mpsc::channel::<()>(1);
    loop {
        let next = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            next = door.next() => next,
        };
        let Some((stream, client, permit)) = next else { continue };
        let max = if client.is_loopback() { usize::MAX } else { server.bounds.connections_per_client };
        let Some(counted) = connections.open(client, max) else {
            tracing::debug!(%client, "a client has too many connections; one is closed");
            continue;
        };
        let (server, stopped, open) = (server.clone(), stopped.clone(), open.clone());
        let seat = Arc::new(door.seats.take());
        tokio::spawn(async move {
            server.connection(stream, client, seat, stopped).await;
            drop((permit, counted, open));
        });
    }
    drop((door, open));
    let drain = server.bounds.drain;
    if tokio::time::timeout(drain, all_gone.recv()).await.is_err() {
        tracing::warn!("requests were cut that took more than {} s to finish", drain.as_secs());
    }
}

/// Where connections come in.
#[derive(Debug)]
struct Door {
    listener: TcpListener,
    room: Arc<Semaphore>,
    seats: Seats,
    /// When the log last said that connections give way.
    said_at: Option<Instant>,
}

impl Door {
    /// The next connection, once there is room for it; `None` when it failed before it was accepted.
    async fn next(&mut self) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
        let (stream, from) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if is_out_of_files(&error) {
                    self.make_room(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                } else {
                    tracing::debug!("a connection to the gateway failed at once: {error}");
                }
                return None;
            }
        };
        let permit = match self.room.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.make_room(&"it has as many connections as it may have");
                self.room.clone().acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        Some((stream, from.ip(), permit))
    }

    fn make_room(&mut self, why: &dyn std::fmt::Display) {
        let gives_way = self.seats.give_way();
        if self.said_at.is_none_or(|at| at.elapsed() > SAY_AGAIN) {
            self.said_at = Some(Instant::now());
            let then = if gives_way { "those that are idle for the longest are closed" } else { "new ones wait" };
            tracing::warn!("the gateway has no room for another connection ({why}): {then}");
        }
    }
}

/// Whether the process, or the system, has as many files and connections open as it may have.
#[cfg(unix)]
fn is_out_of_files(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(not(unix))]
fn is_out_of_files(_: &std::io::Error) -> bool {
    true
}

impl Server {
    async fn connection(self, stream: TcpStream, client: IpAddr, seat: Arc<Seat>, stopped: watch::Receiver<bool>) {
        // Answers are small and written at once; waiting to fill a segment would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("no TCP_NODELAY: {error}");
        }
        let Some(tls) = self.tls.clone() else { return self.http(&self.router, stream, client, seat, stopped).await };
        let shaken = tokio::select! {
            biased;
            // Nothing is under way on it.
            () = to_end(&seat, stopped.clone()) => return,
            shaken = tokio::time::timeout(self.bounds.handshake, self.shake_hands(tls, stream)) => shaken,
        };
        match shaken {
            Ok(Ok(Spoken::Tls(stream))) => self.http(&self.router, *stream, client, seat, stopped).await,
            Ok(Ok(Spoken::Plain(stream))) => self.http(&scheme::plain(), stream, client, seat, stopped).await,
            Ok(Err(error)) => tracing::debug!(%client, "a TLS handshake failed: {error}"),
            Err(_) => tracing::debug!(%client, "a TLS handshake took too long"),
        }
    }

    /// The costly part begins when the client has said what it wants: who is silent holds nobody up.
    async fn shake_hands(&self, tls: Arc<ServerConfig>, stream: TcpStream) -> std::io::Result<Spoken> {
        let mut first = [0];
        // A request begins with the name of its method, a handshake with a byte that is no letter.
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            return Ok(Spoken::Plain(stream));
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let _permit = self.handshakes.acquire().await.expect("the semaphore is never closed");
        Ok(Spoken::Tls(Box::new(hello.into_stream(tls).await?)))
    }

    /// Serves requests. When the connection is to end, the request that is under way is finished.
    async fn http(
        &self,
        router: &Router,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        client: IpAddr,
        seat: Arc<Seat>,
        stopped: watch::Receiver<bool>,
    ) {
        let (begins, ends) = (Arc::clone(&seat), Arc::clone(&seat));
        let from = move |mut request: Request<Incoming>| {
            begins.begin();
            request.extensions_mut().insert(ClientAddress(client));
            request
        };
        let service = router.clone().map_request(from).map_response(move |response| ends.end(response));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.head)
            .max_buf_size(GATEWAY_HEAD_BYTES_MAX)
            .max_headers(GATEWAY_HEADERS_MAX)
            .serve_connection(
                TokioIo::new(Patience::new(stream, Arc::clone(&seat), READ_NOTHING_TIMEOUT)),
                TowerToHyperService::new(service),
            );
        let mut connection = pin!(connection);
        let served = async {
            tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = to_end(&seat, stopped) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        let ended = tokio::select! {
            biased;
            ended = served => ended,
            () = seat.told_to_end() => {
                return tracing::debug!(%client, "a connection to the gateway is cut off: its client does not read");
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%client, "a connection to the gateway ended: {error}");
            if error.is_parse() && self.tls.is_none() {
                self.hint.say(client);
            }
        }
    }
}

/// What a client speaks on a port that takes TLS.
enum Spoken {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

/// Returns when a connection is to end: the gateway stops, or it has to give way.
async fn to_end(seat: &Seat, mut stopped: watch::Receiver<bool>) {
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = seat.told_to_give_way() => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn beyond_loopback_only_with_a_token_and_tls_or_when_it_is_meant() {
        let open = Config { bind: "0.0.0.0".parse().unwrap(), ..Config::default() };
        assert!(Config::default().check().is_ok());
        let token_file = Some("token".into());
        let tls = Some(tls::Tls::Generated("data".into()));
        let with_token = Config { token_file: token_file.clone(), ..open.clone() };
        let with_tls = Config { tls: tls.clone(), ..open.clone() };
        for (config, advice) in
            [(&open, "--tls generated"), (&with_tls, "--token-file"), (&with_token, "--tls generated")]
        {
            let Err(Error::Denied(why)) = config.check() else { panic!("it would be open") };
            assert!(why.contains(advice) && why.contains("allow_insecure"), "{why}");
        }
        assert!(Config { token_file, tls, ..open.clone() }.check().is_ok());
        assert!(Config { allow_insecure: true, ..open }.check().is_ok());
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
        tokio::time::timeout(BOUNDS.drain / 2, gateway.shutdown()).await.expect("nothing is under way");
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(TcpStream::connect(address).await.is_err());
        peer.shutdown().await;
    }

    async fn open(config: Config, bounds: Bounds) -> (Peer, Gateway) {
        let peer = Peer::start(crate::PeerConfig::local()).await.unwrap();
        let gateway = serve_within(peer.clone(), Config { port: 0, ..config }, bounds).await.unwrap();
        (peer, gateway)
    }

    /// Everything until the other side closes.
    async fn rest_of(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        // A connection that is reset is as closed as any.
        _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await.expect("it is closed");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn who_is_slow_is_cut() {
        let brief = Bounds { head: Duration::from_millis(50), handshake: Duration::from_millis(50), ..BOUNDS };
        let (peer, gateway) = open(Config::default(), brief).await;
        for start in ["", "GET /health HTTP/1.1\r\nHost: local"] {
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            stream.write_all(start.as_bytes()).await.unwrap();
            assert!(!rest_of(&mut stream).await.contains("200"), "{start:?}");
        }
        gateway.shutdown().await;
        peer.shutdown().await;
        let folder = tempfile::tempdir().unwrap();
        let tls = Some(tls::Tls::Generated(folder.path().to_owned()));
        let (peer, gateway) = open(Config { tls, ..Config::default() }, brief).await;
        for start in [&b""[..], b"\x16\x03\x01", b"GET /health HTTP/1.1\r\n\r\n"] {
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            stream.write_all(start).await.unwrap();
            assert!(!rest_of(&mut stream).await.contains("200"), "{start:?}");
        }
        gateway.shutdown().await;
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn plain_http_on_a_tls_port_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Some(tls::Tls::Generated(folder.path().to_owned()));
        let (peer, gateway) = open(Config { tls, ..Config::default() }, BOUNDS).await;
        let body = "x".repeat(100_000);
        for request in [
            "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
            format!("PUT /api/v1/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n{body}"),
        ] {
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = rest_of(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
        gateway.shutdown().await;
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn a_head_has_its_bounds() {
        let (peer, gateway) = open(Config::default(), BOUNDS).await;
        let long = format!("X-Long: {}\r\n", "x".repeat(2 * GATEWAY_HEAD_BYTES_MAX));
        let many: String = (0..=GATEWAY_HEADERS_MAX).map(|n| format!("X-{n}: x\r\n")).collect();
        for (headers, status) in [("X-Short: x\r\n", "200"), (&long, "431"), (&many, "431")] {
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            let request = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
            // Refused before its end, so that sending the rest may fail.
            _ = stream.write_all(request.as_bytes()).await;
            let answer = rest_of(&mut stream).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
        }
        gateway.shutdown().await;
        peer.shutdown().await;
    }

    /// Bytes that are nothing, and requests with some bytes changed, from one seed.
    #[tokio::test]
    async fn garbage_harms_nobody() {
        use rand::rngs::StdRng;
        use rand::{RngExt, SeedableRng};

        let (peer, gateway) = open(Config::default(), Bounds { head: Duration::from_millis(20), ..BOUNDS }).await;
        let good =
            b"PUT /api/v1/collections/users/documents/a?x=1 HTTP/1.1\r\nHost: localhost\r\nIf-Match: \"x\", *\r\n\
                     Authorization: Bearer abc\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\
                     Connection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        let mut random = StdRng::seed_from_u64(7);
        for round in 0..300 {
            let mut bytes = good.to_vec();
            if round % 3 == 0 {
                bytes = (0..random.random_range(0..300)).map(|_| random.random()).collect();
            } else {
                for _ in 0..random.random_range(1..6) {
                    let at = random.random_range(0..bytes.len());
                    match random.random_range(0..3) {
                        0 => bytes[at] = random.random(),
                        1 => _ = bytes.remove(at),
                        _ => bytes.insert(at, *b"\0\r\n \xff:;".get(random.random_range(0..7)).unwrap()),
                    }
                }
            }
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            // It may be refused before its end.
            _ = stream.write_all(&bytes).await;
            _ = stream.shutdown().await;
            let answer = rest_of(&mut stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "round {round}: {answer:?}");
            assert!(!answer.starts_with("HTTP/1.1 5"), "round {round}: {answer}");
        }
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let health = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(exchange(&mut stream, health).await.starts_with("HTTP/1.1 200"));
        gateway.shutdown().await;
        peer.shutdown().await;
    }

    /// A gateway of one connection, whose only call answers without an end.
    async fn endless() -> (Peer, Gateway, TcpStream) {
        async fn endless() -> impl axum::response::IntoResponse {
            let events = futures::stream::iter([Ok::<_, std::io::Error>("data: 1\n\n")]);
            let events = futures::StreamExt::chain(events, futures::stream::pending());
            ([("content-type", "text/event-stream")], axum::body::Body::from_stream(events))
        }
        let peer = Peer::start(crate::PeerConfig::local()).await.unwrap();
        let app = App::new(peer.clone(), Config::default(), 0, None);
        let guarded = axum::middleware::from_fn_with_state(app.clone(), super::super::guard::guard);
        let router = Router::new().route("/endless", axum::routing::get(endless)).layer(guarded);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let bounds = Bounds { connections: 1, ..BOUNDS };
        let (seats, hint) = (Seats::default(), Arc::default());
        let server = Server { router, tls: None, handshakes: Arc::new(Semaphore::new(1)), seats, hint, bounds };
        let accepting = tokio::spawn(accept(listener, server, stopped));
        let gateway = Gateway { address, fingerprint: None, app, stop, accepting };
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = exchange(&mut stream, "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        while !answer.contains("data: 1") {
            answer += &exchange(&mut stream, "").await;
        }
        (peer, gateway, stream)
    }

    #[tokio::test]
    async fn for_a_connection_beyond_the_bound_an_idle_one_gives_way() {
        let (peer, gateway) = open(Config::default(), Bounds { connections: 2, ..BOUNDS }).await;
        let health = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut idle = TcpStream::connect(gateway.address()).await.unwrap();
        let mut active = TcpStream::connect(gateway.address()).await.unwrap();
        for stream in [&mut idle, &mut active] {
            assert!(exchange(stream, health).await.starts_with("HTTP/1.1 200"));
        }
        let mut third = TcpStream::connect(gateway.address()).await.unwrap();
        assert!(exchange(&mut third, health).await.starts_with("HTTP/1.1 200"));
        assert_eq!(rest_of(&mut idle).await, "", "it is closed without a word");
        assert!(exchange(&mut active, health).await.starts_with("HTTP/1.1 200"));
        drop((active, third));
        gateway.shutdown().await;
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn who_is_being_served_gives_way_to_nobody() {
        let (peer, gateway, served) = endless().await;
        let mut second = TcpStream::connect(gateway.address()).await.unwrap();
        second.write_all(b"GET /unknown HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(200), second.read(&mut [0; 1])).await;
        assert!(waits.is_err(), "there was room for it: {waits:?}");
        assert!(served.try_read(&mut [0; 64]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        drop(served);
        assert!(exchange(&mut second, "").await.starts_with("HTTP/1.1 404"));
        drop(second);
        gateway.shutdown().await;
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn handshakes_are_computed_within_their_bound() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Some(tls::Tls::Generated(folder.path().to_owned()));
        let config = Config { tls, ..Config::default() };
        let hello = |roots| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            tokio_rustls::TlsConnector::from(Arc::new(
                client.unwrap().with_root_certificates(roots).with_no_client_auth(),
            ))
        };
        // Without room for one, a handshake waits until its time is over; with room the same one succeeds.
        for (handshakes, handshake, succeeds) in [(0, Duration::from_millis(50), false), (1, BOUNDS.handshake, true)] {
            let (peer, gateway) = open(config.clone(), Bounds { handshakes, handshake, ..BOUNDS }).await;
            let mut roots = rustls::RootCertStore::empty();
            let pem = folder.path().join("gateway-tls.pem");
            let certificate = rustls::pki_types::pem::PemObject::from_pem_file(&pem).unwrap();
            roots.add(certificate).unwrap();
            let stream = TcpStream::connect(gateway.address()).await.unwrap();
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            assert_eq!(hello(roots).connect(name, stream).await.is_ok(), succeeds);
            gateway.shutdown().await;
            peer.shutdown().await;
        }
    }

    #[tokio::test]
    async fn an_endless_answer_does_not_hold_up_a_shutdown() {
        let (peer, gateway, mut stream) = endless().await;
        tokio::time::timeout(BOUNDS.drain / 2, gateway.shutdown()).await.expect("the stream was ended");
        assert!(rest_of(&mut stream).await.ends_with("0\r\n\r\n"), "it was cut instead of ended");
        peer.shutdown().await;
    }

    #[tokio::test]
    async fn a_refusal_reaches_a_client_that_sends_its_body_first() {
        let (peer, gateway) = open(Config::default(), BOUNDS).await;
        let large = crate::limits::DOCUMENT_BYTES_MAX * 10;
        let put = "PUT /api/v1/collections/a/documents/b HTTP/1.1\r\nHost: localhost\r\n";
        let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20)).repeat(10);
        for (headers, body, status) in [
            (format!("Content-Length: {large}\r\n"), "x".repeat(large), "413"),
            (format!("Content-Length: {large}\r\nContent-Type: text/plain\r\n"), "x".repeat(large), "415"),
            ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{chunk}0\r\n\r\n"), "413"),
        ] {
            let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
            stream.write_all(format!("{put}{headers}\r\n").as_bytes()).await.unwrap();
            stream.write_all(body.as_bytes()).await.expect("all of the body is taken");
            let answer = exchange(&mut stream, "").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        }
        // Who asks first is told at once.
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let asks = format!("{put}Content-Length: {large}\r\nExpect: 100-continue\r\n\r\n");
        assert!(exchange(&mut stream, &asks).await.starts_with("HTTP/1.1 413"));
        gateway.shutdown().await;
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
