//! The table of one mesh's members, as every peer keeps it.
//!
//! The table is a function of the set of records that were put in, not of their order (see the module's
//! documentation for the two rules that make it so). Of one member it keeps up to three records: the present
//! one, which gives the highest role, and those of lower roles from earlier on, on which the standing of
//! others may rest. [`Members::records`] lists them so that each comes after those it rests on.
//!
//! Nothing here reads a clock or draws randomness, and nothing is stored: the caller stores
//! [`Insertion::Inserted`] and restores with [`Members::restore`].

use std::collections::{BTreeMap, VecDeque};

use super::{Ability, Denial, Genesis, Grant, Member, MemberRecord, Rejected, Role};
use crate::base::{Hash, Hlc, MeshId, PeerId};
use crate::identity::Verified;
use crate::limits::{MEMBERS_MAX, MEMBERS_WAITING_MAX};

/// The members of one mesh.
#[derive(Debug, Clone)]
pub struct Members {
    genesis: Verified<Genesis>,
    mesh: MeshId,
    /// Of each member the records that no other beats: never empty, later ones give higher roles.
    table: BTreeMap<PeerId, Vec<Member>>,
    /// Records that rest on somebody who is not there yet, in the order of arrival.
    waiting: VecDeque<Member>,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insertion {
    /// It is in the table now, and so are records that waited for it: all that is new, in the order to store.
    Inserted(Vec<Member>),
    /// It, or one that beats it, was there.
    Known,
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

/// An invitation with which more joined than it lets in, because members apart admitted them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overuse {
    /// The invitation's id.
    pub invitation: Hash,
    /// Who issued it.
    pub issuer: PeerId,
    /// How many it lets in.
    pub uses: u32,
    /// Who joined with it.
    pub members: Vec<PeerId>,
}

impl Members {
    /// The table of a mesh with its founder alone.
    #[must_use]
    pub fn found(genesis: Verified<Genesis>) -> Self {
        let mesh = genesis.as_signed().mesh_id();
        let founder = MemberRecord::Founder(genesis.as_signed().clone().into())
            .verify(&mesh)
            .expect("the genesis was verified and names its own mesh");
        let table = BTreeMap::from([(genesis.founder, vec![founder])]);
        Self { genesis, mesh, table, waiting: VecDeque::new() }
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
        let mut records: Vec<_> = records.into_iter().collect();
        // In order of time none has to wait for another.
        records.sort_by_key(MemberRecord::since);
        for record in records {
            members.insert(record)?;
        }
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

    /// How many members there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mesh has its founder")]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// A member, by its present record.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Member> {
        self.table.get(peer).map(|records| present(records))
    }

    /// The members by their present records, ordered by peer.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.table.values().map(|records| present(records))
    }

    /// Asks for a right. Every read and write path takes the grant that this returns.
    ///
    /// # Errors
    /// When the peer is not a member, or its role does not bring the ability.
    pub fn check(&self, peer: &PeerId, ability: Ability) -> Result<Grant, Denial> {
        let member = self.get(peer).ok_or(Denial::NotAMember { peer: *peer })?;
        let role = member.role();
        if !role.allows(ability) {
            return Err(Denial::RoleTooLow { peer: *peer, role, ability });
        }
        Ok(Grant::new(self.mesh, *peer, role, member.grant(), ability))
    }

    /// Takes a record that came from another peer or from the store, after checking its signatures.
    ///
    /// # Errors
    /// When the record can never count, or the table is full.
    pub fn insert(&mut self, record: MemberRecord) -> Result<Insertion, Rejected> {
        let grant = record.grant_id();
        if self.table.get(&record.peer()).is_some_and(|known| known.iter().any(|m| m.grant() == grant)) {
            return Ok(Insertion::Known);
        }
        let member = record.verify(&self.mesh)?;
        self.insert_verified(member)
    }

    /// As [`Members::insert`], for a record that [`MemberRecord::verify`] has passed for this mesh already,
    /// on another thread for example.
    ///
    /// # Errors
    /// When the table is full, or the record was verified for another mesh.
    pub fn insert_verified(&mut self, member: Member) -> Result<Insertion, Rejected> {
        if member.mesh() != self.mesh {
            return Err(Rejected::ForeignMesh);
        }
        if let Some(need) = self.need(&member) {
            self.wait(member);
            return Ok(Insertion::Waiting(need));
        }
        if !self.place(member.clone())? {
            return Ok(Insertion::Known);
        }
        let mut inserted = vec![member];
        self.release(&mut inserted);
        Ok(Insertion::Inserted(inserted))
    }

    /// All records, in order of time, so that each comes after those it rests on; the founder's is the first.
    #[must_use]
    pub fn records(&self) -> Vec<MemberRecord> {
        let mut members: Vec<_> = self.table.values().flatten().collect();
        members.sort_by_key(|member| (member.since(), member.grant()));
        members.into_iter().map(|member| member.record().clone()).collect()
    }

    /// One hash of the whole table: equal for two peers exactly when their tables are.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("aerolithsdb 2026 members fingerprint");
        hasher.update(self.mesh.as_bytes());
        for member in self.table.values().flatten() {
            hasher.update(member.grant().as_bytes());
        }
        Hash(*hasher.finalize().as_bytes())
    }

    /// The invitations with which more joined than they let in, ordered by id. Their members stay; an admin
    /// who sees one should find out how the ticket got around.
    #[must_use]
    pub fn overused(&self) -> Vec<Overuse> {
        let mut joins: BTreeMap<Hash, Overuse> = BTreeMap::new();
        for record in self.table.values().flatten().filter_map(|member| member.record().joined()) {
            let (invitation, admission) = (&record.invitation.body, &record.admission.body);
            let (id, issuer, uses) = (admission.invitation, invitation.issuer, invitation.uses);
            let joined = joins.entry(id).or_insert(Overuse { invitation: id, issuer, uses, members: Vec::new() });
            joined.members.push(admission.member);
        }
        joins.into_values().filter(|joined| joined.members.len() > joined.uses as usize).collect()
    }

    /// How many joined with an invitation.
    pub(super) fn uses_of(&self, invitation: &Hash) -> usize {
        let joined = self.table.values().flatten().filter_map(|member| member.record().joined());
        joined.filter(|joined| joined.admission.body.invitation == *invitation).count()
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

    /// What a record rests on that is not there, `None` when it counts.
    fn need(&self, member: &Member) -> Option<Need> {
        let joined = member.record().joined()?;
        let (issuer, admitter) = (joined.invitation.body.issuer, joined.admission.body.admitted_by);
        let before = |since: Option<Hlc>| since.is_some_and(|since| since < member.since());
        if !before(self.admin_since(&issuer)) {
            return Some(Need::Admin(issuer));
        }
        if !before(self.member_since(&admitter)) {
            return Some(Need::Member(admitter));
        }
        None
    }

    fn wait(&mut self, member: Member) {
        if self.waiting.iter().any(|waiting| waiting.grant() == member.grant()) {
            return;
        }
        if self.waiting.len() == MEMBERS_WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(member);
    }

    /// Moves the waiting records that count now into the table.
    fn release(&mut self, inserted: &mut Vec<Member>) {
        while let Some(ready) = self.waiting.iter().position(|member| self.need(member).is_none()) {
            let member = self.waiting.remove(ready).expect("the position was just found");
            // In a full table it is dropped, as it would have been had it arrived now.
            if self.place(member.clone()) == Ok(true) {
                inserted.push(member);
            }
        }
    }

    /// Puts a record that counts into the table unless another beats it; whether it did.
    fn place(&mut self, member: Member) -> Result<bool, Rejected> {
        if !self.table.contains_key(&member.peer()) && self.table.len() >= MEMBERS_MAX {
            return Err(Rejected::Full);
        }
        let records = self.table.entry(member.peer()).or_default();
        if records.iter().any(|known| beats(known, &member)) {
            return Ok(false);
        }
        records.retain(|known| !beats(&member, known));
        let at = records.partition_point(|known| known.since() < member.since());
        records.insert(at, member);
        Ok(true)
    }
}

/// The record that counts: of those that no other beats, the latest gives the highest role.
fn present(records: &[Member]) -> &Member {
    records.last().expect("a member has a record")
}

/// Whether `one` makes `other` superfluous: at least its role, from no later a time on. Beating is transitive,
/// and of two records of one time and role exactly one beats the other, so what remains of a set of records
/// does not depend on their order. A record also beats itself.
fn beats(one: &Member, other: &Member) -> bool {
    let order = one.since().cmp(&other.since());
    let order = order.then(other.role().cmp(&one.role())).then(one.grant().cmp(&other.grant()));
    one.role() >= other.role() && order.is_le()
}
