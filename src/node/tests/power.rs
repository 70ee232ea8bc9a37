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
use crate::kv::{Checkpoints, Damage, Durability, JournalConfig, Journaled, Kv};
use crate::node::{Command, Condition, Config, Effect, Farewell, Input, LocalDocuments, Node, Reply};
use crate::store::Loss;
use crate::{Error, Result};

/// Power losses that are tried.
const STATES: u64 = 200;

/// The disk's store, and whether records of the journal were found lost.
fn storage(disk: &FaultyDisk, seed: u8, segment_bytes: usize) -> Result<(Arc<dyn Kv>, Loss)> {
    let journal = JournalConfig {
        durability: Durability::Durable,
        checkpoints: Checkpoints::Inline,
        segment_bytes,
        salt: u32::from(seed),
    };
    let (kv, damages) = Journaled::open(disk.table(), disk.medium(), journal)?;
    let rotten = damages.iter().any(|damage| !matches!(damage, Damage::TornTail { .. }));
    Ok((Arc::new(kv), if rotten { Loss::Records } else { Loss::Nothing }))
}

fn open(disk: &FaultyDisk, seed: u8) -> Result<Node> {
    // Small segments, so that tables are moved often.
    let (kv, loss) = storage(disk, seed, 16 << 10)?;
    let config = Config {
        keypair: Keypair::from_seed([1; 32]),
        seed: [seed; 32],
        mesh_name: "power".into(),
        synced: true,
        loss,
        fresh: seed == 0,
        seeds: Vec::new(),
    };
    Node::open(config, kv, Timestamp(1_700_000_000_000))
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

#[test]
fn a_turn_to_another_mesh_in_which_the_power_goes_never_was_or_is_finished_later() {
    const DOCUMENTS: u64 = 30;
    let (mut undone, mut finished) = (0, 0);
    for cut in 1.. {
        let disk = FaultyDisk::new(cut);
        let mut node = open(&disk, 0).unwrap();
        let put = |n| Command::Put {
            document: key(&format!("docs/{n}")),
            body: object(json!({"n": n, "text": "some words to fill the journal with"})),
            condition: Condition::Any,
        };
        replies(&mut node, (0..DOCUMENTS).map(|n| Input::Command(n, put(n))).collect());
        let left = node.mesh();
        disk.set_faults(Faults { cut_power: Some(cut), ..Faults::default() });
        let turn =
            Command::Found { name: "other".into(), local: LocalDocuments::Carry, farewell: Farewell::WithoutAdmin };
        let mut answers = replies(&mut node, vec![Input::Command(DOCUMENTS, turn)]);
        answers.extend(replies(&mut node, vec![Input::Wake]));
        let answer = answers.pop().expect("a turn is answered at its end");
        let is_whole = disk.operations() < cut;
        drop(node);
        disk.cut_power();
        disk.restart();
        let mut node = open(&disk, 1).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        replies(&mut node, vec![Input::Wake]);
        replies(&mut node, vec![Input::Wake]);
        let entered = node.mesh() != left;
        assert!(entered || answer.is_err(), "cut {cut}: {answer:?}");
        assert_eq!(node.context().name, if entered { "other" } else { "power" }, "cut {cut}");
        let there = (0..DOCUMENTS).filter(|n| node.reader().record(&key(&format!("docs/{n}"))).unwrap().is_some());
        assert_eq!(there.count() as u64, DOCUMENTS, "cut {cut}: entered {entered}");
        (undone, finished) = (undone + u64::from(!entered), finished + u64::from(entered && answer.is_err()));
        if is_whole {
            break;
        }
    }
    assert!(undone > 0 && finished > 0, "{undone} never were, {finished} were finished later");
}

#[test]
fn a_record_of_the_journal_that_rots_is_not_said_to_be_here() {
    let mut lost = 0;
    for seed in 0..STATES {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = FaultyDisk::new(seed);
        write(&mut open(&disk, 0).unwrap(), &mut rng, &mut BTreeMap::new());
        disk.rot_any_record().expect("the journal is not empty");
        let (_, loss) = storage(&disk, 1, 16 << 10).unwrap();
        lost += u64::from(loss == Loss::Records);
        let node = open(&disk, 1).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let name = "docs".parse().unwrap();
        assert_eq!(node.store.total(&name), node.store.recount_for_test(&name), "seed {seed}");
        let summed = node.store.range(&name, b"", Some(b"\xff")).unwrap();
        assert_eq!(node.store.total(&name), summed, "seed {seed}");
    }
    assert!(lost > STATES / 2, "{lost}");
}

#[test]
fn whichever_record_rots_a_peer_stays_in_the_mesh_that_it_joined() {
    let record = |at: usize| {
        let disk = FaultyDisk::new(at as u64);
        let joined = {
            let mut node = open(&disk, 0).unwrap();
            let members = node.store.members().unwrap();
            node.store.begin_space().unwrap();
            members.iter().for_each(|member| node.store.put_member(member).unwrap());
            node.store.put_fact("secret", &[7u8; 32]).unwrap();
            node.store.keep_space().unwrap();
            let put = Command::Put { document: key("docs/a"), body: object(json!({})), condition: Condition::Any };
            replies(&mut node, vec![Input::Command(1, put)]);
            node.store.space()
        };
        let records = disk.records();
        disk.rot_record(at);
        let node = open(&disk, 1).unwrap_or_else(|error| panic!("record {at}: {error}"));
        assert_eq!((node.store.space(), node.context().secret.to_bytes()), (joined, [7; 32]), "record {at}");
        at + 1 < records
    };
    assert!((0..).take_while(|at| record(*at)).count() >= 10);
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
        node.store.audit_document(mesh, &key(document)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let name = "docs".parse().unwrap();
    assert_eq!(node.store.range(&name, b"", Some(b"\xff")).unwrap(), node.store.total(&name), "seed {seed}");
}
