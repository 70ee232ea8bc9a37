//! Ready-to-run configurations that are part of the program: `--profile NAME`.

use super::Settings;
use super::file::{Language, parse};
use crate::{Error, Result};

/// Every profile: its name and its text.
pub const PROFILES: [(&str, &str); 4] = [
    ("bootstrap", include_str!("../../peers/bootstrap.toml")),
    ("worker", include_str!("../../peers/worker.toml")),
    ("laptop", include_str!("../../peers/laptop.toml")),
    ("edge", include_str!("../../peers/edge.toml")),
];

/// The settings of a profile.
///
/// # Errors
/// [`Error::Invalid`] when there is none of this name.
pub fn read(name: &str) -> Result<Settings> {
    match PROFILES.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => parse(text, Language::Toml),
        None => {
            let names: Vec<_> = PROFILES.iter().map(|(name, _)| *name).collect();
            Err(Error::invalid(format!("there is no profile {name:?}; there are {}", names.join(", "))))
        }
    }
}
