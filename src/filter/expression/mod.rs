//! MongoDB's aggregation expressions: a value computed from a document.
//!
//! - `"$a.b"` a field; through an array it gives the array of what its objects have there. `"$$ROOT"` (also
//!   `"$$CURRENT"`) the whole document, `"$$REMOVE"` nothing at all; other variables are not known.
//! - `{"$add": [..]}` an operator: an object with that one key; `operator` has the list of them.
//! - objects and arrays of expressions; in an object a field whose value is missing is left out, in an array it is null.
//! - everything else stands for itself, and `{"$literal": ..}` for what is in it.
//!
//! Values are JSON texts as in a view, and a missing one is `None`. It sorts before null and differs from it, so
//! `{"$gt": ["$a", null]}` asks whether there is an `a`. Null and missing make arithmetic and most functions null; an
//! operand of another wrong kind is an error that names the operator and its place in the request.
//!
//! Where we differ from MongoDB:
//!
//! - Integers are exact as long as they fit 64 bits, signed or unsigned; beyond that they become doubles, also in
//!   `$multiply` and `$pow`. A quotient without a rest is an integer.
//! - JSON has neither infinity nor NaN: what would give one is an error.
//! - `$toInt` and `$toLong` both give an integer of 64 bits. `$toLower` and `$toUpper` know all of Unicode.
//! - `$round` goes by the exact value of the double.
//!
//! Bounded are the number of operators and their nesting, and the bytes of all values that one evaluation makes. No
//! clock is looked at here: whoever walks through documents does that.
//!
//! Source: MongoDB manual, "Aggregation Expression Operators".

mod arithmetic;
mod array;
mod evaluate;
mod number;
mod operator;
mod parse;
mod string;
#[cfg(test)]
mod tests;
mod whole;

use std::borrow::Cow;

pub use number::Amount;
pub use whole::{whole, with_conflicts};

use crate::Result;
use crate::value::{Json, Kind, Number, Row};
use operator::Operator;

/// The JSON text of a value; `None` for a missing one.
pub type Found<'a> = Option<Cow<'a, [u8]>>;

/// What computes a value from a document.
#[derive(Debug, Clone)]
pub struct Expression {
    node: Node,
    height: usize,
}

#[derive(Debug, Clone)]
enum Node {
    /// The text of a value.
    Constant(Box<[u8]>),
    /// The parts of a path; none for the whole document.
    Field {
        names: Vec<String>,
        at: Box<str>,
    },
    /// `$$REMOVE`.
    Nothing,
    /// Fields, sorted, each with the text of its key.
    Object {
        fields: Vec<(String, Node)>,
        at: Box<str>,
    },
    Array {
        items: Vec<Node>,
        at: Box<str>,
    },
    Call {
        operator: Operator,
        arguments: Vec<Node>,
        at: Box<str>,
    },
    /// `$cond` and `$switch`.
    Switch {
        branches: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
        at: Box<str>,
    },
}

impl Expression {
    /// Reads an expression; `at` is its place in the request, for errors.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for an unknown operator or variable, wrong arguments, and more than the limits allow.
    pub fn parse(value: &serde_json::Value, at: &str) -> Result<Self> {
        let node = parse::parse(value, at)?;
        let height = node.height();
        Ok(Self { node, height })
    }

    /// The field at a path, as `"$a.b"`.
    #[must_use]
    pub fn field(path: &crate::value::Path) -> Self {
        let names = path.parts().map(str::to_owned).collect();
        Self { node: Node::Field { names, at: format!("${path}").into() }, height: 0 }
    }

    /// The text of its value for a document.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for operands of the wrong kind, and for values that are together larger than a view may be.
    pub fn evaluate<'a>(&'a self, row: Row<'a>) -> Result<Found<'a>> {
        evaluate::evaluate(&self.node, row)
    }

    /// Whether its value for a document counts as true.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn is_true(&self, row: Row<'_>) -> Result<bool> {
        Ok(is_true(&self.evaluate(row)?))
    }

    /// Levels of nesting that it may put around values of the document.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The same, but where it makes an object of one field, that field is null instead of missing. By such an object
    /// `$group` groups as by the field itself.
    #[must_use]
    pub fn with_only_field_given(mut self) -> Self {
        if let Node::Object { fields, at } = &mut self.node
            && let [(_, node)] = fields.as_mut_slice()
        {
            let value = std::mem::replace(node, Node::Nothing);
            let null = Node::Constant((*b"null").into());
            *node = Node::Call { operator: Operator::IfNull, arguments: vec![value, null], at: at.clone() };
        }
        self
    }

    /// Its value when it does not depend on a document.
    #[must_use]
    pub fn constant(&self) -> Option<Json<'_>> {
        if let Node::Constant(text) = &self.node { Some(Json::new(text)) } else { None }
    }
}

/// Whether a value counts as true: not missing, not null, not false, not zero.
#[must_use]
pub fn is_true(value: &Found<'_>) -> bool {
    let Some(value) = json(value) else { return false };
    match value.kind() {
        Kind::Null => false,
        Kind::Bool => value.as_bool() == Some(true),
        Kind::Number => !matches!(
            value.as_number(),
            None | Some(Number::Signed(0) | Number::Unsigned(0)) | Some(Number::Float(0.0))
        ),
        Kind::String | Kind::Object | Kind::Array => true,
    }
}

fn json<'a>(value: &'a Found<'_>) -> Option<Json<'a>> {
    value.as_deref().map(Json::new)
}

/// What a value is called in a message.
fn kind_name(value: Option<Json<'_>>) -> &'static str {
    match value.map(Json::kind) {
        None => "nothing",
        Some(Kind::Null) => "null",
        Some(Kind::Number) => "a number",
        Some(Kind::String) => "a string",
        Some(Kind::Object) => "an object",
        Some(Kind::Array) => "an array",
        Some(Kind::Bool) => "a boolean",
    }
}
