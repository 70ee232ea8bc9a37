//! `config`: making, checking and showing configurations. Needs no running peer.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::failure::Outcome;
use super::output::{Output, line};
use crate::Result;
use crate::config::key::{KEYS, Kind, Setting};
use crate::config::{Config, Faults, Settings, file, profile};

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
            let mut faults = Faults::default();
            let settings = file::read_past(&path, &mut faults)?;
            let config = Config::new(&settings);
            let config = faults.take(config.map(Some));
            let Some(config) = faults.unless_any(config)? else { return Ok(()) };
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
        let mut row = json!({"key": key.path, "value": value, "source": source, "variable": key.variable()});
        if !key.built {
            row["note"] = "not built yet, has no effect".into();
        }
        row
    };
    let mut all = Settings::default();
    layers.iter().for_each(|(_, settings)| all.overlay(settings.clone()));
    // What has no effect is shown where somebody set it, and said to have none.
    let rows: Vec<Value> = KEYS.iter().filter(|key| key.built || all.get(key).is_some()).map(row).collect();
    for warning in all.warnings() {
        eprintln!("warning: {warning}");
    }
    if output.is_table() {
        let mut columns = vec![("KEY", "/key"), ("VALUE", "/value"), ("FROM", "/source"), ("VARIABLE", "/variable")];
        if rows.iter().any(|row| row.get("note").is_some()) {
            columns.push(("NOTE", "/note"));
        }
        return output.list(&rows, &columns);
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

/// Every key as TOML, commented out, with what it is for; those without effect as a list at the end, since a default
/// would say that there is one.
fn template() -> String {
    let mut text = String::from(
        "# The configuration of an aerolithsDB peer. Every key is shown with its default.\n\
         # Stronger than this file are environment variables (the path of a key in capitals, with _ for . and\n\
         # AEROLITHSDB_ in front, such as AEROLITHSDB_STORAGE_DATA_DIR) and flags.\n",
    );
    let mut section = "";
    for key in KEYS.iter().filter(|key| key.built) {
        let (of, name) = key.path.rsplit_once('.').expect("every key is in a section");
        if of != section {
            text += &format!("\n[{of}]\n");
            section = of;
        }
        text += &format!("# {}\n# {name} = {}\n", key.doc, key.default);
    }
    text += "\n# Not built yet: these keys are taken, so that files for later versions load, and have no effect.\n";
    for key in KEYS.iter().filter(|key| !key.built) {
        text += &format!("#   {}: {}\n", key.path, key.doc);
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
        assert_eq!(settings.paths().count(), KEYS.iter().filter(|key| key.built).count());
        assert_eq!(Config::new(&settings).unwrap().warnings, Vec::<String>::new());
        let (_, without_effect) =
            template().split_once("have no effect").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(KEYS.iter().filter(|key| !key.built).all(|key| without_effect.contains(key.path)));
        assert!(!without_effect.contains('='), "a default would say that there is one");
    }
}
