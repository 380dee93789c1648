//! What a running pipeline counts; read by others while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts of one pipeline since it was started. What is counted may still be undone by a commit that fails, and is
/// counted again when it is repeated: these are for people; the truth is in the log.
#[derive(Debug, Default)]
pub struct PipelineStats {
    /// Records read from all sources.
    pub records_in: Counter,
    /// Bytes of keys, values and headers of them.
    pub bytes_in: Counter,
    /// Commits that succeeded.
    pub commits: Counter,
    /// Times that a task went back to its last commit.
    pub rewinds: Counter,
    /// Records sent to the dead-letter queue.
    pub dead_letters: Counter,
    /// By stage.
    pub stages: Vec<StageStats>,
}

/// Counts of one stage.
#[derive(Debug, Default)]
pub struct StageStats {
    /// Rows that reached the plugin.
    pub rows_in: Counter,
    /// Calls of the plugin.
    pub calls: Counter,
    /// Nanoseconds in the plugin, boundary included.
    pub guest_ns: Counter,
    /// Rows that could not be decoded, or encoded, or that the plugin refused, or whose call failed.
    pub failed: Counter,
    /// Rows that were too late for all of their windows, or too far ahead.
    pub late: Counter,
    /// Rows that have no key where the stage needs one.
    pub unkeyed: Counter,
    /// Calls that ended in a trap, a time-out or a broken contract.
    pub traps: Counter,
    /// Rows out, by branch.
    pub branches: Vec<Counter>,
}

impl PipelineStats {
    /// Zeros for stages with so many branches each.
    pub fn new(branches: impl Iterator<Item = usize>) -> PipelineStats {
        PipelineStats {
            stages: branches
                .map(|count| StageStats {
                    branches: (0..count).map(|_| Counter::default()).collect(),
                    ..StageStats::default()
                })
                .collect(),
            ..PipelineStats::default()
        }
    }
}
