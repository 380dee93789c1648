//! Tables to records.

use bumpalo::Bump;

use super::cell::{excerpt, write_json, write_text};
use super::csv::{self, CsvOptions};
use super::decode::{csv_object, describe};
use super::project::Span;
use super::splice::{Members, SpliceError};
use super::{Format, FormatError, check_place, check_type, pointer, refuse};
use crate::limits::{HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::output::Emitted;
use crate::record::{Headers, HeadersRef, RecordRef};
use crate::schema::{Branch, FieldType, MappedField, Place, ValueBase};
use crate::table::{Cell, Table};

/// Writes what a branch emits as records of one format.
#[derive(Debug)]
pub struct Encoder {
    fields: Vec<MappedField>,
    value: Writer,
    /// The columns of `value`.
    value_columns: Vec<usize>,
    key: Writer,
    /// Column and name.
    headers: Vec<(usize, String)>,
    timestamp: Option<usize>,
    tombstone: Option<usize>,
}

/// What the rows of a branch became.
#[derive(Debug, Default)]
pub struct Encoded<'a> {
    /// One record for each row that could be encoded, in their order; the offsets are those of the input records.
    pub records: Vec<RecordRef<'a>>,
    /// For each record, the input row that it comes from.
    pub origins: Vec<u32>,
    /// The rows that could not, in their order.
    pub failed: Vec<Unencodable>,
}

/// A row that cannot be written as a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unencodable {
    /// The input row that it comes from.
    pub origin: u32,
    /// Why.
    pub error: EncodeError,
}

/// Why a row cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The format does not have such a value.
    #[error("field {field:?} ({place}): {problem}")]
    Field {
        /// The field's name.
        field: String,
        /// Where it is written.
        place: Place,
        /// What is wrong with the cell.
        problem: String,
    },
    /// The fields are written into the input's value, and that does not take them.
    #[error("the fields cannot be written into the input's value: {0}")]
    Base(String),
    /// The record would be larger than records are.
    #[error("the {what}, but {limit} is the limit")]
    TooLarge {
        /// What is too large, and how large it is.
        what: String,
        /// How large it may be, with its unit.
        limit: String,
    },
}

/// What is written as a value, or as a key.
#[derive(Debug)]
enum Writer {
    /// The input's, as it is.
    Keep,
    /// Null.
    Null,
    /// One column's cell is all of it.
    Json(usize),
    Text(usize),
    Raw(usize),
    /// A JSON object.
    Object(Members),
    /// The input's object with members written into it.
    Splice {
        members: Members,
        base: Base,
    },
}

/// What the input's value is.
#[derive(Debug)]
enum Base {
    Json,
    Csv(CsvOptions),
}

impl Encoder {
    /// For a branch of an input whose topic has the formats `value_in` and `key_in`, written to one that has
    /// `value_out` and `key_out`.
    ///
    /// # Errors
    /// A field that cannot be written there, two that are written at one place, or a value or key that is kept
    /// although the topic's format is another one.
    pub fn new(
        branch: &Branch,
        value_in: &Format,
        key_in: &Format,
        value_out: &Format,
        key_out: &Format,
    ) -> Result<Encoder, FormatError> {
        let fields = &branch.fields;
        check_fields(fields)?;
        let places = |part: fn(&Place) -> Option<&String>| {
            let columns = fields.iter().enumerate();
            columns
                .filter_map(|(column, mapped)| Some((column, mapped, part(&mapped.place)?)))
                .map(|(column, mapped, place)| match pointer::parse(place) {
                    Ok(names) => Ok((column, names)),
                    Err(problem) => Err(refuse(mapped, problem)),
                })
                .collect::<Result<Vec<_>, FormatError>>()
        };
        let in_value = places(|place| {
            if let Place::Value(pointer) = place {
                Some(pointer)
            } else {
                None
            }
        })?;
        let in_key = places(|place| {
            if let Place::Key(pointer) = place {
                Some(pointer)
            } else {
                None
            }
        })?;
        let find = |place| fields.iter().position(|mapped| mapped.place == place);

        let mut value_columns: Vec<usize> = in_value.iter().map(|(column, _)| *column).collect();
        let value = match (find(Place::RawValue), branch.value) {
            (Some(column), _) => {
                overlaps(fields, column, &value_columns)?;
                value_columns.push(column);
                Writer::Raw(column)
            }
            (None, ValueBase::Same) if in_value.is_empty() => {
                check_kept(branch, "value", value_in, value_out)?;
                Writer::Keep
            }
            (None, ValueBase::New) if in_value.is_empty() => Writer::Null,
            (None, base) => match (writer(fields, &in_value, value_out)?, base) {
                (Writer::Object(members), ValueBase::Same) => Writer::Splice {
                    members,
                    base: Base::of(value_in, branch)?,
                },
                (writer, _) => writer,
            },
        };
        let key = match find(Place::RawKey) {
            Some(column) => {
                overlaps(
                    fields,
                    column,
                    &in_key.iter().map(|(column, _)| *column).collect::<Vec<_>>(),
                )?;
                Writer::Raw(column)
            }
            None if in_key.is_empty() => {
                check_kept(branch, "key", key_in, key_out)?;
                Writer::Keep
            }
            None => writer(fields, &in_key, key_out)?,
        };
        let headers = fields
            .iter()
            .enumerate()
            .filter_map(|(column, mapped)| match &mapped.place {
                Place::Header(name) => Some((column, name.clone())),
                _ => None,
            });
        Ok(Encoder {
            headers: headers.collect(),
            timestamp: find(Place::Timestamp),
            tombstone: find(Place::Tombstone),
            fields: fields.clone(),
            value,
            value_columns,
            key,
        })
    }

    /// Encodes rows: `inputs[r]` is the record of input row `r`. New bytes go to the arena, what stays as it is is
    /// borrowed from the inputs. The table was held against the branch's fields before.
    ///
    /// # Panics
    /// If an origin is not among the inputs, or a column is missing: both were checked when the guest answered.
    pub fn encode<'a>(&self, arena: &'a Bump, inputs: &[RecordRef<'a>], emitted: &Emitted) -> Encoded<'a> {
        let mut encoded = Encoded {
            records: Vec::with_capacity(emitted.origins.len()),
            origins: Vec::with_capacity(emitted.origins.len()),
            failed: Vec::new(),
        };
        let mut scratch = Scratch::default();
        for (row, &origin) in emitted.origins.iter().enumerate() {
            let row = Row {
                fields: &self.fields,
                table: &emitted.table,
                row,
            };
            match self.record(arena, &inputs[origin as usize], row, &mut scratch) {
                Ok(record) => {
                    encoded.records.push(record);
                    encoded.origins.push(origin);
                }
                Err(error) => encoded.failed.push(Unencodable { origin, error: *error }),
            }
        }
        encoded
    }

    fn record<'a>(
        &self,
        arena: &'a Bump,
        input: &RecordRef<'a>,
        row: Row<'_>,
        scratch: &mut Scratch,
    ) -> Result<RecordRef<'a>, Box<EncodeError>> {
        let mut record = *input;
        if self
            .tombstone
            .is_some_and(|column| row.cell(column) == Cell::Boolean(true))
        {
            record.value = None;
        } else if !matches!(self.value, Writer::Keep) {
            record.value = self
                .value(input.value, row, scratch)?
                .map(|bytes| &*arena.alloc_slice_copy(bytes));
            bounded("value", record.value, VALUE_BYTES_MAX)?;
        }
        if !matches!(self.key, Writer::Keep) {
            record.key = self
                .key
                .write(row, &mut scratch.out)?
                .map(|bytes| &*arena.alloc_slice_copy(bytes));
            bounded("key", record.key, KEY_BYTES_MAX)?;
        }
        if !self.headers.is_empty() {
            let headers = self.headers(input.headers, row)?;
            record.headers = HeadersRef::trusted(arena.alloc_slice_copy(headers.as_ref().encoded()));
        }
        if let Some(Cell::Time(timestamp_ms)) = self.timestamp.map(|column| row.cell(column)) {
            record.timestamp_ms = timestamp_ms;
        }
        Ok(record)
    }

    fn value<'s>(
        &self,
        input: Option<&[u8]>,
        row: Row<'_>,
        scratch: &'s mut Scratch,
    ) -> Result<Option<&'s [u8]>, Box<EncodeError>> {
        let Writer::Splice { members, base } = &self.value else {
            return self.value.write(row, &mut scratch.out);
        };
        let Some(input) = input else {
            // Nothing written into nothing is nothing: a tombstone may pass.
            if self.value_columns.iter().all(|&column| row.cell(column) == Cell::Null) {
                return Ok(None);
            }
            let problem = "it is null (a tombstone); a branch passes it on if its fields are null or its field at the \
                           place `tombstone` is true, and makes a value of its own if its value-base is `new`";
            return Err(Box::new(EncodeError::Base(problem.into())));
        };
        let refused = |problem: String| Box::new(EncodeError::Base(problem));
        let text = std::str::from_utf8(input).map_err(|error| {
            refused(format!(
                "it is not UTF-8: byte {} begins no character",
                error.valid_up_to()
            ))
        })?;
        let text = match base {
            Base::Json => text,
            Base::Csv(options) => {
                csv::split(text, options.delimiter, options.columns.len(), &mut scratch.cells)
                    .map_err(|error| refused(format!("it is not CSV: {}", describe(error))))?;
                scratch.object.clear();
                csv_object(&mut scratch.object, text, options, &scratch.cells);
                std::str::from_utf8(&scratch.object).unwrap_or_default()
            }
        };
        scratch.out.clear();
        match members.splice(&mut scratch.out, text, &|column| row.cell(column)) {
            Ok(()) => Ok(Some(&scratch.out)),
            Err(error) => Err(row.refused(error, text)),
        }
    }

    fn headers(&self, input: HeadersRef<'_>, row: Row<'_>) -> Result<Headers, Box<EncodeError>> {
        let kept = input
            .iter()
            .filter(|(name, _)| self.headers.iter().all(|(_, written)| written != name));
        let mut headers: Headers = kept.collect();
        for (column, name) in &self.headers {
            match row.cell(*column) {
                Cell::Text(text) => headers.push(name, Some(text.as_bytes())),
                Cell::Bytes(bytes) => headers.push(name, Some(bytes)),
                _ => {}
            }
        }
        let (count, bytes) = (headers.as_ref().iter().count(), headers.as_ref().encoded().len());
        if count > HEADERS_MAX {
            return Err(too_large(
                format!("record has {count} headers"),
                HEADERS_MAX.to_string(),
            ));
        }
        if bytes > HEADERS_BYTES_MAX {
            return Err(too_large(
                format!("headers have {bytes} bytes"),
                format!("{HEADERS_BYTES_MAX} bytes"),
            ));
        }
        Ok(headers)
    }
}

/// Buffers that are kept from row to row.
#[derive(Default)]
struct Scratch {
    out: Vec<u8>,
    object: Vec<u8>,
    cells: Vec<Span>,
}

#[derive(Clone, Copy)]
struct Row<'t> {
    fields: &'t [MappedField],
    table: &'t Table,
    row: usize,
}

impl<'t> Row<'t> {
    #[inline]
    fn cell(&self, column: usize) -> Cell<'t> {
        self.table.columns[column].cell(self.fields[column].field.field_type, self.row)
    }

    #[cold]
    fn refused(&self, error: SpliceError, base: &str) -> Box<EncodeError> {
        Box::new(match error {
            SpliceError::Cell { column, problem } => EncodeError::Field {
                field: self.fields[column].field.name.clone(),
                place: self.fields[column].place.clone(),
                problem,
            },
            SpliceError::Scan(error) => EncodeError::Base(format!("it is not JSON: {}", error.describe(base))),
            SpliceError::NoObject { pointer, .. } if pointer.is_empty() => {
                EncodeError::Base(format!("it is {}, not an object", excerpt(base.trim_ascii())))
            }
            SpliceError::NoObject { pointer, found } => {
                let found = match found {
                    b'"' => "a string",
                    b'[' => "an array",
                    b't' | b'f' => "a boolean",
                    _ => "a number",
                };
                EncodeError::Base(format!("its {pointer} is {found}, not an object"))
            }
        })
    }
}

impl Writer {
    /// Writes what does not depend on the input; `None` is null.
    fn write<'s>(&self, row: Row<'_>, out: &'s mut Vec<u8>) -> Result<Option<&'s [u8]>, Box<EncodeError>> {
        out.clear();
        let (column, write): (usize, fn(&mut Vec<u8>, Cell<'_>) -> Result<(), String>) = match self {
            Writer::Json(column) => (*column, write_json),
            Writer::Text(column) => (*column, write_characters),
            Writer::Raw(column) => (*column, write_text),
            Writer::Object(members) => {
                return match members.write(out, &|column| row.cell(column)) {
                    Ok(()) => Ok(Some(out)),
                    Err(error) => Err(row.refused(error, "")),
                };
            }
            Writer::Keep | Writer::Null | Writer::Splice { .. } => return Ok(None),
        };
        let cell = row.cell(column);
        if cell == Cell::Null {
            return Ok(None);
        }
        match write(out, cell) {
            Ok(()) => Ok(Some(out)),
            Err(problem) => Err(row.refused(SpliceError::Cell { column, problem }, "")),
        }
    }
}

fn write_characters(out: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), String> {
    if let Cell::Bytes(bytes) = cell
        && let Err(error) = std::str::from_utf8(bytes)
    {
        return Err(format!(
            "the topic's format is text, but byte {} begins no UTF-8 character",
            error.valid_up_to()
        ));
    }
    write_text(out, cell)
}

fn bounded(what: &str, bytes: Option<&[u8]>, limit: usize) -> Result<(), Box<EncodeError>> {
    match bytes {
        Some(bytes) if bytes.len() > limit => Err(too_large(
            format!("{what} has {} bytes", bytes.len()),
            format!("{limit} bytes"),
        )),
        _ => Ok(()),
    }
}

#[cold]
fn too_large(what: String, limit: String) -> Box<EncodeError> {
    Box::new(EncodeError::TooLarge { what, limit })
}

impl Base {
    fn of(format: &Format, branch: &Branch) -> Result<Base, FormatError> {
        match format {
            Format::Json => Ok(Base::Json),
            Format::Csv(options) => Ok(Base::Csv(options.clone())),
            Format::Raw | Format::Text => Err(FormatError::Branch(format!(
                "branch {:?} writes members into the input's value, whose format is {format}, which has none: \
                 read the topic as json or csv, or let the branch's value-base be `new`",
                branch.name
            ))),
        }
    }
}

/// What holds for each field by itself, and for places that can be there once.
fn check_fields(fields: &[MappedField]) -> Result<(), FormatError> {
    for (column, mapped) in fields.iter().enumerate() {
        check_place(mapped)?;
        match mapped.place {
            Place::Offset => {
                return Err(refuse(
                    mapped,
                    "an offset is given by the log; a branch cannot write it",
                ));
            }
            Place::Timestamp | Place::Tombstone if mapped.field.optional => {
                return Err(refuse(mapped, "this place is never null: the field cannot be optional"));
            }
            _ => {}
        }
        if let Some(other) = fields[..column].iter().find(|other| other.place == mapped.place) {
            return Err(refuse(
                mapped,
                format!("field {:?} is written at the same place", other.field.name),
            ));
        }
    }
    Ok(())
}

fn overlaps(fields: &[MappedField], raw: usize, others: &[usize]) -> Result<(), FormatError> {
    match others.first() {
        None => Ok(()),
        Some(&other) => Err(overlap(fields, raw, other)),
    }
}

fn overlap(fields: &[MappedField], column: usize, other: usize) -> FormatError {
    let MappedField { field, place } = &fields[other];
    refuse(
        &fields[column],
        format!("it overlaps with field {:?} ({place})", field.name),
    )
}

/// How the fields of a value or key are written in a format: columns with their pointers, at least one.
fn writer(fields: &[MappedField], places: &[(usize, Vec<String>)], format: &Format) -> Result<Writer, FormatError> {
    let (first, names) = &places[0];
    let whole = places.iter().find(|(_, names)| names.is_empty());
    if let (Some((column, _)), true) = (whole, places.len() > 1) {
        let other = if column == first { places[1].0 } else { *first };
        return Err(overlap(fields, *column, other));
    }
    let mapped = &fields[*first];
    match format {
        Format::Csv(_) => Err(refuse(
            mapped,
            "the topic's format is csv, which is read but not written; use json",
        )),
        Format::Json if names.is_empty() => Ok(Writer::Json(*first)),
        Format::Json => {
            let mut members = Members::default();
            for (column, names) in places {
                if let Some(name) = names.iter().find(|name| pointer::element(name).is_some()) {
                    let problem = format!("{name:?} selects an element of an array, which a branch cannot write");
                    return Err(refuse(&fields[*column], problem));
                }
                members
                    .add(names, *column)
                    .map_err(|other| overlap(fields, *column, other))?;
            }
            Ok(Writer::Object(members))
        }
        Format::Raw | Format::Text if !names.is_empty() => {
            let problem = format!("the topic's format is {format}, which has no members: only \"\", all of it");
            Err(refuse(mapped, problem))
        }
        Format::Raw => {
            check_type(mapped, &[FieldType::Bytes, FieldType::Text, FieldType::Json]).map(|()| Writer::Raw(*first))
        }
        Format::Text => Ok(Writer::Text(*first)),
    }
}

/// Bytes that are passed on as they are have to be what their new topic says.
fn check_kept(branch: &Branch, part: &str, from: &Format, to: &Format) -> Result<(), FormatError> {
    let fits = match to {
        Format::Raw => true,
        Format::Text => *from != Format::Raw,
        to => from == to,
    };
    if fits {
        return Ok(());
    }
    Err(FormatError::Branch(format!(
        "branch {:?} passes the {part} on as it is, in the format {from}, but its topic's format is {to}{}",
        branch.name,
        if from.to_string() == to.to_string() {
            " with other columns"
        } else {
            ""
        }
    )))
}
