//! The log through its socket does what the log itself does.

use super::*;
use crate::connect::{
    Append, BlockBuilder, Broker, Commit, CommitError, EmbeddedLog, GroupOffset, LogError, OpenBroker, Options,
    Position, StoreSchema, TopicPartition, TopicRole, TopicSpec, open_broker,
};
use crate::record::{Headers, Record};
use crate::schema::{Field, FieldType};
use crate::state::{KeyFilter, LocalState, RowQuery, StateAccess};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn open(path: &Path) -> (Arc<EmbeddedLog>, Server, OpenBroker) {
    let log = EmbeddedLog::open(path, Options::default()).unwrap();
    let server = serve(log.clone()).unwrap();
    let broker = open_broker(path, Options::default()).unwrap();
    (log, server, broker)
}

fn commit(partition: u32, records: &[Record]) -> Commit {
    let mut blocks = BlockBuilder::new();
    for record in records {
        blocks.push(record.at(0)).unwrap();
    }
    let append = Append {
        topic: "t".into(),
        partition,
        blocks,
    };
    Commit {
        appends: vec![append],
        ..Commit::default()
    }
}

#[test]
fn records_survive_the_way_through_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _server, broker) = open(dir.path());
    broker.create_topic(&TopicSpec::new("t", 2)).unwrap();
    let headers: Headers = [("h", Some(&b"\xff"[..])), ("h", None), ("", Some(&b""[..]))]
        .into_iter()
        .collect();
    let records = [
        Record {
            key: Some(Vec::new()),
            value: None,
            headers,
            timestamp_ms: -5,
        },
        Record {
            key: None,
            value: Some(vec![0xff, 0, 0x80]),
            headers: Headers::default(),
            timestamp_ms: i64::MAX,
        },
    ];
    assert_eq!(broker.commit(commit(1, &records)).unwrap().base_offsets, [0]);
    assert_eq!(broker.commit(commit(1, &records)).unwrap().base_offsets, [2]);
    let tp = TopicPartition::new("t", 1);
    let fetched = broker.fetch(&tp, 1, 1 << 20, Duration::ZERO).unwrap();
    let read: Vec<_> = fetched
        .records()
        .map(|record| (record.offset, record.to_record()))
        .collect();
    let expected = [
        (1, records[1].clone()),
        (2, records[0].clone()),
        (3, records[1].clone()),
    ];
    assert_eq!(read, expected);
    assert_eq!(fetched.next_offset(), 4);
    assert_eq!(broker.topics().unwrap(), log.topics().unwrap());
    assert_eq!(broker.topic("t").unwrap().partition_ranges[1].next_offset, 4);
    assert_eq!(broker.offset_at(&tp, Position::End).unwrap(), 4);
    assert_eq!(broker.offset_at(&tp, Position::Timestamp(0)).unwrap(), 1);
    let error = broker.fetch(&tp, 9, 1, Duration::ZERO).unwrap_err();
    assert!(matches!(error, LogError::OffsetOutOfRange { offset: 9, next: 4, .. }));
    let error = broker.create_topic(&TopicSpec::new("t", 2)).unwrap_err();
    assert_eq!(
        error,
        CommitError::Refused {
            refusal: LogError::TopicExists { topic: "t".into() }
        }
    );
    assert_eq!(
        broker.topic("no").unwrap_err(),
        LogError::UnknownTopic { topic: "no".into() }
    );
    broker.delete_topic("t").unwrap();
    assert_eq!(broker.topics().unwrap(), []);
}

#[test]
fn a_reader_waits_for_a_record_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _server, broker) = open(dir.path());
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let tp = TopicPartition::new("t", 0);
    assert!(
        broker
            .fetch(&tp, 0, 1 << 20, Duration::from_millis(20))
            .unwrap()
            .is_empty()
    );
    let since = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| broker.fetch(&tp, 0, 1 << 20, Duration::from_secs(9)).unwrap().len());
        // While it waits, another call of the same client is done.
        broker.commit(commit(0, &[Record::default()])).unwrap();
        assert_eq!(waiting.join().unwrap(), 1);
    });
    assert!(since.elapsed() < Duration::from_secs(9));
}

#[test]
fn two_members_share_partitions_and_the_slower_commit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _server, broker) = open(dir.path());
    broker.create_topic(&TopicSpec::new("t", 2)).unwrap();
    let group = "a group/with%";
    let first = broker.join(group, &["t".into()]).unwrap();
    assert_eq!(first.partitions.len(), 2);
    let second = broker.join(group, &["t".into()]).unwrap();
    assert!(second.pending);
    let offset = |partition| Commit {
        offsets: vec![GroupOffset {
            group: group.into(),
            topic: "t".into(),
            partition,
            next_offset: 0,
            metadata: String::new(),
        }],
        fence: Some(first.fence()),
        ..Commit::default()
    };
    broker.commit(offset(1)).unwrap();
    broker.poll(group, &first.member).unwrap();
    let second = broker.poll(group, &second.member).unwrap();
    assert_eq!(second.partitions, [TopicPartition::new("t", 1)]);
    let refused = broker.commit(offset(1)).unwrap_err();
    assert!(matches!(
        refused,
        CommitError::Refused {
            refusal: LogError::Fenced { partition: 1, .. }
        }
    ));
    broker.commit(offset(0)).unwrap();
    assert_eq!(broker.committed(group, &TopicPartition::new("t", 0)).unwrap(), Some(0));
    assert_eq!(broker.committed(group, &TopicPartition::new("t", 9)).unwrap(), None);
    let mut noted = offset(0);
    noted.offsets[0].metadata = "noted, with \"é\"".into();
    broker.commit(noted).unwrap();
    let described = broker.groups().unwrap().remove(0);
    assert_eq!(described.partitions[0].metadata, "noted, with \"é\"");
    // As an earlier program sends it.
    let earlier = r#"{"group":"g","topic":"t","partition":1,"next_offset":2}"#;
    assert_eq!(serde_json::from_str::<GroupOffset>(earlier).unwrap().metadata, "");
    let described = broker.groups().unwrap().remove(0);
    assert_eq!((described.group.as_str(), described.members.len()), (group, 2));
    assert!(matches!(
        broker.delete_group(group),
        Err(CommitError::Refused {
            refusal: LogError::GroupInUse { .. }
        })
    ));
    broker.leave(group, &first.member).unwrap();
    broker.leave(group, &second.member).unwrap();
    broker.delete_group(group).unwrap();
    assert_eq!(broker.groups().unwrap(), []);
}

#[test]
fn only_this_user_opens_the_socket_and_a_stale_one_is_replaced() {
    let outer = tempfile::tempdir().unwrap();
    // Longer than a socket's path may be.
    let path = outer.path().join("a".repeat(100)).join("b".repeat(100));
    let (log, server, broker) = open(&path);
    let socket = path.join("millstream.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(broker.topics().unwrap(), []);
    drop(server);
    assert!(!socket.exists());
    assert!(matches!(broker.topics(), Err(LogError::Unavailable { .. })));
    assert!(matches!(
        broker.commit(Commit::default()),
        Err(CommitError::Unavailable { .. })
    ));
    // A host that was killed leaves its socket behind.
    std::os::unix::net::UnixListener::bind(outer.path().join("s")).unwrap();
    std::fs::rename(outer.path().join("s"), &socket).unwrap();
    let server = serve(log).unwrap();
    assert_eq!(broker.topics().unwrap(), []);
    drop(server);
}

#[test]
fn nonsense_on_the_socket_is_answered_and_changes_nothing() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let (log, _server, broker) = open(dir.path());
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let good = wire::encode_commit(commit(0, &[Record::default()]));
    let mut bodies: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 0x55;
        bodies.push(changed);
    }
    bodies.push([&good[..], b"x"].concat());
    for body in bodies {
        let _ = wire::decode_commit(&body);
    }
    for text in [
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "POST /v0/commits HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc",
        "\0\0\0\0\r\n\r\n",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(dir.path().join("millstream.sock")).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{text}: {answer}");
    }
    assert_eq!(broker.topic("t").unwrap().partition_ranges[0].next_offset, 0);
}

/// A role of a store with texts as keys and values.
fn texts() -> TopicRole {
    let field = |name: &str| Field {
        name: name.into(),
        field_type: FieldType::Text,
        optional: false,
    };
    TopicRole::Changelog {
        pipeline: "p".into(),
        stage: "s".into(),
        store: Some("texts".into()),
        schemas: vec![StoreSchema {
            key: vec![field("key")],
            value: vec![field("text")],
            window_size_ms: None,
            window_grace_ms: 0,
            by: None,
            time_to_live_ms: 0,
        }],
    }
}

#[test]
fn rows_of_a_store_come_in_pieces_and_an_answer_that_was_cut_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), Options::default()).unwrap();
    let local = LocalState::beside(log.clone());
    let _server = serve_host(local.clone(), Arc::new(["p".to_owned()].to_vec().into())).unwrap();
    let broker = open_broker(dir.path(), Options::default()).unwrap();
    let spec = TopicSpec {
        role: Some(Arc::new(texts())),
        ..TopicSpec::new("t", 3)
    };
    log.create_topic(&spec).unwrap();
    // More than a piece by far; in tests an answer is cut after each.
    let row = |n: usize| Record {
        key: Some(format!("key {:05}", n / 2).into_bytes()),
        value: Some(vec![b'x'; 300]),
        headers: Headers::default(),
        timestamp_ms: n as i64,
    };
    for partition in 0..3 {
        let rows: Vec<_> = (0..3000).filter(|n| n % 3 != partition as usize).map(row).collect();
        broker.commit(commit(partition, &rows)).unwrap();
    }
    let query = RowQuery {
        changelog: "t".into(),
        keys: KeyFilter::All,
        from_ms: None,
        to_ms: None,
        after: None,
    };
    let rows = |from: &dyn StateAccess, query: &RowQuery, stop_after: usize| {
        let mut rows = Vec::new();
        let shown = from.rows(query, &mut |row| {
            rows.push((row.key.to_vec(), row.partition, row.row.to_vec()));
            rows.len() < stop_after
        });
        shown.map(|()| rows)
    };
    let all = rows(&*local, &query, usize::MAX).unwrap();
    assert!(all.is_sorted() && all.len() > 4000, "{}", all.len());
    assert!(rows(broker.state(), &query, usize::MAX).unwrap() == all);
    assert!(rows(broker.state(), &query, 7).unwrap() == all[..7]);
    let one = RowQuery {
        keys: KeyFilter::StartsWith(b"key 0070".to_vec()),
        ..query.clone()
    };
    let wanted: Vec<_> = all
        .iter()
        .filter(|row| row.0.starts_with(b"key 0070"))
        .cloned()
        .collect();
    assert!(rows(broker.state(), &one, usize::MAX).unwrap() == wanted && wanted.len() > 20);
    assert_eq!(broker.state().size("t").unwrap().rows, all.len() as u64);
    assert_eq!(broker.state().running().unwrap(), ["p"]);

    log.create_topic(&TopicSpec::new("plain", 1)).unwrap();
    for (changelog, said) in [("plain", "is no changelog"), ("none", "no topic")] {
        let changelog = changelog.into();
        let error = rows(
            broker.state(),
            &RowQuery {
                changelog,
                ..query.clone()
            },
            1,
        )
        .unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_reset_is_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _server, broker) = open(dir.path());
    for name in ["t", "internal"] {
        log.create_topic(&TopicSpec::new(name, 1)).unwrap();
    }
    broker.commit(commit(0, &[Record::default()])).unwrap();
    let offset = |topic: &str, next_offset| GroupOffset {
        group: "g".into(),
        topic: topic.into(),
        partition: 0,
        next_offset,
        metadata: String::new(),
    };
    let offsets = vec![offset("t", 1), offset("internal", 0)];
    let before = Commit {
        offsets,
        ..Commit::default()
    };
    broker.commit(before).unwrap();
    let error = broker
        .reset(vec!["internal".into(), "none".into()], vec![offset("t", 0)])
        .unwrap_err();
    assert!(error.to_string().contains("no topic \"none\""), "{error}");
    assert_eq!(log.committed("g", &TopicPartition::new("t", 0)), Ok(Some(1)));
    broker.reset(vec!["internal".into()], vec![offset("t", 0)]).unwrap();
    let after = |log: &EmbeddedLog| {
        let groups = log.groups().unwrap();
        let offsets = groups[0]
            .partitions
            .iter()
            .map(|at| (at.topic.clone(), at.committed_offset));
        (log.topics().unwrap().len(), offsets.collect::<Vec<_>>())
    };
    assert_eq!(after(&log), (1, vec![("t".to_owned(), 0)]));
    drop((broker, _server));
    log.close();
    let log = EmbeddedLog::open(dir.path(), Options::default()).unwrap();
    assert_eq!(after(&log), (1, vec![("t".to_owned(), 0)]));
}
