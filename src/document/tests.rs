//! What documents promise, checked from outside: round trips, small edits, convergence, deletion, refusals.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{Automerge, ObjType, ROOT, ReadDoc, ScalarValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::base::{ActorId, ChangeHash, Hlc, Timestamp};
use crate::limits::DOCUMENT_DEPTH_MAX;

pub(super) fn actor(number: u8) -> ActorId {
    ActorId([number; 16])
}

pub(super) fn at(ms: u64) -> Hlc {
    Hlc::from_physical(Timestamp(ms))
}

pub(super) fn object(value: Value) -> Object {
    let Value::Object(fields) = value else { panic!("{value} is no object") };
    fields
}

pub(super) fn text(document: &Document) -> String {
    String::from_utf8(document.view()).unwrap()
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        prop::sample::select(vec![0.0, -0.0, 1.0, 1e308, -1e308, 5e-324]).prop_map(Value::from),
        prop::sample::select(vec![0, 1, i64::MIN, i64::MAX]).prop_map(Value::from),
        Just(Value::from(u64::MAX)),
    ]
}

pub(super) fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-e]", 1 => "\\PC{0,6}", 1 => Just("_id".to_owned()), 1 => Just("id".to_owned())]
}

pub(super) fn json_value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number(), ".{0,12}".prop_map(Value::from)];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

pub(super) fn fields() -> impl Strategy<Value = Object> {
    prop::collection::btree_map(key(), json_value(), 0..6).prop_map(|map| map.into_iter().collect())
}

/// Equality that tells -0.0 from 0.0, which `Value` does not.
pub(super) fn exactly(document: &Document, fields: &Object) {
    assert_eq!(text(document), serde_json::to_string(fields).unwrap());
    assert_eq!(serde_json::to_string(&document.fields()).unwrap(), serde_json::to_string(fields).unwrap());
}

/// The change as another peer gets it, with what every peer checks.
pub(super) fn received(change: &Change) -> Change {
    let screened = Change::screen(change.payload().clone()).unwrap();
    assert_eq!(&screened, change);
    screened
}

/// A document of others: the same changes, through the screen.
pub(super) fn replica(changes: &[Change]) -> Document {
    let mut document = Document::new();
    let outcome = document.apply(changes.iter().map(received)).unwrap();
    assert_eq!(outcome.refused, []);
    document
}

/// Saving and loading, and the changes as Automerge writes them anew, give back what was there.
pub(super) fn survives_storage(document: &Document) {
    let loaded = Document::load(&document.save()).unwrap();
    assert_eq!(loaded.heads(), document.heads());
    assert_eq!(text(&loaded), text(document));
    assert_eq!((loaded.created(), loaded.updated()), (document.created(), document.updated()));
    assert_eq!((loaded.is_deleted(), loaded.changes()), (document.is_deleted(), document.changes()));
}

proptest! {
    #[test]
    fn a_created_document_shows_what_it_was_given(fields in fields()) {
        let (document, change) = Document::create(actor(1), at(5), &fields).unwrap();
        exactly(&document, &fields);
        let received = received(&change);
        prop_assert_eq!(received.root_view(), Some(document.view()));
        prop_assert_eq!((received.actor(), received.seq(), received.start_op()), (actor(1), 1, 1));
        prop_assert_eq!((received.time(), received.is_delete()), (at(5), false));
        let other = replica(&[change]);
        exactly(&other, &fields);
        prop_assert_eq!(other.heads(), document.heads());
        survives_storage(&document);
    }

    #[test]
    fn replacing_gives_the_target(versions in prop::collection::vec(fields(), 2..5)) {
        let (mut document, first) = Document::create(actor(1), at(1), &versions[0]).unwrap();
        let mut changes = vec![first];
        for (index, version) in versions.iter().enumerate().skip(1) {
            let same = text(&document) == serde_json::to_string(version).unwrap();
            let change = document.replace(actor(index as u8 % 2), at(2), version).unwrap();
            prop_assert_eq!(change.is_none(), same);
            exactly(&document, version);
            changes.extend(change);
        }
        let other = replica(&changes);
        prop_assert_eq!(text(&other), text(&document));
        prop_assert_eq!(other.heads(), document.heads());
        survives_storage(&other);
    }
}

/// The same first change, made by Automerge.
fn by_automerge(fields: &Object) -> Vec<u8> {
    let mut doc = Automerge::new().with_actor(actor(1).0.into());
    let mut tx = doc.transaction();
    if fields.is_empty() {
        tx.put(ROOT, "_", ScalarValue::Null).unwrap();
        tx.delete(ROOT, "_").unwrap();
    }
    let values = fields.iter().map(|(key, value)| (key.as_str(), edit::hydrate(value)));
    tx.init_root_from_hydrate(&values.collect::<std::collections::HashMap<_, _>>().into()).unwrap();
    tx.commit_with(CommitOptions::default().with_time(at(5).packed()));
    doc.get_last_local_change().unwrap().raw_bytes().to_vec()
}

proptest! {
    #[test]
    fn first_changes_are_written_as_automerge_writes_them(fields in fields()) {
        let change = Change::create(actor(1), at(5), &fields).unwrap();
        prop_assert_eq!(&change.payload()[..], by_automerge(&fields));
    }
}

#[test]
fn the_same_fields_make_the_same_bytes() {
    let fields = object(json!({"b": [1, {"x": 1, "y": 2}], "a": {"q": 1, "p": 2, "r": {}}, "c": null}));
    let (_, first) = Document::create(actor(1), at(1), &fields).unwrap();
    for _ in 0..10 {
        assert_eq!(Document::create(actor(1), at(1), &fields).unwrap().1.hash(), first.hash());
    }
}

#[test]
fn one_field_of_a_big_document_is_a_small_change() {
    let mut big = object(json!({}));
    for number in 0..1_000 {
        let key = format!("field{number}");
        big.insert(key, json!({"text": "x".repeat(50), "list": [1, 2, {"deep": number}]}));
    }
    let (mut document, first) = Document::create(actor(1), at(1), &big).unwrap();
    assert!(first.payload().len() > 50_000);
    big["field500"]["list"][2]["deep"] = json!(true);
    let change = document.replace(actor(1), at(2), &big).unwrap().unwrap();
    assert!(change.payload().len() < 150, "{} bytes", change.payload().len());
    exactly(&document, &big);
    assert!(document.replace(actor(1), at(3), &big).unwrap().is_none());
}

#[test]
fn list_elements_keep_their_identity() {
    let start = object(json!({"list": [{"_id": 1, "a": 1, "b": 1}, {"id": "x", "a": 1}, {"a": [1], "b": 2}, 7, 8]}));
    let (mut one, first) = Document::create(actor(1), at(1), &start).unwrap();
    let mut two = replica(std::slice::from_ref(&first));
    // One edits within the elements, the other inserts in front and edits other fields of them.
    let within = json!({"list": [{"_id": 1, "a": 2, "b": 1}, {"id": "x", "a": 2}, {"a": [1, 2], "b": 2}, 7, 8]});
    let front = json!({"list": [0, {"_id": 1, "a": 1, "b": 3}, {"id": "x", "a": 1, "c": 4}, {"a": [1], "b": 5}, 7]});
    let change_one = one.replace(actor(1), at(2), &object(within)).unwrap().unwrap();
    let change_two = two.replace(actor(2), at(2), &object(front)).unwrap().unwrap();
    one.apply([received(&change_two)]).unwrap();
    two.apply([received(&change_one)]).unwrap();
    let merged = json!({"list": [
        0, {"_id": 1, "a": 2, "b": 3}, {"id": "x", "a": 2, "c": 4}, {"a": [1, 2], "b": 5}, 7
    ]});
    exactly(&one, &object(merged));
    assert_eq!(text(&one), text(&two));
}

#[test]
fn an_element_inserted_in_front_of_a_long_list_is_a_small_change() {
    let list: Vec<u64> = (0..100_000).map(|number| number % 977).collect();
    let (mut document, _) = Document::create(actor(1), at(1), &object(json!({ "list": list }))).unwrap();
    let mut longer = list;
    longer.insert(0, 5);
    longer.remove(50_000);
    longer[70_000] = 5;
    let target = object(json!({ "list": longer }));
    let change = document.replace(actor(1), at(2), &target).unwrap().unwrap();
    assert!(change.payload().len() < 200, "{} bytes", change.payload().len());
    exactly(&document, &target);
}

#[test]
fn texts_are_spliced_and_counters_incremented() {
    let mut doc = Automerge::new().with_actor(actor(9).0.into());
    let mut tx = doc.transaction();
    let note = tx.put_object(ROOT, "note", ObjType::Text).unwrap();
    tx.splice_text(&note, 0, 0, "The quick brown fox").unwrap();
    tx.put(ROOT, "count", ScalarValue::counter(5)).unwrap();
    tx.commit_with(CommitOptions::default().with_time(1));
    let made = doc.get_last_local_change().unwrap();
    let change = Change::screen(made.raw_bytes().to_vec().into()).unwrap();
    let (mut one, mut two) = (replica(std::slice::from_ref(&change)), replica(&[change]));
    let edit = |document: &mut Document, number, note: &str, count: i64| {
        document.replace(actor(number), at(2), &object(json!({"note": note, "count": count}))).unwrap().unwrap()
    };
    let change_one = edit(&mut one, 1, "The slow brown fox", 7);
    let change_two = edit(&mut two, 2, "The quick brown fox jumps", 4);
    one.apply([received(&change_two)]).unwrap();
    two.apply([received(&change_one)]).unwrap();
    exactly(&one, &object(json!({"note": "The slow brown fox jumps", "count": 6})));
    assert_eq!(text(&one), text(&two));
    survives_storage(&one);
}

#[test]
fn documents_created_on_two_peers_merge() {
    let (mut one, first) = Document::create(actor(1), at(1), &object(json!({"a": 1, "c": 1}))).unwrap();
    let (_, second) = Document::create(actor(2), at(2), &object(json!({"b": 2, "c": 2}))).unwrap();
    one.apply([received(&second)]).unwrap();
    exactly(&one, &object(json!({"a": 1, "b": 2, "c": 2})));
    assert_eq!(one.heads().len(), 2);
    assert_eq!(text(&replica(&[second, first])), text(&one));
}

#[test]
fn a_document_is_deleted_when_all_heads_are_deletes() {
    let start = object(json!({"a": 1, "b": {"c": 2}}));
    let (mut one, first) = Document::create(actor(1), at(1), &start).unwrap();
    let mut two = replica(std::slice::from_ref(&first));
    let delete = one.delete(actor(1), at(2)).unwrap().unwrap();
    assert!(received(&delete).is_delete() && one.is_deleted());
    assert_eq!(delete.deps(), [first.hash()]);
    assert_eq!(one.delete(actor(1), at(3)).unwrap(), None);
    survives_storage(&one);
    // A concurrent edit keeps the document alive, with all of its fields, on both sides.
    let edit = two.replace(actor(2), at(2), &object(json!({"a": 7, "b": {"c": 2}}))).unwrap().unwrap();
    one.apply([received(&edit)]).unwrap();
    two.apply([received(&delete)]).unwrap();
    assert!(!one.is_deleted() && !two.is_deleted());
    exactly(&one, &object(json!({"a": 7, "b": {"c": 2}})));
    // Deleting again depends on the edit, and not on the delete of another actor.
    let again = two.delete(actor(2), at(4)).unwrap().unwrap();
    assert_eq!(again.deps(), [edit.hash()]);
    assert!(two.is_deleted() && two.heads().len() == 2);
    // A delete by the actor of the first depends on its own last change too.
    let own = one.delete(actor(1), at(4)).unwrap().unwrap();
    assert!(own.deps().len() == 2 && own.deps().contains(&delete.hash()));
    one.apply([received(&again)]).unwrap();
    two.apply([received(&own)]).unwrap();
    assert!(one.is_deleted() && two.is_deleted());
    assert_eq!(one.heads(), two.heads());
    survives_storage(&two);
}

#[test]
fn a_revived_document_shows_nothing_old() {
    for (start, target) in [
        (json!({"a": 1, "b": {"c": 2}}), json!({"b": {"d": 3}})),
        (json!({"a": 1}), json!({"a": 1})),
        (json!({"a": 1}), json!({})),
        (json!({}), json!({})),
    ] {
        let (mut document, first) = Document::create(actor(1), at(1), &object(start)).unwrap();
        let delete = document.delete(actor(2), at(2)).unwrap().unwrap();
        let revival = document.replace(actor(2), at(3), &object(target.clone())).unwrap().unwrap();
        assert!(!document.is_deleted());
        exactly(&document, &object(target));
        let other = replica(&[revival, first, delete]);
        assert_eq!((text(&other), other.heads()), (text(&document), document.heads()));
        survives_storage(&other);
    }
}

#[test]
fn times_span_all_changes() {
    let (mut document, _) = Document::create(actor(1), at(50), &object(json!({"a": 1}))).unwrap();
    document.replace(actor(2), at(20), &object(json!({"a": 2}))).unwrap();
    document.replace(actor(1), at(70), &object(json!({"a": 3}))).unwrap();
    assert_eq!((document.created(), document.updated()), (Some(at(20)), Some(at(70))));
    assert_eq!(document.changes(), 3);
}

#[test]
fn changes_wait_for_their_dependencies_and_forks_are_refused() {
    let (mut document, first) = Document::create(actor(1), at(1), &object(json!({"a": 1}))).unwrap();
    let second = document.replace(actor(1), at(2), &object(json!({"a": 2}))).unwrap().unwrap();
    let mut other = Document::new();
    assert_eq!(other.missing_deps(&second), [first.hash()]);
    let outcome = other.apply([second.clone()]).unwrap();
    assert_eq!(outcome.refused, [(second.hash(), Refusal::Missing(vec![first.hash()]))]);
    assert!(outcome.refused[0].1.is_temporary() && other.changes() == 0);
    let outcome = other.apply([second.clone(), first.clone(), second.clone()]).unwrap();
    assert_eq!(outcome.applied, [first.hash(), second.hash()]);
    assert_eq!(other.apply([second.clone(), first.clone()]).unwrap(), Applied::default());
    // The same actor and sequence number again, with other contents.
    let mut twin = replica(std::slice::from_ref(&first));
    let forked = twin.replace(actor(1), at(2), &object(json!({"a": 3}))).unwrap().unwrap();
    let outcome = other.apply([forked.clone()]).unwrap();
    assert_eq!(outcome.refused, [(forked.hash(), Refusal::Fork { with: second.hash() })]);
    assert_eq!(text(&other), text(&document));
}

#[test]
fn countries_round_trip() {
    let folder =
        std::env::var("AEROLITHSDB_DATA").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/data").into());
    let Ok(countries) = std::fs::read_to_string(format!("{folder}/countries.ndjson")) else {
        eprintln!("no countries.ndjson in {folder} (set AEROLITHSDB_DATA): skipped");
        return;
    };
    let mut count = 0;
    let mut before: Option<Document> = None;
    for line in countries.lines() {
        let fields = json::parse_document(line.as_bytes()).unwrap();
        let (document, change) = Document::create(actor(1), at(1), &fields).unwrap();
        exactly(&document, &fields);
        assert_eq!(received(&change).root_view(), Some(document.view()));
        if let Some(mut before) = before.replace(document) {
            before.replace(actor(2), at(2), &fields).unwrap();
            exactly(&before, &fields);
        }
        count += 1;
    }
    assert!(count > 200);
}

#[test]
fn an_edit_beyond_the_limits_leaves_the_document_as_it_was() {
    let (mut document, _) = Document::create(actor(1), at(1), &object(json!({"a": 1}))).unwrap();
    let heads = document.heads();
    let huge = object(json!({"text": "x".repeat(crate::limits::CHANGE_BYTES_MAX)}));
    let error = document.replace(actor(1), at(2), &huge).unwrap_err();
    assert!(matches!(error, crate::Error::Invalid(invalid) if invalid.kind == crate::InvalidKind::TooLarge));
    exactly(&document, &object(json!({"a": 1})));
    let change = document.replace(actor(1), at(3), &object(json!({"a": 2}))).unwrap().unwrap();
    assert_eq!((change.seq(), change.deps()), (2, &heads[..]));
}

#[test]
fn depth_is_bounded_across_changes() {
    let nested = |levels: usize| object((1..levels).fold(json!({}), |inner, _| json!({ "a": inner })));
    let (mut document, first) = Document::create(actor(1), at(1), &nested(DOCUMENT_DEPTH_MAX)).unwrap();
    assert!(Document::create(actor(1), at(1), &nested(DOCUMENT_DEPTH_MAX + 1)).is_err());
    assert!(document.replace(actor(1), at(2), &nested(DOCUMENT_DEPTH_MAX + 1)).is_err());
    exactly(&document, &nested(DOCUMENT_DEPTH_MAX));
    // Automerge itself nests on; the document does not take it.
    let mut doc = Automerge::new().with_actor(actor(2).0.into());
    doc.apply_changes([automerge::Change::try_from(&first.payload()[..]).unwrap()]).unwrap();
    let mut deepest = ROOT;
    while let Some((_, inner)) = doc.get(&deepest, "a").unwrap() {
        deepest = inner;
    }
    let mut tx = doc.transaction();
    tx.put_object(&deepest, "a", ObjType::Map).unwrap();
    tx.commit();
    let deeper = Change::screen(doc.get_last_local_change().unwrap().raw_bytes().to_vec().into()).unwrap();
    let outcome = document.apply([deeper.clone()]).unwrap();
    assert_eq!(outcome.refused, [(deeper.hash(), Refusal::Rule("nested too deeply"))]);
}

#[test]
fn a_change_that_conflicts_with_itself_is_refused() {
    let run = with_columns(&[(21, &[2, 1, b'a']), (52, &[2]), (66, &[2, 1]), (86, &[2, 0]), (112, &[2, 0])]);
    let error = Change::screen(checksummed(run).into()).unwrap_err();
    assert_eq!(error, ScreenError::Rule("a change conflicts with itself"));
}

#[test]
fn a_snapshot_of_anything_else_is_an_error() {
    let (document, change) = Document::create(actor(1), at(1), &object(json!({"a": [1, 2, 3]}))).unwrap();
    let snapshot = document.save();
    assert!(Document::load(&[]).is_err());
    for length in 0..snapshot.len() {
        assert!(Document::load(&snapshot[..length]).is_err());
    }
    for index in 0..snapshot.len() {
        let mut damaged = snapshot.clone();
        damaged[index] ^= 0x55;
        assert!(Document::load(&damaged).is_err(), "byte {index}");
    }
    assert!(Document::load(&change.payload()[1..]).is_err());
}

/// What a peer does in a random run.
#[derive(Debug, Clone)]
enum Step {
    Replace(Object),
    Delete,
    Receive(usize),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        4 => fields().prop_map(Step::Replace),
        1 => Just(Step::Delete),
        3 => (0usize..100).prop_map(Step::Receive),
    ];
    (0usize..3, step)
}

/// Three peers with one document: every change made, and the peers.
fn run(start: &Object, steps: &[(usize, Step)]) -> (Vec<Change>, Vec<Document>) {
    let (_, first) = Document::create(actor(9), at(1), start).unwrap();
    let mut peers: Vec<Document> = (0..3).map(|_| replica(std::slice::from_ref(&first))).collect();
    let mut changes = vec![first];
    for (time, (peer, step)) in steps.iter().enumerate() {
        let (document, me, now) = (&mut peers[*peer], actor(*peer as u8 + 1), at(2 + time as u64));
        match step {
            Step::Replace(fields) => changes.extend(document.replace(me, now, fields).unwrap()),
            Step::Delete => changes.extend(document.delete(me, now).unwrap()),
            Step::Receive(index) => {
                let outcome = document.apply([received(&changes[index % changes.len()])]).unwrap();
                assert!(outcome.refused.iter().all(|(_, refusal)| refusal.is_temporary()));
            }
        }
    }
    (changes, peers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn peers_converge_in_any_order_and_batching(
        start in fields(),
        steps in prop::collection::vec(step(), 1..14),
        order in any::<prop::sample::Index>(),
        batch in 1usize..6,
    ) {
        let (changes, peers) = run(&start, &steps);
        let all = replica(&changes);
        survives_storage(&all);
        for mut peer in peers {
            prop_assert_eq!(peer.apply(changes.iter().map(received)).unwrap().refused, []);
            prop_assert_eq!((text(&peer), peer.heads()), (text(&all), all.heads()));
            prop_assert_eq!(peer.is_deleted(), all.is_deleted());
        }
        // Another order: rotated, reversed, in batches, again and again until nothing is missing.
        let mut shuffled = changes.clone();
        shuffled.rotate_left(order.index(changes.len()));
        shuffled.reverse();
        let mut late = Document::new();
        while late.changes() < changes.len() {
            for batch in shuffled.chunks(batch) {
                late.apply(batch.iter().map(received)).unwrap();
            }
        }
        prop_assert_eq!((text(&late), late.heads()), (text(&all), all.heads()));
        // And a peer that goes on from a snapshot.
        let half = changes.len() / 2;
        let mut loaded = Document::load(&replica(&changes[..half.max(1)]).save()).unwrap();
        prop_assert_eq!(loaded.apply(changes.iter().map(received)).unwrap().refused, []);
        prop_assert_eq!((text(&loaded), loaded.heads()), (text(&all), all.heads()));
    }

    #[test]
    fn deletion_follows_the_heads(start in fields(), steps in prop::collection::vec(step(), 1..14)) {
        let (changes, _) = run(&start, &steps);
        let document = replica(&changes);
        let heads = document.heads();
        let head = |hash: &ChangeHash| changes.iter().find(|change| change.hash() == *hash).unwrap();
        prop_assert_eq!(document.is_deleted(), heads.iter().all(|hash| head(hash).is_delete()));
        let mut sorted = changes.clone();
        sorted.sort_by_key(|change| (change.position(), change.actor(), change.seq()));
        for (index, change) in sorted.iter().enumerate() {
            for dep in change.deps() {
                prop_assert!(sorted[..index].iter().any(|earlier| earlier.hash() == *dep));
            }
        }
    }
}

fn checksummed(mut payload: Vec<u8>) -> Vec<u8> {
    if let Ok(change) = automerge::Change::try_from(&payload[..]) {
        payload[4..8].copy_from_slice(&change.hash().0[..4]);
    }
    payload
}

/// A change got through the screen: then Automerge must take it without a panic, give it back byte for byte,
/// and survive storage. Whatever the document refuses must leave it as it was.
fn harmless(base: &[Change], payload: Vec<u8>) {
    let Ok(change) = Change::screen(payload.into()) else { return };
    let mut document = replica(base);
    let before = (text(&document), document.heads());
    let outcome = document.apply([change.clone()]).expect("the checks let something through");
    if outcome.applied.is_empty() {
        assert_eq!((text(&document), document.heads()), before);
        return;
    }
    survives_storage(&document);
    // In one batch with everything else, or each change by itself, the other way round where that is possible.
    let mut together = Document::new();
    together.apply(base.iter().cloned().chain([change.clone()])).unwrap();
    assert_eq!((text(&together), together.heads()), (text(&document), document.heads()));
    let mut early = Document::new();
    while early.changes() < document.changes() {
        for change in [&change].into_iter().chain(base.iter().rev()) {
            early.apply([change.clone()]).unwrap();
        }
    }
    assert_eq!((text(&early), early.heads()), (text(&document), document.heads()));
    let again = document.doc_changes();
    assert!(again.iter().any(|bytes| bytes[..] == change.payload()[..]), "the change came back changed");
    // And the document can still be edited, to anything.
    let target = object(json!({"a": [{"b": 1}, "two", 5], "k": 2, "t": "hello", "o": {"p": [1]}, "n": null}));
    let edit = document.replace(actor(7), at(99), &target).unwrap();
    exactly(&document, &target);
    edit.iter().for_each(|edit| assert_eq!(together.apply([received(edit)]).unwrap().refused, []));
    exactly(&together, &target);
    if change.deps().is_empty() {
        assert_eq!(change.root_view(), Some(replica(&[change]).view()));
    }
}

fn sample_changes() -> Vec<Change> {
    let start = object(json!({"a": [1, "two", {"b": null, "c": [true, 1.5]}], "n": 7, "o": {"p": "q"}}));
    let (mut document, first) = Document::create(actor(2), at(1), &start).unwrap();
    let mut doc = Automerge::new().with_actor(actor(1).0.into());
    let inner: automerge::Change = automerge::Change::try_from(&first.payload()[..]).unwrap();
    doc.apply_changes([inner]).unwrap();
    let mut tx = doc.transaction();
    let note = tx.put_object(ROOT, "t", ObjType::Text).unwrap();
    tx.splice_text(&note, 0, 0, "héllo").unwrap();
    tx.put(ROOT, "k", ScalarValue::counter(3)).unwrap();
    tx.put(ROOT, "z", ScalarValue::Bytes(vec![1, 2])).unwrap();
    tx.commit_with(CommitOptions::default().with_time(9));
    let mut tx = doc.transaction();
    tx.splice_text(&note, 1, 2, "xy").unwrap();
    tx.increment(ROOT, "k", 4).unwrap();
    let list = tx.get(ROOT, "a").unwrap().unwrap().1;
    tx.insert(&list, 1, 5).unwrap();
    tx.delete(&list, 0).unwrap();
    tx.put(ROOT, "n", 8).unwrap();
    tx.commit_with(CommitOptions::default().with_time(10));
    let theirs: Vec<Change> = doc.get_changes(&[])[1..]
        .iter()
        .map(|change| Change::screen(change.raw_bytes().to_vec().into()).unwrap())
        .collect();
    let edited = object(json!({"a": ["two", {"b": 1, "c": [true]}], "n": 9, "o": {}}));
    let edit = document.replace(actor(2), at(3), &edited).unwrap().unwrap();
    document.apply(theirs.clone()).unwrap();
    let merge = document.replace(actor(3), at(4), &object(json!({"a": [1], "t": "hey", "k": 9}))).unwrap().unwrap();
    let delete = document.delete(actor(2), at(5)).unwrap().unwrap();
    [first].into_iter().chain(theirs).chain([edit, merge, delete]).collect()
}

#[test]
fn mutated_changes_do_no_harm() {
    let changes = sample_changes();
    for (index, change) in changes.iter().enumerate() {
        let base = &changes[..index];
        harmless(base, change.payload().to_vec());
        for length in 0..change.payload().len() {
            assert!(Change::screen(change.payload().slice(..length)).is_err());
        }
        for at in 0..change.payload().len() {
            for mutation in [0x01, 0x02, 0x04, 0x10, 0x40, 0x80, 0xff, 0x7f] {
                let mut payload = change.payload().to_vec();
                payload[at] ^= mutation;
                harmless(base, checksummed(payload));
            }
            for other in [0, 1, 2, 0x7f, 0x7e] {
                let mut payload = change.payload().to_vec();
                payload[at] = other;
                harmless(base, checksummed(payload));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn many_mutations_do_no_harm(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..5),
    ) {
        let changes = SAMPLES.with(Clone::clone);
        let index = which.index(changes.len());
        let mut payload = changes[index].payload().to_vec();
        for (at, byte, kind) in edits {
            let at = 10 + at.index(payload.len() - 10);
            match kind {
                0 => payload[at] = byte,
                1 => payload.insert(at, byte),
                _ => drop(payload.remove(at)),
            }
        }
        harmless(&changes[..index], checksummed(resized(payload)));
    }

    #[test]
    fn garbage_does_no_harm(mut payload in prop::collection::vec(any::<u8>(), 0..200), valid_start: bool) {
        if valid_start && payload.len() > 12 {
            payload[..4].copy_from_slice(&[0x85, 0x6f, 0x4a, 0x83]);
            payload[8] = 1;
            payload = resized(payload);
        }
        harmless(&[], checksummed(payload));
    }
}

/// The rows of a change, to be changed at will and written again in canonical form.
#[derive(Debug, Clone)]
struct Forged {
    head: Vec<u8>,
    actors: Vec<ActorId>,
    rows: Vec<ForgedRow>,
}

#[derive(Debug, Clone)]
struct ForgedRow {
    object: Option<(u64, u32)>,
    key: Option<(Option<u64>, u32)>,
    field: Option<String>,
    insert: bool,
    action: u64,
    meta: u64,
    value: Vec<u8>,
    predecessors: Vec<(u64, u32)>,
}

impl Forged {
    fn read(change: &Change) -> Self {
        let parsed = operation::Parsed::read(change.payload()).unwrap();
        let (mut rows, mut predecessors, mut forged) = (parsed.rows(), Vec::new(), Vec::new());
        let plain = |op: operation::OpRef| (u64::from(op.actor), op.counter);
        while let Some(row) = rows.next(&mut predecessors).unwrap() {
            use operation::{Action, Key};
            let (key, field) = match row.key {
                Key::Field(name) => (None, Some(name.to_owned())),
                Key::Head => (Some((None, 0)), None),
                Key::Element(op) => (Some((Some(u64::from(op.actor)), op.counter)), None),
            };
            let action = match row.action {
                Action::MakeMap => 0,
                Action::Set => 1,
                Action::MakeList => 2,
                Action::Delete => 3,
                Action::MakeText => 4,
                Action::Increment => 5,
            };
            forged.push(ForgedRow {
                object: row.object.map(plain),
                key,
                field,
                insert: row.insert,
                action,
                meta: (row.value.len() as u64) << 4 | row.value_type as u64,
                value: row.value.to_vec(),
                predecessors: predecessors.iter().copied().map(plain).collect(),
            });
        }
        let mut head = crate::base::Writer::new();
        head.list(&parsed.deps, |writer, dep| {
            writer.value(dep);
        });
        head.bytes(&parsed.actors[0].0).varint(parsed.seq).varint(u64::from(parsed.start_op));
        column::write_signed(&mut head, parsed.time.packed());
        head.string(if parsed.is_delete { DELETE_MARK } else { "" });
        Self { head: head.finish(), actors: parsed.actors, rows: forged }
    }

    fn write(&self) -> Vec<u8> {
        use column::{write_booleans, write_deltas, write_runs};
        let each = || self.rows.iter();
        let predecessors = || each().flat_map(|row| row.predecessors.iter().copied());
        let columns = [
            write_runs(each().map(|row| row.object.map(|(actor, _)| actor))),
            write_runs(each().map(|row| row.object.map(|(_, counter)| u64::from(counter)))),
            write_runs(each().map(|row| row.key.and_then(|(actor, _)| actor))),
            write_deltas(each().map(|row| row.key.map(|(_, counter)| counter))),
            write_runs(each().map(|row| row.field.as_deref())),
            write_booleans(each().map(|row| row.insert)),
            write_runs(each().map(|row| Some(row.action))),
            write_runs(each().map(|row| Some(row.meta))),
            each().flat_map(|row| row.value.clone()).collect(),
            write_runs(each().map(|row| Some(row.predecessors.len() as u64))),
            write_runs(predecessors().map(|(actor, _)| Some(actor))),
            write_deltas(predecessors().map(|(_, counter)| Some(counter))),
        ];
        let mut body = crate::base::Writer::new();
        body.fixed(&self.head);
        body.list(&self.actors[1..], |writer, actor| {
            writer.bytes(&actor.0);
        });
        let present: Vec<_> = operation::COLUMNS.iter().zip(&columns).filter(|(_, bytes)| !bytes.is_empty()).collect();
        body.list(&present, |writer, (specification, bytes)| {
            writer.varint(u64::from(**specification)).varint(bytes.len() as u64);
        });
        for (_, bytes) in present {
            body.fixed(bytes);
        }
        let mut chunk = crate::base::Writer::new();
        chunk.fixed(&[0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1]).bytes(&body.finish());
        checksummed(chunk.finish())
    }

    /// Makes one change to one row.
    fn twist(&mut self, (at, kind, actor, counter): (usize, u8, u64, u32)) {
        if self.rows.is_empty() {
            return;
        }
        let at = at % self.rows.len();
        let actor = actor % self.actors.len() as u64;
        let row = &mut self.rows[at];
        match kind {
            0 => row.object = Some((actor, counter)),
            1 => row.object = None,
            2 => row.key = row.key.map(|_| (Some(actor), counter)),
            3 => row.key = row.key.map(|_| (None, 0)),
            4 => row.predecessors = vec![(actor, counter)],
            5 => row.predecessors.push((actor, counter)),
            6 => row.predecessors.clear(),
            7 => row.insert = !row.insert,
            8 => row.action = u64::from(counter % 6),
            9 => row.field = row.field.as_ref().map(|_| ["a", "k", "n", "t", "z"][counter as usize % 5].to_owned()),
            10 => (row.meta, row.value) = (0, Vec::new()),
            11 => (row.meta, row.value) = (0x16, b"x".to_vec()),
            12 => (row.meta, row.value) = (0x18, vec![5]),
            13 => (row.key, row.field) = (Some((Some(actor), counter)), None),
            14 => (row.key, row.field) = (None, Some("a".to_owned())),
            15 => drop(self.rows.remove(at)),
            16 => self.rows.push(self.rows[at].clone()),
            17 => (row.meta, row.value) = (0x14, vec![5]),
            _ => self.rows.swap(0, at),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn forged_changes_do_no_harm(
        which in any::<prop::sample::Index>(),
        base in any::<prop::sample::Index>(),
        twists in prop::collection::vec((0usize..64, 0u8..19, 0u64..4, 1u32..60), 0..4),
    ) {
        let changes = SAMPLES.with(Clone::clone);
        let index = which.index(changes.len());
        let mut forged = Forged::read(&changes[index]);
        if twists.is_empty() {
            prop_assert_eq!(&forged.write()[..], &changes[index].payload()[..]);
        }
        twists.into_iter().for_each(|twist| forged.twist(twist));
        // Among its past only, or among everything else too.
        let base = index.max(base.index(changes.len()));
        let others: Vec<Change> = changes[..base].iter().filter(|change| change.seq() != changes[index].seq()
            || change.actor() != changes[index].actor()).cloned().collect();
        let others = if base > index { closed(others) } else { changes[..index].to_vec() };
        harmless(&others, forged.write());
    }
}

/// The changes whose dependencies are all there.
fn closed(changes: Vec<Change>) -> Vec<Change> {
    let mut document = Document::new();
    let applied = document.apply(changes.clone()).unwrap().applied;
    changes.into_iter().filter(|change| applied.contains(&change.hash())).collect()
}

thread_local! {
    static SAMPLES: Vec<Change> = sample_changes();
}

/// Corrects the length in the header.
fn resized(mut payload: Vec<u8>) -> Vec<u8> {
    let used = payload[9..].iter().take_while(|&&byte| byte & 0x80 != 0).count() + 1;
    let body = payload.split_off((9 + used).min(payload.len()));
    payload.truncate(9);
    let mut writer = crate::base::Writer::new();
    writer.bytes(&body);
    payload.extend(writer.finish());
    payload
}

/// A change with the given columns, as its bytes.
fn with_columns(columns: &[(u64, &[u8])]) -> Vec<u8> {
    let mut body = crate::base::Writer::new();
    body.varint(0).bytes(&[1; 16]).varint(1).varint(1).varint(0).varint(0).varint(0);
    body.list(columns, |writer, (specification, bytes)| {
        writer.varint(*specification).varint(bytes.len() as u64);
    });
    for (_, bytes) in columns {
        body.fixed(bytes);
    }
    let mut chunk = crate::base::Writer::new();
    chunk.fixed(&[0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1]).bytes(&body.finish());
    chunk.finish()
}

const ONE_FIELD: [(u64, &[u8]); 5] =
    [(21, &[0x7f, 1, b'a']), (52, &[1]), (66, &[0x7f, 1]), (86, &[0x7f, 0]), (112, &[0x7f, 0])];

#[test]
fn the_screen_names_what_it_refuses() {
    let valid = checksummed(with_columns(&ONE_FIELD));
    assert!(Change::screen(valid.clone().into()).is_ok());
    let refused = |payload: Vec<u8>, part: &str| {
        let error = Change::screen(payload.into()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let mut wrong = valid.clone();
    wrong[4] ^= 1;
    refused(wrong, "checksum");
    for kind in [0, 2, 3, 4] {
        let mut wrong = valid.clone();
        wrong[8] = kind;
        refused(wrong, "uncompressed");
    }
    refused([&valid[..], &[0]].concat(), "length");
    refused(vec![0; crate::limits::CHANGE_BYTES_MAX + 1], "limit");
    refused(b"{\"json\": true}".to_vec(), "chunk");
    let column = |index: usize, bytes: &'static [u8]| {
        let mut columns = ONE_FIELD;
        columns[index].1 = bytes;
        with_columns(&columns)
    };
    let specification = |index: usize, specification: u64| {
        let mut columns = ONE_FIELD;
        columns[index].0 = specification;
        with_columns(&columns)
    };
    refused(specification(0, 21 | 8), "compressed");
    refused(specification(4, 148), "unknown");
    refused(specification(4, 21), "out of order");
    // Runs of 2^40, 2^62 and of i64::MIN.
    refused(column(2, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 1]), "fewer rows");
    refused(column(0, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 1, b'a']), "more rows");
    refused(column(4, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0xc0, 0x00, 0]), "more rows");
    refused(column(2, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f, 1]), "ended");
    refused(column(4, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f]), "predecessors");
    refused(column(3, &[0x7f, 0x0a]), "unknown type");
    refused(column(3, &[0x7f, 0xf6, 0xff, 0xff, 0xff, 0x0f]), "ended");
    refused(column(2, &[0x7f, 7]), "action");
    refused(column(2, &[0x7f, 3]), "predecessors");
    refused(column(1, &[0, 1]), "fit");
    let edit = |offset: usize, byte: u8| {
        let mut wrong = valid.clone();
        wrong[offset] = byte;
        checksummed(wrong)
    };
    let body = 10;
    refused(edit(body + 1, 15), "");
    refused(edit(body + 18, 2), "first edit");
    refused(edit(body + 19, 2), "first edit");
    refused(edit(body + 20, 0x7f), "negative");
    refused(edit(body + 21, 1), "");
    refused(checksummed(with_columns(&[])), "no operations");
}

/// A list with `count` nulls, each inserted at its head, in about 100 bytes.
fn run_of_inserts(count: u64) -> Vec<u8> {
    let varint = |value: u64| {
        let mut writer = crate::base::Writer::new();
        writer.varint(value);
        writer.finish()
    };
    // Signed and unsigned LEB128 agree as long as bit 6 of the last byte is not set.
    let (inserts, all) = (varint(count), varint(count + 1));
    let columns: [(u64, Vec<u8>); 8] = [
        (1, [&[0, 1], &inserts[..], &[0]].concat()),
        (2, [&[0, 1], &inserts[..], &[1]].concat()),
        (19, [&[0, 1], &inserts[..], &[0]].concat()),
        (21, [&[0x7f, 1, b'a', 0], &inserts[..]].concat()),
        (52, [&[1], &inserts[..]].concat()),
        (66, [&[0x7f, 2], &inserts[..], &[1]].concat()),
        (86, [&all[..], &[0]].concat()),
        (112, [&all[..], &[0]].concat()),
    ];
    let columns: Vec<(u64, &[u8])> = columns.iter().map(|(spec, bytes)| (*spec, &bytes[..])).collect();
    with_columns(&columns)
}

#[test]
fn long_runs_stay_within_bounds() {
    let small = Change::screen(checksummed(run_of_inserts(1_000)).into()).unwrap();
    assert!(small.payload().len() < 120);
    exactly(&replica(&[small]), &object(json!({"a": vec![Value::Null; 1_000]})));
    let too_many = Err(ScreenError::Rule("too many operations"));
    assert_eq!(Change::screen(run_of_inserts(crate::limits::CHANGE_OPS_MAX).into()), too_many);
    assert_eq!(Change::screen(run_of_inserts(1 << 40).into()), too_many);
}

/// Changes that are well-formed and refer to what is not there, or not theirs to refer to.
#[test]
fn references_out_of_the_past_are_refused() {
    let (mut mine, first) =
        Document::create(actor(1), at(1), &object(json!({"list": [1, 2, 3, 4, 5], "map": {"x": 1}, "n": 1}))).unwrap();
    let later = mine.replace(actor(1), at(2), &object(json!({"list": [1, 2, 3, 9], "map": {"x": 2}, "n": 2})));
    let later = later.unwrap().unwrap();
    // A twin of the document in which the same operation numbers mean other things.
    let mut twin = Automerge::new().with_actor(actor(1).0.into());
    let mut tx = twin.transaction();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        tx.put_object(ROOT, key, ObjType::List).unwrap();
    }
    tx.commit();
    twin.set_actor(actor(2).0.into());
    let objects: Vec<_> = twin.map_range(&ROOT, ..).map(|item| item.id()).collect();
    for object in &objects {
        let mut forked = twin.fork().with_actor(actor(2).0.into());
        let mut tx = forked.transaction();
        tx.insert(object, 0, 1).unwrap();
        tx.commit();
        let bytes = forked.get_last_local_change().unwrap().raw_bytes().to_vec();
        harmless(&[first.clone(), later.clone()], transplanted(&bytes, &first, first.max_op() + 1));
    }
    for key in ["a", "b", "h"] {
        let mut forked = twin.fork().with_actor(actor(2).0.into());
        let mut tx = forked.transaction();
        tx.delete(ROOT, key).unwrap();
        tx.commit();
        let bytes = forked.get_last_local_change().unwrap().raw_bytes().to_vec();
        let payload = transplanted(&bytes, &first, first.max_op() + 1);
        let change = Change::screen(payload.clone().into()).unwrap();
        let outcome = replica(&[first.clone(), later.clone()]).apply([change]).unwrap();
        assert!(matches!(outcome.refused[0].1, Refusal::Rule(_)), "{:?}", outcome.refused);
        harmless(&[first.clone(), later.clone()], payload);
    }
}

#[test]
fn references_to_concurrent_changes_are_refused() {
    let (mut mine, first) = Document::create(actor(1), at(1), &object(json!({"list": [1], "n": 1}))).unwrap();
    let mut theirs = replica(std::slice::from_ref(&first));
    let later = mine.replace(actor(1), at(2), &object(json!({"list": [1, {"x": 1}], "n": 2}))).unwrap().unwrap();
    let filler: Vec<u32> = (0..20).collect();
    let other = theirs.replace(actor(3), at(2), &object(json!({"list": [1], "n": 1, "f": filler}))).unwrap().unwrap();
    let base = [first, later.clone(), other.clone()];
    for target in [
        json!({"list": [1, {"x": 1}], "n": 3, "f": filler}),
        json!({"list": [1, {"x": 1}], "f": filler}),
        json!({"list": [1, {"x": 2}], "n": 2, "f": filler}),
        json!({"list": [1, {"x": 1}, 5], "n": 2, "f": filler}),
        json!({"list": [1], "n": 2, "f": filler}),
    ] {
        let mut merged = replica(&base);
        let change = merged.replace(actor(2), at(3), &object(target)).unwrap().unwrap();
        assert_eq!(change.deps().len(), 2);
        assert_eq!(replica(&base).apply([received(&change)]).unwrap().refused, []);
        let payload = transplanted(change.payload(), &other, change.start_op());
        let forged = Change::screen(payload.into()).unwrap();
        for base in [&base[..], &[base[0].clone(), base[2].clone()]] {
            let outcome = replica(base).apply([forged.clone()]).unwrap();
            assert!(matches!(outcome.refused[0].1, Refusal::Rule(_)), "{outcome:?}");
        }
    }
}

/// The operations of one change with the dependency and start of another.
fn transplanted(bytes: &[u8], dep: &Change, start_op: u64) -> Vec<u8> {
    let mut reader = crate::base::Reader::new(&bytes[9..]);
    reader.varint().unwrap();
    reader.list("deps", 2, |reader| reader.fixed::<32>()).unwrap();
    let actor = reader.bytes("actor", 16).unwrap();
    let seq = reader.varint().unwrap();
    reader.varint().unwrap();
    let mut body = crate::base::Writer::new();
    body.varint(1).fixed(&dep.hash().0).bytes(actor).varint(seq).varint(start_op).fixed(reader.rest());
    let mut chunk = crate::base::Writer::new();
    chunk.fixed(&bytes[..9]).bytes(&body.finish());
    checksummed(chunk.finish())
}
