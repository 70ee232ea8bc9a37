//! `$size`, `$arrayElemAt`, `$in`, `$concatArrays`.

use std::borrow::Cow;

use super::Found;
use super::evaluate::{Call, NULL, truth};
use super::number::Amount;
use crate::Result;
use crate::value::{Json, Kind, compare};

/// An argument as an array.
fn array<'v>(call: &'v Call<'_, '_>, index: usize) -> Result<Json<'v>> {
    let array = call.json(index).filter(|value| value.kind() == Kind::Array);
    array.ok_or_else(|| call.wrong(index, if call.values.len() == 1 { "an array" } else { "an array there" }))
}

pub(super) fn size<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    call.amount(Amount::Integer(array(call, 0)?.items().count() as i128))
}

pub(super) fn item<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    if call.is_null(0) || call.is_null(1) {
        return Ok(NULL);
    }
    let items = array(call, 0)?.items();
    let position = call.integer(1)?;
    let position = if position < 0 { position + items.clone().count() as i64 } else { position };
    let Ok(position) = usize::try_from(position) else { return Ok(None) };
    Ok(match &call.values[0] {
        Some(Cow::Borrowed(text)) => Json::new(text).items().nth(position).map(|item| Cow::Borrowed(item.text())),
        _ => items.into_iter().nth(position).map(|item| Cow::Owned(item.text().to_vec())),
    })
}

pub(super) fn contains<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let array = array(call, 1)?;
    let found = call.json(0).is_some_and(|wanted| array.items().any(|item| compare(item, wanted).is_eq()));
    Ok(truth(found))
}

pub(super) fn concat<'a>(call: &Call<'_, 'a>) -> Result<Found<'a>> {
    let mut out = vec![b'['];
    for index in 0..call.values.len() {
        if call.is_null(index) {
            return Ok(NULL);
        }
        let text = array(call, index)?.text();
        call.spend(text.len())?;
        let inside = text.get(1..text.len() - 1).unwrap_or_default();
        if out.len() > 1 && !inside.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(inside);
    }
    out.push(b']');
    Ok(Some(Cow::Owned(out)))
}
