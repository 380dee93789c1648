//! The derive macros of `millstream-sdk`, which re-exports and documents them.

mod attribute;
mod branches;
mod config;
mod fields;
mod inputs;
mod lifetime;
mod name;
mod store;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct a row: each field is a column that is read from a record, or written to one.
///
/// A field lies in the value, in the member of its own name, unless `#[field(…)]` says otherwise:
///
/// | attribute | place | type |
/// | --- | --- | --- |
/// | `path = "/trip/amount"` | in the value; a JSON Pointer, `""` for the whole of it | any |
/// | `key`, `key = "/id"` | the decoded key, or a member of it | any |
/// | `header = "trace"` | the last header of that name | text or bytes |
/// | `timestamp` | the record's timestamp | `Time` |
/// | `offset` | the record's offset; inputs only | `i64` |
/// | `raw_value`, `raw_key` | the bytes as they stand in the topic | bytes |
/// | `tombstone` | whether the value is null | `bool` |
///
/// `name = "…"` renames the column, which only people see. `Option` says that a cell may be null; a record without a
/// field that is not optional goes to the dead-letter queue before the plugin sees it.
///
/// The macro also makes `RideColumns`, which has a typed view for each field.
///
/// A struct that borrows nothing and is [`Clone`] can also be the key or the value of a store, or an accumulator; the
/// places then mean nothing. A row that an earlier version of the plugin wrote becomes one of this version field by
/// field, by their names; `#[carry_over(from = "old_name")]` takes another field, `#[carry_over(default = 0)]` is for a
/// field that was not there, `#[carry_over(default)]` for one that is then null:
///
/// ```
/// use millstream_sdk::prelude::*;
///
/// #[derive(Fields, Clone, Default)]
/// struct Fares {
///     count: i64,
///     #[carry_over(from = "sum")]
///     total: f64,
///     #[carry_over(default = 0)]
///     refused: i64,
///     #[carry_over(default)]
///     last: Option<Time>,
/// }
/// ```
///
/// ```
/// use millstream_sdk::prelude::*;
///
/// #[derive(Fields)]
/// struct Ride<'a> {
///     #[field(path = "/total_amount")]
///     amount: f64,
///     zone: Option<&'a str>,
///     #[field(timestamp)]
///     at: Time,
/// }
/// ```
#[proc_macro_derive(Fields, attributes(field, carry_over))]
pub fn fields(input: TokenStream) -> TokenStream {
    expand(fields::derive(parse_macro_input!(input as DeriveInput)))
}

/// Makes an enum the inputs of a plugin: a stream for each variant, which holds a row. `#[input(name = "…")]`
/// renames a stream; otherwise it is the variant's name in lower case with hyphens.
///
/// ```
/// use millstream_sdk::prelude::*;
///
/// #[derive(Fields)]
/// struct Ride {
///     amount: f64,
/// }
///
/// #[derive(Fields)]
/// struct Refund<'a> {
///     reason: &'a str,
/// }
///
/// #[derive(Inputs)]
/// enum Event<'a> {
///     Rides(Ride),
///     Refunds(Refund<'a>),
/// }
/// ```
#[proc_macro_derive(Inputs, attributes(input))]
pub fn inputs(input: TokenStream) -> TokenStream {
    expand(inputs::derive(parse_macro_input!(input as DeriveInput)))
}

/// Makes an enum the branches of a plugin, one for each variant, or a row (a struct that derives `Fields`) the only
/// branch, named `output`.
///
/// A variant without fields forwards the input row. A variant with fields, its own or those of a row, adds them to
/// the input row's value, or replaces it with `#[branch(value = new)]`; fields in the key, in headers or at the
/// timestamp replace those. `#[branch(name = "…")]` renames a branch; otherwise it is the variant's name in lower
/// case with hyphens.
///
/// ```
/// use millstream_sdk::prelude::*;
///
/// #[derive(Branches)]
/// enum Out<'a> {
///     High,
///     Tipped { share: f64 },
///     #[branch(name = "by-zone", value = new)]
///     Zone {
///         #[field(key)]
///         zone: &'a str,
///         amount: f64,
///     },
/// }
/// ```
#[proc_macro_derive(Branches, attributes(branch, field))]
pub fn branches(input: TokenStream) -> TokenStream {
    expand(branches::derive(parse_macro_input!(input as DeriveInput)))
}

/// Makes a struct what a pipeline may set, or an enum of unit variants one setting's choices. Comments become
/// descriptions in the JSON Schema. `#[config(default = 40.0)]` or `#[config(default)]` make a setting one that may
/// be left out, as `Option` does; `#[config(name = "…")]` renames it.
///
/// Fields of the type `Store`, or with `#[store(…)]`, are no settings but stores, which are made empty.
///
/// ```
/// use millstream_sdk::prelude::*;
///
/// #[derive(Config)]
/// struct Settings {
///     /// Rides of this amount and more are high.
///     #[config(default = 40.0)]
///     threshold: f64,
///     #[config(default)]
///     rounding: Rounding,
/// }
///
/// #[derive(Config, Default)]
/// enum Rounding {
///     #[default]
///     None,
///     Up,
/// }
/// ```
#[proc_macro_derive(Config, attributes(config, store))]
pub fn config(input: TokenStream) -> TokenStream {
    expand(config::derive(parse_macro_input!(input as DeriveInput)))
}

/// Makes a type that derives `Config` a plugin that is its own configuration. Its fields of the type `Store` are its
/// stores.
#[proc_macro_derive(Plugin, attributes(store))]
pub fn plugin(input: TokenStream) -> TokenStream {
    expand(config::derive_plugin(parse_macro_input!(input as DeriveInput)))
}

fn expand(tokens: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    tokens.unwrap_or_else(|error| error.to_compile_error()).into()
}
