//! What the task loop runs: names resolved to indices, defaults filled in, everything held against the plugins.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::Format;
use crate::limits::StageLimits;
use crate::schema::{Info, PluginKind, Signature};

use super::config::Config;
use super::declare::Engine;

/// A pipeline that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it is called.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// Where the topics are.
    pub engine: Engine,
    /// In the order of the file.
    pub sources: Vec<PlannedSource>,
    /// Each behind all that feed it; where that leaves a choice, in the order of the file.
    pub stages: Vec<PlannedStage>,
    /// Where records go that cannot be processed: raw, as they were read.
    pub dlq: PlannedSink,
    /// How often a task commits.
    pub commit_interval: Duration,
    /// How many bytes of outputs wait for a commit at most.
    pub commit_bytes_max: usize,
    /// Sources, by index, that meet in a stage and so are read by the same tasks. Each source is in one of them; both
    /// lists ascend.
    pub subtopologies: Vec<Vec<usize>>,
}

/// A topic that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSource {
    /// What the file calls it.
    pub name: String,
    /// The topic.
    pub topic: String,
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
