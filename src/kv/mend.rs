//! Building a damaged table anew from what of it can be read.
//!
//! ```text
//! table/            the damaged one, read leaf by leaf (see `leaves`)
//! table.mending/    the new one while it is filled; one that is found at a start is thrown away, and filled again
//! table.mended/     the new one once it is complete and synced: from here on it takes the place of the other
//! table.damaged/    the damaged one afterwards, the latest only: for whoever wants to look at it
//! ```
//!
//! A crash at any moment leads to the same table. What could not be read is written into it, see [`Lost`], so that the
//! store above knows what to look for, and does whenever it is opened until it has looked. What is precious is put back
//! from its second copy, see `keepsake`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::entry::Entry;
use super::leaves::{Bounds, Leaves, Pair};
use super::medium::sync_folder;
use super::memtable::{Entries, successor};
use super::{Batch, Error};
use crate::base::{DecodeError, Reader, Writer};
use crate::limits::LOST_RANGES_MAX;

/// Bytes after which what was salvaged is given on.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of a key in the table, at most.
const KEY_BYTES_MAX: usize = 64 << 10;

/// What a store may be without, by ranges of keys. It stands in the store itself under [`Lost::KEY`] until
/// somebody has looked for what is missing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Pages that the table had.
    pub pages: u64,
    /// Those of them that could not be read.
    pub pages_lost: u64,
    /// Where entries may be missing, `from <= key < to`, ascending; an empty `to` is the end.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Lost {
    /// Where it stands.
    pub const KEY: &'static [u8] = b"\0lost";

    /// Any entry may be missing.
    #[must_use]
    pub fn anything() -> Self {
        Self { ranges: vec![(Vec::new(), Vec::new())], ..Self::default() }
    }

    /// Any entry with `from <= key < to` may be missing.
    #[cfg(test)]
    pub(crate) fn between(from: Vec<u8>, to: Vec<u8>) -> Self {
        Self { ranges: vec![(from, to)], pages: 1, pages_lost: 1 }
    }

    /// The ranges, `from <= key < to`, ascending; an empty `to` is the end.
    #[must_use]
    pub fn ranges(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.ranges
    }

    /// Whether an entry under this key may be missing.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        let at = self.ranges.partition_point(|(from, _)| from.as_slice() <= key);
        at.checked_sub(1).is_some_and(|at| self.ranges[at].1.is_empty() || key < self.ranges[at].1.as_slice())
    }

    /// Whether an entry with `from <= key < to` may be missing.
    #[must_use]
    pub fn touches(&self, from: &[u8], to: &[u8]) -> bool {
        self.ranges.iter().any(|(start, end)| start.as_slice() < to && (end.is_empty() || from < end.as_slice()))
    }

    /// Adds a range behind all others.
    fn add(&mut self, from: Vec<u8>, to: Vec<u8>) {
        let is_full = self.ranges.len() >= LOST_RANGES_MAX;
        match self.ranges.last_mut() {
            Some((_, end)) if end.is_empty() => {}
            // Of too many to tell apart the last ones are one range.
            Some((_, end)) if *end >= from || is_full => {
                *end = if to.is_empty() { to } else { to.max(std::mem::take(end)) };
            }
            Some(_) | None => self.ranges.push((from, to)),
        }
    }

    /// The same with everything that `other` is without.
    fn with(mut self, other: &Self) -> Self {
        if !other.ranges.is_empty() {
            let mut all = [std::mem::take(&mut self.ranges), other.ranges.clone()].concat();
            all.sort();
            all.into_iter().for_each(|(from, to)| self.add(from, to));
        }
        self
    }

    /// As it is stored.
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(1).varint(self.pages).varint(self.pages_lost);
        writer.list(&self.ranges, |writer, (from, to)| _ = writer.bytes(from).bytes(to));
        let mut bytes = writer.finish();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// The batch that stores it.
    #[must_use]
    pub fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        batch.put(Self::KEY, self.encode());
        batch
    }

    /// Reads what is stored under [`Lost::KEY`]. When that is damaged, anything may be missing.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        Self::parse(bytes).unwrap_or_else(|_| Self::anything())
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (body, crc) = bytes.split_last_chunk().ok_or(DecodeError::Truncated)?;
        if crc32fast::hash(body).to_le_bytes() != *crc {
            return Err(DecodeError::Rule("its checksum does not match".into()));
        }
        let mut reader = Reader::new(body);
        reader.version("lost ranges", 1)?;
        let (pages, pages_lost) = (reader.varint()?, reader.varint()?);
        let bytes = |r: &mut Reader<'_>| r.bytes("key", KEY_BYTES_MAX).map(<[u8]>::to_vec);
        let ranges = reader.list("ranges", LOST_RANGES_MAX, |r| Ok((bytes(r)?, bytes(r)?)))?;
        reader.finish()?;
        Ok(Self { pages, pages_lost, ranges })
    }
}

/// Reads a value of a damaged table.
///
/// # Errors
/// [`Error::Unreadable`] when it is in a leaf that cannot be read, or may be.
pub(super) fn get(leaves: &Leaves, key: &[u8]) -> Result<Option<Bytes>, Error> {
    let (bounds, pairs) = leaves.around(key);
    let pairs = pairs.ok_or_else(|| unreadable(&bounds))?;
    match pairs.into_iter().find(|(found, _)| found == key) {
        Some(pair) => value(leaves, &pair).map(Some).ok_or_else(|| unreadable(&bounds)),
        None if leaves.is_listed() => Ok(None),
        None => Err(unreadable(&bounds)),
    }
}

/// The pairs of the leaf of a damaged table in which `from` would be, from there on, and where the next one starts.
///
/// # Errors
/// [`Error::Unreadable`] when it cannot be read.
pub(super) fn entries(leaves: &Leaves, from: &[u8]) -> Result<(Vec<Pair>, Option<Vec<u8>>), Error> {
    let (bounds, pairs) = leaves.around(from);
    let mut pairs = pairs.filter(|_| leaves.is_listed()).ok_or_else(|| unreadable(&bounds))?;
    pairs.retain(|(key, _)| key.as_slice() >= from);
    Ok((pairs, bounds.to))
}

fn unreadable(bounds: &Bounds) -> Error {
    let end = bounds.to.as_deref().map_or("the end".into(), |to| data_encoding::HEXLOWER.encode(to));
    Error::Unreadable(format!("its page from {} to {end} is damaged", data_encoding::HEXLOWER.encode(&bounds.from)))
}

/// The value of an entry, when all of it is intact.
fn value(leaves: &Leaves, (key, entry): &Pair) -> Option<Bytes> {
    match Entry::decode(key, entry).ok()? {
        Entry::Inline(value) => Some(Bytes::copy_from_slice(value)),
        Entry::Chunked(name) => {
            let mut value = Vec::new();
            for index in 0..name.chunks() {
                value.extend_from_slice(&leaves.chunk(&name.chunk_key(index))?);
            }
            (super::entry::ChunkName::of(key, &value) == name).then(|| value.into())
        }
    }
}

/// Gives everything that can be read to `put`, in the order of keys, and says what cannot. `done` counts leaves.
///
/// # Errors
/// Those of `put`.
pub(super) fn salvage(
    leaves: &Leaves,
    done: &AtomicU64,
    put: &mut dyn FnMut(&Entries) -> Result<(), Error>,
) -> Result<Lost, Error> {
    let mut lost = Lost { pages: leaves.count(), ..Lost::default() };
    let mut before = Lost::default();
    let (mut entries, mut bytes) = (Entries::new(), 0);
    for (bounds, pairs) in leaves.iter() {
        done.fetch_add(1, Ordering::Relaxed);
        let Some(pairs) = pairs else {
            lost.pages_lost += 1;
            lost.add(bounds.from, bounds.to.unwrap_or_default());
            continue;
        };
        for pair in pairs {
            // What reaches into the next leaf is older than that one.
            if bounds.to.as_ref().is_some_and(|to| pair.0 >= *to) {
                continue;
            }
            let Some(value) = value(leaves, &pair) else {
                lost.add(pair.0.clone(), successor(&pair.0));
                continue;
            };
            if pair.0 == Lost::KEY {
                before = Lost::decode(&value);
                continue;
            }
            bytes += pair.0.len() + value.len();
            entries.insert(pair.0.into(), Some(value));
        }
        if bytes >= BATCH_BYTES {
            put(&std::mem::take(&mut entries))?;
            bytes = 0;
        }
    }
    put(&entries)?;
    if !leaves.is_listed() {
        lost.ranges = Lost::anything().ranges;
    }
    Ok(lost.with(&before))
}

/// Where the table is built anew.
pub(super) fn place(folder: &Path) -> PathBuf {
    folder.with_extension("mending")
}

/// Where the damaged table is put.
pub(super) fn aside(folder: &Path) -> PathBuf {
    folder.with_extension("damaged")
}

/// Puts the table that was built at [`place`] in the place of the damaged one, which is set aside. It must be synced.
///
/// # Errors
/// When the system refuses.
pub(super) fn replace(folder: &Path) -> Result<(), Error> {
    let complete = folder.with_extension("mended");
    fs::rename(place(folder), &complete).map_err(moving(folder))?;
    folder.parent().map_or(Ok(()), sync_folder)?;
    settle(folder)
}

/// Goes on where a crash interrupted [`replace`].
///
/// # Errors
/// When the system refuses.
pub(super) fn settle(folder: &Path) -> Result<(), Error> {
    let (complete, aside) = (folder.with_extension("mended"), aside(folder));
    if !complete.exists() {
        return Ok(());
    }
    if folder.exists() {
        remove(&aside)?;
        fs::rename(folder, &aside).map_err(moving(folder))?;
    }
    fs::rename(&complete, folder).map_err(moving(folder))?;
    folder.parent().map_or(Ok(()), sync_folder)
}

/// Removes a folder with what is in it, if it is there.
///
/// # Errors
/// When the system refuses.
pub(super) fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", folder.display()), &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn moving(folder: &Path) -> impl Fn(std::io::Error) -> Error + use<> {
    let folder = folder.to_owned();
    move |error| Error::io(format!("moving {} into its place", folder.display()), &error)
}
