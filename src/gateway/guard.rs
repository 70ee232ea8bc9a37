//! What every request passes before it reaches a resource, and every answer on its way back.
//!
//! **`Host` and `Origin`.** A page on the Web can make a browser call this gateway under a name that its owner
//! controls and points here (DNS rebinding). So `Host` must be an address, `localhost`, or a name that the
//! configuration allows. And `Origin`, which browsers send with whatever could change something, must be the
//! gateway itself unless CORS is on.
//!
//! **Token.** When the peer has a token, every call needs it, but for health and the description, which say nothing
//! of documents. A client that sends too many wrong ones is told to wait. The right one passes all the same: it is too
//! long to be guessed, and else one client could lock out all that share its address.
//!
//! **Load.** A client that asks too often, and more requests at a time than the bound, are told to come back; health
//! is answered regardless. A request counts once its body is here: who sends slowly keeps nobody out. And an answer
//! leaves when there is room for it among those that are on their way (`budget`). One to a write waits for that, because
//! what is done cannot be refused any more.
//!
//! **Codings.** A body comes in chunks or with its length. Another transfer coding is refused (RFC 9112, section 6.1).
//!
//! **Ids and panics.** Each request has an id, its own or a fresh one, which the answer repeats. A panic ends one
//! request with 500, not the connection. Problems get their body here, where the path is known.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, StreamExt};
use hyper::body::Body as HttpBody;

use super::budget::Room;
use super::leaving::leave;
use super::problem::{Answer, Problem};
use super::token::{Credentials, credentials};
use super::{App, Config, body};
use crate::limits::REQUEST_ID_BYTES_MAX;

/// Calls that are answered under any load, and to anybody.
const HEALTH: [&str; 4] = ["/health", "/health/ready", "/api/v1/health", "/api/v1/health/ready"];
/// What says nothing about this peer, and is shown to anybody: a browser has no token when it loads a page.
const DOCS: [&str; 5] = ["/", "/api/v1/openapi.json", "/docs", "/docs/docs.css", "/docs/docs.js"];
/// How the path of a call ends whose body is read as it comes.
const STREAMED: &str = "/documents:bulk";
/// How the paths of calls end that change nothing although they have bodies.
const READING: [&str; 5] = ["/query", "/explain", "/count", "/distinct", "/aggregate"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Where a connection comes from. The server puts it into each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// Lets a request through, or answers it.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(&app, request.headers());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let client = client_address(&request);
    let mut response = match pass(&app, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if method != Method::HEAD {
            *response.body_mut() = problem.body(uri.path());
        }
        // What the peer is to blame for; overload would only fill the log.
        if matches!(problem.status, StatusCode::INTERNAL_SERVER_ERROR | StatusCode::INSUFFICIENT_STORAGE) {
            tracing::warn!(%method, path = uri.path(), status = problem.status.as_u16(), "{}", problem.detail);
        }
    }
    let status = response.status().as_u16();
    let micros = start.elapsed().as_micros();
    // Never the query, a header or a body: they hold what is the client's.
    tracing::debug!(target: "aerolithsdb::access", %method, path = uri.path(), status, micros, request = ?id, %client);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    // Answers are of now and of this client; and no page elsewhere is to load them as something that they are not.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    end_with_the_gateway(&app, response)
}

fn client_address(request: &Request) -> IpAddr {
    request.extensions().get().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ClientAddress(address)| *address)
}

/// Lets an endless answer end when the gateway stops, so that no client holds up a shutdown.
fn end_with_the_gateway(app: &App, response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
        return response;
    }
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(app.stopped()))))
}

/// Whether a path is answered under any load.
pub(super) fn is_health(path: &str) -> bool {
    HEALTH.contains(&path)
}

/// Whether a path is answered without a token.
pub(super) fn is_open(path: &str) -> bool {
    is_health(path) || DOCS.contains(&path)
}

async fn pass(app: &App, request: Request, next: Next) -> Answer {
    let config = &app.shared.config;
    check_host(config, &request)?;
    check_origin(config, request.headers())?;
    let is_health = is_health(request.uri().path());
    if !is_health {
        check_rate(app, client_address(&request))?;
    }
    if !is_open(request.uri().path()) {
        check_token(app, client_address(&request), request.headers())?;
    }
    check_transfer_coding(request.headers())?;
    let is_reading = is_reading(request.method(), request.uri().path());
    let (request, _room) = with_body(app, request).await?;
    let _permit = match app.shared.permits.try_acquire() {
        Ok(permit) => Some(permit),
        Err(_) if is_health => None,
        Err(_) => return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time; try again")),
    };
    let response = AssertUnwindSafe(next.run(request)).catch_unwind().await.map_err(|_| {
        tracing::error!("a request panicked; the message is above");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in this peer; its log says more")
    })?;
    leave(app, is_reading, response).await
}

/// A request whose body is here, with the room that it takes; but for one that is read as it comes, and one that is
/// refused for its length.
async fn with_body(app: &App, request: Request) -> Answer<(Request, Option<Room>)> {
    let is_stream = request.uri().path().ends_with(STREAMED);
    if is_stream || request.body().is_end_stream() || body::is_too_large(request.body()) {
        return Ok((request, None));
    }
    let (parts, body) = request.into_parts();
    let (body, room) = body::gather(body, &app.shared.bodies).await?.into_parts();
    Ok((Request::from_parts(parts, body), room))
}

/// Whether a call changes nothing, so that its answer may be refused.
fn is_reading(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) || READING.iter().any(|end| path.ends_with(end))
}

fn check_transfer_coding(headers: &HeaderMap) -> Answer<()> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none() {
        return Ok(());
    }
    let shown: String = coding.to_str().unwrap_or_default().chars().take(40).collect();
    let detail = format!("the transfer coding {shown:?} is not understood: send the body with its length, or chunked");
    Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail))
}

fn check_rate(app: &App, client: IpAddr) -> Answer<()> {
    let refused = |wait_s| Problem::too_many("this client makes more requests a second than it may; wait", wait_s);
    app.shared.clients.request(client, app.now_us()).map_err(refused)
}

fn check_token(app: &App, client: IpAddr, headers: &HeaderMap) -> Answer<()> {
    let Some(token) = &app.shared.token else { return Ok(()) };
    let unauthorized = |detail: &'static str| Problem::new(StatusCode::UNAUTHORIZED, detail);
    let given = match credentials(headers) {
        Credentials::Missing => {
            return Err(unauthorized(
                "this peer wants a token: send Authorization: Bearer TOKEN (aerolithsdb-cli --token-file FILE); the \
                 peer's security.token_file holds it",
            ));
        }
        Credentials::Unusable => return Err(unauthorized("the header is not Authorization: Bearer TOKEN")),
        Credentials::Bearer(given) => given,
    };
    if token.is(given) {
        return Ok(());
    }
    let refused = |wait_s| Problem::too_many("this client sends too many wrong tokens; wait", wait_s);
    app.shared.clients.wrong_token(client, app.now_us()).map_err(refused)?;
    Err(unauthorized("the token is wrong; the peer's security.token_file holds the right one"))
}

/// The client's id when it is short and printable, else a fresh one.
fn request_id(app: &App, headers: &HeaderMap) -> HeaderValue {
    let usable = |id: &&HeaderValue| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.to_str().is_ok();
    if let Some(id) = headers.get(REQUEST_ID).filter(usable) {
        return id.clone();
    }
    let number = app.shared.requests.fetch_add(1, Ordering::Relaxed);
    HeaderValue::from_str(&format!("{:08x}-{number:x}", app.shared.run)).expect("hexadecimal digits fit a header")
}

fn check_host(config: &Config, request: &Request) -> Answer<()> {
    let named = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    let Some(host) = request.uri().authority().map(Authority::as_str).or(named) else {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the request has no Host header"));
    };
    if request.headers().get_all(HOST).iter().count() > 1 {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the request has several Host headers"));
    }
    if host_of(host).is_some_and(|name| is_ours(config, &name)) {
        return Ok(());
    }
    let shown: String = host.chars().take(80).collect();
    let detail = format!(
        "this peer does not answer under the name {shown:?}: call it by its address or as localhost, \
         or add the name to api.rest_api.allowed_hosts"
    );
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

/// The host of an authority, without port, user and brackets, in lower case.
fn host_of(authority: &str) -> Option<String> {
    let authority: Authority = authority.parse().ok()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

/// Whether a host may mean this gateway. On loopback that is loopback; elsewhere any plain address may be ours,
/// and no DNS server can point an address somewhere else.
fn is_ours(config: &Config, host: &str) -> bool {
    is_local(host)
        || match host.parse::<IpAddr>() {
            Ok(ip) => ip == config.bind || !config.bind.is_loopback(),
            Err(_) => config.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)),
        }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check_origin(config: &Config, headers: &HeaderMap) -> Answer<()> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let scheme: &[u8] = if config.tls.is_some() { b"https://" } else { b"http://" };
    let same = headers.get(HOST).is_some_and(|host| {
        origin.as_bytes().strip_prefix(scheme).is_some_and(|of| of.eq_ignore_ascii_case(host.as_bytes()))
    });
    if same || is_allowed_origin(config, origin) {
        return Ok(());
    }
    let shown: String = origin.to_str().unwrap_or_default().chars().take(80).collect();
    let detail = format!(
        "pages of the origin {shown:?} may not call this peer: set api.rest_api.cors_enabled = true \
         and, for origins elsewhere than on this machine, list them under api.rest_api.cors_origins"
    );
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

/// Whether CORS lets an origin call.
pub(super) fn is_allowed_origin(config: &Config, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    if !config.cors_enabled {
        return false;
    }
    if !config.cors_origins.is_empty() {
        return config.cors_origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin));
    }
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.and_then(host_of).is_some_and(|host| is_local(&host))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_a_stranger_can_point_here_are_not_ours() {
        let loopback = Config::default();
        let ours = |config: &Config, host: &str| host_of(host).is_some_and(|host| is_ours(config, &host));
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "127.9.9.9", "localhost."] {
            assert!(ours(&loopback, host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "192.168.1.2:8080", "", "a@localhost", "127.0.0.1.x"] {
            assert!(!ours(&loopback, host), "{host}");
        }
        let open = Config {
            bind: "0.0.0.0".parse().unwrap(),
            allowed_hosts: vec!["Bootstrap-001".into()],
            ..Config::default()
        };
        for host in ["192.168.1.2:8080", "[fe80::1]", "localhost", "bootstrap-001:8080"] {
            assert!(ours(&open, host), "{host}");
        }
        assert!(!ours(&open, "evil.example"));
    }

    #[test]
    fn origins_elsewhere_need_to_be_listed() {
        let allowed =
            |config: &Config, origin: &'static str| is_allowed_origin(config, &HeaderValue::from_static(origin));
        let off = Config::default();
        assert!(!allowed(&off, "http://localhost:3000"));
        let local = Config { cors_enabled: true, ..Config::default() };
        assert!(allowed(&local, "http://localhost:3000") && allowed(&local, "https://127.0.0.1"));
        assert!(!allowed(&local, "http://evil.example") && !allowed(&local, "null"));
        let listed = Config { cors_origins: vec!["https://app.example".into()], ..local };
        assert!(allowed(&listed, "https://app.example") && !allowed(&listed, "http://localhost:3000"));
    }

    #[test]
    fn a_page_of_the_gateway_itself_may_call_by_its_own_scheme() {
        let headers = |origin: &'static str| {
            let pairs = [(HOST, "localhost:8080"), (ORIGIN, origin)];
            pairs.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect::<HeaderMap>()
        };
        let plain = Config::default();
        let secure = Config { tls: Some(super::super::Tls::Generated("data".into())), ..Config::default() };
        for (config, good, bad) in [
            (&plain, "http://localhost:8080", "https://localhost:8080"),
            (&secure, "https://localhost:8080", "http://localhost:8080"),
        ] {
            assert!(check_origin(config, &headers(good)).is_ok());
            assert_eq!(check_origin(config, &headers(bad)).unwrap_err().status, 403);
        }
    }

    proptest! {
        /// Whatever stands in `Host` and `Origin`, it is understood or refused; and no name is ours by accident.
        #[test]
        fn any_host_is_read_without_a_panic(host in "[ -~]{0,80}|[a-z0-9.:@\\[\\]-]{0,40}|localhost[a-z.:@]{1,20}") {
            let open = Config { bind: "0.0.0.0".parse().unwrap(), cors_enabled: true, ..Config::default() };
            if let Some(name) = host_of(&host) && is_ours(&open, &name) {
                prop_assert!(name == "localhost" || name.parse::<IpAddr>().is_ok(), "{host:?}");
            }
            let Ok(origin) = HeaderValue::from_str(&host) else { return Ok(()) };
            is_allowed_origin(&open, &origin);
            let headers: HeaderMap = [(ORIGIN, origin)].into_iter().collect();
            prop_assert!(check_origin(&Config::default(), &headers).is_err());
        }
    }
}
