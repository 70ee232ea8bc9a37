//! Cases after the pages of MongoDB's manual on query operators, on arrays, on embedded documents and on null.

use super::{json, matches, parse};

fn check(cases: &[(&str, &str, bool)]) {
    for (filter, document, expected) in cases {
        assert_eq!(matches(&parse(filter), &json(document)), *expected, "{filter} on {document}");
    }
}

#[test]
fn equality() {
    check(&[
        ("{}", "{}", true),
        ("{}", r#"{"a":1}"#, true),
        (r#"{"status":"D"}"#, r#"{"status":"D"}"#, true),
        (r#"{"status":"D"}"#, r#"{"status":"d"}"#, false),
        (r#"{"status":"D"}"#, "{}", false),
        (r#"{"qty":{"$eq":20}}"#, r#"{"qty":20}"#, true),
        (r#"{"qty":20}"#, r#"{"qty":20.0}"#, true),
        (r#"{"qty":20}"#, r#"{"qty":"20"}"#, false),
        (r#"{"qty":0}"#, r#"{"qty":-0.0}"#, true),
        (r#"{"qty":0}"#, r#"{"qty":false}"#, false),
        (r#"{"n":9007199254740993}"#, r#"{"n":9007199254740992}"#, false),
        (r#"{"n":9007199254740993}"#, r#"{"n":9007199254740992.0}"#, false),
        (r#"{"n":18446744073709551615}"#, r#"{"n":18446744073709551615}"#, true),
        (r#"{"item.name":"ab"}"#, r#"{"item":{"name":"ab","code":"123"}}"#, true),
        (r#"{"item.name":"ab"}"#, r#"{"item":"ab"}"#, false),
        (r#"{"size":{"h":14,"w":21}}"#, r#"{"size":{"h":14,"w":21}}"#, true),
        // Here the order of keys says nothing.
        (r#"{"size":{"w":21,"h":14}}"#, r#"{"size":{"h":14,"w":21}}"#, true),
        (r#"{"size":{"h":14}}"#, r#"{"size":{"h":14,"w":21}}"#, false),
        (r#"{"size":{}}"#, r#"{"size":{}}"#, true),
        (r#"{"size":{}}"#, r#"{"size":{"h":1}}"#, false),
        (r#"{"a":{"$eq":{"$gt":1}}}"#, r#"{"a":{"$gt":1}}"#, true),
        (r#"{"name":"caf\u00e9"}"#, r#"{"name":"café"}"#, true),
        (r#"{"name":"a\"b"}"#, r#"{"name":"a\"b"}"#, true),
        (r#"{"_id":"x"}"#, r#"{"_id":"x"}"#, true),
        (r#"{"_id":"x"}"#, r#"{"_id":"y"}"#, false),
        (r#"{"_id":{"$gte":"b"}}"#, r#"{"_id":"c"}"#, true),
        (r#"{"_id":{"$in":["a","c"]}}"#, r#"{"_id":"c"}"#, true),
        (r#"{"$comment":"why","a":1}"#, r#"{"a":1}"#, true),
    ]);
}

#[test]
fn arrays() {
    check(&[
        (r#"{"tags":["red","blank"]}"#, r#"{"tags":["red","blank"]}"#, true),
        (r#"{"tags":["red","blank"]}"#, r#"{"tags":["blank","red"]}"#, false),
        (r#"{"tags":["red","blank"]}"#, r#"{"tags":["red","blank","plain"]}"#, false),
        (r#"{"tags":["A","B"]}"#, r#"{"tags":[["A","B"],"C"]}"#, true),
        (r#"{"tags":[]}"#, r#"{"tags":[]}"#, true),
        (r#"{"tags":[]}"#, r#"{"tags":[[]]}"#, true),
        (r#"{"tags":[]}"#, r#"{"tags":["a"]}"#, false),
        (r#"{"tags":"red"}"#, r#"{"tags":["blank","red"]}"#, true),
        (r#"{"tags":"red"}"#, r#"{"tags":[["red"]]}"#, false),
        (r#"{"a.0":7}"#, r#"{"a":[7,8]}"#, true),
        (r#"{"a.0":7}"#, r#"{"a":[[7,8]]}"#, false),
        (r#"{"a.0":[7,8]}"#, r#"{"a":[[7,8]]}"#, true),
        (r#"{"a.0":{"$gt":6}}"#, r#"{"a":[[7,8]]}"#, false),
        (r#"{"a.0":{"$size":2}}"#, r#"{"a":[[7,8]]}"#, true),
        (r#"{"a.0":{"$elemMatch":{"$gt":7}}}"#, r#"{"a":[[7,8]]}"#, true),
        (r#"{"a.0.1":8}"#, r#"{"a":[[7,8]]}"#, true),
        (r#"{"a.0":7}"#, r#"{"a":[{"0":[7,8]}]}"#, true),
        (r#"{"a.0.b":7}"#, r#"{"a":[{"b":[7,8]}]}"#, true),
        (r#"{"dim_cm":{"$gt":25}}"#, r#"{"dim_cm":[14,30]}"#, true),
        (r#"{"dim_cm":{"$gt":25}}"#, r#"{"dim_cm":[14,21]}"#, false),
        // One item passes the first, another the second.
        (r#"{"dim_cm":{"$gt":15,"$lt":20}}"#, r#"{"dim_cm":[14,21]}"#, true),
        (r#"{"dim_cm":{"$elemMatch":{"$gt":22,"$lt":30}}}"#, r#"{"dim_cm":[14,35]}"#, false),
        (r#"{"dim_cm":{"$elemMatch":{"$gt":22,"$lt":30}}}"#, r#"{"dim_cm":[14,25]}"#, true),
        (r#"{"dim_cm.1":{"$gt":25}}"#, r#"{"dim_cm":[22,30]}"#, true),
        (r#"{"dim_cm.1":{"$gt":25}}"#, r#"{"dim_cm":[30,22]}"#, false),
        (r#"{"dim_cm.5":{"$exists":false}}"#, r#"{"dim_cm":[30,22]}"#, true),
        (r#"{"instock.qty":{"$lte":20}}"#, r#"{"instock":[{"qty":5},{"qty":40}]}"#, true),
        (r#"{"instock.qty":{"$lte":20}}"#, r#"{"instock":[{"qty":60},{"qty":40}]}"#, false),
        (r#"{"instock.0.qty":{"$lte":20}}"#, r#"{"instock":[{"qty":60},{"qty":5}]}"#, false),
        (r#"{"instock":{"qty":5,"warehouse":"A"}}"#, r#"{"instock":[{"warehouse":"A","qty":5}]}"#, true),
        (
            r#"{"instock":{"$elemMatch":{"qty":5,"warehouse":"A"}}}"#,
            r#"{"instock":[{"qty":5,"warehouse":"B"},{"qty":6,"warehouse":"A"}]}"#,
            false,
        ),
        (
            r#"{"instock.qty":5,"instock.warehouse":"A"}"#,
            r#"{"instock":[{"qty":5,"warehouse":"B"},{"qty":6,"warehouse":"A"}]}"#,
            true,
        ),
        (r#"{"instock":{"$elemMatch":{"qty":{"$gt":10,"$lte":20}}}}"#, r#"{"instock":[{"qty":5},{"qty":20}]}"#, true),
        (r#"{"a.b.c":3}"#, r#"{"a":[{"b":[{"c":1},{"c":3}]}]}"#, true),
        (r#"{"tags":{"$size":2}}"#, r#"{"tags":["a","b"]}"#, true),
        (r#"{"tags":{"$size":2}}"#, r#"{"tags":["a"]}"#, false),
        (r#"{"tags":{"$size":1}}"#, r#"{"tags":"a"}"#, false),
        (r#"{"tags":{"$size":2}}"#, r#"{"tags":[["a","b"]]}"#, false),
        (r#"{"tags":{"$size":0}}"#, r#"{"tags":[]}"#, true),
        (r#"{"tags":{"$size":0}}"#, "{}", false),
        (r#"{"tags":{"$size":2.0}}"#, r#"{"tags":[1,2]}"#, true),
    ]);
}

#[test]
fn null_and_missing() {
    check(&[
        (r#"{"item":null}"#, r#"{"item":null}"#, true),
        (r#"{"item":null}"#, "{}", true),
        (r#"{"item":null}"#, r#"{"item":0}"#, false),
        (r#"{"item":null}"#, r#"{"item":[]}"#, false),
        (r#"{"item":null}"#, r#"{"item":[null]}"#, true),
        (r#"{"item":{"$ne":null}}"#, r#"{"item":1}"#, true),
        (r#"{"item":{"$ne":null}}"#, "{}", false),
        (r#"{"item":{"$ne":null}}"#, r#"{"item":[1,null]}"#, false),
        (r#"{"item":{"$type":10}}"#, r#"{"item":null}"#, true),
        (r#"{"item":{"$type":"null"}}"#, "{}", false),
        (r#"{"item":{"$exists":false}}"#, "{}", true),
        (r#"{"item":{"$exists":false}}"#, r#"{"item":null}"#, false),
        (r#"{"item":{"$exists":true}}"#, r#"{"item":null}"#, true),
        (r#"{"item":{"$exists":true}}"#, r#"{"item":[]}"#, true),
        (r#"{"item":{"$exists":1}}"#, "{}", false),
        (r#"{"item":{"$exists":0}}"#, "{}", true),
        (r#"{"a.b":null}"#, r#"{"a":{}}"#, true),
        (r#"{"a.b":null}"#, r#"{"a":5}"#, true),
        (r#"{"a.b":null}"#, r#"{"a":[{"b":1},{}]}"#, true),
        (r#"{"a.b":null}"#, r#"{"a":[{"b":1}]}"#, false),
        (r#"{"a.b":null}"#, r#"{"a":[]}"#, false),
        (r#"{"a.b":{"$exists":false}}"#, r#"{"a":[{"b":1},{}]}"#, false),
        (r#"{"a.b":{"$exists":false}}"#, r#"{"a":[]}"#, true),
        (r#"{"item":{"$gt":null}}"#, r#"{"item":1}"#, false),
        (r#"{"item":{"$gt":null}}"#, r#"{"item":null}"#, false),
        (r#"{"item":{"$lt":null}}"#, "{}", false),
        (r#"{"item":{"$gte":null}}"#, r#"{"item":null}"#, true),
        (r#"{"item":{"$gte":null}}"#, "{}", true),
        (r#"{"item":{"$lte":null}}"#, "{}", true),
        (r#"{"item":{"$lte":null}}"#, r#"{"item":0}"#, false),
        (r#"{"item":{"$in":[null,5]}}"#, "{}", true),
        (r#"{"item":{"$in":[null,5]}}"#, r#"{"item":5}"#, true),
        (r#"{"item":{"$in":[null,5]}}"#, r#"{"item":4}"#, false),
        (r#"{"item":{"$nin":[null]}}"#, "{}", false),
        (r#"{"item":{"$nin":[5]}}"#, "{}", true),
        (r#"{"item":{"$not":{"$gt":5}}}"#, "{}", true),
        (r#"{"item":{"$lt":5}}"#, "{}", false),
        (r#"{"item":{"$lt":5}}"#, r#"{"item":null}"#, false),
        (r#"{"_id":null}"#, "{}", true),
    ]);
}

#[test]
fn comparisons_stay_within_a_kind() {
    check(&[
        (r#"{"qty":{"$gt":20}}"#, r#"{"qty":25}"#, true),
        (r#"{"qty":{"$gt":20}}"#, r#"{"qty":20}"#, false),
        (r#"{"qty":{"$gte":20}}"#, r#"{"qty":20}"#, true),
        (r#"{"qty":{"$lt":20}}"#, r#"{"qty":19.5}"#, true),
        (r#"{"qty":{"$lte":20}}"#, r#"{"qty":20.5}"#, false),
        (r#"{"qty":{"$gt":20}}"#, r#"{"qty":"25"}"#, false),
        (r#"{"qty":{"$gt":"20"}}"#, r#"{"qty":"25"}"#, true),
        (r#"{"qty":{"$lt":"b"}}"#, r#"{"qty":"Zebra"}"#, true),
        (r#"{"qty":{"$lt":"b"}}"#, r#"{"qty":1}"#, false),
        (r#"{"on":{"$gt":false}}"#, r#"{"on":true}"#, true),
        (r#"{"on":{"$gt":false}}"#, r#"{"on":5}"#, false),
        (r#"{"on":{"$lt":true}}"#, r#"{"on":"x"}"#, false),
        (r#"{"a":{"$gt":[1,2]}}"#, r#"{"a":[1,3]}"#, true),
        (r#"{"a":{"$gt":[1,2]}}"#, r#"{"a":[1,2]}"#, false),
        (r#"{"a":{"$gt":[1,2]}}"#, r#"{"a":5}"#, false),
        (r#"{"a":{"$gt":{"x":1}}}"#, r#"{"a":{"x":2}}"#, true),
        (r#"{"a":{"$gt":{"x":1}}}"#, r#"{"a":{"x":1}}"#, false),
        (r#"{"a":{"$gt":9007199254740992}}"#, r#"{"a":9007199254740993}"#, true),
        (r#"{"a":{"$ne":5}}"#, r#"{"a":[4,5]}"#, false),
        (r#"{"a":{"$ne":5}}"#, r#"{"a":[4]}"#, true),
        (r#"{"a":{"$ne":5}}"#, r#"{"a":"5"}"#, true),
        (r#"{"qty":{"$in":[5,15]}}"#, r#"{"qty":15.0}"#, true),
        (r#"{"tags":{"$in":["home","school"]}}"#, r#"{"tags":["school","x"]}"#, true),
        (r#"{"tags":{"$in":[]}}"#, r#"{"tags":1}"#, false),
        (r#"{"tags":{"$nin":[]}}"#, r#"{"tags":1}"#, true),
        (r#"{"tags":{"$in":[["a"]]}}"#, r#"{"tags":["a"]}"#, true),
        (r#"{"tags":{"$nin":["school"]}}"#, r#"{"tags":["school","x"]}"#, false),
        (r#"{"tags":{"$in":[{"b":2,"a":1}]}}"#, r#"{"tags":{"a":1,"b":2}}"#, true),
    ]);
}

#[test]
fn logic() {
    check(&[
        (r#"{"$or":[{"qty":{"$lt":20}},{"price":10}]}"#, r#"{"qty":30,"price":10}"#, true),
        (r#"{"$or":[{"qty":{"$lt":20}},{"price":10}]}"#, r#"{"qty":30}"#, false),
        (r#"{"$and":[{"a":{"$gt":1}},{"a":{"$lt":5}}]}"#, r#"{"a":3}"#, true),
        (r#"{"$and":[{"a":{"$gt":1}},{"a":{"$lt":5}}]}"#, r#"{"a":7}"#, false),
        (r#"{"$nor":[{"price":1.99},{"sale":true}]}"#, r#"{"price":1.99,"sale":false}"#, false),
        (r#"{"$nor":[{"price":1.99},{"sale":true}]}"#, r#"{"price":2}"#, true),
        (r#"{"$nor":[{"price":1.99},{"sale":true}]}"#, "{}", true),
        (r#"{"price":{"$not":{"$gt":1.99}}}"#, r#"{"price":1}"#, true),
        (r#"{"price":{"$not":{"$gt":1.99}}}"#, r#"{"price":2}"#, false),
        (r#"{"price":{"$not":{"$gt":1.99}}}"#, r#"{"price":"x"}"#, true),
        (r#"{"a":{"$not":{"$gt":1,"$lt":5}}}"#, r#"{"a":7}"#, true),
        (r#"{"a":{"$not":{"$gt":1,"$lt":5}}}"#, r#"{"a":3}"#, false),
        (r#"{"a":{"$not":{"$not":{"$gt":1}}}}"#, r#"{"a":3}"#, true),
        (r#"{"item":{"$not":{"$regex":"^p.*"}}}"#, r#"{"item":"pen"}"#, false),
        (r#"{"item":{"$not":{"$regex":"^p.*"}}}"#, r#"{"item":"ink"}"#, true),
        (r#"{"item":{"$not":{"$regex":"^P","$options":"i"}}}"#, r#"{"item":"pen"}"#, false),
        (r#"{"$or":[{"$and":[{"a":1},{"b":2}]},{"c":3}]}"#, r#"{"a":1,"b":2}"#, true),
        (r#"{"$or":[{}]}"#, "{}", true),
        (r#"{"$nor":[{}]}"#, "{}", false),
    ]);
}

#[test]
fn kinds_and_numbers() {
    check(&[
        (r#"{"zip":{"$type":"string"}}"#, r#"{"zip":"1"}"#, true),
        (r#"{"zip":{"$type":2}}"#, r#"{"zip":1}"#, false),
        (r#"{"zip":{"$type":["string","double"]}}"#, r#"{"zip":1.5}"#, true),
        (r#"{"zip":{"$type":["string","double"]}}"#, r#"{"zip":1}"#, false),
        (r#"{"zip":{"$type":"number"}}"#, r#"{"zip":1}"#, true),
        (r#"{"zip":{"$type":"int"}}"#, r#"{"zip":2147483647}"#, true),
        (r#"{"zip":{"$type":"int"}}"#, r#"{"zip":2147483648}"#, false),
        (r#"{"zip":{"$type":"long"}}"#, r#"{"zip":2147483648}"#, true),
        (r#"{"zip":{"$type":16}}"#, r#"{"zip":1.0}"#, false),
        (r#"{"zip":{"$type":1}}"#, r#"{"zip":1.0}"#, true),
        (r#"{"zip":{"$type":"array"}}"#, r#"{"zip":["a"]}"#, true),
        (r#"{"zip":{"$type":"array"}}"#, r#"{"zip":"a"}"#, false),
        (r#"{"zip":{"$type":"string"}}"#, r#"{"zip":[1,"a"]}"#, true),
        (r#"{"zip":{"$type":"object"}}"#, r#"{"zip":{}}"#, true),
        (r#"{"zip":{"$type":8}}"#, r#"{"zip":true}"#, true),
        (r#"{"zip":{"$type":"bool"}}"#, "{}", false),
        (r#"{"qty":{"$mod":[4,0]}}"#, r#"{"qty":12}"#, true),
        (r#"{"qty":{"$mod":[4,0]}}"#, r#"{"qty":5}"#, false),
        (r#"{"qty":{"$mod":[4,1]}}"#, r#"{"qty":5.9}"#, true),
        (r#"{"qty":{"$mod":[4.7,1.2]}}"#, r#"{"qty":5}"#, true),
        (r#"{"qty":{"$mod":[4,-1]}}"#, r#"{"qty":-5}"#, true),
        (r#"{"qty":{"$mod":[4,0]}}"#, r#"{"qty":"4"}"#, false),
        (r#"{"qty":{"$mod":[4,0]}}"#, r#"{"qty":[3,8]}"#, true),
        (r#"{"qty":{"$mod":[4,0]}}"#, r#"{"qty":1e300}"#, false),
        (r#"{"qty":{"$mod":[4,3]}}"#, r#"{"qty":18446744073709551615}"#, true),
        (r#"{"qty":{"$mod":[-1,0]}}"#, r#"{"qty":-9223372036854775808}"#, true),
    ]);
}

#[test]
fn expressions_find_in_strings() {
    check(&[
        (r#"{"sku":{"$regex":"789$"}}"#, r#"{"sku":"abc789"}"#, true),
        (r#"{"sku":{"$regex":"^ABC","$options":"i"}}"#, r#"{"sku":"abc123"}"#, true),
        (r#"{"sku":{"$regex":"^ABC"}}"#, r#"{"sku":"abc123"}"#, false),
        (r#"{"d":{"$regex":"^S","$options":"m"}}"#, r#"{"d":"First\nSecond"}"#, true),
        (r#"{"d":{"$regex":"^S"}}"#, r#"{"d":"First\nSecond"}"#, false),
        (r#"{"d":{"$regex":"m.*line","$options":"si"}}"#, r#"{"d":"Many\nlines"}"#, true),
        (r#"{"d":{"$regex":"m.*line","$options":"i"}}"#, r#"{"d":"Many\nlines"}"#, false),
        (r#"{"d":{"$regex":"a b # words","$options":"x"}}"#, r#"{"d":"ab"}"#, true),
        (r#"{"d":{"$regex":"a"}}"#, r#"{"d":["b","a"]}"#, true),
        (r#"{"d":{"$regex":"1"}}"#, r#"{"d":1}"#, false),
        (r#"{"d":{"$regex":"^é.$"}}"#, r#"{"d":"é😀"}"#, true),
        (r#"{"d":{"$regex":"a","$nin":["ab"]}}"#, r#"{"d":"ab"}"#, false),
    ]);
}

#[test]
fn expressions_compare_fields() {
    check(&[
        (r#"{"$expr":{"$gt":["$spent","$budget"]}}"#, r#"{"spent":450,"budget":400}"#, true),
        (r#"{"$expr":{"$gt":["$spent","$budget"]}}"#, r#"{"spent":350,"budget":400}"#, false),
        (r#"{"a":1,"$expr":{"$eq":["$_id","$b"]}}"#, r#"{"_id":"x","a":1,"b":"x"}"#, true),
        (r#"{"$or":[{"a":2},{"$expr":"$b"}]}"#, r#"{"a":1,"b":true}"#, true),
        (r#"{"$expr":"$b"}"#, r#"{"b":0}"#, false),
        // What cannot be computed is false.
        (r#"{"$expr":{"$add":["$a",1]}}"#, r#"{"a":"x"}"#, false),
        (r#"{"$nor":[{"$expr":{"$add":["$a",1]}}]}"#, r#"{"a":"x"}"#, true),
    ]);
}

#[test]
fn all_and_elements() {
    check(&[
        (r#"{"tags":{"$all":["ssl","security"]}}"#, r#"{"tags":["security","x","ssl"]}"#, true),
        (r#"{"tags":{"$all":["ssl","security"]}}"#, r#"{"tags":["ssl"]}"#, false),
        (r#"{"tags":{"$all":["ssl"]}}"#, r#"{"tags":"ssl"}"#, true),
        (r#"{"tags":{"$all":[["ssl","x"]]}}"#, r#"{"tags":["ssl","x"]}"#, true),
        (r#"{"tags":{"$all":[["ssl","x"]]}}"#, r#"{"tags":[["ssl","x"],"y"]}"#, true),
        (r#"{"tags":{"$all":[]}}"#, r#"{"tags":[]}"#, false),
        (r#"{"tags":{"$all":[null]}}"#, "{}", true),
        (
            r#"{"qty":{"$all":[{"$elemMatch":{"size":"M","num":{"$gt":50}}},{"$elemMatch":{"num":100,"color":"green"}}]}}"#,
            r#"{"qty":[{"size":"M","num":60},{"num":100,"color":"green"}]}"#,
            true,
        ),
        (
            r#"{"qty":{"$all":[{"$elemMatch":{"size":"M","num":{"$gt":50}}},{"$elemMatch":{"num":100,"color":"green"}}]}}"#,
            r#"{"qty":[{"size":"M","num":60},{"num":90,"color":"green"}]}"#,
            false,
        ),
        (r#"{"results":{"$elemMatch":{"$gte":80,"$lt":85}}}"#, r#"{"results":[82,85,88]}"#, true),
        (r#"{"results":{"$elemMatch":{"$gte":80,"$lt":85}}}"#, r#"{"results":[75,88,89]}"#, false),
        (r#"{"results":{"$elemMatch":{"$gte":80}}}"#, r#"{"results":82}"#, false),
        (
            r#"{"results":{"$elemMatch":{"product":"xyz","score":{"$gte":8}}}}"#,
            r#"{"results":[{"product":"abc","score":10},{"product":"xyz","score":5}]}"#,
            false,
        ),
        (
            r#"{"results":{"$elemMatch":{"product":{"$ne":"xyz"}}}}"#,
            r#"{"results":[{"product":"xyz"},{"product":"abc"}]}"#,
            true,
        ),
        (r#"{"results":{"$elemMatch":{"$ne":1}}}"#, r#"{"results":[1,2]}"#, true),
        (r#"{"results":{"$elemMatch":{"$ne":1}}}"#, r#"{"results":[1]}"#, false),
        (r#"{"results":{"$elemMatch":{"$elemMatch":{"$gt":5}}}}"#, r#"{"results":[[1,6]]}"#, true),
        (r#"{"results":{"$elemMatch":{"$gt":5}}}"#, r#"{"results":[[1,6]]}"#, false),
        (r#"{"results":{"$elemMatch":{"$or":[{"a":1},{"b":2}]}}}"#, r#"{"results":[{"b":2}]}"#, true),
        (r#"{"results":{"$elemMatch":{"a.b":1}}}"#, r#"{"results":[{"a":[{"b":1}]}]}"#, true),
        (r#"{"results":{"$elemMatch":{}}}"#, r#"{"results":[1,{}]}"#, true),
        (r#"{"results":{"$elemMatch":{}}}"#, r#"{"results":[1]}"#, false),
        (r#"{"results":{"$elemMatch":{"_id":"x"}}}"#, r#"{"results":[{"_id":"x"}]}"#, true),
        (r#"{"results":{"$not":{"$elemMatch":{"$gt":5}}}}"#, r#"{"results":[1]}"#, true),
        (r#"{"results":{"$elemMatch":{"$size":2}}}"#, r#"{"results":[[1,2]]}"#, true),
        (r#"{"results":{"$elemMatch":{"$exists":true}}}"#, r#"{"results":[]}"#, false),
    ]);
}
