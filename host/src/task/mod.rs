//! The loop: batch → decode → stages → effects → commit.
//!
//! A [`Task`] is a pipeline's share of one partition. [`Scheduler`]'s workers give tasks their turns; a turn reads
//! some records, takes them through the stages in one pass, and keeps what came out as effects, until a commit
//! makes outputs, dead letters and offsets true together.

mod aggregate;
mod commit;
mod dead_letter;
mod effects;
mod pass;
mod pipeline;
mod read;
mod scheduler;
mod state;
mod stats;
#[expect(clippy::module_inception, reason = "the task is what the module is about")]
mod task;
mod time;

pub use aggregate::LATE_HEADER;
pub use dead_letter::{Reason, header};
pub use effects::Sink;
pub use pipeline::{PipelineRuntime, StartError, Stores};
pub use scheduler::{Handle, Next, Scheduler, Turn, Waker};
pub use stats::{Counter, PipelineStats, StageStats};
pub use task::{Task, TaskError, TaskStatus};
