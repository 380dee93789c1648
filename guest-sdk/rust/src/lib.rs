//! Write Millstream plugins in Rust.
//!
//! A plugin does not parse records. It says which fields it reads and which it emits, with their types; the host decodes
//! a batch of records into columns, calls the plugin, and encodes what comes back, whatever the format of the topic is.
//! This crate hides the columns: a plugin sees rows, which are structs, and emits rows of its branches.
//!
//! ```
//! use millstream_sdk::prelude::*;
//!
//! #[derive(Config, Plugin)]
//! struct Split {
//!     /// Rides above this amount are high.
//!     #[config(default = 40.0)]
//!     threshold: f64,
//! }
//!
//! #[derive(Fields)]
//! struct Ride {
//!     #[field(path = "/total_amount")]
//!     amount: f64,
//! }
//!
//! #[derive(Branches)]
//! enum By {
//!     High,
//!     Low,
//! }
//!
//! impl Processor for Split {
//!     type Input = Ride;
//!     type Output = By;
//!
//!     fn process(&mut self, ride: Ride, out: &mut Output<By>) -> Result<()> {
//!         out.emit(if ride.amount > self.threshold { By::High } else { By::Low });
//!         Ok(())
//!     }
//! }
//!
//! millstream_sdk::export!(Split);
//! # fn main() {}
//! ```
//!
//! The crate's `Cargo.toml` says `crate-type = ["cdylib", "rlib"]`; its name, version and description are the plugin's.
//! `millstream build` makes a component of it.
//!
//! # The parts
//!
//! - **Rows**: [`derive@Fields`] says where in a record each field lies: in the value, the key, a header, the
//!   timestamp. A field is a `bool`, `i64`, `f64`, `&str` or `String`, `&[u8]` or `Vec<u8>`, [`Time`] or [`Json`]; an
//!   [`Option`] of one may be null. [`derive@Inputs`] is for plugins that read several streams. A row that borrows its
//!   text costs no copy; it has a lifetime, and is named as `Ride<'static>` where a plugin says what it reads.
//! - **Branches**: [`derive@Branches`] says what is emitted: input rows as they are, or with fields added, or new ones.
//! - **Kinds**: a [`Processor`] sees a row at a time, a [`BatchProcessor`] the typed columns of a batch, and an
//!   [`Aggregator`] folds the rows of a group into one.
//! - **Settings**: [`derive@Config`] reads a configuration, with all mistakes at once, and describes it by a JSON Schema.
//!   Where a setting says which field is read, [`Processor::signature`] changes the [`schema`]; where it says how many,
//!   there is [`AnyRow`].
//! - **Errors**: a row whose `process` returns an [`Error`] (any error, by `?`) goes to the dead-letter queue with its
//!   message, and what it emitted is taken back. A panic is a bug: the host isolates the row that causes it.
//! - **Operators** see what [`log`] and [`metrics`] are told.
//! - **Tests** run natively, without a host: [`testing`].
//!
//! A plugin has no clock, no randomness, no files and no network, and what it remembers between calls must not change
//! any result: so a failed call can be repeated. Memory belongs in stores and accumulators.
//!
//! # Stores
//!
//! A [`Store`] is a typed map that outlives the batch: the host keeps it, one for each partition. It is a field of the
//! plugin. A processor names the keys of each row before the rows of a batch are processed, and they are fetched at
//! once; what was changed is written once, at the end, and what a failed row changed is taken back.
//!
//! ```
//! use millstream_sdk::prelude::*;
//!
//! /// Sends on a temperature that differs from the sensor's last.
//! #[derive(Config, Plugin)]
//! struct Changes {
//!     last: Store<String, f64>,
//! }
//!
//! #[derive(Fields)]
//! struct Reading<'a> {
//!     sensor: &'a str,
//!     temperature: f64,
//! }
//!
//! #[derive(Branches)]
//! enum Out {
//!     Changed { before: Option<f64> },
//! }
//!
//! impl Processor for Changes {
//!     type Input = Reading<'static>;
//!     type Output = Out;
//!
//!     fn prefetch(&mut self, reading: Reading<'_>) {
//!         self.last.prefetch(reading.sensor);
//!     }
//!
//!     fn process(&mut self, reading: Reading<'_>, out: &mut Output<Out>) -> Result<()> {
//!         let before = self.last.get(reading.sensor).copied();
//!         if before != Some(reading.temperature) {
//!             self.last.insert(reading.sensor, reading.temperature);
//!             out.emit(Out::Changed { before });
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # let mut tester = millstream_sdk::testing::Tester::<Changes>::new(serde_json::json!({})).unwrap();
//! # let reading = |temperature| serde_json::json!({"sensor": "s", "temperature": temperature});
//! # let outcome = tester.process("input", [reading(1), reading(1), reading(2)]).unwrap();
//! # assert_eq!(outcome.values("changed")[1]["before"], 1.0);
//! millstream_sdk::export!(Changes);
//! # fn main() {}
//! ```
//!
//! - Keys and values are what is [`Stored`]: scalars, and structs of them that derive [`derive@Fields`].
//! - `#[store(ordered)]` allows [`Store::scan`], `#[store(time_to_live = …)]` drops rows that are not written again, and
//!   `#[carry_over(…)]` says how rows of an earlier version of a struct become such of this one.
//! - [`state`] has the stores by columns.
//!
//! # Aggregators
//!
//! An [`Aggregator`] folds the rows of a group into an accumulator: a group is what has the same key, or the same key and
//! the same window. The host groups the rows, keeps the accumulators and decides when a result is due, so that the
//! plugin is four functions.
//!
//! ```
//! use millstream_sdk::prelude::*;
//!
//! #[derive(Config, Plugin)]
//! struct Mean;
//!
//! #[derive(Fields)]
//! struct Ride {
//!     fare: f64,
//! }
//!
//! #[derive(Fields, Clone, Default)]
//! struct Fares {
//!     count: i64,
//!     sum: f64,
//! }
//!
//! #[derive(Branches, Fields)]
//! struct Summary {
//!     mean: f64,
//! }
//!
//! impl Aggregator for Mean {
//!     type Input = Ride;
//!     type Accumulator = Fares;
//!     type Output = Summary;
//!
//!     fn start(&self) -> Fares {
//!         Fares::default()
//!     }
//!
//!     fn add(&self, fares: &mut Fares, ride: Ride) -> Result<()> {
//!         ensure!(ride.fare >= 0.0, "a ride cannot cost {}", ride.fare);
//!         fares.count += 1;
//!         fares.sum += ride.fare;
//!         Ok(())
//!     }
//!
//!     fn merge(&self, fares: &mut Fares, later: Fares) -> Result<()> {
//!         fares.count += later.count;
//!         fares.sum += later.sum;
//!         Ok(())
//!     }
//!
//!     fn finish(&self, fares: &Fares, out: &mut Output<Summary>) -> Result<()> {
//!         out.emit(Summary { mean: fares.sum / fares.count as f64 });
//!         Ok(())
//!     }
//! }
//!
//! # let rides = [("a", serde_json::json!({"fare": 1})), ("a", serde_json::json!({"fare": 2}))];
//! # let outcome = millstream_sdk::testing::aggregate::<Mean>(serde_json::json!({}), rides).unwrap();
//! # assert_eq!(outcome.values("output"), [serde_json::json!({"mean": 1.5})]);
//! millstream_sdk::export!(Mean as aggregator);
//! # fn main() {}
//! ```
//!
//! - An accumulator is what is [`Stored`]; lists and maps are kept by [`AsJson`].
//! - [`Aggregator::add_batch`] adds the columns of a batch, where speed matters.

// So that the derive macros and the bindings name this crate by one path, also within it.
extern crate self as millstream_sdk;

mod aggregator;
pub mod bindings;
mod cell;
pub mod column;
pub mod config;
mod dynamic;
mod error;
mod host;
pub mod log;
pub mod metrics;
mod output;
mod plugin;
mod processor;
mod row;
pub mod schema;
pub mod state;
mod store;
mod stored;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use aggregator::{Accumulated, Accumulator, Aggregator, Groups};
pub use cell::{Cell, Json, Time};
pub use config::{Config, Pointer};
pub use dynamic::{AnyCell, AnyColumns, AnyRow};
pub use error::{Context, Error, Result};
pub use millstream_sdk_derive::{Branches, Config, Fields, Inputs, Plugin};
pub use output::{Branches, Emission, Output};
pub use plugin::{Instance, Plugin, config_schema};
pub use processor::{BatchProcessor, Processor};
pub use row::{Batch, Fields, Input};
pub use store::{AnyStore, Entry, Scan, Store};
pub use stored::{AsJson, Key, Stored};

/// Tables as they cross; see [`schema`] for what their columns mean.
pub mod table {
    pub use millstream_sdk_bindings::millstream::plugin::output::{Emitted, Failure, Outputs};
    pub use millstream_sdk_bindings::millstream::plugin::table::{Column, Table};
}

/// What a plugin's source begins with: `use millstream_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::metrics::{Counter, Gauge, Histogram};
    pub use crate::schema::{FieldType, Place, Signature};
    pub use crate::{
        Aggregator, AnyStore, AsJson, Batch, BatchProcessor, Branches, Config, Context, Error, Fields, Inputs, Json,
        Output, Plugin, Pointer, Processor, Result, Store, Time, bail, ensure, log,
    };
}

#[doc(hidden)]
pub mod __private {
    pub use crate::plugin::describe;
    pub use serde_json;
    pub use wit_bindgen;

    use crate::table::Table;

    /// The view of a column, with the field's name in the message.
    #[inline]
    pub fn view<'a, T: crate::Cell<'a>>(table: &'a Table, column: usize, field: &str) -> Result<T::View, String> {
        let Some(found) = table.columns.get(column) else {
            return Err(format!(
                "has {} columns and none for field {field:?}",
                table.columns.len()
            ));
        };
        T::view(found, table.rows as usize).map_err(|problem| format!("field {field:?}: {problem}"))
    }

    /// Holds a type against what its macro needs, where the macro cannot.
    pub const fn assert_processor<P: crate::BatchProcessor>() {}

    /// As [`assert_processor`].
    pub const fn assert_aggregator<P: crate::Aggregator>() {}
}

/// Makes a type the plugin of this crate: `export!(Split)` a processor, `export!(Count as aggregator)` an aggregator. The
/// component's name, version and summary are the package's.
///
/// The crate's type must be `cdylib` (and `rlib`, so that tests can use it).
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        $crate::export!($plugin as processor);
    };
    ($plugin:ty as processor) => {
        const _: () = $crate::__private::assert_processor::<$plugin>();

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::processor::exports::millstream::plugin as exports;
            use $crate::table::{Outputs, Table};

            $crate::__export_lifecycle!($plugin, configure);

            impl exports::processor::Guest for Component {
                fn process(input: u32, rows: Table) -> ::core::result::Result<Outputs, ::std::string::String> {
                    instance(|instance| instance.process(input, &rows))
                }
            }

    $crate::bindings::processor::export_processor!(Component with_types_in $crate::bindings::processor);
        };
    };
    ($plugin:ty as aggregator) => {
        const _: () = $crate::__private::assert_aggregator::<$plugin>();

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::aggregator::exports::millstream::plugin as exports;
            use $crate::table::{Outputs, Table};
            use $crate::{Accumulated, Accumulator};

            $crate::__export_lifecycle!($plugin, configure_aggregator);

            impl exports::aggregator::Guest for Component {
                fn initial() -> Accumulator {
                    match instance(|instance| ::core::result::Result::Ok(instance.initial())) {
                        ::core::result::Result::Ok(accumulator) => accumulator,
                        ::core::result::Result::Err(problem) => ::core::panic!("{problem}"),
                    }
                }

                fn accumulate(
                    input: u32,
                    accumulators: Table,
                    groups: ::std::vec::Vec<u8>,
                    rows: Table,
                ) -> ::core::result::Result<Accumulated, ::std::string::String> {
                    instance(|instance| instance.accumulate(input, &accumulators, &groups, &rows))
                }

                fn merge(left: Table, right: Table) -> ::core::result::Result<Table, ::std::string::String> {
                    instance(|instance| instance.merge(&left, &right))
                }

                fn finish(accumulators: Table) -> ::core::result::Result<Outputs, ::std::string::String> {
                    instance(|instance| instance.finish(&accumulators))
                }
            }

    $crate::bindings::aggregator::export_aggregator!(Component with_types_in $crate::bindings::aggregator);
        };
    };
}

/// The instance of a component, and `lifecycle`, which is the same for all kinds.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_lifecycle {
    ($plugin:ty, $configure:ident) => {
        ::std::thread_local! {
            static INSTANCE: ::std::cell::RefCell<::std::option::Option<$crate::Instance<$plugin>>> =
                const { ::std::cell::RefCell::new(::std::option::Option::None) };
        }

        fn instance<T>(
            call: impl ::core::ops::FnOnce(
                &mut $crate::Instance<$plugin>,
            ) -> ::core::result::Result<T, ::std::string::String>,
        ) -> ::core::result::Result<T, ::std::string::String> {
            INSTANCE.with_borrow_mut(|instance| match instance {
                ::std::option::Option::Some(instance) => call(instance),
                ::std::option::Option::None => ::core::result::Result::Err("`configure` was not called".into()),
            })
        }

        struct Component;

        impl exports::lifecycle::Guest for Component {
            fn describe() -> $crate::schema::Info {
                $crate::__private::describe::<$plugin>(
                    ::core::env!("CARGO_PKG_NAME"),
                    ::core::env!("CARGO_PKG_VERSION"),
                    ::core::env!("CARGO_PKG_DESCRIPTION"),
                )
            }

            fn configure(
                config: ::std::string::String,
            ) -> ::core::result::Result<$crate::schema::Signature, ::std::string::String> {
                let instance = $crate::Instance::<$plugin>::$configure(&config)?;
                let signature = instance.signature().clone();
                INSTANCE.set(::std::option::Option::Some(instance));
                ::core::result::Result::Ok(signature)
            }
        }
    };
}
