//! Committed rows of a store, as others than its task see them: what is in the local store, and over it what the
//! changelog has behind that.
//!
//! Nobody is asked and nobody waits: a snapshot of the local store says up to which offset it holds everything, and the
//! changelog is read from there to its end. What is seen is the state as of that end.

use super::database::merge::{Entry, Merge};
use super::database::{KeyRange, StateDb, StateError, StoreSnapshot};
use super::log::Changelog;
use crate::connect::{LogError, TopicPartition};
use crate::limits::STATE_OVERLAY_BYTES_MAX;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Why committed rows cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum ReadError {
    /// The local store cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The changelog cannot be read.
    #[error("the changelog cannot be read: {0}")]
    Log(#[from] LogError),
    /// The local store lacks rows that the changelog has no more.
    #[error(
        "the local store of {changelog} holds everything up to offset {flushed} only, and the changelog begins at {first}: rows are missing; restore the data folder from a copy"
    )]
    Incomplete {
        /// The changelog.
        changelog: TopicPartition,
        /// What the store holds.
        flushed: u64,
        /// Where the changelog begins.
        first: u64,
    },
    /// Too much is not flushed yet.
    #[error(
        "{changelog} has more than {bytes_max} bytes behind what the local store holds: wait until it was flushed, or look why it is not (the host's log says so)"
    )]
    Behind {
        /// The changelog.
        changelog: TopicPartition,
        /// The most.
        bytes_max: usize,
    },
}

/// The committed rows of one partition of a store, as of one offset.
pub struct CommittedStore {
    snapshot: StoreSnapshot,
    partition: u32,
    /// What the changelog has behind the snapshot; none where a row was deleted.
    overlay: BTreeMap<Bytes, Option<Bytes>>,
    overlay_bytes: usize,
    next_offset: u64,
}

/// One fetch of the changelog.
const FETCH_BYTES: usize = 1 << 20;
/// The changelog may be purged between a look at the store and one at the changelog; not again and again.
const ATTEMPTS_MAX: u32 = 5;

impl CommittedStore {
    /// Reads what is behind the local store, of keys in this range; others are not there then.
    ///
    /// # Errors
    /// Where store or changelog cannot be read, or do not fit together.
    pub fn open(
        db: &StateDb,
        log: &dyn Changelog,
        changelog: &TopicPartition,
        range: &KeyRange,
    ) -> Result<CommittedStore, ReadError> {
        CommittedStore::open_bounded(db, log, changelog, range, STATE_OVERLAY_BYTES_MAX)
    }

    /// The same, with at most so many bytes in memory.
    ///
    /// # Errors
    /// As there.
    pub(super) fn open_bounded(
        db: &StateDb,
        log: &dyn Changelog,
        changelog: &TopicPartition,
        range: &KeyRange,
        bytes_max: usize,
    ) -> Result<CommittedStore, ReadError> {
        let mut attempts_left = ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            let snapshot = db.snapshot(&changelog.topic)?;
            let flushed = snapshot.flushed(changelog.partition)?.unwrap_or(0);
            // After the snapshot: so the end lies behind everything that is in it.
            let (first, next_offset) = log.ends(changelog)?;
            let outcome = if flushed < first {
                Err(ReadError::Incomplete {
                    changelog: changelog.clone(),
                    flushed,
                    first,
                })
            } else {
                let mut overlay = Overlay::new(range, bytes_max);
                overlay
                    .read(log, changelog, flushed, next_offset)
                    .map(|()| (overlay.rows, overlay.bytes))
            };
            match outcome {
                Ok((overlay, overlay_bytes)) => {
                    return Ok(CommittedStore {
                        snapshot,
                        partition: changelog.partition,
                        overlay,
                        overlay_bytes,
                        next_offset,
                    });
                }
                // A flush that ended meanwhile let the changelog be purged: the store has it now.
                Err(ReadError::Incomplete { .. } | ReadError::Log(LogError::OffsetOutOfRange { .. }))
                    if attempts_left > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What it holds in memory.
    pub(super) fn overlay_bytes(&self) -> usize {
        self.overlay_bytes
    }

    /// The changelog's offset as of which rows are seen.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The row of a key.
    ///
    /// # Errors
    /// Where what is stored is not what was written.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        match self.overlay.get(key) {
            Some(row) => Ok(row.clone()),
            None => Ok(self.snapshot.get(self.partition, key)?),
        }
    }

    /// Rows of a stretch of keys in their order, without those of which `is_past` says so by key and row.
    ///
    /// # Errors
    /// As [`CommittedStore::get`].
    pub fn rows<'a>(
        &'a self,
        range: &KeyRange,
        is_past: impl Fn(&[u8], &[u8]) -> bool + 'a,
    ) -> Result<CommittedRows<'a>, ReadError> {
        let stored = self.snapshot.range(self.partition, range)?;
        let stored = stored.map(|row| row.map(|(key, row)| (key, Some(row))));
        let mut sources: Vec<Source<'a>> = Vec::new();
        if !range.is_empty() {
            let bounds = (as_slice(&range.from), as_slice(&range.to));
            let over = self.overlay.range::<[u8], _>(bounds);
            sources.push(Box::new(over.map(|(key, row)| Ok((key.clone(), row.clone())))));
        }
        sources.push(Box::new(stored));
        Ok(CommittedRows {
            rows: Merge::new(sources),
            is_past: Box::new(is_past),
        })
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

type Source<'a> = Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>;

/// Says by key and row whether a row is past.
type IsPast<'a> = Box<dyn Fn(&[u8], &[u8]) -> bool + 'a>;

/// Committed rows in the order of their keys, read as they are asked for. Ends at the first error.
pub struct CommittedRows<'a> {
    rows: Merge<Source<'a>, StateError>,
    is_past: IsPast<'a>,
}

impl Iterator for CommittedRows<'_> {
    type Item = Result<(Bytes, Bytes), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.rows.next()? {
                Ok((key, row)) if (self.is_past)(&key, &row) => {}
                Ok(row) => return Some(Ok(row)),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

/// What is behind the store, being read.
struct Overlay<'a> {
    range: &'a KeyRange,
    rows: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
    bytes_max: usize,
}

/// Of a row in memory, beside its bytes.
const OVERLAY_ROW_BYTES: usize = 128;

impl<'a> Overlay<'a> {
    fn new(range: &'a KeyRange, bytes_max: usize) -> Self {
        Overlay {
            range,
            rows: BTreeMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn read(&mut self, log: &dyn Changelog, tp: &TopicPartition, from: u64, to: u64) -> Result<(), ReadError> {
        let mut from = from;
        while from < to {
            let fetched = log.fetch(tp, from, FETCH_BYTES)?;
            if fetched.is_empty() {
                break;
            }
            for record in fetched.records().take_while(|record| record.offset < to) {
                let Some(key) = record.key.filter(|key| self.range.contains(key)) else {
                    continue;
                };
                self.put(key, record.value);
                if self.bytes > self.bytes_max {
                    return Err(ReadError::Behind {
                        changelog: tp.clone(),
                        bytes_max: self.bytes_max,
                    });
                }
            }
            from = fetched.next_offset();
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], row: Option<&[u8]>) {
        let length = |row: Option<&[u8]>| row.map_or(0, <[u8]>::len);
        self.bytes += length(row);
        // Copied: a block would stay in memory for one row of it.
        let copy = row.map(Bytes::copy_from_slice);
        match self.rows.get_mut(key) {
            Some(before) => {
                self.bytes -= length(before.as_deref());
                *before = copy;
            }
            None => {
                self.bytes += key.len() + OVERLAY_ROW_BYTES;
                self.rows.insert(Bytes::copy_from_slice(key), copy);
            }
        }
    }
}

#[cfg(test)]
mod tests;
