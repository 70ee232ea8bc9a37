//! Signed records: `Signed<T>` as it arrives, `Verified<T>` once its signature was checked.
//!
//! Every signature is made over a domain and the record's canonical bytes, so that a signature under one
//! kind of record never counts for another. Verification is the strict one of ed25519-dalek (canonical
//! scalars, no keys or points of small order; RFC 8032 with the checks of Chalkias et al., "Taming the many
//! EdDSAs", 2020), so that all peers agree on what is valid and nobody but the signer can make a second
//! valid signature.
//!
//! Nothing here says whether the signer had a right to sign.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;

use ed25519_dalek::VerifyingKey;

use super::Keypair;
use crate::base::{Decode, DecodeError, Encode, PeerId, Reader, Writer};

/// A record that one peer signs.
pub trait Signable {
    /// The kind of record, as text that no other kind uses.
    const DOMAIN: &'static str;

    /// The peer whose signature makes the record valid.
    fn signer(&self) -> PeerId;

    /// The bytes that are signed: the canonical encoding of everything the record says.
    fn signed_bytes(&self) -> Vec<u8>;
}

/// An Ed25519 signature (64 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl Encode for Signature {
    fn encode(&self, writer: &mut Writer) {
        writer.fixed(&self.0);
    }
}

impl Decode for Signature {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.fixed().map(Self)
    }
}

/// A signature that does not belong to the record and the signer it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature of {signer} does not match: the record was changed, damaged or forged")]
pub struct BadSignature {
    /// The peer that is said to have signed.
    pub signer: PeerId,
}

impl From<BadSignature> for crate::Error {
    fn from(error: BadSignature) -> Self {
        Self::invalid(error.to_string())
    }
}

/// Checks that `signer` signed `bytes` under `domain`.
///
/// # Errors
/// [`BadSignature`] when it did not, or when `signer` is not a usable key.
pub fn verify(signer: &PeerId, domain: &str, bytes: &[u8], signature: &Signature) -> Result<(), BadSignature> {
    let bad = BadSignature { signer: *signer };
    let key = key_of(signer).ok_or(bad)?;
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(&message(domain, bytes), &signature).map_err(|_| bad)
}

thread_local! {
    /// The key by which this thread checked a signature last. Changes come in long rows of one author, and to compute the
    /// point of a key takes a tenth of the time of a check.
    static LAST_KEY: Cell<Option<VerifyingKey>> = const { Cell::new(None) };
}

/// The key of a peer; `None` when it is none.
fn key_of(signer: &PeerId) -> Option<VerifyingKey> {
    if let Some(key) = LAST_KEY.get().filter(|key| *key.as_bytes() == signer.0) {
        return Some(key);
    }
    let key = VerifyingKey::from_bytes(&signer.0).ok()?;
    LAST_KEY.set(Some(key));
    Some(key)
}

/// What is put under the signature: the length of the domain, the domain, the bytes.
pub(super) fn message(domain: &str, bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.string(domain).fixed(bytes);
    writer.finish()
}

/// A record with a signature that nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    /// The record.
    pub body: T,
    /// Said to be made by the record's signer.
    pub signature: Signature,
}

impl<T: Signable> Signed<T> {
    /// Signs a record. With another key than its signer's the result is a record that does not verify.
    #[must_use]
    pub fn sign(body: T, keypair: &Keypair) -> Self {
        let signature = keypair.sign(T::DOMAIN, &body.signed_bytes());
        Self { body, signature }
    }

    /// Checks the signature and leaves the record where it is.
    ///
    /// # Errors
    /// [`BadSignature`] when the signer did not sign this.
    pub fn check(&self) -> Result<(), BadSignature> {
        verify(&self.body.signer(), T::DOMAIN, &self.body.signed_bytes(), &self.signature)
    }

    /// Checks the signature, and keeps the fact in the type.
    ///
    /// # Errors
    /// [`BadSignature`] when the signer did not sign this.
    pub fn verify(self) -> Result<Verified<T>, BadSignature> {
        self.check()?;
        Ok(Verified { signed: self })
    }
}

impl<T: Encode> Encode for Signed<T> {
    fn encode(&self, writer: &mut Writer) {
        writer.value(&self.body).value(&self.signature);
    }
}

impl<T: Decode> Decode for Signed<T> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { body: reader.value()?, signature: reader.value()? })
    }
}

/// A record whose signature was checked, or made, here. Reads as the record itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    signed: Signed<T>,
}

impl<T: Signable> Verified<T> {
    /// Signs a record of our own.
    ///
    /// # Panics
    /// When `keypair` is not the key of the record's signer.
    #[must_use]
    pub fn own(body: T, keypair: &Keypair) -> Self {
        assert_eq!(body.signer(), keypair.peer_id(), "a record is signed with its signer's key");
        Self { signed: Signed::sign(body, keypair) }
    }
}

impl<T> Verified<T> {
    /// The record with its signature.
    #[must_use]
    pub fn as_signed(&self) -> &Signed<T> {
        &self.signed
    }

    /// The record with its signature, to be sent or stored.
    #[must_use]
    pub fn into_signed(self) -> Signed<T> {
        self.signed
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.signed.body
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Note {
        author: PeerId,
        text: String,
    }

    impl Signable for Note {
        const DOMAIN: &'static str = "test note";

        fn signer(&self) -> PeerId {
            self.author
        }

        fn signed_bytes(&self) -> Vec<u8> {
            self.to_bytes()
        }
    }

    impl Encode for Note {
        fn encode(&self, writer: &mut Writer) {
            writer.value(&self.author).string(&self.text);
        }
    }

    impl Decode for Note {
        fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
            Ok(Self { author: reader.value()?, text: reader.string("text", 1_000)?.to_owned() })
        }
    }

    fn note(keypair: &Keypair, text: &str) -> Signed<Note> {
        Signed::sign(Note { author: keypair.peer_id(), text: text.to_owned() }, keypair)
    }

    #[test]
    fn a_signed_record_verifies_and_reads_as_itself() {
        let keypair = Keypair::from_seed([1; 32]);
        let signed = note(&keypair, "hello");
        let verified = signed.clone().verify().unwrap();
        assert_eq!(verified.text, "hello");
        assert_eq!(verified.into_signed(), signed);
        assert_eq!(Verified::own(signed.body.clone(), &keypair).into_signed(), signed);
    }

    #[test]
    fn another_key_domain_or_a_weak_key_does_not_verify() {
        let (ours, other) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]));
        let forged = Signed::sign(note(&ours, "hello").body, &other);
        assert_eq!(forged.verify(), Err(BadSignature { signer: ours.peer_id() }));

        let signature = ours.sign("one", b"bytes");
        assert!(verify(&ours.peer_id(), "one", b"bytes", &signature).is_ok());
        assert!(verify(&ours.peer_id(), "two", b"bytes", &signature).is_err());
        // The boundary between domain and bytes is part of what is signed.
        assert!(verify(&ours.peer_id(), "oneb", b"ytes", &signature).is_err());

        // The neutral element as key and point, with scalar 0: a plain check accepts this for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(verify(&PeerId(neutral), "one", b"anything", &Signature(signature)).is_err());
    }

    #[test]
    #[should_panic(expected = "signer's key")]
    fn own_records_are_signed_with_our_key() {
        let body = note(&Keypair::from_seed([1; 32]), "hello").body;
        let _ = Verified::own(body, &Keypair::from_seed([2; 32]));
    }

    proptest! {
        #[test]
        fn a_mutated_record_never_verifies(text in ".{0,40}", at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = note(&Keypair::from_seed([3; 32]), &text).to_bytes();
            prop_assert!(Signed::<Note>::from_bytes(&bytes).unwrap().verify().is_ok());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(changed) = Signed::<Note>::from_bytes(&bytes) {
                prop_assert!(changed.verify().is_err());
            }
        }
    }
}
