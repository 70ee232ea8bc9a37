//! Deletes of many documents.

use super::*;

#[test]
fn documents_need_not_be_opened_to_be_deleted_here_or_there() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    for n in 0..30 {
        world.put(0, &format!("docs/{n}"), json!({"n": n, "list": [1, 2, 3]})).unwrap();
    }
    world.run(2_000);
    // Of some documents both are authors.
    for n in 0..10 {
        world.put(1, &format!("docs/{n}"), json!({"n": n + 1, "list": [1, 2, 3]})).unwrap();
    }
    world.run(2_000);
    world.disconnect_all();
    world.restart(0);
    world.restart(1);
    world.connect(0, 1);
    world.run(2_000);
    let opened = |world: &World| [0, 1].map(|at| world.peers[at].node.store.open_use().misses);
    let before = opened(&world);
    for n in 0..30 {
        world.delete(1, &format!("docs/{n}")).unwrap();
    }
    world.run(5_000);
    assert_eq!(opened(&world), before);
    for at in [0, 1] {
        assert!((0..30).all(|n| world.get(at, &format!("docs/{n}")).is_none()));
        world.peers[at].node.audit().unwrap();
    }
    // What comes after a delete opens them.
    world.put(0, "docs/0", json!({"back": true})).unwrap();
    world.delete(0, "docs/0").unwrap();
    world.put(1, "docs/1", json!({"back": true})).unwrap();
    world.run(5_000);
    for at in [0, 1] {
        assert_eq!(world.get(at, "docs/0"), None);
        assert_eq!(world.get(at, "docs/1"), Some(json!({"back": true})));
        world.peers[at].node.audit().unwrap();
    }
}
