//! Collections and documents as a program uses them.

use std::ops::Add;
use std::time::Instant;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::Peer;
use crate::base::{ChangeHash, CollectionName, DocumentId, DocumentKey, Hlc, Timestamp};
use crate::document::{Object, Patch, Version, json};
use crate::identity::Signed;
use crate::limits::{DOCUMENT_DEPTH_MAX, DROP_WRITES_MAX, PAGE_DOCUMENTS_MAX};
use crate::node::{Absent, Command, Condition, Reply, Write, WriteConcern};
use crate::store::{self, Record};
use crate::sync::receipt::Receipt;
use crate::{Error, Result};

/// A document as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    key: DocumentKey,
    json: Bytes,
    heads: Vec<ChangeHash>,
    created: Hlc,
    updated: Hlc,
    deleted: bool,
    conflicts: Option<u64>,
    confirmation: Option<Confirmation>,
}

/// What other peers said of a write that was to wait for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// Signed by each peer that has it on its disk.
    pub receipts: Vec<Signed<Receipt>>,
    /// Whether they are as many as were asked for. If not, the write stands all the same.
    pub complete: bool,
}

impl Document {
    pub(super) fn new(key: DocumentKey, record: Record) -> Self {
        let conflicts = Some(record.conflict_count());
        let Record { view, heads, created, updated, deleted, .. } = record;
        Self { key, json: view, heads, created, updated, deleted, conflicts, confirmation: None }
    }

    /// A document as it was.
    pub(super) fn of_version(key: DocumentKey, version: Version, json: Bytes, conflicts: Option<u64>) -> Self {
        let Version { heads, created, updated, .. } = version;
        Self { key, json, heads, created, updated, deleted: false, conflicts, confirmation: None }
    }

    /// Which other peers have it, when it was written by a handle that waits for them.
    #[must_use]
    pub fn confirmation(&self) -> Option<&Confirmation> {
        self.confirmation.as_ref()
    }

    /// Its collection.
    #[must_use]
    pub fn collection(&self) -> &CollectionName {
        &self.key.collection
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.key.id.as_str()
    }

    /// What it holds, as JSON text of an object with sorted keys.
    #[must_use]
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// What it holds.
    #[must_use]
    pub fn data(&self) -> Value {
        json::parse_made(&self.json, DOCUMENT_DEPTH_MAX).unwrap_or_default()
    }

    /// Whether it is deleted, which only a feed tells of; it then holds nothing.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Places at which edits that did not know of each other left several values, of which one is shown; see
    /// [`Collection::conflicts`]. `None` for a version of the past, of which they are not counted.
    #[must_use]
    pub fn conflict_count(&self) -> Option<u64> {
        self.conflicts
    }

    /// The changes that no other change depends on, sorted: its version.
    #[must_use]
    pub fn heads(&self) -> &[ChangeHash] {
        &self.heads
    }

    /// When it was created, by its author's clock.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created.physical()
    }

    /// When it was last changed, by that author's clock.
    #[must_use]
    pub fn updated_at(&self) -> Timestamp {
        self.updated.physical()
    }
}

/// A page of a collection.
#[derive(Debug, Default)]
pub struct Listing {
    /// The documents, in the order of ids.
    pub documents: Vec<Document>,
    /// Ids of documents that are damaged on this peer's disk and left out.
    pub damaged: Vec<DocumentId>,
    /// The id after which the next page starts; `None` when this is the last one.
    pub next: Option<DocumentId>,
}

/// What became of the documents of a collection that was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleared {
    /// Documents that were deleted.
    pub deleted: u64,
    /// Documents that are damaged on this peer's disk: they stay until another peer has sent them again.
    pub damaged: u64,
}

impl Add for Cleared {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { deleted: self.deleted + other.deleted, damaged: self.damaged + other.damaged }
    }
}

/// A handle to a collection.
#[derive(Debug, Clone)]
pub struct Collection {
    peer: Peer,
    name: CollectionName,
    concern: Option<WriteConcern>,
}

impl Collection {
    pub(super) fn new(peer: Peer, name: CollectionName) -> Self {
        Self { peer, name, concern: None }
    }

    /// A handle whose writes wait until so many other peers have them on their disks, or until the time is over: the
    /// write stands then, and [`Document::confirmation`] says how far it came.
    #[must_use]
    pub fn with_concern(&self, concern: WriteConcern) -> Self {
        Self { concern: Some(concern), ..self.clone() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &CollectionName {
        &self.name
    }

    /// Writes a new document. Its id is the string under `_id`, which is taken out of the data, or a fresh
    /// UUIDv7. The answer comes when it is durable.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `body` is not an object or its id breaks the rule, [`Error::Conflict`] when the
    /// id is taken, [`Error::Denied`] without the right to write, [`Error::Unavailable`] when overloaded.
    pub async fn insert(&self, body: Value) -> Result<Document> {
        let mut body = object(body)?;
        let id = match take_id(&mut body)? {
            Some(id) => id,
            None => fresh_id()?,
        };
        Ok(self.write(id, body, Condition::Absent).await?.1)
    }

    /// Creates a document or replaces what it holds, by the smallest edit: fields that stay equal are not
    /// touched, so that edits which others make to them at the same time survive.
    ///
    /// # Errors
    /// As [`Collection::insert`], but for the conflict.
    pub async fn put(&self, id: &str, body: Value) -> Result<Document> {
        Ok(self.put_if(id, body, Condition::Any).await?.1)
    }

    /// As [`Collection::put`], if the document is as expected. Says what it did.
    ///
    /// # Errors
    /// As [`Collection::put`], and [`Error::Conflict`] when the condition does not hold.
    pub async fn put_if(&self, id: &str, body: Value, condition: Condition) -> Result<(Write, Document)> {
        let id: DocumentId = id.parse()?;
        let mut body = object(body)?;
        if let Some(named) = take_id(&mut body)?
            && named != id
        {
            return Err(Error::invalid(format!("the document says _id {named}, the call says {id}; leave one out")));
        }
        self.write(id, body, condition).await
    }

    pub(super) async fn write(&self, id: DocumentId, body: Object, condition: Condition) -> Result<(Write, Document)> {
        let document = self.key(id);
        self.run(document.clone(), Command::Put { document, body, condition }).await
    }

    /// Has a write done, and waits for other peers as far as this handle does.
    async fn run(&self, document: DocumentKey, write: Command) -> Result<(Write, Document)> {
        let command = match self.concern {
            None => write,
            Some(concern) => Command::Confirm { document: document.clone(), write: Box::new(write), concern },
        };
        let start = Instant::now();
        let reply = self.peer.command(command).await;
        self.peer.shared.writes.record(start, reply.is_ok());
        let (write, record, confirmation) = match reply? {
            Reply::Written(write, record) => (write, record, None),
            Reply::Confirmed { write, record, receipts, complete } => {
                (write, record, Some(Confirmation { receipts, complete }))
            }
            Reply::Leave { .. }
            | Reply::Ticket(_)
            | Reply::Collection(_)
            | Reply::Index(_)
            | Reply::Entered { .. }
            | Reply::Sync(_)
            | Reply::Why(_)
            | Reply::Members(_)
            | Reply::Status(_) => unreachable!("a write is answered with what was written"),
        };
        Ok((write, Document { confirmation, ..Document::new(document, record) }))
    }

    /// Changes parts of a document, and nothing else in it: what others change at the same time in other fields,
    /// elements or texts survives, and increments add up.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none; [`Error::Invalid`] when the patch does not fit what the document
    /// holds, naming the path, and then nothing is changed; and as for [`Collection::put`].
    ///
    /// # Example
    /// ```
    /// # async fn example(collection: aerolithsdb::Collection) -> aerolithsdb::Result<()> {
    /// use aerolithsdb::Patch;
    /// let patch = Patch::operators(serde_json::json!({"$inc": {"visits": 1}, "$push": {"crew": "Ada"}}))?;
    /// println!("{}", collection.patch("today", patch).await?.data());
    /// # Ok(()) }
    /// ```
    pub async fn patch(&self, id: &str, patch: Patch) -> Result<Document> {
        Ok(self.patch_if(id, patch, Condition::Any, Absent::Refuse).await?.1)
    }

    /// As [`Collection::patch`], if the document is as expected; one that does not exist is made if `absent` says so.
    /// Says what it did.
    ///
    /// # Errors
    /// As [`Collection::patch`], and [`Error::Conflict`] when the condition does not hold.
    pub async fn patch_if(
        &self,
        id: &str,
        patch: Patch,
        condition: Condition,
        absent: Absent,
    ) -> Result<(Write, Document)> {
        let document = self.key(id.parse()?);
        self.run(document.clone(), Command::Patch { document, patch, condition, absent }).await
    }

    /// The document under an id; `None` when there is none, or it is deleted. Reads this peer's replica and
    /// nothing else.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the id breaks the rule, [`Error::Corrupt`] when it is damaged on the disk.
    pub fn get(&self, id: &str) -> Result<Option<Document>> {
        let key = self.key(id.parse()?);
        let start = Instant::now();
        let record = self.peer.shared.reader.record(&key);
        self.peer.shared.reads.record(start, record.is_ok());
        if matches!(record, Err(Error::Corrupt(_))) {
            self.peer.shared.runner.notify(Command::Damaged(key.clone()));
        }
        Ok(record?.filter(|record| !record.deleted).map(|record| Document::new(key, record)))
    }

    /// Deletes a document. An edit that somebody else makes at the same time keeps it alive.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, and as [`Collection::put`].
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.delete_if(id, Condition::Any).await.map(drop)
    }

    /// As [`Collection::delete`], if the document is as expected. What is left of it holds nothing.
    ///
    /// # Errors
    /// As [`Collection::delete`], and [`Error::Conflict`] when the condition does not hold.
    pub async fn delete_if(&self, id: &str, condition: Condition) -> Result<Document> {
        let document = self.key(id.parse()?);
        Ok(self.run(document.clone(), Command::Delete { document, condition }).await?.1)
    }

    /// What it holds; `None` when there is no such collection.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn counts(&self) -> Result<Option<crate::store::Collection>> {
        match self.peer.shared.reader.collection(&self.name) {
            // Its writer counts it again.
            Err(Error::Corrupt(_)) => Ok(Some(crate::store::Collection::default())),
            counts => counts,
        }
    }

    /// Makes the collection, empty, and says whether it is new. Nobody has to: a collection comes into being with its
    /// first document. It is listed on this peer from then on; others have it with its first document.
    ///
    /// # Errors
    /// [`Error::Denied`] for a name of the system's and without the right to write, [`Error::Invalid`] when there are
    /// as many collections as there may be.
    pub async fn create(&self) -> Result<bool> {
        let Reply::Collection(new) = self.peer.command(Command::CreateCollection(self.name.clone())).await? else {
            unreachable!("the making of a collection is answered with whether it is new")
        };
        Ok(new)
    }

    /// Deletes every document, each by a delete of its own: an edit that somebody else makes at the same time keeps
    /// its document alive, and what is written here meanwhile may stay. The empty collection stays. When it fails in
    /// the middle, what was deleted is deleted, and another call goes on.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such collection, [`Error::Denied`] for one of the system's, and as
    /// [`Collection::delete`].
    pub async fn clear(&self) -> Result<Cleared> {
        let (mut clearing, mut cleared) = (std::pin::pin!(self.clearing()?), Cleared::default());
        while let Some(so_far) = clearing.next().await {
            cleared = so_far?;
        }
        Ok(cleared)
    }

    /// As [`Collection::clear`], and says after each so many documents what became of all so far. It goes on as it is
    /// polled.
    ///
    /// # Errors
    /// As [`Collection::clear`]; the first one ends it.
    pub fn clearing(&self) -> Result<impl Stream<Item = Result<Cleared>> + Send + use<>> {
        if self.name.is_system() {
            return Err(Error::Denied(format!("collection {} belongs to the system", self.name)));
        }
        if matches!(self.peer.shared.reader.collection(&self.name), Ok(None)) {
            return Err(Error::NotFound(format!("collection {} does not exist", self.name)));
        }
        let collection = self.clone();
        let each = self.pages().map_ok(|page| {
            let damaged = Cleared { deleted: 0, damaged: page.damaged.len() as u64 };
            let damaged = (damaged.damaged > 0).then_some(Err(damaged));
            stream::iter(page.documents.into_iter().map(|document| Ok(document.key.id)).chain(damaged)).map(Ok)
        });
        // The next page is read while the deletes of the one before are under way.
        let deletes = each.try_flatten().map(move |found| collection.clone().clear_one(found));
        let some = deletes.buffer_unordered(DROP_WRITES_MAX).chunks(PAGE_DOCUMENTS_MAX);
        Ok(some.scan(Some(Cleared::default()), |so_far, some| {
            let added = so_far.map(|so_far| some.into_iter().try_fold(so_far, |sum, one| Ok(sum + one?)));
            *so_far = added.as_ref().and_then(|added| added.as_ref().ok()).copied();
            std::future::ready(added)
        }))
    }

    /// All documents, page by page.
    fn pages(&self) -> impl Stream<Item = Result<Listing>> + Send + use<> {
        stream::try_unfold(Some((self.clone(), None)), |from| async move {
            let Some((collection, after)) = from else { return Ok(None) };
            let reading = collection.clone();
            let page = tokio::task::spawn_blocking(move || reading.page(after.as_ref(), PAGE_DOCUMENTS_MAX)).await;
            let mut page =
                page.map_err(|fault| Error::Io(format!("reading collection {}: {fault}", collection.name)))??;
            let next = page.next.take().map(|next| (collection, Some(next)));
            Ok(Some((page, next)))
        })
    }

    /// Deletes a document that was found, or passes on what was found damaged.
    async fn clear_one(self, found: Result<std::result::Result<DocumentId, Cleared>>) -> Result<Cleared> {
        let document = match found? {
            Ok(id) => self.key(id),
            Err(damaged) => return Ok(damaged),
        };
        match self.run(document.clone(), Command::Delete { document, condition: Condition::Any }).await {
            Ok(_) => Ok(Cleared { deleted: 1, damaged: 0 }),
            // Somebody else was faster.
            Err(Error::NotFound(_)) => Ok(Cleared::default()),
            Err(error) => Err(error),
        }
    }

    /// A page of at most `limit` documents after the id `after`, in the order of ids.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn page(&self, after: Option<&DocumentId>, limit: usize) -> Result<Listing> {
        Ok(self.listing(self.peer.shared.reader.page(&self.name, after, limit)?))
    }

    /// As [`Collection::page`], of the documents that have places at which edits that did not know of each other left
    /// several values. What it costs grows with their number only.
    ///
    /// # Errors
    /// As [`Collection::page`].
    pub fn conflicting(&self, after: Option<&DocumentId>, limit: usize) -> Result<Listing> {
        Ok(self.listing(self.peer.shared.reader.conflicting(&self.name, after, limit)?))
    }

    fn listing(&self, page: store::Page) -> Listing {
        for id in &page.damaged {
            self.peer.shared.runner.notify(Command::Damaged(self.key(id.clone())));
        }
        let document = |(id, record)| Document::new(self.key(id), record);
        Listing {
            documents: page.documents.into_iter().map(document).collect(),
            damaged: page.damaged,
            next: page.next,
        }
    }

    /// Number of documents.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn count(&self) -> Result<u64> {
        Ok(self.peer.shared.reader.collection(&self.name)?.map_or(0, |counts| counts.documents))
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(super) fn key(&self, id: DocumentId) -> DocumentKey {
        DocumentKey::new(self.name.clone(), id)
    }
}

/// A fresh id: a UUIDv7 (RFC 9562), which sorts by time.
fn fresh_id() -> Result<DocumentId> {
    Ok(uuid::Uuid::now_v7().to_string().parse()?)
}

fn object(body: Value) -> Result<Object> {
    if let Value::Object(fields) = body {
        return Ok(fields);
    }
    let shown: String = body.to_string().chars().take(40).collect();
    Err(Error::invalid(format!("a document is a JSON object, not {shown}")))
}

fn take_id(body: &mut Object) -> Result<Option<DocumentId>> {
    match body.remove("_id") {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id.parse()?)),
        Some(other) => {
            let shown: String = other.to_string().chars().take(40).collect();
            Err(Error::invalid(format!("_id is {shown}; ids are strings")))
        }
    }
}
