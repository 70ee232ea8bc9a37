//! Trying conditions on rows, in place.

use std::ops::ControlFlow;

use super::condition::{Condition, Element, Operand, Test, Type};
use super::geo::Point;
use crate::value::{Json, Kind, Leaf, Number, Path, Row, compare};

/// Whether a condition holds of a row.
pub(super) fn row(condition: &Condition, row: Row<'_>) -> bool {
    holds(condition, Scope::Row(row))
}

/// Whether an item of an array is as `$elemMatch` asks.
pub(super) fn is_such(item: Json<'_>, element: &Element) -> bool {
    match element {
        Element::Fields(condition) => item.kind() == Kind::Object && holds(condition, Scope::Item(item)),
        Element::Value(tests) => tests.iter().all(|test| passes(test, Some(item))),
    }
}

/// Whether an element of a list is as `$pull` asks: as if it were a document, or the value of a field that is looked
/// into, where `$elemMatch` takes an item as it is.
pub(super) fn is_pulled(value: Json<'_>, element: &Element) -> bool {
    match element {
        Element::Fields(_) => is_such(value, element),
        Element::Value(tests) => tests.iter().all(|test| finds(test, Place::At(value))),
    }
}

/// What a condition is tried on.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    /// A document, with its id.
    Row(Row<'a>),
    /// An object in an array.
    Item(Json<'a>),
}

/// Where a test looks.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    /// Under a path.
    Under(&'a Path, Scope<'a>),
    /// At a value, as a path that leads to it does.
    At(Json<'a>),
}

impl<'a> Place<'a> {
    /// Whether something that is there is accepted.
    fn any(self, leaf: Leaf, mut accepts: impl FnMut(Option<Json<'a>>) -> bool) -> bool {
        let mut visit = |value| if accepts(value) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let flow = match self {
            Self::Under(path, Scope::Row(row)) => path.visit_row(row, leaf, &mut visit),
            Self::Under(path, Scope::Item(item)) => path.visit(item, leaf, &mut visit),
            Self::At(value) => Path::visit_end(value, leaf, &mut visit),
        };
        flow.is_break()
    }
}

fn holds(condition: &Condition, scope: Scope<'_>) -> bool {
    match condition {
        Condition::All(all) => all.iter().all(|condition| holds(condition, scope)),
        Condition::Any(any) => any.iter().any(|condition| holds(condition, scope)),
        Condition::Not(condition) => !holds(condition, scope),
        Condition::Field { path, test } => finds(test, Place::Under(path, scope)),
        Condition::Expression { expression, .. } => match scope {
            Scope::Row(row) => expression.is_true(row).unwrap_or(false),
            // Refused where filters are read, as words are.
            Scope::Item(_) => false,
        },
        Condition::Text(search) => match scope {
            Scope::Row(row) => search.matches(row, &search.fields),
            Scope::Item(_) => false,
        },
    }
}

/// Whether a test finds something in its place.
fn finds(test: &Test, place: Place<'_>) -> bool {
    match test {
        Test::Not(tests) => !tests.iter().all(|test| finds(test, place)),
        Test::Holds(tests) => !tests.is_empty() && tests.iter().all(|test| finds(test, place)),
        Test::Exists(wanted) => place.any(Leaf::Whole, |value| value.is_some()) == *wanted,
        Test::Size(_) | Test::Element(_) => place.any(Leaf::Whole, |value| passes(test, value)),
        Test::Equal(_)
        | Test::In(_)
        | Test::Compare(..)
        | Test::Type(_)
        | Test::Matches(_)
        | Test::Remainder { .. }
        | Test::Near(_)
        | Test::Within(_) => place.any(Leaf::Items, |value| passes(test, value)),
    }
}

/// Whether one value, or nothing, passes a test itself.
fn passes(test: &Test, value: Option<Json<'_>>) -> bool {
    match test {
        Test::Equal(operand) => equal(value.unwrap_or(Json::NULL), operand),
        Test::In(operands) => {
            let value = value.unwrap_or(Json::NULL);
            operands.binary_search_by(|operand| compare(operand.json(), value)).is_ok()
        }
        Test::Compare(comparison, operand) => {
            let (value, operand) = (value.unwrap_or(Json::NULL), operand.json());
            value.kind() == operand.kind() && comparison.accepts(compare(value, operand))
        }
        Test::Exists(wanted) => value.is_some() == *wanted,
        Test::Type(types) => value.is_some_and(|value| types.iter().any(|wanted| is_of(value, *wanted))),
        Test::Matches(regex) => value.and_then(Json::as_str).is_some_and(|text| regex.finds(&text)),
        Test::Remainder { divisor, remainder } => {
            let number = value.and_then(Json::as_number).and_then(truncated);
            number.is_some_and(|number| number % i128::from(*divisor) == i128::from(*remainder))
        }
        Test::Holds(tests) => !tests.is_empty() && tests.iter().all(|test| passes(test, value)),
        Test::Size(size) => array(value).is_some_and(|array| array.items().count() as u64 == *size),
        Test::Element(element) => array(value).is_some_and(|array| array.items().any(|item| is_such(item, element))),
        Test::Not(tests) => !tests.iter().all(|test| passes(test, value)),
        Test::Near(near) => value.and_then(Point::read).is_some_and(|point| near.reaches(point)),
        Test::Within(shape) => value.and_then(Point::read).is_some_and(|point| shape.contains(point)),
    }
}

fn equal(value: Json<'_>, operand: &Operand) -> bool {
    let operand = operand.json();
    // One writer wrote both, so that only numbers, and what may hold them, can be equal and differ.
    value.text() == operand.text()
        || matches!(operand.kind(), Kind::Number | Kind::Array | Kind::Object) && compare(value, operand).is_eq()
}

fn array(value: Option<Json<'_>>) -> Option<Json<'_>> {
    value.filter(|value| value.kind() == Kind::Array)
}

fn is_of(value: Json<'_>, wanted: Type) -> bool {
    let kind = value.kind();
    match wanted {
        Type::String => kind == Kind::String,
        Type::Object => kind == Kind::Object,
        Type::Array => kind == Kind::Array,
        Type::Bool => kind == Kind::Bool,
        Type::Null => kind == Kind::Null,
        Type::Number => kind == Kind::Number,
        Type::Int => whole(value).is_some_and(|number| i32::try_from(number).is_ok()),
        Type::Long => whole(value).is_some_and(|number| i32::try_from(number).is_err()),
        Type::Double => matches!(value.as_number(), Some(Number::Float(_))),
    }
}

fn whole(value: Json<'_>) -> Option<i128> {
    match value.as_number()? {
        Number::Signed(number) => Some(number.into()),
        Number::Unsigned(number) => Some(number.into()),
        Number::Float(_) => None,
    }
}

/// A number without its fraction, when 64 bits, signed or not, hold it.
fn truncated(number: Number) -> Option<i128> {
    match number {
        Number::Signed(number) => Some(number.into()),
        Number::Unsigned(number) => Some(number.into()),
        Number::Float(number) => (number.abs() < 18_446_744_073_709_551_616.0).then_some(number as i128),
    }
}
