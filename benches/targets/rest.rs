//! Works over HTTP: W1b, an import by the real client into a real peer, and W1c, dropping it; W2b, reads through the gateway; W3b, a catch-up of
//! one real peer from another.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aerolithsdb::Peer;
use aerolithsdb::gateway;
use aerolithsdb::kv::Durability;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{DOCUMENTS, Failure, Row, config, data, document, fill, id, rate, unpacked, write_all};

/// Documents of the generated file, where the cities are not to be had.
const GENERATED: usize = 50_000;
/// Documents of W3b, and how long it may take.
const MILLION: usize = 1_000_000;
const CATCH_UP_MAX: Duration = Duration::from_secs(600);
/// Connections of W2b, each with one request at a time.
const CONNECTIONS: usize = 32;
/// Connections of W6b.
const QUERIES_AT_A_TIME: usize = 16;
/// Requests of a connection in one turn.
const REQUESTS: usize = 1_000;
/// Turns of gateway and handler, so that what disturbs the machine meets both.
const TURNS: usize = 4;
/// Bytes of an answer of W2b at most.
const ANSWER_BYTES_MAX: usize = 4_096;

/// A child process, killed when this is dropped.
struct Process(Child);

impl Process {
    /// The most memory that it ever had resident, in bytes; `None` when it has ended.
    fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and needs not.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A durable peer as a process, and the URL of its gateway.
fn peer_process(directory: &Path) -> Result<(Process, String), Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aerolithsdb"));
    command.args(["--rest-port", "0", "--no-mdns", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--data-dir"]);
    let mut peer = Process(command.arg(directory).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let mut lines = BufReader::new(peer.0.stdout.take().ok_or("no output")?).lines();
    while let Some(line) = lines.next().transpose()? {
        if let Some(start) = line.find("http://") {
            let url = line[start..].split_whitespace().next().unwrap_or_default().to_owned();
            // Whatever it prints later must not fill the pipe.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((peer, url));
        }
    }
    Err("the peer ended before it served".into())
}

/// The file to import, what it is, and its text.
fn source(directory: &Path) -> Result<(PathBuf, &'static str, String), Failure> {
    if let Some(path) = data("cities.ndjson.gz") {
        let text = unpacked(&path)?;
        return Ok((path, "W1b import 171,075 cities over REST, durable", text));
    }
    let mut text = Vec::new();
    for n in 0..GENERATED {
        let mut document = document(n);
        document["_id"] = id(n).into();
        writeln!(text, "{document}")?;
    }
    let path = directory.join("generated.ndjson");
    std::fs::write(&path, &text)?;
    Ok((path, "W1b import 50,000 generated documents over REST, durable", String::from_utf8(text)?))
}

/// The client imports a file into a peer, each a process of its own.
pub(super) async fn w1b(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let (path, work, text) = source(directory.path())?;
    let documents: Result<Vec<(&'static str, Value)>, _> =
        text.lines().map(|line| serde_json::from_str(line).map(|document| ("docs", document))).collect();
    let documents = Arc::new(documents?);
    drop(text);
    let (peer, url) = peer_process(&directory.path().join("process"))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_aerolithsdb-cli"));
    command.args(["--url", &url, "import", "docs"]).arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let mut client = Process(command.spawn()?);
    let mut client_peak = 0;
    let status = loop {
        client_peak = client.peak().unwrap_or(0).max(client_peak);
        if let Some(status) = client.0.try_wait()? {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let figure = rate(documents.len(), start.elapsed());
    let peer_peak = peer.peak().ok_or("the peer ended")?;
    let count: Value = ureq::get(format!("{url}/api/v1/collections/docs")).call()?.body_mut().read_json()?;
    if !status.success() || count["documents"] != documents.len() {
        return Err(format!("the client ended with {status}, and the peer has {count}").into());
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_aerolithsdb-cli"));
    command.args(["--url", &url, "collection", "drop", "docs", "--yes"]).stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let dropped = command.status()?;
    let dropping = rate(documents.len(), start.elapsed());
    if !dropped.success() {
        return Err(format!("the dropping of the collection ended with {dropped}").into());
    }
    drop((client, peer));
    let limit = {
        let peer = Peer::start(config(&directory.path().join("here"), Durability::Durable)).await?;
        let start = Instant::now();
        write_all(&peer, &documents).await?;
        let elapsed = start.elapsed();
        peer.shutdown().await;
        rate(documents.len(), elapsed)
    };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    rows.push(Row {
        work,
        figure: format!(
            "{figure:.0}/s; at most {:.0} MB in the peer, {:.0} MB in the client",
            megabytes(peer_peak),
            megabytes(client_peak)
        ),
        target: ">= 12,000/s, memory bounded",
        beside: format!("{:.2} x 16 writers in one process ({limit:.0}/s)", figure / limit),
    });
    rows.push(Row {
        work: "W1c drop that collection again, durable",
        figure: format!("{dropping:.0}/s"),
        target: "as fast as the import",
        beside: format!("{:.2} x the import", dropping / figure),
    });
    Ok(())
}

/// A peer with a million documents, and one that has none and joins: each a process of its own, so that their memory can
/// be told apart.
pub(super) async fn w3b(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("a");
    let peer = Peer::start(config(&path, Durability::Durable)).await?;
    fill(&peer, MILLION, 64).await?;
    peer.shutdown().await;
    drop(peer);
    let (a, a_url) = peer_process(&path)?;
    let (b, b_url) = peer_process(&directory.path().join("b"))?;
    let json = |url: String, body: Value| -> Result<Value, Failure> {
        Ok(ureq::post(url).send_json(body)?.body_mut().read_json()?)
    };
    let ticket = json(format!("{a_url}/api/v1/mesh/invites"), serde_json::json!({}))?["ticket"].clone();
    let start = Instant::now();
    json(format!("{b_url}/api/v1/mesh/join"), serde_json::json!({ "ticket": ticket }))?;
    let stats = loop {
        let stats: Value = ureq::get(format!("{b_url}/api/v1/stats")).call()?.body_mut().read_json()?;
        if stats["documents"] == MILLION {
            break stats;
        }
        if start.elapsed() > CATCH_UP_MAX {
            return Err(format!("the peers did not catch up in {} s: {stats}", CATCH_UP_MAX.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let elapsed = start.elapsed();
    let bytes = stats["traffic"]["received_bytes"].as_f64().ok_or("no traffic")?;
    let peak = |process: &Process| process.peak().map_or(0.0, |bytes| bytes as f64 / 1e6);
    rows.push(Row {
        work: "W3b empty peer catches up 1,000,000",
        figure: format!(
            "{:.0} s, at most {:.0} MB in the sender, {:.0} MB in the receiver",
            elapsed.as_secs_f64(),
            peak(&a),
            peak(&b)
        ),
        target: "<= 45 s, <= 200 MB each, <= 90 B a document",
        beside: format!("{:.1} B a document, 64 of which are its signature", bytes / MILLION as f64),
    });
    Ok(())
}

/// Serves a constant body as the gateway serves its answers: the same library with the same settings, no guard.
async fn constant(body: Bytes) -> Result<std::net::SocketAddr, Failure> {
    let path = "/api/v1/collections/{collection}/documents/{id}";
    let router = Router::new()
        .route(path, get(move || std::future::ready(([(CONTENT_TYPE, "application/json")], body.clone()))));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Without it answers are only later.
            _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(30))
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Ok(address)
}

/// A connection with a request that is made once, but for some digits in it.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    digits: std::ops::Range<usize>,
    answer: Vec<u8>,
}

/// What is asked.
#[derive(Clone, Copy)]
enum Asked {
    /// A document by its id.
    Document,
    /// The one document with a value that an index has.
    Query,
}

impl Asked {
    /// The request, and the digits in it.
    fn request(self, address: std::net::SocketAddr) -> (String, &'static str) {
        match self {
            Self::Document => {
                let path = format!("/api/v1/collections/docs/documents/{}", id(0));
                (format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n"), "0000000")
            }
            Self::Query => {
                // Its numbers are those of the documents from 10000 on.
                let body = r#"{"filter":{"nested.zip":10000}}"#;
                let length = body.len();
                let head = format!("POST /api/v1/collections/docs/query HTTP/1.1\r\nhost: {address}");
                let types = format!("content-type: application/json\r\ncontent-length: {length}");
                (format!("{head}\r\n{types}\r\n\r\n{body}"), "0000}}")
            }
        }
    }
}

impl Connection {
    async fn open(address: std::net::SocketAddr, asked: Asked) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (request, digits) = asked.request(address);
        let start = request.rfind(digits).ok_or("no digits in the request")?;
        let digits = start..start + digits.trim_end_matches('}').len();
        Ok(Self { stream, request: request.into_bytes(), digits, answer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// Reads one document, and returns the body of the answer.
    async fn get(&mut self, n: usize) -> Result<&[u8], Failure> {
        let width = self.digits.len();
        write!(&mut self.request[self.digits.clone()], "{n:0width$}")?;
        self.stream.write_all(&self.request).await?;
        let (mut filled, mut end) = (0, None);
        loop {
            let read = self.stream.read(&mut self.answer[filled..]).await?;
            if read == 0 {
                return Err("the connection was closed, or the answer is too long".into());
            }
            filled += read;
            if end.is_none() {
                end = extent(&self.answer[..filled])?;
            }
            if let Some((body, end)) = end
                && filled >= end
            {
                return Ok(&self.answer[body..end]);
            }
        }
    }
}

/// Where the body of an answer starts and ends; `None` when its head is not complete.
fn extent(answer: &[u8]) -> Result<Option<(usize, usize)>, Failure> {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&answer[..head])?;
    let length = text.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) if text.starts_with("HTTP/1.1 200 ") => Ok(Some((head + 4, head + 4 + length.parse::<usize>()?))),
        _ => Err(format!("an answer that is not 200 or has no length: {text}").into()),
    }
}

/// Latencies of all connections' requests, and the seconds that they took together.
async fn load(
    address: std::net::SocketAddr,
    asked: Asked,
    connections: usize,
    requests: usize,
) -> Result<(Vec<Duration>, f64), Failure> {
    let start = Instant::now();
    let mut tasks = Vec::new();
    for connection in 0..connections {
        tasks.push(tokio::spawn(async move {
            let fault = |error: Failure| error.to_string();
            let mut latencies = Vec::with_capacity(requests);
            let mut open = Connection::open(address, asked).await.map_err(fault)?;
            for n in 0..requests {
                let start = Instant::now();
                open.get((n * connections + connection) * 7_919 % DOCUMENTS).await.map_err(fault)?;
                latencies.push(start.elapsed());
            }
            Ok::<_, String>(latencies)
        }));
    }
    let mut latencies = Vec::with_capacity(connections * requests);
    for task in tasks {
        latencies.append(&mut task.await??);
    }
    Ok((latencies, start.elapsed().as_secs_f64()))
}

/// Reads through the gateway, beside a handler that answers the same bytes every time.
pub(super) async fn w2b(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let peer = Peer::start(config(directory.path(), Durability::Buffered)).await?;
    fill(&peer, DOCUMENTS, 16).await?;
    let gateway = gateway::serve(peer.clone(), gateway::Config { port: 0, ..gateway::Config::default() }).await?;
    let body =
        Bytes::copy_from_slice(Connection::open(gateway.address(), Asked::Document).await?.get(DOCUMENTS / 2).await?);
    let addresses = [gateway.address(), constant(body.clone()).await?];
    for address in addresses {
        load(address, Asked::Document, CONNECTIONS, REQUESTS / 10).await?;
    }
    let mut seconds = [0.0; 2];
    let mut latencies = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for (n, address) in addresses.into_iter().enumerate() {
            let (mut some, took) = load(address, Asked::Document, CONNECTIONS, REQUESTS).await?;
            latencies[n].append(&mut some);
            seconds[n] += took;
        }
    }
    let [(read, read_50, read_99), (raw, raw_50, raw_99)] = [0, 1].map(|n| {
        let latencies = &mut latencies[n];
        latencies.sort_unstable();
        let at = |percent: usize| latencies[latencies.len() * percent / 100].as_secs_f64() * 1e3;
        (latencies.len() as f64 / seconds[n], at(50), at(99))
    });
    rows.push(Row {
        work: "W2b reads over REST, 32 connections",
        figure: format!("{read:.0}/s, p50 {read_50:.2} ms, p99 {read_99:.2} ms"),
        target: ">= 60 % of a constant body, p99 <= 5 ms",
        beside: format!(
            "{:.0} % of a handler with a constant body of {} B ({raw:.0}/s, p50 {raw_50:.2} ms, p99 {raw_99:.2} ms)",
            100.0 * read / raw,
            body.len()
        ),
    });
    gateway.shutdown().await;
    peer.shutdown().await;
    Ok(())
}

/// Queries of one document each through the gateway, by an index.
pub(super) async fn w6b(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let peer = Peer::start(config(directory.path(), Durability::Buffered)).await?;
    fill(&peer, DOCUMENTS, 16).await?;
    super::queries::index(&peer.collection("docs")?, "zip", "nested.zip").await?;
    let gateway = gateway::serve(peer.clone(), gateway::Config { port: 0, ..gateway::Config::default() }).await?;
    let address = gateway.address();
    load(address, Asked::Query, QUERIES_AT_A_TIME, REQUESTS / 10).await?;
    let (mut queried, seconds) = load(address, Asked::Query, QUERIES_AT_A_TIME, REQUESTS).await?;
    let (_, reading) = load(address, Asked::Document, QUERIES_AT_A_TIME, REQUESTS).await?;
    queried.sort_unstable();
    let at = |percent: usize| queried[queried.len() * percent / 100].as_secs_f64() * 1e3;
    rows.push(Row {
        work: "W6b queries by an index over REST, 16 connections",
        figure: format!("{:.0}/s, p50 {:.2} ms, p99 {:.2} ms", queried.len() as f64 / seconds, at(50), at(99)),
        target: ">= 5,000/s",
        beside: format!("{:.0} % of reads by id over the same connections", 100.0 * reading / seconds),
    });
    gateway.shutdown().await;
    peer.shutdown().await;
    Ok(())
}
