//! Formats: bytes ⇄ tables, of the fields that somebody asks for and no others.
//!
//! A topic has a format for its values and one for its keys. A [`Decoder`] is made once for the fields of an input and
//! then turns batches of records into tables; an [`Encoder`] is made once for a branch and turns what was emitted into
//! records. Both refuse at that time what cannot work, so that only a record's bytes can be wrong later on: a record
//! that cannot be decoded or a row that cannot be encoded is reported beside the others and stops none of them.
//!
//! | format | value or key | places | written |
//! | --- | --- | --- | --- |
//! | `json` | one JSON value, nested less than 128 deep | any JSON Pointer | yes |
//! | `csv` | one line | `/column`, or "" for all of it: `json` (an object), `text` or `bytes` (the line) | no |
//! | `text` | UTF-8 | "" only: any type but `json` | yes |
//! | `raw` | bytes | "" only: `bytes`, or `text` where they are UTF-8 | yes |
//!
//! | type | read from JSON | read from plain text (CSV cell, text key) | written as JSON | written as text |
//! | --- | --- | --- | --- | --- |
//! | boolean | `true`, `false` | `true`, `false` in any case, `1`, `0` | `true` | `true` |
//! | integer | a number without fraction: all of 64 bits, `12.0` within ±2⁵³ | the same, `007` and `+7` too | `12` | `12` |
//! | float | a number | the same, `NaN` and `inf` too | `12.5`; not NaN, infinities | `12.5`, `NaN`, `inf` |
//! | text | a string | the text | a string | the text |
//! | bytes | a string of base64 | the text's bytes | a string of base64 | the bytes |
//! | time | a string as [`read_time`] takes, or a number of milliseconds | the same | a string, RFC 3339 | RFC 3339 |
//! | json | any value, its text | — | the value | its text |
//!
//! Null and absent: a member that is `null` or not there is a null cell, and so are all of the value's fields where the
//! value is null. In text and CSV nothing but emptiness can say null: it does for types that have no empty value, and
//! in a CSV cell for `text` and `bytes` too if the field is optional. A null cell is written as the member `null`, and
//! at "" as a null value or key.
//!
//! Of two members of one name the last one counts. Numbers are read exactly or refused: an `integer` outside of 64 bits
//! is an error, a `float` is the nearest one.

mod cell;
mod csv;
mod csv_file;
mod decode;
mod encode;
mod key_time;
mod line;
mod pointer;
mod project;
mod scan;
mod splice;
mod time;
mod writer;

use std::fmt;

pub(crate) use self::cell::{Scratch, read_json, unquote, write_base64, write_json, write_string};
pub use self::csv::CsvOptions;
pub use self::csv_file::{CsvFile, CsvFileError};
pub use self::decode::{DecodeError, Decoded, Decoder, Undecodable};
pub use self::encode::{EncodeError, Encoded, Encoder, Unencodable};
pub use self::key_time::{KeyTooLarge, key_and_time_fields, set_key_and_time};
pub use self::line::{Line, LineError, read_line, write_line};
pub(crate) use self::scan::{Scanner, validate};
pub use self::time::{read_time, write_time};

use crate::schema::{FieldType, MappedField, Place};

/// What the bytes of a topic's values or keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON value.
    Json,
    /// One line of CSV; read, never written.
    Csv(CsvOptions),
    /// Bytes that mean nothing to the host.
    Raw,
    /// UTF-8.
    Text,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Json => "json",
            Format::Csv(_) => "csv",
            Format::Raw => "raw",
            Format::Text => "text",
        })
    }
}

/// Why fields cannot be read from or written to topics of these formats. Nothing was read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A field's place or type does not fit.
    #[error("field {field:?} ({place}): {problem}")]
    Field {
        /// The field's name.
        field: String,
        /// Where it lies.
        place: Place,
        /// What does not fit, and what would.
        problem: String,
    },
    /// The branch as a whole does not fit.
    #[error("{0}")]
    Branch(String),
    /// The format's own settings are wrong.
    #[error("{0}")]
    Options(String),
}

/// A refusal of one field.
fn refuse(mapped: &MappedField, problem: impl Into<String>) -> FormatError {
    FormatError::Field {
        field: mapped.field.name.clone(),
        place: mapped.place.clone(),
        problem: problem.into(),
    }
}

/// Holds a field against the types that its place can have.
fn check_type(mapped: &MappedField, types: &[FieldType]) -> Result<(), FormatError> {
    if types.contains(&mapped.field.field_type) {
        return Ok(());
    }
    let types: Vec<_> = types.iter().map(|field_type| field_type.name()).collect();
    Err(refuse(
        mapped,
        format!(
            "its type is {}, but this place has {}",
            mapped.field.field_type,
            types.join(" or ")
        ),
    ))
}

/// Holds a field outside of value and key against its place; those are the reader's or writer's.
fn check_place(mapped: &MappedField) -> Result<(), FormatError> {
    match mapped.place {
        Place::Value(_) | Place::Key(_) => Ok(()),
        Place::RawValue | Place::RawKey => check_type(mapped, &[FieldType::Bytes]),
        Place::Header(_) => check_type(mapped, &[FieldType::Text, FieldType::Bytes]),
        Place::Timestamp => check_type(mapped, &[FieldType::Time]),
        Place::Offset => check_type(mapped, &[FieldType::Integer]),
        Place::Tombstone => check_type(mapped, &[FieldType::Boolean]),
    }
}

/// The value or the key of a record, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The record's value.
    Value,
    /// The record's key.
    Key,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Value => "value",
            Part::Key => "key",
        })
    }
}
