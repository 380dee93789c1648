//! `log`: lines for the operator, and WASI's stdout and stderr cut into such lines.
//!
//! A line that leaves here is one line, whatever the guest wrote: control characters are escaped, so that nobody forges
//! a line, a colour or a direction of writing; it has at most [`LOG_LINE_BYTES_MAX`] bytes; and an instance writes only
//! so many in a second. The rest is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use wasmtime::component::{Linker, WasmStr};
use wasmtime::{AsContextMut, StoreContextMut};

use super::Host;
use crate::guest::bindings::{LOG, LogLevel};
use crate::limits::LOG_LINE_BYTES_MAX;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Takes the lines of an instance. Called from the thread that calls the guest, while it does: it must not block.
pub trait GuestSink: Send + Sync {
    /// A line: without control characters, at most [`LOG_LINE_BYTES_MAX`] bytes.
    fn log(&self, level: Level, line: &str);
    /// So many lines were left out since the last time, because there were too many in a second.
    fn suppressed(&self, lines: u64);
}

/// Where the lines of an instance go that nobody listens to.
pub struct Unheard;

impl GuestSink for Unheard {
    fn log(&self, _level: Level, _line: &str) {}
    fn suppressed(&self, _lines: u64) {}
}

/// The lines of one instance.
pub struct LogLines {
    sink: Arc<dyn GuestSink>,
    per_second_max: u32,
    second_began: Instant,
    in_this_second: u32,
    suppressed: u64,
    /// The line of this call that says why it fails, if it does.
    cause: Option<Cause>,
}

struct Cause {
    line: String,
    /// How sure it is: a panic's own line is not replaced by what follows it.
    weight: u8,
    /// Whether the next line belongs to it, as after "panicked at src/lib.rs:1:1:".
    continues: bool,
}

impl LogLines {
    /// For an instance that is made now.
    pub fn new(sink: Arc<dyn GuestSink>, per_second_max: u32) -> LogLines {
        LogLines {
            sink,
            per_second_max,
            second_began: Instant::now(),
            in_this_second: 0,
            suppressed: 0,
            cause: None,
        }
    }

    /// A call begins: what was said before is not why it fails.
    pub fn begin_call(&mut self) {
        self.cause = None;
    }

    /// A call ends: reports what was left out when its second is over.
    pub fn end_call(&mut self) {
        if self.suppressed > 0 && self.second_began.elapsed() >= Duration::from_secs(1) {
            self.report();
        }
    }

    /// The line that says why the call failed.
    pub fn cause(&self) -> Option<String> {
        self.cause.as_ref().map(|cause| cause.line.clone())
    }

    /// A message of the `log` interface.
    pub fn message(&mut self, level: Level, message: &str) {
        let line = escaped(message);
        if level == Level::Error {
            self.cause = Some(Cause {
                line: line.clone(),
                weight: 3,
                continues: false,
            });
        }
        self.write(level, &line);
    }

    /// A line of stdout or stderr.
    pub fn output_line(&mut self, level: Level, bytes: &[u8]) {
        let line = escaped(&String::from_utf8_lossy(bytes));
        if level > Level::Info && !line.trim().is_empty() {
            self.weigh(&line);
        }
        self.write(level, &line);
    }

    fn weigh(&mut self, line: &str) {
        if let Some(cause) = &mut self.cause
            && cause.continues
        {
            cause.line = format!("{} {}", cause.line, line);
            cause.line.truncate(cause.line.floor_char_boundary(LOG_LINE_BYTES_MAX));
            cause.continues = false;
            return;
        }
        let weight = if line.contains("panic") { 2 } else { 1 };
        if self
            .cause
            .as_ref()
            .is_none_or(|cause| cause.weight < weight || (cause.weight == 1 && weight == 1))
        {
            self.cause = Some(Cause {
                line: line.to_owned(),
                weight,
                continues: weight == 2 && line.ends_with(':'),
            });
        }
    }

    fn write(&mut self, level: Level, line: &str) {
        let now = Instant::now();
        if now.duration_since(self.second_began) >= Duration::from_secs(1) {
            if self.suppressed > 0 {
                self.report();
            }
            self.second_began = now;
            self.in_this_second = 0;
        }
        if self.in_this_second >= self.per_second_max {
            self.suppressed += 1;
            return;
        }
        self.in_this_second += 1;
        self.sink.log(level, line);
    }

    fn report(&mut self) {
        self.sink.suppressed(std::mem::take(&mut self.suppressed));
    }
}

impl Drop for LogLines {
    fn drop(&mut self) {
        if self.suppressed > 0 {
            self.report();
        }
    }
}

/// One line of at most [`LOG_LINE_BYTES_MAX`] bytes, whatever the text is.
pub fn escaped(text: &str) -> String {
    const CUT: &str = "…";
    let mut line = String::with_capacity(text.len().min(LOG_LINE_BYTES_MAX));
    for character in text.chars() {
        let before = line.len();
        if is_dangerous(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
        if line.len() > LOG_LINE_BYTES_MAX - CUT.len() {
            line.truncate(before);
            line.push_str(CUT);
            break;
        }
    }
    line
}

/// Controls, and marks that change lines or the direction of writing.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Adds the interface to what may be imported. The message is read where it lies: only the part that is kept is copied.
pub fn add(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.instance(LOG)?.func_wrap(
        "write",
        |mut store: StoreContextMut<'_, Host>, (level, message): (LogLevel, WasmStr)| {
            let level = match level {
                LogLevel::Trace => Level::Trace,
                LogLevel::Debug => Level::Debug,
                LogLevel::Info => Level::Info,
                LogLevel::Warn => Level::Warn,
                LogLevel::Error => Level::Error,
            };
            let log = Arc::clone(&store.data().log);
            let context = store.as_context_mut();
            let message = message.to_str(&context)?;
            log.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .message(level, &message);
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl GuestSink for Lines {
        fn log(&self, level: Level, line: &str) {
            self.0.lock().unwrap().push(format!("{level:?} {line}"));
        }
        fn suppressed(&self, lines: u64) {
            self.0.lock().unwrap().push(format!("suppressed {lines}"));
        }
    }

    #[test]
    fn a_line_is_one_line_and_not_longer_than_it_may_be() {
        assert_eq!(escaped("a\nb\u{1b}[31m\u{202e}é"), "a\\nb\\u{1b}[31m\\u{202e}é");
        for text in [
            "x".repeat(10_000),
            "é".repeat(10_000),
            "\n".repeat(10_000),
            "\u{202e}".repeat(10_000),
        ] {
            let line = escaped(&text);
            assert!(
                line.len() <= LOG_LINE_BYTES_MAX && line.len() > LOG_LINE_BYTES_MAX - 20,
                "{}",
                line.len()
            );
            assert!(line.ends_with('…'));
        }
        assert_eq!(escaped(&"x".repeat(4000)).len(), 4000);
    }

    #[test]
    fn what_is_too_much_for_a_second_is_counted() {
        let sink = Arc::new(Lines::default());
        let mut log = LogLines::new(Arc::clone(&sink) as Arc<dyn GuestSink>, 2);
        for i in 0..5 {
            log.message(Level::Info, &i.to_string());
        }
        assert_eq!(*sink.0.lock().unwrap(), ["Info 0", "Info 1"]);
        log.second_began -= Duration::from_secs(1);
        log.end_call();
        log.message(Level::Warn, "again");
        drop(log);
        assert_eq!(sink.0.lock().unwrap()[2..], ["suppressed 3", "Warn again"]);
    }

    #[test]
    fn the_cause_is_the_last_error_line_or_the_panic() {
        let mut log = LogLines::new(Arc::new(Unheard), 100);
        log.message(Level::Error, "first");
        log.message(Level::Error, "second");
        log.message(Level::Info, "third");
        assert_eq!(log.cause().as_deref(), Some("second"));
        log.begin_call();
        assert_eq!(log.cause(), None);
        for line in [
            "warming up",
            "thread 'main' panicked at src/lib.rs:3:5:",
            "no such ride",
            "note: run with",
            "  frame",
        ] {
            log.output_line(Level::Warn, line.as_bytes());
        }
        assert_eq!(
            log.cause().as_deref(),
            Some("thread 'main' panicked at src/lib.rs:3:5: no such ride")
        );
        log.begin_call();
        log.output_line(Level::Warn, b"a");
        log.output_line(Level::Warn, b"RuntimeError: b");
        log.output_line(Level::Info, b"c");
        assert_eq!(
            log.cause().as_deref(),
            Some("RuntimeError: b"),
            "the last of stderr where nothing says panic"
        );
    }
}
