//! How old the rows of a partition are, and removing those that are too old to be trusted: where a changelog keeps deletes
//! for some time only, a store that has not read it for longer may have rows that were deleted.

use super::StateDb;
use super::engine::{Engine, as_of_key, flushed_key, u64_le};
use super::error::{Place, StateError};
use super::reading::guarded;
use super::store::Store;
use super::writing::{WriteError, wait_for_merging};
use crate::crash::crash_point;
use fjall::Keyspace;

impl StateDb {
    /// Since when, by the wall clock (milliseconds since the epoch), a partition misses nothing that was deleted; `None`
    /// where that was never noted.
    ///
    /// # Errors
    /// Where the storage does not answer, and where what is stored is not what was written.
    pub fn as_of(&self, changelog: &str, partition: u32) -> Result<Option<i64>, StateError> {
        let store = changelog;
        let place = Place { store, partition };
        self.with_engine(place, |engine| {
            let Some(id) = with_store(engine, changelog, |store| store.id) else {
                return Ok(None);
            };
            let noted = guarded(place, || engine.meta.get(as_of_key(id, partition)))?;
            let decode = |value: fjall::Slice| u64_le(&value).ok_or_else(|| place.damaged("its time is none"));
            Ok(noted.map(decode).transpose()?.map(u64::cast_signed))
        })
    }

    /// Notes it. Of a store that has nothing yet nothing is noted.
    ///
    /// # Errors
    /// It is as before.
    pub fn note_as_of(&self, changelog: &str, partition: u32, as_of_ms: i64) -> Result<(), StateError> {
        let store = changelog;
        self.write(Place { store, partition }, 0, |engine| {
            let Some(id) = with_store(engine, changelog, |store| store.id) else {
                return Ok(());
            };
            engine.write_meta(|batch, meta| batch.insert(meta, as_of_key(id, partition), as_of_ms.to_le_bytes()))?;
            Ok(())
        })
    }

    /// Removes rows of a partition, about `rows_max` of them, and first that there were any: whatever is left after a crash
    /// is known by having no offset. Returns whether all are gone.
    ///
    /// # Errors
    /// Some may be gone; the same again is right.
    pub fn clear(&self, changelog: &str, partition: u32, rows_max: usize) -> Result<bool, StateError> {
        let store = changelog;
        let mut cleared = true;
        self.write(Place { store, partition }, 0, |engine| {
            let Some(store) = with_store(engine, changelog, Store::clone) else {
                return Ok(());
            };
            if store.flushed.contains_key(&partition) {
                engine.write_meta(|batch, meta| {
                    batch.remove(meta, flushed_key(store.id, partition));
                    batch.remove(meta, as_of_key(store.id, partition));
                })?;
                let mut stores = engine.stores.write().unwrap_or_else(|e| e.into_inner());
                if let Some(listed) = stores.get_mut(changelog) {
                    listed.flushed.remove(&partition);
                }
            }
            crash_point("state-clear");
            for (_, segment) in store.keyspaces() {
                cleared &= clear_keyspace(engine, &segment.keyspace, partition, rows_max)?;
            }
            Ok(())
        })?;
        Ok(cleared)
    }
}

fn with_store<T>(engine: &Engine, changelog: &str, ask: impl FnOnce(&Store) -> T) -> Option<T> {
    let stores = engine.stores.read().unwrap_or_else(|e| e.into_inner());
    stores.get(changelog).map(ask)
}

fn clear_keyspace(engine: &Engine, keyspace: &Keyspace, partition: u32, rows_max: usize) -> Result<bool, WriteError> {
    let prefix = partition.to_be_bytes();
    let keys = keyspace.prefix(prefix).take(rows_max).map(|guard| guard.key());
    let keys = keys.collect::<fjall::Result<Vec<_>>>()?;
    if keys.is_empty() {
        return Ok(true);
    }
    wait_for_merging(engine, keyspace)?;
    let mut ingestion = keyspace.start_ingestion()?;
    for key in &keys {
        ingestion.write_tombstone(&key[..])?;
    }
    ingestion.finish()?;
    Ok(keys.len() < rows_max)
}
