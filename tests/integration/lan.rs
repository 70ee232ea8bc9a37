//! Peers on one LAN, in a network namespace of this test's own.

use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Peer, wait};

/// Set for the process that runs in the namespace.
const INSIDE: &str = "IN_NAMESPACE_OF_LAN_TEST";
/// A link with an address and a route for multicast.
const LINK: &str = "ip link set lo up && ip link add lan0 type veth peer name lan1 && ip link set lan1 up && \
    ip addr add 44.128.0.2/24 dev lan0 && ip link set lan0 up multicast on && ip route add default dev lan0";

fn in_namespace(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", script]);
    command
}

#[test]
fn members_on_one_lan_find_each_other_without_any_address() {
    if std::env::var_os(INSIDE).is_some() {
        return find_each_other();
    }
    let possible = in_namespace(LINK).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !possible {
        eprintln!("unsupported: no network namespace can be made here (root, unshare and ip are needed); skipped");
        return;
    }
    let test = ["--exact", "lan::members_on_one_lan_find_each_other_without_any_address", "--nocapture"];
    let mut command = in_namespace(&format!("{LINK} && exec \"$0\" \"$@\""));
    command.arg(std::env::current_exe().unwrap()).args(test).env(INSIDE, "1");
    assert!(command.status().unwrap().success());
}

fn find_each_other() {
    let folder = TempDir::new().unwrap();
    let start = || ["a", "b"].map(|name| Peer::start_on_lan(&folder.path().join(name)));
    let [mut a, mut b] = start();
    a.let_in(&b);
    assert!(a.stop().success() && b.stop().success());
    // They listen at other ports now, so that what they remember of each other is of no use.
    let [a, b] = start();
    wait("they are connected", || {
        a.get("/api/v1/nodes/status").body["peers"].as_array().is_some_and(|peers| peers.len() == 1)
    });
    a.put("/api/v1/collections/notes/documents/x", &json!({"n": 1}));
    wait("the note is there", || b.get("/api/v1/collections/notes/documents/x").status == 200);
}
