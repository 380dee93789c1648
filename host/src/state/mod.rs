//! Keyed state of stages: where rows lie between two commits and after them.
//!
//! The changelog is the truth. [`hot`] has a task's rows in memory, [`database`] holds rows behind the changelog, on the
//! disk, written in bulk by [`flush`]; [`store`] puts the three together for a task, and [`read`] shows a store's committed
//! rows to others.

mod changelog;
pub mod codec;
pub mod database;
pub mod flush;
pub mod hot;
pub mod local;
pub mod log;
pub(crate) mod notes;
pub mod query;
pub mod read;
pub mod segment;
pub mod shape;
pub mod store;
pub mod table;
pub mod typed;

pub use changelog::ChangelogState;
pub use database::{
    Opened, Rows, SetAside, StateDb, StateError, StateOpenError, StateOptions, StoreRow, StoreSnapshot,
};
pub use flush::{FlushError, FlushJob, Flushed, Flusher};
pub use hot::{Cold, ColdError, Hot, KeyedRow, WindowCursor, Windowing};
pub use local::{LocalState, STATE_FOLDER, StateFolder};
pub use log::{Changelog, MarkError, Wake};
pub use notes::has_kept;
pub use query::{FoundRow, KeyFilter, QueryError, RowQuery, StateAccess, StoreSize};
pub use read::{CommittedRows, CommittedStore, ReadError};
pub use segment::Segmenting;
pub use shape::{ShapeError, StoreShape};
pub use store::{Backend, CaughtUp, StoreError, TaskStore};
pub use table::{SCHEMA_HEADER, TableBuffers, TableCodec, TableError, TableForm, TableRecord};
pub use typed::RowReader;
