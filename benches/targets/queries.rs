//! Queries with and without an index, beside a bare pass over the stored documents.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aerolithsdb::base::Incarnation;
use aerolithsdb::index::Definition;
use aerolithsdb::kv::{self, Durability, StorageConfig};
use aerolithsdb::peer::TimeLimit;
use aerolithsdb::query::Find;
use aerolithsdb::query::aggregate::Pipeline;
use aerolithsdb::store::{Loss, Progress, Store};
use aerolithsdb::{Collection, Peer, PeerConfig};
use serde_json::{Value, json};

use super::{DOCUMENTS, Failure, Row, config, data, fill, unpacked, write_all};

/// The middle of several times.
async fn median<F: Future<Output = aerolithsdb::Result<usize>>>(
    times: usize,
    mut run: impl FnMut(usize) -> F,
) -> Result<Duration, Failure> {
    let mut took = Vec::new();
    for n in 0..times {
        let start = Instant::now();
        black_box(run(n).await?);
        took.push(start.elapsed());
    }
    took.sort();
    Ok(took[times / 2])
}

async fn find(collection: &Collection, query: Value) -> aerolithsdb::Result<usize> {
    Ok(collection.find(Find::parse(&query)?, TimeLimit::default()).await?.documents.len())
}

async fn aggregate(collection: &Collection, pipeline: Value) -> aerolithsdb::Result<usize> {
    Ok(collection.aggregate(Pipeline::parse(&pipeline)?, TimeLimit::default()).await?.len())
}

/// A bare pass over the stored documents of a peer that is not running: each is checked against its checksum, and its
/// bytes are added up.
fn bare(directory: &Path, collection: &str) -> Result<Duration, Failure> {
    let (disk, _) = kv::open(directory, &StorageConfig::default())?;
    let store = Store::open(Arc::new(disk), Incarnation([0; 8]), Loss::Nothing)?;
    let mut took = Vec::new();
    for _ in 0..9 {
        let (start, mut bytes) = (Instant::now(), 0);
        store.reader().views(&collection.parse()?, None, &mut |_, view| {
            bytes += view.map_or(&[][..], |view| view.json).iter().map(|byte| u64::from(*byte)).sum::<u64>();
            ControlFlow::Continue(())
        })?;
        black_box(bytes);
        took.push(start.elapsed());
    }
    took.sort();
    Ok(took[took.len() / 2])
}

/// Declares an index, and waits until it is filled and measured.
pub(super) async fn index(collection: &Collection, name: &str, fields: &str) -> Result<Duration, Failure> {
    let start = Instant::now();
    collection.put_index(name.parse()?, Definition::parse(&json!({ "fields": fields }))?).await?;
    while collection.indexes()?.iter().any(|index| index.progress != Progress::Ready) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(start.elapsed())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What was measured, until there is something to set it beside.
struct Measured {
    work: &'static str,
    took: Duration,
    target: &'static str,
}

/// Ends a peer, and sets what was measured on it beside a bare pass over its documents.
async fn set_beside(
    rows: &mut Vec<Row>,
    (peer, collection): (Peer, Collection),
    directory: &Path,
    measured: Vec<Measured>,
) -> Result<(), Failure> {
    let name = collection.name().to_string();
    peer.shutdown().await;
    drop((peer, collection));
    let reference = bare(directory, &name)?;
    for Measured { work, took, target } in measured {
        let share = took.as_secs_f64() / reference.as_secs_f64();
        let beside = format!("{share:.3} x a bare pass over the documents ({:.2} ms)", ms(reference));
        rows.push(Row { work, figure: format!("{:.3} ms", ms(took)), target, beside });
    }
    Ok(())
}

pub(super) async fn w6(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let peer = Peer::start(config(directory.path(), Durability::Buffered)).await?;
    fill(&peer, DOCUMENTS, 16).await?;
    let docs = peer.collection("docs")?;
    let query = |n: usize| json!({"filter": {"age": {"$gte": 40}, "city": format!("City {}", n % 500)}, "sort": {"name": 1}, "limit": 100});
    let mut measured = Vec::new();
    let mut add = |work, took, target| measured.push(Measured { work, took, target });
    let without = median(51, |n| find(&docs, query(n))).await?;
    add("W6 of 10,000: age and city, sorted by name, no index", without, "<= 6 ms");
    index(&docs, "city-name", "city,name").await?;
    let with = median(501, |n| find(&docs, query(n))).await?;
    add("W6 the same by an index of city and name", with, "<= 0.4 ms");
    set_beside(rows, (peer, docs), directory.path(), measured).await
}

/// Writes while a thousand queries stay, each of which is about a tenth of a percent of them.
pub(super) async fn live(rows: &mut Vec<Row>) -> Result<(), Failure> {
    const QUERIES: usize = 1_000;
    const WRITES: usize = 4_000;
    let peer = Peer::start(PeerConfig::local()).await?;
    let docs = peer.collection("docs")?;
    let write = async |round: usize| -> Result<Duration, Failure> {
        let start = Instant::now();
        for n in 0..WRITES {
            docs.put(&format!("{}", n % 1_000), json!({"of": n % QUERIES, "n": round * WRITES + n})).await?;
        }
        Ok(start.elapsed())
    };
    write(0).await?;
    let alone = write(1).await?;
    let mut heard = Vec::new();
    for n in 0..QUERIES {
        let find = Find::parse(&json!({"filter": {"of": n}, "sort": "-n", "limit": 10}))?;
        let mut query = docs.live(find, TimeLimit::default()).await?;
        heard.push(tokio::spawn(async move {
            let (mut changes, mut last) = (0, Instant::now());
            while changes < WRITES / QUERIES {
                let Some(change) = query.next().await else { break };
                changes += change.events.len();
                last = Instant::now();
            }
            last
        }));
    }
    let beside = write(2).await?;
    let end = Instant::now();
    let mut late = Duration::ZERO;
    for task in heard {
        late = late.max(task.await?.saturating_duration_since(end));
    }
    let each = |took: Duration| took.as_secs_f64() * 1e6 / WRITES as f64;
    rows.push(Row {
        work: "W6c writes with 1,000 live queries, each change in one of them",
        figure: format!("{:.1} us a write, all told {:.1} ms after the last", each(beside), ms(late)),
        target: "not a thousand scans",
        beside: format!("{:.2} x without live queries ({:.1} us)", each(beside) / each(alone), each(alone)),
    });
    peer.shutdown().await;
    Ok(())
}

pub(super) async fn places(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let Some(path) = data("cities.ndjson.gz") else {
        eprintln!("places: skipped, cities.ndjson.gz is not in AEROLITHSDB_DATA");
        return Ok(());
    };
    let text = unpacked(&path)?;
    let all: Vec<(&'static str, Value)> =
        text.lines().map(|line| Ok(("cities", serde_json::from_str(line)?))).collect::<Result<_, Failure>>()?;
    let countries: Vec<Value> = all.iter().step_by(1_777).map(|(_, city)| city["country"].clone()).collect();
    let names: Vec<Value> = all.iter().step_by(333).map(|(_, city)| city["name"].clone()).collect();
    let directory = tempfile::tempdir()?;
    let peer = Peer::start(config(directory.path(), Durability::Buffered)).await?;
    write_all(&peer, &all.into()).await?;
    let cities = peer.collection("cities")?;
    let country = |n: usize| countries[n % countries.len()].clone();
    let mut measured = Vec::new();
    let mut add = |work, took, target| measured.push(Measured { work, took, target });
    let unindexed =
        |n| find(&cities, json!({"filter": {"country": country(n), "admin1": {"$gte": "05"}}, "limit": 10_000}));
    add("171,075 cities: filter without an index", median(9, unindexed).await?, "<= 1.5 x");
    let by_country = json!([{"$group": {"_id": "$country", "cities": {"$sum": 1}}}]);
    let grouped = median(9, |_| aggregate(&cities, by_country.clone())).await?;
    add("171,075 cities: group by country", grouped, "<= 150 ms");
    add("171,075 cities: build an index of the name", index(&cities, "name", "name").await?, "<= 2,000 ms");
    index(&cities, "country-name", "country,name").await?;
    let point = |n: usize| find(&cities, json!({"filter": {"name": names[n % names.len()]}, "limit": 1}));
    add("171,075 cities: one by its name, by index", median(2_001, point).await?, "<= 0.1 ms");
    let sorted = |n| find(&cities, json!({"filter": {"country": country(n)}, "sort": {"name": 1}, "limit": 100}));
    add("171,075 cities: of a country by name, 100, by index", median(501, sorted).await?, "<= 0.5 ms");
    set_beside(rows, (peer, cities), directory.path(), measured).await
}
