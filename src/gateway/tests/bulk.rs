//! Bulk writes and exports as a client sees them.

use std::collections::BTreeMap;
use std::io;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::path_segment;
use super::{Answer, Client, assert_problem};
use crate::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_DEPTH_MAX, GATEWAY_STREAMS_MAX, PAGE_DOCUMENTS_MAX};

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

fn pieces(text: &[u8], cuts: &[usize]) -> Body {
    let mut cuts: Vec<usize> = cuts.iter().map(|&at| at.min(text.len())).chain([0, text.len()]).collect();
    cuts.sort_unstable();
    let piece = |pair: &[usize]| Ok::<_, io::Error>(Bytes::copy_from_slice(&text[pair[0]..pair[1]]));
    Body::from_stream(stream::iter(cuts.windows(2).map(piece).collect::<Vec<_>>()))
}

fn results(answer: &Answer) -> Vec<Value> {
    let lines = answer.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

async fn bulk(client: &Client, query: &str, body: impl Into<Body>) -> Vec<Value> {
    let answer = client.send(&format!("POST /collections/users/documents:bulk{query}"), &[LINES], body).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, LINES.1));
    results(&answer)
}

fn statuses(results: &[Value]) -> Vec<(u64, u64)> {
    results.iter().map(|result| (result["line"].as_u64().unwrap(), result["status"].as_u64().unwrap())).collect()
}

async fn export(client: &Client, collection: &str, query: &str) -> Answer {
    let call = format!("GET /collections/{collection}/documents{query}");
    client.send(&call, &[("accept", "text/html, application/x-ndjson;q=0.9")], "").await
}

#[tokio::test]
async fn each_line_is_a_call_of_its_own() {
    let client = Client::new().await;
    let lines = concat!(
        r#"{"_id":"a","n":1}"#,
        "\n\n",
        r#"{"_id":"a","n":2}"#,
        "\r\n",
        "{broken\n",
        r#"{"_id":"a","n":2}"#,
        "\n",
        r#"{"_id":"a","_deleted":true}"#,
        "\n",
        r#"{"_id":"a","_deleted":true}"#,
        "\n",
        r#"{"_id":"a","_deleted":true,"n":1}"#,
        "\n",
        r#"{"_deleted":true}"#,
        "\n",
        r#"{"_id":7}"#,
        "\n[1]\n",
        r#"{"n":3}"#,
    );
    let results = bulk(&client, "", lines).await;
    let expected = [
        (1, 201),
        (3, 200),
        (4, 400),
        (5, 200),
        (6, 204),
        (7, 404),
        (8, 422),
        (9, 422),
        (10, 422),
        (11, 422),
        (12, 201),
    ];
    assert_eq!(statuses(&results), expected, "{results:#?}");
    assert_eq!(results[0], json!({"line": 1, "status": 201, "id": "a", "result": "created"}));
    assert_eq!((&results[1]["result"], &results[3]["result"]), (&json!("replaced"), &json!("unchanged")));
    assert_eq!(results[2]["position"], json!({"line": 4, "column": 2}));
    assert!(results[2]["detail"].as_str().unwrap().ends_with("(line 4, column 2)"));
    assert_eq!(results[6]["field"], "_deleted");
    let made = format!("/collections/users/documents/{}", results[10]["id"].as_str().unwrap());
    assert_eq!(client.get(&made).await.json()["data"], json!({"n": 3}));
    client.peer.shutdown().await;
}

#[tokio::test]
async fn inserting_leaves_what_is_there() {
    let client = Client::new().await;
    let results =
        bulk(&client, "?mode=insert", "{\"_id\":\"a\"}\n{\"_id\":\"a\"}\n{\"_id\":\"a\",\"_deleted\":true}").await;
    assert_eq!(statuses(&results), [(1, 201), (2, 409), (3, 422)]);
    let path = "/collections/users/documents:bulk";
    let wrong = client.send(&format!("POST {path}?mode=both"), &[LINES], "").await;
    assert_problem(&wrong, 400, &format!("/api/v1{path}"));
    for (name, value) in [("content-type", "application/json"), ("content-encoding", "gzip")] {
        let wrong = client.send(&format!("POST {path}"), &[(name, value)], "").await;
        assert_problem(&wrong, 415, &format!("/api/v1{path}"));
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_line_over_the_limit_fails_alone() {
    let client = Client::new().await;
    let long = format!("{{\"_id\":\"a\"}}\n{}\n{{\"_id\":\"b\"}}\n", "x".repeat(3 * DOCUMENT_BYTES_MAX));
    let results = bulk(&client, "", pieces(long.as_bytes(), &[1_000, 2_000_000])).await;
    assert_eq!(statuses(&results), [(1, 201), (2, 413), (3, 201)]);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_what_was_whole() {
    let client = Client::new().await;
    let sent = [Ok(Bytes::from_static(b"{\"_id\":\"a\"}\n{\"_id\":\"b\"")), Err(io::Error::other("gone"))];
    let request = axum::http::Request::post("/api/v1/collections/users/documents:bulk")
        .header("host", "localhost")
        .body(Body::from_stream(stream::iter(sent)))
        .unwrap();
    let response = tower::ServiceExt::oneshot(client.router.clone(), request).await.unwrap();
    assert!(axum::body::to_bytes(response.into_body(), usize::MAX).await.is_err(), "the answer must not look whole");
    assert_eq!(client.get("/collections/users/documents/a").await.status, 200);
    assert_eq!(client.get("/collections/users/documents/b").await.status, 404);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn lines_that_the_peer_does_not_take_are_given_up_in_the_end() {
    let client = Client::new().await;
    client.peer.shutdown().await;
    assert_eq!(statuses(&bulk(&client, "", "{\"_id\":\"a\"}\n{broken\n{}").await), [(1, 503), (2, 400), (3, 503)]);
}

#[tokio::test]
async fn streams_are_bounded_and_their_room_comes_back() {
    let client = Client::new().await;
    let shared = super::App::new(client.peer.clone(), super::Config::default(), 0, None);
    let client = Client { router: super::rest::router(shared.clone()), ..client };
    let all = shared.shared.streams.acquire_many(u32::try_from(GATEWAY_STREAMS_MAX).unwrap()).await.unwrap();
    let path = "/collections/users/documents";
    let answer = client.send(&format!("POST {path}:bulk"), &[LINES], "{}").await;
    assert_problem(&answer, 503, &format!("/api/v1{path}:bulk"));
    assert_problem(&export(&client, "users", "").await, 503, &format!("/api/v1{path}"));
    drop(all);
    assert_eq!(statuses(&bulk(&client, "", "{}").await), [(1, 201)]);
    assert_eq!(export(&client, "users", "").await.status, 200);
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_collection_is_exported_as_it_is_imported() {
    let client = Client::new().await;
    let count = PAGE_DOCUMENTS_MAX + 10;
    let lines: Vec<String> = (0..count).map(|n| format!("{{\"_id\":\"{n:05}\",\"n\":{n}}}\n")).collect();
    assert_eq!(bulk(&client, "", lines.concat()).await.len(), count);
    bulk(&client, "", "{\"_id\":\"zz\"}").await;
    let all = export(&client, "users", "").await;
    assert_eq!(all.header("content-type"), LINES.1);
    assert_eq!(String::from_utf8(all.bytes).unwrap(), lines.concat() + "{\"_id\":\"zz\"}\n");
    let some = export(&client, "users", "?start_after=00003&limit=2").await;
    assert_eq!(String::from_utf8(some.bytes).unwrap(), lines[4..6].concat());
    assert_eq!(export(&client, "none", "").await.bytes, b"");
    let both = export(&client, "users", "?start_after=a&cursor=YQ").await;
    assert_problem(&both, 400, "/api/v1/collections/users/documents");
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_page_of_large_documents_ends_early() {
    let client = Client::new().await;
    let text = "x".repeat(DOCUMENT_BYTES_MAX - 100);
    let lines: Vec<String> = (0..6).map(|n| format!("{{\"_id\":\"{n}\",\"text\":\"{text}\"}}\n")).collect();
    assert_eq!(bulk(&client, "", lines.concat()).await.len(), 6);
    let page = client.get("/collections/users/documents").await.json();
    assert_eq!(page["documents"].as_array().unwrap().len(), 5);
    assert!(page["next_cursor"].is_string());
    assert_eq!(export(&client, "users", "").await.bytes, lines.concat().as_bytes());
    client.peer.shutdown().await;
}

/// The call that a line stands for; `None` for a line that is passed over.
fn single(line: &[u8]) -> Option<(&'static str, String)> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    let value = crate::document::json::parse(line).unwrap_or_default();
    Some(match value["_id"].as_str() {
        Some(id) if value["_deleted"] == json!(true) => ("DELETE", format!("/{}", path_segment(id))),
        Some(id) => ("PUT", format!("/{}", path_segment(id))),
        None => ("POST", String::new()),
    })
}

async fn one_by_one(client: &Client, collection: &str, lines: &[Vec<u8>]) -> Vec<(u64, u64, Value)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let Some((method, path)) = single(line) else { continue };
        let call = format!("{method} /collections/{collection}/documents{path}");
        let answer = client.send(&call, &[], line.clone()).await;
        let detail = if answer.status.is_success() { Value::Null } else { answer.json()["detail"].clone() };
        found.push((number, u64::from(answer.status.as_u16()), detail));
    }
    found
}

/// What a collection holds, without ids that were made.
async fn content(client: &Client, collection: &str) -> (BTreeMap<String, Value>, Vec<Value>) {
    let (mut named, mut unnamed) = (BTreeMap::new(), Vec::new());
    for mut document in results(&export(client, collection, "").await) {
        let id = document["_id"].take().as_str().unwrap().to_owned();
        if id.len() < 9 { named.insert(id, document).map_or((), |_| panic!("twice")) } else { unnamed.push(document) }
    }
    unnamed.sort_by_key(Value::to_string);
    (named, unnamed)
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        6 => (0u8..4, 0u8..4).prop_map(|(id, n)| format!("{{\"_id\":\"id{id}\",\"n\":{n},\"tags\":[{n}]}}")),
        2 => (0u8..4).prop_map(|id| format!("{{\"_id\":\"id{id}\",\"_deleted\":true}}")),
        2 => (0u8..4).prop_map(|n| format!("{{\"n\":{n}}}")),
        1 => Just(String::new()),
        1 => Just(" \t".to_owned()),
        1 => Just(r#"{"_id":"a/b"}"#.to_owned()),
        1 => Just(r#"{"_id":null,"n":1}"#.to_owned()),
        1 => Just(r#"{"_id":"id1","a":1,"a":2}"#.to_owned()),
        1 => Just(r#"{"_id":"id1","n":18446744073709551616}"#.to_owned()),
        1 => Just(format!("{{\"a\":{}1{}}}", "[".repeat(DOCUMENT_DEPTH_MAX), "]".repeat(DOCUMENT_DEPTH_MAX))),
        1 => "[ -~é]{0,12}",
    ];
    prop_oneof![12 => text.prop_map(String::into_bytes), 1 => Just(b"{\"_id\":\"id1\",\"t\":\"\xff\"}".to_vec())]
}

#[test]
fn any_mixture_of_lines_is_what_single_calls_would_give() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = runtime.block_on(Client::new());
    let case = std::cell::Cell::new(0);
    let lines = proptest::collection::vec(line(), 0..40);
    let cuts = proptest::collection::vec(0usize..1_500, 0..20);
    proptest!(ProptestConfig::with_cases(64), |(lines in lines, cuts in cuts)| { runtime.block_on(async {
        case.set(case.get() + 1);
        let [together, apart] = ["together", "apart"].map(|name| format!("{name}{}", case.get()));
        let call = format!("POST /collections/{together}/documents:bulk");
        let answer = client.send(&call, &[LINES], pieces(&lines.join(&b'\n'), &cuts)).await;
        let expected = one_by_one(&client, &apart, &lines).await;
        let found = results(&answer);
        prop_assert_eq!(found.len(), expected.len());
        for (found, (number, status, detail)) in found.iter().zip(expected) {
            prop_assert_eq!((found["line"].as_u64(), found["status"].as_u64()), (Some(number), Some(status)));
            let own = |text: &Value| {
                let text = text.as_str().unwrap_or_default().replace(&format!("(line {number},"), "(line 1,");
                text.replace(&together, &apart)
            };
            prop_assert_eq!(own(&found["detail"]), own(&detail));
        }
        prop_assert_eq!(content(&client, &together).await, content(&client, &apart).await);
        Ok(())
    })?; });
    runtime.block_on(client.peer.shutdown());
}
