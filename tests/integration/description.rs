//! The description and the peer agree: schemathesis makes requests of all kinds out of it, valid ones and others, and
//! holds every answer against it. It is installed once, below the target folder; where it cannot be had the test is
//! skipped.

use std::process::Command;

use serde_json::json;

use crate::harness::Peer;
use crate::interop::{installed, run, source};

/// A search that takes seconds, and is the same each time.
const SEARCH: [&str; 20] = [
    "--phases",
    "examples,coverage,fuzzing",
    "--max-examples",
    "8",
    "--seed",
    "16",
    // What a filter or a stage means cannot be said by a schema, so that valid requests may be refused.
    "--exclude-checks",
    "positive_data_acceptance",
    // Files and a text of counters are no JSON, and lines of it have no schema.
    "--exclude-path-regex",
    "^/(docs|metrics)|:bulk$",
    // They turn the peer to another mesh, or fail on account of others.
    "--exclude-operation-id",
    "join",
    "--exclude-operation-id",
    "initMesh",
    "--exclude-operation-id",
    "leaveMesh",
    "--request-timeout",
    "20",
    "--generation-database",
    "none",
];

#[test]
fn the_peer_does_what_its_description_says() {
    let mut program = match schemathesis() {
        Ok(program) => program,
        Err(missing) => {
            println!("unsupported: {missing}; the test is skipped");
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(&folder.path().join("peer"));
    // What the examples in the description name is there.
    let written = peer.put("/api/v1/collections/notes/documents/today", &json!({"wind": 4, "crew": ["Ada"]}));
    assert_eq!(written.status, 201);
    let declared = peer.put("/api/v1/collections/notes/indexes/by-name", &json!({"fields": "name"}));
    assert_eq!(declared.status, 201);
    program.arg("run").args(SEARCH).arg("--no-color").arg(format!("{}/api/v1/openapi.json", peer.url));
    let output = program.current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let tested = said.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    assert!(tested.and_then(|count| count.parse().ok()) > Some(34u32), "{said}");
}

/// The program.
///
/// # Errors
/// What is missing.
fn schemathesis() -> Result<Command, String> {
    let folder = installed("schemathesis", &["schemathesis.txt"], |folder| {
        run(Command::new("python3").args(["-m", "venv", "venv"]).current_dir(folder), "python3-venv")?;
        let mut pip = Command::new(folder.join("venv/bin/pip"));
        pip.args(["install", "--quiet", "--retries", "1", "-r", "schemathesis.txt"]);
        run(pip.current_dir(folder), "schemathesis by pip").map(drop)
    })?;
    let hooks = source("schemathesis_hooks.py");
    let mut program = Command::new(folder.join("venv/bin/schemathesis"));
    program.env("PYTHONPATH", hooks.parent().unwrap()).env("SCHEMATHESIS_HOOKS", "schemathesis_hooks");
    program.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(program)
}
