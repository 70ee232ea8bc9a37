//! Reading the entries of indexes: for queries, searches, and what deletes documents that have expired.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::Reader;
use super::super::key;
use super::{Catalog, Index, entry};
use crate::base::{DocumentId, Timestamp};
use crate::index::{Posting, text_key};
use crate::{Error, Result};

/// What a scan of an index calls with each key and id, until it breaks.
pub type Entries<'a> = dyn FnMut(&[u8], &str) -> ControlFlow<()> + 'a;

/// What a search of an index of text calls with each id that has the word, and what is counted of it, until it breaks.
pub type Postings<'a> = dyn FnMut(&str, Posting) -> ControlFlow<()> + 'a;

/// What is called with key, id and value of each entry; it gives nothing when the value is damaged.
type Values<'a> = dyn FnMut(&[u8], &str, &[u8]) -> Option<ControlFlow<()>> + 'a;

impl Reader {
    /// The indexes as they are now.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Visits the entries of an index with `from <= key < to` (`None`: no end), in the order of keys and then of ids.
    /// A document with several keys comes several times; those whose keys are too many or too long do not come, see
    /// [`Reader::overflow`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an entry is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn entries(&self, index: &Index, from: &[u8], to: Option<&[u8]>, visit: &mut Entries<'_>) -> Result<()> {
        let (all, end) = (entry::prefix(index.space, index.number), entry::overflow(index.space, index.number).0);
        let from = [all.as_slice(), from].concat();
        let to = to.map_or(end, |to| [all.as_slice(), to].concat());
        self.scan_entries(index, &(from, to), visit)
    }

    /// Visits the ids of documents whose keys in an index are too many or too long.
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn overflow(&self, index: &Index, visit: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<()> {
        self.scan_entries(index, &entry::overflow(index.space, index.number), &mut |_, id| visit(id))
    }

    /// Visits the documents that have a word in an index of text, in the order of their ids. Those whose words are too
    /// many or too long do not come, see [`Reader::overflow`].
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn postings(&self, index: &Index, word: &str, visit: &mut Postings<'_>) -> Result<()> {
        let range = entry::under(index.space, index.number, &text_key(word));
        self.scan_values(index, &range, &mut |_, id, value| entry::posting(value).map(|posting| visit(id, posting)))
    }

    /// Documents that may have expired, behind the entry `after`, at most `limit`, and the entry behind which there may
    /// be more. A document with several keys comes several times.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn expiring(
        &self,
        index: &Index,
        now: Timestamp,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<DocumentId>, Option<Vec<u8>>)> {
        let (mut ids, mut last, mut more) = (Vec::new(), None, false);
        let spans = index.definition.expired_spans(now);
        let ranges = spans.iter().map(|span| entry::within(index.space, index.number, span));
        for (from, to) in ranges.chain([entry::overflow(index.space, index.number)]) {
            let from = after.map_or(from.clone(), |after| from.max([after, &[0]].concat()));
            if more || from >= to {
                continue;
            }
            self.kv.scan(&from, &to, &mut |key, value| {
                if ids.len() == limit {
                    more = true;
                    return ControlFlow::Break(());
                }
                last = Some(key.to_vec());
                ids.extend(entry::parts(key, value).and_then(|(_, id)| id.parse().ok()));
                ControlFlow::Continue(())
            })?;
        }
        Ok((ids, last.filter(|_| more)))
    }

    pub(super) fn scan_entries(&self, index: &Index, range: &key::KeyRange, visit: &mut Entries<'_>) -> Result<()> {
        self.scan_values(index, range, &mut |key, id, _| Some(visit(key, id)))
    }

    fn scan_values(&self, index: &Index, (from, to): &key::KeyRange, visit: &mut Values<'_>) -> Result<()> {
        let mut is_damaged = false;
        self.kv.scan(from, to, &mut |key, value| {
            let visited = entry::parts(key, value).and_then(|(key, id)| visit(key, id, value));
            is_damaged = visited.is_none();
            visited.unwrap_or(ControlFlow::Break(()))
        })?;
        if is_damaged {
            let name = &index.name;
            return Err(Error::Corrupt(format!(
                "an entry of the index {name} is damaged on this peer's disk; drop it and create it again"
            )));
        }
        Ok(())
    }
}
