//! The pipelines' work as a native job does it on the same log, without any host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::connect::{Append, BlockBuilder, Commit, EmbeddedLog, GroupOffset, TopicPartition, partition_of};
use millstream::record::RecordRef;
use millstream_tests::make_topic;
use serde::{Deserialize, Serialize};

use crate::cpu_s;

/// What a native job does with each record; pushes to one of two outputs.
pub type Native = fn(&RecordRef<'_>, &mut Vec<u8>) -> Option<usize>;

#[derive(Deserialize)]
struct Amount {
    total_amount: f64,
}

/// Branches by amount.
pub fn native_branch(record: &RecordRef<'_>, _: &mut Vec<u8>) -> Option<usize> {
    let ride: Amount = serde_json::from_slice(record.value?).ok()?;
    Some(usize::from(ride.total_amount < 40.0))
}

/// A whole ride, as a native job would declare it.
#[derive(Serialize, Deserialize)]
#[expect(non_snake_case, reason = "the columns are called so")]
struct Ride<'r> {
    VendorID: i64,
    #[serde(borrow)]
    tpep_pickup_datetime: &'r str,
    tpep_dropoff_datetime: &'r str,
    passenger_count: i64,
    trip_distance: f64,
    RatecodeID: i64,
    store_and_fwd_flag: &'r str,
    PULocationID: i64,
    DOLocationID: i64,
    payment_type: i64,
    fare_amount: f64,
    extra: f64,
    mta_tax: f64,
    tip_amount: f64,
    tolls_amount: f64,
    improvement_surcharge: f64,
    total_amount: f64,
    congestion_surcharge: f64,
    #[serde(default)]
    duration_s: i64,
    #[serde(default)]
    speed_kmh: f64,
    #[serde(default)]
    tip_share: f64,
}

fn seconds_between(from: &str, to: &str) -> Option<i64> {
    let (from, to): (jiff::civil::DateTime, jiff::civil::DateTime) = (from.parse().ok()?, to.parse().ok()?);
    Some(to.duration_since(from).as_secs())
}

/// As most people write it: the whole ride in, the whole ride out.
pub fn native_enrich(record: &RecordRef<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let mut ride: Ride<'_> = serde_json::from_slice(record.value?).ok()?;
    ride.duration_s = seconds_between(ride.tpep_pickup_datetime, ride.tpep_dropoff_datetime)?;
    ride.speed_kmh = ride.trip_distance * 1.609_344 / (ride.duration_s as f64 / 3600.0);
    ride.tip_share = ride.tip_amount / ride.fare_amount;
    serde_json::to_writer(out, &ride).ok()?;
    Some(0)
}

/// What the enrichment needs of a ride.
#[derive(Deserialize)]
struct Needed<'r> {
    #[serde(borrow)]
    tpep_pickup_datetime: &'r str,
    tpep_dropoff_datetime: &'r str,
    trip_distance: f64,
    fare_amount: f64,
    tip_amount: f64,
}

/// What it adds.
#[derive(Serialize)]
struct Added {
    duration_s: i64,
    speed_kmh: f64,
    tip_share: f64,
}

/// As a careful person writes it: only what is needed is read, and what is new is put behind the members that are there.
pub fn native_splice(record: &RecordRef<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let value = record.value?;
    let ride: Needed<'_> = serde_json::from_slice(value).ok()?;
    let duration_s = seconds_between(ride.tpep_pickup_datetime, ride.tpep_dropoff_datetime)?;
    let added = Added {
        duration_s,
        speed_kmh: ride.trip_distance * 1.609_344 / (duration_s as f64 / 3600.0),
        tip_share: ride.tip_amount / ride.fare_amount,
    };
    out.extend_from_slice(value.trim_ascii_end().strip_suffix(b"}")?);
    let comma = out.len();
    serde_json::to_writer(&mut *out, &added).ok()?;
    out[comma] = b',';
    Some(0)
}

/// The loop written by hand: a thread a partition, a commit of outputs and offsets each 100 ms or 8 MB.
pub fn run_native(log: &Arc<EmbeddedLog>, group: &str, outputs: [&str; 2], partitions: u32, job: Native) -> (f64, f64) {
    for topic in outputs {
        make_topic(log, topic, partitions);
    }
    let (cpu, clock) = (cpu_s(), Instant::now());
    std::thread::scope(|scope| {
        for partition in 0..partitions {
            scope.spawn(move || native_partition(log, group, outputs, partition, partitions, job));
        }
    });
    (cpu_s() - cpu, clock.elapsed().as_secs_f64())
}

fn native_partition(log: &EmbeddedLog, group: &str, outputs: [&str; 2], partition: u32, partitions: u32, job: Native) {
    let place = TopicPartition::new("rides", partition);
    let builders = || -> Vec<Vec<BlockBuilder>> {
        outputs
            .iter()
            .map(|_| (0..partitions).map(|_| BlockBuilder::new()).collect())
            .collect()
    };
    let mut blocks = builders();
    let (mut position, mut bytes, mut since) = (0, 0, Instant::now());
    let mut value = Vec::new();
    loop {
        let fetched = log.fetch(&place, position, 1 << 20).expect("it can be read");
        let end = fetched.next_offset() == position;
        for record in fetched.records() {
            value.clear();
            let Some(output) = job(&record, &mut value) else {
                continue;
            };
            let to = partition_of(record.key.unwrap_or_default(), partitions) as usize;
            let value = if value.is_empty() {
                record.value
            } else {
                Some(&value[..])
            };
            blocks[output][to]
                .push(RecordRef { value, ..record })
                .expect("of the usual size");
            bytes += record.size_bytes();
        }
        position = fetched.next_offset();
        if end || bytes >= 8 << 20 || since.elapsed() >= Duration::from_millis(100) {
            let full = std::mem::replace(&mut blocks, builders());
            let appends = full.into_iter().zip(outputs).flat_map(|(blocks, topic)| {
                let topic: Arc<str> = topic.into();
                let filled = blocks.into_iter().enumerate().filter(|(_, blocks)| !blocks.is_empty());
                filled
                    .map(move |(partition, blocks)| Append {
                        topic: topic.clone(),
                        partition: partition as u32,
                        blocks,
                    })
                    .collect::<Vec<_>>()
            });
            let offset = GroupOffset {
                group: group.into(),
                topic: place.topic.clone(),
                partition,
                next_offset: position,
                metadata: String::new(),
            };
            log.commit(Commit {
                appends: appends.collect(),
                offsets: vec![offset],
                ..Commit::default()
            })
            .expect("it is committed");
            (bytes, since) = (0, Instant::now());
        }
        if end {
            return;
        }
    }
}
