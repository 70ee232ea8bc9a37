//! Telling how a query was answered: the plan as a tree with what was expected and what came, and the plans not taken.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::bounds::Bounds;
use super::execute::Counters;
use super::find::Find;
use super::plan::{Access, Plan};

/// How a query was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// The tree, from the result down to where documents come from.
    pub plan: Value,
    /// Plans that were not taken, with their costs.
    pub rejected: Vec<Value>,
    /// Entries of indexes that were read.
    pub entries_examined: u64,
    /// Documents that were looked at.
    pub documents_examined: u64,
    /// How long it took.
    pub time: Duration,
}

impl Explained {
    /// All of it as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "plan": self.plan,
            "rejected": self.rejected,
            "entries_examined": self.entries_examined,
            "documents_examined": self.documents_examined,
            "time_us": u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX),
        })
    }
}

pub(super) fn explain(
    find: &Find,
    by: &str,
    plans: &[Plan],
    counters: &Counters,
    returned: u64,
    time: Duration,
) -> Explained {
    let Some((plan, others)) = plans.split_first() else {
        return Explained { plan: Value::Null, rejected: Vec::new(), entries_examined: 0, documents_examined: 0, time };
    };
    let (entries, documents, matching) = (counters.entries.get(), counters.documents.get(), counters.matching.get());
    let mut source = access(&plan.access);
    let looked = if matches!(plan.access, Access::Walk | Access::Ids(_)) { documents } else { entries };
    rows(&mut source, plan.candidates, looked);
    let mut tree = source;
    if !find.filter().is_everything() || !matches!(plan.access, Access::Walk) {
        tree = json!({ "stage": "filter", "filter": find.filter().to_json(), "input": tree });
        rows(&mut tree, plan.matching, matching);
    }
    if !plan.in_order {
        tree = json!({ "stage": "sort", "by": by, "keeps": find.kept(), "input": tree });
        rows(&mut tree, plan.matching, matching);
    }
    tree = json!({ "stage": "limit", "limit": find.limit(), "offset": find.offset(), "input": tree });
    rows(&mut tree, plan.matching.min(find.limit() as f64), returned);
    tree["cost"] = rounded(plan.cost);
    let other = |plan: &Plan| {
        let mut shown = access(&plan.access);
        shown["in_order"] = plan.in_order.into();
        shown["estimated_rows"] = rounded(plan.candidates);
        shown["cost"] = rounded(plan.cost);
        shown
    };
    let rejected = others.iter().map(other).collect();
    Explained { plan: tree, rejected, entries_examined: entries, documents_examined: documents, time }
}

fn rows(stage: &mut Value, estimated: f64, actual: u64) {
    stage["estimated_rows"] = rounded(estimated);
    stage["actual_rows"] = actual.into();
}

/// Costs and guesses are no finer than this.
fn rounded(number: f64) -> Value {
    json!((number * 10.0).round() / 10.0)
}

fn access(way: &Access) -> Value {
    match way {
        Access::Walk => json!({ "stage": "walk" }),
        Access::Ids(ids) => json!({ "stage": "ids", "ids": ids.len() }),
        Access::Index { index, bounds } => {
            let mut shown = json!({ "stage": "index", "index": index.name().as_str() });
            if let (Value::Object(all), Value::Object(more)) = (&mut shown, narrowed(bounds)) {
                all.extend(more);
            }
            shown
        }
        Access::Union(ways) => json!({ "stage": "union", "inputs": ways.iter().map(access).collect::<Vec<_>>() }),
        Access::Intersection(one, other, _) => {
            json!({ "stage": "intersection", "inputs": [access(one), access(other)] })
        }
    }
}

fn narrowed(bounds: &Bounds) -> Value {
    let mut shown = Map::new();
    shown.insert("fields_used".into(), bounds.used.into());
    shown.insert("spans".into(), bounds.spans.len().into());
    Value::Object(shown)
}
