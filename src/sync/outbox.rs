//! What is to be sent to one peer: whole ranges and single documents, streamed in bounded frames under
//! credit. An acknowledgement says that a frame is on the other disk, and gives its credit back.

use std::collections::{BTreeSet, VecDeque};

use crate::base::{ActorId, CollectionName, DocumentKey};
use crate::document::Unchecked;
use crate::limits::{CHANGES_FRAME_BYTES, CHANGES_PER_FRAME_MAX, CREDIT_BYTES, OUTBOX_JOBS_MAX};
use crate::store::{LogCursor, Store};
use crate::{Error, Result};

/// Documents of a range that are looked up at a time.
const RANGE_STEP: usize = 64;

/// Something that the other side lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job(Work);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Work {
    /// Every document of a range, with all of its changes.
    Range { collection: CollectionName, from: Vec<u8>, to: Option<Vec<u8>> },
    /// The changes of a document beyond a vector.
    Document { key: DocumentKey, theirs: Vec<(ActorId, u64)> },
    /// The rest of a document that did not fit a frame.
    Rest(LogCursor),
}

impl Job {
    /// Everything in a range of ids.
    #[must_use]
    pub fn range(collection: CollectionName, from: &[u8], to: Option<&[u8]>) -> Self {
        Self(Work::Range { collection, from: from.to_vec(), to: to.map(<[u8]>::to_vec) })
    }

    /// The document whose changes are to be sent, and the vector beyond which; `None` for whole ranges.
    #[must_use]
    pub fn of_document(&self) -> Option<(&DocumentKey, &[(ActorId, u64)])> {
        match &self.0 {
            Work::Document { key, theirs } => Some((key, theirs)),
            Work::Range { .. } | Work::Rest(_) => None,
        }
    }

    /// What somebody with the vector `theirs` lacks of a document.
    #[must_use]
    pub fn document(key: DocumentKey, theirs: Vec<(ActorId, u64)>) -> Self {
        Self(Work::Document { key, theirs })
    }
}

/// The queue towards one peer.
#[derive(Debug, Default)]
pub struct Outbox {
    jobs: VecDeque<Job>,
    queued: BTreeSet<DocumentKey>,
    /// Number and bytes of each frame that is not acknowledged.
    under_way: VecDeque<(u64, usize)>,
    under_way_bytes: usize,
    frames_sent: u64,
}

impl Outbox {
    /// Whether nothing is queued and nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.under_way.is_empty()
    }

    /// Ranges and documents queued, and frames under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len() + self.under_way.len()
    }

    /// Queues jobs; those beyond the limit and documents that are queued already are left out.
    pub fn push(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            if self.jobs.len() >= OUTBOX_JOBS_MAX {
                return;
            }
            if let Work::Document { key, .. } = &job.0
                && !self.queued.insert(key.clone())
            {
                continue;
            }
            self.jobs.push_back(job);
        }
    }

    /// Takes an acknowledgement of this frame and all before it.
    pub fn acknowledge(&mut self, number: u64) {
        while let Some(&(first, bytes)) = self.under_way.front()
            && first <= number
        {
            self.under_way.pop_front();
            self.under_way_bytes -= bytes;
        }
    }

    /// The next frame, if there is work and credit: its number and its changes.
    ///
    /// # Errors
    /// When the store cannot be read. A damaged document is skipped.
    pub fn next_frame(&mut self, store: &mut Store) -> Result<Option<(u64, Vec<Unchecked>)>> {
        if self.under_way_bytes >= CREDIT_BYTES {
            return Ok(None);
        }
        let (mut changes, mut bytes): (Vec<Unchecked>, usize) = (Vec::new(), 0);
        while bytes < CHANGES_FRAME_BYTES && changes.len() + RANGE_STEP < CHANGES_PER_FRAME_MAX {
            let Some(job) = self.jobs.pop_front() else { break };
            let more = match self.work(job, store, CHANGES_FRAME_BYTES - bytes) {
                Ok(more) => more,
                Err(Error::Corrupt(why)) => {
                    tracing::debug!(why, "left out of what is sent");
                    continue;
                }
                Err(error) => return Err(error),
            };
            bytes += size_of_all(&more);
            changes.extend(more);
        }
        if changes.is_empty() {
            return Ok(None);
        }
        self.frames_sent += 1;
        self.under_way.push_back((self.frames_sent, bytes));
        self.under_way_bytes += bytes;
        Ok(Some((self.frames_sent, changes)))
    }

    /// Does a part of a job that gives about `bytes`, and puts the rest of it back in front.
    fn work(&mut self, job: Job, store: &mut Store, bytes: usize) -> Result<Vec<Unchecked>> {
        match job.0 {
            Work::Range { collection, from, to } => self.work_range(collection, &from, to.as_deref(), store, bytes),
            Work::Document { key, theirs } => {
                self.queued.remove(&key);
                let Some(record) = store.record(&key)? else { return Ok(Vec::new()) };
                match store.missing(&key, &record, &theirs) {
                    Some(cursor) => self.stream(cursor, store, bytes),
                    None => Ok(Vec::new()),
                }
            }
            Work::Rest(cursor) => self.stream(cursor, store, bytes),
        }
    }

    fn work_range(
        &mut self,
        collection: CollectionName,
        from: &[u8],
        to: Option<&[u8]>,
        store: &mut Store,
        bytes: usize,
    ) -> Result<Vec<Unchecked>> {
        let (items, mut next) = store.items(&collection, from, to, RANGE_STEP)?;
        let (mut changes, mut size, mut rest) = (Vec::new(), 0, None);
        for (id, record) in items {
            if size >= bytes {
                next = Some(id.as_str().as_bytes().to_vec());
                break;
            }
            let key = DocumentKey::new(collection.clone(), id);
            let Some(mut cursor) = store.missing(&key, &record, &[]) else { continue };
            let more = readable(store.stream(&mut cursor, bytes - size))?;
            size += size_of_all(&more);
            changes.extend(more);
            // A document that is not done has filled the frame, so there is one at most.
            rest = Some(cursor).filter(|cursor| cursor.changes() > 0 && size >= bytes);
        }
        if let Some(next) = next {
            self.jobs.push_front(Job::range(collection, &next, to));
        }
        if let Some(rest) = rest {
            self.jobs.push_front(Job(Work::Rest(rest)));
        }
        Ok(changes)
    }

    fn stream(&mut self, mut cursor: LogCursor, store: &mut Store, bytes: usize) -> Result<Vec<Unchecked>> {
        let changes = readable(store.stream(&mut cursor, bytes))?;
        if cursor.changes() > 0 && !changes.is_empty() {
            self.jobs.push_front(Job(Work::Rest(cursor)));
        }
        Ok(changes)
    }
}

/// A damaged document is left out of what is sent.
fn readable(streamed: Result<Vec<Unchecked>>) -> Result<Vec<Unchecked>> {
    match streamed {
        Err(Error::Corrupt(why)) => {
            tracing::debug!(why, "left out of what is sent");
            Ok(Vec::new())
        }
        Ok(_) | Err(_) => streamed,
    }
}

fn size_of_all(changes: &[Unchecked]) -> usize {
    changes.iter().map(|change| change.run.bytes() + 128).sum()
}
