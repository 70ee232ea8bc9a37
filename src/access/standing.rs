//! Which joins count: a function of the set of records, never of the order in which they arrived.
//!
//! Whoever joined knows its ticket's key, so every member can sign joins without end, and can date them as it
//! likes. What it signs is therefore not believed but judged, beside all other joins of the same invitation.
//! Three passes, each in rounds; a round judges all joins whose issuer and admitter are settled by the rounds
//! before, ordered by the hash of the record:
//!
//! 1. **Admins**: joins that an admin admitted. They rest on admins alone, so nobody else can push them out.
//! 2. **Members**: the others. A join's round is its depth: how many admissions lie between it and an admin.
//! 3. **Fallen**: joins that rest on some that fell. They do not count and are kept, to be told apart from strangers.
//!
//! A join *stands* when fewer joiners of its invitation than it has uses stand already, and the mesh has room.
//! Rounds make this stable: what a join rests on is judged before it, so none can push out the member that admitted
//! it, which an order by hash alone would allow; and nobody gains by a backdated record, as it would in an order by
//! time. The holder of a ticket for many can still push out some of its other holders, but only those whom no admin
//! admitted.
//!
//! **Depth is bounded by the ticket.** A member that joined by an invitation knows of its own use, and of that of its
//! admitter when that one joined by the same invitation: with a chain of as many joins as there are uses the last one
//! knew that it was used up. What it signs is *forgotten*, not even kept as fallen. So the used ticket for one is worth
//! nothing. (When the record by which its admitter came another way arrives later, peers that have the join bring it
//! again.)
//!
//! **What is forgotten** else: of the joins that one member signed for one invitation all beyond the uses and
//! [`INVITATION_SPARE_MAX`] more, by their hashes, which is the same set in every order of arrival; and of those of one
//! invitation that do not stand all beyond as many, in the order of judgement. Such a one could count only if more
//! than all those before it lost what they rest on, and then the peers that still have it bring it back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Joined, Member, Role};
use crate::base::{Hash, Hlc, PeerId};
use crate::limits::{INVITATION_SPARE_MAX, MEMBERS_FALLEN_MAX, MEMBERS_MAX};

/// Why a join does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fall {
    /// As many as its ticket lets in come before it.
    UsedUp,
    /// The mesh has as many members as it can have.
    Full,
    /// Whoever issued its ticket, or admitted it, does not stand.
    Unsupported,
    /// The same peer joined by the same ticket from no later a time on.
    Again,
}

impl Fall {
    /// The word by which interfaces show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UsedUp => "ticket_used_up",
            Self::Full => "mesh_full",
            Self::Unsupported => "admitter_fell",
            Self::Again => "joined_again",
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It counts.
    Stands,
    /// It does not count, and is kept.
    Fell(Fall),
    /// It rests on somebody who is not known.
    Waits,
    /// It does not count, and need not be kept.
    Forgotten,
}

/// Judges joins, which come in the order of their hashes, each once. The founder stands.
pub(super) fn judge(founder: &Member, records: &[Member]) -> Vec<Place> {
    let mut trial = Trial::new(founder, records);
    for pass in [Pass::Admins, Pass::Members, Pass::Fallen] {
        trial.run(pass);
    }
    trial.places.into_iter().map(|place| place.unwrap_or(Place::Waits)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Admins,
    Members,
    Fallen,
}

/// Since when peers are members, and admins.
#[derive(Debug, Default)]
struct Since(BTreeMap<PeerId, (Hlc, Option<Hlc>)>);

impl Since {
    fn add(&mut self, member: &Member) {
        let (since, admin) = self.0.entry(member.peer()).or_insert((member.since(), None));
        *since = member.since().min(*since);
        if member.role() == Role::Admin {
            *admin = Some(admin.map_or(member.since(), |admin| member.since().min(admin)));
        }
    }

    fn is_member_before(&self, peer: &PeerId, at: Hlc) -> bool {
        self.0.get(peer).is_some_and(|(since, _)| *since < at)
    }

    fn is_admin_before(&self, peer: &PeerId, at: Hlc) -> bool {
        self.0.get(peer).and_then(|(_, admin)| *admin).is_some_and(|admin| admin < at)
    }
}

/// What is known of an invitation.
#[derive(Debug, Default)]
struct Uses {
    /// Who joined by it and stands, and since when.
    standing: BTreeMap<PeerId, Hlc>,
    /// For each joiner the joins of this invitation that it knew of: its own, and those of the admitters before it.
    known_to: BTreeMap<PeerId, u32>,
    /// Records beyond one for each use.
    spare: usize,
}

struct Trial<'a> {
    records: &'a [Member],
    places: Vec<Option<Place>>,
    /// The records that name a peer as issuer or admitter.
    naming: BTreeMap<PeerId, Vec<usize>>,
    /// Those who stand.
    standing: Since,
    /// Those who stand or fell.
    known: Since,
    invitations: BTreeMap<Hash, Uses>,
    fallen: usize,
}

impl<'a> Trial<'a> {
    fn new(founder: &Member, records: &'a [Member]) -> Self {
        let mut trial = Self {
            records,
            places: vec![None; records.len()],
            naming: BTreeMap::new(),
            standing: Since::default(),
            known: Since::default(),
            invitations: BTreeMap::new(),
            fallen: 0,
        };
        trial.standing.add(founder);
        trial.known.add(founder);
        let mut signed: BTreeMap<(Hash, PeerId), usize> = BTreeMap::new();
        for (index, member) in records.iter().enumerate() {
            let Some(joined) = member.record().joined() else {
                trial.places[index] = Some(Place::Forgotten);
                continue;
            };
            let (issuer, admitter) = named(joined);
            let count = signed.entry((joined.admission.body.invitation, admitter)).or_default();
            *count += 1;
            if *count > uses(joined) + INVITATION_SPARE_MAX {
                trial.places[index] = Some(Place::Forgotten);
                continue;
            }
            for peer in BTreeSet::from([issuer, admitter]) {
                trial.naming.entry(peer).or_default().push(index);
            }
        }
        trial
    }

    fn run(&mut self, pass: Pass) {
        let mut round: Vec<usize> = (0..self.records.len()).collect();
        loop {
            round.retain(|&index| self.places[index].is_none() && self.is_supported(index, pass));
            if round.is_empty() {
                return;
            }
            let mut news = BTreeSet::new();
            for &index in &round {
                let place = self.place(index, pass);
                self.places[index] = Some(place);
                if place != Place::Forgotten {
                    news.insert(self.records[index].peer());
                }
            }
            let next: BTreeSet<usize> =
                news.iter().filter_map(|peer| self.naming.get(peer)).flatten().copied().collect();
            round = next.into_iter().collect();
        }
    }

    /// Whether issuer and admitter of a join are settled, for this pass.
    fn is_supported(&self, index: usize, pass: Pass) -> bool {
        let member = &self.records[index];
        let Some((issuer, admitter)) = member.record().joined().map(named) else { return false };
        let at = member.since();
        let settled = if pass == Pass::Fallen { &self.known } else { &self.standing };
        let admitted = match pass {
            Pass::Admins => settled.is_admin_before(&admitter, at),
            Pass::Members | Pass::Fallen => settled.is_member_before(&admitter, at),
        };
        admitted && settled.is_admin_before(&issuer, at)
    }

    /// Judges a join that is supported.
    fn place(&mut self, index: usize, pass: Pass) -> Place {
        let member = &self.records[index];
        let Some(joined) = member.record().joined() else { return Place::Forgotten };
        let (peer, limit) = (member.peer(), uses(joined));
        let is_full = self.standing.0.len() >= MEMBERS_MAX && !self.standing.0.contains_key(&peer);
        let invitation = self.invitations.entry(joined.admission.body.invitation).or_default();
        let known = 1 + invitation.known_to.get(&joined.admission.body.admitted_by).copied().unwrap_or(0);
        if known as usize > limit {
            return Place::Forgotten;
        }
        let fall = match invitation.standing.get(&peer) {
            _ if pass == Pass::Fallen => Some(Fall::Unsupported),
            Some(since) if *since <= member.since() => Some(Fall::Again),
            None if invitation.standing.len() >= limit => Some(Fall::UsedUp),
            None if is_full => Some(Fall::Full),
            Some(_) | None => None,
        };
        if fall.is_some() || invitation.standing.contains_key(&peer) {
            if invitation.spare >= limit + INVITATION_SPARE_MAX || self.fallen >= MEMBERS_FALLEN_MAX {
                return Place::Forgotten;
            }
            invitation.spare += 1;
        }
        invitation.known_to.entry(peer).or_insert(known);
        self.known.add(member);
        match fall {
            Some(fall) => {
                self.fallen += 1;
                Place::Fell(fall)
            }
            None => {
                invitation.standing.insert(peer, member.since());
                self.standing.add(member);
                Place::Stands
            }
        }
    }
}

/// Issuer and admitter of a join.
fn named(joined: &Joined) -> (PeerId, PeerId) {
    (joined.invitation.body.issuer, joined.admission.body.admitted_by)
}

/// How many a join's invitation lets in.
fn uses(joined: &Joined) -> usize {
    joined.invitation.body.uses as usize
}
