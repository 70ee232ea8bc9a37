//! Durations and sizes as people write them: `24h`, `5s`, `64MiB`.

/// Reads a duration such as `500ms`, `5s`, `15m`, `24h`, `7d`, in milliseconds; `None` for anything else.
#[must_use]
pub fn duration_ms(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms)
}

/// Reads a size such as `1048576`, `64MiB`, `2 GB`, in bytes; `None` for anything else.
#[must_use]
pub fn size_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read() {
        for (text, ms) in [("24h", 86_400_000), ("5s", 5_000), ("500ms", 500), ("7 d", 604_800_000), ("15m", 900_000)] {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
        }
        for (text, bytes) in [("0", 0), ("64MiB", 64 << 20), ("2 GB", 2_000_000_000), ("8k", 8 << 10)] {
            assert_eq!(size_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "s", "5", "5 years", "-5s", "99999999999999999d", "1.5h"] {
            assert_eq!(duration_ms(bad), None, "{bad}");
        }
        for bad in ["", "MiB", "5 cows", "99999999999g"] {
            assert_eq!(size_bytes(bad), None, "{bad}");
        }
    }
}
