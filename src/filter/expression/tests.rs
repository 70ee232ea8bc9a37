//! Tables after MongoDB's manual, and what must hold of every expression.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::limits::{DOCUMENT_VIEW_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX};
use crate::{Error, Invalid};

/// The value of an expression for a document, whose `_id` is held as a stored document holds it.
fn value(expression: &Value, document: &Value) -> Result<Option<Value>> {
    let expression = Expression::parse(expression, "")?;
    let mut body = document.clone();
    let id = body.as_object_mut().unwrap().remove("_id").map(|id| id.to_string());
    let body = body.to_string();
    let row =
        Row { id: id.as_ref().map(|id| Json::new(id.as_bytes())), body: Json::new(body.as_bytes()), conflicts: 0 };
    Ok(expression.evaluate(row)?.map(|text| serde_json::from_slice(&text).unwrap()))
}

fn check(document: &Value, table: &[(Value, Value)]) {
    for (expression, expected) in table {
        let found = value(expression, document).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(found.as_ref(), Some(expected), "{expression}");
    }
}

fn check_missing(document: &Value, expressions: &[Value]) {
    for expression in expressions {
        assert_eq!(value(expression, document).unwrap(), None, "{expression}");
    }
}

fn refused(expression: &Value, document: &Value) -> Invalid {
    match value(expression, document) {
        Err(Error::Invalid(invalid)) => invalid,
        other => panic!("{expression}: {other:?}"),
    }
}

#[test]
fn paths_lead_through_objects_and_arrays() {
    let document = json!({
        "_id": "x", "A": 0, "a": {"b": {"c": 1}}, "l": [{"b": 1}, 5, {}, {"b": [2]}, [{"b": 9}]],
        "m": [{"n": [{"o": 1}, {"o": 2}]}, {"n": {"o": 3}}, {"n": 4}], "s": "$a",
    });
    check(
        &document,
        &[
            (json!("$a.b.c"), json!(1)),
            (json!("$a.b"), json!({"c": 1})),
            (json!("$l.b"), json!([1, [2]])),
            (json!("$m.n.o"), json!([[1, 2], 3])),
            (json!("$l.0"), json!([])),
            (json!("$_id"), json!("x")),
            (json!("$$ROOT"), document.clone()),
            (json!("$$CURRENT.a.b.c"), json!(1)),
            (json!("a"), json!("a")),
            (json!({"$literal": "$a"}), json!("$a")),
            (json!({"$literal": {"$add": [1, 2]}}), json!({"$add": [1, 2]})),
            (json!({"x": "$a.b.c", "y": ["$a.b.c", "$none"], "z": "$none"}), json!({"x": 1, "y": [1, null]})),
            (json!({"x": {"y": {"$add": ["$A", 1]}}}), json!({"x": {"y": 1}})),
            (json!([]), json!([])),
            (json!({}), json!({})),
        ],
    );
    check_missing(&document, &[json!("$none"), json!("$a.b.c.d"), json!("$s.x"), json!("$_id.x"), json!("$$REMOVE")]);
}

#[test]
fn the_id_has_its_place_in_the_whole_document() {
    for body in [json!({}), json!({"A": 1}), json!({"a": 1}), json!({"A": 1, "B\"": {"x": [1]}, "a": 1, "b": 2})] {
        let text = body.to_string();
        let row = Row { id: Some(Json::new(b"\"i\"")), body: Json::new(text.as_bytes()), conflicts: 0 };
        let mut expected = body.clone();
        expected["_id"] = json!("i");
        assert_eq!(String::from_utf8_lossy(&whole(row)), expected.to_string());
        let with_id = expected.to_string();
        let row = Row { id: Some(Json::new(b"\"i\"")), body: Json::new(with_id.as_bytes()), conflicts: 0 };
        assert_eq!(String::from_utf8_lossy(&whole(row)), with_id);
        assert_eq!(&*whole(Row { id: None, body: Json::new(text.as_bytes()), conflicts: 0 }), text.as_bytes());
    }
}

#[test]
fn comparisons_go_across_kinds_and_missing_is_below_null() {
    check(
        &json!({"a": 5, "n": null}),
        &[
            (json!({"$eq": ["$a", 5.0]}), json!(true)),
            (json!({"$ne": ["$a", "5"]}), json!(true)),
            (json!({"$gt": ["x", "$a"]}), json!(true)),
            (json!({"$gte": ["$a", 5]}), json!(true)),
            (json!({"$lt": ["$a", {}]}), json!(true)),
            (json!({"$lte": [[], "$a"]}), json!(false)),
            (json!({"$cmp": ["$a", 6]}), json!(-1)),
            (json!({"$cmp": ["$a", 5]}), json!(0)),
            (json!({"$cmp": [true, "$a"]}), json!(1)),
            (json!({"$eq": ["$n", null]}), json!(true)),
            (json!({"$eq": ["$none", null]}), json!(false)),
            (json!({"$gt": ["$n", "$none"]}), json!(true)),
            (json!({"$eq": ["$none", "$nothing"]}), json!(true)),
        ],
    );
}

#[test]
fn truth_is_not_missing_not_null_not_false_not_zero() {
    check(
        &json!({"z": 0, "f": 0.0, "e": "", "l": []}),
        &[
            (json!({"$and": []}), json!(true)),
            (json!({"$or": []}), json!(false)),
            (json!({"$and": [1, "$e", "$l", {"$literal": {}}]}), json!(true)),
            (json!({"$and": [true, "$z"]}), json!(false)),
            (json!({"$or": ["$z", "$f", null, false, "$none"]}), json!(false)),
            (json!({"$or": ["$z", "$e"]}), json!(true)),
            (json!({"$not": ["$none"]}), json!(true)),
            (json!({"$not": "$l"}), json!(false)),
            // What decides comes first: the error behind it is not met.
            (json!({"$or": [true, {"$divide": [1, "$z"]}]}), json!(true)),
        ],
    );
}

#[test]
fn arithmetic_is_exact_for_integers() {
    check(
        &json!({"a": 7, "n": null}),
        &[
            (json!({"$add": ["$a", 1, 2]}), json!(10)),
            (json!({"$add": ["$a", 0.5]}), json!(7.5)),
            (json!({"$add": []}), json!(0)),
            (json!({"$add": ["$a", null]}), json!(null)),
            (json!({"$add": ["$a", "$none"]}), json!(null)),
            // Null goes before an operand of a wrong kind, and before a division by zero.
            (json!({"$subtract": ["$n", "x"]}), json!(null)),
            (json!({"$subtract": ["x", "$none"]}), json!(null)),
            (json!({"$divide": ["x", null]}), json!(null)),
            (json!({"$divide": ["$n", 0]}), json!(null)),
            (json!({"$mod": [[1], "$n"]}), json!(null)),
            (json!({"$pow": [null, "x"]}), json!(null)),
            (json!({"$pow": [true, "$none"]}), json!(null)),
            (json!({"$add": [i64::MAX, 1]}), json!(9_223_372_036_854_775_808u64)),
            (json!({"$add": [u64::MAX, 1]}), json!(18_446_744_073_709_551_616.0)),
            (json!({"$add": [u64::MAX, 1, -2]}), json!(u64::MAX - 1)),
            (json!({"$subtract": [i64::MIN, 1]}), json!(-9_223_372_036_854_775_809.0)),
            (json!({"$subtract": ["$a", 10]}), json!(-3)),
            (json!({"$multiply": ["$a", 3, 2]}), json!(42)),
            (json!({"$multiply": [u64::MAX, u64::MAX]}), json!(3.402_823_669_209_385e38)),
            (json!({"$multiply": ["$a", 0.5]}), json!(3.5)),
            (json!({"$divide": ["$a", 2]}), json!(3.5)),
            (json!({"$divide": [6, 3]}), json!(2)),
            (json!({"$mod": ["$a", 4]}), json!(3)),
            (json!({"$mod": [-7, 4]}), json!(-3)),
            (json!({"$mod": [7.5, 2]}), json!(1.5)),
            (json!({"$abs": -1}), json!(1)),
            (json!({"$abs": [i64::MIN]}), json!(9_223_372_036_854_775_808u64)),
            (json!({"$abs": "$n"}), json!(null)),
            (json!({"$ceil": 7.2}), json!(8.0)),
            (json!({"$ceil": -2.8}), json!(-2.0)),
            (json!({"$floor": -2.8}), json!(-3.0)),
            (json!({"$floor": "$a"}), json!(7)),
            (json!({"$pow": [5, 2]}), json!(25)),
            (json!({"$pow": [5, -2]}), json!(0.04)),
            (json!({"$pow": [2, 64]}), json!(18_446_744_073_709_551_616.0)),
            (json!({"$pow": [-5, 0.0]}), json!(1.0)),
            (json!({"$sqrt": 25}), json!(5.0)),
            (json!({"$sqrt": "$none"}), json!(null)),
        ],
    );
}

#[test]
fn rounding_is_to_the_even_digit_and_to_either_side_of_the_point() {
    check(
        &json!({}),
        &[
            (json!({"$round": [10.5]}), json!(10.0)),
            (json!({"$round": 11.5}), json!(12.0)),
            (json!({"$round": [19.25, 1]}), json!(19.2)),
            (json!({"$round": [28.73, 1]}), json!(28.7)),
            (json!({"$round": [-45.39, 1]}), json!(-45.4)),
            (json!({"$round": [19.25, -1]}), json!(20.0)),
            (json!({"$round": [1234, -2]}), json!(1200)),
            (json!({"$round": [25, -1]}), json!(20)),
            (json!({"$round": [-35, -1]}), json!(-40)),
            (json!({"$round": [7, 3]}), json!(7)),
            (json!({"$round": [7.5, null]}), json!(null)),
            (json!({"$trunc": [7.85, 1]}), json!(7.8)),
            (json!({"$trunc": -2.3}), json!(-2.0)),
            (json!({"$trunc": [1234, -2]}), json!(1200)),
            (json!({"$trunc": [-1299, -2]}), json!(-1200)),
            (json!({"$trunc": [19.25, 100]}), json!(19.25)),
        ],
    );
}

#[test]
fn conditions_choose() {
    let document = json!({"qty": 250, "n": null});
    let sizes = json!({"$switch": {"branches": [
        {"case": {"$lt": ["$qty", 10]}, "then": "few"}, {"case": {"$lt": ["$qty", 300]}, "then": "some"},
    ], "default": "many"}});
    check(
        &document,
        &[
            (json!({"$cond": {"if": {"$gte": ["$qty", 250]}, "then": 30, "else": 20}}), json!(30)),
            (json!({"$cond": [{"$gt": ["$qty", 250]}, 30, "$qty"]}), json!(250)),
            (json!({"$ifNull": ["$n", "x"]}), json!("x")),
            (json!({"$ifNull": ["$none", "$n", "$qty", 1]}), json!(250)),
            (json!({"$ifNull": ["$none", null]}), json!(null)),
            (sizes, json!("some")),
        ],
    );
    check_missing(&document, &[json!({"$ifNull": ["$n", "$none"]}), json!({"$cond": [true, "$$REMOVE", 1]})]);
    let none = refused(&json!({"$switch": {"branches": [{"case": false, "then": 1}]}}), &document);
    assert_eq!(none.field.as_deref(), Some("$switch"));
}

#[test]
fn strings_are_made_and_measured() {
    check(
        &json!({"a": "Été \"x\"", "n": null, "f": 2.0}),
        &[
            (json!({"$concat": ["$a", " - ", "b"]}), json!("Été \"x\" - b")),
            (json!({"$concat": ["$a", "$n"]}), json!(null)),
            (json!({"$toLower": "$a"}), json!("été \"x\"")),
            (json!({"$toUpper": "$a"}), json!("ÉTÉ \"X\"")),
            (json!({"$toLower": "$n"}), json!("")),
            (json!({"$strLenCP": "$a"}), json!(7)),
            (json!({"$substrCP": ["$a", 1, 2]}), json!("té")),
            (json!({"$substrCP": ["$a", 4, 100]}), json!("\"x\"")),
            (json!({"$substrCP": ["$a", 100, 1]}), json!("")),
            (json!({"$substrCP": ["$n", 0, 1]}), json!("")),
            (json!({"$toString": 2.5}), json!("2.5")),
            (json!({"$toString": "$f"}), json!("2")),
            (json!({"$toString": true}), json!("true")),
            (json!({"$toString": "$none"}), json!(null)),
            (json!({"$toInt": "-12"}), json!(-12)),
            (json!({"$toInt": 2.9}), json!(2)),
            (json!({"$toInt": false}), json!(0)),
            (json!({"$toDouble": "2.5"}), json!(2.5)),
            (json!({"$toDouble": 2}), json!(2.0)),
        ],
    );
}

#[test]
fn arrays_are_measured_and_joined() {
    let document = json!({"l": [1, "b", [3]], "e": [], "n": null});
    check(
        &document,
        &[
            (json!({"$size": "$l"}), json!(3)),
            (json!({"$size": [[1, 2]]}), json!(2)),
            (json!({"$arrayElemAt": ["$l", 0]}), json!(1)),
            (json!({"$arrayElemAt": ["$l", -1]}), json!([3])),
            (json!({"$arrayElemAt": [{"$concatArrays": ["$l", [4]]}, 3]}), json!(4)),
            (json!({"$arrayElemAt": ["$n", 0]}), json!(null)),
            (json!({"$in": [1.0, "$l"]}), json!(true)),
            (json!({"$in": [[3], "$l"]}), json!(true)),
            (json!({"$in": [3, "$l"]}), json!(false)),
            (json!({"$in": ["$none", [null]]}), json!(false)),
            (json!({"$concatArrays": ["$e", "$l", [], [4]]}), json!([1, "b", [3], 4])),
            (json!({"$concatArrays": ["$l", "$n"]}), json!(null)),
            (json!({"$isArray": ["$l"]}), json!(true)),
            (json!({"$isNumber": "$n"}), json!(false)),
            (json!({"$isNumber": 1}), json!(true)),
        ],
    );
    check_missing(&document, &[json!({"$arrayElemAt": ["$l", 3]}), json!({"$arrayElemAt": ["$l", -4]})]);
}

#[test]
fn wrong_operands_are_named_with_their_place() {
    let document = json!({"s": "x", "a": 1, "z": 0});
    let table = [
        (json!({"$add": ["$a", "$s"]}), "$add", "$add takes numbers; argument 2 is a string in this document"),
        (json!({"x": [{"$abs": "$s"}]}), "x.0.$abs", "$abs takes numbers"),
        (json!({"$divide": ["$a", "$z"]}), "$divide", "zero"),
        (json!({"$mod": ["$a", "$z"]}), "$mod", "zero"),
        (json!({"$pow": ["$z", -1]}), "$pow", "zero"),
        (json!({"$sqrt": -1}), "$sqrt", "negative"),
        (json!({"$multiply": [1e308, 10.0]}), "$multiply", "infinity"),
        (json!({"$concat": ["$s", "$a"]}), "$concat", "takes strings"),
        (json!({"$strLenCP": "$none"}), "$strLenCP", "is nothing"),
        (json!({"$substrCP": ["$s", -1, 1]}), "$substrCP", "not negative"),
        (json!({"$size": "$a"}), "$size", "an array"),
        (json!({"$in": ["$a", "$s"]}), "$in", "an array"),
        (json!({"$arrayElemAt": [[1], 0.5]}), "$arrayElemAt", "an integer"),
        (json!({"$round": [1, 101]}), "$round", "-20 to 100"),
        (json!({"$toInt": "x"}), "$toInt", "cannot read"),
        (json!({"$toInt": 1e300}), "$toInt", "64 bits"),
        (json!({"$and": [1, {"$toString": "$$ROOT"}]}), "$and.1.$toString", "an object"),
    ];
    for (expression, field, message) in table {
        let invalid = refused(&expression, &document);
        assert_eq!(invalid.field.as_deref().unwrap_or_default(), field, "{expression}");
        assert!(invalid.message.contains(message), "{expression}: {}", invalid.message);
    }
}

#[test]
fn what_is_no_expression_is_refused_with_what_would_be_right() {
    let table = [
        (json!({"$addd": [1]}), "$addd", "did you mean $add?"),
        (json!({"a": {"$add": 1, "b": 2}}), "a", "one key"),
        (json!({"a.b": 1}), "", "dot"),
        (json!({"$eq": [1]}), "$eq", "an array of 2 arguments, not 1"),
        (json!({"$not": [1, 2]}), "$not", "one argument"),
        (json!({"$ifNull": [1]}), "$ifNull", "at least 2"),
        (json!({"$cond": [1, 2]}), "$cond", "[if, then, else]"),
        (json!({"$cond": {"if": 1, "then": 2}}), "$cond", "[if, then, else]"),
        (json!({"$switch": {"branches": []}}), "$switch", "branches"),
        (json!("$"), "", "$literal"),
        (json!("$a..b"), "", "empty part"),
        (json!(["$$NOW"]), "0", "$$ROOT"),
    ];
    for (expression, field, message) in table {
        let invalid = refused(&expression, &json!({}));
        assert_eq!(invalid.field.as_deref().unwrap_or_default(), field, "{expression}");
        assert!(invalid.message.contains(message), "{expression}: {}", invalid.message);
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let mut deep = json!("$a");
    for _ in 0..=EXPRESSION_DEPTH_MAX {
        deep = json!({"$not": deep});
    }
    assert!(refused(&deep, &json!({})).message.contains("nested deeper"));
    let wide = json!({"$add": vec!["$a"; EXPRESSION_NODES_MAX]});
    assert!(refused(&wide, &json!({})).message.contains("operators and paths"));
    assert!(value(&json!({"$in": ["$a", vec![1; 10_000]]}), &json!({"a": 1})).is_ok());

    let text = "x".repeat(DOCUMENT_VIEW_BYTES_MAX / 4);
    let twice = json!({"$concat": ["$a", "$a"]});
    assert!(value(&twice, &json!({"a": text})).is_ok());
    let often = json!({"$concat": [twice, twice]});
    assert!(refused(&often, &json!({"a": text})).message.contains("bytes"));
    let arrays = json!({"$concatArrays": [["$a", "$a"], ["$a", "$a"]]});
    assert!(refused(&arrays, &json!({"a": text})).message.contains("bytes"));
}

#[test]
fn the_height_is_what_an_expression_adds() {
    let table = [
        (json!("$a"), 0),
        (json!({"a": ["$a"]}), 2),
        (json!({"$cond": ["$a", {"b": {"c": "$a"}}, ["$a"]]}), 2),
        (json!({"$literal": [[{"a": "[[[["}]]}), 3),
    ];
    for (expression, height) in table {
        assert_eq!(Expression::parse(&expression, "").unwrap().height(), height, "{expression}");
    }
}

fn expression() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!("$a")),
        Just(json!("$b.c")),
        Just(json!("$$ROOT")),
        Just(json!("x")),
        Just(Value::Null),
        (-3i64..3).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
    ];
    let names = [
        "$add",
        "$subtract",
        "$multiply",
        "$divide",
        "$mod",
        "$abs",
        "$ceil",
        "$round",
        "$trunc",
        "$pow",
        "$sqrt",
        "$concat",
        "$toLower",
        "$substrCP",
        "$toString",
        "$toInt",
        "$toDouble",
        "$size",
        "$arrayElemAt",
        "$in",
        "$concatArrays",
        "$cmp",
        "$ifNull",
        "$cond",
        "$and",
        "$not",
        "$switch",
    ];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        prop_oneof![
            (proptest::sample::select(names.to_vec()), proptest::collection::vec(inner.clone(), 1..4))
                .prop_map(|(name, arguments)| json!({ name: arguments })),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[ab\"]{1,2}", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What is computed is JSON as this peer writes it, whatever is computed from what.
    #[test]
    fn a_result_is_a_canonical_text(expression in expression(), a in expression(), c in expression()) {
        let Ok(expression) = Expression::parse(&expression, "") else { return Ok(()) };
        let body = json!({"a": a, "b": [{"c": c}, 1]}).to_string();
        let row = Row { id: Some(Json::new(b"\"i\"")), body: Json::new(body.as_bytes()), conflicts: 0 };
        if let Ok(Some(text)) = expression.evaluate(row) {
            let value: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(value.to_string(), String::from_utf8_lossy(&text).into_owned());
        }
    }

    #[test]
    fn garbage_is_survived(expression in expression(), text in proptest::collection::vec(proptest::sample::select(b"{}[]\",:\\a1-.e".to_vec()), 0..40)) {
        let Ok(expression) = Expression::parse(&expression, "") else { return Ok(()) };
        let _ = expression.evaluate(Row { id: None, body: Json::new(&text), conflicts: 0 });
    }
}
