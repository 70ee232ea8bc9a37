//! `$concat` to `$toDouble`.

use std::borrow::Cow;

use serde_json::Value;

use super::Found;
use super::evaluate::{Call, NULL};
use super::number::Amount;
use crate::Result;
use crate::value::{Json, Kind};

/// A string as a value.
fn text(string: &str) -> Found<'static> {
    Some(Cow::Owned(Value::from(string).to_string().into_bytes()))
}

pub(super) fn concat<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let mut out = vec![b'"'];
    for index in 0..call.values.len() {
        if call.is_null(index) {
            return Ok(NULL);
        }
        let json = call.json(index).filter(|value| value.kind() == Kind::String);
        let text = json.ok_or_else(|| call.wrong(index, "strings"))?.text();
        call.spend(text.len())?;
        // What is escaped in one is escaped in the whole.
        out.extend_from_slice(text.get(1..text.len() - 1).unwrap_or_default());
    }
    out.push(b'"');
    Ok(Some(Cow::Owned(out)))
}

/// An argument as a string: numbers as they are written, null and missing as an empty one.
fn lenient<'v>(call: &'v Call<'_, '_>, index: usize) -> Result<Cow<'v, str>> {
    match call.json(index) {
        None => Ok(Cow::Borrowed("")),
        Some(value) => match value.kind() {
            Kind::Null => Ok(Cow::Borrowed("")),
            Kind::String => Ok(value.as_str().unwrap_or_default()),
            Kind::Number => Ok(shown_number(value)),
            Kind::Object | Kind::Array | Kind::Bool => Err(call.wrong(index, "a string")),
        },
    }
}

/// A number as MongoDB turns it into a string: a whole double without its fraction.
fn shown_number(value: Json<'_>) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value.text());
    match text.strip_suffix(".0") {
        Some(whole) => Cow::Owned(whole.to_owned()),
        None => text,
    }
}

pub(super) fn cased<'a>(call: &Call<'_, 'a>, change: fn(&str) -> String) -> Result<Found<'a>> {
    let string = lenient(call, 0)?;
    call.spend(string.len())?;
    Ok(text(&change(&string)))
}

pub(super) fn length<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let string = call.json(0).and_then(Json::as_str).ok_or_else(|| call.wrong(0, "a string"))?;
    call.amount(Amount::Integer(string.chars().count() as i128))
}

/// `[string, first character, number of characters]`.
pub(super) fn part<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let string = lenient(call, 0)?;
    let count = |index| {
        usize::try_from(call.integer(index)?)
            .map_err(|_| call.error("takes a start and a length that are not negative"))
    };
    let (start, length) = (count(1)?, count(2)?);
    call.spend(string.len())?;
    Ok(text(&string.chars().skip(start).take(length).collect::<String>()))
}

pub(super) fn from<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    match call.kind(0) {
        None | Some(Kind::Null) => Ok(NULL),
        Some(Kind::String) => Ok(call.values[0].clone()),
        Some(Kind::Bool) => Ok(text(if call.json(0).and_then(Json::as_bool) == Some(true) { "true" } else { "false" })),
        Some(Kind::Number) => Ok(text(&lenient(call, 0)?)),
        Some(Kind::Object | Kind::Array) => Err(call.wrong(0, "a string, a number or a boolean")),
    }
}

/// The number that an argument stands for; `None` for null and missing.
fn amount(call: &Call<'_, '_>) -> Result<Option<Amount>> {
    let Some(value) = call.json(0) else { return Ok(None) };
    match value.kind() {
        Kind::Null => Ok(None),
        Kind::Bool => Ok(Some(Amount::Integer(value.as_bool().unwrap_or_default().into()))),
        Kind::Number => Ok(Amount::of(value)),
        Kind::String => {
            let string = value.as_str().unwrap_or_default();
            let number = match string.parse::<i128>() {
                Ok(integer) => Some(Amount::Integer(integer)),
                Err(_) => string.parse().ok().filter(|double: &f64| double.is_finite()).map(Amount::Double),
            };
            number.map(Some).ok_or_else(|| call.error(&format!("cannot read {string:.40?} as a number")))
        }
        Kind::Object | Kind::Array => Err(call.wrong(0, "a number, a string or a boolean")),
    }
}

pub(super) fn to_integer<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let integer = match amount(call)? {
        None => return Ok(NULL),
        Some(Amount::Integer(integer)) => integer,
        Some(Amount::Double(_)) if call.kind(0) == Some(Kind::String) => {
            return Err(call.error("reads strings of digits only; $toDouble reads fractions"));
        }
        // Saturates, and what saturates does not fit.
        Some(Amount::Double(double)) => double.trunc() as i128,
    };
    if integer < i64::MIN.into() || integer > u64::MAX.into() {
        return Err(call.error("gives an integer that 64 bits do not hold"));
    }
    call.amount(Amount::Integer(integer))
}

pub(super) fn to_double<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    match amount(call)? {
        None => Ok(NULL),
        Some(amount) => call.amount(Amount::Double(amount.as_f64())),
    }
}
