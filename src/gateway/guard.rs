//! What every request passes before it reaches a resource, and every answer on its way back.
//!
//! **`Host` and `Origin`.** A page on the Web can make a browser call this gateway under a name that its owner
//! controls and points here (DNS rebinding). So `Host` must be an address, `localhost`, or a name that the
//! configuration allows. And `Origin`, which browsers send with whatever could change something, must be the
//! gateway itself unless CORS is on.
//!
//! **Load.** More requests than the bound are told to come back; health is answered regardless.
//!
//! **Ids and panics.** Each request has an id, its own or a fresh one, which the answer repeats. A panic ends one
//! request with 500, not the connection. Problems get their body here, where the path is known.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;

use super::problem::{Answer, Problem};
use super::{App, Config};
use crate::limits::REQUEST_ID_BYTES_MAX;

/// Calls that are answered under any load.
const HEALTH: [&str; 4] = ["/health", "/health/ready", "/api/v1/health", "/api/v1/health/ready"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Lets a request through, or answers it.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(&app, request.headers());
    let (method, uri) = (request.method().clone(), request.uri().clone());
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
    tracing::debug!(%method, path = uri.path(), status, micros = start.elapsed().as_micros(), request = ?id, "request");
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Whether a path is answered under any load.
pub(super) fn is_health(path: &str) -> bool {
    HEALTH.contains(&path)
}

async fn pass(app: &App, request: Request, next: Next) -> Answer {
    let config = &app.shared.config;
    check_host(config, &request)?;
    check_origin(config, request.headers())?;
    let is_health = is_health(request.uri().path());
    let _permit = match app.shared.permits.try_acquire() {
        Ok(permit) => Some(permit),
        Err(_) if is_health => None,
        Err(_) => return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time; try again")),
    };
    AssertUnwindSafe(next.run(request)).catch_unwind().await.map_err(|_| {
        tracing::error!("a request panicked; the message is above");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in this peer; its log says more")
    })
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
    let same = headers.get(HOST).is_some_and(|host| {
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|of| of.eq_ignore_ascii_case(host.as_bytes()))
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
}
