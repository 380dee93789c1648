//! What a task has done since its last commit, and has not told anybody yet.
//!
//! Records are copied into blocks, one run of blocks for each partition of each topic, as soon as their batch has
//! passed all stages. Nothing of it is visible before the commit; dropping it undoes it.

use std::sync::Arc;

use crate::connect::{Append, BlockBuilder, partition_of};
use crate::record::RecordRef;

/// A topic that a pipeline writes.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Its name.
    pub topic: Arc<str>,
    /// How many partitions it has.
    pub partitions: u32,
    /// How often one batch is written to it: by several branches, or by one that is reached in several ways. Where it
    /// is more than once, the batch is put back into the order of its input.
    pub writers: u32,
}

/// A record on its way to a sink, with what puts it in its place there.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub sink: usize,
    /// The record's offset is still the one of the input record that it comes from.
    pub record: RecordRef<'a>,
    /// Where several branches write one topic: which, in the order of the pipeline.
    pub writer: u32,
}

/// Effects of one task, ready for the next commit.
pub(super) struct Effects {
    sinks: Arc<[Sink]>,
    /// By sink and partition; made when first written.
    blocks: Vec<Vec<Option<BlockBuilder>>>,
    bytes: usize,
}

impl Effects {
    pub fn new(sinks: Arc<[Sink]>) -> Effects {
        let blocks = sinks.iter().map(|_| Vec::new()).collect();
        Effects {
            sinks,
            blocks,
            bytes: 0,
        }
    }

    /// Bytes of records that wait for the commit.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a batch's records of the sinks that several branches write, and puts them in the order of the input.
    pub fn append_in_order(&mut self, mut records: Vec<Outgoing<'_>>, partition_in: u32) {
        records.sort_by_key(|outgoing| (outgoing.record.offset, outgoing.writer));
        for outgoing in records {
            self.append(outgoing.sink, &outgoing.record, partition_in);
        }
    }

    /// Takes a record. Without a key it keeps to the partition that it came from, so that a repeated run puts it
    /// in the same place.
    pub fn append(&mut self, sink: usize, record: &RecordRef<'_>, partition_in: u32) {
        let partitions = self.sinks[sink].partitions;
        let partition = match record.key {
            _ if partitions == 1 => 0,
            Some(key) => partition_of(key, partitions),
            None => partition_in % partitions,
        } as usize;
        let blocks = &mut self.blocks[sink];
        if blocks.len() <= partition {
            blocks.resize_with(partition + 1, || None);
        }
        let builder = blocks[partition].get_or_insert_with(BlockBuilder::new);
        builder
            .push_derived(*record)
            .expect("what stages and dead letters add to a record is bounded where they do");
        self.bytes += record.size_bytes();
    }

    /// Hands everything to a commit and begins anew.
    pub fn take(&mut self) -> Vec<Append> {
        self.bytes = 0;
        let mut appends = Vec::new();
        for (sink, blocks) in self.sinks.iter().zip(&mut self.blocks) {
            for (partition, builder) in blocks.iter_mut().enumerate() {
                if let Some(blocks) = builder.take() {
                    appends.push(Append {
                        topic: sink.topic.clone(),
                        partition: partition as u32,
                        blocks,
                    });
                }
            }
        }
        appends
    }

    /// Undoes everything since the last commit.
    pub fn clear(&mut self) {
        self.take();
    }
}
