//! Promise: whenever the process is killed, what stages keep is in the end what a run kept that nobody disturbed: rows,
//! changelogs, how far time has come, and every result that does not depend on when commits were made, record for record.
//!
//! The disturbed runs have so little memory that rows are flushed and evicted all the time; the undisturbed one keeps
//! everything in memory. 12 kills here; `MILLSTREAM_CRASHES=100` asks for more. The seed is printed; `MILLSTREAM_SEED`
//! sets it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use millstream::crash::{LOG_CRASH_POINTS, STATE_CRASH_POINTS, STORE_CRASH_POINTS};
use millstream_tests::events::{
    self, Outcome, STORE_BYTES, assert_kept, assert_same, changelogs, make_events_topic, pipelines, setting,
    write_events,
};
use millstream_tests::stores::committed_rows;
use millstream_tests::{Guarded, millstream, open};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

fn prepare(dir: &Path, seed: u64) -> Vec<PathBuf> {
    let log = open(dir);
    make_events_topic(&log);
    write_events(&log, seed, |_| {});
    log.close();
    pipelines(dir, "")
}

fn outcome(dir: &Path) -> Outcome {
    let log = open(dir);
    let found = events::outcome(&log, &*log);
    assert_kept(&found, committed_rows(dir, &log, &changelogs()));
    log.close();
    found
}

fn run(dir: &Path, files: &[PathBuf], close: bool) -> std::process::Command {
    let mut command = millstream(["run", "--until-end", "--workers", "2", "--data"]);
    command.arg(dir).args(close.then_some("--close-windows")).args(files);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Kills runs, by name and by time, until so many are dead.
struct Storm {
    random: StdRng,
    points: Vec<&'static str>,
    kills: u64,
    killed: u64,
    by_point: BTreeMap<&'static str, u64>,
    length: Duration,
}

impl Storm {
    fn point(&mut self) -> &'static str {
        if self.points.is_empty() {
            self.points = LOG_CRASH_POINTS[..3].to_vec();
            self.points.extend(STATE_CRASH_POINTS);
            self.points.extend(STORE_CRASH_POINTS);
            self.points.shuffle(&mut self.random);
        }
        self.points.pop().expect("it was filled")
    }

    /// Runs until a run survives; that is sure once there are no kills left.
    fn run(&mut self, dir: &Path, files: &[PathBuf], close: bool, kills_here: u64) {
        let last = (self.killed + kills_here).min(self.kills);
        loop {
            let mut command = run(dir, files, close);
            command.env("MILLSTREAM_STORE_BYTES", STORE_BYTES).stderr(Stdio::null());
            let kill = self.killed < last;
            let point = (kill && self.random.random_bool(0.6)).then(|| self.point());
            if let Some(point) = point {
                let nth = self.random.random_range(1..10);
                command.env("MILLSTREAM_CRASH_AT", format!("{point}:{nth}"));
            }
            let mut child = Guarded(command.spawn().expect("the program starts"));
            if kill && point.is_none() {
                let end = Instant::now() + self.length.mul_f64(self.random.random_range(0.1..0.9));
                while Instant::now() < end && child.0.try_wait().expect("the child can be asked").is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // It may have ended by itself.
                let _ = child.0.kill();
            }
            let status = child.0.wait().expect("the child ends");
            if status.signal() == Some(9) {
                self.killed += 1;
                if let Some(point) = point {
                    *self.by_point.entry(point).or_default() += 1;
                }
                continue;
            }
            assert!(status.success(), "ended with {status}, not by a kill");
            break;
        }
    }
}

#[test]
fn killed_at_any_moment_what_is_kept_ends_as_if_undisturbed() {
    let seed = setting("MILLSTREAM_SEED", rand::random::<u32>().into());
    let kills = setting("MILLSTREAM_CRASHES", 12);
    println!("MILLSTREAM_SEED={seed} MILLSTREAM_CRASHES={kills}");

    let calm = tempfile::tempdir().expect("a folder");
    let files = prepare(calm.path(), seed);
    let began = Instant::now();
    let mut expected = Vec::new();
    for close in [false, true] {
        let output = run(calm.path(), &files, close).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        expected.push(outcome(calm.path()));
    }
    let length = began.elapsed();
    for (topic, records) in &expected[1].topics {
        assert!(
            !records.is_empty() || topic.starts_with("no-key"),
            "{topic} has records"
        );
    }
    assert!(
        expected[0].rows.values().all(|rows| !rows.is_empty()),
        "each store has rows"
    );

    let mut storm = Storm {
        random: StdRng::seed_from_u64(seed ^ 0x5eed),
        points: Vec::new(),
        kills,
        killed: 0,
        by_point: BTreeMap::new(),
        length,
    };
    while storm.killed < kills {
        let stormy = tempfile::tempdir().expect("a folder");
        let files = prepare(stormy.path(), seed);
        for (close, expected) in [false, true].into_iter().zip(&expected) {
            storm.run(stormy.path(), &files, close, 8);
            assert_same(&outcome(stormy.path()), expected);
        }
    }
    println!("{} kills, of them at named points {:?}", storm.killed, storm.by_point);
}
