//! Queries of a collection, and its indexes. Queries read beside the node, on threads that may wait for the disk, a few
//! at a time; each has a limit of time and of memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use super::Collection;
use crate::base::CollectionName;
use crate::filter::Filter;
use crate::index::{Definition, IndexName};
use crate::limits::QUERY_TIME_DEFAULT_MS;
use crate::memory::Memory;
use crate::node::{Command, Reply};
use crate::query::aggregate::{Pipeline, Sink, Sources};
use crate::query::{self, Budget, Explained, Find, Flow, Found};
use crate::store::{Conflict, Progress, Reader};
use crate::value::{Path, Row};
use crate::{Error, Result};

/// An index as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexReport {
    /// Its name.
    pub name: IndexName,
    /// What it is.
    pub definition: Definition,
    /// How far it is.
    pub progress: Progress,
    /// Documents that it is about.
    pub documents: u64,
    /// Entries, about.
    pub keys: u64,
    /// Different keys among them, about.
    pub distinct: u64,
    /// Whether documents have several keys in it.
    pub multiple: bool,
}

/// What declaring an index did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// There was none of that name.
    Created,
    /// It took the place of one that was declared differently.
    Replaced,
    /// It was declared so already.
    Unchanged,
}

/// How long queries of a handle may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit(pub Duration);

impl Default for TimeLimit {
    fn default() -> Self {
        Self(Duration::from_millis(QUERY_TIME_DEFAULT_MS))
    }
}

impl TimeLimit {
    pub(super) fn budget(self, memory: Memory) -> Budget {
        Budget::new(Some(Instant::now() + self.0), memory.query_bytes())
    }
}

/// The documents of this peer, for `$lookup`.
struct Collections<'a> {
    reader: &'a Reader,
    budget: &'a Budget,
}

impl Sources for Collections<'_> {
    fn scan(&self, collection: &str, sink: Sink<'_>) -> Result<()> {
        let name: CollectionName = collection.parse()?;
        query::each(self.reader, &name, None, self.budget, sink)
    }
}

impl Collection {
    /// Whether the collection is there: it has, or had, a document, was made, or has an index.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn exists(&self) -> Result<bool> {
        let reader = &self.peer().shared.reader;
        Ok(reader.collection(self.name())?.is_some() || !reader.catalog().of(self.name()).is_empty())
    }

    pub(super) fn memory(&self) -> Memory {
        self.peer().memory()
    }

    /// Finds documents.
    ///
    /// # Errors
    /// As [`Find::run`], and [`Error::Unavailable`] when too many queries run.
    pub async fn find(&self, find: Find, limit: TimeLimit) -> Result<Found> {
        let slow = self.peer().shared.slow_query;
        Ok(self.find_explained(find, limit, if slow.is_zero() { Duration::MAX } else { slow }).await?.0)
    }

    /// Finds documents, and says how.
    ///
    /// # Errors
    /// As [`Collection::find`].
    pub async fn explain(&self, find: Find, limit: TimeLimit) -> Result<(Found, Explained)> {
        let (found, explained) = self.find_explained(find, limit, Duration::ZERO).await?;
        Ok((found, explained.expect("whatever was found took at least no time")))
    }

    /// Finds documents, and says how when that took at least so long.
    async fn find_explained(&self, find: Find, limit: TimeLimit, slow: Duration) -> Result<(Found, Option<Explained>)> {
        let (name, find, start) = (self.name().clone(), Arc::new(find), Instant::now());
        let (asked, memory) = (find.clone(), self.memory());
        let found = self.query(move |reader| asked.run_explained(reader, &name, &limit.budget(memory), slow)).await;
        self.tell_if_slow(start, Some(find.filter()), found.as_ref().map(|found| found.1.as_ref()));
        let found = found?;
        for id in &found.0.damaged {
            self.peer().shared.runner.notify(Command::Damaged(self.key(id.clone())));
        }
        Ok(found)
    }

    /// How many documents match.
    ///
    /// # Errors
    /// As [`query::count`].
    pub async fn count_matching(&self, filter: Filter, limit: TimeLimit) -> Result<u64> {
        let (name, start, filter) = (self.name().clone(), Instant::now(), Arc::new(filter));
        let (asked, memory) = (filter.clone(), self.memory());
        let counted = self.query(move |reader| query::count(reader, &name, &asked, &limit.budget(memory))).await;
        self.tell_if_slow(start, Some(&filter), counted.as_ref().map(|_| None));
        counted
    }

    /// How many documents match, about, without looking at them.
    ///
    /// # Errors
    /// As [`query::estimate`].
    pub async fn estimate(&self, filter: Filter) -> Result<u64> {
        let name = self.name().clone();
        self.query(move |reader| query::estimate(reader, &name, &filter)).await
    }

    /// The different values that a path finds.
    ///
    /// # Errors
    /// As [`query::distinct`].
    pub async fn distinct(&self, path: Path, filter: Filter, limit: TimeLimit) -> Result<Vec<Value>> {
        let (name, start, filter) = (self.name().clone(), Instant::now(), Arc::new(filter));
        let (asked, memory) = (filter.clone(), self.memory());
        let values =
            self.query(move |reader| query::distinct(reader, &name, &path, &asked, &limit.budget(memory))).await;
        self.tell_if_slow(start, Some(&filter), values.as_ref().map(|_| None));
        values
    }

    /// Runs the documents through a pipeline: JSON texts of what comes out.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a stage cannot work on a document, or the time or the memory is over.
    pub async fn aggregate(&self, pipeline: Pipeline, limit: TimeLimit) -> Result<Vec<Bytes>> {
        let (name, start, asked) = (self.name().clone(), Instant::now(), Arc::new(pipeline));
        let (pipeline, memory) = (asked.clone(), self.memory());
        let rows = self.query(move |reader| {
            let (reader, budget) = (&reader.pinned(), limit.budget(memory));
            let sources = Collections { reader, budget: &budget };
            let mut run = pipeline.start(&sources, &budget);
            let mut rows: Vec<Bytes> = Vec::new();
            let mut take = |row: Row<'_>| -> Flow {
                let text = query::whole(row).into_owned();
                budget.take(text.len(), "pipeline")?;
                rows.push(text.into());
                Ok(std::ops::ControlFlow::Continue(()))
            };
            query::each(reader, &name, pipeline.filter(), &budget, &mut |row| run.push(row, &mut take))?;
            run.finish(&mut take)?;
            Ok(rows)
        });
        let rows = rows.await;
        self.tell_if_slow(start, asked.filter(), rows.as_ref().map(|_| None));
        rows
    }

    /// Tells of a query in the log when it took long, one that came to its time limit too. One for which there was no
    /// room never ran: it is not slow, and there may be many of those.
    fn tell_if_slow(
        &self,
        start: Instant,
        filter: Option<&Filter>,
        answer: std::result::Result<Option<&Explained>, &Error>,
    ) {
        let (took, slow) = (start.elapsed(), self.peer().shared.slow_query);
        if slow.is_zero() || took < slow || matches!(answer, Err(Error::Unavailable(_))) {
            return;
        }
        self.peer().shared.slow_queries.fetch_add(1, Ordering::Relaxed);
        let error = answer.err().map(tracing::field::display);
        let explained = answer.ok().flatten();
        let filter = filter.map(ToString::to_string).unwrap_or_default();
        let filter: String = filter.chars().take(FILTER_SHOWN_CHARS).collect();
        let (documents, entries) = explained.map_or((0, 0), |of| (of.documents_examined, of.entries_examined));
        let plan = explained.map(|of| of.plan.to_string()).unwrap_or_default();
        let plan: String = plan.chars().take(PLAN_SHOWN_CHARS).collect();
        tracing::warn!(collection = %self.name(), ms = took.as_millis(), filter, documents, entries, plan, error, "a slow query");
    }

    /// Declares an index of this peer, which is filled in the background; the same again changes nothing, another one
    /// takes the place of what had its name.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are as many as there may be, [`Error::Denied`] for a collection of the system's.
    pub async fn put_index(&self, name: IndexName, definition: Definition) -> Result<Declared> {
        // As it was a moment before: of two that declare one name at once both may be told that it was created.
        let was_there = self.peer().shared.reader.catalog().get(self.name(), &name).is_some();
        let changed = self.change_index(Command::PutIndex(self.name().clone(), name, definition)).await?;
        Ok(match (changed, was_there) {
            (false, _) => Declared::Unchanged,
            (true, true) => Declared::Replaced,
            (true, false) => Declared::Created,
        })
    }

    /// Drops an index.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none of that name, [`Error::Denied`] for a collection of the system's.
    pub async fn drop_index(&self, name: IndexName) -> Result<()> {
        self.change_index(Command::DropIndex(self.name().clone(), name)).await.map(drop)
    }

    async fn change_index(&self, command: Command) -> Result<bool> {
        let Reply::Index(changed) = self.peer().command(command).await? else {
            unreachable!("a change of an index is answered with whether anything changed")
        };
        Ok(changed)
    }

    /// The indexes, in the order of their names.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn indexes(&self) -> Result<Vec<IndexReport>> {
        let reader = &self.peer().shared.reader;
        let documents = reader.collection(self.name())?.map_or(0, |counts| counts.documents);
        let catalog = reader.catalog();
        let report = |index: &std::sync::Arc<crate::store::Index>| IndexReport {
            name: index.name().clone(),
            definition: index.definition().clone(),
            progress: index.progress(),
            documents,
            keys: index.keys(),
            distinct: index.histogram().distinct(),
            multiple: index.is_multiple(),
        };
        Ok(catalog.of(self.name()).iter().map(report).collect())
    }

    /// Documents that have the same key of a unique index, because peers wrote them while they were apart: at most
    /// `limit` keys.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such index, [`Error::Io`] when the disk cannot be read.
    pub async fn index_conflicts(&self, name: IndexName, limit: usize) -> Result<Vec<Conflict>> {
        let collection = self.name().clone();
        self.query(move |reader| {
            let (reader, catalog) = (reader.pinned(), reader.catalog());
            let index = catalog
                .of(&collection)
                .iter()
                .find(|index| *index.name() == name)
                .ok_or_else(|| Error::NotFound(format!("collection {collection} has no index {name}")))?;
            reader.conflicts(&collection, index, limit)
        })
        .await
    }

    /// Reads on a thread that may wait.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = &self.peer().shared;
        let busy = || Error::Unavailable("as many queries run as may run at a time; try again in a moment".into());
        let room = tokio::time::timeout(QUEUE, shared.queries.clone().acquire_owned()).await.map_err(|_| busy())?;
        let (room, reader) = (room.map_err(|_| busy())?, shared.reader.clone());
        let read = move || {
            let _room = room;
            read(&reader)
        };
        let failed = |fault| Error::Io(format!("a query of collection {}: {fault}", self.name()));
        let start = Instant::now();
        let result = tokio::task::spawn_blocking(read).await.map_err(failed)?;
        shared.queried.record(start, result.is_ok());
        result
    }
}

/// Characters of a filter and of a plan that the log repeats.
const FILTER_SHOWN_CHARS: usize = 200;
const PLAN_SHOWN_CHARS: usize = 1_000;

/// How long a query waits for others.
const QUEUE: Duration = Duration::from_secs(5);
