//! Plugins in their sandbox: the only place that names wasmtime.
//!
//! A plugin passes through four phases, each a type:
//!
//! 1. [`Runtime`] holds the engine, the cache of compiled components and the clock that ends runaway calls.
//! 2. [`Plugin`] is a component that was read, classified, compiled (in a child process, or taken from the cache),
//!    linked and asked who it is.
//! 3. [`Configured`] is a plugin under one configuration and one set of limits, with the signature that follows.
//! 4. [`Instance`] has memory of its own and is called with tables. After a failure that is not the plugin's own
//!    answer it is poisoned, and its owner makes another.
//!
//! A guest may do nothing but compute on what it is given, and ask for rows of the [`Stores`] that are lent to it for the
//! time of a call. It has no clock, no randomness, no files and no network; its memory, tables, time, answers, log lines
//! and what it reads and writes of stores are bounded. What it passes or returns is a stranger's bytes and is checked
//! before anybody else sees it.
//!
//! Calls of a guest block and are for threads of their own. They must not be made from a task of an asynchronous
//! runtime.

mod bindings;
mod cache;
mod carry_over;
mod classify;
mod compile;
mod engine;
mod error;
mod failure;
mod functions;
mod imports;
mod inspect;
mod instance;
mod limiter;
mod plugin;
mod signature;
mod started;
mod stores;

pub use compile::{CompileError, compile_child};
pub use engine::{Options, Runtime};
pub use error::{CallError, GuestError, LoadError, LoadProblem};
pub use imports::log::{GuestSink, Level, escaped};
pub use inspect::{Inspection, inspect};
pub use instance::{Instance, MetricUpdate};
pub use plugin::{Configured, Plugin};
pub use stores::{Scanned, Stores, StoresError};
