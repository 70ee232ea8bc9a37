//! `query`: questions about the documents of a collection; how the peer answers one is shown by `plan`.
//!
//! Filters and pipelines are read here only as far as they are JSON: what they mean is the peer's to say.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use ureq::http::Method;

use super::document::read;
use super::failure::{Failure, Kind, Outcome};
use super::http::Peer;
use super::output::{Field, Output, Rows, printable};
use super::plan;
use crate::document::json as strict;
use crate::gateway::path_segment;
use crate::limits::{PAGE_DOCUMENTS_MAX, QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX};

const COUNT: [Field; 2] = [("COUNT", "/count"), ("EXACT", "/exact")];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find documents
    Search(Search),
    /// Count documents
    Count(Count),
    /// Run the documents through a pipeline of stages
    Aggregate(Aggregate),
    /// List the different values of a field; the items of lists count each
    Distinct(Distinct),
    /// Show how a query is answered: the plan, what it looked at, the plans that were not taken
    Explain(Asked),
}

/// A query.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The collection
    collection: String,
    #[command(flatten)]
    matching: Matching,
    /// Their order, such as name,-age, or as JSON: [{"name": 1}, {"age": -1}]; by default that of the ids, of the
    /// distance for $near, of the best fit for $text
    #[arg(long, allow_hyphen_values = true, value_name = "FIELDS")]
    sort: Option<String>,
    /// What is shown of them: name,city or -secret, or as JSON: {"name": 1}, {"secret": 0}
    #[arg(long, allow_hyphen_values = true, value_name = "FIELDS")]
    projection: Option<String>,
    /// Documents at most
    #[arg(long, default_value_t = QUERY_LIMIT_DEFAULT)]
    limit: usize,
    /// Documents to leave out first; a cursor leaves out any number at no cost
    #[arg(long, default_value_t = 0, conflicts_with = "cursor")]
    offset: usize,
    /// Where to go on, as the page before said
    #[arg(long, allow_hyphen_values = true)]
    cursor: Option<String>,
    /// The index to use, or $natural for none
    #[arg(long, value_name = "INDEX")]
    hint: Option<String>,
}

/// Which documents, and how long it may take.
#[derive(Debug, Args)]
struct Matching {
    /// Which documents: {"age": {"$gte": 18}}, @FILE to read that from a file, or - from standard input; all when left
    /// out
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// The same as an option
    #[arg(long = "filter", conflicts_with = "filter", value_name = "FILTER")]
    option: Option<String>,
    /// Milliseconds that each call may take
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Search {
    #[command(flatten)]
    asked: Asked,
    /// All documents that match, page by page
    #[arg(long, conflicts_with_all = ["limit", "explain"])]
    all: bool,
    /// Show how it is answered instead of the documents
    #[arg(long)]
    explain: bool,
}

#[derive(Debug, Args)]
pub(super) struct Count {
    /// The collection
    collection: String,
    #[command(flatten)]
    matching: Matching,
    /// A guess is enough: no document is looked at
    #[arg(long)]
    estimate: bool,
}

#[derive(Debug, Args)]
pub(super) struct Aggregate {
    /// The collection
    collection: String,
    /// A list of stages, [{"$match": {..}}, {"$group": {"_id": "$city"}}], @FILE to read it from a file, or - from
    /// standard input
    #[arg(required_unless_present = "option")]
    pipeline: Option<String>,
    /// The same as an option
    #[arg(long = "pipeline", conflicts_with = "pipeline", value_name = "PIPELINE")]
    option: Option<String>,
    /// Milliseconds that it may take
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Distinct {
    /// The collection
    collection: String,
    /// The path of the field, such as address.city
    field: String,
    #[command(flatten)]
    matching: Matching,
}

pub(super) fn run(command: Command, peer: &Peer, output: Output) -> Outcome {
    match command {
        Command::Search(Search { asked, explain: true, .. }) | Command::Explain(asked) => {
            plan::show(&ask(peer, &asked.collection, "explain", asked.body()?)?, output)
        }
        Command::Search(search) => self::search(&search, peer, output),
        Command::Count(count) => {
            let mut body = count.matching.body()?;
            if count.estimate {
                body.insert("estimate".into(), true.into());
            }
            output.thing(&ask(peer, &count.collection, "count", body)?, &COUNT)
        }
        Command::Aggregate(aggregate) => {
            let stages = aggregate.pipeline.or(aggregate.option).unwrap_or_default();
            let pipeline = parsed("the pipeline", &stages)?;
            let mut body = Map::from_iter([("pipeline".to_owned(), pipeline)]);
            body.extend(limited(aggregate.timeout_ms));
            let answer = ask(peer, &aggregate.collection, "aggregate", body)?;
            let mut rows = Rows::new(output);
            rows.page(items(&answer, "documents"))?;
            rows.end()
        }
        Command::Distinct(distinct) => {
            let mut body = distinct.matching.body()?;
            body.insert("field".into(), distinct.field.into());
            let answer = ask(peer, &distinct.collection, "distinct", body)?;
            let values = items(&answer, "values");
            if output.is_table() {
                return output.list(values, &[("VALUE", "")]);
            }
            let mut rows = Rows::new(output);
            rows.page(values)?;
            rows.end()
        }
    }
}

impl Asked {
    fn body(&self) -> Outcome<Map<String, Value>> {
        let mut body = self.matching.body()?;
        if let Some(sort) = &self.sort {
            body.insert("sort".into(), fields("--sort", sort)?);
        }
        if let Some(projection) = &self.projection {
            body.insert("projection".into(), self::projection(projection)?);
        }
        body.insert("limit".into(), self.limit.into());
        if self.offset > 0 {
            body.insert("offset".into(), self.offset.into());
        }
        for (name, text) in [("cursor", &self.cursor), ("hint", &self.hint)] {
            body.extend(text.as_ref().map(|text| (name.to_owned(), text.as_str().into())));
        }
        Ok(body)
    }
}

impl Matching {
    fn body(&self) -> Outcome<Map<String, Value>> {
        let filter = self.filter.as_ref().or(self.option.as_ref());
        let filter = filter.map(|filter| parsed("the filter", filter)).transpose()?;
        let mut body: Map<_, _> = filter.map(|filter| ("filter".to_owned(), filter)).into_iter().collect();
        body.extend(limited(self.timeout_ms));
        Ok(body)
    }
}

fn limited(timeout_ms: Option<u64>) -> Option<(String, Value)> {
    timeout_ms.map(|ms| ("timeout_ms".to_owned(), ms.into()))
}

/// JSON among the arguments, or in a file or standard input that they name.
pub(super) fn parsed(argument: &str, text: &str) -> Outcome<Value> {
    strict::parse(&read(text)?).map_err(|error| Failure::new(Kind::Usage, format!("{argument} is no JSON: {error}")))
}

/// A projection: fields to show, or to hide, such as `name,city` and `-secret`, or JSON.
fn projection(text: &str) -> Outcome<Value> {
    if text.trim_start().starts_with('{') {
        return parsed("--projection", text);
    }
    let field = |name: &str| {
        let name = name.trim();
        let (name, shown) = name.strip_prefix('-').map_or((name, 1), |hidden| (hidden, 0));
        match name {
            "" => Err(Failure::new(Kind::Usage, "--projection names fields with commas between them: name,city")),
            _ => Ok((name.to_owned(), shown.into())),
        }
    };
    text.split(',').map(field).collect::<Outcome<Map<_, _>>>().map(Value::Object)
}

/// Fields with directions: a text such as `name,-age`, or JSON.
pub(super) fn fields(argument: &str, text: &str) -> Outcome<Value> {
    if text.trim_start().starts_with(['[', '{']) { parsed(argument, text) } else { Ok(text.into()) }
}

/// The list under a name in an answer.
pub(super) fn items<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

/// Asks a question. How long it may take is the peer's to say. That there is no such collection is no fault, and said
/// beside the answer, since the name may be misspelt.
pub(super) fn ask(peer: &Peer, collection: &str, question: &str, body: Map<String, Value>) -> Outcome<Value> {
    let path = format!("/api/v1/collections/{}/{question}", path_segment(collection));
    let answer = peer.work(Method::POST, &path, Some(&Value::Object(body)))?;
    if answer["collection_exists"] == false {
        eprintln!("there is no collection {} yet", printable(collection));
    }
    Ok(answer)
}

/// Documents that match, page by page.
pub(super) struct Pages<'a> {
    pub(super) peer: &'a Peer,
    pub(super) collection: &'a str,
    /// The question.
    pub(super) body: Map<String, Value>,
    /// Documents at most, in all.
    pub(super) limit: usize,
    /// Documents of a page at most.
    pub(super) page_max: usize,
}

impl Pages<'_> {
    /// Hands on each page, and returns the last one and the ids of documents that are damaged.
    ///
    /// # Errors
    /// What the peer says, and what `each` does.
    pub(super) fn read(mut self, mut each: impl FnMut(&[Value]) -> Outcome) -> Outcome<(Value, Vec<String>)> {
        let (mut left, mut damaged) = (self.limit, Vec::new());
        loop {
            self.body.insert("limit".into(), left.min(self.page_max).into());
            let mut page = ask(self.peer, self.collection, "query", self.body.clone())?;
            let documents = items(&page, "documents");
            each(documents)?;
            left = left.saturating_sub(documents.len());
            damaged.extend(items(&page, "damaged").iter().filter_map(Value::as_str).map(printable));
            if left == 0 || page["next_cursor"].is_null() {
                return Ok((page, damaged));
            }
            self.body.insert("cursor".into(), page["next_cursor"].take());
            self.body.remove("offset");
        }
    }
}

/// Shows documents while pages of them come.
fn search(search: &Search, peer: &Peer, output: Output) -> Outcome {
    let pages = Pages {
        peer,
        collection: &search.asked.collection,
        body: search.asked.body()?,
        limit: if search.all { usize::MAX } else { search.asked.limit },
        // A table is laid out page by page; a pipe has no use for small ones.
        page_max: if output.is_table() { PAGE_DOCUMENTS_MAX } else { QUERY_LIMIT_MAX },
    };
    let (mut rows, mut shown) = (Rows::new(output), 0);
    let (last, damaged) = pages.read(|documents| {
        shown += documents.len();
        rows.page(documents)
    })?;
    rows.end()?;
    if let Some(cursor) = last["next_cursor"].as_str() {
        eprintln!("{}", more(shown, search.asked.offset, &last, cursor));
    }
    left_out(damaged)
}

/// Fails when documents are missing in what was shown, because they are damaged.
pub(super) fn left_out(mut damaged: Vec<String>) -> Outcome {
    if damaged.is_empty() {
        return Ok(());
    }
    damaged.sort_unstable();
    damaged.dedup();
    let why = format!(
        "left out, since they are damaged on the peer's disk and not fetched again yet: {}",
        damaged.join(", ")
    );
    Err(Failure::new(Kind::Failed, why))
}

/// How to come to the next page.
fn more(shown: usize, offset: usize, page: &Value, cursor: &str) -> String {
    let about = if page["total_exact"] == true { "" } else { "about " };
    let instead = if offset > 0 { " instead of --offset" } else { "" };
    format!(
        "{shown} of {about}{}; for the next page add --cursor={}{instead}, for all documents --all",
        page["total_estimate"],
        printable(cursor)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_a_text_or_json() {
        assert_eq!(fields("--sort", "name,-age").unwrap(), json!("name,-age"));
        assert_eq!(fields("--sort", r#" [{"name":1},{"age":-1}]"#).unwrap(), json!([{"name": 1}, {"age": -1}]));
        let wrong = fields("--sort", "{name: 1}").unwrap_err();
        assert_eq!(wrong.kind, Kind::Usage);
        assert!(wrong.message.starts_with("--sort is no JSON"), "{}", wrong.message);
    }

    #[test]
    fn a_projection_is_a_text_or_json() {
        assert_eq!(projection("name, address.city").unwrap(), json!({"name": 1, "address.city": 1}));
        assert_eq!(projection("-secret").unwrap(), json!({"secret": 0}));
        assert_eq!(projection(r#"{"a": {"$slice": 1}}"#).unwrap(), json!({"a": {"$slice": 1}}));
        for wrong in ["", "a,,b", "-", "{a}"] {
            assert_eq!(projection(wrong).unwrap_err().kind, Kind::Usage, "{wrong}");
        }
    }

    #[test]
    fn the_next_page_is_told_as_it_can_be_typed() {
        let page = json!({"total_estimate": 1234, "total_exact": false});
        assert_eq!(
            more(100, 0, &page, "-A_"),
            "100 of about 1234; for the next page add --cursor=-A_, for all documents --all"
        );
        let page = json!({"total_estimate": 252, "total_exact": true});
        assert!(
            more(10, 20, &page, "A").starts_with("10 of 252; for the next page add --cursor=A instead of --offset,")
        );
    }
}
