//! A pipeline made ready to run: what all its tasks share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::format::{Decoder, Encoder, Format, FormatError, key_and_time_fields};
use crate::guest::{Configured, GuestError, GuestSink, Instance};
use crate::limits::{DEAD_LETTER_LINES_PER_SECOND_MAX, StoreBounds};
use crate::observe::Allowance;
use crate::pipeline::{Feed, Origin, Plan, PlannedBranch, StageEntry};
use crate::schema::PluginKind;
use crate::state::{Backend, StoreError, StoreShape};
use crate::task::effects::Sink;
use crate::task::pass::Machinery;
use crate::task::state::StageState;
use crate::task::stats::PipelineStats;
use crate::window::Emit;

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
    pub(super) sources: Vec<Way>,
    /// What state is kept with; none where no stage keeps any.
    pub(super) backend: Option<Backend>,
    /// Bytes in memory that one store of one task may take.
    pub(super) store_memory_bytes_max: usize,
    /// Bytes of committed rows that are not in the local store, of all tasks.
    pub(super) dirty_bytes: AtomicI64,
    /// Of lines about single dead letters.
    pub(super) dead_letter_lines: Allowance,
    /// By source: how many partitions have state for what it feeds; `None` where nothing is kept.
    kept_partitions: Vec<Option<u32>>,
    /// Bytes after which one task commits: the pipeline's share for each of its tasks.
    pub(super) commit_bytes_max: usize,
}

/// What the stages of a pipeline keep.
pub struct Stores {
    /// By stage its stores.
    pub shapes: Vec<Vec<Arc<StoreShape>>>,
    /// By stage how many partitions have some; `None` where it keeps nothing.
    pub partitions: Vec<Option<u32>>,
}

/// One stage: its plugin, how its branches are written and where they go.
pub(super) struct StageRuntime {
    pub name: String,
    pub configured: Configured,
    pub log: Arc<dyn GuestSink>,
    pub branches: Vec<BranchRuntime>,
    /// Where records go that are late; nowhere without windows.
    pub late: Way,
    /// Where records without a key go; `None`: to the dead-letter queue.
    pub unkeyed: Option<Way>,
    /// Its stores, in the order of the signature; of an aggregator one for its groups.
    pub stores: Vec<Arc<StoreShape>>,
    /// Of an aggregator, when results are sent.
    pub aggregates: Option<Emit>,
    /// Instances that no task uses now, with the time since when.
    pool: Mutex<Vec<(Instance, Instant)>>,
}

/// One branch of a stage.
pub(super) struct BranchRuntime {
    /// By feed of the stage, as its format decides what a branch starts from; of an aggregator one. Empty where nobody
    /// reads the branch.
    pub encoders: Vec<Encoder>,
    /// Where its rows go.
    pub way: Way,
}

/// Where records go: to a topic, to other stages, to topics by another key, or nowhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Way {
    /// Index of a sink, and the place among the writers of that.
    pub sink: Option<(usize, u32)>,
    /// Stages of the same tasks.
    pub targets: Vec<StageEntry>,
    /// Index of a repartition, and the sink that it writes.
    pub repartitions: Vec<(usize, (usize, u32))>,
}

impl Way {
    /// Whether records that go there matter to anybody.
    fn is_read(&self) -> bool {
        self.sink.is_some() || !self.targets.is_empty() || !self.repartitions.is_empty()
    }
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
    /// A store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PipelineRuntime {
    /// Puts a plan together with its plugins. `partitions` tells how many partitions a topic has, or all of a pattern
    /// have together; all topics exist.
    ///
    /// # Errors
    /// A field that its format cannot serve; nothing has been started then.
    pub fn new(
        plan: Plan,
        configured: Vec<Configured>,
        logs: Vec<Arc<dyn GuestSink>>,
        stores: Stores,
        backend: Option<Backend>,
        partitions: impl Fn(&str) -> u32,
    ) -> Result<PipelineRuntime, StartError> {
        let Stores {
            shapes: stores,
            partitions: kept,
        } = stores;
        let kept_partitions = (0..plan.sources.len()).map(|source| {
            let stages = plan.stages.iter().zip(&kept);
            let fed = stages.filter(|(stage, _)| plan.meets(source, &stage.sources));
            fed.filter_map(|(_, partitions)| *partitions).min()
        });
        let kept_partitions = kept_partitions.collect();
        let mut sinks = Sinks::default();
        let mut stages = Vec::with_capacity(plan.stages.len());
        // How many calls of a stage one batch of a source may take: one for each way that leads there.
        let mut ways: Vec<u32> = Vec::with_capacity(plan.stages.len());
        for (at, (((planned, configured), log), stores)) in
            plan.stages.iter().zip(configured).zip(logs).zip(stores).enumerate()
        {
            let times = |origin: Origin| origin.stage().map_or(1, |stage| ways[stage]);
            let ways_here = planned
                .feeds
                .iter()
                .map(|feed| times(feed.from))
                .fold(0, u32::saturating_add);
            // What has no key is found where records are on their way to the stage.
            let own = plan.repartitions.iter().filter(|repartition| repartition.stage == at);
            let arriving = own
                .flat_map(|repartition| &repartition.from)
                .map(|feed| times(feed.from));
            let ways_arriving = arriving.fold(0, u32::saturating_add).max(ways_here);
            ways.push(ways_here);
            let aggregates = (planned.kind == PluginKind::Aggregator).then_some(planned.emit);
            let mut branches = Vec::with_capacity(planned.branches.len());
            for (index, (branch, target)) in planned.signature.branches.iter().zip(&planned.branches).enumerate() {
                let origin = Origin::Branch {
                    stage: at,
                    branch: index,
                };
                let way = sinks.way(&plan, origin, target, ways_here);
                let branch = planned.written_branch(branch);
                // Results are made of nothing but their fields.
                let feeds = if aggregates.is_some() {
                    &planned.feeds[..1]
                } else {
                    &planned.feeds[..]
                };
                let encoders = feeds.iter().filter(|_| way.is_read()).map(|feed| {
                    let (value, key) = (&target.value_format, &target.key_format);
                    Encoder::new(&branch, &feed.value_format, &feed.key_format, value, key)
                });
                let encoders = encoders
                    .collect::<Result<_, _>>()
                    .map_err(|source| StartError::Format {
                        stage: planned.name.clone(),
                        source,
                    })?;
                branches.push(BranchRuntime { encoders, way });
            }
            let late = planned.late.as_ref();
            let late = late.map(|target| sinks.way(&plan, Origin::Late { stage: at }, target, ways_here));
            let unkeyed = planned.unkeyed.as_ref();
            let unkeyed = unkeyed.map(|target| sinks.way(&plan, Origin::Unkeyed { stage: at }, target, ways_arriving));
            stages.push(StageRuntime {
                name: planned.name.clone(),
                configured,
                log,
                branches,
                late: late.unwrap_or_default(),
                unkeyed,
                stores,
                aggregates,
                pool: Mutex::default(),
            });
        }
        let mut sources = Vec::with_capacity(plan.sources.len());
        for source in 0..plan.sources.len() {
            let origin = Origin::Source(source);
            let mut way = Way {
                repartitions: sinks.repartitions(&plan, origin, 1),
                ..Way::default()
            };
            for (stage, planned) in plan.stages.iter().enumerate() {
                let feeds = planned.feeds.iter().enumerate().filter(|(_, feed)| feed.from == origin);
                way.targets.extend(feeds.map(|(at, feed)| StageEntry {
                    stage,
                    input: feed.input,
                    feed: at,
                }));
            }
            sources.push(way);
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
        let store_tasks = |(planned, stage): (&crate::pipeline::PlannedStage, &StageRuntime)| {
            let source = planned.sources.first().map(|&source| &plan.sources[source].topic);
            stage.stores.len() * source.map_or(0, |topic| partitions(topic)) as usize
        };
        let stores: usize = plan.stages.iter().zip(&stages).map(store_tasks).sum();
        let share = plan.state.memory_bytes_max / stores.max(1);
        let store_memory_bytes_max = share.max(StoreBounds::get().memory_bytes_min);
        let commit_bytes_max = (plan.commit_bytes_max / tasks.max(1) as usize).max(crate::limits::BATCH_BYTES_MAX);
        let stats = PipelineStats::new(plan.stages.iter().map(|stage| stage.signature.branches.len()));
        Ok(PipelineRuntime {
            plan,
            stats,
            sinks,
            stages,
            sources,
            backend,
            store_memory_bytes_max,
            kept_partitions,
            dirty_bytes: AtomicI64::new(0),
            dead_letter_lines: Allowance::new(DEAD_LETTER_LINES_PER_SECOND_MAX),
            commit_bytes_max,
        })
    }

    /// What the task of some sources and a partition has of its own: decoders keep what they learned of the last rows.
    ///
    /// # Errors
    /// A field that its format cannot serve, and a store that cannot be opened.
    pub(super) fn machinery(&self, of_task: &[usize], partition: u32) -> Result<Machinery, StartError> {
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
            let decoders_of_stage = planned.feeds.iter().map(decoder).collect::<Result<_, _>>();
            decoders.push(decoders_of_stage.map_err(|source| StartError::Format {
                stage: planned.name.clone(),
                source,
            })?);
        }
        let mut state = Vec::with_capacity(self.stages.len());
        for (planned, stage) in self.plan.stages.iter().zip(&self.stages) {
            let here = planned.sources.iter().any(|source| of_task.contains(source));
            let backend = self.backend.as_ref().filter(|_| here && !stage.stores.is_empty());
            let open = |backend| StageState::open(planned, &stage.stores, partition, backend);
            state.push(backend.map(open).transpose()?);
        }
        let key_decoder = |key: &str, format: &Format, name: &str| {
            let fields = key_and_time_fields(format, Some(key), None);
            Decoder::new(format, &Format::Raw, &fields).map_err(|source| StartError::Format {
                stage: name.to_owned(),
                source,
            })
        };
        let repartitions = self.plan.repartitions.iter().map(|repartition| {
            let format = &self.plan.sources[repartition.source].format;
            key_decoder(&repartition.key_from, format, &self.plan.stages[repartition.stage].name)
        });
        let repartitions = repartitions.collect::<Result<_, _>>()?;
        let sources = self.plan.sources.iter().map(|source| {
            let fields = key_and_time_fields(&source.format, source.key_from.as_deref(), source.time_from.as_deref());
            let wanted = !fields.is_empty();
            let decoder = wanted.then(|| Decoder::new(&source.format, &source.key_format, &fields));
            decoder.transpose().map_err(|error| StartError::Format {
                stage: source.name.clone(),
                source: error,
            })
        });
        Ok(Machinery {
            decoders,
            sources: sources.collect::<Result<_, _>>()?,
            repartitions,
            state,
            instances: self.stages.iter().map(|_| None).collect(),
        })
    }

    /// How many partitions of a source can be processed; `None`: all. Where what it feeds keeps something, that was made
    /// for so many.
    pub fn partitions_max(&self, source: usize) -> Option<u32> {
        self.kept_partitions[source]
    }

    /// Index of the dead-letter queue among the sinks.
    pub(super) fn dlq(&self) -> usize {
        self.sinks.len() - 1
    }

    /// Whether its state takes more than it may, and what is to be said then.
    pub(super) fn over_quota(&self) -> Option<String> {
        let quota = self.plan.state.quota_bytes_max?;
        let changelogs = self
            .stages
            .iter()
            .flat_map(|stage| &stage.stores)
            .map(|shape| &*shape.changelog);
        let stored = self.backend.as_ref()?.db.bytes(changelogs).ok()?;
        let dirty = u64::try_from(self.dirty_bytes.load(Ordering::Relaxed)).unwrap_or(0);
        let bytes = stored + dirty;
        (bytes > quota).then(|| {
            format!(
                "the state of the pipeline has {bytes} bytes, and its quota is {quota}: raise `quota` in `[state]` and start \
                 it again, or reset it; nothing is lost"
            )
        })
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
    /// Where the records of an origin go that come `times` a batch.
    fn way(&mut self, plan: &Plan, origin: Origin, target: &PlannedBranch, times: u32) -> Way {
        Way {
            sink: target.topic.as_ref().map(|sink| self.writer(&sink.topic, times)),
            targets: target.stages.clone(),
            repartitions: self.repartitions(plan, origin, times),
        }
    }

    fn repartitions(&mut self, plan: &Plan, origin: Origin, times: u32) -> Vec<(usize, (usize, u32))> {
        let repartitions = plan.repartitions_of(origin).map(|index| {
            let topic = &plan.sources[plan.repartitions[index].source].topic;
            (index, self.writer(topic, times))
        });
        repartitions.collect()
    }

    /// The sink's index, and the place among its writers of one that writes `times` for each batch.
    fn writer(&mut self, topic: &str, times: u32) -> (usize, u32) {
        let next = self.order.len();
        let (at, writers) = self.writers.entry(topic.to_owned()).or_insert((next, 0));
        if *at == next {
            self.order.push(topic.to_owned());
        }
        let place = *writers;
        *writers = writers.saturating_add(times);
        (*at, place)
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
