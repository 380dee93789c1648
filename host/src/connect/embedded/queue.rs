//! What waits for the committer: bounded in number and in bytes, so that whoever commits too fast is held back.

use super::committer::Job;
use crate::limits::{COMMIT_QUEUE_BYTES_MAX, COMMIT_QUEUE_MAX};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Instant;

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
    committer: Option<ThreadId>,
}

impl Queue {
    /// The thread that takes jobs out: it is never held back when it puts one in.
    pub(super) fn set_committer(&self, id: ThreadId) {
        self.lock().committer = Some(id);
    }

    pub(super) fn is_committer(&self) -> bool {
        self.lock().committer == Some(std::thread::current().id())
    }

    /// Puts a job behind the others, and waits while there are too many.
    ///
    /// # Errors
    /// The job, where the queue was closed.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        let committer = state.committer == Some(std::thread::current().id());
        let bytes = job.bytes();
        while !state.closed && !committer && state.is_full(bytes) {
            state = self.drained.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        if state.closed {
            return Err(job);
        }
        state.bytes += bytes;
        state.jobs.push_back(job);
        self.filled.notify_one();
        Ok(())
    }

    /// The first job, with those behind it that may share its batch: as many as `bytes_max` holds. None at the
    /// deadline, or when the queue is closed and empty.
    pub(super) fn pop(&self, deadline: Option<Instant>, bytes_max: usize) -> Popped {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return Popped::Closed;
            }
            state = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => self.filled.wait(state).unwrap_or_else(|e| e.into_inner()),
                Some(left) if left.is_zero() => return Popped::Deadline,
                Some(left) => {
                    self.filled
                        .wait_timeout(state, left)
                        .unwrap_or_else(|e| e.into_inner())
                        .0
                }
            };
        }
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while let Some(job) = state.jobs.front() {
            let fits = jobs.is_empty() || (job.shares_batch() && bytes + job.bytes() <= bytes_max);
            if !fits {
                break;
            }
            bytes += job.bytes();
            let alone = !job.shares_batch();
            jobs.extend(state.jobs.pop_front());
            if alone {
                break;
            }
        }
        state.bytes -= bytes;
        self.drained.notify_all();
        Popped::Jobs(jobs)
    }

    /// Takes no more; what is there is still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    fn is_full(&self, bytes: usize) -> bool {
        self.jobs.len() >= COMMIT_QUEUE_MAX || (!self.jobs.is_empty() && self.bytes + bytes > COMMIT_QUEUE_BYTES_MAX)
    }
}

pub(super) enum Popped {
    Jobs(Vec<Job>),
    Deadline,
    Closed,
}
