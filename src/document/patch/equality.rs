//! Equality of JSON values by what they mean: 1 is 1.0.

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
