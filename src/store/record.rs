//! What the store keeps under its keys. Each record is sealed with a version byte and a checksum of its
//! own, so that a bit that rotted on the disk is told apart from data, record by record.

use bytes::Bytes;

use crate::base::{
    ActorId, ChangeHash, Decode, DecodeError, Encode, GrantId, Hlc, Incarnation, PeerId, Reader, Writer,
};
use crate::document::Run;
use crate::limits::{DOCUMENT_VIEW_BYTES_MAX, RUN_BYTES_MAX};

use super::summary::Total;

/// Version of all records; a change of any layout raises it.
const VERSION: u8 = 3;

/// Wraps an encoding: version, CRC-32 of what follows, then the encoding.
pub(super) fn seal<T: Encode>(value: &T) -> Bytes {
    let mut writer = Writer::new();
    writer.u8(VERSION).fixed(&[0; 4]).value(value);
    let mut bytes = writer.finish();
    let checksum = crc32fast::hash(&bytes[5..]);
    bytes[1..5].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

/// Unwraps what [`seal`] made.
pub(super) fn unseal<T: Decode>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::from_bytes(unsealed(bytes)?)
}

/// The encoding inside a sealed record, checked but not decoded.
pub(super) fn unsealed(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.version("record version", VERSION)?;
    let checksum = u32::from_be_bytes(reader.fixed()?);
    let body = reader.rest();
    if crc32fast::hash(body) == checksum {
        Ok(body)
    } else {
        Err(DecodeError::Rule("the checksum does not match: the record is damaged".into()))
    }
}

/// Who writes under an actor number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The author's key.
    pub author: PeerId,
    /// The life of the author's store.
    pub incarnation: Incarnation,
    /// The Automerge actor derived from both.
    pub actor: ActorId,
}

impl Actor {
    /// Derives the actor.
    #[must_use]
    pub fn new(author: PeerId, incarnation: Incarnation) -> Self {
        Self { author, incarnation, actor: ActorId::derive(&author, &incarnation) }
    }
}

impl Encode for Actor {
    fn encode(&self, writer: &mut Writer) {
        writer.value(&self.author).value(&self.incarnation);
    }
}

impl Decode for Actor {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::new(reader.value()?, reader.value()?))
    }
}

/// Counts of a collection, and the total of its range summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collection {
    /// Documents that are not deleted.
    pub documents: u64,
    /// Bytes of their views.
    pub bytes: u64,
    /// Count (deleted ones included) and sum of all items.
    pub total: Total,
}

impl Encode for Collection {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.documents).varint(self.bytes).value(&self.total);
    }
}

impl Decode for Collection {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { documents: reader.varint()?, bytes: reader.varint()?, total: reader.value()? })
    }
}

/// Everything about a document but its changes: what reads, queries and reconciliation need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The document's number in this store.
    pub number: u64,
    /// The position of its last change in the feed.
    pub position: u64,
    /// Whether all of its heads are deletes.
    pub deleted: bool,
    /// The earliest time of its changes.
    pub created: Hlc,
    /// The latest time of its changes.
    pub updated: Hlc,
    /// The changes that no other change depends on, sorted.
    pub heads: Vec<ChangeHash>,
    /// For each actor number the last sequence number in the log, sorted by actor number.
    pub vector: Vec<(u32, u64)>,
    /// Changes in the log that no snapshot covers.
    pub loose_changes: u64,
    /// The document as JSON text with sorted keys; empty when it is deleted.
    pub view: Bytes,
    /// Places of the view at which edits that did not know of each other left several values; `None` when they are
    /// still to be counted, see `store/conflict`.
    pub conflicts: Option<u64>,
}

/// What queries see of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// The document as JSON text with sorted keys.
    pub json: &'a [u8],
    /// Places with several values.
    pub conflicts: u64,
}

impl Record {
    /// The last sequence number of an actor; 0 when it wrote nothing.
    #[must_use]
    pub fn sequence(&self, actor: u32) -> u64 {
        self.vector.binary_search_by_key(&actor, |entry| entry.0).map_or(0, |index| self.vector[index].1)
    }

    /// Places at which edits that did not know of each other left several values, as far as they are counted.
    #[must_use]
    pub fn conflict_count(&self) -> u64 {
        self.conflicts.unwrap_or(0)
    }

    /// Number of changes in the log.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.vector.iter().map(|(_, sequence)| sequence).sum()
    }
}

impl Encode for Record {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.number).varint(self.position);
        writer.u8(u8::from(self.deleted)).value(&self.created).value(&self.updated);
        writer.list(&self.heads, |w, head| _ = w.value(head));
        writer.list(&self.vector, |w, (actor, sequence)| _ = w.varint(u64::from(*actor)).varint(*sequence));
        writer.varint(self.loose_changes).bytes(&self.view);
        // Written only where it does not go without saying, see `conflicts`.
        let goes_without_saying = self.deleted || self.vector.len() < 2;
        if let Some(conflicts) = self.conflicts.filter(|conflicts| *conflicts > 0 || !goes_without_saying) {
            writer.varint(conflicts);
        }
    }
}

/// Reads how many places have several values. A record that does not say is of an older version, or of a document that
/// has none: one that is deleted, or that a single actor wrote.
fn conflicts(reader: &mut Reader<'_>, deleted: bool, actors: u64) -> Result<Option<u64>, DecodeError> {
    if reader.remaining() > 0 {
        return reader.varint().map(Some);
    }
    Ok((deleted || actors < 2).then_some(0))
}

impl Record {
    /// Reads a sealed record; the view shares its memory.
    ///
    /// # Errors
    /// When it is damaged or of another version.
    pub(super) fn open(sealed: &Bytes) -> Result<Self, DecodeError> {
        let (record, view) = Self::read(sealed)?;
        Ok(Self { view: sealed.slice_ref(view), ..record })
    }

    /// Reads a sealed record but for its view, of which it says how many bytes it has.
    ///
    /// # Errors
    /// As [`Record::open`].
    pub(super) fn open_bare(sealed: &[u8]) -> Result<(Self, usize), DecodeError> {
        let (record, view) = Self::read(sealed)?;
        Ok((record, view.len()))
    }

    /// Only what queries see of a sealed record; `None` when the document is deleted.
    ///
    /// # Errors
    /// When it is damaged or of another version.
    pub(super) fn open_view(sealed: &[u8]) -> Result<Option<View<'_>>, DecodeError> {
        let mut reader = Reader::new(unsealed(sealed)?);
        let reader = &mut reader;
        let (_number, _position) = (reader.varint()?, reader.varint()?);
        let deleted = reader.u8()? != 0;
        let (_created, _updated): (Hlc, Hlc) = (reader.value()?, reader.value()?);
        for _ in 0..reader.varint()? {
            let _: ChangeHash = reader.value()?;
        }
        let actors = reader.varint()?;
        for _ in 0..actors {
            let (_actor, _last) = (reader.varint()?, reader.varint()?);
        }
        let _loose = reader.varint()?;
        let json = reader.bytes("view", DOCUMENT_VIEW_BYTES_MAX)?;
        let conflicts = conflicts(reader, deleted, actors)?.unwrap_or(0);
        Ok((!deleted).then_some(View { json, conflicts }))
    }

    fn read(sealed: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut reader = Reader::new(unsealed(sealed)?);
        let reader = &mut reader;
        let mut record = Self {
            number: reader.varint()?,
            position: reader.varint()?,
            deleted: reader.u8()? != 0,
            created: reader.value()?,
            updated: reader.value()?,
            // Bounded by the record itself: whatever was merged must be readable.
            heads: reader.list("heads", usize::MAX, Reader::value)?,
            vector: reader.list("vector", usize::MAX, |r| Ok((r.int()?, r.varint()?)))?,
            loose_changes: reader.varint()?,
            view: Bytes::new(),
            conflicts: None,
        };
        let view = reader.bytes("view", DOCUMENT_VIEW_BYTES_MAX)?;
        record.conflicts = conflicts(reader, record.deleted, record.vector.len() as u64)?;
        match reader.remaining() {
            0 => Ok((record, view)),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}

/// Changes in the log under one signature: what cannot be derived from their key, their actor and their payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRun {
    /// The record under which their author had the right to write.
    pub grant: GrantId,
    /// The author's signature over the header of the last one.
    pub signature: [u8; 64],
    /// Where the first one stands in an order in which changes come after what they depend on, see
    /// [`Change::position`].
    ///
    /// [`Change::position`]: crate::document::Change::position
    pub position: u64,
    /// The changes.
    pub run: Run,
}

/// zstd's level for runs: higher ones pack changes of a few bytes to within 5 % of it, in many times the time.
const LEVEL: i32 = 3;

impl Encode for LoggedRun {
    fn encode(&self, writer: &mut Writer) {
        writer.value(&self.grant).fixed(&self.signature).varint(self.position);
        if self.run.payloads().len() == 1 {
            writer.varint(0).value(&self.run);
        } else {
            let raw = self.run.to_bytes();
            let packed = zstd::bulk::compress(&raw, LEVEL).expect("compression into memory does not fail");
            writer.varint(raw.len() as u64).fixed(&packed);
        }
    }
}

impl Decode for LoggedRun {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (grant, signature, position) = (reader.value()?, reader.fixed()?, reader.varint()?);
        let run = match reader.int()? {
            0 => reader.value()?,
            length if length > RUN_BYTES_MAX => {
                return Err(DecodeError::TooLong { what: "run", length: length as u64, limit: RUN_BYTES_MAX });
            }
            length => {
                let raw = zstd::bulk::decompress(reader.rest(), length)
                    .map_err(|error| DecodeError::Rule(format!("the run does not decompress: {error}")))?;
                Run::from_bytes(&raw)?
            }
        };
        Ok(Self { grant, signature, position, run })
    }
}

/// A saved document, and the changes that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) vector: Vec<(u32, u64)>,
    pub(super) bytes: Bytes,
}

impl Encode for Snapshot {
    fn encode(&self, writer: &mut Writer) {
        writer.list(&self.vector, |w, (actor, sequence)| _ = w.varint(u64::from(*actor)).varint(*sequence));
        writer.fixed(&self.bytes);
    }
}

impl Decode for Snapshot {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let vector = reader.list("vector", usize::MAX, |r| Ok((r.int()?, r.varint()?)))?;
        Ok(Self { vector, bytes: Bytes::copy_from_slice(reader.rest()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        Record {
            number: 7,
            position: 9,
            deleted: false,
            created: Hlc::from_packed(1 << 20).unwrap(),
            updated: Hlc::from_packed(1 << 21).unwrap(),
            heads: vec![ChangeHash([1; 32]), ChangeHash([2; 32])],
            vector: vec![(0, 3), (9, 1)],
            loose_changes: 4,
            view: Bytes::from_static(b"{\"a\":1}"),
            conflicts: Some(0),
        }
    }

    #[test]
    fn a_record_says_its_conflicts_and_one_of_an_older_version_reads_back() {
        for conflicts in [Some(0), Some(1), Some(300), None] {
            let sealed = seal(&Record { conflicts, ..record() });
            assert_eq!(Record::open(&sealed).unwrap().conflicts, conflicts);
            assert_eq!(Record::open_view(&sealed).unwrap().unwrap().conflicts, conflicts.unwrap_or(0));
        }
        // Where it goes without saying nothing is written, so records of older versions say the same.
        for record in [Record { vector: vec![(0, 3)], ..record() }, Record { deleted: true, ..record() }] {
            let sealed = seal(&record);
            assert_eq!(sealed, seal(&Record { conflicts: None, ..record }));
            assert_eq!(Record::open(&sealed).unwrap().conflicts, Some(0));
        }
    }

    #[test]
    fn a_record_with_any_number_of_heads_and_actors_reads_back() {
        let heads = (0..5_000u16)
            .map(|n| ChangeHash([n.to_be_bytes(), n.to_be_bytes()].concat().repeat(8).try_into().unwrap()));
        let record = Record { heads: heads.collect(), vector: (0..20_000).map(|n| (n, 1)).collect(), ..record() };
        assert_eq!(Record::open(&seal(&record)).unwrap(), record);
    }

    #[test]
    fn a_record_reads_back_and_a_flipped_bit_is_noticed() {
        let sealed = seal(&record());
        assert_eq!(Record::open(&sealed).unwrap(), record());
        assert_eq!(Record::open_view(&sealed).unwrap(), Some(View { json: &record().view[..], conflicts: 0 }));
        assert_eq!(Record::open_view(&seal(&Record { deleted: true, ..record() })).unwrap(), None);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::open(&damaged.into()).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes: Vec<u8>) {
            _ = LoggedRun::from_bytes(&bytes);
            prop_assert!(Record::open(&bytes.into()).is_err());
        }
    }
}
