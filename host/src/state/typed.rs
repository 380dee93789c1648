//! Rows of a store as fields, by what its changelog says of them: without the plugin that wrote them.

use super::codec::{RowRef, read_key, read_start, write_key};
use super::query::KeyFilter;
use crate::connect::{StoreSchema, TopicRole};
use crate::format::{read_time, write_base64, write_json, write_string, write_time};
use crate::schema::{Field, FieldType};
use crate::table::{Cell, Column, Table};

/// Cells with the fields that they are of.
pub type Named<'r, 'b> = Vec<(&'r Field, Cell<'b>)>;

/// Reads keys and rows of one store.
pub struct RowReader<'r> {
    schemas: &'r [StoreSchema],
    last: &'r StoreSchema,
}

/// A key, read.
#[derive(Debug)]
pub struct TypedKey<'k> {
    /// Start and end of its window.
    pub window: Option<(i64, i64)>,
    /// What stands behind that.
    pub key: KeyFields<'k>,
}

/// What identifies a row.
#[derive(Debug)]
pub enum KeyFields<'k> {
    /// Of a group, the key of its records.
    Record(&'k [u8]),
    /// Of a processor's store, one row of columns.
    Fields(Vec<Column>),
}

/// Bytes that no store wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the changelog's description does not fit the bytes: {0}")]
pub struct Unreadable(&'static str);

const KEY: Unreadable = Unreadable("a key");
const ROW: Unreadable = Unreadable("a row");

impl<'r> RowReader<'r> {
    /// For the store whose changelog has this role; `None` where that is none.
    pub fn of(role: &'r TopicRole) -> Option<RowReader<'r>> {
        match role {
            TopicRole::Changelog { schemas, .. } => Some(RowReader {
                schemas,
                last: schemas.last()?,
            }),
            TopicRole::Repartition { .. } => None,
        }
    }

    /// What is written now.
    pub fn schema(&self) -> &'r StoreSchema {
        self.last
    }

    /// The fields that a row may have, of all versions: those that are written now first.
    pub fn fields(&self) -> Vec<&'r Field> {
        let mut fields: Vec<&Field> = Vec::new();
        for field in self.schemas.iter().rev().flat_map(|schema| &schema.value) {
            if fields.iter().all(|known| known.name != field.name) {
                fields.push(field);
            }
        }
        fields
    }

    /// Reads a key.
    ///
    /// # Errors
    /// Where the bytes are no key of this store.
    pub fn key<'k>(&self, key: &'k [u8]) -> Result<TypedKey<'k>, Unreadable> {
        let (window, key) = match self.last.window_size_ms {
            Some(size_ms) => {
                let (start, key) = read_start(key).ok_or(KEY)?;
                (Some((start, start.saturating_add(size_ms))), key)
            }
            None => (None, key),
        };
        if self.last.key.is_empty() {
            return Ok(TypedKey {
                window,
                key: KeyFields::Record(key),
            });
        }
        let mut columns = vec![Column::default(); self.last.key.len()];
        if !read_key(&self.last.key, key, 0, &mut columns) {
            return Err(KEY);
        }
        Ok(TypedKey {
            window,
            key: KeyFields::Fields(columns),
        })
    }

    /// Reads a row: when it was written, and its fields, which are those of the version that wrote it.
    ///
    /// # Errors
    /// Where the bytes are no row of this store.
    pub fn row<'b>(&self, row: &'b [u8]) -> Result<(i64, Named<'r, 'b>), Unreadable> {
        let row = RowRef::parse(row).ok_or(ROW)?;
        let schema = self.schemas.get(row.schema as usize).ok_or(ROW)?;
        let cells: Vec<_> = schema.value.iter().zip(row.cells(&schema.value)).collect();
        if cells.len() != schema.value.len() {
            return Err(ROW);
        }
        Ok((row.timestamp_ms, cells))
    }

    /// Appends `"window_start":…,"window_end":…,"key":…`, of a group whose key is no text `"key_base64":…`.
    ///
    /// # Errors
    /// Where the bytes are no key of this store.
    pub fn write_key_members(&self, key: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let typed = self.key(key)?;
        if let Some((start, end)) = typed.window {
            out.extend_from_slice(b"\"window_start\":");
            write_cell(Cell::Time(start), out);
            out.extend_from_slice(b",\"window_end\":");
            write_cell(Cell::Time(end), out);
            out.push(b',');
        }
        match &typed.key {
            KeyFields::Record(key) => match std::str::from_utf8(key) {
                Ok(text) => {
                    out.extend_from_slice(b"\"key\":");
                    write_string(out, text);
                }
                Err(_) => {
                    out.extend_from_slice(b"\"key_base64\":");
                    write_base64(out, key);
                }
            },
            KeyFields::Fields(columns) => {
                out.extend_from_slice(b"\"key\":");
                let cells = self
                    .last
                    .key
                    .iter()
                    .zip(columns)
                    .map(|(field, column)| (field, column.cell(field.field_type, 0)));
                write_object(cells, out);
            }
        }
        Ok(())
    }

    /// Appends a row's fields as a JSON object. Returns when it was written.
    ///
    /// # Errors
    /// Where the bytes are no row of this store.
    pub fn write_value(&self, row: &[u8], out: &mut Vec<u8>) -> Result<i64, Unreadable> {
        let (timestamp_ms, cells) = self.row(row)?;
        write_object(cells.into_iter(), out);
        Ok(timestamp_ms)
    }

    /// The filter for one key, as people write it: the text of a group's key, or of a key of one field, else a JSON array or
    /// object of its fields.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn one_key(&self, text: &str) -> Result<KeyFilter, String> {
        let fields = &self.last.key;
        let key = match fields.as_slice() {
            [] => text.as_bytes().to_vec(),
            [_] => encode(fields, &[text.to_owned()])?,
            _ => {
                let values = values(fields, text)?;
                if values.len() < fields.len() {
                    return Err(format!(
                        "the key has {} fields ({}), and {} are given; --prefix takes the first of them",
                        fields.len(),
                        names(fields),
                        values.len()
                    ));
                }
                encode(fields, &values)?
            }
        };
        Ok(KeyFilter::Is(key))
    }

    /// The filter for keys that begin so: the first bytes of a group's key, or of a first field that is text, else the first
    /// fields, as [`RowReader::one_key`] has them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn prefix(&self, text: &str) -> Result<KeyFilter, String> {
        let fields = &self.last.key;
        let Some(first) = fields.first() else {
            return Ok(KeyFilter::StartsWith(text.as_bytes().to_vec()));
        };
        let several = fields.len() > 1 && text.starts_with(['[', '{']);
        if !several && first.field_type == FieldType::Text {
            let mut key = encode(&fields[..1], &[text.to_owned()])?;
            // Without the end of the text.
            key.truncate(key.len() - 2);
            return Ok(KeyFilter::StartsWith(key));
        }
        let values = if several {
            values(fields, text)?
        } else {
            vec![text.to_owned()]
        };
        Ok(KeyFilter::StartsWith(encode(&fields[..values.len()], &values)?))
    }
}

/// Appends a cell as JSON; what JSON has no value for, as its text.
pub fn write_cell(cell: Cell<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    if write_json(out, cell).is_err() {
        out.truncate(start);
        match cell {
            Cell::Float(value) => write_string(out, &value.to_string()),
            Cell::Time(value) => out.extend_from_slice(value.to_string().as_bytes()),
            _ => out.extend_from_slice(b"null"),
        }
    }
}

/// A cell for people.
pub fn cell_for_people(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Text(text) => text.to_owned(),
        Cell::Time(time) => time_text(time),
        cell => {
            let mut json = Vec::new();
            write_cell(cell, &mut json);
            let text = String::from_utf8_lossy(&json);
            match cell {
                Cell::Bytes(_) => text.trim_matches('"').to_owned(),
                _ => text.into_owned(),
            }
        }
    }
}

/// A time in RFC 3339, or its milliseconds where that has no such year.
pub fn time_text(time_ms: i64) -> String {
    let mut text = Vec::new();
    if write_time(&mut text, time_ms) {
        String::from_utf8_lossy(&text).into_owned()
    } else {
        time_ms.to_string()
    }
}

fn write_object<'f>(cells: impl Iterator<Item = (&'f Field, Cell<'f>)>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (at, (field, cell)) in cells.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(out, &field.name);
        out.push(b':');
        write_cell(cell, out);
    }
    out.push(b'}');
}

fn names(fields: &[Field]) -> String {
    fields
        .iter()
        .map(|field| format!("{}: {}", field.name, field.field_type))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The fields of a key that are written as a JSON array, or as an object, from the first on.
fn values(fields: &[Field], text: &str) -> Result<Vec<String>, String> {
    use serde_json::Value;
    let wrong = || {
        format!(
            "the key has several fields ({}): give a JSON array or object of them",
            names(fields)
        )
    };
    let plain = |value: &Value, field: &Field| match value {
        Value::Null => Err(format!("the field {:?} of a key is never null", field.name)),
        Value::String(text) if field.field_type != FieldType::Json => Ok(text.clone()),
        value => Ok(value.to_string()),
    };
    match serde_json::from_str::<Value>(text).map_err(|_| wrong())? {
        Value::Array(values) if values.len() <= fields.len() => values
            .iter()
            .zip(fields)
            .map(|(value, field)| plain(value, field))
            .collect(),
        Value::Array(values) => Err(format!(
            "{} values are given, but the key has {}: {}",
            values.len(),
            fields.len(),
            names(fields)
        )),
        Value::Object(values) => {
            if let Some(unknown) = values
                .keys()
                .find(|name| fields.iter().all(|field| field.name != **name))
            {
                return Err(format!("the key has no field {unknown:?}; it has {}", names(fields)));
            }
            let first = fields.iter().map_while(|field| Some((values.get(&field.name)?, field)));
            let found: Vec<String> = first
                .map(|(value, field)| plain(value, field))
                .collect::<Result<_, _>>()?;
            if found.len() < values.len() {
                return Err(format!("the first fields of the key are needed: {}", names(fields)));
            }
            Ok(found)
        }
        _ => Err(wrong()),
    }
}

/// A key, or its first fields, from the texts of its cells.
fn encode(fields: &[Field], values: &[String]) -> Result<Vec<u8>, String> {
    use base64::Engine;
    let mut columns = Vec::with_capacity(values.len());
    for (field, text) in fields.iter().zip(values) {
        let none = || {
            format!(
                "{text:?} is no {} (the field {:?} of the key)",
                field.field_type, field.name
            )
        };
        let bytes;
        let cell = match field.field_type {
            FieldType::Boolean => Cell::Boolean(text.parse().map_err(|_| none())?),
            FieldType::Integer => Cell::Integer(text.parse().map_err(|_| none())?),
            FieldType::Float => Cell::Float(text.parse().map_err(|_| none())?),
            FieldType::Time => {
                let time = read_time(text).or_else(|| text.parse().ok());
                Cell::Time(time.ok_or_else(none)?)
            }
            FieldType::Text => Cell::Text(text),
            FieldType::Json => Cell::Json(text),
            FieldType::Bytes => {
                let read = base64::engine::general_purpose::STANDARD.decode(text);
                bytes = read.map_err(|_| format!("{}: bytes are given in base64", none()))?;
                Cell::Bytes(&bytes)
            }
        };
        let mut column = Column::default();
        column.push(field.field_type, 0, cell);
        columns.push(column);
    }
    let table = Table { rows: 1, columns };
    let mut key = Vec::new();
    write_key(&fields[..values.len()], &table, 0, &mut key);
    Ok(key)
}

#[cfg(test)]
mod tests;
