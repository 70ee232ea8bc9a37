//! The past of documents, as it shows on every peer.

use serde_json::{Value, json};

use crate::harness::{Peer, client, wait, wait_equal};

const DOCUMENT: &str = "/api/v1/collections/docs/documents/shared";

fn ok(peer: &Peer, arguments: &[&str]) -> String {
    let output = client().args(["--url", &peer.url]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn peer_id(peer: &Peer) -> Value {
    peer.get("/api/v1/nodes/status").body["peer_id"].clone()
}

#[test]
fn two_peers_that_were_apart_show_the_same_conflict_and_history() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    a.let_in(&b);
    let ids = [peer_id(&a), peer_id(&b)];
    let first = a.put(DOCUMENT, &json!({"wind": 4, "crew": ["Ada"], "sea": {"swell": 1}}));
    wait_equal("docs", 1, &[&a, &b]);
    assert!(b.stop().success());
    a.put(DOCUMENT, &json!({"wind": 7, "crew": ["Ada"], "sea": {"swell": 2}}));
    assert!(a.stop().success());
    let b = b.restart();
    b.put(DOCUMENT, &json!({"wind": 9, "crew": ["Ada", "Bo"], "sea": {"swell": 3}}));
    let a = a.restart();
    let conflicts = |peer: &Peer| peer.get(&format!("{DOCUMENT}/conflicts")).body["conflicts"].clone();
    wait("both have both edits", || [&a, &b].iter().all(|peer| conflicts(peer).as_array().unwrap().len() == 2));
    assert_eq!(conflicts(&a), conflicts(&b));

    let shown = a.get(DOCUMENT).body;
    for conflict in conflicts(&a).as_array().unwrap() {
        let path = conflict["path"].as_str().unwrap();
        let values = conflict["values"].as_array().unwrap();
        let of = |id: &Value| &values.iter().find(|value| value["author"] == *id).unwrap()["value"];
        let expected = if path == "/wind" { [7, 9] } else { [2, 3] };
        assert_eq!([of(&ids[0]), of(&ids[1])], [&json!(expected[0]), &json!(expected[1])], "{path}");
        let winners: Vec<&Value> = values.iter().filter(|value| value["winner"] == true).collect();
        assert_eq!((winners.len(), Some(&winners[0]["value"])), (1, shown["data"].pointer(path)));
    }

    // Whoever reads the document, lists it, asks for it or follows the feed sees that it has conflicts, also at the
    // peer whose values won.
    for peer in [&a, &b] {
        let at = |path: &str| peer.get(&format!("/api/v1/collections/docs{path}")).body;
        assert_eq!(peer.get(DOCUMENT).body["conflict_count"], 2);
        assert_eq!(at("/documents")["documents"][0]["conflict_count"], 2);
        assert_eq!(at("/changes")["changes"][0]["conflict_count"], 2);
        assert_eq!(at("/conflicts")["documents"][0]["id"], "shared");
        let asked = peer.post("/api/v1/collections/docs/query", &json!({"conflicts": true, "projection": {"wind": 1}}));
        let row = &asked.body["documents"][0];
        assert_eq!((&row["_conflicts"], row["wind"].is_number()), (&json!(2), true), "{row}");
        let plain = peer.post("/api/v1/collections/docs/query", &json!({}));
        assert_eq!(plain.body["documents"][0].get("_conflicts"), None);
        let listed = ok(peer, &["collection", "conflicts", "docs", "-o", "table"]);
        assert!(listed.contains("CONFLICTS") && listed.contains("shared"), "{listed}");
    }

    // Both tell the same history, and read the same old version from it.
    let history = |peer: &Peer| peer.get(&format!("{DOCUMENT}/history")).body["history"].clone();
    assert_eq!((history(&a).as_array().unwrap().len(), history(&a)), (3, history(&b)));
    let head = first.body["heads"][0].as_str().unwrap();
    for peer in [&a, &b] {
        assert_eq!(peer.get(&format!("{DOCUMENT}?at={head}")).body["data"], first.body["data"]);
    }

    // An edit of the places settles them, as a merge of both.
    a.put(DOCUMENT, &json!({"wind": 8, "crew": ["Ada", "Bo"], "sea": {"swell": 2.5}}));
    wait("it is settled on both", || [&a, &b].iter().all(|peer| conflicts(peer) == json!([])));
    assert_eq!(a.get(DOCUMENT).body["conflict_count"], 0);
    assert_eq!(b.get("/api/v1/collections/docs/conflicts").body["documents"], json!([]));
    let merge = history(&b)[0].clone();
    assert_eq!((&merge["merge"], merge["dependencies"].as_array().unwrap().len()), (&json!(true), 2));
}

#[test]
fn the_client_shows_the_past_and_brings_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    let first = peer.put(DOCUMENT, &json!({"wind": 4}));
    peer.put(DOCUMENT, &json!({"wind": 7}));
    let head = first.body["heads"][0].as_str().unwrap();
    let json_of = |arguments: &[&str]| -> Value { serde_json::from_str(&ok(&peer, arguments)).unwrap() };
    let name = ["docs", "shared"];
    let history = json_of(&[&["document", "history"], &name[..]].concat());
    assert_eq!(history[0]["changes"], json!([{"path": "/wind", "before": 4, "after": 7}]));
    let table = ok(&peer, &[&["document", "history"], &name[..], &["--limit", "1", "-o", "table"]].concat());
    assert!(table.contains("/wind") && table.contains("edit") && !table.contains("create"), "{table}");
    let patch = json_of(&[&["document", "diff"], &name[..], &["--from", head, "--json-patch"]].concat());
    assert_eq!(patch, json!([{"op": "replace", "path": "/wind", "value": 7}]));
    let table = ok(&peer, &[&["document", "diff"], &name[..], &["--from", head, "-o", "table"]].concat());
    assert!(table.contains("BEFORE") && table.contains("/wind"), "{table}");
    assert_eq!(json_of(&[&["document", "conflicts"], &name[..]].concat())["conflicts"], json!([]));
    let at = ["--at", head];
    assert_eq!(json_of(&[&["document", "get"], &name[..], &at].concat())["data"], json!({"wind": 4}));
    assert_eq!(json_of(&[&["document", "restore"], &name[..], &at].concat())["data"], json!({"wind": 4}));
    let time = history[0]["time"].as_str().unwrap();
    assert_eq!(json_of(&[&["document", "get"], &name[..], &["--at", time]].concat())["data"], json!({"wind": 7}));
}
