//! Writes that wait for other peers, where a document is, and whether it is safe to leave.

use serde_json::json;

use super::{World, key, object};
use crate::access::Role;
use crate::base::{ActorId, PeerId};
use crate::identity::Signed;
use crate::limits::{INQUIRIES_MAX, RECEIPT_VERSIONS_MAX, RECEIPTS_OWED_MAX};
use crate::node::{Command, CommandId, Condition, Input, LeaveReport, Reply, WriteConcern};
use crate::sync::Message;
use crate::sync::receipt::{Ask, Receipt, Told};
use crate::{Error, Result};

fn put(world: &mut World, at: usize, document: &str, n: u64, peers: usize, timeout_ms: u64) -> CommandId {
    let write = Command::Put { document: key(document), body: object(json!({ "n": n })), condition: Condition::Any };
    let concern = WriteConcern { peers, timeout_ms };
    world.command(at, Command::Confirm { document: key(document), write: Box::new(write), concern })
}

fn confirmed(world: &mut World, at: usize, id: CommandId) -> Option<(Vec<PeerId>, bool)> {
    let Ok(Reply::Confirmed { receipts, complete, .. }) = world.replies.remove(&(at, id))? else {
        panic!("no receipts")
    };
    for receipt in &receipts {
        receipt.check().unwrap();
    }
    Some((receipts.into_iter().map(|receipt| receipt.body.holder).collect(), complete))
}

fn sorted(mut peers: Vec<PeerId>) -> Vec<PeerId> {
    peers.sort();
    peers
}

#[test]
fn a_write_waits_for_the_disks_of_others_and_names_them() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.connect(0, 2);
    world.run(2_000);
    let id = put(&mut world, 0, "notes/a", 1, 2, 5_000);
    assert_eq!(confirmed(&mut world, 0, id), None);
    world.run(1_000);
    let both = sorted(vec![world.id(1), world.id(2)]);
    assert_eq!(confirmed(&mut world, 0, id), Some((both.clone(), true)));
    // What they said they have is there after a restart.
    world.restart(1);
    assert_eq!(world.get(1, "notes/a"), Some(json!({"n": 1})));
    // The same again writes nothing, and is confirmed all the same.
    world.connect(0, 1);
    world.run(2_000);
    let id = put(&mut world, 0, "notes/a", 1, 2, 5_000);
    world.run(1_000);
    assert_eq!(confirmed(&mut world, 0, id), Some((both, true)));
}

#[test]
fn without_enough_peers_the_write_stands_and_the_answer_says_so() {
    let mut world = World::mesh(3);
    let id = put(&mut world, 0, "notes/a", 1, 1, 5_000);
    world.run(4_000);
    assert_eq!(confirmed(&mut world, 0, id), None);
    world.run(2_000);
    assert_eq!(confirmed(&mut world, 0, id), Some((Vec::new(), false)));
    assert_eq!(world.get(0, "notes/a"), Some(json!({"n": 1})));
    // Somebody comes while it waits, and gossip is lost all the time.
    world.gossip = false;
    let id = put(&mut world, 0, "notes/b", 1, 1, 30_000);
    world.run(1_000);
    world.connect(0, 1);
    world.run(10_000);
    assert_eq!(confirmed(&mut world, 0, id), Some((vec![world.id(1)], true)));
    let id = put(&mut world, 0, "notes/c", 1, 2, 5_000);
    world.run(6_000);
    assert_eq!(confirmed(&mut world, 0, id), Some((vec![world.id(1)], false)));
    assert!(matches!(
        world.ask(0, Command::Leave(WriteConcern { peers: 9_999, timeout_ms: 1 })),
        Err(Error::Invalid(_))
    ));
}

#[test]
fn nobody_waits_for_more_peers_than_there_are() {
    let mut world = World::mesh(3);
    let id = put(&mut world, 0, "notes/a", 1, 3, 60_000);
    world.run(1);
    assert_eq!(confirmed(&mut world, 0, id), Some((Vec::new(), false)));
    let id = world.command(0, Command::Leave(WriteConcern { peers: 3, timeout_ms: 60_000 }));
    world.run(1);
    assert!(matches!(world.replies.remove(&(0, id)), Some(Ok(Reply::Leave { safe: false, .. }))));
}

#[test]
fn a_peer_that_does_not_wait_for_its_disk_confirms_no_write() {
    let mut world = World::new(1);
    // The tenth peer is such a one.
    world.add(9);
    world.join(1, 0, Role::Writer);
    let id = put(&mut world, 0, "notes/a", 1, 1, 5_000);
    world.run(6_000);
    assert_eq!(confirmed(&mut world, 0, id), Some((Vec::new(), false)));
    assert_eq!(world.get(1, "notes/a"), Some(json!({"n": 1})));
    let id = world.command(0, Command::Why(key("notes/a")));
    world.run(300);
    let Ok(Reply::Why(why)) = world.replies.remove(&(0, id)).unwrap() else { panic!("no answer") };
    assert_eq!(why.holders.iter().map(|holder| holder.holds).collect::<Vec<_>>(), [Some(true)]);
}

#[test]
fn where_a_document_is_is_asked_of_those_who_are_there() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.connect(0, 2);
    world.run(2_000);
    world.gossip = false;
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    let why = |world: &mut World| {
        let id = world.command(0, Command::Why(key("notes/a")));
        world.run(300);
        let Ok(Reply::Why(why)) = world.replies.remove(&(0, id)).unwrap() else { panic!("no answer") };
        why.holders.into_iter().map(|holder| (holder.peer, holder.holds)).collect::<Vec<_>>()
    };
    let lacking = why(&mut world);
    assert_eq!(lacking.iter().map(|(_, holds)| *holds).collect::<Vec<_>>(), [Some(false), Some(false)]);
    world.run(5_000);
    assert_eq!(why(&mut world).iter().map(|(_, holds)| *holds).collect::<Vec<_>>(), [Some(true), Some(true)]);
    assert!(matches!(world.ask(0, Command::Why(key("notes/none"))), Err(Error::NotFound(_))));
}

fn leave(world: &mut World, peers: usize) -> Result<(bool, Vec<LeaveReport>)> {
    let id = world.command(0, Command::Leave(WriteConcern { peers, timeout_ms: 5_000 }));
    world.run(6_000);
    let Reply::Leave { safe, peers } = world.replies.remove(&(0, id)).unwrap()? else { panic!("no answer") };
    Ok((safe, peers))
}

#[test]
fn it_is_safe_to_leave_when_enough_others_have_everything() {
    let mut world = World::mesh(3);
    world.put(0, "notes/a", json!({"n": 1})).unwrap();
    assert!(!leave(&mut world, 1).unwrap().0);
    world.connect(0, 1);
    assert!(leave(&mut world, 1).unwrap().0);
    assert!(!leave(&mut world, 2).unwrap().0);
    // Nothing changed since: whether they are still connected makes no difference.
    world.disconnect(0, 1);
    world.run(100);
    let (safe, peers) = leave(&mut world, 1).unwrap();
    assert!(safe && peers.iter().any(|peer| peer.has_all && !peer.connected), "{peers:?}");
    world.put(0, "other/b", json!({"n": 1})).unwrap();
    assert!(!leave(&mut world, 1).unwrap().0);
}

#[test]
fn it_is_not_safe_to_leave_with_a_document_that_nobody_else_can_have() {
    let mut world = World::mesh(2);
    put(&mut world, 0, "notes/a", 1, 0, 1);
    put(&mut world, 0, "notes/b", 1, 0, 1);
    // Its view can be read; its log, which others would get, cannot.
    world.peers[0]
        .node
        .store
        .damage_log_for_test(&key("notes/a"), |entry| entry.run = crate::document::Run::of(b"garbage"[..].into()));
    world.peers[0].node.store.close_document(&key("notes/a"));
    put(&mut world, 0, "notes/a", 2, 0, 1);
    world.connect(0, 1);
    world.run(2_000);
    assert_eq!((world.get(0, "notes/a"), world.get(1, "notes/b")), (Some(json!({"n": 1})), Some(json!({"n": 1}))));
    assert!(!leave(&mut world, 1).unwrap().0);
}

#[test]
fn a_receipt_that_is_not_the_senders_own_costs_it_the_link() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.run(2_000);
    let id = put(&mut world, 0, "notes/a", 1, 2, 5_000);
    let versions = vec![(key("notes/a"), vec![(ActorId([1; 16]), 1)])];
    let receipt =
        Receipt { mesh: world.peers[0].node.mesh(), holder: world.id(2), at: world.now, synced: true, versions };
    let forged = Signed::sign(receipt, &crate::identity::Keypair::from_seed([2; 32]));
    let from = world.id(1);
    let told = Message::Told(Told { number: 0, receipt: Some(Box::new(forged)) });
    world.feed(0, vec![Input::Received(from, Box::new(told))]);
    assert!(!world.links.contains(&(0, 1)));
    world.run(6_000);
    assert_eq!(confirmed(&mut world, 0, id).map(|(_, complete)| complete), Some(false));
}

#[test]
fn questions_for_what_never_comes_are_bounded() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.connect(0, 2);
    world.run(2_000);
    let from = world.id(1);
    // One version may name as many actors as a document has.
    let wide: Vec<_> = (0..=RECEIPTS_OWED_MAX as u128).map(|n| (ActorId(n.to_be_bytes()), 1)).collect();
    let ask = Message::Ask(Ask { number: 0, wait: true, versions: vec![(key("notes/wide"), wide)] });
    world.feed(0, vec![Input::Received(from, Box::new(ask))]);
    assert_eq!(world.peers[0].node.receipts.owed_for_test(), 0);
    for round in 0..2 * RECEIPTS_OWED_MAX / RECEIPT_VERSIONS_MAX {
        let version = |n| (key(&format!("notes/{round}-{n}")), vec![(ActorId([7; 16]), 1)]);
        let versions = (0..RECEIPT_VERSIONS_MAX).map(version).collect();
        let ask = Message::Ask(Ask { number: 0, wait: true, versions });
        world.feed(0, vec![Input::Received(from, Box::new(ask))]);
    }
    assert_eq!(world.peers[0].node.receipts.owed_for_test(), RECEIPTS_OWED_MAX);
    // Another one has room all the same.
    let ask = Ask { number: 0, wait: true, versions: vec![(key("notes/later"), vec![(ActorId([8; 16]), 1)])] };
    world.feed(0, vec![Input::Received(world.id(2), Box::new(Message::Ask(ask)))]);
    assert_eq!(world.peers[0].node.receipts.owed_for_test(), RECEIPTS_OWED_MAX + 1);
    world.disconnect(0, 1);
    world.disconnect(0, 2);
    world.run(100);
    assert_eq!(world.peers[0].node.receipts.owed_for_test(), 0);
    for n in 0..INQUIRIES_MAX as u64 {
        put(&mut world, 0, &format!("notes/{n}"), n, 1, 5_000);
    }
    let id = put(&mut world, 0, "notes/more", 1, 1, 5_000);
    assert!(matches!(world.replies.remove(&(0, id)), Some(Err(Error::Unavailable(_)))));
    assert_eq!(world.get(0, "notes/more"), None);
}
