//! Receipts: a peer's signed word that it has versions of documents, and whether they outlast a power cut.
//!
//! A version is named by a vector, the last sequence number of each actor: whoever has a change has everything that
//! it builds on, so for a change of one's own the author's entry is enough. A receipt can be shown to others: it
//! proves who said what, and when by that peer's clock.

use crate::base::{ActorId, Decode, DecodeError, DocumentKey, Encode, MeshId, PeerId, Reader, Timestamp, Writer};
use crate::identity::{Signable, Signed};
use crate::limits::{DOCUMENT_ACTORS_MAX, RECEIPT_VERSIONS_MAX};
use crate::store::Vector;

use super::message::flag;

const FORMAT: u8 = 1;

/// A version of a document: it, and whatever came before.
pub type Version = (DocumentKey, Vector);

/// Asks which versions the other side has on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Names the question in an answer at once.
    pub number: u64,
    /// Whether to answer for each version once it is there, rather than at once for those that are.
    pub wait: bool,
    /// The versions.
    pub versions: Vec<Version>,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The question; 0 when the answer was waited for.
    pub number: u64,
    /// What is there; `None` when nothing is.
    pub receipt: Option<Box<Signed<Receipt>>>,
}

/// That a peer has versions of documents on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The mesh.
    pub mesh: MeshId,
    /// The peer that has them, and signs this.
    pub holder: PeerId,
    /// When, by its clock.
    pub at: Timestamp,
    /// Whether they outlast a power cut there: a peer that does not wait for its disk, or has none, says no.
    pub synced: bool,
    /// The versions, as they were asked for.
    pub versions: Vec<Version>,
}

impl Signable for Receipt {
    const DOMAIN: &'static str = "aerolithsdb receipt";

    fn signer(&self) -> PeerId {
        self.holder
    }

    fn signed_bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }
}

fn put_versions(writer: &mut Writer, versions: &[Version]) {
    writer.list(versions, |w, (document, vector)| {
        w.value(document).list(vector, |w, (actor, sequence)| _ = w.value(actor).varint(*sequence));
    });
}

fn take_versions(reader: &mut Reader<'_>) -> Result<Vec<Version>, DecodeError> {
    reader.list("versions", RECEIPT_VERSIONS_MAX, |r| {
        let document = r.value()?;
        let vector: Vec<(ActorId, u64)> = r.list("vector", DOCUMENT_ACTORS_MAX, |r| Ok((r.value()?, r.varint()?)))?;
        if vector.is_sorted_by(|(a, _), (b, _)| a < b) {
            Ok((document, vector))
        } else {
            Err(DecodeError::Rule("a vector's actors are not in order".into()))
        }
    })
}

impl Encode for Ask {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.number).u8(u8::from(self.wait));
        put_versions(writer, &self.versions);
    }
}

impl Decode for Ask {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { number: reader.varint()?, wait: flag(reader)?, versions: take_versions(reader)? })
    }
}

impl Encode for Told {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.number).value(&self.receipt.as_deref().cloned());
    }
}

impl Decode for Told {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (number, receipt): (_, Option<Signed<Receipt>>) = (reader.varint()?, reader.value()?);
        Ok(Self { number, receipt: receipt.map(Box::new) })
    }
}

impl Encode for Receipt {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(FORMAT).value(&self.mesh).value(&self.holder).varint(self.at.0).u8(u8::from(self.synced));
        put_versions(writer, &self.versions);
    }
}

impl Decode for Receipt {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("receipt", FORMAT)?;
        let (mesh, holder, at) = (reader.value()?, reader.value()?, Timestamp(reader.varint()?));
        let synced = flag(reader)?;
        Ok(Self { mesh, holder, at, synced, versions: take_versions(reader)? })
    }
}
