//! What a call emits: rows for branches, and rows that failed.

use std::fmt::Display;
use std::marker::PhantomData;

use crate::column::Cells;
use crate::schema::Branch;
use millstream_sdk_bindings::millstream::plugin::output::{Emitted, Failure, Outputs};

/// The branches of a plugin. Derived, for an enum: a unit variant forwards the input row as it is, a variant with
/// fields writes them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` says nothing of branches",
    note = "put `#[derive(Branches)]` on an enum with a variant for each branch",
    note = "if it borrows, name it with the lifetime 'static: `Out<'static>`"
)]
pub trait Branches {
    /// A row for one of the branches.
    type Row<'a>;

    /// The branches, in the order of the contract's lists.
    fn branches() -> Vec<Branch>;

    /// Whether the fields of branch `branch` are only known when the plugin is configured.
    fn is_dynamic(branch: usize) -> bool;

    /// Appends a row that comes from input row `origin` to its branch.
    fn emit(row: Self::Row<'_>, origin: u32, emissions: &mut [Emission]);
}

/// The rows of one branch.
#[derive(Clone, Debug)]
pub struct Emission {
    origins: Vec<[u8; 4]>,
    columns: Vec<Cells>,
}

impl Emission {
    fn new(branch: &Branch, rows: usize) -> Emission {
        Emission {
            origins: Vec::with_capacity(rows),
            columns: branch
                .fields
                .iter()
                .map(|mapped| Cells::new(mapped.field.type_, rows))
                .collect(),
        }
    }

    /// Names the next row's origin, and gives the columns that take its cells.
    #[inline]
    pub fn next(&mut self, origin: u32) -> &mut [Cells] {
        self.origins.push(origin.to_le_bytes());
        &mut self.columns
    }

    #[cold]
    fn remove(&mut self, origin: u32) {
        let start = self.origins.partition_point(|&row| u32::from_le_bytes(row) < origin);
        let end = self.origins.partition_point(|&row| u32::from_le_bytes(row) <= origin);
        if start == end {
            return;
        }
        self.origins.drain(start..end);
        for column in &mut self.columns {
            column.remove(start..end);
        }
    }
}

/// Takes what a call emits.
#[derive(Debug)]
pub struct Output<B: Branches> {
    row: u32,
    emissions: Vec<Emission>,
    failed: Vec<Failure>,
    branches: PhantomData<B>,
}

impl<B: Branches> Output<B> {
    pub(crate) fn new(branches: &[Branch], rows: u32) -> Self {
        Output {
            row: 0,
            emissions: branches
                .iter()
                .map(|branch| Emission::new(branch, rows as usize))
                .collect(),
            failed: Vec::new(),
            branches: PhantomData,
        }
    }

    /// Emits a row that comes from the current input row, which may emit several or none: to each branch they go in
    /// this order.
    #[inline]
    pub fn emit(&mut self, row: B::Row<'_>) {
        B::emit(row, self.row, &mut self.emissions);
    }

    /// Makes `row` the current input row. In a [`Processor`](crate::Processor) the SDK does it; in a
    /// [`BatchProcessor`](crate::BatchProcessor) the rows must not descend within a branch.
    #[inline]
    pub fn at(&mut self, row: u32) -> &mut Self {
        self.row = row;
        self
    }

    /// Emits rows, each with the input row that it comes from; those must not descend.
    #[inline]
    pub fn emit_all<'r>(&mut self, rows: impl IntoIterator<Item = (u32, B::Row<'r>)>) {
        for (row, emitted) in rows {
            B::emit(emitted, row, &mut self.emissions);
        }
    }

    /// Sends the current input row to the dead-letter queue with a message, and takes back what it emitted.
    #[cold]
    pub fn fail(&mut self, message: impl Display) {
        let row = self.row;
        for emission in &mut self.emissions {
            emission.remove(row);
        }
        if !self.failed.iter().any(|failure| failure.row == row) {
            self.failed.push(Failure {
                row,
                message: message.to_string(),
            });
        }
    }

    /// Whether the current input row is the last that failed.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.last().is_some_and(|failure| failure.row == self.row)
    }

    pub(crate) fn finish(self) -> Outputs {
        let emitted = |emission: Emission| Emitted {
            origins: emission.origins.into_flattened(),
            columns: emission.columns.into_iter().map(Cells::into_column).collect(),
        };
        Outputs {
            branches: self.emissions.into_iter().map(emitted).collect(),
            failed: self.failed,
        }
    }
}
