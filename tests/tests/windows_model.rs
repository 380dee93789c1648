//! Promise: windows count what a naive model counts that keeps every record: over late, disordered and future records and
//! such without a key, whatever the batches, the commits and the restarts between them.
//!
//! 40 cases here; `MILLSTREAM_MODEL_RUNS=10000` asks for more. A case that fails is printed, and kept smallest.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::connect::Options;
use millstream::record::Record;
use millstream_tests::{InProcess, append, header, make_topic, read_topic};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);
/// Later than any clock that appends these records.
const FUTURE_MS: i64 = 4_000_000_000_000;

fn runs(default: u32) -> u32 {
    std::env::var("MILLSTREAM_MODEL_RUNS").map_or(default, |runs| runs.parse().expect("a number"))
}

/// A record as the model sees it.
#[derive(Clone, Debug)]
struct Event {
    key: Option<u8>,
    timestamp_ms: i64,
    /// Quarters, whose sums are exact; none where it is not a number.
    quarters: Option<i16>,
}

#[derive(Clone, Copy, Debug)]
struct Windows {
    size: i64,
    advance: i64,
    offset: i64,
    grace: i64,
}

#[derive(Clone, Debug)]
struct Case {
    windows: Windows,
    /// By partition, by batch.
    partitions: Vec<Vec<Vec<Event>>>,
    commit_interval_ms: u32,
    /// Whether the host is started anew after the first half of the batches.
    restarts: bool,
}

fn event() -> impl Strategy<Value = Event> {
    let key = prop_oneof![9 => (0u8..4).prop_map(Some), 1 => Just(None)];
    let quarters = prop_oneof![12 => (-400i16..400).prop_map(Some), 1 => Just(None)];
    // As the place in the stream, and how far from it.
    let time = prop_oneof![20 => -30i64..30, 3 => -400i64..0, 1 => Just(FUTURE_MS), 1 => 100i64..200];
    (key, time, quarters).prop_map(|(key, timestamp_ms, quarters)| Event {
        key,
        timestamp_ms,
        quarters,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let windows = (1i64..120, 0i64..8, 0i64..120, prop_oneof![Just(0i64), 0i64..100]);
    let windows = windows.prop_map(|(size, overlap, offset, grace)| {
        let advance = (size / (overlap + 1)).max(1);
        Windows {
            size,
            advance,
            offset: offset % advance,
            grace,
        }
    });
    let batches = prop::collection::vec(prop::collection::vec(event(), 1..30), 0..8);
    let partitions = prop::collection::vec(batches, 1..4).prop_map(|mut partitions| {
        for events in &mut partitions {
            let place = events
                .iter_mut()
                .flatten()
                .filter(|event| event.timestamp_ms != FUTURE_MS);
            (0..).zip(place).for_each(|(n, event)| event.timestamp_ms += n * 5);
        }
        partitions
    });
    let intervals = prop_oneof![Just(1u32), 2u32..40];
    (windows, partitions, intervals, any::<bool>()).prop_map(|(windows, partitions, commit_interval_ms, restarts)| {
        Case {
            windows,
            partitions,
            commit_interval_ms,
            restarts,
        }
    })
}

/// What is to come out, by source partition.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    /// Key, timestamp and value, in their order.
    closed: Vec<(String, i64, String)>,
    every: Vec<(String, i64, String)>,
    /// The last of each key and window.
    updated: BTreeMap<(String, i64), (i64, String)>,
    /// Timestamp and reason.
    late: Vec<(i64, String)>,
    unkeyed: Vec<i64>,
    undecoded: Vec<i64>,
}

/// All that a group has.
fn result(members: &[(i64, i16)], start: i64, windows: Windows) -> (i64, String) {
    let numbers = || members.iter().map(|(_, quarters)| f64::from(*quarters) / 4.0);
    let (count, sum) = (members.len(), numbers().sum::<f64>());
    let min = numbers().fold(f64::INFINITY, f64::min);
    let max = numbers().fold(f64::NEG_INFINITY, f64::max);
    let newest = members.iter().map(|(time, _)| *time).max().expect("a member");
    let bounds = format!("{start} {}", start + windows.size);
    (
        newest,
        format!("{count} {sum} {min} {max} {} {bounds}", sum / count as f64),
    )
}

fn model(windows: Windows, partition: usize, events: &[Event]) -> Answer {
    let mut answer = Answer::default();
    let mut now: Option<i64> = None;
    let mut groups: BTreeMap<(i64, String), Vec<(i64, i16)>> = BTreeMap::new();
    for event in events {
        let time = event.timestamp_ms;
        let Some(quarters) = event.quarters else {
            answer.undecoded.push(time);
            continue;
        };
        let Some(key) = event.key else {
            answer.unkeyed.push(time);
            continue;
        };
        if time == FUTURE_MS {
            answer.late.push((time, "future".into()));
            continue;
        }
        let stream_time = now.map_or(time, |now| now.max(time));
        now = Some(stream_time);
        let all: Vec<i64> = (0..)
            .map(|n| windows.offset + n * windows.advance)
            .take_while(|start| *start <= time)
            .filter(|start| time < start + windows.size)
            .collect();
        let is_open = |start: &&i64| **start + windows.size + windows.grace > stream_time;
        let open: Vec<i64> = all.iter().filter(is_open).copied().collect();
        match (all.last(), open.is_empty()) {
            (None, _) => answer
                .late
                .push((time, format!("before the epoch: its timestamp is {time}"))),
            (Some(last), true) => {
                let behind = stream_time - (last + windows.size);
                let why = format!("closed: its last window ended {behind} ms before stream time");
                answer.late.push((time, why));
            }
            (Some(_), false) => {}
        }
        for start in open {
            let key = format!("{partition}-{key}");
            let members = groups.entry((start, key.clone())).or_default();
            members.push((time, quarters));
            let (newest, value) = result(members, start, windows);
            answer.every.push((key, newest, value));
        }
    }
    for ((start, key), members) in groups {
        let (newest, value) = result(&members, start, windows);
        answer.closed.push((key.clone(), newest, value.clone()));
        answer.updated.insert((key, start), (newest, value));
    }
    answer
}

fn record(partition: usize, event: &Event) -> Record {
    let number = event
        .quarters
        .map_or("\"x\"".into(), |quarters| (f64::from(quarters) / 4.0).to_string());
    Record {
        key: event.key.map(|key| format!("{partition}-{key}").into_bytes()),
        value: Some(format!("{{\"v\":{number}}}").into_bytes()),
        headers: [("p", Some(partition.to_string().as_bytes()))].into_iter().collect(),
        timestamp_ms: event.timestamp_ms,
    }
}

fn pipeline(name: &str, case: &Case) -> String {
    let Windows {
        size,
        advance,
        offset,
        grace,
    } = case.windows;
    let stage = |stage: &str, emit: &str, rest: &str| {
        format!(
            r#"
            [stage.{stage}]
            plugin = "@statistics"
            input = "{name}"
            config = {{ field = "/v" }}
            window = {{ hopping = "{size}ms", advance = "{advance}ms", offset = "{offset}ms", grace = "{grace}ms" }}
            emit = "{emit}"
            [stage.{stage}.to]
            statistics = {{ topic = "{name}-{stage}", partitions = 1 }}
            {rest}
            "#
        )
    };
    let nowhere = "late = false\nunkeyed = false";
    let ways = format!(
        "late = {{ topic = \"{name}-late\", partitions = 1 }}\nunkeyed = {{ topic = \"{name}-unkeyed\", partitions = 1 }}"
    );
    format!(
        "name = \"{name}\"\n[source.{name}]\n[commit]\ninterval = \"{}ms\"\n{}{}{}",
        case.commit_interval_ms,
        stage("closed", "close", &ways),
        stage("every", "every-update", nowhere),
        stage("updated", "update", nowhere),
    )
}

/// What came out, by source partition.
fn found(running: &InProcess, name: &str, partitions: usize) -> Vec<Answer> {
    let mut answers: Vec<Answer> = (0..partitions).map(|_| Answer::default()).collect();
    let topic = |of: &str| read_topic(running.log(), &format!("{name}-{of}")).concat();
    let result = |record: &Record| {
        let value: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        let number = |of: &str| value[of].as_f64().expect("a number");
        let time = |of: &str| {
            let time: jiff::Timestamp = value[of].as_str().and_then(|text| text.parse().ok()).expect("a time");
            time.as_millisecond()
        };
        let text = format!(
            "{} {} {} {} {} {} {}",
            value["count"],
            number("sum"),
            number("min"),
            number("max"),
            number("mean"),
            time("window_start"),
            time("window_end")
        );
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("UTF-8");
        let partition: usize = key.split('-').next().expect("a partition").parse().expect("a number");
        (partition, key, time("window_start"), record.timestamp_ms, text)
    };
    for record in topic("closed") {
        let (partition, key, _, time, text) = result(&record);
        answers[partition].closed.push((key, time, text));
    }
    for record in topic("every") {
        let (partition, key, _, time, text) = result(&record);
        answers[partition].every.push((key, time, text));
    }
    for record in topic("updated") {
        let (partition, key, start, time, text) = result(&record);
        answers[partition].updated.insert((key, start), (time, text));
    }
    let from = |record: &Record| {
        header(record, "p")
            .expect("its partition")
            .parse::<usize>()
            .expect("a number")
    };
    for record in topic("late") {
        let why = header(&record, "__millstream.late").expect("a reason");
        // How far ahead it is depends on the clock.
        let why = if why.starts_with("future: its timestamp is ") {
            "future"
        } else {
            why
        };
        answers[from(&record)].late.push((record.timestamp_ms, why.to_owned()));
    }
    for record in topic("unkeyed") {
        answers[from(&record)].unkeyed.push(record.timestamp_ms);
    }
    let of_closed = |record: &Record| header(record, "__millstream.stage") == Some("closed");
    for record in topic("dlq").iter().filter(|record| of_closed(record)) {
        assert_eq!(header(record, "__millstream.reason"), Some("decode"));
        answers[from(record)].undecoded.push(record.timestamp_ms);
    }
    answers
}

/// Says where two lists begin to differ.
fn same<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T], what: &str) -> Result<(), TestCaseError> {
    let at = (0..found.len().max(expected.len())).find(|&at| found.get(at) != expected.get(at));
    let differs = at.map(|at| format!("{what} {at}: {:?} instead of {:?}", found.get(at), expected.get(at)));
    prop_assert_eq!(differs, None);
    Ok(())
}

#[test]
fn windows_count_what_a_model_counts_that_keeps_every_record() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let open = || InProcess::open(&data, 2, Options::default());
    let running = std::cell::RefCell::new(Some(open()));
    let reopen = || {
        let mut running = running.borrow_mut();
        let mut before = running.take().expect("a host");
        assert!(before.host.stop(LONG), "it stops");
        before.log().close();
        drop(before);
        *running = Some(open());
    };
    let number = std::cell::Cell::new(0);
    let config = Config {
        cases: runs(40),
        // A case that shrinks runs again and again.
        max_shrink_iters: 100,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&case(), |case| {
        let n = number.replace(number.get() + 1);
        let name = format!("m{n}");
        let text = pipeline(&name, &case);
        let count = case.partitions.len();
        if n % 30 == 29 {
            reopen();
        }
        let batches = |half: usize| {
            let running = running.borrow();
            let running = running.as_ref().expect("a host");
            for (partition, batches) in case.partitions.iter().enumerate() {
                let (front, back) = batches.split_at(batches.len() / 2);
                for batch in [front, back][half] {
                    let records: Vec<Record> = batch.iter().map(|event| record(partition, event)).collect();
                    append(running.log(), &name, partition as u32, &records);
                }
            }
        };
        make_topic(running.borrow().as_ref().expect("a host").log(), &name, count as u32);
        let start = || running.borrow_mut().as_mut().expect("a host").start(&name, &text);
        start();
        batches(0);
        if case.restarts {
            reopen();
            start();
        }
        batches(1);
        let running = running.borrow();
        let running = running.as_ref().expect("a host");
        running.until_end(LONG);
        assert!(running.host.close_windows(&|| false), "they close");
        let found = found(running, &name, count);
        for (partition, found) in found.into_iter().enumerate() {
            let expected = model(case.windows, partition, &case.partitions[partition].concat());
            same(&found.closed, &expected.closed, "closed")?;
            same(&found.every, &expected.every, "every")?;
            same(&found.late, &expected.late, "late")?;
            let updated = |answer: &Answer| answer.updated.clone().into_iter().collect::<Vec<_>>();
            same(&updated(&found), &updated(&expected), "updated")?;
            prop_assert_eq!(found, expected);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
