//! A document as one text, its id included.

use std::borrow::Cow;

use serde_json::Value;

use crate::value::{ID_FIELD, Row};

/// The text of a document with its id under `_id`: the body itself when that has it.
#[must_use]
pub fn whole(row: Row<'_>) -> Cow<'_, [u8]> {
    let body = row.body.text();
    let Some(id) = row.id.filter(|_| row.body.get(ID_FIELD).is_none()) else { return Cow::Borrowed(body) };
    // Keys are sorted: `_id` goes behind those that are smaller.
    let mut split = 1;
    for (key, value) in row.body.fields().take_while(|(key, _)| key.as_ref() < ID_FIELD) {
        split += Value::from(key).to_string().len() + value.text().len() + 2;
    }
    // The last field has a bracket behind it instead of a comma.
    let (before, after) = body.split_at(split.min(body.len().saturating_sub(1)));
    let mut out = Vec::with_capacity(body.len() + id.text().len() + 8);
    out.extend_from_slice(before);
    if split > 1 && !before.ends_with(b",") {
        out.push(b',');
    }
    out.extend_from_slice(b"\"_id\":");
    out.extend_from_slice(id.text());
    if after.len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(after);
    Cow::Owned(out)
}
