//! Why a member does not admit somebody, as it is told to the joiner.

use crate::base::{Decode, DecodeError, Encode, MeshId, PeerId, Reader, Timestamp, Writer};

const VERSION: u8 = 1;

/// Why a join was refused. The text speaks to the person with the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ticket is for another mesh than that of the peer asked.
    #[error(
        "the ticket is for another mesh than {mesh}, to which the peer asked belongs: ask a peer of the ticket's mesh"
    )]
    ForeignMesh {
        /// The mesh of the peer that was asked.
        mesh: MeshId,
    },
    /// The peer asked is no member itself.
    #[error("the peer asked is not a member and cannot admit others: ask another peer of the mesh")]
    NotAMember,
    /// A signature or a reference in the request is wrong.
    #[error("the ticket was altered, or is not the one this join was made from: ask an admin for a new ticket")]
    BadProof,
    /// The issuer's membership has not reached the peer asked.
    #[error("the peer asked does not know {issuer}, who issued the ticket: try again later or at another peer")]
    IssuerUnknown {
        /// Who signed the invitation.
        issuer: PeerId,
    },
    /// The issuer may not invite, as far as the peer asked knows.
    #[error("{issuer}, who issued the ticket, is not an admin of the mesh: ask an admin for a new ticket")]
    IssuerNotAdmin {
        /// Who signed the invitation.
        issuer: PeerId,
    },
    /// The ticket's time is over.
    #[error(
        "the ticket expired {} s ago: ask an admin for a new one, or correct the clock of this computer or of the \
         peer asked if that is wrong", now.since_ms(*expires).div_ceil(1_000)
    )]
    Expired {
        /// When it expired.
        expires: Timestamp,
        /// What time the peer asked has.
        now: Timestamp,
    },
    /// As many have joined with the ticket as it lets in.
    #[error("the ticket is used up (it lets in {uses}): ask an admin for a new one")]
    UsedUp {
        /// How many it lets in.
        uses: u32,
    },
    /// A peer cannot vouch for itself.
    #[error("a peer cannot admit itself: ask another peer of the mesh")]
    SelfAdmission,
    /// The mesh has no room.
    #[error("the mesh has as many members as it can have ({})", crate::limits::MEMBERS_MAX)]
    Full,
}

impl Refusal {
    /// Whether another member may well say yes to the same ticket.
    #[must_use]
    pub fn may_pass_elsewhere(&self) -> bool {
        match self {
            Self::ForeignMesh { .. }
            | Self::NotAMember
            | Self::IssuerUnknown { .. }
            | Self::IssuerNotAdmin { .. }
            | Self::SelfAdmission => true,
            Self::BadProof | Self::Expired { .. } | Self::UsedUp { .. } | Self::Full => false,
        }
    }
}

impl From<Refusal> for crate::Error {
    fn from(refusal: Refusal) -> Self {
        Self::Denied(refusal.to_string())
    }
}

impl Encode for Refusal {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION);
        match self {
            Self::ForeignMesh { mesh } => writer.u8(1).value(mesh),
            Self::NotAMember => writer.u8(2),
            Self::BadProof => writer.u8(3),
            Self::IssuerUnknown { issuer } => writer.u8(4).value(issuer),
            Self::IssuerNotAdmin { issuer } => writer.u8(5).value(issuer),
            Self::Expired { expires, now } => writer.u8(6).varint(expires.0).varint(now.0),
            Self::UsedUp { uses } => writer.u8(7).varint(u64::from(*uses)),
            Self::SelfAdmission => writer.u8(8),
            Self::Full => writer.u8(9),
        };
    }
}

impl Decode for Refusal {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("refusal version", VERSION)?;
        Ok(match reader.u8()? {
            1 => Self::ForeignMesh { mesh: reader.value()? },
            2 => Self::NotAMember,
            3 => Self::BadProof,
            4 => Self::IssuerUnknown { issuer: reader.value()? },
            5 => Self::IssuerNotAdmin { issuer: reader.value()? },
            6 => Self::Expired { expires: Timestamp(reader.varint()?), now: Timestamp(reader.varint()?) },
            7 => Self::UsedUp { uses: reader.int()? },
            8 => Self::SelfAdmission,
            9 => Self::Full,
            other => return Err(DecodeError::Unknown { what: "refusal", value: u64::from(other) }),
        })
    }
}
