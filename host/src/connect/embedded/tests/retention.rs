//! What is kept too long is dropped, and what is not yet too long is kept.

use super::*;
use crate::connect::{TopicRole, TopicSpec};

fn keyspaces(log: &EmbeddedLog) -> usize {
    log.shared.with_engine(|engine| Ok(engine.db.keyspace_count())).unwrap()
}

#[test]
fn by_size_the_oldest_go_and_the_newest_stay() {
    let dir = tempfile::tempdir().unwrap();
    let retention_bytes = 256 << 10;
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    let mut spec = TopicSpec::new("t", 2);
    spec.retention_bytes = Some(retention_bytes);
    log.create_topic(&spec).unwrap();
    let text = "x".repeat(10 << 10);
    for n in 0..200u32 {
        log.commit(appends(vec![append("t", n % 2, &[&text])])).unwrap();
    }
    let check = |log: &EmbeddedLog| {
        for range in log.topic("t").unwrap().partition_ranges {
            assert_eq!(range.next_offset, 100);
            assert!(range.first_offset > 50, "{range:?}");
        }
        let bytes: u64 = log
            .topic("t")
            .unwrap()
            .partition_ranges
            .iter()
            .filter_map(|range| range.bytes)
            .sum();
        assert!(bytes >= retention_bytes && bytes <= 2 * retention_bytes, "{bytes}");
        assert!(keyspaces(log) <= 8, "{}", keyspaces(log));
        let tp = TopicPartition::new("t", 1);
        let first = log.offset_at(&tp, Position::Start).unwrap();
        assert_eq!(texts(log, &tp, first).len() as u64, 100 - first);
        let gone = log.fetch(&tp, first - 1, 1).unwrap_err();
        assert!(matches!(gone, LogError::OffsetOutOfRange { first: f, next: 100, .. } if f == first));
        first
    };
    let first = check(&log);
    log.close();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    assert_eq!(check(&log), first);
}

#[test]
fn by_time_a_topic_empties_by_itself_and_keeps_its_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    let mut spec = TopicSpec::new("t", 1);
    spec.retention_ms = Some(200);
    log.create_topic(&spec).unwrap();
    log.create_topic(&TopicSpec::new("u", 1)).unwrap();
    // Old by its own timestamp, as a replayed record is: retention counts from the append.
    log.commit(appends(vec![append("t", 0, &["a", "b"]), append("u", 0, &["c"])]))
        .unwrap();
    let tp = TopicPartition::new("t", 0);
    assert_eq!(texts(&log, &tp, 0).len(), 2);
    let since = Instant::now();
    while log.offset_at(&tp, Position::Start).unwrap() < 2 {
        assert!(since.elapsed() < Duration::from_secs(20), "nothing was dropped");
        std::thread::yield_now();
    }
    assert!(since.elapsed() > Duration::from_millis(150), "dropped too early");
    assert_eq!(texts(&log, &TopicPartition::new("u", 0), 0).len(), 1);
    log.close();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    assert_eq!(
        log.commit(appends(vec![append("t", 0, &["d"])])).unwrap().base_offsets,
        [2]
    );
    assert_eq!(texts(&log, &tp, 2), [(2, "d".to_string())]);
}

#[test]
fn dropped_generations_free_their_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        generation_bytes_max: 8 << 20,
        ..small()
    };
    let log = EmbeddedLog::open(dir.path(), options).unwrap();
    let mut spec = TopicSpec::new("t", 1);
    spec.retention_bytes = Some(32 << 20);
    log.create_topic(&spec).unwrap();
    let text = "x".repeat(1 << 20);
    for _ in 0..640 {
        log.commit(appends(vec![append("t", 0, &[&text])])).unwrap();
    }
    log.close();
    drop(log);
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    let bytes = folder_bytes(dir.path());
    // What is kept, and the journals' bound, of 640 MiB that were written.
    assert!(bytes < (48 << 20) + (320 << 20), "{bytes} bytes on the disk");
    drop(log);
}

fn folder_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        bytes += if metadata.is_dir() {
            folder_bytes(&entry.path())
        } else {
            metadata.blocks() * 512
        };
    }
    bytes
}

#[test]
fn a_timestamp_is_found_across_generations() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        generation_bytes_max: 1,
        ..small()
    };
    let log = EmbeddedLog::open(dir.path(), options).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let tp = TopicPartition::new("t", 0);
    for times in [[10, 30], [20, 25], [40, 5]] {
        let mut blocks = BlockBuilder::new();
        for timestamp_ms in times {
            let record = Record {
                timestamp_ms,
                ..Record::default()
            };
            blocks.push(record.at(0)).unwrap();
        }
        let topic = "t".into();
        log.commit(appends(vec![Append {
            topic,
            partition: 0,
            blocks,
        }]))
        .unwrap();
    }
    assert!(keyspaces(&log) >= 4);
    for (timestamp_ms, offset) in [(i64::MIN, 0), (10, 0), (11, 1), (30, 1), (31, 4), (40, 4), (41, 6)] {
        assert_eq!(
            log.offset_at(&tp, Position::Timestamp(timestamp_ms)),
            Ok(offset),
            "{timestamp_ms}"
        );
    }
    assert_eq!(log.offset_at(&tp, Position::Offset(99)), Ok(6));
}

fn internal(name: &str, partitions: u32) -> TopicSpec {
    let role = TopicRole::Repartition {
        pipeline: "p".into(),
        stage: "s".into(),
    };
    TopicSpec {
        role: Some(Arc::new(role)),
        ..TopicSpec::new(name, partitions)
    }
}

fn passed(group: &str, partition: u32, next_offset: u64) -> Commit {
    let offset = GroupOffset {
        group: group.into(),
        topic: "t".into(),
        partition,
        next_offset,
        metadata: String::new(),
    };
    Commit {
        offsets: vec![offset],
        ..Commit::default()
    }
}

#[test]
fn what_its_pipeline_has_passed_in_all_partitions_is_purged_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        generation_bytes_max: 1,
        ..small()
    };
    let log = EmbeddedLog::open(dir.path(), options.clone()).unwrap();
    log.create_topic(&internal("t", 3)).unwrap();
    // A generation each: of both partitions, of one, of the other. Partition 2 never has a record.
    log.commit(appends(vec![append("t", 0, &["a"]), append("t", 1, &["b"])]))
        .unwrap();
    log.commit(appends(vec![append("t", 0, &["c"])])).unwrap();
    log.commit(appends(vec![append("t", 1, &["d"])])).unwrap();
    let first = |log: &EmbeddedLog| {
        // Purging comes after the answer to the commit that made it due.
        log.commit(Commit::default()).unwrap();
        let ranges = log.topic("t").unwrap().partition_ranges;
        (ranges[0].first_offset, ranges[1].first_offset)
    };
    for (group, partition, next_offset, expected) in [
        ("p", 0, 2, (0, 0)),
        ("other", 1, 2, (0, 0)),
        ("p", 1, 0, (0, 0)),
        ("p", 1, 1, (2, 1)),
        // What is being written to stays.
        ("p", 1, 2, (2, 1)),
    ] {
        log.commit(passed(group, partition, next_offset)).unwrap();
        assert_eq!(first(&log), expected, "{group} {partition} {next_offset}");
    }
    // A generation that was passed before it was full goes with the next one.
    log.commit(appends(vec![append("t", 0, &["e"])])).unwrap();
    assert_eq!(first(&log), (2, 2));
    // An offset of old, which was committed while the log could not purge, counts at the start.
    log.close();
    let log = EmbeddedLog::open(dir.path(), options).unwrap();
    assert_eq!(first(&log), (2, 2));
    assert_eq!(texts(&log, &TopicPartition::new("t", 0), 2), [(2, "e".to_string())]);
}

#[test]
fn purging_frees_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&internal("t", 1)).unwrap();
    let text = "x".repeat(1 << 20);
    for n in 0..640 {
        let mut commit = passed("p", 0, n);
        commit.appends.push(append("t", 0, &[&text]));
        log.commit(commit).unwrap();
    }
    log.commit(Commit::default()).unwrap();
    let range = log.topic("t").unwrap().partition_ranges[0];
    assert!(range.first_offset > 640 - 130, "{range:?}");
    log.close();
    drop(log);
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    let bytes = folder_bytes(dir.path());
    // Two generations, and the journals' bound, of 640 MiB that were written.
    assert!(bytes < (128 << 20) + (320 << 20), "{bytes} bytes on the disk");
    drop(log);
}

#[test]
fn a_time_is_looked_for_in_a_few_megabytes_of_a_large_partition() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 2)).unwrap();
    let tp = TopicPartition::new("t", 1);
    // 24 MiB in four generations; times rise, but each record of a commit is older than the one before it.
    let text = "x".repeat(64 << 10);
    let mut times = Vec::new();
    for commit in 0..96i64 {
        if commit == 48 {
            log.close();
            let options = Options {
                generation_bytes_max: 6 << 20,
                ..small()
            };
            log = EmbeddedLog::open(dir.path(), options).unwrap();
        }
        let mut blocks = BlockBuilder::new();
        for n in 0..4 {
            let mut record = record(&text);
            record.timestamp_ms = 10 * commit - n;
            times.push(record.timestamp_ms);
            blocks.push(record.at(0)).unwrap();
        }
        let topic = "t".into();
        log.commit(appends(vec![Append {
            topic,
            partition: 1,
            blocks,
        }]))
        .unwrap();
    }
    log.close();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    for timestamp_ms in -10..1000 {
        let first = times.iter().position(|time| *time >= timestamp_ms);
        let expected = first.unwrap_or(times.len()) as u64;
        let found = log.offset_at(&tp, Position::Timestamp(timestamp_ms));
        assert_eq!(found, Ok(expected), "{timestamp_ms}");
    }
    let topic_id = log.shared.with_engine(|engine| engine.topic("t")).unwrap().id;
    let rows = |log: &EmbeddedLog| {
        log.shared
            .with_engine(|engine| Ok(engine.time_rows(topic_id, 1, 0, u64::MAX).count()))
            .unwrap()
    };
    assert_eq!(rows(&log), 6, "24 MiB");
    let from = |timestamp_ms| {
        let look = |engine: &Engine| Ok(engine.look_from(topic_id, 1, 0, 384, timestamp_ms).unwrap());
        log.shared.with_engine(look).unwrap()
    };
    for timestamp_ms in [0, 300, 600, 950] {
        let found = log.offset_at(&tp, Position::Timestamp(timestamp_ms)).unwrap();
        let skipped = from(timestamp_ms);
        assert!(
            skipped <= found && found - skipped <= 72,
            "{timestamp_ms}: {skipped} to {found}"
        );
    }
    // Without the rows, as a folder was before there were any, everything is still found.
    log.shared
        .with_engine(|engine| {
            for row in engine.time_rows(topic_id, 1, 0, u64::MAX) {
                engine.shared.remove(row.key().unwrap()).unwrap();
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(from(950), 0);
    assert_eq!(log.offset_at(&tp, Position::Timestamp(941)), Ok(380));
}

#[test]
fn a_topic_that_is_dropped_leaves_no_times() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    let text = "x".repeat(1 << 20);
    for round in 0..2 {
        log.create_topic(&TopicSpec::new("t", 1)).unwrap();
        let topic_id = log.shared.with_engine(|engine| engine.topic("t")).unwrap().id;
        for _ in 0..9 {
            log.commit(appends(vec![append("t", 0, &[&text])])).unwrap();
        }
        let rows = || {
            log.shared
                .with_engine(|engine| Ok(engine.time_rows(topic_id, 0, 0, u64::MAX).count()))
                .unwrap()
        };
        assert_eq!(rows(), 2, "round {round}");
        log.delete_topic("t").unwrap();
        assert_eq!(rows(), 0, "round {round}");
    }
}
