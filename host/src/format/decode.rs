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
