//! Write Millstream plugins in Rust.

// So that the derive macros and the bindings name this crate by one path, also within it.
extern crate self as millstream_sdk;

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
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use cell::{Cell, Json, Time};
pub use config::{Config, Pointer};
pub use dynamic::{AnyCell, AnyColumns, AnyRow};
pub use error::{Context, Error, Result};
pub use millstream_sdk_derive::{Branches, Config, Fields, Inputs, Plugin};
pub use output::{Branches, Emission, Output};
pub use plugin::{Instance, Plugin, config_schema};
pub use processor::{BatchProcessor, Processor};
pub use row::{Batch, Fields, Input};

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
        Batch, BatchProcessor, Branches, Config, Context, Error, Fields, Inputs, Json, Output, Plugin, Pointer,
        Processor, Result, Time, bail, ensure, log,
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
}

/// Makes a processor the plugin of this crate: its component's name, version and summary are the package's.
///
/// The crate's type must be `cdylib` (and `rlib`, so that tests can use it).
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        const _: () = $crate::__private::assert_processor::<$plugin>();

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::processor::exports::millstream::plugin as exports;
            use $crate::schema::{Info, Signature};
            use $crate::table::{Outputs, Table};

            ::std::thread_local! {
                static INSTANCE: ::std::cell::RefCell<::std::option::Option<$crate::Instance<$plugin>>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            struct Component;

            impl exports::lifecycle::Guest for Component {
                fn describe() -> Info {
                    $crate::__private::describe::<$plugin>(
                        ::core::env!("CARGO_PKG_NAME"),
                        ::core::env!("CARGO_PKG_VERSION"),
                        ::core::env!("CARGO_PKG_DESCRIPTION"),
                    )
                }

                fn configure(
                    config: ::std::string::String,
                ) -> ::core::result::Result<Signature, ::std::string::String> {
                    let instance = $crate::Instance::<$plugin>::configure(&config)?;
                    let signature = instance.signature().clone();
                    INSTANCE.set(::std::option::Option::Some(instance));
                    ::core::result::Result::Ok(signature)
                }
            }

            impl exports::processor::Guest for Component {
                fn process(input: u32, rows: Table) -> ::core::result::Result<Outputs, ::std::string::String> {
                    INSTANCE.with_borrow_mut(|instance| match instance {
                        ::std::option::Option::Some(instance) => instance.process(input, &rows),
                        ::std::option::Option::None => ::core::result::Result::Err("`configure` was not called".into()),
                    })
                }
            }

    $crate::bindings::processor::export_processor!(Component with_types_in $crate::bindings::processor);
        };
    };
}
