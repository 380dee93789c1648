//! Reading: a task's next records, and their pass through the stages.

use std::time::Instant;

use bumpalo::Bump;

use super::pass::{Appended, Pass, PassError, Passed};
use super::pipeline::INSTANCE_IDLE_MAX;
use super::task::{ARENA_BYTES_KEPT, Task, TaskError};
use crate::connect::{Fetched, LogError};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, PASS_TIME_MAX};
use crate::record::{RecordRef, now_ms};
use std::sync::atomic::Ordering;

/// By how much a task takes on less after a pass that took too long; it doubles after each in which no call failed.
const OVERRUN_DIVISOR: usize = 8;

impl Task {
    /// Reads and processes some records, if there are any.
    pub(super) fn read(&mut self) -> Result<bool, TaskError> {
        let (count, turn_of) = (self.readers.len(), self.turn_of);
        for at in (0..count).map(|n| (turn_of + n) % count) {
            let Some(fetched) = self.fetch(at)? else {
                return Ok(true);
            };
            if fetched.next_offset() == self.readers[at].position {
                continue;
            }
            self.turn_of = (at + 1) % count;
            self.status.at_end.store(false, Ordering::Release);
            let mut records = fetched.records();
            let taken: Vec<RecordRef<'_>> = records.by_ref().take(self.records_max).collect();
            let left = records.next();
            let source = self.readers[at].source;
            let blocks = fetched.appended();
            let appended = Appended::new(&blocks, self.pipeline.plan.sources[source].future_max);
            let arena = std::mem::take(&mut self.arena);
            let outcome = self.pass(&arena, at, appended, |pass| pass.source(source, &taken));
            self.keep_arena(arena);
            let passed = match outcome {
                Ok(passed) => passed,
                Err(PassError::Overrun) => {
                    self.careful_records = taken.len();
                    self.records_max = (taken.len().min(BATCH_ROWS_MAX) / OVERRUN_DIVISOR).max(1);
                    self.rewind()?;
                    return Ok(true);
                }
                Err(down) => {
                    self.retreat(&down.to_string())?;
                    return Ok(false);
                }
            };
            let Passed { records, failed } = passed;
            self.careful_records = self.careful_records.saturating_sub(records);
            if !failed {
                self.records_max = self.records_max.saturating_mul(2);
            }
            let next = taken.get(records).or(left.as_ref());
            self.readers[at].position = next.map_or(fetched.next_offset(), |record| record.offset);
            let now = Instant::now();
            self.record_at = now;
            self.uncommitted_since.get_or_insert(now);
            self.shed_at = Some(now + INSTANCE_IDLE_MAX);
            return Ok(true);
        }
        Ok(false)
    }

    /// What a reader reads next; `None` where records are gone and it goes on behind them.
    fn fetch(&mut self, at: usize) -> Result<Option<Fetched>, TaskError> {
        let reader = &mut self.readers[at];
        // One block, where a whole batch of them would not be taken on.
        let bytes_max = if self.records_max < BATCH_ROWS_MAX {
            1
        } else {
            BATCH_BYTES_MAX
        };
        match self.log.fetch(&reader.place, reader.position, bytes_max) {
            Ok(fetched) => Ok(Some(fetched)),
            Err(LogError::OffsetOutOfRange { first, .. }) if first > reader.position => {
                tracing::warn!(
                    pipeline = self.pipeline.plan.name,
                    topic = &*reader.place.topic,
                    partition = reader.place.partition,
                    "{} records from offset {} on are gone by the topic's retention and were never processed",
                    first - reader.position,
                    reader.position
                );
                reader.position = first;
                self.uncommitted_since.get_or_insert_with(Instant::now);
                Ok(None)
            }
            Err(source) => Err(reader.error(source)),
        }
    }

    /// Does something with the stages on behalf of a reader.
    pub(super) fn pass<'a, T>(
        &mut self,
        arena: &'a Bump,
        reader: usize,
        appended: Appended<'_>,
        work: impl FnOnce(&mut Pass<'_, 'a>) -> Result<T, PassError>,
    ) -> Result<T, PassError> {
        let mut pass = Pass {
            pipeline: &self.pipeline,
            machinery: &mut self.machinery,
            arena,
            place: &self.readers[reader].place,
            effects: &mut self.effects,
            held: Vec::new(),
            held_bytes: 0,
            now_ms: now_ms(),
            appended,
            last_offset: 0,
            until: Instant::now() + PASS_TIME_MAX,
            stop: &self.status.stop,
            failed: false,
            alone: false,
        };
        let outcome = work(&mut pass);
        pass.release();
        self.give_back_instances();
        outcome
    }

    /// As [`Task::pass`], where there are no records but what is kept.
    pub(super) fn pass_alone<T>(
        &mut self,
        work: impl for<'a> FnOnce(&mut Pass<'_, 'a>) -> Result<T, PassError>,
    ) -> Result<T, PassError> {
        let arena = std::mem::take(&mut self.arena);
        let alone = self.patient;
        let outcome = self.pass(&arena, 0, Appended::default(), |pass| {
            pass.alone = alone;
            work(pass)
        });
        self.keep_arena(arena);
        outcome
    }

    /// Keeps the memory of a batch for the next, unless it is much.
    fn keep_arena(&mut self, mut arena: Bump) {
        arena.reset();
        if arena.allocated_bytes() <= ARENA_BYTES_KEPT {
            self.arena = arena;
        }
    }
}
