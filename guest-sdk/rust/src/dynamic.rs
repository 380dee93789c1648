//! Rows whose fields are known when the plugin is configured, not when it is written.

use std::borrow::Cow;
use std::rc::Rc;

use crate::cell::{Cell, Json, Time};
use crate::column::{Blobs, Booleans, Cells, Numbers, Optional, Texts};
use crate::row::Fields;
use crate::schema::{FieldType, MappedField};
use crate::table::{Column, Table};

/// A cell of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyCell<'a> {
    /// No value.
    Null,
    /// Of a boolean field.
    Boolean(bool),
    /// Of an integer field.
    Integer(i64),
    /// Of a float field.
    Float(f64),
    /// Of a text field.
    Text(Cow<'a, str>),
    /// Of a bytes field.
    Bytes(Cow<'a, [u8]>),
    /// Of a time field.
    Time(Time),
    /// Of a json field.
    Json(Json<'a>),
}

impl<'a> AnyCell<'a> {
    /// A text cell.
    pub fn text(text: impl Into<Cow<'a, str>>) -> AnyCell<'a> {
        AnyCell::Text(text.into())
    }

    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, AnyCell::Null)
    }

    fn write(self, cells: &mut Cells) {
        match (cells.field_type(), self) {
            (_, AnyCell::Null) => cells.push_null(),
            (FieldType::Boolean, AnyCell::Boolean(value)) => value.write(cells),
            (FieldType::Integer, AnyCell::Integer(value)) => value.write(cells),
            (FieldType::Float, AnyCell::Float(value)) => value.write(cells),
            (FieldType::Text, AnyCell::Text(value)) => value.write(cells),
            (FieldType::Bytes, AnyCell::Bytes(value)) => cells.push_bytes(&value),
            (FieldType::Time, AnyCell::Time(value)) => value.write(cells),
            (FieldType::Json, AnyCell::Json(value)) => value.write(cells),
            (field_type, cell) => panic!("a field of type {field_type:?} was given {cell:?}"),
        }
    }
}

/// A row whose fields [`Processor::signature`](crate::Processor::signature) adds to an input or a branch, which
/// otherwise has none. `AnyRow<'static>` is the input's type, or that of a variant of the branches.
///
/// ```
/// use millstream_sdk::prelude::*;
/// use millstream_sdk::schema::MappedField;
/// use millstream_sdk::{AnyCell, AnyRow, testing};
/// use serde_json::json;
///
/// /// Drops records in which one of some fields is missing.
/// #[derive(Config, Plugin)]
/// struct Complete {
///     fields: Vec<Pointer>,
/// }
///
/// #[derive(Branches)]
/// enum Out {
///     Complete,
/// }
///
/// impl Processor for Complete {
///     type Input = AnyRow<'static>;
///     type Output = Out;
///
///     fn signature(&self, signature: &mut Signature) {
///         let fields = &mut signature.input_mut("input").fields;
///         for field in &self.fields {
///             fields.push(MappedField::new(field.as_str(), FieldType::Json, true, Place::Value(field.clone().into())));
///         }
///     }
///
///     fn process(&mut self, row: AnyRow<'_>, out: &mut Output<Out>) -> Result<()> {
///         if !row.cells.iter().any(AnyCell::is_null) {
///             out.emit(Out::Complete);
///         }
///         Ok(())
///     }
/// }
///
/// let records = [json!({"a": 1, "b": 2}), json!({"a": 1})];
/// let outcome = testing::run::<Complete>(json!({"fields": ["/a", "/b"]}), records).unwrap();
/// assert_eq!(outcome.values("complete"), [json!({"a": 1, "b": 2})]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AnyRow<'a> {
    /// A cell for each field, in their order.
    pub cells: Vec<AnyCell<'a>>,
}

impl<'a> AnyRow<'a> {
    /// A row of these cells.
    pub fn new(cells: impl IntoIterator<Item = AnyCell<'a>>) -> AnyRow<'a> {
        AnyRow {
            cells: cells.into_iter().collect(),
        }
    }
}

/// The columns of a batch of [`AnyRow`].
#[derive(Clone, Debug)]
pub struct AnyColumns<'a>(Rc<[AnyColumn<'a>]>);

#[derive(Clone, Debug)]
enum AnyColumn<'a> {
    Boolean(Optional<'a, Booleans<'a>>),
    Integer(Optional<'a, Numbers<'a, i64>>),
    Float(Optional<'a, Numbers<'a, f64>>),
    Text(Optional<'a, Texts<'a>>),
    Bytes(Optional<'a, Blobs<'a>>),
    Time(Optional<'a, Numbers<'a, Time>>),
    Json(Optional<'a, Texts<'a>>),
}

impl<'a> AnyColumn<'a> {
    fn new(column: &'a Column, field_type: FieldType, rows: usize) -> Result<AnyColumn<'a>, String> {
        Ok(match field_type {
            FieldType::Boolean => AnyColumn::Boolean(<Option<bool>>::view(column, rows)?),
            FieldType::Integer => AnyColumn::Integer(<Option<i64>>::view(column, rows)?),
            FieldType::Float => AnyColumn::Float(<Option<f64>>::view(column, rows)?),
            FieldType::Text => AnyColumn::Text(<Option<&str>>::view(column, rows)?),
            FieldType::Bytes => AnyColumn::Bytes(<Option<&[u8]>>::view(column, rows)?),
            FieldType::Time => AnyColumn::Time(<Option<Time>>::view(column, rows)?),
            FieldType::Json => AnyColumn::Json(<Option<Json<'_>>>::view(column, rows)?),
        })
    }

    fn cell(&self, row: usize) -> AnyCell<'a> {
        fn read<'a, T: Cell<'a>>(
            view: &Optional<'a, T::View>,
            row: usize,
            cell: impl FnOnce(T) -> AnyCell<'a>,
        ) -> AnyCell<'a> {
            <Option<T>>::read(view, row).map_or(AnyCell::Null, cell)
        }
        match self {
            AnyColumn::Boolean(view) => read(view, row, AnyCell::Boolean),
            AnyColumn::Integer(view) => read(view, row, AnyCell::Integer),
            AnyColumn::Float(view) => read(view, row, AnyCell::Float),
            AnyColumn::Text(view) => read(view, row, AnyCell::Text),
            AnyColumn::Bytes(view) => read(view, row, |bytes: &[u8]| AnyCell::Bytes(Cow::Borrowed(bytes))),
            AnyColumn::Time(view) => read(view, row, AnyCell::Time),
            AnyColumn::Json(view) => read(view, row, AnyCell::Json),
        }
    }
}

impl Fields for AnyRow<'static> {
    type Row<'a> = AnyRow<'a>;
    type Columns<'a> = AnyColumns<'a>;
    const DYNAMIC: bool = true;

    fn fields() -> Vec<MappedField> {
        Vec::new()
    }

    fn columns<'a>(table: &'a Table, fields: &[MappedField]) -> Result<AnyColumns<'a>, String> {
        if table.columns.len() != fields.len() {
            return Err(format!(
                "has {} columns instead of {}",
                table.columns.len(),
                fields.len()
            ));
        }
        let columns = table.columns.iter().zip(fields).map(|(column, mapped)| {
            AnyColumn::new(column, mapped.field.type_, table.rows as usize)
                .map_err(|problem| format!("field {:?}: {problem}", mapped.field.name))
        });
        Ok(AnyColumns(columns.collect::<Result<_, _>>()?))
    }

    fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> Self::Row<'a> {
        AnyRow::new(columns.0.iter().map(|column| column.cell(row)))
    }

    fn write(row: AnyRow<'_>, columns: &mut [Cells]) {
        assert_eq!(
            row.cells.len(),
            columns.len(),
            "a row has a cell for each field of its branch"
        );
        for (cell, column) in row.cells.into_iter().zip(columns) {
            cell.write(column);
        }
    }
}
