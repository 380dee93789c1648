//! Kafka Streams' side: its source is beside the tests, its jars come from Maven.

use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_tests::root;
use millstream_tests::succeed;

use super::jobs::JobArgs;

/// The compiled jobs.
pub struct Streams {
    classes: PathBuf,
    jars: PathBuf,
}

impl Streams {
    /// Brings the jars and compiles, where that was not done before; none where `mvn` or `javac` is missing, with a word.
    ///
    /// # Panics
    /// If one of them fails.
    pub fn build() -> Option<Streams> {
        let have = |program: &str| Command::new(program).arg("-version").output().is_ok();
        if !(have("mvn") && have("javac")) {
            eprintln!("Kafka Streams is left out: mvn or javac is missing");
            return None;
        }
        let source = root().join("tests/peers/kafka-streams");
        let target = root().join("target/peers/kafka-streams");
        std::fs::create_dir_all(target.join("classes")).expect("a folder");
        let streams = Streams {
            classes: target.join("classes"),
            jars: target.join("lib"),
        };
        if !streams.jars.is_dir() {
            let mut command = Command::new("mvn");
            command.args(["-q", "-B", "-f"]).arg(source.join("pom.xml"));
            command.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
            succeed(command.arg(format!("-DoutputDirectory={}", streams.jars.display())));
        }
        let mut command = Command::new("javac");
        command
            .arg("-cp")
            .arg(streams.jars.join("*"))
            .arg("-d")
            .arg(&streams.classes);
        succeed(command.arg(source.join("Job.java")));
        Some(streams)
    }

    /// The process that does a job.
    pub fn command(&self, args: &JobArgs, exactly_once: bool, cache: bool, state: &Path) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xmx1g", "-XX:-UsePerfData", "-cp"]);
        command
            .arg(format!("{}:{}/*", self.classes.display(), self.jars.display()))
            .arg("Job");
        command
            .args(args.to_args())
            .arg(exactly_once.to_string())
            .arg(cache.to_string())
            .arg(state);
        command
    }
}
