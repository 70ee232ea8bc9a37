//! Runs: consecutive changes of one actor under one signature.
//!
//! A change names what it depends on by hash. So when each change of an actor builds on the actor's change before and
//! on nothing else, the signature of the last one vouches for all of them, as the signed head of a hash chain does
//! (Haber and Stornetta, *How to time-stamp a digital document*, 1991). A run is taken or refused as a whole, and its
//! later part is a run as well.
//!
//! What follows from the change before is not written: of every change but the first only what comes after the
//! dependency and the actor.

use bytes::Bytes;

use crate::base::{ChangeHash, Decode, DecodeError, Encode, Reader, Writer};
use crate::limits::{CHANGE_BYTES_MAX, RUN_BYTES_MAX, RUN_CHANGES_MAX};

use super::change::{CHUNK_HEAD_BYTES, Change, chunk, hash_of};

/// The payloads of one or more changes, as above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Never empty.
    payloads: Vec<Bytes>,
    bytes: usize,
}

impl Run {
    /// One change.
    #[must_use]
    pub fn of(payload: Bytes) -> Self {
        Self { bytes: payload.len(), payloads: vec![payload] }
    }

    /// The payloads of these changes of one actor.
    ///
    /// # Panics
    /// Without changes.
    pub(super) fn of_changes(changes: &[Change]) -> Self {
        assert!(!changes.is_empty(), "a run has changes");
        let payloads: Vec<Bytes> = changes.iter().map(|change| change.payload().clone()).collect();
        Self { bytes: payloads.iter().map(Bytes::len).sum(), payloads }
    }

    /// Its changes, each an Automerge change; the last one is the signed one.
    #[must_use]
    pub fn payloads(&self) -> &[Bytes] {
        &self.payloads
    }

    /// Its changes.
    #[must_use]
    pub fn into_payloads(self) -> Vec<Bytes> {
        self.payloads
    }

    /// The hashes of its changes.
    pub fn hashes(&self) -> impl Iterator<Item = ChangeHash> {
        self.payloads.iter().map(|payload| ChangeHash(hash_of(payload)))
    }

    /// Bytes of its changes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its last `count` changes, at least one and at most all of them.
    #[must_use]
    pub fn last(mut self, count: usize) -> Self {
        let first = self.payloads.len().saturating_sub(count.max(1));
        self.payloads.drain(..first);
        self.bytes = self.payloads.iter().map(Bytes::len).sum();
        self
    }

    /// Joins the run that comes after this one. Gives it back when it does not build on this one alone, or when both
    /// would be over the limits of a run together.
    ///
    /// # Errors
    /// The run that was given.
    pub fn join(&mut self, next: Self) -> Result<(), Self> {
        let fits = self.payloads.len() + next.payloads.len() <= RUN_CHANGES_MAX
            && self.bytes + next.bytes <= RUN_BYTES_MAX
            && self.payloads.last().is_some_and(|last| tail(last, &next.payloads[0]).is_some());
        if !fits {
            return Err(next);
        }
        self.bytes += next.bytes;
        self.payloads.extend(next.payloads);
        Ok(())
    }

    /// Reads what [`Encode`] wrote; `own` makes the bytes of a payload its own.
    pub(crate) fn read(reader: &mut Reader<'_>, own: impl Fn(&[u8]) -> Bytes) -> Result<Self, DecodeError> {
        let count: usize = reader.int()?;
        let too_long = |length: usize, limit| DecodeError::TooLong { what: "run", length: length as u64, limit };
        if count > RUN_CHANGES_MAX {
            return Err(too_long(count, RUN_CHANGES_MAX));
        }
        let Some(more) = count.checked_sub(1) else {
            return Err(DecodeError::Rule("a run has at least one change".into()));
        };
        let mut run = Self::of(own(reader.bytes("payload", CHANGE_BYTES_MAX)?));
        for _ in 0..more {
            let tail = reader.bytes("payload", RUN_BYTES_MAX)?;
            let last = run.payloads.last().expect("a run has changes");
            let payload = follower(last, tail)
                .ok_or_else(|| DecodeError::Rule("the run builds on something that is not a change".into()))?;
            run.bytes += payload.len();
            if run.bytes > RUN_BYTES_MAX {
                return Err(too_long(run.bytes, RUN_BYTES_MAX));
            }
            run.payloads.push(payload.into());
        }
        Ok(run)
    }
}

/// The part of `next` that does not follow from `last`; `None` when it does not build on `last` alone.
fn tail<'a>(last: &[u8], next: &'a [u8]) -> Option<&'a [u8]> {
    let mut reader = Reader::new(next);
    head(&mut reader)?;
    let tail = reader.rest();
    (follower(last, tail)? == next).then_some(tail)
}

/// The change that builds on `last` alone, by the same actor, and goes on with `tail`; `None` when `last` is no change.
fn follower(last: &[u8], tail: &[u8]) -> Option<Vec<u8>> {
    let actor = head(&mut Reader::new(last))?;
    let mut body = Writer::new();
    body.varint(1).fixed(&hash_of(last)).bytes(actor).fixed(tail);
    Some(chunk(&body.finish()))
}

/// Reads a change up to its actor, which it gives.
fn head<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    reader.fixed::<CHUNK_HEAD_BYTES>().ok()?;
    reader.varint().ok()?;
    for _ in 0..reader.varint().ok()? {
        reader.fixed::<32>().ok()?;
    }
    reader.bytes("actor", 16).ok()
}

impl Encode for Run {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.payloads.len() as u64).bytes(&self.payloads[0]);
        for pair in self.payloads.windows(2) {
            writer.bytes(tail(&pair[0], &pair[1]).expect("the changes of a run follow each other"));
        }
    }
}

impl Decode for Run {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read(reader, Bytes::copy_from_slice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::base::{ActorId, Hlc, Timestamp};
    use crate::document::{Document, Object};

    fn fields(n: u64) -> Object {
        serde_json::from_value(json!({"n": n, "text": "as before"})).unwrap()
    }

    /// Changes of one actor, one after the other.
    fn changes(count: u64) -> Vec<Bytes> {
        let at = |n| Hlc::from_physical(Timestamp(1_700_000_000_000 + n));
        let (mut document, first) = Document::create(ActorId([7; 16]), at(0), &fields(0)).unwrap();
        let edits = (1..count).map(|n| document.replace(ActorId([7; 16]), at(n), &fields(n)).unwrap().unwrap());
        std::iter::once(first).chain(edits).map(|change| change.payload().clone()).collect()
    }

    fn joined(payloads: &[Bytes]) -> Run {
        let mut run = Run::of(payloads[0].clone());
        for payload in &payloads[1..] {
            run.join(Run::of(payload.clone())).unwrap();
        }
        run
    }

    #[test]
    fn a_run_reads_back_and_is_shorter_than_its_changes() {
        let payloads = changes(20);
        let run = joined(&payloads);
        assert_eq!(run.payloads(), payloads);
        let encoded = run.to_bytes();
        assert_eq!(Run::from_bytes(&encoded).unwrap(), run);
        assert!(encoded.len() + 19 * 55 < run.bytes(), "{} of {}", encoded.len(), run.bytes());
        assert_eq!(run.clone().last(3), joined(&payloads[17..]));
        assert_eq!(run.clone().last(100), run);
    }

    #[test]
    fn only_what_follows_joins_and_only_within_the_limits() {
        let payloads = changes(RUN_CHANGES_MAX as u64 + 1);
        let skipped = Run::of(payloads[2].clone());
        assert_eq!(Run::of(payloads[0].clone()).join(skipped.clone()), Err(skipped));
        let mut full = joined(&payloads[..RUN_CHANGES_MAX]);
        let next = Run::of(payloads[RUN_CHANGES_MAX].clone());
        assert_eq!(full.join(next.clone()), Err(next));
        let mut damaged = payloads[1].to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(Run::of(payloads[0].clone()).join(Run::of(damaged.into())).is_err());
    }

    #[test]
    fn a_run_beyond_its_bytes_is_refused() {
        let mut writer = Writer::new();
        writer.varint(3).bytes(&changes(1)[0]);
        writer.bytes(&vec![0; RUN_BYTES_MAX / 2]).bytes(&vec![0; RUN_BYTES_MAX / 2]);
        assert!(matches!(Run::from_bytes(&writer.finish()), Err(DecodeError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn garbage_is_refused(count in 0u8..4, first: Vec<u8>, rest: Vec<u8>) {
            let mut writer = Writer::new();
            writer.u8(count).bytes(&first).fixed(&rest);
            if let Ok(run) = Run::from_bytes(&writer.finish()) {
                prop_assert_eq!(run.payloads().len(), usize::from(count));
            }
        }
    }
}
