//! What a guest may call: `log`, `metrics`, `state`, and a WASI in which there is nothing.

pub mod log;
pub mod metrics;
pub mod state;
pub mod wasi;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Engine, UpdateDeadline};

use self::log::LogLines;
use self::wasi::Wasi;
use super::bindings::{self, CONTRACT_PACKAGE};
use super::classify::without_version;
use super::engine::ticks;
use super::limiter::Limiter;

/// What the host keeps for one instance.
pub struct Host {
    pub limiter: Limiter,
    pub deadline: Deadline,
    pub phase: Phase,
    pub log: Arc<Mutex<LogLines>>,
    pub metrics: metrics::Updates,
    pub state: state::State,
    /// For instances of components that import it.
    pub wasi: Option<Box<Wasi>>,
}

/// Which function of the guest is running: it says what the guest may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The instance starts.
    Start,
    /// `describe`.
    Describe,
    /// `configure`.
    Configure,
    /// `initial`.
    Initial,
    /// `process`.
    Process,
    /// `accumulate`.
    Accumulate,
    /// `merge`.
    Merge,
    /// `finish`.
    Finish,
}

impl Phase {
    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Start => "the start of the instance",
            Phase::Describe => "describe",
            Phase::Configure => "configure",
            Phase::Initial => "initial",
            Phase::Process => "process",
            Phase::Accumulate => "accumulate",
            Phase::Merge => "merge",
            Phase::Finish => "finish",
        }
    }

    /// Whether it is called with tables; before, the guest may call nothing but `log`.
    pub fn has_tables(self) -> bool {
        !matches!(self, Phase::Start | Phase::Describe | Phase::Configure | Phase::Initial)
    }
}

/// A call to the host that breaks a rule. It ends the guest's call.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// How long a call may take, in processor time of its thread: a guest that has to wait for a processor is not to blame.
#[derive(Debug)]
pub struct Deadline {
    limit: Duration,
    /// The thread's processor time when the call was first looked at, a tick or two after it began: so that short
    /// calls need not ask for it.
    seen_at: Option<Duration>,
    /// Whether the call was ended.
    pub passed: bool,
}

/// Ticks after which a call is looked at for the first time.
pub const FIRST_LOOK_TICKS: u64 = 2;

impl Deadline {
    /// For a call that begins now.
    pub fn new(limit: Duration) -> Deadline {
        Deadline {
            limit,
            seen_at: None,
            passed: false,
        }
    }

    /// How long the call may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// What becomes of a call whose time may be over.
    pub fn look(&mut self) -> UpdateDeadline {
        let now = thread_time();
        let since = now.saturating_sub(*self.seen_at.get_or_insert(now));
        if since >= self.limit {
            self.passed = true;
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Continue(ticks(self.limit - since))
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Host {
    /// The log, which outlives a panic of a thread that wrote to it.
    pub fn log(&self) -> std::sync::MutexGuard<'_, LogLines> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that a guest may import.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    log::add(&mut linker)?;
    // Types only, but their interfaces are imported all the same.
    bindings::schema::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    bindings::table::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    bindings::output::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    bindings::metrics::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    bindings::state::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    wasi::add(&mut linker)?;
    Ok(linker)
}

impl bindings::schema::Host for Host {}
impl bindings::table::Host for Host {}
impl bindings::output::Host for Host {}

/// Whether [`linker`] has something for an import of this name. Its type is checked when the component is linked.
pub fn is_provided(name: &str) -> bool {
    let interface = without_version(name);
    match interface.split_once('/') {
        Some((CONTRACT_PACKAGE, interface)) => {
            matches!(interface, "log" | "metrics" | "state" | "schema" | "table" | "output")
        }
        Some(_) => wasi::PROVIDED.contains(&interface) && name[interface.len()..].starts_with("@0.2."),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_use_its_time_and_no_more() {
        let mut deadline = Deadline::new(Duration::from_millis(20));
        assert!(matches!(deadline.look(), UpdateDeadline::Continue(_)));
        assert!(!deadline.passed);
        // Waiting is not working.
        std::thread::sleep(Duration::from_millis(30));
        assert!(matches!(deadline.look(), UpdateDeadline::Continue(_)));
        let began = thread_time();
        while thread_time() - began < Duration::from_millis(21) {
            std::hint::spin_loop();
        }
        assert!(matches!(deadline.look(), UpdateDeadline::Interrupt));
        assert!(deadline.passed);
    }

    #[test]
    fn the_network_is_not_provided() {
        for name in [
            "wasi:sockets/tcp@0.2.0",
            "wasi:http/types@0.2.0",
            "wasi:cli/stdout@0.3.0",
            "wasi:cli/stdout",
            "a",
            "x:y/z@1.0.0",
        ] {
            assert!(!is_provided(name), "{name}");
        }
        for name in [
            "wasi:cli/stdout@0.2.0",
            "wasi:cli/stdout@0.2.9",
            "millstream:plugin/log@0.1.0",
        ] {
            assert!(is_provided(name), "{name}");
        }
    }
}
