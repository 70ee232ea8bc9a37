//! What can go wrong with storage.

use std::io;
use std::path::PathBuf;

/// An error of the storage layer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("storage: {context}: {message}")]
    Io {
        /// What was being done, with the path.
        context: String,
        /// What the system said.
        message: String,
        /// Its kind.
        kind: io::ErrorKind,
    },
    /// A write failed earlier, and writes are refused until the store is opened again.
    #[error("storage: writes are refused since an earlier one failed ({0}); restart the peer once the cause is gone")]
    Poisoned(String),
    /// Another process has the data directory open.
    #[error("data directory {} is in use by another process; stop it, or give this peer its own --data-dir", .0.display())]
    Locked(PathBuf),
    /// The directory holds something else.
    #[error("{} holds files that are not a data directory of aerolithsdb (found {found:?}); use an empty or new directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The first entry that does not belong.
        found: String,
    },
    /// Stored bytes are damaged.
    #[error("storage: {0}")]
    Corrupt(String),
}

impl Error {
    /// An operating system error with its context.
    pub fn io(context: impl Into<String>, error: &io::Error) -> Self {
        Self::Io { context: context.into(), message: error.to_string(), kind: error.kind() }
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Io { .. } | Error::Locked(_) | Error::Foreign { .. } => Self::Io(text),
            Error::Poisoned(_) => Self::Unavailable(text),
            Error::Corrupt(_) => Self::Corrupt(text),
        }
    }
}
