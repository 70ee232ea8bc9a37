//! Patches against plain models of their languages, and what concurrent ones become.

#![allow(clippy::wildcard_enum_match_arm, reason = "models name the kinds of JSON that they are about")]

use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::json_bytes;
use crate::Error;
use crate::base::Hlc;
use crate::document::json::Object;
use crate::document::tests::{
    actor, at, exactly, fields, json_value, object, received, replica, survives_storage, text,
};
use crate::document::{Change, Document, Patch};
use crate::error::{Invalid, InvalidKind};
use crate::filter::Filter;
use crate::value::{Json, Row};

/// The time of every patch here, and how `$currentDate` writes it.
const NOW: u64 = 1_795_417_920_123;
const NOW_TEXT: &str = "2026-11-23T07:12:00.123Z";

fn apply(document: &mut Document, number: u8, patch: &Patch) -> Result<Option<Change>, Error> {
    let shown = document.view().len();
    document.patch(actor(number), at(NOW), patch, shown)
}

fn operate(document: &mut Document, number: u8, body: Value) -> Change {
    apply(document, number, &Patch::operators(body).unwrap()).unwrap().unwrap()
}

fn fault(document: &mut Document, patch: Result<Patch, Error>) -> Invalid {
    let before = (text(document), document.heads());
    let result = apply(document, 1, &patch.unwrap());
    assert!((text(document), document.heads()) == before, "it changed: {result:?}");
    match result {
        Err(Error::Invalid(invalid)) => invalid,
        other => panic!("{other:?}"),
    }
}

/// Checks a patch against what its model says; `None` when it must be refused.
fn check(start: &Object, patch: &Patch, expected: Option<&Object>) {
    let (mut document, first) = Document::create(actor(1), at(1), start).unwrap();
    let result = apply(&mut document, 2, patch);
    let Some(expected) = expected else {
        assert!(matches!(result, Err(Error::Invalid(_))), "{patch:?} gave {result:?}");
        exactly(&document, start);
        // What failed leaves a document behind that can be edited and stored.
        operate(&mut document, 2, json!({"$push": {"after": 1}, "$inc": {"counted": 2}}));
        let mut more = start.clone();
        more.extend(object(json!({"after": [1], "counted": 2})));
        exactly(&document, &more);
        return survives_storage(&document);
    };
    let change = result.unwrap_or_else(|error| panic!("{patch:?} on {start:?}: {error}"));
    exactly(&document, expected);
    if let Some(change) = &change {
        exactly(&replica(&[first, received(change)]), expected);
        survives_storage(&document);
    } else {
        exactly(&document, start);
    }
    // Whatever it made can be turned into anything else.
    document.replace(actor(1), at(2), start).unwrap();
    exactly(&document, start);
}

/// The algorithm of RFC 7396, section 2.
fn merged(target: Option<&Value>, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut fields = target.and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            let field = merged(fields.get(name), value);
            fields.insert(name.clone(), field);
        }
    }
    Value::Object(fields)
}

/// One step of RFC 6902 on plain JSON.
fn stepped(document: &mut Value, step: &Value) -> Option<()> {
    let text = |name: &str| step[name].as_str().unwrap();
    let value = match text("op") {
        "move" | "copy" => document.pointer(text("from"))?.clone(),
        _ => step["value"].clone(),
    };
    match text("op") {
        "add" | "copy" => added(document, text("path"), value),
        "move" => {
            removed(document, text("from"))?;
            added(document, text("path"), value)
        }
        "remove" => removed(document, text("path")),
        "replace" => {
            *document.pointer_mut(text("path"))? = value;
            Some(())
        }
        _ => numerically_equal(document.pointer(text("path"))?, &value).then_some(()),
    }
}

/// Numbers are equal when their values are (RFC 6902, 4.6): 0 and 0.0.
fn numerically_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| numerically_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| numerically_equal(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

fn added(document: &mut Value, path: &str, value: Value) -> Option<()> {
    let Some((parent, last)) = path.rsplit_once('/') else {
        *document = value;
        return document.is_object().then_some(());
    };
    match document.pointer_mut(parent)? {
        Value::Object(fields) => _ = fields.insert(unescaped(last), value),
        Value::Array(items) => {
            let index = if last == "-" { items.len() } else { last.parse().ok()? };
            if index > items.len() {
                return None;
            }
            items.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn removed(document: &mut Value, path: &str) -> Option<()> {
    document.pointer(path)?;
    let (parent, last) = path.rsplit_once('/')?;
    match document.pointer_mut(parent)? {
        Value::Object(fields) => _ = fields.remove(&unescaped(last)),
        Value::Array(items) => _ = items.remove(last.parse().ok()?),
        _ => return None,
    }
    Some(())
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// Every pointer into a value.
fn pointers(value: &Value, prefix: &str, out: &mut Vec<String>) {
    out.push(prefix.to_owned());
    let mut below = |token: String, value: &Value| {
        let token = token.replace('~', "~0").replace('/', "~1");
        pointers(value, &format!("{prefix}/{token}"), out);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| below(key.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| below(index.to_string(), value)),
        _ => {}
    }
}

/// A plan for a step; its paths are chosen when the document before it is known.
type Plan = (usize, prop::sample::Index, prop::sample::Index, Option<String>, Value);

fn plan() -> impl Strategy<Value = Plan> {
    let tail = prop::option::of(prop::sample::select(vec!["a", "b", "0", "1", "-", "x/y"]).prop_map(str::to_owned));
    (0usize..8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), tail, json_value())
}

fn step(document: &Value, (kind, at, from, tail, value): Plan) -> Value {
    let mut known = Vec::new();
    pointers(document, "", &mut known);
    let mut path = known[at.index(known.len())].clone();
    if let Some(tail) = tail {
        path = format!("{path}/{}", tail.replace('/', "~1"));
    }
    let from = &known[from.index(known.len())];
    match kind {
        0 | 1 => json!({"op": "add", "path": path, "value": value}),
        2 => json!({"op": "remove", "path": path}),
        3 => json!({"op": "replace", "path": path, "value": value}),
        4 => json!({"op": "move", "from": from, "path": path}),
        5 => json!({"op": "copy", "from": from, "path": path}),
        6 => json!({"op": "test", "path": path, "value": document.pointer(&path)}),
        _ => json!({"op": "test", "path": path, "value": value}),
    }
}

proptest! {
    #[test]
    fn merge_patches_do_what_the_rfc_says(start in fields(), patch in fields(), deep in fields()) {
        let mut start = start;
        let mut patch = patch;
        start.remove("_id");
        patch.remove("_id");
        start.insert("deep".into(), deep.clone().into());
        for (key, _) in &deep {
            patch.entry(key.clone()).or_insert(Value::Null);
        }
        patch.remove("_id");
        let patch = Value::Object(patch);
        let nested = json!({"deep": patch, "gone": null});
        for patch in [patch, nested] {
            let expected = object(merged(Some(&start.clone().into()), &patch));
            check(&start, &Patch::merge(patch).unwrap(), Some(&expected));
        }
    }

    #[test]
    fn json_patches_do_what_the_rfc_says(start in fields(), plans in prop::collection::vec(plan(), 1..6)) {
        let mut start = start;
        start.remove("_id");
        let mut expected = Some(Value::Object(start.clone()));
        let mut steps = Vec::new();
        for plan in plans {
            let Some(before) = &mut expected else { break };
            let step = step(before, plan);
            // What names the document stands in its path only.
            if stepped(before, &step).is_none() || before.get("_id").is_some() {
                expected = None;
            }
            steps.push(step);
        }
        // What cannot even be parsed is refused all the same.
        let Ok(patch) = Patch::json_patch(Value::Array(steps)) else { return Ok(()) };
        let expected = expected.map(object);
        check(&start, &patch, expected.as_ref());
    }
}

/// What a dotted path leads to: `Err` when something on the way cannot hold the next name.
fn found<'a>(document: &'a Value, path: &str) -> Result<Option<&'a Value>, ()> {
    let mut value = document;
    for name in path.split('.') {
        value = match value {
            Value::Object(fields) => match fields.get(name) {
                Some(value) => value,
                None => return Ok(None),
            },
            Value::Array(items) => match items.get(name.parse::<usize>().map_err(|_| ())?) {
                Some(value) => value,
                None => return Ok(None),
            },
            _ => return Err(()),
        };
    }
    Ok(Some(value))
}

fn placed(document: &mut Value, path: &str, new: Value) -> Result<(), ()> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let slot = match document {
        Value::Object(fields) => fields.entry(name).or_insert(Value::Object(Map::new())),
        Value::Array(items) => {
            let index: usize = name.parse().map_err(|_| ())?;
            if index >= items.len() {
                items.resize(index, Value::Null);
                items.push(Value::Object(Map::new()));
            }
            &mut items[index]
        }
        _ => return Err(()),
    };
    match rest {
        Some(rest) => placed(slot, rest, new),
        None => {
            *slot = new;
            Ok(())
        }
    }
}

/// Whether something above a path is a list.
fn through_list(document: &Value, path: &str) -> bool {
    let above = path.match_indices('.').map(|(end, _)| &path[..end]);
    above.filter_map(|above| found(document, above).ok().flatten()).any(Value::is_array)
}

fn list_of(present: Option<Value>) -> Result<Option<Vec<Value>>, ()> {
    match present {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(()),
    }
}

/// One operator on plain JSON, after MongoDB's manual. The numbers that the tests use are small.
fn updated(document: &mut Value, operator: &str, path: &str, argument: &Value) -> Result<(), ()> {
    let present = found(document, path);
    if operator == "$unset" || operator == "$rename" {
        let present = match present {
            Err(()) if operator == "$rename" => return Err(()),
            Ok(Some(present)) => present.clone(),
            Ok(None) | Err(()) => return Ok(()),
        };
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let parent_is_list = !parent.is_empty() && matches!(found(document, parent), Ok(Some(Value::Array(_))));
        if operator == "$rename" {
            let to = argument.as_str().unwrap();
            if through_list(document, path) || through_list(document, to) || found(document, to).is_err() {
                return Err(());
            }
            placed(document, to, present)?;
        }
        if parent_is_list {
            return placed(document, path, Value::Null);
        }
        let parent = if parent.is_empty() {
            document
        } else {
            document.pointer_mut(&format!("/{}", parent.replace('.', "/"))).unwrap()
        };
        parent.as_object_mut().unwrap().remove(name);
        return Ok(());
    }
    if present.is_err() && matches!(operator, "$pull" | "$pop") {
        return Ok(());
    }
    let present = present?.cloned();
    let new = match operator {
        "$set" => argument.clone(),
        "$currentDate" => json!(NOW_TEXT),
        "$inc" | "$mul" => {
            let start = present.unwrap_or(json!(0));
            let plus = operator == "$inc";
            match (start.as_i64(), argument.as_i64()) {
                (Some(a), Some(b)) => json!(if plus { a.checked_add(b) } else { a.checked_mul(b) }.ok_or(())?),
                _ => {
                    let (a, b) = (start.as_f64().ok_or(())?, argument.as_f64().ok_or(())?);
                    json!(if plus { a + b } else { a * b })
                }
            }
        }
        "$min" | "$max" => match &present {
            None => argument.clone(),
            Some(present) => {
                let (new, old) = (argument.to_string(), present.to_string());
                // The order is tested where it is made.
                let order = crate::value::compare(Json::new(new.as_bytes()), Json::new(old.as_bytes()));
                let wanted = if operator == "$min" { Ordering::Less } else { Ordering::Greater };
                if order == wanted { argument.clone() } else { return Ok(()) }
            }
        },
        "$push" => {
            let mut items = list_of(present)?.unwrap_or_default();
            let each = argument.get("$each").and_then(Value::as_array).cloned().unwrap_or(vec![argument.clone()]);
            let length = items.len() as i64;
            let at = match argument.get("$position").and_then(Value::as_i64) {
                None => length,
                Some(position) if position < 0 => (length + position).max(0),
                Some(position) => position.min(length),
            };
            items.splice(at as usize..at as usize, each);
            match argument.get("$slice").and_then(Value::as_i64) {
                None => {}
                Some(count) if count >= 0 => items.truncate(count as usize),
                Some(count) => _ = items.drain(..items.len().saturating_sub(count.unsigned_abs() as usize)),
            }
            Value::Array(items)
        }
        "$addToSet" => {
            let mut items = list_of(present)?.unwrap_or_default();
            for item in argument.get("$each").and_then(Value::as_array).cloned().unwrap_or(vec![argument.clone()]) {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            Value::Array(items)
        }
        "$pop" => {
            let Some(mut items) = list_of(present)? else { return Ok(()) };
            if !items.is_empty() {
                items.remove(if argument == &json!(1) { items.len() - 1 } else { 0 });
            }
            Value::Array(items)
        }
        "$pull" => {
            let Some(mut items) = list_of(present)? else { return Ok(()) };
            items.retain(|item| !pulled(argument, item));
            Value::Array(items)
        }
        _ => {
            let mut chars: Vec<char> = match present {
                None => Vec::new(),
                Some(Value::String(text)) => text.chars().collect(),
                Some(_) => return Err(()),
            };
            let splices = argument.as_array().cloned().unwrap_or(vec![argument.clone()]);
            for splice in &splices {
                let number = |name: &str| splice.get(name).and_then(Value::as_u64).unwrap_or(0) as usize;
                let (position, delete) = (number("position"), number("delete"));
                if position + delete > chars.len() {
                    return Err(());
                }
                chars.splice(position..position + delete, splice["insert"].as_str().unwrap_or("").chars());
            }
            if splices.iter().all(|splice| splice["insert"] == "" && splice["delete"] == 0) {
                return Ok(());
            }
            json!(chars.into_iter().collect::<String>())
        }
    };
    placed(document, path, new)
}

/// What `$pull` is after MongoDB's manual: a filter on the element as a document, or as the value of a field.
fn pulled(condition: &Value, item: &Value) -> bool {
    let Value::Object(tests) = condition else { return item == condition };
    let is_of_value =
        tests.keys().next().is_some_and(|name| name.starts_with('$') && !["$and", "$or", "$nor"].contains(&&**name));
    let (filter, document) =
        if is_of_value { (json!({ "x": condition }), json!({ "x": item })) } else { (condition.clone(), item.clone()) };
    let text = document.to_string();
    document.is_object()
        && Filter::parse(&filter).unwrap().matches(Row { id: None, body: Json::new(text.as_bytes()), conflicts: 0 })
}

/// Values from so few that equal ones meet.
fn small() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-3i64..4).prop_map(Value::from),
        1 => prop::sample::select(vec![0.5, -1.5, 2.25]).prop_map(Value::from),
        2 => "[aé😀]{0,3}".prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!({"a": 1, "b": "x"})),
        1 => Just(json!({"a": 2})),
        1 => Just(json!([1, 2])),
        1 => Just(json!({"a": [1, "x"]})),
        1 => any::<bool>().prop_map(Value::from),
    ]
}

fn small_document() -> impl Strategy<Value = Object> {
    let value = small().prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[a-e]", value, 0..6).prop_map(|map| map.into_iter().collect())
}

fn dotted() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e", "0", "1", "4"]);
    ("[a-e]", prop::collection::vec(name, 0..3))
        .prop_map(|(first, rest)| rest.into_iter().fold(first, |path, name| format!("{path}.{name}")))
}

fn condition() -> impl Strategy<Value = Value> {
    let comparison = prop::sample::select(vec!["$gt", "$gte", "$lt", "$lte"]);
    prop_oneof![
        small().prop_map(|value| json!({"$eq": value})),
        small().prop_map(|value| json!({"$ne": value})),
        (comparison, -3i64..4).prop_map(|(name, value)| json!({name: value})),
        (-3i64..1, 0i64..4).prop_map(|(low, high)| json!({"$gt": low, "$lte": high})),
        prop::collection::vec(small(), 0..3).prop_map(|values| json!({"$in": values})),
        prop::collection::vec(small(), 0..3).prop_map(|values| json!({"$nin": values})),
        Just(json!({"a": 1})),
        Just(json!({"a": 2, "b": null})),
        Just(json!({"_id": null})),
        small().prop_map(|value| json!({"a": {"$ne": value}})),
        small().prop_map(|value| json!({"$not": {"$gte": value}})),
        small().prop_map(|value| json!({"$or": [{"a": value}, {"b": {"$exists": true}}]})),
        prop::collection::vec(small(), 1..3).prop_map(|values| json!({"$all": values})),
        prop::sample::select(vec![
            json!({"$size": 2}),
            json!({"a": {"$size": 2}}),
            json!({"$exists": true}),
            json!({"a": {"$exists": false}}),
            json!({"$regex": "^a"}),
            json!({"$elemMatch": {"$gt": 1}}),
            json!({"a": {"$elemMatch": {"$eq": "x"}}}),
            json!({"$type": "array"}),
            json!({"$nor": [{"a": 1}, {"b": "x"}]}),
            json!({"a.0": 1}),
        ]),
        small().prop_filter("no object", |value| !value.is_object()),
    ]
}

fn splice() -> impl Strategy<Value = Value> {
    (0u32..4, 0u32..3, "[xyé]{0,2}")
        .prop_map(|(position, delete, insert)| json!({"position": position, "delete": delete, "insert": insert}))
}

fn update() -> impl Strategy<Value = (&'static str, Value)> {
    let number =
        || prop_oneof![3 => (-4i64..5).prop_map(Value::from), 1 => Just(json!(0.5)), 1 => Just(json!(i64::MAX))];
    let each = || prop::collection::vec(small(), 0..4);
    let push = (each(), prop::option::of(-4i64..5), prop::option::of(-4i64..5)).prop_map(|(each, position, slice)| {
        let mut push = object(json!({ "$each": each }));
        push.extend(position.map(|position| ("$position".to_owned(), position.into())));
        push.extend(slice.map(|slice| ("$slice".to_owned(), slice.into())));
        Value::Object(push)
    });
    prop_oneof![
        small().prop_map(|value| ("$set", value)),
        Just(("$unset", json!(""))),
        number().prop_map(|value| ("$inc", value)),
        number().prop_map(|value| ("$mul", value)),
        small().prop_map(|value| ("$min", value)),
        small().prop_map(|value| ("$max", value)),
        small().prop_map(|value| ("$push", value)),
        push.prop_map(|value| ("$push", value)),
        condition().prop_map(|value| ("$pull", value)),
        each().prop_map(|each| ("$addToSet", json!({ "$each": each }))),
        prop::bool::ANY.prop_map(|last| ("$pop", json!(if last { 1 } else { -1 }))),
        dotted().prop_map(|to| ("$rename", json!(to))),
        Just(("$currentDate", json!(true))),
        prop::collection::vec(splice(), 1..3).prop_map(|splices| ("$text", json!(splices))),
    ]
}

fn operators() -> impl Strategy<Value = Value> {
    prop::collection::vec((dotted(), update()), 1..4).prop_map(|updates| {
        let mut body = json!({});
        for (path, (operator, argument)) in updates {
            body[operator][path] = argument;
        }
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn operators_do_what_their_names_say(start in small_document(), body in operators()) {
        // Paths that overlap are refused before anything is done.
        let Ok(patch) = Patch::operators(body.clone()) else { return Ok(()) };
        let mut expected = Value::Object(start.clone());
        let mut fits = true;
        for (operator, paths) in body.as_object().unwrap() {
            for (path, argument) in paths.as_object().unwrap() {
                fits &= updated(&mut expected, operator, path, argument).is_ok();
            }
        }
        check(&start, &patch, fits.then(|| object(expected)).as_ref());
    }

    #[test]
    fn concurrent_patches_converge(
        start in small_document(),
        rounds in prop::collection::vec((operators(), operators(), any::<bool>()), 1..5),
    ) {
        let (mut one, first) = Document::create(actor(1), at(1), &start).unwrap();
        let mut two = replica(std::slice::from_ref(&first));
        let mut all = vec![first];
        for (left, right, meet) in rounds {
            for (document, number, body) in [(&mut one, 1, left), (&mut two, 2, right)] {
                if let Ok(patch) = Patch::operators(body) {
                    all.extend(apply(document, number, &patch).ok().flatten());
                }
            }
            if meet {
                one.apply(all.iter().map(received)).unwrap();
                two.apply(all.iter().map(received)).unwrap();
                prop_assert_eq!(text(&one), text(&two));
            }
        }
        one.apply(all.iter().map(received)).unwrap();
        two.apply(all.iter().rev().map(received)).unwrap();
        let third = replica(&all);
        prop_assert_eq!(text(&one), text(&two));
        prop_assert_eq!(text(&one), text(&third));
        prop_assert_eq!(one.heads(), third.heads());
        survives_storage(&two);
    }
}

/// What a peer does to a counter.
#[derive(Debug, Clone)]
enum Count {
    Add(usize, i64),
    /// The first learns all that the second knows.
    Learn(usize, usize),
    Reload(usize),
}

fn count() -> impl Strategy<Value = Count> {
    prop_oneof![
        3 => (0usize..4, -1_000i64..1_000).prop_map(|(peer, amount)| Count::Add(peer, amount)),
        2 => (0usize..4, 0usize..4).prop_map(|(to, from)| Count::Learn(to, from)),
        1 => (0usize..4).prop_map(Count::Reload),
    ]
}

proptest! {
    /// Each increment counts once at everybody who knows it, whoever made the counter from whatever.
    #[test]
    fn increments_add_up(
        start in prop::sample::select(vec![
            (json!({}), "n", 0),
            (json!({"n": 5}), "n", 5),
            (json!({"a": {"n": -7, "m": 1}}), "a.n", -7),
            (json!({"a": {"m": 1}}), "a.n", 0),
            (json!({"l": [1, 40, 3]}), "l.1", 40),
            (json!({"l": [{"n": 1}]}), "l.0.n", 1),
        ]),
        counts in prop::collection::vec(count(), 1..40),
    ) {
        let (start, path, base) = start;
        let (_, first) = Document::create(actor(9), at(1), &object(start)).unwrap();
        let mut peers: Vec<(Document, Vec<(Change, i64)>)> =
            (0..4).map(|_| (replica(std::slice::from_ref(&first)), Vec::new())).collect();
        let shows = |peer: &(Document, Vec<(Change, i64)>)| {
            let fields = Value::Object(peer.0.fields());
            let shown = found(&fields, path).unwrap().cloned();
            let known: i64 = peer.1.iter().map(|(_, amount)| amount).sum();
            assert!(shown == Some(json!(base + known)) || (peer.1.is_empty() && base == 0), "{shown:?}: {base} + {known}");
            assert_eq!(text(&peer.0), serde_json::to_string(&fields).unwrap());
        };
        for count in counts {
            match count {
                Count::Add(at, amount) => {
                    let patch = Patch::operators(json!({"$inc": {path: amount}})).unwrap();
                    let change = apply(&mut peers[at].0, at as u8, &patch).unwrap();
                    peers[at].1.extend(change.map(|change| (change, amount)));
                    shows(&peers[at]);
                }
                Count::Learn(to, from) => {
                    let news: Vec<_> = peers[from].1.iter().filter(|(change, _)| !peers[to].0.has(&change.hash())).cloned().collect();
                    let outcome = peers[to].0.apply(news.iter().map(|(change, _)| received(change))).unwrap();
                    assert_eq!(outcome.refused, []);
                    peers[to].1.extend(news);
                    shows(&peers[to]);
                }
                Count::Reload(at) => {
                    survives_storage(&peers[at].0);
                    peers[at].0 = Document::load(&peers[at].0.save()).unwrap();
                    shows(&peers[at]);
                }
            }
        }
        let everything: Vec<_> = peers.iter().flat_map(|(_, known)| known.clone()).collect();
        let sum: i64 = everything.iter().map(|(change, amount)| (change.hash(), *amount)).collect::<std::collections::BTreeMap<_, _>>().values().sum();
        for (document, _) in &mut peers {
            document.apply(everything.iter().map(|(change, _)| received(change))).unwrap();
            let fields = Value::Object(document.fields());
            let shown = found(&fields, path).unwrap().and_then(Value::as_i64).unwrap_or(0);
            prop_assert_eq!(shown, base + sum);
        }
        let texts: Vec<String> = peers.iter().map(|(document, _)| text(document)).collect();
        prop_assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:?}");
    }
}

/// Two documents that know all of each other's changes.
fn meet(documents: [&mut Document; 2], changes: [&Change; 2]) -> String {
    let [one, two] = documents;
    one.apply([received(changes[1])]).unwrap();
    two.apply([received(changes[0])]).unwrap();
    assert_eq!(text(one), text(two));
    text(one)
}

fn pair(start: Value) -> (Document, Document) {
    let (one, first) = Document::create(actor(1), at(1), &object(start)).unwrap();
    (one, replica(&[first]))
}

#[test]
fn operators_mean_what_they_mean_in_mongodb() {
    for (start, update, expected) in [
        (
            json!([{"tags": ["x", "y"]}, {"tags": ["z"]}, {}]),
            json!({"$pull": {"t": {"tags": {"$ne": "x"}}}}),
            json!([{"tags": ["x", "y"]}]),
        ),
        (json!([{"a": [1, 2]}, {"a": 3}, 1]), json!({"$pull": {"t": {"a": 1}}}), json!([{"a": 3}, 1])),
        (json!([{"a": 1}, {"b": 1}]), json!({"$pull": {"t": {"a": {"$exists": false}}}}), json!([{"a": 1}])),
        (json!([{"a": null}, {}, {"a": 1}, null]), json!({"$pull": {"t": {"a": null}}}), json!([{"a": 1}, null])),
        (
            json!([{"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}, {"c": 2}]}]),
            json!({"$pull": {"t": {"a": {"$elemMatch": {"b": 1, "c": 2}}}}}),
            json!([{"a": [{"b": 1}, {"c": 2}]}]),
        ),
        (
            json!([{"a": 1}, {"b": 2}, {"c": 3}]),
            json!({"$pull": {"t": {"$or": [{"a": 1}, {"b": 2}]}}}),
            json!([{"c": 3}]),
        ),
        (
            json!([{"a": "xy"}, {"a": ["ax"]}, {"a": "y"}]),
            json!({"$pull": {"t": {"a": {"$regex": "X", "$options": "i"}}}}),
            json!([{"a": "y"}]),
        ),
        (json!(["ab", "b", ["ac"], 1]), json!({"$pull": {"t": {"$regex": "^a"}}}), json!(["b", 1])),
        (json!([1, 5, [1, 9], "5", null]), json!({"$pull": {"t": {"$gte": 5}}}), json!([1, "5", null])),
        (json!([[1], [1, 2], 1]), json!({"$pull": {"t": {"$size": 1}}}), json!([[1, 2], 1])),
        (json!([[1, 2], [2], 1]), json!({"$pull": {"t": {"$all": [1, 2]}}}), json!([[2], 1])),
        (json!([1, 2, [2], 3]), json!({"$pull": {"t": {"$not": {"$gt": 1}}}}), json!([2, [2], 3])),
        // Equality is with the whole element.
        (json!([1, [1, 2], 1.0]), json!({"$pull": {"t": 1}}), json!([[1, 2]])),
        (json!([[1, 2], [2, 1], 1]), json!({"$pull": {"t": [1, 2]}}), json!([[2, 1], 1])),
        (
            json!([{"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}]),
            json!({"$pull": {"t": {"a": {"b": 1}}}}),
            json!([{"a": {"b": 1, "c": 2}}]),
        ),
        // Nothing can be taken out of what is not there.
        (json!(5), json!({"$pull": {"t.x": 1}, "$pop": {"t.y": 1}}), json!(5)),
        (json!([1]), json!({"$pull": {"t.x": 1}, "$pop": {"t.0.y": 1}, "$unset": {"t.z": 1}}), json!([1])),
        (json!({}), json!({"$pull": {"t.x": 1}, "$pop": {"t.y": -1}}), json!({})),
        // The order is that of all kinds: null, numbers, strings, objects, lists, booleans.
        (json!("x"), json!({"$min": {"t": 5}}), json!(5)),
        (json!("x"), json!({"$max": {"t": 5}}), json!("x")),
        (json!(null), json!({"$min": {"t": 5}}), json!(null)),
        (json!(null), json!({"$max": {"t": 5}}), json!(5)),
        (json!(5), json!({"$min": {"t": null}}), json!(null)),
        (json!(5), json!({"$max": {"t": true}}), json!(true)),
        (json!({"a": 1}), json!({"$max": {"t": [0]}}), json!([0])),
        (json!({"a": 1}), json!({"$max": {"t": {"a": 2}}}), json!({"a": 2})),
        (json!([1, 2]), json!({"$min": {"t": [1, 1]}}), json!([1, 1])),
        (json!(1), json!({"$max": {"t": 1.0}}), json!(1)),
    ] {
        let (mut document, _) = Document::create(actor(1), at(1), &object(json!({ "t": start }))).unwrap();
        apply(&mut document, 1, &Patch::operators(update.clone()).unwrap()).unwrap();
        assert_eq!(text(&document), json!({ "t": expected }).to_string(), "{start} {update}");
    }
}

#[test]
fn concurrent_edits_of_one_place_merge() {
    for (start, left, right, merged) in [
        (
            json!({"l": [1]}),
            json!({"$push": {"l": 2}}),
            json!({"$push": {"l": 3}}),
            &["{\"l\":[1,2,3]}", "{\"l\":[1,3,2]}"][..],
        ),
        (json!({"l": [1, 2, 3]}), json!({"$pull": {"l": 1}}), json!({"$push": {"l": 4}}), &["{\"l\":[2,3,4]}"]),
        (json!({"l": [1, 2, 3]}), json!({"$pop": {"l": -1}}), json!({"$pop": {"l": 1}}), &["{\"l\":[2]}"]),
        (
            json!({"a": {"b": 1, "c": 1}}),
            json!({"$set": {"a.b": 2}}),
            json!({"$unset": {"a.c": 1}}),
            &["{\"a\":{\"b\":2}}"],
        ),
        (
            json!({"l": [{"_id": 1}, {"_id": 2}]}),
            json!({"$pull": {"l": {"_id": {"$gte": 2}}}}),
            json!({"$set": {"l.0.n": 1}}),
            &["{\"l\":[{\"_id\":1,\"n\":1}]}"],
        ),
        (json!({"n": 1}), json!({"$inc": {"n": 10}}), json!({"$inc": {"n": 100}}), &["{\"n\":111}"]),
        (json!({}), json!({"$inc": {"n": 10}}), json!({"$inc": {"n": 100}}), &["{\"n\":110}"]),
    ] {
        let (mut one, mut two) = pair(start);
        let (a, b) = (operate(&mut one, 1, left), operate(&mut two, 2, right));
        let shown = meet([&mut one, &mut two], [&a, &b]);
        assert!(merged.contains(&shown.as_str()), "{shown}");
    }
}

#[test]
fn concurrent_typing_merges() {
    let (mut one, first) = Document::create(actor(1), at(1), &object(json!({"note": "The fox"}))).unwrap();
    let made = operate(&mut one, 1, json!({"$text": {"note": {"position": 4, "insert": "quick "}}}));
    let mut two = replica(&[first, made]);
    let left = operate(&mut one, 1, json!({"$text": {"note": {"position": 4, "delete": 5, "insert": "slow"}}}));
    let right = operate(&mut two, 2, json!({"$text": {"note": {"position": 13, "insert": " jumps"}}}));
    assert_eq!(meet([&mut one, &mut two], [&left, &right]), r#"{"note":"The slow fox jumps"}"#);
}

#[test]
fn a_counter_can_be_set_while_others_count() {
    let (mut one, mut two) = pair(json!({"n": 1}));
    let (a, b) = (operate(&mut one, 1, json!({"$inc": {"n": 1}})), operate(&mut two, 2, json!({"$inc": {"n": 2}})));
    assert_eq!(meet([&mut one, &mut two], [&a, &b]), r#"{"n":4}"#);
    // Replacing, setting, testing, renaming and comparing go by what is shown.
    assert!(one.replace(actor(1), at(2), &object(json!({"n": 4}))).unwrap().is_none());
    let set = one.replace(actor(1), at(2), &object(json!({"n": 10}))).unwrap().unwrap();
    let added = operate(&mut two, 2, json!({"$inc": {"n": 5}}));
    assert_eq!(meet([&mut one, &mut two], [&set, &added]), r#"{"n":15}"#);
    operate(&mut one, 1, json!({"$max": {"n": 20}}));
    let steps = json!([{"op": "test", "path": "/n", "value": 20}, {"op": "copy", "from": "/n", "path": "/m"}]);
    apply(&mut one, 1, &Patch::json_patch(steps).unwrap()).unwrap();
    operate(&mut one, 1, json!({"$rename": {"n": "k"}, "$mul": {"m": 2}}));
    assert_eq!(text(&one), r#"{"k":20,"m":40}"#);
    survives_storage(&one);
}

#[test]
fn counters_made_with_the_document_add_up() {
    let patch = Patch::operators(json!({"$inc": {"n": 3}, "$set": {"by.one": true}})).unwrap();
    let (mut one, mut two) = (Document::new(), Document::new());
    let a = apply(&mut one, 1, &patch).unwrap().unwrap();
    let b = apply(&mut two, 2, &patch).unwrap().unwrap();
    assert_eq!(a.root_view(), Some(one.view()));
    assert_eq!(meet([&mut one, &mut two], [&a, &b]), r#"{"by":{"one":true},"n":6}"#);
    // A deleted document starts anew.
    let delete = one.delete(actor(1), at(3)).unwrap().unwrap();
    let revived = apply(&mut one, 1, &patch).unwrap().unwrap();
    assert_eq!(text(&one), r#"{"by":{"one":true},"n":3}"#);
    two.apply([received(&delete), received(&revived)]).unwrap();
    assert_eq!(text(&two), text(&one));
    let empty = apply(&mut Document::new(), 1, &Patch::merge(json!({"a": null})).unwrap()).unwrap().unwrap();
    assert_eq!(empty.root_view(), Some(b"{}".to_vec()));
}

#[test]
fn sums_beyond_64_bits_wrap_around_on_all_alike() {
    let (mut one, mut two) = pair(json!({}));
    let most = json!({"$inc": {"n": i64::MAX}});
    let (a, b) = (operate(&mut one, 1, most.clone()), operate(&mut two, 2, most));
    assert_eq!(meet([&mut one, &mut two], [&a, &b]), r#"{"n":-2}"#);
    let (a, b) =
        (operate(&mut one, 1, json!({"$inc": {"n": i64::MAX}})), operate(&mut two, 2, json!({"$inc": {"n": 7}})));
    meet([&mut one, &mut two], [&a, &b]);
    survives_storage(&one);
}

#[test]
fn what_is_named_is_all_that_is_written() {
    let mut big = object(json!({}));
    for number in 0..1_000 {
        big.insert(format!("f{number}"), json!({"text": "x".repeat(50), "list": vec![7; 10], "n": number}));
    }
    let (mut document, _) = Document::create(actor(1), at(1), &big).unwrap();
    for patch in [
        Patch::operators(
            json!({"$set": {"f500.text": "y"}, "$inc": {"f1.n": 2}, "$push": {"f2.list": {"$each": [1], "$position": 3}}}),
        ),
        Patch::merge(json!({"f7": {"list": vec![7; 11]}, "f8": null})),
        Patch::json_patch(
            json!([{"op": "remove", "path": "/f9/list/4"}, {"op": "add", "path": "/f9/list/0", "value": 1}]),
        ),
    ] {
        let change = apply(&mut document, 1, &patch.unwrap()).unwrap().unwrap();
        assert!(change.payload().len() < 300, "{} bytes", change.payload().len());
    }
    for patch in [
        Patch::operators(
            json!({"$set": {"f500.text": "y"}, "$inc": {"f1.n": 0}, "$addToSet": {"f2.list": 7}, "$pull": {"none": 1}}),
        ),
        Patch::operators(json!({"$text": {"f3.text": {"position": 50}}, "$max": {"f4.n": 3}, "$unset": {"x.y.z": 1}})),
        Patch::merge(json!({"f7": {"list": vec![7; 11]}, "f8": null})),
        Patch::json_patch(json!([{"op": "test", "path": "/f9/list/0", "value": 1.0}])),
    ] {
        assert_eq!(apply(&mut document, 1, &patch.unwrap()).unwrap(), None);
    }
}

#[test]
fn zeros_keep_their_sign() {
    let (mut document, _) = Document::create(actor(1), at(1), &object(json!({"n": -0.0, "l": [0.0]}))).unwrap();
    operate(&mut document, 1, json!({"$set": {"n": 0.0, "l.0": -0.0}}));
    assert_eq!(text(&document), r#"{"l":[-0.0],"n":0.0}"#);
    document.replace(actor(1), at(2), &object(json!({"n": -0.0, "l": [0.0]}))).unwrap().unwrap();
    assert_eq!(text(&document), r#"{"l":[0.0],"n":-0.0}"#);
}

#[test]
fn what_does_not_fit_is_named() {
    let start =
        json!({"s": "text", "n": 1, "u": u64::MAX, "m": i64::MAX, "f": 1e308, "l": [1], "o": {"x": null}, "b": true});
    let (mut document, _) = Document::create(actor(1), at(1), &object(start)).unwrap();
    for (body, field, part) in [
        (json!({"$set": {"n.x": 1}}), "n.x", "\"n\" is neither"),
        (json!({"$set": {"s.x": 1}}), "s.x", "\"s\" is neither"),
        (json!({"$set": {"l.x": 1}}), "l.x", "\"l\" is a list"),
        (json!({"$set": {"a": 1}, "$inc": {"s": 1}}), "s", "needs a number, this is a string"),
        (json!({"$inc": {"m": 1}}), "m", "64-bit integer"),
        (json!({"$inc": {"u": 1}}), "u", "64-bit integer"),
        (json!({"$inc": {"n": u64::MAX}}), "n", "64-bit integer"),
        (json!({"$mul": {"m": 2}}), "m", "64-bit integer"),
        (json!({"$mul": {"f": 10}}), "f", "64-bit float"),
        (json!({"$mul": {"o": 10}}), "o", "this is an object"),
        (json!({"$push": {"s": 1}}), "s", "$push needs a list"),
        (json!({"$pull": {"n": 1}}), "n", "$pull needs a list"),
        (json!({"$addToSet": {"o": 1}}), "o", "$addToSet needs a list"),
        (json!({"$pop": {"n": 1}}), "n", "$pop needs a list"),
        (json!({"$rename": {"l.0": "z"}}), "l.0", "through a list"),
        (json!({"$rename": {"n": "l.0"}}), "l.0", "through a list"),
        (json!({"$rename": {"n": "s.x"}}), "s.x", "neither"),
        (json!({"$rename": {"s.x": "z"}}), "s.x", "\"s\" is neither"),
        (json!({"$text": {"n": {"position": 0}}}), "n", "needs a string"),
        (json!({"$text": {"s": {"position": 5, "insert": "x"}}}), "s", "position 5 is beyond"),
        (json!({"$text": {"s": {"position": 3, "delete": 2}}}), "s", "which has 4 characters"),
        (json!({"$text": {"new": [{"position": 0, "insert": "é"}, {"position": 2}]}}), "new", "which has 1 characters"),
    ] {
        let invalid = fault(&mut document, Patch::operators(body));
        assert_eq!((invalid.field.as_deref(), invalid.kind), (Some(field), InvalidKind::Meaning));
        assert!(invalid.message.contains(part), "{part}: {}", invalid.message);
    }
    for (step, kind, part) in [
        (json!({"op": "remove", "path": "/x"}), InvalidKind::Meaning, "no such path"),
        (json!({"op": "add", "path": "/x/y", "value": 1}), InvalidKind::Meaning, "no such path"),
        (json!({"op": "add", "path": "/l/3", "value": 1}), InvalidKind::Meaning, "no such path"),
        (json!({"op": "add", "path": "/l/01", "value": 1}), InvalidKind::Meaning, "no such path"),
        (json!({"op": "replace", "path": "/l/1", "value": 1}), InvalidKind::Meaning, "no such path"),
        (json!({"op": "test", "path": "/l/1", "value": 1}), InvalidKind::Meaning, "no such path"),
        (json!({"op": "test", "path": "/n", "value": 2}), InvalidKind::Test, "it is 1, not 2"),
    ] {
        let path = step["path"].as_str().unwrap().to_owned();
        let invalid = fault(&mut document, Patch::json_patch(json!([{"op": "add", "path": "/ok", "value": 1}, step])));
        assert_eq!((invalid.field, invalid.kind), (Some(path), kind), "{}", invalid.message);
        assert!(invalid.message.contains(part), "{part}: {}", invalid.message);
    }
}

#[test]
fn nothing_that_a_patch_says_in_short_becomes_long() {
    use crate::limits::DOCUMENT_BYTES_MAX;
    let half = "x".repeat(DOCUMENT_BYTES_MAX / 2);
    let (mut document, _) = Document::create(actor(1), at(1), &object(json!({"a": half, "l": [], "o": {}}))).unwrap();
    let copies: Vec<Value> = (0..50).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/b{n}")})).collect();
    let moves: Vec<Value> = (0..1_000)
        .map(|n| json!({"op": "move", "from": if n % 2 == 0 { "/a" } else { "/b" }, "path": if n % 2 == 0 { "/b" } else { "/a" }}))
        .collect();
    let test = json!({"op": "test", "path": "", "value": document.fields()});
    let nested: Vec<Value> = (0..150).map(|_| json!({"op": "copy", "from": "/o", "path": "/o/o"})).collect();
    for (patch, part) in [
        (Patch::json_patch(copies[..1].into()), None),
        (Patch::json_patch(copies[..2].into()), Some("the document would have")),
        (Patch::json_patch(copies.into()), Some("writes more")),
        (Patch::json_patch(moves.into()), Some("writes more")),
        (Patch::json_patch(vec![test; 100].into()), Some("reads more")),
        (Patch::json_patch(nested.into()), Some("")),
        (Patch::operators(json!({"$set": {"l.4294967295": 1}})), Some("writes more")),
        (Patch::operators(json!({"$push": {"l": half}})), Some("the document would have")),
        (
            Patch::operators(json!({"$push": {"l": {"$each": vec![0; DOCUMENT_BYTES_MAX / 2]}}})),
            Some("the document would have"),
        ),
    ] {
        let Some(part) = part else {
            let (mut copy, _) = Document::create(actor(1), at(1), &object(json!({"a": "x"}))).unwrap();
            assert!(apply(&mut copy, 1, &patch.unwrap()).unwrap().is_some());
            continue;
        };
        let invalid = fault(&mut document, patch);
        assert!(invalid.message.contains(part), "{part}: {}", invalid.message);
        assert!(invalid.kind == InvalidKind::TooLarge || part.is_empty());
    }
    // What others made too large may still shrink.
    let shrink = Patch::operators(json!({"$set": {"a": "x".repeat(DOCUMENT_BYTES_MAX - 100)}})).unwrap();
    assert!(document.patch(actor(1), at(2), &shrink, 2 * DOCUMENT_BYTES_MAX).unwrap().is_some());
    assert!(json_bytes(&document.fields()) < DOCUMENT_BYTES_MAX);
}

#[test]
fn an_edit_that_is_too_large_for_a_change_is_refused_before_it_is_made() {
    const LENGTH: usize = 300_000;
    let (mut document, _) = pair(json!({}));
    let typed = Patch::operators(json!({"$text": {"t": {"position": 0, "insert": "a".repeat(LENGTH)}}})).unwrap();
    assert!(document.patch(actor(1), at(2), &typed, 2).unwrap().is_some());
    let anew = "b".repeat(LENGTH);
    let splice = json!({"$text": {"t": {"position": 0, "delete": LENGTH, "insert": anew}}});
    let patched = document.patch(actor(1), at(3), &Patch::operators(splice).unwrap(), LENGTH).unwrap_err();
    let replaced = document.replace(actor(1), at(3), &object(json!({ "t": anew }))).unwrap_err();
    for error in [patched, replaced] {
        // It names all of the operations, not those after which it gave up.
        let Error::Invalid(invalid) = error else { panic!("{error}") };
        assert!(invalid.kind == InvalidKind::TooLarge && invalid.message.contains("600000"), "{invalid:?}");
    }
    assert_eq!(document.fields()["t"].as_str().map(str::len), Some(LENGTH));
    let other = Patch::operators(json!({"$set": {"t": anew}})).unwrap();
    assert!(document.patch(actor(1), at(3), &Patch::operators(json!({"$set": {"n": 1}})).unwrap(), LENGTH).is_ok());
    assert!(document.patch(actor(1), at(4), &other, LENGTH).is_err());
}

#[test]
fn the_time_is_that_of_the_change() {
    let (mut document, _) = pair(json!({}));
    let patch = Patch::operators(json!({"$currentDate": {"a": true, "b.c": {"$type": "date"}}})).unwrap();
    let change = document.patch(actor(1), Hlc::from_physical(crate::base::Timestamp(NOW)), &patch, 2).unwrap().unwrap();
    assert_eq!(change.time().physical().to_string(), NOW_TEXT);
    assert_eq!(text(&document), format!("{{\"a\":\"{NOW_TEXT}\",\"b\":{{\"c\":\"{NOW_TEXT}\"}}}}"));
}

#[test]
fn the_deepest_documents_are_patched() {
    use crate::limits::DOCUMENT_DEPTH_MAX;
    // The document is one level, so this is the innermost object that may be.
    let deepest = (1..DOCUMENT_DEPTH_MAX).fold(json!({"n": 1}), |inner, _| json!({ "a": inner }));
    let path = [&vec!["a"; DOCUMENT_DEPTH_MAX - 1].join("."), "n"].join(".");
    let (mut document, _) = Document::create(actor(1), at(1), &object(deepest.clone())).unwrap();
    operate(&mut document, 1, json!({"$inc": {&path: 2}}));
    let merge = (1..DOCUMENT_DEPTH_MAX).fold(json!({"n": 4}), |inner, _| json!({ "a": inner }));
    apply(&mut document, 1, &Patch::merge(merge.clone()).unwrap()).unwrap().unwrap();
    let pointer = format!("/{}", path.replace('.', "/"));
    let steps = json!([
        {"op": "test", "path": "", "value": merge},
        {"op": "replace", "path": pointer, "value": 1},
        {"op": "move", "from": "/a", "path": "/b"},
        {"op": "move", "from": "/b", "path": "/a"},
    ]);
    apply(&mut document, 1, &Patch::json_patch(steps).unwrap()).unwrap().unwrap();
    exactly(&document, &object(deepest));
    survives_storage(&document);
    let deeper = fault(
        &mut document,
        Patch::json_patch(
            json!([{"op": "move", "from": "/a", "path": "/b"}, {"op": "add", "path": "/a", "value": {}}, {"op": "move", "from": "/b", "path": "/a/a"}]),
        ),
    );
    assert_eq!(deeper.kind, InvalidKind::Meaning, "{}", deeper.message);
}

#[test]
fn what_is_put_elsewhere_in_the_document_nests_no_deeper_than_others_take() {
    use crate::limits::DOCUMENT_DEPTH_MAX;
    // As deep as a field of a document may be, beside an object that earlier changes made.
    let deepest = (2..DOCUMENT_DEPTH_MAX).fold(json!({}), |inner, _| json!({ "a": inner }));
    let pointer = format!("/{}", vec!["a"; DOCUMENT_DEPTH_MAX - 1].join("/"));
    let chain = (1..DOCUMENT_DEPTH_MAX).fold(json!({"s": "x"}), |inner, _| json!({ "a": inner }));
    let start = json!({"a": chain["a"], "b": deepest, "c": {}, "l": [], "t": "x", "list": ["x"]});
    let (mut document, _) = Document::create(actor(1), at(1), &object(start)).unwrap();
    operate(&mut document, 1, json!({"$text": {"t": {"position": 1, "insert": "y"}}}));
    let text_path = format!("{}.s", vec!["a"; DOCUMENT_DEPTH_MAX - 1].join("."));
    for too_deep in [
        Patch::json_patch(json!([{"op": "copy", "from": "/b", "path": "/c/b"}])),
        Patch::json_patch(json!([{"op": "move", "from": "/b", "path": "/c/b"}])),
        Patch::json_patch(json!([{"op": "copy", "from": "/b", "path": "/l/-"}])),
        Patch::json_patch(json!([{"op": "copy", "from": "/t", "path": format!("{pointer}/t")}])),
        Patch::operators(json!({"$rename": {"b": "c.b"}})),
        Patch::operators(json!({"$rename": {"t": format!("{}.t", vec!["a"; DOCUMENT_DEPTH_MAX - 1].join("."))}})),
        Patch::operators(json!({"$text": {&text_path: {"position": 1, "insert": "y"}}})),
        // Each copy alone would fit.
        Patch::json_patch(Value::Array(vec![json!({"op": "copy", "from": "/c", "path": "/c/c"}); 200])),
    ] {
        let fault = fault(&mut document, too_deep);
        assert_eq!(fault.kind, InvalidKind::Meaning, "{}", fault.message);
        assert!(fault.message.contains("nested too deeply"), "{}", fault.message);
    }
    operate(&mut document, 1, json!({"$rename": {"b": "d"}}));
    survives_storage(&document);
}
