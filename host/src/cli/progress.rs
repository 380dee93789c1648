//! Progress bars on stderr, and log lines that do not tear them.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

static CURRENT: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A bar for something whose length is known or not. Without a terminal nothing is drawn.
pub fn bar(what: &'static str, length: Option<u64>, bytes: bool) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (count, rate) = if bytes {
        ("{bytes}", "{bytes_per_sec}")
    } else {
        ("{human_pos}", "{per_sec}")
    };
    let template = match length {
        Some(_) if bytes => "{msg:14} {wide_bar:.cyan} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}".to_owned(),
        Some(_) => "{msg:14} {wide_bar:.cyan} {human_pos}/{human_len} {per_sec} ETA {eta}".to_owned(),
        None => format!("{{msg:14}} {{spinner}} {count} {rate} {{elapsed}}"),
    };
    let style = ProgressStyle::with_template(&template).expect("the templates above are right");
    let bar = match length {
        Some(length) => ProgressBar::new(length),
        None => ProgressBar::new_spinner(),
    };
    bar.set_style(style);
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
    bar
}

/// Stderr for log lines: a bar that is drawn there steps aside.
#[derive(Clone, Copy)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bar = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar.filter(|bar| !bar.is_finished()) {
            Some(bar) => bar.suspend(|| io::stderr().write_all(line))?,
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Stderr;

    fn make_writer(&'a self) -> Stderr {
        Stderr
    }
}
