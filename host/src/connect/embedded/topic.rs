//! A topic in memory: the ends of its partitions, and its generations, the oldest first.

use super::reading::Home;
use crate::connect::{LogError, PartitionDescription, TopicDescription, TopicRole, TopicSettings, TopicSpec};
use crate::limits::PURGED_GENERATION_BYTES_MAX;
use fjall::Keyspace;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

/// The end of a partition. Written by the committer alone, after the batch that moved it; read by everybody.
#[derive(Debug)]
pub(super) struct Head {
    next_offset: AtomicU64,
    /// Of all blocks there ever were: what is there is the difference to the oldest generation's.
    bytes: AtomicU64,
    timestamp_max: AtomicI64,
}

/// The end of a partition at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) next_offset: u64,
    pub(super) bytes: u64,
    /// Of all records there ever were.
    pub(super) timestamp_max: i64,
}

impl End {
    pub(super) const ZERO: End = End {
        next_offset: 0,
        bytes: 0,
        timestamp_max: i64::MIN,
    };
}

impl Head {
    pub(super) fn new(end: End) -> Self {
        Head {
            next_offset: end.next_offset.into(),
            bytes: end.bytes.into(),
            timestamp_max: end.timestamp_max.into(),
        }
    }

    pub(super) fn end(&self) -> End {
        End {
            next_offset: self.next_offset.load(Ordering::Acquire),
            bytes: self.bytes.load(Ordering::Relaxed),
            timestamp_max: self.timestamp_max.load(Ordering::Relaxed),
        }
    }

    pub(super) fn publish(&self, end: End) {
        self.bytes.store(end.bytes, Ordering::Relaxed);
        self.timestamp_max.store(end.timestamp_max, Ordering::Relaxed);
        self.next_offset.store(end.next_offset, Ordering::Release);
    }
}

/// A stretch of a topic that retention drops as a whole. The place of its blocks is chosen with its first record.
pub(super) struct Generation {
    pub(super) number: u64,
    /// When it was made, and the one before it got its last record.
    pub(super) made_ms: i64,
    /// When its first record was appended.
    pub(super) begun_ms: Option<i64>,
    /// Where the partitions ended when it was made.
    pub(super) bases: Vec<End>,
    /// Whether its blocks lie in the keyspace that small generations share.
    pub(super) shared: bool,
    pub(super) home: OnceLock<Home>,
}

impl Generation {
    /// One without a record.
    pub(super) fn empty(number: u64, made_ms: i64, bases: Vec<End>) -> Self {
        Generation {
            number,
            made_ms,
            begun_ms: None,
            bases,
            shared: true,
            home: OnceLock::new(),
        }
    }

    pub(super) fn base(&self, partition: u32) -> Option<End> {
        self.bases.get(partition as usize).copied()
    }

    /// The keyspace that goes with it.
    pub(super) fn own_keyspace(&self) -> Option<Keyspace> {
        self.home
            .get()
            .filter(|home| home.shared_by.is_none())
            .map(|home| home.keyspace.clone())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let row = GenerationRow {
            made_ms: self.made_ms,
            begun_ms: self.begun_ms,
            shared: self.shared,
            bases: self.bases.clone(),
        };
        serde_json::to_vec(&row).unwrap_or_default()
    }
}

/// A generation as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct GenerationRow {
    pub(super) made_ms: i64,
    pub(super) begun_ms: Option<i64>,
    pub(super) shared: bool,
    pub(super) bases: Vec<End>,
}

/// A topic as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct TopicRow {
    pub(super) id: u64,
    pub(super) spec: TopicSpec,
    pub(super) created_ms: i64,
}

pub(super) struct Topic {
    pub(super) id: u64,
    /// As it was made; its role may have changed since.
    pub(super) spec: TopicSpec,
    pub(super) role: RwLock<Option<Arc<TopicRole>>>,
    pub(super) created_ms: i64,
    pub(super) heads: Vec<Head>,
    pub(super) generations: RwLock<Vec<Arc<Generation>>>,
}

impl Topic {
    pub(super) fn head(&self, partition: u32) -> Result<&Head, LogError> {
        self.heads
            .get(partition as usize)
            .ok_or_else(|| LogError::UnknownPartition {
                topic: self.spec.name.clone(),
                partition,
                partitions: self.spec.partitions,
            })
    }

    pub(super) fn ends(&self) -> Vec<End> {
        self.heads.iter().map(Head::end).collect()
    }

    /// The generations from the one in which `from` of a partition lies, each with the offset at which it ends.
    pub(super) fn generations_from(&self, partition: u32, from: u64, next: u64) -> Vec<(Arc<Generation>, u64)> {
        let generations = self.generations.read().unwrap_or_else(|e| e.into_inner());
        let base = |g: &Generation| g.bases.get(partition as usize).map_or(0, |end| end.next_offset);
        let first = generations.partition_point(|g| base(g) <= from).saturating_sub(1);
        let ends = generations.iter().skip(first + 1).map(|g| base(g)).chain([next]);
        generations.iter().skip(first).cloned().zip(ends).collect()
    }

    pub(super) fn first_offset(&self, partition: u32) -> u64 {
        let generations = self.generations.read().unwrap_or_else(|e| e.into_inner());
        generations
            .first()
            .and_then(|g| g.bases.get(partition as usize))
            .map_or(0, |end| end.next_offset)
    }

    pub(super) fn active(&self) -> Option<Arc<Generation>> {
        self.generations
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .last()
            .cloned()
    }

    /// A generation that was committed: behind the others, or in place of itself where it got its first record.
    pub(super) fn begin(&self, generation: Generation) {
        let mut generations = self.generations.write().unwrap_or_else(|e| e.into_inner());
        if generations.last().is_some_and(|last| last.number == generation.number) {
            generations.pop();
        }
        generations.push(Arc::new(generation));
    }

    /// A generation ends at this size: a quarter of what is to be kept, so that little more is.
    pub(super) fn generation_bytes_max(&self, bytes_max: u64) -> u64 {
        let purged_bytes_max = self
            .spec
            .role
            .as_ref()
            .map_or(u64::MAX, |_| PURGED_GENERATION_BYTES_MAX);
        let bytes_max = bytes_max.clamp(1, purged_bytes_max);
        self.spec
            .retention_bytes
            .map_or(bytes_max, |bytes| (bytes / 4).clamp(1, bytes_max))
    }

    /// What it was made with, and its role now.
    pub(super) fn spec(&self) -> TopicSpec {
        TopicSpec {
            role: self.role.read().unwrap_or_else(|e| e.into_inner()).clone(),
            ..self.spec.clone()
        }
    }

    pub(super) fn set_role(&self, role: Arc<TopicRole>) {
        *self.role.write().unwrap_or_else(|e| e.into_inner()) = Some(role);
    }

    pub(super) fn describe(&self) -> TopicDescription {
        let oldest = self
            .generations
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .first()
            .cloned();
        let range = |(partition, head): (usize, &Head)| {
            let base = oldest
                .as_ref()
                .and_then(|g| g.bases.get(partition))
                .copied()
                .unwrap_or(End::ZERO);
            let end = head.end();
            PartitionDescription {
                first_offset: base.next_offset,
                next_offset: end.next_offset,
                bytes: Some(end.bytes.saturating_sub(base.bytes)),
            }
        };
        TopicDescription {
            spec: self.spec(),
            created_ms: Some(self.created_ms),
            settings: TopicSettings::default(),
            partition_ranges: self.heads.iter().enumerate().map(range).collect(),
        }
    }
}

/// Bytes between two rows of ends.
pub(super) fn bytes_between(from: &[End], to: &[End]) -> u64 {
    from.iter()
        .zip(to)
        .map(|(from, to)| to.bytes.saturating_sub(from.bytes))
        .sum()
}
