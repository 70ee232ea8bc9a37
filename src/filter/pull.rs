//! Which elements of a list an update takes out: `$pull`.
//!
//! As in MongoDB a value that is no condition is equality with the whole element; a condition on fields is a filter on
//! elements that are objects; operators alone are asked of the element as of the value of a field, so that one that is an
//! array is looked into.

use serde_json::Value;

use super::condition::{Element, Operand};
use super::fault::fault;
use super::{matching, parse};
use crate::Result;
use crate::limits::PATCH_CONDITIONS_MAX;
use crate::value::{Json, compare};

/// Which elements of a list are meant.
#[derive(Debug, Clone)]
pub struct Pull {
    source: Value,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Equal(Operand),
    Such(Element),
}

impl Pull {
    /// Reads what stands beside a path under `$pull`; `at` is that path.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) as for a filter, beyond [`PATCH_CONDITIONS_MAX`] conditions, and for an empty
    /// condition, which MongoDB takes for one about every object.
    pub fn parse(value: &Value, at: &str) -> Result<Self> {
        let rule = match value {
            Value::Object(fields) if fields.is_empty() => {
                return Err(fault(at, "an empty condition says nothing about what to pull"));
            }
            Value::Object(_) => Rule::Such(parse::element(value, at, PATCH_CONDITIONS_MAX)?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Rule::Equal(parse::operand(value, at)?)
            }
        };
        Ok(Self { source: value.clone(), rule })
    }

    /// Whether an element is among those that go.
    #[must_use]
    pub fn takes(&self, element: Json<'_>) -> bool {
        match &self.rule {
            Rule::Equal(operand) => compare(element, operand.json()).is_eq(),
            Rule::Such(such) => matching::is_pulled(element, such),
        }
    }
}

impl PartialEq for Pull {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}
