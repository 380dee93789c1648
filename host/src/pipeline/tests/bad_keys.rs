//! Keys, windows, groups and stores that do not go with the plugins and with each other.

use super::plugins::Plugins;
use super::{Expected, load_text, misfit, plan};
use crate::format::{CsvOptions, Decoder, Format, key_and_time_fields};

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

/// What a task would refuse when it starts is refused before.
#[test]
fn fields_of_sources_are_checked_as_tasks_read_them() {
    let csv = Format::Csv(CsvOptions {
        columns: vec!["id".into(), "a/b".into()],
        delimiter: b',',
    });
    let formats = [
        ("\"json\"", Format::Json),
        ("\"text\"", Format::Text),
        ("\"raw\"", Format::Raw),
        ("{ csv = { columns = [\"id\", \"a/b\"] } }", csv),
    ];
    let mut refused = 0;
    for (written, format) in &formats {
        for (named, pointer) in [
            ("", ""),
            ("id", "/id"),
            ("/id", "/id"),
            ("a/b", "/a~1b"),
            ("/id/x", "/id/x"),
            ("/none", "/none"),
            ("/a~b", "/a~b"),
        ] {
            for key in ["key", "timestamp"] {
                let (key_from, time_from) = if key == "key" {
                    (Some(pointer), None)
                } else {
                    (None, Some(pointer))
                };
                let fields = key_and_time_fields(format, key_from, time_from);
                let runs = Decoder::new(format, &Format::Text, &fields).is_ok();
                let text = format!(
                    "source.rides = {{ format = {written}, {key} = \"{named}\" }}\n[stage.s]\nplugin = \"sink.wasm\"\ninput = \"rides\"\n"
                );
                let checked = plan(&text);
                assert_eq!(checked.is_ok(), runs, "{written} {key} {pointer:?}: {checked:?}");
                refused += usize::from(!runs);
            }
        }
    }
    assert!(refused >= 20, "{refused} were refused");
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
