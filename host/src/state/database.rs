//! The local store: rows behind the changelog, on the disk, for all stores of this process.
//!
//! It lags behind the changelog, and says for each store and partition up to which offset it holds everything. Rows are
//! absolute values, so applying the changelog again from an older offset is harmless: there is no order to keep between
//! the rows of a flush and the offset that follows them. Where it is lost it is made again from the changelog, as far as
//! that is complete.
//!
//! Rows come in sorted runs (`engine` says what that means for what is durable). A store whose rows end with time has
//! a keyspace for each segment of time, which is dropped whole: nothing is deleted row by row.
//!
//! One thread writes at a time; any number read meanwhile.

mod age;
mod engine;
mod error;
mod folder;
pub(in crate::state) mod merge;
mod range;
mod reading;
mod store;
#[cfg(test)]
mod tests;
mod writing;

pub use error::{StateError, StateOpenError};
pub use folder::STATE_VERSION;
pub use range::KeyRange;
pub use reading::Rows;
pub use writing::StoreRow;

use super::segment::Segmenting;
use crate::limits::STATE_RESERVE_BYTES;
use bytes::Bytes;
use engine::{Engine, OpenFailure, Stores};
use error::Place;
use fjall::{Readable, Snapshot};
use reading::View;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
use store::Store;

/// How a local store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// Of the storage engine's one cache. 64 MiB.
    pub cache_bytes: u64,
    /// Flushes leave this much of the disk free ([`STATE_RESERVE_BYTES`]).
    pub disk_reserve_bytes: u64,
}

impl Default for StateOptions {
    fn default() -> Self {
        StateOptions {
            cache_bytes: 64 << 20,
            disk_reserve_bytes: STATE_RESERVE_BYTES,
        }
    }
}

/// A local store that was opened.
pub struct Opened {
    /// The store.
    pub db: Arc<StateDb>,
    /// Where what was there before was damaged: it is beside the folder now, and the store is empty.
    pub set_aside: Option<SetAside>,
}

/// A damaged folder that was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now.
    pub folder: PathBuf,
    /// What was found.
    pub detail: String,
}

/// The local store of a process, in a folder of its own. Whoever holds the data folder holds it.
pub struct StateDb {
    folder: PathBuf,
    options: StateOptions,
    /// Readers hold it while they read, so that a reopening has the engine for itself.
    state: RwLock<Result<Engine, Down>>,
    /// Held by whoever writes, or opens the engine again.
    writer: Mutex<()>,
}

/// Why there is no engine.
enum Down {
    Failed { detail: String, at: Instant },
    Closed,
}

impl Down {
    fn to_error(&self, place: Place<'_>) -> StateError {
        match self {
            Down::Failed { detail, .. } => place.unavailable(detail),
            Down::Closed => StateError::Closed,
        }
    }
}

/// After a failed attempt to open the engine again the next is made no earlier.
const REOPEN_TIME_MIN: Duration = Duration::from_millis(200);

impl StateDb {
    /// Opens the folder, or makes it where it is missing. Where it is damaged it is moved aside, and a new one made.
    ///
    /// # Errors
    /// Where a newer program wrote it, and where the system refuses it; nothing was changed then.
    pub fn open(folder: &Path, options: StateOptions) -> Result<Opened, StateOpenError> {
        let mut set_aside = None;
        let engine = loop {
            let format = folder::take(folder)?;
            let io = |source| StateOpenError::Io {
                folder: folder.into(),
                source,
            };
            match Engine::open(folder, &format, options.cache_bytes) {
                Ok(engine) => break engine,
                Err(OpenFailure::Damaged(detail)) if set_aside.is_none() => {
                    let aside = folder::set_aside(folder).map_err(io)?;
                    tracing::error!(detail, moved_to = %aside.display(), "the local store is damaged; a new one is made");
                    set_aside = Some(SetAside { folder: aside, detail });
                }
                Err(OpenFailure::Damaged(detail)) => return Err(io(std::io::Error::other(detail))),
                Err(OpenFailure::System(source)) => return Err(io(source)),
            }
        };
        let db = StateDb {
            folder: folder.into(),
            options,
            state: RwLock::new(Ok(engine)),
            writer: Mutex::default(),
        };
        let db = Arc::new(db);
        Ok(Opened { db, set_aside })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The offset of a changelog up to which everything is here; `None` where nothing is.
    ///
    /// # Errors
    /// Where the storage does not answer: then it is not known.
    pub fn flushed(&self, changelog: &str, partition: u32) -> Result<Option<u64>, StateError> {
        let store = changelog;
        self.with_stores(Place { store, partition }, |stores| {
            Ok(stores
                .get(store)
                .and_then(|store| store.flushed.get(&partition).copied()))
        })
    }

    /// The row of a key.
    ///
    /// # Errors
    /// Where the storage does not answer, and where what is stored is not what was written.
    pub fn get(&self, changelog: &str, partition: u32, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let store = changelog;
        let place = Place { store, partition };
        self.with_stores(place, |stores| match stores.get(changelog) {
            Some(store) => reading::get(View::Latest, store, place, key),
            None => Ok(None),
        })
    }

    /// Rows of a stretch of keys in their order, as they are now; read as they are asked for.
    ///
    /// # Errors
    /// As [`StateDb::get`].
    pub fn range(&self, changelog: &str, partition: u32, range: &KeyRange) -> Result<Rows, StateError> {
        let store = changelog;
        let place = Place { store, partition };
        self.with_stores(place, |stores| match stores.get(changelog) {
            Some(store) => reading::scan(View::Latest, store, place, range),
            None => Ok(Rows::none()),
        })
    }

    /// Where the segments of a store begin, the oldest first.
    ///
    /// # Errors
    /// Where the storage does not answer.
    pub fn segments(&self, changelog: &str) -> Result<Vec<i64>, StateError> {
        let partition = 0;
        let store = changelog;
        self.with_stores(Place { store, partition }, |stores| {
            Ok(stores
                .get(store)
                .map_or(Vec::new(), |store| store.segments.keys().copied().collect()))
        })
    }

    /// The changelogs whose rows are here, by name.
    ///
    /// # Errors
    /// Where the storage does not answer.
    pub fn stores(&self) -> Result<Vec<Arc<str>>, StateError> {
        self.with_stores(ALL, |stores| {
            let mut names: Vec<_> = stores.keys().cloned().collect();
            names.sort();
            Ok(names)
        })
    }

    /// Bytes on the disk of the stores of these changelogs.
    ///
    /// # Errors
    /// Where the storage does not answer.
    pub fn bytes<'a>(&self, changelogs: impl IntoIterator<Item = &'a str>) -> Result<u64, StateError> {
        self.with_stores(ALL, |stores| {
            let known = changelogs.into_iter().filter_map(|changelog| stores.get(changelog));
            Ok(known
                .flat_map(Store::keyspaces)
                .map(|(_, segment)| segment.keyspace.disk_space())
                .sum())
        })
    }

    /// One store as it is now, for reading while others write. What is dropped meanwhile keeps its room on the disk, and
    /// the engine cannot be opened again: it is not to be held for long.
    ///
    /// # Errors
    /// Where the storage does not answer.
    pub fn snapshot(&self, changelog: &str) -> Result<StoreSnapshot, StateError> {
        let (store, partition) = (changelog, 0);
        self.with_engine(Place { store, partition }, |engine| {
            // The rows of a flush are in the list before its offset is in the engine: so the list comes second.
            let snapshot = engine.db.snapshot();
            let stores = engine.stores.read().unwrap_or_else(|e| e.into_inner());
            Ok(StoreSnapshot {
                name: changelog.into(),
                snapshot,
                store: stores.get(changelog).cloned(),
                meta: engine.meta.clone(),
            })
        })
    }

    /// Gives engine and folder back. Everything later is refused.
    pub fn close(&self) {
        let _writer = self.writer.lock().unwrap_or_else(|e| e.into_inner());
        *self.state.write().unwrap_or_else(|e| e.into_inner()) = Err(Down::Closed);
    }

    fn state(&self) -> RwLockReadGuard<'_, Result<Engine, Down>> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    fn with_engine<T>(
        &self,
        place: Place<'_>,
        ask: impl FnOnce(&Engine) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        if let Err(Down::Failed { at, .. }) = &*self.state()
            && at.elapsed() >= REOPEN_TIME_MIN
            && let Ok(_writer) = self.writer.try_lock()
        {
            self.reopen_if_down();
        }
        match &*self.state() {
            Ok(engine) => ask(engine),
            Err(down) => Err(down.to_error(place)),
        }
    }

    fn with_stores<T>(
        &self,
        place: Place<'_>,
        ask: impl FnOnce(&Stores) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.with_engine(place, |engine| {
            ask(&engine.stores.read().unwrap_or_else(|e| e.into_inner()))
        })
    }

    /// Opens the engine again where it failed, not too often. Whoever calls holds `writer`.
    fn reopen_if_down(&self) {
        if matches!(&*self.state(), Err(Down::Failed { at, .. }) if at.elapsed() >= REOPEN_TIME_MIN) {
            self.reopen();
        }
    }

    /// Closes the engine and opens it again; everything in memory is read anew. Whoever calls holds `writer`.
    fn reopen(&self) {
        let mut state = self.state.write().unwrap_or_else(|e| e.into_inner());
        if matches!(*state, Err(Down::Closed)) {
            return;
        }
        // The old engine goes before the new one is opened: it holds a lock.
        let down = |detail: String| Down::Failed {
            detail,
            at: Instant::now(),
        };
        *state = Err(down("it is being opened again".into()));
        let opened = folder::take(&self.folder)
            .map_err(|error| error.to_string())
            .and_then(|format| {
                Engine::open(&self.folder, &format, self.options.cache_bytes).map_err(|failure| match failure {
                    OpenFailure::Damaged(detail) => format!("{detail}; it is set aside when the host is started again"),
                    OpenFailure::System(error) => error.to_string(),
                })
            });
        *state = opened.map_err(|detail| {
            tracing::error!(detail, "the local store cannot be opened again; the next call tries it");
            down(detail)
        });
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.folder).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Where no one store is meant.
const ALL: Place<'static> = Place {
    store: "all stores",
    partition: 0,
};

/// A store as it was at one moment.
pub struct StoreSnapshot {
    name: Arc<str>,
    snapshot: Snapshot,
    /// None where nothing was ever written to it.
    store: Option<Store>,
    meta: fjall::Keyspace,
}

impl StoreSnapshot {
    /// The offset of the changelog up to which everything is here; `None` where nothing is.
    ///
    /// # Errors
    /// Where what is stored is not what was written.
    pub fn flushed(&self, partition: u32) -> Result<Option<u64>, StateError> {
        let Some(store) = &self.store else {
            return Ok(None);
        };
        let place = self.place(partition);
        let key = engine::flushed_key(store.id, partition);
        let value = reading::guarded(place, || self.snapshot.get(&self.meta, key))?;
        let decode = |value: fjall::Slice| engine::u64_le(&value).ok_or_else(|| place.damaged("its offset is none"));
        value.map(decode).transpose()
    }

    /// What its rows are cut by; [`Segmenting::None`] where nothing was ever written.
    pub fn segmenting(&self) -> Segmenting {
        self.store.as_ref().map_or(Segmenting::None, |store| store.segmenting)
    }

    /// The row of a key.
    ///
    /// # Errors
    /// Where what is stored is not what was written.
    pub fn get(&self, partition: u32, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        match &self.store {
            Some(store) => reading::get(View::At(&self.snapshot), store, self.place(partition), key),
            None => Ok(None),
        }
    }

    /// Rows of a stretch of keys in their order; read as they are asked for.
    ///
    /// # Errors
    /// As [`StoreSnapshot::get`].
    pub fn range(&self, partition: u32, range: &KeyRange) -> Result<Rows, StateError> {
        match &self.store {
            Some(store) => reading::scan(View::At(&self.snapshot), store, self.place(partition), range),
            None => Ok(Rows::none()),
        }
    }

    fn place(&self, partition: u32) -> Place<'_> {
        Place {
            store: &self.name,
            partition,
        }
    }
}
