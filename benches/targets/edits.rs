//! W7: one document that was changed often. What a change costs, what the changes take on the disk, and what a
//! long past costs a reader.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use aerolithsdb::kv::{self, Durability, Kv as _, StorageConfig};
use aerolithsdb::{Collection, Patch, Peer};
use serde_json::json;

use super::{Failure, Row, config, document, id, rate, raw_appends};

/// Changes of the one document.
const UPDATES: usize = 2_000;
/// Reads of each of two documents in one turn.
const READS: usize = 50_000;
/// Turns of both, so that what disturbs the machine meets both.
const TURNS: usize = 4;

pub(super) async fn w7(rows: &mut Vec<Row>) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let before = raw_appends(directory.path())?;
    let store = directory.path().join("store");
    let peer = Peer::start(config(&store, Durability::Durable)).await?;
    let docs = peer.collection("docs")?;
    docs.put(&id(0), document(0)).await?;
    let start = Instant::now();
    for n in 0..UPDATES {
        docs.patch(&id(0), Patch::operators(json!({"$set": {"age": n}}))?).await?;
    }
    let figure = rate(UPDATES, start.elapsed());
    drop(docs);
    peer.shutdown().await;
    drop(peer);
    // A shared disk is not the same for long: before and after.
    let raw = f64::midpoint(before, raw_appends(directory.path())?);
    rows.push(Row {
        work: "W7 2,000 updates of one field, durable",
        figure: format!("{figure:.0}/s"),
        target: ">= 2,500/s",
        beside: format!("{:.2} x raw append + fdatasync ({raw:.0}/s)", figure / raw),
    });
    let stored = Stored::of_only_document(&store)?;
    rows.push(Row {
        work: "W7 bytes of that document in the store",
        figure: format!(
            "log {:.1} KB, snapshot {:.1} KB, record {:.1} KB",
            kilobytes(stored.log),
            kilobytes(stored.snapshot),
            kilobytes(stored.record)
        ),
        target: "<= 40 KB",
        beside: format!(
            "{} changes in {} log entries, each signed; before the table packs them",
            UPDATES + 1,
            stored.entries
        ),
    });
    let peer = Peer::start(config(&store, Durability::Durable)).await?;
    let docs = peer.collection("docs")?;
    docs.put(&id(1), document(1)).await?;
    let (old, fresh) = reads(&docs)?;
    rows.push(Row {
        work: "W7 reads of that document",
        figure: format!("{old:.0}/s"),
        target: "as a fresh one",
        beside: format!("{:.2} x reads of a fresh document ({fresh:.0}/s)", old / fresh),
    });
    peer.shutdown().await;
    Ok(())
}

/// Reads a second of the document with a past, and of the one without, in turns.
fn reads(docs: &Collection) -> Result<(f64, f64), Failure> {
    let mut seconds = [0.0; 2];
    for _ in 0..TURNS {
        for (n, seconds) in seconds.iter_mut().enumerate() {
            let id = id(n);
            let start = Instant::now();
            for _ in 0..READS {
                std::hint::black_box(docs.get(&id)?.ok_or("a document is missing")?.json().len());
            }
            *seconds += start.elapsed().as_secs_f64();
        }
    }
    Ok(((TURNS * READS) as f64 / seconds[0], (TURNS * READS) as f64 / seconds[1]))
}

fn kilobytes(bytes: usize) -> f64 {
    bytes as f64 / 1e3
}

/// What a store with one document holds of it: keys and values.
#[derive(Default)]
struct Stored {
    entries: usize,
    log: usize,
    snapshot: usize,
    record: usize,
}

impl Stored {
    /// Reads the store of a peer that has stopped. The second byte of a key says what it is, see the store's `key`.
    fn of_only_document(directory: &Path) -> Result<Self, Failure> {
        let (store, _) = kv::open(directory, &StorageConfig::default())?;
        let mut stored = Self::default();
        store.scan(&[], &[0xff], &mut |key, value| {
            let bytes = key.len() + value.len();
            match key.get(..2) {
                Some([_, b'l']) => {
                    stored.entries += 1;
                    stored.log += bytes;
                }
                Some([_, b's']) => stored.snapshot += bytes,
                Some([_, b'd' | b'f']) => stored.record += bytes,
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        Ok(stored)
    }
}
