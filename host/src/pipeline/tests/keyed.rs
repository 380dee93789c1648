//! Keys, windows, groups and stores: what a plan holds of them, and what does not fit.

use super::plugins::Plugins;
use super::{Expected, load_text, misfit, plan};
use crate::format::Format;
use crate::limits::FUTURE_TIME_MAX;
use crate::pipeline::{Feed, Origin, Repartition, RepartitionFeed, StageEntry};
use crate::schema::PluginKind;
use crate::window::{Emit, Window};
use std::time::Duration;

/// A window is two lines more than a pipeline without.
pub(super) const SUMS: &str = r#"
[source.rides]
timestamp = "tpep_pickup_datetime"

[stage.sum]
plugin = "sum.wasm"
input = "rides"
key = "VendorID"
window = "1m"

[stage.sum.to]
totals = "totals"
late = false
"#;

#[test]
fn a_keyed_windowed_aggregator_is_planned() {
    assert!(SUMS.trim().lines().count() <= 15);
    let plan = plan(SUMS).expect("fits");
    let names: Vec<_> = plan.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["rides", "taxi-sum-repartition"]);
    let internal = &plan.sources[1];
    assert_eq!(internal.topic, "taxi-sum-repartition");
    assert_eq!((internal.repartition, internal.partitions), (Some(0), 1));
    assert_eq!((&internal.format, &internal.key_format), (&Format::Json, &Format::Text));
    assert_eq!((&internal.key_from, &internal.time_from), (&None, &None));
    assert_eq!((internal.future_max, internal.idle), (FUTURE_TIME_MAX, None));
    let repartition = Repartition {
        from: vec![RepartitionFeed {
            from: Origin::Source(0),
            value_format: Format::Json,
        }],
        key_from: "/VendorID".into(),
        stage: 0,
        input: 0,
        source: 1,
        partitions: None,
    };
    assert_eq!(plan.repartitions, [repartition]);
    let sum = &plan.stages[0];
    assert_eq!(
        (sum.kind, sum.key.as_deref()),
        (PluginKind::Aggregator, Some("/VendorID"))
    );
    let feed = Feed {
        input: 0,
        from: Origin::Source(1),
        value_format: Format::Json,
        key_format: Format::Text,
    };
    assert_eq!((sum.feeds.as_slice(), sum.sources.as_slice()), (&[feed][..], &[1][..]));
    let window = Window {
        size_ms: 60_000,
        advance_ms: 60_000,
        offset_ms: 0,
        grace_ms: 0,
    };
    assert_eq!((sum.window, sum.emit), (Some(window), Emit::Update));
    assert_eq!(sum.accumulator.as_ref().map(|kept| kept.fields.len()), Some(2));
    let late = sum.late.as_ref().expect("a window has late records");
    assert_eq!((&late.topic, late.stages.as_slice()), (&None, &[][..]));
    assert_eq!((&late.value_format, &late.key_format), (&Format::Json, &Format::Text));
    assert_eq!(sum.unkeyed, None, "dead letters");
    let written = sum.written_branch(&sum.signature.branches[0]);
    let fields: Vec<_> = written.fields.iter().map(|field| field.place.to_string()).collect();
    assert_eq!(
        fields,
        [
            "value:/total",
            "value:/rides",
            "value:/window_start",
            "value:/window_end"
        ]
    );
    assert_eq!(
        plan.subtopologies,
        [vec![0], vec![1]],
        "other tasks run what is behind the topic"
    );
}

#[test]
fn internal_topics_lead_from_branches_and_meet() {
    let plan = plan(
        r#"
        state = { memory = "1GiB", quota = "10GB" }
        source.rides = { partitions = 2, future = "5m", idle = "30s" }
        source.trips = { partitions = 3, format = { csv = { columns = ["id"] } }, idle = "1m", future = "1m" }
        source.zones = { partitions = 4 }
        [stage.split]
        plugin = "split.wasm"
        input = "rides"
        to.low = false
        [stage.both]
        plugin = "sum-both.wasm"
        input = { right = ["split.high", "rides"], left = "trips" }
        key = "id"
        to.out = "both"
        [stage.again]
        plugin = "total.wasm"
        input = "seen.new"
        key = "/id"
        partitions = 6
        window = { hopping = "5m", advance = "1m", grace = "10s", offset = "30s" }
        emit = "close"
        to.out = "again"
        [stage.seen]
        plugin = "seen.wasm"
        input = "zones"
        [stage.beside]
        plugin = "compare.wasm"
        input = { left = "again.late", right = "again.unkeyed" }
        to.same = false
        "#,
    )
    .expect("fits");
    let names: Vec<_> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["split", "both", "seen", "again", "beside"]);
    let internal: Vec<_> = plan.sources[3..]
        .iter()
        .map(|source| {
            (
                source.topic.as_str(),
                source.format.to_string(),
                source.future_max,
                source.idle,
            )
        })
        .collect();
    let seconds = Duration::from_secs;
    assert_eq!(
        internal,
        [
            (
                "taxi-both-right-repartition",
                "json".into(),
                seconds(300),
                Some(seconds(60))
            ),
            (
                "taxi-both-left-repartition",
                "csv".into(),
                seconds(300),
                Some(seconds(60))
            ),
            ("taxi-again-repartition", "json".into(), FUTURE_TIME_MAX, None),
        ],
        "they take after the sources that come to their stage"
    );
    let from: Vec<_> = plan
        .repartitions
        .iter()
        .map(|one| {
            (
                one.stage,
                one.input,
                one.source,
                one.from.iter().map(|feed| feed.from).collect::<Vec<_>>(),
            )
        })
        .collect();
    let branch = |stage, branch| Origin::Branch { stage, branch };
    assert_eq!(
        from,
        [
            (1, 1, 3, vec![branch(0, 0), Origin::Source(0)]),
            (1, 0, 4, vec![Origin::Source(1)]),
            (3, 0, 5, vec![branch(2, 0)])
        ]
    );
    assert_eq!(plan.repartitions_of(Origin::Source(0)).collect::<Vec<_>>(), [0]);
    assert_eq!(plan.repartitions_of(branch(2, 0)).collect::<Vec<_>>(), [2]);
    let reached: Vec<_> = plan.stages.iter().map(|stage| stage.sources.as_slice()).collect();
    // What is late for `again` was in its topic, and what has no key for it never comes there.
    assert_eq!(reached, [&[0][..], &[3, 4], &[2], &[5], &[2, 5]]);
    assert_eq!(plan.subtopologies, [vec![0], vec![1], vec![2, 5], vec![3, 4]]);
    let entry = |feed, input| StageEntry { stage: 4, input, feed };
    let late = plan.stages[3].late.as_ref().expect("a window");
    assert_eq!(late.stages, [entry(0, 0)]);
    assert_eq!(
        plan.stages[1].unkeyed, None,
        "nobody reads it, so its two formats are nobody's trouble"
    );
    let unkeyed = plan.stages[3].unkeyed.as_ref().expect("read");
    assert_eq!(unkeyed.stages, [entry(1, 1)]);
    let feeds: Vec<_> = plan.stages[4].feeds.iter().map(|feed| feed.from).collect();
    assert_eq!(feeds, [Origin::Late { stage: 3 }, Origin::Unkeyed { stage: 3 }]);
    assert_eq!(
        (plan.state.memory_bytes_max, plan.state.quota_bytes_max),
        (1 << 30, Some(10_000_000_000))
    );
}

/// The topic of `again` is read together with the source of its unkeyed records.
#[test]
fn an_internal_topic_has_the_partitions_of_what_it_meets() {
    let text = |partitions: &str| {
        format!(
            "source.rides = {{ partitions = 2 }}\nsource.zones = {{ partitions = 8 }}\n\
             [stage.count]\nplugin = \"total.wasm\"\ninput = \"zones\"\nkey = \"id\"\nto.out = false\n{partitions}\n\
             [stage.beside]\nplugin = \"compare.wasm\"\ninput = {{ left = \"rides\", right = \"count.out\" }}\n\
             to.same = false\n"
        )
    };
    let of = |text: &str, rides: u32, zones: u32| {
        let plan = plan(text).expect("fits");
        plan.repartition_partitions(0, |source| if source.topic == "rides" { rides } else { zones })
    };
    let alone = text("").replace("right = \"count.out\"", "right = \"rides\"");
    let dropped = text("").replace("to.out = false\n", "");
    assert_eq!(of(&alone, 2, 8), 8, "the largest source");
    assert_eq!(of(&dropped, 2, 8), 2, "the source that it meets");
    assert_eq!(of(&dropped, 3, 8), 3, "as its topic is, whatever the file says");
    assert_eq!(plan(&dropped).expect("fits").sources[2].partitions, 2);
    assert_eq!(
        of(&text("partitions = 5").replace("to.out = false\n", ""), 2, 8),
        5,
        "as the file says"
    );
}

#[test]
fn what_is_written_behind_a_window_is_known() {
    let behind = |plugin: &str, window: &str| {
        plan(&format!(
            "source.rides = {{}}\n[stage.sum]\nplugin = \"sum.wasm\"\ninput = \"rides\"\n{window}\n\
             [stage.next]\nplugin = \"{plugin}.wasm\"\ninput = \"sum.totals\"\n"
        ))
    };
    let window = "window = \"1m\"\nto.late = false";
    behind("bounds", window).expect("times");
    let problem = |plugin, window| {
        behind(plugin, window).expect_err("does not fit").problems()[0]
            .message
            .clone()
    };
    let message = problem("bounds-integer", window);
    assert!(
        message.contains("as integer, but the stage `sum` writes a time there"),
        "{message}"
    );
    let message = problem("bounds", "");
    assert!(message.contains("`sum.totals` does not have it"), "{message}");
}

/// A file with one stage, `s`, of a plugin, with these lines.
fn stage(plugin: &str, lines: &str) -> String {
    format!("source.rides = {{}}\n[stage.s]\nplugin = \"{plugin}.wasm\"\ninput = \"rides\"\n{lines}\n")
}

#[test]
fn stages_that_have_no_such_thing() {
    let to = "to = { out = false, late = false }";
    let cases: [(String, &[Expected<'_>]); 9] = [
        (
            stage("pass", "window = \"1m\"\nemit = \"close\"\nto.out = false"),
            &[
                (
                    "the stage `s` has `window`, but the plugin `pass` is a processor",
                    "\"1m\"",
                    "exports `aggregator`",
                ),
                (
                    "the stage `s` has `emit`, but the plugin `pass` is a processor",
                    "\"close\"",
                    "remove `emit`",
                ),
            ],
        ),
        (
            stage("total", "window = \"1m\"\nto.out = false"),
            &[(
                "what comes too late for the windows of the stage `s` goes nowhere",
                "\"1m\"",
                "under [stage.s.to] add `late = \"topic\"`, or `late = false` to drop its records, or let a stage read \"s.late\"",
            )],
        ),
        (
            stage("total", "to = { out = false, late = false, unkeyed = false }"),
            &[(
                "the plugin `total` of the stage `s` has no branch `late`",
                "late",
                "add `window = \"1m\"`",
            )],
        ),
        (
            stage("pass", "to = { out = false, unkeyed = \"u\" }"),
            &[(
                "the plugin `pass` of the stage `s` has no branch `unkeyed`",
                "unkeyed",
                "and of stages with a `key`: add `key = \"FIELD\"`",
            )],
        ),
        (
            stage(
                "pass",
                "to.out = false\n[stage.t]\nplugin = \"sink.wasm\"\ninput = \"s.late\"",
            ),
            &[(
                "the stage `s` has no branch `late`",
                "\"s.late\"",
                "add `window = \"1m\"`",
            )],
        ),
        (
            stage(
                "total",
                "to = { out = false, unkeyed = false }\n[stage.t]\nplugin = \"sink.wasm\"\ninput = \"s.unkeyed\"",
            ),
            &[(
                "the branch `unkeyed` of the stage `s` is dropped, and read",
                "false",
                "remove the `false`",
            )],
        ),
        (
            stage(
                "total",
                &format!(
                    "window = \"1m\"\n{}",
                    to.replace("late = false", "late = { topic = \"l\", format = \"text\" }")
                ),
            ),
            &[(
                "the branch `late` of the stage `s` cannot be written as text: the branch forwards values as they are, which is json",
                "\"text\"",
                "leave `format` out",
            )],
        ),
        (
            stage(
                "total-bounds",
                "window = \"1m\"\nto = { out = false, whole = false, late = false }",
            ),
            &[
                (
                    "the plugin `total-bounds` writes its field `start` of the branch `out` to `/window_start`, where the results of a window have `window_start`",
                    "\"total-bounds.wasm\"",
                    "the plugin's author has to write it to another member",
                ),
                (
                    "writes its field `all` of the branch `whole` to the whole value",
                    "\"total-bounds.wasm\"",
                    "do without `window`",
                ),
            ],
        ),
        (
            stage(
                "total-strays",
                "window = \"1m\"\nto = { late = false, unkeyed = false }",
            ),
            &[
                (
                    "the plugin `total-strays` declares a branch `late`, but in the stage `s` this is where the host sends what comes too late",
                    "\"total-strays.wasm\"",
                    "the plugin's author has to give the branch another name, or the pipeline has to do without `window`",
                ),
                (
                    "declares a branch `unkeyed`, but in the stage `s` this is where the host sends what has no key",
                    "\"total-strays.wasm\"",
                    "the plugin's author has to give the branch another name",
                ),
            ],
        ),
    ];
    for (text, expected) in &cases {
        misfit(text, expected);
    }
    for text in [
        stage("total-bounds", "to = { out = false, whole = false }"),
        stage("strays", "to = { late = false, unkeyed = false }"),
        stage("total", "emit = \"every-update\"\nto.out = false"),
        stage("pass", "key = \"id\"\nto.out = false"),
        stage("total", &format!("window = \"1m\"\n{to}")),
        stage(
            "total",
            "window = \"1m\"\nto.out = false\n[stage.t]\nplugin = \"sink.wasm\"\ninput = \"s.late\"",
        ),
    ] {
        plan(&text).unwrap_or_else(|error| panic!("{error:?}"));
    }
    misfit(
        &stage("strays", "key = \"id\"\nto = { late = false, unkeyed = false }"),
        &[(
            "declares a branch `unkeyed`",
            "\"strays.wasm\"",
            "do without `key` here",
        )],
    );
}

#[test]
fn keys_that_no_record_has() {
    let csv = "{ csv = { columns = [\"VendorID\", \"fare\"] } }";
    let cases: [(&str, &str, &str, Option<Expected<'_>>); 10] = [
        ("\"json\"", "rides", "any/thing", None),
        (csv, "rides", "VendorID", None),
        (csv, "rides", "", None),
        ("\"text\"", "rides", "", None),
        ("\"raw\"", "rides", "", None),
        (
            csv,
            "rides",
            "vendorId",
            Some((
                "`key` of the stage `s` is \"/vendorId\", but `rides` has no such column",
                "\"vendorId\"",
                "did you mean `/VendorID`? its columns: `/VendorID`, `/fare`",
            )),
        ),
        (
            "\"text\"",
            "rides",
            "id",
            Some((
                "`key` of the stage `s` is \"/id\", but what `rides` gives is text, which has no members",
                "\"id\"",
                "`key = \"\"` takes the whole value",
            )),
        ),
        (
            "\"raw\"",
            "rides",
            "id",
            Some((
                "but what `rides` gives is raw, which has no members",
                "\"id\"",
                "`format = \"json\"`",
            )),
        ),
        (
            "\"json\"",
            "made.out",
            "faer",
            Some((
                "`key` of the stage `s` is \"/faer\", but `made.out` does not have it",
                "\"faer\"",
                "did you mean `/fare`? it has: `/fare`, `/zone/borough`",
            )),
        ),
        (
            "\"json\"",
            "made.out",
            "/fare/x",
            Some((
                "but the stage `made` writes integer above it",
                "\"/fare/x\"",
                "name a field",
            )),
        ),
    ];
    for (format, input, key, expected) in cases {
        let text = format!(
            "source.rides = {{ format = {format} }}\n[stage.made]\nplugin = \"summary.wasm\"\ninput = \"rides\"\nto.out = \"m\"\n\
             [stage.s]\nplugin = \"pass.wasm\"\ninput = \"{input}\"\nkey = \"{key}\"\nto.out = \"o\"\n"
        );
        match expected {
            Some(expected) => misfit(&text, &[expected]),
            None => drop(plan(&text).unwrap_or_else(|error| panic!("{error:?}"))),
        }
    }
    misfit(
        &stage("pass", "key = \"a~b\"\nto.out = false").replace("a~b", "/a~b"),
        &[("`key` of the stage `s` is \"/a~b\": in a JSON Pointer", "\"/a~b\"", "")],
    );
    misfit(
        &stage("by-key", "key = \"id\""),
        &[(
            "reads its field `id` (`/id` in the key) as integer, but what `rides` gives is text",
            "\"rides\"",
            "a stage's `key` makes text keys",
        )],
    );
    misfit(
        &format!(
            "source.lines = {{ format = \"text\" }}\n{}",
            stage("pass", "key = \"\"\nto.out = false").replace("input = \"rides\"", "input = [\"rides\", \"lines\"]")
        ),
        &[
            (
                "the branch `out` of the stage `s` forwards values of two formats",
                "[\"rides\", \"lines\"]",
                "",
            ),
            (
                "values of two formats come to the stage `s` through its internal topic: json and text",
                "\"lines\"",
                "a stage each",
            ),
        ],
    );
}

#[test]
fn internal_topics_that_meet_others() {
    let counts = |first: &str, second: &str, plugins: [&str; 2]| {
        format!(
            "source.rides = {{}}\n[stage.{first}]\nplugin = \"{}.wasm\"\ninput = \"rides\"\n\
             [stage.{second}]\nplugin = \"{}.wasm\"\ninput = \"rides\"\n",
            plugins[0], plugins[1]
        )
    };
    // The store `b-counts` of `a`, and `counts` of `a-b`.
    let same = counts("a", "a-b", ["seen", "count"]).replacen("[stage.a-b]", "to.new = false\n[stage.a-b]", 1);
    misfit(
        &format!("{same}to.out = false"),
        &[(
            "the stages `a` and `a-b` would share the topic `taxi-a-b-counts-changelog`: the first keeps its store `b-counts` there, the second its store `counts`",
            "a-b",
            "another name",
        )],
    );
    let long = "s".repeat(64);
    let text = stage("sum-both", "key = \"id\"\nto.out = false")
        .replace("stage.s", &format!("stage.{long}"))
        .replace("input = \"rides\"", "input = { left = \"rides\", right = \"rides\" }");
    let text = format!("name = \"{}\"\ndlq.topic = \"d\"\n{text}", "n".repeat(176));
    let (left, right) = ("what comes to its input `left`", "what comes to its input `right`");
    misfit(
        &text,
        &[
            (
                &format!("the stage `{long}` keeps its groups in the topic \"nnn"),
                &long,
                "another name",
            ),
            (left, "\"id\"", "another name"),
            (right, "\"id\"", ""),
        ],
    );
    let topics = "source.rides = {}\nsource.x = { topic = \"taxi-s-changelog\" }\n[stage.s]\nplugin = \"total.wasm\"\n\
                  input = [\"rides\", \"x\"]\nkey = \"id\"\nto.out = \"taxi-s-repartition\"\n";
    misfit(
        topics,
        &[
            (
                "the stage `s` keeps its groups in the topic `taxi-s-changelog`, but a source reads it",
                "\"taxi-s-changelog\"",
                "another name",
            ),
            (
                "keeps what comes to it by its `key` in the topic `taxi-s-repartition`, but a branch is written to it",
                "\"taxi-s-repartition\"",
                "",
            ),
        ],
    );
    misfit(
        &format!("dlq.topic = \"taxi-s-changelog\"\n{}", stage("total", "to.out = false")),
        &[("but it is the dead-letter queue", "\"taxi-s-changelog\"", "")],
    );
    misfit(
        &stage("spaced", "to.out = false"),
        &[(
            "keeps its store `my counts` in the topic \"taxi-s-my counts-changelog\", which has ' ' in it",
            "s",
            "",
        )],
    );
    let meet = |second: u32| {
        format!(
            "source.rides = {{}}\n[stage.a]\nplugin = \"total.wasm\"\ninput = \"rides\"\nkey = \"id\"\npartitions = 4\n\
             [stage.b]\nplugin = \"total.wasm\"\ninput = \"rides\"\nkey = \"id\"\npartitions = {second}\n\
             [stage.c]\nplugin = \"compare.wasm\"\ninput = {{ left = \"a.unkeyed\", right = [\"a.out\", \"b.out\"] }}\nto.same = false\n"
        )
    };
    plan(&meet(4)).expect("the same number");
    misfit(
        &meet(5),
        &[(
            "the stage `b` wants 5 partitions, and `a` wants 4",
            "5",
            "say the same one",
        )],
    );
}

#[test]
fn a_variable_is_a_number_where_the_plugin_wants_one() {
    let text = |threshold: &str| {
        stage(
            "typed",
            &format!("config = {{ threshold = {threshold} }}\nto.out = false"),
        )
    };
    for threshold in ["\"${FOUR}\"", "\"${NONE:-4}\"", "4"] {
        let (_, plan) = load_text(&text(threshold), &Plugins).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(plan.stages[0].config.json(), "{\"threshold\":4}", "{threshold}");
    }
    let (_, plan) = load_text(&text("\"${FOUR}\""), &Plugins).expect("fits");
    assert_eq!(plan.stages[0].config.shown(), "{\"threshold\":\"${FOUR}\"}");
    for threshold in ["\"4\"", "\"${CITY}\"", "\"${FOUR}${FOUR}\""] {
        misfit(
            &text(threshold),
            &[(
                "`threshold` is no integer",
                &format!("{{ threshold = {threshold} }}"),
                "",
            )],
        );
    }
}
