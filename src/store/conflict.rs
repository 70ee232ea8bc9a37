//! Which documents have places at which edits that did not know of each other left several values.
//!
//! How many such places there are is part of a document's record, counted where its view is made. A document that has
//! some has a mark besides, written in the same batch, so that they are found at the cost of their number, which is
//! nothing where there are none. A record decides, not its mark: of a mark that is left behind nothing is shown.
//!
//! Records of older versions do not say. Those documents are counted once after a start, a step at a time, and so are
//! they after a damaged table was built anew, when marks may be lost. [`DONE`] says that nothing is left to count.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::Store;
use super::key::{self, Tag};
use super::reader::{PAGE_ROWS_MAX, Page, Reader};
use super::record::{Record, seal};
use crate::base::{CollectionName, DocumentId, DocumentKey};
use crate::kv::Batch;
use crate::limits::{CONFLICT_STEP_CHANGES, INDEX_STEP_DOCUMENTS, PAGE_BYTES_MAX};
use crate::{Error, Result};

/// The fact that every document of the mesh was counted.
const DONE: &str = "conflicts_counted";

/// Documents that are to be looked at, from this key on; `None` when there are none.
pub(super) type Counting = Option<Vec<u8>>;

impl Reader {
    /// A page of at most `limit` documents that have places with several values, after the id `after`, in the order of
    /// ids; of fewer, when they are large. A page may be empty before the end.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read. Damaged documents are listed, not an error.
    pub fn conflicting(&self, collection: &CollectionName, after: Option<&DocumentId>, limit: usize) -> Result<Page> {
        // The smallest id after `after` has one more zero byte, which no id contains.
        let from = after.map(|id| [id.as_str().as_bytes(), &[0]].concat()).unwrap_or_default();
        let space = self.space();
        let (from, to) = key::conflicts(space, collection, &from);
        let (mut page, mut rows, mut bytes, mut last, mut failed) = (Page::default(), 0, 0, None, None);
        self.kv.scan(&from, &to, &mut |key, _| {
            if page.documents.len() == limit || rows == PAGE_ROWS_MAX || bytes >= PAGE_BYTES_MAX {
                page.next = last.take();
                return ControlFlow::Break(());
            }
            rows += 1;
            let Some(document) = key::document_key(key) else { return ControlFlow::Continue(()) };
            match self.record_in(space, &document) {
                Ok(Some(record)) if record.conflict_count() > 0 => {
                    bytes += record.view.len();
                    page.documents.push((document.id.clone(), record));
                }
                Ok(_) => {}
                Err(Error::Corrupt(_)) => page.damaged.push(document.id.clone()),
                Err(error) => failed = Some(error),
            }
            last = Some(document.id);
            if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed.map_or(Ok(page), Err)
    }
}

impl Store {
    /// Writes or takes out the mark of a document that is being written.
    pub(super) fn write_conflict(&self, key: &DocumentKey, before: Option<&Record>, after: &Record, batch: &mut Batch) {
        let had_some = before.is_some_and(|before| before.conflict_count() > 0) || self.damaged.contains(key);
        match (had_some, after.conflict_count() > 0) {
            (_, true) => batch.put(key::conflict(self.space(), key), Bytes::new()),
            (true, false) => batch.delete(key::conflict(self.space(), key)),
            (false, false) => {}
        }
    }

    /// Where counting begins after a start.
    pub(super) fn load_counting(&self) -> Result<Counting> {
        let is_done = self.kv.get(&self.fact_key(DONE))?.is_some();
        Ok((!is_done).then(|| key::all(self.space(), Tag::Document).0))
    }

    /// Has every document looked at again.
    pub(super) fn count_conflicts_again(&mut self) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete(self.fact_key(DONE));
        self.apply(batch)?;
        self.counting = self.load_counting()?;
        Ok(())
    }

    /// Does a step of counting the conflicts of documents whose records do not say. Whether there is more to do.
    ///
    /// # Errors
    /// When the disk cannot be read or refuses.
    pub fn tend_conflicts(&mut self) -> Result<bool> {
        let Some(from) = self.counting.clone() else { return Ok(false) };
        let (_, to) = key::all(self.space(), Tag::Document);
        let (mut uncounted, mut batch, mut next) = (Vec::new(), Batch::new(), None);
        let (mut rows, mut changes) = (0, 0);
        self.kv.scan(&from, &to, &mut |key, sealed| {
            if rows == INDEX_STEP_DOCUMENTS || changes >= CONFLICT_STEP_CHANGES {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            rows += 1;
            // One that is damaged is counted when it is repaired.
            let (Some(document), Ok((record, _))) = (key::document_key(key), Record::open_bare(sealed)) else {
                return ControlFlow::Continue(());
            };
            match record.conflicts {
                Some(0) => {}
                Some(_) => batch.put(key::conflict(self.space(), &document), Bytes::new()),
                None => {
                    changes += record.changes();
                    uncounted.push(document);
                }
            }
            ControlFlow::Continue(())
        })?;
        for document in uncounted {
            self.count_conflicts(&document, &mut batch)?;
        }
        if next.is_none() {
            batch.put(self.fact_key(DONE), Bytes::new());
        }
        if !batch.is_empty() {
            self.apply(batch)?;
        }
        self.counting = next;
        Ok(self.counting.is_some())
    }

    fn count_conflicts(&mut self, document: &DocumentKey, batch: &mut Batch) -> Result<()> {
        let counted = match self.record(document) {
            Ok(Some(record)) => self.load_document(document, &record).map(|opened| (record, opened)),
            Ok(None) => return Ok(()),
            Err(error) => Err(error),
        };
        match counted {
            Ok((mut record, mut opened)) => {
                record.conflicts = Some(opened.conflict_count());
                self.write_conflict(document, None, &record, batch);
                batch.put(key::document(self.space(), document), seal(&record));
                Ok(())
            }
            Err(Error::Corrupt(_)) => {
                self.mark_damaged(document);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the record of a document one of an older version, which does not say how many conflicts there are.
    #[cfg(test)]
    pub(crate) fn forget_conflicts_for_test(&mut self, document: &DocumentKey) {
        let record = Record { conflicts: None, ..self.record(document).unwrap().unwrap() };
        let mut batch = Batch::new();
        batch.put(key::document(self.space(), document), seal(&record));
        batch.delete(key::conflict(self.space(), document));
        self.apply(batch).unwrap();
        self.count_conflicts_again().unwrap();
    }
}
