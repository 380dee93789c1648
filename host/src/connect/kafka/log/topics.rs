//! Topics of a cluster: described, made, dropped.

use super::KafkaLog;
use crate::connect::kafka::CATALOG_TOPIC;
use crate::connect::kafka::admin::{AskError, EARLIEST, LATEST, NewTopic, Refusal};
use crate::connect::kafka::changelog::changelog_settings;
use crate::connect::kafka::reader::{MOVING_LOOK_INTERVAL, is_moving};
use crate::connect::{
    CommitError, GroupOffset, LogError, PartitionDescription, TopicDescription, TopicPartition, TopicRole,
    TopicSettings, TopicSpec, check_group,
};
use crate::limits::KAFKA_MESSAGE_BYTES_MAX;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long all brokers may take to know of a topic that was made or dropped.
const SPREAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How often they are asked.
const SPREAD_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long partitions may take to get a leader.
const LEADER_TIME_MAX: Duration = Duration::from_secs(2);
/// What the brokers know of topics.
const METADATA_TIME_MAX: Duration = Duration::from_secs(10);

/// What stands in the cluster's own list of topics.
struct Known {
    name: String,
    partitions: u32,
    replication: Option<u16>,
}

/// The roles of topics, by their names.
type Roles = BTreeMap<String, Arc<TopicRole>>;

impl KafkaLog {
    /// All topics that may be seen, by name, or one.
    pub(super) fn describe_topics(&self, name: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        let known = self.known_topics(name)?;
        let places: Vec<TopicPartition> = known
            .iter()
            .flat_map(|topic| {
                (0..topic.partitions).map(|partition| TopicPartition::new(topic.name.as_str(), partition))
            })
            .collect();
        let ends = self.ends(&places)?;
        let names: Vec<&str> = known.iter().map(|topic| topic.name.as_str()).collect();
        let mut settings = match self.admin().topic_settings(&names) {
            Ok(settings) => settings,
            // They are for people only: without the right to see them the rest is worth as much.
            Err(error) => {
                tracing::debug!(target: "millstream::kafka", ?error, "the settings of topics are not known");
                BTreeMap::new()
            }
        };
        let roles = self.roles()?;
        let describe = |topic: &Known| {
            let ranges = (0..topic.partitions).map(|partition| {
                let place = TopicPartition::new(topic.name.as_str(), partition);
                let (first_offset, next_offset) = ends.get(&place).copied().unwrap_or_default();
                PartitionDescription {
                    first_offset,
                    next_offset,
                    bytes: None,
                }
            });
            let settings = settings.remove(&topic.name).unwrap_or_default();
            let (spec, settings) = spec(topic, settings, roles.get(&topic.name).cloned());
            TopicDescription {
                partition_ranges: ranges.collect(),
                spec,
                created_ms: None,
                settings,
            }
        };
        let mut described: Vec<_> = known.iter().map(describe).collect();
        described.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(described)
    }

    /// How many partitions a topic has.
    pub(super) fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        let known = self.known_topics(Some(topic))?;
        let unknown = || LogError::UnknownTopic { topic: topic.into() };
        known.first().map(|known| known.partitions).ok_or_else(unknown)
    }

    fn known_topics(&self, name: Option<&str>) -> Result<Vec<Known>, LogError> {
        self.reading.serve();
        let metadata = self.reading.client().fetch_metadata(name, METADATA_TIME_MAX);
        let metadata = metadata.map_err(|error| self.unavailable("asking for topics", &error))?;
        let mut known = Vec::new();
        for topic in metadata.topics() {
            match topic.error().map(RDKafkaErrorCode::from) {
                None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
                Some(code) if name.is_some() => {
                    return Err(self.refused("asking for a topic", name, code.into()));
                }
                // Gone by now, or not to be seen.
                Some(_) => continue,
            }
            let replicas = topic
                .partitions()
                .first()
                .map(|partition| partition.replicas().len() as u16);
            known.push(Known {
                name: topic.name().to_owned(),
                partitions: topic.partitions().len() as u32,
                replication: replicas,
            });
        }
        Ok(known)
    }

    /// First offset and end of partitions. Of those that have no leader just now nothing is known.
    pub(super) fn ends(&self, places: &[TopicPartition]) -> Result<HashMap<TopicPartition, (u64, u64)>, LogError> {
        let ask = |at: i64| {
            let asked: Vec<_> = places.iter().map(|place| (place.clone(), at)).collect();
            let until = Instant::now() + LEADER_TIME_MAX;
            loop {
                let answered = self.admin().offsets(&asked, true);
                let answered =
                    answered.map_err(|error| self.refused("asking for the ends of partitions", None, error))?;
                // Without a leader it may also be gone, so this is not waited for long.
                let has_none = |code| is_moving(code) || code == RDKafkaErrorCode::NoEnt;
                let moving = answered.iter().any(|place| place.error.is_some_and(has_none));
                if !moving || Instant::now() >= until {
                    return Ok::<_, LogError>(answered);
                }
                std::thread::sleep(MOVING_LOOK_INTERVAL);
            }
        };
        let mut ends: HashMap<TopicPartition, (u64, u64)> = HashMap::new();
        for place in ask(LATEST)? {
            match place.error {
                None => {
                    ends.insert(place.tp, (0, place.offset.max(0) as u64));
                }
                Some(code) => {
                    tracing::debug!(target: "millstream::kafka", place = %place.tp, %code, "its end is not known");
                }
            }
        }
        for place in ask(EARLIEST)? {
            if let Some(end) = ends.get_mut(&place.tp) {
                end.0 = (place.offset.max(0) as u64).min(end.1);
            }
        }
        Ok(ends)
    }

    /// What topics are to pipelines. Whoever may not read the catalog sees them as everybody's.
    fn roles(&self) -> Result<Roles, LogError> {
        self.catalog.roles().or_else(|error| {
            if self.may_read_catalog() {
                return Err(error);
            }
            tracing::debug!(target: "millstream::kafka", %error, "the catalog may not be read");
            Ok(Roles::new())
        })
    }

    fn may_read_catalog(&self) -> bool {
        match self.admin().about_topic(CATALOG_TOPIC) {
            Ok(about) => {
                let may = |rights: Vec<String>| rights.iter().any(|right| right == "READ" || right == "ALL");
                about.rights.is_none_or(may)
            }
            Err(AskError::Refused(refusal)) => refusal.code != RDKafkaErrorCode::TopicAuthorizationFailed,
            Err(AskError::Log(_)) => true,
        }
    }

    /// Makes a topic, and waits until brokers know it. Where nothing is said of retention and the topic is everybody's,
    /// the brokers' defaults count.
    pub(super) fn create(&self, spec: &TopicSpec, asked: &TopicSettings) -> Result<(), CommitError> {
        spec.check()?;
        let there = match self.partitions(&spec.name) {
            Ok(_) => true,
            Err(LogError::UnknownTopic { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if there {
            return Err(exists(&spec.name).into());
        }
        // The role comes first: a topic of a pipeline's that nobody knows to be one would be in its way.
        match &spec.role {
            Some(role) => self.catalog.set(&spec.name, role)?,
            None => self.catalog.remove(&spec.name)?,
        }
        let topic = NewTopic {
            name: &spec.name,
            partitions: spec.partitions,
            replication: asked.replication,
            settings: settings_of(spec, asked),
        };
        match self.admin().create_topic(&topic) {
            Ok(()) => {}
            // Another host of the pipeline made it at the same moment.
            Err(AskError::Refused(Refusal {
                code: RDKafkaErrorCode::TopicAlreadyExists,
                ..
            })) if spec.role.is_some() => {}
            Err(error) => return Err(self.not_made(spec, error).into()),
        }
        self.wait_for_topic(&spec.name, true);
        Ok(())
    }

    fn not_made(&self, spec: &TopicSpec, error: AskError) -> LogError {
        let AskError::Refused(Refusal { code, said }) = &error else {
            return self.refused("making a topic", None, error);
        };
        match code {
            RDKafkaErrorCode::TopicAlreadyExists => exists(&spec.name),
            RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::InvalidPartitions
            | RDKafkaErrorCode::InvalidReplicationFactor
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => LogError::InvalidTopic {
                topic: spec.name.clone(),
                reason: self.explained("the broker refuses it", *code, said),
            },
            _ => self.refused("making a topic", None, error),
        }
    }

    /// Drops a topic; the brokers forget the groups' offsets in it.
    pub(super) fn drop_topic(&self, name: &str) -> Result<(), CommitError> {
        let dropped = self.admin().delete_topic(name);
        dropped.map_err(|error| self.refused("deleting a topic", Some(name), error))?;
        self.wait_for_topic(name, false);
        self.catalog.remove(name)
    }

    /// Brokers hear of it one after the other: whoever asks the next may be told otherwise for a moment.
    fn wait_for_topic(&self, name: &str, there: bool) {
        let end = Instant::now() + SPREAD_TIME_MAX;
        while Instant::now() < end {
            let known = self.partitions(name);
            if known.is_ok() == there {
                return;
            }
            std::thread::sleep(SPREAD_LOOK_INTERVAL);
        }
        tracing::warn!(target: "millstream::kafka", topic = name, "the brokers do not agree yet whether it is there");
    }

    /// Drops a pipeline's topics, and sets where its group goes on. The topics go first: where the rest does not follow,
    /// the pipeline finds that its state is gone, and says so instead of counting twice.
    pub(super) fn begin_anew(&self, topics: &[String], offsets: &[GroupOffset]) -> Result<(), CommitError> {
        let groups: std::collections::BTreeSet<&str> = offsets.iter().map(|offset| &*offset.group).collect();
        for group in groups {
            check_group(group)?;
            self.check_unused(group)?;
        }
        for offset in offsets {
            let partitions = self.partitions(&offset.topic)?;
            if offset.partition >= partitions {
                return Err(LogError::UnknownPartition {
                    topic: offset.topic.to_string(),
                    partition: offset.partition,
                    partitions,
                }
                .into());
            }
        }
        for topic in topics {
            self.drop_topic(topic)?;
        }
        Ok(self.set_offsets(offsets)?)
    }
}

fn exists(topic: &str) -> LogError {
    LogError::TopicExists {
        topic: topic.to_owned(),
    }
}

/// With which settings a topic is made: those of what it is, then those that were asked for.
fn settings_of(spec: &TopicSpec, asked: &TopicSettings) -> BTreeMap<String, String> {
    let mut settings: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        settings.insert(name.into(), value);
    };
    match spec.role.as_deref() {
        Some(TopicRole::Changelog { .. }) => {
            for (name, value) in changelog_settings() {
                set(name, value);
            }
        }
        // What the pipeline has read of it is dropped by the pipeline.
        Some(TopicRole::Repartition { .. }) => {
            set("cleanup.policy", "delete".into());
            set("retention.ms", "-1".into());
            set("retention.bytes", "-1".into());
            set("max.message.bytes", KAFKA_MESSAGE_BYTES_MAX.to_string());
            set("message.timestamp.type", "CreateTime".into());
            set("message.timestamp.before.max.ms", i64::MAX.to_string());
            set("message.timestamp.after.max.ms", i64::MAX.to_string());
        }
        None => {}
    }
    if let Some(time_ms) = spec.retention_ms {
        set("retention.ms", time_ms.to_string());
    }
    if let Some(bytes) = spec.retention_bytes {
        // Kafka counts it by partition.
        set(
            "retention.bytes",
            bytes.div_ceil(u64::from(spec.partitions.max(1))).to_string(),
        );
    }
    settings.extend(asked.properties.clone());
    settings
}

fn spec(
    known: &Known,
    mut properties: BTreeMap<String, String>,
    role: Option<Arc<TopicRole>>,
) -> (TopicSpec, TopicSettings) {
    let mut number = |name: &str| {
        let value = properties.remove(name)?;
        value.parse::<u64>().ok()
    };
    let retention_ms = number("retention.ms");
    let retention_bytes = number("retention.bytes").map(|bytes| bytes.saturating_mul(u64::from(known.partitions)));
    let spec = TopicSpec {
        name: known.name.clone(),
        partitions: known.partitions,
        retention_ms,
        retention_bytes,
        role,
    };
    let settings = TopicSettings {
        replication: known.replication,
        properties,
    };
    (spec, settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<const N: usize>(settings: [(&str, &str); N]) -> BTreeMap<String, String> {
        settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn a_topic_is_made_with_the_settings_of_what_it_is() {
        let nothing = TopicSettings::default();
        let role = |role| TopicSpec {
            role: Some(Arc::new(role)),
            ..TopicSpec::new("t", 4)
        };
        let changelog = role(TopicRole::Changelog {
            pipeline: "p".into(),
            stage: "s".into(),
            store: None,
            schemas: Vec::new(),
        });
        assert_eq!(settings_of(&changelog, &nothing)["cleanup.policy"], "compact");
        let repartition = role(TopicRole::Repartition {
            pipeline: "p".into(),
            stage: "s".into(),
        });
        let repartition = settings_of(&repartition, &nothing);
        assert_eq!(
            (&*repartition["cleanup.policy"], &*repartition["retention.ms"]),
            ("delete", "-1")
        );
        assert!(
            settings_of(&TopicSpec::new("t", 4), &nothing).is_empty(),
            "the brokers' defaults"
        );
        let kept = TopicSpec {
            retention_ms: Some(1000),
            retention_bytes: Some(10),
            ..TopicSpec::new("t", 4)
        };
        let asked = TopicSettings {
            replication: None,
            properties: texts([("retention.ms", "7")]),
        };
        let kept = settings_of(&kept, &asked);
        assert_eq!((&*kept["retention.ms"], &*kept["retention.bytes"]), ("7", "3"));
    }

    #[test]
    fn what_a_topic_keeps_is_told_for_all_of_its_partitions() {
        let known = Known {
            name: "t".into(),
            partitions: 4,
            replication: Some(3),
        };
        let settings = texts([
            ("retention.ms", "-1"),
            ("retention.bytes", "3"),
            ("cleanup.policy", "compact"),
        ]);
        let (spec, settings) = spec(&known, settings, None);
        assert_eq!((spec.retention_ms, spec.retention_bytes), (None, Some(12)));
        assert_eq!(settings.properties, texts([("cleanup.policy", "compact")]));
    }
}
