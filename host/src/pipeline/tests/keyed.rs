//! Keys, windows and groups: what a plan holds of them.

use super::plan;
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

#[test]
fn stages_that_keep_something_are_not_too_many_in_one_task() {
    let stages = |count: usize| {
        let stage = |n: usize| {
            let name = format!("{:x<60}{n}", "s");
            format!("[stage.{name}]\nplugin = \"sum.wasm\"\ninput = \"rides\"\nto.totals = \"totals-{n}\"\n")
        };
        plan(&format!(
            "[source.rides]\n{}",
            (0..count).map(stage).collect::<String>()
        ))
    };
    stages(31).expect("their notes have room");
    let report = stages(32).expect_err("one too many");
    let message = &report.problems()[0].message;
    assert!(
        message.contains("32 stages that keep something are fed by the same records") && message.contains("4096"),
        "{message}"
    );
}
