//! What is done with the journal when a store is opened: every segment is replayed, in order.
//!
//! The last segment is special twice. It may end in writes that were never synced: those that are whole are
//! taken and synced now (a later segment will vouch for them), the rest is cut off. And it may have
//! been made at the very moment of a crash, so that not even its header is there: then it never held a record.
//!
//! Not here: the meaning of damage. It is reported, and everything readable is used.

use bytes::Bytes;

use super::journal::{self, Damage, RECORDS_START, SegmentHeader, Successor};
use super::memtable::{self, ENTRY_BYTES, Entries};
use super::{Error, Kv, Medium};

/// What a journal held.
#[derive(Debug)]
pub(super) struct Recovery {
    /// The newest state of every key that it writes and that was not moved on.
    pub(super) table: Entries,
    /// The segments that `table` is made of, ascending.
    pub(super) segments: Vec<u64>,
    /// Segments without records, to be removed once there is a newer one that carries the sequence on.
    pub(super) empty: Vec<u64>,
    /// The sequence of the next record.
    pub(super) next: u64,
    /// Bytes of `table` and its records, about.
    pub(super) table_bytes: usize,
    /// What was found damaged.
    pub(super) damage: Vec<Damage>,
}

/// A segment that was read.
struct Segment {
    number: u64,
    bytes: Bytes,
    header: Option<SegmentHeader>,
}

impl Segment {
    fn read(medium: &dyn Medium, number: u64) -> Result<Self, Error> {
        let bytes = Bytes::from(medium.read(number)?);
        let header = SegmentHeader::decode(number, &bytes)?;
        Ok(Self { number, bytes, header })
    }

    fn holds_records(&self) -> bool {
        self.bytes.get(RECORDS_START..).is_some_and(|records| records.iter().any(|byte| *byte != 0))
    }
}

impl Recovery {
    /// Replays a journal. Whenever the table grows over `table_bytes_max` it is moved into `inner`.
    pub(super) fn run(inner: &dyn Kv, medium: &dyn Medium, table_bytes_max: usize) -> Result<Self, Error> {
        let mut recovery = Self {
            table: Entries::new(),
            segments: Vec::new(),
            empty: Vec::new(),
            next: 1,
            table_bytes: 0,
            damage: Vec::new(),
        };
        let numbers = medium.segments()?;
        let mut ahead = numbers.first().map(|number| Segment::read(medium, *number)).transpose()?;
        let mut following = numbers.iter().skip(1);
        while let Some(segment) = ahead {
            ahead = following.next().map(|number| Segment::read(medium, *number)).transpose()?;
            let successor = match &ahead {
                None => Successor::None,
                Some(next) => next.header.map_or(Successor::Unreadable, |header| Successor::First(header.first)),
            };
            recovery.take(medium, &segment, successor)?;
            if ahead.is_some() && recovery.table_bytes >= table_bytes_max {
                recovery.move_into(inner, medium)?;
            }
        }
        Ok(recovery)
    }

    fn take(&mut self, medium: &dyn Medium, segment: &Segment, successor: Successor) -> Result<(), Error> {
        let number = segment.number;
        let Some(header) = segment.header else {
            if segment.holds_records() {
                self.damage.push(Damage::LostSegment { segment: number });
                self.segments.push(number);
            } else {
                self.empty.push(number);
            }
            return Ok(());
        };
        let replay = journal::replay(header, &segment.bytes, successor);
        if successor == Successor::None {
            match replay.cut {
                Some(end) => medium.truncate(number, end as u64)?,
                None => medium.sync(number)?,
            }
        }
        self.next = self.next.max(replay.next);
        // A damaged one is kept as long as possible, to be reported again.
        let is_empty = replay.batches.is_empty() && replay.damage.is_empty();
        let list = if is_empty { &mut self.empty } else { &mut self.segments };
        list.push(number);
        self.damage.extend(replay.damage);
        for batch in replay.batches {
            for (key, value) in batch.into_writes() {
                self.table_bytes += ENTRY_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len);
                self.table.insert(key, value);
            }
        }
        Ok(())
    }

    fn move_into(&mut self, inner: &dyn Kv, medium: &dyn Medium) -> Result<(), Error> {
        memtable::batches(&self.table).try_for_each(|batch| inner.apply(batch))?;
        inner.flush()?;
        self.table.clear();
        self.table_bytes = 0;
        self.segments.drain(..).try_for_each(|segment| medium.remove(segment))
    }
}
