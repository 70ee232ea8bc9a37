//! A disk that is full for a while: reads and links go on, nothing is lost, and nobody reconnects in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde_json::json;

use super::{World, open};
use crate::Error;
use crate::kv::{self, Batch, CacheUse, Kv, Visit};

/// A store whose disk can be full.
struct Disk {
    inner: Arc<dyn Kv>,
    full: AtomicBool,
}

impl Kv for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, kv::Error> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), kv::Error> {
        self.inner.scan(from, to, visit)
    }

    fn apply(&self, batch: Batch) -> Result<(), kv::Error> {
        self.inner.apply(batch)
    }

    fn check(&self) -> Result<(), kv::Error> {
        let full = kv::Error::Full { free_bytes: 0, needed_bytes: 1 };
        if self.full.load(Ordering::Relaxed) { Err(full) } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), kv::Error> {
        self.inner.flush()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn cache(&self) -> CacheUse {
        self.inner.cache()
    }
}

#[test]
fn a_full_disk_holds_changes_up_without_reconnecting_and_takes_them_later() {
    let mut world = World::mesh(2);
    let disk = Arc::new(Disk { inner: world.peers[1].kv.clone(), full: AtomicBool::new(true) });
    world.peers[1].node = open(1, disk.clone(), world.now);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.sent.clear();
    world.connect(0, 1);
    world.run(60_000);
    for n in 0..20 {
        world.put(0, "notes/b", json!({"n": n})).unwrap();
        world.run(1_000);
    }
    assert!(matches!(world.put(1, "notes/c", json!({})), Err(Error::Io(_))));
    assert_eq!(world.get(1, "notes/a"), None);
    assert!(world.links.contains(&(0, 1)));
    assert_eq!(world.sent["hello"], 2);
    disk.full.store(false, Ordering::Relaxed);
    world.run(20_000);
    assert_eq!(world.state(0), world.state(1));
    assert_eq!(world.get(1, "notes/b"), Some(json!({"n": 19})));
    world.put(1, "notes/c", json!({})).unwrap();
}
