//! What the binding generator makes of the contract, and the types that it cannot make.
//!
//! A batch goes in by reference: the generator's own types would own their bytes.

use wasmtime::component::{ComponentType, Lift, Lower};

use crate::table::{Column, Table};

#[allow(missing_docs)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../wit/0.1.0",
        // Both kinds in one world, so that there is one set of types.
        inline: "package millstream:host;
            world every-plugin {
                include millstream:plugin/processor-plugin@0.1.0;
                include millstream:plugin/aggregator-plugin@0.1.0;
            }",
        world: "millstream:host/every-plugin",
        imports: { default: trappable },
    });
}

pub use generated::exports::millstream::plugin::aggregator::{Accumulated, Accumulator};
pub use generated::exports::millstream::plugin::lifecycle::{Guest as Lifecycle, GuestIndices as LifecycleIndices};
pub use generated::millstream::plugin::{metrics, output, schema, state, table};

/// The version of the contract in `wit/` that this host speaks; it takes every plugin of `0.1.x`.
pub const CONTRACT_VERSION: &str = "0.1.0";
/// The package of the contract.
pub const CONTRACT_PACKAGE: &str = "millstream:plugin";
/// The interface of every plugin.
pub const LIFECYCLE: &str = "millstream:plugin/lifecycle@0.1.0";
/// The interface of a plugin that takes batches.
pub const PROCESSOR: &str = "millstream:plugin/processor@0.1.0";
/// The interface of a plugin that folds rows.
pub const AGGREGATOR: &str = "millstream:plugin/aggregator@0.1.0";
/// The interface of log lines.
pub const LOG: &str = "millstream:plugin/log@0.1.0";

/// `column`, lent to the guest.
#[derive(ComponentType, Lower)]
#[component(record)]
pub struct LentColumn<'a> {
    nulls: &'a [u8],
    ends: &'a [u8],
    data: &'a [u8],
}

/// `table`, lent to the guest.
#[derive(ComponentType, Lower)]
#[component(record)]
pub struct LentTable<'a> {
    rows: u32,
    columns: Vec<LentColumn<'a>>,
}

impl<'a> From<&'a Table> for LentTable<'a> {
    fn from(table: &'a Table) -> Self {
        let lend = |column: &'a Column| LentColumn {
            nulls: &column.nulls,
            ends: &column.ends,
            data: &column.data,
        };
        LentTable {
            rows: table.rows,
            columns: table.columns.iter().map(lend).collect(),
        }
    }
}

/// `log.level`.
#[expect(dead_code, reason = "guests make them")]
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum LogLevel {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<table::Column> for Column {
    fn from(column: table::Column) -> Self {
        Column {
            nulls: column.nulls,
            ends: column.ends,
            data: column.data,
        }
    }
}

impl From<Column> for table::Column {
    fn from(column: Column) -> Self {
        table::Column {
            nulls: column.nulls,
            ends: column.ends,
            data: column.data,
        }
    }
}

impl From<table::Table> for Table {
    fn from(table: table::Table) -> Self {
        Table {
            rows: table.rows,
            columns: table.columns.into_iter().map(Column::from).collect(),
        }
    }
}

impl From<Table> for table::Table {
    fn from(table: Table) -> Self {
        table::Table {
            rows: table.rows,
            columns: table.columns.into_iter().map(table::Column::from).collect(),
        }
    }
}
