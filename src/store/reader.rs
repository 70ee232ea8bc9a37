//! Reading beside the writer: views, listings, counts and the feed. Needs no node, no network and no
//! Automerge, and costs the same whatever a document's history. What does need the history is in `opened`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::index::SharedCatalog;
use super::key::{self, Space, Tag};
use super::record::{Collection, Record, View, unseal};
use crate::base::{CollectionName, DocumentId, DocumentKey, Incarnation};
use crate::kv::{CacheUse, Condition, Kv};
use crate::limits::PAGE_BYTES_MAX;
use crate::{Error, Result};

/// Rows that one page looks at, so that a long run of deleted documents cannot hold a reader.
pub(super) const PAGE_ROWS_MAX: usize = 10_000;

/// A page of a listing, in the order of ids.
#[derive(Debug, Default)]
pub struct Page {
    /// The documents, deleted ones left out.
    pub documents: Vec<(DocumentId, Record)>,
    /// Documents whose record on the disk is damaged.
    pub damaged: Vec<DocumentId>,
    /// Where the next page starts, after this id; `None` when there is none.
    pub next: Option<DocumentId>,
}

/// What a scan of documents calls with each id and view, until it breaks.
pub type Views<'a> = dyn FnMut(&str, Option<View<'_>>) -> ControlFlow<()> + 'a;

/// A handle for reading; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Reader {
    pub(super) kv: Arc<dyn Kv>,
    space: Arc<AtomicU8>,
    incarnation: Incarnation,
    pub(super) catalog: SharedCatalog,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("space", &self.space()).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(kv: Arc<dyn Kv>, space: Arc<AtomicU8>, incarnation: Incarnation) -> Self {
        Self { kv, space, incarnation, catalog: SharedCatalog::default() }
    }

    /// A handle that stays with the mesh that the peer is in now, also when it turns to another one.
    #[must_use]
    pub fn pinned(&self) -> Self {
        let catalog = Arc::new(RwLock::new(self.catalog()));
        Self { space: Arc::new(AtomicU8::new(self.space())), catalog, ..self.clone() }
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn kv(&self) -> &dyn Kv {
        &*self.kv
    }

    pub(super) fn space(&self) -> Space {
        self.space.load(Ordering::Acquire)
    }

    /// The record of a document, deleted or not; `None` when it never existed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its record is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn record(&self, document: &DocumentKey) -> Result<Option<Record>> {
        self.record_in(self.space(), document)
    }

    /// Shows only what queries see of a document to `show`; `None` when it does not exist, or is deleted.
    ///
    /// # Errors
    /// As [`Reader::record`].
    pub fn view<T>(&self, document: &DocumentKey, show: impl FnOnce(View<'_>) -> T) -> Result<Option<T>> {
        let Some(sealed) = self.kv.get(&key::document(self.space(), document))? else {
            return self.check_not_lost(self.space(), document).map(|()| None);
        };
        match Record::open_view(&sealed) {
            Ok(view) => Ok(view.map(show)),
            Err(error) => Err(damaged(document, &error)),
        }
    }

    pub(super) fn record_in(&self, space: Space, document: &DocumentKey) -> Result<Option<Record>> {
        let Some(sealed) = self.kv.get(&key::document(space, document))? else {
            return self.check_not_lost(space, document).map(|()| None);
        };
        match Record::open(&sealed) {
            Ok(record) => Ok(Some(record)),
            Err(error) => Err(damaged(document, &error)),
        }
    }

    /// Whether a document without a record is one that was lost, of which there is a mark.
    fn check_not_lost(&self, space: Space, document: &DocumentKey) -> Result<()> {
        match self.kv.get(&key::damaged(space, document))? {
            Some(_) => Err(damaged(document, &"its record is lost")),
            None => Ok(()),
        }
    }

    /// Whether the store can be read as a whole.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.kv.condition()
    }

    /// A page of at most `limit` documents after the id `after`; of fewer, when they are large.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read. Damaged documents are listed, not an error.
    pub fn page(&self, collection: &CollectionName, after: Option<&DocumentId>, limit: usize) -> Result<Page> {
        // The smallest id after `after` has one more zero byte, which no id contains.
        let from = after.map(|id| [id.as_str().as_bytes(), &[0]].concat()).unwrap_or_default();
        let (from, to) = key::documents(self.space(), collection, &from, None);
        let mut page = Page::default();
        let (mut rows, mut bytes) = (0, 0);
        let mut last = None;
        self.kv.scan(&from, &to, &mut |key, value| {
            if page.documents.len() == limit || rows == PAGE_ROWS_MAX || bytes >= PAGE_BYTES_MAX {
                page.next = last.take();
                return ControlFlow::Break(());
            }
            rows += 1;
            if let Some(id) = key::document_id(key) {
                match Record::open(&Bytes::copy_from_slice(value)) {
                    Ok(record) if record.deleted => {}
                    Ok(record) => {
                        bytes += record.view.len();
                        page.documents.push((id.clone(), record));
                    }
                    Err(_) => page.damaged.push(id.clone()),
                }
                last = Some(id);
            }
            ControlFlow::Continue(())
        })?;
        Ok(page)
    }

    /// Visits the documents of a collection whose ids are greater than `after`, in the order of ids, until `visit`
    /// breaks: each one's id, and its view, which is nothing when the record is damaged. Deleted ones are left out.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn views(&self, collection: &CollectionName, after: Option<&str>, visit: &mut Views<'_>) -> Result<()> {
        let from = after.map(|id| [id.as_bytes(), &[0]].concat()).unwrap_or_default();
        let (from, to) = key::documents(self.space(), collection, &from, None);
        let prefix = 3 + collection.as_str().len();
        self.kv.scan(&from, &to, &mut |key, value| {
            let Some(Ok(id)) = key.get(prefix..).map(str::from_utf8) else { return ControlFlow::Continue(()) };
            match Record::open_view(value) {
                Ok(None) => ControlFlow::Continue(()),
                Ok(Some(view)) => visit(id, Some(view)),
                Err(_) => visit(id, None),
            }
        })?;
        Ok(())
    }

    /// Every collection with its counts, in the order of names.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn collections(&self) -> Result<Vec<(CollectionName, Collection)>> {
        let mut collections = Vec::new();
        self.visit_collections(None, |name, counts| {
            collections.push((name, counts));
            ControlFlow::Continue(())
        })?;
        Ok(collections)
    }

    /// At most `limit` collections after a name with their counts, in the order of names, and whether there are more.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn collections_after(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Result<(Vec<(CollectionName, Collection)>, bool)> {
        let (mut collections, mut more) = (Vec::new(), false);
        self.visit_collections(after, |name, counts| {
            more = collections.len() == limit;
            if more {
                return ControlFlow::Break(());
            }
            collections.push((name, counts));
            ControlFlow::Continue(())
        })?;
        Ok((collections, more))
    }

    /// The collections with the most documents, at most `limit` of them, the largest first. Takes time for each collection
    /// that there is, and memory for those that it returns.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn largest_collections(&self, limit: usize) -> Result<Vec<(CollectionName, Collection)>> {
        let mut largest: BTreeMap<(u64, Reverse<CollectionName>), Collection> = BTreeMap::new();
        self.visit_collections(None, |name, counts| {
            if largest.len() < limit || largest.keys().next().is_some_and(|(least, _)| *least < counts.documents) {
                largest.insert((counts.documents, Reverse(name)), counts);
            }
            if largest.len() > limit {
                largest.pop_first();
            }
            ControlFlow::Continue(())
        })?;
        Ok(largest.into_iter().rev().map(|((_, Reverse(name)), counts)| (name, counts)).collect())
    }

    fn visit_collections(
        &self,
        after: Option<&CollectionName>,
        mut visit: impl FnMut(CollectionName, Collection) -> ControlFlow<()>,
    ) -> Result<()> {
        let (mut from, to) = key::all(self.space(), Tag::Collection);
        if let Some(after) = after {
            // The smallest name after it has one more zero byte, which no name contains.
            from = key::named(self.space(), Tag::Collection, &[after.as_str().as_bytes(), &[0]].concat());
        }
        self.kv.scan(&from, &to, &mut |key, value| {
            let name = std::str::from_utf8(&key[2..]).ok().and_then(|name| name.parse().ok());
            // One whose counts are damaged is still a collection; its writer counts it again.
            name.map_or(ControlFlow::Continue(()), |name| visit(name, unseal(value).unwrap_or_default()))
        })?;
        Ok(())
    }

    /// The counts of one collection; `None` when it holds nothing and never did.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the record is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn collection(&self, name: &CollectionName) -> Result<Option<Collection>> {
        let sealed = self.kv.get(&key::named(self.space(), Tag::Collection, name.as_str().as_bytes()))?;
        let open = |sealed: Bytes| {
            unseal(&sealed).map_err(|error| Error::Corrupt(format!("the counts of collection {name}: {error}")))
        };
        sealed.map(open).transpose()
    }

    /// Whether a write would be accepted now: the disk has room, and none was refused before.
    ///
    /// # Errors
    /// Why not.
    pub fn check_writable(&self) -> Result<()> {
        Ok(self.kv.check()?)
    }

    /// How the table's cache does.
    #[must_use]
    pub fn cache(&self) -> CacheUse {
        self.kv.cache()
    }

    /// Bytes on the disk, about.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.kv.size_bytes()
    }
}

pub(super) fn damaged(document: &DocumentKey, error: &dyn std::fmt::Display) -> Error {
    Error::Corrupt(format!(
        "document {document} is damaged on this peer's disk ({error}); it is fetched again from peers that have it"
    ))
}
