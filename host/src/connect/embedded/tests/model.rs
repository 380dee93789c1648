//! Random operations against a plain model in memory, with restarts and crashes in between.

use super::damage::image;
use super::*;
use crate::connect::TopicRole;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    KeepsAll,
    Retention,
    /// What group `n0` has passed goes.
    Purged,
}

#[derive(Clone, Debug)]
enum Operation {
    Create {
        topic: u8,
        partitions: u32,
        kind: Kind,
    },
    Delete {
        topic: u8,
    },
    Commit {
        appends: Vec<(u8, u32, Vec<u16>)>,
        /// Group, topic, partition, and how much of a hundred it has passed.
        offsets: Vec<(u8, u8, u32, u64)>,
    },
    DeleteGroup {
        group: u8,
    },
    Fetch {
        topic: u8,
        partition: u32,
        from: u64,
        bytes_max: usize,
    },
    Reopen,
    Crash,
}

fn operation() -> impl Strategy<Value = Operation> {
    let append = (0u8..3, 0u32..3, proptest::collection::vec(0u16..2000, 0..5));
    let offset = (0u8..2, 0u8..3, 0u32..3, 0u64..120);
    let kind = prop_oneof![Just(Kind::KeepsAll), Just(Kind::Retention), Just(Kind::Purged)];
    prop_oneof![
        2 => (0u8..3, 1u32..4, kind).prop_map(|(topic, partitions, kind)| Operation::Create { topic, partitions, kind }),
        1 => (0u8..3).prop_map(|topic| Operation::Delete { topic }),
        12 => (proptest::collection::vec(append, 0..4), proptest::collection::vec(offset, 0..3))
            .prop_map(|(appends, offsets)| Operation::Commit { appends, offsets }),
        1 => (0u8..2).prop_map(|group| Operation::DeleteGroup { group }),
        4 => (0u8..3, 0u32..3, 0u64..40, 0usize..5000)
            .prop_map(|(topic, partition, from, bytes_max)| Operation::Fetch { topic, partition, from, bytes_max }),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Crash),
    ]
}

const RETENTION_BYTES: u64 = 4000;

#[derive(Default)]
struct Model {
    topics: BTreeMap<u8, ModelTopic>,
    offsets: BTreeMap<(u8, u8, u32), u64>,
    written: u64,
}

struct ModelTopic {
    kind: Kind,
    partitions: Vec<ModelPartition>,
}

#[derive(Clone, Default)]
struct ModelPartition {
    records: Vec<Record>,
    first: u64,
    /// The most that group `n0` ever committed.
    passed: u64,
}

impl Model {
    fn record(&mut self, bytes: u16) -> Record {
        self.written += 1;
        let n = self.written;
        Record {
            key: (!n.is_multiple_of(3)).then(|| n.to_le_bytes().to_vec()),
            value: (!n.is_multiple_of(5)).then(|| vec![n as u8; bytes.into()]),
            headers: n.is_multiple_of(4).then_some(("n", None)).into_iter().collect(),
            timestamp_ms: n as i64 * 7 % 100,
        }
    }

    fn partition(&mut self, topic: u8, partition: u32) -> Option<&mut ModelPartition> {
        self.topics.get_mut(&topic)?.partitions.get_mut(partition as usize)
    }

    fn commit(&mut self, log: &EmbeddedLog, appends: &[(u8, u32, Vec<u16>)], offsets: &[(u8, u8, u32, u64)]) {
        let mut commit = Commit::default();
        let mut records = Vec::new();
        for (topic, partition, sizes) in appends {
            let made: Vec<_> = sizes.iter().map(|bytes| self.record(*bytes)).collect();
            let mut blocks = BlockBuilder::new();
            made.iter().for_each(|record| blocks.push(record.at(0)).unwrap());
            commit.appends.push(Append {
                topic: name(*topic).into(),
                partition: *partition,
                blocks,
            });
            records.push(made);
        }
        let mut moved = Vec::new();
        for (group, topic, partition, share) in offsets {
            let next = self
                .partition(*topic, *partition)
                .map_or(0, |model| model.records.len() as u64);
            let next_offset = next * share / 100;
            moved.push(((*group, *topic, *partition), next_offset));
            commit.offsets.push(GroupOffset {
                group: name(*group).into(),
                topic: name(*topic).into(),
                partition: *partition,
                next_offset,
                metadata: "m".repeat(next_offset as usize % 5),
            });
        }
        let mut places = appends
            .iter()
            .map(|a| (a.0, a.1))
            .chain(offsets.iter().map(|o| (o.1, o.2)));
        let there = places.all(|(topic, partition)| self.partition(topic, partition).is_some());
        match log.commit(commit) {
            Ok(committed) => {
                assert!(there);
                for (((topic, partition, _), made), base) in appends.iter().zip(records).zip(committed.base_offsets) {
                    let model = self.partition(*topic, *partition).unwrap();
                    assert_eq!(base, model.records.len() as u64);
                    model.records.extend(made);
                }
                for ((group, topic, partition), next_offset) in moved {
                    self.offsets.insert((group, topic, partition), next_offset);
                    if group == 0 {
                        let model = self.partition(topic, partition).unwrap();
                        model.passed = model.passed.max(next_offset);
                    }
                }
            }
            Err(CommitError::Refused { .. }) => assert!(!there),
            Err(error) => panic!("{error}"),
        }
    }

    /// All that can be asked of the log is as here.
    fn check(&mut self, log: &EmbeddedLog) {
        // Retention runs behind the commit that made it due, and before the next.
        log.commit(Commit::default()).unwrap();
        let described = log.topics().unwrap();
        let names: Vec<_> = described.iter().map(|topic| topic.spec.name.clone()).collect();
        assert_eq!(names, self.topics.keys().map(|topic| name(*topic)).collect::<Vec<_>>());
        for (description, (number, topic)) in described.iter().zip(&mut self.topics) {
            assert_eq!(description.partition_ranges.len(), topic.partitions.len());
            let mut bytes = 0;
            for (partition, (range, model)) in description
                .partition_ranges
                .iter()
                .zip(&mut topic.partitions)
                .enumerate()
            {
                let tp = TopicPartition::new(name(*number), partition as u32);
                assert_eq!(range.next_offset, model.records.len() as u64);
                assert!(range.first_offset >= model.first, "the first offset went back");
                match topic.kind {
                    Kind::KeepsAll => assert_eq!(range.first_offset, 0),
                    Kind::Retention => {}
                    Kind::Purged => assert!(range.first_offset <= model.passed, "an unread record is gone"),
                }
                model.first = range.first_offset;
                bytes += range.bytes.expect("the log knows its bytes");
                let mut from = range.first_offset;
                while from < range.next_offset {
                    let fetched = log.fetch(&tp, from, 3000).unwrap();
                    for record in fetched.records() {
                        assert_eq!(record, model.records[record.offset as usize].at(record.offset));
                        assert_eq!(record.offset, from);
                        from += 1;
                    }
                    assert_eq!(fetched.next_offset(), from);
                }
                let latest = model.records[model.first as usize..]
                    .iter()
                    .position(|r| r.timestamp_ms >= 90);
                let expected = latest.map_or(range.next_offset, |at| at as u64 + model.first);
                assert_eq!(log.offset_at(&tp, Position::Timestamp(90)), Ok(expected));
            }
            if topic.kind == Kind::Retention {
                // Three parts in two of what is to be kept, and one commit.
                assert!(bytes < 2 * RETENTION_BYTES + 40_000, "{bytes}");
            }
        }
        for (number, topic) in self.topics.iter().filter(|(_, topic)| topic.kind == Kind::Purged) {
            let partitions = topic.partitions.len() as u32;
            let passed: Vec<_> = (0..partitions)
                .map(|p| self.offsets.get(&(0, *number, p)).copied().unwrap_or(0))
                .collect();
            assert!(oldest_is_needed(log, &name(*number), &passed), "read records are kept");
        }
        let groups = log.groups().unwrap();
        let mut stored = BTreeMap::new();
        for group in &groups {
            for partition in &group.partitions {
                let key = (number(&group.group), number(&partition.topic), partition.partition);
                stored.insert(key, partition.committed_offset);
            }
        }
        assert_eq!(stored, self.offsets);
        for ((group, topic, partition), offset) in &self.offsets {
            let tp = TopicPartition::new(name(*topic), *partition);
            let metadata = "m".repeat(*offset as usize % 5);
            let stored = log.committed_with_metadata(&name(*group), &tp);
            assert_eq!(stored, Ok(Some((*offset, metadata))));
        }
    }
}

/// Whether the oldest generation is the active one, or has a record that was not passed.
fn oldest_is_needed(log: &EmbeddedLog, topic: &str, passed: &[u64]) -> bool {
    let ask = |engine: &Engine| {
        let topic = engine.topic(topic)?;
        let generations = topic.generations.read().unwrap();
        let [oldest, next, ..] = &generations[..] else {
            return Ok(true);
        };
        let mut ends = oldest.bases.iter().zip(&next.bases).zip(passed);
        Ok(ends.any(|((base, end), passed)| base.next_offset < end.next_offset && *passed < end.next_offset))
    };
    log.shared.with_engine(ask).unwrap()
}

fn name(number: u8) -> String {
    format!("n{number}")
}

fn number(name: &str) -> u8 {
    name[1..].parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_log_does_as_the_model(operations in proptest::collection::vec(operation(), 1..40)) {
        let mut dir = tempfile::tempdir().unwrap();
        let options = Options { generation_bytes_max: 3000, ..small() };
        let mut log = EmbeddedLog::open(dir.path(), options.clone()).unwrap();
        let mut model = Model::default();
        for operation in operations {
            match operation {
                Operation::Create { topic, partitions, kind } => {
                    let mut spec = TopicSpec::new(name(topic), partitions);
                    spec.retention_bytes = (kind == Kind::Retention).then_some(RETENTION_BYTES);
                    let role = || TopicRole::Repartition { pipeline: "n0".into(), stage: "s".into() };
                    spec.role = (kind == Kind::Purged).then(|| Arc::new(role()));
                    let outcome = log.create_topic(&spec);
                    prop_assert_eq!(outcome.is_ok(), !model.topics.contains_key(&topic));
                    model.topics.entry(topic).or_insert(ModelTopic {
                        kind,
                        partitions: vec![ModelPartition::default(); partitions as usize],
                    });
                }
                Operation::Delete { topic } => {
                    prop_assert_eq!(log.delete_topic(&name(topic)).is_ok(), model.topics.remove(&topic).is_some());
                    model.offsets.retain(|key, _| key.1 != topic);
                }
                Operation::Commit { appends, offsets } => model.commit(&log, &appends, &offsets),
                Operation::DeleteGroup { group } => {
                    let known = model.offsets.keys().any(|key| key.0 == group);
                    prop_assert_eq!(log.delete_group(&name(group)).is_ok(), known);
                    model.offsets.retain(|key, _| key.0 != group);
                }
                Operation::Fetch { topic, partition, from, bytes_max } => {
                    let fetched = log.fetch(&TopicPartition::new(name(topic), partition), from, bytes_max);
                    match (fetched, model.partition(topic, partition)) {
                        (Err(LogError::UnknownTopic { .. } | LogError::UnknownPartition { .. }), None) => {}
                        (Err(LogError::OffsetOutOfRange { first, next, .. }), Some(model)) => {
                            prop_assert!(from < first || from > next);
                            prop_assert_eq!(next, model.records.len() as u64);
                        }
                        (Ok(fetched), Some(model)) => {
                            prop_assert_eq!(fetched.is_empty(), from == model.records.len() as u64);
                            for (record, offset) in fetched.records().zip(from..) {
                                prop_assert_eq!(record, model.records[offset as usize].at(offset));
                            }
                        }
                        (fetched, _) => prop_assert!(false, "{:?}", fetched.map(|f| f.len())),
                    }
                }
                Operation::Reopen => {
                    log.close();
                    drop(log);
                    log = EmbeddedLog::open(dir.path(), options.clone()).unwrap();
                }
                Operation::Crash => {
                    let killed = image(&log);
                    drop(log);
                    dir = killed;
                    log = EmbeddedLog::open(dir.path(), options.clone()).unwrap();
                }
            }
            model.check(&log);
        }
    }
}
