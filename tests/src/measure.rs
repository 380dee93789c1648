//! What the benchmarks share: processor time, bytes written, and a pipeline that is run to its end.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use millstream::cli::run::work;
use millstream::control::{Host, HostOptions, PluginCatalog};
use millstream::limits::PAUSED_TIME_MAX;

use crate::{cache, program};

/// Runs the parts of a benchmark whose names were given, or all. `cargo bench` hands on its own `--bench`.
pub fn run_parts(parts: &[(&str, fn())]) {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}

/// Whether a flag was given.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|arg| arg == name)
}

/// Processor time of this process so far, all threads, seconds.
pub fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Waits until the threads in the background have nothing to do any more: what they do for one side is not to be
/// counted as another's.
pub fn settle() {
    const LOOK_INTERVAL: Duration = Duration::from_millis(100);
    for _ in 0..200 {
        let before = cpu_s();
        std::thread::sleep(LOOK_INTERVAL);
        if cpu_s() - before < 0.003 {
            return;
        }
    }
}

/// Bytes that this process has had written to disks.
///
/// # Panics
/// Where the system does not say.
pub fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number of bytes")
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A host on this folder, with the program and the compiled plugins of the tests.
///
/// # Panics
/// Where there is no such program.
pub fn options(dir: &Path) -> HostOptions {
    let mut options = HostOptions::new(dir.to_owned()).expect("a program has a path");
    options.compiler = program();
    options.cache_dir = cache();
    options
}

/// Runs one pipeline on a host's log to its end; processor seconds and seconds.
///
/// # Panics
/// If it cannot be started.
pub fn run_pipeline(host: &mut Host, catalog: &PluginCatalog, file: &Path) -> (f64, f64) {
    let (_, plan) = millstream::pipeline::load(file, &|_| None, catalog).expect("a right file");
    let (cpu, clock) = (cpu_s(), Instant::now());
    host.start(plan, catalog).expect("it starts");
    work(host, &AtomicBool::new(false), true, PAUSED_TIME_MAX).expect("nothing pauses it");
    (cpu_s() - cpu, clock.elapsed().as_secs_f64())
}
