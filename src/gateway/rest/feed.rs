//! The feed of a collection: `/collections/{c}/changes`, as a page or as a stream of server-sent events.
//!
//! A stream reads the feed from the store, a bounded part at a time, and only when the connection takes more: a
//! slow reader costs no memory and misses nothing. One that takes nothing for a while is cut off by its connection
//! (`patience`); each event carries the cursor with which it goes on (`Last-Event-ID`). The guard ends streams when
//! the gateway stops.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::{StreamExt, future, stream};
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;

use super::super::budget::Budget;
use super::super::problem::{Answer, Problem};
use super::super::{App, feed_shape};
use super::parameter::CollectionPath;
use super::{Path, Query, blocking, json_text, page_limit};
use crate::limits::PAGE_BYTES_MAX;
use crate::peer::{Collection, Feed};
use crate::{Error, FeedCursor, Invalid, InvalidKind};

/// How often a stream says that it is alive, so that what is in between does not close it.
const ALIVE: Duration = Duration::from_secs(15);
/// Milliseconds after which a browser connects again.
const RETRY_MS: u64 = 1_000;

/// What part of a feed is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// The cursor behind the last change that is known; `now` for what changes from now on. From the beginning
    /// when left out.
    #[param(pattern = "^(now|[A-Za-z0-9_-]{23})$")]
    since: Option<String>,
    /// Whether to stay and send what changes, as server-sent events.
    #[serde(default)]
    live: bool,
    /// Changes of a page, from 1 to 1,000, fewer when documents are large; 100 when left out.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
    /// Only documents whose ids start so.
    #[serde(default)]
    id_prefix: String,
    /// Whether to send what the documents hold.
    #[serde(default = "yes")]
    data: bool,
}

fn yes() -> bool {
    true
}

/// What changed in a collection: each document once, at its last change, in the order of these changes. A
/// deleted document comes as such. The feed has no retention: any cursor of this peer stays good, until the peer
/// joins another mesh or loses writes in a power cut.
#[utoipa::path(
    get, path = "/collections/{collection}/changes", tag = "documents", operation_id = "changes",
    params(
        CollectionPath, Wanted,
        ("Last-Event-ID" = Option<String>, Header, description = "Goes before since: the last event of a stream that broke"),
    ),
    responses(
        (status = 200, description = "A page, or with live=true a stream: events named change, each with the change as \
            its data and the cursor behind it as its id", content(
            (feed_shape::FeedPage = "application/json"),
            (feed_shape::StreamEvent = "text/event-stream"),
        )),
        (status = 400, description = "A parameter is malformed"),
        (status = 410, description = "The cursor is of no use any more; start again without it"),
        (status = 422, description = "A name or the cursor breaks a rule"),
        (status = 503, description = "Too many streams at a time"),
    ),
)]
pub(super) async fn changes(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Answer {
    let collection = app.peer.collection(&at.collection)?;
    let since = since(&collection, &wanted, &headers)?;
    if wanted.live && wanted.limit.is_some() {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "a live feed has no limit; leave one of the two out"));
    }
    if wanted.live {
        return live(&app, collection, since, wanted);
    }
    let limit = page_limit(wanted.limit)?;
    let page = blocking(move || {
        let missing = !collection.exists()?;
        let changes = collection.changes(since, &wanted.id_prefix, limit)?;
        Ok(feed_shape::page(&changes, wanted.data, missing))
    });
    Ok(json_text(StatusCode::OK, page.await.map_err(gone)?))
}

fn since(collection: &Collection, wanted: &Wanted, headers: &HeaderMap) -> Answer<Option<FeedCursor>> {
    let last = headers.get("last-event-id").map(|last| last.to_str().unwrap_or_default());
    match last.or(wanted.since.as_deref()) {
        None => Ok(None),
        Some("now") => Ok(Some(collection.now())),
        Some(text) => text.parse().map(Some).map_err(|error: Error| {
            Invalid {
                message: error.to_string(),
                field: Some("since".into()),
                position: None,
                kind: InvalidKind::Meaning,
            }
            .into()
        }),
    }
}

/// A cursor that leads nowhere any more.
fn gone(problem: Problem) -> Problem {
    if problem.status == StatusCode::NOT_FOUND { Problem { status: StatusCode::GONE, ..problem } } else { problem }
}

fn live(app: &App, collection: Collection, since: Option<FeedCursor>, wanted: Wanted) -> Answer {
    let room = app.shared.feeds.clone().try_acquire_owned();
    let room = room.map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many live feeds at a time; close some, or ask for pages")
    })?;
    let start = collection.start();
    // Tells of a cursor that is of no use while there is a status to do so.
    collection.changes(since, "", 1).map_err(|error| gone(error.into()))?;
    let feed = collection.watch_from(since.unwrap_or(start), &wanted.id_prefix);
    // Whoever comes back before anything has changed goes on from here, too.
    let first = Bytes::from(format!("retry: {RETRY_MS}\nid: {}\n: connected\n\n", feed.cursor()));
    let answers = app.shared.answers.clone();
    let rest = stream::unfold((feed, room), move |(mut feed, room)| {
        let answers = answers.clone();
        async move {
            let chunk = next(&mut feed, &answers, wanted.data).await?;
            Some((chunk, (feed, room)))
        }
    });
    let body = stream::once(future::ready(first)).chain(rest).map(Ok::<_, Infallible>);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// What changed, or after a while that nothing did; `None` when the feed ends with its peer.
async fn next(feed: &mut Feed, answers: &Budget, data: bool) -> Option<Bytes> {
    match timeout(ALIVE, changed(feed, answers, data)).await {
        Ok(Ok(events)) => Some(events),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a live feed ends");
            None
        }
        Err(_) => Some(Bytes::from_static(b": alive\n\n")),
    }
}

/// The events of what changed, once something has. They are read when there is room for them.
async fn changed(feed: &mut Feed, answers: &Budget, data: bool) -> crate::Result<Bytes> {
    loop {
        let mut room = answers.take(PAGE_BYTES_MAX).await;
        if let Some(changes) = feed.take()? {
            let events = feed_shape::events(&changes, data);
            room.shrink_to(events.len());
            return Ok(room.hold(events));
        }
        drop(room);
        feed.ready().await?;
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::super::super::tests::Client;
    use super::*;

    /// A stream as a browser reads it.
    struct Reader {
        body: Body,
        read: String,
    }

    impl Reader {
        async fn new(client: &Client, query: &str, last: &str) -> Self {
            let request = Request::builder()
                .uri(format!("/api/v1/collections/notes/changes?live=true{query}"))
                .header("host", "localhost");
            let request = if last.is_empty() { request } else { request.header("last-event-id", last) };
            let response = client.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
            Self { body: response.into_body(), read: String::new() }
        }

        /// The next event: its id and its data.
        async fn next(&mut self) -> (String, Value) {
            loop {
                while let Some((event, rest)) = self.read.split_once("\n\n") {
                    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                    let found = field("id: ").zip(field("data: "));
                    self.read = rest.to_owned();
                    if let Some((id, data)) = found {
                        return (id, serde_json::from_str(&data).unwrap());
                    }
                }
                let frame = timeout(ALIVE, self.body.frame()).await.expect("an event comes").unwrap().unwrap();
                self.read.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            }
        }
    }

    #[tokio::test]
    async fn a_stream_goes_on_where_another_broke_and_misses_nothing() {
        let client = Client::new().await;
        let notes = client.peer.collection("notes").unwrap();
        notes.put("a", json!({"n": 1})).await.unwrap();
        let mut stream = Reader::new(&client, "", "").await;
        let (first, change) = stream.next().await;
        assert_eq!(
            (&change["id"], &change["deleted"], &change["data"]),
            (&json!("a"), &json!(false), &json!({"n": 1}))
        );
        notes.put("b", json!({"n": 2})).await.unwrap();
        assert_eq!(stream.next().await.1["id"], "b");
        drop(stream);
        notes.delete("a").await.unwrap();
        let mut stream = Reader::new(&client, "&since=now", &first).await;
        assert_eq!(stream.next().await.1["id"], "b");
        let change = stream.next().await.1;
        assert_eq!((&change["id"], &change["deleted"]), (&json!("a"), &json!(true)));
        let mut only = Reader::new(&client, "&since=now&id_prefix=x&data=false", "").await;
        for id in ["y", "x1"] {
            notes.put(id, json!({})).await.unwrap();
        }
        let change = only.next().await.1;
        assert_eq!((&change["id"], change.get("data")), (&json!("x1"), None));
        client.peer.shutdown().await;
        assert!(only.body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_broke_before_anything_changed_goes_on_where_it_began() {
        let client = Client::new().await;
        let notes = client.peer.collection("notes").unwrap();
        notes.put("a", json!({})).await.unwrap();
        let mut stream = Reader::new(&client, "&since=now", "").await;
        let frame = stream.body.frame().await.unwrap().unwrap().into_data().unwrap();
        let id = std::str::from_utf8(&frame).unwrap().lines().find_map(|line| line.strip_prefix("id: "));
        drop(stream);
        notes.put("b", json!({})).await.unwrap();
        let mut stream = Reader::new(&client, "&since=now", id.expect("it says where it begins")).await;
        assert_eq!(stream.next().await.1["id"], "b");
        client.peer.shutdown().await;
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_holds_up_nobody_and_can_go_on() {
        let client = Client::new().await;
        let notes = client.peer.collection("notes").unwrap();
        let mut slow = Reader::new(&client, "", "").await;
        for round in 0..3 {
            for n in 0..300 {
                notes.put(&format!("n{n}"), json!({ "round": round })).await.unwrap();
            }
        }
        let (mut last, mut seen) = (String::new(), std::collections::BTreeMap::new());
        while seen.len() < 300 || seen.values().any(|round| *round != json!(2)) {
            let (id, change) = slow.next().await;
            assert_ne!(id, last);
            last = id;
            seen.insert(change["id"].to_string(), change["data"]["round"].clone());
        }
        client.peer.shutdown().await;
    }
}
