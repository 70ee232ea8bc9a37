//! `import`: documents out of a file into a collection.
//!
//! A file is read piece by piece (`source`), cut into documents by its format (`ndjson`, `array`, `csv`, `extended`),
//! each is given its id (`name`) and sent (`lane`), and what became of it is counted (`tally`). How far it got can be
//! kept (`resume`). Nothing but a few requests' worth is in memory. Documents are judged by the peer alone.

mod array;
pub(super) mod csv;
pub(super) mod extended;
mod lane;
mod name;
mod ndjson;
mod resume;
mod source;
mod tally;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::time::{Instant, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use self::array::Elements;
use self::csv::Csv;
use self::extended::Extended;
use self::lane::{Lane, Sender, lock};
use self::name::Namer;
use self::ndjson::Ndjson;
use self::resume::{Resume, Run, Task};
use self::source::Source;
use self::tally::Tally;
use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::Output;
use crate::gateway::path_segment;

/// Requests that wait on each connection while one is under way.
const BATCHES_WAITING: usize = 1;
/// Connections at most: half of what the peer has room for.
const CONNECTIONS_MAX: i64 = 8;

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON document a line
    #[value(alias = "jsonl")]
    Ndjson,
    /// An array of JSON documents, or documents one after the other
    Json,
    /// Values separated by commas, semicolons or tabs, with a header row
    Csv,
    /// MongoDB Extended JSON v2, as lines or as an array
    Extjson,
}

impl Format {
    /// What the name of a file says, an ending for packing aside.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "json" => Some(Self::Json),
            "csv" | "tsv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// What one document is called.
    fn unit(self) -> &'static str {
        match self {
            Self::Ndjson => "line",
            Self::Json | Self::Extjson => "document",
            Self::Csv => "row",
        }
    }
}

/// What becomes of documents whose id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// They are replaced
    Put,
    /// They fail
    Insert,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The collection
    collection: String,
    /// The file, or - for standard input; what is packed with gzip or zstd is unpacked
    file: PathBuf,
    /// What is in it; by default what its name says (.ndjson, .jsonl, .json, .csv, .tsv), and NDJSON for standard input
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Take the ids from this field; numbers become text
    #[arg(long, value_name = "FIELD")]
    id: Option<String>,
    /// Leave the fields of CSV as text
    #[arg(long)]
    strings: bool,
    /// What is between the columns of CSV: a character, or tab; by default it is guessed (commas, semicolons, tabs)
    #[arg(long, value_name = "CHARACTER", value_parser = csv::delimiter)]
    delimiter: Option<u8>,
    /// What becomes of documents whose id is taken
    #[arg(long, value_enum, default_value = "put")]
    mode: Mode,
    /// Write the documents that fail, with the reasons, to this file; by default the first ten are shown
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Keep in FILE.aerolithsdb-import how far it got, and go on from there
    #[arg(long)]
    resume: bool,
    /// Connections side by side
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=CONNECTIONS_MAX))]
    connections: u8,
}

/// A document as it stands in a file.
struct Record {
    /// Its line, row or place, from 1.
    number: u64,
    /// Its text in one line, or why it cannot be sent.
    text: Result<Bytes, String>,
}

/// Documents of a file, one after the other.
trait Records {
    /// The next one.
    ///
    /// # Errors
    /// When the file cannot be read on.
    fn next(&mut self) -> Outcome<Option<Record>>;

    /// What was kept otherwise than a person might expect.
    fn kept(&self) -> Kept {
        Kept::default()
    }
}

/// Values of Extended JSON that could not become what they stand for, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kept {
    /// Decimals that are text because no number holds them.
    decimals_as_text: u64,
    /// Dates that cannot be read, which are as they were written.
    unread_dates: u64,
}

pub(super) fn run(import: &Import, peer: &Peer, output: Output) -> Outcome {
    let format = import.format()?;
    if import.delimiter.is_some() && format != Format::Csv {
        return Err(Failure::new(Kind::Usage, "--delimiter is for CSV; name the file .csv or give --format csv"));
    }
    let source = Source::open(&import.file)?;
    // A peer that was never there is no interruption to wait for.
    peer.get("/health")?;
    let resume = import.resume.then(|| Resume::open(&import.file, import.task(format, peer)?)).transpose()?;
    let run = resume.as_ref().map_or_else(Run::new, |resume| Ok(resume.run()))?;
    let done_before = resume.as_ref().map_or(0, Resume::done);
    let (bar, progress) = (bar(&source), source.read_bytes.clone());
    let tally = Mutex::new(Tally::new(format.unit(), import.errors.as_deref(), resume, bar.clone())?);
    let mut records = records(source, format, import);
    let namer = Namer { field: import.id.clone(), run };
    let start = Instant::now();
    let ended = import.send(peer, &tally, |lanes| {
        while let Some(Record { number, text }) = records.next()? {
            bar.set_position(progress.load(Ordering::Relaxed));
            if number <= done_before {
                continue;
            }
            match text.and_then(|text| namer.name(number, text)) {
                Ok(document) => {
                    let lane = usize::try_from(document.hash % lanes.len() as u64).expect("there are few");
                    if !lanes[lane].push(number, &document, &tally) {
                        return Ok(());
                    }
                }
                Err(why) => lock(&tally).unsendable(number, &why)?,
            }
        }
        Ok(())
    });
    let mut tally = lock(&tally);
    tally.end(ended.is_ok())?;
    summary(&tally, records.kept(), done_before, start, output)?;
    ended.map_err(|failure| match import.resume {
        true => Failure::new(failure.kind, format!("{}\nthe same command goes on from here", failure.message)),
        false => failure,
    })?;
    match tally.counts.failed {
        0 => Ok(()),
        failed => Err(Failure::new(Kind::Failed, format!("{failed} documents were not written"))),
    }
}

impl Import {
    fn format(&self) -> Outcome<Format> {
        let is_pipe = self.file == Path::new("-");
        if self.resume && (is_pipe || self.mode == Mode::Insert) {
            let why = "--resume sends again what was under way: it takes a file, not standard input, and --mode put";
            return Err(Failure::new(Kind::Usage, why));
        }
        if let Some(format) = self.format.or_else(|| Format::of(&self.file)) {
            return Ok(format);
        }
        if is_pipe {
            return Ok(Format::Ndjson);
        }
        let why = format!("the name of {} does not say what is in it; say so with --format", self.file.display());
        Err(Failure::new(Kind::Usage, why))
    }

    fn task(&self, format: Format, peer: &Peer) -> Outcome<Task> {
        let failed = |error| Failure::new(Kind::Failed, format!("{} cannot be read: {error}", self.file.display()));
        let metadata = std::fs::metadata(&self.file).map_err(failed)?;
        let modified = metadata.modified().map_err(failed)?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Task {
            url: peer.url().to_owned(),
            collection: self.collection.clone(),
            format: format!("{format:?}, strings: {}, delimiter: {:?}", self.strings, self.delimiter),
            id_field: self.id.clone(),
            file_bytes: metadata.len(),
            modified_ms: u64::try_from(modified.as_millis()).unwrap_or_default(),
        })
    }

    /// Opens the lanes, has them filled, and waits until all is answered.
    fn send(&self, peer: &Peer, tally: &Mutex<Tally>, fill: impl FnOnce(&mut [Lane]) -> Outcome) -> Outcome {
        let mode = if self.mode == Mode::Insert { "insert" } else { "put" };
        let path = format!("/api/v1/collections/{}/documents:bulk?mode={mode}", path_segment(&self.collection));
        std::thread::scope(|scope| {
            let (mut lanes, mut senders) = (Vec::new(), Vec::new());
            for _ in 0..self.connections {
                let (batches, waiting) = sync_channel(BATCHES_WAITING);
                lanes.push(Lane::new(batches));
                let sender = Sender { peer: peer.clone(), path: path.clone(), repeats: self.mode == Mode::Put, tally };
                senders.push(scope.spawn(move || sender.run(&waiting)));
            }
            let filled = fill(&mut lanes);
            // What was read before a failure is whole.
            lanes.iter_mut().for_each(|lane| _ = lane.flush());
            drop(lanes);
            let crashed = |_| Err(Failure::new(Kind::Failed, "a connection of the import ended in a fault"));
            let sent: Vec<Outcome> = senders.into_iter().map(|sender| sender.join().unwrap_or_else(crashed)).collect();
            sent.into_iter().collect::<Outcome>().and(filled)
        })
    }
}

fn records(source: Source, format: Format, import: &Import) -> Box<dyn Records> {
    match format {
        Format::Ndjson => Box::new(Ndjson::new(source)),
        Format::Json => Box::new(Elements::new(source)),
        Format::Csv => Box::new(Csv::new(source, import.strings, import.delimiter)),
        Format::Extjson => Box::new(Extended::new(Elements::new(source))),
    }
}

/// A bar over the bytes of the file, on a terminal.
fn bar(source: &Source) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match source.size_bytes {
        Some(size) => (ProgressBar::new(size), "{bar:12} {bytes}/{total_bytes}, {eta} left  {wide_msg}"),
        None => (ProgressBar::no_length(), "{spinner} {bytes}  {wide_msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn summary(tally: &Tally, kept: Kept, done_before: u64, start: Instant, output: Output) -> Outcome {
    let counts = tally.counts;
    let seconds = start.elapsed().as_secs_f64();
    for failure in &tally.shown {
        eprintln!("{failure}");
    }
    if counts.failed > tally.shown.len() as u64 && !tally.shown.is_empty() {
        eprintln!("and {} more; --errors FILE takes them all", counts.failed - tally.shown.len() as u64);
    }
    let shown = json!({
        "written": counts.done(),
        "created": counts.created,
        "replaced": counts.replaced,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "failed": counts.failed,
        "decimals_as_text": kept.decimals_as_text,
        "unread_dates": kept.unread_dates,
        "resumed_after": done_before,
        "seconds": (seconds * 1_000.0).round() / 1_000.0,
        "documents_per_second": (counts.done() as f64 / seconds.max(0.001)).round(),
    });
    let mut fields = vec![
        ("WRITTEN", "/written"),
        ("  CREATED", "/created"),
        ("  REPLACED", "/replaced"),
        ("  UNCHANGED", "/unchanged"),
        ("  DELETED", "/deleted"),
        ("FAILED", "/failed"),
        ("SECONDS", "/seconds"),
        ("DOCUMENTS/S", "/documents_per_second"),
    ];
    if kept.decimals_as_text > 0 {
        fields.push(("DECIMALS AS TEXT", "/decimals_as_text"));
    }
    if kept.unread_dates > 0 {
        fields.push(("UNREAD DATES", "/unread_dates"));
    }
    if done_before > 0 {
        fields.push(("RESUMED AFTER", "/resumed_after"));
    }
    output.thing(&shown, &fields)
}
