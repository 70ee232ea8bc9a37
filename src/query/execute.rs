//! Walking a plan: candidates one by one, in the order that the plan gives.
//!
//! Whatever named a candidate, its view is read and the whole filter tried on it: an entry of an index that changed
//! meanwhile leads to no wrong document. A document that is moved by a write while a walk goes on may be seen at
//! neither of its places; live queries and cursors say what they make of that.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::bounds::Bounds;
use super::plan::Access;
use super::{Budget, Flow};
use crate::Result;
use crate::base::{CollectionName, DocumentId, DocumentKey};
use crate::filter::Filter;
use crate::limits::DAMAGED_SHOWN_MAX;
use crate::store::{Index, Reader, View};
use crate::value::{Json, Row};

/// What a walk has looked at.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) entries: Cell<u64>,
    pub(super) documents: Cell<u64>,
    pub(super) matching: Cell<u64>,
}

/// Adds one.
pub(super) fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// A walk through candidates.
pub(super) struct Walk<'a> {
    pub(super) reader: &'a Reader,
    pub(super) collection: &'a CollectionName,
    pub(super) filter: &'a Filter,
    pub(super) budget: &'a Budget,
    pub(super) counters: &'a Counters,
    /// Documents that are damaged on this peer's disk.
    pub(super) damaged: &'a mut Vec<DocumentId>,
    text: Vec<u8>,
}

/// Where a walk begins: behind an id, or at a key of an index.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Start<'a> {
    pub(super) id: Option<&'a str>,
    /// For an index in order: the key of its entries from which on documents are wanted.
    pub(super) key: Option<&'a [u8]>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        reader: &'a Reader,
        collection: &'a CollectionName,
        filter: &'a Filter,
        budget: &'a Budget,
        counters: &'a Counters,
        damaged: &'a mut Vec<DocumentId>,
    ) -> Self {
        Self { reader, collection, filter, budget, counters, damaged, text: Vec::new() }
    }

    /// Hands over the matching documents that a way finds: in the order of an index when `in_index_order`, otherwise in
    /// that of their ids.
    pub(super) fn run(
        &mut self,
        access: &Access,
        in_index_order: bool,
        start: Start<'_>,
        sink: &mut dyn FnMut(Row<'_>) -> Flow,
    ) -> Result<()> {
        match access {
            Access::Walk => self.walk(start.id, sink),
            Access::Index { index, bounds } if in_index_order => self.along(index, bounds, start.key, sink),
            Access::Ids(_) | Access::Index { .. } | Access::Union(_) | Access::Intersection(..) => {
                let ids = self.ids(access)?;
                let from = |id: &&String| start.id.is_none_or(|start| id.as_str() > start);
                for id in ids.iter().filter(from) {
                    if self.fetch(id, sink)?.is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    fn walk(&mut self, after: Option<&str>, sink: &mut dyn FnMut(Row<'_>) -> Flow) -> Result<()> {
        let mut ended = Ok(ControlFlow::Continue(()));
        self.reader.clone().views(self.collection, after, &mut |id, view| {
            ended = self.try_row(id, view, sink);
            if matches!(ended, Ok(ControlFlow::Continue(()))) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        ended.map(|_| ())
    }

    /// Documents in the order of an index.
    fn along(
        &mut self,
        index: &Index,
        bounds: &Bounds,
        start: Option<&[u8]>,
        sink: &mut dyn FnMut(Row<'_>) -> Flow,
    ) -> Result<()> {
        let reader = self.reader.clone();
        let mut ended = Ok(ControlFlow::Continue(()));
        for (from, to) in &bounds.spans {
            let from = start.map_or(from.as_slice(), |start| from.as_slice().max(start));
            reader.entries(index, from, Some(to), &mut |_, id| {
                count(&self.counters.entries);
                ended = self.fetch(id, sink);
                if matches!(ended, Ok(ControlFlow::Continue(()))) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            if !matches!(ended, Ok(ControlFlow::Continue(()))) {
                break;
            }
        }
        ended.map(|_| ())
    }

    /// The ids that a way names.
    fn ids(&self, access: &Access) -> Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        match access {
            Access::Walk => {}
            Access::Ids(named) => ids.extend(named.iter().cloned()),
            Access::Index { index, bounds } => {
                self.each_entry(index, bounds, &mut |id| {
                    if !ids.contains(id) {
                        self.budget.take(id.len() + size_of::<String>() * 2, "filter")?;
                        ids.insert(id.to_owned());
                    }
                    Ok(())
                })?;
            }
            Access::Union(ways) => {
                for way in ways {
                    ids.append(&mut self.ids(way)?);
                }
            }
            Access::Intersection(one, other, _) => {
                let (one, other) = (self.ids(one)?, self.ids(other)?);
                ids.extend(one.into_iter().filter(|id| other.contains(id)));
            }
        }
        Ok(ids)
    }

    fn each_entry(&self, index: &Index, bounds: &Bounds, visit: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        let mut ended = Ok(());
        let mut each = |id: &str| {
            count(&self.counters.entries);
            ended = self.budget.check().and_then(|()| visit(id));
            if ended.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        for (from, to) in &bounds.spans {
            self.reader.entries(index, from, Some(to), &mut |_, id| each(id))?;
        }
        self.reader.overflow(index, &mut |id| each(id))?;
        ended
    }

    fn fetch(&mut self, id: &str, sink: &mut dyn FnMut(Row<'_>) -> Flow) -> Flow {
        let Ok(id) = id.parse::<DocumentId>() else { return Ok(ControlFlow::Continue(())) };
        let document = DocumentKey::new(self.collection.clone(), id);
        let (reader, id) = (self.reader, document.id.as_str());
        match reader.view(&document, |view| self.try_row(id, Some(view), sink)) {
            Ok(Some(flow)) => flow,
            Ok(None) => Ok(ControlFlow::Continue(())),
            Err(crate::Error::Corrupt(_)) => self.try_row(id, None, sink),
            Err(error) => Err(error),
        }
    }

    /// Tries the filter on a document.
    fn try_row(&mut self, id: &str, view: Option<View<'_>>, sink: &mut dyn FnMut(Row<'_>) -> Flow) -> Flow {
        self.budget.check()?;
        count(&self.counters.documents);
        let Some(view) = view else {
            if self.damaged.len() < DAMAGED_SHOWN_MAX {
                self.damaged.extend(id.parse::<DocumentId>());
            }
            return Ok(ControlFlow::Continue(()));
        };
        self.text.clear();
        quote(id, &mut self.text);
        let row = Row { id: Some(Json::new(&self.text)), body: Json::new(view.json), conflicts: view.conflicts };
        if !self.filter.matches(row) {
            return Ok(ControlFlow::Continue(()));
        }
        count(&self.counters.matching);
        sink(row)
    }
}

/// Writes a string as JSON text.
fn quote(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("writing to memory does not fail");
    }
}
