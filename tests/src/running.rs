//! Programs that run beside a test: a host that holds the folder, consumers, producers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{Guarded, millstream};

/// Longer than anything here takes on a busy machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A command of the program in the background, with what it prints in files.
pub struct Running {
    child: Guarded,
    out: PathBuf,
    err: PathBuf,
    _dir: tempfile::TempDir,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(mut command: Command) -> Running {
        let dir = tempfile::tempdir().expect("a folder");
        let (out, err) = (dir.path().join("out"), dir.path().join("err"));
        command
            .stdout(File::create(&out).expect("a file"))
            .stderr(File::create(&err).expect("a file"));
        Running {
            child: Guarded(command.spawn().expect("the program starts")),
            out,
            err,
            _dir: dir,
        }
    }

    /// Starts a host with these pipeline files and waits until they are at work.
    ///
    /// # Panics
    /// If it ends, or does not begin.
    pub fn host(data: &Path, files: &[&Path]) -> Running {
        let mut command = millstream(["run", "--workers", "2", "--data"]);
        command.arg(data).args(files);
        let mut host = Running::start(command);
        host.wait_for("the host is at work", |host| {
            host.err().matches("started").count() == files.len()
        });
        host
    }

    /// What it printed on stdout until now.
    pub fn out(&self) -> String {
        String::from_utf8(std::fs::read(&self.out).expect("the file is there")).expect("UTF-8")
    }

    /// What it said on stderr until now.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.err).expect("the file is there")).into_owned()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Whether it has not ended.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub fn is_alive(&mut self) -> bool {
        self.child.0.try_wait().expect("the child can be asked").is_none()
    }

    /// Waits for something that it does.
    ///
    /// # Panics
    /// If it ends before, or takes longer than [`PATIENCE`].
    pub fn wait_for(&mut self, what: &str, mut is_so: impl FnMut(&Running) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(self.is_alive(), "ended before: {what}\n{}", self.err());
            assert!(Instant::now() < end, "waited in vain: {what}\n{}", self.err());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).expect("a process");
        rustix::process::kill_process(pid, signal).expect("the process takes signals");
    }

    /// Waits for its end: how it ended, and how long that took.
    ///
    /// # Panics
    /// If it takes longer than [`PATIENCE`].
    pub fn end(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.0.try_wait().expect("the child can be asked") {
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "it does not end\n{}", self.err());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it with a signal; it must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn stop(&mut self, signal: rustix::process::Signal) -> Duration {
        self.signal(signal);
        let (status, took) = self.end();
        assert!(status.success(), "ended with {status}\n{}", self.err());
        took
    }
}

/// Waits until something is so.
///
/// # Panics
/// If it takes longer than [`PATIENCE`].
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command with this on its stdin.
///
/// # Panics
/// If it does not start.
pub fn feed(command: &mut Command, input: &[u8]) -> std::process::Output {
    use std::io::Write;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let input = input.to_vec();
    // It may end before it has read everything.
    let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the program ends");
    writing.join().expect("the writer ends");
    output
}
