//! `export`: a collection into a file, document by document.
//!
//! The file is written beside its place and moved there when it is whole: what is there is never half an export. CSV
//! takes two readings, unless the columns are given: which fields there are is known at the end of the first.

use std::collections::{BTreeMap, BTreeSet};
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
use super::import::csv::{cell, comes_back, delimiter, write_row};
use super::import::extended::extended;
use super::output::{Output, printable};
use super::query::{Pages, ask, left_out, parsed};
use crate::document::json;
use crate::gateway::path_segment;
use crate::limits::{ANSWER_LINE_BYTES_MAX, CSV_COLUMNS_MAX, DOCUMENT_DEPTH_MAX, QUERY_LIMIT_MAX};

/// Columns that are named of those whose values do not all come back.
const CHANGED_COLUMNS_SHOWN: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The collection
    collection: String,
    /// The file, or - for standard output; .gz and .zst are packed
    #[arg(default_value = "-")]
    file: PathBuf,
    /// What is written; by default what the name of the file says (.ndjson, .jsonl, .json, .csv, .tsv), and NDJSON on
    /// standard output
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only documents that match: {"age": {"$gte": 18}}, @FILE to read that from a file, or - from standard input
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// The columns of CSV, separated by commas; by default all fields there are
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    columns: Option<Vec<String>>,
    /// What is between the columns of CSV: a character, or tab; by default a comma, and a tab in .tsv
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Overwrite the file when it is there
    #[arg(long, short)]
    force: bool,
}

impl Export {
    fn format(&self) -> Outcome<Format> {
        let is_pipe = self.file == Path::new("-");
        let known = self.format.or_else(|| Format::of(&self.file)).or(is_pipe.then_some(Format::Ndjson));
        let unknown = || {
            let why = format!(
                "the name of {} does not say what to write: .ndjson, .jsonl, .json, .csv or .tsv does (with .gz or .zst \
                 to pack it), or --format; spreadsheets open .csv",
                self.file.display()
            );
            Failure::new(Kind::Usage, why)
        };
        let format = known.ok_or_else(unknown)?;
        match (&self.columns, self.delimiter) {
            (None, None) => Ok(format),
            _ if format == Format::Csv => Ok(format),
            (Some(_), _) => {
                Err(Failure::new(Kind::Usage, "--columns is for CSV; name the file .csv or give --format csv"))
            }
            (None, Some(_)) => {
                Err(Failure::new(Kind::Usage, "--delimiter is for CSV; name the file .csv or give --format csv"))
            }
        }
    }

    fn delimiter(&self) -> u8 {
        let name = self.file.to_string_lossy().to_ascii_lowercase();
        let is_tsv = [".tsv", ".tsv.gz", ".tsv.zst"].iter().any(|ending| name.ends_with(ending));
        self.delimiter.unwrap_or(if is_tsv { b'\t' } else { b',' })
    }
}

pub(super) fn run(export: &Export, peer: &Peer, output: Output) -> Outcome {
    let format = export.format()?;
    check_free(export)?;
    let documents = Documents::new(export, peer)?;
    let columns = match (format, &export.columns) {
        (Format::Csv, Some(columns)) => columns.clone(),
        (Format::Csv, None) => columns(&documents)?,
        (Format::Ndjson | Format::Json | Format::Extjson, _) => Vec::new(),
    };
    let mut target = Target::open(&export.file)?;
    let delimiter = export.delimiter();
    let mut shape = Shape { format, columns: &columns, delimiter, count: 0, changed: BTreeMap::new() };
    target.write(&shape.head())?;
    let damaged = documents.read(|line| target.write(&shape.document(line)?))?;
    target.write(shape.foot())?;
    target.finish()?;
    if !shape.changed.is_empty() {
        eprintln!("{}", changed(&shape.changed));
    }
    left_out(damaged)?;
    if export.file == Path::new("-") {
        return Ok(());
    }
    let shown = shape_of!({"documents": shape.count, "file": export.file});
    output.thing(&shown, &[("DOCUMENTS", "/documents"), ("FILE", "/file")])
}

/// Refuses a file that is there, unless it is meant, and what is no file at all.
fn check_free(export: &Export) -> Outcome {
    let Ok(metadata) = std::fs::metadata(&export.file) else { return Ok(()) };
    let shown = export.file.display();
    match (export.file == Path::new("-"), metadata.is_file(), export.force) {
        (true, _, _) | (false, true, true) => Ok(()),
        (false, true, false) => {
            Err(Failure::new(Kind::Usage, format!("{shown} is there already; --force overwrites it")))
        }
        (false, false, _) => Err(Failure::new(Kind::Usage, format!("{shown} is no file; - is standard output"))),
    }
}

/// What does not come back from a file of CSV as it was.
fn changed(changed: &BTreeMap<String, u64>) -> String {
    let first = changed.iter().take(CHANGED_COLUMNS_SHOWN);
    let shown: Vec<String> = first.map(|(name, count)| format!("{count} in {}", printable(name))).collect();
    let more = if changed.len() > CHANGED_COLUMNS_SHOWN { ", and in other columns" } else { "" };
    format!(
        "note: texts that are empty or look like a number, true, false, null, a list or an object come back from CSV as \
         nothing or as that: {}{more}. NDJSON keeps everything",
        shown.join(", ")
    )
}

/// The documents that are exported; they may be read several times.
struct Documents<'a> {
    peer: &'a Peer,
    collection: &'a str,
    filter: Option<Value>,
    /// How many there are, about.
    total: u64,
}

impl<'a> Documents<'a> {
    fn new(export: &'a Export, peer: &'a Peer) -> Outcome<Self> {
        let collection = export.collection.as_str();
        let all = peer.get(&format!("/api/v1/collections/{}", path_segment(collection)))?["documents"].as_u64();
        let filter = export.filter.as_ref().map(|filter| parsed("--filter", filter)).transpose()?;
        let total = match &filter {
            None => all,
            Some(filter) => {
                let body = [("filter".to_owned(), filter.clone()), ("estimate".to_owned(), true.into())];
                ask(peer, collection, "count", Map::from_iter(body))?["count"].as_u64()
            }
        };
        Ok(Self { peer, collection, filter, total: total.unwrap_or(0) })
    }

    /// Hands on each document as a line of JSON, with a bar of progress, and returns the ids of those that are left out
    /// because they are damaged.
    fn read(&self, mut each: impl FnMut(&[u8]) -> Outcome) -> Outcome<Vec<String>> {
        let bar = bar(self.total);
        let mut counted = |line: &[u8]| {
            bar.inc(1);
            each(line)
        };
        let damaged = match &self.filter {
            None => {
                let path = format!("/api/v1/collections/{}/documents", path_segment(self.collection));
                read(self.peer, &path, &mut counted)?;
                damaged(self.peer, self.collection)?
            }
            Some(filter) => {
                let body = Map::from_iter([("filter".to_owned(), filter.clone())]);
                let (peer, collection) = (self.peer, self.collection);
                let pages = Pages { peer, collection, body, limit: usize::MAX, page_max: QUERY_LIMIT_MAX };
                pages.read(|page| page.iter().try_for_each(|document| counted(document.to_string().as_bytes())))?.1
            }
        };
        bar.finish_and_clear();
        Ok(damaged)
    }
}

/// Reads the documents of a collection as lines.
fn read(peer: &Peer, path: &str, each: &mut impl FnMut(&[u8]) -> Outcome) -> Outcome {
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
fn columns(documents: &Documents<'_>) -> Outcome<Vec<String>> {
    let mut names = BTreeSet::new();
    documents.read(|line| {
        names.extend(object(line)?.into_iter().map(|(name, _)| name));
        if names.len() > CSV_COLUMNS_MAX {
            let why = format!("the documents have more than {CSV_COLUMNS_MAX} fields; choose some with --columns");
            return Err(Failure::new(Kind::Failed, why));
        }
        Ok(())
    })?;
    names.remove("_id");
    Ok(["_id".to_owned()].into_iter().chain(names).collect())
}

/// How documents are written.
struct Shape<'a> {
    format: Format,
    columns: &'a [String],
    /// What is between columns.
    delimiter: u8,
    count: u64,
    /// Values that do not come back from CSV as they were, by their columns.
    changed: BTreeMap<String, u64>,
}

impl Shape<'_> {
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        match self.format {
            Format::Json => head.extend_from_slice(b"["),
            Format::Csv => write_row(&mut head, self.delimiter, self.columns.iter().map(String::as_str)),
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
                for (name, cell) in self.columns.iter().zip(&cells) {
                    if !comes_back(name, fields.get(name), cell) {
                        *self.changed.entry(name.clone()).or_default() += 1;
                    }
                }
                write_row(&mut text, self.delimiter, cells.iter().map(String::as_str));
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

/// Ids of documents that are damaged on the peer's disk, which are not in an export.
fn damaged(peer: &Peer, collection: &str) -> Outcome<Vec<String>> {
    let sync = peer.get("/api/v1/sync")?;
    let damaged = sync["damaged"].as_array().into_iter().flatten().filter(|name| name["collection"] == collection);
    Ok(damaged.filter_map(|name| name["id"].as_str()).map(printable).collect())
}

/// A bar of progress on a terminal, and none elsewhere.
pub(super) fn bar(total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:12} {pos}/{len} documents, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(format: Format, columns: &[&str], lines: &[&str]) -> String {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let mut shape = Shape { format, columns: &columns, delimiter: b',', count: 0, changed: BTreeMap::new() };
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
        let csv = "_id,n,t\r\na,1.5,\"[\"\"x\"\",\"\"y\"\"]\"\r\nb,,null\r\n";
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
