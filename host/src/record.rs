//! Records, as they stand in buffers that somebody else owns, and as somebody's own.
//!
//! A [`RecordRef`] is four slices and two numbers: copying it copies no bytes. A batch is a list of them over the
//! blocks that were read and an arena that stages write new values into; when the batch's effects have been handed
//! to the commit, all of it goes at once.

use std::time::{SystemTime, UNIX_EPOCH};

/// The timestamp of now: milliseconds since the epoch, by the wall clock.
pub(crate) fn now_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// A record in somebody else's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// The key; null is not empty.
    pub key: Option<&'a [u8]>,
    /// The value; null is a tombstone and not empty.
    pub value: Option<&'a [u8]>,
    /// The headers, in their order; names may repeat.
    pub headers: HeadersRef<'a>,
    /// Milliseconds since the epoch, UTC, negative before.
    pub timestamp_ms: i64,
    /// The place in its partition, counted from 0.
    pub offset: u64,
}

impl RecordRef<'_> {
    /// A record of its own with the same content.
    pub fn to_record(&self) -> Record {
        Record {
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            headers: Headers {
                encoded: self.headers.encoded.to_vec(),
            },
            timestamp_ms: self.timestamp_ms,
        }
    }

    /// Bytes of key, value and headers.
    pub fn size_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.headers.encoded.len()
    }
}

/// A record that owns its bytes and has no place in a partition yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The key; null is not empty.
    pub key: Option<Vec<u8>>,
    /// The value; null is a tombstone and not empty.
    pub value: Option<Vec<u8>>,
    /// The headers, in their order; names may repeat.
    pub headers: Headers,
    /// Milliseconds since the epoch, UTC, negative before.
    pub timestamp_ms: i64,
}

impl Record {
    /// The record as others see it, at `offset` of its partition.
    pub fn at(&self, offset: u64) -> RecordRef<'_> {
        RecordRef {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self.headers.as_ref(),
            timestamp_ms: self.timestamp_ms,
            offset,
        }
    }
}

/// Headers in one run of bytes: for each, the name's length, the name, the value's length plus one (0 is null), the
/// value; lengths as LEB128.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    encoded: Vec<u8>,
}

impl Headers {
    /// Adds one behind the others.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        write_header(&mut self.encoded, name, value);
    }

    /// The headers as others see them.
    pub fn as_ref(&self) -> HeadersRef<'_> {
        HeadersRef { encoded: &self.encoded }
    }
}

/// Writes a header as [`Headers`] encodes it.
pub(crate) fn write_header(encoded: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    write_varint(encoded, name.len() as u64);
    encoded.extend_from_slice(name.as_bytes());
    match value {
        None => write_varint(encoded, 0),
        Some(value) => {
            write_varint(encoded, value.len() as u64 + 1);
            encoded.extend_from_slice(value);
        }
    }
}

impl<'a> FromIterator<(&'a str, Option<&'a [u8]>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>>(pairs: I) -> Self {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            headers.push(name, value);
        }
        headers
    }
}

/// Headers in somebody else's buffer, encoded as [`Headers`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadersRef<'a> {
    encoded: &'a [u8],
}

impl<'a> HeadersRef<'a> {
    /// Takes bytes for headers, if they are.
    ///
    /// # Errors
    /// `None` where the bytes end too early or a name is not UTF-8.
    pub fn parse(encoded: &'a [u8]) -> Option<Self> {
        let mut rest = encoded;
        while !rest.is_empty() {
            read_header(&mut rest)?;
        }
        Some(HeadersRef { encoded })
    }

    /// The bytes that [`HeadersRef::parse`] reads back.
    pub fn encoded(self) -> &'a [u8] {
        self.encoded
    }

    /// Takes bytes that were once [`HeadersRef::encoded`] without looking at them again: for blocks whose checksum
    /// holds. What does not parse after all ends the list.
    pub fn trusted(encoded: &'a [u8]) -> Self {
        HeadersRef { encoded }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.encoded.is_empty()
    }

    /// Names and values in their order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let mut rest = self.encoded;
        std::iter::from_fn(move || if rest.is_empty() { None } else { read_header(&mut rest) })
    }

    /// The value of the last header of this name: outer `None` where there is no such header, inner where it is null.
    pub fn last(self, name: &str) -> Option<Option<&'a [u8]>> {
        self.iter().filter(|(n, _)| *n == name).last().map(|(_, value)| value)
    }
}

fn read_header<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, Option<&'a [u8]>)> {
    let length = usize::try_from(read_varint(rest)?).ok()?;
    let name = std::str::from_utf8(rest.split_off(..length)?).ok()?;
    let value = match read_varint(rest)? {
        0 => None,
        length => Some(rest.split_off(..usize::try_from(length - 1).ok()?)?),
    };
    Some((name, value))
}

/// Appends a number as LEB128: seven bits a byte, the lowest first.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number that [`write_varint`] wrote from the front.
///
/// # Errors
/// `None` where the bytes end within it or it has more than 64 bits.
pub fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in rest.iter().enumerate().take(10) {
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = &rest[i + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_and_null_is_not_empty() {
        let pairs = [
            ("a", Some(&b"1"[..])),
            ("a", None),
            ("", Some(&b""[..])),
            ("é", Some(&[0xff, 0][..])),
        ];
        let headers: Headers = pairs.into_iter().collect();
        assert_eq!(headers.as_ref().iter().collect::<Vec<_>>(), pairs);
        assert_eq!(headers.as_ref().last("a"), Some(None));
        assert_eq!(headers.as_ref().last("b"), None);
        let encoded = headers.as_ref().encoded();
        assert_eq!(HeadersRef::parse(encoded), Some(headers.as_ref()));
        assert_eq!(HeadersRef::parse(&encoded[..encoded.len() - 1]), None);
    }

    #[test]
    fn varints_end_where_they_end() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            write_varint(&mut bytes, value);
            let mut rest = &bytes[..];
            assert_eq!(read_varint(&mut rest), Some(value));
            assert!(rest.is_empty());
            assert_eq!(read_varint(&mut &bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(read_varint(&mut &[0xff; 11][..]), None);
    }
}
