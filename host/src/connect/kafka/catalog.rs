//! What the topics of pipelines are to them: Kafka has no place for that beside a topic, so it stands in a compacted topic
//! of one partition, whose keys are topics and whose values are roles in JSON.
//!
//! It is read whole by whoever asks, and then only from where that ended. Two hosts may write at the same moment: whoever
//! finds a change of the same topic between what it had read and what it wrote puts that back and says so.

use super::ClusterSettings;
use super::reader::{Ended, Isolation, Lent, PartitionReader, Reading, unavailable};
use crate::connect::{CommitError, LogError, TopicPartition, TopicRole};
use crate::limits::CATALOG_BYTES_MAX;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The topic of the catalog where nobody says otherwise.
pub const CATALOG_TOPIC: &str = "millstream-topics";
/// Reading what is new, and writing.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// The catalog of a cluster. All calls wait.
pub struct Catalog {
    settings: ClusterSettings,
    topic: String,
    known: Mutex<Known>,
}

/// What was read so far.
#[derive(Default)]
struct Known {
    reading: Option<Arc<Reading>>,
    roles: BTreeMap<String, Arc<TopicRole>>,
    next_offset: u64,
    bytes: usize,
}

/// A change that was read.
struct Change {
    offset: u64,
    topic: String,
    role: Option<Arc<TopicRole>>,
}

impl Catalog {
    /// Of a cluster, in its usual topic.
    pub fn new(settings: ClusterSettings) -> Catalog {
        Catalog::of_topic(settings, CATALOG_TOPIC.to_owned())
    }

    /// In this topic.
    pub fn of_topic(settings: ClusterSettings, topic: String) -> Catalog {
        Catalog {
            settings,
            topic,
            known: Mutex::default(),
        }
    }

    /// The topic in which it stands.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What all topics are that are something to a pipeline, as of now; none where nobody has written any.
    ///
    /// # Errors
    /// Where the cluster does not answer, or what is there is no catalog.
    pub fn roles(&self) -> Result<BTreeMap<String, Arc<TopicRole>>, LogError> {
        let mut known = self.lock();
        known.refresh(&self.settings, &self.topic, &mut |_| {})?;
        Ok(known.roles.clone())
    }

    /// What a topic is, as of now; `None` for everybody's topics.
    ///
    /// # Errors
    /// As [`Catalog::roles`].
    pub fn role(&self, topic: &str) -> Result<Option<Arc<TopicRole>>, LogError> {
        let mut known = self.lock();
        known.refresh(&self.settings, &self.topic, &mut |_| {})?;
        Ok(known.roles.get(topic).cloned())
    }

    /// What a topic was when the catalog was read last; asks nobody if it was.
    ///
    /// # Errors
    /// As [`Catalog::roles`].
    pub fn role_as_known(&self, topic: &str) -> Result<Option<Arc<TopicRole>>, LogError> {
        if let Some(role) = self.lock().roles.get(topic) {
            return Ok(Some(role.clone()));
        }
        self.role(topic)
    }

    /// Says what a topic is.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`] where another host said something else at the same moment, which stays: trying again
    /// sees that. Otherwise it may be written or not.
    pub fn set(&self, topic: &str, role: &TopicRole) -> Result<(), CommitError> {
        self.write(topic, Some(role))
    }

    /// Forgets a topic, as it is gone.
    ///
    /// # Errors
    /// As [`Catalog::set`].
    pub fn remove(&self, topic: &str) -> Result<(), CommitError> {
        if self.role(topic)?.is_none() {
            return Ok(());
        }
        self.write(topic, None)
    }

    fn write(&self, topic: &str, role: Option<&TopicRole>) -> Result<(), CommitError> {
        let mut known = self.lock();
        let before = known.roles.get(topic).cloned();
        let value = role.map(|role| serde_json::to_vec(role).expect("a role is JSON"));
        let offset = match self.append(topic, value.as_deref()) {
            Err(error) if is_missing(&error) => {
                self.make()?;
                self.append(topic, value.as_deref())
            }
            outcome => outcome,
        };
        let offset =
            offset.map_err(|error| unavailable(&format!("writing to the catalog {:?}", self.topic), &error))?;
        let mut other = None;
        known.refresh(&self.settings, &self.topic, &mut |change| {
            if change.topic == topic && change.offset < offset {
                other = Some(change.role.clone());
            }
        })?;
        let Some(other) = other.filter(|other| *other != before && other.as_deref() != role) else {
            return Ok(());
        };
        let value = other.map(|role| serde_json::to_vec(&*role).expect("a role is JSON"));
        let restored = self.append(topic, value.as_deref());
        restored.map_err(|error| unavailable(&format!("writing to the catalog {:?}", self.topic), &error))?;
        Err(CommitError::Unavailable {
            detail: format!("another host said at the same moment what the topic {topic:?} is: try again"),
        })
    }

    /// Writes one record, and says its offset.
    fn append(&self, topic: &str, value: Option<&[u8]>) -> Result<u64, KafkaError> {
        let mut config = self.settings.client();
        config
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", ANSWER_TIME_MAX.as_millis().to_string())
            // An old look at the cluster may say of a topic that was just made that it is not there.
            .set("topic.metadata.propagation.max.ms", "2000");
        let producer: BaseProducer<Written> = config.create_with_context(Written::default())?;
        let record = BaseRecord::<[u8], [u8]>::to(&self.topic)
            .partition(0)
            .key(topic.as_bytes());
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| error)?;
        producer.flush(ANSWER_TIME_MAX)?;
        let outcome = producer
            .context()
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        outcome.unwrap_or(Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)))
    }

    fn make(&self) -> Result<(), LogError> {
        let doing = format!("making the catalog {:?}", self.topic);
        let admin: AdminClient<DefaultClientContext> = self
            .settings
            .client()
            .create()
            .map_err(|error| unavailable(&doing, &error))?;
        let topic = NewTopic::new(&self.topic, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIME_MAX));
        let made = futures_executor(admin.create_topics([&topic], &options));
        let made = made.map_err(|error| unavailable(&doing, &error))?;
        match made.into_iter().next() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                tracing::info!(topic = self.topic, "made the catalog of the topics of pipelines");
                Ok(())
            }
            Some(Err((_, code))) => Err(LogError::Unavailable {
                detail: format!("{doing}: {code}"),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

impl Known {
    /// Reads to the end, and shows what is new.
    fn refresh(
        &mut self,
        settings: &ClusterSettings,
        topic: &str,
        show: &mut dyn FnMut(&Change),
    ) -> Result<(), LogError> {
        let reading = match &self.reading {
            Some(reading) => reading.clone(),
            None => self
                .reading
                .insert(Reading::new(settings, Isolation::Committed)?)
                .clone(),
        };
        let place = TopicPartition::new(topic, 0);
        let (first, next) = match reading.ends(&place) {
            Ok(ends) => ends,
            Err(LogError::UnknownTopic { .. }) => {
                *self = Known {
                    reading: Some(reading),
                    ..Known::default()
                };
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if next < self.next_offset {
            // Somebody made the topic anew.
            self.roles.clear();
            (self.next_offset, self.bytes) = (0, 0);
        }
        if next == self.next_offset {
            return Ok(());
        }
        let mut reader = PartitionReader::start(&reading, &place, self.next_offset.max(first))?;
        let until = Instant::now() + ANSWER_TIME_MAX;
        let ended = reader.read(until, |record| {
            let change = read_change(&record, topic)?;
            self.bytes += record.value.map_or(0, <[u8]>::len);
            if self.bytes > CATALOG_BYTES_MAX {
                return Err(LogError::Foreign {
                    topic: topic.to_owned(),
                    partition: 0,
                    offset: change.offset,
                    detail: format!("the catalog has more than {CATALOG_BYTES_MAX} bytes"),
                });
            }
            show(&change);
            match change.role {
                Some(role) => self.roles.insert(change.topic, role),
                None => self.roles.remove(&change.topic),
            };
            self.next_offset = change.offset + 1;
            Ok(true)
        })?;
        match ended {
            Ended::AtEnd(next) => {
                self.next_offset = next;
                Ok(())
            }
            Ended::Enough | Ended::Late => Err(LogError::Unavailable {
                detail: format!(
                    "reading the catalog {topic:?}: no answer within {} s",
                    ANSWER_TIME_MAX.as_secs()
                ),
            }),
        }
    }
}

fn read_change(record: &Lent<'_>, topic: &str) -> Result<Change, LogError> {
    let foreign = |detail: String| LogError::Foreign {
        topic: topic.to_owned(),
        partition: 0,
        offset: record.offset,
        detail,
    };
    let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
    let key = key.ok_or_else(|| foreign("its key is no topic".into()))?;
    let role = record.value.map(serde_json::from_slice::<TopicRole>).transpose();
    let role = role.map_err(|error| foreign(format!("its value is no role of a topic: {error}")))?;
    Ok(Change {
        offset: record.offset,
        topic: key.to_owned(),
        role: role.map(Arc::new),
    })
}

/// Waits for an answer of librdkafka, whose own threads bring it.
fn futures_executor<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime without threads")
        .block_on(future)
}

/// What became of the one record of a producer.
#[derive(Default)]
struct Written(Mutex<Option<Result<u64, KafkaError>>>);

impl ClientContext for Written {}

impl ProducerContext for Written {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let outcome = match result {
            Ok(message) => Ok(message.offset().max(0) as u64),
            Err((error, _)) => Err(error.clone()),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}
