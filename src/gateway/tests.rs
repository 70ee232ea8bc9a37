//! The gateway as a client sees it: requests against a real peer in memory.

mod bulk;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::guard::guard;
use super::token::Token;
use super::{App, Config, rest};
use crate::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX, GATEWAY_REQUESTS_MAX};
use crate::{Peer, PeerConfig};

mod queries;
mod version;

pub(super) struct Client {
    pub(super) peer: Peer,
    pub(super) router: Router,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&self.bytes)))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Client {
    pub(super) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub(super) async fn with(config: Config) -> Self {
        let peer = Peer::start(PeerConfig::local()).await.unwrap();
        let router = rest::router(App::new(peer.clone(), config, 0, None));
        Self { peer, router }
    }

    pub(super) async fn send(&self, call: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let (method, path) = call.split_once(' ').unwrap();
        let at_top = ["/health", "/metrics", "/docs", "/api/"].iter().any(|top| path.starts_with(top));
        let path = if at_top { path.to_owned() } else { format!("/api/v1{path}") };
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:8080");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    pub(super) async fn put(&self, id: &str, body: &str) -> Answer {
        self.send(&format!("PUT /collections/users/documents/{id}"), &[], body.to_owned()).await
    }

    /// A patch of the document `a`, with the type of its body and what stands behind its path.
    async fn patch(&self, media_type: &str, query: &str, body: &Value) -> Answer {
        let call = format!("PATCH /collections/users/documents/a{query}");
        self.send(&call, &[("content-type", media_type)], body.to_string()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], "").await
    }
}

fn assert_problem(answer: &Answer, status: u16, instance: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, "application/problem+json"), "{body}");
    assert_eq!((&body["status"], &body["instance"]), (&json!(status), &json!(instance)), "{body}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    body
}

#[tokio::test]
async fn a_document_is_created_read_replaced_and_deleted() {
    let client = Client::new().await;
    let answer = client.send("POST /collections/users/documents", &[], r#"{"_id":"Zürich 1","n":1.0}"#).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), "/api/v1/collections/users/documents/Z%C3%BCrich%201");
    let body = answer.json();
    assert_eq!(
        (&body["id"], &body["collection"], &body["data"]),
        (&json!("Zürich 1"), &json!("users"), &json!({"n": 1.0}))
    );
    assert_eq!(body["heads"].as_array().unwrap().len(), 1);
    assert!(body["created_at"].as_str().unwrap().ends_with('Z'));

    let read = client.get("/collections/users/documents/Z%C3%BCrich%201").await;
    assert_eq!((read.status.as_u16(), read.header("etag"), read.json()), (200, answer.header("etag"), body));

    let replaced = client.put("Z%C3%BCrich%201", r#"{"n":2}"#).await;
    assert_eq!((replaced.status.as_u16(), &replaced.json()["data"]), (200, &json!({"n": 2})));
    assert_ne!(replaced.header("etag"), answer.header("etag"));

    let path = "/collections/users/documents/Z%C3%BCrich%201";
    assert_eq!(client.send(&format!("DELETE {path}"), &[], "").await.status, 204);
    assert_problem(&client.get(path).await, 404, &format!("/api/v1{path}"));
    assert_problem(&client.send(&format!("DELETE {path}"), &[], "").await, 404, &format!("/api/v1{path}"));
    assert_eq!(client.put("Z%C3%BCrich%201", "{}").await.status, 201);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn preconditions_hold_or_the_answer_is_412() {
    let client = Client::new().await;
    let path = "/collections/users/documents/a";
    let put = format!("PUT {path}");
    assert_eq!(client.send(&put, &[("if-match", "*")], "{}").await.status, 412);
    let first = client.send(&put, &[("if-none-match", "*")], r#"{"n":1}"#).await;
    assert_eq!(first.status, 201);
    assert_problem(&client.send(&put, &[("if-none-match", "*")], "{}").await, 412, &format!("/api/v1{path}"));

    let tag = first.header("etag");
    let known = client.send(&format!("GET {path}"), &[("if-none-match", tag)], "").await;
    assert_eq!((known.status.as_u16(), known.header("etag"), known.bytes.len()), (304, tag, 0));
    assert_eq!(client.send(&put, &[("if-match", tag)], r#"{"n":2}"#).await.status, 200);
    assert_problem(&client.send(&put, &[("if-match", tag)], r#"{"n":3}"#).await, 412, &format!("/api/v1{path}"));
    assert_eq!(client.send(&format!("DELETE {path}"), &[("if-match", tag)], "").await.status, 412);
    assert_eq!(client.send(&format!("GET {path}"), &[("if-none-match", tag)], "").await.json()["data"]["n"], 2);
    let taken = client.send("POST /collections/users/documents", &[], r#"{"_id":"a"}"#).await;
    assert_problem(&taken, 409, "/api/v1/collections/users/documents");
    client.peer.shutdown().await;
}

const OPERATORS: &str = "application/json; charset=utf-8";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const A: &str = "/api/v1/collections/users/documents/a";

#[tokio::test]
async fn a_document_is_patched_in_three_languages() {
    let client = Client::new().await;
    let first = client.put("a", r#"{"n":1,"tags":["x"],"deep":{"a":1,"b":2}}"#).await;
    let patched = client.patch(OPERATORS, "", &json!({"$inc": {"n": 2}, "$push": {"tags": "y"}})).await;
    assert_eq!((patched.status.as_u16(), &patched.json()["data"]["n"]), (200, &json!(3)));
    assert_ne!(patched.header("etag"), first.header("etag"));
    let merged = client.patch(MERGE, "", &json!({"deep": {"a": null, "c": 3}})).await.json();
    assert_eq!(merged["data"], json!({"n": 3, "tags": ["x", "y"], "deep": {"b": 2, "c": 3}}));
    let steps = json!([{"op": "test", "path": "/n", "value": 3}, {"op": "move", "from": "/deep/c", "path": "/tags/0"}]);
    let stepped = client.patch(JSON_PATCH, "", &steps).await;
    assert_eq!(stepped.json()["data"], json!({"n": 3, "tags": [3, "x", "y"], "deep": {"b": 2}}));
    let read = client.get("/collections/users/documents/a").await;
    assert_eq!((read.json(), read.header("etag")), (stepped.json(), stepped.header("etag")));
    // What changes nothing writes nothing.
    for (media_type, body) in [
        (OPERATORS, json!({"$set": {"n": 3}, "$unset": {"none": true}, "$addToSet": {"tags": "x"}})),
        (OPERATORS, json!({})),
        (MERGE, json!({"deep": {"b": 2}})),
        (JSON_PATCH, json!([])),
    ] {
        let same = client.patch(media_type, "", &body).await;
        assert_eq!(
            (same.status.as_u16(), same.header("etag"), same.json()),
            (200, stepped.header("etag"), stepped.json())
        );
    }
    let dated = client.patch(OPERATORS, "", &json!({"$currentDate": {"seen": true}})).await.json();
    assert_eq!(dated["data"]["seen"], dated["updated_at"]);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_patch_makes_a_document_only_when_asked() {
    let client = Client::new().await;
    for media_type in [OPERATORS, MERGE] {
        assert_problem(&client.patch(media_type, "", &json!({})).await, 404, A);
        assert_problem(&client.patch(media_type, "?upsert=false", &json!({})).await, 404, A);
    }
    assert_problem(&client.patch(JSON_PATCH, "", &json!([])).await, 404, A);
    assert_problem(&client.patch(JSON_PATCH, "?upsert=true", &json!([])).await, 422, A);
    assert_problem(&client.patch(MERGE, "?upsert=1", &json!({})).await, 400, A);
    assert_problem(&client.patch(MERGE, "?upser=true", &json!({})).await, 400, A);
    for (round, media_type, body) in [
        (1, OPERATORS, json!({"$inc": {"n": 2}, "$set": {"a.b": 1}})),
        (2, MERGE, json!({"n": 2, "a": {"b": 1, "c": null}})),
    ] {
        let made = client.patch(media_type, "?upsert=true", &body).await;
        assert_eq!((made.status.as_u16(), made.header("location")), (201, A), "{round}");
        assert_eq!(made.json()["data"], json!({"n": 2, "a": {"b": 1}}), "{round}");
        let again = client.patch(media_type, "?upsert=true", &body).await;
        assert_eq!(again.status, 200, "{round}");
        // The second time it was there, and is deleted.
        assert_eq!(client.send("DELETE /collections/users/documents/a", &[], "").await.status, 204);
        assert_problem(&client.patch(media_type, "", &body).await, 404, A);
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_patch_is_named_and_changes_nothing() {
    let client = Client::new().await;
    let first = client.put("a", r#"{"n":1,"s":"x"}"#).await;
    for (media_type, status, field, body) in [
        (OPERATORS, 422, json!(null), json!({"n": 2})),
        (OPERATORS, 422, json!(null), json!({"$sett": {"n": 2}})),
        (OPERATORS, 422, json!("n.x"), json!({"$set": {"ok": 1, "n.x": 2}})),
        (OPERATORS, 422, json!("s"), json!({"$set": {"ok": 1}, "$inc": {"s": 2}})),
        (OPERATORS, 422, json!("n"), json!({"$set": {"n": 1}, "$inc": {"n": 2}})),
        (OPERATORS, 422, json!("s"), json!({"$set": {"ok": 1}, "$text": {"s": {"position": 2, "insert": "y"}}})),
        (
            OPERATORS,
            413,
            json!(null),
            json!({"$set": {"l": []}, "$text": {"s": {"position": 0, "insert": "y".repeat(DOCUMENT_BYTES_MAX - 70)}}}),
        ),
        (MERGE, 422, json!(null), json!([1])),
        (MERGE, 422, json!("_id"), json!({"_id": "b"})),
        (JSON_PATCH, 422, json!(null), json!({"n": 2})),
        (
            JSON_PATCH,
            422,
            json!("/x/y"),
            json!([{"op": "add", "path": "/ok", "value": 1}, {"op": "add", "path": "/x/y", "value": 1}]),
        ),
        (
            JSON_PATCH,
            409,
            json!("/n"),
            json!([{"op": "remove", "path": "/s"}, {"op": "test", "path": "/n", "value": 2}]),
        ),
        ("application/x-unknown+json", 415, json!(null), json!({})),
        ("text/plain", 415, json!(null), json!({})),
    ] {
        let problem = assert_problem(&client.patch(media_type, "", &body).await, status, A);
        assert_eq!(problem["field"], field, "{problem}");
    }
    assert_eq!(client.get("/collections/users/documents/a").await.json(), first.json());
    let broken = client.send("PATCH /collections/users/documents/a", &[], "{\"$set\":\n{}").await;
    assert_eq!(assert_problem(&broken, 400, A)["position"], json!({"line": 2, "column": 3}));
    assert_problem(
        &client.send("PATCH /collections/_x/documents/a?upsert=true", &[], "{}").await,
        403,
        "/api/v1/collections/_x/documents/a",
    );
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_patch_keeps_preconditions() {
    let client = Client::new().await;
    let call = "PATCH /collections/users/documents/a";
    let body = r#"{"$inc":{"n":1}}"#;
    assert_problem(&client.send(call, &[("if-match", "*")], body).await, 412, A);
    let first = client.put("a", r#"{"n":1}"#).await;
    let tag = ("if-match", first.header("etag"));
    assert_eq!(client.send(call, &[tag], body).await.json()["data"]["n"], 2);
    assert_problem(&client.send(call, &[tag], body).await, 412, A);
    assert_problem(&client.send(call, &[("if-none-match", "*")], body).await, 412, A);
    // A failed test is not a failed precondition.
    let headers = [("if-match", "*"), ("content-type", JSON_PATCH)];
    assert_problem(&client.send(call, &headers, r#"[{"op":"test","path":"/n","value":0}]"#).await, 409, A);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_listing_is_paged_in_the_order_of_ids() {
    let client = Client::new().await;
    for id in ["c", "a", "e", "b", "d"] {
        client.put(id, &json!({ "is": id }).to_string()).await;
    }
    let mut cursor = String::new();
    let mut ids = Vec::new();
    loop {
        let page = client.get(&format!("/collections/users/documents?limit=2{cursor}")).await.json();
        ids.extend(page["documents"].as_array().unwrap().iter().map(|document| document["id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(json!(ids), json!(["a", "b", "c", "d", "e"]));
    for bad in ["limit=0", "limit=1001", "limit=x", "cursor=!", "offset=1"] {
        let answer = client.get(&format!("/collections/users/documents?{bad}")).await;
        assert_problem(&answer, 400, "/api/v1/collections/users/documents");
    }
    assert_eq!(client.get("/collections/none/documents").await.json()["documents"], json!([]));
    client.peer.shutdown().await;
}

#[tokio::test]
async fn collections_show_their_counts() {
    let client = Client::new().await;
    client.put("a", r#"{"n":1}"#).await;
    let all = client.get("/collections").await.json();
    assert_eq!(all, json!({"collections": [{"name": "users", "documents": 1, "bytes": 7}], "next_cursor": null}));
    assert_eq!(client.get("/collections/users").await.json(), all["collections"][0]);
    assert_problem(&client.get("/collections/none").await, 404, "/api/v1/collections/none");
    client.peer.shutdown().await;
}

#[tokio::test]
async fn collections_are_listed_page_by_page() {
    let client = Client::new().await;
    let names: Vec<String> = (0..7).map(|n| format!("c-{n}")).collect();
    for name in &names {
        assert_eq!(client.send(&format!("PUT /collections/{name}"), &[], "").await.status, 201);
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = client.get(&format!("/collections?limit=3{cursor}")).await.json();
        let found = page["collections"].as_array().unwrap().iter();
        seen.extend(found.map(|collection| collection["name"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!((seen, pages), (names, 3));
    // A page that is full to the last collection is the last one.
    assert_eq!(client.get("/collections?limit=7").await.json()["next_cursor"], json!(null));
    for bad in ["limit=0", "limit=1001", "cursor=!", "offset=1"] {
        assert_problem(&client.get(&format!("/collections?{bad}")).await, 400, "/api/v1/collections");
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn the_dropping_of_a_collection_tells_how_far_it_came() {
    let client = Client::new().await;
    let lines: String = (0..2_500).map(|n| format!("{{\"_id\":\"d{n:04}\",\"n\":{n}}}\n")).collect();
    let written =
        client.send("POST /collections/users/documents:bulk", &[("content-type", "application/x-ndjson")], lines);
    assert_eq!(written.await.status, 200);
    let answer = client.send("DELETE /collections/users", &[("accept", "application/x-ndjson")], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/x-ndjson"));
    let lines: Vec<Value> =
        std::str::from_utf8(&answer.bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let deleted: Vec<u64> = lines.iter().map(|line| line["deleted"].as_u64().unwrap()).collect();
    assert_eq!(deleted, [1_000, 2_000, 2_500, 2_500]);
    assert_eq!(lines[3], json!({"deleted": 2_500, "damaged": 0, "left": 0, "status": 200}));
    assert!(lines[..3].iter().all(|line| line.get("status").is_none()), "{lines:?}");
    assert_eq!(client.get("/collections/users").await.json()["documents"], 0);
    let again = client.send("DELETE /collections/users", &[], "").await;
    assert_eq!((again.status.as_u16(), again.json()), (200, json!({"deleted": 0, "damaged": 0})));
    client.peer.shutdown().await;
}

#[tokio::test]
async fn what_is_no_document_is_refused_with_its_place() {
    let client = Client::new().await;
    let at = "/api/v1/collections/users/documents/x";
    let bad = assert_problem(&client.put("x", "{\n  \"a\": 1,\n  \"b\" 2}").await, 400, at);
    assert_eq!(bad["position"], json!({"line": 3, "column": 7}));
    let twice = assert_problem(&client.put("x", r#"{"a":1,"a":2}"#).await, 400, at);
    assert_eq!(twice["position"], json!({"line": 1, "column": 8}));
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(DOCUMENT_DEPTH_MAX), "]".repeat(DOCUMENT_DEPTH_MAX));
    assert_problem(&client.put("x", &deep).await, 400, at);
    assert_problem(&client.put("x", r#"{"n":18446744073709551616}"#).await, 422, at);
    assert_problem(&client.put("x", "[1]").await, 422, at);
    assert_problem(&client.put("x", "").await, 400, at);
    let call = "PUT /collections/users/documents/x";
    assert_problem(&client.send(call, &[], b"{\"a\":\"\xff\"}".to_vec()).await, 400, at);
    assert_problem(&client.send(call, &[], vec![b' '; DOCUMENT_BYTES_MAX + 1]).await, 413, at);
    assert_problem(&client.put("x", r#"{"_id":"y"}"#).await, 422, at);
    assert_problem(&client.get("/collections/users/documents/x").await, 404, at);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn names_and_ids_follow_their_rules() {
    let client = Client::new().await;
    let refused = [
        ("GET", "/collections/a%20b/documents", 422),
        ("GET", "/collections/.a", 422),
        ("PUT", "/collections/users/documents/a%2Fb", 422),
        ("GET", "/collections/users/documents/a%0Ab", 422),
        ("GET", "/collections/users/documents/%FF", 400),
        ("PUT", "/collections/_system/documents/a", 403),
        ("DELETE", "/collections/_system/documents/a", 403),
        ("GET", "/sync/why/users/a%00", 422),
    ];
    for (method, path, status) in refused {
        assert_problem(&client.send(&format!("{method} {path}"), &[], "{}").await, status, &format!("/api/v1{path}"));
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_body_must_be_json_by_its_type() {
    let client = Client::new().await;
    let call = "PUT /collections/users/documents/x";
    for good in ["application/json", "application/json; charset=utf-8", "application/vnd.api+json"] {
        assert!(client.send(call, &[("content-type", good)], "{}").await.status.is_success(), "{good}");
    }
    for bad in ["text/plain", "application/x-www-form-urlencoded", ""] {
        assert_eq!(client.send(call, &[("content-type", bad)], "{}").await.status, 415, "{bad}");
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn unknown_calls_are_problems_too() {
    let client = Client::new().await;
    assert_problem(&client.get("/nothing").await, 404, "/api/v1/nothing");
    let answer = client.send("PATCH /collections", &[], "").await;
    assert_problem(&answer, 405, "/api/v1/collections");
    assert_eq!(answer.header("allow"), "GET,HEAD");
    client.peer.shutdown().await;
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let client = Client::new().await;
    let send = async |headers: &[(&str, &str)]| client.send("GET /collections", headers, "").await.status.as_u16();
    assert_eq!(send(&[("host", "evil.example")]).await, 421);
    assert_eq!(send(&[("host", "127.0.0.1:9")]).await, 200);
    assert_eq!(send(&[("origin", "http://localhost:8080")]).await, 200);
    assert_eq!(send(&[("origin", "http://localhost:3000")]).await, 403);
    assert_eq!(send(&[("origin", "null")]).await, 403);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn cors_lets_pages_of_this_machine_call() {
    let client = Client::with(Config { cors_enabled: true, ..Config::default() }).await;
    let origin = ("origin", "http://localhost:3000");
    let asked = [origin, ("access-control-request-method", "PATCH"), ("access-control-request-headers", "if-match")];
    let answer = client.send("OPTIONS /collections/users/documents/a", &asked, "").await;
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    assert!(answer.header("access-control-allow-methods").contains("PUT,PATCH"));
    assert_eq!(client.send("GET /collections", &[("origin", "http://evil.example")], "").await.status, 403);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn pages_can_ask_without_a_token_and_read_what_is_wrong() {
    let peer = Peer::start(PeerConfig::local()).await.unwrap();
    let config = Config { cors_enabled: true, ..Config::default() };
    let router = rest::router(App::new(peer.clone(), config, 0, Some(Token::new("secret"))));
    let client = Client { peer, router };
    let origin = ("origin", "http://localhost:3000");
    let asked =
        [origin, ("access-control-request-method", "PATCH"), ("access-control-request-headers", "authorization")];
    let answer = client.send("OPTIONS /collections/users/documents/a", &asked, "").await;
    assert_eq!(answer.status, 200);
    for (header, part) in [("methods", "PATCH"), ("headers", "authorization"), ("headers", "last-event-id")] {
        assert!(answer.header(&format!("access-control-allow-{header}")).contains(part), "{part}");
    }
    let answer = client.send("GET /collections", &[origin], "").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    for exposed in ["etag", "location", "retry-after", "www-authenticate", "x-request-id"] {
        assert!(answer.header("access-control-expose-headers").contains(exposed), "{exposed}");
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_token_opens_and_wrong_ones_are_told_to_wait() {
    let peer = Peer::start(PeerConfig::local()).await.unwrap();
    let router = rest::router(App::new(peer.clone(), Config::default(), 0, Some(Token::new("secret"))));
    let client = Client { peer, router };
    let send = async |token: &str| client.send("GET /collections", &[("authorization", token)], "").await;
    assert_eq!(send("Bearer secret").await.status, 200);
    let missing = client.get("/collections").await;
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"aerolithsdb\"");
    assert_problem(&missing, 401, "/api/v1/collections");
    assert_problem(&send("Basic secret").await, 401, "/api/v1/collections");
    let wrong = loop {
        let answer = send("Bearer secreT").await;
        if answer.status != 401 {
            break answer;
        }
    };
    let problem = assert_problem(&wrong, 429, "/api/v1/collections");
    assert!(wrong.header("retry-after").parse::<u64>().unwrap() > 0);
    assert!(!problem.to_string().contains("secreT"));
    assert_eq!(send("Bearer secret").await.status, 200);
    for open in ["/health", "/health/ready", "/docs", "/api/v1/openapi.json"] {
        assert_eq!(client.get(open).await.status, 200, "{open}");
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_to_wait() {
    let client = Client::with(Config { rate_limit_per_s: 1, ..Config::default() }).await;
    let answer = loop {
        let answer = client.get("/collections").await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_problem(&answer, 429, "/api/v1/collections");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(client.get("/health").await.status, 200);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn answers_are_not_kept_or_taken_for_something_else() {
    let client = Client::new().await;
    client.put("a", "{}").await;
    for path in ["/collections/users/documents/a", "/docs", "/nothing"] {
        let answer = client.get(path).await;
        assert_eq!((answer.header("cache-control"), answer.header("x-content-type-options")), ("no-store", "nosniff"));
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
    }
    let page = client.get("/docs").await;
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; script-src 'self'"));
    let (html, script) = (String::from_utf8(page.bytes).unwrap(), client.get("/docs/docs.js").await.bytes);
    let script = String::from_utf8(script).unwrap();
    for text in [&html, &script] {
        assert!(!text.contains("http://") && !text.contains("https://"), "the page needs the Internet");
    }
    for unsafe_part in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!script.contains(unsafe_part), "{unsafe_part}");
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn the_access_log_holds_no_secrets() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone());
    // For this thread only, on which the whole test runs.
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let client = Client::new().await;
    let headers = [("authorization", "Bearer the-token"), ("x-request-id", "mine-1")];
    client.send("PUT /collections/users/documents/a?x=the-query", &headers, r#"{"n": "the-body"}"#).await;
    client.peer.shutdown().await;
    let text = lines.text();
    let line = text.lines().find(|line| line.contains("aerolithsdb::access")).unwrap();
    for part in [
        "method=PUT",
        "path=\"/api/v1/collections/users/documents/a\"",
        "status=400",
        "micros=",
        "mine-1",
        "client=127.0.0.1",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    for secret in ["the-token", "the-query", "the-body"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn requests_have_ids() {
    let client = Client::new().await;
    let own = client.send("GET /nothing", &[("x-request-id", "mine-1")], "").await;
    assert_eq!(own.header("x-request-id"), "mine-1");
    let (a, b) = (client.get("/health").await, client.get("/health").await);
    assert_ne!(a.header("x-request-id"), b.header("x-request-id"));
    client.peer.shutdown().await;
}

#[tokio::test]
async fn health_tells_of_shutting_down() {
    let client = Client::new().await;
    assert_eq!(client.get("/health/ready").await.json(), json!({"status": "ready"}));
    client.peer.shutdown().await;
    assert_eq!(client.get("/health").await.status, 200);
    let answer = client.get("/health/ready").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.json()["reasons"].as_array().unwrap().len(), 1);
    assert_problem(&client.put("a", "{}").await, 503, "/api/v1/collections/users/documents/a");
}

#[tokio::test]
async fn the_peer_and_its_mesh_are_shown() {
    let client = Client::new().await;
    client.put("a", "{}").await;
    let status = client.get("/nodes/status").await.json();
    assert_eq!(status["peer_id"], json!(client.peer.id().to_string()));
    assert_eq!((&status["peers"], &status["role"]), (&json!([]), &json!("admin")));
    let stats = client.get("/stats").await.json();
    assert_eq!((&stats["documents"], &stats["operations"]["writes"]["count"]), (&json!(1), &json!(1)));
    assert_eq!(
        client.get("/sync").await.json()["collections"],
        json!([{"name": "users", "documents": 1, "count": 1, "peers": []}])
    );
    assert_eq!(client.get("/sync/why/users/a").await.json()["changes"], 1);
    assert_problem(&client.get("/sync/why/users/b").await, 404, "/api/v1/sync/why/users/b");
    let members = client.get("/mesh/peers").await.json();
    assert_eq!(members["peers"][0]["peer_id"], status["peer_id"]);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn tickets_are_made_and_their_faults_named() {
    let client = Client::new().await;
    let invited = client.send("POST /mesh/invites", &[], r#"{"role":"reader","uses":2}"#).await;
    assert_eq!(invited.status, 201);
    let body = invited.json();
    assert!(body["ticket"].as_str().unwrap().starts_with("aero1"), "{body}");
    assert_eq!((&body["role"], &body["uses"]), (&json!("reader"), &json!(2)));
    assert_eq!(client.send("POST /mesh/invites", &[], "").await.json()["role"], "writer");
    let wrong = client.send("POST /mesh/invites", &[], r#"{"role":"king"}"#).await;
    assert_eq!(assert_problem(&wrong, 422, "/api/v1/mesh/invites")["field"], "role");
    let unknown = client.send("POST /mesh/invites", &[], r#"{"rol":"reader"}"#).await;
    assert!(assert_problem(&unknown, 422, "/api/v1/mesh/invites")["detail"].as_str().unwrap().contains("role"));
    let joined = client.send("POST /mesh/join", &[], r#"{"ticket":"aero1x"}"#).await;
    assert!(joined.status.is_client_error(), "{:?}", joined.json());
    client.peer.shutdown().await;
}

#[tokio::test]
async fn too_many_requests_are_told_to_come_back_but_health_is_answered() {
    let peer = Peer::start(PeerConfig::local()).await.unwrap();
    let app = App::new(peer.clone(), Config::default(), 0, None);
    let client = Client { peer, router: rest::router(app.clone()) };
    let all = app.shared.permits.acquire_many(u32::try_from(GATEWAY_REQUESTS_MAX).unwrap()).await.unwrap();
    let answer = client.get("/collections").await;
    assert_problem(&answer, 503, "/api/v1/collections");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(client.get("/health").await.status, 200);
    drop(all);
    assert_eq!(client.get("/collections").await.status, 200);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_panic_ends_one_request() {
    async fn boom() {
        panic!("on purpose");
    }
    let peer = Peer::start(PeerConfig::local()).await.unwrap();
    let app = App::new(peer.clone(), Config::default(), 0, None);
    let guarded = Router::new().route("/api/v1/boom", get(boom)).layer(from_fn_with_state(app.clone(), guard));
    let client = Client { peer, router: guarded };
    assert_problem(&client.get("/boom").await, 500, "/api/v1/boom");
    assert_eq!(app.shared.permits.available_permits(), GATEWAY_REQUESTS_MAX);
    client.peer.shutdown().await;
}
