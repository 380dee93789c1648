//! What the end-to-end tests share: the built program, the built plugins, and records in and out of a log.

pub mod events;
mod in_process;
pub mod kafka;
pub mod measure;
mod printed;
pub mod running;
pub mod store_model;
pub mod stores;

pub use in_process::{InProcess, resident_bytes};
pub use printed::{document, header, lines, on, value};

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use millstream::connect::{Append, BlockBuilder, Broker, Commit, EmbeddedLog, Options, TopicPartition, TopicSpec};
use millstream::record::Record;

/// The program under test, as it was built beside the tests.
///
/// # Panics
/// If it was not built: `./dev test` does.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows itself");
    let target = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/<profile>/deps");
    let program = target.join("millstream");
    assert!(program.is_file(), "{} is missing: run `./dev test`", program.display());
    program
}

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests lie in the project")
        .to_owned()
}

/// A plugin of the project, built.
///
/// # Panics
/// If it was not built: `./dev test` does.
pub fn plugin(name: &str) -> PathBuf {
    let path = root().join(format!("plugins/target/wasm/{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `./dev test`", path.display());
    path
}

/// The real taxi rides, where they are.
pub fn real_rides() -> Option<PathBuf> {
    let path = root().parent()?.join("shared/data/rides.csv");
    path.is_file().then_some(path)
}

/// Says that a test cannot run here. libtest counts it as passed all the same; `./dev test` reads the file that it
/// names and counts it as skipped.
pub fn skip(test: &str, why: &str) {
    use std::io::Write;
    eprintln!("skipped: {test}: {why}");
    let Some(path) = std::env::var_os("MILLSTREAM_SKIPPED") else {
        return;
    };
    let file = std::fs::File::options().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{test}: {}\n", why.replace('\n', " ")).as_bytes()));
    written.expect("the file of skipped tests is written");
}

/// A command of the program, with its talk kept for when a test fails.
pub fn millstream<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program());
    command
        .args(args)
        .stdin(Stdio::null())
        .env("NO_COLOR", "1")
        .env("MILLSTREAM_CACHE", cache());
    // What the person at this machine has set is not for tests.
    for name in ["DATA", "BOOTSTRAP", "CONTEXT", "CONFIG"] {
        command.env_remove(format!("MILLSTREAM_{name}"));
    }
    command.env("XDG_CONFIG_HOME", program().with_file_name("no-config"));
    command
}

/// One cache of compiled plugins for all tests of a build.
pub fn cache() -> PathBuf {
    program().with_file_name("test-cache")
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// If it fails, with what it said.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{out}\n{err}",
        output.status
    );
    out.into_owned()
}

/// Runs a command that must fail, and returns what it said on stderr.
///
/// # Panics
/// If it succeeds.
pub fn refuse(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(!output.status.success(), "{command:?} succeeded:\n{out}\n{err}");
    assert!(
        output.status.code().is_some(),
        "{command:?} died of {}:\n{err}",
        output.status
    );
    err.into_owned()
}

/// A child that is killed when the test is over, however it ends.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens the log of a data folder in this process.
///
/// # Panics
/// If it cannot be opened.
pub fn open(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(dir, Options::default()).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

/// Makes a topic.
///
/// # Panics
/// If it cannot be made.
pub fn make_topic(log: &EmbeddedLog, name: &str, partitions: u32) {
    log.create_topic(&TopicSpec::new(name, partitions))
        .expect("a new topic");
}

/// Appends records to a partition.
///
/// # Panics
/// If they cannot be committed.
pub fn append(log: &EmbeddedLog, topic: &str, partition: u32, records: &[Record]) {
    let mut blocks = BlockBuilder::new();
    for record in records {
        blocks.push(record.at(0)).expect("a record of the usual size");
    }
    let append = Append {
        topic: topic.into(),
        partition,
        blocks,
    };
    log.commit(Commit {
        appends: vec![append],
        ..Commit::default()
    })
    .expect("the records are committed");
}

/// All records of a topic, by partition.
///
/// # Panics
/// If the topic is not there or cannot be read.
pub fn read_topic(log: &Arc<EmbeddedLog>, topic: &str) -> Vec<Vec<Record>> {
    records_of(log, topic)
}

/// The same of any engine.
///
/// # Panics
/// If the topic is not there or cannot be read.
pub fn records_of(broker: &dyn Broker, topic: &str) -> Vec<Vec<Record>> {
    let description = broker.topic(topic).unwrap_or_else(|error| panic!("{error}"));
    (0..description.spec.partitions)
        .map(|partition| {
            let place = TopicPartition::new(topic, partition);
            let mut records = Vec::new();
            let mut position = description.partition_ranges[partition as usize].first_offset;
            let end = description.partition_ranges[partition as usize].next_offset;
            while position < end {
                let fetched = broker.fetch(&place, position, 1 << 20, Duration::from_secs(1));
                let fetched = fetched.expect("the topic can be read");
                records.extend(fetched.records().map(|record| record.to_record()));
                position = fetched.next_offset();
            }
            records
        })
        .collect()
}
