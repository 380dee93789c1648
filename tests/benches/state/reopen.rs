//! How long it takes after `kill -9` until the first new record has been counted.

use std::path::Path;
use std::time::{Duration, Instant};

use millstream::connect::{TopicPartition, partition_of};
use millstream::control::{Host, PluginCatalog};
use millstream_tests::measure::{flag, options, run_pipeline};
use millstream_tests::{append, open, resident_bytes};

use super::input::{self, Keys};
use super::{PARTITIONS, child, pipeline_file};

const TIMES: usize = 3;

pub fn reopen() {
    println!("\n### Reopening after `kill -9`: until the first new record is counted and committed\n");
    println!(
        "| keys | records before | time | rows to read again | open the folder, s | start, s | first record, s | memory, MB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut counts = vec![1_000_000];
    if flag("--big") {
        counts.push(10_000_000);
    }
    for count in counts {
        let records = 2 * count;
        let dir = tempfile::tempdir().expect("a folder");
        let keys = Keys::uniform(count);
        input::fill_bare(&open(dir.path()), &keys, PARTITIONS, records, |_| input::TIME_MS);
        pipeline_file(dir.path(), "reopen", "count", "counted", "emit = \"update\"", "");
        let (mut process, _) = child::start("fill", dir.path());
        process.kill().expect("it runs");
        process.wait().expect("it ends");
        // Only the first finds what the kill left: whoever reads the changelog again also flushes it, as far as it comes.
        for time in 1..=TIMES {
            let (mut process, line) = child::start("reopen", dir.path());
            process.kill().expect("it runs");
            process.wait().expect("it ends");
            let [rows, opened, started, first, memory] = child::numbers(&line)[..] else {
                panic!("not what a child says: {line}");
            };
            println!(
                "| {count} | {records} | {time} | {rows:.0} | {opened:.2} | {started:.2} | **{first:.2}** | {memory:.0} |"
            );
        }
    }
}

/// Counts everything, says so, and waits to be killed.
pub fn child_fill(dir: &Path) {
    let mut host = Host::open(&options(dir)).expect("it opens");
    let catalog = PluginCatalog::new(host.runtime().clone());
    run_pipeline(&mut host, &catalog, &dir.join("reopen.toml"));
    println!("done");
    std::thread::sleep(Duration::from_secs(600));
}

/// Opens, starts, counts one record, and says how long each took from the beginning on.
pub fn child_reopen(dir: &Path) {
    let began = Instant::now();
    let mut host = Host::open(&options(dir)).expect("it opens");
    let opened = began.elapsed().as_secs_f64();
    let key = b"0";
    let partition = partition_of(key, PARTITIONS);
    let record = input::bare(0, input::TIME_MS);
    append(host.log(), "rides", partition, &[record]);
    let place = TopicPartition::new("rides", partition);
    let end = host.log().next_offset(&place).expect("it answers");
    let catalog = PluginCatalog::new(host.runtime().clone());
    let (_, plan) = millstream::pipeline::load(&dir.join("reopen.toml"), &|_| None, &catalog).expect("a right file");
    let group = plan.group.clone();
    host.start(plan, &catalog).expect("it starts");
    let started = began.elapsed().as_secs_f64();
    let behind = |partition| {
        let changelog = TopicPartition::new("reopen-s-changelog", partition);
        let next = host.log().next_offset(&changelog).expect("it answers");
        let backend = host.kept_with().expect("the pipeline keeps something");
        next - backend
            .db
            .flushed(&changelog.topic, partition)
            .expect("it answers")
            .unwrap_or(0)
    };
    let rows: u64 = (0..PARTITIONS).map(behind).sum();
    while host.log().committed(&group, &place).expect("it answers").unwrap_or(0) < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    let first = began.elapsed().as_secs_f64();
    println!("{rows} {opened} {started} {first} {}", resident_bytes() as f64 / 1e6);
    std::thread::sleep(Duration::from_secs(600));
}
