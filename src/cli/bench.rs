//! `bench`: load on a running peer, and how it bears it.
//!
//! Each connection sends one call after the other, as fast as they are answered. So a peer that stalls is asked less
//! while it does, and its percentiles look better than under a load that does not wait (coordinated omission). Writes
//! are new documents; reads are of documents that are there. Not here: a rate to keep.

use std::io::{IsTerminal, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rand::RngExt;
use serde_json::{Value, json};
use ureq::http::Method;

use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::Output;
use crate::gateway::path_segment;
use crate::limits::{DOCUMENT_BYTES_MAX, IMPORT_BYTES_MAX, IMPORT_DOCUMENTS_MAX};

/// Documents that are there before a run that reads.
const PRELOADED: u64 = 1_000;
/// Microseconds up to which latencies are told apart: above what a call may take.
const LATENCY_MAX_US: u64 = 200_000_000;
/// How long a connection rests after a failure, so that a peer that is gone is not hammered.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
/// Bytes of a document beside its text.
const FRAME_BYTES: usize = 32;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The collection that is written to
    #[arg(long, default_value = "bench")]
    collection: String,
    /// For how long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Connections, each with one call at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// What is called
    #[arg(long, value_enum, default_value = "mixed")]
    mix: Mix,
    /// Bytes of a document, about
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    size: usize,
    /// Delete the documents of this run at its end
    #[arg(long)]
    cleanup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mix {
    /// Reads
    Read,
    /// Writes of new documents
    Write,
    /// Reads and writes, half each
    Mixed,
}

/// Latencies of one kind of call, and how many failed.
struct Calls {
    latencies_us: Histogram<u64>,
    failed: u64,
    /// Why the first one failed.
    why: Option<String>,
}

impl Calls {
    fn new() -> Outcome<Self> {
        let failed = |error| Failure::new(Kind::Failed, format!("no histogram: {error}"));
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).map_err(failed)?;
        Ok(Self { latencies_us, failed: 0, why: None })
    }

    fn record(&mut self, elapsed: Duration, failure: Option<String>) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.latencies_us.saturating_record(micros);
        self.failed += u64::from(failure.is_some());
        self.why = self.why.take().or(failure);
    }

    fn add(&mut self, other: Self) {
        self.latencies_us += &other.latencies_us;
        self.failed += other.failed;
        self.why = self.why.take().or(other.why);
    }

    fn shown(&self, name: &str, elapsed: Duration) -> Value {
        let ms = |quantile: f64| self.latencies_us.value_at_quantile(quantile) as f64 / 1_000.0;
        let count = self.latencies_us.len();
        json!({
            "operation": name,
            "count": count,
            "failed": self.failed,
            "per_second": (count as f64 / elapsed.as_secs_f64()).round(),
            "p50_ms": ms(0.5),
            "p90_ms": ms(0.9),
            "p99_ms": ms(0.99),
            "p99_9_ms": ms(0.999),
            "max_ms": self.latencies_us.max() as f64 / 1_000.0,
        })
    }
}

/// A run: its documents are named by it and a number.
struct Load<'a> {
    bench: &'a Bench,
    peer: &'a Peer,
    run: String,
    /// Numbers that were given to documents.
    named: AtomicU64,
    calls: AtomicU64,
    over: AtomicBool,
}

pub(super) fn run(bench: &Bench, peer: &Peer, output: Output) -> Outcome {
    if bench.size > DOCUMENT_BYTES_MAX - FRAME_BYTES {
        let why = format!("--size is at most {} bytes", DOCUMENT_BYTES_MAX - FRAME_BYTES);
        return Err(Failure::new(Kind::Usage, why));
    }
    let run = format!("bench-{:08x}", rand::random::<u32>());
    let (named, calls) = (AtomicU64::new(PRELOADED), AtomicU64::new(0));
    let load = Load { bench, peer, run, named, calls, over: AtomicBool::new(false) };
    let preloaded = if bench.mix == Mix::Write { Ok(()) } else { load.preload() };
    let measured = preloaded.and_then(|()| load.measure());
    if bench.cleanup {
        load.delete()?;
    }
    let (reads, writes, elapsed) = measured?;
    let mut rows = Vec::new();
    if bench.mix != Mix::Write {
        rows.push(reads.shown("read", elapsed));
    }
    if bench.mix != Mix::Read {
        rows.push(writes.shown("write", elapsed));
    }
    let fields = [
        ("OPERATION", "/operation"),
        ("COUNT", "/count"),
        ("FAILED", "/failed"),
        ("PER SECOND", "/per_second"),
        ("P50", "/p50_ms"),
        ("P90", "/p90_ms"),
        ("P99", "/p99_ms"),
        ("P99.9", "/p99_9_ms"),
        ("MAX", "/max_ms"),
    ];
    output.list(&rows, &fields)?;
    let why = reads.why.or(writes.why).unwrap_or_default();
    match reads.failed + writes.failed {
        0 => Ok(()),
        failed => Err(Failure::new(Kind::Failed, format!("{failed} calls failed; the first: {why}"))),
    }
}

impl Load<'_> {
    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    fn path(&self, number: u64) -> String {
        format!("/api/v1/collections/{}/documents/{}", path_segment(&self.bench.collection), self.id(number))
    }

    /// A document of the wanted size, of text that does not repeat itself.
    fn document(&self, number: u64, rng: &mut impl RngExt) -> Value {
        let length = self.bench.size.saturating_sub(FRAME_BYTES);
        let text: String = (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
        json!({"n": number, "text": text})
    }

    fn preload(&self) -> Outcome {
        let mut rng = rand::rng();
        self.bulk(0..PRELOADED, |number| {
            let mut document = self.document(number, &mut rng);
            document["_id"] = self.id(number).into();
            document
        })
    }

    /// Deletes what the run wrote; what it meant to write and did not is not found, which is fine.
    fn delete(&self) -> Outcome {
        let from = if self.bench.mix == Mix::Write { PRELOADED } else { 0 };
        let numbers = from..self.named.load(Ordering::Relaxed);
        self.bulk(numbers, |number| json!({"_id": self.id(number), "_deleted": true}))
    }

    fn bulk(&self, numbers: std::ops::Range<u64>, mut line: impl FnMut(u64) -> Value) -> Outcome {
        let path = format!("/api/v1/collections/{}/documents:bulk", path_segment(&self.bench.collection));
        let mut numbers = numbers.peekable();
        while numbers.peek().is_some() {
            let (mut body, mut count) = (String::new(), 0);
            while count < IMPORT_DOCUMENTS_MAX
                && body.len() < IMPORT_BYTES_MAX
                && let Some(number) = numbers.next()
            {
                body += &format!("{}\n", line(number));
                count += 1;
            }
            let mut answers = String::new();
            let broken = |error| Failure::new(Kind::Unavailable, format!("the peer stopped answering: {error}"));
            let mut lines = self.peer.lines(Method::POST, &path, Some(body.as_bytes()))?;
            lines.read_to_string(&mut answers).map_err(broken)?;
            for answer in answers.lines() {
                let answer: Value = serde_json::from_str(answer).unwrap_or_default();
                if !matches!(answer["status"].as_u64(), Some(200..=299 | 404)) {
                    return Err(Failure::new(Kind::Failed, format!("a document could not be written: {answer}")));
                }
            }
        }
        Ok(())
    }

    /// Runs all connections for as long as is asked.
    fn measure(&self) -> Outcome<(Calls, Calls, Duration)> {
        let (mut reads, mut writes, start) = (Calls::new()?, Calls::new()?, Instant::now());
        std::thread::scope(|scope| {
            let work = || self.connection();
            let connections: Vec<_> = (0..self.bench.connections).map(|_| scope.spawn(work)).collect();
            self.wait(start);
            self.over.store(true, Ordering::Relaxed);
            for connection in connections {
                let crashed = |_| Err(Failure::new(Kind::Failed, "a connection ended in a fault"));
                let (more_reads, more_writes) = connection.join().unwrap_or_else(crashed)?;
                reads.add(more_reads);
                writes.add(more_writes);
            }
            Ok((reads, writes, start.elapsed()))
        })
    }

    /// One call after the other, on a connection that nobody else uses meanwhile.
    fn connection(&self) -> Outcome<(Calls, Calls)> {
        let (mut reads, mut writes, mut rng) = (Calls::new()?, Calls::new()?, rand::rng());
        let peer = self.peer;
        while !self.over.load(Ordering::Relaxed) {
            let is_read = match self.bench.mix {
                Mix::Read => true,
                Mix::Write => false,
                Mix::Mixed => rng.random(),
            };
            let calls = if is_read { &mut reads } else { &mut writes };
            let number =
                if is_read { rng.random_range(0..PRELOADED) } else { self.named.fetch_add(1, Ordering::Relaxed) };
            let (path, body) = (self.path(number), (!is_read).then(|| self.document(number, &mut rng).to_string()));
            let start = Instant::now();
            let answer = match &body {
                None => peer.get(&path),
                Some(body) => peer.call(Method::PUT, &path, &[], Some(body.as_bytes())),
            };
            let failure = answer.err().map(|failure| failure.message);
            let rests = failure.is_some();
            calls.record(start.elapsed(), failure);
            self.calls.fetch_add(1, Ordering::Relaxed);
            if rests {
                std::thread::sleep(FAILURE_PAUSE);
            }
        }
        Ok((reads, writes))
    }

    /// Waits for the end, with a bar on a terminal.
    fn wait(&self, start: Instant) {
        let length = Duration::from_secs(self.bench.seconds);
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} s  {msg}");
            ProgressBar::with_draw_target(Some(self.bench.seconds), ProgressDrawTarget::stderr())
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::hidden()
        };
        while start.elapsed() < length {
            std::thread::sleep(Duration::from_millis(100).min(length.saturating_sub(start.elapsed())));
            let (elapsed, calls) = (start.elapsed(), self.calls.load(Ordering::Relaxed));
            bar.set_position(elapsed.as_secs());
            bar.set_message(format!("{:.0} calls/s", calls as f64 / elapsed.as_secs_f64()));
        }
        bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let (mut one, mut two) = (Calls::new().unwrap(), Calls::new().unwrap());
        for ms in 1..=500 {
            one.record(Duration::from_millis(2 * ms), None);
            two.record(Duration::from_millis(2 * ms - 1), (ms <= 3).then(|| "why".to_owned()));
        }
        one.add(two);
        let shown = one.shown("read", Duration::from_secs(10));
        assert_eq!(
            (&shown["count"], &shown["failed"], &shown["per_second"]),
            (&json!(1_000), &json!(3), &json!(100.0))
        );
        for (key, ms) in [("p50_ms", 500.0), ("p90_ms", 900.0), ("p99_ms", 990.0), ("max_ms", 1_000.0)] {
            let found = shown[key].as_f64().unwrap();
            assert!((found / ms - 1.0).abs() < 0.002, "{key} is {found}");
        }
        one.record(Duration::from_secs(100_000), None);
    }
}
