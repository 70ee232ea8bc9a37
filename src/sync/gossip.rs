//! Live changes over gossip: the topics of a mesh, and the sealing of what is published.
//!
//! Gossip is carried by peers that may not be members (anyone may subscribe to a topic), so every message
//! is sealed under a secret that members get when they are let in: XChaCha20-Poly1305 with a random
//! nonce, the topic as associated data. The topics' names are derived from the secret as well, so that
//! they tell nothing. What a message holds is signed by its authors as everywhere.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use super::frame;
use crate::base::{CollectionName, DecodeError, Timestamp};
use crate::document::Unchecked;
use crate::limits::{CHANGES_PER_FRAME_MAX, GOSSIP_BURST_BYTES, GOSSIP_BYTES_PER_S, GOSSIP_TOPICS};

/// Bytes of the nonce in front of a sealed message.
const NONCE_BYTES: usize = 24;

/// One of the [`GOSSIP_TOPICS`] topics of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(u8);

impl Topic {
    /// The topic that carries a collection's changes.
    #[must_use]
    pub fn of(collection: &CollectionName) -> Self {
        Self(blake3::hash(collection.as_str().as_bytes()).as_bytes()[0] % GOSSIP_TOPICS)
    }

    /// All topics.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..GOSSIP_TOPICS).map(Self)
    }
}

/// How fast this peer writes, as a leaky bucket. Gossip has no pace of its own: what a line cannot carry waits in front
/// of it, while comparing finds the same changes missing and sends them as well. So only what is live goes out over
/// gossip, and a load goes by comparing alone.
#[derive(Debug, Default)]
pub struct Pace {
    bytes: u64,
    at: Timestamp,
}

impl Pace {
    /// Takes note of bytes that were written, and says whether they are to be published. After a load nothing is
    /// for some seconds: whoever writes much goes on with it.
    pub fn allows(&mut self, now: Timestamp, bytes: usize) -> bool {
        let leaked = now.since_ms(self.at).saturating_mul(GOSSIP_BYTES_PER_S) / 1_000;
        self.bytes = self.bytes.saturating_sub(leaked).saturating_add(bytes as u64).min(2 * GOSSIP_BURST_BYTES);
        self.at = now;
        self.bytes <= GOSSIP_BURST_BYTES
    }
}

/// The secret that the members of a mesh share for their live changes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Wraps the bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a newcomer and for the store.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The name under which a topic is known to the network.
    #[must_use]
    pub fn topic_name(&self, topic: Topic) -> String {
        let name = self.derive("aerolithsdb 2026 gossip topic name", topic);
        data_encoding::HEXLOWER.encode(&name[..16])
    }

    /// Packs and seals changes under a fresh nonce.
    #[must_use]
    pub fn seal(&self, topic: Topic, nonce: [u8; NONCE_BYTES], changes: &[Unchecked]) -> Vec<u8> {
        let packed = frame::pack(changes);
        let payload = Payload { msg: &packed, aad: &[topic.0] };
        let sealed =
            self.cipher(topic).encrypt(&XNonce::from(nonce), payload).expect("sealing in memory does not fail");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what [`Secret::seal`] made.
    ///
    /// # Errors
    /// When it was not sealed under this secret for this topic, or does not hold changes.
    pub fn open(&self, topic: Topic, sealed: &[u8]) -> Result<Vec<Unchecked>, DecodeError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(DecodeError::Truncated)?;
        let payload = Payload { msg: body, aad: &[topic.0] };
        let packed = self
            .cipher(topic)
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| DecodeError::Rule("the message is not sealed under this mesh's secret".into()))?;
        frame::unpack(&packed, CHANGES_PER_FRAME_MAX)
    }

    fn cipher(&self, topic: Topic) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.derive("aerolithsdb 2026 gossip key", topic).into())
    }

    fn derive(&self, context: &str, topic: Topic) -> [u8; 32] {
        *blake3::Hasher::new_derive_key(context).update(&self.0).update(&[topic.0]).finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_live_is_published_and_a_load_is_not() {
        let (mut pace, mut now) = (Pace::default(), Timestamp(1_700_000_000_000));
        // A write of 1 KiB every 10 ms is below the pace.
        for _ in 0..10_000 {
            now = now.plus_ms(10);
            assert!(pace.allows(now, 1 << 10));
        }
        // A load is published up to the burst, and not again before it has been over for a while.
        let mut load = |now| (0..1_000).filter(|_| pace.allows(now, 4 << 10)).count() as u64;
        assert!((1..=GOSSIP_BURST_BYTES >> 12).contains(&load(now)));
        assert_eq!(load(now.plus_ms(1_000)), 0);
        let over = 1_001 + 1_000 * 2 * GOSSIP_BURST_BYTES / GOSSIP_BYTES_PER_S;
        assert_eq!(load(now.plus_ms(over)), GOSSIP_BURST_BYTES >> 12);
    }

    #[test]
    fn only_the_same_secret_and_topic_open_a_message() {
        let (secret, other) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let sealed = secret.seal(Topic(3), [9; NONCE_BYTES], &[]);
        assert_eq!(secret.open(Topic(3), &sealed).unwrap(), Vec::new());
        assert!(other.open(Topic(3), &sealed).is_err() && secret.open(Topic(4), &sealed).is_err());
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(secret.open(Topic(3), &damaged).is_err());
        assert!(secret.open(Topic(3), &sealed[..10]).is_err());
        assert_ne!(secret.topic_name(Topic(3)), other.topic_name(Topic(3)));
    }
}
