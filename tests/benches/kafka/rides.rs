//! The records that all sides read: rides of 207 bytes of JSON, the same in every run.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Bytes of a ride's value.
pub const RIDE_BYTES: usize = 207;
/// Event time of the first ride: 2020-07-01 00:00 UTC.
const FIRST_MS: i64 = 1_593_561_600_000;
/// Rides of a minute of event time.
pub const RIDES_PER_MINUTE: u64 = 5_000;

/// The rides of one topic.
pub struct Rides {
    random: StdRng,
    keys: u64,
    count: u64,
    text: String,
}

impl Rides {
    /// With so many keys, uniform.
    pub fn new(keys: u64) -> Rides {
        Rides {
            random: StdRng::seed_from_u64(keys),
            keys,
            count: 0,
            text: String::new(),
        }
    }

    /// The next ride: key, value, and event time in milliseconds.
    pub fn next(&mut self) -> (String, &str, i64) {
        use std::fmt::Write;
        let key = self.random.random_range(0..self.keys);
        let minute = self.count / RIDES_PER_MINUTE;
        let second = self.count % RIDES_PER_MINUTE * 60 / RIDES_PER_MINUTE;
        self.count += 1;
        // One ride in four costs 40 and more.
        let cents = if self.random.random_range(0..4u32) == 0 {
            4_000 + self.random.random_range(0..5_999u32)
        } else {
            400 + self.random.random_range(0..3_599u32)
        };
        let (whole, part) = (cents / 100, cents % 100);
        self.text.clear();
        write!(
            self.text,
            "{{\"VendorID\":{},\"tpep_pickup_datetime\":\"2020-07-{:02} {:02}:{:02}:{second:02}\",\"passenger_count\":{},\
             \"trip_distance\":{}.{:02},\"PULocationID\":{key},\"payment_type\":{},\"tip_amount\":{}.5,\
             \"total_amount\":{whole}.{part:02},\"note\":\"",
            1 + key % 2,
            1 + minute / 1_440 % 31,
            minute / 60 % 24,
            minute % 60,
            1 + self.random.random_range(0..5u32),
            self.random.random_range(0..20u32),
            self.random.random_range(0..100u32),
            1 + self.random.random_range(0..2u32),
            self.random.random_range(0..9u32),
        )
        .expect("a string takes all");
        while self.text.len() < RIDE_BYTES - 2 {
            self.text.push('.');
        }
        self.text.push_str("\"}");
        let time_ms = FIRST_MS + i64::try_from(minute * 60_000 + second * 1_000).expect("a time");
        (key.to_string(), &self.text, time_ms)
    }
}

/// Writes rides to a topic, in the partitions of their keys as Java clients would have them.
///
/// # Panics
/// If the broker does not take them.
pub fn fill(bootstrap: &str, topic: &str, keys: u64, count: u64) {
    let producer = producer(bootstrap);
    let mut rides = Rides::new(keys);
    for _ in 0..count {
        let (key, value, time_ms) = rides.next();
        send(
            &producer,
            BaseRecord::to(topic).key(&key).payload(value).timestamp(time_ms),
        );
    }
    producer.flush(Duration::from_secs(60)).expect("all are delivered");
}

/// A producer that keys as Java clients do.
///
/// # Panics
/// If librdkafka does not take its settings.
pub fn producer(bootstrap: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "100000")
        .set("linger.ms", "2");
    config.create().expect("a producer")
}

/// Hands a record over, as soon as there is room.
///
/// # Panics
/// If it is refused for another reason.
pub fn send(producer: &BaseProducer, mut record: BaseRecord<'_, String, str>) {
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                record = refused;
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
}
