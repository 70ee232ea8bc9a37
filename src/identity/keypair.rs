//! A peer's secret key, and the file it lives in.
//!
//! The file is text: a header, the secret seed, and the peer id that follows from it, by which damage is
//! noticed. It is created as a whole or not at all, readable by its owner only, and never written again: a
//! peer that silently got a new key would lose its membership and its name. The secret is wiped from memory
//! when it is dropped, and never shown by `Debug`.
//!
//! There is no passphrase; whoever reads the file is the peer.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

use super::signed::{Signature, message};
use crate::base::PeerId;

/// The first line of a key file.
const HEADER: &str = "aerolithsdb identity 1";
/// Bytes of a key file: three times what it needs.
const FILE_BYTES_MAX: u64 = 512;

/// An Ed25519 key pair: who this peer is.
#[derive(Clone)]
pub struct Keypair {
    // Wipes itself when dropped (the `zeroize` feature of ed25519-dalek).
    secret: SigningKey,
    peer: PeerId,
}

impl Keypair {
    /// The key pair of a secret seed (32 random bytes).
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let secret = SigningKey::from_bytes(&seed);
        let peer = PeerId(secret.verifying_key().to_bytes());
        Self { secret, peer }
    }

    /// The public half.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Signs `bytes` as a record of the kind `domain`.
    #[must_use]
    pub fn sign(&self, domain: &str, bytes: &[u8]) -> Signature {
        Signature(self.secret.sign(&message(domain, bytes)).to_bytes())
    }

    /// The secret itself, from which libp2p's driver builds the same identity.
    ///
    /// **Whoever has these bytes is this peer, for good.** They must not be logged, sent or stored; there is
    /// no way to take them back but a new identity.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Reads the key file at `path`, or creates it from `fresh_seed` (32 random bytes) where there is none.
    /// Missing folders are created. When another process creates the file at the same time, its key is used.
    ///
    /// # Errors
    /// When the file is readable by others or damaged, or cannot be read or created. It is then left as it is.
    pub fn load_or_create(path: &Path, fresh_seed: [u8; 32]) -> Result<Self, KeyFileError> {
        let fresh = Self::from_seed(fresh_seed);
        if let Some(found) = load(path)? {
            return Ok(found);
        }
        create(path, &fresh)?;
        // Read back what the disk has: it is another process's key if that one was first.
        load(path)?.ok_or_else(|| KeyFileError::io(path, "read back", &io::ErrorKind::NotFound.into()))
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({}, secret hidden)", self.peer)
    }
}

/// Why a key file could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("cannot {action} the key file {}: {message}", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        message: String,
    },
    /// Others than its owner can read or write the file.
    #[error(
        "the key file {} is open to other users (mode {mode:o}): run `chmod 600` on it, or, if somebody may have \
         read it, move it away to start with a new identity", path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold a key.
    #[error(
        "the key file {} is damaged ({why}): restore it from a backup, or move it away to start with a new \
         identity, which must then be invited again", path.display()
    )]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it; never a part of the secret.
        why: &'static str,
    },
}

impl KeyFileError {
    fn io(path: &Path, action: &'static str, error: &io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, message: error.to_string() }
    }

    fn damaged(path: &Path, why: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), why }
    }
}

impl From<KeyFileError> for crate::Error {
    fn from(error: KeyFileError) -> Self {
        let text = error.to_string();
        match error {
            KeyFileError::Io { .. } | KeyFileError::Exposed { .. } => Self::Io(text),
            KeyFileError::Damaged { .. } => Self::Corrupt(text),
        }
    }
}

/// Reads the key file, `None` when there is none.
fn load(path: &Path) -> Result<Option<Keypair>, KeyFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KeyFileError::io(path, "open", &error)),
    };
    // Asked of the open file, so that it is the one that is read.
    let metadata = file.metadata().map_err(|error| KeyFileError::io(path, "inspect", &error))?;
    if !metadata.is_file() {
        return Err(KeyFileError::damaged(path, "it is not a regular file"));
    }
    check_permissions(path, &metadata)?;
    // Reserved at once: a buffer that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| KeyFileError::io(path, "read", &error))?;
    parse(&bytes).map(Some).map_err(|why| KeyFileError::damaged(path, why))
}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt;

    match metadata.permissions().mode() & 0o7777 {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => Err(KeyFileError::Exposed { path: path.to_owned(), mode }),
    }
}

#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &fs::Metadata) -> Result<(), KeyFileError> {
    Ok(())
}

fn parse(bytes: &[u8]) -> Result<Keypair, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let mut lines = text.strip_suffix('\n').ok_or("its end is missing")?.split('\n');
    if lines.next() != Some(HEADER) {
        return Err("it does not begin with \"aerolithsdb identity 1\"");
    }
    let secret = lines.next().and_then(|line| line.strip_prefix("secret ")).ok_or("the secret is missing")?;
    let peer = lines.next().and_then(|line| line.strip_prefix("peer ")).ok_or("the peer id is missing")?;
    if lines.next().is_some() {
        return Err("there is more in it than a key");
    }
    let secret =
        Zeroizing::new(data_encoding::HEXLOWER.decode(secret.as_bytes()).map_err(|_| "the secret is not hex")?);
    let seed = secret.as_slice().try_into().map_err(|_| "the secret does not have 32 bytes")?;
    let keypair = Keypair::from_seed(seed);
    if peer.parse() != Ok(keypair.peer) {
        return Err("the secret does not belong to the peer id");
    }
    Ok(keypair)
}

/// Creates the key file unless there is one, as a whole: written beside, synced, then given its name.
fn create(path: &Path, keypair: &Keypair) -> Result<(), KeyFileError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|error| KeyFileError::io(path, "create the folder of", &error))?;
    let mut temporary = path.as_os_str().to_owned();
    // Named by the random public key, so that neither another process nor a crash is in the way.
    temporary.push(format!(".{}.tmp", keypair.peer));
    let temporary = PathBuf::from(temporary);

    let created = write_new(&temporary, keypair).and_then(|()| give_name(&temporary, path));
    // Gone already after a rename; after an error it must not stay.
    let _ = fs::remove_file(&temporary);
    created.and_then(|()| sync_folder(folder)).map_err(|error| KeyFileError::io(path, "create", &error))
}

fn write_new(path: &Path, keypair: &Keypair) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let secret = Zeroizing::new(data_encoding::HEXLOWER.encode(&*keypair.seed()));
    let text = Zeroizing::new(format!("{HEADER}\nsecret {}\npeer {}\n", *secret, keypair.peer));
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
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
    fn the_identity_is_the_one_of_libp2p_and_debug_hides_the_secret() {
        let keypair = Keypair::from_seed([7; 32]);
        let libp2p = libp2p::identity::Keypair::ed25519_from_bytes(*keypair.seed()).unwrap();
        assert_eq!(keypair.peer_id().to_string(), libp2p.public().to_peer_id().to_string());
        let shown = format!("{keypair:?}");
        assert!(shown.contains("12D3Koo") && !shown.contains("0707") && !shown.contains("7, 7"), "{shown}");
    }

    #[test]
    fn a_key_file_is_created_once_and_read_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/identity.key");
        let first = Keypair::load_or_create(&path, [1; 32]).unwrap();
        let again = Keypair::load_or_create(&path, [2; 32]).unwrap();
        assert_eq!(first.peer_id(), Keypair::from_seed([1; 32]).peer_id());
        assert_eq!(again.peer_id(), first.peer_id());
        let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(files, ["identity.key"]);
    }

    #[test]
    fn of_two_creators_the_first_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        create(&path, &Keypair::from_seed([1; 32])).unwrap();
        create(&path, &Keypair::from_seed([2; 32])).unwrap();
        let found = Keypair::load_or_create(&path, [3; 32]).unwrap();
        assert_eq!(found.peer_id(), Keypair::from_seed([1; 32]).peer_id());
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        Keypair::load_or_create(&path, [1; 32]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keypair::load_or_create(&path, [1; 32]).unwrap_err();
        assert!(matches!(error, KeyFileError::Exposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(matches!(crate::Error::from(error), crate::Error::Io(_)));
    }

    #[test]
    fn a_damaged_key_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        Keypair::load_or_create(&path, [1; 32]).unwrap();
        let good = fs::read(&path).unwrap();
        let secret = HEADER.len() + 1 + "secret ".len();

        let mut changed = good.clone();
        changed[secret] = if changed[secret] == b'0' { b'1' } else { b'0' };
        let twice = [good.clone(), good.clone()].concat();
        let damages: [&[u8]; 7] =
            [b"", b"hello\n", b"\xff\xfe", &good[..secret], &good[..good.len() - 1], &changed, &twice];
        for damage in damages {
            fs::write(&path, damage).unwrap();
            let error = Keypair::load_or_create(&path, [1; 32]).unwrap_err();
            assert!(matches!(error, KeyFileError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("restore it from a backup"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damage);
        }
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Keypair::load_or_create(folder.path(), [1; 32]).is_err());
    }
}
