//! What a task keeps for one stage: its stores, and how far its stream has come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::guest::{Scanned, Stores, StoresError};
use crate::limits::{KEY_BYTES_MAX, ROW_BYTES_MAX};
use crate::pipeline::PlannedStage;
use crate::state::codec::{read_key, write_key, write_row};
use crate::state::notes::{Closed, Notes, Progress, first_open};
use crate::state::{Backend, CaughtUp, ColdError, StoreError, StoreShape, TaskStore, Wake, Windowing};
use crate::table::{Column, Table};
use crate::window::{Emit, Late, StreamTime, Window};

/// The state of one stage in one task.
pub(super) struct StageState {
    /// The stage's name: under it stream time is noted beside the offsets.
    name: String,
    shared: Arc<Mutex<StageStores>>,
    /// Lent to an instance for the time of a call.
    lent: Option<Box<dyn Stores>>,
    /// Of an aggregator with windows.
    pub window: Option<Window>,
    /// Whether results are sent when windows close.
    emits_on_close: bool,
    /// Where rows have a time to live, stream time goes in steps of this for them: a part of that time.
    tick_ms: Option<i64>,
    committed: Progress,
    /// As of the next commit.
    pub progress: Progress,
    /// Stream time when the last record came: what moves it since then is the clock.
    pub last_record: StreamTime,
}

/// The stores of a stage, and the time that their rows are written at.
pub(super) struct StageStores {
    pub stores: Vec<TaskStore>,
    pub now: StreamTime,
    /// When the last record was appended that was too far ahead to move stream time.
    appended_ms: i64,
    key: Vec<u8>,
    row: Vec<u8>,
}

/// Steps of stream time in a row's time to live: rows of one step are taken in one call and live equally long.
const TICKS_OF_LIFE: i64 = 16;

impl StageState {
    /// Opens the stores of a stage for the task of a partition.
    ///
    /// # Errors
    /// Where rows are missing, or cannot be read.
    pub fn open(
        planned: &PlannedStage,
        shapes: &[Arc<StoreShape>],
        partition: u32,
        backend: &Backend,
    ) -> Result<StageState, StoreError> {
        let open = |shape: &Arc<StoreShape>| TaskStore::open(shape.clone(), partition, backend.clone());
        let stores = StageStores {
            stores: shapes.iter().map(open).collect::<Result<_, _>>()?,
            now: StreamTime::default(),
            appended_ms: 0,
            key: Vec::new(),
            row: Vec::new(),
        };
        let shared = Arc::new(Mutex::new(stores));
        Ok(StageState {
            name: planned.name.clone(),
            lent: Some(Box::new(Lent(shared.clone()))),
            shared,
            window: planned.window,
            emits_on_close: planned.window.is_some() && planned.emit == Emit::Close,
            tick_ms: shapes.iter().filter_map(|shape| tick_ms(shape)).min(),
            committed: Progress::default(),
            progress: Progress::default(),
            last_record: StreamTime::default(),
        })
    }

    /// The stores. Nobody else has them but an instance during a call.
    pub fn stores(&self) -> MutexGuard<'_, StageStores> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is lent to an instance for a call, which gives it back.
    pub fn lent(&mut self) -> &mut Option<Box<dyn Stores>> {
        &mut self.lent
    }

    /// Bytes that were written since the last commit.
    pub fn pending_bytes(&self) -> usize {
        self.stores().stores.iter().map(TaskStore::pending_bytes).sum()
    }

    /// A call begins: what it writes can be undone.
    pub fn begin_call(&mut self) {
        let now = self.on_tick(self.progress.now);
        let mut stores = self.stores();
        stores.now = now;
        stores.stores.iter_mut().for_each(TaskStore::begin_call);
    }

    /// Whether the time of its rows goes in steps.
    pub fn has_ticks(&self) -> bool {
        self.tick_ms.is_some()
    }

    /// The step of a stream time.
    pub fn on_tick(&self, now: StreamTime) -> StreamTime {
        let (Some(tick_ms), Some(now_ms)) = (self.tick_ms, now.get()) else {
            return now;
        };
        let mut tick = StreamTime::default();
        tick.advance(now_ms.saturating_sub(now_ms.rem_euclid(tick_ms)));
        tick
    }

    /// The call failed.
    pub fn undo_call(&mut self) {
        self.stores().stores.iter_mut().for_each(TaskStore::undo_call);
    }

    /// Takes a record's time into account: stream time moves, and with it windows come to be closed.
    ///
    /// # Errors
    /// Where the record is too far ahead.
    pub fn observe(&mut self, timestamp_ms: i64, appended_ms: i64, future_max: Duration) -> Result<(), Late> {
        let before = self.progress.now;
        if let Err(late) = self.progress.now.observe(timestamp_ms, appended_ms, future_max) {
            self.stores().appended_ms = appended_ms;
            return Err(late);
        }
        self.last_record = self.progress.now;
        self.note_closing(before);
        Ok(())
    }

    /// The stream time at which the first open window closes, where results are sent then.
    ///
    /// # Errors
    /// Where the local store cannot be read.
    pub fn next_closing(&self) -> Result<Option<i64>, StoreError> {
        let Some(window) = self.window.filter(|_| self.emits_on_close) else {
            return Ok(None);
        };
        let stores = self.stores();
        let store = &stores.stores[0];
        let next = store.next_window(first_open(self.window, &self.progress), i64::MAX);
        let next = next.map_err(|error| store.unreadable(error))?;
        Ok(next.map(|start| window.closes_at(start)))
    }

    /// Brings the stores up to their changelogs, some of it. `wake` is called when there is more after it had to wait.
    ///
    /// # Errors
    /// Where a changelog cannot be read, or is not what a store wrote.
    pub fn catch_up(&mut self, wake: &Wake) -> Result<CaughtUp, StoreError> {
        let first_open = self.first_open_committed();
        for store in &mut self.stores().stores {
            match store.catch_up(first_open, wake)? {
                CaughtUp::Done => {}
                not_yet => return Ok(not_yet),
            }
        }
        Ok(CaughtUp::Done)
    }

    /// Moves stream time.
    pub fn advance(&mut self, to_ms: i64) {
        let before = self.progress.now;
        self.progress.now.advance(to_ms);
        self.note_closing(before);
    }

    fn note_closing(&mut self, before: StreamTime) {
        if before == self.progress.now {
            return;
        }
        if let Some(window) = self
            .window
            .filter(|_| self.emits_on_close && self.progress.closed.is_none())
        {
            let (before_ms, now_ms) = (window.first_open(before), window.first_open(self.progress.now));
            if before_ms < now_ms {
                self.progress.closed = Some(Closed { before_ms, after: None });
            }
        }
    }

    /// The first window that is not closed as of the last commit; rows of those before it count no more.
    pub fn first_open_committed(&self) -> i64 {
        first_open(self.window, &self.committed)
    }

    /// Everything is as of the last commit.
    pub fn abort(&mut self) {
        self.progress = self.committed.clone();
        self.stores().stores.iter_mut().for_each(TaskStore::abort);
    }

    /// What was committed last, by what is noted beside the offsets.
    pub fn restore(&mut self, notes: &Notes) {
        self.committed = notes.progress(&self.name);
        self.progress = self.committed.clone();
        self.last_record = self.progress.now;
    }

    /// What is to be noted beside the next offsets.
    pub fn note(&self) -> (&str, &Progress) {
        (&self.name, &self.progress)
    }

    /// Whether stream time, or what is closed, has moved since the last commit.
    pub fn has_moved(&self) -> bool {
        self.progress != self.committed
    }

    /// The commit is true.
    pub fn committed(&mut self) {
        self.committed = self.progress.clone();
        let first_open = self.first_open_committed();
        for store in &mut self.stores().stores {
            store.committed_nothing();
            store.drop_windows(first_open);
        }
    }

    /// Rows that were written before this are past: what the local store needs not keep.
    pub fn past_before(&self, shape: &StoreShape) -> Option<i64> {
        let now = self.on_tick(self.committed.now).get()?;
        match shape.windowing {
            Windowing::Forever => None,
            Windowing::Windows => Some(self.first_open_committed()),
            Windowing::TimeToLive(ms) => Some(now.saturating_sub(ms).saturating_add(1)),
        }
    }
}

fn tick_ms(shape: &StoreShape) -> Option<i64> {
    match shape.windowing {
        Windowing::TimeToLive(ms) => Some((ms / TICKS_OF_LIFE).max(1)),
        Windowing::Forever | Windowing::Windows => None,
    }
}

/// The stores of a stage while an instance is called.
struct Lent(Arc<Mutex<StageStores>>);

impl Stores for Lent {
    fn get(&mut self, store: usize, keys: &Table, bytes_max: usize) -> Result<(Vec<u8>, Table), StoresError> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let StageStores { stores, now, key, .. } = &mut *shared;
        let store = &mut stores[store];
        let shape = store.shape().clone();
        let rows = keys.rows as usize;
        let mut columns = shape.columns(rows);
        let mut absent = Vec::new();
        let mut bytes_left = bytes_max;
        key.clear();
        let mut ends = Vec::with_capacity(rows);
        for row in 0..rows {
            append_key(&shape, keys, row, key)?;
            ends.push(key.len());
        }
        let key_at = |row: usize| &key[row.checked_sub(1).map_or(0, |before| ends[before])..ends[row]];
        let places = store.find_all((0..rows).map(key_at));
        for (row, place) in places.into_iter().enumerate() {
            match store.get_at(place, key_at(row), *now).map_err(unavailable)? {
                Some(bytes) => {
                    bytes_left = bytes_left.checked_sub(bytes.len()).ok_or(StoresError::Size)?;
                    shape
                        .read(bytes, row, &mut columns)
                        .map_err(|error| StoresError::Unavailable(format!("{}: {error}", shape.label)))?;
                    if !absent.is_empty() {
                        absent.push(0);
                    }
                }
                None => {
                    absent.resize(row, 0);
                    absent.push(1);
                    shape.push_absent(row, &mut columns);
                }
            }
        }
        let values = Table {
            rows: keys.rows,
            columns,
        };
        Ok((absent, values))
    }

    fn put(&mut self, store: usize, keys: &Table, values: &Table) -> Result<(), StoresError> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let StageStores {
            stores,
            now,
            appended_ms,
            key,
            row,
        } = &mut *shared;
        let store = &mut stores[store];
        let shape = store.shape().clone();
        // Where stream time has not begun, every record was too far ahead: it will not begin behind their append.
        let now_ms = now.get().unwrap_or(*appended_ms);
        for at in 0..keys.rows as usize {
            key_of(&shape, keys, at, key)?;
            row.clear();
            write_row(shape.schema_number(), now_ms, &shape.value, values, at, row);
            check_row(&shape, row)?;
            store.put(key, row);
        }
        Ok(())
    }

    fn delete(&mut self, store: usize, keys: &Table) -> Result<(), StoresError> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let StageStores { stores, key, .. } = &mut *shared;
        let store = &mut stores[store];
        let shape = store.shape().clone();
        for at in 0..keys.rows as usize {
            key_of(&shape, keys, at, key)?;
            store.delete(key);
        }
        Ok(())
    }

    fn scan(
        &mut self,
        store: usize,
        prefix: &Table,
        after: &Table,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Scanned, StoresError> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let StageStores {
            stores, now, key, row, ..
        } = &mut *shared;
        let store = &mut stores[store];
        let shape = store.shape().clone();
        key.clear();
        write_key(&shape.key[..prefix.columns.len()], prefix, 0, key);
        let after = if after.rows > 0 {
            key_of(&shape, after, 0, row)?;
            Some(&row[..])
        } else {
            None
        };
        let (mut rows, mut complete) = store.scan(key, after, limit, *now).map_err(unavailable)?;
        let mut bytes = 0;
        let fits = |(key, row): &&(Vec<u8>, Vec<u8>)| {
            bytes += key.len() + row.len();
            bytes <= bytes_max
        };
        let fitting = rows.iter().take_while(fits).count();
        if fitting < rows.len() {
            if fitting == 0 {
                return Err(StoresError::Size);
            }
            rows.truncate(fitting);
            complete = false;
        }
        let mut keys = shape.keys(rows.len());
        let mut values = shape.columns(rows.len());
        for (at, (key, row)) in rows.iter().enumerate() {
            let is_key = read_key(&shape.key, key, at, &mut keys.columns);
            if !is_key || shape.read(row, at, &mut values).is_err() {
                let what = format!("{}: the bytes are no row of the store", shape.label);
                return Err(StoresError::Unavailable(what));
            }
        }
        keys.rows = rows.len() as u32;
        Ok(Scanned {
            keys,
            values: Table {
                rows: rows.len() as u32,
                columns: values,
            },
            complete,
        })
    }
}

fn key_of(shape: &StoreShape, keys: &Table, row: usize, out: &mut Vec<u8>) -> Result<(), StoresError> {
    out.clear();
    append_key(shape, keys, row, out)
}

fn append_key(shape: &StoreShape, keys: &Table, row: usize, out: &mut Vec<u8>) -> Result<(), StoresError> {
    let before = out.len();
    write_key(&shape.key, keys, row, out);
    let bytes = out.len() - before;
    if bytes > KEY_BYTES_MAX {
        let what = format!(
            "the store {:?}: a key of {bytes} bytes, but {KEY_BYTES_MAX} is the limit",
            shape.label
        );
        return Err(StoresError::Row(what));
    }
    Ok(())
}

/// Whether a row is within its bound.
pub(super) fn check_row(shape: &StoreShape, row: &[u8]) -> Result<(), StoresError> {
    if row.len() > ROW_BYTES_MAX {
        let bytes = row.len();
        let what = format!(
            "the store {:?}: a row of {bytes} bytes, but {ROW_BYTES_MAX} is the limit",
            shape.label
        );
        return Err(StoresError::Row(what));
    }
    Ok(())
}

pub(super) fn unavailable(error: ColdError) -> StoresError {
    StoresError::Unavailable(error.0)
}

/// Appends a row of a table of the same fields.
pub(super) fn push_row(fields: &[crate::schema::Field], from: &Table, row: usize, at: usize, to: &mut [Column]) {
    for ((field, from), to) in fields.iter().zip(&from.columns).zip(to) {
        to.push(field.field_type, at, from.cell(field.field_type, row));
    }
}
