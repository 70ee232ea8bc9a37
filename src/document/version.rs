//! The past of a document: its versions, and its changes one by one.
//!
//! A version is a set of changes with all that they depend on; its heads name it. Automerge reads an old version
//! through all operations of the document, and finds the difference of two versions the same way, at the same
//! cost. So versions are read as JSON, and JSON is compared: what is shown is what a reader of these versions saw.
//! Building a document anew from the changes of a version (`fork_at`) costs some hundred times more.
//!
//! Not here: who an actor is. The store knows, and passes the table in.

use std::collections::BTreeMap;

use automerge::hydrate;

use crate::base::{ActorId, ChangeHash, Hlc, PeerId, Timestamp};
use crate::error::Error;
use crate::limits::{
    HISTORY_DIFFERENCES_MAX, HISTORY_ENTRY_BYTES_MAX, HISTORY_PAGE_OPERATIONS_MAX, HISTORY_VALUE_BYTES_MAX,
};

use super::difference::{Bounds, Differences, differences};
use super::history::Made;
use super::json::Object;
use super::open::{Document, guarded, increments};
use super::present::{Reader, has_contested_counter, to_object};
use super::view;

const ENTRY_BOUNDS: Bounds =
    Bounds { places: HISTORY_DIFFERENCES_MAX, bytes: HISTORY_ENTRY_BYTES_MAX, value_bytes: HISTORY_VALUE_BYTES_MAX };

/// Who writes under each actor.
pub type Authors = BTreeMap<ActorId, PeerId>;

/// Which version of a document is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// The one of these changes and all that they depend on.
    Heads(Vec<ChangeHash>),
    /// The one at a time, by the clocks of the authors: of the changes that were made by then and depend on none
    /// made later.
    Time(Timestamp),
}

/// A version of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The changes of the version that no other of its changes depends on, sorted.
    pub heads: Vec<ChangeHash>,
    /// Whether all heads are deletes: the document is not there.
    pub is_deleted: bool,
    /// The smallest time of its changes.
    pub created: Hlc,
    /// The largest time of its changes.
    pub updated: Hlc,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It made a document where none was, or where it was deleted.
    Create,
    /// It changed what the document holds.
    Edit,
    /// It deleted the document.
    Delete,
}

/// A change of a document, as its history tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// Its hash.
    pub change: ChangeHash,
    /// Who made it.
    pub author: PeerId,
    /// When, by its author's clock.
    pub time: Timestamp,
    /// What it did.
    pub kind: ChangeKind,
    /// The changes on which it builds; more than one when it merged several heads.
    pub deps: Vec<ChangeHash>,
    /// What it changed in the version on which it builds.
    pub differences: Differences,
}

impl HistoryEntry {
    /// Whether it builds on several heads.
    #[must_use]
    pub fn is_merge(&self) -> bool {
        self.deps.len() > 1
    }
}

/// Some changes of a document, the newest first: by time, but never before a change that builds on them.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// The changes.
    pub entries: Vec<HistoryEntry>,
    /// The change after which the next page starts; `None` when this is the last one.
    pub next: Option<ChangeHash>,
}

impl Document {
    /// The version that is meant; `None` when no change is that old.
    ///
    /// # Errors
    /// [`Error::NotFound`] when a head is not a change of this document.
    pub fn version(&self, at: &At) -> Result<Option<Version>, Error> {
        match at {
            At::Time(time) => Ok(self.history.version_at(*time)),
            At::Heads(heads) => self.history.version_of(heads).map_err(|unknown| {
                Error::NotFound(format!("change {unknown} is not known on this peer as one of its changes"))
            }),
        }
    }

    /// The fields of a version as JSON text, as [`Document::view`].
    #[must_use]
    pub fn view_at(&self, version: &Version) -> Vec<u8> {
        let value = self.hydrated(&version.heads);
        match self.merged_at(&version.heads, &value) {
            Some(fields) => serde_json::to_vec(&fields).expect("fields are JSON"),
            None => view::text(&value),
        }
    }

    /// The fields of a version; `None` when it is deleted.
    #[must_use]
    pub fn fields_at(&self, version: &Version) -> Option<Object> {
        (!version.is_deleted).then(|| self.object_at(&version.heads))
    }

    /// At most `limit` changes, the newest first, after the change `after`; at least one, when there is one. A long
    /// history gives fewer, so that one page costs no more than its bound.
    ///
    /// # Errors
    /// [`Error::NotFound`] when `after` is not a change of this document, [`Error::Corrupt`] when the author of a
    /// change is not in the table.
    pub fn history(&self, authors: &Authors, after: Option<&ChangeHash>, limit: usize) -> Result<HistoryPage, Error> {
        let operations = automerge::ReadDoc::stats(&self.doc.0).num_ops;
        self.page(authors, after, affordable(limit, operations))
    }

    fn page(&self, authors: &Authors, after: Option<&ChangeHash>, limit: usize) -> Result<HistoryPage, Error> {
        let order = self.history.newest_first();
        let start = match after {
            None => 0,
            Some(hash) => {
                let known =
                    self.history.number(hash).and_then(|number| order.iter().position(|other| *other == number));
                let unknown =
                    || Error::NotFound(format!("change {hash} is not known on this peer; start from the first page"));
                known.ok_or_else(unknown)? + 1
            }
        };
        let mut entries = Vec::new();
        // Newest first, the version before a change is often the one after the next.
        let mut seen = None;
        for &number in order.iter().skip(start).take(limit) {
            entries.push(self.entry(authors, self.history.made(number), &mut seen)?);
        }
        let more = start + entries.len() < order.len();
        let next = entries.last().filter(|_| more).map(|entry| entry.change);
        Ok(HistoryPage { entries, next })
    }

    fn entry(&self, authors: &Authors, made: Made, seen: &mut Option<Seen>) -> Result<HistoryEntry, Error> {
        let Made { hash, actor, time, is_delete, deps } = made;
        let after = match seen.take() {
            Some(seen) if seen.changes == [hash] => seen.fields,
            Some(_) | None => (!is_delete).then(|| self.object_at(&[hash])),
        };
        let before = self.heads_before(&deps).map(|heads| self.object_at(&heads));
        let kind = match (&before, is_delete) {
            (_, true) => ChangeKind::Delete,
            (None, false) => ChangeKind::Create,
            (Some(_), false) => ChangeKind::Edit,
        };
        let differences = differences(before.as_ref(), after.as_ref(), ENTRY_BOUNDS);
        *seen = Some(Seen { changes: deps.clone(), fields: before });
        Ok(HistoryEntry {
            change: hash,
            author: author(authors, &actor)?,
            time: time.physical(),
            kind,
            deps,
            differences,
        })
    }

    /// The heads of the version on which a change builds; `None` when the document is not there in it.
    fn heads_before(&self, deps: &[ChangeHash]) -> Option<Vec<ChangeHash>> {
        if let [only] = deps {
            return (!self.history.is_delete(only)).then(|| vec![*only]);
        }
        let version = self.history.version_of(deps).ok().flatten()?;
        (!version.is_deleted).then_some(version.heads)
    }

    fn object_at(&self, heads: &[ChangeHash]) -> Object {
        let value = self.hydrated(heads);
        if let Some(fields) = self.merged_at(heads, &value) {
            return fields;
        }
        match value {
            hydrate::Value::Map(root) => view::object(root),
            hydrate::Value::Scalar(_) | hydrate::Value::List(_) | hydrate::Value::Text(_) => Object::new(),
        }
    }

    /// As `merged` of the present version: what counters at one place count together. Only such a version is built
    /// anew from its changes.
    fn merged_at(&self, heads: &[ChangeHash], value: &hydrate::Value) -> Option<Object> {
        if !has_contested_counter(value) {
            return None;
        }
        let heads = automerge_heads(heads);
        let then = guarded("reading a version", || self.doc.0.fork_at(&heads)).ok()?;
        let increments = increments(&then).ok()?;
        Some(to_object(&Reader::new(Some(&increments)).fields(&then).ok()?))
    }

    fn hydrated(&self, heads: &[ChangeHash]) -> hydrate::Value {
        self.doc.0.hydrate(Some(&automerge_heads(heads)))
    }
}

fn automerge_heads(heads: &[ChangeHash]) -> Vec<automerge::ChangeHash> {
    heads.iter().map(|head| automerge::ChangeHash(head.0)).collect()
}

/// As many of `limit` entries as may be read in one page of a document with so many operations.
fn affordable(limit: usize, operations: u64) -> usize {
    let operations = usize::try_from(operations).unwrap_or(usize::MAX).max(1);
    limit.min(HISTORY_PAGE_OPERATIONS_MAX / operations).max(1)
}

/// A version that was read last.
struct Seen {
    changes: Vec<ChangeHash>,
    /// `None` when the document is not there.
    fields: Option<Object>,
}

pub(super) fn author(authors: &Authors, actor: &ActorId) -> Result<PeerId, Error> {
    authors.get(actor).copied().ok_or_else(|| {
        Error::Corrupt(format!("the author behind actor {actor} is not in the table; restore a backup or join again"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::Change;
    use super::super::difference::Side;
    use super::super::patch::Patch;
    use super::super::tests::{actor, at, fields, object};
    use super::*;

    const WIDE: Bounds = Bounds { places: usize::MAX, bytes: usize::MAX, value_bytes: usize::MAX };

    #[derive(Debug, Clone)]
    enum Step {
        Put(usize, Object),
        /// Counters that are made apart count together.
        Count(usize, i64),
        Delete(usize),
        /// All changes of the other one.
        Merge(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (0usize..2, fields()).prop_map(|(side, fields)| Step::Put(side, fields)),
            3 => (0usize..2, -9i64..9).prop_map(|(side, amount)| Step::Count(side, amount)),
            1 => (0usize..2).prop_map(Step::Delete),
            3 => (0usize..2).prop_map(Step::Merge),
        ];
        prop::collection::vec(step, 1..14)
    }

    /// Two replicas of a document, and every version that one of them has shown.
    struct Replicas {
        documents: [Document; 2],
        changes: Vec<Change>,
        shown: Vec<(Version, Vec<u8>)>,
    }

    fn play(first: &Object, steps: &[Step]) -> Replicas {
        let (document, change) = Document::create(actor(0), at(1), first).unwrap();
        let mut other = Document::new();
        other.apply([change.clone()]).unwrap();
        let mut replicas = Replicas { documents: [document, other], changes: vec![change], shown: Vec::new() };
        replicas.show(0);
        for (index, step) in steps.iter().enumerate() {
            let now = at(index as u64 + 2);
            let (side, made) = match step {
                Step::Put(side, fields) => {
                    (*side, replicas.documents[*side].replace(actor(*side as u8), now, fields).unwrap())
                }
                Step::Count(side, amount) => {
                    let patch = Patch::operators(json!({"$inc": {"counted": amount}})).unwrap();
                    // What is no number is not counted.
                    let made = replicas.documents[*side].patch(actor(*side as u8), now, &patch, 0);
                    (*side, made.unwrap_or_default())
                }
                Step::Delete(side) => (*side, replicas.documents[*side].delete(actor(*side as u8), now).unwrap()),
                Step::Merge(side) => {
                    let known: Vec<Change> = replicas
                        .changes
                        .iter()
                        .filter(|c| replicas.documents[1 - side].has(&c.hash()))
                        .cloned()
                        .collect();
                    assert_eq!(replicas.documents[*side].apply(known).unwrap().refused, []);
                    (*side, None)
                }
            };
            replicas.changes.extend(made);
            replicas.show(side);
        }
        let all = replicas.changes.clone();
        assert_eq!(replicas.documents[0].apply(all).unwrap().refused, []);
        replicas
    }

    impl Replicas {
        fn show(&mut self, side: usize) {
            let document = &self.documents[side];
            let version = Version {
                heads: document.heads(),
                is_deleted: document.is_deleted(),
                created: document.created().unwrap(),
                updated: document.updated().unwrap(),
            };
            self.shown.push((version, document.view()));
        }

        fn authors(&self) -> Authors {
            (0..2).map(|side| (actor(side), PeerId([side; 32]))).collect()
        }
    }

    /// Applies differences as a JSON Patch is applied.
    fn patched(before: Option<Object>, differences: &Differences) -> Option<Object> {
        let mut document = before.map(Value::Object);
        for difference in &differences.list {
            let value = match &difference.after {
                Side::Nothing => None,
                Side::Value(value) => Some(value.clone()),
                Side::Long(_) => panic!("a bound was not asked for"),
            };
            let Some((parent, token)) = difference.path.rsplit_once('/') else {
                document = value;
                continue;
            };
            let token = token.replace("~1", "/").replace("~0", "~");
            match document.as_mut().unwrap().pointer_mut(parent).unwrap() {
                Value::Object(fields) => {
                    assert_eq!(fields.contains_key(&token), difference.before != Side::Nothing);
                    match value {
                        Some(value) => _ = fields.insert(token, value),
                        None => _ = fields.remove(&token).unwrap(),
                    }
                }
                Value::Array(items) => {
                    let index: usize = token.parse().unwrap();
                    match (&difference.before, value) {
                        (Side::Nothing, Some(value)) => items.insert(index, value),
                        (_, Some(value)) => items[index] = value,
                        (_, None) => _ = items.remove(index),
                    }
                }
                leaf @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                    panic!("{leaf} holds nothing")
                }
            }
        }
        document.map(object)
    }

    proptest! {
        #[test]
        fn every_version_that_was_shown_is_found_again(first in fields(), steps in steps()) {
            let replicas = play(&first, &steps);
            let document = &replicas.documents[0];
            for (version, view) in &replicas.shown {
                let found = document.version(&At::Heads(version.heads.clone())).unwrap().unwrap();
                prop_assert_eq!(&found, version);
                prop_assert_eq!(String::from_utf8(document.view_at(&found)), String::from_utf8(view.clone()));
            }
        }

        #[test]
        fn differences_turn_one_version_into_another(first in fields(), steps in steps(), picks: (prop::sample::Index, prop::sample::Index)) {
            let replicas = play(&first, &steps);
            let document = &replicas.documents[0];
            let (from, to) = (&picks.0.get(&replicas.shown).0, &picks.1.get(&replicas.shown).0);
            let (before, after) = (document.fields_at(from), document.fields_at(to));
            let found = differences(before.as_ref(), after.as_ref(), WIDE);
            let text = |fields: &Option<Object>| fields.as_ref().map(|fields| serde_json::to_string(fields).unwrap());
            prop_assert_eq!(text(&patched(before, &found)), text(&after));
        }

        #[test]
        fn the_history_has_each_change_once_and_before_those_it_builds_on(
            first in fields(),
            steps in steps(),
            limit in 1usize..5,
        ) {
            let replicas = play(&first, &steps);
            let (document, authors) = (&replicas.documents[0], replicas.authors());
            let (mut entries, mut after) = (Vec::new(), None);
            loop {
                let page = document.history(&authors, after.as_ref(), limit).unwrap();
                prop_assert!((1..=limit).contains(&page.entries.len()));
                entries.extend(page.entries);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let made: BTreeSet<ChangeHash> = replicas.changes.iter().map(Change::hash).collect();
            let listed: BTreeSet<ChangeHash> = entries.iter().map(|entry| entry.change).collect();
            prop_assert_eq!((entries.len(), listed), (made.len(), made));
            let mut told = BTreeSet::new();
            for entry in &entries {
                let change = replicas.changes.iter().find(|change| change.hash() == entry.change).unwrap();
                prop_assert_eq!(&entry.deps, change.deps());
                prop_assert_eq!((entry.author, entry.time), (authors[&change.actor()], change.time().physical()));
                prop_assert_eq!(change.is_delete(), entry.kind == ChangeKind::Delete);
                prop_assert!(entry.deps.iter().all(|dep| !told.contains(dep)), "a change stands after what builds on it");
                told.insert(entry.change);
                let before = document.version(&At::Heads(entry.deps.clone())).unwrap();
                let before = before.and_then(|version| document.fields_at(&version));
                prop_assert_eq!(before.is_none(), entry.kind == ChangeKind::Create);
                let after = document.version(&At::Heads(vec![entry.change])).unwrap().unwrap();
                if !entry.differences.is_cut {
                    prop_assert_eq!(patched(before, &entry.differences), document.fields_at(&after));
                }
            }
        }

        #[test]
        fn a_time_gives_the_changes_made_by_then_with_all_that_they_depend_on(first in fields(), steps in steps(), ms in 0u64..20) {
            let replicas = play(&first, &steps);
            let document = &replicas.documents[0];
            let mut expected = Document::new();
            let by_then = replicas.changes.iter().filter(|change| change.time() <= at(ms)).cloned();
            // What depends on later changes is refused.
            expected.apply(by_then).unwrap();
            let found = document.version(&At::Time(Timestamp(ms))).unwrap();
            prop_assert_eq!(found.as_ref().map(|found| found.heads.clone()).unwrap_or_default(), expected.heads());
            if let Some(found) = found {
                prop_assert_eq!(document.view_at(&found), expected.view());
            }
        }
    }

    #[test]
    fn a_clock_that_went_back_leaves_its_change_out_with_what_it_depends_on() {
        let (mut document, first) = Document::create(actor(0), at(10), &object(json!({"n": 0}))).unwrap();
        let late = document.replace(actor(0), at(1_000), &object(json!({"n": 1}))).unwrap().unwrap();
        let back = document.replace(actor(1), at(20), &object(json!({"n": 2}))).unwrap().unwrap();
        let version = document.version(&At::Time(Timestamp(500))).unwrap().unwrap();
        assert_eq!(version.heads, [first.hash()]);
        let authors = [0, 1].map(|side| (actor(side), PeerId([side; 32]))).into();
        let listed = document.history(&authors, None, 10).unwrap().entries;
        assert_eq!(
            listed.iter().map(|entry| entry.change).collect::<Vec<_>>(),
            [back.hash(), late.hash(), first.hash()]
        );
    }

    #[test]
    fn pages_of_long_histories_are_smaller() {
        for (operations, entries) in [(0, 100), (20_000, 100), (100_000, 20), (2_000_000, 1), (u64::MAX, 1)] {
            assert_eq!(affordable(100, operations), entries, "{operations}");
        }
        assert_eq!(affordable(5, 100_000), 5);
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let (document, first) = Document::create(actor(0), at(10), &Object::new()).unwrap();
        let unknown = ChangeHash([9; 32]);
        assert!(matches!(document.version(&At::Heads(vec![first.hash(), unknown])), Err(Error::NotFound(_))));
        assert_eq!(document.version(&At::Time(Timestamp(9))), Ok(None));
        assert_eq!(document.version(&At::Heads(Vec::new())), Ok(None));
        let authors = Authors::from([(actor(0), PeerId([0; 32]))]);
        assert!(matches!(document.history(&authors, Some(&unknown), 1), Err(Error::NotFound(_))));
        assert!(matches!(document.history(&Authors::new(), None, 1), Err(Error::Corrupt(_))));
    }
}
