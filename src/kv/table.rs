//! The table on the disk: a sled database that is built anew when it is damaged.
//!
//! Everything about sled is in `sled`. Here is what is done when it fails: a page that cannot be read makes sled refuse
//! everything from then on, reads and writes. So its handles are let go of, and the database is read past it (see
//! `leaves`) until [`Kv::mend`] has built another one of what can be read (see `mend`): reads go on meanwhile, but for
//! the damaged pages. What cannot come from anybody else is in a second copy (see `keepsake`).
//!
//! Not here: who calls [`Kv::mend`] and when (the journal in front does), and what is made of what was lost (the store).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use bytes::Bytes;

use super::entry::Entry;
use super::keepsake::{Keepsake, Precious};
use super::leaves::Leaves;
use super::medium::{folder_size_bytes, sync_all};
use super::memtable::{self, Entries};
use super::sled::{Handles, LEAF_BYTES_GUESS, Trees, catch, create};
use super::{Batch, CacheUse, Condition, Error, Kv, Lost, Visit, mend};
use crate::memory::Memory;

/// Bytes of the stack on which a table is built anew.
const STACK_BYTES: usize = 16 << 20;

/// How a table is opened.
#[derive(Debug, Clone)]
pub struct SledConfig {
    /// What leaves may take in memory, about.
    pub memory: Memory,
    /// What a second copy is kept of; `None` for nothing.
    pub precious: Option<Precious>,
}

impl Default for SledConfig {
    /// The usual memory, and no second copies.
    fn default() -> Self {
        Self { memory: Memory::default(), precious: None }
    }
}

/// A sled database as a [`Kv`]. It must have one writer at a time; readers may run beside it.
#[derive(Debug)]
pub struct SledKv {
    folder: PathBuf,
    config: SledConfig,
    access: RwLock<Access>,
    keepsake: Mutex<Option<Keepsake>>,
    mending: Mending,
    /// The cache's use in the openings of the database before this one.
    cache_before: Mutex<CacheUse>,
    /// Bytes of one leaf in memory, about: as it was when leaves were written last.
    leaf_bytes: AtomicU64,
    failure: OnceLock<String>,
}

/// How the database is read.
#[derive(Debug)]
enum Access {
    /// Through sled.
    Open(Box<Handles>),
    /// Past sled, which refuses everything since it could not read a page, until [`Kv::mend`].
    Damaged(Arc<Leaves>),
    Closed,
}

/// How far building it anew is.
#[derive(Debug, Default)]
struct Mending {
    active: AtomicBool,
    leaves_done: AtomicU64,
    leaves: AtomicU64,
    /// How often it was done.
    times: AtomicU64,
    /// Whether a damaged table is kept beside it.
    is_aside: AtomicBool,
}

impl SledKv {
    /// Opens the database in `folder`, and makes it when there is none. One that is damaged is built anew of what can
    /// be read, see [`Lost`](super::Lost).
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses or another handle has it open.
    pub fn open(folder: impl Into<PathBuf>, config: SledConfig) -> Result<Self, Error> {
        let folder = folder.into();
        mend::settle(&folder)?;
        let copy = folder.with_extension("keep");
        let kept = config.precious.map(|precious| Keepsake::load(&copy, precious)).transpose()?.flatten();
        let access = if mend::place(&folder).exists() {
            Err("building it anew was interrupted".to_owned())
        } else if !folder.exists() && kept.is_some() {
            Err("it is missing".to_owned())
        } else {
            Handles::of(&folder, &config)?
        };
        let store = Self::with_access(folder, config, Access::Closed, kept);
        match access {
            Ok(handles) => *store.access_mut() = Access::Open(handles),
            Err(why) => {
                store.set_aside(&mut store.access_mut(), &why);
                store.mend(&|| true)?;
            }
        }
        store.keep(&copy)?;
        Ok(store)
    }

    fn with_access(folder: PathBuf, config: SledConfig, access: Access, kept: Option<Keepsake>) -> Self {
        let is_aside = AtomicBool::new(mend::aside(&folder).exists());
        Self {
            folder,
            config,
            access: RwLock::new(access),
            keepsake: Mutex::new(kept),
            mending: Mending { is_aside, ..Mending::default() },
            cache_before: Mutex::default(),
            leaf_bytes: AtomicU64::new(LEAF_BYTES_GUESS),
            failure: OnceLock::new(),
        }
    }

    /// Makes the second copy of what is precious, when there is none.
    fn keep(&self, path: &Path) -> Result<(), Error> {
        let Some(precious) = self.config.precious.filter(|_| self.keepsake().is_none()) else { return Ok(()) };
        let copy = loop {
            match Keepsake::of(path, precious, self) {
                Err(Error::Unreadable(_)) => self.mend(&|| true)?,
                copy => break copy?,
            }
        };
        *self.keepsake() = Some(copy);
        Ok(())
    }

    fn access(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn access_mut(&self) -> RwLockWriteGuard<'_, Access> {
        self.access.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn keepsake(&self) -> MutexGuard<'_, Option<Keepsake>> {
        self.keepsake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_handles<T>(&self, work: impl FnOnce(&Handles) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.access() {
            Access::Open(handles) => work(handles),
            Access::Damaged(_) => Err(self.unreadable()),
            Access::Closed => Err(self.poisoned()),
        }
    }

    fn poisoned(&self) -> Error {
        Error::Poisoned(self.failure.get().cloned().unwrap_or_default())
    }

    fn unreadable(&self) -> Error {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (done, leaves) = (count(&self.mending.leaves_done), count(&self.mending.leaves));
        Error::Unreadable(format!("{done} of {leaves} pages are done"))
    }

    /// Reads, past sled when sled cannot.
    fn read<T>(
        &self,
        mut through: impl FnMut(&Trees) -> Result<T, Error>,
        past: impl Fn(&Leaves) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let times = self.mending.times.load(Ordering::Acquire);
            let read = match &*self.access() {
                Access::Open(handles) => catch("reading", || through(handles.trees())),
                Access::Damaged(leaves) => match past(leaves) {
                    Err(Error::Unreadable(_)) => return Err(self.unreadable()),
                    read => return read,
                },
                Access::Closed => return Err(self.poisoned()),
            };
            match read {
                Err(Error::Unreadable(why)) => self.found_damaged(times, &why),
                read => return read,
            }
        }
    }

    /// Takes note that sled could not read, `times` being how often the table had been built anew.
    fn found_damaged(&self, times: u64, why: &str) {
        let mut access = self.access_mut();
        if matches!(*access, Access::Open(_)) && self.mending.times.load(Ordering::Acquire) == times {
            self.set_aside(&mut access, why);
        }
    }

    fn set_aside(&self, access: &mut Access, why: &str) {
        let leaves = Leaves::read(&self.folder);
        tracing::error!(
            folder = %self.folder.display(), why, pages = leaves.count(),
            "the table is damaged; it is built anew of what can be read, and of what other peers have"
        );
        self.mending.leaves_done.store(0, Ordering::Relaxed);
        self.mending.leaves.store(leaves.count(), Ordering::Relaxed);
        self.mending.active.store(true, Ordering::Release);
        // Dropped handles would flush: they would wait for ever, or end the process.
        std::mem::forget(std::mem::replace(access, Access::Damaged(Arc::new(leaves))));
    }

    /// Runs something on a thread of its own: opening a database takes more of the stack than may be left.
    fn on_large_stack<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("kv-mender".into()).stack_size(STACK_BYTES);
            match builder.spawn_scoped(scope, || catch("mending", work)) {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(self.unreadable())),
                Err(error) => Err(Error::io("starting a thread", &error)),
            }
        })
    }

    /// Builds the table anew beside the damaged one, and puts it in its place.
    fn rebuild(&self, leaves: &Leaves, go_on: &(dyn Fn() -> bool + Sync)) -> Result<Lost, Error> {
        let place = mend::place(&self.folder);
        mend::remove(&place)?;
        create(&place, &self.config)?;
        let handles = Handles::open(&place, &self.config)?;
        let config = SledConfig { precious: None, ..self.config };
        let table = Self::with_access(place.clone(), config, Access::Open(handles), None);
        let put = |entries: &Entries| memtable::batches(entries).try_for_each(|batch| table.apply(batch));
        let lost = mend::salvage(leaves, &self.mending.leaves_done, &mut |entries| {
            if go_on() { put(entries) } else { Err(Error::Poisoned("the peer was stopped".into())) }
        })?;
        put(&self.keepsake().as_ref().map(Keepsake::entries).unwrap_or_default())?;
        table.apply(lost.batch())?;
        table.flush()?;
        drop(table);
        sync_all(&place)?;
        let mut access = self.access_mut();
        mend::replace(&self.folder)?;
        *access = Access::Open(Handles::open(&self.folder, &self.config)?);
        Ok(lost)
    }

    /// Runs a step of writing; its failure is the last step, unless the table can be built anew.
    fn write<T>(&self, step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.failure.get().is_some() {
            return Err(self.poisoned());
        }
        let times = self.mending.times.load(Ordering::Acquire);
        let result = catch("writing", step);
        match &result {
            Err(Error::Unreadable(why)) => self.found_damaged(times, why),
            Err(error) => _ = self.failure.set(error.to_string()),
            Ok(_) => {}
        }
        result
    }

    /// Flushes, and opens the database anew when it may hold more than it should.
    fn flush_and_renew(&self) -> Result<(), Error> {
        if let Some(leaf_bytes) = self.with_handles(Handles::flush)? {
            self.leaf_bytes.store(leaf_bytes, Ordering::Relaxed);
        }
        if !self.is_swollen()? {
            return Ok(());
        }
        let mut access = self.access_mut();
        if let Access::Open(handles) = &*access {
            // A reader may have found damage since: handles that cannot flush must not be dropped.
            handles.flush()?;
            let mut before = self.cache_before.lock().unwrap_or_else(PoisonError::into_inner);
            *before = before.plus(handles.cache());
        }
        *access = Access::Closed;
        match Handles::of(&self.folder, &self.config)? {
            Ok(handles) => *access = Access::Open(handles),
            Err(why) => self.set_aside(&mut access, &why),
        }
        Ok(())
    }

    /// Whether leaves that are stuck in memory may take more than twice the cache.
    fn is_swollen(&self) -> Result<bool, Error> {
        let stuck_bytes = self.with_handles(|handles| Ok(handles.stuck_bytes()))?;
        Ok(stuck_bytes > self.config.memory.written_bytes() as u64)
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.read(|trees| trees.get(key), |leaves| mend::get(leaves, key))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut from = from.to_vec();
        while *from < *to {
            let (entries, next) = self.read(|trees| trees.entries(&from, to), |leaves| mend::entries(leaves, &from))?;
            for (key, entry) in entries.iter().take_while(|(key, _)| key.as_slice() < to) {
                let flow = match Entry::decode(key, entry) {
                    Ok(Entry::Inline(value)) => visit(key, value),
                    // A value that was replaced since is read anew, and one that was removed is left out.
                    Ok(Entry::Chunked(_)) | Err(_) => match self.get(key) {
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
            let Some(next) = next else { return Ok(()) };
            from = next;
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        if let Some(keepsake) = &mut *self.keepsake() {
            keepsake.note(&batch);
        }
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
        self.write(|| {
            if let Some(keepsake) = &mut *self.keepsake() {
                keepsake.save()?;
            }
            self.flush_and_renew()
        })
    }

    fn size_bytes(&self) -> u64 {
        folder_size_bytes(&self.folder)
    }

    fn cache(&self) -> CacheUse {
        let before = *self.cache_before.lock().unwrap_or_else(PoisonError::into_inner);
        self.with_handles(|handles| Ok(before.plus(handles.cache()))).unwrap_or(before)
    }

    fn condition(&self) -> Condition {
        let mending = &self.mending;
        let count = |count: &AtomicU64| count.load(Ordering::Acquire);
        let active = mending.active.load(Ordering::Acquire);
        Condition {
            mending: active.then(|| (count(&mending.leaves_done), count(&mending.leaves))),
            mended: count(&mending.times),
            aside: mending.is_aside.load(Ordering::Acquire).then(|| mend::aside(&self.folder)),
        }
    }

    fn mend(&self, go_on: &(dyn Fn() -> bool + Sync)) -> Result<(), Error> {
        let leaves = match &*self.access() {
            Access::Damaged(leaves) => leaves.clone(),
            Access::Open(_) | Access::Closed => return Ok(()),
        };
        if self.failure.get().is_some() {
            return Err(self.poisoned());
        }
        let lost = self.on_large_stack(|| self.rebuild(&leaves, go_on)).map_err(|error| {
            if go_on() {
                tracing::error!(%error, "the table could not be built anew");
            }
            let _ = self.failure.set(error.to_string());
            self.poisoned()
        })?;
        let aside = mend::aside(&self.folder);
        tracing::warn!(
            pages = lost.pages, lost = lost.pages_lost, set_aside = %aside.display(),
            "the table was built anew; what was in lost pages is fetched from other peers"
        );
        self.mending.is_aside.store(aside.exists(), Ordering::Release);
        self.mending.times.fetch_add(1, Ordering::AcqRel);
        self.mending.active.store(false, Ordering::Release);
        Ok(())
    }
}

impl Drop for SledKv {
    fn drop(&mut self) {
        let failed = self.failure.get().is_some();
        let access = self.access.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Access::Open(handles) = access
            && (failed || catch("closing", || handles.flush()).is_err())
        {
            // Dropped handles would flush, and hang.
            std::mem::forget(std::mem::replace(access, Access::Closed));
        }
    }
}

#[cfg(test)]
impl SledKv {
    /// Removes every chunk, as if the disk had lost them.
    pub(super) fn lose_chunks(&self) {
        self.with_handles(|handles| handles.trees().lose_chunks()).expect("the store is open");
    }

    /// Chunks in the second tree.
    pub(super) fn chunk_count(&self) -> usize {
        self.with_handles(|handles| Ok(handles.trees().chunk_count())).expect("the store is open")
    }

    /// Bytes of leaves that are stuck in memory, about.
    pub(super) fn stuck_bytes(&self) -> u64 {
        self.with_handles(|handles| Ok(handles.stuck_bytes())).expect("the store is open")
    }
}
