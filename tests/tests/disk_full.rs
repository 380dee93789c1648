//! Promise: when the disk is full a pipeline pauses, says so, and goes on by itself when there is room; what it has
//! written in the end is what it writes where nothing disturbs it, record for record.
//!
//! The disk is a small tmpfs, which only root may mount: where it cannot be mounted the tests say so and end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use millstream::cli::run::work;
use millstream::connect::{EmbeddedLog, Options, TopicPartition};
use millstream::control::PipelineState;
use millstream::record::Record;
use millstream_tests::{InProcess, append, make_topic, read_topic, skip};

const LONG: Duration = Duration::from_secs(60);
const TOPICS: [&str; 3] = ["high", "low", "full-dlq"];
const PARTITIONS: u32 = 2;

/// A file system of its own, unmounted when the test is over.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(test: &str, megabytes: u64) -> Option<Disk> {
        let dir = tempfile::tempdir().expect("a folder");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Disk(dir)),
            other => {
                skip(test, &format!("a tmpfs cannot be mounted here ({other:?})"));
                None
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Takes all room, by a file that the host does not know.
    fn fill(&self) -> Filler {
        let path = self.0.path().join("filler");
        let file = File::create(&path).expect("a file");
        let stat = rustix::fs::statvfs(self.0.path()).expect("the file system answers");
        let mut length = 0;
        let mut step = stat.f_bavail * stat.f_frsize;
        // Others write meanwhile: what is not there as a whole is taken in smaller pieces.
        while step >= stat.f_frsize {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, step) {
                Ok(()) if length == 0 => (length, step) = (step, 1 << 20),
                Ok(()) => length += step,
                Err(_) => step /= 2,
            }
        }
        Filler(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever still holds a file keeps the disk until it is gone.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Rides of about `bytes` each; one in a hundred lacks its amount.
fn rides(partition: u32, from: u64, count: u64, bytes: usize) -> Vec<Record> {
    (from..from + count)
        .map(|n| {
            let amount = if n % 100 == 7 {
                String::new()
            } else {
                format!(r#""total_amount":{},"#, n % 80)
            };
            let fill = "x".repeat(bytes);
            Record {
                value: Some(format!(r#"{{{amount}"p":{partition},"n":{n},"fill":"{fill}"}}"#).into_bytes()),
                timestamp_ms: n as i64,
                ..Record::default()
            }
        })
        .collect()
}

fn add(log: &Arc<EmbeddedLog>, from: u64, count: u64, bytes: usize) {
    for partition in 0..PARTITIONS {
        for chunk in rides(partition, from, count, bytes).chunks(500) {
            append(log, "rides", partition, chunk);
        }
    }
}

const PIPELINE: &str = r#"
    [source.rides]
    [stage.split]
    plugin = "@branch-by-amount"
    input = "rides"
    to = { high = "high", low = "low" }
    [commit]
    interval = "5ms"
"#;

const SLOW: &str = r#"
    [stage.slow]
    plugin = "@chaos"
    input = "rides"
    config = { kind = "slow", when = "always", amount = 30000000 }
"#;

/// All topics; the dead-letter queue, which both partitions write, in the order of each.
fn outcome(log: &Arc<EmbeddedLog>) -> Vec<Vec<Vec<Record>>> {
    let mut topics: Vec<_> = TOPICS.iter().map(|topic| read_topic(log, topic)).collect();
    let from = |record: &Record| {
        record
            .headers
            .as_ref()
            .last("__streams.errors.partition")
            .flatten()
            .map(<[u8]>::to_vec)
    };
    topics[2].iter_mut().for_each(|records| records.sort_by_key(from));
    topics
}

fn committed(log: &Arc<EmbeddedLog>) -> Vec<u64> {
    let place = |partition| TopicPartition::new("rides", partition);
    (0..PARTITIONS)
        .map(|partition| log.committed("full", &place(partition)).expect("answers").unwrap_or(0))
        .collect()
}

fn undisturbed(count: u64, bytes: usize) -> Vec<Vec<Vec<Record>>> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut running = InProcess::open(&dir.path().join("data"), 2, Options::default());
    make_topic(running.log(), "rides", PARTITIONS);
    add(running.log(), 0, count, bytes);
    running.start("full", PIPELINE);
    running.until_end(LONG);
    outcome(running.log())
}

fn assert_equal(found: &[Vec<Vec<Record>>], expected: &[Vec<Vec<Record>>]) {
    for ((topic, found), expected) in TOPICS.iter().zip(found).zip(expected) {
        for (partition, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "records in {topic}-{partition}");
            let differs = (0..found.len()).find(|&at| found[at] != expected[at]);
            assert_eq!(differs, None, "the first record of {topic}-{partition} that is another");
        }
    }
}

/// What is in the topics now stands for the offsets that are committed now, no more and no less.
fn assert_whole(log: &Arc<EmbeddedLog>) -> u64 {
    let written: usize = outcome(log).iter().flatten().map(Vec::len).sum();
    let read: u64 = committed(log).iter().sum();
    assert_eq!(written as u64, read, "outputs and dead letters stand for what was read");
    read
}

fn is_paused(running: &InProcess) -> Option<String> {
    match running.state("full") {
        PipelineState::Paused(why) => Some(why),
        PipelineState::Failed(why) => panic!("failed: {why}"),
        _ => None,
    }
}

fn disk_is_full(megabytes: u64, count: u64, bytes: usize, reserve_bytes: u64) {
    let test = "a_full_disk_pauses_a_pipeline_and_room_lets_it_go_on";
    let Some(disk) = Disk::mount(test, megabytes) else {
        return;
    };
    let options = Options {
        disk_reserve_bytes: reserve_bytes,
        ..Options::default()
    };
    let expected = undisturbed(count, bytes);
    let mut running = InProcess::open(&disk.data(), 2, options.clone());
    make_topic(running.log(), "rides", PARTITIONS);
    // One half is processed, the other has to wait.
    add(running.log(), 0, count / 2, bytes);
    running.start("full", PIPELINE);
    running.wait_for("full", LONG);
    assert!(running.host.stop(Duration::from_secs(5)), "it stops");
    add(running.log(), count / 2, count - count / 2, bytes);
    let before = committed(running.log());
    running.log().close();
    drop(running);

    let mut running = InProcess::open(&disk.data(), 2, options);
    let filler = disk.fill();
    running.start("full", PIPELINE);
    running.wait_until("it pauses", LONG, || is_paused(&running).is_some());
    // A retry is on its way at times; what it says stays.
    let why = is_paused(&running).expect("it is paused");
    assert!(
        why.contains("the disk of") && why.contains("is full") && why.contains("make room"),
        "{why}"
    );
    assert!(!running.host.is_at_end(), "paused is not at the end");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(committed(running.log()), before, "nothing is committed on a full disk");
    assert_eq!(assert_whole(running.log()), before.iter().sum::<u64>());
    assert!(is_paused(&running).is_some(), "it still waits");

    let began = Instant::now();
    drop(filler);
    running.until_end(LONG);
    println!(
        "{megabytes} MB, {count} records of {bytes} bytes: went on {:?} after there was room",
        began.elapsed()
    );
    assert_eq!(committed(running.log()), [count; PARTITIONS as usize]);
    assert_equal(&outcome(running.log()), &expected);
    running.log().close();
}

#[test]
fn a_full_disk_pauses_a_pipeline_and_room_lets_it_go_on() {
    for (megabytes, count, bytes) in [(96, 2000, 50), (160, 20_000, 200), (256, 1000, 20_000)] {
        disk_is_full(megabytes, count, bytes, 4 << 20);
    }
}

/// The room goes and comes while the pipeline runs, also in the midst of commits: whatever the engine meets, nothing
/// is lost and nothing is there twice.
fn disk_comes_and_goes(test: &str, reserve_bytes: u64) {
    let (count, bytes) = (20_000, 500);
    let Some(disk) = Disk::mount(test, 256) else { return };
    let expected = undisturbed(count, bytes);
    let mut running = InProcess::open(
        &disk.data(),
        2,
        Options {
            disk_reserve_bytes: reserve_bytes,
            ..Options::default()
        },
    );
    make_topic(running.log(), "rides", PARTITIONS);
    add(running.log(), 0, count, bytes);
    // A stage that takes its time, so that there is something left to do when the room is gone.
    running.start(
        "full",
        &format!(
            "{}\n{SLOW}",
            PIPELINE
                .replace("5ms", "1ms")
                .replace(r#"input = "rides""#, r#"input = "slow.out""#)
        ),
    );
    let mut pauses = 0;
    for round in 1..=4 {
        let total = count * u64::from(PARTITIONS);
        let due = total * round / 6;
        running.wait_until("it gets on", LONG, || {
            committed(running.log()).iter().sum::<u64>() >= due
        });
        let filler = disk.fill();
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && is_paused(&running).is_none() && committed(running.log()) != [count; 2] {
            std::thread::sleep(Duration::from_millis(1));
        }
        pauses += u32::from(is_paused(&running).is_some());
        drop(filler);
    }
    running.until_end(LONG);
    println!("reserve of {reserve_bytes} bytes: paused {pauses} times");
    assert!(pauses > 0, "the disk was never full");
    assert_equal(&outcome(running.log()), &expected);
    running.log().close();
    drop(running);
    let log = millstream_tests::open(&disk.data());
    assert_equal(&outcome(&log), &expected);
}

#[test]
fn room_that_comes_and_goes_loses_nothing() {
    disk_comes_and_goes("room_that_comes_and_goes_loses_nothing", 4 << 20);
}

/// Without a reserve the engine itself meets the full disk.
#[test]
fn a_write_that_finds_no_room_loses_nothing() {
    disk_comes_and_goes("a_write_that_finds_no_room_loses_nothing", 0);
}

/// Where no file system can be mounted the reserve alone tells what a pipeline says.
#[test]
fn a_reserve_that_is_not_there_pauses_a_pipeline() {
    let dir = tempfile::tempdir().expect("a folder");
    let data: &Path = &dir.path().join("data");
    let log = millstream_tests::open(data);
    make_topic(&log, "rides", PARTITIONS);
    for topic in TOPICS {
        make_topic(&log, topic, PARTITIONS);
    }
    add(&log, 0, 100, 10);
    log.close();
    drop(log);
    let mut running = InProcess::open(
        data,
        1,
        Options {
            disk_reserve_bytes: u64::MAX,
            ..Options::default()
        },
    );
    running.start("full", PIPELINE);
    running.wait_until("it pauses", LONG, || {
        is_paused(&running).is_some_and(|why| why.contains("is full"))
    });
    assert_eq!(committed(running.log()), [0, 0]);
    assert!(running.host.stop(Duration::from_secs(5)), "a paused pipeline stops");
    drop(running);
    let mut running = InProcess::open(data, 1, Options::default());
    running.start("full", PIPELINE);
    running.until_end(LONG);
    assert_eq!(assert_whole(running.log()), 200);
}

/// No disk has so much room: every commit is refused.
#[test]
fn whoever_waits_for_the_end_of_a_paused_pipeline_is_told_and_not_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let running = InProcess::open(&data, 1, Options::default());
    TOPICS
        .iter()
        .for_each(|topic| make_topic(running.log(), topic, PARTITIONS));
    make_topic(running.log(), "rides", PARTITIONS);
    add(running.log(), 0, 10, 50);
    running.log().close();
    drop(running);

    let options = Options {
        disk_reserve_bytes: 1 << 60,
        ..Options::default()
    };
    let mut running = InProcess::open(&data, 1, options);
    running.start("full", PIPELINE);
    let waited = Duration::from_millis(500);
    let began = Instant::now();
    let error = work(&mut running.host, &AtomicBool::new(false), true, waited).expect_err("it never gets to the end");
    assert!(began.elapsed() >= waited, "it waits for room first");
    let error = error.to_string();
    for part in [
        "\"full\" is paused",
        "nothing has moved for 500ms",
        "the disk of",
        "is full",
    ] {
        assert!(error.contains(part), "{part:?} in {error}");
    }
    assert_eq!(committed(running.log()), [0; PARTITIONS as usize]);
}
