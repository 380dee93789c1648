//! Where the blocks of a generation lie, and reading them.

use super::engine::{Engine, stopped};
use super::topic::Generation;
use crate::connect::block::{BlockError, parse_head};
use crate::connect::{Fetched, LogError, Position, TopicPartition};
use bytes::Bytes;
use fjall::Keyspace;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where the blocks of a generation lie: in a keyspace of its own, or in the one that small generations share. A
/// keyspace costs the engine files, syncs and time at each start; most topics are small.
#[derive(Clone)]
pub(super) struct Home {
    pub(super) keyspace: Keyspace,
    /// In the shared keyspace keys begin with the topic's id.
    pub(super) shared_by: Option<u64>,
}

impl Home {
    /// The key of the block that begins at `offset`.
    pub(super) fn key(&self, partition: u32, offset: u64) -> Vec<u8> {
        let mut key = Vec::with_capacity(20);
        if let Some(topic_id) = self.shared_by {
            key.extend_from_slice(&topic_id.to_be_bytes());
        }
        key.extend_from_slice(&partition.to_be_bytes());
        key.extend_from_slice(&offset.to_be_bytes());
        key
    }

    pub(super) fn range(&self, partition: u32, from: u64, to: u64) -> fjall::Iter {
        self.keyspace.range(self.key(partition, from)..self.key(partition, to))
    }
}

impl Engine {
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
        if from == next {
            return Ok(fetched);
        }
        for (generation, end) in topic.generations_from(tp.partition, from, next) {
            if fetched.block_bytes() >= bytes_max && !fetched.is_empty() {
                break;
            }
            let read = || read_blocks(&generation, tp.partition, end, bytes_max, &mut fetched);
            // The engine has assertions on bytes of its files.
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
                return Err(damaged(tp, fetched.next_offset(), resume, detail));
            }
        }
        Ok(fetched)
    }

    /// The offset of a position.
    pub(super) fn offset_at(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError> {
        let topic = self.topic(&tp.topic)?;
        let end = topic.head(tp.partition)?.end();
        let first = topic.first_offset(tp.partition);
        let timestamp_ms = match position {
            Position::Start => return Ok(first),
            Position::End => return Ok(end.next_offset),
            Position::Offset(offset) => return Ok(offset.clamp(first, end.next_offset)),
            Position::Timestamp(timestamp_ms) => timestamp_ms,
        };
        let generations = topic.generations_from(tp.partition, first, end.next_offset);
        for (at, (generation, generation_end)) in generations.iter().enumerate() {
            // The newest of all records up to the end of this generation: if that is older, it is not in here.
            let following = generations.get(at + 1).and_then(|(g, _)| g.base(tp.partition));
            let newest = following.map_or(end.timestamp_max, |base| base.timestamp_max);
            if newest < timestamp_ms {
                continue;
            }
            let find = || {
                let begin = generation.base(tp.partition).map_or(0, |base| base.next_offset);
                let from = self.look_from(topic.id, tp.partition, begin, *generation_end, timestamp_ms);
                let from = from.map_err(|detail| (detail, begin))?;
                find_time(generation, tp.partition, from..*generation_end, timestamp_ms)
            };
            let found = catch_unwind(AssertUnwindSafe(find)).unwrap_or_else(|panic| Err((stopped(&*panic), first)));
            if let Some(offset) = found.map_err(|(detail, at)| damaged(tp, at, *generation_end, detail))? {
                return Ok(offset);
            }
        }
        Ok(end.next_offset)
    }
}

fn damaged(tp: &TopicPartition, offset: u64, resume: u64, detail: String) -> LogError {
    LogError::Damaged {
        topic: tp.topic.to_string(),
        partition: tp.partition,
        offset,
        resume,
        detail,
    }
}

/// What is wrong, and where reading can go on.
type ReadError = (String, u64);

fn read_blocks(
    generation: &Generation,
    partition: u32,
    end: u64,
    bytes_max: usize,
    fetched: &mut Fetched,
) -> Result<(), ReadError> {
    if fetched.next_offset() >= end {
        return Ok(());
    }
    let Some(home) = generation.home.get() else {
        return Err(("its generation is gone".into(), end));
    };
    let from = fetched.next_offset();
    let mut blocks = Blocks::new(home.range(partition, from, end));
    if !matches!(blocks.peek(), Some(Ok((base, _))) if *base == from) {
        // The record lies within a block: the one whose offset comes before.
        let begin = generation.base(partition).map_or(0, |base| base.next_offset);
        if let Some(before) = home.range(partition, begin, from).next_back() {
            let (base, bytes) = decode_block(before).map_err(|detail| (detail, blocks.next_base(end)))?;
            let pushed = fetched.push(base, bytes);
            pushed.map_err(|error| (in_block(base, &error), blocks.next_base(end)))?;
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
        let pushed = fetched.push(base, bytes);
        pushed.map_err(|error| (in_block(base, &error), blocks.next_base(end)))?;
    }
    Ok(())
}

fn in_block(base: u64, error: &BlockError) -> String {
    format!("in the block at offset {base}: {error}")
}

/// The first record of this time or later among these blocks of a generation, by the blocks' heads.
fn find_time(
    generation: &Generation,
    partition: u32,
    offsets: Range<u64>,
    timestamp_ms: i64,
) -> Result<Option<u64>, ReadError> {
    let Some(home) = generation.home.get() else {
        return Ok(None);
    };
    for guard in home.range(partition, offsets.start, offsets.end) {
        let (base, bytes) = decode_block(guard).map_err(|detail| (detail, offsets.start))?;
        let head = parse_head(&bytes).map_err(|error| (in_block(base, &error), base))?;
        if head.timestamp_max < timestamp_ms {
            continue;
        }
        let mut block = Fetched::nothing_at(base);
        let pushed = block.push(base, bytes);
        pushed.map_err(|error| (in_block(base, &error), base))?;
        if let Some(record) = block.records().find(|record| record.timestamp_ms >= timestamp_ms) {
            return Ok(Some(record.offset));
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
        let mut next = (0..8).map_while(|_| self.next());
        next.find_map(|block| block.ok().map(|(base, _)| base)).unwrap_or(end)
    }
}

fn decode_block(guard: fjall::Guard) -> ReadBlock {
    let (key, value) = guard.into_inner().map_err(|error| error.to_string())?;
    let offset = key.last_chunk::<8>().ok_or("a key of a block that is none")?;
    Ok((u64::from_be_bytes(*offset), Bytes::from_owner(value)))
}
