//! Runs of the shipped scenarios, each twice; failures of the past; and whether the checkers see what is wrong.

use netsim::hostile::Villain;
use netsim::memory::{self, Tracked};
use netsim::scenario::{Act, Scenario, Step};
use netsim::world::World;
use netsim::{Span, check, data, run};

#[global_allocator]
static ALLOCATOR: Tracked = Tracked::system();

/// Seeds of each scenario here. The program runs as many as there is time for.
const SEEDS: u64 = 2;

/// Runs that failed once, and what was wrong.
const FAILED_ONCE: &[(&str, u64, &str)] = &[
    ("rot", 0, "a change in the middle of a log was lost with a record of the journal, and nobody noticed"),
    ("backup-online", 26, "a restored peer used sequence numbers twice, and the mesh stayed split"),
    ("mixed", 322, "the simulator made a list anew that a disk had lost, beside the one that others had"),
    ("mixed", 360, "the simulator expected what two disks had lost, one after the other"),
    ("mixed", 187, "the simulator did not start a peer again whose power went while it started"),
];

fn clean_twice(name: &str, seed: u64) {
    let scenario = Scenario::load(name).expect("it comes with the program");
    if let Err(missing) = data::check(&scenario.workload) {
        eprintln!("{name}: skipped: {missing}");
        return;
    }
    memory::track();
    let (first, second) = (run(&scenario, seed), run(&scenario, seed));
    assert!(first.wrong.is_empty(), "netsim run {name} --seeds {seed}: {:#?}", first.wrong);
    assert_eq!(first.trace, second.trace, "netsim run {name} --seeds {seed} --twice");
    assert!(first.memory_max > 0, "nobody counted the memory of {name}");
    assert!(first.writes > 0 && first.messages > 0, "nothing happened in {name}");
}

macro_rules! scenarios {
    ($($test:ident: $name:literal,)*) => {$(
        #[test]
        fn $test() {
            (0..SEEDS).for_each(|seed| clean_twice($name, seed));
        }
    )*};
}

scenarios! {
    an_author_that_leaves: "author-leaves",
    a_backfill: "backfill",
    a_calm_mesh: "calm",
    a_paper_typed_key_by_key: "paper",
    a_third_that_is_hostile: "hostile",
    everything_at_once: "mixed",
    indexes_that_come_and_go: "indexes",
    an_old_backup: "old-backup",
    two_changes_under_one_number: "equivocation",
    a_fresh_mesh_that_goes_quiet: "quiet-19",
    peers_behind_nats: "relay-only",
    places_loaded_dozens_at_a_time: "cities",
    a_restart_of_everybody: "restart-all",
    rotten_bits: "rot",
    a_clock_that_is_a_day_ahead: "wrong-clocks",
}

#[test]
fn what_failed_once_does_not_any_more() {
    for (name, seed, what) in FAILED_ONCE {
        let outcome = run(&Scenario::load(name).expect("it comes with the program"), *seed);
        assert!(outcome.wrong.is_empty(), "{what}: {:#?}", outcome.wrong);
    }
}

#[test]
fn another_seed_is_another_run() {
    let scenario = Scenario::load("calm").expect("it comes with the program");
    assert_ne!(run(&scenario, 1).trace, run(&scenario, 2).trace);
}

fn founded(peers: usize) -> World {
    let mut world = World::new(&Scenario::quiet("checked", peers, Span::seconds(1)), 7);
    world.found().expect("nothing is in the way");
    world
}

/// Lets a peer write, and waits.
fn write(world: &mut World, host: usize, times: usize) {
    for _ in 0..times {
        let write = world.writer.create(&mut world.rng);
        world.write(host, write);
        let until = world.now + Span::seconds(1);
        world.run_until(until);
    }
}

fn settle(world: &mut World) {
    let until = world.now + Span::seconds(60);
    world.run_until(until);
}

#[test]
fn a_lost_write_is_seen() {
    let mut world = founded(3);
    settle(&mut world);
    let copy = world.hosts[1].disk.backup(1);
    let others = [(1, 0), (0, 1), (1, 2), (2, 1)];
    world.block(&others);
    write(&mut world, 1, 3);
    // A disk that forgets: the acknowledged writes were nowhere else.
    world.stop(1, false);
    world.hosts[1].disk = copy;
    world.unblock(&others);
    world.start(1).expect("the copy is whole");
    settle(&mut world);
    assert!(check::equal(&world));
    let wrong = check::all(&mut world);
    assert!(wrong.iter().any(|wrong| wrong.contains("peer 1 acknowledged")), "{wrong:?}");
}

#[test]
fn a_difference_is_seen() {
    let mut world = founded(2);
    settle(&mut world);
    assert_eq!(check::all(&mut world), Vec::<String>::new());
    world.block(&[(0, 1), (1, 0)]);
    write(&mut world, 0, 1);
    assert!(!check::equal(&world));
    let wrong = check::all(&mut world);
    assert!(wrong.iter().any(|wrong| wrong.contains("do not show the same")), "{wrong:?}");
}

#[test]
fn what_takes_too_much_memory_is_seen() {
    memory::track();
    let mut scenario = Scenario::quiet("small", 2, Span::seconds(5));
    scenario.memory_mib = 0;
    let outcome = run(&scenario, 1);
    assert!(outcome.wrong.iter().any(|wrong| wrong.contains("of memory, more than")), "{:?}", outcome.wrong);
}

#[test]
fn a_mesh_that_stays_apart_fails() {
    let mut scenario = Scenario::quiet("apart", 2, Span::seconds(5));
    scenario.converge = Span(1);
    scenario.steps = vec![
        Step { at: Span(0), act: Act::Partition(vec![vec![0], vec![1]]) },
        Step { at: Span::seconds(1), act: Act::Write { peer: 0, documents: 5 } },
    ];
    let outcome = run(&scenario, 1);
    assert!(outcome.wrong.iter().any(|wrong| wrong.contains("are not equal")), "{:?}", outcome.wrong);
}

#[test]
fn what_a_hostile_member_sends_costs_it_its_links_and_nobody_else_theirs() {
    let mut world = founded(4);
    settle(&mut world);
    world.corrupt(3, Villain::new(vec![netsim::scenario::Deed::Forge, netsim::scenario::Deed::Bomb]));
    for _ in 0..20 {
        world.strike(3);
        let until = world.now + Span::seconds(1);
        world.run_until(until);
    }
    assert_eq!(world.faults, Vec::<String>::new());
    assert!(world.network.neighbours(3).len() < 3);
    for host in 0..3 {
        assert!(world.network.neighbours(host).len() >= 2, "peer {host}");
    }
}
