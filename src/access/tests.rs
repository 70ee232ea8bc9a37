//! The whole of joining, read from top to bottom; attempts to get more than one was given; and convergence.

mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::{Decode, GrantId, Hlc, MeshId, PeerId, Timestamp};
use crate::identity::{Keypair, Signed, Verified};
use crate::limits::{CHAIN_LENGTH_MAX, MEMBERS_MAX, MEMBERS_WAITING_MAX};

const HOUR_MS: u64 = 3_600_000;
const START: Timestamp = Timestamp(1_800_000_000_000);

fn peer(number: u8) -> Keypair {
    Keypair::from_seed([number; 32])
}

fn at_ms(ms: u64) -> Hlc {
    Hlc::from_physical(START.plus_ms(ms))
}

fn genesis() -> Verified<Genesis> {
    Genesis::found("home", &peer(1), at_ms(0), [7; 16]).unwrap()
}

fn terms(role: Role, uses: u32) -> Terms {
    Terms { role, expires: START.plus_ms(HOUR_MS), uses }
}

/// A ticket with the one-time key `number`.
fn ticket(members: &Members, issuer: &Keypair, terms: Terms, number: u8) -> Ticket {
    members.invite(issuer, terms, [number; 32], [number; 16], Vec::new(), START).unwrap()
}

fn address(number: u8) -> String {
    format!("/ip4/192.0.2.{number}/udp/4001/quic-v1/p2p/{}", peer(number).peer_id())
}

/// Makes `joiner` a member by a fresh ticket of `issuer`, admitted by `admitter`.
fn join(members: &mut Members, issuer: &Keypair, admitter: &Keypair, joiner: &Keypair, role: Role, ms: u64) -> Member {
    let number = (ms % 251) as u8;
    let request = ticket(members, issuer, terms(role, 1), number).redeem(joiner.peer_id(), START);
    members.admit(&request, admitter, at_ms(ms)).unwrap().member
}

/// A joined record made by hand, so that it can break every rule; `forge` changes it before it is signed.
fn forged(
    mesh: MeshId,
    issuer: &Keypair,
    admitter: &Keypair,
    joiner: PeerId,
    role: Role,
    ms: u64,
    forge: impl FnOnce(&mut Admission),
) -> MemberRecord {
    // An invitation for this one alone.
    let mut nonce = blake3::Hasher::new();
    nonce.update(joiner.as_bytes()).update(admitter.peer_id().as_bytes()).update(&ms.to_le_bytes());
    let nonce = nonce.finalize().as_bytes()[..16].try_into().unwrap();
    let key = Keypair::from_seed([0xee; 32]);
    let invitation = Invitation {
        mesh,
        issuer: issuer.peer_id(),
        role,
        ticket_key: key.peer_id(),
        expires: START.plus_ms(HOUR_MS),
        uses: 1,
        nonce,
    };
    let invitation = Signed::sign(invitation, issuer);
    let redemption =
        Redemption { mesh, invitation: invitation.id(), ticket_key: key.peer_id(), joiner, at: START.plus_ms(ms) };
    let redemption = Signed::sign(redemption, &key);
    let mut admission = Admission {
        mesh,
        member: joiner,
        role,
        invitation: invitation.id(),
        redemption: redemption.id(),
        admitted_by: admitter.peer_id(),
        at: at_ms(ms),
    };
    forge(&mut admission);
    let admission = Signed::sign(admission, admitter);
    MemberRecord::Joined(Arc::new(Joined { invitation, redemption, admission }))
}

#[test]
fn joining_from_the_founding_to_the_first_write() {
    let (alice, bob, carol) = (peer(1), peer(2), peer(3));

    // Alice founds a mesh; she may do everything, and nobody else anything.
    let mut at_alice = Members::found(genesis());
    assert_eq!(at_alice.check(&alice.peer_id(), Ability::Invite).unwrap().role(), Role::Admin);
    let stranger = at_alice.check(&bob.peer_id(), Ability::Read);
    assert_eq!(stranger, Err(Denial::NotAMember { peer: bob.peer_id() }));

    // She sends Bob a ticket as text.
    let text =
        at_alice.invite(&alice, terms(Role::Writer, 2), [9; 32], [9; 16], vec![address(1)], START).unwrap().to_string();
    assert!(text.starts_with("aero1"), "{text}");

    // Bob reads it, finds Alice at its address, and shows her that he has it.
    let ticket = Ticket::parse(&text).unwrap();
    assert_eq!((ticket.role(), ticket.uses(), ticket.issuer()), (Role::Writer, 2, alice.peer_id()));
    assert_eq!(ticket.addresses(), [address(1)]);
    let request = ticket.redeem(bob.peer_id(), START.plus_ms(10));

    // Alice admits him, and gives him the table, which he checks from the genesis on.
    let admitted = at_alice.admit(&request, &alice, at_ms(20)).unwrap();
    assert_eq!(admitted.learned.new, std::slice::from_ref(&admitted.member));
    let mut at_bob = Members::found(ticket.genesis().clone());
    for record in at_alice.records() {
        at_bob.insert(record).unwrap();
    }
    assert_eq!(at_bob.fingerprint(), at_alice.fingerprint());

    // Carol joins with the other use of the ticket at Bob, while Alice is away.
    let request = ticket.redeem(carol.peer_id(), START.plus_ms(30));
    let carols = at_bob.admit(&request, &bob, at_ms(40)).unwrap().member;

    // Alice learns of it later, and the tables agree again.
    assert_ne!(at_alice.fingerprint(), at_bob.fingerprint());
    let learned = at_alice.insert(carols.record().clone());
    assert_eq!(learned, Ok(Insertion::Inserted(vec![carols.clone()])));
    assert_eq!(at_alice.fingerprint(), at_bob.fingerprint());

    // Carol writes with a grant that names her record; inviting is not for writers.
    let grant = at_alice.check(&carol.peer_id(), Ability::Write).unwrap();
    assert_eq!((grant.peer(), grant.id(), grant.ability()), (carol.peer_id(), carols.grant(), Ability::Write));
    assert_eq!((grant.mesh(), grant.role()), (at_alice.mesh(), Role::Writer));
    let denied = at_alice.check(&carol.peer_id(), Ability::Invite).unwrap_err();
    assert_eq!(denied, Denial::RoleTooLow { peer: carol.peer_id(), role: Role::Writer, ability: Ability::Invite });
    assert!(denied.to_string().contains("ask an admin"), "{denied}");
}

#[test]
fn a_joiner_who_asks_again_gets_the_same_record() {
    let (alice, bob) = (peer(1), peer(2));
    let mut members = Members::found(genesis());
    let ticket = ticket(&members, &alice, terms(Role::Writer, 1), 9);
    let first = members.admit(&ticket.redeem(bob.peer_id(), START), &alice, at_ms(10)).unwrap();
    let before = members.fingerprint();

    // The same request again, a fresh one, and one after the expiry: nothing changes.
    for (redeemed, ms) in [(0, 20), (15, 20), (0, 2 * HOUR_MS)] {
        let request = ticket.redeem(bob.peer_id(), START.plus_ms(redeemed));
        let again = members.admit(&request, &alice, at_ms(ms)).unwrap();
        assert_eq!((again.member, again.learned), (first.member.clone(), Learned::default()));
    }
    assert_eq!(members.fingerprint(), before);
    assert_eq!(members.insert(first.member.record().clone()), Ok(Insertion::Known));
}

#[test]
fn refusals_name_their_reason() {
    let (alice, bob, carol, mallory) = (peer(1), peer(2), peer(3), peer(66));
    let mut members = Members::found(genesis());
    let empty = members.fingerprint();
    let ticket = ticket(&members, &alice, terms(Role::Writer, 1), 9);
    let request = ticket.redeem(bob.peer_id(), START);

    let expired = members.admit(&request, &alice, at_ms(HOUR_MS + 1_500)).unwrap_err();
    assert!(expired.to_string().starts_with("the ticket expired 2 s ago: ask an admin"), "{expired}");
    assert_eq!(members.admit(&request, &mallory, at_ms(10)), Err(Refusal::NotAMember));

    let foreign = Genesis::found("home", &alice, at_ms(0), [8; 16]).unwrap();
    let mut foreign = Members::found(foreign);
    let mesh = foreign.mesh();
    assert_eq!(foreign.admit(&request, &alice, at_ms(10)), Err(Refusal::ForeignMesh { mesh }));

    // A redemption that is seen on its way is of no use to another.
    let mut stolen = request.clone();
    stolen.redemption.body.joiner = mallory.peer_id();
    assert_eq!(members.admit(&stolen, &alice, at_ms(10)), Err(Refusal::BadProof));
    // Nor does it count under another invitation.
    let mut moved = request.clone();
    moved.invitation =
        self::ticket(&members, &alice, terms(Role::Admin, 1), 10).redeem(bob.peer_id(), START).invitation;
    assert_eq!(members.admit(&moved, &alice, at_ms(10)), Err(Refusal::BadProof));
    assert_eq!(members.fingerprint(), empty);

    // The last moment still counts.
    members.admit(&request, &alice, at_ms(HOUR_MS)).unwrap();
    let used = members.admit(&ticket.redeem(carol.peer_id(), START), &alice, at_ms(10)).unwrap_err();
    assert_eq!(used, Refusal::UsedUp { uses: 1 });
    assert!(!used.may_pass_elsewhere());
}

#[test]
fn nobody_raises_a_role_by_themselves() {
    let (alice, writer, reader, joiner) = (peer(1), peer(2), peer(3), peer(4));
    let mut members = Members::found(genesis());
    join(&mut members, &alice, &alice, &writer, Role::Writer, 10);
    join(&mut members, &alice, &alice, &reader, Role::Reader, 20);
    let mesh = members.mesh();

    // A writer makes no ticket, not even with a hand-made invitation.
    let made = members.invite(&writer, terms(Role::Reader, 1), [9; 32], [9; 16], Vec::new(), START);
    assert!(matches!(made, Err(crate::Error::Denied(_))));
    let record = forged(mesh, &writer, &alice, joiner.peer_id(), Role::Reader, 30, |_| {});
    let joined = record.joined().unwrap().clone();
    let request = JoinRequest { chain: Vec::new(), invitation: joined.invitation, redemption: joined.redemption };
    let issuer = writer.peer_id();
    assert_eq!(members.admit(&request, &alice, at_ms(30)), Err(Refusal::IssuerNotAdmin { issuer }));
    assert_eq!(members.insert(record), Ok(Insertion::Waiting(Need::Admin(issuer))));

    // A reader admits, but only to the role that the admin invited to.
    let readers = join(&mut members, &alice, &reader, &joiner, Role::Writer, 40);
    assert_eq!(readers.role(), Role::Writer);
    let raised = forged(mesh, &alice, &reader, joiner.peer_id(), Role::Writer, 50, |a| a.role = Role::Admin);
    assert_eq!(members.insert(raised), Err(Rejected::Inconsistent("the role is not the one invited to")));

    // The ticket's holder cannot raise the role in the invitation: the admin's signature covers it.
    let ticket = ticket(&members, &alice, terms(Role::Reader, 1), 9);
    let mut request = ticket.redeem(peer(5).peer_id(), START);
    request.invitation.body.role = Role::Admin;
    let redemption = Redemption { invitation: request.invitation.id(), ..request.redemption.body };
    request.redemption = Signed::sign(redemption, &Keypair::from_seed([9; 32]));
    assert_eq!(members.admit(&request, &alice, at_ms(60)), Err(Refusal::BadProof));

    // A reader with a ticket for more asks somebody else.
    let request = self::ticket(&members, &alice, terms(Role::Writer, 1), 11).redeem(reader.peer_id(), START);
    assert_eq!(members.admit(&request, &reader, at_ms(70)), Err(Refusal::SelfAdmission));
    assert_eq!(members.admit(&request, &writer, at_ms(70)).unwrap().member.role(), Role::Writer);
    assert_eq!(members.len(), 4);
}

#[test]
fn records_that_contradict_themselves_never_count() {
    let (alice, bob) = (peer(1), peer(2));
    let mut members = Members::found(genesis());
    let mesh = members.mesh();
    type Forge = fn(&mut Admission);
    let forgeries: [Forge; 6] = [
        |a| a.member = peer(66).peer_id(),
        |a| a.role = Role::Reader,
        |a| a.invitation.0[0] ^= 1,
        |a| a.redemption.0[0] ^= 1,
        |a| a.at = at_ms(HOUR_MS + 1),
        |a| a.at = Hlc::MAX,
    ];
    for forge in forgeries {
        let record = forged(mesh, &alice, &alice, bob.peer_id(), Role::Writer, 10, forge);
        assert!(matches!(members.insert(record), Err(Rejected::Inconsistent(_))));
    }
    let elsewhere = forged(MeshId([9; 32]), &alice, &alice, bob.peer_id(), Role::Writer, 10, |_| {});
    assert_eq!(members.insert(elsewhere), Err(Rejected::ForeignMesh));
    let itself = forged(mesh, &alice, &bob, bob.peer_id(), Role::Writer, 10, |_| {});
    assert!(matches!(members.insert(itself), Err(Rejected::Inconsistent(_))));
    let impostor =
        forged(mesh, &alice, &bob, peer(3).peer_id(), Role::Writer, 10, |a| a.admitted_by = peer(1).peer_id());
    assert!(matches!(members.insert(impostor), Err(Rejected::BadSignature(_))));
    // Two who vouch for each other wait for ever.
    for (one, other) in [(2, 3), (3, 2)] {
        let record = forged(mesh, &alice, &peer(one), peer(other).peer_id(), Role::Writer, 10, |_| {});
        assert_eq!(members.insert(record), Ok(Insertion::Waiting(Need::Member(peer(one).peer_id()))));
    }
    assert_eq!(members.len(), 1);
}

#[test]
fn a_member_cannot_admit_without_the_ticket() {
    let (alice, mallory, key) = (peer(1), peer(66), Keypair::from_seed([0xee; 32]));
    let mut members = Members::found(genesis());
    join(&mut members, &alice, &alice, &mallory, Role::Reader, 10);
    let honest = forged(members.mesh(), &alice, &mallory, peer(3).peer_id(), Role::Admin, 20, |_| {});
    // Mallory knows Alice's invitation, and makes up what she lacks.
    let claim = |invitation: Invitation, signs: &Keypair, ticket_key: PeerId, redeems: &Keypair| {
        let joined = honest.joined().unwrap().clone();
        let invitation = Signed::sign(invitation, signs);
        let redemption = Redemption { invitation: invitation.id(), ticket_key, ..joined.redemption.body };
        let redemption = Signed::sign(redemption, redeems);
        let (role, invited, redeemed) = (invitation.body.role, invitation.id(), redemption.id());
        let admission = Admission { role, invitation: invited, redemption: redeemed, ..joined.admission.body };
        let admission = Signed::sign(admission, &mallory);
        members.clone().insert(MemberRecord::Joined(Arc::new(Joined { invitation, redemption, admission })))
    };
    let body = honest.joined().unwrap().invitation.body.clone();
    let hers = mallory.peer_id();

    assert!(matches!(claim(body.clone(), &alice, key.peer_id(), &key), Ok(Insertion::Inserted(_))));
    let forged_proof = claim(body.clone(), &alice, key.peer_id(), &mallory);
    assert!(matches!(forged_proof, Err(Rejected::BadSignature(_))));
    let other_key = claim(body.clone(), &alice, hers, &mallory);
    assert_eq!(other_key, Err(Rejected::Inconsistent("the ticket key is another")));
    let forged_invitation = claim(Invitation { ticket_key: hers, ..body.clone() }, &mallory, hers, &mallory);
    assert!(matches!(forged_invitation, Err(Rejected::BadSignature(_))));
    let own = claim(Invitation { ticket_key: hers, issuer: hers, ..body.clone() }, &mallory, hers, &mallory);
    assert_eq!(own, Ok(Insertion::Waiting(Need::Admin(hers))));
    let elsewhere = claim(Invitation { mesh: MeshId([9; 32]), ..body }, &alice, key.peer_id(), &key);
    assert_eq!(elsewhere, Err(Rejected::ForeignMesh));
}

#[test]
fn an_admitter_who_does_not_know_the_issuer_learns_it_from_the_request() {
    let (alice, bob, carol, dave) = (peer(1), peer(2), peer(3), peer(4));
    let mut at_alice = Members::found(genesis());
    join(&mut at_alice, &alice, &alice, &dave, Role::Reader, 5);
    let mut at_dave = at_alice.clone();
    join(&mut at_alice, &alice, &alice, &bob, Role::Admin, 10);
    let ticket = ticket(&at_alice, &bob, terms(Role::Writer, 1), 9);
    let ticket = Ticket::parse(&ticket.to_string()).unwrap();
    let request = ticket.redeem(carol.peer_id(), START);

    // Without the chain it cannot be judged, and a refusal leaves no trace.
    let before = at_dave.fingerprint();
    let issuer = bob.peer_id();
    let bare = JoinRequest { chain: Vec::new(), ..request.clone() };
    assert_eq!(at_dave.admit(&bare, &dave, at_ms(20)), Err(Refusal::IssuerUnknown { issuer }));
    assert!(matches!(at_dave.admit(&request, &dave, at_ms(2 * HOUR_MS)), Err(Refusal::Expired { .. })));
    assert_eq!(at_dave.fingerprint(), before);

    let admitted = at_dave.admit(&request, &dave, at_ms(20)).unwrap();
    let new: Vec<_> = admitted.learned.new.iter().map(Member::peer).collect();
    assert_eq!(new, [bob.peer_id(), carol.peer_id()]);
}

#[test]
fn a_membership_begins_after_those_it_rests_on_whatever_the_clocks_say() {
    let (alice, bob, carol) = (peer(1), peer(2), peer(3));
    let mut members = Members::found(genesis());
    // Bob was admitted by a clock half an hour ahead; his own shows the true time.
    let bobs = join(&mut members, &alice, &alice, &bob, Role::Writer, HOUR_MS / 2);
    let carols = join(&mut members, &alice, &bob, &carol, Role::Reader, 10);
    assert!(carols.since() > bobs.since());
    assert_eq!(carols.since().physical(), bobs.since().physical());
    // A clock behind the founding itself is no harm either.
    let before = Hlc::from_physical(Timestamp(1));
    let request = ticket(&members, &alice, terms(Role::Reader, 1), 99).redeem(peer(5).peer_id(), START);
    assert!(members.admit(&request, &alice, before).unwrap().member.since() > at_ms(0));
}

#[test]
fn a_forged_end_of_time_is_refused_without_harm() {
    let (alice, mallory) = (peer(1), peer(66));
    let mut members = Members::found(genesis());
    let forever = Terms { role: Role::Admin, expires: Timestamp(u64::MAX), uses: 1 };
    let request = ticket(&members, &alice, forever, 9).redeem(mallory.peer_id(), START);
    let last = Hlc::from_packed(Hlc::MAX.packed() - 1).unwrap();
    members.admit(&request, &alice, last).unwrap();
    let request = ticket(&members, &mallory, forever, 10).redeem(peer(2).peer_id(), START);
    assert!(matches!(members.admit(&request, &alice, at_ms(20)), Err(Refusal::Expired { .. })));
}

#[test]
fn a_raised_member_keeps_the_record_that_others_rest_on() {
    let (alice, bob, carol) = (peer(1), peer(2), peer(3));
    let mut members = Members::found(genesis());
    // Bob admits Carol as a reader, then Carol admits Bob as an admin: each rests on the other.
    join(&mut members, &alice, &alice, &bob, Role::Reader, 10);
    join(&mut members, &alice, &bob, &carol, Role::Reader, 20);
    join(&mut members, &alice, &carol, &bob, Role::Admin, 30);
    assert_eq!(members.get(&bob.peer_id()).unwrap().role(), Role::Admin);

    let mut newcomer = Members::found(genesis());
    for record in members.records() {
        assert!(!matches!(newcomer.insert(record).unwrap(), Insertion::Waiting(_)));
    }
    assert_eq!(newcomer.fingerprint(), members.fingerprint());
    assert_eq!(newcomer.records().len(), 4);
    assert_eq!(newcomer.iter().count(), 3);
}

#[test]
fn invitations_follow_their_rules() {
    let (alice, now) = (peer(1), START);
    let members = Members::found(genesis());
    let invite = |terms, addresses| members.invite(&alice, terms, [9; 32], [9; 16], addresses, now);
    assert!(invite(terms(Role::Reader, 1_000), vec![address(1); 16]).is_ok());
    for uses in [0, 1_001] {
        assert!(invite(terms(Role::Reader, uses), Vec::new()).is_err());
    }
    assert!(invite(Terms { expires: now, ..terms(Role::Reader, 1) }, Vec::new()).is_err());
    assert!(invite(terms(Role::Reader, 1), vec![address(1); 17]).is_err());
    let peer = alice.peer_id();
    let long = format!("/dns4/{}/tcp/1/p2p/{peer}", "x".repeat(512));
    for bad in ["", "/ip4/192.0.2.1/tcp/1", "/p2p/", "ip4/192.0.2.1", &format!("/ip4/1 2/p2p/{peer}"), &long] {
        assert!(invite(terms(Role::Reader, 1), vec![bad.to_owned()]).is_err(), "{bad:?}");
    }
}

#[test]
fn the_line_of_admins_is_bounded() {
    let mut members = Members::found(genesis());
    let mut issuer = peer(1);
    for number in 0..CHAIN_LENGTH_MAX as u8 {
        let next = peer(10 + number);
        join(&mut members, &issuer, &peer(1), &next, Role::Admin, 10 + u64::from(number));
        issuer = next;
    }
    // The last of the line invites others, with a ticket that shows the whole line, but no further admin.
    let text = ticket(&members, &issuer, terms(Role::Writer, 1), 9).to_string();
    let request = Ticket::parse(&text).unwrap().redeem(peer(99).peer_id(), START);
    assert_eq!(request.chain.len(), CHAIN_LENGTH_MAX);
    let mut fresh = Members::found(genesis());
    assert_eq!(fresh.admit(&request, &peer(1), at_ms(50)).unwrap().learned.new.len(), CHAIN_LENGTH_MAX + 1);
    let refused = members.invite(&issuer, terms(Role::Admin, 1), [8; 32], [8; 16], Vec::new(), START).unwrap_err();
    assert!(refused.to_string().contains("joined earlier"), "{refused}");
}

#[test]
fn waiting_records_are_bounded_and_the_oldest_give_way() {
    let alice = peer(1);
    let mut members = Members::found(genesis());
    let bobs = join(&mut members, &alice, &alice, &peer(2), Role::Writer, 10);
    let mesh = members.mesh();
    let mut elsewhere = Members::found(genesis());
    let joiner = |number: usize| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        PeerId(seed)
    };
    for number in 0..=MEMBERS_WAITING_MAX {
        let record = forged(mesh, &alice, &peer(2), joiner(number), Role::Reader, 20, |_| {});
        assert_eq!(elsewhere.insert(record), Ok(Insertion::Waiting(Need::Member(peer(2).peer_id()))));
    }
    let Insertion::Inserted(released) = elsewhere.insert(bobs.record().clone()).unwrap() else {
        panic!("not inserted")
    };
    assert_eq!(released.len(), 1 + MEMBERS_WAITING_MAX);
    assert!(elsewhere.get(&joiner(0)).is_none());
    assert!(elsewhere.get(&joiner(1)).is_some());
}

#[test]
fn a_full_mesh_takes_no_more() {
    let alice = peer(1);
    let mut members = Members::found(genesis());
    let mesh = members.mesh();
    let joins = (1..MEMBERS_MAX).map(|number| {
        let mut joiner = PeerId([0; 32]);
        joiner.0[..8].copy_from_slice(&(number as u64).to_be_bytes());
        forged(mesh, &alice, &alice, joiner, Role::Reader, 20, |_| {}).verify(&mesh).unwrap()
    });
    members.learn(joins.collect());
    assert_eq!(members.len(), MEMBERS_MAX);
    let request = ticket(&members, &alice, terms(Role::Reader, 1), 9).redeem(peer(200).peer_id(), START);
    assert_eq!(members.admit(&request, &alice, at_ms(30)), Err(Refusal::Full));
    // Who are in is decided alike whatever came last.
    let mut late = forged(mesh, &alice, &alice, peer(200).peer_id(), Role::Reader, 20, |_| {});
    let learned = members.learn(vec![late.clone().verify(&mesh).unwrap()]);
    assert_eq!((members.len(), learned.new.len()), (MEMBERS_MAX, 1));
    let out = *members.fallen().map(|(member, fall)| (member.peer(), fall)).collect::<Vec<_>>().first().unwrap();
    assert_eq!(out.1, Fall::Full);
    // Those who are in can still be raised.
    let inside = members.iter().map(Member::peer).find(|peer| *peer != alice.peer_id()).unwrap();
    late = forged(mesh, &alice, &alice, inside, Role::Writer, 40, |_| {});
    assert!(matches!(members.insert(late), Ok(Insertion::Inserted(_))));
    assert_eq!(members.get(&inside).unwrap().role(), Role::Writer);
}

/// One step of a random history: (issuer, admitter, joiner, role, which view it happens in, ms).
type Step = (u8, u8, u8, u8, usize, u64);

fn role(number: u8) -> Role {
    [Role::Reader, Role::Writer, Role::Admin][usize::from(number % 3)]
}

/// Plays steps on two views that never talk, and adds records made by hand with no regard for what is allowed.
fn history(steps: &[Step]) -> Vec<MemberRecord> {
    let mut views = [Members::found(genesis()), Members::found(genesis())];
    let mut records = Vec::new();
    for &(issuer, admitter, joiner, number, view, ms) in steps {
        let (issuer, admitter, joiner) = (peer(1 + issuer), peer(1 + admitter), peer(1 + joiner).peer_id());
        let record = forged(views[0].mesh(), &issuer, &admitter, joiner, role(number), ms, |_| {});
        let joined = record.joined().unwrap().clone();
        records.push(record);
        let request = JoinRequest { chain: Vec::new(), invitation: joined.invitation, redemption: joined.redemption };
        if let Ok(admitted) = views[view].admit(&request, &admitter, at_ms(ms)) {
            records.push(admitted.member.record().clone());
        }
    }
    records
}

/// The roles by the rules alone: whatever rests on earlier records that count, counts.
fn model(records: &[MemberRecord]) -> BTreeMap<PeerId, Role> {
    let genesis = MemberRecord::Founder(Arc::new(genesis().into_signed()));
    let mesh = Members::found(self::genesis()).mesh();
    let mut counting = vec![genesis];
    let mut left: Vec<_> = records.iter().filter(|r| (*r).clone().verify(&mesh).is_ok()).cloned().collect();
    loop {
        let counts = |record: &MemberRecord| {
            let Some(joined) = record.joined() else { return true };
            let (issuer, admitter) = (joined.invitation.body.issuer, joined.admission.body.admitted_by);
            let earlier = |c: &&MemberRecord| c.since() < record.since();
            counting.iter().filter(earlier).any(|c| c.peer() == issuer && c.role() == Role::Admin)
                && counting.iter().filter(earlier).any(|c| c.peer() == admitter)
        };
        let (new, rest): (Vec<_>, Vec<_>) = left.iter().cloned().partition(counts);
        if new.is_empty() {
            break;
        }
        counting.extend(new);
        left = rest;
    }
    let mut roles = BTreeMap::new();
    for record in counting {
        let best = roles.entry(record.peer()).or_insert(record.role());
        *best = record.role().max(*best);
    }
    roles
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_converge_in_every_order_of_arrival(
        (steps, orders) in prop::collection::vec((0u8..3, 0u8..5, 0u8..5, 0u8..3, 0usize..2, 1u64..12), 1..14)
            .prop_flat_map(|steps| {
                let records = history(&steps);
                (Just(steps), prop::collection::vec(Just(records).prop_shuffle(), 3))
            })
    ) {
        let expected = model(&history(&steps));
        let mut fingerprints = BTreeSet::new();
        for order in orders {
            let mut members = Members::found(genesis());
            let mut stored = BTreeMap::new();
            for record in &order {
                let Ok(record) = record.clone().verify(&members.mesh()) else { continue };
                let learned = members.learn(vec![record]);
                learned.gone.iter().for_each(|gone| _ = stored.remove(&gone.grant()));
                stored.extend(learned.new.into_iter().map(|new| (new.grant(), new.record().clone())));
            }
            // Everything again changes nothing.
            let fingerprint = members.fingerprint();
            for record in &order {
                let again = members.insert(record.clone());
                prop_assert!(!matches!(again, Ok(Insertion::Inserted(_))));
            }
            prop_assert_eq!(members.fingerprint(), fingerprint);

            let roles: BTreeMap<_, _> = members.iter().map(|m| (m.peer(), m.role())).collect();
            prop_assert_eq!(&roles, &expected);

            // What the table hands on is enough for a newcomer, and so is what was reported to be stored.
            let mut newcomer = Members::found(genesis());
            for record in members.records() {
                prop_assert!(!matches!(newcomer.insert(record), Ok(Insertion::Waiting(_)) | Err(_)));
            }
            prop_assert_eq!(newcomer.fingerprint(), fingerprint);
            let restored = Members::restore(genesis(), stored.into_values()).unwrap();
            prop_assert_eq!(restored.fingerprint(), fingerprint);
            fingerprints.insert(fingerprint);
        }
        prop_assert_eq!(fingerprints.len(), 1);
    }
}

proptest! {
    #[test]
    fn decoders_withstand_garbage(bytes in prop::collection::vec(any::<u8>(), 0..900), tag in 0u8..3, text: String) {
        let tagged = [&[1, tag], bytes.as_slice()].concat();
        for bytes in [&bytes, &tagged] {
            prop_assert!(MemberRecord::from_bytes(bytes).is_err());
            prop_assert!(JoinRequest::from_bytes(bytes).is_err());
            // What decodes is what would have been encoded.
            if let Ok(refusal) = Refusal::from_bytes(bytes) {
                prop_assert_eq!(&crate::base::Encode::to_bytes(&refusal), bytes);
            }
        }
        prop_assert!(Ticket::parse(&text).is_err());
        let text = format!("aero1{text}");
        prop_assert!(Ticket::parse(&text).is_err());
    }

    #[test]
    fn a_mutated_record_or_request_never_counts(at: prop::sample::Index, bit in 0u8..8, founder: bool) {
        use crate::base::Encode;

        let alice = peer(1);
        let mut members = Members::found(genesis());
        let ticket = ticket(&members, &alice, terms(Role::Writer, 2), 9);
        let bobs = members.admit(&ticket.redeem(peer(2).peer_id(), START), &alice, at_ms(10)).unwrap().member;
        let record = if founder { members.records()[0].clone() } else { bobs.record().clone() };

        let mut bytes = record.to_bytes();
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        if let Ok(record) = MemberRecord::from_bytes(&bytes) {
            prop_assert!(members.insert(record).is_err());
        }

        let mut bytes = ticket.redeem(peer(3).peer_id(), START).to_bytes();
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        if let Ok(request) = JoinRequest::from_bytes(&bytes) {
            let admitted = members.admit(&request, &alice, at_ms(20));
            let refused = matches!(admitted, Err(Refusal::BadProof | Refusal::ForeignMesh { .. }));
            prop_assert!(refused);
        }
    }

    #[test]
    fn a_mistyped_or_cut_ticket_is_told_apart(at: prop::sample::Index, letter in "[a-z2-7]", odd in "[0189_.-]") {
        let members = Members::found(genesis());
        let made = members.invite(&peer(1), terms(Role::Reader, 3), [9; 32], [9; 16], vec![address(1)], START).unwrap();
        let text = made.to_string();
        let position = 5 + at.index(text.len() - 5);

        let mut typed = text.clone();
        typed.replace_range(position..=position, &letter);
        if typed != text {
            let told = matches!(Ticket::parse(&typed), Err(TicketError::Damaged | TicketError::Cut { .. }));
            prop_assert!(told);
        }
        typed.replace_range(position..=position, &odd);
        let character = odd.chars().next().unwrap();
        let expected = TicketError::Character { character, position: position + 1 };
        prop_assert_eq!(Ticket::parse(&typed).unwrap_err(), expected);
        let cut = matches!(Ticket::parse(&text[..position]), Err(TicketError::Cut { .. }));
        prop_assert!(cut);

        let mut swapped = text.clone().into_bytes();
        swapped.swap(position, position.max(6) - 1);
        let swapped = String::from_utf8(swapped).unwrap();
        prop_assert_eq!(Ticket::parse(&swapped).is_ok(), swapped == text);
    }
}

#[test]
fn tickets_read_back_as_they_were_made() {
    let members = Members::found(genesis());
    let made = members.invite(&peer(1), terms(Role::Reader, 3), [9; 32], [9; 16], vec![address(1)], START).unwrap();
    let text = made.to_string();
    let broken = |(i, c): (usize, char)| if i % 60 == 59 { format!("{c}\r\n ") } else { c.to_string() };
    let wrapped: String = text.chars().enumerate().map(broken).collect();
    for variant in [text.clone(), text.to_uppercase(), format!("  {wrapped}\n")] {
        let read = Ticket::parse(&variant).unwrap();
        assert_eq!(read.to_string(), text);
        assert_eq!((read.mesh(), read.expires(), read.addresses()), (made.mesh(), made.expires(), made.addresses()));
        assert_eq!(read.redeem(peer(2).peer_id(), START), made.redeem(peer(2).peer_id(), START));
    }
    let shown = format!("{made:?}");
    assert!(!shown.contains("0909") && !shown.contains("9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9"), "{shown}");
}

#[test]
fn what_is_not_a_ticket_of_ours_is_said_clearly() {
    let members = Members::found(genesis());
    let text = ticket(&members, &peer(1), terms(Role::Reader, 1), 9).to_string();
    let parse = |text: &str| Ticket::parse(text).unwrap_err();
    for other in ["", "aero", "hello", "aerox", &text[1..]] {
        assert_eq!(parse(other), TicketError::NotATicket, "{other:?}");
    }
    assert_eq!(parse(&text.replacen('1', "2", 1)), TicketError::Newer('2'));
    assert!(matches!(parse(&format!("aero1{}", "a".repeat(20_000))), TicketError::TooLong { .. }));
    assert_eq!(parse(&format!("{text}aa")), TicketError::Damaged);
    assert!(matches!(crate::Error::from(parse("x")), crate::Error::Invalid(_)));
}

#[test]
fn a_ticket_that_does_not_hold_is_refused_with_its_reason() {
    let (alice, bob) = (peer(1), peer(2));
    let mut members = Members::found(genesis());
    join(&mut members, &alice, &alice, &bob, Role::Writer, 10);
    let bobs = members.get(&bob.peer_id()).unwrap().record().clone();
    let genesis = members.genesis().as_signed().clone();
    let by = |issuer: &Keypair, chain: &[MemberRecord], key: u8| {
        let invitation = forged(members.mesh(), issuer, issuer, peer(3).peer_id(), Role::Reader, 10, |_| {});
        let invitation = invitation.joined().unwrap().invitation.clone();
        Ticket::assemble(genesis.clone(), chain.to_vec(), invitation, Keypair::from_seed([key; 32]), Vec::new())
    };
    assert!(by(&alice, &[], 0xee).is_ok());
    let why = |made: Result<Ticket, TicketError>| made.unwrap_err().to_string();
    assert!(why(by(&alice, &[], 0x11)).contains("the key is not the invitation's"));
    assert!(why(by(&bob, &[], 0xee)).contains("not shown to be an admin"));
    assert!(why(by(&bob, &[bobs], 0xee)).contains("not shown to be an admin"));
}

#[test]
fn refusals_round_trip() {
    use crate::base::Encode;

    let (mesh, issuer) = (MeshId([1; 32]), peer(1).peer_id());
    let (expires, now) = (START, START.plus_ms(1));
    for refusal in [
        Refusal::ForeignMesh { mesh },
        Refusal::NotAMember,
        Refusal::BadProof,
        Refusal::IssuerUnknown { issuer },
        Refusal::IssuerNotAdmin { issuer },
        Refusal::Expired { expires, now },
        Refusal::UsedUp { uses: 3 },
        Refusal::SelfAdmission,
        Refusal::Full,
    ] {
        assert_eq!(Refusal::from_bytes(&refusal.to_bytes()), Ok(refusal));
    }
}
