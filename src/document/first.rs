//! The first change of a document, written and read without Automerge.
//!
//! Most documents of a bulk transfer or an import have one change. Making it field by field, or opening a
//! document only to see its view, takes Automerge several times as long as everything else that happens to it.
//! What is written here is, byte for byte, what Automerge writes; what is read here falls back to
//! Automerge for anything but plain fields and lists in order. The tests compare both.

use std::collections::{BTreeMap, VecDeque};

use automerge::ScalarValue;
use serde_json::{Number, Value};

use crate::base::{ActorId, Hlc, Reader, Writer};

use super::column::{signed, write_booleans, write_deltas, write_runs, write_signed};
use super::json::Object;
use super::operation::{COLUMNS, Key, Parsed, Row, ValueType};
use super::view;

/// One operation to write. Numbers are operation counters; 0 is the root.
#[derive(Clone, Copy)]
struct New<'a> {
    object: u32,
    key: NewKey<'a>,
    action: u64,
    value: Option<&'a Value>,
    predecessor: Option<u32>,
}

#[derive(Clone, Copy)]
enum NewKey<'a> {
    Field(&'a str),
    /// After this element; 0 is the head.
    After(u32),
}

const MAKE_MAP: u64 = 0;
const SET: u64 = 1;
const MAKE_LIST: u64 = 2;
const DELETE: u64 = 3;

/// The body of the chunk of the first change of a document with these fields.
pub(super) fn body(actor: ActorId, now: Hlc, fields: &Object) -> Vec<u8> {
    let operations = operations(fields);
    let columns = columns(&operations);
    let mut body = Writer::new();
    body.varint(0).bytes(&actor.0).varint(1).varint(1);
    write_signed(&mut body, now.packed());
    body.string("").varint(0);
    let present: Vec<_> = COLUMNS.iter().zip(&columns).filter(|(_, bytes)| !bytes.is_empty()).collect();
    body.list(&present, |writer, (specification, bytes)| {
        writer.varint(u64::from(**specification)).varint(bytes.len() as u64);
    });
    for (_, bytes) in present {
        body.fixed(bytes);
    }
    body.finish()
}

/// The operations level by level, as Automerge orders them. Without fields, two that leave nothing behind: an edit has
/// at least one.
fn operations(fields: &Object) -> Vec<New<'_>> {
    let mut plan = Plan::default();
    for (key, value) in fields {
        plan.push(0, NewKey::Field(key), value);
    }
    while let Some((object, container)) = plan.containers.pop_front() {
        plan.fill(object, container);
    }
    if plan.operations.is_empty() {
        let touch = New { object: 0, key: NewKey::Field("_"), action: SET, value: None, predecessor: None };
        plan.operations = vec![touch, New { action: DELETE, predecessor: Some(1), ..touch }];
    }
    plan.operations
}

#[derive(Default)]
struct Plan<'a> {
    operations: Vec<New<'a>>,
    /// Objects and lists that were made and not yet filled.
    containers: VecDeque<(u32, &'a Value)>,
}

impl<'a> Plan<'a> {
    fn push(&mut self, object: u32, key: NewKey<'a>, value: &'a Value) -> u32 {
        let (action, scalar) = match value {
            Value::Object(_) => (MAKE_MAP, None),
            Value::Array(_) => (MAKE_LIST, None),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (SET, Some(value)),
        };
        self.operations.push(New { object, key, action, value: scalar, predecessor: None });
        let id = self.operations.len() as u32;
        if scalar.is_none() {
            self.containers.push_back((id, value));
        }
        id
    }

    fn fill(&mut self, object: u32, container: &'a Value) {
        match container {
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.push(object, NewKey::Field(key), value);
                }
            }
            Value::Array(items) => {
                let mut last = 0;
                for item in items {
                    last = self.push(object, NewKey::After(last), item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// The columns in the order of [`COLUMNS`]; those without bytes are left out of the chunk.
fn columns(operations: &[New<'_>]) -> [Vec<u8>; COLUMNS.len()] {
    let each = || operations.iter();
    let own = |id: u32| (id > 0).then_some(0u64);
    let after = |op: &New<'_>| match op.key {
        NewKey::Field(_) => None,
        NewKey::After(element) => Some(element),
    };
    let mut values = Writer::new();
    let metas: Vec<u64> = each().map(|op| write_value(op.value, &mut values)).collect();
    [
        write_runs(each().map(|op| own(op.object))),
        write_runs(each().map(|op| (op.object > 0).then_some(u64::from(op.object)))),
        write_runs(each().map(|op| after(op).and_then(own))),
        write_deltas(each().map(after)),
        write_runs(each().map(|op| match op.key {
            NewKey::Field(name) => Some(name),
            NewKey::After(_) => None,
        })),
        write_booleans(each().map(|op| after(op).is_some())),
        write_runs(each().map(|op| Some(op.action))),
        write_runs(metas.into_iter().map(Some)),
        values.finish(),
        write_runs(each().map(|op| Some(u64::from(op.predecessor.is_some())))),
        write_runs(each().filter_map(|op| op.predecessor).map(own)),
        write_deltas(each().filter_map(|op| op.predecessor).map(Some)),
    ]
}

/// Appends the bytes of a value and gives its metadata: length and type.
fn write_value(value: Option<&Value>, values: &mut Writer) -> u64 {
    let start = values.len();
    let value_type = match value {
        None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => 0,
        Some(Value::Bool(false)) => 1,
        Some(Value::Bool(true)) => 2,
        Some(Value::Number(number)) => write_number(number, values),
        Some(Value::String(text)) => {
            values.fixed(text.as_bytes());
            6
        }
    };
    ((values.len() - start) as u64) << 4 | value_type
}

fn write_number(number: &Number, values: &mut Writer) -> u64 {
    match (number.as_i64(), number.as_u64()) {
        (Some(int), _) => {
            write_signed(values, int);
            4
        }
        (None, Some(uint)) => {
            values.varint(uint);
            3
        }
        (None, None) => {
            values.fixed(&number.as_f64().unwrap_or(0.0).to_le_bytes());
            5
        }
    }
}

/// A thing that an operation made.
enum Made<'a> {
    Map(BTreeMap<&'a str, usize>),
    List(Vec<usize>),
    Scalar(ValueType, &'a [u8]),
}

/// The view of a document made of one change that was checked to depend on nothing; `None` when it does more than
/// setting fields and appending to lists.
pub(super) fn view(parsed: &Parsed<'_>) -> Option<Vec<u8>> {
    let mut made = vec![Made::Map(BTreeMap::new())];
    let mut rows = parsed.rows();
    let mut predecessors = Vec::new();
    while let Some(row) = rows.next(&mut predecessors).ok()? {
        if !predecessors.is_empty() {
            return None;
        }
        let thing = thing(&row)?;
        let id = made.len();
        let object = row.object.map_or(0, |object| object.counter as usize);
        match (made.get_mut(object)?, row.key) {
            (Made::Map(fields), Key::Field(name)) => {
                fields.insert(name, id);
            }
            (Made::List(items), Key::Head) if row.insert && items.is_empty() => items.push(id),
            (Made::List(items), Key::Element(element))
                if row.insert && items.last() == Some(&(element.counter as usize)) =>
            {
                items.push(id);
            }
            _ => return None,
        }
        made.push(thing);
    }
    let mut out = Vec::with_capacity(256);
    write(&made, 0, &mut out)?;
    Some(out)
}

fn thing<'a>(row: &Row<'a>) -> Option<Made<'a>> {
    use super::operation::Action;
    match row.action {
        Action::MakeMap => Some(Made::Map(BTreeMap::new())),
        Action::MakeList => Some(Made::List(Vec::new())),
        Action::Set => Some(Made::Scalar(row.value_type, row.value)),
        Action::MakeText | Action::Delete | Action::Increment => None,
    }
}

/// Recurses as deep as the document is, which the check of the change bounds.
fn write(made: &[Made<'_>], id: usize, out: &mut Vec<u8>) -> Option<()> {
    match &made[id] {
        Made::Map(fields) => {
            out.push(b'{');
            for (index, (name, &id)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                view::write_json(name, out);
                out.push(b':');
                write(made, id, out)?;
            }
            out.push(b'}');
        }
        Made::List(items) => {
            out.push(b'[');
            for (index, &id) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(made, id, out)?;
            }
            out.push(b']');
        }
        Made::Scalar(ValueType::String, text) => view::write_json(str::from_utf8(text).ok()?, out),
        Made::Scalar(value_type, bytes) => view::write_json(&view::scalar(&scalar(*value_type, bytes)?), out),
    }
    Some(())
}

fn scalar(value_type: ValueType, bytes: &[u8]) -> Option<ScalarValue> {
    let mut reader = Reader::new(bytes);
    Some(match value_type {
        ValueType::Null => ScalarValue::Null,
        ValueType::False => ScalarValue::Boolean(false),
        ValueType::True => ScalarValue::Boolean(true),
        ValueType::Uint => ScalarValue::Uint(reader.varint().ok()?),
        ValueType::Int => ScalarValue::Int(signed(&mut reader).ok()?),
        ValueType::Float => ScalarValue::F64(f64::from_le_bytes(reader.fixed().ok()?)),
        ValueType::String => ScalarValue::Str(str::from_utf8(bytes).ok()?.into()),
        ValueType::Bytes => ScalarValue::Bytes(bytes.to_vec()),
        ValueType::Counter => ScalarValue::counter(signed(&mut reader).ok()?),
        ValueType::Timestamp => ScalarValue::Timestamp(signed(&mut reader).ok()?),
    })
}
