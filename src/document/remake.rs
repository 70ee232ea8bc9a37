//! Making an edit again that fell with a fork of its document.
//!
//! It is made where it was made: on the changes that it built on, as far as those stand, or were made again. So what
//! others did meanwhile is concurrent to it, as it was to the change that fell, and merges with it in the same way, also
//! within lists and texts. What it did is read from the document as it was before and after, and told as update operators
//! where those say more than the new value: a counter goes on counting, and a text is typed into.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ObjType, ROOT, ReadDoc, ScalarValue};
use serde_json::{Map, Value, json};

use crate::base::{ActorId, ChangeHash, Hlc};
use crate::error::Error;

use super::change::Change;
use super::json::Object;
use super::open::Document;
use super::patch::Patch;
use super::replay;

/// Makes changes of a document again, in the order in which they were made.
#[derive(Debug)]
pub struct Remaking<'a> {
    /// The document that has them.
    before: &'a Document,
    /// The changes that fell, each with what it became.
    again: BTreeMap<ChangeHash, ChangeHash>,
    last: Option<ChangeHash>,
}

impl<'a> Remaking<'a> {
    /// Of the changes in `before`.
    #[must_use]
    pub fn of(before: &'a Document) -> Self {
        Self { before, again: BTreeMap::new(), last: None }
    }

    /// Makes a change again, to be merged into `present`, which holds what was made again before; `None` when it is not
    /// one of the document before, or did nothing that shows.
    ///
    /// # Errors
    /// As [`Document::patch`].
    pub fn again(
        &mut self,
        present: &Document,
        change: &ChangeHash,
        actor: ActorId,
        now: Hlc,
    ) -> Result<Option<Change>, Error> {
        let history = &self.before.history;
        let Some(number) = history.number(change) else { return Ok(None) };
        let made = history.made(number);
        let mut base = present.back_to(&self.heads(present, &made.deps))?;
        let again = if made.is_delete {
            base.delete(actor, now)?
        } else {
            let version = |heads: &[ChangeHash]| history.version_of(heads).ok().flatten();
            let before = version(&made.deps).and_then(|version| self.before.fields_at(&version)).unwrap_or_default();
            match version(&[*change]).and_then(|version| self.before.fields_at(&version)) {
                Some(after) => self.edit(&mut base, (change, &before, &after), actor, now)?,
                None => None,
            }
        };
        if let Some(again) = &again {
            self.again.insert(*change, again.hash());
            self.last = Some(again.hash());
        }
        Ok(again)
    }

    /// What a change is made on that was made on `deps`: those that stand, what became of the others, or what those were
    /// made on, and what was made again last, since an actor's changes follow each other.
    fn heads(&self, present: &Document, deps: &[ChangeHash]) -> Vec<ChangeHash> {
        let (mut heads, mut seen) = (BTreeSet::from_iter(self.last), BTreeSet::new());
        let mut open = deps.to_vec();
        while let Some(dep) = open.pop() {
            match (present.has(&dep), self.again.get(&dep)) {
                _ if !seen.insert(dep) => {}
                (true, _) => _ = heads.insert(dep),
                (false, Some(again)) => _ = heads.insert(*again),
                (false, None) => {
                    let number = self.before.history.number(&dep);
                    open.extend(number.into_iter().flat_map(|number| self.before.history.made(number).deps));
                }
            }
        }
        heads.into_iter().collect()
    }

    fn edit(
        &self,
        base: &mut Document,
        (change, before, after): (&ChangeHash, &Object, &Object),
        actor: ActorId,
        now: Hlc,
    ) -> Result<Option<Change>, Error> {
        let (document, heads) = (self.before, vec![automerge::ChangeHash(change.0)]);
        let present = base.fields();
        let mut operators = Operators { document, heads, body: Map::new(), is_whole: true };
        operators.object(&mut Vec::new(), before, after, &present);
        if operators.body.is_empty() && operators.is_whole {
            return Ok(None);
        }
        match Patch::operators(Value::Object(operators.body)) {
            // It was within the bounds when it was made.
            Ok(patch) if operators.is_whole => base.patch(actor, now, &patch, usize::MAX),
            // What operators cannot say, because of odd names or their number.
            Ok(_) | Err(_) => base.replace(actor, now, &replay::object(before, after, &present)),
        }
    }
}

struct Operators<'a> {
    document: &'a Document,
    heads: Vec<automerge::ChangeHash>,
    body: Object,
    /// Whether every field could be told.
    is_whole: bool,
}

impl Operators<'_> {
    fn object(&mut self, path: &mut Vec<String>, before: &Object, after: &Object, base: &Object) {
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            self.field(path, key, "$unset", json!(""));
        }
        for (key, value) in after {
            match (before.get(key), value, base.get(key)) {
                (Some(known), value, _) if known == value => {}
                (Some(Value::Object(before)), Value::Object(after), Some(Value::Object(base)))
                    if !before.is_empty() && !after.is_empty() =>
                {
                    path.push(key.clone());
                    self.object(path, before, after, base);
                    path.pop();
                }
                (Some(Value::String(before)), Value::String(after), Some(Value::String(base)))
                    if before == base && self.is_text(path, key) =>
                {
                    self.field(path, key, "$text", splice(before, after));
                }
                (before, Value::Number(after), _) if self.is_counter(path, key) => {
                    let before = before.and_then(Value::as_i64).unwrap_or(0);
                    let by = after.as_i64().unwrap_or(0).wrapping_sub(before);
                    self.field(path, key, "$inc", json!(by));
                }
                // A list that is set is edited where it differs.
                (Some(before), after, Some(base)) => {
                    self.field(path, key, "$set", replay::value(before, after, base));
                }
                (_, value, _) => self.field(path, key, "$set", value.clone()),
            }
        }
    }

    /// Adds an operator, if the path can be written with dots.
    fn field(&mut self, path: &[String], key: &str, operator: &str, value: Value) {
        let plain = |part: &str| !part.is_empty() && !part.contains('.') && !part.starts_with('$');
        if !path.iter().map(String::as_str).chain([key]).all(plain) {
            self.is_whole = false;
            return;
        }
        let dotted = path.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".");
        let of = self.body.entry(operator).or_insert_with(|| json!({}));
        of[dotted] = value;
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

impl Document {
    /// The document with these changes, and with what they depend on, alone.
    fn back_to(&self, heads: &[ChangeHash]) -> Result<Self, Error> {
        let past = self.history.clock(heads);
        let is_within = |change: &automerge::Change| {
            let actor = change.actor_id().to_bytes().try_into().map(ActorId);
            let lane = actor.ok().and_then(|actor| self.history.lane(&actor));
            lane.is_some_and(|lane| change.seq() <= past.get(lane))
        };
        let within = self.doc.0.get_changes(&[]).into_iter().filter(is_within);
        let changes = within.map(Change::own).collect::<Result<Vec<Change>, _>>()?;
        let mut document = Self::new();
        document.apply_stored(changes)?;
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Timestamp;

    fn at(ms: u64) -> Hlc {
        Hlc::from_physical(Timestamp(ms))
    }

    fn object(value: &Value) -> &Object {
        value.as_object().expect("it is an object")
    }

    fn taken(document: &mut Document, changes: &[Change]) {
        assert_eq!(document.apply(changes.iter().cloned()).unwrap().refused, []);
    }

    /// What it comes to when `mine` fell, and is made again beside what others made meanwhile. Each is a list of edits.
    fn again(start: &Value, others: &[Edit], mine: &[Edit]) -> Value {
        let (first, mut fallen) =
            Document::create(ActorId([1; 16]), at(1), object(start)).map(|(a, b)| (b, a)).unwrap();
        let mut present = Document::new();
        taken(&mut present, std::slice::from_ref(&first));
        let lost: Vec<Change> =
            mine.iter().enumerate().filter_map(|(n, edit)| edit(&mut fallen, 1, 10 + n as u64)).collect();
        for (n, edit) in others.iter().enumerate() {
            edit(&mut present, 2, 20 + n as u64);
        }
        let mut remaking = Remaking::of(&fallen);
        for change in lost {
            if let Some(change) = remaking.again(&present, &change.hash(), ActorId([3; 16]), at(30)).unwrap() {
                taken(&mut present, &[change]);
            }
        }
        Value::Object(present.fields())
    }

    type Edit = Box<dyn Fn(&mut Document, u8, u64) -> Option<Change>>;

    fn patch(operators: Value) -> Edit {
        let patch = Patch::operators(operators).unwrap();
        Box::new(move |document, actor, ms| document.patch(ActorId([actor; 16]), at(ms), &patch, 0).unwrap())
    }

    fn put(body: Value) -> Edit {
        Box::new(move |document, actor, ms| document.replace(ActorId([actor; 16]), at(ms), object(&body)).unwrap())
    }

    #[test]
    fn an_edit_is_made_again_as_what_it_was() {
        let check = |start: Value, others: Edit, mine: Edit, expected: Value| {
            assert_eq!(again(&start, &[others], &[mine]), expected);
        };
        check(json!({"a": 1, "b": 2}), put(json!({"a": 1, "b": 3})), put(json!({"a": 5})), json!({"a": 5, "b": 3}));
        check(
            json!({"a": {"x": 1, "y": 2}}),
            put(json!({"a": {"x": 3, "y": 2}})),
            patch(json!({"$unset": {"a.y": ""}})),
            json!({"a": {"x": 3}}),
        );
        let counted = patch(json!({"$inc": {"n": 5}}));
        check(json!({}), patch(json!({"$set": {"m": 1}})), patch(json!({"$inc": {"n": 2}})), json!({"n": 2, "m": 1}));
        let start = json!({"n": 3});
        assert_eq!(again(&start, &[], &[patch(json!({"$inc": {"n": 2}})), counted]), json!({"n": 10}));
        let typed =
            |position: u64, insert: &str| patch(json!({"$text": {"t": {"position": position, "insert": insert}}}));
        assert_eq!(again(&json!({"t": "abcd"}), &[], &[typed(2, "x"), typed(0, "y")]), json!({"t": "yabxcd"}));
        check(
            json!({"l": [1, 2, 3]}),
            put(json!({"l": [0, 1, 2, 3]})),
            put(json!({"l": [1, 3]})),
            json!({"l": [0, 1, 3]}),
        );
        check(
            json!({"l": [{"a": 1}, {"b": 1}]}),
            put(json!({"l": [{"a": 1}, {"b": 1, "c": 1}]})),
            put(json!({"l": [{"a": 1}, {"b": 2}, {"d": 1}]})),
            json!({"l": [{"a": 1}, {"b": 2, "c": 1}, {"d": 1}]}),
        );
        check(
            json!({"a.b": [1], "c": 1}),
            put(json!({"a.b": [0, 1], "c": 1})),
            put(json!({"a.b": [1, 2]})),
            json!({"a.b": [0, 1, 2]}),
        );
    }

    #[test]
    fn a_delete_made_again_leaves_what_others_edited_meanwhile() {
        let delete =
            || -> Edit { Box::new(|document, actor, ms| document.delete(ActorId([actor; 16]), at(ms)).unwrap()) };
        assert_eq!(again(&json!({"a": 1}), &[put(json!({"a": 2}))], &[delete()]), json!({"a": 2}));
        let (mut document, first) = Document::create(ActorId([1; 16]), at(1), object(&json!({"a": 1}))).unwrap();
        let gone = document.delete(ActorId([1; 16]), at(2)).unwrap().unwrap();
        let mut present = Document::new();
        let mut remaking = Remaking::of(&document);
        for change in [&first, &gone] {
            let again = remaking.again(&present, &change.hash(), ActorId([3; 16]), at(3)).unwrap().unwrap();
            taken(&mut present, &[again]);
        }
        assert!(present.is_deleted());
        assert_eq!(remaking.again(&present, &ChangeHash([0; 32]), ActorId([3; 16]), at(4)).unwrap(), None);
    }

    /// Lists that come of one another by putting new numbers in, or by taking some out.
    fn edited(start: &[u64], steps: &[(bool, u8)], new: u64) -> Vec<Vec<u64>> {
        let mut list = start.to_vec();
        let step = |(n, (insert, at)): (usize, &(bool, u8))| {
            let at = usize::from(*at) % (list.len() + 1);
            if *insert {
                list.insert(at, new + n as u64);
            } else if at < list.len() {
                list.remove(at);
            }
            list.clone()
        };
        steps.iter().enumerate().map(step).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
        #[test]
        fn what_others_did_to_a_list_stays(
            length in 0u64..12,
            others in prop::collection::vec((any::<bool>(), any::<u8>()), 0..6),
            mine in prop::collection::vec((any::<bool>(), any::<u8>()), 1..6),
        ) {
            let start: Vec<u64> = (0..length).collect();
            let (theirs, ours) = (edited(&start, &others, 100), edited(&start, &mine, 200));
            let edits = |lists: &[Vec<u64>]| lists.iter().map(|list| put(json!({"l": list, "n": [list]}))).collect::<Vec<Edit>>();
            let made = again(&json!({"l": start, "n": [start]}), &edits(&theirs), &edits(&ours));
            let last = |lists: &[Vec<u64>]| lists.last().unwrap_or(&start).clone();
            let (theirs, ours) = (last(&theirs), last(&ours));
            let read = |list: &Value| list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect::<Vec<u64>>();
            for list in [read(&made["l"]), read(&made["n"][0])] {
                for (one, other) in [(&theirs, &ours), (&ours, &theirs)] {
                    // Each one's list is there in its order, without what the other took out.
                    let kept = |n: &&u64| **n >= length || other.contains(n);
                    let wanted: Vec<u64> = one.iter().filter(kept).copied().collect();
                    let found: Vec<u64> = list.iter().filter(|n| one.contains(n)).copied().collect();
                    prop_assert_eq!(wanted, found);
                }
                prop_assert!(list.iter().all(|n| theirs.contains(n) || ours.contains(n)));
            }
        }
    }
}
