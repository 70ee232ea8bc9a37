//! Paths into a document: dotted ones and JSON Pointers (RFC 6901), and faults that name them.

use serde_json::Value;

use crate::error::{Error, Invalid, InvalidKind};
use crate::limits::DOCUMENT_DEPTH_MAX;

/// Characters of a value that a message repeats at most.
const SHOWN_CHARS_MAX: usize = 40;

/// Names of fields, and indices of elements in decimal, from the root down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::document) struct Path {
    names: Vec<String>,
    text: String,
}

impl Path {
    /// A path such as `a.b.0`.
    pub(super) fn dotted(text: &str) -> Result<Self, Error> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            return Err(fault(text, "a path is names with one dot between each two"));
        }
        if let Some(name) = names.iter().find(|name| name.starts_with('$')) {
            return Err(fault(text, format!("{name:?} in a path is not supported; name elements by their index")));
        }
        Self { names, text: text.to_owned() }.checked()
    }

    /// A path such as `/a/b/0`; the empty one is the whole document.
    pub(super) fn pointer(text: &str) -> Result<Self, Error> {
        let names = match text.strip_prefix('/') {
            None if text.is_empty() => Vec::new(),
            None => return Err(fault(text, "a JSON Pointer is empty or starts with /")),
            Some(rest) => rest
                .split('/')
                .map(unescape)
                .collect::<Option<_>>()
                .ok_or_else(|| fault(text, "a JSON Pointer writes ~ as ~0 and / as ~1, and has no other ~"))?,
        };
        Self { names, text: text.to_owned() }.checked()
    }

    fn checked(self) -> Result<Self, Error> {
        if self.names.first().is_some_and(|name| name == "_id") {
            return Err(self.fault("_id names the document and cannot be changed"));
        }
        if self.names.len() > DOCUMENT_DEPTH_MAX {
            return Err(self.fault(format!("documents are nested at most {DOCUMENT_DEPTH_MAX} levels")));
        }
        Ok(self)
    }

    pub(in crate::document) fn names(&self) -> &[String] {
        &self.names
    }

    /// As the client wrote it.
    pub(in crate::document) fn text(&self) -> &str {
        &self.text
    }

    /// Levels of objects, lists and texts that a value at this place may have.
    pub(in crate::document) fn levels(&self) -> usize {
        DOCUMENT_DEPTH_MAX - self.names.len()
    }

    /// A fault at this place.
    pub(in crate::document) fn fault(&self, message: impl AsRef<str>) -> Error {
        fault(&self.text, message)
    }
}

/// A fault at a path.
pub(in crate::document) fn fault(path: &str, message: impl AsRef<str>) -> Error {
    let brief: String = path.chars().take(4 * SHOWN_CHARS_MAX).collect();
    let message = format!("{brief:?}: {}", message.as_ref());
    Error::Invalid(Invalid { message, field: Some(path.to_owned()), position: None, kind: InvalidKind::Meaning })
}

/// The beginning of a value.
pub(in crate::document) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
        Value::String(text) => format!("{:?}", text.chars().take(SHOWN_CHARS_MAX).collect::<String>()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

fn unescape(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let rest = match part.as_bytes().first()? {
            b'0' => '~',
            b'1' => '/',
            _ => return None,
        };
        name.push(rest);
        name.push_str(&part[1..]);
    }
    Some(name)
}
