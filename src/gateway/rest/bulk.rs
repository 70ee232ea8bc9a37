//! Many writes in one request: `POST /collections/{c}/documents:bulk`, lines of JSON in, a line for each out.
//!
//! Each line is what a single call would be: one that is bad fails alone, and its result says what that call
//! would have answered. Lines are read while earlier ones are written and the results of others are sent. A window
//! bounds what is under way, in lines and in bytes; within it lines share flushes. Results keep the order of the
//! lines, and so do writes to the same document: a line waits until the ones before it that name its id are done.
//!
//! A request may be as long as it likes, while lines come: a client that sends none is told so and cut off, whatever
//! else it sends, and one that reads nothing is cut off by its connection (`patience`).
//!
//! Not here: a transaction. Lines that were answered are written, whatever becomes of the rest.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt, stream};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::super::problem::{Answer, Position, Problem};
use super::super::{App, Line, Lines, body};
use super::parameter::CollectionPath;
use super::{Path, Query, json_lines, stream_room};
use crate::document::{Object, json};
use crate::limits::{BULK_BYTES_MAX, BULK_LINES_MAX, BULK_WRITES_MAX, DOCUMENT_BYTES_MAX};
use crate::node::Write;
use crate::{Collection, Condition, Invalid, InvalidKind};

/// How long a client may take for the next line while nothing of it is under way: as long as for a body of one document.
const LINE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a line rests before it is tried again, when the peer is overloaded: about three seconds in all, beside
/// the second that each try waits for room.
const PAUSES_MS: [u64; 5] = [100, 200, 400, 800, 1_600];

const STOPPING: &str = "the peer is shutting down; the lines before this one are done, go on from here";

/// What becomes of a line whose id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// The document is replaced.
    #[default]
    Put,
    /// The line fails.
    Insert,
}

/// How lines are meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Options {
    /// `put` creates or replaces, `insert` answers 409 for a line whose id is taken.
    #[serde(default)]
    #[param(inline)]
    mode: Mode,
}

/// Writes many documents: a JSON object a line, and a result a line.
///
/// `_id` names a document, else it gets an id of its own; `{"_id": "a", "_deleted": true}` deletes. A bad line fails
/// alone, with the status and the problem of a single call. Read the results while you send.
#[utoipa::path(
    post, path = "/collections/{collection}/documents:bulk", tag = "documents", operation_id = "writeDocuments",
    params(CollectionPath, Options),
    request_body(content = Option<String>, content_type = "application/x-ndjson", description = "A JSON object a line"),
    responses(
        (status = 200, description = "A result a line, in the order of the lines", body = Report, content_type = "application/x-ndjson"),
        (status = 415, description = "The body has another type, or is compressed"),
        (status = 422, description = "A collection cannot have this name"),
    ),
)]
pub(super) async fn write(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    body::check_lines(&headers)?;
    let collection = app.peer.collection(&at.collection)?;
    let room = stream_room(&app)?;
    let (results, sent) = mpsc::channel(1);
    let writer = Writer { app, collection, mode: options.mode };
    // A task of its own: what is under way goes on while the client does not read.
    let running = tokio::spawn(async move {
        let _room = room;
        run(writer, body, results).await
    });
    Ok(json_lines(answer(sent, running)))
}

/// The results as they come; it breaks off when the run did.
fn answer(sent: mpsc::Receiver<Bytes>, running: JoinHandle<io::Result<()>>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold((sent, Some(running)), |(mut sent, mut running)| async move {
        if let Some(results) = sent.recv().await {
            return Some((Ok(results), (sent, running)));
        }
        let ended = running.take()?.await.unwrap_or_else(|fault| Err(io::Error::other(fault)));
        ended.err().map(|error| (Err(error), (sent, None)))
    })
}

async fn run(writer: Writer, body: Body, results: mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut input = Input::new(body, LINE_TIMEOUT);
    let mut window = Window::new(writer);
    loop {
        window.admit();
        if input.ended && window.is_empty() {
            return input.broken.map_or(Ok(()), Err);
        }
        if !window.is_empty() {
            // The client may wait for what becomes of its lines.
            input.due = None;
        }
        tokio::select! {
            // In this order results gather to one piece, and lines to one flush.
            biased;
            Some(done) = window.writing.next(), if !window.writing.is_empty() => window.finish(&done),
            line = input.next(), if !input.ended && window.takes_lines() => match line {
                Ok(Some(line)) if window.writer.app.is_stopping() => {
                    input.ended = true;
                    window.refuse(line.number, Problem::new(StatusCode::SERVICE_UNAVAILABLE, STOPPING));
                }
                Ok(Some(line)) => window.take(line),
                Ok(None) => {}
                Err(problem) => window.refuse(input.lines.next_number(), problem),
            },
            room = results.reserve(), if window.has_results() => match room {
                Ok(room) => room.send(window.take_results()),
                Err(_) => return Err(io::Error::other("the client has gone")),
            },
        }
    }
}

/// The body, line by line.
struct Input {
    body: Body,
    lines: Lines,
    /// How long the next line may take.
    wait: Duration,
    /// When it must be here, once it is waited for.
    due: Option<Instant>,
    ended: bool,
    broken: Option<io::Error>,
}

impl Input {
    fn new(body: Body, wait: Duration) -> Self {
        Self { body, lines: Lines::new(DOCUMENT_BYTES_MAX), wait, due: None, ended: false, broken: None }
    }

    /// The next line. Nothing is lost when this is given up halfway.
    ///
    /// # Errors
    /// The problem that ends the request before the body does.
    async fn next(&mut self) -> Answer<Option<Line>> {
        loop {
            if let Some(line) = self.lines.next() {
                self.due = None;
                return Ok(Some(line));
            }
            let due = *self.due.get_or_insert_with(|| Instant::now() + self.wait);
            match timeout_at(due, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        self.lines.feed(piece);
                    }
                }
                Ok(None) => {
                    self.ended = true;
                    return Ok(self.lines.finish());
                }
                // A line that was begun may be half of what was meant.
                Ok(Some(Err(error))) => {
                    self.ended = true;
                    self.broken = Some(io::Error::other(error));
                    return Ok(None);
                }
                Err(_) => {
                    self.ended = true;
                    let waited = self.wait.as_secs();
                    let detail = format!("no line was sent for {waited} seconds; the lines before this one are done");
                    return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
                }
            }
        }
    }
}

/// What is under way.
struct Window {
    writer: Writer,
    /// A line that waits for room, or for one before it that names the same document.
    held: Option<Prepared>,
    writing: FuturesOrdered<BoxFuture<'static, Done>>,
    ids: HashSet<String>,
    /// Of the lines that are being written.
    bytes: usize,
    /// Results that were not sent, as lines.
    results: Vec<u8>,
    results_count: usize,
}

impl Window {
    fn new(writer: Writer) -> Self {
        let (writing, ids, results) = (FuturesOrdered::new(), HashSet::new(), Vec::new());
        Self { writer, held: None, writing, ids, bytes: 0, results, results_count: 0 }
    }

    fn is_empty(&self) -> bool {
        self.held.is_none() && self.writing.is_empty() && self.results.is_empty()
    }

    fn takes_lines(&self) -> bool {
        self.held.is_none() && self.writing.len() + self.results_count < BULK_LINES_MAX
    }

    /// Whether there are results that are worth a piece: many, or all that will come for now.
    fn has_results(&self) -> bool {
        self.results_count > 0 && (self.writing.is_empty() || self.results_count >= BULK_WRITES_MAX / 2)
    }

    fn take(&mut self, line: Line) {
        self.held = Some(self.writer.prepare(line));
    }

    /// Starts the line that waits, when it need not wait any longer.
    fn admit(&mut self) {
        let has_room = self.writing.len() < BULK_WRITES_MAX && self.bytes < BULK_BYTES_MAX;
        let may = |line: &mut Prepared| has_room && line.id.as_ref().is_none_or(|id| !self.ids.contains(id));
        let Some(line) = self.held.take_if(may) else { return };
        self.bytes += line.text.len();
        self.ids.extend(line.id.clone());
        self.writing.push_back(self.writer.clone().write(line).boxed());
    }

    fn finish(&mut self, done: &Done) {
        self.bytes -= done.bytes;
        if let Some(id) = &done.id {
            self.ids.remove(id);
        }
        match &done.written {
            Ok((write, id)) => self.report(&Report::of_write(done.number, *write, id)),
            Err(problem) => self.report(&Report::of_problem(done.number, done.id.as_deref(), problem)),
        }
    }

    /// Ends with a problem that no line caused, after the results of those under way.
    fn refuse(&mut self, number: u64, problem: Problem) {
        let done = Done { number, bytes: 0, id: None, written: Err(problem) };
        self.writing.push_back(std::future::ready(done).boxed());
    }

    fn report(&mut self, report: &Report<'_>) {
        serde_json::to_writer(&mut self.results, report).expect("texts are JSON, and memory takes what is written");
        self.results.push(b'\n');
        self.results_count += 1;
    }

    fn take_results(&mut self) -> Bytes {
        self.results_count = 0;
        std::mem::take(&mut self.results).into()
    }
}

/// A line that was read.
struct Prepared {
    number: u64,
    text: Bytes,
    /// The document that it names.
    id: Option<String>,
    meant: Answer<Meant>,
}

/// What a line asks for.
enum Meant {
    Insert(Object),
    Put(String, Object),
    Delete(String),
}

/// A line that was done.
struct Done {
    number: u64,
    bytes: usize,
    id: Option<String>,
    written: Answer<(Write, String)>,
}

#[derive(Clone)]
struct Writer {
    app: App,
    collection: Collection,
    mode: Mode,
}

impl Writer {
    fn prepare(&self, line: Line) -> Prepared {
        let Line { number, text } = line;
        let Some(text) = text else {
            let detail = format!("the line is longer than the limit of {DOCUMENT_BYTES_MAX} bytes");
            let meant = Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
            return Prepared { number, text: Bytes::new(), id: None, meant };
        };
        let (id, meant) = match json::parse_document(&text) {
            Ok(object) => (id(&object), self.meant(object)),
            Err(error) => (None, Err(at_line(number, error.into()))),
        };
        Prepared { number, text, id, meant }
    }

    fn meant(&self, object: Object) -> Answer<Meant> {
        let deletes = object.get("_deleted") == Some(&Value::Bool(true));
        match (deletes, self.mode, id(&object)) {
            (false, Mode::Put, Some(id)) => Ok(Meant::Put(id, object)),
            // Without an id one is made; one that is no text is refused there.
            (false, Mode::Put | Mode::Insert, _) => Ok(Meant::Insert(object)),
            (true, Mode::Put, Some(id)) if object.len() == 2 => Ok(Meant::Delete(id)),
            (true, Mode::Put, Some(_)) => {
                Err(refused("_deleted", "a line that deletes holds _id and _deleted alone; leave the other fields out"))
            }
            (true, Mode::Put, None) => {
                Err(refused("_id", "a line that deletes names the document: give its id as a string under _id"))
            }
            (true, Mode::Insert, _) => {
                Err(refused("_deleted", "mode=insert does nothing but create; send lines that delete with mode=put"))
            }
        }
    }

    /// Does what a line asks for; again after a pause, when the peer is overloaded.
    async fn write(self, line: Prepared) -> Done {
        let Prepared { number, text, id, mut meant } = line;
        let bytes = text.len();
        let mut pauses = PAUSES_MS.into_iter();
        loop {
            let written = match meant {
                Ok(meant) => self.call(meant).await,
                Err(problem) => Err(problem),
            };
            let overloaded = |problem: &Problem| problem.status == StatusCode::SERVICE_UNAVAILABLE;
            let is_overloaded = written.as_ref().is_err_and(overloaded) && !self.app.is_stopping();
            let Some(pause) = pauses.next().filter(|_| is_overloaded) else {
                return Done { number, bytes, id, written };
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            meant = json::parse_document(&text).map_err(Problem::from).and_then(|object| self.meant(object));
        }
    }

    async fn call(&self, meant: Meant) -> Answer<(Write, String)> {
        Ok(match meant {
            Meant::Insert(object) => {
                let document = self.collection.insert(Value::Object(object)).await?;
                (Write::Created, document.id().to_owned())
            }
            Meant::Put(id, object) => {
                let (write, _) = self.collection.put_if(&id, Value::Object(object), Condition::Any).await?;
                (write, id)
            }
            Meant::Delete(id) => {
                self.collection.delete(&id).await?;
                (Write::Deleted, id)
            }
        })
    }
}

fn id(object: &Object) -> Option<String> {
    object.get("_id").and_then(Value::as_str).map(str::to_owned)
}

fn refused(field: &str, message: &str) -> Problem {
    let (message, field) = (message.to_owned(), Some(field.to_owned()));
    Invalid { message, field, position: None, kind: InvalidKind::Meaning }.into()
}

/// A problem whose place is given in a line, with its place in the body.
fn at_line(number: u64, problem: Problem) -> Problem {
    let Some((line, column)) = problem.position else { return problem };
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let place = format!("(line {line}, column {column})");
    let detail = match problem.detail.strip_suffix(&place) {
        Some(said) => format!("{said}(line {number}, column {column})").into(),
        None => problem.detail,
    };
    Problem { detail, position: Some((number, column)), ..problem }
}

/// The result of a line.
#[derive(Serialize, ToSchema)]
#[schema(as = BulkResult)]
struct Report<'a> {
    line: u64,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
}

impl<'a> Report<'a> {
    fn of_write(line: u64, write: Write, id: &'a str) -> Self {
        let (status, result) = match write {
            Write::Created => (StatusCode::CREATED, "created"),
            Write::Replaced => (StatusCode::OK, "replaced"),
            Write::Unchanged => (StatusCode::OK, "unchanged"),
            Write::Deleted => (StatusCode::NO_CONTENT, "deleted"),
        };
        let (status, id, result) = (status.as_u16(), Some(id), Some(result));
        Self { line, status, id, result, detail: None, field: None, position: None }
    }

    fn of_problem(line: u64, id: Option<&'a str>, problem: &'a Problem) -> Self {
        let (detail, field) = (Some(&*problem.detail), problem.field.as_deref());
        let position = problem.position.map(Position::from);
        Self { line, status: problem.status.as_u16(), id, result: None, detail, field, position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_sends_anything_but_lines_is_told_so() {
        let pieces = stream::unfold(0, |n| async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok::<_, io::Error>(Bytes::from_static([b" ", b"\n"][n % 2])), n + 1))
        });
        let mut input = Input::new(Body::from_stream(pieces), Duration::from_millis(50));
        let told = tokio::time::timeout(Duration::from_secs(60), input.next()).await.expect("it is told in time");
        assert_eq!(told.unwrap_err().status, StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_client_that_falls_silent_is_told_so() {
        let pieces = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"{}\n{"))]).chain(stream::pending());
        let mut input = Input::new(Body::from_stream(pieces), Duration::from_millis(1));
        assert_eq!(input.next().await.map(|line| line.map(|line| line.number)), Ok(Some(1)));
        assert_eq!(input.next().await.unwrap_err().status, StatusCode::REQUEST_TIMEOUT);
        assert!(input.ended && input.broken.is_none());
        assert_eq!(input.lines.next_number(), 2);
    }
}
