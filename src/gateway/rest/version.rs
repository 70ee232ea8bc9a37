//! The past of a document: `/collections/{c}/documents/{id}/history`, `/diff`, `/conflicts` and `/restore`.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::super::problem::{Answer, Problem};
use super::super::version_shape::{self, AtBody};
use super::super::{App, body, etag, shape};
use super::document::written;
use super::parameter::{Concern, DocumentPath};
use super::{Path, Query, json};
use crate::limits::{DIFFERENCES_MAX, HISTORY_PAGE_MAX};
use crate::{Invalid, InvalidKind};

/// Entries of a page when the client does not say.
const PAGE_ENTRIES: usize = 20;

/// How a history is paged.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Changes of a page; it may hold fewer when they are large.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{43}$")]
    cursor: Option<String>,
}

/// The changes of a document, the newest first: who changed what, and when.
#[utoipa::path(
    get, path = "/collections/{collection}/documents/{id}/history", tag = "documents", operation_id = "documentHistory",
    params(DocumentPath, Paging),
    responses(
        (status = 200, description = "A page", body = version_shape::History),
        (status = 400, description = "A parameter is malformed"),
        (status = 404, description = "There is and was no such document"),
        (status = 422, description = "A name or an id breaks a rule"),
    ),
)]
pub(super) async fn history(
    State(app): State<App>,
    Path(at): Path<DocumentPath>,
    Query(paging): Query<Paging>,
) -> Answer {
    let (collection, id) = (app.peer.collection(&at.collection)?, at.id);
    let limit = paging.limit.unwrap_or(PAGE_ENTRIES);
    if !(1..=HISTORY_PAGE_MAX).contains(&limit) {
        let message = format!("limit is a number from 1 to {HISTORY_PAGE_MAX}");
        return Err(Invalid { message, field: Some("limit".into()), position: None, kind: InvalidKind::Syntax }.into());
    }
    let after = paging.cursor.as_deref().map(version_shape::parse_cursor).transpose()?;
    let page = collection.history(&id, after, limit).await?;
    Ok(json(StatusCode::OK, &version_shape::History::new(&page)))
}

/// Which versions are compared, and how that is shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Comparing {
    /// The first version: the hashes of its heads, with commas between them, or a time.
    #[param(
        pattern = "^([0-9A-Fa-f]{64}(,[0-9A-Fa-f]{64})*|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))$"
    )]
    from: String,
    /// The second version; the present one when left out.
    #[param(
        pattern = "^([0-9A-Fa-f]{64}(,[0-9A-Fa-f]{64})*|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))$"
    )]
    to: Option<String>,
    /// `changes`, or `json-patch` for a patch that turns the first into the second.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// A form of a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Format {
    /// Places with the values before and after.
    #[default]
    Changes,
    /// RFC 6902.
    JsonPatch,
}

/// What differs between two versions.
#[utoipa::path(
    get, path = "/collections/{collection}/documents/{id}/diff", tag = "documents", operation_id = "compareVersions",
    params(DocumentPath, Comparing),
    responses(
        (status = 200, description = "Each place that differs, with its values", content(
            (version_shape::Diff = "application/json"),
            (Vec<version_shape::Operation> = "application/json-patch+json"),
        )),
        (status = 400, description = "A parameter is malformed"),
        (status = 404, description = "There is no such document, or it has no such version"),
        (status = 422, description = "A name or an id breaks a rule, or the versions differ too much for a patch"),
    ),
)]
pub(super) async fn diff(
    State(app): State<App>,
    Path(at): Path<DocumentPath>,
    Query(comparing): Query<Comparing>,
) -> Answer {
    let (collection, id) = (app.peer.collection(&at.collection)?, at.id);
    let from = version_shape::parse_at("from", &comparing.from)?;
    let to = comparing.to.as_deref().map(|to| version_shape::parse_at("to", to)).transpose()?;
    let diff = collection.diff(&id, from, to).await?;
    if comparing.format == Format::Changes {
        return Ok(json(StatusCode::OK, &version_shape::Diff::new(&diff)));
    }
    if diff.differences.is_cut {
        let detail = format!(
            "the versions differ in more than {DIFFERENCES_MAX} places or too many bytes for a patch; read the \
             version itself with ?at="
        );
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let mut response = json(StatusCode::OK, &version_shape::patch(&diff.differences));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json-patch+json"));
    Ok(response)
}

/// The places at which edits that did not know of each other left several values, with their authors.
#[utoipa::path(
    get, path = "/collections/{collection}/documents/{id}/conflicts", tag = "documents", operation_id = "documentConflicts",
    params(DocumentPath),
    responses(
        (status = 200, description = "The places, the value that is shown first", body = version_shape::Conflicts),
        (status = 404, description = "There is no such document"),
        (status = 422, description = "A name or an id breaks a rule"),
    ),
)]
pub(super) async fn conflicts(State(app): State<App>, Path(at): Path<DocumentPath>) -> Answer {
    let conflicts = app.peer.collection(&at.collection)?.conflicts(&at.id).await?;
    Ok(json(StatusCode::OK, &version_shape::Conflicts::new(&conflicts)))
}

/// Which version is written again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreBody {
    /// The hashes of its heads, or a time.
    at: AtBody,
}

/// Writes an old version as a new edit.
#[utoipa::path(
    post, path = "/collections/{collection}/documents/{id}/restore", tag = "documents", operation_id = "restoreVersion",
    params(
        DocumentPath, Concern,
        ("If-Match" = Option<String>, Header, description = "The version that is replaced; * for any"),
        ("If-None-Match" = Option<String>, Header, description = "* to revive only"),
    ),
    request_body(content = RestoreBody),
    responses(
        (status = 200, description = "It is written", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 201, description = "It is written, and was deleted before", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Its path"),
        )),
        (status = 202, description = "It is on this peer's disk, and on those of fewer others than asked for in time", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Its path"),
        )),
        (status = 400, description = "The body is no JSON, or the version is malformed"),
        (status = 403, description = "This peer may not write"),
        (status = 404, description = "There is no such document, or it has no such version"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "Another document has its key of a unique index"),
        (status = 412, description = "The precondition does not hold"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A name, an id or the body breaks a rule"),
    ),
)]
pub(super) async fn restore(
    State(app): State<App>,
    Path(at): Path<DocumentPath>,
    Query(concern): Query<Concern>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (collection, id) = (concern.on(&app.peer.collection(&at.collection)?)?, at.id);
    let RestoreBody { at } = body::arguments(&headers, body).await?;
    let condition = etag::condition(&headers, || collection.get(&id))?;
    let (write, document) = collection.restore(&id, at.parse("at")?, condition).await.map_err(Problem::of_condition)?;
    Ok(written(write, &document))
}
