//! Committing: what a task has done becomes true, with its offsets, its state and how far it has come in time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::pass::PassError;
use super::scheduler::Next;
use super::state::StageState;
use super::task::{Task, TaskError};
use crate::connect::{Append, Commit, CommitError, Committed, GroupOffset, TableAppend};
use crate::crash::crash_point;
use crate::state::notes::Notes;

/// A commit that was handed over.
pub(super) struct Committing {
    /// Put there by the committer.
    outcome: Arc<Mutex<Option<Result<Committed, CommitError>>>>,
    /// Which appends are changes of stores.
    changes: Vec<Change>,
}

/// Changes of a store among the appends of a commit.
struct Change {
    append: usize,
    stage: usize,
    store: usize,
    records: u64,
    bytes: u64,
}

impl Task {
    /// Bytes that wait for a commit.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        let state = self.machinery.state.iter().flatten();
        self.effects.bytes() + state.map(StageState::pending_bytes).sum::<usize>()
    }

    /// Hands effects, state and offsets to the committer, whose answer wakes the task. Results that are due with each
    /// commit are made now.
    pub(super) fn commit(&mut self) -> Result<Next, TaskError> {
        match self.pass_alone(|pass| pass.send_updates()) {
            Ok(()) => {}
            Err(PassError::Overrun) => {
                self.records_max = 1;
                self.careful_records = self.careful_records.max(1);
                self.patient = true;
                self.rewind()?;
                return Ok(Next::Ready);
            }
            Err(down) => return self.retreat(&down.to_string()),
        }
        let mut appends = self.effects.take();
        let (mut changes, mut tables) = (Vec::new(), Vec::new());
        for (stage, state) in self.machinery.state.iter().enumerate() {
            let Some(state) = state else { continue };
            let now = state.progress.now;
            for (store, kept) in state.stores().stores.iter().enumerate() {
                let Some(blocks) = kept.changes(now) else { continue };
                changes.push(Change {
                    append: appends.len(),
                    stage,
                    store,
                    records: blocks.len(),
                    bytes: blocks.bytes() as u64,
                });
                let place = kept.changelog();
                tables.extend(kept.shape().table().map(|codec| TableAppend {
                    append: appends.len(),
                    codec: codec.clone(),
                    from: kept.applied(),
                }));
                appends.push(Append {
                    topic: place.topic.clone(),
                    partition: place.partition,
                    blocks,
                });
            }
        }
        let commit = Commit {
            appends,
            offsets: self.offsets(),
            tables,
            ..Commit::default()
        };
        let outcome: Arc<Mutex<Option<Result<Committed, CommitError>>>> = Arc::default();
        self.committing = Some(Committing {
            outcome: outcome.clone(),
            changes,
        });
        let waker = self.waker.clone();
        self.log.submit(
            commit,
            Box::new(move |result| {
                *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                waker.wake();
            }),
        );
        Ok(Next::Wait(None))
    }

    /// Where the group goes on, with how far the stages have come in time beside it.
    fn offsets(&self) -> Vec<GroupOffset> {
        let states = || self.machinery.state.iter().flatten();
        let metadata = Notes::write(states().map(StageState::note));
        let time_moved = states().any(StageState::has_moved);
        let readers_moved = self.readers.iter().any(|reader| reader.position != reader.committed);
        let is_noted = |(at, reader): &(usize, &super::task::Reader)| {
            reader.position != reader.committed || *at == 0 && time_moved && !readers_moved
        };
        let readers = self.readers.iter().enumerate().filter(is_noted);
        let offset = |(_, reader): (usize, &super::task::Reader)| GroupOffset {
            group: self.pipeline.plan.group.as_str().into(),
            topic: reader.place.topic.clone(),
            partition: reader.place.partition,
            next_offset: reader.position,
            metadata: metadata.clone(),
        };
        readers.map(offset).collect()
    }

    /// Takes the answer of the committer; what is to be done next where there is none yet, or a bad one.
    pub(super) fn commit_outcome(&mut self) -> Result<Option<Next>, TaskError> {
        let Some(Committing { outcome, .. }) = &self.committing else {
            return Ok(None);
        };
        let Some(outcome) = outcome.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(Some(Next::Wait(None)));
        };
        let changes = self
            .committing
            .take()
            .map_or(Vec::new(), |committing| committing.changes);
        let committed = match outcome {
            Ok(committed) => committed,
            Err(error) => {
                self.pipeline.stats.rewinds.add(1);
                return self.retreat(&error.to_string()).map(Some);
            }
        };
        self.pipeline.stats.commits.add(1);
        self.patient = false;
        for reader in &mut self.readers {
            reader.committed = reader.position;
        }
        if !changes.is_empty() {
            crash_point("state-committed");
        }
        for change in changes {
            if let Some(state) = &self.machinery.state[change.stage] {
                let base = committed.base_offsets[change.append];
                state.stores().stores[change.store].committed(base, change.records, change.bytes);
            }
        }
        self.states().for_each(StageState::committed);
        self.uncommitted_since = None;
        self.resume();
        Ok(None)
    }

    /// Looks after the stores: flushes, memory, the quota. Says why the task cannot go on now, if it cannot.
    pub(super) fn tend(&mut self, now: Instant) -> Option<String> {
        let memory_bytes_max = self.pipeline.store_memory_bytes_max;
        let (mut next, mut dirty_bytes, mut stuck) = (None::<Instant>, 0, None);
        for state in self.machinery.state.iter().flatten() {
            let mut stores = state.stores();
            for store in &mut stores.stores {
                let before_ms = state.past_before(store.shape());
                let waker = self.waker.clone();
                let due = store.tend(now, memory_bytes_max, before_ms, move || waker.wake());
                next = next.into_iter().chain(due).min();
                dirty_bytes += store.dirty_bytes() as i64;
                if store.is_over(memory_bytes_max) {
                    stuck = stuck.or(store.flush_error().map(str::to_owned));
                }
            }
        }
        self.tend_at = next;
        let change = dirty_bytes - std::mem::replace(&mut self.dirty_bytes, dirty_bytes);
        self.pipeline.dirty_bytes.fetch_add(change, Ordering::Relaxed);
        stuck.or_else(|| self.pipeline.over_quota())
    }

    /// Whether rows have to be flushed before more can be taken into memory; the flush wakes the task.
    pub(super) fn is_over(&self) -> bool {
        let memory_bytes_max = self.pipeline.store_memory_bytes_max;
        let mut states = self.machinery.state.iter().flatten();
        states.any(|state| {
            state
                .stores()
                .stores
                .iter()
                .any(|store| store.is_over(memory_bytes_max))
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.pipeline.dirty_bytes.fetch_sub(self.dirty_bytes, Ordering::Relaxed);
    }
}
