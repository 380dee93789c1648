//! What stores and accumulators are made of: Rust types that become rows of a table and rows that become them.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cell::{Cell, Json, Time};
use crate::column::{Cells, Texts};
use crate::error::Result;
use crate::row::Fields;
use crate::schema::{Carried, Field, FieldType};
use crate::table::{Column, Table};

/// A type that can be kept: in a [`Store`](crate::Store), or as an accumulator. These are `bool`, `i64`, `f64`,
/// `String`, `Vec<u8>`, [`Time`], `Json<'static>` and an [`Option`] of one, [`AsJson`] of anything that serde knows,
/// `()` for nothing, and structs that derive [`Fields`](derive@crate::Fields) and [`Clone`] and borrow nothing.
///
/// The places that [`Fields`] gives to fields mean nothing here: what is kept has names and types alone.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in a store or as an accumulator",
    note = "it can be a `bool`, `i64`, `f64`, `String`, `Vec<u8>`, `Time`, `Json<'static>`, an `Option` of one, `()`, `AsJson<T>`",
    note = "or a struct without a lifetime that has `#[derive(Fields, Clone)]`"
)]
pub trait Stored: Clone + 'static {
    /// The columns of a table of such rows.
    type Columns<'a>;

    /// Its fields; `name` is that of the only field, where it has no fields of its own.
    fn fields(name: &str) -> Vec<Field>;

    /// Where each field comes from in a row of an earlier version.
    fn carry_over(name: &str) -> Vec<Carried>;

    /// Views of the columns of a table.
    ///
    /// # Errors
    /// A rule of the contract that the table breaks.
    fn columns<'a>(table: &'a Table) -> Result<Self::Columns<'a>, String>;

    /// A row of the columns.
    fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> Self;

    /// Appends the row to columns of these fields.
    fn write(&self, columns: &mut [Cells]);
}

/// What can be the key of a store: what can be kept and compared. Floats cannot, as they are not [`Eq`].
pub trait Key: Stored + Eq + Hash {}

impl<K: Stored + Eq + Hash> Key for K {}

impl<F> Stored for F
where
    F: for<'a> Fields<Row<'a> = F> + Clone + 'static,
{
    type Columns<'a> = <F as Fields>::Columns<'a>;

    fn fields(_: &str) -> Vec<Field> {
        F::fields().into_iter().map(|mapped| mapped.field).collect()
    }

    fn carry_over(_: &str) -> Vec<Carried> {
        F::carry_over()
    }

    fn columns<'a>(table: &'a Table) -> Result<Self::Columns<'a>, String> {
        F::columns(table, &[])
    }

    #[inline]
    fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> F {
        F::read(columns, row)
    }

    #[inline]
    fn write(&self, columns: &mut [Cells]) {
        F::write(self.clone(), columns);
    }
}

macro_rules! scalar {
    ($scalar:ty, $field_type:ident, $cell:ty, |$read:ident| $owned:expr, |$written:ident| $borrowed:expr) => {
        impl Stored for $scalar {
            type Columns<'a> = <$cell as Cell<'a>>::View;

            fn fields(name: &str) -> Vec<Field> {
                only_field(name, FieldType::$field_type, false)
            }

            fn carry_over(name: &str) -> Vec<Carried> {
                vec![Carried::Same(name.into())]
            }

            fn columns<'a>(table: &'a Table) -> Result<Self::Columns<'a>, String> {
                <$cell as Cell<'a>>::view(only_column(table)?, table.rows as usize)
            }

            #[inline]
            fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> $scalar {
                let $read = <$cell as Cell<'a>>::read(columns, row);
                $owned
            }

            #[inline]
            fn write(&self, columns: &mut [Cells]) {
                let $written = self;
                if let [column] = columns {
                    Cell::write($borrowed, column);
                }
            }
        }

        impl Stored for Option<$scalar> {
            type Columns<'a> = <Option<$cell> as Cell<'a>>::View;

            fn fields(name: &str) -> Vec<Field> {
                only_field(name, FieldType::$field_type, true)
            }

            fn carry_over(name: &str) -> Vec<Carried> {
                vec![Carried::Same(name.into())]
            }

            fn columns<'a>(table: &'a Table) -> Result<Self::Columns<'a>, String> {
                <Option<$cell> as Cell<'a>>::view(only_column(table)?, table.rows as usize)
            }

            #[inline]
            fn read<'a>(columns: &Self::Columns<'a>, row: usize) -> Option<$scalar> {
                let $read = <Option<$cell> as Cell<'a>>::read(columns, row)?;
                Some($owned)
            }

            #[inline]
            fn write(&self, columns: &mut [Cells]) {
                if let [column] = columns {
                    match self {
                        Some($written) => Cell::write($borrowed, column),
                        None => column.push_null(),
                    }
                }
            }
        }
    };
}

scalar!(bool, Boolean, bool, |value| value, |value| *value);
scalar!(i64, Integer, i64, |value| value, |value| *value);
scalar!(f64, Float, f64, |value| value, |value| *value);
scalar!(Time, Time, Time, |value| value, |value| *value);
scalar!(String, Text, &'a str, |text| text.to_owned(), |text| text.as_str());
scalar!(Vec<u8>, Bytes, &'a [u8], |bytes| bytes.to_owned(), |bytes| bytes
    .as_slice());
scalar!(Json<'static>, Json, Json<'a>, |json| json.into_owned(), |json| json
    .borrowed());

fn only_field(name: &str, type_: FieldType, optional: bool) -> Vec<Field> {
    vec![Field {
        name: name.into(),
        type_,
        optional,
    }]
}

fn only_column(table: &Table) -> Result<&Column, String> {
    match table.columns.as_slice() {
        [column] => Ok(column),
        columns => Err(format!("has {} columns instead of 1", columns.len())),
    }
}

/// Anything that serde knows, kept as JSON: for lists, maps and enums. It is read once and written once in a call,
/// however many rows change it. It must not become a JSON `null`, and floats come back exactly as they were only
/// with serde_json's feature `float_roundtrip`.
///
/// ```
/// use millstream_sdk::prelude::*;
/// use std::collections::BTreeSet;
///
/// #[derive(Fields, Clone)]
/// struct Seen {
///     last: Time,
///     zones: AsJson<BTreeSet<i64>>,
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsJson<T>(pub T);

impl<'a, T: Serialize + DeserializeOwned> Cell<'a> for AsJson<T> {
    const TYPE: FieldType = FieldType::Json;
    type View = Texts<'a>;

    fn view(column: &'a Column, rows: usize) -> Result<Texts<'a>, String> {
        Texts::new(column, rows)
    }

    /// # Panics
    /// If what was kept is no `T`: an earlier version wrote another.
    fn read(view: &Texts<'a>, row: usize) -> AsJson<T> {
        match serde_json::from_str(view.get(row)) {
            Ok(value) => AsJson(value),
            Err(error) => panic!("what was kept cannot be read: {error}: {}", view.get(row)),
        }
    }

    fn write(self, cells: &mut Cells) {
        write_json(&self.0, cells);
    }
}

impl<T: Serialize + DeserializeOwned + Clone + 'static> Stored for AsJson<T> {
    type Columns<'a> = Texts<'a>;

    fn fields(name: &str) -> Vec<Field> {
        only_field(name, FieldType::Json, false)
    }

    fn carry_over(name: &str) -> Vec<Carried> {
        vec![Carried::Same(name.into())]
    }

    fn columns<'a>(table: &'a Table) -> Result<Texts<'a>, String> {
        Texts::new(only_column(table)?, table.rows as usize)
    }

    fn read<'a>(columns: &Texts<'a>, row: usize) -> AsJson<T> {
        Cell::read(columns, row)
    }

    fn write(&self, columns: &mut [Cells]) {
        if let [column] = columns {
            write_json(&self.0, column);
        }
    }
}

fn write_json(value: &impl Serialize, cells: &mut Cells) {
    match Json::new(value) {
        Ok(json) => json.write(cells),
        Err(error) => panic!("this cannot be kept as JSON: {error}"),
    }
}

/// Rows as they cross.
pub(crate) fn table<'r, S: Stored>(fields: &[Field], rows: impl ExactSizeIterator<Item = &'r S>) -> Table {
    let count = rows.len();
    let mut columns: Vec<Cells> = fields.iter().map(|field| Cells::new(field.type_, count)).collect();
    for row in rows {
        row.write(&mut columns);
    }
    Table {
        rows: count as u32,
        columns: columns.into_iter().map(Cells::into_column).collect(),
    }
}
