//! Files into a peer and back, with the real programs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{Peer, client, wait};

const COUNTRIES: &str = include_str!("../../examples/data/countries.ndjson");

fn run(peer: &Peer, arguments: &[&str]) -> Output {
    client().args(["--url", &peer.url]).args(arguments).output().unwrap()
}

/// The summary of a command that succeeds.
fn ok(peer: &Peer, arguments: &[&str]) -> Value {
    let output = run(peer, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn countries() -> BTreeMap<String, Value> {
    by_id(COUNTRIES.lines().map(|line| serde_json::from_str(line).unwrap()))
}

/// Documents by their ids, which are taken out.
fn by_id(documents: impl Iterator<Item = Value>) -> BTreeMap<String, Value> {
    documents
        .map(|mut document| {
            let id = document.as_object_mut().unwrap().remove("_id").unwrap();
            (id.as_str().unwrap().to_owned(), document)
        })
        .collect()
}

fn stored(peer: &Peer, collection: &str) -> BTreeMap<String, Value> {
    peer.all(collection).into_iter().collect()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn countries_come_back_from_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let source = path(folder.path(), "countries.ndjson");
    fs::write(&source, COUNTRIES).unwrap();
    let first = ok(&peer, &["import", "a", &source]);
    assert_eq!((&first["created"], &first["failed"]), (&json!(252), &json!(0)));
    let again = ok(&peer, &["import", "a", &source]);
    assert_eq!((&again["unchanged"], &again["created"]), (&json!(252), &json!(0)));
    assert_eq!(stored(&peer, "a"), countries());

    for (name, collection) in [("x.ndjson.gz", "b"), ("x.json", "c"), ("x.jsonl.zst", "d"), ("x.json.gz", "e")] {
        let file = path(folder.path(), name);
        assert_eq!(ok(&peer, &["export", "a", &file])["documents"], 252);
        assert_eq!(ok(&peer, &["import", collection, &file])["created"], 252, "{name}");
        assert_eq!(stored(&peer, collection), countries(), "{name}");
    }
    let packed = fs::read(path(folder.path(), "x.ndjson.gz")).unwrap();
    assert!(packed.starts_with(&[0x1f, 0x8b]) && packed.len() < COUNTRIES.len() / 2);
    let array: Vec<Value> = serde_json::from_slice(&fs::read(path(folder.path(), "x.json")).unwrap()).unwrap();
    assert_eq!(by_id(array.into_iter()), countries());

    let csv = path(folder.path(), "x.csv");
    ok(&peer, &["export", "a", &csv, "--columns", "_id,name,capital,phone"]);
    assert_eq!(ok(&peer, &["import", "f", &csv])["created"], 252);
    // A capital that is empty is left out; a phone that is a list is one again.
    let flat = |country: &Value| {
        let mut flat = json!({"name": country["name"], "phone": country["phone"]});
        if country["capital"] != "" {
            flat["capital"] = country["capital"].clone();
        }
        flat
    };
    let expected: BTreeMap<_, _> = countries().iter().map(|(id, country)| (id.clone(), flat(country))).collect();
    assert_eq!(stored(&peer, "f"), expected);

    let output = run(&peer, &["export", "a"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(by_id(lines.lines().map(|line| serde_json::from_str(line).unwrap())), countries());
    assert_eq!(run(&peer, &["export", "nothing"]).status.code(), Some(3));
}

#[test]
fn csv_comes_back_or_says_that_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let documents = [
        json!({"_id": "a", "tags": ["x", {"y": 1}], "n": 1.5, "text": "a;b,\"c\"\nd"}),
        json!({"_id": "b", "n": null}),
        json!({"_id": "c", "tags": [], "deep": {"er": {"est": true}}}),
    ];
    for document in &documents {
        assert_eq!(peer.post("/api/v1/collections/whole/documents", document).status, 201);
    }
    for (name, extra) in [("x.csv", &[][..]), ("x.tsv", &[]), ("y.csv", &["--delimiter", ";"])] {
        let file = path(folder.path(), name);
        let output = run(&peer, &[&["export", "whole", &file], extra].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        ok(&peer, &["import", name.split('.').next().unwrap(), &file]);
        assert_eq!(stored(&peer, &name[..1]), by_id(documents.iter().cloned()), "{name}");
    }
    // What cannot be told from a number is named.
    peer.put("/api/v1/collections/lossy/documents/a", &json!({"zip": "12345", "note": "", "n": 1}));
    let output = run(&peer, &["export", "lossy", "--format", "csv"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 in note, 1 in zip") && said.contains("NDJSON keeps everything"), "{said}");
}

#[test]
fn what_separates_columns_is_guessed_said_or_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let expected = BTreeMap::from([("a".to_owned(), json!({"price": "1,5", "n": 2}))]);
    for (name, text, extra) in [
        ("semicolons.csv", "_id;price;n\na;1,5;2\n", &[][..]),
        ("tabs.csv", "_id\tprice\tn\na\t1,5\t2\n", &[]),
        ("bars.csv", "_id|price|n\na|1,5|2\n", &["--delimiter", "|"]),
    ] {
        let file = path(folder.path(), name);
        fs::write(&file, text).unwrap();
        let collection = name.split('.').next().unwrap();
        ok(&peer, &[&["import", collection, &file], extra].concat());
        assert_eq!(stored(&peer, collection), expected, "{name}");
    }
    let output = run(&peer, &["import", "asked", &path(folder.path(), "bars.csv")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--delimiter '|'"), "{said}");
    assert_eq!(peer.count("asked"), 0);
}

#[test]
fn an_export_overwrites_nothing_and_takes_no_unknown_name() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    for n in 0..5 {
        peer.put(&format!("/api/v1/collections/docs/documents/{n}"), &json!({"n": n}));
    }
    let xlsx = path(folder.path(), "x.xlsx");
    let output = run(&peer, &["export", "docs", &xlsx]);
    assert!(output.status.code() == Some(2) && !Path::new(&xlsx).exists(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(".csv"), "{output:?}");
    let file = path(folder.path(), "x.ndjson");
    fs::write(&file, "mine").unwrap();
    let output = run(&peer, &["export", "docs", &file]);
    assert!(
        output.status.code() == Some(2) && String::from_utf8_lossy(&output.stderr).contains("--force"),
        "{output:?}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(ok(&peer, &["export", "docs", &file, "--force", "--filter", r#"{"n": {"$gte": 3}}"#])["documents"], 2);
    assert_eq!(fs::read_to_string(&file).unwrap(), "{\"_id\":\"3\",\"n\":3}\n{\"_id\":\"4\",\"n\":4}\n");
    let output = run(&peer, &["export", "docs", "--format", "csv", "--filter", r#"{"n": 1}"#]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "_id,n\r\n1,1\r\n", "{output:?}");
    assert_eq!(
        run(&peer, &["export", "docs", folder.path().to_str().unwrap(), "--format", "json"]).status.code(),
        Some(2)
    );
}

#[test]
fn extended_json_becomes_plain() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let file = path(folder.path(), "dump.json");
    let text = r#"[
        {"_id": {"$oid": "5f1d7f3c9b1e8a0001a1b2c3"}, "n": {"$numberLong": "5"}, "at": {"$date": {"$numberLong": "0"}}},
        {"_id": {"$numberInt": "7"}, "price": {"$numberDecimal": "0.1000000000000000055"},
         "raw": {"$binary": {"base64": "AQI=", "subType": "00"}}}
    ]"#;
    fs::write(&file, text).unwrap();
    let summary = ok(&peer, &["import", "a", &file, "--format", "extjson"]);
    assert_eq!((&summary["created"], &summary["decimals_as_text"]), (&json!(2), &json!(1)));
    let expected = BTreeMap::from([
        ("5f1d7f3c9b1e8a0001a1b2c3".to_owned(), json!({"n": 5, "at": "1970-01-01T00:00:00.000Z"})),
        ("7".to_owned(), json!({"price": "0.1000000000000000055", "raw": {"$bytes": "AQI="}})),
    ]);
    assert_eq!(stored(&peer, "a"), expected);
}

#[test]
fn lines_that_fail_are_named_and_the_others_written() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let (file, errors) = (path(folder.path(), "x.ndjson"), path(folder.path(), "errors.ndjson"));
    let deep = format!("{{\"_id\":\"deep\",\"a\":{}{}}}", "[".repeat(127), "]".repeat(127));
    let text = format!("{{\"code\":1}}\n{{broken\n\n{{\"code\":\"b\",\"x\":1,\"x\":2}}\n{{\"n\":1}}\n{deep}\n");
    fs::write(&file, text).unwrap();
    let output = run(&peer, &["import", "a", &file, "--id", "code", "--errors", &errors]);
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["created"], &summary["failed"]), (&json!(1), &json!(4)));
    let failed = fs::read_to_string(&errors).unwrap();
    let failed: Vec<Value> = failed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut lines: Vec<_> = failed.iter().map(|failure| failure["line"].as_u64().unwrap()).collect();
    lines.sort_unstable();
    assert_eq!(lines, [2, 4, 5, 6]);
    assert!(failed.iter().any(|failure| failure["document"] == "{broken"), "{failed:?}");
    assert_eq!(stored(&peer, "a"), BTreeMap::from([("1".to_owned(), json!({"code": 1}))]));

    let shown = run(&peer, &["import", "a", &file]);
    assert!(String::from_utf8_lossy(&shown.stderr).contains("line 2: expected a key"), "{shown:?}");
    // The deepest document that may be is printed too.
    let output = run(&peer, &["document", "get", "a", "deep"]);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains(&"[".repeat(127)),
        "{output:?}"
    );

    for (cut, collection) in [("[{\"_id\":\"a\"},{\"_id\"", "cut"), ("[1", "cut2")] {
        let file = path(folder.path(), "cut.json");
        fs::write(&file, cut).unwrap();
        let output = run(&peer, &["import", collection, &file]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cut"), "{output:?}");
    }
    assert_eq!(peer.count("cut"), 1);
}

#[test]
fn the_order_of_lines_with_one_id_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let file = path(folder.path(), "x.ndjson");
    let lines: Vec<String> = (0..6_000).map(|n| format!("{{\"_id\":\"{}\",\"n\":{n}}}\n", n % 7)).collect();
    fs::write(&file, lines.concat()).unwrap();
    let summary = ok(&peer, &["import", "a", &file]);
    assert_eq!((&summary["created"], &summary["replaced"]), (&json!(7), &json!(5_993)));
    let expected: BTreeMap<_, _> = (5_993..6_000).map(|n| ((n % 7).to_string(), json!({ "n": n }))).collect();
    assert_eq!(stored(&peer, "a"), expected);
    let deletes: String = (0..7).map(|id| format!("{{\"_id\":\"{id}\",\"_deleted\":true}}\n")).collect();
    fs::write(&file, deletes).unwrap();
    assert_eq!(ok(&peer, &["import", "a", &file])["deleted"], 7);
    assert_eq!(peer.count("a"), 0);
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let file = path(folder.path(), "x.ndjson.gz");
    // Without ids: what is sent twice must get the same one again.
    let count = 20_000;
    let mut packed = flate2::write::GzEncoder::new(fs::File::create(&file).unwrap(), flate2::Compression::fast());
    (0..count).for_each(|n| writeln!(packed, "{{\"n\":{n}}}").unwrap());
    packed.finish().unwrap();
    let import = ["--url", &peer.url, "import", "a", &file, "--resume"];
    let mut killed = client().args(import).spawn().unwrap();
    let state = format!("{file}.aerolithsdb-import");
    wait("something is written down", || fs::metadata(&state).is_ok() && peer.count("a") > 0);
    killed.kill().unwrap();
    assert!(!killed.wait().unwrap().success(), "it was killed too late; make it import more");
    let done: Value = serde_json::from_slice(&fs::read(&state).unwrap()).unwrap();
    assert!(peer.count("a") < count && done["done"].as_u64().unwrap() <= peer.count("a"));

    let summary = ok(&peer, &import[2..]);
    assert_eq!((&summary["resumed_after"], &summary["failed"]), (&done["done"], &json!(0)));
    let mut numbers: Vec<u64> = peer.all("a").iter().map(|(_, data)| data["n"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    assert!(!Path::new(&state).exists());
}

#[test]
fn a_bulk_write_goes_on_while_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    let mut stream = std::net::TcpStream::connect(peer.url.trim_start_matches("http://")).unwrap();
    let head =
        "POST /api/v1/collections/a/documents:bulk HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answered = String::new();
    for n in 0..3 {
        let line = format!("{{\"_id\":\"{n}\"}}\n");
        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).unwrap();
        while !answered.contains(&format!("\"id\":\"{n}\"")) {
            let mut piece = [0; 1_024];
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "{answered}");
            answered.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    }
    // What was answered is written, though the request never ends.
    drop(stream);
    assert_eq!(peer.count("a"), 3);
}

#[test]
fn a_bench_measures_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    let load = ["bench", "--seconds", "1", "--connections", "4", "--mix", "mixed", "--cleanup", "--output", "json"];
    let rows = ok(&peer, &load);
    let operations: Vec<_> = rows.as_array().unwrap().iter().map(|row| &row["operation"]).collect();
    assert_eq!(operations, ["read", "write"]);
    for row in rows.as_array().unwrap() {
        assert!(row["count"].as_u64().unwrap() > 0 && row["failed"] == 0, "{row}");
        let latencies = ["p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms"].map(|key| row[key].as_f64().unwrap());
        assert!(latencies.is_sorted() && latencies[0] > 0.0, "{row}");
    }
    assert_eq!(peer.count("bench"), 0);
}

#[test]
fn every_command_answers_in_json_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    peer.put("/api/v1/collections/a/documents/x", &json!({"n": 1}));
    let config = path(folder.path(), "c.toml");
    fs::write(&config, "[node]\nnode_id = \"x\"\n").unwrap();
    let file = path(folder.path(), "x.ndjson");
    for command in [
        vec!["document", "put", "a", "y", "{}"],
        vec!["document", "get", "a", "x"],
        vec!["document", "delete", "a", "y"],
        vec!["collection", "list"],
        vec!["collection", "list", "a"],
        vec!["collection", "stats"],
        vec!["mesh", "invite"],
        vec!["mesh", "peers"],
        vec!["node", "status"],
        vec!["sync", "status"],
        vec!["sync", "why", "a", "x"],
        vec!["status", "health"],
        vec!["status", "system"],
        vec!["config", "show"],
        vec!["config", "check", &config],
        vec!["export", "a", &file, "--force"],
        vec!["import", "a", &file],
    ] {
        for format in ["json", "ndjson"] {
            let output = run(&peer, &[&["--output", format], command.as_slice()].concat());
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            for line in text.lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok(), "{command:?}: {text}");
            }
            assert!(!text.is_empty(), "{command:?}");
            // Deleted for the next form.
            _ = peer.put("/api/v1/collections/a/documents/y", &json!({}));
        }
        let table = Command::new(env!("CARGO_BIN_EXE_aerolithsdb-cli"))
            .args(["--url", &peer.url, "--output", "table"])
            .args(&command)
            .output()
            .unwrap();
        assert!(table.status.success() && !table.stdout.is_empty(), "{command:?}");
        _ = peer.put("/api/v1/collections/a/documents/y", &json!({}));
    }
}
