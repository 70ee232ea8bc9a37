//! Where the journal's segments live: a folder of files, or a simulated disk (see `faulty`).
//!
//! A medium stores bytes and says when they are durable; it knows nothing of what they mean. There is one
//! writer: of one segment, `append`, `sync` and `truncate` never run beside each other.
//!
//! Files are extended to their expected size when they are made (without writing it), so that syncing
//! an append need not make a new file length durable too: measured 104-143 us instead of 165-205 us an
//! append of 256-2048 bytes with fdatasync. What was not written yet reads as zeros.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;

/// The file that names the newest segment, with a checksum.
const NEWEST_FILE: &str = "newest";
const NEWEST_FILE_NEW: &str = "newest.new";

/// Numbered append-only segments with explicit durability.
pub trait Medium: Send + Sync + fmt::Debug {
    /// The numbers of the segments that exist, ascending.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn segments(&self) -> Result<Vec<u64>, Error>;

    /// Makes a segment that holds `header`. It is durable, its name too, when this returns.
    ///
    /// # Errors
    /// When the segment exists or the medium refuses.
    fn create(&self, segment: u64, header: &[u8]) -> Result<(), Error>;

    /// Appends to the segment that was created last.
    ///
    /// # Errors
    /// When the medium refuses; any part of `bytes` may then have been written.
    fn append(&self, segment: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// When the medium refuses; nobody then knows what is durable, and trying again proves nothing.
    fn sync(&self, segment: u64) -> Result<(), Error>;

    /// The bytes of a segment, possibly followed by zeros that were never written.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn read(&self, segment: u64) -> Result<Vec<u8>, Error>;

    /// Cuts a segment to `length` bytes, durably.
    ///
    /// # Errors
    /// When the medium refuses.
    fn truncate(&self, segment: u64, length: u64) -> Result<(), Error>;

    /// Removes a segment. It stays removed after a power loss when this has returned.
    ///
    /// # Errors
    /// When the medium refuses.
    fn remove(&self, segment: u64) -> Result<(), Error>;

    /// The segment that [`Medium::set_newest`] named last: when it is not there, it was lost. `None` when nobody knows.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn newest(&self) -> Result<Option<u64>, Error>;

    /// Takes note, durably and apart from the segments, of which one was created last.
    ///
    /// # Errors
    /// When the medium refuses.
    fn set_newest(&self, segment: u64) -> Result<(), Error>;

    /// Bytes taken by all segments, about.
    fn size_bytes(&self) -> u64;

    /// Bytes that are free; `None` when nobody knows.
    fn free_bytes(&self) -> Option<u64>;
}

/// Segments as files `NNNNNNNNNNNN.log` in one folder, beside one that names the newest.
#[derive(Debug)]
pub struct FolderMedium {
    folder: PathBuf,
    /// Bytes that a new file is extended to.
    extent_bytes: u64,
    current: Mutex<Option<(u64, Arc<File>)>>,
    /// Kept for as long as the medium writes: the lock of the directory around it.
    lock: Option<File>,
}

impl FolderMedium {
    /// Opens a folder, and makes it when it is missing. New segments are extended to `extent_bytes`.
    /// `lock` is held until the medium is dropped.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>, extent_bytes: u64, lock: Option<File>) -> Result<Self, Error> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|error| Error::io(format!("making {}", folder.display()), &error))?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
        Ok(Self { folder, extent_bytes, current: Mutex::new(None), lock })
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:012}.log"))
    }

    fn current(&self, segment: u64) -> Option<Arc<File>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|(open, _)| *open == segment).map(|(_, file)| Arc::clone(file))
    }

    fn set_current(&self, current: Option<(u64, Arc<File>)>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    fn failed(&self, what: &str, segment: u64) -> impl FnOnce(std::io::Error) -> Error {
        let context = format!("{what} {}", self.path(segment).display());
        move |error| Error::io(context, &error)
    }
}

impl Medium for FolderMedium {
    fn segments(&self) -> Result<Vec<u64>, Error> {
        let failed = |error| Error::io(format!("listing {}", self.folder.display()), &error);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|name| name.parse::<u64>().ok());
            segments.extend(number);
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn create(&self, segment: u64, header: &[u8]) -> Result<(), Error> {
        let make = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(self.path(segment))?;
            file.set_len(self.extent_bytes.max(header.len() as u64))?;
            file.write_all(header)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(self.failed("making", segment))?;
        sync_folder(&self.folder)?;
        self.set_current(Some((segment, Arc::new(file))));
        Ok(())
    }

    fn append(&self, segment: u64, bytes: &[u8]) -> Result<(), Error> {
        let file = self.current(segment).expect("only the segment that was created last is appended to");
        (&*file).write_all(bytes).map_err(self.failed("writing", segment))
    }

    fn sync(&self, segment: u64) -> Result<(), Error> {
        let result = match self.current(segment) {
            Some(file) => file.sync_data(),
            None => OpenOptions::new().write(true).open(self.path(segment)).and_then(|file| file.sync_all()),
        };
        result.map_err(self.failed("syncing", segment))
    }

    fn read(&self, segment: u64) -> Result<Vec<u8>, Error> {
        fs::read(self.path(segment)).map_err(self.failed("reading", segment))
    }

    fn truncate(&self, segment: u64, length: u64) -> Result<(), Error> {
        let cut = || {
            let file = OpenOptions::new().write(true).open(self.path(segment))?;
            file.set_len(length)?;
            file.sync_all()
        };
        cut().map_err(self.failed("truncating", segment))
    }

    fn remove(&self, segment: u64) -> Result<(), Error> {
        fs::remove_file(self.path(segment)).map_err(self.failed("removing", segment))?;
        sync_folder(&self.folder)
    }

    fn newest(&self) -> Result<Option<u64>, Error> {
        let path = self.folder.join(NEWEST_FILE);
        match fs::read_to_string(&path) {
            // One that is damaged says nothing.
            Ok(text) => {
                Ok(text.split_whitespace().next().and_then(|n| n.parse().ok()).filter(|n| newest_text(*n) == text))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => Ok(None),
            Err(error) => Err(Error::io(format!("reading {}", path.display()), &error)),
        }
    }

    fn set_newest(&self, segment: u64) -> Result<(), Error> {
        let (path, new) = (self.folder.join(NEWEST_FILE), self.folder.join(NEWEST_FILE_NEW));
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(newest_text(segment).as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| Error::io(format!("writing {}", path.display()), &error))?;
        sync_folder(&self.folder)
    }

    fn size_bytes(&self) -> u64 {
        folder_size_bytes(&self.folder)
    }

    #[cfg(unix)]
    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.folder).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    #[cfg(not(unix))]
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

fn newest_text(segment: u64) -> String {
    format!("{segment} {:08x}\n", crc32fast::hash(&segment.to_le_bytes()))
}

impl Drop for FolderMedium {
    fn drop(&mut self) {
        // Closing alone leaves the lock to a process that was forked at this moment, until it executes its program.
        if let Some(lock) = &self.lock {
            let _ = lock.unlock();
        }
    }
}

/// Makes the names in a folder durable. Where folders cannot be opened (Windows) the system does that itself.
pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    // An empty parent is the working directory.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io(format!("syncing {}", folder.display()), &error))
}

/// Syncs every file and folder below a folder, and itself.
pub(super) fn sync_all(folder: &Path) -> Result<(), Error> {
    let failed = |error| Error::io(format!("syncing {}", folder.display()), &error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
    }
    sync_folder(folder)
}

/// Bytes of all files below a folder; files that vanish meanwhile count as nothing.
pub(super) fn folder_size_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_size_bytes(&entry.path()),
            Ok(data) => allocated_bytes(&data),
            Err(_) => 0,
        })
        .sum()
}

/// What a file really takes: segments are longer than what was written to them.
#[cfg(unix)]
fn allocated_bytes(data: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(data) * 512
}

#[cfg(not(unix))]
fn allocated_bytes(data: &fs::Metadata) -> u64 {
    data.len()
}
