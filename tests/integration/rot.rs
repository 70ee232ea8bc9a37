//! Bytes of a real peer's table flip while it is stopped and while it runs: what is intact is served, every answer tells
//! the truth, and beside a peer that has everything all of it comes back, also when it is killed while the table is built
//! anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Peer, wait, wait_equal};

const DOCUMENTS: u64 = 4_000;

fn path(id: &str) -> String {
    format!("/api/v1/collections/docs/documents/{id}")
}

/// Two peers in one mesh with the same documents; the second holds most of them in its table on the disk.
fn two_peers(folder: &Path) -> (Peer, Peer, BTreeMap<String, Value>) {
    let config = folder.join("small.toml");
    fs::write(&config, "[storage]\ncache_size_bytes = \"1MiB\"\n").unwrap();
    let a = Peer::start(&folder.join("a"));
    let extra = ["--config".to_owned(), config.to_str().unwrap().to_owned()];
    let b = Peer::start_with(&folder.join("b"), 0, &extra);
    a.let_in(&b);
    let line = |n: u64| format!("{}\n", json!({"_id": format!("{n:05}"), "n": n, "text": noise(n)}));
    a.bulk("docs", &(0..DOCUMENTS).map(line).collect::<String>());
    let documents = wait_equal("docs", DOCUMENTS, &[&a, &b]).into_iter().collect();
    wait("the second has a table", || slabs(&b.folder).iter().map(|(_, bytes)| bytes).sum::<u64>() > 256 << 10);
    (a, b, documents)
}

/// Text that cannot be packed much.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    (0..30).map(|_| next()).collect()
}

/// The files with the pages of a table, and their bytes.
fn slabs(data: &Path) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = fs::read_dir(data.join("table/slabs")) else { return Vec::new() };
    let found =
        entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::metadata(path).unwrap().len()));
    found.collect()
}

/// Flips a byte in so many places that hold something, in the largest file of pages.
fn flip(data: &Path, places: usize) {
    let (slab, _) = slabs(data).into_iter().max_by_key(|(_, bytes)| *bytes).unwrap();
    let bytes = fs::read(&slab).unwrap();
    // In place, as the peer may have it open.
    let mut file = fs::OpenOptions::new().write(true).open(&slab).unwrap();
    for place in 1..=places {
        let middle = bytes.len() * place / (places + 1);
        let at = (middle..bytes.len()).find(|at| bytes[*at] != 0).unwrap_or(0);
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[bytes[at] ^ 0x10]).unwrap();
    }
}

/// What reading every document gives: how many as they were written, and how many not now. Nothing else may come.
fn read_all(peer: &Peer, documents: &BTreeMap<String, Value>) -> (usize, usize) {
    let (mut right, mut not_now) = (0, 0);
    for (id, data) in documents {
        let answer = peer.get(&path(id));
        match answer.status {
            200 => {
                assert_eq!(answer.body["data"], *data, "{id} is not as it was");
                right += 1;
            }
            500 | 503 => {
                let said = answer.body["detail"].as_str().unwrap_or_default();
                assert!(said.contains("damaged"), "{id}: {answer:?}");
                check_told(peer, id);
                not_now += 1;
            }
            // Its record is lost, and nothing names it yet: it is missing until it is looked for.
            404 => {
                check_told(peer, id);
                not_now += 1;
            }
            status => panic!("{id} answers {status}: {answer:?}"),
        }
    }
    (right, not_now)
}

/// As long as a document does not come the peer does not say that it is ready. That is noticed within a moment.
fn check_told(peer: &Peer, id: &str) {
    wait("it is told that something is missing, or nothing is", || {
        let ready = peer.get("/api/v1/health/ready");
        let is_told = ready.status == 503 && ready.body["reasons"].to_string().contains("storage_");
        is_told || peer.get(&path(id)).status == 200
    });
}

fn wait_connected(peer: &Peer) {
    wait("it is connected", || {
        peer.get("/api/v1/nodes/status").body["peers"].as_array().is_some_and(|all| !all.is_empty())
    });
}

/// Reads until everything is there again and the peer says that all is well.
fn wait_healed(peer: &Peer, documents: &BTreeMap<String, Value>) {
    wait("it heals", || {
        read_all(peer, documents).0 == documents.len() && peer.get("/api/v1/health/ready").status == 200
    });
    wait("all are counted", || peer.count("docs") == documents.len() as u64);
    let sync = peer.get("/api/v1/sync").body;
    assert_eq!((&sync["damaged"], sync.get("repairing")), (&json!([]), None));
    assert!(peer.folder.join("table.damaged").exists(), "the damage was not found");
}

/// What is written at either is at the other.
fn check_writes(a: &Peer, b: &Peer, id: &str) {
    assert_eq!(b.put(&path(id), &json!({"by": "b"})).status, 201);
    wait("it is at the other", || a.get(&path(id)).body["data"] == json!({"by": "b"}));
    assert_eq!(a.delete(&path(id)).status, 204);
    wait("it is gone", || b.get(&path(id)).status == 404);
}

#[test]
fn a_stopped_peer_whose_table_rots_serves_what_is_intact_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let (a, mut b, documents) = two_peers(folder.path());
    assert!(b.stop().success());
    flip(&b.folder, 6);
    let b = b.restart();
    wait_connected(&b);
    let (right, _) = read_all(&b, &documents);
    assert!(right > documents.len() / 4, "only {right} are served");
    wait_healed(&b, &documents);
    check_writes(&a, &b, "later");
    let b = b.restart();
    assert_eq!(b.all("docs").into_iter().collect::<BTreeMap<_, _>>(), documents);
}

#[test]
fn a_running_peer_whose_table_rots_serves_what_is_intact_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b, documents) = two_peers(folder.path());
    // What it has written is in its memory until it starts again.
    let b = b.restart();
    wait_connected(&b);
    flip(&b.folder, 6);
    let (right, _) = read_all(&b, &documents);
    assert!(right > documents.len() / 4, "only {right} are served");
    wait_healed(&b, &documents);
    check_writes(&a, &b, "later");
}

#[test]
fn a_peer_that_is_killed_while_its_table_is_built_anew_ends_with_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (a, mut b, documents) = two_peers(folder.path());
    let mut killed = 0;
    for _ in 0..4 {
        if killed > 0 {
            break;
        }
        assert!(b.stop().success());
        _ = fs::remove_dir_all(b.folder.join("table.damaged"));
        flip(&b.folder, 4);
        b = b.restart();
        let (url, mending) = (b.url.clone(), b.folder.join("table.mending"));
        let aside = b.folder.join("table.damaged");
        // Somebody reads on while this waits for the moment.
        let ids: Vec<String> = documents.keys().cloned().collect();
        let reader = std::thread::spawn(move || {
            for id in ids {
                if ureq::get(format!("{url}{}", path(&id)))
                    .call()
                    .is_err_and(|error| !matches!(error, ureq::Error::StatusCode(_)))
                {
                    return;
                }
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while !mending.exists() && !aside.exists() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        b.kill();
        killed += usize::from(mending.exists());
        reader.join().unwrap();
        b = b.restart();
        wait_connected(&b);
        wait_healed(&b, &documents);
    }
    assert!(killed > 0, "it was never killed in the middle");
    check_writes(&a, &b, "later");
    let b = b.restart();
    assert_eq!(b.all("docs").into_iter().collect::<BTreeMap<_, _>>(), documents);
}
