//! Compiling components, in a child process.
//!
//! A compiler that is fed by strangers may take any time and memory, and may crash. The child gives itself limits on
//! address space, processor time and the size of what it writes before it reads the component, has no environment and
//! no input, and dies with the host. The host waits for it no longer than it may take.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use wasmtime::Engine;

use super::cache::Cache;
use super::engine::config;
use crate::limits::COMPILED_BYTES_MAX;

/// What the child exits with when the component is at fault.
const REFUSED: u8 = 2;
/// What the child may say.
const MESSAGE_BYTES_MAX: u64 = 4096;

/// Why there is no compiled component.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component is not valid.
    #[error("it is not a valid component: {0}")]
    Invalid(String),
    /// The child took too long.
    #[error("compiling it took longer than {limit:?}; make it smaller, or split functions with very long bodies")]
    Time {
        /// How long it may take.
        limit: Duration,
    },
    /// The child took too much memory.
    #[error("compiling it takes more than {limit_bytes} bytes of memory; make it smaller")]
    Memory {
        /// How much it may take.
        limit_bytes: u64,
    },
    /// The child crashed.
    #[error("the compiler crashed on it ({status}): {message}")]
    Crashed {
        /// How it ended.
        status: String,
        /// What it said.
        message: String,
    },
    /// The child could not be started, or is not this program.
    #[error("the compiler {executable} does not work here: {source}")]
    Compiler {
        /// What was run.
        executable: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The folder of compiled components cannot be written.
    #[error("the folder of compiled components cannot be written: {0}")]
    Cache(#[from] io::Error),
}

/// Compiles in child processes, and keeps what they make.
#[derive(Debug)]
pub struct Compiler {
    pub(super) cache: Cache,
    pub(super) executable: PathBuf,
    pub(super) time_max: Duration,
    pub(super) memory_bytes_max: u64,
}

impl Compiler {
    /// The file of a component's machine code, from the cache or made now.
    pub fn compiled(&self, digest: &str, component: &[u8]) -> Result<PathBuf, CompileError> {
        if let Some(path) = self.cache.find(digest) {
            return Ok(path);
        }
        self.compile(digest, component)
    }

    /// Compiles whether or not there is an entry.
    pub fn compile(&self, digest: &str, component: &[u8]) -> Result<PathBuf, CompileError> {
        let workplace = self.cache.workplace(digest)?;
        fs::write(&workplace.input, component)?;
        let started = Instant::now();
        let child = Command::new(&self.executable)
            .arg("__compile")
            .arg(&workplace.input)
            .arg(&workplace.output)
            .arg(self.memory_bytes_max.to_string())
            .arg(self.time_max.as_secs().max(1).to_string())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let not_working = |source| CompileError::Compiler {
            executable: self.executable.clone(),
            source,
        };
        let mut child = Guarded(child.map_err(not_working)?);
        let (status, message) = self.wait(&mut child.0, started)?;
        if status.success() && workplace.output.exists() {
            tracing::debug!(digest, took = ?started.elapsed(), "compiled a component");
            return Ok(self.cache.keep(digest, &workplace)?);
        }
        let message = message.trim().to_owned();
        match (status.code(), status.signal()) {
            (Some(code), _) if code == i32::from(REFUSED) => Err(CompileError::Invalid(message)),
            (_, Some(signal)) if signal == Signal::XCPU.as_raw() => Err(CompileError::Time { limit: self.time_max }),
            _ if message.contains("memory allocation of") || message.contains("Cannot allocate memory") => {
                Err(CompileError::Memory {
                    limit_bytes: self.memory_bytes_max,
                })
            }
            (Some(0), _) => Err(not_working(io::Error::other(
                "it ended without compiling: is it millstream?",
            ))),
            _ => Err(CompileError::Crashed {
                status: status.to_string(),
                message,
            }),
        }
    }

    /// Waits for the child's end, or ends it; with what it said.
    fn wait(&self, child: &mut Child, started: Instant) -> Result<(ExitStatus, String), CompileError> {
        let mut said = child.stderr.take();
        let reader = std::thread::spawn(move || {
            let mut message = Vec::new();
            if let Some(said) = &mut said {
                let _ = said.take(MESSAGE_BYTES_MAX).read_to_end(&mut message);
                let _ = io::copy(said, &mut io::sink());
            }
            String::from_utf8_lossy(&message).into_owned()
        });
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status, reader.join().unwrap_or_default()));
            }
            if started.elapsed() > self.time_max {
                return Err(CompileError::Time { limit: self.time_max });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// A child that does not outlive the interest in it.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The hidden subcommand `__compile INPUT OUTPUT MEMORY_BYTES SECONDS`: compiles one component within limits that it
/// gives itself. `arguments` are those four.
///
/// Exits with 0, 2 where the component is at fault (the reason on stderr), or 1.
pub fn compile_child(arguments: &[OsString]) -> ExitCode {
    let [input, output, memory_bytes, seconds] = arguments else {
        eprintln!("`__compile` is how millstream calls itself: it takes INPUT OUTPUT MEMORY_BYTES SECONDS");
        return ExitCode::FAILURE;
    };
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    let (Some(memory_bytes), Some(seconds)) = (number(memory_bytes), number(seconds)) else {
        eprintln!("MEMORY_BYTES and SECONDS are numbers");
        return ExitCode::FAILURE;
    };
    if let Err(error) = confine(memory_bytes, seconds) {
        eprintln!("the limits of the compiler cannot be set: {error}");
        return ExitCode::FAILURE;
    }
    match compile_file(Path::new(input), Path::new(output)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(refusal)) => {
            eprintln!("{refusal}");
            ExitCode::from(REFUSED)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn confine(memory_bytes: u64, seconds: u64) -> io::Result<()> {
    // The host kills its children when it gives up on them; this is for a host that was killed itself.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let both = |limit| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    // Several threads compile, so processor time runs faster than the clock.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    setrlimit(Resource::Core, both(0))?;
    setrlimit(Resource::As, both(memory_bytes))?;
    setrlimit(Resource::Fsize, both(COMPILED_BYTES_MAX))?;
    setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(seconds.saturating_mul(threads)),
            maximum: Some(seconds.saturating_mul(threads).saturating_add(5)),
        },
    )?;
    Ok(())
}

/// Outer errors are the machine's, inner ones the component's.
fn compile_file(input: &Path, output: &Path) -> io::Result<Result<(), String>> {
    let component = fs::read(input)?;
    let engine = Engine::new(&config(true)).map_err(|error| io::Error::other(format!("{error:#}")))?;
    match engine.precompile_component(&component) {
        Ok(code) => {
            let unfinished = output.with_extension("unfinished");
            fs::write(&unfinished, code)?;
            fs::File::open(&unfinished)?.sync_all()?;
            fs::rename(&unfinished, output)?;
            Ok(Ok(()))
        }
        Err(error) => Ok(Err(format!("{error:#}"))),
    }
}
