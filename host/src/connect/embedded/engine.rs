//! The storage engine, opened: what is in memory about it, how its keys look, and reading.
//!
//! ```text
//! keyspace "meta"           key (numbers big-endian)              value
//!   number of the commit    "c"                                   as `journal` says
//!   next topic id           "i"                                   u64, little-endian
//!   topic                   "t" name                              JSON
//!   generation              "g" topic id (u64) number (u64)       JSON
//!   end of a partition      "h" topic id (u64) partition (u32)    next offset, bytes, timestamp (u64, u64, i64, little-endian)
//!   offset of a group       "o" group 0 topic 0 partition (u32)   next offset, committed at (u64, i64, little-endian)
//! keyspace "log/ID/NUMBER"  partition (u32) base offset (u64)     a block
//! ```
//!
//! Whatever names a keyspace is committed with its first use; one that nothing names is left from a crash, and dropped.

use super::Options;
use super::folder::{DataFolder, Format, OpenError};
use super::journal::{self, decode_number, encode_number};
use super::topic::{End, Generation, GenerationRow, Head, Topic, TopicRow};
use crate::connect::block::{BlockError, parse_head};
use crate::connect::{Fetched, LogError, Position, TopicPartition};
use bytes::Bytes;
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

/// Where a group goes on, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredOffset {
    pub(super) next_offset: u64,
    pub(super) committed_ms: i64,
}

impl StoredOffset {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.next_offset.to_le_bytes(), self.committed_ms.to_le_bytes()].concat()
    }
}

pub(super) type Offsets = BTreeMap<Arc<str>, BTreeMap<TopicPartition, StoredOffset>>;

pub(super) struct Engine {
    pub(super) db: Database,
    pub(super) meta: Keyspace,
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
                if let Some(detail) = journal::find_damage(&path).map_err(|error| OpenError::io(&at, error))? {
                    return Err(damaged(detail));
                }
            }
        }
        // The engine has assertions on bytes of its files: a damaged folder is an error, not the end of the process.
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(&path, options, folder.format())));
        let (db, meta) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(open_error(folder, error)),
            Err(panic) => return Err(damaged(stopped(&*panic))),
        };
        let loaded = catch_unwind(AssertUnwindSafe(|| load(db, meta)));
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

    /// Reads blocks from `from` on: as many as `bytes_max` holds, and one at least where there is one.
    pub(super) fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError> {
        let topic = self.topic(&tp.topic)?;
        let next = topic.head(tp.partition)?.end().next_offset;
        let out_of_range = |first| LogError::OffsetOutOfRange {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            offset: from,
            first,
            next,
        };
        let first = topic.first_offset(tp.partition);
        if from < first || from > next {
            return Err(out_of_range(first));
        }
        let mut fetched = Fetched::nothing_at(from);
        for (generation, end) in topic.generations_from(tp.partition, from, next) {
            if fetched.block_bytes() >= bytes_max && !fetched.is_empty() {
                break;
            }
            let read = || read_blocks(&generation, tp, end, bytes_max, &mut fetched);
            let outcome = catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| Err((stopped(&*panic), end)));
            if let Err((detail, resume)) = outcome {
                // What was read before the damage is good; whoever goes on behind it meets the error then.
                if !fetched.is_empty() {
                    break;
                }
                // Retention may have dropped it meanwhile.
                let first = topic.first_offset(tp.partition);
                if from < first {
                    return Err(out_of_range(first));
                }
                return Err(LogError::Damaged {
                    topic: tp.topic.to_string(),
                    partition: tp.partition,
                    offset: fetched.next_offset(),
                    resume,
                    detail,
                });
            }
        }
        Ok(fetched)
    }

    /// The offset of a position.
    pub(super) fn offset_at(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError> {
        let topic = self.topic(&tp.topic)?;
        let end = topic.head(tp.partition)?.end();
        let first = topic.first_offset(tp.partition);
        Ok(match position {
            Position::Start => first,
            Position::End => end.next_offset,
            Position::Offset(offset) => offset.clamp(first, end.next_offset),
            Position::Timestamp(timestamp_ms) => {
                // Where all that was before a generation is older, the record is not there.
                let generations = topic.generations_from(tp.partition, first, end.next_offset);
                let partition = tp.partition as usize;
                let newest = |g: &Generation| g.bases.get(partition).map_or(i64::MIN, |base| base.timestamp_max);
                let ends: Vec<i64> = generations
                    .iter()
                    .skip(1)
                    .map(|(g, _)| newest(g))
                    .chain([end.timestamp_max])
                    .collect();
                for ((generation, generation_end), newest) in generations.iter().zip(ends) {
                    if newest >= timestamp_ms
                        && let Some(offset) = find_time(generation, tp, *generation_end, timestamp_ms)?
                    {
                        return Ok(offset);
                    }
                }
                end.next_offset
            }
        })
    }

    /// Opens or makes the keyspace of a generation.
    pub(super) fn generation_keyspace(&self, topic_id: u64, number: u64) -> fjall::Result<Keyspace> {
        self.db.keyspace(&keyspace_name(topic_id, number), block_options)
    }

    /// All keyspaces of topics, and the list of topics and groups.
    pub(super) fn keyspaces(&self) -> Vec<Keyspace> {
        let topics = self.topics.read().unwrap_or_else(|e| e.into_inner());
        let mut keyspaces = vec![self.meta.clone()];
        for topic in topics.values() {
            let generations = topic.generations.read().unwrap_or_else(|e| e.into_inner());
            keyspaces.extend(
                generations
                    .iter()
                    .filter_map(|generation| generation.keyspace.get().cloned()),
            );
        }
        keyspaces
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

/// The engine's version, its own list of keyspaces, and the first keyspace of ours, "meta".
const ENGINE_FILES: [&str; 3] = ["version", "keyspaces/0/current", "keyspaces/1/current"];

fn open_database(path: &Path, options: &Options, format: Format) -> fjall::Result<(Database, Keyspace)> {
    let db = Database::builder(path)
        .cache_size(options.cache_bytes)
        .max_journaling_size(128 << 20)
        .journal_compression(CompressionType::None)
        .worker_threads(2)
        .open()?;
    let meta = db.keyspace("meta", || KeyspaceCreateOptions::default().max_memtable_size(8 << 20))?;
    if format == Format::Unfinished {
        let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&meta, b"c", encode_number(0));
        batch.commit()?;
    }
    Ok((db, meta))
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

fn load(db: Database, meta: Keyspace) -> Result<Engine, String> {
    let mut engine = Engine {
        db,
        meta,
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
                    keyspace: OnceLock::new(),
                });
            }
            b'h' => {
                let (id, partition) = (u64_be(rest, 0).ok_or_else(bad)?, u32_be(rest, 8).ok_or_else(bad)?);
                ends.insert((id, partition), decode_end(&value).ok_or_else(bad)?);
            }
            b'o' => {
                let (group, tp) = decode_offset_key(rest).ok_or_else(bad)?;
                let stored = StoredOffset {
                    next_offset: u64_le(&value, 0).ok_or_else(bad)?,
                    committed_ms: u64_le(&value, 8).ok_or_else(bad)? as i64,
                };
                offsets.entry(group).or_default().insert(tp, stored);
            }
            _ => return Err(bad()),
        }
    }
    // The engine drops a keyspace of which it misses a file: then the list is gone, and all it names would go with it.
    engine.commit_number = commit_number.ok_or("the list of topics and groups is gone")?.into();
    let mut used: HashSet<String> = HashSet::from(["meta".to_string()]);
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
        for generation in &generations {
            let name = keyspace_name(id, generation.number);
            if engine.db.keyspace_exists(&name) {
                let keyspace = engine
                    .generation_keyspace(id, generation.number)
                    .map_err(|e| e.to_string())?;
                let _ = generation.keyspace.set(keyspace);
                used.insert(name);
            } else if generation.begun_ms.is_some() {
                return Err(format!(
                    "a part of topic {:?} is gone (generation {})",
                    row.spec.name, generation.number
                ));
            }
        }
        let head = |p: u32| Head::new(ends.get(&(id, p)).copied().unwrap_or(End::ZERO));
        let topic = Topic {
            id,
            heads: (0..row.spec.partitions).map(head).collect(),
            spec: row.spec,
            created_ms: row.created_ms,
            generations: RwLock::new(generations.into_iter().map(Arc::new).collect()),
        };
        check_ends(&topic)?;
        by_name.insert(Arc::from(topic.spec.name.as_str()), Arc::new(topic));
    }
    for name in engine.db.list_keyspace_names() {
        // State keeps its own keyspaces; what it does not use it drops itself.
        if name.starts_with("log/") && !used.contains(&*name) {
            let keyspace = engine.db.keyspace(&name, block_options).map_err(|e| e.to_string())?;
            engine.db.delete_keyspace(keyspace).map_err(|e| e.to_string())?;
        }
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
    let Some(keyspace) = active.keyspace.get() else {
        return Ok(());
    };
    for (partition, head) in topic.heads.iter().enumerate() {
        let (partition, next) = (partition as u32, head.end().next_offset);
        if keyspace
            .range(block_key(partition, next)..=block_key(partition, u64::MAX))
            .next()
            .is_some()
        {
            let name = &topic.spec.name;
            return Err(format!(
                "{name}[{partition}] has records behind its end {next}: commits are missing from the journal"
            ));
        }
    }
    Ok(())
}

type ReadError = (String, u64);

fn read_blocks(
    generation: &Generation,
    tp: &TopicPartition,
    end: u64,
    bytes_max: usize,
    fetched: &mut Fetched,
) -> Result<(), ReadError> {
    if fetched.next_offset() >= end {
        return Ok(());
    }
    let Some(keyspace) = generation.keyspace.get() else {
        return Err(("its generation is gone".into(), end));
    };
    let from = fetched.next_offset();
    let mut blocks = Blocks::new(keyspace.range(block_key(tp.partition, from)..block_key(tp.partition, end)));
    if !matches!(blocks.peek(), Some(Ok((base, _))) if *base == from) {
        // The record lies within a block: the one whose offset comes before.
        let before = keyspace
            .range(block_key(tp.partition, 0)..block_key(tp.partition, from))
            .next_back();
        if let Some(before) = before {
            let (base, bytes) = decode_block(before).map_err(|detail| (detail, blocks.next_base(end)))?;
            fetched
                .push(base, bytes)
                .map_err(|error| (in_block(base, &error), blocks.next_base(end)))?;
        }
    }
    while fetched.next_offset() < end && (fetched.block_bytes() < bytes_max || fetched.is_empty()) {
        let Some(block) = blocks.next() else {
            return Err(("the blocks from here on are missing".into(), end));
        };
        let (base, bytes) = block.map_err(|detail| (detail, blocks.next_base(end)))?;
        if base != fetched.next_offset() {
            return Err((format!("its block is missing, the next begins at offset {base}"), base));
        }
        fetched
            .push(base, bytes)
            .map_err(|error| (in_block(base, &error), blocks.next_base(end)))?;
    }
    Ok(())
}

fn in_block(base: u64, error: &BlockError) -> String {
    format!("in the block at offset {base}: {error}")
}

/// The first record of this time or later among the blocks of a generation, by the blocks' heads.
fn find_time(
    generation: &Generation,
    tp: &TopicPartition,
    end: u64,
    timestamp_ms: i64,
) -> Result<Option<u64>, LogError> {
    let Some(keyspace) = generation.keyspace.get() else {
        return Ok(None);
    };
    let base = generation
        .bases
        .get(tp.partition as usize)
        .map_or(0, |base| base.next_offset);
    let damaged = |offset: u64, detail: String| LogError::Damaged {
        topic: tp.topic.to_string(),
        partition: tp.partition,
        offset,
        resume: end,
        detail,
    };
    for guard in keyspace.range(block_key(tp.partition, base)..block_key(tp.partition, end)) {
        let (base, bytes) = decode_block(guard).map_err(|detail| damaged(base, detail))?;
        let head = parse_head(&bytes).map_err(|error| damaged(base, error.to_string()))?;
        if head.timestamp_max >= timestamp_ms {
            let mut block = Fetched::nothing_at(base);
            block
                .push(base, bytes)
                .map_err(|error| damaged(base, error.to_string()))?;
            let found = block
                .records()
                .find(|record| record.timestamp_ms >= timestamp_ms)
                .map(|record| record.offset);
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

type ReadBlock = Result<(u64, Bytes), String>;

/// Blocks of a range; the next one can be looked at before it is taken.
struct Blocks {
    iter: fjall::Iter,
    peeked: Option<ReadBlock>,
}

impl Blocks {
    fn new(iter: fjall::Iter) -> Self {
        Blocks { iter, peeked: None }
    }

    fn peek(&mut self) -> Option<&ReadBlock> {
        if self.peeked.is_none() {
            self.peeked = self.iter.next().map(decode_block);
        }
        self.peeked.as_ref()
    }

    fn next(&mut self) -> Option<ReadBlock> {
        self.peeked.take().or_else(|| self.iter.next().map(decode_block))
    }

    /// Where the next block begins that can be read.
    fn next_base(&mut self, end: u64) -> u64 {
        // More than a few in a row are a damaged table, of which no end can be told.
        (0..8)
            .map_while(|_| self.next())
            .find_map(|block| block.ok().map(|(base, _)| base))
            .unwrap_or(end)
    }
}

fn decode_block(guard: fjall::Guard) -> Result<(u64, Bytes), String> {
    let (key, value) = guard.into_inner().map_err(|error| error.to_string())?;
    let base = u64_be(&key, 4).ok_or("a key of a block that is none")?;
    Ok((base, Bytes::from_owner(value)))
}

fn open_error(folder: &DataFolder, error: fjall::Error) -> OpenError {
    match io_error(&error).filter(|io| !matches!(io.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)) {
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

/// The system's error in an engine's, where that is the cause; a file that ends too early is damage.
pub(super) fn io_error(error: &fjall::Error) -> Option<&std::io::Error> {
    let io = match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
        _ => return None,
    };
    (io.raw_os_error().is_some()).then_some(io)
}

fn stopped(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("the storage engine stopped on it: {text}")
}

fn keyspace_name(topic_id: u64, number: u64) -> String {
    format!("log/{topic_id}/{number}")
}

pub(super) fn block_key(partition: u32, offset: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&offset.to_be_bytes());
    key
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
