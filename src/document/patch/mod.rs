//! The language of patches: what a client may ask to be changed in a document.
//!
//! - [`Patch::merge`]: JSON Merge Patch (RFC 7396)
//! - [`Patch::json_patch`]: JSON Patch (RFC 6902)
//! - [`Patch::operators`]: update operators with the names and meanings of MongoDB's, and `$text`
//!
//! Everything that can be judged without a document is judged here, so that a [`Patch`] is well-formed. What it
//! does to a document is in `document/apply`.

mod equality;
mod json_patch;
mod operators;
mod path;

pub(super) use equality::canonical;
pub(super) use json_patch::{Operation, Step};
pub(super) use operators::{Act, Push, Splice, Update};
pub(super) use path::{Path, fault, shown};

use serde_json::Value;

use super::change::check_depth;
use super::json::Object;
use crate::error::{Error, Invalid, InvalidKind};
use crate::limits::PATCH_OPERATIONS_MAX;

/// A well-formed patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch(pub(super) Form);

/// A patch by its language.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    Merge(Object),
    JsonPatch(Vec<Step>),
    Operators(Vec<Update>),
}

impl Patch {
    /// A JSON Merge Patch: objects are merged, null deletes, everything else replaces.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not an object, nested too deeply, or names `_id`.
    pub fn merge(body: Value) -> Result<Self, Error> {
        let Value::Object(fields) = body else {
            return Err(Error::invalid(format!("a merge patch of a document is an object, not {}", shown(&body))));
        };
        if fields.contains_key("_id") {
            return Err(fault("_id", "it names the document and cannot be changed; leave it out"));
        }
        check_depth(&fields)?;
        Ok(Self(Form::Merge(fields)))
    }

    /// A JSON Patch: a list of operations, done in order.
    ///
    /// # Errors
    /// [`Error::Invalid`], with the pointer as its field where there is one.
    pub fn json_patch(body: Value) -> Result<Self, Error> {
        let steps = json_patch::parse(body)?;
        bounded(steps.len())?;
        Ok(Self(Form::JsonPatch(steps)))
    }

    /// Update operators: `{"$set": {"a.b": 1}, "$inc": {"n": 2}}`.
    ///
    /// # Errors
    /// [`Error::Invalid`], with the dotted path as its field where there is one.
    pub fn operators(body: Value) -> Result<Self, Error> {
        let Value::Object(body) = body else {
            let form = "update operators are an object such as {\"$set\": {\"name\": \"Ada\"}}";
            return Err(Error::invalid(format!("{form}, not {}", shown(&body))));
        };
        Ok(Self(Form::Operators(operators::parse(body)?)))
    }

    /// Whether it may make a document that does not exist.
    #[must_use]
    pub fn can_create(&self) -> bool {
        !matches!(self.0, Form::JsonPatch(_))
    }
}

/// Checks the number of operations of a patch.
fn bounded(count: usize) -> Result<(), Error> {
    if count <= PATCH_OPERATIONS_MAX {
        return Ok(());
    }
    let message = format!("the patch has {count} operations, the limit is {PATCH_OPERATIONS_MAX}; send several");
    Err(Error::Invalid(Invalid { message, field: None, position: None, kind: InvalidKind::TooLarge }))
}

#[cfg(test)]
mod tests;
