//! Collections: `/collections` and `/collections/{c}`.

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::super::problem::{Answer, Problem};
use super::super::{App, body, shape};
use super::parameter::CollectionPath;
use super::{Path, Query, blocking, json, json_lines, page_limit, stream_room};
use crate::Error;
use crate::base::CollectionName;
use crate::document::Object;
use crate::peer::{Cleared, Collection};

/// How the list of collections is paged.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Collections of a page.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The collections with their counts, in the order of names: a page.
#[utoipa::path(
    get, path = "/collections", tag = "collections", operation_id = "listCollections",
    params(Paging),
    responses(
        (status = 200, description = "A page of them", body = shape::Collections),
        (status = 400, description = "The query cannot be understood"),
    ),
)]
pub(super) async fn list(State(app): State<App>, Query(paging): Query<Paging>) -> Answer {
    let limit = page_limit(paging.limit)?;
    let after: Option<CollectionName> = paging.cursor.as_deref().map(shape::parse_cursor).transpose()?;
    let (page, more) = blocking(move || app.peer.collections_after(after.as_ref(), limit)).await?;
    let next_cursor = page.last().filter(|_| more).map(|(last, _)| shape::cursor(last.as_str()));
    let collections = page.iter().map(shape::Collection::new).collect();
    Ok(json(StatusCode::OK, &shape::Collections { collections, next_cursor }))
}

/// One collection with its counts.
#[utoipa::path(
    get, path = "/collections/{collection}", tag = "collections", operation_id = "readCollection",
    params(CollectionPath),
    responses(
        (status = 200, description = "Its counts", body = shape::Collection),
        (status = 404, description = "There is no such collection"),
        (status = 422, description = "A collection cannot have this name"),
    ),
)]
pub(super) async fn show(State(app): State<App>, Path(at): Path<CollectionPath>) -> Answer {
    answer(app, StatusCode::OK, at.collection.parse().map_err(Error::from)?).await
}

async fn answer(app: App, status: StatusCode, name: CollectionName) -> Answer<Response> {
    let collection = app.peer.collection(name.as_str())?;
    match blocking(move || collection.counts()).await? {
        Some(counts) => Ok(json(status, &shape::Collection::new(&(name, counts)))),
        None => Err(Error::NotFound(format!("collection {name} does not exist")).into()),
    }
}

/// Makes an empty collection on this peer.
///
/// Nobody has to: a collection comes into being with its first document. Other peers have it from then on.
#[utoipa::path(
    put, path = "/collections/{collection}", tag = "collections", operation_id = "createCollection",
    params(CollectionPath),
    request_body(content = Option<shape::Policies>, description = "May be left out: an empty object. There are no policies yet"),
    responses(
        (status = 200, description = "It was there; its counts", body = shape::Collection),
        (status = 201, description = "It is made, and on the disk", body = shape::Collection),
        (status = 400, description = "The body is no JSON"),
        (status = 403, description = "The name belongs to the system, or this peer may not write"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A collection cannot have this name, there are too many, or the body names a policy"),
    ),
)]
pub(super) async fn create(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let policies: Object = body::arguments(&headers, body).await?;
    let collection = app.peer.collection(&at.collection)?;
    if let Some(policy) = policies.keys().next() {
        let detail = "policies of collections are not built yet: leave the body out, or send an empty object";
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        return Err(Problem { field: Some(policy.chars().take(40).collect()), ..problem });
    }
    let status = if collection.create().await? { StatusCode::CREATED } else { StatusCode::OK };
    answer(app, status, collection.name().clone()).await
}

/// Deletes every document of a collection, in the whole mesh.
///
/// Each is a delete of its own: an edit that another peer makes at the same time keeps its document alive, and what is
/// written meanwhile may stay. The collection stays listed, with no documents. When it breaks off, what was deleted is
/// deleted, and another call goes on. A client that asks for lines is told how far it came, each thousand documents; the
/// last line alone has a status, and what went wrong, if something did.
#[utoipa::path(
    delete, path = "/collections/{collection}", tag = "collections", operation_id = "dropCollection",
    params(
        CollectionPath,
        ("Accept" = Option<String>, Header, description = "application/x-ndjson for a line each thousand documents"),
    ),
    responses(
        (status = 200, description = "How many documents were deleted", content(
            (shape::Dropped = "application/json"),
            (Progress<'_> = "application/x-ndjson"),
        )),
        (status = 403, description = "It belongs to the system, or this peer may not write"),
        (status = 404, description = "There is no such collection"),
        (status = 422, description = "A collection cannot have this name"),
    ),
)]
pub(super) async fn drop(State(app): State<App>, Path(at): Path<CollectionPath>, headers: HeaderMap) -> Answer {
    let collection = app.peer.collection(&at.collection)?;
    let dropping = Dropping { room: stream_room(&app)?, clearing: collection.clearing()?.boxed(), collection, app };
    if body::accepts_lines(&headers) {
        return Ok(json_lines(dropping.lines()));
    }
    let dropped = dropping.finish().await?;
    Ok(json(StatusCode::OK, &shape::Dropped { deleted: dropped.deleted, damaged: dropped.damaged }))
}

/// The dropping of a collection.
struct Dropping {
    app: App,
    collection: Collection,
    clearing: BoxStream<'static, crate::Result<Cleared>>,
    #[expect(dead_code, reason = "it is held until the end")]
    room: OwnedSemaphorePermit,
}

impl Dropping {
    /// What became of the documents so far, after some more; `None` at the end.
    async fn next(&mut self) -> Option<Answer<Cleared>> {
        tokio::select! {
            cleared = self.clearing.next() => cleared.map(|cleared| cleared.map_err(Problem::from)),
            () = self.app.stopped() => {
                let detail = "the peer is shutting down; what was deleted is deleted, call again for the rest";
                Some(Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)))
            }
        }
    }

    async fn finish(mut self) -> Answer<Cleared> {
        let mut dropped = Cleared::default();
        while let Some(cleared) = self.next().await {
            dropped = cleared?;
        }
        Ok(dropped)
    }

    /// A line after some documents each, and one at the end.
    fn lines(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::unfold(Some((self, Cleared::default())), |dropping| async {
            let (mut dropping, so_far) = dropping?;
            let step = dropping.next().await;
            let cleared = step.as_ref().and_then(|step| step.as_ref().ok()).copied();
            let problem = step.and_then(Result::err);
            let dropped = cleared.unwrap_or(so_far);
            let status = cleared.is_none().then(|| problem.as_ref().map_or(StatusCode::OK, |problem| problem.status));
            let line = Progress {
                deleted: dropped.deleted,
                damaged: dropped.damaged,
                left: dropping.collection.count().unwrap_or_default(),
                status: status.map(|status| status.as_u16()),
                detail: problem.as_ref().map(|problem| &*problem.detail),
            };
            let mut line = serde_json::to_vec(&line).expect("numbers and texts are JSON");
            line.push(b'\n');
            Some((Ok(line.into()), cleared.map(|cleared| (dropping, cleared))))
        })
    }
}

/// How far the dropping of a collection came.
#[derive(Serialize, ToSchema)]
#[schema(as = DropProgress)]
struct Progress<'a> {
    deleted: u64,
    /// As in the answer to a client that does not ask for lines.
    damaged: u64,
    /// Documents that are in the collection now.
    left: u64,
    /// In the last line alone: 200 when it came to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// In the last line, when it broke off: why, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}
