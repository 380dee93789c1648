//! One batch's way through the stages of a pipeline: records in, effects out.
//!
//! A stage's call either counts as a whole or not at all. Where it fails (a trap, a time-out, a limit, an answer
//! against the contract, or the plugin's own error) its batch is halved until the rows that cannot be processed are
//! alone; they go to the dead-letter queue, and the others go on. What stages before it have done stands: a call has
//! no effect but its outputs, and those have been checked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bumpalo::Bump;

use super::dead_letter::{Cause, FailedAt, Reason, dead_letter};
use super::effects::{Effects, Outgoing};
use super::pipeline::{PipelineRuntime, StageRuntime, Way};
use super::state::StageState;
use crate::connect::TopicPartition;
use crate::format::{Decoder, set_key_and_time};
use crate::guest::{CallError, GuestError, Instance, escaped};
use crate::limits::BATCH_ROWS_MAX;
use crate::output::Outputs;
use crate::pipeline::StageEntry;
use crate::record::RecordRef;
use crate::table::Table;
use crate::window::Late;

/// What a task has of its own for each stage and source.
pub(super) struct Machinery {
    /// By stage and feed.
    pub decoders: Vec<Vec<Decoder>>,
    /// By source: what it takes key and time from; `None` where it takes neither.
    pub sources: Vec<Option<Decoder>>,
    /// By repartition: what it takes the new key from.
    pub repartitions: Vec<Decoder>,
    /// By stage: an instance for the time of a turn.
    pub instances: Vec<Option<Instance>>,
    /// By stage: what it keeps, if it does and is run by this task.
    pub state: Vec<Option<StageState>>,
}

/// Why a pass came to no end. Nothing of it counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    /// A stage could not be called at all: the batch is not to blame.
    #[error("stage {stage:?} cannot start an instance of its plugin: {source}")]
    StageDown { stage: String, source: GuestError },
    /// What a stage keeps could not be read: the batch is not to blame.
    #[error("stage {stage:?}: {message}")]
    StateDown { stage: String, message: String },
    /// Calls fail so slowly that finding the rows at fault would take too long, or the task is to stop meanwhile: fewer
    /// records at a time are found sooner.
    #[error("the pass takes too long")]
    Overrun,
}

/// What a pass has done.
pub(super) struct Passed {
    /// Records, the first of those that were given.
    pub records: usize,
    /// Whether a call failed on the way.
    pub failed: bool,
}

/// When the records of a pass were appended, for the bound on how far ahead they may be.
#[derive(Clone, Copy, Default)]
pub(super) struct Appended<'p> {
    /// The offsets at which blocks begin, and when those were appended; ascending.
    blocks: &'p [(u64, i64)],
    /// How far ahead of that a timestamp may be.
    future_max: Duration,
    /// A timestamp up to this is not too far ahead, whatever block it is in.
    surely_ms: i64,
}

impl<'p> Appended<'p> {
    pub fn new(blocks: &'p [(u64, i64)], future_max: Duration) -> Appended<'p> {
        let oldest_ms = blocks.iter().map(|(_, at)| *at).min().unwrap_or(i64::MAX);
        let future_max_ms = i64::try_from(future_max.as_millis()).unwrap_or(i64::MAX);
        Appended {
            blocks,
            future_max,
            surely_ms: oldest_ms.saturating_add(future_max_ms),
        }
    }

    /// When a record was appended, or any later moment that its timestamp is not too far ahead of either.
    fn of(&self, record: &RecordRef<'_>) -> i64 {
        if record.timestamp_ms <= self.surely_ms {
            return i64::MAX;
        }
        self.at(record.offset)
    }

    fn at(&self, offset: u64) -> i64 {
        let behind = self.blocks.partition_point(|(begin, _)| *begin <= offset);
        self.blocks
            .get(behind.saturating_sub(1))
            .map_or(i64::MAX, |(_, at)| *at)
    }
}

/// The state of one pass.
pub(super) struct Pass<'p, 'a> {
    pub pipeline: &'p PipelineRuntime,
    pub machinery: &'p mut Machinery,
    pub arena: &'a Bump,
    pub place: &'p TopicPartition,
    pub effects: &'p mut Effects,
    /// Records for sinks that several branches write, held back until the batch is through.
    pub held: Vec<Outgoing<'a>>,
    pub held_bytes: usize,
    /// The wall clock that the guests see: one moment for the whole batch.
    pub now_ms: i64,
    /// When its records were appended.
    pub appended: Appended<'p>,
    /// Of the last record that was taken: what becomes due by it stands behind it.
    pub last_offset: u64,
    /// When it should come to an end: behind a batch, or by [`PassError::Overrun`] unless it has one record only.
    pub until: Instant,
    /// Set by others when it should end at once.
    pub stop: &'p AtomicBool,
    /// Whether a call failed.
    pub failed: bool,
    /// Whether it has to be got over with, as it has one record only or none.
    pub alone: bool,
}

impl<'a> Pass<'_, 'a> {
    /// Takes the records of a source through all stages that it feeds, or the first of them where that takes long or
    /// makes much.
    pub fn source(&mut self, source: usize, records: &[RecordRef<'a>]) -> Result<Passed, PassError> {
        let pipeline = self.pipeline;
        self.alone = records.len() == 1;
        let mut done = 0;
        for chunk in records.chunks(BATCH_ROWS_MAX) {
            let prepared;
            let rows = if self.machinery.sources[source].is_some() {
                prepared = self.key_and_time(source, chunk);
                &prepared[..]
            } else {
                chunk
            };
            self.last_offset = chunk.last().map_or(0, |record| record.offset);
            self.send(&pipeline.sources[source], rows)?;
            let closed = self.close_windows()?;
            done += chunk.len();
            pipeline.stats.records_in.add(chunk.len() as u64);
            pipeline
                .stats
                .bytes_in
                .add(chunk.iter().map(|record| record.size_bytes() as u64).sum());
            if !closed || self.is_over() || self.is_full() {
                break;
            }
        }
        Ok(Passed {
            records: done,
            failed: self.failed,
        })
    }

    /// Hands over what was held back to be put in order.
    pub fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.effects.append_in_order(held, self.place.partition);
    }

    /// Whether enough waits for the commit.
    pub(super) fn is_full(&self) -> bool {
        let state = self.machinery.state.iter().flatten();
        let pending: usize = state.map(StageState::pending_bytes).sum();
        self.effects.bytes() + self.held_bytes + pending >= self.pipeline.commit_bytes_max
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire) || !self.alone && Instant::now() >= self.until
    }

    /// Gives records the key and the event time that stand in their values.
    fn key_and_time(&mut self, source: usize, records: &[RecordRef<'a>]) -> Vec<RecordRef<'a>> {
        let planned = &self.pipeline.plan.sources[source];
        let decoder = self.machinery.sources[source].as_mut().expect("the caller looked");
        let decoded = decoder.decode(records);
        let (key, time) = (planned.key_from.is_some(), planned.time_from.is_some());
        let mut prepared = Vec::with_capacity(decoded.rows.len());
        let mut failures: Vec<(u32, String)> = decoded
            .failed
            .into_iter()
            .map(|failed| (failed.index, failed.error.to_string()))
            .collect();
        for (row, &index) in decoded.rows.iter().enumerate() {
            let record = records[index as usize];
            match set_key_and_time(self.arena, &planned.format, &decoded.table, row, key, time, record) {
                Ok(record) => prepared.push(record),
                Err(error) => failures.push((index, error.to_string())),
            }
        }
        for (index, message) in failures {
            let at = self.failed_at(&planned.name, None);
            let cause = cause(Reason::Decode, "decode", &message);
            let letter = dead_letter(self.arena, &records[index as usize], &at, &cause);
            self.bury(letter);
        }
        prepared
    }

    /// Sends records where a way leads.
    pub(super) fn send(&mut self, way: &Way, records: &[RecordRef<'a>]) -> Result<(), PassError> {
        if let Some((sink, writer)) = way.sink {
            self.emit(sink, writer, records);
        }
        for &next in &way.targets {
            for chunk in records.chunks(BATCH_ROWS_MAX) {
                self.call(next, chunk)?;
            }
        }
        for &(repartition, (sink, writer)) in &way.repartitions {
            for chunk in records.chunks(BATCH_ROWS_MAX) {
                self.repartition(repartition, sink, writer, chunk)?;
            }
        }
        Ok(())
    }

    /// Calls a stage with records, and everything behind it with what comes out.
    fn call(&mut self, entry: StageEntry, records: &[RecordRef<'a>]) -> Result<(), PassError> {
        let StageEntry { stage, feed, .. } = entry;
        let decoded = self.machinery.decoders[stage][feed].decode(records);
        for failed in &decoded.failed {
            let message = failed.error.to_string();
            self.fail(
                stage,
                &records[failed.index as usize],
                &cause(Reason::Decode, "decode", &message),
            );
        }
        if decoded.rows.is_empty() {
            return Ok(());
        }
        let filtered: Vec<RecordRef<'a>>;
        let rows = if decoded.failed.is_empty() {
            records
        } else {
            filtered = decoded.rows.iter().map(|&index| records[index as usize]).collect();
            &filtered[..]
        };
        if self.pipeline.stages[stage].aggregates.is_some() {
            return self.aggregate(entry, &decoded.table, rows);
        }
        self.process(entry, &decoded.table, rows)
    }

    /// Calls a processor with rows.
    fn process(&mut self, entry: StageEntry, table: &Table, rows: &[RecordRef<'a>]) -> Result<(), PassError> {
        let StageEntry { stage, input, .. } = entry;
        let run = self.rows_of_a_tick(stage, rows);
        if run < rows.len() {
            let (mut run, mut rest) = rows.split_at(run);
            while !run.is_empty() {
                self.call(entry, run)?;
                (run, rest) = rest.split_at(self.rows_of_a_tick(stage, rest));
            }
            return Ok(());
        }
        if self.machinery.state[stage].is_some() {
            for record in rows {
                // What is too far ahead is a row like any other; it only does not move stream time.
                let _ = self.observe(stage, record);
            }
        }
        let now_ms = self.now_ms;
        let mut nothing = None;
        let (instance, state) = self.instance(stage)?;
        let fresh = instance.is_fresh();
        let answer = match state {
            Some(state) => {
                state.begin_call();
                let answer = instance.process(input, table, now_ms, state.lent());
                if answer.is_err() {
                    state.undo_call();
                }
                answer
            }
            None => instance.process(input, table, now_ms, &mut nothing),
        };
        match self.judge(stage, rows.len(), fresh, answer)? {
            Judged::Answer(outputs) => {
                self.pipeline.stats.stages[stage].rows_in.add(rows.len() as u64);
                self.apply(entry, rows, outputs)
            }
            Judged::Again => self.call(entry, rows),
            Judged::Failed(_) if rows.len() > 1 => {
                if self.is_over() {
                    return Err(PassError::Overrun);
                }
                let (front, back) = rows.split_at(rows.len() / 2);
                self.call(entry, front)?;
                self.call(entry, back)
            }
            Judged::Failed(error) => {
                self.fail_call(stage, &rows[0], &error);
                Ok(())
            }
        }
    }

    /// An instance of a stage, and what the stage keeps.
    pub(super) fn instance(&mut self, stage: usize) -> Result<(&mut Instance, Option<&mut StageState>), PassError> {
        let runtime = &self.pipeline.stages[stage];
        let instance = match &mut self.machinery.instances[stage] {
            Some(instance) => instance,
            empty => empty.insert(runtime.instance().map_err(|source| runtime.down(source))?),
        };
        Ok((instance, self.machinery.state[stage].as_mut()))
    }

    /// What is to be done after a call with so many rows, by an instance that was `fresh`.
    pub(super) fn judge<T>(
        &mut self,
        stage: usize,
        rows: usize,
        fresh: bool,
        answer: Result<T, CallError>,
    ) -> Result<Judged<T>, PassError> {
        let runtime = &self.pipeline.stages[stage];
        let stats = &self.pipeline.stats.stages[stage];
        let instance = self.machinery.instances[stage].as_ref();
        let call_time = instance.map_or(Duration::ZERO, Instance::call_time);
        stats.guest_ns.add(call_time.as_nanos() as u64);
        stats.calls.add(1);
        let error = match answer {
            Ok(answer) => return Ok(Judged::Answer(answer)),
            Err(error) => error,
        };
        if instance.is_some_and(Instance::is_poisoned) {
            self.machinery.instances[stage] = None;
        }
        if error.is_unavailable() {
            return Err(PassError::StateDown {
                stage: runtime.name.clone(),
                message: error.to_string(),
            });
        }
        let refused = matches!(error, CallError::Refused(_));
        if !refused {
            stats.traps.add(1);
        }
        self.failed = true;
        // What an instance has become by earlier rows is not this row's fault: it has another try in a new one. Not
        // where it took all its time, which costs that time again.
        if rows == 1 && !fresh && !refused && !matches!(error, CallError::Deadline { .. }) {
            let instance = runtime.fresh_instance().map_err(|source| runtime.down(source))?;
            self.machinery.instances[stage] = Some(instance);
            return Ok(Judged::Again);
        }
        Ok(Judged::Failed(error))
    }

    /// How many rows, of those that come next, one call of a stage may take: where rows of a store have a time to live, all
    /// rows of a call have the same time, whichever rows come together.
    fn rows_of_a_tick(&self, stage: usize, rows: &[RecordRef<'_>]) -> usize {
        let state = self.machinery.state[stage].as_ref().filter(|state| state.has_ticks());
        let Some(state) = state else { return rows.len() };
        let mut now = state.progress.now;
        let mut tick = None;
        let is_next = |record: &RecordRef<'_>| {
            let appended_ms = self.appended.at(record.offset);
            // What is too far ahead moves nothing.
            let _ = now.observe(record.timestamp_ms, appended_ms, self.appended.future_max);
            *tick.get_or_insert(state.on_tick(now)) != state.on_tick(now)
        };
        rows.iter().position(is_next).unwrap_or(rows.len())
    }

    /// Takes a record's time into account for a stage that keeps something.
    pub(super) fn observe(&mut self, stage: usize, record: &RecordRef<'_>) -> Result<(), Late> {
        let appended_ms = self.appended.of(record);
        match &mut self.machinery.state[stage] {
            Some(state) => state.observe(record.timestamp_ms, appended_ms, self.appended.future_max),
            None => Ok(()),
        }
    }

    /// Writes records to the topic of a repartition, by the key that stands in their values.
    fn repartition(
        &mut self,
        index: usize,
        sink: usize,
        writer: u32,
        records: &[RecordRef<'a>],
    ) -> Result<(), PassError> {
        let plan = &self.pipeline.plan;
        let planned = &plan.repartitions[index];
        let (stage, format) = (planned.stage, &plan.sources[planned.source].format);
        let decoded = self.machinery.repartitions[index].decode(records);
        let mut failures: Vec<(u32, String)> = decoded
            .failed
            .into_iter()
            .map(|failed| (failed.index, failed.error.to_string()))
            .collect();
        let mut keyed = Vec::with_capacity(decoded.rows.len());
        let mut unkeyed = Vec::new();
        for (row, &at) in decoded.rows.iter().enumerate() {
            let record = records[at as usize];
            match set_key_and_time(self.arena, format, &decoded.table, row, true, false, record) {
                Ok(record) if record.key.is_some() => keyed.push(record),
                Ok(_) => unkeyed.push(record),
                Err(error) => failures.push((at, error.to_string())),
            }
        }
        for (at, message) in failures {
            let message = format!("the key {:?} cannot be read: {message}", planned.key_from);
            self.fail(stage, &records[at as usize], &cause(Reason::Decode, "decode", &message));
        }
        self.emit(sink, writer, &keyed);
        self.send_unkeyed(stage, &unkeyed)
    }

    /// Records that have no key where a stage needs one.
    pub(super) fn send_unkeyed(&mut self, stage: usize, records: &[RecordRef<'a>]) -> Result<(), PassError> {
        if records.is_empty() {
            return Ok(());
        }
        let pipeline = self.pipeline;
        pipeline.stats.stages[stage].unkeyed.add(records.len() as u64);
        if let Some(way) = &pipeline.stages[stage].unkeyed {
            return self.send(way, records);
        }
        let message = match &pipeline.plan.stages[stage].key {
            Some(key) => format!("the record has no key: {key:?} of its value is absent or null"),
            None => "the record has no key".into(),
        };
        for record in records {
            self.fail(stage, record, &cause(Reason::Unkeyed, "unkeyed", &message));
        }
        Ok(())
    }

    /// A row is at fault that was alone in a call that failed.
    pub(super) fn fail_call(&mut self, stage: usize, row: &RecordRef<'a>, error: &CallError) {
        let runtime = &self.pipeline.stages[stage];
        let plugin = runtime.configured.plugin();
        let info = plugin.info();
        let message = error.to_string();
        if let Some(left_out) = self.pipeline.dead_letter_lines.take() {
            tracing::warn!(
                pipeline = self.pipeline.plan.name,
                stage = runtime.name,
                plugin = info.name,
                version = info.version,
                topic = &*self.place.topic,
                partition = self.place.partition,
                offset = row.offset,
                left_out = (left_out > 0).then_some(left_out),
                "a record could not be processed and went to the dead-letter queue: {}",
                escaped(&message)
            );
        }
        let reason = if matches!(error, CallError::Refused(_)) {
            Reason::Refused
        } else {
            Reason::Call
        };
        let cause = Cause {
            reason,
            exception: error.kind(),
            message: &message,
            frames: error.frames(),
        };
        self.fail(stage, row, &cause);
    }

    /// Writes what a stage answered where the pipeline wants it.
    pub(super) fn apply(
        &mut self,
        entry: StageEntry,
        rows: &[RecordRef<'a>],
        outputs: Outputs,
    ) -> Result<(), PassError> {
        let stage = entry.stage;
        let pipeline = self.pipeline;
        let runtime: &StageRuntime = &pipeline.stages[stage];
        for failure in &outputs.failed {
            let cause = cause(Reason::Refused, "refused", &failure.message);
            self.fail(stage, &rows[failure.row as usize], &cause);
        }
        let mut encoded = Vec::with_capacity(runtime.branches.len());
        let mut unwritable: Vec<(u32, String)> = Vec::new();
        for (branch, emitted) in runtime.branches.iter().zip(&outputs.branches) {
            let Some(encoder) = branch.encoders.get(entry.feed) else {
                encoded.push(None);
                continue;
            };
            let mut written = encoder.encode(self.arena, rows, emitted);
            unwritable.extend(
                written
                    .failed
                    .drain(..)
                    .map(|failed| (failed.origin, failed.error.to_string())),
            );
            encoded.push(Some(written));
        }
        if !unwritable.is_empty() {
            self.withdraw(stage, rows, &mut encoded, unwritable);
        }
        for (at, (branch, encoded)) in runtime.branches.iter().zip(&encoded).enumerate() {
            let emitted = encoded
                .as_ref()
                .map_or(outputs.branches[at].origins.len(), |e| e.records.len());
            pipeline.stats.stages[stage].branches[at].add(emitted as u64);
            let Some(encoded) = encoded else { continue };
            self.send(&branch.way, &encoded.records)?;
        }
        Ok(())
    }

    /// A row of which one output cannot be written has none: takes back the others, and buries the row.
    fn withdraw(
        &mut self,
        stage: usize,
        rows: &[RecordRef<'a>],
        encoded: &mut [Option<crate::format::Encoded<'a>>],
        mut unwritable: Vec<(u32, String)>,
    ) {
        unwritable.sort_by_key(|(origin, _)| *origin);
        unwritable.dedup_by_key(|(origin, _)| *origin);
        for encoded in encoded.iter_mut().flatten() {
            let keep: Vec<bool> = encoded
                .origins
                .iter()
                .map(|origin| unwritable.binary_search_by_key(origin, |(bad, _)| *bad).is_err())
                .collect();
            let mut at = keep.iter();
            encoded.records.retain(|_| *at.next().expect("one mark a record"));
            let mut at = keep.iter();
            encoded.origins.retain(|_| *at.next().expect("one mark a record"));
        }
        for (origin, message) in unwritable {
            self.fail(
                stage,
                &rows[origin as usize],
                &cause(Reason::Encode, "encode", &message),
            );
        }
    }

    fn emit(&mut self, sink: usize, writer: u32, records: &[RecordRef<'a>]) {
        if self.pipeline.sinks[sink].writers > 1 {
            self.held_bytes += records.iter().map(RecordRef::size_bytes).sum::<usize>();
            self.held
                .extend(records.iter().map(|&record| Outgoing { sink, record, writer }));
            return;
        }
        for record in records {
            self.effects.append(sink, record, self.place.partition);
        }
    }

    /// Sends a record that a stage could not process to the dead-letter queue.
    pub(super) fn fail(&mut self, stage: usize, record: &RecordRef<'a>, cause: &Cause<'_>) {
        let runtime = &self.pipeline.stages[stage];
        let plugin = runtime.configured.plugin();
        let info = plugin.info();
        self.pipeline.stats.stages[stage].failed.add(1);
        let at = self.failed_at(&runtime.name, Some((&info.name, &info.version, plugin.digest())));
        let letter = dead_letter(self.arena, record, &at, cause);
        self.bury(letter);
    }

    fn bury(&mut self, record: RecordRef<'a>) {
        self.pipeline.stats.dead_letters.add(1);
        self.held_bytes += record.size_bytes();
        let sink = self.pipeline.dlq();
        self.held.push(Outgoing {
            sink,
            record,
            writer: 0,
        });
    }

    fn failed_at<'c>(&'c self, stage: &'c str, plugin: Option<(&'c str, &'c str, &'c str)>) -> FailedAt<'c> {
        FailedAt {
            pipeline: &self.pipeline.plan.name,
            stage,
            plugin,
            topic: &self.place.topic,
            partition: self.place.partition,
        }
    }
}

impl StageRuntime {
    fn down(&self, source: GuestError) -> PassError {
        PassError::StageDown {
            stage: self.name.clone(),
            source,
        }
    }
}

/// What a call has come to.
pub(super) enum Judged<T> {
    /// It counts.
    Answer(T),
    /// The row was alone, and has another try in a new instance.
    Again,
    /// The rows are to be taken apart, or the row is at fault.
    Failed(CallError),
}

pub(super) fn cause<'c>(reason: Reason, exception: &'c str, message: &'c str) -> Cause<'c> {
    Cause {
        reason,
        exception,
        message,
        frames: &[],
    }
}
