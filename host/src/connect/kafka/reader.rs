//! Partitions read by their offsets, for those who are no members of a group: changelogs and the catalog.
//!
//! librdkafka's older interface does it: it knows no groups, so it asks no coordinator and needs no right to use one, each
//! partition has a queue of its own from the first record on, and the end of a partition is told with its offset, behind
//! the markers of transactions.
#![allow(unsafe_code)]

use super::ClusterSettings;
use super::admin::{Admin, AskError, EARLIEST, LATEST};
use super::context::{Quiet, Trouble};
use super::errors;
use super::native;
use super::places::Place;
use crate::connect::{LogError, TopicPartition};
use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use std::ffi::{CString, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What librdkafka reads ahead of one partition: as much as one fetch brings.
const QUEUED_KBYTES: &str = "4096";
/// Messages of one call into librdkafka.
const MESSAGES_MAX: usize = 512;
/// How often a partition is looked at that has no leader just now.
pub(super) const MOVING_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What brokers know of a partition that moves, within this; then it is asked for its ends all the same.
const METADATA_TIME_MAX: Duration = Duration::from_secs(1);
/// An answer of a broker.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// A client that reads. Every one has threads of its own: one, and one a broker.
pub(super) struct Reading {
    client: BaseConsumer<Quiet>,
    trouble: Trouble,
    isolation: Isolation,
}

/// Whether a partition has no leader just now: it was just made, or moves to another broker.
pub(super) fn is_moving(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::ReplicaNotAvailable
            | RDKafkaErrorCode::FencedLeaderEpoch
            | RDKafkaErrorCode::UnknownLeaderEpoch
    )
}

/// What is seen of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// What is committed, up to where the first open transaction begins.
    Committed,
    /// Everything that was written.
    Uncommitted,
}

impl Reading {
    /// # Errors
    /// Where a property is none that librdkafka takes.
    pub(super) fn new(settings: &ClusterSettings, isolation: Isolation) -> Result<Arc<Reading>, LogError> {
        let level = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let mut config = settings.client();
        config.remove("group.id");
        config
            .set("isolation.level", level)
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", QUEUED_KBYTES)
            .set("fetch.queue.backoff.ms", "5")
            // Until a topic is known nothing is read of it.
            .set("topic.metadata.refresh.fast.interval.ms", "10");
        // Behind the last record the end is told by an answer that brings nothing. Nobody reads on from there.
        settings.set_default(&mut config, "fetch.wait.max.ms", "10");
        let context = Quiet::default();
        let trouble = context.trouble.clone();
        let client: BaseConsumer<Quiet> = config
            .create_with_context(context)
            .map_err(|error| errors::making(&settings.properties, &error))?;
        Ok(Arc::new(Reading {
            client,
            trouble,
            isolation,
        }))
    }

    /// The offset of the first record that is there, and the one behind the last that is seen.
    ///
    /// # Errors
    /// Where partition or cluster are not there.
    pub(super) fn ends(&self, tp: &TopicPartition) -> Result<(u64, u64), LogError> {
        let first = self.end(tp, EARLIEST)?;
        // What is dropped meanwhile lies before it.
        Ok((first, self.end(tp, LATEST)?.max(first)))
    }

    fn end(&self, tp: &TopicPartition, which: i64) -> Result<u64, LogError> {
        let until = Instant::now() + ANSWER_TIME_MAX;
        let committed = self.isolation == Isolation::Committed;
        loop {
            let asked = Admin(&self.client).offsets(&[(tp.clone(), which)], committed);
            let code = match asked {
                Ok(places) => match places.first() {
                    Some(Place {
                        error: None, offset, ..
                    }) => return Ok((*offset).max(0) as u64),
                    place => place.and_then(|place| place.error).unwrap_or(RDKafkaErrorCode::Fail),
                },
                Err(AskError::Log(error)) => return Err(error),
                Err(AskError::Refused(refusal)) => refusal.code,
            };
            // Of a partition that has no leader librdkafka does not say why.
            let code = match code {
                RDKafkaErrorCode::NoEnt => self.why_without_leader(tp),
                code => code,
            };
            if !is_moving(code) || Instant::now() >= until {
                return Err(match failure(code, tp, 0) {
                    LogError::Unavailable { .. } => {
                        let said = self.trouble.explain(&errors::words(code));
                        LogError::Unavailable {
                            detail: format!("asking for the ends of {tp}: {said}"),
                        }
                    }
                    other => other,
                });
            }
            // What librdkafka knows of the partition is old, and it does not ask by itself.
            let _ = self.client.fetch_metadata(Some(&tp.topic), METADATA_TIME_MAX);
            std::thread::sleep(MOVING_LOOK_INTERVAL);
        }
    }

    fn why_without_leader(&self, tp: &TopicPartition) -> RDKafkaErrorCode {
        let metadata = match self.client.fetch_metadata(Some(&tp.topic), ANSWER_TIME_MAX) {
            Ok(metadata) => metadata,
            Err(error) => return error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
        };
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == &*tp.topic) else {
            return RDKafkaErrorCode::UnknownTopicOrPartition;
        };
        let is_there = topic.partitions().iter().any(|known| known.id() == tp.partition as i32);
        match topic.error() {
            Some(error) => error.into(),
            None if is_there => RDKafkaErrorCode::LeaderNotAvailable,
            None => RDKafkaErrorCode::UnknownPartition,
        }
    }

    /// Whoever asks other questions than for records.
    pub(super) fn client(&self) -> &BaseConsumer<Quiet> {
        &self.client
    }

    /// What is wrong with its connections.
    pub(super) fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// Hears what librdkafka has to say, which would otherwise pile up.
    pub(super) fn serve(&self) {
        while let Some(event) = self.client.poll(Duration::ZERO) {
            if let Err(error) = event {
                tracing::debug!(target: "millstream::kafka", %error, "a reader");
            }
        }
    }
}

/// A record that is no more than lent.
pub(super) struct Lent<'m> {
    pub offset: u64,
    pub timestamp_ms: i64,
    pub key: Option<&'m [u8]>,
    pub value: Option<&'m [u8]>,
    message: *mut c::rd_kafka_message_t,
}

/// Why a turn of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// There is no more before this offset, which is the end.
    AtEnd(u64),
    /// Enough was taken.
    Enough,
    /// The time was over.
    Late,
}

/// One partition that is being read.
pub(super) struct PartitionReader {
    topic: *mut c::rd_kafka_topic_t,
    queue: *mut c::rd_kafka_queue_t,
    tp: TopicPartition,
    /// The offset that comes next.
    pub position: u64,
    // Given back last: the others are parts of it.
    reading: Arc<Reading>,
}

// SAFETY: librdkafka's topics and queues may be used from any thread.
unsafe impl Send for PartitionReader {}

impl PartitionReader {
    /// Begins to read at an offset. A partition has one reader at a time of a client.
    ///
    /// # Errors
    /// Where librdkafka refuses it.
    pub(super) fn start(reading: &Arc<Reading>, tp: &TopicPartition, from: u64) -> Result<PartitionReader, LogError> {
        let refused = || LogError::UnknownTopic {
            topic: tp.topic.to_string(),
        };
        let name = CString::new(&*tp.topic).map_err(|_| refused())?;
        // SAFETY: the client lives, the name is a C string; topic and queue are ours until they are given back.
        unsafe {
            let client = reading.client.client().native_ptr();
            let topic = c::rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut());
            if topic.is_null() {
                return Err(refused());
            }
            let queue = c::rd_kafka_queue_new(client);
            let reader = PartitionReader {
                topic,
                queue,
                tp: tp.clone(),
                position: from,
                reading: reading.clone(),
            };
            if c::rd_kafka_consume_start_queue(topic, tp.partition as i32, from as i64, queue) != 0 {
                return Err(failure(c::rd_kafka_last_error().into(), tp, from));
            }
            Ok(reader)
        }
    }

    /// Shows committed records to `visit` until it says that it has enough, there are no more, or it is late.
    ///
    /// # Errors
    /// Where the partition cannot be read; the reader is to be given up then.
    pub(super) fn read(
        &mut self,
        until: Instant,
        mut visit: impl FnMut(Lent<'_>) -> Result<bool, LogError>,
    ) -> Result<Ended, LogError> {
        self.reading.serve();
        let mut messages = [ptr::null_mut(); MESSAGES_MAX];
        loop {
            // One is waited for, the rest is taken as it is there.
            let wait = until.saturating_duration_since(Instant::now());
            let mut count = self.take(wait, &mut messages[..1]);
            if count == 0 {
                return Ok(Ended::Late);
            }
            count += self.take(Duration::ZERO, &mut messages[1..]);
            let mut outcome = Ok(None);
            for &message in &messages[..count] {
                if let Ok(ended) = outcome {
                    // What was taken is shown, though it was enough before: it does not come again.
                    outcome = self.show(message, &mut visit).map(|said| said.or(ended));
                }
                // SAFETY: each message that was given is destroyed once.
                unsafe { c::rd_kafka_message_destroy(message) };
            }
            if let Some(ended) = outcome? {
                return Ok(ended);
            }
        }
    }

    fn take(&self, wait: Duration, messages: &mut [*mut c::rd_kafka_message_t]) -> usize {
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the array has as many places.
        let count =
            unsafe { c::rd_kafka_consume_batch_queue(self.queue, wait_ms, messages.as_mut_ptr(), messages.len()) };
        usize::try_from(count).unwrap_or(0)
    }

    fn show(
        &mut self,
        pointer: *mut c::rd_kafka_message_t,
        visit: &mut impl FnMut(Lent<'_>) -> Result<bool, LogError>,
    ) -> Result<Option<Ended>, LogError> {
        // SAFETY: the message is valid until it is destroyed, behind this call; pointers and lengths belong together.
        let lent = unsafe {
            let message = &*pointer;
            match message.err {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                    self.position = self.position.max(message.offset.max(0) as u64);
                    return Ok(Some(Ended::AtEnd(self.position)));
                }
                failed => return Err(failure(failed.into(), &self.tp, self.position)),
            }
            let part = |at: *mut c_void, length: usize| {
                (!at.is_null()).then(|| slice::from_raw_parts(at.cast::<u8>(), length))
            };
            let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            Lent {
                offset: message.offset.max(0) as u64,
                timestamp_ms: c::rd_kafka_message_timestamp(pointer, &mut kind),
                key: part(message.key, message.key_len),
                value: part(message.payload, message.len),
                message: pointer,
            }
        };
        self.position = lent.offset + 1;
        Ok((!visit(lent)?).then_some(Ended::Enough))
    }
}

impl Drop for PartitionReader {
    fn drop(&mut self) {
        // SAFETY: it was started, or refused, which stopping does not mind; topic and queue are given back once.
        unsafe {
            c::rd_kafka_consume_stop(self.topic, self.tp.partition as i32);
            c::rd_kafka_queue_destroy(self.queue);
            c::rd_kafka_topic_destroy(self.topic);
        }
    }
}

impl<'m> Lent<'m> {
    /// Names and values of all of its headers.
    pub(super) fn headers(&self) -> Vec<(&'m str, Option<&'m [u8]>)> {
        // SAFETY: the message outlives what is lent of it.
        unsafe { native::headers(self.message) }
    }

    /// The value of the last header of this name; outer `None` where there is none.
    pub(super) fn header(&self, name: &std::ffi::CStr) -> Option<Option<&'m [u8]>> {
        let mut headers = ptr::null_mut();
        let (mut value, mut length) = (ptr::null(), 0);
        // SAFETY: headers and value belong to the message, which outlives what is lent of it.
        unsafe {
            let there = c::rd_kafka_message_headers(self.message, &mut headers);
            if there != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            let found = c::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut length);
            let bytes = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), length));
            (found == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(bytes)
        }
    }
}

/// Why a partition cannot be read.
fn failure(code: RDKafkaErrorCode, tp: &TopicPartition, at: u64) -> LogError {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition => LogError::UnknownTopic {
            topic: tp.topic.to_string(),
        },
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => LogError::OffsetOutOfRange {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            offset: at,
            first: at,
            next: at,
        },
        RDKafkaErrorCode::TopicAuthorizationFailed => LogError::Unavailable {
            detail: format!("reading {tp}: no right to read the topic: the broker's ACLs refuse it"),
        },
        code => LogError::Unavailable {
            detail: format!("reading {tp} at offset {at}: {code}"),
        },
    }
}

/// What was being done could not be done now.
pub(super) fn unavailable(doing: &str, error: &KafkaError) -> LogError {
    let said = error
        .rdkafka_error_code()
        .map_or_else(|| error.to_string(), |code| code.to_string());
    LogError::Unavailable {
        detail: format!("{doing}: {said}"),
    }
}
