//! Reading a configuration file: TOML, YAML or JSON by its extension, then every key against the table.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::key::{KEYS, Key, nearest};
use super::{Faults, Settings};
use crate::limits::CONFIG_BYTES_MAX;
use crate::{Error, Result};

/// The language of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// <https://toml.io>, the one for people.
    Toml,
    /// <https://yaml.org>
    Yaml,
    /// <https://json.org>
    Json,
}

impl Language {
    /// The language that a file's extension names; TOML when it has none.
    ///
    /// # Errors
    /// For an extension that names another.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") | None => Ok(Self::Toml),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(Error::invalid(format!(
                "{}: a configuration is .toml, .yaml or .json, not .{other}",
                path.display()
            ))),
        }
    }
}

/// Reads and checks a file.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Invalid`] for what it should not hold.
pub fn read(path: &Path) -> Result<Settings> {
    let mut faults = Faults::default();
    let settings = read_past(path, &mut faults)?;
    faults.unless_any(settings)
}

/// Reads a file, past the keys and values that are wrong, which become faults.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Invalid`] when it is not of its language.
pub fn read_past(path: &Path, faults: &mut Faults) -> Result<Settings> {
    let language = Language::of(path)?;
    let shown = path.display();
    let failed = |error: std::io::Error| Error::Io(format!("the configuration {shown} cannot be read: {error}"));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Error::invalid(format!("the configuration {shown} is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let mut found = Faults::default();
    let named = |error: Error| Error::invalid(format!("{shown}: {error}"));
    let settings = parse_past(&text, language, &mut found).map_err(named)?;
    faults.take(found.unless_any(()).map_err(named));
    Ok(settings)
}

/// Reads and checks a text.
///
/// # Errors
/// [`Error::Invalid`] with what is wrong, and the nearest known key for an unknown one.
pub fn parse(text: &str, language: Language) -> Result<Settings> {
    let mut faults = Faults::default();
    let settings = parse_past(text, language, &mut faults)?;
    faults.unless_any(settings)
}

/// Reads a text, past the keys and values that are wrong.
fn parse_past(text: &str, language: Language, faults: &mut Faults) -> Result<Settings> {
    let wrong = |error: &dyn std::fmt::Display| Error::invalid(error.to_string().trim_end().to_owned());
    let value: Value = match language {
        Language::Toml => toml::from_str(text).map_err(|error| wrong(&error))?,
        Language::Yaml => serde_saphyr::from_str(text).map_err(|error| wrong(&error))?,
        Language::Json => serde_json::from_str(text).map_err(|error| wrong(&error))?,
    };
    let mut settings = Settings::default();
    match value {
        Value::Null => {}
        Value::Object(sections) => {
            sections.iter().for_each(|(name, value)| collect(name, value, &mut settings, faults));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(Error::invalid("a configuration consists of sections such as [storage]"));
        }
    }
    Ok(settings)
}

/// Takes a value at a path, or everything below it.
fn collect(path: &str, value: &Value, settings: &mut Settings, faults: &mut Faults) {
    let wrong = if let Some(key) = Key::at(path) {
        // What is left empty keeps its default: YAML makes it easy to write `seed_nodes:` and nothing else.
        if value.is_null() {
            return;
        }
        match key.check(value) {
            Ok(setting) => return settings.set(key, setting),
            Err(why) => Error::invalid(why),
        }
    } else if !KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))) {
        unknown(path)
    } else {
        match value {
            Value::Null => return,
            Value::Object(fields) => {
                let each = |(name, value)| collect(&format!("{path}.{name}"), value, settings, faults);
                return fields.iter().for_each(each);
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Error::invalid(format!("{path} is a section, not a key"))
            }
        }
    };
    faults.take::<()>(Err(wrong));
}

fn unknown(path: &str) -> Error {
    let sections = || {
        let mut sections: Vec<_> = KEYS.iter().filter_map(|key| key.path.split('.').next()).collect();
        sections.dedup();
        format!("the sections are {}", sections.join(", "))
    };
    let hint = nearest(path).map_or_else(sections, |known| format!("did you mean {known}?"));
    Error::invalid(format!("there is no key {path}; {hint}"))
}
