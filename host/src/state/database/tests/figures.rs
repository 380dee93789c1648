//! What the local store costs, printed: `MILLSTREAM_FIGURES=1 cargo test --release -p millstream --lib figures -- --nocapture`.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const FIGURES_VARIABLE: &str = "MILLSTREAM_FIGURES";
const FOLDER_VARIABLE: &str = "MILLSTREAM_TEST_STATE_FIGURES_FOLDER";
const KEYS: u64 = 1_000_000;
const RUNS: u64 = 10;

/// Of all threads, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// A million rows of 16 and 64 bytes, in ten runs over all keys.
fn fill(db: &StateDb) {
    let mut keys: Vec<_> = (0..KEYS).map(key).collect();
    keys.sort_unstable();
    for run in 0..RUNS {
        let value = [run as u8; 64];
        let rows: Vec<_> = keys
            .iter()
            .skip(run as usize)
            .step_by(RUNS as usize)
            .map(|key| StoreRow {
                key,
                value: Some(&value),
                timestamp_ms: 0,
            })
            .collect();
        db.apply("c", 0, Segmenting::None, &rows, run + 1).unwrap();
    }
}

/// Not a test but the process that is killed.
#[test]
fn figures_writer() {
    let Ok(folder) = std::env::var(FOLDER_VARIABLE) else {
        return;
    };
    let db = StateDb::open(Path::new(&folder), StateOptions::default()).unwrap().db;
    fill(&db);
    println!("filled");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn figures() {
    if std::env::var_os(FIGURES_VARIABLE).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let db = StateDb::open(dir.path(), StateOptions::default()).unwrap().db;
    let (since, cpu) = (Instant::now(), cpu_seconds());
    fill(&db);
    let wall = since.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(3));
    let cpu = cpu_seconds() - cpu;
    println!(
        "apply of 1 M rows: {wall:.2} µs a row, CPU {cpu:.2} µs a row with merging; {} MB",
        db.bytes(["c"]).unwrap() >> 20
    );
    let mut random = StdRng::seed_from_u64(1);
    for pass in ["cold", "hot"] {
        let (since, cpu) = (Instant::now(), cpu_seconds());
        for _ in 0..KEYS {
            assert!(db.get("c", 0, &key(random.random_range(0..KEYS))).unwrap().is_some());
        }
        let wall = since.elapsed().as_secs_f64();
        println!(
            "get of a random key of 1 M, {pass}: {wall:.2} µs, CPU {:.2} µs",
            cpu_seconds() - cpu
        );
    }
    let since = Instant::now();
    assert_eq!(db.range("c", 0, &KeyRange::all()).unwrap().count() as u64, KEYS);
    println!("scan of 1 M rows: {:.2} µs a row", since.elapsed().as_secs_f64());
    db.close();
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "state::database::tests::figures::figures_writer",
            "--nocapture",
        ])
        .env(FOLDER_VARIABLE, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    assert!(stdout.lines().any(|line| line.unwrap().ends_with("filled")));
    child.kill().unwrap();
    child.wait().unwrap();
    let since = Instant::now();
    let opened = StateDb::open(dir.path(), StateOptions::default()).unwrap();
    println!("reopen after kill -9 with 1 M rows: {:?}", since.elapsed());
    assert_eq!((opened.set_aside, opened.db.flushed("c", 0)), (None, Ok(Some(RUNS))));
    let since = Instant::now();
    assert!(opened.db.get("c", 0, &key(7)).unwrap().is_some());
    println!("first get: {:?}", since.elapsed());
}
