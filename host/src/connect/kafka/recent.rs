//! Changes that this host committed lately, so that the flusher need not fetch from the broker what was just written.

use crate::connect::{Block, BlockBuilder, Fetched, TopicPartition};
use crate::limits::RECENT_CHANGES_BYTES_MAX;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The changes of all partitions, of which the oldest go first.
#[derive(Default)]
pub(super) struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    partitions: HashMap<TopicPartition, VecDeque<Stretch>>,
    /// By age; of stretches that are gone already too.
    ages: VecDeque<(TopicPartition, u64)>,
    bytes: usize,
}

/// Everything that was committed to a partition from one offset up to another.
struct Stretch {
    from: u64,
    next: u64,
    /// With the offsets at which they begin.
    blocks: Vec<(u64, Bytes)>,
    bytes: usize,
}

impl Recent {
    /// Keeps a commit: all that is committed between `from` and the end of these blocks, which begin at `base`.
    pub(super) fn remember(&self, tp: &TopicPartition, from: u64, base: u64, blocks: BlockBuilder) {
        let mut next = base;
        let placed = blocks.finish().into_iter().map(|Block { bytes, count, .. }| {
            let at = next;
            next += u64::from(count);
            (at, Bytes::from(bytes))
        });
        let blocks: Vec<_> = placed.collect();
        let bytes = blocks.iter().map(|(_, bytes)| bytes.len()).sum();
        if blocks.is_empty() || bytes > RECENT_CHANGES_BYTES_MAX {
            return;
        }
        let mut kept = self.lock();
        let stretches = kept.partitions.entry(tp.clone()).or_default();
        if stretches.back().is_some_and(|last| last.next > from) {
            // Begun anew at an older place: what was there is not what follows.
            let gone: usize = stretches.drain(..).map(|stretch| stretch.bytes).sum();
            kept.bytes -= gone;
        }
        let stretch = Stretch {
            from,
            next,
            blocks,
            bytes,
        };
        kept.partitions.entry(tp.clone()).or_default().push_back(stretch);
        kept.ages.push_back((tp.clone(), from));
        kept.bytes += bytes;
        kept.shrink();
    }

    /// What is kept from an offset on, about as many bytes as `bytes_max`; `None` where that place is not kept.
    pub(super) fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize) -> Option<Fetched> {
        let blocks: Vec<(u64, Bytes)> = {
            let kept = self.lock();
            let stretches = kept.partitions.get(tp)?;
            let first = stretches.partition_point(|stretch| stretch.next <= from);
            let (mut at, mut bytes, mut blocks) = (from, 0, Vec::new());
            for stretch in stretches.range(first..) {
                if stretch.from > at || bytes >= bytes_max {
                    break;
                }
                blocks.extend(stretch.blocks.iter().cloned());
                bytes += stretch.bytes;
                at = stretch.next;
            }
            blocks
        };
        if blocks.is_empty() {
            return None;
        }
        let mut fetched = Fetched::nothing_at(from);
        for (base, bytes) in blocks {
            fetched.push(base, bytes).expect("it was built in this process");
        }
        Some(fetched)
    }

    /// Forgets what comes before an offset: the local store has it.
    pub(super) fn forget(&self, tp: &TopicPartition, up_to: u64) {
        let mut kept = self.lock();
        let Some(stretches) = kept.partitions.get_mut(tp) else {
            return;
        };
        let count = stretches.partition_point(|stretch| stretch.next <= up_to);
        let gone: usize = stretches.drain(..count).map(|stretch| stretch.bytes).sum();
        let is_empty = stretches.is_empty();
        kept.bytes -= gone;
        if is_empty {
            kept.partitions.remove(tp);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn shrink(&mut self) {
        while self.bytes > RECENT_CHANGES_BYTES_MAX {
            let Some((tp, from)) = self.ages.pop_front() else {
                return;
            };
            self.drop_stretch(&tp, from);
        }
        // Ages of stretches that were forgotten: a few for each that is there.
        let there: usize = self.partitions.values().map(VecDeque::len).sum();
        if self.ages.len() > 4 * there + 64 {
            let partitions = &self.partitions;
            self.ages.retain(|(tp, from)| {
                let stretches = partitions.get(tp);
                stretches.is_some_and(|stretches| stretches.iter().any(|stretch| stretch.from == *from))
            });
        }
    }

    fn drop_stretch(&mut self, tp: &TopicPartition, from: u64) {
        let Some(stretches) = self.partitions.get_mut(tp) else {
            return;
        };
        if stretches.front().is_some_and(|first| first.from == from)
            && let Some(gone) = stretches.pop_front()
        {
            self.bytes -= gone.bytes;
        }
        if stretches.is_empty() {
            self.partitions.remove(tp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn blocks(texts: &[&str]) -> BlockBuilder {
        let mut blocks = BlockBuilder::new();
        for text in texts {
            let record = Record {
                key: Some(text.as_bytes().to_vec()),
                ..Record::default()
            };
            blocks.push(record.at(0)).expect("a small record");
        }
        blocks
    }

    fn keys(fetched: &Fetched) -> Vec<(u64, String)> {
        let key = |record: crate::record::RecordRef<'_>| {
            let key = record.key.expect("a key").to_vec();
            (record.offset, String::from_utf8(key).expect("text"))
        };
        fetched.records().map(key).collect()
    }

    #[test]
    fn what_follows_without_a_gap_is_given_together() {
        let (recent, tp) = (Recent::default(), TopicPartition::new("c", 1));
        recent.remember(&tp, 3, 5, blocks(&["a", "b"]));
        // A marker lies at 7.
        recent.remember(&tp, 7, 8, blocks(&["c"]));
        recent.remember(&tp, 20, 21, blocks(&["d"]));
        for from in 3..=5 {
            let fetched = recent.fetch(&tp, from, usize::MAX).expect("kept");
            let expected = [(5, "a".into()), (6, "b".into()), (8, "c".into())];
            assert_eq!(
                (keys(&fetched), fetched.next_offset()),
                (expected.to_vec(), 9),
                "from {from}"
            );
        }
        assert_eq!(keys(&recent.fetch(&tp, 7, 1).expect("kept")), [(8, "c".into())]);
        for from in [0, 2, 9, 19, 22] {
            assert!(
                recent.fetch(&tp, from, usize::MAX).is_none(),
                "{from} is the broker's to answer"
            );
        }
        recent.forget(&tp, 9);
        assert!(recent.fetch(&tp, 5, 1).is_none());
        assert_eq!(keys(&recent.fetch(&tp, 20, 1).expect("kept")), [(21, "d".into())]);
    }

    #[test]
    fn a_partition_that_is_begun_anew_has_nothing_of_before() {
        let (recent, tp) = (Recent::default(), TopicPartition::new("c", 0));
        recent.remember(&tp, 0, 0, blocks(&["a"]));
        recent.remember(&tp, 1, 2, blocks(&["b"]));
        recent.remember(&tp, 1, 4, blocks(&["c"]));
        assert_eq!(
            keys(&recent.fetch(&tp, 1, usize::MAX).expect("kept")),
            [(4, "c".into())]
        );
        assert!(recent.fetch(&tp, 0, usize::MAX).is_none());
    }

    #[test]
    fn the_oldest_go_where_there_is_much() {
        let recent = Recent::default();
        let large = "x".repeat(1 << 20);
        let count = (RECENT_CHANGES_BYTES_MAX >> 20) as u64 + 5;
        let tps = [TopicPartition::new("c", 0), TopicPartition::new("d", 0)];
        for n in 0..count {
            recent.remember(&tps[n as usize % 2], n, n, blocks(&[&large]));
        }
        assert!(recent.lock().bytes <= RECENT_CHANGES_BYTES_MAX);
        assert!(recent.fetch(&tps[0], 0, 1).is_none());
        let last = count - 1;
        assert!(recent.fetch(&tps[last as usize % 2], last, 1).is_some());
        for tp in &tps {
            recent.forget(tp, u64::MAX);
        }
        assert_eq!(recent.lock().bytes, 0);
    }
}
