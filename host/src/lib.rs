//! Millstream hosts stream processors that were compiled to WebAssembly.
//!
//! A host reads topics, calls *plugins* in a sandbox with tables of typed fields, and writes what they emit to branch
//! topics; outputs, dead letters, what plugins keep by key, and offsets become true in one atomic commit. This crate is the
//! host: the library behind the command `millstream`. Plugins are written with `millstream-sdk` or with any language's bindings of the
//! contract in `wit/`.
//!
//! It is not a cluster (Kafka will spread the work over machines), and no storage engine or WebAssembly engine of its
//! own (fjall and wasmtime are).
//!
//! # The map
//!
//! Imports point downwards only; neighbours on a line do not know each other. `ARCHITECTURE.md` has the walk of a record
//! through them and what always holds.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`cli`] | the commands |
//! | [`control`] | a host at work: pipelines are started, watched and stopped |
//! | [`task`] | the loop: batch → decode → stages → effects → commit |
//! | [`state`] | keyed rows between commits and after them |
//! | [`guest`] · [`format`](mod@format) · [`pipeline`] · [`connect`] · [`observe`] | the sandbox · bytes ⇄ tables · the pipeline file · the log · log lines |
//! | [`record`] · [`table`] · [`schema`] · [`output`] · [`limits`] | what moves, what crosses, what a plugin says of itself, what it answers, every bound |
//!
//! # Example
//!
//! Records into a log of one's own, and out again:
//!
//! ```
//! use millstream::connect::{Append, BlockBuilder, Commit, EmbeddedLog, Options, TopicPartition, TopicSpec};
//! use millstream::record::Record;
//!
//! let dir = tempfile::tempdir()?;
//! let log = EmbeddedLog::open(dir.path(), Options::default())?;
//! log.create_topic(&TopicSpec::new("rides", 1))?;
//!
//! let ride = Record { value: Some(br#"{"total_amount":9.3}"#.to_vec()), ..Record::default() };
//! let mut blocks = BlockBuilder::new();
//! blocks.push(ride.at(0))?;
//! let append = Append { topic: "rides".into(), partition: 0, blocks };
//! log.commit(Commit { appends: vec![append], ..Commit::default() })?;
//!
//! let fetched = log.fetch(&TopicPartition::new("rides", 0), 0, 1 << 20)?;
//! assert_eq!(fetched.records().next().map(|record| record.to_record()), Some(ride));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
pub mod state;
pub mod table;
pub mod task;
pub mod toolchain;
pub mod window;
