//! The graph of a document's changes: who depends on whom, without their contents.
//!
//! The graph knows two orders. *Causal*: a change comes after what it depends on. *Total*: by
//! [`Change::position`], then actor, then sequence number; it extends the causal order, because every change
//! starts counting its operations after the largest number among its dependencies, and the one exception, a
//! delete, which has no operations, comes before the edits with the same number and depends on no delete of
//! another actor.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::base::{ActorId, ChangeHash, Hlc, Timestamp};

use super::change::Change;
use super::error::Refusal;
use super::version::Version;

#[derive(Debug)]
struct Node {
    lane: u32,
    seq: u64,
    position: u64,
    max_op: u64,
    time: Hlc,
    is_delete: bool,
    parents: Box<[u32]>,
}

/// A change as the graph sees it.
#[derive(Debug)]
pub(super) struct Link<'a> {
    pub(super) hash: ChangeHash,
    pub(super) actor: ActorId,
    pub(super) seq: u64,
    pub(super) position: u64,
    pub(super) max_op: u64,
    pub(super) time: Hlc,
    pub(super) is_delete: bool,
    pub(super) deps: &'a [ChangeHash],
}

/// A change as a list of changes tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) hash: ChangeHash,
    pub(super) actor: ActorId,
    pub(super) time: Hlc,
    pub(super) is_delete: bool,
    pub(super) deps: Vec<ChangeHash>,
}

/// The changes of one actor, in order.
#[derive(Debug)]
struct Lane {
    actor: ActorId,
    changes: Vec<ChangeHash>,
}

/// How many changes of each actor, by its lane, are in some past.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Clock(Vec<u64>);

impl Clock {
    pub(super) fn get(&self, lane: u32) -> u64 {
        self.0.get(lane as usize).copied().unwrap_or(0)
    }
}

/// All changes of a document.
#[derive(Debug, Default)]
pub(super) struct History {
    nodes: Vec<Node>,
    by_hash: BTreeMap<ChangeHash, u32>,
    lanes: Vec<Lane>,
    by_actor: BTreeMap<ActorId, u32>,
    heads: BTreeSet<ChangeHash>,
    times: Option<(Hlc, Hlc)>,
}

impl History {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn has(&self, hash: &ChangeHash) -> bool {
        self.by_hash.contains_key(hash)
    }

    pub(super) fn heads(&self) -> impl Iterator<Item = &ChangeHash> {
        self.heads.iter()
    }

    /// The heads that are edits.
    pub(super) fn edit_heads(&self) -> impl Iterator<Item = &ChangeHash> {
        self.heads.iter().filter(|hash| !self.nodes[self.by_hash[*hash] as usize].is_delete)
    }

    /// Whether there are heads and all of them are deletes.
    pub(super) fn is_deleted(&self) -> bool {
        !self.heads.is_empty() && self.edit_heads().next().is_none()
    }

    /// The smallest and the largest time of a change.
    pub(super) fn times(&self) -> Option<(Hlc, Hlc)> {
        self.times
    }

    pub(super) fn missing(&self, change: &Change) -> Vec<ChangeHash> {
        change.deps().iter().filter(|dep| !self.has(dep)).copied().collect()
    }

    /// The lane of an actor that made changes here.
    pub(super) fn lane(&self, actor: &ActorId) -> Option<u32> {
        self.by_actor.get(actor).copied()
    }

    /// The lane that an actor has or would get with its first change.
    pub(super) fn lane_or_next(&self, actor: &ActorId) -> u32 {
        self.lane(actor).unwrap_or(self.lanes.len() as u32)
    }

    /// The last change of an actor and its sequence number.
    pub(super) fn last(&self, actor: &ActorId) -> Option<(u64, ChangeHash)> {
        let lane = &self.lanes[self.lane(actor)? as usize];
        lane.changes.last().map(|hash| (lane.changes.len() as u64, *hash))
    }

    /// The largest operation number among some changes.
    pub(super) fn max_op(&self, hashes: &[ChangeHash]) -> u64 {
        let ops = hashes.iter().filter_map(|hash| self.by_hash.get(hash)).map(|&node| self.nodes[node as usize].max_op);
        ops.max().unwrap_or(0)
    }

    /// Judges whether a change may come next, and gives its past.
    pub(super) fn admit(&self, change: &Change) -> Result<Clock, Refusal> {
        let missing = self.missing(change);
        if !missing.is_empty() {
            return Err(Refusal::Missing(missing));
        }
        let lane = self.lane(&change.actor());
        if let Some(lane) = lane
            && let Some(&with) = self.lanes[lane as usize].changes.get(change.seq() as usize - 1)
        {
            return Err(Refusal::Fork { with });
        }
        let past = self.clock(change.deps());
        let known = lane.map_or(0, |lane| past.get(lane));
        if change.seq() != known + 1 {
            return Err(Refusal::Sequence { past: known, found: change.seq() });
        }
        let expected = self.max_op(change.deps()) + 1;
        if change.start_op() != expected {
            return Err(Refusal::StartOp { expected, found: change.start_op() });
        }
        if change.is_delete() && self.deletes_a_delete(change) {
            return Err(Refusal::Rule("a delete depends on a delete of another actor"));
        }
        Ok(past)
    }

    fn deletes_a_delete(&self, change: &Change) -> bool {
        let lane = self.lane(&change.actor());
        let parents = change.deps().iter().filter_map(|dep| self.by_hash.get(dep));
        parents.map(|&parent| &self.nodes[parent as usize]).any(|node| node.is_delete && Some(node.lane) != lane)
    }

    /// Adds a change that was admitted.
    pub(super) fn push(&mut self, link: &Link<'_>) {
        let lane = self.lane_or_next(&link.actor);
        if lane as usize == self.lanes.len() {
            self.lanes.push(Lane { actor: link.actor, changes: Vec::new() });
            self.by_actor.insert(link.actor, lane);
        }
        self.lanes[lane as usize].changes.push(link.hash);
        for dep in link.deps {
            self.heads.remove(dep);
        }
        self.heads.insert(link.hash);
        let (first, last) = self.times.unwrap_or((link.time, link.time));
        self.times = Some((first.min(link.time), last.max(link.time)));
        self.by_hash.insert(link.hash, self.nodes.len() as u32);
        self.nodes.push(Node {
            lane,
            seq: link.seq,
            position: link.position,
            max_op: link.max_op,
            time: link.time,
            is_delete: link.is_delete,
            parents: link.deps.iter().map(|dep| self.by_hash[dep]).collect(),
        });
    }

    /// What is in the past of `heads`, including them. Costs only what is not: the walk goes down from the
    /// document's heads in the total order until everything left is in that past.
    pub(super) fn clock(&self, heads: &[ChangeHash]) -> Clock {
        let mut clock = Clock(self.lanes.iter().map(|lane| lane.changes.len() as u64).collect());
        let wanted: BTreeSet<u32> = heads.iter().filter_map(|hash| self.by_hash.get(hash)).copied().collect();
        let mut queue = BinaryHeap::new();
        let mut inside = BTreeMap::new();
        let mut outside = 0usize;
        for node in self.heads.iter().map(|head| self.by_hash[head]).filter(|node| !wanted.contains(node)) {
            outside += 1;
            inside.insert(node, false);
            queue.push((self.order(node), node));
        }
        for &node in &wanted {
            inside.insert(node, true);
            queue.push((self.order(node), node));
        }
        while outside > 0 {
            let Some((_, node)) = queue.pop() else { break };
            let is_inside = inside[&node];
            let Node { lane, seq, parents, .. } = &self.nodes[node as usize];
            if !is_inside {
                outside -= 1;
                let count = &mut clock.0[*lane as usize];
                *count = (*count).min(seq - 1);
            }
            for &parent in parents {
                match inside.insert(parent, is_inside || inside.get(&parent) == Some(&true)) {
                    Some(false) if is_inside => outside -= 1,
                    Some(_) => {}
                    None => {
                        outside += usize::from(!is_inside);
                        queue.push((self.order(parent), parent));
                    }
                }
            }
        }
        clock
    }

    /// Who made a change, and whether it is a delete.
    pub(super) fn maker(&self, hash: &ChangeHash) -> Option<(ActorId, bool)> {
        let node = &self.nodes[*self.by_hash.get(hash)? as usize];
        Some((self.lanes[node.lane as usize].actor, node.is_delete))
    }

    /// When a change was made.
    pub(super) fn time_of(&self, hash: &ChangeHash) -> Option<Hlc> {
        self.by_hash.get(hash).map(|&node| self.nodes[node as usize].time)
    }

    /// The version that some changes make with all that they depend on; `None` for no changes.
    ///
    /// # Errors
    /// The first of them that is not here.
    pub(super) fn version_of(&self, changes: &[ChangeHash]) -> Result<Option<Version>, ChangeHash> {
        if let Some(unknown) = changes.iter().find(|hash| !self.has(hash)) {
            return Err(*unknown);
        }
        let past = self.clock(changes);
        let inside: Vec<bool> = self.nodes.iter().map(|node| node.seq <= past.get(node.lane)).collect();
        Ok(self.version(&inside))
    }

    /// The version of the changes that were made by a time and depend on none made later; `None` when there are none.
    pub(super) fn version_at(&self, time: Timestamp) -> Option<Version> {
        let mut inside: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let known = node.parents.iter().all(|&parent| inside[parent as usize]);
            inside.push(known && node.time.physical() <= time);
        }
        self.version(&inside)
    }

    /// The version of the changes that are `inside`, which are closed under dependencies.
    fn version(&self, inside: &[bool]) -> Option<Version> {
        let mut covered = vec![false; self.nodes.len()];
        let mut times: Option<(Hlc, Hlc)> = None;
        let within = || self.nodes.iter().zip(inside).enumerate().filter(|(_, (_, inside))| **inside);
        for (_, (node, _)) in within() {
            node.parents.iter().for_each(|&parent| covered[parent as usize] = true);
            let (first, last) = times.unwrap_or((node.time, node.time));
            times = Some((first.min(node.time), last.max(node.time)));
        }
        let (created, updated) = times?;
        let heads = within().filter(|(index, _)| !covered[*index]).map(|(_, (node, _))| node);
        let is_deleted = heads.clone().all(|node| node.is_delete);
        let mut heads: Vec<ChangeHash> = heads.map(|node| self.hash(node)).collect();
        heads.sort_unstable();
        Some(Version { heads, is_deleted, created, updated })
    }

    /// All changes, the newest first: by time, and each before what it depends on, whatever its author's clock said.
    pub(super) fn newest_first(&self) -> Vec<u32> {
        let mut times: Vec<Hlc> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let after = node.parents.iter().map(|&parent| times[parent as usize]).max();
            times.push(node.time.max(after.unwrap_or_default()));
        }
        let mut order: Vec<u32> = (0..self.nodes.len() as u32).collect();
        order.sort_by_cached_key(|&node| Reverse((times[node as usize], self.order(node))));
        order
    }

    /// What is known of the change that has a number in [`History::newest_first`].
    pub(super) fn made(&self, number: u32) -> Made {
        let node = &self.nodes[number as usize];
        Made {
            hash: self.hash(node),
            actor: self.lanes[node.lane as usize].actor,
            time: node.time,
            is_delete: node.is_delete,
            deps: node.parents.iter().map(|&parent| self.hash(&self.nodes[parent as usize])).collect(),
        }
    }

    /// Whether a change deletes the document.
    pub(super) fn is_delete(&self, hash: &ChangeHash) -> bool {
        self.number(hash).is_some_and(|number| self.nodes[number as usize].is_delete)
    }

    /// The number of a change in [`History::newest_first`].
    pub(super) fn number(&self, hash: &ChangeHash) -> Option<u32> {
        self.by_hash.get(hash).copied()
    }

    fn hash(&self, node: &Node) -> ChangeHash {
        self.lanes[node.lane as usize].changes[node.seq as usize - 1]
    }

    fn order(&self, node: u32) -> (u64, ActorId, u64) {
        let Node { lane, seq, position, .. } = &self.nodes[node as usize];
        (*position, self.lanes[*lane as usize].actor, *seq)
    }

    /// Bytes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.nodes.iter().map(|node| 200 + 4 * node.parents.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Adds changes with the given parents (indices of earlier ones) and actors, as many as the rules allow.
    fn build(plan: &[(u8, Vec<usize>)]) -> (History, Vec<(ChangeHash, BTreeSet<usize>)>) {
        let mut history = History::default();
        let mut made: Vec<(ChangeHash, BTreeSet<usize>)> = Vec::new();
        for (actor, parents) in plan {
            let actor = ActorId([*actor; 16]);
            let mut deps: Vec<ChangeHash> =
                parents.iter().filter(|_| !made.is_empty()).map(|parent| made[parent % made.len()].0).collect();
            let last = history.last(&actor);
            deps.extend(last.map(|(_, hash)| hash));
            deps.sort_unstable();
            deps.dedup();
            let seq = last.map_or(0, |(seq, _)| seq) + 1;
            let change = Change::sample(actor, seq, history.max_op(&deps) + 1, &deps);
            history.admit(&change).unwrap();
            history.push(&change.link());
            let direct: Vec<usize> =
                deps.iter().filter_map(|dep| made.iter().position(|(hash, _)| hash == dep)).collect();
            let mut past: BTreeSet<usize> = direct.iter().flat_map(|&parent| made[parent].1.clone()).collect();
            past.insert(made.len());
            made.push((change.hash(), past));
        }
        (history, made)
    }

    proptest! {
        #[test]
        fn the_clock_counts_the_past(
            plan in proptest::collection::vec((0u8..4, proptest::collection::vec(0usize..40, 0..3)), 1..30),
            picks in proptest::collection::vec(0usize..40, 0..3),
        ) {
            let (history, made) = build(&plan);
            let picked: Vec<usize> = picks.iter().map(|pick| pick % made.len()).collect();
            let heads: Vec<ChangeHash> = picked.iter().map(|&pick| made[pick].0).collect();
            let clock = history.clock(&heads);
            let past: BTreeSet<usize> = picked.iter().flat_map(|&pick| made[pick].1.clone()).collect();
            for actor in 0..4u8 {
                let expected = past.iter().filter(|&&change| plan[change].0 == actor).count() as u64;
                let lane = history.lane(&ActorId([actor; 16]));
                prop_assert_eq!(lane.map_or(0, |lane| clock.get(lane)), expected);
            }
        }

        #[test]
        fn the_total_order_extends_the_causal_one(
            plan in proptest::collection::vec((0u8..4, proptest::collection::vec(0usize..40, 0..3)), 1..30),
        ) {
            let (history, _) = build(&plan);
            for node in 0..history.len() as u32 {
                for &parent in &history.nodes[node as usize].parents {
                    prop_assert!(history.order(parent) < history.order(node));
                }
            }
        }
    }
}
