//! A data folder that was copied: the same identity runs twice, and everybody says so.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Peer, client, wait};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn named(peer: &Peer, twice: &Value) -> Option<Value> {
    let status = peer.get("/api/v1/nodes/status").body;
    status["runs_twice"].as_array().unwrap().iter().find(|found| found["peer_id"] == *twice).cloned()
}

fn doctor(peer: &Peer) -> (Option<i32>, String) {
    let output = client().args(["--url", &peer.url, "node", "doctor"]).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_copied_folder_is_named_by_both_copies_and_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let [third, mut original] = ["third", "original"].map(|name| Peer::start(&folder.path().join(name)));
    third.let_in(&original);
    assert!(original.stop().success());
    let copied = folder.path().join("copy");
    copy(&original.folder, &copied);
    let (original, copied) = (original.restart(), Peer::start(&copied));
    let id = original.get("/api/v1/nodes/status").body["peer_id"].clone();
    assert_eq!(copied.get("/api/v1/nodes/status").body["peer_id"], id);
    let third_id = third.get("/api/v1/nodes/status").body["peer_id"].clone();

    wait("the third one sees it", || named(&third, &id).is_some());
    assert_eq!(named(&third, &id).unwrap()["told_by"], Value::Null);
    for peer in [&original, &copied] {
        wait("each of the two hears of it", || named(peer, &id).is_some());
        let told = named(peer, &id).unwrap();
        assert_eq!(told["told_by"], third_id);
        assert_eq!(told["places"].as_array().unwrap().len(), 2, "{told}");
    }
    for peer in [&third, &original, &copied] {
        let (code, said) = doctor(peer);
        assert!(code == Some(1) && said.contains("--new-identity"), "{said}");
    }
}
