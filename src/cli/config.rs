//! `config`: making, checking and showing configurations. Needs no running peer.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::failure::Outcome;
use super::output::{Output, line};
use crate::Result;
use crate::config::key::{KEYS, Kind, Setting};
use crate::config::{Config, Settings, file, profile};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show every key with its value and where it comes from, as a peer started here and now would see it
    Show(Sources),
    /// Check a file as the start does, short of opening what it names
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a commented configuration (TOML) with every key at its default
    Init,
}

/// Where a configuration comes from, beside the environment.
#[derive(Debug, Args)]
pub(super) struct Sources {
    /// A configuration file: .toml, .yaml or .json
    #[arg(long, env = "AEROLITHSDB_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A built-in configuration to start from: bootstrap, worker, laptop or edge
    #[arg(long, env = "AEROLITHSDB_PROFILE", value_name = "NAME")]
    pub(super) profile: Option<String>,
}

impl Sources {
    /// The layers beneath the flags, weakest first, each with its name.
    pub(super) fn layers(&self) -> Result<Vec<(&'static str, Settings)>> {
        let mut layers = Vec::new();
        if let Some(name) = &self.profile {
            layers.push(("profile", profile::read(name)?));
        }
        if let Some(path) = &self.config {
            layers.push(("file", file::read(path)?));
        }
        // Only what is text can be a setting; a variable that is not belongs to somebody else.
        let variables =
            std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        layers.push(("environment", Settings::from_environment(variables)?));
        Ok(layers)
    }
}

pub(super) fn run(command: Command, output: Output) -> Outcome {
    match command {
        Command::Show(sources) => show(&sources.layers()?, output),
        Command::Check { file: path } => {
            let config = Config::new(&file::read(&path)?)?;
            for warning in &config.warnings {
                eprintln!("warning: {warning}");
            }
            if output.is_json_asked() {
                return output.document(&json!({"file": path, "good": true, "warnings": config.warnings}));
            }
            line(&format!("{} is good", path.display()))
        }
        Command::Init => line(template().trim_end()),
    }
}

fn show(layers: &[(&'static str, Settings)], output: Output) -> Outcome {
    let row = |key: &'static crate::config::key::Key| {
        let set = layers.iter().rev().find_map(|(name, settings)| Some((*name, settings.get(key)?)));
        let (source, value) =
            set.map_or(("default", key.default.to_owned()), |(name, setting)| (name, shown(key.kind, setting)));
        json!({"key": key.path, "value": value, "source": source, "variable": key.variable()})
    };
    let rows: Vec<Value> = KEYS.iter().filter(|key| key.built).map(row).collect();
    if output.is_table() {
        return output
            .list(&rows, &[("KEY", "/key"), ("VALUE", "/value"), ("FROM", "/source"), ("VARIABLE", "/variable")]);
    }
    let values: Map<String, Value> =
        rows.iter().filter_map(|row| Some((row["key"].as_str()?.to_owned(), row.clone()))).collect();
    output.document(&Value::Object(values))
}

fn shown(kind: Kind, setting: &Setting) -> String {
    match (kind, setting) {
        (Kind::Duration, Setting::Integer(ms)) => format!("\"{ms}ms\""),
        _ => setting.to_string(),
    }
}

/// Every key as TOML, commented out, with what it is for.
fn template() -> String {
    let mut text = String::from(
        "# The configuration of an aerolithsDB peer. Every key is shown with its default.\n\
         # Stronger than this file are environment variables (AEROLITHSDB_SECTION_KEY) and flags.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.path.rsplit_once('.').expect("every key is in a section");
        if of != section {
            text += &format!("\n[{of}]\n");
            section = of;
        }
        let later = if key.built { "" } else { " (Not built into this version.)" };
        text += &format!("# {}{later}\n# {name} = {}\n", key.doc, key.default);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::{Language, parse};

    #[test]
    fn the_template_is_a_configuration_with_every_key() {
        assert_eq!(parse(&template(), Language::Toml).unwrap(), Settings::default());
        let all: String = template()
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(set) if set.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')) => format!("{set}\n"),
                Some(_) | None => format!("{line}\n"),
            })
            .collect();
        let settings = parse(&all, Language::Toml).unwrap();
        assert_eq!(settings.paths().count(), KEYS.len());
        assert!(Config::new(&settings).is_ok());
    }
}
