//! Why the local store did not do what it was asked for.

use crate::connect::embedded::{io_error, is_full};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a store cannot be read or written. What was written before is still there, and the changelog has the rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum StateError {
    /// Stored bytes are not what was written.
    #[error(
        "the local store of {store}[{partition}] is damaged: {detail}; stop the host and restore the data folder from a copy, or, where the changelog is complete, move the folder `state` in it away: it is made anew"
    )]
    Damaged {
        /// The changelog's name.
        store: String,
        /// The partition.
        partition: u32,
        /// What was found.
        detail: String,
    },
    /// There is no room. The same succeeds as soon as there is.
    #[error("the disk of {} is full: {free_bytes} bytes are free, {needed_bytes} are needed for {store}[{partition}]; make room, it goes on by itself", folder.display())]
    DiskFull {
        /// The store's folder.
        folder: PathBuf,
        /// For this user.
        free_bytes: u64,
        /// Of the rows, with the reserve.
        needed_bytes: u64,
        /// The changelog's name.
        store: String,
        /// The partition.
        partition: u32,
    },
    /// The storage does not answer; it is tried again by the next call.
    #[error("the local store of {store}[{partition}] is not available: {detail}; it is tried again by itself")]
    Unavailable {
        /// The changelog's name.
        store: String,
        /// The partition.
        partition: u32,
        /// What it said.
        detail: String,
    },
    /// A row that no store takes.
    #[error("the local store of {store}[{partition}] does not take a row: {detail}")]
    Refused {
        /// The changelog's name.
        store: String,
        /// The partition.
        partition: u32,
        /// What is wrong with it.
        detail: String,
    },
    /// It was closed.
    #[error("the local store is closed")]
    Closed,
}

/// Why the folder of the local store cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StateOpenError {
    /// A newer program wrote it.
    #[error("the state folder {} has format {found}, this program reads format {}: use the newer program", folder.display(), super::STATE_VERSION)]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The system refused it: no permission, no room, no more files.
    #[error("the state folder {} cannot be opened: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Of the system.
        source: io::Error,
    },
}

/// Whose rows are meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) store: &'a str,
    pub(super) partition: u32,
}

impl Place<'_> {
    pub(super) fn damaged(self, detail: impl Into<String>) -> StateError {
        StateError::Damaged {
            store: self.store.into(),
            partition: self.partition,
            detail: detail.into(),
        }
    }

    pub(super) fn refused(self, detail: impl Into<String>) -> StateError {
        StateError::Refused {
            store: self.store.into(),
            partition: self.partition,
            detail: detail.into(),
        }
    }

    pub(super) fn unavailable(self, detail: impl Into<String>) -> StateError {
        StateError::Unavailable {
            store: self.store.into(),
            partition: self.partition,
            detail: detail.into(),
        }
    }

    pub(super) fn disk_full(self, folder: &Path, free_bytes: u64, needed_bytes: u64) -> StateError {
        StateError::DiskFull {
            folder: folder.into(),
            free_bytes,
            needed_bytes,
            store: self.store.into(),
            partition: self.partition,
        }
    }

    /// What the engine's error means for whoever reads these rows.
    pub(super) fn read_error(self, error: &fjall::Error) -> StateError {
        match cause(error) {
            Cause::Files(detail) => self.damaged(detail),
            Cause::Full(detail) | Cause::System(detail) => self.unavailable(detail),
        }
    }
}

/// What an error of the engine comes from.
#[derive(Debug)]
pub(super) enum Cause {
    /// Its files are not as they should be.
    Files(String),
    /// There is no room.
    Full(String),
    /// The system's own trouble, or the engine's after it.
    System(String),
}

pub(super) fn cause(error: &fjall::Error) -> Cause {
    let of_files = [
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::InvalidInput,
        ErrorKind::IsADirectory,
        ErrorKind::NotADirectory,
    ];
    match (error, io_error(error)) {
        (_, Some(io)) if is_full(io) => Cause::Full(io.to_string()),
        (_, Some(io)) if !of_files.contains(&io.kind()) => Cause::System(io.to_string()),
        (fjall::Error::Poisoned, _) => Cause::System("an earlier error of the disk".into()),
        (fjall::Error::Locked, _) => Cause::System("the engine's lock is still held by somebody who reads".into()),
        _ => Cause::Files(format!("the storage engine says {error}")),
    }
}
