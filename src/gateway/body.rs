//! Reading a request's body: its type, its size, its time, and then the strict parser.
//!
//! The guard gathers a body before it lets the request in, so that a slow one holds nothing but itself. Those that are
//! streams, and those that say beforehand that they are too large, go to their handlers as they are.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::budget::{Budget, Room};
use super::problem::{Answer, Problem};
use crate::document::{Object, json};
use crate::limits::{DOCUMENT_BYTES_MAX, GATEWAY_SMALL_BYTES};

/// Seconds within which a body must be here: a document over the slowest link, not a client that holds a slot.
/// Tests await the answer to a body that never comes.
const BODY_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
/// How long nothing of a body may come that has taken room.
const BODY_SILENCE: Duration = Duration::from_secs(5);
/// The names of NDJSON; none is registered, the first is the most common one.
pub(super) const LINES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];

/// Reads a document.
///
/// # Errors
/// 415 for another type, 413 when it is too large, 408 when it is too slow, 400 and 422 as the parser finds.
pub(super) async fn document(headers: &HeaderMap, body: Body) -> Answer<Object> {
    let bytes = read(headers, body).await?;
    Ok(json::parse_document(&bytes)?)
}

/// Reads an object; an empty body is an empty one.
///
/// # Errors
/// As [`document`].
pub(super) async fn object(headers: &HeaderMap, body: Body) -> Answer<Object> {
    let bytes = read(headers, body).await?;
    if bytes.is_empty() { Ok(Object::new()) } else { Ok(json::parse_document(&bytes)?) }
}

/// Reads any JSON; `None` for an empty body.
///
/// # Errors
/// As [`document`].
pub(super) async fn optional(headers: &HeaderMap, body: Body) -> Answer<Option<Value>> {
    let bytes = read(headers, body).await?;
    if bytes.is_empty() { Ok(None) } else { Ok(Some(json::parse(&bytes)?)) }
}

/// Reads any JSON.
///
/// # Errors
/// As [`document`].
pub(super) async fn value(headers: &HeaderMap, body: Body) -> Answer<Value> {
    let bytes = read(headers, body).await?;
    Ok(json::parse(&bytes)?)
}

/// Reads the arguments of a call; an empty body is an empty object.
///
/// # Errors
/// As [`document`], and 422 for fields that the call does not know.
pub(super) async fn arguments<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Answer<T> {
    let object = object(headers, body).await?;
    let wrong = |error: serde_json::Error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    serde_json::from_value(Value::Object(object)).map_err(wrong)
}

async fn read(headers: &HeaderMap, body: Body) -> Answer<Bytes> {
    check_type(headers)?;
    // Who says it beforehand need not send it.
    if is_too_large(&body) {
        return Err(too_large());
    }
    // It is here already (`gather`).
    let collected = body.collect().await.map_err(|_| broke_off())?;
    Ok(collected.to_bytes())
}

/// A body that is here as a whole, with the room that it takes.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: BytesMut,
    room: Option<Room>,
}

/// Waits until a body is here. When its begin shows that it is not small it takes room for all of it first, and waits for
/// that: were each to take room as it comes, those that are half here could wait for each other.
///
/// # Errors
/// 413 when it is too large, 408 when it is too slow, 400 when it breaks off, 503 when others take all the room for long.
pub(super) async fn gather(mut body: Body, budget: &Budget) -> Answer<Gathered> {
    let mut gathered = Gathered::default();
    let declared = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    let whole = declared.unwrap_or(DOCUMENT_BYTES_MAX).min(DOCUMENT_BYTES_MAX);
    let mut deadline = Instant::now() + BODY_TIMEOUT;
    loop {
        // Who takes room has to use it.
        let silence = if gathered.room.is_some() { BODY_SILENCE } else { BODY_TIMEOUT };
        let until = deadline.min(Instant::now() + silence);
        let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_| too_slow())? else { break };
        let Ok(piece) = frame.map_err(|_| broke_off())?.into_data() else { continue };
        let bytes = gathered.bytes.len() + piece.len();
        if bytes > DOCUMENT_BYTES_MAX {
            return Err(too_large());
        }
        if bytes > GATEWAY_SMALL_BYTES && gathered.room.is_none() {
            let room = timeout(BODY_TIMEOUT, budget.take(whole)).await;
            let full = "too many large bodies at a time; try again";
            gathered.room = Some(room.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, full))?);
            deadline = Instant::now() + BODY_TIMEOUT;
        }
        gathered.bytes.extend_from_slice(&piece);
    }
    if let Some(room) = &mut gathered.room {
        room.shrink_to(gathered.bytes.len());
    }
    Ok(gathered)
}

impl Gathered {
    /// The body, and the room that is to be kept as long as it.
    pub(super) fn into_parts(self) -> (Body, Option<Room>) {
        (Body::from(self.bytes.freeze()), self.room)
    }
}

/// Whether a body is larger than any may be, by what its head says.
pub(super) fn is_too_large(body: &Body) -> bool {
    body.size_hint().lower() > DOCUMENT_BYTES_MAX as u64
}

fn too_large() -> Problem {
    let detail = format!("the body is larger than the limit of {DOCUMENT_BYTES_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

fn too_slow() -> Problem {
    let detail = format!("the body was not here after {} seconds", BODY_TIMEOUT.as_secs());
    let detail = format!("{detail}, or nothing of it came for {}", BODY_SILENCE.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
}

fn broke_off() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "the body broke off before its end")
}

/// Lines of JSON under their names, or no type at all.
///
/// # Errors
/// 415 for another type, plain JSON among them, and for compressed bodies.
pub(super) fn check_lines(headers: &HeaderMap) -> Answer<()> {
    check_encoding(headers)?;
    let Some(found) = essence(headers) else { return Ok(()) };
    if LINES.contains(&found.as_str()) {
        return Ok(());
    }
    let detail = format!(
        "the body is one JSON document a line (NDJSON), not one JSON text: send it with Content-Type: {} \
         (this is {found:?})",
        LINES[0]
    );
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// A body is read as it is. One that is compressed would be taken for what it is not.
fn check_encoding(headers: &HeaderMap) -> Answer<()> {
    let is_identity = |encoding: &&HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    let Some(encoding) = headers.get_all(CONTENT_ENCODING).iter().find(|encoding| !is_identity(encoding)) else {
        return Ok(());
    };
    let shown: String = encoding.to_str().unwrap_or_default().chars().take(40).collect();
    let detail = format!("the body is compressed ({shown:?}): send it as it is");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// Whether a client asks for lines of JSON.
pub(super) fn accepts_lines(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = texts.flat_map(|text| text.split(',')).map(|range| range.split(';').next().unwrap_or_default());
    types.any(|range| LINES.iter().any(|lines| range.trim().eq_ignore_ascii_case(lines)))
}

/// The content type without its parameters, in lower case.
pub(super) fn essence(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// JSON under its names, or no type at all. Anything else is refused: a page elsewhere can send forms and plain
/// text without asking, but not these.
fn check_type(headers: &HeaderMap) -> Answer<()> {
    check_encoding(headers)?;
    let Some(essence) = essence(headers) else { return Ok(()) };
    if essence == "application/json" || (essence.contains('/') && essence.ends_with("+json")) {
        return Ok(());
    }
    let detail = format!("the body must be JSON, with Content-Type: application/json (this is {essence:?})");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_not_small_waits_for_room() {
        let budget = Budget::new(2 * DOCUMENT_BYTES_MAX);
        let body = |bytes: usize| Body::from(vec![b' '; bytes]);
        let gathered = |bytes| gather(body(bytes), &budget).now_or_never();
        let whole = [gathered(DOCUMENT_BYTES_MAX), gathered(DOCUMENT_BYTES_MAX - 1)];
        assert!(whole.iter().flatten().all(Result::is_ok), "there is room for both");
        assert!(gathered(GATEWAY_SMALL_BYTES).is_some_and(|small| small.is_ok()), "what is small needs none");
        let third = gather(body(DOCUMENT_BYTES_MAX), &budget);
        let makes_room = async move {
            tokio::task::yield_now().await;
            drop(whole);
        };
        let (third, ()) = futures::join!(third, makes_room);
        assert!(third.is_ok());
    }
}
