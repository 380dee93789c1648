//! Members of consumer groups: one for each pipeline, all looked after by one thread.
//!
//! That thread polls a member's consumer when librdkafka says that there is news, and every now and then so that the
//! group does not take it for dead. What a rebalance asks for takes time – tasks commit before they give partitions up,
//! and offsets have to be asked for before a partition is read – and is done elsewhere meanwhile: the thread looks after
//! the others, and tells librdkafka when it is through.

use super::context::{Trouble, log_line, note_error};
use super::errors;
use super::settings::ClusterSettings;
use super::sources::KafkaSources;
use super::transactions::Transactions;
use crate::connect::{Assignee, LogError, TaskLog, TopicPartition};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A group's consumer.
pub(super) type GroupConsumer = BaseConsumer<GroupContext>;

/// A member is polled at least so often: the group takes one that is not for dead after [`POLL_INTERVAL_MAX`].
const POLL_INTERVAL: Duration = Duration::from_secs(60);
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(300);
/// How soon partitions that were added, and topics that a pattern matches, are noticed.
const METADATA_INTERVAL_MS: &str = "30000";
/// Rebalances, errors and answers that a member gets at once; its queue holds hardly ever more than two.
const EVENTS_PER_LOOK: usize = 8;
/// A group is left within this time, or without a word.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether partitions have been given up.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// What a member wants of its group.
#[derive(Clone, Debug)]
pub struct MemberSpec {
    /// The group's name.
    pub group: String,
    /// What it reads; names that begin with `^` are regular expressions.
    pub topics: Vec<String>,
    /// Partitions of the same number of all topics have to be the same member's. They are given out anew as a whole then.
    pub together: bool,
    /// Whether outputs, state and offsets become true in one transaction.
    pub exactly_once: bool,
    /// After so long without a sign of life the group gives its partitions to others.
    pub session_timeout: Duration,
}

/// What librdkafka tells of a member.
pub(super) struct GroupContext {
    pub trouble: Trouble,
    events: Mutex<VecDeque<Rebalance>>,
    /// Nobody looks after it any more: partitions go at once.
    closing: AtomicBool,
    cooperative: bool,
}

/// What a rebalance asks for.
enum Rebalance {
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>, bool),
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note_error(&self.trouble, &error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let places = places(list);
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.push(Rebalance::Assign(places));
        } else if self.closing.load(Ordering::Acquire) {
            give_up(consumer, self.cooperative, &places);
        } else {
            self.push(Rebalance::Revoke(places, consumer.assignment_lost()));
        }
    }
}

impl GroupContext {
    fn push(&self, event: Rebalance) {
        self.events().push_back(event);
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<Rebalance>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn places(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    let place = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        TopicPartition::new(element.topic(), element.partition().max(0) as u32)
    };
    elements.iter().map(place).collect()
}

fn list_of(places: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for place in places {
        list.add_partition(&place.topic, place.partition as i32);
    }
    list
}

fn give_up(consumer: &GroupConsumer, cooperative: bool, places: &[TopicPartition]) {
    let given_up = if cooperative {
        consumer.incremental_unassign(&list_of(places))
    } else {
        consumer.unassign()
    };
    if let Err(error) = given_up {
        tracing::warn!(target: "millstream::kafka", "partitions could not be given up: {error}");
    }
}

/// The thread that looks after members.
pub struct Members {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
}

#[derive(Default)]
struct Inbox {
    joined: Vec<Arc<MemberState>>,
    /// Something happened to some member.
    news: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.lock().news = true;
        self.wake.notify_one();
    }
}

/// A member of a group. It leaves when it is told to, or dropped.
pub struct Member {
    state: Arc<MemberState>,
    shared: Arc<Shared>,
}

struct MemberState {
    group: String,
    consumer: Arc<GroupConsumer>,
    sources: Arc<KafkaSources>,
    assignee: Mutex<Option<Arc<dyn Assignee>>>,
    /// There is something in the consumer's queue.
    called: Arc<AtomicBool>,
    /// It should go.
    leaving: AtomicBool,
    /// It is gone.
    left: AtomicBool,
    /// Partitions were given to it at least once, or none are there for it.
    settled: AtomicBool,
    /// What was opened and is to be assigned, put there by the thread that opened it.
    opened: Mutex<Option<TopicPartitionList>>,
}

impl Members {
    /// Starts the thread.
    pub(super) fn start() -> std::io::Result<Members> {
        let shared: Arc<Shared> = Arc::default();
        let looked_after = shared.clone();
        let thread = std::thread::Builder::new()
            .name("kafka-groups".into())
            .spawn(move || look_after(&looked_after))?;
        Ok(Members {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Makes a member, which reads nothing before [`Member::begin`].
    ///
    /// # Errors
    /// Where librdkafka does not take the settings.
    pub(super) fn join(
        &self,
        settings: &ClusterSettings,
        spec: &MemberSpec,
        transactions: Arc<Transactions>,
    ) -> Result<Member, LogError> {
        let mut config = settings.client();
        let strategy = if spec.together { "range" } else { "cooperative-sticky" };
        let session_ms = spec.session_timeout.as_millis();
        config
            .set("group.id", &spec.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("partition.assignment.strategy", strategy)
            .set("session.timeout.ms", session_ms.to_string())
            .set("heartbeat.interval.ms", (session_ms / 4).clamp(100, 3_000).to_string())
            .set("max.poll.interval.ms", POLL_INTERVAL_MAX.as_millis().to_string())
            .set("statistics.interval.ms", "0");
        settings.set_default(&mut config, "topic.metadata.refresh.interval.ms", METADATA_INTERVAL_MS);
        settings.set_default(&mut config, "fetch.queue.backoff.ms", "5");
        settings.set_default(&mut config, "queued.max.messages.kbytes", "16384");
        let trouble = Trouble::default();
        let context = GroupContext {
            trouble: trouble.clone(),
            events: Mutex::default(),
            closing: AtomicBool::new(false),
            cooperative: !spec.together,
        };
        let failed = |error: KafkaError| errors::unavailable(&trouble, "making a consumer", &error);
        let mut consumer: GroupConsumer = config.create_with_context(context).map_err(failed)?;
        let called = Arc::new(AtomicBool::new(true));
        let (heard, shared) = (called.clone(), self.shared.clone());
        consumer.set_nonempty_callback(move || {
            heard.store(true, Ordering::Release);
            shared.notify();
        });
        let consumer = Arc::new(consumer);
        let sources = KafkaSources::new(&spec.group, consumer.clone(), transactions, spec.exactly_once);
        let topics: Vec<&str> = spec.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(failed)?;
        let state = Arc::new(MemberState {
            group: spec.group.clone(),
            consumer,
            sources,
            assignee: Mutex::default(),
            called,
            leaving: AtomicBool::new(false),
            left: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            opened: Mutex::default(),
        });
        Ok(Member {
            state,
            shared: self.shared.clone(),
        })
    }

    /// Ends the thread; members that are left go at once.
    pub(super) fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.close();
    }
}

impl Member {
    /// The partitions that are its.
    pub fn sources(&self) -> Arc<dyn TaskLog> {
        self.state.sources.clone()
    }

    /// From now on the assignee hears of its partitions.
    pub fn begin(&self, assignee: Arc<dyn Assignee>) {
        *self.state.assignee.lock().unwrap_or_else(PoisonError::into_inner) = Some(assignee);
        self.shared.lock().joined.push(self.state.clone());
        self.shared.notify();
    }

    /// Gives up its partitions, commits included, and goes.
    pub fn leave(&self) {
        self.state.leaving.store(true, Ordering::Release);
        self.shared.notify();
    }

    /// Whether it has gone.
    pub fn has_left(&self) -> bool {
        self.state.left.load(Ordering::Acquire)
    }

    /// Whether the group has said what is its.
    pub fn is_settled(&self) -> bool {
        self.state.settled.load(Ordering::Acquire)
    }

    /// What is wrong with its connections, where something is.
    pub fn trouble(&self) -> Option<String> {
        self.state.consumer.context().trouble.last()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What the thread does with a member at the moment.
#[derive(Default)]
enum Doing {
    #[default]
    Nothing,
    /// Partitions are being opened.
    Opening,
    /// Partitions are being given up.
    Releasing(Vec<TopicPartition>),
    /// All of them are, and then it goes.
    Leaving(Vec<TopicPartition>),
}

struct Looked {
    member: Arc<MemberState>,
    doing: Doing,
    /// What it holds by what the group says.
    held: Vec<TopicPartition>,
    polled_at: Instant,
    gone: bool,
}

fn look_after(shared: &Arc<Shared>) {
    let mut members: Vec<Looked> = Vec::new();
    loop {
        let closed = {
            let mut inbox = shared.lock();
            let releasing = members
                .iter()
                .any(|member| matches!(member.doing, Doing::Releasing(_) | Doing::Leaving(_)));
            if !(inbox.news || inbox.closed) {
                let wait = if releasing { LOOK_INTERVAL } else { POLL_INTERVAL };
                inbox = match shared.wake.wait_timeout(inbox, wait) {
                    Ok((inbox, _)) => inbox,
                    Err(error) => error.into_inner().0,
                };
            }
            inbox.news = false;
            members.extend(inbox.joined.drain(..).map(|member| Looked {
                member,
                doing: Doing::Nothing,
                held: Vec::new(),
                polled_at: Instant::now(),
                gone: false,
            }));
            inbox.closed
        };
        for looked in &mut members {
            if closed {
                looked.go();
            } else {
                looked.look(shared);
            }
        }
        members.retain(|looked| !looked.gone);
        if closed {
            return;
        }
    }
}

impl Looked {
    fn look(&mut self, shared: &Arc<Shared>) {
        self.poll();
        self.go_on();
        if matches!(self.doing, Doing::Nothing) {
            let next = self.member.consumer.context().events().pop_front();
            match next {
                Some(Rebalance::Assign(places)) => self.open(places, shared),
                Some(Rebalance::Revoke(places, lost)) => {
                    self.assignee().revoked(&places, lost);
                    self.doing = Doing::Releasing(places);
                    self.go_on();
                }
                None if self.member.leaving.load(Ordering::Acquire) => {
                    let all = std::mem::take(&mut self.held);
                    self.assignee().revoked(&all, false);
                    self.doing = Doing::Leaving(all);
                    self.go_on();
                }
                None => {}
            }
        }
    }

    /// Serves what librdkafka has for the application; records come by other ways.
    fn poll(&mut self) {
        let due = self.polled_at.elapsed() >= POLL_INTERVAL;
        if !self.member.called.swap(false, Ordering::AcqRel) && !due {
            return;
        }
        self.polled_at = Instant::now();
        // A call serves one event, and does not say whether there was one.
        for _ in 0..EVENTS_PER_LOOK {
            if let Some(Err(error)) = self.member.consumer.poll(Duration::ZERO) {
                let said = errors::code_of(&error).map_or_else(|| error.to_string(), errors::words);
                tracing::warn!(target: "millstream::kafka", group = self.member.group, "{said}");
            }
        }
    }

    fn go_on(&mut self) {
        match std::mem::take(&mut self.doing) {
            Doing::Nothing => {}
            Doing::Opening => {
                let opened = self.member.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
                match opened {
                    None => self.doing = Doing::Opening,
                    Some(list) => self.assign(&list),
                }
            }
            Doing::Releasing(places) if self.assignee().is_free_of(&places) => {
                self.member.sources.close(&places);
                self.held.retain(|place| !places.contains(place));
                let cooperative = self.member.consumer.context().cooperative;
                let consumer = &self.member.consumer;
                self.member
                    .sources
                    .go_on(&[], || give_up(consumer, cooperative, &places));
                tracing::info!(group = self.member.group, partitions = ?names(&places), "partitions given up");
            }
            Doing::Leaving(places) if self.assignee().is_free_of(&places) => {
                self.member.sources.close(&places);
                self.go();
            }
            still => self.doing = still,
        }
    }

    /// On a thread of its own, as the broker has to be asked.
    fn open(&mut self, places: Vec<TopicPartition>, shared: &Arc<Shared>) {
        self.held.extend(places.iter().cloned());
        self.doing = Doing::Opening;
        let (member, assignee, shared) = (self.member.clone(), self.assignee(), shared.clone());
        let open = move || {
            let stop = || member.leaving.load(Ordering::Acquire);
            let list = match member.sources.learn(&places, &stop) {
                Ok(()) => member.sources.open(&assignee.assigned(&places)),
                Err(_) => TopicPartitionList::new(),
            };
            *member.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(list);
            shared.notify();
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-open".into()).spawn(open) {
            tracing::error!(group = self.member.group, "a thread could not be started: {error}");
        }
    }

    fn assign(&self, list: &TopicPartitionList) {
        let consumer = &self.member.consumer;
        // Those that it gets begin where they are told to.
        let new = places(list);
        let assigned = self.member.sources.go_on(&new, || {
            if consumer.context().cooperative {
                consumer.incremental_assign(list)
            } else {
                consumer.assign(list)
            }
        });
        match assigned {
            Ok(()) => {
                tracing::info!(group = self.member.group, partitions = ?names(&new), "partitions assigned")
            }
            Err(error) => tracing::error!(group = self.member.group, "partitions could not be assigned: {error}"),
        }
        self.member.settled.store(true, Ordering::Release);
    }

    /// Leaves the group, which gives its partitions to others at once. On a thread of its own, as the broker may not answer.
    fn go(&mut self) {
        self.gone = true;
        let member = self.member.clone();
        member.consumer.context().closing.store(true, Ordering::Release);
        let leave = move || {
            let end = Instant::now() + LEAVE_TIME_MAX;
            if member.consumer.close_queue().is_ok() {
                while !member.consumer.closed() && Instant::now() < end {
                    member.consumer.poll(Duration::from_millis(20));
                }
            }
            member.left.store(true, Ordering::Release);
        };
        if std::thread::Builder::new()
            .name("kafka-leave".into())
            .spawn(leave)
            .is_err()
        {
            self.member.left.store(true, Ordering::Release);
        }
    }

    fn assignee(&self) -> Arc<dyn Assignee> {
        let assignee = self.member.assignee.lock().unwrap_or_else(PoisonError::into_inner);
        assignee
            .clone()
            .expect("a member is looked after from its beginning on")
    }
}

fn names(places: &[TopicPartition]) -> Vec<String> {
    places.iter().map(TopicPartition::to_string).collect()
}
