//! One actor, one sequence number, two changes: from a restored backup, and from somebody who means it.

use super::*;
use crate::access::Ability;
use crate::base::{ActorId, ChangeHash, Hlc, Incarnation};
use crate::document::{Change, Document, Envelope, Unchecked};
use crate::identity::Keypair;

/// Puts a peer back to a copy of its disk.
fn restore(world: &mut World, at: usize, copy: MemoryKv) {
    for other in 0..world.peers.len() {
        world.disconnect(at, other);
    }
    world.peers[at].kv = Arc::new(copy);
    world.restart(at);
}

fn audited(world: &mut World, at: usize) {
    world.peers[at].node.audit().unwrap();
}

#[test]
fn a_peer_that_writes_before_it_learns_that_it_is_a_backup_loses_nothing() {
    let mut world = World::mesh(3);
    let all = [(0, 1), (1, 2), (0, 2)];
    let connect = |world: &mut World| all.iter().for_each(|&(a, b)| world.connect(a, b));
    connect(&mut world);
    world.put(1, "docs/a", json!({"n": 1, "list": [1]})).unwrap();
    world.run(5_000);
    let copy = world.peers[1].kv.copy();
    world.put(1, "docs/a", json!({"n": 2, "list": [1]})).unwrap();
    world.run(5_000);
    world.put(0, "docs/a", json!({"n": 2, "list": [1], "by": "others"})).unwrap();
    world.run(5_000);
    restore(&mut world, 1, copy);
    assert_eq!(world.get(1, "docs/a"), Some(json!({"n": 1, "list": [1]})));
    world.put(1, "docs/a", json!({"n": 1, "list": [1, 2], "after": true})).unwrap();
    world.put(1, "docs/b", json!({"n": 1})).unwrap();
    connect(&mut world);
    world.run(30_000);
    let expected = json!({"n": 2, "list": [1, 2], "by": "others", "after": true});
    for at in 0..3 {
        assert_eq!(world.get(at, "docs/a"), Some(expected.clone()), "peer {at}");
        assert_eq!(world.state(at), world.state(0), "peer {at}");
        audited(&mut world, at);
    }
    world.put(1, "docs/a", json!({"n": 3})).unwrap();
    world.run(30_000);
    assert_eq!(world.get(2, "docs/a"), Some(json!({"n": 3})));
}

/// A member that signs whatever it likes.
struct Forger {
    keypair: Keypair,
    incarnation: Incarnation,
    actor: ActorId,
}

impl Forger {
    fn new(number: u8) -> Self {
        let (keypair, incarnation) = (Keypair::from_seed([number + 1; 32]), Incarnation([9; 8]));
        let actor = ActorId::derive(&keypair.peer_id(), &incarnation);
        Self { keypair, incarnation, actor }
    }

    fn sign(&self, world: &World, change: &Change) -> Unchecked {
        let node = &world.peers[0].node;
        let grant = node.members.check(&self.keypair.peer_id(), Ability::Write).unwrap().id();
        let (mesh, incarnation) = (node.mesh(), self.incarnation);
        Envelope::sign(&self.keypair, mesh, key("docs/a"), incarnation, grant, change.clone()).to_unchecked()
    }

    /// The first change, and two others that both come second.
    fn fork(&self, world: &World) -> [Change; 3] {
        let at = |n| Hlc::from_physical(world.now.plus_ms(n));
        let (mut one, first) = Document::create(self.actor, at(0), &object(json!({"n": 0}))).unwrap();
        let mut other = Document::new();
        other.apply([first.clone()]).unwrap();
        let left = one.replace(self.actor, at(1), &object(json!({"n": 1}))).unwrap().unwrap();
        let right = other.replace(self.actor, at(1), &object(json!({"n": 2}))).unwrap().unwrap();
        [first, left, right]
    }
}

fn deliver(world: &mut World, to: usize, changes: Vec<Unchecked>) {
    let from = world.id(3);
    world.feed(to, vec![Input::Received(from, Box::new(Message::Changes { number: 1, changes }))]);
}

#[test]
fn whatever_side_of_a_fork_comes_first_all_peers_end_on_the_same_and_keep_the_proof() {
    for order in 0..2 {
        let mut world = World::mesh(4);
        let forger = Forger::new(3);
        let [first, left, right] = forger.fork(&world);
        let (stands, falls) = if left.hash() < right.hash() { (&left, &right) } else { (&right, &left) };
        let sides = if order == 0 { [stands, falls] } else { [falls, stands] };
        for (to, side) in [1, 2].into_iter().zip(sides) {
            world.connect(to, 3);
            world.run(1_000);
            let changes = [&first, side].map(|change| forger.sign(&world, change)).to_vec();
            deliver(&mut world, to, changes);
            // An honest peer builds on what it has.
            let mut body = world.get(to, "docs/a").unwrap();
            body[format!("by{to}")] = json!(true);
            world.put(to, "docs/a", body).unwrap();
            world.disconnect(to, 3);
        }
        world.connect(0, 1);
        world.connect(1, 2);
        world.run(60_000);
        let n = if *stands == left { 1 } else { 2 };
        for at in 0..3 {
            assert_eq!(world.get(at, "docs/a"), Some(json!({"n": n, "by1": true, "by2": true})), "peer {at}");
            audited(&mut world, at);
        }
        let heads: Vec<Vec<ChangeHash>> = (0..3).map(|at| world.state(at)["docs/a"].1.clone()).collect();
        assert!(heads.iter().all(|of| *of == heads[0]));
        let forks: Vec<BTreeMap<PeerId, u64>> = (0..3).map(|at| world.sync_report(at).forks).collect();
        assert!(forks.contains(&BTreeMap::from([(world.id(3), 1)])), "{forks:?}");
        assert!(forks.iter().flat_map(BTreeMap::keys).all(|by| *by == world.id(3)), "{forks:?}");
    }
}

#[test]
fn a_fork_within_a_run_is_settled_too() {
    let mut world = World::mesh(4);
    world.connect(1, 3);
    world.run(1_000);
    for n in 0..70 {
        world.put(3, "docs/a", json!({"n": n})).unwrap();
    }
    let copy = world.peers[3].kv.copy();
    for n in 70..100 {
        world.put(3, "docs/a", json!({"n": n})).unwrap();
    }
    world.run(5_000);
    restore(&mut world, 3, copy);
    for n in 0..60 {
        world.put(3, "docs/a", json!({"n": 69, "other": n})).unwrap();
    }
    world.connect(2, 3);
    world.run(5_000);
    assert_eq!(world.get(2, "docs/a"), Some(json!({"n": 69, "other": 59})));
    world.connect(1, 2);
    world.connect(1, 3);
    world.run(60_000);
    for at in 1..4 {
        assert_eq!(world.get(at, "docs/a"), Some(json!({"n": 99, "other": 59})), "peer {at}");
        assert_eq!(world.state(at), world.state(1), "peer {at}");
        audited(&mut world, at);
    }
}

/// A backup of peer 1 is restored, which edits `list` before it learns of what it had forgotten, while peer 0 has edited
/// the list too; what it comes to.
fn list_edited_on_a_backup(before: Value, others: Value, mine: Value) -> Value {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.put(1, "docs/a", json!({"list": before})).unwrap();
    world.run(5_000);
    let copy = world.peers[1].kv.copy();
    world.put(1, "docs/a", json!({"list": before, "forgotten": true})).unwrap();
    world.run(5_000);
    world.put(0, "docs/a", json!({"list": others, "forgotten": true})).unwrap();
    world.run(5_000);
    restore(&mut world, 1, copy);
    world.put(1, "docs/a", json!({"list": mine})).unwrap();
    world.connect(0, 1);
    world.run(30_000);
    assert_eq!(world.state(0), world.state(1));
    audited(&mut world, 0);
    audited(&mut world, 1);
    let mut document = world.get(0, "docs/a").unwrap();
    assert_eq!(document["forgotten"], json!(true));
    document["list"].take()
}

#[test]
fn an_edit_of_a_list_is_made_again_as_the_edit_that_it_was() {
    let check = |before: Value, others: Value, mine: Value, expected: Value| {
        assert_eq!(list_edited_on_a_backup(before, others, mine), expected);
    };
    // Removed one and added one; the others have added one in front.
    check(json!([1, 2, 3, 4]), json!(["x", 1, 2, 3, 4]), json!([1, 3, 4, "mine"]), json!(["x", 1, 3, 4, "mine"]));
    // Put one into the middle, while the others removed the one in front of it.
    check(json!([1, 2, 3, 4]), json!([1, 3, 4]), json!([1, 2, "mine", 3, 4]), json!([1, "mine", 3, 4]));
    // Replaced one; the others have removed another and added one.
    check(json!([1, 2, 3]), json!([2, 3, 4]), json!([1, "mine", 3]), json!(["mine", 3, 4]));
    // A field of an object within the list, of which the others have changed another field.
    check(
        json!([{"a": 1, "b": 1}, {"c": 1}]),
        json!([{"a": 1, "b": 2}, {"c": 1}, {"new": 1}]),
        json!([{"a": 2, "b": 1}, {"c": 1}]),
        json!([{"a": 2, "b": 2}, {"c": 1}, {"new": 1}]),
    );
    // A list within a list.
    check(json!([[1, 2], [3]]), json!([[1, 2], [3, 4]]), json!([[0, 1, 2], [3]]), json!([[0, 1, 2], [3, 4]]));
}
