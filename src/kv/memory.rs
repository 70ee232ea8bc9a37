//! A `Kv` in memory: for tests, for peers that keep nothing, and as the model of the others.
//!
//! It has no medium, so `flush` has nothing to do and nothing survives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::{Batch, CacheUse, Error, Kv, Visit};

/// Pairs taken under one lock by a scan: the visitor runs outside it, and may use the store.
const SCAN_PAIRS: usize = 256;

/// An ordered map in memory.
#[derive(Debug, Default)]
pub struct MemoryKv {
    state: RwLock<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    pairs: BTreeMap<Bytes, Bytes>,
    size_bytes: u64,
}

impl MemoryKv {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or removes keys, in order.
    pub(super) fn set_all(&self, writes: Vec<(Bytes, Option<Bytes>)>) {
        let mut state = self.write();
        for (key, value) in writes {
            state.set(key, value);
        }
    }

    /// Another store with the same pairs.
    pub(crate) fn copy(&self) -> Self {
        Self { state: RwLock::new(self.read().clone()) }
    }

    // No code that can panic runs under the lock, so a poisoned one still guards a whole state.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        let key_bytes = key.len() as u64;
        let added = value.as_ref().map_or(0, |value| key_bytes + value.len() as u64);
        let old = match value {
            Some(value) => self.pairs.insert(key, value),
            None => self.pairs.remove(&key),
        };
        self.size_bytes += added;
        self.size_bytes -= old.map_or(0, |old| key_bytes + old.len() as u64);
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.read().pairs.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut start = Bound::Included(Bytes::copy_from_slice(from));
        if from >= to {
            return Ok(());
        }
        loop {
            let range = (start.as_ref().map(Bytes::as_ref), Bound::Excluded(to));
            let pairs: Vec<(Bytes, Bytes)> = self
                .read()
                .pairs
                .range::<[u8], _>(range)
                .take(SCAN_PAIRS)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            for (key, value) in &pairs {
                if visit(key, value).is_break() {
                    return Ok(());
                }
            }
            match pairs.into_iter().nth(SCAN_PAIRS - 1) {
                Some((last, _)) => start = Bound::Excluded(last),
                None => return Ok(()),
            }
        }
    }

    fn apply(&self, batch: Batch) -> Result<(), Error> {
        self.set_all(batch.into_writes());
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.read().size_bytes
    }

    fn cache(&self) -> CacheUse {
        CacheUse::default()
    }
}
