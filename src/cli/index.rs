//! `index`: the indexes that this peer keeps of a collection.

use std::thread::sleep;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::ProgressStyle;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::export::bar;
use super::failure::Outcome;
use super::http::Peer;
use super::output::{Field, Output, line, printable};
use super::query::{fields, items, parsed};
use crate::gateway::path_segment;

const INDEX: [Field; 8] = [
    ("INDEX", "/name"),
    ("TYPE", "/definition/type"),
    ("FIELDS", "/fields"),
    ("OPTIONS", "/options"),
    ("STAGE", "/stage"),
    ("DOCUMENTS", "/documents"),
    ("KEYS", "/keys"),
    ("DISTINCT", "/distinct"),
];

/// How often the peer is asked how far an index is.
const PROGRESS: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Declare an index; one of the same name that is declared differently is replaced
    Create(Create),
    /// List the indexes, and how far each is
    List {
        /// The collection
        collection: String,
    },
    /// Drop an index; queries are answered without it from then on
    Drop(Name),
    /// List documents that have the same key of a unique index, because peers wrote them while they were apart
    Conflicts {
        #[command(flatten)]
        name: Name,
        /// Conflicts at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

#[derive(Debug, Args)]
pub(super) struct Name {
    /// The collection
    collection: String,
    /// The index's name
    name: String,
}

/// What an index is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Type {
    /// The values of fields, in their order.
    Ordered,
    /// Words.
    Text,
    /// Points, {"lat": .., "lng": ..}.
    Geo,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    name: Name,
    /// Its fields, such as country,-name, or as JSON: [{"country": 1}, {"name": -1}]; text may do without: all words
    #[arg(long, allow_hyphen_values = true, required_unless_present = "type", value_name = "FIELDS")]
    fields: Option<String>,
    /// What it is over
    #[arg(long, value_enum, value_name = "TYPE")]
    r#type: Option<Type>,
    /// Refuse writes on this peer that give two documents the same key
    #[arg(long)]
    unique: bool,
    /// Leave out documents with none of the fields
    #[arg(long)]
    sparse: bool,
    /// Leave out documents that do not match: {"active": true}
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Delete documents so many seconds after the time in the field
    #[arg(long, value_name = "SECONDS")]
    expire_after_s: Option<u64>,
    /// Wait until queries use it
    #[arg(long)]
    wait: bool,
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Create(create) => {
            let body = create.body()?.to_string();
            let path = create.name.path();
            let mut index = peer.call(Method::PUT, &path, &[], Some(body.as_bytes()))?;
            let outcome = index["outcome"].clone();
            if create.wait {
                index = ready(peer, &path, index)?;
                // An index that is read later does not say it.
                index["outcome"] = outcome;
            }
            tell_conflicts(peer, &create.name, &index)?;
            if !output.is_table() {
                return output.document(&index);
            }
            output.thing(&row(&index), &[&INDEX[..1], &[("OUTCOME", "/outcome")], &INDEX[1..]].concat())
        }
        Command::List { collection } => {
            let answer = peer.get(&path(&collection))?;
            let indexes = items(&answer, "indexes");
            if !output.is_table() {
                return output.list(indexes, &INDEX);
            }
            output.list(&indexes.iter().map(row).collect::<Vec<_>>(), &INDEX)
        }
        Command::Drop(name) => {
            peer.call(Method::DELETE, &name.path(), &[], None)?;
            if output.is_table() {
                return line(&printable(&format!("dropped the index {} of {}", name.name, name.collection)));
            }
            output.document(&json!({"name": name.name, "collection": name.collection, "dropped": true}))
        }
        Command::Conflicts { name, limit } => {
            let answer = peer.get(&format!("{}/conflicts?limit={limit}", name.path()))?;
            let conflicts = items(&answer, "conflicts");
            output.list(conflicts, &[("WINNER", "/winner"), ("LOSERS", "/losers")])?;
            if conflicts.len() == limit {
                eprintln!("there may be more than these {limit}: say --limit");
            }
            Ok(())
        }
    }
}

fn path(collection: &str) -> String {
    format!("/api/v1/collections/{}/indexes", path_segment(collection))
}

impl Name {
    fn path(&self) -> String {
        format!("{}/{}", path(&self.collection), path_segment(&self.name))
    }
}

impl Create {
    /// The definition, as far as it was said.
    fn body(&self) -> Outcome<Value> {
        let mut body = Map::new();
        if let Some(text) = &self.fields {
            body.insert("fields".into(), fields("--fields", text)?);
        }
        if let Some(of) = self.r#type.as_ref().and_then(Type::to_possible_value) {
            body.insert("type".into(), of.get_name().into());
        }
        for (name, is_said) in [("unique", self.unique), ("sparse", self.sparse)] {
            if is_said {
                body.insert(name.into(), true.into());
            }
        }
        if let Some(filter) = &self.filter {
            body.insert("filter".into(), parsed("--filter", filter)?);
        }
        body.extend(self.expire_after_s.map(|seconds| ("expire_after_s".to_owned(), seconds.into())));
        Ok(body.into())
    }
}

/// Waits until queries use an index, and shows meanwhile how far it is.
fn ready(peer: &Peer, path: &str, mut index: Value) -> Outcome<Value> {
    // No rate: an index that goes on after a start has documents already.
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} documents in the index");
    let bar = bar(index["documents"].as_u64().unwrap_or(0));
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while index["stage"] != "ready" {
        let documents = index["documents"].as_u64().unwrap_or(0);
        bar.set_length(documents);
        // When all are in it the entries are counted, which is the shorter part.
        bar.set_position(index["documents_done"].as_u64().unwrap_or(documents));
        sleep(PROGRESS);
        index = peer.get(path)?;
    }
    bar.finish_and_clear();
    Ok(index)
}

/// Tells that a unique index that is ready does not hold for all documents.
fn tell_conflicts(peer: &Peer, name: &Name, index: &Value) -> Outcome {
    if index["definition"]["unique"] != true || index["stage"] != "ready" {
        return Ok(());
    }
    let answer = peer.get(&format!("{}/conflicts?limit=1", name.path()))?;
    if !items(&answer, "conflicts").is_empty() {
        let (collection, name) = (printable(&name.collection), printable(&name.name));
        eprintln!("some documents have the same key; they are listed by: index conflicts {collection} {name}");
    }
    Ok(())
}

/// An index as a row of a table.
fn row(index: &Value) -> Value {
    let mut row = index.clone();
    let definition = &index["definition"];
    row["fields"] = written(&definition["fields"]).into();
    let mut options: Vec<String> =
        ["unique", "sparse"].into_iter().filter(|name| definition[name] == true).map(str::to_owned).collect();
    if let Some(filter) = definition.get("filter") {
        options.push(format!("filter {filter}"));
    }
    if let Some(seconds) = definition.get("expire_after_s") {
        options.push(format!("expires after {seconds} s"));
    }
    row["options"] = options.join(", ").into();
    if let Some(done) = index["documents_done"].as_u64() {
        row["stage"] = format!("filling, {done} done").into();
    }
    row
}

/// Fields as `--fields` takes them.
fn written(fields: &Value) -> String {
    let one = |field: &Value| match field {
        Value::Object(field) => field.iter().map(|(path, direction)| signed(path, direction)).collect(),
        Value::String(path) => vec![path.clone()],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => vec![field.to_string()],
    };
    let all = fields.as_array().map_or(std::slice::from_ref(fields), Vec::as_slice);
    all.iter().flat_map(one).collect::<Vec<_>>().join(",")
}

fn signed(path: &str, direction: &Value) -> String {
    if direction.as_i64().is_some_and(|direction| direction < 0) { format!("-{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_a_row() {
        let index = json!({
            "name": "by-country", "stage": "filling", "documents_done": 10, "documents": 20,
            "definition": {
                "type": "ordered", "fields": [{"country": 1}, {"name": -1}], "unique": true, "sparse": false,
                "filter": {"active": {"$eq": true}},
            },
        });
        let row = row(&index);
        assert_eq!(
            (&row["fields"], &row["options"], &row["stage"]),
            (&json!("country,-name"), &json!("unique, filter {\"active\":{\"$eq\":true}}"), &json!("filling, 10 done"),)
        );
        assert_eq!(written(&json!("place")), "place");
        assert_eq!(written(&json!(["title", "body"])), "title,body");
    }
}
