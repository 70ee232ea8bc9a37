//! `node`: this peer and its neighbours.

use clap::Subcommand;

use super::failure::Outcome;
use super::http::Peer;
use super::mesh;
use super::output::{Output, line};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the peer, its addresses and its neighbours
    Status,
    /// Join the mesh of a ticket (the same as mesh join)
    Join(mesh::Join),
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Status => status(peer, output),
        Command::Join(join) => mesh::run_join(&join, peer, output),
    }
}

fn status(peer: &Peer, output: Output) -> Outcome {
    let status = peer.get("/api/v1/nodes/status")?;
    let fields = [
        ("PEER", "/peer_id"),
        ("NAME", "/node_id"),
        ("MESH", "/mesh_name"),
        ("MESH ID", "/mesh"),
        ("ROLE", "/role"),
        ("MEMBERS", "/members"),
        ("VERSION", "/version"),
        ("UPTIME (S)", "/uptime_s"),
        ("LISTENS ON", "/listen"),
        ("EXTERNAL", "/external"),
        ("REACHABILITY", "/reachability"),
    ];
    output.thing(&status, &fields)?;
    if !output.is_table() {
        return Ok(());
    }
    line("\nConnected peers")?;
    let fields = [
        ("PEER", "/peer_id"),
        ("ADDRESS", "/address"),
        ("DIRECT", "/direct"),
        ("SINCE", "/since"),
        ("IN SYNC", "/in_sync"),
    ];
    output.list(status["peers"].as_array().map_or(&[], Vec::as_slice), &fields)
}
