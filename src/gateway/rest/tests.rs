//! Holds the description of the interface to what is served: every route is described, every status that is
//! described can occur, every answer has a status and a shape that are described.

use std::collections::BTreeSet;

use axum::body::Body;
use serde_json::{Value, json};

use super::super::guard;
use super::super::tests::{Answer, Client};
use super::super::token::Token;
use super::super::{App, Config};
use super::{calls, description, router};
use crate::LocalDocuments;
use crate::access::{Genesis, Members, Role, Terms};
use crate::base::{Hlc, Timestamp};
use crate::identity::Keypair;
use crate::limits::{
    COLLECTION_NAME_BYTES_MAX, DOCUMENT_BYTES_MAX, DOCUMENT_ID_BYTES_MAX, GATEWAY_REQUESTS_MAX, PAGE_DOCUMENTS_MAX,
};

fn api() -> Value {
    serde_json::from_slice(&description::complete(calls().into_openapi())).unwrap()
}

/// Each call with its path and what is said of it.
fn described(api: &Value) -> Vec<(String, String, &Value)> {
    let items = api["paths"].as_object().unwrap().iter();
    let of = |(path, item): (&String, &'_ Value)| (path.clone(), item.as_object().unwrap().clone());
    let mut calls = Vec::new();
    for (path, item) in items.map(of) {
        for method in item.keys() {
            calls.push((method.to_uppercase(), path.clone(), &api["paths"][&path][method]));
        }
    }
    calls
}

fn concrete(path: &str) -> String {
    path.replace("{collection}", "users").replace("{id}", "a")
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('?').next().unwrap_or_default().split('/'));
    template.clone().count() == path.clone().count()
        && template.zip(path).all(|(part, given)| part.starts_with('{') || part == given)
}

/// What the router says of itself when it is printed is the only list of its paths that there is.
#[test]
fn every_route_is_described() {
    let (router, _) = calls().split_for_parts();
    let printed = format!("{router:?}");
    let printed = printed.split("fallback_router").next().unwrap();
    let api = api();
    let routed: BTreeSet<&str> = printed.split('"').filter(|text| text.starts_with('/')).collect();
    let known: BTreeSet<&str> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(routed.len() > 10, "the router does not print its paths any more: {printed}");
    assert_eq!(routed, known);
}

#[tokio::test]
async fn every_method_of_a_route_is_described() {
    let client = Client::new().await;
    let api = api();
    for path in api["paths"].as_object().unwrap().keys() {
        let answer = client.send(&format!("TRACE {}", concrete(path)), &[], "").await;
        assert_eq!(answer.status, 405, "{path}");
        let served: BTreeSet<String> = answer.header("allow").split(',').map(str::to_owned).collect();
        let mut known: BTreeSet<String> =
            described(&api).into_iter().filter(|(_, of, _)| of == path).map(|(method, _, _)| method).collect();
        if known.contains("GET") {
            known.insert("HEAD".into());
        }
        assert_eq!(served, known, "{path}");
    }
    client.peer.shutdown().await;
}

#[test]
fn every_call_is_described_well() {
    let api = api();
    let tags: BTreeSet<_> = api["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone().to_string()).collect();
    let mut names = BTreeSet::new();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    for (method, path, call) in described(&api) {
        let at = format!("{method} {path}");
        assert!(names.insert(call["operationId"].as_str().unwrap().to_owned()), "{at}: its name is another's too");
        assert!(call["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{at} has no summary");
        for tag in call["tags"].as_array().unwrap() {
            assert!(tags.contains(&tag.to_string()), "{at}: {tag} is not among the tags");
        }
        let parameters = call["parameters"].as_array().cloned().unwrap_or_default();
        let in_path: BTreeSet<_> = parameters
            .iter()
            .filter(|of| of["in"] == "path")
            .map(|of| of["name"].as_str().unwrap().to_owned())
            .collect();
        let expected: BTreeSet<_> =
            path.split('/').filter_map(|part| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned())).collect();
        assert_eq!(in_path, expected, "{at}");
        for (status, response) in call["responses"].as_object().unwrap() {
            let is_problem = response["content"].get("application/problem+json").is_some();
            assert_eq!(is_problem, status.starts_with(['4', '5']), "{at} {status}");
        }
    }
    let text = api.to_string();
    for reference in text.split("\"#/").skip(1).map(|rest| format!("/{}", rest.split('"').next().unwrap())) {
        assert!(api.pointer(&reference).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn bounds_are_those_of_the_limits() {
    let api = api();
    let bounds = |path: &str, name: &str, bound: &str| {
        let parameters = api["paths"][path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|of| of["name"] == name).unwrap()["schema"][bound].clone()
    };
    let (list, read) =
        ("/api/v1/collections/{collection}/documents", "/api/v1/collections/{collection}/documents/{id}");
    assert_eq!(bounds(list, "limit", "maximum").as_f64(), Some(PAGE_DOCUMENTS_MAX as f64));
    assert_eq!(bounds(read, "collection", "maxLength"), COLLECTION_NAME_BYTES_MAX);
    assert_eq!(bounds(read, "id", "maxLength"), DOCUMENT_ID_BYTES_MAX);
}

#[test]
fn requests_are_described_as_strictly_as_they_are_read() {
    let api = api();
    for (method, path, operation) in described(&api) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(!parameter["schema"].to_string().contains("null"), "{method} {path}: {parameter}");
            if parameter["in"] == "path" {
                assert!(parameter["schema"]["pattern"].is_string(), "{method} {path}: {parameter}");
            }
        }
    }
    let body = |path: &str| {
        let call = &api["paths"][format!("/api/v1/{path}")];
        let body = &call[if path.ends_with("{name}") { "put" } else { "post" }]["requestBody"];
        (body["required"] == true, resolved(&api, &body["content"]["application/json"]["schema"]).clone())
    };
    for (path, is_required) in [
        ("collections/{collection}/query", false),
        ("collections/{collection}/explain", false),
        ("collections/{collection}/count", false),
        ("collections/{collection}/distinct", true),
        ("collections/{collection}/aggregate", true),
        ("collections/{collection}/indexes/{name}", true),
        ("mesh/invites", false),
        ("mesh/join", true),
        ("mesh/leave", false),
    ] {
        let (required, schema) = body(path);
        assert_eq!(required, is_required, "{path}");
        assert_eq!(schema["additionalProperties"], false, "{path}: {schema}");
        for (name, property) in schema["properties"].as_object().unwrap() {
            assert!(!property.to_string().contains("\"null\""), "{path}: {name} is {property}");
        }
    }
    let (_, index) = body("collections/{collection}/indexes/{name}");
    assert_eq!(index["anyOf"][0], json!({"required": ["fields"]}));
    assert_eq!(index["properties"]["type"]["enum"], json!(["ordered", "geo", "text"]));
    let (_, invite) = body("mesh/invites");
    assert_eq!(
        (&invite["properties"]["uses"]["minimum"], &invite["properties"]["uses"]["maximum"]),
        (&json!(1), &json!(1_000))
    );
}

/// What is wrong with a value that should have a schema. Knows as much of JSON Schema as the description uses.
fn check(api: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return check(api, api.pointer(&reference[1..]).unwrap(), value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().any(|choice| check(api, choice, value, at).is_ok());
        return if fits { Ok(()) } else { Err(format!("{at}: {value} is none of {choices:?}")) };
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // Each part has fields of its own, so that none can refuse those of the others.
        let merged = parts.iter().map(|part| resolved(api, part)).fold(json!({"type": "object"}), |mut all, part| {
            for (name, field) in part["properties"].as_object().unwrap() {
                all["properties"][name] = field.clone();
            }
            let required = part["required"].as_array().cloned().unwrap_or_default();
            let known = all["required"].as_array().cloned().unwrap_or_default();
            all["required"] = Value::Array([known, required].concat());
            all
        });
        return check(api, &merged, value, at);
    }
    if schema.get("type").is_none() {
        // Of what may be any value nothing is said.
        return Ok(());
    }
    let kinds = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&json!(kind)) {
        return Err(format!("{at}: {value} is not of {kinds:?}"));
    }
    if let Some(items) = value.as_array() {
        return items
            .iter()
            .enumerate()
            .try_for_each(|(n, item)| check(api, &schema["items"], item, &format!("{at}/{n}")));
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    let required = schema["required"].as_array().into_iter().flatten();
    if let Some(missing) = required.filter_map(Value::as_str).find(|name| !fields.contains_key(*name)) {
        return Err(format!("{at}: {missing} is missing"));
    }
    for (name, field) in fields {
        let of = match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(of), _) | (None, Some(of)) => of,
            // An object of which nothing is said may hold anything.
            (None, None) if schema.get("properties").is_none() => continue,
            (None, None) => return Err(format!("{at}: {name} is not described")),
        };
        if of.is_object() {
            check(api, of, field, &format!("{at}/{name}"))?;
        }
    }
    Ok(())
}

fn resolved<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    schema["$ref"].as_str().map_or(schema, |reference| api.pointer(&reference[1..]).unwrap())
}

/// Which described statuses have occurred.
struct Record {
    api: Value,
    seen: BTreeSet<(String, String)>,
}

impl Record {
    fn new() -> Self {
        Self { api: api(), seen: BTreeSet::new() }
    }

    /// Holds an answer to its description.
    fn hold(&mut self, call: &str, answer: &Answer) {
        let (method, path) = call.split_once(' ').unwrap();
        let path = if ["/health", "/metrics", "/docs", "/api/"].iter().any(|top| path.starts_with(top)) {
            path.to_owned()
        } else {
            format!("/api/v1{path}")
        };
        let api = self.api.clone();
        let found = described(&api).into_iter().find(|(of, template, _)| of == method && matches(template, &path));
        let (_, template, operation) = found.unwrap_or_else(|| panic!("{call} is not described"));
        let status = answer.status.as_str();
        let shown = String::from_utf8_lossy(&answer.bytes);
        let response = &operation["responses"][status];
        assert!(response.is_object(), "{call} answered {status}, which is not described: {shown}");
        for header in response["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
            assert!(answer.headers.contains_key(header.to_lowercase()), "{call} {status} has no {header}");
        }
        match response["content"].as_object() {
            None => assert!(answer.bytes.is_empty(), "{call} {status}: a body is not described: {shown}"),
            Some(content) => {
                let kind = answer.header("content-type").split(';').next().unwrap();
                let of = content.get(kind).unwrap_or_else(|| panic!("{call} {status}: {kind} is not described"));
                let texts: Vec<&str> = match kind {
                    "application/x-ndjson" => shown.lines().collect(),
                    _ if kind.ends_with("json") => vec![&shown],
                    _ => Vec::new(),
                };
                for text in texts {
                    let value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{call} {status}: {text}"));
                    assert_eq!(check(&api, &of["schema"], &value, ""), Ok(()), "{call} {status}: {shown}");
                }
            }
        }
        self.seen.insert((format!("{method} {template}"), status.to_owned()));
    }

    /// Sends and holds; the status must be the expected one.
    async fn see(&mut self, client: &Client, status: u16, call: &str, headers: &[(&str, &str)], body: impl Into<Body>) {
        let answer = client.send(call, headers, body).await;
        let shown = String::from_utf8_lossy(&answer.bytes);
        assert_eq!(answer.status.as_u16(), status, "{call} {headers:?}: {shown}");
        self.hold(call, &answer);
    }

    /// Sends every call that is described.
    async fn see_all(&mut self, client: &Client, status: u16, headers: &[(&str, &str)]) {
        let calls: Vec<_> = described(&self.api)
            .into_iter()
            .map(|(method, path, call)| {
                (format!("{method} {}", concrete(&path)), call["responses"].get(status.to_string()).is_some())
            })
            .collect();
        for (call, is_described) in calls {
            if is_described {
                self.see(client, status, &call, headers, "").await;
            }
        }
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (method, path, call) in described(&self.api) {
            for status in call["responses"].as_object().unwrap().keys().filter(|status| *status != "5XX") {
                if !self.seen.contains(&(format!("{method} {path}"), status.clone())) {
                    missing.push(format!("{method} {path}: {status}"));
                }
            }
        }
        missing
    }
}

/// Calls that take a body: what is wrong with one is answered alike.
const WITH_BODY: &[&str] = &[
    "PUT /collections/users",
    "POST /collections/users/documents",
    "PUT /collections/users/documents/a",
    "PATCH /collections/users/documents/a",
    "POST /collections/users/documents/a/restore",
    "POST /collections/users/query",
    "POST /collections/users/explain",
    "POST /collections/users/count",
    "POST /collections/users/distinct",
    "POST /collections/users/aggregate",
    "PUT /collections/users/indexes/i",
    "POST /mesh/invites",
    "POST /mesh/join",
    "POST /mesh/init",
    "POST /mesh/leave",
];

/// A status, the call, its headers and its body.
type Provocation = (u16, &'static str, &'static [(&'static str, &'static str)], &'static str);

/// Calls, in this order, with the status of each and how to provoke it. A status that is described and not here
/// (nor one of those that every call has, see the test) fails the test; so does one that is here and not described.
#[rustfmt::skip]
const TABLE: &[Provocation] = &[
    (200, "GET /collections", &[], ""),
    (400, "GET /collections?limit=0", &[], ""),
    (200, "GET /collections?limit=1", &[], ""),
    (404, "GET /collections/users", &[], ""),
    (422, "GET /collections/.a", &[], ""),
    (404, "DELETE /collections/users", &[], ""),
    (422, "DELETE /collections/.a", &[], ""),
    (403, "DELETE /collections/_system", &[], ""),
    (201, "PUT /collections/users", &[], ""),
    (200, "PUT /collections/users", &[], "{}"),
    (403, "PUT /collections/_system", &[], ""),
    (422, "PUT /collections/.a", &[], ""),
    (422, "PUT /collections/users", &[], r#"{"retention": "7d"}"#),
    (201, "PUT /collections/users/documents/a", &[], r#"{"n": 1, "deep": {"list": [1.5, null, "x"]}}"#),
    (200, "PUT /collections/users/documents/a", &[], r#"{"n": 2}"#),
    (202, "PUT /collections/users/documents/a?w=1&timeout_ms=1", &[], r#"{"n": 3}"#),
    (200, "PUT /collections/users/documents/a?w=0", &[], r#"{"n": 2}"#),
    (400, "PUT /collections/users/documents/a?timeout_ms=1", &[], "{}"),
    (422, "PUT /collections/users/documents/a?w=65", &[], "{}"),
    (412, "PUT /collections/users/documents/a", &[("if-none-match", "*")], "{}"),
    (201, "PUT /collections/keys/indexes/k", &[], r#"{"fields": "k", "unique": true, "sparse": true}"#),
    (201, "PUT /collections/keys/documents/a", &[], r#"{"k": 1}"#),
    (409, "PUT /collections/keys/documents/b", &[("if-none-match", "*")], r#"{"k": 1}"#),
    (422, "PUT /collections/users/documents/a", &[], "[1]"),
    (403, "PUT /collections/_system/documents/a", &[], "{}"),
    (200, "GET /collections/users", &[], ""),
    (200, "GET /collections", &[], ""),
    (201, "POST /collections/users/documents", &[], r#"{"_id": "b"}"#),
    (202, "POST /collections/users/documents?w=1&timeout_ms=1", &[], r#"{"_id": "c"}"#),
    (409, "POST /collections/users/documents", &[], r#"{"_id": "b"}"#),
    (422, "POST /collections/users/documents", &[], r#"{"_id": "/"}"#),
    (200, "GET /collections/users/documents", &[], ""),
    (200, "GET /collections/users/documents?limit=1", &[], ""),
    (400, "GET /collections/users/documents?limit=0", &[], ""),
    (400, "GET /collections/users/documents?cursor=YQ&start_after=a", &[], ""),
    (200, "GET /collections/users/documents?start_after=a", &[("accept", "application/x-ndjson")], ""),
    (200, "POST /collections/users/query", &[], r#"{"filter": {"n": {"$gt": 1}}, "limit": 1, "projection": {"n": 1}}"#),
    (422, "POST /collections/users/query", &[], r#"{"filter": {"n": {"$gr": 1}}}"#),
    (200, "POST /collections/users/explain", &[], r#"{"filter": {"n": 2}}"#),
    (422, "POST /collections/users/explain", &[], r#"{"hint": "none"}"#),
    (200, "POST /collections/users/count", &[], r#"{"filter": {"n": 2}}"#),
    (422, "POST /collections/users/count", &[], r#"{"estimate": 1}"#),
    (200, "POST /collections/users/distinct", &[], r#"{"field": "n"}"#),
    (422, "POST /collections/users/distinct", &[], "{}"),
    (200, "POST /collections/users/aggregate", &[], r#"{"pipeline": [{"$count": "all"}]}"#),
    (422, "POST /collections/users/aggregate", &[], r#"{"pipeline": [{"$cuont": "all"}]}"#),
    (201, "PUT /collections/users/indexes/i", &[], r#"{"fields": "n", "unique": true, "sparse": true}"#),
    (200, "PUT /collections/users/indexes/i", &[], r#"{"fields": {"n": 1}, "unique": true, "sparse": true}"#),
    (403, "PUT /collections/_system/indexes/i", &[], r#"{"fields": "n"}"#),
    (422, "PUT /collections/users/indexes/i", &[], r#"{"fields": 1}"#),
    (200, "GET /collections/users/indexes", &[], ""),
    (404, "GET /collections/nobody/indexes", &[], ""),
    (422, "GET /collections/.a/indexes", &[], ""),
    (200, "GET /collections/users/indexes/i", &[], ""),
    (404, "GET /collections/users/indexes/j", &[], ""),
    (422, "GET /collections/users/indexes/%20", &[], ""),
    (200, "GET /collections/users/indexes/i/conflicts", &[], ""),
    (400, "GET /collections/users/indexes/i/conflicts?limit=0", &[], ""),
    (404, "GET /collections/users/indexes/j/conflicts", &[], ""),
    (422, "GET /collections/users/indexes/%20/conflicts", &[], ""),
    (204, "DELETE /collections/users/indexes/i", &[], ""),
    (404, "DELETE /collections/users/indexes/i", &[], ""),
    (403, "DELETE /collections/_system/indexes/i", &[], ""),
    (422, "DELETE /collections/users/indexes/%20", &[], ""),
    (200, "POST /collections/users/documents:bulk", &[], "{\"_id\": \"d\"}\nbad\n{\"_id\": \"d\", \"_deleted\": true}\n"),
    (400, "POST /collections/users/documents:bulk?mode=none", &[], ""),
    (415, "POST /collections/users/documents:bulk", &[("content-type", "application/json")], "{}"),
    (422, "POST /collections/.a/documents:bulk", &[], ""),
    (422, "GET /collections/.a/documents", &[], ""),
    (200, "GET /collections/users/changes", &[], ""),
    (200, "GET /collections/users/changes?limit=1&data=false&id_prefix=a&since=now", &[], ""),
    (400, "GET /collections/users/changes?limit=0", &[], ""),
    (410, "GET /collections/users/changes?since=CQAAAAAAAAAAAAAAAAAAAAA", &[], ""),
    (410, "GET /collections/users/changes?live=true", &[("last-event-id", "CQAAAAAAAAAAAAAAAAAAAAA")], ""),
    (422, "GET /collections/users/changes?since=yesterday", &[], ""),
    (200, "GET /collections/users/documents/a", &[], ""),
    (304, "GET /collections/users/documents/a", &[("if-none-match", "*")], ""),
    (404, "GET /collections/users/documents/none", &[], ""),
    (422, "GET /collections/users/documents/a%0Ab", &[], ""),
    (200, "GET /collections/users/documents/a?at=2999-01-01T00:00:00Z", &[], ""),
    (400, "GET /collections/users/documents/a?at=then", &[], ""),
    (400, "GET /collections/users/documents/a?misspelt=1", &[], ""),
    (200, "GET /collections/users/documents/a/history", &[], ""),
    (200, "GET /collections/users/documents/a/history?limit=1", &[], ""),
    (400, "GET /collections/users/documents/a/history?limit=0", &[], ""),
    (404, "GET /collections/users/documents/none/history", &[], ""),
    (422, "GET /collections/users/documents/a%0Ab/history", &[], ""),
    (200, "GET /collections/users/documents/a/diff?from=2999-01-01T00:00:00Z", &[], ""),
    (200, "GET /collections/users/documents/a/diff?from=1999-01-01T00:00:00Z", &[], ""),
    (200, "GET /collections/users/documents/a/diff?from=1999-01-01T00:00:00Z&format=json-patch", &[], ""),
    (400, "GET /collections/users/documents/a/diff", &[], ""),
    (404, "GET /collections/users/documents/none/diff?from=2999-01-01T00:00:00Z", &[], ""),
    (422, "GET /collections/users/documents/a%0Ab/diff?from=2999-01-01T00:00:00Z", &[], ""),
    (200, "GET /collections/users/documents/a/conflicts", &[], ""),
    (404, "GET /collections/users/documents/none/conflicts", &[], ""),
    (422, "GET /collections/users/documents/a%0Ab/conflicts", &[], ""),
    (200, "GET /collections/users/conflicts", &[], ""),
    (200, "GET /collections/users/conflicts?limit=1&start_after=a", &[], ""),
    (200, "GET /collections/nothing-here/conflicts", &[], ""),
    (400, "GET /collections/users/conflicts?start_after=a&cursor=YQ", &[], ""),
    (422, "GET /collections/.a/conflicts", &[], ""),
    (200, "POST /collections/users/query", &[], r#"{"conflicts": true}"#),
    (422, "POST /collections/users/query", &[], r#"{"conflicts": 1}"#),
    (200, "POST /collections/users/documents/a/restore", &[], r#"{"at": "2999-01-01T00:00:00Z"}"#),
    (202, "POST /collections/users/documents/a/restore?w=1&timeout_ms=1", &[], r#"{"at": "2999-01-01T00:00:00Z"}"#),
    (400, "POST /collections/users/documents/a/restore", &[], r#"{"at": "then"}"#),
    (404, "POST /collections/users/documents/none/restore", &[], r#"{"at": "2999-01-01T00:00:00Z"}"#),
    (422, "POST /collections/users/documents/a/restore", &[], r#"{"to": "2999-01-01T00:00:00Z"}"#),
    (412, "POST /collections/users/documents/a/restore", &[("if-match", "\"x\"")], r#"{"at": "2999-01-01T00:00:00Z"}"#),
    (200, "PATCH /collections/users/documents/a", &[], r#"{"$set": {"n": 5}}"#),
    (201, "PATCH /collections/users/documents/p?upsert=true", &[], r#"{"$inc": {"n": 1}}"#),
    (202, "PATCH /collections/users/documents/p?w=1&timeout_ms=1", &[], r#"{"$inc": {"n": 1}}"#),
    (404, "PATCH /collections/users/documents/none", &[], r#"{"$inc": {"n": 1}}"#),
    (403, "PATCH /collections/_system/documents/a", &[], r#"{"$inc": {"n": 1}}"#),
    (409, "PATCH /collections/users/documents/a", &[("content-type", "application/json-patch+json")], r#"[{"op": "test", "path": "/n", "value": 6}]"#),
    (200, "PATCH /collections/users/documents/a", &[("content-type", "application/merge-patch+json")], r#"{"n": 6}"#),
    (412, "PATCH /collections/users/documents/a", &[("if-match", "\"x\"")], r#"{"$inc": {"n": 1}}"#),
    (422, "PATCH /collections/users/documents/a", &[], r#"{"$increase": {"n": 1}}"#),
    (200, "GET /sync/why/users/a", &[], ""),
    (404, "GET /sync/why/users/none", &[], ""),
    (422, "GET /sync/why/users/a%00", &[], ""),
    (412, "DELETE /collections/users/documents/a", &[("if-match", "\"x\"")], ""),
    (204, "DELETE /collections/users/documents/a", &[], ""),
    (404, "DELETE /collections/users/documents/a", &[], ""),
    (200, "DELETE /collections/users/documents/b?w=0", &[], ""),
    (202, "DELETE /collections/users/documents/c?w=1&timeout_ms=1", &[], ""),
    (422, "DELETE /collections/users/documents/a%0Ab", &[], ""),
    (201, "POST /mesh/invites", &[], ""),
    (422, "POST /mesh/invites", &[], r#"{"role": "king"}"#),
    (422, "POST /mesh/join", &[], "{}"),
    (200, "GET /mesh/peers", &[], ""),
    (201, "POST /mesh/init", &[], r#"{"name": "home", "local_documents": "carry"}"#),
    (422, "POST /mesh/init", &[], "{}"),
    (409, "POST /mesh/leave", &[], ""),
    (422, "POST /mesh/leave", &[], r#"{"name": "home"}"#),
    (200, "DELETE /collections/users", &[("accept", "application/x-ndjson")], ""),
    (200, "DELETE /collections/users", &[], ""),
    (200, "GET /stats", &[], ""),
    (200, "GET /nodes/status", &[], ""),
    (200, "GET /nodes/doctor", &[], ""),
    (200, "GET /sync", &[], ""),
    (200, "GET /sync/safe-to-leave?peers=0", &[], ""),
    (200, "GET /sync/safe-to-leave?peers=1&timeout_ms=1", &[], ""),
    (422, "GET /sync/safe-to-leave?peers=65", &[], ""),
    (200, "GET /metrics", &[], ""),
    (200, "GET /health", &[], ""),
    (200, "GET /health/ready", &[], ""),
    (200, "GET /api/v1/health", &[], ""),
    (200, "GET /api/v1/health/ready", &[], ""),
    (200, "GET /api/v1/openapi.json", &[], ""),
    (200, "GET /docs", &[], ""),
    (200, "GET /docs/docs.css", &[], ""),
    (200, "GET /docs/docs.js", &[], ""),
];

#[tokio::test]
async fn every_described_status_can_occur_and_no_other_does() {
    let mut record = Record::new();
    let client = Client::new().await;
    for (status, call, headers, body) in TABLE {
        record.see(&client, *status, call, headers, *body).await;
    }
    bodies(&mut record, &client).await;
    reviving(&mut record, &client).await;
    joining(&mut record, &client).await;
    founding(&mut record).await;
    at_the_door(&mut record, &client).await;
    client.peer.shutdown().await;
    for call in ["GET /health/ready", "GET /api/v1/health/ready"] {
        record.see(&client, 503, call, &[], "").await;
    }
    let missing = record.missing();
    assert!(missing.is_empty(), "described, but not in the table: {missing:#?}");
}

/// What can be wrong with a body.
async fn bodies(record: &mut Record, client: &Client) {
    for call in WITH_BODY {
        record.see(client, 400, call, &[], "{").await;
        record.see(client, 413, call, &[], vec![b' '; DOCUMENT_BYTES_MAX + 1]).await;
        record.see(client, 415, call, &[("content-type", "text/plain")], "{}").await;
        record
            .see(client, 408, call, &[], Body::from_stream(futures::stream::pending::<Result<String, String>>()))
            .await;
    }
}

/// Joining needs others.
async fn joining(record: &mut Record, client: &Client) {
    let join = "POST /mesh/join";
    let [host, other, gone] = [Client::new().await, Client::new().await, Client::new().await];
    let ticket = async |of: &Client, uses: u32| {
        let invited = of.send("POST /mesh/invites", &[], json!({ "uses": uses }).to_string()).await.json();
        json!({ "ticket": invited["ticket"] }).to_string()
    };
    let unreachable = ticket(&gone, 1).await;
    gone.peer.shutdown().await;
    record.see(client, 502, join, &[], unreachable).await;
    let good = ticket(&host, 1).await;
    record.see(client, 200, join, &[], good).await;
    let foreign = ticket(&other, 1).await;
    record.see(client, 409, join, &[], foreign).await;
    record.see(client, 403, "POST /mesh/invites", &[], "{}").await;
    record.see(client, 200, "POST /mesh/leave", &[], "").await;
    for peer in [host.peer, other.peer] {
        peer.shutdown().await;
    }
}

/// Who is joining founds nothing meanwhile.
async fn founding(record: &mut Record) {
    let client = Client::new().await;
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let founder = Keypair::from_seed([1; 32]);
    let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{}", silent.local_addr().unwrap().port(), founder.peer_id());
    let terms = Terms { role: Role::Writer, expires: Timestamp(u64::MAX >> 16), uses: 1 };
    let members = Members::found(Genesis::found("silent", &founder, Hlc::default(), [1; 16]).unwrap());
    let ticket = members.invite(&founder, terms, [1; 32], [1; 16], vec![address], Timestamp(1)).unwrap();
    let mesh = client.peer.mesh();
    let joining = tokio::spawn(async move { mesh.join(&ticket.to_string(), LocalDocuments::Carry).await });
    // The name is none, so that nothing is founded before the join is under way.
    let answer = loop {
        let answer = client.send("POST /mesh/init", &[], r#"{"name": ""}"#).await;
        if answer.status != 422 {
            break answer;
        }
        assert!(!joining.is_finished(), "{joining:?}");
    };
    assert_eq!(answer.status, 409);
    record.hold("POST /mesh/init", &answer);
    client.peer.shutdown().await;
}

/// Reviving needs the heads of a version.
async fn reviving(record: &mut Record, client: &Client) {
    let written = client.send("PUT /collections/users/documents/gone", &[], "{}").await.json();
    client.send("DELETE /collections/users/documents/gone", &[], "").await;
    let body = json!({ "at": written["heads"] }).to_string();
    record.see(client, 201, "POST /collections/users/documents/gone/restore", &[], body).await;
    // What it held may be another document's by now.
    let old = client.send("GET /collections/keys/documents/a", &[], "").await.json()["heads"].clone();
    let body = serde_json::json!({ "at": old }).to_string();
    record.see(client, 200, "PUT /collections/keys/documents/a", &[], r#"{"k": 2}"#).await;
    record.see(client, 201, "PUT /collections/keys/documents/b", &[], r#"{"k": 1}"#).await;
    record.see(client, 409, "POST /collections/keys/documents/a/restore", &[], body).await;
}

/// What the guard answers, for every call.
async fn at_the_door(record: &mut Record, client: &Client) {
    record.see_all(client, 403, &[("origin", "http://evil.example")]).await;
    record.see_all(client, 421, &[("host", "evil.example")]).await;
    record.see_all(client, 400, &[("host", "localhost"), ("host", "localhost")]).await;
    let token = Some(Token::new("secret"));
    let app = App::new(client.peer.clone(), Config { rate_limit_per_s: 1, ..Config::default() }, 0, token);
    let strict = Client { peer: client.peer.clone(), router: router(app.clone()) };
    // An hour is used up in advance.
    app.shared.clients.request(std::net::Ipv4Addr::LOCALHOST.into(), app.now_us() + 3_600_000_000).unwrap();
    record.see_all(&strict, 429, &[]).await;
    let app = App::new(client.peer.clone(), Config::default(), 0, Some(Token::new("secret")));
    let locked = Client { peer: client.peer.clone(), router: router(app) };
    record.see_all(&locked, 401, &[]).await;
    let app = App::new(client.peer.clone(), Config::default(), 0, None);
    let full = Client { peer: client.peer.clone(), router: router(app.clone()) };
    let all = app.shared.permits.acquire_many(u32::try_from(GATEWAY_REQUESTS_MAX).unwrap()).await.unwrap();
    let ready = ["/health/ready", "/api/v1/health/ready"];
    let calls: Vec<_> = described(&record.api).into_iter().map(|(method, path, _)| (method, path)).collect();
    for (method, path) in
        calls.into_iter().filter(|(_, path)| !guard::is_health(path) && !ready.contains(&path.as_str()))
    {
        record.see(&full, 503, &format!("{method} {}", concrete(&path)), &[], "").await;
    }
    drop(all);
}
