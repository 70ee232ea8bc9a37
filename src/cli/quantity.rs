//! Sizes, durations and times as people read them: `59.2 MiB`, `3 h 5 min`, `2 min ago`.
//!
//! What a number counts is told by the name of its field, whose last part is the unit, as everywhere in the interface.
//! A time that is a field's whole point (`time`, `shows`) stays as it is: it is there to be copied.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::base::Timestamp;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The time on this machine's clock.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The value of a field, given by its JSON pointer, as people read it at a time; `None` where there is nothing to
/// make of it.
pub(super) fn readable(pointer: &str, value: &Value, now: Timestamp) -> Option<String> {
    let name = pointer.rsplit('/').next().unwrap_or_default();
    let (number, unit) = (value.as_f64(), name.rsplit('_').next().unwrap_or_default());
    match (number, unit) {
        (Some(bytes), "bytes") => Some(size(bytes)),
        (Some(_), "s") if name.ends_with("per_s") => None,
        (Some(seconds), "s") => Some(duration(seconds * 1_000.0)),
        (Some(ms), "ms") => Some(duration(ms)),
        (Some(us), "us") => Some(duration(us / 1_000.0)),
        (None, "at" | "since" | "of") => Some(moment(Timestamp::from_rfc3339(value.as_str()?)?, now)),
        _ => None,
    }
}

/// A number of bytes.
pub(super) fn size(bytes: f64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024.0 {
        return format!("{bytes} B");
    }
    let (mut shown, mut unit) = (bytes / 1_024.0, 0);
    // What would be rounded to 1024.0 of a unit is one of the next.
    while shown >= 1_023.95 && unit + 1 < units.len() {
        (shown, unit) = (shown / 1_024.0, unit + 1);
    }
    format!("{shown:.1} {}", units[unit])
}

/// A number of milliseconds.
fn duration(ms: f64) -> String {
    let (sign, ms) = if ms < 0.0 { ("-", -ms) } else { ("", ms) };
    // Whole milliseconds from here on; a float beyond all clocks saturates.
    let whole = ms.round() as u64;
    let two = |large: u64, name: &str, small: u64, rest: &str| match (whole % large) / small {
        0 => format!("{} {name}", whole / large),
        left => format!("{} {name} {left} {rest}", whole / large),
    };
    let text = match whole {
        0 if ms == 0.0 => "0 ms".to_owned(),
        0..10 if ms < 1.0 => format!("{:.0} µs", ms * 1_000.0),
        0..10 => format!("{ms:.1} ms"),
        10..SECOND => format!("{whole} ms"),
        SECOND..MINUTE => format!("{:.1} s", ms / 1_000.0),
        MINUTE..HOUR => two(MINUTE, "min", SECOND, "s"),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        _ => two(DAY, "d", HOUR, "h"),
    };
    format!("{sign}{text}")
}

/// A time: how far it is from now, or the date when it is more than a day off.
fn moment(time: Timestamp, now: Timestamp) -> String {
    let away = time.since_ms(now).max(now.since_ms(time));
    let amount = match away {
        0..SECOND => return "now".to_owned(),
        SECOND..MINUTE => format!("{} s", away / SECOND),
        MINUTE..HOUR => format!("{} min", away / MINUTE),
        HOUR..DAY => format!("{} h", away / HOUR),
        _ => {
            let text = time.to_string();
            return format!("{} {}Z", &text[..10], &text[11..16]);
        }
    };
    if time > now { format!("in {amount}") } else { format!("{amount} ago") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_name_of_a_field_says_what_it_counts() {
        let now = Timestamp::from_rfc3339("2026-11-25T10:00:00Z").unwrap();
        for (pointer, value, text) in [
            ("/bytes", json!(24), "24 B"),
            ("/disk_bytes", json!(24_576), "24.0 KiB"),
            ("/memory/resident_bytes", json!(60_866_560), "58.0 MiB"),
            ("/disk_bytes", json!((1 << 20) - 1), "1.0 MiB"),
            ("/disk_bytes", json!(5_u64 << 40), "5.0 TiB"),
            ("/uptime_s", json!(2), "2.0 s"),
            ("/uptime_s", json!(0), "0 ms"),
            ("/uptime_s", json!(3_900), "1 h 5 min"),
            ("/uptime_s", json!(59.9), "59.9 s"),
            ("/uptime_s", json!(266_400), "3 d 2 h"),
            ("/operations/reads/p99_us", json!(16_384), "16 ms"),
            ("/operations/reads/p99_us", json!(210), "210 µs"),
            ("/clock_ahead_ms", json!(-90_000), "-1 min 30 s"),
            ("/p50_ms", json!(1.54), "1.5 ms"),
            ("/since", json!("2026-11-25T09:58:00.123Z"), "1 min ago"),
            ("/no_answer_since", json!("2026-11-25T07:00:00Z"), "3 h ago"),
            ("/updated_at", json!("2026-11-25T09:59:59.900Z"), "now"),
            ("/expires_at", json!("2026-11-25T12:00:00Z"), "in 2 h"),
            ("/updated_at", json!("2025-01-02T03:04:05Z"), "2025-01-02 03:04Z"),
        ] {
            assert_eq!(readable(pointer, &value, now).as_deref(), Some(text), "{pointer} {value}");
        }
        for (pointer, value) in [
            ("/documents", json!(3)),
            ("/time", json!("2026-11-25T09:58:00.123Z")),
            ("/since", json!("a while")),
            ("/disk_bytes", json!(null)),
            ("/rate_limit_per_s", json!(5)),
            ("", json!("x")),
        ] {
            assert_eq!(readable(pointer, &value, now), None, "{pointer} {value}");
        }
    }
}
