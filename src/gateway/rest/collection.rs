//! Collections: `/collections` and `/collections/{c}`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::super::problem::{Answer, Problem};
use super::super::{App, body, shape};
use super::parameter::CollectionPath;
use super::{Path, blocking, json, stream_room};
use crate::Error;
use crate::base::CollectionName;
use crate::document::Object;

/// Every collection with its counts, in the order of names.
#[utoipa::path(
    get, path = "/collections", tag = "collections", operation_id = "listCollections",
    responses((status = 200, description = "All of them", body = shape::Collections)),
)]
pub(super) async fn list(State(app): State<App>) -> Answer {
    let collections = blocking(move || app.peer.collections()).await?;
    let collections = collections.iter().map(shape::Collection::new).collect();
    Ok(json(StatusCode::OK, &shape::Collections { collections }))
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
    request_body(content = shape::Policies, description = "May be left out: an empty object. There are no policies yet"),
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
/// deleted, and another call goes on.
#[utoipa::path(
    delete, path = "/collections/{collection}", tag = "collections", operation_id = "dropCollection",
    params(CollectionPath),
    responses(
        (status = 200, description = "How many documents were deleted", body = shape::Dropped),
        (status = 403, description = "It belongs to the system, or this peer may not write"),
        (status = 404, description = "There is no such collection"),
        (status = 422, description = "A collection cannot have this name"),
    ),
)]
pub(super) async fn drop(State(app): State<App>, Path(at): Path<CollectionPath>) -> Answer {
    let collection = app.peer.collection(&at.collection)?;
    let _room = stream_room(&app)?;
    tokio::select! {
        cleared = collection.clear() => {
            let cleared = cleared?;
            Ok(json(StatusCode::OK, &shape::Dropped { deleted: cleared.deleted, damaged: cleared.damaged }))
        }
        () = app.stopped() => {
            let detail = "the peer is shutting down; what was deleted is deleted, call again for the rest";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}
