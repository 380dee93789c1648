//! The partitions that are a member's to read, each with a queue of its own, as the tasks of a pipeline see them.

use super::errors;
use super::member::GroupConsumer;
use super::native::{PartitionQueue, Taken, known_end};
use super::places;
use super::transactions::{Order, Transactions};
use crate::connect::{
    Commit, CommitError, Done, Fetched, FetchedBuilder, GroupOffset, LogError, Resume, TaskLog, TopicPartition, Watch,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

/// How long one question to the broker may take, and how long the next one waits after one that failed.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);
const ASK_AGAIN_TIME: Duration = Duration::from_millis(500);

type Notify = Arc<dyn Fn() + Send + Sync>;

/// See the module.
pub struct KafkaSources {
    group: Arc<str>,
    consumer: Arc<GroupConsumer>,
    transactions: Arc<Transactions>,
    exactly_once: bool,
    places: RwLock<HashMap<TopicPartition, Arc<Partition>>>,
    /// Whether a thread is asking where the group stands.
    asking: AtomicBool,
    /// Itself, for that thread.
    this: Weak<KafkaSources>,
}

/// A partition that is read.
#[derive(Default)]
struct Partition {
    /// Apart, as librdkafka's threads call them and must never be the last to hold the queue.
    watchers: Arc<Watchers>,
    state: Mutex<Reading>,
}

/// Who wants to hear of news of a partition.
#[derive(Default)]
struct Watchers(Mutex<(u64, Vec<(u64, Notify)>)>);

impl Watchers {
    fn add(&self, notify: Notify) -> u64 {
        let mut watchers = self.lock();
        watchers.0 += 1;
        let id = watchers.0;
        watchers.1.push((id, notify));
        id
    }

    fn remove(&self, id: u64) {
        self.lock().1.retain(|(other, _)| *other != id);
    }

    fn notify(&self) {
        let watchers: Vec<Notify> = self.lock().1.iter().map(|(_, notify)| notify.clone()).collect();
        watchers.iter().for_each(|notify| notify());
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<(u64, Notify)>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Reading {
    /// None before the partition is assigned.
    queue: Option<PartitionQueue<super::member::GroupContext>>,
    /// What the queue gives next.
    next: u64,
    /// Everything up to `next` is all there is.
    at_end: bool,
    /// Whether librdkafka may go on elsewhere than at `next`; see [`KafkaSources::go_on`].
    doubtful: bool,
    /// Where the group goes on; none where that is not known.
    committed: Option<Resume>,
    /// Why the partition cannot be read, to be told once what was read before is processed.
    failed: Option<RDKafkaErrorCode>,
}

impl Partition {
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KafkaSources {
    pub(super) fn new(
        group: &str,
        consumer: Arc<GroupConsumer>,
        transactions: Arc<Transactions>,
        exactly_once: bool,
    ) -> Arc<KafkaSources> {
        Arc::new_cyclic(|this| KafkaSources {
            group: group.into(),
            consumer,
            transactions,
            exactly_once,
            places: RwLock::default(),
            asking: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    /// Asks where the group goes on reading these, and notes it. Waits until that is known, or `stop` says not to.
    ///
    /// # Errors
    /// What the broker said last, where it was stopped.
    pub(super) fn learn(&self, places: &[TopicPartition], stop: &dyn Fn() -> bool) -> Result<(), LogError> {
        let mut said = false;
        loop {
            match self.ask(places) {
                Ok(known) => {
                    let mut partitions = self.places.write().unwrap_or_else(PoisonError::into_inner);
                    for (place, resume) in known {
                        let partition = partitions.entry(place).or_default();
                        partition.reading().committed = Some(resume);
                    }
                    return Ok(());
                }
                Err(error) if stop() => return Err(error),
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(group = &*self.group, "waiting for the committed offsets: {error}");
                    }
                    std::thread::sleep(ASK_AGAIN_TIME);
                }
            }
        }
    }

    fn ask(&self, places: &[TopicPartition]) -> Result<Vec<(TopicPartition, Resume)>, LogError> {
        let mut asked = TopicPartitionList::new();
        for place in places {
            asked.add_partition(&place.topic, place.partition as i32);
        }
        let trouble = &self.consumer.context().trouble;
        let failed = |error| errors::unavailable(trouble, "asking where the group goes on", &error);
        let committed = self.consumer.committed_offsets(asked, ASK_TIME_MAX).map_err(failed)?;
        let committed = places::of(&committed);
        let mut known = Vec::with_capacity(places.len());
        for place in places {
            let found = committed.iter().find(|found| found.tp == *place && found.offset >= 0);
            let resume = match found {
                Some(found) => Resume {
                    offset: found.offset as u64,
                    metadata: found.metadata.clone(),
                },
                None => Resume {
                    offset: self.first_offset(place)?,
                    metadata: String::new(),
                },
            };
            known.push((place.clone(), resume));
        }
        Ok(known)
    }

    fn first_offset(&self, place: &TopicPartition) -> Result<u64, LogError> {
        let ends = self
            .consumer
            .fetch_watermarks(&place.topic, place.partition as i32, ASK_TIME_MAX);
        let trouble = &self.consumer.context().trouble;
        let (first, _) =
            ends.map_err(|error| errors::unavailable(trouble, "asking where a partition begins", &error))?;
        Ok(first.max(0) as u64)
    }

    /// Asks on a thread of its own for all places of which it is not known where the group goes on.
    fn ask_for_unknown(&self) {
        if self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(this) = self.this.upgrade() else { return };
        let ask = move || {
            let unknown = || -> Vec<TopicPartition> {
                let places = this.places.read().unwrap_or_else(PoisonError::into_inner);
                let unknown = places
                    .iter()
                    .filter(|(_, partition)| partition.reading().committed.is_none());
                unknown.map(|(place, _)| place.clone()).collect()
            };
            loop {
                let asked = unknown();
                if asked.is_empty() {
                    this.asking.store(false, Ordering::Release);
                    // One that became unknown since has nobody who asks for it.
                    if unknown().is_empty() || this.asking.swap(true, Ordering::AcqRel) {
                        return;
                    }
                    continue;
                }
                // A member that is gone needs no answer.
                let gone = || Arc::strong_count(&this) == 1;
                if this.learn(&asked, &gone).is_err() {
                    return;
                }
                for place in &asked {
                    if let Ok(partition) = this.partition(place) {
                        partition.watchers.notify();
                    }
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-ask".into()).spawn(ask) {
            tracing::error!(group = &*self.group, "a thread could not be started: {error}");
            self.asking.store(false, Ordering::Release);
        }
    }

    /// Gives the queues of these to their tasks, and says from where they are to be assigned.
    pub(super) fn open(&self, places: &[TopicPartition]) -> TopicPartitionList {
        let mut assigned = TopicPartitionList::new();
        for place in places {
            let Ok(partition) = self.partition(place) else { continue };
            let watchers = partition.watchers.clone();
            let queue = PartitionQueue::split(&self.consumer, place, move || watchers.notify());
            let mut reading = partition.reading();
            let offset = reading.committed.as_ref().map_or(0, |resume| resume.offset);
            reading.queue = queue;
            reading.next = offset;
            reading.at_end = false;
            reading.doubtful = false;
            reading.failed = None;
            let offset = Offset::Offset(offset as i64);
            if let Err(error) = assigned.add_partition_offset(&place.topic, place.partition as i32, offset) {
                tracing::error!(group = &*self.group, %place, "cannot be assigned: {error}");
            }
        }
        assigned
    }

    /// Lets all partitions go on, which a rebalance has paused: librdkafka goes on behind what it gave out last, and takes the
    /// end of a partition, which it gives out as an event, for a record. So each is told again where to read, but for those
    /// that are `new`; whatever was fetched before is not taken. Whoever reads them looks: as long as something lies in a queue
    /// that is out of date, librdkafka does not tell of what comes behind it.
    pub(super) fn go_on<T>(&self, new: &[TopicPartition], let_go_on: impl FnOnce() -> T) -> T {
        let read = self.read();
        for (place, partition) in &read {
            partition.reading().doubtful = !new.contains(place);
        }
        let outcome = let_go_on();
        for (place, partition) in &read {
            let mut reading = partition.reading();
            // Somebody may have read it since, and told librdkafka.
            if reading.doubtful {
                let next = reading.next;
                if let Err(error) = reading.seek(&self.consumer, place, next) {
                    // It stays doubtful: whoever reads it next tries again.
                    tracing::debug!(target: "millstream::kafka", %place, "{error}");
                }
            }
            drop(reading);
            partition.watchers.notify();
        }
        outcome
    }

    /// The partitions that are read.
    fn read(&self) -> Vec<(TopicPartition, Arc<Partition>)> {
        // Apart: a partition may be locked by somebody who waits for a broker.
        let all = self.places.read().unwrap_or_else(PoisonError::into_inner).clone();
        let is_read = |(_, partition): &(_, Arc<Partition>)| partition.reading().queue.is_some();
        all.into_iter().filter(is_read).collect()
    }

    /// These are no longer read.
    pub(super) fn close(&self, places: &[TopicPartition]) {
        let mut partitions = self.places.write().unwrap_or_else(PoisonError::into_inner);
        for place in places {
            partitions.remove(place);
        }
    }

    fn partition(&self, place: &TopicPartition) -> Result<Arc<Partition>, LogError> {
        let partitions = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let found = partitions.get(place).cloned();
        found.ok_or_else(|| LogError::Unavailable {
            detail: format!("{place} is another member's by now"),
        })
    }

    fn failure(&self, place: &TopicPartition, from: u64, failed: RDKafkaErrorCode) -> LogError {
        match failed {
            // What the group's offset names is not there: retention dropped it, or it lies behind the end.
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                let ends = self
                    .consumer
                    .fetch_watermarks(&place.topic, place.partition as i32, ASK_TIME_MAX);
                let (first, next) = ends.unwrap_or((0, 0));
                LogError::OffsetOutOfRange {
                    topic: place.topic.to_string(),
                    partition: place.partition,
                    offset: from,
                    first: first.max(0) as u64,
                    next: next.max(0) as u64,
                }
            }
            failed => LogError::Unavailable {
                detail: format!("{place}: {}", errors::words(failed)),
            },
        }
    }

    /// What a commit came to: from now on its offsets are where the group goes on, or it has to be asked again.
    fn note_outcome(&self, offsets: &[GroupOffset], outcome: Option<&CommitError>) {
        for offset in offsets {
            let place = TopicPartition {
                topic: offset.topic.clone(),
                partition: offset.partition,
            };
            let Ok(partition) = self.partition(&place) else {
                continue;
            };
            let mut reading = partition.reading();
            match outcome {
                None => {
                    reading.committed = Some(Resume {
                        offset: offset.next_offset,
                        metadata: offset.metadata.clone(),
                    });
                }
                Some(CommitError::Unknown { .. }) => reading.committed = None,
                Some(_) => {}
            }
        }
    }
}

impl Reading {
    /// Moves to where somebody reads on.
    fn seek(
        &mut self,
        consumer: &BaseConsumer<super::member::GroupContext>,
        place: &TopicPartition,
        to: u64,
    ) -> Result<(), LogError> {
        let offset = Offset::Offset(to as i64);
        let sought = consumer.seek(&place.topic, place.partition as i32, offset, Duration::ZERO);
        sought.map_err(|error| LogError::Unavailable {
            detail: format!("{place} cannot be read from offset {to}: {error}"),
        })?;
        self.next = to;
        self.at_end = false;
        self.doubtful = false;
        self.failed = None;
        Ok(())
    }
}

impl TaskLog for KafkaSources {
    fn resume(&self, place: &TopicPartition) -> Result<Option<Resume>, LogError> {
        let committed = self.partition(place)?.reading().committed.clone();
        if committed.is_none() {
            self.ask_for_unknown();
        }
        Ok(committed)
    }

    fn fetch(&self, place: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError> {
        let partition = self.partition(place)?;
        let mut reading = partition.reading();
        if reading.next != from || reading.doubtful {
            reading.seek(&self.consumer, place, from)?;
        }
        if let Some(failed) = reading.failed.take() {
            return Err(self.failure(place, from, failed));
        }
        let mut fetched = FetchedBuilder::at(from);
        let (mut at_end, mut failed) = (reading.at_end, None);
        if let Some(queue) = &reading.queue {
            queue.take(|taken| match taken {
                Taken::Record(record) => {
                    at_end = false;
                    fetched.push(record);
                    fetched.bytes() < bytes_max
                }
                Taken::End(offset) => {
                    fetched.pass_to(offset);
                    at_end = true;
                    true
                }
                Taken::Failed(code) => {
                    failed = Some(code);
                    false
                }
            });
        }
        reading.at_end = at_end;
        reading.next = fetched.next_offset();
        match failed {
            Some(code) if fetched.is_empty() => Err(self.failure(place, from, code)),
            later => {
                reading.failed = later;
                Ok(fetched.finish())
            }
        }
    }

    fn is_at_end(&self, place: &TopicPartition) -> bool {
        self.partition(place).is_ok_and(|partition| partition.reading().at_end)
    }

    fn lag(&self, place: &TopicPartition) -> Option<u64> {
        let partition = self.partition(place).ok()?;
        let (committed, next, at_end) = {
            let reading = partition.reading();
            (reading.committed.as_ref()?.offset, reading.next, reading.at_end)
        };
        let end = if at_end {
            next
        } else {
            known_end(&self.consumer, place)?
        };
        Some(end.saturating_sub(committed))
    }

    fn watch(&self, place: &TopicPartition, notify: Notify) -> Watch {
        let Ok(partition) = self.partition(place) else {
            return Box::new(());
        };
        let id = partition.watchers.add(notify);
        Box::new(Watcher {
            watchers: Arc::downgrade(&partition.watchers),
            id,
        })
    }

    fn submit(&self, commit: Commit, done: Done) {
        let Some(this) = self.this.upgrade() else {
            return done(Err(CommitError::Closed));
        };
        let offsets = commit.offsets.clone();
        let order = Order {
            group: self.group.clone(),
            consumer: self.consumer.clone(),
            exactly_once: self.exactly_once,
            commit,
            done: Box::new(move |outcome| {
                this.note_outcome(&offsets, outcome.as_ref().err());
                done(outcome);
            }),
        };
        self.transactions.submit(order);
    }
}

/// Stops watching when it is dropped.
struct Watcher {
    watchers: Weak<Watchers>,
    id: u64,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(watchers) = self.watchers.upgrade() {
            watchers.remove(self.id);
        }
    }
}
