//! What is told of who is in sync: as much as is known, and never that nothing is missing while something is.

use super::*;

const DOCUMENTS: u64 = 3_000;

#[test]
fn what_is_still_to_come_is_told_from_the_first_comparison_on() {
    let mut world = World::mesh(2);
    world.connect(0, 1);
    world.run(1_000);
    world.disconnect(0, 1);
    for n in 0..DOCUMENTS {
        // More than is sent without an acknowledgement.
        world.put(0, &format!("docs/{n}"), json!({ "n": n, "text": "x".repeat(1_000) })).unwrap();
    }
    world.delete(0, "docs/0").unwrap();
    let (equal, other) = (world.sync_report(1), world.id(0));
    assert_eq!((equal.documents, equal.items, equal.peers.len()), (0, 0, 1));
    world.connect(0, 1);
    let mut seen = 0;
    for _ in 0..10_000 {
        world.run(1);
        let report = world.sync_report(1);
        let [summary] = &report.peers[..] else { panic!("one other peer") };
        if summary.equal {
            continue;
        }
        let missing = DOCUMENTS - report.items;
        assert_eq!((summary.peer, summary.differing), (other, 1));
        assert!(summary.to_receive.is_some_and(|count| count >= missing), "{missing} are missing: {summary:?}");
        let standing = &report.collections[0].peers[0];
        assert!(standing.to_receive.is_some_and(|count| count >= missing), "{missing} are missing: {standing:?}");
        seen += u64::from(missing > 0 && missing < DOCUMENTS);
        let there = world.sync_report(0);
        if !there.peers[0].equal && there.peers[0].their_documents == Some(report.items) {
            assert_eq!(there.peers[0].to_send, Some(missing));
        }
        if missing == 0 {
            break;
        }
    }
    assert!(seen > 0, "it was looked at in the middle");
    world.run(60_000);
    for at in [0, 1] {
        let report = world.sync_report(at);
        assert_eq!((report.documents, report.items), (DOCUMENTS - 1, DOCUMENTS), "deleted ones are told apart");
        let [summary] = &report.peers[..] else { panic!("one other peer") };
        assert!(summary.equal && !summary.changed_here_since, "{summary:?}");
        assert_eq!((summary.to_receive, summary.to_send), (Some(0), Some(0)));
        assert_eq!((summary.differing, summary.their_documents), (0, Some(DOCUMENTS)));
    }
}

#[test]
fn a_member_that_was_never_compared_has_a_line_too() {
    let mut world = World::mesh(3);
    // What was compared before a start is forgotten.
    world.restart(0);
    world.connect(0, 1);
    world.put(0, "docs/a", json!({})).unwrap();
    world.run(2_000);
    let (report, never) = (world.sync_report(0), world.id(2));
    let of = |peer| report.peers.iter().find(|summary| summary.peer == peer).unwrap();
    assert_eq!(report.peers.len(), 2);
    assert!(of(world.id(1)).equal);
    let summary = of(never);
    assert_eq!((summary.compared_at, summary.equal, summary.connected), (None, false, false));
    assert_eq!((summary.to_receive, summary.to_send, summary.their_documents), (None, None, None));
    let standing = report.collections[0].peers.iter().find(|standing| standing.peer == never).unwrap();
    assert_eq!((standing.standing.compared_at, standing.to_receive), (None, None));
}
