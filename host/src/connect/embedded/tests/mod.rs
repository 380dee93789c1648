//! The log as its users see it, against the real engine in a folder of its own.

mod crash;
mod damage;
mod full;
mod model;
mod retention;
mod scale;

use super::*;
use crate::connect::{Append, BlockBuilder, GroupOffset};
use crate::limits::OFFSET_METADATA_BYTES_MAX;
use crate::record::Record;

fn record(text: &str) -> Record {
    Record {
        value: Some(text.as_bytes().to_vec()),
        ..Record::default()
    }
}

fn append(topic: &str, partition: u32, texts: &[&str]) -> Append {
    let mut blocks = BlockBuilder::new();
    for text in texts {
        blocks.push(record(text).at(0)).unwrap();
    }
    Append {
        topic: topic.into(),
        partition,
        blocks,
    }
}

fn appends(appends: Vec<Append>) -> Commit {
    Commit {
        appends,
        ..Commit::default()
    }
}

fn texts(log: &EmbeddedLog, tp: &TopicPartition, from: u64) -> Vec<(u64, String)> {
    let mut from = from;
    let mut all = Vec::new();
    loop {
        let fetched = log.fetch(tp, from, 1 << 20).unwrap();
        if fetched.is_empty() {
            return all;
        }
        all.extend(
            fetched
                .records()
                .map(|r| (r.offset, String::from_utf8_lossy(r.value.unwrap()).into_owned())),
        );
        from = fetched.next_offset();
    }
}

fn small() -> Options {
    Options {
        disk_reserve_bytes: 1 << 20,
        ..Options::default()
    }
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (t0, t1) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
    for round in 0..3u64 {
        let log = EmbeddedLog::open(dir.path(), small()).unwrap();
        if round == 0 {
            log.create_topic(&TopicSpec::new("t", 2)).unwrap();
        }
        assert_eq!(texts(&log, &t0, 0).len() as u64, 3 * round);
        let offset = GroupOffset {
            group: "g".into(),
            topic: "t".into(),
            partition: 0,
            next_offset: 3 * round + 1,
            metadata: String::new(),
        };
        let commit = Commit {
            appends: vec![
                append("t", 0, &["a", "b"]),
                append("t", 1, &["x"]),
                append("t", 0, &["c"]),
            ],
            offsets: vec![offset],
            ..Commit::default()
        };
        let committed = log.commit(commit).unwrap();
        assert_eq!(committed.base_offsets, [3 * round, round, 3 * round + 2]);
        assert_eq!(log.committed("g", &t0), Ok(Some(3 * round + 1)));
        log.close();
        assert_eq!(log.commit(Commit::default()), Err(CommitError::Closed));
        assert_eq!(log.topics(), Err(LogError::Closed));
    }
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    let read: Vec<_> = texts(&log, &t0, 4)
        .into_iter()
        .map(|(o, t)| format!("{o}{t}"))
        .collect();
    assert_eq!(read, ["4b", "5c", "6a", "7b", "8c"]);
    assert_eq!(texts(&log, &t1, 0).len(), 3);
    assert_eq!(log.committed("g", &t0), Ok(Some(7)));
    let group = log.groups().unwrap().remove(0);
    assert_eq!(
        (
            group.group.as_str(),
            group.partitions[0].lag,
            group.partitions[0].next_offset
        ),
        ("g", 2, 9)
    );
    let error = log.fetch(&t0, 10, 1).unwrap_err();
    assert!(matches!(
        error,
        LogError::OffsetOutOfRange {
            offset: 10,
            first: 0,
            next: 9,
            ..
        }
    ));
}

#[test]
fn a_refused_commit_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let refusal = log
        .commit(appends(vec![append("t", 0, &["a"]), append("u", 0, &["b"])]))
        .unwrap_err();
    assert_eq!(refusal, LogError::UnknownTopic { topic: "u".into() }.into());
    let refusal = log
        .commit(appends(vec![append("t", 0, &["a"]), append("t", 1, &["b"])]))
        .unwrap_err();
    assert!(matches!(
        refusal,
        CommitError::Refused {
            refusal: LogError::UnknownPartition {
                partition: 1,
                partitions: 1,
                ..
            }
        }
    ));
    assert_eq!(log.next_offset(&TopicPartition::new("t", 0)), Ok(0));
    let twice = log.create_topic(&TopicSpec::new("t", 1)).unwrap_err();
    assert_eq!(twice, LogError::TopicExists { topic: "t".into() }.into());
    for name in ["", ".", "a b", "ä"] {
        assert!(
            matches!(
                log.create_topic(&TopicSpec::new(name, 1)),
                Err(CommitError::Refused { .. })
            ),
            "{name}"
        );
    }
    assert!(log.create_topic(&TopicSpec::new("v", 0)).is_err());
    log.delete_topic("t").unwrap();
    assert_eq!(
        log.fetch(&TopicPartition::new("t", 0), 0, 1).unwrap_err(),
        LogError::UnknownTopic { topic: "t".into() }
    );
    assert!(log.delete_topic("t").is_err());
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    assert_eq!(log.next_offset(&TopicPartition::new("t", 0)), Ok(0));
}

#[test]
fn waiting_readers_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 2)).unwrap();
    let ends = [(TopicPartition::new("t", 0), 0), (TopicPartition::new("t", 1), 0)];
    assert_eq!(log.wait(&ends, Duration::from_millis(1)), Ok(false));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| log.wait(&ends, Duration::from_secs(60)));
        log.commit(appends(vec![append("t", 1, &["a"])])).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(true));
    });
}

#[test]
fn what_a_group_notes_beside_its_offset_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let tp = TopicPartition::new("t", 0);
    let noted = |metadata: String| Commit {
        offsets: vec![GroupOffset {
            group: "g".into(),
            topic: "t".into(),
            partition: 0,
            next_offset: 7,
            metadata,
        }],
        ..Commit::default()
    };
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    assert_eq!(log.committed_with_metadata("g", &tp), Ok(None));
    let most = "é".repeat(OFFSET_METADATA_BYTES_MAX / 2);
    log.commit(noted(most.clone())).unwrap();
    let refused = log.commit(noted(format!("{most}x"))).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("notes 4097 bytes beside its offset of t[0], more than 4096"),
        "{refused}"
    );
    log.close();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    assert_eq!(log.committed_with_metadata("g", &tp), Ok(Some((7, most.clone()))));
    assert_eq!(log.groups().unwrap()[0].partitions[0].metadata, most);
    // A row as earlier programs wrote it.
    let row = [5u64.to_le_bytes(), 6i64.to_le_bytes()].concat();
    let old = |engine: &Engine| {
        engine.meta.insert(engine::offset_key("g", &tp), &row[..]).unwrap();
        Ok(())
    };
    log.shared.with_engine(old).unwrap();
    log.close();
    let log = EmbeddedLog::open(dir.path(), small()).unwrap();
    assert_eq!(log.committed_with_metadata("g", &tp), Ok(Some((5, String::new()))));
    log.commit(noted(String::new())).unwrap();
    assert_eq!(log.committed_with_metadata("g", &tp), Ok(Some((7, String::new()))));
}
