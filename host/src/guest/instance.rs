//! An instance: a plugin with memory of its own, called with tables.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wasmtime::component::TypedFunc;
use wasmtime::{AsContextMut, Store, Trap, WasmBacktrace};

use super::bindings::{LentTable, Lifecycle, output as wit};
use super::error::{CallError, GuestError};
use super::imports::log::{GuestSink, LogLines};
pub use super::imports::metrics::MetricUpdate;
use super::imports::wasi::Wasi;
use super::imports::{Deadline, FIRST_LOOK_TICKS, Host, Misuse, Phase};
use super::limiter::Limiter;
use super::plugin::{Configured, Plugin};
use super::signature;
use crate::limits::{FAILURE_MESSAGE_BYTES_MAX, GUEST_FRAMES_MAX, GUEST_HANDLES_MAX, StageLimits};
use crate::output::{Emitted, Failure, Outputs, PackedEmission};
use crate::schema::Signature;
use crate::table::{Column, Table};

/// `process`, as it is called.
pub type Process = TypedFunc<(u32, LentTable<'static>), (Result<wit::Outputs, String>,)>;

/// What an answer may take beside its bytes: the lists of lists of an honest one, however many branches it has.
const ANSWER_FRAME_BYTES: usize = 8 << 20;
/// What `describe` and `configure` may answer.
const SIGNATURE_BYTES_MAX: usize = 16 << 20;

/// A component's instance before it is known what it can do.
pub struct Started {
    pub store: Store<Host>,
    pub lifecycle: Lifecycle,
    pub process: Option<Process>,
}

impl Started {
    /// Makes memory, starts the instance and finds its functions. What follows until the first `process` shares the
    /// time of the start.
    pub fn new(plugin: &Plugin, limits: &StageLimits, sink: Arc<dyn GuestSink>) -> Result<Started, CallError> {
        let log = Arc::new(Mutex::new(LogLines::new(sink, limits.log_lines_per_second_max)));
        let host = Host {
            limiter: Limiter::new(limits.memory_bytes_max),
            deadline: Deadline::new(plugin.runtime().configure_time_max),
            phase: Phase::Start,
            metrics: Default::default(),
            wasi: plugin.imports_wasi().then(|| Box::new(Wasi::new(&log))),
            log,
        };
        let mut store = Store::new(&plugin.runtime().engine, host);
        store.limiter(|host| &mut host.limiter);
        store.epoch_deadline_callback(|mut context| Ok(context.data_mut().deadline.look()));
        store.set_max_component_handles(GUEST_HANDLES_MAX);
        store.set_hostcall_fuel(SIGNATURE_BYTES_MAX);
        store.set_epoch_deadline(FIRST_LOOK_TICKS);
        let _running = plugin.runtime().ticker.running();
        let instance = plugin
            .component()
            .instantiate(&mut store)
            .map_err(|error| failure(&mut store, error))?;
        let mismatch = |error: wasmtime::Error| CallError::Malformed {
            message: format!("{error:#}"),
        };
        let lifecycle = plugin.lifecycle().load(&mut store, &instance).map_err(mismatch)?;
        let process = match plugin.process() {
            Some(index) => Some(instance.get_typed_func(&mut store, index).map_err(mismatch)?),
            None => None,
        };
        Ok(Started {
            store,
            lifecycle,
            process,
        })
    }

    /// Calls `describe`.
    pub fn describe(&mut self, plugin: &Plugin) -> Result<super::bindings::schema::Info, CallError> {
        let _running = plugin.runtime().ticker.running();
        self.store.data_mut().phase = Phase::Describe;
        self.lifecycle
            .call_describe(&mut self.store)
            .map_err(|error| failure(&mut self.store, error))
    }

    /// Calls `configure`, and holds what it answers against the rules.
    pub fn configure(&mut self, plugin: &Plugin, config: &str) -> Result<Signature, GuestError> {
        let _running = plugin.runtime().ticker.running();
        self.store.data_mut().phase = Phase::Configure;
        let answer = self.lifecycle.call_configure(&mut self.store, config);
        let answer = answer.map_err(|error| GuestError::Call {
            plugin: plugin.label(),
            function: "configure",
            source: failure(&mut self.store, error).into(),
        })?;
        let answer = answer.map_err(|message| GuestError::Refused {
            plugin: plugin.label(),
            message: super::imports::log::escaped(&message),
        })?;
        signature::signature(plugin.kind(), answer).map_err(|problem| GuestError::Signature {
            plugin: plugin.label(),
            problem,
        })
    }
}

/// A plugin with memory of its own.
///
/// It may be moved between threads, and is called by one at a time. What it remembers beside its configuration does
/// not matter, so it may be dropped and replaced at any time.
pub struct Instance {
    store: Store<Host>,
    process: Process,
    configured: Configured,
    poisoned: bool,
    called: bool,
    call_time: Duration,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plugin = self.configured.plugin().label();
        f.debug_struct("Instance")
            .field("plugin", &plugin)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// Starts and configures an instance, and holds its signature against the one that is known.
    pub(super) fn new(configured: &Configured, sink: Arc<dyn GuestSink>) -> Result<Instance, GuestError> {
        let plugin = configured.plugin();
        let limits = configured.limits();
        let mut started = Started::new(plugin, limits, sink).map_err(|source| GuestError::Start {
            plugin: plugin.label(),
            source: Box::new(source),
        })?;
        let now = started.configure(plugin, configured.config())?;
        if let Some(what) = signature::difference(configured.signature(), &now) {
            return Err(GuestError::Changed {
                plugin: plugin.label(),
                what,
            });
        }
        let Started { mut store, process, .. } = started;
        let process = process.ok_or_else(|| GuestError::Start {
            plugin: plugin.label(),
            source: Box::new(CallError::Misuse {
                message: format!("it is an {}, which this host cannot run yet", plugin.kind()),
                frames: vec![],
            }),
        })?;
        let output_bytes_max = usize::try_from(limits.output_bytes_max).unwrap_or(usize::MAX);
        store.set_hostcall_fuel(output_bytes_max.saturating_add(ANSWER_FRAME_BYTES));
        let host = store.data_mut();
        host.phase = Phase::Process;
        host.metrics.kinds = now.metrics.iter().map(|metric| metric.kind).collect();
        Ok(Instance {
            store,
            process,
            configured: configured.clone(),
            poisoned: false,
            called: false,
            call_time: Duration::ZERO,
        })
    }

    /// Calls the plugin with rows of one of its inputs. `now_ms` is the time that its clocks show.
    ///
    /// `rows` must fit the fields of the input; the host that built the table guarantees it.
    ///
    /// # Errors
    /// How the call failed. Nothing of it counts, nor do its metric updates. After anything but
    /// [`CallError::Refused`] the instance is poisoned and each further call fails with [`CallError::Poisoned`].
    pub fn process(&mut self, input: u32, rows: &Table, now_ms: i64) -> Result<Outputs, CallError> {
        if self.poisoned {
            return Err(CallError::Poisoned);
        }
        let answer = self.call(input, rows, now_ms);
        self.called = true;
        self.poisoned = matches!(&answer, Err(error) if !matches!(error, CallError::Refused(_)));
        if answer.is_err() {
            self.store.data_mut().metrics.updates.clear();
        }
        answer
    }

    fn call(&mut self, input: u32, rows: &Table, now_ms: i64) -> Result<Outputs, CallError> {
        let limits = self.configured.limits();
        let host = self.store.data_mut();
        host.limiter.refused_bytes = None;
        host.deadline = Deadline::new(limits.call_time_max);
        host.metrics.updates.clear();
        host.log().begin_call();
        if let Some(wasi) = &mut host.wasi {
            wasi.begin_call(now_ms);
        }
        let began = Instant::now();
        let running = self.configured.plugin().runtime().ticker.running();
        self.store.set_epoch_deadline(FIRST_LOOK_TICKS);
        let answer = self.process.call(&mut self.store, (input, LentTable::from(rows)));
        drop(running);
        self.call_time = began.elapsed();
        self.store.data().log().end_call();
        let (answer,) = answer.map_err(|error| match failure(&mut self.store, error) {
            CallError::AnswerSize { .. } => CallError::AnswerSize {
                limit_bytes: limits.output_bytes_max,
            },
            other => other,
        })?;
        match answer {
            Ok(outputs) => self.take(outputs, rows.rows),
            Err(message) => Err(CallError::Refused(cut(message))),
        }
    }

    /// Checks an answer. Its bytes are moved, not copied.
    fn take(&self, outputs: wit::Outputs, rows_in: u32) -> Result<Outputs, CallError> {
        let limits = self.configured.limits();
        let emissions = outputs.branches.into_iter().map(|emitted| PackedEmission {
            origins: emitted.origins,
            columns: emitted.columns.into_iter().map(Column::from).collect(),
        });
        let failed = outputs.failed.into_iter().map(|failure| Failure {
            row: failure.row,
            message: cut(failure.message),
        });
        let rows_max = limits.output_rows_per_row_max.saturating_mul(u64::from(rows_in));
        Ok(Outputs::check(
            self.configured.signature(),
            rows_in,
            emissions.collect(),
            failed.collect(),
            rows_max,
            limits.output_bytes_max,
        )?)
    }

    /// Whether a call failed so that the instance cannot be called again.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether it was never called: what a call of it does is due to the rows alone.
    pub fn is_fresh(&self) -> bool {
        !self.called
    }

    /// Bytes of all its memories and tables.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limiter.bytes
    }

    /// How long the last call took, by the clock.
    pub fn call_time(&self) -> Duration {
        self.call_time
    }

    /// What the last call did to the metrics of the signature; nothing if it failed.
    pub fn metrics(&self) -> &[MetricUpdate] {
        &self.store.data().metrics.updates
    }

    /// What it is an instance of.
    pub fn configured(&self) -> &Configured {
        &self.configured
    }
}

/// A plugin's message, cut to what may be kept of it.
fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(FAILURE_MESSAGE_BYTES_MAX));
    message
}

/// What an error of the engine says about the call that failed.
fn failure(store: &mut Store<Host>, error: wasmtime::Error) -> CallError {
    let mut context = store.as_context_mut();
    let host = context.data_mut();
    let frames = frames(&error);
    if host.deadline.passed {
        return CallError::Deadline {
            limit: host.deadline.limit(),
            frames,
        };
    }
    if let Some(misuse) = error.downcast_ref::<Misuse>() {
        return CallError::Misuse {
            message: misuse.to_string(),
            frames,
        };
    }
    let panic = host.log().cause();
    if let Some(wanted_bytes) = host.limiter.refused_bytes {
        return CallError::Memory {
            limit_bytes: host.limiter.bytes_max(),
            wanted_bytes,
            panic,
            frames,
        };
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return CallError::Trap {
            message: format!("it called `exit` with status {}", exit.0),
            panic,
            frames,
        };
    }
    let mut message = error.root_cause().to_string();
    if let Some(trap) = error.downcast_ref::<Trap>() {
        message = message.trim_start_matches("wasm trap: ").to_owned();
        // Most languages keep a stack of their own in the memory: it is full before the engine's is, and what is
        // behind it is out of bounds.
        if matches!(trap, Trap::MemoryOutOfBounds | Trap::StackOverflow)
            && let Some(function) = recursive(&frames)
        {
            message = format!("{message}: `{function}` calls itself without end, or deeper than there is stack");
        }
        return CallError::Trap { message, panic, frames };
    }
    if message.contains("fuel allocated for hostcalls") {
        return CallError::AnswerSize {
            limit_bytes: SIGNATURE_BYTES_MAX as u64,
        };
    }
    if message.contains("resource limit exceeded") {
        return CallError::Parts(message);
    }
    CallError::Malformed { message }
}

/// The function that fills most of a backtrace that was cut for its length.
fn recursive(frames: &[String]) -> Option<&str> {
    let count = |name: &String| frames.iter().filter(|frame| *frame == name).count();
    // One that takes part in a circle of several has its share at least of what is behind the innermost.
    let outermost = frames.last().filter(|_| frames.len() >= GUEST_FRAMES_MAX)?;
    (count(outermost) >= GUEST_FRAMES_MAX / 8).then_some(outermost)
}

/// The names of the functions that were running, the innermost first.
fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => super::imports::log::escaped(&format!("{:#}", rustc_demangle::demangle(name))),
        None => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().map(name).collect()
}

// The task loop hands instances from one worker to another.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Instance>();
    is_send::<Emitted>();
};
