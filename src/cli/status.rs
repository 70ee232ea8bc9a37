//! `status`: how the peer does.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::Outcome;
use super::http::Peer;
use super::output::{Field, Output};

/// Which part; both when none is named.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Show whether the peer takes reads and writes; exit code 5 when it does not
    Health,
    /// Show counters, latencies and sizes
    System,
}

const HEALTH: [Field; 2] = [("STATUS", "/status"), ("PEER", "/url")];
const SYSTEM: [Field; 18] = [
    ("DOCUMENTS", "/documents"),
    ("COLLECTIONS", "/collections"),
    ("CHANGES STORED", "/changes/stored"),
    ("CHANGES RECEIVED", "/changes/received"),
    ("CHANGES DROPPED", "/changes/dropped"),
    ("ON DISK", "/disk_bytes"),
    ("IN MEMORY", "/memory/resident_bytes"),
    ("SHARES OF IT AT MOST", "/memory/shares/total_bytes"),
    ("READS", "/operations/reads/count"),
    ("READ P99", "/operations/reads/p99_us"),
    ("WRITES", "/operations/writes/count"),
    ("WRITE P99", "/operations/writes/p99_us"),
    ("MEMBERS", "/peers/members"),
    ("CONNECTED", "/peers/connected"),
    ("SENT", "/traffic/sent_bytes"),
    ("RECEIVED", "/traffic/received_bytes"),
    ("DEAD LETTERS", "/dead_letters"),
    ("UPTIME", "/uptime_s"),
];

pub(super) fn run(status: &Status, peer: &Peer, output: Output) -> Outcome {
    match status.part {
        Some(Part::Health) => output.thing(&health(peer)?, &HEALTH),
        Some(Part::System) => output.thing(&peer.get("/api/v1/stats")?, &SYSTEM),
        None => {
            let mut shown = health(peer)?;
            if let (Some(shown), Value::Object(system)) = (shown.as_object_mut(), peer.get("/api/v1/stats")?) {
                shown.extend(system);
            }
            output.thing(&shown, &[&HEALTH[..], &SYSTEM].concat())
        }
    }
}

fn health(peer: &Peer) -> Outcome<Value> {
    let health = peer.get("/health/ready")?;
    Ok(json!({"status": health["status"], "url": peer.url()}))
}
