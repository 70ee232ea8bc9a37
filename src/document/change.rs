//! One change of a document: parsed, screened, and safe to hand to Automerge.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::base::{ActorId, ChangeHash, Hlc, Writer};
use crate::limits::DOCUMENT_DEPTH_MAX;

use super::column::write_signed;
use super::error::ScreenError;
use super::first;
use super::history::Link;
use super::json::Object;
use super::operation::{CHUNK_TYPE, DELETE_MARK, MAGIC, OpRef, Parsed};
use super::place::{Names, Resolved, places};
use super::view;

/// Where the checksum lies in a chunk.
const CHECKSUM: Range<usize> = 4..8;
/// Bytes of a chunk before its length: magic, checksum, type.
pub(super) const CHUNK_HEAD_BYTES: usize = CHECKSUM.end + 1;

/// A screened change.
///
/// It is either an *edit*, with at least one operation, or a *delete*, without any and with [`DELETE_MARK`] as its
/// message. Its hash is the one Automerge gives it: the SHA-256 of its chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    inner: automerge::Change,
    payload: Bytes,
    deps: Vec<ChangeHash>,
    actor: ActorId,
    time: Hlc,
    is_delete: bool,
}

impl Change {
    /// Reads a change from untrusted bytes. Time and memory are bounded by the size and operation limits.
    ///
    /// What cannot be judged without the document (whether references into the past lead anywhere) is judged
    /// when the change is applied; a change without dependencies is judged completely.
    ///
    /// # Errors
    /// [`ScreenError`]; the same bytes fail on every peer.
    pub fn screen(payload: Bytes) -> Result<Self, ScreenError> {
        let (parsed, ops) = check(&payload)?;
        if checksum(&payload) != parsed.checksum {
            return Err(ScreenError::Rule("the checksum is wrong"));
        }
        let inner = read_inner(&payload)?;
        if inner.len() != ops {
            return Err(ScreenError::Automerge("it counts the operations otherwise".to_owned()));
        }
        let Parsed { deps, actors, time, is_delete, .. } = parsed;
        Ok(Self { inner, deps, actor: actors[0], time, is_delete, payload })
    }

    /// The first change of a new document with these fields. Opens no document: [`Document::apply`] takes the change
    /// when one is wanted.
    ///
    /// [`Document::apply`]: super::Document::apply
    ///
    /// # Errors
    /// [`ScreenError`] when the fields are nested too deeply or need a change beyond the limits.
    pub fn create(actor: ActorId, now: Hlc, fields: &Object) -> Result<Self, ScreenError> {
        check_depth(fields)?;
        let payload = chunk(&first::body(actor, now, fields));
        let (Parsed { deps, actors, time, is_delete, .. }, _) = check(&payload)?;
        let (inner, actor) = (read_inner(&payload)?, actors[0]);
        Ok(Self { inner, deps, actor, time, is_delete, payload: payload.into() })
    }

    /// The change that this process just made with Automerge, if others would take it too.
    pub(super) fn own(inner: automerge::Change) -> Result<Self, ScreenError> {
        let payload = Bytes::copy_from_slice(inner.raw_bytes());
        let (Parsed { deps, actors, time, is_delete, .. }, _) = check(&payload)?;
        Ok(Self { deps, actor: actors[0], time, is_delete, inner, payload })
    }

    /// A delete that depends on `deps` (sorted). Written by hand: Automerge's own empty change would depend on
    /// all heads, and a delete must not depend on those of others.
    pub(super) fn delete(
        actor: ActorId,
        seq: u64,
        start_op: u64,
        time: Hlc,
        deps: &[ChangeHash],
    ) -> Result<Self, ScreenError> {
        let mut body = Writer::new();
        body.list(deps, |writer, dep| {
            writer.value(dep);
        });
        body.bytes(&actor.0).varint(seq).varint(start_op);
        write_signed(&mut body, time.packed());
        body.string(DELETE_MARK).varint(0).varint(0);
        Self::screen(chunk(&body.finish()).into())
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> ChangeHash {
        ChangeHash(self.inner.hash().0)
    }

    /// The changes that it depends on directly, sorted.
    #[must_use]
    pub fn deps(&self) -> &[ChangeHash] {
        &self.deps
    }

    /// Who made it.
    #[must_use]
    pub fn actor(&self) -> ActorId {
        self.actor
    }

    /// The how manieth change of its actor in this document it is, from 1.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.inner.seq()
    }

    /// The number of its first operation, from 1: one more than the largest among its dependencies.
    #[must_use]
    pub fn start_op(&self) -> u64 {
        self.inner.start_op().get()
    }

    /// The number of its last operation; that of a delete is `start_op - 1`.
    #[must_use]
    pub fn max_op(&self) -> u64 {
        self.start_op() + self.inner.len() as u64 - 1
    }

    /// A number that grows along dependencies: sorting by (`position`, `actor`, `seq`) puts every change after
    /// those it depends on. It is `2 * start_op`, and one more for an edit.
    #[must_use]
    pub fn position(&self) -> u64 {
        position(self.start_op(), self.is_delete)
    }

    /// When it was made, by its author's clock.
    #[must_use]
    pub fn time(&self) -> Hlc {
        self.time
    }

    /// Whether it deletes the document.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.is_delete
    }

    /// Its bytes: an uncompressed Automerge change chunk.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The view, as JSON text, of a document made of this change only; `None` when the change depends on others.
    /// Needs no document and may run on any thread.
    #[must_use]
    pub fn root_view(&self) -> Option<Vec<u8>> {
        if !self.deps.is_empty() {
            return None;
        }
        if let Some(view) = self.parsed().ok().as_ref().and_then(first::view) {
            return Some(view);
        }
        self.view_by_automerge()
    }

    /// The screen judged the change completely; should Automerge panic nevertheless, the document will report it.
    fn view_by_automerge(&self) -> Option<Vec<u8>> {
        catch_unwind(AssertUnwindSafe(|| {
            let mut doc = automerge::Automerge::new_with_encoding(super::present::ENCODING);
            doc.apply_changes([self.inner.clone()]).ok()?;
            Some(view::text(&doc.hydrate(None)))
        }))
        .ok()
        .flatten()
    }

    pub(super) fn link(&self) -> Link<'_> {
        Link {
            hash: self.hash(),
            actor: self.actor,
            seq: self.seq(),
            position: self.position(),
            max_op: self.max_op(),
            time: self.time,
            is_delete: self.is_delete,
            deps: &self.deps,
        }
    }

    pub(super) fn parsed(&self) -> Result<Parsed<'_>, ScreenError> {
        Parsed::read(&self.payload)
    }

    pub(super) fn into_inner(self) -> automerge::Change {
        self.inner
    }

    /// An edit of one field, with any dependencies.
    #[cfg(test)]
    pub(crate) fn sample(actor: ActorId, seq: u64, start_op: u64, deps: &[ChangeHash]) -> Self {
        let mut body = Writer::new();
        body.list(deps, |writer, dep| {
            writer.value(dep);
        });
        body.bytes(&actor.0).varint(seq).varint(start_op);
        write_signed(&mut body, 0);
        body.string("").varint(0).varint(5);
        for column in [21, 52, 66, 86, 112] {
            body.varint(column).varint(if column == 21 {
                3
            } else if column == 52 {
                1
            } else {
                2
            });
        }
        body.fixed(&[0x7f, 1, b'a', 1, 0x7f, 1, 0x7f, 0, 0x7f, 0]);
        Self::screen(chunk(&body.finish()).into()).unwrap()
    }
}

/// Checks that fields are nested no deeper than documents may be.
pub(super) fn check_depth(fields: &Object) -> Result<(), ScreenError> {
    let fits = fields.values().all(|value| fits(value, DOCUMENT_DEPTH_MAX - 1));
    if fits { Ok(()) } else { Err(ScreenError::Rule("nested too deeply")) }
}

/// Whether a value has at most so many levels of objects and lists.
pub(super) fn fits(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| fits(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|value| fits(value, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// All that can be checked without Automerge and without the document. Gives the number of operations too.
fn check(payload: &[u8]) -> Result<(Parsed<'_>, usize), ScreenError> {
    let parsed = Parsed::read(payload)?;
    let lanes: Vec<u32> = (0..parsed.actors.len() as u32).collect();
    let is_root = parsed.deps.is_empty();
    let resolve = |_: OpRef| if is_root { Resolved::Nothing } else { Resolved::Unknown };
    let ops = places(&parsed, &lanes, &mut Names::default(), resolve)?.len();
    if parsed.is_delete != (ops == 0) {
        return Err(ScreenError::Rule("a delete has no operations, and an edit has some"));
    }
    if is_root && (parsed.is_delete || parsed.seq != 1 || parsed.start_op != 1) {
        return Err(ScreenError::Rule("a change without dependencies is the first edit of its actor"));
    }
    Ok((parsed, ops))
}

/// See [`Change::position`].
pub(super) fn position(start_op: u64, is_delete: bool) -> u64 {
    2 * start_op + u64::from(!is_delete)
}

fn read_inner(payload: &[u8]) -> Result<automerge::Change, ScreenError> {
    let read = catch_unwind(|| automerge::Change::try_from(payload));
    let read = read.map_err(|_| ScreenError::Automerge("it panicked".to_owned()))?;
    read.map_err(|error| ScreenError::Automerge(error.to_string()))
}

/// The chunk around a body.
pub(super) fn chunk(body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.fixed(&MAGIC).fixed(&[0; CHECKSUM.end - CHECKSUM.start]).u8(CHUNK_TYPE).bytes(body);
    let mut chunk = writer.finish();
    let checksum = checksum(&chunk);
    chunk[CHECKSUM].copy_from_slice(&checksum);
    chunk
}

/// The start of the change's hash.
fn checksum(chunk: &[u8]) -> [u8; 4] {
    let hash = hash_of(chunk);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The hash of a change: that of all bytes of its chunk after the checksum.
pub(super) fn hash_of(chunk: &[u8]) -> [u8; 32] {
    Sha256::digest(chunk.get(CHECKSUM.end..).unwrap_or_default()).into()
}
