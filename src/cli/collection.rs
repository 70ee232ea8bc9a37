//! `collection`: what collections there are, and what is in them.

use clap::Subcommand;
use serde_json::Value;

use super::failure::Outcome;
use super::http::Peer;
use super::output::{Field, Output};
use crate::gateway::path_segment;
use crate::limits::PAGE_DOCUMENTS_MAX;

const COUNTS: [Field; 3] = [("COLLECTION", "/name"), ("DOCUMENTS", "/documents"), ("BYTES", "/bytes")];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the collections, or the documents of one, in the order of ids
    List {
        /// The collection whose documents are listed
        name: Option<String>,
        /// Documents at most
        #[arg(long, default_value_t = 100, requires = "name")]
        limit: usize,
        /// Documents to leave out first
        #[arg(long, default_value_t = 0, requires = "name")]
        offset: usize,
    },
    /// Show how many documents and bytes there are
    Stats {
        /// One collection; all of them when left out
        name: Option<String>,
    },
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::List { name: Some(name), limit, offset } => {
            let fields = [("ID", "/id"), ("UPDATED", "/updated_at"), ("DATA", "/data")];
            output.list(&documents(peer, &name, offset, limit)?, &fields)
        }
        Command::List { name: None, .. } | Command::Stats { name: None } => {
            let answer = peer.get("/api/v1/collections")?;
            output.list(answer["collections"].as_array().map_or(&[], Vec::as_slice), &COUNTS)
        }
        Command::Stats { name: Some(name) } => {
            output.thing(&peer.get(&format!("/api/v1/collections/{}", path_segment(&name)))?, &COUNTS)
        }
    }
}

/// Documents from `offset` on, page by page.
fn documents(peer: &Peer, name: &str, offset: usize, limit: usize) -> Outcome<Vec<Value>> {
    let (mut left_out, mut found) = (offset, Vec::new());
    let mut cursor = String::new();
    while found.len() < limit {
        let wanted = left_out.saturating_add(limit - found.len()).min(PAGE_DOCUMENTS_MAX);
        let path = format!("/api/v1/collections/{}/documents?limit={wanted}{cursor}", path_segment(name));
        let mut page = peer.get(&path)?;
        if let Value::Array(documents) = page["documents"].take() {
            let skipped = left_out.min(documents.len());
            left_out -= skipped;
            found.extend(documents.into_iter().skip(skipped));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    found.truncate(limit);
    Ok(found)
}
