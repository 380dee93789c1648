//! What the commands need of a log, wherever it is: in this process, or with the host that holds the folder.

use super::kafka::{ClusterError, ClusterSettings, KafkaLog};
use super::socket::{Client, Server, serve_command};
use super::{
    Assignment, Commit, CommitError, Committed, EmbeddedLog, EngineLog, Fetched, GroupDescription, GroupOffset,
    LogError, OpenError, Options, Position, TopicDescription, TopicPartition, TopicSettings, TopicSpec,
};
use crate::state::{ChangelogState, LocalState, StateAccess};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A log as the commands see it. All calls wait.
pub trait Broker: Send + Sync {
    /// Makes a topic.
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), CommitError>;
    /// Drops a topic, its records, and the groups' offsets in it.
    fn delete_topic(&self, name: &str) -> Result<(), CommitError>;
    /// Drops topics with the groups' offsets in them, and sets other offsets: all of it, or nothing.
    fn reset(&self, topics: Vec<String>, offsets: Vec<GroupOffset>) -> Result<(), CommitError>;
    /// All topics, by name.
    fn topics(&self) -> Result<Vec<TopicDescription>, LogError>;
    /// One topic.
    fn topic(&self, name: &str) -> Result<TopicDescription, LogError>;
    /// The offset of a place.
    fn offset_at(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError>;
    /// Reads a partition from an offset on; where there is nothing yet, waits so long for something.
    fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize, wait: Duration) -> Result<Fetched, LogError>;
    /// Makes a commit true.
    fn commit(&self, commit: Commit) -> Result<Committed, CommitError>;
    /// All groups, by name.
    fn groups(&self) -> Result<Vec<GroupDescription>, LogError>;
    /// Forgets a group's offsets.
    fn delete_group(&self, group: &str) -> Result<(), CommitError>;
    /// Where a group goes on reading a partition.
    fn committed(&self, group: &str, tp: &TopicPartition) -> Result<Option<u64>, LogError>;
    /// A new member of a group that reads these topics.
    fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Assignment, LogError>;
    /// The member is alive, gives up what it lost, and learns what it holds.
    fn poll(&self, group: &str, member: &str) -> Result<Assignment, LogError>;
    /// The member goes.
    fn leave(&self, group: &str, member: &str) -> Result<(), LogError>;
}

/// How long a holder that does not answer may take to do so, or to go: it is just starting or ending.
const HOLDER_TIME_MAX: Duration = Duration::from_secs(2);
/// How often it is asked.
const HOLDER_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A log, as [`open_broker`] found that of a folder, or [`open_cluster`] a cluster. While it is held here, other commands use it through this process.
pub struct OpenBroker {
    // Dropped before the log, so that requests that are on their way are done.
    _server: Option<Server>,
    state: Arc<dyn StateAccess>,
    broker: Arc<dyn Broker>,
    passing: bool,
    cluster: Option<Arc<KafkaLog>>,
}

impl OpenBroker {
    /// Whether it is held by another command, which will end, and not by a host, which is meant to stay. Whoever gets
    /// [`CommitError::Unavailable`] from such a log opens it again.
    pub fn is_passing(&self) -> bool {
        self.passing
    }

    /// The cluster, where it is one.
    pub fn cluster(&self) -> Option<&Arc<KafkaLog>> {
        self.cluster.as_ref()
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// As [`Broker::create_topic`]; [`LogError::InvalidTopic`] where the embedded log is asked for settings of a cluster.
    pub fn make_topic(&self, spec: &TopicSpec, settings: &TopicSettings) -> Result<(), CommitError> {
        match &self.cluster {
            Some(cluster) => cluster.make_topic(spec, settings),
            None if settings.is_empty() => self.create_topic(spec),
            None => Err(LogError::InvalidTopic {
                topic: spec.name.clone(),
                reason:
                    "the embedded log has no replication and no settings of topics: name a cluster with --bootstrap"
                        .into(),
            }
            .into()),
        }
    }

    /// The stores beside the log.
    pub fn state(&self) -> &dyn StateAccess {
        &*self.state
    }
}

impl Deref for OpenBroker {
    type Target = dyn Broker;

    fn deref(&self) -> &Self::Target {
        &*self.broker
    }
}

/// A cluster, with the stores in it as its changelogs have them.
///
/// # Errors
/// As [`KafkaLog::open`].
pub fn open_cluster(settings: ClusterSettings) -> Result<OpenBroker, ClusterError> {
    let log = KafkaLog::open(settings)?;
    Ok(OpenBroker {
        _server: None,
        state: Arc::new(ChangelogState::new(log.clone())),
        broker: log.clone(),
        passing: false,
        cluster: Some(log),
    })
}

/// The log of a folder: in this process where nobody holds the folder, else through whoever does.
///
/// # Errors
/// As [`EmbeddedLog::open`]; [`OpenError::Held`] where the holder does not answer on its socket.
pub fn open_broker(path: &Path, options: Options) -> Result<OpenBroker, OpenError> {
    let end = Instant::now() + HOLDER_TIME_MAX;
    loop {
        let held = match EmbeddedLog::open(path, options.clone()) {
            Ok(log) => {
                // On a file system without sockets the command works all the same, alone.
                let state = LocalState::beside(log.clone());
                let server = serve_command(state.clone()).inspect_err(|error| tracing::debug!(%error));
                return Ok(OpenBroker {
                    _server: server.ok(),
                    state,
                    broker: Arc::new(log),
                    passing: false,
                    cluster: None,
                });
            }
            Err(held @ OpenError::Held { .. }) => held,
            Err(error) => return Err(error),
        };
        match Client::connect(path) {
            Ok(client) => {
                let client = Arc::new(client);
                return Ok(OpenBroker {
                    _server: None,
                    passing: !client.is_host(),
                    state: client.clone(),
                    broker: Arc::new(client),
                    cluster: None,
                });
            }
            Err(error) => tracing::debug!(%error, "nobody answers on the socket of the data folder"),
        }
        if Instant::now() >= end {
            return Err(held);
        }
        std::thread::sleep(HOLDER_LOOK_INTERVAL);
    }
}

impl Broker for Arc<EmbeddedLog> {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), CommitError> {
        EmbeddedLog::create_topic(self, spec)
    }

    fn delete_topic(&self, name: &str) -> Result<(), CommitError> {
        EmbeddedLog::delete_topic(self, name)
    }

    fn reset(&self, topics: Vec<String>, offsets: Vec<GroupOffset>) -> Result<(), CommitError> {
        EmbeddedLog::reset(self, topics, offsets)
    }

    fn topics(&self) -> Result<Vec<TopicDescription>, LogError> {
        EmbeddedLog::topics(self)
    }

    fn topic(&self, name: &str) -> Result<TopicDescription, LogError> {
        EmbeddedLog::topic(self, name)
    }

    fn offset_at(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError> {
        EmbeddedLog::offset_at(self, tp, position)
    }

    fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize, wait: Duration) -> Result<Fetched, LogError> {
        let fetched = EmbeddedLog::fetch(self, tp, from, bytes_max)?;
        if !fetched.is_empty() || wait.is_zero() || !self.wait(&[(tp.clone(), from)], wait)? {
            return Ok(fetched);
        }
        EmbeddedLog::fetch(self, tp, from, bytes_max)
    }

    fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        EmbeddedLog::commit(self, commit)
    }

    fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        EmbeddedLog::groups(self)
    }

    fn delete_group(&self, group: &str) -> Result<(), CommitError> {
        EmbeddedLog::delete_group(self, group)
    }

    fn committed(&self, group: &str, tp: &TopicPartition) -> Result<Option<u64>, LogError> {
        EmbeddedLog::committed(self, group, tp)
    }

    fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Assignment, LogError> {
        EmbeddedLog::join(self, group, topics)
    }

    fn poll(&self, group: &str, member: &str) -> Result<Assignment, LogError> {
        EmbeddedLog::poll(self, group, member)
    }

    fn leave(&self, group: &str, member: &str) -> Result<(), LogError> {
        EmbeddedLog::leave(self, group, member);
        Ok(())
    }
}
