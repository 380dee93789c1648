//! Millstream hosts stream processors that were compiled to WebAssembly.

pub mod cli;
pub mod guest;
pub mod limits;
pub mod output;
pub mod record;
pub mod schema;
pub mod table;
pub mod task;
