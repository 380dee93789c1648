//! What sound files mean.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::keyed::SUMS;
use super::plugins::Plugins;
use super::{environment, load_text, parse, plan};
use crate::format::{CsvOptions, Format};
use crate::limits::StageLimits;
use crate::pipeline::grammar::{Key, Section, Shape};
use crate::pipeline::keys::FILE;
use crate::pipeline::{
    Destination, Engine, Origin, Pipeline, StageEntry, StageInput, StateLimits, explain, json_schema,
};
use crate::state::TableForm;
use crate::window::{Emit, Window};

/// As short as a person would write it.
pub(super) const TWO_BRANCHES: &str = r#"
[source.rides]
timestamp = "tpep_pickup_datetime"
key = "VendorID"

[stage.split]
plugin = "split.wasm"
input = "rides"
config = { threshold = 40 }

[stage.split.to]
high = "rides-high"
low = "rides-low"
"#;

#[test]
fn two_branches_are_fifteen_lines_and_the_rest_is_default() {
    assert!(TWO_BRANCHES.trim().lines().count() <= 15);
    let pipeline = parse(TWO_BRANCHES).expect("sound");
    assert_eq!((pipeline.name.as_str(), pipeline.engine), ("taxi", Engine::Embedded));
    let source = &pipeline.sources[0];
    assert_eq!(
        (source.name.as_str(), source.topic.as_str(), source.partitions),
        ("rides", "rides", 1)
    );
    assert_eq!(
        (&source.format.value, &source.key_format.value),
        (&Format::Json, &Format::Text)
    );
    assert_eq!(
        source.timestamp.as_ref().map(|pointer| pointer.as_str()),
        Some("/tpep_pickup_datetime")
    );
    assert_eq!(source.key.as_ref().map(|pointer| pointer.as_str()), Some("/VendorID"));
    let stage = &pipeline.stages[0];
    assert_eq!(stage.plugin.value, Path::new("dir/split.wasm"));
    assert!(matches!(&stage.input.value, StageInput::Only(names) if names.len() == 1 && names[0].value == "rides"));
    assert_eq!(
        stage.config.as_ref().map(|config| config.json()),
        Some(r#"{"threshold":40}"#)
    );
    assert_eq!(stage.limits, StageLimits::default());
    assert_eq!((pipeline.dlq.topic.as_str(), pipeline.dlq.partitions), ("taxi-dlq", 1));
    assert_eq!(
        (pipeline.commit.interval, pipeline.commit.bytes_max),
        (Duration::from_millis(100), 8 << 20)
    );
}

#[test]
fn defaults_written_out_are_the_same_pipeline() {
    let written = r#"
        name = "taxi"
        engine = "embedded"
        source.rides = { topic = "rides", format = { json = {} }, key-format = "text", partitions = 1, timestamp = "/tpep_pickup_datetime", key = "/VendorID", future = "60m" }
        state = { memory = "256MiB" }
        dlq = { topic = "taxi-dlq", partitions = 1 }
        commit = { interval = "0.1s", bytes = "8MiB" }
        [stage.split]
        plugin = "split.wasm"
        input = ["rides"]
        config.threshold = 40
        to = { high = { topic = "rides-high" }, low = "rides-low" }
        limits = { memory = "64MiB", time = "1000ms", output = "16MiB", rows = 1000, log-lines = 100 }
        grant = []
    "#;
    assert_eq!(parse(written).expect("sound"), parse(TWO_BRANCHES).expect("sound"));
}

#[test]
fn everything_can_be_said() {
    let pipeline = parse(
        r#"
        name = "${CITY}-taxi"
        commit = { interval = "1s", bytes = "1MB" }
        [source.rides]
        topic = "${CITY}-rides"
        format = { csv = { columns = ["a b", "c/d"], delimiter = ";" } }
        key = "c/d"
        timestamp = "/a b"
        key-format = "json"
        partitions = "${FOUR}"
        future = "5m"
        idle = "30s"
        [stage.s]
        plugin = "/opt/${NONE:-split}.wasm"
        input = { left = "rides", right = ["rides", "t.out"] }
        config = { token = "${TOKEN}", price = "$${amount}", list = [1, 2.5, true, { at = 2020-07-01T00:00:00Z }], big = 0xff }
        limits = { memory = "128MB", time = "500ms", output = "1GB", rows = 10, log-lines = 0 }
        grant = ["clock"]
        to = { high = { topic = "h", format = "text", partitions = 3 }, low = false }
        key = "/c~1d"
        partitions = 6
        window = { hopping = "5m", advance = "1m", grace = "10s", offset = "30s" }
        emit = "every-update"
        [stage.t]
        plugin = "t.wasm"
        input = "rides"
        [dlq]
        topic = "dead"
        partitions = 2
        [state]
        memory = "1GiB"
        quota = "10GB"
        "#,
    )
    .expect("sound");
    assert_eq!(pipeline.name.as_str(), "york-taxi");
    let source = &pipeline.sources[0];
    assert_eq!(source.topic.as_str(), "york-rides");
    assert_eq!(
        source.format.value,
        Format::Csv(CsvOptions {
            columns: vec!["a b".into(), "c/d".into()],
            delimiter: b';'
        })
    );
    assert_eq!(source.key.as_ref().map(|key| key.as_str()), Some("/c~1d"));
    assert_eq!((source.partitions, &source.key_format.value), (4, &Format::Json));
    let stage = &pipeline.stages[0];
    assert_eq!(stage.plugin.value, Path::new("/opt/split.wasm"));
    assert_eq!(
        (source.future_max, source.idle),
        (Duration::from_secs(300), Some(Duration::from_secs(30)))
    );
    assert_eq!(stage.key.as_ref().map(|key| key.as_str()), Some("/c~1d"));
    assert_eq!(stage.partitions.as_ref().map(|partitions| partitions.value), Some(6));
    assert_eq!(stage.emit.as_ref().map(|emit| emit.value), Some(Emit::EveryUpdate));
    let window = Window {
        size_ms: 300_000,
        advance_ms: 60_000,
        offset_ms: 30_000,
        grace_ms: 10_000,
    };
    assert_eq!(stage.window.as_ref().map(|window| window.value), Some(window));
    let state = StateLimits {
        memory_bytes_max: 1 << 30,
        quota_bytes_max: Some(10_000_000_000),
        changelog: TableForm::Json,
    };
    assert_eq!(pipeline.state, state);
    let config = stage.config.as_ref().expect("configured");
    assert_eq!(
        config.json(),
        r#"{"big":255,"list":[1,2.5,true,{"at":"2020-07-01T00:00:00Z"}],"price":"${amount}","token":"s3cret-token"}"#
    );
    assert!(config.shown().contains("${TOKEN}") && !config.shown().contains("s3cret"));
    assert!(
        !format!("{pipeline:?}").contains("s3cret"),
        "secrets are in no debug output"
    );
    let limits = StageLimits {
        memory_bytes_max: 128_000_000,
        call_time_max: Duration::from_millis(500),
        output_bytes_max: 1_000_000_000,
        output_rows_per_row_max: 10,
        log_lines_per_second_max: 0,
    };
    assert_eq!(stage.limits, limits);
    let Destination::Topic(high) = &stage.to[0].1.value else {
        panic!("{:?}", stage.to)
    };
    assert_eq!((high.topic.as_str(), high.partitions), ("h", Some(3)));
    assert_eq!(stage.to[1].1.value, Destination::Dropped);
    assert_eq!((pipeline.dlq.topic.as_str(), pipeline.dlq.partitions), ("dead", 2));
    assert_eq!(
        (pipeline.commit.interval, pipeline.commit.bytes_max),
        (Duration::from_secs(1), 1_000_000)
    );
}

#[test]
fn a_plan_has_everything_resolved() {
    let plan = plan(
        r#"
        source.rides = { partitions = 4 }
        source.other = {}
        [stage.last]
        plugin = "compare.wasm"
        input = { right = ["other", "fee.out"], left = "split.high" }
        to.same = "compared"
        [stage.fee]
        plugin = "enrich.wasm"
        input = "split.high"
        to.out = { topic = "fees", partitions = 2 }
        [stage.split]
        plugin = "split.wasm"
        input = "rides"
        to.low = false
        "#,
    )
    .expect("fits");
    assert_eq!((plan.name.as_str(), plan.group.as_str()), ("taxi", "taxi"));
    let names: Vec<_> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["split", "fee", "last"], "each behind all that feed it");
    let [split, fee, last] = plan.stages.as_slice() else {
        panic!("three stages")
    };
    let entries = |at: usize| split.branches[at].stages.clone();
    assert_eq!(
        entries(0),
        [
            StageEntry {
                stage: 1,
                input: 0,
                feed: 0
            },
            StageEntry {
                stage: 2,
                input: 0,
                feed: 2
            }
        ]
    );
    assert_eq!(entries(1), []);
    assert_eq!(split.branches[1].topic, None);
    assert_eq!(
        fee.branches[0].stages,
        [StageEntry {
            stage: 2,
            input: 1,
            feed: 1
        }]
    );
    let feeds: Vec<_> = last.feeds.iter().map(|feed| (feed.input, feed.from)).collect();
    let branch = |stage, branch| Origin::Branch { stage, branch };
    assert_eq!(feeds, [(1, Origin::Source(1)), (1, branch(1, 0)), (0, branch(0, 0))]);
    for stage in &plan.stages {
        for (at, feed) in stage.feeds.iter().enumerate() {
            if let Origin::Branch { stage: from, branch } = feed.from {
                let back = plan.stages[from].branches[branch].stages.iter().any(|entry| {
                    plan.stages[entry.stage].name == stage.name && entry.feed == at && entry.input == feed.input
                });
                assert!(back, "both ends know of each other");
            }
        }
    }
    let sink = fee.branches[0].topic.as_ref().expect("a topic");
    assert_eq!(
        (sink.topic.as_str(), sink.partitions, &sink.value_format),
        ("fees", Some(2), &Format::Json)
    );
    assert_eq!(
        (split.sources.as_slice(), last.sources.as_slice()),
        (&[0][..], &[0, 1][..])
    );
    assert_eq!(plan.subtopologies, [vec![0, 1]]);
    assert_eq!(
        (plan.dlq.topic.as_str(), plan.dlq.partitions, &plan.dlq.value_format),
        ("taxi-dlq", Some(1), &Format::Raw)
    );
    assert_eq!(split.config.json(), "{}");
    assert_eq!(split.digest.len(), 64);
}

#[test]
fn formats_follow_the_records() {
    let plan = plan(
        r#"
        source.rides = { format = { csv = { columns = ["fare_amount", "tip_amount", "total_amount"] } } }
        source.lines = { format = "text", key-format = "raw" }
        [stage.a-forward]
        plugin = "split.wasm"
        input = "rides"
        to = { high = "h", low = "l" }
        [stage.b-enrich]
        plugin = "enrich.wasm"
        input = "a-forward.high"
        to.out = "e"
        [stage.c-keyed]
        plugin = "rekey.wasm"
        input = "lines"
        to.out = "k"
        [stage.d-bytes]
        plugin = "bytes.wasm"
        input = "lines"
        to.out = { topic = "b", format = "json" }
        [stage.e-line]
        plugin = "line.wasm"
        input = "lines"
        to.out = { topic = "t", format = "text" }
        [stage.f-after]
        plugin = "sink.wasm"
        input = "e-line.out"
        "#,
    )
    .expect("fits");
    let csv = plan.sources[0].format.clone();
    let formats = |name: &str| {
        let stage = plan.stages.iter().find(|stage| stage.name == name).expect(name);
        let sink = stage.branches[0].topic.clone().expect(name);
        (stage.feeds[0].value_format.clone(), sink.value_format, sink.key_format)
    };
    assert_eq!(
        formats("a-forward"),
        (csv.clone(), csv.clone(), Format::Text),
        "forwarded as it is"
    );
    assert_eq!(
        formats("b-enrich"),
        (csv, Format::Json, Format::Text),
        "with fields it becomes JSON"
    );
    assert_eq!(
        formats("c-keyed"),
        (Format::Text, Format::Text, Format::Text),
        "one plain field is a text key"
    );
    assert_eq!(
        formats("d-bytes"),
        (Format::Text, Format::Json, Format::Raw),
        "the file says what the bytes are"
    );
    assert_eq!(formats("e-line"), (Format::Text, Format::Text, Format::Raw));
    let after = plan
        .stages
        .iter()
        .find(|stage| stage.name == "f-after")
        .expect("planned");
    assert_eq!(
        after.feeds[0].value_format,
        Format::Json,
        "between stages it is JSON, whatever the topic's format is"
    );
    assert_eq!(plan.subtopologies, [vec![0], vec![1]]);
}

#[test]
fn types_that_fit_along_a_chain_pass() {
    let chain = |second: &str, third: &str| {
        plan(&format!(
            "source.rides = {{}}\n[stage.a]\nplugin = \"{second}.wasm\"\ninput = \"rides\"\n\
             [stage.b]\nplugin = \"pass.wasm\"\ninput = \"a.out\"\n\
             [stage.c]\nplugin = \"{third}.wasm\"\ninput = \"b.out\"\nto.out = \"done\"\n"
        ))
    };
    chain("summary", "bill").expect("an integer is read as float, members as their object");
    chain("enrich", "bill-text").expect("of what was there before nothing is known");
    let error = chain("enrich", "bill-fee").expect_err("text is not read from integer, through a stage that forwards");
    assert!(
        error.problems()[0].message.contains("the stage `a` writes an integer"),
        "{error:?}"
    );
}

#[test]
fn files_are_loaded_and_missing_ones_are_named() {
    let (pipeline, plan) = load_text(TWO_BRANCHES, &Plugins).expect("fits");
    assert_eq!(pipeline.name.as_str(), plan.name);
    let error = crate::pipeline::load(Path::new("none/taxi.toml"), &environment, &Plugins).expect_err("not there");
    assert_eq!(error.file(), "none/taxi.toml");
    assert!(
        error.problems()[0].message.contains("cannot be read")
            && error.problems()[0]
                .help
                .as_ref()
                .is_some_and(|help| help.contains("path"))
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("taxi.toml");
    std::fs::write(&file, [b'a', 0xff]).expect("written");
    let error = Pipeline::load(&file, &environment).expect_err("not UTF-8");
    assert!(
        error.problems()[0].message.contains("not UTF-8 text: byte 1"),
        "{error:?}"
    );
    std::fs::write(&file, "#".repeat((1 << 20) + 1)).expect("written");
    assert!(
        Pipeline::load(&file, &environment).expect_err("too long").problems()[0]
            .message
            .contains("1048577 bytes")
    );
}

/// Each key of the grammar, with its example, gives another pipeline than the file without it: none is read and
/// forgotten.
#[test]
fn every_key_has_an_effect() {
    let base = "source.s = { format = { csv = { columns = [\"a\"] } } }\n[stage.t]\nplugin = \"p.wasm\"\ninput = \"s\"\nto.b = { topic = \"x\" }\nkey = \"a\"\nwindow = { hopping = \"10m\", advance = \"2m\" }\n";
    let stage = of(&FILE, "stage");
    let sections: [(&str, &Section); 10] = [
        ("", &FILE),
        ("source.s.", of(&FILE, "source")),
        ("stage.t.", stage),
        ("stage.t.limits.", of(stage, "limits")),
        ("stage.t.to.b.", of(stage, "to")),
        ("stage.t.window.", of(stage, "window")),
        ("dlq.", of(&FILE, "dlq")),
        ("kafka.", of(&FILE, "kafka")),
        ("commit.", of(&FILE, "commit")),
        ("state.", of(&FILE, "state")),
    ];
    for (place, section) in sections {
        for Key { name, example, .. } in section.keys {
            let base = match *name {
                // Only with that engine.
                "kafka" => &format!("engine = \"kafka\"\n{base}"),
                _ if place == "kafka." => &format!("engine = \"kafka\"\n{base}"),
                _ => base,
            };
            let mut file: toml::Table = base.parse().expect("TOML");
            match *name {
                // A window has one kind.
                "tumbling" => set(&mut file, "stage.t.window", &format!("{{ tumbling = {example} }}")),
                name => set(&mut file, &format!("{place}{name}"), example),
            }
            let text = file.to_string();
            let with = parse(&text).unwrap_or_else(|error| panic!("the example of {place}{name}: {error:?}"));
            // What the example happens to have in common with the default is not the default.
            assert_ne!(
                with.clone().with_name("n"),
                parse(base)
                    .expect("sound")
                    .with_name(if *name == "name" { "other" } else { "n" }),
                "{place}{name} has no effect"
            );
        }
    }
}

impl Pipeline {
    fn with_name(mut self, name: &str) -> Pipeline {
        self.name.value = name.into();
        self
    }
}

fn of(section: &'static Section, key: &str) -> &'static Section {
    fn inner(shape: &'static Shape) -> Option<&'static Section> {
        match shape {
            Shape::Section(section) => Some(section),
            Shape::Named(each) => inner(each),
            Shape::Any(shapes) => shapes.iter().find_map(inner),
            _ => None,
        }
    }
    inner(&section.key(key).expect(key).shape).expect(key)
}

fn set(file: &mut toml::Table, path: &str, value: &str) {
    let names: Vec<&str> = path.split('.').collect();
    let (last, tables) = names.split_last().expect("a path");
    let mut table = file;
    for name in tables {
        let entry = table
            .entry(*name)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry.as_table_mut().expect("a table");
    }
    let parsed: toml::Table = format!("v = {value}").parse().expect("an example is TOML");
    table.insert((*last).into(), parsed["v"].clone());
}

#[test]
fn the_json_schema_has_the_keys_of_the_grammar() {
    let schema = json_schema();
    let stage = &schema["properties"]["stage"]["additionalProperties"];
    assert_eq!(stage["required"], serde_json::json!(["plugin", "input"]));
    assert_eq!(stage["additionalProperties"], false);
    assert_eq!(
        stage["properties"]["limits"]["properties"]["rows"]["anyOf"][0]["maximum"],
        1_000_000
    );
    let branch = &stage["properties"]["to"]["additionalProperties"]["anyOf"];
    assert_eq!(branch[2], serde_json::json!({ "const": false }));
    assert_eq!(branch[1]["required"], serde_json::json!(["topic"]));
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema).expect("JSON"));
}

/// Each TOML snippet of the page that users read is a pipeline, or becomes one when it is added to the first.
#[test]
fn the_pages_snippets_are_sound() {
    let page = include_str!("../README.md");
    let snippets: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(snippets.len() >= 8, "{} snippets", snippets.len());
    for snippet in &snippets {
        let text = if snippet.contains("[stage.") {
            snippet.to_string()
        } else {
            format!("{snippet}\n{TWO_BRANCHES}")
        };
        plan(&text).unwrap_or_else(|error| panic!("{error:?}"));
    }
    let sums = explain(&plan(SUMS).expect("fits"));
    let (_, tree) = sums.split_once("\n\n").expect("a tree");
    assert!(page.contains(tree.trim()), "the page shows:\n{tree}");
    assert!(
        snippets.contains(&SUMS.trim_start()),
        "the page has the file of that tree"
    );
    let fits = plan(snippets[0]).unwrap_or_else(|error| panic!("{error:?}"));
    let drawn = explain(&fits);
    assert!(page.contains(drawn.trim()), "the page shows:\n{drawn}");
    let misspelt = snippets[0]
        .replace("timestamp", "tiemstamp")
        .replace("high =", "hihg =");
    let report = load_text(&misspelt, &Plugins).expect_err("misspelt").render(100, false);
    let lines: Vec<&str> = report.lines().map(str::trim_end).collect();
    let shown = lines.join("\n").replace(&folder_of(&report), "");
    assert!(page.contains(shown.trim_end()), "the page shows:\n{shown}");
}

/// What stands before the file's name in a report.
fn folder_of(shown: &str) -> String {
    let place = shown.split("─[").nth(1).and_then(|rest| rest.split("taxi.toml").next());
    place.expect("a place").to_owned()
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in ".{0,200}") {
        let _ = parse(&text).map_err(|report| report.render(80, true));
    }

    #[test]
    fn no_toml_is_too_strange(lines in prop::collection::vec(line(), 0..24)) {
        let text = lines.join("\n");
        if let Err(report) = load_checked(&text) {
            prop_assert!(!report.problems().is_empty());
            let _ = serde_json::to_string(&report);
            prop_assert!(report.render(80, false).contains("taxi.toml"));
        }
    }

    #[test]
    fn no_damage_is_too_strange(at in 0..TWO_BRANCHES.len(), length in 0..40usize, put in "[\\[\\]{}=.\"'\n\\\\${a-]{0,6}") {
        let mut text = TWO_BRANCHES.to_owned();
        text.replace_range(at..(at + length).min(TWO_BRANCHES.len()), &put);
        let _ = load_checked(&text).map_err(|report| report.render(80, false));
    }
}

fn load_checked(text: &str) -> Result<(), crate::pipeline::Report> {
    load_text(text, &Plugins).map(|(_, plan)| {
        let _ = explain(&plan);
    })
}

/// Lines of which a pipeline file may be made, and some that it may not.
fn line() -> impl Strategy<Value = String> {
    let header = prop_oneof![
        "source.[ab]",
        "stage.[ab]",
        "stage.[ab].to",
        "stage.[ab].limits",
        "dlq",
        "commit",
        "[a-z.\"]{1,5}"
    ];
    let key = prop_oneof![
        Just("plugin".to_owned()),
        Just("input".to_owned()),
        Just("topic".to_owned()),
        Just("format".to_owned()),
        Just("key".to_owned()),
        Just("partitions".to_owned()),
        Just("high".to_owned()),
        Just("low".to_owned()),
        Just("out".to_owned()),
        Just("config".to_owned()),
        Just("memory".to_owned()),
        Just("window".to_owned()),
        Just("late".to_owned()),
        Just("emit".to_owned()),
        "[a-z.\"]{1,4}"
    ];
    let value = prop_oneof![
        Just("\"split.wasm\"".to_owned()),
        Just("\"enrich.wasm\"".to_owned()),
        Just("\"sum.wasm\"".to_owned()),
        Just("\"1m\"".to_owned()),
        Just("\"close\"".to_owned()),
        Just("{ hopping = \"5m\", advance = \"1m\" }".to_owned()),
        Just("\"a\"".to_owned()),
        Just("\"b\"".to_owned()),
        Just("\"a.high\"".to_owned()),
        Just("\"b.out\"".to_owned()),
        Just("false".to_owned()),
        Just("{ a = [1, \"${CITY}\"] }".to_owned()),
        Just("\"${NONE\"".to_owned()),
        Just("3".to_owned()),
        Just("1e999".to_owned()),
        Just("{ csv = { columns = [\"x\"] } }".to_owned()),
        ".{0,12}"
    ];
    prop_oneof![
        header.prop_map(|header| format!("[{header}]")),
        (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}
