//! From one JSON value to the next: the smallest edit, so that concurrent edits of other parts survive.
//!
//! - Equal values are not touched. Numbers are equal when kind and bits are: 1 is not 1.0, 0.0 is not -0.0.
//! - Objects are compared field by field, lists by [`align`](super::align). Within a list, objects with a scalar
//!   `_id` (or else `id`) are the same element when those are equal, and are edited in place; other elements
//!   are the same when they are equal, and those that stand opposite each other in a changed region are edited in
//!   place too.
//! - A text object that becomes another string is spliced; a counter that becomes another integer is incremented.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use automerge::transaction::{Transactable, Transaction};
use automerge::{ObjId, Prop, ROOT, ReadDoc, ScalarValue, hydrate};
use serde_json::{Number, Value};

use super::align::{Hunk, align};
use super::json::Object;
use super::present::Present;
use crate::error::{Error, Invalid, InvalidKind};
use crate::limits::CHANGE_OPS_MAX;

/// Product of the lengths, in characters, up to which a text is compared character by character.
const TEXT_DIFF_CELLS_MAX: usize = 1 << 22;

/// Turns the present fields of a document into the target, touching only what differs.
pub(super) fn replace(
    tx: &mut Transaction<'_>,
    present: &BTreeMap<String, Present>,
    target: &Object,
) -> Result<(), Error> {
    edit_map(tx, &ROOT, present, target)
}

/// Writes the target anew, whatever the document holds. Always makes at least one operation.
pub(super) fn rewrite(tx: &mut Transaction<'_>, target: &Object) -> Result<(), Error> {
    clear(tx)?;
    for (key, value) in target {
        put(tx, &ROOT, key.as_str().into(), hydrate(value))?;
    }
    touch(tx)
}

/// Deletes all fields.
pub(super) fn clear(tx: &mut Transaction<'_>) -> Result<(), Error> {
    let keys: Vec<String> = tx.keys(ROOT).collect();
    keys.iter().try_for_each(|key| Ok(tx.delete(ROOT, key.as_str())?))
}

/// Makes operations that leave nothing behind when there are none: an edit has at least one.
pub(super) fn touch(tx: &mut Transaction<'_>) -> Result<(), Error> {
    if tx.pending_ops() > 0 {
        return Ok(());
    }
    let mut key = "_".to_owned();
    while tx.get(ROOT, key.as_str())?.is_some() {
        key.push('_');
    }
    tx.put(ROOT, key.as_str(), ScalarValue::Null)?;
    Ok(tx.delete(ROOT, key.as_str())?)
}

/// Refuses what would make more operations than one change may have. To be asked before the work: each character of a
/// text and each element of a list is one, and takes microseconds.
pub(super) fn check_room(tx: &Transaction<'_>, more: usize) -> Result<(), Error> {
    let operations = tx.pending_ops().saturating_add(more);
    if operations as u64 <= CHANGE_OPS_MAX {
        return Ok(());
    }
    let message = format!(
        "the edit makes {operations} operations, one for each character and each element that comes or goes; at most \
         {CHANGE_OPS_MAX} are possible: send it in several parts"
    );
    Err(Error::Invalid(Invalid { message, field: None, position: None, kind: InvalidKind::TooLarge }))
}

fn edit_map(
    tx: &mut Transaction<'_>,
    id: &ObjId,
    present: &BTreeMap<String, Present>,
    target: &Object,
) -> Result<(), Error> {
    for key in present.keys().filter(|key| !target.contains_key(*key)) {
        tx.delete(id, key.as_str())?;
    }
    for (key, value) in target {
        match present.get(key) {
            Some(present) => edit_value(tx, id, key.as_str().into(), present, value)?,
            None => put(tx, id, key.as_str().into(), hydrate(value))?,
        }
    }
    Ok(())
}

/// Turns what is at one place into the target.
pub(super) fn edit_value(
    tx: &mut Transaction<'_>,
    parent: &ObjId,
    prop: Prop,
    present: &Present,
    target: &Value,
) -> Result<(), Error> {
    match (present, target) {
        (Present::Map(id, present), Value::Object(target)) => edit_map(tx, id, present, target),
        (Present::List(id, present), Value::Array(target)) => edit_list(tx, id, present, target),
        (Present::Text(id, present), Value::String(target)) => edit_text(tx, id, present, target),
        (Present::Scalar(present), target) if same(present, target) => Ok(()),
        // Zeros of different sign, which Automerge takes for the same and would not write.
        (Present::Scalar(present), target) if present == target => {
            tx.put(parent, prop.clone(), ScalarValue::Null)?;
            put(tx, parent, prop, hydrate(target))
        }
        (Present::Counter(present), target) => match target.as_i64().and_then(|target| target.checked_sub(*present)) {
            Some(0) => Ok(()),
            Some(difference) => Ok(tx.increment(parent, prop, difference)?),
            None => put(tx, parent, prop, hydrate(target)),
        },
        (Present::Map(..) | Present::List(..) | Present::Text(..) | Present::Scalar(_), target) => {
            put(tx, parent, prop, hydrate(target))
        }
    }
}

/// Overwrites a field or an element.
pub(super) fn put(tx: &mut Transaction<'_>, parent: &ObjId, prop: Prop, value: hydrate::Value) -> Result<(), Error> {
    match value {
        hydrate::Value::Scalar(scalar) => Ok(tx.put(parent, prop, scalar)?),
        object @ (hydrate::Value::Map(_) | hydrate::Value::List(_) | hydrate::Value::Text(_)) => {
            Ok(tx.batch_create_object(parent, prop, &object, false).map(|_| ())?)
        }
    }
}

/// Equality of what a scalar shows with a target.
pub(super) fn same(present: &Value, target: &Value) -> bool {
    match (present, target) {
        (Value::Number(a), Value::Number(b)) => a == b && float_bits(a) == float_bits(b),
        (a, b) => a == b,
    }
}

fn float_bits(number: &Number) -> Option<u64> {
    number.is_f64().then(|| number.as_f64().map(f64::to_bits)).flatten()
}

fn edit_text(tx: &mut Transaction<'_>, id: &ObjId, present: &str, target: &str) -> Result<(), Error> {
    if present == target {
        return Ok(());
    }
    let (old, new): (Vec<char>, Vec<char>) = (present.chars().collect(), target.chars().collect());
    let prefix = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let suffix = old[prefix..].iter().rev().zip(new[prefix..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (removed, added) = (old.len() - prefix - suffix, new.len() - prefix - suffix);
    check_room(tx, removed + added)?;
    if removed > 0 && added > 0 && removed.saturating_mul(added) <= TEXT_DIFF_CELLS_MAX {
        return Ok(tx.update_text(id, target)?);
    }
    let added: String = new[prefix..prefix + added].iter().collect();
    Ok(tx.splice_text(id, prefix, removed as isize, &added)?)
}

fn edit_list(tx: &mut Transaction<'_>, id: &ObjId, present: &[Present], target: &[Value]) -> Result<(), Error> {
    let mut classes = Classes::default();
    let old: Vec<Class> = present.iter().map(|item| classes.of_present(item)).collect();
    let new: Vec<Class> = target.iter().map(|item| classes.of_target(item)).collect();
    let numbers = |classes: &[Class]| classes.iter().map(|class| class.number).collect::<Vec<u32>>();
    let hunks = align(&numbers(&old), &numbers(&new));
    let mut list = ListEdit { tx, id, present, target, old: &old, new: &new };
    // From the back, so that the indices in front stay what they are.
    let mut end = Hunk { old: present.len()..present.len(), new: target.len()..target.len() };
    for hunk in hunks.into_iter().rev() {
        list.matched(hunk.old.end..end.old.start, hunk.new.end)?;
        list.hunk(&hunk)?;
        end = hunk;
    }
    list.matched(0..end.old.start, 0)
}

struct ListEdit<'a, 'b> {
    tx: &'a mut Transaction<'b>,
    id: &'a ObjId,
    present: &'a [Present],
    target: &'a [Value],
    old: &'a [Class],
    new: &'a [Class],
}

impl ListEdit<'_, '_> {
    /// Edits elements that are the same ones in both lists; only those with a key can differ within.
    fn matched(&mut self, old: Range<usize>, new_start: usize) -> Result<(), Error> {
        for (offset, index) in old.enumerate() {
            if self.old[index].keyed {
                self.edit(index, new_start + offset)?;
            }
        }
        Ok(())
    }

    fn hunk(&mut self, hunk: &Hunk) -> Result<(), Error> {
        let paired = hunk.old.len().min(hunk.new.len());
        let (old, new) = (hunk.old.start, hunk.new.start);
        if hunk.old.len() > paired || hunk.new.len() > paired {
            let removed = hunk.old.len() - paired;
            self.splice(old + paired, removed, new + paired..hunk.new.end)?;
        }
        for offset in (0..paired).rev() {
            let (old, new) = (old + offset, new + offset);
            if self.old[old].keyed || self.new[new].keyed {
                self.splice(old, 1, new..new + 1)?;
            } else {
                self.edit(old, new)?;
            }
        }
        Ok(())
    }

    fn edit(&mut self, old: usize, new: usize) -> Result<(), Error> {
        edit_value(self.tx, self.id, old.into(), &self.present[old], &self.target[new])
    }

    fn splice(&mut self, index: usize, removed: usize, added: Range<usize>) -> Result<(), Error> {
        check_room(self.tx, removed + added.len())?;
        Ok(self.tx.splice(self.id, index, removed as isize, self.target[added].iter().map(hydrate))?)
    }
}

/// The identity of a list element: elements with the same number are the same one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Class {
    pub(super) number: u32,
    pub(super) keyed: bool,
}

#[derive(Default)]
pub(super) struct Classes(HashMap<[u8; 32], u32>);

impl Classes {
    fn of_present(&mut self, item: &Present) -> Class {
        let key = match item {
            Present::Map(_, fields) => ["_id", "id"].iter().find_map(|&key| match fields.get(key) {
                Some(Present::Scalar(value)) => as_key(value),
                Some(_) | None => None,
            }),
            Present::Scalar(_) | Present::Counter(_) | Present::List(..) | Present::Text(..) => None,
        };
        let keyed = key.is_some();
        let mut digest = Digest::new(keyed);
        match key {
            Some(key) => digest.value(key),
            None => digest.present(item),
        }
        self.class(digest, keyed)
    }

    pub(super) fn of_target(&mut self, item: &Value) -> Class {
        let key = item.as_object().and_then(|fields| ["_id", "id"].iter().find_map(|&key| as_key(fields.get(key)?)));
        let mut digest = Digest::new(key.is_some());
        digest.value(key.unwrap_or(item));
        self.class(digest, key.is_some())
    }

    fn class(&mut self, digest: Digest, keyed: bool) -> Class {
        let next = self.0.len() as u32;
        Class { number: *self.0.entry(digest.0.finalize().into()).or_insert(next), keyed }
    }
}

fn as_key(value: &Value) -> Option<&Value> {
    matches!(value, Value::String(_) | Value::Number(_)).then_some(value)
}

/// A hash of JSON by meaning: what shows as the same JSON has the same hash, whatever Automerge holds.
struct Digest(blake3::Hasher);

impl Digest {
    fn new(keyed: bool) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[u8::from(keyed)]);
        Self(hasher)
    }

    fn tag(&mut self, tag: u8, length: usize) {
        self.0.update(&[tag]).update(&(length as u64).to_le_bytes());
    }

    fn text(&mut self, tag: u8, text: &str) {
        self.tag(tag, text.len());
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, number: &Number) {
        match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => self.0.update(b"i").update(&int.to_le_bytes()),
            (None, Some(uint)) => self.0.update(b"u").update(&uint.to_le_bytes()),
            (None, None) => self.0.update(b"f").update(&float_bits(number).unwrap_or(0).to_le_bytes()),
        };
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.tag(b'n', 0),
            Value::Bool(flag) => self.tag(b'b', usize::from(*flag)),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(b's', text),
            Value::Array(items) => {
                self.tag(b'[', items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(fields) => {
                self.tag(b'{', fields.len());
                for (key, value) in fields {
                    self.text(b'k', key);
                    self.value(value);
                }
            }
        }
    }

    fn present(&mut self, present: &Present) {
        match present {
            Present::Scalar(value) => self.value(value),
            Present::Counter(number) => self.number(&Number::from(*number)),
            Present::Text(_, text) => self.text(b's', text),
            Present::List(_, items) => {
                self.tag(b'[', items.len());
                items.iter().for_each(|item| self.present(item));
            }
            Present::Map(_, fields) => {
                self.tag(b'{', fields.len());
                for (key, value) in fields {
                    self.text(b'k', key);
                    self.present(value);
                }
            }
        }
    }
}

/// A JSON value as Automerge takes it.
pub(super) fn hydrate(value: &Value) -> hydrate::Value {
    match value {
        Value::Null => hydrate::Value::Scalar(ScalarValue::Null),
        Value::Bool(flag) => hydrate::Value::Scalar(ScalarValue::Boolean(*flag)),
        Value::Number(number) => hydrate::Value::Scalar(scalar(number)),
        Value::String(text) => hydrate::Value::Scalar(ScalarValue::Str(text.as_str().into())),
        Value::Array(items) => hydrate::Value::from(items.iter().map(hydrate).collect::<Vec<_>>()),
        Value::Object(fields) => hydrate::Value::Map(hydrate_map(fields)),
    }
}

fn hydrate_map(fields: &Object) -> hydrate::Map {
    fields.iter().map(|(key, value)| (key.clone(), hydrate(value))).collect::<HashMap<_, _>>().into()
}

fn scalar(number: &Number) -> ScalarValue {
    match (number.as_i64(), number.as_u64()) {
        (Some(int), _) => ScalarValue::Int(int),
        (None, Some(uint)) => ScalarValue::Uint(uint),
        (None, None) => ScalarValue::F64(number.as_f64().unwrap_or(0.0)),
    }
}
