//! The power fails at random moments, and with it go bytes that were not synced: dropped, kept or torn. What
//! was acknowledged is there afterwards, and views, logs and summaries agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::{key, object};
use crate::base::Timestamp;
use crate::identity::Keypair;
use crate::kv::faulty::{Faults, FaultyDisk};
use crate::kv::{Checkpoints, Durability, JournalConfig, Journaled};
use crate::node::{Command, Condition, Config, Effect, Input, Node, Reply};
use crate::{Error, Result};

/// Power losses that are tried.
const STATES: u64 = 200;

fn open(disk: &FaultyDisk, seed: u8) -> Result<Node> {
    let journal = JournalConfig {
        durability: Durability::Durable,
        checkpoints: Checkpoints::Inline,
        // Small, so that tables are moved often.
        segment_bytes: 16 << 10,
        salt: u32::from(seed),
    };
    let (kv, _) = Journaled::open(disk.table(), disk.medium(), journal)?;
    let config = Config {
        keypair: Keypair::from_seed([1; 32]),
        seed: [seed; 32],
        mesh_name: "power".into(),
        flush_may_be_lost: false,
        fresh: true,
        seeds: Vec::new(),
    };
    Node::open(config, Arc::new(kv), Timestamp(1_700_000_000_000))
}

fn replies(node: &mut Node, inputs: Vec<Input>) -> Vec<Result<Reply>> {
    let reply = |effect| if let Effect::Reply(_, reply) = effect { Some(reply) } else { None };
    node.handle(Timestamp(1_700_000_000_000), inputs).0.into_iter().filter_map(reply).collect()
}

/// Writes in groups until the power fails; takes note of what was acknowledged. The value under `true` may
/// have made it to the disk as well: its acknowledgement was under way.
fn write(node: &mut Node, rng: &mut StdRng, expected: &mut BTreeMap<String, (Option<u64>, Vec<Option<u64>>)>) {
    for _ in 0..60 {
        let mut inputs = Vec::new();
        let mut group = Vec::new();
        for id in 0..rng.random_range(1..6u64) {
            let document = format!("docs/{}", rng.random_range(0..12u8));
            let value = rng.random_range(0..5u8) > 0;
            let value = value.then(|| rng.random_range(0..1_000_000u64));
            let (named, condition) = (key(&document), Condition::Any);
            let command = match value {
                Some(n) => {
                    let body = object(json!({"n": n, "text": "some words to fill the journal with"}));
                    Command::Put { document: named, body, condition }
                }
                None => Command::Delete { document: named, condition },
            };
            inputs.push(Input::Command(id, command));
            group.push((document, value));
        }
        let replies = replies(node, inputs);
        let failed = replies.iter().any(|reply| matches!(reply, Err(Error::Unavailable(_) | Error::Io(_))));
        for ((document, value), reply) in group.into_iter().zip(replies) {
            let (sure, maybe) = expected.entry(document).or_default();
            match reply {
                Ok(_) => (*sure, *maybe) = (value, Vec::new()),
                Err(Error::NotFound(_)) => {}
                Err(_) => maybe.push(value),
            }
        }
        if failed {
            return;
        }
    }
}

#[test]
fn two_hundred_power_losses_lose_nothing_acknowledged() {
    for seed in 0..STATES {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = FaultyDisk::new(seed);
        let mut expected = BTreeMap::new();
        for round in 0..3u8 {
            let Ok(mut node) = open(&disk, round) else { panic!("seed {seed}: the store does not open") };
            check(&mut node, &mut expected, seed);
            disk.set_faults(Faults { cut_power: Some(rng.random_range(1..150)), ..Faults::default() });
            write(&mut node, &mut rng, &mut expected);
            drop(node);
            disk.cut_power();
            disk.restart();
            disk.set_faults(Faults::default());
        }
        let mut node = open(&disk, 3).unwrap();
        check(&mut node, &mut expected, seed);
    }
}

fn check(node: &mut Node, expected: &mut BTreeMap<String, (Option<u64>, Vec<Option<u64>>)>, seed: u64) {
    let mesh = node.mesh();
    for (document, (sure, maybe)) in expected.iter_mut() {
        let found = node.reader().record(&key(document)).unwrap().filter(|record| !record.deleted);
        let found = found.map(|record| {
            let view: serde_json::Value = serde_json::from_slice(&record.view).unwrap();
            view["n"].as_u64().unwrap()
        });
        assert!(
            found == *sure || maybe.contains(&found),
            "seed {seed}: {document} is {found:?}, not {sure:?} {maybe:?}"
        );
        (*sure, *maybe) = (found, Vec::new());
        node.store.audit(mesh, &key(document)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let name = "docs".parse().unwrap();
    assert_eq!(node.store.range(&name, b"", Some(b"\xff")).unwrap(), node.store.total(&name), "seed {seed}");
}
