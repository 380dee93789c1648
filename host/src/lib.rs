//! Millstream hosts stream processors that were compiled to WebAssembly.

pub mod connect;
pub mod crash;
pub mod limits;
pub mod output;
pub mod record;
pub mod schema;
pub mod table;
