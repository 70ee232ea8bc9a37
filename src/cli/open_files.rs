//! How many files and connections the process may have open: as many as the system lets it, and enough.
//!
//! Systems start programs with a low limit that a program may raise itself (1,024 of often 524,288 on Linux), for the
//! sake of those that use `select`; this one does not.

use crate::{Error, Result};

/// Open files that a peer needs at least: about 40 for its store and its sockets, and some for peers and clients.
const OPEN_FILES_MIN: u64 = 96;
/// Open files beyond which more are of no use.
const OPEN_FILES_WANTED: u64 = 65_536;

/// Raises the limit as far as it may be.
///
/// # Errors
/// [`Error::Io`] when it is too low for a peer.
#[cfg(unix)]
pub(super) fn prepare() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES_WANTED, |maximum| maximum.min(OPEN_FILES_WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        // What cannot be raised stays as it is, and is judged below.
        _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
    check(getrlimit(Resource::Nofile).current)
}

#[cfg(not(unix))]
pub(super) fn prepare() -> Result<()> {
    check(None)
}

/// Judges a limit; `None` is none.
fn check(limit: Option<u64>) -> Result<()> {
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => Err(Error::Io(format!(
            "this process may have {limit} files and connections open, a peer needs {OPEN_FILES_MIN} at least: raise the \
             limit, with `ulimit -n 1024` in a shell or LimitNOFILE=1024 in a systemd unit"
        ))),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_refused_with_advice() {
        assert!(check(None).is_ok() && check(Some(OPEN_FILES_MIN)).is_ok());
        let why = check(Some(OPEN_FILES_MIN - 1)).unwrap_err().to_string();
        assert!(why.contains("95") && why.contains("ulimit -n") && why.contains("LimitNOFILE"), "{why}");
    }
}
