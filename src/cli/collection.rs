//! `collection`: what collections there are, what is in them, making and dropping them.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;
use ureq::http::Method;

use super::export::bar;
use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::{Field, Output, Rows, flat, printable};
use crate::gateway::path_segment;
use crate::limits::PAGE_DOCUMENTS_MAX;

const COUNTS: [Field; 3] = [("COLLECTION", "/name"), ("DOCUMENTS", "/documents"), ("BYTES", "/bytes")];

/// How often the peer is asked how far the dropping of a collection came.
const PROGRESS: Duration = Duration::from_millis(500);

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
        Command::List { name: None, .. } | Command::Stats { name: None } => {
            let answer = peer.get("/api/v1/collections")?;
            output.list(answer["collections"].as_array().map_or(&[], Vec::as_slice), &COUNTS)
        }
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
    if !yes && !confirm(name, documents)? {
        return Err(Failure::new(Kind::Failed, "nothing was deleted"));
    }
    let dropped = drop_and_watch(peer, &path(name), documents)?;
    output.thing(&dropped, &[("DELETED", "/deleted"), ("DAMAGED, NOT DELETED", "/damaged")])
}

fn confirm(name: &str, documents: u64) -> Outcome<bool> {
    let failed = |error| Failure::new(Kind::Failed, format!("the answer cannot be read: {error}"));
    let question = format!("Delete all {documents} documents of {}, in the whole mesh? [y/N] ", printable(name));
    let mut answer = String::new();
    let mut asked = io::stderr().lock();
    asked.write_all(question.as_bytes()).and_then(|()| asked.flush()).map_err(failed)?;
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// Has the documents deleted, and shows meanwhile how many are left.
fn drop_and_watch(peer: &Peer, path: &str, documents: u64) -> Outcome<Value> {
    let bar = bar(documents);
    let (ended, end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let dropping = scope.spawn(move || {
            // Dropped at the end, however it comes.
            let _ended = ended;
            peer.work(Method::DELETE, path, None)
        });
        while end.recv_timeout(PROGRESS) == Err(RecvTimeoutError::Timeout) {
            // An error shows in the call itself.
            if !bar.is_hidden()
                && let Ok(counts) = peer.get(path)
            {
                bar.set_position(documents.saturating_sub(counts["documents"].as_u64().unwrap_or(0)));
            }
        }
        bar.finish_and_clear();
        dropping.join().unwrap_or_else(|_| Err(Failure::new(Kind::Failed, "a fault in this program")))
    })
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
