//! Documents that are changed in parts by peers that are apart.

use std::process::Output;

use serde_json::json;

use crate::harness::{Peer, client, wait, wait_equal};

/// Increments of each peer while the other is away.
const INCREMENTS: u64 = 1_000;
const COUNTED: &str = "/api/v1/collections/docs/documents/counted";

fn count(peer: &Peer, times: u64) {
    for n in 0..times {
        let answer = peer.patch(COUNTED, &json!({"$inc": {"plain": 1, "absent": 2, "in.list.0": 1}}));
        assert_eq!(answer.status, 200, "{n}: {answer:?}");
    }
}

#[test]
fn peers_that_are_apart_count_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Peer::start(&folder.path().join("a"));
    let mut b = Peer::start(&folder.path().join("b"));
    a.let_in(&b);
    a.put(COUNTED, &json!({"plain": 5, "in": {"list": [7]}, "crew": ["Ada"]}));
    wait_equal("docs", 1, &[&a, &b]);
    assert!(b.stop().success());
    count(&a, INCREMENTS);
    assert_eq!(a.patch(COUNTED, &json!({"$push": {"crew": "Bo"}})).status, 200);
    assert!(a.stop().success());
    // B knows none of the counters that A made, and makes its own.
    let b = b.restart();
    count(&b, INCREMENTS);
    for crew in [json!({"$push": {"crew": "Cy"}}), json!({"$pull": {"crew": "Ada"}})] {
        assert_eq!(b.patch(COUNTED, &crew).status, 200);
    }
    let a = a.restart();
    wait_counted(&[&a, &b], INCREMENTS);
    // Together they go on from there, at the same time.
    std::thread::scope(|scope| {
        for peer in [&a, &b] {
            scope.spawn(|| count(peer, 50));
        }
    });
    wait_counted(&[&a, &b], INCREMENTS + 50);
}

/// Waits until peers show what two of them counted, and the same crew.
fn wait_counted(peers: &[&Peer], each: u64) {
    let total = json!({"plain": 5 + 2 * each, "absent": 4 * each, "in": {"list": [7 + 2 * each]}});
    let crews = [json!(["Bo", "Cy"]), json!(["Cy", "Bo"])];
    let data = |peer: &Peer| peer.get(COUNTED).body["data"].clone();
    wait("all show the sum and the same crew", || {
        let first = data(peers[0]);
        let counted = ["plain", "absent", "in"].iter().all(|field| first[field] == total[field]);
        counted && crews.contains(&first["crew"]) && peers.iter().all(|peer| data(peer) == first)
    });
}

#[test]
fn the_client_patches_in_three_languages() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    let patch = |arguments: &[&str]| -> Output {
        let arguments = [&["--url", &peer.url, "document", "patch", "docs", "x"], arguments].concat();
        client().args(arguments).output().unwrap()
    };
    assert_eq!(patch(&[r#"{"$inc":{"n":1}}"#]).status.code(), Some(3));
    for (arguments, data) in [
        (&[r#"{"$inc":{"n":1}}"#, "--upsert"][..], json!({"n": 1})),
        (&["--merge", r#"{"a":{"b":1},"n":2}"#], json!({"n": 2, "a": {"b": 1}})),
        (&["--json-patch", r#"[{"op":"move","from":"/a/b","path":"/b"}]"#], json!({"n": 2, "a": {}, "b": 1})),
    ] {
        let output = patch(arguments);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(peer.get("/api/v1/collections/docs/documents/x").body["data"], data);
    }
    // Fields without an operator are not taken for a merge patch.
    let refused = patch(&[r#"{"n":3}"#]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("--merge") && !said.contains("Content-Type"), "{said}");
    let refused = patch(&[r#"[{"op":"remove","path":"/b"}]"#]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--json-patch"), "{refused:?}");
    assert_eq!(patch(&["{}", "--merge", "--json-patch"]).status.code(), Some(2));
}
