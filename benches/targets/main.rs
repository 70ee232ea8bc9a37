//! The works by which this database is measured, beside the raw limits of the same run.
//!
//! `cargo bench --bench targets` runs all of them and prints a table; `cargo bench --bench targets -- w1 w5`
//! runs some. Absolute figures depend on the machine: the last column sets each beside what the disk, the
//! network or a library leaves in the same run.
//!
//! - `rest` works over HTTP: an import into a peer process, reads
//! - `edits` one document that was changed often
//! - `queries` with and without indexes
//! - `collections` many of them

mod collections;
mod edits;
mod queries;
mod rest;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aerolithsdb::access::Role;
use aerolithsdb::kv::Durability;
use aerolithsdb::peer::Invite;
use aerolithsdb::{Event, LocalDocuments, Peer, PeerConfig};
use serde_json::{Value, json};

use self::collections::w8;
use self::edits::w7;
use self::queries::{live, places, w6};
use self::rest::{w1b, w2b, w3b, w6b};

/// Documents of most works.
const DOCUMENTS: usize = 10_000;

type Failure = Box<dyn std::error::Error>;

/// One row of the table.
struct Row {
    work: &'static str,
    figure: String,
    target: &'static str,
    beside: String,
}

/// The document of all works: about 245 bytes of JSON.
fn document(n: usize) -> Value {
    json!({
        "name": format!("Person Number {n}"), "age": 18 + n % 60, "city": format!("City {}", n % 500),
        "tags": ["alpha", "beta", format!("tag{}", n % 10)],
        "nested": {"street": format!("{n} Long Street"), "zip": 10_000 + n, "active": n.is_multiple_of(2), "score": n as f64 * 0.5,
                   "note": "some words to fill the space"},
    })
}

fn id(n: usize) -> String {
    format!("doc-{n:07}")
}

fn config(directory: &Path, durability: Durability) -> PeerConfig {
    PeerConfig { data_dir: Some(directory.to_owned()), durability, ..PeerConfig::local() }
}

async fn fill(peer: &Peer, count: usize, writers: usize) -> Result<Duration, Failure> {
    let collection = peer.collection("docs")?;
    let start = Instant::now();
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let collection = collection.clone();
        tasks.push(tokio::spawn(async move {
            for n in (writer..count).step_by(writers) {
                collection.put(&id(n), document(n)).await?;
            }
            Ok::<_, aerolithsdb::Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(start.elapsed())
}

fn rate(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Appends of 256 bytes, each with its fdatasync: what one durable writer cannot beat.
fn raw_appends(directory: &Path) -> Result<f64, Failure> {
    let mut file = File::create(directory.join("raw"))?;
    let start = Instant::now();
    for _ in 0..2_000 {
        file.write_all(&[7; 256])?;
        file.sync_data()?;
    }
    Ok(rate(2_000, start.elapsed()))
}

async fn w1(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let raw = raw_appends(directory.path())?;
    let works = [
        ("W1 insert 10,000, one writer, durable", ">= 4,000/s", 1, Durability::Durable),
        ("W1 insert 10,000, 16 writers, durable", ">= 12,000/s", 16, Durability::Durable),
        ("W1 insert 10,000, one writer, buffered", ">= 15,000/s", 1, Durability::Buffered),
    ];
    for (number, (work, target, writers, durability)) in works.into_iter().enumerate() {
        let peer = Peer::start(config(&directory.path().join(number.to_string()), durability)).await?;
        let figure = rate(DOCUMENTS, fill(&peer, DOCUMENTS, writers).await?);
        peer.shutdown().await;
        let beside = format!("{:.2} x raw append + fdatasync ({raw:.0}/s)", figure / raw);
        rows.push(Row { work, figure: format!("{figure:.0}/s"), target, beside });
    }
    Ok(())
}

async fn w2(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let peer = Peer::start(config(directory.path(), Durability::Buffered)).await?;
    fill(&peer, DOCUMENTS, 16).await?;
    peer.shutdown().await;
    drop(peer);
    let peer = Peer::start(config(directory.path(), Durability::Buffered)).await?;
    let collection = peer.collection("docs")?;
    let ids: Vec<String> = (0..DOCUMENTS).map(|n| id(n * 7_919 % DOCUMENTS)).collect();
    let parse = {
        let text = serde_json::to_vec(&document(1))?;
        let start = Instant::now();
        for _ in 0..100_000 {
            std::hint::black_box(serde_json::from_slice::<Value>(&text)?);
        }
        rate(100_000, start.elapsed())
    };
    for parsed in [false, true] {
        let start = Instant::now();
        for id in ids.iter().cycle().take(20 * DOCUMENTS) {
            let found = collection.get(id)?.ok_or("a document is missing")?;
            if parsed {
                std::hint::black_box(found.data());
            } else {
                std::hint::black_box(found.json().len());
            }
        }
        let figure = rate(20 * DOCUMENTS, start.elapsed());
        let (work, target) = if parsed {
            ("W2 point reads, parsed to values", "-")
        } else {
            ("W2 point reads, as JSON text", ">= 300,000/s")
        };
        let beside = format!("{:.2} x parsing the JSON alone ({parse:.0}/s)", figure / parse);
        rows.push(Row { work, figure: format!("{figure:.0}/s"), target, beside });
    }
    peer.shutdown().await;
    Ok(())
}

async fn wait_for(peer: &Peer, mut done: impl FnMut() -> bool) -> Result<(), Failure> {
    let mut events = peer.events();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        if Instant::now() > deadline {
            return Err("the peers did not catch up in 120 s".into());
        }
        // Lagging is of no concern: the condition is checked again.
        let _: Result<_, _> = tokio::time::timeout(Duration::from_millis(1), events.recv()).await;
    }
    Ok(())
}

async fn wait_in_sync(peer: &Peer) -> Result<(), Failure> {
    for _ in 0..30_000 {
        let status = peer.mesh().status().await?;
        if !status.neighbours.is_empty() && status.neighbours.iter().all(|neighbour| neighbour.in_sync) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err("the peers were not in sync in 60 s".into())
}

fn bytes(peer: &Peer, traffic: (u64, u64)) -> (u64, u64) {
    let now = peer.traffic();
    (now.received_bytes - traffic.0, now.sent_bytes - traffic.1)
}

/// A and B in one mesh with the same documents.
async fn pair(directory: &Path, count: usize) -> Result<(Peer, Peer), Failure> {
    let a = Peer::start(config(&directory.join("a"), Durability::Buffered)).await?;
    let b = Peer::start(config(&directory.join("b"), Durability::Buffered)).await?;
    let ticket = a.mesh().invite(Invite { role: Role::Writer, ..Invite::default() }).await?;
    b.mesh().join(&ticket.to_string(), LocalDocuments::Leave).await?;
    fill(&a, count, 16).await?;
    let collection = b.collection("docs")?;
    wait_for(&b, || collection.count().is_ok_and(|n| n == count as u64)).await?;
    wait_in_sync(&a).await?;
    wait_in_sync(&b).await?;
    Ok((a, b))
}

async fn w3(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let a = Peer::start(config(&directory.path().join("a"), Durability::Durable)).await?;
    fill(&a, DOCUMENTS, 16).await?;
    let ticket = a.mesh().invite(Invite::default()).await?.to_string();
    let b = Peer::start(config(&directory.path().join("b"), Durability::Durable)).await?;
    let collection = b.collection("docs")?;
    let start = Instant::now();
    b.mesh().join(&ticket, LocalDocuments::Leave).await?;
    wait_for(&b, || collection.count().is_ok_and(|n| n == DOCUMENTS as u64)).await?;
    let elapsed = start.elapsed();
    let (received, sent) = bytes(&b, (0, 0));
    let verify = {
        let key = aerolithsdb::identity::Keypair::from_seed([1; 32]);
        let signature = key.sign("bench", &[7; 256]);
        let start = Instant::now();
        for _ in 0..2_000 {
            aerolithsdb::identity::verify(&key.peer_id(), "bench", &[7; 256], &signature)?;
        }
        start.elapsed().as_secs_f64() / 2_000.0
    };
    let beside = format!(
        "{:.1} x checking the signatures on one core ({:.2} s)",
        elapsed.as_secs_f64() / (verify * DOCUMENTS as f64),
        verify * DOCUMENTS as f64
    );
    let figure = format!("{:.2} s, {:.2} MB", elapsed.as_secs_f64(), (received + sent) as f64 / 1e6);
    rows.push(Row { work: "W3 empty peer catches up 10,000", figure, target: "<= 0.9 s, <= 3.0 MB", beside });
    a.shutdown().await;
    b.shutdown().await;
    Ok(())
}

async fn w4(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let (a, b) = pair(directory.path(), DOCUMENTS).await?;
    b.shutdown().await;
    drop(b);
    let docs = a.collection("docs")?;
    for n in 0..100 {
        let mut body = document(n * 97);
        body["age"] = json!(99);
        docs.put(&id(n * 97), body).await?;
    }
    let before = a.traffic();
    let b = Peer::start(config(&directory.path().join("b"), Durability::Buffered)).await?;
    let start = Instant::now();
    let theirs = b.collection("docs")?;
    let changed = |n: usize| theirs.get(&id(n * 97)).ok().flatten().is_some_and(|d| d.data()["age"] == 99);
    let mut seen = 0;
    wait_for(&b, || {
        while seen < 100 && changed(seen) {
            seen += 1;
        }
        seen == 100
    })
    .await?;
    let elapsed = start.elapsed();
    let (received, sent) = bytes(&a, (before.received_bytes, before.sent_bytes));
    let figure = format!("{:.0} ms, {:.1} KB", elapsed.as_secs_f64() * 1e3, (received + sent) as f64 / 1e3);
    let beside = "from the start of dialing, handshakes included".into();
    rows.push(Row { work: "W4 100 of 10,000 changed while apart", figure, target: "<= 40 ms, <= 50 KB", beside });
    a.shutdown().await;
    b.shutdown().await;
    Ok(())
}

async fn w4b(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let (a, b) = pair(directory.path(), 10 * DOCUMENTS).await?;
    b.shutdown().await;
    drop(b);
    let before = a.traffic();
    let start = Instant::now();
    let b = Peer::start(config(&directory.path().join("b"), Durability::Buffered)).await?;
    let serving = start.elapsed();
    wait_in_sync(&b).await?;
    let elapsed = start.elapsed() - serving;
    let (received, sent) = bytes(&a, (before.received_bytes, before.sent_bytes));
    let figure = format!("{} B, {:.0} ms", received + sent, elapsed.as_secs_f64() * 1e3);
    let beside = "all of the session: greeting with membership, question, answer".into();
    rows.push(Row {
        work: "W4b reconnect in sync, 100,000",
        figure,
        target: "1 round trip, < 1 KB a collection",
        beside,
    });
    let figure = format!("{:.2} s", serving.as_secs_f64());
    rows.push(Row { work: "start with 100,000 documents", figure, target: "<= 1 s", beside: String::new() });
    a.shutdown().await;
    b.shutdown().await;
    Ok(())
}

async fn w5(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let raw = raw_appends(directory.path())?;
    let a = Peer::start(config(&directory.path().join("a"), Durability::Durable)).await?;
    let b = Peer::start(config(&directory.path().join("b"), Durability::Durable)).await?;
    let ticket = a.mesh().invite(Invite::default()).await?.to_string();
    b.mesh().join(&ticket, LocalDocuments::Leave).await?;
    let (docs, theirs) = (a.collection("docs")?, b.collection("docs")?);
    let mut events = b.events();
    // The first seconds let gossip find its topics.
    let mut latencies = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for n in 0..700 {
        ticks.tick().await;
        let start = Instant::now();
        docs.put(&id(n), document(n)).await?;
        loop {
            let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await??;
            if matches!(&event, Event::Changed { document, .. } if document.id.as_str() == id(n)) {
                break;
            }
        }
        theirs.get(&id(n))?.ok_or("announced and not readable")?;
        if n >= 200 {
            latencies.push(start.elapsed());
        }
    }
    latencies.sort();
    let at = |percent: usize| latencies[latencies.len() * percent / 100].as_secs_f64() * 1e3;
    let figure = format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
    let beside = format!("raw append + fdatasync {:.2} ms, twice on the way", 1e3 / raw);
    rows.push(Row { work: "W5 write at A until readable at B", figure, target: "p50 <= 1.5 ms, p99 <= 4 ms", beside });
    a.shutdown().await;
    b.shutdown().await;
    Ok(())
}

/// Where the large data sets are: `AEROLITHSDB_DATA`, or beside the project.
fn data(name: &str) -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("AEROLITHSDB_DATA").map_or_else(|| "../shared/data".into(), std::path::PathBuf::from);
    Some(folder.join(name)).filter(|path| path.exists())
}

/// What is in a gzip file of text.
fn unpacked(path: &Path) -> Result<String, Failure> {
    let output = std::process::Command::new("gunzip").arg("-c").arg(path).output()?;
    if !output.status.success() {
        return Err(format!("gunzip -c {}: {}", path.display(), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Writes documents with 16 writers, each into its collection.
async fn write_all(peer: &Peer, documents: &Arc<Vec<(&'static str, Value)>>) -> Result<(), Failure> {
    let mut writers = Vec::new();
    for writer in 0..16 {
        let (peer, documents) = (peer.clone(), documents.clone());
        writers.push(tokio::spawn(async move {
            for (collection, document) in documents.iter().skip(writer).step_by(16) {
                peer.collection(collection)?.insert(document.clone()).await?;
            }
            Ok::<_, aerolithsdb::Error>(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    Ok(())
}

/// The countries and the cities of the world, written into one peer, are on the other with equal content.
async fn cities(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let Some(path) = data("cities.ndjson.gz") else {
        eprintln!("cities: skipped, cities.ndjson.gz is not in AEROLITHSDB_DATA");
        return Ok(());
    };
    let mut places: Vec<(&'static str, Value)> = Vec::new();
    let countries = include_str!("../../examples/data/countries.ndjson");
    for (name, text) in [("countries", countries), ("cities", &unpacked(&path)?)] {
        for line in text.lines() {
            places.push((name, serde_json::from_str(line)?));
        }
    }
    let directory = tempfile::tempdir()?;
    let a = Peer::start(config(&directory.path().join("a"), Durability::Durable)).await?;
    let b = Peer::start(config(&directory.path().join("b"), Durability::Durable)).await?;
    let ticket = a.mesh().invite(Invite::default()).await?.to_string();
    b.mesh().join(&ticket, LocalDocuments::Leave).await?;
    let places = Arc::new(places);
    let start = Instant::now();
    write_all(&a, &places).await?;
    let written = start.elapsed();
    let complete =
        || Ok::<_, aerolithsdb::Error>(b.collection("countries")?.count()? + b.collection("cities")?.count()?);
    wait_for(&b, || complete().is_ok_and(|count| count == places.len() as u64)).await?;
    let arrived = start.elapsed();
    for (collection, place) in places.iter() {
        let id = place["_id"].as_str().ok_or("a place without _id")?;
        let mut found = b.collection(collection)?.get(id)?.ok_or_else(|| format!("{id} is missing"))?.data();
        found["_id"] = json!(id);
        if found != *place {
            return Err(format!("{id} differs").into());
        }
    }
    let figure = format!(
        "written at {:.0}/s, equal on the other {:.1} s after the last",
        rate(places.len(), written),
        (arrived - written).as_secs_f64()
    );
    rows.push(Row {
        work: "252 countries and 171,075 cities to another peer",
        figure,
        target: "equal",
        beside: String::new(),
    });
    a.shutdown().await;
    b.shutdown().await;
    Ok(())
}

/// Resident bytes of this process.
fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse::<u64>()? * 1_024)
}

/// Memory of a process that does nothing but open 100,000 documents and scan them.
async fn memory(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let peer = Peer::start(config(directory.path(), Durability::Buffered)).await?;
    fill(&peer, 10 * DOCUMENTS, 16).await?;
    peer.shutdown().await;
    drop(peer);
    let output = std::process::Command::new(std::env::current_exe()?).arg("scan").arg(directory.path()).output()?;
    let figure = String::from_utf8(output.stdout)?.trim().to_owned();
    rows.push(Row {
        work: "memory with 100,000, after a restart and a scan",
        figure,
        target: "<= 300 MB",
        beside: String::new(),
    });
    Ok(())
}

async fn scan(directory: &Path) -> Result<(), Failure> {
    let peer = Peer::start(config(directory, Durability::Durable)).await?;
    let collection = peer.collection("docs")?;
    let (mut after, mut count) = (None, 0);
    loop {
        let page = collection.page(after.as_ref(), 1_000)?;
        count += page.documents.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    println!("{:.0} MB resident ({count} documents)", resident()? as f64 / 1e6);
    peer.shutdown().await;
    Ok(())
}

/// With the allocator as in the peer's program.
fn main() -> Result<(), Failure> {
    aerolithsdb::cli::settle_allocator();
    run()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [command, directory] = arguments.as_slice()
        && command == "scan"
    {
        return scan(Path::new(directory)).await;
    }
    if let [command, directory] = arguments.as_slice()
        && command == "open"
    {
        return collections::open(Path::new(directory)).await;
    }
    let wanted = |work: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == work);
    let mut rows = Vec::new();
    macro_rules! run {
        ($($work:ident),*) => {
            $(if wanted(stringify!($work)) {
                eprintln!("{} ...", stringify!($work));
                if let Err(error) = $work(&mut rows).await {
                    eprintln!("{}: {error}", stringify!($work));
                }
            })*
        };
    }
    run!(w1, w1b, w2, w2b, w3, w3b, w4, w4b, w5, w6, w6b, live, w7, w8, memory, cities, places);
    println!("| work | measured | target | beside the raw limit of the same run |\n|---|---|---|---|");
    for Row { work, figure, target, beside } in rows {
        println!("| {work} | {figure} | {target} | {beside} |");
    }
    Ok(())
}
