//! A second copy of the few entries that nothing can replace: what the mesh is, who is a member, who wrote under which
//! number, what indexes there are. It is a small file beside the table, so that no damage to the table takes both.
//!
//! The file is a list of keys and values in the canonical encoding behind a version and a CRC-32, and is written anew
//! when something in it changed, before the table is flushed: whatever left the journal is in both. Which entries are
//! precious follows from the first two bytes of their keys.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::medium::sync_folder;
use super::memtable::Entries;
use super::{Batch, Error, Kv};
use crate::base::{DecodeError, Reader, Writer};
use crate::limits::BATCH_BYTES_MAX;

const VERSION: u8 = 1;

/// Whether entries are precious whose keys begin with these two bytes.
pub type Precious = fn([u8; 2]) -> bool;

/// The copy.
#[derive(Debug)]
pub(super) struct Keepsake {
    path: PathBuf,
    precious: Precious,
    entries: BTreeMap<Bytes, Bytes>,
    changed: bool,
}

impl Keepsake {
    /// Reads the copy; `None` when there is none that is intact.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn load(path: &Path, precious: Precious) -> Result<Option<Self>, Error> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("reading {}", path.display()), &error)),
        };
        match decode(&bytes) {
            Ok(entries) => Ok(Some(Self { path: path.to_owned(), precious, entries, changed: false })),
            Err(error) => {
                tracing::warn!(%error, "{} is damaged; it is made anew", path.display());
                Ok(None)
            }
        }
    }

    /// A copy of what is precious in a store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn of(path: &Path, precious: Precious, kv: &dyn Kv) -> Result<Self, Error> {
        let mut copy = Self { path: path.to_owned(), precious, entries: BTreeMap::new(), changed: true };
        let mut from = Some(Vec::new());
        while let Some(start) = from.take() {
            kv.scan(&start, &[0xff; 8], &mut |key, value| {
                match class(key) {
                    Some(class) if precious(class) => {
                        copy.entries.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                        ControlFlow::Continue(())
                    }
                    // All that begin with these two bytes are left out.
                    Some(class) => {
                        from = u16::from_be_bytes(class).checked_add(1).map(|next| next.to_be_bytes().to_vec());
                        ControlFlow::Break(())
                    }
                    None => ControlFlow::Continue(()),
                }
            })?;
        }
        Ok(copy)
    }

    /// Takes note of a batch that goes into the table.
    pub(super) fn note(&mut self, batch: &Batch) {
        for (key, value) in batch.writes() {
            if !class(key).is_some_and(self.precious) {
                continue;
            }
            self.changed |= match value {
                Some(value) => self.entries.insert(key.clone(), value.clone()).as_ref() != Some(value),
                None => self.entries.remove(key).is_some(),
            };
        }
    }

    /// Writes what changed, durably.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn save(&mut self) -> Result<(), Error> {
        if !self.changed {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&encode(&self.entries))?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|error| Error::io(format!("writing {}", self.path.display()), &error))?;
        self.path.parent().map_or(Ok(()), sync_folder)?;
        self.changed = false;
        Ok(())
    }

    /// Everything in it.
    pub(super) fn entries(&self) -> Entries {
        self.entries.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
    }
}

fn class(key: &[u8]) -> Option<[u8; 2]> {
    key.first_chunk().copied()
}

fn encode(entries: &BTreeMap<Bytes, Bytes>) -> Vec<u8> {
    let mut writer = Writer::new();
    let entries: Vec<_> = entries.iter().collect();
    writer.u8(VERSION).list(&entries, |writer, (key, value)| _ = writer.bytes(key).bytes(value));
    let mut bytes = writer.finish();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<Bytes, Bytes>, DecodeError> {
    let (body, crc) = bytes.split_last_chunk().ok_or(DecodeError::Truncated)?;
    if crc32fast::hash(body).to_le_bytes() != *crc {
        return Err(DecodeError::Rule("its checksum does not match".into()));
    }
    let mut reader = Reader::new(body);
    reader.version("copy of what is precious", VERSION)?;
    let count: usize = reader.int()?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let key = Bytes::copy_from_slice(reader.bytes("key", BATCH_BYTES_MAX)?);
        entries.insert(key, Bytes::copy_from_slice(reader.bytes("value", BATCH_BYTES_MAX)?));
    }
    reader.finish()?;
    Ok(entries)
}
