//! What the journal survives: failed writes, power losses, ended processes, rot, garbage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::conformance::{Model, Writes, background, batch, inline, put, whole, write_to};
use super::faulty::{Faults, FaultyDisk, FaultyTable};
use super::*;

fn open_simulated(disk: &FaultyDisk, segment_bytes: usize) -> (Journaled<FaultyTable>, Vec<Damage>) {
    Journaled::open(disk.table(), disk.medium(), inline(segment_bytes)).unwrap()
}

fn check_poisoned(store: &dyn Kv) {
    assert!(matches!(store.apply(put(b"later", b"x")), Err(Error::Poisoned(_))));
    assert!(matches!(store.flush(), Err(Error::Poisoned(_))));
    assert_eq!(store.get(b"later").unwrap(), None);
}

#[test]
fn a_failed_write_or_sync_poisons_until_the_next_opening() {
    let faults = [
        Faults { fail_write: Some(1), ..Faults::default() },
        Faults { fail_sync: Some(1), ..Faults::default() },
        Faults { capacity_bytes: Some(300), ..Faults::default() },
    ];
    for fault in faults {
        let disk = FaultyDisk::new(3);
        let (store, _) = open_simulated(&disk, 1 << 20);
        store.apply(put(b"first", b"1")).unwrap();
        store.flush().unwrap();
        disk.set_faults(fault);
        store.apply(put(b"second", &[2; 500])).unwrap();
        assert!(matches!(store.flush(), Err(Error::Io { .. })));
        check_poisoned(&store);
        assert!(store.get(b"first").unwrap().is_some());
        disk.set_faults(Faults::default());
        check_poisoned(&store);
        drop(store);
        let (store, _) = open_simulated(&disk, 1 << 20);
        assert_eq!(store.get(b"first").unwrap().as_deref(), Some(&b"1"[..]));
        store.apply(put(b"third", b"3")).unwrap();
        store.flush().unwrap();
    }
}

#[test]
fn a_failure_behind_the_journal_poisons_too() {
    for config in [inline(1 << 20), background(1 << 20)] {
        let disk = FaultyDisk::new(4);
        let (store, _) = Journaled::open(disk.table(), disk.medium(), config).unwrap();
        store.apply(put(b"first", b"1")).unwrap();
        // The first sync is the segment's, the second the table's.
        disk.set_faults(Faults { fail_sync: Some(2), ..Faults::default() });
        assert!(store.checkpoint().is_err());
        check_poisoned(&store);
        assert_eq!(store.get(b"first").unwrap().as_deref(), Some(&b"1"[..]));
        drop(store);
        disk.restart();
        let (store, _) = open_simulated(&disk, 1 << 20);
        assert_eq!(store.get(b"first").unwrap().as_deref(), Some(&b"1"[..]));
    }
}

#[test]
fn a_batch_over_the_limit_is_refused_and_changes_nothing() {
    let (store, _) = open_simulated(&FaultyDisk::new(5), 1 << 20);
    let value = Bytes::from(vec![0; crate::limits::BATCH_BYTES_MAX]);
    let mut large = put(b"small", b"x");
    large.put("large", value);
    assert!(matches!(store.apply(large), Err(Error::TooLarge { .. })));
    assert_eq!(store.get(b"small").unwrap(), None);
    store.apply(put(b"next", b"x")).unwrap();
    store.flush().unwrap();
}

/// Numbers from a seed, for tests.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }

    fn writes(&mut self) -> Writes {
        let count = self.below(5);
        (0..count)
            .map(|_| {
                let key = vec![b'k', self.below(30) as u8];
                let value = vec![self.below(256) as u8; self.below(900) as usize];
                (key, (self.below(4) > 0).then_some(value))
            })
            .collect()
    }
}

const COUNT: &[u8] = b"count";

/// Applies the `number`-th batch of a history: some writes, and the number itself.
fn counted(mut writes: Writes, number: usize) -> Writes {
    writes.push((COUNT.to_vec(), Some((number as u64).to_be_bytes().to_vec())));
    writes
}

fn state_after(history: &[Writes]) -> Model {
    let mut model = Model::new();
    history.iter().for_each(|writes| write_to(&mut model, writes));
    model
}

fn count(store: &dyn Kv) -> usize {
    store.get(COUNT).unwrap().map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()) as usize)
}

/// Works until the power goes, and says how many batches were acknowledged.
fn work_until_power_loss(
    store: &Journaled<FaultyTable>,
    durability: Durability,
    dice: &mut Dice,
    history: &mut Vec<Writes>,
) -> usize {
    let mut acknowledged = history.len();
    for _ in 0..dice.below(60) {
        history.push(counted(dice.writes(), history.len() + 1));
        if store.apply(batch(history.last().unwrap())).is_err() {
            break;
        }
        let (result, durable) = match dice.below(12) {
            0..4 => (store.flush(), durability == Durability::Durable),
            4 => (store.checkpoint(), true),
            _ => continue,
        };
        if result.is_err() {
            break;
        }
        if durable {
            acknowledged = history.len();
        }
    }
    acknowledged
}

#[test]
fn after_a_power_loss_a_prefix_with_everything_flushed_is_there() {
    let (mut torn, mut lost) = (0, 0);
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let disk = FaultyDisk::new(seed);
        let mut history: Vec<Writes> = Vec::new();
        let mut acknowledged = 0;
        for round in 0..10 {
            let cut_power = Some(1 + dice.below(50)).filter(|_| dice.below(3) > 0);
            disk.set_faults(Faults { cut_power, ..Faults::default() });
            // The power may go in the middle of opening too.
            let durability = if dice.below(4) == 0 { Durability::Buffered } else { Durability::Durable };
            let config = JournalConfig { durability, ..inline(3_000) };
            let opened = Journaled::open(disk.table(), disk.medium(), config);
            let Ok((store, damage)) = opened else {
                // As after a crash in the middle of opening.
                disk.restart();
                continue;
            };
            let survived = count(&store);
            let place = format!("seed {seed}, round {round}: {survived} of {acknowledged}..{}", history.len());
            assert!(damage.iter().all(|damage| matches!(damage, Damage::TornTail { .. })), "{place}: {damage:?}");
            assert!((acknowledged..=history.len()).contains(&survived), "{place}");
            torn += damage.len();
            lost += history.len() - survived;
            history.truncate(survived);
            assert!(whole(&store) == state_after(&history), "{place}: the content is not that of the prefix");
            acknowledged = work_until_power_loss(&store, durability, &mut dice, &mut history);
            // Either the process ends, or the power goes.
            if dice.below(3) == 0 {
                disk.kill();
                drop(store);
            } else {
                disk.cut_power();
                drop(store);
                disk.restart();
            }
        }
    }
    assert!(torn > 50 && lost > 500, "the faults are too tame: {torn} torn tails, {lost} batches lost");
}

#[test]
fn a_segment_that_is_missing_is_noticed_once_and_remembered() {
    for (moves, opened) in [(false, 4), (true, 4), (false, 1), (true, 1)] {
        for index in 0..5 {
            let disk = FaultyDisk::new(7);
            for round in 0..opened {
                let (store, damage) = open_simulated(&disk, 1 << 20);
                assert_eq!(damage, []);
                for n in 0..5u8 {
                    store.apply(put(&[b'k', round, n], b"x")).unwrap();
                    store.flush().unwrap();
                }
                if moves && round == 1 {
                    store.checkpoint().unwrap();
                }
                drop(store);
                disk.kill();
            }
            let Some(segment) = disk.lose_segment(index) else { continue };
            let (store, damage) = open_simulated(&disk, 1 << 20);
            assert!(!damage.is_empty(), "segment {segment} is not missed ({moves}, {opened})");
            let remembered = store.get(Lost::KEY).unwrap().map(|bytes| Lost::decode(&bytes));
            let between = damage.iter().all(|damage| matches!(damage, Damage::LostRecords { .. }));
            assert!(between || remembered == Some(Lost::anything()));
            drop(store);
            disk.kill();
            let (store, damage) = open_simulated(&disk, 1 << 20);
            assert!(between || damage.is_empty(), "{damage:?}");
            assert_eq!(store.get(Lost::KEY).unwrap().is_some(), !between);
        }
    }
}

#[test]
fn buffered_writes_survive_the_end_of_the_process() {
    let config = JournalConfig { durability: Durability::Buffered, ..inline(1 << 20) };
    let disk = FaultyDisk::new(6);
    let (store, _) = Journaled::open(disk.table(), disk.medium(), config).unwrap();
    store.apply(put(b"flushed", b"1")).unwrap();
    store.flush().unwrap();
    store.apply(put(b"applied", b"1")).unwrap();
    disk.kill();
    drop(store);
    let (store, _) = open_simulated(&disk, 1 << 20);
    assert_eq!(whole(&store).into_keys().collect::<Vec<_>>(), [b"flushed".to_vec()]);
}

#[test]
fn runs_of_one_seed_are_equal() {
    let run = |seed| {
        let disk = FaultyDisk::new(seed);
        let (store, _) = open_simulated(&disk, 3_000);
        disk.set_faults(Faults { cut_power: Some(5 + seed), ..Faults::default() });
        let _ = work_until_power_loss(&store, Durability::Durable, &mut Dice(seed), &mut Vec::new());
        disk.cut_power();
        drop(store);
        disk.restart();
        let (store, damage) = open_simulated(&disk, 3_000);
        (whole(&store), damage, store.size_bytes())
    };
    let outcomes: Vec<_> = (0..20).map(run).collect();
    assert_eq!(outcomes, (0..20).map(run).collect::<Vec<_>>());
    assert!(outcomes.iter().any(|(_, damage, _)| !damage.is_empty()));
}

#[test]
fn a_rotten_record_is_reported_and_all_others_are_kept() {
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let disk = FaultyDisk::new(seed);
        let (store, _) = open_simulated(&disk, 1 << 20);
        let history: Vec<Writes> = (0..20).map(|number| counted(dice.writes(), number + 1)).collect();
        for writes in &history {
            store.apply(batch(writes)).unwrap();
            store.flush().unwrap();
        }
        drop(store);
        let rotten = dice.below(20) as usize;
        disk.rot_record(rotten).unwrap();
        let others: Vec<Writes> =
            history.iter().enumerate().filter(|(at, _)| *at != rotten).map(|(_, writes)| writes.clone()).collect();
        for _ in 0..2 {
            let (store, damage) = open_simulated(&disk, 1 << 20);
            let lost = rotten as u64 + 1;
            let [Damage::LostRecords { segment: 1, first, last, .. }] = &damage[..] else {
                panic!("seed {seed}: {damage:?}");
            };
            assert_eq!((*first, *last), (lost, lost), "seed {seed}");
            assert!(whole(&store) == state_after(&others), "seed {seed}");
        }
    }
}

#[test]
fn rot_in_a_value_names_the_keys_of_its_record() {
    let disk = FaultyDisk::new(9);
    let (store, _) = open_simulated(&disk, 1 << 20);
    let mut first = put(b"one", &[7; 5_000]);
    first.put("two", "2");
    store.apply(first).unwrap();
    store.apply(put(b"three", b"3")).unwrap();
    drop(store);
    disk.rot_record(0).unwrap();
    let (store, damage) = open_simulated(&disk, 1 << 20);
    let keys = vec![Bytes::from("one"), Bytes::from("two")];
    assert_eq!(damage, [Damage::LostRecords { segment: 1, first: 1, last: 1, keys }]);
    assert_eq!(store.get(b"three").unwrap().as_deref(), Some(&b"3"[..]));
}

/// A medium whose bytes a test can change, and whose syncs it can count and hold back.
#[derive(Debug, Clone, Default)]
struct Bench {
    files: Arc<Mutex<BTreeMap<u64, Vec<u8>>>>,
    syncs: Arc<(Mutex<usize>, Condvar)>,
    held: Arc<(Mutex<bool>, Condvar)>,
}

impl Bench {
    fn wait_for_syncs(&self, least: usize) {
        let (syncs, changed) = &*self.syncs;
        let wait = changed.wait_timeout_while(syncs.lock().unwrap(), Duration::from_secs(20), |syncs| *syncs < least);
        assert!(*wait.unwrap().0 >= least, "a sync did not come");
    }

    fn syncs(&self) -> usize {
        *self.syncs.0.lock().unwrap()
    }

    fn hold(&self, held: bool) {
        *self.held.0.lock().unwrap() = held;
        self.held.1.notify_all();
    }
}

impl Medium for Bench {
    fn segments(&self) -> Result<Vec<u64>, Error> {
        Ok(self.files.lock().unwrap().keys().copied().collect())
    }
    fn create(&self, segment: u64, header: &[u8]) -> Result<(), Error> {
        assert!(self.files.lock().unwrap().insert(segment, header.to_vec()).is_none());
        Ok(())
    }
    fn append(&self, segment: u64, bytes: &[u8]) -> Result<(), Error> {
        self.files.lock().unwrap().get_mut(&segment).unwrap().extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&self, _: u64) -> Result<(), Error> {
        *self.syncs.0.lock().unwrap() += 1;
        self.syncs.1.notify_all();
        drop(self.held.1.wait_while(self.held.0.lock().unwrap(), |held| *held).unwrap());
        Ok(())
    }
    fn read(&self, segment: u64) -> Result<Vec<u8>, Error> {
        Ok(self.files.lock().unwrap()[&segment].clone())
    }
    fn truncate(&self, segment: u64, length: u64) -> Result<(), Error> {
        self.files.lock().unwrap().get_mut(&segment).unwrap().truncate(length as usize);
        Ok(())
    }
    fn remove(&self, segment: u64) -> Result<(), Error> {
        self.files.lock().unwrap().remove(&segment).unwrap();
        Ok(())
    }
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn newest(&self) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    fn set_newest(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        0
    }
}

/// Whether a record inside a value is replayed when the header around it is damaged.
fn is_forged_record_taken(salt: u32) -> bool {
    let payload = journal::encode_batch(&put(b"forged", b"x")).unwrap();
    let mut record = Vec::new();
    journal::append_record(&mut record, salt, 2, 1, &payload, journal::checksum(salt, &payload));
    let bench = Bench::default();
    let open = || Journaled::open(MemoryKv::new(), Box::new(bench.clone()), inline(1 << 20)).unwrap().0;
    let store = open();
    store.apply(put(b"a", &record)).unwrap();
    store.apply(put(b"b", b"2")).unwrap();
    drop(store);
    bench.files.lock().unwrap().get_mut(&1).unwrap()[journal::RECORDS_START + 5] ^= 1;
    open().get(b"forged").unwrap().is_some()
}

#[test]
fn a_value_that_holds_a_record_is_not_taken_for_one_without_the_salt() {
    assert!(is_forged_record_taken(0x5eed), "the forgery itself is sound");
    assert!(!is_forged_record_taken(0));
}

#[test]
fn concurrent_flushes_share_one_sync() {
    let bench = Bench::default();
    let (store, _) = Journaled::open(MemoryKv::new(), Box::new(bench.clone()), background(1 << 20)).unwrap();
    let before = bench.syncs();
    bench.hold(true);
    let applied = AtomicUsize::new(0);
    thread::scope(|scope| {
        store.apply(put(b"leader", b"x")).unwrap();
        scope.spawn(|| store.flush().unwrap());
        bench.wait_for_syncs(before + 1);
        for number in 0..8u8 {
            let (store, applied) = (&store, &applied);
            scope.spawn(move || {
                store.apply(put(&[number], b"x")).unwrap();
                applied.fetch_add(1, Ordering::AcqRel);
                store.flush().unwrap();
            });
        }
        while applied.load(Ordering::Acquire) < 8 {
            thread::yield_now();
        }
        bench.hold(false);
    });
    assert_eq!(bench.syncs() - before, 2);
}

#[test]
fn buffered_writes_are_synced_in_the_background() {
    let bench = Bench::default();
    let config = JournalConfig { durability: Durability::Buffered, ..background(1 << 20) };
    let (store, _) = Journaled::open(MemoryKv::new(), Box::new(bench.clone()), config).unwrap();
    let before = bench.syncs();
    store.apply(put(b"a", b"1")).unwrap();
    store.flush().unwrap();
    bench.wait_for_syncs(before + 1);
}

#[test]
fn segments_are_removed_once_the_table_has_them() {
    let bench = Bench::default();
    let inner = Arc::new(MemoryKv::new());
    let (store, _) = Journaled::open(Arc::clone(&inner), Box::new(bench.clone()), background(4 << 10)).unwrap();
    (0..500u32).for_each(|number| store.apply(put(&number.to_be_bytes(), &[1; 100])).unwrap());
    store.checkpoint().unwrap();
    assert_eq!(bench.segments().unwrap().len(), 1);
    // The last entry says how far the table is.
    assert_eq!(whole(&inner).len(), 501);
}

#[derive(Debug, Clone)]
enum Mutation {
    Flip(usize, u8),
    Cut(usize),
    Zero(usize, usize),
    Repeat(usize, usize),
    Garbage(usize, Vec<u8>),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let at = 0usize..6_000;
    prop_oneof![
        4 => (at.clone(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => at.clone().prop_map(Mutation::Cut),
        1 => (at.clone(), 0usize..600).prop_map(|(at, length)| Mutation::Zero(at, length)),
        1 => (at.clone(), 0usize..600).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        1 => (at, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(at, bytes)| Mutation::Garbage(at, bytes)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let clamp = |at: usize| at.min(bytes.len());
    match mutation {
        Mutation::Flip(at, bit) => {
            if let Some(byte) = bytes.get_mut(*at) {
                *byte ^= 1 << bit;
            }
        }
        Mutation::Cut(at) => bytes.truncate(*at),
        Mutation::Zero(at, length) => {
            let range = clamp(*at)..clamp(at + length);
            bytes[range].fill(0);
        }
        Mutation::Repeat(at, length) => {
            let (start, end) = (clamp(*at), clamp(at + length));
            let part = bytes[start..end].to_vec();
            bytes.splice(end..end, part);
        }
        Mutation::Garbage(at, garbage) => {
            let start = clamp(*at);
            bytes.splice(start..start, garbage.iter().copied());
        }
    }
}

proptest! {
    #[test]
    fn damaged_journals_open_without_inventing_anything(
        seed in 0u64..1_000,
        mutations in prop::collection::vec((0u64..3, any_mutation()), 1..6),
    ) {
        let bench = Bench::default();
        let mut dice = Dice(seed);
        let mut written = BTreeSet::new();
        // Three openings make three segments.
        for _ in 0..3 {
            let (store, _) = Journaled::open(MemoryKv::new(), Box::new(bench.clone()), inline(1 << 20)).unwrap();
            for _ in 0..5 {
                let writes = dice.writes();
                written.extend(writes.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))));
                store.apply(batch(&writes)).unwrap();
            }
        }
        for (segment, mutation) in &mutations {
            if let Some(bytes) = bench.files.lock().unwrap().get_mut(&(segment + 1)) {
                mutate(bytes, mutation);
            }
        }
        let (store, _) = Journaled::open(MemoryKv::new(), Box::new(bench.clone()), inline(1 << 20)).unwrap();
        let found = whole(&store);
        prop_assert!(found.iter().all(|(key, value)| written.contains(&(key.clone(), value.clone()))));
        store.apply(put(b"after", b"x")).unwrap();
        drop(store);
        let (store, _) = Journaled::open(MemoryKv::new(), Box::new(bench), inline(1 << 20)).unwrap();
        let mut again = whole(&store);
        prop_assert_eq!(again.remove(&b"after"[..]), Some(b"x".to_vec()));
        prop_assert_eq!(again, found);
    }

    #[test]
    fn garbage_instead_of_a_journal_opens_empty(garbage in prop::collection::vec(any::<u8>(), 0..4_000)) {
        let bench = Bench::default();
        bench.files.lock().unwrap().insert(1, garbage);
        let (store, _) = Journaled::open(MemoryKv::new(), Box::new(bench), inline(1 << 20)).unwrap();
        prop_assert!(whole(&store).is_empty());
    }

    #[test]
    fn garbage_behind_a_header_opens_empty(garbage in prop::collection::vec(any::<u8>(), 0..4_000)) {
        let mut bytes = journal::SegmentHeader { salt: 1, segment: 1, first: 1 }.encode();
        bytes.extend(garbage);
        let bench = Bench::default();
        bench.files.lock().unwrap().insert(1, bytes);
        let (store, _) = Journaled::open(MemoryKv::new(), Box::new(bench), inline(1 << 20)).unwrap();
        prop_assert!(whole(&store).is_empty());
    }
}

#[test]
fn a_lost_segment_is_reported() {
    let bench = Bench::default();
    for number in 0..3u8 {
        let (store, _) = Journaled::open(MemoryKv::new(), Box::new(bench.clone()), inline(1 << 20)).unwrap();
        store.apply(put(&[number], b"x")).unwrap();
    }
    bench.files.lock().unwrap().get_mut(&2).unwrap()[..100].fill(0xaa);
    let (store, damage) = Journaled::open(MemoryKv::new(), Box::new(bench), inline(1 << 20)).unwrap();
    assert_eq!(damage, [Damage::LostSegment { segment: 2 }]);
    assert_eq!(whole(&store).into_keys().collect::<Vec<_>>(), [vec![0], vec![2]]);
}
