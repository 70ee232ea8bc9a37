//! Errors as problem documents (RFC 9457).
//!
//! A [`Problem`] says what went wrong in the words of [`Error`], with the status that fits what the client can
//! do about it. Handlers return it; the guard writes the body, because it alone knows the path of the request.
//! Not here: what the errors mean, which is settled where they are made.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Error, Invalid, InvalidKind};

/// Seconds after which a client that met an overloaded peer may try again.
const RETRY_AFTER_S: u64 = 1;

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// What went wrong and what to do.
    pub(super) detail: Cow<'static, str>,
    /// The field it is about, where there is one.
    pub(super) field: Option<String>,
    /// Line and column in the body, both from 1, where there is one.
    pub(super) position: Option<(usize, usize)>,
    /// Why the peer is not ready, one reason each; empty for everything else.
    pub(super) reasons: Vec<&'static str>,
    /// Seconds after which to try again, where that helps.
    pub(super) retry_after_s: Option<u64>,
}

/// The result of a handler.
pub(super) type Answer<T = Response> = Result<T, Problem>;

/// What went wrong, and what to do (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Shape<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    /// The field it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    /// Why the peer is not ready.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    reasons: &'a [&'static str],
}

/// A place in the body, both from 1.
#[derive(Serialize, ToSchema)]
pub(super) struct Position {
    line: usize,
    column: usize,
}

impl From<(usize, usize)> for Position {
    fn from((line, column): (usize, usize)) -> Self {
        Self { line, column }
    }
}

impl Problem {
    /// A problem with nothing but a status and a text.
    #[must_use]
    pub(super) fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), field: None, position: None, reasons: Vec::new(), retry_after_s: None }
    }

    /// The problem of a client that calls too often, and may call again after some seconds.
    #[must_use]
    pub(super) fn too_many(detail: &'static str, retry_after_s: u64) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// The problem of an error in a call that had a precondition: a conflict means that it did not hold.
    #[must_use]
    pub(super) fn of_condition(error: Error) -> Self {
        let failed = matches!(error, Error::Conflict(_));
        let problem = Self::from(error);
        if failed { Self { status: StatusCode::PRECONDITION_FAILED, ..problem } } else { problem }
    }

    /// The problem of an error in joining: nobody could be reached, so the fault is not in this peer.
    #[must_use]
    pub(super) fn of_join(error: Error) -> Self {
        let failed = matches!(error, Error::Unavailable(_));
        let problem = Self::from(error);
        if failed { Self { status: StatusCode::BAD_GATEWAY, ..problem } } else { problem }
    }

    /// The body, for a request to the path `instance`.
    pub(super) fn body(&self, instance: &str) -> Body {
        let shape = Shape {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
            field: self.field.as_deref(),
            position: self.position.map(Position::from),
            reasons: &self.reasons,
        };
        serde_json::to_vec(&shape).expect("texts and numbers are JSON").into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let unavailable = (self.status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_S);
        if let Some(seconds) = self.retry_after_s.or(unavailable) {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"aerolithsdb\""));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        let status = match error {
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::Denied(_) => StatusCode::FORBIDDEN,
            Error::Invalid(invalid) => return invalid.into(),
            Error::Conflict(_) => StatusCode::CONFLICT,
            Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Io(_) if is_disk_full(&detail) => StatusCode::INSUFFICIENT_STORAGE,
            Error::Corrupt(_) | Error::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, detail)
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        let status = match invalid.kind {
            InvalidKind::Syntax => StatusCode::BAD_REQUEST,
            InvalidKind::Meaning => StatusCode::UNPROCESSABLE_ENTITY,
            InvalidKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            InvalidKind::Test | InvalidKind::Taken => StatusCode::CONFLICT,
        };
        Self { field: invalid.field, position: invalid.position, ..Self::new(status, invalid.message) }
    }
}

/// Whether a text tells of a full disk. [`Error::Io`] carries what the operating system said and no code.
fn is_disk_full(detail: &str) -> bool {
    ["the disk is full", "No space left on device", "Disk quota exceeded", "not enough space on the disk"]
        .iter()
        .any(|said| detail.contains(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(kind: InvalidKind) -> Error {
        Error::Invalid(Invalid { message: "m".into(), field: Some("f".into()), position: Some((2, 3)), kind })
    }

    #[test]
    fn every_error_has_its_status() {
        let full = std::io::Error::from_raw_os_error(28).to_string();
        for (error, status) in [
            (Error::NotFound("x".into()), 404),
            (Error::Denied("x".into()), 403),
            (invalid(InvalidKind::Syntax), 400),
            (invalid(InvalidKind::Meaning), 422),
            (invalid(InvalidKind::TooLarge), 413),
            (invalid(InvalidKind::Test), 409),
            (invalid(InvalidKind::Taken), 409),
            (Error::Conflict("x".into()), 409),
            (Error::Unavailable("x".into()), 503),
            (Error::Corrupt("x".into()), 500),
            (Error::Io("permission denied".into()), 500),
            (Error::Io(format!("journal: {full}")), 507),
        ] {
            assert_eq!(Problem::from(error.clone()).status.as_u16(), status, "{error:?}");
        }
    }

    #[test]
    fn where_an_error_comes_from_can_change_its_status() {
        let conflict = || Error::Conflict("x".into());
        assert_eq!(Problem::of_condition(conflict()).status, StatusCode::PRECONDITION_FAILED);
        assert_eq!(Problem::of_condition(Error::NotFound("x".into())).status, StatusCode::NOT_FOUND);
        assert_eq!(Problem::of_condition(invalid(InvalidKind::Taken)).status, StatusCode::CONFLICT);
        assert_eq!(Problem::of_join(Error::Unavailable("x".into())).status, StatusCode::BAD_GATEWAY);
        assert_eq!(Problem::of_join(conflict()).status, StatusCode::CONFLICT);
    }

    #[tokio::test]
    async fn the_body_follows_rfc_9457() {
        let body = Problem::from(invalid(InvalidKind::Syntax)).body("/api/v1/x");
        let bytes = axum::body::to_bytes(body, 1_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "m", "instance": "/api/v1/x",
            "field": "f", "position": {"line": 2, "column": 3},
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn an_unavailable_peer_says_when_to_come_back() {
        let response = Problem::from(Error::Unavailable("x".into())).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }
}
