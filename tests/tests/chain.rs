//! Promise: stages are chained in one pass, and what comes out is what their plugins say, in the order of the input,
//! whatever the way through the pipeline; pipelines that read each other's topics end when all are through.

use std::time::Duration;

use millstream::connect::{Options, TopicPartition};
use millstream::control::PipelineState;
use millstream::limits::{KEY_BYTES_MAX, RECORD_BYTES_MAX};
use millstream::record::Record;
use millstream_tests::{InProcess, append, header, make_topic, millstream, open, read_topic, succeed, value};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// A host on an empty folder.
fn host() -> (tempfile::TempDir, InProcess) {
    let dir = tempfile::tempdir().expect("a folder");
    let running = InProcess::open(&dir.path().join("data"), 2, Options::default());
    (dir, running)
}

fn record(value: impl Into<Vec<u8>>) -> Record {
    Record {
        value: Some(value.into()),
        timestamp_ms: 1,
        ..Record::default()
    }
}

/// Rides of which the enrichment refuses every 50th; `n` tells them apart.
fn rides(count: u64) -> Vec<Value> {
    let ride = |n: u64| {
        json!({
            "n": n, "total_amount": (n * 7 % 80) as f64, "payment_type": n % 4,
            "tpep_pickup_datetime": "2020-07-01 00:00:00",
            "tpep_dropoff_datetime": if n % 50 == 3 { "2020-06-30 23:00:00" } else { "2020-07-01 00:30:00" },
            "trip_distance": (n % 9) as f64, "fare_amount": (n % 5) as f64, "tip_amount": (n % 3) as f64, "tolls_amount": 0,
        })
    };
    (0..count).map(ride).collect()
}

fn records(values: &[Value]) -> Vec<Record> {
    values.iter().map(|value| record(value.to_string())).collect()
}

fn numbers(records: &[Record]) -> Vec<u64> {
    records
        .iter()
        .map(|record| value(record)["n"].as_u64().expect("a number"))
        .collect()
}

fn message(letter: &Record) -> &str {
    header(letter, "__streams.errors.message").expect("a message")
}

#[test]
fn three_stages_in_one_pass_with_topics_on_the_way_and_fan_out_at_the_end() {
    let (_dir, mut running) = host();
    make_topic(running.log(), "rides", 1);
    let rides = rides(5000);
    append(running.log(), "rides", 0, &records(&rides));
    running.start(
        "three",
        r#"
        [source.rides]
        key = "payment_type"
        timestamp = "tpep_pickup_datetime"
        [stage.sort]
        plugin = "@fan-out"
        input = "redact.kept"
        to = { all = "all", card = "card", cash = "cash", other-payment = "other", charges = "charges" }
        [stage.enrich]
        plugin = "@enrich"
        input = "rides"
        to.enriched = "enriched"
        [stage.redact]
        plugin = "@redact"
        input = "enrich.enriched"
        config = { drop_field = "/payment_type", drop_values = [3], set_headers = { by = "redact" } }
        "#,
    );
    running.until_end(LONG);
    let enriched: Vec<u64> = (0..5000).filter(|n| n % 50 != 3).collect();
    let all: Vec<u64> = enriched.iter().copied().filter(|n| n % 4 != 3).collect();
    let topic = |name: &str| read_topic(running.log(), name).concat();
    assert_eq!(numbers(&topic("enriched")), enriched);
    assert_eq!(numbers(&topic("all")), all);
    for (name, payment) in [("card", 1), ("cash", 2), ("other", 0)] {
        assert_eq!(
            numbers(&topic(name)),
            all.iter().copied().filter(|n| n % 4 == payment).collect::<Vec<_>>(),
            "{name}"
        );
    }
    for record in topic("all") {
        let n = value(&record)["n"].as_u64().expect("a number");
        assert_eq!(value(&record)["duration_s"], json!(1800));
        assert_eq!(header(&record, "by"), Some("redact"));
        assert_eq!(
            record.key,
            Some((n % 4).to_string().into_bytes()),
            "the key is the payment"
        );
        assert_eq!(record.timestamp_ms, 1_593_561_600_000, "the time is the pickup's");
    }
    assert!(
        topic("enriched").iter().all(|record| header(record, "by").is_none()),
        "what was written before is as it was"
    );
    let charges: Vec<(Option<Vec<u8>>, Value)> = topic("charges")
        .iter()
        .map(|record| (record.key.clone(), value(record)))
        .collect();
    let expected: Vec<_> = all
        .iter()
        .flat_map(|n| [("fare", n % 5), ("tip", n % 3)])
        .filter(|(_, amount)| *amount != 0)
        .map(|(name, amount)| {
            (
                Some(name.as_bytes().to_vec()),
                json!({"charge": name, "amount": amount as f64}),
            )
        })
        .collect();
    let floats = |charges: Vec<(Option<Vec<u8>>, Value)>| -> Vec<_> {
        charges
            .into_iter()
            .map(|(key, value)| (key, value["charge"].clone(), value["amount"].as_f64()))
            .collect()
    };
    assert_eq!(floats(charges), floats(expected));
    let letters = topic("three-dlq");
    assert_eq!(numbers(&letters), (0..5000).filter(|n| n % 50 == 3).collect::<Vec<_>>());
    assert!(
        letters
            .iter()
            .all(|letter| message(letter) == "the ride ends 3600 s before it begins")
    );
    assert!(
        letters
            .iter()
            .all(|letter| header(letter, "__millstream.stage") == Some("enrich"))
    );
}

#[test]
fn a_topic_that_two_branches_write_has_the_order_of_the_input() {
    let (_dir, mut running) = host();
    make_topic(running.log(), "rides", 2);
    let rides = rides(4000);
    for partition in 0..2 {
        append(running.log(), "rides", partition, &records(&rides));
    }
    // "together" is written by two branches; "merged" by one branch of a stage that both branches feed; "behind" by one
    // behind that.
    running.start(
        "order",
        r#"
        [source.rides]
        [stage.split]
        plugin = "@branch-by-amount"
        input = "rides"
        to = { high = "together", low = "together" }
        [stage.merge]
        plugin = "@redact"
        input = ["split.low", "split.high"]
        to.kept = "merged"
        [stage.behind]
        plugin = "@redact"
        input = "merge.kept"
        to.kept = "behind"
        "#,
    );
    running.until_end(LONG);
    let expected: Vec<u64> = (0..4000).collect();
    for topic in ["together", "merged", "behind"] {
        for (partition, records) in read_topic(running.log(), topic).iter().enumerate() {
            assert_eq!(numbers(records), expected, "{topic}-{partition}");
        }
    }
}

#[test]
fn one_row_with_many_outputs_stays_together() {
    let (_dir, mut running) = host();
    make_topic(running.log(), "rides", 1);
    let rides = rides(1500);
    append(running.log(), "rides", 0, &records(&rides));
    // Each ride twice or three times into one topic: as `all`, by its payment, and by its amount in another stage.
    running.start(
        "fan",
        r#"
        [source.rides]
        [stage.sort]
        plugin = "@fan-out"
        input = "rides"
        to = { all = "fan", card = "fan", cash = "fan", other-payment = "fan", charges = false }
        [stage.split]
        plugin = "@branch-by-amount"
        input = "sort.all"
        to = { high = "fan", low = false }
        "#,
    );
    running.until_end(LONG);
    let times = |n: u64| if n * 7 % 80 >= 40 { 3 } else { 2 };
    let expected: Vec<u64> = (0..1500).flat_map(|n| std::iter::repeat_n(n, times(n))).collect();
    assert_eq!(numbers(&read_topic(running.log(), "fan").concat()), expected);
}

#[test]
fn text_raw_and_csv_are_read() {
    let (_dir, mut running) = host();
    for topic in ["text", "raw", "csv"] {
        make_topic(running.log(), topic, 1);
    }
    append(running.log(), "text", 0, &["39.99", "40", "much", " 7"].map(record));
    let raw: Vec<Vec<u8>> = vec![vec![0xff, 0, 1], Vec::new(), b"{".to_vec()];
    append(
        running.log(),
        "raw",
        0,
        &raw.iter().cloned().map(record).collect::<Vec<_>>(),
    );
    append(running.log(), "raw", 0, &[Record::default()]);
    let csv = ["1,50.5,\"a,b\"", "2,.5,x", "3,1", "4,nothing,x", "5,40,"];
    append(running.log(), "csv", 0, &csv.map(record));
    running.start(
        "text",
        r#"
        [source.text]
        format = "text"
        [stage.split]
        plugin = "@branch-by-amount"
        input = "text"
        config = { field = "" }
        to = { high = "text-high", low = "text-low" }
        "#,
    );
    running.start(
        "raw",
        r#"
        [source.raw]
        format = "raw"
        [stage.mark]
        plugin = "@redact"
        input = "raw"
        config = { set_headers = { mark = "1" } }
        to.kept = "raw-kept"
        "#,
    );
    running.start(
        "csv",
        r#"
        [source.csv]
        format = { csv = { columns = ["id", "total_amount", "note"] } }
        key = "id"
        [stage.split]
        plugin = "@branch-by-amount"
        input = "csv"
        to = { high = "csv-high", low = "csv-low" }
        "#,
    );
    running.until_end(LONG);
    let values = |topic: &str| -> Vec<Option<Vec<u8>>> {
        read_topic(running.log(), topic)
            .concat()
            .into_iter()
            .map(|record| record.value)
            .collect()
    };
    let text =
        |lines: &[&str]| -> Vec<Option<Vec<u8>>> { lines.iter().map(|line| Some(line.as_bytes().to_vec())).collect() };
    assert_eq!(values("text-high"), text(&["40"]));
    assert_eq!(values("text-low")[..1], text(&["39.99"]));
    assert_eq!(values("text-low").len() + values("text-dlq").len(), 3);
    let kept: Vec<_> = raw.into_iter().map(Some).chain([None]).collect();
    assert_eq!(values("raw-kept"), kept);
    assert!(
        read_topic(running.log(), "raw-kept")
            .concat()
            .iter()
            .all(|record| header(record, "mark") == Some("1"))
    );
    assert_eq!(values("csv-high"), text(&[csv[0], csv[4]]));
    assert_eq!(values("csv-low"), text(&[csv[1]]));
    let keys: Vec<_> = read_topic(running.log(), "csv-high")
        .concat()
        .into_iter()
        .map(|record| record.key)
        .collect();
    assert_eq!(keys, [Some(b"1".to_vec()), Some(b"5".to_vec())]);
    let letters = read_topic(running.log(), "csv-dlq").concat();
    let said: Vec<_> = letters.iter().map(message).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("columns") && said[1].contains("nothing"), "{said:?}");
}

#[test]
fn a_row_of_which_one_output_cannot_be_written_has_none() {
    let (_dir, mut running) = host();
    make_topic(running.log(), "rides", 1);
    // Plain text has NaN, JSON has not: the row of the charge cannot be written.
    let rides = ["0,1,5,1,0", "1,1,NaN,1,0", "2,2,5,inf,0", "3,2,5,0,0", "4,1,0,0,-inf"];
    append(running.log(), "rides", 0, &rides.map(record));
    running.start(
        "nan",
        r#"
        [source.rides]
        format = { csv = { columns = ["n", "payment_type", "fare_amount", "tip_amount", "tolls_amount"] } }
        [stage.sort]
        plugin = "@fan-out"
        input = "rides"
        to = { all = "all", card = "card", cash = "cash", other-payment = false, charges = "charges" }
        [stage.again]
        plugin = "@redact"
        input = "sort.all"
        to.kept = "again"
        "#,
    );
    running.until_end(LONG);
    let topic = |name: &str| read_topic(running.log(), name).concat();
    let values = |name: &str| -> Vec<String> {
        topic(name)
            .into_iter()
            .map(|record| String::from_utf8(record.value.expect("a value")).expect("UTF-8"))
            .collect()
    };
    assert_eq!(values("all"), [rides[0], rides[3]]);
    assert_eq!(values("again"), [rides[0], rides[3]]);
    assert_eq!(
        (values("card"), values("cash")),
        (vec![rides[0].to_owned()], vec![rides[3].to_owned()])
    );
    assert_eq!(topic("charges").len(), 3);
    let letters = topic("nan-dlq");
    assert_eq!(values("nan-dlq"), [rides[1], rides[2], rides[4]]);
    for (letter, word) in letters.iter().zip(["NaN", "inf", "inf"]) {
        assert_eq!(header(letter, "__millstream.reason"), Some("encode"));
        assert!(
            message(letter).contains("amount") && message(letter).to_lowercase().contains(&word.to_lowercase()),
            "{}",
            message(letter)
        );
    }
}

#[test]
fn limits_are_each_stages_own() {
    let (_dir, mut running) = host();
    make_topic(running.log(), "rides", 1);
    let value = |n: u64| record(format!(r#"{{"n":{n},"poison":{}}}"#, n == 77));
    append(running.log(), "rides", 0, &(0..100).map(value).collect::<Vec<_>>());
    let stage = |name: &str, kind: &str, limits: &str| {
        format!(
            r#"
            [stage.{name}]
            plugin = "@chaos"
            input = "rides"
            config = {{ kind = "{kind}" }}
            limits = {{ {limits} }}
            to.out = "{name}"
            "#
        )
    };
    let stages = [
        stage("short", "loop", r#"time = "20ms""#),
        stage("long", "loop", r#"time = "70ms""#),
        stage("small", "memory-by-page", r#"memory = "4MiB""#),
        stage("large", "memory-by-page", r#"memory = "8MiB""#),
        stage("few", "many-rows", "rows = 5"),
        stage("output", "many-rows", r#"output = "1MiB", rows = 1000000"#),
    ];
    running.start("limits", &format!("[source.rides]\n{}", stages.concat()));
    running.until_end(LONG);
    let letters = read_topic(running.log(), "limits-dlq").concat();
    let said = |stage: &str| {
        let of_stage: Vec<_> = letters
            .iter()
            .filter(|letter| header(letter, "__millstream.stage") == Some(stage))
            .collect();
        assert_eq!(
            numbers(&of_stage.iter().map(|&letter| letter.clone()).collect::<Vec<_>>()),
            [77],
            "{stage}"
        );
        message(of_stage[0]).to_owned()
    };
    for (stage, words) in [
        ("short", "within 20ms"),
        ("long", "within 70ms"),
        ("small", "its limit is 4194304"),
        ("large", "its limit is 8388608"),
        ("few", "the stage's limit is 5"),
        ("output", "1048576"),
    ] {
        assert!(said(stage).contains(words), "{stage}: {}", said(stage));
        assert_eq!(
            numbers(&read_topic(running.log(), stage).concat()),
            (0..100).filter(|n| *n != 77).collect::<Vec<_>>()
        );
    }
}

#[test]
fn several_sources_meet_in_one_stage() {
    let (_dir, mut running) = host();
    for (topic, partitions) in [("a", 2), ("b", 2), ("c", 3)] {
        make_topic(running.log(), topic, partitions);
    }
    let made = |topic: &str, n: u64| record(format!(r#"{{"from":"{topic}","n":{n},"total_amount":{n},"sum":{n}}}"#));
    for partition in 0..2 {
        for topic in ["a", "b"] {
            append(
                running.log(),
                topic,
                partition,
                &(0..1000).map(|n| made(topic, n)).collect::<Vec<_>>(),
            );
        }
    }
    let pipeline = |name: &str, second: &str| {
        format!(
            r#"
            name = "{name}"
            [source.a]
            key = "n"
            [source.{second}]
            [stage.split]
            plugin = "@branch-by-amount"
            input = ["a", "{second}"]
            to = {{ high = {{ topic = "high", partitions = 2 }}, low = "low" }}
            "#
        )
    };
    let refusal = running
        .try_start("refused", &pipeline("refused", "c"))
        .expect_err("three partitions and two");
    assert!(
        refusal.contains("\"a\" (2 partitions)") && refusal.contains("\"c\" (3)"),
        "{refusal}"
    );
    running.start("meet", &pipeline("meet", "b"));
    running.until_end(LONG);
    let of = |topic: &str, from: &str| -> Vec<Vec<u64>> {
        let partitions = read_topic(running.log(), topic);
        partitions
            .iter()
            .map(|records| {
                numbers(
                    &records
                        .iter()
                        .filter(|record| value_from(record) == from)
                        .cloned()
                        .collect::<Vec<_>>(),
                )
            })
            .collect()
    };
    // Without a key a record stays in its partition, in order; with one it goes where its key belongs.
    assert_eq!(of("low", "b"), vec![(0..40).collect::<Vec<_>>(); 2]);
    assert_eq!(of("high", "b"), vec![(40..1000).collect::<Vec<_>>(); 2]);
    let mut keyed = of("high", "a").concat();
    keyed.sort_unstable();
    assert_eq!(keyed, (40..1000).flat_map(|n| [n, n]).collect::<Vec<_>>());
    let records = read_topic(running.log(), "high").concat();
    let keys = records
        .iter()
        .filter(|record| value_from(record) == "a")
        .map(|record| record.key.clone());
    let expected = records
        .iter()
        .filter(|record| value_from(record) == "a")
        .map(|r| Some(value(r)["n"].to_string().into_bytes()));
    assert!(keys.eq(expected), "the key is the number");
}

fn value_from(record: &Record) -> String {
    value(record)["from"].as_str().expect("where it is from").to_owned()
}

#[test]
fn the_largest_records_panic_nobody() {
    let (_dir, mut running) = host();
    make_topic(running.log(), "large", 1);
    let filled = |rest: usize, text: &str| text.replace('#', &"k".repeat(rest));
    let records = [
        record(vec![b'x'; RECORD_BYTES_MAX]),
        // A key of the value that is as large as the value.
        record(filled(RECORD_BYTES_MAX - 100, r##"{"total_amount":1,"key":"#"}"##)),
        record(filled(KEY_BYTES_MAX + 1, r##"{"total_amount":1,"key":"#"}"##)),
        record(filled(KEY_BYTES_MAX, r##"{"total_amount":1,"key":"#"}"##)),
        record(r#"{"total_amount":1,"key":null}"#),
        // A record all of whose room is taken, which is given a key.
        record(format!(
            r#"{{"total_amount":1,"key":"k","fill":"{}"}}"#,
            "f".repeat(RECORD_BYTES_MAX - 40)
        )),
    ];
    for record in &records {
        assert!(
            record
                .value
                .as_ref()
                .is_some_and(|value| value.len() <= RECORD_BYTES_MAX),
            "the log takes it"
        );
        append(running.log(), "large", 0, std::slice::from_ref(record));
    }
    running.start(
        "large",
        r#"
        [source.large]
        key = "key"
        [stage.split]
        plugin = "@branch-by-amount"
        input = "large"
        to = { high = false, low = "low" }
        [stage.mark]
        plugin = "@redact"
        input = "split.low"
        config = { set_headers = { mark = "1" } }
        to.kept = "marked"
        "#,
    );
    running.until_end(LONG);
    let keys: Vec<_> = read_topic(running.log(), "low")
        .concat()
        .iter()
        .map(|record| record.key.as_ref().map(Vec::len))
        .collect();
    assert_eq!(keys, [Some(KEY_BYTES_MAX), None, Some(1)]);
    let letters = read_topic(running.log(), "large-dlq").concat();
    let said: Vec<_> = letters
        .iter()
        .map(|letter| {
            (
                header(letter, "__millstream.reason").expect("a reason"),
                message(letter),
            )
        })
        .collect();
    assert_eq!(letters[0].value, records[0].value, "the raw bytes");
    let expected = [
        ("decode", "not JSON"),
        ("decode", "the key has 4194204 bytes, but 4096 bytes is the limit"),
        ("decode", "the key has 4097 bytes, but 4096 bytes is the limit"),
        ("encode", "the record has"),
    ];
    for ((reason, words), said) in expected.iter().zip(&said) {
        assert!(
            said.0 == *reason && said.1.contains(words),
            "{said:?} does not say {words:?}"
        );
    }
    assert_eq!(said.len(), expected.len(), "{said:?}");
}

/// Pipelines in a row, each the next one's source.
fn row(length: usize) -> Vec<(String, String)> {
    let pipeline = |at: usize| {
        let name = format!("row-{at}");
        let text = format!(
            r#"
            name = "{name}"
            [source.t{at}]
            [stage.mark]
            plugin = "@redact"
            input = "t{at}"
            config = {{ set_headers = {{ h{at} = "1" }} }}
            to.kept = "t{next}"
            [commit]
            interval = "1ms"
            "#,
            next = at + 1
        );
        (name, text)
    };
    // The last first: it is at its end before anything comes.
    (0..length).rev().map(pipeline).collect()
}

#[test]
fn pipelines_in_a_row_end_when_all_are_through() {
    // Often, as what could go wrong is a matter of moments.
    for round in 0..15 {
        let (_dir, mut running) = host();
        for at in 0..=4 {
            make_topic(running.log(), &format!("t{at}"), 2);
        }
        for (name, text) in row(4) {
            running.start(&name, &text);
        }
        for partition in 0..2 {
            append(running.log(), "t0", partition, &records(&rides(20 + 300 * (round % 3))));
        }
        running.until_end(LONG);
        for (partition, records) in read_topic(running.log(), "t4").iter().enumerate() {
            assert_eq!(
                numbers(records),
                (0..20 + 300 * (round % 3)).collect::<Vec<_>>(),
                "round {round}, partition {partition}"
            );
            assert!((0..4).all(|at| header(&records[0], &format!("h{at}")) == Some("1")));
        }
        assert_eq!(running.host.lag(), 0);
    }
}

#[test]
fn the_program_ends_when_all_are_through() {
    for _ in 0..3 {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let log = open(&data);
        make_topic(&log, "t0", 1);
        append(&log, "t0", 0, &records(&rides(3000)));
        log.close();
        drop(log);
        let files: Vec<_> = row(3)
            .into_iter()
            .map(|(name, text)| {
                let file = dir.path().join(format!("{name}.toml"));
                let plugin = format!("{:?}", millstream_tests::plugin("redact"));
                std::fs::write(&file, text.replace("\"@redact\"", &plugin)).expect("written");
                file
            })
            .collect();
        succeed(millstream(["run", "--until-end", "--data"]).arg(&data).args(&files));
        let log = open(&data);
        assert_eq!(numbers(&read_topic(&log, "t3").concat()), (0..3000).collect::<Vec<_>>());
        let place = TopicPartition::new("t2", 0);
        assert_eq!(log.committed("row-2", &place), Ok(Some(3000)));
    }
}

#[test]
fn a_pipeline_that_is_started_again_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let (_, text) = row(1).remove(0);
    for round in 0..3 {
        let mut running = InProcess::open(&data, 1, Options::default());
        if round == 0 {
            make_topic(running.log(), "t0", 1);
        }
        append(running.log(), "t0", 0, &records(&rides(1000)[round * 300..][..300]));
        running.start("row-0", &text);
        assert!(matches!(running.try_start("row-0", &text), Err(why) if why.contains("runs already")));
        running.wait_for("row-0", LONG);
        assert!(running.host.stop(LONG), "it stops");
        assert_eq!(running.state("row-0"), PipelineState::Stopped);
        assert_eq!(
            numbers(&read_topic(running.log(), "t1").concat()),
            (0..(round as u64 + 1) * 300).collect::<Vec<_>>()
        );
        running.log().close();
    }
}
