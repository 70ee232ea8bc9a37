//! A peer's secret key, and the file it lives in.
//!
//! The file is text: a header, the secret seed, and the peer id that follows from it, by which damage is
//! noticed. It is never written again: a peer that silently got a new key would lose its membership and its
//! name. The secret is wiped from memory when it is dropped, and never shown by `Debug`.
//!
//! There is no passphrase; whoever reads the file is the peer.

use std::fmt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

use super::secret_file::{self, SecretFileError};
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
        load(path)?.ok_or_else(|| KeyFileError::damaged(path, "it is gone as soon as it was made"))
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
    /// It could not be read or made, or others can read it.
    #[error(transparent)]
    File(#[from] SecretFileError),
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
    fn damaged(path: &Path, why: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), why }
    }
}

impl From<KeyFileError> for crate::Error {
    fn from(error: KeyFileError) -> Self {
        match error {
            KeyFileError::File(error) => error.into(),
            KeyFileError::Damaged { .. } => Self::Corrupt(error.to_string()),
        }
    }
}

/// Reads the key file, `None` when there is none.
fn load(path: &Path) -> Result<Option<Keypair>, KeyFileError> {
    let Some(bytes) = secret_file::read(path, FILE_BYTES_MAX)? else { return Ok(None) };
    parse(&bytes).map(Some).map_err(|why| KeyFileError::damaged(path, why))
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

/// Creates the key file unless there is one.
fn create(path: &Path, keypair: &Keypair) -> Result<(), KeyFileError> {
    let secret = Zeroizing::new(data_encoding::HEXLOWER.encode(&*keypair.seed()));
    let text = Zeroizing::new(format!("{HEADER}\nsecret {}\npeer {}\n", *secret, keypair.peer));
    Ok(secret_file::create(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
