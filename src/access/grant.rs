//! The proof that a right was checked.

use super::{Ability, Role};
use crate::base::{GrantId, MeshId, PeerId};

/// Proof that a peer may do something in a mesh, made only by [`Members::check`](super::Members::check).
///
/// It speaks of the moment of the check; keep it for the operation it was asked for, not for later ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    mesh: MeshId,
    peer: PeerId,
    role: Role,
    id: GrantId,
    ability: Ability,
}

impl Grant {
    pub(super) fn new(mesh: MeshId, peer: PeerId, role: Role, id: GrantId, ability: Ability) -> Self {
        Self { mesh, peer, role, id, ability }
    }

    /// The mesh that the right is in.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Who has the right.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The peer's role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The record that the right comes from.
    #[must_use]
    pub fn id(&self) -> GrantId {
        self.id
    }

    /// What was asked for, and granted.
    #[must_use]
    pub fn ability(&self) -> Ability {
        self.ability
    }
}

/// Why a right was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The peer has no record in the mesh.
    #[error("peer {peer} is not a member of this mesh: it joins with a ticket, which any admin can make")]
    NotAMember {
        /// Who asked.
        peer: PeerId,
    },
    /// The peer joined, and does not stand among those whom its ticket lets in.
    #[error(
        "peer {peer} is no member any more: others had used its ticket up when it joined, or whoever let it in is no \
         member either; ask an admin for a new ticket"
    )]
    Fallen {
        /// Who asked.
        peer: PeerId,
    },
    /// The peer is a member without this ability.
    #[error("peer {peer} is a {role} of this mesh and may not {ability}: ask an admin for a ticket with a higher role")]
    RoleTooLow {
        /// Who asked.
        peer: PeerId,
        /// Its role.
        role: Role,
        /// What it asked for.
        ability: Ability,
    },
}

impl From<Denial> for crate::Error {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial.to_string())
    }
}
