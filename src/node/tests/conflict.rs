//! Conflicts: how many a document has is in its record, on every peer, and they are found by their marks.

use super::*;

/// The documents with conflicts, and how many each has.
fn conflicting(world: &World, at: usize) -> Vec<(String, u64)> {
    let reader = world.peers[at].node.reader();
    let page = reader.conflicting(&"docs".parse().unwrap(), None, 10).unwrap();
    assert_eq!((page.next, page.damaged), (None, vec![]));
    page.documents.iter().map(|(id, record)| (id.to_string(), record.conflict_count())).collect()
}

/// How often a document stands in the feed behind a position, and with how many conflicts.
fn told(world: &World, at: usize, since: u64) -> Vec<(String, u64)> {
    let (reader, end) = (world.peers[at].node.reader(), world.peers[at].node.feed_end());
    let page = reader.feed(&"docs".parse().unwrap(), Some(end.at(since)), end, "", 100).unwrap();
    page.entries.iter().map(|(id, record, _)| (id.to_string(), record.conflict_count())).collect()
}

fn audit(world: &mut World) {
    for peer in &mut world.peers {
        peer.node.audit().unwrap();
    }
}

/// Two peers that edited `docs/a` in two places apart, and `docs/b` to equal values.
fn apart() -> World {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.put(0, "docs/a", json!({"wind": 1, "sea": {"swell": 1}, "calm": 1})).unwrap();
    world.put(0, "docs/b", json!({"wind": 1})).unwrap();
    world.put(0, "docs/c", json!({"wind": 1})).unwrap();
    world.run(2_000);
    world.disconnect(0, 1);
    for at in [0, 1] {
        world.put(at, "docs/a", json!({"wind": 2 + at, "sea": {"swell": 2 + at}, "calm": 1})).unwrap();
        world.put(at, "docs/b", json!({"wind": 5})).unwrap();
    }
    world.put(1, "docs/c", json!({"wind": 2})).unwrap();
    world
}

#[test]
fn a_conflict_is_counted_on_both_sides_and_told_in_the_feed_of_the_winner_too() {
    let mut world = apart();
    for at in [0, 1] {
        assert_eq!(conflicting(&world, at), []);
    }
    let since = [0, 1].map(|at| world.peers[at].node.position());
    world.connect(0, 1);
    world.run(2_000);
    for at in [0, 1] {
        assert_eq!(conflicting(&world, at), [("a".into(), 2)], "{at}");
        assert!(told(&world, at, since[at]).contains(&("a".into(), 2)), "{at}");
    }
    audit(&mut world);
    // A deleted document has none; brought back it has those that it had.
    world.disconnect(0, 1);
    world.delete(1, "docs/a").unwrap();
    assert_eq!(conflicting(&world, 1), []);
    let wind = world.get(0, "docs/a").unwrap()["wind"].clone();
    world.put(0, "docs/a", json!({"wind": wind, "sea": {"swell": 9}, "calm": 1})).unwrap();
    assert_eq!(conflicting(&world, 0), [("a".into(), 1)], "one of the two is settled");
    world.connect(0, 1);
    world.run(2_000);
    for at in [0, 1] {
        assert_eq!(conflicting(&world, at), [("a".into(), 1)], "{at}");
    }
    audit(&mut world);
    world.put(1, "docs/a", json!({"wind": 9})).unwrap();
    world.run(2_000);
    for at in [0, 1] {
        assert_eq!(conflicting(&world, at), [], "{at}");
    }
    audit(&mut world);
}

#[test]
fn documents_of_an_older_version_are_counted_after_a_start() {
    let mut world = apart();
    world.connect(0, 1);
    world.run(2_000);
    world.disconnect_all();
    for document in ["docs/a", "docs/b", "docs/c"] {
        world.peers[1].node.store.forget_conflicts_for_test(&key(document));
    }
    assert_eq!(conflicting(&world, 1), []);
    let position = world.peers[1].node.position();
    world.restart(1);
    world.run(1_000);
    assert_eq!(conflicting(&world, 1), [("a".into(), 2)]);
    assert_eq!(world.peers[1].node.position(), position, "nothing is told anew in the feed");
    audit(&mut world);
    assert!(!world.peers[1].node.store.tend_conflicts().unwrap(), "it is done once");
}

#[test]
fn a_page_of_conflicts_goes_on_where_the_one_before_ended() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    let ids: Vec<String> = (0..25).map(|n| format!("docs/{n:02}")).collect();
    for id in &ids {
        world.put(0, id, json!({"n": 0})).unwrap();
    }
    world.run(2_000);
    world.disconnect(0, 1);
    for (n, id) in ids.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        world.put(0, id, json!({"n": n + 1})).unwrap();
        world.put(1, id, json!({"n": n + 100})).unwrap();
    }
    world.connect(0, 1);
    world.run(5_000);
    let reader = world.peers[0].node.reader();
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = reader.conflicting(&"docs".parse().unwrap(), after.as_ref(), 5).unwrap();
        assert!(page.documents.len() <= 5);
        found.extend(page.documents.into_iter().map(|(id, _)| id.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, (0..25).step_by(2).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    let none = reader.conflicting(&"other".parse().unwrap(), None, 5).unwrap();
    assert!(none.documents.is_empty() && none.next.is_none());
}
