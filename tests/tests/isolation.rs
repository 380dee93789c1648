//! Promise: a plugin that fails costs the records at fault and nothing else. They are in the dead-letter queue, with
//! all that is known of them; the others come out once and in order; the neighbours do not wait, and the memory that
//! was taken comes back.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::connect::{Options, TopicPartition};
use millstream::control::PluginCatalog;
use millstream::guest::{self, Runtime};
use millstream::record::Record;
use millstream_tests::{
    InProcess, append, cache, header, make_topic, millstream, open, plugin, program, read_topic, resident_bytes, value,
};
use sha2::{Digest, Sha256};

/// Long enough for a loaded machine; whoever meets it hangs.
const LONG: Duration = Duration::from_secs(60);
/// Records of the two partitions of a source.
const RECORDS: [u64; 2] = [1500, 500];
/// The poisoned ones: each in a batch of its own, as some kinds spoil one row of a batch and leave the others.
const POISONED: [(usize, u64); 3] = [(0, 337), (0, 1203), (1, 0)];

/// One test at a time: they measure memory and time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a kind does to the rows that it is poisoned by.
enum Fate {
    /// Reason, exception, words of the message, and whether frames are told.
    Dead(&'static str, &'static str, &'static str, bool),
    /// As `Dead`, for all rows of the batch.
    AllDead(&'static str, &'static str, &'static str),
    /// Nothing: it comes out as the others do.
    Lives,
}
use Fate::{AllDead, Dead, Lives};

/// Kind, amount, and what becomes of the rows.
const KINDS: &[(&str, Option<u64>, Fate)] = &[
    ("panic", None, Dead("call", "trap", "a poisoned row", true)),
    (
        "panic-with-newlines",
        None,
        Dead("call", "trap", r"first\nsecond\r\n\u{1b}[31mred\u{1b}[0m\u{0}end", true),
    ),
    ("panic-huge", None, Dead("call", "trap", "long long long", true)),
    ("trap", None, Dead("call", "trap", "unreachable", true)),
    ("divide-by-zero", None, Dead("call", "trap", "unreachable", true)),
    ("loop", None, Dead("call", "time", "did not end within 50ms", true)),
    ("recursion", None, Dead("call", "trap", "calls itself", true)),
    (
        "memory-by-page",
        None,
        Dead("call", "memory", "but its limit is 33554432", true),
    ),
    (
        "memory-at-once",
        None,
        Dead("call", "memory", "bytes of memory, but its limit", true),
    ),
    (
        "memory-fill",
        None,
        Dead("call", "time", "did not end within 50ms", true),
    ),
    (
        "leak-per-batch",
        Some(40 << 20),
        Dead("call", "memory", "bytes of memory, but its limit", true),
    ),
    ("leak-per-batch", Some(1 << 20), Lives),
    ("slow", Some(100_000), Lives),
    ("huge-log", None, Lives),
    (
        "endless-log",
        None,
        Dead("call", "time", "did not end within 50ms", true),
    ),
    ("forged-log", None, Lives),
    (
        "metric-out-of-range",
        None,
        Dead("call", "misuse", "metric 7 does not exist: the signature has 1", true),
    ),
    (
        "metric-loop",
        None,
        Dead("call", "misuse", "more than 10000 metric updates in one call", true),
    ),
    (
        "error",
        None,
        Dead("refused", "refused", "this batch is refused", false),
    ),
    ("huge-error", None, Dead("refused", "refused", "long long long", false)),
    (
        "failed-row",
        None,
        Dead("refused", "refused", "this row is poisoned", false),
    ),
    ("failed-rows", None, AllDead("refused", "refused", "refused")),
    (
        "failed-out-of-range",
        None,
        Dead("call", "output", "row 1 does not exist: 1 rows went in", false),
    ),
    (
        "failed-twice",
        None,
        Dead("call", "output", "row 0 is named twice", false),
    ),
    (
        "failed-and-emitted",
        None,
        Dead("call", "output", "row 0, which is among the failed rows", false),
    ),
    (
        "huge-failure",
        None,
        Dead("refused", "refused", "long long long", false),
    ),
    (
        "origin-out-of-range",
        None,
        Dead("call", "output", "is row 1, but only 1 rows went in", false),
    ),
    (
        "origin-falls",
        None,
        Dead("call", "output", "is row 1, but only 1 rows went in", false),
    ),
    (
        "origins-ragged",
        None,
        Dead("call", "output", "`origins` has 5 bytes, no multiple of 4", false),
    ),
    (
        "too-few-branches",
        None,
        Dead("call", "output", "returned 0 branches, but its signature has 1", false),
    ),
    (
        "too-many-branches",
        None,
        Dead("call", "output", "returned 2 branches, but its signature has 1", false),
    ),
    (
        "too-few-columns",
        None,
        Dead("call", "output", "has 0 columns, but its schema has 1 fields", false),
    ),
    (
        "too-many-columns",
        None,
        Dead("call", "output", "has 2 columns, but its schema has 1 fields", false),
    ),
    (
        "column-too-short",
        None,
        Dead("call", "output", "`data` has 7 bytes", false),
    ),
    (
        "column-too-long",
        None,
        Dead("call", "output", "`data` has 9 bytes", false),
    ),
    (
        "ends-fall",
        None,
        Dead("call", "output", "ends at byte 4294967295, but `data` has 1", false),
    ),
    (
        "ends-past-data",
        None,
        Dead("call", "output", "ends at byte 1, but `data` has 0", false),
    ),
    (
        "ends-missing",
        None,
        Dead("call", "output", "`ends` has 0 bytes", false),
    ),
    (
        "ends-of-numbers",
        None,
        Dead("call", "output", "`ends` has 4 bytes", false),
    ),
    (
        "nulls-too-short",
        None,
        Dead("call", "output", "`nulls` has 2 bytes", false),
    ),
    (
        "nulls-not-boolean",
        None,
        Dead("call", "output", "`nulls` holds 2, not 0 or 1", false),
    ),
    (
        "required-null",
        None,
        Dead("call", "output", "is null, but the field is not optional", false),
    ),
    ("bad-utf8", None, Dead("call", "output", "row 0: is not UTF-8", false)),
    ("cut-utf8", None, Dead("call", "output", "row 0: is not UTF-8", false)),
    (
        "bad-boolean",
        None,
        Dead("call", "output", "a boolean is 0 or 1, not 7", false),
    ),
    ("bad-json", None, Dead("call", "output", "is not JSON", false)),
    (
        "json-null",
        None,
        Dead("call", "output", "a JSON null is a null cell", false),
    ),
    (
        "many-rows",
        None,
        Dead(
            "call",
            "output",
            "returned 1000001 rows, but the stage's limit is 1000",
            false,
        ),
    ),
    (
        "many-rows",
        Some(10_000_000),
        Dead("call", "memory", "bytes of memory, but its limit", true),
    ),
    (
        "huge-key",
        None,
        Dead(
            "encode",
            "encode",
            "the key has 1048576 bytes, but 4096 bytes is the limit",
            false,
        ),
    ),
    (
        "huge-value",
        Some(3 << 20),
        Dead("encode", "encode", "but 2097152 bytes is the limit", false),
    ),
    (
        "huge-value",
        None,
        Dead("call", "memory", "bytes of memory, but its limit", true),
    ),
    ("nan", None, Dead("encode", "encode", "NaN", false)),
    ("time-min", None, Lives),
    ("time-max", None, Lives),
];

fn ride(partition: usize, n: u64) -> Record {
    let poison = if POISONED.contains(&(partition, n)) {
        r#","poison":true"#
    } else {
        ""
    };
    Record {
        // Bytes that are no text, and no key: a record keeps to its partition then.
        key: n
            .is_multiple_of(2)
            .then(|| vec![0xff, b'0' + partition as u8])
            .filter(|_| !poison.is_empty()),
        value: Some(format!(r#"{{"p":{partition},"n":{n}{poison}}}"#).into_bytes()),
        headers: [("from", Some(&b"test"[..]))].into_iter().collect(),
        timestamp_ms: 1_600_000_000_000 + n as i64,
    }
}

fn rides(partition: usize) -> Vec<Record> {
    (0..RECORDS[partition]).map(|n| ride(partition, n)).collect()
}

fn amounts(count: u64) -> Vec<Record> {
    let value = |n: u64| format!(r#"{{"total_amount":{},"n":{n}}}"#, n % 80);
    (0..count)
        .map(|n| Record {
            value: Some(value(n).into_bytes()),
            ..Record::default()
        })
        .collect()
}

const NEIGHBOUR: &str = r#"
    name = "neighbour"
    [source.amounts]
    [stage.split]
    plugin = "@branch-by-amount"
    input = "amounts"
    to = { high = "amounts-high", low = "amounts-low" }
    [commit]
    interval = "10ms"
"#;

fn chaos(name: &str, kind: &str, when: &str, amount: Option<u64>, limits: &str) -> String {
    let amount = amount.map_or(String::new(), |amount| format!(", amount = {amount}"));
    format!(
        r#"
        [source.{name}]
        [stage.chaos]
        plugin = "@chaos"
        input = "{name}"
        config = {{ kind = "{kind}", when = "{when}"{amount} }}
        limits = {{ {limits} }}
        to.out = "{name}-out"
        [commit]
        interval = "10ms"
        "#
    )
}

/// Which record this is.
fn name_of(record: &Record) -> (usize, u64) {
    let value = value(record);
    (
        value["p"].as_u64().expect("its partition") as usize,
        value["n"].as_u64().expect("its number"),
    )
}

/// Records in the neighbour's branches.
fn neighbours(running: &InProcess) -> u64 {
    let count = |topic| {
        running
            .log()
            .next_offset(&TopicPartition::new(topic, 0))
            .expect("the topic is there")
    };
    count("amounts-high") + count("amounts-low")
}

#[test]
fn the_records_at_fault_are_dead_letters_and_nobody_else_notices() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let mut running = InProcess::open(&dir.path().join("data"), 2, Options::default());
    make_topic(running.log(), "amounts", 1);
    running.start("neighbour", NEIGHBOUR);
    let digest: String = Sha256::digest(std::fs::read(plugin("chaos")).expect("readable"))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut faults = Vec::new();
    let mut resident = 0;
    for (at, (kind, amount, fate)) in KINDS.iter().enumerate() {
        let began = Instant::now();
        let name = format!("{kind}-{at}");
        make_topic(running.log(), &name, 2);
        for partition in 0..2 {
            append(running.log(), &name, partition as u32, &rides(partition));
        }
        let limits = r#"time = "50ms", memory = "32MiB""#;
        running.start(&name, &chaos(&name, kind, "poison", *amount, limits));
        let before = neighbours(&running);
        append(running.log(), "amounts", 0, &amounts(1000));
        running.wait_until(
            &format!("the neighbour of {name} works"),
            Duration::from_secs(10),
            || neighbours(&running) == before + 1000,
        );
        running.wait_for(&name, LONG);
        if let Err(fault) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            examine(&running, &name, kind, fate, &digest);
        })) {
            let text = fault
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| fault.downcast_ref::<&str>().map(ToString::to_string));
            faults.push(format!("{name}: {}", text.unwrap_or_default()));
        }
        println!("{name}: {:?}, {} MiB", began.elapsed(), resident_bytes() >> 20);
        // What the allocators keep is there after some kinds; the rest must not add to it.
        if at == 20 {
            resident = resident_bytes();
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let now = resident_bytes();
    assert!(
        now < resident + (96 << 20),
        "{resident} bytes were held after a few kinds, {now} after all"
    );
}

fn examine(running: &InProcess, name: &str, kind: &str, fate: &Fate, digest: &str) {
    let inputs: Vec<(usize, u64)> = (0..2)
        .flat_map(|partition| (0..RECORDS[partition]).map(move |n| (partition, n)))
        .collect();
    let dead: Vec<(usize, u64)> = match fate {
        Lives => Vec::new(),
        Dead(..) => POISONED.to_vec(),
        AllDead(..) => inputs.clone(),
    };
    let out: Vec<Record> = read_topic(running.log(), &format!("{name}-out")).concat();
    for partition in 0..2 {
        let expected = inputs
            .iter()
            .filter(|input| input.0 == partition && !dead.contains(input));
        let found = out.iter().map(name_of).filter(|input| input.0 == partition);
        assert!(expected.copied().eq(found), "not all the others, once, in order");
    }
    let mut letters = BTreeMap::new();
    for letter in read_topic(running.log(), &format!("{name}-dlq")).concat() {
        assert!(
            letters.insert(name_of(&letter), letter).is_none(),
            "a record is there twice"
        );
    }
    assert!(
        letters.keys().eq(&dead),
        "dead letters: {:?}",
        letters.keys().collect::<Vec<_>>()
    );
    match kind {
        "time-min" | "time-max" => {
            let time = if kind == "time-min" { i64::MIN } else { i64::MAX };
            let times = out.iter().filter(|record| POISONED.contains(&name_of(record)));
            assert!(times.clone().count() == 3 && times.clone().all(|record| record.timestamp_ms == time));
        }
        _ => {}
    }
    let (reason, exception, message, framed) = match fate {
        Lives => return,
        Dead(reason, exception, message, framed) => (*reason, *exception, *message, *framed),
        AllDead(reason, exception, message) => (*reason, *exception, *message, false),
    };
    for ((partition, n), letter) in letters {
        let input = ride(partition, n);
        assert_eq!(
            (&letter.key, &letter.value),
            (&input.key, &input.value),
            "the bytes that were read"
        );
        assert_eq!(letter.timestamp_ms, input.timestamp_ms);
        let said = header(&letter, "__streams.errors.message").expect("a message");
        assert!(said.contains(message), "{said:?} does not say {message:?}");
        assert!(said.len() <= 5461, "{} bytes", said.len());
        let stack = header(&letter, "__streams.errors.stacktrace");
        assert_eq!(stack.is_some(), framed, "{stack:?}");
        assert!(
            stack.is_none_or(|stack| stack.contains("chaos") || stack.contains("process")),
            "{stack:?}"
        );
        let expected = [
            ("from", "test"),
            ("__streams.errors.exception", exception),
            ("__streams.errors.topic", name),
            ("__streams.errors.partition", &partition.to_string()),
            ("__streams.errors.offset", &n.to_string()),
            ("__millstream.reason", reason),
            ("__millstream.pipeline", name),
            ("__millstream.stage", "chaos"),
            ("__millstream.plugin", "chaos"),
            ("__millstream.plugin.version", "0.1.0"),
            ("__millstream.plugin.digest", digest),
        ];
        for (name, value) in expected {
            assert_eq!(header(&letter, name), Some(value), "{name}");
        }
    }
}

/// A neighbour with thousands of records is through soon, while each record of another pipeline takes its whole time
/// limit; the host commits what the bad one has got over with, and stops at once when it is asked to.
fn always_looping(workers: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let mut running = InProcess::open(&data, workers, Options::default());
    for (topic, records) in [("amounts", amounts(20_000)), ("bad", amounts(1000))] {
        make_topic(running.log(), topic, 1);
        append(running.log(), topic, 0, &records);
    }
    running.start("bad", &chaos("bad", "loop", "always", None, r#"time = "50ms""#));
    let committed = |running: &InProcess| {
        running
            .log()
            .committed("bad", &TopicPartition::new("bad", 0))
            .expect("answers")
    };
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    running.start("neighbour", NEIGHBOUR);
    running.wait_until("the neighbour is through", Duration::from_secs(10), || {
        neighbours(&running) == 20_000
    });
    println!(
        "{workers} workers: the neighbour was through after {:?}",
        began.elapsed()
    );
    running.wait_until("the bad one gets on", Duration::from_secs(20), || {
        committed(&running).is_some_and(|done| done >= 5)
    });
    let began = Instant::now();
    assert!(running.host.stop(Duration::from_secs(5)), "it stops");
    println!("stopped after {:?}", began.elapsed());
    let done = committed(&running).expect("it has committed");
    assert!(done < 1000, "it was still at work");
    let letters = read_topic(running.log(), "bad-dlq").concat();
    let offsets: Vec<_> = letters
        .iter()
        .map(|letter| header(letter, "__streams.errors.offset").expect("an offset").to_owned())
        .collect();
    assert_eq!(
        offsets,
        (0..done).map(|n| n.to_string()).collect::<Vec<_>>(),
        "what is committed is in the queue, once"
    );
    assert!(read_topic(running.log(), "bad-out")[0].is_empty());
}

#[test]
fn a_loop_in_each_record_holds_up_no_neighbour() {
    let _alone = alone();
    always_looping(1);
    always_looping(2);
}

/// A host that is dropped in the midst of a long pass does not wait for its end.
#[test]
fn a_pass_that_would_take_minutes_is_given_up() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let mut running = InProcess::open(&dir.path().join("data"), 1, Options::default());
    make_topic(running.log(), "bad", 1);
    append(running.log(), "bad", 0, &amounts(1000));
    running.start("bad", &chaos("bad", "loop", "always", None, r#"time = "200ms""#));
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    drop(running);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// A row that takes many calls to be found is found, however far it is from the last commit: what is found on the way
/// is not undone again and again.
#[test]
fn a_slow_search_comes_to_an_end() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let mut running = InProcess::open(&dir.path().join("data"), 1, Options::default());
    make_topic(running.log(), "search", 1);
    let value = |n: u64| format!(r#"{{"n":{n},"poison":{}}}"#, n == 900);
    let records: Vec<_> = (0..1000)
        .map(|n| Record {
            value: Some(value(n).into_bytes()),
            ..Record::default()
        })
        .collect();
    append(running.log(), "search", 0, &records);
    let text = chaos("search", "loop", "poison", None, r#"time = "300ms""#);
    running.start("search", &text.replace(r#"interval = "10ms""#, r#"interval = "1m""#));
    running.until_end(LONG);
    assert_eq!(read_topic(running.log(), "search-dlq").concat().len(), 1);
    assert_eq!(read_topic(running.log(), "search-out").concat().len(), 999);
}

/// What an instance has leaked before is not the fault of the row that finds no room.
#[test]
fn a_leak_in_each_call_costs_no_record() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let mut running = InProcess::open(&dir.path().join("data"), 1, Options::default());
    make_topic(running.log(), "half", 1);
    // Every second row is refused with its batch, so that the others reach the next stage one by one in one turn.
    let value = |n: u64| format!(r#"{{"n":{n},"poison":{}}}"#, n % 2 == 1);
    let records: Vec<_> = (0..200)
        .map(|n| Record {
            value: Some(value(n).into_bytes()),
            ..Record::default()
        })
        .collect();
    append(running.log(), "half", 0, &records);
    let text = r#"
        [source.half]
        [stage.first]
        plugin = "@chaos"
        input = "half"
        config = { kind = "error" }
        [stage.leak]
        plugin = "@chaos"
        input = "first.out"
        config = { kind = "leak-per-batch", when = "always", amount = 2097152 }
        limits = { memory = "6MiB" }
        to.out = "half-out"
    "#;
    running.start("half", text);
    running.wait_for("half", LONG);
    let letters = read_topic(running.log(), "half-dlq").concat();
    assert_eq!(
        letters
            .iter()
            .filter(|letter| header(letter, "__millstream.stage") == Some("leak"))
            .count(),
        0
    );
    assert_eq!(letters.len(), 100);
    assert_eq!(read_topic(running.log(), "half-out").concat().len(), 100);
}

#[test]
fn memory_comes_back_after_many_failures() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let mut running = InProcess::open(&dir.path().join("data"), 2, Options::default());
    let mut round = |kind: &str, count: u64| {
        let name = format!("{kind}-{count}");
        make_topic(running.log(), &name, 1);
        append(running.log(), &name, 0, &amounts(count));
        running.start(
            &name,
            &chaos(&name, kind, "always", None, r#"time = "1s", memory = "64MiB""#),
        );
        running.wait_for(&name, LONG);
        assert_eq!(
            read_topic(running.log(), &format!("{name}-dlq")).concat().len() as u64,
            count
        );
        resident_bytes()
    };
    round("memory-by-page", 10);
    let before = round("panic", 500);
    let pages = round("memory-by-page", 60);
    let after = round("panic", 3000);
    println!(
        "{} MiB, {} MiB after memory, {} MiB after panics",
        before >> 20,
        pages >> 20,
        after >> 20
    );
    assert!(
        after < before + (48 << 20),
        "{before} bytes before, {pages} after many large instances, {after} at the end"
    );
}

/// A pipeline whose plugin writes a line that looks like the host's own, at the real program.
#[test]
fn log_lines_cannot_be_forged() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let log = open(&data);
    for name in ["forged-log", "panic-with-newlines"] {
        make_topic(&log, name, 2);
        append(&log, name, 0, &rides(0));
    }
    log.close();
    let files = ["forged-log", "panic-with-newlines"].map(|name| {
        let text = chaos(name, name, "poison", None, "");
        let file = dir.path().join(format!("{name}.toml"));
        let path = format!("{:?}", plugin("chaos"));
        std::fs::write(&file, text.replace("\"@chaos\"", &path)).expect("written");
        file
    });
    let run = |format: &str| {
        let mut command = millstream(["run", "--until-end", "--log-format", format, "--data"]);
        let output = command
            .arg(&data)
            .args(&files)
            .stdout(Stdio::null())
            .output()
            .expect("the program starts");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{text}");
        text
    };
    let text = run("text");
    assert!(
        text.contains("all is lost") && text.contains("end"),
        "the line is told: {text}"
    );
    let dead = text.lines().filter(|line| line.contains("dead-letter queue")).count();
    assert_eq!(dead, 2, "a line for each record that the panic costs");
    for line in text.lines() {
        assert!(
            line.starts_with("20") && !line.starts_with("2020-01-01"),
            "{line:?} is not a line of the host"
        );
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
    }
}

/// Each failure makes a new instance, with a new allowance of lines; the stage's own holds all the same.
#[test]
fn log_lines_cannot_flood() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let log = open(&data);
    make_topic(&log, "flood", 1);
    append(&log, "flood", 0, &amounts(300));
    log.close();
    let file = dir.path().join("flood.toml");
    let text = chaos(
        "flood",
        "endless-log",
        "always",
        None,
        r#"time = "10ms", log-lines = 20"#,
    );
    std::fs::write(&file, text.replace("\"@chaos\"", &format!("{:?}", plugin("chaos")))).expect("written");
    let began = Instant::now();
    let mut command = millstream(["run", "--until-end", "--data"]);
    let output = command
        .arg(&data)
        .arg(&file)
        .stdout(Stdio::null())
        .output()
        .expect("the program starts");
    let seconds = began.elapsed().as_secs() as usize + 2;
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{text}");
    let lines = text.lines().count();
    println!("{lines} lines in {seconds} s");
    assert!(
        lines <= 20 * seconds + 10 * seconds + 20 * seconds + 20,
        "{lines} lines in {seconds} s"
    );
    assert!(
        text.contains("were left out") && text.contains("left_out="),
        "what is left out is counted: {text}"
    );
    assert_eq!(read_topic(&open(&data), "flood-dlq").concat().len(), 300);
}

/// What is refused before anything runs, each in its own words.
#[test]
fn who_fails_when_configured_is_refused_by_the_check() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = guest::Options::new(cache(), program());
    options.configure_time_max = Duration::from_millis(500);
    let catalog = PluginCatalog::new(Runtime::new(options).expect("a runtime"));
    let cases = [
        (
            "configure-error",
            "refuses its configuration: this configuration is refused, as it asks to be",
        ),
        ("configure-panic", "a panic in configure"),
        (
            "configure-loop",
            "`configure` failed: the call did not end within 500ms",
        ),
        ("configure-memory", "bytes of memory, but its limit"),
        ("configure-log", "`configure` failed: the call did not end within 500ms"),
        ("many-branches", "bytes of memory, but its limit"),
        ("no-branches", "has no branch `out`"),
        ("no-inputs", "it has no inputs"),
        ("duplicate-branches", r#"two branches are called "out""#),
        ("duplicate-fields", r#"two fields are called "twice""#),
        ("overlapping-fields", r#"the fields "outer" (value:/a)"#),
        ("empty-name", "its name is empty"),
        ("huge-name", "its name has 1048576 bytes, but may have 256"),
        ("huge-header-name", "its name has 1048576 bytes, but may have 256"),
        ("bad-pointer", r#""no/slash" is not a JSON Pointer"#),
        (
            "offset-in-branch",
            "the offset is given by the log and cannot be written",
        ),
        ("timestamp-as-text", "timestamp is time, not text"),
        ("store-without-key", "its key has no fields"),
    ];
    let mut faults = Vec::new();
    for (kind, words) in cases {
        match check(dir.path(), &catalog, kind) {
            Ok(()) => faults.push(format!("{kind} is not refused")),
            Err(report) => {
                // The report is wrapped, with a bar before each line.
                let said = report.replace('│', "").split_whitespace().collect::<Vec<_>>().join(" ");
                println!("{kind}: {said}");
                if !said.contains(words) {
                    faults.push(format!("{kind}: {report:?} does not say {words:?}"));
                }
                if report.len() > 20_000 {
                    faults.push(format!("{kind}: a report of {} bytes", report.len()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn check(dir: &Path, catalog: &PluginCatalog, kind: &str) -> Result<(), String> {
    let file = dir.join("pipeline.toml");
    let text = chaos("bad", kind, "poison", None, "").replace("\"@chaos\"", &format!("{:?}", plugin("chaos")));
    std::fs::write(&file, text).expect("written");
    millstream::cli::check::plan(&file, catalog)
        .map(drop)
        .map_err(|report| format!("{report:?}"))
}
