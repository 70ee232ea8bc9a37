//! What an admin signs so that others can join.

use super::Role;
use crate::base::{Decode, DecodeError, Encode, Hash, MeshId, PeerId, Reader, Timestamp, Writer};
use crate::identity::{Signable, Signed};
use crate::limits::INVITATION_USES_MAX;

const VERSION: u8 = 1;

/// An invitation: whoever holds the ticket key may become a member with exactly this role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The mesh.
    pub mesh: MeshId,
    /// The admin who invites and signs this record.
    pub issuer: PeerId,
    /// The role that it gives, no other.
    pub role: Role,
    /// The public half of the one-time key.
    pub ticket_key: PeerId,
    /// The last moment of admission.
    pub expires: Timestamp,
    /// How many may join with it (1-1,000).
    pub uses: u32,
    /// Random, so that invitations on the same terms differ.
    pub nonce: [u8; 16],
}

impl Signed<Invitation> {
    /// The hash by which redemptions and admissions name the invitation.
    #[must_use]
    pub fn id(&self) -> Hash {
        super::hash("aerolithsdb 2026 invitation id", self)
    }
}

impl Signable for Invitation {
    const DOMAIN: &'static str = "aerolithsdb invitation";

    fn signer(&self) -> PeerId {
        self.issuer
    }

    fn signed_bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }
}

impl Encode for Invitation {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION).value(&self.mesh).value(&self.issuer).value(&self.role).value(&self.ticket_key);
        writer.varint(self.expires.0).varint(u64::from(self.uses)).fixed(&self.nonce);
    }
}

impl Decode for Invitation {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("invitation version", VERSION)?;
        let invitation = Self {
            mesh: reader.value()?,
            issuer: reader.value()?,
            role: reader.value()?,
            ticket_key: reader.value()?,
            expires: Timestamp(reader.varint()?),
            uses: reader.int()?,
            nonce: reader.fixed()?,
        };
        check_uses(invitation.uses).map_err(DecodeError::Rule)?;
        Ok(invitation)
    }
}

/// The rule for the number of uses.
pub(super) fn check_uses(uses: u32) -> Result<(), String> {
    if (1..=INVITATION_USES_MAX).contains(&uses) {
        return Ok(());
    }
    Err(format!("an invitation has 1-{INVITATION_USES_MAX} uses, not {uses}"))
}
