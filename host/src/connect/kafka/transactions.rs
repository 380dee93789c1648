//! Commits: what a pipeline's tasks did becomes true in one transaction, with the offsets of its group.
//!
//! A few threads have a transactional producer each. A transaction belongs to one pipeline, and takes along everything
//! that its tasks have handed over by then; while it is under way, what they hand over waits for the next.

use super::changelog::KafkaChangelogs;
use super::context::{Trouble, log_line, note_error};
use super::errors;
use super::member::GroupConsumer;
use super::native::{Refused, Topics};
use super::settings::ClusterSettings;
use crate::connect::{
    Append, Commit, CommitError, Committed, Done, GroupOffset, LogError, TableAppend, TopicPartition,
};
use crate::crash::crash_point;
use crate::limits::DERIVED_RECORD_BYTES_MAX;
use crate::record::{Headers, RecordRef};
use crate::state::{SCHEMA_HEADER, TableBuffers};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Producers of a host, and so transactions at a time. Each costs librdkafka's threads, one of its own, and at most
/// 64 MiB of records on their way.
pub const PRODUCERS_MAX: usize = 4;
/// A producer that had nothing to do for so long is given up, with its threads.
const PRODUCER_IDLE_MAX: Duration = Duration::from_secs(60);
/// The broker aborts a transaction that takes longer: so long a host that died in the middle of one keeps readers waiting.
const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(10);
/// The first question of a producer to the cluster.
const INIT_TIME_MAX: Duration = Duration::from_secs(20);
/// Sending offsets, and ending a transaction: longer than the broker takes to end it by itself.
const END_TIME_MAX: Duration = Duration::from_secs(15);
/// Records on their way, by size and number. librdkafka's thread hardly sleeps while records whose time to linger is over
/// wait for one of the five requests that may be under way, each of about 1 MB: with 200,000 of usual size it took a third of
/// the processor time, with 20,000 a quarter less than that.
const QUEUE_KBYTES_MAX: u32 = 65_536;
const QUEUE_RECORDS_MAX: u32 = 20_000;
/// How often it is looked whether something was delivered.
const FLUSH_LOOK_INTERVAL: Duration = Duration::from_micros(500);
/// Records between two looks at what was delivered.
const RECORDS_PER_POLL: usize = 2_000;

/// What a task hands over.
pub(super) struct Order {
    pub group: Arc<str>,
    pub consumer: Arc<GroupConsumer>,
    pub exactly_once: bool,
    pub commit: Commit,
    pub done: Done,
}

/// The producers of a host; see the module.
pub struct Transactions {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    settings: ClusterSettings,
    /// What transactional ids begin with: this host's own.
    id: String,
    /// Hears of the changes of stores that were committed.
    changelogs: Arc<KafkaChangelogs>,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: HashMap<Arc<str>, Vec<Order>>,
    /// Groups that have something waiting and no transaction under way, the longest waiting first.
    ready: VecDeque<Arc<str>>,
    under_way: HashSet<Arc<str>>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Transactions {
    /// With transactional ids that begin so. Threads start with the first commit.
    pub(super) fn new(settings: ClusterSettings, id: String, changelogs: Arc<KafkaChangelogs>) -> Arc<Transactions> {
        Arc::new(Transactions {
            shared: Arc::new(Shared {
                settings,
                id,
                changelogs,
                queue: Mutex::default(),
                work: Condvar::new(),
            }),
            threads: Mutex::default(),
        })
    }

    /// Takes what a task did; its `done` hears what came of it.
    pub(super) fn submit(&self, order: Order) {
        let mut queue = self.shared.lock();
        if queue.closed {
            drop(queue);
            return (order.done)(Err(CommitError::Closed));
        }
        let group = order.group.clone();
        let waiting = queue.waiting.entry(group.clone()).or_default();
        waiting.push(order);
        if waiting.len() == 1 && !queue.under_way.contains(&group) {
            queue.ready.push_back(group);
            if queue.idle == 0 && queue.threads < PRODUCERS_MAX {
                let number = queue.threads;
                queue.threads += 1;
                drop(queue);
                self.start(number);
            } else {
                self.shared.work.notify_one();
            }
        }
    }

    fn start(&self, number: usize) {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("kafka-commit-{number}"))
            .spawn(move || Worker::new(shared, number).run());
        match thread {
            Ok(thread) => self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread),
            Err(error) => {
                tracing::error!(target: "millstream::kafka", "a thread could not be started: {error}");
                let orphans = {
                    let mut queue = self.shared.lock();
                    queue.threads -= 1;
                    let alone = queue.threads == 0;
                    if alone { queue.take_all() } else { Vec::new() }
                };
                refuse(
                    orphans,
                    &CommitError::Unavailable {
                        detail: error.to_string(),
                    },
                );
            }
        }
    }

    /// Ends the threads when what they have begun is through.
    pub(super) fn close(&self) {
        let left = {
            let mut queue = self.shared.lock();
            queue.closed = true;
            queue.take_all()
        };
        self.shared.work.notify_all();
        refuse(left, &CommitError::Closed);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take_all(&mut self) -> Vec<Order> {
        self.ready.clear();
        self.waiting.drain().flat_map(|(_, orders)| orders).collect()
    }
}

fn refuse(orders: Vec<Order>, error: &CommitError) {
    for order in orders {
        (order.done)(Err(error.clone()));
    }
}

/// One thread with its producers.
struct Worker {
    shared: Arc<Shared>,
    number: usize,
    transactional: Option<Outlet>,
    plain: Option<Outlet>,
}

impl Worker {
    fn new(shared: Arc<Shared>, number: usize) -> Worker {
        Worker {
            shared,
            number,
            transactional: None,
            plain: None,
        }
    }

    fn run(mut self) {
        while let Some((group, orders)) = self.next() {
            self.carry_out(orders);
            let mut queue = self.shared.lock();
            queue.under_way.remove(&group);
            if queue.waiting.get(&group).is_some_and(|waiting| !waiting.is_empty()) {
                queue.ready.push_back(group);
            }
        }
    }

    /// Waits for the next pipeline that has something to commit.
    fn next(&mut self) -> Option<(Arc<str>, Vec<Order>)> {
        let mut queue = self.shared.lock();
        loop {
            if let Some(group) = queue.ready.pop_front() {
                let orders = queue.waiting.remove(&group).unwrap_or_default();
                queue.under_way.insert(group.clone());
                return Some((group, orders));
            }
            if queue.closed {
                return None;
            }
            let has_producer = self.transactional.is_some() || self.plain.is_some();
            queue.idle += 1;
            let mut expired = false;
            queue = if has_producer {
                let waited = self.shared.work.wait_timeout(queue, PRODUCER_IDLE_MAX);
                let (queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                expired = timeout.timed_out();
                queue
            } else {
                self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner)
            };
            queue.idle -= 1;
            if expired && queue.ready.is_empty() && !queue.closed {
                drop(queue);
                self.transactional = None;
                self.plain = None;
                queue = self.shared.lock();
            }
        }
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        let Some(first) = orders.first() else { return };
        let (consumer, exactly_once) = (first.consumer.clone(), first.exactly_once);
        let (commits, done): (Vec<Commit>, Vec<Done>) =
            orders.into_iter().map(|order| (order.commit, order.done)).unzip();
        let outcome = if exactly_once {
            self.transaction(&consumer, &commits)
        } else {
            self.plainly(&consumer, &commits)
        };
        match outcome {
            Ok(committed) => {
                for ((commit, committed), done) in commits.into_iter().zip(committed).zip(done) {
                    // First, as the store is flushed when it hears of the commit.
                    self.remember(commit, &committed);
                    done(Ok(committed));
                }
            }
            Err(error) => done.into_iter().for_each(|done| done(Err(error.clone()))),
        }
    }

    /// Tells the changelogs what has become true.
    fn remember(&self, mut commit: Commit, committed: &Committed) {
        for TableAppend { append, from, .. } in commit.tables {
            let Append {
                topic,
                partition,
                blocks,
            } = &mut commit.appends[append];
            let place = TopicPartition::new(&**topic, *partition);
            self.shared
                .changelogs
                .remember(&place, from, committed.base_offsets[append], std::mem::take(blocks));
        }
    }

    /// All of it in one transaction.
    fn transaction(&mut self, consumer: &GroupConsumer, commits: &[Commit]) -> Result<Vec<Committed>, CommitError> {
        let mut outlet = match self.transactional.take() {
            Some(outlet) => outlet,
            None => {
                let id = format!("{}-{}", self.shared.id, self.number);
                Outlet::transactional(&self.shared.settings, &id)?
            }
        };
        match outlet.transaction(consumer, commits) {
            Ok(committed) => {
                self.transactional = Some(outlet);
                Ok(committed)
            }
            Err(Failed::Aborted(error)) => {
                self.transactional = Some(outlet);
                Err(error)
            }
            Err(Failed::Broken(error)) => {
                // Its successor ends what it left behind, so that nobody has to wait for the time-out.
                drop(outlet);
                let id = format!("{}-{}", self.shared.id, self.number);
                self.transactional = Outlet::transactional(&self.shared.settings, &id).ok();
                Err(error)
            }
        }
    }

    /// First the records, then the offsets: at least once.
    fn plainly(&mut self, consumer: &GroupConsumer, commits: &[Commit]) -> Result<Vec<Committed>, CommitError> {
        if self.plain.is_none() {
            self.plain = Some(Outlet::plain(&self.shared.settings)?);
        }
        let Some(outlet) = &mut self.plain else {
            return Err(CommitError::Closed);
        };
        let outcome = outlet.write(commits).and_then(|written| {
            let offsets = offsets(commits.iter().flat_map(|commit| &commit.offsets))?;
            if offsets.count() > 0 {
                let trouble = &outlet.trouble;
                let committed = consumer.commit(&offsets, CommitMode::Sync);
                committed.map_err(|error| errors::unavailable(trouble, "committing offsets", &error))?;
            }
            Ok(written)
        });
        if outcome.is_err() {
            self.plain = None;
        }
        outcome.map_err(CommitError::from)
    }
}

/// What became of a transaction that failed.
pub(super) enum Failed {
    /// It was aborted: nothing of it is true, and the producer can go on.
    Aborted(CommitError),
    /// The producer cannot be used any more.
    Broken(CommitError),
}

/// A producer.
pub(super) struct Outlet {
    // Dropped before the producer that they belong to.
    topics: Topics,
    producer: BaseProducer<Reports>,
    trouble: Trouble,
    /// Records that were handed over.
    produced: usize,
}

/// What the brokers report of delivered records.
struct Reports {
    trouble: Trouble,
    delivered: Mutex<Delivered>,
}

#[derive(Default)]
struct Delivered {
    /// Offsets of the records that were marked, by their marks, which count from 1.
    offsets: Vec<u64>,
    /// The first record that was refused: its topic and why.
    refused: Option<(String, i32, RDKafkaErrorCode)>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note_error(&self.trouble, &error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, mark: usize) {
        match result {
            Ok(_) if mark == 0 => {}
            Ok(message) => {
                let mut delivered = self.lock();
                if let Some(offset) = delivered.offsets.get_mut(mark - 1) {
                    *offset = message.offset().max(0) as u64;
                }
            }
            Err((error, message)) => {
                let code = errors::code_of(error).unwrap_or(RDKafkaErrorCode::Fail);
                let mut delivered = self.lock();
                // Of those that an abort takes back nothing is to be said.
                if !matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) {
                    let refused = || (message.topic().to_owned(), message.partition(), code);
                    delivered.refused.get_or_insert_with(refused);
                }
            }
        }
    }
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Delivered> {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet {
    pub(super) fn transactional(settings: &ClusterSettings, id: &str) -> Result<Outlet, CommitError> {
        let outlet = Outlet::new(settings, Some(id))?;
        let begun = outlet.producer.init_transactions(INIT_TIME_MAX);
        begun.map_err(|error| {
            errors::unavailable(&outlet.trouble, &format!("taking the transactional id {id:?}"), &error)
        })?;
        Ok(outlet)
    }

    pub(super) fn plain(settings: &ClusterSettings) -> Result<Outlet, CommitError> {
        Outlet::new(settings, None)
    }

    fn new(settings: &ClusterSettings, id: Option<&str>) -> Result<Outlet, CommitError> {
        let mut config = settings.client();
        config
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX.to_string())
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
            .set("statistics.interval.ms", "0");
        // All of a commit is handed over at once: there is nothing to linger for but what comes a moment later.
        settings.set_default(&mut config, "linger.ms", "2");
        let largest = (DERIVED_RECORD_BYTES_MAX + (1 << 16)).to_string();
        settings.set_default(&mut config, "message.max.bytes", &largest);
        if let Some(id) = id {
            config.set("transactional.id", id);
            config.set("transaction.timeout.ms", TRANSACTION_TIME_MAX.as_millis().to_string());
        }
        let trouble = Trouble::default();
        let reports = Reports {
            trouble: trouble.clone(),
            delivered: Mutex::default(),
        };
        let producer = config.create_with_context(reports);
        let producer = producer.map_err(|error| errors::unavailable(&trouble, "making a producer", &error))?;
        Ok(Outlet {
            topics: Topics::new(),
            producer,
            trouble,
            produced: 0,
        })
    }

    pub(super) fn transaction<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        commits: &[Commit],
    ) -> Result<Vec<Committed>, Failed> {
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| self.broken("beginning a transaction", &error))?;
        if let Err(error) = self.fill(consumer, commits) {
            return Err(self.abort(error));
        }
        crash_point("kafka-filled");
        match self.producer.commit_transaction(END_TIME_MAX) {
            Ok(()) => {
                crash_point("kafka-committed");
                self.trouble.clear();
                Ok(self.committed(commits))
            }
            Err(error) if needs_abort(&error) => {
                let error = self
                    .refusal()
                    .unwrap_or_else(|| errors::unavailable(&self.trouble, "committing", &error));
                Err(self.abort(error))
            }
            Err(error) => Err(self.broken("committing a transaction", &error)),
        }
    }

    /// Records without a transaction, each where it belongs, or an error: then some may be there.
    pub(super) fn write(&mut self, commits: &[Commit]) -> Result<Vec<Committed>, LogError> {
        self.produce_all(commits)?;
        self.flush()?;
        Ok(self.committed(commits))
    }

    /// Everything that belongs into the transaction.
    fn fill<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>, commits: &[Commit]) -> Result<(), LogError> {
        self.produce_all(commits)?;
        crash_point("kafka-produced");
        let offsets = offsets(commits.iter().flat_map(|commit| &commit.offsets))?;
        if offsets.count() > 0 {
            let member = consumer.group_metadata().ok_or(LogError::Closed)?;
            let sent = self
                .producer
                .send_offsets_to_transaction(&offsets, &member, END_TIME_MAX);
            sent.map_err(|error| errors::unavailable(&self.trouble, "committing offsets", &error))?;
        }
        crash_point("kafka-offsets-sent");
        self.flush()
    }

    /// Hands all records over; the first of each append is marked, so that its offset is known when it was delivered.
    fn produce_all(&mut self, commits: &[Commit]) -> Result<(), LogError> {
        let appends = || commits.iter().flat_map(|commit| &commit.appends);
        {
            let mut delivered = self.producer.context().lock();
            delivered.refused = None;
            delivered.offsets.clear();
            delivered.offsets.resize(appends().count(), 0);
        }
        let mut mark = 0;
        let mut buffers = TableBuffers::default();
        for commit in commits {
            for (at, append) in commit.appends.iter().enumerate() {
                mark += 1;
                let table = commit.tables.iter().find(|table| table.append == at);
                let (mut mark, mut outcome) = (mark, Ok(()));
                append.blocks.each(|record| {
                    if outcome.is_ok() {
                        let mark = std::mem::take(&mut mark);
                        outcome = match table {
                            None => self.produce(append, &record, mark),
                            Some(table) => self.produce_change(append, table, record, &mut buffers, mark),
                        };
                    }
                });
                outcome?;
            }
        }
        Ok(())
    }

    /// A change of a store, as others read it.
    fn produce_change(
        &mut self,
        append: &Append,
        table: &TableAppend,
        change: RecordRef<'_>,
        buffers: &mut TableBuffers,
        mark: usize,
    ) -> Result<(), LogError> {
        let row = table.codec.encode(change, buffers);
        let headers: Headers = match row.schema {
            Some(schema) => [(SCHEMA_HEADER, Some(schema))].into_iter().collect(),
            None => Headers::default(),
        };
        let record = RecordRef {
            key: Some(row.key),
            value: row.value,
            headers: headers.as_ref(),
            timestamp_ms: row.timestamp_ms,
            offset: 0,
        };
        self.produce(append, &record, mark)
    }

    fn produce(&mut self, append: &Append, record: &RecordRef<'_>, mark: usize) -> Result<(), LogError> {
        self.produced = self.produced.wrapping_add(1);
        if self.produced.is_multiple_of(RECORDS_PER_POLL) {
            self.producer.poll(Duration::ZERO);
        }
        let end = Instant::now() + END_TIME_MAX;
        loop {
            let client = self.producer.client();
            match self
                .topics
                .produce(client, &append.topic, append.partition, record, mark)
            {
                Ok(()) => return Ok(()),
                Err(Refused::Full) if Instant::now() < end => self.wait_for_reports(),
                Err(Refused::Full) => {
                    let said = self.trouble.explain("the brokers take no records");
                    return Err(LogError::Unavailable {
                        detail: format!("writing to {:?}: {said}", append.topic),
                    });
                }
                Err(Refused::Code(code)) => {
                    return Err(LogError::Unavailable {
                        detail: format!(
                            "writing to {}[{}]: {}",
                            append.topic,
                            append.partition,
                            errors::words(code)
                        ),
                    });
                }
            }
        }
    }

    /// Waits until everything was delivered, or refused.
    fn flush(&mut self) -> Result<(), LogError> {
        let end = Instant::now() + END_TIME_MAX;
        // rdkafka's own looks ten times a second, and librdkafka's wakes the threads of all brokers with each look.
        while self.producer.in_flight_count() > 0 {
            if Instant::now() >= end {
                let said = self.trouble.explain("the brokers do not answer");
                return Err(self.refusal().unwrap_or(LogError::Unavailable {
                    detail: format!("writing records: {said}"),
                }));
            }
            self.wait_for_reports();
        }
        self.refusal().map_or(Ok(()), Err)
    }

    /// Takes what the brokers report, and waits a moment where there is nothing.
    fn wait_for_reports(&self) {
        // rdkafka's polling for a time is busy in the last millisecond of it.
        let left = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() == left {
            std::thread::sleep(FLUSH_LOOK_INTERVAL);
        }
    }

    /// The first record that was refused since the last call of [`Outlet::produce_all`].
    fn refusal(&self) -> Option<LogError> {
        let delivered = self.producer.context().lock();
        let (topic, partition, code) = delivered.refused.as_ref()?;
        Some(LogError::Unavailable {
            detail: format!("writing to {topic}[{partition}]: {}", errors::words(*code)),
        })
    }

    fn committed(&self, commits: &[Commit]) -> Vec<Committed> {
        let delivered = self.producer.context().lock();
        let mut offsets = delivered.offsets.iter().copied();
        let of_commit = |commit: &Commit| Committed {
            base_offsets: offsets.by_ref().take(commit.appends.len()).collect(),
        };
        commits.iter().map(of_commit).collect()
    }

    fn abort(&self, why: LogError) -> Failed {
        // What waits for delivery would keep the abort waiting.
        let aborted = self.producer.abort_transaction(END_TIME_MAX);
        let settled = self.producer.flush(END_TIME_MAX);
        match aborted.and(settled) {
            Ok(()) => Failed::Aborted(why.into()),
            Err(error) => {
                tracing::debug!(target: "millstream::kafka", "a transaction could not be aborted: {error}");
                Failed::Broken(CommitError::Unknown {
                    detail: why.to_string(),
                })
            }
        }
    }

    fn broken(&self, doing: &str, error: &KafkaError) -> Failed {
        let fenced = matches!(
            errors::code_of(error),
            Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
        );
        let detail = if fenced {
            format!(
                "{doing}: another process took the transactional id over; where two hosts run from copies of one data \
                 folder, give each its own"
            )
        } else {
            errors::unavailable(&self.trouble, doing, error).to_string()
        };
        Failed::Broken(CommitError::Unknown { detail })
    }
}

fn needs_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}

/// Offsets as librdkafka wants them; of a partition that is named twice the last counts.
pub(super) fn offsets<'o>(offsets: impl Iterator<Item = &'o GroupOffset>) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    for offset in offsets {
        let mut element = list.add_partition(&offset.topic, offset.partition as i32);
        let set = element.set_offset(Offset::Offset(offset.next_offset as i64));
        set.map_err(|error| LogError::Unavailable {
            detail: error.to_string(),
        })?;
        if !offset.metadata.is_empty() {
            element.set_metadata(&offset.metadata);
        }
    }
    Ok(list)
}
