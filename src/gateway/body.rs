//! Reading a request's body: its type, its size, its time, and then the strict parser.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::{Answer, Problem};
use crate::document::{Object, json};
use crate::limits::DOCUMENT_BYTES_MAX;

/// Seconds within which a body must be here: a document over the slowest link, not a client that holds a slot.
/// Tests await the answer to a body that never comes.
const BODY_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
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
    let too_large = || {
        let detail = format!("the body is larger than the limit of {DOCUMENT_BYTES_MAX} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    // Who says it beforehand need not send it.
    if body.size_hint().lower() > DOCUMENT_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, DOCUMENT_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body broke off before its end")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not here after {} seconds", BODY_TIMEOUT.as_secs()),
        )),
    }
}

/// Lines of JSON under their names, or no type at all.
///
/// # Errors
/// 415 for another type, plain JSON among them, and for compressed bodies.
pub(super) fn check_lines(headers: &HeaderMap) -> Answer<()> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let detail = format!("the body is compressed ({encoding:?}): send it as it is");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
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
    let Some(essence) = essence(headers) else { return Ok(()) };
    if essence == "application/json" || (essence.contains('/') && essence.ends_with("+json")) {
        return Ok(());
    }
    let detail = format!("the body must be JSON, with Content-Type: application/json (this is {essence:?})");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}
