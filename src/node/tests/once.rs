//! What is sent once is not sent again.

use super::*;

/// Bytes that a line of 20 Mbit/s carries in a millisecond.
const SLOW: u64 = 2_500;

/// Text that does not pack.
fn noise(bytes: usize, seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..bytes).map(|_| char::from(rng.random_range(b'!'..=b'~'))).collect()
}

/// Writes documents of 4 KiB, some at a time.
fn load(world: &mut World, at: usize, name: &str, count: u64) {
    for n in 0..count {
        let (document, condition) = (key(&format!("docs/{name}-{n}")), Condition::Any);
        let body = object(json!({"text": noise(4_096, n)}));
        world.ask(at, Command::Put { document, body, condition }).unwrap();
        if n % 10 == 9 {
            world.run(2);
        }
    }
}

fn known(world: &World, at: usize) -> u64 {
    world.peers[at].node.counters.known.all()
}

#[test]
fn a_peer_that_is_alone_publishes_nothing() {
    let mut world = World::new(1);
    let (document, condition) = (key("docs/a"), Condition::Any);
    let put = Command::Put { document, body: object(json!({"n": 1})), condition };
    let effects = world.peers[0].node.handle(world.now, vec![Input::Command(1, put)]);
    assert!(!effects.0.iter().any(|effect| matches!(effect, Effect::Publish(..))));
}

#[test]
fn peers_that_ask_each_other_at_about_the_same_time_send_once() {
    let mut world = World::mesh(2);
    world.gossip = false;
    world.connect(0, 1);
    world.run(2_000);
    for apart in 0..4 * LATENCY_MS {
        for (first, second) in [(0, 1), (1, 0)] {
            for (at, wait) in [(first, apart), (second, 5_000)] {
                for n in 0..50 {
                    world.put(at, &format!("docs/{first}-{apart}-{at}-{n}"), json!({"n": n})).unwrap();
                }
                world.run(wait);
            }
            assert_eq!(world.state(0), world.state(1));
            assert_eq!((known(&world, 0), known(&world, 1)), (0, 0), "{first} wrote {apart} ms before {second}");
        }
    }
}

#[test]
fn a_load_over_a_slow_line_is_sent_once() {
    let mut world = World::mesh(2);
    world.rate = SLOW;
    world.connect(0, 1);
    world.run(2_000);
    load(&mut world, 0, "a", 1_000);
    world.run(10_000);
    assert_eq!(world.state(0), world.state(1));
    assert!(known(&world, 1) <= 70, "{} of 1000 came twice", known(&world, 1));
}

#[test]
fn who_comes_back_over_a_slow_line_gets_everything_once() {
    let mut world = World::mesh(2);
    world.rate = SLOW;
    load(&mut world, 0, "a", 1_000);
    world.connect(0, 1);
    world.run(10_000);
    assert_eq!(world.state(0), world.state(1));
    assert_eq!(known(&world, 1), 0);
}

/// Peer 0 with many documents, and two more that have them as well.
fn three_with_a_load() -> World {
    let mut world = World::mesh(4);
    load(&mut world, 0, "a", 1_000);
    world.connect(0, 1);
    world.connect(0, 2);
    world.connect(1, 2);
    world.run(10_000);
    world.rate = SLOW;
    world
}

#[test]
fn who_comes_back_to_many_gets_everything_once() {
    let mut world = three_with_a_load();
    world.put(3, "docs/own", json!({"written": "while away"})).unwrap();
    for at in 0..3 {
        world.connect(3, at);
    }
    world.run(15_000);
    for at in 0..3 {
        assert_eq!(world.state(at), world.state(3));
    }
    assert_eq!(known(&world, 3), 0);
}

#[test]
fn a_neighbour_that_only_says_that_it_has_much_keeps_others_away_for_a_while_only() {
    let mut world = World::mesh(3);
    load(&mut world, 0, "a", 500);
    world.connect(1, 2);
    world.run(2_000);
    // From now on nothing is heard of peer 1 but what is made up here.
    let liar = world.id(1);
    world.links.retain(|link| *link != (1, 2) && *link != (2, 1));
    let claim = |world: &mut World| {
        let (collection, salt) = ("docs".parse().unwrap(), world.now.0);
        let roots = vec![crate::sync::Root { collection, count: 1 << 40, fingerprint: [7; 16] }];
        let parts = vec![(None, Names::Listed(roots))];
        let claim = Message::Roots(crate::sync::Roots { salt, step: RootsStep::Question, documents: 1 << 40, parts });
        world.feed(2, vec![Input::Received(liar, Box::new(claim))]);
        world.run(500);
    };
    claim(&mut world);
    world.connect(0, 2);
    (0..200).for_each(|_| claim(&mut world));
    assert_eq!(world.state(2).len(), 0);
    (0..50).for_each(|_| claim(&mut world));
    assert_eq!(world.state(2).len(), 500);
}

/// How often peers of a mesh of four, all of them connected, were sent what they had, beside how much came to them.
fn of_live_writes(write: impl Fn(&mut World, u64)) -> (u64, u64) {
    let mut world = World::mesh(4);
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        world.connect(a, b);
    }
    world.run(5_000);
    (0..400).for_each(|n| write(&mut world, n));
    world.run(5_000);
    for at in 1..4 {
        assert_eq!(world.state(0), world.state(at));
    }
    let counters = || world.peers.iter().map(|peer| peer.node.counters());
    // Copies of gossip messages, which this world hands to the node and the network does not.
    (
        counters().map(|counters| counters.known.comparing + counters.known.reconnecting).sum(),
        counters().map(|c| c.applied).sum(),
    )
}

#[test]
fn comparing_sends_nothing_that_gossip_is_bringing() {
    let edits = |world: &mut World, n: u64| {
        world.put((n % 4) as usize, &format!("docs/{}", n % 7), json!({"n": n})).unwrap();
        world.run(1 + 13 * (n % 5));
    };
    let (twice, came) = of_live_writes(edits);
    assert!(came >= 1_200 && twice == 0, "{twice} of {came} came by comparing, and were there");
}

#[test]
fn what_gossip_has_lost_is_brought_by_comparing_while_others_write() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run(5_000);
    for n in 0..60 {
        world.gossip = n != 10;
        world.put(0, &format!("docs/{n}"), json!({"n": n})).unwrap();
        world.put(0, "docs/hot", json!({"n": n})).unwrap();
        world.run(50);
        // It comes by the second comparison after it was written at the latest.
        assert!(n < 50 || world.get(1, "docs/10").is_some(), "not there after {} ms", 50 * (n - 10));
    }
    world.run(2_000);
    assert_eq!(world.state(0), world.state(1));
}
