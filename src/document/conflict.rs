//! Places where edits that did not know of each other left several values.
//!
//! Such a place shows one value, the same on every peer: the winner. The others stay until an edit overwrites the
//! place. The search goes down through what the document shows; what is within a value that lost is part of that
//! value. Counters at one place are no conflict: they add up ([`counter`](super::counter)). Neither are values that are
//! equal: whoever wrote them agreed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use automerge::{Automerge, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, ValueRef};
use serde_json::Value;

use crate::base::{ChangeHash, PeerId, Timestamp};
use crate::error::Error;
use crate::limits::{CONFLICT_BYTES_MAX, CONFLICT_VALUES_MAX};

use super::change::Change;
use super::difference::push_token;
use super::error::Broken;
use super::open::Document;
use super::version::{Authors, author};
use super::view::{self, json_bytes};

/// One of several values at a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Rival {
    /// The value.
    pub value: Value,
    /// Who wrote it.
    pub author: PeerId,
    /// When, by its author's clock.
    pub time: Timestamp,
    /// The change that wrote it.
    pub change: ChangeHash,
    /// Whether it is the one that the document shows.
    pub is_winner: bool,
}

/// A place with several values.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The place, as a JSON Pointer (RFC 6901).
    pub path: String,
    /// The values; the winner is the last one.
    pub values: Vec<Rival>,
}

/// The places with several values, in the order of the document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conflicts {
    /// The places.
    pub list: Vec<Conflict>,
    /// Whether there are more, beyond the bounds.
    pub is_cut: bool,
}

impl Document {
    /// Every place with several values, within bounds.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the author of a change is not in the table, or Automerge cannot read the document.
    pub fn conflicts(&self, authors: &Authors) -> Result<Conflicts, Error> {
        let mut listing = Listing {
            document: self,
            authors,
            found: Conflicts::default(),
            values_left: CONFLICT_VALUES_MAX,
            bytes_left: CONFLICT_BYTES_MAX,
        };
        let mut search = Search {
            doc: &self.doc.0,
            path: String::new(),
            visit: &mut |path, id, prop| listing.place(path, id, prop),
        };
        // Whether it came to the end is told by `is_cut`.
        let _: ControlFlow<()> = search.container(&ROOT, ObjType::Map)?;
        Ok(listing.found)
    }

    /// The number of places with several values, all of them, as [`Document::conflicts`] finds them. Remembered until
    /// an edit may change it: one that builds on all others begins no conflict.
    #[must_use]
    pub fn conflict_count(&mut self) -> u64 {
        if let Some(count) = self.conflict_count {
            return count;
        }
        let (mut count, mut has_rivals, mut bytes_left) = (0, false, CONFLICT_BYTES_MAX);
        let doc = &self.doc.0;
        let mut search = Search {
            doc,
            path: String::new(),
            visit: &mut |_, id, prop| {
                has_rivals = true;
                count += u64::from(differ(doc, id, prop, &mut bytes_left)?);
                Ok(ControlFlow::Continue(()))
            },
        };
        // What was found in a document can be read in it.
        let found: Result<ControlFlow<()>, Error> = search.container(&ROOT, ObjType::Map);
        self.conflict_count = Some(count);
        self.has_rivals = has_rivals || found.is_err();
        count
    }

    /// Takes the number of places with several values from where it was remembered.
    pub fn remember_conflict_count(&mut self, count: u64) {
        // Of a document whose every change builds on all before there is more known than that.
        self.has_rivals |= self.conflict_count.is_none();
        self.conflict_count = Some(count);
    }

    /// Notes that a change comes in, before it does. Values that are the same are no conflict, and become one when
    /// something within one of them is edited.
    pub(super) fn note_conflicts(&mut self, change: &Change) {
        let builds_on_all = || self.history.heads().all(|head| change.deps().contains(head));
        if self.has_rivals || self.conflict_count != Some(0) || !builds_on_all() {
            self.conflict_count = None;
        }
    }
}

/// Whether the values at a place differ. Of values that are too many to compare they do.
fn differ(doc: &Automerge, id: &ObjId, prop: Prop, bytes_left: &mut usize) -> Result<bool, Error> {
    let written = doc.get_all(id, prop)?;
    if written.iter().all(|(value, _)| is_counter(value)) {
        return Ok(false);
    }
    let mut first = None;
    for (value, id) in &written {
        let text = hydrated(doc, value, id)?.to_string();
        let Some(left) = bytes_left.checked_sub(text.len()) else { return Ok(true) };
        *bytes_left = left;
        if *first.get_or_insert_with(|| text.clone()) != text {
            return Ok(true);
        }
    }
    Ok(false)
}

fn hydrated(doc: &Automerge, value: &automerge::Value<'_>, id: &ObjId) -> Result<Value, Error> {
    Ok(match value {
        automerge::Value::Object(_) => view::value(ReadDoc::hydrate(doc, id, None)?),
        automerge::Value::Scalar(scalar) => view::scalar(scalar),
    })
}

/// What is done with a place that several edits wrote: given its path, its container and its key.
type Visit<'a> = dyn FnMut(&str, &ObjId, Prop) -> Result<ControlFlow<()>, Error> + 'a;

/// Walks through the places of a document that several edits wrote.
struct Search<'a> {
    doc: &'a Automerge,
    /// Where the search is.
    path: String,
    visit: &'a mut Visit<'a>,
}

impl Search<'_> {
    fn container(&mut self, id: &ObjId, kind: ObjType) -> Result<ControlFlow<()>, Error> {
        let items = match kind {
            ObjType::Map | ObjType::Table => of_map(self.doc, id),
            ObjType::List => of_list(self.doc, id),
            // Characters are written once; they do not conflict.
            ObjType::Text => Vec::new(),
        };
        for Item { prop, conflict, object } in items {
            let length = self.path.len();
            match &prop {
                Prop::Map(key) => push_token(&mut self.path, key),
                Prop::Seq(index) => push_token(&mut self.path, &index.to_string()),
            }
            if conflict && (self.visit)(&self.path, id, prop)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if let Some((kind, id)) = object
                && self.container(&id, kind)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            self.path.truncate(length);
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The places with their values, as many as the bounds allow.
struct Listing<'a> {
    document: &'a Document,
    authors: &'a Authors,
    found: Conflicts,
    values_left: usize,
    bytes_left: usize,
}

impl Listing<'_> {
    fn place(&mut self, path: &str, id: &ObjId, prop: Prop) -> Result<ControlFlow<()>, Error> {
        let doc = &self.document.doc.0;
        let written = doc.get_all(id, prop)?;
        if written.iter().all(|(value, _)| is_counter(value)) {
            return Ok(ControlFlow::Continue(()));
        }
        if written.len() > self.values_left || path.len() > self.bytes_left {
            self.found.is_cut = true;
            return Ok(ControlFlow::Break(()));
        }
        self.values_left -= written.len();
        self.bytes_left -= path.len();
        let mut values = Vec::with_capacity(written.len());
        let last = written.len().saturating_sub(1);
        for (index, (value, id)) in written.iter().enumerate() {
            let value = hydrated(doc, value, id)?;
            let Some(left) = self.bytes_left.checked_sub(json_bytes(&value)) else {
                self.found.is_cut = true;
                return Ok(ControlFlow::Break(()));
            };
            self.bytes_left = left;
            values.push(self.rival(path, value, id, index == last)?);
        }
        // As texts, so that 0.0 and -0.0 differ, as they do wherever they are shown.
        let texts: BTreeSet<String> = values.iter().map(|rival| rival.value.to_string()).collect();
        if texts.len() > 1 {
            self.found.list.push(Conflict { path: path.to_owned(), values });
        }
        Ok(ControlFlow::Continue(()))
    }

    fn rival(&self, path: &str, value: Value, id: &ObjId, is_winner: bool) -> Result<Rival, Error> {
        let change = self.document.doc.0.hash_for_opid(id).map(|hash| ChangeHash(hash.0));
        let made = change
            .and_then(|hash| self.document.history.number(&hash))
            .map(|number| self.document.history.made(number));
        let made = made.ok_or_else(|| Broken(format!("the value at {path} was written by no change")))?;
        let author = author(self.authors, &made.actor)?;
        Ok(Rival { value, author, time: made.time.physical(), change: made.hash, is_winner })
    }
}

fn is_counter(value: &automerge::Value<'_>) -> bool {
    matches!(value, automerge::Value::Scalar(scalar) if matches!(scalar.as_ref(), ScalarValue::Counter(_)))
}

/// What a container shows at one place.
struct Item {
    prop: Prop,
    conflict: bool,
    object: Option<(ObjType, ObjId)>,
}

// Read in two steps, because Automerge's iterators are too large to lie on the stack once per level of nesting.

#[inline(never)]
fn of_map(doc: &Automerge, id: &ObjId) -> Vec<Item> {
    let item = |item: automerge::iter::MapRangeItem<'_>| Item {
        object: object(&item.value, || item.id()),
        conflict: item.conflict,
        prop: Prop::Map(item.key.to_string()),
    };
    doc.map_range(id, ..).map(item).filter(Item::matters).collect()
}

#[inline(never)]
fn of_list(doc: &Automerge, id: &ObjId) -> Vec<Item> {
    let item = |item: automerge::iter::ListRangeItem<'_>| Item {
        object: object(&item.value, || item.id()),
        conflict: item.conflict,
        prop: Prop::Seq(item.index),
    };
    doc.list_range(id, ..).map(item).filter(Item::matters).collect()
}

impl Item {
    fn matters(&self) -> bool {
        self.conflict || self.object.is_some()
    }
}

fn object(value: &ValueRef<'_>, id: impl FnOnce() -> ObjId) -> Option<(ObjType, ObjId)> {
    match value {
        ValueRef::Object(kind) => Some((*kind, id())),
        ValueRef::Scalar(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{actor, at, object};
    use super::*;
    use crate::base::ActorId;
    use crate::document::Object;

    /// The document after edits that did not know of each other, each by its own actor, and the edits.
    fn concurrent(base: &Value, edits: &[Value]) -> (Document, Vec<Change>) {
        let (_, first) = Document::create(actor(0), at(1), &object(base.clone())).unwrap();
        let edit = |(index, fields): (usize, &Value)| {
            let mut document = Document::new();
            document.apply([first.clone()]).unwrap();
            let fields: Object = object(fields.clone());
            document.replace(actor(index as u8 + 1), at(index as u64 + 2), &fields).unwrap().unwrap()
        };
        let edits: Vec<Change> = edits.iter().enumerate().map(edit).collect();
        let mut document = Document::new();
        document.apply(std::iter::once(first.clone()).chain(edits.clone())).unwrap();
        (document, edits)
    }

    fn authors() -> Authors {
        (0..200).map(|number| (actor(number), PeerId([number; 32]))).collect()
    }

    fn at_place<'a>(found: &'a Conflicts, path: &str) -> &'a Conflict {
        found.list.iter().find(|conflict| conflict.path == path).unwrap_or_else(|| panic!("{path} is not in {found:?}"))
    }

    #[test]
    fn both_values_are_named_with_their_authors_and_the_winner_is_what_is_shown() {
        let base = json!({"a/b": {"wind": 1}, "list": [1, {"x": 1}], "calm": 0});
        let (document, edits) = concurrent(
            &base,
            &[
                json!({"a/b": {"wind": 2}, "list": [5, {"x": 2}], "calm": 1, "new": {"by": "one"}}),
                json!({"a/b": {"wind": 3}, "list": [6, {"x": 3}], "calm": 0, "new": {"by": "two"}}),
            ],
        );
        let found = document.conflicts(&authors()).unwrap();
        let paths: Vec<&str> = found.list.iter().map(|conflict| conflict.path.as_str()).collect();
        assert_eq!((paths, found.is_cut), (vec!["/a~1b/wind", "/list/0", "/list/1/x", "/new"], false));
        let view = Value::Object(document.fields());
        for conflict in &found.list {
            assert_eq!(conflict.values.len(), 2);
            let winner = conflict.values.iter().find(|value| value.is_winner).unwrap();
            assert_eq!(Some(&winner.value), view.pointer(&conflict.path), "{}", conflict.path);
            for (index, edit) in edits.iter().enumerate() {
                let value = conflict.values.iter().find(|value| value.change == edit.hash()).unwrap();
                assert_eq!(value.author, PeerId([index as u8 + 1; 32]));
                assert_eq!(value.time, edit.time().physical());
            }
        }
        let wind: Vec<&Value> = at_place(&found, "/a~1b/wind").values.iter().map(|rival| &rival.value).collect();
        assert!(wind.contains(&&json!(2)) && wind.contains(&&json!(3)), "{wind:?}");
        let new: Vec<&Value> = at_place(&found, "/new").values.iter().map(|rival| &rival.value).collect();
        assert!(new.contains(&&json!({"by": "one"})) && new.contains(&&json!({"by": "two"})), "{new:?}");
    }

    #[test]
    fn an_edit_of_the_place_ends_the_conflict() {
        let (mut document, _) = concurrent(&json!({"n": 0}), &[json!({"n": 1}), json!({"n": 2})]);
        assert_eq!(document.conflicts(&authors()).unwrap().list.len(), 1);
        document.replace(actor(9), at(9), &object(json!({"n": 3}))).unwrap();
        assert_eq!(document.conflicts(&authors()).unwrap(), Conflicts::default());
    }

    #[test]
    fn equal_values_are_no_conflict() {
        let equal = |a: Value, b: Value| {
            let (document, _) = concurrent(&json!({}), &[json!({ "n": a }), json!({ "n": b })]);
            document.conflicts(&authors()).unwrap().list.is_empty()
        };
        for value in [json!(1), json!("x"), json!(null), json!({"a": [1, {"b": 2}]}), json!([[], {}])] {
            assert!(equal(value.clone(), value.clone()), "{value}");
        }
        for (a, b) in [(json!(1), json!(1.0)), (json!(0.0), json!(-0.0)), (json!({}), json!({"a": 1}))] {
            assert!(!equal(a.clone(), b.clone()), "{a} {b}");
        }
        // Of three, of whom two agree, all are shown.
        let (document, _) = concurrent(&json!({}), &[json!({"n": 1}), json!({"n": 2}), json!({"n": 1})]);
        assert_eq!(document.conflicts(&authors()).unwrap().list[0].values.len(), 3);
    }

    #[test]
    fn an_unknown_author_is_damage() {
        let (document, _) = concurrent(&json!({}), &[json!({"n": 1}), json!({"n": 2})]);
        let few: Authors = authors().into_iter().filter(|(id, _): &(ActorId, PeerId)| *id != actor(2)).collect();
        assert!(matches!(document.conflicts(&few), Err(Error::Corrupt(_))));
    }

    #[test]
    fn a_list_of_conflicts_is_bounded() {
        let wide = |value: u32| -> Value { (0..20).map(|n| (format!("k{n:02}"), json!(value))).collect() };
        let edits: Vec<Value> = (0..100).map(wide).collect();
        let (document, _) = concurrent(&json!({}), &edits);
        let found = document.conflicts(&authors()).unwrap();
        assert_eq!((found.list.len(), found.is_cut), (CONFLICT_VALUES_MAX / 100, true));
        assert_eq!(counted(document), 20, "the count is not bounded");
    }

    /// The number of conflicts, which is the same when it was not remembered.
    fn counted(mut document: Document) -> u64 {
        let count = document.conflict_count();
        let mut loaded = Document::load(&document.save()).unwrap();
        assert_eq!(loaded.conflict_count(), count);
        count
    }

    #[test]
    fn the_count_follows_every_edit() {
        assert_eq!(Document::new().conflict_count(), 0);
        let (mut document, _) = concurrent(
            &json!({"a": 0, "b": [1, {"c": 1}]}),
            &[json!({"a": 1, "b": [1, {"c": 2}], "n": 1}), json!({"a": 2, "b": [1, {"c": 3}], "n": 1})],
        );
        assert_eq!(document.conflict_count(), 2, "n is equal");
        // Deleting it and bringing it back changes nothing of that.
        document.delete(actor(8), at(8)).unwrap();
        document.keep(actor(8), at(9)).unwrap();
        assert_eq!(document.conflict_count(), 2);
        for (fields, count) in [
            (json!({"a": 3, "b": [1, {"c": 3}], "n": 1}), 1),
            (json!({"a": 3, "b": [1], "n": 1}), 0),
            (json!({"a": 4, "b": [1], "n": 1}), 0),
        ] {
            document.replace(actor(9), at(10), &object(fields)).unwrap();
            assert_eq!(document.conflict_count(), count);
        }
        assert_eq!(counted(document), 0);
        let (mut one, _) = concurrent(&json!({"a": 0}), &[json!({"a": 1})]);
        assert_eq!((one.conflict_count, one.conflict_count()), (Some(0), 0), "nothing was concurrent, nor looked for");
        one.replace(actor(3), at(3), &object(json!({"a": 5}))).unwrap();
        assert_eq!(one.conflict_count, Some(0));
    }
}
