//! Evaluation of an expression for one document.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

use super::super::fault::fault;
use super::number::Amount;
use super::operator::Operator;
use super::{Found, Node, arithmetic, array, is_true, json, kind_name, string, whole};
use crate::limits::DOCUMENT_VIEW_BYTES_MAX;
use crate::value::{ID_FIELD, Json, Kind, Row, compare};
use crate::{Error, Result};

pub(super) fn evaluate<'a>(node: &'a Node, row: Row<'a>) -> Result<Found<'a>> {
    Scope { row, made_bytes: Cell::new(0) }.value(node)
}

/// One evaluation.
pub(super) struct Scope<'a> {
    row: Row<'a>,
    /// Bytes of the values that were made on the way.
    made_bytes: Cell<usize>,
}

/// An operator with the values of its arguments.
pub(super) struct Call<'s, 'a> {
    scope: &'s Scope<'a>,
    operator: Operator,
    at: &'a str,
    pub(super) values: Vec<Found<'a>>,
}

pub(super) fn truth(value: bool) -> Found<'static> {
    Some(Cow::Borrowed(if value { b"true" } else { b"false" }))
}

pub(super) const NULL: Found<'static> = Some(Cow::Borrowed(b"null"));

impl<'a> Scope<'a> {
    fn value(&self, node: &'a Node) -> Result<Found<'a>> {
        match node {
            Node::Constant(text) => Ok(Some(Cow::Borrowed(text))),
            Node::Nothing => Ok(None),
            Node::Field { names, at } => self.field(names, at),
            Node::Object { fields, at } => self.object(fields, at),
            Node::Array { items, at } => self.array(items, at),
            Node::Call { operator, arguments, at } => self.call(*operator, arguments, at),
            Node::Switch { branches, otherwise, at } => {
                for (case, then) in branches {
                    if is_true(&self.value(case)?) {
                        return self.value(then);
                    }
                }
                let message = "no branch of $switch applies to this document, and there is no default";
                self.value(otherwise.as_deref().ok_or_else(|| fault(at, message))?)
            }
        }
    }

    /// Accounts for the bytes of a value before it is made.
    fn spend(&self, bytes: usize, at: &str) -> Result<()> {
        self.made_bytes.set(self.made_bytes.get().saturating_add(bytes));
        if self.made_bytes.get() > DOCUMENT_VIEW_BYTES_MAX {
            let message =
                format!("the values computed from one document have more than {DOCUMENT_VIEW_BYTES_MAX} bytes");
            return Err(fault(at, message));
        }
        Ok(())
    }

    fn field(&self, names: &[String], at: &str) -> Result<Found<'a>> {
        let Some((first, rest)) = names.split_first() else {
            let all = whole(self.row);
            if let Cow::Owned(text) = &all {
                self.spend(text.len(), at)?;
            }
            return Ok(Some(all));
        };
        let value = match self.row.id {
            Some(id) if first == ID_FIELD => Some(id),
            _ => self.row.body.get(first),
        };
        let Some(value) = value else { return Ok(None) };
        match walk(value, rest) {
            Walk::Value(value) => Ok(value.map(|value| Cow::Borrowed(value.text()))),
            Walk::Array(array, rest) => {
                // What is gathered is a part of the array's own text.
                self.spend(array.text().len(), at)?;
                let mut out = Vec::new();
                gather(array, rest, &mut out);
                Ok(Some(Cow::Owned(out)))
            }
        }
    }

    fn object(&self, fields: &'a [(String, Node)], at: &str) -> Result<Found<'a>> {
        let mut out = vec![b'{'];
        for (key, node) in fields {
            let Some(value) = self.value(node)? else { continue };
            self.spend(key.len() + value.len() + 2, at)?;
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(key.as_bytes());
            out.push(b':');
            out.extend_from_slice(&value);
        }
        out.push(b'}');
        Ok(Some(Cow::Owned(out)))
    }

    fn array(&self, items: &'a [Node], at: &str) -> Result<Found<'a>> {
        let mut out = vec![b'['];
        for node in items {
            let value = self.value(node)?.unwrap_or(Cow::Borrowed(b"null"));
            self.spend(value.len() + 1, at)?;
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(&value);
        }
        out.push(b']');
        Ok(Some(Cow::Owned(out)))
    }

    fn call(&self, operator: Operator, arguments: &'a [Node], at: &'a str) -> Result<Found<'a>> {
        match operator {
            Operator::And => self.any(arguments, false).map(|found| truth(!found)),
            Operator::Or => self.any(arguments, true).map(truth),
            Operator::IfNull => self.first_given(arguments),
            Operator::Not => Ok(truth(!is_true(&self.value(&arguments[0])?))),
            Operator::Eq => self.compared(arguments, |order| truth(order.is_eq())),
            Operator::Ne => self.compared(arguments, |order| truth(order.is_ne())),
            Operator::Gt => self.compared(arguments, |order| truth(order.is_gt())),
            Operator::Gte => self.compared(arguments, |order| truth(order.is_ge())),
            Operator::Lt => self.compared(arguments, |order| truth(order.is_lt())),
            Operator::Lte => self.compared(arguments, |order| truth(order.is_le())),
            Operator::Cmp => self.compared(arguments, |order| {
                let text: &[u8] = match order {
                    Ordering::Less => b"-1",
                    Ordering::Equal => b"0",
                    Ordering::Greater => b"1",
                };
                Some(Cow::Borrowed(text))
            }),
            Operator::Add
            | Operator::Subtract
            | Operator::Multiply
            | Operator::Divide
            | Operator::Mod
            | Operator::Abs
            | Operator::Ceil
            | Operator::Floor
            | Operator::Round
            | Operator::Trunc
            | Operator::Pow
            | Operator::Sqrt
            | Operator::Concat
            | Operator::ToLower
            | Operator::ToUpper
            | Operator::StrLenCp
            | Operator::SubstrCp
            | Operator::ToString
            | Operator::ToInt
            | Operator::ToDouble
            | Operator::Size
            | Operator::ArrayElemAt
            | Operator::In
            | Operator::ConcatArrays
            | Operator::IsArray
            | Operator::IsNumber => {
                let values = arguments.iter().map(|node| self.value(node)).collect::<Result<_>>()?;
                Call { scope: self, operator, at, values }.result()
            }
        }
    }

    /// Whether one of the arguments is true, or false.
    fn any(&self, arguments: &'a [Node], wanted: bool) -> Result<bool> {
        for node in arguments {
            if is_true(&self.value(node)?) == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first value that is neither null nor missing, or the last.
    fn first_given(&self, arguments: &'a [Node]) -> Result<Found<'a>> {
        let mut last = None;
        for node in arguments {
            last = self.value(node)?;
            if json(&last).is_some_and(|value| value.kind() != Kind::Null) {
                break;
            }
        }
        Ok(last)
    }

    fn compared(&self, arguments: &'a [Node], then: fn(Ordering) -> Found<'static>) -> Result<Found<'a>> {
        let (a, b) = (self.value(&arguments[0])?, self.value(&arguments[1])?);
        Ok(then(match (json(&a), json(&b)) {
            (Some(a), Some(b)) => compare(a, b),
            // What is missing is before everything else.
            (a, b) => a.is_some().cmp(&b.is_some()),
        }))
    }
}

impl<'a> Call<'_, 'a> {
    fn result(&self) -> Result<Found<'a>> {
        match self.operator {
            Operator::Add => arithmetic::add(self),
            Operator::Subtract => arithmetic::subtract(self),
            Operator::Multiply => arithmetic::multiply(self),
            Operator::Divide => arithmetic::divide(self),
            Operator::Mod => arithmetic::remainder(self),
            Operator::Abs => arithmetic::abs(self),
            Operator::Ceil => arithmetic::to_whole(self, f64::ceil),
            Operator::Floor => arithmetic::to_whole(self, f64::floor),
            Operator::Round => arithmetic::round(self),
            Operator::Trunc => arithmetic::trunc(self),
            Operator::Pow => arithmetic::pow(self),
            Operator::Sqrt => arithmetic::sqrt(self),
            Operator::Concat => string::concat(self),
            Operator::ToLower => string::cased(self, str::to_lowercase),
            Operator::ToUpper => string::cased(self, str::to_uppercase),
            Operator::StrLenCp => string::length(self),
            Operator::SubstrCp => string::part(self),
            Operator::ToString => string::from(self),
            Operator::ToInt => string::to_integer(self),
            Operator::ToDouble => string::to_double(self),
            Operator::Size => array::size(self),
            Operator::ArrayElemAt => array::item(self),
            Operator::In => array::contains(self),
            Operator::ConcatArrays => array::concat(self),
            Operator::IsArray => Ok(truth(self.kind(0) == Some(Kind::Array))),
            Operator::IsNumber => Ok(truth(self.kind(0) == Some(Kind::Number))),
            Operator::And
            | Operator::Or
            | Operator::IfNull
            | Operator::Not
            | Operator::Eq
            | Operator::Ne
            | Operator::Gt
            | Operator::Gte
            | Operator::Lt
            | Operator::Lte
            | Operator::Cmp => Err(self.error("is not called with values")),
        }
    }

    /// The value of an argument.
    pub(super) fn json(&self, index: usize) -> Option<Json<'_>> {
        self.values.get(index).and_then(json)
    }

    pub(super) fn kind(&self, index: usize) -> Option<Kind> {
        self.json(index).map(Json::kind)
    }

    /// Whether an argument is null or missing.
    pub(super) fn is_null(&self, index: usize) -> bool {
        self.kind(index).is_none_or(|kind| kind == Kind::Null)
    }

    /// An argument as a number; `None` for null and missing.
    pub(super) fn number(&self, index: usize) -> Result<Option<Amount>> {
        if self.is_null(index) {
            return Ok(None);
        }
        self.json(index).and_then(Amount::of).map(Some).ok_or_else(|| self.wrong(index, "numbers"))
    }

    /// An argument as an integer.
    pub(super) fn integer(&self, index: usize) -> Result<i64> {
        let number = self.json(index).and_then(Amount::of);
        number.and_then(Amount::as_i64).ok_or_else(|| self.wrong(index, "an integer"))
    }

    pub(super) fn spend(&self, bytes: usize) -> Result<()> {
        self.scope.spend(bytes, self.at)
    }

    /// That an argument is of a kind that the operator does not take.
    pub(super) fn wrong(&self, index: usize, wanted: &str) -> Error {
        let found = kind_name(self.json(index));
        self.error(&format!("takes {wanted}; argument {} is {found} in this document", index + 1))
    }

    pub(super) fn error(&self, message: &str) -> Error {
        fault(self.at, format!("{} {message}", self.operator.name()))
    }

    pub(super) fn amount(&self, amount: Amount) -> Result<Found<'a>> {
        let text = amount.text().ok_or_else(|| self.error("gives infinity or no number, which JSON does not have"))?;
        Ok(Some(Cow::Owned(text)))
    }
}

/// Where a path leads to.
enum Walk<'a, 'n> {
    Value(Option<Json<'a>>),
    /// An array, and what is left of the path.
    Array(Json<'a>, &'n [String]),
}

fn walk<'a, 'n>(mut value: Json<'a>, mut names: &'n [String]) -> Walk<'a, 'n> {
    while let Some((name, rest)) = names.split_first() {
        match value.kind() {
            Kind::Array => return Walk::Array(value, names),
            Kind::Object => match value.get(name) {
                Some(field) => value = field,
                None => return Walk::Value(None),
            },
            Kind::Null | Kind::Number | Kind::String | Kind::Bool => return Walk::Value(None),
        }
        names = rest;
    }
    Walk::Value(Some(value))
}

/// Writes the array of what the objects of an array have at a path.
fn gather(array: Json<'_>, names: &[String], out: &mut Vec<u8>) {
    out.push(b'[');
    let start = out.len();
    for item in array.items().filter(|item| item.kind() == Kind::Object) {
        let found = walk(item, names);
        if matches!(found, Walk::Value(None)) {
            continue;
        }
        if out.len() > start {
            out.push(b',');
        }
        match found {
            Walk::Value(value) => out.extend_from_slice(value.unwrap_or(Json::NULL).text()),
            Walk::Array(array, rest) => gather(array, rest, out),
        }
    }
    out.push(b']');
}
