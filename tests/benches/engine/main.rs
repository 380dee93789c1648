//! What the engine costs, side by side with the same work written by hand in native Rust on the same log.
//!
//! `./dev bench` runs it; it prints tables in Markdown, whose last ones are kept in `BENCHMARKS.md`. Figures are
//! processor time of the whole process per record, as the machine's load moves them less than the clock; two sides take
//! turns, and the ratio is the median of the turns' ratios.

mod by_hand;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use millstream::cli::run::work;
use millstream::connect::{EmbeddedLog, TopicPartition};
use millstream::control::{Host, PluginCatalog};
use millstream::limits::PAUSED_TIME_MAX;
use millstream::record::Record;
use millstream_tests::measure::{cpu_s, median, options, run_parts, run_pipeline};
use millstream_tests::{append, make_topic, open, plugin, resident_bytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use by_hand::{Native, native_branch, native_enrich, native_splice, run_native};

const TURNS: usize = 5;

fn main() {
    run_parts(&[
        ("pipelines", pipelines),
        ("log", log),
        ("idle", idle),
        ("records", records),
        ("growth", growth),
    ]);
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

/// Processor seconds and seconds of two sides that took turns.
#[derive(Default)]
struct Turns {
    ours: Vec<(f64, f64)>,
    theirs: Vec<(f64, f64)>,
}

impl Turns {
    fn add(&mut self, ours: (f64, f64), theirs: (f64, f64)) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    fn print(&self, title: &str, records: f64) {
        let us = |side: &[(f64, f64)]| median(side.iter().map(|(cpu, _)| cpu * 1e6 / records).collect());
        let rate = |side: &[(f64, f64)]| median(side.iter().map(|(_, clock)| records / clock).collect());
        let ratios = self
            .ours
            .iter()
            .zip(&self.theirs)
            .map(|(ours, theirs)| ours.0 / theirs.0);
        println!(
            "| {title} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} |",
            us(&self.ours),
            us(&self.theirs),
            median(ratios.collect()),
            rate(&self.ours),
            rate(&self.theirs)
        );
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
    type Job = (&'static str, &'static str, &'static [(&'static str, Native)]);
    let jobs: [Job; 2] = [
        (
            "branch-by-amount",
            "high = \"NAME-high\"\nlow = \"NAME-low\"",
            &[("branch by amount", native_branch)],
        ),
        (
            "enrich",
            "enriched = \"NAME-out\"",
            &[
                ("enrichment; by hand with whole structs", native_enrich),
                ("enrichment; by hand with splicing", native_splice),
            ],
        ),
    ];
    for (plugin_name, to, natives) in jobs {
        let mut rows: Vec<Turns> = natives.iter().map(|_| Turns::default()).collect();
        for turn in 0..=TURNS {
            let name = format!("{plugin_name}-{turn}");
            let file = pipeline_file(dir.path(), &name, plugin_name, &to.replace("NAME", &name));
            let ours = run_pipeline(&mut host, &catalog, &file);
            for (side, (_, native)) in natives.iter().enumerate() {
                let group = format!("native-{name}-{side}");
                let outputs = [format!("{group}-0"), format!("{group}-1")];
                let topics = [&*outputs[0], &*outputs[1]];
                let theirs = run_native(host.log(), &group, topics, PARTITIONS, *native);
                for topic in outputs {
                    host.log().delete_topic(&topic).expect("it goes");
                }
                // The first turn warms up.
                if turn > 0 {
                    rows[side].add(ours, theirs);
                }
            }
        }
        for ((title, _), turns) in natives.iter().zip(rows) {
            turns.print(title, RECORDS as f64);
        }
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
        let (memory, clock) = (resident_bytes(), Instant::now());
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
        let each = resident_bytes().saturating_sub(memory) as f64 / 1e6 / count as f64;
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
        work(&mut host, &AtomicBool::new(false), true, PAUSED_TIME_MAX).expect("nothing pauses it");
        println!("| {count} | {:.2} |", (cpu_s() - cpu) * 1e6 / (records * count) as f64);
        host.stop(Duration::from_secs(5));
    }
}
