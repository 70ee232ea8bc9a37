//! What a change did, as update operators: to do the same once more when the change itself no longer counts.
//!
//! It is what a reader would have seen of it: fields that it set, removed or counted up, items that it appended, and one
//! splice of a collaborative text. Anything else that it did to a list is the new list as a whole.

use automerge::{ObjType, ROOT, ReadDoc, ScalarValue};
use serde_json::{Map, Value, json};

use crate::base::ChangeHash;

use super::json::Object;
use super::open::Document;

/// What a change did.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    /// It deleted the document.
    Delete,
    /// It edited the document, as these update operators say.
    Edit(Value),
}

impl Document {
    /// What a change of this document did; `None` when it is not one, or did nothing that shows.
    #[must_use]
    pub fn made(&self, change: &ChangeHash) -> Option<Made> {
        let made = self.history.made(self.history.number(change)?);
        if made.is_delete {
            return Some(Made::Delete);
        }
        let before = self.history.version_of(&made.deps).ok()?.and_then(|version| self.fields_at(&version));
        let after = self.fields_at(&self.history.version_of(&[*change]).ok()??)?;
        let mut operators =
            Operators { document: self, heads: vec![automerge::ChangeHash(change.0)], body: Map::new() };
        operators.object(&mut Vec::new(), &before.unwrap_or_default(), &after);
        (!operators.body.is_empty()).then_some(Made::Edit(Value::Object(operators.body)))
    }
}

struct Operators<'a> {
    document: &'a Document,
    heads: Vec<automerge::ChangeHash>,
    body: Object,
}

impl Operators<'_> {
    fn object(&mut self, path: &mut Vec<String>, before: &Object, after: &Object) {
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            self.field(path, key, "$unset", json!(""));
        }
        for (key, value) in after {
            match (before.get(key), value) {
                (Some(known), value) if known == value => {}
                (Some(Value::Object(before)), Value::Object(after)) if !before.is_empty() && !after.is_empty() => {
                    path.push(key.clone());
                    self.object(path, before, after);
                    path.pop();
                }
                (Some(Value::Array(before)), Value::Array(after)) if after.starts_with(before) => {
                    self.field(path, key, "$push", json!({"$each": after[before.len()..]}));
                }
                (Some(Value::String(before)), Value::String(after)) if self.is_text(path, key) => {
                    self.field(path, key, "$text", splice(before, after));
                }
                (before, Value::Number(after)) if self.is_counter(path, key) => {
                    let before = before.and_then(Value::as_i64).unwrap_or(0);
                    let by = after.as_i64().unwrap_or(0).wrapping_sub(before);
                    self.field(path, key, "$inc", json!(by));
                }
                (_, value) => self.field(path, key, "$set", value.clone()),
            }
        }
    }

    /// Adds an operator. A field whose path cannot be written with dots is left out.
    fn field(&mut self, path: &[String], key: &str, operator: &str, value: Value) {
        let plain = |part: &str| !part.is_empty() && !part.contains('.') && !part.starts_with('$');
        if path.iter().map(String::as_str).chain([key]).all(plain) {
            let dotted = path.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".");
            let of = self.body.entry(operator).or_insert_with(|| json!({}));
            of[dotted] = value;
        }
    }

    fn is_counter(&self, path: &[String], key: &str) -> bool {
        let Some(automerge::Value::Scalar(value)) = self.found(path, key) else { return false };
        matches!(&*value, ScalarValue::Counter(_))
    }

    fn is_text(&self, path: &[String], key: &str) -> bool {
        matches!(self.found(path, key), Some(automerge::Value::Object(ObjType::Text)))
    }

    /// What is at a place after the change.
    fn found(&self, path: &[String], key: &str) -> Option<automerge::Value<'_>> {
        let (doc, mut object) = (&self.document.doc.0, ROOT);
        for part in path {
            object = doc.get_at(&object, part.as_str(), &self.heads).ok()??.1;
        }
        Some(doc.get_at(&object, key, &self.heads).ok()??.0)
    }
}

/// The one splice that turns a text into another.
fn splice(before: &str, after: &str) -> Value {
    let (before, after): (Vec<char>, Vec<char>) = (before.chars().collect(), after.chars().collect());
    let common = |mut pairs: Box<dyn Iterator<Item = bool> + '_>| pairs.by_ref().take_while(|same| *same).count();
    let start = common(Box::new(before.iter().zip(&after).map(|(a, b)| a == b)));
    let (rest, new) = (&before[start..], &after[start..]);
    let end = common(Box::new(rest.iter().rev().zip(new.iter().rev()).map(|(a, b)| a == b)));
    let insert: String = new[..new.len() - end].iter().collect();
    json!({"position": start, "delete": rest.len() - end, "insert": insert})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ActorId, Hlc, Timestamp};
    use crate::document::Patch;

    fn check(before: Value, patch: Value, made: Value) {
        let at = |n| Hlc::from_physical(Timestamp(n));
        let (mut document, _) =
            Document::create(ActorId([1; 16]), at(1), before.as_object().expect("it is an object")).unwrap();
        let patch = Patch::operators(patch).unwrap();
        let change = document.patch(ActorId([1; 16]), at(2), &patch, 0).unwrap().unwrap();
        assert_eq!(document.made(&change.hash()), Some(Made::Edit(made)));
    }

    #[test]
    fn what_a_change_did_is_told_as_operators() {
        check(json!({"a": 1, "b": 2}), json!({"$set": {"a": 5}}), json!({"$set": {"a": 5}}));
        check(json!({"a": {"x": 1, "y": 2}}), json!({"$unset": {"a.y": ""}}), json!({"$unset": {"a.y": ""}}));
        check(json!({"a": [1]}), json!({"$push": {"a": 2}}), json!({"$push": {"a": {"$each": [2]}}}));
        check(json!({"a": [1, 2]}), json!({"$pop": {"a": -1}}), json!({"$set": {"a": [2]}}));
        check(json!({"n": 3}), json!({"$inc": {"n": 2}}), json!({"$inc": {"n": 2}}));
        let typed = json!({"$text": {"t": {"position": 2, "insert": "xy"}}});
        let with_nothing = json!({"$text": {"t": {"position": 2, "delete": 0, "insert": "xy"}}});
        check(json!({"t": "abcd"}), typed, with_nothing);
        check(json!({}), json!({"$set": {"a": {"b": [1]}}}), json!({"$set": {"a": {"b": [1]}}}));
    }

    #[test]
    fn the_first_change_and_a_delete_are_told_too() {
        let at = |n| Hlc::from_physical(Timestamp(n));
        let body = json!({"a": 1});
        let (mut document, first) =
            Document::create(ActorId([1; 16]), at(1), body.as_object().expect("it is an object")).unwrap();
        let delete = document.delete(ActorId([1; 16]), at(2)).unwrap().unwrap();
        assert_eq!(document.made(&first.hash()), Some(Made::Edit(json!({"$set": {"a": 1}}))));
        assert_eq!(document.made(&delete.hash()), Some(Made::Delete));
        assert_eq!(document.made(&ChangeHash([0; 32])), None);
    }
}
