//! A pipeline made ready to run: what all its tasks share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::format::{Decoder, Encoder, FormatError, key_and_time_fields};
use crate::guest::{Configured, GuestError, GuestSink, Instance};
use crate::limits::DEAD_LETTER_LINES_PER_SECOND_MAX;
use crate::observe::Allowance;
use crate::pipeline::{Feed, Origin, Plan, StageEntry};
use crate::task::effects::Sink;
use crate::task::pass::Machinery;
use crate::task::stats::PipelineStats;

/// How long an instance may lie unused before its memory is given back.
pub(super) const INSTANCE_IDLE_MAX: Duration = Duration::from_secs(30);

/// A pipeline that can run: its plan, its configured plugins, its sinks, and what they share.
pub struct PipelineRuntime {
    /// What was checked.
    pub plan: Plan,
    /// What it counts.
    pub stats: PipelineStats,
    /// The topics that it writes, the dead-letter queue last.
    pub(super) sinks: Arc<[Sink]>,
    pub(super) stages: Vec<StageRuntime>,
    /// By source: where its records go.
    pub(super) source_targets: Vec<Vec<StageEntry>>,
    /// Of lines about single dead letters.
    pub(super) dead_letter_lines: Allowance,
    /// Bytes after which one task commits: the pipeline's share for each of its tasks.
    pub(super) commit_bytes_max: usize,
}

/// One stage: its plugin, how its branches are written and where they go.
pub(super) struct StageRuntime {
    pub name: String,
    pub configured: Configured,
    pub log: Arc<dyn GuestSink>,
    pub branches: Vec<BranchRuntime>,
    /// Instances that no task uses now, with the time since when.
    pool: Mutex<Vec<(Instance, Instant)>>,
}

/// One branch of a stage.
pub(super) struct BranchRuntime {
    /// By feed of the stage, as its format decides what a branch starts from. Empty where nobody reads the branch.
    pub encoders: Vec<Encoder>,
    /// Index of a sink.
    pub sink: Option<usize>,
    /// Its place among the writers of that sink.
    pub writer: u32,
    /// Where its rows go on.
    pub targets: Vec<StageEntry>,
}

/// Why a checked pipeline cannot run after all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A field has no place in a format.
    #[error("stage {stage:?}: {source}")]
    Format {
        /// The stage's name.
        stage: String,
        /// Which field, which format.
        source: FormatError,
    },
}

impl PipelineRuntime {
    /// Puts a plan together with its plugins. `partitions` tells how many partitions a topic has; all topics exist.
    ///
    /// # Errors
    /// A field that its format cannot serve; nothing has been started then.
    pub fn new(
        plan: Plan,
        configured: Vec<Configured>,
        logs: Vec<Arc<dyn GuestSink>>,
        partitions: impl Fn(&str) -> u32,
    ) -> Result<PipelineRuntime, StartError> {
        let mut sinks = Sinks::default();
        let mut stages = Vec::with_capacity(plan.stages.len());
        // How many calls of a stage one batch of a source may take: one for each way that leads there.
        let mut ways: Vec<u32> = Vec::with_capacity(plan.stages.len());
        for ((planned, configured), log) in plan.stages.iter().zip(configured).zip(logs) {
            let feeds = planned.feeds.iter().map(|feed| match feed.from {
                Origin::Source(_) => 1,
                Origin::Branch { stage, .. } | Origin::Late { stage } | Origin::Unkeyed { stage } => ways[stage],
            });
            let ways_here = feeds.fold(0, u32::saturating_add);
            ways.push(ways_here);
            let mut branches = Vec::with_capacity(planned.branches.len());
            for (branch, target) in planned.signature.branches.iter().zip(&planned.branches) {
                let (sink, writer) = match &target.topic {
                    Some(sink) => sinks.writer(&sink.topic, ways_here),
                    None => (None, 0),
                };
                let read = sink.is_some() || !target.stages.is_empty();
                let feeds = planned.feeds.iter().filter(|_| read);
                let encoders = feeds.map(|feed| {
                    let (value, key) = (&target.value_format, &target.key_format);
                    Encoder::new(branch, &feed.value_format, &feed.key_format, value, key)
                });
                let encoders = encoders
                    .collect::<Result<_, _>>()
                    .map_err(|source| StartError::Format {
                        stage: planned.name.clone(),
                        source,
                    })?;
                branches.push(BranchRuntime {
                    encoders,
                    sink,
                    writer,
                    targets: target.stages.clone(),
                });
            }
            stages.push(StageRuntime {
                name: planned.name.clone(),
                configured,
                log,
                branches,
                pool: Mutex::default(),
            });
        }
        let mut source_targets = vec![Vec::new(); plan.sources.len()];
        for (stage, planned) in plan.stages.iter().enumerate() {
            for (at, feed) in planned.feeds.iter().enumerate() {
                if let Origin::Source(source) = feed.from {
                    source_targets[source].push(StageEntry {
                        stage,
                        input: feed.input,
                        feed: at,
                    });
                }
            }
        }
        let sinks = sinks.finish(&plan.dlq.topic, &partitions);
        let tasks: u32 = plan
            .subtopologies
            .iter()
            .map(|sources| {
                sources
                    .iter()
                    .map(|&s| partitions(&plan.sources[s].topic))
                    .max()
                    .unwrap_or(0)
            })
            .sum();
        let commit_bytes_max = (plan.commit_bytes_max / tasks.max(1) as usize).max(crate::limits::BATCH_BYTES_MAX);
        let stats = PipelineStats::new(plan.stages.iter().map(|stage| stage.signature.branches.len()));
        Ok(PipelineRuntime {
            plan,
            stats,
            sinks,
            stages,
            source_targets,
            dead_letter_lines: Allowance::new(DEAD_LETTER_LINES_PER_SECOND_MAX),
            commit_bytes_max,
        })
    }

    /// What each task has of its own: decoders keep what they learned of the last rows.
    ///
    /// # Errors
    /// A field that its format cannot serve.
    pub(super) fn machinery(&self) -> Result<Machinery, FormatError> {
        let mut decoders = Vec::with_capacity(self.stages.len());
        for (planned, stage) in self.plan.stages.iter().zip(&self.stages) {
            let inputs = &stage.configured.signature().inputs;
            let decoder = |feed: &Feed| {
                Decoder::new(
                    &feed.value_format,
                    &feed.key_format,
                    &inputs[feed.input as usize].fields,
                )
            };
            decoders.push(planned.feeds.iter().map(decoder).collect::<Result<_, _>>()?);
        }
        let sources = self.plan.sources.iter().map(|source| {
            let fields = key_and_time_fields(&source.format, source.key_from.as_deref(), source.time_from.as_deref());
            let wanted = !fields.is_empty();
            wanted
                .then(|| Decoder::new(&source.format, &source.key_format, &fields))
                .transpose()
        });
        Ok(Machinery {
            decoders,
            sources: sources.collect::<Result<_, _>>()?,
            instances: self.stages.iter().map(|_| None).collect(),
        })
    }

    /// Index of the dead-letter queue among the sinks.
    pub(super) fn dlq(&self) -> usize {
        self.sinks.len() - 1
    }

    /// Gives back the memory of instances that nobody used for a while.
    pub(super) fn shed_instances(&self) {
        for stage in &self.stages {
            let mut pool = stage.pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.retain(|(_, since)| since.elapsed() < INSTANCE_IDLE_MAX);
        }
    }
}

impl StageRuntime {
    /// An instance for the time of a turn: one that lies ready, or a new one.
    pub fn instance(&self) -> Result<Instance, GuestError> {
        let ready = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match ready {
            Some((instance, _)) => Ok(instance),
            None => self.fresh_instance(),
        }
    }

    /// A new instance.
    pub fn fresh_instance(&self) -> Result<Instance, GuestError> {
        self.configured.instantiate(self.log.clone())
    }

    /// Takes an instance back, if it can be used again: not after a trap, and not when it has grown to where the
    /// next batch may meet the limit, as some languages' runtimes never give memory back.
    pub fn give_back(&self, instance: Instance) {
        let mark = self.configured.limits().memory_bytes_max / 4 * 3;
        if !instance.is_poisoned() && instance.memory_bytes() < mark {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.push((instance, Instant::now()));
        }
    }
}

/// Counts who writes what while the stages are put together.
#[derive(Default)]
struct Sinks {
    order: Vec<String>,
    writers: BTreeMap<String, (usize, u32)>,
}

impl Sinks {
    /// The sink's index, and the place among its writers of one that writes `times` for each batch.
    fn writer(&mut self, topic: &str, times: u32) -> (Option<usize>, u32) {
        let next = self.order.len();
        let (at, writers) = self.writers.entry(topic.to_owned()).or_insert((next, 0));
        if *at == next {
            self.order.push(topic.to_owned());
        }
        let place = *writers;
        *writers = writers.saturating_add(times);
        (Some(*at), place)
    }

    fn finish(mut self, dlq: &str, partitions: &impl Fn(&str) -> u32) -> Arc<[Sink]> {
        self.order.push(dlq.to_owned());
        self.order
            .iter()
            .map(|topic| Sink {
                topic: topic.as_str().into(),
                partitions: partitions(topic).max(1),
                // Every stage may write to the dead-letter queue.
                writers: self.writers.get(topic).map_or(u32::MAX, |(_, writers)| *writers),
            })
            .collect()
    }
}
