//! Promise: a cluster is asked like the embedded log, and answers like it; what goes wrong has a name, and an end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::connect::kafka::{ClusterSettings, KafkaLog};
use millstream::connect::{
    Append, BlockBuilder, Broker, Commit, CommitError, EngineLog, GroupOffset, LogError, Position, TopicPartition,
    TopicRole, TopicSettings, TopicSpec,
};
use millstream::record::Record;
use millstream_tests::kafka;

fn open(test: &str) -> Option<(Arc<kafka::Broker>, Arc<KafkaLog>)> {
    let broker = kafka::shared(test)?;
    let log = kafka::log_of(&broker.bootstrap());
    Some((broker, log))
}

fn unique(name: &str) -> String {
    format!("{name}-{:08x}", rand::random::<u32>())
}

fn append(topic: &str, partition: u32, values: &[&str]) -> Append {
    let mut blocks = BlockBuilder::new();
    for value in values {
        let record = Record {
            key: Some(b"k".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            timestamp_ms: 1_000 * (value.len() as i64),
            ..Record::default()
        };
        blocks.push(record.at(0)).expect("a small record");
    }
    Append {
        topic: topic.into(),
        partition,
        blocks,
    }
}

fn write(log: &KafkaLog, topic: &str, partition: u32, values: &[&str]) -> u64 {
    let commit = Commit {
        appends: vec![append(topic, partition, values)],
        ..Commit::default()
    };
    log.commit(commit).expect("written").base_offsets[0]
}

fn read(log: &KafkaLog, tp: &TopicPartition, from: u64) -> (Vec<String>, u64) {
    let fetched = log.fetch(tp, from, 1 << 20, Duration::ZERO).expect("read");
    let text = |value: Option<&[u8]>| String::from_utf8(value.expect("a value").to_vec()).expect("text");
    let values = fetched.records().map(|record| text(record.value)).collect();
    (values, fetched.next_offset())
}

fn offset(group: &str, tp: &TopicPartition, next_offset: u64, metadata: &str) -> GroupOffset {
    GroupOffset {
        group: group.into(),
        topic: tp.topic.clone(),
        partition: tp.partition,
        next_offset,
        metadata: metadata.into(),
    }
}

#[test]
fn topics_are_made_described_and_dropped() {
    let Some((_broker, log)) = open("topics_are_made_described_and_dropped") else {
        return;
    };
    let name = unique("kl-topics");
    assert_eq!(log.topic(&name), Err(LogError::UnknownTopic { topic: name.clone() }));
    let spec = TopicSpec {
        retention_ms: Some(3_600_000),
        ..TopicSpec::new(&name, 3)
    };
    let settings = TopicSettings {
        replication: Some(1),
        properties: [("segment.bytes".to_owned(), "1048576".to_owned())].into(),
    };
    log.make_topic(&spec, &settings).expect("a new topic");
    let made = log.topic(&name).expect("it is there at once");
    assert_eq!((made.spec, made.settings), (spec.clone(), settings));
    assert_eq!(made.partition_ranges.len(), 3);
    let exists = CommitError::Refused {
        refusal: LogError::TopicExists { topic: name.clone() },
    };
    assert_eq!(log.create_topic(&spec), Err(exists));
    write(&log, &name, 1, &["a", "bb"]);
    let listed = log.topics().expect("all topics");
    let listed = listed.iter().find(|topic| topic.spec.name == name).expect("listed");
    assert_eq!(
        (
            listed.partition_ranges[1].first_offset,
            listed.partition_ranges[1].next_offset
        ),
        (0, 2)
    );
    let strange = TopicSettings {
        replication: None,
        properties: [("retention.mss".to_owned(), "1".to_owned())].into(),
    };
    let refused = log.make_topic(&TopicSpec::new(unique("kl-strange"), 1), &strange);
    let refused = refused.expect_err("no such setting").to_string();
    assert!(refused.contains("retention.mss"), "{refused}");
    let many = TopicSettings {
        replication: Some(77),
        ..TopicSettings::default()
    };
    let refused = log.make_topic(&TopicSpec::new(unique("kl-many"), 1), &many);
    assert!(
        matches!(
            &refused,
            Err(CommitError::Refused {
                refusal: LogError::InvalidTopic { .. }
            })
        ),
        "{refused:?}"
    );
    log.delete_topic(&name).expect("dropped");
    assert_eq!(log.topic(&name), Err(LogError::UnknownTopic { topic: name.clone() }));
    assert_eq!(
        log.delete_topic(&name),
        Err(CommitError::Refused {
            refusal: LogError::UnknownTopic { topic: name }
        })
    );
}

#[test]
fn a_topic_of_a_pipeline_is_known_as_one_until_it_is_gone() {
    let Some((_broker, log)) = open("a_topic_of_a_pipeline_is_known_as_one_until_it_is_gone") else {
        return;
    };
    let name = unique("kl-internal");
    let role = Arc::new(TopicRole::Repartition {
        pipeline: "kl".into(),
        stage: "s".into(),
    });
    let spec = TopicSpec {
        role: Some(role.clone()),
        ..TopicSpec::new(&name, 2)
    };
    log.create_topic(&spec).expect("a new topic");
    let there = log.topic(&name).expect("described");
    assert_eq!(there.spec.role, Some(role));
    assert_eq!(there.spec.retention_ms, None, "{there:?}");
    let changelog = TopicRole::Changelog {
        pipeline: "kl".into(),
        stage: "s".into(),
        store: None,
        schemas: Vec::new(),
    };
    log.set_topic_role(&name, changelog.clone()).expect("said anew");
    assert_eq!(
        log.topic(&name).expect("described").spec.role.as_deref(),
        Some(&changelog)
    );
    let tp = TopicPartition::new(&*name, 0);
    let group = unique("kl-reset");
    let other = unique("kl-source");
    log.create_topic(&TopicSpec::new(&other, 1)).expect("a new topic");
    let source = TopicPartition::new(&*other, 0);
    log.reset(vec![name.clone()], vec![offset(&group, &source, 0, "")])
        .expect("begun anew");
    assert!(matches!(log.topic(&name), Err(LogError::UnknownTopic { .. })));
    assert!(!log.catalog().roles().expect("the catalog").contains_key(&name));
    assert_eq!(log.committed(&group, &source), Ok(Some(0)));
    assert!(log.fetch(&tp, 0, 100, Duration::ZERO).is_err());
    log.delete_group(&group).expect("forgotten");
    log.delete_topic(&other).expect("dropped");
}

#[test]
fn records_are_found_by_place_and_waited_for() {
    let Some((_broker, log)) = open("records_are_found_by_place_and_waited_for") else {
        return;
    };
    let name = unique("kl-reads");
    log.create_topic(&TopicSpec::new(&name, 2)).expect("a new topic");
    let tp = TopicPartition::new(&*name, 1);
    assert_eq!(read(&log, &tp, 0), (Vec::new(), 0));
    assert_eq!(write(&log, &name, 1, &["a", "bb", "ccc"]), 0);
    assert_eq!(write(&log, &name, 1, &["dddd"]), 3);
    let fetched = log.fetch(&tp, 0, 1 << 20, Duration::from_secs(5)).expect("read");
    assert!(!fetched.is_empty());
    let (values, next) = read(&log, &tp, 2);
    assert_eq!((values, next), (vec!["ccc".to_owned(), "dddd".to_owned()], 4));
    for (position, offset) in [
        (Position::Start, 0),
        (Position::End, 4),
        (Position::Offset(2), 2),
        (Position::Offset(77), 4),
        (Position::Timestamp(-5), 0),
        (Position::Timestamp(2_500), 2),
        (Position::Timestamp(9_000), 4),
    ] {
        assert_eq!(log.offset_at(&tp, position), Ok(offset), "{position:?}");
    }
    assert_eq!(
        log.offset_at(&TopicPartition::new(&*name, 7), Position::End),
        Err(LogError::UnknownPartition {
            topic: name.clone(),
            partition: 7,
            partitions: 2
        })
    );
    assert!(matches!(
        log.fetch(&tp, 5, 100, Duration::ZERO),
        Err(LogError::OffsetOutOfRange { next: 4, .. })
    ));
    // Nothing there: the wait is kept to; something comes: it is there at once.
    let began = Instant::now();
    assert!(
        log.fetch(&tp, 4, 100, Duration::from_millis(300))
            .expect("read")
            .is_empty()
    );
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_millis(290) && waited < Duration::from_secs(3),
        "{waited:?}"
    );
    let reading = std::thread::spawn({
        let (log, tp) = (log.clone(), tp.clone());
        move || log.fetch(&tp, 4, 100, Duration::from_secs(20)).expect("read").len()
    });
    write(&log, &name, 1, &["e"]);
    let began = Instant::now();
    assert_eq!(reading.join().expect("no panic"), 1);
    assert!(began.elapsed() < Duration::from_secs(5));
    log.delete_topic(&name).expect("dropped");
}

#[test]
fn a_commit_of_records_and_offsets_is_one_transaction() {
    let Some((_broker, log)) = open("a_commit_of_records_and_offsets_is_one_transaction") else {
        return;
    };
    let name = unique("kl-together");
    log.create_topic(&TopicSpec::new(&name, 1)).expect("a new topic");
    let (tp, group) = (TopicPartition::new(&*name, 0), unique("kl-group"));
    let commit = Commit {
        appends: vec![append(&name, 0, &["a", "b"])],
        offsets: vec![offset(&group, &tp, 1, "noted")],
        ..Commit::default()
    };
    assert_eq!(log.commit(commit).expect("committed").base_offsets, [0]);
    assert_eq!(
        log.committed_with_metadata(&group, &tp),
        Ok(Some((1, "noted".to_owned())))
    );
    // Behind the records lies the marker of the transaction, which the brokers write when they have said that it is
    // committed: it is waited for, and passed.
    let end = Instant::now() + Duration::from_secs(10);
    while log.offset_at(&tp, Position::End) != Ok(3) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(read(&log, &tp, 0), (vec!["a".to_owned(), "b".to_owned()], 3));
    log.commit(Commit {
        offsets: vec![offset(&group, &tp, 3, "")],
        ..Commit::default()
    })
    .expect("set");
    let groups = log.groups().expect("all groups");
    let described = groups
        .iter()
        .find(|described| described.group == group)
        .expect("listed");
    let partition = &described.partitions[0];
    assert_eq!(
        (partition.committed_offset, partition.next_offset, partition.lag),
        (3, 3, 0)
    );
    assert!(described.members.is_empty() && partition.member.is_none());
    log.delete_group(&group).expect("forgotten");
    assert_eq!(
        log.delete_group(&group),
        Err(CommitError::Refused {
            refusal: LogError::UnknownGroup { group: group.clone() }
        })
    );
    assert_eq!(log.committed(&group, &tp), Ok(None));
    log.delete_topic(&name).expect("dropped");
}

#[test]
fn members_share_the_partitions_of_a_group() {
    let Some((_broker, log)) = open("members_share_the_partitions_of_a_group") else {
        return;
    };
    let (name, group) = (unique("kl-members"), unique("kl-group"));
    log.create_topic(&TopicSpec::new(&name, 2)).expect("a new topic");
    write(&log, &name, 0, &["a"]);
    let topics = [Arc::from(&*name)];
    let first = log.join(&group, &topics).expect("a member");
    assert_eq!((first.partitions.len(), first.pending), (2, false));
    let second = std::thread::spawn({
        let (log, group, topics) = (log.clone(), group.clone(), topics.clone());
        move || log.join(&group, &topics).expect("a member")
    });
    let end = Instant::now() + Duration::from_secs(20);
    let shared = loop {
        let polled = log.poll(&group, &first.member).expect("alive");
        if polled.partitions.len() == 1 {
            break polled;
        }
        assert!(Instant::now() < end, "{polled:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let second = second.join().expect("no panic");
    assert_eq!(second.partitions.len(), 1);
    assert_ne!(second.partitions, shared.partitions);
    // What is another's is not committed; what is its own is.
    let commit = |assignment: &millstream::connect::Assignment, tp: &TopicPartition| Commit {
        offsets: vec![offset(&group, tp, 1, "")],
        fence: Some(assignment.fence()),
        ..Commit::default()
    };
    assert!(matches!(
        log.commit(commit(&shared, &second.partitions[0])),
        Err(CommitError::Refused {
            refusal: LogError::Fenced { .. }
        })
    ));
    log.commit(commit(&shared, &shared.partitions[0])).expect("its own");
    assert_eq!(log.committed(&group, &shared.partitions[0]), Ok(Some(1)));
    let in_use = |outcome: Result<(), CommitError>| {
        let refusal = matches!(
            &outcome,
            Err(CommitError::Refused {
                refusal: LogError::GroupInUse { members: 2, .. }
            })
        );
        assert!(refusal, "{outcome:?}");
    };
    in_use(log.delete_group(&group));
    in_use(log.reset(Vec::new(), vec![offset(&group, &shared.partitions[0], 0, "")]));
    let set = Commit {
        offsets: vec![offset(&group, &shared.partitions[0], 0, "")],
        ..Commit::default()
    };
    in_use(log.commit(set).map(|_| ()));
    let groups = log.groups().expect("all groups");
    let described = groups
        .iter()
        .find(|described| described.group == group)
        .expect("listed");
    assert_eq!(described.members.len(), 2);
    assert!(described.partitions[0].member.is_some(), "{described:?}");
    for member in [&first.member, &second.member] {
        log.leave(&group, member).expect("gone");
    }
    log.delete_group(&group).expect("nobody is left");
    log.delete_topic(&name).expect("dropped");
}

#[test]
fn what_cannot_be_reached_or_understood_is_said_soon() {
    let settings = |bootstrap: &str, properties: &[(&str, &str)]| ClusterSettings {
        bootstrap: bootstrap.into(),
        properties: properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    for (settings, said) in [
        (settings("127.0.0.1:1", &[]), "127.0.0.1:1"),
        (
            settings("127.0.0.1:1", &[("sasl.usrname", "x")]),
            "did you mean `sasl.username`?",
        ),
        (settings("127.0.0.1:1", &[("linger.ms", "soon")]), "linger.ms"),
        (
            settings(
                "127.0.0.1:1",
                &[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "GSSAPI")],
            ),
            "GSSAPI",
        ),
    ] {
        let began = Instant::now();
        let error = KafkaLog::open(settings.clone())
            .err()
            .expect("nothing is there")
            .to_string();
        println!("{error}");
        assert!(error.contains(said), "{error}");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
}
