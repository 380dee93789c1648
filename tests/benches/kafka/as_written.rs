//! The branch job as people write it: rdkafka's `StreamConsumer` and `FutureProducer`, `serde_json`, at least once.

use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message};
use std::time::Instant;

use super::jobs::{COMMIT_INTERVAL, JobArgs, THRESHOLD};

/// What the job reads of a ride.
#[derive(serde::Deserialize)]
pub struct Amount {
    pub total_amount: f64,
}

/// Runs until it is killed.
pub fn run(args: &JobArgs) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(branch(args));
}

async fn branch(args: &JobArgs) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.bootstrap);
    let producer: FutureProducer = config.create().expect("a producer");
    let consumer: StreamConsumer = config
        .set("group.id", &args.group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        // With the default, a second, it would fetch nothing for most of the time.
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[&args.input]).expect("a topic's name");
    let (high, low) = (args.out("high"), args.out("low"));
    let mut on_their_way = Vec::new();
    let mut committed = Instant::now();
    loop {
        if let Ok(message) = tokio::time::timeout(COMMIT_INTERVAL, consumer.recv()).await {
            let message = message.expect("it can be read");
            let (key, value) = (message.key().expect("a key"), message.payload().expect("a value"));
            let ride: Amount = serde_json::from_slice(value).expect("a ride");
            let topic = if ride.total_amount >= THRESHOLD { &high } else { &low };
            let mut record = FutureRecord::to(topic).key(key).payload(value);
            record = record.timestamp(message.timestamp().to_millis().expect("a timestamp"));
            loop {
                match producer.send_result(record) {
                    Ok(delivery) => break on_their_way.push(delivery),
                    // The queue is full.
                    Err((_, refused)) => {
                        record = refused;
                        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    }
                }
            }
        }
        if committed.elapsed() >= COMMIT_INTERVAL {
            if !on_their_way.is_empty() {
                for delivery in on_their_way.drain(..) {
                    delivery.await.expect("the producer lives").expect("it is delivered");
                }
                consumer
                    .commit_consumer_state(CommitMode::Async)
                    .expect("offsets can be committed");
            }
            committed = Instant::now();
        }
    }
}
