//! Promise: the commands do what their help says, alone, beside a host and beside each other.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millstream::connect::TopicPartition;
use millstream::record::Record;
use millstream_tests::running::{Running, feed, wait_until};
use millstream_tests::{
    append, document, lines, make_topic, millstream, on, open, plugin, program, read_topic, refuse, succeed, value,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Produces what stands on stdin.
fn produce(data: &Path, args: &[&str], input: &str) -> String {
    let output = feed(on(data, &["produce"]).args(args), input.as_bytes());
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {err}", output.status);
    assert_eq!(output.stdout, b"", "data is all that goes to stdout");
    err
}

/// The thing of a list that is called so.
fn named<'l>(list: &'l Value, key: &str, name: &str) -> Option<&'l Value> {
    list.as_array().expect("a list").iter().find(|thing| thing[key] == name)
}

/// Rides with these numbers.
fn rides(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|n| format!("{{\"total_amount\":{},\"n\":{n}}}\n", n % 80))
        .collect()
}

/// A pipeline that splits rides by amount.
fn split(dir: &Path, name: &str) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    let text = format!(
        "[source.rides]\npartitions = 3\n[stage.split]\nplugin = {:?}\ninput = \"rides\"\nconfig = {{ threshold = 40 }}\n\
         to = {{ high = \"{name}-high\", low = \"{name}-low\" }}\n[commit]\ninterval = \"10ms\"\n",
        plugin("branch-by-amount")
    );
    std::fs::write(&file, text).expect("the pipeline file is written");
    file
}

#[test]
fn csv_and_json_lines_go_in_and_come_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let csv = dir.path().join("rides.csv");
    std::fs::write(
        &csv,
        "id,amount,at\n7,1.50,2020-07-01 00:00:01\n008,,1970-01-01T00:00:02Z\n",
    )
    .expect("a file");
    let mut command = on(
        &data,
        &[
            "produce",
            "rides",
            "--format",
            "csv",
            "--key",
            "id",
            "--timestamp",
            "at",
        ],
    );
    let said = succeed(command.arg("--file").arg(&csv));
    assert_eq!(said, "");
    let found = lines(&succeed(&mut on(&data, &["consume", "rides", "--until-end"])));
    let record = |offset: u64, time: i64, key: &str, value: Value| json!({"topic": "rides", "partition": 0, "offset": offset, "timestamp": time, "key": key, "value": value, "headers": []});
    let expected = [
        record(
            0,
            1_593_561_601_000,
            "7",
            json!({"id": 7, "amount": 1.50, "at": "2020-07-01 00:00:01"}),
        ),
        record(
            1,
            2_000,
            "008",
            json!({"id": "008", "amount": null, "at": "1970-01-01T00:00:02Z"}),
        ),
    ];
    assert_eq!(found, expected);

    let said = produce(
        &data,
        &["notes", "--key", "/who/name"],
        "{\"who\":{\"name\":\"Ada\"}}\n\n[1, 2]\n\"x\"\n",
    );
    assert!(
        said.contains("made topic notes with 1 partition") && said.contains("3 records in notes"),
        "{said}"
    );
    let text = succeed(&mut on(&data, &["consume", "notes", "--until-end"]));
    assert!(text.contains("\"value\":[1, 2]"), "a value keeps its bytes: {text}");
    let found = lines(&text);
    assert_eq!(found[0]["key"], "Ada");
    assert_eq!((&found[1]["key"], &found[2]["value"]), (&Value::Null, &json!("\"x\"")));
}

#[test]
fn a_rate_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    produce(dir.path(), &["rides", "--rate", "100"], &rides(0..40));
    assert!(began.elapsed() > Duration::from_millis(350), "{:?}", began.elapsed());
    assert_eq!(
        succeed(&mut on(dir.path(), &["consume", "rides", "--until-end"]))
            .lines()
            .count(),
        40
    );
}

/// Records that are hard to write down.
fn hard_records() -> Vec<Record> {
    let keys: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"k\xff\x00"), Some(b"{\"id\": 1}")];
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let values: [Option<&[u8]>; 12] = [
        None,
        Some(b""),
        Some(b"null"),
        Some(b"12"),
        Some(b"\"text\""),
        Some(b"\xff\xfe\x00"),
        Some(br#"{"a": {"b":[1.50, 1e400, {"c":"\u00fc"}]} }"#),
        Some(b"{\"a\":1}\n"),
        Some(b"{\"value\":1}"),
        Some("ü\u{2028}\u{0}\"\\".as_bytes()),
        Some(br#"{"twice":1,"twice":2}"#),
        Some(deep.as_bytes()),
    ];
    let mut records = Vec::new();
    for (n, value) in values.into_iter().enumerate() {
        for key in keys {
            records.push(Record {
                key: key.map(<[u8]>::to_vec),
                value: value.map(<[u8]>::to_vec),
                headers: [
                    ("h", Some(&b"1"[..])),
                    ("h", None),
                    ("", Some(b"")),
                    ("b", Some(b"\xff")),
                ]
                .into_iter()
                .take(n % 5)
                .collect(),
                timestamp_ms: [0, -1, 1_600_000_000_000][n % 3],
            });
        }
    }
    records
}

/// `consume rides | produce copy`.
fn copy(data: &Path) {
    let mut consume = on(data, &["consume", "rides", "--until-end"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = consume.stdout.take().expect("it was asked for");
    let produced = on(data, &["produce", "copy"])
        .stdin(lines)
        .output()
        .expect("the program starts");
    let consumed = consume.wait_with_output().expect("it ends");
    let said = [consumed.stderr, produced.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(consumed.status.success() && produced.status.success(), "{said:?}");
}

#[test]
fn consumed_and_produced_again_records_are_the_same_bytes() {
    for beside_a_host in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let mut records = hard_records();
        // More than pipes and queues hold: both commands work at the same time.
        for n in 0..20_000_u32 {
            records.push(Record {
                value: Some(n.to_string().repeat(10).into_bytes()),
                ..Record::default()
            });
        }
        let log = open(&data);
        make_topic(&log, "rides", 1);
        for chunk in records.chunks(1000) {
            append(&log, "rides", 0, chunk);
        }
        log.close();
        let mut host = beside_a_host.then(|| {
            let other = dir.path().join("other.toml");
            let text = std::fs::read_to_string(split(dir.path(), "p")).expect("it was written");
            std::fs::write(
                &other,
                text.replace("[source.rides]", "[source.rides]\ntopic = \"other\""),
            )
            .expect("a file");
            Running::host(&data, &[&other])
        });
        copy(&data);
        if let Some(host) = &mut host {
            host.stop(Signal::TERM);
        }
        let log = open(&data);
        let copied = read_topic(&log, "copy").remove(0);
        assert_eq!(copied.len(), records.len());
        for (at, (copied, record)) in copied.iter().zip(&records).enumerate() {
            assert_eq!(copied, record, "record {at}");
        }
    }
}

#[test]
fn consume_begins_where_it_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let now = jiff::Timestamp::now().as_millisecond();
    let input: String = [now - 7_200_000, now - 1_800_000, now - 1_000]
        .iter()
        .enumerate()
        .map(|(n, time)| format!("{{\"value\":\"{n}\",\"timestamp\":{time}}}\n"))
        .collect();
    produce(dir.path(), &["t"], &input);
    let from = |place: &str| -> String {
        let found = lines(&succeed(&mut on(
            dir.path(),
            &["consume", "t", "--until-end", "--from", place],
        )));
        found
            .iter()
            .map(|record| record["value"].as_str().expect("a text").to_owned())
            .collect()
    };
    let in_between = jiff::Timestamp::from_millisecond(now - 3_600_000)
        .expect("a time")
        .to_string();
    for (place, expected) in [
        ("start", "012"),
        ("end", ""),
        ("@0", "012"),
        ("@2", "2"),
        ("-1h", "12"),
        ("-3h", "012"),
        ("-100ms", ""),
        (&in_between, "12"),
    ] {
        assert_eq!(from(place), expected, "--from {place}");
    }
    let two = succeed(&mut on(dir.path(), &["consume", "t", "-n", "2"]));
    assert_eq!(two.lines().count(), 2, "it ends by itself");
}

#[test]
fn consume_says_where_it_begins_instead_of_beyond_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    produce(dir.path(), &["t"], &rides(0..3));
    for (place, said) in [
        ("@3", ""),
        (
            "@4",
            "t[0]: offset 4 is not there yet; reading from the end, offset 3\n",
        ),
    ] {
        let mut command = on(dir.path(), &["consume", "t", "--until-end", "--from", place]);
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "--from {place}");
        assert_eq!(output.stdout, b"", "--from {place}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), said, "--from {place}");
    }
}

#[test]
fn a_group_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    produce(dir.path(), &["t"], &rides(0..10));
    let read = |args: &[&str]| -> Vec<u64> {
        let found = lines(&succeed(on(dir.path(), &["consume", "t", "--group", "g"]).args(args)));
        found
            .iter()
            .map(|record| record["offset"].as_u64().expect("a number"))
            .collect()
    };
    assert_eq!(read(&["-n", "3"]), [0, 1, 2]);
    assert_eq!(read(&["-n", "1"]), [3]);
    let groups = document(&mut on(dir.path(), &["groups", "-o", "json"]));
    let place = &groups[0]["partitions"][0];
    assert_eq!(
        (&groups[0]["group"], &place["committed_offset"], &place["lag"]),
        (&json!("g"), &json!(4), &json!(6))
    );
    assert_eq!(read(&["--until-end"]), [4, 5, 6, 7, 8, 9]);
    assert!(read(&["--until-end"]).is_empty());
    assert_eq!(read(&["--until-end", "--from", "@8"]), [8, 9]);
    let text = succeed(&mut on(dir.path(), &["groups"]));
    let row: Vec<_> = text.lines().nth(1).expect("a row").split_whitespace().take(6).collect();
    assert_eq!(row, ["g", "t", "0", "10", "10", "0"], "{text}");
    succeed(&mut on(dir.path(), &["groups", "delete", "g"]));
    assert_eq!(
        document(&mut on(dir.path(), &["groups", "list", "-o", "json"])),
        json!([])
    );
    assert_eq!(read(&["-n", "1"]), [0]);
}

#[test]
fn members_of_a_group_share_the_partitions_beside_a_host() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let mut host = Running::host(&data, &[&split(dir.path(), "p")]);
    succeed(&mut on(&data, &["topics", "create", "shared", "--partitions", "2"]));
    // A group is listed with its offsets: it has some from the first.
    let input: String = (0..300)
        .map(|n| format!("{{\"key\":\"{n}\",\"value\":\"{n}\"}}\n"))
        .collect();
    produce(&data, &["shared"], &input);
    succeed(&mut on(&data, &["consume", "shared", "--group", "g", "--until-end"]));
    let mut members: Vec<_> = (0..3)
        .map(|_| Running::start(on(&data, &["consume", "shared", "--group", "g"])))
        .collect();
    let held = || {
        let groups = document(&mut on(&data, &["groups", "-o", "json"]));
        let group = groups
            .as_array()
            .expect("a list")
            .iter()
            .find(|group| group["group"] == "g")
            .cloned();
        let group = group.unwrap_or_default();
        let members = group["members"].as_array().map_or(0, Vec::len);
        let partitions = group["partitions"].as_array().cloned().unwrap_or_default();
        let mut holders: Vec<_> = partitions
            .iter()
            .filter_map(|place| place["member"].as_str().map(str::to_owned))
            .collect();
        holders.sort();
        holders.dedup();
        (members, holders.len())
    };
    wait_until("three members, two of which hold a partition", || held() == (3, 2));
    produce(&data, &["shared"], &input);
    let counts =
        |members: &[Running]| -> Vec<usize> { members.iter().map(|member| member.out().lines().count()).collect() };
    wait_until("all records are read", || counts(&members).iter().sum::<usize>() >= 300);
    let mut sorted = counts(&members);
    sorted.sort_unstable();
    assert_eq!(sorted[0], 0, "the third one has nothing to do");
    assert!(sorted[1] > 0, "the two share");
    let partition = |member: &Running| {
        let mut partitions: Vec<_> = lines(&member.out())
            .iter()
            .map(|record| record["partition"].as_u64())
            .collect();
        partitions.dedup();
        partitions
    };
    assert!(
        members.iter().all(|member| partition(member).len() <= 1),
        "each reads its own"
    );
    assert_eq!(sorted.iter().sum::<usize>(), 300, "nothing is read twice");
    // Two go; the one that is left reads everything.
    wait_until("everything is committed", || {
        let groups = document(&mut on(&data, &["groups", "-o", "json"]));
        let group = named(&groups, "group", "g").expect("the group");
        group["partitions"]
            .as_array()
            .expect("a list")
            .iter()
            .all(|place| place["lag"] == 0)
    });
    let mut last = members.pop().expect("three");
    for member in &mut members {
        member.stop(Signal::INT);
    }
    let before = last.out().lines().count();
    produce(&data, &["shared"], &input);
    last.wait_for("the last member reads both partitions", |last| {
        last.out().lines().count() == before + 300
    });
    last.stop(Signal::TERM);
    host.stop(Signal::TERM);
}

#[test]
fn topics_are_made_listed_described_and_deleted() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path();
    let args = [
        "topics",
        "create",
        "a.b_c-1",
        "--partitions",
        "3",
        "--retention",
        "7d",
        "--retention-size",
        "1GB",
    ];
    succeed(&mut on(data, &args));
    produce(data, &["other"], &rides(0..5));
    let topics = document(&mut on(data, &["topics", "-o", "json"]));
    let names: Vec<_> = topics
        .as_array()
        .expect("a list")
        .iter()
        .map(|topic| topic["name"].as_str())
        .collect();
    assert_eq!(names, [Some("a.b_c-1"), Some("other")]);
    assert_eq!(topics, document(&mut on(data, &["topics", "list", "--output", "json"])));
    let topic = document(&mut on(data, &["topics", "describe", "a.b_c-1", "-o", "json"]));
    assert_eq!(topic["partitions"], 3);
    assert_eq!(
        (&topic["retention_ms"], &topic["retention_bytes"]),
        (&json!(604_800_000), &json!(1_000_000_000))
    );
    assert_eq!(topic["partition_ranges"].as_array().map(Vec::len), Some(3));
    let text = succeed(&mut on(data, &["topics", "describe", "other"]));
    let row: Vec<_> = text.lines().last().expect("a row").split_whitespace().take(4).collect();
    assert_eq!(row, ["0", "0", "5", "5"], "{text}");
    succeed(&mut on(data, &["topics", "delete", "other"]));
    let left = succeed(&mut on(data, &["topics"]));
    assert!(
        left.contains("a.b_c-1") && left.contains("7d") && !left.contains("other"),
        "{left}"
    );
}

#[test]
fn a_pipeline_is_checked_drawn_and_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let file = split(dir.path(), "p");
    let checked = succeed(millstream(["check"]).arg(&file));
    assert_eq!(checked, "p: fine, 1 source, 1 stage\n");
    let drawn = succeed(millstream(["explain"]).arg(&file));
    for part in [
        "reads topic rides",
        "branch-by-amount",
        "amount: float",
        "topic p-high",
        "topic p-low",
        "p-dlq",
    ] {
        assert!(drawn.contains(part), "{part} in:\n{drawn}");
    }
    assert!(document(millstream(["explain", "-o", "json"]).arg(&file)).is_object());
    let inspected = succeed(millstream(["inspect"]).arg(plugin("branch-by-amount")));
    for part in [
        "branch-by-amount 0.1.0",
        "kind      processor",
        "contract  0.1.0",
        "amount: float",
        "branch high",
    ] {
        assert!(inspected.contains(part), "{part} in:\n{inspected}");
    }
    assert!(document(millstream(["inspect", "-o", "json"]).arg(plugin("enrich")))["digest"].is_string());

    produce(&data, &["rides", "--partitions", "3", "--key", "n"], &rides(0..1000));
    let run = || {
        on(&data, &["run", "--until-end"])
            .arg(&file)
            .output()
            .expect("the program starts")
    };
    let output = run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{said}");
    assert!(said.contains("records_in=1000"), "{said}");
    let groups = document(&mut on(&data, &["groups", "-o", "json"]));
    let lags: Vec<_> = groups[0]["partitions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|place| place["lag"].as_u64())
        .collect();
    assert_eq!((&groups[0]["group"], lags), (&json!("p"), vec![Some(0); 3]));
    let branch = |name: &str| lines(&succeed(&mut on(&data, &["consume", name, "--until-end"])));
    let (high, low) = (branch("p-high"), branch("p-low"));
    assert!(
        high.iter()
            .all(|record| record["value"]["total_amount"].as_u64() >= Some(40))
    );
    assert!(
        low.iter()
            .all(|record| record["value"]["total_amount"].as_u64() < Some(40))
    );
    assert_eq!((high.len(), low.len()), (480, 520));
    // Again: there is nothing to do, and nothing is done.
    assert_eq!(run().status.code(), Some(0));
    assert_eq!(branch("p-high").len(), 480);
}

#[test]
fn help_completion_and_man_pages_are_there() {
    for command in [
        "check",
        "explain",
        "run",
        "produce",
        "consume",
        "topics",
        "groups",
        "inspect",
        "build",
        "demo",
        "completion",
    ] {
        let help = succeed(&mut millstream([command, "--help"]));
        assert!(help.contains("Usage: millstream") && help.contains(command), "{help}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeed(&mut millstream(["completion", shell])).contains("millstream"));
    }
    let script = dir.path().join("millstream.bash");
    std::fs::write(&script, succeed(&mut millstream(["completion", "bash"]))).expect("a file");
    let completed = succeed(Command::new("bash").arg("-c").arg(format!(
        "source {}; COMP_WORDS=(millstream to); COMP_CWORD=1; _millstream millstream to millstream; echo ${{COMPREPLY[@]}}",
        script.display()
    )));
    assert_eq!(completed.trim(), "topics");
    let pages = dir.path().join("new/man");
    succeed(millstream(["completion", "--man"]).arg(&pages));
    for page in ["millstream.1", "millstream-consume.1", "millstream-topics-create.1"] {
        let page = std::fs::read_to_string(pages.join(page)).expect("a man page");
        assert!(page.contains(".TH"), "{page}");
    }
}

#[test]
fn records_flow_through_a_running_host_and_a_second_one_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let file = split(dir.path(), "p");
    let mut host = Running::host(&data, &[&file]);
    let mut following = Running::start(on(&data, &["consume", "p-high"]));
    for n in 0..3 {
        produce(&data, &["rides"], &rides(n * 80..(n + 1) * 80));
        following.wait_for("records arrive", |following| {
            following.out().lines().count() == 40 * (n as usize + 1)
        });
    }
    let second = refuse(on(&data, &["run"]).arg(&file));
    assert!(second.contains(&format!("process {}", host.pid())), "{second}");
    assert!(
        second.contains("--data") && second.contains("SIGTERM"),
        "a remedy: {second}"
    );
    assert!(host.is_alive());
    following.stop(Signal::INT);
    host.stop(Signal::INT);
    assert!(host.out().is_empty(), "a host has no data for stdout");
}

#[test]
fn a_host_that_is_stopped_under_load_leaves_no_gap_and_no_double() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let file = split(dir.path(), "p");
    produce(&data, &["rides", "--partitions", "3"], &rides(0..100_000));
    let mut host = Running::host(&data, &[&file]);
    let more = dir.path().join("more.jsonl");
    std::fs::write(&more, rides(100_000..600_000)).expect("a file");
    let mut command = on(&data, &["produce", "rides", "--file"]);
    command.arg(&more);
    let mut producer = Running::start(command);
    wait_until("the pipeline is at work", || {
        let topics = document(&mut on(&data, &["topics", "-o", "json"]));
        let low = named(&topics, "name", "p-low").cloned().unwrap_or_default();
        low["partition_ranges"]
            .as_array()
            .is_some_and(|ranges| ranges.iter().any(|range| range["next_offset"].as_u64() > Some(0)))
    });
    // Process managers tell the process and its group: twice is one stop.
    host.signal(Signal::TERM);
    host.signal(Signal::TERM);
    let (status, took) = host.end();
    assert_eq!(status.code(), Some(0), "{}", host.err());
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Without the host the producer ends too: with an error, if it had not finished.
    producer.end();

    let log = open(&data);
    let done: u64 = (0..3)
        .map(|partition| {
            log.committed("p", &TopicPartition::new("rides", partition))
                .expect("the log answers")
                .unwrap_or(0)
        })
        .sum();
    let written = |log| -> usize {
        ["p-high", "p-low"]
            .iter()
            .flat_map(|topic| read_topic(log, topic))
            .map(|records| records.len())
            .sum()
    };
    assert_eq!(written(&log) as u64, done, "outputs and offsets are one");
    log.close();
    drop(log);

    succeed(on(&data, &["run", "--until-end"]).arg(&file));
    let log = open(&data);
    let numbers = |topics: &[&str]| {
        let mut numbers: Vec<u64> = topics
            .iter()
            .flat_map(|topic| read_topic(&log, topic))
            .flatten()
            .map(|record| value(&record)["n"].as_u64().expect("a number"))
            .collect();
        numbers.sort_unstable();
        numbers
    };
    let (read, written) = (numbers(&["rides"]), numbers(&["p-high", "p-low"]));
    assert_eq!(read.len(), written.len());
    assert!(read == written, "each record once");
}

#[test]
fn commands_work_beside_a_command_that_holds_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    produce(dir.path(), &["t"], &rides(0..1));
    let mut following = Running::start(on(dir.path(), &["consume", "t"]));
    following.wait_for("it reads", |following| following.out().lines().count() == 1);
    produce(dir.path(), &["t"], &rides(1..5));
    following.wait_for("it reads on", |following| following.out().lines().count() == 5);
    assert!(succeed(&mut on(dir.path(), &["topics"])).contains('5'));
    let file = split(dir.path(), "p");
    let refused = refuse(on(dir.path(), &["run"]).arg(&file));
    assert!(refused.contains(&format!("process {}", following.pid())), "{refused}");
    following.stop(Signal::TERM);
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let dir = tempfile::tempdir().expect("a folder");
    produce(dir.path(), &["t"], &rides(0..50_000));
    for args in [&["consume", "t"][..], &["consume", "t", "--until-end", "--group", "g"]] {
        let mut child = on(dir.path(), args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let head = Command::new("head")
            .arg("-n1")
            .stdin(child.stdout.take().expect("asked for"))
            .output()
            .expect("head starts");
        assert_eq!(lines(&String::from_utf8_lossy(&head.stdout)).len(), 1);
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*said), (Some(0), ""), "no error, no talk");
    }
}

#[test]
fn data_goes_to_stdout_talk_to_stderr_and_colours_only_to_a_terminal_that_wants_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "[source.rides]\n").expect("a file");
    let output = millstream(["check"]).arg(&bad).output().expect("the program starts");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(!output.stderr.contains(&0x1b), "no colours without a terminal");

    // `script` gives the command a terminal.
    let on_terminal = |no_color: &str| {
        let mut command = Command::new("script");
        command.args([
            "-q",
            "-e",
            "-c",
            &format!("'{}' check '{}'", program().display(), bad.display()),
            "/dev/null",
        ]);
        let output = command
            .env("NO_COLOR", no_color)
            .stdin(Stdio::null())
            .output()
            .expect("script starts");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("bad.toml"),
            "{output:?}"
        );
        output.stdout.contains(&0x1b)
    };
    assert!(on_terminal(""), "colours for a person");
    assert!(!on_terminal("1"), "none for one who wants none");
}
