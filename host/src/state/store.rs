//! A store as one task has it: hot rows in front, the changelog beside, the local store behind.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::database::{KeyRange, StateDb, StateError};
use super::flush::{FlushError, FlushJob, Flushed, Flusher};
use super::hot::{Cold, ColdError, Hot, KeyedRow, WindowCursor, Windowing};
use super::log::{Changelog, Wake};
use super::shape::StoreShape;
use crate::connect::{BlockBuilder, Fetched, LogError, TopicPartition};
use crate::crash::crash_point;
use crate::limits::{BATCH_BYTES_MAX, STATE_FLUSH_INTERVAL, StoreBounds};
use crate::record::{RecordRef, now_ms};
use crate::window::StreamTime;

/// What all tasks of a host keep their state with.
#[derive(Clone)]
pub struct Backend {
    /// The local store.
    pub db: Arc<StateDb>,
    /// Writes to it.
    pub flusher: Arc<Flusher>,
    /// Where the changelogs are.
    pub log: Arc<dyn Changelog>,
}

/// After a flush that failed the next is tried no earlier.
const FLUSH_RETRY_TIME: Duration = Duration::from_secs(2);

/// A store as one task has it. Everything it writes is pending until the task's commit.
pub struct TaskStore {
    shape: Arc<StoreShape>,
    hot: Hot,
    disk: OnDisk,
    backend: Backend,
    /// The changelog up to here is in `hot` or in the local store.
    applied: u64,
    catching_up: CatchingUp,
    /// Where its rows are kept in the changelog itself: since when it misses nothing that was deleted, by the wall clock;
    /// none before it was caught up for the first time.
    as_of_ms: Option<i64>,
    /// The changelog up to here is in the local store.
    flushed: u64,
    /// Commits behind `flushed`: their numbers in `hot`, and where the changelog ended after them.
    commits: VecDeque<(u32, u64)>,
    /// Bytes of the changelog behind the last flush that was begun.
    unflushed_bytes: u64,
    unflushed_since: Option<Instant>,
    flushing: Option<FlushOutcome>,
    flush_retry_at: Option<Instant>,
    /// Why the last flush failed.
    flush_error: Option<String>,
}

/// How far a store is in catching up with its changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CatchingUp {
    /// It was opened, and its changelog was not looked at.
    Opened,
    /// What is in the local store has to go: the changelog has what is right.
    Clearing,
    /// It was caught up before, and is to be again.
    Again,
    /// So far there are records to read.
    To(u64),
}

/// What a turn of catching up came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// The store has everything that its changelog has.
    Done,
    /// There is more to do.
    More,
    /// The changelog does not answer at once; it wakes whoever asked.
    Waits,
}

/// Rows of a local store that are removed in one turn.
const CLEAR_ROWS: usize = 20_000;

type FlushOutcome = Arc<Mutex<Option<Result<Flushed, FlushError>>>>;

/// Why a store cannot be opened, or brought up to its changelog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The changelog cannot be read.
    #[error("the store {label:?}: {source}")]
    Log {
        /// The store.
        label: String,
        /// What the log said.
        source: LogError,
    },
    /// The local store cannot be read.
    #[error("the store {label:?}: {source}")]
    State {
        /// The store.
        label: String,
        /// What the storage said.
        source: StateError,
    },
    /// Rows are neither in the changelog nor in the local store.
    #[error(
        "the store {:?} has lost rows: its local store has the changelog up to offset {}, and {} goes from {} to {}; restore \
         the data folder from a copy, or begin anew with `millstream reset {}`",
        .0.label, .0.flushed, .0.changelog, .0.first, .0.next, .0.pipeline
    )]
    Lost(Box<Lost>),
    /// A changelog that keeps itself has less than was written to it.
    #[error(
        "the store {:?} has lost rows: somebody deleted records of {}, or made it anew: it goes from offset {} to {}, and \
         the local store has it up to {}; restore the topic from a copy, or begin anew with `millstream reset {}`",
        .0.label, .0.changelog, .0.first, .0.next, .0.flushed, .0.pipeline
    )]
    Truncated(Box<Lost>),
    /// The changelog has a record that no store wrote.
    #[error("the store {label:?}: {changelog} has a record without a key at offset {offset}, which no store wrote")]
    NoKey {
        /// The store.
        label: String,
        /// The changelog.
        changelog: TopicPartition,
        /// Of the record.
        offset: u64,
    },
}

/// A store and a changelog that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The store.
    pub label: String,
    /// The pipeline.
    pub pipeline: String,
    /// The changelog.
    pub changelog: TopicPartition,
    /// How far the local store has it.
    pub flushed: u64,
    /// Its first record.
    pub first: u64,
    /// Behind its last.
    pub next: u64,
}

impl StoreError {
    /// Whether waiting may help.
    pub fn passes(&self) -> bool {
        match self {
            StoreError::Log { source, .. } => matches!(source, LogError::Unavailable { .. }),
            StoreError::State { source, .. } => {
                matches!(source, StateError::Unavailable { .. } | StateError::DiskFull { .. })
            }
            StoreError::Lost(_) | StoreError::Truncated(_) | StoreError::NoKey { .. } => false,
        }
    }
}

impl TaskStore {
    /// Opens the store of a task. It is to be brought up to its changelog by [`TaskStore::catch_up`].
    ///
    /// # Errors
    /// Where rows are missing, or cannot be read.
    pub fn open(shape: Arc<StoreShape>, partition: u32, backend: Backend) -> Result<TaskStore, StoreError> {
        let place = TopicPartition::new(shape.changelog.clone(), partition);
        let flushed = backend.db.flushed(&shape.changelog, partition);
        let flushed = flushed.map_err(|source| StoreError::State {
            label: shape.label.clone(),
            source,
        })?;
        let applied = flushed.unwrap_or(0);
        let is_purged = backend.log.deletes_stay().is_none();
        let disk = OnDisk {
            db: backend.db.clone(),
            place,
        };
        let mut store = TaskStore {
            hot: Hot::new(shape.windowing, shape.ordered, flushed.is_none()),
            shape,
            disk,
            backend,
            applied,
            catching_up: CatchingUp::Opened,
            as_of_ms: None,
            flushed: applied,
            commits: VecDeque::new(),
            unflushed_bytes: 0,
            unflushed_since: None,
            flushing: None,
            flush_retry_at: None,
            flush_error: None,
        };
        if is_purged {
            let (first, next) = store
                .backend
                .log
                .ends(&store.disk.place)
                .map_err(|source| store.log_error(source))?;
            store.check_ends(first, next)?;
            store.catching_up = CatchingUp::Again;
        }
        Ok(store)
    }

    fn log_error(&self, source: LogError) -> StoreError {
        StoreError::Log {
            label: self.shape.label.clone(),
            source,
        }
    }

    fn state_error(&self, source: StateError) -> StoreError {
        StoreError::State {
            label: self.shape.label.clone(),
            source,
        }
    }

    /// Whether what it has and what the changelog has fit together.
    fn check_ends(&self, first: u64, next: u64) -> Result<(), StoreError> {
        if (first..=next).contains(&self.applied) {
            return Ok(());
        }
        let lost = Lost {
            label: self.shape.label.clone(),
            pipeline: self.shape.pipeline.to_string(),
            changelog: self.disk.place.clone(),
            flushed: self.applied,
            first,
            next,
        };
        Err(if self.backend.log.deletes_stay().is_some() {
            StoreError::Truncated(Box::new(lost))
        } else {
            StoreError::Lost(Box::new(lost))
        })
    }

    /// What its rows look like.
    pub fn shape(&self) -> &Arc<StoreShape> {
        &self.shape
    }

    /// Reads some of what the changelog has and the store has not: at a start, and where it is not known whether a commit
    /// became true. Nothing may be pending. Rows of windows that start before `first_open` are closed. `wake` is called
    /// when there is more after it had to wait.
    ///
    /// # Errors
    /// Where the changelog cannot be read, or is not what a store wrote.
    pub fn catch_up(&mut self, first_open: i64, wake: &Wake) -> Result<CaughtUp, StoreError> {
        let to = match self.catching_up {
            CatchingUp::To(to) => to,
            CatchingUp::Clearing => return self.clear(),
            CatchingUp::Opened | CatchingUp::Again => {
                let ends = self.backend.log.ends_soon(&self.disk.place, wake);
                let Some((first, next)) = ends.map_err(|source| self.log_error(source))? else {
                    return Ok(CaughtUp::Waits);
                };
                self.check_ends(first, next)?;
                if self.catching_up == CatchingUp::Opened && self.is_outdated()? {
                    self.catching_up = CatchingUp::Clearing;
                    return Ok(CaughtUp::More);
                }
                self.catching_up = CatchingUp::To(next);
                next
            }
        };
        if self.applied >= to {
            self.note_caught_up();
            return Ok(CaughtUp::Done);
        }
        let fetched = self
            .backend
            .log
            .fetch_soon(&self.disk.place, self.applied, BATCH_BYTES_MAX, wake);
        let Some(fetched) = fetched.map_err(|source| self.log_error(source))? else {
            return Ok(CaughtUp::Waits);
        };
        if fetched.next_offset() == self.applied {
            self.note_caught_up();
            return Ok(CaughtUp::Done);
        }
        self.replay(&fetched, first_open)?;
        crash_point("state-replayed");
        Ok(CaughtUp::More)
    }

    fn note_caught_up(&mut self) {
        self.catching_up = CatchingUp::Again;
        self.as_of_ms = Some(now_ms());
    }

    fn replay(&mut self, fetched: &Fetched, first_open: i64) -> Result<(), StoreError> {
        for record in fetched.records() {
            let Some(key) = record.key else {
                return Err(StoreError::NoKey {
                    label: self.shape.label.clone(),
                    changelog: self.disk.place.clone(),
                    offset: record.offset,
                });
            };
            let is_closed = self.shape.windowing == Windowing::Windows
                && super::codec::read_start(key).is_some_and(|(start, _)| start < first_open);
            if !is_closed {
                self.hot.replay(key, record.value);
            }
        }
        if fetched.is_empty() {
            // What was there became nothing.
            self.applied = fetched.next_offset();
        } else {
            self.note_commit(fetched.next_offset(), fetched.block_bytes() as u64);
        }
        Ok(())
    }

    /// Whether the local store may have rows that were deleted since, by a change that the changelog has no more.
    fn is_outdated(&mut self) -> Result<bool, StoreError> {
        let Some(deletes_stay) = self.backend.log.deletes_stay() else {
            return Ok(false);
        };
        let TopicPartition { topic, partition } = &self.disk.place;
        let as_of_ms = self
            .backend
            .db
            .as_of(topic, *partition)
            .map_err(|source| self.state_error(source))?;
        let now_ms = now_ms();
        let stays_ms = i64::try_from(deletes_stay.as_millis()).unwrap_or(i64::MAX);
        // What was noted in the future was noted by a clock that is not to be trusted.
        let is_fresh = as_of_ms.is_some_and(|as_of_ms| as_of_ms <= now_ms && now_ms - as_of_ms < stays_ms);
        self.as_of_ms = Some(as_of_ms.filter(|_| is_fresh).unwrap_or(now_ms));
        if is_fresh {
            return Ok(false);
        }
        let rows = self
            .disk
            .range(Bound::Unbounded, 1)
            .map_err(|error| self.unreadable(error))?;
        if self.applied == 0 && rows.is_empty() {
            return Ok(false);
        }
        tracing::warn!(
            store = self.shape.label,
            changelog = %self.disk.place,
            "the local store is older than deleted rows stay in the changelog: it is made anew from there"
        );
        Ok(true)
    }

    /// Removes some of what is in the local store, where the changelog has what is right.
    fn clear(&mut self) -> Result<CaughtUp, StoreError> {
        let TopicPartition { topic, partition } = &self.disk.place;
        let cleared = self.backend.db.clear(topic, *partition, CLEAR_ROWS);
        if cleared.map_err(|source| self.state_error(source))? {
            self.hot = Hot::new(self.shape.windowing, self.shape.ordered, true);
            self.applied = 0;
            self.flushed = 0;
            self.catching_up = CatchingUp::Again;
        }
        Ok(CaughtUp::More)
    }

    /// Records that are behind what is in the store.
    ///
    /// # Errors
    /// Where it cannot be told.
    pub fn behind(&self) -> Result<u64, StoreError> {
        let ends = self.backend.log.ends(&self.disk.place);
        let (_, next) = ends.map_err(|source| StoreError::Log {
            label: self.shape.label.clone(),
            source,
        })?;
        Ok(next.saturating_sub(self.applied))
    }

    /// What it means that the local store cannot be read.
    pub fn unreadable(&self, error: ColdError) -> StoreError {
        StoreError::State {
            label: self.shape.label.clone(),
            source: StateError::Unavailable {
                store: self.shape.changelog.to_string(),
                partition: self.disk.place.partition,
                detail: error.0,
            },
        }
    }

    /// The row of a key.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn get(&mut self, key: &[u8], now: StreamTime) -> Result<Option<&[u8]>, ColdError> {
        self.hot.get(key, now, &self.disk)
    }

    /// See [`Hot::find_all`].
    pub fn find_all<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Vec<Option<u32>> {
        self.hot.find_all(keys)
    }

    /// See [`Hot::get_at`].
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn get_at(&mut self, place: Option<u32>, key: &[u8], now: StreamTime) -> Result<Option<&[u8]>, ColdError> {
        self.hot.get_at(place, key, now, &self.disk)
    }

    /// Writes a row.
    pub fn put(&mut self, key: &[u8], row: &[u8]) {
        self.hot.put(key, row);
    }

    /// Removes a row, if there is one.
    pub fn delete(&mut self, key: &[u8]) {
        self.hot.delete(key);
    }

    /// See [`Hot::scan`].
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        now: StreamTime,
    ) -> Result<(Vec<KeyedRow>, bool), ColdError> {
        self.hot.scan(prefix, after, limit, now, &self.disk)
    }

    /// A call begins: what it writes can be undone.
    pub fn begin_call(&mut self) {
        self.hot.begin_call();
    }

    /// The call failed.
    pub fn undo_call(&mut self) {
        self.hot.undo_call();
    }

    /// Keys that changed since the last commit, with their rows as they are now, in the order of their keys.
    pub fn changed(&self) -> Vec<KeyedRow> {
        let rows = self
            .hot
            .pending()
            .filter_map(|(key, row)| Some((key.to_vec(), row?.to_vec())));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        rows
    }

    /// The first window that starts from `from_ms` on and before `before_ms` and has a row.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn next_window(&self, from_ms: i64, before_ms: i64) -> Result<Option<i64>, ColdError> {
        self.hot.next_window(from_ms, before_ms, &self.disk)
    }

    /// The rows of a window, in the order of their keys, behind the key `after`.
    pub fn window(&self, start_ms: i64, after: Option<&[u8]>) -> WindowCursor {
        self.hot.window(start_ms, after)
    }

    /// The next rows of a window, at most `limit`; none at its end. The store must not have been written to, nor
    /// committed, since the cursor was made.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn window_rows(&self, cursor: &mut WindowCursor, limit: usize) -> Result<Vec<KeyedRow>, ColdError> {
        self.hot.window_rows(cursor, limit, &self.disk)
    }

    /// Bytes that were written since the last commit.
    pub fn pending_bytes(&self) -> usize {
        self.hot.pending_bytes()
    }

    /// What was written since the last commit, as records for the changelog; none where nothing was. `now` is the time
    /// of what was deleted.
    pub fn changes(&self, now: StreamTime) -> Option<BlockBuilder> {
        if self.hot.is_unchanged() {
            return None;
        }
        let mut blocks = BlockBuilder::new();
        for (key, row) in self.hot.pending() {
            let row_time = row.and_then(super::codec::RowRef::parse).map(|row| row.timestamp_ms);
            let timestamp_ms = row_time.or(now.get()).unwrap_or(0);
            let record = RecordRef {
                key: Some(key),
                value: row,
                headers: Default::default(),
                timestamp_ms,
                offset: 0,
            };
            blocks
                .push_derived(record)
                .expect("keys and rows are bounded where they are written");
        }
        (!blocks.is_empty()).then_some(blocks)
    }

    /// Everything that the changelog has before this offset is in it.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Where its changes are written.
    pub fn changelog(&self) -> &TopicPartition {
        &self.disk.place
    }

    /// The commit is true: its changes begin at `base_offset` of the changelog, and are so many.
    pub fn committed(&mut self, base_offset: u64, records: u64, bytes: u64) {
        // Between two commits there may be offsets without a record, as transactions leave them.
        debug_assert!(
            base_offset >= self.applied,
            "a task is the only one that writes its changelog"
        );
        self.note_commit(base_offset + records, bytes);
    }

    /// The commit is true, and nothing of this store was in it.
    pub fn committed_nothing(&mut self) {
        if !self.hot.is_unchanged() {
            let commit = self.hot.committed();
            self.commits.push_back((commit, self.applied));
        }
    }

    fn note_commit(&mut self, next: u64, bytes: u64) {
        let commit = self.hot.committed();
        self.applied = next;
        self.commits.push_back((commit, next));
        self.unflushed_bytes += bytes;
        self.unflushed_since.get_or_insert_with(Instant::now);
    }

    /// The commit failed, or the task goes back to the last one.
    pub fn abort(&mut self) {
        if let CatchingUp::To(_) = self.catching_up {
            self.catching_up = CatchingUp::Again;
        }
        self.hot.abort();
    }

    /// Windows that start before `first_open` are closed, and that is committed: their rows count no more.
    pub fn drop_windows(&mut self, first_open: i64) {
        if self.shape.windowing == Windowing::Windows {
            self.hot.drop_windows(first_open);
        }
    }

    /// Takes what a flush has done, begins one if it is time, and drops rows from memory beyond `memory_bytes_max`. `wake`
    /// is called when a flush is done. Returns when it has to be looked at again.
    pub fn tend(
        &mut self,
        now: Instant,
        memory_bytes_max: usize,
        before_ms: Option<i64>,
        wake: impl FnOnce() + Send + 'static,
    ) -> Option<Instant> {
        if let Some(outcome) = self.flush_outcome() {
            self.flushing = None;
            match outcome {
                Ok(flushed) => {
                    self.flush_error = None;
                    self.flushed = self.flushed.max(flushed.up_to);
                    let mut commit = None;
                    while self.commits.front().is_some_and(|(_, end)| *end <= self.flushed) {
                        commit = self.commits.pop_front();
                    }
                    if let Some((number, _)) = commit {
                        self.hot.flushed(number);
                    }
                }
                Err(error) => {
                    if self.flush_error.is_none() {
                        tracing::warn!(store = self.shape.label, "not flushed: {error}");
                    }
                    self.flush_error = Some(error.to_string());
                    self.flush_retry_at = Some(now + FLUSH_RETRY_TIME);
                    self.unflushed_since.get_or_insert(now);
                }
            }
        }
        let rows = self.hot.len();
        self.hot.evict(memory_bytes_max);
        if self.hot.len() < rows {
            crash_point("state-evicted");
        }
        if self.flushing.is_some() || self.applied <= self.flushed {
            return None;
        }
        let since = *self.unflushed_since.get_or_insert(now);
        let mut due = since + STATE_FLUSH_INTERVAL;
        if self.unflushed_bytes >= StoreBounds::get().flush_bytes
            || self.hot.bytes() > memory_bytes_max / 2 && self.is_mostly_dirty()
        {
            due = now;
        }
        let due = due.max(self.flush_retry_at.unwrap_or(now));
        if due > now {
            return Some(due);
        }
        self.begin_flush(before_ms, wake);
        None
    }

    fn is_mostly_dirty(&self) -> bool {
        self.hot.dirty_bytes() * 8 > self.hot.bytes()
    }

    fn begin_flush(&mut self, before_ms: Option<i64>, wake: impl FnOnce() + Send + 'static) {
        let outcome = FlushOutcome::default();
        let told = outcome.clone();
        let job = FlushJob {
            pipeline: self.shape.pipeline.clone(),
            changelog: self.disk.place.clone(),
            from: self.flushed,
            to: self.applied,
            segmenting: self.shape.segmenting(),
            before_ms,
            as_of_ms: self.as_of_now(),
            done: Box::new(move |result| {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                wake();
            }),
        };
        if self.backend.flusher.submit(job).is_ok() {
            self.flushing = Some(outcome);
            self.unflushed_bytes = 0;
            self.unflushed_since = None;
            self.flush_retry_at = None;
        } else {
            self.flush_retry_at = Some(Instant::now() + FLUSH_RETRY_TIME);
        }
    }

    /// Since when what is flushed now misses nothing that was deleted; none where nobody has to know.
    fn as_of_now(&self) -> Option<i64> {
        self.backend.log.deletes_stay()?;
        match self.catching_up {
            CatchingUp::Again => Some(now_ms()),
            _ => self.as_of_ms,
        }
    }

    fn flush_outcome(&self) -> Option<Result<Flushed, FlushError>> {
        let outcome = self.flushing.as_ref()?;
        outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether it takes more memory than it may, as rows wait for being flushed: the task waits for that.
    pub fn is_over(&self, memory_bytes_max: usize) -> bool {
        self.hot.bytes() > memory_bytes_max && (self.flushing.is_some() || self.flush_retry_at.is_some())
    }

    /// Why the last flush failed, if it did.
    pub fn flush_error(&self) -> Option<&str> {
        self.flush_error.as_deref()
    }

    /// Bytes of rows that are committed and not in the local store.
    pub fn dirty_bytes(&self) -> usize {
        self.hot.dirty_bytes()
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.hot.bytes()
    }
}

/// The rows of a task that are in the local store.
struct OnDisk {
    db: Arc<StateDb>,
    place: TopicPartition,
}

impl Cold for OnDisk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ColdError> {
        let row = self.db.get(&self.place.topic, self.place.partition, key);
        Ok(row.map_err(cold)?.map(|row| row.to_vec()))
    }

    fn range(&self, from: Bound<&[u8]>, limit: usize) -> Result<Vec<KeyedRow>, ColdError> {
        let range = KeyRange {
            from: from.map(<[u8]>::to_vec),
            to: Bound::Unbounded,
        };
        let rows = self
            .db
            .range(&self.place.topic, self.place.partition, &range)
            .map_err(cold)?;
        let row = |row: Result<(bytes::Bytes, bytes::Bytes), StateError>| {
            let (key, row) = row.map_err(cold)?;
            Ok((key.to_vec(), row.to_vec()))
        };
        rows.take(limit).map(row).collect()
    }
}

fn cold(error: StateError) -> ColdError {
    ColdError(error.to_string())
}
