//! How many documents match, and which values they have.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_json::Value;

use super::Budget;
use super::execute::{Counters, Start, Walk};
use super::plan::{Access, Planner, Wanted};
use super::rank::in_fields_of_index;
use crate::Result;
use crate::base::CollectionName;
use crate::filter::Filter;
use crate::store::Reader;
use crate::value::{Direction, Json, Kind, Leaf, Path, encode};

/// How many documents of a collection match a filter. An index answers alone where its keys say all that is asked.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) when the time of the query is over, [`Error::Io`](crate::Error::Io) when
/// the disk cannot be read.
pub fn count(reader: &Reader, collection: &CollectionName, filter: &Filter, budget: &Budget) -> Result<u64> {
    let reader = &reader.pinned();
    if filter.is_everything() {
        return Ok(reader.collection(collection)?.map_or(0, |counts| counts.documents));
    }
    let filter = &in_fields_of_index(reader, collection, filter);
    let planner = Planner::new(reader, collection)?;
    let wanted = Wanted { order: &[], first: None };
    let plans = planner.plans(filter, wanted)?;
    if let Some(counted) = plans.iter().find_map(|plan| by_keys(reader, &plan.access, budget).transpose()) {
        return counted;
    }
    let (counters, mut damaged) = (Counters::default(), Vec::new());
    let mut walk = Walk::new(reader, collection, filter, budget, &counters, &mut damaged);
    walk.run(&plans[0].access, false, Start::default(), &mut |_| Ok(ControlFlow::Continue(())))?;
    Ok(counters.matching.get())
}

/// How many documents match, about, without looking at them.
///
/// # Errors
/// As [`count`].
pub fn estimate(reader: &Reader, collection: &CollectionName, filter: &Filter) -> Result<u64> {
    let reader = &reader.pinned();
    let filter = &in_fields_of_index(reader, collection, filter);
    let planner = Planner::new(reader, collection)?;
    let plans = planner.plans(filter, Wanted { order: &[], first: None })?;
    Ok(plans.iter().map(|plan| plan.matching).fold(f64::INFINITY, f64::min).round() as u64)
}

/// The count by the keys of an index alone; `None` when they do not say all.
fn by_keys(reader: &Reader, access: &Access, budget: &Budget) -> Result<Option<u64>> {
    let Access::Index { index, bounds } = access else { return Ok(None) };
    let mut is_whole = bounds.exact;
    reader.overflow(index, &mut |_| {
        is_whole = false;
        ControlFlow::Break(())
    })?;
    if !is_whole {
        return Ok(None);
    }
    let (mut counted, mut ended) = (0, Ok(()));
    for (from, to) in &bounds.spans {
        reader.entries(index, from, Some(to), &mut |_, _| {
            counted += 1;
            ended = budget.check();
            if ended.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    ended?;
    // A document may have got a second key since the bounds were made.
    Ok((!index.is_multiple()).then_some(counted))
}

/// The different values that a path finds in the matching documents, in their order; the items of arrays count each,
/// as in MongoDB. Numbers that are equal are one, as the first of them was written.
///
/// # Errors
/// As [`count`], and when they need more memory than the query may take.
pub fn distinct(
    reader: &Reader,
    collection: &CollectionName,
    path: &Path,
    filter: &Filter,
    budget: &Budget,
) -> Result<Vec<Value>> {
    let reader = &reader.pinned();
    let filter = &in_fields_of_index(reader, collection, filter);
    let planner = Planner::new(reader, collection)?;
    let plans = planner.plans(filter, Wanted { order: &[], first: None })?;
    let (counters, mut damaged) = (Counters::default(), Vec::new());
    let mut walk = Walk::new(reader, collection, filter, budget, &counters, &mut damaged);
    let mut values: BTreeMap<Vec<u8>, Box<[u8]>> = BTreeMap::new();
    let mut key = Vec::new();
    walk.run(&plans[0].access, false, Start::default(), &mut |row| {
        let mut add = |value: Json<'_>| -> Result<()> {
            key.clear();
            encode(value, Direction::Ascending, &mut key);
            if !values.contains_key(&key) {
                budget.take(key.len() + value.text().len(), "distinct")?;
                values.insert(key.clone(), value.text().into());
            }
            Ok(())
        };
        let seen = path.visit_row(row, Leaf::Whole, &mut |value| {
            let Some(value) = value else { return ControlFlow::Continue(()) };
            let added = match value.kind() {
                Kind::Array => value.items().try_for_each(&mut add),
                Kind::Null | Kind::Number | Kind::String | Kind::Object | Kind::Bool => add(value),
            };
            match added {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        });
        match seen {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(ControlFlow::Continue(())),
        }
    })?;
    Ok(values.into_values().map(|text| serde_json::from_slice(&text).unwrap_or_default()).collect())
}
