//! A whole collection as lines of JSON: `GET /collections/{c}/documents` with `Accept: application/x-ndjson`.
//!
//! Pages are read one after the other while they are sent, so that memory is bounded by a page, and nothing is
//! read that nobody takes, or for which there is no room among the answers that are on their way. There is no snapshot across pages: a document that is written meanwhile is shown as it
//! is when its page is read. Each is shown once at most, in the order of ids. Not here: JSON pages (`document`).

use std::io;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::super::budget::Room;
use super::super::problem::{Answer, Problem};
use super::super::{App, body, shape};
use super::document::{self, Paging};
use super::parameter::CollectionPath;
use super::{Path, Query, blocking, json_lines, stream_room};
use crate::Collection;
use crate::base::DocumentId;
use crate::limits::{PAGE_BYTES_MAX, PAGE_DOCUMENTS_MAX};

/// The documents of a collection, in the order of ids: a page, or all of them as lines for a client that asks for
/// those.
#[utoipa::path(
    get, path = "/collections/{collection}/documents", tag = "documents", operation_id = "listDocuments",
    params(
        CollectionPath, Paging,
        ("Accept" = Option<String>, Header, description = "application/x-ndjson for all documents, one a line with its _id"),
    ),
    responses(
        (status = 200, description = "A page, which may be shorter than limit when documents are large; or lines", content(
            (shape::Page = "application/json"),
            (Object = "application/x-ndjson"),
        )),
        (status = 400, description = "The query cannot be understood"),
        (status = 422, description = "A collection cannot have this name"),
    ),
)]
pub(super) async fn list(
    app: State<App>,
    collection: Path<CollectionPath>,
    paging: Query<Paging>,
    headers: HeaderMap,
) -> Answer {
    if !body::accepts_lines(&headers) {
        return document::list(app, collection, paging).await;
    }
    let Query(paging) = paging;
    let export = Export {
        collection: app.peer.collection(&collection.0.collection)?,
        after: paging.after()?,
        left: paging.limit.map_or(Ok(usize::MAX), export_limit)?,
        room: stream_room(&app)?,
    };
    // The first page now: what is in the way of it has a status.
    let (first, rest) = export.page(app.try_room(PAGE_BYTES_MAX)?).await?;
    let answers = app.shared.answers.clone();
    let rest = stream::try_unfold(rest, move |rest| {
        let answers = answers.clone();
        async move {
            let Some(export) = rest else { return Ok(None) };
            let page = export.page(answers.take(PAGE_BYTES_MAX).await).await;
            page.map(Some).map_err(|problem| io::Error::other(problem.detail))
        }
    });
    Ok(json_lines(stream::once(future::ready(Ok(first))).chain(rest)))
}

fn export_limit(limit: usize) -> Answer<usize> {
    if limit > 0 { Ok(limit) } else { Err(Problem::new(StatusCode::BAD_REQUEST, "limit is a number from 1 on")) }
}

/// What is still to be sent.
struct Export {
    collection: Collection,
    after: Option<DocumentId>,
    /// Documents at most.
    left: usize,
    room: OwnedSemaphorePermit,
}

impl Export {
    /// The next page as lines, in the room for it, and what comes after it.
    async fn page(self, mut of_page: Room) -> Answer<(Bytes, Option<Self>)> {
        let Self { collection, after, left, room } = self;
        let read = move || {
            let page = collection.page(after.as_ref(), left.min(PAGE_DOCUMENTS_MAX))?;
            if !page.damaged.is_empty() {
                let (name, damaged) = (collection.name(), page.damaged.len());
                tracing::warn!(
                    "an export of {name} leaves out {damaged} damaged documents; the sync status names them"
                );
            }
            let mut lines = Vec::with_capacity(page.documents.iter().map(|document| document.json().len() + 64).sum());
            page.documents.iter().for_each(|document| shape::write_line(&mut lines, document));
            let left = left - page.documents.len();
            let after = page.next.filter(|_| left > 0);
            let rest = after.map(|after| Self { collection, after: Some(after), left, room });
            of_page.shrink_to(lines.len());
            Ok((of_page.hold(lines.into()), rest))
        };
        blocking(read).await
    }
}
