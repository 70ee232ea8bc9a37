//! What is refused, where it is said to be, and that nothing panics.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{json as read, matches, parse};
use crate::error::{Error, Invalid, InvalidKind};
use crate::filter::Filter;
use crate::limits::*;

fn refusal(filter: &Value) -> Invalid {
    match Filter::parse(filter) {
        Err(Error::Invalid(invalid)) => invalid,
        other => panic!("{filter:.200}: {other:?}"),
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (filter, field, part) in [
        (r#"5"#, "", "a filter is an object"),
        (r#"{"age":{"$gte":18,"$lte2":3}}"#, "age.$lte2", "did you mean $lte?"),
        (r#"{"$adn":[{}]}"#, "$adn", "did you mean $and?"),
        (r#"{"$and":[{"a":1},{"age":{"$gtee":1}}]}"#, "$and.1.age.$gtee", "did you mean $gte?"),
        (r#"{"$gt":5}"#, "$gt", "stands under a field"),
        (r#"{"$not":{"a":1}}"#, "$not", "$nor"),
        (r#"{"$and":[]}"#, "$and", "one or more"),
        (r#"{"$or":{"a":1}}"#, "$or", "one or more"),
        (r#"{"$or":[1]}"#, "$or.0", "a filter is an object"),
        (r#"{"a":{"$gt":1,"b":2}}"#, "a.b", "mixed"),
        (r#"{"a":{"$date":"2020-01-01"}}"#, "a.$date", "RFC 3339"),
        (r#"{"a":{"$gt":5,"$oid":"5f"}}"#, "a.$oid", "as strings"),
        (r#"{"a":{"$numberLong":"5"}}"#, "a.$numberLong", "plain JSON"),
        (r#"{"a":{"$bytes":"AQ=="}}"#, "a.$bytes", "$eq"),
        (r#"{"$where":"1"}"#, "$where", "JavaScript"),
        (r#"{"a":{"$geoWithin":{}}}"#, "a.$geoWithin", "$within"),
        (r#"{"a":{"$nearSphere":{}}}"#, "a.$nearSphere", "$near"),
        (r#"{"a":{"$in":5}}"#, "a.$in", "a list of values"),
        (r#"{"a":{"$in":["x",{"$regex":"^a"}]}}"#, "a.$in.1", "$or"),
        (r#"{"a":{"$nin":[{"$gt":1}]}}"#, "a.$nin.0", "not operators"),
        (r#"{"a":{"$not":5}}"#, "a.$not", "$ne"),
        (r#"{"a":{"$not":{}}}"#, "a.$not", "takes operators"),
        (r#"{"a":{"$exists":"yes"}}"#, "a.$exists", "true or false"),
        (r#"{"a":{"$type":"strin"}}"#, "a.$type", "did you mean string?"),
        (r#"{"a":{"$type":["string",9]}}"#, "a.$type.1", "JSON has no type 9"),
        (r#"{"a":{"$type":[]}}"#, "a.$type", "one type or more"),
        (r#"{"a":{"$type":null}}"#, "a.$type", "the name of a type"),
        (r#"{"a":{"$regex":5}}"#, "a.$regex", "a string"),
        (r#"{"a":{"$regex":"(a"}}"#, "a.$regex", "unclosed group"),
        (r#"{"a":{"$regex":"(?=a)"}}"#, "a.$regex", "no expression can take long"),
        (r#"{"a":{"$regex":"a","$options":"g"}}"#, "a.$regex", "i, m, s and x"),
        (r#"{"a":{"$options":"i"}}"#, "a.$options", "beside a $regex"),
        (r#"{"a":{"$mod":[4]}}"#, "a.$mod", "two numbers"),
        (r#"{"a":{"$mod":[0,1]}}"#, "a.$mod.0", "divided by 0"),
        (r#"{"a":{"$mod":[0.5,1]}}"#, "a.$mod.0", "divided by 0"),
        (r#"{"a":{"$mod":[4,"x"]}}"#, "a.$mod.1", "64 bits"),
        (r#"{"a":{"$mod":[1e300,1]}}"#, "a.$mod.0", "64 bits"),
        (r#"{"a":{"$all":5}}"#, "a.$all", "a list"),
        (r#"{"a":{"$all":[1,{"$elemMatch":{"b":1}}]}}"#, "a.$all", "not both"),
        (r#"{"a":{"$all":[{"$gt":1}]}}"#, "a.$all.0", "$elemMatch"),
        (r#"{"a":{"$size":-1}}"#, "a.$size", "whole number"),
        (r#"{"a":{"$size":1.5}}"#, "a.$size", "whole number"),
        (r#"{"a":{"$elemMatch":5}}"#, "a.$elemMatch", "object"),
        (r#"{"a":{"$elemMatch":{"b":{"$gte2":1}}}}"#, "a.$elemMatch.b.$gte2", "$gte"),
        (r#"{"a":{"$elemMatch":{"$gt":1,"b":2}}}"#, "a.$elemMatch.b", "mixed"),
        (r#"{"a..b":1}"#, "a..b", "empty part"),
        (r#"{"":1}"#, "", "empty part"),
        (r#"{"$text":"words"}"#, "$text", "$search"),
        (r#"{"$text":{"$search":"a","$language":"de"}}"#, "$text.$language", "not stemmed"),
        (r#"{"$text":{"$search":"-a"}}"#, "$text.$search", "no word to look for"),
        (r#"{"$or":[{"$text":{"$search":"a"}}]}"#, "$or.0.$text", "top level"),
        (r#"{"$and":[{"$text":{"$search":"a"}},{"$text":{"$search":"b"}}]}"#, "$and.1.$text", "once"),
        (r#"{"a":{"$elemMatch":{"$text":{"$search":"a"}}}}"#, "a.$elemMatch.$text", "top level"),
        (r#"{"$expr":{"$gtt":["$a",1]}}"#, "$expr.$gtt", "$gt"),
        (r#"{"a":{"$elemMatch":{"$expr":"$a"}}}"#, "a.$elemMatch.$expr", "whole document"),
        (r#"{"a":{"$not":{"$near":{"lat":0,"lng":0}}}}"#, "a.$not.$near", "use $within"),
        (r#"{"a":{"$near":{"lat":0,"lng":0}},"b":{"$near":{"lat":0,"lng":0}}}"#, "b.$near", "once"),
        (r#"{"a":{"$near":{"lat":95,"lng":0}}}"#, "a.$near", "-90 to 90"),
        (r#"{"a":{"$near":{"lat":5,"lng":0,"max_distance":5}}}"#, "a.$near.max_distance", "max_distance_m"),
        (r#"{"a":{"$near":{"lat":5,"lng":0,"max_distance_m":-5}}}"#, "a.$near.max_distance_m", "metres"),
        (
            r#"{"a":{"$near":{"lat":5,"lng":0,"max_distance_m":5,"min_distance_m":6}}}"#,
            "a.$near",
            "nothing would match",
        ),
        (r#"{"a":{"$within":{"cirle":{}}}}"#, "a.$within.cirle", "circle"),
        (r#"{"a":{"$within":{}}}"#, "a.$within", "one of"),
        (r#"{"a":{"$within":{"circle":{"lat":0,"lng":0}}}}"#, "a.$within.circle.radius_m", "metres"),
        (
            r#"{"a":{"$within":{"box":{"south":5,"west":0,"north":0,"east":1}}}}"#,
            "a.$within.box",
            "south is above north",
        ),
        (r#"{"a":{"$within":{"polygon":[[0,0],[0,1]]}}}"#, "a.$within.polygon", "three corners"),
        (r#"{"a":{"$within":{"polygon":[[0,0],[0,1],[1]]}}}"#, "a.$within.polygon.2", "[lat, lng]"),
        (r#"{"a":{"$within":{"polygon":[[0,-179],[0,179],[1,0]]}}}"#, "a.$within.polygon", "antimeridian"),
    ] {
        let invalid = refusal(&read(filter));
        assert_eq!(invalid.field.as_deref().unwrap_or_default(), field, "{filter}: {invalid}");
        assert!(invalid.message.contains(part), "{filter}: {invalid}");
        assert_eq!(invalid.kind, InvalidKind::Meaning);
    }
}

/// More than any of the limits, and few enough for what makes and drops them by recursion.
const LEVELS: usize = 2 * DOCUMENT_DEPTH_MAX;

fn nested(levels: usize, around: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(json!({"a": 1}), |inner, _| around(inner))
}

#[test]
fn what_is_too_large_is_refused() {
    let many = |count: usize| (0..count).map(|n| json!({"a": n})).collect::<Value>();
    let operators =
        |levels: usize, name: &str| json!({"a": (0..levels).fold(json!({"$eq": 1}), |inner, _| json!({name: inner}))});
    let deep_value = json!({"a": {"$eq": (0..LEVELS).fold(json!(1), |inner, _| json!([inner]))}});
    for filter in [
        nested(LEVELS, |inner| json!({"$and": [inner]})),
        nested(LEVELS, |inner| json!({"$or": [inner]})),
        nested(LEVELS, |inner| json!({"$nor": [inner]})),
        nested(LEVELS, |inner| json!({"a": {"$elemMatch": inner}})),
        nested(LEVELS, |inner| json!({"a": {"$all": [{"$elemMatch": inner}]}})),
        operators(LEVELS, "$not"),
        operators(LEVELS, "$elemMatch"),
        deep_value,
        json!({"$or": many(FILTER_CONDITIONS_MAX + 1)}),
        json!({"a": {"$in": many(FILTER_VALUES_MAX + 1)}}),
        json!({"$or": [{"a": {"$in": many(FILTER_VALUES_MAX)}}, {"b": {"$all": [1]}}]}),
        json!({"a": {"$regex": "a".repeat(REGEX_BYTES_MAX + 1)}}),
        json!({"a": {"$regex": "\\w{1000}"}}),
        json!({"a": {"$regex": "((a{100}){100}){100}"}}),
        json!({"$or": (0..=FILTER_REGEXES_MAX).map(|_| json!({"a": {"$regex": "a"}})).collect::<Value>()}),
        json!({"$or": vec![json!({"$expr": "$a"}); FILTER_EXPRESSIONS_MAX + 1]}),
        json!({"$text": {"$search": "a ".repeat(SEARCH_BYTES_MAX)}}),
        json!({"a": {"$within": {"polygon": vec![json!([0, 0]); POLYGON_POINTS_MAX + 1]}}}),
    ] {
        let invalid = refusal(&filter);
        assert_eq!(invalid.kind, InvalidKind::TooLarge, "{invalid}");
        assert!(invalid.field.is_some() && invalid.message.len() < 400, "{invalid}");
    }
    assert!(Filter::parse(&nested(FILTER_DEPTH_MAX, |inner| json!({"$or": [inner, {}]}))).is_ok());
    assert!(Filter::parse(&json!({"$or": many(FILTER_CONDITIONS_MAX)})).is_ok());
    assert!(Filter::parse(&json!({"a": {"$in": many(FILTER_VALUES_MAX)}})).is_ok());
}

#[test]
fn the_canonical_form_is_short_and_one() {
    for (filter, canonical) in [
        ("{}", "{}"),
        (r#"{"$comment":"x"}"#, "{}"),
        (r#"{"$and":[{}]}"#, "{}"),
        (r#"{"b":1,"a":{"$gt":2}}"#, r#"{"a":{"$gt":2},"b":{"$eq":1}}"#),
        (r#"{"$and":[{"a":{"$lt":5}},{"a":{"$gt":2}}]}"#, r#"{"a":{"$gt":2,"$lt":5}}"#),
        (r#"{"$and":[{"a":1},{"a":2}]}"#, r#"{"$and":[{"a":{"$eq":1}},{"a":{"$eq":2}}]}"#),
        (r#"{"$or":[{"a":1}]}"#, r#"{"a":{"$eq":1}}"#),
        (r#"{"a":{"$in":[2,1,2,1.0]}}"#, r#"{"a":{"$in":[1,2]}}"#),
        (r#"{"a":{"$not":{"$eq":1}}}"#, r#"{"a":{"$ne":1}}"#),
        (r#"{"a":{"$type":[2,"int","string"]}}"#, r#"{"a":{"$type":["string","int"]}}"#),
        (r#"{"a":{"$regex":"a","$options":"si"}}"#, r#"{"a":{"$options":"is","$regex":"a"}}"#),
        (r#"{"$nor":[{"a":1},{"b":2}]}"#, r#"{"$nor":[{"a":{"$eq":1}},{"b":{"$eq":2}}]}"#),
    ] {
        assert_eq!(parse(filter).to_string(), canonical, "{filter}");
        assert_eq!(parse(filter), parse(canonical));
    }
    assert!(parse(r#"{"$and":[{},{"$comment":"x"}]}"#).is_everything());
    assert!(!parse(r#"{"a":1}"#).is_everything());
    let filter = parse(r#"{"b.c":{"$gt":1,"$lt":3},"$or":[{"a":1},{"b.c":2}],"d":{"$elemMatch":{"e":1}}}"#);
    assert_eq!(filter.paths().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b.c", "d"]);
}

#[test]
fn a_prefix_is_what_every_match_starts_with() {
    for (pattern, prefix) in [
        ("^abc", "abc"),
        ("^abc.*", "abc"),
        ("^abc*", "ab"),
        ("^é?", ""),
        ("^ab{0,2}", "a"),
        ("^ab+", "ab"),
        ("^a|b", ""),
        ("abc", ""),
        ("^a\\.b", "a"),
        ("^(ab)", ""),
        ("^", ""),
    ] {
        let filter = parse(&json!({"a": {"$regex": pattern}}).to_string());
        let super::super::Condition::Field { test: super::super::Test::Matches(regex), .. } = &filter.condition else {
            panic!("{filter}");
        };
        assert_eq!(regex.prefix(), prefix, "{pattern}");
    }
}

/// Filters with the right words in the wrong places.
fn garbage() -> impl Strategy<Value = Value> {
    let words = [
        "$and",
        "$or",
        "$nor",
        "$not",
        "$eq",
        "$gt",
        "$in",
        "$nin",
        "$all",
        "$size",
        "$mod",
        "$type",
        "$exists",
        "$regex",
        "$options",
        "$elemMatch",
        "$near",
        "$within",
        "$text",
        "$search",
        "$expr",
        "$comment",
        "circle",
        "box",
        "polygon",
        "lat",
        "lng",
        "radius_m",
        "a",
        "a.b",
        "",
        "a..",
        "$",
        "_id",
        "0",
    ];
    let key = proptest::sample::select(words.to_vec()).prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        proptest::sample::select(vec!["string", "^a", "(", "i", "\u{e9}", "a -b \"c"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 24, 4, move |inner| {
        prop_oneof![
            1 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            3 => proptest::collection::btree_map(key.clone(), inner, 0..3).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn garbage_is_survived(filter in garbage(), document in garbage()) {
        match Filter::parse(&filter) {
            Ok(parsed) => {
                matches(&parsed, &document);
                prop_assert_eq!(Filter::parse(&parsed.to_json()).unwrap(), parsed);
            }
            Err(Error::Invalid(invalid)) => prop_assert!(!invalid.message.is_empty()),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
