//! The feed of a collection: its documents in the order in which they last changed here.
//!
//! A document has one entry, that of its last change: the next change takes it out and puts it behind all
//! others. So the feed is as long as the collection, deleted documents included, however often they change; it
//! needs no retention, and whoever comes back after a year is told of each document once. What is not told is
//! every step in between; a document's history has those.
//!
//! Positions are numbers of the whole store, ascending and never used twice in one life of it. They mean nothing
//! to another peer, which sees changes in another order. So a [`FeedCursor`] names the life of the store that it
//! is from, and is refused by any other.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use super::Store;
use super::key::{self, Space, Tag};
use super::reader::{PAGE_ROWS_MAX, Reader};
use super::record::Record;
use crate::base::{CollectionName, DocumentId, DocumentKey, Hlc, Incarnation};
use crate::kv::Kv;
use crate::limits::PAGE_BYTES_MAX;
use crate::{Error, Result};

/// How far a feed was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedCursor {
    space: Space,
    incarnation: Incarnation,
    position: u64,
}

impl FeedCursor {
    /// The same feed at another position.
    #[must_use]
    pub fn at(self, position: u64) -> Self {
        Self { position, ..self }
    }
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[self.space], self.incarnation.0.as_slice(), &self.position.to_be_bytes()].concat();
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for FeedCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid("this is no cursor of a feed; leave it out to start from the beginning");
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| wrong())?;
        let (incarnation, position) = bytes.get(1..).and_then(|rest| rest.split_at_checked(8)).ok_or_else(wrong)?;
        Ok(Self {
            space: bytes[0],
            incarnation: Incarnation(incarnation.try_into().map_err(|_| wrong())?),
            position: u64::from_be_bytes(position.try_into().map_err(|_| wrong())?),
        })
    }
}

/// A part of a feed.
#[derive(Debug, PartialEq, Eq)]
pub struct FeedPage {
    /// Documents with their records, in the order of their changes, each with the cursor behind it.
    pub entries: Vec<(DocumentId, Record, FeedCursor)>,
    /// Where to go on.
    pub next: FeedCursor,
    /// Whether nothing is left up to where it was read.
    pub complete: bool,
}

impl Reader {
    /// The cursor behind a position.
    #[must_use]
    pub fn feed_cursor(&self, position: u64) -> FeedCursor {
        FeedCursor { space: self.space(), incarnation: self.incarnation(), position }
    }

    /// Up to `limit` documents of a collection that changed after the cursor `since` (`None`: ever) and up to the
    /// cursor `until`, and whose id starts with `prefix`; fewer, when they are large. A page may be empty before
    /// the feed's end. It is of the mesh of `until`, also while the writer turns to another one.
    ///
    /// # Errors
    /// [`Error::NotFound`] when `since` is from another life of the store than `until`, or of another mesh,
    /// [`Error::Io`] when the disk cannot be read. Damaged documents are left out.
    pub fn feed(
        &self,
        collection: &CollectionName,
        since: Option<FeedCursor>,
        until: FeedCursor,
        prefix: &str,
        limit: usize,
    ) -> Result<FeedPage> {
        let since = since.unwrap_or(until.at(0));
        if since.at(0) != until.at(0) {
            return Err(Error::NotFound(
                "the cursor is from before this peer lost writes or joined another mesh; start again without it".into(),
            ));
        }
        let mut page = FeedPage { entries: Vec::new(), next: since, complete: true };
        let (mut last, mut bytes) = (since, 0);
        for (position, id) in self.feed_entries(collection, until, prefix, limit, &mut page)? {
            if bytes >= PAGE_BYTES_MAX {
                (page.next, page.complete) = (last, false);
                break;
            }
            last = since.at(position);
            let record = self.record_in(until.space, &DocumentKey::new(collection.clone(), id.clone()));
            // One that changed again meanwhile is found behind the others.
            if let Ok(Some(record)) = record
                && record.position == position
            {
                bytes += record.view.len();
                page.entries.push((id, record, last));
            }
        }
        Ok(page)
    }

    fn feed_entries(
        &self,
        collection: &CollectionName,
        until: FeedCursor,
        prefix: &str,
        limit: usize,
        page: &mut FeedPage,
    ) -> Result<Vec<(u64, DocumentId)>> {
        let from = key::feed(until.space, collection, page.next.position.saturating_add(1));
        let to = key::feed(until.space, collection, until.position.saturating_add(1));
        let (mut found, mut rows) = (Vec::new(), 0);
        self.kv().scan(&from, &to, &mut |key, id| {
            if found.len() == limit || rows == PAGE_ROWS_MAX {
                page.complete = false;
                return ControlFlow::Break(());
            }
            rows += 1;
            let Some(position) = key::feed_position(key) else { return ControlFlow::Continue(()) };
            page.next.position = position;
            let id = std::str::from_utf8(id).ok().filter(|id| id.starts_with(prefix)).and_then(|id| id.parse().ok());
            found.extend(id.map(|id| (position, id)));
            ControlFlow::Continue(())
        })?;
        if page.complete {
            page.next.position = page.next.position.max(until.position);
        }
        Ok(found)
    }
}

impl Store {
    /// The latest time of any collection's last change: where a clock must continue.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot be read.
    pub fn latest(&self) -> Result<Hlc> {
        let mut latest = Hlc::default();
        for (collection, last) in last_positions(&*self.kv, self.space())? {
            let last = self.reader.feed_cursor(last);
            let before = last.at(last.position.saturating_sub(1));
            let page = self.reader.feed(&collection, Some(before), last, "", 1)?;
            latest = page.entries.iter().fold(latest, |latest, (_, record, _)| latest.max(record.updated));
        }
        Ok(latest)
    }
}

/// The position that the next change gets. Found in the feed itself, whatever else is damaged: it numbers new
/// documents, too.
pub(super) fn next_position(kv: &dyn Kv, space: Space) -> Result<u64> {
    Ok(last_positions(kv, space)?.iter().map(|(_, last)| last + 1).max().unwrap_or(1))
}

/// The last position in each collection's feed.
pub(super) fn last_positions(kv: &dyn Kv, space: Space) -> Result<Vec<(CollectionName, u64)>> {
    let (mut from, to) = key::all(space, Tag::Feed);
    let mut last = Vec::new();
    while let Some(first) = first_key(kv, &from, &to)? {
        let Some(collection) = key::feed_collection(&first) else {
            from = [first.as_slice(), &[0]].concat();
            continue;
        };
        last.extend(last_position(kv, space, &collection)?.map(|position| (collection.clone(), position)));
        from = key::feed(space, &collection, u64::MAX);
        from.push(0);
    }
    Ok(last)
}

/// The map is only read forwards, so the end is found by asking whether there is anything behind a position: from the
/// first one on in steps that double, then by bisection. So a short feed is read in a few steps, of which a start with
/// many collections makes that many for each.
fn last_position(kv: &dyn Kv, space: Space, collection: &CollectionName) -> Result<Option<u64>> {
    let end = key::feed(space, collection, u64::MAX);
    let (mut low, mut high, mut step) = (0u64, u64::MAX, 0u64);
    while low < high {
        let is_bounded = high < u64::MAX;
        let middle = if is_bounded { low + (high - low) / 2 } else { low.saturating_add(step).min(high - 1) };
        match first_key(kv, &key::feed(space, collection, middle), &end)?.as_deref().and_then(key::feed_position) {
            Some(position) => (low, step) = (position + 1, step.saturating_mul(2).saturating_add(1)),
            None => high = middle,
        }
    }
    Ok(low.checked_sub(1))
}

pub(super) fn first_key(kv: &dyn Kv, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut first = None;
    kv.scan(from, to, &mut |key, _| {
        first = Some(key.to_vec());
        ControlFlow::Break(())
    })?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::opened::tests::Writer;
    use super::*;

    fn told(page: &FeedPage) -> Vec<(&str, u64)> {
        page.entries.iter().map(|(id, _, cursor)| (id.as_str(), cursor.position)).collect()
    }

    #[test]
    fn the_end_of_each_feed_is_found_in_few_steps() {
        let kv = crate::kv::MemoryKv::new();
        let mut batch = crate::kv::Batch::new();
        let ends = [("one", vec![7]), ("two", vec![1, u64::MAX >> 2]), ("many", (1..2_000).step_by(3).collect())];
        for (name, positions) in &ends {
            for position in positions {
                batch.put(key::feed(1, &name.parse().unwrap(), *position), b"a".to_vec());
            }
        }
        kv.apply(batch).unwrap();
        for (name, positions) in ends {
            assert_eq!(last_position(&kv, 1, &name.parse().unwrap()).unwrap(), positions.last().copied(), "{name}");
        }
        assert_eq!(last_position(&kv, 1, &"none".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn a_feed_is_of_one_mesh_while_the_writer_turns_to_another() {
        let mut writer = Writer::new();
        let (reader, collection) = (writer.store.reader(), writer.key.collection.clone());
        let ids: Vec<DocumentId> = ["a", "b", "c"].map(|id| id.parse().unwrap()).into();
        for id in &ids {
            writer.key.id = id.clone();
            writer.write_body(json!({}));
        }
        let end = reader.feed_cursor(3);
        writer.store.begin_space().unwrap();
        writer.key.id = ids[0].clone();
        writer.write_body(json!({"of": "the other mesh"}));
        // Who reads knows of nothing but the mesh that is durable.
        for (since, expected) in [(None, &[("a", 1), ("b", 2), ("c", 3)][..]), (Some(end.at(2)), &[("c", 3)])] {
            let page = reader.feed(&collection, since, end, "", 10).unwrap();
            assert_eq!((told(&page).as_slice(), page.next, page.complete), (expected, end, true));
            assert!(page.entries.iter().all(|(_, record, _)| &record.view[..] == b"{}"));
        }
        let joined = reader.feed_cursor(1);
        assert_eq!(told(&reader.feed(&collection, None, joined, "", 10).unwrap()), [("a", 1)]);
        assert!(matches!(reader.feed(&collection, Some(end), joined, "", 10), Err(Error::NotFound(_))));
    }

    #[test]
    fn a_page_holds_fewer_documents_when_they_are_large() {
        let mut writer = Writer::new();
        let (reader, collection) = (writer.store.reader(), writer.key.collection.clone());
        for n in 0..7 {
            writer.key.id = format!("d{n}").parse().unwrap();
            writer.write_body(json!({ "text": "x".repeat(PAGE_BYTES_MAX / 3) }));
        }
        let (end, mut since, mut pages) = (reader.feed_cursor(7), None, Vec::new());
        loop {
            let page = reader.feed(&collection, since, end, "", 1_000).unwrap();
            pages.push(told(&page).iter().map(|(_, position)| *position).collect::<Vec<_>>());
            since = Some(page.next);
            if page.complete {
                break;
            }
        }
        assert_eq!(pages, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
        assert_eq!(since, Some(end));
    }
}
