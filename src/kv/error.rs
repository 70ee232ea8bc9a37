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
    /// The disk has too little room left. Writes are accepted again once there is more.
    #[error(
        "storage: the disk is full: {free_bytes} bytes are free, and {needed_bytes} are kept for moving what was \
         accepted into place; free some space, and writes go on"
    )]
    Full {
        /// What is free.
        free_bytes: u64,
        /// What must be.
        needed_bytes: u64,
    },
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
    /// The directory was written by another version.
    #[error(
        "{} has storage format {found}, this build reads format {supported}; use the version that wrote it, or start \
         with an empty directory and join the mesh again",
        path.display()
    )]
    OtherFormat {
        /// What was read.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format of this build.
        supported: u64,
    },
    /// One batch is over the limit; nothing of it was applied, and the store goes on.
    #[error("storage: a batch of {size_bytes} bytes is over the limit of {limit_bytes}; split it")]
    TooLarge {
        /// Bytes of the batch, encoded.
        size_bytes: usize,
        /// The most that is accepted.
        limit_bytes: usize,
    },
    /// Stored bytes are damaged.
    #[error("storage: {0}")]
    Corrupt(String),
    /// A page of the table cannot be read. The table is built anew, and what it held is read and written again then.
    #[error("storage: the table is damaged and is being built anew ({0}); try again in a while")]
    Unreadable(String),
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
            Error::Io { .. }
            | Error::Full { .. }
            | Error::Locked(_)
            | Error::Foreign { .. }
            | Error::OtherFormat { .. } => Self::Io(text),
            Error::TooLarge { .. } => Self::invalid(text),
            Error::Poisoned(_) | Error::Unreadable(_) => Self::Unavailable(text),
            Error::Corrupt(_) => Self::Corrupt(text),
        }
    }
}
