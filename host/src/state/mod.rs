//! Keyed state: the rows that stages keep.

pub mod codec;
mod hot;

pub use hot::{Cold, ColdError, Hot, Windowing};
