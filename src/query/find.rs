//! Finding documents: filter, order, limit, projection, and where to go on.

use std::collections::BinaryHeap;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::cursor::{Cursor, fingerprint};
use super::execute::{Counters, Start, Walk};
use super::explain::{Explained, explain};
use super::plan::{Access, Plan, Planner, Wanted};
use super::rank::{Rank, in_fields_of_index};
use super::{Budget, Projection, Sort, fault, whole, with_conflicts};
use crate::Result;
use crate::base::{CollectionName, DocumentId, suggestion};
use crate::filter::Filter;
use crate::limits::{PAGE_BYTES_MAX, QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX, QUERY_OFFSET_MAX};
use crate::store::Reader;
use crate::value::{Direction, ID_FIELD, Path, Row, encode};

/// A query as it was asked for.
#[derive(Debug, Clone)]
pub struct Find {
    filter: Filter,
    /// The order that was asked for, and by ids at its end, so that it is one.
    order: Sort,
    /// Whether none was asked for.
    is_default: bool,
    projection: Option<Projection>,
    limit: usize,
    offset: usize,
    cursor: Option<String>,
    hint: Option<String>,
    /// Whether rows say how many places have several values.
    conflicts: bool,
}

/// What a query found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Documents as JSON text with sorted keys, their ids under `_id`.
    pub documents: Vec<Bytes>,
    /// Where the next page starts; `None` when there is none.
    pub next: Option<String>,
    /// Documents that match, about; exactly when `is_total_exact`.
    pub total_estimate: u64,
    /// Whether the total was counted.
    pub is_total_exact: bool,
    /// Documents that are damaged on this peer's disk and were left out.
    pub damaged: Vec<DocumentId>,
}

/// The fields of a query.
const KNOWN: &[&str] = &["filter", "sort", "projection", "limit", "offset", "cursor", "hint", "conflicts"];

impl Find {
    /// Reads `{"filter": {}, "sort": {"name": 1}, "projection": {"name": 1}, "limit": 100, "offset": 0, "cursor": "...",
    /// "hint": "index", "conflicts": false}`, all of which may be left out. With `conflicts` each document has under
    /// `_conflicts` the number of its places with several values, unless it has a field of that name.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) with the place of what is wrong.
    pub fn parse(value: &Value) -> Result<Self> {
        let Value::Object(fields) = value else {
            return Err(fault("", "a query is an object, such as {\"filter\": {\"age\": {\"$gte\": 18}}}"));
        };
        for key in fields.keys() {
            if !KNOWN.contains(&key.as_str()) {
                let near = suggestion(key, KNOWN.iter().copied());
                return Err(fault(key, format!("a query has no such field; {near}")));
            }
        }
        let filter = Filter::parse(fields.get("filter").unwrap_or(&json!({})))?;
        let order = fields.get("sort").map(|sort| Sort::parse(sort, "sort")).transpose()?;
        let projection = fields.get("projection").map(|value| Projection::parse(value, "projection")).transpose()?;
        let text = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(fault(name, "is a text")),
        };
        let (cursor, hint) = (text("cursor")?, text("hint")?);
        let offset = whole_number(fields.get("offset"), "offset", 0, QUERY_OFFSET_MAX)?;
        if cursor.is_some() && offset > 0 {
            return Err(fault("offset", "a cursor says where to go on; leave the offset out"));
        }
        let conflicts = match fields.get("conflicts") {
            None => false,
            Some(Value::Bool(conflicts)) => *conflicts,
            Some(_) => return Err(fault("conflicts", "is true or false: whether _conflicts is shown")),
        };
        let limit = whole_number(fields.get("limit"), "limit", QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX)?;
        let is_default = order.is_none();
        let order = in_one_order(order)?;
        Ok(Self { filter, order, is_default, projection, limit, offset, cursor, hint, conflicts })
    }

    /// The same query for other documents.
    #[must_use]
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// Which documents it is about.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The order of its documents.
    #[must_use]
    pub fn order(&self) -> &Sort {
        &self.order
    }

    /// Finds the documents.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a cursor of another query, a hint that is of no use, and when the
    /// time or the memory of the query is over; [`Error::Io`](crate::Error::Io) when the disk cannot be read.
    pub fn run(&self, reader: &Reader, collection: &CollectionName, budget: &Budget) -> Result<Found> {
        Ok(self.run_explained(reader, collection, budget, Duration::MAX)?.0)
    }

    /// Finds the documents, and says how when that took at least so long.
    ///
    /// # Errors
    /// As [`Find::run`].
    pub fn run_explained(
        &self,
        reader: &Reader,
        collection: &CollectionName,
        budget: &Budget,
        slow: Duration,
    ) -> Result<(Found, Option<Explained>)> {
        let reader = &reader.pinned();
        let query = || fingerprint(collection, &self.filter.to_string(), &self.order.to_string());
        let cursor = self.cursor.as_ref().map(|cursor| Cursor::parse(cursor, query())).transpose()?;
        let filter = &in_fields_of_index(reader, collection, &self.filter);
        let rank = Rank::new(reader, collection, filter).filter(|_| self.is_default);
        let planner = Planner::new(reader, collection)?;
        let first = self.offset.saturating_add(self.limit).saturating_add(1);
        // No index has the order of a rank.
        let order = if rank.is_some() { &[] } else { self.order.keys() };
        let wanted = Wanted { order, first: Some(first) };
        let plans = match &self.hint {
            Some(hint) => planner.hinted(hint, filter, wanted)?,
            None => planner.plans(filter, wanted)?,
        };
        let plan = &plans[0];
        let counters = Counters::default();
        let mut damaged = Vec::new();
        let mut walk = Walk::new(reader, collection, filter, budget, &counters, &mut damaged);
        let mut page = Page::new(self, rank.as_ref(), budget, cursor.as_ref(), plan.in_order);
        let start = self.start(plan, cursor.as_ref());
        let in_index_order = plan.in_order && !self.is_by_id();
        let (id, key) = (start.0.as_deref(), start.1.as_deref());
        walk.run(&plan.access, in_index_order, Start { id, key }, &mut |row| page.push(row))?;
        if let Access::Index { index, .. } = &plan.access
            && in_index_order
            && index.is_multiple()
        {
            // A document has got a second key since the plan was made, and may have been seen twice.
            return self.run_explained(reader, collection, budget, slow);
        }
        let is_whole = !page.is_cut && cursor.is_none();
        let (documents, last) = page.finish();
        let next = last.map(|(key, id_bytes)| Cursor::new(query(), key, id_bytes).to_string());
        let matching = counters.matching.get();
        // A filter that everything passes need not be tried to know how many.
        let all = self.filter.is_everything().then(|| reader.collection(collection)).transpose()?.flatten();
        let total_estimate = match (is_whole, all) {
            (true, _) => matching,
            (false, Some(counts)) => counts.documents,
            (false, None) => (plan.matching.round() as u64).max(matching),
        };
        let is_total_exact = is_whole || self.filter.is_everything();
        let took = budget.elapsed();
        let explained = (took >= slow).then(|| {
            let by = rank.map_or_else(|| self.order.to_string(), |rank| rank.name().to_owned());
            explain(self, &by, &plans, &counters, documents.len() as u64, took)
        });
        Ok((Found { documents, next, total_estimate, is_total_exact, damaged }, explained))
    }

    fn is_by_id(&self) -> bool {
        matches!(self.order.keys(), [(path, Direction::Ascending)] if path.is_id())
    }

    /// Where the walk begins: the id behind which, and the key of the index from which.
    fn start(&self, plan: &Plan, cursor: Option<&Cursor>) -> (Option<String>, Option<Vec<u8>>) {
        let Some(cursor) = cursor.filter(|_| plan.in_order) else { return (None, None) };
        if self.is_by_id() {
            return (decode_id(&cursor.key), None);
        }
        match &plan.access {
            Access::Index { index, bounds } => {
                let Some(pattern) = index.definition().pattern() else { return (None, None) };
                let is_asked = |path: &Path| self.order.keys().iter().any(|(asked, _)| asked == path);
                // What is fixed is in the cursor's key only when it was asked for; then the walk begins at its start.
                if pattern.fields()[..bounds.fixed].iter().any(|(path, _)| is_asked(path)) {
                    return (None, None);
                }
                (None, Some([bounds.prefix.as_slice(), cursor.fields()].concat()))
            }
            Access::Walk | Access::Ids(_) | Access::Union(_) | Access::Intersection(..) => (None, None),
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    /// Whether it shows documents as they are.
    pub(super) fn shows_whole(&self) -> bool {
        self.projection.is_none() && !self.conflicts
    }

    /// What is shown of a document.
    pub(super) fn shown(&self, row: Row<'_>) -> Result<Vec<u8>> {
        let shown = match &self.projection {
            Some(projection) => projection.apply(row)?,
            None => whole(row).into_owned(),
        };
        Ok(if self.conflicts { with_conflicts(shown, row.conflicts) } else { shown })
    }

    /// Whether its filter implies an order, and none was asked for.
    pub(super) fn is_ranked(&self) -> bool {
        self.is_default && (self.filter.near().is_some() || self.filter.text().is_some())
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Documents that a sort holds at most.
    pub(super) fn kept(&self) -> usize {
        self.offset + self.limit
    }
}

/// The id that is the whole of a key.
fn decode_id(key: &[u8]) -> Option<String> {
    let inner = key.get(1..key.len().checked_sub(2)?)?;
    // Ids hold no zero bytes, so nothing in them is escaped.
    str::from_utf8(inner).ok().map(str::to_owned)
}

/// An order with the id at its end, unless it is in it.
fn in_one_order(order: Option<Sort>) -> Result<Sort> {
    let id: Path = ID_FIELD.parse()?;
    match order {
        None => Ok(Sort::by(id, Direction::Ascending)),
        Some(order) => Ok(order.then(id, Direction::Ascending)),
    }
}

fn whole_number(value: Option<&Value>, name: &str, default: usize, max: usize) -> Result<usize> {
    let Some(value) = value else { return Ok(default) };
    match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
        Some(number) if number <= max => Ok(number),
        _ => Err(fault(name, format!("is a whole number from 0 to {max}, not {value:.40}"))),
    }
}

/// The page that a query gives.
struct Page<'q> {
    find: &'q Find,
    /// What the order is by, when it is not by fields.
    rank: Option<&'q Rank<'q>>,
    budget: &'q Budget,
    after: Option<&'q Cursor>,
    /// Whether documents come in the order of the page.
    in_order: bool,
    skipped: usize,
    rows: Vec<Held>,
    /// When they do not: those that are first so far, the last of them on top.
    heap: BinaryHeap<Held>,
    bytes: usize,
    is_cut: bool,
    key: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    key: Vec<u8>,
    /// Bytes of the key that are the id's, at its end.
    id_bytes: usize,
    text: Vec<u8>,
}

impl<'q> Page<'q> {
    fn new(
        find: &'q Find,
        rank: Option<&'q Rank<'q>>,
        budget: &'q Budget,
        after: Option<&'q Cursor>,
        in_order: bool,
    ) -> Self {
        let (rows, heap) = (Vec::new(), BinaryHeap::new());
        Self { find, rank, budget, after, in_order, skipped: 0, rows, heap, bytes: 0, is_cut: false, key: Vec::new() }
    }

    fn push(&mut self, row: Row<'_>) -> Result<ControlFlow<()>> {
        self.key.clear();
        if let Some(rank) = self.rank {
            rank.key(row, &mut self.key);
        }
        self.find.order.key(row, &mut self.key);
        if self.after.is_some_and(|after| self.key <= after.key) {
            return Ok(ControlFlow::Continue(()));
        }
        if self.in_order { self.append(row) } else { self.place(row) }
    }

    fn append(&mut self, row: Row<'_>) -> Result<ControlFlow<()>> {
        if self.skipped < self.find.offset {
            self.skipped += 1;
            return Ok(ControlFlow::Continue(()));
        }
        if self.rows.len() >= self.find.limit || self.bytes >= PAGE_BYTES_MAX {
            self.is_cut = true;
            return Ok(ControlFlow::Break(()));
        }
        let text = self.find.shown(row)?;
        self.bytes += text.len();
        self.rows.push(Held { key: self.key.clone(), id_bytes: self.id_bytes(row), text });
        Ok(ControlFlow::Continue(()))
    }

    /// Keeps a document when it is among the first.
    fn place(&mut self, row: Row<'_>) -> Result<ControlFlow<()>> {
        let wanted = self.find.offset + self.find.limit;
        if self.heap.len() >= wanted {
            self.is_cut = true;
            if self.heap.peek().is_none_or(|last| self.key >= last.key) {
                return Ok(ControlFlow::Continue(()));
            }
            if let Some(last) = self.heap.pop() {
                self.budget.give_back(last.key.len() + last.text.len());
            }
        }
        let held = Held { key: self.key.clone(), id_bytes: self.id_bytes(row), text: self.find.shown(row)? };
        self.budget.take(held.key.len() + held.text.len(), "sort")?;
        self.heap.push(held);
        Ok(ControlFlow::Continue(()))
    }

    /// Bytes of the id at the end of the key of a document.
    fn id_bytes(&self, row: Row<'_>) -> usize {
        let mut key = Vec::new();
        if let (Some((path, direction)), Some(id)) = (self.find.order.keys().last(), row.id)
            && path.is_id()
        {
            encode(id, *direction, &mut key);
        }
        key.len()
    }

    /// The documents, and when there are more the key of the last of them, with the bytes of the id in it.
    fn finish(mut self) -> (Vec<Bytes>, Option<(Vec<u8>, usize)>) {
        if !self.in_order {
            let sorted = std::mem::take(&mut self.heap).into_sorted_vec();
            for held in sorted.into_iter().skip(self.find.offset) {
                if self.bytes >= PAGE_BYTES_MAX {
                    self.is_cut = true;
                    break;
                }
                self.bytes += held.text.len();
                self.rows.push(held);
            }
        }
        let last = self.rows.last().filter(|_| self.is_cut).map(|held| (held.key.clone(), held.id_bytes));
        (self.rows.into_iter().map(|held| held.text.into()).collect(), last)
    }
}
