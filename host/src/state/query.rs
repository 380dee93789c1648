//! What others than its tasks ask a store: its committed rows, of all partitions, in the order of their keys.

use super::codec::{RowRef, WINDOW_BYTES, read_start, write_start};
use super::database::{KeyRange, StateOpenError};
use super::local::LocalState;
use super::notes::{Notes, first_open};
use super::read::{CommittedStore, ReadError};
use crate::connect::{Broker, LogError, StoreSchema, TopicPartition, TopicRole};
use crate::limits::STATE_OVERLAY_BYTES_MAX;
use crate::window::Window;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;

/// Which rows of a store are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowQuery {
    /// The store, by its changelog.
    pub changelog: String,
    /// Which keys.
    pub keys: KeyFilter,
    /// Of a store with windows: those that end behind this.
    pub from_ms: Option<i64>,
    /// Of a store with windows: those that start before this.
    pub to_ms: Option<i64>,
    /// Rows behind the one with this key of this partition: where an answer was cut, it goes on there.
    pub after: Option<(Vec<u8>, u32)>,
}

/// Which keys are asked for; of a store with windows what stands behind the window counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyFilter {
    /// All.
    All,
    /// This one.
    Is(Vec<u8>),
    /// Those that begin so.
    StartsWith(Vec<u8>),
}

/// A row that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundRow<'a> {
    /// The partition of the changelog, which is the task's.
    pub partition: u32,
    /// Its key, as the changelog has it.
    pub key: &'a [u8],
    /// The row, as the changelog has it.
    pub row: &'a [u8],
}

/// How large a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSize {
    /// Rows that count.
    pub rows: u64,
    /// Bytes of its local store on the disk, with rows that are past and not dropped yet; the changelog comes on top.
    pub bytes: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum QueryError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The local store cannot be opened.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Open(#[from] StateOpenError),
    /// Rows cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A topic that is no changelog.
    #[error("the topic {topic:?} is no changelog of a store; `millstream state` lists the stores")]
    NoStore {
        /// The topic.
        topic: String,
    },
    /// More rows than are held in memory.
    #[error(
        "the store of {topic:?} has more than {bytes_max} bytes of rows that are asked for: ask for a key, a prefix or \
         windows; `millstream consume {topic}` reads all of its changes"
    )]
    TooMany {
        /// The changelog.
        topic: String,
        /// The most.
        bytes_max: usize,
    },
    /// What the process said that holds the folder.
    #[error("{detail}")]
    Holder {
        /// In its words.
        detail: String,
    },
}

/// The stores of a data folder, in this process or with the one that holds the folder. All calls wait.
pub trait StateAccess: Send + Sync {
    /// Shows rows to `visit`, in the order of window, key and partition, until it returns `false`. They are those of one
    /// moment, unless it takes its time with them.
    ///
    /// # Errors
    /// Where a row cannot be read; those before it were shown.
    fn rows(&self, query: &RowQuery, visit: &mut dyn FnMut(FoundRow<'_>) -> bool) -> Result<(), QueryError>;

    /// Counts a store's rows.
    ///
    /// # Errors
    /// Where one cannot be read.
    fn size(&self, changelog: &str) -> Result<StoreSize, QueryError>;

    /// Drops a store's rows from the local store. The changelog is as it was.
    ///
    /// # Errors
    /// They are gone, or as before: then the same again is right.
    fn drop_store(&self, changelog: &str) -> Result<(), QueryError>;

    /// The pipelines that run there.
    ///
    /// # Errors
    /// Where the holder does not say.
    fn running(&self) -> Result<Vec<String>, QueryError>;
}

impl StateAccess for LocalState {
    fn rows(&self, query: &RowQuery, visit: &mut dyn FnMut(FoundRow<'_>) -> bool) -> Result<(), QueryError> {
        show(self, query, visit)
    }

    fn size(&self, changelog: &str) -> Result<StoreSize, QueryError> {
        let query = RowQuery {
            changelog: changelog.into(),
            keys: KeyFilter::All,
            from_ms: None,
            to_ms: None,
            after: None,
        };
        let mut rows = 0;
        show(self, &query, &mut |_| {
            rows += 1;
            true
        })?;
        Ok(StoreSize {
            rows,
            bytes: self.bytes(changelog)?,
        })
    }

    fn drop_store(&self, changelog: &str) -> Result<(), QueryError> {
        self.folder().drop_store(changelog)
    }

    fn running(&self) -> Result<Vec<String>, QueryError> {
        Ok(Vec::new())
    }
}

/// When the rows of one partition count no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    Never,
    /// Windows that start before this.
    WindowsBefore(i64),
    /// Rows that were written so long before this.
    WrittenBefore {
        now_ms: i64,
        time_to_live_ms: i64,
    },
}

impl Past {
    pub(super) fn of(schema: &StoreSchema, notes: &Notes, stage: &str) -> Past {
        let progress = notes.progress(stage);
        if let Some(size_ms) = schema.window_size_ms {
            let window = Window {
                size_ms,
                advance_ms: size_ms,
                offset_ms: 0,
                grace_ms: schema.window_grace_ms,
            };
            return Past::WindowsBefore(first_open(Some(window), &progress));
        }
        match (progress.now.get(), i64::try_from(schema.time_to_live_ms)) {
            (Some(now_ms), Ok(time_to_live_ms @ 1..)) => Past::WrittenBefore {
                now_ms,
                time_to_live_ms,
            },
            _ => Past::Never,
        }
    }

    pub(super) fn holds(self, key: &[u8], row: &[u8]) -> bool {
        match self {
            Past::Never => false,
            Past::WindowsBefore(first) => read_start(key).is_some_and(|(start, _)| start < first),
            Past::WrittenBefore {
                now_ms,
                time_to_live_ms,
            } => RowRef::parse(row).is_some_and(|row| row.timestamp_ms.saturating_add(time_to_live_ms) <= now_ms),
        }
    }
}

fn show(state: &LocalState, query: &RowQuery, visit: &mut dyn FnMut(FoundRow<'_>) -> bool) -> Result<(), QueryError> {
    let log = &**state.log();
    let topic = log.topic(&query.changelog)?.spec;
    let schema = match topic.role.as_deref() {
        Some(TopicRole::Changelog {
            pipeline,
            stage,
            schemas,
            ..
        }) => schemas.last().map(|schema| (pipeline.as_str(), stage.as_str(), schema)),
        _ => None,
    };
    let Some((pipeline, stage, schema)) = schema else {
        return Err(QueryError::NoStore {
            topic: query.changelog.clone(),
        });
    };
    let windowed = schema.window_size_ms.is_some();
    let range = query.range(schema.window_size_ms);
    // Before the rows: a window that closes meanwhile may be shown or not, but none that is open is left out.
    let notes = notes(state.log(), pipeline, topic.partitions)?;
    let db = state.db()?;
    let mut stores = Vec::with_capacity(topic.partitions as usize);
    let mut bytes_left = STATE_OVERLAY_BYTES_MAX;
    for partition in 0..topic.partitions {
        let place = TopicPartition::new(query.changelog.as_str(), partition);
        let store = CommittedStore::open_bounded(&db, log, &place, &range, bytes_left)?;
        bytes_left = bytes_left.saturating_sub(store.overlay_bytes());
        stores.push(store);
    }
    let mut sources = Vec::with_capacity(stores.len());
    let mut next: BinaryHeap<Reverse<(Bytes, u32, Bytes)>> = BinaryHeap::new();
    for (partition, store) in stores.iter().enumerate() {
        let past = Past::of(schema, &notes[partition], stage);
        let mut rows = store.rows(&range, move |key, row| {
            past.holds(key, row) || !query.wants(key, windowed)
        })?;
        let partition = partition as u32;
        let after = query.after.as_ref();
        let is_before =
            |key: &Bytes| after.is_some_and(|(after, place)| (&key[..], partition) <= (after.as_slice(), *place));
        let first = rows.find(|row| row.as_ref().map_or(true, |(key, _)| !is_before(key)));
        if let Some((key, row)) = first.transpose()? {
            next.push(Reverse((key, partition, row)));
        }
        sources.push(rows);
    }
    while let Some(Reverse((key, partition, row))) = next.pop() {
        let found = FoundRow {
            partition,
            key: &key,
            row: &row,
        };
        if !visit(found) {
            break;
        }
        if let Some((key, row)) = sources[partition as usize].next().transpose()? {
            next.push(Reverse((key, partition, row)));
        }
    }
    Ok(())
}

/// How far the tasks of a pipeline have come, by partition.
pub(super) fn notes(log: &dyn Broker, pipeline: &str, partitions: u32) -> Result<Vec<Notes>, LogError> {
    let mut notes: Vec<Notes> = (0..partitions).map(|_| Notes::default()).collect();
    let groups = log.groups()?;
    let offsets = groups
        .iter()
        .filter(|group| group.group == pipeline)
        .flat_map(|group| &group.partitions);
    for offset in offsets {
        if let Some(notes) = notes.get_mut(offset.partition as usize) {
            notes.read(&offset.metadata);
        }
    }
    Ok(notes)
}

impl RowQuery {
    /// The stretch in which all keys lie that are asked for.
    pub(super) fn range(&self, window_size_ms: Option<i64>) -> KeyRange {
        let mut range = match (window_size_ms, &self.keys) {
            (None, KeyFilter::Is(key)) => KeyRange {
                from: Bound::Included(key.clone()),
                to: Bound::Included(key.clone()),
            },
            (None, KeyFilter::StartsWith(prefix)) => KeyRange::prefix(prefix),
            (None, KeyFilter::All) => KeyRange::all(),
            (Some(size_ms), _) => {
                let bound = |start_ms: i64| {
                    let mut key = Vec::with_capacity(WINDOW_BYTES);
                    write_start(start_ms, &mut key);
                    key
                };
                // A window holds its start and not its end.
                let from = self.from_ms.map(|from| from.saturating_sub(size_ms).saturating_add(1));
                KeyRange {
                    from: from.map_or(Bound::Unbounded, |from| Bound::Included(bound(from))),
                    to: self.to_ms.map_or(Bound::Unbounded, |to| Bound::Excluded(bound(to))),
                }
            }
        };
        if let Some((after, _)) = &self.after {
            // The same key may be in another partition.
            let before = match &range.from {
                Bound::Included(from) | Bound::Excluded(from) => from < after,
                Bound::Unbounded => true,
            };
            if before {
                range.from = Bound::Included(after.clone());
            }
        }
        range
    }

    pub(super) fn wants(&self, key: &[u8], windowed: bool) -> bool {
        let key = if windowed {
            key.get(WINDOW_BYTES..).unwrap_or_default()
        } else {
            key
        };
        match &self.keys {
            KeyFilter::All => true,
            KeyFilter::Is(wanted) => key == wanted.as_slice(),
            KeyFilter::StartsWith(prefix) => key.starts_with(prefix),
        }
    }
}
