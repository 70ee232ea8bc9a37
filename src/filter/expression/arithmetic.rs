//! `$add` to `$sqrt`.

use super::Found;
use super::evaluate::{Call, NULL};
use super::number::Amount;
use crate::Result;

/// The decimals that a number may be rounded to, as in MongoDB.
const PLACES: std::ops::RangeInclusive<i64> = -20..=100;

pub(super) fn add<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let (mut integers, mut doubles) = (0i128, None);
    for index in 0..call.values.len() {
        match call.number(index)? {
            None => return Ok(NULL),
            // Of 64 bits each, and fewer than 2^64 of them.
            Some(Amount::Integer(number)) => integers += number,
            Some(Amount::Double(number)) => *doubles.get_or_insert(0.0) += number,
        }
    }
    call.amount(match doubles {
        None => Amount::Integer(integers),
        Some(doubles) => Amount::Double(integers as f64 + doubles),
    })
}

/// Two numbers; `None` when one of them is null or missing, whatever the other one is.
fn pair(call: &Call<'_, '_>) -> Result<Option<(Amount, Amount)>> {
    if call.is_null(0) || call.is_null(1) {
        return Ok(None);
    }
    Ok(call.number(0)?.zip(call.number(1)?))
}

pub(super) fn subtract<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let Some(pair) = pair(call)? else { return Ok(NULL) };
    call.amount(match pair {
        (Amount::Integer(a), Amount::Integer(b)) => Amount::Integer(a - b),
        (a, b) => Amount::Double(a.as_f64() - b.as_f64()),
    })
}

pub(super) fn multiply<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let mut product = Amount::Integer(1);
    for index in 0..call.values.len() {
        let Some(factor) = call.number(index)? else { return Ok(NULL) };
        product = times(product, factor);
    }
    call.amount(product)
}

fn times(a: Amount, b: Amount) -> Amount {
    if let (Amount::Integer(a), Amount::Integer(b)) = (a, b)
        && let Some(product) = a.checked_mul(b)
    {
        return Amount::Integer(product).narrowed();
    }
    Amount::Double(a.as_f64() * b.as_f64())
}

pub(super) fn divide<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let Some((a, b)) = pair(call)? else { return Ok(NULL) };
    if b.as_f64() == 0.0 {
        return Err(call.error("cannot divide by zero"));
    }
    call.amount(match (a, b) {
        (Amount::Integer(a), Amount::Integer(b)) if a % b == 0 => Amount::Integer(a / b),
        (a, b) => Amount::Double(a.as_f64() / b.as_f64()),
    })
}

pub(super) fn remainder<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let Some((a, b)) = pair(call)? else { return Ok(NULL) };
    if b.as_f64() == 0.0 {
        return Err(call.error("cannot divide by zero"));
    }
    call.amount(match (a, b) {
        (Amount::Integer(a), Amount::Integer(b)) => Amount::Integer(a % b),
        (a, b) => Amount::Double(a.as_f64() % b.as_f64()),
    })
}

pub(super) fn abs<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    match call.number(0)? {
        None => Ok(NULL),
        Some(Amount::Integer(number)) => call.amount(Amount::Integer(number.abs())),
        Some(Amount::Double(number)) => call.amount(Amount::Double(number.abs())),
    }
}

pub(super) fn to_whole<'a>(call: &Call<'_, 'a>, whole: fn(f64) -> f64) -> Result<Found<'a>> {
    match call.number(0)? {
        None => Ok(NULL),
        Some(Amount::Integer(number)) => call.amount(Amount::Integer(number)),
        Some(Amount::Double(number)) => call.amount(Amount::Double(whole(number))),
    }
}

/// A number and how many decimals it shall have; `None` when one of them is null or missing.
fn number_and_place(call: &Call<'_, '_>) -> Result<Option<(Amount, i32)>> {
    let Some(number) = call.number(0)? else { return Ok(None) };
    if call.values.len() == 1 {
        return Ok(Some((number, 0)));
    }
    if call.is_null(1) {
        return Ok(None);
    }
    let place = call.integer(1)?;
    match i32::try_from(place) {
        Ok(narrow) if PLACES.contains(&place) => Ok(Some((number, narrow))),
        _ => Err(call.error(&format!("takes a place of {} to {}, not {place}", PLACES.start(), PLACES.end()))),
    }
}

pub(super) fn round<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let Some((number, place)) = number_and_place(call)? else { return Ok(NULL) };
    call.amount(match number {
        Amount::Integer(_) if place >= 0 => number,
        Amount::Integer(number) => Amount::Integer(round_integer(number, place)),
        Amount::Double(number) if place > 0 => {
            // Written out exactly, with a tie to the even digit.
            Amount::Double(format!("{number:.*}", place.unsigned_abs() as usize).parse().unwrap_or(number))
        }
        Amount::Double(number) => {
            let unit = 10f64.powi(-place);
            Amount::Double((number / unit).round_ties_even() * unit)
        }
    })
}

fn unit(place: i32) -> i128 {
    // At most 10^20.
    10i128.pow(place.unsigned_abs())
}

/// To a multiple of a power of ten, a tie to the even one.
fn round_integer(number: i128, place: i32) -> i128 {
    let unit = unit(place);
    let (count, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let up = rest * 2 > unit || (rest * 2 == unit && count % 2 != 0);
    (count + i128::from(up)) * unit
}

pub(super) fn trunc<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let Some((number, place)) = number_and_place(call)? else { return Ok(NULL) };
    call.amount(match number {
        Amount::Integer(_) if place >= 0 => number,
        Amount::Integer(number) => Amount::Integer(number / unit(place) * unit(place)),
        Amount::Double(number) if place > 0 => Amount::Double(cut(number, place.unsigned_abs() as usize)),
        Amount::Double(number) => {
            let unit = 10f64.powi(-place);
            Amount::Double((number / unit).trunc() * unit)
        }
    })
}

/// A double without the decimals behind a place, as it is written.
fn cut(number: f64, place: usize) -> f64 {
    let text = number.to_string();
    let end = text.find('.').map_or(text.len(), |point| (point + 1 + place).min(text.len()));
    text[..end].parse().unwrap_or(number)
}

pub(super) fn pow<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let Some((base, exponent)) = pair(call)? else { return Ok(NULL) };
    if base.as_f64() == 0.0 && exponent.as_f64() < 0.0 {
        return Err(call.error("cannot raise zero to a negative power"));
    }
    if let (Amount::Integer(base), Amount::Integer(exponent)) = (base, exponent)
        && let Some(power) = u32::try_from(exponent).ok().and_then(|exponent| base.checked_pow(exponent))
    {
        return call.amount(Amount::Integer(power));
    }
    call.amount(Amount::Double(base.as_f64().powf(exponent.as_f64())))
}

pub(super) fn sqrt<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let Some(number) = call.number(0)? else { return Ok(NULL) };
    if number.as_f64() < 0.0 {
        return Err(call.error("takes no negative number"));
    }
    call.amount(Amount::Double(number.as_f64().sqrt()))
}
