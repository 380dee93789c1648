//! A process that is measured from outside: processor time and memory, as the system counts them.

use std::process::{Child, Command};

/// The unit of `/proc` on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process. It is killed when it is dropped.
pub struct Measured(Child);

impl Measured {
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Measured {
        let started = command.spawn();
        Measured(started.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// # Panics
    /// If it has ended: with its log.
    pub fn check(&mut self, log: &str) {
        if let Some(status) = self.0.try_wait().expect("it is a child") {
            panic!("it ended with {status}:\n{log}");
        }
    }

    /// Kills it as the system would.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Processor seconds of a process so far, user and system, all threads.
///
/// # Panics
/// If there is no such process.
pub fn cpu_s_of(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process lives");
    // Its name, in parentheses, may hold anything.
    let (_, after) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// The most memory that it had, in MB.
///
/// # Panics
/// If there is no such process.
pub fn memory_mb_max_of(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse::<f64>().ok());
    kib.expect("Linux says it") * 1024.0 / 1e6
}
