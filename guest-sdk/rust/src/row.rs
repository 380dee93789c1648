//! Rows and the streams that they come from.

use crate::column::Cells;
use crate::schema::{self, Carried, MappedField};
use crate::table::Table;

/// A row's fields: their names, types and places, and how they lie in columns. Derived.
///
/// A row that borrows its text has a lifetime, and the trait is then implemented for `Ride<'static>`; what a method
/// is given is a [`Row`](Fields::Row) of the batch.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a row",
    note = "put `#[derive(Fields)]` on the struct; if it borrows, name it with the lifetime 'static: `Ride<'static>`"
)]
pub trait Fields {
    /// The row, borrowing from its batch where it borrows.
    type Row<'a>;
    /// The columns of a batch, each a typed view.
    type Columns<'a>;
    /// Whether the fields are only known when the plugin is configured.
    const DYNAMIC: bool = false;

    /// The fields, in the order of the columns.
    fn fields() -> Vec<MappedField>;

    /// Where each field comes from in a row that an earlier version of the plugin kept in a store.
    fn carry_over() -> Vec<Carried> {
        Self::fields()
            .into_iter()
            .map(|mapped| Carried::Same(mapped.field.name))
            .collect()
    }

    /// Views of the columns of a table with such fields.
    ///
    /// # Errors
    /// A rule of the contract that the table breaks.
    fn columns<'a>(table: &'a Table, fields: &[MappedField]) -> Result<Self::Columns<'a>, String>;

    /// A row of the columns.
    fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> Self::Row<'a>;

    /// Appends a row to columns of these fields.
    fn write(row: Self::Row<'_>, columns: &mut [Cells]);
}

/// A row without fields: for a plugin that reads nothing of its records, and for a store that is a set of keys.
impl Fields for () {
    type Row<'a> = ();
    type Columns<'a> = ();

    fn fields() -> Vec<MappedField> {
        Vec::new()
    }

    fn columns(_: &Table, _: &[MappedField]) -> Result<(), String> {
        Ok(())
    }

    fn read<'a>((): &Self::Columns<'a>, _: usize) -> Self::Row<'a> {}

    fn write((): Self::Row<'_>, _: &mut [Cells]) {}
}

/// What a plugin reads: a row type, or a `#[derive(Inputs)]` enum with one for each stream.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an input",
    note = "put `#[derive(Fields)]` on a struct, or `#[derive(Inputs)]` on an enum of such structs",
    note = "if it borrows, name it with the lifetime 'static: `Ride<'static>`"
)]
pub trait Input {
    /// A row of any of the streams.
    type Row<'a>;
    /// The columns of a batch, which is of one stream.
    type Columns<'a>;

    /// The streams.
    fn inputs() -> Vec<schema::Input>;

    /// Whether the fields of stream `input` are only known when the plugin is configured.
    fn is_dynamic(input: usize) -> bool;

    /// Views of the columns of a table of stream `input`.
    ///
    /// # Errors
    /// If there is no such stream, or a rule of the contract that the table breaks.
    fn columns<'a>(input: usize, table: &'a Table, fields: &[MappedField]) -> Result<Self::Columns<'a>, String>;

    /// A row of the columns.
    fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> Self::Row<'a>;
}

/// The stream of a plugin with one input is named `input`.
impl<F: Fields> Input for F {
    type Row<'a> = F::Row<'a>;
    type Columns<'a> = F::Columns<'a>;

    fn inputs() -> Vec<schema::Input> {
        vec![schema::Input {
            name: "input".into(),
            fields: F::fields(),
        }]
    }

    fn is_dynamic(_: usize) -> bool {
        F::DYNAMIC
    }

    fn columns<'a>(_: usize, table: &'a Table, fields: &[MappedField]) -> Result<Self::Columns<'a>, String> {
        F::columns(table, fields)
    }

    #[inline]
    fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> Self::Row<'a> {
        F::read(columns, row)
    }
}

/// The rows of one call.
#[derive(Debug)]
pub struct Batch<'a, I: Input> {
    rows: u32,
    /// A typed view of each field, under the field's name.
    pub columns: I::Columns<'a>,
}

impl<'a, I: Input> Batch<'a, I> {
    pub(crate) fn new(rows: u32, columns: I::Columns<'a>) -> Self {
        Batch { rows, columns }
    }

    /// The number of rows, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> u32 {
        self.rows
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn row(&self, row: u32) -> I::Row<'a> {
        I::read(&self.columns, row as usize)
    }

    /// All rows, each with its number.
    #[inline]
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (u32, I::Row<'a>)> + '_ {
        (0..self.rows).map(|row| (row, self.row(row)))
    }
}
