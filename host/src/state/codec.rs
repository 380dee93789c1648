//! The bytes of keys and rows.
//!
//! ```text
//! key    its cells one behind the other, so that comparing bytes compares keys:
//!          boolean 1 byte; integer and time 8, big-endian, the sign flipped; float 8, its bits in the order of its values;
//!          text, bytes and json with 00 written as 00 FF, and 00 00 behind them
//! group  where a stage has a window its start, as a time; then the bytes of the record's key as they are
//! row    schema number (LEB128) · timestamp (i64, little-endian) · its cells:
//!          an optional one begins with a byte, 0 is null and ends it; boolean 1 byte; integer, float, time 8, little-endian;
//!          text, bytes and json their length (LEB128) and bytes
//! ```

use crate::record::{read_varint, write_varint};
use crate::schema::{Field, FieldType};
use crate::table::{Cell, Column, Table};

/// Bytes of the start of a window before the key of a group.
pub const WINDOW_BYTES: usize = 8;
const SIGN: u64 = 1 << 63;

/// A time, or an integer, as bytes that stand in the order of the times.
pub(super) fn encode_time(time_ms: i64) -> [u8; 8] {
    (time_ms as u64 ^ SIGN).to_be_bytes()
}

pub(super) fn decode_time(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ SIGN) as i64
}

/// The start of a window, as it stands before the key of a group.
pub fn start_bytes(start_ms: i64) -> [u8; WINDOW_BYTES] {
    encode_time(start_ms)
}

/// Appends the start of a window.
pub fn write_start(start_ms: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&start_bytes(start_ms));
}

/// The start of a window at the front of a group's key, and the record's key behind it.
pub fn read_start(key: &[u8]) -> Option<(i64, &[u8])> {
    let (start, rest) = key.split_first_chunk::<WINDOW_BYTES>()?;
    Some((decode_time(*start), rest))
}

/// Appends the key, or its first cells where `fields` are fewer than the key's, that stands in a row of a table.
pub fn write_key(fields: &[Field], table: &Table, row: usize, out: &mut Vec<u8>) {
    for (field, column) in fields.iter().zip(&table.columns) {
        write_key_cell(column.cell(field.field_type, row), out);
    }
}

/// Appends a cell of a key.
pub(super) fn write_key_cell(cell: Cell<'_>, out: &mut Vec<u8>) {
    match cell {
        Cell::Null => {}
        Cell::Boolean(value) => out.push(u8::from(value)),
        Cell::Integer(value) | Cell::Time(value) => out.extend_from_slice(&encode_time(value)),
        Cell::Float(value) => {
            let bits = value.to_bits();
            let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
            out.extend_from_slice(&ordered.to_be_bytes());
        }
        Cell::Text(value) | Cell::Json(value) => write_escaped(value.as_bytes(), out),
        Cell::Bytes(value) => write_escaped(value, out),
    }
}

fn write_escaped(mut value: &[u8], out: &mut Vec<u8>) {
    while let Some(zero) = memchr::memchr(0, value) {
        out.extend_from_slice(&value[..zero]);
        out.extend_from_slice(&[0, 0xFF]);
        value = &value[zero + 1..];
    }
    out.extend_from_slice(value);
    out.extend_from_slice(&[0, 0]);
}

/// Appends the cells of a key as row `row` of columns; whether the bytes are such a key.
pub fn read_key(fields: &[Field], mut key: &[u8], row: usize, columns: &mut [Column]) -> bool {
    let mut text = Vec::new();
    for (field, column) in fields.iter().zip(columns) {
        let Some(cell) = read_key_cell(field.field_type, &mut key, &mut text) else {
            return false;
        };
        column.push(field.field_type, row, cell);
    }
    key.is_empty()
}

/// Takes the next cell of a key; `text` holds it where it does not stand there as it is.
pub(super) fn read_key_cell<'c>(field_type: FieldType, key: &mut &[u8], text: &'c mut Vec<u8>) -> Option<Cell<'c>> {
    Some(match field_type {
        FieldType::Boolean => match key.split_off_first() {
            Some(&value) if value < 2 => Cell::Boolean(value == 1),
            _ => return None,
        },
        FieldType::Text | FieldType::Bytes | FieldType::Json => {
            text.clear();
            if !read_escaped(key, text) {
                return None;
            }
            return cell_of_bytes(field_type, text);
        }
        number => {
            let (bytes, rest) = key.split_first_chunk::<8>()?;
            *key = rest;
            let ordered = u64::from_be_bytes(*bytes);
            match number {
                FieldType::Float => {
                    let bits = if ordered & SIGN == 0 { !ordered } else { ordered ^ SIGN };
                    Cell::Float(f64::from_bits(bits))
                }
                FieldType::Time => Cell::Time((ordered ^ SIGN) as i64),
                _ => Cell::Integer((ordered ^ SIGN) as i64),
            }
        }
    })
}

fn read_escaped(key: &mut &[u8], out: &mut Vec<u8>) -> bool {
    while let Some(zero) = memchr::memchr(0, key) {
        out.extend_from_slice(&key[..zero]);
        let mark = key.get(zero + 1).copied();
        *key = key.get(zero + 2..).unwrap_or_default();
        match mark {
            Some(0) => return true,
            Some(0xFF) => out.push(0),
            _ => return false,
        }
    }
    false
}

fn cell_of_bytes(field_type: FieldType, bytes: &[u8]) -> Option<Cell<'_>> {
    Some(match field_type {
        FieldType::Bytes => Cell::Bytes(bytes),
        FieldType::Json => Cell::Json(std::str::from_utf8(bytes).ok()?),
        _ => Cell::Text(std::str::from_utf8(bytes).ok()?),
    })
}

/// Appends a row of a table as the bytes that are kept.
pub fn write_row(schema: u32, timestamp_ms: i64, fields: &[Field], table: &Table, row: usize, out: &mut Vec<u8>) {
    write_row_head(schema, timestamp_ms, out);
    for (field, column) in fields.iter().zip(&table.columns) {
        write_row_cell(field, column.cell(field.field_type, row), out);
    }
}

/// Appends what stands before the cells of a row.
pub(super) fn write_row_head(schema: u32, timestamp_ms: i64, out: &mut Vec<u8>) {
    write_varint(out, schema.into());
    out.extend_from_slice(&timestamp_ms.to_le_bytes());
}

/// Appends a cell of a row.
pub(super) fn write_row_cell(field: &Field, cell: Cell<'_>, out: &mut Vec<u8>) {
    if field.optional {
        out.push(u8::from(cell != Cell::Null));
    }
    match cell {
        Cell::Null => {}
        Cell::Boolean(value) => out.push(u8::from(value)),
        Cell::Integer(value) | Cell::Time(value) => out.extend_from_slice(&value.to_le_bytes()),
        Cell::Float(value) => out.extend_from_slice(&value.to_le_bytes()),
        Cell::Text(value) | Cell::Json(value) => write_bytes(value.as_bytes(), out),
        Cell::Bytes(value) => write_bytes(value, out),
    }
}

fn write_bytes(value: &[u8], out: &mut Vec<u8>) {
    write_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A kept row, its head read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef<'a> {
    /// Which of the store's schemas its cells have.
    pub schema: u32,
    /// When it was written, or the greatest timestamp of its group.
    pub timestamp_ms: i64,
    cells: &'a [u8],
}

impl<'a> RowRef<'a> {
    /// Reads the head of a row.
    pub fn parse(mut bytes: &'a [u8]) -> Option<RowRef<'a>> {
        let schema = u32::try_from(read_varint(&mut bytes)?).ok()?;
        let (timestamp, cells) = bytes.split_first_chunk::<8>()?;
        Some(RowRef {
            schema,
            timestamp_ms: i64::from_le_bytes(*timestamp),
            cells,
        })
    }

    /// Its cells, of the fields of its schema, in their order; shorter where the bytes are not such a row.
    pub fn cells<'f>(self, fields: &'f [Field]) -> impl Iterator<Item = Cell<'a>> + use<'a, 'f> {
        let mut rest = self.cells;
        fields.iter().map_while(move |field| read_cell(field, &mut rest))
    }

    /// Shows its cells, of the fields of its schema; whether it is such a row.
    pub(super) fn each<'f>(self, fields: &'f [Field], mut visit: impl FnMut(&'f Field, Cell<'a>)) -> bool {
        let mut rest = self.cells;
        for field in fields {
            let Some(cell) = read_cell(field, &mut rest) else {
                return false;
            };
            visit(field, cell);
        }
        rest.is_empty()
    }

    /// Appends its cells as row `row` of columns, which has the fields that it was written with; whether it is such a row.
    pub fn read(self, fields: &[Field], row: usize, columns: &mut [Column]) -> bool {
        let mut rest = self.cells;
        for (field, column) in fields.iter().zip(columns) {
            let Some(cell) = read_cell(field, &mut rest) else {
                return false;
            };
            column.push(field.field_type, row, cell);
        }
        rest.is_empty()
    }
}

fn read_cell<'a>(field: &Field, rest: &mut &'a [u8]) -> Option<Cell<'a>> {
    if field.optional {
        match rest.split_off_first()? {
            0 => return Some(Cell::Null),
            1 => {}
            _ => return None,
        }
    }
    let mut eight = || -> Option<[u8; 8]> {
        let (bytes, behind) = rest.split_first_chunk::<8>()?;
        *rest = behind;
        Some(*bytes)
    };
    Some(match field.field_type {
        FieldType::Boolean => match rest.split_off_first()? {
            0 => Cell::Boolean(false),
            1 => Cell::Boolean(true),
            _ => return None,
        },
        FieldType::Integer => Cell::Integer(i64::from_le_bytes(eight()?)),
        FieldType::Time => Cell::Time(i64::from_le_bytes(eight()?)),
        FieldType::Float => Cell::Float(f64::from_le_bytes(eight()?)),
        text => {
            let length = usize::try_from(read_varint(rest)?).ok()?;
            cell_of_bytes(text, rest.split_off(..length)?)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: [FieldType; 7] = [
        FieldType::Boolean,
        FieldType::Integer,
        FieldType::Float,
        FieldType::Text,
        FieldType::Bytes,
        FieldType::Time,
        FieldType::Json,
    ];

    #[derive(Clone, Debug, PartialEq)]
    enum Value {
        Null,
        Boolean(bool),
        Integer(i64),
        Float(f64),
        Text(String),
        Bytes(Vec<u8>),
        Time(i64),
        Json(String),
    }

    impl Value {
        fn cell(&self) -> Cell<'_> {
            match self {
                Value::Null => Cell::Null,
                Value::Boolean(v) => Cell::Boolean(*v),
                Value::Integer(v) => Cell::Integer(*v),
                Value::Float(v) => Cell::Float(*v),
                Value::Text(v) => Cell::Text(v),
                Value::Bytes(v) => Cell::Bytes(v),
                Value::Time(v) => Cell::Time(*v),
                Value::Json(v) => Cell::Json(v),
            }
        }
    }

    fn value(field_type: FieldType) -> BoxedStrategy<Value> {
        match field_type {
            FieldType::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
            FieldType::Integer => any::<i64>().prop_map(Value::Integer).boxed(),
            FieldType::Float => any::<f64>().prop_map(Value::Float).boxed(),
            FieldType::Text => "[a\\x00é]{0,4}".prop_map(Value::Text).boxed(),
            FieldType::Bytes => prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..5)
                .prop_map(Value::Bytes)
                .boxed(),
            FieldType::Time => any::<i64>().prop_map(Value::Time).boxed(),
            FieldType::Json => "\"[a-z]{0,3}\"".prop_map(Value::Json).boxed(),
        }
    }

    fn field(field_type: FieldType, optional: bool) -> Field {
        Field {
            name: "f".into(),
            field_type,
            optional,
        }
    }

    /// Fields, and two rows of values for them; `null` says whether a cell may be null.
    fn rows(null: bool) -> impl Strategy<Value = (Vec<Field>, Vec<Value>, Vec<Value>)> {
        let field = (prop::sample::select(&TYPES[..]), any::<bool>())
            .prop_map(move |(field_type, optional)| field(field_type, null && optional));
        prop::collection::vec(field, 1..4).prop_flat_map(move |fields| {
            let one = |field: &Field| {
                if field.optional {
                    prop_oneof![Just(Value::Null), value(field.field_type)].boxed()
                } else {
                    value(field.field_type)
                }
            };
            let row: Vec<_> = fields.iter().map(one).collect();
            (Just(fields), row.clone(), row)
        })
    }

    fn table(fields: &[Field], rows: &[&[Value]]) -> Table {
        let mut columns: Vec<Column> = fields.iter().map(|_| Column::default()).collect();
        for (row, values) in rows.iter().enumerate() {
            for ((field, column), value) in fields.iter().zip(&mut columns).zip(*values) {
                column.push(field.field_type, row, value.cell());
            }
        }
        Table {
            rows: rows.len() as u32,
            columns,
        }
    }

    fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
        match (a, b) {
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Integer(a), Value::Integer(b)) | (Value::Time(a), Value::Time(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
            (Value::Text(a), Value::Text(b)) | (Value::Json(a), Value::Json(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            _ => unreachable!("of one type"),
        }
    }

    proptest! {
        #[test]
        fn keys_come_back_and_stand_in_the_order_of_their_cells((fields, a, b) in rows(false)) {
            let both = table(&fields, &[&a, &b]);
            let key = |row| { let mut key = Vec::new(); write_key(&fields, &both, row, &mut key); key };
            let (first, second) = (key(0), key(1));
            let cells = a.iter().zip(&b).map(|(a, b)| order(a, b)).find(|o| o.is_ne());
            prop_assert_eq!(first.cmp(&second), cells.unwrap_or(std::cmp::Ordering::Equal));
            let mut columns = table(&fields, &[]).columns;
            prop_assert!(read_key(&fields, &first, 0, &mut columns));
            prop_assert!(read_key(&fields, &second, 1, &mut columns));
            prop_assert_eq!(&columns, &both.columns);
            // The first cells of a key are a prefix of it, and of no other key's bytes by accident.
            let mut prefix = Vec::new();
            write_key(&fields[..1], &both, 0, &mut prefix);
            prop_assert!(first.starts_with(&prefix));
            prop_assert_eq!(second.starts_with(&prefix), order(&a[0], &b[0]).is_eq());
        }

        #[test]
        fn rows_come_back((fields, a, b) in rows(true), schema in 0u32..300, timestamp in any::<i64>()) {
            let both = table(&fields, &[&a, &b]);
            let mut columns = table(&fields, &[]).columns;
            for row in 0..2 {
                let mut bytes = Vec::new();
                write_row(schema, timestamp, &fields, &both, row, &mut bytes);
                let read = RowRef::parse(&bytes).expect("a row");
                prop_assert_eq!((read.schema, read.timestamp_ms), (schema, timestamp));
                prop_assert_eq!(read.cells(&fields).count(), fields.len());
                prop_assert!(read.read(&fields, row, &mut columns));
                // A row that was cut off is none.
                let cut = RowRef::parse(&bytes[..bytes.len() - 1]);
                let mut spare = table(&fields, &[]).columns;
                prop_assert!(cut.is_none_or(|cut| !cut.read(&fields, 0, &mut spare)));
            }
            prop_assert_eq!(&columns, &both.columns);
        }

        #[test]
        fn bytes_that_are_no_key_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), types in prop::collection::vec(prop::sample::select(&TYPES[..]), 1..4)) {
            let fields: Vec<Field> = types.into_iter().map(|t| field(t, false)).collect();
            let mut columns = table(&fields, &[]).columns;
            if read_key(&fields, &bytes, 0, &mut columns) {
                let read = Table { rows: 1, columns };
                let mut again = Vec::new();
                write_key(&fields, &read, 0, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn starts_of_windows_stand_in_their_order() {
        let mut before = Vec::new();
        for start in [i64::MIN, -1, 0, 1, 60_000, i64::MAX] {
            let mut key = Vec::new();
            write_start(start, &mut key);
            key.extend_from_slice(b"k");
            assert_eq!(read_start(&key), Some((start, &b"k"[..])));
            assert!(key > before);
            before = key;
        }
        assert_eq!(read_start(b"short"), None);
    }
}
