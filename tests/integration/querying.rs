//! Questions to real peers by the client: many pages, and indexes of peers that are apart.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Peer, client, wait, wait_equal};

/// Documents that fill more than one page of bytes, and more than one table.
const MANY: usize = 1_500;
/// Bytes of each.
const SIZE: usize = 4 << 10;

fn run(peer: &Peer, arguments: &[&str]) -> Output {
    client().args(["--url", &peer.url]).args(arguments).output().unwrap()
}

/// What the client prints, and what it says besides.
fn ok(peer: &Peer, arguments: &[&str]) -> (String, String) {
    let output = run(peer, arguments);
    let [printed, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{arguments:?}: {said}");
    (printed, said)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(documents: &[Value]) -> Vec<u64> {
    documents.iter().map(|document| document["n"].as_u64().unwrap()).collect()
}

#[test]
fn pages_follow_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let file = folder.path().join("many.ndjson");
    let document = |n| format!("{}\n", json!({"_id": format!("{n:04}"), "n": n, "text": "x".repeat(SIZE)}));
    std::fs::write(&file, (0..MANY).map(document).collect::<String>()).unwrap();
    ok(&peer, &["import", "many", file.to_str().unwrap()]);
    let downwards: Vec<u64> = (0..MANY as u64).rev().collect();
    // Before and after an index: sorted in memory, and read in its order.
    for index in [false, true] {
        if index {
            let (created, _) = ok(&peer, &["index", "create", "many", "by-n", "--fields", "-n", "--wait"]);
            let created: Value = serde_json::from_str(&created).unwrap();
            assert_eq!((&created["stage"], &created["keys"]), (&json!("ready"), &json!(MANY)));
        }
        let (all, said) = ok(&peer, &["query", "search", "many", "--sort", "-n", "--all"]);
        assert_eq!((numbers(&lines(&all)), said.as_str()), (downwards.clone(), ""), "with an index: {index}");
    }
    let part = ["query", "search", "many", "--sort", "-n", "--offset", "10", "--limit", "1300", "-o", "json"];
    let (list, said) = ok(&peer, &part);
    let list: Vec<Value> = serde_json::from_str(&list).unwrap();
    assert_eq!(numbers(&list), downwards[10..1310]);
    let cursor = said.split_whitespace().find(|word| word.starts_with("--cursor=")).unwrap();
    let (rest, said) = ok(&peer, &["query", "search", "many", "--sort", "-n", cursor, "--limit", "1000"]);
    assert_eq!((numbers(&lines(&rest)), said.as_str()), (downwards[1310..].to_vec(), ""));
    // Tables come page by page, each with its heading.
    let table = ["query", "search", "many", "--projection", r#"{"n": 1}"#, "--all", "-o", "table"];
    let (table, _) = ok(&peer, &table);
    let count = |is: fn(&str) -> bool| table.lines().filter(|line| is(line)).count();
    assert_eq!((count(|line| line.contains("_id")), count(str::is_empty)), (2, 1));
    assert_eq!(table.lines().count(), MANY + 3);
    // A pipeline is an argument or an option.
    let stages = r#"[{"$match": {"n": {"$lt": 700}}}, {"$count": "n"}]"#;
    for pipeline in [&[stages][..], &["--pipeline", stages]] {
        let (counted, _) = ok(&peer, &[&["query", "aggregate", "many"], pipeline].concat());
        assert_eq!(numbers(&lines(&counted)), [700], "{pipeline:?}");
    }
    // Nothing found is no failure.
    let nothing = ["query", "search", "many", "--filter", r#"{"n": -1}"#];
    assert_eq!(ok(&peer, &nothing), (String::new(), String::new()));
    assert_eq!(ok(&peer, &[&nothing[..], &["-o", "json"]].concat()).0, "[]\n");
}

#[test]
fn wrong_questions_end_with_the_codes_that_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    assert_eq!(peer.put("/api/v1/collections/docs/documents/a", &json!({"n": 1})).status, 201);
    for (code, arguments) in [
        (2, &["query", "search", "docs", "--filter", "{n: 1}"][..]),
        (2, &["query", "aggregate", "docs", "[{]"]),
        (2, &["query", "aggregate", "docs"]),
        (2, &["query", "aggregate", "docs", "[]", "--pipeline", "[]"]),
        (2, &["query", "search", "docs", "--all", "--limit", "3"]),
        (2, &["index", "create", "docs", "i"]),
        (1, &["query", "count", "docs", "--filter", r#"{"n": {"$gr": 1}}"#]),
        (1, &["query", "search", "docs", "--sort", "n,n"]),
        (1, &["query", "search", "docs", "--hint", "nothing"]),
        (1, &["query", "search", "docs", "--cursor", "AAAA"]),
        (1, &["query", "search", "docs", "--timeout-ms", "0"]),
        (1, &["index", "create", "docs", "i", "--type", "geo", "--fields", "place", "--unique"]),
        (3, &["index", "list", "nowhere"]),
        (3, &["index", "drop", "docs", "nothing"]),
        (3, &["index", "conflicts", "docs", "nothing"]),
    ] {
        let output = run(&peer, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    for question in ["search", "count", "explain"] {
        let output = run(&peer, &["query", question, "nowhere"]);
        assert!(output.status.success(), "{question}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("there is no collection nowhere yet"), "{question}: {said}");
    }
}

#[test]
fn a_unique_index_tells_of_what_peers_wrote_apart() {
    let folder = tempfile::tempdir().unwrap();
    let [a, mut b] = ["a", "b"].map(|name| Peer::start(&folder.path().join(name)));
    a.let_in(&b);
    assert_eq!(a.put("/api/v1/collections/users/documents/x", &json!({"email": "x@example"})).status, 201);
    wait_equal("users", 1, &[&a, &b]);
    let create = ["index", "create", "users", "email", "--fields", "email", "--unique", "--wait"];
    assert_eq!(ok(&a, &create).1, "");
    assert_eq!(ok(&b, &create).1, "");
    assert!(b.stop().success());
    let ada = r#"{"email": "ada@example"}"#;
    ok(&a, &["document", "put", "users", "first", ada]);
    assert_eq!(run(&a, &["document", "put", "users", "second", ada]).status.code(), Some(1));
    let mut a = a;
    assert!(a.stop().success());
    let b = b.restart();
    ok(&b, &["document", "put", "users", "second", ada]);
    let a = a.restart();
    wait_equal("users", 3, &[&a, &b]);
    let conflicts = |peer: &Peer| lines(&ok(peer, &["index", "conflicts", "users", "email", "-o", "ndjson"]).0);
    let expected = [json!({"winner": "first", "losers": ["second"]})];
    wait("both list the conflict", || conflicts(&a) == expected && conflicts(&b) == expected);
    ok(&a, &["index", "drop", "users", "email"]);
    let (_, said) = ok(&a, &create);
    assert!(said.contains("index conflicts users email"), "{said}");
    ok(&a, &["document", "delete", "users", "second"]);
    wait("the conflict is gone on both", || conflicts(&a).is_empty() && conflicts(&b).is_empty());
}
