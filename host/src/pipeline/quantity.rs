//! Durations and sizes as people write them: `100ms`, `5m`, `64MB`, `1GiB`.

use std::time::Duration;

/// Longest first, so that the biggest unit that divides a duration is the one it is shown in.
const TIMES: [(&str, u64); 6] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a duration; `None` if it is none or too long to count in milliseconds.
pub fn duration(text: &str) -> Option<Duration> {
    amount(text, |unit| {
        TIMES.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms)
    })
    .map(Duration::from_millis)
}

/// Reads a size in bytes; `None` if it is none or too large to count. Units in either case.
pub fn size(text: &str) -> Option<u64> {
    amount(text, |unit| {
        SIZES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, bytes)| *bytes)
    })
}

/// A number, perhaps with a fraction, and a unit: what they make in the smallest unit, if that is a whole number.
fn amount(text: &str, unit: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = unit(&text[number.len()..])?;
    let number = number.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') || fraction.len() > 9 {
        return None;
    }
    let mut amount = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor);
        let scale = 10_u128.pow(fraction.len() as u32);
        if part % scale != 0 {
            return None;
        }
        amount = amount.checked_add(u64::try_from(part / scale).ok()?)?;
    }
    Some(amount)
}

/// A duration in the largest unit that divides it, as [`duration`] reads it back.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let divides = |(_, unit): &&(&str, u64)| ms != 0 && ms.is_multiple_of(u128::from(*unit));
    let (unit, factor) = TIMES.iter().find(divides).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / u128::from(*factor))
}

/// The same for milliseconds, of which there are no negative ones.
pub(super) fn show_duration_ms(ms: i64) -> String {
    show_duration(Duration::from_millis(ms.unsigned_abs()))
}

/// A size in the largest unit that divides it, as [`size`] reads it back.
pub(super) fn show_size(bytes: u64) -> String {
    let divides = |(_, unit): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(*unit);
    let (unit, factor) = SIZES.iter().find(divides).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        let cases = [
            ("100ms", 100, "100ms"),
            ("1.5s", 1500, "1500ms"),
            ("60 s", 60_000, "1m"),
            ("90m", 5_400_000, "90m"),
            ("1h", 3_600_000, "1h"),
            ("0s", 0, "0ms"),
        ];
        for (text, ms, shown) in cases {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(ms)), shown);
        }
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.s",
            "1.0001s",
            ".5s",
            "1 m s",
            "1us",
            "1e3s",
            "99999999999999999999d",
            "999999999999999d",
            "١s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        let cases = [
            ("64MB", 64_000_000, "64MB"),
            ("64MiB", 64 << 20, "64MiB"),
            ("1GB", 1_000_000_000, "1GB"),
            ("1.5 kb", 1500, "1500B"),
            ("0B", 0, "0B"),
            ("1024KiB", 1 << 20, "1MiB"),
        ];
        for (text, bytes, shown) in cases {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), shown);
        }
        for text in ["", "64", "MB", "64M", "-1B", "0.5B", "20000000000GB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
