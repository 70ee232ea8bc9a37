//! Why changes are not taken.

use automerge::AutomergeError;

use crate::base::{ChangeHash, DecodeError};
use crate::error::{Invalid, InvalidKind};
use crate::limits::CHANGE_BYTES_MAX;

/// Why bytes are not a change that any peer would take, whatever the document. The sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScreenError {
    /// It is larger than a change may be.
    #[error("the change has {0} bytes, the limit is {CHANGE_BYTES_MAX}")]
    TooLarge(usize),
    /// It does not follow the format, or not in its one canonical form.
    #[error("the change is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// It follows the format and breaks a rule.
    #[error("the change breaks a rule: {0}")]
    Rule(&'static str),
    /// Automerge cannot read it.
    #[error("Automerge cannot read the change: {0}")]
    Automerge(String),
}

/// Why a screened change does not fit into a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// These dependencies are not there yet. The one refusal that can pass with time.
    #[error("{} dependencies are missing, the first is {}", .0.len(), .0[0])]
    Missing(Vec<ChangeHash>),
    /// The actor already made another change under this sequence number: together they prove equivocation.
    #[error("the actor made another change under the same sequence number: {with}")]
    Fork {
        /// The change that is already there.
        with: ChangeHash,
    },
    /// The change does not depend on the previous change of its actor.
    #[error("sequence number {found} does not follow {past}, the actor's last in the past of the change")]
    Sequence {
        /// The actor's last sequence number among the dependencies and what they depend on.
        past: u64,
        /// The sequence number of the change.
        found: u64,
    },
    /// The first operation does not have the number after the largest among the dependencies.
    #[error("the first operation has number {found} instead of {expected}")]
    StartOp {
        /// One more than the largest operation number among the dependencies.
        expected: u64,
        /// The number in the change.
        found: u64,
    },
    /// It refers to something that is not in its past, or not as it may; or it deletes what is deleted.
    #[error("{0}")]
    Rule(&'static str),
}

impl Refusal {
    /// Whether the same change may be taken later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

/// The document in memory can no longer be trusted: discard it and load it again from the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the open document is broken and must be loaded again: {0}")]
pub struct Broken(pub String);

impl From<ScreenError> for crate::Error {
    fn from(error: ScreenError) -> Self {
        let kind = match error {
            ScreenError::TooLarge(_) => InvalidKind::TooLarge,
            ScreenError::Malformed(_) | ScreenError::Rule(_) | ScreenError::Automerge(_) => InvalidKind::Meaning,
        };
        Self::Invalid(Invalid { message: error.to_string(), field: None, position: None, kind })
    }
}

/// Automerge fails at an edit only when the document is not what it seemed.
impl From<AutomergeError> for crate::Error {
    fn from(error: AutomergeError) -> Self {
        Broken(error.to_string()).into()
    }
}

impl From<Broken> for crate::Error {
    fn from(error: Broken) -> Self {
        Self::Corrupt(error.to_string())
    }
}
