//! An instance that has started and says who it is, before it is called with tables.

use std::sync::{Arc, Mutex};

use wasmtime::Store;

use super::bindings::{Lifecycle, schema};
use super::error::{CallError, GuestError};
use super::failure::failure;
use super::functions::Functions;
use super::imports::log::{GuestSink, LogLines, escaped};
use super::imports::wasi::Wasi;
use super::imports::{Deadline, FIRST_LOOK_TICKS, Host, Phase};
use super::limiter::Limiter;
use super::plugin::Plugin;
use super::signature;
use crate::limits::{GUEST_HANDLES_MAX, StageLimits};
use crate::schema::{Accumulator, Signature};

/// What `describe`, `configure` and `initial` may answer.
const SIGNATURE_BYTES_MAX: usize = 16 << 20;

/// A component's instance before it is known what it can do.
pub struct Started {
    pub store: Store<Host>,
    pub functions: Functions,
    lifecycle: Lifecycle,
}

impl Started {
    /// Makes memory, starts the instance and finds its functions. What follows until the first call with a table shares
    /// the time of the start.
    pub fn new(plugin: &Plugin, limits: &StageLimits, sink: Arc<dyn GuestSink>) -> Result<Started, CallError> {
        let log = Arc::new(Mutex::new(LogLines::new(sink, limits.log_lines_per_second_max)));
        let host = Host {
            limiter: Limiter::new(limits.memory_bytes_max),
            deadline: Deadline::new(plugin.runtime().configure_time_max),
            phase: Phase::Start,
            metrics: Default::default(),
            state: Default::default(),
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
        let functions = plugin.functions().load(&mut store, &instance).map_err(mismatch)?;
        Ok(Started {
            store,
            functions,
            lifecycle,
        })
    }

    /// Calls `describe`.
    pub fn describe(&mut self, plugin: &Plugin) -> Result<schema::Info, CallError> {
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
        let answer = answer.map_err(|error| self.failed(plugin, "configure", error))?;
        let answer = answer.map_err(|message| GuestError::Refused {
            plugin: plugin.label(),
            message: escaped(&message),
        })?;
        signature::signature(plugin.kind(), answer).map_err(|problem| GuestError::Signature {
            plugin: plugin.label(),
            function: "configure",
            problem,
        })
    }

    /// Calls `initial` of an aggregator, and holds what it answers against the rules.
    pub fn initial(&mut self, plugin: &Plugin) -> Result<Option<Accumulator>, GuestError> {
        let Functions::Aggregator { initial, .. } = self.functions else {
            return Ok(None);
        };
        let _running = plugin.runtime().ticker.running();
        self.store.data_mut().phase = Phase::Initial;
        let answer = initial.call(&mut self.store, ());
        let (answer,) = answer.map_err(|error| self.failed(plugin, "initial", error))?;
        let accumulator = signature::accumulator(answer).map_err(|problem| GuestError::Signature {
            plugin: plugin.label(),
            function: "initial",
            problem,
        })?;
        Ok(Some(accumulator))
    }

    fn failed(&mut self, plugin: &Plugin, function: &'static str, error: wasmtime::Error) -> GuestError {
        GuestError::Call {
            plugin: plugin.label(),
            function,
            source: failure(&mut self.store, error).into(),
        }
    }
}
