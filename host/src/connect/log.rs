//! What a host and its tasks need of an engine, beyond what the commands need.

use super::{
    Broker, Commit, CommitError, Committed, EmbeddedLog, Fetched, LogError, Position, TopicPartition, TopicRole,
    TopicSpec,
};
use crate::state::Changelog;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A log that pipelines run on. All calls wait.
pub trait EngineLog: Broker {
    /// Makes a topic.
    ///
    /// # Errors
    /// As [`Broker::create_topic`].
    fn make_topic(&self, spec: &TopicSpec, settings: &TopicSettings) -> Result<(), CommitError>;

    /// Says anew what a topic is to the pipeline that made it.
    ///
    /// # Errors
    /// Where it is not there.
    fn set_topic_role(&self, name: &str, role: TopicRole) -> Result<(), CommitError>;

    /// Where a group goes on reading a partition, with what it noted beside it; `None` where it never committed.
    ///
    /// # Errors
    /// Where the log does not answer: then it is not known.
    fn committed_with_metadata(&self, group: &str, tp: &TopicPartition) -> Result<Option<(u64, String)>, LogError>;

    /// Drops the records before an offset of each of these, as their group has processed them. The embedded log does that
    /// by itself.
    ///
    /// # Errors
    /// Where some stay.
    fn drop_before(&self, places: &[(TopicPartition, u64)]) -> Result<(), LogError> {
        let _ = places;
        Ok(())
    }

    /// Which topic of this name it is: one that was deleted and made again is another. `None` where the log does not tell,
    /// or looks after it by itself.
    ///
    /// # Errors
    /// Where it is not there.
    fn incarnation(&self, name: &str) -> Result<Option<String>, LogError> {
        let _ = name;
        Ok(None)
    }

    /// The changelogs in it.
    fn changelogs(self: Arc<Self>) -> Arc<dyn Changelog>;
}

/// How a topic is made, beyond what pipelines need to know of it. The embedded log has no use for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSettings {
    /// How many brokers have a copy; `None`: as many as the brokers say.
    pub replication: Option<u16>,
    /// By Kafka's names.
    pub properties: BTreeMap<String, String>,
}

impl TopicSettings {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.replication.is_none() && self.properties.is_empty()
    }
}

/// Where a pipeline's group goes on reading a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The offset behind the last record that was processed; of a partition that was never read, of its first record.
    pub offset: u64,
    /// What the group noted beside it; empty for nothing.
    pub metadata: String,
}

/// Hears the outcome of a commit; must not wait.
pub type Done = Box<dyn FnOnce(Result<Committed, CommitError>) + Send>;

/// Lives as long as somebody wants to be told of news.
pub type Watch = Box<dyn Send>;

/// A pipeline's way to its sources and outputs, as its tasks see it. No call waits for longer than a disk takes.
pub trait TaskLog: Send + Sync {
    /// Where the pipeline's group goes on reading a partition; `None` where that was asked for and is not known yet: the
    /// watch of the partition tells when it is.
    ///
    /// # Errors
    /// Where the log does not say.
    fn resume(&self, place: &TopicPartition) -> Result<Option<Resume>, LogError>;

    /// Committed records from an offset on: about as many bytes as `bytes_max`, and a record at least where there is one.
    ///
    /// # Errors
    /// Where partition or offset are not there, and where what is stored is not what was written.
    fn fetch(&self, place: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError>;

    /// Whether all there is in a partition has been fetched. News come through its watch.
    fn is_at_end(&self, place: &TopicPartition) -> bool;

    /// Records of a partition that no commit of the group counts yet, as far as that is known.
    fn lag(&self, place: &TopicPartition) -> Option<u64>;

    /// Calls `notify` when there may be something to fetch or an answer, from any thread: it must not wait.
    fn watch(&self, place: &TopicPartition, notify: Arc<dyn Fn() + Send + Sync>) -> Watch;

    /// Hands over a commit.
    fn submit(&self, commit: Commit, done: Done);
}

/// Whoever runs the tasks of a pipeline hears which partitions are its to read. Its calls may wait.
pub trait Assignee: Send + Sync {
    /// These are its, beside what it has. Returns those that it reads; others stay unread.
    fn assigned(&self, places: &[TopicPartition]) -> Vec<TopicPartition>;

    /// These have to go: it commits what it did, unless they are `lost` to another already, and stops reading them.
    fn revoked(&self, places: &[TopicPartition], lost: bool);

    /// Whether it uses none of these any more.
    fn is_free_of(&self, places: &[TopicPartition]) -> bool;
}

impl EngineLog for Arc<EmbeddedLog> {
    fn make_topic(&self, spec: &TopicSpec, _settings: &TopicSettings) -> Result<(), CommitError> {
        self.create_topic(spec)
    }

    fn set_topic_role(&self, name: &str, role: TopicRole) -> Result<(), CommitError> {
        EmbeddedLog::set_topic_role(self, name, role)
    }

    fn committed_with_metadata(&self, group: &str, tp: &TopicPartition) -> Result<Option<(u64, String)>, LogError> {
        EmbeddedLog::committed_with_metadata(self, group, tp)
    }

    fn changelogs(self: Arc<Self>) -> Arc<dyn Changelog> {
        (*self).clone()
    }
}

/// The embedded log as the tasks of one pipeline see it.
pub struct EmbeddedSources {
    log: Arc<EmbeddedLog>,
    group: Arc<str>,
}

impl EmbeddedSources {
    /// For the pipeline of this group.
    pub fn new(log: Arc<EmbeddedLog>, group: &str) -> EmbeddedSources {
        EmbeddedSources {
            log,
            group: group.into(),
        }
    }
}

impl TaskLog for EmbeddedSources {
    fn resume(&self, place: &TopicPartition) -> Result<Option<Resume>, LogError> {
        let committed = self.log.committed_with_metadata(&self.group, place)?;
        let resume = match committed {
            Some((offset, metadata)) => Resume { offset, metadata },
            None => Resume {
                offset: self.log.offset_at(place, Position::Start)?,
                metadata: String::new(),
            },
        };
        Ok(Some(resume))
    }

    fn fetch(&self, place: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError> {
        EmbeddedLog::fetch(&self.log, place, from, bytes_max)
    }

    fn is_at_end(&self, _place: &TopicPartition) -> bool {
        // Where nothing is fetched there is nothing.
        true
    }

    fn lag(&self, place: &TopicPartition) -> Option<u64> {
        let end = self.log.next_offset(place).ok()?;
        let committed = EmbeddedLog::committed(&self.log, &self.group, place).ok()?;
        Some(end.saturating_sub(committed.unwrap_or(0)))
    }

    fn watch(&self, place: &TopicPartition, notify: Arc<dyn Fn() + Send + Sync>) -> Watch {
        Box::new(self.log.subscribe(place, notify))
    }

    fn submit(&self, commit: Commit, done: Done) {
        self.log.submit(commit, done);
    }
}
