//! A document as one text, with what is not in its body: its id, and the number of its conflicts.

use std::borrow::Cow;

use serde_json::Value;

use crate::value::{CONFLICTS_FIELD, ID_FIELD, Json, Row};

/// The text of a document with its id under `_id`: the body itself when that has it.
#[must_use]
pub fn whole(row: Row<'_>) -> Cow<'_, [u8]> {
    match row.id {
        Some(id) if row.body.get(ID_FIELD).is_none() => Cow::Owned(with(row.body, ID_FIELD, id.text())),
        Some(_) | None => Cow::Borrowed(row.body.text()),
    }
}

/// The text with the number of conflicts under `_conflicts`, unless it has a field of that name.
#[must_use]
pub fn with_conflicts(text: Vec<u8>, conflicts: u64) -> Vec<u8> {
    let body = Json::new(&text);
    if body.get(CONFLICTS_FIELD).is_some() {
        return text;
    }
    with(body, CONFLICTS_FIELD, conflicts.to_string().as_bytes())
}

/// The text of an object with one more field.
fn with(object: Json<'_>, name: &str, value: &[u8]) -> Vec<u8> {
    let body = object.text();
    // Keys are sorted: it goes behind those that are smaller.
    let mut split = 1;
    for (key, value) in object.fields().take_while(|(key, _)| key.as_ref() < name) {
        split += Value::from(key).to_string().len() + value.text().len() + 2;
    }
    // The last field has a bracket behind it instead of a comma.
    let (before, after) = body.split_at(split.min(body.len().saturating_sub(1)));
    let mut out = Vec::with_capacity(body.len() + name.len() + value.len() + 4);
    out.extend_from_slice(before);
    if split > 1 && !before.ends_with(b",") {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(value);
    if after.len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(after);
    out
}
