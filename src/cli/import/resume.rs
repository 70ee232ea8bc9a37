//! How far an import got, in a small file beside the one that is imported.
//!
//! It holds the last document up to which all are done, without a gap. It is replaced as a whole, so that an
//! interruption leaves the old or the new one. What was written after it is sent again, with the same ids.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cli::failure::{Failure, Kind, Outcome};

/// How often it is written at most; what is done meanwhile is done again after an interruption.
const INTERVAL: Duration = Duration::from_millis(200);

/// What ids are made of, so that a document that is sent again gets the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Run {
    started_ms: u64,
    seed: [u8; 16],
}

impl Run {
    /// A run of its own.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(super) fn new() -> Outcome<Self> {
        let mut seed = [0; 16];
        let failed = |error| Failure::new(Kind::Failed, format!("the system gives no randomness: {error}"));
        getrandom::fill(&mut seed).map_err(failed)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { started_ms: u64::try_from(since.as_millis()).unwrap_or_default(), seed })
    }

    /// The id of the document at a place of the file: a UUIDv7 of the run's time.
    pub(super) fn id(&self, number: u64) -> String {
        let hash = blake3::Hasher::new().update(&self.seed).update(&number.to_le_bytes()).finalize();
        let random: &[u8; 10] = hash.as_bytes().first_chunk().expect("a hash has more bytes");
        uuid::Builder::from_unix_timestamp_millis(self.started_ms, random).into_uuid().to_string()
    }
}

/// What an import is: it goes on only as the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) url: String,
    pub(super) collection: String,
    pub(super) format: String,
    pub(super) id_field: Option<String>,
    pub(super) file_bytes: u64,
    pub(super) modified_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    task: Task,
    run: Run,
    /// All documents up to this one are done.
    done: u64,
}

/// The file that holds it.
#[derive(Debug)]
pub(super) struct Resume {
    path: PathBuf,
    state: State,
    written: Option<Instant>,
}

impl Resume {
    /// Reads how far an import got, or begins a new one.
    ///
    /// # Errors
    /// When the file is unreadable or of another import.
    pub(super) fn open(file: &Path, task: Task) -> Outcome<Self> {
        let mut path = file.as_os_str().to_owned();
        path.push(".aerolithsdb-import");
        let path = PathBuf::from(path);
        let fail = |why: String| {
            let path = path.display();
            Failure::new(Kind::Failed, format!("{path} {why}; delete it to begin from the start"))
        };
        let state = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State { task, run: Run::new()?, done: 0 },
            Err(error) => return Err(fail(format!("cannot be read ({error})"))),
            Ok(bytes) => {
                let state: State =
                    serde_json::from_slice(&bytes).map_err(|error| fail(format!("is damaged ({error})")))?;
                if state.task != task {
                    return Err(fail("is of another import, or the file has changed since".into()));
                }
                state
            }
        };
        Ok(Self { path, state, written: None })
    }

    pub(super) fn run(&self) -> Run {
        self.state.run
    }

    /// All documents up to this one are done.
    pub(super) fn done(&self) -> u64 {
        self.state.done
    }

    /// Takes note of progress, and writes it down once in a while.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn advance(&mut self, done: u64) -> Outcome {
        self.state.done = self.state.done.max(done);
        if self.written.is_some_and(|at| at.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.write()
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&mut self) -> Outcome {
        self.written = Some(Instant::now());
        let text = serde_json::to_vec(&self.state).expect("texts and numbers are JSON");
        let new = self.path.with_extension("aerolithsdb-import.new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path));
        let failed = |error| Failure::new(Kind::Failed, format!("{} cannot be written: {error}", self.path.display()));
        written.map_err(failed)
    }

    /// Removes it: there is nothing left to go on with.
    pub(super) fn finish(self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("warning: {} cannot be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        Task {
            url: "u".into(),
            collection: "c".into(),
            format: "ndjson".into(),
            id_field: None,
            file_bytes: 9,
            modified_ms: 1,
        }
    }

    #[test]
    fn it_goes_on_as_the_same_import_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.ndjson");
        let mut resume = Resume::open(&file, task()).unwrap();
        let run = resume.run();
        resume.advance(5).unwrap();
        resume.advance(9).unwrap();
        assert_eq!(Resume::open(&file, task()).unwrap().done(), 5, "the second is too soon to be written");
        resume.write().unwrap();
        let again = Resume::open(&file, task()).unwrap();
        assert_eq!((again.done(), again.run()), (9, run));
        assert!(Resume::open(&file, Task { file_bytes: 10, ..task() }).is_err());
        again.finish();
        assert_eq!(Resume::open(&file, task()).unwrap().done(), 0);
    }
}
