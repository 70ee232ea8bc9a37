//! The writes that are in the journal and not yet in the table behind it.
//!
//! Two ordered maps: the active one takes new batches; the frozen one, when there is one, is being moved
//! into the table and does not change. A key's newest state is in the active map, else in the frozen
//! one, else in the table. `None` as a value is a tombstone: the key was removed, whatever lies below.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Batch;

/// Bytes that one entry takes beside its key and value, about.
pub(super) const ENTRY_BYTES: usize = 96;

/// Bytes and writes of one batch for the table behind: readers wait for about this much.
const MOVE_BYTES: usize = 256 << 10;
const MOVE_WRITES: usize = 512;

/// The newest state of some keys.
pub(super) type Entries = BTreeMap<Bytes, Option<Bytes>>;

/// The active and the frozen map.
#[derive(Debug, Default)]
pub(super) struct Memtable {
    active: Entries,
    frozen: Option<Arc<Entries>>,
}

impl Memtable {
    /// An active map with these entries.
    pub(super) fn new(active: Entries) -> Self {
        Self { active, frozen: None }
    }

    /// Takes a batch.
    pub(super) fn insert(&mut self, batch: Batch) {
        self.active.extend(batch.into_writes());
    }

    /// The state of a key: `None` when it is not known here, `Some(None)` when it was removed.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.active.get(key).or_else(|| self.frozen.as_ref()?.get(key)).cloned()
    }

    /// Freezes the active map. There must be no frozen one.
    pub(super) fn freeze(&mut self) {
        assert!(self.frozen.is_none(), "a table is frozen only after the one before it was moved");
        self.frozen = Some(Arc::new(std::mem::take(&mut self.active)));
    }

    /// The frozen map.
    pub(super) fn frozen(&self) -> Option<Arc<Entries>> {
        self.frozen.clone()
    }

    /// Lets go of the frozen map, which the table now holds; the caller drops it outside its lock.
    #[must_use]
    pub(super) fn thaw(&mut self) -> Option<Arc<Entries>> {
        self.frozen.take()
    }

    /// At most `limit` entries with `from <= key < to`, ascending, and whether these are all.
    pub(super) fn range(&self, from: &[u8], to: &[u8], limit: usize) -> (Vec<(Bytes, Option<Bytes>)>, bool) {
        static NOTHING: Entries = Entries::new();
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let frozen = self.frozen.as_deref().unwrap_or(&NOTHING);
        let mut merged = Merged {
            newer: self.active.range::<[u8], _>(bounds).peekable(),
            older: frozen.range::<[u8], _>(bounds).peekable(),
        };
        let entries = merged.by_ref().take(limit).map(|(key, value)| (key.clone(), value.clone())).collect();
        let complete = merged.next().is_none();
        (entries, complete)
    }
}

/// The smallest key above `key`.
pub(super) fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// Everything in a map as batches of a moderate size, in the order of the keys.
pub(super) fn batches(entries: &Entries) -> impl Iterator<Item = Batch> {
    let mut entries = entries.iter().peekable();
    std::iter::from_fn(move || {
        entries.peek()?;
        let (mut batch, mut bytes) = (Batch::new(), 0);
        while bytes < MOVE_BYTES && batch.writes().len() < MOVE_WRITES {
            match entries.next() {
                Some((key, Some(value))) => {
                    bytes += key.len() + value.len();
                    batch.put(key.clone(), value.clone());
                }
                Some((key, None)) => batch.delete(key.clone()),
                None => break,
            }
        }
        Some(batch)
    })
}

/// Both maps in order; of a key that is in both, the newer state.
struct Merged<'a> {
    newer: Peekable<btree_map::Range<'a, Bytes, Option<Bytes>>>,
    older: Peekable<btree_map::Range<'a, Bytes, Option<Bytes>>>,
}

impl<'a> Iterator for Merged<'a> {
    type Item = (&'a Bytes, &'a Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        let Some((key, _)) = self.newer.peek() else { return self.older.next() };
        if let Some(older) = self.older.next_if(|(older, _)| older < key) {
            return Some(older);
        }
        self.older.next_if(|(older, _)| older == key);
        self.newer.next()
    }
}
