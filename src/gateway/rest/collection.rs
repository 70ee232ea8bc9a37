//! Collections: `/collections` and `/collections/{c}`.

use axum::extract::State;
use axum::http::StatusCode;

use super::super::problem::Answer;
use super::super::{App, shape};
use super::{Path, blocking, json};
use crate::Error;
use crate::base::CollectionName;

/// Every collection with its counts, in the order of names.
pub(super) async fn list(State(app): State<App>) -> Answer {
    let collections = blocking(move || app.peer.collections()).await?;
    let collections = collections.iter().map(shape::Collection::new).collect();
    Ok(json(StatusCode::OK, &shape::Collections { collections }))
}

/// One collection with its counts.
pub(super) async fn show(State(app): State<App>, Path(collection): Path<String>) -> Answer {
    let name: CollectionName = collection.parse().map_err(Error::from)?;
    let collections = blocking(move || app.peer.collections()).await?;
    match collections.iter().find(|(other, _)| *other == name) {
        Some(found) => Ok(json(StatusCode::OK, &shape::Collection::new(found))),
        None => Err(Error::NotFound(format!("collection {name} does not exist")).into()),
    }
}
