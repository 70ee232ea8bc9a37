//! `collection`: what collections there are, what is in them, making and dropping them.

use std::io::{self, BufRead as _, IsTerminal, Read as _, Write};

use clap::Subcommand;
use serde_json::{Value, json};
use ureq::http::Method;

use super::export::bar;
use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::{Field, Output, Rows, flat, printable};
use crate::gateway::path_segment;
use crate::limits::PAGE_DOCUMENTS_MAX;

const COUNTS: [Field; 3] = [("COLLECTION", "/name"), ("DOCUMENTS", "/documents"), ("BYTES", "/bytes")];

/// Bytes of a line that tells how far the dropping of a collection came.
const LINE_BYTES_MAX: u64 = 64 << 10;

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
    /// Make an empty collection; writing a document makes one too
    Create {
        /// Its name
        name: String,
    },
    /// Delete every document of a collection, in the whole mesh
    Drop {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// List the documents at whose places concurrent edits left several values
    Conflicts {
        /// The collection
        name: String,
        /// Documents at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Documents to leave out first
        #[arg(long, default_value_t = 0)]
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
        Command::List { name: Some(name), limit, offset } => list_documents(peer, &name, limit, offset, output),
        Command::Conflicts { name, limit, offset } => {
            let fields =
                [("ID", "/id"), ("CONFLICTS", "/conflict_count"), ("UPDATED", "/updated_at"), ("DATA", "/data")];
            output.list(&documents(peer, &name, "conflicts", offset, limit)?, &fields)
        }
        Command::List { name: None, .. } | Command::Stats { name: None } => output.list(&collections(peer)?, &COUNTS),
        Command::Stats { name: Some(name) } => output.thing(&peer.get(&path(&name))?, &COUNTS),
        Command::Create { name } => output.thing(&peer.call(Method::PUT, &path(&name), &[], None)?, &COUNTS),
        Command::Drop { name, yes } => drop_documents(peer, &name, yes, output),
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/collections/{}", path_segment(name))
}

fn drop_documents(peer: &Peer, name: &str, yes: bool, output: Output) -> Outcome {
    let is_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !yes && !is_asked {
        let message = "this deletes every document of the collection, in the whole mesh: say --yes to mean it";
        return Err(Failure::new(Kind::Usage, message));
    }
    let documents = peer.get(&path(name))?["documents"].as_u64().unwrap_or(0);
    let question = format!("Delete all {documents} documents of {}, in the whole mesh? [y/N] ", printable(name));
    if !yes && !confirm(&question)? {
        return Err(Failure::new(Kind::Failed, "nothing was deleted"));
    }
    let dropped = drop_and_watch(peer, &path(name), documents)?;
    output.thing(&dropped, &[("DELETED", "/deleted"), ("DAMAGED, NOT DELETED", "/damaged")])
}

/// Asks a person, who has to say yes.
pub(super) fn confirm(question: &str) -> Outcome<bool> {
    let failed = |error| Failure::new(Kind::Failed, format!("the answer cannot be read: {error}"));
    let mut answer = String::new();
    let mut asked = io::stderr().lock();
    asked.write_all(question.as_bytes()).and_then(|()| asked.flush()).map_err(failed)?;
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// Has the documents deleted, and shows meanwhile how far it came.
fn drop_and_watch(peer: &Peer, path: &str, documents: u64) -> Outcome<Value> {
    let bar = bar(documents);
    let broken = |why: &str| {
        let message = format!("the peer broke off: {why}; what was deleted is deleted, call again for the rest");
        Failure::new(Kind::Unavailable, message)
    };
    let mut lines = peer.lines(Method::DELETE, path, None)?;
    loop {
        let mut line = String::new();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
        if read.map_err(|error| broken(&error.to_string()))? == 0 {
            return Err(broken("its answer has no end"));
        }
        let dropped: Value = serde_json::from_str(&line).map_err(|error| broken(&error.to_string()))?;
        bar.set_position(dropped["deleted"].as_u64().unwrap_or(0));
        match dropped["status"].as_u64() {
            None => {}
            Some(200) => {
                bar.finish_and_clear();
                return Ok(json!({ "deleted": dropped["deleted"], "damaged": dropped["damaged"] }));
            }
            Some(status) => {
                bar.finish_and_clear();
                let why = dropped["detail"].as_str().unwrap_or("no reason given");
                let message = format!("{} documents were deleted, then: {why}", dropped["deleted"]);
                return Err(Failure::new(Kind::of_status(u16::try_from(status).unwrap_or(500)), message));
            }
        }
    }
}

/// All collections, page by page.
fn collections(peer: &Peer) -> Outcome<Vec<Value>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut page = peer.get(&format!("/api/v1/collections?limit={PAGE_DOCUMENTS_MAX}{cursor}"))?;
        if let Value::Array(collections) = page["collections"].take() {
            found.extend(collections);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

/// Lists documents; `document list` is the same.
pub(super) fn list_documents(peer: &Peer, name: &str, limit: usize, offset: usize, output: Output) -> Outcome {
    let documents = documents(peer, name, "documents", offset, limit)?;
    if output.is_flat() {
        let mut rows = Rows::new(output);
        rows.page(&documents.iter().filter_map(flat).collect::<Vec<_>>())?;
        return rows.end();
    }
    output.list(&documents, &[("ID", "/id"), ("UPDATED", "/updated_at"), ("DATA", "/data")])
}

/// Documents of a list from `offset` on, page by page.
fn documents(peer: &Peer, name: &str, list: &str, offset: usize, limit: usize) -> Outcome<Vec<Value>> {
    let (mut left_out, mut found) = (offset, Vec::new());
    let mut cursor = String::new();
    while found.len() < limit {
        let wanted = left_out.saturating_add(limit - found.len()).min(PAGE_DOCUMENTS_MAX);
        let path = format!("/api/v1/collections/{}/{list}?limit={wanted}{cursor}", path_segment(name));
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
