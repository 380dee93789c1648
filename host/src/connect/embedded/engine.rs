//! The storage engine, opened: what is in memory about it, how its keys look, and reading.
//!
//! ```text
//! keyspace "meta"           key (numbers big-endian)              value
//!   number of the commit    "c"                                   as `journal` says
//!   next topic id           "i"                                   u64, little-endian
//!   topic                   "t" name                              JSON
//!   generation              "g" topic id (u64) number (u64)       JSON
//!   end of a partition      "h" topic id (u64) partition (u32)    next offset, bytes, timestamp (u64, u64, i64, little-endian)
//!   offset of a group       "o" group 0 topic 0 partition (u32)   next offset, committed at (u64, i64, little-endian), metadata
//! keyspace "log/ID/NUMBER"  partition (u32) base offset (u64)     a block of a large generation
//! keyspace "log"            topic id (u64), as above              a block of a small one
//!                           "newest"                              when something was last removed
//!                           "t" topic id, as above                the newest timestamp before the offset (i64, little-endian)
//! ```
//!
//! Whatever names a keyspace is committed with its first use; one that nothing names is left from a crash, and dropped.

use super::folder::{DataFolder, Format, OpenError};
use super::journal::{self, decode_number, encode_number};
use super::reading::Home;
use super::topic::{End, Generation, GenerationRow, Head, Topic, TopicRow};
use super::{Options, archive, manifest};
use crate::connect::{LogError, TopicPartition};
use crate::crash::crash_point;
use fjall::config::CompressionPolicy;
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

/// Where a group goes on, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredOffset {
    pub(super) next_offset: u64,
    pub(super) committed_ms: i64,
    /// What the group notes beside it.
    pub(super) metadata: Arc<str>,
}

impl StoredOffset {
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.next_offset.to_le_bytes(), self.committed_ms.to_le_bytes()].concat();
        [&numbers[..], self.metadata.as_bytes()].concat()
    }

    /// `None` where the bytes are none. Rows of earlier programs end with the numbers.
    fn decode(value: &[u8]) -> Option<StoredOffset> {
        Some(StoredOffset {
            next_offset: u64_le(value, 0)?,
            committed_ms: u64_le(value, 8)? as i64,
            metadata: std::str::from_utf8(value.get(16..)?).ok()?.into(),
        })
    }
}

pub(super) type Offsets = BTreeMap<Arc<str>, BTreeMap<TopicPartition, StoredOffset>>;

pub(super) struct Engine {
    pub(super) db: Database,
    pub(super) meta: Keyspace,
    /// Of small generations.
    pub(super) shared: Keyspace,
    /// Of the last commit that is in the engine.
    pub(super) commit_number: AtomicU64,
    pub(super) next_topic_id: AtomicU64,
    pub(super) generation_bytes_max: u64,
    pub(super) topics: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    pub(super) offsets: RwLock<Offsets>,
}

impl Engine {
    /// Opens the engine, replays its journals and reads what is known of topics and groups.
    pub(super) fn open(folder: &mut DataFolder, options: &Options) -> Result<Engine, OpenError> {
        let path = folder.engine();
        let at = folder.path().to_path_buf();
        let damaged = |detail: String| OpenError::Damaged {
            folder: at.clone(),
            detail,
        };
        match folder.format() {
            Format::Unfinished if path.exists() => {
                std::fs::remove_dir_all(&path).map_err(|error| OpenError::io(&at, error))?;
            }
            Format::Unfinished => {}
            Format::Made { .. } => {
                // Without one of these the engine would begin anew, over or instead of what is there.
                if let Some(missing) = ENGINE_FILES.iter().find(|file| !path.join(file).exists()) {
                    return Err(damaged(format!("the storage engine's file {missing} is missing")));
                }
                if let Some(detail) = find_damage(&path).map_err(|error| OpenError::io(&at, error))? {
                    return Err(damaged(detail));
                }
            }
        }
        // The engine has assertions on bytes of its files: a damaged folder is an error, not the end of the process.
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(&path, options, folder.format())));
        let (db, meta, shared) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(open_error(folder, error)),
            Err(panic) => return Err(damaged(stopped(&*panic))),
        };
        let loaded = catch_unwind(AssertUnwindSafe(|| load(db, meta, shared)));
        let mut engine = loaded.unwrap_or_else(|panic| Err(stopped(&*panic))).map_err(damaged)?;
        engine.generation_bytes_max = options.generation_bytes_max;
        let number = engine.commit_number.load(Ordering::Relaxed);
        match folder.format() {
            Format::Unfinished => folder.set_format(Format::Made { commit_number: number })?,
            Format::Made { commit_number } if number < commit_number => {
                return Err(damaged(format!(
                    "it had {commit_number} commits when it was closed, and has {number}"
                )));
            }
            Format::Made { .. } => {}
        }
        Ok(engine)
    }

    pub(super) fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        let topics = self.topics.read().unwrap_or_else(|e| e.into_inner());
        topics
            .get(name)
            .cloned()
            .ok_or_else(|| LogError::UnknownTopic { topic: name.into() })
    }

    /// Opens or makes the place of a generation's blocks.
    pub(super) fn home(&self, topic_id: u64, number: u64, shared: bool) -> fjall::Result<Home> {
        if shared {
            return Ok(Home {
                keyspace: self.shared.clone(),
                shared_by: Some(topic_id),
            });
        }
        let keyspace = self.db.keyspace(&keyspace_name(topic_id, number), block_options)?;
        self.count_up(1, PersistMode::Buffer)?;
        Ok(Home {
            keyspace,
            shared_by: None,
        })
    }

    /// Drops a keyspace; its files go with its last reader.
    pub(super) fn drop_keyspace(&self, keyspace: Keyspace) -> fjall::Result<()> {
        self.db.delete_keyspace(keyspace)?;
        crash_point("keyspace-dropped");
        self.count_up(1, PersistMode::SyncData)
    }

    /// Drops what a crash left: keyspaces that no commit names.
    fn drop_unused(&self, used: &HashSet<String>) -> fjall::Result<()> {
        for name in self.db.list_keyspace_names() {
            // State keeps its own keyspaces; what it does not use it drops itself.
            if name.starts_with("log/") && !used.contains(&*name) {
                self.drop_keyspace(self.db.keyspace(&name, block_options)?)?;
            }
        }
        Ok(())
    }

    /// Moves the engine's number of the last write, which it recovers from the journals, beyond the ones that making
    /// and dropping of keyspaces took, which it does not. Else, at a later start, the entry of a new keyspace could be
    /// older than the mark of a dropped one of the same number: the engine would delete it at the start after that.
    fn count_up(&self, times: usize, durability: PersistMode) -> fjall::Result<()> {
        let number = encode_number(self.commit_number.load(Ordering::Relaxed));
        for _ in 0..times {
            let mut batch = self.db.batch().durability(None);
            batch.insert(&self.meta, b"c", &number[..]);
            batch.commit()?;
        }
        self.db.persist(durability)
    }

    /// All keyspaces that are ours.
    pub(super) fn keyspaces(&self) -> Vec<Keyspace> {
        let topics = self.topics.read().unwrap_or_else(|e| e.into_inner());
        let mut keyspaces = vec![self.meta.clone(), self.shared.clone()];
        for topic in topics.values() {
            let generations = topic.generations.read().unwrap_or_else(|e| e.into_inner());
            keyspaces.extend(generations.iter().filter_map(|generation| generation.own_keyspace()));
        }
        keyspaces
    }

    /// Begins to flush what is always written to and never large. The engine ends a journal of 64 MB, drops old ones
    /// and keeps to their bound only when it flushes something: where retention drops topics' blocks before they were
    /// ever flushed, a journal would grow for ever.
    pub(super) fn flush_small(&self) -> fjall::Result<()> {
        self.meta.rotate_memtable()?;
        self.shared.rotate_memtable()?;
        Ok(())
    }

    /// Where all memtables together have more than `bytes_max`, begins to flush the largest, until half is left.
    pub(super) fn flush_largest(&self, bytes_max: u64) -> fjall::Result<()> {
        let size = |keyspace: &Keyspace| keyspace.tree.active_memtable().size();
        let mut sized: Vec<_> = self
            .keyspaces()
            .into_iter()
            .map(|keyspace| (size(&keyspace), keyspace))
            .collect();
        let mut sum: u64 = sized.iter().map(|(size, _)| size).sum();
        if sum <= bytes_max {
            return Ok(());
        }
        sized.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        for (size, keyspace) in sized {
            if sum <= bytes_max / 2 {
                break;
            }
            keyspace.rotate_memtable()?;
            sum -= size;
        }
        Ok(())
    }

    /// Takes what the background threads met: once an error was seen nothing is written until the engine is reopened.
    pub(super) fn is_poisoned(&self) -> bool {
        self.db.persist(fjall::PersistMode::Buffer).is_err()
    }
}

/// The engine's version, its own list of keyspaces, and the first two of ours, "meta" and "log".
const ENGINE_FILES: [&str; 4] = [
    "version",
    "keyspaces/0/current",
    "keyspaces/1/current",
    "keyspaces/2/current",
];

/// The engine, and the keyspaces "meta" and "log".
fn open_database(path: &Path, options: &Options, format: Format) -> fjall::Result<(Database, Keyspace, Keyspace)> {
    let db = open_unlocked(|| {
        Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(128 << 20)
            .journal_compression(CompressionType::None)
            // With two, one of them spins while the other works: it hands every compaction back to the queue.
            .worker_threads(1)
            .open()
    })?;
    let meta = db.keyspace("meta", || KeyspaceCreateOptions::default().max_memtable_size(8 << 20))?;
    let shared = db.keyspace("log", block_options)?;
    if format == Format::Unfinished {
        let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&meta, b"c", encode_number(0));
        batch.commit()?;
    }
    Ok((db, meta, shared))
}

/// What is wrong with the files of an engine that it would not tell by itself, if something is.
///
/// # Errors
/// Where they cannot be read.
pub(crate) fn find_damage(engine: &Path) -> std::io::Result<Option<String>> {
    for look in [journal::find_damage, archive::find_damage, manifest::find_damaged_list] {
        if let Some(detail) = look(engine)? {
            return Ok(Some(detail));
        }
    }
    Ok(None)
}

/// So long a lock that nobody can have is waited for.
const STALE_LOCK_TIME_MAX: Duration = Duration::from_secs(2);

/// Opens an engine in a data folder that this process holds. The engine's own lock can then only be left from when it was
/// last closed: a child that was being started at that moment has its parent's files, and with them the lock, until it runs
/// a program of its own. That passes.
pub(crate) fn open_unlocked(open: impl Fn() -> fjall::Result<Database>) -> fjall::Result<Database> {
    let since = Instant::now();
    loop {
        match open() {
            Err(fjall::Error::Locked) if since.elapsed() < STALE_LOCK_TIME_MAX => {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return opened,
        }
    }
}

/// Blocks are written once and dropped with their generation: kept apart from their keys, they are never rewritten.
fn block_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(32 << 20)
        .data_block_compression_policy(CompressionPolicy::disabled())
        .with_kv_separation(Some(
            KvSeparationOptions::default()
                .separation_threshold(1024)
                .compression(CompressionType::None),
        ))
}

fn load(db: Database, meta: Keyspace, shared: Keyspace) -> Result<Engine, String> {
    let mut engine = Engine {
        db,
        meta,
        shared,
        commit_number: AtomicU64::new(0),
        next_topic_id: AtomicU64::new(0),
        generation_bytes_max: 0,
        topics: RwLock::default(),
        offsets: RwLock::default(),
    };
    let mut topics: BTreeMap<u64, TopicRow> = BTreeMap::new();
    let mut generations: BTreeMap<u64, Vec<Generation>> = BTreeMap::new();
    let mut ends: HashMap<(u64, u32), End> = HashMap::new();
    let mut offsets = Offsets::new();
    let mut commit_number = None;
    for guard in engine.meta.iter() {
        let (key, value) = guard
            .into_inner()
            .map_err(|error| format!("the list of topics and groups: {error}"))?;
        let bad = || {
            format!(
                "a row {:?} of the list of topics and groups",
                String::from_utf8_lossy(&key)
            )
        };
        let (kind, rest) = key.split_first().ok_or_else(bad)?;
        match kind {
            b'c' => commit_number = Some(decode_number(&value).ok_or_else(bad)?),
            b'i' => *engine.next_topic_id.get_mut() = u64_le(&value, 0).ok_or_else(bad)?,
            b't' => {
                let row: TopicRow = serde_json::from_slice(&value).map_err(|_| bad())?;
                row.spec.check().map_err(|_| bad())?;
                topics.insert(row.id, row);
            }
            b'g' => {
                let row: GenerationRow = serde_json::from_slice(&value).map_err(|_| bad())?;
                let (id, number) = (u64_be(rest, 0).ok_or_else(bad)?, u64_be(rest, 8).ok_or_else(bad)?);
                generations.entry(id).or_default().push(Generation {
                    number,
                    made_ms: row.made_ms,
                    begun_ms: row.begun_ms,
                    bases: row.bases,
                    home: OnceLock::new(),
                    shared: row.shared,
                });
            }
            b'h' => {
                let (id, partition) = (u64_be(rest, 0).ok_or_else(bad)?, u32_be(rest, 8).ok_or_else(bad)?);
                ends.insert((id, partition), decode_end(&value).ok_or_else(bad)?);
            }
            b'o' => {
                let (group, tp) = decode_offset_key(rest).ok_or_else(bad)?;
                let stored = StoredOffset::decode(&value).ok_or_else(bad)?;
                offsets.entry(group).or_default().insert(tp, stored);
            }
            _ => return Err(bad()),
        }
    }
    // The engine drops a keyspace of which it misses a file: then the list is gone, and all it names would go with it.
    engine.commit_number = commit_number.ok_or("the list of topics and groups is gone")?.into();
    let mut used: HashSet<String> = HashSet::new();
    let mut by_name = HashMap::new();
    for (id, row) in topics {
        let generations = generations.remove(&id).unwrap_or_default();
        let partitions = row.spec.partitions as usize;
        if generations.is_empty() || generations.iter().any(|g| g.bases.len() != partitions) {
            return Err(format!(
                "topic {:?} has no generation, or one with other partitions",
                row.spec.name
            ));
        }
        for generation in generations.iter().filter(|generation| generation.begun_ms.is_some()) {
            let name = keyspace_name(id, generation.number);
            if !generation.shared && !engine.db.keyspace_exists(&name) {
                let (topic, number) = (&row.spec.name, generation.number);
                return Err(format!("a part of topic {topic:?} is gone (generation {number})"));
            }
            let home = engine.home(id, generation.number, generation.shared);
            let _ = generation.home.set(home.map_err(|error| error.to_string())?);
            used.insert(name);
        }
        let head = |p: u32| Head::new(ends.get(&(id, p)).copied().unwrap_or(End::ZERO));
        let topic = Topic {
            id,
            heads: (0..row.spec.partitions).map(head).collect(),
            role: RwLock::new(row.spec.role.clone()),
            spec: row.spec,
            created_ms: row.created_ms,
            generations: RwLock::new(generations.into_iter().map(Arc::new).collect()),
        };
        check_ends(&topic)?;
        by_name.insert(Arc::from(topic.spec.name.as_str()), Arc::new(topic));
    }
    // Between two commits far fewer keyspaces are made and dropped.
    match engine.count_up(200, PersistMode::SyncData) {
        Ok(()) => engine.drop_unused(&used).map_err(|error| error.to_string())?,
        // Reading goes on; the engine takes no commit, and is opened again with the next one.
        Err(error) if io_error(&error).is_some_and(is_full) => tracing::warn!("the disk is full"),
        Err(error) => return Err(error.to_string()),
    }
    engine.topics = RwLock::new(by_name);
    engine.offsets = RwLock::new(offsets);
    Ok(engine)
}

/// Blocks behind a partition's end were flushed from a commit whose journal is gone.
fn check_ends(topic: &Topic) -> Result<(), String> {
    let Some(active) = topic.active() else {
        return Ok(());
    };
    let Some(home) = active.home.get() else {
        return Ok(());
    };
    for (partition, head) in topic.heads.iter().enumerate() {
        let (partition, next) = (partition as u32, head.end().next_offset);
        if home.range(partition, next, u64::MAX).next().is_some() {
            let name = &topic.spec.name;
            return Err(format!(
                "{name}[{partition}] has records behind its end {next}: commits are missing from the journal"
            ));
        }
    }
    Ok(())
}

fn open_error(folder: &DataFolder, error: fjall::Error) -> OpenError {
    // What the system says of files that are not as they should be is damage; the rest is the system's own trouble.
    let of_files = [
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::InvalidInput,
        ErrorKind::IsADirectory,
        ErrorKind::NotADirectory,
    ];
    match io_error(&error).filter(|io| !of_files.contains(&io.kind())) {
        Some(io) => OpenError::io(folder.path(), std::io::Error::new(io.kind(), io.to_string())),
        None => OpenError::Damaged {
            folder: folder.path().into(),
            detail: match error {
                fjall::Error::Locked => "the engine's own lock is held though the folder's is not".into(),
                error => format!("the storage engine says {error}"),
            },
        },
    }
}

pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The system's error in an engine's, where that is the cause; a file that ends too early is damage.
pub(crate) fn io_error(error: &fjall::Error) -> Option<&std::io::Error> {
    let io = match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
        _ => return None,
    };
    (io.raw_os_error().is_some()).then_some(io)
}

pub(crate) fn stopped(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("the storage engine stopped on it: {text}")
}

fn keyspace_name(topic_id: u64, number: u64) -> String {
    format!("log/{topic_id}/{number}")
}

pub(super) fn topic_key(name: &str) -> Vec<u8> {
    [b"t", name.as_bytes()].concat()
}

pub(super) fn generation_key(topic_id: u64, number: u64) -> Vec<u8> {
    [&b"g"[..], &topic_id.to_be_bytes(), &number.to_be_bytes()].concat()
}

pub(super) fn end_key(topic_id: u64, partition: u32) -> Vec<u8> {
    [&b"h"[..], &topic_id.to_be_bytes(), &partition.to_be_bytes()].concat()
}

pub(super) fn encode_end(end: End) -> Vec<u8> {
    [
        end.next_offset.to_le_bytes(),
        end.bytes.to_le_bytes(),
        end.timestamp_max.to_le_bytes(),
    ]
    .concat()
}

fn decode_end(value: &[u8]) -> Option<End> {
    Some(End {
        next_offset: u64_le(value, 0)?,
        bytes: u64_le(value, 8)?,
        timestamp_max: u64_le(value, 16)? as i64,
    })
}

pub(super) fn offset_key(group: &str, tp: &TopicPartition) -> Vec<u8> {
    [
        b"o",
        group.as_bytes(),
        &[0],
        tp.topic.as_bytes(),
        &[0],
        &tp.partition.to_be_bytes(),
    ]
    .concat()
}

fn decode_offset_key(rest: &[u8]) -> Option<(Arc<str>, TopicPartition)> {
    let (names, partition) = rest.split_last_chunk::<4>()?;
    let mut names = std::str::from_utf8(names).ok()?.split('\0');
    let (group, topic) = (names.next()?, names.next()?);
    Some((group.into(), TopicPartition::new(topic, u32::from_be_bytes(*partition))))
}

fn u64_le(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u64_be(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
