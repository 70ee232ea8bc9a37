//! Wrong clocks: what they must not destroy, who says so, and how a peer comes back to the present.

use super::*;
use crate::index::Definition;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

impl World {
    /// Starts a peer again whose clock is so far ahead, with nobody connected.
    fn restart_ahead(&mut self, at: usize, ahead_ms: i64) {
        for other in 0..self.peers.len() {
            self.disconnect(at, other);
        }
        self.peers[at].ahead_ms = ahead_ms;
        self.restart(at);
        self.run(SECOND);
    }

    fn connect_all(&mut self) {
        for a in 0..self.peers.len() {
            for b in 0..a {
                self.connect(a, b);
            }
        }
        self.run(5 * SECOND);
    }

    fn report(&mut self, at: usize) -> PeerReport {
        let Reply::Status(report) = self.ask(at, Command::Status).unwrap() else { panic!("no report") };
        *report
    }

    fn agreement(&mut self, at: usize) -> Agreement {
        self.report(at).clock.agreement
    }

    /// Documents that have a time expire half a day after it, by what this peer knows of the time.
    fn expire_after_half_a_day(&mut self, at: usize) {
        let definition = Definition::parse(&json!({"fields": "at", "expire_after_s": 12 * 3_600})).unwrap();
        self.ask(at, Command::PutIndex("notes".parse().unwrap(), "age".parse().unwrap(), definition)).unwrap();
    }

    /// Documents, as old as that; their names.
    fn documents(&mut self, at: usize, many: usize, age_ms: u64) -> Vec<String> {
        let written = self.now.0 - age_ms;
        let names: Vec<String> = (0..many).map(|n| format!("notes/{n}")).collect();
        names.iter().for_each(|name| _ = self.put(at, name, json!({"at": written, "_": name})).unwrap());
        names
    }

    fn changes_of(&mut self, at: usize, document: &str) -> u64 {
        self.peers[at].node.store.record(&key(document)).unwrap().unwrap().changes()
    }

    fn stamp_of(&mut self, at: usize, document: &str) -> Timestamp {
        self.peers[at].node.store.record(&key(document)).unwrap().unwrap().updated.physical()
    }

    fn same_everywhere(&self) {
        let state = self.state(0);
        (1..self.peers.len()).for_each(|at| assert_eq!(self.state(at), state, "peer {at}"));
    }
}

#[test]
fn a_peer_whose_clock_its_members_contradict_lets_nothing_expire() {
    let mut world = World::mesh(3);
    world.restart_ahead(2, DAY as i64);
    world.connect_all();
    let names = world.documents(0, 5, HOUR);
    world.run(5 * SECOND);
    world.expire_after_half_a_day(2);
    world.run(2 * HOUR);
    for at in 0..3 {
        assert!(names.iter().all(|name| world.get(at, name).is_some()), "peer {at}");
    }
    let clock = world.report(2).clock;
    assert_eq!(clock.agreement, Agreement::Contradicted);
    assert!(clock.middle_ahead_ms.abs_diff(-(DAY as i64)) < SECOND && clock.expiry_waits.is_some(), "{clock:?}");
    assert_eq!((world.agreement(0), world.agreement(1)), (Agreement::Agrees, Agreement::Agrees));
}

#[test]
fn what_a_wrong_clock_deleted_while_nobody_could_contradict_it_is_brought_back_once() {
    let mut world = World::mesh(3);
    world.connect_all();
    let names = world.documents(0, 5, HOUR);
    world.put(1, "notes/deleted", json!({"at": world.now.0})).unwrap();
    world.put(1, "notes/both", json!({"at": world.now.0 - 12 * HOUR + 10 * 60 * SECOND})).unwrap();
    world.expire_after_half_a_day(1);
    world.run(5 * SECOND);
    world.disconnect_all();
    world.restart_ahead(2, 2 * DAY as i64);
    world.connect(0, 1);
    world.expire_after_half_a_day(2);
    world.run(HOUR / 2);
    assert!(world.get(2, &names[0]).is_some(), "a clock that has leapt is not believed at once");
    world.run(HOUR);
    assert!(names.iter().all(|name| world.get(2, name).is_none()));
    // A program's delete is one, whatever the clock.
    assert!(world.get(2, "notes/deleted").is_none());
    world.delete(0, "notes/deleted").unwrap();
    world.run(5 * SECOND);
    world.connect_all();
    world.run(2 * HOUR);
    world.same_everywhere();
    for name in &names {
        assert_eq!(world.get(0, name).unwrap()["_"], json!(name));
        assert_eq!(world.changes_of(0, name), 3, "it was written, deleted, and kept by one peer");
    }
    assert_eq!(world.get(0, "notes/deleted"), None);
    // What had expired at both, in the time of one, stays deleted.
    assert_eq!((world.get(0, "notes/both"), world.changes_of(0, "notes/both")), (None, 3));
    let kept = [0, 1, 2].map(|at| world.report(at).clock.kept);
    assert_eq!(kept.iter().sum::<u64>(), names.len() as u64, "{kept:?}");
}

#[test]
fn two_that_cannot_agree_about_a_document_come_to_an_end() {
    let mut world = World::mesh(3);
    world.connect_all();
    let names = world.documents(0, 3, 13 * HOUR);
    world.run(5 * SECOND);
    world.disconnect_all();
    // 1 is right, by 2; 0 is a day behind, and sees 1 only.
    world.restart_ahead(0, -(DAY as i64));
    world.connect(0, 1);
    world.connect(1, 2);
    world.run(5 * SECOND);
    assert_eq!((world.agreement(0), world.agreement(1)), (Agreement::Divided, Agreement::Agrees));
    world.expire_after_half_a_day(1);
    world.run(HOUR);
    world.same_everywhere();
    for name in &names {
        assert_eq!(world.get(0, name), None);
        assert_eq!(world.changes_of(0, name), 4, "written, deleted, kept, and deleted by one who knew");
    }
}

#[test]
fn of_those_who_have_the_same_index_one_deletes() {
    let mut world = World::mesh(4);
    (0..4).for_each(|at| world.peers[at].ahead_ms = [0, 40, -300, 2_000][at]);
    world.connect_all();
    let names = world.documents(0, 20, 11 * HOUR);
    (0..4).for_each(|at| world.expire_after_half_a_day(at));
    world.run(HOUR + 2 * 60 * SECOND);
    for name in &names {
        assert_eq!(world.get(3, name), None);
        assert_eq!(world.changes_of(3, name), 2, "{name}");
    }
    world.same_everywhere();
    // Old ones, while everybody declares it at the same time.
    let names = world.documents(1, 20, DAY);
    (0..4).for_each(|at| world.expire_after_half_a_day(at));
    world.run(2 * 60 * SECOND);
    assert!(names.iter().all(|name| world.get(0, name).is_none() && world.changes_of(0, name) <= 4));
}

#[test]
fn a_clock_that_was_set_right_stamps_the_present_after_a_restart_and_without_one() {
    let ten_years = 3_652 * DAY;
    let mut world = World::mesh(2);
    world.restart_ahead(1, ten_years as i64);
    world.put(1, "notes/then", json!({"n": 1})).unwrap();
    assert!(world.stamp_of(1, "notes/then") >= world.now.plus_ms(ten_years - SECOND));
    world.restart_ahead(1, 0);
    world.put(1, "notes/now", json!({"n": 1})).unwrap();
    assert!(world.stamp_of(1, "notes/now").0.abs_diff(world.now.0) < SECOND);
    world.put(1, "notes/then", json!({"n": 2})).unwrap();
    let until = world.report(1).clock.stamped_until.expect("what lies in the future is said");
    assert!(until >= world.now.plus_ms(ten_years - 60 * SECOND));
    // It goes to others as it is, and nobody follows it.
    world.connect_all();
    world.put(0, "notes/here", json!({})).unwrap();
    assert!(world.stamp_of(0, "notes/here").0.abs_diff(world.now.0) < SECOND);
    assert_eq!(world.get(0, "notes/then"), Some(json!({"n": 2})));
    assert_eq!(world.report(0).clock.stamped_until, Some(until));
    world.run(5 * SECOND);
    world.same_everywhere();
    // While it runs.
    world.feed(1, vec![Input::ClockSet { ahead_ms: ten_years as i64 }]);
    world.put(1, "notes/again", json!({})).unwrap();
    assert!(world.stamp_of(1, "notes/again") > world.now.plus_ms(ten_years - SECOND));
    world.feed(1, vec![Input::ClockSet { ahead_ms: 0 }]);
    world.put(1, "notes/after", json!({})).unwrap();
    assert!(world.stamp_of(1, "notes/after").0.abs_diff(world.now.0) < SECOND);
}

#[test]
fn a_peer_that_boots_in_1970_is_stamped_by_its_members_and_says_so() {
    let mut world = World::mesh(3);
    world.put(0, "notes/old", json!({"at": 0})).unwrap();
    let boot = 60 * SECOND as i64 - world.now.0 as i64;
    world.restart_ahead(2, boot);
    let invited = world.ticket(2, Role::Writer, 1, 60_000).unwrap_err();
    assert!(matches!(invited, Error::Denied(_) | Error::Invalid(_)), "{invited}");
    world.connect_all();
    world.expire_after_half_a_day(2);
    world.put(2, "notes/new", json!({})).unwrap();
    assert!(world.stamp_of(2, "notes/new").0.abs_diff(world.now.0) < SECOND);
    world.run(HOUR);
    assert!(world.get(0, "notes/old").is_some() && world.get(0, "notes/new").is_some());
    let clock = world.report(2).clock;
    assert!(clock.shows < Timestamp::EARLIEST && clock.expiry_waits.is_some(), "{clock:?}");
    // Set, while it runs, it is as any other.
    world.feed(2, vec![Input::ClockSet { ahead_ms: -boot }]);
    world.run(5 * SECOND);
    assert_eq!(world.agreement(2), Agreement::Agrees);
    assert!(world.report(2).clock.shows.0.abs_diff(world.now.0) < SECOND);
}

#[test]
fn a_jump_while_connected_is_noticed_at_both_ends() {
    let mut world = World::mesh(3);
    world.connect_all();
    world.feed(1, vec![Input::ClockSet { ahead_ms: DAY as i64 }]);
    world.run(SECOND);
    let report = world.report(1);
    assert_eq!(report.clock.agreement, Agreement::Contradicted);
    assert_eq!(report.clock.set.map(|(_, by_ms)| by_ms), Some(DAY as i64));
    let jumped = world.id(1);
    let told = world.report(0).neighbours.into_iter().find(|neighbour| neighbour.peer == jumped).unwrap();
    assert!(told.clock_ahead_ms.unwrap().abs_diff(DAY as i64) < SECOND, "{told:?}");
    assert_eq!(world.agreement(0), Agreement::Agrees);
    world.feed(1, vec![Input::ClockSet { ahead_ms: 0 }]);
    world.run(SECOND);
    assert_eq!(world.agreement(1), Agreement::Agrees);
    // Telling the time costs little when nothing happens.
    let before = world.sent.get("hello").copied().unwrap_or_default();
    world.run(HOUR);
    let told = world.sent.get("hello").copied().unwrap_or_default() - before;
    assert!((30..=42).contains(&told), "{told} greetings in an hour, of 3 peers to 2 each");
}

#[test]
fn a_newcomer_that_is_ahead_is_let_in_and_one_beside_a_wrong_clock_is_told_by_how_much() {
    let mut world = World::new(3);
    let ticket = world.ticket(0, Role::Writer, 2, HOUR).unwrap();
    world.restart_ahead(1, 2 * DAY as i64);
    world.links.clear();
    world.cut.clear();
    world.redeem(1, ticket.clone(), LocalDocuments::Leave).unwrap();
    assert_eq!(world.agreement(1), Agreement::Divided);
    // Now it is the peer that is asked whose clock is off.
    world.restart_ahead(0, 3 * DAY as i64);
    world.cut.clear();
    let refused = world.redeem(2, ticket, LocalDocuments::Leave).unwrap_err();
    let Error::Denied(why) = &refused else { panic!("{refused}") };
    assert!(why.contains("expired") && why.contains("which is 259200 s ahead of"), "{why}");
}
