//! `export`: a collection into a file, document by document.
//!
//! The file is written beside its place and moved there when it is whole: what is there is never half an export. CSV
//! takes two readings, unless the columns are given: which fields there are is known at the end of the first.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json as shape_of};
use ureq::http::Method;

use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::import::Format;
use super::import::csv::write_row;
use super::import::extended::extended;
use super::output::{Output, printable};
use crate::document::json;
use crate::gateway::path_segment;
use crate::limits::{ANSWER_LINE_BYTES_MAX, CSV_COLUMNS_MAX, DOCUMENT_DEPTH_MAX};

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The collection
    collection: String,
    /// The file, or - for standard output; .gz and .zst are packed
    #[arg(default_value = "-")]
    file: PathBuf,
    /// What is written; by default what the name of the file says (.ndjson, .jsonl, .json, .csv), and NDJSON otherwise
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The columns of CSV, separated by commas; by default all fields there are
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    columns: Option<Vec<String>>,
}

pub(super) fn run(export: &Export, peer: &Peer, output: Output) -> Outcome {
    let collection = format!("/api/v1/collections/{}", path_segment(&export.collection));
    let total = peer.get(&collection)?["documents"].as_u64().unwrap_or(0);
    let path = format!("{collection}/documents");
    let format = export.format.or_else(|| Format::of(&export.file)).unwrap_or(Format::Ndjson);
    let columns = match (format, &export.columns) {
        (Format::Csv, Some(columns)) => columns.clone(),
        (Format::Csv, None) => columns(peer, &path, total)?,
        (Format::Ndjson | Format::Json | Format::Extjson, None) => Vec::new(),
        (Format::Ndjson | Format::Json | Format::Extjson, Some(_)) => {
            return Err(Failure::new(Kind::Usage, "--columns is for CSV; name the file .csv or give --format csv"));
        }
    };
    let mut target = Target::open(&export.file)?;
    let mut shape = Shape { format, columns: &columns, count: 0 };
    target.write(&shape.head())?;
    let bar = bar(total);
    read(peer, &path, |line| {
        bar.inc(1);
        target.write(&shape.document(line)?)
    })?;
    target.write(shape.foot())?;
    target.finish()?;
    bar.finish_and_clear();
    check_damage(peer, &export.collection)?;
    if export.file == Path::new("-") {
        return Ok(());
    }
    let shown = shape_of!({"documents": shape.count, "file": export.file});
    output.thing(&shown, &[("DOCUMENTS", "/documents"), ("FILE", "/file")])
}

/// Reads the documents of a collection as lines.
fn read(peer: &Peer, path: &str, mut each: impl FnMut(&[u8]) -> Outcome) -> Outcome {
    let mut lines = peer.lines(Method::GET, path, None)?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let broken = |error| Failure::new(Kind::Unavailable, format!("the peer broke off before the end: {error}"));
        if lines.by_ref().take(ANSWER_LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(broken)? == 0 {
            return Ok(());
        }
        match line.strip_suffix(b"\n") {
            Some(line) => each(line)?,
            None => return Err(Failure::new(Kind::Unavailable, "the peer broke off within a document")),
        }
    }
}

fn object(line: &[u8]) -> Outcome<Map<String, Value>> {
    match json::parse_made(line, DOCUMENT_DEPTH_MAX) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(Failure::new(Kind::Failed, "the peer sent something that is no document")),
    }
}

/// All fields of all documents, `_id` first.
fn columns(peer: &Peer, path: &str, total: u64) -> Outcome<Vec<String>> {
    let bar = bar(total);
    let mut names = BTreeSet::new();
    read(peer, path, |line| {
        bar.inc(1);
        names.extend(object(line)?.into_iter().map(|(name, _)| name));
        if names.len() > CSV_COLUMNS_MAX {
            let why = format!("the documents have more than {CSV_COLUMNS_MAX} fields; choose some with --columns");
            return Err(Failure::new(Kind::Failed, why));
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    names.remove("_id");
    Ok(["_id".to_owned()].into_iter().chain(names).collect())
}

/// How documents are written.
struct Shape<'a> {
    format: Format,
    columns: &'a [String],
    count: u64,
}

impl Shape<'_> {
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        match self.format {
            Format::Json => head.extend_from_slice(b"["),
            Format::Csv => write_row(&mut head, self.columns.iter().map(String::as_str)),
            Format::Ndjson | Format::Extjson => {}
        }
        head
    }

    fn document(&mut self, line: &[u8]) -> Outcome<Vec<u8>> {
        let mut text = Vec::with_capacity(line.len() + 2);
        match self.format {
            Format::Ndjson => text.extend_from_slice(line),
            Format::Json => {
                text.extend_from_slice(if self.count == 0 { b"\n" } else { b",\n" });
                text.extend_from_slice(line);
            }
            Format::Extjson => text.extend_from_slice(extended(object(line)?.into()).to_string().as_bytes()),
            Format::Csv => {
                let fields = object(line)?;
                let cells: Vec<String> = self.columns.iter().map(|name| cell(fields.get(name))).collect();
                write_row(&mut text, cells.iter().map(String::as_str));
            }
        }
        if matches!(self.format, Format::Ndjson | Format::Extjson) {
            text.push(b'\n');
        }
        self.count += 1;
        Ok(text)
    }

    fn foot(&self) -> &'static [u8] {
        if self.format == Format::Json { b"\n]\n" } else { b"" }
    }
}

/// A value in a field of CSV: what is nested stands there as JSON.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => other.to_string(),
    }
}

/// Where an export goes.
struct Target {
    writer: Packed,
    /// Where it is written and where it belongs; `None` for standard output.
    paths: Option<(PathBuf, PathBuf)>,
}

enum Packed {
    Plain(BufWriter<Box<dyn Write>>),
    Gzip(GzEncoder<BufWriter<Box<dyn Write>>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<Box<dyn Write>>>),
}

impl Target {
    fn open(path: &Path) -> Outcome<Self> {
        let is_pipe = path == Path::new("-");
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let opened = || -> io::Result<Packed> {
            let raw: Box<dyn Write> =
                if is_pipe { Box::new(io::stdout().lock()) } else { Box::new(File::create(&part)?) };
            let raw = BufWriter::new(raw);
            Ok(match path.extension().and_then(|ending| ending.to_str()) {
                Some("gz") => Packed::Gzip(GzEncoder::new(raw, Compression::default())),
                Some("zst") => Packed::Zstd(zstd::stream::write::Encoder::new(raw, 0)?),
                Some(_) | None => Packed::Plain(raw),
            })
        };
        let writer = opened().map_err(|error| unwritable(&error))?;
        Ok(Self { writer, paths: (!is_pipe).then(|| (part, path.to_owned())) })
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome {
        let written = match &mut self.writer {
            Packed::Plain(writer) => writer.write_all(bytes),
            Packed::Gzip(writer) => writer.write_all(bytes),
            Packed::Zstd(writer) => writer.write_all(bytes),
        };
        written.map_err(|error| unwritable(&error))
    }

    /// Writes what is left, and moves the file to its place.
    fn finish(self) -> Outcome {
        let rest = match self.writer {
            Packed::Plain(writer) => Ok(writer),
            Packed::Gzip(writer) => writer.finish(),
            Packed::Zstd(writer) => writer.finish(),
        };
        let moved = || {
            let Some((part, path)) = self.paths else { return Ok(()) };
            // A name that is there after a power cut has all of the file under it.
            std::fs::File::open(&part)?.sync_all()?;
            std::fs::rename(part, path)
        };
        rest.and_then(|mut rest| rest.flush()).and_then(|()| moved()).map_err(|error| unwritable(&error))
    }
}

/// A reader that has gone (`| head`) ends the command without a word.
fn unwritable(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    Failure::new(Kind::Failed, format!("the export cannot be written: {error}"))
}

/// Documents that are damaged on the peer's disk are not in an export.
fn check_damage(peer: &Peer, collection: &str) -> Outcome {
    let sync = peer.get("/api/v1/sync")?;
    let damaged = sync["damaged"].as_array().into_iter().flatten().filter(|name| name["collection"] == collection);
    let ids: Vec<String> = damaged.filter_map(|name| name["id"].as_str()).map(printable).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let why =
        format!("left out, since they are damaged on the peer's disk and not fetched again yet: {}", ids.join(", "));
    Err(Failure::new(Kind::Failed, why))
}

/// A bar of progress on a terminal, and none elsewhere.
pub(super) fn bar(total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:24} {pos}/{len} documents, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(format: Format, columns: &[&str], lines: &[&str]) -> String {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let mut shape = Shape { format, columns: &columns, count: 0 };
        let mut text = shape.head();
        for line in lines {
            text.extend(shape.document(line.as_bytes()).unwrap());
        }
        text.extend(shape.foot());
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn every_format_is_written() {
        let lines = [r#"{"_id":"a","n":1.5,"t":["x","y"]}"#, r#"{"_id":"b","b":{"$bytes":"AQ=="},"t":null}"#];
        assert_eq!(write(Format::Ndjson, &[], &lines), lines.join("\n") + "\n");
        assert_eq!(write(Format::Json, &[], &lines), format!("[\n{}\n]\n", lines.join(",\n")));
        assert_eq!(write(Format::Json, &[], &[]), "[\n]\n");
        let csv = "_id,n,t\r\na,1.5,\"[\"\"x\"\",\"\"y\"\"]\"\r\nb,,\r\n";
        assert_eq!(write(Format::Csv, &["_id", "n", "t"], &lines), csv);
        let binary = r#"{"$binary":{"base64":"AQ==","subType":"00"}}"#;
        assert!(write(Format::Extjson, &[], &lines).contains(binary));
    }

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        for (name, read) in [("x", None), ("x.gz", Some(true)), ("x.zst", Some(false))] {
            let path = folder.path().join(name);
            let mut target = Target::open(&path).unwrap();
            target.write(b"{}\n").unwrap();
            assert!(!path.exists());
            target.finish().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let text = match read {
                None => bytes,
                Some(true) => {
                    let mut text = Vec::new();
                    flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
                    text
                }
                Some(false) => zstd::decode_all(&bytes[..]).unwrap(),
            };
            assert_eq!(text, b"{}\n");
        }
    }
}
