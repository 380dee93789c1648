//! Tables to records.

use bumpalo::Bump;

use super::csv;
use super::decode::{csv_object, describe};
use super::project::Span;
use super::writer::{Base, Row, Writer, check_fields, check_kept, overlaps, writer};
use super::{Format, FormatError, pointer, refuse};
use crate::limits::{HEADERS_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX, RECORD_BYTES_MAX, VALUE_BYTES_MAX};
use crate::output::Emitted;
use crate::record::{Headers, HeadersRef, RecordRef};
use crate::schema::{Branch, MappedField, Place, ValueBase};
use crate::table::Cell;

/// Writes what a branch emits as records of one format.
///
/// - **Value.** Without fields in it, it is the input's bytes (`same`) or null (`new`). With them and `new` it is an
///   object of them, in the order of their declaration, or at "" the one cell. With them and `same` they are written
///   into the input's object: a member is replaced where it stands (each time, if its name is there twice), a missing
///   one is added behind the others, a null one on the way is made an object, and every other byte stays as it is. The
///   object of a CSV line has its columns, with cells as [`CsvFile`](super::CsvFile) infers them. A tombstone stays one
///   where all of the value's cells are null, and takes no fields otherwise.
/// - **Key.** Its fields replace all of it.
/// - **Headers.** A field replaces all headers of its name, behind the others; null removes them.
/// - **Timestamp, tombstone.** As their cells say; a true `tombstone` outweighs the value's fields.
///
/// New keys, values and headers are held against [`limits`](crate::limits); what is passed on is not.
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
        // What is kept of the input can be larger than what is written may be: only growth beyond the bound is refused.
        let bytes = record.size_bytes();
        if bytes > RECORD_BYTES_MAX && bytes > input.size_bytes() {
            return Err(too_large(
                format!("record has {bytes} bytes of key, value and headers"),
                format!("{RECORD_BYTES_MAX} bytes"),
            ));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{CsvOptions, Decoder, Part};
    use crate::record::Record;
    use crate::schema::{Field, FieldType};
    use crate::table::{Column, Table};
    use FieldType::{Boolean, Bytes, Float, Integer, Json, Text, Time};
    use ValueBase::{New, Same};

    fn field(field_type: FieldType, place: Place) -> MappedField {
        let optional = !matches!(place, Place::Timestamp | Place::Tombstone);
        MappedField {
            field: Field {
                name: place.to_string(),
                field_type,
                optional,
            },
            place,
        }
    }

    fn at(pointer: &str) -> Place {
        Place::Value(pointer.into())
    }

    fn branch(value: ValueBase, fields: Vec<MappedField>) -> Branch {
        Branch {
            name: "out".into(),
            value,
            fields,
        }
    }

    fn csv() -> Format {
        Format::Csv(CsvOptions {
            columns: vec!["a".into(), "b".into()],
            delimiter: b',',
        })
    }

    /// One row: its cells in the branch's order, written for one input.
    fn one(branch: &Branch, formats: [&Format; 2], input: &Record, cells: &[Cell<'_>]) -> Result<Record, String> {
        let [value_in, value_out] = formats;
        let encoder = Encoder::new(branch, value_in, &Format::Text, value_out, &Format::Text)
            .map_err(|error| error.to_string())?;
        let columns = branch.fields.iter().zip(cells).map(|(mapped, cell)| {
            let mut column = Column::default();
            column.push(mapped.field.field_type, 0, *cell);
            column
        });
        let emitted = Emitted {
            origins: vec![0],
            table: Table {
                rows: 1,
                columns: columns.collect(),
            },
        };
        let arena = Bump::new();
        let encoded = encoder.encode(&arena, &[input.at(9)], &emitted);
        match encoded.failed.first() {
            Some(failed) => {
                assert!(encoded.records.is_empty() && encoded.origins.is_empty() && failed.origin == 0);
                Err(failed.error.to_string())
            }
            None => {
                assert_eq!((encoded.origins.as_slice(), encoded.records[0].offset), (&[0][..], 9));
                Ok(encoded.records[0].to_record())
            }
        }
    }

    fn value(result: Result<Record, String>) -> Result<Option<String>, String> {
        result.map(|record| record.value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn input(value: &str) -> Record {
        Record {
            key: Some(b"key".to_vec()),
            value: Some(value.into()),
            timestamp_ms: 3,
            ..Record::default()
        }
    }

    #[test]
    fn a_new_value_is_made_of_the_fields() {
        let fields = vec![
            field(Integer, at("/id")),
            field(Text, at("/place/name")),
            field(Float, at("/fare")),
            field(Time, at("/place/when")),
            field(Bytes, at("/raw")),
            field(Json, at("/more")),
            field(Boolean, at("/ok")),
        ];
        let branch = branch(New, fields);
        let cells = [
            Cell::Integer(1),
            Cell::Text("\"é\""),
            Cell::Float(9.3),
            Cell::Time(5),
            Cell::Bytes(b"\xff"),
            Cell::Json("[1, 2]"),
            Cell::Boolean(true),
        ];
        let json = r#"{"id":1,"place":{"name":"\"é\"","when":"1970-01-01T00:00:00.005Z"},"fare":9.3,"raw":"/w==","more":[1, 2],"ok":true}"#;
        let formats = [&Format::Raw, &Format::Json];
        assert_eq!(value(one(&branch, formats, &input("x"), &cells)), Ok(Some(json.into())));
        let nulls = r#"{"id":null,"place":{"name":null,"when":null},"fare":null,"raw":null,"more":null,"ok":null}"#;
        let written = one(&branch, formats, &input("x"), &[Cell::Null; 7]).expect("nulls");
        assert_eq!(
            written,
            Record {
                value: Some(nulls.into()),
                ..input("x")
            },
            "key and timestamp stay"
        );
        let nan = [
            cells[0],
            cells[1],
            Cell::Float(f64::NAN),
            cells[3],
            cells[4],
            cells[5],
            cells[6],
        ];
        let error = one(&branch, formats, &input("x"), &nan).expect_err("no JSON");
        assert_eq!(
            error,
            "field \"value:/fare\" (value:/fare): NaN cannot be written as JSON, which has finite numbers only"
        );
    }

    #[test]
    fn a_branch_without_fields_passes_values_on_or_leaves_them_out() {
        for format in [Format::Json, Format::Raw, Format::Text, csv()] {
            let formats = [&format, &format];
            assert_eq!(
                one(&branch(Same, vec![]), formats, &input("a,b"), &[]),
                Ok(input("a,b"))
            );
            assert_eq!(value(one(&branch(New, vec![]), formats, &input("a,b"), &[])), Ok(None));
        }
        let encoder = Encoder::new(
            &branch(Same, vec![]),
            &Format::Json,
            &Format::Text,
            &Format::Json,
            &Format::Text,
        )
        .expect("writable");
        let (arena, record) = (Bump::new(), input("{}"));
        let emitted = Emitted {
            origins: vec![0, 0],
            table: Table {
                rows: 2,
                columns: vec![],
            },
        };
        let encoded = encoder.encode(&arena, &[record.at(0)], &emitted);
        assert_eq!(
            encoded.records[1].value.map(<[u8]>::as_ptr),
            record.value.as_deref().map(<[u8]>::as_ptr),
            "not copied"
        );
        assert_eq!(arena.allocated_bytes(), 0);
    }

    #[test]
    fn fields_are_written_into_the_value() {
        let branch = branch(Same, vec![field(Integer, at("/a")), field(Text, at("/n/t"))]);
        let cells = [Cell::Integer(7), Cell::Text("x")];
        let cases = [
            (
                Format::Json,
                r#"{"b":1.50, "a":null}"#,
                Ok(r#"{"b":1.50, "a":7,"n":{"t":"x"}}"#),
            ),
            (csv(), "5,\"q\"\"\"\n", Ok(r#"{"a":7,"b":"q\"","n":{"t":"x"}}"#)),
            (csv(), "5", Err("it is not CSV: 2 columns expected, 1 found")),
            (
                Format::Json,
                "[1]",
                Err("cannot be written into the input's value: it is `[1]`, not an object"),
            ),
            (Format::Json, "{\"n\":\"s\"}", Err("its /n is a string, not an object")),
            (
                Format::Json,
                "{\"x\":1",
                Err("it is not JSON: `,` or `}` is expected at byte 6"),
            ),
            (Format::Raw, "{}", Err("whose format is raw, which has none")),
        ];
        for (format, base, expected) in cases {
            match (
                value(one(&branch, [&format, &Format::Json], &input(base), &cells)),
                expected,
            ) {
                (Ok(Some(value)), Ok(expected)) => assert_eq!(value, expected),
                (Err(error), Err(message)) => assert!(error.contains(message), "{error:?} does not say {message:?}"),
                (found, _) => panic!("{base}: {found:?}"),
            }
        }
        let latin = Record {
            value: Some(b"{\"\xe9\":1}".to_vec()),
            ..Record::default()
        };
        let error = one(&branch, [&Format::Json, &Format::Json], &latin, &cells).expect_err("not UTF-8");
        assert!(error.contains("it is not UTF-8: byte 2"), "{error}");
    }

    #[test]
    fn tombstones_are_made_and_pass() {
        let tombstone = Record {
            value: None,
            ..input("")
        };
        let json = [&Format::Json, &Format::Json];
        let plain = branch(Same, vec![field(Integer, at("/a"))]);
        assert_eq!(one(&plain, json, &tombstone, &[Cell::Null]), Ok(tombstone.clone()));
        let error = one(&plain, json, &tombstone, &[Cell::Integer(1)]).expect_err("nothing to write into");
        assert!(error.contains("it is null (a tombstone)"), "{error}");
        let two = branch(Same, vec![field(Integer, at("/a")), field(Text, at("/b"))]);
        let error = one(&two, json, &tombstone, &[Cell::Integer(1), Cell::Null]).expect_err("one is not null");
        assert!(error.contains("it is null (a tombstone)"), "{error}");
        let marked = branch(Same, vec![field(Integer, at("/a")), field(Boolean, Place::Tombstone)]);
        let written = |input: &Record, mark| value(one(&marked, json, input, &[Cell::Integer(1), Cell::Boolean(mark)]));
        assert_eq!(written(&tombstone, true), Ok(None));
        assert_eq!(written(&input("not JSON"), true), Ok(None));
        assert_eq!(written(&input("{}"), false), Ok(Some(r#"{"a":1}"#.into())));
    }

    #[test]
    fn whole_values_and_keys_are_written_in_their_format() {
        type Case<'c> = (&'c Format, FieldType, Cell<'c>, Result<Option<&'c [u8]>, &'c str>);
        let cases: &[Case<'_>] = &[
            (&Format::Json, Text, Cell::Text("x"), Ok(Some(b"\"x\""))),
            (&Format::Json, Json, Cell::Json(" [1] "), Ok(Some(b"[1]"))),
            (&Format::Json, Integer, Cell::Null, Ok(None)),
            (
                &Format::Json,
                Float,
                Cell::Float(f64::INFINITY),
                Err("inf cannot be written as JSON"),
            ),
            (&Format::Text, Text, Cell::Text(""), Ok(Some(b""))),
            (&Format::Text, Integer, Cell::Integer(-1), Ok(Some(b"-1"))),
            (&Format::Text, Float, Cell::Float(1.5), Ok(Some(b"1.5"))),
            (&Format::Text, Boolean, Cell::Boolean(false), Ok(Some(b"false"))),
            (&Format::Text, Time, Cell::Time(0), Ok(Some(b"1970-01-01T00:00:00Z"))),
            (&Format::Text, Time, Cell::Time(i64::MIN), Err("the years 0000 to 9999")),
            (&Format::Text, Bytes, Cell::Bytes(b"x"), Ok(Some(b"x"))),
            (
                &Format::Text,
                Bytes,
                Cell::Bytes(b"x\xff"),
                Err("byte 1 begins no UTF-8 character"),
            ),
            (&Format::Text, Json, Cell::Json("{}"), Ok(Some(b"{}"))),
            (&Format::Text, Text, Cell::Null, Ok(None)),
            (&Format::Raw, Bytes, Cell::Bytes(b"\xff"), Ok(Some(b"\xff"))),
            (&Format::Raw, Text, Cell::Text("x"), Ok(Some(b"x"))),
            (
                &Format::Raw,
                Integer,
                Cell::Integer(1),
                Err("this place has bytes or text or json"),
            ),
        ];
        for (format, field_type, cell, expected) in cases {
            for (place, part) in [(at(""), Part::Value), (Place::Key(String::new()), Part::Key)] {
                let branch = branch(New, vec![field(*field_type, place)]);
                let encoder = Encoder::new(&branch, format, format, format, format);
                let mut column = Column::default();
                column.push(*field_type, 0, *cell);
                let emitted = Emitted {
                    origins: vec![0],
                    table: Table {
                        rows: 1,
                        columns: vec![column],
                    },
                };
                let (arena, record) = (Bump::new(), input("{}"));
                let result = encoder.map_err(|error| error.to_string()).and_then(|encoder| {
                    let encoded = encoder.encode(&arena, &[record.at(0)], &emitted);
                    match encoded.records.first() {
                        Some(record) if part == Part::Value => Ok(record.value),
                        Some(record) => Ok(record.key),
                        None => Err(encoded.failed[0].error.to_string()),
                    }
                });
                match (result, expected) {
                    (Ok(bytes), Ok(expected)) => assert_eq!(bytes, *expected, "{format} {cell:?}"),
                    (Err(error), Err(message)) => {
                        assert!(error.contains(message), "{error:?} does not say {message:?}")
                    }
                    (found, _) => panic!("{format} {cell:?} {part}: {found:?}"),
                }
            }
        }
    }

    #[test]
    fn key_headers_and_timestamp_are_replaced() {
        let mut record = input("{}");
        for (name, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
            record.headers.push(name, Some(value.as_bytes()));
        }
        let fields = vec![
            field(Text, Place::Header("a".into())),
            field(Bytes, Place::Header("b".into())),
            field(Time, Place::Timestamp),
            field(Bytes, Place::RawKey),
        ];
        let cells = [Cell::Text("é"), Cell::Null, Cell::Time(-1), Cell::Bytes(b"\xff")];
        let written = one(&branch(Same, fields), [&Format::Json, &Format::Json], &record, &cells).expect("writable");
        let headers = [("c", Some(&b"4"[..])), ("a", Some("é".as_bytes()))];
        assert_eq!(written.headers.as_ref().iter().collect::<Vec<_>>(), headers);
        assert_eq!((written.timestamp_ms, written.key), (-1, Some(b"\xff".to_vec())));
        assert_eq!(written.value, record.value);
        let raw = branch(New, vec![field(Bytes, Place::RawValue)]);
        let written = one(&raw, [&Format::Json, &Format::Json], &record, &[Cell::Bytes(b"\xfe")]).expect("writable");
        assert_eq!(written.value, Some(b"\xfe".to_vec()));
    }

    #[test]
    fn records_are_bounded() {
        let long = "x".repeat(VALUE_BYTES_MAX - 1);
        let json = [&Format::Json, &Format::Json];
        let text = branch(New, vec![field(Text, at(""))]);
        let error = one(&text, json, &input("{}"), &[Cell::Text(&long)]).expect_err("too large");
        assert_eq!(error, "the value has 2097153 bytes, but 2097152 bytes is the limit");
        assert!(one(&text, json, &input("{}"), &[Cell::Text(&long[1..])]).is_ok());
        let key = branch(Same, vec![field(Text, Place::Key(String::new()))]);
        let error = one(&key, json, &input("{}"), &[Cell::Text(&long[..=KEY_BYTES_MAX])]).expect_err("too large");
        assert_eq!(error, "the key has 4097 bytes, but 4096 bytes is the limit");
        assert!(one(&key, json, &input("{}"), &[Cell::Text(&long[..KEY_BYTES_MAX])]).is_ok());
        let header = branch(Same, vec![field(Text, Place::Header("h".into()))]);
        let error = one(&header, json, &input("{}"), &[Cell::Text(&long[..HEADERS_BYTES_MAX])]).expect_err("too large");
        assert!(
            error.starts_with("the headers have 65541 bytes, but 65536 bytes"),
            "{error}"
        );
        let mut many = input("{}");
        (0..HEADERS_MAX).for_each(|_| many.headers.push("x", None));
        let error = one(&header, json, &many, &[Cell::Text("")]).expect_err("too many");
        assert_eq!(error, "the record has 65 headers, but 64 is the limit");
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let json = Format::Json;
        let cases: &[(Branch, &Format, &Format, &str)] = &[
            (
                branch(New, vec![field(Integer, Place::Offset)]),
                &json,
                &json,
                "a branch cannot write it",
            ),
            (
                branch(New, vec![field(Integer, at("/a/0"))]),
                &json,
                &json,
                "\"0\" selects an element",
            ),
            (branch(New, vec![field(Integer, at("a"))]), &json, &json, "write \"/a\""),
            (
                branch(New, vec![field(Integer, at("/a")), field(Text, at("/a"))]),
                &json,
                &json,
                "is written at the same place",
            ),
            (
                branch(New, vec![field(Integer, at("/a")), field(Text, at("/a/b"))]),
                &json,
                &json,
                "overlaps with field \"value:/a\"",
            ),
            (
                branch(New, vec![field(Integer, at("/a")), field(Json, at(""))]),
                &json,
                &json,
                "(value:): it overlaps with field \"value:/a\"",
            ),
            (
                branch(New, vec![field(Integer, at("/a")), field(Bytes, Place::RawValue)]),
                &json,
                &json,
                "overlaps with",
            ),
            (
                branch(
                    New,
                    vec![field(Text, Place::Key("".into())), field(Bytes, Place::RawKey)],
                ),
                &json,
                &json,
                "overlaps with",
            ),
            (
                branch(New, vec![field(Integer, at("/a"))]),
                &json,
                &csv(),
                "read but not written; use json",
            ),
            (
                branch(New, vec![field(Integer, at("/a"))]),
                &json,
                &Format::Text,
                "the topic's format is text, which has no members",
            ),
            (
                branch(New, vec![field(Integer, Place::Timestamp)]),
                &json,
                &json,
                "its type is integer, but this place has time",
            ),
            (
                branch(Same, vec![]),
                &csv(),
                &json,
                "passes the value on as it is, in the format csv, but its topic's format is json",
            ),
            (
                branch(Same, vec![]),
                &Format::Raw,
                &Format::Text,
                "in the format raw, but its topic's format is text",
            ),
        ];
        for (branch, value_in, value_out, message) in cases {
            let error = one(branch, [value_in, value_out], &input("{}"), &[]).expect_err(message);
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
        let mut optional = field(Time, Place::Timestamp);
        optional.field.optional = true;
        let error = one(&branch(Same, vec![optional]), [&json, &json], &input("{}"), &[]).expect_err("never null");
        assert!(error.contains("the field cannot be optional"), "{error}");
        for kept in [Format::Raw, Format::Text] {
            assert!(Encoder::new(&branch(Same, vec![]), &csv(), &Format::Json, &kept, &kept).is_ok());
        }
    }

    #[test]
    fn what_is_decoded_and_encoded_is_the_same() {
        let fields: Vec<_> = [
            (Boolean, "/b"),
            (Integer, "/i"),
            (Float, "/f"),
            (Text, "/t"),
            (Bytes, "/y"),
            (Time, "/w"),
            (Json, "/j"),
        ]
        .map(|(field_type, pointer)| field(field_type, at(pointer)))
        .into();
        let json = r#"{"b":false,"i":-9223372036854775808,"f":1e-7,"t":"\u0000é","y":"AA==","w":"2020-07-01T00:25:32.001Z","j":{"x":[1.0]}}"#;
        let records = [input(json), input("{}"), input(json)];
        let inputs: Vec<_> = records.iter().map(|record| record.at(0)).collect();
        let decoded = Decoder::new(&Format::Json, &Format::Text, &fields)
            .expect("readable")
            .decode(&inputs);
        let emitted = Emitted {
            origins: decoded.rows,
            table: decoded.table,
        };
        let encoder = Encoder::new(
            &branch(New, fields),
            &Format::Json,
            &Format::Text,
            &Format::Json,
            &Format::Text,
        )
        .expect("writable");
        let arena = Bump::new();
        let encoded = encoder.encode(&arena, &inputs, &emitted);
        assert_eq!(encoded.origins, [0, 1, 2]);
        assert_eq!(encoded.records[2].value, Some(json.as_bytes()));
    }
}
