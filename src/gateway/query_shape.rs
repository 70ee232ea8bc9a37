//! Queries and indexes as JSON on the wire. Documents are passed on as the text that they are.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::peer::{Declared, IndexReport};
use crate::query::Found;
use crate::store::{Conflict, Progress};

/// A query. All of it may be left out.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "bodies are read by the query engine, which names what is wrong in them")]
pub(super) struct QueryBody {
    /// Which documents, in MongoDB's language: `{"age": {"$gte": 18}}`.
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    /// Their order: `"city,-age"`, `{"age": -1}`, or a list of such objects. That of the ids when left out; the
    /// nearest first for `$near`, the best fit first for `$text` with an index of words.
    sort: Option<Value>,
    /// What is shown of them: `{"name": 1}`, `{"secret": 0}`, computed fields.
    #[schema(value_type = Option<Object>)]
    projection: Option<Value>,
    /// Documents of the page, up to 10,000; 100 when left out.
    #[schema(maximum = 10_000)]
    limit: Option<u32>,
    /// Documents to skip, up to 1,000,000. A cursor skips any number at no cost.
    #[schema(maximum = 1_000_000)]
    offset: Option<u32>,
    /// `next_cursor` of the page before.
    #[schema(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
    /// The index to use, or `$natural` for none.
    hint: Option<String>,
    /// Whether each document has under `_conflicts` the number of its places at which edits that did not know of each
    /// other left several values.
    conflicts: Option<bool>,
    /// Milliseconds that it may take, up to 120,000; 10,000 when left out.
    #[schema(minimum = 1, maximum = 120_000)]
    timeout_ms: Option<u64>,
}

/// A page of documents.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "written as text, so that documents are not parsed")]
pub(super) struct QueryPage {
    /// What the documents hold, with their ids under `_id`.
    documents: Vec<Value>,
    /// Documents that match, about.
    total_estimate: u64,
    /// Whether that is counted.
    total_exact: bool,
    /// For the next page; absent on the last one.
    #[schema(required = false)]
    next_cursor: Option<String>,
    /// Ids of documents that are damaged on this peer's disk and left out; absent when there are none.
    #[schema(required = false)]
    damaged: Option<Vec<String>>,
    /// `false` when there is no such collection; otherwise absent.
    #[schema(required = false)]
    collection_exists: Option<bool>,
}

/// Documents of a question that is answered at once.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "written as text, so that documents are not parsed")]
pub(super) struct PipelineResult {
    documents: Vec<Value>,
    /// `false` when there is no such collection; otherwise absent.
    #[schema(required = false)]
    collection_exists: Option<bool>,
}

/// Which documents are counted.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "read field by field, so that what is wrong is named")]
pub(super) struct CountBody {
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    /// Whether a guess is enough, which looks at no document.
    estimate: Option<bool>,
    #[schema(minimum = 1, maximum = 120_000)]
    timeout_ms: Option<u64>,
}

/// A number of documents.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Count {
    pub(super) count: u64,
    /// Whether it was counted.
    pub(super) exact: bool,
    /// `false` when there is no such collection; otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) collection_exists: Option<bool>,
}

/// Which values are wanted.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "read field by field, so that what is wrong is named")]
pub(super) struct DistinctBody {
    /// The path of the field.
    #[schema(min_length = 1)]
    field: String,
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    #[schema(minimum = 1, maximum = 120_000)]
    timeout_ms: Option<u64>,
}

/// Different values, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DistinctValues {
    pub(super) values: Vec<Value>,
    /// `false` when there is no such collection; otherwise absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) collection_exists: Option<bool>,
}

/// A pipeline.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "read by the query engine, which names what is wrong in it")]
pub(super) struct PipelineBody {
    /// Stages after MongoDB's: `[{"$match": {"city": "Rome"}}, {"$group": {"_id": "$street", "n": {"$sum": 1}}}]`.
    #[schema(value_type = Vec<Object>)]
    pipeline: Vec<Value>,
    #[schema(minimum = 1, maximum = 120_000)]
    timeout_ms: Option<u64>,
}

/// How a query was answered.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "made by the query engine")]
pub(super) struct Explanation {
    /// Documents of the page.
    documents: u64,
    /// The plan as a tree, from the result down: each stage with the rows that were expected and that came.
    plan: Value,
    /// Plans that were not taken, with their costs.
    rejected: Vec<Value>,
    /// Entries of indexes that were read.
    entries_examined: u64,
    /// Documents that were looked at.
    documents_examined: u64,
    time_us: u64,
    /// `false` when there is no such collection; otherwise absent.
    #[schema(required = false)]
    collection_exists: Option<bool>,
}

/// An index, as it is declared.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "read by the index's own parser, which names what is wrong in it")]
pub(super) struct IndexDeclaration {
    #[schema(inline)]
    r#type: Option<IndexType>,
    /// Fields with directions: `"country,-name"`, `{"name": 1}`, or a list of such objects. An index of text without
    /// them is over all strings; any other needs them.
    fields: Option<Value>,
    /// Whether writes on this peer are refused that give two documents the same key.
    unique: Option<bool>,
    /// Whether documents with none of the fields are left out.
    sparse: Option<bool>,
    /// Documents that do not match are left out.
    #[schema(value_type = Option<Object>)]
    filter: Option<Value>,
    /// Seconds after the time in the field when a document is deleted.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    expire_after_s: Option<u64>,
}

/// What the keys of an index are made of: values in their order (when left out), points, or words.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "read by the index's own parser")]
enum IndexType {
    Ordered,
    Geo,
    Text,
}

/// An index as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IndexState {
    name: String,
    /// What declaring it did: `created`, `replaced` or `unchanged`; in the answer to a declaration only.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    definition: Value,
    /// `filling`, `measuring` or `ready`: queries use it when it is ready.
    stage: &'static str,
    /// While it is filled: documents that are in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    documents_done: Option<u64>,
    /// Documents of the collection.
    documents: u64,
    /// Entries, about.
    keys: u64,
    /// Different keys, about.
    distinct: u64,
    /// Whether documents have several keys in it.
    multiple: bool,
}

/// The indexes of a collection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Indexes {
    pub(super) indexes: Vec<IndexState>,
}

/// Documents with the same key of a unique index.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyConflict {
    /// The one that was created first.
    winner: String,
    losers: Vec<String>,
}

/// The conflicts of a unique index.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyConflicts {
    conflicts: Vec<KeyConflict>,
}

impl IndexState {
    pub(super) fn new(report: &IndexReport) -> Self {
        let (stage, documents_done) = match report.progress {
            Progress::Filling { documents } => ("filling", Some(documents)),
            Progress::Measuring => ("measuring", None),
            Progress::Ready => ("ready", None),
        };
        Self {
            name: report.name.to_string(),
            outcome: None,
            definition: report.definition.to_json(),
            stage,
            documents_done,
            documents: report.documents,
            keys: report.keys,
            distinct: report.distinct,
            multiple: report.multiple,
        }
    }

    /// The same, with what declaring it did.
    pub(super) fn declared(report: &IndexReport, declared: Declared) -> Self {
        let outcome = match declared {
            Declared::Created => "created",
            Declared::Replaced => "replaced",
            Declared::Unchanged => "unchanged",
        };
        Self { outcome: Some(outcome), ..Self::new(report) }
    }
}

impl KeyConflicts {
    pub(super) fn new(conflicts: &[Conflict]) -> Self {
        let shown = |conflict: &Conflict| KeyConflict {
            winner: conflict.winner.to_string(),
            losers: conflict.losers.iter().map(ToString::to_string).collect(),
        };
        Self { conflicts: conflicts.iter().map(shown).collect() }
    }
}

/// A page as JSON text.
pub(super) fn page(found: &Found, missing: bool) -> Bytes {
    let mut rest = json!({ "total_estimate": found.total_estimate, "total_exact": found.is_total_exact });
    if let Some(next) = &found.next {
        rest["next_cursor"] = next.as_str().into();
    }
    if !found.damaged.is_empty() {
        rest["damaged"] = found.damaged.iter().map(ToString::to_string).collect();
    }
    tell_if_missing(missing, &mut rest);
    documents(&found.documents, &rest)
}

/// Says that there is no such collection.
pub(super) fn tell_if_missing(missing: bool, answer: &mut Value) {
    if missing {
        answer["collection_exists"] = false.into();
    }
}

/// Documents, and other fields behind them, as JSON text.
pub(super) fn documents(documents: &[Bytes], rest: &Value) -> Bytes {
    let mut text = Vec::with_capacity(documents.iter().map(|document| document.len() + 1).sum::<usize>() + 128);
    text.extend_from_slice(b"{\"documents\":[");
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(document);
    }
    text.push(b']');
    let rest = rest.to_string();
    if rest.len() > 2 {
        text.push(b',');
    }
    text.extend_from_slice(&rest.as_bytes()[1..]);
    text.into()
}
