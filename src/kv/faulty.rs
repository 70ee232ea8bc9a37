//! A simulated disk that fails on purpose: for tests, and for simulations of whole meshes.
//!
//! It serves as the journal's [`Medium`] and as the inner store behind it, both in memory. What was not synced
//! may be kept, lost or torn when the power goes, also in the middle of an operation; writes and syncs
//! can fail, the disk can fill up, stored records can rot. All of it follows from one seed: the same calls
//! give the same faults. There are no threads in it; open [`Journaled`](super::Journaled) on it
//! with [`Checkpoints::Inline`](super::Checkpoints::Inline).
//!
//! The table is weaker than any real one on purpose: of what was applied since its last flush, any part may
//! survive. Files behave like the [`FolderMedium`](super::FolderMedium): sectors of an unsynced append survive or
//! read as zeros one by one, and a file may end in zeros.
//!
//! Not modelled: reads that fail or lie while the power is on, and loss of what was synced (but see
//! [`FaultyDisk::rot_record`]).
//!
//! # Example
//! ```
//! use aerolithsdb::kv::faulty::FaultyDisk;
//! use aerolithsdb::kv::{Batch, Checkpoints, JournalConfig, Journaled, Kv};
//!
//! let config = JournalConfig { checkpoints: Checkpoints::Inline, ..JournalConfig::new(7) };
//! let disk = FaultyDisk::new(42);
//! let (store, _) = Journaled::open(disk.table(), disk.medium(), config.clone())?;
//! let mut batch = Batch::new();
//! batch.put("key", "value");
//! store.apply(batch)?;
//! store.flush()?;
//! disk.cut_power();
//! drop(store);
//! disk.restart();
//! let (store, _) = Journaled::open(disk.table(), disk.medium(), config)?;
//! assert_eq!(store.get(b"key")?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), aerolithsdb::kv::Error>(())
//! ```

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::journal::record_ranges;
use super::{Batch, CacheUse, Error, Kv, Medium, MemoryKv, Visit};

/// Bytes that a power loss keeps or loses as a whole.
const SECTOR_BYTES: usize = 512;

/// What goes wrong, counted from the moment these are set. By default nothing.
#[derive(Debug, Default, Clone)]
pub struct Faults {
    /// The write that fails, from 1: an append or a new segment of the journal, or a batch of the table.
    pub fail_write: Option<u64>,
    /// The sync that fails, from 1: of the journal or of the table.
    pub fail_sync: Option<u64>,
    /// The operation of any kind in whose middle the power goes, from 1.
    pub cut_power: Option<u64>,
    /// Bytes of journal and table that fit; beyond them writes fail.
    pub capacity_bytes: Option<u64>,
}

/// A simulated disk; clones are the same disk.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

impl FaultyDisk {
    /// An empty disk without faults. `seed` decides what power losses and failed writes leave behind.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: Rng(seed),
            faults: Faults::default(),
            powered: true,
            boot: 0,
            writes: 0,
            syncs: 0,
            operations: 0,
            files: BTreeMap::new(),
            newest: None,
            table: Table::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The journal's side of it. It stops working when the power goes, and stays so.
    #[must_use]
    pub fn medium(&self) -> Box<dyn Medium> {
        Box::new(FaultyMedium(self.handle()))
    }

    /// The inner store's side of it. It stops working when the power goes, and stays so.
    #[must_use]
    pub fn table(&self) -> FaultyTable {
        FaultyTable(self.handle())
    }

    /// Sets what goes wrong from here on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        (state.writes, state.syncs, state.operations) = (0, 0, 0);
        state.faults = faults;
    }

    /// Operations since faults were set, for choosing one to cut the power in.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Cuts the power between two operations.
    pub fn cut_power(&self) {
        self.state().powered = false;
    }

    /// Whether the power is on.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        self.state().powered
    }

    /// Another disk with what is on this one, as a backup of its files has it. Its faults follow from `seed`.
    #[must_use]
    pub fn backup(&self, seed: u64) -> Self {
        let (copy, state) = (Self::new(seed), self.state());
        let mut copied = copy.state();
        for (segment, file) in &state.files {
            copied.files.insert(*segment, SimulatedFile { bytes: file.bytes.clone(), synced: file.bytes.len() });
        }
        copied.newest = state.newest;
        copied.table.durable = state.table.visible.copy();
        copied.table.visible = Arc::new(state.table.visible.copy());
        drop(copied);
        copy
    }

    /// Ends the process that has the disk open, with the power on: its handles stop working, and what it wrote is
    /// there, synced or not yet.
    pub fn kill(&self) {
        self.state().boot += 1;
    }

    /// Restores the power, after cutting it when it was on: decides what of the unsynced bytes is there, and clears
    /// the faults. Handles from before do not work any more.
    pub fn restart(&self) {
        let mut state = self.state();
        state.settle();
        state.powered = true;
        state.boot += 1;
        state.faults = Faults::default();
    }

    /// Journal records that are there.
    #[must_use]
    pub fn records(&self) -> usize {
        self.state().records().len()
    }

    /// Flips one bit of a journal record: of the `index`-th of all that are there, oldest first, as `index` modulo
    /// their number. Says which segment it was in; `None` when there is no record.
    pub fn rot_record(&self, index: usize) -> Option<u64> {
        let mut state = self.state();
        let ranges = state.records();
        let State { files, rng, .. } = &mut *state;
        let (segment, range) = ranges.get(index.checked_rem(ranges.len())?)?.clone();
        let bytes = &mut files.get_mut(&segment)?.bytes[range];
        bytes[rng.below(bytes.len())] ^= 1 << rng.below(8);
        Some(segment)
    }

    /// Removes a segment of the journal: the `index`-th of all that are there, oldest first, as `index` modulo their
    /// number. Says which; `None` when there is none.
    pub fn lose_segment(&self, index: usize) -> Option<u64> {
        let mut state = self.state();
        let segment = *state.files.keys().nth(index.checked_rem(state.files.len())?)?;
        state.files.remove(&segment).map(|_| segment)
    }

    /// Flips one bit of a journal record chosen by the seed.
    pub fn rot_any_record(&self) -> Option<u64> {
        let index = self.state().rng.next() as usize;
        self.rot_record(index)
    }

    fn handle(&self) -> Handle {
        Handle { disk: self.clone(), boot: self.state().boot }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disk as it was booted once.
#[derive(Debug)]
struct Handle {
    disk: FaultyDisk,
    boot: u64,
}

impl Handle {
    /// The state, for reading.
    fn read(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.disk.state();
        if state.powered && state.boot == self.boot { Ok(state) } else { Err(without_power()) }
    }

    /// The state, for one operation, and what becomes of that.
    fn operate(&self, kind: Kind) -> Result<(MutexGuard<'_, State>, Fate), Error> {
        let mut state = self.read()?;
        let fate = state.fate(kind);
        Ok((state, fate))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Sync,
    /// A change of names or lengths: durable as a whole, or the power goes.
    Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Fails,
    /// The power goes before it is done.
    Interrupted,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    faults: Faults,
    powered: bool,
    /// How often it was restarted, or its process ended.
    boot: u64,
    writes: u64,
    syncs: u64,
    operations: u64,
    files: BTreeMap<u64, SimulatedFile>,
    newest: Option<u64>,
    table: Table,
}

#[derive(Debug, Default)]
struct SimulatedFile {
    bytes: Vec<u8>,
    /// How many of them are durable.
    synced: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// What was flushed.
    durable: MemoryKv,
    /// What readers see.
    visible: Arc<MemoryKv>,
    unsynced: Vec<(Bytes, Option<Bytes>)>,
}

impl State {
    /// Where the journal's records are, oldest first.
    fn records(&self) -> Vec<(u64, Range<usize>)> {
        let of = |(number, file): (&u64, &SimulatedFile)| {
            record_ranges(*number, &file.bytes).into_iter().map(move |range| (*number, range)).collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of).collect()
    }

    fn fate(&mut self, kind: Kind) -> Fate {
        self.operations += 1;
        self.writes += u64::from(kind == Kind::Write);
        self.syncs += u64::from(kind == Kind::Sync);
        if self.faults.cut_power == Some(self.operations) {
            self.powered = false;
            return Fate::Interrupted;
        }
        let fails = match kind {
            Kind::Write => self.faults.fail_write == Some(self.writes),
            Kind::Sync => self.faults.fail_sync == Some(self.syncs),
            Kind::Change => false,
        };
        if fails { Fate::Fails } else { Fate::Done }
    }

    /// How many of `wanted` bytes still fit.
    fn room(&self, wanted: usize) -> usize {
        let used: u64 = self.files.values().map(|file| file.bytes.len() as u64).sum();
        let used = used + self.table.visible.size_bytes();
        let free = self.faults.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        usize::try_from(free).map_or(wanted, |free| free.min(wanted))
    }

    /// Decides what of the unsynced bytes survives.
    fn settle(&mut self) {
        for file in self.files.values_mut() {
            match self.rng.below(3) {
                0 => {}
                1 => file.bytes.truncate(file.synced),
                _ => file.tear(&mut self.rng),
            }
            file.synced = file.bytes.len();
        }
        let unsynced = std::mem::take(&mut self.table.unsynced);
        let survivors = unsynced.into_iter().filter(|_| self.rng.below(2) == 0).collect();
        self.table.durable.set_all(survivors);
        self.table.visible = Arc::new(self.table.durable.copy());
    }
}

impl SimulatedFile {
    fn tear(&mut self, rng: &mut Rng) {
        // From every second sector to every sixteenth is lost.
        let odds = 2 << rng.below(4);
        let mut at = self.synced;
        while at < self.bytes.len() {
            let end = self.bytes.len().min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
            if rng.below(odds) == 0 {
                self.bytes[at..end].fill(0);
            }
            at = end;
        }
        let unsynced = self.bytes.len() - self.synced;
        let kept = self.synced + if rng.below(2) == 0 { unsynced } else { rng.below(unsynced + 1) };
        self.bytes.truncate(kept);
        self.bytes.resize(kept + rng.below(2 * SECTOR_BYTES), 0);
    }
}

#[derive(Debug)]
struct FaultyMedium(Handle);

impl Medium for FaultyMedium {
    fn segments(&self) -> Result<Vec<u64>, Error> {
        Ok(self.0.read()?.files.keys().copied().collect())
    }

    fn create(&self, segment: u64, header: &[u8]) -> Result<(), Error> {
        let (mut state, fate) = self.0.operate(Kind::Write)?;
        let room = state.room(header.len());
        let length = match fate {
            Fate::Done => room,
            Fate::Fails => return Err(refused()),
            Fate::Interrupted if state.rng.below(2) == 0 => return Err(without_power()),
            Fate::Interrupted => state.rng.below(header.len() + 1),
        };
        state.files.insert(segment, SimulatedFile { bytes: header[..length].to_vec(), synced: length });
        finished(fate)?;
        if length < header.len() { Err(full()) } else { Ok(()) }
    }

    fn append(&self, segment: u64, bytes: &[u8]) -> Result<(), Error> {
        let (mut state, fate) = self.0.operate(Kind::Write)?;
        let room = state.room(bytes.len());
        let length = if fate == Fate::Fails { state.rng.below(bytes.len() + 1).min(room) } else { room };
        let file = state.files.get_mut(&segment).ok_or_else(|| missing(segment))?;
        file.bytes.extend_from_slice(&bytes[..length]);
        finished(fate)?;
        if length < bytes.len() { Err(full()) } else { Ok(()) }
    }

    fn sync(&self, segment: u64) -> Result<(), Error> {
        let (mut state, fate) = self.0.operate(Kind::Sync)?;
        finished(fate)?;
        let file = state.files.get_mut(&segment).ok_or_else(|| missing(segment))?;
        file.synced = file.bytes.len();
        Ok(())
    }

    fn read(&self, segment: u64) -> Result<Vec<u8>, Error> {
        let state = self.0.read()?;
        state.files.get(&segment).map(|file| file.bytes.clone()).ok_or_else(|| missing(segment))
    }

    fn truncate(&self, segment: u64, length: u64) -> Result<(), Error> {
        let (mut state, fate) = self.0.operate(Kind::Change)?;
        if fate == Fate::Done || state.rng.below(2) == 0 {
            let file = state.files.get_mut(&segment).ok_or_else(|| missing(segment))?;
            file.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            file.synced = file.bytes.len();
        }
        finished(fate)
    }

    fn remove(&self, segment: u64) -> Result<(), Error> {
        let (mut state, fate) = self.0.operate(Kind::Change)?;
        if fate == Fate::Done || state.rng.below(2) == 0 {
            state.files.remove(&segment).ok_or_else(|| missing(segment))?;
        }
        finished(fate)
    }

    fn newest(&self) -> Result<Option<u64>, Error> {
        Ok(self.0.read()?.newest)
    }

    fn set_newest(&self, segment: u64) -> Result<(), Error> {
        let (mut state, fate) = self.0.operate(Kind::Change)?;
        if fate == Fate::Done || state.rng.below(2) == 0 {
            state.newest = Some(segment);
        }
        finished(fate)
    }

    /// Nobody knows: a full disk shows itself by refusing, which is what is to be tried out.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn size_bytes(&self) -> u64 {
        self.0.disk.state().files.values().map(|file| file.bytes.len() as u64).sum()
    }
}

/// The table of a [`FaultyDisk`].
#[derive(Debug)]
pub struct FaultyTable(Handle);

impl FaultyTable {
    /// What readers see. Visitors run outside the disk's lock.
    fn visible(&self) -> Result<Arc<MemoryKv>, Error> {
        Ok(Arc::clone(&self.0.read()?.table.visible))
    }
}

impl Kv for FaultyTable {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.visible()?.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        self.visible()?.scan(from, to, visit)
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        let (mut state, fate) = self.0.operate(Kind::Write)?;
        let writes = batch.into_writes();
        let bytes = writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        if state.room(bytes) < bytes {
            return Err(full());
        }
        if fate != Fate::Fails {
            state.table.visible.set_all(writes.clone());
            state.table.unsynced.extend(writes);
        }
        finished(fate)
    }

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let (mut state, fate) = self.0.operate(Kind::Sync)?;
        finished(fate)?;
        let unsynced = std::mem::take(&mut state.table.unsynced);
        state.table.durable.set_all(unsynced);
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.0.disk.state().table.visible.size_bytes()
    }

    fn cache(&self) -> CacheUse {
        CacheUse::default()
    }
}

/// SplitMix64: small, and the same everywhere forever. <https://prng.di.unimi.it/splitmix64.c>
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, and 0 for a bound of 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 1).checked_rem(bound as u64).unwrap_or(0) as usize
    }
}

fn finished(fate: Fate) -> Result<(), Error> {
    match fate {
        Fate::Done => Ok(()),
        Fate::Fails => Err(refused()),
        Fate::Interrupted => Err(without_power()),
    }
}

fn without_power() -> Error {
    Error::io("simulated disk", &std::io::Error::new(ErrorKind::NotConnected, "the power was cut"))
}

fn refused() -> Error {
    Error::io("simulated disk", &std::io::Error::other("refused"))
}

fn full() -> Error {
    Error::io("simulated disk", &std::io::Error::new(ErrorKind::StorageFull, "no space left"))
}

fn missing(segment: u64) -> Error {
    Error::io(format!("segment {segment}"), &std::io::Error::new(ErrorKind::NotFound, "there is no such segment"))
}
