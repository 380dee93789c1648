//! The jobs at librdkafka's floor: its C interface alone, batches of records of one partition in and out, one transaction
//! every 100 ms, no report for a record that was delivered.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::slice;
use std::time::{Duration, Instant};

use rdkafka::bindings as c;
use rdkafka::bindings::rd_kafka_vtype_t as Type;
use rdkafka::types::RDKafkaRespErr;

use super::as_written::Amount;
use super::jobs::{COMMIT_INTERVAL, Job, JobArgs, MINUTE_MS, THRESHOLD};

/// Messages of one call into librdkafka.
const BATCH_MAX: usize = 1_000;

type Message = *mut c::rd_kafka_message_t;

/// Runs until it is killed.
pub fn run(args: &JobArgs) {
    let producer = Client::new(
        c::rd_kafka_type_t::RD_KAFKA_PRODUCER,
        &[
            ("bootstrap.servers", &args.bootstrap),
            ("transactional.id", &args.group),
            ("queue.buffering.max.messages", "500000"),
            ("linger.ms", "5"),
        ],
    );
    let consumer = Client::new(
        c::rd_kafka_type_t::RD_KAFKA_CONSUMER,
        &[
            ("bootstrap.servers", &args.bootstrap),
            ("group.id", &args.group),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
            ("fetch.queue.backoff.ms", "5"),
        ],
    );
    producer.check(|client| unsafe { c::rd_kafka_init_transactions(client, 20_000) });
    consumer.subscribe(&args.input);
    // SAFETY: the client lives until the process ends.
    let queue = unsafe { c::rd_kafka_queue_get_consumer(consumer.0) };
    let mut work = Work::new(args, &producer);
    let mut messages: [Message; BATCH_MAX] = [ptr::null_mut(); BATCH_MAX];
    let mut next: HashMap<i32, i64> = HashMap::new();
    let mut began: Option<Instant> = None;
    loop {
        let wait = began.map_or(COMMIT_INTERVAL, |began| COMMIT_INTERVAL.saturating_sub(began.elapsed()));
        let count = take(queue, &mut messages, wait);
        let batch = &messages[..count];
        if count > 0 && began.is_none() {
            producer.check(|client| unsafe { c::rd_kafka_begin_transaction(client) });
            began = Some(Instant::now());
        }
        for run in batch.chunk_by(|a, b| partition(*a) == partition(*b)) {
            work.process(run);
        }
        for &message in batch {
            // SAFETY: a message is valid until it is destroyed, here and once.
            unsafe {
                assert_eq!(
                    (*message).err,
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
                    "it can be read"
                );
                next.insert((*message).partition, (*message).offset + 1);
                c::rd_kafka_message_destroy(message);
            }
        }
        if began.is_some_and(|began| began.elapsed() >= COMMIT_INTERVAL) {
            work.finish();
            commit(&producer, &consumer, &args.input, &next);
            next.clear();
            began = None;
        }
    }
}

/// Waits for one, and takes what else is there.
fn take(queue: *mut c::rd_kafka_queue_t, messages: &mut [Message], wait: Duration) -> usize {
    let wait_ms = i32::try_from(wait.as_millis()).expect("a short time");
    // SAFETY: the array has as many places as are named.
    unsafe {
        let first = c::rd_kafka_consume_batch_queue(queue, wait_ms, messages.as_mut_ptr(), 1);
        if first < 1 {
            return 0;
        }
        let rest = &mut messages[1..];
        let more = c::rd_kafka_consume_batch_queue(queue, 0, rest.as_mut_ptr(), rest.len());
        1 + usize::try_from(more).unwrap_or(0)
    }
}

fn partition(message: Message) -> i32 {
    // SAFETY: it is not destroyed yet.
    unsafe { (*message).partition }
}

/// # Safety
/// The message lives as long as what is returned.
unsafe fn parts<'m>(message: Message) -> (&'m [u8], &'m [u8], i64) {
    // SAFETY: librdkafka's pointers and lengths belong together; rides have key and value.
    unsafe {
        let record = &*message;
        let mut kind = c::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        (
            slice::from_raw_parts(record.key.cast(), record.key_len),
            slice::from_raw_parts(record.payload.cast(), record.len),
            c::rd_kafka_message_timestamp(message, &mut kind),
        )
    }
}

/// A topic that is written.
struct Out<'p> {
    producer: &'p Client,
    topic: *mut c::rd_kafka_topic_t,
}

impl<'p> Out<'p> {
    fn new(producer: &'p Client, name: &str) -> Out<'p> {
        let name = CString::new(name).expect("a topic's name");
        // SAFETY: the client lives, the name is a C string, no configuration is the default one.
        let topic = unsafe { c::rd_kafka_topic_new(producer.0, name.as_ptr(), ptr::null_mut()) };
        Out { producer, topic }
    }

    fn send(&self, partition: i32, key: &[u8], value: &[u8], timestamp_ms: i64) {
        type Of = c::rd_kafka_vu_s__bindgen_ty_1;
        let unit = |vtype, u| c::rd_kafka_vu_t { vtype, u };
        let bytes = |part: &[u8]| Of {
            mem: c::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: part.as_ptr().cast_mut().cast::<c_void>(),
                size: part.len(),
            },
        };
        let units = [
            unit(Type::RD_KAFKA_VTYPE_RKT, Of { rkt: self.topic }),
            unit(Type::RD_KAFKA_VTYPE_PARTITION, Of { i32_: partition }),
            unit(
                Type::RD_KAFKA_VTYPE_MSGFLAGS,
                Of {
                    i: c::RD_KAFKA_MSG_F_COPY | c::RD_KAFKA_MSG_F_BLOCK,
                },
            ),
            unit(Type::RD_KAFKA_VTYPE_KEY, bytes(key)),
            unit(Type::RD_KAFKA_VTYPE_VALUE, bytes(value)),
            unit(Type::RD_KAFKA_VTYPE_TIMESTAMP, Of { i64_: timestamp_ms }),
        ];
        self.producer
            .check(|client| unsafe { c::rd_kafka_produceva(client, units.as_ptr(), units.len()) });
    }
}

/// What a job does with the records between two commits.
struct Work<'p> {
    job: Job,
    out: Out<'p>,
    low: Out<'p>,
    changelog: Out<'p>,
    /// By partition: counts by key and, where there are windows, minute; and those that changed since the last commit.
    counts: HashMap<i32, Counts>,
}

#[derive(Default)]
struct Counts {
    counts: HashMap<Box<[u8]>, Count>,
    changed: Vec<Box<[u8]>>,
}

#[derive(Default)]
struct Count {
    count: u64,
    timestamp_ms: i64,
    changed: bool,
}

impl<'p> Work<'p> {
    fn new(args: &JobArgs, producer: &'p Client) -> Work<'p> {
        Work {
            job: args.job,
            out: Out::new(producer, &args.out("high")),
            low: Out::new(producer, &args.out("low")),
            changelog: Out::new(producer, &args.out("changelog")),
            counts: HashMap::new(),
        }
    }

    fn process(&mut self, run: &[Message]) {
        match self.job {
            Job::Branch => self.branch(run),
            Job::Count => self.count(run, |_, key, _| key.extend_from_slice(&[])),
            Job::Minutes => self.count(run, |_, key, time_ms| {
                key.extend_from_slice(&(time_ms / MINUTE_MS * MINUTE_MS).to_be_bytes());
            }),
        }
    }

    /// The high ones in a row, and then the low ones: librdkafka is given runs for one partition.
    fn branch(&mut self, run: &[Message]) {
        let mut low: Vec<Message> = Vec::with_capacity(run.len());
        for &message in run {
            // SAFETY: it is destroyed after the batch.
            let (key, value, time_ms) = unsafe { parts(message) };
            let ride: Amount = serde_json::from_slice(value).expect("a ride");
            if ride.total_amount >= THRESHOLD {
                self.out.send(partition(message), key, value, time_ms);
            } else {
                low.push(message);
            }
        }
        for message in low {
            // SAFETY: as above.
            let (key, value, time_ms) = unsafe { parts(message) };
            self.low.send(partition(message), key, value, time_ms);
        }
    }

    fn count(&mut self, run: &[Message], group: impl Fn(&Work<'_>, &mut Vec<u8>, i64)) {
        let place = partition(run[0]);
        let mut counts = self.counts.remove(&place).unwrap_or_default();
        let mut key = Vec::new();
        for &message in run {
            // SAFETY: it is destroyed after the batch.
            let (own, _, time_ms) = unsafe { parts(message) };
            key.clear();
            key.extend_from_slice(own);
            group(self, &mut key, time_ms);
            let count = match counts.counts.get_mut(&*key) {
                Some(count) => count,
                None => counts.counts.entry(key.as_slice().into()).or_default(),
            };
            count.count += 1;
            count.timestamp_ms = count.timestamp_ms.max(time_ms);
            if !std::mem::replace(&mut count.changed, true) {
                counts.changed.push(key.as_slice().into());
            }
        }
        self.counts.insert(place, counts);
    }

    /// Results and changelog of what changed.
    fn finish(&mut self) {
        for (&place, counts) in &mut self.counts {
            let changed = std::mem::take(&mut counts.changed);
            for key in &changed {
                let count = counts.counts.get_mut(key).expect("it was counted");
                count.changed = false;
                let value = format!("{{\"count\":{}}}", count.count);
                self.out.send(place, key, value.as_bytes(), count.timestamp_ms);
            }
            for key in &changed {
                let count = &counts.counts[key];
                self.changelog
                    .send(place, key, &count.count.to_be_bytes(), count.timestamp_ms);
            }
        }
    }
}

fn commit(producer: &Client, consumer: &Client, topic: &str, next: &HashMap<i32, i64>) {
    let topic = CString::new(topic).expect("a topic's name");
    // SAFETY: list and metadata are ours until they are destroyed.
    unsafe {
        let offsets = c::rd_kafka_topic_partition_list_new(4);
        for (&partition, &offset) in next {
            (*c::rd_kafka_topic_partition_list_add(offsets, topic.as_ptr(), partition)).offset = offset;
        }
        let member = c::rd_kafka_consumer_group_metadata(consumer.0);
        producer.check(|client| c::rd_kafka_send_offsets_to_transaction(client, offsets, member, 20_000));
        c::rd_kafka_consumer_group_metadata_destroy(member);
        c::rd_kafka_topic_partition_list_destroy(offsets);
        producer.check(|client| c::rd_kafka_commit_transaction(client, 20_000));
    }
}

/// A client of librdkafka. It lives as long as the process.
struct Client(*mut c::rd_kafka_t);

impl Client {
    fn new(kind: c::rd_kafka_type_t, settings: &[(&str, &str)]) -> Client {
        let mut said: [c_char; 512] = [0; 512];
        // SAFETY: names and values are C strings, the buffer has its length; the client takes the configuration.
        unsafe {
            let config = c::rd_kafka_conf_new();
            for (name, value) in settings {
                let (name, value) = (
                    CString::new(*name).expect("a name"),
                    CString::new(*value).expect("a value"),
                );
                let set = c::rd_kafka_conf_set(config, name.as_ptr(), value.as_ptr(), said.as_mut_ptr(), said.len());
                assert_eq!(set, c::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK, "{name:?}");
            }
            let client = c::rd_kafka_new(kind, config, said.as_mut_ptr(), said.len());
            assert!(!client.is_null(), "{:?}", CStr::from_ptr(said.as_ptr()));
            if kind == c::rd_kafka_type_t::RD_KAFKA_CONSUMER {
                c::rd_kafka_poll_set_consumer(client);
            }
            Client(client)
        }
    }

    fn subscribe(&self, topic: &str) {
        let topic = CString::new(topic).expect("a topic's name");
        // SAFETY: the list is ours until it is destroyed.
        unsafe {
            let topics = c::rd_kafka_topic_partition_list_new(1);
            c::rd_kafka_topic_partition_list_add(topics, topic.as_ptr(), -1);
            let subscribed = c::rd_kafka_subscribe(self.0, topics);
            assert_eq!(subscribed, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
            c::rd_kafka_topic_partition_list_destroy(topics);
        }
    }

    fn check(&self, call: impl FnOnce(*mut c::rd_kafka_t) -> *mut c::rd_kafka_error_t) {
        let error = call(self.0);
        if !error.is_null() {
            // SAFETY: the error and its text are there.
            let said = unsafe { CStr::from_ptr(c::rd_kafka_error_string(error)) };
            panic!("{}", said.to_string_lossy());
        }
    }
}
