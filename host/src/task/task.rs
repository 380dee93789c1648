//! One task: a pipeline's share of one partition of its sources.
//!
//! Its life is a circle: read, pass through the stages, and from time to time commit offsets and outputs together.
//! What is between two commits is only in memory. When a commit fails, or a stage cannot be called, the task goes
//! back to its last commit and tries again later; what it had done since is as if it had never been.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bumpalo::Bump;

use super::commit::Committing;
use super::effects::Effects;
use super::pass::Machinery;
use super::pipeline::{PipelineRuntime, StartError};
use super::scheduler::{Next, Turn, Waker};
use super::state::StageState;
use crate::connect::{LogError, Resume, TaskLog, TopicPartition, Watch};
use crate::limits::BATCH_BYTES_MAX;
use crate::state::notes::Notes;
use crate::state::{CaughtUp, StoreError, Wake};

/// First wait after a failed commit or start of a stage; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Memory of the arena that is kept from one batch to the next.
pub(super) const ARENA_BYTES_KEPT: usize = 4 * BATCH_BYTES_MAX;

/// What others see of a task, and ask of it.
#[derive(Debug, Default)]
pub struct TaskStatus {
    /// Everything that was there when it last looked is processed and committed.
    pub at_end: AtomicBool,
    /// It should commit and end.
    pub stop: AtomicBool,
    /// Its partitions are another's by now: it should end and not commit.
    pub lost: AtomicBool,
    /// It should commit at the end of its sources at once: nobody waits for more.
    pub draining: AtomicBool,
    /// The number of a stage, counted from 1, that should close all its windows at the end of the sources, as there will
    /// be no more records; 0 when it has.
    pub closing: AtomicUsize,
    /// It ended.
    pub done: AtomicBool,
    /// Why it waits, if it does so because something is wrong.
    pub paused: Mutex<Option<String>>,
    /// Why it ended, if something is wrong that does not pass.
    pub failed: Mutex<Option<String>>,
}

/// A source's partition, as one task reads it.
pub(super) struct Reader {
    pub source: usize,
    pub place: TopicPartition,
    pub position: u64,
    pub committed: u64,
    _watch: Watch,
}

/// A task; see the module.
pub struct Task {
    pub(super) pipeline: Arc<PipelineRuntime>,
    pub(super) log: Arc<dyn TaskLog>,
    pub(super) status: Arc<TaskStatus>,
    pub(super) waker: Waker,
    pub(super) readers: Vec<Reader>,
    /// Which reader is asked first, so that none waits for the others.
    pub(super) turn_of: usize,
    pub(super) machinery: Machinery,
    pub(super) effects: Effects,
    pub(super) arena: Bump,
    pub(super) uncommitted_since: Option<Instant>,
    pub(super) committing: Option<Committing>,
    /// Whether its positions are known: not where it could not read them after a failure.
    rewound: bool,
    /// Whether its stores have everything that their changelogs have.
    caught_up: bool,
    /// Until when it waits after a failure, and how long the next wait is.
    retry_at: Option<Instant>,
    retry_wait: Duration,
    pub(super) shed_at: Option<Instant>,
    /// When its stores have to be looked at.
    pub(super) tend_at: Option<Instant>,
    /// When its last record came: from then on an idle source's time is counted.
    pub(super) record_at: Instant,
    /// Records that it takes on at a time: fewer after a pass that took too long.
    pub(super) records_max: usize,
    /// Records of such a pass that are still to come: meanwhile it commits after each pass, so that the next one that
    /// takes too long does not undo those before it.
    pub(super) careful_records: usize,
    /// Making results of what is kept took too long, with no records to take on fewer of: until the next commit it takes
    /// the time that it needs.
    pub(super) patient: bool,
    /// Its share of [`PipelineRuntime::dirty_bytes`].
    pub(super) dirty_bytes: i64,
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
    /// A field has no place in a format, or a store cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A store cannot be brought up to its changelog.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Task {
    /// A task of these sources (indices in the plan), each with a partition of the same number.
    pub fn new(
        pipeline: Arc<PipelineRuntime>,
        log: Arc<dyn TaskLog>,
        status: Arc<TaskStatus>,
        waker: Waker,
        sources: &[(usize, TopicPartition)],
    ) -> Result<Task, TaskError> {
        let mut readers = Vec::with_capacity(sources.len());
        for (source, place) in sources.iter().cloned() {
            let wake = waker.clone();
            let watch = log.watch(&place, Arc::new(move || wake.wake()));
            readers.push(Reader {
                source,
                place,
                position: 0,
                committed: 0,
                _watch: watch,
            });
        }
        let partition = sources.first().map_or(0, |(_, place)| place.partition);
        let sources: Vec<usize> = sources.iter().map(|(source, _)| *source).collect();
        let machinery = pipeline.machinery(&sources, partition)?;
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
            caught_up: false,
            retry_at: None,
            retry_wait: RETRY_MIN,
            shed_at: None,
            tend_at: None,
            record_at: Instant::now(),
            records_max: usize::MAX,
            careful_records: 0,
            patient: false,
            dirty_bytes: 0,
        };
        task.rewind()?;
        Ok(task)
    }

    /// Goes back to the last commit, as soon as it is known where that is. Its stores may be behind, where an outcome is
    /// not known: they catch up before anything else.
    pub(super) fn rewind(&mut self) -> Result<(), TaskError> {
        self.effects.clear();
        self.uncommitted_since = None;
        self.rewound = false;
        self.caught_up = false;
        self.states().for_each(StageState::abort);
        let mut notes = Notes::default();
        for reader in &mut self.readers {
            let resume = self.log.resume(&reader.place).map_err(|source| reader.error(source))?;
            let Some(Resume { offset, metadata }) = resume else {
                return Ok(());
            };
            notes.read(&metadata);
            reader.position = offset;
            reader.committed = offset;
        }
        self.states().for_each(|state| state.restore(&notes));
        self.rewound = true;
        Ok(())
    }

    /// What the stages keep that it runs.
    pub(super) fn states(&mut self) -> impl Iterator<Item = &mut StageState> {
        self.machinery.state.iter_mut().flatten()
    }

    /// Brings the stores up to their changelogs, some of it a turn.
    fn catch_up(&mut self) -> Result<Next, TaskError> {
        let waker = self.waker.clone();
        let wake: Wake = Arc::new(move || waker.wake());
        for state in self.machinery.state.iter_mut().flatten() {
            let caught_up = state.catch_up(&wake)?;
            if caught_up != CaughtUp::Done {
                return Ok(match self.tend(Instant::now()) {
                    Some(why) => self.pause(&why),
                    None if caught_up == CaughtUp::Waits || self.is_over() => Next::Wait(self.tend_at),
                    None => Next::Ready,
                });
            }
        }
        self.caught_up = true;
        Ok(Next::Ready)
    }

    /// Goes back to the last commit and waits a while before it tries again.
    pub(super) fn retreat(&mut self, why: &str) -> Result<Next, TaskError> {
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
    pub(super) fn resume(&mut self) {
        self.retry_wait = RETRY_MIN;
        let mut paused = self.status.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.take().is_some() {
            tracing::info!(pipeline = self.pipeline.plan.name, "goes on after a pause");
        }
    }

    /// One turn; an error ends the task.
    fn step(&mut self) -> Result<Next, TaskError> {
        if let Some(next) = self.commit_outcome()? {
            return Ok(next);
        }
        let now = Instant::now();
        let stopping = self.status.stop.load(Ordering::Acquire);
        if let Some(at) = self.retry_at.filter(|&at| at > now && !stopping) {
            return Ok(Next::Wait(Some(at)));
        }
        self.retry_at = None;
        if stopping {
            let lost = self.status.lost.load(Ordering::Acquire);
            return Ok(if self.uncommitted_since.is_some() && !lost {
                self.commit()?
            } else {
                Next::Done
            });
        }
        if !self.rewound {
            self.rewind()?;
            if !self.rewound {
                return Ok(Next::Wait(None));
            }
        }
        if !self.caught_up {
            return self.catch_up();
        }
        if let Some(why) = self.tend(now) {
            return Ok(self.pause(&why));
        }
        if self.commit_due(now) {
            return self.commit();
        }
        if self.is_over() {
            return Ok(Next::Wait(self.tend_at));
        }
        if self.is_closing() {
            return self.close_windows();
        }
        if self.read()? {
            return Ok(Next::Ready);
        }
        if let Some(at) = self.retry_at {
            return Ok(Next::Wait(Some(at)));
        }
        self.end_of_sources(now)
    }

    fn commit_due(&self, now: Instant) -> bool {
        self.uncommitted_since.is_some_and(|since| {
            self.careful_records > 0
                || self.uncommitted_bytes() >= self.pipeline.commit_bytes_max
                || now.duration_since(since) >= self.pipeline.plan.commit_interval
        })
    }

    /// Nothing to read now: commit if it is time, else wait for more.
    fn end_of_sources(&mut self, now: Instant) -> Result<Next, TaskError> {
        let at_end = self.readers.iter().all(|reader| self.log.is_at_end(&reader.place));
        if let Some(since) = self.uncommitted_since {
            if at_end && self.status.draining.load(Ordering::Acquire) {
                return self.commit();
            }
            return Ok(Next::Wait(Some(since + self.pipeline.plan.commit_interval)));
        }
        if !at_end {
            return Ok(Next::Wait(None));
        }
        if let Some(stage) = self.status.closing.load(Ordering::Acquire).checked_sub(1) {
            if self.end_windows(stage)? {
                return Ok(Next::Ready);
            }
            self.status.closing.store(0, Ordering::Release);
        }
        let idle_at = self.pass_idle_time(now)?;
        if self.uncommitted_since.is_some() {
            return Ok(Next::Ready);
        }
        self.status.at_end.store(true, Ordering::Release);
        let shed_at = self.shed(now);
        let next = [idle_at, shed_at, self.tend_at].into_iter().flatten().min();
        Ok(Next::Wait(next))
    }

    /// After a while without records gives back the memory of unused instances; says when that is.
    fn shed(&mut self, now: Instant) -> Option<Instant> {
        if self.shed_at.is_some_and(|at| at <= now) {
            self.pipeline.shed_instances();
            self.arena = Bump::new();
            self.shed_at = None;
        }
        self.shed_at
    }

    /// Between turns the instances serve the pipeline's other tasks.
    pub(super) fn give_back_instances(&mut self) {
        for (stage, slot) in self.pipeline.stages.iter().zip(&mut self.machinery.instances) {
            if let Some(instance) = slot.take() {
                stage.give_back(instance);
            }
        }
    }
}

impl TaskError {
    /// Whether waiting may help.
    pub fn passes(&self) -> bool {
        match self {
            TaskError::Log { source, .. } => matches!(source, LogError::Unavailable { .. }),
            TaskError::Store(error) | TaskError::Start(StartError::Store(error)) => error.passes(),
            TaskError::Start(StartError::Format { .. }) => false,
        }
    }
}

impl Reader {
    pub(super) fn error(&self, source: LogError) -> TaskError {
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
