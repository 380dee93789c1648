//! The loops written by hand: a thread a partition, a hash map of counts, and a commit each 100 ms or 8 MB that has the
//! results, a changelog record for each key that changed, and the offset.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::connect::{Append, BlockBuilder, Commit, EmbeddedLog, GroupOffset, TopicPartition, partition_of};
use millstream::record::RecordRef;
use serde::{Deserialize, Serialize};

/// What is done with records.
pub trait Job: Default {
    /// With each.
    fn take(&mut self, record: &RecordRef<'_>, out: &mut Written);

    /// After each batch of at most a thousand.
    fn batch_is_over(&mut self, _: &mut Written) {}

    /// What has to be written before a commit.
    fn commit(&mut self, out: &mut Written);
}

/// What waits for the commit.
pub struct Written {
    results: Vec<BlockBuilder>,
    changes: BlockBuilder,
    value: Vec<u8>,
    /// As far as it is known before the commit.
    bytes: usize,
}

impl Written {
    fn new(partitions: u32) -> Written {
        Written {
            results: (0..partitions).map(|_| BlockBuilder::new()).collect(),
            changes: BlockBuilder::new(),
            value: Vec::new(),
            bytes: 0,
        }
    }

    fn result(&mut self, key: &[u8], timestamp_ms: i64, value: &impl Serialize) {
        self.value.clear();
        serde_json::to_writer(&mut self.value, value).expect("it can be written");
        let record = record(key, &self.value, timestamp_ms);
        self.bytes += record.size_bytes();
        let to = if self.results.len() == 1 {
            0
        } else {
            partition_of(key, self.results.len() as u32)
        };
        self.results[to as usize].push(record).expect("of the usual size");
    }

    fn change(&mut self, key: &[u8], count: i64, timestamp_ms: i64) {
        self.changes
            .push(record(key, &count.to_le_bytes(), timestamp_ms))
            .expect("of the usual size");
    }
}

fn record<'a>(key: &'a [u8], value: &'a [u8], timestamp_ms: i64) -> RecordRef<'a> {
    RecordRef {
        key: Some(key),
        value: Some(value),
        headers: Default::default(),
        timestamp_ms,
        offset: 0,
    }
}

/// A count, as it is kept.
#[derive(Default)]
struct Count {
    count: i64,
    timestamp_ms: i64,
    changed: bool,
}

impl Count {
    /// Counts a record; whether it is the first since the last commit.
    fn add(&mut self, record: &RecordRef<'_>) -> bool {
        self.count += 1;
        self.timestamp_ms = self.timestamp_ms.max(record.timestamp_ms);
        !std::mem::replace(&mut self.changed, true)
    }
}

/// The bytes of a change, as they count for the size of a commit.
const CHANGE_BYTES: usize = 24;

/// Counts by a number in the value; a result for each record.
#[derive(Default)]
pub struct CountByField {
    counts: HashMap<i64, Count>,
    changed: Vec<i64>,
}

#[derive(Deserialize)]
struct Ride {
    #[serde(rename = "VendorID")]
    vendor: i64,
}

#[derive(Serialize)]
struct Counted {
    vendor: i64,
    count: i64,
}

impl Job for CountByField {
    fn take(&mut self, record: &RecordRef<'_>, out: &mut Written) {
        let Some(Ride { vendor }) = record.value.and_then(|value| serde_json::from_slice(value).ok()) else {
            return;
        };
        let count = self.counts.entry(vendor).or_default();
        if count.add(record) {
            self.changed.push(vendor);
            out.bytes += CHANGE_BYTES;
        }
        let count = count.count;
        out.result(
            record.key.unwrap_or_default(),
            record.timestamp_ms,
            &Counted { vendor, count },
        );
    }

    fn commit(&mut self, out: &mut Written) {
        for vendor in self.changed.drain(..) {
            let count = self.counts.get_mut(&vendor).expect("it was counted");
            count.changed = false;
            out.change(&vendor.to_be_bytes(), count.count, count.timestamp_ms);
        }
    }
}

/// Counts by the record's key; a result for each key that changed since the last commit.
#[derive(Default)]
pub struct CountByKey {
    counts: HashMap<Vec<u8>, Count>,
    changed: Vec<Vec<u8>>,
}

#[derive(Serialize)]
struct CountedOnly {
    count: i64,
}

impl Job for CountByKey {
    fn take(&mut self, record: &RecordRef<'_>, out: &mut Written) {
        let Some(key) = record.key else { return };
        let is_first = match self.counts.get_mut(key) {
            Some(count) => count.add(record),
            None => self.counts.entry(key.to_vec()).or_default().add(record),
        };
        if is_first {
            self.changed.push(key.to_vec());
            out.bytes += CHANGE_BYTES;
        }
    }

    fn commit(&mut self, out: &mut Written) {
        for key in self.changed.drain(..) {
            let count = self.counts.get_mut(&key).expect("it was counted");
            count.changed = false;
            out.change(&key, count.count, count.timestamp_ms);
            out.result(&key, count.timestamp_ms, &CountedOnly { count: count.count });
        }
    }
}

const MINUTE_MS: i64 = 60_000;

/// Counts by the record's key and its minute; a result for each when the minute is over.
#[derive(Default)]
pub struct CountByMinute {
    minutes: BTreeMap<i64, HashMap<Vec<u8>, Count>>,
    changed: Vec<(i64, Vec<u8>)>,
    now_ms: i64,
    /// Minutes before this are closed; they go with the commit.
    closed_ms: i64,
    group: Vec<u8>,
}

#[derive(Serialize)]
struct CountedInMinute<'a> {
    count: i64,
    window_start: &'a str,
    window_end: &'a str,
}

fn time(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).expect("a time");
    time.to_string()
}

impl Job for CountByMinute {
    fn take(&mut self, record: &RecordRef<'_>, out: &mut Written) {
        let Some(key) = record.key else { return };
        self.now_ms = self.now_ms.max(record.timestamp_ms);
        let minute = record.timestamp_ms - record.timestamp_ms.rem_euclid(MINUTE_MS);
        if minute + MINUTE_MS <= self.now_ms {
            return;
        }
        let counts = self.minutes.entry(minute).or_default();
        let is_first = match counts.get_mut(key) {
            Some(count) => count.add(record),
            None => counts.entry(key.to_vec()).or_default().add(record),
        };
        if is_first {
            self.changed.push((minute, key.to_vec()));
            out.bytes += CHANGE_BYTES + 8;
        }
    }

    fn batch_is_over(&mut self, out: &mut Written) {
        let closed_ms = self.now_ms - self.now_ms.rem_euclid(MINUTE_MS);
        for (&minute, counts) in self.minutes.range(self.closed_ms..closed_ms) {
            let (window_start, window_end) = (time(minute), time(minute + MINUTE_MS));
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_unstable_by_key(|(key, _)| *key);
            for (key, count) in counts {
                let counted = CountedInMinute {
                    count: count.count,
                    window_start: &window_start,
                    window_end: &window_end,
                };
                out.result(key, count.timestamp_ms, &counted);
            }
        }
        self.closed_ms = self.closed_ms.max(closed_ms);
    }

    fn commit(&mut self, out: &mut Written) {
        for (minute, key) in self.changed.drain(..) {
            let counts = self.minutes.get_mut(&minute).expect("it stays until the commit");
            let count = counts.get_mut(&key).expect("it was counted");
            count.changed = false;
            self.group.clear();
            self.group.extend_from_slice(&minute.to_be_bytes());
            self.group.extend_from_slice(&key);
            out.change(&self.group, count.count, count.timestamp_ms);
        }
        self.minutes = self.minutes.split_off(&self.closed_ms);
    }
}

/// Runs a job to the end of `rides`, a thread for each partition.
pub fn run<J: Job>(log: &Arc<EmbeddedLog>, group: &str, results: &str, changelog: &str, partitions: u32) {
    std::thread::scope(|scope| {
        for partition in 0..partitions {
            scope.spawn(move || run_partition::<J>(log, group, results, changelog, partition, partitions));
        }
    });
}

fn run_partition<J: Job>(
    log: &EmbeddedLog,
    group: &str,
    results: &str,
    changelog: &str,
    partition: u32,
    partitions: u32,
) {
    let place = TopicPartition::new("rides", partition);
    let mut job = J::default();
    let mut out = Written::new(partitions);
    let (mut position, mut since) = (0, Instant::now());
    loop {
        let fetched = log.fetch(&place, position, 1 << 20).expect("it can be read");
        let end = fetched.next_offset() == position;
        for (at, record) in fetched.records().enumerate() {
            job.take(&record, &mut out);
            if at % 1000 == 999 {
                job.batch_is_over(&mut out);
            }
        }
        job.batch_is_over(&mut out);
        position = fetched.next_offset();
        if end || out.bytes >= 8 << 20 || since.elapsed() >= Duration::from_millis(100) {
            job.commit(&mut out);
            let Written {
                results: blocks,
                changes,
                ..
            } = std::mem::replace(&mut out, Written::new(partitions));
            let append = |topic: &str, partition, blocks| Append {
                topic: topic.into(),
                partition,
                blocks,
            };
            let filled = (0..).zip(blocks).filter(|(_, blocks)| !blocks.is_empty());
            let mut appends: Vec<_> = filled.map(|(to, blocks)| append(results, to, blocks)).collect();
            if !changes.is_empty() {
                appends.push(append(changelog, partition, changes));
            }
            let offset = GroupOffset {
                group: group.into(),
                topic: place.topic.clone(),
                partition,
                next_offset: position,
                metadata: String::new(),
            };
            log.commit(Commit {
                appends,
                offsets: vec![offset],
                ..Commit::default()
            })
            .expect("it is committed");
            since = Instant::now();
        }
        if end {
            return;
        }
    }
}
