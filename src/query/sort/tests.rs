//! The order of rows against one that is made of parsed values.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Error;
use crate::value::{Json, compare};

/// A value, often one that is close to another.
pub(in super::super) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        (-3i64..3).prop_map(|half| Value::from(half as f64 / 2.0)),
        "[ab\"]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[ab]", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A document with some of the fields `a`, `b` and `c`.
pub(in super::super) fn document() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[abc]", value(), 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

fn parsed(sort: &Value) -> Sort {
    Sort::parse(sort, "").unwrap_or_else(|error| panic!("{sort}: {error}"))
}

/// Documents in their order, by [`Sorter`].
pub(in super::super) fn sorted(sort: &Sort, first: Option<usize>, documents: &[Value]) -> Vec<Value> {
    let budget = Budget::new(None, 1 << 20);
    let mut sorter = Sorter::new(sort, first, &budget, "$sort");
    for document in documents {
        let text = document.to_string();
        sorter.push(Row { id: None, body: Json::new(text.as_bytes()), conflicts: 0 }).unwrap();
    }
    let mut out = Vec::new();
    let flow = sorter.finish(&mut |row| {
        out.push(serde_json::from_slice(row.body.text()).unwrap());
        Ok(ControlFlow::Continue(()))
    });
    assert!(flow.unwrap().is_continue());
    out
}

/// What stands for a document in the order by a field without dots: an empty array has no value.
fn naive_key(document: &Value, field: &str, direction: Direction) -> Option<Value> {
    match document.get(field) {
        Some(Value::Array(items)) => {
            let items = items.iter().cloned();
            match direction {
                Direction::Ascending => items.min_by(order),
                // Of equal ones any will do.
                Direction::Descending => items.max_by(order),
            }
        }
        other => Some(other.cloned().unwrap_or(Value::Null)),
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    let (a, b) = (a.to_string(), b.to_string());
    compare(Json::new(a.as_bytes()), Json::new(b.as_bytes()))
}

fn naive_order(a: &Value, b: &Value, keys: &[(&str, Direction)]) -> Ordering {
    let by = |(field, direction): &(&str, Direction)| {
        let (a, b) = (naive_key(a, field, *direction), naive_key(b, field, *direction));
        let ascending = match (&a, &b) {
            (Some(a), Some(b)) => order(a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        if *direction == Direction::Descending { ascending.reverse() } else { ascending }
    };
    keys.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

proptest! {
    #[test]
    fn rows_are_sorted_as_their_values_compare(documents in proptest::collection::vec(document(), 0..12)) {
        let keys = [("a", Direction::Ascending), ("b", Direction::Descending)];
        let mut expected = documents.clone();
        expected.sort_by(|a, b| naive_order(a, b, &keys));
        prop_assert_eq!(sorted(&parsed(&json!("a,-b")), None, &documents), expected);
    }

    #[test]
    fn the_first_rows_are_those_of_all(documents in proptest::collection::vec(document(), 0..12), first in 0usize..14) {
        let sort = parsed(&json!([{"b": -1}]));
        let mut expected = sorted(&sort, None, &documents);
        expected.truncate(first);
        prop_assert_eq!(sorted(&sort, Some(first), &documents), expected);
    }
}

#[test]
fn arrays_stand_at_their_smallest_or_greatest_item() {
    let documents = [json!({"a": [3, 1]}), json!({"a": 2}), json!({}), json!({"a": []}), json!({"a": null})];
    let order = |sort| sorted(&parsed(&sort), None, &documents);
    let [list, two, missing, empty, null] = documents.clone();
    assert_eq!(order(json!("a")), [&empty, &missing, &null, &list, &two].map(Clone::clone));
    assert_eq!(order(json!("-a")), [&list, &two, &missing, &null, &empty].map(Clone::clone));
    let nested = [json!({"a": [{"b": 5}, {"b": 0}]}), json!({"a": {"b": 1}}), json!({"a": [1]})];
    let [list, one, none] = nested.clone();
    assert_eq!(sorted(&parsed(&json!("a.b")), None, &nested), [&none, &list, &one].map(Clone::clone));
    assert_eq!(sorted(&parsed(&json!({"a.b": -1})), None, &nested), [&list, &one, &none].map(Clone::clone));
}

#[test]
fn the_id_is_a_key_too() {
    let sort = parsed(&json!("-_id"));
    let key = |id: &'static str| {
        let mut key = Vec::new();
        sort.key(Row { id: Some(Json::new(id.as_bytes())), body: Json::new(b"{}"), conflicts: 0 }, &mut key);
        key
    };
    assert!(key("\"b\"") < key("\"a\""));
}

#[test]
fn an_order_reads_back_and_what_is_none_is_refused_at_its_place() {
    let order = parsed(&json!([{"a.b": 1}, {"c": -1.0}]));
    assert_eq!(order.to_string(), "a.b,-c");
    assert_eq!(parsed(&json!(order.to_string())), order);
    for wrong in
        [json!({"b": 1, "a": -1}), json!({}), json!([]), json!(5), json!({"a": 2}), json!("a,a"), json!("a,,b")]
    {
        let Err(Error::Invalid(invalid)) = Sort::parse(&wrong, "2.$sort") else { panic!("{wrong} was read") };
        assert_eq!(invalid.field.as_deref(), Some("2.$sort"), "{wrong}");
    }
}

#[test]
fn what_is_held_is_within_the_budget() {
    let sort = parsed(&json!("a"));
    let budget = Budget::new(None, 1_000);
    let text = json!({"a": "x".repeat(100)}).to_string();
    let row = Row { id: None, body: Json::new(text.as_bytes()), conflicts: 0 };
    let mut all = Sorter::new(&sort, None, &budget, "3.$sort");
    let error = (0..100).find_map(|_| all.push(row).err()).unwrap();
    assert!(error.to_string().starts_with("3.$sort"), "{error}");

    let budget = Budget::new(None, 1_000);
    let mut first = Sorter::new(&sort, Some(2), &budget, "3.$sort");
    (0..100).for_each(|_| first.push(row).unwrap());
}
