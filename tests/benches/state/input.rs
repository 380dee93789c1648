//! What is read: rides of about 230 bytes of JSON, by keys of which some come more often than others.

use std::fmt;

use millstream::connect::{EmbeddedLog, partition_of};
use millstream::record::Record;
use millstream_tests::{append, make_topic};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// 2020-07-01.
pub const TIME_MS: i64 = 1_593_561_600_000;
const ZIPF_EXPONENT: f64 = 0.99;

/// Which keys come how often.
pub struct Keys {
    count: u64,
    /// For each key how often it or one before it comes; none where all come as often.
    cumulated: Vec<f64>,
}

impl Keys {
    pub fn uniform(count: u64) -> Keys {
        Keys {
            count,
            cumulated: Vec::new(),
        }
    }

    pub fn zipf(count: u64) -> Keys {
        let mut sum = 0.0;
        let share = |rank| {
            sum += 1.0 / f64::powf(rank as f64, ZIPF_EXPONENT);
            sum
        };
        Keys {
            count,
            cumulated: (1..=count).map(share).collect(),
        }
    }

    pub fn pick(&self, random: &mut StdRng) -> u64 {
        match self.cumulated.last() {
            None => random.random_range(0..self.count),
            Some(&sum) => {
                let at = random.random_range(0.0..sum);
                self.cumulated.partition_point(|&cumulated| cumulated <= at) as u64
            }
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.cumulated.is_empty() { "" } else { " zipf" };
        write!(f, "{}{how} keys", self.count)
    }
}

/// A ride of this key.
pub fn ride(key: u64, random: &mut StdRng) -> String {
    let minutes: f64 = random.random_range(2.0..60.0);
    let fare = 2.5 + minutes * 0.9;
    format!(
        "{{\"VendorID\":{key},\"tpep_pickup_datetime\":\"2020-07-01 00:25:32\",\"passenger_count\":1,\
         \"trip_distance\":{:.2},\"PULocationID\":{},\"DOLocationID\":{},\"payment_type\":{},\"fare_amount\":{fare:.2},\
         \"tip_amount\":{:.2},\"total_amount\":{:.2}}}",
        minutes * 0.2,
        random.random_range(1..266),
        random.random_range(1..266),
        random.random_range(1..3),
        fare * 0.2,
        fare * 1.2 + 1.3,
    )
}

/// Makes the topic `rides`: so many records, each in the partition of its key, the time of the n-th as `time_ms` says.
pub fn fill(log: &EmbeddedLog, keys: &Keys, partitions: u32, count: u64, time_ms: impl Fn(u64) -> i64) {
    fill_with(log, keys, partitions, count, |key, at, random| Record {
        value: Some(ride(key, random).into_bytes()),
        ..bare(key, time_ms(at))
    });
}

fn fill_with(
    log: &EmbeddedLog,
    keys: &Keys,
    partitions: u32,
    count: u64,
    record: impl Fn(u64, u64, &mut StdRng) -> Record,
) {
    const AT_ONCE: usize = 1000;
    make_topic(log, "rides", partitions);
    let mut random = StdRng::seed_from_u64(1);
    let mut waiting: Vec<Vec<Record>> = (0..partitions).map(|_| Vec::new()).collect();
    for at in 0..count {
        let record = record(keys.pick(&mut random), at, &mut random);
        let partition = partition_of(record.key.as_deref().unwrap_or_default(), partitions);
        let records = &mut waiting[partition as usize];
        records.push(record);
        if records.len() == AT_ONCE {
            append(log, "rides", partition, &std::mem::take(records));
        }
    }
    for (partition, records) in (0..).zip(waiting) {
        append(log, "rides", partition, &records);
    }
}

/// As [`fill`], with records that have a key and next to no value.
pub fn fill_bare(log: &EmbeddedLog, keys: &Keys, partitions: u32, count: u64, time_ms: impl Fn(u64) -> i64) {
    fill_with(log, keys, partitions, count, |key, at, _| bare(key, time_ms(at)));
}

/// A record of a key and next to no value.
pub fn bare(key: u64, timestamp_ms: i64) -> Record {
    Record {
        key: Some(key.to_string().into_bytes()),
        value: Some(b"{}".to_vec()),
        timestamp_ms,
        ..Record::default()
    }
}
