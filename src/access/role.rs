//! What a member may do.

use std::fmt;
use std::str::FromStr;

use crate::base::{CollectionName, Decode, DecodeError, Encode, Reader, Writer};

/// A member's standing in the mesh. A higher role can do all that a lower one can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Reader,
    /// Reads and writes.
    Writer,
    /// Reads, writes, and invites others in any role.
    Admin,
}

/// Something that needs a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ability {
    /// To receive and read documents.
    Read,
    /// To author changes.
    Write,
    /// To author changes in collections whose name begins with `_`.
    WriteSystem,
    /// To invite new members.
    Invite,
}

impl Ability {
    /// What it takes to author changes in a collection.
    #[must_use]
    pub fn to_write(collection: &CollectionName) -> Self {
        if collection.is_system() { Self::WriteSystem } else { Self::Write }
    }
}

impl Role {
    /// Whether the role brings the ability with it.
    #[must_use]
    pub fn allows(self, ability: Ability) -> bool {
        match ability {
            Ability::Read => true,
            Ability::Write => self >= Self::Writer,
            Ability::WriteSystem | Ability::Invite => self == Self::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, crate::Error> {
        match text {
            "reader" => Ok(Self::Reader),
            "writer" => Ok(Self::Writer),
            "admin" => Ok(Self::Admin),
            _ => Err(crate::Error::invalid("a role is one of reader, writer, admin")),
        }
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteSystem => "write to collections whose name begins with _",
            Self::Invite => "invite",
        })
    }
}

impl Encode for Role {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Reader => 1,
            Self::Writer => 2,
            Self::Admin => 3,
        });
    }
}

impl Decode for Role {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::Reader),
            2 => Ok(Self::Writer),
            3 => Ok(Self::Admin),
            other => Err(DecodeError::Unknown { what: "role", value: u64::from(other) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_bring_their_abilities() {
        let abilities = |role: Role| [Ability::Read, Ability::Write, Ability::Invite].map(|a| role.allows(a));
        assert_eq!(abilities(Role::Reader), [true, false, false]);
        assert_eq!(abilities(Role::Writer), [true, true, false]);
        assert_eq!(abilities(Role::Admin), [true, true, true]);
    }

    #[test]
    fn roles_round_trip_as_text_and_bytes() {
        for role in [Role::Reader, Role::Writer, Role::Admin] {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(Role::from_bytes(&role.to_bytes()), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
        assert!(Role::from_bytes(&[0]).is_err());
        assert!(Role::from_bytes(&[4]).is_err());
    }
}
