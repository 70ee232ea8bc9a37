//! Histories, old versions and restoring, as a client sees them.

use serde_json::{Value, json};

use super::{Answer, Client, assert_problem};

const DOCUMENT: &str = "/collections/users/documents/a";
const AT: &str = "/api/v1/collections/users/documents/a";

impl Client {
    /// Writes versions of one document one after another, and gives the answers. `null` deletes.
    async fn versions(&self, versions: &[Value]) -> Vec<Answer> {
        let mut answers = Vec::new();
        for version in versions {
            let answer = match version.is_null() {
                true => self.send(&format!("DELETE {DOCUMENT}"), &[], "").await,
                false => self.put("a", &version.to_string()).await,
            };
            assert!(answer.status.is_success());
            answers.push(answer);
        }
        answers
    }

    async fn history(&self) -> Vec<Value> {
        let page = self.get(&format!("{DOCUMENT}/history?limit=100")).await.json();
        assert_eq!(page["next_cursor"], Value::Null);
        page["history"].as_array().unwrap().clone()
    }

    async fn restore(&self, headers: &[(&str, &str)], at: &Value) -> Answer {
        self.send(&format!("POST {DOCUMENT}/restore"), headers, json!({ "at": at }).to_string()).await
    }
}

fn head(answer: &Answer) -> String {
    answer.json()["heads"][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_history_tells_of_every_change_the_newest_first() {
    let client = Client::new().await;
    let long = "x".repeat(10_000);
    let versions = [json!({"n": 1}), json!({"n": 2, "a/b": [1]}), json!({"n": 2}), Value::Null, json!({"long": long})];
    let answers = client.versions(&versions).await;
    let history = client.history().await;
    let told: Vec<Value> = history.iter().map(|entry| json!([entry["kind"], entry["changes"]])).collect();
    assert_eq!(
        told,
        [
            json!(["create", [{"path": "", "after_bytes": 10_011}]]),
            json!(["delete", [{"path": "", "before": {"n": 2}}]]),
            json!(["edit", [{"path": "/a~1b", "before": [1]}]]),
            json!(["edit", [{"path": "/n", "before": 1, "after": 2}, {"path": "/a~1b", "after": [1]}]]),
            json!(["create", [{"path": "", "after": {"n": 1}}]]),
        ]
    );
    assert_eq!(history[0]["change"], head(&answers[4]));
    for (index, entry) in history.iter().enumerate() {
        assert_eq!(entry["author"], json!(client.peer.id().to_string()));
        assert!(entry["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!((&entry["merge"], &entry["truncated"]), (&json!(false), &json!(false)));
        let before = history.get(index + 1).map(|before| before["change"].clone());
        assert_eq!(entry["dependencies"], json!(Vec::from_iter(before)));
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_history_is_paged() {
    let client = Client::new().await;
    client.versions(&(0..7).map(|n| json!({ "n": n })).collect::<Vec<_>>()).await;
    let (mut cursor, mut changes, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let page = client.get(&format!("{DOCUMENT}/history?limit=3{cursor}")).await.json();
        changes.extend(page["history"].as_array().unwrap().iter().map(|entry| entry["change"].clone()));
        pages += 1;
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let all: Vec<Value> = client.history().await.into_iter().map(|entry| entry["change"].clone()).collect();
    assert_eq!((changes, pages), (all, 3));
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=!", "cursor=YQ"] {
        assert_problem(&client.get(&format!("{DOCUMENT}/history?{bad}")).await, 400, &format!("{AT}/history"));
    }
    for call in ["history", "conflicts", "diff?from=1970-01-01T00:00:00Z"] {
        let answer = client.get(&format!("/collections/users/documents/none/{call}")).await;
        let path = call.split('?').next().unwrap();
        assert_problem(&answer, 404, &format!("/api/v1/collections/users/documents/none/{path}"));
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn an_old_version_is_read_by_its_heads_or_a_time() {
    let client = Client::new().await;
    let answers = client.versions(&[json!({"n": 1}), json!({"n": 2}), Value::Null, json!({"n": 4})]).await;
    let (first, second) = (head(&answers[0]), head(&answers[1]));
    let old = client.get(&format!("{DOCUMENT}?at={first}")).await;
    let mut expected = answers[0].json();
    // Conflicts are counted of what is shown now.
    assert_eq!(expected.as_object_mut().unwrap().remove("conflict_count"), Some(json!(0)));
    assert_eq!((old.status.as_u16(), old.header("etag"), old.json()), (200, answers[0].header("etag"), expected));
    let known = [("if-none-match", answers[0].header("etag"))];
    assert_eq!(client.send(&format!("GET {DOCUMENT}?at={first}"), &known, "").await.status, 304);
    // Heads that are in the past of others add nothing.
    let both = client.get(&format!("{DOCUMENT}?at={first},{second}")).await.json();
    assert_eq!((&both["data"], &both["heads"]), (&json!({"n": 2}), &json!([second])));
    let now = client.get(&format!("{DOCUMENT}?at=9999-12-31T23:59:59Z")).await.json();
    assert_eq!(now, client.get(DOCUMENT).await.json());

    let deleted = client.history().await[1]["change"].as_str().unwrap().to_owned();
    let unknown = "ab".repeat(32);
    for gone in [deleted.as_str(), unknown.as_str(), "1999-12-31T23:59:59%2B01:00"] {
        let problem = assert_problem(&client.get(&format!("{DOCUMENT}?at={gone}")).await, 404, AT);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("users/a") && detail.contains(&unknown) == (gone == unknown), "{detail}");
    }
    for bad in ["", "now", "ab", "2026-11-25", "2026-02-30T00:00:00Z", &format!("{first},")] {
        let problem = assert_problem(&client.get(&format!("{DOCUMENT}?at={bad}")).await, 400, AT);
        assert_eq!(problem["field"], "at");
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn versions_are_compared() {
    let client = Client::new().await;
    let answers = client.versions(&[json!({"n": 1, "l": [1, 2]}), json!({"n": 1, "l": [2]}), Value::Null]).await;
    let (first, second) = (head(&answers[0]), head(&answers[1]));
    let diff = client.get(&format!("{DOCUMENT}/diff?from={first}&to={second}")).await.json();
    let expected =
        json!({"from": [first], "to": [second], "changes": [{"path": "/l/0", "before": 1}], "truncated": false});
    assert_eq!(diff, expected);
    let back = client.get(&format!("{DOCUMENT}/diff?from={second}&to={first}&format=json-patch")).await;
    assert_eq!(back.header("content-type"), "application/json-patch+json");
    assert_eq!(back.json(), json!([{"op": "add", "path": "/l/0", "value": 1}]));
    // To the present, in which it is deleted.
    let gone = client.get(&format!("{DOCUMENT}/diff?from={second}")).await.json();
    assert_eq!(gone["changes"], json!([{"path": "", "before": {"n": 1, "l": [2]}}]));
    let made = client.get(&format!("{DOCUMENT}/diff?from=2000-01-01T00:00:00Z&to={second}&format=json-patch")).await;
    assert_eq!(made.json(), json!([{"op": "add", "path": "", "value": {"n": 1, "l": [2]}}]));
    for bad in ["", "?from=x", "?from=2000-01-01T00:00:00Z&to=x", "?from=2000-01-01T00:00:00Z&format=xml"] {
        assert_problem(&client.get(&format!("{DOCUMENT}/diff{bad}")).await, 400, &format!("{AT}/diff"));
    }
    client.peer.shutdown().await;
}

#[tokio::test]
async fn an_old_version_is_written_again() {
    let client = Client::new().await;
    let answers = client.versions(&[json!({"n": 1, "kept": true}), json!({"n": 2, "kept": true})]).await;
    let first = json!(head(&answers[0]));
    let stale = client.restore(&[("if-match", answers[0].header("etag"))], &first).await;
    assert_problem(&stale, 412, &format!("{AT}/restore"));
    let restored = client.restore(&[("if-match", answers[1].header("etag"))], &first).await;
    assert_eq!((restored.status.as_u16(), &restored.json()["data"]), (200, &answers[0].json()["data"]));
    assert_eq!(restored.header("etag"), client.get(DOCUMENT).await.header("etag"));
    // The smallest edit: what is equal is left alone.
    assert_eq!(client.history().await[0]["changes"], json!([{"path": "/n", "before": 2, "after": 1}]));
    let again = client.restore(&[], &first).await;
    assert_eq!((again.status.as_u16(), again.header("etag")), (200, restored.header("etag")));

    client.versions(&[Value::Null]).await;
    let revived = client.restore(&[], &answers[1].json()["heads"]).await;
    assert_eq!((revived.status.as_u16(), &revived.json()["data"]), (201, &answers[1].json()["data"]));
    assert_eq!(revived.header("location"), AT);
    let deleted = client.history().await[1]["change"].clone();
    assert_problem(&client.restore(&[], &deleted).await, 404, &format!("{AT}/restore"));
    assert_problem(&client.restore(&[], &json!("ab".repeat(32))).await, 404, &format!("{AT}/restore"));
    assert_problem(&client.restore(&[], &json!("yesterday")).await, 400, &format!("{AT}/restore"));
    assert_problem(&client.restore(&[], &json!(7)).await, 422, &format!("{AT}/restore"));
    client.peer.shutdown().await;
}

#[tokio::test]
async fn a_document_of_one_author_has_no_conflicts() {
    let client = Client::new().await;
    client.versions(&[json!({"n": 1}), json!({"n": 2})]).await;
    let answer = client.get(&format!("{DOCUMENT}/conflicts")).await.json();
    assert_eq!(answer, json!({"conflicts": [], "truncated": false}));
    client.versions(&[Value::Null]).await;
    assert_problem(&client.get(&format!("{DOCUMENT}/conflicts")).await, 404, &format!("{AT}/conflicts"));
    client.peer.shutdown().await;
}

#[tokio::test]
async fn parameters_that_a_call_does_not_take_are_refused() {
    let client = Client::new().await;
    client.put("a", "{}").await;
    for (call, name, takes) in [
        ("GET /collections/users/documents/a?a%74=x&w=1", "w", "at"),
        ("HEAD /collections/users/documents/a?w=1", "w", "at"),
        ("PUT /collections/users/documents/a?W=1", "W", "w, timeout_ms"),
        ("POST /collections/users/documents?At=1", "At", "w, timeout_ms"),
        ("DELETE /collections/users/documents/a?%61t=1", "at", "w, timeout_ms"),
        ("GET /collections/users/documents?limits=1", "limits", "limit, cursor, start_after"),
        ("GET /collections?limits=1", "limits", "limit, cursor"),
        ("GET /stats?x", "x", "no parameters"),
        ("GET /health?x", "x", "no parameters"),
        ("POST /mesh/invites?role=reader", "role", "no parameters"),
        ("GET /collections/users/documents/a/diff?since=1", "since", "from, to, format"),
    ] {
        let answer = client.send(call, &[], "{}").await;
        assert_eq!(answer.status, 400, "{call}");
        if call.starts_with("HEAD") {
            continue;
        }
        let body = answer.json();
        assert_eq!(body["field"], name, "{call}");
        assert!(
            body["detail"].as_str().unwrap().ends_with(&format!("takes {takes}")) || takes.starts_with("no"),
            "{body}"
        );
    }
    assert_eq!(client.get("/collections/users/documents/a?").await.status, 200);
    assert_eq!(client.send("PATCH /collections?x=1", &[], "").await.status, 405);
    assert_eq!(client.get("/nothing?x=1").await.status, 404);
    client.peer.shutdown().await;
}
