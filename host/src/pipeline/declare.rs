//! What a person declares: the pipeline file as types, each with the place of what later errors point at.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::format::Format;
use crate::limits::{COMMIT_BYTES_MAX, COMMIT_INTERVAL, StageLimits};
use crate::window::{Emit, Window};

use super::Spanned;
use super::config::Config;
use super::draft::{Draft, draft, read};
use super::kafka::KafkaEngine;
use super::pattern::TopicPattern;
use super::plan::StateLimits;
use super::problem::Report;
use super::variable::Environment;

/// A pipeline as its file declares it: sound in itself, but not yet held against its plugins.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// Also the consumer group.
    pub name: Spanned<String>,
    /// Where the topics are.
    pub engine: Engine,
    /// In the order of the file.
    pub sources: Vec<Source>,
    /// In the order of the file.
    pub stages: Vec<Stage>,
    /// Where records go that cannot be processed.
    pub dlq: Dlq,
    /// When what was done becomes true.
    pub commit: Commit,
    /// What state may take.
    pub state: StateLimits,
    pub(super) declared: Declared,
}

/// The file that a pipeline was read from. All are equal: where a pipeline stands does not change what it is.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub file: String,
    pub text: Arc<str>,
}

impl PartialEq for Declared {
    fn eq(&self, _: &Declared) -> bool {
        true
    }
}

/// Where topics are, and commits become true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// The log in the host's own data folder.
    #[default]
    Embedded,
    /// A cluster.
    Kafka(Box<KafkaEngine>),
}

impl Engine {
    /// The word for it in a pipeline file.
    pub const fn name(&self) -> &'static str {
        match self {
            Engine::Embedded => "embedded",
            Engine::Kafka(_) => "kafka",
        }
    }

    /// Where its brokers are, where the file says so.
    pub fn brokers(&self) -> Option<&str> {
        match self {
            Engine::Embedded => None,
            Engine::Kafka(kafka) => kafka.bootstrap.as_deref(),
        }
    }
}

/// A topic that is read, or several.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// What stages call it.
    pub name: Spanned<String>,
    /// The topic; the source's name if none is said.
    pub topic: Spanned<String>,
    /// Whose topics those are, where it reads several; `topic` is its text then.
    pub pattern: Option<TopicPattern>,
    /// How values are written.
    pub format: Spanned<Format>,
    /// How keys are written.
    pub key_format: Spanned<Format>,
    /// A JSON Pointer to the event time in the value; `None`: the record's timestamp.
    pub timestamp: Option<Spanned<String>>,
    /// A JSON Pointer to the key in the value; `None`: the record's key.
    pub key: Option<Spanned<String>>,
    /// How many partitions the topic gets if it has to be created.
    pub partitions: u32,
    /// A timestamp may be so far ahead of the time at which its record was appended.
    pub future_max: Duration,
    /// When nothing has come for so long, stream time moves with the clock; `None`: it stands still.
    pub idle: Option<Duration>,
}

/// A plugin and what it is connected to.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// What other stages call it.
    pub name: Spanned<String>,
    /// The component's file: relative to where the host runs, no longer to the pipeline file.
    pub plugin: Spanned<PathBuf>,
    /// What it reads.
    pub input: Spanned<StageInput>,
    /// The plugin's settings.
    pub config: Option<Spanned<Config>>,
    /// A JSON Pointer to the key in the value that its records are brought together by; `None`: the record's key.
    pub key: Option<Spanned<String>>,
    /// How many partitions the internal topic of a stage with a `key` gets.
    pub partitions: Option<Spanned<u32>>,
    /// How an aggregator's groups are divided by event time.
    pub window: Option<Spanned<Window>>,
    /// When an aggregator's results are sent; `None`: for each group that changed, once a commit.
    pub emit: Option<Spanned<Emit>>,
    /// Where its branches go, in the order of the file.
    pub to: Vec<(Spanned<String>, Spanned<Destination>)>,
    /// What an instance may take.
    pub limits: StageLimits,
    /// What the plugin is allowed beyond the contract.
    pub grants: Vec<Spanned<String>>,
    /// Whether something in its table was wrong, so that a branch that is not mapped says nothing.
    pub(super) doubtful: bool,
}

/// What feeds a stage: sources, and branches as "stage.branch".
#[derive(Clone, Debug, PartialEq)]
pub enum StageInput {
    /// For a plugin with one input.
    Only(Vec<Spanned<String>>),
    /// For a plugin with several, by the input's name.
    ByName(Vec<(Spanned<String>, Vec<Spanned<String>>)>),
}

/// Where a branch goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    /// To a topic.
    Topic(Sink),
    /// Nowhere, on purpose.
    Dropped,
}

/// A topic that is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// The topic.
    pub topic: Spanned<String>,
    /// How values are written; `None`: as the branch makes them.
    pub format: Option<Spanned<Format>>,
    /// How many partitions the topic gets if it has to be created; `None`: as many as the source has.
    pub partitions: Option<u32>,
}

/// Where records go that cannot be processed.
#[derive(Clone, Debug, PartialEq)]
pub struct Dlq {
    /// Its topic.
    pub topic: Spanned<String>,
    /// How many partitions it gets if it has to be created.
    pub partitions: u32,
}

/// When what was done becomes true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// How often.
    pub interval: Duration,
    /// How much waits for a commit at most.
    pub bytes_max: usize,
    /// What is promised.
    pub guarantee: Guarantee,
}

/// What is promised of records when hosts or brokers fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarantee {
    /// What comes of a record is there once.
    #[default]
    ExactlyOnce,
    /// It may be there again.
    AtLeastOnce,
}

impl Guarantee {
    /// The word for it in a pipeline file.
    pub const fn name(self) -> &'static str {
        match self {
            Guarantee::ExactlyOnce => "exactly-once",
            Guarantee::AtLeastOnce => "at-least-once",
        }
    }
}

impl Default for Commit {
    fn default() -> Commit {
        Commit {
            interval: COMMIT_INTERVAL,
            bytes_max: COMMIT_BYTES_MAX,
            guarantee: Guarantee::default(),
        }
    }
}

impl Source {
    /// Whether it reads this topic.
    pub fn reads(&self, topic: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.matches(topic),
            None => self.topic.value == topic,
        }
    }
}

impl Pipeline {
    /// Reads a pipeline file. Defaults: see the table in the [module's documentation](super).
    ///
    /// # Errors
    /// If the file cannot be read, and all that is wrong in it.
    pub fn load(file: &Path, environment: Environment<'_>) -> Result<Pipeline, Report> {
        Pipeline::parse(&read(file)?, file, environment)
    }

    /// The same for a text that is at hand; `file` says what plugins are relative to, and the pipeline's name if the
    /// text does not.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub fn parse(text: &str, file: &Path, environment: Environment<'_>) -> Result<Pipeline, Report> {
        let Draft {
            declared,
            pipeline,
            problems,
        } = draft(text, file, environment);
        match pipeline {
            Some(pipeline) if problems.is_empty() => Ok(pipeline),
            _ => Err(Report::new(declared.file, declared.text, problems)),
        }
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        &self.declared.file
    }
}
