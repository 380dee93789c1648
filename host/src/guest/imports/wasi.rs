//! WASI 0.2 for components whose language's runtime imports it: empty, and the same in each call.
//!
//! stdin is at its end; stdout and stderr become log lines; there are no arguments, no variables and no files; the
//! clocks stand at the time of the call, and waiting for them takes no time; the random numbers are those that belong
//! to that time. There is no network: its interfaces are not linked at all.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime::component::{HasData, HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};
use wasmtime_wasi::p2::bindings::{cli, filesystem, sync};
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult, subscribe};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::log::{Level, LogLines};
use super::{Host, Misuse};
use crate::limits::{GUEST_HANDLES_MAX, LOG_LINE_BYTES_MAX};

/// The interfaces that [`add`] provides, without their versions.
pub const PROVIDED: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// Bytes of random numbers that one call of the host gives.
const RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Bytes of stdout or stderr that one call of the host takes.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// WASI of one instance.
pub struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    /// The time of the call that is running, in milliseconds since the epoch.
    now_ms: i64,
    random: Random,
}

impl Wasi {
    /// For an instance whose lines go to `log`.
    pub fn new(log: &Arc<Mutex<LogLines>>) -> Wasi {
        let output = |level| LineOutput {
            log: Arc::clone(log),
            level,
            line: Arc::new(Mutex::new(Vec::new())),
        };
        let mut table = ResourceTable::new();
        table.set_max_capacity(GUEST_HANDLES_MAX);
        Wasi {
            context: WasiCtxBuilder::new()
                .stdout(output(Level::Info))
                .stderr(output(Level::Warn))
                .allow_tcp(false)
                .allow_udp(false)
                .build(),
            table,
            now_ms: 0,
            random: Random(0),
        }
    }

    /// A call begins, at this time.
    pub fn begin_call(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.random = Random(now_ms.cast_unsigned());
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView {
            ctx: &mut wasi.context,
            table: &mut wasi.table,
        }
    }
}

impl Host {
    fn wasi(&mut self) -> &mut Wasi {
        self.wasi
            .as_mut()
            .expect("made for each instance of a component that imports WASI")
    }
}

struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// Adds the interfaces to what may be imported.
pub fn add(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    fn table(host: &mut Host) -> &mut ResourceTable {
        &mut host.wasi().table
    }
    wasmtime_wasi_io::bindings::wasi::io::error::add_to_linker::<Host, HasTable>(linker, table)?;
    sync::io::poll::add_to_linker::<Host, HasTable>(linker, table)?;
    sync::io::streams::add_to_linker::<Host, HasTable>(linker, table)?;
    cli::environment::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::exit::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::stdin::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::stdout::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::stderr::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::terminal_input::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::terminal_output::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::terminal_stdin::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::terminal_stdout::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    cli::terminal_stderr::add_to_linker::<Host, WasiCli>(linker, Host::cli)?;
    filesystem::preopens::add_to_linker::<Host, WasiFilesystem>(linker, Host::filesystem)?;
    sync::filesystem::types::add_to_linker::<Host, WasiFilesystem>(linker, Host::filesystem)?;
    wall_clock::add_to_linker::<Host, HasSelf<Wasi>>(linker, Host::wasi)?;
    monotonic_clock::add_to_linker::<Host, HasSelf<Wasi>>(linker, Host::wasi)?;
    random::add_to_linker::<Host, HasSelf<Wasi>>(linker, Host::wasi)?;
    insecure::add_to_linker::<Host, HasSelf<Wasi>>(linker, Host::wasi)?;
    insecure_seed::add_to_linker::<Host, HasSelf<Wasi>>(linker, Host::wasi)
}

impl wall_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        // WASI has no time before 1970.
        let now_ms = self.now_ms.max(0).unsigned_abs();
        Ok(wall_clock::Datetime {
            seconds: now_ms / 1000,
            nanoseconds: (now_ms % 1000) as u32 * 1_000_000,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1_000_000,
        })
    }
}

impl monotonic_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now_ms.max(0).unsigned_abs().saturating_mul(1_000_000))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1_000_000)
    }

    fn subscribe_instant(&mut self, _when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.at_once()
    }

    fn subscribe_duration(&mut self, _duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.at_once()
    }
}

impl Wasi {
    /// Waiting takes no time: a worker thread is not a guest's to hold, and time stands still for it.
    fn at_once(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let over = self.table.push(Over)?;
        subscribe(&mut self.table, over)
    }
}

/// A time that has been waited for.
struct Over;

#[wasmtime_wasi::async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {}
}

/// SplitMix64: enough for hash tables and samples, and no secret.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn bytes(&mut self, count: u64) -> wasmtime::Result<Vec<u8>> {
        if count > RANDOM_BYTES_MAX {
            let problem = format!("{count} random bytes were asked for at once, but {RANDOM_BYTES_MAX} are given");
            return Err(Misuse(problem).into());
        }
        let count = count as usize;
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        Ok(bytes)
    }
}

impl random::Host for Wasi {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.next())
    }
}

impl insecure::Host for Wasi {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.next())
    }
}

impl insecure_seed::Host for Wasi {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random.next(), self.random.next()))
    }
}

/// stdout or stderr, cut into log lines. Of a line without an end only as much is kept as a line may have.
#[derive(Clone)]
struct LineOutput {
    log: Arc<Mutex<LogLines>>,
    level: Level,
    /// The line that has not ended.
    line: Arc<Mutex<Vec<u8>>>,
}

impl LineOutput {
    fn take(&self, mut bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            extend(&mut line, &bytes[..end]);
            self.log
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .output_line(self.level, &line);
            line.clear();
            bytes = &bytes[end + 1..];
        }
        extend(&mut line, bytes);
    }
}

/// One byte more than a line may have shows that it was longer.
fn extend(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = (LOG_LINE_BYTES_MAX + 1).saturating_sub(line.len());
    line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl Drop for LineOutput {
    fn drop(&mut self) {
        // The last holder writes what has no end.
        if let Some(line) = Arc::get_mut(&mut self.line) {
            let line = std::mem::take(line.get_mut().unwrap_or_else(PoisonError::into_inner));
            if !line.is_empty() {
                self.log
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .output_line(self.level, &line);
            }
        }
    }
}

impl IsTerminal for LineOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineOutput {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 would ask for this one.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LineOutput {
    async fn ready(&mut self) {}
}

impl OutputStream for LineOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::GuestSink;
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl GuestSink for Lines {
        fn log(&self, _level: Level, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
        fn suppressed(&self, _lines: u64) {}
    }

    #[test]
    fn output_is_cut_into_lines_of_bounded_length() {
        let sink = Arc::new(Lines::default());
        let log = Arc::new(Mutex::new(LogLines::new(Arc::clone(&sink) as Arc<dyn GuestSink>, 100)));
        let output = LineOutput {
            log,
            level: Level::Info,
            line: Arc::default(),
        };
        let other_handle = output.clone();
        output.take(b"one\ntw");
        other_handle.take(b"o\n\xff\n");
        for _ in 0..1000 {
            output.take(&[b'x'; 1000]);
        }
        assert!(output.line.lock().unwrap().capacity() < 4 * LOG_LINE_BYTES_MAX);
        output.take(b"\nno end");
        drop(output);
        assert_eq!(sink.0.lock().unwrap().len(), 4, "another handle may still write on");
        drop(other_handle);
        let lines = sink.0.lock().unwrap();
        assert_eq!(lines[..3], ["one", "two", "\u{fffd}"]);
        assert!(lines[3].len() <= LOG_LINE_BYTES_MAX && lines[3].ends_with('…'));
        assert_eq!(lines[4], "no end");
    }

    #[test]
    fn clocks_and_random_numbers_depend_on_the_call_alone() {
        let log = Arc::new(Mutex::new(LogLines::new(Arc::new(super::super::log::Unheard), 1)));
        let answers = || {
            let mut wasi = Wasi::new(&log);
            wasi.begin_call(1_700_000_000_123);
            let wall = wall_clock::Host::now(&mut wasi).unwrap();
            let monotonic = monotonic_clock::Host::now(&mut wasi).unwrap();
            let bytes = random::Host::get_random_bytes(&mut wasi, 13).unwrap();
            (
                wall.seconds,
                wall.nanoseconds,
                monotonic,
                bytes,
                insecure_seed::Host::insecure_seed(&mut wasi).unwrap(),
            )
        };
        let (seconds, nanoseconds, monotonic, bytes, seed) = answers();
        assert_eq!(
            (seconds, nanoseconds, monotonic),
            (1_700_000_000, 123_000_000, 1_700_000_000_123_000_000)
        );
        assert_eq!(answers(), (seconds, nanoseconds, monotonic, bytes, seed));
        let mut wasi = Wasi::new(&log);
        assert!(random::Host::get_random_bytes(&mut wasi, 1 << 40).is_err());
        wasi.begin_call(-5);
        assert_eq!(wall_clock::Host::now(&mut wasi).unwrap().seconds, 0);
    }
}
