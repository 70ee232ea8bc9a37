//! Documents, their changes and everything derived from them, on one ordered map of bytes.
//!
//! One change is one atomic batch: the log entry, the document's record with heads and view, the nodes
//! of the range summary, the collection's counts and the feed entry are all there or all not. So a view
//! never disagrees with its log, and a fingerprint never with what it sums up, whatever happens to the
//! machine.
//!
//! - [`Reader`] reads views beside the writer, and opens documents for their history.
//! - [`Store`] is the writer; the node's thread owns it.
//! - What counts as a change, whose it is and whether its author had the right are settled before:
//!   [`Granted`] is the proof.
//!
//! The store knows nothing of peers and messages; `sync` compares stores through
//! [`Store::range`], [`Store::cuts`] and [`Store::missing`].

mod actor;
mod audit;
mod commit;
mod conflict;
mod ending;
mod feed;
mod fork;
mod holdings;
mod index;
mod joining;
mod key;
mod letter;
mod log;
mod lost;
mod opened;
mod orphan;
mod reader;
mod record;
mod repair;
mod space;
mod summary;

pub use audit::Audit;
pub use commit::{Granted, Merge, Outcome};
pub use feed::{FeedCursor, FeedPage};
pub use fork::Rebuilt;
pub use index::{Catalog, Conflict, Conflicts, Entries, Histogram, Index, Postings, Progress};
pub use letter::{Letter, Letters, Reason};
pub use log::{LogCursor, Vector};
pub use lost::Rebuilding;
pub use opened::Opened;
pub use orphan::Orphan;
pub use reader::{Page, Reader, Views};
pub use record::{Actor, Collection, LoggedRun, Record, View};
pub use summary::{Sum, Summary, Total};

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use lru::LruCache;

use self::actor::Actors;
use self::holdings::{Holding, Holdings};
use self::key::Tag;
use self::record::{seal, unseal};
use self::space::{FORMAT, Format};
use crate::access::MemberRecord;
use crate::base::{CollectionName, Decode, DocumentId, DocumentKey, Encode, GrantId, Incarnation, PeerId};
use crate::document::Document;
use crate::kv::{Batch, CacheUse, Damage, Durability, Kv, Lost};
use crate::limits::OPEN_DOCUMENTS_MAX;
use crate::{Error, Result};

/// What of the writes before may be missing when a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// The last ones, some of which may have been announced to other peers.
    Tail,
    /// Any, with later ones in place that count on them.
    Records,
}

impl Loss {
    /// What may be missing of a journal that was opened with these damages. A torn tail was never announced when
    /// flushes are waited for, but rot at the very end looks the same.
    #[must_use]
    pub fn of(durability: Durability, damages: &[Damage]) -> Self {
        let of = |damage: &Damage| match damage {
            Damage::TornTail { .. } => Self::Tail,
            Damage::LostRecords { .. }
            | Damage::LostSegment { .. }
            | Damage::MissingSegment { .. }
            | Damage::MissingRecords { .. } => Self::Records,
        };
        let unwaited = if durability == Durability::Buffered { Self::Tail } else { Self::Nothing };
        damages.iter().map(of).fold(unwaited, Self::max)
    }
}

/// Whether entries are such that no other peer has them, by the first two bytes of their keys: a second copy is kept
/// of them beside the table.
#[must_use]
pub fn is_precious([space, tag]: [u8; 2]) -> bool {
    let tags = [Tag::Actor, Tag::Member, Tag::Index, Tag::IndexDropped, Tag::Address];
    space == 0 && tag == b'm' || space > 0 && tags.iter().any(|precious| *precious as u8 == tag)
}

/// The writer.
pub struct Store {
    kv: Arc<dyn Kv>,
    reader: Reader,
    space: Arc<AtomicU8>,
    /// That of own changes; the reader keeps the one of the start, which its cursors name.
    incarnation: Incarnation,
    actors: Actors,
    holdings: Holdings,
    /// Documents whose record or log was found damaged: what arrives for them builds them anew. Each has a
    /// mark on the disk, written with the summary that leaves it out.
    damaged: BTreeSet<DocumentKey>,
    /// Collections to be counted again before the next flush.
    stale: BTreeSet<CollectionName>,
    letters: Letters,
    index_work: index::Work,
    counting: conflict::Counting,
    orphans: orphan::Orphans,
    open: LruCache<DocumentKey, Document>,
    open_use: CacheUse,
    /// The position of the next feed entry, which also numbers new documents.
    next_position: u64,
    /// How often the table had been built anew when it was looked at last.
    mended: u64,
    /// What the last table that was damaged was without.
    rebuilding: Option<Rebuilding>,
    unflushed: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("incarnation", &self.incarnation)
            .field("collections", &self.holdings.len())
            .field("next_position", &self.next_position)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `kv`. A new one takes `fresh` as its incarnation; so does one that may have lost
    /// changes which it had announced, so that their sequence numbers are not used twice. When records may be lost, of
    /// the journal or of a table that was damaged, it looks for what is missing, see `lost`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for another format, [`Error::Io`] when the disk cannot be read or written.
    pub fn open(kv: Arc<dyn Kv>, fresh: Incarnation, loss: Loss) -> Result<Self> {
        let stored: Option<Format> = read(&*kv, &key::meta("format"))?;
        let (mended, found) = (kv.condition().mended, lost::found(&*kv)?);
        let lost = if loss == Loss::Records { Some(Lost::anything()) } else { found };
        let is_whole = lost.as_ref().is_none_or(|lost| lost.ranges().is_empty());
        let format = match stored {
            Some(format) if loss == Loss::Nothing && is_whole => Format { version: FORMAT, ..format },
            Some(format) => Format { version: FORMAT, incarnation: fresh, ..format },
            None => Format { version: FORMAT, incarnation: fresh, space: 1 },
        };
        let space = Arc::new(AtomicU8::new(format.space));
        let mut store = Self {
            reader: Reader::new(kv.clone(), space.clone(), format.incarnation),
            kv,
            space,
            incarnation: format.incarnation,
            actors: Actors::default(),
            holdings: Holdings::default(),
            damaged: BTreeSet::new(),
            stale: BTreeSet::new(),
            letters: Letters::default(),
            index_work: index::Work::default(),
            counting: None,
            orphans: orphan::Orphans::default(),
            open: LruCache::new(NonZeroUsize::new(OPEN_DOCUMENTS_MAX).expect("the limit is not zero")),
            open_use: CacheUse::default(),
            next_position: 0,
            mended,
            rebuilding: None,
            unflushed: false,
        };
        if stored != Some(format) {
            store.put_format()?;
        }
        store.load_space()?;
        if let Some(lost) = lost {
            store.look_for(&lost)?;
        }
        store.rebuilding = read(&*store.kv, &key::meta(lost::REPORT))?;
        store.flush()?;
        Ok(store)
    }

    /// Drops the open form of a document; it is loaded again when it is needed.
    pub fn close_document(&mut self, document: &DocumentKey) {
        self.open.pop(document);
    }

    /// A handle for reading beside this writer.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Whether a write would be accepted now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_writable(&self) -> Result<()> {
        self.reader.check_writable()
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// When the disk refuses; writes are then refused until the store is opened again.
    pub fn flush(&mut self) -> Result<()> {
        if !self.stale.is_empty() && self.kv.condition().mending.is_none() {
            let (before, mut batch) = (self.stale.clone(), Batch::new());
            self.recount_stale();
            for name in before.difference(&self.stale) {
                batch.delete(key::named(self.space(), Tag::Uncounted, name.as_str().as_bytes()));
            }
            self.apply(batch)?;
        }
        if self.unflushed {
            self.kv.flush()?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// The total of the documents with `from <= id < to` (`None`: no end).
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn range(&self, collection: &CollectionName, from: &[u8], to: Option<&[u8]>) -> Result<Total> {
        let Some(holding) = self.holdings.get(collection) else { return Ok(Total::default()) };
        holding.summary.range(from, to, &|from: &[u8], to: Option<&[u8]>| self.recount(collection, from, to))
    }

    /// Ids strictly inside a range that cut it into at most `parts_max` + 1 parts of about equal size;
    /// empty when the range is too small to cut.
    #[must_use]
    pub fn cuts(
        &self,
        collection: &CollectionName,
        from: &[u8],
        to: Option<&[u8]>,
        parts_max: usize,
    ) -> Vec<Box<[u8]>> {
        self.holdings.get(collection).map(|holding| holding.summary.cuts(from, to, parts_max)).unwrap_or_default()
    }

    /// The items in a range, at most `limit`: each document's id and its record without the view, deleted ones
    /// included and damaged ones left out. The second part is where it stopped, when it did.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn items(&self, collection: &CollectionName, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Items> {
        let (mut items, mut stopped) = (Vec::new(), None);
        self.visit(collection, from, to, &mut |id, record, _| {
            if items.len() == limit {
                stopped = Some(id.as_str().as_bytes().to_vec());
                return ControlFlow::Break(());
            }
            items.push((id, record));
            ControlFlow::Continue(())
        })?;
        Ok((items, stopped))
    }

    /// Visits the items in a range one by one, with the bytes of each view, until `visit` breaks.
    fn visit(
        &self,
        collection: &CollectionName,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(DocumentId, Record, usize) -> ControlFlow<()>,
    ) -> Result<()> {
        let (start, end) = key::documents(self.space(), collection, from, to);
        self.kv.scan(&start, &end, &mut |key, value| {
            let Some(id) = key::document_id(key) else { return ControlFlow::Continue(()) };
            match Record::open_bare(value) {
                Ok((record, view_bytes)) if !self.is_damaged(collection, &id) => visit(id, record, view_bytes),
                Ok(_) | Err(_) => ControlFlow::Continue(()),
            }
        })?;
        Ok(())
    }

    /// The record of a document, deleted or not. Finding it damaged is remembered for its repair.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn record(&mut self, document: &DocumentKey) -> Result<Option<Record>> {
        if self.damaged.contains(document) {
            return Err(reader::damaged(document, &"seen before"));
        }
        let record = self.reader.record(document);
        if matches!(record, Err(Error::Corrupt(_))) {
            self.mark_damaged(document);
        }
        record
    }

    /// Makes an empty collection, which is listed with no documents; false when it was there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn create_collection(&mut self, name: &CollectionName) -> Result<bool> {
        // The disk decides: one whose first document could not be written is in memory and nowhere else.
        match self.reader.collection(name) {
            Ok(Some(_)) | Err(Error::Corrupt(_)) => return Ok(false),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        let holding = self.holdings.take(name);
        let counts = seal(&holding.counts);
        self.holdings.put(name, holding);
        let mut batch = Batch::new();
        batch.put(key::named(self.space(), Tag::Collection, name.as_str().as_bytes()), counts);
        self.apply_twice(batch)?;
        Ok(true)
    }

    /// The position that the next feed entry gets.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.next_position
    }

    /// Keeps at most so many documents open in memory, from now on.
    pub fn keep_open(&mut self, documents: usize) {
        self.open.resize(NonZeroUsize::new(documents).unwrap_or(NonZeroUsize::MIN));
    }

    /// How often a document that was needed was open already.
    #[must_use]
    pub fn open_use(&self) -> CacheUse {
        self.open_use
    }

    /// The dead letters.
    #[must_use]
    pub fn letters(&self) -> &Letters {
        &self.letters
    }

    /// Every member record that is stored.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when one is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn members(&self) -> Result<Vec<MemberRecord>> {
        self.load_all(Tag::Member, |_| true)
    }

    /// Keeps a member record.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_member(&mut self, record: &MemberRecord) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(key::named(self.space(), Tag::Member, record.grant_id().as_bytes()), seal(record));
        self.apply_twice(batch)
    }

    /// Forgets member records.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn drop_members(&mut self, grants: impl IntoIterator<Item = GrantId>) -> Result<()> {
        let mut batch = Batch::new();
        for grant in grants {
            batch.delete(key::named(self.space(), Tag::Member, grant.as_bytes()));
        }
        if batch.is_empty() { Ok(()) } else { self.apply(batch) }
    }

    /// A store-wide fact of the current mesh, such as its secret.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn fact<T: Decode>(&self, name: &str) -> Result<Option<T>> {
        read(&*self.kv, &self.fact_key(name))
    }

    /// Sets a store-wide fact of the current mesh.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_fact<T: Encode>(&mut self, name: &str, value: &T) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(self.fact_key(name), seal(value));
        self.apply_twice(batch)
    }

    /// Addresses at which peers were reached before.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a record is damaged, [`Error::Io`] when the disk cannot be read.
    pub fn addresses(&self) -> Result<BTreeMap<PeerId, Addresses>> {
        let mut addresses = BTreeMap::new();
        let (from, to) = key::all(self.space(), Tag::Address);
        self.kv.scan(&from, &to, &mut |key, value| {
            let peer = key.get(2..).and_then(|bytes| bytes.try_into().ok()).map(PeerId);
            // Addresses are hints: a damaged one is worth nothing and harms nothing.
            if let (Some(peer), Ok(list)) = (peer, unseal::<Addresses>(value)) {
                addresses.insert(peer, list);
            }
            ControlFlow::Continue(())
        })?;
        Ok(addresses)
    }

    /// Keeps the addresses of a peer for the next start.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_addresses(&mut self, peer: &PeerId, addresses: &Addresses) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(key::address(self.space(), peer), seal(addresses));
        self.apply(batch)
    }

    /// Flips a bit of a document's record.
    #[cfg(test)]
    pub(crate) fn damage_for_test(&self, document: &DocumentKey) {
        let key = key::document(self.space(), document);
        let mut bytes = self.kv.get(&key).unwrap().unwrap().to_vec();
        bytes[20] ^= 1;
        let mut batch = Batch::new();
        batch.put(key, bytes);
        self.kv.apply(batch).unwrap();
    }

    /// Puts something else in the place of a document's first change in the log.
    #[cfg(test)]
    pub(crate) fn damage_log_for_test(&self, document: &DocumentKey, damage: impl FnOnce(&mut LoggedRun)) {
        let record = self.reader.record(document).unwrap().unwrap();
        let (actor, _) = record.vector[0];
        let key = key::log(self.space(), record.number, actor, 1);
        let mut change = unseal(&self.kv.get(&key).unwrap().unwrap()).unwrap();
        damage(&mut change);
        let mut batch = Batch::new();
        batch.put(key, seal(&change));
        self.kv.apply(batch).unwrap();
    }

    /// The total of a collection, counted from its records.
    #[cfg(test)]
    pub(crate) fn recount_for_test(&self, collection: &CollectionName) -> Total {
        self.recount(collection, b"", None).unwrap()
    }

    fn load_space(&mut self) -> Result<()> {
        self.open.clear();
        self.damaged = self.load_damaged()?;
        self.actors = Actors::load(&*self.kv, self.space())?;
        self.holdings.clear();
        self.stale.clear();
        for (name, counts) in self.reader.collections()? {
            let readable = self.reader.collection(&name).is_ok();
            let summary = self.load_summary(&name, counts.total)?.filter(|_| readable);
            if summary.is_none() {
                tracing::warn!(collection = %name, "the range summary is damaged on the disk; counting it again");
                self.stale.insert(name.clone());
            }
            self.holdings.put(&name, Holding::new(counts, summary.unwrap_or_default()));
        }
        let (from, to) = key::all(self.space(), Tag::Uncounted);
        self.kv.scan(&from, &to, &mut |key, _| {
            self.stale.extend(std::str::from_utf8(&key[2..]).ok().and_then(|name| name.parse::<CollectionName>().ok()));
            ControlFlow::Continue(())
        })?;
        // Whether the last count was made without them is not known: the power may have gone between the two.
        let damaged = self.damaged.iter().map(|document| document.collection.clone());
        self.stale.extend(damaged.filter(|name| self.holdings.get(name).is_some()).collect::<Vec<_>>());
        self.next_position = feed::next_position(&*self.kv, self.space())?;
        self.letters = Letters::load(&*self.kv, self.space())?;
        self.counting = self.load_counting()?;
        self.load_indexes()
    }

    /// Reads a persisted summary; `None` when it is damaged.
    fn load_summary(&self, name: &CollectionName, total: Total) -> Result<Option<Summary>> {
        let mut summary = Summary::default();
        let mut damaged = false;
        let (from, to) = key::summaries(self.space(), name);
        self.kv.scan(&from, &to, &mut |key, value| {
            match (key::summary_parts(key), unseal(value)) {
                (Some((level, boundary)), Ok(node)) => summary.restore(level, boundary, node),
                (None, _) | (_, Err(_)) => damaged = true,
            }
            ControlFlow::Continue(())
        })?;
        summary.restore_total(total);
        Ok((!damaged).then_some(summary))
    }

    /// Sums up the items in a range one by one.
    fn recount(&self, collection: &CollectionName, from: &[u8], to: Option<&[u8]>) -> Result<Total> {
        let mut total = Total::default();
        self.visit(collection, from, to, &mut |id, record, _| {
            total = total.plus(Total::of_item(Sum::of_item(id.as_str(), &record.heads)));
            ControlFlow::Continue(())
        })?;
        Ok(total)
    }

    fn is_damaged(&self, collection: &CollectionName, id: &DocumentId) -> bool {
        !self.damaged.is_empty() && self.damaged.contains(&DocumentKey::new(collection.clone(), id.clone()))
    }

    fn fact_key(&self, name: &str) -> Vec<u8> {
        key::meta(&format!("{}/{name}", self.space()))
    }

    fn apply(&mut self, batch: Batch) -> Result<()> {
        self.kv.apply(batch)?;
        self.unflushed = true;
        Ok(())
    }

    /// Applies what nothing can be derived from or fetched again without, such as who is a member, as two
    /// records of the journal: one that rots is not missed.
    fn apply_twice(&mut self, batch: Batch) -> Result<()> {
        self.apply(batch.clone())?;
        self.apply(batch)
    }

    fn load_all<T: Decode>(&self, tag: Tag, keep: impl Fn(&T) -> bool) -> Result<Vec<T>> {
        let (from, to) = key::all(self.space(), tag);
        let (mut values, mut broken) = (Vec::new(), None);
        self.kv.scan(&from, &to, &mut |key, value| match unseal(value) {
            Ok(value) => {
                if keep(&value) {
                    values.push(value);
                }
                ControlFlow::Continue(())
            }
            Err(error) => {
                broken = Some(format!("record {} is damaged: {error}", data_encoding::HEXLOWER.encode(key)));
                ControlFlow::Break(())
            }
        })?;
        broken.map_or(Ok(values), |text| Err(Error::Corrupt(text)))
    }
}

/// Addresses of a peer, in the order in which they should be tried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses(pub Vec<String>);

impl Encode for Addresses {
    fn encode(&self, writer: &mut crate::base::Writer) {
        writer.list(&self.0, |w, address| _ = w.string(address));
    }
}

impl Decode for Addresses {
    fn decode(reader: &mut crate::base::Reader<'_>) -> Result<Self, crate::base::DecodeError> {
        let address =
            |r: &mut crate::base::Reader<'_>| r.string("address", crate::limits::ADDRESS_BYTES_MAX).map(str::to_owned);
        Ok(Self(reader.list("addresses", crate::limits::TICKET_ADDRESSES_MAX, address)?))
    }
}

/// Documents with their records, and the id at which a listing stopped before its end, if it did.
pub type Items = (Vec<(DocumentId, Record)>, Option<Vec<u8>>);

fn read<T: Decode>(kv: &dyn Kv, key: &[u8]) -> Result<Option<T>> {
    let Some(sealed) = kv.get(key)? else { return Ok(None) };
    let broken = |error| Error::Corrupt(format!("record {:?} is damaged: {error}", String::from_utf8_lossy(key)));
    unseal(&sealed).map(Some).map_err(broken)
}
