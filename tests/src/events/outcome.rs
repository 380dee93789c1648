//! What is there in the end, as far as it must be the same.

use std::collections::BTreeMap;

use millstream::connect::{EngineLog, TopicPartition};
use millstream::record::Record;
use millstream::state::Changelog;
use serde_json::Value;

use super::PARTITIONS;
use crate::stores::{Rows, changelog_rows};
use crate::{header, records_of};

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

/// A store: its changelog, the part of a row that depends on when calls were made, and the stage and length of windows.
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
pub struct Outcome {
    /// By topic and partition, in the order of where they come from.
    pub topics: BTreeMap<String, Vec<Record>>,
    lasts: BTreeMap<String, BTreeMap<(Vec<u8>, String), Value>>,
    /// By store and partition.
    pub rows: BTreeMap<String, Rows>,
    offsets: BTreeMap<String, Committed>,
}

/// Where a group goes on, and what it noted beside that. Of internal topics the first is none, as it depends on the engine.
type Committed = (Option<u64>, String);

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

/// What is there.
///
/// # Panics
/// If it cannot be read.
pub fn outcome(log: &dyn EngineLog, changelogs: &dyn Changelog) -> Outcome {
    let mut topics = BTreeMap::new();
    for topic in EXACT {
        for (partition, mut records) in records_of(log, topic).into_iter().enumerate() {
            records.sort_by_key(source_partition);
            topics.insert(format!("{topic}-{partition}"), records);
        }
    }
    for topic in BAGS {
        for (partition, mut records) in records_of(log, topic).into_iter().enumerate() {
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
        .map(|topic| ((*topic).to_owned(), lasts(topic, &records_of(log, topic).concat())));
    let mut found = Outcome {
        topics,
        lasts: lasts.collect(),
        rows: BTreeMap::new(),
        offsets: offsets(log),
    };
    for store in &STORES {
        let partitions = log.topic(store.changelog).expect("a changelog").spec.partitions;
        for partition in 0..partitions {
            let rows = changelog_rows(changelogs, &TopicPartition::new(store.changelog, partition));
            let rows = found.counting(store, partition, rows);
            found.rows.insert(format!("{}-{partition}", store.changelog), rows);
        }
    }
    found
}

/// The changelogs of the stores.
pub fn changelogs() -> [&'static str; STORES.len()] {
    STORES.map(|store| store.changelog)
}

/// Holds what local stores have against the changelogs: of each of [`changelogs`] by partition.
///
/// # Panics
/// If they differ.
pub fn assert_kept(found: &Outcome, local: Vec<Vec<Rows>>) {
    for (store, rows) in STORES.iter().zip(local) {
        for (partition, rows) in rows.into_iter().enumerate() {
            let name = format!("{}-{partition}", store.changelog);
            let rows = found.counting(store, partition as u32, rows);
            assert!(
                rows == found.rows[&name],
                "{name}: the state is what the changelog says"
            );
        }
    }
}

/// Where the groups go on, with the time that their stages have come to.
fn offsets(log: &dyn EngineLog) -> BTreeMap<String, Committed> {
    let repartitions = ["zones-zones-repartition", "zones-windows-repartition"];
    let places = [("ours", "events", PARTITIONS), ("zones", "events", PARTITIONS)]
        .into_iter()
        .chain(repartitions.map(|topic| ("zones", topic, 2)));
    let of_place = |(group, topic, partitions): (&str, &str, u32)| {
        let offset = |partition| {
            let committed = log.committed_with_metadata(group, &TopicPartition::new(topic, partition));
            let (offset, notes) = committed.expect("the log answers").unwrap_or_default();
            let is_own = topic.ends_with("-repartition");
            (
                format!("{group} {topic}-{partition}"),
                ((!is_own).then_some(offset), notes),
            )
        };
        (0..partitions).map(offset).collect::<Vec<_>>()
    };
    places.flat_map(of_place).collect()
}

impl Outcome {
    /// The rows that count: of windows that are open, without what depends on calls.
    fn counting(&self, store: &Kept, partition: u32, mut rows: Rows) -> Rows {
        let group = store.changelog.split('-').next().expect("a name");
        let stream_time = |stage: &str| {
            let place = match group {
                "ours" => format!("ours events-{partition}"),
                _ => format!("zones zones-{stage}-repartition-{partition}"),
            };
            let (_, notes) = &self.offsets[&place];
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
        rows.retain(|key, row| {
            first_open.is_none_or(|first_open| start_of(key) > first_open)
                && time_to_live.is_none_or(|time_to_live| time_of(row) > time_to_live)
        });
        if store.timed_by_calls {
            rows.values_mut().for_each(|row| drop(row.drain(1..9)));
        }
        rows
    }
}

/// Holds one against another.
///
/// # Panics
/// If they differ: where.
pub fn assert_same(found: &Outcome, expected: &Outcome) {
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
