//! The engine: how guest code is compiled and run, and the clock that ends calls which do not end themselves.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, WasmBacktraceDetails};

use super::cache::Cache;
use super::compile::Compiler;
use super::error::{GuestError, LoadError};
use super::imports::{self, Host};
use super::plugin::Plugin;
use crate::limits::{
    COMPILE_MEMORY_BYTES_MAX, COMPILE_TIME_MAX, COMPONENT_BYTES_MAX, CONFIGURE_TIME_MAX, GUEST_FRAMES_MAX,
    GUEST_STACK_BYTES_MAX,
};

/// How long one tick of the deadlines' clock is: how exact a call's time limit is.
const TICK: Duration = Duration::from_millis(5);
/// Ticks without a call after which the clock stops: long enough that a busy host never pays for waking it.
const IDLE_TICKS: u32 = 20;

/// Where a [`Runtime`] keeps things, and what compiling may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of compiled components: made with mode 0700 where it is missing. Whoever may write into it may run
    /// code in the host, so it must belong to the host's user alone. Several processes may share it.
    pub cache_dir: PathBuf,
    /// The millstream executable, which is run as `<compiler> __compile …` for each component that is not in the
    /// cache.
    pub compiler: PathBuf,
    /// Compiling one component.
    pub compile_time_max: Duration,
    /// Address space of the compiling process.
    pub compile_memory_bytes_max: u64,
    /// A component's file.
    pub component_bytes_max: u64,
    /// The start of an instance with `describe` or `configure`.
    pub configure_time_max: Duration,
}

impl Options {
    /// Options with the bounds of [`crate::limits`].
    pub fn new(cache_dir: impl Into<PathBuf>, compiler: impl Into<PathBuf>) -> Options {
        Options {
            cache_dir: cache_dir.into(),
            compiler: compiler.into(),
            compile_time_max: COMPILE_TIME_MAX,
            compile_memory_bytes_max: COMPILE_MEMORY_BYTES_MAX,
            component_bytes_max: COMPONENT_BYTES_MAX,
            configure_time_max: CONFIGURE_TIME_MAX,
        }
    }
}

/// The one engine of a process, with its cache of compiled components.
///
/// Plugins, what was configured from them and instances keep it alive.
pub struct Runtime {
    pub(super) engine: Engine,
    pub(super) linker: Linker<Host>,
    pub(super) ticker: Ticker,
    pub(super) compiler: Compiler,
    pub(super) component_bytes_max: u64,
    pub(super) configure_time_max: Duration,
    /// Plugins that somebody still holds, by the digest of their bytes; locked for as long as one is being made, so
    /// that the same bytes are not compiled twice at once.
    plugins: Mutex<HashMap<String, Arc<Mutex<Weak<Plugin>>>>>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("compiler", &self.compiler)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Makes the engine, and the cache's folder where it is missing.
    ///
    /// # Errors
    /// If the folder cannot be made or belongs to others, or the machine cannot run compiled WebAssembly.
    pub fn new(options: Options) -> Result<Arc<Runtime>, GuestError> {
        let engine = Engine::new(&config(false)).map_err(|error| GuestError::Engine(format!("{error:#}")))?;
        let linker = imports::linker(&engine).map_err(|error| GuestError::Engine(format!("{error:#}")))?;
        let cache = Cache::open(&options.cache_dir, compatibility(&engine))?;
        let ticker = Ticker::start(engine.clone()).map_err(|error| GuestError::Engine(error.to_string()))?;
        Ok(Arc::new(Runtime {
            engine,
            linker,
            ticker,
            compiler: Compiler {
                cache,
                executable: options.compiler,
                time_max: options.compile_time_max,
                memory_bytes_max: options.compile_memory_bytes_max,
            },
            component_bytes_max: options.component_bytes_max,
            configure_time_max: options.configure_time_max,
            plugins: Mutex::default(),
        }))
    }

    /// Reads, classifies, compiles (or takes from the cache), links and describes a plugin. The same content loaded
    /// twice is the same plugin, wherever it lies.
    ///
    /// # Errors
    /// What is wrong with the file, with the path and what to do about it. Nothing is kept of a file that was refused.
    pub fn load(self: &Arc<Self>, path: &Path) -> Result<Arc<Plugin>, LoadError> {
        Plugin::load(self, path)
    }

    /// The plugin of this digest if somebody holds it, else what `make` makes.
    pub(super) fn shared<E>(
        &self,
        digest: &str,
        make: impl FnOnce() -> Result<Arc<Plugin>, E>,
    ) -> Result<Arc<Plugin>, E> {
        let slot = {
            let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
            plugins
                .retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|p| p.strong_count() > 0));
            Arc::clone(plugins.entry(digest.to_owned()).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = slot.upgrade() {
            return Ok(plugin);
        }
        let plugin = make()?;
        *slot = Arc::downgrade(&plugin);
        Ok(plugin)
    }
}

/// How guest code is compiled and run. Host and compiling child must agree in everything that the code depends on;
/// wasmtime checks that when it loads a compiled component.
pub(super) fn config(compiling: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Deadlines.
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES_MAX)
        .async_stack_size(2 * GUEST_STACK_BYTES_MAX)
        // The same answer on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // Names of frames, but no parsing of a stranger's debug information.
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(GUEST_FRAMES_MAX))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false)
        .native_unwind_info(false)
        // What no plugin's compiler needs is off: less to be wrong.
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(true)
        .gc_support(false)
        .parallel_compilation(compiling);
    config
}

/// A short text that changes whenever compiled code of another host would not run here.
fn compatibility(engine: &Engine) -> String {
    struct Fold(u64);
    impl Hasher for Fold {
        // FNV-1a: it names files, and must be the same in every process of every build.
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut hasher = Fold(0xcbf2_9ce4_8422_2325);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Advances the engine's epoch while calls run, and sleeps while none does, so that an idle host does not wake up.
pub(super) struct Ticker {
    shared: Arc<TickerShared>,
    thread: Thread,
}

#[derive(Default)]
struct TickerShared {
    /// Calls that run now.
    calls: AtomicUsize,
    /// Whether the thread is parked, or about to be.
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(TickerShared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("guest-clock".into())
            .stack_size(64 << 10)
            .spawn(move || tick(&engine, &of_thread))?;
        Ok(Ticker {
            shared,
            thread: thread.thread().clone(),
        })
    }

    /// Marks that a call runs until the answer is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        // Either this sees `asleep`, or the thread, which sets `asleep` before it looks, sees the call.
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.shared.asleep.store(false, Ordering::SeqCst);
            self.thread.unpark();
        }
        Running(&self.shared.calls)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// A call that runs.
pub(super) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ticks that cover this time.
pub(super) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos()))
        .unwrap_or(u64::MAX >> 1)
        .max(1)
}

fn tick(engine: &Engine, shared: &TickerShared) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        if idle < IDLE_TICKS {
            std::thread::sleep(TICK);
            engine.increment_epoch();
            idle = if shared.calls.load(Ordering::SeqCst) == 0 {
                idle + 1
            } else {
                0
            };
            continue;
        }
        shared.asleep.store(true, Ordering::SeqCst);
        while shared.calls.load(Ordering::SeqCst) == 0
            && shared.asleep.load(Ordering::SeqCst)
            && !shared.stop.load(Ordering::SeqCst)
        {
            std::thread::park();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        idle = 0;
    }
}
