//! What operators see: log lines, and later metrics and traces.

mod allowance;
mod guest_log;

pub use allowance::Allowance;
pub use guest_log::GuestLog;
