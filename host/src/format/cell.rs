//! Single cells: JSON or plain text to a cell of a type, and back. The table of the types stands in [`super`].

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::time::{read_time, write_time};
use crate::schema::FieldType;
use crate::table::Cell;

/// Integers beyond it have neighbours that a float cannot tell from them.
const EXACT_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// Base64 as others write it, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Buffers for cells that do not stand in the text as they are; kept from row to row.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    text: String,
    bytes: Vec<u8>,
}

impl Scratch {
    /// Room for a text.
    pub fn text(&mut self) -> &mut String {
        &mut self.text
    }

    /// Lends the text, from here if it has no owner.
    pub fn keep<'c>(&'c mut self, text: Cow<'c, str>) -> &'c str {
        match text {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => {
                self.text = text;
                &self.text
            }
        }
    }
}

/// Reads a JSON value (of a text that was scanned) as a cell; `null` is a null cell.
///
/// # Errors
/// Why it is none, in words that follow "the field is of type float, but …".
#[inline]
pub(crate) fn read_json<'c>(
    text: &'c str,
    field_type: FieldType,
    scratch: &'c mut Scratch,
) -> Result<Cell<'c>, String> {
    if text == "null" {
        return Ok(Cell::Null);
    }
    let first = text.as_bytes().first().copied().unwrap_or(0);
    let number = first == b'-' || first.is_ascii_digit();
    match field_type {
        FieldType::Integer if number => read_integer(text).map(Cell::Integer),
        FieldType::Float if number => read_float(text).map(Cell::Float),
        FieldType::Time if number => read_integer(text).map(Cell::Time),
        FieldType::Boolean if first == b't' || first == b'f' => Ok(Cell::Boolean(first == b't')),
        FieldType::Json => Ok(Cell::Json(text)),
        FieldType::Text if first == b'"' => unquote(text, &mut scratch.text).map(Cell::Text),
        FieldType::Time if first == b'"' => time(unquote(text, &mut scratch.text)?),
        FieldType::Bytes if first == b'"' => {
            scratch.bytes.clear();
            match BASE64.decode_vec(unquote(text, &mut scratch.text)?, &mut scratch.bytes) {
                Ok(()) => Ok(Cell::Bytes(&scratch.bytes)),
                Err(error) => Err(format!("{} is not base64: {error}", excerpt(text))),
            }
        }
        _ => Err(format!("{} {} was found", kind(first), excerpt(text))),
    }
}

/// Reads a text without quotes as a cell; white space around numbers, times and booleans does not count.
///
/// # Errors
/// As [`read_json`].
pub(crate) fn read_text(text: &str, field_type: FieldType) -> Result<Cell<'_>, String> {
    let plain = text.trim_ascii();
    match field_type {
        FieldType::Text => Ok(Cell::Text(text)),
        FieldType::Bytes => Ok(Cell::Bytes(text.as_bytes())),
        FieldType::Integer => read_integer(plain).map(Cell::Integer),
        FieldType::Float => read_float(plain).map(Cell::Float),
        FieldType::Time => match plain.parse() {
            Ok(milliseconds) => Ok(Cell::Time(milliseconds)),
            Err(_) => time(plain),
        },
        FieldType::Boolean => match plain {
            "1" => Ok(Cell::Boolean(true)),
            "0" => Ok(Cell::Boolean(false)),
            _ if plain.eq_ignore_ascii_case("true") => Ok(Cell::Boolean(true)),
            _ if plain.eq_ignore_ascii_case("false") => Ok(Cell::Boolean(false)),
            _ => Err(format!("{} was found", excerpt(text))),
        },
        FieldType::Json => Err("the text is not read as JSON".into()),
    }
}

fn time<'c>(text: &str) -> Result<Cell<'c>, String> {
    match read_time(text) {
        Some(milliseconds) => Ok(Cell::Time(milliseconds)),
        None => Err(format!(
            "{} is neither RFC 3339 (2020-07-01T00:25:32Z), nor `2020-07-01 00:25:32`, nor a date, nor milliseconds",
            excerpt(text)
        )),
    }
}

#[inline]
fn read_integer(text: &str) -> Result<i64, String> {
    match text.parse::<i64>() {
        Ok(number) => Ok(number),
        Err(_) => read_odd_integer(text),
    }
}

/// `12.0` and `1.2e1` are integers to many who write JSON.
#[cold]
fn read_odd_integer(text: &str) -> Result<i64, String> {
    let Ok(number) = text.parse::<f64>() else {
        return Err(format!("{} was found", excerpt(text)));
    };
    if number.fract() == 0.0 && number.abs() <= EXACT_FLOAT_MAX {
        return Ok(number as i64);
    }
    Err(if number.is_finite() && number.fract() != 0.0 {
        format!("{} has a fraction", excerpt(text))
    } else {
        format!("{} does not fit 64 bits exactly", excerpt(text))
    })
}

/// Correctly rounded, as the standard library does it. The usual short ones are so by themselves: up to 15 digits and
/// their power of ten are exact floats, whose quotient is rounded once (Clinger 1990), and so is an integer of 16.
#[inline]
fn read_float(text: &str) -> Result<f64, String> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 16 || digits.is_empty() {
        return read_long_float(text);
    }
    let (mut mantissa, mut point) = (0u64, None);
    for (at, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() && at > 0 => point = Some(at),
            _ => return read_long_float(text),
        }
    }
    let decimals = point.map_or(0, |at| digits.len() - at - 1);
    let number = mantissa as f64 / POWERS[decimals];
    Ok(if negative { -number } else { number })
}

#[cold]
fn read_long_float(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // "inf" is one, 1e999 is none.
        Ok(number) if number.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit()) => Ok(number),
        Ok(_) => Err(format!("{} is beyond the largest float", excerpt(text))),
        Err(_) => Err(format!("{} was found", excerpt(text))),
    }
}

/// The content of a JSON string with its quotes.
///
/// # Errors
/// If an escape stands for half a character.
#[inline]
pub(crate) fn unquote<'c>(quoted: &'c str, scratch: &'c mut String) -> Result<&'c str, String> {
    let content = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if memchr::memchr(b'\\', content.as_bytes()).is_none() {
        return Ok(content);
    }
    unescape(quoted, scratch)
}

#[cold]
fn unescape<'c>(quoted: &str, scratch: &'c mut String) -> Result<&'c str, String> {
    match serde_json::from_str(quoted) {
        Ok(text) => {
            *scratch = text;
            Ok(scratch)
        }
        Err(_) => Err(format!(
            "the string {} has half a surrogate pair, which is no character",
            excerpt(quoted)
        )),
    }
}

/// The beginning of a text, for a message.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    match text.char_indices().nth(CHARACTERS_MAX) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…` ({} bytes)", &text[..end], text.len()),
    }
}

fn kind(first: u8) -> &'static str {
    match first {
        b'"' => "the string",
        b'{' => "the object",
        b'[' => "the array",
        b't' | b'f' => "the boolean",
        _ => "the number",
    }
}

/// [`write_json`] or [`write_text`].
pub(crate) type Write = fn(&mut Vec<u8>, Cell<'_>) -> Result<(), String>;

/// Appends a cell as JSON; a null cell as `null`.
///
/// # Errors
/// Why JSON has no such value; `out` may then have grown.
#[inline]
pub(crate) fn write_json(out: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), String> {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Boolean(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Cell::Integer(value) => write_integer(out, value),
        Cell::Float(value) if value.is_finite() => write_float(out, value),
        Cell::Float(value) => {
            return Err(format!(
                "{value} cannot be written as JSON, which has finite numbers only"
            ));
        }
        Cell::Text(value) => write_string(out, value),
        Cell::Bytes(value) => write_base64(out, value),
        Cell::Time(value) => {
            out.push(b'"');
            write_time_or(out, value)?;
            out.push(b'"');
        }
        Cell::Json(value) => out.extend_from_slice(value.trim_ascii().as_bytes()),
    }
    Ok(())
}

/// Appends a cell as plain text.
///
/// # Errors
/// As [`write_json`].
pub(crate) fn write_text(out: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), String> {
    match cell {
        Cell::Float(value) if !value.is_finite() => out.extend_from_slice(value.to_string().as_bytes()),
        Cell::Text(value) | Cell::Json(value) => out.extend_from_slice(value.as_bytes()),
        Cell::Bytes(value) => out.extend_from_slice(value),
        Cell::Time(value) => write_time_or(out, value)?,
        cell => write_json(out, cell)?,
    }
    Ok(())
}

fn write_time_or(out: &mut Vec<u8>, milliseconds: i64) -> Result<(), String> {
    if write_time(out, milliseconds) {
        return Ok(());
    }
    Err(format!(
        "the time {milliseconds} (ms since 1970) cannot be written: RFC 3339 has the years 0000 to 9999"
    ))
}

fn write_integer(out: &mut Vec<u8>, value: i64) {
    serde_json::to_writer(out, &value).expect("a number into memory");
}

/// Shortest text that reads back as the same float.
fn write_float(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("a finite float into memory");
}

/// Appends a text as a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text into memory");
}

/// Appends bytes as a JSON string of base64.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let length = STANDARD
        .encode_slice(bytes, &mut out[start..])
        .expect("four characters for three bytes");
    out.truncate(start + length);
    out.push(b'"');
}

/// Reads base64, padded or not.
///
/// # Errors
/// Why it is none.
pub(crate) fn read_base64(text: &str) -> Result<Vec<u8>, String> {
    BASE64
        .decode(text)
        .map_err(|error| format!("{} is not base64: {error}", excerpt(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FieldType::{Boolean, Bytes, Float, Integer, Json, Text, Time};
    use proptest::prelude::*;

    #[test]
    fn json_is_read_by_type() {
        let cases: &[(FieldType, &str, Cell<'_>)] = &[
            (Boolean, "true", Cell::Boolean(true)),
            (Boolean, "false", Cell::Boolean(false)),
            (Integer, "0", Cell::Integer(0)),
            (Integer, "-12", Cell::Integer(-12)),
            (Integer, "9223372036854775807", Cell::Integer(i64::MAX)),
            (Integer, "-9223372036854775808", Cell::Integer(i64::MIN)),
            (Integer, "9007199254740993", Cell::Integer(9_007_199_254_740_993)),
            (Integer, "12.0", Cell::Integer(12)),
            (Integer, "1.2e1", Cell::Integer(12)),
            (Integer, "9007199254740992.0", Cell::Integer(9_007_199_254_740_992)),
            (Float, "12", Cell::Float(12.0)),
            (Float, "-0", Cell::Float(-0.0)),
            (Float, "0.1", Cell::Float(0.1)),
            (Float, "9.3", Cell::Float(9.3)),
            (
                Float,
                "123456789012345678901234567890",
                Cell::Float(123_456_789_012_345_678_901_234_567_890.0),
            ),
            (Float, "9007199254740993", Cell::Float(9_007_199_254_740_992.0)),
            (
                Float,
                "2.2250738585072011e-308",
                Cell::Float(2.225_073_858_507_201e-308),
            ),
            (Float, "1e-999", Cell::Float(0.0)),
            (Text, "\"\"", Cell::Text("")),
            (Text, "\"é\"", Cell::Text("é")),
            (Text, r#""a\"\u00e9\ud83d\ude00\n\u0000""#, Cell::Text("a\"é😀\n\0")),
            (Bytes, "\"\"", Cell::Bytes(b"")),
            (Bytes, "\"/wA=\"", Cell::Bytes(&[0xff, 0])),
            (Bytes, r#""\/wA""#, Cell::Bytes(&[0xff, 0])),
            (Time, "1593563132000", Cell::Time(1_593_563_132_000)),
            (Time, "-1.0", Cell::Time(-1)),
            (Time, "\"2020-07-01 00:25:32\"", Cell::Time(1_593_563_132_000)),
            (Json, "[1, {}]", Cell::Json("[1, {}]")),
            (Json, "\"null\"", Cell::Json("\"null\"")),
        ];
        for (field_type, text, cell) in cases {
            assert_eq!(
                read_json(text, *field_type, &mut Scratch::default()),
                Ok(*cell),
                "{field_type} {text}"
            );
        }
        for field_type in [Boolean, Integer, Float, Text, Bytes, Time, Json] {
            assert_eq!(read_json("null", field_type, &mut Scratch::default()), Ok(Cell::Null));
        }
    }

    #[test]
    fn json_of_another_type_is_refused_with_what_it_is() {
        let cases = [
            (Boolean, "1", "the number `1` was found"),
            (Boolean, "\"true\"", "the string `\"true\"` was found"),
            (Integer, "\"1\"", "the string `\"1\"` was found"),
            (Integer, "1.5", "`1.5` has a fraction"),
            (
                Integer,
                "9223372036854775808",
                "`9223372036854775808` does not fit 64 bits",
            ),
            (Integer, "9007199254740994.0", "does not fit 64 bits exactly"),
            (Integer, "1e999", "`1e999` does not fit"),
            (Integer, "true", "the boolean `true`"),
            (Float, "1e999", "beyond the largest float"),
            (Float, "\"NaN\"", "the string"),
            (Text, "1", "the number `1`"),
            (Text, "[1]", "the array `[1]`"),
            (Text, "{}", "the object `{}`"),
            (Text, r#""\ud800""#, "half a surrogate pair"),
            (Text, r#""\udc00\ud800""#, "half a surrogate pair"),
            (Bytes, "\"é\"", "is not base64"),
            (Bytes, "\"A\"", "is not base64"),
            (Bytes, "7", "the number `7`"),
            (Time, "\"today\"", "`today` is neither RFC 3339"),
            (Time, "1.5", "has a fraction"),
            (Time, "false", "the boolean `false`"),
        ];
        for (field_type, text, message) in cases {
            let mut scratch = Scratch::default();
            let error = read_json(text, field_type, &mut scratch).expect_err(text);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
        let long = format!("\"{}\"", "é".repeat(1000));
        let error = read_json(&long, Integer, &mut Scratch::default())
            .expect_err("a string")
            .to_string();
        assert!(error.contains("…` (2002 bytes)") && error.len() < 200, "{error}");
    }

    #[test]
    fn text_is_read_by_type() {
        let cases: &[(FieldType, &str, Result<Cell<'_>, &str>)] = &[
            (Boolean, "TRUE", Ok(Cell::Boolean(true))),
            (Boolean, " 0 ", Ok(Cell::Boolean(false))),
            (Boolean, "Y", Err("`Y` was found")),
            (Integer, "007", Ok(Cell::Integer(7))),
            (Integer, "+7", Ok(Cell::Integer(7))),
            (Integer, " 1.0", Ok(Cell::Integer(1))),
            (Integer, "NaN", Err("does not fit")),
            (Integer, "", Err("`` was found")),
            (Float, "1.50", Ok(Cell::Float(1.5))),
            (Float, ".5", Ok(Cell::Float(0.5))),
            (Float, "5.", Ok(Cell::Float(5.0))),
            (Float, "-inf", Ok(Cell::Float(f64::NEG_INFINITY))),
            (Float, "1,5", Err("`1,5` was found")),
            (Float, "-", Err("`-` was found")),
            (Float, ".", Err("`.` was found")),
            (Float, "1.2.3", Err("`1.2.3` was found")),
            (Text, " a ", Ok(Cell::Text(" a "))),
            (Bytes, "é", Ok(Cell::Bytes("é".as_bytes()))),
            (Time, "2020-07-01 00:25:32", Ok(Cell::Time(1_593_563_132_000))),
            (Time, "1593563132000", Ok(Cell::Time(1_593_563_132_000))),
            (Time, "noon", Err("`noon` is neither")),
            (Json, "1", Err("not read as JSON")),
        ];
        for (field_type, text, expected) in cases {
            match (read_text(text, *field_type), expected) {
                (Ok(cell), Ok(expected)) => assert_eq!(cell, *expected, "{field_type} {text}"),
                (Err(error), Err(message)) => assert!(error.contains(message), "{error:?} does not say {message:?}"),
                (found, _) => panic!("{field_type} {text:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn cells_are_written_as_json_and_as_text() {
        type Expected = Result<&'static str, &'static str>;
        let cases: &[(Cell<'_>, Expected, Expected)] = &[
            (Cell::Null, Ok("null"), Ok("null")),
            (Cell::Boolean(true), Ok("true"), Ok("true")),
            (
                Cell::Integer(i64::MIN),
                Ok("-9223372036854775808"),
                Ok("-9223372036854775808"),
            ),
            (Cell::Float(0.1), Ok("0.1"), Ok("0.1")),
            (Cell::Float(1.0), Ok("1.0"), Ok("1.0")),
            (Cell::Float(f64::NAN), Err("NaN cannot be written as JSON"), Ok("NaN")),
            (Cell::Float(f64::NEG_INFINITY), Err("-inf cannot"), Ok("-inf")),
            (Cell::Text("a\"\n\u{1}é"), Ok(r#""a\"\n\u0001é""#), Ok("a\"\n\u{1}é")),
            (Cell::Bytes(b"\xff\x00"), Ok("\"/wA=\""), Ok("\u{fffd}\0")),
            (Cell::Bytes(b""), Ok("\"\""), Ok("")),
            (
                Cell::Time(0),
                Ok("\"1970-01-01T00:00:00Z\""),
                Ok("1970-01-01T00:00:00Z"),
            ),
            (
                Cell::Time(i64::MAX),
                Err("the years 0000 to 9999"),
                Err("the years 0000 to 9999"),
            ),
            (Cell::Json(" {\"a\": 1}\n"), Ok("{\"a\": 1}"), Ok(" {\"a\": 1}\n")),
        ];
        for (cell, json, text) in cases {
            for (write, expected) in [(write_json as Write, json), (write_text as Write, text)] {
                let mut out = Vec::new();
                match (write(&mut out, *cell), expected) {
                    (Ok(()), Ok(expected)) => assert_eq!(String::from_utf8_lossy(&out), *expected),
                    (Err(error), Err(message)) => {
                        assert!(error.contains(message), "{error:?} does not say {message:?}")
                    }
                    (found, _) => panic!("{cell:?}: {found:?}"),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn floats_are_read_as_the_standard_library_reads_them(text in "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?") {
            let expected = text.parse::<f64>().expect("a float");
            match read_float(&text) {
                Ok(number) => prop_assert_eq!(number.to_bits(), expected.to_bits()),
                Err(_) => prop_assert!(expected.is_infinite()),
            }
        }

        #[test]
        fn what_is_written_is_read_back(number in any::<f64>(), integer in any::<i64>(), text in any::<String>(), bytes: Vec<u8>) {
            let mut cells = vec![(Integer, Cell::Integer(integer)), (Text, Cell::Text(&text)), (Bytes, Cell::Bytes(&bytes))];
            if number.is_finite() {
                cells.push((Float, Cell::Float(number)));
            }
            for (field_type, cell) in cells {
                let mut out = Vec::new();
                write_json(&mut out, cell).expect("a cell that JSON has");
                let mut scratch = Scratch::default();
                prop_assert_eq!(read_json(std::str::from_utf8(&out)?, field_type, &mut scratch), Ok(cell));
            }
        }
    }
}
