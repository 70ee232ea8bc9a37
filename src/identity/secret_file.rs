//! Files that hold a secret: made as a whole or not at all, readable by their owner only, and never written again.
//!
//! What is in one is its owner's matter; here is only how it comes onto the disk and off it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file with a secret could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretFileError {
    /// The operating system refused.
    #[error("cannot {action} the secret file {}: {message}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        message: String,
    },
    /// Others than its owner can read or write the file.
    #[error(
        "the secret file {} is open to other users (mode {mode:o}): run `chmod 600` on it, or, if somebody may have \
         read it, move it away so that a new one is made", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A folder or a device stands there.
    #[error("{} is to hold a secret, but it is not a regular file", path.display())]
    Irregular {
        /// What stands there.
        path: PathBuf,
    },
}

impl SecretFileError {
    fn io(path: &Path, action: &'static str, error: &io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, message: error.to_string() }
    }
}

impl From<SecretFileError> for crate::Error {
    fn from(error: SecretFileError) -> Self {
        Self::Io(error.to_string())
    }
}

/// Reads a file, `None` when there is none. Of one that is longer than `bytes_max`, one byte more than that.
///
/// # Errors
/// When others can read or write it, or the system refuses.
pub fn read(path: &Path, bytes_max: u64) -> Result<Option<Zeroizing<Vec<u8>>>, SecretFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SecretFileError::io(path, "open", &error)),
    };
    // Asked of the open file, so that it is the one that is read.
    let metadata = file.metadata().map_err(|error| SecretFileError::io(path, "inspect", &error))?;
    if !metadata.is_file() {
        return Err(SecretFileError::Irregular { path: path.to_owned() });
    }
    check_permissions(path, &metadata)?;
    // Reserved at once: a buffer that grows leaves copies of the secret behind.
    let capacity = usize::try_from(bytes_max).unwrap_or_default().saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| SecretFileError::io(path, "read", &error))?;
    Ok(Some(bytes))
}

/// Creates a file unless there is one: written beside, synced, then given its name. Missing folders are created.
/// When another process is first, its file stays: read it back.
///
/// # Errors
/// When the system refuses.
pub fn create(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|error| SecretFileError::io(path, "create the folder of", &error))?;
    let mut temporary = path.as_os_str().to_owned();
    // Named by what is in it, so that neither another process nor a crash is in the way. A hash tells nothing of
    // a secret that was drawn at random.
    temporary.push(format!(".{}.tmp", blake3::hash(bytes).to_hex()));
    let temporary = PathBuf::from(temporary);

    let created = write_new(&temporary, bytes).and_then(|()| give_name(&temporary, path));
    // Gone already after a rename; after an error it must not stay.
    let _ = fs::remove_file(&temporary);
    created.and_then(|()| sync_folder(folder)).map_err(|error| SecretFileError::io(path, "create", &error))
}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &fs::Metadata) -> Result<(), SecretFileError> {
    use std::os::unix::fs::PermissionsExt;

    match metadata.permissions().mode() & 0o7777 {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => Err(SecretFileError::Exposed { path: path.to_owned(), mode }),
    }
}

#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &fs::Metadata) -> Result<(), SecretFileError> {
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives the finished file its name. A hard link fails where a file is already, a rename would replace it;
/// the rename is for file systems without links.
fn give_name(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::rename(temporary, path),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_creators_the_first_wins_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/secret");
        create(&path, b"first").unwrap();
        create(&path, b"second").unwrap();
        assert_eq!(**read(&path, 100).unwrap().unwrap(), *b"first");
        assert_eq!(**read(&path, 3).unwrap().unwrap(), *b"firs");
        let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(files, ["secret"]);
        assert_eq!(read(&folder.path().join("none"), 100), Ok(None));
        assert!(matches!(read(folder.path(), 100), Err(SecretFileError::Irregular { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, b"x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&path, 100).unwrap_err();
        assert!(matches!(error, SecretFileError::Exposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(matches!(crate::Error::from(error), crate::Error::Io(_)));
    }
}
