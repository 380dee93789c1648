//! Records to tables.

use super::cell::{self, Scratch};
use super::csv::{self, CsvError, CsvOptions};
use super::project::{Projection, Span};
use super::{Format, FormatError, Part, check_place, check_type, pointer, refuse};
use crate::record::RecordRef;
use crate::schema::{FieldType, MappedField, Place};
use crate::table::{Cell, Column, Table};

/// Reads the fields of an input from records of one format.
#[derive(Debug)]
pub struct Decoder {
    fields: Vec<MappedField>,
    sources: Vec<Source>,
    value: Reader,
    key: Reader,
    scratch: Scratch,
}

/// What a batch of records became.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The rows of the records that could be decoded, in their order.
    pub table: Table,
    /// For each row, the index of its record.
    pub rows: Vec<u32>,
    /// The records that could not, in their order.
    pub failed: Vec<Undecodable>,
}

/// A record that is not what the fields say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Its index in the batch.
    pub index: u32,
    /// Why.
    pub error: DecodeError,
}

/// Why a record cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A byte is not UTF-8.
    #[error("the {part} is not UTF-8: byte {at} begins no character")]
    Utf8 {
        /// Value or key.
        part: Part,
        /// Bytes before it.
        at: usize,
    },
    /// The bytes are not of the topic's format.
    #[error("the {part} is not {format}: {problem}")]
    Format {
        /// Value or key.
        part: Part,
        /// The format's name.
        format: &'static str,
        /// What is wrong, and where.
        problem: String,
    },
    /// A field that is not optional has no value.
    #[error("field {field:?} ({place}) of type {field_type} is not optional, but {problem}")]
    Missing {
        /// The field's name.
        field: String,
        /// Where it should be.
        place: Place,
        /// What it should be.
        field_type: FieldType,
        /// Whether it is absent or null, or what it should stand in is.
        problem: &'static str,
    },
    /// A field is of another type.
    #[error("field {field:?} ({place}) is of type {field_type}, but {problem}")]
    Type {
        /// The field's name.
        field: String,
        /// Where it is.
        place: Place,
        /// What it should be.
        field_type: FieldType,
        /// What it is, as it stands there, shortened.
        problem: String,
    },
}

#[derive(Debug)]
enum Source {
    /// The value's span of this number.
    Value(usize),
    /// The key's.
    Key(usize),
    /// As its place says.
    Place,
}

/// Finds spans in values, or keys, of one format.
#[derive(Debug)]
enum Reader {
    /// Nobody asks.
    Unread,
    Json {
        projection: Projection,
        spans: Vec<Span>,
    },
    Csv {
        options: CsvOptions,
        columns: Vec<CsvColumn>,
        cells: Vec<Span>,
        object: Vec<u8>,
    },
    /// Text or raw: the whole of it.
    Whole,
}

#[derive(Debug)]
enum CsvColumn {
    Cell(usize),
    Line,
    Object,
}

impl Decoder {
    /// For the fields of an input that reads a topic of these formats.
    ///
    /// # Errors
    /// A field that can never be found in them.
    pub fn new(value: &Format, key: &Format, fields: &[MappedField]) -> Result<Decoder, FormatError> {
        let (mut in_value, mut in_key) = (Vec::new(), Vec::new());
        let mut sources = Vec::with_capacity(fields.len());
        for mapped in fields {
            check_place(mapped)?;
            sources.push(match &mapped.place {
                Place::Value(pointer) => {
                    in_value.push((mapped, parse(mapped, pointer)?));
                    Source::Value(in_value.len() - 1)
                }
                Place::Key(pointer) => {
                    in_key.push((mapped, parse(mapped, pointer)?));
                    Source::Key(in_key.len() - 1)
                }
                _ => Source::Place,
            });
        }
        Ok(Decoder {
            fields: fields.to_vec(),
            sources,
            value: Reader::new(value, in_value)?,
            key: Reader::new(key, in_key)?,
            scratch: Scratch::default(),
        })
    }

    /// Decodes a batch: one row for each record that is as the fields say.
    pub fn decode(&mut self, records: &[RecordRef<'_>]) -> Decoded {
        let mut decoded = Decoded {
            table: Table {
                rows: 0,
                columns: self
                    .fields
                    .iter()
                    .map(|mapped| Column::with_capacity(mapped.field.field_type, records.len()))
                    .collect(),
            },
            rows: Vec::with_capacity(records.len()),
            failed: Vec::new(),
        };
        if self.fields.is_empty() && self.is_unread() {
            decoded.table.rows = records.len() as u32;
            decoded.rows.extend(0..records.len() as u32);
            return decoded;
        }
        let columns = &mut decoded.table.columns;
        for (index, record) in records.iter().enumerate() {
            match self.record(record, columns, decoded.rows.len()) {
                Ok(()) => decoded.rows.push(index as u32),
                Err(error) => {
                    for (column, mapped) in columns.iter_mut().zip(&self.fields) {
                        column.truncate(mapped.field.field_type, decoded.rows.len());
                    }
                    decoded.failed.push(Undecodable {
                        index: index as u32,
                        error: *error,
                    });
                }
            }
        }
        decoded.table.rows = decoded.rows.len() as u32;
        decoded
    }

    /// Whether nobody asks for anything in values and keys.
    fn is_unread(&self) -> bool {
        matches!((&self.value, &self.key), (Reader::Unread, Reader::Unread))
    }

    /// Appends the cells of a record; after an error some columns have one and some have not.
    fn record(&mut self, record: &RecordRef<'_>, columns: &mut [Column], row: usize) -> Result<(), Box<DecodeError>> {
        let value = self.value.scan(Part::Value, record.value)?;
        let key = self.key.scan(Part::Key, record.key)?;
        for ((mapped, source), column) in self.fields.iter().zip(&self.sources).zip(columns) {
            let field_type = mapped.field.field_type;
            let found = match source {
                Source::Value(slot) => self.value.cell(value, *slot, mapped, &mut self.scratch),
                Source::Key(slot) => self.key.cell(key, *slot, mapped, &mut self.scratch),
                Source::Place => beside(record, mapped),
            };
            match found {
                Ok(Cell::Null) if !mapped.field.optional => return Err(self.missing(record, mapped, source)),
                Ok(cell) => column.push(field_type, row, cell),
                Err(problem) => {
                    return Err(Box::new(DecodeError::Type {
                        field: mapped.field.name.clone(),
                        place: mapped.place.clone(),
                        field_type,
                        problem,
                    }));
                }
            }
        }
        Ok(())
    }

    #[cold]
    fn missing(&self, record: &RecordRef<'_>, mapped: &MappedField, source: &Source) -> Box<DecodeError> {
        let absent = match source {
            Source::Value(_) if record.value.is_none() => "the value is null (a tombstone)",
            Source::Key(_) if record.key.is_none() => "the key is null",
            Source::Value(slot) => self.value.absence(*slot),
            Source::Key(slot) => self.key.absence(*slot),
            Source::Place => match &mapped.place {
                Place::Header(name) if record.headers.last(name).is_none() => "there is no such header",
                Place::Header(_) => "the header is null",
                Place::RawKey => "the key is null",
                _ => "the value is null (a tombstone)",
            },
        };
        Box::new(DecodeError::Missing {
            field: mapped.field.name.clone(),
            place: mapped.place.clone(),
            field_type: mapped.field.field_type,
            problem: absent,
        })
    }
}

fn parse(mapped: &MappedField, pointer: &str) -> Result<Vec<String>, FormatError> {
    pointer::parse(pointer).map_err(|problem| refuse(mapped, problem))
}

/// The cell of a field outside of the decoded value and key.
fn beside<'r>(record: &RecordRef<'r>, mapped: &MappedField) -> Result<Cell<'r>, String> {
    let bytes = |bytes: Option<&'r [u8]>| Ok(bytes.map_or(Cell::Null, Cell::Bytes));
    match &mapped.place {
        Place::RawValue => bytes(record.value),
        Place::RawKey => bytes(record.key),
        Place::Header(name) => match record.headers.last(name).flatten() {
            None => Ok(Cell::Null),
            Some(value) if mapped.field.field_type == FieldType::Bytes => Ok(Cell::Bytes(value)),
            Some(value) => match std::str::from_utf8(value) {
                Ok(text) => Ok(Cell::Text(text)),
                Err(error) => Err(format!(
                    "the header is not UTF-8: byte {} begins no character",
                    error.valid_up_to()
                )),
            },
        },
        Place::Timestamp => Ok(Cell::Time(record.timestamp_ms)),
        Place::Offset => Ok(Cell::Integer(i64::try_from(record.offset).unwrap_or(i64::MAX))),
        Place::Tombstone => Ok(Cell::Boolean(record.value.is_none())),
        Place::Value(_) | Place::Key(_) => Ok(Cell::Null),
    }
}

/// The bytes that a reader reads: text where its format is.
#[derive(Clone, Copy)]
enum Content<'r> {
    Null,
    Text(&'r str),
    Bytes(&'r [u8]),
}

impl Reader {
    fn new(format: &Format, fields: Vec<(&MappedField, Vec<String>)>) -> Result<Reader, FormatError> {
        if fields.is_empty() {
            return Ok(Reader::Unread);
        }
        match format {
            Format::Json => {
                let pointers: Vec<_> = fields.into_iter().map(|(_, pointer)| pointer).collect();
                Ok(Reader::Json {
                    projection: Projection::new(&pointers),
                    spans: Vec::new(),
                })
            }
            Format::Csv(options) => {
                check_options(options)?;
                let columns = fields
                    .iter()
                    .map(|(mapped, pointer)| csv_column(options, mapped, pointer));
                Ok(Reader::Csv {
                    columns: columns.collect::<Result<_, _>>()?,
                    options: options.clone(),
                    cells: Vec::new(),
                    object: Vec::new(),
                })
            }
            Format::Raw | Format::Text => {
                for (mapped, pointer) in &fields {
                    if !pointer.is_empty() {
                        let problem =
                            format!("the topic's format is {format}, which has no members: only \"\", all of it");
                        return Err(refuse(mapped, problem));
                    }
                    if *format == Format::Raw {
                        check_type(mapped, &[FieldType::Bytes, FieldType::Text])?;
                    } else if mapped.field.field_type == FieldType::Json {
                        return Err(refuse(
                            mapped,
                            "the topic's format is text; set it to json to read JSON",
                        ));
                    }
                }
                Ok(Reader::Whole)
            }
        }
    }

    /// Finds all spans in a value or key.
    #[inline]
    fn scan<'r>(&mut self, part: Part, bytes: Option<&'r [u8]>) -> Result<Content<'r>, Box<DecodeError>> {
        let Some(bytes) = bytes else {
            return Ok(Content::Null);
        };
        match self {
            Reader::Unread => Ok(Content::Null),
            Reader::Whole => Ok(Content::Bytes(bytes)),
            Reader::Json { projection, spans } => {
                let text = utf8(part, bytes)?;
                match projection.scan(text, spans) {
                    Ok(()) => Ok(Content::Text(text)),
                    Err(error) => Err(wrong(part, "JSON", error.describe(text))),
                }
            }
            Reader::Csv {
                options,
                columns,
                cells,
                object,
            } => {
                let text = utf8(part, bytes)?;
                if let Err(error) = csv::split(text, options.delimiter, options.columns.len(), cells) {
                    return Err(wrong(part, "CSV", describe(error)));
                }
                if columns.iter().any(|column| matches!(column, CsvColumn::Object)) {
                    object.clear();
                    csv_object(object, text, options, cells);
                }
                Ok(Content::Text(text))
            }
        }
    }

    #[inline]
    fn cell<'c>(
        &'c self,
        content: Content<'c>,
        slot: usize,
        mapped: &MappedField,
        scratch: &'c mut Scratch,
    ) -> Result<Cell<'c>, String> {
        let field_type = mapped.field.field_type;
        match (self, content) {
            (Reader::Json { spans, .. }, Content::Text(text)) => match spans[slot].of(text) {
                None => Ok(Cell::Null),
                Some(text) => cell::read_json(text, field_type, scratch),
            },
            (
                Reader::Csv {
                    columns, cells, object, ..
                },
                Content::Text(line),
            ) => match columns[slot] {
                CsvColumn::Line if field_type == FieldType::Bytes => Ok(Cell::Bytes(line.as_bytes())),
                CsvColumn::Line => Ok(Cell::Text(line)),
                CsvColumn::Object => Ok(Cell::Json(std::str::from_utf8(object).unwrap_or_default())),
                CsvColumn::Cell(column) => {
                    let cell = csv::content(cells[column].of(line).unwrap_or_default());
                    read_plain(scratch.keep(cell), mapped, mapped.field.optional)
                }
            },
            (Reader::Whole, Content::Bytes(bytes)) if field_type == FieldType::Bytes => Ok(Cell::Bytes(bytes)),
            (Reader::Whole, Content::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => read_plain(text, mapped, false),
                Err(error) => Err(format!("byte {} begins no UTF-8 character", error.valid_up_to())),
            },
            _ => Ok(Cell::Null),
        }
    }

    /// Why the cell is null, though the value or key is not.
    fn absence(&self, slot: usize) -> &'static str {
        match self {
            Reader::Json { spans, .. } if spans[slot] == Span::ABSENT => "there is no such member",
            Reader::Json { .. } => "the member is null",
            _ => "it is empty",
        }
    }
}

/// Text without quotes: an empty one is null where that is said, and for types that have no empty value.
fn read_plain<'c>(text: &'c str, mapped: &MappedField, empty_is_null: bool) -> Result<Cell<'c>, String> {
    let characters = matches!(mapped.field.field_type, FieldType::Text | FieldType::Bytes);
    if text.is_empty() && (empty_is_null || !characters) {
        return Ok(Cell::Null);
    }
    cell::read_text(text, mapped.field.field_type)
}

#[inline]
fn utf8(part: Part, bytes: &[u8]) -> Result<&str, Box<DecodeError>> {
    std::str::from_utf8(bytes).map_err(|error| {
        Box::new(DecodeError::Utf8 {
            part,
            at: error.valid_up_to(),
        })
    })
}

#[cold]
fn wrong(part: Part, format: &'static str, problem: String) -> Box<DecodeError> {
    Box::new(DecodeError::Format { part, format, problem })
}

pub(super) fn describe(error: CsvError) -> String {
    match error {
        CsvError::Columns { expected, found } => format!("{expected} columns expected, {found} found"),
        CsvError::Lines(at) => format!("one line expected, but it ends at byte {at} and more follows"),
        CsvError::Open(at) => format!("the cell that begins at byte {at} has no closing quote"),
        CsvError::Behind(at) => format!("a delimiter is expected behind the closing quote, at byte {at}"),
    }
}

fn check_options(options: &CsvOptions) -> Result<(), FormatError> {
    if !options.delimiter.is_ascii() || matches!(options.delimiter, b'"' | b'\n' | b'\r') {
        let problem = format!(
            "the CSV delimiter {:?} is no ASCII character that can stand between cells",
            options.delimiter as char
        );
        return Err(FormatError::Options(problem));
    }
    if options.columns.is_empty() {
        return Err(FormatError::Options(
            "the CSV format has no columns: name them in their order".into(),
        ));
    }
    match (1..options.columns.len()).find(|&at| options.columns[..at].contains(&options.columns[at])) {
        None => Ok(()),
        Some(at) => Err(FormatError::Options(format!(
            "the CSV column {:?} is named twice",
            options.columns[at]
        ))),
    }
}

fn csv_column(options: &CsvOptions, mapped: &MappedField, pointer: &[String]) -> Result<CsvColumn, FormatError> {
    match pointer {
        [] if mapped.field.field_type == FieldType::Json => Ok(CsvColumn::Object),
        [] => check_type(mapped, &[FieldType::Json, FieldType::Text, FieldType::Bytes]).map(|()| CsvColumn::Line),
        [name] => {
            if mapped.field.field_type == FieldType::Json {
                return Err(refuse(
                    mapped,
                    "a CSV cell is not read as JSON; only \"\", all of the line, is",
                ));
            }
            match options.columns.iter().position(|column| column == name) {
                Some(column) => Ok(CsvColumn::Cell(column)),
                None => Err(refuse(mapped, unknown_column(name, &options.columns))),
            }
        }
        _ => Err(refuse(mapped, "a CSV cell has no members: a place is \"/column\"")),
    }
}

fn unknown_column(name: &str, columns: &[String]) -> String {
    const LIKENESS_MIN: f64 = 0.7;
    let nearest = columns
        .iter()
        .map(|column| {
            (
                strsim::jaro_winkler(&column.to_lowercase(), &name.to_lowercase()),
                column,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, column)) if likeness >= LIKENESS_MIN => {
            format!("the CSV has no column {name:?}; did you mean {column:?}?")
        }
        _ => format!("the CSV has no column {name:?}; it has {}", columns.join(", ")),
    }
}

/// Appends a line, of which `cells` are the spans, as a JSON object.
pub(super) fn csv_object(out: &mut Vec<u8>, line: &str, options: &CsvOptions, cells: &[Span]) {
    let row = cells.iter().map(|cell| csv::content(cell.of(line).unwrap_or_default()));
    csv::write_object(out, options.columns.iter().map(String::as_str).zip(row), true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::schema::Field;
    use FieldType::{Boolean, Bytes, Float, Integer, Json, Text, Time};
    use proptest::prelude::*;

    fn field(name: &str, field_type: FieldType, optional: bool, place: Place) -> MappedField {
        MappedField {
            field: Field {
                name: name.into(),
                field_type,
                optional,
            },
            place,
        }
    }

    fn in_value(field_type: FieldType, optional: bool, pointer: &str) -> MappedField {
        field("f", field_type, optional, Place::Value(pointer.into()))
    }

    fn csv(columns: &[&str]) -> Format {
        Format::Csv(CsvOptions {
            columns: columns.iter().map(ToString::to_string).collect(),
            delimiter: b',',
        })
    }

    /// One field of one value: its cell as it would be printed, or the error.
    fn one(format: &Format, mapped: &MappedField, value: Option<&[u8]>) -> Result<String, String> {
        let record = Record {
            value: value.map(<[u8]>::to_vec),
            ..Record::default()
        };
        let mut decoder =
            Decoder::new(format, &Format::Text, std::slice::from_ref(mapped)).map_err(|error| error.to_string())?;
        let decoded = decoder.decode(&[record.at(0)]);
        assert_eq!(
            decoded.table.check(std::slice::from_ref(&mapped.field)),
            Ok(()),
            "the contract's rules hold"
        );
        match decoded.failed.first() {
            Some(failed) => Err(failed.error.to_string()),
            None => Ok(format!(
                "{:?}",
                decoded.table.columns[0].cell(mapped.field.field_type, 0)
            )),
        }
    }

    fn assert_one(format: &Format, mapped: &MappedField, value: Option<&[u8]>, expected: Result<&str, &str>) {
        let shown = value.map(String::from_utf8_lossy);
        match (one(format, mapped, value), expected) {
            (Ok(cell), Ok(expected)) => assert_eq!(cell, expected, "{format} {mapped:?} {shown:?}"),
            (Err(error), Err(message)) => assert!(error.contains(message), "{error:?} does not say {message:?}"),
            (found, expected) => panic!("{format} {mapped:?} {shown:?}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn every_type_is_read_from_every_format() {
        let c = csv(&["a", "b"]);
        let (j, t, r) = (Format::Json, Format::Text, Format::Raw);
        type Case<'c> = (&'c Format, FieldType, &'c str, &'c [u8], Result<&'c str, &'c str>);
        let cases: &[Case<'_>] = &[
            (&j, Boolean, "/a", br#"{"a":true}"#, Ok("Boolean(true)")),
            (&j, Integer, "/a", br#"{"a":12}"#, Ok("Integer(12)")),
            (&j, Float, "/a", br#"{"a":12}"#, Ok("Float(12.0)")),
            (&j, Text, "/a", br#"{"a":"\u00e9"}"#, Ok("Text(\"é\")")),
            (&j, Bytes, "/a", br#"{"a":"/w=="}"#, Ok("Bytes([255])")),
            (&j, Time, "/a", br#"{"a":"1970-01-01T00:00:01Z"}"#, Ok("Time(1000)")),
            (&j, Json, "/a", br#"{"a": [1, 2] }"#, Ok("Json(\"[1, 2]\")")),
            (&j, Json, "", b" {} ", Ok("Json(\"{}\")")),
            (&j, Integer, "", b"5", Ok("Integer(5)")),
            (&j, Integer, "/a/1/b", br#"{"a":[0,{"b":7}]}"#, Ok("Integer(7)")),
            (&c, Boolean, "/a", b"true,", Ok("Boolean(true)")),
            (&c, Integer, "/a", b"1.0,", Ok("Integer(1)")),
            (&c, Float, "/b", b",1.50", Ok("Float(1.5)")),
            (&c, Text, "/a", b"\"x,\"\"y\"\"\",", Ok("Text(\"x,\\\"y\\\"\")")),
            (&c, Bytes, "/a", "é,".as_bytes(), Ok("Bytes([195, 169])")),
            (&c, Time, "/a", b"2020-07-01 00:25:32,", Ok("Time(1593563132000)")),
            (
                &c,
                Json,
                "",
                b"1.50,\r\n",
                Ok("Json(\"{\\\"a\\\":1.50,\\\"b\\\":null}\")"),
            ),
            (&c, Text, "", b"1,2", Ok("Text(\"1,2\")")),
            (&c, Bytes, "", b"1,2", Ok("Bytes([49, 44, 50])")),
            (&c, Json, "/a", b"1,2", Err("a CSV cell is not read as JSON")),
            (
                &c,
                Float,
                "",
                b"1,2",
                Err("its type is float, but this place has json or text or bytes"),
            ),
            (&c, Float, "/a/b", b"1,2", Err("a CSV cell has no members")),
            (&t, Boolean, "", b"1", Ok("Boolean(true)")),
            (&t, Integer, "", b"-5", Ok("Integer(-5)")),
            (&t, Float, "", b"1e3", Ok("Float(1000.0)")),
            (&t, Text, "", "é".as_bytes(), Ok("Text(\"é\")")),
            (&t, Bytes, "", b"x", Ok("Bytes([120])")),
            (&t, Time, "", b"1000", Ok("Time(1000)")),
            (&t, Json, "", b"{}", Err("set it to json")),
            (
                &t,
                Text,
                "/a",
                b"{}",
                Err("the topic's format is text, which has no members"),
            ),
            (&r, Bytes, "", b"\xff", Ok("Bytes([255])")),
            (&r, Text, "", b"a", Ok("Text(\"a\")")),
            (&r, Text, "", b"a\xff", Err("byte 1 begins no UTF-8 character")),
            (
                &r,
                Integer,
                "",
                b"1",
                Err("its type is integer, but this place has bytes or text"),
            ),
            (
                &r,
                Bytes,
                "/a",
                b"",
                Err("the topic's format is raw, which has no members"),
            ),
            (&j, Text, "a", b"{}", Err("write \"/a\"")),
        ];
        for (format, field_type, pointer, value, expected) in cases {
            assert_one(format, &in_value(*field_type, false, pointer), Some(value), *expected);
        }
    }

    #[test]
    fn null_and_absent_and_wrong_are_told_apart() {
        let c = csv(&["a", "b"]);
        for field_type in [Boolean, Integer, Float, Text, Bytes, Time, Json] {
            let (optional, required) = (in_value(field_type, true, "/a"), in_value(field_type, false, "/a"));
            let cases: &[(&Format, Option<&[u8]>, &str)] = &[
                (&Format::Json, None, "the value is null (a tombstone)"),
                (&Format::Json, Some(b"{}"), "there is no such member"),
                (&Format::Json, Some(b"{\"a\":null}"), "the member is null"),
                (&Format::Json, Some(b"[]"), "there is no such member"),
                (&c, None, "the value is null (a tombstone)"),
            ];
            for (format, value, problem) in cases {
                if **format == c && field_type == Json {
                    continue;
                }
                assert_one(format, &optional, *value, Ok("Null"));
                let message = format!("field \"f\" (value:/a) of type {field_type} is not optional, but {problem}");
                assert_one(format, &required, *value, Err(&message));
            }
            if field_type == Json {
                continue;
            }
            assert_one(&c, &optional, Some(b",x"), Ok("Null"));
            let whole = |optional| in_value(field_type, optional, "");
            match field_type {
                Text => {
                    assert_one(&c, &required, Some(b",x"), Ok("Text(\"\")"));
                    assert_one(&Format::Text, &whole(true), Some(b""), Ok("Text(\"\")"));
                }
                Bytes => {
                    assert_one(&c, &required, Some(b",x"), Ok("Bytes([])"));
                    assert_one(&Format::Raw, &whole(true), Some(b""), Ok("Bytes([])"));
                }
                _ => {
                    assert_one(&c, &required, Some(b",x"), Err("but it is empty"));
                    assert_one(&Format::Text, &whole(true), Some(b""), Ok("Null"));
                    assert_one(&Format::Text, &whole(false), Some(b""), Err("but it is empty"));
                    for format in [&c, &Format::Text] {
                        let mapped = if *format == c { &required } else { &whole(false) };
                        let value: &[u8] = if *format == c { b"x y," } else { b"x y" };
                        assert_one(
                            format,
                            mapped,
                            Some(value),
                            Err(&format!("is of type {field_type}, but `x y`")),
                        );
                    }
                }
            }
        }
        let error = one(&Format::Json, &in_value(Float, true, "/a"), Some(br#"{"a":"9.3"}"#));
        assert_eq!(
            error,
            Err("field \"f\" (value:/a) is of type float, but the string `\"9.3\"` was found".into())
        );
    }

    #[test]
    fn values_of_another_format_are_refused_with_the_place() {
        let c = csv(&["a", "b"]);
        let cases: &[(&Format, &[u8], &str)] = &[
            (
                &Format::Json,
                b"",
                "the value is not JSON: a JSON value is expected at byte 0, but the text ends there",
            ),
            (
                &Format::Json,
                b"{\"a\":1",
                "the value is not JSON: `,` or `}` is expected at byte 6",
            ),
            (
                &Format::Json,
                b"{\"a\":1} x",
                "the end of the JSON value is expected at byte 8, but 'x' was found",
            ),
            (&Format::Json, b"{\"b\":tru}", "a JSON value is expected at byte 5"),
            (
                &Format::Json,
                b"{\"a\":1,\"b\":\"\xff\"}",
                "the value is not UTF-8: byte 12 begins no character",
            ),
            (&c, b"1", "the value is not CSV: 2 columns expected, 1 found"),
            (&c, b"1,2,3", "2 columns expected, 3 found"),
            (&c, b"1,2\n3,4", "one line expected, but it ends at byte 3"),
            (&c, b"1,\"2", "the cell that begins at byte 2 has no closing quote"),
            (
                &c,
                b"\"1\" ,2",
                "a delimiter is expected behind the closing quote, at byte 3",
            ),
            (&c, b"1,\xff", "the value is not UTF-8: byte 2"),
        ];
        for (format, value, message) in cases {
            assert_one(format, &in_value(Integer, true, "/a"), Some(value), Err(message));
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert_one(
            &Format::Json,
            &in_value(Json, true, "/a"),
            Some(deep.as_bytes()),
            Err("nested less than 128 deep"),
        );
    }

    #[test]
    fn a_column_that_is_not_there_is_refused_with_the_nearest() {
        let format = csv(&["total_amount", "PULocationID"]);
        let refused = |pointer: &str| one(&format, &in_value(Float, true, pointer), None).expect_err("refused");
        assert_eq!(
            refused("/total_amout"),
            "field \"f\" (value:/total_amout): the CSV has no column \"total_amout\"; did you mean \"total_amount\"?"
        );
        assert!(refused("/pulocationid").contains("did you mean \"PULocationID\"?"));
        assert!(refused("/x").contains("it has total_amount, PULocationID"));
        for (columns, delimiter, message) in [
            (&["a", "a"][..], b',', "named twice"),
            (&[], b',', "no columns"),
            (&["a"], b'"', "delimiter"),
        ] {
            let options = CsvOptions {
                columns: columns.iter().map(ToString::to_string).collect(),
                delimiter,
            };
            let error = one(&Format::Csv(options), &in_value(Float, true, "/a"), None).expect_err(message);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    #[test]
    fn everything_beside_the_value_is_read() {
        let fields = [
            field("raw", Bytes, true, Place::RawValue),
            field("raw key", Bytes, true, Place::RawKey),
            field("key", Integer, true, Place::Key(String::new())),
            field("h", Text, true, Place::Header("h".into())),
            field("b", Bytes, true, Place::Header("b".into())),
            field("t", Time, false, Place::Timestamp),
            field("o", Integer, false, Place::Offset),
            field("gone", Boolean, false, Place::Tombstone),
        ];
        let mut full = Record {
            key: Some(b"42".to_vec()),
            value: Some(b"\xff{".to_vec()),
            timestamp_ms: -7,
            ..Record::default()
        };
        full.headers.push("h", Some(b"first"));
        full.headers.push("b", Some(b"\xfe"));
        full.headers.push("h", Some("é".as_bytes()));
        let mut empty = Record::default();
        empty.headers.push("h", Some(b"1"));
        empty.headers.push("h", None);
        let mut decoder = Decoder::new(&Format::Json, &Format::Text, &fields).expect("readable");
        let decoded = decoder.decode(&[full.at(5), empty.at(6)]);
        assert_eq!(decoded.failed, []);
        let row = |row| -> Vec<_> {
            let columns = decoded.table.columns.iter().zip(&fields);
            columns
                .map(|(column, mapped)| column.cell(mapped.field.field_type, row))
                .collect()
        };
        let expected = [
            Cell::Bytes(b"\xff{"),
            Cell::Bytes(b"42"),
            Cell::Integer(42),
            Cell::Text("é"),
            Cell::Bytes(b"\xfe"),
            Cell::Time(-7),
            Cell::Integer(5),
            Cell::Boolean(false),
        ];
        assert_eq!(row(0), expected, "and a value that nobody decodes is not looked at");
        let expected = [
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Time(0),
            Cell::Integer(6),
            Cell::Boolean(true),
        ];
        assert_eq!(row(1), expected);

        let missing = [
            (field("k", Bytes, false, Place::RawKey), "the key is null"),
            (field("k", Text, false, Place::Key(String::new())), "the key is null"),
            (
                field("v", Bytes, false, Place::RawValue),
                "the value is null (a tombstone)",
            ),
            (field("h", Text, false, Place::Header("h".into())), "the header is null"),
            (
                field("x", Text, false, Place::Header("x".into())),
                "there is no such header",
            ),
        ];
        for (mapped, problem) in missing {
            let decoded = Decoder::new(&Format::Json, &Format::Text, &[mapped])
                .expect("readable")
                .decode(&[empty.at(0)]);
            assert!(decoded.failed[0].error.to_string().contains(problem), "{problem}");
        }
        let mut latin = Record::default();
        latin.headers.push("h", Some(b"\xe9"));
        let mapped = field("h", Text, true, Place::Header("h".into()));
        let decoded = Decoder::new(&Format::Json, &Format::Text, &[mapped])
            .expect("readable")
            .decode(&[latin.at(0)]);
        assert!(
            decoded.failed[0]
                .error
                .to_string()
                .contains("header is not UTF-8: byte 0")
        );
    }

    #[test]
    fn places_have_types() {
        let cases = [
            (Place::RawValue, Text, "bytes"),
            (Place::RawKey, Json, "bytes"),
            (Place::Header("h".into()), Integer, "text or bytes"),
            (Place::Timestamp, Integer, "time"),
            (Place::Offset, Time, "integer"),
            (Place::Tombstone, Integer, "boolean"),
        ];
        for (place, field_type, types) in cases {
            let error =
                Decoder::new(&Format::Json, &Format::Text, &[field("f", field_type, true, place)]).expect_err(types);
            assert!(
                error
                    .to_string()
                    .ends_with(&format!("its type is {field_type}, but this place has {types}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_key_is_read_in_its_own_format() {
        let record = Record {
            key: Some(br#"{"id":"x"}"#.to_vec()),
            value: Some(b"1".to_vec()),
            ..Record::default()
        };
        let fields = [
            field("id", Text, false, Place::Key("/id".into())),
            field("n", Integer, false, Place::Value(String::new())),
        ];
        let decoded = Decoder::new(&Format::Text, &Format::Json, &fields)
            .expect("readable")
            .decode(&[record.at(0)]);
        assert_eq!(decoded.table.columns[0].cell(Text, 0), Cell::Text("x"));
        let broken = Record {
            key: Some(b"{".to_vec()),
            ..record
        };
        let decoded = Decoder::new(&Format::Text, &Format::Json, &fields)
            .expect("readable")
            .decode(&[broken.at(0)]);
        assert!(decoded.failed[0].error.to_string().starts_with("the key is not JSON"));
    }

    #[test]
    fn failed_records_leave_no_trace_in_the_table() {
        let fields = [
            in_value(Text, false, "/a"),
            in_value(Json, true, "/b"),
            in_value(Integer, false, "/c"),
        ];
        let values: [&[u8]; 7] = [
            b"{\"a\":\"long text\",\"b\":[1],\"c\":\"x\"}",
            br#"{"a":"x","c":1}"#,
            b"{",
            br#"{"a":"escaped \u00e9","b":{},"c":2}"#,
            br#"{"a":"y"}"#,
            br#"{"a":"","b":null,"c":3}"#,
            b"null",
        ];
        let records: Vec<_> = values
            .iter()
            .map(|value| Record {
                value: Some(value.to_vec()),
                ..Record::default()
            })
            .collect();
        let refs: Vec<_> = records.iter().map(|record| record.at(0)).collect();
        let mut decoder = Decoder::new(&Format::Json, &Format::Text, &fields).expect("readable");
        for _ in 0..2 {
            let decoded = decoder.decode(&refs);
            assert_eq!(decoded.rows, [1, 3, 5]);
            assert_eq!(
                decoded.failed.iter().map(|failed| failed.index).collect::<Vec<_>>(),
                [0, 2, 4, 6]
            );
            let schema: Vec<_> = fields.iter().map(|mapped| mapped.field.clone()).collect();
            assert_eq!(decoded.table.check(&schema), Ok(()));
            assert_eq!(decoded.table.columns[0].cell(Text, 1), Cell::Text("escaped é"));
            assert_eq!(decoded.table.columns[1].cell(Json, 0), Cell::Null);
            assert_eq!(decoded.table.columns[2].cell(Integer, 2), Cell::Integer(3));
        }
    }

    #[test]
    fn a_megabyte_is_a_value_as_any_other() {
        let long = "é\\n".repeat(250_000);
        let value = format!(
            "{{\"skipped\":\"{long}\",\"a\":\"{long}\",\"b\":[{}1]}}",
            "0,".repeat(100_000)
        );
        let expected = long.replace("\\n", "\n");
        let record = Record {
            value: Some(value.into_bytes()),
            ..Record::default()
        };
        let fields = [in_value(Text, false, "/a"), in_value(Integer, false, "/b/100000")];
        let decoded = Decoder::new(&Format::Json, &Format::Text, &fields)
            .expect("readable")
            .decode(&[record.at(0)]);
        assert_eq!(decoded.failed, []);
        assert!(decoded.table.columns[0].cell(Text, 0) == Cell::Text(&expected));
        assert_eq!(decoded.table.columns[1].cell(Integer, 0), Cell::Integer(1));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(values in prop::collection::vec(prop_oneof![
            any::<Vec<u8>>(),
            r#"\{"a":[\[\]{}:",0-9.eE+\\utf-]{0,16}\}?"#.prop_map(String::into_bytes),
            r#"[a0-9",\n]{0,12}"#.prop_map(String::into_bytes),
        ], 1..8), field_type in prop::sample::select(vec![Boolean, Integer, Float, Text, Bytes, Time, Json]), optional: bool) {
            let records: Vec<_> = values.iter().map(|value| Record { key: Some(value.clone()), value: Some(value.clone()), ..Record::default() }).collect();
            let refs: Vec<_> = records.iter().map(|record| record.at(0)).collect();
            for format in [Format::Json, csv(&["a", "b"]), Format::Text, Format::Raw] {
                for pointer in ["", "/a"] {
                    let fields = [
                        field("v", field_type, optional, Place::Value(pointer.into())),
                        field("k", field_type, optional, Place::Key(pointer.into())),
                    ];
                    if let Ok(mut decoder) = Decoder::new(&format, &format, &fields) {
                        let decoded = decoder.decode(&refs);
                        prop_assert_eq!(decoded.rows.len() + decoded.failed.len(), values.len());
                        let schema: Vec<_> = fields.iter().map(|mapped| mapped.field.clone()).collect();
                        prop_assert_eq!(decoded.table.check(&schema), Ok(()));
                    }
                }
            }
        }
    }
}
