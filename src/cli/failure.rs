//! How the client ends: exit codes that scripts can tell apart, and one message.

use std::process::ExitCode;

/// Why a command did not do what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It failed.
    Failed = 1,
    /// It was called in a wrong way.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The caller may not do this.
    Denied = 4,
    /// The peer, or whom it needs, cannot be reached now.
    Unavailable = 5,
}

/// A command's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) message: String,
}

/// The result of a command.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The exit code of the process.
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl Kind {
    /// What a status of HTTP means.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            404 | 410 => Self::NotFound,
            401 | 403 | 421 => Self::Denied,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        let kind = match error {
            crate::Error::NotFound(_) => Kind::NotFound,
            crate::Error::Denied(_) => Kind::Denied,
            crate::Error::Unavailable(_) => Kind::Unavailable,
            crate::Error::Invalid(_) | crate::Error::Conflict(_) | crate::Error::Corrupt(_) | crate::Error::Io(_) => {
                Kind::Failed
            }
        };
        Self::new(kind, error.to_string())
    }
}
