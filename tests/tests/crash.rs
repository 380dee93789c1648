//! Promise: whenever the process is killed, outputs, dead letters and offsets are in the end those of a run that
//! nobody disturbed, record for record.
//!
//! 10 kills here; `MILLSTREAM_CRASHES=100` asks for more. The seed is printed; `MILLSTREAM_SEED` sets it.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use millstream::connect::TopicPartition;
use millstream::record::Record;
use millstream_tests::{Guarded, append, make_topic, millstream, open, plugin, read_topic};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const PARTITIONS: u32 = 3;
const RECORDS_PER_PARTITION: u64 = 20_000;
/// Named moments of a commit (`millstream::crash`), each used in turn.
const POINTS: [&str; 3] = ["commit-begin", "commit-built", "commit-synced"];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |value| value.parse().expect("a number"))
}

/// Rides in all their forms: most are fine, some are no JSON, lack the amount, have another type, or are marked for
/// `chaos` to fail on.
fn rides(random: &mut StdRng, partition: u32) -> Vec<Record> {
    (0..RECORDS_PER_PARTITION)
        .map(|n| {
            let amount: f64 = random.random_range(0.0..80.0);
            let place = format!("\"p\":{partition},\"n\":{n}");
            let value = match random.random_range(0..2000) {
                0 => format!("{{\"total_amount\": {amount:.2}, {place}"),
                1 => format!("{{{place}}}"),
                2 => format!("{{\"total_amount\":\"a lot\",{place}}}"),
                3 => format!("{{\"total_amount\":{amount:.2},\"poison\":true,{place}}}"),
                _ => format!("{{\"total_amount\":{amount:.2},{place}}}"),
            };
            let key = random.random_range(0..50).to_string();
            Record {
                key: random.random_bool(0.9).then(|| key.into_bytes()),
                value: random.random_ratio(999, 1000).then(|| value.into_bytes()),
                headers: [("p", Some(partition.to_string().as_bytes()))].into_iter().collect(),
                timestamp_ms: 1_600_000_000_000 + n as i64,
            }
        })
        .collect()
}

fn prepare(dir: &Path, seed: u64) {
    let log = open(dir);
    make_topic(&log, "rides", PARTITIONS);
    let mut random = StdRng::seed_from_u64(seed);
    for partition in 0..PARTITIONS {
        for chunk in rides(&mut random, partition).chunks(700) {
            append(&log, "rides", partition, chunk);
        }
    }
    log.close();
}

fn pipeline(dir: &Path) -> std::path::PathBuf {
    let file = dir.join("crash.toml");
    let text = format!(
        r#"
        name = "crash"
        [source.rides]
        [stage.chaos]
        plugin = {chaos:?}
        input = "rides"
        config = {{ kind = "panic", when = "poison" }}
        [stage.chaos.to]
        out = "checked"
        [stage.split]
        plugin = {split:?}
        input = "chaos.out"
        [stage.split.to]
        high = "high"
        low = "low"
        [commit]
        interval = "5ms"
        "#,
        chaos = plugin("chaos"),
        split = plugin("branch-by-amount"),
    );
    std::fs::write(&file, text).expect("the pipeline file is written");
    file
}

fn run(dir: &Path, file: &Path) -> std::process::Command {
    let mut command = millstream(["run", "--until-end", "--workers", "2"]);
    command
        .arg("--data")
        .arg(dir)
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// What must be equal: records by topic and partition, in the order of their source partition.
type Topics = Vec<(String, Vec<Record>)>;

/// All of it, and the group's offsets.
fn outcome(dir: &Path) -> (Topics, Vec<Option<u64>>) {
    let log = open(dir);
    let topics = ["checked", "high", "low", "crash-dlq"]
        .iter()
        .flat_map(|topic| {
            let partitions = read_topic(&log, topic);
            partitions.into_iter().enumerate().map(move |(partition, mut records)| {
                // Tasks of different source partitions write in any order; within one it must be the same.
                records.sort_by_key(source_partition);
                (format!("{topic}-{partition}"), records)
            })
        })
        .collect();
    let offsets = (0..PARTITIONS)
        .map(|partition| {
            let place = TopicPartition {
                topic: "rides".into(),
                partition,
            };
            log.committed("crash", &place).expect("the log answers")
        })
        .collect();
    (topics, offsets)
}

fn source_partition(record: &Record) -> String {
    let partition = record
        .headers
        .as_ref()
        .last("p")
        .flatten()
        .expect("each ride says where it comes from");
    String::from_utf8_lossy(partition).into_owned()
}

#[test]
fn killed_at_any_moment_it_ends_as_if_undisturbed() {
    let seed = setting("MILLSTREAM_SEED", rand::random::<u32>().into());
    let kills = setting("MILLSTREAM_CRASHES", 10);
    println!("MILLSTREAM_SEED={seed} MILLSTREAM_CRASHES={kills}");
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);

    let calm = tempfile::tempdir().expect("a folder");
    prepare(calm.path(), seed);
    let file = pipeline(calm.path());
    let began = Instant::now();
    let output = run(calm.path(), &file).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let length = began.elapsed();
    let expected = outcome(calm.path());
    assert!(
        expected
            .0
            .iter()
            .all(|(topic, records)| !records.is_empty() || topic.starts_with("checked")),
        "each topic has records"
    );

    let mut killed = 0;
    let mut by_point = 0;
    while killed < kills {
        // A run is over when it survives; then another folder takes the rest of the kills.
        let stormy = tempfile::tempdir().expect("a folder");
        prepare(stormy.path(), seed);
        let file = pipeline(stormy.path());
        loop {
            let mut command = run(stormy.path(), &file);
            let by_name = killed < kills && random.random_bool(0.5);
            if by_name {
                let point = POINTS[random.random_range(0..POINTS.len())];
                command.env("MILLSTREAM_CRASH_AT", format!("{point}:{}", random.random_range(1..6)));
            }
            let mut child = Guarded(command.stderr(Stdio::null()).spawn().expect("the program starts"));
            if !by_name && killed < kills {
                let after = length.mul_f64(random.random_range(0.1..0.9));
                wait_at_most(&mut child, after);
                // It may have ended by itself.
                let _ = child.0.kill();
            }
            let status = child.0.wait().expect("the child ends");
            if status.signal() == Some(9) {
                killed += 1;
                by_point += u64::from(by_name);
                continue;
            }
            assert!(status.success(), "ended with {status}, not by a kill");
            break;
        }
        let found = outcome(stormy.path());
        assert_eq!(found.1, expected.1, "the group's offsets");
        for ((topic, found), (_, expected)) in found.0.iter().zip(&expected.0) {
            assert_eq!(found.len(), expected.len(), "records in {topic}");
            if let Some(at) = (0..found.len()).find(|&at| found[at] != expected[at]) {
                panic!("{topic}, record {at}: {:?} instead of {:?}", found[at], expected[at]);
            }
        }
    }
    println!("{killed} kills, {by_point} of them at named points");
}

fn wait_at_most(child: &mut Guarded, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && child.0.try_wait().expect("the child can be asked").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
