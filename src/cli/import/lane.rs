//! Sending documents: several connections side by side, each with requests of a bounded size, one after the other.
//!
//! Documents with the same id go the same way, so that their order is that of the file. A request that fails is sent
//! again, from the first document that was not answered; that changes nothing that was written already.

use std::io::{BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::http::Method;

use super::name::Named;
use super::tally::{Answer, Tally};
use crate::cli::failure::{Failure, Kind, Outcome};
use crate::cli::http::Peer;
use crate::limits::{IMPORT_BYTES_MAX, IMPORT_DOCUMENTS_MAX};

/// Bytes of one result at most: an id, and what a person reads.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// How long a request that failed rests before it is sent again.
const PAUSES_MS: [u64; 5] = [200, 400, 800, 1_600, 3_200];
const REQUEST_TIMEOUT: u16 = 408;
const UNAVAILABLE: u16 = 503;

/// Documents for one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Their lines, one after the other.
    body: Vec<u8>,
    /// Of each document its number in the file, and where its line ends.
    documents: Vec<(u64, usize)>,
}

impl Batch {
    pub(super) fn push(&mut self, number: u64, text: &[u8]) {
        self.body.extend_from_slice(text);
        self.body.push(b'\n');
        self.documents.push((number, self.body.len()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Whether another document would make it too large.
    pub(super) fn is_full_for(&self, text: &[u8]) -> bool {
        let too_large = self.body.len() + text.len() >= IMPORT_BYTES_MAX;
        self.documents.len() == IMPORT_DOCUMENTS_MAX || !self.is_empty() && too_large
    }

    fn start_of(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.documents[before].1)
    }

    fn document(&self, index: usize) -> &[u8] {
        &self.body[self.start_of(index)..self.documents[index].1 - 1]
    }
}

/// One of the ways, where documents are put.
pub(super) struct Lane {
    next: Batch,
    batches: SyncSender<Batch>,
}

impl Lane {
    pub(super) fn new(batches: SyncSender<Batch>) -> Self {
        Self { next: Batch::default(), batches }
    }

    /// Puts a document on its way. False when nobody sends any more.
    pub(super) fn push(&mut self, number: u64, document: &Named, tally: &Mutex<Tally>) -> bool {
        if self.next.is_full_for(&document.text) && !self.flush() {
            return false;
        }
        if self.next.is_empty() {
            lock(tally).open(number);
        }
        self.next.push(number, &document.text);
        true
    }

    /// Hands over what is left.
    pub(super) fn flush(&mut self) -> bool {
        let batch = std::mem::take(&mut self.next);
        batch.is_empty() || self.batches.send(batch).is_ok()
    }
}

/// The other end, which sends.
pub(super) struct Sender<'a> {
    pub(super) peer: Peer,
    pub(super) path: String,
    /// Whether a request may be sent again.
    pub(super) repeats: bool,
    pub(super) tally: &'a Mutex<Tally>,
}

impl Sender<'_> {
    /// Sends what comes until nothing more does.
    ///
    /// # Errors
    /// When the peer cannot be reached or refuses.
    pub(super) fn run(&self, batches: &Receiver<Batch>) -> Outcome {
        batches.iter().try_for_each(|batch| self.send(&batch))
    }

    fn send(&self, batch: &Batch) -> Outcome {
        let mut pauses = PAUSES_MS.into_iter();
        let mut done = 0;
        loop {
            let (answers, ended) = self.attempt(&batch.body[batch.start_of(done)..], batch.documents.len() - done);
            let mut tally = lock(self.tally);
            for (index, answer) in (done..).zip(&answers) {
                tally.answered(batch.documents[index].0, answer, batch.document(index))?;
            }
            done += answers.len();
            if let (Some((last, _)), true) = (batch.documents.last(), done == batch.documents.len()) {
                return tally.close(batch.documents[0].0, *last);
            }
            drop(tally);
            let failure = ended.err().unwrap_or_else(|| Failure::new(Kind::Unavailable, "the peer stopped answering"));
            match pauses.next().filter(|_| self.repeats && failure.kind == Kind::Unavailable) {
                Some(pause) => std::thread::sleep(Duration::from_millis(pause)),
                None => return Err(failure),
            }
        }
    }

    /// One request: what was answered, and how it ended.
    fn attempt(&self, body: &[u8], expected: usize) -> (Vec<Answer>, Outcome) {
        let mut answers = Vec::new();
        let ended =
            self.peer.lines(Method::POST, &self.path, Some(body)).and_then(|lines| read(lines, expected, &mut answers));
        let unfinished = |answer: &mut Answer| matches!(answer.status, REQUEST_TIMEOUT | UNAVAILABLE);
        if answers.len() < expected {
            // It was cut off there, by a peer that is going down.
            answers.pop_if(unfinished);
        }
        (answers, ended)
    }
}

fn read(mut lines: impl BufRead, expected: usize, answers: &mut Vec<Answer>) -> Outcome {
    let mut line = Vec::new();
    while answers.len() < expected {
        line.clear();
        let read = lines.by_ref().take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
        let broken = |error| Failure::new(Kind::Unavailable, format!("the peer stopped answering: {error}"));
        if read.map_err(broken)? == 0 {
            return Ok(());
        }
        let answer: Answer = serde_json::from_slice(&line).map_err(|_| senseless())?;
        if answer.line != answers.len() as u64 + 1 {
            return Err(senseless());
        }
        answers.push(answer);
    }
    // To the end, so that the connection can be used again.
    std::io::copy(&mut lines.take(ANSWER_BYTES_MAX), &mut std::io::sink()).map(|_| ()).map_err(|_| senseless())
}

fn senseless() -> Failure {
    Failure::new(
        Kind::Failed,
        "the peer answered in a way that makes no sense; is it another program, or another version?",
    )
}

pub(super) fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_and_know_their_documents() {
        let mut batch = Batch::default();
        assert!(!batch.is_full_for(&vec![b'x'; 2 * IMPORT_BYTES_MAX]));
        for number in 0..IMPORT_DOCUMENTS_MAX {
            assert!(!batch.is_full_for(b"{}"));
            batch.push(number as u64, b"{}");
        }
        assert!(batch.is_full_for(b"{}"));
        assert_eq!((batch.document(0), batch.document(999), batch.start_of(999)), (&b"{}"[..], &b"{}"[..], 2_997));
        let mut batch = Batch::default();
        batch.push(1, b"{}");
        assert!(batch.is_full_for(&vec![b'x'; IMPORT_BYTES_MAX]));
    }

    #[test]
    fn answers_are_read_in_their_order() {
        let mut answers = Vec::new();
        let text = b"{\"line\":1,\"status\":201,\"result\":\"created\",\"id\":\"a\"}\n{\"line\":2,\"status\":400}\n";
        assert_eq!(read(&text[..], 2, &mut answers), Ok(()));
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [201, 400]);
        assert!(read(&b"{\"line\":2,\"status\":201}\n"[..], 2, &mut Vec::new()).is_err());
        assert!(read(&b"<html>"[..], 2, &mut Vec::new()).is_err());
        let mut some = Vec::new();
        assert_eq!(read(&b"{\"line\":1,\"status\":201}\n"[..], 2, &mut some), Ok(()));
        assert_eq!(some.len(), 1);
    }
}
