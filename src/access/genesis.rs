//! The record a mesh begins with.

use super::member::check_time;
use crate::base::{Decode, DecodeError, Encode, Hlc, MeshId, PeerId, Reader, Writer};
use crate::identity::{Keypair, Signable, Signed, Verified};
use crate::limits::MESH_NAME_BYTES_MAX;

const VERSION: u8 = 1;

/// The founding of a mesh. Its founder is the first admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// A name for people, 1-64 bytes without control characters. Meshes may share a name.
    pub name: String,
    /// Who founded it and signs this record.
    pub founder: PeerId,
    /// When; every membership begins later.
    pub created: Hlc,
    /// Random, so that meshes founded alike differ.
    pub nonce: [u8; 16],
}

impl Genesis {
    /// Founds a mesh: signs its genesis with the founder's key.
    ///
    /// # Errors
    /// When the name breaks its rule, or `created` is the last moment there is.
    pub fn found(name: &str, founder: &Keypair, created: Hlc, nonce: [u8; 16]) -> Result<Verified<Self>, crate::Error> {
        Self::check_name(name)?;
        check_time(created).map_err(|error| crate::Error::invalid(error.to_string()))?;
        Ok(Verified::own(Self { name: name.to_owned(), founder: founder.peer_id(), created, nonce }, founder))
    }

    /// Whether a mesh can have this name.
    ///
    /// # Errors
    /// When the name breaks its rule.
    pub fn check_name(name: &str) -> Result<(), crate::Error> {
        check_name(name).map_err(crate::Error::invalid)
    }
}

impl Signed<Genesis> {
    /// The id of the mesh: the hash of this record with its signature.
    #[must_use]
    pub fn mesh_id(&self) -> MeshId {
        MeshId(super::hash("aerolithsdb 2026 mesh id", self).0)
    }
}

impl Signable for Genesis {
    const DOMAIN: &'static str = "aerolithsdb genesis";

    fn signer(&self) -> PeerId {
        self.founder
    }

    fn signed_bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }
}

impl Encode for Genesis {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION).string(&self.name).value(&self.founder).value(&self.created).fixed(&self.nonce);
    }
}

impl Decode for Genesis {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("genesis version", VERSION)?;
        let name = reader.string("mesh name", MESH_NAME_BYTES_MAX)?.to_owned();
        check_name(&name).map_err(DecodeError::Rule)?;
        let (founder, created) = (reader.value()?, reader.value()?);
        check_time(created)?;
        Ok(Self { name, founder, created, nonce: reader.fixed()? })
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MESH_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("a mesh's name has 1-{MESH_NAME_BYTES_MAX} bytes and no control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_founding_makes_another_mesh() {
        let keypair = Keypair::from_seed([1; 32]);
        let found = |name, nonce| Genesis::found(name, &keypair, Hlc::default(), [nonce; 16]).unwrap().into_signed();
        let mesh = found("home", 1);
        assert_eq!(Signed::from_bytes(&mesh.to_bytes()).as_ref(), Ok(&mesh));
        assert_eq!(mesh.mesh_id(), found("home", 1).mesh_id());
        assert_ne!(mesh.mesh_id(), found("home", 2).mesh_id());
        assert_ne!(mesh.mesh_id(), found("work", 1).mesh_id());
    }

    #[test]
    fn names_follow_the_rule() {
        let keypair = Keypair::from_seed([1; 32]);
        let found = |name: &str| Genesis::found(name, &keypair, Hlc::default(), [0; 16]);
        assert!(found("Zürich office").is_ok());
        assert!(found(&"x".repeat(64)).is_ok());
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert!(found(bad).is_err(), "{bad:?}");
            let body = Genesis { name: bad.to_owned(), ..(*found("good").unwrap()).clone() };
            assert!(Genesis::from_bytes(&body.to_bytes()).is_err(), "{bad:?}");
        }
    }
}
