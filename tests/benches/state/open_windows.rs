//! A million windows open at once: what a record costs then, and what closing all of them does.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use millstream::cli::run::work;
use millstream::connect::partition_of;
use millstream::control::{Host, PluginCatalog};
use millstream::limits::PAUSED_TIME_MAX;
use millstream_tests::measure::{cpu_s, options, run_pipeline, settle};
use millstream_tests::{append, open};

use super::input::{self, Keys, TIME_MS};
use super::{PARTITIONS, pipeline_file, records_of};

const KEYS: u64 = 1_000;
const MINUTES: u64 = 1_000;
const RECORDS: u64 = 2_000_000;

pub fn open_windows() {
    println!("\n### {KEYS} keys in {MINUTES} minutes: a million groups in open windows, {RECORDS} records\n");
    println!("| results | µs CPU a record | groups that end | until they are gone, ms | µs CPU a group |");
    println!("| --- | --- | --- | --- | --- |");
    for (title, emit) in [
        ("when a window closes", "close"),
        ("for what changed (closing drops only)", "update"),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        // Each time one of the minutes, in no order.
        let minute = |at: u64| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % MINUTES;
        input::fill_bare(&open(dir.path()), &Keys::uniform(KEYS), PARTITIONS, RECORDS, |at| {
            TIME_MS + minute(at) as i64 * 60_000
        });
        let stage = format!("emit = \"{emit}\"\nwindow = {{ tumbling = \"1m\", grace = \"30d\" }}");
        let file = pipeline_file(
            dir.path(),
            "many",
            "count",
            "counted",
            &stage,
            "[state]\nmemory = \"1GB\"",
        );
        let text = std::fs::read_to_string(&file).expect("it was written");
        std::fs::write(&file, format!("{text}late = false\n")).expect("the file is written");
        let mut host = Host::open(&options(dir.path())).expect("it opens");
        let catalog = PluginCatalog::new(host.runtime().clone());
        settle();
        let cpu = cpu_s();
        run_pipeline(&mut host, &catalog, &file);
        settle();
        let counting = cpu_s() - cpu;
        let groups = groups();
        let before = records_of(host.log(), "many-out");
        let (cpu, clock) = (cpu_s(), Instant::now());
        for key in 0.. {
            // One to each partition moves its time.
            let record = input::bare(key, TIME_MS + 100 * 86_400_000);
            let partition = partition_of(record.key.as_deref().expect("it has one"), PARTITIONS);
            append(host.log(), "rides", partition, &[record]);
            if partition + 1 == PARTITIONS {
                break;
            }
        }
        work(&mut host, &AtomicBool::new(false), true, PAUSED_TIME_MAX).expect("nothing pauses it");
        let clock = clock.elapsed().as_secs_f64();
        settle();
        let cpu = cpu_s() - cpu;
        let results = records_of(host.log(), "many-out") - before;
        println!(
            "| {title} | {:.2} | {groups} ({results} results) | {:.0} | {:.2} |",
            counting * 1e6 / RECORDS as f64,
            clock * 1e3,
            cpu * 1e6 / groups as f64,
        );
        assert!(host.stop(Duration::from_secs(30)), "it stops");
    }
}

/// Groups that were hit, as keys and minutes are picked.
fn groups() -> u64 {
    let share = 1.0 - (1.0 - 1.0 / (KEYS * MINUTES) as f64).powf(RECORDS as f64);
    ((KEYS * MINUTES) as f64 * share) as u64
}
