//! What an index is.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::base::suggestion;
use crate::filter::Filter;
use crate::limits::{INDEX_DEFINITION_BYTES_MAX, INDEX_EXPIRE_AFTER_S_MAX, INDEX_NAME_BYTES_MAX};
use crate::value::{Direction, Path, Pattern, Row};
use crate::{Error, Invalid, Result};

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

/// What the keys of an index are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// The values of fields. A list in a field gives a key for each of its items.
    Ordered(Pattern),
    /// The cell of the grid that the point in a field is in; of a list of points, each.
    Geo(Path),
    /// The words in these fields, sorted; in every string of the document when there are none.
    Text(Vec<Path>),
}

/// What an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What its keys are made of.
    pub shape: Shape,
    /// Whether no two documents may have the same key. See [`Definition::parse`].
    pub unique: bool,
    /// Whether documents with none of the fields are left out.
    pub sparse: bool,
    /// Which documents it takes; all without one.
    pub filter: Option<Filter>,
    /// Seconds after the time in its field when a document is deleted.
    pub expire_after_s: Option<u64>,
}

/// What a definition may say.
const KNOWN: &[&str] = &["type", "fields", "unique", "sparse", "filter", "expire_after_s"];

/// What may be said under `type`.
const TYPES: &[&str] = &["ordered", "geo", "text"];

impl Definition {
    /// Reads a definition: `{"fields": [{"country": 1}, {"name": -1}], "unique": false, "sparse": false}`, where
    /// only the fields are needed; see [`Pattern::parse`] for their spellings.
    ///
    /// - `unique` refuses writes on this peer that would give two documents the same key. What other peers write while
    ///   they are apart cannot be refused: then both documents stay, and the index lists the conflict.
    /// - `filter` leaves out documents that do not match it.
    /// - `expire_after_s` has this peer delete documents that long after the time in the one field of the index:
    ///   milliseconds since 1970, or such a text as `2026-11-25T10:00:00Z`.
    /// - `{"type": "geo", "fields": "place"}` is over points, `{"lat": .., "lng": ..}`.
    /// - `{"type": "text", "fields": ["title", "body"]}` is over words; over those of all strings without fields, or
    ///   with `"*"`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong.
    pub fn parse(value: &Value) -> Result<Self> {
        let Value::Object(fields) = value else {
            return Err(Error::invalid("an index is declared by an object, such as {\"fields\": {\"name\": 1}}"));
        };
        if let Some(key) = fields.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(Error::invalid(format!("an index has no {key:?}; {}", suggestion(key, KNOWN.iter().copied()))));
        }
        let definition = Self {
            shape: shape(fields)?,
            unique: flag(fields, "unique")?,
            sparse: flag(fields, "sparse")?,
            filter: filter(fields)?,
            expire_after_s: expire_after_s(fields)?,
        };
        definition.check()?;
        Ok(definition)
    }

    /// Checks that its parts go together, and that what is stored of it can be read again.
    fn check(&self) -> Result<()> {
        let (kind, left_out) = match &self.shape {
            Shape::Ordered(pattern) if self.expire_after_s.is_some() && pattern.fields().len() != 1 => {
                return Err(Error::invalid(
                    "expire_after_s needs an index with one field, the one that holds the time; declare another index",
                ));
            }
            Shape::Ordered(_) => return self.check_text(),
            Shape::Geo(_) => ("geo", "a point"),
            Shape::Text(_) => ("text", "a word"),
        };
        if self.unique {
            return Err(Error::invalid(format!("an index of the type {kind} cannot be unique; an ordered one can")));
        }
        if self.sparse {
            let message = format!(
                "an index of the type {kind} leaves out documents without {left_out} by itself; leave sparse out"
            );
            return Err(Error::invalid(message));
        }
        if self.expire_after_s.is_some() {
            return Err(Error::invalid(format!(
                "expire_after_s needs an ordered index with one field, the one that holds the time; this one is of the \
                 type {kind}"
            )));
        }
        self.check_text()
    }

    fn check_text(&self) -> Result<()> {
        let text = self.to_json().to_string();
        if text.len() > INDEX_DEFINITION_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the declaration of an index has {} bytes, the limit is {INDEX_DEFINITION_BYTES_MAX}",
                text.len()
            )));
        }
        if serde_json::from_str::<Value>(&text).is_err() {
            return Err(Error::invalid("the filter of an index holds a value that is nested too deeply"));
        }
        Ok(())
    }

    /// Whether a document is among those that it is over.
    #[must_use]
    pub fn takes(&self, row: Row<'_>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(row))
    }

    /// The fields that it is ordered by; `None` when its keys are no values of fields.
    #[must_use]
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.shape {
            Shape::Ordered(pattern) => Some(pattern),
            Shape::Geo(_) | Shape::Text(_) => None,
        }
    }

    /// The definition in its one written form, which [`Definition::parse`] reads.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut written = match &self.shape {
            Shape::Ordered(pattern) => json!({
                "type": "ordered", "fields": pattern.to_json(), "unique": self.unique, "sparse": self.sparse,
            }),
            Shape::Geo(path) => json!({ "type": "geo", "fields": path.to_string() }),
            Shape::Text(paths) if paths.is_empty() => json!({ "type": "text", "fields": "*" }),
            Shape::Text(paths) => {
                json!({ "type": "text", "fields": paths.iter().map(ToString::to_string).collect::<Vec<_>>() })
            }
        };
        if let Some(filter) = &self.filter {
            written["filter"] = filter.to_json();
        }
        if let Some(seconds) = self.expire_after_s {
            written["expire_after_s"] = seconds.into();
        }
        written
    }
}

fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool> {
    match fields.get(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(Error::invalid(format!("{name} is true or false, not {other}"))),
    }
}

fn shape(fields: &Map<String, Value>) -> Result<Shape> {
    let named = fields.get("fields");
    let kind = match fields.get("type") {
        None => "ordered",
        Some(Value::String(kind)) => kind,
        Some(other) => return Err(Error::invalid(format!("type is one of {}, not {other}", TYPES.join(", ")))),
    };
    match kind {
        "ordered" => {
            let pattern = named.ok_or_else(|| {
                Error::invalid("name the fields of the index, such as \"fields\": [{\"country\": 1}, {\"name\": -1}]")
            })?;
            Ok(Shape::Ordered(Pattern::parse(pattern)?))
        }
        "geo" => match named.map(paths).transpose()?.as_deref() {
            Some([path]) => Ok(Shape::Geo(path.clone())),
            _ => Err(Error::invalid("an index of the type geo has one field, such as \"fields\": \"place\"")),
        },
        "text" => match named {
            None => Ok(Shape::Text(Vec::new())),
            Some(Value::String(all)) if all == "*" => Ok(Shape::Text(Vec::new())),
            Some(named) => Ok(Shape::Text(paths(named)?)),
        },
        other => Err(Error::invalid(format!(
            "there is no index of the type {other:?}; {}",
            suggestion(other, TYPES.iter().copied())
        ))),
    }
}

/// Paths without directions, sorted: `["title", "body"]` or `"title,body"`.
fn paths(value: &Value) -> Result<Vec<Path>> {
    let wrong =
        || Error::invalid(format!("the fields are paths, such as \"title\" or [\"title\", \"body\"], not {value:.60}"));
    let texts: Vec<&str> = match value {
        Value::String(text) => text.split(',').map(str::trim).collect(),
        Value::Array(items) => items.iter().map(|item| item.as_str().ok_or_else(wrong)).collect::<Result<_>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(wrong()),
    };
    if let Some(odd) = texts.iter().find(|text| text.starts_with('-') || **text == "*") {
        return Err(Error::invalid(match *odd {
            "*" => "\"*\" stands alone, and in an index of the type text only".to_owned(),
            odd => format!("{odd}: fields of this index have no direction"),
        }));
    }
    // Bounds, and fields twice, are those of patterns.
    let mut paths = texts.into_iter().map(str::parse).collect::<Result<Vec<Path>>>()?;
    Pattern::new(paths.iter().map(|path| (path.clone(), Direction::Ascending)).collect())?;
    paths.sort_unstable();
    Ok(paths)
}

fn filter(fields: &Map<String, Value>) -> Result<Option<Filter>> {
    let Some(filter) = fields.get("filter") else { return Ok(None) };
    let filter = Filter::parse(filter).map_err(|error| {
        let Error::Invalid(Invalid { message, field, position, kind }) = error else { return error };
        let message = format!("the filter of the index: {message}");
        let field = Some(field.map_or("filter".to_owned(), |field| format!("filter.{field}")));
        Error::Invalid(Invalid { message, field, position, kind })
    })?;
    for (stands, name) in [(filter.text().is_some(), "$text"), (filter.near().is_some(), "$near")] {
        if stands {
            return Err(Error::invalid(format!(
                "the filter of an index takes no {name}: it is about single documents, by comparisons and $within; ask \
                 for {name} in the query"
            )));
        }
    }
    Ok((!filter.is_everything()).then_some(filter))
}

fn expire_after_s(fields: &Map<String, Value>) -> Result<Option<u64>> {
    let Some(value) = fields.get("expire_after_s") else { return Ok(None) };
    let seconds = value.as_u64().filter(|seconds| (1..=INDEX_EXPIRE_AFTER_S_MAX).contains(seconds));
    let wrong = || {
        Error::invalid(format!(
            "expire_after_s is a whole number of seconds from 1 to {INDEX_EXPIRE_AFTER_S_MAX}, not {value:.60}"
        ))
    };
    seconds.ok_or_else(wrong).map(Some)
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
    fn every_kind_reads_back_in_one_form() {
        for (written, same) in [
            (json!({"type": "geo", "fields": "place"}), json!({"type": "geo", "fields": ["place"]})),
            (json!({"type": "text"}), json!({"type": "text", "fields": "*", "filter": {}})),
            (json!({"type": "text", "fields": "title,body"}), json!({"type": "text", "fields": ["body", "title"]})),
            (
                json!({"fields": "a", "filter": {"b": 1, "c": {"$gt": 2}}}),
                json!({"type": "ordered", "fields": {"a": 1}, "filter": {"b": {"$eq": 1}, "c": {"$gt": 2}}}),
            ),
            (json!({"fields": "at", "expire_after_s": 60}), json!({"fields": ["at"], "expire_after_s": 60})),
        ] {
            let definition = Definition::parse(&written).unwrap();
            assert_eq!(Definition::parse(&same).unwrap(), definition);
            assert_eq!(Definition::parse(&definition.to_json()).unwrap(), definition);
            assert_ne!(Definition::parse(&json!({"fields": "other"})).unwrap(), definition);
        }
    }

    #[test]
    fn wrong_filters_and_expiries_are_named() {
        let refused = |value| {
            let Err(Error::Invalid(invalid)) = Definition::parse(&value) else { panic!("{value} is accepted") };
            (invalid.message, invalid.field.unwrap_or_default())
        };
        assert_eq!(refused(json!({"fields": "a", "filter": {"b": {"$gtt": 1}}})).1, "filter.b.$gtt");
        assert_eq!(refused(json!({"fields": "a", "filter": 3})).1, "filter");
        let text = json!({"fields": "a", "filter": {"$text": {"$search": "x"}}});
        assert!(refused(text).0.contains("no $text"));
        let near = json!({"fields": "a", "filter": {"p": {"$near": {"lat": 1, "lng": 1}}}});
        assert!(refused(near).0.contains("no $near"));
        let long = json!({"fields": "a", "filter": {"b": "x".repeat(INDEX_DEFINITION_BYTES_MAX)}});
        assert!(refused(long).0.contains("the limit is"));
        let deep = (0..125).fold(json!(1), |inner, _| json!([inner]));
        assert!(refused(json!({"fields": "a", "filter": {"b": deep}})).0.contains("nested too deeply"));
        for wrong in [json!(0), json!(-1), json!(1.5), json!("60"), json!(null), json!(1u64 << 31)] {
            assert!(refused(json!({"fields": "a", "expire_after_s": wrong})).0.contains("from 1 to 2147483647"));
        }
        assert!(refused(json!({"fields": "a,b", "expire_after_s": 1})).0.contains("one field"));
        assert!(refused(json!({"type": "geo", "fields": "a", "expire_after_s": 1})).0.contains("ordered index"));
        assert!(Definition::parse(&json!({"fields": "a", "unique": true, "expire_after_s": 1})).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |value| Definition::parse(&value).unwrap_err().to_string();
        assert!(message(json!({ "fields": {"a": 1}, "uniqe": true })).contains("did you mean unique?"));
        assert!(message(json!({ "unique": true })).contains("fields"));
        assert!(message(json!({ "fields": {"a": 1}, "sparse": 1 })).contains("sparse is true or false"));
        assert!(message(json!("a")).contains("object"));
        assert!(message(json!({ "type": "txt" })).contains("did you mean text?"));
        assert!(message(json!({ "type": 1 })).contains("ordered, geo, text"));
        assert!(message(json!({ "type": "geo" })).contains("one field"));
        assert!(message(json!({ "type": "geo", "fields": "a,b" })).contains("one field"));
        assert!(message(json!({ "type": "geo", "fields": {"a": 1} })).contains("paths"));
        assert!(message(json!({ "type": "geo", "fields": "*" })).contains("type text only"));
        assert!(message(json!({ "type": "geo", "fields": "a", "unique": true })).contains("cannot be unique"));
        assert!(message(json!({ "type": "text", "sparse": true })).contains("leave sparse out"));
        assert!(message(json!({ "type": "text", "fields": ["a", "-b"] })).contains("no direction"));
        assert!(message(json!({ "type": "text", "fields": ["a", "a"] })).contains("twice"));
        for name in ["", "a b", "a/b", &"x".repeat(65), "\u{e9}"] {
            assert!(name.parse::<IndexName>().is_err());
        }
    }
}
