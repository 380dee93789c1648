//! Settings that are durations, written as elsewhere in a pipeline: `100ms`, `30s`, `5m`, `1h`, `7d`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{At, Config, expected};

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl Config for Duration {
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$"})
    }

    fn read(value: &Value, at: &At<'_>, problems: &mut Vec<String>) -> Option<Duration> {
        let duration = value.as_str().and_then(parse);
        duration.or_else(|| {
            expected(
                "a duration such as \"30s\" or \"1h\" (ms, s, m, h or d)",
                value,
                at,
                problems,
            )
        })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (_, unit_ms) = UNITS.iter().find(|(unit, _)| *unit == &text[number.len()..])?;
    let number = number.strip_suffix(' ').unwrap_or(number);
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(*unit_ms)
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        let read = |text: &str| parse(text).map(|duration| duration.as_millis());
        assert_eq!(read("250ms"), Some(250));
        assert_eq!(read("30 s"), Some(30_000));
        assert_eq!(read("5m"), Some(300_000));
        assert_eq!(read("1h"), Some(3_600_000));
        assert_eq!(read("7d"), Some(604_800_000));
        for text in ["", "7", "d", "-1s", "+1s", "1.5h", "1 week", "99999999999999999d"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
