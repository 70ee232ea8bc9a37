//! Comma-separated values (RFC 4180) with a header row: one document a row, one field a column.
//!
//! What is written as JSON writes a number, a list or an object is one, `true` and `false` (in capitals too) are
//! booleans, `null` is null, and an empty field is left out of the document; whether it stands in quotes does not
//! matter, since most programs quote as they like. The field `_id` is always text. A row of another length than the
//! header, or one that is too large or not UTF-8, fails alone. What separates the columns is guessed from the first
//! rows, unless it is said. [`cell`] writes what this reads.

use std::collections::BTreeSet;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use serde_json::Value;

use super::source::Source;
use super::{Record, Records};
use crate::cli::failure::{Failure, Kind, Outcome};
use crate::document::json;
use crate::limits::{CSV_COLUMNS_MAX, DOCUMENT_BYTES_MAX};

const BUFFER_BYTES: usize = 64 << 10;
/// What may separate columns without being named; of two that fit as well, the later one does.
const DELIMITERS: [u8; 3] = [b'\t', b';', b','];
/// What else is used for that, and must be named.
const OTHER_DELIMITERS: [char; 4] = ['|', ':', '^', '~'];
/// Rows that are looked at for what separates the columns.
const GUESS_ROWS: usize = 20;

/// What separates columns, as the command line has it: one character, or `tab`.
///
/// # Errors
/// For what cannot separate columns.
pub(in crate::cli) fn delimiter(text: &str) -> Result<u8, String> {
    match (text, text.as_bytes()) {
        ("tab" | "\\t", _) => Ok(b'\t'),
        (_, &[byte]) if byte.is_ascii() && !b"\"\r\n".contains(&byte) => Ok(byte),
        _ => Err("use one ASCII character, such as ; or |, or tab".into()),
    }
}

/// What separates columns, as a person reads it.
fn shown(delimiter: u8) -> String {
    if delimiter == b'\t' { "a tab".into() } else { format!("{:?}", char::from(delimiter)) }
}

/// Reads rows of a file.
pub(super) struct Csv {
    source: Source,
    reader: Reader,
    /// Read from the file; what is from `at` on was not looked at.
    buffer: Vec<u8>,
    at: usize,
    end: End,
    /// The fields of a row one after the other, and where each ends.
    fields: Vec<u8>,
    ends: Vec<usize>,
    /// The keys as JSON text; `None` before the header was read.
    keys: Option<Vec<String>>,
    number: u64,
    strings: bool,
    /// What separates the columns; `None` when it is to be guessed.
    delimiter: Option<u8>,
}

/// How the end of the file was told to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// A line feed, which ends the last row, unless that is within quotes.
    LineFeed,
    Told,
}

/// A row that was read into `fields`.
struct Row {
    columns: usize,
    too_large: bool,
}

impl Csv {
    /// `strings` leaves all fields as text.
    pub(super) fn new(source: Source, strings: bool, delimiter: Option<u8>) -> Self {
        Self {
            source,
            reader: reader(delimiter.unwrap_or(b',')),
            buffer: Vec::new(),
            at: 0,
            end: End::NotYet,
            fields: vec![0; DOCUMENT_BYTES_MAX],
            ends: vec![0; CSV_COLUMNS_MAX],
            keys: None,
            number: 0,
            strings,
            delimiter,
        }
    }

    fn fail(&self, why: &str) -> Failure {
        Failure::new(Kind::Failed, format!("{}: {why}", self.source.name))
    }

    /// More of the file, and a line feed after its end.
    fn fill(&mut self) -> Outcome {
        self.at = 0;
        self.buffer.resize(BUFFER_BYTES, 0);
        let mut read = 0;
        while self.end == End::NotYet && read < BUFFER_BYTES {
            match self.source.read(&mut self.buffer[read..])? {
                0 => break,
                more => read += more,
            }
        }
        self.buffer.truncate(read);
        if read == 0 {
            self.end = if self.end == End::NotYet { End::LineFeed } else { End::Told };
            if self.end == End::LineFeed {
                self.buffer.push(b'\n');
            }
        }
        Ok(())
    }

    /// Reads the first piece, and finds out from it what separates the columns.
    fn begin(&mut self) -> Outcome {
        self.fill()?;
        if self.delimiter.is_none() {
            let guess = guess(&self.buffer);
            if guess != b',' {
                eprintln!("the columns are taken to have {} between them; --delimiter says otherwise", shown(guess));
            }
            self.reader = reader(guess);
        }
        Ok(())
    }

    fn row(&mut self) -> Outcome<Option<Row>> {
        let (mut written, mut columns, mut too_large) = (0, 0, false);
        loop {
            if self.at == self.buffer.len() {
                self.fill()?;
            }
            let (input, fields, ends) =
                (&self.buffer[self.at..], &mut self.fields[written..], &mut self.ends[columns..]);
            let (result, read, more, ended) = self.reader.read_record(input, fields, ends);
            self.at += read;
            written += more;
            columns += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                // What does not fit is read on and thrown away.
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (written, columns, too_large) = (0, 0, true);
                }
                ReadRecordResult::Record if self.end == End::Told => {
                    let why = format!("it is cut: it ends within quotes, in row {}", self.number + 1);
                    return Err(self.fail(&why));
                }
                ReadRecordResult::Record => return Ok(Some(Row { columns, too_large })),
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    fn texts(&self, row: &Row) -> Result<Vec<&str>, String> {
        if row.too_large {
            return Err(format!("larger than {DOCUMENT_BYTES_MAX} bytes or {CSV_COLUMNS_MAX} fields"));
        }
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let ranges = starts.zip(&self.ends[..row.columns]);
        let text = |(start, &end): (usize, &usize)| str::from_utf8(&self.fields[start..end]).ok();
        ranges.map(text).collect::<Option<_>>().ok_or_else(|| "not valid UTF-8; convert the file first".into())
    }

    fn header(&self, row: &Row) -> Outcome<Vec<String>> {
        let names = self.texts(row).map_err(|why| self.fail(&format!("its header is {why}")))?;
        if let ([name], None) = (&names[..], self.delimiter)
            && let Some(other) = OTHER_DELIMITERS.into_iter().find(|other| name.matches(*other).count() > 1)
        {
            let start: String = name.chars().take(60).collect();
            let why = format!(
                "its header is one column, {start:?}, which looks like several with {other:?} between them: say \
                 --delimiter '{other}', or --delimiter , when it is one"
            );
            return Err(Failure::new(Kind::Usage, format!("{}: {why}", self.source.name)));
        }
        let mut seen = BTreeSet::new();
        for name in &names {
            if name.is_empty() {
                return Err(self.fail("its header has a column without a name; the first row names the columns"));
            }
            if !seen.insert(name) {
                return Err(self.fail(&format!("its header names the column {name:?} twice")));
            }
        }
        Ok(names.into_iter().map(|name| Value::from(name).to_string()).collect())
    }

    fn document(&self, keys: &[String], row: &Row) -> Result<Vec<u8>, String> {
        let texts = self.texts(row)?;
        if texts.len() != keys.len() {
            return Err(format!("it has {} fields, the header has {}", texts.len(), keys.len()));
        }
        let field = |(key, text): (&String, &str)| {
            let is_text = self.strings || key == "\"_id\"";
            let value = if is_text { Some(Value::from(text).to_string()) } else { typed(text) };
            value.map(|value| format!("{key}:{value}"))
        };
        let fields: Vec<String> = keys.iter().zip(texts).filter_map(field).collect();
        Ok(format!("{{{}}}", fields.join(",")).into_bytes())
    }
}

impl Records for Csv {
    fn next(&mut self) -> Outcome<Option<Record>> {
        if self.keys.is_none() {
            self.begin()?;
            let Some(row) = self.row()? else { return Ok(None) };
            self.keys = Some(self.header(&row)?);
        }
        let Some(row) = self.row()? else { return Ok(None) };
        self.number += 1;
        let text = self.document(self.keys.as_deref().unwrap_or_default(), &row);
        Ok(Some(Record { number: self.number, text: text.map(Into::into) }))
    }
}

fn reader(delimiter: u8) -> Reader {
    ReaderBuilder::new().delimiter(delimiter).build()
}

/// What separates the columns of a text that begins so: what cuts its first rows into as many fields as the header, and
/// the most.
fn guess(text: &[u8]) -> u8 {
    let quality = |delimiter: &u8| {
        let widths = widths(text, *delimiter);
        let header = widths.first().copied().unwrap_or(1);
        (header > 1 && widths.iter().all(|width| *width == header), header)
    };
    DELIMITERS.into_iter().max_by_key(quality).unwrap_or(b',')
}

/// The fields of the first rows, empty ones and one that is cut aside.
fn widths(text: &[u8], delimiter: u8) -> Vec<usize> {
    let (mut widths, mut fields, mut is_quoted, mut is_empty) = (Vec::new(), 1, false, true);
    for &byte in text {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\n' if !is_quoted => {
                if !is_empty {
                    widths.push(fields);
                }
                (fields, is_empty) = (1, true);
                if widths.len() == GUESS_ROWS {
                    break;
                }
                continue;
            }
            _ if byte == delimiter && !is_quoted => fields += 1,
            _ => {}
        }
        is_empty &= byte == b'\r';
    }
    widths
}

/// A field as JSON text; `None` for one that is left out.
fn typed(text: &str) -> Option<String> {
    Some(match text {
        "" => return None,
        "null" => "null".into(),
        "true" | "TRUE" => "true".into(),
        "false" | "FALSE" => "false".into(),
        _ if is_number(text) => text.into(),
        _ if text.starts_with(['[', '{']) => match json::parse(text.as_bytes()) {
            Ok(nested @ (Value::Array(_) | Value::Object(_))) => nested.to_string(),
            Ok(_) | Err(_) => Value::from(text).to_string(),
        },
        _ => Value::from(text).to_string(),
    })
}

/// A value as a field: what is nested stands there as JSON.
pub(in crate::cli) fn cell(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Whether a field is read as what it was written for: not so a text that looks like something else.
pub(in crate::cli) fn comes_back(name: &str, value: Option<&Value>, cell: &str) -> bool {
    match value {
        None => cell.is_empty(),
        Some(Value::String(_)) if name == "_id" => true,
        // Nothing looks like a number, a list or an object but what begins so.
        Some(Value::String(text)) => typed(text).is_some_and(|read| read.starts_with('"')),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => true,
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && text.ends_with(|last: char| last.is_ascii_digit())
        && matches!(json::parse(text.as_bytes()), Ok(Value::Number(_)))
}

/// Writes one row as RFC 4180 has it.
pub(in crate::cli) fn write_row<'a>(out: &mut Vec<u8>, delimiter: u8, fields: impl IntoIterator<Item = &'a str>) {
    let start = out.len();
    let mut count = 0;
    for field in fields {
        if count > 0 {
            out.push(delimiter);
        }
        count += 1;
        let plain = !field.contains(['"', char::from(delimiter), '\r', '\n']) && field.trim() == field;
        if plain {
            out.extend_from_slice(field.as_bytes());
        } else {
            out.extend_from_slice(format!("\"{}\"", field.replace('"', "\"\"")).as_bytes());
        }
    }
    // A row that is empty would be passed over.
    if out.len() == start && count == 1 {
        out.extend_from_slice(b"\"\"");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(bytes: &[u8], strings: bool) -> Outcome<Vec<Result<Value, String>>> {
        read_by(bytes, strings, None)
    }

    fn read_by(bytes: &[u8], strings: bool, delimiter: Option<u8>) -> Outcome<Vec<Result<Value, String>>> {
        let mut rows = Csv::new(Source::of(bytes)?, strings, delimiter);
        let mut found = Vec::new();
        while let Some(record) = rows.next()? {
            found.push(record.text.map(|text| json::parse(&text).unwrap()));
            assert_eq!(record.number, found.len() as u64);
        }
        Ok(found)
    }

    #[test]
    fn fields_have_types_unless_they_shall_not() {
        let text =
            b"_id,n,b,e,t\r\n1,-2.5,TRUE,,\"a \"\"b\"\"\nc,\"\r\n2,007,false,\"\",1 \n3,18446744073709551616,x,-,1e3";
        let typed = [
            json!({"_id": "1", "n": -2.5, "b": true, "t": "a \"b\"\nc,"}),
            json!({"_id": "2", "n": "007", "b": false, "t": "1 "}),
            json!({"_id": "3", "n": "18446744073709551616", "b": "x", "e": "-", "t": 1000.0}),
        ];
        assert_eq!(read(text, false).unwrap(), typed.map(Ok));
        assert_eq!(read(b"a,b\n1,\n", true).unwrap(), [Ok(json!({"a": "1", "b": ""}))]);
    }

    #[test]
    fn what_separates_columns_is_guessed_from_the_first_rows() {
        let expected = [Ok(json!({"name": "a", "price": "1,5"})), Ok(json!({"name": "b;c", "price": 2}))];
        assert_eq!(read(b"name;price\na;1,5\n\"b;c\";2\n", false).unwrap(), expected);
        assert_eq!(read(b"name\tprice\r\na\t1,5\r\nb;c\t2", false).unwrap(), expected);
        assert_eq!(read(b"\nname,price\na,\"1,5\"\n\nb;c,2\n", false).unwrap(), expected);
        assert_eq!(read_by(b"name|price\na|1,5\nb;c|2\n", false, Some(b'|')).unwrap(), expected);
        // Rows of other lengths do not make up for a header that says nothing.
        assert_eq!(read(b"a,b\n1;2\n", false).unwrap(), [Err("it has 1 fields, the header has 2".into())]);
        assert_eq!(read(b"a\n1;2\n", false).unwrap(), [Ok(json!({"a": "1;2"}))]);
        for (word, byte) in [("tab", b'\t'), ("\\t", b'\t'), (";", b';'), ("|", b'|')] {
            assert_eq!(delimiter(word), Ok(byte));
        }
        for wrong in ["", "\"", "\n", ";;", "ä"] {
            assert!(delimiter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_of_one_column_that_looks_like_many_is_questioned() {
        let failure = read(b"a|b|c\n1|2|3\n", false).unwrap_err();
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.message.contains("--delimiter '|'"), "{}", failure.message);
        assert_eq!(read_by(b"a|b|c\nx\n", false, Some(b',')).unwrap(), [Ok(json!({"a|b|c": "x"}))]);
        assert_eq!(read(b"a|b\nx\n", false).unwrap(), [Ok(json!({"a|b": "x"}))]);
    }

    #[test]
    fn values_come_back_or_it_is_known_that_they_do_not() {
        for (value, comes) in [
            (None, true),
            (Some(json!(null)), true),
            (Some(json!(["x", {"y": [1, 2.5, null]}])), true),
            (Some(json!({"a": "b,\"c\"\n"})), true),
            (Some(json!({})), true),
            (Some(json!(1e300)), true),
            (Some(json!(-0.0)), true),
            (Some(json!(u64::MAX)), true),
            (Some(json!("007")), true),
            (Some(json!("[not a list")), true),
            (Some(json!("5")), false),
            (Some(json!("")), false),
            (Some(json!("true")), false),
            (Some(json!("null")), false),
            (Some(json!("[1]")), false),
        ] {
            let written = cell(value.as_ref());
            assert_eq!(comes_back("a", value.as_ref(), &written), comes, "{value:?}");
            let mut text = b"_id,a\r\n".to_vec();
            write_row(&mut text, b',', ["1", &written]);
            let row = read(&text, false).unwrap().remove(0).unwrap();
            assert_eq!(row.get("a") == value.as_ref(), comes, "{value:?} became {row}");
        }
        assert!(comes_back("_id", Some(&json!("5")), "5"));
    }

    #[test]
    fn bad_rows_fail_alone() {
        let text =
            [b"a,b\n1\n1,2,3\n\xff,1\n\n\"".as_slice(), &vec![b'x'; 2 * DOCUMENT_BYTES_MAX], b"\",1\n1,2\n"].concat();
        let rows = read(&text, false).unwrap();
        assert_eq!(rows.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, false, false, true]);
        assert_eq!(rows[4], Ok(json!({"a": 1, "b": 2})));
    }

    #[test]
    fn a_header_that_is_none_and_a_cut_file_are_failures() {
        for bad in ["a,a\n1,2", "a,\n1,2", "\"a\n1,2", "a\n\"1\n2\n", "a\n1\n\""] {
            assert!(read(bad.as_bytes(), false).is_err(), "{bad}");
        }
        for empty in ["", "\n", "a,b", "a,b\r\n"] {
            assert_eq!(read(empty.as_bytes(), false), Ok(vec![]), "{empty}");
        }
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in proptest::collection::vec(["[a\",\r\n é]{0,4}", "[a\",\r\n é]{0,4}"], 0..6)) {
            let mut text = Vec::new();
            write_row(&mut text, b',', ["x", "y"]);
            rows.iter().for_each(|row| write_row(&mut text, b',', row.iter().map(String::as_str)));
            let expected: Vec<_> = rows.iter().map(|[x, y]| Ok(json!({"x": x, "y": y}))).collect();
            prop_assert_eq!(read_by(&text, true, Some(b',')), Ok(expected));
        }

        #[test]
        fn a_single_column_comes_back(rows in proptest::collection::vec("[a\"]{0,2}", 0..6)) {
            let mut text = Vec::new();
            write_row(&mut text, b',', ["x"]);
            rows.iter().for_each(|row| write_row(&mut text, b',', [row.as_str()]));
            let expected: Vec<_> = rows.iter().map(|x| Ok(json!({"x": x}))).collect();
            prop_assert_eq!(read_by(&text, true, Some(b',')), Ok(expected));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = read(&bytes, false);
        }
    }
}
