//! Key and event time that stand in a record's value.

use std::borrow::Cow;

use bumpalo::Bump;

use super::Format;
use crate::limits::KEY_BYTES_MAX;
use crate::record::RecordRef;
use crate::schema::{Field, FieldType, MappedField, Place};
use crate::table::{Cell, Table};

/// The fields that [`set_key_and_time`] wants, for a decoder: the key may be null, the time may not. A name without a
/// slash before it is a member of the value's object.
pub fn key_and_time_fields(format: &Format, key: Option<&str>, time: Option<&str>) -> Vec<MappedField> {
    let field = |name: &str, field_type, optional, place: &str| MappedField {
        field: Field {
            name: name.into(),
            field_type,
            optional,
        },
        place: Place::Value(if place.is_empty() || place.starts_with('/') {
            place.into()
        } else {
            format!("/{place}")
        }),
    };
    let key = key.map(|place| field("key", key_type(format), true, place));
    let time = time.map(|place| field("timestamp", FieldType::Time, false, place));
    key.into_iter().chain(time).collect()
}

/// As what a key is read from values of a format: any value of JSON may be one.
fn key_type(format: &Format) -> FieldType {
    match format {
        Format::Json => FieldType::Json,
        Format::Csv(_) | Format::Text => FieldType::Text,
        Format::Raw => FieldType::Bytes,
    }
}

/// The key in a record's value is larger than keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key has {bytes} bytes, but {KEY_BYTES_MAX} bytes is the limit: take the key from another field")]
pub struct KeyTooLarge {
    /// Its size.
    pub bytes: usize,
}

/// A record with the key, the event time or both that stand in a row of the table of [`key_and_time_fields`], as they
/// were made for values of `format`.
///
/// # Errors
/// Where the key is too large.
pub fn set_key_and_time<'a>(
    arena: &'a Bump,
    format: &Format,
    table: &Table,
    row: usize,
    key: bool,
    time: bool,
    mut record: RecordRef<'a>,
) -> Result<RecordRef<'a>, KeyTooLarge> {
    if key {
        record.key = key_bytes(arena, table.columns[0].cell(key_type(format), row));
        if let Some(bytes) = record.key.map(<[u8]>::len).filter(|&bytes| bytes > KEY_BYTES_MAX) {
            return Err(KeyTooLarge { bytes });
        }
    }
    if time && let Cell::Time(time) = table.columns[usize::from(key)].cell(FieldType::Time, row) {
        record.timestamp_ms = time;
    }
    Ok(record)
}

/// A key as people write keys: a text without its quotes, anything else as its JSON.
fn key_bytes<'a>(arena: &'a Bump, cell: Cell<'_>) -> Option<&'a [u8]> {
    let json = match cell {
        Cell::Json(json) => json,
        Cell::Text(text) => return Some(arena.alloc_slice_copy(text.as_bytes())),
        Cell::Bytes(bytes) => return Some(arena.alloc_slice_copy(bytes)),
        _ => return None,
    };
    let bytes = match serde_json::from_str::<Cow<'_, str>>(json) {
        Ok(text) => arena.alloc_slice_copy(text.as_bytes()),
        Err(_) => arena.alloc_slice_copy(json.as_bytes()),
    };
    Some(bytes)
}
