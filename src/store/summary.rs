//! Range summaries: the fingerprint of any range of a collection's documents, in O(log n).
//!
//! Range-based set reconciliation (Aljoscha Meyer, arXiv 2212.13567) compares sets by fingerprints of
//! ranges. Here an item is a document, its key is the document's id, and its *sum* is a 256-bit hash of
//! the id and the document's heads. The sum of a range is the sum of its items modulo 2^256, which is
//! associative, has inverses, and is compared only after hashing it again with a salt.
//!
//! The structure is a skip list whose shape is decided by the ids alone: an id is a *boundary* of level
//! L when its hash ends in at least L zero nibbles. A node of level L covers the ids from its boundary to
//! the next boundary of that level, 16^L documents on average, and holds their count and sum. Two peers
//! with the same ids have the same nodes, so the ranges that they compare line up. A change of one
//! document touches one node a level.
//!
//! Nodes of level 1 and up are kept in memory (about 7 bytes a document) and persisted in the batch of
//! the change that touches them; single items are read from the store. Documents are never removed from
//! the set: a deleted one stays as its tombstone.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::base::{CollectionName, Decode, DecodeError, Encode, Reader, Writer};

/// Levels of boundaries at most; 16^12 documents are beyond any disk.
const LEVELS_MAX: u8 = 12;

/// The sum of a set of items: a 256-bit integer modulo 2^256, least significant limb first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum([u64; 4]);

impl Sum {
    /// The sum of one item: a hash of the document's id and its heads, which must be sorted.
    #[must_use]
    pub fn of_item(id: &str, heads: &[crate::base::ChangeHash]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("aerolithsdb 2026 document state");
        hasher.update(&(id.len() as u64).to_le_bytes()).update(id.as_bytes());
        for head in heads {
            hasher.update(head.as_bytes());
        }
        Self::from_le_bytes(hasher.finalize().as_bytes())
    }

    /// The sum of one collection in the directory: a hash of its name and of what it holds.
    #[must_use]
    pub(super) fn of_collection(name: &CollectionName, total: Total) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("aerolithsdb 2026 collection state");
        let name = name.as_str().as_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        hasher.update(&total.count.to_le_bytes()).update(&total.sum.to_le_bytes());
        Self::from_le_bytes(hasher.finalize().as_bytes())
    }

    fn from_le_bytes(bytes: &[u8; 32]) -> Self {
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*chunk);
        }
        Self(limbs)
    }

    fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *chunk = limb.to_le_bytes();
        }
        bytes
    }

    fn plus(self, other: Self) -> Self {
        let mut carry = false;
        let mut sum = [0; 4];
        for (i, limb) in sum.iter_mut().enumerate() {
            let (partial, first) = self.0[i].overflowing_add(other.0[i]);
            let (total, second) = partial.overflowing_add(u64::from(carry));
            *limb = total;
            carry = first || second;
        }
        Self(sum)
    }

    fn minus(self, other: Self) -> Self {
        // Two's complement: a - b = a + !b + 1.
        let inverted = Self(other.0.map(|limb| !limb));
        self.plus(inverted).plus(Self([1, 0, 0, 0]))
    }
}

/// Count and sum of the items in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// Number of documents, deleted ones included.
    pub count: u64,
    /// Sum of their items.
    pub sum: Sum,
}

impl Total {
    /// The total of one item.
    #[must_use]
    pub fn of_item(sum: Sum) -> Self {
        Self { count: 1, sum }
    }

    /// Both ranges together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { count: self.count.wrapping_add(other.count), sum: self.sum.plus(other.sum) }
    }

    /// Counts wrap like sums: between damage on the disk and the recount that follows its discovery a part
    /// may hold more than the whole, and what is taken away must come back when it is added again.
    fn minus(self, other: Self) -> Self {
        Self { count: self.count.wrapping_sub(other.count), sum: self.sum.minus(other.sum) }
    }

    /// What is sent and compared: a hash of the total under a salt of the comparison, so that a collision
    /// of the shortened hash, by chance or by design, does not last longer than one comparison.
    #[must_use]
    pub fn fingerprint<const N: usize>(&self, salt: u64) -> [u8; N] {
        let mut hasher = blake3::Hasher::new_derive_key("aerolithsdb 2026 range fingerprint");
        hasher.update(&salt.to_le_bytes()).update(&self.count.to_le_bytes()).update(&self.sum.to_le_bytes());
        let mut short = [0; N];
        hasher.finalize_xof().fill(&mut short);
        short
    }
}

impl Encode for Total {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.count).fixed(&self.sum.to_le_bytes());
    }
}

impl Decode for Total {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { count: reader.varint()?, sum: Sum::from_le_bytes(&reader.fixed()?) })
    }
}

/// A node that changed and must be persisted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) level: u8,
    pub(super) boundary: Box<[u8]>,
    pub(super) total: Total,
}

type Level = BTreeMap<Box<[u8]>, Total>;

/// The range summary of one collection.
#[derive(Debug, Default)]
pub struct Summary {
    /// `levels[i]` holds the nodes of level `i + 1`; each starts with a node at the empty boundary.
    levels: Vec<Level>,
    total: Total,
}

impl Summary {
    /// Puts a persisted node back; the caller sets the total afterwards.
    pub(super) fn restore(&mut self, level: u8, boundary: &[u8], total: Total) {
        let index = usize::from(level.clamp(1, LEVELS_MAX)) - 1;
        if self.levels.len() <= index {
            self.levels.resize_with(index + 1, Level::new);
        }
        self.levels[index].insert(boundary.into(), total);
    }

    /// Sets the total of the whole collection after restoring its nodes.
    pub(super) fn restore_total(&mut self, total: Total) {
        self.total = total;
    }

    /// Count and sum of everything.
    #[must_use]
    pub fn total(&self) -> Total {
        self.total
    }

    /// Takes note that the item at `id` went from `old` (`None`: it is new) to `new`, and returns the
    /// nodes that must be persisted. `items` gives the total of the single items in a range as they are
    /// in the store, where the change is not yet.
    pub(super) fn update<E>(
        &mut self,
        id: &[u8],
        old: Option<Sum>,
        new: Sum,
        items: impl Fn(&[u8], Option<&[u8]>) -> Result<Total, E>,
    ) -> Result<Vec<Touched>, E> {
        let before = old.map(Total::of_item).unwrap_or_default();
        let after = Total::of_item(new);
        let height = if old.is_none() { boundary_level(id) } else { 0 };
        let mut touched = Vec::with_capacity(self.levels.len().max(usize::from(height)));
        // A new boundary needs the totals of the halves it makes; they come from the level below, which
        // already counts this change, or from the store and this change.
        let mut upper_half = Total::default();
        if height > 0 {
            let end = self.next_boundary(1, id);
            upper_half = items(id, end.as_deref())?.plus(after);
        }
        while self.levels.len() < usize::from(height) {
            self.levels.push(Level::from([(Box::default(), self.total)]));
        }
        for index in 0..self.levels.len() {
            let level = index as u8 + 1;
            if level > 1 && level <= height {
                let end = self.next_boundary(level, id);
                upper_half = sum_nodes(&self.levels[index - 1], id, end.as_deref());
            }
            let nodes = &mut self.levels[index];
            let (start, node) = nodes
                .range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(id)))
                .next_back()
                .expect("every level starts with a node at the empty boundary");
            *node = node.plus(after).minus(before);
            if level <= height {
                *node = node.minus(upper_half);
            }
            touched.push(Touched { level, boundary: start.clone(), total: *node });
            if level <= height {
                nodes.insert(id.into(), upper_half);
                touched.push(Touched { level, boundary: id.into(), total: upper_half });
            }
        }
        self.total = self.total.plus(after).minus(before);
        Ok(touched)
    }

    /// Every node with its level and boundary.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (u8, &[u8], Total)> {
        self.levels.iter().enumerate().flat_map(|(index, nodes)| {
            nodes.iter().map(move |(boundary, total)| (index as u8 + 1, &**boundary, *total))
        })
    }

    /// The total of the items with `from <= id < to`.
    ///
    /// # Errors
    /// What `items` returns, which reads single items at the range's edges.
    pub(super) fn range<E>(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        items: &impl Fn(&[u8], Option<&[u8]>) -> Result<Total, E>,
    ) -> Result<Total, E> {
        if from.is_empty() && to.is_none() {
            return Ok(self.total);
        }
        self.fold(self.levels.len(), from, to, items)
    }

    fn fold<E>(
        &self,
        level: usize,
        from: &[u8],
        to: Option<&[u8]>,
        items: &impl Fn(&[u8], Option<&[u8]>) -> Result<Total, E>,
    ) -> Result<Total, E> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Total::default());
        }
        let Some(index) = level.checked_sub(1) else { return items(from, to) };
        let nodes = &self.levels[index];
        let upper = to.map_or(Bound::Unbounded, Bound::Included);
        let mut inside = nodes.range::<[u8], _>((Bound::Included(from), upper));
        let Some((first, first_total)) = inside.next() else { return self.fold(level - 1, from, to, items) };
        // The last node inside reaches beyond the range unless the range is unbounded.
        let mut total = Total::default();
        let mut last = (first, first_total);
        for next in inside {
            total = total.plus(*last.1);
            last = next;
        }
        let left = self.fold(level - 1, from, Some(first), items)?;
        let right = match to {
            None => *last.1,
            Some(to) => self.fold(level - 1, last.0, Some(to), items)?,
        };
        Ok(left.plus(total).plus(right))
    }

    /// Boundaries strictly inside a range that cut it into parts: those of the lowest level that has at
    /// most `parts_max` of them; empty when no boundary lies inside.
    #[must_use]
    pub(super) fn cuts(&self, from: &[u8], to: Option<&[u8]>, parts_max: usize) -> Vec<Box<[u8]>> {
        let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
        for nodes in &self.levels {
            let inside = || nodes.range::<[u8], _>((Bound::Excluded(from), upper));
            let count = inside().take(parts_max + 1).count();
            if count <= parts_max {
                return inside().map(|(boundary, _)| boundary.clone()).collect();
            }
        }
        // More boundaries at the highest level than parts: thin them out.
        let Some(nodes) = self.levels.last() else { return Vec::new() };
        let inside = || nodes.range::<[u8], _>((Bound::Excluded(from), upper));
        let step = inside().count().div_ceil(parts_max).max(1);
        inside().step_by(step).map(|(boundary, _)| boundary.clone()).collect()
    }

    fn next_boundary(&self, level: u8, after: &[u8]) -> Option<Box<[u8]>> {
        let nodes = self.levels.get(usize::from(level) - 1)?;
        nodes.range::<[u8], _>((Bound::Excluded(after), Bound::Unbounded)).next().map(|(boundary, _)| boundary.clone())
    }
}

fn sum_nodes(nodes: &Level, from: &[u8], to: Option<&[u8]>) -> Total {
    let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
    nodes.range::<[u8], _>((Bound::Included(from), upper)).fold(Total::default(), |total, (_, node)| total.plus(*node))
}

/// The highest level at which an id is a boundary; 0 when at none.
fn boundary_level(id: &[u8]) -> u8 {
    let hash = blake3::hash(id);
    let low = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
    ((low.trailing_zeros() / 4) as u8).min(LEVELS_MAX)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    type Items = BTreeMap<Vec<u8>, Sum>;

    fn naive(items: &Items, from: &[u8], to: Option<&[u8]>) -> Total {
        items
            .iter()
            .filter(|(id, _)| from <= id.as_slice() && to.is_none_or(|to| id.as_slice() < to))
            .fold(Total::default(), |total, (_, sum)| total.plus(Total::of_item(*sum)))
    }

    fn sum_of(value: u64) -> Sum {
        Sum::from_le_bytes(blake3::hash(&value.to_le_bytes()).as_bytes())
    }

    fn apply(summary: &mut Summary, items: &mut Items, id: u32, value: u64) -> Vec<Touched> {
        let id = format!("{id:05}").into_bytes();
        let old = items.get(&id).copied();
        let read = |from: &[u8], to: Option<&[u8]>| Ok::<_, Infallible>(naive(items, from, to));
        let touched = summary.update(&id, old, sum_of(value), read).unwrap();
        items.insert(id, sum_of(value));
        touched
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_range_equals_a_recount(
            edits in prop::collection::vec((0u32..2_000, any::<u64>()), 1..600),
            ranges in prop::collection::vec((0u32..2_000, 0u32..2_000), 1..20),
        ) {
            let (mut summary, mut items) = (Summary::default(), Items::new());
            let mut restored = Summary::default();
            for (id, value) in edits {
                for node in apply(&mut summary, &mut items, id, value) {
                    restored.restore(node.level, &node.boundary, node.total);
                }
            }
            restored.restore_total(summary.total());
            let read = |from: &[u8], to: Option<&[u8]>| Ok::<_, Infallible>(naive(&items, from, to));
            prop_assert_eq!(summary.total(), naive(&items, b"", None));
            for (from, to) in ranges {
                let (from, to) = (format!("{from:05}").into_bytes(), format!("{to:05}").into_bytes());
                for summary in [&summary, &restored] {
                    prop_assert_eq!(summary.range(&from, Some(&to), &read).unwrap(), naive(&items, &from, Some(&to)));
                    prop_assert_eq!(summary.range(&from, None, &read).unwrap(), naive(&items, &from, None));
                }
            }
        }

        #[test]
        fn sums_form_a_group(a: [u64; 4], b: [u64; 4]) {
            let (a, b) = (Sum(a), Sum(b));
            prop_assert_eq!(a.plus(b).minus(b), a);
            prop_assert_eq!(a.plus(b), b.plus(a));
        }
    }

    #[test]
    fn a_change_touches_one_node_a_level_and_cuts_lie_inside() {
        let (mut summary, mut items) = (Summary::default(), Items::new());
        for id in 0..3_000 {
            apply(&mut summary, &mut items, id, u64::from(id));
        }
        let touched = apply(&mut summary, &mut items, 1_234, 0);
        assert_eq!(touched.len(), summary.levels.len());
        let cuts = summary.cuts(b"00100", Some(b"02000"), 32);
        assert!(!cuts.is_empty() && cuts.len() <= 32);
        assert!(cuts.iter().all(|cut| &**cut > b"00100".as_slice() && &**cut < b"02000".as_slice()));
    }
}
