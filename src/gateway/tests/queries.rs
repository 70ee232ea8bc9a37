//! Queries and indexes over HTTP.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;

use super::*;
use crate::peer::{Collection, TimeLimit};
use crate::query::Find;

async fn people() -> (Client, Collection) {
    let client = Client::new().await;
    let people = client.peer.collection("people").unwrap();
    for (n, (name, city)) in [("Ada", "Rome"), ("Bo", "Oslo"), ("Cy", "Rome"), ("Di", "Lima")].into_iter().enumerate() {
        people.put(&format!("p{n}"), json!({"name": name, "city": city, "age": 20 + 10 * n})).await.unwrap();
    }
    (client, people)
}

impl Client {
    async fn ask(&self, call: &str, body: Value) -> Answer {
        self.send(call, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Waits until an index is filled.
    async fn ready(&self, path: &str) -> Value {
        for _ in 0..1_000 {
            let index = self.send(&format!("GET {path}"), &[], Body::empty()).await.json();
            if index["stage"] == "ready" {
                return index;
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("the index is never ready");
    }
}

#[tokio::test]
async fn questions_are_answered() {
    let (client, _) = people().await;
    let page = client.ask(
        "POST /collections/people/query",
        json!({"filter": {"city": "Rome"}, "sort": "-age", "projection": {"name": 1}, "limit": 1}),
    );
    let page = page.await;
    assert_eq!(page.status, 200);
    let page = page.json();
    assert_eq!(page["documents"], json!([{"_id": "p2", "name": "Cy"}]));
    let next = json!({"filter": {"city": "Rome"}, "sort": "-age", "cursor": page["next_cursor"]});
    let page = client.ask("POST /collections/people/query", next).await.json();
    assert_eq!(page["documents"][0]["name"], "Ada");
    assert!(page.get("next_cursor").is_none() && page["total_exact"].is_boolean(), "{page}");
    let all = client.send("POST /collections/people/query", &[], Body::empty()).await.json();
    assert_eq!((all["documents"].as_array().unwrap().len(), &all["total_estimate"]), (4, &json!(4)));
    let counted = client.ask("POST /collections/people/count", json!({"filter": {"age": {"$gt": 25}}})).await;
    assert_eq!(counted.json(), json!({"count": 3, "exact": true}));
    let guessed = client.ask("POST /collections/people/count", json!({"estimate": true})).await;
    assert_eq!(guessed.json(), json!({"count": 4, "exact": false}));
    let values = client.ask("POST /collections/people/distinct", json!({"field": "city"})).await;
    assert_eq!(values.json(), json!({"values": ["Lima", "Oslo", "Rome"]}));
    let pipeline =
        json!({"pipeline": [{"$group": {"_id": "$city", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}, {"$limit": 1}]});
    let rows = client.ask("POST /collections/people/aggregate", pipeline).await;
    assert_eq!(rows.json(), json!({"documents": [{"_id": "Lima", "n": 1}]}));
}

#[tokio::test]
async fn a_collection_that_is_not_there_yet_is_empty() {
    let client = Client::new().await;
    let body = json!({"field": "a", "pipeline": [{"$match": {}}]});
    for (call, field, expected) in [
        ("query", None, json!({"documents": [], "total_estimate": 0, "total_exact": true})),
        ("count", None, json!({"count": 0, "exact": true})),
        ("distinct", Some("field"), json!({"values": []})),
        ("aggregate", Some("pipeline"), json!({"documents": []})),
    ] {
        let asked: Value = field.into_iter().map(|field| (field.to_owned(), body[field].clone())).collect();
        let mut expected = expected;
        for exists in [false, true] {
            let collection = if exists { "there" } else { "early" };
            client.send("PUT /collections/there", &[], Body::empty()).await;
            let answer = client.ask(&format!("POST /collections/{collection}/{call}"), asked.clone()).await;
            assert_eq!(answer.status, 200, "{call}");
            expected["collection_exists"] = false.into();
            if exists {
                expected.as_object_mut().unwrap().remove("collection_exists");
            }
            assert_eq!(answer.json(), expected, "{call}");
        }
    }
    let explained = client.ask("POST /collections/early/explain", json!({})).await;
    assert_eq!((explained.status.as_u16(), &explained.json()["collection_exists"]), (200, &json!(false)));
    let page = client.get("/api/v1/collections/early/changes").await.json();
    assert_eq!((&page["changes"], &page["collection_exists"]), (&json!([]), &json!(false)));
    assert_eq!(client.get("/api/v1/collections/early").await.status, 404, "asking makes none");

    let request = axum::http::Request::post("/api/v1/collections/early/query?live=true").header("host", "localhost");
    let response = tower::ServiceExt::oneshot(client.router.clone(), request.body(Body::empty()).unwrap()).await;
    let mut stream = response.unwrap().into_body();
    let first = event(&mut stream).await;
    assert!(first.contains("data: {\"documents\":[],\"collection_exists\":false}\n\n"), "{first}");
    client.peer.collection("early").unwrap().put("a", json!({"n": 1})).await.unwrap();
    let enter = event(&mut stream).await;
    assert!(enter.contains("event: enter\ndata: {\"at\":0,"), "{enter}");
    client.peer.shutdown().await;
}

#[tokio::test]
async fn an_index_is_declared_used_and_dropped() {
    let (client, _) = people().await;
    let path = "/collections/people/indexes/by-city";
    let put = client.ask(&format!("PUT {path}"), json!({"fields": "city,-age"})).await;
    assert_eq!(put.status, 201);
    assert_eq!(put.json()["definition"]["fields"], json!([{"city": 1}, {"age": -1}]));
    assert_eq!(put.json()["outcome"], "created");
    let put = client.ask(&format!("PUT {path}"), json!({"fields": [{"city": 1}, {"age": -1}]})).await;
    assert_eq!((put.status.as_u16(), &put.json()["outcome"]), (200, &json!("unchanged")));
    for fields in ["city", "city,-age"] {
        let put = client.ask(&format!("PUT {path}"), json!({ "fields": fields })).await;
        assert_eq!((put.status.as_u16(), &put.json()["outcome"]), (200, &json!("replaced")), "{fields}");
    }
    let index = client.ready(path).await;
    assert!(index.get("outcome").is_none(), "{index}");
    assert_eq!((&index["keys"], &index["documents"], &index["multiple"]), (&json!(4), &json!(4), &json!(false)));
    let listed = client.send("GET /collections/people/indexes", &[], Body::empty()).await.json();
    assert_eq!(listed["indexes"][0]["name"], "by-city");
    let explained =
        client.ask("POST /collections/people/explain", json!({"filter": {"city": "Rome"}, "hint": "by-city"})).await;
    let explained = explained.json();
    assert_eq!((&explained["documents"], &explained["entries_examined"]), (&json!(2), &json!(2)), "{explained}");
    assert!(explained["plan"].to_string().contains("by-city"));
    // An index comes before the documents, and the collection is there as long as it is.
    let early = client.ask("PUT /collections/later/indexes/i", json!({"fields": "n"})).await;
    assert_eq!((early.status.as_u16(), &early.json()["documents"]), (201, &json!(0)));
    let listed = client.send("GET /collections/later/indexes", &[], Body::empty()).await.json();
    assert_eq!(listed["indexes"][0]["name"], "i");
    assert_eq!(client.send("DELETE /collections/later/indexes/i", &[], Body::empty()).await.status, 204);
    assert_eq!(client.send("GET /collections/later/indexes", &[], Body::empty()).await.status, 404);
    assert_eq!(client.send(&format!("DELETE {path}"), &[], Body::empty()).await.status, 204);
    assert_eq!(client.send(&format!("DELETE {path}"), &[], Body::empty()).await.status, 404);
    assert_eq!(client.send(&format!("GET {path}"), &[], Body::empty()).await.status, 404);
}

#[tokio::test]
async fn a_unique_index_refuses_the_second_one() {
    let (client, _) = people().await;
    let path = "/collections/people/indexes/name";
    client.ask(&format!("PUT {path}"), json!({"fields": "name", "unique": true})).await;
    client.ready(path).await;
    let refused = client.ask("POST /collections/people/documents", json!({"name": "Ada"})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.json()["detail"].as_str().unwrap().contains("unique index name"));
    // Whatever the call, and whether or not it has a precondition that holds.
    let json = ("content-type", "application/json");
    let etag = client.get("/api/v1/collections/people/documents/p1").await.header("etag").to_owned();
    for (call, headers, body) in [
        ("PUT /collections/people/documents/new", vec![], json!({"name": "Ada"})),
        ("PUT /collections/people/documents/new", vec![("if-none-match", "*")], json!({"name": "Ada"})),
        ("PUT /collections/people/documents/p1", vec![("if-match", etag.as_str())], json!({"name": "Ada"})),
        ("PATCH /collections/people/documents/p1", vec![], json!({"$set": {"name": "Ada"}})),
        ("PATCH /collections/people/documents/p1", vec![("if-match", "*")], json!({"$set": {"name": "Ada"}})),
        ("PATCH /collections/people/documents/new?upsert=true", vec![], json!({"$set": {"name": "Ada"}})),
    ] {
        let refused = client.send(call, &[vec![json], headers.clone()].concat(), body.to_string()).await;
        assert_eq!(refused.status, 409, "{call} {headers:?}: {}", refused.json());
    }
    let bulk = client.send(
        "POST /collections/people/documents:bulk",
        &[("content-type", "application/x-ndjson")],
        "{\"name\":\"Ada\"}\n",
    );
    assert!(String::from_utf8(bulk.await.bytes).unwrap().contains("\"status\":409"));
    let failed = client.send("PUT /collections/people/documents/p1", &[json, ("if-none-match", "*")], "{}").await;
    assert_eq!(failed.status, 412, "a precondition that does not hold");
    // An old version may hold what another document has taken meanwhile.
    let old = client.get("/api/v1/collections/people/documents/p0").await.json()["heads"][0].clone();
    assert_eq!(client.ask("PUT /collections/people/documents/p0", json!({"name": "Eve"})).await.status, 200);
    assert_eq!(client.ask("PUT /collections/people/documents/p9", json!({"name": "Ada"})).await.status, 201);
    let restored = client.ask("POST /collections/people/documents/p0/restore", json!({ "at": old })).await;
    assert_eq!(restored.status, 409, "{}", restored.json());
    let conflicts = client.send(&format!("GET {path}/conflicts"), &[], Body::empty()).await;
    assert_eq!(conflicts.json(), json!({"conflicts": []}));
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_place() {
    let (client, _) = people().await;
    let cases = [
        ("POST /collections/people/query", json!({"filter": {"age": {"$gr": 1}}}), 422, Some("age.$gr")),
        ("POST /collections/people/query", json!({"filter": {}, "skip": 1}), 422, Some("skip")),
        ("POST /collections/people/query", json!({"timeout_ms": 0}), 422, Some("timeout_ms")),
        ("POST /collections/people/query", json!({"sort": {"a": 1, "b": 1}}), 422, Some("sort")),
        ("POST /collections/people/query", json!({"cursor": "AAAA"}), 422, Some("cursor")),
        ("POST /collections/people/query", json!({"hint": "none"}), 422, Some("hint")),
        ("POST /collections/people/query?live=true", json!({"offset": 2}), 422, Some("live")),
        ("POST /collections/people/count", json!({"filter": {}, "limit": 1}), 422, Some("limit")),
        ("POST /collections/people/distinct", json!({}), 422, Some("field")),
        ("POST /collections/people/aggregate", json!({"pipeline": [{"$grup": {}}]}), 422, Some("0.$grup")),
        ("POST /collections/people/aggregate", json!([{"$match": {}}]), 422, Some("pipeline")),
        ("POST /collections/people/documents:bulk?mode=patch", json!({}), 400, Some("mode")),
        ("PUT /collections/people/indexes/i", json!({"fields": "a", "uniq": true}), 422, None),
        ("PUT /collections/people/indexes/a%20b", json!({"fields": "a"}), 422, None),
        ("POST /collections/people/query?explain=true", json!({}), 400, Some("explain")),
    ];
    for (call, body, status, field) in cases {
        let answer = client.ask(call, body.clone()).await;
        assert_eq!(answer.status, status, "{call} {body}: {}", String::from_utf8_lossy(&answer.bytes));
        let problem = answer.json();
        assert_eq!(problem.get("field").and_then(Value::as_str), field, "{call} {body}: {problem}");
    }
    let bad = client.send("POST /collections/people/query", &[("content-type", "application/json")], "{").await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn slow_queries_are_told_and_counted_and_those_that_fail_too() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    // For this thread only, on which the whole test runs.
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    // Every query takes longer than the first limit; the second one is none.
    for (slow, expected) in [(Duration::from_nanos(1), 3), (Duration::ZERO, 0)] {
        lines.0.lock().clear();
        let peer = Peer::start(PeerConfig { slow_query: slow, ..PeerConfig::local() }).await.unwrap();
        let router = rest::router(App::new(peer.clone(), Config::default(), 0, None));
        let client = Client { peer, router };
        let many = client.peer.collection("many").unwrap();
        for n in 0..100 {
            many.put(&format!("d{n}"), json!({"n": n})).await.unwrap();
        }
        let filter = json!({"filter": {"n": {"$gte": 7}}});
        assert_eq!(client.ask("POST /collections/many/query", filter.clone()).await.status, 200);
        assert_eq!(client.ask("POST /collections/many/count", filter.clone()).await.json()["count"], 93);
        let find = Find::parse(&filter).unwrap();
        let late = many.find(find, TimeLimit(Duration::ZERO)).await.unwrap_err();
        assert!(late.to_string().contains("time limit"), "{late}");
        let text = lines.text();
        let told: Vec<&str> = text.lines().filter(|line| line.contains("a slow query")).collect();
        assert_eq!(told.len(), expected, "{text}");
        if let [found, counted, late] = told[..] {
            for part in ["WARN", "collection=many", "$gte", "documents=100", "walk"] {
                assert!(found.contains(part), "{part} is not in {found}");
            }
            assert!(!found.contains("error=") && !counted.contains("error="), "{text}");
            assert!(late.contains("time limit") && late.contains("$gte"), "{late}");
        }
        let metrics = String::from_utf8(client.get("/metrics").await.bytes).unwrap();
        assert!(metrics.contains(&format!("\naerolithsdb_slow_queries_total {expected}\n")), "{metrics}");
        client.peer.shutdown().await;
    }
}

/// Reads a stream up to the end of its next event.
async fn event(body: &mut Body) -> String {
    loop {
        let frame = body.frame().await.expect("the stream goes on").unwrap().into_data().unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        if text.contains("data: ") {
            return text;
        }
    }
}

#[tokio::test]
async fn a_live_query_tells_of_its_result_and_of_what_becomes_of_it() {
    let (client, people) = people().await;
    let open = |last: Option<String>| {
        let query = json!({"filter": {"city": "Rome"}, "sort": "-age", "limit": 2}).to_string();
        let request = axum::http::Request::builder()
            .method("POST")
            .uri("/api/v1/collections/people/query?live=true")
            .header("host", "localhost")
            .header("content-type", "application/json");
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        tower::ServiceExt::oneshot(client.router.clone(), request.body(Body::from(query)).unwrap())
    };
    let response = open(None).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (StatusCode::OK, &"text/event-stream".parse().unwrap())
    );
    let mut stream = response.into_body();
    let first = event(&mut stream).await;
    assert!(first.contains("event: result\n") && first.contains("\"name\":\"Cy\""), "{first}");
    people.put("p9", json!({"city": "Rome", "age": 99})).await.unwrap();
    let change = event(&mut stream).await;
    assert!(change.contains("event: leave\ndata: {\"at\":1,\"id\":\"p0\"}\n\n"), "{change}");
    assert!(change.contains("event: enter\ndata: {\"at\":0,"), "{change}");
    let id = change.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(stream);
    let mut stream = open(Some(id.clone())).await.unwrap().into_body();
    assert!(event(&mut stream).await.contains("event: resumed\n"));
    drop(stream);
    people.delete("p9").await.unwrap();
    let mut stream = open(Some(id)).await.unwrap().into_body();
    assert!(event(&mut stream).await.contains("event: result\n"));
    client.peer.shutdown().await;
    assert!(stream.frame().await.is_none());
}
