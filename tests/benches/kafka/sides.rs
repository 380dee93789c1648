//! Who does the jobs: a process each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use millstream_tests::{millstream, plugin};

use super::jobs::{Job, JobArgs};
use super::streams::Streams;

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Ours.
    Millstream { exactly_once: bool },
    /// Native, at librdkafka's floor, exactly-once.
    Tuned,
    /// Native, as people write it, at least once.
    AsWritten,
    /// Kafka Streams, whose records' cache is on or off.
    Streams { exactly_once: bool, cache: bool },
}

impl Side {
    /// As tables have it.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Millstream { exactly_once: true } => "Millstream, exactly-once",
            Side::Millstream { exactly_once: false } => "Millstream, at-least-once",
            Side::Tuned => "native at librdkafka's floor, exactly-once",
            Side::AsWritten => "native as people write it, at least once",
            Side::Streams {
                exactly_once: true,
                cache: true,
            } => "Kafka Streams, EOS v2",
            Side::Streams {
                exactly_once: true,
                cache: false,
            } => "Kafka Streams, EOS v2, cache 0",
            Side::Streams {
                exactly_once: false, ..
            } => "Kafka Streams, at least once",
        }
    }

    /// The process that does a job, with a folder of its own.
    pub fn command(self, args: &JobArgs, dir: &Path, streams: Option<&Streams>) -> Command {
        let mut command = match self {
            Side::Millstream { exactly_once } => {
                let file = dir.join("job.toml");
                fs::write(&file, pipeline(args, exactly_once)).expect("the file is written");
                let mut command = millstream(["run"]);
                command.arg(file).arg("--data").arg(dir.join("data"));
                command
            }
            Side::Tuned => native("tuned", args),
            Side::AsWritten => native("as-written", args),
            Side::Streams { exactly_once, cache } => {
                streams
                    .expect("it was built")
                    .command(args, exactly_once, cache, &dir.join("state"))
            }
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))
            .expect("a log");
        let err = log.try_clone().expect("a log");
        command.stdin(Stdio::null()).stdout(log).stderr(err);
        command
    }
}

fn native(name: &str, args: &JobArgs) -> Command {
    let own: PathBuf = std::env::current_exe().expect("it knows itself");
    let mut command = Command::new(own);
    command.args(["side", name]).args(args.to_args());
    command
}

fn pipeline(args: &JobArgs, exactly_once: bool) -> String {
    let guarantee = if exactly_once { "exactly-once" } else { "at-least-once" };
    let stage = match args.job {
        Job::Branch => format!(
            "plugin = {:?}\ninput = \"rides\"\nto = {{ high = {:?}, low = {:?} }}\n",
            plugin("branch-by-amount"),
            args.out("high"),
            args.out("low")
        ),
        Job::Count => format!(
            "plugin = {:?}\ninput = \"rides\"\nto = {{ counted = {:?} }}\n",
            plugin("count"),
            args.out("high")
        ),
        Job::Minutes => format!(
            "plugin = {:?}\ninput = \"rides\"\nwindow = \"1m\"\nto = {{ counted = {:?}, late = false }}\n",
            plugin("count"),
            args.out("high")
        ),
    };
    format!(
        "name = {:?}\nengine = \"kafka\"\n[kafka]\nbootstrap = {:?}\n[commit]\nguarantee = {guarantee:?}\n\
         [source.rides]\ntopic = {:?}\n[stage.job]\n{stage}",
        args.group, args.bootstrap, args.input
    )
}
