//! Keys and values of entries.
//!
//! An entry stands under the index's number, the key of the document and the document's id; its value is the length of
//! the key in two bytes, which tells where the id begins, and in an index of text what is counted of the word. A
//! document whose keys are too many or too long has one entry under `ff` instead, behind all others.

use super::super::key::{self, KeyRange, Space, Tag};
use crate::base::{Decode, Encode};
use crate::index::{Keys, Posting, Span};

/// No key starts with it: kinds are below, and turned around they are too; so are cells, and words in UTF-8.
const OVERFLOW: &[u8] = &[0xff];

/// The entries of a document, with their values, in their order.
pub(super) fn entries(space: Space, number: u32, keys: &Keys, id: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entry = |key: &[u8], posting: Option<Posting>| {
        // At most limits::INDEX_KEY_BYTES_MAX long.
        let mut value = (key.len() as u16).to_be_bytes().to_vec();
        value.extend(posting.map(|posting| posting.to_bytes()).unwrap_or_default());
        (entry_key(space, number, key, id), value)
    };
    let overflow = keys.overflow.then(|| entry(OVERFLOW, None));
    keys.keys.iter().enumerate().map(|(at, key)| entry(key, keys.posting(at))).chain(overflow).collect()
}

fn entry_key(space: Space, number: u32, key: &[u8], id: &str) -> Vec<u8> {
    let mut entry = prefix(space, number);
    entry.extend_from_slice(key);
    entry.extend_from_slice(id.as_bytes());
    entry
}

/// What all entries of an index begin with.
pub(super) fn prefix(space: Space, number: u32) -> Vec<u8> {
    key::named(space, Tag::IndexEntry, &number.to_be_bytes())
}

/// Bytes of [`prefix`].
pub(super) const PREFIX: usize = 6;

/// All entries, also those of documents that have no keys.
pub(super) fn all(space: Space, number: u32) -> KeyRange {
    (prefix(space, number), prefix(space, number + 1))
}

/// The entries of documents that have no keys.
pub(super) fn overflow(space: Space, number: u32) -> KeyRange {
    ([prefix(space, number).as_slice(), OVERFLOW].concat(), prefix(space, number + 1))
}

/// The entries whose keys begin with these bytes.
pub(super) fn under(space: Space, number: u32, key: &[u8]) -> KeyRange {
    let from = [prefix(space, number).as_slice(), key].concat();
    // Keys are followed by ids, which hold no 0xff.
    let to = [from.as_slice(), &[0xff]].concat();
    (from, to)
}

/// The entries with keys in a span.
pub(super) fn within(space: Space, number: u32, (from, to): &Span) -> KeyRange {
    let prefix = prefix(space, number);
    ([prefix.as_slice(), from].concat(), [prefix.as_slice(), to].concat())
}

/// Key and id of an entry; `None` when its value is damaged.
pub(super) fn parts<'a>(entry: &'a [u8], value: &[u8]) -> Option<(&'a [u8], &'a str)> {
    let length = usize::from(u16::from_be_bytes(*value.first_chunk()?));
    let (key, id) = entry.get(PREFIX..)?.split_at_checked(length)?;
    Some((key, str::from_utf8(id).ok()?))
}

/// What is counted of a word in the value of its entry; `None` when there is nothing, or it is damaged.
pub(super) fn posting(value: &[u8]) -> Option<Posting> {
    Posting::from_bytes(value.get(2..)?).ok()
}

/// Whether an entry is that of a document that has no keys.
pub(super) fn is_overflow(key: &[u8]) -> bool {
    key == OVERFLOW
}
