//! Which joins stand: tickets that are used more often than they may be, by chance and by malice, in every order.

use super::*;
use crate::limits::INVITATION_SPARE_MAX;

/// A peer of thousands.
fn anybody(number: u64) -> Keypair {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Keypair::from_seed(seed)
}

/// A ticket of `issuer`, whether or not it may invite.
fn invitation(issuer: &Keypair, role: Role, uses: u32, number: u8) -> Signed<Invitation> {
    let (mesh, ticket_key) = (Members::found(genesis()).mesh(), peer(number).peer_id());
    let (issuer_id, expires, nonce) = (issuer.peer_id(), START.plus_ms(HOUR_MS), [number; 16]);
    Signed::sign(Invitation { mesh, issuer: issuer_id, role, ticket_key, expires, uses, nonce }, issuer)
}

/// A join by an invitation that [`invitation`] made under `number`, as anybody who knows the ticket can sign it.
fn sign(invitation: &Signed<Invitation>, number: u8, admitter: &Keypair, joiner: PeerId, ms: u64) -> Member {
    let Invitation { mesh, ticket_key, role, .. } = invitation.body;
    let id = invitation.id();
    let redemption = Redemption { mesh, invitation: id, ticket_key, joiner, at: START };
    let redemption = Signed::sign(redemption, &peer(number));
    let (redeemed, admitted_by) = (redemption.id(), admitter.peer_id());
    let admission =
        Admission { mesh, member: joiner, role, invitation: id, redemption: redeemed, admitted_by, at: at_ms(ms) };
    let admission = Signed::sign(admission, admitter);
    let joined = Joined { invitation: invitation.clone(), redemption, admission };
    MemberRecord::Joined(Arc::new(joined)).verify(&mesh).unwrap()
}

/// The table after these records, one at a time.
fn table<'a>(records: impl IntoIterator<Item = &'a Member>) -> Members {
    let mut members = Members::found(genesis());
    for record in records {
        members.learn(vec![record.clone()]);
    }
    members
}

/// The same table, and the same standing, by the records in this order, backwards, and all at once.
fn settled(records: &[Member]) -> Members {
    let (forth, back) = (table(records), table(records.iter().rev()));
    let mut at_once = Members::found(genesis());
    at_once.learn(records.to_vec());
    for other in [back, at_once] {
        assert_eq!(other.fingerprint(), forth.fingerprint());
        assert_eq!(standing(&other), standing(&forth));
    }
    forth
}

fn standing(members: &Members) -> BTreeMap<PeerId, (Role, Hlc)> {
    members.iter().map(|member| (member.peer(), (member.role(), member.since()))).collect()
}

#[test]
fn a_used_ticket_mints_nobody() {
    let (alice, mallory) = (peer(1), peer(2));
    let mut honest = Members::found(genesis());
    let ticket = ticket(&honest, &alice, terms(Role::Writer, 1), 9);
    honest.admit(&ticket.redeem(mallory.peer_id(), START), &alice, at_ms(10)).unwrap();
    let before = honest.fingerprint();

    // Much later, alone, and dated back: it holds the ticket, and signs the admissions itself.
    let mint = |number| {
        let request = ticket.redeem(anybody(number).peer_id(), START.plus_ms(365 * 24 * HOUR_MS));
        let admission = Admission {
            mesh: honest.mesh(),
            member: request.redemption.body.joiner,
            role: Role::Writer,
            invitation: request.invitation.id(),
            redemption: request.redemption.id(),
            admitted_by: mallory.peer_id(),
            at: at_ms(11),
        };
        let JoinRequest { invitation, redemption, .. } = request;
        let admission = Signed::sign(admission, &mallory);
        MemberRecord::Joined(Arc::new(Joined { invitation, redemption, admission })).verify(&honest.mesh()).unwrap()
    };
    let minted: Vec<Member> = (0..500).map(mint).collect();
    let mut one_by_one = honest.clone();
    for record in &minted {
        assert_eq!(one_by_one.insert(record.record().clone()), Ok(Insertion::Forgotten));
    }
    let mut at_once = honest.clone();
    assert_eq!(at_once.learn(minted.iter().rev().cloned().collect()), Learned::default());
    for members in [one_by_one, at_once] {
        assert_eq!((members.len(), members.fingerprint(), members.overused()), (2, before, Vec::new()));
        let minted = anybody(0).peer_id();
        assert_eq!(members.check_author(&minted, Ability::Write), Err(Denial::NotAMember { peer: minted }));
    }
}

#[test]
fn of_two_who_were_let_in_apart_with_one_ticket_the_one_whom_an_admin_admitted_stands() {
    let (alice, bob) = (peer(1), peer(2));
    let mut at_alice = Members::found(genesis());
    join(&mut at_alice, &alice, &alice, &bob, Role::Writer, 5);
    let mut at_bob = at_alice.clone();
    let ticket = ticket(&at_alice, &alice, terms(Role::Writer, 1), 9);

    let carol = peer(3).peer_id();
    let carols = at_alice.admit(&ticket.redeem(carol, START), &alice, at_ms(20)).unwrap().member;
    let dave = peer(4).peer_id();
    let daves = at_bob.admit(&ticket.redeem(dave, START), &bob, at_ms(10)).unwrap().member;
    assert!(at_alice.overused().is_empty() && at_bob.check(&dave, Ability::Write).is_ok());

    // They meet.
    assert_eq!(at_alice.insert(daves.record().clone()), Ok(Insertion::Fallen(Fall::UsedUp)));
    let learned = at_bob.learn(vec![carols.clone()]);
    assert_eq!((learned.joined, learned.fell, learned.new), (vec![carol], vec![dave], vec![carols]));
    for members in [&at_alice, &at_bob] {
        assert_eq!(members.fingerprint(), at_alice.fingerprint());
        assert_eq!((members.len(), members.fall(&dave)), (3, Some(Fall::UsedUp)));
        let told = Overuse {
            invitation: ticket.redeem(dave, START).invitation.id(),
            issuer: alice.peer_id(),
            uses: 1,
            members: vec![carol],
            fallen: vec![dave],
        };
        assert_eq!(members.overused(), [told]);
        // It has no rights any more, but what it wrote before is part of documents.
        let denied = members.check(&dave, Ability::Write).unwrap_err();
        assert_eq!(denied, Denial::Fallen { peer: dave });
        assert!(denied.to_string().contains("ask an admin for a new ticket"), "{denied}");
        assert_eq!(members.check_author(&dave, Ability::Write).unwrap().id(), daves.grant());
    }

    // It admits nobody, and is let in by a new ticket.
    let request = self::ticket(&at_alice, &alice, terms(Role::Reader, 1), 10).redeem(peer(5).peer_id(), START);
    assert_eq!(at_bob.clone().admit(&request, &peer(4), at_ms(30)), Err(Refusal::NotAMember));
    let request = self::ticket(&at_alice, &alice, terms(Role::Writer, 1), 11).redeem(dave, START);
    at_bob.admit(&request, &bob, at_ms(40)).unwrap();
    assert!(at_bob.check(&dave, Ability::Write).is_ok() && at_bob.overused().is_empty());
}

#[test]
fn whom_someone_let_in_that_fell_falls_too_and_comes_back_by_another_member() {
    let (alice, bob, dave, eve) = (peer(1), peer(2), peer(4), peer(5));
    let mut members = Members::found(genesis());
    let bobs = join(&mut members, &alice, &alice, &bob, Role::Writer, 5);
    let once = invitation(&alice, Role::Writer, 1, 20);
    let carols = sign(&once, 20, &alice, peer(3).peer_id(), 20);
    let daves = sign(&once, 20, &bob, dave.peer_id(), 10);
    let other = invitation(&alice, Role::Writer, 1, 21);
    let eves = sign(&other, 21, &dave, eve.peer_id(), 15);
    let members = settled(&[bobs.clone(), carols.clone(), daves.clone(), eves.clone()]);
    assert_eq!(members.fall(&eve.peer_id()), Some(Fall::Unsupported));
    assert!(members.check_author(&eve.peer_id(), Ability::Write).is_ok());
    let again = sign(&other, 21, &bob, eve.peer_id(), 30);
    let members = settled(&[bobs, carols, daves, eves, again]);
    assert!(members.check(&eve.peer_id(), Ability::Write).is_ok());
    assert_eq!((members.len(), members.overused().len()), (4, 1));
}

#[test]
fn the_nearer_to_an_admin_comes_first_and_nobody_pushes_out_its_admitter() {
    let (alice, bob, erin) = (peer(1), peer(2), peer(3));
    let mut members = Members::found(genesis());
    let bobs = join(&mut members, &alice, &alice, &bob, Role::Writer, 5);
    let erins = join(&mut members, &alice, &alice, &erin, Role::Writer, 6);
    // Whatever the hashes are.
    for number in 0..16 {
        let (near, far, other) = (anybody(number), anybody(100 + number), anybody(200 + number));
        let twice = invitation(&alice, Role::Writer, 2, 30 + number as u8);
        let key = 30 + number as u8;
        let nears = sign(&twice, key, &bob, near.peer_id(), 50);
        // Backdating helps nobody.
        let fars = sign(&twice, key, &near, far.peer_id(), 51);
        let others = sign(&twice, key, &erin, other.peer_id(), 900);
        let members = settled(&[bobs.clone(), erins.clone(), nears.clone(), fars.clone(), others]);
        let who = [&near, &far, &other].map(|who| members.get(&who.peer_id()).is_some());
        assert_eq!(who, [true, false, true]);
        // What knew by its own chain that the ticket was used up is not even kept.
        let minted = sign(&twice, key, &far, anybody(300).peer_id(), 52);
        let members = settled(&[bobs.clone(), erins.clone(), nears, fars, minted]);
        assert!(members.get(&far.peer_id()).is_some());
        assert!(members.check_author(&anybody(300).peer_id(), Ability::Write).is_err());
    }
}

#[test]
fn a_ticket_for_many_pushes_out_nobody_whom_an_admin_admitted() {
    let (alice, mallory) = (peer(1), peer(2));
    let uses = 5;
    let many = invitation(&alice, Role::Writer, uses, 40);
    let mut records = vec![sign(&many, 40, &alice, mallory.peer_id(), 10)];
    let honest: Vec<_> = (0..3).map(|n| sign(&many, 40, &alice, anybody(n).peer_id(), 500 + n)).collect();
    records.extend(honest.iter().cloned());
    // More than is kept of one admitter, each dated before the honest ones.
    let most = uses as usize + INVITATION_SPARE_MAX;
    let minted = |n| sign(&many, 40, &mallory, anybody(1_000 + n).peer_id(), 11);
    records.extend((0..2 * most as u64).map(minted));
    let members = settled(&records);
    assert!(honest.iter().all(|member| members.get(&member.peer()).is_some()));
    // One use was left.
    assert_eq!(members.len(), 1 + uses as usize);
    assert!(members.records().len() <= 1 + 2 * most);
    // The admin who gives it away finds nobody pushed out.
    let last = sign(&many, 40, &alice, anybody(4).peer_id(), 900);
    records.push(last.clone());
    let members = settled(&records);
    assert!(members.get(&last.peer()).is_some() && members.len() == 1 + uses as usize);
}

#[test]
fn a_stranger_takes_no_room_of_records_that_wait() {
    let (alice, bob) = (peer(1), peer(2));
    let mut elsewhere = Members::found(genesis());
    let bobs = join(&mut elsewhere, &alice, &alice, &bob, Role::Writer, 5);
    let carols = join(&mut elsewhere, &alice, &bob, &peer(3), Role::Reader, 10);
    let mut members = Members::found(genesis());
    members.learn(vec![carols]);
    let own = invitation(&peer(66), Role::Admin, 1_000, 41);
    let shown = (0..MEMBERS_WAITING_MAX as u64 + 1).map(|n| sign(&own, 41, &peer(66), anybody(n).peer_id(), 20));
    assert_eq!(members.learn_shown(shown.collect()), Learned::default());
    assert_eq!(members.learn(vec![bobs]).joined.len(), 2);
}

/// One join at random: (invitation, admitter, joiner, ms).
type Draw = (u8, u8, u8, u64);

/// Joins by a few invitations that everybody knows: for one and two uses, by the founder and by two who may be admins.
fn joins(draws: &[Draw]) -> Vec<Member> {
    let offer = |number: u8| {
        let (issuer, role, uses) = match number {
            0 => (1, Role::Admin, 1),
            1 => (1, Role::Writer, 2),
            2 => (2, Role::Admin, 2),
            3 => (2, Role::Reader, 1),
            _ => (3, Role::Writer, 1),
        };
        invitation(&peer(issuer), role, uses, 50 + number)
    };
    let offers: Vec<_> = (0..5).map(offer).collect();
    let draws = draws.iter().filter(|(_, admitter, joiner, _)| admitter != joiner);
    let sign = |&(number, admitter, joiner, ms): &Draw| {
        sign(&offers[usize::from(number)], 50 + number, &peer(1 + admitter), peer(1 + joiner).peer_id(), ms)
    };
    draws.map(sign).collect()
}

/// Who stands, by the rules as they are written, without any bookkeeping.
fn by_the_rules(records: &[Member]) -> BTreeSet<GrantId> {
    let founder = Members::found(genesis()).get(&peer(1).peer_id()).unwrap().clone();
    let mut left: Vec<Member> = records.to_vec();
    left.sort_by_key(Member::grant);
    left.dedup();
    let mut stands = vec![founder];
    // What was judged, with the joins of the same ticket on the way to it.
    let mut judged: Vec<(Member, usize)> = Vec::new();
    for admins_alone in [true, false] {
        loop {
            let before = |who: PeerId, role: Role, at: Hlc| {
                stands.iter().any(|s| s.peer() == who && s.role() >= role && s.since() < at)
            };
            let ready = |member: &Member| {
                let joined = member.record().joined().unwrap();
                let needed = if admins_alone { Role::Admin } else { Role::Reader };
                before(joined.invitation.body.issuer, Role::Admin, member.since())
                    && before(joined.admission.body.admitted_by, needed, member.since())
            };
            let (round, rest): (Vec<_>, Vec<_>) = left.iter().cloned().partition(ready);
            if round.is_empty() {
                break;
            }
            left = rest;
            for member in round {
                let joined = member.record().joined().unwrap();
                let (id, uses) = (joined.admission.body.invitation, joined.invitation.body.uses as usize);
                let by_it = |m: &&Member| m.record().joined().is_some_and(|j| j.admission.body.invitation == id);
                let admitter = joined.admission.body.admitted_by;
                let admitters = judged.iter().find(|(m, _)| by_it(&m) && m.peer() == admitter);
                let chain = 1 + admitters.map_or(0, |(_, chain)| *chain);
                if chain > uses {
                    continue;
                }
                judged.push((member.clone(), chain));
                let joiners: BTreeSet<PeerId> = stands.iter().filter(by_it).map(Member::peer).collect();
                let earlier =
                    stands.iter().filter(by_it).all(|s| s.peer() != member.peer() || member.since() < s.since());
                if if joiners.contains(&member.peer()) { earlier } else { joiners.len() < uses } {
                    stands.push(member);
                }
            }
        }
    }
    stands.iter().map(Member::grant).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_same_records_give_the_same_standing_in_every_order_and_batch(
        (orders, cut, twice) in prop::collection::vec((0u8..5, 0u8..6, 1u8..6, 1u64..8), 1..24)
            .prop_flat_map(|draws| (
                prop::collection::vec(Just(joins(&draws)).prop_shuffle(), 3),
                1usize..6,
                any::<prop::sample::Index>(),
            ))
    ) {
        let expected = by_the_rules(&orders[0]);
        let mut fingerprints = BTreeSet::new();
        for (number, order) in orders.iter().enumerate() {
            let mut members = Members::found(genesis());
            let mut stored = BTreeMap::new();
            let mut learn = |batch: &[Member]| {
                let learned = members.learn(batch.to_vec());
                learned.gone.iter().for_each(|gone| _ = stored.remove(&gone.grant()));
                stored.extend(learned.new.into_iter().map(|new| (new.grant(), new.record().clone())));
                members.fingerprint()
            };
            let batches = order.chunks(cut + number).chain(order.get(..twice.index(order.len() + 1)));
            let mut last = batches.map(&mut learn).last();
            // What was forgotten before the record came by which it counts, peers that have it bring again.
            while last != Some(learn(order)) {
                last = Some(learn(order));
            }
            let table = members.table.values().flatten().map(Member::grant).collect::<BTreeSet<_>>();
            prop_assert_eq!(&table, &expected);
            let joined = members.table.values().flatten().filter_map(|member| member.record().joined());
            for joined in joined {
                let joiners = members.joiners(&joined.admission.body.invitation);
                prop_assert!(joiners.len() <= joined.invitation.body.uses as usize);
            }
            let restored = Members::restore(genesis(), stored.into_values()).unwrap();
            prop_assert_eq!(restored.fingerprint(), members.fingerprint());
            let mut newcomer = Members::found(genesis());
            for record in members.records() {
                newcomer.insert(record).unwrap();
            }
            prop_assert_eq!(newcomer.fingerprint(), members.fingerprint());
            prop_assert_eq!(standing(&newcomer), standing(&members));
            // Who stands can show that it does.
            for member in members.iter() {
                let shown = Members::restore(genesis(), members.chain(&member.peer())).unwrap();
                prop_assert_eq!(shown.get(&member.peer()).map(Member::role), Some(member.role()));
            }
            fingerprints.insert(members.fingerprint());
        }
        prop_assert_eq!(fingerprints.len(), 1);
    }
}
