//! The tasks of one pipeline on this host: one for each partition that is its to read.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::connect::{Assignee, TaskLog, TopicPartition};
use crate::task::{Handle, PipelineRuntime, Scheduler, Task, TaskError, TaskStatus, Turn};

/// The tasks of a pipeline.
pub(super) struct PipelineTasks {
    pub runtime: Arc<PipelineRuntime>,
    pub log: Arc<dyn TaskLog>,
    scheduler: Arc<Scheduler>,
    held: Mutex<Held>,
    /// Nobody adds records: all tasks commit as soon as they are at the end.
    draining: AtomicBool,
    /// It takes no partitions any more.
    closed: AtomicBool,
}

/// How long the tasks of new partitions wait to be made again where that failed.
const AGAIN_TIME: Duration = Duration::from_millis(500);

/// What is this host's to read, and who reads it.
#[derive(Default)]
struct Held {
    places: BTreeSet<TopicPartition>,
    tasks: Vec<RunningTask>,
    /// Why partitions that are its stay unread.
    unread: Option<String>,
}

/// A task that runs, or has ended.
pub(super) struct RunningTask {
    places: Vec<TopicPartition>,
    pub handle: Handle,
    pub status: Arc<TaskStatus>,
}

impl PipelineTasks {
    /// Without any.
    pub fn new(runtime: Arc<PipelineRuntime>, log: Arc<dyn TaskLog>, scheduler: Arc<Scheduler>) -> Arc<PipelineTasks> {
        Arc::new(PipelineTasks {
            runtime,
            log,
            scheduler,
            held: Mutex::default(),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// Takes over partitions: starts the tasks all of whose sources are here now.
    ///
    /// # Errors
    /// Where a task could not be made: none of these partitions is read then.
    pub fn add(&self, places: &[TopicPartition]) -> Result<(), TaskError> {
        let mut held = self.held();
        held.places.extend(places.iter().cloned());
        let mut started = Vec::new();
        for sources in self.complete(&held) {
            match self.start(&sources) {
                Ok(task) => started.push(task),
                Err(error) => {
                    started.iter().for_each(RunningTask::abandon);
                    places.iter().for_each(|place| {
                        held.places.remove(place);
                    });
                    return Err(error);
                }
            }
        }
        held.tasks.extend(started);
        Ok(())
    }

    /// Lets go of partitions: their tasks commit, or where that is too late do not, and end.
    pub fn remove(&self, places: &[TopicPartition], lost: bool) {
        let mut held = self.held();
        for place in places {
            held.places.remove(place);
        }
        for task in held.tasks.iter().filter(|task| task.reads_any(places)) {
            if lost {
                task.abandon();
            } else {
                task.stop();
            }
        }
    }

    /// It takes no partitions any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Its tasks should commit as soon as they are at the end: nobody adds records.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.each(|task| {
            task.status.draining.store(true, Ordering::Release);
            task.handle.waker().wake();
        });
    }

    /// Why partitions that are its stay unread, where some do.
    pub fn unread(&self) -> Option<String> {
        self.held().unread.clone()
    }

    /// What is its to read.
    pub fn places(&self) -> Vec<TopicPartition> {
        self.held().places.iter().cloned().collect()
    }

    /// Of the pipeline's own topics, how far each partition that is its has been processed, as far as that is known.
    pub fn processed_of_own_topics(&self) -> Vec<(TopicPartition, u64)> {
        let sources = &self.runtime.plan.sources;
        let is_own = |place: &TopicPartition| {
            let mut own = sources.iter().filter(|source| source.repartition.is_some());
            own.any(|source| source.topic == *place.topic)
        };
        let offset = |place: TopicPartition| {
            let resume = self.log.resume(&place).ok()??;
            Some((place, resume.offset))
        };
        self.places().into_iter().filter(is_own).filter_map(offset).collect()
    }

    /// Whether no task reads any of these any more; those that have ended are forgotten.
    pub fn has_let_go_of(&self, places: &[TopicPartition]) -> bool {
        let mut held = self.held();
        held.tasks
            .retain(|task| !(task.reads_any(places) && task.handle.is_done()));
        !held.tasks.iter().any(|task| task.reads_any(places))
    }

    /// Looks at each of them.
    pub fn each<T>(&self, look: impl Fn(&RunningTask) -> T) -> Vec<T> {
        self.held().tasks.iter().map(look).collect()
    }

    /// Records that wait for a commit of these tasks, as far as that is known.
    pub fn lag(&self) -> u64 {
        let held = self.held();
        held.places.iter().filter_map(|place| self.log.lag(place)).sum()
    }

    /// Tasks that could run and do not, by their sources and what they read of them.
    fn complete(&self, held: &Held) -> Vec<Vec<(usize, TopicPartition)>> {
        let plan = &self.runtime.plan;
        let mut complete = Vec::new();
        for place in &held.places {
            let Some(source) = self.source_of(place) else {
                continue;
            };
            let together = plan
                .subtopologies
                .iter()
                .find(|sources| sources.first() == Some(&source));
            // The others of a task come with its first source.
            let Some((_, others)) = together.and_then(|sources| sources.split_first()) else {
                continue;
            };
            let other = |&source: &usize| {
                let topic = plan.sources[source].topic.as_str();
                (source, TopicPartition::new(topic, place.partition))
            };
            let sources: Vec<_> = std::iter::once((source, place.clone()))
                .chain(others.iter().map(other))
                .collect();
            let all_here =
                sources.iter().all(|(_, place)| held.places.contains(place)) && self.is_kept_for(source, place);
            if all_here && !held.tasks.iter().any(|task| task.places.contains(place)) {
                complete.push(sources);
            }
        }
        complete
    }

    /// Index of the source that reads a partition.
    fn source_of(&self, place: &TopicPartition) -> Option<usize> {
        let mut sources = self.runtime.plan.sources.iter();
        sources.position(|source| source.reads(&place.topic))
    }

    /// Whether a partition of a source can be processed: what its stages keep may have been made for fewer.
    fn is_kept_for(&self, source: usize, place: &TopicPartition) -> bool {
        let partitions_max = self.runtime.partitions_max(source);
        partitions_max.is_none_or(|partitions_max| place.partition < partitions_max)
    }

    /// Those of these that nobody can process, and why.
    fn beyond(&self, places: &[TopicPartition]) -> Option<(Vec<TopicPartition>, String)> {
        let is_beyond = |place: &&TopicPartition| {
            self.source_of(place)
                .is_some_and(|source| !self.is_kept_for(source, place))
        };
        let beyond: Vec<TopicPartition> = places.iter().filter(is_beyond).cloned().collect();
        let first = beyond.first()?;
        let kept = self
            .source_of(first)
            .and_then(|source| self.runtime.partitions_max(source));
        let why = format!(
            "{first} stays unread: what the stages keep that it feeds was made for {} partitions, and keys that moved to others \
             would begin anew; give the stages a `key`, so that their records meet in a topic of the pipeline's own, or begin \
             anew with `millstream reset {}`",
            kept.unwrap_or(0),
            self.runtime.plan.name
        );
        Some((beyond, why))
    }

    fn start(&self, sources: &[(usize, TopicPartition)]) -> Result<RunningTask, TaskError> {
        let status = Arc::new(TaskStatus::default());
        let draining = self.draining.load(Ordering::Acquire);
        status.draining.store(draining, Ordering::Release);
        let (runtime, log, held) = (self.runtime.clone(), self.log.clone(), status.clone());
        let handle = self.scheduler.try_spawn(|waker| {
            let task = Task::new(runtime, log, held, waker, sources)?;
            Ok::<_, TaskError>(Box::new(task) as Box<dyn Turn>)
        })?;
        Ok(RunningTask {
            places: sources.iter().map(|(_, place)| place.clone()).collect(),
            handle,
            status,
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Assignee for PipelineTasks {
    fn assigned(&self, places: &[TopicPartition]) -> Vec<TopicPartition> {
        loop {
            let Err(error) = self.add(places) else {
                let Some((beyond, why)) = self.beyond(&self.places()) else {
                    self.held().unread = None;
                    return places.to_vec();
                };
                if self.held().unread.replace(why.clone()).as_ref() != Some(&why) {
                    tracing::error!(pipeline = self.runtime.plan.name, "{why}");
                }
                return places.iter().filter(|place| !beyond.contains(place)).cloned().collect();
            };
            let passes = error.passes() && !self.closed.load(Ordering::Acquire);
            if self.held().unread.replace(error.to_string()).is_none() || !passes {
                tracing::error!(pipeline = self.runtime.plan.name, "partitions stay unread: {error}");
            }
            if !passes {
                return Vec::new();
            }
            std::thread::sleep(AGAIN_TIME);
        }
    }

    fn revoked(&self, places: &[TopicPartition], lost: bool) {
        self.remove(places, lost);
    }

    fn is_free_of(&self, places: &[TopicPartition]) -> bool {
        self.has_let_go_of(places)
    }
}

impl RunningTask {
    /// It should commit and end.
    pub fn stop(&self) {
        self.status.stop.store(true, Ordering::Release);
        self.handle.waker().wake();
    }

    /// It should end, and what it has not committed is as if it had never been.
    fn abandon(&self) {
        self.status.lost.store(true, Ordering::Release);
        self.stop();
    }

    fn reads_any(&self, places: &[TopicPartition]) -> bool {
        self.places.iter().any(|place| places.contains(place))
    }
}
