//! Where a query goes on: behind the last document that it gave, by that document's place in the order.
//!
//! A cursor names a place, not a state: documents that change in between are found where they are then. A document
//! that moves behind the place comes again, and one that moves before it does not; all others come once. It also names
//! the query, so that it is not taken for a place in another one.

use data_encoding::BASE64URL_NOPAD;

use crate::base::CollectionName;
use crate::{Error, Invalid, InvalidKind, Result};

/// Bytes of a cursor's fingerprint of the query.
const QUERY: usize = 8;

/// Where a query goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    query: [u8; QUERY],
    /// The key of the last document in the order, its id included.
    pub(super) key: Vec<u8>,
    /// Bytes of the key that are the id's, at its end.
    id_bytes: u16,
}

/// What tells one query from another: its collection, filter and order.
pub(super) fn fingerprint(collection: &CollectionName, filter: &str, order: &str) -> [u8; QUERY] {
    let mut hasher = blake3::Hasher::new();
    for part in [collection.as_str(), filter, order] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let mut fingerprint = [0; QUERY];
    hasher.finalize_xof().fill(&mut fingerprint);
    fingerprint
}

impl Cursor {
    pub(super) fn new(query: [u8; QUERY], key: Vec<u8>, id_bytes: usize) -> Self {
        // An id has at most limits::DOCUMENT_ID_BYTES_MAX bytes.
        Self { query, key, id_bytes: u16::try_from(id_bytes).unwrap_or_default() }
    }

    /// The key without the id.
    pub(super) fn fields(&self) -> &[u8] {
        &self.key[..self.key.len().saturating_sub(self.id_bytes.into())]
    }

    /// Reads a cursor of a query.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is none, or that is of another query.
    pub(super) fn parse(text: &str, query: [u8; QUERY]) -> Result<Self> {
        let fault = |message: &str| {
            let (message, field) = (message.to_owned(), Some("cursor".to_owned()));
            Error::Invalid(Invalid { message, field, position: None, kind: InvalidKind::Meaning })
        };
        let wrong = "this is no cursor of a query; take next_cursor of the answer before, or leave it out to start";
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| fault(wrong))?;
        let (named, rest) = bytes.split_first_chunk().ok_or_else(|| fault(wrong))?;
        let (id_bytes, key) = rest.split_first_chunk().ok_or_else(|| fault(wrong))?;
        if *named != query {
            return Err(fault(
                "the cursor is of another query: collection, filter and sort must be those of the first page",
            ));
        }
        Ok(Self { query, key: key.to_vec(), id_bytes: u16::from_be_bytes(*id_bytes) })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&[&self.query, self.id_bytes.to_be_bytes().as_slice(), &self.key].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_one_query_only() {
        let query = |collection: &str, filter| fingerprint(&collection.parse().unwrap(), filter, "a");
        let cursor = Cursor::new(query("c", "{}"), vec![1, 2, 3], 2);
        assert_eq!(Cursor::parse(&cursor.to_string(), query("c", "{}")).unwrap(), cursor);
        assert_eq!(cursor.fields(), [1]);
        for other in [query("d", "{}"), query("c", "{\"a\":1}")] {
            let error = Cursor::parse(&cursor.to_string(), other).unwrap_err();
            assert!(error.to_string().contains("another query"), "{error}");
        }
        for text in ["", "AAAA", "%%", "\u{e9}"] {
            assert!(Cursor::parse(text, query("c", "{}")).is_err());
        }
    }
}
