//! The one public error, grouped by what the caller can do about it.
//!
//! Modules keep small error enums of their own, and convert them to this one beside their definition,
//! so that this file imports nothing. A misbehaving peer is no error: it yields a drop with a reason.

/// A result with the crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what the caller can do. The texts carry the ids and say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or the caller may not know of it.
    #[error("{0}")]
    NotFound(String),
    /// The caller has no right to do this.
    #[error("{0}")]
    Denied(String),
    /// The input breaks a rule; the same input will fail again.
    #[error("{0}")]
    Invalid(Invalid),
    /// The state is not the one the caller expected; read again and retry.
    #[error("{0}")]
    Conflict(String),
    /// Not now: overloaded, shutting down, or nobody could be reached. Retry later.
    #[error("{0}")]
    Unavailable(String),
    /// Stored data is damaged; the text says which record.
    #[error("{0}")]
    Corrupt(String),
    /// The operating system refused: a full disk, a missing permission, a port in use.
    #[error("{0}")]
    Io(String),
}

/// Details of invalid input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// What is wrong and what would be right.
    pub message: String,
    /// The field or path it is about, where there is one.
    pub field: Option<String>,
    /// Line and column in the text, both from 1, where there is one.
    pub position: Option<(usize, usize)>,
    /// The kind of fault, for callers that answer kinds differently.
    pub kind: InvalidKind,
}

/// Kinds of invalid input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKind {
    /// The text does not follow its grammar.
    Syntax,
    /// The text is well-formed, its meaning is not acceptable.
    Meaning,
    /// It is larger than the limit.
    TooLarge,
    /// It carries a test of the present state, and that failed.
    Test,
    /// Another document has the key of a unique index that it asks for.
    Taken,
}

impl Error {
    /// Input whose meaning is not acceptable.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(Invalid { message: message.into(), field: None, position: None, kind: InvalidKind::Meaning })
    }

    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
