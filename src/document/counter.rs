//! Counters that several peers made at one place, and what they count together.
//!
//! A peer increments a field that is absent, or a plain integer, by writing a counter with that integer (or 0) over
//! it and an increment, in one change. Two peers that do so apart leave two counters at one place. Automerge
//! shows the later one and only the increments of that one, so the others would be lost.
//!
//! **What is shown** is the value that the shown counter was made with, plus every increment of any counter that
//! stands at the place, each once. The start is the same in all of them when they were made from the same
//! value, so this is the sum of what everybody added. It is a function of the document's changes alone, and so
//! the same on all peers.
//!
//! **Why increments are counted and not counters.** An increment made after the counters met names all of them as its
//! predecessors, because Automerge increments whatever stands at the place. So the sum of (counter - start) would count
//! it once per counter. Writing one counter over them instead would lose what others add to the old ones meanwhile.
//! Therefore the operations are needed, and Automerge's interface does not give them: [`Increments`] reads them
//! from the bytes of the changes. Automerge's value of the shown counter has its own increments in it already; what is
//! added is the rest, [`Increments::beside`].
//!
//! **What it costs.** Nothing without such a conflict. The first reading that meets one goes through the document's
//! changes once; from then on the open document keeps the sums up to date, one entry per set of counters that were
//! incremented together.
//!
//! Not here: bounds. One peer refuses an increment beyond 64 bits; several that add up to more apart wrap around, as
//! in Automerge, on all peers alike.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ObjId;

use crate::base::{ActorId, Reader};

use super::column::signed;
use super::error::ScreenError;
use super::operation::{Action, Parsed};

/// An operation of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpId {
    counter: u64,
    actor: ActorId,
}

impl OpId {
    /// The operation that made what Automerge calls by this id; `None` for the root.
    pub(super) fn of(id: &ObjId) -> Option<Self> {
        let ObjId::Id(counter, actor, _) = id else { return None };
        Some(Self { counter: *counter, actor: ActorId(actor.to_bytes().try_into().ok()?) })
    }
}

/// The increments of a document, summed up by what they increment.
#[derive(Debug, Default)]
pub(super) struct Increments {
    sums: Vec<(Box<[OpId]>, i64)>,
    /// Where in `sums` increments of exactly these operations are.
    by_set: BTreeMap<Box<[OpId]>, usize>,
    /// Where in `sums` increments of this operation, and maybe others, are.
    by_op: BTreeMap<OpId, Vec<usize>>,
}

impl Increments {
    /// Adds the increments of one change.
    pub(super) fn push(&mut self, parsed: &Parsed<'_>) -> Result<(), ScreenError> {
        let mut rows = parsed.rows();
        let mut predecessors = Vec::new();
        while let Some(row) = rows.next(&mut predecessors)? {
            if row.action != Action::Increment {
                continue;
            }
            let amount = signed(&mut Reader::new(row.value))?;
            let named = predecessors.iter();
            let set = named.map(|op| OpId { counter: op.counter.into(), actor: parsed.actors[op.actor as usize] });
            self.add(set.collect(), amount);
        }
        Ok(())
    }

    fn add(&mut self, set: Box<[OpId]>, amount: i64) {
        let index = *self.by_set.entry(set.clone()).or_insert_with(|| {
            for op in &set {
                self.by_op.entry(*op).or_default().push(self.sums.len());
            }
            self.sums.push((set, 0));
            self.sums.len() - 1
        });
        self.sums[index].1 = self.sums[index].1.wrapping_add(amount);
    }

    /// The sum of all increments of `others` that do not increment `shown` too.
    pub(super) fn beside(&self, shown: &OpId, others: &[OpId]) -> i64 {
        let found: BTreeSet<usize> =
            others.iter().filter_map(|other| self.by_op.get(other)).flatten().copied().collect();
        let beside = found.into_iter().map(|index| &self.sums[index]).filter(|(set, _)| !set.contains(shown));
        beside.fold(0, |sum, (_, amount)| sum.wrapping_add(*amount))
    }

    /// Bytes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.sums.iter().map(|(set, _)| 150 + set.len() * (2 * size_of::<OpId>() + 50)).sum()
    }
}
