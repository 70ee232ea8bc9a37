//! How answers are shown: tables for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::failure::{Failure, Kind, Outcome};

/// Characters of a nested value in a cell.
const CELL_CHARS_MAX: usize = 100;

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON text.
    Json,
    /// A table for people.
    Table,
    /// One JSON text a line, for each item of a list.
    Ndjson,
}

/// A column or a line: its title, and where its value is as a JSON pointer.
pub(super) type Field = (&'static str, &'static str);

/// Where answers go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    format: Format,
    is_terminal: bool,
}

impl Output {
    /// The form that was asked for, else tables on a terminal and JSON in a pipe.
    pub(super) fn new(format: Option<Format>) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let default = if is_terminal { Format::Table } else { Format::Json };
        Self { format: format.unwrap_or(default), is_terminal }
    }

    /// Whether a person reads along.
    pub(super) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// Whether a person reads along, and nothing was asked for but the plain thing.
    pub(super) fn is_for_person(self) -> bool {
        self.is_terminal && self.is_table()
    }

    /// Shows a document: JSON in any form, since its fields are its own.
    pub(super) fn document(self, document: &Value) -> Outcome {
        match self.format {
            Format::Table | Format::Json if self.is_terminal => line(&pretty(document)),
            Format::Json | Format::Table | Format::Ndjson => line(&compact(document)),
        }
    }

    /// Shows one thing: the fields as lines of a table, or all of it as JSON.
    pub(super) fn thing(self, thing: &Value, fields: &[Field]) -> Outcome {
        if !self.is_table() {
            return self.document(thing);
        }
        let mut table = table();
        for (title, pointer) in fields {
            table.add_row([(*title).to_owned(), cell(thing.pointer(pointer))]);
        }
        text(&table)
    }

    /// Shows a line of text that may hold anything.
    pub(super) fn text(self, text: &str) -> Outcome {
        line(&printable(text))
    }

    /// Shows a list: the fields as columns of a table, or all of it as JSON.
    pub(super) fn list(self, items: &[Value], fields: &[Field]) -> Outcome {
        match self.format {
            Format::Json => self.document(&Value::Array(items.to_vec())),
            Format::Ndjson => items.iter().try_for_each(|item| line(&compact(item))),
            Format::Table if items.is_empty() => line("(none)"),
            Format::Table => {
                let mut table = table();
                table.set_header(fields.iter().map(|(title, _)| *title));
                for item in items {
                    table.add_row(fields.iter().map(|(_, pointer)| cell(item.pointer(pointer))));
                }
                text(&table)
            }
        }
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn text(table: &Table) -> Outcome {
    table.lines().try_for_each(|row| line(row.trim_end()))
}

/// A value as people read it.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::Bool(true)) => "yes".into(),
        Some(Value::Bool(false)) => "no".into(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Array(items)) if items.is_empty() => "-".into(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            return items.iter().filter_map(Value::as_str).map(printable).collect::<Vec<_>>().join("\n");
        }
        Some(Value::Object(fields)) if fields.is_empty() => "-".into(),
        Some(other @ (Value::Number(_) | Value::Array(_) | Value::Object(_))) => other.to_string(),
    };
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

/// Without characters that could drive the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A value whose outermost keys stand as the gateway wrote them where they are a document's: its name first.
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (Value::Object(fields), true) = (self.0, self.0.get("heads").is_some()) else {
            return self.0.serialize(serializer);
        };
        let first = ["id", "collection", "data"];
        let named = first.iter().filter_map(|name| fields.get_key_value(*name));
        let rest = fields.iter().filter(|(name, _)| !first.contains(&name.as_str()));
        serializer.collect_map(named.chain(rest))
    }
}

fn compact(value: &Value) -> String {
    serde_json::to_string(&Ordered(value)).expect("a JSON value is JSON")
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(&Ordered(value)).expect("a JSON value is JSON")
}

/// Prints a line. A reader that has gone (`| head`) ends the command without a word.
pub(super) fn line(text: &str) -> Outcome {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(Kind::Failed, format!("the output cannot be written: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_shows_its_name_first() {
        let document = json!({"collection": "c", "data": {"b": 1, "a": 2}, "heads": [], "id": "i"});
        assert_eq!(compact(&document), r#"{"id":"i","collection":"c","data":{"a":2,"b":1},"heads":[]}"#);
        assert_eq!(compact(&json!({"b": 1, "a": 2})), r#"{"a":2,"b":1}"#);
    }

    #[test]
    fn cells_are_short_and_harmless() {
        for (value, text) in [
            (json!(null), "-"),
            (json!(true), "yes"),
            (json!("a\u{1b}[2Jb"), "a\u{fffd}[2Jb"),
            (json!(["a", "b"]), "a\nb"),
            (json!([]), "-"),
            (json!({"a": 1}), "{\"a\":1}"),
        ] {
            assert_eq!(cell(Some(&value)), text);
        }
        assert_eq!(cell(Some(&json!("x".repeat(500)))).chars().count(), CELL_CHARS_MAX);
        assert_eq!(cell(None), "-");
    }
}
