//! Named points at which the process can be made to die, for the tests of durability.
//!
//! `MILLSTREAM_CRASH_AT=name` or `name:3` kills this process with SIGKILL at the first or third pass through the
//! point of that name: nothing is flushed, nothing unwound, as if somebody had pulled the plug of the process. The
//! variable is read once; without it a point costs one load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that names the point: `name`, or `name:nth` with passes counted from 1.
pub const CRASH_VARIABLE: &str = "MILLSTREAM_CRASH_AT";

/// Every point of the embedded log, in the order in which a commit passes them.
pub const LOG_CRASH_POINTS: [&str; 10] = [
    "commit-begin",
    "commit-built",
    "commit-synced",
    "topic-begin",
    "topic-synced",
    "generation-begin",
    "retention-begin",
    "retention-synced",
    "purge-begin",
    "keyspace-dropped",
];

/// Every point of the local store, in the order in which a flush passes them.
pub const STATE_CRASH_POINTS: [&str; 6] = [
    "state-flush-begin",
    "state-keyspace-begin",
    "state-flush-run",
    "state-flush-meta",
    "state-segments-unnamed",
    "state-keyspace-dropped",
];

/// Every point of a task's stores: committed and not yet merged into hot rows, some rows evicted, some of the changelog
/// read back.
pub const STORE_CRASH_POINTS: [&str; 3] = ["state-committed", "state-evicted", "state-replayed"];

/// Every point of a transaction on Kafka, in the order in which it passes them.
pub const KAFKA_CRASH_POINTS: [&str; 4] = [
    "kafka-produced",
    "kafka-offsets-sent",
    "kafka-filled",
    "kafka-committed",
];

struct Plan {
    name: String,
    passes_left: AtomicU64,
}

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

/// Dies here if [`CRASH_VARIABLE`] says so.
pub fn crash_point(name: &str) {
    let plan = PLAN.get_or_init(|| std::env::var(CRASH_VARIABLE).ok().map(|text| parse(&text)));
    if let Some(plan) = plan
        && plan.name == name
        && plan.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // Should the signal fail, the process ends without unwinding all the same.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

fn parse(text: &str) -> Plan {
    let (name, nth) = match text.rsplit_once(':') {
        Some((name, nth)) if nth.parse::<u64>().is_ok_and(|n| n > 0) => (name, nth.parse().unwrap_or(1)),
        _ => (text, 1),
    };
    Plan {
        name: name.to_string(),
        passes_left: AtomicU64::new(nth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_the_point_and_the_pass() {
        for (text, name, nth) in [
            ("a", "a", 1),
            ("a:3", "a", 3),
            ("a:b", "a:b", 1),
            ("a:0", "a:0", 1),
            ("", "", 1),
        ] {
            let plan = parse(text);
            assert_eq!(
                (plan.name.as_str(), plan.passes_left.load(Ordering::Relaxed)),
                (name, nth),
                "{text}"
            );
        }
    }
}
