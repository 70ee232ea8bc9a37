//! Indexes: declaring them, and the time that filling them gets between inputs.

use crate::base::{CollectionName, Timestamp};
use crate::index::{Definition, IndexName};
use crate::{Error, Result};

use super::Node;
use super::effect::Reply;
use super::write::{check_collection, is_step};

/// Milliseconds before filling goes on after the disk refused.
const RETRY_MS: u64 = 10_000;

impl Node {
    pub(super) fn put_index(
        &mut self,
        now: Timestamp,
        collection: &CollectionName,
        name: IndexName,
        definition: Definition,
    ) -> Result<Reply> {
        check_collection(collection)?;
        if is_step(name.as_str()) {
            let message =
                format!("index name {:?}: it means a folder in a URL, so that nobody could ask for it", name.as_str());
            return Err(Error::invalid(message));
        }
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

    /// Does a step of filling, counting or clearing indexes, of counting conflicts, and of what was lost.
    pub(super) fn tend_indexes(&mut self, now: Timestamp) {
        if self.index_at.is_some_and(|at| at > now) {
            return;
        }
        let tended = match self.store.tend_indexes() {
            Ok(false) => self.store.tend_conflicts(),
            tended => tended,
        };
        let tended = match tended {
            Ok(false) => self.tend_orphans(now),
            tended => tended,
        };
        self.index_at = match tended {
            Ok(more) => more.then_some(now),
            Err(error) => {
                self.storage_failed("keeping indexes", &error);
                Some(now.plus_ms(RETRY_MS))
            }
        };
    }
}
