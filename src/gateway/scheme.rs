//! Clients that speak plain HTTP where TLS is spoken, or the other way round: each is told which scheme is meant.
//!
//! On a port with TLS a plain request is answered, with nothing but that. To a client that speaks TLS on a plain port
//! nothing can be said that it would show, so the log does, and the client of this project by itself.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::leftover::discard_leftover;
use super::problem::Problem;

/// How often the log tells of clients that do not speak HTTP.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// When the log last told of clients on a plain port that do not speak HTTP.
#[derive(Debug, Default)]
pub(super) struct Hint(Mutex<Option<Instant>>);

impl Hint {
    /// Says what such a client may have meant, unless that was said a while ago.
    pub(super) fn say(&self, client: IpAddr) {
        let mut said_at = self.0.lock();
        if said_at.is_none_or(|at| at.elapsed() > SAY_AGAIN) {
            *said_at = Some(Instant::now());
            tracing::info!(
                "{client} does not speak HTTP to the gateway; should it be TLS: this port speaks plain HTTP, so write \
                 http:// instead of https:// in the URL"
            );
        }
    }
}

/// Answers every request on a port that speaks TLS.
pub(super) fn plain() -> Router {
    Router::new().fallback(refuse).layer(from_fn(discard_leftover))
}

async fn refuse(uri: Uri) -> Response {
    let detail = "this port speaks TLS: write https:// instead of http:// in the URL";
    let problem = Problem::new(StatusCode::BAD_REQUEST, detail);
    let body = problem.body(uri.path());
    let mut response = problem.into_response();
    *response.body_mut() = body;
    response
}
