//! The messages between two peers. Each is one frame: a version byte, a tag and the body, in the
//! canonical codec, at most [`FRAME_BYTES_MAX`] bytes.

use std::collections::BTreeSet;

use crate::access::{JoinRequest, MemberRecord};
use crate::base::{
    ActorId, CollectionName, Decode, DecodeError, DocumentId, Encode, Hash, MeshId, Reader, Timestamp, Writer,
};
use crate::document::Unchecked;
use crate::limits::{
    ADDRESS_BYTES_MAX, CHANGES_PER_FRAME_MAX, DOCUMENT_ACTORS_MAX, DOCUMENT_ID_BYTES_MAX, FRAME_BYTES_MAX, ITEMS_MAX,
    MEMBERS_PER_FRAME_MAX, OPENED_COLLECTIONS_MAX, RANGE_PARTS_MAX, ROOTS_PARTS_MAX,
};
use crate::store::Vector;

use super::frame;
use super::receipt::{Ask, Told};

/// Version of the protocol; peers of different versions tell each other so and part.
pub const PROTOCOL_VERSION: u8 = 4;

/// Places from which one peer is said to be linked.
const PLACES_MAX: usize = 8;

/// The shortened hash by which a document's state, or a range, is compared under a salt.
pub type Digest = [u8; 6];

/// A message between two peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first message on a link, from both sides: which mesh, and proof of membership.
    Hello(Box<Hello>),
    /// A newcomer shows a ticket instead.
    Redeem(Box<JoinRequest>),
    /// The newcomer is a member now.
    Welcome(Box<Welcome>),
    /// The other side will not be let in, and why; the link is dropped after it.
    Refused(String),
    /// Member records that the other side may not have.
    Members(Vec<MemberRecord>),
    /// Ranges of collections to compare: a question, its answer, or what follows from that.
    Roots(Roots),
    /// Ranges of a collection to compare.
    Ranges(Ranges),
    /// Vectors of documents, and digests that are not known here.
    Items(Items),
    /// Changes, numbered for their acknowledgement.
    Changes {
        /// The frame's number on this link, from 1.
        number: u64,
        /// The changes, dependencies first.
        changes: Vec<Unchecked>,
    },
    /// The frame of this number, and all before it, are on the disk.
    Acknowledged(u64),
    /// Which versions the other side has on its disk.
    Ask(Ask),
    /// Which versions are on the disk here.
    Told(Told),
    /// The receiver is linked from these places in turns, so it seems to run twice.
    RunsTwice(BTreeSet<String>),
}

/// Who a peer says it is; who it really is, the transport has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The mesh it is in.
    pub mesh: MeshId,
    /// Its member record and those it rests on.
    pub chain: Vec<MemberRecord>,
    /// The fingerprint of all member records it has.
    pub members: Hash,
    /// What its clock shows, the time on the way not counted. A greeting is repeated, without the chain, to tell it anew.
    pub at: Timestamp,
}

/// What a newcomer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The newcomer's record and those it rests on, the founder's first.
    pub chain: Vec<MemberRecord>,
    /// The secret under which live changes are sealed.
    pub secret: [u8; 32],
}

/// The fingerprint of one collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The collection.
    pub collection: CollectionName,
    /// Its documents, deleted ones included.
    pub count: u64,
    /// The fingerprint of its documents under the salt of the question.
    pub fingerprint: [u8; 16],
}

/// Consecutive ranges of the names of collections, all names together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Drawn by the one who asks; what follows carries the same.
    pub salt: u64,
    /// Where in a comparison it stands.
    pub step: Step,
    /// Documents of the sender in all collections, deleted ones included.
    pub documents: u64,
    /// The ranges: each reaches from where the one before ended to its own end (`None`: no end).
    pub parts: Vec<(Option<CollectionName>, Names)>,
}

/// Where in a comparison a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It begins one; an answer is expected.
    Question,
    /// It is the answer.
    Answer,
    /// It goes on with what differed.
    Closer,
}

/// What is said of one range of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Nothing: it is equal, or everything was said.
    Skip,
    /// Its fingerprint.
    Fingerprint(Digest),
    /// All of its collections that hold documents, by name.
    Listed(Vec<Root>),
    /// Those that differ from what was listed, by name.
    Differing(Vec<Root>),
}

/// Consecutive ranges of a collection's ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// The salt of the comparison.
    pub salt: u64,
    /// The collection.
    pub collection: CollectionName,
    /// Where the first range starts.
    pub from: Vec<u8>,
    /// The ranges: each reaches from where the one before ended to its own end (`None`: no end).
    pub parts: Vec<(Option<Vec<u8>>, Part)>,
}

/// What is said of one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Nothing: it is equal or was dealt with.
    Skip,
    /// Its fingerprint.
    Fingerprint(Digest),
    /// The digest of each of its documents.
    Digests(Vec<Digest>),
}

/// Vectors of documents in one collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    /// The salt under which the digests in `unknown` were made.
    pub salt: u64,
    /// The collection.
    pub collection: CollectionName,
    /// What the sender has of these documents; the receiver sends what it has beyond that.
    pub items: Vec<(DocumentId, Vector)>,
    /// Whether the receiver should answer with its own vectors where the sender has more.
    pub reply: bool,
    /// What of the receiver the sender does not have, by ranges of ids, ascending.
    pub unknown: Vec<Unknown>,
}

/// Documents of a range that the sender does not have in the state that the receiver listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Where the range starts.
    pub from: Vec<u8>,
    /// Its end.
    pub to: Option<Vec<u8>>,
    /// Their digests.
    pub digests: Vec<Digest>,
}

impl Message {
    /// A word for logs and counts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Redeem(_) => "redeem",
            Self::Welcome(_) => "welcome",
            Self::Refused(_) => "refused",
            Self::Members(_) => "members",
            Self::Roots(_) => "roots",
            Self::Ranges(_) => "ranges",
            Self::Items(_) => "items",
            Self::Changes { .. } => "changes",
            Self::Acknowledged(_) => "acknowledged",
            Self::Ask(_) => "ask",
            Self::Told(_) => "told",
            Self::RunsTwice(_) => "runs twice",
        }
    }

    /// Whether there are signatures about members in it, which are to be checked before a node takes it.
    #[must_use]
    pub fn carries_records(&self) -> bool {
        match self {
            Self::Hello(hello) => !hello.chain.is_empty(),
            Self::Redeem(_) => true,
            Self::Welcome(welcome) => !welcome.chain.is_empty(),
            Self::Members(records) => !records.is_empty(),
            Self::Refused(_)
            | Self::Roots(_)
            | Self::Ranges(_)
            | Self::Items(_)
            | Self::Changes { .. }
            | Self::Acknowledged(_)
            | Self::Ask(_)
            | Self::Told(_)
            | Self::RunsTwice(_) => false,
        }
    }

    /// Takes the member records out of it.
    pub(super) fn take_records(&mut self) -> Vec<MemberRecord> {
        match self {
            Self::Hello(hello) => std::mem::take(&mut hello.chain),
            Self::Redeem(request) => std::mem::take(&mut request.chain),
            Self::Welcome(welcome) => std::mem::take(&mut welcome.chain),
            Self::Members(records) => std::mem::take(records),
            Self::Refused(_)
            | Self::Roots(_)
            | Self::Ranges(_)
            | Self::Items(_)
            | Self::Changes { .. }
            | Self::Acknowledged(_)
            | Self::Ask(_)
            | Self::Told(_)
            | Self::RunsTwice(_) => Vec::new(),
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Hello(_) => 0,
            Self::Redeem(_) => 1,
            Self::Welcome(_) => 2,
            Self::Refused(_) => 3,
            Self::Members(_) => 4,
            Self::Roots(_) => 5,
            Self::Ranges(_) => 6,
            Self::Items(_) => 7,
            Self::Changes { .. } => 8,
            Self::Acknowledged(_) => 9,
            Self::Ask(_) => 10,
            Self::Told(_) => 11,
            Self::RunsTwice(_) => 12,
        }
    }
}

impl Encode for Message {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(PROTOCOL_VERSION).u8(self.tag());
        match self {
            Self::Hello(hello) => {
                writer.value(&hello.mesh).value(&hello.members).varint(hello.at.0);
                writer.list(&hello.chain, |w, record| _ = w.value(record));
            }
            Self::Redeem(request) => _ = writer.value(&**request),
            Self::Welcome(welcome) => {
                writer.fixed(&welcome.secret);
                writer.list(&welcome.chain, |w, record| _ = w.value(record));
            }
            Self::Refused(why) => _ = writer.string(why),
            Self::Members(records) => _ = writer.list(records, |w, record| _ = w.value(record)),
            Self::Roots(roots) => roots.encode(writer),
            Self::Ranges(ranges) => ranges.encode(writer),
            Self::Items(items) => items.encode(writer),
            Self::Changes { number, changes } => _ = writer.varint(*number).fixed(&frame::pack(changes)),
            Self::Acknowledged(number) => _ = writer.varint(*number),
            Self::Ask(ask) => _ = writer.value(ask),
            Self::Told(told) => _ = writer.value(told),
            Self::RunsTwice(places) => {
                let places: Vec<&String> = places.iter().collect();
                writer.list(&places, |w, place| _ = w.string(place));
            }
        }
    }
}

impl Decode for Message {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("protocol version", PROTOCOL_VERSION)?;
        Ok(match reader.u8()? {
            0 => {
                let (mesh, members, at) = (reader.value()?, reader.value()?, Timestamp(reader.varint()?));
                let chain = reader.list("member records", MEMBERS_PER_FRAME_MAX, Reader::value)?;
                Self::Hello(Box::new(Hello { mesh, chain, members, at }))
            }
            1 => Self::Redeem(Box::new(reader.value()?)),
            2 => {
                let secret = reader.fixed()?;
                let chain = reader.list("member records", MEMBERS_PER_FRAME_MAX, Reader::value)?;
                Self::Welcome(Box::new(Welcome { chain, secret }))
            }
            3 => Self::Refused(reader.string("refusal", 1_024)?.to_owned()),
            4 => Self::Members(reader.list("member records", MEMBERS_PER_FRAME_MAX, Reader::value)?),
            5 => Self::Roots(reader.value()?),
            6 => Self::Ranges(reader.value()?),
            7 => Self::Items(reader.value()?),
            8 => {
                let number = reader.varint()?;
                let changes = frame::unpack(reader.rest(), CHANGES_PER_FRAME_MAX)?;
                Self::Changes { number, changes }
            }
            9 => Self::Acknowledged(reader.varint()?),
            10 => Self::Ask(reader.value()?),
            11 => Self::Told(reader.value()?),
            12 => {
                let place = |reader: &mut Reader<'_>| Ok(reader.string("place", ADDRESS_BYTES_MAX)?.to_owned());
                Self::RunsTwice(reader.list("places", PLACES_MAX, place)?.into_iter().collect())
            }
            tag => return Err(DecodeError::Unknown { what: "message", value: u64::from(tag) }),
        })
    }
}

impl Encode for Roots {
    fn encode(&self, writer: &mut Writer) {
        writer.fixed(&self.salt.to_be_bytes()).u8(self.step as u8).varint(self.documents);
        let roots = |w: &mut Writer, roots: &[Root]| {
            w.list(roots, |w, root| _ = w.value(&root.collection).varint(root.count).fixed(&root.fingerprint));
        };
        writer.list(&self.parts, |w, (to, names)| {
            w.value(to);
            match names {
                Names::Skip => _ = w.u8(0),
                Names::Fingerprint(fingerprint) => _ = w.u8(1).fixed(fingerprint),
                Names::Listed(listed) => roots(w.u8(2), listed),
                Names::Differing(differing) => roots(w.u8(3), differing),
            }
        });
    }
}

impl Decode for Roots {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let salt = u64::from_be_bytes(reader.fixed()?);
        let step = match reader.u8()? {
            0 => Step::Question,
            1 => Step::Answer,
            2 => Step::Closer,
            value => return Err(DecodeError::Unknown { what: "step", value: u64::from(value) }),
        };
        let documents = reader.varint()?;
        let (mut from, mut ended) = (None, false);
        let parts = reader.list("ranges of names", ROOTS_PARTS_MAX, |r| {
            let to: Option<CollectionName> = r.value()?;
            let names = match r.u8()? {
                0 => Names::Skip,
                1 => Names::Fingerprint(r.fixed()?),
                2 => Names::Listed(roots(r, from.as_ref(), to.as_ref())?),
                3 => Names::Differing(roots(r, from.as_ref(), to.as_ref())?),
                tag => return Err(DecodeError::Unknown { what: "range of names", value: u64::from(tag) }),
            };
            if ended || to.is_some() && to <= from {
                return Err(DecodeError::Rule("ranges of names are not in order".into()));
            }
            ended = to.is_none();
            from.clone_from(&to);
            Ok((to, names))
        })?;
        if ended { Ok(Self { salt, step, documents, parts }) } else { Err(DecodeError::Truncated) }
    }
}

/// Reads the collections of one range of names.
fn roots(
    reader: &mut Reader<'_>,
    from: Option<&CollectionName>,
    to: Option<&CollectionName>,
) -> Result<Vec<Root>, DecodeError> {
    let mut last: Option<CollectionName> = None;
    reader.list("collections", OPENED_COLLECTIONS_MAX, |r| {
        let root = Root { collection: r.value()?, count: r.varint()?, fingerprint: r.fixed()? };
        let name = &root.collection;
        let is_next = last.as_ref().map_or(from.is_none_or(|from| from <= name), |last| last < name);
        if !is_next || to.is_some_and(|to| name >= to) {
            return Err(DecodeError::Rule("collections are not in order".into()));
        }
        last = Some(name.clone());
        Ok(root)
    })
}

impl Encode for Ranges {
    fn encode(&self, writer: &mut Writer) {
        writer.fixed(&self.salt.to_be_bytes()).value(&self.collection).bytes(&self.from);
        let mut before: &[u8] = &self.from;
        writer.varint(self.parts.len() as u64);
        for (to, part) in &self.parts {
            put_end(writer, before, to.as_deref());
            before = to.as_deref().unwrap_or_default();
            match part {
                Part::Skip => _ = writer.u8(0),
                Part::Fingerprint(fingerprint) => _ = writer.u8(1).fixed(fingerprint),
                Part::Digests(digests) => _ = writer.u8(2).list(digests, |w, digest| _ = w.fixed(digest)),
            }
        }
    }
}

impl Decode for Ranges {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let salt = u64::from_be_bytes(reader.fixed()?);
        let collection = reader.value()?;
        let from = reader.bytes("range start", DOCUMENT_ID_BYTES_MAX)?.to_vec();
        let mut before = Some(from.clone());
        let parts = reader.list("ranges", RANGE_PARTS_MAX, |r| {
            let Some(start) = &before else {
                return Err(DecodeError::Rule("a range follows one without an end".into()));
            };
            let to = take_end(r, start)?;
            before.clone_from(&to);
            let part = match r.u8()? {
                0 => Part::Skip,
                1 => Part::Fingerprint(r.fixed()?),
                2 => Part::Digests(r.list("digests", ITEMS_MAX, Reader::fixed)?),
                tag => return Err(DecodeError::Unknown { what: "range", value: u64::from(tag) }),
            };
            Ok((to, part))
        })?;
        Ok(Self { salt, collection, from, parts })
    }
}

impl Encode for Items {
    fn encode(&self, writer: &mut Writer) {
        let mut actors: Vec<ActorId> = self.items.iter().flat_map(|(_, v)| v.iter().map(|(actor, _)| *actor)).collect();
        actors.sort_unstable();
        actors.dedup();
        writer.fixed(&self.salt.to_be_bytes()).value(&self.collection).u8(u8::from(self.reply));
        writer.list(&actors, |w, actor| _ = w.value(actor));
        writer.list(&self.items, |w, (id, vector)| {
            w.value(id).list(vector, |w, (actor, sequence)| {
                let index = actors.binary_search(actor).expect("every actor was listed above");
                w.varint(index as u64).varint(*sequence);
            });
        });
        let mut before: &[u8] = &[];
        writer.varint(self.unknown.len() as u64);
        for Unknown { from, to, digests } in &self.unknown {
            // Many ranges start where the one before ended.
            put_end(writer, before, Some(&**from).filter(|from| *from != before));
            put_end(writer, from, to.as_deref());
            before = to.as_deref().unwrap_or_default();
            writer.list(digests, |w, digest| _ = w.fixed(digest));
        }
    }
}

impl Decode for Items {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let salt = u64::from_be_bytes(reader.fixed()?);
        let (collection, reply) = (reader.value()?, flag(reader)?);
        let actors: Vec<ActorId> = reader.list("actors", DOCUMENT_ACTORS_MAX, Reader::value)?;
        let mut last: Option<DocumentId> = None;
        let items = reader.list("items", ITEMS_MAX, |r| {
            let id: DocumentId = r.value()?;
            if last.replace(id.clone()).is_some_and(|last| last >= id) {
                return Err(DecodeError::Rule("ids are not in order".into()));
            }
            let vector = r.list("vector", DOCUMENT_ACTORS_MAX, |r| {
                let index: usize = r.int()?;
                let actor = actors.get(index).ok_or(DecodeError::Unknown { what: "actor", value: index as u64 })?;
                Ok((*actor, r.varint()?))
            })?;
            if vector.is_sorted_by(|(a, _): &(ActorId, u64), (b, _)| a < b) {
                Ok((id, vector))
            } else {
                Err(DecodeError::Rule("a vector's actors are not in order".into()))
            }
        })?;
        let mut before = Some(Vec::new());
        let unknown = reader.list("ranges", RANGE_PARTS_MAX, |r| {
            let Some(end) = &before else {
                return Err(DecodeError::Rule("a range follows one without an end".into()));
            };
            let from = take_end(r, end)?.unwrap_or_else(|| end.clone());
            let to = take_end(r, &from)?;
            before.clone_from(&to);
            Ok(Unknown { from, to, digests: r.list("digests", ITEMS_MAX, Reader::fixed)? })
        })?;
        Ok(Self { salt, collection, items, reply, unknown })
    }
}

pub(super) fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(DecodeError::Unknown { what: "flag", value: u64::from(value) }),
    }
}

/// The end of a range: 0 for none, or one more than the length of what it shares with `before`, then the rest.
fn put_end(writer: &mut Writer, before: &[u8], end: Option<&[u8]>) {
    let Some(end) = end else {
        writer.varint(0);
        return;
    };
    let shared = before.iter().zip(end).take_while(|(a, b)| a == b).count();
    writer.varint(shared as u64 + 1).bytes(&end[shared..]);
}

fn take_end(reader: &mut Reader<'_>, before: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some(shared) = reader.int::<usize>()?.checked_sub(1) else { return Ok(None) };
    let head = before.get(..shared).ok_or_else(|| DecodeError::Rule("an id shares more than there is".into()))?;
    let end = [head, reader.bytes("range end", DOCUMENT_ID_BYTES_MAX - shared)?].concat();
    if end.as_slice() > before { Ok(Some(end)) } else { Err(DecodeError::Rule("a range ends before it starts".into())) }
}

/// Reads a whole frame.
///
/// # Errors
/// When it is longer than [`FRAME_BYTES_MAX`] or not a message of this version.
pub fn decode(frame: &[u8]) -> Result<Message, DecodeError> {
    if frame.len() > FRAME_BYTES_MAX {
        let (length, limit) = (frame.len() as u64, FRAME_BYTES_MAX);
        return Err(DecodeError::TooLong { what: "frame", length, limit });
    }
    Message::from_bytes(frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::receipt::Receipt;
    use super::*;
    use crate::base::{DocumentKey, Timestamp};
    use crate::identity::{Keypair, Signed};

    fn ranges() -> Ranges {
        Ranges {
            salt: 7,
            collection: "users".parse().unwrap(),
            from: Vec::new(),
            parts: vec![
                (Some(b"doc-0100".to_vec()), Part::Fingerprint([1; 6])),
                (Some(b"doc-0200".to_vec()), Part::Skip),
                (None, Part::Digests(vec![[2; 6], [3; 6]])),
            ],
        }
    }

    fn items() -> Items {
        Items {
            salt: 7,
            collection: "users".parse().unwrap(),
            items: vec![
                ("a".parse().unwrap(), vec![(ActorId([1; 16]), 3), (ActorId([2; 16]), 1)]),
                ("b".parse().unwrap(), vec![(ActorId([2; 16]), 9)]),
            ],
            reply: true,
            unknown: vec![
                Unknown { from: Vec::new(), to: Some(b"b".to_vec()), digests: vec![[9; 6]] },
                Unknown { from: b"b".to_vec(), to: Some(b"c".to_vec()), digests: Vec::new() },
                Unknown { from: b"cd".to_vec(), to: None, digests: vec![[8; 6], [7; 6]] },
            ],
        }
    }

    fn roots() -> Roots {
        let root = |name: &str| Root { collection: name.parse().unwrap(), count: 3, fingerprint: [4; 16] };
        let end = |name: &str| Some(name.parse().unwrap());
        let parts = vec![
            (end("b"), Names::Skip),
            (end("c"), Names::Fingerprint([1; 6])),
            (end("m"), Names::Listed(vec![root("c"), root("d")])),
            (end("n"), Names::Listed(Vec::new())),
            (None, Names::Differing(vec![root("users")])),
        ];
        Roots { salt: 1, step: Step::Answer, documents: 9, parts }
    }

    fn ask() -> Ask {
        let document = DocumentKey::new("users".parse().unwrap(), "a".parse().unwrap());
        Ask { number: 3, wait: true, versions: vec![(document, vec![(ActorId([1; 16]), 3), (ActorId([2; 16]), 1)])] }
    }

    fn told() -> Told {
        let keypair = Keypair::from_seed([1; 32]);
        let (mesh, holder, at) = (MeshId([1; 32]), keypair.peer_id(), Timestamp(7));
        let receipt = Receipt { mesh, holder, at, synced: true, versions: ask().versions };
        Told { number: 0, receipt: Some(Box::new(Signed::sign(receipt, &keypair))) }
    }

    #[test]
    fn messages_read_back() {
        for message in [
            Message::Refused("no".into()),
            Message::Roots(roots()),
            Message::Ranges(ranges()),
            Message::Items(items()),
            Message::Changes { number: 4, changes: Vec::new() },
            Message::Acknowledged(4),
            Message::Ask(ask()),
            Message::Told(Told { number: 1, receipt: None }),
            Message::Told(told()),
            Message::RunsTwice(["192.0.2.1 port 4001".to_owned(), "192.0.2.2 port 4001".to_owned()].into()),
        ] {
            assert_eq!(decode(&message.to_bytes()).unwrap(), message);
        }
    }

    proptest! {
        #[test]
        fn garbage_and_damaged_frames_are_refused_or_read(
            garbage: Vec<u8>, tag in 0u8..14, index: prop::sample::Index, byte: u8,
        ) {
            _ = decode(&garbage);
            _ = decode(&[&[PROTOCOL_VERSION, tag], garbage.as_slice()].concat());
            let messages =
                [Message::Roots(roots()), Message::Ranges(ranges()), Message::Items(items()), Message::Ask(ask()), Message::Told(told())];
            for message in messages {
                let mut bytes = message.to_bytes();
                let index = index.index(bytes.len());
                bytes[index] = byte;
                if let Ok(read) = decode(&bytes) {
                    prop_assert_eq!(decode(&read.to_bytes()).unwrap(), read);
                }
            }
        }
    }
}
