//! `node`: this peer and its neighbours.

use clap::Subcommand;
use serde_json::Value;

use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::mesh;
use super::output::{Output, line};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the peer, its addresses and its neighbours
    Status,
    /// Say what is wrong with the peer's network and what to do; exits with 1 when something is
    Doctor,
    /// Join the mesh of a ticket (the same as mesh join)
    Join(mesh::Join),
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Status => status(peer, output),
        Command::Doctor => doctor(peer, output),
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
        ("UPTIME", "/uptime_s"),
        ("LISTENS ON", "/listen"),
        ("EXTERNAL", "/external"),
        ("REACHABILITY", "/reachability"),
        ("RELAYS", "/reach/relays/held"),
        ("RELAYS FOR OTHERS", "/reach/relay_service/enabled"),
        ("SLOTS TAKEN", "/reach/relay_service/slots"),
        ("CIRCUITS TAKEN", "/reach/relay_service/circuits"),
        ("HOLES PUNCHED", "/reach/punches/succeeded"),
        ("PUNCHES FAILED", "/reach/punches/failed"),
        ("LAST FAILURE", "/reach/punches/last_failure"),
        ("ROUTER", "/reach/router"),
        ("STUN", "/reach/stun/found"),
        ("CLOCK", "/clock/shows"),
        ("CLOCK IS", "/clock/agreement"),
    ];
    output.thing(&status, &fields)?;
    if !output.is_table() {
        return Ok(());
    }
    line("\nAddresses")?;
    let fields = [("SOURCE", "/source"), ("ADDRESS", "/address"), ("STATE", "/state")];
    output.list(list(&status["reach"]["addresses"]), &fields)?;
    if !list(&status["overused"]).is_empty() {
        line("\nTickets that more used than they let in (an admin can admit the fallen by a new one)")?;
        let fields = [("ISSUER", "/issuer"), ("USES", "/uses"), ("MEMBERS", "/members"), ("FALLEN", "/fallen")];
        output.list(list(&status["overused"]), &fields)?;
    }
    line("\nConnected peers")?;
    let fields = [
        ("PEER", "/peer_id"),
        ("ADDRESS", "/address"),
        ("DIRECT", "/direct"),
        ("SINCE", "/since"),
        ("NO ANSWER SINCE", "/no_answer_since"),
        ("IN SYNC", "/in_sync"),
        ("CLOCK AHEAD", "/clock_ahead_ms"),
    ];
    output.list(list(&status["peers"]), &fields)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn doctor(peer: &Peer, output: Output) -> Outcome {
    let diagnosis = peer.get("/api/v1/nodes/doctor")?;
    if output.is_table() {
        for finding in list(&diagnosis["findings"]) {
            let said = |field: &str| finding[field].as_str().unwrap_or_default();
            line(&format!("{:<8} {}: {}", said("severity"), said("subject"), said("what")))?;
            if let Some(advice) = finding["advice"].as_str() {
                line(&format!("{:<8} -> {advice}", ""))?;
            }
        }
    } else {
        output.thing(&diagnosis, &[])?;
    }
    if diagnosis["healthy"] == Value::Bool(true) {
        return Ok(());
    }
    Err(Failure::new(Kind::Failed, "something is wrong with this peer's network"))
}
