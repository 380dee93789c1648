//! Records as lines of JSON, for people, pipes and other tools: what `consume` writes, `produce` reads back, byte for
//! byte.
//!
//! ```json
//! {"topic":"rides","partition":0,"offset":7,"timestamp":1593563132000,"key":"k","value":{"a":1.50},"headers":[["h","x"]]}
//! ```
//!
//! - A value is shown as it is where it is a JSON object or array on one line: those are its bytes, spaces and all.
//!   Other UTF-8 is a string: `"value":"12"` is the text `12`, and the JSON text `"x"` is `"value":"\"x\""`. A null value
//!   is `null`, an empty one is `""`. What is not UTF-8 stands in base64 in a member `value_base64` instead.
//! - A key likewise, as `key` or `key_base64`.
//! - Headers are pairs in their order; a header's value is a string, `null`, or `{"base64":"…"}`.
//!
//! Reading is as strict, and takes a little more: numbers and booleans as `value` or `key` stand for their text, every
//! member but the value may be missing, and `timestamp` may be a text that [`read_time`] takes. `topic`, `partition`
//! and `offset` say where the record came from.
//!
//! **A line without a member `value` or `value_base64` is no such record, but a value itself**: `{"a":1}` stands for
//! `{"value":{"a":1}}`. A value that happens to have a member `value` has to be wrapped; as it will hardly have the
//! members of a record alone, it is refused, with that advice.

use super::cell::{excerpt, read_base64, unquote, write_base64, write_string};
use super::scan::{Scanner, StringSpan, validate};
use super::time::read_time;
use crate::record::{Headers, Record, RecordRef};

/// A record that was read from a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The topic that it came from.
    pub topic: Option<String>,
    /// The partition that it came from.
    pub partition: Option<u32>,
    /// Its offset there.
    pub offset: Option<u64>,
    /// Whether the line has a timestamp; the record's is 0 otherwise.
    pub timestamped: bool,
    /// Key, value, headers and timestamp.
    pub record: Record,
}

/// Why a line is neither a record nor a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A byte is not UTF-8.
    #[error("the line is not UTF-8: byte {0} begins no character")]
    Utf8(usize),
    /// It is not JSON.
    #[error("the line is not JSON: {0}")]
    Json(String),
    /// A member is not what it should be.
    #[error("member {member:?}: {problem}")]
    Member {
        /// Its name.
        member: String,
        /// What is wrong, and what is right.
        problem: String,
    },
}

const MEMBERS: &str = "topic, partition, offset, timestamp, key, key_base64, value, value_base64 and headers";

/// Appends a record as a line, with its end.
pub fn write_line(out: &mut Vec<u8>, topic: &str, partition: u32, record: &RecordRef<'_>) {
    out.extend_from_slice(b"{\"topic\":");
    write_string(out, topic);
    out.extend_from_slice(
        format!(
            ",\"partition\":{partition},\"offset\":{},\"timestamp\":{}",
            record.offset, record.timestamp_ms
        )
        .as_bytes(),
    );
    write_content(out, "key", record.key);
    write_content(out, "value", record.value);
    out.extend_from_slice(b",\"headers\":[");
    for (at, (name, value)) in record.headers.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"[" } else { b",[" });
        write_string(out, name);
        out.push(b',');
        match value.map(std::str::from_utf8) {
            None => out.extend_from_slice(b"null"),
            Some(Ok(text)) => write_string(out, text),
            Some(Err(_)) => {
                out.extend_from_slice(b"{\"base64\":");
                write_base64(out, value.unwrap_or_default());
                out.push(b'}');
            }
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}\n");
}

fn write_content(out: &mut Vec<u8>, member: &str, bytes: Option<&[u8]>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(member.as_bytes());
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.extend_from_slice(b"\":null"),
        Some((bytes, Err(_))) => {
            out.extend_from_slice(b"_base64\":");
            write_base64(out, bytes);
        }
        Some((bytes, Ok(text))) => {
            out.extend_from_slice(b"\":");
            if is_nested(text) {
                out.extend_from_slice(bytes);
            } else {
                write_string(out, text);
            }
        }
    }
}

/// Whether a text can stand in a line as it is, and be told from white space around it.
fn is_nested(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes.first(), Some(b'{' | b'['))
        && matches!(bytes.last(), Some(b'}' | b']'))
        && memchr::memchr2(b'\n', b'\r', bytes).is_none()
        && validate(text, 1).is_ok()
}

/// Reads a line, with or without its end.
///
/// # Errors
/// What is wrong with it.
pub fn read_line(line: &[u8]) -> Result<Line, LineError> {
    let text = std::str::from_utf8(line)
        .map_err(|error| LineError::Utf8(error.valid_up_to()))?
        .trim_ascii();
    let members = members(text)?;
    let has = |name: &str| members.iter().any(|(member, _)| member == name);
    if !has("value") && !has("value_base64") {
        let record = Record {
            value: Some(text.as_bytes().to_vec()),
            ..Record::default()
        };
        return Ok(Line {
            record,
            ..Line::default()
        });
    }
    let mut line = Line::default();
    for (at, (member, text)) in members.iter().enumerate() {
        if members[..at].iter().any(|(other, _)| other == member) {
            return Err(LineError::Member {
                member: member.clone(),
                problem: "it is there twice".into(),
            });
        }
        if let Some(plain) = member.strip_suffix("_base64")
            && has(plain)
        {
            return Err(LineError::Member {
                member: member.clone(),
                problem: format!("{plain:?} is there too"),
            });
        }
        let read = match member.as_str() {
            "topic" => string(text).map(|topic| line.topic = topic),
            "partition" => number(text).map(|partition| line.partition = partition),
            "offset" => number(text).map(|offset| line.offset = offset),
            "timestamp" => timestamp(text).map(|timestamp_ms| {
                line.timestamped = timestamp_ms.is_some();
                line.record.timestamp_ms = timestamp_ms.unwrap_or_default();
            }),
            "key" => content(text).map(|key| line.record.key = key),
            "value" => content(text).map(|value| line.record.value = value),
            "key_base64" => base64(text).map(|key| line.record.key = Some(key)),
            "value_base64" => base64(text).map(|value| line.record.value = Some(value)),
            "headers" => headers(text).map(|headers| line.record.headers = headers),
            _ => Err(format!(
                "a line with a member `value` is a record, whose members are {MEMBERS}; a value that has such a member \
                 itself is written as {{\"value\":{{…}}}}"
            )),
        };
        read.map_err(|problem| LineError::Member {
            member: member.clone(),
            problem,
        })?;
    }
    Ok(line)
}

/// The members of an object with their text; none where the text is another JSON value.
fn members(text: &str) -> Result<Vec<(String, &str)>, LineError> {
    let mut members = Vec::new();
    let mut scanner = Scanner::new(text);
    let scanned = if scanner.peek() == b'{' {
        (|| {
            let mut more = scanner.open(b'}', 0)?;
            while more {
                let name = scanner.name()?;
                let start = scanner.at;
                scanner.value(1)?;
                members.push((name, &text[start..scanner.at]));
                more = scanner.next(b'}')?;
            }
            scanner.end()
        })()
    } else {
        validate(text, 0)
    };
    scanned.map_err(|error| LineError::Json(error.describe(text)))?;
    let mut scratch = String::new();
    Ok(members
        .into_iter()
        .map(|(name, member)| {
            let StringSpan { start, end, .. } = name;
            // A name with half a surrogate pair is none of ours, whatever it is.
            let name = unquote(&text[start - 1..end + 1], &mut scratch).unwrap_or("\u{fffd}");
            (name.to_owned(), member)
        })
        .collect())
}

fn string(text: &str) -> Result<Option<String>, String> {
    match text.as_bytes()[0] {
        b'n' => Ok(None),
        b'"' => unquote(text, &mut String::new()).map(|text| Some(text.to_owned())),
        _ => Err(format!("a string is expected, but {} was found", excerpt(text))),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<Option<T>, String> {
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) if text == "null" => Ok(None),
        Err(_) => Err(format!(
            "a whole number that is not negative is expected, but {} was found",
            excerpt(text)
        )),
    }
}

fn timestamp(text: &str) -> Result<Option<i64>, String> {
    let milliseconds = match text.as_bytes()[0] {
        b'n' => return Ok(None),
        b'"' => string(text)?.as_deref().and_then(read_time),
        _ => text.parse().ok(),
    };
    match milliseconds {
        Some(milliseconds) => Ok(Some(milliseconds)),
        None => Err(format!(
            "milliseconds since 1970 or a time as \"2020-07-01T00:25:32Z\" are expected, but {} was found",
            excerpt(text)
        )),
    }
}

fn content(text: &str) -> Result<Option<Vec<u8>>, String> {
    match text.as_bytes()[0] {
        b'n' => Ok(None),
        b'"' => Ok(string(text)?.map(String::into_bytes)),
        _ => Ok(Some(text.as_bytes().to_vec())),
    }
}

fn base64(text: &str) -> Result<Vec<u8>, String> {
    match string(text)? {
        Some(text) => read_base64(&text),
        None => Err("base64 in a string is expected; a null one is the member without `_base64`".into()),
    }
}

fn headers(text: &str) -> Result<Headers, String> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Bytes(Bytes),
        Null(()),
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bytes {
        base64: String,
    }
    let pairs: Option<Vec<(String, Value)>> = serde_json::from_str(text).map_err(|_| {
        format!(
            "pairs of names and values are expected, [[\"name\",\"value\"],…], where a value is a string, null or \
             {{\"base64\":\"…\"}}, but {} was found",
            excerpt(text)
        )
    })?;
    let mut headers = Headers::default();
    for (name, value) in pairs.unwrap_or_default() {
        match value {
            Value::Null(()) => headers.push(&name, None),
            Value::Text(text) => headers.push(&name, Some(text.as_bytes())),
            Value::Bytes(bytes) => headers.push(&name, Some(&read_base64(&bytes.base64)?)),
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> Record {
        Record {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers.iter().copied().collect(),
            timestamp_ms: -5,
        }
    }

    fn written(record: &Record) -> String {
        let mut out = Vec::new();
        write_line(&mut out, "t", 3, &record.at(7));
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn lines_look_plain() {
        let start = r#"{"topic":"t","partition":3,"offset":7,"timestamp":-5,"#;
        let cases: &[(Record, &str)] = &[
            (record(None, None, &[]), r#""key":null,"value":null,"headers":[]}"#),
            (
                record(Some(b""), Some(b""), &[("", Some(b""))]),
                r#""key":"","value":"","headers":[["",""]]}"#,
            ),
            (
                record(Some(b"k"), Some(br#"{"a": 1.50}"#), &[]),
                r#""key":"k","value":{"a": 1.50},"headers":[]}"#,
            ),
            (
                record(None, Some(b"12"), &[]),
                r#""key":null,"value":"12","headers":[]}"#,
            ),
            (
                record(None, Some(b"null"), &[]),
                r#""key":null,"value":"null","headers":[]}"#,
            ),
            (
                record(None, Some(b"{} "), &[]),
                r#""key":null,"value":"{} ","headers":[]}"#,
            ),
            (
                record(None, Some(b"{\n}"), &[]),
                r#""key":null,"value":"{\n}","headers":[]}"#,
            ),
            (
                record(None, Some(b"{]"), &[]),
                r#""key":null,"value":"{]","headers":[]}"#,
            ),
            (
                record(Some(b"\xff"), Some(b"a\x80"), &[]),
                r#""key_base64":"/w==","value_base64":"YYA=","headers":[]}"#,
            ),
            (
                record(
                    None,
                    Some(b"[]"),
                    &[("a", None), ("a", Some(b"\"")), ("b", Some(b"\xff"))],
                ),
                r#""key":null,"value":[],"headers":[["a",null],["a","\""],["b",{"base64":"/w=="}]]}"#,
            ),
        ];
        for (record, expected) in cases {
            let line = written(record);
            assert_eq!(line, format!("{start}{expected}\n"));
            let read = read_line(line.as_bytes()).expect("a line");
            assert_eq!(read.record, *record);
            assert_eq!(
                (read.topic.as_deref(), read.partition, read.offset),
                (Some("t"), Some(3), Some(7))
            );
            assert!(read.timestamped);
        }
    }

    #[test]
    fn a_value_too_deep_to_stand_inside_is_a_string() {
        for depth in [125, 126, 127, 128, 1000] {
            let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let record = record(None, Some(value.as_bytes()), &[]);
            assert_eq!(
                read_line(written(&record).as_bytes()).expect("a line").record,
                record,
                "{depth}"
            );
        }
    }

    #[test]
    fn lines_written_by_hand_are_read() {
        let value = |line: &str| read_line(line.as_bytes()).expect(line).record.value;
        let plain = [r#"{"a":1}"#, "{}", "[1]", "12", "\"x\"", r#"{"key":"k"}"#, "null"];
        for line in plain {
            assert_eq!(
                value(&format!(" {line}\r\n")),
                Some(line.as_bytes().to_vec()),
                "the line is the value"
            );
            assert!(!read_line(line.as_bytes()).expect(line).timestamped);
        }
        assert_eq!(value(r#"{"value":12.50}"#), Some(b"12.50".to_vec()));
        assert_eq!(value(r#"{"value":true}"#), Some(b"true".to_vec()));
        assert_eq!(value(r#"{"\u0076alue":null}"#), None);
        assert_eq!(value(r#"{"value": {"value": 1} }"#), Some(br#"{"value": 1}"#.to_vec()));
        let line = read_line(br#"{"value":"","timestamp":"2020-07-01 00:25:32","headers":null,"topic":null}"#)
            .expect("a line");
        assert_eq!(
            (line.timestamped, line.record.timestamp_ms, line.topic),
            (true, 1_593_563_132_000, None)
        );
    }

    #[test]
    fn what_is_no_line_is_named() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "not JSON: a JSON value is expected at byte 0"),
            (b"ride 1", "not JSON: a JSON value is expected at byte 0, but 'r'"),
            (b"{\"value\":1", "not JSON: `,` or `}` is expected at byte 10"),
            (b"{} {}", "not JSON: the end"),
            (b"{\"value\":\"\xff\"}", "not UTF-8: byte 10"),
            (
                br#"{"value":1,"sensor":2}"#,
                r#"member "sensor": a line with a member `value` is a record"#,
            ),
            (br#"{"value":1,"value":2}"#, "there twice"),
            (br#"{"value":1,"value_base64":""}"#, "\"value\" is there too"),
            (br#"{"value_base64":"?"}"#, "not base64"),
            (br#"{"value_base64":null}"#, "base64 in a string"),
            (
                br#"{"value":1,"topic":2}"#,
                r#"member "topic": a string is expected, but `2` was found"#,
            ),
            (br#"{"value":1,"partition":-1}"#, "whole number"),
            (br#"{"value":1,"offset":1.5}"#, "whole number"),
            (br#"{"value":1,"timestamp":"noon"}"#, "milliseconds since 1970"),
            (br#"{"value":1,"headers":{"a":"b"}}"#, "pairs of names and values"),
            (br#"{"value":1,"headers":[["a",1]]}"#, "pairs of names and values"),
            (br#"{"value":1,"headers":[["a",{"base64":"x"}]]}"#, "not base64"),
            (br#"{"value":"\ud800"}"#, "half a surrogate pair"),
        ];
        for (line, message) in cases {
            let error = read_line(line).expect_err(message).to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of(prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(String::into_bytes),
            r#"[\[{][\[\]{}":,1a \n]{0,6}[\]}]"#.prop_map(String::into_bytes),
            Just(br#"{"base64": "x"}"#.to_vec()),
        ])
    }

    proptest! {
        #[test]
        fn every_record_is_read_back(key in bytes(), value in bytes(), names in prop::collection::vec(any::<String>(), 0..4),
                                     header in bytes(), timestamp_ms: i64, offset: u64, topic: String) {
            let headers = names.iter().map(|name| (name.as_str(), header.as_deref())).collect();
            let record = Record { key, value, headers, timestamp_ms };
            let mut out = Vec::new();
            write_line(&mut out, &topic, 1, &record.at(offset));
            prop_assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
            let line = read_line(&out).expect("a line that was written");
            prop_assert_eq!((line.record, line.offset, line.topic), (record, Some(offset), Some(topic)));
        }

        #[test]
        fn no_line_is_too_strange(line: Vec<u8>, text in r#"\{"(value|key|headers|timestamp)(_base64)?":[\[\]{}",:a1n\\]{0,8}\}"#) {
            let _ = read_line(&line);
            let _ = read_line(text.as_bytes());
        }
    }
}
