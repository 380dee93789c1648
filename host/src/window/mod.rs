//! Windows of event time: which ones a record belongs to, when they close, and who comes too late. Pure functions.

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

/// How event time is divided. Windows are `[start, end)`, aligned to the epoch plus an offset; a record may lie in
/// several where they overlap.
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
