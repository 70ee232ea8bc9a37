//! The table of one mesh's members, as every peer keeps it.
//!
//! It keeps records apart from what they are worth: [`Members::learn`] takes any records in any order, and what stands
//! is then judged anew from all of them (`standing`). So a member can lose its standing when records arrive that come
//! before its own; its record is kept, handed on like the others, and [`Members::overused`] tells. Of one member there
//! may be several records: the present one gives the highest role, and on others the standing of others may rest.
//! [`Members::records`] lists all so that each comes after those it rests on.
//!
//! Nothing here reads a clock or draws randomness, and nothing is stored: the caller stores what [`Learned`] says and
//! restores with [`Members::restore`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::standing::{self, Fall, Place};
use super::{Ability, Denial, Genesis, Grant, Member, MemberRecord, Rejected, Role};
use crate::base::{GrantId, Hash, Hlc, MeshId, PeerId};
use crate::identity::Verified;
use crate::limits::MEMBERS_WAITING_MAX;

/// The members of one mesh.
#[derive(Debug, Clone)]
pub struct Members {
    genesis: Verified<Genesis>,
    mesh: MeshId,
    founder: Member,
    /// Of each member the records that stand, in the order of time: never empty.
    pub(super) table: BTreeMap<PeerId, Vec<Member>>,
    /// Records that do not stand, and why.
    fallen: BTreeMap<PeerId, Vec<(Member, Fall)>>,
    /// Records that rest on somebody who is not there yet, in the order of arrival.
    waiting: VecDeque<Member>,
}

/// What changed when records were learned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Records that are kept from now on, in the order to store and hand on.
    pub new: Vec<Member>,
    /// Records that are no longer kept.
    pub gone: Vec<Member>,
    /// Who stands now and did not before.
    pub joined: Vec<PeerId>,
    /// Who stood before and does no longer.
    pub fell: Vec<PeerId>,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insertion {
    /// It stands now, and records that waited for it are kept with it: all that is new, in the order to store.
    Inserted(Vec<Member>),
    /// It was there.
    Known,
    /// It does not count, beside those that come before it, and is kept so that all judge alike.
    Fallen(Fall),
    /// It does not count and is not kept.
    Forgotten,
    /// It is kept aside until what it rests on arrives.
    Waiting(Need),
}

/// What a record waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A record by which this peer was an admin when the record was made.
    Admin(PeerId),
    /// A record by which this peer was a member when the record was made.
    Member(PeerId),
}

/// An invitation by which more tried to join than it lets in: members apart admitted them, or somebody made use of a
/// ticket that was used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overuse {
    /// The invitation's id.
    pub invitation: Hash,
    /// Who issued it.
    pub issuer: PeerId,
    /// How many it lets in.
    pub uses: u32,
    /// Who joined with it and stands.
    pub members: Vec<PeerId>,
    /// Who joined with it and is no member, neither by this ticket nor by another: those who came after them, and whom
    /// they let in. An admin can admit them by a new ticket.
    pub fallen: Vec<PeerId>,
}

impl Members {
    /// The table of a mesh with its founder alone.
    #[must_use]
    pub fn found(genesis: Verified<Genesis>) -> Self {
        let mesh = genesis.as_signed().mesh_id();
        let founder = MemberRecord::Founder(genesis.as_signed().clone().into())
            .verify(&mesh)
            .expect("the genesis was verified and names its own mesh");
        let table = BTreeMap::from([(genesis.founder, vec![founder.clone()])]);
        Self { genesis, mesh, founder, table, fallen: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// The table from stored records, in any order.
    ///
    /// # Errors
    /// When one of them is damaged or of another mesh.
    pub fn restore(
        genesis: Verified<Genesis>,
        records: impl IntoIterator<Item = MemberRecord>,
    ) -> Result<Self, Rejected> {
        let mut members = Self::found(genesis);
        let mesh = members.mesh;
        let records: Vec<Member> = records.into_iter().map(|record| record.verify(&mesh)).collect::<Result<_, _>>()?;
        members.learn(records);
        Ok(members)
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// The mesh's genesis.
    #[must_use]
    pub fn genesis(&self) -> &Verified<Genesis> {
        &self.genesis
    }

    /// How many members there are: those who stand.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mesh has its founder")]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// A member, by its present record.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Member> {
        self.table.get(peer).and_then(|records| highest(records.iter()))
    }

    /// The members by their present records, ordered by peer.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.table.values().filter_map(|records| highest(records.iter()))
    }

    /// Asks for a right. Every read and write path takes the grant that this returns.
    ///
    /// # Errors
    /// When the peer is not a member, its records do not stand, or its role does not bring the ability.
    pub fn check(&self, peer: &PeerId, ability: Ability) -> Result<Grant, Denial> {
        match self.get(peer) {
            Some(member) => self.grant(member, ability),
            None => Err(match self.fallen.get(peer) {
                Some(_) => Denial::Fallen { peer: *peer },
                None => Denial::NotAMember { peer: *peer },
            }),
        }
    }

    /// Asks for the right of an author whose change comes from a member. Here those who fell count as well, in the
    /// highest role that any of their kept records gives: what they wrote while they stood somewhere is part of
    /// documents there, and all peers must come to the same.
    ///
    /// # Errors
    /// When there is no record of the peer, or its role does not bring the ability.
    pub fn check_author(&self, peer: &PeerId, ability: Ability) -> Result<Grant, Denial> {
        let standing = self.table.get(peer).into_iter().flatten();
        let fallen = self.fallen.get(peer).into_iter().flatten().map(|(member, _)| member);
        let highest = highest(standing.chain(fallen)).ok_or(Denial::NotAMember { peer: *peer })?;
        self.grant(highest, ability)
    }

    fn grant(&self, member: &Member, ability: Ability) -> Result<Grant, Denial> {
        let (peer, role) = (member.peer(), member.role());
        if !role.allows(ability) {
            return Err(Denial::RoleTooLow { peer, role, ability });
        }
        Ok(Grant::new(self.mesh, peer, role, member.grant(), ability))
    }

    /// Takes one record, after checking its signatures.
    ///
    /// # Errors
    /// When the record can never count.
    pub fn insert(&mut self, record: MemberRecord) -> Result<Insertion, Rejected> {
        let (grant, peer) = (record.grant_id(), record.peer());
        if self.keeps(&peer, &grant) {
            return Ok(Insertion::Known);
        }
        let member = record.verify(&self.mesh)?;
        let learned = self.learn(vec![member.clone()]);
        if let Some((_, fall)) = self.fallen.get(&peer).into_iter().flatten().find(|(m, _)| m.grant() == grant) {
            return Ok(Insertion::Fallen(*fall));
        }
        if self.keeps(&peer, &grant) {
            return Ok(Insertion::Inserted(learned.new));
        }
        let waits = self.waiting.iter().any(|waiting| waiting.grant() == grant);
        let need = self.need(&member).filter(|_| waits);
        Ok(need.map_or(Insertion::Forgotten, Insertion::Waiting))
    }

    /// Takes records whose signatures were checked, in any order, and judges all anew.
    pub fn learn(&mut self, records: Vec<Member>) -> Learned {
        let mut pool: BTreeMap<GrantId, Member> = BTreeMap::new();
        let known: BTreeSet<GrantId> = self.kept().chain(&self.waiting).map(Member::grant).collect();
        for record in records {
            if record.mesh() == self.mesh && !known.contains(&record.grant()) {
                pool.insert(record.grant(), record);
            }
        }
        if pool.is_empty() {
            return Learned::default();
        }
        let before: BTreeMap<GrantId, Member> = self.kept().map(|member| (member.grant(), member.clone())).collect();
        let waited: Vec<GrantId> = self.waiting.iter().map(Member::grant).collect();
        pool.extend(self.waiting.drain(..).map(|member| (member.grant(), member)));
        pool.extend(before.iter().map(|(grant, member)| (*grant, member.clone())));
        pool.remove(&self.founder.grant());
        let stood: BTreeSet<PeerId> = self.table.keys().copied().collect();
        self.settle(pool.into_values().collect(), &waited);
        self.changes_since(&before, &stood)
    }

    /// As [`Members::learn`], for records that a stranger shows: what would have to wait for others is not kept.
    pub fn learn_shown(&mut self, records: Vec<Member>) -> Learned {
        let mut waiting = self.waiting.clone();
        let learned = self.learn(records);
        waiting.retain(|member| !self.keeps(&member.peer(), &member.grant()));
        self.waiting = waiting;
        learned
    }

    /// Puts every record where it belongs. Of those that wait, the ones in `waited` waited before, in this order.
    fn settle(&mut self, pool: Vec<Member>, waited: &[GrantId]) {
        let places = standing::judge(&self.founder, &pool);
        self.table = BTreeMap::from([(self.founder.peer(), vec![self.founder.clone()])]);
        self.fallen.clear();
        let mut waiting = BTreeMap::new();
        for (member, place) in pool.into_iter().zip(places) {
            match place {
                Place::Stands => self.table.entry(member.peer()).or_default().push(member),
                Place::Fell(fall) => self.fallen.entry(member.peer()).or_default().push((member, fall)),
                Place::Waits => _ = waiting.insert(member.grant(), member),
                Place::Forgotten => {}
            }
        }
        for records in self.table.values_mut() {
            records.sort_by_key(|member| (member.since(), member.grant()));
        }
        self.waiting.extend(waited.iter().filter_map(|grant| waiting.remove(grant)));
        self.waiting.extend(waiting.into_values());
        let surplus = self.waiting.len().saturating_sub(MEMBERS_WAITING_MAX);
        self.waiting.drain(..surplus);
    }

    fn changes_since(&self, before: &BTreeMap<GrantId, Member>, stood: &BTreeSet<PeerId>) -> Learned {
        let now: BTreeSet<GrantId> = self.kept().map(Member::grant).collect();
        let mut new: Vec<Member> = self.kept().filter(|m| !before.contains_key(&m.grant())).cloned().collect();
        new.sort_by_key(|member| (member.since(), member.grant()));
        Learned {
            new,
            gone: before.values().filter(|member| !now.contains(&member.grant())).cloned().collect(),
            joined: self.table.keys().filter(|peer| !stood.contains(*peer)).copied().collect(),
            fell: stood.iter().filter(|peer| !self.table.contains_key(*peer)).copied().collect(),
        }
    }

    /// All records that are kept, whether they stand or fell.
    fn kept(&self) -> impl Iterator<Item = &Member> {
        self.table.values().flatten().chain(self.fallen.values().flatten().map(|(member, _)| member))
    }

    fn keeps(&self, peer: &PeerId, grant: &GrantId) -> bool {
        let standing = self.table.get(peer).into_iter().flatten();
        let fallen = self.fallen.get(peer).into_iter().flatten().map(|(member, _)| member);
        standing.chain(fallen).any(|member| member.grant() == *grant)
    }

    /// All records, in order of time, so that each comes after those it rests on; the founder's is the first.
    #[must_use]
    pub fn records(&self) -> Vec<MemberRecord> {
        let mut members: Vec<_> = self.kept().collect();
        members.sort_by_key(|member| (member.since(), member.grant()));
        members.into_iter().map(|member| member.record().clone()).collect()
    }

    /// The records by which a peer is a member, with all that they rest on, in order of time. Of one that fell also
    /// those of the members that come before it.
    #[must_use]
    pub fn chain(&self, peer: &PeerId) -> Vec<MemberRecord> {
        let mut chain: BTreeMap<(Hlc, GrantId), &Member> = BTreeMap::new();
        let mut open = vec![*peer];
        let mut seen = BTreeSet::new();
        while let Some(peer) = open.pop() {
            if !seen.insert(peer) {
                continue;
            }
            let standing = self.table.get(&peer).into_iter().flatten();
            // Who stands does not do so by what fell.
            let has_fallen = !self.table.contains_key(&peer);
            let fallen = self.fallen.get(&peer).filter(|_| has_fallen).into_iter().flatten();
            for member in standing.chain(fallen.map(|(member, _)| member)) {
                chain.insert((member.since(), member.grant()), member);
                if let Some(joined) = member.record().joined() {
                    open.extend([joined.invitation.body.issuer, joined.admission.body.admitted_by]);
                    if has_fallen {
                        open.extend(self.joiners(&joined.admission.body.invitation));
                    }
                }
            }
        }
        chain.into_values().map(|member| member.record().clone()).collect()
    }

    /// One hash of all records that are kept: equal for two peers exactly when their tables are.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("aerolithsdb 2026 members fingerprint");
        hasher.update(self.mesh.as_bytes());
        for member in self.kept() {
            hasher.update(member.grant().as_bytes());
        }
        Hash(*hasher.finalize().as_bytes())
    }

    /// Those who joined and are no members, by the record of the highest role, each with the reason, ordered by peer.
    pub fn fallen(&self) -> impl Iterator<Item = (&Member, Fall)> {
        self.fallen.iter().filter_map(|(peer, records)| {
            let member = highest(records.iter().map(|(member, _)| member))?;
            Some((member, self.fall(peer)?))
        })
    }

    /// Why a peer that joined is no member, `None` for members and strangers.
    #[must_use]
    pub fn fall(&self, peer: &PeerId) -> Option<Fall> {
        if self.table.contains_key(peer) {
            return None;
        }
        self.fallen.get(peer).and_then(|records| records.iter().map(|(_, fall)| *fall).min())
    }

    /// The invitations by which more joined than they let in, ordered by id. An admin who sees one should find out how
    /// the ticket got around.
    #[must_use]
    pub fn overused(&self) -> Vec<Overuse> {
        let mut overused: BTreeMap<Hash, Overuse> = BTreeMap::new();
        for (peer, records) in self.fallen.iter().filter(|(peer, _)| !self.table.contains_key(*peer)) {
            for joined in records.iter().filter_map(|(member, _)| member.record().joined()) {
                let (invitation, admission) = (&joined.invitation.body, &joined.admission.body);
                let (id, issuer, uses) = (admission.invitation, invitation.issuer, invitation.uses);
                let entry = || Overuse { invitation: id, issuer, uses, members: Vec::new(), fallen: Vec::new() };
                let overuse = overused.entry(id).or_insert_with(entry);
                if overuse.fallen.last() != Some(peer) {
                    overuse.fallen.push(*peer);
                }
            }
        }
        for overuse in overused.values_mut() {
            overuse.members = self.joiners(&overuse.invitation).into_iter().collect();
        }
        overused.into_values().collect()
    }

    /// Who joined by an invitation and stands.
    pub(super) fn joiners(&self, invitation: &Hash) -> BTreeSet<PeerId> {
        let joined = self.table.values().flatten().filter_map(|member| member.record().joined());
        let by_it = joined.filter(|joined| joined.admission.body.invitation == *invitation);
        by_it.map(|joined| joined.admission.body.member).collect()
    }

    /// The records that lead from the founder (left out) to an admin, each issued by the one before.
    pub(super) fn line(&self, admin: &PeerId) -> Vec<MemberRecord> {
        let issuer_of = |member: &&Member| member.record().joined().map(|joined| joined.invitation.body.issuer);
        // It ends: an issuer was an admin before those it invited, and its record is kept.
        let upwards = std::iter::successors(self.get(admin), |member| issuer_of(member).and_then(|i| self.get(&i)));
        let mut line: Vec<_> =
            upwards.map(Member::record).filter(|record| record.joined().is_some()).cloned().collect();
        line.reverse();
        line
    }

    /// Since when a peer is a member in any role.
    pub(super) fn member_since(&self, peer: &PeerId) -> Option<Hlc> {
        self.table.get(peer).and_then(|records| records.first()).map(Member::since)
    }

    /// Since when a peer is an admin.
    pub(super) fn admin_since(&self, peer: &PeerId) -> Option<Hlc> {
        self.get(peer).filter(|member| member.role() == Role::Admin).map(Member::since)
    }

    /// What a record that waits rests on and is not there.
    fn need(&self, member: &Member) -> Option<Need> {
        let joined = member.record().joined()?;
        let (issuer, admitter) = (joined.invitation.body.issuer, joined.admission.body.admitted_by);
        let is_admin = self.admin_since(&issuer).is_some_and(|since| since < member.since());
        Some(if is_admin { Need::Member(admitter) } else { Need::Admin(issuer) })
    }
}

/// The record that gives the highest role, and of those the earliest.
fn highest<'a>(records: impl Iterator<Item = &'a Member>) -> Option<&'a Member> {
    records.max_by_key(|member| (member.role(), Reverse((member.since(), member.grant()))))
}
