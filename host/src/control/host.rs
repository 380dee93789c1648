//! The host: a log, a guest runtime, workers, and the pipelines that run on them.

mod engine;
mod incarnation;
mod kafka;
mod purge;
mod running;
mod tasks;
mod topics;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::catalog::PluginCatalog;
use crate::connect::kafka::{ClusterError, ClusterSettings};
use crate::connect::{self, CommitError, EmbeddedLog, EmbeddedSources, LogError, OpenError};
use crate::guest::{self, GuestError, GuestSink, Runtime};
use crate::observe::{Allowance, GuestLog};
use crate::pipeline::{Engine, Plan, PlannedStage};
use crate::state::{Backend, LocalState, QueryError, ShapeError, StateOpenError};
use crate::task::{PipelineRuntime, Scheduler, StartError, TaskError};
use engine::{EngineHost, StagePlugin};
pub use kafka::Clusters;
use kafka::KafkaHost;
use running::Running;
use tasks::PipelineTasks;

/// How often somebody who waits for pipelines looks at them.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// The folder of the embedded log; made if it is not there.
    pub data_dir: PathBuf,
    /// The folder of compiled plugins; made if it is not there.
    pub cache_dir: PathBuf,
    /// The program that compiles plugins when it is called as `PROGRAM __compile IN OUT`: this one.
    pub compiler: PathBuf,
    /// Worker threads. The default is one a core.
    pub workers: usize,
    /// Settings of the log.
    pub log: connect::Options,
    /// Where pipelines on Kafka find their clusters, beyond what their files say.
    pub clusters: Clusters,
}

impl HostOptions {
    /// The defaults, for a data folder.
    ///
    /// # Errors
    /// Where the path of the running program cannot be told.
    pub fn new(data_dir: PathBuf) -> Result<HostOptions, HostError> {
        Ok(HostOptions {
            data_dir,
            cache_dir: cache_dir(),
            compiler: std::env::current_exe().map_err(HostError::Program)?,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            log: connect::Options::default(),
            clusters: Clusters::default(),
        })
    }

    /// The guest runtime that these options describe.
    ///
    /// # Errors
    /// Where the cache folder cannot be made.
    pub fn runtime(&self) -> Result<Arc<Runtime>, HostError> {
        Ok(Runtime::new(guest::Options::new(
            self.cache_dir.clone(),
            self.compiler.clone(),
        ))?)
    }
}

/// Where compiled plugins are kept: `MILLSTREAM_CACHE`, or `millstream` in the user's cache folder.
fn cache_dir() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("MILLSTREAM_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("millstream")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/millstream")))
        .unwrap_or_else(|| std::env::temp_dir().join("millstream-cache"))
}

/// Why a host, or a pipeline on it, does not start. Nothing runs then that did not run before.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum HostError {
    /// The data folder.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Open(#[from] OpenError),
    /// A cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Nobody says where the cluster of a pipeline is.
    #[error("pipeline {pipeline:?} runs on Kafka, and nothing says where its brokers are")]
    #[diagnostic(help("write `bootstrap = \"HOST:PORT\"` in its section `[kafka]`, or name them with --bootstrap"))]
    NoCluster {
        /// The pipeline's name.
        pipeline: String,
    },
    /// A topic is missing, and the file says that none are made.
    #[error("pipeline {pipeline:?} needs the topic {topic:?}, which is not there")]
    #[diagnostic(help(
        "make it with `millstream topics create`, or remove `create-topics = false` from the section `[kafka]`"
    ))]
    TopicMissing {
        /// The pipeline's name.
        pipeline: String,
        /// The topic.
        topic: String,
    },
    /// The guest runtime, or a plugin.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// A topic could not be made.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Topic(#[from] CommitError),
    /// A topic could not be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Log(#[from] LogError),
    /// The pipeline does not fit its formats.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A store has rows that this pipeline cannot read.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The local store.
    #[error(transparent)]
    #[diagnostic(transparent)]
    State(#[from] StateOpenError),
    /// The system gave no thread.
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
    /// A topic of the pipeline's own has another number of partitions than what it belongs to.
    #[error(
        "pipeline {pipeline:?}: its topic {topic:?} has {found} partitions, and now {wanted} are needed: state stays with \
         the number of partitions that it was made with; begin anew with `millstream reset {pipeline}`"
    )]
    InternalPartitions {
        /// The pipeline's name.
        pipeline: String,
        /// The topic.
        topic: String,
        /// Its partitions.
        found: u32,
        /// As many as are needed.
        wanted: u32,
    },
    /// What a stage has kept is gone.
    #[error(
        "the stage {stage:?} of pipeline {pipeline:?} has lost what it kept: its group goes on behind records that were \
         counted, and its changelog {topic:?} is not there; restore the data folder from a copy, or begin anew with \
         `millstream reset {pipeline}`"
    )]
    ChangelogGone {
        /// The pipeline's name.
        pipeline: String,
        /// The stage's name.
        stage: String,
        /// The changelog.
        topic: String,
    },
    /// A topic has the name of one of the pipeline's own.
    #[error(
        "pipeline {pipeline:?} keeps a topic {topic:?} for itself, and there is another one of this name: rename one"
    )]
    TopicTaken {
        /// The pipeline's name.
        pipeline: String,
        /// The topic.
        topic: String,
    },
    /// A store's rows of before could not be dropped.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Query(#[from] QueryError),
    /// What is noted beside the local store cannot be written.
    #[error("what the local store has cannot be noted: {0}; look at the data folder's disk and rights")]
    Note(std::io::Error),
    /// A task could not be made.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The path of the running program is not known.
    #[error("the path of the running program is not known: {0}")]
    Program(std::io::Error),
    /// Two pipelines of one name would share a consumer group.
    #[error("pipeline {0:?} runs already: give one of the two another `name`")]
    Twice(String),
    /// Sources that meet in a stage have different numbers of partitions.
    #[error(
        "pipeline {pipeline:?}: topics {first:?} ({first_partitions} partitions) and {second:?} ({second_partitions}) \
         meet in a stage, so they need the same number of partitions"
    )]
    Partitions {
        /// The pipeline's name.
        pipeline: String,
        /// One topic.
        first: String,
        /// Its partitions.
        first_partitions: u32,
        /// The other.
        second: String,
        /// Its partitions.
        second_partitions: u32,
    },
    /// What the check configured is not there.
    #[error("stage {stage:?} of pipeline {pipeline:?} was not checked by this host's catalog")]
    Unchecked {
        /// The pipeline's name.
        pipeline: String,
        /// The stage's name.
        stage: String,
    },
}

impl HostError {
    /// Whether waiting may help: it was a cluster that did not answer, or refused what it may grant later.
    pub fn passes(&self) -> bool {
        match self {
            HostError::Cluster(error) => matches!(error, ClusterError::Unavailable { .. }),
            HostError::Log(error) => matches!(error, LogError::Unavailable { .. }),
            HostError::Topic(error) => matches!(error, CommitError::Unavailable { .. } | CommitError::Unknown { .. }),
            _ => false,
        }
    }
}

/// How a pipeline is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineState {
    /// At work, or waiting for records.
    Running,
    /// All that was there is processed and committed.
    AtEnd,
    /// Waits for something that is wrong to pass.
    Paused(String),
    /// Ended by something that does not pass.
    Failed(String),
    /// Ended.
    Stopped,
}

/// A host with its pipelines. Dropping it stops them at once, uncommitted work undone; [`Host::stop`] commits.
pub struct Host {
    running: Vec<Running>,
    scheduler: Arc<Scheduler>,
    /// Those that run, or are about to.
    names: Arc<Mutex<Vec<String>>>,
    /// Opened with the first pipeline on it.
    embedded: Option<EmbeddedHost>,
    /// The same.
    clusters: BTreeMap<ClusterSettings, KafkaHost>,
    options: HostOptions,
    runtime: Arc<Runtime>,
}

/// The embedded log with what its pipelines keep.
struct EmbeddedHost {
    state: Arc<LocalState>,
    engine: EngineHost,
}

impl Host {
    /// Starts the workers and opens the data folder.
    ///
    /// # Errors
    /// Where the folder cannot be opened, or the runtime cannot be made.
    pub fn open(options: &HostOptions) -> Result<Host, HostError> {
        let mut host = Host::new(options)?;
        host.embedded()?;
        Ok(host)
    }

    /// Starts the workers; engines are opened with the first pipeline on them.
    ///
    /// # Errors
    /// Where the runtime cannot be made.
    pub fn new(options: &HostOptions) -> Result<Host, HostError> {
        Ok(Host {
            running: Vec::new(),
            scheduler: Arc::new(Scheduler::start(options.workers)),
            names: Arc::default(),
            embedded: None,
            clusters: BTreeMap::new(),
            options: options.clone(),
            runtime: options.runtime()?,
        })
    }

    /// Opens the data folder, for pipelines on the embedded log and for those who look at it beside them.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open_embedded(&mut self) -> Result<(), HostError> {
        self.embedded().map(drop)
    }

    /// Gives the log back, where it was opened; everything has stopped.
    pub fn close(&self) {
        if let Some(embedded) = &self.embedded {
            embedded.state.log().close();
        }
    }

    fn embedded(&mut self) -> Result<&EmbeddedHost, HostError> {
        let opened = match self.embedded.take() {
            Some(opened) => opened,
            None => {
                let log = EmbeddedLog::open(&self.options.data_dir, self.options.log.clone())?;
                let state = LocalState::beside(log.clone());
                let engine = EngineHost::new(Arc::new(log), state.folder().clone());
                EmbeddedHost { state, engine }
            }
        };
        Ok(self.embedded.insert(opened))
    }

    fn open_cluster(&mut self, settings: ClusterSettings) -> Result<&KafkaHost, HostError> {
        Ok(match self.clusters.entry(settings) {
            Entry::Occupied(opened) => opened.into_mut(),
            Entry::Vacant(place) => {
                let opened = KafkaHost::open(place.key(), &self.options.data_dir)?;
                place.insert(opened)
            }
        })
    }

    /// The log, for those who produce and consume beside the pipelines.
    ///
    /// # Panics
    /// Where the host was not made by [`Host::open`] and has no pipeline on it.
    pub fn log(&self) -> &Arc<EmbeddedLog> {
        self.state().log()
    }

    /// The local store, for those who look at it beside the pipelines.
    ///
    /// # Panics
    /// As [`Host::log`].
    pub fn state(&self) -> &Arc<LocalState> {
        &self.embedded.as_ref().expect("the data folder was opened").state
    }

    /// The names of the pipelines that run here or are about to, as they change.
    pub fn names(&self) -> &Arc<Mutex<Vec<String>>> {
        &self.names
    }

    /// Says that a pipeline will be started, so that nobody resets it meanwhile.
    pub fn announce(&self, name: &str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.iter().all(|known| known != name) {
            names.push(name.to_owned());
        }
    }

    /// What stages keep their state with, for those who read it; none before a pipeline that keeps some was started.
    pub fn kept_with(&self) -> Option<&Backend> {
        let embedded = self.embedded.iter().map(|embedded| &embedded.engine);
        let engines = embedded.chain(self.clusters.values().map(|cluster| &cluster.engine));
        engines.filter_map(EngineHost::backend_if_open).next()
    }

    /// The guest runtime.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Starts a pipeline that was checked against `catalog`: makes the topics that are missing, and a task for each
    /// partition.
    ///
    /// # Errors
    /// Nothing of the pipeline runs then; topics that were made stay.
    pub fn start(&mut self, plan: Plan, catalog: &PluginCatalog) -> Result<(), HostError> {
        if self.running.iter().any(|running| running.plan().group == plan.group) {
            return Err(HostError::Twice(plan.name));
        }
        self.announce(&plan.name);
        let configured = configured(&plan, catalog)?;
        let scheduler = self.scheduler.clone();
        if let Engine::Kafka(kafka) = &plan.engine {
            let kafka = kafka.clone();
            let settings = self.options.clusters.settings(&plan.name, &kafka)?;
            let started = self
                .open_cluster(settings)?
                .start(plan, &kafka, configured, scheduler)?;
            self.running.push(started);
            return Ok(());
        }
        let EmbeddedHost { state, engine } = self.embedded()?;
        let runtime = Arc::new(engine.prepare(plan, configured)?);
        let log = Arc::new(EmbeddedSources::new(state.log().clone(), &runtime.plan.group));
        let sources = runtime.plan.sources.iter();
        let mut all = Vec::new();
        for source in sources {
            all.extend(engine.places(source)?);
        }
        let tasks = PipelineTasks::new(runtime, log, scheduler);
        tasks.add(&all)?;
        self.running.push(Running::of_all(tasks));
        Ok(())
    }

    /// The pipelines, in the order in which they were started, with what they count.
    pub fn pipelines(&self) -> impl Iterator<Item = (&PipelineRuntime, PipelineState)> {
        self.running.iter().map(|running| (running.runtime(), running.state()))
    }

    /// Records that the sources of the pipelines have and that no commit of theirs counts yet.
    pub fn lag(&self) -> u64 {
        self.running.iter().map(Running::lag).sum()
    }

    /// Whether all pipelines have processed and committed all that there was, or have ended. What one of them writes
    /// is another's input: nothing may have moved while we looked.
    pub fn is_at_end(&self) -> bool {
        let Some(turns) = self.scheduler.idle_turns() else {
            return false;
        };
        let resting = |running: &Running| match running.state() {
            PipelineState::Running | PipelineState::Paused(_) => false,
            PipelineState::AtEnd => self.has_read_all(running),
            PipelineState::Failed(_) | PipelineState::Stopped => true,
        };
        self.running.iter().all(resting) && self.scheduler.idle_turns() == Some(turns)
    }

    /// Whether there is nothing in its sources that it has not heard of: brokers say it a while after it was written.
    fn has_read_all(&self, running: &Running) -> bool {
        let Engine::Kafka(kafka) = &running.plan().engine else {
            return true;
        };
        let settings = self.options.clusters.settings(&running.plan().name, kafka);
        let cluster = settings.ok().and_then(|settings| self.clusters.get(&settings));
        cluster.is_some_and(|cluster| running.has_read_all(&cluster.engine))
    }

    /// Says that nobody will add records: tasks commit as soon as they are at the end.
    pub fn drain(&self) {
        self.running.iter().for_each(Running::drain);
    }

    /// Closes all windows, as there will be no more records: stage by stage, in the order in which results flow. Returns
    /// `false` where `stop` said so, or a pipeline failed, before the end.
    pub fn close_windows(&self, stop: &dyn Fn() -> bool) -> bool {
        for running in &self.running {
            for stage in 0..running.plan().stages.len() {
                running.close_windows(stage);
                while !(running.has_closed() && self.is_at_end()) {
                    if stop() || matches!(running.state(), PipelineState::Failed(_)) {
                        return false;
                    }
                    std::thread::sleep(LOOK_INTERVAL);
                }
            }
        }
        true
    }

    /// Commits what is done and ends all pipelines. Returns whether all ended within `time_max`; those that did not
    /// are left as they are, as if the process had been killed: nothing committed is lost.
    pub fn stop(&mut self, time_max: Duration) -> bool {
        let end = Instant::now() + time_max;
        self.running.iter().for_each(Running::stop);
        while !self.running.iter().all(Running::is_over) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        if let Some(embedded) = &self.embedded {
            embedded.engine.close();
        }
        self.clusters.values().for_each(KafkaHost::close);
        true
    }
}

impl Drop for Host {
    /// Ends the passes that are under way: the workers are waited for.
    fn drop(&mut self) {
        self.running.iter().for_each(Running::stop);
    }
}

/// The plugins of a checked pipeline as their stages configure them, with where their log lines go.
fn configured(plan: &Plan, catalog: &PluginCatalog) -> Result<Vec<StagePlugin>, HostError> {
    let of_stage = |stage: &PlannedStage| {
        let found = catalog.configured(&stage.plugin, stage.config.json(), &stage.limits);
        let configured = found.ok_or_else(|| HostError::Unchecked {
            pipeline: plan.name.clone(),
            stage: stage.name.clone(),
        })?;
        let log: Arc<dyn GuestSink> = Arc::new(GuestLog {
            pipeline: plan.name.clone(),
            stage: stage.name.clone(),
            plugin: stage.info.name.clone(),
            version: stage.info.version.clone(),
            allowance: Allowance::new(stage.limits.log_lines_per_second_max),
        });
        Ok((configured, log))
    };
    plan.stages.iter().map(of_stage).collect()
}
