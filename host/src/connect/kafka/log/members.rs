//! Members of groups that read for a command: a consumer says which partitions are whose, and commits; the records are
//! read like those of everybody else.
//!
//! Whoever reads for a member commits before it polls: what the poll takes away is given up at once.

use super::KafkaLog;
use crate::connect::kafka::context::{Trouble, log_line, note_error};
use crate::connect::kafka::errors;
use crate::connect::kafka::transactions::offsets;
use crate::connect::{Assignment, Fence, GroupOffset, LogError, TopicPartition, check_group};
use crate::limits::SESSION_TIME_MAX;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// A group that has live members takes a new one within the time in which they look up; one whose member died within its
/// session.
const JOIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a joining member looks whether it is one.
const JOIN_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A group is left within this time, or without a word.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(3);
/// Rebalances and errors that are served at once.
const EVENTS_PER_POLL: usize = 8;

/// The members of this process, by their names.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashMap<Arc<str>, Arc<Reader>>>);

/// A member.
struct Reader {
    group: Arc<str>,
    member: Arc<str>,
    consumer: BaseConsumer<Sharing>,
}

/// What the group says of a member.
#[derive(Default)]
struct Sharing {
    trouble: Trouble,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    partitions: Vec<TopicPartition>,
    /// Counts up whenever partitions move.
    generation: u64,
    /// The group has said what is its, and has not taken it back to share anew.
    settled: bool,
}

impl Sharing {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Sharing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note_error(&self.trouble, &error, reason);
    }
}

impl ConsumerContext for Sharing {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let bit_by_bit = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let assigning = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let done = match (assigning, bit_by_bit) {
            (true, true) => consumer.incremental_assign(list),
            (true, false) => consumer.assign(list),
            (false, true) => consumer.incremental_unassign(list),
            (false, false) => consumer.unassign(),
        };
        if let Err(error) = done {
            tracing::warn!(target: "millstream::kafka", "what the group says cannot be followed: {error}");
        }
        if assigning && let Err(error) = consumer.pause(list) {
            // Its records would pile up here, up to the bounds of the consumer, and no more than that.
            tracing::debug!(target: "millstream::kafka", "partitions are read twice: {error}");
        }
        let elements = list.elements();
        let named = elements
            .iter()
            .map(|element| TopicPartition::new(element.topic(), element.partition().max(0) as u32));
        let named: Vec<TopicPartition> = named.collect();
        let mut held = self.held();
        held.generation += 1;
        match (assigning, bit_by_bit) {
            (true, true) => held.partitions.extend(named),
            (true, false) => held.partitions = named,
            (false, true) => held.partitions.retain(|place| !named.contains(place)),
            (false, false) => held.partitions.clear(),
        }
        held.settled = assigning || bit_by_bit;
    }
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Reader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, group: &str, member: &str) -> Result<Arc<Reader>, LogError> {
        let found = self.lock().get(member).cloned();
        found.ok_or_else(|| LogError::UnknownMember {
            group: group.into(),
            member: member.into(),
        })
    }
}

impl KafkaLog {
    /// Waits until the group has said what is the member's, for so long as a group takes where all is well.
    pub(super) fn join_group(&self, group: &str, topics: &[Arc<str>]) -> Result<Assignment, LogError> {
        check_group(group)?;
        for topic in topics {
            self.partitions(topic)?;
        }
        let reader = Arc::new(self.make_reader(group, topics)?);
        self.members.lock().insert(reader.member.clone(), reader.clone());
        let end = Instant::now() + JOIN_TIME_MAX;
        loop {
            let assignment = match reader.poll() {
                Ok(assignment) => assignment,
                Err(error) => {
                    self.leave_group(&reader.member);
                    return Err(error);
                }
            };
            if !assignment.pending || Instant::now() >= end {
                return Ok(assignment);
            }
            std::thread::sleep(JOIN_LOOK_INTERVAL);
        }
    }

    fn make_reader(&self, group: &str, topics: &[Arc<str>]) -> Result<Reader, LogError> {
        let mut config = self.settings.client();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error");
        // Others may say so of their cluster; KIP-848 leaves it to the broker.
        if self
            .settings
            .properties
            .get("group.protocol")
            .is_none_or(|it| it != "consumer")
        {
            let session_ms = SESSION_TIME_MAX.as_millis();
            self.settings
                .set_default(&mut config, "session.timeout.ms", &session_ms.to_string());
            self.settings
                .set_default(&mut config, "heartbeat.interval.ms", &(session_ms / 4).to_string());
        }
        let context = Sharing::default();
        let trouble = context.trouble.clone();
        let failed = |error: KafkaError| errors::unavailable(&trouble, "making a consumer", &error);
        let consumer: BaseConsumer<Sharing> = config.create_with_context(context).map_err(failed)?;
        let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        consumer.subscribe(&topics).map_err(failed)?;
        Ok(Reader {
            group: group.into(),
            member: format!("member-{:016x}", rand::random::<u64>()).into(),
            consumer,
        })
    }

    pub(super) fn poll_group(&self, group: &str, member: &str) -> Result<Assignment, LogError> {
        self.members.get(group, member)?.poll()
    }

    pub(super) fn leave_group(&self, member: &str) {
        let Some(reader) = self.members.lock().remove(member) else {
            return;
        };
        // A consumer says good-bye when it is dropped, to a broker that may not answer.
        let (left, wait) = mpsc::channel();
        let leave = move || {
            drop(reader);
            let _ = left.send(());
        };
        if std::thread::Builder::new()
            .name("kafka-leave".into())
            .spawn(leave)
            .is_ok()
        {
            let _ = wait.recv_timeout(LEAVE_TIME_MAX);
        }
    }

    /// What a member has done. One that does not hold the partitions any more is no member any more.
    pub(super) fn commit_of_member(&self, fence: &Fence, done: &[GroupOffset]) -> Result<(), LogError> {
        let reader = self.members.get(&fence.group, &fence.member)?;
        let fenced = |offset: &GroupOffset| LogError::Fenced {
            group: fence.group.to_string(),
            member: fence.member.to_string(),
            generation: fence.generation,
            topic: offset.topic.to_string(),
            partition: offset.partition,
        };
        {
            let held = reader.consumer.context().held();
            let holds = |offset: &&GroupOffset| {
                let holds = |place: &TopicPartition| place.topic == offset.topic && place.partition == offset.partition;
                !held.partitions.iter().any(holds)
            };
            if let Some(offset) = done.iter().find(holds) {
                return Err(fenced(offset));
            }
        }
        let committed = reader.consumer.commit(&offsets(done.iter())?, CommitMode::Sync);
        match (committed.as_ref().err().and_then(errors::code_of), done.first()) {
            (
                Some(
                    RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::FencedInstanceId
                    | RDKafkaErrorCode::FencedMemberEpoch
                    | RDKafkaErrorCode::StaleMemberEpoch,
                ),
                Some(first),
            ) => {
                self.leave_group(&fence.member);
                Err(fenced(first))
            }
            _ => committed.map_err(|error| {
                let trouble = &reader.consumer.context().trouble;
                errors::unavailable(trouble, "committing offsets", &error)
            }),
        }
    }
}

impl Reader {
    fn poll(&self) -> Result<Assignment, LogError> {
        for _ in 0..EVENTS_PER_POLL {
            // Partitions are paused: no records come this way.
            match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Ok(_)) => {}
                Some(Err(error)) => self.judge(&error)?,
            }
        }
        let held = self.consumer.context().held();
        Ok(Assignment {
            group: self.group.clone(),
            member: self.member.clone(),
            generation: held.generation,
            partitions: held.partitions.clone(),
            pending: !held.settled,
        })
    }

    /// What does not pass by itself is told.
    fn judge(&self, error: &KafkaError) -> Result<(), LogError> {
        let trouble = &self.consumer.context().trouble;
        match errors::code_of(error) {
            Some(
                RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::InconsistentGroupProtocol
                | RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::Authentication,
            ) => Err(errors::unavailable(
                trouble,
                &format!("reading as a member of the group {:?}", self.group),
                error,
            )),
            _ => {
                tracing::debug!(target: "millstream::kafka", group = &*self.group, "{error}");
                Ok(())
            }
        }
    }
}
