//! The one thread that writes: it takes what waits, makes one atomic, synced batch of it, and answers.
//!
//! Whatever waits together is synced together: the more callers, the fewer syncs for each. In memory nothing moves
//! before the batch is on the disk. After any error of the disk the engine is closed and opened again, and everything
//! in memory is read anew: what the disk says is what is true.

use super::engine::{Engine, StoredOffset, encode_end, end_key, generation_key, io_error, is_full, offset_key};
use super::journal::encode_number;
use super::queue::Popped;
use super::reading::Home;
use super::topic::{End, Generation, Head, Topic, bytes_between};
use super::{Down, Shared, time_index};
use crate::connect::membership::Membership;
use crate::connect::{
    Block, Commit, CommitError, Committed, Fence, GroupOffset, LogError, TopicPartition, TopicRole, TopicSpec,
    check_group,
};
use crate::crash::crash_point;
use crate::limits::{BATCH_COMMIT_BYTES_MAX, CALLER_COMMIT_BYTES_MAX, SHARED_GENERATION_BYTES_MAX};
use crate::record::now_ms;
use fjall::{AbstractTree, Keyspace, OwnedWriteBatch, PersistMode};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// Called with a commit's outcome, on the committer's thread.
pub(super) type Done = Box<dyn FnOnce(Result<Committed, CommitError>) + Send>;

pub(super) enum Job {
    Commit(PendingCommit),
    Change(Change, SyncSender<Result<(), CommitError>>),
}

/// A change of topics or groups.
pub(super) enum Change {
    CreateTopic(TopicSpec),
    DeleteTopic(String),
    /// Topics that are deleted, and offsets that are set, together.
    Reset(Vec<String>, Vec<GroupOffset>),
    DeleteGroup(String),
    SetTopicRole(String, Box<TopicRole>),
}

/// A commit whose blocks are finished.
pub(super) struct PendingCommit {
    appends: Vec<PendingAppend>,
    offsets: Vec<GroupOffset>,
    fence: Option<Fence>,
    bytes: usize,
    done: Done,
}

struct PendingAppend {
    topic: Arc<str>,
    partition: u32,
    blocks: Vec<Block>,
}

impl PendingCommit {
    /// Finishes the blocks of a commit: sums are calculated here, on the caller's thread.
    pub(super) fn new(commit: Commit, done: Done) -> Self {
        let append = |append: crate::connect::Append| PendingAppend {
            topic: append.topic,
            partition: append.partition,
            blocks: append.blocks.finish(),
        };
        let appends: Vec<_> = commit.appends.into_iter().map(append).collect();
        let bytes = appends
            .iter()
            .flat_map(|append| &append.blocks)
            .map(|block| block.bytes.len())
            .sum();
        PendingCommit {
            appends,
            offsets: commit.offsets,
            fence: commit.fence,
            bytes,
            done,
        }
    }

    pub(super) fn finish(self, outcome: Result<Committed, CommitError>) {
        (self.done)(outcome);
    }
}

impl Job {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Job::Commit(commit) => commit.bytes,
            Job::Change(..) => 0,
        }
    }

    pub(super) fn shares_batch(&self) -> bool {
        matches!(self, Job::Commit(_))
    }

    pub(super) fn refuse(self, error: CommitError) {
        match self {
            Job::Commit(commit) => commit.finish(Err(error)),
            Job::Change(_, done) => {
                let _ = done.send(Err(error));
            }
        }
    }
}

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    /// When retention has something to do; whether that must be found out anew.
    pub(super) retention_deadline: Option<Instant>,
    pub(super) retention_changed: bool,
    /// Written since the memory of all keyspaces was last summed.
    unsummed_bytes: u64,
    /// Written since something was last flushed for the journals' sake.
    journal_bytes: u64,
}

/// Written to the journal before it is ended.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// All memtables together. The engine bounds each keyspace's alone: with many topics memory would have no bound.
const MEMTABLE_BYTES_MAX: u64 = 64 << 20;
/// How much is written before they are summed again.
const SUM_BYTES_MIN: u64 = 8 << 20;

impl Committer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Committer {
            shared,
            retention_deadline: None,
            retention_changed: true,
            unsummed_bytes: 0,
            journal_bytes: 0,
        }
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        self.shared.queue.set_committer(std::thread::current().id());
        loop {
            let deadline = self.retain();
            match self.shared.queue.pop(deadline, BATCH_COMMIT_BYTES_MAX) {
                Popped::Closed => break,
                Popped::Deadline => {}
                Popped::Jobs(jobs) => {
                    let mut commits = Vec::with_capacity(jobs.len());
                    for job in jobs {
                        match job {
                            Job::Commit(commit) => commits.push(commit),
                            Job::Change(change, done) => {
                                let outcome = self.change(change);
                                let _ = done.send(outcome);
                            }
                        }
                    }
                    if !commits.is_empty() {
                        self.commit(commits);
                    }
                }
            }
        }
        self.shared.shut();
    }

    /// Makes one batch of all these commits, and answers each.
    fn commit(&mut self, commits: Vec<PendingCommit>) {
        crash_point("commit-begin");
        let bytes: usize = commits.iter().map(|commit| commit.bytes).sum();
        if let Err(error) = self.shared.ready(bytes as u64) {
            commits.into_iter().for_each(|commit| commit.finish(Err(error.clone())));
            return;
        }
        let membership = self.shared.membership.clone();
        // Who holds which partition does not change while its holder's commit is written: the next holder reads it.
        let fenced = commits.iter().any(|commit| commit.fence.is_some());
        let mut members = fenced.then(|| membership.lock().unwrap_or_else(|e| e.into_inner()));
        let mut planned = Vec::with_capacity(commits.len());
        let outcome = self.write(bytes as u64, |engine, plan| {
            planned.clear();
            for commit in &commits {
                planned.push(plan.add_commit(engine, commit, members.as_deref_mut())?);
            }
            Ok(())
        });
        drop(members);
        crash_point("commit-synced");
        // Readers first: whoever learns that its commit is true may take it that those who read it have been woken.
        if let Ok(grown) = &outcome {
            grown.iter().for_each(|tp| self.shared.subscriptions.notify(tp));
        }
        let passed = match &outcome {
            Ok(_) => self.passed_topics(commits.iter().flat_map(|commit| &commit.offsets)),
            Err(_) => BTreeSet::new(),
        };
        let mut planned = planned.into_iter();
        for commit in commits {
            let answer = match (planned.next(), &outcome) {
                (Some(Err(refusal)), _) => Err(refusal.into()),
                (Some(Ok(committed)), Ok(_)) => Ok(committed),
                (_, Err(error)) => Err(error.clone()),
                (None, Ok(_)) => Err(CommitError::Closed),
            };
            commit.finish(answer);
        }
        if outcome.is_ok() {
            self.purge(&passed);
            self.bound_memory(bytes as u64);
        }
    }

    /// Has memtables flushed in the background where they or the journals become too large.
    fn bound_memory(&mut self, bytes: u64) {
        self.unsummed_bytes += bytes;
        if self.unsummed_bytes < SUM_BYTES_MIN {
            return;
        }
        self.journal_bytes += std::mem::take(&mut self.unsummed_bytes);
        let end_journal = self.journal_bytes >= JOURNAL_BYTES_MAX;
        if end_journal {
            self.journal_bytes = 0;
        }
        let outcome = self.shared.with_engine(|engine| {
            let small = if end_journal { engine.flush_small() } else { Ok(()) };
            Ok(small.and_then(|()| engine.flush_largest(MEMTABLE_BYTES_MAX)))
        });
        if let Ok(Err(error)) = outcome {
            // The next batch meets the same error, and has the engine opened again.
            tracing::warn!(%error, "memory could not be flushed");
        }
    }

    /// Builds one batch, writes and syncs it, and then moves what is in memory. `build` is called again where the
    /// first attempt is known to have written nothing.
    pub(super) fn write(
        &mut self,
        bytes: u64,
        mut build: impl FnMut(&Engine, &mut Plan) -> fjall::Result<()>,
    ) -> Result<BTreeSet<TopicPartition>, CommitError> {
        let mut attempts_left = 2;
        loop {
            attempts_left -= 1;
            let (number, error) = {
                let state = self.shared.state();
                let engine = state.as_ref().map_err(Down::to_commit_error)?;
                let mut plan = Plan::new(engine);
                let number = engine.commit_number.load(Ordering::Relaxed) + 1;
                let topics_change = |plan: &Plan| !plan.begun.is_empty() || !plan.after.is_empty();
                let written = build(engine, &mut plan).and_then(|()| {
                    self.retention_changed |= topics_change(&plan);
                    plan.write(engine, number)
                });
                match written {
                    Ok(grown) => return Ok(grown),
                    Err(error) => (number, error),
                }
            };
            tracing::warn!(%error, "the storage engine failed; it is opened again");
            self.retention_changed = true;
            // Poisoned by a background thread: the engine refused before it wrote a byte.
            let refused = matches!(error, fjall::Error::Poisoned);
            let full = io_error(&error).is_some_and(is_full);
            let detail = error.to_string();
            self.shared.reopen();
            let landed = match &*self.shared.state() {
                Ok(engine) => engine.commit_number.load(Ordering::Relaxed) >= number,
                Err(_) if refused => return Err(not_available(&detail)),
                Err(_) => return Err(CommitError::Unknown { detail }),
            };
            if landed {
                return Err(CommitError::Unknown { detail });
            }
            if full {
                return Err(self.shared.disk_full(bytes));
            }
            if !refused || attempts_left == 0 {
                return Err(not_available(&detail));
            }
        }
    }
}

fn not_available(detail: &str) -> CommitError {
    CommitError::Unavailable {
        detail: format!("the storage is not available: {detail}"),
    }
}

type After = Box<dyn FnOnce(&Engine)>;

/// What one batch writes, and what it moves in memory when it is written.
pub(super) struct Plan {
    batch: OwnedWriteBatch,
    homes: HashMap<u64, Home>,
    ends: HashMap<(u64, u32), (Arc<Topic>, End)>,
    offsets: Vec<(Arc<str>, TopicPartition, StoredOffset)>,
    begun: Vec<(Arc<Topic>, Generation)>,
    after: Vec<After>,
    grown: BTreeSet<TopicPartition>,
    pub(super) now_ms: i64,
}

impl Plan {
    fn new(engine: &Engine) -> Self {
        Plan {
            batch: engine.db.batch().durability(Some(PersistMode::SyncData)),
            homes: HashMap::new(),
            ends: HashMap::new(),
            offsets: Vec::new(),
            begun: Vec::new(),
            after: Vec::new(),
            grown: BTreeSet::new(),
            now_ms: now_ms(),
        }
    }

    pub(super) fn put(&mut self, engine: &Engine, key: Vec<u8>, value: Vec<u8>) {
        self.batch.insert(&engine.meta, key, value);
    }

    pub(super) fn remove(&mut self, engine: &Engine, key: Vec<u8>) {
        self.batch.remove(&engine.meta, key);
    }

    /// Something to move in memory when the batch is written.
    pub(super) fn after(&mut self, change: impl FnOnce(&Engine) + 'static) {
        self.after.push(Box::new(change));
    }

    /// Adds one caller's commit, or says why it is refused; a refused one leaves no trace.
    fn add_commit(
        &mut self,
        engine: &Engine,
        commit: &PendingCommit,
        members: Option<&mut Membership>,
    ) -> fjall::Result<Result<Committed, LogError>> {
        let topics = match check_commit(engine, commit, members) {
            Ok(topics) => topics,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut base_offsets = Vec::with_capacity(commit.appends.len());
        for (append, topic) in commit.appends.iter().zip(topics) {
            base_offsets.push(self.append(engine, &topic, append)?);
        }
        commit.offsets.iter().for_each(|offset| self.set_offset(engine, offset));
        Ok(Ok(Committed { base_offsets }))
    }

    pub(super) fn set_offset(&mut self, engine: &Engine, offset: &GroupOffset) {
        let tp = TopicPartition::new(offset.topic.clone(), offset.partition);
        let stored = StoredOffset {
            next_offset: offset.next_offset,
            committed_ms: self.now_ms,
            metadata: offset.metadata.as_str().into(),
        };
        self.put(engine, offset_key(&offset.group, &tp), stored.encode());
        self.offsets.push((offset.group.clone(), tp, stored));
    }

    fn append(&mut self, engine: &Engine, topic: &Arc<Topic>, append: &PendingAppend) -> fjall::Result<u64> {
        let key = (topic.id, append.partition);
        let planned = self.ends.get(&key).map(|(_, end)| *end);
        let mut end = planned
            .or(topic.heads.get(append.partition as usize).map(Head::end))
            .unwrap_or(End::ZERO);
        let base_offset = end.next_offset;
        if append.blocks.is_empty() {
            return Ok(base_offset);
        }
        let home = self.generation(engine, topic)?;
        for block in &append.blocks {
            self.batch.insert(
                &home.keyspace,
                home.key(append.partition, end.next_offset),
                &block.bytes[..],
            );
            let before = end;
            end.next_offset += u64::from(block.count);
            end.bytes += block.bytes.len() as u64;
            end.timestamp_max = end.timestamp_max.max(block.timestamp_max);
            if time_index::is_due(before, end) {
                let row = time_index::key(topic.id, append.partition, end.next_offset);
                self.batch.insert(&engine.shared, row, time_index::value(end));
            }
        }
        self.ends.insert(key, (topic.clone(), end));
        self.grown
            .insert(TopicPartition::new(append.topic.clone(), append.partition));
        Ok(base_offset)
    }

    /// The place that takes a topic's records: of its newest generation, or of one that begins with this batch.
    fn generation(&mut self, engine: &Engine, topic: &Arc<Topic>) -> fjall::Result<Home> {
        if let Some(home) = self.homes.get(&topic.id) {
            return Ok(home.clone());
        }
        let ends = topic.ends();
        let bytes_max = topic.generation_bytes_max(engine.generation_bytes_max);
        let shared_bytes_max = bytes_max.min(SHARED_GENERATION_BYTES_MAX);
        let generations = topic.generations.read().unwrap_or_else(|e| e.into_inner()).clone();
        let active = generations.last();
        let has_room =
            |g: &Generation| bytes_between(&g.bases, &ends) < if g.shared { shared_bytes_max } else { bytes_max };
        let home = match active.and_then(|g| g.home.get().filter(|_| has_room(g))) {
            Some(home) => home.clone(),
            None => {
                // One without a record gets its first; one that is full is followed by another.
                let fresh = active.filter(|g| g.home.get().is_none());
                let before = generations.iter().rev().nth(usize::from(fresh.is_some()));
                let full_before = before.is_some_and(|g| bytes_between(&g.bases, &ends) >= shared_bytes_max / 2);
                let number = active.map_or(0, |g| g.number + u64::from(fresh.is_none()));
                let made_ms = fresh.map_or(self.now_ms, |g| g.made_ms);
                let mut generation = Generation::empty(number, made_ms, ends);
                generation.begun_ms = Some(self.now_ms);
                generation.shared = !full_before;
                let home = engine.home(topic.id, number, generation.shared)?;
                crash_point("generation-begin");
                let _ = generation.home.set(home.clone());
                self.put(engine, generation_key(topic.id, number), generation.encode());
                self.begun.push((topic.clone(), generation));
                home
            }
        };
        self.homes.insert(topic.id, home.clone());
        Ok(home)
    }

    /// Begins a generation without any record, so that the one before it can be dropped whole.
    pub(super) fn begin_generation(&mut self, engine: &Engine, topic: &Arc<Topic>, number: u64) {
        let generation = Generation::empty(number, self.now_ms, topic.ends());
        self.put(engine, generation_key(topic.id, number), generation.encode());
        self.begun.push((topic.clone(), generation));
    }

    /// Removes a generation, `ends` being where it ends. What is returned goes as a whole when this is written; blocks
    /// among others' are removed one by one.
    pub(super) fn drop_generation(
        &mut self,
        engine: &Engine,
        topic: &Topic,
        generation: &Generation,
        ends: &[End],
    ) -> Option<Keyspace> {
        self.remove(engine, generation_key(topic.id, generation.number));
        // The engine keeps each journal until a table has something as new. Compaction drops what removes, so that
        // where a removal was the newest no table ever would: this row stays.
        self.batch.insert(&engine.shared, NEWEST_KEY, self.now_ms.to_le_bytes());
        for (partition, (base, end)) in generation.bases.iter().zip(ends).enumerate() {
            let (partition, from, to) = (partition as u32, base.next_offset, end.next_offset);
            if let Some(home) = generation.home.get().filter(|_| generation.shared) {
                self.remove_shared(engine, topic, home.range(partition, from, to));
            }
            self.remove_shared(engine, topic, engine.time_rows(topic.id, partition, from, to));
        }
        generation.own_keyspace()
    }

    fn remove_shared(&mut self, engine: &Engine, topic: &Topic, rows: fjall::Iter) {
        for guard in rows {
            match guard.key() {
                Ok(key) => self.batch.remove(&engine.shared, key),
                // Nobody asks for them any more: they take room, no more than that.
                Err(error) => {
                    tracing::warn!(%error, topic = topic.spec.name, "some blocks cannot be removed");
                    return;
                }
            }
        }
    }

    fn write(mut self, engine: &Engine, number: u64) -> fjall::Result<BTreeSet<TopicPartition>> {
        for ((topic_id, partition), (_, end)) in &self.ends {
            self.batch
                .insert(&engine.meta, end_key(*topic_id, *partition), encode_end(*end));
        }
        if self.batch.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.put(engine, b"c".to_vec(), encode_number(number));
        self.homes
            .values()
            .map(|home| &home.keyspace)
            .chain([&engine.meta])
            .try_for_each(|keyspace| wait_for_flushes(engine, keyspace))?;
        crash_point("commit-built");
        self.batch.commit()?;
        engine.commit_number.store(number, Ordering::Relaxed);
        for (topic, generation) in self.begun {
            topic.begin(generation);
        }
        for ((_, partition), (topic, end)) in self.ends {
            if let Some(head) = topic.heads.get(partition as usize) {
                head.publish(end);
            }
        }
        if !self.offsets.is_empty() {
            let mut offsets = engine.offsets.write().unwrap_or_else(|e| e.into_inner());
            for (group, tp, stored) in self.offsets {
                offsets.entry(group).or_default().insert(tp, stored);
            }
        }
        self.after.into_iter().for_each(|change| change(engine));
        Ok(self.grown)
    }
}

/// No key of a block: those have 20 bytes.
const NEWEST_KEY: &[u8] = b"newest";

/// Holds a commit back while the engine has too much to flush. The engine would do so itself, but it would wait for
/// ever for a background thread that met a full disk.
fn wait_for_flushes(engine: &Engine, keyspace: &Keyspace) -> fjall::Result<()> {
    let since = Instant::now();
    while keyspace.sealed_memtable_count() >= 2 || keyspace.tree.l0_run_count() >= 16 {
        if engine.is_poisoned() {
            return Err(fjall::Error::Poisoned);
        }
        if since.elapsed() > FLUSH_TIME_MAX {
            return Err(std::io::Error::other("its background threads have not flushed for a minute").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

const FLUSH_TIME_MAX: Duration = Duration::from_secs(60);

pub(super) fn check_offset(engine: &Engine, offset: &GroupOffset) -> Result<(), LogError> {
    check_group(&offset.group)?;
    engine.topic(&offset.topic)?.head(offset.partition)?;
    offset.check_metadata()
}

fn check_commit(
    engine: &Engine,
    commit: &PendingCommit,
    members: Option<&mut Membership>,
) -> Result<Vec<Arc<Topic>>, LogError> {
    if commit.bytes > CALLER_COMMIT_BYTES_MAX {
        return Err(LogError::CommitTooLarge {
            bytes: commit.bytes as u64,
            bytes_max: CALLER_COMMIT_BYTES_MAX as u64,
        });
    }
    let mut topics = Vec::with_capacity(commit.appends.len());
    for append in &commit.appends {
        let topic = engine.topic(&append.topic)?;
        topic.head(append.partition)?;
        topics.push(topic);
    }
    commit
        .offsets
        .iter()
        .try_for_each(|offset| check_offset(engine, offset))?;
    if let (Some(fence), Some(members)) = (&commit.fence, members) {
        members.check(fence, &commit.offsets, Instant::now())?;
    }
    Ok(topics)
}
