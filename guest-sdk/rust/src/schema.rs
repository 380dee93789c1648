//! What a plugin says of itself. The types are the contract's, whose comments are their documentation; here stands what
//! helps to change a derived signature.
//!
//! ```
//! use millstream_sdk::prelude::*;
//!
//! #[derive(Fields)]
//! struct Row {
//!     amount: f64,
//! }
//! # #[derive(Branches)] enum Out { All }
//! #[derive(Config, Plugin)]
//! struct Sum {
//!     /// The field that is summed.
//!     field: Pointer,
//! }
//!
//! impl Processor for Sum {
//!     type Input = Row;
//!     type Output = Out;
//!
//!     fn signature(&self, signature: &mut Signature) {
//!         signature.input_mut("input").field_mut("amount").place = Place::Value(self.field.clone().into());
//!     }
//! #   fn process(&mut self, row: Row, out: &mut Output<Out>) -> Result<()> { Ok(()) }
//! }
//! ```

pub use millstream_sdk_bindings::millstream::plugin::schema::{
    Branch, Carried, Field, FieldType, Info, Input, MappedField, Metric, MetricKind, Place, Signature, Store, ValueBase,
};
