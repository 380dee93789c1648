//! Answers for tasks that bring their stores up to changelogs: fetched by threads of their own, so that no worker waits
//! for a broker, and the next piece while the task takes the last.

use super::changelog::{STABLE_LOOK_INTERVAL, Source, still_open};
use crate::connect::{Fetched, LogError, TopicPartition};
use crate::limits::{OPEN_TRANSACTION_TIME_MAX, RESTORED_PIECES_MAX};
use crate::state::Wake;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Two keep the decoding of one partition busy while another waits for its broker.
const THREADS: usize = 2;
/// A piece that nobody took is given up: its task ended.
const PIECE_TIME_MAX: Duration = Duration::from_secs(30);
/// Without work the threads end.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// How often it is said how far a restore is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The threads, and what they do; see the module.
pub(super) struct Restorer {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    source: Arc<Source>,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    partitions: HashMap<TopicPartition, Partition>,
    ready: VecDeque<TopicPartition>,
    /// Partitions whose transactions are looked at again then.
    later: BinaryHeap<Reverse<(Instant, TopicPartition)>>,
    running: usize,
    idle: usize,
    /// Pieces in memory that were not taken, and those that are being fetched.
    pieces: usize,
    closed: bool,
}

/// What is asked and answered of one partition.
struct Partition {
    wake: Wake,
    state: State,
    /// The end that was told last: so far there is something to fetch ahead.
    to: u64,
    progress: Progress,
    since: Instant,
}

enum State {
    /// The ends are asked for; what was written then, once that is known, and how long it may take to be decided.
    Ends(Option<u64>, Instant),
    Fetch {
        from: u64,
        bytes_max: usize,
    },
    /// A thread has it.
    Busy,
    /// The ends were told, or a piece was taken.
    Told,
    EndsAre(Result<(u64, u64), LogError>),
    Fetched {
        from: u64,
        fetched: Result<Fetched, LogError>,
    },
}

/// How far a restore is.
struct Progress {
    begun: Instant,
    said: Instant,
    records: u64,
    next_offset: u64,
}

impl Progress {
    fn new() -> Progress {
        let now = Instant::now();
        Progress {
            begun: now,
            said: now,
            records: 0,
            next_offset: 0,
        }
    }
}

impl Restorer {
    pub(super) fn new(source: Arc<Source>) -> Restorer {
        Restorer {
            shared: Arc::new(Shared {
                source,
                work: Mutex::default(),
                changed: Condvar::new(),
            }),
            threads: Mutex::default(),
        }
    }

    /// The ends of a partition, behind everything that was written when this was first asked for; none yet where that is
    /// not known.
    pub(super) fn ends(&self, tp: &TopicPartition, wake: &Wake) -> Result<Option<(u64, u64)>, LogError> {
        let mut work = self.shared.lock();
        match work.partitions.get_mut(tp) {
            Some(partition) if matches!(partition.state, State::EndsAre(_)) => {
                let State::EndsAre(ends) = std::mem::replace(&mut partition.state, State::Told) else {
                    return Ok(None);
                };
                return ends.map(Some);
            }
            Some(partition) if matches!(partition.state, State::Ends(..)) => {
                partition.wake = wake.clone();
                return Ok(None);
            }
            // Whoever fetched before asks anew.
            Some(partition) if matches!(partition.state, State::Busy) => {
                partition.wake = wake.clone();
                return Ok(None);
            }
            _ => {}
        }
        let state = State::Ends(None, Instant::now() + OPEN_TRANSACTION_TIME_MAX);
        self.ask(&mut work, tp, wake, state, 0, Progress::new());
        drop(work);
        self.start_threads();
        Ok(None)
    }

    /// Partitions that are being restored, each with how many offsets are left.
    pub(super) fn restoring(&self) -> Vec<(TopicPartition, u64)> {
        let work = self.shared.lock();
        let left = |(tp, partition): (&TopicPartition, &Partition)| {
            let left = partition.to.checked_sub(partition.progress.next_offset)?;
            (partition.to < u64::MAX && partition.progress.records > 0).then(|| (tp.clone(), left))
        };
        work.partitions.iter().filter_map(left).collect()
    }

    /// A piece of a partition from an offset on; none yet where it has to be fetched.
    pub(super) fn fetch(
        &self,
        tp: &TopicPartition,
        from: u64,
        bytes_max: usize,
        wake: &Wake,
    ) -> Result<Option<Fetched>, LogError> {
        let mut work = self.shared.lock();
        let (mut to, mut progress) = (u64::MAX, Progress::new());
        if let Some(partition) = work.partitions.get_mut(tp) {
            partition.wake = wake.clone();
            match &partition.state {
                State::Busy => return Ok(None),
                State::Fetch { from: asked, .. } if *asked == from => return Ok(None),
                _ => {}
            }
        }
        if let Some(partition) = work.remove(tp) {
            (to, progress) = (partition.to, partition.progress);
            if let State::Fetched { from: at, fetched } = partition.state
                && at == from
            {
                let fetched = fetched?;
                let next = fetched.next_offset();
                progress.took(tp, &fetched, to);
                if next < to && to != u64::MAX {
                    let state = State::Fetch { from: next, bytes_max };
                    self.ask(&mut work, tp, wake, state, to, progress);
                }
                return Ok(Some(fetched));
            }
        }
        let state = State::Fetch { from, bytes_max };
        self.ask(&mut work, tp, wake, state, to, progress);
        drop(work);
        self.start_threads();
        Ok(None)
    }

    fn ask(&self, work: &mut Work, tp: &TopicPartition, wake: &Wake, state: State, to: u64, progress: Progress) {
        work.remove(tp);
        let partition = Partition {
            wake: wake.clone(),
            state,
            to,
            progress,
            since: Instant::now(),
        };
        work.partitions.insert(tp.clone(), partition);
        work.ready.push_back(tp.clone());
        self.shared.changed.notify_one();
    }

    fn start_threads(&self) {
        let mut work = self.shared.lock();
        while !work.closed && work.idle == 0 && work.running < THREADS {
            let shared = self.shared.clone();
            let name = "state-restore".to_owned();
            match std::thread::Builder::new().name(name).spawn(move || shared.run()) {
                Ok(thread) => {
                    work.running += 1;
                    let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
                    threads.retain(|thread| !thread.is_finished());
                    threads.push(thread);
                }
                Err(error) => {
                    tracing::error!("a thread that restores could not be started: {error}");
                    return;
                }
            }
        }
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Progress {
    fn took(&mut self, tp: &TopicPartition, fetched: &Fetched, to: u64) {
        self.records += fetched.len() as u64;
        self.next_offset = fetched.next_offset();
        let now = Instant::now();
        if to == u64::MAX || now - self.said < PROGRESS_INTERVAL {
            return;
        }
        self.said = now;
        let per_second = self.records as f64 / (now - self.begun).as_secs_f64();
        tracing::info!(
            changelog = %tp,
            records = self.records,
            records_per_second = per_second as u64,
            offsets_left = to.saturating_sub(fetched.next_offset()),
            "restoring"
        );
    }
}

/// What a thread does next.
enum Job {
    Ends(Option<u64>, Instant),
    Fetch(u64, usize),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((tp, job)) = self.next() {
            match job {
                Job::Ends(written, until) => self.look(&tp, written, until),
                Job::Fetch(from, bytes_max) => {
                    let fetched = self.source.fetch(&tp, from, bytes_max);
                    self.answer(&tp, State::Fetched { from, fetched });
                }
            }
        }
    }

    /// Waits for something to do; `None` where there was nothing for a while.
    fn next(&self) -> Option<(TopicPartition, Job)> {
        let mut work = self.lock();
        let idle_until = Instant::now() + IDLE_TIME_MAX;
        loop {
            let now = Instant::now();
            if work.closed || now >= idle_until && work.partitions.is_empty() {
                work.running -= 1;
                return None;
            }
            work.give_up(now);
            if let Some(job) = work.take(now) {
                return Some(job);
            }
            let wait = work.later.peek().map_or(Duration::from_secs(1), |Reverse((at, _))| {
                at.saturating_duration_since(now)
            });
            work.idle += 1;
            let waited = self.changed.wait_timeout(work, wait.min(Duration::from_secs(1)));
            work = waited.map_or_else(|error| error.into_inner().0, |(work, _)| work);
            work.idle -= 1;
        }
    }

    /// Asks for the ends; where a transaction is open, later again.
    fn look(&self, tp: &TopicPartition, written: Option<u64>, until: Instant) {
        let written = written.map_or_else(|| self.source.written_end(tp), Ok);
        let ends = written.and_then(|written| Ok((written, self.source.ends_behind(tp, written)?)));
        match ends {
            Ok((_, Some(ends))) => self.answer(tp, State::EndsAre(Ok(ends))),
            Ok((written, None)) if Instant::now() < until => {
                let mut work = self.lock();
                if let Some(partition) = work.partitions.get_mut(tp) {
                    partition.state = State::Ends(Some(written), until);
                    work.later
                        .push(Reverse((Instant::now() + STABLE_LOOK_INTERVAL, tp.clone())));
                }
            }
            Ok(_) => self.answer(tp, State::EndsAre(Err(still_open(tp)))),
            Err(error) => self.answer(tp, State::EndsAre(Err(error))),
        }
    }

    fn answer(&self, tp: &TopicPartition, state: State) {
        let mut work = self.lock();
        let Some(partition) = work.partitions.get_mut(tp) else {
            return;
        };
        if let State::EndsAre(Ok((_, next))) = &state {
            partition.to = *next;
        }
        partition.state = state;
        partition.since = Instant::now();
        let wake = partition.wake.clone();
        drop(work);
        wake();
    }
}

impl Work {
    /// The next job that may be begun: while many pieces wait for being taken none is fetched.
    fn take(&mut self, now: Instant) -> Option<(TopicPartition, Job)> {
        while self.later.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            self.ready.extend(self.later.pop().map(|Reverse((_, tp))| tp));
        }
        for _ in 0..self.ready.len() {
            let tp = self.ready.pop_front()?;
            let Some(partition) = self.partitions.get_mut(&tp) else {
                continue;
            };
            let job = match partition.state {
                State::Ends(written, until) => Job::Ends(written, until),
                State::Fetch { from, bytes_max } if self.pieces < RESTORED_PIECES_MAX => Job::Fetch(from, bytes_max),
                State::Fetch { .. } => {
                    self.ready.push_back(tp);
                    continue;
                }
                // It was asked twice.
                State::Busy | State::Told | State::EndsAre(_) | State::Fetched { .. } => continue,
            };
            if let Job::Fetch(..) = job {
                self.pieces += 1;
            }
            partition.state = State::Busy;
            return Some((tp, job));
        }
        None
    }

    fn remove(&mut self, tp: &TopicPartition) -> Option<Partition> {
        let partition = self.partitions.remove(tp)?;
        if let State::Fetched { .. } = partition.state {
            self.pieces -= 1;
        }
        Some(partition)
    }

    /// Drops answers that nobody took for long.
    fn give_up(&mut self, now: Instant) {
        let is_old = |partition: &Partition| {
            let is_answer = matches!(partition.state, State::Fetched { .. } | State::EndsAre(_) | State::Told);
            is_answer && now.saturating_duration_since(partition.since) > PIECE_TIME_MAX
        };
        let old: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, partition)| is_old(partition))
            .map(|(tp, _)| tp.clone())
            .collect();
        for tp in old {
            self.remove(&tp);
        }
    }
}
