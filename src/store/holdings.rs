//! The collections as the writer holds them, and the directory, which sums all of them up.
//!
//! The directory is a range summary as each collection has one: its items are the collections that hold documents, under
//! their names, and the sum of each is a hash of its name and its total. So peers compare any number of collections as
//! they compare documents, and a write costs the directory what it costs the summary. It is kept in memory alone, and
//! made anew at a start.
//!
//! A collection takes about 1.3 KB of memory in all (the bench `w8` measures it), whatever it holds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;

use super::Store;
use super::record::Collection;
use super::summary::{Sum, Summary, Total};
use crate::base::CollectionName;
use crate::limits::COLLECTIONS_MAX;
use crate::{Error, Result};

/// A collection.
#[derive(Debug, Default)]
pub(super) struct Holding {
    pub(super) counts: Collection,
    pub(super) summary: Summary,
    /// What the directory has of it.
    entered: Option<Sum>,
    /// See [`Holdings::version`].
    version: u64,
}

impl Holding {
    pub(super) fn new(counts: Collection, summary: Summary) -> Self {
        Self { counts, summary, entered: None, version: 0 }
    }

    /// The version of the holdings in which its total last changed.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Whether it takes one of the places for collections: not when all of its documents are deleted.
    fn takes_a_place(&self) -> bool {
        self.counts.documents > 0 || self.counts.total.count == 0
    }
}

/// All collections, by name.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    by_name: BTreeMap<CollectionName, Holding>,
    directory: Summary,
    places_taken: usize,
    documents: u64,
    /// Documents that are not deleted, and the bytes of their views.
    alive: (u64, u64),
    version: u64,
}

impl Holdings {
    pub(super) fn get(&self, name: &CollectionName) -> Option<&Holding> {
        self.by_name.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&CollectionName, &Holding)> {
        self.by_name.iter()
    }

    pub(super) fn names(&self) -> Vec<CollectionName> {
        self.by_name.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Collections that take a place.
    pub(super) fn places_taken(&self) -> usize {
        self.places_taken
    }

    /// Whether a collection takes a place.
    pub(super) fn takes_a_place(&self, name: &CollectionName) -> bool {
        self.get(name).is_some_and(Holding::takes_a_place)
    }

    /// Documents in all collections, deleted ones included.
    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    /// Documents in all collections that are not deleted, and the bytes of their views.
    pub(super) fn alive(&self) -> (u64, u64) {
        self.alive
    }

    /// How often a total has changed.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Forgets all of them. The version only grows.
    pub(super) fn clear(&mut self) {
        *self = Self { version: self.version + 1, ..Self::default() };
    }

    /// Takes a collection out, to be changed and [put](Self::put) back; an empty one when it is not there. The directory
    /// has it as it was until then.
    pub(super) fn take(&mut self, name: &CollectionName) -> Holding {
        let Some(holding) = self.by_name.remove(name) else { return Holding::default() };
        self.places_taken -= usize::from(holding.takes_a_place());
        self.documents = self.documents.wrapping_sub(holding.counts.total.count);
        let (documents, bytes) = self.alive;
        self.alive = (documents.wrapping_sub(holding.counts.documents), bytes.wrapping_sub(holding.counts.bytes));
        holding
    }

    /// Puts a new collection in, or one back that was taken out.
    pub(super) fn put(&mut self, name: &CollectionName, mut holding: Holding) {
        let total = holding.counts.total;
        let sum = (total.count > 0).then(|| Sum::of_collection(name, total));
        let before = std::mem::replace(&mut holding.entered, sum);
        if before != sum {
            self.version += 1;
            holding.version = self.version;
        }
        self.places_taken += usize::from(holding.takes_a_place());
        self.documents = self.documents.wrapping_add(total.count);
        let (documents, bytes) = self.alive;
        self.alive = (documents.wrapping_add(holding.counts.documents), bytes.wrapping_add(holding.counts.bytes));
        match (before, sum) {
            (before, Some(sum)) if before != Some(sum) => self.enter(name, before, sum),
            (_, Some(_)) | (None, None) => {}
            // Nothing is ever taken out of a summary. A collection ends only when damage takes its last document.
            (Some(_), None) => self.enter_all(),
        }
        self.by_name.insert(name.clone(), holding);
    }

    /// Gives a collection other contents.
    pub(super) fn replace(&mut self, name: &CollectionName, counts: Collection, summary: Summary) {
        let before = self.take(name);
        self.put(name, Holding { counts, summary, ..before });
    }

    fn enter(&mut self, name: &CollectionName, before: Option<Sum>, sum: Sum) {
        let by_name = &self.by_name;
        let items = |from: &[u8], to: Option<&[u8]>| Ok::<_, Infallible>(sum_of(by_name, from, to));
        let Ok(_) = self.directory.update(name.as_str().as_bytes(), before, sum, items);
    }

    fn enter_all(&mut self) {
        self.directory = Summary::default();
        for (name, holding) in &self.by_name {
            // Names ascend, so nothing that was entered lies behind one that is new.
            let behind = |_: &[u8], _: Option<&[u8]>| Ok::<_, Infallible>(Total::default());
            if let Some(sum) = holding.entered {
                let Ok(_) = self.directory.update(name.as_str().as_bytes(), None, sum, behind);
            }
        }
    }

    /// The total of the directory for the names with `from <= name < to`.
    pub(super) fn total(&self, from: Option<&CollectionName>, to: Option<&CollectionName>) -> Total {
        let items = |from: &[u8], to: Option<&[u8]>| Ok::<_, Infallible>(sum_of(&self.by_name, from, to));
        let Ok(total) = self.directory.range(start(from), to.map(bytes), &items);
        total
    }

    /// Names strictly inside a range that cut it into at most `parts_max` + 1 parts of about equal size; empty when the
    /// directory has no boundary there.
    pub(super) fn cuts(
        &self,
        from: Option<&CollectionName>,
        to: Option<&CollectionName>,
        parts_max: usize,
    ) -> Vec<CollectionName> {
        let cuts = self.directory.cuts(start(from), to.map(bytes), parts_max);
        cuts.iter().filter_map(|cut| std::str::from_utf8(cut).ok()?.parse().ok()).collect()
    }

    /// The collections that hold documents with `from <= name < to`.
    pub(super) fn range<'a>(
        &'a self,
        from: Option<&'a CollectionName>,
        to: Option<&'a CollectionName>,
    ) -> impl Iterator<Item = (&'a CollectionName, Total)> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let ahead = self.by_name.range::<CollectionName, _>((from, Bound::Unbounded));
        let within = ahead.take_while(move |(name, _)| to.is_none_or(|to| *name < to));
        within.filter(|(_, holding)| holding.entered.is_some()).map(|(name, holding)| (name, holding.counts.total))
    }
}

impl Store {
    /// The collections with the totals of their summaries, in the order of names.
    pub fn totals(&self) -> impl Iterator<Item = (&CollectionName, Total)> {
        self.holdings.iter().map(|(name, holding)| (name, holding.counts.total))
    }

    /// Documents of one collection that are not deleted.
    #[must_use]
    pub fn alive(&self, collection: &CollectionName) -> u64 {
        self.holdings.get(collection).map_or(0, |holding| holding.counts.documents)
    }

    /// Documents in all collections that are not deleted.
    #[must_use]
    pub fn all_alive(&self) -> u64 {
        self.holdings.alive().0
    }

    /// The total of one collection; zero when it is not there.
    #[must_use]
    pub fn total(&self, collection: &CollectionName) -> Total {
        self.holdings.get(collection).map(|holding| holding.counts.total).unwrap_or_default()
    }

    /// The collections that hold documents with `from <= name < to`, with their totals, in the order of names.
    pub fn totals_in<'a>(
        &'a self,
        from: Option<&'a CollectionName>,
        to: Option<&'a CollectionName>,
    ) -> impl Iterator<Item = (&'a CollectionName, Total)> {
        self.holdings.range(from, to)
    }

    /// What the directory of collections has for the names with `from <= name < to`.
    #[must_use]
    pub fn directory(&self, from: Option<&CollectionName>, to: Option<&CollectionName>) -> Total {
        self.holdings.total(from, to)
    }

    /// Names strictly inside a range that cut it into at most `parts_max` + 1 parts of about equal size; empty when the
    /// range is too small to cut.
    #[must_use]
    pub fn cut_names(
        &self,
        from: Option<&CollectionName>,
        to: Option<&CollectionName>,
        parts_max: usize,
    ) -> Vec<CollectionName> {
        self.holdings.cuts(from, to, parts_max)
    }

    /// Collections, those whose documents are all deleted included.
    #[must_use]
    pub fn collections(&self) -> usize {
        self.holdings.len()
    }

    /// Documents in all collections, deleted ones included.
    #[must_use]
    pub fn documents(&self) -> u64 {
        self.holdings.documents()
    }

    /// Bytes of the JSON texts of those documents.
    #[must_use]
    pub fn all_bytes(&self) -> u64 {
        self.holdings.alive().1
    }

    /// A number that grows with each change of a collection's total, since the start.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.holdings.version()
    }

    /// The version in which a collection's total last changed; 0 when it is not there.
    #[must_use]
    pub fn version_of(&self, collection: &CollectionName) -> u64 {
        self.holdings.get(collection).map_or(0, Holding::version)
    }

    /// Checks that there is room for a collection that a program is about to write to. What other peers have taken is
    /// never refused: peers would stay apart for good. A collection whose documents are all deleted takes no place.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are as many as programs may make.
    pub fn check_room(&self, name: &CollectionName) -> Result<()> {
        if self.holdings.places_taken() < COLLECTIONS_MAX || self.holdings.takes_a_place(name) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "collection {name}: this mesh has {COLLECTIONS_MAX} collections or more, and none can be added; drop one that \
             is not needed, or put documents of several kinds into one"
        )))
    }
}

fn bytes(name: &CollectionName) -> &[u8] {
    name.as_str().as_bytes()
}

fn start(from: Option<&CollectionName>) -> &[u8] {
    from.map_or(&[], bytes)
}

/// Adds up what the directory has of the names in a range, one by one.
fn sum_of(by_name: &BTreeMap<CollectionName, Holding>, from: &[u8], to: Option<&[u8]>) -> Total {
    // The ends of ranges are names: those of boundaries, and those that peers name.
    let name = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|name| name.parse::<CollectionName>().ok());
    let (from, to) = (name(from).map_or(Bound::Unbounded, Bound::Included), to.and_then(name));
    let ahead = by_name.range::<CollectionName, _>((from, Bound::Unbounded));
    let within = ahead.take_while(|(name, _)| to.as_ref().is_none_or(|to| *name < to));
    within
        .filter_map(|(_, holding)| holding.entered)
        .fold(Total::default(), |total, sum| total.plus(Total::of_item(sum)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(n: u16) -> CollectionName {
        format!("c{n:04}").parse().unwrap()
    }

    proptest! {
        #[test]
        fn the_directory_is_that_of_the_collections(
            edits in prop::collection::vec((0u16..400, 0u64..4, 0u64..3), 1..400),
            ranges in prop::collection::vec((0u16..400, 0u16..400), 1..10),
        ) {
            let mut holdings = Holdings::default();
            for (n, count, documents) in edits {
                let mut holding = holdings.take(&name(n));
                holding.counts.documents = documents.min(count);
                holding.counts.total = Total { count, ..Total::of_item(Sum::of_item("x", &[])) };
                holdings.put(&name(n), holding);
            }
            let taken = holdings.iter().filter(|(_, holding)| holding.takes_a_place()).count();
            prop_assert_eq!(holdings.places_taken(), taken);
            let documents: u64 = holdings.iter().map(|(_, holding)| holding.counts.total.count).sum();
            prop_assert_eq!(holdings.documents(), documents);
            for (from, to) in ranges {
                let (from, to) = (name(from.min(to)), name(from.max(to)));
                for to in [Some(&to), None] {
                    let naive = holdings.range(Some(&from), to).fold(Total::default(), |sum, (name, total)| {
                        sum.plus(Total::of_item(Sum::of_collection(name, total)))
                    });
                    prop_assert_eq!(holdings.total(Some(&from), to), naive);
                }
            }
            let all = holdings.range(None, None).count() as u64;
            prop_assert_eq!(holdings.total(None, None).count, all);
        }
    }
}
