//! Collections: `/collections` and `/collections/{c}`.

use axum::extract::State;
use axum::http::StatusCode;

use super::super::problem::Answer;
use super::super::{App, shape};
use super::parameter::CollectionPath;
use super::{Path, blocking, json};
use crate::Error;
use crate::base::CollectionName;

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
    let name: CollectionName = at.collection.parse().map_err(Error::from)?;
    let collections = blocking(move || app.peer.collections()).await?;
    match collections.iter().find(|(other, _)| *other == name) {
        Some(found) => Ok(json(StatusCode::OK, &shape::Collection::new(found))),
        None => Err(Error::NotFound(format!("collection {name} does not exist")).into()),
    }
}
