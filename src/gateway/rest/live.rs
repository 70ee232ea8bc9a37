//! Live queries as server-sent events: the result, and what of it changes.
//!
//! | event | data |
//! |---|---|
//! | `result` | `{"documents": [..]}`: begin with these; with `"collection_exists": false` there is no such collection yet |
//! | `resumed` | `{}`: nothing has changed since the last event of the stream that broke; go on with what you have |
//! | `enter`, `change` | `{"at": 3, "id": "..", "document": {..}, "conflict_count": 0}` |
//! | `leave` | `{"at": 3, "id": ".."}` |
//! | `move` | `{"from": 3, "to": 1, "id": "..", "document": {..}, "conflict_count": 0}`: taken out first, then put in |
//!
//! The last event of each change has the feed's cursor behind it as its id. A reader that takes nothing for long is cut
//! off, and its connection with it, so that nothing is kept for it; it starts again with a `result`, unless nothing has
//! changed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use tokio::time::timeout;

use super::super::App;
use super::super::problem::{Answer, Problem};
use super::super::seat::Cut;
use super::search::Asked;
use crate::FeedCursor;
use crate::limits::GATEWAY_SMALL_BYTES;
use crate::peer::{Collection, LiveChange, LiveQuery, TimeLimit};
use crate::query::Find;

/// How often a stream says that it is alive, so that what is in between does not close it.
const ALIVE: Duration = Duration::from_secs(15);
/// Milliseconds after which a browser connects again.
const RETRY_MS: u64 = 1_000;

/// Answers with a stream.
pub(super) async fn stream(
    app: &App,
    Asked { collection, missing }: Asked,
    find: Find,
    limit: TimeLimit,
    headers: &HeaderMap,
) -> Answer {
    let room = app.shared.live.clone().try_acquire_owned();
    let room =
        room.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many live queries at a time; close some"))?;
    let last = headers.get("last-event-id").and_then(|last| last.to_str().ok()?.parse().ok());
    let mut query = collection.live(find, limit).await?;
    let first = begun(app, &collection, &mut query, last, missing)?;
    let cut = Cut(query.cut());
    let rest = stream::unfold((query, room), |(mut query, room)| async move {
        let pieces = match timeout(ALIVE, query.next()).await {
            Ok(change) => changed(&change?),
            Err(_) => [Bytes::from_static(b": alive\n\n")].into(),
        };
        Some((pieces, (query, room)))
    });
    let pieces = stream::once(future::ready(first)).chain(rest).flat_map(stream::iter);
    let body = Body::from_stream(pieces.map(Ok::<_, Infallible>));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Extension(cut), body).into_response())
}

/// The first event: the result, or that nothing has changed since the reader heard last.
fn begun(
    app: &App,
    collection: &Collection,
    query: &mut LiveQuery,
    last: Option<FeedCursor>,
    missing: bool,
) -> Answer<VecDeque<Bytes>> {
    let is_unchanged = |since| {
        let changes = collection.changes(Some(since), "", 1);
        changes.is_ok_and(|changes| changes.documents.is_empty() && changes.complete)
    };
    let (cursor, documents) = (query.cursor, std::mem::take(&mut query.documents));
    if last.is_some_and(is_unchanged) {
        let resumed = format!("retry: {RETRY_MS}\nevent: resumed\nid: {cursor}\ndata: {{}}\n\n");
        return Ok([resumed.into()].into());
    }
    let mut text = Pieces::default();
    text.add(format!("retry: {RETRY_MS}\nevent: result\nid: {cursor}\ndata: {{\"documents\":[").into());
    for (index, document) in documents.into_iter().enumerate() {
        if index > 0 {
            text.add(Bytes::from_static(b","));
        }
        text.add(document);
    }
    let end: &[u8] = if missing { b"],\"collection_exists\":false}\n\n" } else { b"]}\n\n" };
    text.add(Bytes::from_static(end));
    let mut pieces = text.finish();
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    if bytes > GATEWAY_SMALL_BYTES {
        let room = app.try_room(bytes)?;
        // The last one keeps it until all are gone.
        let last = pieces.pop_back().unwrap_or_default();
        pieces.push_back(room.hold(last));
    }
    Ok(pieces)
}

/// The events of one change. Texts of documents are not copied: other readers hear of them as well.
fn changed(change: &LiveChange) -> VecDeque<Bytes> {
    let mut text = Pieces::default();
    for (index, event) in change.events.iter().enumerate() {
        if index + 1 == change.events.len() {
            text.add(format!("id: {}\n", change.cursor).into());
        }
        let mut places = event.places().to_string();
        let end = if let Some(document) = event.document() {
            // In front of the brace that ends it.
            places.pop();
            text.add(format!("event: {}\ndata: {places},\"document\":", event.name()).into());
            text.add(document.clone());
            "}\n\n"
        } else {
            text.add(format!("event: {}\ndata: {places}", event.name()).into());
            "\n\n"
        };
        text.add(Bytes::from_static(end.as_bytes()));
    }
    text.finish().into_iter().map(|piece| change.hold(piece)).collect()
}

/// A text in pieces: what is small is put together, what is large is left where it is.
#[derive(Debug, Default)]
struct Pieces {
    whole: VecDeque<Bytes>,
    small: Vec<u8>,
}

impl Pieces {
    fn add(&mut self, text: Bytes) {
        if text.len() <= GATEWAY_SMALL_BYTES {
            self.small.extend_from_slice(&text);
            return;
        }
        self.end_small();
        self.whole.push_back(text);
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.small).into());
        }
    }

    fn finish(mut self) -> VecDeque<Bytes> {
        self.end_small();
        self.whole
    }
}
