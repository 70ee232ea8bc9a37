//! Clients that are slow, silent or many, and requests that are not what they seem: real sockets against a real peer.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Peer, wait};

const DOCUMENTS: &str = "/api/v1/collections/docs/documents";
/// Nearly the largest document.
const LARGE: usize = 900_000;

/// Sends something to a peer, as it is.
fn send(peer: &Peer, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(peer.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn head(call: &str, headers: &str) -> String {
    format!("{call} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// The status of an answer, of which nothing more is read.
fn status(stream: &mut TcpStream) -> u16 {
    let mut line = [0; 12];
    stream.read_exact(&mut line).unwrap();
    std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
}

/// Everything until the other side closes, or breaks off.
fn rest(stream: &mut TcpStream) -> String {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                break;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn large(n: usize) -> Value {
    json!({"n": n, "text": char::from(b'a' + u8::try_from(n % 26).unwrap()).to_string().repeat(LARGE)})
}

fn resident(peer: &Peer) -> u64 {
    peer.get("/api/v1/stats").body["memory"]["resident_bytes"].as_u64().unwrap() >> 20
}

/// Megabytes that come and go in a peer of this size.
const SLACK: u64 = 150;

#[test]
fn readers_of_live_queries_that_do_not_read_cost_little_and_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    assert_eq!(peer.put(&format!("{DOCUMENTS}/a"), &large(0)).status, 201);
    let live = |last: &str| {
        let headers = format!("Content-Length: 0\r\n{last}");
        send(&peer, &head("POST /api/v1/collections/docs/query?live=true", &headers))
    };
    let mut silent: Vec<_> = (0..40).map(|_| live("")).collect();
    silent.iter_mut().for_each(|stream| assert_eq!(status(stream), 200));
    let mut reading = live("");
    let before = resident(&peer);
    let writes = 80;
    let reader = std::thread::spawn(move || {
        let (mut seen, mut piece) = (Vec::new(), vec![0; 1 << 20]);
        let last = format!("\"n\":{writes},");
        // Only the end matters; it may stand across two pieces.
        while !seen.windows(last.len()).any(|part| part == last.as_bytes()) {
            let read = reading.read(&mut piece).unwrap();
            assert!(read > 0, "a reader that reads is not cut off");
            let keep = seen.len().saturating_sub(last.len());
            seen.drain(..keep);
            seen.extend_from_slice(&piece[..read]);
        }
    });
    let mut most = before;
    for n in 1..=writes {
        assert_eq!(peer.put(&format!("{DOCUMENTS}/a"), &large(n)).status, 200);
        most = most.max(resident(&peer));
    }
    reader.join().unwrap();
    assert!(most < before + SLACK, "{before} MB before, {most} MB with readers that do not read");
    // Who was cut off has an id to go on from, and starts with what there is now.
    let missed = rest(&mut silent[0]);
    let id = missed.lines().find_map(|line| line.strip_prefix("id: ")).expect("the result has an id").to_owned();
    let mut again = live(&format!("Last-Event-ID: {id}\r\n"));
    let mut begin = vec![0; 4_096];
    let mut text = String::new();
    while !text.contains("event: result") {
        let read = again.read(&mut begin).unwrap();
        text.push_str(&String::from_utf8_lossy(&begin[..read]));
    }
    drop(silent);
}

#[test]
fn answers_that_nobody_reads_are_bounded_and_who_reads_slowly_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    for n in 0..6 {
        assert_eq!(peer.put(&format!("{DOCUMENTS}/{n}"), &large(n)).status, 201);
    }
    let page = head(&format!("GET {DOCUMENTS}"), "Connection: close\r\n");
    let before = resident(&peer);
    let mut slow = send(&peer, &page);
    assert_eq!(status(&mut slow), 200);
    let slowly = std::thread::spawn(move || {
        let (mut read, mut piece) = (0, vec![0; 64 << 10]);
        loop {
            match slow.read(&mut piece).unwrap() {
                0 => return read,
                bytes => read += bytes,
            }
            // Slower than a page in five seconds.
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let mut silent: Vec<_> = (0..200).map(|_| send(&peer, &page)).collect();
    let refused = silent.iter_mut().filter_map(|stream| (status(stream) == 503).then_some(stream)).next();
    let refusal = rest(refused.expect("there is no room for all of them"));
    assert!(refusal.contains("retry-after: "), "{refusal}");
    let most = resident(&peer);
    assert!(most < before + SLACK, "{before} MB before, {most} MB with answers that nobody reads");
    // Writes, and what is small, are answered all the while.
    assert_eq!(peer.put(&format!("{DOCUMENTS}/small"), &json!({})).status, 201);
    assert_eq!(peer.get("/api/v1/collections").status, 200);
    // Those who read nothing make room for those who do.
    wait("a page is answered", || peer.get(DOCUMENTS).status == 200);
    assert!(slowly.join().unwrap() > 4 * LARGE, "who reads slowly gets all of it");
    drop(silent);
    wait("the memory comes back", || resident(&peer) < before + SLACK / 3);
}

#[test]
fn bodies_that_come_slowly_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    let slow = format!("{}{{", head(&format!("PUT {DOCUMENTS}/slow"), "Content-Length: 1000\r\n"));
    // More than there are requests at a time.
    let slow: Vec<_> = (0..600).map(|_| send(&peer, &slow)).collect();
    for n in 0..50 {
        assert_eq!(peer.put(&format!("{DOCUMENTS}/{n}"), &json!({"n": n})).status, 201);
        assert_eq!(peer.get(&format!("{DOCUMENTS}/{n}")).status, 200);
    }
    drop(slow);
}

#[test]
fn large_bodies_at_a_time_are_all_taken() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    // Several times as many as there is room for.
    let written = std::thread::scope(|scope| {
        let put = |n| {
            let peer = &peer;
            move || peer.put(&format!("{DOCUMENTS}/{n}"), &large(n)).status
        };
        let writers: Vec<_> = (0..32).map(|n| scope.spawn(put(n))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(written, [201; 32]);
}

#[test]
fn connections_that_are_kept_open_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    // Half of them are for connections.
    let peer = Peer::start_with_open_files(folder.path(), 600);
    let health = head("GET /health", "");
    let kept: Vec<_> = (0..400)
        .map(|_| {
            let mut stream = send(&peer, &health);
            assert_eq!(status(&mut stream), 200);
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(peer.put(&format!("{DOCUMENTS}/a"), &json!({})).status, 201);
    assert!(start.elapsed() < Duration::from_secs(10), "it waited {:?}", start.elapsed());
    drop(kept);
}

#[test]
fn what_a_request_says_of_its_body_is_believed_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    let put = format!("PUT {DOCUMENTS}/a");
    for (headers, body, expected) in [
        ("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}", 415),
        ("Content-Encoding: Identity\r\nContent-Length: 2\r\n", "{}", 201),
        ("Transfer-Encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n", 501),
        ("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n", 200),
        ("Content-Length: 11\r\n", "{\"n\":1e999}", 422),
        ("Content-Length: 12\r\n", "{\"n\":1e-999}", 422),
    ] {
        let mut stream = send(&peer, &(head(&put, headers) + body));
        assert_eq!(status(&mut stream), expected, "{headers}{body}");
    }
    // Who says that it sends too much is told before it does.
    let start = Instant::now();
    let mut stream = send(&peer, &head(&put, "Content-Length: 2000000\r\n"));
    assert_eq!(status(&mut stream), 413);
    assert!(start.elapsed() < Duration::from_millis(900), "it waited {:?} for the body", start.elapsed());
}

#[test]
fn names_that_no_url_can_say_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    for id in [".", ".."] {
        let answer = peer.post(DOCUMENTS, &json!({ "_id": id }));
        assert_eq!(answer.status, 422, "{answer:?}");
        // An URL library would have gone elsewhere.
        let index = head(&format!("PUT /api/v1/collections/docs/indexes/{id}"), "Content-Length: 16\r\n");
        assert_eq!(status(&mut send(&peer, &format!("{index}{{\"fields\":[\"a\"]}}"))), 422);
    }
    assert_eq!(peer.post(DOCUMENTS, &json!({"_id": "..."})).status, 201);
}

#[test]
fn nobody_waits_for_more_peers_than_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path());
    let start = Instant::now();
    let answer = peer.put(&format!("{DOCUMENTS}/a?w=3&timeout_ms=50000"), &json!({}));
    assert_eq!((answer.status, &answer.body["write_concern"]["complete"]), (202, &json!(false)));
    assert!(start.elapsed() < Duration::from_secs(20), "it waited {:?}", start.elapsed());
}
