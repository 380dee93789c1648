//! What the engine costs, side by side with the same work written by hand in native Rust on the same log.
//!
//! `./dev bench` runs it; it prints tables in Markdown, whose last ones are kept in `BENCHMARKS.md`. Figures are
//! processor time of the whole process per record, as the machine's load moves them less than the clock; two sides take
//! turns, and the ratio is the median of the turns' ratios.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use millstream::cli::run::work;
use millstream::connect::{Append, BlockBuilder, Commit, EmbeddedLog, GroupOffset, TopicPartition, partition_of};
use millstream::control::{Host, HostOptions, PluginCatalog};
use millstream::record::{Record, RecordRef};
use millstream_tests::{append, cache, make_topic, open, plugin, program};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

const TURNS: usize = 5;

fn main() {
    // `cargo bench` hands on its own `--bench`; a name picks one part.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let parts: [(&str, fn()); 5] = [
        ("pipelines", pipelines),
        ("log", log),
        ("idle", idle),
        ("records", records),
        ("growth", growth),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}

/// Processor time of this process so far, all threads, seconds.
fn cpu_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory of this process, bytes.
fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("a number of pages");
    pages * 4096
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn options(dir: &Path) -> HostOptions {
    let mut options = HostOptions::new(dir.to_owned()).expect("a program has a path");
    options.compiler = program();
    options.cache_dir = cache();
    options
}

/// A ride as its JSON of about 430 bytes: all 18 columns.
fn ride(random: &mut StdRng) -> String {
    let minutes: f64 = random.random_range(2.0..60.0);
    let fare = 2.5 + minutes * 0.9;
    format!(
        "{{\"VendorID\":{},\"tpep_pickup_datetime\":\"2020-07-01 00:25:32\",\"tpep_dropoff_datetime\":\"2020-07-01 00:{:02}:39\",\
         \"passenger_count\":1,\"trip_distance\":{:.2},\"RatecodeID\":1,\"store_and_fwd_flag\":\"N\",\"PULocationID\":{},\
         \"DOLocationID\":{},\"payment_type\":{},\"fare_amount\":{fare:.2},\"extra\":0.5,\"mta_tax\":0.5,\"tip_amount\":{:.2},\
         \"tolls_amount\":0,\"improvement_surcharge\":0.3,\"total_amount\":{:.2},\"congestion_surcharge\":0}}",
        random.random_range(1..3),
        random.random_range(26..59),
        minutes * 0.2,
        random.random_range(1..266),
        random.random_range(1..266),
        random.random_range(1..3),
        fare * 0.2,
        fare * 1.2 + 1.3,
    )
}

fn fill(
    log: &EmbeddedLog,
    topic: &str,
    partitions: u32,
    count: u64,
    at_once: u64,
    mut value: impl FnMut(&mut StdRng) -> Vec<u8>,
) {
    make_topic(log, topic, partitions);
    let mut random = StdRng::seed_from_u64(1);
    let mut left = count;
    let mut partition = 0;
    while left > 0 {
        let records: Vec<Record> = (0..left.min(at_once))
            .map(|_| Record {
                key: Some(random.random_range(0..265u32).to_string().into_bytes()),
                value: Some(value(&mut random)),
                timestamp_ms: 1_593_563_132_000,
                ..Record::default()
            })
            .collect();
        append(log, topic, partition, &records);
        left -= records.len() as u64;
        partition = (partition + 1) % partitions;
    }
}

/// Runs one pipeline on a host's log to its end; processor seconds and seconds.
fn run_pipeline(host: &mut Host, catalog: &PluginCatalog, file: &Path) -> (f64, f64) {
    let (_, plan) = millstream::pipeline::load(file, &|_| None, catalog).expect("a right file");
    let (cpu, clock) = (cpu_s(), Instant::now());
    host.start(plan, catalog).expect("it starts");
    work(host, &AtomicBool::new(false), true);
    (cpu_s() - cpu, clock.elapsed().as_secs_f64())
}

fn pipeline_file(dir: &Path, name: &str, plugin_name: &str, to: &str) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\n[source.rides]\n[stage.s]\nplugin = {:?}\ninput = \"rides\"\n[stage.s.to]\n{to}\n",
        plugin(plugin_name)
    );
    std::fs::write(&file, text).expect("the file is written");
    file
}

/// Starts so many pipelines that branch `rides` by amount, each into topics of its own.
fn start_many(host: &mut Host, catalog: &PluginCatalog, dir: &Path, count: u64) {
    for n in 0..count {
        let name = format!("p{n}");
        let file = pipeline_file(
            dir,
            &name,
            "branch-by-amount",
            &format!("high = \"{name}-high\"\nlow = \"{name}-low\""),
        );
        let (_, plan) = millstream::pipeline::load(&file, &|_| None, catalog).expect("a right file");
        host.start(plan, catalog).expect("it starts");
    }
}

/// What a native job does with each record; pushes to one of two outputs.
type Native = fn(&RecordRef<'_>, &mut Vec<u8>) -> Option<usize>;

#[derive(Deserialize)]
struct Amount {
    total_amount: f64,
}

fn native_branch(record: &RecordRef<'_>, _: &mut Vec<u8>) -> Option<usize> {
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

fn native_enrich(record: &RecordRef<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let mut ride: Ride<'_> = serde_json::from_slice(record.value?).ok()?;
    let seconds = |text: &str| {
        let time: jiff::civil::DateTime = text.parse().ok()?;
        Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
    };
    ride.duration_s = seconds(ride.tpep_dropoff_datetime)? - seconds(ride.tpep_pickup_datetime)?;
    ride.speed_kmh = ride.trip_distance * 1.609_344 / (ride.duration_s as f64 / 3600.0);
    ride.tip_share = ride.tip_amount / ride.fare_amount;
    serde_json::to_writer(out, &ride).ok()?;
    Some(0)
}

/// The loop written by hand: a thread a partition, a commit of outputs and offsets each 100 ms or 8 MB.
fn run_native(log: &Arc<EmbeddedLog>, group: &str, outputs: [&str; 2], partitions: u32, job: Native) -> (f64, f64) {
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

fn pipelines() {
    const RECORDS: u64 = 400_000;
    const PARTITIONS: u32 = 2;
    println!("\n### Pipelines through the embedded log, beside the same loop by hand\n");
    println!("{RECORDS} rides of 430 bytes, {PARTITIONS} partitions, commits each 100 ms; median of {TURNS} turns.\n");
    println!("| job | Millstream, µs CPU a record | by hand | ratio | Millstream, records/s | by hand |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let dir = tempfile::tempdir().expect("a folder");
    let mut host = Host::open(&options(dir.path())).expect("it opens");
    let catalog = PluginCatalog::new(host.runtime().clone());
    fill(host.log(), "rides", PARTITIONS, RECORDS, 1000, |random| {
        ride(random).into_bytes()
    });
    let jobs: [(&str, &str, &str, Native); 2] = [
        (
            "branch by amount",
            "branch-by-amount",
            "high = \"NAME-high\"\nlow = \"NAME-low\"",
            native_branch,
        ),
        ("enrichment", "enrich", "enriched = \"NAME-out\"", native_enrich),
    ];
    for (title, plugin_name, to, native) in jobs {
        let (mut ours, mut theirs, mut ratios, mut rates, mut their_rates) = (vec![], vec![], vec![], vec![], vec![]);
        for turn in 0..=TURNS {
            let name = format!("{plugin_name}-{turn}");
            let file = pipeline_file(dir.path(), &name, plugin_name, &to.replace("NAME", &name));
            let (cpu, clock) = run_pipeline(&mut host, &catalog, &file);
            let outputs = [format!("native-{name}-0"), format!("native-{name}-1")];
            let (native_cpu, native_clock) = run_native(
                host.log(),
                &format!("native-{name}"),
                [&outputs[0], &outputs[1]],
                PARTITIONS,
                native,
            );
            for topic in outputs {
                host.log().delete_topic(&topic).expect("it goes");
            }
            if turn == 0 {
                continue;
            }
            let us = |seconds: f64| seconds * 1e6 / RECORDS as f64;
            ours.push(us(cpu));
            theirs.push(us(native_cpu));
            ratios.push(cpu / native_cpu);
            rates.push(RECORDS as f64 / clock);
            their_rates.push(RECORDS as f64 / native_clock);
        }
        println!(
            "| {title} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
            median(ours),
            median(theirs),
            median(ratios),
            median(rates),
            median(their_rates)
        );
    }
    host.stop(Duration::from_secs(5));
}

fn log() {
    use std::io::{Read, Write};
    const RECORDS: usize = 1_000_000;
    println!("\n### The log, beside a plain segment file\n");
    println!("{RECORDS} records of 200 bytes, 1,000 a commit, each synced.\n");
    println!("| | append, records/CPU s | MB/CPU s | read, records/CPU s | MB/CPU s |");
    println!("| --- | --- | --- | --- | --- |");
    let record = Record {
        key: Some(b"0123456789abcdef".to_vec()),
        value: Some(vec![b'v'; 184]),
        timestamp_ms: 1,
        ..Record::default()
    };
    let row = |name: &str, append: f64, read: f64| {
        let (records, mb) = (RECORDS as f64, RECORDS as f64 * 200.0 / 1e6);
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} |",
            records / append,
            mb / append,
            records / read,
            mb / read
        );
    };
    let dir = tempfile::tempdir().expect("a folder");
    let log = open(dir.path());
    make_topic(&log, "t", 1);
    let batch: Vec<Record> = (0..1000).map(|_| record.clone()).collect();
    let cpu = cpu_s();
    for _ in 0..RECORDS / 1000 {
        append(&log, "t", 0, &batch);
    }
    let appended = cpu_s() - cpu;
    let cpu = cpu_s();
    let (mut position, mut sum) = (0, 0);
    let place = TopicPartition::new("t", 0);
    loop {
        let fetched = log.fetch(&place, position, 1 << 20).expect("it can be read");
        if fetched.next_offset() == position {
            break;
        }
        sum += fetched
            .records()
            .map(|record| record.value.map_or(0, <[u8]>::len))
            .sum::<usize>();
        position = fetched.next_offset();
    }
    assert_eq!(sum, RECORDS * 184);
    row("embedded log", appended, cpu_s() - cpu);

    let path = dir.path().join("segment");
    let mut file = std::fs::File::create(&path).expect("a file");
    let cpu = cpu_s();
    let mut buffer = Vec::new();
    for _ in 0..RECORDS / 1000 {
        buffer.clear();
        for record in &batch {
            for part in [record.key.as_deref(), record.value.as_deref()] {
                let part = part.expect("it has both");
                buffer.extend_from_slice(&(part.len() as u32).to_le_bytes());
                buffer.extend_from_slice(part);
            }
        }
        buffer.extend_from_slice(&crc32fast::hash(&buffer).to_le_bytes());
        file.write_all(&buffer).expect("it is written");
        file.sync_data().expect("it is synced");
    }
    let appended = cpu_s() - cpu;
    let cpu = cpu_s();
    let mut file = std::fs::File::open(&path).expect("a file");
    let mut chunk = vec![0; buffer.len()];
    let mut sum = 0;
    while file.read_exact(&mut chunk).is_ok() {
        let (records, crc) = chunk.split_at(chunk.len() - 4);
        assert_eq!(crc32fast::hash(records).to_le_bytes(), crc);
        let mut rest = records;
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            sum += length;
            rest = &tail[length..];
        }
    }
    assert_eq!(sum, RECORDS * 200);
    row("segment file", appended, cpu_s() - cpu);
}

fn idle() {
    println!("\n### Idle pipelines\n");
    println!("Each has processed 100 rides and then waits; the memory is that of the process, its growth divided.\n");
    println!("| pipelines | start of all, s | memory of each, MB | processor time of all in 5 s, ms |");
    println!("| --- | --- | --- | --- |");
    // The most first: memory that was freed would hide what later ones take.
    for count in [500u64, 100, 10, 1] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut host = Host::open(&options(dir.path())).expect("it opens");
        let catalog = PluginCatalog::new(host.runtime().clone());
        make_topic(host.log(), "rides", 1);
        let (memory, clock) = (rss_bytes(), Instant::now());
        start_many(&mut host, &catalog, dir.path(), count);
        let end = |host: &Host| {
            while !host.is_at_end() {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        end(&host);
        let took = clock.elapsed().as_secs_f64();
        let mut random = StdRng::seed_from_u64(1);
        let rides = (0..100).map(|_| Record {
            value: Some(ride(&mut random).into_bytes()),
            ..Record::default()
        });
        append(host.log(), "rides", 0, &rides.collect::<Vec<_>>());
        end(&host);
        let each = rss_bytes().saturating_sub(memory) as f64 / 1e6 / count as f64;
        let cpu = cpu_s();
        std::thread::sleep(Duration::from_secs(5));
        println!("| {count} | {took:.2} | {each:.2} | {:.1} |", (cpu_s() - cpu) * 1e3);
        host.stop(Duration::from_secs(5));
    }
}

fn records() {
    println!("\n### Size of records: branch by amount\n");
    println!("| bytes | µs CPU a record | MB/CPU s |");
    println!("| --- | --- | --- |");
    for size in [100usize, 1_000, 10_000, 100_000] {
        let count = (200_000_000 / size as u64).min(400_000);
        let dir = tempfile::tempdir().expect("a folder");
        let mut host = Host::open(&options(dir.path())).expect("it opens");
        let catalog = PluginCatalog::new(host.runtime().clone());
        fill(
            host.log(),
            "rides",
            2,
            count,
            (10_000_000 / size as u64).min(1000),
            |random| {
                let amount: f64 = random.random_range(0.0..80.0);
                let head = format!("{{\"total_amount\":{amount:.2},\"note\":\"");
                let filler = "n".repeat(size.saturating_sub(head.len() + 2));
                format!("{head}{filler}\"}}").into_bytes()
            },
        );
        let file = pipeline_file(dir.path(), "size", "branch-by-amount", "high = \"high\"\nlow = \"low\"");
        let (cpu, _) = run_pipeline(&mut host, &catalog, &file);
        println!(
            "| {size} | {:.2} | {:.0} |",
            cpu * 1e6 / count as f64,
            count as f64 * size as f64 / 1e6 / cpu
        );
        host.stop(Duration::from_secs(5));
    }
}

fn growth() {
    const RECORDS: u64 = 200_000;
    println!("\n### Partitions: branch by amount, {RECORDS} rides\n");
    println!("| partitions | µs CPU a record | records/s |");
    println!("| --- | --- | --- |");
    for partitions in [1u32, 4, 16, 64] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut host = Host::open(&options(dir.path())).expect("it opens");
        let catalog = PluginCatalog::new(host.runtime().clone());
        fill(host.log(), "rides", partitions, RECORDS, 1000, |random| {
            ride(random).into_bytes()
        });
        let file = pipeline_file(dir.path(), "grow", "branch-by-amount", "high = \"high\"\nlow = \"low\"");
        let (cpu, clock) = run_pipeline(&mut host, &catalog, &file);
        println!(
            "| {partitions} | {:.2} | {:.0} |",
            cpu * 1e6 / RECORDS as f64,
            RECORDS as f64 / clock
        );
        host.stop(Duration::from_secs(5));
    }
    println!("\n### Pipelines that read one topic: branch by amount, {RECORDS} rides each\n");
    println!("| pipelines | µs CPU a record and pipeline |");
    println!("| --- | --- |");
    for count in [1u64, 10, 100, 500] {
        let records = RECORDS / count.min(50);
        let dir = tempfile::tempdir().expect("a folder");
        let mut host = Host::open(&options(dir.path())).expect("it opens");
        let catalog = PluginCatalog::new(host.runtime().clone());
        fill(host.log(), "rides", 1, records, 1000, |random| {
            ride(random).into_bytes()
        });
        let cpu = cpu_s();
        start_many(&mut host, &catalog, dir.path(), count);
        work(&mut host, &AtomicBool::new(false), true);
        println!("| {count} | {:.2} |", (cpu_s() - cpu) * 1e6 / (records * count) as f64);
        host.stop(Duration::from_secs(5));
    }
}
