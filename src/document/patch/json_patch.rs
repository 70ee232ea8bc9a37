//! JSON Patch (RFC 6902), read.

use serde_json::Value;

use super::path::{Path, fault, shown};
use crate::base::suggestion;
use crate::document::change::{check_depth, fits};
use crate::error::Error;

const OPERATIONS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];

/// One operation and its target.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::document) struct Step {
    pub(in crate::document) path: Path,
    pub(in crate::document) operation: Operation,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::document) enum Operation {
    Add(Value),
    Remove,
    Replace(Value),
    Move(Path),
    Copy(Path),
    Test(Value),
}

pub(super) fn parse(body: Value) -> Result<Vec<Step>, Error> {
    let Value::Array(steps) = body else {
        return Err(Error::invalid(format!("a JSON Patch is a list of operations, not {}", shown(&body))));
    };
    steps.into_iter().enumerate().map(|(index, step)| parse_step(index, step)).collect()
}

fn parse_step(index: usize, step: Value) -> Result<Step, Error> {
    let number = index + 1;
    let wrong = |message: String| Error::invalid(format!("operation {number} of the JSON Patch {message}"));
    let Value::Object(mut step) = step else { return Err(wrong(format!("is {}, not an object", shown(&step)))) };
    let mut text = |name: &str| match step.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(wrong(format!("has {} under {name:?}, which takes a string", shown(&other)))),
        None => Err(wrong(format!("has no {name:?}"))),
    };
    let name = text("op")?;
    let path = Path::pointer(&text("path")?)?;
    let operation = match name.as_str() {
        "remove" => Operation::Remove,
        "move" | "copy" => {
            let from = Path::pointer(&text("from")?)?;
            if name == "copy" { Operation::Copy(from) } else { movable(from, &path)? }
        }
        "add" | "replace" | "test" => {
            let value = step.remove("value").ok_or_else(|| wrong("has no \"value\"".to_owned()))?;
            match name.as_str() {
                "add" => Operation::Add(fitting(&path, value)?),
                "replace" => Operation::Replace(fitting(&path, value)?),
                _ => Operation::Test(value),
            }
        }
        unknown => {
            let near = suggestion(unknown, OPERATIONS);
            let unknown: String = unknown.chars().take(40).collect();
            return Err(wrong(format!("is {unknown:?}, which is unknown; {near}")));
        }
    };
    if operation == Operation::Remove && path.names().is_empty() {
        return Err(fault("", "a patch cannot remove the whole document; delete it instead"));
    }
    Ok(Step { path, operation })
}

fn movable(from: Path, path: &Path) -> Result<Operation, Error> {
    let inside = path.names().starts_with(from.names()) && path != &from;
    if inside || from.names().is_empty() {
        return Err(path.fault(format!("{:?} cannot be moved into itself", from.text())));
    }
    Ok(Operation::Move(from))
}

/// Checks what becomes a document, or a part of one.
fn fitting(path: &Path, value: Value) -> Result<Value, Error> {
    match value.as_object() {
        Some(fields) if path.names().is_empty() => check_depth(fields)?,
        None if path.names().is_empty() => return Err(path.fault("a document is an object")),
        Some(_) | None if !fits(&value, path.levels()) => return Err(path.fault("nested too deeply")),
        Some(_) | None => {}
    }
    Ok(value)
}
