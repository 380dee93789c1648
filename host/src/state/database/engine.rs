//! The storage engine of the local store, opened: its keyspaces, what is in memory about them, and one batch of rows
//! about rows.
//!
//! ```text
//! keyspace "meta"             key (numbers big-endian)                value
//!   number of the batch       "c"                                     as the log's `journal` says
//!   next store id             "i"                                     u64, little-endian
//!   store                     "s" changelog                           id (u64, little-endian), segmenting
//!   keyspace of rows          "k" id (u64) [segment (time)]           nothing
//!   flushed offset            "f" id (u64) partition (u32)            u64, little-endian
//!   misses no delete since     "t" id (u64) partition (u32)            time, little-endian
//! keyspace "data/ID[/START]"  partition (u32) key                     row; of a store by row time empty where deleted
//! ```
//!
//! # What was found out about ingestion (fjall 3.1.13, lsm-tree 3.1.10)
//!
//! An ingested run is durable when `finish` returns: `table/writer` syncs the table's file and the folder of tables,
//! `version/persist` syncs the new list of tables and its folder, and then replaces `current` by a synced file under
//! another name. Nothing of it is in a journal. A process that dies before leaves files that no list names; they are
//! removed at the next start.
//!
//! All keys of a run have number 0; the run's own number is in the list of tables, and is added at each read. After a
//! restart the engine goes on behind the greatest number of all tables and journals (`Database::recover`), ingested
//! ones included, as long as there is a journal: newer runs get greater numbers. That is why a folder without a journal
//! counts as damaged here.
//!
//! But the numbers that its own list of keyspaces took, for making and dropping some, are not among these (as the
//! embedded log's engine says of `count_up`): made under an id that was given before, the entry of a new keyspace would
//! be older than the mark of the dropped one, and the keyspace would be deleted at the start after the next compaction of
//! that list. So the count is moved on, durably, before a keyspace is made and after one is dropped, and far at each start.

use super::error::{Cause, cause};
use super::folder::{self, Format};
use super::store::{Segment, Store};
use crate::connect::embedded::find_damage;
use crate::connect::embedded::journal::{decode_number, encode_number};
use crate::connect::embedded::open_unlocked;
use crate::connect::embedded::stopped;
use crate::crash::crash_point;
use crate::state::codec::{decode_time, encode_time};
use crate::state::segment::Segmenting;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

pub(super) type Stores = HashMap<Arc<str>, Store>;

pub(super) struct Engine {
    pub(super) db: Database,
    pub(super) meta: Keyspace,
    batch_number: AtomicU64,
    pub(super) next_store_id: AtomicU64,
    pub(super) stores: RwLock<Stores>,
}

/// Why the engine could not be opened.
#[derive(Debug)]
pub(super) enum OpenFailure {
    Damaged(String),
    System(io::Error),
}

/// The engine's version, its own list of keyspaces, and the first of ours, "meta".
const ENGINE_FILES: [&str; 3] = ["version", "keyspaces/0/current", "keyspaces/1/current"];
/// Between two durable numbers far fewer keyspaces are made and dropped.
const COUNT_AT_OPEN: usize = 1000;
/// The memory of "meta", whose rows are few.
const META_MEMTABLE_BYTES: u64 = 1 << 20;

impl Engine {
    /// Opens the engine of a folder whose version was read, and reads what is known of stores.
    pub(super) fn open(folder: &Path, format: &Format, cache_bytes: u64) -> Result<Engine, OpenFailure> {
        let path = engine_path(folder);
        match format {
            Format::Damaged(detail) => return Err(OpenFailure::Damaged(detail.clone())),
            Format::Unfinished if path.exists() => std::fs::remove_dir_all(&path).map_err(OpenFailure::System)?,
            Format::Unfinished => {}
            Format::Made => look_at_files(&path)?,
        }
        let made = *format == Format::Made;
        // The engine has assertions on bytes of its files: a damaged folder is an outcome, not the end of the process.
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(&path, cache_bytes, made)));
        let (db, meta) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(failure(error)),
            Err(panic) => return Err(OpenFailure::Damaged(stopped(&*panic))),
        };
        let loaded = catch_unwind(AssertUnwindSafe(|| load(db, meta)));
        let engine = loaded.unwrap_or_else(|panic| Err(OpenFailure::Damaged(stopped(&*panic))))?;
        if !made {
            folder::write_format(folder, Format::Made).map_err(OpenFailure::System)?;
        }
        Ok(engine)
    }

    /// Writes and syncs one batch of rows of "meta".
    pub(super) fn write_meta(&self, build: impl FnOnce(&mut OwnedWriteBatch, &Keyspace)) -> fjall::Result<()> {
        let number = self.batch_number.load(Ordering::Relaxed) + 1;
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.meta, b"c", encode_number(number));
        build(&mut batch, &self.meta);
        batch.commit()?;
        self.batch_number.store(number, Ordering::Relaxed);
        Ok(())
    }

    /// Opens or makes the keyspace of a store's rows.
    pub(super) fn keyspace(&self, id: u64, segment: Option<i64>) -> fjall::Result<Keyspace> {
        let name = keyspace_name(id, segment);
        if !self.db.keyspace_exists(&name) {
            self.count_up(1)?;
            crash_point("state-keyspace-begin");
        }
        self.db.keyspace(&name, data_options)
    }

    /// Drops a keyspace that no row of "meta" names any more; its files go with its last reader.
    pub(super) fn drop_keyspace(&self, keyspace: Keyspace) -> fjall::Result<()> {
        self.db.delete_keyspace(keyspace)?;
        crash_point("state-keyspace-dropped");
        self.count_up(1)
    }

    /// Moves the engine's number of the last write, durably. Why is said at the top of this file.
    fn count_up(&self, times: usize) -> fjall::Result<()> {
        let number = encode_number(self.batch_number.load(Ordering::Relaxed));
        for _ in 0..times {
            let mut batch = self.db.batch().durability(None);
            batch.insert(&self.meta, b"c", &number[..]);
            batch.commit()?;
        }
        self.db.persist(PersistMode::SyncData)
    }

    /// Whether a background thread met an error of the disk: then nothing is written until the engine is reopened.
    pub(super) fn is_poisoned(&self) -> bool {
        self.db.persist(PersistMode::Buffer).is_err()
    }
}

pub(super) fn engine_path(folder: &Path) -> PathBuf {
    folder.join("engine")
}

/// Without one of these files the engine would begin anew, over or instead of what is there.
fn look_at_files(path: &Path) -> Result<(), OpenFailure> {
    if let Some(missing) = ENGINE_FILES.iter().find(|file| !path.join(file).exists()) {
        let detail = format!("the storage engine's file {missing} is missing");
        return Err(OpenFailure::Damaged(detail));
    }
    let is_journal = |entry: &io::Result<std::fs::DirEntry>| {
        entry
            .as_ref()
            .is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "jnl"))
    };
    if !std::fs::read_dir(path)
        .map_err(OpenFailure::System)?
        .any(|entry| is_journal(&entry))
    {
        return Err(OpenFailure::Damaged("the storage engine's journal is missing".into()));
    }
    match find_damage(path) {
        Ok(None) => Ok(()),
        Ok(Some(detail)) => Err(OpenFailure::Damaged(detail)),
        Err(error) => Err(failure(error.into())),
    }
}

fn failure(error: fjall::Error) -> OpenFailure {
    match (cause(&error), error) {
        (Cause::Files(detail), _) => OpenFailure::Damaged(detail),
        (_, fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error))) => OpenFailure::System(error),
        (_, error) => OpenFailure::System(io::Error::other(error.to_string())),
    }
}

/// The engine and the keyspace "meta".
fn open_database(path: &Path, cache_bytes: u64, made: bool) -> fjall::Result<(Database, Keyspace)> {
    let db = open_unlocked(|| {
        Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(128 << 20)
            .worker_threads(1)
            .open()
    })?;
    let meta = db.keyspace("meta", || {
        KeyspaceCreateOptions::default().max_memtable_size(META_MEMTABLE_BYTES)
    })?;
    if !made {
        let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&meta, b"c", encode_number(0));
        batch.commit()?;
    }
    Ok((db, meta))
}

/// Rows come in runs that are sorted, and never through the memory of the engine.
fn data_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(META_MEMTABLE_BYTES)
}

fn load(db: Database, meta: Keyspace) -> Result<Engine, OpenFailure> {
    let mut engine = Engine {
        db,
        meta,
        batch_number: AtomicU64::new(0),
        next_store_id: AtomicU64::new(0),
        stores: RwLock::default(),
    };
    let mut batch_number = None;
    let mut named: BTreeMap<u64, (Arc<str>, Store)> = BTreeMap::new();
    let mut flushed = Vec::new();
    let mut keyspaces = Vec::new();
    for guard in engine.meta.iter() {
        let (key, value) = guard.into_inner().map_err(failure)?;
        let bad = || {
            OpenFailure::Damaged(format!(
                "a row {:?} of the list of stores",
                String::from_utf8_lossy(&key)
            ))
        };
        let (kind, rest) = key.split_first().ok_or_else(bad)?;
        match kind {
            b'c' => batch_number = Some(decode_number(&value).ok_or_else(bad)?),
            b'i' => *engine.next_store_id.get_mut() = u64_le(&value).ok_or_else(bad)?,
            b's' => {
                let name = std::str::from_utf8(rest).map_err(|_| bad())?;
                let (id, segmenting) = value.split_first_chunk::<8>().ok_or_else(bad)?;
                let segmenting = Segmenting::decode(segmenting).ok_or_else(bad)?;
                let id = u64::from_le_bytes(*id);
                named.insert(id, (name.into(), Store::new(id, segmenting)));
            }
            b'k' => keyspaces.push(decode_keyspace_key(rest).ok_or_else(bad)?),
            b'f' => {
                let (id, partition) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
                let partition = u32::from_be_bytes(partition.try_into().map_err(|_| bad())?);
                flushed.push((u64::from_be_bytes(*id), partition, u64_le(&value).ok_or_else(bad)?));
            }
            // Read where it is asked for.
            b't' => {}
            _ => return Err(bad()),
        }
    }
    // The engine drops a keyspace of which it misses a file: then the list is gone, and all it names would go with it.
    let gone = || OpenFailure::Damaged("the list of stores is gone".into());
    *engine.batch_number.get_mut() = batch_number.ok_or_else(gone)?;
    let unnamed = |id: u64| OpenFailure::Damaged(format!("rows of a store {id} that is not in the list"));
    for (id, partition, up_to) in flushed {
        let (_, store) = named.get_mut(&id).ok_or_else(|| unnamed(id))?;
        store.flushed.insert(partition, up_to);
    }
    let mut used = HashSet::new();
    for (id, segment) in keyspaces {
        let (name, store) = named.get_mut(&id).ok_or_else(|| unnamed(id))?;
        let keyspace_name = keyspace_name(id, segment);
        if !engine.db.keyspace_exists(&keyspace_name) {
            let part = segment.map_or(String::new(), |start| format!(" (segment {start})"));
            return Err(OpenFailure::Damaged(format!("the rows of {name}{part} are gone")));
        }
        let keyspace = engine.db.keyspace(&keyspace_name, data_options).map_err(failure)?;
        match segment {
            None => store.whole = Some(Segment::new(keyspace, true)),
            Some(start) => {
                let mut segment = Segment::new(keyspace, true);
                segment.partitions = partitions(&segment.keyspace).map_err(failure)?;
                store.segments.insert(start, segment);
            }
        }
        used.insert(keyspace_name);
    }
    match engine
        .count_up(COUNT_AT_OPEN)
        .and_then(|()| drop_unused(&engine, &used))
    {
        Ok(()) => {}
        // Reading goes on; nothing is written, and the engine is opened again with the next attempt.
        Err(error) if matches!(cause(&error), Cause::Full(_)) => tracing::warn!("the disk is full"),
        Err(error) => return Err(failure(error)),
    }
    engine.stores = RwLock::new(named.into_values().collect());
    Ok(engine)
}

/// Drops what a crash left: keyspaces that no row names.
fn drop_unused(engine: &Engine, used: &HashSet<String>) -> fjall::Result<()> {
    for name in engine.db.list_keyspace_names() {
        if &*name != "meta" && !used.contains(&*name) {
            engine.drop_keyspace(engine.db.keyspace(&name, data_options)?)?;
        }
    }
    Ok(())
}

/// The partitions that have rows in a keyspace: a look for each, not for each row.
fn partitions(keyspace: &Keyspace) -> fjall::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut next = Some(0u32);
    while let Some(from) = next {
        let Some(guard) = keyspace.range(from.to_be_bytes()..).next() else {
            break;
        };
        let key = guard.key()?;
        let Some(partition) = key.first_chunk::<4>() else {
            break;
        };
        let partition = u32::from_be_bytes(*partition);
        found.insert(partition);
        next = partition.checked_add(1);
    }
    Ok(found)
}

fn keyspace_name(id: u64, segment: Option<i64>) -> String {
    match segment {
        None => format!("data/{id}"),
        Some(start) => format!("data/{id}/{start}"),
    }
}

pub(super) fn store_key(changelog: &str) -> Vec<u8> {
    [b"s", changelog.as_bytes()].concat()
}

pub(super) fn encode_store(id: u64, segmenting: Segmenting) -> Vec<u8> {
    [&id.to_le_bytes()[..], &segmenting.encode()].concat()
}

pub(super) fn keyspace_key(id: u64, segment: Option<i64>) -> Vec<u8> {
    let mut key = [&b"k"[..], &id.to_be_bytes()].concat();
    key.extend(segment.map(encode_time).iter().flatten());
    key
}

fn decode_keyspace_key(rest: &[u8]) -> Option<(u64, Option<i64>)> {
    let (id, segment) = rest.split_first_chunk::<8>()?;
    let segment = match segment {
        [] => None,
        time => Some(decode_time(time.try_into().ok()?)),
    };
    Some((u64::from_be_bytes(*id), segment))
}

pub(super) fn flushed_key(id: u64, partition: u32) -> Vec<u8> {
    [&b"f"[..], &id.to_be_bytes(), &partition.to_be_bytes()].concat()
}

pub(super) fn as_of_key(id: u64, partition: u32) -> Vec<u8> {
    [&b"t"[..], &id.to_be_bytes(), &partition.to_be_bytes()].concat()
}

pub(super) fn u64_le(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
