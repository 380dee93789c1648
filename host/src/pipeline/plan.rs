//! What the task loop runs: names resolved to indices, defaults filled in, everything held against the plugins.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::Format;
use crate::limits::StageLimits;
use crate::schema::{Accumulator, Branch, Field, FieldType, Info, MappedField, Place, PluginKind, Signature};
use crate::state::TableForm;
use crate::window::{Emit, Window};

use super::config::Config;
use super::declare::{Engine, Guarantee};
use super::pattern::TopicPattern;

/// A pipeline that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it is called.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// Where the topics are.
    pub engine: Engine,
    /// In the order of the file; behind them those that repartitions make.
    pub sources: Vec<PlannedSource>,
    /// Records that are written to an internal topic by another key, and read from there.
    pub repartitions: Vec<Repartition>,
    /// Each behind all that feed it; where that leaves a choice, in the order of the file.
    pub stages: Vec<PlannedStage>,
    /// Where records go that cannot be processed: raw, as they were read.
    pub dlq: PlannedSink,
    /// How often a task commits.
    pub commit_interval: Duration,
    /// How many bytes of outputs wait for a commit at most.
    pub commit_bytes_max: usize,
    /// What is promised where the engine leaves a choice.
    pub guarantee: Guarantee,
    /// What state may take.
    pub state: StateLimits,
    /// Sources, by index, that meet in a stage and so are read by the same tasks. Each source is in one of them; both
    /// lists ascend.
    pub subtopologies: Vec<Vec<usize>>,
}

/// A topic that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSource {
    /// What the file calls it.
    pub name: String,
    /// The topic; of several the text of their pattern.
    pub topic: String,
    /// Whose topics those are, where it reads several.
    pub pattern: Option<TopicPattern>,
    /// How many partitions it gets if it has to be created.
    pub partitions: u32,
    /// How values are written.
    pub format: Format,
    /// How keys are written.
    pub key_format: Format,
    /// A JSON Pointer to the key in the value; `None`: the record's key.
    pub key_from: Option<String>,
    /// A JSON Pointer to the event time in the value; `None`: the record's timestamp.
    pub time_from: Option<String>,
    /// Index in [`Plan::repartitions`] of what writes it, where it is the pipeline's own topic.
    pub repartition: Option<usize>,
    /// A timestamp further ahead of the time at which its record was appended does not move stream time.
    pub future_max: Duration,
    /// When nothing has come for so long, stream time moves with the clock; `None`: it stands still.
    pub idle: Option<Duration>,
}

/// Records of one input of a stage with a key of its own, on their way through an internal topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repartition {
    /// Where the records come from; several where several things feed the input.
    pub from: Vec<RepartitionFeed>,
    /// A JSON Pointer to the new key in the value.
    pub key_from: String,
    /// Index in [`Plan::stages`] of the stage whose key it is.
    pub stage: usize,
    /// Index in its signature's inputs.
    pub input: u32,
    /// Index in [`Plan::sources`] of the source that reads the topic; it has the topic's name.
    pub source: usize,
    /// How many partitions the topic gets; `None`: see [`Plan::repartition_partitions`].
    pub partitions: Option<u32>,
}

/// What is written to the topic of a repartition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepartitionFeed {
    /// A source of the file, or a branch.
    pub from: Origin,
    /// How its values are written.
    pub value_format: Format,
}

/// What the state of a pipeline may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Rows in memory, of all its tasks together.
    pub memory_bytes_max: usize,
    /// The local store and what is not yet in it, of all its tasks together; `None`: as much as there is room for.
    pub quota_bytes_max: Option<u64>,
    /// How changes are written where others read them.
    pub changelog: TableForm,
}

impl Default for StateLimits {
    fn default() -> StateLimits {
        StateLimits {
            memory_bytes_max: crate::limits::STATE_MEMORY_BYTES_MAX,
            quota_bytes_max: None,
            changelog: TableForm::default(),
        }
    }
}

/// A plugin and what it is connected to.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStage {
    /// What the file calls it.
    pub name: String,
    /// The component's file.
    pub plugin: PathBuf,
    /// SHA-256 of that file when it was checked, in hexadecimal.
    pub digest: String,
    /// Who the plugin is.
    pub info: Info,
    /// Which interface it implements.
    pub kind: PluginKind,
    /// What it reads, writes and keeps.
    pub signature: Signature,
    /// What it is configured with.
    pub config: Config,
    /// What an instance may take.
    pub limits: StageLimits,
    /// A JSON Pointer to the key that its records meet by; `None`: the record's key. Its feeds are then sources that
    /// repartitions make.
    pub key: Option<String>,
    /// Of an aggregator: what is kept for a group.
    pub accumulator: Option<Accumulator>,
    /// Of an aggregator: the windows that its groups are divided into.
    pub window: Option<Window>,
    /// Of an aggregator: when results are sent.
    pub emit: Emit,
    /// Where records go that are too late for all of their windows, or too far ahead; dropped where it leads nowhere.
    /// `None` without a window.
    pub late: Option<PlannedBranch>,
    /// Where records go that have no key where one is needed; `None`: to the dead-letter queue.
    pub unkeyed: Option<PlannedBranch>,
    /// What feeds it; each input of the signature at least once.
    pub feeds: Vec<Feed>,
    /// Sources, by index, whose records reach it; ascending.
    pub sources: Vec<usize>,
    /// One for each branch of the signature.
    pub branches: Vec<PlannedBranch>,
}

/// Records that enter a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Index in the signature's inputs.
    pub input: u32,
    /// Where they come from.
    pub from: Origin,
    /// How their values are written.
    pub value_format: Format,
    /// How their keys are written.
    pub key_format: Format,
}

/// Where records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Index in [`Plan::sources`].
    Source(usize),
    /// A branch of an earlier stage.
    Branch {
        /// Index in [`Plan::stages`].
        stage: usize,
        /// Index in its branches.
        branch: usize,
    },
    /// What came too late for an earlier stage, as it came in: [`PlannedStage::late`].
    Late {
        /// Index in [`Plan::stages`].
        stage: usize,
    },
    /// What has no key where an earlier stage needs one, as it came in: [`PlannedStage::unkeyed`].
    Unkeyed {
        /// Index in [`Plan::stages`].
        stage: usize,
    },
}

impl Origin {
    /// The stage that it comes out of.
    pub const fn stage(self) -> Option<usize> {
        match self {
            Origin::Source(_) => None,
            Origin::Branch { stage, .. } | Origin::Late { stage } | Origin::Unkeyed { stage } => Some(stage),
        }
    }
}

impl PlannedSource {
    /// Whether it reads this topic.
    pub fn reads(&self, topic: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.matches(topic),
            None => self.topic == topic,
        }
    }
}

impl Plan {
    /// The repartitions that records of an origin are written to, by index.
    pub fn repartitions_of(&self, origin: Origin) -> impl Iterator<Item = usize> {
        let feeds = move |repartition: &Repartition| repartition.from.iter().any(|feed| feed.from == origin);
        let repartitions = self.repartitions.iter().enumerate();
        repartitions
            .filter(move |(_, repartition)| feeds(repartition))
            .map(|(index, _)| index)
    }

    /// What is promised on its engine.
    pub fn guarantee(&self) -> Guarantee {
        match self.engine {
            Engine::Embedded => Guarantee::ExactlyOnce,
            Engine::Kafka(_) => self.guarantee,
        }
    }

    /// The topics that it writes for others, the dead-letter queue last.
    pub fn written_topics(&self) -> impl Iterator<Item = &PlannedSink> {
        let ways = self.stages.iter().flat_map(PlannedStage::ways);
        ways.filter_map(|way| way.topic.as_ref()).chain([&self.dlq])
    }

    /// Whether a source is read by the same tasks as one of these.
    pub fn meets(&self, source: usize, others: &[usize]) -> bool {
        let together = self.subtopologies.iter().find(|all| all.contains(&source));
        together.is_some_and(|all| others.iter().any(|other| all.contains(other)))
    }

    /// How many partitions the topic of a repartition gets. Where the file does not say: as many as the sources of the
    /// file that it meets in a stage, or as another repartition that it meets there and of which the file says it;
    /// else as many as the largest of the file's sources. `partitions` tells how many a topic of these has.
    pub fn repartition_partitions(&self, index: usize, partitions: impl Fn(&PlannedSource) -> u32) -> u32 {
        let repartition = &self.repartitions[index];
        let said = |source: &usize| match self.sources[*source].repartition {
            None => Some(partitions(&self.sources[*source])),
            Some(other) => self.repartitions[other].partitions,
        };
        let meets = || {
            let together = self.subtopologies.iter().find(|all| all.contains(&repartition.source));
            together.into_iter().flatten().find_map(said)
        };
        let of_file = self.sources.iter().filter(|source| source.repartition.is_none());
        let largest = || of_file.map(&partitions).max().unwrap_or(1);
        repartition.partitions.or_else(meets).unwrap_or_else(largest)
    }
}

impl PlannedStage {
    /// All ways out of it: the branches, then what came too late and what has no key, where they lead elsewhere than
    /// to the dead-letter queue.
    pub fn ways(&self) -> impl Iterator<Item = &PlannedBranch> {
        self.branches.iter().chain(&self.late).chain(&self.unkeyed)
    }

    /// A branch of the signature as its values are written: with the bounds of the window behind its fields, where
    /// there is one.
    pub fn written_branch(&self, branch: &Branch) -> Branch {
        written_branch(branch, self.window.is_some())
    }
}

/// What the host adds to the results of windows: the bounds, as members of the value.
pub const WINDOW_BOUNDS: [&str; 2] = ["window_start", "window_end"];

pub(super) fn written_branch(branch: &Branch, windowed: bool) -> Branch {
    let bound = |name: &str| MappedField {
        field: Field {
            name: name.into(),
            field_type: FieldType::Time,
            optional: false,
        },
        place: Place::Value(format!("/{name}")),
    };
    let mut branch = branch.clone();
    if windowed {
        branch.fields.extend(WINDOW_BOUNDS.map(bound));
    }
    branch
}

/// Where the rows of a branch go; to nothing at all if the file drops it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBranch {
    /// How its values are written.
    pub value_format: Format,
    /// How its keys are written.
    pub key_format: Format,
    /// The topic that it is written to.
    pub topic: Option<PlannedSink>,
    /// The later stages that it feeds.
    pub stages: Vec<StageEntry>,
}

/// An input of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageEntry {
    /// Index in [`Plan::stages`].
    pub stage: usize,
    /// Index in its signature's inputs.
    pub input: u32,
    /// Index in its feeds.
    pub feed: usize,
}

/// A topic that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSink {
    /// The topic.
    pub topic: String,
    /// How many partitions it gets if it has to be created; `None`: as many as the largest of the stage's sources has
    /// when the pipeline starts.
    pub partitions: Option<u32>,
    /// How values are written.
    pub value_format: Format,
    /// How keys are written.
    pub key_format: Format,
}
