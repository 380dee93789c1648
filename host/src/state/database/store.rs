//! One store in memory: where its rows lie. The rows themselves are on the disk.

use crate::state::segment::Segmenting;
use fjall::Keyspace;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A store, by its changelog.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) id: u64,
    pub(super) segmenting: Segmenting,
    /// The rows of a store without segments.
    pub(super) whole: Option<Segment>,
    /// By where they begin.
    pub(super) segments: BTreeMap<i64, Segment>,
    /// By partition, the offset of the changelog up to which everything is here.
    pub(super) flushed: BTreeMap<u32, u64>,
    /// By partition, where the first segment begins that it needs.
    pub(super) retired: HashMap<u32, i64>,
}

/// Rows that are dropped as a whole.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) keyspace: Keyspace,
    /// Those that have rows in it.
    pub(super) partitions: BTreeSet<u32>,
    /// Whether a row of "meta" names it. One that is not yet named is not there after a restart.
    pub(super) named: bool,
}

impl Segment {
    pub(super) fn new(keyspace: Keyspace, named: bool) -> Self {
        Segment {
            keyspace,
            partitions: BTreeSet::new(),
            named,
        }
    }
}

impl Store {
    pub(super) fn new(id: u64, segmenting: Segmenting) -> Self {
        Store {
            id,
            segmenting,
            whole: None,
            segments: BTreeMap::new(),
            flushed: BTreeMap::new(),
            retired: HashMap::new(),
        }
    }

    /// Its keyspaces, each with where its segment begins.
    pub(super) fn keyspaces(&self) -> impl Iterator<Item = (Option<i64>, &Segment)> {
        let segments = self.segments.iter().map(|(start, segment)| (Some(*start), segment));
        self.whole.iter().map(|whole| (None, whole)).chain(segments)
    }

    /// Keyspaces with rows of a partition that it still needs, the newest first.
    pub(super) fn newest_first(&self, partition: u32) -> impl Iterator<Item = (Option<i64>, &Segment)> {
        let from = self.needed_from(partition);
        let segments = self
            .segments
            .range(from..)
            .rev()
            .filter(move |(_, segment)| segment.partitions.contains(&partition));
        let segments = segments.map(|(start, segment)| (Some(*start), segment));
        segments.chain(self.whole.iter().map(|whole| (None, whole)))
    }

    /// The newest segment that has rows of a partition.
    pub(super) fn newest(&self, partition: u32) -> Option<i64> {
        let mut newest = self.segments.iter().rev();
        newest
            .find(|(_, segment)| segment.partitions.contains(&partition))
            .map(|(start, _)| *start)
    }

    pub(super) fn needed_from(&self, partition: u32) -> i64 {
        self.retired.get(&partition).copied().unwrap_or(i64::MIN)
    }

    /// Segments that no partition with rows in them needs.
    pub(super) fn unneeded(&self) -> Vec<i64> {
        let needed = |start: i64, segment: &Segment| segment.partitions.iter().any(|p| self.needed_from(*p) <= start);
        let unneeded = self
            .segments
            .iter()
            .filter(|(start, segment)| !needed(**start, segment));
        unneeded.map(|(start, _)| *start).collect()
    }

    /// Whether deleted rows are marked by an empty value, so that they hide rows of older segments.
    pub(super) fn marks_deletes(&self) -> bool {
        matches!(self.segmenting, Segmenting::ByRowTime { .. })
    }
}
