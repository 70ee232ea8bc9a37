//! The messages: Binding requests, with or without CHANGE-REQUEST, and their answers.

use std::net::SocketAddr;

use bytecodec::{DecodeExt, EncodeExt};
use stun_codec::rfc5389::attributes::{ErrorCode, MappedAddress, UnknownAttributes, XorMappedAddress};
use stun_codec::rfc5389::errors::UnknownAttribute;
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::rfc5780::attributes::{ChangeRequest, OtherAddress, ResponseOrigin};
use stun_codec::{
    Attribute as _, AttributeType, Message, MessageClass, MessageDecoder, MessageEncoder, TransactionId,
    define_attribute_enums,
};

/// Bytes of a datagram: what passes everywhere without being cut in pieces.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1_500;

define_attribute_enums!(
    Attribute,
    AttributeDecoder,
    AttributeEncoder,
    [XorMappedAddress, MappedAddress, ErrorCode, UnknownAttributes, ChangeRequest, OtherAddress, ResponseOrigin]
);

/// Attributes that a refusal lists: a client sends one or two, and the refusal stays small.
const UNKNOWN_MAX: usize = 4;

/// The number of a question.
pub(super) type Transaction = [u8; 12];

/// From where an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Change {
    pub(super) ip: bool,
    pub(super) port: bool,
}

/// A message as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Request {
        change: Change,
    },
    /// A request that cannot be answered without attributes that are not known here.
    Demand {
        unknown: Vec<AttributeType>,
    },
    Answer {
        mapped: Option<SocketAddr>,
        other: Option<SocketAddr>,
    },
    Refusal,
}

/// What a request's CHANGE-REQUEST asks for (RFC 5780, 7.2): the codec writes its flags as they should be, and reads them
/// one bit too low. The message is known to be well-formed.
fn change(bytes: &[u8]) -> Option<Change> {
    let mut attributes = bytes.get(20..)?;
    loop {
        let (kind, length) = (attributes.get(..2)?, attributes.get(2..4)?);
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if kind == ChangeRequest::CODEPOINT.to_be_bytes() {
            let flags = *attributes.get(7)?;
            return Some(Change { ip: flags & 4 != 0, port: flags & 2 != 0 });
        }
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
}

/// A request, as bytes.
pub(super) fn request(transaction: Transaction, change: Change) -> Vec<u8> {
    let mut message = Message::<Attribute>::new(MessageClass::Request, BINDING, TransactionId::new(transaction));
    if change != Change::default() {
        message.add_attribute(ChangeRequest::new(change.ip, change.port));
    }
    encode(message)
}

/// An answer, as bytes: how the asker is seen, from where it is answered, and where else it can be asked.
pub(super) fn answer(
    transaction: Transaction,
    mapped: SocketAddr,
    origin: SocketAddr,
    other: Option<SocketAddr>,
) -> Vec<u8> {
    let mut message =
        Message::<Attribute>::new(MessageClass::SuccessResponse, BINDING, TransactionId::new(transaction));
    message.add_attribute(XorMappedAddress::new(mapped));
    message.add_attribute(ResponseOrigin::new(origin));
    if let Some(other) = other {
        message.add_attribute(OtherAddress::new(other));
    }
    encode(message)
}

/// The answer to a request with attributes that would have to be known (RFC 5389, 7.3.1), as bytes.
pub(super) fn refusal(transaction: Transaction, unknown: Vec<AttributeType>) -> Vec<u8> {
    let mut message = Message::<Attribute>::new(MessageClass::ErrorResponse, BINDING, TransactionId::new(transaction));
    message.add_attribute(ErrorCode::from(UnknownAttribute));
    message.add_attribute(UnknownAttributes::new(unknown));
    encode(message)
}

fn encode(message: Message<Attribute>) -> Vec<u8> {
    MessageEncoder::new().encode_into_bytes(message).expect("these attributes fit a message")
}

/// Reads a message; `None` for anything else.
pub(super) fn read(bytes: &[u8]) -> Option<(Transaction, Said)> {
    if bytes.len() > DATAGRAM_BYTES_MAX {
        return None;
    }
    let message = MessageDecoder::<Attribute>::new().decode_from_bytes(bytes).ok()?.ok()?;
    if message.method() != BINDING {
        return None;
    }
    let transaction = *message.transaction_id().as_bytes();
    let unknown = message.unknown_attributes().map(|attribute| attribute.get_type());
    let unknown: Vec<_> = unknown.filter(|kind| kind.is_comprehension_required()).take(UNKNOWN_MAX).collect();
    let said = match message.class() {
        MessageClass::Request if !unknown.is_empty() => Said::Demand { unknown },
        // What it says may be other than what is understood (RFC 5389, 7.3.3).
        MessageClass::SuccessResponse if !unknown.is_empty() => return None,
        MessageClass::Request => Said::Request { change: change(bytes).unwrap_or_default() },
        MessageClass::SuccessResponse => {
            let xor = message.get_attribute::<XorMappedAddress>().map(XorMappedAddress::address);
            let plain = message.get_attribute::<MappedAddress>().map(MappedAddress::address);
            let other = message.get_attribute::<OtherAddress>().map(OtherAddress::address);
            Said::Answer { mapped: xor.or(plain), other }
        }
        MessageClass::ErrorResponse => Said::Refusal,
        MessageClass::Indication => return None,
    };
    Some((transaction, said))
}
