//! The two programs as the README uses them.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Peer, client, wait};

fn run(peer: &Peer, arguments: &[&str]) -> Output {
    client().args(["--url", &peer.url]).args(arguments).output().unwrap()
}

fn ok(peer: &Peer, arguments: &[&str]) -> String {
    let output = run(peer, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn data(peer: &Peer, id: &str) -> Value {
    let printed: Value = serde_json::from_str(&ok(peer, &["document", "get", "notes", id])).unwrap();
    printed.get("data").cloned().unwrap_or(printed)
}

#[test]
fn the_quick_start_of_the_readme_works() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, mut b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    let ticket = ok(&a, &["mesh", "invite"]);
    ok(&b, &["mesh", "join", ticket.trim()]);
    ok(&a, &["document", "put", "notes", "today", r#"{"wind": 4, "crew": ["Ada"]}"#]);
    wait("it is on the other", || run(&b, &["document", "get", "notes", "today"]).status.success());
    assert_eq!(data(&b, "today"), json!({"wind": 4, "crew": ["Ada"]}));
    assert!(b.stop().success());
    ok(&a, &["document", "put", "notes", "today", r#"{"wind": 7, "crew": ["Ada"]}"#]);
    assert!(a.stop().success());
    let b = b.restart();
    ok(&b, &["document", "put", "notes", "today", r#"{"wind": 4, "crew": ["Ada", "Bo"]}"#]);
    let a = a.restart();
    let both = json!({"wind": 7, "crew": ["Ada", "Bo"]});
    wait("both show both edits", || [&a, &b].iter().all(|peer| data(peer, "today") == both));
    assert!(ok(&a, &["sync", "status"]).contains("notes"));
}

#[test]
fn exit_codes_say_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(folder.path());
    assert_eq!(run(&peer, &["document", "get", "notes", "nothing"]).status.code(), Some(3));
    assert_eq!(run(&peer, &["document", "put", "notes"]).status.code(), Some(2));
    assert_eq!(run(&peer, &["document", "put", "notes", "x", "{broken"]).status.code(), Some(1));
    assert_eq!(run(&peer, &["status", "health"]).status.code(), Some(0));
    peer.kill();
    let output = run(&peer, &["status", "health"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("aerolithsdb"), "{output:?}");
}

#[test]
fn the_countries_arrive_whole() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    a.let_in(&b);
    let lines = include_str!("../../examples/data/countries.ndjson").lines();
    let countries: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    for country in &countries {
        assert_eq!(a.post("/api/v1/collections/countries/documents", country).status, 201);
    }
    let arrived = crate::harness::wait_equal("countries", 252, &[&a, &b]);
    for (mut country, (id, data)) in countries.into_iter().zip(arrived) {
        assert_eq!(country["_id"].take(), json!(id));
        country.as_object_mut().unwrap().remove("_id");
        assert_eq!(country, data);
    }
}

#[test]
fn collections_are_made_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let [mut a, b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    a.let_in(&b);
    ok(&a, &["collection", "create", "empty"]);
    assert_eq!(run(&a, &["collection", "create", "_mine"]).status.code(), Some(4));
    for n in 0..300 {
        assert_eq!(a.put(&format!("/api/v1/collections/docs/documents/{n}"), &json!({"n": n})).status, 201);
    }
    crate::harness::wait_equal("docs", 300, &[&a, &b]);
    // In a pipe it has to be meant.
    assert_eq!(run(&b, &["collection", "drop", "docs"]).status.code(), Some(2));
    assert_eq!(b.count("docs"), 300);
    let dropped: Value = serde_json::from_str(&ok(&b, &["collection", "drop", "docs", "--yes"])).unwrap();
    assert_eq!(dropped, json!({"deleted": 300, "damaged": 0}));
    crate::harness::wait_equal("docs", 0, &[&a, &b]);
    assert_eq!(run(&b, &["collection", "drop", "none", "--yes"]).status.code(), Some(3));
    // It is killed, not stopped: what was answered is on the disk.
    a.kill();
    let a = a.restart();
    let listed: Value = serde_json::from_str(&ok(&a, &["collection", "list"])).unwrap();
    let names: Vec<&Value> = listed.as_array().unwrap().iter().map(|of| &of["name"]).collect();
    assert_eq!(names, ["docs", "empty"]);
    assert!(listed.as_array().unwrap().iter().all(|of| of["documents"] == 0), "{listed}");
}

#[cfg(unix)]
#[test]
fn leaving_waits_until_another_has_everything_and_ctrl_c_stops_that() {
    use std::io::{BufRead, BufReader, Read};
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    a.let_in(&b);
    let signal = |signal: &str, process: u32| {
        assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
    };
    // It is connected, and takes nothing.
    signal("-STOP", a.process_id());
    b.put("/api/v1/collections/docs/documents/b", &json!({"from": "b"}));
    let mesh = b.get("/api/v1/nodes/status").body["mesh"].clone();
    let mut leaving = client().args(["--url", &b.url, "mesh", "leave", "--yes"]).spawn().unwrap();
    let mut errors = BufReader::new(leaving.stderr.take().unwrap());
    let mut said = String::new();
    errors.read_line(&mut said).unwrap();
    assert!(said.contains("waiting"), "{said}");
    signal("-INT", leaving.id());
    errors.read_to_string(&mut said).unwrap();
    assert_eq!(leaving.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("stopped"), "{said}");
    assert_eq!(b.get("/api/v1/nodes/status").body["mesh"], mesh);
    signal("-CONT", a.process_id());
    // They may have lost each other meanwhile.
    wait("it leaves", || run(&b, &["mesh", "leave", "--yes"]).status.success());
    assert_eq!(a.count("docs"), 1);
}

#[test]
fn a_peer_leaves_a_mesh_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    assert_eq!(run(&b, &["mesh", "leave", "--yes"]).status.code(), Some(1));
    a.let_in(&b);
    // It cannot be taken back, so it takes a word; and the only admin has another to say.
    assert_eq!(run(&b, &["mesh", "leave"]).status.code(), Some(2));
    let refused = run(&a, &["mesh", "leave", "--yes"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("--without-admin"), "{said}");
    a.put("/api/v1/collections/docs/documents/a", &json!({"from": "a"}));
    b.put("/api/v1/collections/docs/documents/b", &json!({"from": "b"}));
    crate::harness::wait_equal("docs", 2, &[&a, &b]);
    let left: Value = serde_json::from_str(&ok(&b, &["mesh", "leave", "--yes"])).unwrap();
    assert_eq!(left["carried_documents"], 2);
    a.put("/api/v1/collections/docs/documents/a", &json!({"from": "a", "apart": 1}));
    b.put("/api/v1/collections/docs/documents/b", &json!({"from": "b", "apart": 1}));
    b.put("/api/v1/collections/docs/documents/c", &json!({"from": "b"}));
    assert_eq!((a.count("docs"), b.count("docs")), (2, 3));
    let b = b.restart();
    assert_eq!(b.get("/api/v1/nodes/status").body["mesh"], left["mesh"]);
    a.let_in(&b);
    let documents = crate::harness::wait_equal("docs", 3, &[&a, &b]);
    assert_eq!(documents[0].1["apart"], 1);
    assert_eq!(documents[1].1, json!({"from": "b", "apart": 1}));
    assert_eq!(b.get("/api/v1/sync").body["dead_letters"], json!({}));
    let founded: Value =
        serde_json::from_str(&ok(&b, &["mesh", "init", "bare", "--local-documents", "leave"])).unwrap();
    assert_eq!((&founded["name"], b.count("docs"), a.count("docs")), (&json!("bare"), 0, 3));
}

#[test]
fn what_people_type_first_works() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let parsed = |arguments: &[&str]| serde_json::from_str::<Value>(&ok(&peer, arguments)).unwrap();
    let made = parsed(&["document", "insert", "people", r#"{"name": "Ada", "city": "London", "age": 36}"#]);
    assert!(made["id"].as_str().is_some_and(|id| id.len() == 36), "{made}");
    let file = folder.path().join("bo.json");
    std::fs::write(&file, r#"{"_id": "bo", "name": "Bo", "city": "Rome", "age": 17}"#).unwrap();
    let file = format!("@{}", file.display());
    assert_eq!(parsed(&["document", "insert", "people", &file])["id"], "bo");
    assert_eq!(run(&peer, &["document", "insert", "people", &file]).status.code(), Some(1), "the id is taken");
    assert_eq!(run(&peer, &["document", "insert", "people", "@nowhere"]).status.code(), Some(1));
    let listed = parsed(&["document", "list", "people"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");

    // A filter without its flag, and fields by their names.
    let grown = parsed(&["query", "search", "people", r#"{"age": {"$gte": 18}}"#, "--projection", "name,city"]);
    assert_eq!((&grown["name"], &grown["city"], grown.get("age")), (&json!("Ada"), &json!("London"), None));
    assert_eq!(parsed(&["query", "count", "people", r#"{"city": "Rome"}"#])["count"], 1);
    assert_eq!(ok(&peer, &["query", "distinct", "people", "city", r#"{"age": 17}"#]).trim(), r#""Rome""#);

    // One shape for documents, wherever they come from.
    let flat = json!({"_id": "bo", "name": "Bo", "city": "Rome", "age": 17});
    assert_eq!(parsed(&["document", "get", "people", "bo", "--flat"]), flat);
    assert_eq!(parsed(&["query", "search", "people", r#"{"_id": "bo"}"#]), flat);
    let lines = ok(&peer, &["document", "list", "people", "--flat"]);
    assert!(lines.lines().any(|line| serde_json::from_str::<Value>(line).unwrap() == flat), "{lines}");

    // The past, from now.
    ok(&peer, &["document", "patch", "people", "bo", r#"{"$set": {"age": 18}}"#]);
    assert_eq!(parsed(&["document", "get", "people", "bo", "--at", "now"])["data"]["age"], 18);
    for before in ["-1h", "yesterday"] {
        let output = run(&peer, &["document", "get", "people", "bo", "--at", before]);
        assert_eq!(output.status.code(), Some(3), "there was none: {output:?}");
    }
}
