//! What is wrong around a peer is said in one line that says what to do, and harms nothing.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::harness::{Peer, program, wait_equal, with_open_files};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = program();
    for default in [["--rest-port", "0"], ["--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]] {
        if !arguments.contains(&default[0]) {
            command.args(default);
        }
    }
    command.arg("--no-mdns");
    command.arg("--data-dir").arg(folder).args(arguments).output().unwrap()
}

fn refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it ran");
    assert!(said.contains(why), "it said {said:?} instead of something with {why:?}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(said.trim().lines().count() <= 3, "more than a line: {said}");
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    refused(&run(folder.path(), &[]), "in use by another process");
    assert_eq!(peer.put("/api/v1/collections/docs/documents/x", &json!({})).status, 201);
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
    refused(&run(folder.path(), &[]), "thesis.txt");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    refused(&run(&file, &[]), "file");
}

#[test]
fn ports_in_use_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(&run(&folder.path().join("a"), &["--rest-port", &port]), &port);
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    refused(&run(&folder.path().join("b"), &["--listen", &address]), &port);
}

#[test]
fn a_damaged_identity_is_named_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::start(folder.path());
    assert!(peer.stop().success());
    let key = folder.path().join("identity.key");
    let before = fs::read(&key).unwrap();
    fs::write(&key, &before[..before.len() / 2]).unwrap();
    refused(&run(folder.path(), &[]), "identity.key");
    fs::write(&key, &before).unwrap();
    Peer::start(folder.path());
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let start = |name| Peer::start_on_full_disk_for_logs(&folder.path().join(name));
    let peers = [start("a"), start("b")];
    peers[0].let_in(&peers[1]);
    for (n, peer) in peers.iter().enumerate() {
        assert_eq!(peer.put(&format!("/api/v1/collections/docs/documents/{n}"), &json!({})).status, 201);
    }
    wait_equal("docs", 2, &peers.each_ref());
}

#[test]
fn too_few_open_files_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_open_files(64);
    refused(&command.args(["--rest-port", "0", "--data-dir"]).arg(folder.path()).output().unwrap(), "ulimit -n 1024");
}

#[test]
fn clients_that_are_idle_give_way_when_no_more_files_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start_with_open_files(folder.path(), 128);
    let address = peer.url.trim_start_matches("http://");
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    for n in 0..10 {
        assert_eq!(peer.put(&format!("/api/v1/collections/docs/documents/{n}"), &json!({})).status, 201);
    }
    drop(idle);
}

#[test]
fn the_identity_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    let mode = fs::metadata(peer.folder.join("identity.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_wrong_configuration_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peer.toml");
    fs::write(&file, "[storage]\ndata_dri = \"x\"\n").unwrap();
    let output = run(&folder.path().join("data"), &["--config", file.to_str().unwrap()]);
    refused(&output, "data_dri");
    assert!(String::from_utf8_lossy(&output.stderr).contains("data_dir"));
}

/// Text that no compression makes much smaller.
fn incompressible(length: usize) -> String {
    let mut state = 1u64;
    let next = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    });
    next.take(length).collect()
}

/// A full disk: a small file system of its own, where the system lets us mount one.
#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("small");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=128m", "tmpfs"]).arg(&mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this machine does not let us mount a small file system");
        return;
    }
    let mut peer = Peer::start(&mount.join("data"));
    let body = json!({"text": incompressible(200_000)});
    let mut written = 0;
    // What is moved into place in the background makes a little room again, so that it takes a few rounds.
    let refusal = loop {
        let answer = peer.put(&format!("/api/v1/collections/docs/documents/{written}"), &body);
        if answer.status == 201 {
            written += 1;
            assert!(written < 2_000, "the disk never filled");
        } else if peer.get("/health/ready").status == 503 {
            break answer;
        }
    };
    assert_eq!(refusal.status, 507, "{refusal:?}");
    assert!(refusal.body["detail"].as_str().unwrap().contains("the disk is full"), "{refusal:?}");
    // Reads go on.
    assert!(peer.get("/api/v1/collections/docs/documents/0").body["data"] == body, "a read failed");
    assert_eq!(peer.get("/health").status, 200);
    // With room again writes go on by themselves; and after a kill everything is there.
    let grown = Command::new("mount").args(["-o", "remount,size=512m"]).arg(&mount).status().unwrap();
    assert!(grown.success());
    assert_eq!(peer.put("/api/v1/collections/docs/documents/more", &body).status, 201);
    assert_eq!(peer.get("/health/ready").status, 200);
    peer.kill();
    let peer = peer.restart();
    for n in 0..written {
        assert_eq!(peer.get(&format!("/api/v1/collections/docs/documents/{n}")).status, 200, "{n} is lost");
    }
    drop(peer);
    _ = Command::new("umount").arg(&mount).status();
}
