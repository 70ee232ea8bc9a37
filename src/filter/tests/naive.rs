//! A matcher that interprets the JSON of a filter over parsed documents, as plainly as it can be said, and random
//! filters on which the real one agrees with it.

use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::matches;
use crate::filter::Filter;

fn naive(filter: &Value, document: &Value) -> bool {
    filter.as_object().unwrap().iter().all(|(name, value)| {
        let each = || value.as_array().unwrap().iter().map(|filter| naive(filter, document));
        match name.as_str() {
            "$and" => each().all(|holds| holds),
            "$or" => each().any(|holds| holds),
            "$nor" => !each().any(|holds| holds),
            path => {
                let parts: Vec<&str> = path.split('.').collect();
                let id = || vec![(document.get("_id").cloned(), true)];
                let leaves = if path == "_id" { id() } else { find(document, &parts) };
                tests(value, &leaves)
            }
        }
    })
}

/// What is at the end of a path, and whether an array there stands for its items too.
type Leaf = (Option<Value>, bool);

/// Everything at the end of a path, arrays as they are.
fn find(value: &Value, parts: &[&str]) -> Vec<Leaf> {
    let Some((part, rest)) = parts.split_first() else { return vec![(Some(value.clone()), true)] };
    match value {
        Value::Object(fields) => fields.get(*part).map_or(vec![(None, true)], |value| find(value, rest)),
        Value::Array(items) => {
            let objects = items.iter().filter(|item| item.is_object());
            let mut found: Vec<_> = objects.flat_map(|item| find(item, parts)).collect();
            let item = part.parse::<usize>().ok().and_then(|index| items.get(index));
            match item {
                // Named by its position, it stands for itself.
                Some(item) if rest.is_empty() => found.push((Some(item.clone()), false)),
                Some(item) if item.is_object() || item.is_array() => found.extend(find(item, rest)),
                Some(_) | None => {}
            }
            found
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![(None, true)],
    }
}

fn is_operators(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.keys().any(|key| key.starts_with('$')))
}

/// Whether all tests find something among the leaves.
fn tests(operators: &Value, leaves: &[Leaf]) -> bool {
    if !is_operators(operators) {
        return tests(&json!({"$eq": operators}), leaves);
    }
    operators.as_object().unwrap().iter().all(|(operator, operand)| match operator.as_str() {
        "$ne" => !tests(&json!({"$eq": operand}), leaves),
        "$nin" => !tests(&json!({"$in": operand}), leaves),
        "$not" => !tests(operand, leaves),
        "$in" => operand.as_array().unwrap().iter().any(|value| tests(&json!({"$eq": value}), leaves)),
        "$all" => {
            let mut values = operand.as_array().unwrap().iter();
            let one = |value: &Value| {
                if is_operators(value) { tests(value, leaves) } else { tests(&json!({"$eq": value}), leaves) }
            };
            values.len() > 0 && values.all(one)
        }
        "$exists" => leaves.iter().any(|(leaf, _)| leaf.is_some()) == operand.as_bool().unwrap(),
        "$size" | "$elemMatch" => leaves.iter().any(|(leaf, _)| single(operator, operand, leaf.as_ref())),
        _ => leaves.iter().any(|(leaf, opens)| {
            single(operator, operand, leaf.as_ref())
                || leaf
                    .as_ref()
                    .filter(|_| *opens)
                    .and_then(Value::as_array)
                    .is_some_and(|items| items.iter().any(|item| single(operator, operand, Some(item))))
        }),
    })
}

/// Whether one value, or nothing, passes one test.
fn single(operator: &str, operand: &Value, value: Option<&Value>) -> bool {
    let or_null = value.unwrap_or(&Value::Null);
    let ordered = |orders: &[Ordering]| rank(or_null) == rank(operand) && orders.contains(&order(or_null, operand));
    match operator {
        "$eq" => order(or_null, operand).is_eq(),
        "$gt" => ordered(&[Ordering::Greater]),
        "$gte" => ordered(&[Ordering::Greater, Ordering::Equal]),
        "$lt" => ordered(&[Ordering::Less]),
        "$lte" => ordered(&[Ordering::Less, Ordering::Equal]),
        "$type" => value.is_some_and(|value| is_of(value, operand.as_str().unwrap())),
        "$mod" => value.and_then(halves).filter(|halves| halves.abs() < 1 << 65).is_some_and(|halves| {
            (halves / 2) % i128::from(operand[0].as_i64().unwrap()) == operand[1].as_i64().unwrap().into()
        }),
        "$regex" => value.and_then(Value::as_str).is_some_and(|text| match operand.as_str().unwrap() {
            "^a" => text.starts_with('a'),
            "b$" => text.ends_with('b'),
            letter => text.contains(letter),
        }),
        "$size" => value.and_then(Value::as_array).is_some_and(|items| items.len() as u64 == operand.as_u64().unwrap()),
        "$elemMatch" => value.and_then(Value::as_array).is_some_and(|items| {
            items.iter().any(|item| match operand.as_object().unwrap().keys().find(|key| key.starts_with('$')) {
                Some(key) if !["$and", "$or", "$nor"].contains(&key.as_str()) => {
                    operand.as_object().unwrap().iter().all(|(operator, operand)| of_item(operator, operand, item))
                }
                _ => item.is_object() && naive(operand, item),
            })
        }),
        other => panic!("{other}"),
    }
}

/// A test of an item of an array, which does not stand for its own items.
fn of_item(operator: &str, operand: &Value, item: &Value) -> bool {
    match operator {
        "$ne" => !of_item("$eq", operand, item),
        "$nin" => !of_item("$in", operand, item),
        "$not" => !operand.as_object().unwrap().iter().all(|(operator, operand)| of_item(operator, operand, item)),
        "$in" => operand.as_array().unwrap().iter().any(|value| of_item("$eq", value, item)),
        "$all" => {
            let mut values = operand.as_array().unwrap().iter();
            let one = |value: &Value| match value.get("$elemMatch") {
                Some(inner) => of_item("$elemMatch", inner, item),
                None => of_item("$eq", value, item),
            };
            values.len() > 0 && values.all(one)
        }
        "$exists" => operand.as_bool().unwrap(),
        _ => single(operator, operand, Some(item)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        Value::Object(_) => 3,
        Value::Array(_) => 4,
        Value::Bool(_) => 5,
    }
}

/// Twice a number: exact, for those that are made here.
fn halves(value: &Value) -> Option<i128> {
    let integer = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    integer.map(|number| number * 2).or_else(|| value.as_f64().map(|number| (number * 2.0) as i128))
}

fn order(a: &Value, b: &Value) -> Ordering {
    rank(a).cmp(&rank(b)).then_with(|| match (a, b) {
        (Value::Number(_), Value::Number(_)) => halves(a).cmp(&halves(b)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let first = a.iter().zip(b).map(|(a, b)| order(a, b)).find(|order| order.is_ne());
            first.unwrap_or(a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let field = |((a_key, a), (b_key, b)): ((&String, &Value), (&String, &Value))| {
                rank(a).cmp(&rank(b)).then_with(|| a_key.cmp(b_key)).then_with(|| order(a, b))
            };
            let first = a.iter().zip(b).map(field).find(|order| order.is_ne());
            first.unwrap_or(a.len().cmp(&b.len()))
        }
        _ => Ordering::Equal,
    })
}

fn is_of(value: &Value, name: &str) -> bool {
    let integer = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    let small = integer.is_some_and(|number| number.abs() < 1 << 31);
    match name {
        "int" => small,
        "long" => integer.is_some() && !small,
        "double" => value.is_number() && integer.is_none(),
        name => ["null", "number", "string", "object", "array", "bool"][usize::from(rank(value))] == name,
    }
}

/// Values that are often the same.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        3 => (-3i64..4).prop_map(Value::from),
        2 => (-3i64..4).prop_map(|half| Value::from(half as f64 / 2.0)),
        1 => prop_oneof![
            Just(json!(-0.0)),
            Just(json!(9_007_199_254_740_992.0)),
            Just(json!(9_007_199_254_740_993i64)),
            Just(json!(u64::MAX)),
            Just(json!(1.844_674_407_370_955_2e19)),
            Just(json!(i64::MIN)),
            Just(json!(1i64 << 31)),
        ],
        3 => "[ab\u{e9}\"]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            2 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            1 => object(inner),
        ]
    })
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let key = prop_oneof![Just("a"), Just("b"), Just("\u{e9}"), Just("0")].prop_map(str::to_owned);
    proptest::collection::btree_map(key, value, 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
}

fn document() -> impl Strategy<Value = Value> {
    (object(value()), proptest::option::of("[ab]{1,2}")).prop_map(|(mut document, id)| {
        if let Some(id) = id {
            document["_id"] = id.into();
        }
        document
    })
}

/// An object of operators: each is there once.
fn operators(condition: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = Value> {
    let values = proptest::collection::vec(value(), 0..4).prop_map(Value::from).boxed();
    let named = |name: &'static str, value: BoxedStrategy<Value>| value.prop_map(move |value| (name.to_owned(), value));
    let mut plain: Vec<BoxedStrategy<(String, Value)>> = Vec::new();
    for name in ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"] {
        plain.push(named(name, value().boxed()).boxed());
    }
    for name in ["$in", "$nin", "$all"] {
        plain.push(named(name, values.clone()).boxed());
    }
    plain.push(named("$exists", any::<bool>().prop_map(Value::from).boxed()).boxed());
    plain.push(named("$size", (0u64..3).prop_map(Value::from).boxed()).boxed());
    plain.push(named("$mod", (1i64..4, -1i64..3).prop_map(|(by, left)| json!([by, left])).boxed()).boxed());
    let types = ["int", "long", "double", "null", "number", "string", "object", "array", "bool"];
    plain.push(named("$type", proptest::sample::select(types.to_vec()).prop_map(Value::from).boxed()).boxed());
    let patterns = ["^a", "b$", "\u{e9}", ""];
    plain.push(named("$regex", proptest::sample::select(patterns.to_vec()).prop_map(Value::from).boxed()).boxed());
    let one = proptest::strategy::Union::new(plain);
    // A later one of the same name replaces an earlier one.
    let leaf = proptest::collection::vec(one, 1..3).prop_map(|fields| fields.into_iter().collect::<Value>());
    leaf.prop_recursive(3, 8, 2, move |inner| {
        let element = prop_oneof![inner.clone(), condition.clone()].prop_map(|inner| json!({"$elemMatch": inner}));
        prop_oneof![
            inner.clone().prop_map(|inner| json!({"$not": inner})),
            (inner.clone(), value()).prop_map(|(inner, value)| json!({"$not": inner, "$ne": value})),
            element.clone(),
            proptest::collection::vec(element, 1..3).prop_map(|elements| json!({"$all": elements})),
        ]
    })
}

fn path() -> impl Strategy<Value = String> {
    let paths = ["a", "b", "\u{e9}", "a.b", "a.0", "a.b.0", "b.a", "a.0.b", "a.a.a", "_id", "a.\u{e9}", "b.1", "0"];
    proptest::sample::select(paths.to_vec()).prop_map(str::to_owned)
}

fn fields(test: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(path(), test, 0..3).prop_map(|fields| fields.into_iter().collect())
}

fn filter() -> impl Strategy<Value = Value> {
    let simple = fields(value()).boxed();
    let fields = fields(prop_oneof![1 => value(), 3 => operators(simple)]);
    fields.boxed().prop_recursive(3, 10, 3, |inner| {
        let list = proptest::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            (proptest::sample::select(vec!["$and", "$or", "$nor"]), list.clone())
                .prop_map(|(operator, list)| json!({operator: list})),
            (inner, list).prop_map(|(mut fields, list)| {
                fields["$or"] = list.into();
                fields
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_naive_matcher_agrees(filter in filter(), documents in proptest::collection::vec(document(), 1..8)) {
        let parsed = Filter::parse(&filter).unwrap();
        for document in &documents {
            prop_assert_eq!(matches(&parsed, document), naive(&filter, document), "{} on {}", filter, document);
        }
    }

    #[test]
    fn the_canonical_form_is_the_same_filter(filter in filter(), documents in proptest::collection::vec(document(), 1..4)) {
        let parsed = Filter::parse(&filter).unwrap();
        let again = Filter::parse(&parsed.to_json()).unwrap();
        prop_assert_eq!(parsed.to_string(), again.to_string());
        prop_assert_eq!(parsed.paths(), again.paths());
        for document in &documents {
            prop_assert_eq!(matches(&parsed, document), matches(&again, document), "{} on {}", filter, document);
        }
    }
}
