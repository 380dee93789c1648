//! The log of a folder, reached from other processes: HTTP over a Unix socket in the folder, so that commands work
//! beside a running host, and beside each other. Only this user can open it.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v0/holder` | JSON true where a host holds the folder, false where a command does for a while |
//! | `GET /v0/topics`, `POST /v0/topics` (JSON `TopicSpec`) | JSON `TopicDescription`s; nothing |
//! | `GET`, `DELETE /v0/topics/{topic}` | JSON `TopicDescription`; nothing |
//! | `GET /v0/topics/{topic}/{partition}/records?from=&bytes=&wait_ms=` | blocks, see below; waits for the first record |
//! | `POST /v0/topics/{topic}/{partition}/offset` (JSON `Position`) | JSON number |
//! | `POST /v0/commits` (see below) | JSON `Committed` |
//! | `POST /v0/reset` (JSON list of topics to delete and list of `GroupOffset`s) | nothing |
//! | `GET /v0/groups`, `DELETE /v0/groups/{group}` | JSON `GroupDescription`s; nothing |
//! | `GET /v0/groups/{group}/offsets/{topic}/{partition}` | JSON number or null |
//! | `POST /v0/groups/{group}/members` (JSON list of topics) | JSON `Assignment` |
//! | `POST`, `DELETE /v0/groups/{group}/members/{member}` | JSON `Assignment` (a poll); nothing (leaves) |
//! | `GET /v0/pipelines` | JSON list of the names of those that run here |
//! | `POST /v0/stores/{changelog}/rows` (JSON `RowQuery`) | rows, see below; as they are read |
//! | `GET`, `DELETE /v0/stores/{changelog}` | JSON `StoreSize`; nothing (drops the local store's rows) |
//!
//! An error is a status of 400 or more with a `LogError`, where something is to change a `CommitError`, in JSON; of
//! stores and their rows as text.
//! Records travel as the blocks that the log stores, sums included, so that bytes, nulls and header pairs survive and
//! nothing is encoded twice:
//!
//! ```text
//! records:  { base offset (u64) · length (u32) · block } …                              numbers little-endian
//! rows:     { partition (u32) · key length (u32) · row length (u32) · key · row } … { end (u32) · length (u32) · why }
//! commit:   length (u32) · JSON { appends: [{ topic, partition, blocks: [length, …] }], offsets, fence } · blocks
//! ```

mod client;
mod path;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod wire;

pub use client::Client;
pub use server::{ServeError, Server, serve, serve_command, serve_host};
