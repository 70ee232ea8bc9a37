//! The difference of two lists, as the regions in which they differ.
//!
//! Common ends are cut off first. The rest is aligned on a longest common subsequence (Myers, "An O(ND)
//! Difference Algorithm", 1986) as long as the difference is small, which bounds its time and memory. Lists that
//! differ more are aligned on the elements that occur exactly once in both, by a longest increasing
//! subsequence ("patience"): O(n log n), not always minimal.

use std::collections::BTreeMap;
use std::ops::Range;

/// Insertions and deletions up to which the exact alignment is sought: it keeps the square of this many numbers.
const EXACT_EDITS_MAX: usize = 512;

/// A region where the lists differ; between two regions they are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hunk {
    pub(super) old: Range<usize>,
    pub(super) new: Range<usize>,
}

/// The regions in which two lists of classes differ, in order. One of the two ranges may be empty.
pub(super) fn align(old: &[u32], new: &[u32]) -> Vec<Hunk> {
    let mut hunks = Vec::new();
    let whole = Hunk { old: 0..old.len(), new: 0..new.len() };
    let core = trim(old, new, whole);
    if core.old.is_empty() || core.new.is_empty() {
        push(&mut hunks, core);
        return hunks;
    }
    let (a, b) = (&old[core.old.clone()], &new[core.new.clone()]);
    let pairs = exact(a, b).unwrap_or_else(|| unique(a, b));
    let mut at = core.clone();
    for (i, j) in pairs.into_iter().map(|(i, j)| (core.old.start + i, core.new.start + j)) {
        let gap = Hunk { old: at.old.start..i, new: at.new.start..j };
        push(&mut hunks, trim(old, new, gap));
        (at.old.start, at.new.start) = (i + 1, j + 1);
    }
    push(&mut hunks, trim(old, new, at));
    hunks
}

fn push(hunks: &mut Vec<Hunk>, hunk: Hunk) {
    if !hunk.old.is_empty() || !hunk.new.is_empty() {
        hunks.push(hunk);
    }
}

/// Cuts equal ends off a region.
fn trim(old: &[u32], new: &[u32], region: Hunk) -> Hunk {
    let (a, b) = (&old[region.old.clone()], &new[region.new.clone()]);
    let prefix = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let suffix = a[prefix..].iter().rev().zip(b[prefix..].iter().rev()).take_while(|(a, b)| a == b).count();
    Hunk {
        old: region.old.start + prefix..region.old.end - suffix,
        new: region.new.start + prefix..region.new.end - suffix,
    }
}

/// The pairs of a longest common subsequence, unless that takes too many edits.
fn exact(a: &[u32], b: &[u32]) -> Option<Vec<(usize, usize)>> {
    let (n, m) = (a.len() as isize, b.len() as isize);
    let mut reached: Vec<Vec<isize>> = Vec::new();
    for d in 0..=EXACT_EDITS_MAX as isize {
        let mut row = vec![0; 2 * d as usize + 1];
        for k in (-d..=d).step_by(2) {
            let mut x = start(reached.last(), d, k);
            let mut y = x - k;
            while x < n && y < m && a[x as usize] == b[y as usize] {
                (x, y) = (x + 1, y + 1);
            }
            row[(k + d) as usize] = x;
            if x >= n && y >= m {
                return Some(trace(&reached, n, m));
            }
        }
        reached.push(row);
    }
    None
}

/// Where the furthest path with `d` edits on diagonal `k` starts, given the paths with `d - 1`. May lie beyond the
/// end of a list; such a path is never extended and never the first to arrive.
fn start(previous: Option<&Vec<isize>>, d: isize, k: isize) -> isize {
    let Some(previous) = previous else { return 0 };
    let at = |k: isize| previous.get((k + d - 1) as usize).copied();
    let down = if k < d { at(k + 1) } else { None };
    let right = if k > -d { at(k - 1).map(|x| x + 1) } else { None };
    down.max(right).unwrap_or(0)
}

/// Walks back along the paths and collects the diagonal steps.
fn trace(reached: &[Vec<isize>], n: isize, m: isize) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let (mut x, mut y) = (n, m);
    for d in (0..=reached.len() as isize).rev() {
        let k = x - y;
        let from = start(reached.get((d - 1) as usize).filter(|_| d > 0), d, k);
        while x > from {
            (x, y) = (x - 1, y - 1);
            pairs.push((x as usize, y as usize));
        }
        let Some(previous) = reached.get((d - 1) as usize).filter(|_| d > 0) else { break };
        let down = k < d && previous.get((k + d) as usize) == Some(&from);
        if down {
            y -= 1;
        } else {
            x -= 1;
        }
    }
    pairs.reverse();
    pairs
}

/// The longest increasing pairing of elements that occur once in each list.
fn unique(a: &[u32], b: &[u32]) -> Vec<(usize, usize)> {
    let once = |list: &[u32]| {
        let mut places: BTreeMap<u32, Option<usize>> = BTreeMap::new();
        for (index, &class) in list.iter().enumerate() {
            places.entry(class).and_modify(|place| *place = None).or_insert(Some(index));
        }
        places
    };
    let in_b = once(b);
    let mut pairs: Vec<(usize, usize)> =
        once(a).into_iter().filter_map(|(class, place)| Some((place?, in_b.get(&class).copied().flatten()?))).collect();
    pairs.sort_unstable();
    increasing(&pairs)
}

/// A longest subsequence of pairs, sorted by their first part, in which the second part grows too.
fn increasing(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; pairs.len()];
    for (index, &(_, j)) in pairs.iter().enumerate() {
        let at = tails.partition_point(|&tail| pairs[tail].1 < j);
        before[index] = at.checked_sub(1).map(|at| tails[at]);
        if at == tails.len() {
            tails.push(index);
        } else {
            tails[at] = index;
        }
    }
    let mut chain: Vec<_> = std::iter::successors(tails.last().copied(), |&index| before[index]).collect();
    chain.reverse();
    chain.into_iter().map(|index| pairs[index]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks that outside of the hunks the lists are equal, and counts the elements kept.
    fn kept(old: &[u32], new: &[u32]) -> usize {
        let mut kept = 0;
        let mut at = (0, 0);
        let end = Hunk { old: old.len()..old.len(), new: new.len()..new.len() };
        for hunk in align(old, new).into_iter().chain([end]) {
            assert_eq!(old[at.0..hunk.old.start], new[at.1..hunk.new.start]);
            kept += hunk.old.start - at.0;
            at = (hunk.old.end, hunk.new.end);
        }
        kept
    }

    fn longest_common_subsequence(old: &[u32], new: &[u32]) -> usize {
        let mut row = vec![0; new.len() + 1];
        for a in old {
            let mut diagonal = 0;
            for (j, b) in new.iter().enumerate() {
                let next = if a == b { diagonal + 1 } else { row[j].max(row[j + 1]) };
                diagonal = std::mem::replace(&mut row[j + 1], next);
            }
        }
        row[new.len()]
    }

    proptest! {
        #[test]
        fn small_differences_are_minimal(
            old in proptest::collection::vec(0u32..6, 0..40),
            new in proptest::collection::vec(0u32..6, 0..40),
        ) {
            prop_assert_eq!(kept(&old, &new), longest_common_subsequence(&old, &new));
        }

        #[test]
        fn patience_pairs_grow(mut list in proptest::collection::vec(any::<u32>(), 0..60), seed: u64) {
            let old = list.clone();
            let length = list.len().max(1);
            list.rotate_left(seed as usize % length);
            let pairs = unique(&old, &list);
            prop_assert!(pairs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
            prop_assert!(pairs.iter().all(|&(i, j)| old[i] == list[j]));
        }
    }

    #[test]
    fn many_scattered_edits_of_a_long_list_keep_the_rest() {
        let old: Vec<u32> = (0..100_000).collect();
        let new: Vec<u32> = old.iter().map(|&class| if class % 20 == 0 { class + 1_000_000 } else { class }).collect();
        assert_eq!(kept(&old, &new), 95_000);
        let reversed: Vec<u32> = old.iter().rev().copied().collect();
        assert!(kept(&old, &reversed) >= 1);
    }
}
