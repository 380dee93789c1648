//! One grammar for places in a topic: `start`, `end`, `@OFFSET`, `-1h`, `2024-05-01T12:00:00Z`.

use std::str::FromStr;

use crate::connect::Position;
use crate::record::now_ms;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From(pub Position);

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        parse(text, now_ms()).map(From)
    }
}

fn parse(text: &str, now_ms: i64) -> Result<Position, String> {
    match text {
        "start" => return Ok(Position::Start),
        "end" => return Ok(Position::End),
        _ => {}
    }
    if let Some(offset) = text.strip_prefix('@') {
        return offset
            .parse()
            .map(Position::Offset)
            .map_err(|_| format!("`{offset}` is no offset: a number from 0"));
    }
    if let Some(ago) = text.strip_prefix('-') {
        return Ok(Position::Timestamp(now_ms - duration_ms(ago)?));
    }
    text.parse::<jiff::Timestamp>().map(|time| Position::Timestamp(time.as_millisecond())).map_err(|_| {
        format!("`{text}` is neither `start`, `end`, `@OFFSET`, a time ago like `-1h` nor a time like `2024-05-01T12:00:00Z`")
    })
}

fn duration_ms(text: &str) -> Result<i64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let number: Option<i64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit_ms))
        .filter(|_| unit_ms > 0)
        .ok_or_else(|| format!("`-{text}` is no time ago: a number and `ms`, `s`, `m`, `h` or `d`, as `-90s`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_others_are_refused() {
        let now = 1_000_000_000;
        assert_eq!(parse("start", now), Ok(Position::Start));
        assert_eq!(parse("end", now), Ok(Position::End));
        assert_eq!(parse("@12", now), Ok(Position::Offset(12)));
        assert_eq!(parse("-90s", now), Ok(Position::Timestamp(now - 90_000)));
        assert_eq!(parse("-1h", now), Ok(Position::Timestamp(now - 3_600_000)));
        assert_eq!(parse("1970-01-01T00:00:01.5Z", now), Ok(Position::Timestamp(1500)));
        assert_eq!(parse("1970-01-01T01:00:00+01:00", now), Ok(Position::Timestamp(0)));
        for (text, said) in [
            ("@", "no offset"),
            ("@-1", "no offset"),
            ("-1", "time ago"),
            ("-h", "time ago"),
            ("-1y", "time ago"),
            ("-99999999999999d", "time ago"),
            ("yesterday", "neither"),
        ] {
            let error = parse(text, now).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
