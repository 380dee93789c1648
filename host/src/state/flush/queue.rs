//! What waits for the flusher: one job for each partition of a changelog, so that it is bounded by the tasks there are.

use super::FlushJob;
use crate::connect::TopicPartition;
use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<FlushJob>,
    /// Of jobs that wait, and of the one that is being done.
    busy: HashSet<TopicPartition>,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, job: FlushJob) -> Result<(), Box<FlushJob>> {
        let mut state = self.lock();
        if state.closed || !state.busy.insert(job.changelog.clone()) {
            return Err(Box::new(job));
        }
        state.jobs.push_back(job);
        self.filled.notify_one();
        Ok(())
    }

    /// The next job, which is busy until it is said to be done; none when the queue was closed.
    pub(super) fn pop(&self) -> Option<FlushJob> {
        let mut state = self.lock();
        while !state.closed && state.jobs.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.jobs.pop_front()
    }

    pub(super) fn done(&self, changelog: &TopicPartition) {
        self.lock().busy.remove(changelog);
    }

    pub(super) fn is_busy(&self, changelog: &TopicPartition) -> bool {
        self.lock().busy.contains(changelog)
    }

    /// Takes no more; what waits is given back.
    pub(super) fn close(&self) -> Vec<FlushJob> {
        let mut state = self.lock();
        state.closed = true;
        self.filled.notify_all();
        let jobs: Vec<_> = state.jobs.drain(..).collect();
        for job in &jobs {
            state.busy.remove(&job.changelog);
        }
        jobs
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}
