//! Flushing: what was committed to a changelog is written to the local store, in bulk and behind everybody's back.
//!
//! One thread does it for all tasks. It reads the changelog, as that is what is true; what a task has in memory is not
//! asked for. Of each key the last record counts: a key that changes a thousand times between two flushes is written
//! once.

mod piece;
mod queue;
#[cfg(test)]
pub(in crate::state) mod tests;

use super::database::{StateDb, StateError};
use super::log::Changelog;
use super::segment::Segmenting;
use crate::connect::{LogError, TopicPartition};
use crate::crash::crash_point;
use crate::limits::STATE_FLUSH_PIECE_BYTES;
use piece::Piece;
use queue::Queue;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A stretch of a changelog that is to be written to the local store.
pub struct FlushJob {
    /// Whose offset in the changelog is the mark for purging it.
    pub pipeline: Arc<str>,
    /// The changelog, and the task's partition of it.
    pub changelog: TopicPartition,
    /// Where the store's rows end; where the store itself knows better, that counts.
    pub from: u64,
    /// The offset behind the last record that is to be written. It was committed.
    pub to: u64,
    /// How the store is cut, if it is new.
    pub segmenting: Segmenting,
    /// Rows from before this time are past: they are not written, and segments that end before it are dropped.
    pub before_ms: Option<i64>,
    /// Since when, by the wall clock, the store misses nothing that was deleted; to be noted, where somebody has to know.
    pub as_of_ms: Option<i64>,
    /// Called with the outcome, on the flusher's thread: it must not wait.
    pub done: Box<dyn FnOnce(Result<Flushed, FlushError>) + Send>,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Everything before this offset is in the local store.
    pub up_to: u64,
    /// Records that were read.
    pub records: u64,
    /// Rows and deletes that were written.
    pub rows: u64,
}

/// Why not everything was flushed. What was before it is there; the same job again goes on where this one ended. It is
/// not tried again by itself: whoever asked for it decides when.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum FlushError {
    /// The local store does not take it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The changelog cannot be read.
    #[error("the changelog cannot be read: {0}")]
    Log(#[from] LogError),
    /// A record that no store wrote.
    #[error(
        "{changelog} has a record without a key at offset {offset}: no store writes one; only the host may write to a changelog"
    )]
    NoKey {
        /// The changelog.
        changelog: TopicPartition,
        /// Of the record.
        offset: u64,
    },
    /// The flusher was closed, or is being closed.
    #[error("the host stops: the local store is flushed no further")]
    Closed,
    /// A bug of ours; the panic hook has said where.
    #[error("flushing {changelog} panicked; it is tried again with the next flush")]
    Panicked {
        /// The changelog.
        changelog: TopicPartition,
    },
}

/// The thread that flushes. Dropping it closes it.
pub struct Flusher {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    db: Arc<StateDb>,
    log: Arc<dyn Changelog>,
    queue: Queue,
    piece_bytes: usize,
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(db: Arc<StateDb>, log: Arc<dyn Changelog>) -> std::io::Result<Flusher> {
        Flusher::with_piece_bytes(db, log, STATE_FLUSH_PIECE_BYTES)
    }

    fn with_piece_bytes(db: Arc<StateDb>, log: Arc<dyn Changelog>, piece_bytes: usize) -> std::io::Result<Flusher> {
        let shared = Arc::new(Shared {
            db,
            log,
            queue: Queue::default(),
            piece_bytes,
        });
        let flushing = shared.clone();
        let thread = std::thread::Builder::new()
            .name("state-flush".into())
            .spawn(move || flushing.run())?;
        Ok(Flusher {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Puts a job behind the others. Never waits.
    ///
    /// # Errors
    /// The job, where one of the same changelog and partition is not done yet, and where the flusher was closed.
    pub fn submit(&self, job: FlushJob) -> Result<(), Box<FlushJob>> {
        self.shared.queue.push(job)
    }

    /// Whether a job of this changelog and partition is not done yet.
    pub fn is_busy(&self, changelog: &TopicPartition) -> bool {
        self.shared.queue.is_busy(changelog)
    }

    /// Ends with the piece that is being written; what waits is refused with [`FlushError::Closed`].
    pub fn close(&self) {
        for job in self.shared.queue.close() {
            (job.done)(Err(FlushError::Closed));
        }
        let thread = self.thread.lock().unwrap_or_else(|e| e.into_inner()).take();
        // Where the last user of the flusher goes within a callback, the thread ends by itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Until the queue is closed.
    fn run(&self) {
        while let Some(job) = self.queue.pop() {
            let changelog = job.changelog.clone();
            let outcome = catch_unwind(AssertUnwindSafe(|| self.flush(&job)));
            let outcome = outcome.unwrap_or_else(|_| {
                Err(FlushError::Panicked {
                    changelog: changelog.clone(),
                })
            });
            // Before the answer: whoever hears it may ask for the next.
            self.queue.done(&changelog);
            if catch_unwind(AssertUnwindSafe(|| (job.done)(outcome))).is_err() {
                tracing::error!(%changelog, "whoever heard of a flush's outcome panicked");
            }
        }
    }

    fn flush(&self, job: &FlushJob) -> Result<Flushed, FlushError> {
        crash_point("state-flush-begin");
        let tp = &job.changelog;
        let mut flushed = Flushed {
            up_to: self.db.flushed(&tp.topic, tp.partition)?.unwrap_or(job.from),
            records: 0,
            rows: 0,
        };
        while flushed.up_to < job.to {
            if self.queue.is_closed() {
                return Err(FlushError::Closed);
            }
            let piece = Piece::read(&*self.log, tp, flushed.up_to, job.to, self.piece_bytes)?;
            let up_to = piece.next_offset();
            let rows = piece.rows(tp, job.segmenting, job.before_ms)?;
            self.db.apply(&tp.topic, tp.partition, job.segmenting, &rows, up_to)?;
            if let Some(as_of_ms) = job.as_of_ms {
                self.db.note_as_of(&tp.topic, tp.partition, as_of_ms)?;
            }
            flushed.records += piece.records();
            flushed.rows += rows.len() as u64;
            flushed.up_to = up_to;
            // The mark is not the truth, the store is: where it is missing the log keeps more until the next flush.
            if let Err(error) = self.log.mark(&job.pipeline, tp, up_to) {
                tracing::warn!(%error, changelog = %tp, "the changelog is not purged for now");
            }
        }
        if let Some(before_ms) = job.before_ms
            && let Err(error) = self.db.retire(&tp.topic, tp.partition, before_ms)
        {
            tracing::warn!(%error, "rows that are past stay on the disk for now");
        }
        Ok(flushed)
    }
}
