//! One task: a pipeline's share of one partition of its sources.
//!
//! Its life is a circle: read, pass through the stages, and from time to time commit offsets and outputs together.
//! What is between two commits is only in memory. When a commit fails, or a stage cannot be called, the task goes
//! back to its last commit and tries again later; what it had done since is as if it had never been.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bumpalo::Bump;

use super::effects::Effects;
use super::pass::{Machinery, Pass, PassError};
use super::pipeline::{INSTANCE_IDLE_MAX, PipelineRuntime};
use super::scheduler::{Next, Turn, Waker};
use crate::connect::embedded::{EmbeddedLog, Subscription};
use crate::connect::{Commit, CommitError, Committed, GroupOffset, LogError, Position, TopicPartition};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, PASS_TIME_MAX};
use crate::record::{RecordRef, now_ms};

/// First wait after a failed commit or start of a stage; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// By how much a task takes on less after a pass that took too long; it doubles after each in which no call failed.
const OVERRUN_DIVISOR: usize = 8;
/// Memory of the arena that is kept from one batch to the next.
const ARENA_BYTES_KEPT: usize = 4 * BATCH_BYTES_MAX;

/// What others see of a task, and ask of it.
#[derive(Debug, Default)]
pub struct TaskStatus {
    /// Everything that was there when it last looked is processed and committed.
    pub at_end: AtomicBool,
    /// It should commit and end.
    pub stop: AtomicBool,
    /// It should commit at the end of its sources at once: nobody waits for more.
    pub draining: AtomicBool,
    /// It ended.
    pub done: AtomicBool,
    /// Why it waits, if it does so because something is wrong.
    pub paused: Mutex<Option<String>>,
    /// Why it ended, if something is wrong that does not pass.
    pub failed: Mutex<Option<String>>,
}

/// A source's partition, as one task reads it.
struct Reader {
    source: usize,
    place: TopicPartition,
    position: u64,
    committed: u64,
    _subscription: Subscription,
}

/// The outcome of a commit, put there by the committer.
type Outcome = Arc<Mutex<Option<Result<Committed, CommitError>>>>;

/// A task; see the module.
pub struct Task {
    pipeline: Arc<PipelineRuntime>,
    log: Arc<EmbeddedLog>,
    status: Arc<TaskStatus>,
    waker: Waker,
    readers: Vec<Reader>,
    /// Which reader is asked first, so that none waits for the others.
    turn_of: usize,
    machinery: Machinery,
    effects: Effects,
    arena: Bump,
    uncommitted_since: Option<Instant>,
    committing: Option<Outcome>,
    /// Whether its positions are known: not where it could not read them after a failure.
    rewound: bool,
    /// Until when it waits after a failure, and how long the next wait is.
    retry_at: Option<Instant>,
    retry_wait: Duration,
    shed_at: Option<Instant>,
    /// Records that it takes on at a time: fewer after a pass that took too long.
    records_max: usize,
    /// Records of such a pass that are still to come: meanwhile it commits after each pass, so that the next one that
    /// takes too long does not undo those before it.
    careful_records: usize,
}

/// Something that does not pass by waiting.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The log cannot be read.
    #[error("topic {topic:?}, partition {partition}: {source}")]
    Log {
        /// The source's topic.
        topic: String,
        /// Its partition.
        partition: u32,
        /// What the log said.
        source: LogError,
    },
    /// A field has no place in a format.
    #[error(transparent)]
    Format(#[from] crate::format::FormatError),
}

impl Task {
    /// A task of the sources `sources` (indices in the plan) and partition `partition`.
    pub fn new(
        pipeline: Arc<PipelineRuntime>,
        log: Arc<EmbeddedLog>,
        status: Arc<TaskStatus>,
        waker: Waker,
        sources: &[usize],
        partition: u32,
    ) -> Result<Task, TaskError> {
        let mut readers = Vec::with_capacity(sources.len());
        for &source in sources {
            let topic: Arc<str> = pipeline.plan.sources[source].topic.as_str().into();
            let place = TopicPartition { topic, partition };
            let wake = waker.clone();
            let subscription = log.subscribe(&place, Arc::new(move || wake.wake()));
            readers.push(Reader {
                source,
                place,
                position: 0,
                committed: 0,
                _subscription: subscription,
            });
        }
        let machinery = pipeline.machinery()?;
        let mut task = Task {
            effects: Effects::new(pipeline.sinks.clone()),
            pipeline,
            log,
            status,
            waker,
            readers,
            turn_of: 0,
            machinery,
            arena: Bump::new(),
            uncommitted_since: None,
            committing: None,
            rewound: false,
            retry_at: None,
            retry_wait: RETRY_MIN,
            shed_at: None,
            records_max: usize::MAX,
            careful_records: 0,
        };
        task.rewind()?;
        Ok(task)
    }

    /// Goes back to the last commit.
    fn rewind(&mut self) -> Result<(), TaskError> {
        self.effects.clear();
        self.uncommitted_since = None;
        self.rewound = false;
        for reader in &mut self.readers {
            let committed = match self.log.committed(&self.pipeline.plan.group, &reader.place) {
                Ok(Some(offset)) => Ok(offset),
                Ok(None) => self.log.offset_at(&reader.place, Position::Start),
                Err(error) => Err(error),
            };
            reader.position = committed.map_err(|source| reader.error(source))?;
            reader.committed = reader.position;
        }
        self.rewound = true;
        Ok(())
    }

    /// Goes back to the last commit and waits a while before it tries again.
    fn retreat(&mut self, why: &str) -> Result<Next, TaskError> {
        match self.rewind() {
            Err(error) if !error.passes() => Err(error),
            _ => Ok(self.pause(why)),
        }
    }

    /// Waits a while, saying why once.
    fn pause(&mut self, why: &str) -> Next {
        self.status.at_end.store(false, Ordering::Release);
        let at = Instant::now() + self.retry_wait;
        self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
        self.retry_at = Some(at);
        let mut paused = self.status.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.is_none() {
            tracing::error!(
                pipeline = self.pipeline.plan.name,
                "paused: {why}; it goes on by itself"
            );
        }
        *paused = Some(why.to_owned());
        Next::Wait(Some(at))
    }

    /// Something worked again.
    fn resume(&mut self) {
        self.retry_wait = RETRY_MIN;
        let mut paused = self.status.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.take().is_some() {
            tracing::info!(pipeline = self.pipeline.plan.name, "goes on after a pause");
        }
    }

    /// One turn; an error ends the task.
    fn step(&mut self) -> Result<Next, TaskError> {
        if let Some(outcome) = &self.committing {
            let Some(outcome) = outcome.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                return Ok(Next::Wait(None));
            };
            self.committing = None;
            if let Err(error) = outcome {
                self.pipeline.stats.rewinds.add(1);
                return self.retreat(&error.to_string());
            }
            self.pipeline.stats.commits.add(1);
            for reader in &mut self.readers {
                reader.committed = reader.position;
            }
            self.uncommitted_since = None;
            self.resume();
        }
        let now = Instant::now();
        let stopping = self.status.stop.load(Ordering::Acquire);
        if let Some(at) = self.retry_at.filter(|&at| at > now && !stopping) {
            return Ok(Next::Wait(Some(at)));
        }
        self.retry_at = None;
        if stopping {
            return Ok(if self.uncommitted_since.is_some() {
                self.commit()
            } else {
                Next::Done
            });
        }
        if !self.rewound {
            self.rewind()?;
        }
        if self.commit_due(now) {
            return Ok(self.commit());
        }
        if self.read()? {
            return Ok(Next::Ready);
        }
        if let Some(at) = self.retry_at {
            return Ok(Next::Wait(Some(at)));
        }
        Ok(self.end_of_sources())
    }

    fn commit_due(&self, now: Instant) -> bool {
        self.uncommitted_since.is_some_and(|since| {
            self.careful_records > 0
                || self.effects.bytes() >= self.pipeline.commit_bytes_max
                || now.duration_since(since) >= self.pipeline.plan.commit_interval
        })
    }

    /// Nothing to read now: commit if it is time, else wait for more.
    fn end_of_sources(&mut self) -> Next {
        let Some(since) = self.uncommitted_since else {
            self.status.at_end.store(true, Ordering::Release);
            return self.idle();
        };
        if self.status.draining.load(Ordering::Acquire) {
            return self.commit();
        }
        Next::Wait(Some(since + self.pipeline.plan.commit_interval))
    }

    /// Waits for records; after a while without any, gives back the memory of unused instances.
    fn idle(&mut self) -> Next {
        let now = Instant::now();
        match self.shed_at {
            Some(at) if at <= now => {
                self.pipeline.shed_instances();
                self.arena = Bump::new();
                self.shed_at = None;
                Next::Wait(None)
            }
            Some(at) => Next::Wait(Some(at)),
            None => Next::Wait(None),
        }
    }

    /// Reads and processes some records, if there are any.
    fn read(&mut self) -> Result<bool, TaskError> {
        let count = self.readers.len();
        for at in (0..count).map(|n| (self.turn_of + n) % count) {
            let reader = &mut self.readers[at];
            // One block, where a whole batch of them would not be taken on.
            let bytes_max = if self.records_max < BATCH_ROWS_MAX {
                1
            } else {
                BATCH_BYTES_MAX
            };
            let fetched = match self.log.fetch(&reader.place, reader.position, bytes_max) {
                Ok(fetched) => fetched,
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
                    return Ok(true);
                }
                Err(source) => return Err(reader.error(source)),
            };
            if fetched.next_offset() == reader.position {
                continue;
            }
            self.turn_of = (at + 1) % count;
            self.status.at_end.store(false, Ordering::Release);
            let mut records = fetched.records();
            let taken: Vec<RecordRef<'_>> = records.by_ref().take(self.records_max).collect();
            let left = records.next();
            let mut arena = std::mem::take(&mut self.arena);
            let reader = &self.readers[at];
            let pass = Pass {
                pipeline: &self.pipeline,
                machinery: &mut self.machinery,
                arena: &arena,
                place: &reader.place,
                effects: &mut self.effects,
                held: Vec::new(),
                now_ms: now_ms(),
                until: Instant::now() + PASS_TIME_MAX,
                stop: &self.status.stop,
                failed: false,
                alone: false,
            };
            let passed = pass.source(reader.source, &taken);
            self.give_back_instances();
            let passed = match passed {
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
            self.careful_records = self.careful_records.saturating_sub(passed.records);
            if !passed.failed {
                self.records_max = self.records_max.saturating_mul(2);
            }
            let next_offset = taken
                .get(passed.records)
                .or(left.as_ref())
                .map_or(fetched.next_offset(), |record| record.offset);
            arena.reset();
            if arena.allocated_bytes() <= ARENA_BYTES_KEPT {
                self.arena = arena;
            }
            self.readers[at].position = next_offset;
            let now = Instant::now();
            self.uncommitted_since.get_or_insert(now);
            self.shed_at = Some(now + INSTANCE_IDLE_MAX);
            return Ok(true);
        }
        Ok(false)
    }

    /// Between turns the instances serve the pipeline's other tasks.
    fn give_back_instances(&mut self) {
        for (stage, slot) in self.pipeline.stages.iter().zip(&mut self.machinery.instances) {
            if let Some(instance) = slot.take() {
                stage.give_back(instance);
            }
        }
    }

    /// Hands effects and offsets to the committer, whose answer wakes the task.
    fn commit(&mut self) -> Next {
        let offsets = self
            .readers
            .iter()
            .filter(|reader| reader.position != reader.committed)
            .map(|reader| GroupOffset {
                group: self.pipeline.plan.group.as_str().into(),
                topic: reader.place.topic.clone(),
                partition: reader.place.partition,
                next_offset: reader.position,
                metadata: String::new(),
            })
            .collect();
        let commit = Commit {
            appends: self.effects.take(),
            offsets,
            ..Commit::default()
        };
        let outcome = Outcome::default();
        self.committing = Some(outcome.clone());
        let waker = self.waker.clone();
        self.log.submit(
            commit,
            Box::new(move |result| {
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                waker.wake();
            }),
        );
        Next::Wait(None)
    }
}

impl TaskError {
    /// Whether waiting may help.
    fn passes(&self) -> bool {
        matches!(
            self,
            TaskError::Log {
                source: LogError::Unavailable { .. },
                ..
            }
        )
    }
}

impl Reader {
    fn error(&self, source: LogError) -> TaskError {
        TaskError::Log {
            topic: self.place.topic.to_string(),
            partition: self.place.partition,
            source,
        }
    }
}

impl Turn for Task {
    fn turn(&mut self) -> Next {
        let next = self.step().or_else(|error| {
            if error.passes() {
                self.retreat(&error.to_string())
            } else {
                Err(error)
            }
        });
        let next = next.unwrap_or_else(|error| {
            tracing::error!(pipeline = self.pipeline.plan.name, "stopped: {error}");
            *self.status.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            Next::Done
        });
        if next == Next::Done {
            self.status.done.store(true, Ordering::Release);
        }
        next
    }
}
