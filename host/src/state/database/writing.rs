//! Writing rows, and dropping them by the segment.

use super::engine::{Engine, as_of_key, encode_store, flushed_key, keyspace_key, store_key};
use super::error::{Cause, Place, StateError, cause};
use super::store::{Segment, Store};
use super::{StateDb, Stores};
use crate::connect::embedded::stopped;
use crate::crash::crash_point;
use crate::state::segment::Segmenting;
use fjall::{AbstractTree, Keyspace};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A row, or none where the key is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreRow<'a> {
    /// With its partition at most 65,535 bytes.
    pub key: &'a [u8],
    /// The row; none where it is deleted.
    pub value: Option<&'a [u8]>,
    /// When it was changed.
    pub timestamp_ms: i64,
}

/// A key with the partition before it: more the engine does not take.
pub const ROW_KEY_BYTES_MAX: usize = u16::MAX as usize - 4;

/// Runs that wait for being merged before a flush waits too: each costs every read a look.
const RUNS_MAX: usize = 16;
/// So long they may take.
const MERGE_TIME_MAX: Duration = Duration::from_secs(60);

/// What was tried did not work.
pub(super) enum WriteError {
    Engine(fjall::Error),
    Refused(StateError),
}

impl From<fjall::Error> for WriteError {
    fn from(error: fjall::Error) -> Self {
        WriteError::Engine(error)
    }
}

impl StateDb {
    /// Writes rows of a partition, and that with them everything of the changelog up to `up_to` is here. The rows are in
    /// the order of their keys, each key once. A store keeps the segmenting that it was first written with. It is on the
    /// disk when this returns.
    ///
    /// # Errors
    /// Where a row is none that a store takes nothing was written. Otherwise the offset is as before, and some of the rows
    /// may be written: the same again, or more from the same offset on, is right.
    pub fn apply(
        &self,
        changelog: &str,
        partition: u32,
        segmenting: Segmenting,
        rows: &[StoreRow<'_>],
        up_to: u64,
    ) -> Result<(), StateError> {
        let store = changelog;
        let place = Place { store, partition };
        let row_bytes = |row: &StoreRow<'_>| row.key.len() + row.value.map_or(0, <[u8]>::len) + 16;
        let bytes: usize = rows.iter().map(row_bytes).sum();
        self.write(place, bytes as u64, |engine| {
            apply(engine, place, segmenting, rows, up_to)
        })
    }

    /// This partition needs no row from before `time_ms`. A segment that ends before it is dropped when no partition with
    /// rows in it needs it any more.
    ///
    /// # Errors
    /// What is not dropped takes room on the disk; it is dropped later.
    pub fn retire(&self, changelog: &str, partition: u32, time_ms: i64) -> Result<(), StateError> {
        let store = changelog;
        let place = Place { store, partition };
        let unneeded = self.with_engine(place, |engine| {
            // Nothing to do is what is said most often.
            let before = |stores: &Stores| {
                let store = stores.get(changelog)?;
                let before = store.segmenting.segment_of(time_ms)?;
                let (first, _) = store.segments.first_key_value()?;
                (*first < before && store.needed_from(partition) < before).then_some(before)
            };
            let Some(before) = before(&engine.stores.read().unwrap_or_else(|e| e.into_inner())) else {
                return Ok(false);
            };
            let mut stores = engine.stores.write().unwrap_or_else(|e| e.into_inner());
            let Some(store) = stores.get_mut(changelog) else {
                return Ok(false);
            };
            store.retired.insert(partition, before);
            Ok(!store.unneeded().is_empty())
        })?;
        if !unneeded {
            return Ok(());
        }
        self.write(place, 0, |engine| {
            let (id, segments) = {
                let mut stores = engine.stores.write().unwrap_or_else(|e| e.into_inner());
                let Some(store) = stores.get_mut(changelog) else {
                    return Ok(());
                };
                let segments: Vec<_> = store
                    .unneeded()
                    .into_iter()
                    .filter_map(|start| Some((Some(start), store.segments.remove(&start)?.keyspace)))
                    .collect();
                (store.id, segments)
            };
            drop_keyspaces(engine, id, segments, |_, _| {})
        })
    }

    /// Drops a store with all its rows.
    ///
    /// # Errors
    /// It is gone, or as before: then the same again is right.
    pub fn drop_store(&self, changelog: &str) -> Result<(), StateError> {
        let place = Place {
            store: changelog,
            partition: 0,
        };
        self.write(place, 0, |engine| {
            let removed = engine
                .stores
                .write()
                .unwrap_or_else(|e| e.into_inner())
                .remove(changelog);
            let Some(store) = removed else {
                return Ok(());
            };
            let keyspaces = store
                .keyspaces()
                .map(|(start, segment)| (start, segment.keyspace.clone()));
            drop_keyspaces(engine, store.id, keyspaces.collect(), |batch, meta| {
                batch.remove(meta, store_key(changelog));
                for partition in store.flushed.keys() {
                    batch.remove(meta, flushed_key(store.id, *partition));
                    batch.remove(meta, as_of_key(store.id, *partition));
                }
            })
        })
    }

    /// Calls into the engine alone, where there is room for so many bytes. After an error of the disk the engine is
    /// opened again: what the disk says is what is true.
    pub(super) fn write(
        &self,
        place: Place<'_>,
        bytes: u64,
        change: impl FnOnce(&Engine) -> Result<(), WriteError>,
    ) -> Result<(), StateError> {
        let _writer = self.writer.lock().unwrap_or_else(|e| e.into_inner());
        self.reopen_if_down();
        // Rows are written once now, and once more when runs are merged.
        let needed_bytes = bytes.saturating_mul(2).saturating_add(self.options.disk_reserve_bytes);
        let free_bytes = self.free_bytes();
        if bytes > 0 && free_bytes.is_some_and(|free_bytes| free_bytes < needed_bytes) {
            return Err(place.disk_full(&self.folder, free_bytes.unwrap_or(0), needed_bytes));
        }
        let poisoned = self.with_engine(place, |engine| Ok(engine.is_poisoned()))?;
        if poisoned {
            self.reopen();
        }
        let outcome = self.with_engine(place, |engine| {
            Ok(catch_unwind(AssertUnwindSafe(|| change(engine))).map_err(|panic| stopped(&*panic)))
        })?;
        let (error, reopen) = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(WriteError::Refused(error))) => (error, false),
            Ok(Err(WriteError::Engine(error))) => match cause(&error) {
                Cause::Full(_) => {
                    let free_bytes = self.free_bytes().unwrap_or(0);
                    (place.disk_full(&self.folder, free_bytes, needed_bytes), true)
                }
                Cause::Files(detail) => (place.damaged(detail), true),
                Cause::System(detail) => (place.unavailable(detail), true),
            },
            Err(detail) => (place.damaged(detail), true),
        };
        if reopen {
            tracing::warn!(%error, "the local store could not be written; its engine is opened again");
            self.reopen();
        }
        Err(error)
    }
}

fn apply(
    engine: &Engine,
    place: Place<'_>,
    segmenting: Segmenting,
    rows: &[StoreRow<'_>],
    up_to: u64,
) -> Result<(), WriteError> {
    let known = {
        let stores = engine.stores.read().unwrap_or_else(|e| e.into_inner());
        stores.get(place.store).cloned()
    };
    let next_id = engine.next_store_id.load(Ordering::Relaxed);
    let is_new = known.is_none();
    let store = known.unwrap_or_else(|| Store::new(next_id, segmenting));
    let runs = split(&store, place, rows).map_err(WriteError::Refused)?;
    for (start, run) in &runs {
        let keyspace = engine.keyspace(store.id, *start)?;
        wait_for_merging(engine, &keyspace)?;
        ingest(&keyspace, &store, place.partition, run)?;
        // Before the offset: whoever reads it shall find the rows.
        let mut stores = engine.stores.write().unwrap_or_else(|e| e.into_inner());
        let listed = stores.entry(place.store.into()).or_insert_with(|| store.clone());
        let segment = match start {
            None => listed.whole.get_or_insert_with(|| Segment::new(keyspace, false)),
            Some(start) => {
                let made = || Segment::new(keyspace, false);
                listed.segments.entry(*start).or_insert_with(made)
            }
        };
        segment.partitions.insert(place.partition);
        drop(stores);
        crash_point("state-flush-run");
    }
    let unnamed: Vec<Option<i64>> = {
        let mut stores = engine.stores.write().unwrap_or_else(|e| e.into_inner());
        let listed = stores.entry(place.store.into()).or_insert_with(|| store.clone());
        let unnamed = listed.keyspaces().filter(|(_, segment)| !segment.named);
        unnamed.map(|(start, _)| start).collect()
    };
    engine.write_meta(|batch, meta| {
        if is_new {
            batch.insert(meta, b"i", (next_id + 1).to_le_bytes());
            batch.insert(meta, store_key(place.store), encode_store(store.id, store.segmenting));
        }
        for start in &unnamed {
            batch.insert(meta, keyspace_key(store.id, *start), b"");
        }
        batch.insert(meta, flushed_key(store.id, place.partition), up_to.to_le_bytes());
    })?;
    if is_new {
        engine.next_store_id.store(next_id + 1, Ordering::Relaxed);
    }
    let mut stores = engine.stores.write().unwrap_or_else(|e| e.into_inner());
    if let Some(listed) = stores.get_mut(place.store) {
        listed.flushed.insert(place.partition, up_to);
        listed.whole.iter_mut().for_each(|segment| segment.named = true);
        listed.segments.values_mut().for_each(|segment| segment.named = true);
    }
    drop(stores);
    crash_point("state-flush-meta");
    Ok(())
}

type Runs<'r, 'a> = BTreeMap<Option<i64>, Vec<&'r StoreRow<'a>>>;

/// The rows by their segment; those of segments that the partition does not need any more are left out.
fn split<'r, 'a>(store: &Store, place: Place<'_>, rows: &'r [StoreRow<'a>]) -> Result<Runs<'r, 'a>, StateError> {
    if !rows.is_sorted_by(|a, b| a.key < b.key) {
        return Err(place.refused("its keys are not in their order"));
    }
    let newest = store.newest(place.partition);
    let needed_from = store.needed_from(place.partition);
    let mut runs = Runs::new();
    for row in rows {
        if row.key.len() > ROW_KEY_BYTES_MAX {
            let bytes = row.key.len();
            return Err(place.refused(format!("a key of {bytes} bytes is longer than {ROW_KEY_BYTES_MAX}")));
        }
        if store.marks_deletes() && row.value.is_some_and(<[u8]>::is_empty) {
            return Err(place.refused("a row without a byte"));
        }
        let segment = store.segmenting.segment_of_row(row.key, row.timestamp_ms);
        let mut segment = segment.map_err(|_| place.refused("a key without the time that it begins with"))?;
        if store.marks_deletes() {
            // A key's older row may lie there, though it was changed at a later time than this: the last change counts.
            segment = segment.max(newest);
        }
        if segment.is_none_or(|start| start >= needed_from) {
            runs.entry(segment).or_default().push(row);
        }
    }
    Ok(runs)
}

fn ingest(keyspace: &Keyspace, store: &Store, partition: u32, rows: &[&StoreRow<'_>]) -> fjall::Result<()> {
    let mut ingestion = keyspace.start_ingestion()?;
    let mut key = partition.to_be_bytes().to_vec();
    for row in rows {
        key.truncate(4);
        key.extend_from_slice(row.key);
        match row.value {
            Some(value) => ingestion.write(&key[..], value)?,
            None if store.marks_deletes() => ingestion.write(&key[..], &b""[..])?,
            None => ingestion.write_tombstone(&key[..])?,
        }
    }
    ingestion.finish()
}

/// Holds a flush back while the engine has many runs to merge: it would take any number of them.
pub(super) fn wait_for_merging(engine: &Engine, keyspace: &Keyspace) -> fjall::Result<()> {
    let since = Instant::now();
    while keyspace.tree.l0_run_count() >= RUNS_MAX {
        if engine.is_poisoned() {
            return Err(fjall::Error::Poisoned);
        }
        if since.elapsed() > MERGE_TIME_MAX {
            return Err(std::io::Error::other("its background threads have not merged for a minute").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Removes the names of keyspaces, and then the keyspaces: one whose name is gone is dropped at the next start.
fn drop_keyspaces(
    engine: &Engine,
    id: u64,
    keyspaces: Vec<(Option<i64>, Keyspace)>,
    also: impl FnOnce(&mut fjall::OwnedWriteBatch, &Keyspace),
) -> Result<(), WriteError> {
    engine.write_meta(|batch, meta| {
        for (start, _) in &keyspaces {
            batch.remove(meta, keyspace_key(id, *start));
        }
        also(batch, meta);
    })?;
    crash_point("state-segments-unnamed");
    for (_, keyspace) in keyspaces {
        engine.drop_keyspace(keyspace)?;
    }
    Ok(())
}
