//! Signed changes: the unit of storage, of sync and of trust.
//!
//! An envelope is a change with a header that says where it belongs and who wrote it, signed by the
//! author. Everything in the header that the change itself determines (its hash, dependencies, sequence
//! number, time) is derived from the payload on arrival and never sent or stored twice; the signature
//! covers all of it. An [`Envelope`] can be made only by signing or by checking, so holding one means
//! that the payload was screened, that its actor belongs to the author, and that the signature is right.
//! It does not mean that the author had the right to write: that is the access check's to say.
//!
//! One signature may stand for several changes of its author, a [`Run`]: its header is that of the last one, which
//! names the others through its dependencies.
//!
//! What peers show depends on the change alone, never on the header: two envelopes around one change
//! (same change hash) lead to the same document.

use bytes::Bytes;

use super::{Change, Run, ScreenError};
use crate::base::{
    ActorId, ChangeHash, Decode, DecodeError, DocumentKey, Encode, GrantId, Hash, Hlc, Incarnation, MeshId, PeerId,
    Reader, Writer,
};
use crate::identity::{Keypair, Signable, Signature, Signed, Verified};

/// Version of the header's layout.
const HEADER_VERSION: u8 = 1;

/// Who wrote a change, and by which right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author {
    /// The author's key.
    pub peer: PeerId,
    /// The life of the author's store.
    pub incarnation: Incarnation,
    /// The record that gives the author the right.
    pub grant: GrantId,
}

impl Author {
    /// The Automerge actor that this author's changes carry.
    #[must_use]
    pub fn actor(&self) -> ActorId {
        ActorId::derive(&self.peer, &self.incarnation)
    }
}

/// What an author signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The mesh that the change belongs to.
    pub mesh: MeshId,
    /// The document that it changes.
    pub document: DocumentKey,
    /// Who wrote it.
    pub author: Author,
    /// The change's hash.
    pub change: ChangeHash,
    /// The changes it builds on.
    pub dependencies: Vec<ChangeHash>,
    /// Its number among the author's changes of this document, from 1.
    pub sequence: u64,
    /// When it was made.
    pub time: Hlc,
    /// The key epoch of the payload; 0: not encrypted.
    pub epoch: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// BLAKE3 hash of the payload.
    pub payload_hash: Hash,
}

impl Header {
    fn new(mesh: MeshId, document: DocumentKey, author: Author, change: &Change) -> Self {
        let payload = change.payload();
        Self {
            mesh,
            document,
            author,
            change: change.hash(),
            dependencies: change.deps().to_vec(),
            sequence: change.seq(),
            time: change.time(),
            epoch: 0,
            // A screened payload is at most limits::CHANGE_BYTES_MAX long.
            payload_bytes: payload.len() as u32,
            payload_hash: Hash(*blake3::hash(payload).as_bytes()),
        }
    }
}

impl Signable for Header {
    const DOMAIN: &'static str = "aerolithsdb change";

    fn signer(&self) -> PeerId {
        self.author.peer
    }

    fn signed_bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }
}

impl Encode for Header {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(HEADER_VERSION).value(&self.mesh).value(&self.document);
        writer.value(&self.author);
        writer.value(&self.change).list(&self.dependencies, |w, hash| _ = w.value(hash));
        writer.varint(self.sequence).value(&self.time).varint(u64::from(self.epoch));
        writer.varint(u64::from(self.payload_bytes)).value(&self.payload_hash);
    }
}

/// Why an arriving change was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The payload is not an acceptable change.
    #[error("the change was refused before reading it: {0}")]
    Screen(#[from] ScreenError),
    /// The change's actor is not the one derived from its author.
    #[error("the change's actor does not belong to its author")]
    Actor,
    /// A change is not the next one of its actor after the change before it, or builds on others as well.
    #[error("the changes under one signature do not follow each other")]
    Run,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    Signature,
}

impl Refused {
    /// The word by which counters show it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Screen(_) => "not_an_acceptable_change",
            Self::Actor => "actor_of_another_author",
            Self::Run => "not_a_run",
            Self::Signature => "bad_signature",
        }
    }
}

/// Changes under one signature as they arrive, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unchecked {
    /// The document that they claim to change.
    pub document: DocumentKey,
    /// Who claims to have written them.
    pub author: Author,
    /// The signature over the header of the last one.
    pub signature: [u8; 64],
    /// The changes.
    pub run: Run,
}

/// Changes whose payloads were screened and whose signature was checked.
#[derive(Debug, Clone)]
pub struct Envelope {
    header: Verified<Header>,
    /// Never empty.
    changes: Vec<Change>,
    root_view: Option<Bytes>,
}

impl Envelope {
    /// Signs a change of our own.
    #[must_use]
    pub fn sign(
        keypair: &Keypair,
        mesh: MeshId,
        document: DocumentKey,
        incarnation: Incarnation,
        grant: GrantId,
        change: Change,
    ) -> Self {
        let author = Author { peer: keypair.peer_id(), incarnation, grant };
        let header = Header::new(mesh, document, author, &change);
        Self { header: Verified::own(header, keypair), changes: vec![change], root_view: None }
    }

    /// Checks what arrived: screening first, then the actor, then that the changes are a run, then the signature.
    /// When it is one change without dependencies the view of the document it makes is prepared as well, because
    /// this is where there is time for it: off the node's thread.
    ///
    /// # Errors
    /// [`Refused`] with the first check that failed.
    pub fn check(mesh: MeshId, arrived: Unchecked) -> Result<Self, Refused> {
        let mut changes: Vec<Change> = Vec::with_capacity(arrived.run.payloads().len());
        for payload in arrived.run.into_payloads() {
            let change = Change::screen(payload)?;
            if change.actor() != arrived.author.actor() {
                return Err(Refused::Actor);
            }
            if changes.last().is_some_and(|last| !follows(last, &change)) {
                return Err(Refused::Run);
            }
            changes.push(change);
        }
        let last = changes.last().ok_or(Refused::Run)?;
        let header = Header::new(mesh, arrived.document, arrived.author, last);
        let header = Signed { body: header, signature: Signature(arrived.signature) }
            .verify()
            .map_err(|_| Refused::Signature)?;
        let root_view = match changes.as_slice() {
            [only] => only.root_view().map(Bytes::from),
            _ => None,
        };
        Ok(Self { header, changes, root_view })
    }

    /// The signed header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The document that it changes.
    #[must_use]
    pub fn document(&self) -> &DocumentKey {
        &self.header().document
    }

    /// Who wrote it.
    #[must_use]
    pub fn author(&self) -> Author {
        self.header().author
    }

    /// The signature over the header.
    #[must_use]
    pub fn signature(&self) -> [u8; 64] {
        self.header.as_signed().signature.0
    }

    /// The changes; the last one is that of the header.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The view of a document made of its only change, when it was prepared.
    #[must_use]
    pub fn root_view(&self) -> Option<&Bytes> {
        self.root_view.as_ref()
    }

    /// The changes in the form in which they are stored.
    #[must_use]
    pub fn run(&self) -> Run {
        Run::of_changes(&self.changes)
    }

    /// The form in which it is sent.
    #[must_use]
    pub fn to_unchecked(&self) -> Unchecked {
        Unchecked {
            document: self.document().clone(),
            author: self.author(),
            signature: self.signature(),
            run: self.run(),
        }
    }
}

/// Whether a change is the next one of an actor, and builds on the one before and on nothing else.
fn follows(last: &Change, next: &Change) -> bool {
    next.deps() == [last.hash()] && next.seq() == last.seq() + 1
}

impl Encode for Unchecked {
    fn encode(&self, writer: &mut Writer) {
        writer.value(&self.document).value(&self.author).fixed(&self.signature).value(&self.run);
    }
}

impl Decode for Unchecked {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            document: reader.value()?,
            author: reader.value()?,
            signature: reader.fixed()?,
            run: reader.value()?,
        })
    }
}

impl Encode for Author {
    fn encode(&self, writer: &mut Writer) {
        writer.value(&self.peer).value(&self.incarnation).value(&self.grant);
    }
}

impl Decode for Author {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { peer: reader.value()?, incarnation: reader.value()?, grant: reader.value()? })
    }
}
