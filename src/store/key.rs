//! The layout of keys. Every key of a mesh starts with its *space*, one byte, so that the data of a mesh
//! that was left stays untouched beside the data of the one that was joined.
//!
//! | key | value |
//! |---|---|
//! | `00` `journal` | the last record of the journal that is in the table, see `kv` |
//! | `00` `lost` | [`Lost`](crate::kv::Lost): what of a damaged table is still to be looked for |
//! | `00 m` name | store-wide facts: format, incarnation, current space |
//! | space `a` actor number (4) | who writes under an actor |
//! | space `b` n collection id | nothing: the document is damaged (*broken*) and left out of the summary |
//! | space `c` collection | [`Collection`](super::Collection): counts and the total of its summary |
//! | space `d` n collection id | [`Record`](super::Record): heads, vector, times and the view of a document |
//! | space `e` index number (4) key id | length of the key (2): an entry of an index, see `index/entry` |
//! | space `f` n collection position (8) | the id of the document whose last change this is |
//! | space `g` grant id (32) | member record |
//! | space `i` n collection name | an index: its number, what it is, how far it is |
//! | space `k` index number (4) key | nothing: several documents have this key of a unique index |
//! | space `l` document number (8) actor number (4) sequence (8) | changes with their signature; the sequence number is that of the last |
//! | space `o` index number (4) | nothing: its entries are to be cleared |
//! | space `p` peer (32) | addresses to dial |
//! | space `q` n collection id | nothing: the document has places with several values (*quarrel*), see `conflict` |
//! | space `r` n collection level (1) key | a node of the range summary |
//! | space `s` document number (8) | snapshot of a document |
//! | space `u` collection | nothing: its counts and its summary are to be made anew (*uncounted*) |
//! | space `x` letter number (8) | dead letter |
//!
//! Integers are big-endian, so that byte order is numeric order; `n` is the length of the collection's
//! name in one byte, so that no collection's range contains another's.

use crate::base::{CollectionName, DocumentId, DocumentKey, PeerId};
use crate::index::IndexName;

/// Which mesh's data a key belongs to.
pub(super) type Space = u8;

/// A half-open range of keys.
pub(super) type KeyRange = (Vec<u8>, Vec<u8>);

/// The tag byte of a kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tag {
    Actor = b'a',
    Broken = b'b',
    Collection = b'c',
    Document = b'd',
    IndexEntry = b'e',
    Feed = b'f',
    Member = b'g',
    Index = b'i',
    IndexConflict = b'k',
    Log = b'l',
    IndexDropped = b'o',
    Address = b'p',
    Conflict = b'q',
    Summary = b'r',
    Snapshot = b's',
    Uncounted = b'u',
    Letter = b'x',
}

/// A store-wide fact.
pub(super) fn meta(name: &str) -> Vec<u8> {
    [b"\0m", name.as_bytes()].concat()
}

/// A record that is named by bytes alone.
pub(super) fn named(space: Space, tag: Tag, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + name.len());
    key.extend_from_slice(&[space, tag as u8]);
    key.extend_from_slice(name);
    key
}

/// A record that is named by a number.
pub(super) fn numbered(space: Space, tag: Tag, number: u64) -> Vec<u8> {
    named(space, tag, &number.to_be_bytes())
}

/// Every record of a kind.
pub(super) fn all(space: Space, tag: Tag) -> KeyRange {
    (vec![space, tag as u8], vec![space, tag as u8 + 1])
}

/// Who writes under an actor number.
pub(super) fn actor(space: Space, number: u32) -> Vec<u8> {
    named(space, Tag::Actor, &number.to_be_bytes())
}

/// The addresses of a peer.
pub(super) fn address(space: Space, peer: &PeerId) -> Vec<u8> {
    named(space, Tag::Address, peer.as_bytes())
}

fn collection_prefix(space: Space, tag: Tag, collection: &CollectionName) -> Vec<u8> {
    let name = collection.as_str().as_bytes();
    let mut key = Vec::with_capacity(3 + name.len() + 40);
    // The name is at most 64 bytes long, see limits::COLLECTION_NAME_BYTES_MAX.
    key.extend_from_slice(&[space, tag as u8, name.len() as u8]);
    key.extend_from_slice(name);
    key
}

/// A document's record.
pub(super) fn document(space: Space, key: &DocumentKey) -> Vec<u8> {
    of_document(space, Tag::Document, key)
}

/// The mark of a document with places at which edits left several values.
pub(super) fn conflict(space: Space, key: &DocumentKey) -> Vec<u8> {
    of_document(space, Tag::Conflict, key)
}

/// The marks of a collection's documents with `id >= from`.
pub(super) fn conflicts(space: Space, collection: &CollectionName, from: &[u8]) -> KeyRange {
    let prefix = collection_prefix(space, Tag::Conflict, collection);
    // An id is UTF-8 and holds no 0xff byte.
    ([prefix.as_slice(), from].concat(), [prefix.as_slice(), &[0xff]].concat())
}

/// The mark of a damaged document.
pub(super) fn damaged(space: Space, key: &DocumentKey) -> Vec<u8> {
    of_document(space, Tag::Broken, key)
}

fn of_document(space: Space, tag: Tag, key: &DocumentKey) -> Vec<u8> {
    let mut bytes = collection_prefix(space, tag, &key.collection);
    bytes.extend_from_slice(key.id.as_str().as_bytes());
    bytes
}

/// What a key is of, for people.
pub(super) fn describe(key: &[u8]) -> String {
    let of = |what: &str| match feed_collection(key) {
        Some(collection) => format!("{what} of {collection}"),
        None => what.to_owned(),
    };
    match key.get(1) {
        Some(b'd') => document_key(key).map_or_else(|| "documents".into(), |document| document.to_string()),
        Some(b'e' | b'k' | b'o') => "index entries".into(),
        Some(b'f') => of("the feed"),
        Some(b'l') => "changes".into(),
        Some(b'q') => of("the marks of conflicts"),
        Some(b'r') => of("the summary"),
        Some(b's') => "snapshots".into(),
        Some(b'x') => "dead letters".into(),
        Some(_) | None => "the beginning".into(),
    }
}

/// The document number within a key of a log or of a snapshot.
pub(super) fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(2..10)?.try_into().ok()?))
}

/// The records of a collection's documents with `from <= id < to`, where `None` is the end.
pub(super) fn documents(space: Space, collection: &CollectionName, from: &[u8], to: Option<&[u8]>) -> KeyRange {
    let prefix = collection_prefix(space, Tag::Document, collection);
    let start = [prefix.as_slice(), from].concat();
    let end = match to {
        Some(to) => [prefix.as_slice(), to].concat(),
        // An id is UTF-8 and holds no 0xff byte.
        None => [prefix.as_slice(), &[0xff]].concat(),
    };
    (start, end)
}

/// Collection and id within a key made by [`document`] or [`damaged`].
pub(super) fn document_key(key: &[u8]) -> Option<DocumentKey> {
    let length = usize::from(*key.get(2)?);
    let collection = std::str::from_utf8(key.get(3..3 + length)?).ok()?.parse().ok()?;
    Some(DocumentKey::new(collection, document_id(key)?))
}

/// The id within a key made by [`document`].
pub(super) fn document_id(key: &[u8]) -> Option<DocumentId> {
    let length = usize::from(*key.get(2)?);
    std::str::from_utf8(key.get(3 + length..)?).ok()?.parse().ok()
}

/// A node of a collection's range summary.
pub(super) fn summary(space: Space, collection: &CollectionName, level: u8, boundary: &[u8]) -> Vec<u8> {
    let mut key = collection_prefix(space, Tag::Summary, collection);
    key.push(level);
    key.extend_from_slice(boundary);
    key
}

/// An entry of a collection's feed.
pub(super) fn feed(space: Space, collection: &CollectionName, position: u64) -> Vec<u8> {
    let mut key = collection_prefix(space, Tag::Feed, collection);
    key.extend_from_slice(&position.to_be_bytes());
    key
}

/// The position within a key made by [`feed`].
pub(super) fn feed_position(key: &[u8]) -> Option<u64> {
    let length = usize::from(*key.get(2)?);
    Some(u64::from_be_bytes(key.get(3 + length..)?.try_into().ok()?))
}

/// The collection within a key made by [`feed`].
pub(super) fn feed_collection(key: &[u8]) -> Option<CollectionName> {
    let length = usize::from(*key.get(2)?);
    std::str::from_utf8(key.get(3..3 + length)?).ok()?.parse().ok()
}

/// All nodes of a collection's range summary.
pub(super) fn summaries(space: Space, collection: &CollectionName) -> KeyRange {
    let start = collection_prefix(space, Tag::Summary, collection);
    let end = [start.as_slice(), &[0xff]].concat();
    (start, end)
}

/// The declaration of an index.
pub(super) fn index(space: Space, collection: &CollectionName, name: &IndexName) -> Vec<u8> {
    let mut key = collection_prefix(space, Tag::Index, collection);
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

/// Collection and name within a key made by [`index`].
pub(super) fn index_parts(key: &[u8]) -> Option<(CollectionName, IndexName)> {
    let length = usize::from(*key.get(2)?);
    let collection = std::str::from_utf8(key.get(3..3 + length)?).ok()?.parse().ok()?;
    Some((collection, std::str::from_utf8(key.get(3 + length..)?).ok()?.parse().ok()?))
}

/// The mark of a dropped index.
pub(super) fn index_dropped(space: Space, number: u32) -> Vec<u8> {
    named(space, Tag::IndexDropped, &number.to_be_bytes())
}

/// The mark of a key of a unique index that several documents have.
pub(super) fn index_conflict(space: Space, number: u32, key: &[u8]) -> Vec<u8> {
    [named(space, Tag::IndexConflict, &number.to_be_bytes()).as_slice(), key].concat()
}

/// All marks of [`index_conflict`].
pub(super) fn index_conflicts(space: Space, number: u32) -> KeyRange {
    let of = |number: u32| named(space, Tag::IndexConflict, &number.to_be_bytes());
    (of(number), of(number + 1))
}

/// Level and boundary within a key made by [`summary`].
pub(super) fn summary_parts(key: &[u8]) -> Option<(u8, &[u8])> {
    let length = usize::from(*key.get(2)?);
    let (level, boundary) = key.get(3 + length..)?.split_first()?;
    Some((*level, boundary))
}

/// All entries of a document's log.
pub(super) fn log_of(space: Space, document: u64) -> KeyRange {
    (numbered(space, Tag::Log, document), numbered(space, Tag::Log, document + 1))
}

/// The actor number within a key made by [`log`].
pub(super) fn log_actor(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(10..14)?.try_into().ok()?))
}

/// The sequence number within a key made by [`log`].
pub(super) fn log_sequence(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk()?))
}

/// An entry of the log, by its last change.
pub(super) fn log(space: Space, document: u64, actor: u32, sequence: u64) -> Vec<u8> {
    let mut key = numbered(space, Tag::Log, document);
    key.extend_from_slice(&actor.to_be_bytes());
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_does_not_see_the_documents_of_one_that_it_prefixes() {
        let key = |collection: &str, id: &str| {
            document(1, &DocumentKey::new(collection.parse().unwrap(), id.parse().unwrap()))
        };
        let (from, to) = documents(1, &"a".parse().unwrap(), b"", None);
        let inside = |key: Vec<u8>| from <= key && key < to;
        assert!(inside(key("a", "x")) && inside(key("a", "\u{10ffff}")));
        assert!(!inside(key("ab", "x")) && !inside(key("b", "x")));
    }
}
