//! Times as text: read in the forms that data has them in, written as RFC 3339.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, date};

/// Civil times reach to the end of the year 9999, which data means by "never"; instants of `jiff` do not.
const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Reads RFC 3339 (`2020-07-01T00:25:32.5+02:00`), the same with a space or without a zone (taken as UTC), or a date
/// (its midnight, UTC), as milliseconds since the epoch. What is finer than a millisecond is cut off; a leap second
/// is the second before it. `None` for anything else.
pub fn read_time(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_at_checked(10)?;
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let date = Date::new(
        digits(&date[..4])? as i16,
        digits(&date[5..7])? as i8,
        digits(&date[8..])? as i8,
    )
    .ok()?;
    if rest.is_empty() {
        return Some(milliseconds(date.at(0, 0, 0, 0)));
    }
    let (clock, rest) = rest.split_at_checked(9)?;
    if !matches!(clock[0], b'T' | b't' | b' ') || clock[3] != b':' || clock[6] != b':' {
        return None;
    }
    let (hour, minute, second) = (digits(&clock[1..3])?, digits(&clock[4..6])?, digits(&clock[7..])?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, zone) = fraction(rest)?;
    let at = date.at(hour as i8, minute as i8, second.min(59) as i8, 0);
    Some(milliseconds(at) + fraction_ms - zone_seconds(zone)? * 1000)
}

fn milliseconds(at: DateTime) -> i64 {
    at.duration_since(EPOCH).as_millis() as i64
}

/// `.5Z`: its milliseconds and what follows.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let (fraction, rest) = text.split_at(length);
    let digit = |at: usize| fraction.get(at).map_or(0, |byte| i64::from(byte - b'0'));
    Some((digit(0) * 100 + digit(1) * 10 + digit(2), rest))
}

fn zone_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] if rest.len() == 5 && rest[2] == b':' => {
            let (hours, minutes) = (digits(&rest[..2])?, digits(&rest[3..])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours * 3600 + minutes * 60);
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })
}

/// Appends a time as RFC 3339 in UTC, with milliseconds where there are any: `2020-07-01T00:25:32Z`. Whether it could:
/// RFC 3339 has the years 0000 to 9999.
#[must_use]
pub fn write_time(out: &mut Vec<u8>, milliseconds: i64) -> bool {
    let Ok(at) = EPOCH.checked_add(SignedDuration::from_millis(milliseconds)) else {
        return false;
    };
    if at.year() < 0 {
        return false;
    }
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[..4], at.year() as u16);
    put(&mut text[5..7], at.month() as u16);
    put(&mut text[8..10], at.day() as u16);
    put(&mut text[11..13], at.hour() as u16);
    put(&mut text[14..16], at.minute() as u16);
    put(&mut text[17..19], at.second() as u16);
    if at.millisecond() == 0 {
        text[19] = b'Z';
        out.extend_from_slice(&text[..20]);
    } else {
        put(&mut text[20..23], at.millisecond() as u16);
        out.extend_from_slice(&text);
    }
    true
}

fn put(digits: &mut [u8], mut number: u16) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_in_the_forms_that_data_has() {
        const RIDE: i64 = 1_593_563_132_000;
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2020-07-01T00:25:32Z", RIDE),
            ("2020-07-01t00:25:32z", RIDE),
            ("2020-07-01 00:25:32", RIDE),
            ("2020-07-01T00:25:32", RIDE),
            ("2020-07-01 00:25:32.5", RIDE + 500),
            ("2020-07-01T00:25:32.123456789Z", RIDE + 123),
            ("2020-07-01T02:25:32+02:00", RIDE),
            ("2020-06-30T19:55:32.007-04:30", RIDE + 7),
            ("2020-07-01", RIDE - 1_532_000),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("2020-02-29", 1_582_934_400_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ];
        for (text, expected) in cases {
            assert_eq!(read_time(text), Some(expected), "{text}");
        }
        let broken = [
            "",
            "2020",
            "2020-7-1",
            "2020-07-01T",
            "2020-07-01T00:25",
            "2020-07-01T00:25:32.",
            "2020-07-01T00:25:32.Z",
            "2020-13-01",
            "2020-02-30",
            "2021-02-29",
            "2020-07-01T24:00:00Z",
            "2020-07-01T00:60:00Z",
            "2020-07-01T00:00:61Z",
            "2020-07-01T00:25:32+2",
            "2020-07-01T00:25:32+24:00",
            "2020-07-01T00:25:32 UTC",
            "2020-07-01T00:25:32ZZ",
            "01.07.2020",
            "2020/07/01",
            "é020-07-01",
            "2020-07-0é",
            "+020-07-01",
            "2020-07-01_00:25:32",
            "2020-07-01T00:25:3é",
        ];
        for text in broken {
            assert_eq!(read_time(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_written_as_short_as_they_are_exact() {
        let cases = [
            (1_593_563_132_000, "2020-07-01T00:25:32Z"),
            (1_593_563_132_050, "2020-07-01T00:25:32.050Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00Z"),
        ];
        for (time, expected) in cases {
            let mut out = Vec::new();
            assert!(write_time(&mut out, time));
            assert_eq!(std::str::from_utf8(&out), Ok(expected));
        }
        for time in [i64::MIN, i64::MAX, -62_167_219_200_001] {
            let mut out = Vec::new();
            assert!(!write_time(&mut out, time), "{time}");
            assert!(out.is_empty());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(time in -62_167_219_200_000i64..253_402_300_800_000) {
            let mut out = Vec::new();
            prop_assert!(write_time(&mut out, time));
            prop_assert_eq!(read_time(std::str::from_utf8(&out)?), Some(time));
        }

        #[test]
        fn no_text_is_too_strange(text in "[0-9T:.+Zé -]{0,32}") {
            read_time(&text);
        }
    }
}
