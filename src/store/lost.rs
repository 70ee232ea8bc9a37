//! Looking for what is missing, after the journal lost records or the table lost pages.
//!
//! What may be missing is told by ranges of keys, see [`Lost`]. Of it
//!
//! - documents whose log lacks a change are marked as damaged, see `repair`;
//! - documents without a record are found by their entry in the feed, and marked too: so each is named, unless its entry
//!   in the feed is lost with it; those whose logs are there are built anew from them, see `orphan`;
//! - entries of the feed, collections and their counts, range summaries, indexes and marks of conflicts follow from the
//!   documents, and are made anew;
//! - numbers are not given out twice, though what had them may be gone.
//!
//! Summaries do not count what is missing or marked, so to other peers it is missing here, and comparing with them brings
//! it. What of this peer's own changes nobody else has is lost, and another incarnation begins, in which no sequence
//! number is used a second time. Until all of that is durable [`Lost::KEY`] stays, so that a start begins again.

use std::ops::ControlFlow;

use super::Store;
use super::feed::{first_key, last_positions};
use super::holdings::Holding;
use super::key::{self, Space, Tag};
use super::record::seal;
use crate::Result;
use crate::base::{CollectionName, Decode, DecodeError, DocumentId, DocumentKey, Encode, Reader as Decoder, Writer};
use crate::kv::{Batch, Kv, Lost};
use crate::limits::{KEY_TEXT_BYTES_MAX, LOST_RANGES_SHOWN_MAX};

/// The fact that says what was lost last.
pub(super) const REPORT: &str = "lost";
/// Entries of the feed that are written at a time.
const FEED_ENTRIES: usize = 4_096;

/// What a damaged table was without when it was built anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilding {
    /// Its pages.
    pub pages: u64,
    /// Those that could not be read.
    pub pages_lost: u64,
    /// Documents that were damaged by that, as far as they can be named.
    pub documents: u64,
    /// What was on the lost pages, in words, the first few.
    pub ranges: Vec<String>,
}

impl Encode for Rebuilding {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(1).varint(self.pages).varint(self.pages_lost).varint(self.documents);
        writer.list(&self.ranges, |writer, range| _ = writer.string(range));
    }
}

impl Decode for Rebuilding {
    fn decode(reader: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        reader.version("report of a lost page", 1)?;
        let (pages, pages_lost, documents) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let text = |reader: &mut Decoder<'_>| reader.string("range", KEY_TEXT_BYTES_MAX).map(str::to_owned);
        Ok(Self { pages, pages_lost, documents, ranges: reader.list("ranges", LOST_RANGES_SHOWN_MAX, text)? })
    }
}

/// What is still to be looked for.
pub(super) fn found(kv: &dyn Kv) -> Result<Option<Lost>> {
    Ok(kv.get(Lost::KEY)?.map(|bytes| Lost::decode(&bytes)))
}

impl Store {
    /// What the last table that was damaged was without; nothing when none ever was.
    #[must_use]
    pub fn rebuilding(&self) -> Option<&Rebuilding> {
        self.rebuilding.as_ref()
    }

    /// Whether the store can be read as a whole.
    #[must_use]
    pub fn condition(&self) -> crate::kv::Condition {
        self.reader.condition()
    }

    /// Looks for what is missing once a damaged table was built anew; true when it was.
    ///
    /// # Errors
    /// When the disk cannot be read or refuses; it is tried again the next time.
    pub fn tend_table(&mut self) -> Result<bool> {
        let condition = self.kv.condition();
        if condition.mending.is_some() || condition.mended == self.mended {
            return Ok(false);
        }
        let lost = found(&*self.kv)?.unwrap_or_default();
        let next_position = self.next_position;
        self.load_space()?;
        // Cursors that were given out are not behind what comes.
        self.next_position = self.next_position.max(next_position);
        if !lost.ranges().is_empty() {
            self.renew_incarnation()?;
        }
        self.look_for(&lost)?;
        self.flush()?;
        self.mended = condition.mended;
        Ok(true)
    }

    /// Looks for what is missing, marks it, and makes anew what follows from the rest.
    pub(super) fn look_for(&mut self, lost: &Lost) -> Result<()> {
        let before = self.damaged.len();
        if !lost.ranges().is_empty() {
            self.find_collections()?;
            let used = self.check_documents(lost)?;
            let without = self.find_lost_documents(lost)?;
            self.find_orphans(lost, &used, without)?;
            self.skip_numbers()?;
            self.stale.extend(self.holdings.names());
            self.renew_all_indexes()?;
            self.count_conflicts_again()?;
        }
        let documents = (self.damaged.len() - before) as u64;
        let mut batch = Batch::new();
        if lost.pages > 0 || !lost.ranges().is_empty() {
            let report = self.report(lost, documents);
            tracing::warn!(
                pages = lost.pages, lost = lost.pages_lost, documents, ranges = ?report.ranges,
                "what was lost was looked for; it is fetched from peers that have it"
            );
            batch.put(key::meta(REPORT), seal(&report));
            self.rebuilding = Some(report);
        }
        // With the counts, so that one flush makes all of it durable before it is forgotten.
        self.flush()?;
        batch.delete(Lost::KEY);
        self.apply(batch)
    }

    fn report(&self, lost: &Lost, documents: u64) -> Rebuilding {
        let range = |(from, to): &(Vec<u8>, Vec<u8>)| {
            let to = if to.is_empty() { "the end".into() } else { key::describe(to) };
            format!("from {} to {to}", key::describe(from))
        };
        let ranges = lost.ranges().iter().take(LOST_RANGES_SHOWN_MAX).map(range).collect();
        Rebuilding { pages: lost.pages, pages_lost: lost.pages_lost, documents, ranges }
    }

    /// Finds collections by their documents, whose own records are lost.
    fn find_collections(&mut self) -> Result<()> {
        let (mut from, to) = key::all(self.space(), Tag::Document);
        while let Some(first) = first_key(&*self.kv, &from, &to)? {
            from = match key::document_key(&first) {
                Some(document) => {
                    let (_, end) = key::documents(self.space(), &document.collection, b"", None);
                    if self.holdings.get(&document.collection).is_none() {
                        self.holdings.put(&document.collection, Holding::default());
                    }
                    end
                }
                None => [first.as_slice(), &[0]].concat(),
            };
        }
        Ok(())
    }

    /// Marks documents whose log lacks a change, and puts back their entries in the feed. The numbers of all that were
    /// looked at, ascending.
    fn check_documents(&mut self, lost: &Lost) -> Result<Vec<u64>> {
        let space = self.space();
        let (mut gaps, mut feed, mut used, mut last, mut failed) = (Vec::new(), Vec::new(), Vec::new(), 0, None);
        for name in self.holdings.names() {
            self.visit(&name, b"", None, &mut |id, record, _| {
                last = last.max(record.position).max(record.number);
                used.push(record.number);
                let document = DocumentKey::new(name.clone(), id);
                let (from, to) = key::log_of(space, record.number);
                if lost.touches(&from, &to) && !self.has_all(&document, &record) {
                    gaps.push(document.clone());
                }
                let at = key::feed(space, &name, record.position);
                if lost.covers(&at) {
                    match self.kv.get(&at) {
                        Ok(Some(_)) => {}
                        Ok(None) => feed.push((at, document.id)),
                        Err(error) => failed = Some(error),
                    }
                }
                if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        self.next_position = self.next_position.max(last + 1);
        gaps.iter().for_each(|document| self.mark_damaged(document));
        self.put_feed(&feed)?;
        used.sort_unstable();
        Ok(used)
    }

    fn put_feed(&mut self, entries: &[(Vec<u8>, DocumentId)]) -> Result<()> {
        for entries in entries.chunks(FEED_ENTRIES) {
            let mut batch = Batch::new();
            entries.iter().for_each(|(key, id)| batch.put(key.clone(), id.as_str().as_bytes().to_vec()));
            self.apply(batch)?;
        }
        Ok(())
    }

    /// Marks documents that are in the feed and have no record. All of them, with their places in the feed.
    fn find_lost_documents(&mut self, lost: &Lost) -> Result<Vec<(u64, DocumentKey)>> {
        let (space, mut found) = (self.space(), Vec::new());
        for (name, _) in last_positions(&*self.kv, space)? {
            let (from, to) = key::documents(space, &name, b"", None);
            if lost.touches(&from, &to) {
                let without = self.in_feed_only(lost, &name)?;
                without.iter().for_each(|(_, document)| self.mark_damaged(document));
                found.extend(without);
            }
        }
        Ok(found)
    }

    fn in_feed_only(&self, lost: &Lost, name: &CollectionName) -> Result<Vec<(u64, DocumentKey)>> {
        let space = self.space();
        let (mut found, mut failed) = (Vec::new(), None);
        let (from, to) = (key::feed(space, name, 0), key::feed(space, name, u64::MAX));
        self.kv.scan(&from, &to, &mut |key, id| {
            let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
            let (Some(id), Some(position)) = (id, key::feed_position(key)) else { return ControlFlow::Continue(()) };
            let document = DocumentKey::new(name.clone(), id);
            let at = key::document(space, &document);
            if lost.covers(&at) {
                match self.kv.get(&at) {
                    Ok(Some(_)) => {}
                    Ok(None) => found.push((position, document)),
                    Err(error) => failed = Some(error),
                }
            }
            if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed.map_or(Ok(found), |error| Err(error.into()))
    }

    /// Goes beyond every document number under which there is anything, though no record names it any more.
    fn skip_numbers(&mut self) -> Result<()> {
        for tag in [Tag::Log, Tag::Snapshot] {
            let last = last_number(&*self.kv, self.space(), tag)?;
            self.next_position = self.next_position.max(last.map_or(0, |last| last.saturating_add(1)));
        }
        Ok(())
    }
}

/// The greatest number under a tag, found by bisection as the end of the feed is.
fn last_number(kv: &dyn Kv, space: Space, tag: Tag) -> Result<Option<u64>> {
    let (_, end) = key::all(space, tag);
    let (mut low, mut high) = (0u64, u64::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        match first_key(kv, &key::numbered(space, tag, middle), &end)?.as_deref().and_then(key::number) {
            Some(number) => low = number.saturating_add(1),
            None => high = middle,
        }
    }
    Ok(low.checked_sub(1))
}
