//! The store of a peer: a directory on a real disk, checked, locked, and opened.
//!
//! ```text
//! <directory>/FORMAT     the version of everything in it
//! <directory>/LOCK       locked by the process that has it open
//! <directory>/journal/   the commit journal
//! <directory>/table/     sled
//! <directory>/table.*    second copies, and what is there when the table was damaged: see `keepsake` and `mend`
//! ```
//!
//! Nothing is written to a directory that holds anything else. Not here: what is stored, and upgrades of older
//! formats (there are none yet).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::medium::sync_folder;
use super::{Damage, Durability, Error, FolderMedium, JournalConfig, Journaled, Precious, SledConfig, SledKv};
use crate::memory::Memory;

/// Version of the directory's layout and of everything in it.
const FORMAT: u64 = 2;
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_FILE_NEW: &str = "FORMAT.new";
const FORMAT_PREFIX: &str = "aerolithsdb storage ";
const LOCK_FILE: &str = "LOCK";

/// The store of a peer.
pub type Disk = Journaled<SledKv>;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// What may be in memory.
    pub memory: Memory,
    /// When a flush returns.
    pub durability: Durability,
    /// What a second copy is kept of; `None` for nothing.
    pub precious: Option<Precious>,
}

impl Default for StorageConfig {
    /// The usual memory, durable, without second copies.
    fn default() -> Self {
        Self { memory: Memory::default(), durability: Durability::Durable, precious: None }
    }
}

/// Opens the store in `directory`, and makes it when it is missing or empty. Returns it with what was found
/// damaged; the rest is there. The directory stays locked for as long as the store lives.
///
/// # Errors
/// [`Error::Locked`] when a process has it open, [`Error::Foreign`] when it holds something else,
/// [`Error::OtherFormat`] when another version wrote it, [`Error::Io`] when it cannot be read or written,
/// [`Error::Corrupt`] when the table cannot be opened.
pub fn open(directory: &Path, config: &StorageConfig) -> Result<(Disk, Vec<Damage>), Error> {
    fs::create_dir_all(directory).map_err(|error| unusable(directory, &error))?;
    check_format(directory)?;
    let lock = lock(directory)?;
    // Once more under the lock: another process may just have made it.
    if !check_format(directory)? {
        write_format(directory)?;
    }
    let table = SledKv::open(directory.join("table"), SledConfig { memory: config.memory, precious: config.precious })?;
    let segment_bytes = config.memory.segment_bytes();
    let medium = FolderMedium::open(directory.join("journal"), segment_bytes as u64, Some(lock))?;
    let journal = JournalConfig { durability: config.durability, segment_bytes, ..JournalConfig::new(salt()?) };
    Journaled::open(table, Box::new(medium), journal)
}

/// Whether the directory has a format file that this build can read; an empty one has none.
fn check_format(directory: &Path) -> Result<bool, Error> {
    let path = directory.join(FORMAT_FILE);
    let foreign = |found: &str| Error::Foreign { path: directory.to_owned(), found: found.to_owned() };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return first_entry(directory)?.map_or(Ok(false), |found| Err(foreign(&found)));
        }
        Err(error) => return Err(unusable(directory, &error)),
    };
    let text = str::from_utf8(&text).ok().and_then(|text| text.trim_end().strip_prefix(FORMAT_PREFIX));
    match text.and_then(|version| version.parse().ok()) {
        Some(FORMAT) => Ok(true),
        Some(found) => Err(Error::OtherFormat { path: directory.to_owned(), found, supported: FORMAT }),
        None => Err(foreign(FORMAT_FILE)),
    }
}

/// The first entry that opening a store does not make before its format file.
fn first_entry(directory: &Path) -> Result<Option<String>, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unusable(directory, &error))? {
        let name = entry.map_err(|error| unusable(directory, &error))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names.into_iter().find(|name| name != LOCK_FILE && name != FORMAT_FILE_NEW))
}

fn write_format(directory: &Path) -> Result<(), Error> {
    let (new, path) = (directory.join(FORMAT_FILE_NEW), directory.join(FORMAT_FILE));
    let write = || {
        let mut file = File::create(&new)?;
        writeln!(file, "{FORMAT_PREFIX}{FORMAT}")?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(|error| unusable(directory, &error))?;
    sync_folder(directory)
}

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    let file = file.map_err(|error| unusable(directory, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(directory, &error)),
    }
}

fn unusable(directory: &Path, error: &std::io::Error) -> Error {
    let context = format!("cannot use the data directory {}; check its path and permissions", directory.display());
    Error::io(context, error)
}

fn salt() -> Result<u32, Error> {
    getrandom::u32().map_err(|error| Error::io("reading randomness", &std::io::Error::other(error)))
}
