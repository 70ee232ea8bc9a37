//! How the peer logs: the level or the directives, checked before anything starts.

use tracing_subscriber::EnvFilter;

use super::{LogOutput, Logging, Settings};
use crate::{Error, Result};

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// How the settings say that it logs.
///
/// # Errors
/// [`Error::Invalid`] for a word that is no level, and directives that make no sense.
pub(super) fn logging(settings: &Settings) -> Result<Logging> {
    let output = match settings.text("observability.logging.output") {
        None | Some("stderr") => LogOutput::Stderr,
        Some("stdout") => LogOutput::Stdout,
        Some(path) => LogOutput::File(path.into()),
    };
    Ok(Logging {
        filter: filter(settings.text("observability.logging.level").unwrap_or("info"))?,
        json: settings.text("observability.logging.format") == Some("json"),
        output,
    })
}

/// The directives that a level or directives mean.
fn filter(text: &str) -> Result<String> {
    if is_level(text) {
        // A single level is meant for this program; its libraries speak up when something is wrong. A thread of the table
        // says at each end of the program, as an error, that it ends.
        return Ok(format!("error,sled::metadata_store=off,aerolithsdb={text}"));
    }
    let wrong = |why: String| {
        Error::invalid(format!(
            "observability.logging.level (--log): {why}; the levels are {}, and a part of the program gets one of its \
             own as target=level, such as aerolithsdb=debug",
            LEVELS.join(", ")
        ))
    };
    // The filter itself takes a word that is no level for a target, and then shows everything of it, or nothing.
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    if let Some(word) = parts.iter().find(|part| !part.contains(['=', '[', ']', '{', '}']) && !is_level(part)) {
        return Err(wrong(format!("{word:?} is no level")));
    }
    let directives = parts.join(",");
    EnvFilter::try_new(&directives).map_err(|error| wrong(format!("{text:?} cannot be understood ({error})")))?;
    Ok(directives)
}

fn is_level(word: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_told_from_words() {
        for (text, expected) in [
            ("debug", "error,sled::metadata_store=off,aerolithsdb=debug"),
            ("OFF", "error,sled::metadata_store=off,aerolithsdb=OFF"),
            ("aerolithsdb=debug,libp2p=info", "aerolithsdb=debug,libp2p=info"),
            ("warn, aerolithsdb::access=debug", "warn,aerolithsdb::access=debug"),
            ("[request{id=1}]=trace", "[request{id=1}]=trace"),
        ] {
            assert_eq!(filter(text).unwrap(), expected);
        }
        for wrong in ["debgu", "libp2p", "info,libp2p", "", "libp2p=loud", "info,,debug", "a=b=c"] {
            let why = filter(wrong).unwrap_err().to_string();
            assert!(why.contains("error, warn, info, debug, trace, off") && why.contains("target=level"), "{why}");
        }
    }
}
