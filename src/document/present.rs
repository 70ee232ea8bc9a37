//! What a document holds at each of its places: the one reader of Automerge's state for edits, and for views
//! that Automerge alone would get wrong (see [`counter`](super::counter)).

use std::cell::Cell;
use std::collections::BTreeMap;

use automerge::{
    AutomergeError, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, ScalarValueRef, TextEncoding, Value as Found,
    ValueRef, hydrate,
};
use serde_json::{Number, Value};

use super::counter::{Increments, OpId};
use super::json::Object;
use super::{edit, view};

/// Automerge counts texts in characters; fixed here so that no build option can change it.
pub(super) const ENCODING: TextEncoding = TextEncoding::UnicodeCodePoint;

/// What a document holds at one place.
#[derive(Debug)]
pub(super) enum Present {
    Scalar(Value),
    Counter(i64),
    Map(ObjId, BTreeMap<String, Present>),
    List(ObjId, Vec<Present>),
    Text(ObjId, String),
}

impl Present {
    /// What it shows as. Recurses as deep as documents may be.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::Counter(number) => Value::from(*number),
            Self::Map(_, fields) => Value::Object(to_object(fields)),
            Self::List(_, items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Text(_, text) => Value::String(text.clone()),
        }
    }

    /// The same anew: counters and texts stay what they are.
    pub(super) fn to_hydrate(&self) -> hydrate::Value {
        match self {
            Self::Scalar(value) => edit::hydrate(value),
            Self::Counter(number) => hydrate::Value::Scalar(ScalarValue::counter(*number)),
            Self::Map(_, fields) => hydrate::Value::Map(
                fields.iter().map(|(key, field)| (key.clone(), field.to_hydrate())).collect::<Fields>().into(),
            ),
            Self::List(_, items) => hydrate::Value::from(items.iter().map(Self::to_hydrate).collect::<Vec<_>>()),
            Self::Text(_, text) => hydrate::Value::text(ENCODING, text),
        }
    }

    /// Whether it has at most so many levels of objects, lists and texts.
    pub(super) fn fits(&self, levels: usize) -> bool {
        match self {
            Self::Scalar(_) | Self::Counter(_) => true,
            Self::Text(..) => levels > 0,
            Self::Map(_, fields) => levels > 0 && fields.values().all(|field| field.fits(levels - 1)),
            Self::List(_, items) => levels > 0 && items.iter().all(|item| item.fits(levels - 1)),
        }
    }

    /// What kind of thing it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(Value::Null) => "null",
            Self::Scalar(Value::Bool(_)) => "a boolean",
            Self::Scalar(Value::Number(_)) | Self::Counter(_) => "a number",
            Self::Scalar(Value::String(_)) | Self::Text(..) => "a string",
            Self::Map(..) | Self::Scalar(Value::Object(_)) => "an object",
            Self::List(..) | Self::Scalar(Value::Array(_)) => "a list",
        }
    }

    /// Its number, when it is one.
    pub(super) fn number(&self) -> Option<Number> {
        match self {
            Self::Scalar(Value::Number(number)) => Some(number.clone()),
            Self::Counter(number) => Some(Number::from(*number)),
            Self::Scalar(_) | Self::Map(..) | Self::List(..) | Self::Text(..) => None,
        }
    }
}

type Fields = std::collections::HashMap<String, hydrate::Value>;

/// The fields of a document as JSON.
pub(super) fn to_object(fields: &BTreeMap<String, Present>) -> Object {
    fields.iter().map(|(key, field)| (key.clone(), field.to_json())).collect()
}

/// Reads a document or a transaction of one. Counters that several peers made at one place need the document's
/// increments; a reader that met such a place without them gives Automerge's value and says so.
pub(super) struct Reader<'a> {
    increments: Option<&'a Increments>,
    missed: Cell<bool>,
}

/// A value without what is in it. Objects are read in two steps because Automerge's iterators are too large to lie
/// on the stack once per level of nesting.
enum Shallow {
    Scalar(Value),
    Counter(i64, ObjId, bool),
    Object(ObjType, ObjId),
}

impl<'a> Reader<'a> {
    pub(super) fn new(increments: Option<&'a Increments>) -> Self {
        Self { increments, missed: Cell::new(false) }
    }

    /// Whether something was read that needs the increments.
    pub(super) fn missed(&self) -> bool {
        self.missed.get()
    }

    /// The fields of the document.
    pub(super) fn fields(&self, doc: &impl ReadDoc) -> Result<BTreeMap<String, Present>, AutomergeError> {
        self.map(doc, &ROOT)
    }

    /// What is at one place.
    pub(super) fn get(
        &self,
        doc: &impl ReadDoc,
        parent: &ObjId,
        prop: &Prop,
    ) -> Result<Option<Present>, AutomergeError> {
        let shallow = match doc.get(parent, prop.clone())? {
            None => return Ok(None),
            Some((Found::Object(kind), id)) => Shallow::Object(kind, id),
            Some((Found::Scalar(scalar), id)) => {
                if let ScalarValue::Counter(counter) = scalar.as_ref() {
                    Shallow::Counter(counter.into(), id, true)
                } else {
                    Shallow::Scalar(view::scalar(&scalar))
                }
            }
        };
        self.settle(doc, parent, || prop.clone(), shallow).map(Some)
    }

    fn map(&self, doc: &impl ReadDoc, id: &ObjId) -> Result<BTreeMap<String, Present>, AutomergeError> {
        let mut fields = BTreeMap::new();
        for (key, value) in shallow_map(doc, id) {
            let field = self.settle(doc, id, || key.as_str().into(), value)?;
            fields.insert(key, field);
        }
        Ok(fields)
    }

    fn list(&self, doc: &impl ReadDoc, id: &ObjId) -> Result<Vec<Present>, AutomergeError> {
        let items = shallow_list(doc, id).into_iter().enumerate();
        items.map(|(index, value)| self.settle(doc, id, || index.into(), value)).collect()
    }

    fn settle(
        &self,
        doc: &impl ReadDoc,
        parent: &ObjId,
        prop: impl FnOnce() -> Prop,
        value: Shallow,
    ) -> Result<Present, AutomergeError> {
        match value {
            Shallow::Scalar(scalar) => Ok(Present::Scalar(scalar)),
            Shallow::Counter(value, _, false) => Ok(Present::Counter(value)),
            Shallow::Counter(value, id, true) => self.counter(doc, parent, prop(), value, &id),
            Shallow::Object(kind, id) => self.deepen(doc, kind, id),
        }
    }

    fn deepen(&self, doc: &impl ReadDoc, kind: ObjType, id: ObjId) -> Result<Present, AutomergeError> {
        match kind {
            ObjType::Map | ObjType::Table => {
                let fields = self.map(doc, &id)?;
                Ok(Present::Map(id, fields))
            }
            ObjType::List => {
                let items = self.list(doc, &id)?;
                Ok(Present::List(id, items))
            }
            ObjType::Text => {
                let text = doc.text(&id)?;
                Ok(Present::Text(id, text))
            }
        }
    }

    /// A counter that may not be alone at its place.
    #[inline(never)]
    fn counter(
        &self,
        doc: &impl ReadDoc,
        parent: &ObjId,
        prop: Prop,
        value: i64,
        shown: &ObjId,
    ) -> Result<Present, AutomergeError> {
        let all = doc.get_all(parent, prop)?;
        let is_counter = |found: &Found<'_>| matches!(found, Found::Scalar(scalar) if matches!(scalar.as_ref(), ScalarValue::Counter(_)));
        let others: Vec<OpId> = all
            .iter()
            .filter(|(found, id)| id != shown && is_counter(found))
            .filter_map(|(_, id)| OpId::of(id))
            .collect();
        let (Some(shown), false) = (OpId::of(shown), others.is_empty()) else { return Ok(Present::Counter(value)) };
        self.missed.set(self.missed.get() || self.increments.is_none());
        let missing = self.increments.map_or(0, |increments| increments.beside(&shown, &others));
        Ok(Present::Counter(value.wrapping_add(missing)))
    }
}

#[inline(never)]
fn shallow_map(doc: &impl ReadDoc, id: &ObjId) -> Vec<(String, Shallow)> {
    let items = doc.map_range(id, ..);
    items.map(|item| (item.key.to_string(), shallow(&item.value, item.conflict, || item.id()))).collect()
}

#[inline(never)]
fn shallow_list(doc: &impl ReadDoc, id: &ObjId) -> Vec<Shallow> {
    doc.list_range(id, ..).map(|item| shallow(&item.value, item.conflict, || item.id())).collect()
}

fn shallow(value: &ValueRef<'_>, conflict: bool, id: impl FnOnce() -> ObjId) -> Shallow {
    match value {
        ValueRef::Object(kind) => Shallow::Object(*kind, id()),
        ValueRef::Scalar(ScalarValueRef::Counter(counter)) => Shallow::Counter(*counter, id(), conflict),
        ValueRef::Scalar(scalar) => Shallow::Scalar(view::scalar(&scalar.into())),
    }
}

/// Whether a counter is in it that is not alone at its place.
pub(super) fn has_contested_counter(value: &hydrate::Value) -> bool {
    let contested = |value: &hydrate::Value, conflict: bool| {
        let is_counter = matches!(value, hydrate::Value::Scalar(ScalarValue::Counter(_)));
        if is_counter { conflict } else { has_contested_counter(value) }
    };
    match value {
        hydrate::Value::Map(map) => map.iter().any(|(_, field)| contested(&field.value, field.conflict)),
        hydrate::Value::List(list) => list.iter().any(|item| contested(&item.value, item.conflict)),
        hydrate::Value::Scalar(_) | hydrate::Value::Text(_) => false,
    }
}
