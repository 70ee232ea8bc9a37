//! Variables of paths and queries that several calls share, with what the description says of them.

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::problem::{Answer, Problem};
use crate::peer::Collection;
use crate::{Invalid, InvalidKind, WriteConcern};

/// A collection in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct CollectionPath {
    /// The collection's name.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", example = "notes")]
    pub(super) collection: String,
}

/// A document in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DocumentPath {
    /// The collection's name.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", example = "notes")]
    pub(super) collection: String,
    /// The document's id, percent-encoded.
    #[param(min_length = 1, max_length = 512, pattern = r"^[^/\x00-\x1f\x7f-\x9f]+$", example = "today")]
    pub(super) id: String,
}

/// Milliseconds for which a call waits for other peers when it does not say.
const TIMEOUT_MS: u64 = 5_000;

/// How many other peers must have a write on their disks before it is answered.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Concern {
    /// Other peers that must have the write on their disks; not waited for when left out.
    #[param(maximum = 64)]
    pub(super) w: Option<usize>,
    /// Milliseconds to wait for them; 5,000 when left out. Then the answer is 202: the write stands.
    #[param(maximum = 60_000)]
    pub(super) timeout_ms: Option<u64>,
}

impl Concern {
    /// A handle to a collection that waits as this says.
    pub(super) fn on(&self, collection: &Collection) -> Answer<Collection> {
        match (self.w, self.timeout_ms) {
            (Some(peers), timeout_ms) => {
                let concern = WriteConcern { peers, timeout_ms: timeout_ms.unwrap_or(TIMEOUT_MS) };
                // Before preconditions, which are about a write that could be made.
                concern.check()?;
                Ok(collection.with_concern(concern))
            }
            (None, None) => Ok(collection.clone()),
            (None, Some(_)) => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "timeout_ms makes no sense without w: for whom to wait?"))
            }
        }
    }
}

/// How many other peers must have everything.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Others {
    /// How many; 1 when left out.
    #[param(maximum = 64)]
    peers: Option<usize>,
    /// Milliseconds to wait for them; 5,000 when left out.
    #[param(maximum = 60_000)]
    timeout_ms: Option<u64>,
}

impl Others {
    /// What is waited for.
    pub(super) fn concern(&self) -> WriteConcern {
        WriteConcern { peers: self.peers.unwrap_or(1), timeout_ms: self.timeout_ms.unwrap_or(TIMEOUT_MS) }
    }
}

/// The problem of a parameter of the query whose value is none that it takes, from what the reader of queries says:
/// `mode: unknown variant `x`, expected `put` or `insert``.
pub(super) fn refused(said: &str) -> Problem {
    let said = said.strip_prefix("Failed to deserialize query string: ").unwrap_or(said);
    let (name, why) = said.split_once(": ").unwrap_or(("", said));
    let quoted = |text: &str| text.split('`').nth(1).unwrap_or_default().to_owned();
    let (name, takes) = if let Some((found, known)) = why.split_once(", expected ") {
        let known = known.strip_prefix("one of ").unwrap_or(known).replace('`', "");
        (name.to_owned(), format!("takes {known}, not {:?}", quoted(found)))
    } else if why.contains("`true` or `false`") {
        (name.to_owned(), "takes true or false".to_owned())
    } else if why.contains("digit") || why.contains("integer") || why.contains("number") {
        (name.to_owned(), "takes a whole number from 0 on".to_owned())
    } else if why.starts_with("missing field") {
        (quoted(why), "is missing".to_owned())
    } else if why.starts_with("duplicate field") {
        (quoted(why), "is there twice".to_owned())
    } else {
        (name.to_owned(), format!("cannot be read: {why}"))
    };
    let message = format!("the parameter {name} {takes}");
    Invalid { message, field: Some(name), position: None, kind: InvalidKind::Syntax }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Put,
        Insert,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Parameters {
        from: String,
        mode: Option<Word>,
        limit: Option<usize>,
        #[serde(default)]
        live: bool,
    }

    #[test]
    fn what_a_parameter_takes_is_said_in_words() {
        for (query, detail) in [
            ("from=a&mode=patch", "the parameter mode takes put or insert, not \"patch\""),
            ("from=a&limit=x", "the parameter limit takes a whole number from 0 on"),
            ("from=a&limit=-1", "the parameter limit takes a whole number from 0 on"),
            ("from=a&limit=", "the parameter limit takes a whole number from 0 on"),
            ("from=a&live=maybe", "the parameter live takes true or false"),
            ("mode=put", "the parameter from is missing"),
            ("from=a&from=b", "the parameter from is there twice"),
        ] {
            let uri = format!("/x?{query}").parse().unwrap();
            let rejection = axum::extract::Query::<Parameters>::try_from_uri(&uri).unwrap_err();
            let problem = refused(&rejection.body_text());
            assert_eq!(problem.detail, detail, "{}", rejection.body_text());
            assert_eq!((problem.status, problem.field.is_some()), (StatusCode::BAD_REQUEST, true));
        }
    }
}
