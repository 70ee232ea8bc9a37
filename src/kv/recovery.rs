//! What is done with the journal when a store is opened: every segment is replayed, in order.
//!
//! The last segment is special twice. It may end in writes that were never synced: those that are whole are
//! taken and synced now (a later segment will vouch for them), the rest is cut off. And it may have
//! been made at the very moment of a crash, so that not even its header is there: then it never held a record.
//!
//! The table says up to which record it holds everything ([`POSITION`], written with what is moved into it), and the
//! medium which segment is the newest: when the oldest segment starts later, or the newest is not there, files are
//! missing. (Those between two others are missed by their records.)
//!
//! Not here: the meaning of damage. It is reported, and everything readable is used.

use bytes::Bytes;

use super::journal::{self, Damage, RECORDS_START, SegmentHeader, Successor};
use super::memtable::{self, ENTRY_BYTES, Entries};
use super::{Batch, Error, Kv, Medium};

/// Where the inner store has the sequence of the last record that was moved into it.
pub(super) const POSITION: &[u8] = b"\0journal";

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
    /// The greatest number that a segment ever had, as far as is known.
    pub(super) newest: u64,
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
        let (numbers, newest, moved) = (medium.segments()?, medium.newest()?, position(inner)?);
        if numbers.is_empty() && newest.is_none() && moved.is_none() {
            // A new store: from here on the table says how far it is.
            move_table(inner, &Entries::new(), 0, &|| true)?;
        }
        if let (Some(newest), Some(&last)) = (newest, numbers.last())
            && newest < last
            && numbers.binary_search(&newest).is_ok()
        {
            // A crash came between making the last one and saying so; the one before may be removed from here on.
            medium.set_newest(last)?;
        }
        let mut recovery = Self {
            table: Entries::new(),
            segments: Vec::new(),
            empty: Vec::new(),
            next: moved.map_or(1, |moved| moved.saturating_add(1)),
            newest: newest.max(numbers.last().copied()).unwrap_or(0),
            table_bytes: 0,
            damage: Vec::new(),
        };
        let mut ahead = numbers.first().map(|number| Segment::read(medium, *number)).transpose()?;
        let mut following = numbers.iter().skip(1);
        let first = ahead.as_ref().and_then(|segment| segment.header).map(|header| header.first);
        if let (Some(first), Some(_)) = (first, moved)
            && first > recovery.next
        {
            recovery.damage.push(Damage::MissingRecords { first: recovery.next, last: first - 1 });
        }
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
        let missing = newest.filter(|newest| numbers.binary_search(newest).is_err());
        recovery.damage.extend(missing.map(|segment| Damage::MissingSegment { segment }));
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
        move_table(inner, &self.table, self.next - 1, &|| true)?;
        self.table.clear();
        self.table_bytes = 0;
        self.segments.drain(..).try_for_each(|segment| medium.remove(segment))
    }
}

/// Moves a table into the inner store, durably, with the sequence of its last record. Starts again when the inner store
/// is found damaged meanwhile, and was built anew.
///
/// # Errors
/// When the inner store fails, or `go_on` does not hold any more while it is built anew.
pub(super) fn move_table(
    inner: &dyn Kv,
    table: &Entries,
    last: u64,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<(), Error> {
    let mut position = Batch::new();
    position.put(POSITION, last.to_be_bytes().to_vec());
    loop {
        let mut batches = memtable::batches(table).chain([position.clone()]);
        match batches.try_for_each(|batch| inner.apply(batch)).and_then(|()| inner.flush()) {
            Err(Error::Unreadable(_)) => inner.mend(go_on)?,
            moved => return moved,
        }
    }
}

/// Lets the position pass records that are missing, once that is remembered: the next opening is not to find it again.
///
/// # Errors
/// As [`move_table`].
pub(super) fn pass_missing(inner: &dyn Kv, damage: &[Damage]) -> Result<(), Error> {
    for damage in damage {
        if let Damage::MissingRecords { last, .. } = damage {
            move_table(inner, &Entries::new(), *last, &|| true)?;
        }
    }
    Ok(())
}

/// The sequence of the last record that was moved into the inner store; `None` when nobody knows.
fn position(inner: &dyn Kv) -> Result<Option<u64>, Error> {
    loop {
        match inner.get(POSITION) {
            Ok(found) => return Ok(found.and_then(|bytes| Some(u64::from_be_bytes(bytes[..].try_into().ok()?)))),
            Err(Error::Unreadable(_)) => inner.mend(&|| true)?,
            Err(error) => return Err(error),
        }
    }
}
