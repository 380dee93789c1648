//! A process is killed while it flushes: nothing that was committed is lost, and nothing old comes back.

use super::*;
use crate::crash::{CRASH_VARIABLE, STATE_CRASH_POINTS};
use crate::state::read::CommittedStore;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

const FOLDER_VARIABLE: &str = "MILLSTREAM_TEST_STATE_FOLDER";
const STEPS: i64 = 150;
const KEYS: i64 = 50;
/// How long a row is kept.
const KEPT_MS: i64 = 30;
const BY_ROW: Segmenting = Segmenting::ByRowTime { segment_ms: 10 };

/// Step `n` changes or deletes one key, at time `n`.
fn step(n: i64) -> (String, String) {
    let value = if n % 7 == 3 { String::new() } else { n.to_string() };
    (format!("k{:02}", n * 7 % KEYS), value)
}

/// The rows after so many steps, without those that are past.
fn model(steps: i64) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for n in 0..steps {
        let (key, value) = step(n);
        rows.insert(key, value);
    }
    rows.retain(|_, value| value.parse().is_ok_and(|n: i64| n >= steps - KEPT_MS));
    rows
}

/// Not a test but the process that is killed: it runs this test alone, with a folder in its environment.
#[test]
fn writer() {
    let Ok(folder) = std::env::var(FOLDER_VARIABLE) else {
        return;
    };
    let parts = Parts::make(Path::new(&folder), 400);
    let flusher = parts.flusher(1 << 20);
    for n in parts.log.next_offset(&place()).unwrap() as i64..STEPS {
        let (key, value) = step(n);
        let to = parts.commit(&[(&key, &value, n)]);
        // Some flushes have several steps, and one key in several segments.
        if n % 3 != 1 {
            flush(&flusher, to, BY_ROW, Some(n + 1 - KEPT_MS)).unwrap();
            println!("acknowledged {to}");
        }
    }
    println!("finished");
}

/// Runs the writer until it dies or ends; the offset that it was told is flushed, and whether it finished.
fn run_writer(folder: &Path, crash_at: Option<&str>, kill_after: Option<Duration>) -> (u64, bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "state::flush::tests::crash::writer",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env(FOLDER_VARIABLE, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(point) = crash_at {
        command.env(CRASH_VARIABLE, point);
    }
    let mut child = command.spawn().unwrap();
    if let Some(after) = kill_after {
        std::thread::sleep(after);
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let finished = text.contains("finished");
    assert!(finished || !output.status.success(), "the writer ended early by itself");
    let told = text
        .rsplit_once("acknowledged ")
        .map(|(_, rest)| rest.lines().next().unwrap().parse().unwrap());
    (told.unwrap_or(0), finished)
}

fn committed(parts: &Parts, steps: i64) -> BTreeMap<String, String> {
    let all = KeyRange::all();
    let store = CommittedStore::open(&parts.db, &*parts.log, &place(), &all).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let is_past = |_: &[u8], row: &[u8]| text(row).parse::<i64>().unwrap() < steps - KEPT_MS;
    let rows = store.rows(&all, is_past).unwrap();
    rows.map(|row| row.map(|(key, row)| (text(&key), text(&row))).unwrap())
        .collect()
}

fn check(folder: &Path, told: u64) -> u64 {
    let parts = Parts::make(folder, 400);
    let steps = parts.log.next_offset(&place()).unwrap();
    let flushed = parts.db.flushed("c", 0).unwrap().unwrap_or(0);
    assert!(told <= flushed && flushed <= steps, "{told} {flushed} {steps}");
    let steps = steps as i64;
    assert_eq!(committed(&parts, steps), model(steps));
    let segments = parts.db.segments("c").unwrap();
    let oldest = (flushed as i64 - KEPT_MS - 30).div_euclid(10) * 10;
    assert!(
        segments.iter().all(|start| *start >= oldest),
        "{segments:?} at {flushed}"
    );
    flushed
}

#[test]
fn killed_at_every_named_point() {
    for point in STATE_CRASH_POINTS {
        let dir = tempfile::tempdir().unwrap();
        let mut deaths = 0;
        for nth in [1, 2, 5] {
            let (told, finished) = run_writer(dir.path(), Some(&format!("{point}:{nth}")), None);
            deaths += u32::from(!finished);
            check(dir.path(), told);
        }
        assert!(deaths >= 2, "the point {point} was passed by {deaths} writers");
        let (told, finished) = run_writer(dir.path(), None, None);
        assert!(finished, "{point}");
        check(dir.path(), told);
    }
}

#[test]
fn killed_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut told_at_most = 0;
    for kill in 0..10u32 {
        let after = Duration::from_micros(20_000 + (seed.rotate_left(kill * 6) % 120_000));
        let (told, _) = run_writer(dir.path(), None, Some(after));
        told_at_most = check(dir.path(), told.max(told_at_most));
    }
    let (told, finished) = run_writer(dir.path(), None, None);
    assert!(finished);
    check(dir.path(), told.max(told_at_most));
}
