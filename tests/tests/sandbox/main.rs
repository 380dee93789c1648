//! The sandbox holds: whatever a plugin does, it gets the error that is its own, the memory it took comes back, and an
//! honest plugin beside it runs on.

mod aggregate;
mod allocations;
mod guest;
mod load;
mod memory;
mod run;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream::guest::{
    CallError, Configured, GuestError, GuestSink, Instance, Level, LoadError, Options, Plugin, Runtime,
};
use millstream::limits::StageLimits;
use millstream::output::Outputs;
use millstream::table::{Column, Table};
use millstream_tests::{program, resident_bytes};

use guest::Guest;

/// What the process may hold more after a case than before it: what allocators and thread stacks keep.
const RESIDENT_SLACK_BYTES: usize = 32 << 20;

/// One case at a time: cases measure the memory of the process.
static ONE: Mutex<()> = Mutex::new(());

/// A runtime with an honest plugin in it.
struct Sandbox {
    runtime: Arc<Runtime>,
    honest: Instance,
    folder: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Sandbox {
    fn new() -> Sandbox {
        Sandbox::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Sandbox {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = Options::new(folder.path().join("cache"), program());
        options.configure_time_max = Duration::from_millis(300);
        let honest = {
            let runtime = Runtime::new(options.clone()).expect("a runtime");
            let path = folder.path().join("honest.wasm");
            std::fs::write(&path, Guest::new("honest").component()).expect("written");
            runtime.load(&path).expect("loads");
            path
        };
        // The honest plugin is in the cache now, whatever the case makes of the compiler.
        change(&mut options);
        let runtime = Runtime::new(options).expect("a runtime");
        let plugin = runtime.load(&honest).expect("loads");
        let configured = plugin.configure("{}", &StageLimits::default()).expect("configures");
        let honest = configured.instantiate(Arc::new(Lines::default())).expect("starts");
        Sandbox {
            runtime,
            honest,
            folder,
            _one: one,
        }
    }

    fn load(&self, file: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        let path = self.folder.path().join("plugin.wasm");
        std::fs::write(&path, file).expect("written");
        self.runtime.load(&path)
    }

    /// An honest plugin works, in an instance that was there before and in a new one.
    fn neighbour_works(&mut self) {
        let before = self
            .honest
            .process(0, &rows(100), 0, &mut None)
            .expect("the neighbour works");
        let mut fresh = self
            .honest
            .configured()
            .instantiate(Arc::new(Lines::default()))
            .expect("another starts");
        let now = fresh.process(0, &rows(100), 0, &mut None).expect("another works");
        assert_eq!(now, before);
        assert_eq!(now.branches[0].origins, (0..100).collect::<Vec<_>>());
    }

    /// Runs a case, and looks at what it leaves behind.
    fn case(&mut self, name: &str, case: impl FnOnce(&Sandbox)) {
        let before = resident_bytes();
        case(self);
        self.neighbour_works();
        let after = resident_bytes();
        assert!(
            after < before + RESIDENT_SLACK_BYTES,
            "{name}: the process held {before} bytes before and holds {after} now"
        );
    }
}

/// Takes log lines.
#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<(Level, String)>>,
    suppressed: Mutex<u64>,
}

impl GuestSink for Lines {
    fn log(&self, level: Level, line: &str) {
        self.lines.lock().unwrap().push((level, line.to_owned()));
    }

    fn suppressed(&self, lines: u64) {
        *self.suppressed.lock().unwrap() += lines;
    }
}

/// Limits that are reached quickly.
fn limits() -> StageLimits {
    StageLimits {
        memory_bytes_max: 16 << 20,
        call_time_max: Duration::from_millis(100),
        output_bytes_max: 1 << 20,
        output_rows_per_row_max: 10,
        log_lines_per_second_max: 100,
    }
}

/// A table of one integer column: 0, 1, 2, …
fn rows(count: u32) -> Table {
    Table {
        rows: count,
        columns: vec![Column {
            data: (0..i64::from(count)).flat_map(i64::to_le_bytes).collect(),
            ..Column::default()
        }],
    }
}

/// Configures and starts a guest.
fn start(sandbox: &Sandbox, guest: &Guest, lines: &Arc<Lines>) -> Result<(Configured, Instance), GuestError> {
    let plugin = sandbox
        .load(&guest.component())
        .unwrap_or_else(|error| panic!("{}: {error}", guest.name));
    let configured = plugin.configure("{}", &limits())?;
    let instance = configured.instantiate(Arc::clone(lines) as Arc<dyn GuestSink>)?;
    Ok((configured, instance))
}

/// Calls a guest with three rows.
fn call(sandbox: &Sandbox, guest: &Guest) -> Result<Outputs, CallError> {
    let (_, mut instance) =
        start(sandbox, guest, &Arc::default()).unwrap_or_else(|error| panic!("{}: {error}", guest.name));
    let answer = instance.process(0, &rows(3), 0, &mut None);
    let poisoned = matches!(&answer, Err(error) if !matches!(error, CallError::Refused(_)));
    assert_eq!(instance.is_poisoned(), poisoned, "{}", guest.name);
    if poisoned {
        assert!(
            matches!(instance.process(0, &rows(3), 0, &mut None), Err(CallError::Poisoned)),
            "{}",
            guest.name
        );
        assert!(instance.metrics().is_empty());
    }
    answer
}
