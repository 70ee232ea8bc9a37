//! Documents: `/collections/{c}/documents` and `/collections/{c}/documents/{id}`.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::super::etag::{self, ETag};
use super::super::problem::{Answer, Problem};
use super::super::{App, body, path_segment, shape};
use super::{Path, Query, blocking, json_text};
use crate::limits::PAGE_DOCUMENTS_MAX;
use crate::node::Write;
use crate::peer::Document;
use crate::{Condition, Error, Invalid, InvalidKind};

/// Documents of a page when the client does not say.
const PAGE_DOCUMENTS: usize = 100;

/// Writes a new document.
pub(super) async fn create(
    State(app): State<App>,
    Path(collection): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let collection = app.peer.collection(&collection)?;
    let object = body::document(&headers, body).await?;
    let document = collection.insert(Value::Object(object)).await?;
    Ok(created(&document))
}

/// Reads a document: this peer's replica and nothing else.
pub(super) async fn read(
    State(app): State<App>,
    Path((collection, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let collection = app.peer.collection(&collection)?;
    let Some(document) = collection.get(&id)? else {
        return Err(Error::NotFound(format!("document {}/{id} does not exist", collection.name())).into());
    };
    let tag = ETag::new(document.heads());
    if etag::is_known(&headers, &tag)? {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag.header())]).into_response());
    }
    Ok(tagged(StatusCode::OK, &document, &tag))
}

/// Creates a document or replaces what it holds.
pub(super) async fn write(
    State(app): State<App>,
    Path((collection, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let collection = app.peer.collection(&collection)?;
    let object = body::document(&headers, body).await?;
    let condition = etag::condition(&headers, || collection.get(&id))?;
    let (write, document) =
        collection.put_if(&id, Value::Object(object), condition).await.map_err(Problem::of_condition)?;
    Ok(match write {
        Write::Created => created(&document),
        Write::Replaced | Write::Unchanged | Write::Deleted => {
            tagged(StatusCode::OK, &document, &ETag::new(document.heads()))
        }
    })
}

/// Deletes a document.
pub(super) async fn delete(
    State(app): State<App>,
    Path((collection, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let collection = app.peer.collection(&collection)?;
    let condition = etag::condition(&headers, || collection.get(&id))?;
    if condition == Condition::Absent {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "If-None-Match: * makes no sense for a delete"));
    }
    collection.delete_if(&id, condition).await.map_err(Problem::of_condition)?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a listing is paged.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// A page of a collection, in the order of ids.
pub(super) async fn list(
    State(app): State<App>,
    Path(collection): Path<String>,
    Query(paging): Query<Paging>,
) -> Answer {
    let collection = app.peer.collection(&collection)?;
    let limit = paging.limit.unwrap_or(PAGE_DOCUMENTS);
    if !(1..=PAGE_DOCUMENTS_MAX).contains(&limit) {
        return Err(limit_out_of_range());
    }
    let after = paging.cursor.as_deref().map(shape::parse_cursor).transpose()?;
    let text = blocking(move || Ok(shape::listing(&collection.page(after.as_ref(), limit)?))).await?;
    Ok(json_text(StatusCode::OK, text))
}

fn limit_out_of_range() -> Problem {
    let message = format!("limit is a number from 1 to {PAGE_DOCUMENTS_MAX}");
    Invalid { message, field: Some("limit".into()), position: None, kind: InvalidKind::Syntax }.into()
}

fn tagged(status: StatusCode, document: &Document, tag: &ETag) -> Response {
    let mut response = json_text(status, shape::document(document));
    response.headers_mut().insert(ETAG, tag.header());
    response
}

fn created(document: &Document) -> Response {
    let mut response = tagged(StatusCode::CREATED, document, &ETag::new(document.heads()));
    let location = format!(
        "/api/v1/collections/{}/documents/{}",
        path_segment(document.collection().as_str()),
        path_segment(document.id())
    );
    let location = HeaderValue::from_str(&location).expect("encoded segments fit a header");
    response.headers_mut().insert(LOCATION, location);
    response
}
