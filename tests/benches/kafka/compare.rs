//! Throughput: every side does a job on the same topic, from its beginning to its end.

use std::time::{Duration, Instant};

use millstream_tests::kafka::{Broker, Edition, jars};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::jobs::{Job, JobArgs};
use super::process::{Measured, cpu_s_of, memory_mb_max_of};
use super::rides;
use super::sides::Side;
use super::streams::Streams;

/// Partitions of every topic.
const PARTITIONS: i32 = 2;
/// Records at the beginning that are left out in a second column: what a JVM compiles, it compiles mostly then.
const WARM_UP_RECORDS: u64 = 500_000;
const RECORDS: u64 = 2_000_000;
/// How often it is asked how far a side is.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A side that gets nowhere for so long has failed.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);
const ASK_TIME_MAX: Duration = Duration::from_secs(10);

/// One side of a comparison, in one turn.
#[derive(Clone, Copy, Debug)]
struct Figures {
    cpu_s: f64,
    cpu_warm_s: f64,
    clock_s: f64,
    broker_cpu_s: f64,
    memory_mb: f64,
}

struct Comparison {
    name: &'static str,
    title: &'static str,
    job: Job,
    keys: u64,
    sides: Vec<Side>,
}

fn comparisons() -> Vec<Comparison> {
    let ours = [true, false].map(|exactly_once| Side::Millstream { exactly_once });
    let streams = |exactly_once, cache| Side::Streams { exactly_once, cache };
    let counting = || {
        let [exactly, at_least] = ours;
        vec![
            exactly,
            at_least,
            Side::Tuned,
            streams(true, true),
            streams(true, false),
            streams(false, true),
        ]
    };
    let [exactly, at_least] = ours;
    vec![
        Comparison {
            name: "branch",
            title: "Branch by a JSON field",
            job: Job::Branch,
            keys: 265,
            sides: vec![
                exactly,
                at_least,
                Side::Tuned,
                Side::AsWritten,
                streams(true, true),
                streams(false, true),
            ],
        },
        Comparison {
            name: "count",
            title: "Count by key, 265 keys, with changelog",
            job: Job::Count,
            keys: 265,
            sides: counting(),
        },
        Comparison {
            name: "many-keys",
            title: "Count by key, 1,000,000 keys, with changelog",
            job: Job::Count,
            keys: 1_000_000,
            sides: counting(),
        },
        Comparison {
            name: "minutes",
            title: "Count by minute and key, 265 keys, 5,000 records a minute, with changelog",
            job: Job::Minutes,
            keys: 265,
            sides: counting(),
        },
    ]
}

/// Runs what was asked for, or all.
pub fn run(args: &[String]) {
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.map_or(default, |at| args[at + 1].parse().expect("a number"))
    };
    let (records, turns) = (number("--records", RECORDS), number("--turns", 3));
    let wanted = |name: &str| {
        let all = comparisons();
        let named = |arg: &String| all.iter().any(|comparison| comparison.name == arg);
        !args.iter().any(named) || args.iter().any(|arg| arg == name)
    };
    let Some(jars) = jars(Edition::KRaft, "kafka") else {
        return;
    };
    let quick = args.iter().any(|arg| arg == "--quick");
    let streams = if quick { None } else { Streams::build() };
    let broker = Broker::start(Edition::KRaft, &jars);
    let cluster = Cluster::new(&broker);
    for comparison in comparisons().iter().filter(|comparison| wanted(comparison.name)) {
        let input = format!("rides-{}", comparison.keys);
        if cluster.create(&input) {
            rides::fill(&broker.bootstrap(), &input, comparison.keys, records);
        }
        let mut sides: Vec<(Side, Vec<Figures>)> = comparison.sides.iter().map(|side| (*side, Vec::new())).collect();
        sides.retain(|(side, _)| streams.is_some() || !matches!(side, Side::Streams { .. }));
        // The broker compiles too: whoever came first would pay for it.
        cluster.measure(Side::Tuned, comparison.job, &input, records, turns, streams.as_ref());
        for turn in 0..turns {
            for (side, figures) in &mut sides {
                let measured = cluster.measure(*side, comparison.job, &input, records, turn, streams.as_ref());
                eprintln!("{}: {measured:.2?}", side.name());
                figures.push(measured);
            }
        }
        print(comparison, records, &sides);
    }
}

fn print(comparison: &Comparison, records: u64, sides: &[(Side, Vec<Figures>)]) {
    println!("\n### {}\n", comparison.title);
    println!("{records} records, the least of {} turns.\n", sides[0].1.len());
    println!(
        "| side | µs CPU a record | without the first {WARM_UP_RECORDS} | ours by it | broker, µs | records/s | memory, MB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let least = |figures: &[Figures], of: fn(&Figures) -> f64| figures.iter().map(of).fold(f64::INFINITY, f64::min);
    let ours = least(&sides[0].1, |figures| figures.cpu_warm_s);
    for (side, figures) in sides {
        let us = |s: f64, records: u64| s * 1e6 / records as f64;
        let warm = least(figures, |figures| figures.cpu_warm_s);
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
            side.name(),
            us(least(figures, |figures| figures.cpu_s), records),
            us(warm, records - WARM_UP_RECORDS),
            ours / warm,
            us(least(figures, |figures| figures.broker_cpu_s), records),
            records as f64 / least(figures, |figures| figures.clock_s),
            least(figures, |figures| figures.memory_mb),
        );
    }
}

/// The broker, and what it is asked with.
struct Cluster<'b> {
    broker: &'b Broker,
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl<'b> Cluster<'b> {
    fn new(broker: &'b Broker) -> Cluster<'b> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.bootstrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Cluster {
            broker,
            admin: config.create().expect("a client"),
            runtime: runtime.expect("a runtime"),
        }
    }

    /// Makes a topic; `false` where it is there already.
    fn create(&self, name: &str) -> bool {
        let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(ASK_TIME_MAX));
        let end = Instant::now() + ASK_TIME_MAX;
        loop {
            let made = self.runtime.block_on(self.admin.create_topics([&topic], &options));
            match made.as_deref() {
                Ok([Ok(_)]) => return true,
                Ok([Err((_, RDKafkaErrorCode::TopicAlreadyExists))]) => return false,
                // It has only just begun.
                other => assert!(Instant::now() < end, "{name}: {other:?}"),
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn delete(&self, names: &[String]) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let deleted = self
            .runtime
            .block_on(self.admin.delete_topics(&names, &AdminOptions::new()));
        deleted.expect("the broker answers");
    }

    fn measure(
        &self,
        side: Side,
        job: Job,
        input: &str,
        records: u64,
        turn: u64,
        streams: Option<&Streams>,
    ) -> Figures {
        let dir = tempfile::tempdir().expect("a folder");
        let args = JobArgs {
            job,
            bootstrap: self.broker.bootstrap(),
            input: input.to_owned(),
            group: format!("{}-{input}-{turn}-{:08x}", job.name(), rand::random::<u32>()),
        };
        for topic in args.outs() {
            self.create(&topic);
        }
        let progress = Progress::new(&args);
        let broker_cpu = cpu_s_of(self.broker.id());
        let clock = Instant::now();
        let mut process = Measured::start(&mut side.command(&args, dir.path(), streams));
        let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        let (mut warm, mut moved) = (None, (0, Instant::now()));
        loop {
            std::thread::sleep(LOOK_INTERVAL);
            let done = progress.done();
            if done > moved.0 {
                moved = (done, Instant::now());
            }
            if warm.is_none() && done >= WARM_UP_RECORDS {
                warm = Some((done, cpu_s_of(process.id())));
            }
            if done >= records {
                break;
            }
            process.check(&log());
            assert!(
                moved.1.elapsed() < STANDSTILL_MAX,
                "{}: {done} of {records}:\n{}",
                side.name(),
                log()
            );
        }
        let cpu_s = cpu_s_of(process.id());
        let figures = Figures {
            cpu_s,
            cpu_warm_s: warm.map_or(f64::NAN, |(done, before)| {
                // As if it had been looked exactly then.
                (cpu_s - before) * (records - WARM_UP_RECORDS) as f64 / (records - done) as f64
            }),
            clock_s: clock.elapsed().as_secs_f64(),
            broker_cpu_s: cpu_s_of(self.broker.id()) - broker_cpu,
            memory_mb: memory_mb_max_of(process.id()),
        };
        process.kill();
        self.delete(&args.outs());
        figures
    }
}

/// How far a group is.
struct Progress {
    consumer: BaseConsumer,
    asked: TopicPartitionList,
}

impl Progress {
    fn new(args: &JobArgs) -> Progress {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &args.bootstrap)
            .set("group.id", &args.group)
            .set("isolation.level", "read_uncommitted");
        let mut asked = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            asked.add_partition(&args.input, partition);
        }
        Progress {
            consumer: config.create().expect("a consumer"),
            asked,
        }
    }

    /// Records up to the committed offsets.
    fn done(&self) -> u64 {
        let Ok(committed) = self.consumer.committed_offsets(self.asked.clone(), ASK_TIME_MAX) else {
            return 0;
        };
        let offset = |offset| match offset {
            Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
            _ => 0,
        };
        committed
            .elements()
            .iter()
            .map(|element| offset(element.offset()))
            .sum()
    }
}
