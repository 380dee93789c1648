//! What the local store needs of a log.

use crate::connect::{Commit, CommitError, EmbeddedLog, Fetched, GroupOffset, LogError, Position, TopicPartition};
use std::sync::Arc;
use std::time::Duration;

/// Called when it is worth asking again, from any thread: it must not wait.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A log with changelogs in it. All calls wait.
pub trait Changelog: Send + Sync {
    /// Reads committed records from an offset on: as many blocks as `bytes_max` holds, one at least where there is one;
    /// nothing at the end.
    ///
    /// # Errors
    /// Where partition or offset are not there, and where what is stored is not what was written.
    fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError>;

    /// The offset of the first record that is still there, and the one behind the last. Whatever is on its way to become
    /// committed, or not, is so before it answers.
    ///
    /// # Errors
    /// Where it is not there.
    fn ends(&self, tp: &TopicPartition) -> Result<(u64, u64), LogError>;

    /// Notes that the local store holds everything before an offset: the log may drop it.
    ///
    /// # Errors
    /// The log keeps more than it needs to, no more than that.
    fn mark(&self, pipeline: &Arc<str>, tp: &TopicPartition, up_to: u64) -> Result<(), MarkError>;

    /// As [`Changelog::ends`] for those who must not wait: `None` where the answer is on its way, and `wake` tells when it
    /// is there.
    ///
    /// # Errors
    /// As there.
    fn ends_soon(&self, tp: &TopicPartition, wake: &Wake) -> Result<Option<(u64, u64)>, LogError> {
        let _ = wake;
        self.ends(tp).map(Some)
    }

    /// As [`Changelog::fetch`] for those who must not wait. One reader of a partition at a time has an answer on its way.
    ///
    /// # Errors
    /// As there.
    fn fetch_soon(
        &self,
        tp: &TopicPartition,
        from: u64,
        bytes_max: usize,
        wake: &Wake,
    ) -> Result<Option<Fetched>, LogError> {
        let _ = wake;
        self.fetch(tp, from, bytes_max).map(Some)
    }

    /// Where a changelog keeps the last change of each key by itself: for how long it keeps what was deleted. A local
    /// store that is behind for longer may miss that, and is made anew. `None` where what [`Changelog::mark`] says may go.
    fn deletes_stay(&self) -> Option<Duration> {
        None
    }
}

/// Why a mark was not noted.
pub type MarkError = CommitError;

impl Changelog for EmbeddedLog {
    fn fetch(&self, tp: &TopicPartition, from: u64, bytes_max: usize) -> Result<Fetched, LogError> {
        EmbeddedLog::fetch(self, tp, from, bytes_max)
    }

    fn ends(&self, tp: &TopicPartition) -> Result<(u64, u64), LogError> {
        // The end first: what is dropped meanwhile lies before it.
        let next = self.next_offset(tp)?;
        Ok((self.offset_at(tp, Position::Start)?, next))
    }

    fn mark(&self, pipeline: &Arc<str>, tp: &TopicPartition, up_to: u64) -> Result<(), MarkError> {
        let offset = GroupOffset {
            group: pipeline.clone(),
            topic: tp.topic.clone(),
            partition: tp.partition,
            next_offset: up_to,
            metadata: String::new(),
        };
        let commit = Commit {
            offsets: vec![offset],
            ..Commit::default()
        };
        self.commit(commit).map(drop)
    }
}
