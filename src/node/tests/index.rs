//! Indexes under writes, merges, crashes and damage: they hold what the documents give, and nothing else.

use super::*;
use crate::InvalidKind;
use crate::filter::geo::{Point, Shape};
use crate::index::{Corpus, Definition, IndexName, Posting, geo_spans};
use crate::store::{Conflict, Index, Progress};

fn definition(value: Value) -> Definition {
    Definition::parse(&value).unwrap()
}

impl World {
    fn put_index(&mut self, at: usize, name: &str, value: Value) -> bool {
        let command = Command::PutIndex("notes".parse().unwrap(), name.parse().unwrap(), definition(value));
        let Reply::Index(new) = self.ask(at, command).unwrap() else { panic!("no answer") };
        new
    }

    fn drop_index(&mut self, at: usize, name: &str) -> Result<Reply> {
        self.ask(at, Command::DropIndex("notes".parse().unwrap(), name.parse().unwrap()))
    }

    fn index(&self, at: usize, name: &str) -> Option<Arc<Index>> {
        let (catalog, name): (_, IndexName) = (self.peers[at].node.reader().catalog(), name.parse().unwrap());
        catalog.of(&"notes".parse().unwrap()).iter().find(|index| *index.name() == name).cloned()
    }

    /// The ids under an index, in its order.
    fn listed(&self, at: usize, name: &str) -> Vec<String> {
        let (index, mut ids) = (self.index(at, name).unwrap(), Vec::new());
        let visit = &mut |_: &[u8], id: &str| {
            ids.push(id.to_owned());
            std::ops::ControlFlow::Continue(())
        };
        self.peers[at].node.reader().entries(&index, &[], None, visit).unwrap();
        ids
    }

    fn conflicts(&self, at: usize, name: &str) -> Vec<Conflict> {
        let index = self.index(at, name).unwrap();
        self.peers[at].node.reader().conflicts(&"notes".parse().unwrap(), &index, 10).unwrap()
    }

    fn audit_all(&mut self) {
        for peer in &mut self.peers {
            peer.node.audit().unwrap();
        }
    }
}

#[test]
fn an_index_is_filled_with_what_is_there_and_follows_what_changes() {
    let mut world = World::new(1);
    for n in 0..2_500 {
        world.put(0, &format!("notes/{n:04}"), json!({"n": 2_500 - n})).unwrap();
    }
    assert!(world.put_index(0, "by-n", json!({"fields": "n"})));
    // One step is done; a start in the middle goes on from there.
    assert_eq!(world.index(0, "by-n").unwrap().progress(), Progress::Filling { documents: 1_000 });
    world.audit_all();
    world.restart(0);
    world.put(0, "notes/2400", json!({"n": -1})).unwrap();
    world.put(0, "notes/new", json!({"n": 0})).unwrap();
    world.delete(0, "notes/0001").unwrap();
    world.run(1_000);
    let index = world.index(0, "by-n").unwrap();
    assert!(index.is_ready() && !index.is_multiple());
    assert_eq!((index.keys(), index.histogram().entries()), (2_500, 2_500));
    let listed = world.listed(0, "by-n");
    assert_eq!((listed.len(), &listed[..3]), (2_500, &["2400".into(), "new".into(), "2499".into()][..]));
    world.put(0, "notes/new", json!({"n": [9_000, 9_001]})).unwrap();
    assert!(world.index(0, "by-n").unwrap().is_multiple());
    assert_eq!(world.listed(0, "by-n")[2_499..], ["new", "new"]);
    world.audit_all();
    assert!(!world.put_index(0, "by-n", json!({"fields": {"n": 1}})), "the same again changes nothing");
    world.restart(0);
    assert!(world.index(0, "by-n").unwrap().is_ready() && world.index(0, "by-n").unwrap().is_multiple());
    assert!(world.put_index(0, "by-n", json!({"fields": "-n"})), "another one takes its place");
    world.run(1_000);
    assert_eq!(world.listed(0, "by-n").len(), 2_501);
    world.audit_all();
}

#[test]
fn a_dropped_index_is_cleared_once_no_query_reads_it() {
    let mut world = World::new(1);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.put_index(0, "by-n", json!({"fields": "n"}));
    world.run(1_000);
    let held = world.index(0, "by-n").unwrap();
    let entries = |world: &World| {
        let mut ids = 0;
        let reader = world.peers[0].node.reader();
        reader
            .entries(&held, &[], None, &mut |_, _| {
                ids += 1;
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        ids
    };
    world.drop_index(0, "by-n").unwrap();
    world.run(1_000);
    assert!(world.index(0, "by-n").is_none());
    assert_eq!(entries(&world), 1, "whoever reads it still does");
    assert!(matches!(world.drop_index(0, "by-n"), Err(Error::NotFound(_))));
    // A start knows of no readers.
    world.restart(0);
    world.run(1_000);
    assert_eq!(entries(&world), 0);
}

#[test]
fn a_unique_index_refuses_here_and_names_what_peers_wrote_apart() {
    let mut world = World::mesh(2);
    for at in 0..2 {
        world.put_index(at, "email", json!({"fields": "email", "unique": true, "sparse": true}));
        world.run(100);
    }
    world.put(0, "notes/a", json!({"email": "x"})).unwrap();
    let refused = world.put(0, "notes/b", json!({"email": "x"})).unwrap_err();
    let Error::Invalid(why) = &refused else { panic!("{refused}") };
    assert!(
        why.kind == InvalidKind::Taken && why.message.contains("email") && why.message.contains("notes/b"),
        "{why}"
    );
    world.put(0, "notes/c", json!({"n": 1})).unwrap();
    world.put(0, "notes/d", json!({"n": 1})).unwrap();
    assert!(world.put(0, "notes/c", json!({"email": "x"})).is_err());
    assert_eq!(world.get(0, "notes/c"), Some(json!({"n": 1})), "a refused edit leaves nothing behind");
    // Apart, the other one may take it.
    world.put(1, "notes/b", json!({"email": "x"})).unwrap();
    world.connect(0, 1);
    world.run(5_000);
    let expected = [Conflict { winner: "a".parse().unwrap(), losers: vec!["b".parse().unwrap()] }];
    for at in 0..2 {
        assert_eq!(world.conflicts(at, "email"), expected);
        // Whichever document arrived, the feed entry of it tells.
        let reader = world.peers[at].node.reader();
        for document in ["notes/a", "notes/b"] {
            let found = reader.conflicts_of(&key(document), br#"{"email":"x"}"#).unwrap();
            assert_eq!(found.iter().map(|(_, conflict)| &**conflict).collect::<Vec<_>>(), [&expected[0]]);
        }
    }
    // Nothing is blocked by it: both can be written, and one of them settles it.
    world.put(1, "notes/b", json!({"email": "x", "n": 2})).unwrap();
    world.put(0, "notes/a", json!({"email": "x", "n": 2})).unwrap();
    world.put(1, "notes/b", json!({"email": "y"})).unwrap();
    world.run(5_000);
    for at in 0..2 {
        assert_eq!(world.conflicts(at, "email"), []);
    }
    world.audit_all();
}

#[test]
fn a_damaged_document_leaves_no_entries_behind() {
    let mut world = World::mesh(2);
    world.put_index(0, "by-n", json!({"fields": "n"}));
    world.connect(0, 1);
    for n in 0..5 {
        world.put(0, &format!("notes/{n}"), json!({"n": n})).unwrap();
    }
    world.run(5_000);
    world.disconnect_all();
    world.put(1, "notes/3", json!({"n": 30})).unwrap();
    world.peers[0].node.store.damage_for_test(&key("notes/3"));
    world.ask(0, Command::Status).unwrap();
    assert!(world.peers[0].node.store.record(&key("notes/3")).is_err());
    world.connect(0, 1);
    world.run(30_000);
    assert_eq!(world.get(0, "notes/3"), Some(json!({"n": 30})));
    assert_eq!(world.listed(0, "by-n"), ["0", "1", "2", "4", "3"]);
    world.audit_all();
}

#[test]
fn a_document_goes_although_others_have_none_of_the_fields() {
    let mut world = World::new(1);
    world.put_index(0, "email", json!({"fields": "email", "unique": true}));
    world.put(0, "notes/a", json!({"email": "x"})).unwrap();
    world.put(0, "notes/b", json!({})).unwrap();
    assert!(world.put(0, "notes/c", json!({})).is_err());
    world.delete(0, "notes/a").unwrap();
    world.audit_all();
}

#[test]
fn a_partial_index_follows_documents_into_its_filter_and_out() {
    let mut world = World::new(1);
    for (id, age) in [("a", 10), ("b", 20), ("c", 30)] {
        world.put(0, &format!("notes/{id}"), json!({"age": age, "name": id})).unwrap();
    }
    let adults = json!({"fields": "-name", "filter": {"age": {"$gte": 18}}, "unique": true});
    assert!(world.put_index(0, "adults", adults.clone()));
    world.run(1_000);
    assert_eq!(world.listed(0, "adults"), ["c", "b"]);
    world.put(0, "notes/a", json!({"age": 18, "name": "a"})).unwrap();
    world.put(0, "notes/c", json!({"age": 17, "name": "c"})).unwrap();
    assert_eq!(world.listed(0, "adults"), ["b", "a"]);
    // Names are unique among adults only.
    world.put(0, "notes/d", json!({"age": 3, "name": "a"})).unwrap();
    assert!(world.put(0, "notes/d", json!({"age": 33, "name": "a"})).is_err());
    world.restart(0);
    let spelled = json!({"filter": {"$and": [{"age": {"$gte": 18}}]}, "fields": {"name": -1}, "unique": true});
    assert!(!world.put_index(0, "adults", spelled), "the same in other words");
    assert!(world.put_index(0, "adults", json!({"fields": "-name", "filter": {"age": {"$gte": 17}}})));
    world.run(1_000);
    assert_eq!(world.listed(0, "adults"), ["c", "b", "a"]);
    world.audit_all();
}

#[test]
fn an_index_of_points_finds_what_is_near() {
    let mut world = World::new(1);
    let point = |lat: f64, lng: f64| json!({"lat": lat, "lng": lng});
    world.put(0, "notes/rome", json!({"place": point(41.9, 12.5)})).unwrap();
    world.put(0, "notes/paris", json!({"place": point(48.86, 2.35)})).unwrap();
    world.put(0, "notes/both", json!({"place": [point(48.85, 2.36), point(41.91, 12.49)]})).unwrap();
    world.put(0, "notes/nowhere", json!({"place": "Atlantis"})).unwrap();
    world.put_index(0, "place", json!({"type": "geo", "fields": "place"}));
    world.run(1_000);
    assert_eq!(world.index(0, "place").unwrap().keys(), 4);
    let near = |world: &World, lat, lng| {
        let circle = Shape::Circle { center: Point { lat, lng }, radius_m: 5_000.0 };
        let (index, mut found) = (world.index(0, "place").unwrap(), BTreeSet::new());
        for (from, to) in geo_spans(&circle) {
            let visit = &mut |_: &[u8], id: &str| {
                found.insert(id.to_owned());
                std::ops::ControlFlow::Continue(())
            };
            world.peers[0].node.reader().entries(&index, &from, Some(&to), visit).unwrap();
        }
        found.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(near(&world, 41.9, 12.5), ["both", "rome"]);
    assert_eq!(near(&world, 48.86, 2.35), ["both", "paris"]);
    world.put(0, "notes/rome", json!({"place": point(48.86, 2.35)})).unwrap();
    world.delete(0, "notes/both").unwrap();
    assert_eq!(near(&world, 41.9, 12.5), [""; 0]);
    assert_eq!(near(&world, 48.86, 2.35), ["paris", "rome"]);
    world.audit_all();
}

#[test]
fn an_index_of_text_counts_words_for_ranking() {
    let mut world = World::new(1);
    world.put(0, "notes/a", json!({"title": "The fox", "body": "A quick fox jumps. Fox!", "n": 3})).unwrap();
    world.put(0, "notes/b", json!({"title": "Dogs", "body": ["A lazy dog", {"foxes": "no FOX"}]})).unwrap();
    world.put(0, "notes/c", json!({"n": "fox"})).unwrap();
    world.put_index(0, "words", json!({"type": "text", "fields": ["title", "body"]}));
    world.run(1_000);
    let postings = |world: &World, word: &str| {
        let (index, mut found) = (world.index(0, "words").unwrap(), Vec::new());
        let visit = &mut |id: &str, posting: Posting| {
            found.push((id.to_owned(), posting.occurrences, posting.tokens));
            std::ops::ControlFlow::Continue(())
        };
        world.peers[0].node.reader().postings(&index, word, visit).unwrap();
        found
    };
    let corpus = |world: &World| {
        let Corpus { documents, tokens } = world.index(0, "words").unwrap().corpus();
        (documents, tokens)
    };
    assert_eq!(postings(&world, "fox"), [("a".into(), 3, 7), ("b".into(), 1, 6)]);
    assert_eq!(postings(&world, "fo"), []);
    assert_eq!(corpus(&world), (2, 13));
    world.put(0, "notes/c", json!({"body": "fox fox"})).unwrap();
    world.put(0, "notes/a", json!({"title": "Cats", "n": 3})).unwrap();
    assert_eq!(postings(&world, "fox"), [("b".into(), 1, 6), ("c".into(), 2, 2)]);
    assert_eq!(corpus(&world), (3, 9));
    world.delete(0, "notes/b").unwrap();
    assert_eq!((corpus(&world), postings(&world, "dog")), ((2, 3), vec![]));
    // One with too many words has none, and is looked at by every search.
    let many: Vec<String> = (0..10_001).map(|n| n.to_string()).collect();
    world.put(0, "notes/long", json!({"body": many.join(" ")})).unwrap();
    let mut overflow = Vec::new();
    let index = world.index(0, "words").unwrap();
    let visit = &mut |id: &str| {
        overflow.push(id.to_owned());
        std::ops::ControlFlow::Continue(())
    };
    world.peers[0].node.reader().overflow(&index, visit).unwrap();
    assert_eq!((overflow, postings(&world, "7")), (vec!["long".to_owned()], vec![]));
    world.audit_all();
    // Counting the entries comes to the same.
    world.put(0, "notes/long", json!({"body": many[..900].join(" ")})).unwrap();
    world.put(0, "notes/long", json!({"body": many[1_000..1_900].join(" ")})).unwrap();
    let kept = corpus(&world);
    assert_eq!((kept, index.keys()), ((3, 903), 902));
    world.run(1_000);
    assert_eq!((corpus(&world), index.histogram().entries()), (kept, 902));
    world.restart(0);
    assert_eq!(corpus(&world), kept);
    world.audit_all();
}

#[test]
fn documents_expire_on_the_peer_that_declares_it_and_so_everywhere() {
    let mut world = World::mesh(2);
    let start = world.now;
    world.put(0, "notes/old", json!({"at": start.0 - 3_600_000})).unwrap();
    world.put(0, "notes/text", json!({"at": Timestamp(start.0 - 3_600_000).to_string()})).unwrap();
    world.put(0, "notes/soon", json!({"at": start.0 - 3_600_000 + 70_000})).unwrap();
    world.put(0, "notes/edited", json!({"at": start.0 - 3_600_000 + 70_000})).unwrap();
    world.put(0, "notes/never", json!({"at": "yesterday"})).unwrap();
    for n in 0..500 {
        world.put(0, &format!("notes/{n}"), json!({"at": n})).unwrap();
    }
    world.connect(0, 1);
    world.run(5_000);
    let left = |world: &World, at: usize| {
        let documents = world.state(at).into_iter().filter(|(_, (deleted, ..))| !deleted);
        documents.map(|(document, _)| document).collect::<Vec<_>>()
    };
    assert_eq!(left(&world, 1).len(), 505);
    world.put_index(0, "age", json!({"fields": "at", "expire_after_s": 3_600}));
    // When its turn comes.
    world.run(25_000);
    for at in 0..2 {
        assert_eq!(left(&world, at), ["notes/edited", "notes/never", "notes/soon"]);
    }
    world.put(1, "notes/edited", json!({"at": start.0})).unwrap();
    // Due after 70 s, and looked for every minute.
    world.now = world.now.max(start.plus_ms(60_000));
    world.run(9_999);
    assert_eq!(left(&world, 0), ["notes/edited", "notes/never", "notes/soon"]);
    world.run(90_000);
    for at in 0..2 {
        assert_eq!(left(&world, at), ["notes/edited", "notes/never"]);
    }
    let wake = world.peers[0].wake.unwrap();
    assert!(wake <= world.now.plus_ms(60_000));
    world.drop_index(0, "age").unwrap();
    world.run(3_700_000);
    assert_eq!(left(&world, 0), ["notes/edited", "notes/never"]);
    world.audit_all();
}

#[test]
fn a_peer_that_may_not_write_leaves_expiring_to_others() {
    let mut world = World::new(2);
    world.join(1, 0, Role::Reader);
    world.put(0, "notes/a", json!({"at": 0})).unwrap();
    world.run(5_000);
    world.put_index(1, "age", json!({"fields": "at", "expire_after_s": 1}));
    world.run(100_000);
    assert_eq!(world.get(1, "notes/a"), Some(json!({"at": 0})));
    assert!(!world.peers[1].events.iter().any(|event| matches!(event, Event::StorageFailed(_))));
    world.put_index(0, "age", json!({"fields": "-at", "expire_after_s": 1}));
    world.run(5_000);
    assert_eq!(world.get(1, "notes/a"), None);
    world.audit_all();
}

#[test]
fn another_mesh_has_the_same_indexes() {
    let mut world = World::new(1);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    world.put_index(0, "by-n", json!({"fields": "n"}));
    world.run(1_000);
    world.command(
        0,
        Command::Found { name: "other".into(), local: LocalDocuments::Carry, farewell: Farewell::WithoutAdmin },
    );
    world.run(5_000);
    assert_eq!(world.listed(0, "by-n"), ["a"]);
    assert!(world.index(0, "by-n").unwrap().is_ready());
    world.audit_all();
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8, Value),
    Delete(usize, u8),
    Index(usize, u8),
    Drop(usize, u8),
    Connect,
    Disconnect,
    Restart(usize),
    Damage(usize, u8),
    Run(u64),
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (0i64..4).prop_map(Value::from),
        Just(Value::Null),
        "[ab]{0,2}".prop_map(Value::from),
        Just(json!({"b": 1})),
        Just(json!("long".repeat(400))),
        Just(json!("ab, a b: ab")),
        (-2i32..3).prop_map(|degrees| json!({"lat": degrees, "lng": 2 * degrees})),
    ];
    prop_oneof![leaf.clone(), proptest::collection::vec(leaf, 0..3).prop_map(Value::from)]
}

fn step() -> impl Strategy<Value = Step> {
    let body = (value(), value(), any::<bool>()).prop_map(|(a, b, both)| match both {
        true => json!({"a": a, "b": b}),
        false => json!({"a": a}),
    });
    prop_oneof![
        8 => (0usize..2, 0u8..6, body).prop_map(|(at, id, body)| Step::Put(at, id, body)),
        2 => (0usize..2, 0u8..6).prop_map(|(at, id)| Step::Delete(at, id)),
        2 => (0usize..2, 0u8..INDEXES).prop_map(|(at, index)| Step::Index(at, index)),
        1 => (0usize..2, 0u8..INDEXES).prop_map(|(at, index)| Step::Drop(at, index)),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => (0usize..2).prop_map(Step::Restart),
        1 => (0usize..2, 0u8..6).prop_map(|(at, id)| Step::Damage(at, id)),
        2 => (0u64..3_000).prop_map(Step::Run),
    ]
}

/// Indexes that [`declared`] knows.
const INDEXES: u8 = 11;

/// Indexes that differ, of every kind.
fn declared(index: u8) -> Value {
    match index {
        0 => json!({"fields": "a"}),
        1 => json!({"fields": "-a,b"}),
        2 => json!({"fields": "a", "unique": true}),
        3 => json!({"fields": "b", "sparse": true}),
        4 => json!({"fields": "a.b,_id", "unique": true, "sparse": true}),
        5 => json!({"fields": "a", "filter": {"b": {"$gt": 1}}}),
        6 => json!({"fields": "b", "unique": true, "filter": {"a": {"$exists": true, "$ne": null}}}),
        7 => json!({"type": "geo", "fields": "a"}),
        8 => json!({"type": "text"}),
        9 => json!({"type": "text", "fields": "b", "filter": {"a": {"$type": "string"}}}),
        _ => json!({"fields": "-b", "expire_after_s": 60}),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn indexes_are_what_a_scan_gives_after_anything(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::mesh(2);
        for step in steps {
            match step {
                Step::Put(at, id, body) => _ = world.put(at, &format!("notes/{id}"), body),
                Step::Delete(at, id) => _ = world.delete(at, &format!("notes/{id}")),
                Step::Index(at, index) => _ = world.put_index(at, &format!("i{index}"), declared(index)),
                Step::Drop(at, index) => _ = world.drop_index(at, &format!("i{index}")),
                Step::Connect => world.connect(0, 1),
                Step::Disconnect => world.disconnect_all(),
                Step::Restart(at) => world.restart(at),
                Step::Damage(at, id) => {
                    let document = key(&format!("notes/{id}"));
                    let store = &mut world.peers[at].node.store;
                    if store.record(&document).is_ok_and(|record| record.is_some()) {
                        store.damage_for_test(&document);
                        assert!(store.record(&document).is_err());
                    }
                }
                Step::Run(ms) => world.run(ms),
            }
        }
        world.connect(0, 1);
        world.run(60_000);
        for peer in &mut world.peers {
            // A document that both lost is no fault of an index.
            if peer.node.store.damaged().is_empty() {
                let audited = peer.node.audit();
                prop_assert!(audited.is_ok(), "{audited:?}");
            }
            prop_assert!(!peer.node.store.tend_indexes().unwrap(), "nothing is left to do");
        }
    }
}
