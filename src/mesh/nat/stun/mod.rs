//! STUN (RFC 5389) and the discovery of a NAT's behaviour with it (RFC 5780).
//!
//! - `message` the few messages that are used
//! - `client` finds out what the NAT in front of this machine does
//! - `responder` tells others what theirs does
//!
//! QUIC keeps its socket to itself, so that the tests are made from a socket beside it: they tell what the NAT does, and
//! whether UDP passes at all; which port the peer has outside is what connected peers see.

mod client;
mod message;
mod responder;
#[cfg(test)]
mod tests;

pub use self::client::{Findings, StunError, discover};
pub use self::responder::{Responder, Served, serve};
use super::tally::{Reason, Tally};

/// What a NAT's mapping or filtering depends on (RFC 4787, 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behavior {
    /// On nothing but the inner address and port.
    EndpointIndependent,
    /// On the outer address as well.
    AddressDependent,
    /// On the outer address and port as well.
    AddressAndPortDependent,
}

impl Behavior {
    /// The word by which status calls show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address- and port-dependent",
        }
    }
}

/// Why an answer was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It came from elsewhere than it was asked for.
    WrongSource,
    /// It answers nothing that was asked.
    UnknownTransaction,
    /// It is no STUN message, or lacks what an answer has.
    Malformed,
    /// It names an address that nobody can have.
    ImpossibleAddress,
    /// The server refused.
    Refused,
}

impl Reason for Doubt {
    const ALL: &'static [Self] =
        &[Self::WrongSource, Self::UnknownTransaction, Self::Malformed, Self::ImpossibleAddress, Self::Refused];

    fn as_str(self) -> &'static str {
        match self {
            Self::WrongSource => "wrong_source",
            Self::UnknownTransaction => "unknown_transaction",
            Self::Malformed => "malformed",
            Self::ImpossibleAddress => "impossible_address",
            Self::Refused => "refused",
        }
    }
}

/// How many answers were not believed, by reason.
pub type Rejected = Tally<Doubt>;
