//! Writes that wait for other peers, as users run them.

use serde_json::json;

use crate::harness::{Peer, client, wait};

const NOTE: &str = "/api/v1/collections/notes/documents/x";

#[test]
fn a_write_is_confirmed_by_another_peer_and_leaving_is_safe_then_only() {
    let folder = tempfile::tempdir().unwrap();
    let a = Peer::start(&folder.path().join("a"));
    let mut b = Peer::start(&folder.path().join("b"));
    let alone = a.put(&format!("{NOTE}?w=1&timeout_ms=50"), &json!({"n": 1}));
    assert_eq!((alone.status, &alone.body["write_concern"]["complete"]), (202, &json!(false)));
    a.let_in(&b);
    let answer = a.put(&format!("{NOTE}?w=1&timeout_ms=30000"), &json!({"n": 2}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let receipts = answer.body["write_concern"]["receipts"].as_array().unwrap().clone();
    let them = b.get("/api/v1/nodes/status").body["peer_id"].clone();
    assert_eq!((receipts.len(), &receipts[0]["peer_id"]), (1, &them));
    // It said so, and it is so.
    b.kill();
    let b = b.restart();
    assert_eq!(b.get(NOTE).body["data"], json!({"n": 2}));
    wait("leaving is safe", || a.get("/api/v1/sync/safe-to-leave?timeout_ms=1000").body["safe"] == true);
    let holders = json!([{"peer_id": them, "has_it": true}]);
    wait("it says that it has the note", || a.get("/api/v1/sync/why/notes/x").body["holders"] == holders);
    drop(b);
    a.put(NOTE, &json!({"n": 3}));
    let mut command = client();
    let output = command.args(["--url", &a.url, "sync", "safe-to-leave", "--timeout-ms", "10"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not safe"), "{output:?}");
}
