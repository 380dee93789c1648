//! A piece of a changelog in memory, and its rows: of each key the last, sorted.

use super::FlushError;
use crate::connect::{Fetched, LogError, TopicPartition};
use crate::record::RecordRef;
use crate::state::database::StoreRow;
use crate::state::log::Changelog;
use crate::state::segment::{Segmenting, key_time};

/// One fetch: small beside a piece, so that pieces keep to their bound.
const FETCH_BYTES: usize = 1 << 20;

pub(super) struct Piece {
    fetched: Vec<Fetched>,
    next_offset: u64,
    to: u64,
}

impl Piece {
    /// Reads from `from` on: to `to`, or as much as `bytes_max` holds, one block at least.
    pub(super) fn read(
        log: &dyn Changelog,
        tp: &TopicPartition,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Piece, LogError> {
        let mut piece = Piece {
            fetched: Vec::new(),
            next_offset: from,
            to,
        };
        let mut bytes = 0;
        while piece.next_offset < to && bytes < bytes_max {
            let fetched = log.fetch(tp, piece.next_offset, FETCH_BYTES.min(bytes_max - bytes))?;
            if fetched.next_offset() <= piece.next_offset {
                // It was said to be committed, and is not there.
                return Err(LogError::OffsetOutOfRange {
                    topic: tp.topic.to_string(),
                    partition: tp.partition,
                    offset: to,
                    first: log.ends(tp)?.0,
                    next: piece.next_offset,
                });
            }
            bytes += fetched.block_bytes();
            piece.next_offset = fetched.next_offset().min(to);
            piece.fetched.push(fetched);
        }
        Ok(piece)
    }

    /// The offset behind its last record.
    pub(super) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    pub(super) fn records(&self) -> u64 {
        self.lent().count() as u64
    }

    fn lent(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let records = self.fetched.iter().flat_map(|fetched| fetched.records());
        records.take_while(|record| record.offset < self.to)
    }

    /// The last row of each key, in the order of the keys, without those that are past.
    pub(super) fn rows(
        &self,
        tp: &TopicPartition,
        segmenting: Segmenting,
        before_ms: Option<i64>,
    ) -> Result<Vec<StoreRow<'_>>, FlushError> {
        let count = self.fetched.iter().map(Fetched::len).sum();
        let mut sorted: Vec<Keyed<'_>> = Vec::with_capacity(count);
        for record in self.lent() {
            let Some(key) = record.key else {
                return Err(FlushError::NoKey {
                    changelog: tp.clone(),
                    offset: record.offset,
                });
            };
            sorted.push(Keyed {
                prefix: prefix(key),
                offset: record.offset,
                row: StoreRow {
                    key,
                    value: record.value,
                    timestamp_ms: record.timestamp_ms,
                },
            });
        }
        sorted.sort_unstable_by(|a, b| {
            let by_key = a.prefix.cmp(&b.prefix).then_with(|| a.row.key.cmp(b.row.key));
            // The last change first: it is the one that stays.
            by_key.then_with(|| b.offset.cmp(&a.offset))
        });
        sorted.dedup_by(|later, kept| later.row.key == kept.row.key);
        let mut rows: Vec<_> = sorted.into_iter().map(|keyed| keyed.row).collect();
        if let Some(before_ms) = before_ms {
            rows.retain(|row| !is_past(row, segmenting, before_ms));
        }
        Ok(rows)
    }
}

/// A row with the number that its key begins with, by which most comparisons are decided.
struct Keyed<'a> {
    prefix: u64,
    offset: u64,
    row: StoreRow<'a>,
}

fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(8);
    bytes[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

/// Whether nobody asks for a row any more. By row time only what lies in a segment that is past: a row that is past by
/// itself hides older ones.
fn is_past(row: &StoreRow<'_>, segmenting: Segmenting, before_ms: i64) -> bool {
    match segmenting {
        Segmenting::None => false,
        Segmenting::ByKeyTime { .. } => key_time(row.key).is_some_and(|time| time < before_ms),
        Segmenting::ByRowTime { .. } => {
            row.value.is_some() && segmenting.segment_of(row.timestamp_ms) < segmenting.segment_of(before_ms)
        }
    }
}
