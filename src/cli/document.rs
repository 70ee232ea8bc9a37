//! `document`: one document at a time; what is about its past is in `version`.

use std::fs::File;
use std::io::Read;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ureq::http::Method;

use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::{Output, line};
use super::{collection, version};
use crate::document::json as strict;
use crate::gateway::path_segment;
use crate::limits::DOCUMENT_BYTES_MAX;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a document, or replace what it holds
    Put(Write),
    /// Create a document; the peer makes its id, unless its _id says it
    Insert(Insert),
    /// List the documents of a collection, in the order of ids
    List {
        /// The collection
        collection: String,
        /// Documents at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Documents to leave out first
        #[arg(long, default_value_t = 0)]
        offset: usize,
    },
    /// Print a document
    Get {
        #[command(flatten)]
        name: Name,
        /// As it was: the hashes of its heads, with commas between them, a time such as 2026-11-25T10:00:00Z or
        /// 2026-11-25, -1h for an hour ago, or yesterday for a day ago
        #[arg(long, value_name = "WHEN", allow_hyphen_values = true, value_parser = version::when)]
        at: Option<String>,
    },
    /// Replace what a document holds; it must exist
    Update(Write),
    /// Change parts of a document: {"$set": {"a.b": 1}, "$inc": {"n": 2}, "$push": {"list": 3}}
    Patch(Patch),
    /// Delete a document
    Delete(Delete),
    /// Show the changes of a document, the newest first
    History(version::History),
    /// Show where edits that did not know of each other left several values
    Conflicts(Name),
    /// Show what differs between two versions
    Diff(version::Diff),
    /// Write an old version again, as a new edit
    Restore(version::Restore),
}

/// How many other peers must have a write.
#[derive(Debug, Args)]
pub(super) struct Concern {
    /// Wait until so many other peers have it on their disks
    #[arg(long, value_name = "PEERS")]
    w: Option<usize>,
    /// Milliseconds to wait for them at most; the write stands then
    #[arg(long, default_value_t = 5_000, requires = "w", value_name = "MS")]
    timeout_ms: u64,
}

impl Concern {
    /// The query that says so.
    pub(super) fn query(&self) -> String {
        self.w.map(|peers| format!("?w={peers}&timeout_ms={}", self.timeout_ms)).unwrap_or_default()
    }

    /// Tells a person how far a write came.
    pub(super) fn check(&self, answer: &Value) -> Outcome {
        let concern = &answer["write_concern"];
        if self.w.is_none() || concern["complete"] == true {
            return Ok(());
        }
        let count = concern["receipts"].as_array().map_or(0, Vec::len);
        let message = format!(
            "it is written here and on {count} of {} other peers so far; they get it when they are connected",
            self.w.unwrap_or_default()
        );
        Err(Failure::new(Kind::Unavailable, message))
    }
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    concern: Concern,
}

#[derive(Debug, Args)]
pub(super) struct Name {
    /// The collection
    collection: String,
    /// The document's id
    id: String,
}

#[derive(Debug, Args)]
pub(super) struct Write {
    #[command(flatten)]
    name: Name,
    /// A JSON object, @FILE to read it from a file, or - from standard input
    data: String,
    #[command(flatten)]
    concern: Concern,
}

#[derive(Debug, Args)]
pub(super) struct Insert {
    /// The collection
    collection: String,
    /// A JSON object, @FILE to read it from a file, or - from standard input
    data: String,
    #[command(flatten)]
    concern: Concern,
}

#[derive(Debug, Args)]
pub(super) struct Patch {
    #[command(flatten)]
    name: Name,
    /// Update operators as a JSON object, @FILE to read them from a file, or - from standard input
    data: String,
    /// The data is a JSON Merge Patch (RFC 7396): {"name": "Ada", "old": null}
    #[arg(long, conflicts_with = "json_patch")]
    merge: bool,
    /// The data is a JSON Patch (RFC 6902): [{"op": "add", "path": "/list/-", "value": 1}]
    #[arg(long)]
    json_patch: bool,
    /// Create the document when it does not exist
    #[arg(long, conflicts_with = "json_patch")]
    upsert: bool,
    #[command(flatten)]
    concern: Concern,
}

impl Name {
    pub(super) fn path(&self) -> String {
        format!("/api/v1/collections/{}/documents/{}", path_segment(&self.collection), path_segment(&self.id))
    }
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Put(write) => put(&write, &[], peer, output),
        Command::Insert(insert) => self::insert(&insert, peer, output),
        Command::List { collection, limit, offset } => {
            collection::list_documents(peer, &collection, limit, offset, output)
        }
        Command::Get { name, at: None } => output.document(&peer.get(&name.path())?),
        Command::Get { name, at: Some(at) } => {
            output.document(&peer.get(&format!("{}?at={}", name.path(), path_segment(&at)))?)
        }
        Command::History(history) => version::history(&history, peer, output),
        Command::Conflicts(name) => version::conflicts(&name, peer, output),
        Command::Diff(diff) => version::diff(&diff, peer, output),
        Command::Restore(restore) => version::restore(&restore, peer, output),
        Command::Update(write) => {
            let exists = [("if-match", "*")];
            put(&write, &exists, peer, output).map_err(|failure| match failure.message.ends_with("does not exist") {
                true => Failure::new(Kind::NotFound, failure.message),
                false => failure,
            })
        }
        Command::Patch(patch) => self::patch(&patch, peer, output),
        Command::Delete(Delete { name, concern }) => {
            let path = format!("{}{}", name.path(), concern.query());
            let answer = peer.call(Method::DELETE, &path, &[], None)?;
            if output.is_table() {
                line(&format!("deleted {}/{}", name.collection, name.id))?;
            } else {
                let mut shown = json!({"id": name.id, "collection": name.collection, "deleted": true});
                if let Some(concern) = answer.get("write_concern") {
                    shown["write_concern"] = concern.clone();
                }
                output.document(&shown)?;
            }
            concern.check(&answer)
        }
    }
}

fn put(write: &Write, headers: &[(&str, &str)], peer: &Peer, output: Output) -> Outcome {
    let data = read(&write.data)?;
    let path = format!("{}{}", write.name.path(), write.concern.query());
    let answer = peer.call(Method::PUT, &path, headers, Some(&data))?;
    output.document(&answer)?;
    write.concern.check(&answer)
}

fn insert(insert: &Insert, peer: &Peer, output: Output) -> Outcome {
    let collection = path_segment(&insert.collection);
    let path = format!("/api/v1/collections/{collection}/documents{}", insert.concern.query());
    let answer = peer.call(Method::POST, &path, &[], Some(&read(&insert.data)?))?;
    output.document(&answer)?;
    insert.concern.check(&answer)
}

fn patch(patch: &Patch, peer: &Peer, output: Output) -> Outcome {
    let media_type = match (patch.merge, patch.json_patch) {
        (true, _) => "application/merge-patch+json",
        (false, true) => "application/json-patch+json",
        (false, false) => "application/json",
    };
    let data = read(&patch.data)?;
    if media_type == "application/json" {
        check_language(&data)?;
    }
    let concern = patch.concern.query();
    let upsert = match (patch.upsert, concern.is_empty()) {
        (false, _) => "",
        (true, true) => "?upsert=true",
        (true, false) => "&upsert=true",
    };
    let path = format!("{}{concern}{upsert}", patch.name.path());
    let answer = peer.call_as(Method::PATCH, &path, &[], Some((media_type, &data)))?;
    output.document(&answer)?;
    patch.concern.check(&answer)
}

/// Says which flag is missing when data is no update operators but may be in another language of patches.
fn check_language(data: &[u8]) -> Outcome {
    let advice = match strict::parse(data) {
        Ok(Value::Array(_)) => "a list is a JSON Patch: pass --json-patch with it".to_owned(),
        Ok(Value::Object(fields)) => match fields.keys().next() {
            Some(first) if !fields.keys().any(|name| name.starts_with('$')) => format!(
                "{first:?} is no update operator such as $set: to merge fields into the document pass --merge, to set \
                 them write {{\"$set\": {{{first:?}: ..}}}}"
            ),
            Some(_) | None => return Ok(()),
        },
        // What is wrong with it is the peer's to say.
        Ok(_) | Err(_) => return Ok(()),
    };
    Err(Failure::new(Kind::Usage, advice))
}

/// The data itself, what is in a file for `@FILE`, or standard input for `-`. One byte beyond the limit is enough for
/// the peer to refuse it.
pub(super) fn read(data: &str) -> Outcome<Vec<u8>> {
    let failed = |name: &str, error| Failure::new(Kind::Failed, format!("{name} cannot be read: {error}"));
    let mut bytes = Vec::new();
    let limit = DOCUMENT_BYTES_MAX as u64 + 1;
    if data == "-" {
        let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
        return read.map(|_| bytes).map_err(|error| failed("standard input", error));
    }
    let Some(path) = data.strip_prefix('@') else { return Ok(data.into()) };
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| failed(path, error))
}
