//! Choosing how to find the documents of a filter.
//!
//! Every index that narrows the filter down is a way, and so is walking through the collection; branches of `$or` that
//! all have a way are one together, and so are two indexes that each leave little. What a way costs is guessed from how
//! many entries and documents it looks at, in units of one document passed by in a walk. Entries are counted up to
//! [`PLAN_COUNT_MAX`], and taken from the index's histogram beyond.
//!
//! Not here: walking the way (`execute`), and which keys an index has for a filter (`bounds`).

use std::ops::ControlFlow;
use std::sync::Arc;

use super::bounds::{Bounds, bounds};
use crate::Result;
use crate::base::CollectionName;
use crate::filter::{Condition, Filter, Operand, Test};
use crate::index::Span;
use crate::limits::PLAN_COUNT_MAX;
use crate::store::{Index, Reader};
use crate::value::{Direction, Kind, Path};
use crate::{Error, Invalid, InvalidKind};

/// Reading an entry of an index, in documents passed by.
const ENTRY: f64 = 0.5;
/// Fetching a document by its id.
const FETCH: f64 = 3.0;
/// Putting a document in its place among the sorted ones.
const SORT: f64 = 1.0;
/// Share of documents that pass a test of which nothing is known.
const UNKNOWN: f64 = 0.25;

/// A way to find documents.
#[derive(Debug, Clone)]
pub(super) enum Access {
    /// All of them, in the order of ids.
    Walk,
    /// Those with these ids.
    Ids(Vec<String>),
    /// Those that an index has in these spans.
    Index { index: Arc<Index>, bounds: Bounds },
    /// Those of any of these ways.
    Union(Vec<Access>),
    /// Those of both, which have so many entries together, about.
    Intersection(Box<Access>, Box<Access>, f64),
}

/// A way with what is expected of it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) access: Access,
    /// Whether documents come in the order that is asked for, so that the first few are enough.
    pub(super) in_order: bool,
    /// Documents that it looks at, about, when it goes to its end.
    pub(super) candidates: f64,
    /// Documents that match, about.
    pub(super) matching: f64,
    pub(super) cost: f64,
}

/// What the result is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The order: fields with directions, the last of which is the id.
    pub(super) order: &'a [(Path, Direction)],
    /// Documents, counted from the first.
    pub(super) first: Option<usize>,
}

/// What the planner knows.
pub(super) struct Planner<'a> {
    reader: &'a Reader,
    collection: &'a CollectionName,
    /// Documents.
    documents: f64,
    indexes: Vec<Arc<Index>>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(reader: &'a Reader, collection: &'a CollectionName) -> Result<Self> {
        let documents = reader.collection(collection)?.map_or(0, |counts| counts.documents) as f64;
        let catalog = reader.catalog();
        let indexes = catalog.of(collection).iter().filter(|index| index.is_ready()).cloned().collect();
        Ok(Self { reader, collection, documents, indexes })
    }

    /// The plans for a filter, the cheapest first; there is always one.
    pub(super) fn plans(&self, filter: &Filter, wanted: Wanted<'_>) -> Result<Vec<Plan>> {
        let mut ways: Vec<(Access, f64)> = Vec::new();
        for index in &self.indexes {
            if let Some(bounds) = bounds(index.definition(), index.is_multiple(), filter) {
                let entries = self.entries(index, &bounds.spans)?;
                ways.push((Access::Index { index: index.clone(), bounds }, entries));
            }
        }
        ways.extend(self.intersection(&ways));
        ways.extend(self.union(filter)?);
        let share = ways.iter().map(|(_, entries)| entries / self.documents.max(1.0)).fold(1.0, f64::min);
        let tests = filter.condition.together().len() as f64;
        let matching = if filter.is_everything() {
            self.documents
        } else if ways.is_empty() {
            self.documents * UNKNOWN.powf(tests)
        } else {
            self.documents * share
        };
        if let Some(ids) = ids(filter) {
            let count = ids.len() as f64;
            ways.push((Access::Ids(ids), count));
        }
        ways.push((Access::Walk, self.documents));
        let mut plans: Vec<Plan> =
            ways.into_iter().map(|(access, entries)| self.plan(access, entries, matching, wanted)).collect();
        plans.extend(self.sorted_by_index(matching, wanted));
        plans.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        Ok(plans)
    }

    /// The plan that a hint names: an index, or `$natural` for a walk.
    pub(super) fn hinted(&self, hint: &str, filter: &Filter, wanted: Wanted<'_>) -> Result<Vec<Plan>> {
        let mut plans = self.plans(filter, wanted)?;
        let is_meant = |plan: &Plan| match &plan.access {
            Access::Walk => hint == "$natural",
            Access::Index { index, .. } => index.name().as_str() == hint,
            Access::Ids(_) => hint == "_id",
            Access::Union(_) | Access::Intersection(..) => false,
        };
        let (mut meant, others): (Vec<_>, Vec<_>) = plans.drain(..).partition(is_meant);
        if meant.is_empty() {
            return Err(self.bad_hint(hint));
        }
        meant.extend(others);
        Ok(meant)
    }

    fn bad_hint(&self, hint: &str) -> Error {
        let names: Vec<&str> = self.indexes.iter().map(|index| index.name().as_str()).collect();
        let message = match self.indexes.iter().any(|index| index.name().as_str() == hint) {
            true => format!("the index {hint} does not help with this filter and order"),
            false => format!(
                "collection {} has no index {hint} that is ready; there are [{}], and $natural is a walk through all",
                self.collection,
                names.join(", ")
            ),
        };
        let field = Some("hint".to_owned());
        Error::Invalid(Invalid { message, field, position: None, kind: InvalidKind::Meaning })
    }

    fn plan(&self, access: Access, entries: f64, matching: f64, wanted: Wanted<'_>) -> Plan {
        let by_id = matches!(wanted.order, [(path, Direction::Ascending)] if path.is_id());
        let in_order = match &access {
            // Ids are put in order before documents are fetched.
            Access::Walk | Access::Ids(_) | Access::Union(_) | Access::Intersection(..) => by_id,
            Access::Index { index, bounds } => by_id || self.gives_order(index, bounds.fixed, wanted),
        };
        let matching = matching.min(entries);
        // To find the first few in order, about so many are looked at.
        let share = if entries > 0.0 { (matching / entries).max(1e-6) } else { 1.0 };
        let looked_at = match wanted.first {
            Some(first) if in_order => (first as f64 / share).min(entries),
            Some(_) | None => entries,
        };
        let sorting = if in_order { 0.0 } else { matching * SORT };
        let cost = match &access {
            Access::Walk => looked_at,
            Access::Ids(_) => looked_at * FETCH,
            Access::Index { .. } if in_order && !by_id => looked_at * (ENTRY + FETCH),
            Access::Index { .. } | Access::Union(_) => entries * ENTRY + looked_at * FETCH,
            Access::Intersection(_, _, read) => read * ENTRY + looked_at * FETCH,
        };
        Plan { access, in_order, candidates: entries, matching, cost: cost + sorting }
    }

    /// Whether an index has the documents in the order that is asked for, when its first fields are fixed.
    fn gives_order(&self, index: &Index, fixed: usize, wanted: Wanted<'_>) -> bool {
        let Some(pattern) = index.definition().pattern() else { return false };
        let fixed_fields = &pattern.fields()[..fixed];
        let rest = &pattern.fields()[fixed..];
        let is_fixed = |path: &Path| fixed_fields.iter().any(|(fixed, _)| fixed == path);
        let asked: Vec<&(Path, Direction)> = wanted.order.iter().filter(|(path, _)| !is_fixed(path)).collect();
        // Behind its fields an index is in the order of ids.
        let Some(((id, Direction::Ascending), asked)) = asked.split_last() else { return false };
        let same = asked.len() == rest.len() && asked.iter().zip(rest).all(|(asked, field)| **asked == *field);
        same && id.is_id() && !index.is_multiple() && !index.definition().sparse && !self.has_overflow(index)
    }

    fn has_overflow(&self, index: &Index) -> bool {
        let mut any = false;
        let looked = self.reader.overflow(index, &mut |_| {
            any = true;
            ControlFlow::Break(())
        });
        any || looked.is_err()
    }

    /// Walking through indexes that have all documents in the order that is asked for.
    fn sorted_by_index(&self, matching: f64, wanted: Wanted<'_>) -> Vec<Plan> {
        let whole =
            Bounds { spans: vec![(Vec::new(), vec![0xff])], fixed: 0, prefix: Vec::new(), used: 0, exact: false };
        let is_whole = |index: &Index| index.definition().filter.is_none() && self.gives_order(index, 0, wanted);
        let fit = self.indexes.iter().filter(|index| is_whole(index));
        let plan = |index: &Arc<Index>| {
            let access = Access::Index { index: index.clone(), bounds: whole.clone() };
            self.plan(access, self.documents, matching, wanted)
        };
        fit.map(plan).collect()
    }

    /// Two indexes together, when what both have is little beside what each has.
    fn intersection(&self, ways: &[(Access, f64)]) -> Option<(Access, f64)> {
        let mut best: Option<(usize, usize, f64)> = None;
        for (one, (a, a_entries)) in ways.iter().enumerate() {
            for (other, (b, b_entries)) in ways.iter().enumerate().skip(one + 1) {
                let both = a_entries * b_entries / self.documents.max(1.0);
                let pays = a_entries.min(*b_entries) * FETCH > (a_entries + b_entries) * ENTRY + both * FETCH;
                if pays && !share_field(a, b) && best.is_none_or(|(.., least)| both < least) {
                    best = Some((one, other, both));
                }
            }
        }
        let (one, other, both) = best?;
        let ((a, a_entries), (b, b_entries)) = (ways[one].clone(), ways[other].clone());
        Some((Access::Intersection(Box::new(a), Box::new(b), a_entries + b_entries), both))
    }

    /// The branches of an `$or`, when each has an index.
    fn union(&self, filter: &Filter) -> Result<Option<(Access, f64)>> {
        let is_or = |condition: &Condition| matches!(condition, Condition::Any(_));
        let Some(Condition::Any(branches)) = filter.condition.together().iter().find(|condition| is_or(condition))
        else {
            return Ok(None);
        };
        let (mut ways, mut all) = (Vec::new(), 0.0);
        for branch in branches {
            let branch = Filter { condition: branch.clone() };
            let mut best: Option<(Access, f64)> = ids(&branch).map(|ids| (Access::Ids(ids.clone()), ids.len() as f64));
            for index in &self.indexes {
                if let Some(bounds) = bounds(index.definition(), index.is_multiple(), &branch) {
                    let entries = self.entries(index, &bounds.spans)?;
                    if best.as_ref().is_none_or(|(_, least)| entries < *least) {
                        best = Some((Access::Index { index: index.clone(), bounds }, entries));
                    }
                }
            }
            let Some((access, entries)) = best else { return Ok(None) };
            ways.push(access);
            all += entries;
        }
        Ok(Some((Access::Union(ways), all.min(self.documents))))
    }

    /// Entries in spans, about.
    fn entries(&self, index: &Index, spans: &[Span]) -> Result<f64> {
        let mut counted = 0;
        for (from, to) in spans {
            self.reader.entries(index, from, Some(to), &mut |_, _| {
                counted += 1;
                if counted < PLAN_COUNT_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if counted >= PLAN_COUNT_MAX {
                let histogram = index.histogram();
                let guessed: f64 = spans.iter().map(|(from, to)| histogram.between(from, to)).sum();
                return Ok(guessed.max(counted as f64));
            }
        }
        Ok(counted as f64)
    }
}

/// Whether two indexes are about a field that both narrow down.
fn share_field(a: &Access, b: &Access) -> bool {
    let fields = |access: &Access| match access {
        Access::Index { index, bounds } => {
            let fields = index.definition().pattern().map(|pattern| &pattern.fields()[..bounds.used]);
            fields.into_iter().flatten().map(|(path, _)| path.clone()).collect()
        }
        Access::Walk | Access::Ids(_) | Access::Union(_) | Access::Intersection(..) => Vec::new(),
    };
    let (a, b): (Vec<Path>, Vec<Path>) = (fields(a), fields(b));
    a.iter().any(|path| b.contains(path))
}

/// The ids that a filter names, sorted, each once.
fn ids(filter: &Filter) -> Option<Vec<String>> {
    let mut tests = filter.condition.together().iter().filter_map(Condition::field).filter(|(path, _)| path.is_id());
    let named: &[Operand] = tests.find_map(|(_, test)| {
        if let Test::Equal(operand) = test {
            Some(std::slice::from_ref(operand))
        } else if let Test::In(operands) = test {
            Some(operands.as_slice())
        } else {
            None
        }
    })?;
    // Ids are strings; nothing else is equal to one.
    let strings = named.iter().filter(|operand| operand.json().kind() == Kind::String);
    let mut ids: Vec<String> = strings.filter_map(|operand| Some(operand.json().as_str()?.into_owned())).collect();
    ids.sort();
    ids.dedup();
    Some(ids)
}
