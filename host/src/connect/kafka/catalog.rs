//! What the topics of pipelines are to them: Kafka has no place for that beside a topic, so it stands in a compacted topic
//! of one partition, whose keys are topics and whose values are roles in JSON.
//!
//! It is read whole by whoever asks, and then only from where that ended. All who write it share one transactional id,
//! by which one at a time can: it takes the id over, reads to the end, and writes if the topic is still what it believed.

use super::ClusterSettings;
use super::errors;
use super::reader::{Ended, Isolation, Lent, PartitionReader, Reading, unavailable};
use crate::connect::{CommitError, LogError, TopicPartition, TopicRole};
use crate::limits::CATALOG_BYTES_MAX;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The topic of the catalog where nobody says otherwise.
pub const CATALOG_TOPIC: &str = "millstream-topics";
/// Reading what is new, and writing.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// The broker ends what a writer left that died: others write after that at the latest, mostly at once.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a writer waits that met another.
const WRITER_WAIT_MIN_MS: u64 = 20;
const WRITER_WAIT_MAX_MS: u64 = 300;

/// The catalog of a cluster. All calls wait.
pub struct Catalog {
    settings: ClusterSettings,
    topic: String,
    known: Mutex<Known>,
}

/// The client of a writer, which talks of being fenced: what comes of that is said by whoever writes.
struct Writer;

impl ClientContext for Writer {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "millstream::kafka", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "millstream::kafka", %error, "{reason}");
    }
}

impl ProducerContext for Writer {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Why nothing was written.
enum Unwritten {
    /// Another writer took over: it may be tried again.
    Fenced(CommitError),
    Failed(CommitError),
}

impl Unwritten {
    fn of(error: CommitError, cause: &KafkaError) -> Unwritten {
        match errors::code_of(cause) {
            Some(
                RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::ConcurrentTransactions,
            ) => Unwritten::Fenced(error),
            _ => Unwritten::Failed(error),
        }
    }
}

impl From<LogError> for Unwritten {
    fn from(error: LogError) -> Unwritten {
        Unwritten::Failed(error.into())
    }
}

/// What was read so far.
#[derive(Default)]
struct Known {
    reading: Option<Arc<Reading>>,
    roles: BTreeMap<String, Arc<TopicRole>>,
    /// None where nothing was ever read.
    next_offset: Option<u64>,
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
        known.refresh(&self.settings, &self.topic)?;
        Ok(known.roles.clone())
    }

    /// What a topic is, as of now; `None` for everybody's topics.
    ///
    /// # Errors
    /// As [`Catalog::roles`].
    pub fn role(&self, topic: &str) -> Result<Option<Arc<TopicRole>>, LogError> {
        let mut known = self.lock();
        known.refresh(&self.settings, &self.topic)?;
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
    /// [`CommitError::Unavailable`] where another host said something else since this catalog was read, which stays: whoever
    /// reads that may try again. [`CommitError::Unknown`] where it may be written or not.
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

    /// Writes, as soon as nobody else does.
    fn write(&self, topic: &str, role: Option<&TopicRole>) -> Result<(), CommitError> {
        let end = Instant::now() + ANSWER_TIME_MAX;
        let believed = {
            let known = self.lock();
            known.next_offset.map(|_| known.roles.get(topic).cloned())
        };
        loop {
            match self.try_write(topic, role, believed.as_ref()) {
                Err(Unwritten::Fenced(error)) if Instant::now() < end => {
                    tracing::debug!(target: "millstream::kafka", topic, "another host writes to the catalog: {error}");
                    // Not at the same moment again.
                    let wait = rand::random_range(WRITER_WAIT_MIN_MS..=WRITER_WAIT_MAX_MS);
                    std::thread::sleep(Duration::from_millis(wait));
                }
                Err(Unwritten::Fenced(error) | Unwritten::Failed(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// `believed` is what whoever writes took the topic to be; none where the catalog was never read.
    fn try_write(
        &self,
        topic: &str,
        role: Option<&TopicRole>,
        believed: Option<&Option<Arc<TopicRole>>>,
    ) -> Result<(), Unwritten> {
        let mut known = self.lock();
        let doing = format!("writing to the catalog {:?}", self.topic);
        let failed = |error: KafkaError| Unwritten::of(unavailable(&doing, &error).into(), &error);
        let producer = self.writer().map_err(failed)?;
        producer.init_transactions(ANSWER_TIME_MAX).map_err(failed)?;
        known.refresh(&self.settings, &self.topic)?;
        if known.next_offset.is_none() {
            self.make()?;
        }
        let now = known.roles.get(topic);
        if now.map(|now| &**now) == role {
            return Ok(());
        }
        if believed.is_some_and(|believed| believed.as_ref() != now) {
            return Err(Unwritten::Failed(CommitError::Unavailable {
                detail: format!("another host said at the same moment what the topic {topic:?} is: try again"),
            }));
        }
        let value = role.map(|role| serde_json::to_vec(role).expect("a role is JSON"));
        producer.begin_transaction().map_err(failed)?;
        let record = BaseRecord::<[u8], [u8]>::to(&self.topic)
            .partition(0)
            .key(topic.as_bytes());
        let record = match &value {
            Some(value) => record.payload(&value[..]),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| failed(error))?;
        producer.commit_transaction(ANSWER_TIME_MAX).map_err(|error| {
            let detail = unavailable(&doing, &error).to_string();
            Unwritten::of(CommitError::Unknown { detail }, &error)
        })?;
        known.refresh(&self.settings, &self.topic)?;
        Ok(())
    }

    /// Whoever writes takes the id over from whoever did: that one's commit fails.
    fn writer(&self) -> Result<BaseProducer<Writer>, KafkaError> {
        let mut config = self.settings.client();
        config
            .set("transactional.id", &self.topic)
            .set("transaction.timeout.ms", TRANSACTION_TIME_MAX.as_millis().to_string())
            .set("message.timeout.ms", TRANSACTION_TIME_MAX.as_millis().to_string())
            // An old look at the cluster may say of a topic that was just made that it is not there.
            .set("topic.metadata.propagation.max.ms", "5000");
        config.create_with_context(Writer)
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

impl Known {
    /// Reads to the end.
    fn refresh(&mut self, settings: &ClusterSettings, topic: &str) -> Result<(), LogError> {
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
        let from = self.next_offset.unwrap_or(0);
        if next < from {
            // Somebody made the topic anew.
            (self.next_offset, self.bytes) = (None, 0);
            self.roles.clear();
        }
        let from = self.next_offset.unwrap_or(first).max(first);
        if next == from {
            self.next_offset = Some(next);
            return Ok(());
        }
        let mut reader = PartitionReader::start(&reading, &place, from)?;
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
            match change.role {
                Some(role) => self.roles.insert(change.topic, role),
                None => self.roles.remove(&change.topic),
            };
            self.next_offset = Some(change.offset + 1);
            Ok(true)
        })?;
        match ended {
            Ended::AtEnd(next) => {
                self.next_offset = Some(next);
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
