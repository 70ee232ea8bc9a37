//! Joining, founding and leaving meshes, as the gateway takes and shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shape::role;
use crate::peer;

/// A ticket to be used.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinBody {
    #[schema(pattern = "^aero1")]
    pub(super) ticket: String,
    #[serde(default)]
    pub(super) local_documents: LocalDocuments,
}

/// A mesh to be founded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InitBody {
    /// Its name, for people.
    #[schema(min_length = 1, max_length = 64)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) local_documents: LocalDocuments,
    /// Leave the members that stay without an admin, who would let others in.
    #[serde(default)]
    pub(super) without_admin: bool,
}

/// How the mesh is left.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaveBody {
    #[serde(default)]
    pub(super) local_documents: LocalDocuments,
    /// Leave the members that stay without an admin, who would let others in.
    #[serde(default)]
    pub(super) without_admin: bool,
}

/// Whether those who stay may be without an admin.
pub(super) fn farewell(without_admin: bool) -> crate::Farewell {
    if without_admin { crate::Farewell::WithoutAdmin } else { crate::Farewell::WithAdmin }
}

/// What happens to local documents on turning to another mesh.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum LocalDocuments {
    /// They are written into that mesh.
    #[default]
    Carry,
    /// They stay behind, on the disk, invisible.
    Leave,
}

impl From<LocalDocuments> for crate::LocalDocuments {
    fn from(local: LocalDocuments) -> Self {
        match local {
            LocalDocuments::Carry => Self::Carry,
            LocalDocuments::Leave => Self::Leave,
        }
    }
}

/// A mesh that was joined.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Joined {
    mesh: String,
    /// The member that let this peer in.
    peer: String,
    /// What this peer may do.
    role: Option<String>,
    carried_documents: u64,
}

impl From<peer::Joined> for Joined {
    fn from(joined: peer::Joined) -> Self {
        let (mesh, peer) = (joined.mesh.to_string(), joined.by.to_string());
        Self { mesh, peer, role: role(joined.role), carried_documents: joined.carried }
    }
}

/// A mesh that was founded.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Founded {
    mesh: String,
    name: String,
    carried_documents: u64,
}

impl From<peer::Founded> for Founded {
    fn from(founded: peer::Founded) -> Self {
        Self { mesh: founded.mesh.to_string(), name: founded.name, carried_documents: founded.carried }
    }
}
