//! What programs ask for: put, patch and delete. Each is access check, edit, signature, commit. And collections, which
//! have nothing to sign.

use crate::access::Ability;
use crate::base::{ActorId, CollectionName, DocumentKey, Incarnation, Timestamp};
use crate::document::{Change, Document, Envelope, Object, Patch};
use crate::store::{Granted, Record};
use crate::{Error, Result};

use super::Node;
use super::effect::{Absent, Condition, Event, Reply, Write};

impl Node {
    pub(super) fn put(
        &mut self,
        now: Timestamp,
        key: DocumentKey,
        body: &Object,
        condition: &Condition,
    ) -> Result<Reply> {
        check_collection(&key.collection)?;
        self.store.check_writable()?;
        let before = self.store.record(&key)?;
        check(&key, before.as_ref(), condition)?;
        let time = self.clock.tick(now);
        let actor = self.actor();
        let alive = before.as_ref().is_some_and(|record| !record.deleted);
        let Some(before) = before else {
            let change = Change::create(actor, time, body)?;
            let view = serde_json::to_vec(body).map_err(|error| Error::invalid(error.to_string()))?;
            return self.create(key, change, view);
        };
        let edited = self.store.open_document(&key, &before)?.replace(actor, time, body);
        let Some(change) = self.edited(&key, &before, edited)? else {
            return Ok(Reply::Written(Write::Unchanged, before));
        };
        let record = self.append(key, self.store.incarnation(), change, &before)?;
        Ok(Reply::Written(if alive { Write::Replaced } else { Write::Created }, record))
    }

    /// Changes parts of a document. Its time of change is also that which `$currentDate` writes.
    pub(super) fn patch(
        &mut self,
        now: Timestamp,
        key: DocumentKey,
        patch: &Patch,
        condition: &Condition,
        absent: Absent,
    ) -> Result<Reply> {
        check_collection(&key.collection)?;
        self.store.check_writable()?;
        let before = self.store.record(&key)?;
        check(&key, before.as_ref(), condition)?;
        let alive = before.as_ref().is_some_and(|record| !record.deleted);
        if !alive && absent == Absent::Refuse {
            return Err(Error::NotFound(format!("document {key} does not exist")));
        }
        if !alive && !patch.can_create() {
            return Err(Error::invalid("a JSON Patch cannot create a document; use a merge patch or update operators"));
        }
        let time = self.clock.tick(now);
        let actor = self.actor();
        let Some(before) = before else {
            let mut document = Document::new();
            let change = document.patch(actor, time, patch, 0)?.expect("the first edit of a document writes something");
            return self.create(key, change, document.view());
        };
        let edited = self.store.open_document(&key, &before)?.patch(actor, time, patch, before.view.len());
        let Some(change) = self.edited(&key, &before, edited)? else {
            return Ok(Reply::Written(Write::Unchanged, before));
        };
        let record = self.append(key, self.store.incarnation(), change, &before)?;
        Ok(Reply::Written(if alive { Write::Replaced } else { Write::Created }, record))
    }

    pub(super) fn delete(&mut self, now: Timestamp, key: DocumentKey, condition: &Condition) -> Result<Reply> {
        check_collection(&key.collection)?;
        self.store.check_writable()?;
        let before = self.store.record(&key)?.filter(|record| !record.deleted);
        check(&key, before.as_ref(), condition)?;
        let Some(before) = before else {
            return Err(Error::NotFound(format!("document {key} does not exist")));
        };
        let time = self.clock.tick(now);
        let actor = self.actor();
        if let Some(tip) = self.store.tip(&key, &before)? {
            let change = tip.delete(actor, self.store.next_sequence(&before, &actor), time)?;
            let granted = self.grant(key, self.store.incarnation(), change)?;
            let record = self.store.delete(&granted, &before)?;
            self.wrote(&granted, &record);
            return Ok(Reply::Written(Write::Deleted, record));
        }
        let edited = self.store.open_document(&key, &before)?.delete(actor, time);
        let Some(change) = self.edited(&key, &before, edited)? else {
            return Ok(Reply::Written(Write::Unchanged, before));
        };
        let record = self.append(key, self.store.incarnation(), change, &before)?;
        Ok(Reply::Written(Write::Deleted, record))
    }

    /// Refuses what a program may not make: a document in one collection too many, or one that nobody could reach. Those
    /// that others made are changed as any.
    pub(super) fn check_new(&mut self, key: &DocumentKey) -> Result<()> {
        self.store.check_room(&key.collection)?;
        if !is_step(key.id.as_str()) || self.store.record(key)?.is_some_and(|record| !record.deleted) {
            return Ok(());
        }
        let message =
            format!("document id {:?}: it means a folder in a URL, so that nobody could ask for it", key.id.as_str());
        Err(Error::invalid(message))
    }

    /// Makes an empty collection. It is this peer's alone: others have it with its first document.
    pub(super) fn create_collection(&mut self, name: &CollectionName) -> Result<Reply> {
        check_collection(name)?;
        self.members.check(&self.peer_id(), Ability::Write)?;
        self.store.check_writable()?;
        Ok(Reply::Collection(self.store.create_collection(name)?))
    }

    /// Stores the first change of a document.
    fn create(&mut self, key: DocumentKey, change: Change, view: Vec<u8>) -> Result<Reply> {
        self.store.check_unique(&key, None, &view)?;
        let granted = self.grant(key, self.store.incarnation(), change)?;
        let record = self.store.create(&granted, view.into())?;
        self.wrote(&granted, &record);
        Ok(Reply::Written(Write::Created, record))
    }

    /// Passes the result of an edit on, if no unique index is against it. An edit that was refused as input left the open
    /// document as it was; after any other failure the document may be edited, or half so, and is closed.
    pub(super) fn edited(
        &mut self,
        key: &DocumentKey,
        before: &Record,
        edited: Result<Option<Change>>,
    ) -> Result<Option<Change>> {
        match edited {
            Ok(Some(change)) => match self.check_edited(key, before) {
                Ok(()) => Ok(Some(change)),
                Err(error) => {
                    // The open document holds the edit.
                    self.store.close_document(key);
                    Err(error)
                }
            },
            Ok(None) | Err(Error::Invalid(_)) => edited,
            Err(error) => {
                self.store.close_document(key);
                Err(error)
            }
        }
    }

    /// Checks an open document that was edited against unique indexes.
    fn check_edited(&mut self, key: &DocumentKey, before: &Record) -> Result<()> {
        if !self.store.has_unique(&key.collection) {
            return Ok(());
        }
        let document = self.store.open_document(key, before)?;
        if document.is_deleted() {
            // It has no keys.
            return Ok(());
        }
        let view = document.view();
        self.store.check_unique(key, Some(before), &view)
    }

    /// Stores a change that the open document holds already. When that fails the document is closed, so
    /// that it does not run ahead of the store.
    pub(super) fn append(
        &mut self,
        key: DocumentKey,
        incarnation: Incarnation,
        change: Change,
        before: &Record,
    ) -> Result<Record> {
        let written = match self.grant(key.clone(), incarnation, change) {
            Ok(granted) => self.store.append(&granted, before).map(|record| (granted, record)),
            Err(error) => Err(error),
        };
        match written {
            Ok((granted, record)) => {
                self.wrote(&granted, &record);
                Ok(record)
            }
            Err(error) => {
                self.store.close_document(&key);
                Err(error)
            }
        }
    }

    /// The actor under which this peer makes changes now.
    pub(super) fn actor(&self) -> ActorId {
        ActorId::derive(&self.peer_id(), &self.store.incarnation())
    }

    /// Signs a change of our own under our right to write.
    pub(super) fn grant(&self, key: DocumentKey, incarnation: Incarnation, change: Change) -> Result<Granted> {
        let grant = self.members.check(&self.peer_id(), Ability::to_write(&key.collection))?;
        let envelope = Envelope::sign(&self.keypair, self.mesh(), key, incarnation, grant.id(), change);
        Ok(Granted::new(&grant, envelope).expect("our own grant fits our own change"))
    }

    pub(super) fn wrote(&mut self, granted: &Granted, record: &Record) {
        self.counters.written += 1;
        self.fresh.push((granted.envelope().header().sequence, granted.envelope().to_unchecked()));
        self.changed(granted.envelope().document().clone(), record, true);
    }

    /// Tells of a change that was applied.
    pub(super) fn changed(&mut self, document: DocumentKey, record: &Record, local: bool) {
        self.receipts.note_change(&document);
        let position = self.position();
        self.emit(Event::Changed { document, deleted: record.deleted, position, local });
    }
}

/// Whether a name is a step in a path of folders: every URL library takes it as one, so that no program could ask for what
/// bears it.
pub(super) fn is_step(name: &str) -> bool {
    matches!(name, "." | "..")
}

/// Checks that programs may write to a collection.
pub(super) fn check_collection(name: &CollectionName) -> Result<()> {
    if !name.is_system() {
        return Ok(());
    }
    Err(Error::Denied(format!("collection {name}: names that start with _ belong to the system")))
}

/// Whether a document is as the caller expects it.
fn check(key: &DocumentKey, record: Option<&Record>, condition: &Condition) -> Result<()> {
    let record = record.filter(|record| !record.deleted);
    match (condition, record) {
        (Condition::Any, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => Ok(()),
        (Condition::Absent, Some(_)) => Err(Error::Conflict(format!("document {key} exists"))),
        (Condition::Present | Condition::Heads(_), None) => {
            Err(Error::Conflict(format!("document {key} does not exist")))
        }
        (Condition::Heads(expected), Some(record)) => {
            if expected.contains(&record.heads) {
                return Ok(());
            }
            Err(Error::Conflict(format!("document {key} has changed since it was read; read it again and retry")))
        }
    }
}
