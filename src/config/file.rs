//! Reading a configuration file: TOML, YAML or JSON by its extension, then every key against the table.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::Settings;
use super::key::{KEYS, Key, nearest};
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
    let language = Language::of(path)?;
    let shown = path.display();
    let failed = |error: std::io::Error| Error::Io(format!("the configuration {shown} cannot be read: {error}"));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Error::invalid(format!("the configuration {shown} is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    parse(&text, language).map_err(|error| Error::invalid(format!("{shown}: {error}")))
}

/// Reads and checks a text.
///
/// # Errors
/// [`Error::Invalid`] with what is wrong, and the nearest known key for an unknown one.
pub fn parse(text: &str, language: Language) -> Result<Settings> {
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
            for (name, value) in &sections {
                collect(name, value, &mut settings)?;
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(Error::invalid("a configuration consists of sections such as [storage]"));
        }
    }
    Ok(settings)
}

/// Takes a value at a path, or everything below it.
fn collect(path: &str, value: &Value, settings: &mut Settings) -> Result<()> {
    if let Some(key) = Key::at(path) {
        // What is left empty keeps its default: YAML makes it easy to write `seed_nodes:` and nothing else.
        if !value.is_null() {
            settings.set(key, key.check(value).map_err(Error::invalid)?);
        }
        return Ok(());
    }
    if !KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))) {
        return Err(unknown(path));
    }
    match value {
        Value::Null => Ok(()),
        Value::Object(fields) => {
            fields.iter().try_for_each(|(name, value)| collect(&format!("{path}.{name}"), value, settings))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Error::invalid(format!("{path} is a section, not a key")))
        }
    }
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
