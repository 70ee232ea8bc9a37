//! What is a patch and what is not.

use serde_json::{Value, json};

use super::*;
use crate::limits::{DOCUMENT_DEPTH_MAX, PATCH_CONDITIONS_MAX};

fn refused(parsed: Result<Patch, Error>, field: Option<&str>, part: &str) {
    let Err(Error::Invalid(invalid)) = parsed else { panic!("{part}: {parsed:?}") };
    assert!(invalid.message.contains(part), "{part}: {}", invalid.message);
    assert_eq!((invalid.field.as_deref(), invalid.kind), (field, InvalidKind::Meaning), "{part}");
}

#[test]
fn operators_are_refused_with_what_would_be_right() {
    for (body, field, part) in [
        (json!([]), None, "update operators are an object"),
        (json!({"name": "Ada"}), None, "merge-patch+json"),
        (json!({"$set": {"a": 1}, "b": 2}), None, "\"b\" is no update operator"),
        (json!({"$st": {"a": 1}}), None, "did you mean $set?"),
        (json!({"$addToset": {"a": 1}}), None, "did you mean $addToSet?"),
        (json!({"$set": 1}), None, "takes an object of paths"),
        (json!({"$set": {"": 1}}), Some(""), "one dot between"),
        (json!({"$set": {"a..b": 1}}), Some("a..b"), "one dot between"),
        (json!({"$set": {"a.$": 1}}), Some("a.$"), "not supported"),
        (json!({"$set": {"_id": 1}}), Some("_id"), "cannot be changed"),
        (json!({"$unset": {"_id.x": 1}}), Some("_id.x"), "cannot be changed"),
        (json!({"$inc": {"a.b": "1"}}), Some("a.b"), "takes a number"),
        (json!({"$mul": {"a": null}}), Some("a"), "takes a number"),
        (json!({"$pop": {"a": 2}}), Some("a"), "1 for the last"),
        (json!({"$rename": {"a": 2}}), Some("a"), "as a string"),
        (json!({"$rename": {"a": "_id"}}), Some("_id"), "cannot be changed"),
        (json!({"$currentDate": {"a": {"$type": "timestamp"}}}), Some("a"), "takes true"),
        (json!({"$push": {"a": {"$each": 1}}}), Some("a"), "needs $each"),
        (json!({"$push": {"a": {"$slice": 1}}}), Some("a"), "needs $each"),
        (json!({"$push": {"a": {"$each": [], "$slice": 1.5}}}), Some("a"), "whole number"),
        (json!({"$push": {"a": {"$each": [], "$sort": 1}}}), Some("a"), "$sort is not supported"),
        (json!({"$push": {"a": {"$each": [], "$posision": 1}}}), Some("a"), "did you mean $position?"),
        (json!({"$addToSet": {"a": {"$each": [], "$slice": 1}}}), Some("a"), "knows no \"$slice\""),
        (json!({"$pull": {"a": {}}}), Some("a"), "says nothing"),
        (json!({"$pull": {"a": {"$gtr": 1}}}), Some("a.$gtr"), "did you mean $gt"),
        (json!({"$pull": {"a": {"$in": 1}}}), Some("a.$in"), "takes a list"),
        (json!({"$pull": {"a": {"$gt": 1, "b": 2}}}), Some("a.b"), "mixed"),
        (json!({"$pull": {"a": {"b": {"$regex": "("}}}}), Some("a.b.$regex"), "cannot be read"),
        (json!({"$pull": {"a": {"$or": [{"$expr": true}]}}}), Some("a.$or.0.$expr"), "cannot be asked of an item"),
        (json!({"$pull": {"a": {"$text": {"$search": "x"}}}}), Some("a.$text"), "top level"),
        (json!({"$pull": {"a": {"$near": {"lat": 0, "lng": 0}}}}), Some("a.$near"), "top level"),
        (json!({"$text": {"a": {"insert": "x"}}}), Some("a"), "takes {\"position\""),
        (json!({"$text": {"a": {"position": -1}}}), Some("a"), "number of characters"),
        (json!({"$text": {"a": {"position": 1, "delete": 0.5}}}), Some("a"), "number of characters"),
        (json!({"$text": {"a": {"position": 1, "text": "x"}}}), Some("a"), "takes {\"position\""),
        (json!({"$set": {"a": 1}, "$inc": {"a": 1}}), Some("a"), "conflicts with \"a\""),
        (json!({"$set": {"a.b": 1, "a-c": 2}, "$inc": {"a": 1}}), Some("a.b"), "conflicts with \"a\""),
        (json!({"$rename": {"a": "b"}, "$set": {"b.c": 1}}), Some("b.c"), "conflicts with \"b\""),
        (json!({"$rename": {"a": "a"}}), Some("a"), "conflicts"),
    ] {
        refused(Patch::operators(body), field, part);
    }
    let names: Vec<String> = (0..=PATCH_CONDITIONS_MAX).map(|number| format!("f{number}")).collect();
    let many: Value = names.iter().map(|name| (name.clone(), Value::Null)).collect::<Object>().into();
    let Err(Error::Invalid(invalid)) = Patch::operators(json!({"$pull": {"a": many}})) else { panic!("it was taken") };
    assert_eq!((invalid.field.as_deref(), invalid.kind), (Some("a"), InvalidKind::TooLarge));
    for whole in
        [json!({"$pop": {"a": -1.0}}), json!({"$push": {"a": {"$each": [], "$slice": 2.0, "$position": -1.0}}})]
    {
        assert!(Patch::operators(whole).is_ok(), "a number without a fraction is a whole one");
    }
    let deep = vec!["a"; DOCUMENT_DEPTH_MAX + 1].join(".");
    refused(Patch::operators(json!({"$set": {&deep: 1}})), Some(&deep), "levels");
    let deepest = vec!["a"; DOCUMENT_DEPTH_MAX].join(".");
    assert!(Patch::operators(json!({"$set": {&deepest: 1}})).is_ok());
    refused(Patch::operators(json!({"$set": {&deepest: {}}})), Some(&deepest), "nested too deeply");
    refused(
        Patch::operators(json!({"$push": {&deepest: 1}, "$set": {"b": 1}})).and(Patch::merge(json!(1))),
        None,
        "is an object",
    );
}

#[test]
fn json_patches_are_refused_with_their_place() {
    for (body, field, part) in [
        (json!({}), None, "is a list of operations"),
        (json!([1]), None, "operation 1"),
        (json!([{"op": "remove"}]), None, "has no \"path\""),
        (json!([{"op": "test", "path": ""}]), None, "has no \"value\""),
        (json!([{"op": "test", "path": "", "value": {}}, {"op": "copy", "path": "/a"}]), None, "operation 2"),
        (json!([{"op": "delete", "path": "/a"}]), None, "is unknown"),
        (json!([{"op": 1, "path": "/a"}]), None, "takes a string"),
        (json!([{"op": "remove", "path": "a"}]), Some("a"), "starts with /"),
        (json!([{"op": "remove", "path": "/a~2"}]), Some("/a~2"), "no other ~"),
        (json!([{"op": "remove", "path": "/a~"}]), Some("/a~"), "no other ~"),
        (json!([{"op": "remove", "path": ""}]), Some(""), "delete it instead"),
        (json!([{"op": "add", "path": "", "value": 1}]), Some(""), "a document is an object"),
        (json!([{"op": "add", "path": "/_id", "value": 1}]), Some("/_id"), "cannot be changed"),
        (json!([{"op": "move", "from": "/a", "path": "/a/b"}]), Some("/a/b"), "into itself"),
        (json!([{"op": "move", "from": "", "path": "/a"}]), Some("/a"), "into itself"),
    ] {
        refused(Patch::json_patch(body), field, part);
    }
    let step = json!({"op": "test", "path": "", "value": 1});
    let Err(Error::Invalid(invalid)) = Patch::json_patch(vec![step; PATCH_OPERATIONS_MAX + 1].into()) else {
        panic!("it was taken")
    };
    assert_eq!(invalid.kind, InvalidKind::TooLarge);
}

#[test]
fn pointers_are_unescaped() {
    let names = |text: &str| Path::pointer(text).unwrap().names().to_vec();
    assert!(names("").is_empty());
    for (text, expected) in [("/", vec![""]), ("/a~1b/~0~01/0/", vec!["a/b", "~~1", "0", ""]), ("/~1~0", vec!["/~"])] {
        assert_eq!(names(text), expected, "{text}");
    }
}

#[test]
fn a_merge_patch_is_an_object_without_an_id() {
    refused(Patch::merge(json!([1])), None, "is an object");
    refused(Patch::merge(json!({"_id": "x"})), Some("_id"), "leave it out");
    assert!(Patch::merge(json!({"a": {"_id": 1}})).is_ok());
}

#[test]
fn numbers_are_equal_by_value() {
    for (a, b, is_equal) in [
        (json!(1), json!(1.0), true),
        (json!(-0.0), json!(0), true),
        (json!(u64::MAX), json!(18_446_744_073_709_551_616.0), false),
        (json!(i64::MIN), json!(-9_223_372_036_854_775_808.0), true),
        (json!(9_007_199_254_740_993u64), json!(9_007_199_254_740_992.0), false),
        (json!([1.0, {"a": 2.0}]), json!([1, {"a": 2}]), true),
        (json!(1), json!("1"), false),
    ] {
        assert_eq!(canonical(&a) == canonical(&b), is_equal, "{a} {b}");
    }
}
