//! Why a router forwards nothing.

use igd_next::{AddAnyPortError, AddPortError, GetExternalIpError, RequestError, SearchError};

use crate::limits::ROUTER_WORDS_CHARACTERS_MAX;
use crate::mesh::nat::tally::Reason;

/// What is wrong with a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouterFault {
    /// None answers.
    Absent,
    /// It was there, and does not answer in time.
    Silent,
    /// It says no.
    Refused,
    /// What it says makes no sense.
    Nonsense,
    /// It says more than anybody reads.
    TooMuch,
    /// Its own address is not one that is reached from anywhere.
    NotPublic,
    /// It cannot be talked to: the connection failed, or this machine has no way to it.
    Unreachable,
}

impl Reason for RouterFault {
    const ALL: &'static [Self] =
        &[Self::Absent, Self::Silent, Self::Refused, Self::Nonsense, Self::TooMuch, Self::NotPublic, Self::Unreachable];

    fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Nonsense => "nonsense",
            Self::TooMuch => "too_much",
            Self::NotPublic => "not_public",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Why a router forwards nothing, in a word and in plain words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub fault: RouterFault,
    /// The same for people; safe to show.
    pub why: String,
}

impl Refusal {
    pub(super) fn new(fault: RouterFault, why: impl Into<String>) -> Self {
        Self { fault, why: why.into() }
    }

    pub(super) fn silent() -> Self {
        Self::new(RouterFault::Silent, "the router does not answer in time")
    }

    pub(super) fn absent() -> Self {
        Self::new(RouterFault::Absent, "no UPnP router answers")
    }

    /// A router said no, or something else that is not what was asked for.
    pub(super) fn said(fault: RouterFault, what: &dyn std::fmt::Display) -> Self {
        Self::new(fault, format!("the router does not forward ports: {}", plain(what)))
    }
}

impl From<SearchError> for Refusal {
    fn from(error: SearchError) -> Self {
        match &error {
            SearchError::NoResponseWithinTimeout | SearchError::IoError(_) => {
                Self::new(RouterFault::Absent, format!("no UPnP router answers ({})", plain(&error)))
            }
            SearchError::HyperError(_) | SearchError::HyperClientError(_) => {
                Self::said(RouterFault::Unreachable, &error)
            }
            SearchError::InvalidResponse
            | SearchError::Utf8Error(_)
            | SearchError::XmlError(_)
            | SearchError::InvalidUri(_) => Self::said(RouterFault::Nonsense, &error),
        }
    }
}

impl From<GetExternalIpError> for Refusal {
    fn from(error: GetExternalIpError) -> Self {
        let fault = match &error {
            GetExternalIpError::ActionNotAuthorized => RouterFault::Refused,
            GetExternalIpError::RequestError(error) => fault(error),
        };
        Self::said(fault, &error)
    }
}

impl From<AddPortError> for Refusal {
    fn from(error: AddPortError) -> Self {
        let fault = match &error {
            AddPortError::RequestError(error) => fault(error),
            AddPortError::ActionNotAuthorized
            | AddPortError::InternalPortZeroInvalid
            | AddPortError::ExternalPortZeroInvalid
            | AddPortError::PortInUse
            | AddPortError::SamePortValuesRequired
            | AddPortError::OnlyPermanentLeasesSupported
            | AddPortError::DescriptionTooLong => RouterFault::Refused,
        };
        Self::said(fault, &error)
    }
}

impl From<AddAnyPortError> for Refusal {
    fn from(error: AddAnyPortError) -> Self {
        let fault = match &error {
            AddAnyPortError::RequestError(error) => fault(error),
            AddAnyPortError::ActionNotAuthorized
            | AddAnyPortError::InternalPortZeroInvalid
            | AddAnyPortError::NoPortsAvailable
            | AddAnyPortError::ExternalPortInUse
            | AddAnyPortError::OnlyPermanentLeasesSupported
            | AddAnyPortError::DescriptionTooLong => RouterFault::Refused,
        };
        Self::said(fault, &error)
    }
}

/// The library bounds what it reads, and says so in words only.
const BEYOND_THE_BOUND: &str = "length limit exceeded";

fn fault(error: &RequestError) -> RouterFault {
    match error {
        RequestError::ErrorCode(..) | RequestError::UnsupportedAction(_) => RouterFault::Refused,
        RequestError::InvalidResponse(why) if why.contains(BEYOND_THE_BOUND) => RouterFault::TooMuch,
        RequestError::InvalidResponse(_) | RequestError::Utf8Error(_) => RouterFault::Nonsense,
        RequestError::IoError(error) if error.kind() == std::io::ErrorKind::TimedOut => RouterFault::Silent,
        RequestError::IoError(_)
        | RequestError::HyperError(_)
        | RequestError::HyperClientError(_)
        | RequestError::HttpError(_) => RouterFault::Unreachable,
    }
}

/// An error without what harms who reads it: it holds what the router said, which may be a whole page, or commands for
/// a terminal.
fn plain(error: &dyn std::fmt::Display) -> String {
    let safe = |letter: char| if letter == ' ' || letter.is_ascii_graphic() { letter } else { '?' };
    error.to_string().chars().take(ROUTER_WORDS_CHARACTERS_MAX).map(safe).collect()
}
