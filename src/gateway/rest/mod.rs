//! The REST interface, `/api/v1`: one file per resource.
//!
//! Each handler carries the description of its call (`utoipa::path`): its path, parameters and body, and every
//! status with which it answers. The router takes handlers by that description only (`routes!`), so that what is
//! served and what is described cannot part. `description` adds what holds for every call.

mod bulk;
mod collection;
mod description;
mod docs;
mod document;
mod export;
mod feed;
mod index;
mod live;
mod mesh;
mod parameter;
mod patch;
mod query;
mod search;
mod status;
mod strict;
#[cfg(test)]
mod tests;
mod version;

use std::io;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::header::{self, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::LINES;
use super::guard::{guard, is_allowed_origin};
use super::leftover::discard_leftover;
use super::problem::{Answer, Problem};
use super::{App, Config};
use crate::limits::{GATEWAY_READS_MAX, PAGE_DOCUMENTS_MAX};
use crate::{Invalid, InvalidKind};

/// Entries of a page when the client does not say.
const PAGE_DOCUMENTS: usize = 100;

/// Every call, behind the guard.
pub(super) fn router(app: App) -> Router {
    let (router, mut api) = calls().split_for_parts();
    let known = query::Known::new(&mut api);
    let router = router.route_layer(from_fn_with_state(known, query::check));
    let router = router.layer(Extension(docs::Description(description::complete(api))));
    let router = router
        .route("/", get(docs::lead))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(app.clone());
    let router = router.layer(from_fn_with_state(app.clone(), guard)).layer(from_fn(discard_leftover));
    // Outermost: it answers what browsers ask before a call, which has no token, and lets pages read every problem.
    if app.shared.config.cors_enabled { router.layer(cors(&app.shared.config)) } else { router }
}

/// Every call with its description. Those that share a path are named together.
fn calls() -> OpenApiRouter<App> {
    let calls = OpenApiRouter::default()
        .routes(routes!(collection::list))
        .routes(routes!(collection::show, collection::create, collection::drop))
        .routes(routes!(export::list, document::create))
        .routes(routes!(document::conflicting))
        .routes(routes!(bulk::write))
        .routes(routes!(feed::changes))
        .routes(routes!(document::read, document::write, patch::patch, document::delete))
        .routes(routes!(search::query))
        .routes(routes!(search::explain))
        .routes(routes!(search::count))
        .routes(routes!(search::distinct))
        .routes(routes!(search::aggregate))
        .routes(routes!(index::list))
        .routes(routes!(index::show, index::put, index::drop))
        .routes(routes!(index::conflicts))
        .routes(routes!(version::history))
        .routes(routes!(version::diff))
        .routes(routes!(version::conflicts))
        .routes(routes!(version::restore))
        .routes(routes!(mesh::invite))
        .routes(routes!(mesh::join))
        .routes(routes!(mesh::init))
        .routes(routes!(mesh::leave))
        .routes(routes!(mesh::peers))
        .routes(routes!(status::stats))
        .routes(routes!(status::node))
        .routes(routes!(status::doctor))
        .routes(routes!(status::sync))
        .routes(routes!(status::why))
        .routes(routes!(status::safe_to_leave))
        .routes(routes!(docs::description))
        .merge(health());
    OpenApiRouter::default()
        .nest("/api/v1", calls)
        .routes(routes!(status::metrics))
        .merge(health())
        .merge(docs::pages())
}

fn health() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(status::health)).routes(routes!(status::ready))
}

fn cors(config: &Config) -> CorsLayer {
    let config = config.clone();
    let request_id = HeaderName::from_static("x-request-id");
    let exposed = [header::ETAG, header::LOCATION, header::RETRY_AFTER, header::WWW_AUTHENTICATE, request_id.clone()];
    let last_event_id = HeaderName::from_static("last-event-id");
    let accepted = [header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH];
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| is_allowed_origin(&config, origin)))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(accepted.into_iter().chain([request_id, last_event_id]).collect::<Vec<_>>())
        .expose_headers(exposed)
}

async fn unknown(uri: Uri) -> Problem {
    let shown: String = uri.path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {shown}; calls start with /api/v1/"))
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let shown: String = uri.path().chars().take(200).collect();
    let detail = format!("{shown} does not take {method}; the Allow header says what it takes");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Variables of the path, decoded.
struct Path<T>(T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        let refused = |refused: PathRejection| Problem::new(StatusCode::BAD_REQUEST, refused.body_text());
        axum::extract::Path::from_request_parts(parts, app).await.map(|path| Self(path.0)).map_err(refused)
    }
}

/// Variables of the query.
struct Query<T>(T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        let refused = |refused: QueryRejection| parameter::refused(&refused.body_text());
        axum::extract::Query::from_request_parts(parts, app).await.map(|query| Self(query.0)).map_err(refused)
    }
}

/// Entries of a page, when the client says how many, or not.
fn page_limit(limit: Option<usize>) -> Answer<usize> {
    let limit = limit.unwrap_or(PAGE_DOCUMENTS);
    if (1..=PAGE_DOCUMENTS_MAX).contains(&limit) {
        return Ok(limit);
    }
    let message = format!("limit is a number from 1 to {PAGE_DOCUMENTS_MAX}");
    Err(Invalid { message, field: Some("limit".into()), position: None, kind: InvalidKind::Syntax }.into())
}

/// An answer of JSON text.
fn json_text(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer of a shape.
fn json(status: StatusCode, shape: &impl Serialize) -> Response {
    json_text(status, serde_json::to_vec(shape).expect("shapes have keys of text").into())
}

/// An answer of lines of JSON that are made while they are sent.
fn json_lines(lines: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LINES[0]));
    response
}

/// Room for a request that streams, until the permit is dropped.
fn stream_room(app: &App) -> Answer<OwnedSemaphorePermit> {
    let full = |_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many bulk writes, drops and exports at a time; try again")
    };
    app.shared.streams.clone().try_acquire_owned().map_err(full)
}

/// Runs what reads much from the disk where it holds nobody up, few at a time: each may hold a page.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> crate::Result<T> + Send + 'static) -> Answer<T> {
    static PLACES: Semaphore = Semaphore::const_new(GATEWAY_READS_MAX);
    let _place = PLACES.acquire().await.expect("the semaphore is never closed");
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in this peer; its log says more");
    Ok(tokio::task::spawn_blocking(read).await.map_err(failed)??)
}
