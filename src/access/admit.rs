//! Letting others in: an admin makes a ticket, and any member admits the one who shows it.
//!
//! This is the side that admits; what others signed is learned by [`Members::learn`]. Expiry and the number of uses
//! are asked for here by what this member knows, so that an honest member lets nobody in who will not stand; what
//! counts in the end is judged from all records (`standing`).

use std::sync::Arc;

use super::invitation::check_uses;
use super::ticket::check_address;
use super::{
    Ability, Admission, Invitation, JoinRequest, Joined, Learned, Member, MemberRecord, Members, ProvenRequest,
    Refusal, Role, Ticket,
};
use crate::base::{Hlc, PeerId, Timestamp};
use crate::identity::{Keypair, Signed};
use crate::limits::{CHAIN_LENGTH_MAX, MEMBERS_MAX, TICKET_ADDRESSES_MAX};
use crate::{Error, Result};

/// What an invitation offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The role of those who join.
    pub role: Role,
    /// The last moment of admission.
    pub expires: Timestamp,
    /// How many may join (1-1,000).
    pub uses: u32,
}

/// What came of admitting somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The joiner, as the table has it now.
    pub member: Member,
    /// What changed in the table: nothing when the joiner was a member already and nothing else was learned.
    pub learned: Learned,
}

impl Members {
    /// Makes a ticket. `ticket_seed` and `nonce` are fresh random bytes; `addresses` are multiaddrs of members
    /// that end in `/p2p/` and a peer id.
    ///
    /// # Errors
    /// When the issuer is not an admin, the terms or an address break a rule, or the issuer is too many
    /// delegations away from the founder.
    pub fn invite(
        &self,
        issuer: &Keypair,
        terms: Terms,
        ticket_seed: [u8; 32],
        nonce: [u8; 16],
        addresses: Vec<String>,
        now: Timestamp,
    ) -> Result<Ticket> {
        self.check(&issuer.peer_id(), Ability::Invite)?;
        check_terms(&terms, now)?;
        if addresses.len() > TICKET_ADDRESSES_MAX {
            return Err(Error::invalid(format!("a ticket carries at most {TICKET_ADDRESSES_MAX} addresses")));
        }
        for address in &addresses {
            check_address(address).map_err(Error::invalid)?;
        }
        let chain = self.line(&issuer.peer_id());
        if chain.len() + usize::from(terms.role == Role::Admin) > CHAIN_LENGTH_MAX {
            return Err(Error::invalid(format!(
                "the invited would be more than {CHAIN_LENGTH_MAX} delegations away from the founder: let an admin \
                 who joined earlier invite"
            )));
        }
        let key = Keypair::from_seed(ticket_seed);
        let Terms { role, expires, uses } = terms;
        let (mesh, ticket_key) = (self.mesh(), key.peer_id());
        let invitation = Invitation { mesh, issuer: issuer.peer_id(), role, ticket_key, expires, uses, nonce };
        let genesis = self.genesis().as_signed().clone();
        Ok(Ticket::assemble(genesis, chain, Signed::sign(invitation, issuer), key, addresses)?)
    }

    /// Admits the joiner of a request, or finds that it is a member already with that role or a higher one.
    /// `at` is this member's hybrid time now; the membership begins then, or just after those it rests on
    /// where their clocks were ahead.
    ///
    /// # Errors
    /// Why not, to be told to the joiner. The table is then as it was.
    pub fn admit(&mut self, request: &JoinRequest, admitter: &Keypair, at: Hlc) -> Result<Admitted, Refusal> {
        let mesh = self.mesh();
        let shown = request.chain.iter().map(|record| record.clone().verify(&mesh));
        let shown = shown.collect::<Result<_, _>>().map_err(|_| Refusal::BadProof)?;
        self.admit_shown(&request.clone().prove()?, shown, admitter, at)
    }

    /// As [`Members::admit`], for a request whose signatures were checked already: `shown` is what its chain holds.
    ///
    /// # Errors
    /// As [`Members::admit`].
    pub fn admit_shown(
        &mut self,
        request: &ProvenRequest,
        shown: Vec<Member>,
        admitter: &Keypair,
        at: Hlc,
    ) -> Result<Admitted, Refusal> {
        let request = request.as_request();
        self.check_proof(request)?;
        let (issuer, joiner) = (request.invitation.body.issuer, request.redemption.body.joiner);
        // All on copies, since a refusal leaves no trace.
        let mut informed = self.clone();
        let mut records = Vec::new();
        if self.admin_since(&issuer).is_none() {
            // The issuer is news to us: learn of it from the request.
            informed.learn(shown.clone());
            records = shown;
        }
        let member = informed.decide(request, admitter, at)?;
        records.push(member.clone());
        let mut next = self.clone();
        let learned = next.learn(records);
        if next.get(&joiner).is_none_or(|now| now.role() < member.role()) {
            // Records that had waited come before it.
            return Err(Refusal::UsedUp { uses: request.invitation.body.uses });
        }
        *self = next;
        Ok(Admitted { member, learned })
    }

    /// The joiner's record: a new one, or the one by which it is a member already.
    fn decide(&self, request: &JoinRequest, admitter: &Keypair, at: Hlc) -> Result<Member, Refusal> {
        let (issuer, joiner) = (request.invitation.body.issuer, request.redemption.body.joiner);
        let ours = self.member_since(&admitter.peer_id()).ok_or(Refusal::NotAMember)?;
        let theirs = self.admin_since(&issuer).ok_or_else(|| match self.get(&issuer) {
            Some(_) => Refusal::IssuerNotAdmin { issuer },
            None => Refusal::IssuerUnknown { issuer },
        })?;
        if let Some(member) = self.get(&joiner).filter(|member| member.role() >= request.invitation.body.role) {
            return Ok(member.clone());
        }
        let at = at.max(after(ours)).max(after(theirs));
        self.check_terms_hold(request, admitter.peer_id(), at)?;
        Ok(self.sign_admission(request, admitter, at))
    }

    /// Whether the request is whole: for this mesh, and its parts belong together.
    fn check_proof(&self, request: &JoinRequest) -> Result<(), Refusal> {
        let (invitation, redemption) = (&request.invitation.body, &request.redemption.body);
        let mesh = self.mesh();
        if invitation.mesh != mesh || redemption.mesh != mesh {
            return Err(Refusal::ForeignMesh { mesh });
        }
        let together =
            redemption.invitation == request.invitation.id() && redemption.ticket_key == invitation.ticket_key;
        if together { Ok(()) } else { Err(Refusal::BadProof) }
    }

    /// Whether the invitation still lets somebody in.
    fn check_terms_hold(&self, request: &JoinRequest, admitter: PeerId, at: Hlc) -> Result<(), Refusal> {
        let Invitation { expires, uses, .. } = request.invitation.body;
        let joiner = request.redemption.body.joiner;
        // No membership begins at the last moment; only a forged time can bring us there.
        if at.physical() > expires || at == Hlc::MAX {
            return Err(Refusal::Expired { expires, now: at.physical() });
        }
        if self.joiners(&request.redemption.body.invitation).len() >= uses as usize {
            return Err(Refusal::UsedUp { uses });
        }
        if joiner == admitter {
            return Err(Refusal::SelfAdmission);
        }
        if self.get(&joiner).is_none() && self.len() >= MEMBERS_MAX {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    fn sign_admission(&self, request: &JoinRequest, admitter: &Keypair, at: Hlc) -> Member {
        let admission = Admission {
            mesh: self.mesh(),
            member: request.redemption.body.joiner,
            role: request.invitation.body.role,
            invitation: request.redemption.body.invitation,
            redemption: request.redemption.id(),
            admitted_by: admitter.peer_id(),
            at,
        };
        let joined = Joined {
            invitation: request.invitation.clone(),
            redemption: request.redemption.clone(),
            admission: Signed::sign(admission, admitter),
        };
        let verified = MemberRecord::Joined(Arc::new(joined)).verify(&self.mesh());
        verified.expect("the request was checked, and the admission follows it")
    }
}

fn check_terms(terms: &Terms, now: Timestamp) -> Result<()> {
    check_uses(terms.uses).map_err(Error::invalid)?;
    if terms.expires <= now {
        return Err(Error::invalid("the expiry of an invitation lies in the future"));
    }
    Ok(())
}

/// The next moment. There is one: the last moment begins no membership.
fn after(at: Hlc) -> Hlc {
    Hlc::from_packed(at.packed().saturating_add(1)).expect("one more than a time is not negative")
}
