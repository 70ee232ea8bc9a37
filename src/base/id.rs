//! Identifiers. Each is a type of its own, so that one cannot stand where another belongs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Decode, DecodeError, Encode, Reader, Writer};
use crate::limits::{COLLECTION_NAME_BYTES_MAX, DOCUMENT_ID_BYTES_MAX};

/// Why a text is not an identifier of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub String);

impl From<InvalidId> for crate::Error {
    fn from(InvalidId(why): InvalidId) -> Self {
        Self::invalid(why)
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Encode for $name {
            fn encode(&self, writer: &mut Writer) {
                writer.fixed(&self.0);
            }
        }

        impl Decode for $name {
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.fixed().map(Self)
            }
        }
    };
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId(format!("{text:?} is not a {} of hexadecimal digits", stringify!($name)));
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| invalid())?;
                bytes.try_into().map(Self).map_err(|_| invalid())
            }
        }
    };
}

bytes_id!(
    /// A BLAKE3 hash of something (32 bytes).
    Hash, 32
);
hex_text!(Hash);
bytes_id!(
    /// A mesh: the hash of its signed genesis record.
    MeshId, 32
);
hex_text!(MeshId);
bytes_id!(
    /// The record that gives a peer its rights in a mesh, by hash.
    GrantId, 32
);
hex_text!(GrantId);
bytes_id!(
    /// An Automerge change: the SHA-256 of its chunk, as Automerge defines it.
    ChangeHash, 32
);
hex_text!(ChangeHash);
bytes_id!(
    /// An Automerge actor: derived from an author and one incarnation of its store, see [`ActorId::derive`].
    ActorId, 16
);
hex_text!(ActorId);
bytes_id!(
    /// One life of a store: drawn at random when it is created or restored from a backup, so that a
    /// sequence number is never used twice under one actor.
    Incarnation, 8
);
hex_text!(Incarnation);
/// The first bytes of an incarnation that signs nothing but what [`Incarnation::of_expiry`] says.
const EXPIRY_MARK: [u8; 4] = *b"\xffexp";

impl Incarnation {
    /// The incarnation under which a store in this one deletes documents that have expired, and keeps those that have
    /// not. Who sees such a delete knows that it says no more than that the document had expired by its author's clock.
    /// One drawn at random has its mark once in 4 billion.
    #[must_use]
    pub fn of_expiry(self) -> Self {
        let mut marked = self.0;
        marked.rotate_right(EXPIRY_MARK.len());
        marked[..EXPIRY_MARK.len()].copy_from_slice(&EXPIRY_MARK);
        Self(marked)
    }

    /// Whether it is the one of some store's expiry.
    #[must_use]
    pub fn is_of_expiry(&self) -> bool {
        self.0.starts_with(&EXPIRY_MARK)
    }
}

bytes_id!(
    /// A peer: its Ed25519 public key. Shown in the form libp2p gives it (`12D3Koo...`).
    PeerId, 32
);

impl ActorId {
    /// The actor under which `author` writes while its store lives as `incarnation`.
    #[must_use]
    pub fn derive(author: &PeerId, incarnation: &Incarnation) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("aerolithsdb 2026 automerge actor");
        hasher.update(&author.0).update(&incarnation.0);
        let mut actor = [0; 16];
        hasher.finalize_xof().fill(&mut actor);
        Self(actor)
    }
}

/// The libp2p encoding of an Ed25519 public key: an identity multihash over a protobuf with two fields.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = PEER_ID_PREFIX.to_vec();
        bytes.extend_from_slice(&self.0);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl FromStr for PeerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId(format!("{text:?} is not a peer id (they start with 12D3Koo)"));
        // A peer id has 52 characters; decoding takes quadratic time, so longer text is not even tried.
        if text.len() > 64 {
            return Err(invalid());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| invalid())?;
        let key = bytes.strip_prefix(&PEER_ID_PREFIX).ok_or_else(invalid)?;
        key.try_into().map(Self).map_err(|_| invalid())
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Encode for $name {
            fn encode(&self, writer: &mut Writer) {
                writer.string(&self.0);
            }
        }

        impl Decode for $name {
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.string($what, $limit)?.parse().map_err(|InvalidId(why)| DecodeError::Rule(why))
            }
        }
    };
}

text_id!(
    /// The name of a collection: `[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}`. Names that start with `_` belong to the system.
    CollectionName, "collection name", COLLECTION_NAME_BYTES_MAX
);
text_id!(
    /// The id of a document within its collection: 1-512 bytes of UTF-8 without control characters or `/`.
    DocumentId, "document id", DOCUMENT_ID_BYTES_MAX
);

impl CollectionName {
    /// Whether the name is reserved for the system.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with('_')
    }
}

impl FromStr for CollectionName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
        let bytes = text.as_bytes();
        let valid = bytes.len() <= COLLECTION_NAME_BYTES_MAX
            && bytes.first().is_some_and(|&c| word(c))
            && bytes.iter().all(|&c| word(c) || c == b'.');
        if valid {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(InvalidId(format!("collection name {shown:?}: use 1-64 of A-Z a-z 0-9 _ - and (not first) the full stop")))
    }
}

impl FromStr for DocumentId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.is_empty() || text.len() > DOCUMENT_ID_BYTES_MAX {
            return Err(InvalidId(format!("document id has {} bytes: use 1-512 bytes of UTF-8", text.len())));
        }
        if text.chars().any(|c| c.is_control() || c == '/') {
            return Err(InvalidId(format!("document id {text:?}: control characters and / are not allowed")));
        }
        Ok(Self(text.into()))
    }
}

/// A document's full name: its collection and its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// The collection.
    pub collection: CollectionName,
    /// The id within it.
    pub id: DocumentId,
}

impl DocumentKey {
    /// Joins the two parts.
    #[must_use]
    pub fn new(collection: CollectionName, id: DocumentId) -> Self {
        Self { collection, id }
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.id)
    }
}

impl Encode for DocumentKey {
    fn encode(&self, writer: &mut Writer) {
        writer.value(&self.collection).value(&self.id);
    }
}

impl Decode for DocumentKey {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { collection: reader.value()?, id: reader.value()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collection_names_follow_the_rule() {
        for good in ["a", "users", "_members", "-x", "a.b-c_d9", &"x".repeat(64)] {
            assert!(good.parse::<CollectionName>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "a/b", "ä", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<CollectionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn document_ids_follow_the_rule() {
        for good in ["1", "Zürich", "a b", ".", "日本", &"x".repeat(512)] {
            assert!(good.parse::<DocumentId>().is_ok(), "{good}");
        }
        for bad in ["", "a/b", "a\nb", "\u{7f}", &"x".repeat(513)] {
            assert!(bad.parse::<DocumentId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn peer_ids_read_as_libp2p_writes_them() {
        let peer = PeerId([7; 32]);
        let libp2p = libp2p::identity::ed25519::PublicKey::try_from_bytes(&ed25519_key()).unwrap();
        let shown = libp2p::identity::PublicKey::from(libp2p).to_peer_id().to_string();
        assert_eq!(PeerId(ed25519_key()).to_string(), shown);
        assert_eq!(peer.to_string().parse::<PeerId>().unwrap(), peer);
        assert!("12D3KooWnonsense".parse::<PeerId>().is_err());
    }

    fn ed25519_key() -> [u8; 32] {
        ed25519_dalek::SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes()
    }
}
