//! Queries with and without an index, beside a walk that looks into no document.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aerolithsdb::index::Definition;
use aerolithsdb::kv::Durability;
use aerolithsdb::peer::TimeLimit;
use aerolithsdb::query::Find;
use aerolithsdb::query::aggregate::Pipeline;
use aerolithsdb::store::Progress;
use aerolithsdb::{Collection, Peer};
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

/// A walk past all documents that looks at nothing in them.
async fn bare(collection: &Collection) -> Result<Duration, Failure> {
    median(15, |_| aggregate(collection, json!([{"$count": "n"}]))).await
}

/// Declares an index, and waits until it is filled and measured.
async fn index(collection: &Collection, name: &str, fields: &str) -> Result<Duration, Failure> {
    let start = Instant::now();
    collection.put_index(name.parse()?, Definition::parse(&json!({ "fields": fields }))?).await?;
    while collection.indexes()?.iter().any(|index| index.progress != Progress::Ready) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(start.elapsed())
}

fn times(figure: Duration, reference: Duration) -> String {
    format!(
        "{:.2} x a walk past all documents ({:.2} ms)",
        figure.as_secs_f64() / reference.as_secs_f64(),
        ms(reference)
    )
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(super) async fn w6(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let peer = Peer::start(config(directory.path(), Durability::Buffered)).await?;
    fill(&peer, DOCUMENTS, 16).await?;
    let docs = peer.collection("docs")?;
    let query = |n: usize| json!({"filter": {"age": {"$gte": 40}, "city": format!("City {}", n % 500)}, "sort": {"name": 1}, "limit": 100});
    let reference = bare(&docs).await?;
    let without = median(51, |n| find(&docs, query(n))).await?;
    rows.push(Row {
        work: "W6 of 10,000: age and city, sorted by name, no index",
        figure: format!("{:.2} ms", ms(without)),
        target: "<= 6 ms",
        beside: times(without, reference),
    });
    index(&docs, "city-name", "city,name").await?;
    let with = median(501, |n| find(&docs, query(n))).await?;
    rows.push(Row {
        work: "W6 the same by an index of city and name",
        figure: format!("{:.3} ms", ms(with)),
        target: "<= 0.4 ms",
        beside: times(with, reference),
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
    let reference = bare(&cities).await?;
    let unindexed = median(9, |n| {
        find(
            &cities,
            json!({"filter": {"country": countries[n % countries.len()], "admin1": {"$gte": "05"}}, "limit": 10_000}),
        )
    });
    let unindexed = unindexed.await?;
    let mut row = |work, figure: Duration, target, decimals: usize| {
        rows.push(Row {
            work,
            figure: format!("{:.decimals$} ms", ms(figure)),
            target,
            beside: times(figure, reference),
        });
    };
    row("171,075 cities: filter without an index", unindexed, "<= 1.5 x a bare pass", 1);
    let by_country = json!([{"$group": {"_id": "$country", "cities": {"$sum": 1}}}]);
    row("cities: group by country", median(9, |_| aggregate(&cities, by_country.clone())).await?, "<= 150 ms", 1);
    row("cities: build an index of the name", index(&cities, "name", "name").await?, "<= 2,000 ms", 0);
    index(&cities, "country-name", "country,name").await?;
    let point = |n: usize| json!({"filter": {"name": names[n % names.len()]}, "limit": 1});
    row("cities: one by its name, by index", median(2_001, |n| find(&cities, point(n))).await?, "<= 0.1 ms", 4);
    let sorted =
        |n: usize| json!({"filter": {"country": countries[n % countries.len()]}, "sort": {"name": 1}, "limit": 100});
    row("cities: of a country, sorted by name, 100", median(501, |n| find(&cities, sorted(n))).await?, "<= 0.5 ms", 3);
    peer.shutdown().await;
    Ok(())
}
