//! A cluster, as commands and hosts ask it: [`Broker`] and [`EngineLog`] on Kafka.
//!
//! One client asks and reads for all of it, and sees what is committed. Whatever is asked has an end within seconds, and
//! every error names the cluster.
//!
//! What differs from the embedded log: nobody knows when a topic was made, when an offset was committed, or how many
//! bytes a partition has; retention counts from the records' own times; and what takes several requests – a reset, or a
//! commit of records to several partitions – is not one step.

mod groups;
mod members;
mod reads;
mod topics;
mod writes;

use super::admin::{Admin, AskError, Refusal};
use super::catalog::Catalog;
use super::changelog::KafkaChangelogs;
use super::cluster::ClusterError;
use super::context::Quiet;
use super::errors;
use super::reader::{Isolation, Reading};
use super::readers::Readers;
use super::settings::ClusterSettings;
use crate::connect::{
    Assignment, Broker, Commit, CommitError, Committed, EngineLog, Fetched, GroupDescription, GroupOffset, LogError,
    Position, TopicDescription, TopicPartition, TopicRole, TopicSettings, TopicSpec,
};
use crate::limits::CLUSTER_READERS_MAX;
use crate::state::Changelog;
use members::Readers as GroupReaders;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use reads::PlaceReader;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use writes::Writer;

/// How long a cluster may take to answer for the first time.
const FIRST_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// How often it is looked meanwhile whether somebody has refused to answer.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Here partitions are read on behind their ends: so long brokers wait for something, unless the settings say otherwise.
const FETCH_WAIT_MS: &str = "100";

/// The group of a client that only asks about others.
const NO_GROUP: &str = "millstream-groups";

/// A cluster; see the module.
pub struct KafkaLog {
    settings: ClusterSettings,
    reading: Arc<Reading>,
    catalog: Arc<Catalog>,
    changelogs: OnceLock<Arc<KafkaChangelogs>>,
    places: Readers<PlaceReader>,
    members: GroupReaders,
    writer: Writer,
    /// Who asks about groups; see [`KafkaLog::group_admin`].
    groups: OnceLock<BaseConsumer<Quiet>>,
}

impl KafkaLog {
    /// Waits until a broker has answered.
    ///
    /// # Errors
    /// Where none does, where it does not take who asks, and where librdkafka does not take the settings: nothing is
    /// open then.
    pub fn open(settings: ClusterSettings) -> Result<Arc<KafkaLog>, ClusterError> {
        let unavailable = |source| ClusterError::Unavailable {
            bootstrap: settings.bootstrap.clone(),
            source,
        };
        let mut own = settings.clone();
        let wait = || FETCH_WAIT_MS.to_owned();
        own.properties.entry("fetch.wait.max.ms".into()).or_insert_with(wait);
        let reading = Reading::new(&own, Isolation::Committed).map_err(unavailable)?;
        first_answer(&reading).map_err(unavailable)?;
        Ok(Arc::new(KafkaLog {
            catalog: Arc::new(Catalog::new(settings.clone())),
            changelogs: OnceLock::new(),
            places: Readers::new(CLUSTER_READERS_MAX),
            members: GroupReaders::default(),
            writer: Writer::default(),
            groups: OnceLock::new(),
            reading,
            settings,
        }))
    }

    /// How it is reached.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Which cluster it is.
    ///
    /// # Errors
    /// Where no broker says so.
    pub(super) fn cluster_id(&self) -> Result<String, ClusterError> {
        let said = self.reading.client().client().fetch_cluster_id(FIRST_ANSWER_TIME_MAX);
        said.ok_or_else(|| ClusterError::Unavailable {
            bootstrap: self.settings.bootstrap.clone(),
            source: LogError::Unavailable {
                detail: self.reading.trouble().explain("no broker answers"),
            },
        })
    }

    /// What the topics of pipelines are to them.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The changelogs in it: the same for all who ask, so that what is committed is remembered for those who flush it.
    pub fn kafka_changelogs(&self) -> Arc<KafkaChangelogs> {
        let make = || KafkaChangelogs::new(self.settings.clone(), self.catalog.clone());
        self.changelogs.get_or_init(make).clone()
    }

    /// What whoever asks may do with a topic, by Kafka's names of operations; none where the broker does not say.
    ///
    /// # Errors
    /// Where it is not there, or may not be looked at.
    pub fn topic_rights(&self, topic: &str) -> Result<Option<Vec<String>>, LogError> {
        let about = self.admin().about_topic(topic);
        let about = about.map_err(|error| self.refused("asking for rights", Some(topic), error));
        self.named(about.map(|about| about.rights))
    }

    fn admin(&self) -> Admin<'_> {
        Admin(self.reading.client())
    }

    /// Who asks about groups: a client that could be a member of one, which it never is. Where the offsets of a group have
    /// moved to another broker, librdkafka looks for that on behalf of the client's own group, and falls where it has none.
    fn group_admin(&self) -> Result<Admin<'_>, AskError> {
        if let Some(client) = self.groups.get() {
            return Ok(Admin(client));
        }
        let mut config = self.settings.client();
        config.set("group.id", NO_GROUP).set("enable.auto.commit", "false");
        let made = config.create_with_context(Quiet::default());
        let client = made.map_err(|error| self.unavailable("making a client", &error))?;
        Ok(Admin(self.groups.get_or_init(|| client)))
    }

    /// A refusal in our words.
    fn refused(&self, doing: &str, topic: Option<&str>, error: AskError) -> LogError {
        let Refusal { code, said } = match error {
            AskError::Log(error) => return error,
            AskError::Refused(refusal) => refusal,
        };
        match (code, topic) {
            (RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic, Some(topic)) => {
                LogError::UnknownTopic { topic: topic.into() }
            }
            _ => LogError::Unavailable {
                detail: self.explained(doing, code, &said),
            },
        }
    }

    fn explained(&self, doing: &str, code: RDKafkaErrorCode, said: &str) -> String {
        // Before a broker's text librdkafka writes the request; there may be no text.
        let said = said.trim_end().trim_end_matches(':');
        let words = match said {
            // librdkafka's own name of a code says less than the broker.
            said if said.contains(' ') && errors::words(code) == code.to_string() => said.to_owned(),
            _ => errors::words(code),
        };
        format!("{doing}: {}", self.reading.trouble().explain(&words))
    }

    fn unavailable(&self, doing: &str, error: &KafkaError) -> LogError {
        errors::unavailable(self.reading.trouble(), doing, error)
    }

    /// Says which cluster it is that does not answer.
    fn named<T>(&self, outcome: Result<T, LogError>) -> Result<T, LogError> {
        outcome.map_err(|error| match error {
            LogError::Unavailable { detail } => LogError::Unavailable {
                detail: self.at(&detail),
            },
            other => other,
        })
    }

    /// The same of a commit.
    fn named_commit<T>(&self, outcome: Result<T, CommitError>) -> Result<T, CommitError> {
        outcome.map_err(|error| match error {
            CommitError::Unavailable { detail } => CommitError::Unavailable {
                detail: self.at(&detail),
            },
            CommitError::Unknown { detail } => CommitError::Unknown {
                detail: self.at(&detail),
            },
            other => other,
        })
    }

    fn at(&self, detail: &str) -> String {
        format!("Kafka at {}: {detail}", self.settings.bootstrap)
    }
}

/// Waits until any broker has said anything that is an answer.
fn first_answer(reading: &Reading) -> Result<(), LogError> {
    let end = Instant::now() + FIRST_ANSWER_TIME_MAX;
    loop {
        let answer = reading
            .client()
            .fetch_metadata(Some(super::CATALOG_TOPIC), LOOK_INTERVAL);
        reading.serve();
        match answer {
            Ok(_) => {
                reading.trouble().clear();
                return Ok(());
            }
            Err(error) if Instant::now() >= end || reading.trouble().is_final() => {
                let detail = reading.trouble().explain("no broker answers");
                tracing::debug!(target: "millstream::kafka", %error, "the first question");
                return Err(LogError::Unavailable { detail });
            }
            Err(_) => {}
        }
    }
}

impl Broker for KafkaLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), CommitError> {
        self.named_commit(self.create(spec, &TopicSettings::default()))
    }

    fn delete_topic(&self, name: &str) -> Result<(), CommitError> {
        self.named_commit(self.drop_topic(name))
    }

    fn reset(&self, topics: Vec<String>, offsets: Vec<GroupOffset>) -> Result<(), CommitError> {
        self.named_commit(self.begin_anew(&topics, &offsets))
    }

    fn topics(&self) -> Result<Vec<TopicDescription>, LogError> {
        self.named(self.describe_topics(None))
    }

    fn topic(&self, name: &str) -> Result<TopicDescription, LogError> {
        let described = self.describe_topics(Some(name)).and_then(|topics| {
            let unknown = || LogError::UnknownTopic { topic: name.into() };
            topics.into_iter().next().ok_or_else(unknown)
        });
        self.named(described)
    }

    fn offset_at(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError> {
        self.named(self.find_offset(tp, position))
    }

    fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize, wait: Duration) -> Result<Fetched, LogError> {
        self.named(self.read(tp, from, bytes_max, wait))
    }

    fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        self.named_commit(self.write(&commit))
    }

    fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        self.named(self.describe_groups())
    }

    fn delete_group(&self, group: &str) -> Result<(), CommitError> {
        self.named_commit(self.drop_group(group))
    }

    fn committed(&self, group: &str, tp: &TopicPartition) -> Result<Option<u64>, LogError> {
        let resume = self.committed_with_metadata(group, tp)?;
        Ok(resume.map(|(offset, _)| offset))
    }

    fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Assignment, LogError> {
        self.named(self.join_group(group, topics))
    }

    fn poll(&self, group: &str, member: &str) -> Result<Assignment, LogError> {
        self.named(self.poll_group(group, member))
    }

    fn leave(&self, _group: &str, member: &str) -> Result<(), LogError> {
        self.leave_group(member);
        Ok(())
    }
}

impl EngineLog for KafkaLog {
    fn make_topic(&self, spec: &TopicSpec, settings: &TopicSettings) -> Result<(), CommitError> {
        self.named_commit(self.create(spec, settings))
    }

    fn set_topic_role(&self, name: &str, role: TopicRole) -> Result<(), CommitError> {
        self.topic(name)?;
        self.named_commit(self.catalog.set(name, &role))
    }

    fn committed_with_metadata(&self, group: &str, tp: &TopicPartition) -> Result<Option<(u64, String)>, LogError> {
        self.named(self.find_committed(group, tp))
    }

    fn drop_before(&self, places: &[(TopicPartition, u64)]) -> Result<(), LogError> {
        let doing = "dropping processed records";
        let refused = |error| self.refused(doing, None, error);
        let dropped = self.named(self.admin().delete_records(places).map_err(refused))?;
        match dropped.into_iter().find_map(|place| Some((place.error?, place.tp))) {
            Some((code, place)) => Err(LogError::Unavailable {
                detail: self.at(&format!("{doing} of {place}: {}", errors::words(code))),
            }),
            None => Ok(()),
        }
    }

    fn incarnation(&self, name: &str) -> Result<Option<String>, LogError> {
        let about = self.admin().about_topic(name);
        let about = about.map_err(|error| self.refused("asking for a topic", Some(name), error));
        self.named(about.map(|about| about.id))
    }

    fn changelogs(self: Arc<Self>) -> Arc<dyn Changelog> {
        self.kafka_changelogs()
    }
}
