//! What an index is.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::base::edit_distance;
use crate::limits::INDEX_NAME_BYTES_MAX;
use crate::value::Pattern;
use crate::{Error, Result};

/// The name of an index within its collection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexName(String);

impl IndexName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IndexName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if text.is_empty() || text.len() > INDEX_NAME_BYTES_MAX || !text.bytes().all(is_fine) {
            return Err(Error::invalid(format!(
                "{text:?} is no name of an index: 1 to {INDEX_NAME_BYTES_MAX} letters, digits, dots, hyphens and \
                 underscores"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// How an index is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// By the values of fields. A list in a field gives a key for each of its items.
    Ordered(Pattern),
}

/// What an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// How it is ordered.
    pub shape: Shape,
    /// Whether no two documents may have the same key. See [`Definition::parse`].
    pub unique: bool,
    /// Whether documents with none of the fields are left out.
    pub sparse: bool,
}

/// What a definition may say.
const KNOWN: &[&str] = &["fields", "unique", "sparse"];

impl Definition {
    /// Reads a definition: `{"fields": [{"country": 1}, {"name": -1}], "unique": false, "sparse": false}`, where
    /// only the fields are needed; see [`Pattern::parse`] for their spellings.
    ///
    /// `unique` refuses writes on this peer that would give two documents the same key. What other peers write while
    /// they are apart cannot be refused: then both documents stay, and the index lists the conflict.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong.
    pub fn parse(value: &Value) -> Result<Self> {
        let Value::Object(fields) = value else {
            return Err(Error::invalid("an index is declared by an object, such as {\"fields\": {\"name\": 1}}"));
        };
        for key in fields.keys() {
            if !KNOWN.contains(&key.as_str()) {
                let nearest = KNOWN.iter().min_by_key(|known| edit_distance(key, known)).expect("some are known");
                return Err(Error::invalid(format!("an index has no {key:?}; the nearest known is {nearest:?}")));
            }
        }
        let flag = |name: &str| match fields.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(Error::invalid(format!("{name} is true or false, not {other}"))),
        };
        let pattern = fields.get("fields").ok_or_else(|| {
            Error::invalid("name the fields of the index, such as \"fields\": [{\"country\": 1}, {\"name\": -1}]")
        })?;
        Ok(Self { shape: Shape::Ordered(Pattern::parse(pattern)?), unique: flag("unique")?, sparse: flag("sparse")? })
    }

    /// The definition in its one written form, which [`Definition::parse`] reads.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Shape::Ordered(pattern) = &self.shape;
        json!({ "fields": pattern.to_json(), "unique": self.unique, "sparse": self.sparse })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_reads_back() {
        let written = json!({ "fields": [{"country": 1}, {"name": -1}], "unique": true });
        let definition = Definition::parse(&written).unwrap();
        assert!(definition.unique && !definition.sparse);
        assert_eq!(Definition::parse(&definition.to_json()).unwrap(), definition);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |value| Definition::parse(&value).unwrap_err().to_string();
        assert!(message(json!({ "fields": {"a": 1}, "uniqe": true })).contains("\"unique\""));
        assert!(message(json!({ "unique": true })).contains("fields"));
        assert!(message(json!({ "fields": {"a": 1}, "sparse": 1 })).contains("sparse is true or false"));
        assert!(message(json!("a")).contains("object"));
        for name in ["", "a b", "a/b", &"x".repeat(65), "\u{e9}"] {
            assert!(name.parse::<IndexName>().is_err());
        }
    }
}
