//! Tables: what crosses into a plugin and back.
//!
//! A [`Table`] is a row count and columns that match the fields of a schema by position; `wit/0.1.0/table.wit` draws
//! the bytes. [`Column`]s that the host builds itself keep the rules by construction. Tables of a guest are a
//! stranger's bytes: [`Table::check`] comes first, and only then [`Column::cell`].

use crate::schema::{Field, FieldType};

/// One column: `nulls`, `ends` and `data`, as the contract lays them out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// One byte a row, 1 is null; or empty: no row is null.
    pub nulls: Vec<u8>,
    /// `u32` a row, little-endian: where its cell ends in `data`. Empty for types of a fixed width.
    pub ends: Vec<u8>,
    /// The cells of all rows, end to end.
    pub data: Vec<u8>,
}

/// Rows, a column at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The number of rows, also where there are no columns.
    pub rows: u32,
    /// One for each field of its schema.
    pub columns: Vec<Column>,
}

/// The content of one cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// Of a boolean column.
    Boolean(bool),
    /// Of an integer column.
    Integer(i64),
    /// Of a float column.
    Float(f64),
    /// Of a text column.
    Text(&'a str),
    /// Of a bytes column.
    Bytes(&'a [u8]),
    /// Of a time column: milliseconds since the epoch.
    Time(i64),
    /// Of a json column: one JSON value as text.
    Json(&'a str),
}

/// A rule of the contract that a table breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not as many columns as fields.
    #[error("has {found} columns, but its schema has {expected} fields")]
    Columns {
        /// Fields of the schema.
        expected: usize,
        /// Columns of the table.
        found: usize,
    },
    /// A list of a column is not as long as the rows want it.
    #[error("field {field:?}: `{list}` has {found} bytes, but {rows} rows of type {field_type} need {expected}")]
    Length {
        /// The field's name.
        field: String,
        /// `nulls`, `ends` or `data`.
        list: &'static str,
        /// The field's type.
        field_type: FieldType,
        /// Rows of the table.
        rows: u32,
        /// Bytes that they need.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// A cell breaks a rule.
    #[error("field {field:?}, row {row}: {problem}")]
    Cell {
        /// The field's name.
        field: String,
        /// The first row that breaks it.
        row: u32,
        /// Which rule, and how.
        problem: String,
    },
}

impl Table {
    /// Holds the table against its schema and the rules of the contract.
    ///
    /// # Errors
    /// The first rule that is broken. After `Ok`, [`Column::cell`] may be called for each field and row.
    pub fn check(&self, fields: &[Field]) -> Result<(), TableError> {
        self.check_fields(fields.iter())
    }

    /// As [`Table::check`], for fields that stand in something else.
    ///
    /// # Errors
    /// As there.
    pub fn check_fields<'f>(&self, fields: impl ExactSizeIterator<Item = &'f Field>) -> Result<(), TableError> {
        if self.columns.len() != fields.len() {
            return Err(TableError::Columns {
                expected: fields.len(),
                found: self.columns.len(),
            });
        }
        for (column, field) in self.columns.iter().zip(fields) {
            column.check(field, self.rows)?;
        }
        Ok(())
    }

    /// Bytes of all columns.
    pub fn size_bytes(&self) -> usize {
        self.columns.iter().map(Column::size_bytes).sum()
    }
}

impl Column {
    /// An empty column with room for `rows` rows of `field_type`.
    pub fn with_capacity(field_type: FieldType, rows: usize) -> Column {
        match field_type.width_bytes() {
            Some(width) => Column {
                data: Vec::with_capacity(rows * width),
                ..Column::default()
            },
            None => Column {
                ends: Vec::with_capacity(rows * 4),
                ..Column::default()
            },
        }
    }

    /// Bytes of the three lists.
    pub fn size_bytes(&self) -> usize {
        self.nulls.len() + self.ends.len() + self.data.len()
    }

    /// Appends a cell at row `row`, the number of rows so far.
    ///
    /// # Panics
    /// If the cell is not of the column's type, or `data` would pass 4 GiB: the caller guarantees both.
    #[inline]
    pub fn push(&mut self, field_type: FieldType, row: usize, cell: Cell<'_>) {
        match (field_type, cell) {
            (_, Cell::Null) => return self.push_null(field_type, row),
            (FieldType::Boolean, Cell::Boolean(value)) => self.data.push(u8::from(value)),
            (FieldType::Integer, Cell::Integer(value)) | (FieldType::Time, Cell::Time(value)) => {
                self.data.extend_from_slice(&value.to_le_bytes());
            }
            (FieldType::Float, Cell::Float(value)) => self.data.extend_from_slice(&value.to_le_bytes()),
            (FieldType::Text, Cell::Text(value)) | (FieldType::Json, Cell::Json(value)) => {
                self.push_bytes(value.as_bytes());
            }
            (FieldType::Bytes, Cell::Bytes(value)) => self.push_bytes(value),
            (field_type, cell) => panic!("a {field_type} column takes no {cell:?}"),
        }
        if !self.nulls.is_empty() {
            self.nulls.push(0);
        }
    }

    fn push_null(&mut self, field_type: FieldType, row: usize) {
        if self.nulls.is_empty() {
            self.nulls.resize(row, 0);
        }
        self.nulls.push(1);
        match field_type.width_bytes() {
            Some(width) => self.data.resize(self.data.len() + width, 0),
            None => self.push_bytes(&[]),
        }
    }

    fn push_bytes(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        let end = u32::try_from(self.data.len()).expect("a batch is bounded far below 4 GiB");
        self.ends.extend_from_slice(&end.to_le_bytes());
    }

    /// Takes back the cells behind the first `rows` rows.
    pub fn truncate(&mut self, field_type: FieldType, rows: usize) {
        self.nulls.truncate(rows);
        match field_type.width_bytes() {
            Some(width) => self.data.truncate(rows * width),
            None => {
                self.ends.truncate(rows * 4);
                self.data
                    .truncate(self.ends.len().checked_sub(4).map_or(0, |at| self.end(at / 4)));
            }
        }
    }

    /// The cell of a row of a column that was checked, or that the host built.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn cell(&self, field_type: FieldType, row: usize) -> Cell<'_> {
        if self.nulls.get(row) == Some(&1) {
            return Cell::Null;
        }
        match field_type {
            FieldType::Boolean => Cell::Boolean(self.data[row] == 1),
            FieldType::Integer => Cell::Integer(i64::from_le_bytes(self.eight(row))),
            FieldType::Float => Cell::Float(f64::from_le_bytes(self.eight(row))),
            FieldType::Time => Cell::Time(i64::from_le_bytes(self.eight(row))),
            FieldType::Bytes => Cell::Bytes(self.bytes(row)),
            FieldType::Text => Cell::Text(self.text(row)),
            FieldType::Json => Cell::Json(self.text(row)),
        }
    }

    fn eight(&self, row: usize) -> [u8; 8] {
        self.data[row * 8..row * 8 + 8].try_into().expect("eight bytes")
    }

    fn end(&self, row: usize) -> usize {
        u32::from_le_bytes(self.ends[row * 4..row * 4 + 4].try_into().expect("four bytes")) as usize
    }

    fn bytes(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.end(row - 1) };
        &self.data[start..self.end(row)]
    }

    fn text(&self, row: usize) -> &str {
        std::str::from_utf8(self.bytes(row)).expect("text was checked or built by the host")
    }

    fn check(&self, field: &Field, rows: u32) -> Result<(), TableError> {
        let count = rows as usize;
        let length = |list, expected: usize, found: usize| {
            if expected == found {
                return Ok(());
            }
            Err(TableError::Length {
                field: field.name.clone(),
                list,
                field_type: field.field_type,
                rows,
                expected,
                found,
            })
        };
        if !self.nulls.is_empty() {
            length("nulls", count, self.nulls.len())?;
            if let Some(row) = self.nulls.iter().position(|&null| null > 1) {
                return Err(cell_error(
                    field,
                    row,
                    format!("`nulls` holds {}, not 0 or 1", self.nulls[row]),
                ));
            }
            if !field.optional
                && let Some(row) = memchr::memchr(1, &self.nulls)
            {
                return Err(cell_error(field, row, "is null, but the field is not optional".into()));
            }
        }
        if let Some(width) = field.field_type.width_bytes() {
            length("ends", 0, self.ends.len())?;
            length("data", count * width, self.data.len())?;
            if field.field_type == FieldType::Boolean
                && let Some(row) = self.data.iter().position(|&cell| cell > 1)
            {
                return Err(cell_error(
                    field,
                    row,
                    format!("a boolean is 0 or 1, not {}", self.data[row]),
                ));
            }
            return Ok(());
        }
        length("ends", count * 4, self.ends.len())?;
        self.check_ends(field, count)?;
        match field.field_type {
            FieldType::Text => self.check_text(field, count),
            FieldType::Json => {
                self.check_text(field, count)?;
                self.check_json(field, count)
            }
            _ => Ok(()),
        }
    }

    fn check_ends(&self, field: &Field, rows: usize) -> Result<(), TableError> {
        let mut before = 0;
        for row in 0..rows {
            let end = self.end(row);
            if end < before {
                return Err(cell_error(field, row, format!("`ends` falls from {before} to {end}")));
            }
            if end > self.data.len() {
                let problem = format!("ends at byte {end}, but `data` has {}", self.data.len());
                return Err(cell_error(field, row, problem));
            }
            before = end;
        }
        if before != self.data.len() {
            return Err(TableError::Length {
                field: field.name.clone(),
                list: "data",
                field_type: field.field_type,
                rows: rows as u32,
                expected: before,
                found: self.data.len(),
            });
        }
        Ok(())
    }

    fn check_text(&self, field: &Field, rows: usize) -> Result<(), TableError> {
        // One pass over all of it; then a cell is text where it begins and ends between characters.
        if let Ok(text) = std::str::from_utf8(&self.data)
            && (text.is_ascii() || (0..rows).all(|row| text.is_char_boundary(self.end(row))))
        {
            return Ok(());
        }
        let row = (0..rows)
            .find(|&row| std::str::from_utf8(self.bytes(row)).is_err())
            .expect("a cell that is not UTF-8, as the whole is not");
        Err(cell_error(field, row, "is not UTF-8".into()))
    }

    fn check_json(&self, field: &Field, rows: usize) -> Result<(), TableError> {
        for row in (0..rows).filter(|&row| self.nulls.get(row) != Some(&1)) {
            let text = self.text(row);
            if text.trim_ascii() == "null" {
                return Err(cell_error(
                    field,
                    row,
                    "holds the text `null`; a JSON null is a null cell".into(),
                ));
            }
            if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
                return Err(cell_error(field, row, format!("is not JSON: {error}")));
            }
        }
        Ok(())
    }
}

fn cell_error(field: &Field, row: usize, problem: String) -> TableError {
    TableError::Cell {
        field: field.name.clone(),
        row: row as u32,
        problem,
    }
}

/// Numbers of four bytes, little-endian, end to end: origins and groups.
///
/// # Errors
/// `None` where the bytes are no multiple of four.
pub fn packed_u32(bytes: &[u8]) -> Option<impl ExactSizeIterator<Item = u32> + '_> {
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    Some(
        bytes
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(field_type: FieldType, optional: bool) -> Field {
        Field {
            name: "f".into(),
            field_type,
            optional,
        }
    }

    fn table(field_type: FieldType, cells: &[Cell<'_>]) -> Table {
        let mut column = Column::with_capacity(field_type, cells.len());
        for (row, cell) in cells.iter().enumerate() {
            column.push(field_type, row, *cell);
        }
        Table {
            rows: cells.len() as u32,
            columns: vec![column],
        }
    }

    #[test]
    fn what_is_pushed_is_read_back_and_passes_the_check() {
        let cases: &[(FieldType, &[Cell<'_>])] = &[
            (
                FieldType::Boolean,
                &[Cell::Boolean(true), Cell::Null, Cell::Boolean(false)],
            ),
            (
                FieldType::Integer,
                &[Cell::Integer(i64::MIN), Cell::Integer(i64::MAX), Cell::Null],
            ),
            (
                FieldType::Float,
                &[Cell::Null, Cell::Float(-0.5), Cell::Float(f64::INFINITY)],
            ),
            (
                FieldType::Text,
                &[Cell::Text(""), Cell::Null, Cell::Text("é😀"), Cell::Text("")],
            ),
            (FieldType::Bytes, &[Cell::Bytes(&[0xff]), Cell::Bytes(&[]), Cell::Null]),
            (FieldType::Time, &[Cell::Time(-1), Cell::Time(0)]),
            (
                FieldType::Json,
                &[Cell::Json("{\"a\":[1]}"), Cell::Null, Cell::Json("\"null\"")],
            ),
        ];
        for (field_type, cells) in cases {
            let mut table = table(*field_type, cells);
            assert_eq!(table.check(&[field(*field_type, true)]), Ok(()), "{field_type}");
            for (row, cell) in cells.iter().enumerate() {
                assert_eq!(table.columns[0].cell(*field_type, row), *cell, "{field_type} {row}");
            }
            table.columns[0].truncate(*field_type, 2);
            table.rows = 2;
            assert_eq!(
                table.check(&[field(*field_type, true)]),
                Ok(()),
                "{field_type} truncated"
            );
            assert_eq!(table.columns[0].cell(*field_type, 1), cells[1]);
        }
    }

    #[test]
    fn each_broken_rule_is_named() {
        let text = || table(FieldType::Text, &[Cell::Text("é"), Cell::Text("b")]);
        let broken: Vec<(&str, FieldType, bool, Table)> = vec![
            (
                "has 0 columns",
                FieldType::Text,
                false,
                Table {
                    rows: 1,
                    columns: vec![],
                },
            ),
            (
                "not optional",
                FieldType::Text,
                false,
                table(FieldType::Text, &[Cell::Text("a"), Cell::Null]),
            ),
            (
                "`nulls` holds 2",
                FieldType::Text,
                true,
                with(text(), |c| c.nulls = vec![0, 2]),
            ),
            (
                "`nulls` has 1 bytes",
                FieldType::Text,
                true,
                with(text(), |c| c.nulls = vec![0]),
            ),
            (
                "`ends` has 4 bytes",
                FieldType::Text,
                true,
                with(text(), |c| c.ends.truncate(4)),
            ),
            ("`ends` falls", FieldType::Text, true, with(text(), |c| c.ends[4] = 1)),
            ("ends at byte 9", FieldType::Text, true, with(text(), |c| c.ends[4] = 9)),
            (
                "`data` has 4 bytes",
                FieldType::Text,
                true,
                with(text(), |c| c.data.push(b'x')),
            ),
            (
                "row 1: is not UTF-8",
                FieldType::Text,
                true,
                with(text(), |c| c.data[2] = 0xff),
            ),
            (
                "row 0: is not UTF-8",
                FieldType::Text,
                true,
                with(text(), |c| c.ends[0] = 1),
            ),
            (
                "`data` has 3 bytes",
                FieldType::Integer,
                true,
                with(text(), |c| c.ends.clear()),
            ),
            ("`ends` has 8 bytes", FieldType::Integer, true, text()),
            (
                "0 or 1, not 7",
                FieldType::Boolean,
                true,
                with(table(FieldType::Boolean, &[Cell::Boolean(true)]), |c| c.data[0] = 7),
            ),
            ("is not JSON", FieldType::Json, true, text()),
            (
                "text `null`",
                FieldType::Json,
                true,
                table(FieldType::Json, &[Cell::Json("null")]),
            ),
        ];
        for (message, field_type, optional, table) in broken {
            let error = table
                .check(&[field(field_type, optional)])
                .expect_err(message)
                .to_string();
            assert!(error.contains(message), "{error:?} does not say {message:?}");
        }
    }

    fn with(mut table: Table, change: impl FnOnce(&mut Column)) -> Table {
        change(&mut table.columns[0]);
        table
    }

    #[test]
    fn packed_numbers_come_in_fours() {
        assert_eq!(
            packed_u32(&[1, 0, 0, 0, 0, 1, 0, 0]).map(Iterator::collect::<Vec<_>>),
            Some(vec![1, 256])
        );
        assert!(packed_u32(&[1, 2, 3]).is_none());
    }
}
