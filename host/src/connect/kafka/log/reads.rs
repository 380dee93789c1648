//! Places in partitions, and what lies behind them.

use super::KafkaLog;
use crate::connect::kafka::admin::EARLIEST;
use crate::connect::kafka::reader::{Ended, PartitionReader};
use crate::connect::{Fetched, FetchedBuilder, LentRecord, LogError, Position, TopicPartition};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// What brokers bring of a partition, within this.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);

/// A partition that is read, with how much there was.
pub(super) struct PlaceReader {
    reader: PartitionReader,
    /// What was there when it began ends here.
    end: u64,
    /// It came to the end once: what follows comes by itself.
    at_end: bool,
}

impl KafkaLog {
    /// The offset of a place, among what is committed.
    pub(super) fn find_offset(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError> {
        let (first, next) = self.range(tp)?;
        match position {
            Position::Start => Ok(first),
            Position::End => Ok(next),
            Position::Offset(offset) => Ok(offset.clamp(first, next)),
            Position::Timestamp(time_ms) => {
                // Times before 1970 are no times to a broker, which takes them for names of places.
                let asked = if time_ms < 0 { EARLIEST } else { time_ms };
                let found = self.admin().offsets(&[(tp.clone(), asked)], true);
                let found = found.map_err(|error| self.refused("looking for a time", Some(&tp.topic), error))?;
                let offset = found.first().map_or(-1, |place| place.offset);
                Ok(u64::try_from(offset).map_or(next, |offset| offset.clamp(first, next)))
            }
        }
    }

    /// First offset and end of a partition.
    fn range(&self, tp: &TopicPartition) -> Result<(u64, u64), LogError> {
        match self.reading.ends(tp) {
            Err(LogError::UnknownTopic { .. }) => {
                let partitions = self.partitions(&tp.topic)?;
                Err(LogError::UnknownPartition {
                    topic: tp.topic.to_string(),
                    partition: tp.partition,
                    partitions,
                })
            }
            ends => ends,
        }
    }

    /// Committed records from an offset on: all that came up to `bytes_max`. Where there is none, waits so long for some.
    pub(super) fn read(
        &self,
        tp: &TopicPartition,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Fetched, LogError> {
        let asked_at = Instant::now();
        let shared = self.places.of(tp);
        let mut slot = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = match slot.take() {
            Some(place) if place.reader.position == from => place,
            before => {
                // One at a time.
                drop(before);
                self.start(tp, from)?
            }
        };
        let wait_until = asked_at + wait;
        let mut until = if place.at_end {
            wait_until
        } else {
            asked_at + FETCH_TIME_MAX
        };
        let end = place.end;
        let mut fetched = FetchedBuilder::at(from);
        loop {
            let ended = place.reader.read(until, |record| {
                fetched.push(LentRecord {
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                    key: record.key,
                    value: record.value,
                    headers: record.headers().into_iter(),
                });
                // At the end there is no need to wait until the broker says that it is one.
                Ok(fetched.bytes() < bytes_max && fetched.next_offset() != end)
            })?;
            place.at_end |= fetched.next_offset() >= end;
            match ended {
                Ended::Enough => break,
                Ended::AtEnd(next) => {
                    place.at_end = true;
                    fetched.pass_to(next);
                    if fetched.next_offset() > from || Instant::now() >= wait_until {
                        break;
                    }
                    until = wait_until;
                }
                Ended::Late if place.at_end || !fetched.is_empty() => break,
                Ended::Late => {
                    let said = format!("no answer within {} s", FETCH_TIME_MAX.as_secs());
                    let said = self.reading.trouble().explain(&said);
                    return Err(LogError::Unavailable {
                        detail: format!("reading {tp} at offset {from}: {said}"),
                    });
                }
            }
        }
        *slot = Some(place);
        Ok(fetched.finish())
    }

    fn start(&self, tp: &TopicPartition, from: u64) -> Result<PlaceReader, LogError> {
        let (first, next) = self.range(tp)?;
        if from < first || from > next {
            return Err(LogError::OffsetOutOfRange {
                topic: tp.topic.to_string(),
                partition: tp.partition,
                offset: from,
                first,
                next,
            });
        }
        Ok(PlaceReader {
            reader: PartitionReader::start(&self.reading, tp, from)?,
            end: next,
            at_end: from == next,
        })
    }
}
