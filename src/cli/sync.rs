//! `sync`: who is in sync, and what is in the way.

use clap::Subcommand;
use serde_json::{Value, json};

use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::{Field, Output, line, printable};
use crate::gateway::path_segment;

const PEER: [Field; 8] = [
    ("PEER", "/peer_id"),
    ("CONNECTED", "/connected"),
    ("NO ANSWER SINCE", "/no_answer_since"),
    ("STATE", "/state"),
    ("AS OF", "/as_of"),
    ("CHANGED HERE SINCE", "/changed_here_since"),
    ("TO RECEIVE", "/to_receive"),
    ("TO SEND", "/to_send"),
];

/// One line for each peer.
const SUMMARY: [Field; 7] = [
    ("PEER", "/peer_id"),
    ("CONNECTED", "/link"),
    ("STATE", "/state"),
    ("AS OF", "/as_of"),
    ("COLLECTIONS THAT DIFFER", "/differing"),
    ("TO RECEIVE", "/to_receive"),
    ("TO SEND", "/to_send"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how this peer stands with each other one, or each collection with one of them
    Status {
        /// A peer, by its id or the beginning of it: how each collection stands with it
        peer: Option<String>,
        /// How each collection stands with each peer
        #[arg(long, conflicts_with = "peer")]
        collections: bool,
    },
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
        Command::Status { peer: of, collections } => {
            let sync = peer.get("/api/v1/sync")?;
            match of {
                Some(of) => status(&of_peer(sync, &of)?, true, output),
                None => status(&sync, collections, output),
            }
        }
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

fn status(sync: &Value, by_collection: bool, output: Output) -> Outcome {
    if !output.is_table() {
        return output.document(sync);
    }
    if let Some(repairing) = sync.get("repairing") {
        let (done, pages) = (&repairing["pages_done"], &repairing["pages"]);
        line(&format!(
            "Repairing: the table is damaged and is being built anew, {done} of {pages} pages are done. Nothing is \
             compared until then.\n"
        ))?;
    }
    if by_collection {
        let mut fields = vec![("COLLECTION", "/name"), ("DOCUMENTS", "/documents")];
        fields.extend(PEER);
        output.list(&rows(sync), &fields)?;
    } else {
        let (documents, collections) = (&sync["documents"], &sync["collections_total"]);
        line(&format!("{documents} documents in {collections} collections are here.\n"))?;
        let peers = sync["peers"].as_array().map_or(&[][..], Vec::as_slice);
        output.list(&peers.iter().map(summary).collect::<Vec<_>>(), &SUMMARY)?;
        if !peers.is_empty() {
            line("\nsync status PEER shows the collections of one of them, --collections those of all.")?;
        }
    }
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

/// What is said of one peer alone.
fn of_peer(mut sync: Value, named: &str) -> Outcome<Value> {
    let is_meant = |peer: &Value| peer["peer_id"].as_str().is_some_and(|id| id.starts_with(named));
    let found = sync["peers"].as_array().map_or(0, |peers| peers.iter().filter(|peer| is_meant(peer)).count());
    if found != 1 {
        let what = if found == 0 { "no other member" } else { "more than one member" };
        return Err(Failure::new(Kind::NotFound, format!("{what} has an id that begins with {}", printable(named))));
    }
    let keep = |peers: &mut Value| {
        if let Some(peers) = peers.as_array_mut() {
            peers.retain(is_meant);
        }
    };
    keep(&mut sync["peers"]);
    for collection in sync["collections"].as_array_mut().into_iter().flatten() {
        keep(&mut collection["peers"]);
    }
    Ok(sync)
}

/// The line of a peer.
fn summary(peer: &Value) -> Value {
    let mut row = peer.clone();
    row["link"] = match (&peer["connected"], peer["no_answer_since"].as_str()) {
        (Value::Bool(true), Some(since)) => format!("no answer since {since}").into(),
        (Value::Bool(true), None) => "yes".into(),
        _ => "no".into(),
    };
    row["differing"] = match (&peer["collections_differing"], &peer["more_differ"]) {
        (found, Value::Bool(true)) => format!("{found} or more").into(),
        _ if peer["state"] == "unknown" => Value::Null,
        (found, _) => found.clone(),
    };
    row
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty) && value.as_array().is_none_or(Vec::is_empty)
}

/// One row for each collection and peer; a collection that was compared with nobody has one too.
fn rows(sync: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for collection in sync["collections"].as_array().into_iter().flatten() {
        let own = json!({"name": collection["name"], "documents": collection["documents"]});
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
            {"name": "a", "documents": 1, "count": 3, "peers": []},
            {"name": "b", "documents": 2, "count": 2, "peers": [{"peer_id": "x"}, {"peer_id": "y"}]},
        ]});
        let expected = [
            json!({"name": "a", "documents": 1}),
            json!({"name": "b", "documents": 2, "peer_id": "x"}),
            json!({"name": "b", "documents": 2, "peer_id": "y"}),
        ];
        assert_eq!(rows(&sync), expected);
    }

    #[test]
    fn a_peer_has_one_line_and_its_own_collections() {
        let peer = |id: &str| json!({"peer_id": id, "connected": true, "state": "differs", "collections_differing": 2});
        let sync = json!({
            "peers": [peer("abc"), peer("abd")],
            "collections": [{"name": "a", "documents": 1, "peers": [{"peer_id": "abc"}, {"peer_id": "abd"}]}],
        });
        let of = of_peer(sync.clone(), "abd").unwrap();
        assert_eq!((of["peers"][0]["peer_id"].clone(), rows(&of).len()), (json!("abd"), 1));
        assert_eq!(rows(&of)[0]["peer_id"], "abd");
        for named in ["ab", "x"] {
            assert!(of_peer(sync.clone(), named).is_err(), "{named}");
        }
        let line = summary(&peer("abc"));
        assert_eq!((&line["link"], &line["differing"]), (&json!("yes"), &json!(2)));
        let unsure = summary(
            &json!({"connected": true, "no_answer_since": "t", "collections_differing": 2, "more_differ": true}),
        );
        assert_eq!((&unsure["link"], &unsure["differing"]), (&json!("no answer since t"), &json!("2 or more")));
        assert_eq!(summary(&json!({"connected": false, "state": "unknown"}))["differing"], Value::Null);
    }
}
