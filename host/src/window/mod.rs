//! Windows of event time: which ones a record belongs to, when they close, and who comes too late. Pure functions.
//!
//! Times are milliseconds since the epoch, UTC. *Stream time* is the greatest timestamp that was seen; it never goes
//! back. A window `[start, end)` is closed when end + grace ≤ stream time, the record that moves stream time included:
//! the rule of Kafka Streams.
//!
//! ```
//! use millstream::window::{Late, StreamTime, Window};
//!
//! let minute = Window { size_ms: 60_000, advance_ms: 60_000, offset_ms: 0, grace_ms: 10_000 };
//! let mut now = StreamTime::default();
//! now.advance(125_000);
//! assert_eq!(minute.place(119_999, now)?.collect::<Vec<_>>(), [60_000]);
//! now.advance(130_000);
//! assert_eq!(minute.place(119_999, now).err(), Some(Late::Closed { end_ms: 120_000, behind_ms: 10_000 }));
//! # Ok::<(), Late>(())
//! ```

mod stream_time;

pub use stream_time::StreamTime;

/// When the results of an aggregator are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emit {
    /// For each group that changed, once a commit.
    #[default]
    Update,
    /// For each record that changed a group.
    EveryUpdate,
    /// Once for each window, when it closes.
    Close,
}

/// How event time is divided. Windows are `[start, end)`, aligned to the epoch plus an offset; none starts before the
/// epoch. A record may lie in several where they overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The length of a window in milliseconds; at least 1.
    pub size_ms: i64,
    /// From one start to the next; 1 to `size_ms`. The size where windows tumble.
    pub advance_ms: i64,
    /// The first start behind the epoch; 0 to `advance_ms` - 1.
    pub offset_ms: i64,
    /// A window closes so long after its end, by stream time.
    pub grace_ms: i64,
}

/// Why a record counts in no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    /// All its windows are closed.
    #[error("closed: its last window ended {behind_ms} ms before stream time")]
    Closed {
        /// The end of the last of its windows.
        end_ms: i64,
        /// How far stream time is beyond that end.
        behind_ms: i64,
    },
    /// Its timestamp is further ahead of the time at which it was appended than the source allows.
    #[error("future: its timestamp is {ahead_ms} ms ahead of the time at which it was appended")]
    Future {
        /// How far it is ahead.
        ahead_ms: i64,
    },
    /// It lies before the first window.
    #[error("before the epoch: its timestamp is {timestamp_ms}")]
    BeforeEpoch {
        /// Its timestamp.
        timestamp_ms: i64,
    },
}

/// The starts of windows, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starts {
    next_ms: i64,
    last_ms: i64,
    advance_ms: i64,
}

impl Iterator for Starts {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        if self.next_ms > self.last_ms {
            return None;
        }
        let start = self.next_ms;
        // Behind the last that there can be nothing follows.
        self.next_ms = start.checked_add(self.advance_ms).unwrap_or(i64::MAX);
        if self.next_ms == i64::MAX {
            self.last_ms = i64::MAX - 1;
        }
        Some(start)
    }
}

impl Window {
    /// The end of the window that starts there: the first moment that is not in it.
    pub fn end(&self, start_ms: i64) -> i64 {
        start_ms.saturating_add(self.size_ms)
    }

    /// The stream time at which the window that starts there closes.
    pub fn closes_at(&self, start_ms: i64) -> i64 {
        self.end(start_ms).saturating_add(self.grace_ms)
    }

    /// The start of the first window that is still open; those before it are closed.
    pub fn first_open(&self, now: StreamTime) -> i64 {
        match now.get() {
            // start + size + grace > now
            Some(now) => now
                .saturating_sub(self.size_ms)
                .saturating_sub(self.grace_ms)
                .saturating_add(1),
            None => i64::MIN,
        }
    }

    /// The windows, open or closed, that a timestamp lies in.
    fn starts(&self, timestamp_ms: i64) -> Starts {
        self.starts_near(timestamp_ms)
            .unwrap_or_else(|| self.starts_anywhere(timestamp_ms))
    }

    /// [`Window::starts`] in numbers of 64 bits, which are enough but at the ends of time; `None` there.
    fn starts_near(&self, timestamp_ms: i64) -> Option<Starts> {
        let behind_ms = timestamp_ms.checked_sub(self.offset_ms)?.rem_euclid(self.advance_ms);
        let last_ms = timestamp_ms.checked_sub(behind_ms)?;
        if self.advance_ms == self.size_ms {
            return Some(Starts {
                next_ms: last_ms.max(self.offset_ms),
                last_ms,
                advance_ms: self.advance_ms,
            });
        }
        // As many starts before the last as there is room for in what is left of the size.
        let before = (self.size_ms - 1).checked_sub(behind_ms)?.div_euclid(self.advance_ms);
        let first_ms = last_ms.checked_sub(before.checked_mul(self.advance_ms)?)?;
        Some(Starts {
            next_ms: first_ms.max(self.offset_ms),
            last_ms,
            advance_ms: self.advance_ms,
        })
    }

    fn starts_anywhere(&self, timestamp_ms: i64) -> Starts {
        let (advance, offset) = (i128::from(self.advance_ms), i128::from(self.offset_ms));
        let timestamp = i128::from(timestamp_ms);
        let last = (timestamp - offset).div_euclid(advance) * advance + offset;
        // The first start behind timestamp - size, and none before the epoch.
        let after = timestamp - i128::from(self.size_ms);
        let first = (after - offset).div_euclid(advance) * advance + offset + advance;
        let clamp = |ms: i128| ms.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Starts {
            next_ms: clamp(first.max(offset)),
            last_ms: clamp(last),
            advance_ms: self.advance_ms,
        }
    }

    /// The open windows that a record lies in. Stream time includes the record.
    ///
    /// # Errors
    /// Where there is none.
    pub fn place(&self, timestamp_ms: i64, now: StreamTime) -> Result<Starts, Late> {
        let mut starts = self.starts(timestamp_ms);
        if starts.next_ms > starts.last_ms {
            return Err(Late::BeforeEpoch { timestamp_ms });
        }
        let first_open = self.first_open(now);
        if starts.last_ms < first_open {
            let end_ms = self.end(starts.last_ms);
            let behind_ms = now.get().unwrap_or(end_ms).saturating_sub(end_ms);
            return Err(Late::Closed { end_ms, behind_ms });
        }
        while starts.next_ms < first_open {
            starts.next();
        }
        Ok(starts)
    }

    /// How many windows a record lies in at most.
    pub fn overlap(&self) -> i64 {
        self.size_ms / self.advance_ms + i64::from(self.size_ms % self.advance_ms != 0)
    }
}

#[cfg(test)]
mod tests;
