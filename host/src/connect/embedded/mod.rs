//! The embedded log: topics, groups and commits in one folder, held by one process.
//!
//! One storage engine holds all of it, so that one batch of it, synced once, makes a commit true: appended blocks and
//! groups' offsets today, state tomorrow. One thread commits; any number read, without waiting for it. While nothing
//! is committed nothing wakes up.
//!
//! ```
//! use millstream::connect::{Append, BlockBuilder, Commit, EmbeddedLog, Options, TopicPartition, TopicSpec};
//! use millstream::record::Record;
//!
//! let folder = tempfile::tempdir()?;
//! let log = EmbeddedLog::open(folder.path(), Options::default())?;
//! log.create_topic(&TopicSpec::new("rides", 4))?;
//!
//! let mut blocks = BlockBuilder::new();
//! blocks.push(Record { value: Some(b"hello".to_vec()), ..Record::default() }.at(0))?;
//! let append = Append { topic: "rides".into(), partition: 2, blocks };
//! let committed = log.commit(Commit { appends: vec![append], ..Commit::default() })?;
//! assert_eq!(committed.base_offsets, [0]);
//!
//! let fetched = log.fetch(&TopicPartition::new("rides", 2), 0, 1 << 20)?;
//! assert_eq!(fetched.get(0).and_then(|record| record.value), Some(&b"hello"[..]));
//! log.close();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod committer;
mod engine;
mod folder;
pub(crate) mod journal;
pub(crate) mod manifest;
mod queue;
mod reading;
mod retention;
mod subscription;
#[cfg(test)]
mod tests;
mod time_index;
mod topic;

pub(crate) use engine::{find_damage, io_error, is_full, open_unlocked, stopped};
pub use folder::{FOLDER_VERSION, OpenError, SOCKET_NAME};
pub use subscription::Subscription;

use super::membership::{Assignment, LiveGroup, Membership};
use super::{
    Commit, CommitError, Committed, Fetched, GroupDescription, GroupOffset, GroupPartition, LogError, Position,
    TopicDescription, TopicPartition, TopicRole, TopicSpec,
};
use crate::limits::{DISK_RESERVE_BYTES, GENERATION_BYTES_MAX};
use committer::{Change, Committer, Job, PendingCommit};
use engine::{Engine, Offsets};
use fjall::AbstractTree;
use folder::{DataFolder, Format};
use queue::Queue;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use subscription::Subscriptions;

/// How an embedded log is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of the storage engine's one cache. Tailing readers need none: what was just written is in memory anyway. 64 MiB.
    pub cache_bytes: u64,
    /// Commits leave this much of the disk free: what is in memory and in the journals must still find a place
    /// ([`DISK_RESERVE_BYTES`]).
    pub disk_reserve_bytes: u64,
    /// A topic's generation ends at this size ([`GENERATION_BYTES_MAX`]), or earlier where retention wants it.
    pub generation_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes: 64 << 20,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            generation_bytes_max: GENERATION_BYTES_MAX,
        }
    }
}

/// A log in a folder. Dropping it closes it.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the committer share.
struct Shared {
    path: PathBuf,
    options: Options,
    /// Given back when the log is closed.
    folder: Mutex<Option<DataFolder>>,
    /// Readers hold it while they read, so that a reopening has the engine for itself.
    state: RwLock<Result<Engine, Down>>,
    /// When the last attempt to open the engine again failed.
    failed_at: Mutex<Option<Instant>>,
    queue: Queue,
    subscriptions: Arc<Subscriptions>,
    membership: Arc<Mutex<Membership>>,
}

/// Why there is no engine.
enum Down {
    Failed(String),
    Closed,
}

impl Down {
    fn to_commit_error(&self) -> CommitError {
        self.to_log_error().into()
    }

    fn to_log_error(&self) -> LogError {
        match self {
            Down::Failed(detail) => LogError::Unavailable {
                detail: format!("the storage is not available: {detail}"),
            },
            Down::Closed => LogError::Closed,
        }
    }
}

/// After a failed attempt to open the engine again the next is made no earlier.
const REOPEN_TIME_MIN: Duration = Duration::from_millis(200);
/// A clean stop flushes for no longer; what is not flushed is replayed.
const CLOSE_FLUSH_TIME_MAX: Duration = Duration::from_secs(3);
/// What a clean stop flushes: replaying less takes no time.
const CLOSE_FLUSH_BYTES_MIN: u64 = 1 << 20;

impl EmbeddedLog {
    /// Takes the folder, makes it where it is missing, and reads what is known of topics and groups.
    ///
    /// # Errors
    /// Where another process holds the folder, where it may not be written, where a newer program wrote it, and where
    /// it is damaged; nothing was changed then.
    pub fn open(path: &Path, options: Options) -> Result<Arc<EmbeddedLog>, OpenError> {
        let mut folder = DataFolder::take(path)?;
        let engine = Engine::open(&mut folder, &options)?;
        let shared = Arc::new(Shared {
            path: path.into(),
            options,
            folder: Mutex::new(Some(folder)),
            state: RwLock::new(Ok(engine)),
            failed_at: Mutex::new(None),
            queue: Queue::default(),
            subscriptions: Arc::default(),
            membership: Arc::default(),
        });
        let committer = Committer::new(shared.clone());
        let thread = std::thread::Builder::new()
            .name("log-commit".into())
            .spawn(move || committer.run());
        let thread = thread.map_err(|source| OpenError::io(path, source))?;
        Ok(Arc::new(EmbeddedLog {
            shared,
            committer: Mutex::new(Some(thread)),
        }))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// Where its name or a number is out of bounds, where it is there already, and as [`EmbeddedLog::commit`] does.
    pub fn create_topic(&self, spec: &TopicSpec) -> Result<(), CommitError> {
        self.change(Change::CreateTopic(spec.clone()))
    }

    /// Drops a topic with its records and the groups' offsets in it.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn delete_topic(&self, name: &str) -> Result<(), CommitError> {
        self.change(Change::DeleteTopic(name.into()))
    }

    /// Drops topics with the groups' offsets in them, and sets other offsets: all of it, or nothing.
    ///
    /// # Errors
    /// Where a topic or a partition is not there, and as [`EmbeddedLog::commit`] does.
    pub fn reset(&self, topics: Vec<String>, offsets: Vec<GroupOffset>) -> Result<(), CommitError> {
        self.change(Change::Reset(topics, offsets))
    }

    /// Forgets a group's offsets.
    ///
    /// # Errors
    /// Where it has none, or has live members.
    pub fn delete_group(&self, group: &str) -> Result<(), CommitError> {
        self.change(Change::DeleteGroup(group.into()))
    }

    /// Says anew what a topic is to the pipeline that made it.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn set_topic_role(&self, name: &str, role: TopicRole) -> Result<(), CommitError> {
        self.change(Change::SetTopicRole(name.into(), Box::new(role)))
    }

    /// All topics, by name.
    pub fn topics(&self) -> Result<Vec<TopicDescription>, LogError> {
        self.shared.with_engine(|engine| {
            let topics = engine.topics.read().unwrap_or_else(|e| e.into_inner());
            let mut described: Vec<_> = topics.values().map(|topic| topic.describe()).collect();
            described.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
            Ok(described)
        })
    }

    /// One topic.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn topic(&self, name: &str) -> Result<TopicDescription, LogError> {
        self.shared
            .with_engine(|engine| engine.topic(name).map(|topic| topic.describe()))
    }

    /// Reads a partition from an offset on: as many blocks as `bytes_max` holds, and one at least where there is one.
    /// Never waits: at the end nothing is fetched.
    ///
    /// # Errors
    /// Where topic, partition or offset are not there, and where what is stored is not what was written.
    pub fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError> {
        self.shared.with_engine(|engine| engine.fetch(tp, from, bytes_max))
    }

    /// The offset behind a partition's last record.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn next_offset(&self, tp: &TopicPartition) -> Result<u64, LogError> {
        self.shared
            .with_engine(|engine| Ok(engine.topic(&tp.topic)?.head(tp.partition)?.end().next_offset))
    }

    /// The offset of a place. A timestamp is looked for in a few megabytes of blocks, where records came in the order of
    /// their times.
    ///
    /// # Errors
    /// Where topic or partition are not there.
    pub fn offset_at(&self, tp: &TopicPartition, position: Position) -> Result<u64, LogError> {
        self.shared.with_engine(|engine| engine.offset_at(tp, position))
    }

    /// Calls `notify` after each commit that made the partition grow, on the committer's thread: it must not wait. It
    /// is also called when the topic is deleted, and after the storage was opened again.
    pub fn subscribe(&self, tp: &TopicPartition, notify: Arc<dyn Fn() + Send + Sync>) -> Subscription {
        self.shared.subscriptions.add(tp, notify)
    }

    /// Waits until one of these partitions reaches beyond the offset beside it; whether it did so in time.
    ///
    /// # Errors
    /// Where a partition is not there.
    pub fn wait(&self, from: &[(TopicPartition, u64)], timeout: Duration) -> Result<bool, LogError> {
        let deadline = Instant::now() + timeout;
        let grown = Arc::new((Mutex::new(false), Condvar::new()));
        let notify: Arc<dyn Fn() + Send + Sync> = {
            let grown = grown.clone();
            Arc::new(move || {
                *grown.0.lock().unwrap_or_else(|e| e.into_inner()) = true;
                grown.1.notify_one();
            })
        };
        let _subscriptions: Vec<_> = from.iter().map(|(tp, _)| self.subscribe(tp, notify.clone())).collect();
        loop {
            for (tp, offset) in from {
                if self.next_offset(tp)? > *offset {
                    return Ok(true);
                }
            }
            let mut flag = grown.0.lock().unwrap_or_else(|e| e.into_inner());
            while !*flag {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(false);
                }
                flag = grown.1.wait_timeout(flag, left).unwrap_or_else(|e| e.into_inner()).0;
            }
            *flag = false;
        }
    }

    /// Hands a commit to the committer; `done` hears its outcome on the committer's thread and must not wait. Whoever
    /// commits faster than the disk takes it is held back here.
    pub fn submit(&self, commit: Commit, done: Box<dyn FnOnce(Result<Committed, CommitError>) + Send>) {
        if let Err(job) = self.shared.queue.push(Job::Commit(PendingCommit::new(commit, done))) {
            job.refuse(CommitError::Closed);
        }
    }

    /// Makes a commit true, and waits for it. What it writes is on the disk when it returns.
    ///
    /// # Errors
    /// [`CommitError`] says of each whether anything was written.
    pub fn commit(&self, commit: Commit) -> Result<Committed, CommitError> {
        let (send, receive) = sync_channel(1);
        let done = Box::new(move |outcome| {
            let _ = send.send(outcome);
        });
        self.submit(commit, done);
        receive.recv().unwrap_or(Err(CommitError::Closed))
    }

    /// Whether a commit would be taken now: there is room on the disk, and the storage answers.
    ///
    /// # Errors
    /// What a commit would say.
    pub fn writable(&self) -> Result<(), CommitError> {
        self.shared.room(0)?;
        self.shared.state().as_ref().map(drop).map_err(Down::to_commit_error)
    }

    /// Where a group goes on reading a partition; `None` where it never committed.
    ///
    /// # Errors
    /// Where the storage does not answer: then it is not known.
    pub fn committed(&self, group: &str, tp: &TopicPartition) -> Result<Option<u64>, LogError> {
        self.shared.with_engine(|engine| {
            let offsets = engine.offsets.read().unwrap_or_else(|e| e.into_inner());
            Ok(offsets
                .get(group)
                .and_then(|partitions| partitions.get(tp))
                .map(|stored| stored.next_offset))
        })
    }

    /// As [`EmbeddedLog::committed`], with what the group noted beside the offset.
    ///
    /// # Errors
    /// Where the storage does not answer: then it is not known.
    pub fn committed_with_metadata(&self, group: &str, tp: &TopicPartition) -> Result<Option<(u64, String)>, LogError> {
        self.shared.with_engine(|engine| {
            let offsets = engine.offsets.read().unwrap_or_else(|e| e.into_inner());
            let stored = offsets.get(group).and_then(|partitions| partitions.get(tp));
            Ok(stored.map(|stored| (stored.next_offset, stored.metadata.to_string())))
        })
    }

    /// All groups that have offsets or members, by name.
    pub fn groups(&self) -> Result<Vec<GroupDescription>, LogError> {
        let mut live = self
            .shared
            .membership
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .live(Instant::now());
        self.shared.with_engine(|engine| {
            let offsets = engine.offsets.read().unwrap_or_else(|e| e.into_inner());
            let mut described: Vec<_> = offsets
                .keys()
                .map(|group| describe_group(engine, &offsets, group, live.remove(group)))
                .collect();
            described.extend(
                live.into_iter()
                    .map(|(group, members)| describe_group(engine, &offsets, &group, Some(members))),
            );
            described.sort_by(|a, b| a.group.cmp(&b.group));
            Ok(described)
        })
    }

    /// A new member of a group that reads these topics; it is alive for ten seconds from its last poll or commit.
    ///
    /// # Errors
    /// Where a topic is not there, or the group cannot be called so.
    pub fn join(&self, group: &str, topics: &[Arc<str>]) -> Result<Assignment, LogError> {
        self.with_members(|members, partitions| members.join(group, topics, Instant::now(), partitions))
    }

    /// The member is alive and asks what it holds from now on. What it lost, it gives up with this call: it commits
    /// before.
    ///
    /// # Errors
    /// [`LogError::UnknownMember`] where it was not heard of for too long: it joins again.
    pub fn poll(&self, group: &str, member: &str) -> Result<Assignment, LogError> {
        self.with_members(|members, partitions| members.poll(group, member, Instant::now(), partitions))
    }

    /// The member goes.
    pub fn leave(&self, group: &str, member: &str) {
        self.shared
            .membership
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .leave(group, member);
    }

    /// Does what was submitted, flushes, and gives the folder back. Everything later is refused.
    pub fn close(&self) {
        self.shared.queue.close();
        let thread = self.committer.lock().unwrap_or_else(|e| e.into_inner()).take();
        // Where the last user of the log goes within a callback, the committer ends by itself.
        if let Some(thread) = thread
            && !self.shared.queue.is_committer()
        {
            let _ = thread.join();
        }
    }

    fn change(&self, change: Change) -> Result<(), CommitError> {
        let (send, receive): (_, Receiver<Result<(), CommitError>>) = sync_channel(1);
        if let Err(job) = self.shared.queue.push(Job::Change(change, send)) {
            job.refuse(CommitError::Closed);
        }
        receive.recv().unwrap_or(Err(CommitError::Closed))
    }

    fn with_members<T>(
        &self,
        ask: impl FnOnce(&mut Membership, &dyn Fn(&str) -> Option<u32>) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        // The committer takes the members first and the engine then; so do we.
        let mut members = self.shared.membership.lock().unwrap_or_else(|e| e.into_inner());
        self.shared.with_engine(|engine| {
            ask(&mut members, &|topic: &str| {
                engine.topic(topic).ok().map(|topic| topic.spec.partitions)
            })
        })
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn describe_group(engine: &Engine, offsets: &Offsets, group: &str, live: Option<LiveGroup>) -> GroupDescription {
    let LiveGroup { members, holders } = live.unwrap_or_default();
    let mut partitions = Vec::new();
    for (tp, stored) in offsets.get(group).into_iter().flatten() {
        let ends = engine.topic(&tp.topic).ok().and_then(|topic| {
            let next_offset = topic.head(tp.partition).ok()?.end().next_offset;
            Some((topic.first_offset(tp.partition), next_offset))
        });
        let (first_offset, next_offset) = ends.unwrap_or_default();
        partitions.push(GroupPartition {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            committed_offset: stored.next_offset,
            committed_ms: Some(stored.committed_ms),
            metadata: stored.metadata.to_string(),
            next_offset,
            lag: next_offset.saturating_sub(stored.next_offset.max(first_offset)),
            member: holders.get(tp).map(|member| member.to_string()),
        });
    }
    GroupDescription {
        group: group.to_string(),
        members: members.iter().map(|member| member.to_string()).collect(),
        partitions,
    }
}

impl Shared {
    fn state(&self) -> RwLockReadGuard<'_, Result<Engine, Down>> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    fn with_engine<T>(&self, ask: impl FnOnce(&Engine) -> Result<T, LogError>) -> Result<T, LogError> {
        match &*self.state() {
            Ok(engine) => ask(engine),
            Err(down) => Err(down.to_log_error()),
        }
    }

    /// Whether a commit of so many bytes can be tried: there is room, and the engine answers.
    fn ready(&self, bytes: u64) -> Result<(), CommitError> {
        self.room(bytes)?;
        self.revive()
    }

    /// Opens the engine again where it failed, not too often.
    fn revive(&self) -> Result<(), CommitError> {
        match &*self.state() {
            Ok(_) => return Ok(()),
            Err(Down::Closed) => return Err(CommitError::Closed),
            Err(down) => {
                let failed_at = *self.failed_at.lock().unwrap_or_else(|e| e.into_inner());
                if failed_at.is_some_and(|at| at.elapsed() < REOPEN_TIME_MIN) {
                    return Err(down.to_commit_error());
                }
            }
        }
        self.reopen();
        self.state().as_ref().map(drop).map_err(Down::to_commit_error)
    }

    /// A batch is written twice, to the journal and to a table; the reserve stays.
    fn room(&self, bytes: u64) -> Result<(), CommitError> {
        let needed_bytes = bytes.saturating_mul(2).saturating_add(self.options.disk_reserve_bytes);
        match self.free_bytes() {
            Some(free_bytes) if free_bytes < needed_bytes => Err(CommitError::DiskFull {
                folder: self.path.clone(),
                free_bytes,
                needed_bytes,
            }),
            _ => Ok(()),
        }
    }

    fn disk_full(&self, bytes: u64) -> CommitError {
        CommitError::DiskFull {
            folder: self.path.clone(),
            free_bytes: self.free_bytes().unwrap_or(0),
            needed_bytes: bytes.saturating_mul(2).saturating_add(self.options.disk_reserve_bytes),
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Closes the engine and opens it again; everything in memory is read anew.
    fn reopen(&self) {
        let mut state = self.state.write().unwrap_or_else(|e| e.into_inner());
        // The old engine goes before the new one is opened: it holds a lock of its own.
        *state = Err(Down::Failed("it is being opened again".into()));
        let mut folder = self.folder.lock().unwrap_or_else(|e| e.into_inner());
        let Some(folder) = folder.as_mut() else {
            *state = Err(Down::Closed);
            return;
        };
        let mut failed_at = self.failed_at.lock().unwrap_or_else(|e| e.into_inner());
        match Engine::open(folder, &self.options) {
            Ok(engine) => {
                *state = Ok(engine);
                *failed_at = None;
            }
            Err(error) => {
                tracing::error!(%error, "the storage engine cannot be opened again; the next commit tries it");
                *state = Err(Down::Failed(error.to_string()));
                *failed_at = Some(Instant::now());
            }
        }
        drop(state);
        self.subscriptions.notify_all();
    }

    /// The end: flushes what would take time to replay, and gives engine and folder back.
    fn shut(&self) {
        let mut state = self.state.write().unwrap_or_else(|e| e.into_inner());
        let mut commit_number = None;
        if let Ok(engine) = &*state {
            flush(engine);
            commit_number = Some(engine.commit_number.load(Ordering::Relaxed));
        }
        *state = Err(Down::Closed);
        drop(state);
        let folder = self.folder.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let (Some(mut folder), Some(commit_number)) = (folder, commit_number) {
            // A number that is too low does no harm: it only tells less of what may be missing one day.
            if let Err(error) = folder.set_format(Format::Made { commit_number }) {
                tracing::warn!(%error, "the number of commits is not noted");
            }
        }
        self.subscriptions.notify_all();
    }
}

fn flush(engine: &Engine) {
    let is_large = |keyspace: &fjall::Keyspace| keyspace.tree.active_memtable().size() > CLOSE_FLUSH_BYTES_MIN;
    let large: Vec<_> = engine.keyspaces().into_iter().filter(is_large).collect();
    let deadline = Instant::now() + CLOSE_FLUSH_TIME_MAX;
    for keyspace in &large {
        if let Err(error) = keyspace.rotate_memtable() {
            tracing::warn!(%error, "not flushed at the end; it is replayed at the next start");
            return;
        }
    }
    while large.iter().any(|keyspace| keyspace.sealed_memtable_count() > 0) && Instant::now() < deadline {
        if engine.is_poisoned() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
