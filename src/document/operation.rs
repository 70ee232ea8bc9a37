//! The chunk of a change and the rows of its operations, as they stand in the bytes.
//!
//! This reads the form only. What the operations refer to is checked in `place`. Refused although Automerge
//! knows it: compressed chunks and columns, marks, tables, values of unknown types and trailing bytes; nothing here
//! writes them, and each would be one more thing that hostile bytes could reach.

use crate::base::{ActorId, ChangeHash, DecodeError, Hlc, Reader};
use crate::limits::{CHANGE_ACTORS_MAX, CHANGE_BYTES_MAX, CHANGE_DEPS_MAX, CHANGE_OPS_MAX, CHANGE_PREDECESSORS_MAX};

use super::column::{Booleans, Deltas, Runs, signed};
use super::error::ScreenError;

/// The message by which a change without operations deletes its document.
pub const DELETE_MARK: &str = "delete";
/// The first bytes of every chunk.
pub(super) const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// The type of an uncompressed change chunk.
pub(super) const CHUNK_TYPE: u8 = 1;

/// Column specifications (id * 16 + type) in the order of the file.
pub(super) const COLUMNS: [u32; 12] = [1, 2, 17, 19, 21, 52, 66, 86, 87, 112, 113, 115];

/// A change as its bytes say it.
pub(super) struct Parsed<'a> {
    pub(super) checksum: [u8; 4],
    pub(super) deps: Vec<ChangeHash>,
    /// Its own actor, then the others in ascending order.
    pub(super) actors: Vec<ActorId>,
    pub(super) seq: u64,
    pub(super) start_op: u32,
    pub(super) time: Hlc,
    pub(super) is_delete: bool,
    columns: [&'a [u8]; COLUMNS.len()],
}

/// An operation by its actor (an index into the actors of its change) and counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpRef {
    pub(super) counter: u32,
    pub(super) actor: u32,
}

/// Where in its object an operation acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Field(&'a str),
    Head,
    Element(OpRef),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    MakeMap,
    MakeList,
    MakeText,
    Set,
    Delete,
    Increment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueType {
    Null,
    False,
    True,
    Uint,
    Int,
    Float,
    String,
    Bytes,
    Counter,
    Timestamp,
}

/// One operation; its predecessors are in the buffer given to [`Rows::next`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    /// `None` is the root.
    pub(super) object: Option<OpRef>,
    pub(super) key: Key<'a>,
    pub(super) insert: bool,
    pub(super) action: Action,
    pub(super) value_type: ValueType,
    pub(super) value: &'a [u8],
}

impl<'a> Parsed<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, ScreenError> {
        if payload.len() > CHANGE_BYTES_MAX {
            return Err(ScreenError::TooLarge(payload.len()));
        }
        let mut reader = Reader::new(payload);
        if reader.fixed::<4>()? != MAGIC {
            return Err(ScreenError::Rule("this is not an Automerge chunk"));
        }
        let checksum = reader.fixed()?;
        if reader.u8()? != CHUNK_TYPE {
            return Err(ScreenError::Rule("only uncompressed change chunks are taken"));
        }
        if reader.int::<usize>()? != reader.remaining() {
            return Err(ScreenError::Rule("the chunk's length is not that of the bytes"));
        }
        Self::read_body(checksum, reader)
    }

    fn read_body(checksum: [u8; 4], mut reader: Reader<'a>) -> Result<Self, ScreenError> {
        let deps = reader.list("dependencies", CHANGE_DEPS_MAX, |reader| reader.fixed().map(ChangeHash))?;
        if !deps.is_sorted_by(|a, b| a < b) {
            return Err(ScreenError::Rule("dependencies must be sorted and different"));
        }
        let own = actor(&mut reader)?;
        let seq = reader.varint()?;
        let start_op = reader.int::<u32>()?;
        if seq == 0 || start_op == 0 {
            return Err(ScreenError::Rule("sequence and operation numbers start at 1"));
        }
        let time = Hlc::from_packed(signed(&mut reader)?).ok_or(ScreenError::Rule("the time is negative"))?;
        let is_delete = match reader.string("message", DELETE_MARK.len())? {
            "" => false,
            DELETE_MARK => true,
            _ => return Err(ScreenError::Rule("the message is not the mark of a delete")),
        };
        let others = reader.list("actors", CHANGE_ACTORS_MAX - 1, actor)?;
        if !others.is_sorted_by(|a, b| a < b) || others.contains(&own) {
            return Err(ScreenError::Rule("actors must be sorted and different"));
        }
        let columns = columns(&mut reader)?;
        reader.finish()?;
        let actors = std::iter::once(own).chain(others).collect();
        Ok(Self { checksum, deps, actors, seq, start_op, time, is_delete, columns })
    }

    /// The operations in order.
    pub(super) fn rows(&self) -> Rows<'a> {
        let [object_actor, object, key_actor, key, field, insert, action, meta, values, predecessors, actor, counter] =
            self.columns;
        Rows {
            actors: self.actors.len() as u64,
            count: 0,
            predecessor_count: 0,
            object_actor: Runs::new(object_actor),
            object_counter: Runs::new(object),
            key_actor: Runs::new(key_actor),
            key_counter: Deltas::new(key),
            field: Runs::new(field),
            insert: Booleans::new(insert),
            action: Runs::new(action),
            value_meta: Runs::new(meta),
            values,
            predecessors: Runs::new(predecessors),
            predecessor_actor: Runs::new(actor),
            predecessor_counter: Deltas::new(counter),
        }
    }
}

fn actor(reader: &mut Reader<'_>) -> Result<ActorId, DecodeError> {
    let bytes = reader.bytes("actor", 16)?;
    bytes.try_into().map(ActorId).map_err(|_| DecodeError::Rule(format!("an actor has {} bytes, not 16", bytes.len())))
}

/// Splits the rest of the chunk into the columns, by the table in front of it.
fn columns<'a>(reader: &mut Reader<'a>) -> Result<[&'a [u8]; COLUMNS.len()], ScreenError> {
    let table = reader.list("columns", COLUMNS.len(), |reader| Ok((reader.int::<u32>()?, reader.int::<usize>()?)))?;
    let mut columns = [&[][..]; COLUMNS.len()];
    let mut next = 0;
    let mut data = reader.rest();
    for (specification, length) in table {
        let found = COLUMNS[next..].iter().position(|&known| known == specification);
        let found = found.ok_or(ScreenError::Rule("a column is unknown, compressed or out of order"))?;
        if length == 0 {
            return Err(ScreenError::Rule("a column is empty"));
        }
        let (column, rest) = data.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        columns[next + found] = column;
        next += found + 1;
        data = rest;
    }
    if data.is_empty() { Ok(columns) } else { Err(DecodeError::Trailing(data.len()).into()) }
}

/// Reads operations row by row.
pub(super) struct Rows<'a> {
    actors: u64,
    count: u64,
    predecessor_count: u64,
    object_actor: Runs<'a, u64>,
    object_counter: Runs<'a, u64>,
    key_actor: Runs<'a, u64>,
    key_counter: Deltas<'a>,
    field: Runs<'a, &'a str>,
    insert: Booleans<'a>,
    action: Runs<'a, u64>,
    value_meta: Runs<'a, u64>,
    values: &'a [u8],
    predecessors: Runs<'a, u64>,
    predecessor_actor: Runs<'a, u64>,
    predecessor_counter: Deltas<'a>,
}

impl<'a> Rows<'a> {
    /// The next operation; `None` after the last, when the caller must still call [`Rows::finish`].
    pub(super) fn next(&mut self, predecessors: &mut Vec<OpRef>) -> Result<Option<Row<'a>>, ScreenError> {
        if self.action.is_done() {
            return Ok(None);
        }
        self.count += 1;
        if self.count > CHANGE_OPS_MAX {
            return Err(ScreenError::Rule("too many operations"));
        }
        let action = self.action()?;
        let (value_type, value) = self.value()?;
        self.predecessors(predecessors)?;
        let (object, key, insert) = (self.object()?, self.key()?, self.insert.row()?);
        Ok(Some(Row { object, key, insert, action, value_type, value }))
    }

    /// Checks that every column ends with the last operation.
    pub(super) fn finish(self) -> Result<(), ScreenError> {
        if !self.values.is_empty() {
            return Err(ScreenError::Rule("value bytes are left over"));
        }
        self.object_actor.finish()?;
        self.object_counter.finish()?;
        self.key_actor.finish()?;
        self.key_counter.finish()?;
        self.field.finish()?;
        self.insert.finish()?;
        self.action.finish()?;
        self.value_meta.finish()?;
        self.predecessors.finish()?;
        self.predecessor_actor.finish()?;
        self.predecessor_counter.finish()
    }

    fn reference(&self, actor: u64, counter: u32) -> Result<OpRef, ScreenError> {
        if actor >= self.actors || counter == 0 {
            return Err(ScreenError::Rule("an operation refers to an actor or a number that cannot be"));
        }
        Ok(OpRef { counter, actor: actor as u32 })
    }

    fn action(&mut self) -> Result<Action, ScreenError> {
        match self.action.row()? {
            Some(0) => Ok(Action::MakeMap),
            Some(1) => Ok(Action::Set),
            Some(2) => Ok(Action::MakeList),
            Some(3) => Ok(Action::Delete),
            Some(4) => Ok(Action::MakeText),
            Some(5) => Ok(Action::Increment),
            Some(_) | None => Err(ScreenError::Rule("an operation has no known action")),
        }
    }

    fn object(&mut self) -> Result<Option<OpRef>, ScreenError> {
        match (self.object_actor.row()?, self.object_counter.row()?) {
            (None, None) => Ok(None),
            (Some(actor), Some(counter)) => {
                let counter = u32::try_from(counter).map_err(|_| DecodeError::Integer)?;
                self.reference(actor, counter).map(Some)
            }
            (Some(_), None) | (None, Some(_)) => Err(ScreenError::Rule("an operation names half an object")),
        }
    }

    fn key(&mut self) -> Result<Key<'a>, ScreenError> {
        match (self.key_actor.row()?, self.key_counter.row()?, self.field.row()?) {
            (None, None, Some(field)) => Ok(Key::Field(field)),
            (None, Some(0), None) => Ok(Key::Head),
            (Some(actor), Some(counter), None) => self.reference(actor, counter).map(Key::Element),
            _ => Err(ScreenError::Rule("an operation names neither a field nor an element")),
        }
    }

    fn value(&mut self) -> Result<(ValueType, &'a [u8]), ScreenError> {
        let meta = self.value_meta.row()?.ok_or(ScreenError::Rule("an operation has no value"))?;
        let value_type = match meta & 0x0f {
            0 => ValueType::Null,
            1 => ValueType::False,
            2 => ValueType::True,
            3 => ValueType::Uint,
            4 => ValueType::Int,
            5 => ValueType::Float,
            6 => ValueType::String,
            7 => ValueType::Bytes,
            8 => ValueType::Counter,
            9 => ValueType::Timestamp,
            _ => return Err(ScreenError::Rule("a value has an unknown type")),
        };
        let length = usize::try_from(meta >> 4).map_err(|_| DecodeError::Integer)?;
        if length > 0 && matches!(value_type, ValueType::Null | ValueType::False | ValueType::True) {
            return Err(ScreenError::Rule("null, true and false have no bytes"));
        }
        let (value, rest) = self.values.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.values = rest;
        Ok((value_type, value))
    }

    fn predecessors(&mut self, predecessors: &mut Vec<OpRef>) -> Result<(), ScreenError> {
        predecessors.clear();
        let count = self.predecessors.row()?.ok_or(ScreenError::Rule("an operation has no predecessor count"))?;
        self.predecessor_count = self.predecessor_count.saturating_add(count);
        if self.predecessor_count > CHANGE_PREDECESSORS_MAX {
            return Err(ScreenError::Rule("too many predecessors"));
        }
        for _ in 0..count {
            match (self.predecessor_actor.row()?, self.predecessor_counter.row()?) {
                (Some(actor), Some(counter)) => predecessors.push(self.reference(actor, counter)?),
                _ => return Err(ScreenError::Rule("a predecessor is missing")),
            }
        }
        Ok(())
    }
}
