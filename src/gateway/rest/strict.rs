//! What the description says of requests, as strict as the peer is: what may be left out is not null when it is there, and
//! a body has no fields that the call does not know.
//!
//! The shapes of the crate `utoipa` say of all that is optional that it may be null. Answers are left alone: there a field
//! without a value may be null.

use std::collections::BTreeSet;

use serde_json::{Value, json};

const SCHEMAS: &str = "/components/schemas";

/// Goes through the parameters and the bodies of all calls.
pub(super) fn requests(api: &mut Value) {
    let mut bodies = BTreeSet::new();
    for operation in values(api.get_mut("paths")).flat_map(|path| values(Some(path))) {
        for parameter in values(operation.get_mut("parameters")) {
            parameter.get_mut("schema").map(forbid_null);
        }
        for content in values(operation.pointer_mut("/requestBody/content")) {
            let Some(schema) = content.get_mut("schema") else { continue };
            forbid_null(schema);
            let name = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.rsplit('/').next());
            bodies.extend(name.map(str::to_owned));
        }
    }
    for name in bodies {
        let Some(body) = api.pointer_mut(&format!("{SCHEMAS}/{name}")) else { continue };
        body["additionalProperties"] = false.into();
        values(body.get_mut("properties")).for_each(forbid_null);
    }
    if let Some(index) = api.pointer_mut(&format!("{SCHEMAS}/IndexDeclaration")) {
        let of_text = json!({"properties": {"type": {"const": "text"}}, "required": ["type"]});
        index["anyOf"] = json!([{"required": ["fields"]}, of_text]);
    }
}

/// The values of an object, or the items of a list.
fn values(of: Option<&mut Value>) -> Box<dyn Iterator<Item = &mut Value> + '_> {
    match of {
        Some(Value::Object(fields)) => Box::new(fields.values_mut()),
        Some(Value::Array(items)) => Box::new(items.iter_mut()),
        _ => Box::new(std::iter::empty()),
    }
}

/// Takes null out of what a schema allows.
fn forbid_null(schema: &mut Value) {
    let is_null = |kind: &Value| *kind == "null" || *kind == json!({"type": "null"});
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| !is_null(kind));
        if let [only] = kinds.as_slice() {
            schema["type"] = only.clone();
        }
    }
    let Some(Value::Array(choices)) = schema.get_mut("oneOf") else { return };
    choices.retain(|choice| !is_null(choice));
    if let [Value::Object(only)] = choices.as_mut_slice() {
        let only = std::mem::take(only);
        if let Some(fields) = schema.as_object_mut() {
            fields.remove("oneOf");
            fields.extend(only);
        }
    }
}
