//! Where records come from and where they become true: topics, partitions, groups, commits.
//!
//! These are the notions that a task and the commands need of any engine. [`embedded`] is the one that lives in a
//! folder, in this process; [`socket`] reaches it from another process; Kafka stands behind the same notions.
//!
//! A commit is the only place where anything becomes true: all its appends and offsets, or nothing.

pub(crate) mod block;
mod broker;
pub mod embedded;
pub mod kafka;
mod log;
mod membership;
mod partitioner;
pub mod socket;

pub use block::{
    BLOCK_HEAD_BYTES, BLOCK_VERSION, Block, BlockBuilder, BlockError, Fetched, FetchedBuilder, LentRecord,
    RecordTooLarge,
};
pub use broker::{Broker, OpenBroker, open_broker, open_cluster};
pub use embedded::{EmbeddedLog, OpenError, Options};
pub use log::{Assignee, Done, EmbeddedSources, EngineLog, Resume, TaskLog, TopicSettings, Watch};
pub use membership::{Assignment, Fence};
pub use partitioner::{Partitioner, murmur2, partition_of};
pub use socket::{ServeError, Server, serve, serve_host};

use crate::limits::{GROUP_NAME_BYTES_MAX, OFFSET_METADATA_BYTES_MAX, PARTITIONS_MAX, TOPIC_NAME_BYTES_MAX};
use crate::schema::Field;
use crate::state::TableCodec;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// A topic that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// 1 to 249 of `a-z A-Z 0-9 . _ -`, as Kafka has it.
    pub name: String,
    /// 1 to [`PARTITIONS_MAX`].
    pub partitions: u32,
    /// Records are dropped some time after this, counted from when they were appended; for ever without it.
    #[serde(default)]
    pub retention_ms: Option<u64>,
    /// The oldest records are dropped so long as at least this much stays, of all partitions; all without it.
    #[serde(default)]
    pub retention_bytes: Option<u64>,
    /// What it is to a pipeline that made it for itself; none for everybody's topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Arc<TopicRole>>,
}

/// What a topic is that a pipeline made for itself. What the pipeline's group has read of it is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopicRole {
    /// Records on their way to a stage that has a key of its own.
    Repartition {
        /// The pipeline's name.
        pipeline: String,
        /// The stage's.
        stage: String,
    },
    /// The changes of a store, one partition for each task. The group's offset says how far the local store holds them.
    Changelog {
        /// The pipeline's name.
        pipeline: String,
        /// The stage's.
        stage: String,
        /// The store's; none for an aggregator's groups.
        store: Option<String>,
        /// The fields of its rows, by schema number: the last is what is written.
        schemas: Vec<StoreSchema>,
    },
}

impl TopicRole {
    /// The pipeline that made the topic.
    pub fn pipeline(&self) -> &str {
        match self {
            TopicRole::Repartition { pipeline, .. } | TopicRole::Changelog { pipeline, .. } => pipeline,
        }
    }
}

/// The fields of a store's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSchema {
    /// Of the key; none for an aggregator's groups, whose key is the record's.
    pub key: Vec<Field>,
    /// Of the value.
    pub value: Vec<Field>,
    /// Whether keys begin with the start of a window, and how long those are, in milliseconds.
    pub window_size_ms: Option<i64>,
    /// A JSON Pointer to the key that its stage's records meet by; none for the records' own key.
    #[serde(default)]
    pub by: Option<String>,
    /// How long after its end a window is still open, by stream time, in milliseconds.
    #[serde(default)]
    pub window_grace_ms: i64,
    /// 0 keeps rows for ever.
    pub time_to_live_ms: u64,
}

impl TopicSpec {
    /// A topic that keeps everything.
    pub fn new(name: impl Into<String>, partitions: u32) -> Self {
        TopicSpec {
            name: name.into(),
            partitions,
            retention_ms: None,
            retention_bytes: None,
            role: None,
        }
    }

    /// Whether name and numbers are in their bounds.
    ///
    /// # Errors
    /// [`LogError::InvalidTopic`] with the reason.
    pub fn check(&self) -> Result<(), LogError> {
        let invalid = |reason: String| {
            Err(LogError::InvalidTopic {
                topic: self.name.clone(),
                reason,
            })
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if self.name.is_empty() || self.name.len() > TOPIC_NAME_BYTES_MAX {
            return invalid(format!("a name has 1 to {TOPIC_NAME_BYTES_MAX} characters"));
        }
        if !self.name.bytes().all(legal) || self.name == "." || self.name == ".." {
            return invalid("a name consists of a-z, A-Z, 0-9, '.', '_' and '-'".into());
        }
        if self.partitions == 0 || self.partitions > PARTITIONS_MAX {
            return invalid(format!(
                "a topic has 1 to {PARTITIONS_MAX} partitions, not {}",
                self.partitions
            ));
        }
        if self.retention_ms == Some(0) || self.retention_bytes == Some(0) {
            return invalid("a retention of 0 keeps nothing: leave it out to keep everything".into());
        }
        Ok(())
    }
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// From 0.
    pub partition: u32,
}

impl TopicPartition {
    /// Of these two.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        TopicPartition {
            topic: topic.into(),
            partition,
        }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// What becomes true together, or not at all. State joins as a further part.
#[derive(Debug, Default)]
pub struct Commit {
    /// Records for the ends of partitions, in this order where a partition repeats.
    pub appends: Vec<Append>,
    /// Where groups go on reading.
    pub offsets: Vec<GroupOffset>,
    /// Which of the appends are changes of stores: an engine whose topics others read writes those as tables.
    pub tables: Vec<TableAppend>,
    /// Who commits the offsets, where that is a member of a group: refused if it does not hold the partitions any more.
    pub fence: Option<Fence>,
}

impl Commit {
    /// Whether it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.appends.iter().all(|append| append.blocks.is_empty()) && self.offsets.is_empty()
    }

    /// Bytes of its records.
    pub fn bytes(&self) -> usize {
        self.appends.iter().map(|append| append.blocks.bytes()).sum()
    }
}

/// An append that holds the changes of a store.
#[derive(Clone, Debug)]
pub struct TableAppend {
    /// Its place among the appends.
    pub append: usize,
    /// Makes records of the changes.
    pub codec: Arc<TableCodec>,
    /// The store has everything that was committed to the partition before this offset, and nothing else comes between that
    /// and these changes.
    pub from: u64,
}

/// Records for the end of one partition.
#[derive(Debug)]
pub struct Append {
    /// The topic's name.
    pub topic: Arc<str>,
    /// From 0.
    pub partition: u32,
    /// The records.
    pub blocks: BlockBuilder,
}

/// Where a group goes on reading a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOffset {
    /// The group's name.
    pub group: Arc<str>,
    /// The topic's name.
    pub topic: Arc<str>,
    /// From 0.
    pub partition: u32,
    /// The offset behind the last record that was processed.
    pub next_offset: u64,
    /// What the group notes beside it, as text; empty for nothing. At most [`OFFSET_METADATA_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

/// A commit that became true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// For each append, the offset of its first record (for an empty one: of the next).
    pub base_offsets: Vec<u64>,
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// The first record that is still there.
    Start,
    /// Behind the last record.
    End,
    /// This offset, moved into the partition where it lies before or behind it.
    Offset(u64),
    /// The first record whose timestamp is this or later (milliseconds since the epoch); the end where there is none.
    Timestamp(i64),
}

/// A topic as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDescription {
    /// Name, number of partitions and retention.
    #[serde(flatten)]
    pub spec: TopicSpec,
    /// When it was made, in milliseconds since the epoch, where that is known.
    pub created_ms: Option<i64>,
    /// How a cluster keeps it.
    #[serde(default, skip_serializing_if = "TopicSettings::is_empty")]
    pub settings: TopicSettings,
    /// By partition.
    pub partition_ranges: Vec<PartitionDescription>,
}

/// A partition as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionDescription {
    /// The first record that is still there.
    pub first_offset: u64,
    /// Behind the last record.
    pub next_offset: u64,
    /// Bytes of its blocks, where they are known.
    pub bytes: Option<u64>,
}

/// A consumer group as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Members that are alive.
    pub members: Vec<String>,
    /// Partitions of which it has an offset.
    pub partitions: Vec<GroupPartition>,
}

/// How far a group has read a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPartition {
    /// The topic's name.
    pub topic: String,
    /// From 0.
    pub partition: u32,
    /// Where it goes on reading.
    pub committed_offset: u64,
    /// When that was committed, in milliseconds since the epoch, where that is known.
    pub committed_ms: Option<i64>,
    /// What the group noted beside it; empty for nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The end of the partition.
    pub next_offset: u64,
    /// Records that are there and not yet read.
    pub lag: u64,
    /// The member that holds the partition.
    pub member: Option<String>,
}

/// Why a log did not do what it was asked for; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic, Serialize, Deserialize)]
#[serde(tag = "error", rename_all = "kebab-case")]
pub enum LogError {
    /// No such topic.
    #[error("there is no topic {topic:?}; make it with `millstream topics create {topic}`")]
    UnknownTopic {
        /// As asked for.
        topic: String,
    },
    /// No such partition.
    #[error("topic {topic:?} has no partition {partition}; it has {partitions}, counted from 0")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// As asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A topic of this name is there.
    #[error("there is already a topic {topic:?}")]
    TopicExists {
        /// Its name.
        topic: String,
    },
    /// A topic cannot be made so.
    #[error("topic {topic:?} cannot be made: {reason}")]
    InvalidTopic {
        /// Its name.
        topic: String,
        /// What is wrong.
        reason: String,
    },
    /// No such group.
    #[error("there is no consumer group {group:?}")]
    UnknownGroup {
        /// As asked for.
        group: String,
    },
    /// A group cannot be called so.
    #[error("{group:?} is no name of a group: 1 to {GROUP_NAME_BYTES_MAX} bytes without control characters")]
    InvalidGroup {
        /// As asked for.
        group: String,
    },
    /// The offset is not in the partition: retention dropped it, or it lies behind the end.
    #[error("offset {offset} of {topic}[{partition}] is not there: the partition goes from {first} to {next}")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// As asked for.
        offset: u64,
        /// The first that is there.
        first: u64,
        /// Behind the last.
        next: u64,
    },
    /// Stored bytes are not what was written.
    #[error(
        "{topic}[{partition}] is damaged at offset {offset}: {detail}; restore the data folder from a copy, or read on from {resume}"
    )]
    Damaged {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The first record that cannot be read.
        offset: u64,
        /// The next that can, as far as is known.
        resume: u64,
        /// What was found.
        detail: String,
    },
    /// A record in a topic that only hosts write to, that none wrote.
    #[error(
        "{topic}[{partition}] has a record at offset {offset} that no host wrote: {detail}; take away the right to write to \
         the topic from others, and begin anew with `millstream reset`"
    )]
    Foreign {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Of the record.
        offset: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// A commit of more than the log takes at once.
    #[error("a commit of {bytes} bytes is larger than {bytes_max}: commit it in parts")]
    CommitTooLarge {
        /// Of its records.
        bytes: u64,
        /// The most.
        bytes_max: u64,
    },
    /// A note beside an offset that is longer than a log takes.
    #[error(
        "group {group:?} notes {bytes} bytes beside its offset of {topic}[{partition}], more than {OFFSET_METADATA_BYTES_MAX}: note less"
    )]
    MetadataTooLarge {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// As committed.
        bytes: usize,
    },
    /// A member commits what it does not hold (any more).
    #[error(
        "{member} of group {group:?} (generation {generation}) does not hold {topic}[{partition}] any more: poll, and go on with what is assigned then"
    )]
    Fenced {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// What it believed in.
        generation: u64,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// A member that never joined, left, or was not heard of for too long.
    #[error("group {group:?} has no member {member} (any more): join again")]
    UnknownMember {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// A group cannot be changed while members are alive.
    #[error("group {group:?} has {members} live members: stop them first")]
    GroupInUse {
        /// The group.
        group: String,
        /// How many.
        members: usize,
    },
    /// The storage or the cluster does not answer, or not so; it is tried again by itself.
    #[error("{detail}")]
    Unavailable {
        /// Who does not answer, and what was said.
        detail: String,
    },
    /// The host that holds the folder does not answer as it should.
    #[error("the host that holds the data folder: {detail}")]
    Holder {
        /// What happened.
        detail: String,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Why a commit did not become true, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic, Serialize, Deserialize)]
#[serde(tag = "commit_error", rename_all = "kebab-case")]
pub enum CommitError {
    /// Nothing was written. The same commit succeeds as soon as there is room.
    #[error("the disk of {} is full: {free_bytes} bytes are free, {needed_bytes} are needed; make room, it goes on by itself", folder.display())]
    DiskFull {
        /// The data folder.
        folder: PathBuf,
        /// For this user.
        free_bytes: u64,
        /// Of the commit, with the reserve.
        needed_bytes: u64,
    },
    /// The commit failed half-way: read the groups' offsets again and go on from them.
    #[error("whether the commit became true is not known: {detail}; read the committed offsets again")]
    Unknown {
        /// What happened.
        detail: String,
    },
    /// Nothing was written, as far as the engine tells; it is tried again by the next commit.
    #[error("{detail}")]
    Unavailable {
        /// Who did not take it, and what was said.
        detail: String,
    },
    /// Nothing was written, and the same commit is never taken.
    #[error(transparent)]
    Refused {
        /// The reason.
        refusal: LogError,
    },
    /// Nothing was written: the log was closed.
    #[error("the log is closed")]
    Closed,
}

impl From<LogError> for CommitError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable { detail } => CommitError::Unavailable { detail },
            LogError::Closed => CommitError::Closed,
            refusal => CommitError::Refused { refusal },
        }
    }
}

impl GroupOffset {
    /// Holds the note beside it against its bound.
    pub(crate) fn check_metadata(&self) -> Result<(), LogError> {
        if self.metadata.len() <= OFFSET_METADATA_BYTES_MAX {
            return Ok(());
        }
        Err(LogError::MetadataTooLarge {
            group: self.group.to_string(),
            topic: self.topic.to_string(),
            partition: self.partition,
            bytes: self.metadata.len(),
        })
    }
}

pub(crate) fn check_group(group: &str) -> Result<(), LogError> {
    if group.is_empty() || group.len() > GROUP_NAME_BYTES_MAX || group.chars().any(char::is_control) {
        return Err(LogError::InvalidGroup { group: group.into() });
    }
    Ok(())
}
