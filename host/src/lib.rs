//! Millstream hosts stream processors that were compiled to WebAssembly.

pub mod cli;
pub mod connect;
pub mod control;
pub mod crash;
pub mod format;
pub mod guest;
pub mod limits;
pub mod observe;
pub mod output;
pub mod pipeline;
pub mod record;
pub mod schema;
pub mod table;
pub mod task;
