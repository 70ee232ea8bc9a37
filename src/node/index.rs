//! Indexes: declaring them, the time that filling them gets between inputs, and deleting documents that have expired.
//!
//! Documents expire by this peer's clock, and each is deleted as a program would, by a signed change, unless it was
//! edited meanwhile. Peers that have declared the same may delete one at the same time, which does no harm. A peer that
//! may not write leaves it to others.

use crate::access::Ability;
use crate::base::{CollectionName, DocumentKey, Timestamp};
use crate::index::{Definition, IndexName};
use crate::limits::{INDEX_EXPIRE_EVERY_MS, INDEX_EXPIRE_STEP_DOCUMENTS};
use crate::store::Index;
use crate::{Error, Result};

use super::Node;
use super::effect::{Condition, Reply};
use super::write::check_collection;

/// Milliseconds before filling goes on after the disk refused.
const RETRY_MS: u64 = 10_000;

/// How far deleting documents that have expired is.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// When it goes on; `None` while no index asks for it.
    pub(super) at: Option<Timestamp>,
    /// Indexes whose documents are still to be looked at, the next one last.
    round: Vec<(CollectionName, IndexName)>,
    /// The entry of the next one behind which it goes on.
    after: Option<Vec<u8>>,
}

impl Node {
    pub(super) fn put_index(
        &mut self,
        now: Timestamp,
        collection: &CollectionName,
        name: IndexName,
        definition: Definition,
    ) -> Result<Reply> {
        check_collection(collection)?;
        self.store.check_writable()?;
        self.index_at = Some(now);
        Ok(Reply::Index(self.store.put_index(collection, name, definition)?))
    }

    pub(super) fn drop_index(
        &mut self,
        now: Timestamp,
        collection: &CollectionName,
        name: &IndexName,
    ) -> Result<Reply> {
        check_collection(collection)?;
        self.store.check_writable()?;
        if !self.store.drop_index(collection, name)? {
            return Err(Error::NotFound(format!("collection {collection} has no index {name}")));
        }
        self.index_at = Some(now);
        Ok(Reply::Index(true))
    }

    /// Does a step of filling, counting or clearing.
    pub(super) fn tend_indexes(&mut self, now: Timestamp) {
        if self.index_at.is_some_and(|at| at > now) {
            return;
        }
        self.index_at = match self.store.tend_indexes() {
            Ok(more) => more.then_some(now),
            Err(error) => {
                self.storage_failed("keeping indexes", &error);
                Some(now.plus_ms(RETRY_MS))
            }
        };
    }
    /// Does a step of deleting documents that have expired.
    pub(super) fn tend_expiry(&mut self, now: Timestamp) {
        if self.expiry.at.is_some_and(|at| at > now) {
            return;
        }
        if self.expiry.round.is_empty() {
            self.expiry.round = self.store.catalog().expiring();
            self.expiry.round.reverse();
        }
        if self.expiry.round.is_empty() {
            self.expiry.at = None;
            return;
        }
        if let Err(error) = self.expire_some(now) {
            if !matches!(error, Error::Denied(_)) {
                self.storage_failed("deleting documents that have expired", &error);
            }
            self.expiry.round.clear();
            self.expiry.after = None;
        }
        let wait_ms = if self.expiry.round.is_empty() { INDEX_EXPIRE_EVERY_MS } else { 0 };
        self.expiry.at = Some(now.plus_ms(wait_ms));
    }

    /// Looks at the next documents of the round.
    fn expire_some(&mut self, now: Timestamp) -> Result<()> {
        self.members.check(&self.peer_id(), Ability::Write)?;
        self.store.check_writable()?;
        let catalog = self.store.catalog();
        let Some((collection, name)) = self.expiry.round.last().cloned() else { return Ok(()) };
        let mut after = None;
        if let Some(index) = catalog.get(&collection, &name) {
            let limit = INDEX_EXPIRE_STEP_DOCUMENTS;
            let ids;
            (ids, after) = self.reader().expiring(index, now, self.expiry.after.as_deref(), limit)?;
            for id in ids {
                self.expire(now, index, DocumentKey::new(collection.clone(), id))?;
            }
        }
        if after.is_none() {
            self.expiry.round.pop();
        }
        self.expiry.after = after;
        Ok(())
    }

    /// Deletes a document if it has expired.
    fn expire(&mut self, now: Timestamp, index: &Index, document: DocumentKey) -> Result<()> {
        // One that is damaged expires once it is repaired.
        let Some(record) = self.store.record(&document).ok().flatten().filter(|record| !record.deleted) else {
            return Ok(());
        };
        if !index.has_expired(document.id.as_str(), &record.view, now) {
            return Ok(());
        }
        match self.delete(now, document, &Condition::Heads(vec![record.heads])) {
            Err(error @ (Error::Denied(_) | Error::Unavailable(_) | Error::Io(_))) => Err(error),
            // What cannot be deleted now may be another time.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
