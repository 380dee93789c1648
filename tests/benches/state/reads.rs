//! What it costs a loop that others read its state meanwhile.

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use millstream::connect::{TopicPartition, partition_of};
use millstream::control::{Host, PluginCatalog};
use millstream::state::database::KeyRange;
use millstream::state::{Backend, CommittedStore};
use millstream_tests::measure::{cpu_s, median, options, run_pipeline, settle};
use millstream_tests::open;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::input::{self, Keys};
use super::{PARTITIONS, TURNS, pipeline_file};

const KEYS: u64 = 1_000_000;
const RECORDS: u64 = 4_000_000;
const READS_PER_SECOND: u32 = 1_000;

/// How a row is read.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    None,
    /// What was flushed to the local store.
    Flushed,
    /// What was committed: the local store, and what the changelog has behind it.
    Committed,
}

struct Took {
    cpu: f64,
    clock: f64,
    reads: u64,
    /// Reads that found a row; there is none before the key was first counted, or flushed.
    found: u64,
    reads_cpu: f64,
}

pub fn reads() {
    println!(
        "\n### Reads of others meanwhile: the aggregator, {KEYS} keys, {RECORDS} records, {READS_PER_SECOND} reads/s wanted\n"
    );
    println!(
        "| point reads of | µs CPU a record, the reads' left out | records/s | reads/s | that found a row, % | µs CPU a read |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let dir = tempfile::tempdir().expect("a folder");
    let keys = Keys::uniform(KEYS);
    input::fill_bare(&open(dir.path()), &keys, PARTITIONS, RECORDS, |_| input::TIME_MS);
    let ways = [
        ("nothing", Way::None),
        ("the local store", Way::Flushed),
        ("all that is committed", Way::Committed),
    ];
    let mut took: [Vec<Took>; 3] = Default::default();
    for turn_number in 0..TURNS {
        for (at, (_, way)) in ways.iter().enumerate() {
            took[at].push(turn(dir.path(), &format!("reads{turn_number}-{at}"), *way));
        }
    }
    for ((title, way), took) in ways.iter().zip(&took) {
        let of = |what: &dyn Fn(&Took) -> f64| median(took.iter().map(what).collect());
        let reads = if *way == Way::None {
            "– | – | –".into()
        } else {
            let each = of(&|took| took.reads_cpu * 1e6 / took.reads.max(1) as f64);
            let found = of(&|took| took.found as f64 * 100.0 / took.reads.max(1) as f64);
            format!(
                "{:.0} | {found:.0} | {each:.1}",
                of(&|took| took.reads as f64 / took.clock)
            )
        };
        println!(
            "| {title} | {:.2} | {:.0} | {reads} |",
            of(&|took| took.cpu * 1e6 / RECORDS as f64),
            of(&|took| RECORDS as f64 / took.clock),
        );
    }
}

fn turn(dir: &std::path::Path, name: &str, way: Way) -> Took {
    let file = pipeline_file(dir, name, "count", "counted", "emit = \"update\"", "");
    let mut host = Host::open(&options(dir)).expect("it opens");
    let catalog = PluginCatalog::new(host.runtime().clone());
    // A host has a backend as soon as one of its pipelines keeps something.
    let idle = pipeline_file(
        dir,
        &format!("{name}-idle"),
        "count",
        "counted",
        "emit = \"update\"",
        "",
    );
    let idle_text = std::fs::read_to_string(&idle).expect("it was written");
    std::fs::write(
        &idle,
        idle_text.replace("[source.rides]", "[source.rides]\ntopic = \"none\""),
    )
    .expect("the file is written");
    if host.log().topic("none").is_err() {
        millstream_tests::make_topic(host.log(), "none", 1);
    }
    let (_, plan) = millstream::pipeline::load(&idle, &|_| None, &catalog).expect("a right file");
    host.start(plan, &catalog).expect("it starts");
    let backend = host.kept_with().expect("a pipeline keeps something").clone();
    settle();
    let (stop, reads, found) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let changelog = format!("{name}-s-changelog");
    let took = thread::scope(|scope| {
        let reader = scope.spawn(|| read(&backend, &changelog, way, &stop, [&reads, &found]));
        let cpu = cpu_s();
        let (_, clock) = run_pipeline(&mut host, &catalog, &file);
        stop.store(true, Ordering::Release);
        let done = reads.load(Ordering::Acquire);
        let reads_cpu = reader.join().expect("it reads");
        settle();
        Took {
            cpu: cpu_s() - cpu - reads_cpu,
            clock,
            reads: done,
            found: found.load(Ordering::Acquire),
            reads_cpu,
        }
    });
    assert!(host.stop(Duration::from_secs(30)), "it stops");
    for topic in host.log().topics().expect("the log answers") {
        if topic.spec.name.starts_with(name) {
            host.log().delete_topic(&topic.spec.name).expect("it goes");
        }
    }
    took
}

/// Reads rows of random keys until it is to stop; its processor seconds. Counts reads that were answered, and those of
/// them that found a row.
fn read(backend: &Backend, changelog: &str, way: Way, stop: &AtomicBool, [reads, found]: [&AtomicU64; 2]) -> f64 {
    let own_cpu_s = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let mut random = StdRng::seed_from_u64(2);
    let (began, interval) = (Instant::now(), Duration::from_secs(1) / READS_PER_SECOND);
    let cpu = own_cpu_s();
    let mut done: u32 = 0;
    while way != Way::None && !stop.load(Ordering::Acquire) {
        let key = random.random_range(0..KEYS).to_string().into_bytes();
        let place = TopicPartition::new(changelog, partition_of(&key, PARTITIONS));
        // Until the pipeline has made its changelog there is nothing to read.
        let row = match way {
            Way::None => None,
            Way::Flushed => backend
                .db
                .get(changelog, place.partition, &key)
                .expect("it can be read"),
            Way::Committed => {
                let range = KeyRange {
                    from: Bound::Included(key.clone()),
                    to: Bound::Included(key.clone()),
                };
                let Ok(store) = CommittedStore::open(&backend.db, &*backend.log, &place, &range) else {
                    thread::sleep(interval);
                    continue;
                };
                store.get(&key).expect("it can be read")
            }
        };
        done += 1;
        reads.fetch_add(1, Ordering::Release);
        found.fetch_add(u64::from(row.is_some()), Ordering::Release);
        thread::sleep((began + interval * done).saturating_duration_since(Instant::now()));
    }
    own_cpu_s() - cpu
}
