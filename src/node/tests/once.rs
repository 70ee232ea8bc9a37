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
    world.peers[at].node.counters.known
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
