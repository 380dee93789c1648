//! Events that pipelines of all kinds of state work on, and what comes of them when nobody disturbs them: the tests that
//! kill hosts and brokers hold against that what came of it when they were disturbed.

mod outcome;

pub use outcome::{Outcome, assert_kept, assert_same, changelogs, outcome};

use std::path::{Path, PathBuf};

use millstream::connect::{Append, BlockBuilder, Broker, Commit, TopicSpec};
use millstream::record::Record;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::plugin;

/// Of the topic of events.
pub const PARTITIONS: u32 = 3;
const RECORDS_PER_PARTITION: i64 = 4000;
/// So that a task takes some hundred records at a time, and commits often.
const FILLING_BYTES: usize = 2000;
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

/// Writes all events to a topic that is made for them.
///
/// # Panics
/// If they cannot be committed.
pub fn write_events(broker: &dyn Broker, seed: u64) {
    broker
        .create_topic(&TopicSpec::new("events", PARTITIONS))
        .expect("a new topic");
    let mut random = StdRng::seed_from_u64(seed);
    for partition in 0..PARTITIONS {
        for chunk in events(&mut random, partition).chunks(90) {
            let mut blocks = BlockBuilder::new();
            for record in chunk {
                blocks.push(record.at(0)).expect("a record of the usual size");
            }
            let append = Append {
                topic: "events".into(),
                partition,
                blocks,
            };
            let commit = Commit {
                appends: vec![append],
                ..Commit::default()
            };
            broker.commit(commit).expect("the events are committed");
        }
    }
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
