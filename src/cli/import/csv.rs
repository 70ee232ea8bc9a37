//! Comma-separated values (RFC 4180) with a header row: one document a row, one field a column.
//!
//! What is written as JSON writes a number is one, `true` and `false` (in capitals too) are booleans, and an empty
//! field is null; whether it stands in quotes does not matter, since most programs quote as they like. The field
//! `_id` is always text. A row of another length than the header, or one that is too large or not UTF-8, fails
//! alone. Not here: other separators, and nested values.

use std::collections::BTreeSet;

use csv_core::{ReadRecordResult, Reader};
use serde_json::Value;

use super::source::Source;
use super::{Record, Records};
use crate::cli::failure::{Failure, Kind, Outcome};
use crate::document::json;
use crate::limits::{CSV_COLUMNS_MAX, DOCUMENT_BYTES_MAX};

const BUFFER_BYTES: usize = 64 << 10;

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
    pub(super) fn new(source: Source, strings: bool) -> Self {
        Self {
            source,
            reader: Reader::new(),
            buffer: Vec::new(),
            at: 0,
            end: End::NotYet,
            fields: vec![0; DOCUMENT_BYTES_MAX],
            ends: vec![0; CSV_COLUMNS_MAX],
            keys: None,
            number: 0,
            strings,
        }
    }

    fn fail(&self, why: &str) -> Failure {
        Failure::new(Kind::Failed, format!("{}: {why}", self.source.name))
    }

    /// More of the file, and a line feed after its end.
    fn fill(&mut self) -> Outcome {
        self.at = 0;
        self.buffer.resize(BUFFER_BYTES, 0);
        let read = if self.end == End::NotYet { self.source.read(&mut self.buffer)? } else { 0 };
        self.buffer.truncate(read);
        if read == 0 {
            self.end = if self.end == End::NotYet { End::LineFeed } else { End::Told };
            if self.end == End::LineFeed {
                self.buffer.push(b'\n');
            }
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
            let value = if self.strings || key == "\"_id\"" { Value::from(text).to_string() } else { typed(text) };
            format!("{key}:{value}")
        };
        let fields: Vec<String> = keys.iter().zip(texts).map(field).collect();
        Ok(format!("{{{}}}", fields.join(",")).into_bytes())
    }
}

impl Records for Csv {
    fn next(&mut self) -> Outcome<Option<Record>> {
        if self.keys.is_none() {
            let Some(row) = self.row()? else { return Ok(None) };
            self.keys = Some(self.header(&row)?);
        }
        let Some(row) = self.row()? else { return Ok(None) };
        self.number += 1;
        let text = self.document(self.keys.as_deref().unwrap_or_default(), &row);
        Ok(Some(Record { number: self.number, text: text.map(Into::into) }))
    }
}

/// A field as JSON text.
fn typed(text: &str) -> String {
    match text {
        "" => "null".into(),
        "true" | "TRUE" => "true".into(),
        "false" | "FALSE" => "false".into(),
        _ if is_number(text) => text.into(),
        _ => Value::from(text).to_string(),
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && text.ends_with(|last: char| last.is_ascii_digit())
        && matches!(json::parse(text.as_bytes()), Ok(Value::Number(_)))
}

/// Writes one row as RFC 4180 has it.
pub(in crate::cli) fn write_row<'a>(out: &mut Vec<u8>, fields: impl IntoIterator<Item = &'a str>) {
    let start = out.len();
    let mut count = 0;
    for field in fields {
        if count > 0 {
            out.push(b',');
        }
        count += 1;
        let plain = !field.contains(['"', ',', '\r', '\n']) && field.trim() == field;
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
        let mut rows = Csv::new(Source::of(bytes)?, strings);
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
            json!({"_id": "1", "n": -2.5, "b": true, "e": null, "t": "a \"b\"\nc,"}),
            json!({"_id": "2", "n": "007", "b": false, "e": null, "t": "1 "}),
            json!({"_id": "3", "n": "18446744073709551616", "b": "x", "e": "-", "t": 1000.0}),
        ];
        assert_eq!(read(text, false).unwrap(), typed.map(Ok));
        assert_eq!(read(b"a,b\n1,\n", true).unwrap(), [Ok(json!({"a": "1", "b": ""}))]);
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
            write_row(&mut text, ["x", "y"]);
            rows.iter().for_each(|row| write_row(&mut text, row.iter().map(String::as_str)));
            let expected: Vec<_> = rows.iter().map(|[x, y]| Ok(json!({"x": x, "y": y}))).collect();
            prop_assert_eq!(read(&text, true), Ok(expected));
        }

        #[test]
        fn a_single_column_comes_back(rows in proptest::collection::vec("[a\"]{0,2}", 0..6)) {
            let mut text = Vec::new();
            write_row(&mut text, ["x"]);
            rows.iter().for_each(|row| write_row(&mut text, [row.as_str()]));
            let expected: Vec<_> = rows.iter().map(|x| Ok(json!({"x": x}))).collect();
            prop_assert_eq!(read(&text, true), Ok(expected));
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = read(&bytes, false);
        }
    }
}
