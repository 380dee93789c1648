//! From emitted rows to records, as the host encodes JSON topics.

use serde_json::{Map, Value};

use super::Record;
use crate::cell::{Cell, Json, Time};
use crate::schema::{Branch, FieldType, MappedField, Place, ValueBase};
use crate::table::Column;

/// Refuses a branch whose fields overlap or lie where nothing can be written.
pub(super) fn check(branch: &Branch) -> Result<(), String> {
    let problem = |message: String| Err(format!("branch {:?}: {message}", branch.name));
    for (at, mapped) in branch.fields.iter().enumerate() {
        if mapped.place == Place::Offset {
            return problem(format!(
                "field {:?} would be the offset, which the topic gives",
                mapped.field.name
            ));
        }
        for other in &branch.fields[..at] {
            if overlap(&mapped.place, &other.place) {
                return problem(format!(
                    "fields {:?} and {:?} overlap",
                    other.field.name, mapped.field.name
                ));
            }
        }
    }
    Ok(())
}

fn overlap(one: &Place, other: &Place) -> bool {
    let inside = |one: &str, other: &str| {
        let (short, long) = if one.len() <= other.len() {
            (one, other)
        } else {
            (other, one)
        };
        long.strip_prefix(short)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (one, other) {
        (Place::Value(one), Place::Value(other)) | (Place::Key(one), Place::Key(other)) => inside(one, other),
        (Place::RawValue, Place::Value(_)) | (Place::Value(_), Place::RawValue) => true,
        (Place::RawKey, Place::Key(_)) | (Place::Key(_), Place::RawKey) => true,
        (one, other) => one == other,
    }
}

/// A record for each row: the one it comes from, with the branch's fields in it.
pub(super) fn encode<'r>(
    branch: &Branch,
    columns: &[Column],
    origins: impl ExactSizeIterator<Item = &'r Record>,
) -> Result<Vec<Record>, String> {
    let rows = origins.len();
    let mut cells = Vec::new();
    for (mapped, column) in branch.fields.iter().zip(columns) {
        cells.push(values(mapped, column, rows).map_err(|problem| format!("branch {:?}: {problem}", branch.name))?);
    }
    let encode = |(row, origin): (usize, &Record)| {
        let of_row = branch.fields.iter().zip(cells.iter().map(|cells| &cells[row]));
        write(branch, origin, of_row.collect())
    };
    origins.enumerate().map(encode).collect()
}

/// A cell that is written.
#[derive(Clone)]
enum Written {
    Null,
    Json(Value),
    Bytes(Vec<u8>),
}

fn values(mapped: &MappedField, column: &Column, rows: usize) -> Result<Vec<Written>, String> {
    fn read<'a, T: Cell<'a>>(
        column: &'a Column,
        rows: usize,
        written: impl Fn(T) -> Result<Written, String>,
    ) -> Result<Vec<Written>, String> {
        let view = <Option<T> as Cell>::view(column, rows)?;
        let cell = |row| <Option<T> as Cell>::read(&view, row).map_or(Ok(Written::Null), &written);
        (0..rows).map(cell).collect()
    }
    let cells = match mapped.field.type_ {
        FieldType::Boolean => read::<bool>(column, rows, |cell| Ok(Written::Json(cell.into()))),
        FieldType::Integer => read::<i64>(column, rows, |cell| Ok(Written::Json(cell.into()))),
        FieldType::Float => read::<f64>(column, rows, |cell| Ok(Written::Json(cell.into()))),
        FieldType::Time => read::<Time>(column, rows, |cell| Ok(Written::Json(cell.0.into()))),
        FieldType::Text => read::<&str>(column, rows, |cell| Ok(Written::Json(cell.into()))),
        FieldType::Bytes => read::<&[u8]>(column, rows, |cell| Ok(Written::Bytes(cell.into()))),
        FieldType::Json => read::<Json<'_>>(column, rows, |cell| {
            cell.parse().map(Written::Json).map_err(|error| error.to_string())
        }),
    };
    let cells = cells.map_err(|problem| format!("field {:?}: {problem}", mapped.field.name))?;
    if !mapped.field.optional && cells.iter().any(|cell| matches!(cell, Written::Null)) {
        return Err(format!("field {:?} is null, but not optional", mapped.field.name));
    }
    Ok(cells)
}

fn write(branch: &Branch, origin: &Record, cells: Vec<(&MappedField, &Written)>) -> Result<Record, String> {
    let mut record = origin.clone();
    let in_value = cells.iter().any(|(mapped, _)| matches!(mapped.place, Place::Value(_)));
    let mut value = match (&branch.value, in_value) {
        (ValueBase::New, _) => {
            record.value = None;
            Value::Null
        }
        (ValueBase::Same, true) => origin.json_value(),
        (ValueBase::Same, false) => Value::Null,
    };
    let mut key: Option<Value> = None;
    let mut tombstone = false;
    for (mapped, cell) in cells {
        let json = match cell {
            Written::Null => Value::Null,
            Written::Json(value) => value.clone(),
            Written::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        };
        match &mapped.place {
            Place::Value(path) => set(&mut value, path, json),
            Place::Key(path) => set(key.get_or_insert(Value::Null), path, json),
            Place::RawValue => record.value = bytes(cell),
            Place::RawKey => record.key = bytes(cell),
            Place::Header(name) => {
                record.headers.retain(|(found, _)| found != name);
                if let Some(value) = bytes(cell) {
                    record.headers.push((name.clone(), Some(value)));
                }
            }
            Place::Timestamp => record.timestamp = json.as_i64().unwrap_or(origin.timestamp),
            Place::Tombstone => tombstone |= json == true,
            Place::Offset => return Err("the offset cannot be written".into()),
        }
    }
    if in_value {
        record.value = Some(value.to_string().into());
    }
    if let Some(key) = key {
        record.key = match key {
            Value::Null => None,
            Value::String(text) => Some(text.into()),
            other => Some(other.to_string().into()),
        };
    }
    if tombstone {
        record.value = None;
    }
    Ok(record)
}

fn bytes(cell: &Written) -> Option<Vec<u8>> {
    match cell {
        Written::Null => None,
        Written::Bytes(bytes) => Some(bytes.clone()),
        Written::Json(Value::String(text)) => Some(text.clone().into()),
        Written::Json(other) => Some(other.to_string().into()),
    }
}

/// Puts a member where the pointer says, with the objects above it.
fn set(value: &mut Value, pointer: &str, member: Value) {
    let Some(path) = pointer.strip_prefix('/') else {
        *value = member;
        return;
    };
    let mut at = value;
    for name in path.split('/') {
        let name = name.replace("~1", "/").replace("~0", "~");
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[name];
    }
    *at = member;
}
