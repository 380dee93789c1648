//! From records to a table, as the host decodes JSON topics.

use serde_json::Value;

use super::{Record, Refused};
use crate::cell::{Cell, Json, Time};
use crate::column::Cells;
use crate::schema::{FieldType, MappedField, Place};
use crate::table::{Column, Table};

/// A cell, found in a record.
enum Found {
    Null,
    Json(Value),
    Bytes(Vec<u8>),
}

/// The table of the records that can be decoded, which record each of its rows is, and the records that cannot.
pub(super) fn decode(fields: &[MappedField], records: &[Record]) -> (Table, Vec<usize>, Vec<Refused>) {
    let mut columns: Vec<Cells> = fields
        .iter()
        .map(|mapped| Cells::new(mapped.field.type_, records.len()))
        .collect();
    let (mut rows, mut undecoded) = (Vec::new(), Vec::new());
    for (number, record) in records.iter().enumerate() {
        let before = rows.len();
        let mut problem = None;
        for (mapped, cells) in fields.iter().zip(&mut columns) {
            if let Err(message) = find(record, &mapped.place).and_then(|found| push(mapped, found, cells)) {
                problem = Some(format!(
                    "field {:?} ({}) {message}",
                    mapped.field.name,
                    place(&mapped.place)
                ));
                break;
            }
        }
        match problem {
            None => rows.push(number),
            Some(message) => {
                for cells in &mut columns {
                    let length = cells.rows();
                    cells.remove(before.min(length)..length);
                }
                undecoded.push(Refused {
                    record: number,
                    message,
                });
            }
        }
    }
    let table = Table {
        rows: rows.len() as u32,
        columns: columns.into_iter().map(Cells::into_column).collect::<Vec<Column>>(),
    };
    (table, rows, undecoded)
}

fn place(place: &Place) -> String {
    match place {
        Place::Value(path) => format!("value:{path}"),
        Place::Key(path) => format!("key:{path}"),
        Place::Header(name) => format!("header {name:?}"),
        Place::RawValue => "raw value".into(),
        Place::RawKey => "raw key".into(),
        Place::Timestamp => "timestamp".into(),
        Place::Offset => "offset".into(),
        Place::Tombstone => "tombstone".into(),
    }
}

fn find(record: &Record, place: &Place) -> Result<Found, String> {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map_or(Found::Null, Found::Bytes);
    let member = |text: &Option<Vec<u8>>, path: &str| match text {
        None => Ok(Found::Null),
        Some(text) => {
            let value: Value = serde_json::from_slice(text).map_err(|error| format!("is not JSON: {error}"))?;
            Ok(value
                .pointer(path)
                .filter(|found| !found.is_null())
                .map_or(Found::Null, |found| Found::Json(found.clone())))
        }
    };
    match place {
        Place::Value(path) => member(&record.value, path),
        Place::Key(path) => match &record.key {
            // A key is often plain text.
            Some(key) if path.is_empty() && serde_json::from_slice::<Value>(key).is_err() => {
                Ok(Found::Json(String::from_utf8_lossy(key).into()))
            }
            key => member(key, path),
        },
        Place::RawValue => Ok(bytes(&record.value)),
        Place::RawKey => Ok(bytes(&record.key)),
        Place::Header(name) => {
            let header = record.headers.iter().rev().find(|(found, _)| found == name);
            Ok(header.map_or(Found::Null, |(_, value)| bytes(value)))
        }
        Place::Timestamp => Ok(Found::Json(record.timestamp.into())),
        Place::Offset => Ok(Found::Json(record.offset.into())),
        Place::Tombstone => Ok(Found::Json(record.value.is_none().into())),
    }
}

fn push(mapped: &MappedField, found: Found, cells: &mut Cells) -> Result<(), String> {
    let other = |found: &dyn std::fmt::Display| format!("is {found}, but the plugin reads {:?}", mapped.field.type_);
    match (mapped.field.type_, found) {
        (_, Found::Null) if mapped.field.optional => cells.push_null(),
        (_, Found::Null) => return Err("is missing".into()),
        (FieldType::Bytes, Found::Bytes(bytes)) => cells.push_bytes(&bytes),
        (FieldType::Text, Found::Bytes(bytes)) => String::from_utf8(bytes)
            .map_err(|error| error.to_string())?
            .write(cells),
        (_, Found::Bytes(bytes)) => return Err(other(&format_args!("{} bytes", bytes.len()))),
        (FieldType::Json, Found::Json(value)) => Json::new(&value).map_err(|error| error.to_string())?.write(cells),
        (FieldType::Bytes, Found::Json(value)) => match value.as_str() {
            Some(text) => cells.push_bytes(text.as_bytes()),
            None => return Err(other(&value)),
        },
        (FieldType::Text, Found::Json(value)) => value.as_str().ok_or_else(|| other(&value))?.write(cells),
        (FieldType::Boolean, Found::Json(value)) => value.as_bool().ok_or_else(|| other(&value))?.write(cells),
        (FieldType::Integer, Found::Json(value)) => value.as_i64().ok_or_else(|| other(&value))?.write(cells),
        (FieldType::Float, Found::Json(value)) => value.as_f64().ok_or_else(|| other(&value))?.write(cells),
        (FieldType::Time, Found::Json(value)) => {
            let millis = value.as_i64().or_else(|| value.as_str().and_then(millis));
            Time(millis.ok_or_else(|| other(&value))?).write(cells);
        }
    }
    Ok(())
}

/// `2020-07-01T00:25:32.5+02:00` as milliseconds since the epoch; without an offset it is UTC, and a space may stand
/// for the T. Days by Howard Hinnant's `days_from_civil`.
fn millis(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let mut rest = text.get(19..)?;
    let mut fraction = 0;
    if let Some(digits) = rest.strip_prefix('.') {
        let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        fraction = format!("{:0<3}", &digits[..length]).get(..3)?.parse().ok()?;
        rest = &digits[length..];
    }
    let offset_minutes = match rest {
        "" | "Z" | "z" => 0,
        offset => {
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = offset[1..].split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?)
        }
    };
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some((((days * 24 + hour) * 60 + minute - offset_minutes) * 60 + second) * 1000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_from_text() {
        assert_eq!(millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(millis("2020-07-01 00:25:32"), Some(1_593_563_132_000));
        assert_eq!(millis("2020-07-01T02:25:32.5+02:00"), Some(1_593_563_132_500));
        assert_eq!(millis("1969-12-31T23:59:59.999Z"), Some(-1));
        assert_eq!(millis("2000-02-29T00:00:00Z"), Some(951_782_400_000));
        assert_eq!(millis("yesterday"), None);
    }
}
