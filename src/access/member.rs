//! How somebody became a member: the records, and the checks that need nothing but the record itself.
//!
//! A [`MemberRecord`] is anybody's claim. [`MemberRecord::verify`] checks its signatures and that its parts
//! belong together, and makes it a [`Member`]. Whether the issuer was an admin and the admitter a member is a
//! question to the whole table and asked by [`Members`](super::Members).

use std::sync::Arc;

use super::{Genesis, Invitation, Role};
use crate::base::{Decode, DecodeError, Encode, GrantId, Hash, Hlc, MeshId, PeerId, Reader, Timestamp, Writer};
use crate::identity::{BadSignature, Signable, Signed};

const VERSION: u8 = 1;
const TAG_FOUNDER: u8 = 0;
const TAG_JOINED: u8 = 1;

/// Proof of holding a ticket, signed with the ticket key. It names the joiner, so that whoever sees it on its
/// way can use it for nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// The mesh.
    pub mesh: MeshId,
    /// The invitation's id.
    pub invitation: Hash,
    /// The public half of the ticket key, which signs this record.
    pub ticket_key: PeerId,
    /// Who joins.
    pub joiner: PeerId,
    /// When, by the joiner's clock: for information, it decides nothing.
    pub at: Timestamp,
}

/// A member's word that somebody joined, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The mesh.
    pub mesh: MeshId,
    /// Who joined.
    pub member: PeerId,
    /// The role, as the invitation has it.
    pub role: Role,
    /// The invitation's id.
    pub invitation: Hash,
    /// The redemption's hash.
    pub redemption: Hash,
    /// The member who admitted and signs this record.
    pub admitted_by: PeerId,
    /// When the membership began: what counts against the invitation's expiry.
    pub at: Hlc,
}

/// The three signatures that make a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// By an admin.
    pub invitation: Signed<Invitation>,
    /// By the ticket key.
    pub redemption: Signed<Redemption>,
    /// By a member.
    pub admission: Signed<Admission>,
}

/// How somebody became a member. Its hash is the [`GrantId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberRecord {
    /// By founding the mesh.
    Founder(Arc<Signed<Genesis>>),
    /// By an invitation.
    Joined(Arc<Joined>),
}

/// Why a record can never count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It belongs to another mesh.
    #[error("the member record is of another mesh")]
    ForeignMesh,
    /// One of its signatures is wrong.
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// Its parts contradict each other.
    #[error("the member record contradicts itself: {0}")]
    Inconsistent(&'static str),
}

impl From<Rejected> for crate::Error {
    fn from(rejected: Rejected) -> Self {
        Self::invalid(rejected.to_string())
    }
}

/// A member by a record whose signatures were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    mesh: MeshId,
    grant: GrantId,
    record: MemberRecord,
}

impl MemberRecord {
    /// The hash of the record with all its signatures.
    #[must_use]
    pub fn grant_id(&self) -> GrantId {
        GrantId(super::hash("aerolithsdb 2026 member record", self).0)
    }

    /// The mesh that it claims to be of.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        match self {
            Self::Founder(genesis) => genesis.mesh_id(),
            Self::Joined(joined) => joined.admission.body.mesh,
        }
    }

    /// Who is said to be a member.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        match self {
            Self::Founder(genesis) => genesis.body.founder,
            Self::Joined(joined) => joined.admission.body.member,
        }
    }

    /// In which role.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Founder(_) => Role::Admin,
            Self::Joined(joined) => joined.admission.body.role,
        }
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Hlc {
        match self {
            Self::Founder(genesis) => genesis.body.created,
            Self::Joined(joined) => joined.admission.body.at,
        }
    }

    /// The three signatures, `None` for the founder.
    #[must_use]
    pub fn joined(&self) -> Option<&Joined> {
        match self {
            Self::Founder(_) => None,
            Self::Joined(joined) => Some(joined),
        }
    }

    /// Checks what the record alone can tell: that its parts belong together and to `mesh`, and its signatures.
    ///
    /// # Errors
    /// What is wrong with it; such a record will never count.
    pub fn verify(self, mesh: &MeshId) -> Result<Member, Rejected> {
        match &self {
            Self::Founder(genesis) if genesis.mesh_id() != *mesh => return Err(Rejected::ForeignMesh),
            Self::Founder(genesis) => genesis.check()?,
            Self::Joined(joined) => joined.check(mesh)?,
        }
        Ok(Member { mesh: *mesh, grant: self.grant_id(), record: self })
    }
}

impl Joined {
    fn check(&self, mesh: &MeshId) -> Result<(), Rejected> {
        let (invitation, redemption, admission) = (&self.invitation.body, &self.redemption.body, &self.admission.body);
        if [invitation.mesh, redemption.mesh, admission.mesh] != [*mesh; 3] {
            return Err(Rejected::ForeignMesh);
        }
        let id = self.invitation.id();
        let rules = [
            (redemption.invitation == id && admission.invitation == id, "it names another invitation"),
            (redemption.ticket_key == invitation.ticket_key, "the ticket key is another"),
            (admission.redemption == self.redemption.id(), "it names another redemption"),
            (admission.member == redemption.joiner, "the admitted is not who redeemed the ticket"),
            (admission.role == invitation.role, "the role is not the one invited to"),
            (admission.at.physical() <= invitation.expires, "the invitation had expired"),
            (admission.at < Hlc::MAX, "its time is the last there is"),
            (admission.admitted_by != admission.member, "nobody admits themselves"),
        ];
        if let Some((_, why)) = rules.iter().find(|(holds, _)| !holds) {
            return Err(Rejected::Inconsistent(why));
        }
        self.invitation.check()?;
        self.redemption.check()?;
        Ok(self.admission.check()?)
    }
}

impl Member {
    /// The mesh for which the record was verified.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Who.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.record.peer()
    }

    /// In which role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.record.role()
    }

    /// Since when.
    #[must_use]
    pub fn since(&self) -> Hlc {
        self.record.since()
    }

    /// The hash of the record.
    #[must_use]
    pub fn grant(&self) -> GrantId {
        self.grant
    }

    /// The record, to be stored and handed on.
    #[must_use]
    pub fn record(&self) -> &MemberRecord {
        &self.record
    }
}

impl Signed<Redemption> {
    /// The hash by which an admission names the redemption.
    #[must_use]
    pub fn id(&self) -> Hash {
        super::hash("aerolithsdb 2026 redemption id", self)
    }
}

impl Signable for Redemption {
    const DOMAIN: &'static str = "aerolithsdb redemption";

    fn signer(&self) -> PeerId {
        self.ticket_key
    }

    fn signed_bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }
}

impl Signable for Admission {
    const DOMAIN: &'static str = "aerolithsdb admission";

    fn signer(&self) -> PeerId {
        self.admitted_by
    }

    fn signed_bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }
}

impl Encode for Redemption {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION).value(&self.mesh).value(&self.invitation).value(&self.ticket_key);
        writer.value(&self.joiner).varint(self.at.0);
    }
}

impl Decode for Redemption {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("redemption version", VERSION)?;
        Ok(Self {
            mesh: reader.value()?,
            invitation: reader.value()?,
            ticket_key: reader.value()?,
            joiner: reader.value()?,
            at: Timestamp(reader.varint()?),
        })
    }
}

impl Encode for Admission {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION).value(&self.mesh).value(&self.member).value(&self.role).value(&self.invitation);
        writer.value(&self.redemption).value(&self.admitted_by).value(&self.at);
    }
}

impl Decode for Admission {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("admission version", VERSION)?;
        let admission = Self {
            mesh: reader.value()?,
            member: reader.value()?,
            role: reader.value()?,
            invitation: reader.value()?,
            redemption: reader.value()?,
            admitted_by: reader.value()?,
            at: reader.value()?,
        };
        check_time(admission.at)?;
        Ok(admission)
    }
}

/// The last moment begins no membership: nothing could come after it.
pub(super) fn check_time(at: Hlc) -> Result<(), DecodeError> {
    if at == Hlc::MAX { Err(DecodeError::Rule("the time is the last there is".to_owned())) } else { Ok(()) }
}

impl Encode for Joined {
    fn encode(&self, writer: &mut Writer) {
        writer.value(&self.invitation).value(&self.redemption).value(&self.admission);
    }
}

impl Decode for Joined {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { invitation: reader.value()?, redemption: reader.value()?, admission: reader.value()? })
    }
}

impl Encode for MemberRecord {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION);
        match self {
            Self::Founder(genesis) => writer.u8(TAG_FOUNDER).value(genesis.as_ref()),
            Self::Joined(joined) => writer.u8(TAG_JOINED).value(joined.as_ref()),
        };
    }
}

impl Decode for MemberRecord {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("member record version", VERSION)?;
        match reader.u8()? {
            TAG_FOUNDER => Ok(Self::Founder(Arc::new(reader.value()?))),
            TAG_JOINED => Ok(Self::Joined(Arc::new(reader.value()?))),
            other => Err(DecodeError::Unknown { what: "member record", value: u64::from(other) }),
        }
    }
}
