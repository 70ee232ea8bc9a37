//! The description of the interface, `/api/v1/openapi.json`, and a page that shows it, `/docs`.
//!
//! The page is three files of ours that load nothing from elsewhere, and its policy lets it load nothing: it works
//! without the Internet, and what a document or a description holds cannot become a script.

use axum::Extension;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::App;
use super::json_text;

/// What the page may do: load its own files and call this gateway.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The description as JSON text, made once.
#[derive(Debug, Clone)]
pub(super) struct Description(pub(super) Bytes);

/// This description (OpenAPI 3.1).
#[utoipa::path(
    get, path = "/openapi.json", tag = "description", operation_id = "description",
    responses((status = 200, description = "An OpenAPI document", body = Object)),
)]
pub(super) async fn description(Extension(Description(text)): Extension<Description>) -> Response {
    json_text(StatusCode::OK, text)
}

/// The page and what it loads.
pub(super) fn pages() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(page)).routes(routes!(style)).routes(routes!(script))
}

/// Who opens the gateway in a browser is led to the page.
pub(super) async fn lead() -> Redirect {
    Redirect::temporary("/docs")
}

/// A page that shows the description and tries calls.
#[utoipa::path(
    get, path = "/docs", tag = "description", operation_id = "docsPage",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("../docs/index.html"))
}

/// The style of the page.
#[utoipa::path(
    get, path = "/docs/docs.css", tag = "description", operation_id = "docsStyle",
    responses((status = 200, description = "The style", body = String, content_type = "text/css")),
)]
async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../docs/docs.css"))
}

/// The script of the page.
#[utoipa::path(
    get, path = "/docs/docs.js", tag = "description", operation_id = "docsScript",
    responses((status = 200, description = "The script", body = String, content_type = "text/javascript")),
)]
async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../docs/docs.js"))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 3] =
        [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer")];
    (headers, text).into_response()
}
