//! Changes packed for the wire: documents and authors are named once, and the whole is compressed.
//!
//! Layout: raw length (varint), then zstd of: authors, documents, for each run of changes the two indexes and the
//! changes, and the signatures. What a change's own payload determines is not sent. Signatures do not compress, so
//! they stand together, apart from what does.

use bytes::Bytes;

use crate::base::{Decode, DecodeError, DocumentKey, Reader, Writer};
use crate::document::{Author, Run, Unchecked};
use crate::limits::CHANGES_RAW_BYTES_MAX;

/// zstd's level: 1 packs these frames to within 3 % of level 3, in half the time.
const LEVEL: i32 = 1;

/// Packs changes.
#[must_use]
pub fn pack(changes: &[Unchecked]) -> Vec<u8> {
    let raw = raw(changes);
    let packed = zstd::bulk::compress(&raw, LEVEL).expect("compression into memory does not fail");
    let mut writer = Writer::new();
    writer.varint(raw.len() as u64).fixed(&packed);
    writer.finish()
}

fn raw(changes: &[Unchecked]) -> Vec<u8> {
    let mut authors: Vec<Author> = changes.iter().map(|change| change.author).collect();
    authors.sort_unstable();
    authors.dedup();
    let mut documents: Vec<&DocumentKey> = changes.iter().map(|change| &change.document).collect();
    documents.sort_unstable();
    documents.dedup();
    let mut writer = Writer::new();
    writer.list(&authors, |w, author| _ = w.value(author));
    let mut collection = None;
    writer.list(&documents, |w, document| {
        // Sorted by collection, so that each collection's name appears once.
        if collection == Some(&document.collection) {
            w.u8(0);
        } else {
            w.u8(1).value(&document.collection);
            collection = Some(&document.collection);
        }
        w.value(&document.id);
    });
    writer.list(changes, |w, change| {
        let author = authors.binary_search(&change.author).expect("every author was listed above");
        let document = documents.binary_search(&&change.document).expect("every document was listed above");
        w.varint(author as u64).varint(document as u64).value(&change.run);
    });
    for change in changes {
        writer.fixed(&change.signature);
    }
    writer.finish()
}

/// Unpacks what [`pack`] made: at most `changes_max` changes, at most [`CHANGES_RAW_BYTES_MAX`] bytes raw.
///
/// # Errors
/// When the bytes are not a frame within these limits. Never allocates more than the limit.
pub fn unpack(packed: &[u8], changes_max: usize) -> Result<Vec<Unchecked>, DecodeError> {
    let mut reader = Reader::new(packed);
    let length = reader.varint()?;
    let (what, limit) = ("changes", CHANGES_RAW_BYTES_MAX);
    let capacity = usize::try_from(length).ok().filter(|length| *length <= limit);
    let capacity = capacity.ok_or(DecodeError::TooLong { what, length, limit })?;
    let raw = zstd::bulk::decompress(reader.rest(), capacity)
        .map_err(|error| DecodeError::Rule(format!("the frame does not decompress: {error}")))?;
    if raw.len() != capacity {
        return Err(DecodeError::Rule("the frame is not as long as it says".into()));
    }
    let raw = Bytes::from(raw);
    let mut reader = Reader::new(&raw);
    let changes = read(&raw, &mut reader, changes_max)?;
    reader.finish()?;
    Ok(changes)
}

fn read(raw: &Bytes, reader: &mut Reader<'_>, changes_max: usize) -> Result<Vec<Unchecked>, DecodeError> {
    let authors: Vec<Author> = reader.list("authors", changes_max, Author::decode)?;
    let mut collection = None;
    let documents = reader.list("documents", changes_max, |r| {
        match (r.u8()?, &collection) {
            (0, Some(_)) => {}
            (1, _) => collection = Some(r.value()?),
            (value, _) => return Err(DecodeError::Unknown { what: "collection mark", value: u64::from(value) }),
        }
        let collection = collection.clone().expect("the match above leaves a collection");
        Ok(DocumentKey::new(collection, r.value()?))
    })?;
    let too_many = || DecodeError::Rule(format!("the frame has more than {changes_max} changes"));
    let unknown = |what, index: usize| DecodeError::Unknown { what, value: index as u64 };
    let mut left = changes_max;
    let mut changes = reader.list("changes", changes_max, |r| {
        let (author, document): (usize, usize) = (r.int()?, r.int()?);
        let run = Run::read(r, |payload| raw.slice_ref(payload))?;
        left = left.checked_sub(run.payloads().len()).ok_or_else(too_many)?;
        Ok(Unchecked {
            author: *authors.get(author).ok_or_else(|| unknown("author", author))?,
            document: documents.get(document).ok_or_else(|| unknown("document", document))?.clone(),
            signature: [0; 64],
            run,
        })
    })?;
    for change in &mut changes {
        change.signature = reader.fixed()?;
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::{GrantId, Incarnation, PeerId};

    fn change() -> impl Strategy<Value = Unchecked> {
        (0u8..3, 0u8..3, 0u8..4, prop::array::uniform32(any::<u8>()), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(author, collection, id, signature, payload)| Unchecked {
                document: DocumentKey::new(
                    format!("c{collection}").parse().unwrap(),
                    format!("d{id}").parse().unwrap(),
                ),
                author: Author {
                    peer: PeerId([author; 32]),
                    incarnation: Incarnation([author; 8]),
                    grant: GrantId([author; 32]),
                },
                signature: [signature, signature].concat().try_into().unwrap(),
                run: Run::of(payload.into()),
            })
    }

    proptest! {
        #[test]
        fn changes_read_back(changes in prop::collection::vec(change(), 0..50)) {
            prop_assert_eq!(unpack(&pack(&changes), 100).unwrap(), changes);
        }

        #[test]
        fn garbage_is_refused(garbage: Vec<u8>) {
            _ = unpack(&garbage, 100);
            let mut writer = Writer::new();
            writer.varint(garbage.len() as u64).fixed(&zstd::bulk::compress(&garbage, 1).unwrap());
            _ = unpack(&writer.finish(), 100);
        }
    }

    #[test]
    fn a_frame_that_inflates_beyond_the_limit_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; CHANGES_RAW_BYTES_MAX * 4], 1).unwrap();
        for claimed in [16, CHANGES_RAW_BYTES_MAX, CHANGES_RAW_BYTES_MAX * 4] {
            let mut writer = Writer::new();
            writer.varint(claimed as u64).fixed(&bomb);
            assert!(unpack(&writer.finish(), 100).is_err());
        }
    }
}
