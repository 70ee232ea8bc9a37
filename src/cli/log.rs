//! The log of the peer.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{LogOutput, Logging};
use crate::{Error, Result};

/// The file to which the log goes, if it goes to one.
#[derive(Debug, Clone, Default)]
pub(super) struct LogFile(Option<Arc<Opened>>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self> {
        let (path, file) = (path.to_owned(), open(path)?.into());
        Ok(Self(Some(Arc::new(Opened { path, file }))))
    }

    /// Opens the file anew, where it was moved away; says whether there is one.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened; the log goes on in the old one.
    pub(super) fn open_anew(&self) -> Result<bool> {
        let Some(opened) = &self.0 else { return Ok(false) };
        let new = open(&opened.path)?;
        *opened.file.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }
}

impl Write for LogFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(opened) => opened.file.lock().unwrap_or_else(PoisonError::into_inner).write(buffer),
            None => Ok(buffer.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|error| Error::Io(format!("the log {} cannot be opened: {error}", path.display())))
}

/// Starts logging; returns the file, if it goes to one.
///
/// # Errors
/// [`Error::Io`] for a file that cannot be opened.
pub(super) fn init(logging: &Logging) -> Result<LogFile> {
    let filter = EnvFilter::try_new(&logging.filter).map_err(|error| Error::invalid(error.to_string()))?;
    let mut log_file = LogFile::default();
    let (writer, colors) = match &logging.output {
        LogOutput::Stderr => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
        LogOutput::Stdout => (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal()),
        LogOutput::File(path) => {
            log_file = LogFile::open(path)?;
            let file = log_file.clone();
            (BoxMakeWriter::new(move || file.clone()), false)
        }
    };
    // What cannot be logged, on a full disk or into a pipe that nobody reads any more, must not end whatever logs it: by
    // default it would be said on stderr, where failing is a panic.
    let subscriber = tracing_subscriber::fmt().log_internal_errors(false);
    let subscriber = subscriber.with_env_filter(filter).with_writer(writer).with_ansi(colors);
    let started = if logging.json { subscriber.json().try_init() } else { subscriber.with_target(false).try_init() };
    started.map_err(|error| Error::Io(format!("the log cannot be started: {error}")))?;
    Ok(log_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let file = LogFile::open(&path).unwrap();
        file.clone().write_all(b"before\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        assert!(file.open_anew().unwrap());
        file.clone().write_all(b"after\n").unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&moved), read(&path)), ("before\n".into(), "after\n".into()));
        assert!(!LogFile::default().open_anew().unwrap());
    }
}
