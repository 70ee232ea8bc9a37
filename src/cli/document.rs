//! `document`: one document at a time.

use std::io::Read;

use clap::{Args, Subcommand};
use ureq::http::Method;

use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::{Output, line};
use crate::gateway::path_segment;
use crate::limits::DOCUMENT_BYTES_MAX;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a document, or replace what it holds
    Put(Write),
    /// Print a document
    Get(Name),
    /// Replace what a document holds; it must exist
    Update(Write),
    /// Delete a document
    Delete(Name),
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
    /// A JSON object, or - to read it from standard input
    data: String,
}

impl Name {
    fn path(&self) -> String {
        format!("/api/v1/collections/{}/documents/{}", path_segment(&self.collection), path_segment(&self.id))
    }
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Put(write) => put(&write, &[], peer, output),
        Command::Get(name) => output.document(&peer.get(&name.path())?),
        Command::Update(write) => {
            let exists = [("if-match", "*")];
            put(&write, &exists, peer, output).map_err(|failure| match failure.message.ends_with("does not exist") {
                true => Failure::new(Kind::NotFound, failure.message),
                false => failure,
            })
        }
        Command::Delete(name) => {
            peer.call(Method::DELETE, &name.path(), &[], None)?;
            if output.is_table() { line(&format!("deleted {}/{}", name.collection, name.id)) } else { Ok(()) }
        }
    }
}

fn put(write: &Write, headers: &[(&str, &str)], peer: &Peer, output: Output) -> Outcome {
    let data = read(&write.data)?;
    output.document(&peer.call(Method::PUT, &write.name.path(), headers, Some(&data))?)
}

/// The data itself, or standard input for `-`. One byte beyond the limit is enough for the peer to refuse it.
fn read(data: &str) -> Outcome<Vec<u8>> {
    if data != "-" {
        return Ok(data.into());
    }
    let mut bytes = Vec::new();
    match std::io::stdin().lock().take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::new(Kind::Failed, format!("standard input cannot be read: {error}"))),
    }
}
