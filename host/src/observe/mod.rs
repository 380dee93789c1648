//! What operators see: log lines, and later metrics and traces.

mod guest_log;

pub use guest_log::GuestLog;
