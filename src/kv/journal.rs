//! The format of the commit journal: how batches become bytes, and what is read back from damaged ones.
//!
//! A segment is a header, twice, then records, then zeros that were never written. Integers are little-endian.
//!
//! | header | bytes | | record | bytes |
//! |---|---|---|---|---|
//! | magic `aeroJRNL` | 8 | | magic `\xae\x4c\x0f\xd1` | 4 |
//! | format version | 4 | | payload length | 4 |
//! | salt | 4 | | sequence | 8 |
//! | segment number | 8 | | durable: the last sequence known to be on the disk | 8 |
//! | first sequence | 8 | | CRC-32 of the payload | 4 |
//! | CRC-32 of the above | 4 | | CRC-32 of the above | 4 |
//!
//! The payload is the batch in the canonical encoding: a count, then for each write the key, a tag
//! (0 removes, 1 sets) and the value. A record's checksums start from the salt, which no peer knows: a value
//! that holds the bytes of a record can never be taken for one, wherever the reading resumes.
//!
//! **Torn or rotten.** After a power loss, what was not synced may be missing, cut, or there in part, and
//! must then be gone from the first fault on: what survives is a prefix. A fault in what *was* synced is
//! rot: that record is lost and reported, and everything after it is kept. The two are told apart by
//! `durable`: a missing record is rot when an intact record header says it had been synced, or when
//! a later segment exists (a segment is synced before the next is made). Otherwise it is the torn tail.
//!
//! Deliberately not here: files (`medium`), and when to write (`journaled`). Reading never panics, takes
//! time linear in the input, and allocates a small multiple of it at most.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::{Batch, Error};
use crate::base::{DecodeError, Reader, Writer};
use crate::limits;

/// Version of this format.
const FORMAT_VERSION: u32 = 1;
const SEGMENT_MAGIC: [u8; 8] = *b"aeroJRNL";
const RECORD_MAGIC: [u8; 4] = [0xae, 0x4c, 0x0f, 0xd1];
const HEADER_BYTES: usize = 36;
const RECORD_HEADER_BYTES: usize = 32;
/// Where the records of a segment start: behind both copies of the header.
pub(super) const RECORDS_START: usize = 2 * HEADER_BYTES;

/// Stored data that was found damaged when a journal was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The end of the last segment was cut off: writes that had not been flushed when the power or the
    /// process went. Nothing that was acknowledged is lost.
    TornTail {
        /// The segment.
        segment: u64,
        /// Where its intact part ends.
        offset_bytes: u64,
    },
    /// Records that had been durable cannot be read any more. Others after them were kept.
    LostRecords {
        /// The segment.
        segment: u64,
        /// The first sequence that is lost.
        first: u64,
        /// The last sequence that is lost.
        last: u64,
        /// Keys that the lost records wrote, as far as they can be read; not verified.
        keys: Vec<Bytes>,
    },
    /// A whole segment cannot be read; what it held is not known.
    LostSegment {
        /// The segment.
        segment: u64,
    },
    /// The newest segment is not there; what it held is not known.
    MissingSegment {
        /// The segment.
        segment: u64,
    },
    /// Records that the table behind the journal does not have either: a segment is not there, or the table is an
    /// older one.
    MissingRecords {
        /// The first sequence that is missing.
        first: u64,
        /// The last sequence that is missing.
        last: u64,
    },
}

impl Damage {
    /// Whether the next opening would not find it any more.
    pub(super) fn is_missing(&self) -> bool {
        match self {
            Self::MissingSegment { .. } | Self::MissingRecords { .. } => true,
            Self::TornTail { .. } | Self::LostRecords { .. } | Self::LostSegment { .. } => false,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail { segment, offset_bytes } => {
                write!(f, "journal segment {segment} was cut at byte {offset_bytes}: unflushed writes are gone")
            }
            Self::LostRecords { segment, first, last, keys } => {
                let keys = keys.len();
                write!(f, "journal segment {segment}: records {first} to {last} are damaged ({keys} keys are known)")
            }
            Self::LostSegment { segment } => write!(f, "journal segment {segment} cannot be read"),
            Self::MissingSegment { segment } => write!(f, "journal segment {segment}, the newest, is missing"),
            Self::MissingRecords { first, last } => {
                write!(f, "records {first} to {last} of the journal are missing, and are not in the table either")
            }
        }
    }
}

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Starts the checksums of every record in it.
    pub(super) salt: u32,
    /// Its number.
    pub(super) segment: u64,
    /// The sequence of its first record.
    pub(super) first: u64,
}

impl SegmentHeader {
    /// Both copies.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORDS_START);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&checksum(0, &bytes).to_le_bytes());
        bytes.extend_from_within(..);
        bytes
    }

    /// The header of `segment`, from whichever copy is intact.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an intact header is of another version.
    pub(super) fn decode(segment: u64, bytes: &[u8]) -> Result<Option<Self>, Error> {
        for copy in bytes.chunks_exact(HEADER_BYTES).take(2) {
            let (fields, crc) = copy.split_at(HEADER_BYTES - 4);
            if copy[..8] != SEGMENT_MAGIC || u32_at(crc, 0) != checksum(0, fields) {
                continue;
            }
            let version = u32_at(copy, 8);
            if version != FORMAT_VERSION {
                return Err(Error::Corrupt(format!(
                    "journal segment {segment} has format {version}, this build knows {FORMAT_VERSION}"
                )));
            }
            let header = Self { salt: u32_at(copy, 12), segment: u64_at(copy, 16), first: u64_at(copy, 24) };
            return Ok(Some(header).filter(|header| header.segment == segment));
        }
        Ok(None)
    }
}

/// A batch as the payload of a record.
///
/// # Errors
/// [`Error::TooLarge`] over [`limits::BATCH_BYTES_MAX`].
pub(super) fn encode_batch(batch: &Batch) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    writer.list(batch.writes(), |writer, (key, value)| {
        writer.bytes(key);
        match value {
            None => writer.u8(0),
            Some(value) => writer.u8(1).bytes(value),
        };
    });
    let (size_bytes, limit_bytes) = (writer.len(), limits::BATCH_BYTES_MAX);
    if size_bytes > limit_bytes { Err(Error::TooLarge { size_bytes, limit_bytes }) } else { Ok(writer.finish()) }
}

/// The checksum of a payload under a journal's salt.
pub(super) fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

/// Appends one record to `buffer`; `payload_crc` is the [`checksum`] of `payload`.
pub(super) fn append_record(
    buffer: &mut Vec<u8>,
    salt: u32,
    sequence: u64,
    durable: u64,
    payload: &[u8],
    payload_crc: u32,
) {
    let start = buffer.len();
    buffer.extend_from_slice(&RECORD_MAGIC);
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&sequence.to_le_bytes());
    buffer.extend_from_slice(&durable.to_le_bytes());
    buffer.extend_from_slice(&payload_crc.to_le_bytes());
    buffer.extend_from_slice(&checksum(salt, &buffer[start..]).to_le_bytes());
    buffer.extend_from_slice(payload);
}

/// Bytes of a record with this payload.
pub(super) fn record_bytes(payload: &[u8]) -> usize {
    RECORD_HEADER_BYTES + payload.len()
}

/// What one segment holds.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Intact batches in order.
    pub(super) batches: Vec<Batch>,
    /// The sequence that follows.
    pub(super) next: u64,
    /// Bytes up to which the segment is to be kept, when that is not all of it.
    pub(super) cut: Option<usize>,
    /// Faults found.
    pub(super) damage: Vec<Damage>,
}

/// What comes after a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Successor {
    /// Nothing: the segment may have a torn tail.
    None,
    /// A segment that starts with this sequence.
    First(u64),
    /// A segment that cannot be read.
    Unreadable,
}

/// Reads the records of a segment.
pub(super) fn replay(header: SegmentHeader, bytes: &Bytes, successor: Successor) -> Replay {
    let records = index(header, bytes);
    let synced = match successor {
        Successor::None => records.iter().map(|record| record.durable).max().unwrap_or(0),
        Successor::First(_) | Successor::Unreadable => u64::MAX,
    };
    let mut replay = Replay { next: header.first, ..Replay::default() };
    let mut lost = Vec::new();
    let mut end = RECORDS_START;
    let kept = without_rest(bytes, records.last().map_or(end, |record| record.payload.end));
    for record in records {
        let batch = if record.intact { decode_batch(&kept, record.payload.clone()).ok() } else { None };
        let Some(batch) = batch else {
            lost.push(record.payload);
            continue;
        };
        if record.sequence > replay.next {
            if replay.next > synced {
                return replay.torn(header.segment, end);
            }
            replay.lose(header.segment, record.sequence, bytes, &mut lost);
        }
        replay.batches.push(batch);
        replay.next = record.sequence + 1;
        end = record.payload.end;
    }
    let expected = match successor {
        Successor::None => synced.saturating_add(1),
        Successor::First(first) => first,
        Successor::Unreadable => 0,
    };
    if expected > replay.next {
        replay.lose(header.segment, expected, bytes, &mut lost);
    }
    let written_after = bytes.get(end..).is_some_and(|tail| tail.iter().any(|byte| *byte != 0));
    if successor == Successor::None && written_after { replay.torn(header.segment, end) } else { replay }
}

/// The first `end` bytes. What is decoded shares their memory, so they are copied when most of a large segment
/// is unused.
fn without_rest(bytes: &Bytes, end: usize) -> Bytes {
    let used = &bytes[..end.min(bytes.len())];
    if bytes.len() > 2 * used.len() { Bytes::copy_from_slice(used) } else { bytes.slice_ref(used) }
}

impl Replay {
    fn torn(mut self, segment: u64, end: usize) -> Self {
        self.damage.push(Damage::TornTail { segment, offset_bytes: end as u64 });
        self.cut = Some(end);
        self
    }

    /// Reports everything from `self.next` up to `until`, exclusive, as lost.
    fn lose(&mut self, segment: u64, until: u64, bytes: &[u8], payloads: &mut Vec<Range<usize>>) {
        let keys = payloads.drain(..).flat_map(|range| readable_keys(&bytes[range]));
        let keys = keys.take(limits::DAMAGE_KEYS_MAX).collect();
        self.damage.push(Damage::LostRecords { segment, first: self.next, last: until - 1, keys });
        self.next = until;
    }
}

/// A record whose header is intact.
#[derive(Debug)]
struct Located {
    sequence: u64,
    durable: u64,
    payload: Range<usize>,
    /// Whether its payload is.
    intact: bool,
}

/// Every record with an intact header, ascending. Behind a damaged header the next intact one is searched;
/// behind a damaged payload the header's length is trusted, so that no byte is checked twice.
fn index(header: SegmentHeader, bytes: &[u8]) -> Vec<Located> {
    let mut records = Vec::new();
    let mut position = RECORDS_START;
    let mut next = header.first;
    while let Some(offset) = bytes.get(position..).and_then(find_magic) {
        position += offset;
        let Some(record) = locate(header.salt, bytes, position).filter(|record| record.sequence >= next) else {
            position += 1;
            continue;
        };
        position = record.payload.end;
        next = record.sequence.saturating_add(1);
        records.push(record);
    }
    records
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(RECORD_MAGIC.len()).position(|window| window == RECORD_MAGIC)
}

fn locate(salt: u32, bytes: &[u8], position: usize) -> Option<Located> {
    let start = position + RECORD_HEADER_BYTES;
    let header = bytes.get(position..start)?;
    if u32_at(header, 28) != checksum(salt, &header[..28]) {
        return None;
    }
    let end = start.saturating_add(u32_at(header, 4) as usize);
    let payload = start..end.min(bytes.len());
    let intact = end <= bytes.len() && checksum(salt, &bytes[payload.clone()]) == u32_at(header, 24);
    // The last sequence of all is never given out; refusing it keeps the arithmetic on sequences whole.
    let sequence = Some(u64_at(header, 8)).filter(|sequence| *sequence < u64::MAX)?;
    Some(Located { sequence, durable: u64_at(header, 16).min(sequence), payload, intact })
}

/// Reads a payload; keys and values share the memory of the segment.
fn decode_batch(segment: &Bytes, range: Range<usize>) -> Result<Batch, DecodeError> {
    let payload = segment.slice(range);
    let mut reader = Reader::new(&payload);
    let mut batch = Batch::new();
    let count: usize = reader.int()?;
    for _ in 0..count {
        let (key, value) = decode_write(&mut reader)?;
        match value {
            Some(value) => batch.put(payload.slice_ref(key), payload.slice_ref(value)),
            None => batch.delete(payload.slice_ref(key)),
        }
    }
    reader.finish()?;
    Ok(batch)
}

fn decode_write<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), DecodeError> {
    let key = reader.bytes("key", limits::BATCH_BYTES_MAX)?;
    match reader.u8()? {
        0 => Ok((key, None)),
        1 => Ok((key, Some(reader.bytes("value", limits::BATCH_BYTES_MAX)?))),
        tag => Err(DecodeError::Unknown { what: "write", value: u64::from(tag) }),
    }
}

/// The keys of a damaged payload, up to the first that does not decode.
fn readable_keys(payload: &[u8]) -> Vec<Bytes> {
    let mut reader = Reader::new(payload);
    let count = reader.int::<usize>().unwrap_or(0).min(limits::DAMAGE_KEYS_MAX);
    let writes = (0..count).map_while(|_| {
        let key = reader.bytes("key", limits::BATCH_BYTES_MAX).ok()?;
        let value_follows = reader.u8().ok()?;
        // The key counts even when its value is cut off.
        if value_follows == 1 && reader.bytes("value", limits::BATCH_BYTES_MAX).is_err() {
            reader = Reader::new(&[]);
        }
        Some(Bytes::copy_from_slice(key))
    });
    writes.collect()
}

/// Where the records of a segment are, with their headers: for a simulated disk that damages them.
pub(super) fn record_ranges(segment: u64, bytes: &[u8]) -> Vec<Range<usize>> {
    let Ok(Some(header)) = SegmentHeader::decode(segment, bytes) else { return Vec::new() };
    let records = index(header, bytes).into_iter();
    records.map(|record| record.payload.start - RECORD_HEADER_BYTES..record.payload.end).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the caller checked the length"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the caller checked the length"))
}
