//! Queries: `/collections/{c}/query` and its sisters.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::super::problem::Answer;
use super::super::{App, body, feed_shape, query_shape};
use super::parameter::CollectionPath;
use super::{Path, Query, blocking, json, json_text, live};
use crate::document::Object;
use crate::filter::Filter;
use crate::limits::QUERY_TIME_MAX_MS;
use crate::peer::{Collection, TimeLimit};
use crate::query::Find;
use crate::query::aggregate::Pipeline;
use crate::{Error, Invalid, InvalidKind};

/// Whether a query stays.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Staying {
    /// Whether to stay and send what becomes of the result, as server-sent events.
    #[serde(default)]
    live: bool,
}

/// Finds documents.
///
/// With `live=true` the answer is a stream of server-sent events: `result` with the documents, then `enter`, `change`,
/// `leave` and `move`, each with the places at which they happen. A stream that broke goes on with `Last-Event-ID`:
/// `resumed` when nothing has changed, a new `result` when something has.
#[utoipa::path(
    post, path = "/collections/{collection}/query", tag = "queries", operation_id = "query",
    params(
        CollectionPath, Staying,
        ("Last-Event-ID" = Option<String>, Header, description = "With live=true: the last event of a stream that broke"),
    ),
    request_body(content = Option<query_shape::QueryBody>, description = "May be left out: the first 100 documents"),
    responses(
        (status = 200, description = "A page, or with live=true a stream", content(
            (query_shape::QueryPage = "application/json"),
            (feed_shape::StreamEvent = "text/event-stream"),
        )),
        (status = 400, description = "The body is no JSON"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "The query means nothing, or takes more time or memory than it may; field says where"),
    ),
)]
pub(super) async fn query(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    Query(staying): Query<Staying>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (asked, mut fields) = asked(&app, &at, &headers, body).await?;
    let limit = time_limit(&mut fields)?;
    let find = Find::parse(&Value::Object(fields))?;
    if staying.live {
        return live::stream(&app, asked, find, limit, &headers).await;
    }
    let found = asked.collection.find(find, limit).await?;
    Ok(json_text(StatusCode::OK, query_shape::page(&found, asked.missing)))
}

/// Says how a query is answered: the plan, what it looked at, and the plans that were not taken. It is run for that.
#[utoipa::path(
    post, path = "/collections/{collection}/explain", tag = "queries", operation_id = "explain",
    params(CollectionPath),
    request_body(content = Option<query_shape::QueryBody>, description = "As for a query"),
    responses(
        (status = 200, description = "The plan", body = query_shape::Explanation),
        (status = 400, description = "The body is no JSON"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "As for a query"),
    ),
)]
pub(super) async fn explain(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (asked, mut fields) = asked(&app, &at, &headers, body).await?;
    let limit = time_limit(&mut fields)?;
    let find = Find::parse(&Value::Object(fields))?;
    let (found, explained) = asked.collection.explain(find, limit).await?;
    let mut shown = explained.to_json();
    shown["documents"] = found.documents.len().into();
    query_shape::tell_if_missing(asked.missing, &mut shown);
    Ok(json(StatusCode::OK, &shown))
}

/// Counts documents.
#[utoipa::path(
    post, path = "/collections/{collection}/count", tag = "queries", operation_id = "count",
    params(CollectionPath),
    request_body(content = Option<query_shape::CountBody>, description = "May be left out: all documents"),
    responses(
        (status = 200, description = "How many", body = query_shape::Count),
        (status = 400, description = "The body is no JSON"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "As for a query"),
    ),
)]
pub(super) async fn count(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (Asked { collection, missing }, mut fields) = asked(&app, &at, &headers, body).await?;
    let (limit, filter) = (time_limit(&mut fields)?, filter(&mut fields)?);
    let estimate = match fields.remove("estimate") {
        None => false,
        Some(Value::Bool(estimate)) => estimate,
        Some(_) => return Err(fault("estimate", "estimate is true or false").into()),
    };
    nothing_else(&fields, "filter, estimate and timeout_ms")?;
    let count =
        if estimate { collection.estimate(filter).await? } else { collection.count_matching(filter, limit).await? };
    let collection_exists = missing.then_some(false);
    Ok(json(StatusCode::OK, &query_shape::Count { count, exact: !estimate, collection_exists }))
}

/// The different values of a field; the items of lists count each.
#[utoipa::path(
    post, path = "/collections/{collection}/distinct", tag = "queries", operation_id = "distinct",
    params(CollectionPath),
    request_body(content = query_shape::DistinctBody),
    responses(
        (status = 200, description = "The values, in their order", body = query_shape::DistinctValues),
        (status = 400, description = "The body is no JSON"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "As for a query"),
    ),
)]
pub(super) async fn distinct(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (Asked { collection, missing }, mut fields) = asked(&app, &at, &headers, body).await?;
    let (limit, filter) = (time_limit(&mut fields)?, filter(&mut fields)?);
    let Some(Value::String(field)) = fields.remove("field") else {
        return Err(fault("field", "name the field, such as {\"field\": \"address.city\"}").into());
    };
    nothing_else(&fields, "field, filter and timeout_ms")?;
    let values = collection.distinct(field.parse()?, filter, limit).await?;
    let collection_exists = missing.then_some(false);
    Ok(json(StatusCode::OK, &query_shape::DistinctValues { values, collection_exists }))
}

/// Runs the documents through a pipeline of stages.
#[utoipa::path(
    post, path = "/collections/{collection}/aggregate", tag = "queries", operation_id = "aggregate",
    params(CollectionPath),
    request_body(content = query_shape::PipelineBody),
    responses(
        (status = 200, description = "What comes out", body = query_shape::PipelineResult),
        (status = 400, description = "The body is no JSON"),
        (status = 408, description = "The body did not arrive in time"),
        (status = 413, description = "The body is too large"),
        (status = 415, description = "The body has another type"),
        (status = 422, description = "A stage means nothing, or the pipeline takes more time or memory than it may"),
    ),
)]
pub(super) async fn aggregate(
    State(app): State<App>,
    Path(at): Path<CollectionPath>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    const FORM: &str = "a pipeline is sent as {\"pipeline\": [{\"$match\": {}}]}";
    let mut fields = match body::optional(&headers, body).await? {
        None => Object::new(),
        Some(Value::Object(fields)) => fields,
        Some(Value::Array(_)) => return Err(fault("pipeline", format!("{FORM}, not as the list alone")).into()),
        Some(_) => return Err(fault("pipeline", FORM).into()),
    };
    let asked = Asked::about(&app, &at).await?;
    let limit = time_limit(&mut fields)?;
    let Some(pipeline) = fields.remove("pipeline") else { return Err(fault("pipeline", FORM).into()) };
    nothing_else(&fields, "pipeline and timeout_ms")?;
    let documents = asked.collection.aggregate(Pipeline::parse(&pipeline)?, limit).await?;
    let mut rest = json!({});
    query_shape::tell_if_missing(asked.missing, &mut rest);
    Ok(json_text(StatusCode::OK, query_shape::documents(&documents, &rest)))
}

/// A collection that a question is about.
pub(super) struct Asked {
    pub(super) collection: Collection,
    /// Whether there is none of that name, which is no fault: every program asks before it first writes. The answer says
    /// so, because the name may also be misspelt.
    pub(super) missing: bool,
}

impl Asked {
    pub(super) async fn about(app: &App, at: &CollectionPath) -> Answer<Self> {
        let collection = app.peer.collection(&at.collection)?;
        let asked = collection.clone();
        let missing = !blocking(move || asked.exists()).await?;
        Ok(Self { collection, missing })
    }
}

/// The collection of a question, and the fields of its body.
async fn asked(app: &App, at: &CollectionPath, headers: &HeaderMap, body: Body) -> Answer<(Asked, Object)> {
    let fields = body::object(headers, body).await?;
    Ok((Asked::about(app, at).await?, fields))
}

/// A collection that is there.
pub(super) async fn present(app: &App, at: &CollectionPath) -> Answer<Collection> {
    let Asked { collection, missing } = Asked::about(app, at).await?;
    if missing {
        return Err(Error::NotFound(format!("collection {} does not exist", collection.name())).into());
    }
    Ok(collection)
}

fn time_limit(fields: &mut Object) -> Answer<TimeLimit> {
    let Some(value) = fields.remove("timeout_ms") else { return Ok(TimeLimit::default()) };
    match value.as_u64() {
        Some(ms) if (1..=QUERY_TIME_MAX_MS).contains(&ms) => Ok(TimeLimit(Duration::from_millis(ms))),
        _ => Err(fault("timeout_ms", format!("timeout_ms is a number from 1 to {QUERY_TIME_MAX_MS}")).into()),
    }
}

fn filter(fields: &mut Object) -> Answer<Filter> {
    Ok(fields.remove("filter").map(|filter| Filter::parse(&filter)).transpose()?.unwrap_or_default())
}

fn nothing_else(fields: &Object, known: &str) -> Answer<()> {
    match fields.keys().next() {
        None => Ok(()),
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            Err(fault(&shown, format!("this call takes {known}, not {shown:?}")).into())
        }
    }
}

fn fault(field: &str, message: impl Into<String>) -> Error {
    let field = Some(field.to_owned());
    Error::Invalid(Invalid { message: message.into(), field, position: None, kind: InvalidKind::Meaning })
}
