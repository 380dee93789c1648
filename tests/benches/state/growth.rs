//! How cost grows with the number of keys, and with rows that do not fit into memory. Each line in a process of its own.

use std::path::Path;

use millstream::control::{Host, PluginCatalog};
use millstream_tests::measure::{cpu_s, flag, options, run_pipeline, settle, written_bytes};
use millstream_tests::{open, resident_bytes};

use super::input::{self, Keys};
use super::{PARTITIONS, child, pipeline_file};

/// What a child measured.
struct Measured {
    us: f64,
    rate: f64,
    grown_bytes: f64,
    written: f64,
}

pub fn keys() {
    println!("\n### How cost grows with keys: the aggregator, uniform keys, as much memory as it takes\n");
    println!(
        "| keys | records | µs CPU a record | records/s | memory grown, MB | bytes a key | bytes written by bytes of results and rows |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut counts = vec![1_000, 10_000, 100_000, 1_000_000];
    if flag("--big") {
        counts.push(10_000_000);
    }
    let mut fixed = 0.0;
    for count in counts {
        let records = (2 * count).max(2_000_000);
        let measured = measure(&Keys::uniform(count), records, "8GB");
        if count == 1_000 {
            fixed = measured.grown_bytes;
        }
        let each = (measured.grown_bytes - fixed) / count as f64;
        println!(
            "| {count} | {records} | {:.2} | {:.0} | {:.0} | {} | {:.2} |",
            measured.us,
            measured.rate,
            measured.grown_bytes / 1e6,
            if count < 100_000 {
                "–".into()
            } else {
                format!("{each:.0}")
            },
            measured.written,
        );
    }
}

pub fn memory() {
    let (count, records) = (1_000_000, 2_000_000);
    println!("\n### Rows that do not fit into memory: {count} keys, {records} records\n");
    println!(
        "| `[state] memory` | keys | µs CPU a record | records/s | memory grown, MB | bytes written by bytes of results and rows |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for memory in ["512MB", "128MB", "64MB", "16MB"] {
        for keys in [Keys::uniform(count), Keys::zipf(count)] {
            let measured = measure(&keys, records, memory);
            println!(
                "| {memory} | {keys} | {:.2} | {:.0} | {:.0} | {:.2} |",
                measured.us,
                measured.rate,
                measured.grown_bytes / 1e6,
                measured.written
            );
        }
    }
}

fn measure(keys: &Keys, records: u64, memory: &str) -> Measured {
    let dir = tempfile::tempdir().expect("a folder");
    input::fill_bare(&open(dir.path()), keys, PARTITIONS, records, |_| input::TIME_MS);
    let more = format!("[state]\nmemory = \"{memory}\"");
    pipeline_file(dir.path(), "grow", "count", "counted", "emit = \"update\"", &more);
    let (mut process, line) = child::start("growth", dir.path());
    process.wait().expect("it ends");
    let [cpu, clock, grown_bytes, written] = child::numbers(&line)[..] else {
        panic!("not what a child says: {line}");
    };
    Measured {
        us: cpu * 1e6 / records as f64,
        rate: records as f64 / clock,
        grown_bytes,
        written,
    }
}

/// Runs the pipeline of the folder.
pub fn child(dir: &Path) {
    let mut host = Host::open(&options(dir)).expect("it opens");
    let catalog = PluginCatalog::new(host.runtime().clone());
    settle();
    let (cpu, resident, written) = (cpu_s(), resident_bytes(), written_bytes());
    let (_, clock) = run_pipeline(&mut host, &catalog, &dir.join("grow.toml"));
    let grown = resident_bytes() as f64 - resident as f64;
    settle();
    let (cpu, written) = (cpu_s() - cpu, written_bytes() - written);
    let topics = host.log().topics().expect("it answers").into_iter();
    let own = topics.filter(|topic| topic.spec.name.starts_with("grow"));
    // What was purged counts too: a record of a changelog is as long as the others.
    let bytes = own.flat_map(|topic| topic.partition_ranges).map(|range| {
        let there = range.next_offset - range.first_offset;
        range.bytes.unwrap_or_default() as f64 * range.next_offset as f64 / there.max(1) as f64
    });
    println!("{cpu} {clock} {grown} {}", written as f64 / bytes.sum::<f64>());
}
