//! Finding out which collections differ, by ranges of their names: the same as [`reconcile`](super::reconcile) does with
//! the documents of one collection, on top of it.
//!
//! A range that differs is cut into parts until it holds few collections, which are listed with their fingerprints. Who
//! gets a list says which of them differ, and opens the comparison of each. So peers with few collections, which are one
//! list from the start, need one message each way, and peers with any number of them some hundred bytes more and a few
//! messages for what differs. Like the rest of a comparison it keeps no state between messages.

use super::message::{Digest, Names, Root, Roots, Step};
use crate::base::CollectionName;
use crate::limits::{OPENED_COLLECTIONS_MAX, ROOTS_PARTS_MAX};
use crate::store::{Store, Total};

/// Collections up to which a range is listed rather than cut.
const LIST_MAX: usize = 24;

/// Parts into which a range is cut at most, less one.
const CUTS_MAX: usize = 128;

/// The end of a range and what is said of it.
type Described = (Option<CollectionName>, Names);

/// Names from the first on, which `None` is before, and in front of the second, which `None` is behind.
pub type Range = (Option<CollectionName>, Option<CollectionName>);

/// What a message led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What to send back; nothing but what is skipped when there is nothing to say.
    pub parts: Vec<Described>,
    /// Collections that differ, with the documents that the other side has in each.
    pub differing: Vec<(CollectionName, u64)>,
    /// Ranges in which some collection differs, and it is not known yet which.
    pub unresolved: Vec<Range>,
    /// Collections whose comparison is to be opened.
    pub open: Vec<CollectionName>,
    /// Collections that were said to differ.
    told: usize,
}

impl Answer {
    /// Whether there is anything to send back.
    #[must_use]
    pub fn says_something(&self) -> bool {
        self.parts.iter().any(|(_, names)| *names != Names::Skip)
    }
}

/// The question with which a comparison begins.
#[must_use]
pub fn question(store: &Store, salt: u64) -> Roots {
    let mut parts = Vec::new();
    describe(store, salt, None, None, &mut parts);
    Roots { salt, step: Step::Question, documents: store.documents(), parts }
}

/// Describes a range that differs: by the fingerprints of its collections when they are few, by those of its parts
/// otherwise.
fn describe(
    store: &Store,
    salt: u64,
    from: Option<&CollectionName>,
    to: Option<&CollectionName>,
    parts: &mut Vec<Described>,
) {
    let few: Vec<Root> =
        store.totals_in(from, to).take(LIST_MAX + 1).map(|(name, total)| root(salt, name, total)).collect();
    if few.len() <= LIST_MAX {
        return parts.push((to.cloned(), Names::Listed(few)));
    }
    let mut cuts = store.cut_names(from, to, CUTS_MAX);
    if cuts.is_empty() {
        // No boundary lies inside, by chance or because the names were chosen so: cut by counting.
        let some = store.totals_in(from, to).take(LIST_MAX * CUTS_MAX).skip(LIST_MAX).step_by(LIST_MAX);
        cuts.extend(some.map(|(name, _)| name.clone()));
    }
    let mut start = from.cloned();
    for end in cuts.into_iter().map(Some).chain([to.cloned()]) {
        let fingerprint = store.directory(start.as_ref(), end.as_ref()).fingerprint(salt);
        parts.push((end.clone(), Names::Fingerprint(fingerprint)));
        start = end;
    }
}

fn root(salt: u64, name: &CollectionName, total: Total) -> Root {
    Root { collection: name.clone(), count: total.count, fingerprint: total.fingerprint(salt) }
}

/// Answers what was said of ranges of names. Ranges are cut further, and comparisons opened, only when `resolve` is set;
/// what differs is told in any case.
#[must_use]
pub fn answer(store: &Store, theirs: &Roots, resolve: bool) -> Answer {
    let mut answer = Answer::default();
    let mut from = None;
    for (index, (to, names)) in theirs.parts.iter().enumerate() {
        let range = (from.as_ref(), to.as_ref());
        match names {
            Names::Skip => skip(&mut answer.parts, to.as_ref()),
            Names::Fingerprint(fingerprint) => {
                // Each part that is left has its place too.
                let room = ROOTS_PARTS_MAX.saturating_sub(answer.parts.len() + theirs.parts.len() - index);
                answer.fingerprint(store, theirs.salt, range, fingerprint, resolve && room > CUTS_MAX);
            }
            Names::Listed(roots) => answer.listed(store, theirs.salt, range, roots, resolve),
            Names::Differing(roots) => {
                let differ = roots.iter().filter(|root| differs(store, theirs.salt, root));
                answer.differing.extend(differ.map(|root| (root.collection.clone(), root.count)));
                skip(&mut answer.parts, to.as_ref());
            }
        }
        from.clone_from(to);
    }
    answer
}

/// A [`Range`] that is only looked at.
type Within<'a> = (Option<&'a CollectionName>, Option<&'a CollectionName>);

impl Answer {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differing.is_empty() && self.unresolved.is_empty()
    }

    fn fingerprint(&mut self, store: &Store, salt: u64, (from, to): Within<'_>, theirs: &Digest, resolve: bool) {
        let ours: Digest = store.directory(from, to).fingerprint(salt);
        if ours == *theirs {
            return skip(&mut self.parts, to);
        }
        self.unresolved.push((from.cloned(), to.cloned()));
        if resolve {
            describe(store, salt, from, to, &mut self.parts);
        } else {
            self.parts.push((to.cloned(), Names::Fingerprint(ours)));
        }
    }

    /// Says which collections of a list differ. Those beyond the bound are left for a later message.
    fn listed(&mut self, store: &Store, salt: u64, (from, to): Within<'_>, theirs: &[Root], resolve: bool) {
        let room = OPENED_COLLECTIONS_MAX.saturating_sub(self.told);
        let mut differing = differing(store, salt, (from, to), theirs, room + 1);
        let beyond = if differing.len() > room { differing.pop().map(|(root, _)| root.collection) } else { None };
        if differing.is_empty() && beyond.is_none() {
            return skip(&mut self.parts, to);
        }
        let (mut start, end) = (from, beyond.as_ref().or(to));
        if !differing.is_empty() {
            self.told += differing.len();
            self.differing.extend(differing.iter().map(|(root, count)| (root.collection.clone(), *count)));
            if resolve {
                self.open.extend(differing.iter().map(|(root, _)| root.collection.clone()));
            }
            let roots = differing.into_iter().map(|(root, _)| root).collect();
            self.parts.push((end.cloned(), Names::Differing(roots)));
            start = end;
        }
        if beyond.is_some() {
            self.unresolved.push((start.cloned(), to.cloned()));
            let ours = store.directory(start, to).fingerprint(salt);
            self.parts.push((to.cloned(), Names::Fingerprint(ours)));
        }
    }
}

/// Skips a range, as one with the ranges before it when those are skipped as well.
fn skip(parts: &mut Vec<Described>, to: Option<&CollectionName>) {
    match parts.last_mut() {
        Some((end, Names::Skip)) => *end = to.cloned(),
        Some(_) | None => parts.push((to.cloned(), Names::Skip)),
    }
}

fn differs(store: &Store, salt: u64, theirs: &Root) -> bool {
    let ours = store.total(&theirs.collection);
    ours.fingerprint(salt) != theirs.fingerprint && (ours.count > 0 || theirs.count > 0)
}

/// The first collections of a range that differ from a list of all that the other side has there: each as it is here,
/// with the documents over there.
fn differing(store: &Store, salt: u64, (from, to): Within<'_>, theirs: &[Root], limit: usize) -> Vec<(Root, u64)> {
    let mut ours = store.totals_in(from, to).peekable();
    let mut theirs = theirs.iter().peekable();
    let mut differing = Vec::new();
    while differing.len() < limit {
        let next = match (ours.peek(), theirs.peek()) {
            (None, None) => break,
            (Some((name, _)), Some(root)) => (*name).min(&root.collection).clone(),
            (Some((name, _)), None) => (*name).clone(),
            (None, Some(root)) => root.collection.clone(),
        };
        let our = ours.next_if(|(name, _)| **name == next).map(|(_, total)| total).unwrap_or_default();
        let their = theirs.next_if(|root| root.collection == next);
        let root = root(salt, &next, our);
        let equal = their.is_some_and(|their| their.fingerprint == root.fingerprint);
        let both_empty = our.count == 0 && their.is_none_or(|their| their.count == 0);
        if !equal && !both_empty {
            differing.push((root, their.map_or(0, |their| their.count)));
        }
    }
    differing
}
