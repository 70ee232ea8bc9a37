//! What is shown of a document.
//!
//! - `{"name": 1, "address.city": 1}` only these fields, and `_id`; `"_id": 0` leaves it out
//! - `{"password": 0}` everything but these
//! - `{"total": {"$add": ["$a", "$b"]}}` a computed field, beside those that are named; any expression is one, but for
//!   numbers and booleans, which say whether a field is shown
//! - `{"comments": {"$slice": 5}}` the first items of an array, the last ones when it is negative, or `[skip, count]`;
//!   by itself it leaves everything else as it is
//! - `{"grades": {"$elemMatch": {"score": {"$gt": 90}}}}` the first object of an array that a filter is
//!   about; as `1` it shows only the fields that are named
//!
//! `{"a": {"b": 1}}` is `{"a.b": 1}`. Within arrays a path goes on in every object. Keys of what is shown are sorted,
//! `_id` among them. In MongoDB `$slice` in a pipeline is an expression, which is not known here: it means the above
//! there too.

use serde_json::{Map, Value};

use super::shape::{Leaf, Shape, Slice};
use super::{fault, too_large, within};
use crate::filter::{Element, Expression, Filter};
use crate::limits::QUERY_FIELDS_MAX;
use crate::value::{ID_FIELD, Path, Row};
use crate::{Error, Result};

/// How documents are shown.
#[derive(Debug, Clone)]
pub struct Projection {
    shape: Shape,
    computed: Vec<Expression>,
    height: usize,
    at: String,
}

/// What a projection says of one field.
enum Wish {
    Show,
    Hide,
    Compute(Expression),
    Slice(Slice),
    First(Element),
}

struct Entry {
    path: Path,
    wish: Wish,
    at: String,
}

impl Projection {
    /// Reads a projection; `at` is its place in the request, for errors. `{}` shows everything.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that shows and hides fields, that names a field twice, whose expressions are not
    /// valid, or that is too large.
    pub fn parse(value: &Value, at: &str) -> Result<Self> {
        let mut entries = Vec::new();
        collect(object(value, at)?, None, at, &mut |value, at| wish(value, at), &mut entries)?;
        let is_id = |entry: &&Entry| entry.path.is_id();
        let (ids, others): (Vec<_>, Vec<_>) = entries.iter().partition(is_id);
        let shown = |entry: &&Entry| matches!(entry.wish, Wish::Show | Wish::Compute(_) | Wish::First(_));
        let only_shows_id = others.is_empty() && ids.iter().any(shown);
        let is_selection =
            only_shows_id || others.iter().any(shown) || ids.iter().any(|id| matches!(id.wish, Wish::Compute(_)));
        if is_selection && let Some(hidden) = others.iter().find(|entry| matches!(entry.wish, Wish::Hide)) {
            let message = "a projection names the fields to show or those to leave out, not both; only _id may be left \
                           out besides";
            return Err(fault(&hidden.at, message));
        }
        let mut projection = Self::new(!is_selection, at);
        if is_selection && !entries.iter().any(|entry| entry.path.first() == ID_FIELD) {
            projection.shape.insert(&ID_FIELD.parse()?, Leaf::Keep, at)?;
        }
        for entry in entries {
            projection.add(entry, is_selection)?;
        }
        Ok(projection)
    }

    /// Reads the fields of `$addFields`, all of which are computed.
    ///
    /// # Errors
    /// As [`Projection::parse`].
    pub(super) fn adding(value: &Value, at: &str) -> Result<Self> {
        let mut entries = Vec::new();
        let mut compute = |value: &Value, at: &str| {
            let is_nested = value
                .as_object()
                .is_some_and(|fields| !fields.is_empty() && !fields.keys().any(|key| key.starts_with('$')));
            if is_nested { Ok(None) } else { Expression::parse(value, at).map(|value| Some(Wish::Compute(value))) }
        };
        collect(object(value, at)?, None, at, &mut compute, &mut entries)?;
        let mut projection = Self::new(true, at);
        entries.into_iter().try_for_each(|entry| projection.add(entry, false))?;
        Ok(projection)
    }

    /// Leaves out the fields at these paths.
    ///
    /// # Errors
    /// When one comes twice, or is within another.
    pub(super) fn without(paths: Vec<Path>, at: &str) -> Result<Self> {
        let mut projection = Self::new(true, at);
        for path in paths {
            projection.shape.insert(&path, Leaf::Drop, at)?;
        }
        Ok(projection)
    }

    fn new(keeps_rest: bool, at: &str) -> Self {
        Self { shape: Shape::new(keeps_rest), computed: Vec::new(), height: 0, at: at.to_owned() }
    }

    fn add(&mut self, entry: Entry, is_selection: bool) -> Result<()> {
        let leaf = match entry.wish {
            // What remains by itself need not be named.
            Wish::Show if !is_selection => return Ok(()),
            Wish::Show => Leaf::Keep,
            Wish::Hide => Leaf::Drop,
            Wish::Slice(slice) => Leaf::Slice(slice),
            Wish::First(filter) => Leaf::First(filter),
            Wish::Compute(expression) => {
                self.height = self.height.max(expression.height() + entry.path.parts().len());
                self.computed.push(expression);
                Leaf::Set(self.computed.len() - 1)
            }
        };
        self.shape.insert(&entry.path, leaf, &entry.at)
    }

    /// What is shown of a document: JSON text with sorted keys.
    ///
    /// # Errors
    /// When a field cannot be computed, or the text is larger than a view may be.
    pub fn apply(&self, row: Row<'_>) -> Result<Vec<u8>> {
        let values = self.computed.iter().map(|expression| expression.evaluate(row)).collect::<Result<Vec<_>>>()?;
        self.shape.apply(row, &values, &self.at)
    }

    /// Levels of nesting that it may put around values of the document.
    pub(super) fn height(&self) -> usize {
        self.height
    }
}

fn object<'v>(value: &'v Value, at: &str) -> Result<&'v Map<String, Value>> {
    value.as_object().ok_or_else(|| fault(at, "takes an object of fields, such as {\"name\": 1}"))
}

/// Walks through the fields, into those of which `read` says nothing.
fn collect(
    fields: &Map<String, Value>,
    way: Option<&str>,
    at: &str,
    read: &mut dyn FnMut(&Value, &str) -> Result<Option<Wish>>,
    entries: &mut Vec<Entry>,
) -> Result<()> {
    for (key, value) in fields {
        let at = within(at, key);
        let name = way.map_or_else(|| key.clone(), |way| format!("{way}.{key}"));
        let path: Path = name.parse().map_err(|error: Error| fault(&at, error))?;
        if key.starts_with('$') {
            return Err(fault(
                &at,
                format!("{key:.64} is not the name of a field; fields come here, with what becomes of them"),
            ));
        }
        match (read(value, &at)?, value) {
            (Some(wish), _) => entries.push(Entry { path, wish, at }),
            (None, Value::Object(inner)) if !inner.is_empty() => collect(inner, Some(&name), &at, read, entries)?,
            (None, _) => return Err(fault(&at, "says nothing of the field; 1 shows it, 0 leaves it out")),
        }
        if entries.len() > QUERY_FIELDS_MAX {
            return Err(too_large("", format!("more than {QUERY_FIELDS_MAX} fields are named in one place")));
        }
    }
    Ok(())
}

/// What a value says of a field; `None` for fields within it.
fn wish(value: &Value, at: &str) -> Result<Option<Wish>> {
    Ok(Some(match value {
        Value::Bool(true) => Wish::Show,
        Value::Bool(false) => Wish::Hide,
        Value::Number(number) if number.as_f64() == Some(0.0) => Wish::Hide,
        Value::Number(_) => Wish::Show,
        Value::Null | Value::String(_) | Value::Array(_) => Wish::Compute(Expression::parse(value, at)?),
        Value::Object(fields) => match fields.iter().next() {
            Some((name, argument)) if name == "$slice" && fields.len() == 1 => {
                Wish::Slice(slice(argument, &within(at, name))?)
            }
            Some((name, argument)) if name == "$elemMatch" && fields.len() == 1 => {
                Wish::First(Element::parse(argument, &within(at, name))?)
            }
            _ if fields.keys().any(|key| key.starts_with('$')) => Wish::Compute(Expression::parse(value, at)?),
            _ => return Ok(None),
        },
    }))
}

/// `n`, `[n]`, `[skip, n]`.
fn slice(value: &Value, at: &str) -> Result<Slice> {
    let wanted = || fault(at, "$slice takes a number of items, negative for the last ones, or [skip, count]");
    let single = |value: &Value| {
        let count = value.as_i64().ok_or_else(wanted)?;
        Ok(Slice { skip: count.min(0), count: count.unsigned_abs() })
    };
    match value {
        Value::Array(items) => match items.as_slice() {
            [count] => single(count),
            [skip, count] => {
                let count = count.as_u64().filter(|count| *count > 0).ok_or_else(wanted)?;
                Ok(Slice { skip: skip.as_i64().ok_or_else(wanted)?, count })
            }
            _ => Err(wanted()),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => single(value),
    }
}

/// A filter at a place of the request.
pub(super) fn filter(value: &Value, at: &str) -> Result<Filter> {
    Filter::parse(value).map_err(|error| match error {
        Error::Invalid(mut invalid) => {
            let joint = if invalid.field.is_some() { "." } else { ": " };
            invalid.message = format!("{at}{joint}{}", invalid.message);
            invalid.field = Some(invalid.field.map_or_else(|| at.to_owned(), |field| within(at, field)));
            Error::Invalid(invalid)
        }
        Error::NotFound(_)
        | Error::Denied(_)
        | Error::Conflict(_)
        | Error::Unavailable(_)
        | Error::Corrupt(_)
        | Error::Io(_) => error,
    })
}

#[cfg(test)]
mod tests;
