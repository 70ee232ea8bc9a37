//! Peers that find together, part and meet again.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Peer, wait, wait_equal};

#[test]
fn three_peers_converge() {
    let folder = tempfile::tempdir().unwrap();
    let peers: Vec<Peer> = ["a", "b", "c"].iter().map(|name| Peer::start(&folder.path().join(name))).collect();
    peers[2].put("/api/v1/collections/docs/documents/own", &json!({"written": "before joining"}));
    peers[0].let_in(&peers[1]);
    peers[0].let_in(&peers[2]);
    for (number, peer) in peers.iter().enumerate() {
        for n in 0..50 {
            let answer = peer.put(&format!("/api/v1/collections/docs/documents/{number}-{n}"), &json!({"n": n}));
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        // The same document at all three, each another field.
        let mut shared = json!({"everybody": true});
        shared[format!("from{number}")] = json!(number);
        peer.put("/api/v1/collections/docs/documents/shared", &shared);
    }
    let documents = wait_equal("docs", 152, &[&peers[0], &peers[1], &peers[2]]);
    assert_eq!(documents.iter().find(|(id, _)| id == "own").unwrap().1, json!({"written": "before joining"}));
    for peer in &peers {
        wait("everybody is in sync", || {
            let status = peer.get("/api/v1/nodes/status").body;
            let neighbours = status["peers"].as_array().unwrap();
            !neighbours.is_empty() && neighbours.iter().all(|peer| peer["in_sync"] == true)
        });
        assert_eq!(peer.get("/api/v1/mesh/peers").body["peers"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn a_peer_that_was_away_catches_up_and_both_sides_edits_survive() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = Peer::start(&folder.path().join("a"));
    let mut b = Peer::start(&folder.path().join("b"));
    a.let_in(&b);
    a.put("/api/v1/collections/docs/documents/shared", &json!({"wind": 4, "crew": ["Ada"]}));
    wait_equal("docs", 1, &[&a, &b]);
    // B is cut off for a thousand edits.
    assert!(b.stop().success());
    for n in 0..1_000 {
        let answer = a.put(&format!("/api/v1/collections/docs/documents/{}", n % 250), &json!({"n": n}));
        assert!(answer.status < 300, "{answer:?}");
    }
    a.put("/api/v1/collections/docs/documents/shared", &json!({"wind": 7, "crew": ["Ada"]}));
    // A is gone; B, which knows nothing of all that, goes on.
    assert!(a.stop().success());
    let b = b.restart();
    b.put("/api/v1/collections/docs/documents/shared", &json!({"wind": 4, "crew": ["Ada", "Bo"]}));
    let a = a.restart();
    let documents = wait_equal("docs", 251, &[&a, &b]);
    let shared = &documents.iter().find(|(id, _)| id == "shared").unwrap().1;
    assert_eq!(*shared, json!({"wind": 7, "crew": ["Ada", "Bo"]}));
}

#[test]
fn tickets_say_why_they_do_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d"];
    let [a, b, c, d] = names.map(|name| Peer::start(&folder.path().join(name)));
    let once = a.invite(&json!({"role": "writer", "uses": 1}));
    assert_eq!(b.join(&once).status, 200);
    let used = c.join(&once);
    assert_eq!(used.status, 403, "{used:?}");
    assert!(used.body["detail"].as_str().unwrap().contains("used up"), "{used:?}");
    let brief = a.invite(&json!({"role": "writer", "expires_in_s": 1}));
    let expiry = Instant::now() + Duration::from_millis(1_100);
    wait("the ticket has expired", || Instant::now() > expiry);
    let expired = c.join(&brief);
    assert_eq!(expired.status, 403, "{expired:?}");
    assert!(expired.body["detail"].as_str().unwrap().contains("expired"), "{expired:?}");
    for text in ["", "aero1", "aero1nonsense", &once[..once.len() - 9], &once.replace('a', "b")] {
        let answer = c.join(text);
        assert!([400, 422].contains(&answer.status), "{text}: {answer:?}");
    }
    // What it has already a ticket does not give, and one for a higher role does, and no lower one then.
    let equal = b.join(&a.invite(&json!({"role": "writer"})));
    assert_eq!(equal.status, 409, "{equal:?}");
    assert!(equal.body["detail"].as_str().unwrap().contains("as writer"), "{equal:?}");
    // B shares a mesh with A already.
    let foreign = d.invite(&json!({"role": "writer"}));
    assert_eq!(b.join(&foreign).status, 409);
    // A writer may not invite.
    assert_eq!(b.post("/api/v1/mesh/invites", &json!({"role": "writer"})).status, 403);
    let raised = b.join(&a.invite(&json!({"role": "admin"})));
    assert_eq!((raised.status, &raised.body["role"]), (200, &json!("admin")), "{raised:?}");
    d.join(&b.invite(&json!({"role": "writer"})));
    wait("A knows whom B let in", || a.get("/api/v1/nodes/status").body["members"] == 3);
}

#[test]
fn a_reader_sees_everything_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    a.put("/api/v1/collections/docs/documents/x", &json!({"n": 1}));
    let ticket = a.invite(&json!({"role": "reader"}));
    assert_eq!(b.join(&ticket).status, 200);
    wait_equal("docs", 1, &[&a, &b]);
    assert_eq!(b.put("/api/v1/collections/docs/documents/x", &json!({"n": 2})).status, 403);
    assert_eq!(b.delete("/api/v1/collections/docs/documents/x").status, 403);
}

#[test]
fn deletes_travel_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let [a, mut b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    a.let_in(&b);
    for n in 0..10 {
        a.put(&format!("/api/v1/collections/docs/documents/{n}"), &json!({"n": n}));
    }
    wait_equal("docs", 10, &[&a, &b]);
    assert!(b.stop().success());
    for n in 0..5 {
        assert_eq!(a.delete(&format!("/api/v1/collections/docs/documents/{n}")).status, 204);
    }
    let b = b.restart();
    wait_equal("docs", 5, &[&a, &b]);
    assert_eq!(b.get("/api/v1/collections/docs/documents/3").status, 404);
}
