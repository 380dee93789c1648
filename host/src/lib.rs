//! Millstream hosts stream processors that were compiled to WebAssembly.

pub mod format;
pub mod limits;
pub mod output;
pub mod pipeline;
pub mod record;
pub mod schema;
pub mod table;
