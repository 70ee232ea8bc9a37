//! Changes under one signature: what peers keep of long histories, send of them, and refuse.

use super::*;
use crate::access::Ability;
use crate::base::{ActorId, Hlc, Incarnation};
use crate::document::{Change, Document, Envelope, Unchecked};
use crate::identity::Keypair;

/// Everything that a peer has of a document, as it sends it.
fn sent(world: &mut World, at: usize, document: &str) -> Vec<Unchecked> {
    let store = &mut world.peers[at].node.store;
    let record = store.record(&key(document)).unwrap().unwrap();
    let mut cursor = store.missing(&key(document), &record, &[]).unwrap();
    let changes = store.stream(&mut cursor, usize::MAX).unwrap();
    assert_eq!(cursor.changes(), 0);
    changes
}

fn audit(world: &mut World, at: usize, document: &str) -> u64 {
    let mesh = world.peers[at].node.mesh();
    world.peers[at].node.store.audit_document(mesh, &key(document)).unwrap()
}

#[test]
fn a_long_history_keeps_few_signatures_and_arrives_whole() {
    let mut world = World::mesh(2);
    for n in 0..300 {
        world.put(0, "docs/a", json!({"n": n})).unwrap();
    }
    let runs: Vec<usize> = sent(&mut world, 0, "docs/a").iter().map(|change| change.run.payloads().len()).collect();
    // Two blocks of 128, one step of 32, and what is loose.
    assert_eq!(runs, [vec![128, 128, 32], vec![1; 12]].concat());
    assert_eq!(audit(&mut world, 0, "docs/a"), 300);
    // A peer that has the beginning gets the ends of runs.
    world.connect(0, 1);
    world.run(5_000);
    assert_eq!(world.state(0), world.state(1));
    assert_eq!(audit(&mut world, 1, "docs/a"), 300);
    world.disconnect_all();
    world.restart(1);
    for n in 0..90 {
        world.put(0, "docs/a", json!({"more": n})).unwrap();
    }
    world.connect(0, 1);
    world.run(5_000);
    assert_eq!(world.state(0), world.state(1));
    assert_eq!(audit(&mut world, 1, "docs/a"), 390);
    assert!(sent(&mut world, 1, "docs/a").len() < 25);
}

#[test]
fn a_run_that_ends_badly_is_refused_whole_and_its_sender_dropped() {
    let mut world = World::mesh(3);
    world.connect(1, 2);
    world.run(1_000);
    let (keypair, incarnation) = (Keypair::from_seed([3; 32]), Incarnation([9; 8]));
    let actor = ActorId::derive(&keypair.peer_id(), &incarnation);
    assert_eq!(keypair.peer_id(), world.id(2));
    let at = |n| Hlc::from_physical(world.now.plus_ms(n));
    let (mut document, first) = Document::create(actor, at(0), &object(json!({"n": 1}))).unwrap();
    let second = document.replace(actor, at(1), &object(json!({"n": 2}))).unwrap().unwrap();
    let bad = Change::sample(actor, 3, second.max_op() + 7, &[second.hash()]);
    let (mesh, grant) = {
        let node = &world.peers[2].node;
        (node.mesh(), node.members.check(&keypair.peer_id(), Ability::Write).unwrap().id())
    };
    let mut run = Run::of(first.payload().clone());
    run.join(Run::of(second.payload().clone())).unwrap();
    let sign = |change| Envelope::sign(&keypair, mesh, key("docs/a"), incarnation, grant, change).to_unchecked();
    let good = Unchecked { run: run.clone(), ..sign(second) };
    run.join(Run::of(bad.payload().clone())).unwrap();
    let bad = Unchecked { run, ..sign(bad) };
    let from = world.id(2);
    let changes = |changes| vec![Input::Received(from, Box::new(Message::Changes { number: 1, changes }))];
    world.feed(1, changes(vec![bad.clone()]));
    assert_eq!(world.state(1), BTreeMap::new());
    assert!(!world.links.contains(&(1, 2)));
    // Beside good ones it does no harm.
    world.connect(1, 2);
    world.run(1_000);
    world.feed(1, changes(vec![bad, good]));
    assert_eq!(world.get(1, "docs/a"), Some(json!({"n": 2})));
    assert_eq!(audit(&mut world, 1, "docs/a"), 2);
    assert!(!world.links.contains(&(1, 2)));
}

#[test]
fn runs_that_overlap_are_kept_once() {
    let mut world = World::mesh(3);
    for n in 0..64 {
        world.put(0, "docs/a", json!({"n": n})).unwrap();
    }
    let whole = sent(&mut world, 0, "docs/a").remove(0);
    assert_eq!(whole.run.payloads().len(), 64);
    for n in 0..32 {
        world.put(0, "docs/a", json!({"m": n})).unwrap();
    }
    let longer = sent(&mut world, 0, "docs/a").remove(0);
    let end = Unchecked { run: longer.run.clone().last(80), ..longer.clone() };
    world.connect(0, 1);
    world.connect(0, 2);
    world.run(1);
    let from = world.id(0);
    for (at, changes) in [(1, vec![end.clone(), whole.clone()]), (2, vec![longer, whole, end])] {
        world.run(1_000);
        world.feed(at, vec![Input::Received(from, Box::new(Message::Changes { number: 1, changes }))]);
        assert_eq!(world.state(at), world.state(0));
        assert_eq!(audit(&mut world, at, "docs/a"), 96);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Edit(usize, u8),
    Exchange(usize, usize),
    Restart(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn however_long_peers_edit_alone_their_logs_hold_together(
        steps in prop::collection::vec(prop_oneof![
            4 => (0usize..3, 1u8..90).prop_map(|(at, edits)| Step::Edit(at, edits)),
            3 => (0usize..3, 0usize..3).prop_map(|(a, b)| Step::Exchange(a, b)),
            1 => (0usize..3).prop_map(Step::Restart),
        ], 1..16),
    ) {
        let mut world = World::mesh(3);
        world.gossip = false;
        let mut count = 0;
        for step in steps {
            match step {
                Step::Edit(at, edits) => for _ in 0..edits {
                    count += 1;
                    world.put(at, "docs/a", json!({"n": count})).unwrap();
                },
                Step::Exchange(a, b) => {
                    world.connect(a, b);
                    world.run(3_000);
                    world.disconnect_all();
                }
                Step::Restart(at) => world.restart(at),
            }
        }
        world.connect(0, 1);
        world.connect(1, 2);
        world.run(60_000);
        for at in 0..3 {
            prop_assert_eq!(world.state(at), world.state(0));
            if count > 0 {
                prop_assert_eq!(audit(&mut world, at, "docs/a"), count);
            }
        }
    }
}
