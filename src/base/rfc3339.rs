//! Times as RFC 3339 writes them, in UTC with milliseconds: `2026-11-23T07:12:00.123Z`.
//!
//! Written in UTC only, read with any offset; what the rest of a calendar library would bring is not needed.

use std::fmt;

use super::Timestamp;

const MS_PER_DAY: u64 = 24 * 60 * 60 * 1_000;
/// The last millisecond of the year 9999, beyond which RFC 3339 has no form.
const LAST_MS: u64 = 253_402_300_799_999;

/// In RFC 3339; times after the year 9999 show its last moment.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.min(LAST_MS);
        let (year, month, day) = date(ms / MS_PER_DAY);
        let of_day = ms % MS_PER_DAY;
        let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", of_day % 1_000)
    }
}

impl Timestamp {
    /// Reads a time with any offset; parts of a millisecond are cut off, and times before 1970 are its first moment.
    /// `None` for what is no time, leap seconds included.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        parse(text)
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<u64> {
        let part = bytes.get(from..to).filter(|part| part.iter().all(u8::is_ascii_digit))?;
        Some(part.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
    };
    let mark = |at: usize, marks: &[u8]| bytes.get(at).filter(|mark| marks.contains(mark)).map(|_| ());
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().try_for_each(|(at, sign)| mark(*at, &[*sign]))?;
    mark(10, b"Tt")?;
    let fraction = bytes[19..].strip_prefix(b".").map(|rest| rest.iter().take_while(|c| c.is_ascii_digit()).count());
    let ms = match fraction {
        None => 0,
        Some(0) => return None,
        Some(count) => digits(20, 20 + count.min(3))? * 10u64.pow(3 - count.min(3) as u32),
    };
    let zone = 19 + fraction.map_or(0, |count| count + 1);
    let offset_minutes = match bytes.get(zone)? {
        b'Z' | b'z' if bytes.len() == zone + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == zone + 6 => {
            mark(zone + 3, b":")?;
            let (hours, minutes) = (digits(zone + 1, zone + 3)?, digits(zone + 4, zone + 6)?);
            let offset = (hours < 24 && minutes < 60).then_some((hours * 60 + minutes) as i64)?;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let days = days(year, month, day)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let local_ms = ((days * 24 + hour as i64) * 60 + minute as i64) * 60_000 + (second * 1_000 + ms) as i64;
    Some(Timestamp(u64::try_from(local_ms - offset_minutes * 60_000).unwrap_or(0)))
}

/// The days from 1970-01-01 to a date, when there is such a date. The reverse of [`date`], after the same source
/// (`days_from_civil`).
fn days(year: u64, month: u64, day: u64) -> Option<i64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // 400 years on, so that a January of the year 0 stays positive.
    let shifted_year = year + 400 - u64::from(month <= 2);
    let shifted_month = (month + 9) % 12;
    let (era, of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era) as i64 - 146_097 - 719_468)
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
/// After Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (`civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    // Years start in March here, so that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_795_417_920_123, "2026-11-23T07:12:00.123Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), text);
        }
    }

    #[test]
    fn times_are_read_with_any_offset() {
        let utc = |text| Timestamp::from_rfc3339(text).map(|time| time.to_string());
        for (text, expected) in [
            ("2026-11-25T10:00:00Z", "2026-11-25T10:00:00.000Z"),
            ("2026-11-25t10:00:00.1234567z", "2026-11-25T10:00:00.123Z"),
            ("2026-11-25T10:00:00.5+01:30", "2026-11-25T08:30:00.500Z"),
            ("2026-12-31T23:59:59-00:01", "2027-01-01T00:00:59.000Z"),
            ("2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000Z"),
            ("0000-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(utc(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-11-25",
            "2026-11-25T10:00:00",
            "2026-11-25T10:00Z",
            "2026-11-25 10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2100-02-29T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-00-01T10:00:00Z",
            "2026-04-31T10:00:00Z",
            "2026-04-00T10:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T10:60:00Z",
            "2026-11-25T10:00:60Z",
            "2026-11-25T10:00:00.Z",
            "2026-11-25T10:00:00+1:00",
            "2026-11-25T10:00:00+24:00",
            "2026-11-25T10:00:00 01:00",
            "2026-11-25T10:00:00ZZ",
            "+026-11-25T10:00:00Z",
            "2026-11-25T10:00:00é",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for ms in (0..LAST_MS).step_by(86_400_000 * 13 + 12_345_677) {
            assert_eq!(Timestamp::from_rfc3339(&Timestamp(ms).to_string()), Some(Timestamp(ms)));
        }
    }
}
