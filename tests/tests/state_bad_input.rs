//! Promise: bad input of stages that keep something costs the records at fault, or stops or pauses what would be wrong,
//! with cause, place and remedy; nothing is lost, and nothing is silently less.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millstream::connect::{EmbeddedLog, Options, StoreSchema, TopicPartition, TopicRole, TopicSpec};
use millstream::control::PipelineState;
use millstream::record::Record;
use millstream::schema::{Field, FieldType};
use millstream_tests::stores::committed_rows;
use millstream_tests::{InProcess, append, header, make_topic, millstream, open, plugin, read_topic, refuse};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn open(&self) -> InProcess {
        InProcess::open(&self.data(), 2, Options::default())
    }

    fn close(running: InProcess) {
        let mut running = running;
        assert!(running.host.stop(LONG), "it stops");
        running.log().close();
    }
}

fn record(key: &str, value: impl ToString) -> Record {
    Record {
        key: (!key.is_empty()).then(|| key.as_bytes().to_vec()),
        value: Some(value.to_string().into_bytes()),
        timestamp_ms: 1,
        ..Record::default()
    }
}

fn values(log: &Arc<EmbeddedLog>, topic: &str) -> Vec<Value> {
    let records = read_topic(log, topic).concat();
    let value = |record: &Record| serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
    records.iter().map(value).collect()
}

/// Reasons and messages of dead letters, in their order.
fn letters(log: &Arc<EmbeddedLog>, topic: &str) -> Vec<(String, String)> {
    let letters = read_topic(log, topic).concat();
    let said = |letter: &Record, name: &str| header(letter, name).expect("it is said").to_owned();
    letters
        .iter()
        .map(|letter| {
            (
                said(letter, "__millstream.reason"),
                said(letter, "__streams.errors.message"),
            )
        })
        .collect()
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    // A report breaks its lines.
    let narrow = |text: &str| {
        text.chars()
            .filter(|c| !c.is_whitespace() && !"│╰─▶×·╭╮╯".contains(*c))
            .collect::<String>()
    };
    for word in words {
        assert!(narrow(text).contains(&narrow(word)), "{word:?} in: {text}");
    }
}

/// What the pipeline waits for.
fn paused(running: &InProcess, name: &str) -> String {
    let mut why = String::new();
    running.wait_until("it pauses", LONG, || match running.state(name) {
        PipelineState::Paused(reason) => {
            why = reason;
            true
        }
        PipelineState::Failed(reason) => panic!("{name} failed: {reason}"),
        _ => false,
    });
    why
}

/// Why the pipeline ended.
fn failed(running: &InProcess, name: &str) -> String {
    let mut why = String::new();
    running.wait_until("it ends", LONG, || match running.state(name) {
        PipelineState::Failed(reason) => {
            why = reason;
            true
        }
        _ => false,
    });
    why
}

const COUNT: &str = r#"
[source.in]
[stage.count]
plugin = "@count"
input = "in"
to.counted = { topic = "out", partitions = 1 }
[commit]
interval = "5ms"
"#;

const VENDORS: &str = r#"
[source.in]
[stage.vendors]
plugin = "@count-by-vendor"
input = "in"
to.counted = "out"
[commit]
interval = "5ms"
"#;

#[test]
fn two_stores_of_one_name_are_refused() {
    let place = Place::new();
    let file = place.dir.path().join("p.toml");
    let text = format!(
        "name = \"p\"\n[source.in]\n[stage.vendors]\nplugin = {:?}\ninput = \"in\"\nto.counted = \"a\"\n\
         [stage.vendors-counts]\nplugin = {:?}\ninput = \"in\"\nto.counted = \"b\"\n",
        plugin("count-by-vendor"),
        plugin("count")
    );
    std::fs::write(&file, text).expect("written");
    let error = refuse(millstream(["check"]).arg(&file));
    says(&error, &["p-vendors-counts-changelog", "vendors-counts", "p.toml:"]);
}

#[test]
fn stores_that_are_misused_cost_the_record() {
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let value = |n: u64| record("k", json!({"n": n, "poison": n == 7}));
    append(running.log(), "in", 0, &(0..20).map(value).collect::<Vec<_>>());
    let cases = [
        (
            "state-unknown-store",
            "store 7, which does not exist: the signature has 1",
        ),
        ("state-huge-key", "a key of"),
        ("state-huge-value", ""),
        ("state-too-few-values", ""),
        ("state-null-key", ""),
        ("state-unordered-scan", "ordered"),
        ("state-trap", "unreachable"),
        ("state-error", "written, and refused"),
    ];
    let stages = cases.map(|(kind, _)| {
        format!("[stage.{kind}]\nplugin = \"@chaos\"\ninput = \"in\"\nconfig = {{ kind = \"{kind}\" }}\nto.out = \"{kind}\"\n")
    });
    running.start("p", &format!("[source.in]\n{}", stages.concat()));
    running.until_end(LONG);
    let dead = read_topic(running.log(), "p-dlq").concat();
    for (kind, words) in cases {
        let of_stage = |letter: &&Record| header(letter, "__millstream.stage") == Some(kind);
        let dead: Vec<_> = dead.iter().filter(of_stage).collect();
        assert_eq!(dead.len(), 1, "{kind}");
        let message = header(dead[0], "__streams.errors.message").expect("a message");
        assert!(message.contains(words), "{kind}: {message}");
        println!("{kind}: {message}");
        let passed: Vec<_> = values(running.log(), kind)
            .iter()
            .map(|value| value["n"].clone())
            .collect();
        assert_eq!(
            passed,
            (0..20).filter(|n| *n != 7).map(|n| json!(n)).collect::<Vec<_>>(),
            "{kind}"
        );
    }
}

#[test]
fn aggregators_that_break_the_contract_cost_the_record_or_the_group() {
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let value = |n: u64| record(if n == 7 { "bad" } else { "good" }, json!({"n": n, "poison": n == 7}));
    append(running.log(), "in", 0, &(0..20).map(value).collect::<Vec<_>>());
    let rows = [
        "accumulate-panic",
        "accumulate-error",
        "too-few-accumulators",
        "too-many-accumulators",
        "too-few-columns",
        "too-many-columns",
        "other-type",
        "null-accumulator",
        "huge-accumulator",
        "failed-row",
        "failed-out-of-range",
        "failed-twice",
    ];
    let groups = [
        "finish-panic",
        "finish-error",
        "finish-failed",
        "finish-failed-out-of-range",
        "finish-origin-out-of-range",
        "finish-too-few-branches",
        "finish-too-few-fields",
        "finish-too-many-fields",
        "finish-other-type",
        "finish-null",
    ];
    let stage = |kind: &&str| {
        format!(
            "[stage.{kind}]\nplugin = \"@chaos-aggregator\"\ninput = \"in\"\nconfig = {{ kind = \"{kind}\" }}\n\
             to.counted = \"{kind}\"\n"
        )
    };
    let stages: String = rows.iter().chain(&groups).map(stage).collect();
    running.start("p", &format!("[source.in]\n{stages}"));
    running.until_end(LONG);
    let dead = read_topic(running.log(), "p-dlq").concat();
    for kind in rows.iter().chain(&groups) {
        let of_stage = |letter: &&Record| header(letter, "__millstream.stage") == Some(kind);
        let dead: Vec<_> = dead.iter().filter(of_stage).collect();
        let message = |letter: &Record| {
            header(letter, "__streams.errors.message")
                .expect("a message")
                .to_owned()
        };
        println!(
            "{kind}: {}",
            dead.iter()
                .map(|letter| message(letter))
                .collect::<Vec<_>>()
                .join(" | ")
        );
        assert_eq!(dead.len(), 1, "{kind}");
        assert_eq!(dead[0].key.as_deref(), Some(&b"bad"[..]), "{kind}");
        assert_eq!(dead[0].value.is_some(), rows.contains(kind), "{kind}");
        let results = read_topic(running.log(), kind).concat();
        let mut of_good = results
            .iter()
            .filter(|record| record.key.as_deref() == Some(&b"good"[..]));
        let last: Value = serde_json::from_slice(
            of_good
                .next_back()
                .expect("a result")
                .value
                .as_deref()
                .expect("a value"),
        )
        .expect("JSON");
        assert_eq!(last, json!({"count": 19}), "{kind}");
        assert!(
            results.iter().all(|record| record.key.as_deref() == Some(&b"good"[..])),
            "{kind}"
        );
    }
}

#[test]
fn results_that_take_forever_cost_their_groups_and_no_more() {
    // All groups of a window fail by taking all their time, more of it than a pass has.
    for emit in ["close", "update"] {
        let place = Place::new();
        let mut running = place.open();
        make_topic(running.log(), "in", 1);
        let value = |n: u64| record(&format!("k{n}"), json!({"poison": n != 3}));
        append(running.log(), "in", 0, &(0..40).map(value).collect::<Vec<_>>());
        let text = format!(
            r#"
            [source.in]
            [stage.count]
            plugin = "@chaos-aggregator"
            input = "in"
            config = {{ kind = "finish-loop" }}
            limits = {{ time = "20ms" }}
            window = {{ hopping = "100s", advance = "20s" }}
            emit = "{emit}"
            to = {{ counted = "out", late = false }}
            "#
        );
        let at = |record: Record| Record {
            timestamp_ms: 1_000_000,
            ..record
        };
        append(running.log(), "in", 0, &[at(record("last", json!({"poison": true})))]);
        running.start("p", &text);
        running.until_end(LONG);
        assert!(running.host.close_windows(&|| false), "{emit}: they close");
        assert_eq!(values(running.log(), "out").len(), 1, "{emit}");
        // The last record lies in five windows.
        assert_eq!(letters(running.log(), "p-dlq").len(), 39 + 5, "{emit}");
    }
}

#[test]
fn records_without_the_key_go_where_the_pipeline_says() {
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let records = [r#"{"v":1}"#, r#"{"v":null}"#, r#"{}"#, "no JSON", r#"{"v":2}"#].map(|value| record("", value));
    append(running.log(), "in", 0, &records);
    let text = |unkeyed: &str| {
        format!("[source.in]\n[stage.s]\nplugin = \"@count\"\ninput = \"in\"\nkey = \"v\"\n[stage.s.to]\n{unkeyed}\n")
    };
    running.start("dead", &text("counted = \"a\""));
    running.start("mapped", &text("counted = \"b\"\nunkeyed = \"nobody\""));
    running.until_end(LONG);
    let said = letters(running.log(), "dead-dlq");
    let reasons: Vec<_> = said.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["unkeyed", "unkeyed", "decode"]);
    says(&said[0].1, &["/v", "absent or null"]);
    says(&said[2].1, &["/v", "cannot be read"]);
    assert_eq!(values(running.log(), "nobody"), [json!({"v": null}), json!({})]);
    assert_eq!(letters(running.log(), "mapped-dlq").len(), 1);
    assert_eq!(values(running.log(), "a").len(), 2);
    // The key is the record's own where the stage has none: there an aggregator needs it as well.
    running.start("own", &COUNT.replace("\"out\"", "\"c\""));
    running.until_end(LONG);
    let said = letters(running.log(), "own-dlq");
    assert_eq!(said.len(), 5);
    assert_eq!(said[0], ("unkeyed".into(), "the record has no key".into()));
}

#[test]
fn keys_and_rows_over_their_limit_cost_the_record() {
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let long = "k".repeat(4096);
    let records = [
        record(&"k".repeat(1 << 20), json!({"v": 1})),
        record(&long, json!({"v": 2})),
        record(&format!("{long}+"), json!({"v": 3})),
        record("k", json!({"v": 4})),
    ];
    for record in &records {
        append(running.log(), "in", 0, std::slice::from_ref(record));
    }
    running.start("whole", &COUNT.replace("\"out\"", "\"a\""));
    let windowed = COUNT.replace(
        "to.counted = { topic = \"out\"",
        "window = \"1m\"\nto.late = false\nto.counted = { topic = \"b\"",
    );
    running.start("windowed", &windowed);
    running.until_end(LONG);
    assert!(running.host.close_windows(&|| false));
    for (name, topic) in [("whole", "a"), ("windowed", "b")] {
        let said = letters(running.log(), &format!("{name}-dlq"));
        assert_eq!(said.len(), 2, "{said:?}");
        says(&said[0].1, &["1048576 bytes", "4096 is the limit"]);
        says(&said[1].1, &["4097 bytes"]);
        assert_eq!(values(running.log(), topic).len(), 2);
    }
    // A list of labels that grows beyond a row.
    make_topic(running.log(), "labels", 1);
    let label = |n: u64| record("k", json!({"v": n, "label": "l".repeat(200_000)}));
    append(running.log(), "labels", 0, &(0..8).map(label).collect::<Vec<_>>());
    running.start(
        "top",
        "[source.labels]\n[stage.top]\nplugin = \"@top-n\"\ninput = \"labels\"\n\
         config = { field = \"/v\", label = \"/label\", n = 10 }\nto.top = \"top\"\n",
    );
    running.until_end(LONG);
    let said = letters(running.log(), "top-dlq");
    assert_eq!(said.len(), 3, "five fit: {:?}", said.first());
    says(
        &said[0].1,
        &["the store \"top\"", "a row of 12", "1048576 is the limit"],
    );
    let top = values(running.log(), "top").pop().expect("a result");
    assert_eq!(top["top"].as_array().map(Vec::len), Some(5));
}

#[test]
fn what_is_too_far_ahead_is_counted_where_there_are_no_windows() {
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let future = Record {
        timestamp_ms: 4_000_000_000_000,
        ..record("k", "{}")
    };
    append(running.log(), "in", 0, &[record("k", "{}"), future, record("k", "{}")]);
    running.start("p", COUNT);
    running.until_end(LONG);
    assert_eq!(values(running.log(), "out").last(), Some(&json!({"count": 3})));
    assert_eq!(letters(running.log(), "p-dlq"), []);
}

#[test]
fn a_row_of_several_windows_fails_once() {
    // The second record lies in a window of the first and in one before it: its groups are not all new to a call.
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let at = |timestamp_ms: i64, value: Value| Record {
        timestamp_ms,
        ..record("k", value)
    };
    let records = [
        at(25_000, json!({"v": 1})),
        at(15_000, json!({"v": "x", "poison": true})),
        at(26_000, json!({"v": 2})),
    ];
    append(running.log(), "in", 0, &records);
    running.start(
        "p",
        "[source.in]\n[stage.s]\nplugin = \"@chaos-aggregator\"\ninput = \"in\"\nconfig = { kind = \"failed-row\" }\n\
         window = { hopping = \"20s\", advance = \"10s\", grace = \"1m\" }\nemit = \"every-update\"\n\
         to = { counted = \"out\", late = false }\n",
    );
    running.until_end(LONG);
    assert_eq!(letters(running.log(), "p-dlq").len(), 1);
    // The window that was not refused counts it.
    assert_eq!(values(running.log(), "out").len(), 5);
}

#[test]
fn a_quota_pauses_and_goes_on_when_it_is_raised() {
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let value = |n: u64| record(&format!("{n:0200}"), "{}");
    let keys = 30_000;
    for chunk in (0..keys).collect::<Vec<u64>>().chunks(5000) {
        append(
            running.log(),
            "in",
            0,
            &chunk.iter().copied().map(value).collect::<Vec<_>>(),
        );
    }
    running.start("p", &format!("{COUNT}\n[state]\nquota = \"1MiB\"\n"));
    let why = paused(&running, "p");
    says(
        &why,
        &[
            "its quota is 1048576",
            "raise `quota`",
            "start it again",
            "nothing is lost",
        ],
    );
    let committed = running.log().committed("p", &TopicPartition::new("in", 0));
    assert!(
        committed.expect("the log answers").unwrap_or(0) < keys,
        "it has stopped on the way"
    );
    Place::close(running);
    let mut running = place.open();
    running.start("p", &format!("{COUNT}\n[state]\nquota = \"1GiB\"\n"));
    running.until_end(LONG);
    let counts = values(running.log(), "out");
    assert_eq!(counts.len() as u64, keys);
    assert!(counts.iter().all(|count| *count == json!({"count": 1})));
    let log = running.log().clone();
    Place::close(running);
    drop(log);
    let log = open(&place.data());
    assert_eq!(
        committed_rows(&place.data(), &log, &["p-count-changelog"])[0][0].len() as u64,
        keys
    );
}

/// Ten records of a vendor whose number is easily found on a disk.
const VENDOR: i64 = 0x1122_3344_5566_7788;

fn vendors(place: &Place) {
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    add_vendors(&running, 10);
    running.start("p", VENDORS);
    running.until_end(LONG);
    Place::close(running);
}

fn add_vendors(running: &InProcess, count: u64) {
    let records: Vec<_> = (0..count).map(|_| record("k", json!({"VendorID": VENDOR}))).collect();
    append(running.log(), "in", 0, &records);
}

/// Starts it again with one more record, which must be the number `count` of its vendor.
fn goes_on(place: &Place, count: i64) {
    let mut running = place.open();
    add_vendors(&running, 1);
    running.start("p", VENDORS);
    running.until_end(LONG);
    assert_eq!(
        values(running.log(), "out").last(),
        Some(&json!({"vendor": VENDOR, "count": count}))
    );
    Place::close(running);
}

/// Starts it again; it must be refused, or end, with these words.
fn stops(place: &Place, words: &[&str]) {
    let mut running = place.open();
    add_vendors(&running, 1);
    let why = match running.try_start("p", VENDORS) {
        Err(why) => why,
        Ok(()) => failed(&running, "p"),
    };
    println!("{why}");
    says(&why, words);
    assert_eq!(values(running.log(), "out").len(), 10, "nothing more was counted");
    Place::close(running);
}

#[test]
fn a_lost_local_store_is_made_again_of_the_changelog() {
    let place = Place::new();
    vendors(&place);
    std::fs::remove_dir_all(place.data().join("state")).expect("it is there");
    goes_on(&place, 11);
    goes_on(&place, 12);
}

/// Fills the local store: a flush is forced by more rows than memory takes.
fn flushed_vendors(place: &Place) {
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let value = |n: u64| record("k", json!({"VendorID": if n < 10 { VENDOR } else { n as i64 }}));
    for chunk in (0..12_000).collect::<Vec<u64>>().chunks(3000) {
        append(
            running.log(),
            "in",
            0,
            &chunk.iter().copied().map(value).collect::<Vec<_>>(),
        );
    }
    running.start("p", &format!("{VENDORS}\n[state]\nmemory = \"1MiB\"\n"));
    running.until_end(LONG);
    let flushed = || {
        running
            .log()
            .committed("p", &TopicPartition::new("p-vendors-counts-changelog", 0))
    };
    running.wait_until("it is flushed", LONG, || flushed().expect("the log answers").is_some());
    Place::close(running);
}

#[test]
fn a_lost_local_store_whose_changelog_was_purged_stops_the_pipeline() {
    let place = Place::new();
    // Generations so small that the changelog is purged as soon as it is flushed.
    let options = Options {
        generation_bytes_max: 1 << 16,
        ..Options::default()
    };
    let mut running = InProcess::open(&place.data(), 2, options);
    make_topic(running.log(), "in", 1);
    running.start("p", &format!("{VENDORS}\n[state]\nmemory = \"1MiB\"\n"));
    let changelog = "p-vendors-counts-changelog";
    let mut next = 0;
    running.wait_until("it is purged", LONG, || {
        let value = |n: i64| record("k", json!({"VendorID": n}));
        append(
            running.log(),
            "in",
            0,
            &(next..next + 3000).map(value).collect::<Vec<_>>(),
        );
        next += 3000;
        running.log().topic(changelog).expect("it is there").partition_ranges[0].first_offset > 0
    });
    Place::close(running);
    let refused = |running: &mut InProcess| {
        let why = match running.try_start("p", VENDORS) {
            Err(why) => why,
            Ok(()) => failed(running, "p"),
        };
        println!("{why}");
        says(
            &why,
            &[
                "vendors.counts",
                "has lost rows",
                changelog,
                "restore the data folder",
                "millstream reset p",
            ],
        );
    };
    let state = place.data().join("state");
    let copy = place.dir.path().join("copy");
    std::fs::rename(&state, &copy).expect("it is there");
    let mut running = place.open();
    refused(&mut running);
    Place::close(running);
    // As the message says: with the folder back it goes on.
    std::fs::remove_dir_all(&state).expect("an empty one");
    std::fs::rename(&copy, &state).expect("it is there");
    let mut running = place.open();
    running.start("p", VENDORS);
    append(running.log(), "in", 0, &[record("k", json!({"VendorID": 0}))]);
    running.until_end(LONG);
    assert_eq!(
        values(running.log(), "out").last(),
        Some(&json!({"vendor": 0, "count": 2}))
    );
    Place::close(running);
}

/// Changes a byte behind each place where these bytes stand in the files of a folder; how many there were.
fn spoil(folder: &Path, bytes: &[u8]) -> usize {
    let mut spoilt = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            spoilt += spoil(&path, bytes);
            continue;
        }
        let mut content = std::fs::read(&path).expect("a file");
        let places: Vec<_> = (0..content.len().saturating_sub(bytes.len()))
            .filter(|&at| content[at..].starts_with(bytes))
            .collect();
        for at in &places {
            content[at + bytes.len() - 1] ^= 0x20;
        }
        if !places.is_empty() {
            println!("{}: {} places", path.display(), places.len());
            std::fs::write(&path, content).expect("a file");
            spoilt += places.len();
        }
    }
    spoilt
}

#[test]
fn a_flipped_byte_in_the_local_store_is_found_and_the_store_made_again() {
    let place = Place::new();
    flushed_vendors(&place);
    // Keys are numbers with their sign flipped, most significant byte first.
    let key = (VENDOR as u64 ^ (1 << 63)).to_be_bytes();
    assert!(
        spoil(&place.data().join("state"), &key[..7]) > 0,
        "the row is on the disk"
    );
    goes_on(&place, 11);
}

#[test]
fn a_flipped_byte_in_a_changelog_stops_everything() {
    let place = Place::new();
    flushed_vendors(&place);
    std::fs::remove_dir_all(place.data().join("state")).expect("it is there");
    let key = (VENDOR as u64 ^ (1 << 63)).to_be_bytes();
    assert!(spoil(&place.data(), &key[..7]) > 0, "the changelog is on the disk");
    let file = place.dir.path().join("p.toml");
    let text = VENDORS.replace("\"@count-by-vendor\"", &format!("{:?}", plugin("count-by-vendor")));
    std::fs::write(&file, format!("name = \"p\"\n{text}")).expect("written");
    let why = refuse(
        millstream(["run", "--until-end", "--data"])
            .arg(place.data())
            .arg(&file),
    );
    println!("{why}");
    says(&why, &["damaged", "restore it from a copy"]);
}

/// Writes a record to the changelog that no store wrote, and loses the local store.
fn foreign(place: &Place, record: &Record) {
    vendors(place);
    std::fs::remove_dir_all(place.data().join("state")).expect("it is there");
    let log = open(&place.data());
    append(&log, "p-vendors-counts-changelog", 0, std::slice::from_ref(record));
    log.close();
}

#[test]
fn a_changelog_with_a_record_without_a_key_stops_the_pipeline() {
    let place = Place::new();
    foreign(&place, &record("", "x"));
    stops(
        &place,
        &[
            "vendors.counts",
            "p-vendors-counts-changelog",
            "without a key at offset",
        ],
    );
}

#[test]
fn a_changelog_with_a_row_that_is_none_holds_the_pipeline() {
    let place = Place::new();
    let row = Record {
        key: Some((VENDOR as u64 ^ (1 << 63)).to_be_bytes().to_vec()),
        ..record("", "no row")
    };
    foreign(&place, &row);
    let mut running = place.open();
    add_vendors(&running, 1);
    running.start("p", VENDORS);
    let why = paused(&running, "p");
    println!("{why}");
    says(&why, &["vendors.counts", "no row of"]);
    assert_eq!(values(running.log(), "out").len(), 10, "nothing more was counted");
    Place::close(running);
}

#[test]
fn a_changelog_that_is_gone_stops_the_pipeline() {
    let place = Place::new();
    flushed_vendors(&place);
    let log = open(&place.data());
    log.delete_topic("p-vendors-counts-changelog").expect("it is there");
    log.close();
    drop(log);
    let mut running = place.open();
    let why = match running.try_start("p", VENDORS) {
        Err(why) => why,
        Ok(()) => failed(&running, "p"),
    };
    println!("{why}");
    says(
        &why,
        &[
            "\"vendors\"",
            "has lost what it kept",
            "restore the data folder",
            "millstream reset p",
        ],
    );
    Place::close(running);
}

#[test]
fn a_changelog_that_is_gone_before_anything_was_flushed_is_not_silently_less() {
    let place = Place::new();
    vendors(&place);
    let log = open(&place.data());
    log.delete_topic("p-vendors-counts-changelog").expect("it is there");
    log.close();
    drop(log);
    stops(
        &place,
        &[
            "\"vendors\"",
            "has lost what it kept",
            "p-vendors-counts-changelog",
            "millstream reset p",
        ],
    );
}

fn field(name: &str, field_type: FieldType) -> Field {
    Field {
        name: name.into(),
        field_type,
        optional: false,
    }
}

#[test]
fn rows_of_other_fields_are_refused() {
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let schema = StoreSchema {
        key: vec![field("key", FieldType::Integer)],
        value: vec![field("value", FieldType::Text)],
        window_size_ms: None,
        window_grace_ms: 0,
        by: None,
        time_to_live_ms: 0,
    };
    let role = |pipeline: &str| TopicRole::Changelog {
        pipeline: pipeline.into(),
        stage: "vendors".into(),
        store: Some("counts".into()),
        schemas: vec![schema.clone()],
    };
    let topic = |pipeline: &str, name: &str| TopicSpec {
        role: Some(Arc::new(role(pipeline))),
        ..TopicSpec::new(name, 1)
    };
    running
        .log()
        .create_topic(&topic("p", "p-vendors-counts-changelog"))
        .expect("a topic");
    let why = running.try_start("p", VENDORS).expect_err("other fields");
    println!("{why}");
    says(&why, &["vendors.counts", "text", "integer", "millstream reset p"]);
    // One of another pipeline, and one of nobody's.
    running
        .log()
        .create_topic(&topic("q", "r-vendors-counts-changelog"))
        .expect("a topic");
    let why = running.try_start("r", VENDORS).expect_err("another pipeline's");
    says(&why, &["r-vendors-counts-changelog", "rename"]);
    make_topic(running.log(), "s-vendors-counts-changelog", 1);
    let why = running.try_start("s", VENDORS).expect_err("somebody's");
    says(&why, &["s-vendors-counts-changelog", "rename"]);
    running.until_end(LONG);
}

#[test]
fn other_windows_and_other_numbers_of_partitions_are_refused() {
    let place = Place::new();
    let text = |window: &str, partitions: u32| {
        format!(
            "[source.in]\n[stage.count]\nplugin = \"@count\"\ninput = \"in\"\nkey = \"v\"\npartitions = {partitions}\n\
             window = {{ {window} }}\nto = {{ counted = \"out\", late = false }}\n"
        )
    };
    let first = text("tumbling = \"1m\"", 2);
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    append(running.log(), "in", 0, &[record("", json!({"v": 1}))]);
    running.start("p", &first);
    running.until_end(LONG);
    Place::close(running);
    let mut running = place.open();
    let why = running
        .try_start("p", &text("tumbling = \"2m\"", 2))
        .expect_err("longer windows");
    says(
        &why,
        &[
            "\"count\"",
            "60000 ms",
            "120000 ms",
            "another name",
            "millstream reset p",
        ],
    );
    let why = running
        .try_start("p", &text("tumbling = \"1m\"", 3))
        .expect_err("more partitions");
    says(
        &why,
        &[
            "p-count-repartition",
            "has 2 partitions",
            "3 are needed",
            "millstream reset p",
        ],
    );
    // Grace may change, and what was there is counted on.
    append(running.log(), "in", 0, &[record("", json!({"v": 1}))]);
    running.start("p", &text("tumbling = \"1m\", grace = \"1s\"", 2));
    running.until_end(LONG);
    assert_eq!(values(running.log(), "out").last().expect("a result")["count"], 2);
    Place::close(running);
}

#[test]
fn time_that_jumps_within_a_batch_ends_lives_as_it_does_between_batches() {
    let place = Place::new();
    let mut running = place.open();
    let at = |seconds: i64, id: &str| Record {
        timestamp_ms: seconds * 1000,
        ..record("k", json!({"id": id, "at": seconds}))
    };
    let records = [
        at(0, "a"),
        at(30, "a"),
        at(100, "b"),
        at(101, "a"),
        at(50, "a"),
        at(110, "b"),
        at(300, "b"),
        at(300, "b"),
    ];
    let text = |name: &str| {
        format!(
            "[source.{name}]\n[stage.once]\nplugin = \"@deduplicate\"\ninput = \"{name}\"\n\
             config = {{ id = \"/id\", time_to_live = \"1m\" }}\nto = {{ first = \"{name}-first\", repeated = false }}\n"
        )
    };
    for name in ["whole", "single"] {
        make_topic(running.log(), name, 1);
    }
    append(running.log(), "whole", 0, &records);
    for name in ["whole", "single"] {
        running.start(name, &text(name));
    }
    for record in &records {
        append(running.log(), "single", 0, std::slice::from_ref(record));
        running.wait_for("single", LONG);
    }
    running.until_end(LONG);
    let expected: Vec<Value> = [(0, "a"), (100, "b"), (101, "a"), (300, "b")]
        .map(|(seconds, id)| json!({"id": id, "at": seconds}))
        .into();
    for topic in ["single-first", "whole-first"] {
        assert_eq!(values(running.log(), topic), expected, "{topic}");
    }
}

#[test]
fn a_source_that_falls_silent_closes_its_windows_where_it_says_so() {
    let place = Place::new();
    let mut running = place.open();
    make_topic(running.log(), "in", 1);
    let text = |idle: &str| {
        COUNT.replace("[source.in]", &format!("[source.in]\n{idle}")).replace(
            "to.counted",
            "window = { tumbling = \"1500ms\" }\nemit = \"close\"\nto.late = false\nto.counted",
        )
    };
    append(running.log(), "in", 0, &[record("k", "{}")]);
    running.start("idle", &text("idle = \"1s\""));
    running.start("silent", &text("").replace("\"out\"", "\"none\""));
    running.wait_until("the window closes", LONG, || {
        !read_topic(running.log(), "out").concat().is_empty()
    });
    let expected =
        json!({"count": 1, "window_start": "1970-01-01T00:00:00Z", "window_end": "1970-01-01T00:00:01.500Z"});
    assert_eq!(values(running.log(), "out"), [expected]);
    assert_eq!(values(running.log(), "none"), [] as [Value; 0]);
    // Whoever comes now is late.
    append(running.log(), "in", 0, &[record("k", "{}")]);
    running.wait_for("idle", LONG);
    assert_eq!(values(running.log(), "out").len(), 1);
    Place::close(running);
}
