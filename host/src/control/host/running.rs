//! A pipeline that was started.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::PipelineState;
use super::engine::EngineHost;
use super::tasks::PipelineTasks;
use crate::connect::kafka::Member;
use crate::connect::{EngineLog, LogError, Position, TopicPartition};
use crate::pipeline::Plan;
use crate::task::PipelineRuntime;

/// A pipeline that was started.
pub(super) struct Running {
    tasks: Arc<PipelineTasks>,
    /// Who gives it its partitions; `None` where all are its.
    member: Option<Member>,
}

impl Running {
    /// All partitions are its, and stay so.
    pub fn of_all(tasks: Arc<PipelineTasks>) -> Running {
        Running { tasks, member: None }
    }

    /// It has the partitions that its group gives it.
    pub fn of_member(tasks: Arc<PipelineTasks>, member: Member) -> Running {
        Running {
            tasks,
            member: Some(member),
        }
    }

    /// What its tasks share.
    pub fn runtime(&self) -> &PipelineRuntime {
        &self.tasks.runtime
    }

    /// What it does.
    pub fn plan(&self) -> &Plan {
        &self.tasks.runtime.plan
    }

    /// Records that its sources have and no commit of its counts yet.
    pub fn lag(&self) -> u64 {
        self.tasks.lag()
    }

    /// Whether commits of its group count everything that all partitions of its sources have now, whoever reads them: a
    /// member may have been given none yet.
    pub fn has_read_all(&self, engine: &EngineHost) -> bool {
        let sources = self.plan().sources.iter();
        let places = sources
            .map(|source| engine.places(source))
            .collect::<Result<Vec<_>, _>>();
        let has_read = |place: &TopicPartition| self.has_read(&*engine.log, place).unwrap_or(false);
        places.is_ok_and(|places| places.concat().iter().all(has_read))
    }

    fn has_read(&self, log: &dyn EngineLog, place: &TopicPartition) -> Result<bool, LogError> {
        let committed = match self.tasks.log.resume(place) {
            Ok(Some(resume)) => resume.offset,
            // Another's, or not known.
            _ => match log.committed(&self.plan().group, place)? {
                Some(committed) => committed,
                None => log.offset_at(place, Position::Start)?,
            },
        };
        Ok(committed >= log.offset_at(place, Position::End)?)
    }

    /// It should commit as soon as it is at the end: nobody adds records.
    pub fn drain(&self) {
        self.tasks.drain();
    }

    /// A stage should close all its windows at the end of the sources.
    pub fn close_windows(&self, stage: usize) {
        self.tasks.each(|task| {
            task.status.closing.store(stage + 1, Ordering::Release);
            task.handle.waker().wake();
        });
    }

    /// Whether that is done.
    pub fn has_closed(&self) -> bool {
        let closing = self.tasks.each(|task| task.status.closing.load(Ordering::Acquire));
        closing.iter().all(|&stage| stage == 0)
    }

    /// It should commit and end.
    pub fn stop(&self) {
        match &self.member {
            Some(member) => {
                self.tasks.close();
                member.leave();
            }
            None => {
                self.tasks.each(|task| task.stop());
            }
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        let has_left = self.member.as_ref().is_none_or(Member::has_left);
        has_left
            && self
                .tasks
                .each(|task| task.handle.is_done())
                .into_iter()
                .all(|done| done)
    }

    /// How it is.
    pub fn state(&self) -> PipelineState {
        let said = |text: &Mutex<Option<String>>| text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let first = |texts: Vec<Option<String>>| texts.into_iter().flatten().next();
        if let Some(why) = first(self.tasks.each(|task| said(&task.status.failed))) {
            return PipelineState::Failed(why);
        }
        let ended = |done: bool| {
            self.tasks
                .each(|task| task.handle.is_done() && task.status.done.load(Ordering::Acquire) == done)
        };
        if ended(false).contains(&true) {
            return PipelineState::Failed("a task panicked".into());
        }
        let left = self.member.as_ref().is_some_and(Member::has_left);
        if left || self.member.is_none() && ended(true).contains(&true) {
            return PipelineState::Stopped;
        }
        if let Some(why) = self.tasks.unread() {
            return PipelineState::Paused(why);
        }
        if let Some(member) = self.member.as_ref().filter(|member| !member.is_settled()) {
            return match member.trouble() {
                Some(why) => PipelineState::Paused(why),
                None => PipelineState::Running,
            };
        }
        if let Some(why) = first(self.tasks.each(|task| said(&task.status.paused))) {
            return PipelineState::Paused(why);
        }
        let at_end = self.tasks.each(|task| task.status.at_end.load(Ordering::Acquire));
        if at_end.into_iter().all(|at_end| at_end) {
            return PipelineState::AtEnd;
        }
        PipelineState::Running
    }
}
