//! What keyed state costs, side by side with the same loops written by hand in native Rust on the same log, with a hash
//! map and a changelog but no store behind it.
//!
//! `./dev bench` runs it; it prints tables in Markdown, whose last ones are kept in `BENCHMARKS.md`. Figures are
//! processor time of the whole process per record, flushes and what the log does in the background with them; sides take
//! turns, and the ratio is the median of the turns' ratios. `--big` adds what takes minutes: ten million keys.

mod by_hand;
mod child;
mod growth;
mod input;
mod open_windows;
mod reads;
mod reopen;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use by_hand::{CountByField, CountByKey, CountByMinute, Job};
use input::Keys;
use millstream::connect::EmbeddedLog;
use millstream::control::{Host, PluginCatalog};
use millstream_tests::measure::{cpu_s, median, options, run_parts, run_pipeline, settle};
use millstream_tests::{make_topic, open, plugin};

const TURNS: usize = 3;
const PARTITIONS: u32 = 2;

fn main() {
    if child::was_asked() {
        return;
    }
    run_parts(&[
        ("few-keys", few_keys),
        ("many-keys", many_keys),
        ("zipf-keys", zipf_keys),
        ("windows", windows),
        ("reads", reads::reads),
        ("reopen", reopen::reopen),
        ("keys", growth::keys),
        ("memory", growth::memory),
        ("open-windows", open_windows::open_windows),
    ]);
}

/// A pipeline of one stage; its output topic has the name of the pipeline and `-out` behind it.
fn pipeline_file(dir: &Path, name: &str, plugin_name: &str, branch: &str, stage: &str, more: &str) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\n{more}\n[source.rides]\n[stage.s]\nplugin = {:?}\ninput = \"rides\"\n{stage}\n\
         [stage.s.to]\n{branch} = \"{name}-out\"\n",
        plugin(plugin_name)
    );
    std::fs::write(&file, text).expect("the file is written");
    file
}

/// Records of a topic.
fn records_of(log: &EmbeddedLog, topic: &str) -> u64 {
    let ranges = log.topic(topic).expect("it is there").partition_ranges;
    ranges.iter().map(|range| range.next_offset).sum()
}

/// What a side took.
struct Took {
    cpu: f64,
    clock: f64,
    outputs: u64,
}

/// One turn of a pipeline, on a host of its own.
fn turn(dir: &Path, file: &Path, name: &str) -> Took {
    let mut host = Host::open(&options(dir)).expect("it opens");
    let catalog = PluginCatalog::new(host.runtime().clone());
    settle();
    let cpu = cpu_s();
    let (_, clock) = run_pipeline(&mut host, &catalog, file);
    settle();
    let cpu = cpu_s() - cpu;
    let out = format!("{name}-out");
    let outputs = records_of(host.log(), &out);
    assert!(host.stop(Duration::from_secs(30)), "it stops");
    for topic in host.log().topics().expect("the log answers") {
        if topic.spec.name.starts_with(name) {
            host.log().delete_topic(&topic.spec.name).expect("it goes");
        }
    }
    Took { cpu, clock, outputs }
}

/// One turn of a loop by hand, on a log that was opened for it.
fn turn_by_hand<J: Job>(dir: &Path, name: &str) -> Took {
    let log = open(dir);
    let (out, changelog) = (format!("{name}-out"), format!("{name}-changelog"));
    make_topic(&log, &out, PARTITIONS);
    make_topic(&log, &changelog, PARTITIONS);
    settle();
    let (cpu, clock) = (cpu_s(), Instant::now());
    by_hand::run::<J>(&log, name, &out, &changelog, PARTITIONS);
    let clock = clock.elapsed().as_secs_f64();
    settle();
    let cpu = cpu_s() - cpu;
    let outputs = records_of(&log, &out);
    for topic in [out, changelog] {
        log.delete_topic(&topic).expect("it goes");
    }
    Took { cpu, clock, outputs }
}

/// A pipeline and the same by hand, in turns; prints a row.
fn compare<J: Job>(job: &str, title: &str, dir: &Path, records: u64, file: impl Fn(&str) -> PathBuf) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn_number in 0..=TURNS {
        let name = format!("{job}-{turn_number}");
        let our = turn(dir, &file(&name), &name);
        let their = turn_by_hand::<J>(dir, &format!("{name}-by-hand"));
        // The first turn compiles and makes files.
        if turn_number > 0 {
            ours.push(our);
            theirs.push(their);
        }
    }
    let us = |took: &Took| took.cpu * 1e6 / records as f64;
    let rate = |took: &Took| records as f64 / took.clock;
    let of = |sides: &[Took], what: &dyn Fn(&Took) -> f64| median(sides.iter().map(what).collect());
    let ratios = ours.iter().zip(&theirs).map(|(our, their)| our.cpu / their.cpu);
    let outputs = |took: &Took| took.outputs as f64;
    println!(
        "| {job}: {title} | {:.2} | {:.2} | **{:.2}** | {:.0} | {:.0} | {:.0} | {:.0} |",
        of(&ours, &us),
        of(&theirs, &us),
        median(ratios.collect()),
        of(&ours, &rate),
        of(&theirs, &rate),
        of(&ours, &outputs),
        of(&theirs, &outputs),
    );
}

fn head(job: &str) {
    println!(
        "| {job} | Millstream, µs CPU a record | by hand | ratio | Millstream, records/s | by hand | results | by hand |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
}

fn few_keys() {
    count(&Keys::uniform(265), 4_000_000);
}

fn many_keys() {
    count(&Keys::uniform(1_000_000), 2_000_000);
}

fn zipf_keys() {
    count(&Keys::zipf(1_000_000), 2_000_000);
}

fn count(keys: &Keys, records: u64) {
    println!("\n### Counting by key, beside the same loop by hand: {keys}, {records} records\n");
    head("job");
    let dir = tempfile::tempdir().expect("a folder");
    input::fill(&open(dir.path()), keys, PARTITIONS, records, |_| input::TIME_MS);
    let title = format!("{keys}");
    compare::<CountByField>("store", &title, dir.path(), records, |name| {
        pipeline_file(dir.path(), name, "count-by-vendor", "counted", "", "")
    });
    compare::<CountByKey>("aggregator", &title, dir.path(), records, |name| {
        pipeline_file(dir.path(), name, "count", "counted", "emit = \"update\"", "")
    });
}

fn windows() {
    println!("\n### Counting by key and minute, beside the same loop by hand\n");
    head("keys, records");
    for (keys, records, per_minute) in [(265, 4_000_000, 5_000), (100_000, 2_000_000, 400_000)] {
        let keys = Keys::uniform(keys);
        let dir = tempfile::tempdir().expect("a folder");
        input::fill(&open(dir.path()), &keys, PARTITIONS, records, |at| {
            input::TIME_MS + (at as f64 * 60_000.0 / per_minute as f64) as i64
        });
        let title = format!("{keys}, {records} of {per_minute} a minute");
        compare::<CountByMinute>("windows", &title, dir.path(), records, |name| {
            let stage = "window = \"1m\"\nemit = \"close\"";
            let file = pipeline_file(dir.path(), name, "count", "counted", stage, "");
            let text = std::fs::read_to_string(&file).expect("it was written");
            std::fs::write(&file, format!("{text}late = false\n")).expect("the file is written");
            file
        });
    }
}
