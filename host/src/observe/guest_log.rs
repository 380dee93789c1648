//! Log lines of guests, marked as theirs.

use super::Allowance;
use crate::guest::{GuestSink, Level};

/// Passes a guest's lines on as events of the target `guest`, with where they come from as fields, so that no text
/// of a guest can pass for the host's.
pub struct GuestLog {
    /// The pipeline's name.
    pub pipeline: String,
    /// The stage's name.
    pub stage: String,
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// Of all instances of the stage together: each has its own too, but one that fails is followed by a new one.
    pub allowance: Allowance,
}

impl GuestSink for GuestLog {
    fn log(&self, level: Level, line: &str) {
        let GuestLog {
            pipeline,
            stage,
            plugin,
            version,
            allowance,
        } = self;
        let Some(left_out) = allowance.take() else { return };
        if left_out > 0 {
            self.tell_left_out(left_out);
        }
        match level {
            Level::Trace => tracing::trace!(target: "guest", pipeline, stage, plugin, version, "{line}"),
            Level::Debug => tracing::debug!(target: "guest", pipeline, stage, plugin, version, "{line}"),
            Level::Info => tracing::info!(target: "guest", pipeline, stage, plugin, version, "{line}"),
            Level::Warn => tracing::warn!(target: "guest", pipeline, stage, plugin, version, "{line}"),
            Level::Error => tracing::error!(target: "guest", pipeline, stage, plugin, version, "{line}"),
        }
    }

    fn suppressed(&self, lines: u64) {
        match self.allowance.take() {
            Some(before) => self.tell_left_out(before + lines),
            // This line was counted too.
            None => self.allowance.leave_out(lines - 1),
        }
    }
}

impl GuestLog {
    fn tell_left_out(&self, lines: u64) {
        tracing::warn!(
            pipeline = self.pipeline,
            stage = self.stage,
            plugin = self.plugin,
            version = self.version,
            "{lines} log lines of the plugin were left out: it writes more than its limit"
        );
    }
}
