//! One suite that every `Kv` must pass, and what opening a directory promises. Faults are in `survival`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use tempfile::TempDir;

use super::faulty::FaultyDisk;
use super::*;
use crate::memory::Memory;

pub(super) type Model = BTreeMap<Vec<u8>, Vec<u8>>;
pub(super) type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

const EVERYTHING: &[u8] = &[0xff; 16];

/// A way to open a store, again and again.
type Opener = Box<dyn FnMut() -> Box<dyn Kv>>;

pub(super) fn inline(segment_bytes: usize) -> JournalConfig {
    JournalConfig { checkpoints: Checkpoints::Inline, segment_bytes, ..JournalConfig::new(0x5eed) }
}

pub(super) fn background(segment_bytes: usize) -> JournalConfig {
    JournalConfig { segment_bytes, ..JournalConfig::new(0x5eed) }
}

fn folder(path: &Path) -> Box<dyn Medium> {
    Box::new(FolderMedium::open(path.join("journal"), 1 << 16, None).unwrap())
}

fn small_sled(path: &Path) -> SledKv {
    SledKv::open(path.join("table"), SledConfig { memory: Memory::new(64 << 10), ..SledConfig::default() }).unwrap()
}

fn memory() -> Opener {
    let store = Arc::new(MemoryKv::new());
    Box::new(move || Box::new(Arc::clone(&store)))
}

fn sled() -> Opener {
    let dir = TempDir::new().unwrap();
    Box::new(move || Box::new(small_sled(dir.path())))
}

fn journaled_memory() -> Opener {
    let (dir, inner) = (TempDir::new().unwrap(), Arc::new(MemoryKv::new()));
    Box::new(move || {
        let (store, damage) = Journaled::open(Arc::clone(&inner), folder(dir.path()), background(4 << 10)).unwrap();
        assert_eq!(damage, []);
        Box::new(store)
    })
}

fn journaled_sled() -> Opener {
    let dir = TempDir::new().unwrap();
    Box::new(move || {
        let inner = small_sled(dir.path());
        let (store, damage) = Journaled::open(inner, folder(dir.path()), background(16 << 10)).unwrap();
        assert_eq!(damage, []);
        Box::new(store)
    })
}

fn real_disk() -> Opener {
    let dir = TempDir::new().unwrap();
    Box::new(move || {
        let (store, damage) = open(&dir.path().join("data"), &StorageConfig::default()).unwrap();
        assert_eq!(damage, []);
        Box::new(store)
    })
}

fn simulated() -> Opener {
    let disk = FaultyDisk::new(1);
    Box::new(move || {
        let (store, damage) = Journaled::open(disk.table(), disk.medium(), inline(2 << 10)).unwrap();
        assert_eq!(damage, []);
        Box::new(store)
    })
}

fn all() -> [(&'static str, Opener); 6] {
    [
        ("memory", memory()),
        ("sled", sled()),
        ("journaled memory", journaled_memory()),
        ("journaled sled", journaled_sled()),
        ("disk", real_disk()),
        ("simulated", simulated()),
    ]
}

pub(super) fn batch(writes: &Writes) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in writes {
        match value {
            Some(value) => batch.put(key.clone(), value.clone()),
            None => batch.delete(key.clone()),
        }
    }
    batch
}

pub(super) fn put(key: &[u8], value: &[u8]) -> Batch {
    batch(&vec![(key.to_vec(), Some(value.to_vec()))])
}

pub(super) fn write_to(model: &mut Model, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

fn content(store: &dyn Kv, from: &[u8], to: &[u8], limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        pairs.push((key.to_vec(), value.to_vec()));
        if pairs.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.scan(from, to, &mut visit).unwrap();
    pairs
}

pub(super) fn whole(store: &dyn Kv) -> Model {
    content(store, b"", EVERYTHING, usize::MAX).into_iter().collect()
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Writes),
    Flush,
    Reopen,
    Get(Vec<u8>),
    Scan(Vec<u8>, Vec<u8>, usize),
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..6, 0..4)
}

fn any_writes() -> impl Strategy<Value = Writes> {
    let size = prop_oneof![8 => 0usize..64, 1 => 8_000usize..9_000, 1 => 16_000usize..70_000];
    let value = (any::<u8>(), size).prop_map(|(byte, size)| vec![byte; size]);
    prop::collection::vec((any_key(), prop::option::weighted(0.7, value)), 0..24)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_writes().prop_map(Step::Apply),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        4 => any_key().prop_map(Step::Get),
        4 => (any_key(), any_key(), 1usize..200).prop_map(|(from, to, limit)| Step::Scan(from, to, limit)),
    ]
}

fn check_against_model(open: &mut Opener, steps: &[Step]) {
    let mut model = Model::new();
    let mut store = open();
    for step in steps {
        match step {
            Step::Apply(writes) => {
                store.apply(batch(writes)).unwrap();
                write_to(&mut model, writes);
            }
            Step::Flush => store.flush().unwrap(),
            Step::Reopen => {
                drop(store);
                store = open();
            }
            Step::Get(key) => assert_eq!(store.get(key).unwrap().as_deref(), model.get(key).map(Vec::as_slice)),
            Step::Scan(from, to, limit) => {
                let inside = model.iter().filter(|(key, _)| *key >= from && *key < to);
                let expected: Vec<_> = inside.take(*limit).map(|(k, v)| (k.clone(), v.clone())).collect();
                assert_eq!(content(&*store, from, to, *limit), expected);
            }
        }
    }
    assert!(whole(&*store) == model, "the content differs from the model");
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn memory_behaves_as_a_map(steps in any_steps()) {
        check_against_model(&mut memory(), &steps);
    }

    #[test]
    fn a_simulated_disk_behaves_as_a_map(steps in any_steps()) {
        check_against_model(&mut simulated(), &steps);
    }

    #[test]
    fn a_journal_over_memory_behaves_as_a_map(steps in any_steps()) {
        check_against_model(&mut journaled_memory(), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn sled_behaves_as_a_map(steps in any_steps()) {
        check_against_model(&mut sled(), &steps);
    }

    #[test]
    fn a_journal_over_sled_behaves_as_a_map(steps in any_steps()) {
        check_against_model(&mut journaled_sled(), &steps);
    }

    #[test]
    fn a_real_disk_behaves_as_a_map(steps in any_steps()) {
        check_against_model(&mut real_disk(), &steps);
    }
}

#[test]
fn empty_keys_and_values_are_keys_and_values() {
    for (name, mut open) in all() {
        let store = open();
        store.apply(put(b"", b"")).unwrap();
        assert_eq!(store.get(b"").unwrap().as_deref(), Some(&b""[..]), "{name}");
        assert_eq!(content(&*store, b"", b"\0", 9), [(vec![], vec![])], "{name}");
        assert_eq!(content(&*store, b"", b"", 9), [], "{name}");
        assert_eq!(content(&*store, b"b", b"a", 9), [], "{name}");
    }
}

#[test]
fn the_last_write_to_a_key_in_a_batch_stands() {
    for (name, mut open) in all() {
        let store = open();
        let mut batch = put(b"kept", b"old");
        batch.delete("kept");
        batch.put("kept", "new");
        batch.put("gone", "x");
        batch.delete("gone");
        store.apply(batch).unwrap();
        assert_eq!(store.get(b"kept").unwrap().as_deref(), Some(&b"new"[..]), "{name}");
        assert_eq!(store.get(b"gone").unwrap(), None, "{name}");
    }
}

#[test]
fn large_values_are_kept_replaced_and_removed() {
    let value = |salt: usize| -> Vec<u8> { (0..1 << 20).map(|at| (at / 7 * salt) as u8).collect() };
    for (name, mut open) in all() {
        let store = open();
        for salt in 1..4 {
            store.apply(put(b"large", &value(salt))).unwrap();
            store.flush().unwrap();
            assert!(store.get(b"large").unwrap().unwrap() == value(salt), "{name}");
        }
        drop(store);
        let store = open();
        assert!(content(&*store, b"", b"z", 9)[0].1 == value(3), "{name}");
        store.apply(batch(&vec![(b"large".to_vec(), None)])).unwrap();
        assert_eq!(store.get(b"large").unwrap(), None, "{name}");
    }
}

#[test]
fn a_value_that_is_damaged_does_not_hide_those_behind_it() {
    let dir = TempDir::new().unwrap();
    let store = small_sled(dir.path());
    for key in [&b"a"[..], b"c"] {
        store.apply(put(key, b"small")).unwrap();
    }
    store.apply(put(b"b", &[7; 100_000])).unwrap();
    store.lose_chunks();
    assert!(matches!(store.get(b"b"), Err(Error::Corrupt(_))));
    let mut seen = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        seen.push((key.to_vec(), value.len()));
        ControlFlow::Continue(())
    };
    store.scan(b"", b"z", &mut visit).unwrap();
    assert_eq!(seen, [(b"a".to_vec(), 5), (b"b".to_vec(), 0), (b"c".to_vec(), 5)]);
    store.apply(put(b"b", &[8; 100_000])).unwrap();
    assert_eq!(store.get(b"b").unwrap().unwrap(), &[8; 100_000][..]);
}

#[test]
fn chunks_of_replaced_values_are_removed() {
    let dir = TempDir::new().unwrap();
    let store = small_sled(dir.path());
    for round in 0..5u8 {
        store.apply(put(b"large", &vec![round; 100_000])).unwrap();
    }
    assert_eq!(store.chunk_count(), 100_000usize.div_ceil(8 << 10));
    store.apply(put(b"large", b"small")).unwrap();
    assert_eq!(store.chunk_count(), 0);
}

#[test]
fn a_batch_becomes_visible_as_a_whole() {
    for (name, mut open) in all() {
        let store: Arc<dyn Kv> = open().into();
        let done = AtomicBool::new(false);
        let number =
            |key: &[u8]| store.get(key).unwrap().map_or(0, |value| u64::from_be_bytes(value[..8].try_into().unwrap()));
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Acquire) {
                    let first = number(b"a");
                    let second = number(b"z");
                    assert!(first <= second, "{name}: {first} is visible and {second} is not yet");
                    assert!(seen <= first, "{name}: went back from {seen} to {first}");
                    seen = first;
                }
            });
            for round in 1u64..=400 {
                let mut batch = Batch::new();
                let mut value = round.to_be_bytes().to_vec();
                batch.put("a", value.clone());
                value.resize(if round % 3 == 0 { 20_000 } else { 100 }, 7);
                batch.put("m", vec![1; 300]);
                batch.put("z", value);
                store.apply(batch).unwrap();
                if round % 50 == 0 {
                    store.flush().unwrap();
                }
            }
            done.store(true, Ordering::Release);
            reader.join().unwrap();
        });
    }
}

#[test]
fn a_visitor_may_use_the_store() {
    for (name, mut open) in all() {
        let store = open();
        (0..600u32).for_each(|number| store.apply(put(&number.to_be_bytes(), b"old")).unwrap());
        let mut visited = 0;
        let mut visit = |key: &[u8], _: &[u8]| {
            assert!(store.get(key).unwrap().is_some());
            store.apply(put(key, b"new")).unwrap();
            visited += 1;
            ControlFlow::Continue(())
        };
        store.scan(b"", EVERYTHING, &mut visit).unwrap();
        assert_eq!(visited, 600, "{name}");
        assert!(whole(&*store).values().all(|value| value == b"new"), "{name}");
    }
}

#[test]
fn a_table_that_outgrows_its_cache_is_opened_anew_under_its_readers() {
    let dir = TempDir::new().unwrap();
    let store = small_sled(dir.path());
    let done = AtomicBool::new(false);
    let value = |key: u64| {
        let mut value = vec![0; 512];
        blake3::Hasher::new().update(&key.to_be_bytes()).finalize_xof().fill(&mut value);
        value
    };
    store.apply(put(&0u64.to_be_bytes(), &value(0))).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                assert!(store.get(&0u64.to_be_bytes()).unwrap().unwrap() == value(0));
            }
        });
        for round in 0..8u64 {
            let mut batch = Batch::new();
            (0..200).for_each(|at| batch.put((round * 200 + at).to_be_bytes().to_vec(), value(round * 200 + at)));
            store.apply(batch).unwrap();
            store.flush().unwrap();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
    assert!(store.stuck_bytes() < 1_600 * 512, "it still counts what was written before it was opened anew");
    assert_eq!(whole(&store).len(), 1_600);
}

#[test]
fn what_short_scans_read_is_evicted_again() {
    let dir = TempDir::new().unwrap();
    let (entries, step) = (200_000u32, 64);
    {
        let store = small_sled(dir.path());
        for first in (0..entries).step_by(1_000) {
            let mut batch = Batch::new();
            (first..first + 1_000).for_each(|at| batch.put(at.to_be_bytes().to_vec(), vec![7; 32]));
            store.apply(batch).unwrap();
        }
        store.flush().unwrap();
    }
    let store = small_sled(dir.path());
    let read_all = || {
        let before = store.cache().misses;
        for from in (0..entries).step_by(step) {
            let to = from + step as u32;
            assert_eq!(content(&store, &from.to_be_bytes(), &to.to_be_bytes(), step).len(), step);
        }
        store.cache().misses - before
    };
    let leaves = read_all();
    assert!(leaves > 1_000, "{leaves}");
    // sled's cache has 256 parts, of which each keeps two leaves, and what a thread did last is counted later.
    let again = read_all();
    assert!(again > leaves - 600, "of {leaves} leaves only {again} had to be read again, the others stayed in memory");
}

// Directories.

fn open_error(path: &Path) -> Error {
    open(path, &StorageConfig::default()).map(drop).unwrap_err()
}

#[test]
fn a_directory_is_open_once_at_a_time() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a/b");
    let (store, _) = open(&path, &StorageConfig::default()).unwrap();
    assert!(matches!(open_error(&path), Error::Locked(locked) if locked == path));
    store.apply(put(b"a", b"1")).unwrap();
    assert!(store.size_bytes() > 0);
    drop(store);
    let (store, _) = open(&path, &StorageConfig::default()).unwrap();
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn other_peoples_directories_are_left_alone() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "x").unwrap();
    assert!(matches!(open_error(dir.path()), Error::Foreign { found, .. } if found == "thesis.txt"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    std::fs::write(dir.path().join("FORMAT"), "something else").unwrap();
    assert!(matches!(open_error(dir.path()), Error::Foreign { found, .. } if found == "FORMAT"));
    assert!(matches!(open_error(&dir.path().join("thesis.txt")), Error::Io { .. }));
}

#[test]
fn another_format_is_refused() {
    let dir = TempDir::new().unwrap();
    for other in [1, 3] {
        std::fs::write(dir.path().join("FORMAT"), format!("aerolithsdb storage {other}\n")).unwrap();
        assert!(matches!(open_error(dir.path()), Error::OtherFormat { found, supported: 2, .. } if found == other));
    }
}

#[test]
fn an_interrupted_creation_is_started_again() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("LOCK"), "").unwrap();
    std::fs::write(dir.path().join("FORMAT.new"), "aero").unwrap();
    std::fs::create_dir(dir.path().join("table.new")).unwrap_or_default();
    // The table is begun only after the format file is there.
    assert!(matches!(open_error(dir.path()), Error::Foreign { .. }));
    std::fs::write(dir.path().join("FORMAT"), "aerolithsdb storage 2\n").unwrap();
    std::fs::write(dir.path().join("table.new/metadata"), "half").unwrap();
    let (store, damage) = open(dir.path(), &StorageConfig::default()).unwrap();
    assert_eq!((damage, whole(&store)), (vec![], Model::new()));
}
