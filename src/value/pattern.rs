//! Several paths, each with a direction: what is sorted by, and what an index is ordered by.
//!
//! Objects lose the order of their keys where JSON is read into sorted maps, and here the order is the meaning. So
//! more than one field is given as a list, `[{"country": 1}, {"name": -1}]`, or as a text, `country,-name`.

use serde_json::Value;

use super::key::Direction;
use super::path::Path;
use crate::limits::PATTERN_FIELDS_MAX;
use crate::{Error, Result};

/// Paths with directions, the most significant first; at least one, and none twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    fields: Vec<(Path, Direction)>,
}

impl Pattern {
    /// Reads `{"a": 1}`, `[{"a": 1}, {"b": -1}]`, `["a", "-b"]` or `"a,-b"`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, for a path twice, and for more than [`PATTERN_FIELDS_MAX`] fields.
    pub fn parse(value: &Value) -> Result<Self> {
        let fields = match value {
            Value::String(text) => text.split(',').map(signed).collect::<Result<Vec<_>>>()?,
            Value::Array(items) => items.iter().map(item).collect::<Result<Vec<_>>>()?,
            Value::Object(fields) if fields.len() > 1 => {
                return Err(Error::invalid(
                    "the order of several fields in an object is not kept; write them as a list, such as \
                     [{\"country\": 1}, {\"name\": -1}], or as \"country,-name\"",
                ));
            }
            Value::Object(_) => vec![item(value)?],
            Value::Null | Value::Bool(_) | Value::Number(_) => return Err(unreadable(value)),
        };
        Self::new(fields)
    }

    /// These fields.
    ///
    /// # Errors
    /// As [`Pattern::parse`].
    pub fn new(fields: Vec<(Path, Direction)>) -> Result<Self> {
        if fields.is_empty() {
            return Err(Error::invalid("name at least one field, such as {\"name\": 1}"));
        }
        if fields.len() > PATTERN_FIELDS_MAX {
            let message = format!("{} fields are more than the {PATTERN_FIELDS_MAX} that are allowed", fields.len());
            return Err(Error::invalid(message));
        }
        for (index, (path, _)) in fields.iter().enumerate() {
            if fields[..index].iter().any(|(other, _)| other == path) {
                return Err(Error::invalid(format!("the field {path} is named twice")));
            }
        }
        Ok(Self { fields })
    }

    /// The fields.
    #[must_use]
    pub fn fields(&self) -> &[(Path, Direction)] {
        &self.fields
    }

    /// The fields as a list of objects.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let field = |(path, direction): &(Path, Direction)| {
            let sign = match direction {
                Direction::Ascending => 1,
                Direction::Descending => -1,
            };
            serde_json::json!({ path.to_string(): sign })
        };
        self.fields.iter().map(field).collect()
    }
}

fn unreadable(value: &Value) -> Error {
    let shown: String = value.to_string().chars().take(60).collect();
    Error::invalid(format!("{shown} is no field with a direction; write {{\"name\": 1}} or {{\"name\": -1}}"))
}

fn item(value: &Value) -> Result<(Path, Direction)> {
    match value {
        Value::String(text) => signed(text),
        Value::Object(fields) if fields.len() == 1 => {
            let (path, direction) = fields.iter().next().expect("there is one");
            let direction = match direction.as_f64() {
                Some(1.0) => Direction::Ascending,
                Some(-1.0) => Direction::Descending,
                _ => return Err(Error::invalid(format!("the direction of {path} is 1 or -1, not {direction}"))),
            };
            Ok((path.parse()?, direction))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Err(unreadable(value)),
    }
}

fn signed(text: &str) -> Result<(Path, Direction)> {
    match text.trim().strip_prefix('-') {
        Some(path) => Ok((path.parse()?, Direction::Descending)),
        None => Ok((text.trim().parse()?, Direction::Ascending)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_spelling_means_the_same() {
        let pattern = Pattern::parse(&json!([{"a.b": 1}, {"c": -1}])).unwrap();
        for spelling in [json!("a.b,-c"), json!("a.b, -c"), json!(["a.b", "-c"]), pattern.to_json()] {
            assert_eq!(Pattern::parse(&spelling).unwrap(), pattern);
        }
        assert_eq!(Pattern::parse(&json!({"a": 1})).unwrap(), Pattern::parse(&json!("a")).unwrap());
    }

    #[test]
    fn what_is_ambiguous_or_wrong_is_refused() {
        let many: Vec<String> = (0..100).map(|n| format!("f{n}")).collect();
        let wrong = [
            json!({"a": 1, "b": 1}),
            json!({}),
            json!([]),
            json!(""),
            json!({"a": 2}),
            json!({"a": "up"}),
            json!([{"a": 1}, {"a": -1}]),
            json!([[1]]),
            json!(3),
            json!(null),
            json!(many),
        ];
        for value in wrong {
            assert!(matches!(Pattern::parse(&value), Err(Error::Invalid(_))), "{value}");
        }
    }
}
