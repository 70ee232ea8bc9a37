//! Members that lose their standing, and what becomes of them and of what they wrote.

use super::*;
use crate::access::{Fall, Member};
use crate::base::{ActorId, Hlc, Incarnation};
use crate::document::{Document, Envelope, Unchecked};

impl World {
    /// A mesh of 0, who founded it, 1 and 2; and 3 and 4, who joined apart by one ticket for one: 3 at the founder, 4 at
    /// peer 1. Nobody is connected.
    fn overused() -> Self {
        let mut world = Self::mesh(3);
        world.add(3);
        world.add(4);
        let addresses = [0, 1].map(|at| format!("/memory/{at}/p2p/{}", world.id(at))).to_vec();
        let terms = Terms { role: Role::Writer, expires: world.now.plus_ms(3_600_000), uses: 1 };
        let Reply::Ticket(ticket) = world.ask(0, Command::Invite { terms, addresses }).unwrap() else { panic!() };
        for (joiner, at) in [(3, 0), (4, 1)] {
            world.cut.extend([(joiner, 1 - at), (1 - at, joiner)]);
            world.reach(joiner, at);
            world.redeem(joiner, (*ticket).clone(), LocalDocuments::Leave).unwrap();
            world.put(joiner, &format!("notes/by-{joiner}"), json!({"n": joiner})).unwrap();
            world.run(3_000);
            world.disconnect_all();
        }
        world
    }

    /// Lets two peers dial each other.
    fn reach(&mut self, a: usize, b: usize) {
        self.cut.retain(|pair| ![(a, b), (b, a)].contains(pair));
    }

    fn falls(&mut self, at: usize) -> Vec<(PeerId, Fall)> {
        let Ok(Reply::Members(members)) = self.ask(at, Command::Members) else { panic!("no members") };
        members.into_iter().filter_map(|member| Some((member.peer, member.fall?))).collect()
    }

    fn parted(&mut self, at: usize) -> BTreeMap<&'static str, u64> {
        let Ok(Reply::Status(status)) = self.ask(at, Command::Status) else { panic!("no status") };
        status.counters.parted
    }
}

/// A document's first change, by a keypair that may be no member.
fn change(world: &World, author: u8, document: &str) -> Unchecked {
    let (keypair, incarnation) = (Keypair::from_seed([author + 1; 32]), Incarnation([9; 8]));
    let actor = ActorId::derive(&keypair.peer_id(), &incarnation);
    let (_, change) = Document::create(actor, Hlc::from_physical(world.now), &object(json!({"n": 1}))).unwrap();
    let node = &world.peers[0].node;
    let grant = node.members.check_author(&keypair.peer_id(), crate::access::Ability::Write).unwrap().id();
    Envelope::sign(&keypair, node.mesh(), key(document), incarnation, grant, change).to_unchecked()
}

#[test]
fn a_member_falls_when_the_two_sides_of_an_overused_ticket_meet_and_documents_do_not_part() {
    let mut world = World::overused();
    let fallen = world.id(4);
    world.connect(1, 4);
    world.run(1_000);
    assert!(world.links.contains(&(1, 4)));

    // Peer 1 hears of 3 from the founder, and parts from 4, which is told why.
    world.connect(0, 1);
    world.connect(0, 2);
    world.run(5_000);
    assert!(!world.links.contains(&(1, 4)));
    assert_eq!(world.parted(1).get("member_fell"), Some(&1));
    assert!(world.peers[1].events.contains(&Event::MemberFell(fallen)));
    for at in [0, 1, 2, 4] {
        assert_eq!(world.falls(at), [(fallen, Fall::UsedUp)], "at {at}");
    }
    // What it wrote before is the same for all, also for who never took it for a member.
    for at in [0, 1, 2] {
        assert_eq!(world.get(at, "notes/by-4"), Some(json!({"n": 4})), "at {at}");
        assert_eq!(world.state(at), world.state(0));
        assert_eq!(world.sync_report(at).letters, []);
    }
    let denied = world.put(4, "notes/more", json!({"n": 5})).unwrap_err();
    assert!(matches!(&denied, Error::Denied(why) if why.contains("ask an admin for a new ticket")), "{denied}");

    // It finds nobody who talks to it, also after a start.
    world.restart(4);
    assert_eq!(world.get(4, "notes/by-4"), Some(json!({"n": 4})));
    world.connect(2, 4);
    world.run(2_000);
    assert!(!world.links.contains(&(2, 4)));

    // A new ticket lets it in again, with all that it has.
    let ticket = world.ticket(0, Role::Writer, 1, 3_600_000).unwrap();
    world.reach(4, 0);
    world.redeem(4, ticket, LocalDocuments::Leave).unwrap();
    world.put(4, "notes/again", json!({"n": 6})).unwrap();
    world.run(5_000);
    for at in [0, 1, 2, 4] {
        assert_eq!(world.get(at, "notes/again"), Some(json!({"n": 6})), "at {at}");
        assert_eq!(world.state(at), world.state(0));
        assert_eq!(world.falls(at), []);
    }
}

#[test]
fn what_a_fallen_member_publishes_is_not_taken_and_a_member_may_bring_what_it_wrote() {
    let mut world = World::overused();
    world.connect(0, 1);
    world.connect(0, 2);
    world.run(5_000);
    let change = change(&world, 4, "notes/late");
    let mesh = world.peers[2].node.mesh();
    let from = world.id(0);
    let changes = crate::sync::check(mesh, vec![change.clone()]);
    world.feed(2, vec![Input::Published { from, id: 7, changes }]);
    assert_eq!(world.get(2, "notes/late"), None);
    let report = world.sync_report(2);
    assert_eq!(report.dropped.get("published_by_a_member_that_fell"), Some(&1));
    assert_eq!(report.letters, []);
    world.feed(2, vec![Input::Received(from, Box::new(Message::Changes { number: 1, changes: vec![change] }))]);
    assert_eq!(world.get(2, "notes/late"), Some(json!({"n": 1})));
}

#[test]
fn forged_member_records_are_counted_and_do_no_harm() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.run(1_000);
    let records = world.peers[1].node.members.records();
    let forge = |record: &MemberRecord| {
        let MemberRecord::Joined(joined) = record else { return record.clone() };
        let mut joined = (**joined).clone();
        joined.admission.signature.0[0] ^= 1;
        MemberRecord::Joined(joined.into())
    };
    let from = world.id(1);
    let before = world.peers[0].node.members.fingerprint();
    let forged = records.iter().map(forge).collect();
    world.feed(0, vec![Input::Received(from, Box::new(Message::Members(forged)))]);
    assert_eq!(world.peers[0].node.members.fingerprint(), before);
    assert_eq!(world.sync_report(0).dropped.get("bad_member_record"), Some(&2));
    assert_eq!(world.peers[0].node.members.iter().map(Member::peer).count(), 3);
}

#[test]
fn collections_of_the_system_take_changes_of_admins_only() {
    let mut world = World::mesh(3);
    world.connect(0, 1);
    world.connect(1, 2);
    world.run(1_000);
    let (by_writer, by_admin) = (change(&world, 2, "_mesh/writer"), change(&world, 0, "_mesh/admin"));
    let from = world.id(2);
    // Over a link, and over gossip.
    let changes = vec![by_writer.clone()];
    world.feed(1, vec![Input::Received(from, Box::new(Message::Changes { number: 1, changes }))]);
    let changes = crate::sync::check(world.peers[0].node.mesh(), vec![by_writer]);
    world.feed(0, vec![Input::Published { from: world.id(1), id: 7, changes }]);
    world.run(40_000);
    for at in [0, 1] {
        assert_eq!(world.get(at, "_mesh/writer"), None);
        let letters = world.sync_report(at).letters;
        assert_eq!(
            (letters[0].collection.as_str(), letters[0].reason, letters[0].count),
            ("_mesh", Reason::AuthorDenied, 1)
        );
    }
    world.feed(1, vec![Input::Received(from, Box::new(Message::Changes { number: 2, changes: vec![by_admin] }))]);
    assert_eq!(world.get(1, "_mesh/admin"), Some(json!({"n": 1})));
    // Once it is an admin its change counts.
    let ticket = world.ticket(0, Role::Admin, 1, 60_000).unwrap();
    let request = ticket.redeem(world.id(2), world.now);
    let at = Hlc::from_physical(world.now);
    let keypair = Keypair::from_seed([1; 32]);
    let admitted = world.peers[0].node.members.clone().admit(&request, &keypair, at).unwrap();
    let records = vec![admitted.member.record().clone()];
    world.feed(1, vec![Input::Received(from, Box::new(Message::Members(records)))]);
    assert_eq!(world.get(1, "_mesh/writer"), Some(json!({"n": 1})));
}
