//! The REST interface, `/api/v1`: one file per resource.

mod collection;
mod document;
mod mesh;
mod status;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::header::{self, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::guard::{guard, is_allowed_origin};
use super::problem::{Answer, Problem};
use super::{App, Config};

/// Every call, behind the guard.
pub(super) fn router(app: App) -> Router {
    let calls = Router::new()
        .route("/collections", get(collection::list))
        .route("/collections/{collection}", get(collection::show))
        .route("/collections/{collection}/documents", get(document::list).post(document::create))
        .route(
            "/collections/{collection}/documents/{id}",
            get(document::read).put(document::write).delete(document::delete),
        )
        .route("/mesh/invites", post(mesh::invite))
        .route("/mesh/join", post(mesh::join))
        .route("/mesh/peers", get(mesh::peers))
        .route("/stats", get(status::stats))
        .route("/nodes/status", get(status::node))
        .route("/sync", get(status::sync))
        .route("/sync/why/{collection}/{id}", get(status::why))
        .merge(health());
    let router = Router::new()
        .nest("/api/v1", calls)
        .merge(health())
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(app.clone());
    let router = if app.shared.config.cors_enabled { router.layer(cors(&app.shared.config)) } else { router };
    router.layer(from_fn_with_state(app, guard))
}

fn health() -> Router<App> {
    Router::new().route("/health", get(status::health)).route("/health/ready", get(status::ready))
}

fn cors(config: &Config) -> CorsLayer {
    let config = config.clone();
    let exposed = [header::ETAG, header::LOCATION, header::RETRY_AFTER, HeaderName::from_static("x-request-id")];
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| is_allowed_origin(&config, origin)))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH])
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
        let refused = |refused: QueryRejection| Problem::new(StatusCode::BAD_REQUEST, refused.body_text());
        axum::extract::Query::from_request_parts(parts, app).await.map(|query| Self(query.0)).map_err(refused)
    }
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

/// Runs what reads much from the disk where it holds nobody up.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> crate::Result<T> + Send + 'static) -> Answer<T> {
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault in this peer; its log says more");
    Ok(tokio::task::spawn_blocking(read).await.map_err(failed)??)
}
