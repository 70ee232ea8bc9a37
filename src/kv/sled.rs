//! sled under the table, and everything that one has to know to use it. No other file names sled.
//!
//! sled 1.0.0-alpha.124 is exactly pinned; what follows was read from its source and measured.
//!
//! - `Db` and `Tree` are not `Sync`: each thread works on clones of its own.
//! - Every `Db`, `Tree` and `Iter` flushes when it is dropped, unless sled has a flusher thread. So it
//!   gets one, with an interval that never ends: all flushing is driven by [`Kv::flush`], and the thread
//!   flushes once more at the end.
//! - After a failed flush the next one waits forever, at drop too. So a failed store is never flushed again,
//!   and its handles are leaked; its folder stays locked until the process ends.
//! - Opening runs the program `sync`, if there is one: on a machine that writes a lot it may take a second.
//! - A leaf that was written is never evicted again from memory. So the database is flushed and opened anew
//!   once such leaves may take more than twice the cache; readers wait meanwhile, 20 ms on an idle disk.
//! - The end of a range does not end an iteration: it goes on to the end of the tree, finding nothing. So
//!   scans are open-ended and stop by themselves. An iterator copies references to a whole leaf at a time.
//! - An iterator works on a clone of its tree, and a clone keeps its last 31 accesses to itself, so that what a short
//!   scan read into memory is never evicted. So its keys are got once more, by the tree that stays.
//! - What a new database consists of is not all synced. So it is made beside its place, synced, and moved.
//! - `apply_batch` is atomic in one tree only.
//! - One page that cannot be read sets an error for the whole database: every call fails from then on. And a leaf whose
//!   slot holds another one is waited for without end. So the list of leaves is checked before each opening, and a
//!   database that failed is left to `table`.
//!
//! Leaves hold up to 128 entries and are written as a whole: a value above 8 KiB is cut in chunks that
//! live in a second tree, under a name made of key and content. The entry in the main tree is a tag and the
//! value, or a tag and that name. New chunks are written before the entry and old ones removed after it, so a
//! reader that raced with the writer finds either all chunks of one version or misses one, and looks again.
//!
//! Not here: a sync on each write (`flush` takes 10-100 ms; the journal in front makes writes durable).

use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use thread_local::ThreadLocal;

use super::entry::{CHUNK_BYTES, ChunkName, Entry};
use super::leaves::{self, Pair};
use super::medium::{sync_all, sync_folder};
use super::memtable::{Entries, successor};
use super::table::SledConfig;
use super::{Batch, CacheUse, Error};

/// Entries of a leaf. It is part of the file format.
const LEAF_ENTRIES: usize = 128;
/// The fastest level that compresses.
const ZSTD_LEVEL: i32 = 1;
/// Bytes of a leaf in memory before any was written.
pub(super) const LEAF_BYTES_GUESS: u64 = 32 << 10;
/// How much larger leaves are in memory than on the disk, about.
const EXPANSION: u64 = 3;
/// Pairs that a scan takes before it visits them: a leaf's worth, read without holding a lock while visiting.
const SCAN_PAIRS: usize = 128;
/// Times that a reader looks again for a chunked value which is replaced under its eyes.
const CHUNK_RETRIES_MAX: usize = 1_000;
/// Attempts to lock the database, and the pause between two.
const LOCK_ATTEMPTS_MAX: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
pub(super) const CHUNKS_TREE: &str = "chunks";

type Db = sled::Db<LEAF_ENTRIES>;
type Tree = sled::Tree<LEAF_ENTRIES>;
/// Pairs of the main tree, and where the next ones start.
pub(super) type Entered = (Vec<Pair>, Option<Vec<u8>>);

/// One opening of the database.
#[derive(Debug)]
pub(super) struct Handles {
    /// Bytes of leaves that are stuck in memory, about.
    stuck_bytes: AtomicU64,
    /// What clones for further threads are made of.
    seed: Mutex<Trees>,
    of_thread: ThreadLocal<Trees>,
    /// Owns the flusher thread with the trees.
    _db: Mutex<Db>,
}

#[derive(Debug, Clone)]
pub(super) struct Trees {
    main: Tree,
    chunks: Tree,
}

impl Handles {
    /// Opens the database, and makes it when there is none; says why when it cannot be read.
    pub(super) fn of(folder: &Path, config: &SledConfig) -> Result<Result<Box<Self>, String>, Error> {
        if !folder.exists() {
            create(folder, config)?;
        }
        match leaves::check(folder).map_err(Error::Unreadable).and_then(|()| Self::open(folder, config)) {
            Err(Error::Unreadable(why)) => Ok(Err(why)),
            opened => opened.map(Ok),
        }
    }

    pub(super) fn open(folder: &Path, config: &SledConfig) -> Result<Box<Self>, Error> {
        let options = sled::Config::new()
            .path(folder)
            .flush_every_ms(Some(usize::MAX))
            .cache_capacity_bytes(config.memory.cache_bytes())
            .zstd_compression_level(ZSTD_LEVEL);
        catch("opening", || {
            let failed = |error| failed(format!("opening {}", folder.display()), &error);
            let db = open_unlocked(&options).map_err(failed)?;
            let chunks = db.open_tree(CHUNKS_TREE).map_err(|error| reading(&error))?;
            let seed = Trees { main: (*db).clone(), chunks };
            Ok(Box::new(Self {
                stuck_bytes: AtomicU64::new(0),
                seed: Mutex::new(seed),
                of_thread: ThreadLocal::new(),
                _db: Mutex::new(db),
            }))
        })
    }

    pub(super) fn trees(&self) -> &Trees {
        self.of_thread.get_or(|| self.seed.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Makes everything durable; says how many bytes a leaf that was written takes in memory, about.
    pub(super) fn flush(&self) -> Result<Option<u64>, Error> {
        let written = self.trees().main.flush().map_err(|error| failed("flushing the table".into(), &error))?;
        let bytes = written.write_batch.heap_bytes_written.checked_div(written.objects_flushed);
        Ok(bytes.map(|bytes| bytes * EXPANSION))
    }

    /// Bytes of leaves that are stuck in memory, about.
    pub(super) fn stuck_bytes(&self) -> u64 {
        self.stuck_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn cache(&self) -> CacheUse {
        let stats = self.trees().main.storage_stats().cache;
        CacheUse { hits: stats.cache_hits, misses: stats.cache_misses }
    }

    /// Applies a batch, and counts the leaves that it brought into memory: those that it read, and new ones.
    pub(super) fn apply(&self, batch: Batch, leaf_bytes: u64) -> Result<(), Error> {
        let trees = self.trees();
        let writes = batch.writes().iter();
        let bytes: usize = writes.map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        let before = trees.misses();
        trees.apply(batch)?;
        let stuck = bytes as u64 + (trees.misses() - before) * leaf_bytes;
        self.stuck_bytes.fetch_add(stuck, Ordering::Relaxed);
        Ok(())
    }
}

impl Trees {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        for _ in 0..CHUNK_RETRIES_MAX {
            let Some(entry) = self.main.get(key).map_err(|error| reading(&error))? else { return Ok(None) };
            if let Some(value) = self.value(key, &entry)? {
                return Ok(Some(value));
            }
        }
        Err(Error::Corrupt(format!("chunks of the value under {key:02x?} are missing")))
    }

    /// The value of an entry; `None` when a chunk of it is gone.
    fn value(&self, key: &[u8], entry: &[u8]) -> Result<Option<Bytes>, Error> {
        match Entry::decode(key, entry)? {
            Entry::Inline(value) => Ok(Some(Bytes::copy_from_slice(value))),
            Entry::Chunked(name) => self.join(&name),
        }
    }

    fn join(&self, name: &ChunkName) -> Result<Option<Bytes>, Error> {
        let mut value = Vec::new();
        for index in 0..name.chunks() {
            match self.chunks.get(name.chunk_key(index)).map_err(|error| reading(&error))? {
                Some(chunk) => value.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
        Ok(Some(value.into()))
    }

    pub(super) fn apply(&self, batch: Batch) -> Result<(), Error> {
        let mut main = sled::Batch::default();
        let (mut added, mut removed) = (sled::Batch::default(), sled::Batch::default());
        let mut names = Vec::new();
        for (key, value) in &newest(batch) {
            let old = self.chunk_name(key)?;
            let new = value.as_ref().filter(|value| value.len() > CHUNK_BYTES).map(|value| ChunkName::of(key, value));
            match (value, &new) {
                (None, _) => main.remove(&key[..]),
                (Some(value), None) => main.insert(&key[..], Entry::Inline(value).encode()),
                (Some(value), Some(name)) => {
                    for (index, chunk) in value.chunks(CHUNK_BYTES).enumerate() {
                        added.insert(&name.chunk_key(index as u64)[..], chunk);
                    }
                    main.insert(&key[..], name.entry());
                }
            }
            names.extend(old.filter(|old| Some(old) != new.as_ref()));
        }
        for name in names {
            (0..name.chunks()).for_each(|index| removed.remove(&name.chunk_key(index)[..]));
        }
        // In memory: what fails is reading the leaves.
        self.chunks.apply_batch(added).map_err(|error| reading(&error))?;
        self.main.apply_batch(main).map_err(|error| reading(&error))?;
        self.chunks.apply_batch(removed).map_err(|error| reading(&error))
    }

    /// The name of the chunks that a key's entry refers to now.
    fn chunk_name(&self, key: &[u8]) -> Result<Option<ChunkName>, Error> {
        let Some(entry) = self.main.get(key).map_err(|error| reading(&error))? else { return Ok(None) };
        match Entry::decode(key, &entry)? {
            Entry::Chunked(name) => Ok(Some(name)),
            Entry::Inline(_) => Ok(None),
        }
    }

    /// The next entries with `from <= key < to`, and where the ones behind them start.
    pub(super) fn entries(&self, from: &[u8], to: &[u8]) -> Result<Entered, Error> {
        let before = self.misses();
        let mut entries = Vec::new();
        for pair in self.main.range(from..).take(SCAN_PAIRS) {
            let (key, entry) = pair.map_err(|error| reading(&error))?;
            let is_beyond = key[..] >= *to;
            entries.push((key.to_vec(), entry.to_vec()));
            if is_beyond {
                break;
            }
        }
        if self.misses() > before {
            // Where leaves begin is not known, so every key is got: a leaf of which none is would never be evicted.
            for key in [from].into_iter().chain(entries.iter().map(|(key, _)| &key[..])) {
                self.main.get(key).map_err(|error| reading(&error))?;
            }
        }
        entries.pop_if(|(key, _)| key[..] >= *to);
        let next = entries.get(SCAN_PAIRS - 1).map(|(last, _)| successor(last));
        Ok((entries, next))
    }

    /// Leaves that were read from the disk since the opening.
    fn misses(&self) -> u64 {
        self.main.storage_stats().cache.cache_misses
    }
}

/// The last write of each key.
fn newest(batch: Batch) -> Entries {
    batch.into_writes().into_iter().collect()
}

/// Makes a database beside its place, syncs all of it, and moves it there: a crash leaves all or nothing.
pub(super) fn create(folder: &Path, config: &SledConfig) -> Result<(), Error> {
    let making = folder.with_extension("new");
    let failed = |error| Error::io(format!("making {}", folder.display()), &error);
    if making.exists() {
        fs::remove_dir_all(&making).map_err(failed)?;
    }
    let handles = Handles::open(&making, config)?;
    catch("making", || handles.trees().main.flush().map(drop).map_err(failed))?;
    drop(handles);
    sync_all(&making)?;
    fs::rename(&making, folder).map_err(failed)?;
    folder.parent().map_or(Ok(()), sync_folder)
}

/// Opens a database. Its lock may outlive the handles that were just closed: a process that was forked meanwhile
/// keeps it until it executes its program (sled itself runs `sync` that way).
fn open_unlocked(options: &sled::Config) -> io::Result<Db> {
    let mut attempts = 1;
    loop {
        match options.open() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempts < LOCK_ATTEMPTS_MAX => {
                attempts += 1;
                thread::sleep(LOCK_PAUSE);
            }
            result => return result,
        }
    }
}

/// Turns a panic of sled into an error: it asserts where others report.
pub(super) fn catch<T>(what: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Unreadable(format!("the database failed while {what}"))))
}

/// An error of sled. What it cannot make sense of, or not find, is damaged.
fn failed(context: String, error: &io::Error) -> Error {
    if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) {
        Error::Unreadable(format!("{context}: {error}"))
    } else {
        Error::io(context, error)
    }
}

/// An error of sled where it only reads: whatever the system says, a page cannot be read.
fn reading(error: &io::Error) -> Error {
    Error::Unreadable(format!("reading: {error}"))
}

#[cfg(test)]
impl Trees {
    /// Removes every chunk, as if the disk had lost them.
    pub(super) fn lose_chunks(&self) -> Result<(), Error> {
        self.chunks.clear().map_err(|error| reading(&error))
    }

    /// Chunks in the second tree.
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }
}
