//! `sync`: who is in sync, and what is in the way.

use clap::Subcommand;
use serde_json::{Value, json};

use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::{Field, Output, line};
use crate::gateway::path_segment;

const PEER: [Field; 7] = [
    ("PEER", "/peer_id"),
    ("CONNECTED", "/connected"),
    ("NO ANSWER SINCE", "/no_answer_since"),
    ("STATE", "/state"),
    ("AS OF", "/as_of"),
    ("CHANGED HERE SINCE", "/changed_here_since"),
    ("TO RECEIVE", "/to_receive"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how each collection stands with each peer
    Status,
    /// Show how one document stands, and why
    Why {
        /// The collection
        collection: String,
        /// The document's id
        id: String,
    },
    /// Ask whether other peers have everything that is here; ends with 1 when they have not
    SafeToLeave {
        /// How many other peers
        #[arg(long, default_value_t = 1)]
        peers: usize,
        /// Milliseconds to wait for them
        #[arg(long, default_value_t = 5_000, value_name = "MS")]
        timeout_ms: u64,
    },
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Status => status(&peer.get("/api/v1/sync")?, output),
        Command::Why { collection, id } => {
            let path = format!("/api/v1/sync/why/{}/{}", path_segment(&collection), path_segment(&id));
            why(&peer.get(&path)?, output)
        }
        Command::SafeToLeave { peers, timeout_ms } => {
            let path = format!("/api/v1/sync/safe-to-leave?peers={peers}&timeout_ms={timeout_ms}");
            leave(&peer.get(&path)?, output)
        }
    }
}

fn status(sync: &Value, output: Output) -> Outcome {
    if !output.is_table() {
        return output.document(sync);
    }
    let mut fields = vec![("COLLECTION", "/name"), ("DOCUMENTS", "/count")];
    fields.extend(PEER);
    output.list(&rows(sync), &fields)?;
    for (title, pointer) in [
        ("Changes that are not applied", "/dead_letters"),
        ("Peers that used a sequence number twice, in how many documents", "/forks"),
        ("Changes dropped since the start", "/dropped"),
        ("Damaged documents", "/damaged"),
    ] {
        if let Some(found) = sync.pointer(pointer).filter(|found| !is_empty(found)) {
            line(&format!("\n{title}: {found}"))?;
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty) && value.as_array().is_none_or(Vec::is_empty)
}

/// One row for each collection and peer; a collection that was compared with nobody has one too.
fn rows(sync: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for collection in sync["collections"].as_array().into_iter().flatten() {
        let own = json!({"name": collection["name"], "count": collection["count"]});
        let peers = collection["peers"].as_array().map_or(&[][..], Vec::as_slice);
        if peers.is_empty() {
            rows.push(own.clone());
        }
        for peer in peers {
            let mut row = own.clone();
            if let (Some(row), Some(peer)) = (row.as_object_mut(), peer.as_object()) {
                row.extend(peer.clone());
            }
            rows.push(row);
        }
    }
    rows
}

fn why(why: &Value, output: Output) -> Outcome {
    let fields = [
        ("COLLECTION", "/collection"),
        ("ID", "/id"),
        ("HEADS", "/heads"),
        ("DELETED", "/deleted"),
        ("CHANGES", "/changes"),
        ("DAMAGED", "/damaged"),
        ("WAITING", "/waiting"),
    ];
    output.thing(why, &fields)?;
    if !output.is_table() {
        return Ok(());
    }
    line("\nWho has it as it is here")?;
    let holders = why["holders"].as_array().map_or(&[][..], Vec::as_slice);
    output.list(holders, &[("PEER", "/peer_id"), ("HAS IT", "/has_it")])?;
    line("\nIts collection")?;
    output.list(why["peers"].as_array().map_or(&[], Vec::as_slice), &PEER)
}

fn leave(leave: &Value, output: Output) -> Outcome {
    if output.is_table() {
        let fields = [
            ("PEER", "/peer_id"),
            ("CONNECTED", "/connected"),
            ("NO ANSWER SINCE", "/no_answer_since"),
            ("HAS ALL", "/has_all"),
            ("AS OF", "/compared_at"),
        ];
        output.list(leave["peers"].as_array().map_or(&[], Vec::as_slice), &fields)?;
    } else {
        output.document(leave)?;
    }
    if leave["safe"] == true {
        return if output.is_table() { line("\nsafe to leave") } else { Ok(()) };
    }
    let message = format!("not safe to leave: fewer than {} other peers have everything that is here", leave["wanted"]);
    Err(Failure::new(Kind::Failed, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_collection_and_peer_has_a_row() {
        let sync = json!({"collections": [
            {"name": "a", "count": 1, "peers": []},
            {"name": "b", "count": 2, "peers": [{"peer_id": "x"}, {"peer_id": "y"}]},
        ]});
        let rows = rows(&sync);
        assert_eq!(
            rows,
            [
                json!({"name": "a", "count": 1}),
                json!({"name": "b", "count": 2, "peer_id": "x"}),
                json!({"name": "b", "count": 2, "peer_id": "y"}),
            ]
        );
    }
}
