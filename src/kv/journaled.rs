//! A `Kv` with a commit journal in front of another one: writes become durable by one append and one sync.
//!
//! ```text
//! apply -> buffer ------flush------> journal segment        (in order, checksummed, synced)
//!       -> active memtable --full--> frozen memtable -> inner Kv, its flush -> the segment is removed
//! get, scan: active, then frozen, then inner
//! ```
//!
//! `apply` encodes a batch into a buffer and shows it to readers; that takes microseconds. `flush` has *the
//! turn* (only one caller at a time): it writes what all callers buffered, syncs once, and lets everybody
//! go whose batches were in it. When a segment is full, the active table is frozen and moved to the inner
//! store, by a thread of its own or, for simulations, by the caller ([`Checkpoints`]).
//!
//! **Why this is correct whatever the inner store does before its flush.**
//! 1. A segment is synced before its table is frozen, so the inner store never holds what the journal could
//!    lose.
//! 2. A segment is removed only after the inner flush that covers all its batches, and removals are durable
//!    one by one in ascending order. So the segments that are there form a suffix of the history,
//!    and everything before it is durable in the inner store.
//! 3. Opening replays that suffix as a whole and in order. Each key that it writes ends in its newest
//!    state, whatever part of those writes had reached the inner store, once or many times. Each other key
//!    was not touched since the last inner flush that covered it.
//!
//! From the inner store this needs only that a flush is durable and that it opens again. What the journal itself
//! promises after a power loss is in `journal`.
//!
//! After any failed write or sync the store is poisoned, also when the failure was in the background. Not
//! here: retries (a failed sync says nothing about what is on the disk), transactions, snapshots.

use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use super::config::{Checkpoints, Durability, JournalConfig};
use super::journal::{self, Damage, SegmentHeader};
use super::memtable::{self, Memtable, successor};
use super::recovery::{POSITION, Recovery, move_table, pass_missing};
use super::{Batch, CacheUse, Condition, Error, Kv, Lost, Medium, Visit};
use crate::limits;

/// Segments for which the disk must have room: both tables may have to be written behind the journal, next
/// to the segment that is started. A disk that is full under the table would take the reads with it.
const DISK_RESERVE_SEGMENTS: u64 = 3;

/// Entries that a scan takes from the memtables at a time: few at first, since most scans end soon.
const SCAN_ENTRIES_FIRST: usize = 64;
const SCAN_ENTRIES_MAX: usize = 1_024;
/// Bytes of a write buffer that is kept for the next flush.
const SPARE_BYTES_MAX: usize = 1 << 20;
/// Why locks are taken without a way out.
const UNBROKEN: &str = "no thread panics while it holds a lock of the journal";

/// A journal in front of another store.
#[derive(Debug)]
pub struct Journaled<K: Kv + 'static> {
    shared: Arc<Shared<K>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<K> {
    /// Dropped before `medium`, which may hold the lock of the directory.
    inner: K,
    medium: Box<dyn Medium>,
    config: JournalConfig,
    memtable: RwLock<Memtable>,
    writer: Mutex<Writer>,
    /// A table was frozen, or the store closes or failed.
    work: Condvar,
    /// The frozen table was moved, or the store failed.
    moved: Condvar,
    turns: Mutex<Turns>,
    /// A turn is over, or the store failed.
    turn_over: Condvar,
    failure: OnceLock<Error>,
}

/// What the next batch goes to.
#[derive(Debug)]
struct Writer {
    /// Encoded records that no flush has taken yet.
    buffer: Vec<u8>,
    /// The segment that is written.
    segment: u64,
    /// The sequence of its first record.
    first: u64,
    /// The sequence of the next record.
    next: u64,
    /// The last sequence that is known to be durable.
    durable: u64,
    /// Older segments whose batches are in the active table too.
    older_segments: Vec<u64>,
    /// Segments whose batches are in the frozen table; empty when there is none.
    frozen_segments: Vec<u64>,
    /// The sequence of the last record of the frozen table.
    frozen_last: u64,
    /// Bytes of the active table and its records.
    active_bytes: usize,
    closing: bool,
}

/// Who may write to the journal, and how far it is.
#[derive(Debug)]
struct Turns {
    taken: bool,
    /// The last sequence that the system has.
    written: u64,
    /// The last sequence that the disk has.
    durable: u64,
    /// An empty buffer for the next flush.
    spare: Vec<u8>,
}

impl<K: Kv + 'static> Journaled<K> {
    /// Opens a store: replays the journal in `medium` in front of `inner`, and says what of it was damaged.
    ///
    /// # Errors
    /// When the medium or the inner store fails, and [`Error::Corrupt`] for a journal of another version.
    pub fn open(inner: K, medium: Box<dyn Medium>, config: JournalConfig) -> Result<(Self, Vec<Damage>), Error> {
        let recovery = Recovery::run(&inner, medium.as_ref(), config.segment_bytes)?;
        let Recovery { table, segments, empty, next, newest, table_bytes, damage } = recovery;
        let segment = newest + 1;
        medium.create(segment, &SegmentHeader { salt: config.salt, segment, first: next }.encode())?;
        let durable = next - 1;
        let writer = Writer {
            buffer: Vec::new(),
            segment,
            first: next,
            next,
            durable,
            older_segments: segments,
            frozen_segments: Vec::new(),
            frozen_last: 0,
            active_bytes: table_bytes,
            closing: false,
        };
        let shared = Arc::new(Shared {
            inner,
            medium,
            config,
            memtable: RwLock::new(Memtable::new(table)),
            writer: Mutex::new(writer),
            work: Condvar::new(),
            moved: Condvar::new(),
            turns: Mutex::new(Turns { taken: false, written: durable, durable, spare: Vec::new() }),
            turn_over: Condvar::new(),
            failure: OnceLock::new(),
        });
        let mut store = Self { shared, threads: Vec::new() };
        if damage.iter().any(Damage::is_missing) {
            // Until the store has looked for what is missing: the next opening will not see that anything is.
            store.apply(Lost::anything().batch())?;
            store.shared.flush(Durability::Durable)?;
            pass_missing(&store.shared.inner, &damage)?;
        }
        store.shared.medium.set_newest(segment)?;
        // Only now: one of them may be the newest so far, which would be missed.
        empty.into_iter().try_for_each(|empty| store.shared.medium.remove(empty))?;
        store.start_threads()?;
        Ok((store, damage))
    }

    /// Moves everything that was applied before into the inner store, and waits for it.
    ///
    /// # Errors
    /// As [`Kv::flush`].
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.shared.check()?;
        self.shared.rotate(|writer| writer.active_bytes > 0)?;
        self.shared.wait_moved().map(drop)
    }

    /// The store behind the journal; it misses what is only in the journal yet.
    #[must_use]
    pub fn inner(&self) -> &K {
        &self.shared.inner
    }

    fn start_threads(&mut self) -> Result<(), Error> {
        if self.shared.config.checkpoints == Checkpoints::Inline {
            return Ok(());
        }
        self.start("kv-mover", Shared::run_mover)?;
        match self.shared.config.durability {
            Durability::Durable => Ok(()),
            Durability::Buffered => self.start("kv-syncer", Shared::run_syncer),
        }
    }

    fn start(&mut self, name: &str, run: fn(&Shared<K>)) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared));
        self.threads.push(thread.map_err(|error| Error::io("starting a thread", &error))?);
        Ok(())
    }
}

impl<K: Kv + 'static> Kv for Journaled<K> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        // A statement of its own: the lock is released before the inner store is read.
        let state = self.shared.memtable().get(key);
        match state {
            Some(value) => Ok(value),
            None => self.shared.looked(self.shared.inner.get(key)),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut from = from.to_vec();
        let mut limit = SCAN_ENTRIES_FIRST;
        while *from < *to {
            let (entries, complete) = self.shared.memtable().range(&from, to, limit);
            let until = match entries.last() {
                Some((last, _)) if !complete => successor(last),
                Some(_) | None => to.to_vec(),
            };
            let visited = self.shared.scan_part(&from, &until, entries, visit);
            if self.shared.looked(visited)?.is_break() {
                return Ok(());
            }
            from = until;
            limit = SCAN_ENTRIES_MAX.min(4 * limit);
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        let shared = &*self.shared;
        shared.check_whole()?;
        let payload = journal::encode_batch(&batch)?;
        let payload_crc = journal::checksum(shared.config.salt, &payload);
        let mut writer = shared.writer_with_room()?;
        let (sequence, durable) = (writer.next, writer.durable);
        journal::append_record(&mut writer.buffer, shared.config.salt, sequence, durable, &payload, payload_crc);
        writer.next += 1;
        writer.active_bytes += journal::record_bytes(&payload) + memtable::ENTRY_BYTES * batch.writes().len();
        // Still under the writer's lock: batches become visible in the order of the journal.
        shared.memtable_mut().insert(batch);
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        self.shared.check()?;
        self.shared.check_whole()?;
        let needed_bytes = DISK_RESERVE_SEGMENTS * self.shared.config.segment_bytes as u64;
        match self.shared.medium.free_bytes() {
            Some(free_bytes) if free_bytes < needed_bytes => Err(Error::Full { free_bytes, needed_bytes }),
            Some(_) | None => Ok(()),
        }
    }

    fn flush(&self) -> Result<(), Error> {
        self.shared.flush(self.shared.config.durability)
    }

    fn size_bytes(&self) -> u64 {
        self.shared.inner.size_bytes() + self.shared.medium.size_bytes()
    }

    fn cache(&self) -> CacheUse {
        self.shared.inner.cache()
    }

    fn condition(&self) -> Condition {
        let condition = self.shared.inner.condition();
        condition.mending.inspect(|_| self.shared.wake_mover());
        condition
    }
}

impl<K: Kv + 'static> Drop for Journaled<K> {
    /// Flushes and syncs the journal. What is in it stays there: opening replays it.
    fn drop(&mut self) {
        self.shared.writer().closing = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // Its panic, if any, was turned into the store's failure.
            let _ = thread.join();
        }
        // Nobody is left to tell; what was acknowledged is durable already.
        let _ = self.shared.seal();
    }
}

impl<K: Kv> Shared<K> {
    fn memtable(&self) -> RwLockReadGuard<'_, Memtable> {
        self.memtable.read().expect(UNBROKEN)
    }

    fn memtable_mut(&self) -> RwLockWriteGuard<'_, Memtable> {
        self.memtable.write().expect(UNBROKEN)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect(UNBROKEN)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().expect(UNBROKEN)
    }

    fn check(&self) -> Result<(), Error> {
        self.failure.get().map_or(Ok(()), |error| Err(Error::Poisoned(error.to_string())))
    }

    /// Whether the table can be read as a whole: nothing is written while it is built anew.
    fn check_whole(&self) -> Result<(), Error> {
        match self.config.checkpoints {
            Checkpoints::Inline => self.inner.mend(&|| true),
            Checkpoints::Background => self.check_moving().inspect_err(|_| self.wake_mover()),
        }
    }

    /// Has the table built anew when it was found damaged.
    fn looked<T>(&self, read: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Unreadable(_)) = read {
            self.wake_mover();
        }
        read
    }

    /// Whether the thread that moves tables is not held up: whoever waits for it is not to wait so long.
    fn check_moving(&self) -> Result<(), Error> {
        let unreadable = |(done, pages)| Err(Error::Unreadable(format!("{done} of {pages} pages are done")));
        self.inner.condition().mending.map_or(Ok(()), unreadable)
    }

    fn wake_mover(&self) {
        drop(self.writer());
        self.work.notify_all();
    }

    /// Poisons the store and wakes everybody who waits. The caller holds no lock.
    fn fail(&self, error: Error) -> Error {
        let _ = self.failure.set(error.clone());
        drop(self.writer());
        self.work.notify_all();
        self.moved.notify_all();
        drop(self.turns());
        self.turn_over.notify_all();
        error
    }

    /// The writer, when its table has room for one more batch; makes room otherwise.
    fn writer_with_room(&self) -> Result<MutexGuard<'_, Writer>, Error> {
        loop {
            self.check()?;
            let writer = self.writer();
            if writer.active_bytes < self.config.segment_bytes {
                return Ok(writer);
            }
            drop(writer);
            self.rotate(|writer| writer.active_bytes >= self.config.segment_bytes)?;
        }
    }

    /// Waits until no table is frozen.
    fn wait_moved(&self) -> Result<MutexGuard<'_, Writer>, Error> {
        let mut writer = self.writer();
        while !writer.frozen_segments.is_empty() {
            self.check()?;
            self.check_moving()?;
            writer = self.moved.wait(writer).expect(UNBROKEN);
        }
        Ok(writer)
    }

    /// Takes the turn once it is free, or nothing once `done` holds.
    fn turn_unless(&self, done: impl Fn(&Turns) -> bool) -> Result<Option<Turn<'_, K>>, Error> {
        let mut turns = self.turns();
        loop {
            self.check()?;
            if done(&turns) {
                return Ok(None);
            }
            if !turns.taken {
                turns.taken = true;
                let buffer = std::mem::take(&mut turns.spare);
                return Ok(Some(Turn { shared: self, written: turns.written, durable: turns.durable, buffer }));
            }
            turns = self.turn_over.wait(turns).expect(UNBROKEN);
        }
    }

    fn flush(&self, durability: Durability) -> Result<(), Error> {
        let target = self.writer().next - 1;
        let done = |turns: &Turns| match durability {
            Durability::Durable => turns.durable >= target,
            Durability::Buffered => turns.written >= target,
        };
        match self.turn_unless(done)? {
            Some(mut turn) => turn.write(durability).map_err(|error| self.fail(error)),
            None => Ok(()),
        }
    }

    /// Freezes the active table and has it moved, once there is no frozen one and as long as `wanted` holds.
    fn rotate(&self, wanted: impl Fn(&Writer) -> bool) -> Result<(), Error> {
        loop {
            drop(self.wait_moved()?);
            let Some(mut turn) = self.turn_unless(|_| false)? else { return Ok(()) };
            let writer = self.writer();
            if !wanted(&writer) {
                return Ok(());
            }
            if writer.frozen_segments.is_empty() {
                turn.freeze(writer).map_err(|error| self.fail(error))?;
                break;
            }
        }
        match self.config.checkpoints {
            Checkpoints::Background => Ok(()),
            Checkpoints::Inline => self.move_frozen().map_err(|error| self.fail(error)),
        }
    }

    /// Moves the frozen table into the inner store, and removes its segments from the journal.
    fn move_frozen(&self) -> Result<(), Error> {
        let Some(frozen) = self.memtable().frozen() else { return Ok(()) };
        let last = self.writer().frozen_last;
        move_table(&self.inner, &frozen, last, &|| !self.writer().closing)?;
        let thawed = self.memtable_mut().thaw();
        let segments = self.writer().frozen_segments.clone();
        // In ascending order, and a failure is final: a removed segment must not leave an older one behind.
        segments.into_iter().try_for_each(|segment| self.medium.remove(segment))?;
        self.writer().frozen_segments.clear();
        self.moved.notify_all();
        drop((frozen, thawed));
        Ok(())
    }

    fn run_mover(&self) {
        loop {
            let mut writer = self.writer();
            let idle = |writer: &Writer| writer.frozen_segments.is_empty() && self.check_moving().is_ok();
            while idle(&writer) && !writer.closing && self.check().is_ok() {
                writer = self.work.wait(writer).expect(UNBROKEN);
            }
            if writer.closing || self.check().is_err() {
                return;
            }
            drop(writer);
            // Whoever waits for the table to be moved learns that it is damaged.
            self.moved.notify_all();
            let moved = panic::catch_unwind(AssertUnwindSafe(|| {
                self.inner.mend(&|| !self.writer().closing)?;
                self.move_frozen()
            }));
            if let Err(error) = moved.unwrap_or_else(|_| Err(Error::Corrupt("the table panicked".to_owned()))) {
                self.fail(error);
            }
        }
    }

    fn run_syncer(&self) {
        let interval = Duration::from_millis(limits::BUFFERED_SYNC_MS);
        loop {
            let open = |writer: &mut Writer| !writer.closing && self.check().is_ok();
            let (writer, _) = self.work.wait_timeout_while(self.writer(), interval, open).expect(UNBROKEN);
            if writer.closing {
                return;
            }
            drop(writer);
            if self.flush(Durability::Durable).is_err() {
                return;
            }
        }
    }

    /// Makes all durable and says so in a last record: with it, rot at the end of the journal is not
    /// taken for a torn tail.
    fn seal(&self) -> Result<(), Error> {
        self.flush(Durability::Durable)?;
        let mut writer = self.writer();
        if writer.next == writer.first {
            return Ok(());
        }
        let (sequence, payload) = (writer.next, journal::encode_batch(&Batch::new())?);
        let crc = journal::checksum(self.config.salt, &payload);
        let durable = writer.durable;
        journal::append_record(&mut writer.buffer, self.config.salt, sequence, durable, &payload, crc);
        writer.next += 1;
        drop(writer);
        self.flush(Durability::Durable)
    }

    /// Visits the pairs of the inner store with `from <= key < until`, under the states in `entries`.
    fn scan_part(
        &self,
        from: &[u8],
        until: &[u8],
        entries: Vec<(Bytes, Option<Bytes>)>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, Error> {
        let mut entries = entries.into_iter().peekable();
        let mut flow = ControlFlow::Continue(());
        self.inner.scan(from, until, &mut |key, value| {
            if key == POSITION {
                return ControlFlow::Continue(());
            }
            while let Some((before, state)) = entries.next_if(|(before, _)| **before < *key) {
                flow = state.map_or(ControlFlow::Continue(()), |value| visit(&before, &value));
                flow?;
            }
            flow = match entries.next_if(|(same, _)| **same == *key) {
                Some((_, Some(value))) => visit(key, &value),
                Some((_, None)) => ControlFlow::Continue(()),
                None => visit(key, value),
            };
            flow
        })?;
        if flow.is_continue() {
            let left = entries.filter_map(|(key, state)| Some((key, state?)));
            flow = left.map(|(key, value)| visit(&key, &value)).find(ControlFlow::is_break).unwrap_or(flow);
        }
        Ok(flow)
    }
}

/// The exclusive right to write to the journal; gives it back, with what was reached, when dropped.
struct Turn<'a, K> {
    shared: &'a Shared<K>,
    written: u64,
    durable: u64,
    buffer: Vec<u8>,
}

impl<K: Kv> Turn<'_, K> {
    /// Writes everything that is buffered.
    fn write(&mut self, durability: Durability) -> Result<(), Error> {
        let mut writer = self.shared.writer();
        std::mem::swap(&mut writer.buffer, &mut self.buffer);
        let (segment, last) = (writer.segment, writer.next - 1);
        drop(writer);
        self.append(segment, last)?;
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Durable => {
                self.sync(segment)?;
                self.shared.writer().durable = self.durable;
                Ok(())
            }
        }
    }

    /// Writes everything that is buffered, starts a new segment, and freezes the table.
    fn freeze(&mut self, mut writer: MutexGuard<'_, Writer>) -> Result<(), Error> {
        std::mem::swap(&mut writer.buffer, &mut self.buffer);
        let (old, next) = (writer.segment, writer.next);
        self.append(old, next - 1)?;
        self.sync(old)?;
        let (salt, segment) = (self.shared.config.salt, old + 1);
        self.shared.medium.create(segment, &SegmentHeader { salt, segment, first: next }.encode())?;
        self.shared.medium.set_newest(segment)?;
        self.shared.memtable_mut().freeze();
        writer.frozen_segments = std::mem::take(&mut writer.older_segments);
        writer.frozen_segments.push(old);
        writer.frozen_last = next - 1;
        writer.segment = segment;
        writer.first = next;
        writer.durable = next - 1;
        writer.active_bytes = 0;
        self.shared.work.notify_all();
        Ok(())
    }

    fn append(&mut self, segment: u64, last: u64) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            self.shared.medium.append(segment, &self.buffer)?;
            self.buffer.clear();
        }
        self.written = last;
        Ok(())
    }

    fn sync(&mut self, segment: u64) -> Result<(), Error> {
        self.shared.medium.sync(segment)?;
        self.durable = self.written;
        Ok(())
    }
}

impl<K> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        let mut turns = self.shared.turns.lock().expect(UNBROKEN);
        turns.taken = false;
        turns.written = self.written;
        turns.durable = self.durable;
        if self.buffer.is_empty() && self.buffer.capacity() <= SPARE_BYTES_MAX {
            turns.spare = std::mem::take(&mut self.buffer);
        }
        drop(turns);
        self.shared.turn_over.notify_all();
    }
}
