//! How far a stream has come in event time.

use std::time::Duration;

use super::Late;

/// The greatest timestamp that a stage has seen in one partition; none before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamTime(Option<i64>);

impl StreamTime {
    /// Milliseconds since the epoch.
    pub fn get(self) -> Option<i64> {
        self.0
    }

    /// Moves to a moment, if it lies ahead; never back.
    pub fn advance(&mut self, to_ms: i64) {
        self.0 = self.0.max(Some(to_ms));
    }

    /// Takes a record into account that was appended at `appended_ms`.
    ///
    /// # Errors
    /// Where its timestamp is further ahead of that than `future_max`: one wrong clock must not close everybody's
    /// windows.
    pub fn observe(&mut self, timestamp_ms: i64, appended_ms: i64, future_max: Duration) -> Result<(), Late> {
        let future_max_ms = i64::try_from(future_max.as_millis()).unwrap_or(i64::MAX);
        if timestamp_ms > appended_ms.saturating_add(future_max_ms) {
            let ahead_ms = timestamp_ms.saturating_sub(appended_ms);
            return Err(Late::Future { ahead_ms });
        }
        self.advance(timestamp_ms);
        Ok(())
    }
}
