//! Many collections: what was made apart comes together, and comparing costs what differs.

use super::*;
use crate::limits::{COLLECTIONS_MAX, SYNC_COLLECTIONS_MAX};

/// Makes so many collections of one document.
fn make(world: &mut World, at: usize, count: usize) {
    for n in 0..count {
        world.put(at, &format!("c{at}-{n:05}/a"), json!({"n": n})).unwrap();
    }
}

#[test]
fn collections_that_were_made_apart_come_together() {
    let mut world = World::mesh(2);
    make(&mut world, 0, 600);
    make(&mut world, 1, 600);
    world.connect(0, 1);
    world.run(20_000);
    assert_eq!(world.state(0).len(), 1_200);
    assert_eq!(world.state(0), world.state(1));
    for at in 0..2 {
        assert_eq!(world.sync_report(at).dropped, BTreeMap::new());
    }
}

/// Of a peer that lets them be made.
#[test]
fn documents_that_no_url_can_name_are_made_nowhere_and_taken_from_others() {
    let mut world = World::mesh(2);
    for document in ["notes/.", "notes/.."] {
        assert!(matches!(world.put(0, document, json!({})), Err(Error::Invalid(_))));
        let now = world.now;
        world.peers[1].node.put(now, key(document), &object(json!({"n": 1})), &Condition::Any).unwrap();
    }
    world.connect(0, 1);
    world.run(5_000);
    for document in ["notes/.", "notes/.."] {
        assert_eq!(world.get(0, document), Some(json!({"n": 1})));
        world.put(0, document, json!({"n": 2})).unwrap();
        world.delete(0, document).unwrap();
        assert!(world.put(0, document, json!({})).is_err(), "it is gone for good");
    }
}

/// Bytes and messages of the next comparison.
fn spent(world: &mut World, act: impl FnOnce(&mut World)) -> (u64, u64) {
    let before = (world.sent_bytes, world.sent.values().sum::<u64>());
    act(world);
    (world.sent_bytes - before.0, world.sent.values().sum::<u64>() - before.1)
}

#[test]
fn comparing_many_collections_costs_what_differs() {
    let mut world = World::mesh(2);
    world.gossip = false;
    make(&mut world, 0, 3_000);
    world.connect(0, 1);
    world.run(20_000);
    assert_eq!(world.state(0), world.state(1));
    world.run(120_000);
    // Both ask once in 40 s at most, and each question has one answer.
    let (bytes, messages) = spent(&mut world, |world| world.run(40_000));
    assert!((2..=8).contains(&messages) && bytes / messages < 2_000, "{bytes} bytes, {messages} messages at rest");
    let (bytes, messages) = spent(&mut world, |world| {
        world.put(0, "c0-01234/b", json!({"n": 1})).unwrap();
        world.run(4_000);
    });
    assert_eq!(world.get(1, "c0-01234/b"), Some(json!({"n": 1})));
    assert!(bytes < 12_000 && messages < 24, "{bytes} bytes, {messages} messages for one document");
    let report = world.sync_report(0);
    assert_eq!((report.collections.len(), report.collections_total), (SYNC_COLLECTIONS_MAX, 3_000));
    assert!(report.collections.iter().all(|collection| collection.peers[0].standing.equal));
}

#[test]
fn what_differs_is_told_though_there_are_many() {
    let mut world = World::mesh(2);
    make(&mut world, 0, 1_100);
    world.connect(0, 1);
    world.run(20_000);
    world.disconnect(0, 1);
    // The last one, which a list from the front would not show.
    world.put(0, "c0-01099/b", json!({})).unwrap();
    world.connect(0, 1);
    let found = (0..60).any(|_| {
        world.run(LATENCY_MS);
        let report = world.sync_report(1);
        report.collections.iter().any(|of| of.collection.as_str() == "c0-01099" && !of.peers[0].standing.equal)
    });
    assert!(found);
    world.run(5_000);
    assert_eq!(world.state(0), world.state(1));
}

#[test]
fn names_that_cut_nothing_are_compared_too() {
    // Chosen so that none of them is a boundary.
    let is_boundary = |name: &String| blake3::hash(name.as_bytes()).as_bytes()[0] & 0x0f == 0;
    let names: Vec<String> =
        (0..1_000).map(|n| format!("c{n:04}")).filter(|name| !is_boundary(name)).take(300).collect();
    let mut world = World::mesh(2);
    for (n, name) in names.iter().enumerate() {
        world.put(n % 2, &format!("{name}/a"), json!({"n": n})).unwrap();
    }
    world.connect(0, 1);
    world.run(10_000);
    assert_eq!(world.state(0).len(), 300);
    assert_eq!(world.state(0), world.state(1));
}

#[test]
fn only_the_peer_that_makes_a_collection_too_many_refuses_it() {
    let mut world = World::mesh(2);
    world.put(1, "full/a", json!({})).unwrap();
    let store = &mut world.peers[1].node.store;
    for n in 1..COLLECTIONS_MAX {
        store.create_collection(&format!("c{n}").parse().unwrap()).unwrap();
    }
    let create = |world: &mut World, name: &str| world.ask(1, Command::CreateCollection(name.parse().unwrap()));
    assert!(matches!(create(&mut world, "more"), Err(Error::Invalid(_))));
    assert!(matches!(world.put(1, "more/a", json!({})), Err(Error::Invalid(_))));
    // Those that are there take documents, and what others have made is taken.
    world.put(1, "full/b", json!({})).unwrap();
    world.put(0, "others/a", json!({"n": 1})).unwrap();
    world.connect(0, 1);
    world.run(5_000);
    assert_eq!(world.get(1, "others/a"), Some(json!({"n": 1})));
    assert_eq!(world.sync_report(1).dropped, BTreeMap::new());
    // What was dropped makes room for others, and needs a place to come back.
    world.delete(1, "others/a").unwrap();
    assert!(matches!(world.put(1, "more/a", json!({})), Err(Error::Invalid(_))));
    world.delete(1, "full/a").unwrap();
    world.delete(1, "full/b").unwrap();
    world.put(1, "more/a", json!({})).unwrap();
    assert!(matches!(world.put(1, "full/a", json!({})), Err(Error::Invalid(_))));
    world.put(1, "more/b", json!({})).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_two_sets_of_collections_come_together(
        names in prop::collection::btree_map(0u16..2_000, (any::<bool>(), any::<bool>()), 0..250),
    ) {
        let mut world = World::mesh(2);
        for (n, (here, there)) in &names {
            for (at, writes) in [(0, here), (1, there)] {
                if *writes {
                    world.put(at, &format!("c{n}/{at}"), json!({"n": n})).unwrap();
                }
            }
        }
        world.connect(0, 1);
        world.run(15_000);
        prop_assert_eq!(world.state(0), world.state(1));
        for at in 0..2 {
            let report = world.sync_report(at);
            prop_assert!(report.collections.iter().all(|of| of.peers[0].standing.equal));
        }
    }
}

#[test]
fn a_document_of_very_many_actors_is_compared_and_sent() {
    let mut world = World::mesh(2);
    world.put(0, "docs/a", json!({"n": 0})).unwrap();
    world.connect(0, 1);
    world.run(2_000);
    let actors = crate::limits::DOCUMENT_ACTORS_MAX + 10;
    let vector = (0..actors).map(|n| (crate::base::ActorId((n as u128).to_be_bytes()), 1)).collect();
    let messages = crate::sync::reconcile::want(7, &"docs".parse().unwrap(), vec![("a".parse().unwrap(), vector)]);
    for items in messages {
        let bytes = Message::Items(items).to_bytes();
        assert!(crate::sync::message::decode(&bytes).is_ok());
    }
    let vectors = (0..100u128).map(|n| {
        let vector = (0..1_000).map(|m| (crate::base::ActorId((n * 1_000 + m).to_be_bytes()), 1)).collect();
        (format!("{n:03}").parse().unwrap(), vector)
    });
    let messages = crate::sync::reconcile::want(7, &"docs".parse().unwrap(), vectors.collect());
    assert_eq!(messages.iter().map(|items| items.items.len()).sum::<usize>(), 100);
    assert!(messages.into_iter().all(|items| crate::sync::message::decode(&Message::Items(items).to_bytes()).is_ok()));
}
