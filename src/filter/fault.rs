//! Errors that say where in a filter something is wrong, and what would be right.

use serde_json::Value;

use crate::base::suggestion;
use crate::error::{Error, Invalid, InvalidKind};

/// A filter that means nothing at a place such as `$and.1.age.$gte`.
pub(super) fn fault(at: &str, message: impl Into<String>) -> Error {
    refusal(at, message.into(), InvalidKind::Meaning)
}

/// A filter beyond a limit.
pub(super) fn too_large(at: &str, message: impl Into<String>) -> Error {
    refusal(at, message.into(), InvalidKind::TooLarge)
}

fn refusal(at: &str, message: String, kind: InvalidKind) -> Error {
    let field = (!at.is_empty()).then(|| at.to_owned());
    let message = if at.is_empty() { message } else { format!("{}: {message}", brief(at)) };
    Error::Invalid(Invalid { message, field, position: None, kind })
}

/// The place of a name or a position at another place.
pub(super) fn join(at: &str, name: impl std::fmt::Display) -> String {
    if at.is_empty() { name.to_string() } else { format!("{at}.{name}") }
}

/// The start of a text that somebody sent.
pub(super) fn brief(text: &str) -> String {
    const CHARACTERS: usize = 60;
    let mut start: String = text.chars().take(CHARACTERS).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    start
}

/// What kind of value somebody sent.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The message for an operator that is none of `known`.
pub(super) fn unknown(name: &str, known: &[&str]) -> String {
    let reason = match name {
        "$date" => "dates are stored as RFC 3339 strings: compare with such a string",
        "$oid" | "$uuid" | "$symbol" => "ids are stored as strings: compare with the string",
        "$numberInt" | "$numberLong" | "$numberDouble" | "$numberDecimal" => {
            "numbers are plain JSON here: write the number itself"
        }
        "$binary" | "$bytes" | "$timestamp" | "$regularExpression" | "$minKey" | "$maxKey" | "$undefined" | "$ref"
        | "$id" | "$db" | "$dbPointer" | "$code" => {
            "it is no operator; to find an object that has this field, write {\"$eq\": {..}} around it"
        }
        "$where" | "$function" | "$accumulator" => "no JavaScript is run in queries; $expr compares fields",
        "$geoWithin" | "$geoIntersects" => "shapes are written {\"$within\": {\"circle\" | \"box\" | \"polygon\": ..}}",
        "$nearSphere" | "$maxDistance" | "$minDistance" | "$geoNear" => {
            "distances are written {\"$near\": {\"lat\", \"lng\", \"max_distance_m\", \"min_distance_m\"}}"
        }
        "$search" | "$language" | "$caseSensitive" | "$diacriticSensitive" => {
            "words are searched for with {\"$text\": {\"$search\": \"..\"}} at the top level"
        }
        _ => {
            let near = suggestion(name, known.iter().copied());
            return format!("unknown operator {:?}; {near}", brief(name));
        }
    };
    format!("unknown operator {name:?}: {reason}")
}
