//! Changes of a store as records that other programs read as a table: the key a key, the value the row, null where the
//! row was deleted.
//!
//! ```text
//! key     of a group the key of its records, as it is; of a group with a window 2024-05-01T12:00:00.000Z|KEY, so that keys
//!         stand in the order of their windows (before the year 0 ! and behind 9999 ~ with 16 digits, in place of the time);
//!         of a store with one text field the text; else JSON: the value of one field, an object of several
//! value   a JSON object of the row's fields in their order, of a group with a window after window_start and window_end; or
//!         the byte 00 and the row as `codec` has it
//! time    of the row
//! header  schema: the number of the version of the store's fields, in decimal; 0 where it is missing
//! ```
//!
//! What was encoded is decoded to the same bytes. So what JSON has no value for is written as a string where a string can
//! be nothing else: floats as `"NaN"`, `"inf"`, `"-inf"` (a NaN of other bits as `"NaN:7ff8000000000001"`), and the text
//! of a `json` field that would not come back from within an object as `{"$json":"…"}`. Rows with a time up to 1970, which
//! a record cannot have, and those that would become too large, are written as bytes.

use super::codec::{
    RowRef, WINDOW_BYTES, decode_time, encode_time, read_key_cell, read_start, write_key_cell, write_row_cell,
    write_row_head, write_start,
};
use crate::connect::{StoreSchema, TopicRole};
use crate::format::{Scanner, Scratch, read_json, read_time, unquote, validate, write_json, write_string, write_time};
use crate::limits::TABLE_VALUE_BYTES_MAX;
use crate::record::RecordRef;
use crate::schema::{Field, FieldType};
use crate::table::Cell;

/// The header that has the number of the fields' version.
pub const SCHEMA_HEADER: &str = "schema";
/// What a value that is the row's bytes begins with, and JSON does not.
const BINARY: u8 = 0;
/// What a `json` field's text begins with that stands in a string.
const WRAPPED: &str = "{\"$json\":";
/// Between a window's start and the key.
const WINDOW_END: u8 = b'|';
/// A time with milliseconds.
const TIME_TEXT_BYTES: usize = 24;

/// How values are written. Both are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableForm {
    /// JSON objects.
    #[default]
    Json,
    /// The rows' bytes: shorter, and read by nobody else.
    Binary,
}

/// Turns the changes of one store into records and back.
#[derive(Debug)]
pub struct TableCodec {
    key: Vec<Field>,
    window_size_ms: Option<i64>,
    /// By the number of the schema.
    values: Vec<Value>,
    form: TableForm,
}

/// The fields of one version of a store.
#[derive(Debug)]
struct Value {
    fields: Vec<Field>,
    /// For each field `,"name":`.
    members: Vec<Vec<u8>>,
    /// Whether the window stands before them: not where a field has its name.
    has_window: bool,
}

/// Buffers of a codec, kept from record to record.
#[derive(Debug, Default)]
pub struct TableBuffers {
    key: Vec<u8>,
    value: Vec<u8>,
    text: Vec<u8>,
    schema: Vec<u8>,
    scratch: Scratch,
    /// For each field where its text lies in the value.
    spans: Vec<(usize, usize)>,
    window: WindowText,
}

/// The start of a window as text: rows of one window come together.
#[derive(Debug, Default)]
struct WindowText {
    start_ms: i64,
    /// What keys begin with; empty where there is none yet.
    prefix: Vec<u8>,
    /// `,"window_start":…,"window_end":…`
    members: Vec<u8>,
}

/// A change as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRecord<'b> {
    /// The record's key.
    pub key: &'b [u8],
    /// Its value; null where the row was deleted.
    pub value: Option<&'b [u8]>,
    /// Milliseconds since the epoch, at least 1: clients take 0 for the time of now.
    pub timestamp_ms: i64,
    /// The value of the header [`SCHEMA_HEADER`], where there is to be one.
    pub schema: Option<&'b [u8]>,
}

/// A record that no store wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The key.
    #[error("its key is none of the store")]
    Key,
    /// The record has no key.
    #[error("it has no key")]
    NoKey,
    /// The value.
    #[error("its value is no row of the store: {0}")]
    Value(String),
    /// Written by a version of the plugin that is not known here.
    #[error("its fields are those of version {0} of the store, which the catalog does not know")]
    Schema(u32),
}

impl TableCodec {
    /// For the store whose changelog has this role; `None` where that is none.
    pub fn of(role: &TopicRole, form: TableForm) -> Option<TableCodec> {
        match role {
            TopicRole::Changelog { schemas, .. } => TableCodec::of_schemas(schemas, form),
            TopicRole::Repartition { .. } => None,
        }
    }

    /// For a store of these schemas; `None` where there is none.
    pub fn of_schemas(schemas: &[StoreSchema], form: TableForm) -> Option<TableCodec> {
        let last = schemas.last()?;
        let windowed = last.window_size_ms.is_some();
        Some(TableCodec {
            key: last.key.clone(),
            window_size_ms: last.window_size_ms,
            values: schemas
                .iter()
                .map(|schema| Value::new(&schema.value, windowed))
                .collect(),
            form,
        })
    }

    /// How many versions of the store's fields it knows.
    pub fn schemas(&self) -> usize {
        self.values.len()
    }

    /// A change of a store as a record.
    ///
    /// # Panics
    /// Where the key is none of the store: only a task gives one, which made it.
    pub fn encode<'b>(&self, change: RecordRef<'b>, buffers: &'b mut TableBuffers) -> TableRecord<'b> {
        let TableBuffers {
            key: key_out,
            value: value_out,
            text,
            schema: schema_out,
            window,
            ..
        } = buffers;
        let change_key = change.key.expect("a change has a key");
        let key = self
            .encode_key(change_key, key_out, text, window)
            .expect("a task writes keys of its store");
        let mut record = TableRecord {
            key,
            value: None,
            timestamp_ms: change.timestamp_ms.max(1),
            schema: None,
        };
        let Some(bytes) = change.value else {
            return record;
        };
        value_out.clear();
        match self.encode_row(bytes, window, value_out) {
            Some(0) => {}
            Some(schema) => {
                schema_out.clear();
                schema_out.extend_from_slice(schema.to_string().as_bytes());
                record.schema = Some(schema_out);
            }
            None => {
                value_out.clear();
                value_out.push(BINARY);
                value_out.extend_from_slice(bytes);
            }
        }
        record.value = Some(value_out);
        record
    }

    /// Appends the row as JSON and says its schema; `None` where it is to be written as bytes.
    fn encode_row(&self, bytes: &[u8], window: &WindowText, out: &mut Vec<u8>) -> Option<u32> {
        if self.form == TableForm::Binary {
            return None;
        }
        let row = RowRef::parse(bytes).filter(|row| row.timestamp_ms > 0)?;
        let value = self.values.get(row.schema as usize)?;
        if value.has_window {
            out.extend_from_slice(&window.members);
        }
        let mut members = value.members.iter();
        let is_row = row.each(&value.fields, |field, cell| {
            if let Some(member) = members.next() {
                out.extend_from_slice(member);
                write_cell(field.field_type, cell, out);
            }
        });
        match out.first_mut() {
            Some(first) => *first = b'{',
            None => out.push(b'{'),
        }
        out.push(b'}');
        (is_row && out.len() <= TABLE_VALUE_BYTES_MAX).then_some(row.schema)
    }

    fn encode_key<'b>(
        &self,
        mut key: &'b [u8],
        out: &'b mut Vec<u8>,
        text: &mut Vec<u8>,
        window: &mut WindowText,
    ) -> Option<&'b [u8]> {
        if let Some(size_ms) = self.window_size_ms {
            let (start_ms, rest) = read_start(key)?;
            window.set(start_ms, size_ms);
            out.clear();
            out.extend_from_slice(&window.prefix);
            out.extend_from_slice(rest);
            return Some(out);
        }
        if self.key.is_empty() {
            return Some(key);
        }
        out.clear();
        if let [field] = self.key.as_slice() {
            let cell = read_key_cell(field.field_type, &mut key, text)?;
            match cell {
                Cell::Text(text) => out.extend_from_slice(text.as_bytes()),
                cell => write_cell(field.field_type, cell, out),
            }
        } else {
            for (at, field) in self.key.iter().enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                write_string(out, &field.name);
                out.push(b':');
                let cell = read_key_cell(field.field_type, &mut key, text)?;
                write_cell(field.field_type, cell, out);
            }
            out.push(b'}');
        }
        key.is_empty().then_some(out)
    }

    /// The change that a record stands for: the key, and the row or none where it was deleted.
    ///
    /// # Errors
    /// Where no store wrote the record.
    pub fn decode<'b>(
        &self,
        record: RecordRef<'_>,
        buffers: &'b mut TableBuffers,
    ) -> Result<(&'b [u8], Option<&'b [u8]>), TableError> {
        let TableBuffers {
            key,
            value,
            scratch,
            spans,
            ..
        } = buffers;
        key.clear();
        let bytes = record.key.ok_or(TableError::NoKey)?;
        self.decode_key(bytes, key, scratch, spans).ok_or(TableError::Key)?;
        let Some(bytes) = record.value else {
            return Ok((key, None));
        };
        value.clear();
        self.decode_value(record, bytes, value, scratch, spans)?;
        Ok((key, Some(value)))
    }

    /// Appends the key, as the store has it, of a record's key; `None` where it is none of the store.
    pub fn key_of(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.decode_key(key, &mut out, &mut Scratch::default(), &mut Vec::new())?;
        Some(out)
    }

    fn decode_key(
        &self,
        key: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
        spans: &mut Vec<(usize, usize)>,
    ) -> Option<()> {
        if self.window_size_ms.is_some() {
            let (start_ms, rest) = read_window(key)?;
            write_start(start_ms, out);
            out.extend_from_slice(rest);
            return Some(());
        }
        match self.key.as_slice() {
            [] => out.extend_from_slice(key),
            [field] => {
                let text = std::str::from_utf8(key).ok()?;
                let cell = match field.field_type {
                    FieldType::Text => Cell::Text(text),
                    field_type => read_cell(text, field_type, scratch).ok()?,
                };
                if cell == Cell::Null {
                    return None;
                }
                write_key_cell(cell, out);
            }
            fields => {
                let text = std::str::from_utf8(key).ok()?;
                spans_of(text, fields, spans).ok()?;
                for (field, &(from, to)) in fields.iter().zip(&*spans) {
                    match read_cell(&text[from..to], field.field_type, scratch).ok()? {
                        Cell::Null => return None,
                        cell => write_key_cell(cell, out),
                    }
                }
            }
        }
        Some(())
    }

    fn decode_value(
        &self,
        record: RecordRef<'_>,
        bytes: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
        spans: &mut Vec<(usize, usize)>,
    ) -> Result<(), TableError> {
        if let Some((&BINARY, row)) = bytes.split_first() {
            let parsed = RowRef::parse(row).ok_or_else(|| TableError::Value("its head is cut off".into()))?;
            let value = self.value(parsed.schema)?;
            if !parsed.each(&value.fields, |_, _| {}) {
                return Err(TableError::Value("its bytes are not those of its fields".into()));
            }
            out.extend_from_slice(row);
            return Ok(());
        }
        let schema = read_schema(record)?;
        let value = self.value(schema)?;
        let text = std::str::from_utf8(bytes).map_err(|_| TableError::Value("it is no UTF-8".into()))?;
        spans_of(text, &value.fields, spans).map_err(TableError::Value)?;
        write_row_head(schema, record.timestamp_ms, out);
        for (field, &(from, to)) in value.fields.iter().zip(&*spans) {
            let named = |why: String| {
                TableError::Value(format!(
                    "the field {:?} is of type {}, but {why}",
                    field.name, field.field_type
                ))
            };
            let cell = match &text[from..to] {
                "" => Cell::Null,
                text => read_cell(text, field.field_type, scratch).map_err(named)?,
            };
            if cell == Cell::Null && !field.optional {
                return Err(named("it is not there".into()));
            }
            write_row_cell(field, cell, out);
        }
        Ok(())
    }

    fn value(&self, schema: u32) -> Result<&Value, TableError> {
        self.values.get(schema as usize).ok_or(TableError::Schema(schema))
    }
}

impl Value {
    fn new(fields: &[Field], windowed: bool) -> Value {
        let member = |field: &Field| {
            let mut member = vec![b','];
            write_string(&mut member, &field.name);
            member.push(b':');
            member
        };
        let is_window = |field: &Field| matches!(field.name.as_str(), "window_start" | "window_end");
        Value {
            fields: fields.to_vec(),
            members: fields.iter().map(member).collect(),
            has_window: windowed && !fields.iter().any(is_window),
        }
    }
}

impl WindowText {
    fn set(&mut self, start_ms: i64, size_ms: i64) {
        if self.start_ms == start_ms && !self.prefix.is_empty() {
            return;
        }
        self.start_ms = start_ms;
        self.prefix.clear();
        write_window(start_ms, &mut self.prefix);
        self.members.clear();
        for (name, time_ms) in [
            ("window_start", start_ms),
            ("window_end", start_ms.saturating_add(size_ms)),
        ] {
            self.members.push(b',');
            write_string(&mut self.members, name);
            self.members.push(b':');
            write_cell(FieldType::Time, Cell::Time(time_ms), &mut self.members);
        }
    }
}

/// Appends the start of a window so that texts stand in the order of the starts.
fn write_window(start_ms: i64, out: &mut Vec<u8>) {
    if write_time(out, start_ms) {
        if out.len() < TIME_TEXT_BYTES {
            out.pop();
            out.extend_from_slice(b".000Z");
        }
    } else {
        out.push(if start_ms < 0 { b'!' } else { b'~' });
        let hex = format!("{:016x}", u64::from_be_bytes(encode_time(start_ms)));
        out.extend_from_slice(hex.as_bytes());
    }
    out.push(WINDOW_END);
}

/// The start of a window at the front of a record's key, and what is behind it.
fn read_window(key: &[u8]) -> Option<(i64, &[u8])> {
    let is_time = key.first()?.is_ascii_digit();
    let length = if is_time { TIME_TEXT_BYTES } else { 1 + 2 * WINDOW_BYTES };
    let (start, rest) = key.split_at_checked(length)?;
    let rest = rest.strip_prefix(&[WINDOW_END])?;
    let text = std::str::from_utf8(start).ok()?;
    let start_ms = if is_time {
        read_time(text)?
    } else {
        decode_time(u64::from_str_radix(text.get(1..)?, 16).ok()?.to_be_bytes())
    };
    let mut again = Vec::with_capacity(length + 1);
    write_window(start_ms, &mut again);
    key.starts_with(&again).then_some((start_ms, rest))
}

fn read_schema(record: RecordRef<'_>) -> Result<u32, TableError> {
    if record.headers.is_empty() {
        return Ok(0);
    }
    let Some(number) = record.headers.last(SCHEMA_HEADER) else {
        return Ok(0);
    };
    let number = number.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let number = number.and_then(|text| text.parse().ok());
    number.ok_or_else(|| TableError::Value(format!("its header {SCHEMA_HEADER:?} is no number")))
}

/// Appends a cell so that it comes back as it is.
#[inline]
fn write_cell(field_type: FieldType, cell: Cell<'_>, out: &mut Vec<u8>) {
    match cell {
        Cell::Float(value) if !value.is_finite() => write_odd_float(value, out),
        Cell::Json(text) => write_json_text(text, out),
        cell => {
            let start = out.len();
            if write_json(out, cell).is_err() {
                // A time beyond what RFC 3339 has.
                out.truncate(start);
                if let Cell::Time(value) = cell {
                    out.extend_from_slice(value.to_string().as_bytes());
                } else {
                    debug_assert!(false, "a cell of type {field_type} that is not JSON");
                }
            }
        }
    }
}

#[cold]
fn write_odd_float(value: f64, out: &mut Vec<u8>) {
    let text = if value.to_bits() == f64::NAN.to_bits() {
        "NaN".to_owned()
    } else if value.is_nan() {
        format!("NaN:{:016x}", value.to_bits())
    } else {
        value.to_string()
    };
    write_string(out, &text);
}

fn read_odd_float(text: &str) -> Option<f64> {
    Some(match text {
        "NaN" => f64::NAN,
        "inf" => f64::INFINITY,
        "-inf" => f64::NEG_INFINITY,
        bits => f64::from_bits(u64::from_str_radix(bits.strip_prefix("NaN:")?, 16).ok()?),
    })
}

fn write_json_text(text: &str, out: &mut Vec<u8>) {
    let comes_back =
        text != "null" && text.trim_ascii() == text && !text.starts_with(WRAPPED) && validate(text, 1).is_ok();
    if comes_back {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(WRAPPED.as_bytes());
        write_string(out, text);
        out.push(b'}');
    }
}

/// Reads a cell; `null` is a null cell.
fn read_cell<'c>(text: &'c str, field_type: FieldType, scratch: &'c mut Scratch) -> Result<Cell<'c>, String> {
    match field_type {
        FieldType::Float if text.starts_with('"') => {
            let value = read_odd_float(text.trim_matches('"'));
            value.map(Cell::Float).ok_or_else(|| format!("{text} was found"))
        }
        FieldType::Json if text.starts_with(WRAPPED) => {
            let quoted = text.strip_prefix(WRAPPED).and_then(|rest| rest.strip_suffix('}'));
            let quoted = quoted.ok_or("its string does not end")?;
            unquote(quoted, scratch.text()).map(Cell::Json)
        }
        field_type => read_json(text, field_type, scratch),
    }
}

/// Where the text of each field lies in a JSON object; empty where it is not there.
fn spans_of(text: &str, fields: &[Field], spans: &mut Vec<(usize, usize)>) -> Result<(), String> {
    spans.clear();
    spans.resize(fields.len(), (0, 0));
    let mut scanner = Scanner::new(text);
    scanner.space();
    if scanner.peek() != b'{' {
        return Err("it is no JSON object".into());
    }
    let mut scratch = String::new();
    let mut walk = || {
        let mut expected = 0;
        let mut more = scanner.open(b'}', 0)?;
        while more {
            let name_at = scanner.at;
            let name = scanner.name()?;
            let from = scanner.at;
            scanner.value(1)?;
            let name = match name.escaped {
                false => &text[name.start..name.end],
                true => unquote(&text[name_at..name.end + 1], &mut scratch).unwrap_or_default(),
            };
            let is_expected = fields.get(expected).is_some_and(|field| field.name == name);
            let at = is_expected.then_some(expected);
            if let Some(at) = at.or_else(|| fields.iter().position(|field| field.name == name)) {
                spans[at] = (from, scanner.at);
                expected = at + 1;
            }
            more = scanner.next(b'}')?;
        }
        scanner.end()
    };
    walk().map_err(|error| error.describe(text))
}

#[cfg(test)]
mod tests;
