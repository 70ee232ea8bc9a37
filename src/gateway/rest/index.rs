//! Indexes: `/collections/{c}/indexes` and `/collections/{c}/indexes/{name}`.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::problem::Answer;
use super::super::{App, body, query_shape};
use super::parameter::CollectionPath;
use super::search::present;
use super::{Path, Query, blocking, json, page_limit};
use crate::Error;
use crate::index::{Definition, IndexName};
use crate::peer::{Collection, Declared, IndexReport};

/// An index in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct IndexPath {
    /// The collection's name.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", example = "notes")]
    collection: String,
    /// The index's name.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_.-]+$", example = "by-name")]
    name: String,
}

/// How many are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Conflicts, from 1 to 1,000; 100 when left out.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
}

/// The indexes of a collection on this peer, in the order of names, and how far each is.
#[utoipa::path(
    get, path = "/collections/{collection}/indexes", tag = "queries", operation_id = "listIndexes",
    params(CollectionPath),
    responses(
        (status = 200, description = "All of them", body = query_shape::Indexes),
        (status = 404, description = "There is no such collection, and no index is declared for it"),
        (status = 422, description = "A collection cannot have this name"),
    ),
)]
pub(super) async fn list(State(app): State<App>, Path(at): Path<CollectionPath>) -> Answer {
    let collection = present(&app, &at).await?;
    let indexes = blocking(move || collection.indexes()).await?;
    let indexes = indexes.iter().map(query_shape::IndexState::new).collect();
    Ok(json(StatusCode::OK, &query_shape::Indexes { indexes }))
}

/// One index.
#[utoipa::path(
    get, path = "/collections/{collection}/indexes/{name}", tag = "queries", operation_id = "readIndex",
    params(IndexPath),
    responses(
        (status = 200, description = "The index", body = query_shape::IndexState),
        (status = 404, description = "There is no such index"),
        (status = 422, description = "A name breaks a rule"),
    ),
)]
pub(super) async fn show(State(app): State<App>, Path(at): Path<IndexPath>) -> Answer {
    let index = named(app.peer.collection(&at.collection)?, &at.name.parse()?).await?;
    Ok(json(StatusCode::OK, &query_shape::IndexState::new(&index)))
}

/// The index of a name.
async fn named(collection: Collection, name: &IndexName) -> Answer<IndexReport> {
    let of = collection.name().clone();
    let indexes = blocking(move || collection.indexes()).await?;
    let found = indexes.into_iter().find(|index| index.name == *name);
    Ok(found.ok_or_else(|| Error::NotFound(format!("collection {of} has no index {name}")))?)
}

/// Declares an index of this peer. It is filled in the background, and used by queries when it is ready.
///
/// One that has the name and is declared differently is replaced. A unique index refuses writes on this peer that give
/// two documents the same key; what peers write while they are apart cannot be refused, and is listed as a conflict.
#[utoipa::path(
    put, path = "/collections/{collection}/indexes/{name}", tag = "queries", operation_id = "putIndex",
    params(IndexPath),
    request_body(content = query_shape::IndexDeclaration),
    responses(
        (status = 200, description = "It was declared so already, or took the place of another one, as outcome says",
            body = query_shape::IndexState),
        (status = 201, description = "It is new, and being filled", body = query_shape::IndexState),
        (status = 400, description = "The body is no JSON"),
        (status = 403, description = "The collection belongs to the system"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "The declaration or a name breaks a rule, or there are too many indexes"),
    ),
)]
pub(super) async fn put(State(app): State<App>, Path(at): Path<IndexPath>, headers: HeaderMap, body: Body) -> Answer {
    let definition = Definition::parse(&body::object(&headers, body).await?.into())?;
    let (collection, name): (_, IndexName) = (app.peer.collection(&at.collection)?, at.name.parse()?);
    let declared = collection.put_index(name.clone(), definition).await?;
    let status = if declared == Declared::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &query_shape::IndexState::declared(&named(collection, &name).await?, declared)))
}

/// Drops an index.
#[utoipa::path(
    delete, path = "/collections/{collection}/indexes/{name}", tag = "queries", operation_id = "dropIndex",
    params(IndexPath),
    responses(
        (status = 204, description = "It is dropped"),
        (status = 403, description = "The collection belongs to the system"),
        (status = 404, description = "There is no such index"),
        (status = 422, description = "A name breaks a rule"),
    ),
)]
pub(super) async fn drop(State(app): State<App>, Path(at): Path<IndexPath>) -> Answer {
    app.peer.collection(&at.collection)?.drop_index(at.name.parse()?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Documents that have the same key of a unique index, because peers wrote them while they were apart.
///
/// The winner is the one that was created first, the same on every peer. Nothing is done to the others: change or delete
/// them, and the conflict is gone.
#[utoipa::path(
    get, path = "/collections/{collection}/indexes/{name}/conflicts", tag = "queries", operation_id = "keyConflicts",
    params(IndexPath, Wanted),
    responses(
        (status = 200, description = "The conflicts, in the order of keys", body = query_shape::KeyConflicts),
        (status = 400, description = "The limit is out of bounds"),
        (status = 404, description = "There is no such index"),
        (status = 422, description = "A name breaks a rule"),
    ),
)]
pub(super) async fn conflicts(
    State(app): State<App>,
    Path(at): Path<IndexPath>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let limit = page_limit(wanted.limit)?;
    let collection = present(&app, &CollectionPath { collection: at.collection }).await?;
    let conflicts = collection.index_conflicts(at.name.parse()?, limit).await?;
    Ok(json(StatusCode::OK, &query_shape::KeyConflicts::new(&conflicts)))
}
