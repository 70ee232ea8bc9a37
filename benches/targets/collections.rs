//! Many collections of few documents: one for each room, device or user.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use aerolithsdb::gateway;
use aerolithsdb::kv::Durability;
use aerolithsdb::peer::Invite;
use aerolithsdb::{LocalDocuments, Peer};

use super::{Failure, Row, bytes, config, document, resident, wait_for, wait_in_sync};

/// Collections, of one document each.
const COLLECTIONS: usize = 20_000;

async fn fill(directory: &Path, collection: impl Fn(usize) -> String) -> Result<(), Failure> {
    let peer = Peer::start(config(directory, Durability::Buffered)).await?;
    for n in 0..COLLECTIONS {
        peer.collection(&collection(n))?.put(&format!("doc-{n}"), document(n)).await?;
    }
    peer.shutdown().await;
    Ok(())
}

/// Resident bytes of a process that has a peer open, and the milliseconds that its start took.
fn opened(directory: &Path) -> Result<(u64, u64), Failure> {
    let output = Command::new(std::env::current_exe()?).arg("open").arg(directory).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut figures = text.split_whitespace().map(str::parse);
    Ok((figures.next().ok_or("no memory")??, figures.next().ok_or("no time")??))
}

/// What [`opened`] runs.
pub(super) async fn open(directory: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    let peer = Peer::start(config(directory, Durability::Buffered)).await?;
    println!("{} {}", resident()?, start.elapsed().as_millis());
    peer.shutdown().await;
    Ok(())
}

pub(super) async fn w8(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let (many, one, b) = (directory.path().join("a"), directory.path().join("one"), directory.path().join("b"));
    fill(&many, |n| format!("room-{n:05}")).await?;
    fill(&one, |_| "rooms".to_owned()).await?;
    let ((of_many, start_ms), (of_one, one_ms)) = (opened(&many)?, opened(&one)?);
    let figure = format!("{} B", of_many.saturating_sub(of_one) / COLLECTIONS as u64);
    let beside = format!("start in {start_ms} ms, with one collection {one_ms} ms");
    rows.push(Row { work: "W8 memory for each of 20,000 collections", figure, target: "<= 1 KB", beside });

    let a = Peer::start(config(&many, Durability::Buffered)).await?;
    let joining = Peer::start(config(&b, Durability::Buffered)).await?;
    let ticket = a.mesh().invite(Invite::default()).await?.to_string();
    let start = Instant::now();
    joining.mesh().join(&ticket, LocalDocuments::Leave).await?;
    wait_for(&joining, || joining.collections().is_ok_and(|collections| collections.len() == COLLECTIONS)).await?;
    let figure = format!("{:.1} s", start.elapsed().as_secs_f64());
    rows.push(Row { work: "W8 20,000 collections to a new peer", figure, target: "<= 30 s", beside: String::new() });
    wait_in_sync(&joining).await?;
    joining.shutdown().await;
    drop(joining);

    let before = a.traffic();
    let joining = Peer::start(config(&b, Durability::Buffered)).await?;
    let start = Instant::now();
    wait_in_sync(&joining).await?;
    let elapsed = start.elapsed();
    let (received, sent) = bytes(&a, (before.received_bytes, before.sent_bytes));
    let figure = format!("{} B, {:.0} ms", received + sent, elapsed.as_secs_f64() * 1e3);
    let beside = "all of the session".into();
    rows.push(Row { work: "W8 reconnect in sync, 20,000 collections", figure, target: "<= 10 KB", beside });
    answers(&a, rows).await?;
    a.shutdown().await;
    joining.shutdown().await;
    Ok(())
}

/// Answers of the gateway that are about all collections.
async fn answers(peer: &Peer, rows: &mut Vec<Row>) -> Result<(), Failure> {
    const TIMES: u32 = 20;
    let gateway = gateway::serve(peer.clone(), gateway::Config { port: 0, ..gateway::Config::default() }).await?;
    let url = format!("http://{}", gateway.address());
    let took = async |path: &str| {
        let url = format!("{url}{path}");
        let ask = move || -> Result<f64, String> {
            let start = Instant::now();
            for _ in 0..TIMES {
                let mut answer = ureq::get(&url).call().map_err(|error| error.to_string())?;
                answer.body_mut().read_to_vec().map_err(|error| error.to_string())?;
            }
            Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(TIMES))
        };
        tokio::task::spawn_blocking(ask).await.map_err(|fault| fault.to_string())?
    };
    let (list, stats) = (took("/api/v1/collections").await?, took("/api/v1/stats").await?);
    let (metrics, health) = (took("/metrics").await?, took("/health").await?);
    let start = Instant::now();
    let all = peer.collections()?.len();
    let walk = start.elapsed().as_secs_f64() * 1e3;
    rows.push(Row {
        work: "W8 a page of 20,000 collections, /stats, /metrics",
        figure: format!("{list:.1} ms, {stats:.1} ms, {metrics:.1} ms"),
        target: "<= 5 ms, <= 5 ms, <= 50 ms",
        beside: format!("/health {health:.1} ms; reading the counts of {all} collections {walk:.1} ms"),
    });
    gateway.shutdown().await;
    Ok(())
}
