//! What became of the documents of an import: counts, the first failures, how far it got, and a bar of progress.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::resume::Resume;
use crate::cli::failure::{Failure, Kind, Outcome};

/// Failures that are shown when no file takes them.
const SHOWN_MAX: usize = 10;

/// What a peer says of a line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(super) struct Answer {
    pub(super) line: u64,
    pub(super) status: u16,
    id: Option<String>,
    result: Option<String>,
    detail: Option<String>,
    field: Option<String>,
    position: Option<Value>,
}

/// A document that was not written.
#[derive(Debug, Serialize)]
struct Lost<'a> {
    /// Its line, row or place in the array.
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// The document as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
}

/// Counts, by what became of a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) created: u64,
    pub(super) replaced: u64,
    pub(super) unchanged: u64,
    pub(super) deleted: u64,
    pub(super) failed: u64,
}

impl Counts {
    pub(super) fn done(&self) -> u64 {
        self.created + self.replaced + self.unchanged + self.deleted
    }
}

/// What all connections of an import write to.
pub(super) struct Tally {
    pub(super) counts: Counts,
    /// The first failures, for a person.
    pub(super) shown: Vec<String>,
    /// What a document is called: line, row or element.
    unit: &'static str,
    errors: Option<BufWriter<File>>,
    resume: Option<Resume>,
    /// The first document of each request that is not answered.
    open: BTreeSet<u64>,
    /// The last document of an answered request.
    highest: u64,
    bar: ProgressBar,
    started: Instant,
}

impl Tally {
    pub(super) fn new(
        unit: &'static str,
        errors: Option<&Path>,
        resume: Option<Resume>,
        bar: ProgressBar,
    ) -> Outcome<Self> {
        // An import that goes on keeps what failed before.
        let goes_on = resume.as_ref().is_some_and(|resume| resume.done() > 0);
        let create = |path: &Path| {
            let failed = |error| Failure::new(Kind::Failed, format!("{} cannot be written: {error}", path.display()));
            let mut options = File::options();
            options.create(true).append(goes_on).write(true).truncate(!goes_on);
            options.open(path).map(BufWriter::new).map_err(failed)
        };
        let errors = errors.map(create).transpose()?;
        let highest = resume.as_ref().map_or(0, Resume::done);
        let (counts, shown, open) = (Counts::default(), Vec::new(), BTreeSet::new());
        Ok(Self { counts, shown, unit, errors, resume, open, highest, bar, started: Instant::now() })
    }

    /// A request begins with this document.
    pub(super) fn open(&mut self, first: u64) {
        self.open.insert(first);
    }

    /// A request that began with `first` and ended with `last` is answered.
    pub(super) fn close(&mut self, first: u64, last: u64) -> Outcome {
        self.open.remove(&first);
        self.highest = self.highest.max(last);
        let done = self.open.first().map_or(self.highest, |first| first - 1);
        self.show();
        self.resume.as_mut().map_or(Ok(()), |resume| resume.advance(done))
    }

    /// Takes note of what became of a document.
    pub(super) fn answered(&mut self, number: u64, answer: &Answer, document: &[u8]) -> Outcome {
        let count = match answer.result.as_deref() {
            Some("created") => &mut self.counts.created,
            Some("unchanged") => &mut self.counts.unchanged,
            Some("deleted") => &mut self.counts.deleted,
            Some(_) => &mut self.counts.replaced,
            None => {
                let lost = Lost {
                    line: number,
                    status: Some(answer.status),
                    detail: answer.detail.as_deref().unwrap_or("the peer gives no reason"),
                    id: answer.id.as_deref(),
                    field: answer.field.as_deref(),
                    document: str::from_utf8(document).ok(),
                };
                return self.lost(&lost);
            }
        };
        *count += 1;
        Ok(())
    }

    /// Takes note of a document that cannot be sent.
    pub(super) fn unsendable(&mut self, number: u64, why: &str) -> Outcome {
        self.lost(&Lost { line: number, status: None, detail: why, id: None, field: None, document: None })
    }

    fn lost(&mut self, lost: &Lost<'_>) -> Outcome {
        self.counts.failed += 1;
        if let Some(errors) = &mut self.errors {
            let text = serde_json::to_string(lost).expect("texts are JSON");
            let failed = |error| Failure::new(Kind::Failed, format!("the file of errors cannot be written: {error}"));
            return writeln!(errors, "{text}").map_err(failed);
        }
        if self.shown.len() < SHOWN_MAX {
            let detail: String = lost.detail.chars().filter(|c| !c.is_control()).take(300).collect();
            self.shown.push(format!("{} {}: {detail}", self.unit, lost.line));
        }
        Ok(())
    }

    fn show(&self) {
        let Counts { failed, .. } = self.counts;
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let done = self.counts.done();
        self.bar.set_message(format!("{done} written, {:.0}/s, {failed} failed", done as f64 / seconds));
    }

    /// Ends: the bar goes, and what was put off is written. With `completed` there is nothing to go on with.
    pub(super) fn end(&mut self, completed: bool) -> Outcome {
        self.bar.finish_and_clear();
        if let Some(errors) = &mut self.errors {
            let failed = |error| Failure::new(Kind::Failed, format!("the file of errors cannot be written: {error}"));
            errors.flush().map_err(failed)?;
        }
        match self.resume.take() {
            Some(resume) if completed => resume.finish(),
            Some(mut resume) => resume.write()?,
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::resume::{Resume, Task};
    use super::*;

    #[test]
    fn progress_has_no_gap() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        let task = || Task {
            url: "u".into(),
            collection: "c".into(),
            format: "f".into(),
            id_field: None,
            file_bytes: 1,
            modified_ms: 1,
        };
        let resume = Resume::open(&file, task()).unwrap();
        let mut tally = Tally::new("line", None, Some(resume), ProgressBar::hidden()).unwrap();
        let done = |tally: &mut Tally| {
            tally.resume.as_mut().unwrap().write().unwrap();
            Resume::open(&file, task()).unwrap().done()
        };
        // Two requests side by side: 1, 3, 5 and 2, 4.
        tally.open(1);
        tally.open(2);
        tally.close(2, 4).unwrap();
        assert_eq!(done(&mut tally), 0);
        tally.open(6);
        tally.close(1, 5).unwrap();
        assert_eq!(done(&mut tally), 5);
        tally.close(6, 9).unwrap();
        assert_eq!(done(&mut tally), 9);
    }
}
