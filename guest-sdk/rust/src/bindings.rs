//! What wit-bindgen makes of the contract. The types are used natively too: a unit test of a plugin moves the same
//! tables as the host.

#![allow(missing_docs, clippy::all, unsafe_code)]

pub use millstream_sdk_bindings as aggregator;

/// The world of a processor, on the types that all worlds share.
pub mod processor {
    wit_bindgen::generate!({
        path: "../../wit/0.1.0",
        world: "processor-plugin",
        pub_export_macro: true,
        export_macro_name: "export_processor",
        default_bindings_module: "::millstream_sdk::bindings::processor",
        runtime_path: "::millstream_sdk::__private::wit_bindgen::rt",
        additional_derives: [PartialEq, Eq],
        with: {
            "millstream:plugin/log@0.1.0": ::millstream_sdk_bindings::millstream::plugin::log,
            "millstream:plugin/metrics@0.1.0": ::millstream_sdk_bindings::millstream::plugin::metrics,
            "millstream:plugin/schema@0.1.0": ::millstream_sdk_bindings::millstream::plugin::schema,
            "millstream:plugin/table@0.1.0": ::millstream_sdk_bindings::millstream::plugin::table,
            "millstream:plugin/output@0.1.0": ::millstream_sdk_bindings::millstream::plugin::output,
        },
    });
}
