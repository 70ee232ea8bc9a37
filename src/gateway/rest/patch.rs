//! Changing parts of a document: `PATCH /collections/{c}/documents/{id}`.
//!
//! The type of the body says its language. Nothing is guessed: a merge patch and update operators look alike, and
//! mistaking one for the other would write fields that nobody meant.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::etag;
use super::super::problem::{Answer, Problem};
use super::super::{App, body, shape};
use super::document::written;
use super::parameter::{Concern, DocumentPath};
use super::{Path, Query};
use crate::{Absent, Patch};

/// What happens when there is no such document.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Options {
    /// Whether to create the document when it does not exist; not with a JSON Patch.
    #[serde(default)]
    upsert: bool,
    /// Other peers that must have the write on their disks; not waited for when left out.
    #[param(maximum = 64)]
    w: Option<usize>,
    /// Milliseconds to wait for them; 5,000 when left out. Then the answer is 202: the write stands.
    #[param(maximum = 60_000)]
    timeout_ms: Option<u64>,
}

/// Changes parts of a document, as a whole or not at all, and nothing that it does not name.
///
/// The type of the body says its language: update operators (`{"$set": {"a.b": 1}, "$inc": {"n": 1}}`), a merge patch
/// (RFC 7396) or a JSON Patch (RFC 6902).
#[utoipa::path(
    patch, path = "/collections/{collection}/documents/{id}", tag = "documents", operation_id = "patchDocument",
    params(
        DocumentPath, Options,
        ("If-Match" = Option<String>, Header, description = "The version that is changed; * for any"),
        ("If-None-Match" = Option<String>, Header, description = "* to create only"),
    ),
    request_body(content(
        (Object = "application/json"),
        (Object = "application/merge-patch+json"),
        (Vec<Object> = "application/json-patch+json"),
    )),
    responses(
        (status = 200, description = "It is changed", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 201, description = "It is new", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Its path"),
        )),
        (status = 202, description = "It is on this peer's disk, and on those of fewer others than asked for in time", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Its path"),
        )),
        (status = 400, description = "The body is no JSON, nests too deep, or says a key twice"),
        (status = 403, description = "This peer may not write, or the collection is the system's"),
        (status = 404, description = "There is no such document"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "A test of a JSON Patch failed, or another document has its key of a unique index"),
        (status = 412, description = "The precondition does not hold"),
        (status = 413, description = "The body, or what it would make of the document, is larger than 1 MiB"),
        (status = 415, description = "The body is in no language of patches"),
        (status = 422, description = "A name, a path or a value breaks a rule; field is the path"),
    ),
)]
pub(super) async fn patch(
    State(app): State<App>,
    Path(at): Path<DocumentPath>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let concern = Concern { w: options.w, timeout_ms: options.timeout_ms };
    let (collection, id) = (concern.on(&app.peer.collection(&at.collection)?)?, at.id);
    let patch = read(&headers, body).await?;
    let condition = etag::condition(&headers, || collection.get(&id))?;
    let absent = if options.upsert { Absent::Create } else { Absent::Refuse };
    let patched = collection.patch_if(&id, patch, condition, absent).await;
    let (write, document) = patched.map_err(Problem::of_condition)?;
    Ok(written(write, &document))
}

async fn read(headers: &HeaderMap, body: Body) -> Answer<Patch> {
    let parse = match body::essence(headers).unwrap_or_default().as_str() {
        "application/merge-patch+json" => Patch::merge,
        "application/json-patch+json" => Patch::json_patch,
        "" | "application/json" => Patch::operators,
        other => return Err(unknown_language(other)),
    };
    Ok(parse(body::value(headers, body).await?)?)
}

fn unknown_language(media_type: &str) -> Problem {
    let shown: String = media_type.chars().take(80).collect();
    let detail = format!(
        "a patch is update operators (Content-Type: application/json), a merge patch \
         (application/merge-patch+json) or a JSON Patch (application/json-patch+json), not {shown:?}"
    );
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}
