//! Live queries as server-sent events: the result, and what of it changes.
//!
//! | event | data |
//! |---|---|
//! | `result` | `{"documents": [..]}`: begin with these |
//! | `resumed` | `{}`: nothing has changed since the last event of the stream that broke; go on with what you have |
//! | `enter`, `change` | `{"at": 3, "id": "..", "document": {..}, "conflict_count": 0}` |
//! | `leave` | `{"at": 3, "id": ".."}` |
//! | `move` | `{"from": 3, "to": 1, "id": "..", "document": {..}, "conflict_count": 0}`: taken out first, then put in |
//!
//! The last event of each change has the feed's cursor behind it as its id. A reader that takes nothing for long is cut
//! off; it starts again with a `result`, unless nothing has changed.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use tokio::time::timeout;

use super::super::App;
use super::super::problem::{Answer, Problem};
use crate::FeedCursor;
use crate::peer::{Collection, LiveChange, LiveQuery, TimeLimit};
use crate::query::Find;

/// How often a stream says that it is alive, so that what is in between does not close it.
const ALIVE: Duration = Duration::from_secs(15);
/// Milliseconds after which a browser connects again.
const RETRY_MS: u64 = 1_000;

/// Answers with a stream.
pub(super) async fn stream(
    app: &App,
    collection: Collection,
    find: Find,
    limit: TimeLimit,
    headers: &HeaderMap,
) -> Answer {
    let room = app.shared.live.clone().try_acquire_owned();
    let room =
        room.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many live queries at a time; close some"))?;
    let last = headers.get("last-event-id").and_then(|last| last.to_str().ok()?.parse().ok());
    let query = collection.live(find, limit).await?;
    let first = begun(&collection, &query, last);
    let rest = stream::unfold((query, room), |(mut query, room)| async move {
        let chunk = match timeout(ALIVE, query.next()).await {
            Ok(change) => changed(&change?),
            Err(_) => Bytes::from_static(b": alive\n\n"),
        };
        Some((chunk, (query, room)))
    });
    let body = stream::once(future::ready(first)).chain(rest).map(Ok::<_, Infallible>);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// The first event: the result, or that nothing has changed since the reader heard last.
fn begun(collection: &Collection, query: &LiveQuery, last: Option<FeedCursor>) -> Bytes {
    let is_unchanged = |since| {
        let changes = collection.changes(Some(since), "", 1);
        changes.is_ok_and(|changes| changes.documents.is_empty() && changes.complete)
    };
    let cursor = query.cursor;
    if last.is_some_and(is_unchanged) {
        return format!("retry: {RETRY_MS}\nevent: resumed\nid: {cursor}\ndata: {{}}\n\n").into();
    }
    let mut text = format!("retry: {RETRY_MS}\nevent: result\nid: {cursor}\ndata: {{\"documents\":[").into_bytes();
    for (index, document) in query.documents.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(document);
    }
    text.extend_from_slice(b"]}\n\n");
    text.into()
}

/// The events of one change.
fn changed(change: &LiveChange) -> Bytes {
    let mut text = String::new();
    for (index, event) in change.events.iter().enumerate() {
        if index + 1 == change.events.len() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "id: {}", change.cursor);
        }
        let _ = write!(text, "event: {}\ndata: {}\n\n", event.name(), event.to_json());
    }
    text.into()
}
