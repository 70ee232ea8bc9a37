//! Documents: `/collections/{c}/documents` and `/collections/{c}/documents/{id}`.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::super::etag::{self, ETag};
use super::super::problem::{Answer, Problem};
use super::super::{App, body, path_segment, shape, version_shape};
use super::parameter::{CollectionPath, Concern, DocumentPath};
use super::{Path, Query, blocking, json, json_text, page_limit};
use crate::base::DocumentId;
use crate::node::Write;
use crate::peer::Document;
use crate::{Condition, Error};

/// Writes a new document.
///
/// A field `_id` in the body names it, else it gets an id of its own.
#[utoipa::path(
    post, path = "/collections/{collection}/documents", tag = "documents", operation_id = "createDocument",
    params(CollectionPath, Concern),
    request_body(content = Object, description = "A JSON object"),
    responses(
        (status = 201, description = "It is on this peer's disk", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Its path"),
        )),
        (status = 202, description = "It is on this peer's disk, and on those of fewer others than asked for in time", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Its path"),
        )),
        (status = 400, description = "The body is no JSON, nests too deep, or says a key twice"),
        (status = 403, description = "This peer may not write, or the collection is the system's"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "A document of this id exists, or another one has its key of a unique index"),
        (status = 413, description = "The body is larger than 1 MiB"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A name, an id or a value breaks a rule"),
    ),
)]
pub(super) async fn create(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    Query(concern): Query<Concern>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let collection = concern.on(&app.peer.collection(&at.collection)?)?;
    let object = body::document(&headers, body).await?;
    let document = collection.insert(Value::Object(object)).await?;
    Ok(written(Write::Created, &document))
}

/// Which version is read; the present one when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Reading {
    /// The hashes of its heads, with commas between them, or a time.
    #[param(
        pattern = "^([0-9A-Fa-f]{64}(,[0-9A-Fa-f]{64})*|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))$"
    )]
    at: Option<String>,
}

/// Reads a document: this peer's replica and nothing else.
#[utoipa::path(
    get, path = "/collections/{collection}/documents/{id}", tag = "documents", operation_id = "readDocument",
    params(
        DocumentPath, Reading,
        ("If-None-Match" = Option<String>, Header, description = "Versions that the client has"),
    ),
    responses(
        (status = 200, description = "The document", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 304, description = "The client has this version", headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 400, description = "The version is malformed"),
        (status = 404, description = "There is no such document, or was none in that version"),
        (status = 422, description = "A name or an id breaks a rule"),
    ),
)]
pub(super) async fn read(
    State(app): State<App>,
    Path(at): Path<DocumentPath>,
    Query(reading): Query<Reading>,
    headers: HeaderMap,
) -> Answer {
    let (collection, id) = (app.peer.collection(&at.collection)?, at.id);
    let found = match &reading.at {
        None => collection.get(&id)?,
        Some(at) => collection.get_at(&id, version_shape::parse_at("at", at)?).await?,
    };
    let Some(document) = found else {
        // What a clock that was ahead has stamped is yet to come.
        let then = match (&reading.at, collection.get(&id)?) {
            (None, _) => String::new(),
            (Some(_), None) => " in that version".to_owned(),
            (Some(_), Some(present)) => format!(" in that version; its first change carries {}", present.created_at()),
        };
        return Err(Error::NotFound(format!("document {}/{id} does not exist{then}", collection.name())).into());
    };
    let tag = ETag::new(document.heads());
    if etag::is_known(&headers, &tag)? {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag.header())]).into_response());
    }
    Ok(tagged(StatusCode::OK, &document, &tag))
}

/// Creates a document or replaces what it holds.
#[utoipa::path(
    put, path = "/collections/{collection}/documents/{id}", tag = "documents", operation_id = "writeDocument",
    params(
        DocumentPath, Concern,
        ("If-Match" = Option<String>, Header, description = "The version that is replaced; * for any"),
        ("If-None-Match" = Option<String>, Header, description = "* to create only"),
    ),
    request_body(content = Object, description = "A JSON object"),
    responses(
        (status = 200, description = "It is replaced", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 201, description = "It is new", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Its path"),
        )),
        (status = 202, description = "It is on this peer's disk, and on those of fewer others than asked for in time", body = shape::Document, headers(
            ("ETag" = String, description = "Its version"), ("Location" = String, description = "Its path"),
        )),
        (status = 400, description = "The body is no JSON, nests too deep, or says a key twice; or preconditions clash"),
        (status = 403, description = "This peer may not write, or the collection is the system's"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 409, description = "Another document has its key of a unique index"),
        (status = 412, description = "The precondition does not hold"),
        (status = 413, description = "The body is larger than 1 MiB"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A name, an id or a value breaks a rule"),
    ),
)]
pub(super) async fn write(
    State(app): State<App>,
    Path(at): Path<DocumentPath>,
    Query(concern): Query<Concern>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (collection, id) = (concern.on(&app.peer.collection(&at.collection)?)?, at.id);
    let object = body::document(&headers, body).await?;
    let condition = etag::condition(&headers, || collection.get(&id))?;
    let (write, document) =
        collection.put_if(&id, Value::Object(object), condition).await.map_err(Problem::of_condition)?;
    Ok(written(write, &document))
}

/// Deletes a document.
#[utoipa::path(
    delete, path = "/collections/{collection}/documents/{id}", tag = "documents", operation_id = "deleteDocument",
    params(
        DocumentPath, Concern,
        ("If-Match" = Option<String>, Header, description = "The version that is deleted; * for any"),
    ),
    responses(
        (status = 200, description = "It is deleted, on as many other peers as asked for with w", body = shape::Deleted),
        (status = 202, description = "It is deleted, on fewer other peers than asked for in time", body = shape::Deleted),
        (status = 204, description = "It is deleted"),
        (status = 403, description = "This peer may not write, or the collection is the system's"),
        (status = 404, description = "There is no such document"),
        (status = 412, description = "The precondition does not hold"),
        (status = 422, description = "A name or an id breaks a rule"),
    ),
)]
pub(super) async fn delete(
    State(app): State<App>,
    Path(at): Path<DocumentPath>,
    Query(concern): Query<Concern>,
    headers: HeaderMap,
) -> Answer {
    let (collection, id) = (concern.on(&app.peer.collection(&at.collection)?)?, at.id);
    let condition = etag::condition(&headers, || collection.get(&id))?;
    if condition == Condition::Absent {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "If-None-Match: * makes no sense for a delete"));
    }
    let left = collection.delete_if(&id, condition).await.map_err(Problem::of_condition)?;
    Ok(match left.confirmation() {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(confirmation) => {
            let status = if confirmation.complete { StatusCode::OK } else { StatusCode::ACCEPTED };
            json(status, &shape::Deleted::new(confirmation))
        }
    })
}

/// How a listing is paged.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Documents of a page, or of all lines of an export.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<usize>,
    /// `next_cursor` of the page before.
    #[param(min_length = 2, max_length = 683, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    /// The id after which the page starts, in place of a cursor.
    #[param(min_length = 1, max_length = 512, pattern = r"^[^/\x00-\x1f\x7f-\x9f]+$")]
    start_after: Option<String>,
}

impl Paging {
    /// The id after which the page starts.
    ///
    /// # Errors
    /// For a cursor or an id that is none, and for both.
    pub(super) fn after(&self) -> Answer<Option<DocumentId>> {
        match (&self.cursor, &self.start_after) {
            (Some(_), Some(_)) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "cursor and start_after exclude each other; leave one out"))
            }
            (Some(cursor), None) => Ok(Some(shape::parse_cursor(cursor)?)),
            (None, Some(id)) => Ok(Some(id.parse().map_err(Error::from)?)),
            (None, None) => Ok(None),
        }
    }
}

/// A page of a collection, in the order of ids.
pub(super) async fn list(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    Query(paging): Query<Paging>,
) -> Answer {
    let collection = app.peer.collection(&at.collection)?;
    let limit = page_limit(paging.limit)?;
    let after = paging.after()?;
    let text = blocking(move || Ok(shape::listing(&collection.page(after.as_ref(), limit)?))).await?;
    Ok(json_text(StatusCode::OK, text))
}

/// The documents with places at which edits that did not know of each other left several values, in the order of ids.
///
/// Each says how many under `conflict_count`; `/documents/{id}/conflicts` shows them. A page may be empty before the
/// last one.
#[utoipa::path(
    get, path = "/collections/{collection}/conflicts", tag = "documents", operation_id = "collectionConflicts",
    params(CollectionPath, Paging),
    responses(
        (status = 200, description = "A page", body = shape::Page),
        (status = 400, description = "A parameter is malformed"),
        (status = 422, description = "A name, the cursor or the limit breaks a rule"),
    ),
)]
pub(super) async fn conflicting(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    Query(paging): Query<Paging>,
) -> Answer {
    let collection = app.peer.collection(&at.collection)?;
    let limit = page_limit(paging.limit)?;
    let after = paging.after()?;
    let text = blocking(move || Ok(shape::listing(&collection.conflicting(after.as_ref(), limit)?))).await?;
    Ok(json_text(StatusCode::OK, text))
}

fn tagged(status: StatusCode, document: &Document, tag: &ETag) -> Response {
    let mut response = json_text(status, shape::document(document));
    response.headers_mut().insert(ETAG, tag.header());
    response
}

/// The answer to a write that left a document.
pub(super) fn written(write: Write, document: &Document) -> Response {
    let complete = document.confirmation().is_none_or(|confirmation| confirmation.complete);
    let status = match write {
        _ if !complete => StatusCode::ACCEPTED,
        Write::Created => StatusCode::CREATED,
        Write::Replaced | Write::Unchanged | Write::Deleted => StatusCode::OK,
    };
    let mut response = tagged(status, document, &ETag::new(document.heads()));
    if status != StatusCode::OK {
        let location = format!(
            "/api/v1/collections/{}/documents/{}",
            path_segment(document.collection().as_str()),
            path_segment(document.id())
        );
        let location = HeaderValue::from_str(&location).expect("encoded segments fit a header");
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
