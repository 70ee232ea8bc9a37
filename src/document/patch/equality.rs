//! Equality and order of JSON values by what they mean: 1 is 1.0.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// The value with each number that is whole and fits 64 bits as an integer: equal values have the same form.
pub(in crate::document) fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(number)),
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, field)| (key.clone(), canonical(field))).collect())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

fn whole(number: &Number) -> Number {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) if float.fract() == 0.0 && (-TWO_TO_63..TWO_TO_63).contains(&float) => (float as i64).into(),
        Some(float) if float.fract() == 0.0 && (TWO_TO_63..2.0 * TWO_TO_63).contains(&float) => (float as u64).into(),
        Some(_) | None => number.clone(),
    }
}

/// The order of two canonical values of one kind that has an order: numbers, texts, booleans.
pub(in crate::document) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Some(compare_numbers(a, b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (None, Some(b)) => float_with_integer(a, b),
        (Some(a), None) => float_with_integer(b, a).reverse(),
        (None, None) => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            a.partial_cmp(&b).unwrap_or(Ordering::Equal)
        }
    }
}

/// A canonical float is not whole, so below 2^53, or beyond all 64-bit integers: rounding the integer does no harm
/// in the first case.
fn float_with_integer(float: &Number, integer: i128) -> Ordering {
    let float = float.as_f64().unwrap_or_default();
    if float.fract() == 0.0 {
        return if float > 0.0 { Ordering::Greater } else { Ordering::Less };
    }
    float.partial_cmp(&(integer as f64)).unwrap_or(Ordering::Equal)
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}
