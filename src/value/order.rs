//! MongoDB's comparison order, over the kinds that JSON has: null, numbers, strings, objects, arrays, booleans.
//!
//! Numbers compare by their value, exactly, however they are written; -0 equals 0. Strings compare by their bytes.
//! Objects compare field by field: the kind of the value, the key, the value; keys are sorted here, so that two objects
//! with the same fields are equal, where MongoDB also looks at the order in which they were written.
//!
//! Source: MongoDB manual, "Comparison/Sort Order".

use std::cmp::Ordering;

use super::json::{Json, Kind, Number};

/// Compares two values of any kinds.
#[must_use]
pub fn compare(a: Json<'_>, b: Json<'_>) -> Ordering {
    let kind = a.kind();
    kind.cmp(&b.kind()).then_with(|| match kind {
        Kind::Null => Ordering::Equal,
        Kind::Bool => a.as_bool().cmp(&b.as_bool()),
        Kind::Number => match (a.as_number(), b.as_number()) {
            (Some(a), Some(b)) => numbers(a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        },
        Kind::String => match (a.plain(), b.plain()) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => a.as_str().cmp(&b.as_str()),
        },
        Kind::Array => items(a, b),
        Kind::Object => objects(a, b),
    })
}

fn items(a: Json<'_>, b: Json<'_>) -> Ordering {
    let (mut a, mut b) = (a.items(), b.items());
    loop {
        match (a.next(), b.next()) {
            (Some(a), Some(b)) => {
                let order = compare(a, b);
                if order.is_ne() {
                    return order;
                }
            }
            (a, b) => return a.is_some().cmp(&b.is_some()),
        }
    }
}

fn objects(a: Json<'_>, b: Json<'_>) -> Ordering {
    let (mut a, mut b) = (a.fields(), b.fields());
    loop {
        match (a.next(), b.next()) {
            (Some((a_key, a)), Some((b_key, b))) => {
                let order = a.kind().cmp(&b.kind()).then_with(|| a_key.cmp(&b_key)).then_with(|| compare(a, b));
                if order.is_ne() {
                    return order;
                }
            }
            (a, b) => return a.is_some().cmp(&b.is_some()),
        }
    }
}

/// Compares two numbers by their exact values.
fn numbers(a: Number, b: Number) -> Ordering {
    match (a, b) {
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (Number::Float(a), b) => float_to_integer(a, integer(b)),
        (a, Number::Float(b)) => float_to_integer(b, integer(a)).reverse(),
        (a, b) => integer(a).cmp(&integer(b)),
    }
}

fn integer(number: Number) -> i128 {
    match number {
        Number::Signed(number) => number.into(),
        Number::Unsigned(number) => number.into(),
        // Not asked for: rounds.
        Number::Float(number) => number as i128,
    }
}

/// A finite double against an integer of 64 bits.
fn float_to_integer(float: f64, integer: i128) -> Ordering {
    let whole = float.floor();
    // Saturates far outside of what 64 bits hold.
    (whole as i128).cmp(&integer).then_with(|| if float > whole { Ordering::Greater } else { Ordering::Equal })
}
