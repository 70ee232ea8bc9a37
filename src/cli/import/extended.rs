//! MongoDB Extended JSON v2, canonical and relaxed, as plain JSON, and back.
//!
//! | Extended JSON | here |
//! |---|---|
//! | `{"$oid": hex}` | the text |
//! | `$numberInt`, `$numberLong`, `$numberDouble` | the number |
//! | `$numberDecimal` | the number, when the nearest double reads back as the same decimal; else the text, counted |
//! | `$date` | RFC 3339, in UTC where it was a number; a text that is no such time stays, counted |
//! | `$binary` | `{"$bytes": base64}`, with `subType` when that is not `00` |
//!
//! What is none of these, or not as specified (NaN, dates beyond the year 9999, which are counted), is kept as it is.

use serde_json::{Map, Number, Value, json};

use super::{Kept, Record, Records};
use crate::base::Timestamp;
use crate::cli::failure::Outcome;
use crate::document::json as strict;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Extended JSON texts of a file as plain ones.
pub(super) struct Extended<R> {
    records: R,
    kept: Kept,
}

impl<R: Records> Extended<R> {
    pub(super) fn new(records: R) -> Self {
        Self { records, kept: Kept::default() }
    }
}

impl<R: Records> Records for Extended<R> {
    fn next(&mut self) -> Outcome<Option<Record>> {
        let Some(mut record) = self.records.next()? else { return Ok(None) };
        record.text = record.text.and_then(|text| {
            let value = strict::parse(&text).map_err(|error| error.to_string())?;
            let mut value = plain(value, &mut self.kept);
            if let Some(id @ (Value::Number(_) | Value::Bool(_))) = value.get_mut("_id") {
                *id = Value::from(id.to_string());
            }
            Ok(value.to_string().into())
        });
        Ok(Some(record))
    }

    fn kept(&self) -> Kept {
        self.kept
    }
}

/// A value as plain JSON. Recursion ends with the levels that the parser lets through.
fn plain(value: Value, kept: &mut Kept) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| plain(item, kept)).collect(),
        Value::Object(fields) => match of_type(&fields, kept) {
            Some(value) => value,
            None if stands_for_type(&fields) => Value::Object(fields),
            None => fields.into_iter().map(|(key, value)| (key, plain(value, kept))).collect(),
        },
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

fn stands_for_type(fields: &Map<String, Value>) -> bool {
    fields.len() == 1 && fields.keys().all(|key| key.starts_with('$'))
}

/// The value of an object that stands for one of another type.
fn of_type(fields: &Map<String, Value>, kept: &mut Kept) -> Option<Value> {
    let (key, value) = fields.iter().next().filter(|_| stands_for_type(fields))?;
    match (key.as_str(), value) {
        ("$oid", Value::String(_)) => Some(value.clone()),
        ("$numberInt" | "$numberLong", Value::String(text)) => text.parse::<i64>().ok().map(Value::from),
        ("$numberDouble", Value::String(text)) => double(text).map(Value::Number),
        ("$numberDecimal", Value::String(text)) => {
            let decimal = Decimal::parse(text)?;
            Some(decimal.number(text).map_or_else(
                || {
                    kept.decimals_as_text += 1;
                    value.clone()
                },
                Value::Number,
            ))
        }
        ("$date", _) => {
            let date = date(value);
            if date.is_none() {
                kept.unread_dates += 1;
            }
            // A text stays a text, whatever it says.
            date.or_else(|| value.as_str().map(Value::from))
        }
        ("$binary", Value::Object(binary)) => {
            let (bytes, kind) = (binary.get("base64")?.as_str()?, binary.get("subType")?.as_str()?);
            if binary.len() != 2 {
                return None;
            }
            Some(if kind == "00" { json!({"$bytes": bytes}) } else { json!({"$bytes": bytes, "subType": kind}) })
        }
        _ => None,
    }
}

/// What stands under `$date`, as RFC 3339; `None` when it is no time of the years 0 to 9999.
fn date(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => Timestamp::from_rfc3339(text).map(|_| value.clone()),
        Value::Number(ms) => rfc3339(ms.as_i64()?).map(Value::from),
        Value::Object(long) => {
            let ms = long.get("$numberLong").filter(|_| long.len() == 1)?;
            rfc3339(ms.as_str()?.parse().ok()?).map(Value::from)
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => None,
    }
}

fn double(text: &str) -> Option<Number> {
    text.parse().ok().and_then(Number::from_f64)
}

/// A decimal as its digits without zeros at either end, and the power of ten of the first.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// `None` for what is no finite decimal.
    fn parse(text: &str) -> Option<Self> {
        let (is_negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, part].concat();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let leading = digits.bytes().take_while(|&byte| byte == b'0').count();
        let exponent = exponent.parse::<i32>().ok()?;
        let exponent = i64::from(exponent) + i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()?;
        let digits = digits.trim_matches('0').to_owned();
        let exponent = if digits.is_empty() { 0 } else { exponent };
        Some(Self { is_negative, digits, exponent })
    }

    /// The number that is this decimal and no other.
    fn number(&self, text: &str) -> Option<Number> {
        if let Ok(integer) = text.parse::<i64>() {
            return Some(integer.into());
        }
        let double: f64 = text.parse().ok()?;
        let back = Self::parse(&format!("{double:e}"))?;
        if back == *self { Number::from_f64(double) } else { None }
    }
}

/// Milliseconds since 1970 as RFC 3339, for years of four digits (Hinnant, `civil_from_days`).
fn rfc3339(ms: i64) -> Option<String> {
    let (days, ms) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hours, minutes, seconds, part) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    let time = format!("{hours:02}:{minutes:02}:{seconds:02}.{part:03}Z");
    (0..=9_999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}T{time}"))
}

/// A plain value as relaxed Extended JSON: what was binary is again.
pub(in crate::cli) fn extended(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(extended).collect(),
        Value::Object(fields) => match binary(&fields) {
            Some(binary) => binary,
            None => fields.into_iter().map(|(key, value)| (key, extended(value))).collect(),
        },
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

fn binary(fields: &Map<String, Value>) -> Option<Value> {
    let bytes = fields.get("$bytes")?.as_str()?;
    match (fields.len(), fields.get("subType").and_then(Value::as_str)) {
        (1, _) => Some(json!({"$binary": {"base64": bytes, "subType": "00"}})),
        (2, Some(kind)) => Some(json!({"$binary": {"base64": bytes, "subType": kind}})),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(given: &Value, expected: &Value) {
        assert_eq!(plain(given.clone(), &mut Kept::default()), *expected, "{given}");
    }

    #[test]
    fn both_forms_become_plain_json() {
        for (given, expected) in [
            (json!({"_id": {"$oid": "5f1d"}, "n": [{"$numberInt": "-5"}]}), json!({"_id": "5f1d", "n": [-5]})),
            (json!({"$numberLong": "9223372036854775807"}), json!(i64::MAX)),
            (json!({"$numberDouble": "1.5E3"}), json!(1500.0)),
            (json!({"$numberDouble": "5"}), json!(5.0)),
            (json!({"$date": {"$numberLong": "0"}}), json!("1970-01-01T00:00:00.000Z")),
            (json!({"$date": {"$numberLong": "-1"}}), json!("1969-12-31T23:59:59.999Z")),
            (json!({"$date": {"$numberLong": "951827696789"}}), json!("2000-02-29T12:34:56.789Z")),
            (json!({"$date": {"$numberLong": "253402300799999"}}), json!("9999-12-31T23:59:59.999Z")),
            (json!({"$date": "2020-01-02T03:04:05Z"}), json!("2020-01-02T03:04:05Z")),
            (json!({"$binary": {"base64": "AQ==", "subType": "00"}}), json!({"$bytes": "AQ=="})),
            (json!({"$binary": {"base64": "AQ==", "subType": "04"}}), json!({"$bytes": "AQ==", "subType": "04"})),
        ] {
            check(&given, &expected);
        }
    }

    #[test]
    fn what_is_something_else_stays() {
        for kept in [
            json!({"$numberDouble": "NaN"}),
            json!({"$numberDouble": "-Infinity"}),
            json!({"$numberInt": "x"}),
            json!({"$numberDecimal": "NaN"}),
            json!({"$date": {"$numberLong": "253402300800000"}}),
            json!({"$date": {"$numberLong": "-9223372036854775808"}}),
            json!({"$timestamp": {"t": 1, "i": 2}}),
            json!({"$regularExpression": {"pattern": "a", "options": ""}}),
            json!({"$oid": "x", "other": 1}),
            json!({"$minKey": 1}),
        ] {
            check(&kept, &kept);
        }
    }

    #[test]
    fn dates_that_cannot_be_read_stay_and_are_counted() {
        for (given, expected, unread) in [
            (json!({"$date": "2020-01-02T03:04:05.678Z"}), json!("2020-01-02T03:04:05.678Z"), 0),
            (json!({"$date": "2020-01-02T03:04:05+02:00"}), json!("2020-01-02T03:04:05+02:00"), 0),
            (
                json!([{"$date": "yesterday"}, {"$date": "2020-13-01T00:00:00Z"}]),
                json!(["yesterday", "2020-13-01T00:00:00Z"]),
                2,
            ),
            (json!({"$date": ""}), json!(""), 1),
            (json!({"$date": {"$numberLong": "x"}}), json!({"$date": {"$numberLong": "x"}}), 1),
            (json!({"$date": 1e300}), json!({"$date": 1e300}), 1),
            (json!({"$date": null}), json!({"$date": null}), 1),
        ] {
            let mut kept = Kept::default();
            assert_eq!(plain(given.clone(), &mut kept), expected);
            assert_eq!(kept.unread_dates, unread, "{given}");
        }
    }

    #[test]
    fn decimals_are_numbers_where_a_double_tells_them() {
        let mut kept = Kept::default();
        let mut decimal = |text: &str| plain(json!({"$numberDecimal": text}), &mut kept);
        for (text, number) in [
            ("19.99", json!(19.99)),
            ("0.1", json!(0.1)),
            ("-5", json!(-5)),
            ("1.50", json!(1.5)),
            ("1E3", json!(1000.0)),
            ("0.00", json!(0.0)),
            ("9007199254740993", json!(9_007_199_254_740_993i64)),
        ] {
            assert_eq!(decimal(text), number, "{text}");
        }
        for text in ["0.1000000000000000055", "1E6144", "123456789.123456789123", "9007199254740993.5"] {
            assert_eq!(decimal(text), json!(text));
        }
        assert_eq!(kept, Kept { decimals_as_text: 4, unread_dates: 0 });
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bytes in "[A-Za-z0-9+/]{0,8}", kind in "0[0-9]", n: i64, x in proptest::num::f64::NORMAL) {
            let bytes = if kind == "00" { json!({"$bytes": bytes}) } else { json!({"$bytes": bytes, "subType": kind}) };
            let value = json!({"b": [bytes], "n": n, "x": x, "t": "$bytes"});
            prop_assert_eq!(plain(extended(value.clone()), &mut Kept::default()), value);
            let canonical = json!({"n": {"$numberLong": n.to_string()}, "x": {"$numberDouble": x.to_string()}});
            prop_assert_eq!(plain(canonical, &mut Kept::default()), json!({"n": n, "x": x}));
        }

        #[test]
        fn dates_agree_with_the_length_of_days(ms in -60_000_000_000_000i64..250_000_000_000_000) {
            let (now, next) = (rfc3339(ms).unwrap(), rfc3339(ms + DAY_MS).unwrap());
            prop_assert_eq!(&now[10..], &next[10..]);
            prop_assert!(now < next);
        }

        #[test]
        fn any_time_is_formatted_or_not(ms: i64) {
            let _ = rfc3339(ms);
        }
    }
}
