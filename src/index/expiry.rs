//! Which documents have expired.
//!
//! A time is an integer of milliseconds since 1970, or a text in RFC 3339 in UTC, in capitals: `2026-11-25T10:00:00Z`,
//! with or without a fraction. Of a list the earliest counts. What is no time never expires.
//!
//! Such texts sort as their times do, up to the second: the fraction comes after, where `.` and `Z` sort otherwise. So
//! the index finds what has expired and a little more, and the documents decide.

use std::ops::ControlFlow;

use super::Span;
use super::definition::{Definition, Shape};
use crate::base::Timestamp;
use crate::value::{Direction, Json, Leaf, Number, Path, Row, encode};

/// Characters of a time up to its second.
const TO_THE_SECOND: usize = 19;

impl Definition {
    /// Whether a document that the index takes is old enough to be deleted.
    #[must_use]
    pub fn has_expired(&self, row: Row<'_>, now: Timestamp) -> bool {
        let Some((path, _, latest)) = self.expiring(now) else { return false };
        let is_old = |value: Option<Json<'_>>| value.and_then(time_ms).is_some_and(|time| time <= latest);
        let visit = &mut |value| if is_old(value) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        self.takes(row) && path.visit_row(row, Leaf::Items, visit).is_break()
    }

    /// The keys of all documents that have expired, from and up to, ascending and apart, and of few others. Besides,
    /// those whose keys are too many or too long may have.
    #[must_use]
    pub fn expired_spans(&self, now: Timestamp) -> Vec<Span> {
        let Some((_, direction, latest)) = self.expiring(now) else { return Vec::new() };
        let next_second = Timestamp(latest as u64 + 1_000).to_string();
        let texts = ("\"0000\"".to_owned(), format!("\"{}\"", &next_second[..TO_THE_SECOND]));
        let numbers = ("-1e308".to_owned(), (latest + 1).to_string());
        let span = |(low, high): (String, String)| {
            let key = |text: String| {
                let mut key = Vec::new();
                encode(Json::new(text.as_bytes()), direction, &mut key);
                key
            };
            match direction {
                Direction::Ascending => (key(low), key(high)),
                Direction::Descending => (key(high), key(low)),
            }
        };
        let mut spans = vec![span(numbers), span(texts)];
        spans.sort_unstable();
        spans
    }

    /// The field with the time, how it is ordered, and the latest time that has expired, in milliseconds since 1970.
    fn expiring(&self, now: Timestamp) -> Option<(&Path, Direction, i64)> {
        let (Some(seconds), Shape::Ordered(pattern)) = (self.expire_after_s, &self.shape) else { return None };
        let (path, direction) = pattern.fields().first()?;
        let latest = now.0.checked_sub(seconds * 1_000).and_then(|latest| i64::try_from(latest).ok())?;
        Some((path, *direction, latest))
    }
}

/// The time that a value is, in milliseconds since 1970; `None` when it is none.
fn time_ms(value: Json<'_>) -> Option<i64> {
    if let Some(Number::Signed(ms)) = value.as_number() {
        return Some(ms);
    }
    let text = value.as_str()?;
    let is_plain = text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T');
    Timestamp::from_rfc3339(&text).filter(|_| is_plain).and_then(|time| i64::try_from(time.0).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::index::Keys;

    const NOW: Timestamp = Timestamp(1_700_000_000_500);

    fn definition(fields: &str) -> Definition {
        Definition::parse(&json!({"fields": fields, "expire_after_s": 10, "filter": {"keep": null}})).unwrap()
    }

    /// Whether it has expired; that it is found by its keys then, is checked.
    fn expired(definition: &Definition, body: &Value, now: Timestamp) -> bool {
        let text = body.to_string();
        let row = Row { id: None, body: Json::new(text.as_bytes()), conflicts: 0 };
        let expired = definition.has_expired(row, now);
        let (keys, spans) = (Keys::of(definition, row).keys, definition.expired_spans(now));
        let found = keys.iter().any(|key| spans.iter().any(|(from, to)| from <= key && key < to));
        assert!(found || !expired, "{body}");
        expired
    }

    #[test]
    fn times_expire_to_the_millisecond_and_nothing_else_does() {
        for fields in ["at", "-at"] {
            let definition = definition(fields);
            let is = |at: Value| expired(&definition, &json!({ "at": at }), NOW);
            // 2023-11-14T22:13:20.500Z
            for at in [json!(1_699_999_990_500i64), json!(0), json!(-5), json!("2023-11-14T22:13:10.500Z")] {
                assert!(is(at.clone()), "{at}");
            }
            for at in [json!("2023-11-14T22:13:10Z"), json!("1969-01-01T00:00:00Z"), json!([json!("x"), json!(7)])] {
                assert!(is(at.clone()), "{at}");
            }
            for at in [json!(1_699_999_990_501i64), json!("2023-11-14T22:13:10.501Z"), json!(u64::MAX)] {
                assert!(!is(at.clone()), "{at}");
            }
            for at in [json!("2023-11-14t22:13:00z"), json!("2023-11-14T22:13:00+00:00"), json!("2023"), json!(1.5)] {
                assert!(!is(at.clone()), "{at}");
            }
            for at in [json!(null), json!([]), json!({"at": 0}), json!(true)] {
                assert!(!is(at.clone()), "{at}");
            }
            assert!(!expired(&definition, &json!({"at": 0, "keep": true}), NOW));
            assert!(!expired(&definition, &json!({"at": 0}), Timestamp(9_999)));
            assert!(expired(&definition, &json!({"at": 0}), Timestamp(10_000)));
        }
    }

    proptest! {
        #[test]
        fn what_has_expired_is_found_by_its_keys(ago in -20_000i64..20_000, short in any::<bool>()) {
            let at = (NOW.0 as i64 - 10_000 - ago) as u64;
            let text = Timestamp(at).to_string();
            let text = if short { format!("{}Z", &text[..TO_THE_SECOND]) } else { text };
            for fields in ["at", "-at"] {
                prop_assert_eq!(expired(&definition(fields), &json!({ "at": at }), NOW), ago >= 0);
                let is = expired(&definition(fields), &json!({ "at": text }), NOW);
                prop_assert_eq!(is, Timestamp::from_rfc3339(&text).unwrap().plus_ms(10_000) <= NOW);
            }
        }
    }
}
