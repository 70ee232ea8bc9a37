//! How answers are shown: tables for people, JSON for programs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::failure::{Failure, Kind, Outcome};
use super::quantity;
use crate::base::{PeerId, Timestamp};
use crate::value::ID_FIELD;

/// Characters of a nested value in a cell.
const CELL_CHARS_MAX: usize = 100;

/// Columns of documents whose fields are their own: what fits the widest screens.
const COLUMNS_MAX: usize = 10;

/// Characters that a column needs to be readable.
const COLUMN_CHARS: usize = 12;

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
    /// Whether the form was asked for.
    is_asked: bool,
    /// Whether documents are shown as their fields alone.
    is_flat: bool,
}

impl Output {
    /// The form that was asked for, else tables on a terminal and JSON in a pipe.
    pub(super) fn new(format: Option<Format>, is_flat: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let default = if is_terminal { Format::Table } else { Format::Json };
        Self { format: format.unwrap_or(default), is_terminal, is_asked: format.is_some(), is_flat }
    }

    /// Whether a person reads along.
    pub(super) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// Whether JSON was asked for, not only chosen for a pipe.
    pub(super) fn is_json_asked(self) -> bool {
        self.is_asked && !self.is_table()
    }

    /// Whether a list is one JSON text, which a pipe alone does not make it where items may be many.
    fn is_json_list(self) -> bool {
        self.is_asked && self.format == Format::Json
    }

    /// Whether documents are shown as their fields alone.
    pub(super) fn is_flat(self) -> bool {
        self.is_flat
    }

    /// Shows a document: JSON in any form, since its fields are its own.
    pub(super) fn document(self, document: &Value) -> Outcome {
        let flat = if self.is_flat { flat(document) } else { None };
        let document = flat.as_ref().unwrap_or(document);
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
        text(&block(thing, fields, Fields::now()))
    }

    /// Shows a line of text that may hold anything.
    pub(super) fn text(self, text: &str) -> Outcome {
        line(&printable(text))
    }

    /// Shows a list: the fields as columns of a table, or all of it as JSON.
    pub(super) fn list(self, items: &[Value], fields: &[(&str, &str)]) -> Outcome {
        match self.format {
            Format::Json => self.document(&Value::Array(items.to_vec())),
            Format::Ndjson => items.iter().try_for_each(|item| line(&compact(item))),
            Format::Table if items.is_empty() => line("(none)"),
            Format::Table => {
                let table = columns(items, fields, Fields::now());
                if fits(&table) {
                    return text(&table);
                }
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        line("")?;
                    }
                    text(&block(item, fields, Fields::now()))?;
                }
                Ok(())
            }
        }
    }
}

/// Documents, or other values, that come page by page: a line of JSON for each in a pipe, a table of each page on a
/// terminal, one list where JSON was asked for.
#[derive(Debug)]
pub(super) struct Rows {
    output: Output,
    count: usize,
}

impl Rows {
    pub(super) fn new(output: Output) -> Self {
        Self { output, count: 0 }
    }

    /// Shows a page.
    pub(super) fn page(&mut self, items: &[Value]) -> Outcome {
        if self.output.is_table() {
            if self.count > 0 && !items.is_empty() {
                line("")?;
            }
            self.count += items.len();
            return documents(items);
        }
        for item in items {
            let before = match (self.output.is_json_list(), self.count) {
                (false, _) => "",
                (true, 0) => "[",
                (true, _) => ",",
            };
            line(&format!("{before}{item}"))?;
            self.count += 1;
        }
        Ok(())
    }

    /// Shows that there are no more.
    pub(super) fn end(self) -> Outcome {
        match (self.output.is_table(), self.output.is_json_list(), self.count) {
            (true, _, 0) => line("(none)"),
            (false, true, 0) => line("[]"),
            (false, true, _) => line("]"),
            (true | false, _, _) => Ok(()),
        }
    }
}

/// A document as queries and exports show it, its id among its fields; `None` for what is no document with its envelope.
pub(super) fn flat(document: &Value) -> Option<Value> {
    let (id, data) = (document.get("id")?, document.get("data")?.as_object()?);
    document.get("heads")?;
    let named = std::iter::once((ID_FIELD.to_owned(), id.clone()));
    Some(Value::Object(named.chain(data.clone()).collect()))
}

/// Documents as rows: as many of their fields as there is room for, those first that most of them have.
fn documents(items: &[Value]) -> Outcome {
    if items.is_empty() {
        return Ok(());
    }
    let names = common_fields(items);
    let titles: Vec<(String, String)> = names.iter().map(|name| (printable(name), pointer(name))).collect();
    let fields: Vec<(&str, &str)> = titles.iter().map(|(title, pointer)| (title.as_str(), pointer.as_str())).collect();
    let fitting =
        (1..=fields.len().min(COLUMNS_MAX)).rev().find(|count| fits(&columns(items, &fields[..*count], Fields::Any)));
    let count = fitting.unwrap_or(fields.len().min(1));
    text(&columns(items, &fields[..count], Fields::Any))?;
    if count < fields.len() {
        let rest: Vec<&str> = fields[count..].iter().take(COLUMNS_MAX).map(|(title, _)| *title).collect();
        let more = if fields.len() - count > rest.len() { ", ..." } else { "" };
        eprintln!("not shown: {}{more}; --output ndjson shows all, --projection chooses", rest.join(", "));
    }
    Ok(())
}

/// The fields of documents: `_id` first, then those that the most have.
fn common_fields(items: &[Value]) -> Vec<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in items.iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys) {
        *counts.entry(name).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(name, count)| (*name != ID_FIELD, Reverse(*count)));
    counts.into_iter().map(|(name, _)| name).collect()
}

/// Where a field is, as a JSON pointer.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    // So says a terminal that does not know how wide it is.
    if table.width() == Some(0) {
        table.set_width(80);
    }
    table
}

/// What fields are, which decides how they are shown.
#[derive(Debug, Clone, Copy)]
enum Fields {
    /// The interface's own, whose names say what they count, as people read them at this time.
    Known(Timestamp),
    /// Those of documents: as they are.
    Any,
}

impl Fields {
    fn now() -> Self {
        Self::Known(quantity::now())
    }

    fn cell(self, item: &Value, pointer: &str) -> String {
        let value = item.pointer(pointer);
        let readable = match (self, value) {
            (Self::Known(now), Some(value)) => quantity::readable(pointer, value, now),
            (Self::Known(_), None) | (Self::Any, _) => None,
        };
        readable.unwrap_or_else(|| cell(value))
    }
}

/// Items as rows, fields as columns; numbers stand to the right, so that they can be compared.
fn columns(items: &[Value], fields: &[(&str, &str)], kind: Fields) -> Table {
    let mut table = table();
    table.set_header(fields.iter().map(|(title, _)| *title));
    for item in items {
        table.add_row(fields.iter().map(|(_, pointer)| kind.cell(item, pointer)));
    }
    for (index, (_, pointer)) in fields.iter().enumerate() {
        let mut values =
            items.iter().filter_map(|item| item.pointer(pointer)).filter(|value| !value.is_null()).peekable();
        if values.peek().is_some()
            && values.all(Value::is_number)
            && let Some(column) = table.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    keep_ids(&mut table);
    table
}

/// One item, its fields as rows. The titles are never broken: what is left of the line is for the values.
fn block(item: &Value, fields: &[(&str, &str)], kind: Fields) -> Table {
    let mut table = table();
    for (title, pointer) in fields {
        table.add_row([(*title).to_owned(), kind.cell(item, pointer)]);
    }
    keep_ids(&mut table);
    if let Some(titles) = table.column_mut(0) {
        titles.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// Makes columns that hold peer ids as wide as those: an id that is broken cannot be copied.
fn keep_ids(table: &mut Table) {
    for index in 0..table.column_count() {
        if let Some(width) = id_width(table, index)
            && let Some(column) = table.column_mut(index)
        {
            let (left, right) = (1, 1);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + left + right)));
        }
    }
}

/// Characters of the longest line of a column that holds a peer id.
fn id_width(table: &Table, column: usize) -> Option<u16> {
    let cells = table.column_cells_iter(column).flatten().map(Cell::content);
    let lines = cells.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    let widths = lines.filter(|line| holds_id(line)).map(|line| line.chars().count());
    widths.max().map(|width| u16::try_from(width).unwrap_or(u16::MAX / 2))
}

fn holds_id(text: &str) -> bool {
    text.split('/').any(|part| part.len() > COLUMN_CHARS && part.parse::<PeerId>().is_ok())
}

/// Whether a table has room beside its ids; where it has not, its other columns would be a few letters wide.
fn fits(table: &Table) -> bool {
    let Some(room) = table.width() else { return true };
    let widths = table.column_max_content_widths().into_iter().enumerate();
    let needed = widths.map(|(index, width)| id_width(table, index).unwrap_or(width.min(COLUMN_CHARS as u16)) + 2);
    needed.fold(0, u16::saturating_add) <= room
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
    if text.chars().count() <= CELL_CHARS_MAX || holds_id(&text) {
        return text;
    }
    text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

/// Without characters that could drive the terminal.
pub(super) fn printable(text: &str) -> String {
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
        assert_eq!(flat(&document), Some(json!({"_id": "i", "a": 2, "b": 1})));
        assert_eq!(flat(&json!({"id": "i", "data": 1})), None);
    }

    #[test]
    fn peer_ids_are_never_broken() {
        let ids: Vec<String> =
            (0..2).map(|n| crate::identity::Keypair::from_seed([n; 32]).peer_id().to_string()).collect();
        let address = format!("/ip4/192.168.100.100/udp/4001/quic-v1/p2p/{}/p2p-circuit/p2p/{}", ids[0], ids[1]);
        assert_eq!(cell(Some(&json!(address))), address);
        let item = |id: &String| json!({"peer": id, "note": "some words about this peer", "at": [address]});
        let items: Vec<Value> = ids.iter().map(item).collect();
        let fields = [("PEER", "/peer"), ("NOTE", "/note"), ("AT", "/at"), ("MORE", "/note")];
        for width in [20, 60, 80, 120, 180, 300] {
            let mut table = columns(&items, &fields, Fields::Any);
            table.set_width(width);
            if fits(&table) {
                let text = table.lines().collect::<Vec<_>>().join("\n");
                assert!(ids.iter().all(|id| text.contains(id)) && text.contains(&address), "{width}:\n{text}");
                assert!(table.lines().all(|line| line.chars().count() <= usize::from(width)), "{width}:\n{text}");
            }
            let mut table = block(&items[0], &fields, Fields::Any);
            table.set_width(width);
            let text = table.lines().collect::<Vec<_>>().join("\n");
            assert!(text.contains(&ids[0]) && text.contains(&address), "{width}:\n{text}");
        }
        let fits_in = |width| fits(columns(&items, &fields, Fields::Any).set_width(width));
        assert!(!fits_in(120) && fits_in(300));
    }

    #[test]
    fn titles_are_never_broken_and_numbers_stand_to_the_right() {
        let id = crate::identity::Keypair::from_seed([1; 32]).peer_id().to_string();
        let item = json!({"at": format!("/ip6/fe80::fc:ff:fe00:1/udp/4001/quic-v1/p2p/{id}"), "uptime_s": 90, "n": 1});
        let fields = [("RELAYS FOR OTHERS", "/n"), ("LISTENS ON", "/at"), ("UPTIME", "/uptime_s")];
        for width in [20, 40, 80, 200] {
            let mut table = block(&item, &fields, Fields::now());
            let text = table.set_width(width).lines().collect::<Vec<_>>().join("\n");
            assert!(fields.iter().all(|(title, _)| text.contains(title)) && text.contains("1 min 30 s"), "{text}");
        }
        let items = [json!({"name": "a", "n": 5, "bytes": 2_048}), json!({"name": "bcd", "n": 171_075, "bytes": null})];
        let table = columns(&items, &[("NAME", "/name"), ("COUNT", "/n"), ("BYTES", "/bytes")], Fields::now());
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines, [" NAME   COUNT    BYTES", " a          5  2.0 KiB", " bcd   171075        -"]);
    }

    #[test]
    fn documents_show_the_fields_first_that_most_have() {
        let items = [
            json!({"_id": "a", "name": "Ada", "A/b~": 1}),
            json!({"_id": "b", "name": "Bo", "z": 1}),
            json!({"name": "Cy", "z": 2, "a": 3}),
        ];
        let names = common_fields(&items);
        assert_eq!(names, ["_id", "name", "z", "A/b~", "a"]);
        assert_eq!(items[0].pointer(&pointer("A/b~")), Some(&json!(1)));
        assert!(common_fields(&[json!(1)]).is_empty());
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
