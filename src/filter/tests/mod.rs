//! What filters mean: cases after MongoDB's manual, a naive matcher that agrees on random ones, and what is refused.

mod manual;
mod naive;
mod places;
mod refused;
mod words;

use serde_json::Value;

use super::Filter;
use crate::value::{Json, Row};

/// Tries a filter on a document, whose `_id` is moved to where rows have it.
fn matches(filter: &Filter, document: &Value) -> bool {
    let mut body = document.clone();
    let id = body.as_object_mut().and_then(|fields| fields.remove("_id")).map(|id| id.to_string());
    let body = body.to_string();
    let id = id.as_ref().map(|id| Json::new(id.as_bytes()));
    filter.matches(Row { id, body: Json::new(body.as_bytes()), conflicts: 0 })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn parse(text: &str) -> Filter {
    Filter::parse(&json(text)).unwrap_or_else(|error| panic!("{text}: {error}"))
}
