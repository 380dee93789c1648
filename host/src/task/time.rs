//! Time without records: windows that close because nothing comes any more.

use std::time::{Duration, Instant};

use super::pass::PassError;
use super::scheduler::Next;
use super::task::{Task, TaskError};

impl Task {
    /// Whether windows are to be closed before anything else is read.
    pub(super) fn is_closing(&self) -> bool {
        let mut states = self.machinery.state.iter().flatten();
        states.any(|state| state.progress.closed.is_some())
    }

    /// Closes windows, as many as one commit takes.
    pub(super) fn close_windows(&mut self) -> Result<Next, TaskError> {
        match self.pass_alone(|pass| pass.close_windows()) {
            Ok(_) => {
                self.uncommitted_since.get_or_insert_with(Instant::now);
                Ok(Next::Ready)
            }
            Err(PassError::Overrun) => {
                self.patient = true;
                self.rewind()?;
                Ok(Next::Ready)
            }
            Err(down) => self.retreat(&down.to_string()),
        }
    }

    /// There will be no more records for a stage: moves its stream time to where its next open window closes. Returns
    /// whether there was one.
    pub(super) fn end_windows(&mut self, stage: usize) -> Result<bool, TaskError> {
        let Some(state) = self.machinery.state.get_mut(stage).and_then(Option::as_mut) else {
            return Ok(false);
        };
        let Some(closes_at) = state.next_closing()? else {
            return Ok(false);
        };
        state.advance(closes_at);
        self.uncommitted_since.get_or_insert_with(Instant::now);
        Ok(true)
    }

    /// Where all its sources say that they are idle after some time, stream time moves with the clock from then on.
    /// Windows close when it reaches their end; returns when the next does.
    pub(super) fn pass_idle_time(&mut self, now: Instant) -> Result<Option<Instant>, TaskError> {
        let sources = self
            .readers
            .iter()
            .map(|reader| self.pipeline.plan.sources[reader.source].idle);
        let idle: Option<Vec<Duration>> = sources.collect();
        let Some(idle) = idle.and_then(|idle| idle.into_iter().max()) else {
            return Ok(None);
        };
        let (mut next, mut moved) = (None::<Instant>, false);
        for state in self.machinery.state.iter_mut().flatten() {
            let (Some(closes_at), Some(last)) = (state.next_closing()?, state.last_record.get()) else {
                continue;
            };
            let ahead = Duration::from_millis(closes_at.saturating_sub(last).max(0).unsigned_abs());
            let due = self.record_at.checked_add(ahead.max(idle));
            match due {
                Some(due) if due <= now => {
                    state.advance(closes_at);
                    moved = true;
                }
                due => next = next.into_iter().chain(due).min(),
            }
        }
        if moved {
            self.uncommitted_since.get_or_insert_with(Instant::now);
        }
        Ok(next)
    }
}
