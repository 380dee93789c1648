//! Stores by columns, as the contract has them: for a [`BatchProcessor`](crate::BatchProcessor) to which a typed
//! [`Store`](crate::Store) is not fast enough or does not fit. Only a processor may call these.
//!
//! A store is named by its place in [`Signature::stores`](crate::schema::Signature), and is declared there: by the
//! plugin's own [`signature`](crate::BatchProcessor::signature), behind those of its typed stores. A call sees what it
//! wrote itself. What is written here is not taken back when a row fails.
//!
//! ```
//! use millstream_sdk::column::Cells;
//! use millstream_sdk::prelude::*;
//! use millstream_sdk::schema::{Field, FieldType, Store};
//! use millstream_sdk::table::Table;
//! use millstream_sdk::{Cell, state, testing};
//! use serde_json::json;
//!
//! /// Passes on a ride whose vendor was not seen before.
//! #[derive(Config, Plugin)]
//! struct New;
//!
//! #[derive(Fields)]
//! struct Ride {
//!     vendor: i64,
//! }
//!
//! #[derive(Branches)]
//! enum Out {
//!     New,
//! }
//!
//! impl BatchProcessor for New {
//!     type Input = Ride;
//!     type Output = Out;
//!
//!     fn signature(&self, signature: &mut Signature) {
//!         let vendor = Field { name: "vendor".into(), type_: FieldType::Integer, optional: false };
//!         signature.stores.push(Store {
//!             name: "seen".into(),
//!             key: vec![vendor],
//!             value: vec![],
//!             ordered: false,
//!             time_to_live: 0,
//!             carry_over: vec![],
//!         });
//!     }
//!
//!     fn process_batch(&mut self, batch: &Batch<'_, Ride>, out: &mut Output<Out>) -> Result<()> {
//!         let mut vendors = Cells::new(FieldType::Integer, batch.len() as usize);
//!         batch.columns.vendor.iter().for_each(|vendor| vendor.write(&mut vendors));
//!         let keys = Table { rows: batch.len(), columns: vec![vendors.into_column()] };
//!         let found = state::get(0, &keys);
//!         state::put(0, &keys, &Table { rows: keys.rows, columns: vec![] });
//!         for row in (0..batch.len()).filter(|&row| found.absent.get(row as usize) == Some(&1)) {
//!             out.at(row).emit(Out::New);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut tester = testing::Tester::<New>::new(json!({})).unwrap();
//! assert_eq!(tester.process("input", [json!({"vendor": 1})]).unwrap().branch("new").len(), 1);
//! assert_eq!(tester.process("input", [json!({"vendor": 1})]).unwrap().branch("new").len(), 0);
//! ```

pub use crate::bindings::processor::millstream::plugin::state::{Found, Scanned};

use crate::host;
use crate::table::Table;

/// The values of keys, which may repeat.
///
/// # Panics
/// If the host refuses: there is no such store, or the keys are not its keys.
pub fn get(store: u32, keys: &Table) -> Found {
    host::get(store, keys)
}

/// Sets the values of keys. Where a key repeats the last row counts.
///
/// # Panics
/// If the host refuses: there is no such store, or keys or values are not its own.
pub fn put(store: u32, keys: &Table, values: &Table) {
    host::put(store, keys, values);
}

/// Takes keys out of a store.
///
/// # Panics
/// If the host refuses: there is no such store, or the keys are not its keys.
pub fn delete(store: u32, keys: &Table) {
    host::delete(store, keys);
}

/// Rows of an ordered store whose keys begin with the cells of `prefix`, behind the key `after`.
///
/// # Panics
/// If the host refuses: there is no such store, it is not ordered, or the cells are not those of its keys.
pub fn scan(store: u32, prefix: &Table, after: &Table, limit: u32) -> Scanned {
    host::scan(store, prefix, after, limit)
}
