//! The log of the peer.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{LogOutput, Logging};
use crate::{Error, Result};

/// Starts logging.
///
/// # Errors
/// [`Error::Io`] for a file that cannot be opened.
pub(super) fn init(logging: &Logging) -> Result<()> {
    let filter = EnvFilter::try_new(&logging.filter).map_err(|error| Error::invalid(error.to_string()))?;
    let (writer, colors) = match &logging.output {
        LogOutput::Stderr => (BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal()),
        LogOutput::Stdout => (BoxMakeWriter::new(std::io::stdout), std::io::stdout().is_terminal()),
        LogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let failed = |error| Error::Io(format!("the log {} cannot be opened: {error}", path.display()));
            (BoxMakeWriter::new(Mutex::new(file.map_err(failed)?)), false)
        }
    };
    // What cannot be logged, on a full disk or into a pipe that nobody reads any more, must not end whatever logs it: by
    // default it would be said on stderr, where failing is a panic.
    let subscriber = tracing_subscriber::fmt().log_internal_errors(false);
    let subscriber = subscriber.with_env_filter(filter).with_writer(writer).with_ansi(colors);
    let started = if logging.json { subscriber.json().try_init() } else { subscriber.with_target(false).try_init() };
    started.map_err(|error| Error::Io(format!("the log cannot be started: {error}")))
}
