//! What wit-bindgen makes of the contract's types and of the world of an aggregator. `millstream-sdk` re-exports the
//! types, and makes the world of a processor on them: two worlds in one crate would export `lifecycle` twice.

#![allow(missing_docs, clippy::all, unsafe_code)]

// The generated code names this crate by one path.
extern crate self as millstream_sdk_bindings;

pub use wit_bindgen;

mod signature;

wit_bindgen::generate!({
    path: "../../../wit/0.1.0",
    world: "aggregator-plugin",
    pub_export_macro: true,
    export_macro_name: "export_aggregator",
    default_bindings_module: "::millstream_sdk_bindings",
    runtime_path: "::millstream_sdk_bindings::wit_bindgen::rt",
    additional_derives: [PartialEq, Eq],
});
