//! Keyed state of stages: where rows lie between two commits and after them.
//!
//! The changelog is the truth. [`database`] holds rows behind it, on the disk, written in bulk by [`flush`]; [`read`] shows
//! a store's committed rows to others than its task.

pub mod database;
pub mod flush;
pub mod log;
pub mod read;
pub mod segment;

pub use database::{
    Opened, Rows, SetAside, StateDb, StateError, StateOpenError, StateOptions, StoreRow, StoreSnapshot,
};
pub use flush::{FlushError, FlushJob, Flushed, Flusher};
pub use log::{Changelog, MarkError};
pub use read::{CommittedRows, CommittedStore, ReadError};
pub use segment::Segmenting;
