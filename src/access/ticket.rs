//! Tickets: an invitation on its way to a person, as a text to be mailed, typed or shown as a QR code.
//!
//! A ticket carries the mesh's genesis, the line of admins from the founder to the issuer, the invitation, the
//! one-time key, and addresses to start from. **It is a secret**: whoever reads it can join.
//!
//! The text is `aero`, one digit for the version of the form, and lower-case base32 (RFC 4648, no padding) of
//!
//! | bytes | what |
//! |---|---|
//! | 2 | length of the body, big-endian: tells a cut ticket from a mistyped one |
//! | n | body |
//! | 4 | CRC-32 of the body and its length, big-endian: notices any one or two neighbouring wrong characters |
//!
//! Upper case and white space are accepted, since mailers and phones add them. Parsing checks every signature
//! in the ticket; that those who admitted the line's admins were members is checked when the joiner gets the
//! mesh's table.

use std::fmt;

use data_encoding::BASE32_NOPAD_NOCASE;
use zeroize::Zeroizing;

use super::{Genesis, Invitation, MemberRecord, Redemption, Refusal, Role};
use crate::base::{Decode, DecodeError, Encode, MeshId, PeerId, Reader, Timestamp, Writer};
use crate::identity::{Keypair, Signed, Verified};
use crate::limits::{ADDRESS_BYTES_MAX, CHAIN_LENGTH_MAX, TICKET_ADDRESSES_MAX, TICKET_BYTES_MAX};

const VERSION: u8 = 1;
const PREFIX: &str = "aero";
const FORM: char = '1';
const LENGTH_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;
/// Characters that hold the length.
const HEAD_CHARACTERS: usize = 8;

/// Everything that a newcomer needs to join a mesh, checked. [`fmt::Display`] writes the secret text.
#[derive(Clone)]
pub struct Ticket {
    genesis: Verified<Genesis>,
    chain: Vec<MemberRecord>,
    invitation: Verified<Invitation>,
    key: Keypair,
    addresses: Vec<String>,
}

/// Why a text is not a usable ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The text is something else.
    #[error("this is not a ticket: a ticket begins with \"aero1\"")]
    NotATicket,
    /// The ticket was made by a newer program.
    #[error(
        "the ticket is of the newer form \"aero{0}\": update this program, or ask for a ticket made by an older one"
    )]
    Newer(char),
    /// The text is longer than any ticket.
    #[error(
        "the ticket has {bytes} bytes, over the limit of {TICKET_BYTES_MAX}: copy the ticket alone, or make it with \
         fewer addresses"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A character that no ticket has.
    #[error("the ticket is mistyped: {character:?} at character {position} is none of a-z and 2-7")]
    Character {
        /// The character.
        character: char,
        /// Its place, counted from 1 without white space.
        position: usize,
    },
    /// The end is missing.
    #[error("the ticket is cut short, at least {missing} characters are missing: copy it as a whole")]
    Cut {
        /// How many characters are missing at least.
        missing: usize,
    },
    /// Characters are wrong, swapped or too many.
    #[error("the ticket is damaged, its checksum does not match: copy it again, or compare it with the original")]
    Damaged,
    /// The text is as it was made, but what it says does not hold.
    #[error("the ticket is not valid ({0}): ask an admin of the mesh for a new one")]
    Invalid(String),
}

impl From<TicketError> for crate::Error {
    fn from(error: TicketError) -> Self {
        use crate::{Invalid, InvalidKind};

        let kind = match error {
            TicketError::TooLong { .. } => InvalidKind::TooLarge,
            TicketError::Invalid(_) | TicketError::Newer(_) => InvalidKind::Meaning,
            TicketError::NotATicket
            | TicketError::Character { .. }
            | TicketError::Cut { .. }
            | TicketError::Damaged => InvalidKind::Syntax,
        };
        Self::Invalid(Invalid { message: error.to_string(), field: None, position: None, kind })
    }
}

impl Ticket {
    /// Puts a ticket together, and checks that it holds: signatures, the line from the founder to the issuer,
    /// the key, the addresses.
    pub(super) fn assemble(
        genesis: Signed<Genesis>,
        chain: Vec<MemberRecord>,
        invitation: Signed<Invitation>,
        key: Keypair,
        addresses: Vec<String>,
    ) -> Result<Self, TicketError> {
        let invalid = |why: &str| TicketError::Invalid(why.to_owned());
        let mesh = genesis.mesh_id();
        let genesis = genesis.verify().map_err(|_| invalid("the genesis is forged"))?;
        let invitation = invitation.verify().map_err(|_| invalid("the invitation is forged"))?;
        if invitation.mesh != mesh {
            return Err(invalid("the invitation is for another mesh"));
        }
        if invitation.ticket_key != key.peer_id() {
            return Err(invalid("the key is not the invitation's"));
        }
        if last_admin(&mesh, genesis.founder, &chain) != Some(invitation.issuer) {
            return Err(invalid("the issuer is not shown to be an admin"));
        }
        for address in &addresses {
            check_address(address).map_err(TicketError::Invalid)?;
        }
        let ticket = Self { genesis, chain, invitation, key, addresses };
        match text_characters(ticket.body().len()) {
            bytes if bytes > TICKET_BYTES_MAX => Err(TicketError::TooLong { bytes }),
            _ => Ok(ticket),
        }
    }

    /// Reads a ticket's text and checks everything in it.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        if text.len() > TICKET_BYTES_MAX {
            return Err(TicketError::TooLong { bytes: text.len() });
        }
        // Room for the whole at once: a buffer that grows leaves copies of the secret behind.
        let mut compact = Zeroizing::new(String::with_capacity(text.len()));
        compact.extend(text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()));
        let rest = compact.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        match rest.chars().next() {
            Some(FORM) => {}
            Some(newer) if newer.is_ascii_digit() => return Err(TicketError::Newer(newer)),
            Some(_) | None => return Err(TicketError::NotATicket),
        }
        let framed = unframe(&rest[1..])?;
        let body = &framed[LENGTH_BYTES..framed.len() - CHECKSUM_BYTES];
        let mut reader = Reader::new(body);
        let parts = decode(&mut reader).and_then(|parts| reader.finish().map(|()| parts));
        let (genesis, chain, invitation, key, addresses) = parts.map_err(|e| TicketError::Invalid(e.to_string()))?;
        Self::assemble(genesis, chain, invitation, key, addresses)
    }

    /// What the joiner shows to a member: proof of the ticket, for `joiner` and nobody else.
    /// `at` is the joiner's time.
    #[must_use]
    pub fn redeem(&self, joiner: PeerId, at: Timestamp) -> JoinRequest {
        let invitation = self.invitation.as_signed().clone();
        let redemption = Redemption {
            mesh: invitation.body.mesh,
            invitation: invitation.id(),
            ticket_key: self.key.peer_id(),
            joiner,
            at,
        };
        JoinRequest { chain: self.chain.clone(), invitation, redemption: Signed::sign(redemption, &self.key) }
    }

    /// The mesh's genesis, from which the joiner begins its table of members.
    #[must_use]
    pub fn genesis(&self) -> &Verified<Genesis> {
        &self.genesis
    }

    /// The mesh that it lets into.
    #[must_use]
    pub fn mesh(&self) -> MeshId {
        self.invitation.mesh
    }

    /// Who invites.
    #[must_use]
    pub fn issuer(&self) -> PeerId {
        self.invitation.issuer
    }

    /// The role that it gives.
    #[must_use]
    pub fn role(&self) -> Role {
        self.invitation.role
    }

    /// The last moment of admission.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.invitation.expires
    }

    /// How many it lets in.
    #[must_use]
    pub fn uses(&self) -> u32 {
        self.invitation.uses
    }

    /// Multiaddrs of members, each ending in `/p2p/` and a peer id.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    fn body(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::new();
        writer.u8(VERSION).value(self.genesis.as_signed());
        writer.list(&self.chain, |w, record| {
            w.value(record);
        });
        writer.value(self.invitation.as_signed()).fixed(&*self.key.seed());
        writer.list(&self.addresses, |w, address| {
            w.string(address);
        });
        Zeroizing::new(writer.finish())
    }
}

impl fmt::Display for Ticket {
    /// The secret text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        let length = u16::try_from(body.len()).expect("a ticket's text is bounded when it is put together");
        let mut framed = Zeroizing::new(Vec::with_capacity(LENGTH_BYTES + body.len() + CHECKSUM_BYTES));
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&body);
        let checksum = crc32fast::hash(&framed).to_be_bytes();
        framed.extend_from_slice(&checksum);
        let mut text = Zeroizing::new(BASE32_NOPAD_NOCASE.encode(&framed));
        text.make_ascii_lowercase();
        write!(f, "{PREFIX}{FORM}{}", *text)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("mesh", &self.mesh())
            .field("invitation", &*self.invitation)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

type Parts = (Signed<Genesis>, Vec<MemberRecord>, Signed<Invitation>, Keypair, Vec<String>);

fn decode(reader: &mut Reader<'_>) -> Result<Parts, DecodeError> {
    reader.version("ticket version", VERSION)?;
    let genesis = reader.value()?;
    let chain = reader.list("chain", CHAIN_LENGTH_MAX, Reader::value)?;
    let invitation = reader.value()?;
    let key = Keypair::from_seed(reader.fixed()?);
    let addresses = reader
        .list("addresses", TICKET_ADDRESSES_MAX, |r| r.string("address", ADDRESS_BYTES_MAX).map(str::to_owned))?;
    Ok((genesis, chain, invitation, key, addresses))
}

/// Takes the checked frame out of base32 text.
fn unframe(text: &str) -> Result<Zeroizing<Vec<u8>>, TicketError> {
    let odd = text.chars().enumerate().find(|(_, c)| !matches!(c, 'a'..='z' | '2'..='7'));
    if let Some((index, character)) = odd {
        return Err(TicketError::Character { character, position: PREFIX.len() + 1 + index + 1 });
    }
    let missing = |whole: usize| TicketError::Cut { missing: whole - text.len() };
    let head = text.get(..HEAD_CHARACTERS).ok_or_else(|| missing(HEAD_CHARACTERS))?;
    let head = Zeroizing::new(BASE32_NOPAD_NOCASE.decode(head.as_bytes()).map_err(|_| TicketError::Damaged)?);
    let whole = characters(usize::from(u16::from_be_bytes([head[0], head[1]])));
    if text.len() < whole {
        return Err(missing(whole));
    }
    let framed = Zeroizing::new(BASE32_NOPAD_NOCASE.decode(text.as_bytes()).map_err(|_| TicketError::Damaged)?);
    let (content, checksum) = framed.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Damaged)?;
    if text.len() != whole || crc32fast::hash(content).to_be_bytes() != *checksum {
        return Err(TicketError::Damaged);
    }
    Ok(framed)
}

/// Characters of base32 for a body of so many bytes.
fn characters(body_bytes: usize) -> usize {
    ((LENGTH_BYTES + body_bytes + CHECKSUM_BYTES) * 8).div_ceil(5)
}

/// Characters of the whole text for a body of so many bytes.
fn text_characters(body_bytes: usize) -> usize {
    PREFIX.len() + 1 + characters(body_bytes)
}

/// Follows a line of delegations: each record gives the admin role and was issued by the admin before it.
fn last_admin(mesh: &MeshId, founder: PeerId, chain: &[MemberRecord]) -> Option<PeerId> {
    chain.iter().try_fold(founder, |admin, record| {
        let delegated = record.role() == Role::Admin && record.joined()?.invitation.body.issuer == admin;
        (delegated && record.clone().verify(mesh).is_ok()).then(|| record.peer())
    })
}

/// The rule for an address: a multiaddr in text that ends in the peer it leads to.
pub(super) fn check_address(address: &str) -> Result<(), String> {
    let peer = address.rsplit_once("/p2p/").map(|(_, peer)| peer.parse::<PeerId>());
    let printable = address.chars().all(|c| c.is_ascii_graphic());
    if address.len() <= ADDRESS_BYTES_MAX && address.starts_with('/') && printable && matches!(peer, Some(Ok(_))) {
        return Ok(());
    }
    let shown: String = address.chars().take(80).collect();
    Err(format!(
        "address {shown:?} is not a multiaddr that ends in /p2p/ and a peer id, of at most {ADDRESS_BYTES_MAX} bytes"
    ))
}

/// What a joiner shows to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The line of admins from the founder (left out) to the issuer, for a member who does not know them yet.
    pub chain: Vec<MemberRecord>,
    /// The invitation.
    pub invitation: Signed<Invitation>,
    /// Proof of holding its key.
    pub redemption: Signed<Redemption>,
}

/// A join request whose signatures were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenRequest(JoinRequest);

impl ProvenRequest {
    /// The request.
    #[must_use]
    pub fn as_request(&self) -> &JoinRequest {
        &self.0
    }
}

impl JoinRequest {
    /// Checks the signatures of the invitation and of the redemption; those of the chain are its records' own. A pure
    /// function, so that it can run on any thread.
    ///
    /// # Errors
    /// [`Refusal::BadProof`] when one of them is wrong.
    pub fn prove(self) -> Result<ProvenRequest, Refusal> {
        let checked = self.invitation.check().and_then(|()| self.redemption.check());
        checked.map(|()| ProvenRequest(self)).map_err(|_| Refusal::BadProof)
    }
}

impl Encode for JoinRequest {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(VERSION).list(&self.chain, |w, record| {
            w.value(record);
        });
        writer.value(&self.invitation).value(&self.redemption);
    }
}

impl Decode for JoinRequest {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("join request version", VERSION)?;
        let chain = reader.list("chain", CHAIN_LENGTH_MAX, Reader::value)?;
        Ok(Self { chain, invitation: reader.value()?, redemption: reader.value()? })
    }
}
