//! Promise: a store is read as rows with fields, of a folder and of a running host alike, and a reset says what it does
//! and does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use millstream_tests::running::{Running, feed, wait_until};
use millstream_tests::{millstream, plugin, refuse, succeed};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A command on a data folder.
fn on(data: &Path, args: &[&str]) -> Command {
    let mut command = millstream(args);
    command.arg("--data").arg(data);
    command
}

/// What a command printed, as JSON lines.
fn lines(command: &mut Command) -> Vec<Value> {
    let text = succeed(command);
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    text.lines().map(line).collect()
}

fn produce(data: &Path, topic: &str, input: &str) {
    let output = feed(
        &mut on(data, &["produce", topic, "--timestamp", "at"]),
        input.as_bytes(),
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Rides of three vendors, one a second from the epoch on.
fn rides(numbers: std::ops::Range<u32>) -> String {
    let ride = |n: u32| format!("{{\"VendorID\":{},\"at\":\"{}\"}}\n", n % 3, time(i64::from(n) * 1000));
    numbers.map(ride).collect()
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).expect("a time").to_string()
}

fn pipeline(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\n[source.rides]\ntimestamp = \"at\"\npartitions = 2\n{text}\n[commit]\ninterval = \"10ms\"\n"
    );
    std::fs::write(&file, text).expect("the pipeline file is written");
    file
}

/// A store of a processor, and groups with and without windows.
fn counting(dir: &Path) -> PathBuf {
    let text = format!(
        "[stage.vendors]\nplugin = {:?}\ninput = \"rides\"\nkey = \"VendorID\"\nto = {{ counted = \"so-far\" }}\n\
         [stage.all]\nplugin = {count:?}\ninput = \"rides\"\nkey = \"VendorID\"\nto = {{ counted = \"counts\" }}\n\
         [stage.minutes]\nplugin = {count:?}\ninput = \"rides\"\nkey = \"VendorID\"\nwindow = {{ tumbling = \"1m\", grace = \"1m\" }}\n\
         to = {{ counted = \"minutes\", late = false }}",
        plugin("count-by-vendor"),
        count = plugin("count"),
    );
    pipeline(dir, "p", &text)
}

fn run(data: &Path, file: &Path) {
    succeed(on(data, &["run", "--until-end"]).arg(file));
}

/// Rows of a store without what depends on when and where they were written.
fn rows(data: &Path, args: &[&str]) -> Vec<Value> {
    let mut rows = lines(on(data, &["state", "p"]).args(args).args(["-o", "json"]));
    for row in &mut rows {
        let row = row.as_object_mut().expect("an object");
        row.remove("partition").expect("it says its partition");
        row.remove("timestamp").expect("it says when it was written");
    }
    rows
}

fn window(minute: i64, key: &str, count: i64) -> Value {
    json!({"window_start": time(minute * 60_000), "window_end": time((minute + 1) * 60_000), "key": key, "value": {"accumulator": count}})
}

#[test]
fn rows_have_fields_with_and_without_a_host() {
    for beside_a_host in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let file = counting(dir.path());
        let mut host = beside_a_host.then(|| Running::host(&data, &[&file]));
        produce(&data, "rides", &rides(0..300));
        match &host {
            None => run(&data, &file),
            Some(_) => wait_until("all is counted", || {
                rows(&data, &["minutes"]).last() == Some(&window(4, "2", 20))
                    && rows(&data, &["vendors.counts", "2"]) == [json!({"key": {"key": 2}, "value": {"value": 100}})]
            }),
        }

        let store = |vendor: i64| json!({"key": {"key": vendor}, "value": {"value": 100}});
        assert_eq!(rows(&data, &["counts"]), [store(0), store(1), store(2)]);
        assert_eq!(rows(&data, &["vendors.counts", "1"]), [store(1)]);
        assert!(rows(&data, &["counts", "7"]).is_empty());
        let group = |key: &str| json!({"key": key, "value": {"accumulator": 100}});
        assert_eq!(rows(&data, &["all"]), ["0", "1", "2"].map(group));
        assert_eq!(rows(&data, &["all", "--prefix", "2"]), [group("2")]);

        // Stream time is 4:59: windows are open from 3:00 on, one minute of grace included.
        let open = [3, 4].map(|minute| ["0", "1", "2"].map(|key| window(minute, key, 20)));
        assert_eq!(rows(&data, &["minutes"]), open.concat());
        assert_eq!(rows(&data, &["minutes", "1"]), [window(3, "1", 20), window(4, "1", 20)]);
        assert_eq!(rows(&data, &["minutes", "--window", "1970-01-01T00:04:00Z.."]), open[1]);
        assert_eq!(rows(&data, &["minutes", "--window", "..1970-01-01T00:04:00Z"]), open[0]);
        assert_eq!(rows(&data, &["minutes", "-n", "2"]), open[0][..2]);

        let text = succeed(&mut on(&data, &["state", "p", "minutes", "-n", "1"]));
        let found: Vec<_> = text.lines().collect();
        assert_eq!(
            found,
            [
                "WINDOW START          WINDOW END            KEY  ACCUMULATOR  WRITTEN",
                "1970-01-01T00:03:00Z  1970-01-01T00:04:00Z  0             20  1970-01-01T00:03:57Z"
            ]
        );
        let listed: Value =
            serde_json::from_str(&succeed(&mut on(&data, &["state", "p", "-o", "json"]))).expect("JSON");
        let names = listed
            .as_array()
            .expect("a list")
            .iter()
            .map(|store| (store["store"].as_str(), store["rows"].as_u64()));
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                (Some("all"), Some(3)),
                (Some("minutes"), Some(6)),
                (Some("vendors.counts"), Some(3))
            ]
        );
        let text = succeed(&mut on(&data, &["state"]));
        assert!(
            text.contains("the record's key, 1m window") && text.contains("key: integer"),
            "{text}"
        );

        for (args, said) in [
            (&["nobody"][..], "pipelines with state: `p`"),
            (
                &["p", "cuonts"],
                "did you mean `vendors.counts`? its stores: `all`, `minutes`, `vendors.counts`",
            ),
            (&["p", "counts", "one"], "\"one\" is no integer"),
            (&["p", "counts", "--window", "-1h.."], "has no windows"),
            (&["p", "minutes", "--window", "-1h"], "no stretch of time"),
        ] {
            let error = refuse(on(&data, &["state"]).args(args));
            let error = error
                .split_whitespace()
                .filter(|word| *word != "│")
                .collect::<Vec<_>>()
                .join(" ");
            assert!(error.contains(said), "{args:?}: {error}");
        }
        if let Some(host) = &mut host {
            host.stop(Signal::TERM);
            // The local store has been given back, and is flushed or not: the rows are the same.
            assert_eq!(rows(&data, &["minutes"]), open.concat());
        }
    }
}

#[test]
fn rows_past_their_time_are_not_shown() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let text = format!(
        "[stage.seen]\nplugin = {:?}\ninput = \"rides\"\nkey = \"at\"\nconfig = {{ id = \"/at\", time_to_live = \"10s\" }}\nto = {{ first = \"first\", repeated = false }}",
        plugin("deduplicate")
    );
    let file = pipeline(dir.path(), "p", &text.replace("partitions = 2", "partitions = 1"));
    // A batch's rows are written at the stream time of its end: two batches.
    for numbers in [0..5, 12..20] {
        produce(&data, "rides", &rides(numbers));
        run(&data, &file);
    }
    let rows = rows(&data, &["seen"]);
    let keys: Vec<_> = rows.iter().filter_map(|row| row["key"]["key"].as_str()).collect();
    // Stream time is 19 s: what was written at 4 s is past.
    let alive: Vec<_> = (12..20).map(|n| format!("\"{}\"", time(n * 1000))).collect();
    assert_eq!(keys, alive);
}

/// The last count of each vendor in a topic of results, and how many results there are.
fn counted(data: &Path) -> (usize, Vec<i64>) {
    let results = lines(&mut on(data, &["consume", "counts", "--until-end"]));
    let last = |key: &str| {
        let mut of = results.iter().filter(|result| result["key"] == key);
        of.next_back()
            .and_then(|result| result["value"]["count"].as_i64())
            .unwrap_or(0)
    };
    (results.len(), ["0", "1", "2"].map(last).to_vec())
}

#[test]
fn a_reset_says_what_it_does_and_does_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let file = counting(dir.path());
    produce(&data, "rides", &rides(0..300));
    run(&data, &file);
    assert_eq!(counted(&data).1, [100, 100, 100]);

    // Nobody is there to ask: it says what it would do, and does nothing.
    let output = on(&data, &["reset", "p"]).output().expect("the program starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(!output.status.success() && err.contains("--yes"), "{err}");
    let said: Vec<String> = out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "source rides[0] 300 → 0 300 records read again",
        "store all 3 rows dropped, with its changelog",
        "store minutes 6 rows dropped, with its changelog",
        "store vendors.counts 3 rows dropped, with its changelog",
        "internal topic p-all-repartition 300 records dropped",
    ] {
        assert!(said.iter().any(|found| found == line), "{line}: {out}");
    }
    run(&data, &file);
    assert_eq!(counted(&data).1, [100, 100, 100]);

    // Everything anew: the results come again behind those that are there.
    let results = counted(&data).0;
    succeed(&mut on(&data, &["reset", "p", "--yes"]));
    assert_eq!(counted(&data).0, results);
    assert!(
        succeed(&mut on(&data, &["topics"]))
            .lines()
            .all(|line| !line.starts_with("p-") || line.starts_with("p-dlq"))
    );
    run(&data, &file);
    assert_eq!(counted(&data).1, [100, 100, 100]);
    assert_eq!(rows(&data, &["minutes"]).len(), 6, "stream time began anew too");

    // What is kept counts on.
    succeed(&mut on(&data, &["reset", "p", "--keep-state", "--to", "@150", "--yes"]));
    run(&data, &file);
    assert_eq!(counted(&data).1, [150, 150, 150]);
    let windows = rows(&data, &["minutes"]);
    assert_eq!(windows.len(), 6);
    assert!(
        windows.iter().all(|row| row["value"]["accumulator"] == 40),
        "closed windows stay closed: {windows:?}"
    );

    // From the end on: only what comes later counts.
    succeed(&mut on(&data, &["reset", "p", "--to", "end", "--yes"]));
    produce(&data, "rides", &rides(300..306));
    run(&data, &file);
    assert_eq!(counted(&data).1, [2, 2, 2]);

    let error = refuse(&mut on(&data, &["reset", "q", "--yes"]));
    assert!(error.contains("pipelines and groups here: `p`"), "{error}");
}

#[test]
fn a_pipeline_that_runs_is_not_reset_and_another_one_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let file = counting(dir.path());
    produce(&data, "rides", &rides(0..30));
    run(&data, &file);
    let mut host = Running::host(&data, &[&file]);
    let error = refuse(&mut on(&data, &["reset", "p", "--yes"]));
    assert!(
        error.contains("runs in the host") && error.contains("SIGTERM"),
        "{error}"
    );
    assert_eq!(rows(&data, &["all"]).len(), 3);
    host.stop(Signal::TERM);

    // Through a host that runs something else, stateful too.
    let text = format!(
        "[stage.c]\nplugin = {:?}\ninput = \"rides\"\nkey = \"VendorID\"\nto = {{ counted = \"other\" }}",
        plugin("count")
    );
    let other = pipeline(dir.path(), "other", &text);
    let mut host = Running::host(&data, &[&other]);
    succeed(&mut on(&data, &["reset", "p", "--yes"]));
    assert!(refuse(&mut on(&data, &["state", "p"])).contains("pipelines with state: `other`"));
    host.stop(Signal::TERM);
    run(&data, &file);
    assert_eq!(counted(&data).1, [10, 10, 10]);
}

#[test]
fn a_reset_that_was_interrupted_is_finished_by_the_next() {
    for point in ["reset-stores-dropped", "commit-built"] {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        let file = counting(dir.path());
        produce(&data, "rides", &rides(0..300));
        run(&data, &file);
        let killed = on(&data, &["reset", "p", "--yes"])
            .env("MILLSTREAM_CRASH_AT", point)
            .output()
            .expect("the program starts");
        assert_eq!(killed.status.code(), None, "it was killed at {point}");
        // Without a reset the state is what it was: made again from the changelogs.
        run(&data, &file);
        assert_eq!(counted(&data).1, [100, 100, 100], "{point}");
        let killed = on(&data, &["reset", "p", "--yes"])
            .env("MILLSTREAM_CRASH_AT", point)
            .output()
            .expect("the program starts");
        assert_eq!(killed.status.code(), None, "it was killed at {point}");
        succeed(&mut on(&data, &["reset", "p", "--yes"]));
        produce(&data, "rides", &rides(300..303));
        run(&data, &file);
        assert_eq!(counted(&data).1, [101, 101, 101], "{point}");
    }
}

#[test]
fn topics_say_what_they_are_and_changelogs_are_rows() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let file = counting(dir.path());
    produce(&data, "rides", &rides(0..3));
    run(&data, &file);
    let kinds: Value = serde_json::from_str(&succeed(&mut on(&data, &["topics", "-o", "json"]))).expect("JSON");
    let kind = |name: &str| {
        kinds
            .as_array()
            .expect("a list")
            .iter()
            .find(|topic| topic["name"] == name)
            .map(|topic| topic["kind"].clone())
    };
    assert_eq!(
        ["rides", "p-minutes-changelog", "p-minutes-repartition"].map(kind),
        ["stream", "table", "internal"].map(|kind| Some(json!(kind)))
    );
    let few = succeed(&mut on(&data, &["topics", "--exclude-internal"]));
    assert!(
        few.contains("rides") && few.contains("p-dlq") && !few.contains("changelog") && !few.contains("repartition"),
        "{few}"
    );
    let text = succeed(&mut on(&data, &["topics", "describe", "p-minutes-changelog"]));
    for line in [
        "the store minutes of the pipeline p",
        "the record's key, 1m window",
        "accumulator: integer",
        "grace  1m",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }

    let rows = lines(&mut on(&data, &["consume", "p-minutes-changelog", "--until-end"]));
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (&rows[0]["window_start"], &rows[0]["value"]),
        (&json!(time(0)), &json!({"accumulator": 1}))
    );
    let rows = lines(&mut on(
        &data,
        &["consume", "p-vendors-counts-changelog", "--until-end"],
    ));
    assert_eq!(rows[0]["value"], json!({"value": 1}));
    let raw = lines(&mut on(
        &data,
        &["consume", "p-vendors-counts-changelog", "--until-end", "--raw"],
    ));
    assert!(raw[0]["key_base64"].is_string(), "{raw:?}");

    let checked = succeed(millstream(["check"]).arg(&file));
    assert_eq!(checked, "p: fine, 1 source, 3 stages\n");
}

#[test]
fn a_pipelines_own_topics_are_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let file = counting(dir.path());
    produce(&data, "rides", &rides(0..30));
    run(&data, &file);
    for topic in ["p-all-changelog", "p-all-repartition"] {
        let said = refuse(&mut on(&data, &["topics", "delete", topic]));
        assert!(said.contains("the pipeline \"p\"'s own"), "{said}");
        assert!(said.contains("millstream reset p"), "{said}");
        let said = feed(&mut on(&data, &["produce", topic]), b"{\"a\":1}\n");
        assert!(!said.status.success());
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("nobody else writes to it"), "{said}");
    }
    // Both are as they were: the pipeline goes on.
    produce(&data, "rides", &rides(30..60));
    run(&data, &file);
    let counts: Vec<_> = rows(&data, &["all"])
        .iter()
        .map(|row| row["value"]["count"].clone())
        .collect();
    assert_eq!(counts.len(), 3, "{counts:?}");
}

#[test]
fn a_first_record_from_the_future_is_remembered_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let text = format!(
        "[stage.once]\nplugin = {:?}\ninput = \"rides\"\nconfig = {{ id = \"/k\", time_to_live = \"1h\" }}\n\
         to = {{ first = \"first\", repeated = \"repeated\" }}",
        plugin("deduplicate"),
    );
    let file = pipeline(dir.path(), "p", &text);
    succeed(&mut on(&data, &["topics", "create", "rides"]));
    for at in ["2099-01-01T00:00:00Z", "2024-05-01T12:00:02Z"] {
        produce(&data, "rides", &format!("{{\"k\":1,\"at\":\"{at}\"}}\n"));
        run(&data, &file);
    }
    let consumed = |topic: &str| lines(&mut on(&data, &["consume", topic, "--until-end"])).len();
    assert_eq!((consumed("first"), consumed("repeated")), (1, 1));
}
