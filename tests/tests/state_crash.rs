//! Promise: whenever the process is killed, what stages keep is in the end what a run kept that nobody disturbed: rows,
//! changelogs, how far time has come, and every result that does not depend on when commits were made, record for record.
//!
//! The disturbed runs have so little memory that rows are flushed and evicted all the time; the undisturbed one keeps
//! everything in memory. 12 kills here; `MILLSTREAM_CRASHES=100` asks for more. The seed is printed; `MILLSTREAM_SEED`
//! sets it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use millstream::connect::{EmbeddedLog, TopicPartition};
use millstream::crash::{LOG_CRASH_POINTS, STATE_CRASH_POINTS, STORE_CRASH_POINTS};
use millstream::record::Record;
use millstream_tests::stores::{Rows, changelog_rows, committed_rows};
use millstream_tests::{Guarded, append, header, make_topic, millstream, open, plugin, read_topic};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const PARTITIONS: u32 = 3;
const RECORDS_PER_PARTITION: i64 = 4000;
/// So that a task takes some hundred records at a time, and commits often.
const FILLING_BYTES: usize = 2000;
/// From one record to the next of its partition, on the whole.
const STEP_MS: i64 = 250;
const BEGIN_MS: i64 = 1_600_000_000_000;
const KEYS: u32 = 200;
const ZONES: u32 = 20;
/// What a store of a disturbed run keeps in memory, and flushes.
const STORE_BYTES: &str = "20000";

fn setting(name: &str, default: u64) -> u64 {
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

fn prepare(dir: &Path, seed: u64) -> Vec<PathBuf> {
    let log = open(dir);
    make_topic(&log, "events", PARTITIONS);
    let mut random = StdRng::seed_from_u64(seed);
    for partition in 0..PARTITIONS {
        for chunk in events(&mut random, partition).chunks(90) {
            append(&log, "events", partition, chunk);
        }
    }
    log.close();
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
        std::fs::write(&file, format!("name = \"{name}\"\n{rest}{stages}")).expect("the pipeline file is written");
        file
    };
    vec![
        file("ours", "5ms", ours.concat()),
        file("zones", "7ms", by_zone.concat()),
    ]
}

fn run(dir: &Path, files: &[PathBuf], close: bool) -> std::process::Command {
    let mut command = millstream(["run", "--until-end", "--workers", "2", "--data"]);
    command.arg(dir).args(close.then_some("--close-windows")).args(files);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Topics that have the same records in the same order, as far as they come from one partition.
const EXACT: [&str; 9] = [
    "vendors",
    "sums",
    "minutes",
    "minutes-late",
    "no-key",
    "hops",
    "first",
    "repeated",
    "ours-dlq",
];
/// Topics that have the same records; in which order depends on how partitions meet.
const BAGS: [&str; 3] = ["busy", "calm", "zones-dlq"];
/// Topics of which the last record of a key and window counts.
const LASTS: [&str; 2] = ["now", "zones"];

/// The stores: changelog, the part of a row that depends on when calls were made, and the stage and length of windows.
struct Kept {
    changelog: &'static str,
    /// The time in a processor's row is that of a call.
    timed_by_calls: bool,
    window: Option<(&'static str, i64)>,
}

const fn kept(changelog: &'static str, timed_by_calls: bool, window: Option<(&'static str, i64)>) -> Kept {
    Kept {
        changelog,
        timed_by_calls,
        window,
    }
}

const STORES: [Kept; 8] = [
    kept("ours-vendors-counts-changelog", true, None),
    kept("ours-sums-changelog", false, None),
    kept("ours-minutes-changelog", false, Some(("minutes", 65_000))),
    kept("ours-hops-changelog", false, Some(("hops", 65_000))),
    kept("ours-now-changelog", false, Some(("now", 60_000))),
    kept("ours-once-seen-changelog", false, None),
    kept("zones-zones-changelog", false, None),
    kept("zones-windows-changelog", false, Some(("windows", 7_260_000))),
];

/// What must be equal.
#[derive(PartialEq)]
struct Outcome {
    topics: BTreeMap<String, Vec<Record>>,
    lasts: BTreeMap<String, BTreeMap<(Vec<u8>, String), Value>>,
    /// By store and partition.
    rows: BTreeMap<String, Rows>,
    offsets: BTreeMap<String, Option<(u64, String)>>,
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("none".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Where a record comes from: its header says it, or its key.
fn source_partition(record: &Record) -> String {
    let of_key = || {
        text(record.key.as_deref())
            .split('-')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    header(record, "p").map_or_else(of_key, str::to_owned)
}

/// The last result of each key and window; the count of none goes back.
fn lasts(topic: &str, records: &[Record]) -> BTreeMap<(Vec<u8>, String), Value> {
    let mut lasts = BTreeMap::new();
    for record in records {
        let value: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        let key = (record.key.clone().expect("a key"), value["window_start"].to_string());
        let before = lasts.insert(key, value.clone());
        let count = |value: &Value| value["count"].as_i64().expect("a count");
        if let Some(before) = before.filter(|before| count(before) >= count(&value)) {
            panic!("{topic}: {value} after {before}");
        }
    }
    lasts
}

fn outcome(dir: &Path) -> Outcome {
    let log = open(dir);
    let mut topics = BTreeMap::new();
    for topic in EXACT {
        for (partition, mut records) in read_topic(&log, topic).into_iter().enumerate() {
            records.sort_by_key(source_partition);
            topics.insert(format!("{topic}-{partition}"), records);
        }
    }
    for topic in BAGS {
        for (partition, mut records) in read_topic(&log, topic).into_iter().enumerate() {
            let of_repartition = |record: &Record| header(record, "__streams.errors.offset").map(str::to_owned);
            records.sort_by_key(|r| {
                (
                    source_partition(r),
                    of_repartition(r),
                    r.timestamp_ms,
                    r.key.clone(),
                    r.value.clone(),
                )
            });
            topics.insert(format!("{topic}-{partition}"), records);
        }
    }
    let lasts = LASTS
        .iter()
        .map(|topic| ((*topic).to_owned(), lasts(topic, &read_topic(&log, topic).concat())));
    let mut found = Outcome {
        topics,
        lasts: lasts.collect(),
        rows: BTreeMap::new(),
        offsets: offsets(&log),
    };
    let changelogs = STORES.map(|store| store.changelog);
    for (store, rows) in STORES.iter().zip(committed_rows(dir, &log, &changelogs)) {
        let changelog = changelog_rows(&log, store.changelog);
        for (partition, (rows, changelog)) in rows.into_iter().zip(changelog).enumerate() {
            let name = format!("{}-{partition}", store.changelog);
            let rows = counting(store, &found.offsets, partition, rows);
            let changelog = counting(store, &found.offsets, partition, changelog);
            assert!(rows == changelog, "{name}: the state is what the changelog says");
            found.rows.insert(name, rows);
        }
    }
    log.close();
    found
}

/// Where the groups go on, with the time that their stages have come to.
fn offsets(log: &EmbeddedLog) -> BTreeMap<String, Option<(u64, String)>> {
    let repartitions = ["zones-zones-repartition", "zones-windows-repartition"];
    let places = [("ours", "events", PARTITIONS), ("zones", "events", PARTITIONS)]
        .into_iter()
        .chain(repartitions.map(|topic| ("zones", topic, 2)));
    let of_place = |(group, topic, partitions): (&str, &str, u32)| {
        let offset = |partition| {
            let committed = log.committed_with_metadata(group, &TopicPartition::new(topic, partition));
            (
                format!("{group} {topic}-{partition}"),
                committed.expect("the log answers"),
            )
        };
        (0..partitions).map(offset).collect::<Vec<_>>()
    };
    places.flat_map(of_place).collect()
}

/// The rows that count: of windows that are open, without what depends on calls.
fn counting(store: &Kept, offsets: &BTreeMap<String, Option<(u64, String)>>, partition: usize, rows: Rows) -> Rows {
    let group = store.changelog.split('-').next().expect("a name");
    let stream_time = |stage: &str| {
        let place = match group {
            "ours" => format!("ours events-{partition}"),
            _ => format!("zones zones-{stage}-repartition-{partition}"),
        };
        let (_, notes) = offsets[&place].as_ref().expect("it was read");
        let notes: Value = serde_json::from_str(notes).expect("JSON");
        notes[stage]
            .as_i64()
            .unwrap_or_else(|| panic!("{stage} of {place} in {notes}"))
    };
    let first_open = store.window.map(|(stage, length)| stream_time(stage) - length);
    let time_to_live = store
        .changelog
        .starts_with("ours-once")
        .then(|| stream_time("once") - 60_000);
    let time_of = |row: &[u8]| i64::from_le_bytes(*row[1..].first_chunk().expect("a row has a time"));
    let start_of = |key: &[u8]| (u64::from_be_bytes(*key.first_chunk().expect("a start")) ^ (1 << 63)) as i64;
    let mut rows = rows;
    rows.retain(|key, row| {
        first_open.is_none_or(|first_open| start_of(key) > first_open)
            && time_to_live.is_none_or(|time_to_live| time_of(row) > time_to_live)
    });
    if store.timed_by_calls {
        rows.values_mut().for_each(|row| drop(row.drain(1..9)));
    }
    rows
}

fn assert_same(found: &Outcome, expected: &Outcome) {
    assert_eq!(found.offsets, expected.offsets, "the groups' offsets");
    assert!(found.topics.keys().eq(expected.topics.keys()));
    for ((topic, found), expected) in found.topics.iter().zip(expected.topics.values()) {
        if let Some(at) = (0..found.len().min(expected.len())).find(|&at| found[at] != expected[at]) {
            let show = |record: &Record| {
                let headers: Vec<_> = record
                    .headers
                    .as_ref()
                    .iter()
                    .map(|(name, value)| format!("{name}={}", text(value)))
                    .collect();
                format!(
                    "{} {} {} {headers:?}",
                    text(record.key.as_deref()),
                    record.timestamp_ms,
                    text(record.value.as_deref())
                )
            };
            let around = |records: &[Record]| records[at..].iter().take(3).map(show).collect::<Vec<_>>().join("\n");
            panic!(
                "{topic}, record {at} of {} and {}:\n{}\ninstead of\n{}",
                found.len(),
                expected.len(),
                around(found),
                around(expected)
            );
        }
        assert_eq!(found.len(), expected.len(), "records in {topic}");
    }
    for (topic, found) in &found.lasts {
        assert!(*found == expected.lasts[topic], "the last results in {topic}");
    }
    for (store, found) in &found.rows {
        let expected = &expected.rows[store];
        let differs = found.iter().find(|(key, row)| expected.get(*key) != Some(row));
        assert!(
            differs.is_none(),
            "{store}: {differs:?}, of {} and {}",
            found.len(),
            expected.len()
        );
        assert_eq!(found.len(), expected.len(), "rows in {store}");
    }
}

/// Kills runs, by name and by time, until so many are dead.
struct Storm {
    random: StdRng,
    points: Vec<&'static str>,
    kills: u64,
    killed: u64,
    by_point: BTreeMap<&'static str, u64>,
    length: Duration,
}

impl Storm {
    fn point(&mut self) -> &'static str {
        if self.points.is_empty() {
            self.points = LOG_CRASH_POINTS[..3].to_vec();
            self.points.extend(STATE_CRASH_POINTS);
            self.points.extend(STORE_CRASH_POINTS);
            self.points.shuffle(&mut self.random);
        }
        self.points.pop().expect("it was filled")
    }

    /// Runs until a run survives; that is sure once there are no kills left.
    fn run(&mut self, dir: &Path, files: &[PathBuf], close: bool, kills_here: u64) {
        let last = (self.killed + kills_here).min(self.kills);
        loop {
            let mut command = run(dir, files, close);
            command.env("MILLSTREAM_STORE_BYTES", STORE_BYTES).stderr(Stdio::null());
            let kill = self.killed < last;
            let point = (kill && self.random.random_bool(0.6)).then(|| self.point());
            if let Some(point) = point {
                let nth = self.random.random_range(1..10);
                command.env("MILLSTREAM_CRASH_AT", format!("{point}:{nth}"));
            }
            let mut child = Guarded(command.spawn().expect("the program starts"));
            if kill && point.is_none() {
                let end = Instant::now() + self.length.mul_f64(self.random.random_range(0.1..0.9));
                while Instant::now() < end && child.0.try_wait().expect("the child can be asked").is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // It may have ended by itself.
                let _ = child.0.kill();
            }
            let status = child.0.wait().expect("the child ends");
            if status.signal() == Some(9) {
                self.killed += 1;
                if let Some(point) = point {
                    *self.by_point.entry(point).or_default() += 1;
                }
                continue;
            }
            assert!(status.success(), "ended with {status}, not by a kill");
            break;
        }
    }
}

#[test]
fn killed_at_any_moment_what_is_kept_ends_as_if_undisturbed() {
    let seed = setting("MILLSTREAM_SEED", rand::random::<u32>().into());
    let kills = setting("MILLSTREAM_CRASHES", 12);
    println!("MILLSTREAM_SEED={seed} MILLSTREAM_CRASHES={kills}");

    let calm = tempfile::tempdir().expect("a folder");
    let files = prepare(calm.path(), seed);
    let began = Instant::now();
    let mut expected = Vec::new();
    for close in [false, true] {
        let output = run(calm.path(), &files, close).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        expected.push(outcome(calm.path()));
    }
    let length = began.elapsed();
    for (topic, records) in &expected[1].topics {
        assert!(
            !records.is_empty() || topic.starts_with("no-key"),
            "{topic} has records"
        );
    }
    assert!(
        expected[0].rows.values().all(|rows| !rows.is_empty()),
        "each store has rows"
    );

    let mut storm = Storm {
        random: StdRng::seed_from_u64(seed ^ 0x5eed),
        points: Vec::new(),
        kills,
        killed: 0,
        by_point: BTreeMap::new(),
        length,
    };
    while storm.killed < kills {
        let stormy = tempfile::tempdir().expect("a folder");
        let files = prepare(stormy.path(), seed);
        for (close, expected) in [false, true].into_iter().zip(&expected) {
            storm.run(stormy.path(), &files, close, 8);
            assert_same(&outcome(stormy.path()), expected);
        }
    }
    println!("{} kills, of them at named points {:?}", storm.killed, storm.by_point);
}
