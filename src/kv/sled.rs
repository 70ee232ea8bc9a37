//! The table on the disk: sled, and everything that one has to know to use it. No other file names sled.
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
//! - What a new database consists of is not all synced. So it is made beside its place, synced, and moved.
//! - `apply_batch` is atomic in one tree only.
//!
//! Leaves hold up to 128 entries and are written as a whole: a value above 8 KiB is cut in chunks that
//! live in a second tree, under a name made of key and content. The entry in the main tree is a tag and the
//! value, or a tag and that name. New chunks are written before the entry and old ones removed after it, so a
//! reader that raced with the writer finds either all chunks of one version or misses one, and looks again.
//!
//! Not here: a sync on each write (`flush` takes 10-100 ms; the journal in front makes writes durable).

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use thread_local::ThreadLocal;

use super::medium::{folder_size_bytes, sync_folder};
use super::memtable::{Entries, successor};
use super::{Batch, CacheUse, Error, Kv, Visit};
use crate::base::{DecodeError, Reader, Writer};

/// Entries of a leaf. It is part of the file format.
const LEAF_ENTRIES: usize = 128;
/// Bytes up to which a value is in its entry, and bytes of a chunk: a leaf of chunks is 1 MiB at most.
const CHUNK_BYTES: usize = 8 << 10;
/// The fastest level that compresses.
const ZSTD_LEVEL: i32 = 1;
/// Bytes of a leaf in memory before any was written.
const LEAF_BYTES_GUESS: u64 = 32 << 10;
/// How much larger leaves are in memory than on the disk, about.
const EXPANSION: u64 = 3;
/// Pairs that a scan takes before it visits them: a leaf's worth, read without holding a lock while visiting.
const SCAN_PAIRS: usize = 128;
/// Times that a reader looks again for a chunked value which is replaced under its eyes.
const CHUNK_RETRIES_MAX: usize = 1_000;
/// Attempts to lock the database, and the pause between two.
const LOCK_ATTEMPTS_MAX: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const CHUNKS_TREE: &str = "chunks";
const INLINE: u8 = 0;
const CHUNKED: u8 = 1;

type Db = sled::Db<LEAF_ENTRIES>;
type Tree = sled::Tree<LEAF_ENTRIES>;

/// How a table is opened.
#[derive(Debug, Clone)]
pub struct SledConfig {
    /// Bytes of leaves kept in memory, about. Twice as much may be there for a while after writing.
    pub cache_bytes: usize,
}

impl Default for SledConfig {
    /// 32 MiB.
    fn default() -> Self {
        Self { cache_bytes: 32 << 20 }
    }
}

/// A sled database as a [`Kv`]. It must have one writer at a time; readers may run beside it.
#[derive(Debug)]
pub struct SledKv {
    folder: PathBuf,
    config: SledConfig,
    handles: RwLock<Option<Handles>>,
    /// The cache's use in the openings of the database before this one.
    cache_before: Mutex<CacheUse>,
    /// Bytes of one leaf in memory, about: as it was when leaves were written last.
    leaf_bytes: AtomicU64,
    failure: OnceLock<String>,
}

/// One opening of the database.
#[derive(Debug)]
struct Handles {
    /// Bytes of leaves that are stuck in memory, about.
    stuck_bytes: AtomicU64,
    /// What clones for further threads are made of.
    seed: Mutex<Trees>,
    of_thread: ThreadLocal<Trees>,
    /// Owns the flusher thread with the trees.
    _db: Mutex<Db>,
}

#[derive(Debug, Clone)]
struct Trees {
    main: Tree,
    chunks: Tree,
}

impl SledKv {
    /// Opens the database in `folder`, and makes it when there is none.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses or another handle has it open, [`Error::Corrupt`] when its files
    /// are damaged.
    pub fn open(folder: impl Into<PathBuf>, config: SledConfig) -> Result<Self, Error> {
        let folder = folder.into();
        if !folder.exists() {
            create(&folder, &config)?;
        }
        let handles = RwLock::new(Some(Handles::open(&folder, &config)?));
        let leaf_bytes = AtomicU64::new(LEAF_BYTES_GUESS);
        Ok(Self { folder, config, handles, cache_before: Mutex::default(), leaf_bytes, failure: OnceLock::new() })
    }

    fn with_handles<T>(&self, work: impl FnOnce(&Handles) -> Result<T, Error>) -> Result<T, Error> {
        match self.read_handles().as_ref() {
            Some(handles) => work(handles),
            None => Err(self.poisoned()),
        }
    }

    fn with_trees<T>(&self, work: impl FnOnce(&Trees) -> Result<T, Error>) -> Result<T, Error> {
        self.with_handles(|handles| work(handles.trees()))
    }

    fn read_handles(&self) -> RwLockReadGuard<'_, Option<Handles>> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn poisoned(&self) -> Error {
        Error::Poisoned(self.failure.get().cloned().unwrap_or_default())
    }

    /// Runs a step of writing; its failure, a panic of sled included, is the last step.
    fn write<T>(&self, step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.failure.get().is_some() {
            return Err(self.poisoned());
        }
        let result = catch("writing", step);
        if let Err(error) = &result {
            let _ = self.failure.set(error.to_string());
        }
        result
    }

    /// Flushes, and opens the database anew when it may hold more than it should.
    fn flush_and_renew(&self) -> Result<(), Error> {
        let flushing = |error| failed(format!("flushing {}", self.folder.display()), &error);
        let written = self.with_trees(|trees| trees.main.flush().map_err(flushing))?;
        if let Some(leaf_bytes) = written.write_batch.heap_bytes_written.checked_div(written.objects_flushed) {
            self.leaf_bytes.store(leaf_bytes * EXPANSION, Ordering::Relaxed);
        }
        if !self.is_swollen()? {
            return Ok(());
        }
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = handles.take() {
            let mut before = self.cache_before.lock().unwrap_or_else(PoisonError::into_inner);
            *before = before.plus(handles.cache());
        }
        *handles = Some(Handles::open(&self.folder, &self.config)?);
        Ok(())
    }

    /// Whether leaves that are stuck in memory may take more than twice the cache.
    fn is_swollen(&self) -> Result<bool, Error> {
        let stuck_bytes = self.with_handles(|handles| Ok(handles.stuck_bytes.load(Ordering::Relaxed)))?;
        Ok(stuck_bytes > 2 * self.config.cache_bytes as u64)
    }
}

impl Handles {
    fn open(folder: &Path, config: &SledConfig) -> Result<Self, Error> {
        let options = sled::Config::new()
            .path(folder)
            .flush_every_ms(Some(usize::MAX))
            .cache_capacity_bytes(config.cache_bytes)
            .zstd_compression_level(ZSTD_LEVEL);
        catch("opening", || {
            let failed = |error| failed(format!("opening {}", folder.display()), &error);
            let db = open_unlocked(&options).map_err(failed)?;
            let seed = Trees { main: (*db).clone(), chunks: db.open_tree(CHUNKS_TREE).map_err(failed)? };
            Ok(Self {
                stuck_bytes: AtomicU64::new(0),
                seed: Mutex::new(seed),
                of_thread: ThreadLocal::new(),
                _db: Mutex::new(db),
            })
        })
    }

    fn trees(&self) -> &Trees {
        self.of_thread.get_or(|| self.seed.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn cache(&self) -> CacheUse {
        let stats = self.trees().main.storage_stats().cache;
        CacheUse { hits: stats.cache_hits, misses: stats.cache_misses }
    }

    /// Applies a batch, and counts the leaves that it brought into memory: those that it read, and new ones.
    fn apply(&self, batch: Batch, leaf_bytes: u64) -> Result<(), Error> {
        let trees = self.trees();
        let misses = || trees.main.storage_stats().cache.cache_misses;
        let writes = batch.writes().iter();
        let bytes: usize = writes.map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        let before = misses();
        trees.apply(batch)?;
        let stuck = bytes as u64 + (misses() - before) * leaf_bytes;
        self.stuck_bytes.fetch_add(stuck, Ordering::Relaxed);
        Ok(())
    }
}

impl Trees {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        for _ in 0..CHUNK_RETRIES_MAX {
            let Some(entry) = self.main.get(key).map_err(reading)? else { return Ok(None) };
            if let Some(value) = self.value(key, &entry)? {
                return Ok(Some(value));
            }
        }
        Err(Error::Corrupt(format!("chunks of the value under {key:02x?} are missing")))
    }

    /// The value of an entry; `None` when a chunk of it is gone.
    fn value(&self, key: &[u8], entry: &[u8]) -> Result<Option<Bytes>, Error> {
        match entry.split_first() {
            Some((&INLINE, value)) => Ok(Some(Bytes::copy_from_slice(value))),
            Some((&CHUNKED, name)) => self.join(&ChunkName::decode(name).map_err(|error| damaged(key, &error))?),
            Some((tag, _)) => Err(damaged(key, &DecodeError::Unknown { what: "entry", value: u64::from(*tag) })),
            None => Err(damaged(key, &DecodeError::Truncated)),
        }
    }

    fn join(&self, name: &ChunkName) -> Result<Option<Bytes>, Error> {
        let mut value = Vec::new();
        for index in 0..name.chunks() {
            match self.chunks.get(name.chunk_key(index)).map_err(reading)? {
                Some(chunk) => value.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
        Ok(Some(value.into()))
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        let mut main = sled::Batch::default();
        let (mut added, mut removed) = (sled::Batch::default(), sled::Batch::default());
        let mut names = Vec::new();
        for (key, value) in &newest(batch) {
            let old = self.chunk_name(key)?;
            let new = value.as_ref().filter(|value| value.len() > CHUNK_BYTES).map(|value| ChunkName::of(key, value));
            match (value, &new) {
                (None, _) => main.remove(&key[..]),
                (Some(value), None) => main.insert(&key[..], tagged(INLINE, value)),
                (Some(value), Some(name)) => {
                    for (index, chunk) in value.chunks(CHUNK_BYTES).enumerate() {
                        added.insert(&name.chunk_key(index as u64)[..], chunk);
                    }
                    main.insert(&key[..], tagged(CHUNKED, &name.encode()));
                }
            }
            names.extend(old.filter(|old| Some(old) != new.as_ref()));
        }
        for name in names {
            (0..name.chunks()).for_each(|index| removed.remove(&name.chunk_key(index)[..]));
        }
        let writing = |error| failed("writing".to_owned(), &error);
        self.chunks.apply_batch(added).map_err(writing)?;
        self.main.apply_batch(main).map_err(writing)?;
        self.chunks.apply_batch(removed).map_err(writing)
    }

    /// The name of the chunks that a key's entry refers to now.
    fn chunk_name(&self, key: &[u8]) -> Result<Option<ChunkName>, Error> {
        let Some(entry) = self.main.get(key).map_err(reading)? else { return Ok(None) };
        match entry.split_first() {
            Some((&CHUNKED, name)) => ChunkName::decode(name).map(Some).map_err(|error| damaged(key, &error)),
            Some(_) | None => Ok(None),
        }
    }

    /// The next entries with `from <= key < to`.
    fn entries(&self, from: &[u8], to: &[u8]) -> Result<Vec<(sled::InlineArray, sled::InlineArray)>, Error> {
        let pairs = self.main.range(from..).take(SCAN_PAIRS);
        let pairs = pairs.take_while(|pair| !matches!(pair, Ok((key, _)) if key[..] >= *to));
        pairs.collect::<io::Result<_>>().map_err(reading)
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.with_trees(|trees| trees.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut from = from.to_vec();
        while *from < *to {
            let entries = self.with_trees(|trees| trees.entries(&from, to))?;
            for (key, entry) in &entries {
                let flow = match entry.split_first() {
                    Some((&INLINE, value)) => visit(key, value),
                    // A value that was replaced since is read anew, and one that was removed is left out.
                    Some(_) | None => match self.get(key) {
                        Ok(Some(value)) => visit(key, &value),
                        Ok(None) => ControlFlow::Continue(()),
                        Err(Error::Corrupt(_)) => visit(key, &[]),
                        Err(error) => return Err(error),
                    },
                };
                if flow.is_break() {
                    return Ok(());
                }
            }
            let Some((last, _)) = entries.get(SCAN_PAIRS - 1) else { return Ok(()) };
            from = successor(last);
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        self.write(|| {
            self.with_handles(|handles| handles.apply(batch, self.leaf_bytes.load(Ordering::Relaxed)))?;
            // A flush more is harmless, and the only way to get rid of written leaves.
            if self.is_swollen()? { self.flush_and_renew() } else { Ok(()) }
        })
    }

    fn check(&self) -> Result<(), Error> {
        if self.failure.get().is_some() { Err(self.poisoned()) } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), Error> {
        self.write(|| self.flush_and_renew())
    }

    fn size_bytes(&self) -> u64 {
        folder_size_bytes(&self.folder)
    }

    fn cache(&self) -> CacheUse {
        let before = *self.cache_before.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_handles().as_ref().map_or(before, |handles| before.plus(handles.cache()))
    }
}

impl Drop for SledKv {
    fn drop(&mut self) {
        if self.failure.get().is_some() {
            // Dropped handles would flush, and hang.
            std::mem::forget(self.handles.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// What the chunks of one value are called. It depends on key and content alone, so that writing the same again
/// changes nothing.
#[derive(Debug, PartialEq, Eq)]
struct ChunkName {
    digest: [u8; 16],
    value_bytes: u64,
}

impl ChunkName {
    fn of(key: &[u8], value: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
        let digest = *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes");
        Self { digest, value_bytes: value.len() as u64 }
    }

    fn chunks(&self) -> u64 {
        self.value_bytes.div_ceil(CHUNK_BYTES as u64)
    }

    fn chunk_key(&self, index: u64) -> [u8; 24] {
        let mut key = [0; 24];
        key[..16].copy_from_slice(&self.digest);
        key[16..].copy_from_slice(&index.to_be_bytes());
        key
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.fixed(&self.digest).varint(self.value_bytes);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let name = Self { digest: reader.fixed()?, value_bytes: reader.varint()? };
        reader.finish()?;
        Ok(name)
    }
}

/// The last write of each key.
fn newest(batch: Batch) -> Entries {
    batch.into_writes().into_iter().collect()
}

fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(1 + bytes.len());
    entry.push(tag);
    entry.extend_from_slice(bytes);
    entry
}

/// Makes a database beside its place, syncs all of it, and moves it there: a crash leaves all or nothing.
fn create(folder: &Path, config: &SledConfig) -> Result<(), Error> {
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

/// Syncs every file and folder below a folder, and itself.
fn sync_all(folder: &Path) -> Result<(), Error> {
    let failed = |error| Error::io(format!("syncing {}", folder.display()), &error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            let file = fs::OpenOptions::new().write(true).open(&path).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
    }
    sync_folder(folder)
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
fn catch<T>(what: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Corrupt(format!("the database failed while {what}"))))
}

fn failed(context: String, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::InvalidData {
        Error::Corrupt(format!("{context}: {error}"))
    } else {
        Error::io(context, error)
    }
}

fn reading(error: io::Error) -> Error {
    failed("reading".to_owned(), &error)
}

fn damaged(key: &[u8], error: &DecodeError) -> Error {
    Error::Corrupt(format!("the entry under {key:02x?} is damaged: {error}"))
}

#[cfg(test)]
impl SledKv {
    /// Removes every chunk, as if the disk had lost them.
    pub(super) fn lose_chunks(&self) {
        self.with_trees(|trees| trees.chunks.clear().map_err(reading)).expect("the store is open");
    }

    /// Chunks in the second tree.
    pub(super) fn chunk_count(&self) -> usize {
        self.with_trees(|trees| Ok(trees.chunks.len())).expect("the store is open")
    }

    /// Bytes of leaves that are stuck in memory, about.
    pub(super) fn stuck_bytes(&self) -> u64 {
        self.with_handles(|handles| Ok(handles.stuck_bytes.load(Ordering::Relaxed))).expect("the store is open")
    }
}
