//! A process is killed while it writes; what it was told is true, is true.

use super::*;
use crate::connect::{TopicRole, TopicSpec};
use crate::crash::{CRASH_VARIABLE, LOG_CRASH_POINTS};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const FOLDER_VARIABLE: &str = "MILLSTREAM_TEST_FOLDER";
const COMMITS: u64 = 120;

/// Not a test but the process that is killed: it runs this test alone, with a folder in its environment.
#[test]
fn writer() {
    let Ok(folder) = std::env::var(FOLDER_VARIABLE) else {
        return;
    };
    let options = Options {
        generation_bytes_max: 6 << 10,
        ..small()
    };
    let log = EmbeddedLog::open(Path::new(&folder), options).unwrap();
    for (name, retention_bytes) in [("t", None), ("short", Some(24 << 10))] {
        if log.topic(name).is_err() {
            let spec = TopicSpec {
                retention_bytes,
                ..TopicSpec::new(name, 2)
            };
            log.create_topic(&spec).unwrap();
        }
    }
    if log.topic("purged").is_err() {
        let role = TopicRole::Repartition {
            pipeline: "g".into(),
            stage: "s".into(),
        };
        let spec = TopicSpec {
            role: Some(Arc::new(role)),
            ..TopicSpec::new("purged", 2)
        };
        log.create_topic(&spec).unwrap();
    }
    let done = log.next_offset(&TopicPartition::new("t", 0)).unwrap();
    for n in done..COMMITS {
        log.commit(numbered(n)).unwrap();
        println!("acknowledged {n}");
        if n % 16 == 15 {
            let name = format!("extra-{n}");
            log.create_topic(&TopicSpec::new(&name, 1)).unwrap();
            log.delete_topic(&name).unwrap();
        }
    }
    println!("finished");
}

/// Commit `n`: one record to each partition, and the group's offset behind the first.
fn numbered(n: u64) -> Commit {
    let text = n.to_string();
    let filler = format!("{n}{}", " ".repeat(500));
    Commit {
        appends: vec![
            append("t", 0, &[&text]),
            append("t", 1, &[&text]),
            append("short", 1, &[&filler]),
            append("purged", 1, &[&filler]),
        ],
        // The last record of the topic that is purged is not passed yet.
        offsets: vec![group_offset("t", 0, n + 1), group_offset("purged", 1, n)],
        ..Commit::default()
    }
}

fn group_offset(topic: &str, partition: u32, next_offset: u64) -> GroupOffset {
    GroupOffset {
        group: "g".into(),
        topic: topic.into(),
        partition,
        next_offset,
        metadata: format!("beside {next_offset}"),
    }
}

/// Runs the writer until it dies or ends; the number of commits it was told are true, and whether it finished.
fn run_writer(folder: &Path, crash_at: Option<&str>, kill_after: Option<Duration>) -> (u64, bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "connect::embedded::tests::crash::writer",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env(FOLDER_VARIABLE, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(point) = crash_at {
        command.env(CRASH_VARIABLE, point);
    }
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reading = std::thread::spawn(move || {
        let (mut told, mut finished) = (0, false);
        for line in stdout.lines() {
            let line = line.unwrap();
            finished |= line.ends_with("finished");
            // The harness of the tests prints its own text before the first line.
            if let Some((_, n)) = line.split_once("acknowledged ") {
                told = n.parse::<u64>().unwrap() + 1;
            }
        }
        (told, finished)
    });
    if let Some(after) = kill_after {
        std::thread::sleep(after);
        let _ = child.kill();
    }
    let status = child.wait().unwrap();
    let (told, finished) = reading.join().unwrap();
    assert!(finished || !status.success(), "the writer ended early by itself");
    (told, finished)
}

/// What is in the folder is commits `0..n` whole, and all that were told to be true.
fn check(folder: &Path, told: u64) -> u64 {
    let log = EmbeddedLog::open(folder, small()).unwrap();
    // Retention that was due at the start is done before the first commit.
    log.commit(Commit::default()).unwrap();
    if log.topic("t").is_err() {
        assert_eq!(told, 0);
        return 0;
    }
    let (t0, t1) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
    let n = log.next_offset(&t0).unwrap();
    assert!(n >= told, "{n} commits are there, {told} were acknowledged");
    let beside = (n > 0).then(|| (n, format!("beside {n}")));
    assert_eq!(log.committed_with_metadata("g", &t0).unwrap(), beside);
    let expected: Vec<_> = (0..n).map(|n| (n, n.to_string())).collect();
    assert_eq!(texts(&log, &t0, 0), expected);
    assert_eq!(texts(&log, &t1, 0), expected);
    if let Ok(short) = log.topic("short") {
        let range = short.partition_ranges[1];
        assert_eq!(range.next_offset, n);
        let tp = TopicPartition::new("short", 1);
        let kept = texts(&log, &tp, range.first_offset);
        let numbers: Vec<u64> = kept.iter().map(|(_, text)| text.trim_end().parse().unwrap()).collect();
        assert_eq!(numbers, (range.first_offset..n).collect::<Vec<_>>());
        let generations = log
            .shared
            .with_engine(|engine| Ok(engine.topic("short")?.generations.read().unwrap().len()));
        assert!(generations.unwrap() <= 6);
    }
    if let Ok(purged) = log.topic("purged") {
        let range = purged.partition_ranges[1];
        assert_eq!(range.next_offset, n);
        assert!(range.first_offset <= n.saturating_sub(1));
        let kept = texts(&log, &TopicPartition::new("purged", 1), range.first_offset);
        let numbers: Vec<u64> = kept.iter().map(|(_, text)| text.trim_end().parse().unwrap()).collect();
        assert_eq!(numbers, (range.first_offset..n).collect::<Vec<_>>());
        // At most the generation of the last record, and one that has none yet.
        assert!(kept.len() <= 24, "{}", kept.len());
    }
    // Nothing is left of topics and generations that were being made or dropped.
    let (keyspaces, named) = log
        .shared
        .with_engine(|engine| {
            let topics = engine.topics.read().unwrap();
            let named = |topic: &Arc<super::topic::Topic>| {
                topic
                    .generations
                    .read()
                    .unwrap()
                    .iter()
                    .filter(|g| g.own_keyspace().is_some())
                    .count()
            };
            Ok((engine.db.keyspace_count(), topics.values().map(named).sum::<usize>()))
        })
        .unwrap();
    assert_eq!(keyspaces, named + 2);
    n
}

#[test]
fn killed_at_every_named_point() {
    for point in LOG_CRASH_POINTS {
        let dir = tempfile::tempdir().unwrap();
        let mut deaths = 0;
        // A later pass each time; the process goes on from where the last one died.
        for nth in [1, 2, 7] {
            let (told, finished) = run_writer(dir.path(), Some(&format!("{point}:{nth}")), None);
            deaths += u32::from(!finished);
            check(dir.path(), told);
        }
        assert!(deaths >= 2, "the point {point} was passed by {deaths} writers");
        let (_, finished) = run_writer(dir.path(), None, None);
        assert!(finished, "{point}");
        assert_eq!(check(dir.path(), COMMITS), COMMITS);
    }
}

#[test]
fn killed_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut told_at_most = 0;
    for kill in 0..10u64 {
        let after = Duration::from_micros(5_000 + (seed.rotate_left(kill as u32 * 6) % 40_000));
        let (told, _) = run_writer(dir.path(), None, Some(after));
        told_at_most = told_at_most.max(told);
        told_at_most = told_at_most.max(check(dir.path(), told_at_most));
    }
    let (_, finished) = run_writer(dir.path(), None, None);
    assert!(finished);
    assert_eq!(check(dir.path(), COMMITS), COMMITS);
}

/// The engine forgets, when it is opened, how far its own list of keyspaces had counted, and gives a number again that
/// it gave before: what lay under it would be taken for dropped at the next start, and deleted.
#[test]
fn a_keyspace_with_a_number_that_was_given_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        generation_bytes_max: 1,
        ..small()
    };
    let log = EmbeddedLog::open(dir.path(), options.clone()).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    log.commit(appends(vec![append("t", 0, &["in the shared keyspace"])]))
        .unwrap();
    // Killed between the making of a keyspace and the commit that names it, a few times in the same start.
    for number in 50..60 {
        log.shared
            .with_engine(|engine| Ok(engine.home(7, number, false).unwrap()))
            .map(drop)
            .unwrap();
    }
    let mut image = super::damage::image(&log);
    drop(log);
    for start in 0..4 {
        // What nothing names is dropped, and the process is killed at once.
        let log = EmbeddedLog::open(image.path(), options.clone()).unwrap();
        if start == 1 {
            log.commit(appends(vec![append("t", 0, &["in a keyspace of its own"])]))
                .unwrap();
        }
        let killed = super::damage::image(&log);
        drop(log);
        image = killed;
    }
    let log = EmbeddedLog::open(image.path(), options).unwrap();
    assert_eq!(texts(&log, &TopicPartition::new("t", 0), 0).len(), 2);
}

#[test]
fn another_process_is_told_who_holds_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    // The writer cannot open the folder, and dies of it.
    let (told, finished) = run_writer(dir.path(), None, None);
    assert_eq!((told, finished), (0, false));
    assert_eq!(log.topics(), Ok(vec![]));
    drop(log);
    assert!(run_writer(dir.path(), None, None).1);
}
