//! What a branch writes as a value or a key: planned once, and refused where it cannot be.

use super::cell::{Write, excerpt, write_json, write_text};
use super::csv::CsvOptions;
use super::encode::EncodeError;
use super::splice::{Members, SpliceError};
use super::{Format, FormatError, check_place, check_type, pointer, refuse};
use crate::schema::{Branch, FieldType, MappedField, Place};
use crate::table::{Cell, Table};

/// What is written as a value, or as a key.
#[derive(Debug)]
pub(super) enum Writer {
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
pub(super) enum Base {
    Json,
    Csv(CsvOptions),
}

/// A row of what was emitted.
#[derive(Clone, Copy)]
pub(super) struct Row<'t> {
    pub fields: &'t [MappedField],
    pub table: &'t Table,
    pub row: usize,
}

impl<'t> Row<'t> {
    #[inline]
    pub(super) fn cell(&self, column: usize) -> Cell<'t> {
        self.table.columns[column].cell(self.fields[column].field.field_type, self.row)
    }

    #[cold]
    pub(super) fn refused(&self, error: SpliceError, base: &str) -> Box<EncodeError> {
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
    pub(super) fn write<'s>(&self, row: Row<'_>, out: &'s mut Vec<u8>) -> Result<Option<&'s [u8]>, Box<EncodeError>> {
        out.clear();
        let (column, write): (usize, Write) = match self {
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

impl Base {
    pub(super) fn of(format: &Format, branch: &Branch) -> Result<Base, FormatError> {
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
pub(super) fn check_fields(fields: &[MappedField]) -> Result<(), FormatError> {
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

pub(super) fn overlaps(fields: &[MappedField], raw: usize, others: &[usize]) -> Result<(), FormatError> {
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
pub(super) fn writer(
    fields: &[MappedField],
    places: &[(usize, Vec<String>)],
    format: &Format,
) -> Result<Writer, FormatError> {
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
pub(super) fn check_kept(branch: &Branch, part: &str, from: &Format, to: &Format) -> Result<(), FormatError> {
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
