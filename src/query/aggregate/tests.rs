//! Stages after MongoDB's manual, and pipelines against the same computed from parsed values.

use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::json;

use super::super::sort::tests::{document, sorted};
use super::*;
use crate::Error;
use crate::limits::{AGGREGATE_BYTES_MAX, LOOKUP_ROWS_MAX, PIPELINE_STAGES_MAX};
use crate::value::Json;

/// Other collections, held as stored documents are.
#[derive(Default)]
struct Collections {
    documents: BTreeMap<&'static str, Vec<Value>>,
    scans: std::cell::Cell<usize>,
}

impl Sources for Collections {
    fn scan(&self, collection: &str, sink: Sink<'_>) -> Result<()> {
        self.scans.set(self.scans.get() + 1);
        for document in self.documents.get(collection).into_iter().flatten() {
            if with_row(document, &mut *sink)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn with_row<T>(document: &Value, then: impl FnOnce(Row<'_>) -> T) -> T {
    let mut body = document.clone();
    let id = body.as_object_mut().unwrap().remove("_id").map(|id| id.to_string());
    let body = body.to_string();
    then(Row { id: id.as_ref().map(|id| Json::new(id.as_bytes())), body: Json::new(body.as_bytes()), conflicts: 0 })
}

struct Outcome {
    rows: Vec<Value>,
    /// How many documents were asked for.
    pushed: usize,
}

fn execute(pipeline: &Value, documents: &[Value], collections: &Collections, budget: &Budget) -> Result<Outcome> {
    let pipeline = Pipeline::parse(pipeline)?;
    let mut run = pipeline.start(collections, budget);
    let (mut rows, mut pushed) = (Vec::new(), 0);
    let mut out = |row: Row<'_>| {
        let value: Value = serde_json::from_slice(&crate::filter::expression::whole(row)).unwrap();
        assert_eq!(row.id.map(|id| id.text().to_vec()), value.get("_id").map(|id| id.to_string().into_bytes()));
        rows.push(value);
        Ok(ControlFlow::Continue(()))
    };
    for document in documents {
        pushed += 1;
        if with_row(document, |row| run.push(row, &mut out))?.is_break() {
            break;
        }
    }
    run.finish(&mut out)?;
    Ok(Outcome { rows, pushed })
}

fn run(pipeline: &Value, documents: &[Value]) -> Vec<Value> {
    let budget = Budget::new(None, AGGREGATE_BYTES_MAX);
    let outcome = execute(pipeline, documents, &Collections::default(), &budget);
    outcome.unwrap_or_else(|error| panic!("{pipeline}: {error}")).rows
}

fn check(documents: &[Value], table: &[(Value, Value)]) {
    for (pipeline, expected) in table {
        assert_eq!(&Value::from(run(pipeline, documents)), expected, "{pipeline}");
    }
}

fn refused(pipeline: &Value, documents: &[Value]) -> crate::Invalid {
    let budget = Budget::new(None, 100_000);
    match execute(pipeline, documents, &Collections::default(), &budget) {
        Err(Error::Invalid(invalid)) => invalid,
        Err(error) => panic!("{pipeline}: {error}"),
        Ok(_) => panic!("{pipeline} was not refused"),
    }
}

fn sales() -> Vec<Value> {
    vec![
        json!({"_id": "1", "item": "abc", "price": 10, "quantity": 2}),
        json!({"_id": "2", "item": "jkl", "price": 20, "quantity": 1}),
        json!({"_id": "3", "item": "xyz", "price": 5, "quantity": 10}),
        json!({"_id": "4", "item": "xyz", "price": 5, "quantity": 20}),
        json!({"_id": "5", "item": "abc", "price": 10.0, "quantity": 10}),
    ]
}

#[test]
fn rows_are_filtered_limited_skipped_counted() {
    check(
        &sales(),
        &[
            (json!([{"$match": {"item": "xyz"}}, {"$project": {"_id": 1}}]), json!([{"_id": "3"}, {"_id": "4"}])),
            (json!([{"$skip": 1}, {"$limit": 1}, {"$unset": ["item", "price"]}]), json!([{"_id": "2", "quantity": 1}])),
            (json!([{"$match": {"price": 5}}, {"$count": "n"}]), json!([{"n": 2}])),
            (json!([{"$match": {"price": 6}}, {"$count": "n"}]), json!([])),
            (json!([{"$limit": 2}, {"$count": "n"}]), json!([{"n": 2}])),
            (json!([{"$limit": 2}, {"$skip": 2}]), json!([])),
            (json!([{"$match": {"$expr": {"$gt": ["$quantity", "$price"]}}}, {"$count": "n"}]), json!([{"n": 2}])),
        ],
    );
    let budget = Budget::new(None, 0);
    let outcome = execute(&json!([{"$limit": 2}]), &sales(), &Collections::default(), &budget).unwrap();
    assert_eq!((outcome.rows.len(), outcome.pushed), (2, 2), "the walk ends with the limit");
}

#[test]
fn documents_get_other_fields() {
    let documents = [json!({"_id": "1", "a": {"b": 1, "x": 0}, "n": 2})];
    check(
        &documents,
        &[
            (
                json!([{"$addFields": {"a.c": "$n", "t": 1}}]),
                json!([{"_id": "1", "a": {"b": 1, "c": 2, "x": 0}, "n": 2, "t": 1}]),
            ),
            (
                json!([{"$set": {"a": {"c": {"$add": ["$a.b", 1]}}}}]),
                json!([{"_id": "1", "a": {"b": 1, "c": 2, "x": 0}, "n": 2}]),
            ),
            (json!([{"$set": {"a": "$$REMOVE", "n": "$a.b"}}]), json!([{"_id": "1", "n": 1}])),
            (json!([{"$set": {"_id": "$n"}}, {"$project": {"n": 1}}]), json!([{"_id": 2, "n": 2}])),
            (json!([{"$unset": "a.b"}]), json!([{"_id": "1", "a": {"x": 0}, "n": 2}])),
            (json!([{"$replaceRoot": {"newRoot": "$a"}}]), json!([{"b": 1, "x": 0}])),
            (json!([{"$replaceWith": {"_id": "$n", "all": "$$ROOT.a"}}]), json!([{"_id": 2, "all": {"b": 1, "x": 0}}])),
        ],
    );
    let invalid = refused(&json!([{"$replaceRoot": {"newRoot": "$n"}}]), &documents);
    assert_eq!(invalid.field.as_deref(), Some("0.$replaceRoot"));
}

#[test]
fn groups_add_up() {
    check(
        &sales(),
        &[
            (
                json!([{"$group": {"_id": "$item", "total": {"$sum": {"$multiply": ["$price", "$quantity"]}}, "n": {"$count": {}}}}]),
                json!([
                    {"_id": "abc", "n": 2, "total": 120.0},
                    {"_id": "jkl", "n": 1, "total": 20},
                    {"_id": "xyz", "n": 2, "total": 150},
                ]),
            ),
            (
                json!([{"$group": {"_id": null, "Q": {"$sum": "$quantity"}, "avg": {"$avg": "$quantity"}, "min": {"$min": "$item"}, "max": {"$max": "$quantity"}}}]),
                json!([{"Q": 43, "_id": null, "avg": 8.6, "max": 20, "min": "abc"}]),
            ),
            (
                json!([{"$group": {"_id": "$price", "first": {"$first": "$item"}, "last": {"$last": "$quantity"}, "none": {"$first": "$none"}}}]),
                json!([
                    {"_id": 10, "first": "abc", "last": 10, "none": null},
                    {"_id": 20, "first": "jkl", "last": 1, "none": null},
                    {"_id": 5, "first": "xyz", "last": 20, "none": null},
                ]),
            ),
            (
                json!([{"$group": {"_id": "$none", "all": {"$push": "$price"}, "set": {"$addToSet": "$price"}, "no": {"$push": "$none"}, "avg": {"$avg": "$item"}, "sum": {"$sum": "$item"}}}]),
                json!([{"_id": null, "all": [10, 20, 5, 5, 10.0], "avg": null, "no": [], "set": [10, 20, 5], "sum": 0}]),
            ),
            (
                json!([{"$group": {"_id": {"i": "$item", "p": "$price"}}}, {"$project": {"_id.i": 1}}, {"$limit": 1}]),
                json!([{"_id": {"i": "abc"}}]),
            ),
            (
                json!([{"$sortByCount": "$price"}, {"$limit": 2}]),
                json!([{"_id": 10, "count": 2}, {"_id": 5, "count": 2}]),
            ),
            (json!([{"$match": {"item": "none"}}, {"$group": {"_id": null, "n": {"$count": {}}}}]), json!([])),
        ],
    );
}

#[test]
fn sums_of_integers_are_exact() {
    let documents =
        [json!({"n": u64::MAX}), json!({"n": i64::MIN}), json!({"n": 1}), json!({"n": 0.5}), json!({"n": "x"})];
    let sum = json!([{"$group": {"_id": null, "sum": {"$sum": "$n"}, "avg": {"$avg": "$n"}}}, {"$unset": "_id"}]);
    assert_eq!(run(&sum, &documents[..3])[0]["sum"], json!(9_223_372_036_854_775_808u64));
    assert_eq!(run(&sum, &[json!({"n": 2}), json!({"n": 4}), json!({})]), [json!({"avg": 3, "sum": 6})]);
    assert_eq!(run(&sum, &[documents[0].clone(), documents[0].clone()])[0]["sum"], json!(36_893_488_147_419_103_230.0));
    assert_eq!(run(&sum, &documents[2..]), [json!({"avg": 0.75, "sum": 1.5})]);
    let tenths = vec![json!({"n": 0.1}); 10];
    assert_eq!(run(&sum, &tenths)[0]["sum"], json!(1.0));
}

#[test]
fn buckets_are_ranges() {
    let documents = [json!({"y": 1840}), json!({"y": 1850}), json!({"y": 1849}), json!({"y": 1860}), json!({"y": "x"})];
    let bucket = |default: bool| {
        let mut bucket = json!({"groupBy": "$y", "boundaries": [1840, 1850, 1860]});
        if default {
            bucket["default"] = json!("other");
            bucket["output"] = json!({"n": {"$sum": 1}, "years": {"$push": "$y"}});
        }
        json!([{ "$bucket": bucket }])
    };
    check(&documents[..3], &[(bucket(false), json!([{"_id": 1840, "count": 2}, {"_id": 1850, "count": 1}]))]);
    let expected = json!([
        {"_id": 1840, "n": 2, "years": [1840, 1849]},
        {"_id": 1850, "n": 1, "years": [1850]},
        {"_id": "other", "n": 2, "years": [1860, "x"]},
    ]);
    check(&documents, &[(bucket(true), expected)]);
    assert!(refused(&bucket(false), &documents).message.contains("\"default\""));
}

#[test]
fn arrays_are_unwound() {
    let documents = [
        json!({"_id": "1", "s": ["S", "M"], "o": {"l": [1]}}),
        json!({"_id": "2", "s": []}),
        json!({"_id": "3", "s": "L"}),
        json!({"_id": "4", "s": null}),
        json!({"_id": "5"}),
    ];
    check(
        &documents,
        &[
            (
                json!([{"$unwind": "$s"}, {"$unset": "o"}]),
                json!([{"_id": "1", "s": "S"}, {"_id": "1", "s": "M"}, {"_id": "3", "s": "L"}]),
            ),
            (
                json!([{"$unwind": {"path": "$s", "includeArrayIndex": "i", "preserveNullAndEmptyArrays": true}}, {"$unset": "o"}]),
                json!([
                    {"_id": "1", "i": 0, "s": "S"}, {"_id": "1", "i": 1, "s": "M"}, {"_id": "2", "i": null},
                    {"_id": "3", "i": null, "s": "L"}, {"_id": "4", "i": null, "s": null}, {"_id": "5", "i": null},
                ]),
            ),
            (json!([{"$unwind": {"path": "$o.l"}}]), json!([{"_id": "1", "o": {"l": 1}, "s": ["S", "M"]}])),
            (
                json!([{"$unwind": {"path": "$o.l", "preserveNullAndEmptyArrays": true}}, {"$skip": 4}]),
                json!([{"_id": "5"}]),
            ),
            (json!([{"$unwind": "$s"}, {"$limit": 1}, {"$count": "n"}]), json!([{"n": 1}])),
        ],
    );
}

#[test]
fn documents_of_another_collection_are_joined() {
    let orders = [
        json!({"_id": "1", "item": "almonds"}),
        json!({"_id": "2", "item": ["pecans", "almonds"]}),
        json!({"_id": "3"}),
        json!({"_id": "4", "item": "none"}),
    ];
    let inventory = vec![
        json!({"_id": "a", "sku": "almonds", "n": 120}),
        json!({"_id": "b", "sku": ["pecans", "almonds"]}),
        json!({"_id": "c", "sku": null}),
        json!({"_id": "d"}),
    ];
    let collections = Collections { documents: [("inventory", inventory)].into(), ..Collections::default() };
    let lookup = json!({"$lookup": {"from": "inventory", "localField": "item", "foreignField": "sku", "as": "found"}});
    let budget = Budget::new(None, 100_000);
    let found = |pipeline: Value| execute(&pipeline, &orders, &collections, &budget).unwrap().rows;
    let rows = found(json!([lookup, {"$limit": 3}]));
    assert_eq!(
        rows[0],
        json!({"_id": "1", "found": [{"_id": "a", "n": 120, "sku": "almonds"}, {"_id": "b", "sku": ["pecans", "almonds"]}], "item": "almonds"})
    );
    assert_eq!(rows[1]["found"], rows[0]["found"]);
    assert_eq!(rows[2]["found"], json!([{"_id": "c", "sku": null}, {"_id": "d"}]));
    assert_eq!(rows.len(), 3);
    assert_eq!(collections.scans.get(), 1, "all rows share one reading");
    let by_id = json!({"$lookup": {"from": "inventory", "localField": "item", "foreignField": "_id", "as": "x.y"}});
    assert_eq!(
        found(json!([{"$project": {"item": {"$literal": "d"}}}, {"$limit": 1}, by_id])),
        [json!({"_id": "1", "item": "d", "x": {"y": [{"_id": "d"}]}})]
    );
    assert_eq!(Pipeline::parse(&json!([{"$facet": {"f": [lookup]}}])).unwrap().collections(), ["inventory"]);

    let many = (0..=LOOKUP_ROWS_MAX).map(|n| json!({"_id": n.to_string(), "item": "almonds"})).collect::<Vec<_>>();
    let scans = collections.scans.get();
    let counted = json!([lookup, {"$unwind": "$found"}, {"$count": "n"}]);
    let budget = Budget::new(None, AGGREGATE_BYTES_MAX);
    let rows = execute(&counted, &many, &collections, &budget).unwrap().rows;
    assert_eq!(rows, [json!({"n": 2 * (LOOKUP_ROWS_MAX + 1)})]);
    assert_eq!(collections.scans.get(), scans + 2);
}

#[test]
fn what_refers_through_lists_is_joined_as_in_mongodb() {
    let others = vec![
        json!({"_id": "a", "n": 1}),
        json!({"_id": "b", "n": [2, 3]}),
        json!({"_id": "c", "n": null}),
        json!({"_id": "d"}),
        json!({"_id": "e", "in": [{"n": 1}, {"n": 4}]}),
        json!({"_id": "f", "in": [{}]}),
        json!({"_id": "g", "in": []}),
    ];
    let collections = Collections { documents: [("x", others)].into(), ..Collections::default() };
    let found = |document: Value, local: &str, foreign: &str| {
        let lookup = json!([{"$lookup": {"from": "x", "localField": local, "foreignField": foreign, "as": "f"}}]);
        let rows = execute(&lookup, &[document], &collections, &Budget::new(None, 100_000)).unwrap().rows;
        rows[0]["f"]
            .as_array()
            .unwrap()
            .iter()
            .map(|found| found["_id"].as_str().unwrap().to_owned())
            .collect::<String>()
    };
    for (document, local, foreign, expected) in [
        // An empty list refers to nothing, which is what null stands for too.
        (json!({"l": []}), "l", "n", "cdefg"),
        (json!({"l": null}), "l", "n", "cdefg"),
        (json!({}), "l", "n", "cdefg"),
        (json!({"l": [1, 3]}), "l", "n", "ab"),
        (json!({"l": [[2, 3]]}), "l", "n", "b"),
        // Objects of a list that have no such field refer to nothing, unless all are so.
        (json!({"l": [{"r": 1}, {}, 5]}), "l.r", "n", "a"),
        (json!({"l": [{"r": [2]}, {"r": 1}]}), "l.r", "n", "ab"),
        (json!({"l": [{}, 5]}), "l.r", "n", "cdefg"),
        (json!({"l": 4}), "l", "in.n", "e"),
        (json!({}), "l", "in.n", "abcdf"),
    ] {
        assert_eq!(found(document.clone(), local, foreign), expected, "{document} {local} {foreign}");
    }
}

#[test]
fn what_lookup_and_unwind_set_takes_the_place_of_a_list_on_the_way() {
    let collections = Collections { documents: [("x", vec![json!({"_id": "a"})])].into(), ..Collections::default() };
    let document = json!({"_id": "1", "l": [{"k": 1}, 2], "o": {"p": 1}, "r": "a"});
    let run = |stage: Value| {
        execute(&json!([stage]), std::slice::from_ref(&document), &collections, &Budget::new(None, 100_000))
            .unwrap()
            .rows
    };
    for (to, field, expected) in [
        ("l.f", "l", json!({"f": [{"_id": "a"}]})),
        ("l.k.f", "l", json!({"k": {"f": [{"_id": "a"}]}})),
        ("o.f", "o", json!({"f": [{"_id": "a"}], "p": 1})),
        ("r.f", "r", json!({"f": [{"_id": "a"}]})),
    ] {
        let rows = run(json!({"$lookup": {"from": "x", "localField": "r", "foreignField": "_id", "as": to}}));
        assert_eq!(rows[0][field], expected, "{to}");
    }
    let rows = run(json!({"$unwind": {"path": "$o.p", "includeArrayIndex": "l.i"}}));
    assert_eq!(rows[0]["l"], json!({"i": null}));
    // A field that is computed is set in every item, as in MongoDB.
    assert_eq!(run(json!({"$set": {"l.i": 7}}))[0]["l"], json!([{"i": 7, "k": 1}, {"i": 7}]));
}

#[test]
fn null_and_missing_are_one_group_when_nothing_else_is_grouped_by() {
    let documents = [json!({"c": null, "d": 1}), json!({"d": 1}), json!({"c": 1, "d": 1})];
    let count = |id: Value| json!([{"$group": {"_id": id, "n": {"$sum": 1}}}]);
    check(
        &documents,
        &[
            (count(json!("$c")), json!([{"_id": null, "n": 2}, {"_id": 1, "n": 1}])),
            (count(json!({"g": "$c"})), json!([{"_id": {"g": null}, "n": 2}, {"_id": {"g": 1}, "n": 1}])),
            (
                count(json!({"d": "$d", "g": "$c"})),
                json!([{"_id": {"d": 1, "g": null}, "n": 1}, {"_id": {"d": 1}, "n": 1}, {"_id": {"d": 1, "g": 1}, "n": 1}]),
            ),
            (
                count(json!({"g": {"h": "$c"}})),
                json!([{"_id": {"g": {"h": null}}, "n": 1}, {"_id": {"g": {}}, "n": 1}, {"_id": {"g": {"h": 1}}, "n": 1}]),
            ),
        ],
    );
}

#[test]
fn facets_share_the_rows() {
    check(
        &sales(),
        &[(
            json!([
                {"$match": {"price": {"$lt": 20}}},
                {"$facet": {
                    "first": [{"$sort": {"quantity": -1}}, {"$limit": 1}, {"$project": {"quantity": 1}}],
                    "one": [{"$limit": 1}, {"$project": {"_id": 1}}],
                    "by": [{"$group": {"_id": "$item", "n": {"$sum": 1}}}],
                    "none": [{"$match": {"x": 1}}],
                }},
            ]),
            json!([{
                "by": [{"_id": "abc", "n": 2}, {"_id": "xyz", "n": 2}],
                "first": [{"_id": "4", "quantity": 20}],
                "none": [],
                "one": [{"_id": "1"}],
            }]),
        )],
    );
    let budget = Budget::new(None, 1_000);
    let limits = json!([{"$facet": {"a": [{"$limit": 1}], "b": [{"$limit": 2}]}}]);
    assert_eq!(execute(&limits, &sales(), &Collections::default(), &budget).unwrap().pushed, 2);
}

#[test]
fn a_stage_behind_a_limit_that_was_reached_still_has_its_say() {
    let table = [
        (
            json!([{"$sort": {"quantity": 1}}, {"$limit": 2}, {"$group": {"_id": null, "n": {"$sum": "$quantity"}}}]),
            json!([{"_id": null, "n": 3}]),
        ),
        (json!([{"$limit": 3}, {"$sort": "-_id"}, {"$limit": 1}, {"$project": {"_id": 1}}]), json!([{"_id": "3"}])),
    ];
    check(&sales(), &table);
}

#[test]
fn the_caller_may_want_no_more() {
    let pipeline = Pipeline::parse(&json!([{"$unwind": "$l"}, {"$sort": {"l": 1}}, {"$skip": 1}])).unwrap();
    let (collections, budget) = (Collections::default(), Budget::new(None, 10_000));
    let mut run = pipeline.start(&collections, &budget);
    let mut seen = 0;
    let mut out = |_: Row<'_>| {
        seen += 1;
        Ok(ControlFlow::Break(()))
    };
    let _ = with_row(&json!({"l": [3, 2, 1]}), |row| run.push(row, &mut out)).unwrap();
    run.finish(&mut out).unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn memory_and_time_are_bounded_and_the_stage_is_named() {
    let documents = (0..2_000).map(|n| json!({"_id": n.to_string(), "n": n, "t": "x".repeat(100)})).collect::<Vec<_>>();
    let table = [
        (json!([{"$sort": {"n": 1}}]), "0.$sort"),
        (json!([{"$match": {}}, {"$group": {"_id": "$n"}}]), "1.$group"),
        (json!([{"$group": {"_id": null, "all": {"$push": "$t"}}}]), "0.$group"),
        (json!([{"$group": {"_id": null, "all": {"$addToSet": "$n"}}}]), "0.$group"),
        (json!([{"$facet": {"a": []}}]), "0.$facet"),
        (json!([{"$facet": {"a": [{"$sort": "n"}]}}]), "0.$facet.a.0.$sort"),
        (json!([{"$lookup": {"from": "x", "localField": "n", "foreignField": "n", "as": "x"}}]), "0.$lookup"),
    ];
    for (pipeline, field) in table {
        let invalid = refused(&pipeline, &documents);
        assert_eq!(invalid.field.as_deref(), Some(field), "{invalid}");
        assert!(invalid.message.contains("100000 bytes"), "{invalid}");
    }
    let many = [json!({"l": vec![1; 2_000]})];
    let join = json!([{"$lookup": {"from": "x", "localField": "l", "foreignField": "n", "as": "x"}}]);
    assert_eq!(refused(&join, &many).field.as_deref(), Some("0.$lookup"));
    assert_eq!(
        run(&json!([{"$sort": {"n": -1}}, {"$project": {"n": 1, "_id": 0}}, {"$skip": 1}, {"$limit": 1}]), &documents),
        [json!({"n": 1998})]
    );

    let over = Budget::new(Some(Instant::now()), AGGREGATE_BYTES_MAX);
    let long = json!({"l": vec![1; 1_000]});
    for stages in [json!([{"$unwind": "$l"}]), json!([{"$unwind": "$l"}, {"$group": {"_id": "$l"}}])] {
        let error = execute(&stages, std::slice::from_ref(&long), &Collections::default(), &over).err().unwrap();
        assert!(error.to_string().contains("time limit"), "{error}");
    }
}

#[test]
fn what_is_no_pipeline_is_refused_with_what_would_be_right() {
    let deep = |levels: usize| (0..levels).fold(json!("$a"), |value, _| json!([value]));
    let table = [
        (json!({}), "", "a list of stages"),
        (json!([{"$limit": 1, "$skip": 1}]), "0", "one key"),
        (json!([{"$mach": {}}]), "0.$mach", "did you mean $match?"),
        (json!([{"$out": "c"}]), "0.$out", "a pipeline writes nothing"),
        (json!([{"$foo": 1}]), "0.$foo", "there are $match, "),
        (json!([{"$match": {"a": {"$gtt": 1}}}]), "0.$match.a.$gtt", "$gt"),
        (json!([{"$match": 5}]), "0.$match", ""),
        (json!([{"$limit": 0}]), "0.$limit", "from 1 on"),
        (json!([{"$skip": -1}]), "0.$skip", "from 0 on"),
        (json!([{"$sort": {"a": 1, "b": 1}}]), "0.$sort", "as a list"),
        (json!([{"$count": "$a"}]), "0.$count", "name of a new field"),
        (json!([{"$group": {"n": {"$sum": 1}}}]), "0.$group", "_id"),
        (json!([{"$group": {"_id": 1, "n": {"$total": 1}}}]), "0.$group.n", "$sum $avg"),
        (json!([{"$group": {"_id": 1, "n": {"$sum": {"$ad": 1}}}}]), "0.$group.n.$sum.$ad", "did you mean"),
        (json!([{"$group": {"_id": 1, "n": {"$count": 1}}}]), "0.$group.n.$count", "{}"),
        (json!([{"$group": {"_id": 1, "a.b": {"$sum": 1}}}]), "0.$group.a.b", "dot"),
        (json!([{"$bucket": {"groupBy": "$a", "boundaries": [1]}}]), "0.$bucket.boundaries", "two or more"),
        (json!([{"$bucket": {"groupBy": "$a", "boundaries": [1, "a"]}}]), "0.$bucket.boundaries", "one kind"),
        (json!([{"$bucket": {"groupBy": "$a", "boundaries": [1, 3], "default": 2}}]), "0.$bucket.default", "outside"),
        (json!([{"$unwind": "a"}]), "0.$unwind", "$tags"),
        (json!([{"$unwind": {"path": "$a", "includeArrayIndex": "a.b"}}]), "0.$unwind", "named twice"),
        (json!([{"$lookup": {"from": "x"}}]), "0.$lookup", "\"localField\""),
        (json!([{"$facet": {"a": [{"$facet": {}}]}}]), "0.$facet.a.0.$facet", "within another"),
        (json!([{"$sample": {"size": 1}}]), "0.$sample", "there is no stage"),
        (json!([{"$project": {}}]), "0.$project", "names no field"),
        (json!([{"$set": {"a": deep(40)}}, {"$set": {"a": deep(40)}}, {"$set": {"a": deep(48)}}]), "", "levels"),
        (json!(vec![json!({"$limit": 1}); PIPELINE_STAGES_MAX + 1]), "100", "100 stages"),
    ];
    for (pipeline, field, message) in table {
        let invalid = refused(&pipeline, &[]);
        assert_eq!(invalid.field.as_deref().unwrap_or_default(), field, "{invalid}");
        assert!(invalid.message.contains(message), "{pipeline}: {invalid}");
        let is_limit = ["levels", "100 stages"].contains(&message);
        assert_eq!(invalid.kind == crate::InvalidKind::TooLarge, is_limit, "{pipeline}");
    }
}

/// The numbers in a field, and whether all are integers.
fn numbers<'v>(rows: &'v [Value], field: &str) -> Vec<&'v serde_json::Number> {
    rows.iter().filter_map(|row| row.get(field)?.as_number()).collect()
}

proptest! {
    /// Groups against a naive grouping of parsed values.
    #[test]
    fn groups_are_those_of_a_naive_grouping(documents in proptest::collection::vec(document(), 0..14)) {
        let same = |a: &Value, b: &Value| {
            let (a, b) = (a.to_string(), b.to_string());
            crate::value::compare(Json::new(a.as_bytes()), Json::new(b.as_bytes())).is_eq()
        };
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        for document in &documents {
            let key = document.get("a").cloned().unwrap_or(Value::Null);
            match groups.iter_mut().find(|(other, _)| same(other, &key)) {
                Some((_, rows)) => rows.push(document.clone()),
                None => groups.push((key, vec![document.clone()])),
            }
        }
        let pipeline = json!([{"$group": {"_id": "$a", "n": {"$sum": 1}, "sum": {"$sum": "$b"}, "all": {"$push": "$c"}}}]);
        let found = run(&pipeline, &documents);
        prop_assert_eq!(found.len(), groups.len());
        for (found, (key, rows)) in found.iter().zip(&groups) {
            prop_assert_eq!(&found["_id"], key);
            prop_assert_eq!(&found["n"], &json!(rows.len()));
            prop_assert_eq!(&found["all"], &rows.iter().filter_map(|row| row.get("c").cloned()).collect::<Value>());
            // Halves add up exactly.
            let sum = numbers(rows, "b").iter().filter_map(|number| number.as_f64()).sum::<f64>();
            prop_assert_eq!(found["sum"].as_f64(), Some(sum + 0.0));
        }
    }

    /// Sorting, skipping and limiting in any order against the same done to a list.
    #[test]
    fn sort_skip_and_limit_are_those_of_a_list(
        documents in proptest::collection::vec(document(), 0..12),
        steps in proptest::collection::vec((0u8..4, 0usize..6), 0..6),
    ) {
        let mut expected = documents.clone();
        let mut stages = Vec::new();
        for (step, count) in steps {
            match step {
                0 => {
                    let sort = json!(if count % 2 == 0 { "a,-b" } else { "-c" });
                    expected = sorted(&Sort::parse(&sort, "").unwrap(), None, &expected);
                    stages.push(json!({ "$sort": sort }));
                }
                1 => {
                    expected.drain(..count.min(expected.len()));
                    stages.push(json!({ "$skip": count }));
                }
                2 => {
                    expected.truncate(count + 1);
                    stages.push(json!({ "$limit": count + 1 }));
                }
                _ => {
                    expected.iter_mut().for_each(|row| row["t"] = json!(1));
                    stages.push(json!({"$set": {"t": 1}}));
                }
            }
        }
        prop_assert_eq!(run(&json!(stages), &documents), expected);
    }

    #[test]
    fn garbage_is_survived(text in proptest::collection::vec(proptest::sample::select(b"{}[]\",:\\a1-.e".to_vec()), 0..40)) {
        let pipeline = json!([
            {"$match": {"a": {"$ne": 7}}}, {"$project": {"a": 1, "b.c": "$a.1", "e": {"$slice": 1}}}, {"$unwind": {"path": "$a", "preserveNullAndEmptyArrays": true}},
            {"$lookup": {"from": "x", "localField": "a", "foreignField": "a", "as": "l"}}, {"$sort": "a,-e"},
            {"$facet": {"g": [{"$group": {"_id": "$a", "n": {"$addToSet": "$$ROOT"}}}], "s": []}},
        ]);
        let pipeline = Pipeline::parse(&pipeline).unwrap();
        let (collections, budget) = (Collections::default(), Budget::new(None, 1 << 20));
        let mut run = pipeline.start(&collections, &budget);
        let mut out = |_: Row<'_>| Ok(ControlFlow::Continue(()));
        let _ = run.push(Row { id: None, body: Json::new(&text), conflicts: 0 }, &mut out);
        let _ = run.finish(&mut out);
    }

    #[test]
    fn any_value_is_read_or_refused(value in super::super::sort::tests::value(), name in proptest::sample::select(vec!["$match", "$project", "$set", "$unset", "$limit", "$sort", "$group", "$bucket", "$unwind", "$lookup", "$facet"])) {
        let _ = Pipeline::parse(&json!([{ name: value }]));
    }
}
