//! A cluster, as commands and hosts ask it.
use super::ClusterSettings;
use crate::connect::*;
use crate::state::Changelog;
use std::sync::Arc;
use std::time::Duration;

/// A cluster.
pub struct KafkaLog {
    settings: ClusterSettings,
}
#[allow(missing_docs)]
impl KafkaLog {
    /// How it is reached.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }
    pub fn open(settings: ClusterSettings) -> Result<Arc<KafkaLog>, LogError> {
        Ok(Arc::new(KafkaLog { settings }))
    }
}
#[allow(unused)]
impl Broker for KafkaLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), CommitError> {
        unimplemented!()
    }
    fn delete_topic(&self, name: &str) -> Result<(), CommitError> {
        unimplemented!()
    }
    fn reset(&self, topics: Vec<String>, offsets: Vec<GroupOffset>) -> Result<(), CommitError> {
        unimplemented!()
    }
    fn topics(&self) -> Result<Vec<TopicDescription>, LogError> {
        unimplemented!()
    }
    fn topic(&self, name: &str) -> Result<TopicDescription, LogError> {
        unimplemented!()
    }
    fn offset_at(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError> {
        unimplemented!()
    }
    fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize, wait: Duration) -> Result<Fetched, LogError> {
        unimplemented!()
    }
    fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        unimplemented!()
    }
    fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        unimplemented!()
    }
    fn delete_group(&self, group: &str) -> Result<(), CommitError> {
        unimplemented!()
    }
    fn committed(&self, group: &str, tp: &TopicPartition) -> Result<Option<u64>, LogError> {
        unimplemented!()
    }
    fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Assignment, LogError> {
        unimplemented!()
    }
    fn poll(&self, group: &str, member: &str) -> Result<Assignment, LogError> {
        unimplemented!()
    }
    fn leave(&self, group: &str, member: &str) -> Result<(), LogError> {
        unimplemented!()
    }
}
#[allow(unused)]
impl EngineLog for KafkaLog {
    fn make_topic(&self, spec: &TopicSpec, settings: &TopicSettings) -> Result<(), CommitError> {
        unimplemented!()
    }
    fn set_topic_role(&self, name: &str, role: TopicRole) -> Result<(), CommitError> {
        unimplemented!()
    }
    fn committed_with_metadata(&self, group: &str, tp: &TopicPartition) -> Result<Option<(u64, String)>, LogError> {
        unimplemented!()
    }
    fn changelogs(self: Arc<Self>) -> Arc<dyn Changelog> {
        unimplemented!()
    }
}
