//! Where to begin to look for a time: for every few megabytes of a partition a row says how new its records are up to there.
//!
//! The rows lie in the keyspace of small generations, which nobody reads as a whole. A partition that was written
//! before there were any is read from its first block.

use super::engine::Engine;
use super::topic::End;

/// Bytes of a partition's blocks from one row to the next: reading so much takes a few milliseconds.
const STEP_BYTES: u64 = 4 << 20;
/// No key of a block begins so: there are not that many topics.
const KIND: u8 = b't';

/// Whether a row belongs behind the block that moved a partition's end from one to the other.
pub(super) fn is_due(before: End, after: End) -> bool {
    before.bytes / STEP_BYTES != after.bytes / STEP_BYTES
}

/// The key of the row that tells of all records before `offset`.
pub(super) fn key(topic_id: u64, partition: u32, offset: u64) -> Vec<u8> {
    [
        &[KIND][..],
        &topic_id.to_be_bytes(),
        &partition.to_be_bytes(),
        &offset.to_be_bytes(),
    ]
    .concat()
}

/// Its value.
pub(super) fn value(end: End) -> [u8; 8] {
    end.timestamp_max.to_le_bytes()
}

impl Engine {
    /// The rows behind `begin`, up to `end`.
    pub(super) fn time_rows(&self, topic_id: u64, partition: u32, begin: u64, end: u64) -> fjall::Iter {
        let first = begin.saturating_add(1);
        self.shared
            .range(key(topic_id, partition, first)..=key(topic_id, partition, end.max(first)))
    }

    /// An offset between `begin` and `end` at which a block begins and before which all records are older.
    ///
    /// # Errors
    /// Where a row cannot be read.
    pub(super) fn look_from(
        &self,
        topic_id: u64,
        partition: u32,
        begin: u64,
        end: u64,
        timestamp_ms: i64,
    ) -> Result<u64, String> {
        let mut from = begin;
        for guard in self.time_rows(topic_id, partition, begin, end) {
            let (key, value) = guard.into_inner().map_err(|error| error.to_string())?;
            let (Some(offset), Ok(newest)) = (key.last_chunk::<8>(), <[u8; 8]>::try_from(&*value)) else {
                return Err("a row of times that is none".into());
            };
            if i64::from_le_bytes(newest) >= timestamp_ms {
                break;
            }
            from = u64::from_be_bytes(*offset);
        }
        Ok(from)
    }
}
