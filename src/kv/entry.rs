//! How a value stands in the table: in its entry, or cut in chunks that have a tree of their own, see `sled`.
//!
//! An entry is a tag and the value, or a tag and the name of its chunks.

use super::Error;
use crate::base::{DecodeError, Reader, Writer};

/// Bytes up to which a value is in its entry, and bytes of a chunk: a leaf of chunks is 1 MiB at most.
pub(super) const CHUNK_BYTES: usize = 8 << 10;
const INLINE: u8 = 0;
const CHUNKED: u8 = 1;

/// What an entry says.
pub(super) enum Entry<'a> {
    /// The value.
    Inline(&'a [u8]),
    /// Where it is.
    Chunked(ChunkName),
}

impl<'a> Entry<'a> {
    /// # Errors
    /// [`Error::Corrupt`] when it says neither.
    pub(super) fn decode(key: &[u8], bytes: &'a [u8]) -> Result<Self, Error> {
        let decoded = match bytes.split_first() {
            Some((&INLINE, value)) => return Ok(Self::Inline(value)),
            Some((&CHUNKED, name)) => ChunkName::decode(name),
            Some((tag, _)) => Err(DecodeError::Unknown { what: "entry", value: u64::from(*tag) }),
            None => Err(DecodeError::Truncated),
        };
        let damaged = |error| Error::Corrupt(format!("the entry under {key:02x?} is damaged: {error}"));
        decoded.map(Self::Chunked).map_err(damaged)
    }

    /// As it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Inline(value) => [&[INLINE], *value].concat(),
            Self::Chunked(name) => name.entry(),
        }
    }
}

/// What the chunks of one value are called. It depends on key and content alone, so that writing the same again
/// changes nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChunkName {
    digest: [u8; 16],
    value_bytes: u64,
}

impl ChunkName {
    pub(super) fn of(key: &[u8], value: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
        let digest = *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes");
        Self { digest, value_bytes: value.len() as u64 }
    }

    pub(super) fn chunks(&self) -> u64 {
        self.value_bytes.div_ceil(CHUNK_BYTES as u64)
    }

    pub(super) fn chunk_key(&self, index: u64) -> [u8; 24] {
        let mut key = [0; 24];
        key[..16].copy_from_slice(&self.digest);
        key[16..].copy_from_slice(&index.to_be_bytes());
        key
    }

    /// The entry that refers to it.
    pub(super) fn entry(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(CHUNKED).fixed(&self.digest).varint(self.value_bytes);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let name = Self { digest: reader.fixed()?, value_bytes: reader.varint()? };
        reader.finish()?;
        Ok(name)
    }
}
