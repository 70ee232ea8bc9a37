//! `status`: how the peer does.

use clap::Subcommand;
use serde_json::json;

use super::failure::Outcome;
use super::http::Peer;
use super::output::Output;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show whether the peer takes reads and writes; exit code 5 when it does not
    Health,
    /// Show counters, latencies and sizes
    System,
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Health => {
            let health = peer.get("/health/ready")?;
            let shown = json!({"status": health["status"], "url": peer.url()});
            output.thing(&shown, &[("STATUS", "/status"), ("PEER", "/url")])
        }
        Command::System => {
            let fields = [
                ("DOCUMENTS", "/documents"),
                ("COLLECTIONS", "/collections"),
                ("CHANGES STORED", "/changes/stored"),
                ("CHANGES RECEIVED", "/changes/received"),
                ("CHANGES DROPPED", "/changes/dropped"),
                ("BYTES ON DISK", "/disk_bytes"),
                ("BYTES IN MEMORY", "/memory/resident_bytes"),
                ("SHARES OF IT AT MOST", "/memory/shares/total_bytes"),
                ("READS", "/operations/reads/count"),
                ("READ P99 (US)", "/operations/reads/p99_us"),
                ("WRITES", "/operations/writes/count"),
                ("WRITE P99 (US)", "/operations/writes/p99_us"),
                ("MEMBERS", "/peers/members"),
                ("CONNECTED", "/peers/connected"),
                ("BYTES SENT", "/traffic/sent_bytes"),
                ("BYTES RECEIVED", "/traffic/received_bytes"),
                ("DEAD LETTERS", "/dead_letters"),
                ("UPTIME (S)", "/uptime_s"),
            ];
            output.thing(&peer.get("/api/v1/stats")?, &fields)
        }
    }
}
