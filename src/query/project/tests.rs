//! Tables after MongoDB's manual.

use serde_json::json;

use super::*;
use crate::value::Json;

/// A document, whose `_id` is held as a stored document holds it, as a projection shows it.
fn shown(projection: &Value, document: &Value) -> Result<Value> {
    let projection = Projection::parse(projection, "")?;
    let mut body = document.clone();
    let id = body.as_object_mut().unwrap().remove("_id").map(|id| id.to_string());
    let body = body.to_string();
    let row =
        Row { id: id.as_ref().map(|id| Json::new(id.as_bytes())), body: Json::new(body.as_bytes()), conflicts: 0 };
    let text = projection.apply(row)?;
    let value: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(value.to_string().as_bytes(), text, "keys are sorted, and there are no spaces");
    Ok(value)
}

fn check(document: &Value, table: &[(Value, Value)]) {
    for (projection, expected) in table {
        let found = shown(projection, document).unwrap_or_else(|error| panic!("{projection}: {error}"));
        assert_eq!(&found, expected, "{projection}");
    }
}

#[test]
fn fields_are_shown_or_left_out() {
    let document = json!({"_id": "1", "A": 0, "a": 1, "b": {"c": 2, "d": [3]}, "q\"": 4});
    check(
        &document,
        &[
            (json!({}), document.clone()),
            (json!({"a": 1}), json!({"_id": "1", "a": 1})),
            (json!({"a": true, "_id": false}), json!({"a": 1})),
            (json!({"_id": 1}), json!({"_id": "1"})),
            (json!({"_id": 0}), json!({"A": 0, "a": 1, "b": {"c": 2, "d": [3]}, "q\"": 4})),
            (json!({"a": 0, "A": 0, "q\"": 0}), json!({"_id": "1", "b": {"c": 2, "d": [3]}})),
            (json!({"a": 0, "_id": 1, "b": 0}), json!({"_id": "1", "A": 0, "q\"": 4})),
            (json!({"b.c": 1}), json!({"_id": "1", "b": {"c": 2}})),
            (json!({"b": {"c": 1}}), json!({"_id": "1", "b": {"c": 2}})),
            (json!({"b.c": 0, "a": 0}), json!({"_id": "1", "A": 0, "b": {"d": [3]}, "q\"": 4})),
            (json!({"a.x": 1, "none": 1, "none2.x": 1}), json!({"_id": "1"})),
            (json!({"a.x": 0, "A": 0, "b": 0, "q\"": 0}), json!({"_id": "1", "a": 1})),
        ],
    );
}

#[test]
fn paths_go_on_in_every_object_of_an_array() {
    let document = json!({"l": [{"a": 1, "b": 2}, 5, [{"a": 3}, {"b": 4}], {}]});
    check(
        &document,
        &[
            (json!({"l.a": 1}), json!({"l": [{"a": 1}, [{"a": 3}, {}], {}]})),
            (json!({"l.a": 0}), json!({"l": [{"b": 2}, 5, [{}, {"b": 4}], {}]})),
            (json!({"l": {"a": 1, "b": 1}}), json!({"l": [{"a": 1, "b": 2}, [{"a": 3}, {"b": 4}], {}]})),
        ],
    );
}

#[test]
fn fields_are_computed() {
    let document = json!({"_id": "1", "a": 1, "b": {"c": 2}, "s": 5, "l": [1, {"x": 1}]});
    check(
        &document,
        &[
            (json!({"t": {"$add": ["$a", "$b.c"]}}), json!({"_id": "1", "t": 3})),
            (json!({"t": "$b", "a": 1}), json!({"_id": "1", "a": 1, "t": {"c": 2}})),
            (json!({"t": "$none", "_id": 0}), json!({})),
            (json!({"_id": "$a"}), json!({"_id": 1})),
            (json!({"t": ["$a", "$none"], "_id": 0}), json!({"t": [1, null]})),
            (json!({"t": {"$literal": 1}, "_id": 0}), json!({"t": 1})),
            (json!({"b.d": "$a", "b.c": 1, "_id": 0}), json!({"b": {"c": 2, "d": 1}})),
            (json!({"s.x": "$a", "n.x": "$a", "_id": 0}), json!({"n": {"x": 1}, "s": {"x": 1}})),
            (json!({"l.y": "$a", "_id": 0}), json!({"l": [{"y": 1}, {"y": 1}]})),
        ],
    );
}

#[test]
fn arrays_are_cut() {
    let document = json!({"_id": "1", "l": [1, 2, 3, 4], "o": {"l": [5, 6]}, "s": "x"});
    let with = |l: Value| json!({"_id": "1", "l": l, "o": {"l": [5, 6]}, "s": "x"});
    check(
        &document,
        &[
            (json!({"l": {"$slice": 2}}), with(json!([1, 2]))),
            (json!({"l": {"$slice": [2]}}), with(json!([1, 2]))),
            (json!({"l": {"$slice": -3}}), with(json!([2, 3, 4]))),
            (json!({"l": {"$slice": -9}}), with(json!([1, 2, 3, 4]))),
            (json!({"l": {"$slice": 0}}), with(json!([]))),
            (json!({"l": {"$slice": [1, 2]}}), with(json!([2, 3]))),
            (json!({"l": {"$slice": [-2, 1]}}), with(json!([3]))),
            (json!({"l": {"$slice": [9, 2]}}), with(json!([]))),
            (json!({"s": {"$slice": 1}}), document.clone()),
            (json!({"l": {"$slice": 1}, "s": 1}), json!({"_id": "1", "l": [1], "s": "x"})),
            (json!({"o.l": {"$slice": -1}, "l": 0, "s": 0}), json!({"_id": "1", "o": {"l": [6]}})),
        ],
    );
}

#[test]
fn the_first_item_that_matches_is_shown() {
    let document = json!({"_id": "1", "a": 1, "g": [{"s": 1}, 5, {"s": 9, "t": 1}, {"s": 9}]});
    check(
        &document,
        &[
            (json!({"g": {"$elemMatch": {"s": {"$gt": 5}}}}), json!({"_id": "1", "g": [{"s": 9, "t": 1}]})),
            (json!({"g": {"$elemMatch": {"s": 4}}, "a": 1}), json!({"_id": "1", "a": 1})),
            (json!({"g": {"$elemMatch": {"$gt": 3}}}), json!({"_id": "1", "g": [5]})),
            (json!({"g": {"$elemMatch": {"$not": {"$type": "object"}}}}), json!({"_id": "1", "g": [5]})),
            (json!({"g": {"$elemMatch": {"$or": [{"t": 1}, {"s": 4}]}}}), json!({"_id": "1", "g": [{"s": 9, "t": 1}]})),
        ],
    );
}

#[test]
fn what_is_no_projection_is_refused_with_what_would_be_right() {
    let many = (0..=QUERY_FIELDS_MAX).map(|index| (format!("f{index}"), json!(1))).collect::<Map<_, _>>();
    let table = [
        (json!({"a": 1, "b": 0}), "b", "not both"),
        (json!({"a": 1, "a.b": 1}), "a.b", "named twice"),
        (json!({"a": {"b": 1}, "a.b": 1}), "a.b", "named twice"),
        (json!({"a": {}}), "a", "says nothing"),
        (json!({"a": {"b": {"$ad": 1}}}), "a.b.$ad", "did you mean"),
        (json!({"$add": [1, 2]}), "$add", "not the name of a field"),
        (json!({"a..b": 1}), "a..b", "empty part"),
        (json!({"a": {"$slice": "x"}}), "a.$slice", "negative for the last ones"),
        (json!({"a": {"$slice": [1, 0]}}), "a.$slice", "negative for the last ones"),
        (json!({"a": {"$elemMatch": {"b": {"$gtt": 1}}}}), "a.$elemMatch.b.$gtt", "$gt"),
        (json!([1]), "", "object of fields"),
        (json!(many), "", "1000 fields"),
    ];
    for (projection, field, message) in table {
        let Err(Error::Invalid(invalid)) = Projection::parse(&projection, "") else { panic!("{projection} was read") };
        assert_eq!(invalid.field.as_deref().unwrap_or_default(), field, "{invalid}");
        assert!(invalid.message.contains(message), "{projection}: {invalid}");
    }
}
