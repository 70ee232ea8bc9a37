//! Queries against a scan.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Budget, Find, Found, Live, LiveEvent, Sort, Texts, count, distinct, each, estimate, row};
use crate::Error;
use crate::base::{CollectionName, DocumentKey, Timestamp};
use crate::filter::Filter;
use crate::identity::Keypair;
use crate::index::Definition;
use crate::kv::MemoryKv;
use crate::node::{Command, Condition, Config, Effect, Input, Node, Reply};
use crate::store::Loss;

/// A node with documents in one collection.
struct World {
    node: Node,
    now: u64,
}

impl World {
    fn new() -> Self {
        let config = Config {
            keypair: Keypair::from_seed([1; 32]),
            seed: [1; 32],
            mesh_name: "mesh".into(),
            synced: true,
            loss: Loss::Nothing,
            fresh: true,
            seeds: Vec::new(),
        };
        let now = 1_700_000_000_000;
        Self { node: Node::open(config, Arc::new(MemoryKv::new()), Timestamp(now)).unwrap(), now }
    }

    fn ask(&mut self, command: Command) -> crate::Result<Reply> {
        self.now += 1;
        let effects = self.node.handle(Timestamp(self.now), [Input::Command(1, command)]);
        let reply = |effect| if let Effect::Reply(1, reply) = effect { Some(reply) } else { None };
        effects.0.into_iter().find_map(reply).unwrap()
    }

    fn put(&mut self, id: &str, body: Value) {
        let document = DocumentKey::new(name(), id.parse().unwrap());
        let Value::Object(body) = body else { panic!("not an object") };
        self.ask(Command::Put { document, body, condition: Condition::Any }).unwrap();
    }

    fn delete(&mut self, id: &str) {
        let document = DocumentKey::new(name(), id.parse().unwrap());
        self.ask(Command::Delete { document, condition: Condition::Any }).unwrap();
    }

    /// Declares an index and fills it.
    fn index(&mut self, index: &str, definition: Value) {
        let definition = Definition::parse(&definition).unwrap();
        self.ask(Command::PutIndex(name(), index.parse().unwrap(), definition)).unwrap();
        while self.node.reader().catalog().of(&name()).iter().any(|index| !index.is_ready()) {
            self.now += 1;
            let _ = self.node.handle(Timestamp(self.now), [Input::Wake]);
        }
    }

    fn find(&self, query: Value) -> crate::Result<Found> {
        Find::parse(&query)?.run(&self.node.reader(), &name(), &budget())
    }

    fn explain(&self, query: Value) -> Value {
        let find = Find::parse(&query).unwrap();
        find.run_explained(&self.node.reader(), &name(), &budget(), Duration::ZERO).unwrap().1.unwrap().to_json()
    }

    /// The names of the stages of a plan, from the result down.
    fn stages(&self, query: Value) -> Vec<String> {
        let explained = self.explain(query);
        let (mut stage, mut names) = (&explained["plan"], Vec::new());
        loop {
            names.push(stage["stage"].as_str().unwrap().to_owned());
            stage = &stage["input"];
            if stage.is_null() {
                return names;
            }
        }
    }

    /// The pages of a query, one after the other.
    fn pages(&self, mut query: Value) -> Vec<Bytes> {
        let mut all = Vec::new();
        loop {
            let found = self.find(query.clone()).unwrap();
            all.extend(found.documents);
            match found.next {
                Some(next) => query["cursor"] = next.into(),
                None => return all,
            }
        }
    }

    /// Everything that matches, sorted, by looking at everything.
    fn naive(&self, filter: &Value, sort: Option<&Value>) -> Vec<Bytes> {
        let filter = Filter::parse(filter).unwrap();
        let mut all: Vec<(Vec<u8>, Bytes)> = Vec::new();
        let sort = sort.map(|sort| Sort::parse(sort, "").unwrap());
        each(&self.node.reader(), &name(), None, &budget(), &mut |found| {
            if filter.matches(found) {
                let mut key = Vec::new();
                if let Some(sort) = &sort {
                    sort.key(found, &mut key);
                }
                all.push((key, super::whole(found).into_owned().into()));
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
        // Walked in the order of ids, and sorted without changing it where keys are the same.
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().map(|(_, text)| text).collect()
    }
}

fn name() -> CollectionName {
    "things".parse().unwrap()
}

fn budget() -> Budget {
    Budget::new(None, 64 << 20)
}

fn ids(documents: &[Bytes]) -> Vec<String> {
    documents.iter().map(|text| row(text).id.unwrap().as_str().unwrap().into_owned()).collect()
}

/// Does to a result what a live query says.
pub(crate) fn apply(result: &mut Vec<Bytes>, events: Vec<LiveEvent>) {
    let named = |document: &Bytes, id: &str| assert_eq!(row(document).id.unwrap().as_str().unwrap(), id);
    for event in events {
        match event {
            LiveEvent::Enter { at, document, id, .. } => {
                named(&document, &id);
                result.insert(at, document);
            }
            LiveEvent::Leave { at, id } => named(&result.remove(at), &id),
            LiveEvent::Change { at, document, id, .. } => {
                named(&result[at], &id);
                assert_ne!(result[at], document);
                result[at] = document;
            }
            LiveEvent::Move { from, to, document, id, .. } => {
                named(&result.remove(from), &id);
                result.insert(to, document);
            }
        }
    }
}

/// People with an age, a city and a name.
fn people(count: usize) -> World {
    let mut world = World::new();
    for n in 0..count {
        let city = ["Rome", "Oslo", "Lima", "Bern"][n % 4];
        world
            .put(&format!("p{n:03}"), json!({"age": n % 50, "city": city, "name": format!("n{:03}", (n * 7) % count)}));
    }
    world
}

#[test]
fn a_page_is_in_order_and_the_next_one_goes_on() {
    let mut world = people(40);
    let query = json!({"filter": {"city": "Rome"}, "sort": {"name": 1}, "limit": 3});
    let first = world.find(query.clone()).unwrap();
    assert_eq!(first.documents.len(), 3);
    // What is written before the place does not come again, what is written behind it comes.
    world.put("new-before", json!({"city": "Rome", "name": "a"}));
    world.put("new-behind", json!({"city": "Rome", "name": "z"}));
    let mut next = query.clone();
    next["cursor"] = first.next.unwrap().into();
    let rest = world.pages(next);
    assert_eq!(rest.len(), 10 - 3 + 1);
    assert_eq!(ids(&rest).last().unwrap(), "new-behind");
    assert_eq!(world.find(json!({"filter": {"city": "Rome"}})).unwrap().total_estimate, 12);
}

#[test]
fn plans_use_what_helps() {
    let mut world = people(400);
    let by_city = json!({"filter": {"city": "Rome", "age": {"$gte": 40}}, "sort": {"name": 1}, "limit": 5});
    assert_eq!(world.stages(by_city.clone()), ["limit", "sort", "filter", "walk"]);
    let without = world.find(by_city.clone()).unwrap();
    world.index("city", json!({"fields": "city"}));
    assert_eq!(world.stages(by_city.clone()), ["limit", "sort", "filter", "index"]);
    world.index("city-name", json!({"fields": "city,name"}));
    let in_order = json!({"filter": {"city": "Rome"}, "sort": {"name": 1}, "limit": 5});
    assert_eq!(world.stages(in_order.clone()), ["limit", "filter", "index"]);
    let explained = world.explain(in_order);
    assert_eq!(explained["documents_examined"], 6, "it stops where the page is full: {explained}");
    assert!(explained["rejected"].as_array().unwrap().len() >= 2);
    assert_eq!(world.find(by_city).unwrap().documents, without.documents);
    // A walk in the order of an index, when that is all that is asked for.
    world.index("age", json!({"fields": "-age"}));
    assert_eq!(world.stages(json!({"sort": {"age": -1}, "limit": 2})), ["limit", "filter", "index"]);
    let either = json!({"filter": {"$or": [{"city": "Rome"}, {"age": 3}]}});
    assert_eq!(world.stages(either.clone())[2], "union");
    assert_eq!(ids(&world.pages(either.clone())), ids(&world.naive(&either["filter"], None)));
    assert_eq!(world.stages(json!({"filter": {"_id": {"$in": ["p001", "p002"]}}}))[2], "ids");
    let forced = json!({"filter": {"age": 3}, "hint": "$natural"});
    assert_eq!(world.stages(forced), ["limit", "filter", "walk"]);
    let error = world.find(json!({"filter": {"age": 3}, "hint": "nothing"})).unwrap_err().to_string();
    assert!(error.contains("city-name") && error.contains("$natural"), "{error}");
}

#[test]
fn two_indexes_are_better_than_one_when_both_leave_little() {
    let mut world = World::new();
    for n in 0..2_000 {
        world.put(&format!("{n:04}"), json!({"a": n % 20, "b": n % 19}));
    }
    world.index("a", json!({"fields": "a"}));
    world.index("b", json!({"fields": "b"}));
    let both = json!({"filter": {"a": 3, "b": 4}});
    assert_eq!(world.stages(both.clone())[2], "intersection");
    assert_eq!(world.find(both.clone()).unwrap().documents, world.naive(&both["filter"], None));
}

#[test]
fn counts_and_values_come_from_keys_where_those_say_all() {
    let mut world = people(200);
    world.put("list", json!({"age": [3, 4]}));
    let reader = world.node.reader();
    let counted = |filter: Value| count(&reader, &name(), &Filter::parse(&filter).unwrap(), &budget()).unwrap();
    let filters = [json!({}), json!({"age": 3}), json!({"age": {"$gt": 10, "$lte": 20}}), json!({"city": null})];
    let expected: Vec<u64> = filters.iter().map(|filter| world.naive(filter, None).len() as u64).collect();
    assert_eq!(filters.clone().map(counted), expected[..]);
    world.index("age", json!({"fields": "age"}));
    world.index("city", json!({"fields": "city"}));
    let counted = |filter: Value| count(&world.node.reader(), &name(), &Filter::parse(&filter).unwrap(), &budget());
    assert_eq!(filters.clone().map(|filter| counted(filter).unwrap()), expected[..]);
    assert_eq!(estimate(&world.node.reader(), &name(), &Filter::parse(&filters[1]).unwrap()).unwrap(), expected[1]);
    let values = distinct(&world.node.reader(), &name(), &"city".parse().unwrap(), &Filter::default(), &budget());
    assert_eq!(values.unwrap(), [json!("Bern"), json!("Lima"), json!("Oslo"), json!("Rome")]);
    let only = Filter::parse(&json!({"_id": "list"})).unwrap();
    let values = distinct(&world.node.reader(), &name(), &"age".parse().unwrap(), &only, &budget());
    assert_eq!(values.unwrap(), [json!(3), json!(4)]);
}

#[test]
fn a_deleted_document_is_found_no_more() {
    let mut world = people(10);
    world.index("city", json!({"fields": "city"}));
    world.delete("p000");
    assert_eq!(ids(&world.find(json!({"filter": {"city": "Rome"}})).unwrap().documents), ["p004", "p008"]);
}

#[test]
fn what_is_wrong_with_a_query_is_named() {
    let world = people(3);
    let message = |query: Value| world.find(query).unwrap_err().to_string();
    assert!(message(json!({"fliter": {}})).contains("did you mean filter?"));
    assert!(message(json!({"limit": -1})).contains("limit"));
    assert!(message(json!({"limit": 1_000_000})).contains("10000"));
    assert!(message(json!({"filter": {"a": {"$gr": 1}}})).contains("$gt"));
    assert!(message(json!([])).contains("object"));
    let cursor = world.find(json!({"limit": 1})).unwrap().next.unwrap();
    assert!(message(json!({"limit": 1, "cursor": cursor, "filter": {"a": 1}})).contains("another query"));
    assert!(message(json!({"limit": 1, "cursor": cursor, "offset": 1})).contains("leave the offset out"));
}

#[test]
fn time_and_memory_of_a_query_end_it() {
    let world = people(500);
    let find = Find::parse(&json!({"filter": {"age": {"$gte": 0}}, "sort": {"name": 1}, "limit": 400})).unwrap();
    let late = Budget::new(Some(std::time::Instant::now()), 64 << 20);
    let error = find.run(&world.node.reader(), &name(), &late).unwrap_err();
    assert!(matches!(&error, Error::Invalid(why) if why.message.contains("time limit")), "{error}");
    let error = find.run(&world.node.reader(), &name(), &Budget::new(None, 1_000)).unwrap_err();
    assert!(matches!(&error, Error::Invalid(why) if why.message.contains("memory")), "{error}");
}

#[test]
fn places_are_found_by_cells_the_nearest_first() {
    let mut world = World::new();
    for n in 0..200 {
        world.put(&format!("{n:03}"), json!({"at": {"lat": f64::from(n) / 4.0 - 25.0, "lng": f64::from(n) - 100.0}}));
    }
    world.put("nowhere", json!({"at": {"lat": 95, "lng": 0}}));
    world.put("two", json!({"at": [{"lat": 0.0, "lng": 0.0}, {"lat": 50.0, "lng": 50.0}]}));
    let near = json!({"filter": {"at": {"$near": {"lat": 0.1, "lng": 0.1, "max_distance_m": 400_000}}}});
    let within = json!({"filter": {"at": {"$within": {"box": {"south": -5, "west": -10, "north": 5, "east": 10}}}}});
    let before = [near.clone(), within.clone()].map(|query| world.pages(query));
    assert_eq!(ids(&before[0]), ["100", "two", "101", "099", "102", "098", "103", "097"]);
    world.index("at", json!({"type": "geo", "fields": "at"}));
    for (query, before) in [near, within].into_iter().zip(before) {
        assert_eq!(world.pages(query.clone()), before);
        assert!(world.explain(query.clone())["plan"].to_string().contains("\"index\":\"at\""));
        let mut paged = query;
        paged["limit"] = json!(2);
        assert_eq!(world.pages(paged), before, "pages keep the order");
    }
    let far = json!({"filter": {"at": {"$near": {"lat": 0, "lng": 0}}}, "limit": 3, "sort": {"_id": 1}});
    assert_eq!(
        ids(&world.find(far).unwrap().documents),
        ["000", "001", "002"],
        "an order that is asked for goes first"
    );
}

#[test]
fn words_are_found_by_their_index_the_best_fit_first() {
    let mut world = World::new();
    for n in 0..50 {
        let text =
            format!("{} common words{}", "filler ".repeat(n % 5), if n % 10 == 0 { " and a rare one" } else { "" });
        world.put(&format!("{n:02}"), json!({"title": text, "secret": "rare"}));
    }
    world.put("best", json!({"title": "rare, rare, rare"}));
    let query = json!({"filter": {"$text": {"$search": "rare"}}});
    assert_eq!(world.pages(query.clone()).len(), 51, "without an index every string is looked at");
    world.index("title", json!({"type": "text", "fields": ["title"]}));
    let found = ids(&world.pages(query.clone()));
    assert_eq!((found.len(), found[0].as_str()), (6, "best"));
    let hinted = json!({"filter": {"$text": {"$search": "rare"}}, "hint": "$natural"});
    assert_eq!(ids(&world.pages(hinted)), found);
    let phrase = json!({"filter": {"$text": {"$search": "\"a rare one\" -filler"}}});
    assert!(world.explain(phrase.clone())["plan"].to_string().contains("\"index\":\"title\""));
    assert_eq!(ids(&world.pages(phrase)), ["00", "10", "20", "30", "40"]);
}

#[test]
fn a_partial_index_is_used_when_the_filter_asks_for_all_that_it_asks_for() {
    let mut world = people(200);
    world.index("roman", json!({"fields": "age", "filter": {"city": "Rome"}}));
    let roman = json!({"filter": {"age": {"$lt": 10}, "city": "Rome"}});
    assert_eq!(world.stages(roman.clone())[2], "index");
    assert_eq!(world.pages(roman.clone()), world.naive(&roman["filter"], None));
    assert_eq!(world.stages(json!({"filter": {"age": {"$lt": 10}, "city": "Oslo"}}))[2], "walk");
    assert_eq!(world.stages(json!({"sort": {"age": 1}}))[1], "sort");
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-2i64..4).prop_map(Value::from),
        Just(json!(1.0)),
        Just(json!(1.5)),
        Just(json!(-0.0)),
        Just(json!(9_007_199_254_740_993i64)),
        Just(json!(9_007_199_254_740_992.0)),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        "[ab\u{e9}]{0,2}".prop_map(Value::from),
        Just(json!({"x": 1})),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => leaf(),
        1 => proptest::collection::vec(leaf(), 0..3).prop_map(Value::from),
        1 => leaf().prop_map(|inner| json!({"x": inner})),
        1 => proptest::collection::vec(leaf().prop_map(|inner| json!({"x": inner})), 0..3).prop_map(Value::from),
        1 => proptest::collection::vec(mixed(), 0..3).prop_map(Value::from),
    ]
}

/// What stands beside each other in a list seldom.
fn mixed() -> impl Strategy<Value = Value> {
    prop_oneof![
        leaf(),
        (leaf(), leaf()).prop_map(|(x, y)| json!({"x": x, "y": y})),
        leaf().prop_map(|y| json!({"y": y, "0": [y]})),
        proptest::collection::vec(leaf(), 0..3).prop_map(Value::from),
        proptest::collection::vec(leaf(), 0..2).prop_map(|x| json!({ "x": x })),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[abc]", value(), 0..4).prop_map(|fields| json!(fields))
}

fn path() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("a.x"), Just("a.0"), Just("_id"), Just("a.y"), Just("a.0.x")]
}

fn condition() -> impl Strategy<Value = Value> {
    let test = prop_oneof![
        value(),
        leaf().prop_map(|value| json!({"$gt": value})),
        leaf().prop_map(|value| json!({"$lte": value})),
        (leaf(), leaf()).prop_map(|(low, high)| json!({"$gte": low, "$lt": high})),
        proptest::collection::vec(value(), 0..4).prop_map(|all| json!({"$in": all})),
        proptest::collection::vec(leaf(), 0..3).prop_map(|all| json!({"$all": all})),
        leaf().prop_map(|value| json!({"$ne": value})),
        any::<bool>().prop_map(|there| json!({"$exists": there})),
        Just(json!({"$regex": "^a"})),
        (leaf(), leaf()).prop_map(|(low, high)| json!({"$elemMatch": {"$gte": low, "$lte": high}})),
        Just(json!({"$in": ["00", "03", "nobody"]})),
    ];
    (path(), test).prop_map(|(path, test)| json!({path: test}))
}

fn filter() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        condition(),
        proptest::collection::vec(condition(), 2..4).prop_map(|all| json!({"$and": all})),
        proptest::collection::vec(condition(), 2..4).prop_map(|any| json!({"$or": any})),
        (condition(), proptest::collection::vec(condition(), 2..3))
            .prop_map(|(one, any)| json!({"$and": [one, {"$or": any}]})),
    ]
}

fn sort() -> impl Strategy<Value = Option<Value>> {
    let sorts = [
        "a",
        "-a",
        "a,b",
        "-b,a",
        "a.x",
        "_id",
        "-_id",
        "c,-_id",
        "b,-a",
        "a.x,a.y",
        "-a.y,a.x",
        "a.x,b,a.y",
        "a.0",
        "-a.0.x",
        "a.0,a.x",
    ];
    proptest::option::of(proptest::sample::select(sorts.to_vec()).prop_map(Value::from))
}

/// Indexes, some of which have documents in an order that is asked for.
fn indexes() -> impl Strategy<Value = Vec<Value>> {
    let all = vec![
        json!({"fields": "a"}),
        json!({"fields": "-a"}),
        json!({"fields": "a,b"}),
        json!({"fields": "-b,a"}),
        json!({"fields": "b", "sparse": true}),
        json!({"fields": "a.x,c"}),
        json!({"fields": "c,-_id"}),
        json!({"fields": "_id"}),
        json!({"fields": "a.0"}),
        json!({"fields": "a.0.x"}),
        json!({"fields": "-a.0,a.x"}),
        json!({"fields": "a.x,a.y"}),
        json!({"fields": "-a.y,a.x"}),
        json!({"fields": "a.x", "sparse": true}),
        json!({"fields": "b", "filter": {"a": {"$gt": 0}}}),
    ];
    proptest::sample::subsequence(all, 0..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_is_what_a_scan_gives_whatever_the_plan(
        documents in proptest::collection::vec(document(), 0..30),
        indexes in indexes(),
        queries in proptest::collection::vec((filter(), sort(), 1usize..8, 0usize..4), 1..6),
    ) {
        let mut world = World::new();
        let half = documents.len() / 2;
        for (n, body) in documents.iter().enumerate() {
            if n == half {
                for (number, index) in indexes.iter().enumerate() {
                    world.index(&format!("i{number}"), index.clone());
                }
            }
            world.put(&format!("{n:02}"), body.clone());
        }
        for (filter, sort, limit, offset) in queries {
            let all = world.naive(&filter, sort.as_ref());
            let mut query = json!({"filter": filter, "limit": limit});
            if let Some(sort) = &sort {
                query["sort"] = sort.clone();
            }
            prop_assert_eq!(ids(&world.pages(query.clone())), ids(&all), "pages of {}", query);
            for plan in world.explain(query.clone())["rejected"].as_array().unwrap() {
                if let Some(index) = plan["index"].as_str() {
                    let mut hinted = query.clone();
                    hinted["hint"] = index.into();
                    prop_assert_eq!(ids(&world.pages(hinted.clone())), ids(&all), "pages of {}", hinted);
                }
            }
            query["offset"] = offset.into();
            let found = world.find(query.clone()).unwrap();
            let page: Vec<Bytes> = all.iter().skip(offset).take(limit).cloned().collect();
            prop_assert_eq!(&found.documents, &page, "{}", query);
            let parsed = Filter::parse(&filter).unwrap();
            let counted = count(&world.node.reader(), &name(), &parsed, &budget()).unwrap();
            prop_assert_eq!(counted, all.len() as u64, "count of {}", filter);
        }
    }

    #[test]
    fn a_live_result_is_what_a_fresh_query_gives_after_every_step(
        documents in proptest::collection::vec(document(), 0..10),
        filter in filter(),
        sort in sort(),
        limit in 0usize..6,
        steps in proptest::collection::vec((0usize..12, proptest::option::weighted(0.8, document())), 1..30),
    ) {
        let mut world = World::new();
        for (n, body) in documents.iter().enumerate() {
            world.put(&format!("{n:02}"), body.clone());
        }
        let mut query = json!({"filter": filter, "limit": limit});
        if let Some(sort) = sort {
            query["sort"] = sort;
        }
        let find = Find::parse(&query).unwrap();
        let mut live = Live::open(find, &world.node.reader(), &name(), &budget()).unwrap();
        let mut result: Vec<Bytes> = live.result().cloned().collect();
        for (n, body) in steps {
            let id = format!("{n:02}");
            let key = DocumentKey::new(name(), id.parse().unwrap());
            match body {
                Some(body) => world.put(&id, body),
                None if world.node.reader().view(&key, |_| ()).unwrap().is_some() => world.delete(&id),
                None => continue,
            }
            let view = world.node.reader().view(&key, |view| view.json.to_vec()).unwrap();
            let quoted = format!("\"{id}\"");
            let of = |conflicts| {
                let id = Some(crate::value::Json::new(quoted.as_bytes()));
                let body = view.as_deref().map(crate::value::Json::new);
                body.map(|body| crate::value::Row { id, body, conflicts })
            };
            let events = live.apply(&id, of(0), &mut Texts::default()).unwrap();
            prop_assert!(events.len() <= 2, "{:?}", events);
            apply(&mut result, events);
            prop_assert_eq!(&result, &world.find(query.clone()).unwrap().documents, "{}", query);
            prop_assert!(live.apply(&id, of(0), &mut Texts::default()).unwrap().is_empty(), "the same again is no change");
            // Of a document that is shown it is one that another edit lost against it.
            let is_shown = result.iter().any(|shown| row(shown).id.unwrap().as_str().unwrap() == id.as_str());
            let events = live.apply(&id, of(2), &mut Texts::default()).unwrap();
            let told = matches!(&events[..], [LiveEvent::Change { conflicts: 2, .. }]);
            prop_assert_eq!((told, events.len()), (is_shown, usize::from(is_shown)), "{:?}", &events);
            live.apply(&id, of(0), &mut Texts::default()).unwrap();
        }
    }
}
