//! A battle: six real peers on loopback and a seventh that is hostile, more than ten thousand writes of every kind,
//! halves that do not hear of each other, and kill -9 of a third. At the end the six show the same, every counter and
//! list adds up, they name who signed two things under one number, and the last line says what it cost.

#[cfg(test)]
#[path = "integration/harness.rs"]
#[expect(dead_code, reason = "the integration tests use more of it")]
mod harness;
#[cfg(test)]
#[path = "battle/hostile.rs"]
mod hostile;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use harness::{Peer, wait};
use hostile::Hostile;
use serde_json::{Value, json};

const PEERS: usize = 6;
/// Writes of each peer in each of the three rounds.
const WRITES: u64 = 600;
const COLLECTION: &str = "battle";
/// What a peer may hold at most, in MiB.
const MEMORY_MIB_MAX: u64 = 400;

/// What all writers did.
#[derive(Default)]
struct Tally {
    operations: AtomicU64,
    errors: AtomicU64,
    /// What was counted for sure, and what may have been counted by a peer that was killed before it answered.
    counted: AtomicU64,
    unsure: AtomicU64,
}

fn path(id: &str) -> String {
    format!("/api/v1/collections/{COLLECTION}/documents/{id}")
}

/// One write at a peer; false when the peer did not do it, or nobody knows.
fn write(peer: &Peer, number: u64, tally: &Tally) -> bool {
    let own = path(&format!("doc-{number}"));
    let shared = path(&format!("shared-{}", number % 7));
    let counts = number % 6 == 2;
    let answer = match number % 6 {
        0 => peer.try_put(&own, &json!({"n": number, "words": ["some", "words"]})),
        1 => peer.try_put(&shared, &json!({"last": number, format!("f{}", number % 11): number})),
        2 => peer.try_patch(&(path("counter") + "?upsert=true"), &json!({"$inc": {"n": 1}})),
        3 => peer.try_patch(&path("list"), &json!({"$push": {"items": number}})),
        4 => peer.try_patch(&shared, &json!({"$set": {format!("g{}", number % 5): number}})),
        _ if number % 12 == 5 => peer.try_delete(&path(&format!("doc-{}", number.saturating_sub(5)))),
        _ => {
            peer.try_put(&path(&format!("other-{number}")), &json!({"country": {"name": "Ascension", "phone": [247]}}))
        }
    };
    let done = answer.is_ok_and(|answer| answer.status < 300 || answer.status == 404);
    tally.operations.fetch_add(u64::from(done), Ordering::Relaxed);
    tally.errors.fetch_add(u64::from(!done), Ordering::Relaxed);
    if counts {
        let of = if done { &tally.counted } else { &tally.unsure };
        of.fetch_add(1, Ordering::Relaxed);
    }
    done
}

/// All these peers write at once; each gets numbers of its own. Gives those of list items that were appended for sure.
fn round(peers: &[&Peer], first: u64, writes: u64, tally: &Tally) -> BTreeSet<u64> {
    thread::scope(|scope| {
        let mut writers = Vec::new();
        for (at, &peer) in peers.iter().enumerate() {
            let numbers = (0..writes).map(move |n| first + at as u64 * 1_000_000 + n);
            let append = move |number: &u64| write(peer, *number, tally) && number % 6 == 3;
            writers.push(scope.spawn(move || numbers.filter(append).collect::<BTreeSet<u64>>()));
        }
        writers.into_iter().flat_map(|writer| writer.join().expect("the writer does not panic")).collect()
    })
}

fn signal(peer: &Peer, name: &str) {
    let status = Command::new("kill").args([name, &peer.process_id().to_string()]).status();
    assert!(status.expect("there is a kill").success());
}

/// Everything that the peers show, once they show the same.
fn equal(peers: &[Peer]) -> Vec<(String, Value)> {
    let mut shown = Vec::new();
    wait("all show the same", || {
        let counts: BTreeSet<u64> = peers.iter().map(|peer| peer.count(COLLECTION)).collect();
        if counts.len() > 1 {
            return false;
        }
        shown = peers[0].all(COLLECTION);
        peers[1..].iter().all(|peer| peer.all(COLLECTION) == shown)
    });
    shown
}

/// The hostile member signed two changes under one number. Whoever has seen both names it, and nobody else.
fn named(hostile: &Hostile, peers: &[Peer]) {
    let forks = |peer: &Peer| peer.get("/api/v1/sync").body["forks"].as_object().cloned().unwrap_or_default();
    wait("somebody names the hostile member", || peers.iter().any(|peer| !forks(peer).is_empty()));
    for peer in peers {
        assert!(forks(peer).keys().all(|named| *named == hostile.id.to_string()), "{:?}", forks(peer));
    }
}

/// The most memory that a process ever had, in MiB.
fn memory_mib(peer: &Peer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.process_id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kib| kib >> 10)
}

fn mesh(folder: &std::path::Path, name: &str) -> Vec<Peer> {
    let peers: Vec<Peer> = (0..PEERS).map(|n| Peer::start(&folder.join(format!("{name}-{n}")))).collect();
    peers[1..].iter().for_each(|newcomer| peers[0].let_in(newcomer));
    // Lists that two peers make at the same time are two, of which one shows: one peer makes it.
    assert!(peers[0].try_put(&path("list"), &json!({"items": []})).is_ok_and(|answer| answer.status < 300));
    wait("everybody has the first document", || peers.iter().all(|peer| peer.count(COLLECTION) == 1));
    peers
}

#[test]
fn ten_thousand_writes_a_partition_and_killed_peers() {
    let folder = tempfile::tempdir().unwrap();
    let (tally, started) = (Tally::default(), Instant::now());
    let mut peers = mesh(folder.path(), "peer");
    let hostile = Hostile::start(&peers[0].invite(&json!({ "role": "writer" })), 66);
    wait("the hostile member is let in", || hostile.has_joined());
    let mut items = round(&peers.iter().collect::<Vec<_>>(), 0, WRITES, &tally);

    hostile.open_fire();

    // Halves that do not hear of each other: while one writes the other stands still, and connections break.
    for half in 0..2usize {
        let (on, off): (Vec<usize>, Vec<usize>) = (0..PEERS).partition(|at| at % 2 == half);
        off.iter().for_each(|at| signal(&peers[*at], "-STOP"));
        let writers: Vec<&Peer> = on.iter().map(|at| &peers[*at]).collect();
        items.append(&mut round(&writers, 100_000_000 * (half as u64 + 1), 2 * WRITES, &tally));
        off.iter().for_each(|at| signal(&peers[*at], "-CONT"));
    }

    // A third of the peers is killed while everybody writes, and comes back.
    thread::scope(|scope| {
        let (killed, others) = peers.split_at_mut(PEERS / 3);
        let tally = &tally;
        let others: Vec<&Peer> = others.iter().collect();
        let busy = scope.spawn(move || round(&others, 300_000_000, 2 * WRITES, tally));
        for (at, peer) in killed.iter_mut().enumerate() {
            items.append(&mut round(&[&*peer], 400_000_000 + 10_000_000 * at as u64, WRITES / 4, tally));
            peer.kill();
        }
        items.append(&mut busy.join().expect("the writers do not panic"));
    });
    let peers: Vec<Peer> =
        peers.into_iter().enumerate().map(|(at, peer)| if at < PEERS / 3 { peer.restart() } else { peer }).collect();

    let shown = equal(&peers);
    wait("nobody puts up with the hostile member", || hostile.neighbours() == 0);
    named(&hostile, &peers);
    let memory = peers.iter().map(memory_mib).max().unwrap();
    assert!(memory <= MEMORY_MIB_MAX, "a peer held {memory} MiB");
    let took = started.elapsed();
    let of = |id: &str| shown.iter().find(|(known, _)| known == id).map(|(_, data)| data.clone()).unwrap_or_default();
    let (counted, unsure) = (tally.counted.into_inner(), tally.unsure.into_inner());
    let n = of("counter")["n"].as_u64().unwrap();
    assert!((counted..=counted + unsure).contains(&n), "counted {n}, acknowledged {counted} and perhaps {unsure}");
    let list: Vec<u64> = of("list")["items"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    let set: BTreeSet<u64> = list.iter().copied().collect();
    assert_eq!(set.len(), list.len(), "items are there twice");
    assert!(items.is_subset(&set), "{} acknowledged items are missing", items.difference(&set).count());
    let operations = tally.operations.into_inner();
    assert!(operations > 10_000, "only {operations} writes were done");
    println!(
        "{operations} operations on {PEERS} peers and {} hostile messages in {:.1} s, {} errors, {} documents equal \
         everywhere, {memory} MiB at most",
        hostile.strikes(),
        took.as_secs_f64(),
        tally.errors.into_inner(),
        shown.len()
    );
}

#[test]
fn a_hundred_and_twenty_four_writes() {
    let folder = tempfile::tempdir().unwrap();
    let peers = mesh(folder.path(), "small");
    let (tally, started) = (Tally::default(), Instant::now());
    let all: Vec<&Peer> = peers.iter().collect();
    round(&all, 0, 20, &tally);
    round(&all[..4], 10_000, 1, &tally);
    let written = started.elapsed();
    equal(&peers);
    let took = started.elapsed();
    assert_eq!(tally.errors.into_inner(), 0);
    println!(
        "{} operations on {PEERS} peers in {} ms, equal everywhere after {} ms, 0 errors",
        tally.operations.into_inner(),
        written.as_millis(),
        took.as_millis()
    );
}
