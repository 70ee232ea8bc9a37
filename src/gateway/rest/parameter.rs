//! Variables of paths and queries that several calls share, with what the description says of them.

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::problem::{Answer, Problem};
use crate::WriteConcern;
use crate::peer::Collection;

/// A collection in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct CollectionPath {
    /// The collection's name.
    #[param(max_length = 64, example = "notes")]
    pub(super) collection: String,
}

/// A document in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DocumentPath {
    /// The collection's name.
    #[param(max_length = 64, example = "notes")]
    pub(super) collection: String,
    /// The document's id, percent-encoded.
    #[param(max_length = 512, example = "today")]
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
