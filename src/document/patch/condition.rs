//! Which elements `$pull` takes out: equality, comparisons, and matches of fields.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::Value;

use super::Path;
use super::equality::{canonical, compare};
use crate::base::suggestion;
use crate::document::json::Object;
use crate::error::Error;
use crate::limits::PATCH_CONDITIONS_MAX;

const COMPARISONS: [&str; 8] = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin"];

/// A condition on one value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::document) enum Condition {
    /// All of these comparisons hold.
    Tests(Vec<Test>),
    /// It is an object whose fields meet these.
    Fields(Vec<(Vec<String>, Vec<Test>)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::document) enum Test {
    Equal(Value, bool),
    Among(HashSet<Value>, bool),
    /// The value stands in one of these orders to the other, which is of the same kind.
    Order(&'static [Ordering], Value),
}

impl Condition {
    /// Reads what stands beside a path under `$pull`.
    pub(super) fn parse(path: &Path, value: &Value) -> Result<Self, Error> {
        let condition = match value.as_object() {
            Some(fields) if fields.is_empty() => {
                return Err(path.fault("an empty condition says nothing about what to pull"));
            }
            Some(fields) if !has_operator(fields) => {
                let names = |name: &str| name.split('.').map(str::to_owned).collect();
                let parse = |(name, value): (&String, &Value)| Ok((names(name), tests(path, value)?));
                Self::Fields(fields.iter().map(parse).collect::<Result<_, Error>>()?)
            }
            Some(_) | None => Self::Tests(tests(path, value)?),
        };
        let count = match &condition {
            Self::Tests(tests) => tests.len(),
            Self::Fields(fields) => fields.iter().map(|(_, tests)| tests.len()).sum(),
        };
        if count > PATCH_CONDITIONS_MAX {
            return Err(path.fault(format!("{count} conditions, the limit is {PATCH_CONDITIONS_MAX}")));
        }
        Ok(condition)
    }

    /// Whether a canonical value meets it.
    pub(in crate::document) fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Tests(tests) => tests.iter().all(|test| test.holds(value)),
            Self::Fields(fields) => {
                value.is_object()
                    && fields.iter().all(|(names, tests)| {
                        let field = names.iter().try_fold(value, |value, name| value.get(name.as_str()));
                        tests.iter().all(|test| test.holds(field.unwrap_or(&Value::Null)))
                    })
            }
        }
    }
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Equal(other, wanted) => (value == other) == *wanted,
            Self::Among(others, wanted) => others.contains(value) == *wanted,
            Self::Order(wanted, other) => compare(value, other).is_some_and(|order| wanted.contains(&order)),
        }
    }
}

/// Comparisons when the value is an object of such operators, else equality with it.
fn tests(path: &Path, value: &Value) -> Result<Vec<Test>, Error> {
    match value.as_object().filter(|fields| has_operator(fields)) {
        Some(operators) => operators.iter().map(|(operator, value)| comparison(path, operator, value)).collect(),
        None => Ok(vec![Test::Equal(canonical(value), true)]),
    }
}

fn has_operator(fields: &Object) -> bool {
    fields.keys().any(|key| key.starts_with('$'))
}

fn comparison(path: &Path, operator: &str, value: &Value) -> Result<Test, Error> {
    use Ordering::{Equal, Greater, Less};
    let orders: &[Ordering] = match operator {
        "$eq" => return Ok(Test::Equal(canonical(value), true)),
        "$ne" => return Ok(Test::Equal(canonical(value), false)),
        "$in" | "$nin" => {
            let Value::Array(values) = value else { return Err(path.fault(format!("{operator} takes a list"))) };
            return Ok(Test::Among(values.iter().map(canonical).collect(), operator == "$in"));
        }
        "$gt" => &[Greater],
        "$gte" => &[Greater, Equal],
        "$lt" => &[Less],
        "$lte" => &[Less, Equal],
        unknown => {
            let near = suggestion(unknown, COMPARISONS);
            return Err(path.fault(format!("unknown condition {unknown:?} in $pull; {near}")));
        }
    };
    match value {
        Value::Number(_) | Value::String(_) | Value::Bool(_) => Ok(Test::Order(orders, canonical(value))),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(path.fault(format!("{operator} compares numbers, strings and booleans")))
        }
    }
}
