//! Kill -9 under load: what was acknowledged is there, and the peer goes on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Peer, wait_equal};

/// Rounds of kill -9; more with `KILL_ROUNDS=50 cargo test --test integration kill`.
fn rounds() -> u64 {
    std::env::var("KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Writes at a peer from several threads until it is killed after some writes; returns what was acknowledged.
fn write_until_killed(peer: &mut Peer, round: u64, kill_after: u64) -> Vec<(String, u64)> {
    let acknowledged = Mutex::new(Vec::new());
    let (count, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let process = Mutex::new(peer);
    let url = process.lock().unwrap().url.clone();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (acknowledged, count, over, url) = (&acknowledged, &count, &over, &url);
            scope.spawn(move || {
                let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20)));
                let agent = ureq::Agent::new_with_config(config.build());
                for n in 0.. {
                    if over.load(Ordering::Acquire) {
                        return;
                    }
                    // Some documents are written again and again, others once.
                    let id = if n % 2 == 0 { format!("hot-{writer}") } else { format!("r{round}-{writer}-{n}") };
                    let value = round * 1_000_000 + n;
                    let path = format!("{url}/api/v1/collections/docs/documents/{id}");
                    if agent.put(path).send_json(json!({"value": value})).is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().push((id, value));
                    count.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        while count.load(Ordering::Acquire) < kill_after {
            std::thread::sleep(Duration::from_millis(1));
        }
        process.lock().unwrap().kill();
        over.store(true, Ordering::Release);
    });
    acknowledged.into_inner().unwrap()
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Peer::start(&folder.path().join("a"));
    let b = Peer::start(&folder.path().join("b"));
    a.let_in(&b);
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..rounds() {
        for (id, value) in write_until_killed(&mut a, round, 40 + round * 37 % 400) {
            let newest = expected.entry(id).or_insert(value);
            *newest = value.max(*newest);
        }
        a = a.restart();
        for (id, value) in &expected {
            let answer = a.get(&format!("/api/v1/collections/docs/documents/{id}"));
            assert_eq!(answer.status, 200, "round {round}: {id} is lost");
            // A write under way at the kill may have made it without its acknowledgement.
            assert!(answer.body["data"]["value"].as_u64().unwrap() >= *value, "round {round}: {id} went back");
        }
    }
    let count = a.count("docs");
    assert!(count >= expected.len() as u64);
    // The other peer ends with the same: no sequence number was used twice.
    wait_equal("docs", count, &[&a, &b]);
    let sync = b.get("/api/v1/sync").body;
    assert_eq!(sync["dead_letters"], json!({}), "{sync}");
}

#[test]
fn a_peer_that_is_killed_while_it_receives_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let a = Peer::start(&folder.path().join("a"));
    for n in 0..1_500 {
        a.put(&format!("/api/v1/collections/docs/documents/{n}"), &json!({"n": n, "text": "x".repeat(200)}));
    }
    let mut b = Peer::start(&folder.path().join("b"));
    a.let_in(&b);
    for _ in 0..3 {
        b.kill();
        b = b.restart();
    }
    wait_equal("docs", 1_500, &[&a, &b]);
}
