//! The answers of reconciliation, as functions of a store. They keep no state between messages: what a
//! peer has changed since the last one is simply part of the next answer.

use std::collections::BTreeSet;

use super::message::{Digest, Items, Part, Ranges, Unknown};
use super::outbox::Job;
use crate::Result;
use crate::base::{CollectionName, DocumentId, DocumentKey};
use crate::limits::{DOCUMENT_ACTORS_MAX, ITEMS_MAX, RANGE_PARTS_MAX};
use crate::store::{Record, Store, Sum, Total, Vector};

/// Parts into which a differing range is cut at most. More parts mean fewer rounds and larger messages.
const CUTS_MAX: usize = 48;

/// Documents up to which a range is listed rather than cut.
const LIST_MAX: usize = 24;

/// The end of a range and what is said of it.
type Described = (Option<Vec<u8>>, Part);

/// Documents up to which a range that the other side has listed is resolved at once: their vectors fit a frame.
const RESOLVE_MAX: usize = 1_024;

/// What a message led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Ranges to send back.
    pub ranges: Vec<Ranges>,
    /// Vectors to send back.
    pub items: Vec<Items>,
    /// What the other side lacks.
    pub jobs: Vec<Job>,
    /// Documents of which the other side has something that is not here.
    pub to_receive: u64,
}

/// The first ranges of a collection that differs.
///
/// # Errors
/// When the store cannot be read.
pub fn open(store: &Store, salt: u64, collection: &CollectionName) -> Result<Ranges> {
    let mut parts = Vec::new();
    describe(store, salt, collection, &[], None, &mut parts)?;
    Ok(Ranges { salt, collection: collection.clone(), from: Vec::new(), parts })
}

/// Describes a range that differs: by the digests of its documents when it is small, by the fingerprints
/// of its parts otherwise.
fn describe(
    store: &Store,
    salt: u64,
    collection: &CollectionName,
    from: &[u8],
    to: Option<&[u8]>,
    parts: &mut Vec<Described>,
) -> Result<()> {
    let (few, stopped) = store.items(collection, from, to, LIST_MAX)?;
    if stopped.is_none() {
        let digests = few.iter().map(|(id, record)| digest(salt, id, record)).collect();
        parts.push((to.map(<[u8]>::to_vec), Part::Digests(digests)));
        return Ok(());
    }
    let mut cuts: Vec<Box<[u8]>> = store.cuts(collection, from, to, CUTS_MAX);
    if cuts.is_empty() {
        // No boundary lies inside, by chance or because the ids were chosen so: cut by counting.
        let (some, _) = store.items(collection, from, to, LIST_MAX * CUTS_MAX)?;
        cuts.extend(some.iter().skip(LIST_MAX).step_by(LIST_MAX).map(|(id, _)| id.as_str().as_bytes().into()));
    }
    let mut start = from.to_vec();
    let ends = cuts.into_iter().map(|cut| Some(cut.into_vec())).chain([to.map(<[u8]>::to_vec)]);
    for end in ends {
        let total = store.range(collection, &start, end.as_deref())?;
        parts.push((end.clone(), Part::Fingerprint(total.fingerprint(salt))));
        start = end.unwrap_or_default();
    }
    Ok(())
}

fn digest(salt: u64, id: &DocumentId, record: &Record) -> Digest {
    Total::of_item(Sum::of_item(id.as_str(), &record.heads)).fingerprint(salt)
}

/// Answers ranges: equal ones are done, differing ones are cut further, listed ones are resolved.
///
/// # Errors
/// When the store cannot be read.
pub fn answer_ranges(store: &Store, theirs: &Ranges) -> Result<Answer> {
    let mut answer = Answer::default();
    let mut parts = Vec::new();
    let mut from = theirs.from.clone();
    for (to, part) in &theirs.parts {
        match part {
            Part::Skip => skip(&mut parts, to.as_deref()),
            Part::Fingerprint(fingerprint) => {
                let ours = store.range(&theirs.collection, &from, to.as_deref())?;
                if ours.fingerprint(theirs.salt) == *fingerprint {
                    skip(&mut parts, to.as_deref());
                } else {
                    describe(store, theirs.salt, &theirs.collection, &from, to.as_deref(), &mut parts)?;
                }
            }
            Part::Digests(digests) => {
                let described = resolve(store, theirs, &from, to.as_deref(), digests, &mut answer)?;
                match described {
                    Some(described) => parts.extend(described),
                    None => skip(&mut parts, to.as_deref()),
                }
            }
        }
        from = to.clone().unwrap_or_default();
    }
    if parts.iter().any(|(_, part)| *part != Part::Skip) {
        answer.ranges = split(theirs, parts);
    }
    Ok(answer)
}

/// Skips a range, as one with the ranges before it when those are skipped as well.
fn skip(parts: &mut Vec<Described>, to: Option<&[u8]>) {
    match parts.last_mut() {
        Some((end, Part::Skip)) => *end = to.map(<[u8]>::to_vec),
        Some(_) | None => parts.push((to.map(<[u8]>::to_vec), Part::Skip)),
    }
}

/// Spreads parts over messages of bounded size.
fn split(theirs: &Ranges, parts: Vec<Described>) -> Vec<Ranges> {
    let mut from = theirs.from.clone();
    let mut messages = Vec::new();
    for chunk in parts.chunks(RANGE_PARTS_MAX) {
        let end = chunk.last().and_then(|(to, _)| to.clone());
        let (salt, collection) = (theirs.salt, theirs.collection.clone());
        messages.push(Ranges { salt, collection, from: from.clone(), parts: chunk.to_vec() });
        from = end.unwrap_or_default();
    }
    messages
}

/// Resolves a range of which the other side listed all documents. When too many are here to list them as
/// well, the range is described instead.
fn resolve(
    store: &Store,
    theirs: &Ranges,
    from: &[u8],
    to: Option<&[u8]>,
    digests: &[Digest],
    answer: &mut Answer,
) -> Result<Option<Vec<Described>>> {
    let collection = &theirs.collection;
    if digests.is_empty() {
        // They have nothing there: everything here is news to them.
        answer.jobs.push(Job::range(collection.clone(), from, to));
        return Ok(None);
    }
    let (ours, stopped) = store.items(collection, from, to, RESOLVE_MAX)?;
    if stopped.is_some() {
        let mut parts = Vec::new();
        describe(store, theirs.salt, collection, from, to, &mut parts)?;
        return Ok(Some(parts));
    }
    let their_digests: BTreeSet<Digest> = digests.iter().copied().collect();
    let mut our_digests = BTreeSet::new();
    let mut differing = Vec::new();
    for (id, record) in &ours {
        let digest = digest(theirs.salt, id, record);
        our_digests.insert(digest);
        if !their_digests.contains(&digest) {
            differing.push((id, record));
        }
    }
    let unknown: Vec<Digest> = their_digests.difference(&our_digests).copied().collect();
    if unknown.is_empty() {
        // Whatever they list is here in the same state, so what is not listed they lack altogether.
        let job =
            |(id, _): (&DocumentId, _)| Job::document(DocumentKey::new(collection.clone(), id.clone()), Vec::new());
        answer.jobs.extend(differing.into_iter().map(job));
        return Ok(None);
    }
    answer.to_receive += unknown.len() as u64;
    for (id, record) in differing {
        let vector = bounded(store.vector(record));
        answer.items_with_room(theirs, vector.len()).items.push((id.clone(), vector));
    }
    let unknown = Unknown { from: from.to_vec(), to: to.map(<[u8]>::to_vec), digests: unknown };
    answer.items_with_room(theirs, 0).unknown.push(unknown);
    Ok(None)
}

/// What is said of a vector: of one with very many actors the beginning. The other side then sends what it has of the
/// others, and asks for the document as a whole when it cannot tell the difference.
fn bounded(mut vector: Vector) -> Vector {
    vector.truncate(DOCUMENT_ACTORS_MAX);
    vector
}

impl Answer {
    /// The message to which one more vector with so many actors goes. Ranges share messages, which are bounded.
    fn items_with_room(&mut self, theirs: &Ranges, actors: usize) -> &mut Items {
        if !self.items.last().is_some_and(|items| has_room(items, actors)) {
            let (salt, collection) = (theirs.salt, theirs.collection.clone());
            self.items.push(Items { salt, collection, items: Vec::new(), reply: true, unknown: Vec::new() });
        }
        self.items.last_mut().expect("there is one by now")
    }
}

/// Whether a vector with so many actors fits a message.
fn has_room(items: &Items, actors: usize) -> bool {
    let digests: usize = items.unknown.iter().map(|unknown| unknown.digests.len()).sum();
    let named: usize = items.items.iter().map(|(_, vector)| vector.len()).sum();
    items.items.len() + digests <= ITEMS_MAX / 4
        && items.unknown.len() < RANGE_PARTS_MAX
        && (items.items.is_empty() || named + actors <= DOCUMENT_ACTORS_MAX)
}

/// The salt of what is asked for outside of a comparison.
pub const UNASKED: u64 = 0;

/// Documents that are asked for as a whole in answer to one message.
const WHOLES_MAX: usize = 16;

/// Answers vectors: what the other side lacks is to be sent, and where it has more it learns what is here. When the last
/// comparisons were `fruitless` vectors may not tell the difference, because an actor used a sequence number twice: then
/// some of the documents are asked for as a whole.
///
/// # Errors
/// When the store cannot be read.
pub fn answer_items(store: &mut Store, theirs: &Items, fruitless: bool) -> Result<Answer> {
    let mut answer = Answer::default();
    let mut wanted = Vec::new();
    let mut named = BTreeSet::new();
    let mut wholes = 0;
    for (id, vector) in &theirs.items {
        let key = DocumentKey::new(theirs.collection.clone(), id.clone());
        named.insert(id);
        let record = match store.record(&key) {
            Ok(record) => record,
            Err(crate::Error::Corrupt(_)) => None,
            Err(error) => return Err(error),
        };
        if let Some(record) = &record
            && store.missing(&key, record, vector).is_some()
        {
            // Of their vector only what says something about our log is kept until it is sent.
            let ours = store.vector(record);
            let known = |(actor, _): &&(_, u64)| ours.binary_search_by_key(actor, |(actor, _)| *actor).is_ok();
            answer.jobs.push(Job::document(key.clone(), vector.iter().filter(known).copied().collect()));
        }
        if fruitless && record.is_some() && wholes < WHOLES_MAX {
            wholes += 1;
            wanted.push((id.clone(), Vec::new()));
        } else if store.lacks(record.as_ref(), vector) {
            answer.to_receive += 1;
            wanted.push((id.clone(), record.map(|record| store.vector(&record)).unwrap_or_default()));
        }
    }
    let mut left = ITEMS_MAX;
    for Unknown { from, to, digests } in &theirs.unknown {
        let unknown: BTreeSet<&Digest> = digests.iter().collect();
        let (ours, _) = store.items(&theirs.collection, from, to.as_deref(), left)?;
        left -= ours.len();
        for (id, record) in &ours {
            if !named.contains(id) && unknown.contains(&digest(theirs.salt, id, record)) {
                let key = DocumentKey::new(theirs.collection.clone(), id.clone());
                answer.jobs.push(Job::document(key, Vec::new()));
            }
        }
    }
    if theirs.reply && !wanted.is_empty() {
        answer.items.extend(want(theirs.salt, &theirs.collection, wanted));
    }
    Ok(answer)
}

/// The messages that ask for what the other side has of some documents beyond the given vectors, in a comparison of this
/// salt or ([`UNASKED`]) outside of one.
#[must_use]
pub fn want(salt: u64, collection: &CollectionName, items: Vec<(DocumentId, Vector)>) -> Vec<Items> {
    let mut messages: Vec<Items> = Vec::new();
    for (id, vector) in items {
        let vector = bounded(vector);
        if !messages.last().is_some_and(|items| has_room(items, vector.len())) {
            let (collection, items, unknown) = (collection.clone(), Vec::new(), Vec::new());
            messages.push(Items { salt, collection, items, reply: false, unknown });
        }
        messages.last_mut().expect("there is one by now").items.push((id, vector));
    }
    messages
}
