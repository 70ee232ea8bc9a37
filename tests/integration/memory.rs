//! A small device: peers with the profile `edge`, each in a cgroup that lets it have 96 MB and no swap.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Peer, client};

/// Bytes that each peer may have, the cache of its files included: the system gives that up first.
const LIMIT_BYTES: u64 = 96 << 20;
const DOCUMENTS: u64 = 100_000;
/// How long the larger steps may take on a loaded machine.
const LONG: Duration = Duration::from_secs(300);

/// A cgroup with a limit of memory, of version 2 or 1. It is removed when this is dropped, after its processes.
struct Group {
    folder: PathBuf,
    /// The file that counts kills, and the one that holds the peak.
    events: &'static str,
    peak: &'static str,
}

impl Group {
    fn new(name: &str, bytes: u64) -> Result<Self, String> {
        let name = format!("aerolithsdb-test-{name}-{}", std::process::id());
        let unified = Path::new("/sys/fs/cgroup/cgroup.subtree_control");
        let (root, limits, events, peak) = if unified.exists() {
            if !fs::read_to_string(unified).unwrap_or_default().contains("memory") {
                return Err("cgroups have no control of memory".into());
            }
            ("/sys/fs/cgroup", ["memory.max", "memory.swap.max"], "memory.events", "memory.peak")
        } else {
            let limits = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
            ("/sys/fs/cgroup/memory", limits, "memory.oom_control", "memory.max_usage_in_bytes")
        };
        let folder = Path::new(root).join(name);
        fs::create_dir(&folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        let group = Self { folder, events, peak };
        let [memory, swap] = limits;
        fs::write(group.folder.join(memory), bytes.to_string()).map_err(|error| format!("{memory}: {error}"))?;
        // Version 1 limits memory and swap together. Where there is no such file there is no swap.
        let swap_bytes = if swap == "memory.swap.max" { 0 } else { bytes };
        _ = fs::write(group.folder.join(swap), swap_bytes.to_string());
        Ok(group)
    }

    fn start(&self, folder: &Path) -> Peer {
        let extra = ["--profile", "edge", "--no-mdns", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
        Peer::start_in_group(folder, &self.folder.join("cgroup.procs"), &extra.map(str::to_owned))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap()
    }

    /// Whether the system has killed a process of it for its memory.
    fn has_killed(&self) -> bool {
        let events = self.read(self.events);
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.expect("the system counts kills") != "0"
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The system needs a moment to forget a process that has ended.
        let removed = || fs::remove_dir(&self.folder).is_ok();
        _ = (0..100).any(|_| {
            removed() || {
                std::thread::sleep(Duration::from_millis(20));
                false
            }
        });
    }
}

/// Checks that the peer lives, in what it may have, and says how it does.
fn check(step: &str, group: &Group, peer: &Peer) {
    assert!(!group.has_killed(), "killed after: {step}");
    let memory = peer.get("/api/v1/stats").body["memory"].clone();
    let resident = memory["resident_bytes"].as_u64().unwrap();
    eprintln!("{step}: {} MB resident, peak {} B", resident >> 20, group.read(group.peak).trim());
    assert!(memory["shares"]["total_bytes"].as_u64().unwrap() < LIMIT_BYTES, "{memory}");
}

fn write_documents(path: &Path) {
    let mut file = BufWriter::new(fs::File::create(path).unwrap());
    for n in 0..DOCUMENTS {
        let document = json!({
            "_id": format!("doc-{n:07}"), "name": format!("Person Number {n}"), "age": 18 + n % 60,
            "city": format!("City {}", n % 500), "tags": ["alpha", "beta", format!("tag{}", n % 10)],
            "nested": {"street": format!("{n} Long Street"), "zip": 10_000 + n, "active": n % 2 == 0,
                       "note": "some words to fill the space"},
        });
        writeln!(file, "{document}").unwrap();
    }
    file.flush().unwrap();
}

fn run_client(arguments: &[&str], path: &Path, peer: &Peer) {
    let output = client().args(["--url", &peer.url]).args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_small_device_holds_a_hundred_thousand_documents() {
    let groups = Group::new("sender", LIMIT_BYTES).and_then(|one| Ok((one, Group::new("receiver", LIMIT_BYTES)?)));
    let (group, other_group) = match groups {
        Ok(groups) => groups,
        Err(why) => return eprintln!("unsupported: no cgroup can be made here ({why}); skipped"),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("documents.ndjson");
    write_documents(&file);
    let peer = group.start(&folder.path().join("sender"));
    run_client(&["import", "docs"], &file, &peer);
    check("import", &group, &peer);

    for (name, fields) in [("city", json!(["city", "name"])), ("zip", json!(["nested.zip"]))] {
        let answer = peer.put(&format!("/api/v1/collections/docs/indexes/{name}"), &json!({ "fields": fields }));
        assert!(answer.status < 300, "{answer:?}");
    }
    wait_long("the indexes are built", || {
        let indexes = peer.get("/api/v1/collections/docs/indexes").body["indexes"].clone();
        indexes.as_array().unwrap().iter().all(|index| index["stage"] == "ready")
    });
    check("two indexes", &group, &peer);

    let other = other_group.start(&folder.path().join("receiver"));
    peer.let_in(&other);
    wait_long("the other has caught up", || other.count("docs") == DOCUMENTS);
    check("sending all of it", &group, &peer);
    check("receiving all of it", &other_group, &other);

    let query = json!({"filter": {"nested.street": {"$ne": ""}}, "sort": "-nested.street", "limit": 1_000});
    let found = peer.post("/api/v1/collections/docs/query", &query);
    assert_eq!(found.body["documents"].as_array().map(Vec::len), Some(1_000), "{}", found.status);
    check("a query that reads all", &group, &peer);
    run_client(&["export", "docs"], &folder.path().join("export.ndjson"), &peer);
    check("an export", &group, &peer);
}

fn wait_long(what: &str, done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "{what}: not in {} s", LONG.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
}
