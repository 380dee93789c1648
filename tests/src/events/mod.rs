//! Events that pipelines of all kinds of state work on, and what comes of them when nobody disturbs them: the tests that
//! kill hosts and brokers hold against that what came of it when they were disturbed.

mod outcome;

pub use outcome::{Outcome, assert_kept, assert_same, changelogs, outcome};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millstream::connect::{Append, BlockBuilder, Broker, Commit, CommitError, Position, TopicPartition, TopicSpec};
use millstream::record::Record;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::plugin;
use crate::running::PATIENCE;

/// Of the topic of events.
pub const PARTITIONS: u32 = 3;
const RECORDS_PER_PARTITION: i64 = 4000;
/// So that a task takes some hundred records at a time, and commits often.
const FILLING_BYTES: usize = 2000;
/// Events that are written at a time.
const CHUNK: usize = 90;
/// From one record to the next of its partition, on the whole.
const STEP_MS: i64 = 250;
const BEGIN_MS: i64 = 1_600_000_000_000;
const KEYS: u32 = 200;
const ZONES: u32 = 20;
/// What a store of a disturbed run keeps in memory, and flushes.
pub const STORE_BYTES: &str = "20000";

/// A number from the environment.
///
/// # Panics
/// Where it is none.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |value| value.parse().expect("a number"))
}

/// Events of all kinds: most are fine and some seconds out of order; some are much too late, have no key or no zone, are
/// no JSON, or have text for a number.
fn events(random: &mut StdRng, partition: u32) -> Vec<Record> {
    let event = |n: i64| {
        let k = random.random_range(0..KEYS);
        let zone = match random.random_range(0..40) {
            0 => "null".to_owned(),
            _ => format!("\"z{}\"", random.random_range(0..ZONES)),
        };
        // Sums of quarters do not depend on their order.
        let number = match random.random_range(0..400) {
            0 => "\"a lot\"".to_owned(),
            _ => format!("{}", f64::from(random.random_range(0..400)) / 4.0),
        };
        let id = random.random_range(0..600);
        let value = format!(
            "{{\"k\":{},\"zone\":{zone},\"v\":{number},\"id\":\"{id}\",\"p\":{partition},\"n\":{n},\"f\":\"{}\"}}",
            partition * 1000 + k,
            "f".repeat(FILLING_BYTES)
        );
        let late = match random.random_range(0..100) {
            0 => random.random_range(0..600_000),
            _ => random.random_range(0..15_000),
        };
        let end = if random.random_range(0..400) == 0 {
            value.len() - 1
        } else {
            value.len()
        };
        Record {
            key: random
                .random_bool(0.97)
                .then(|| format!("{partition}-{k}").into_bytes()),
            value: Some(value.as_bytes()[..end].to_vec()),
            headers: [("p", Some(partition.to_string().as_bytes()))].into_iter().collect(),
            timestamp_ms: BEGIN_MS + n * STEP_MS - late,
        }
    };
    (0..RECORDS_PER_PARTITION).map(event).collect()
}

/// Makes the topic of events.
///
/// # Panics
/// If it is there already.
pub fn make_events_topic(broker: &dyn Broker) {
    let spec = TopicSpec::new("events", PARTITIONS);
    broker.create_topic(&spec).expect("a new topic");
}

/// Writes all events, a piece of each partition at a time, and calls `then` behind each with the part of all that is there.
/// Where the log does not take some, it is tried again.
///
/// # Panics
/// If they cannot be committed for a long time.
pub fn write_events(broker: &dyn Broker, seed: u64, mut then: impl FnMut(f64)) {
    let mut random = StdRng::seed_from_u64(seed);
    let partitions: Vec<Vec<Record>> = (0..PARTITIONS)
        .map(|partition| events(&mut random, partition))
        .collect();
    for at in (0..RECORDS_PER_PARTITION as usize).step_by(CHUNK) {
        for (partition, records) in (0..).zip(&partitions) {
            let end = (at + CHUNK).min(records.len());
            let until = Instant::now() + PATIENCE;
            while let Err(error) = write_up_to(broker, partition, records, end) {
                assert!(Instant::now() < until, "the events are not taken: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        then((at + CHUNK) as f64 / RECORDS_PER_PARTITION as f64);
    }
}

/// Writes those before `end` that are not there: nobody else writes, so the offset of each is its number.
fn write_up_to(broker: &dyn Broker, partition: u32, records: &[Record], end: usize) -> Result<(), CommitError> {
    let place = TopicPartition::new("events", partition);
    let there = broker.offset_at(&place, Position::End)? as usize;
    let mut blocks = BlockBuilder::new();
    for record in &records[there.min(end)..end] {
        blocks.push(record.at(0)).expect("a record of the usual size");
    }
    let append = Append {
        topic: place.topic,
        partition,
        blocks,
    };
    let commit = Commit {
        appends: vec![append],
        ..Commit::default()
    };
    broker.commit(commit).map(drop)
}

/// The files of the pipelines, written to a folder; `head` goes before all else in each.
///
/// # Panics
/// If they cannot be written.
pub fn pipelines(dir: &Path, head: &str) -> Vec<PathBuf> {
    let stage = |name: &str, of: &str, rest: &str| format!("[stage.{name}]\nplugin = {:?}\n{rest}\n", plugin(of));
    let ours = [
        stage(
            "vendors",
            "count-by-vendor",
            "input = \"events\"\nconfig = { field = \"/k\" }\nto.counted = \"vendors\"",
        ),
        stage(
            "sums",
            "statistics",
            "input = \"events\"\nconfig = { field = \"/v\" }\nemit = \"every-update\"\nto.statistics = \"sums\"",
        ),
        stage(
            "minutes",
            "count",
            "input = \"events\"\nwindow = { tumbling = \"1m\", grace = \"5s\" }\nemit = \"close\"\n\
             to = { counted = \"minutes\", late = \"minutes-late\", unkeyed = \"no-key\" }",
        ),
        stage(
            "hops",
            "statistics",
            "input = \"events\"\nconfig = { field = \"/v\" }\nemit = \"every-update\"\n\
             window = { hopping = \"1m\", advance = \"20s\", grace = \"5s\", offset = \"7s\" }\n\
             to = { statistics = \"hops\", late = false, unkeyed = false }",
        ),
        stage(
            "now",
            "count",
            "input = \"events\"\nwindow = \"1m\"\nto = { counted = \"now\", late = false, unkeyed = false }",
        ),
        stage(
            "once",
            "deduplicate",
            "input = \"events\"\nconfig = { id = \"/id\", time_to_live = \"1m\" }\n\
             to = { first = \"first\", repeated = \"repeated\" }",
        ),
    ];
    let by_zone = [
        stage(
            "zones",
            "count",
            "input = \"events\"\nkey = \"zone\"\npartitions = 2\nto.counted = \"zones\"",
        ),
        stage(
            "windows",
            "count",
            "input = \"events\"\nkey = \"zone\"\npartitions = 2\nwindow = { tumbling = \"1m\", grace = \"2h\" }\n\
             emit = \"close\"\nto = { late = false, unkeyed = false }",
        ),
        stage(
            "split",
            "branch-by-amount",
            "input = \"windows.counted\"\nconfig = { field = \"/count\", threshold = 30 }\n\
             to = { high = \"busy\", low = \"calm\" }",
        ),
    ];
    let file = |name: &str, interval: &str, stages: String| {
        let file = dir.join(format!("{name}.toml"));
        let rest = format!("[source.events]\n[commit]\ninterval = \"{interval}\"\n[state]\nmemory = \"1MiB\"\n");
        std::fs::write(&file, format!("name = \"{name}\"\n{head}{rest}{stages}"))
            .expect("the pipeline file is written");
        file
    };
    vec![
        file("ours", "5ms", ours.concat()),
        file("zones", "7ms", by_zone.concat()),
    ]
}
